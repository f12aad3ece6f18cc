//! A registry that others wrote: Debian's `docker-registry`, filled by `skopeo`.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

use super::{client, fetch, noise, server};
use crate::registry::{Error, Reference};

/// The process ends with the test.
struct Distribution {
    child: Child,
    host: String,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Distribution {
    /// Starts on a free port, or says on stderr that the binary is not there.
    fn start(dir: &Path) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'}}\n",
            dir.join("storage").display()
        );
        fs::write(dir.join("config.yml"), config).unwrap();
        let spawned = Command::new("docker-registry")
            .arg("serve")
            .arg(dir.join("config.yml"))
            .env_clear()
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        let mut child = match spawned {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return skip("docker-registry"),
            spawned => spawned.unwrap(),
        };
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let server = Self { child, host: format!("127.0.0.1:{port}") };
        let mut line = String::new();
        while !line.contains("listening on") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "docker-registry ended before it listened");
        }
        // Nobody reads on, and a full pipe would stop it.
        std::thread::spawn(move || io::copy(&mut log, &mut io::sink()));
        Some(server)
    }
}

fn skip<T>(what: &str) -> Option<T> {
    writeln!(io::stderr(), "SKIP: {what} is not installed").unwrap();
    None
}

/// Writes an OCI layout with one image of two layers.
fn write_layout(dir: &Path, layers: [&[u8]; 2]) {
    let blobs = dir.join("blobs/sha256");
    fs::create_dir_all(&blobs).unwrap();
    let put = |media_type: &str, bytes: &[u8]| {
        let digest = server::sha256(bytes);
        fs::write(blobs.join(digest.trim_start_matches("sha256:")), bytes).unwrap();
        format!(r#"{{"mediaType":"{media_type}","digest":"{digest}","size":{}"#, bytes.len())
    };
    let config = r#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#;
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{}}},"layers":[{}}},{}}}]}}"#,
        server::OCI.manifest,
        put(server::OCI.config, config.as_bytes()),
        put(server::OCI.layer, layers[0]),
        put(server::OCI.layer, layers[1]),
    );
    let entry = put(server::OCI.manifest, manifest.as_bytes());
    let index = format!(
        r#"{{"schemaVersion":2,"manifests":[{entry},"annotations":{{"org.opencontainers.image.ref.name":"x"}}}}]}}"#
    );
    fs::write(dir.join("index.json"), index).unwrap();
    fs::write(dir.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#).unwrap();
}

#[test]
fn what_skopeo_pushed_to_docker_registry_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = Distribution::start(dir.path()) else { return };
    let layers = [noise(300_000), b"small".to_vec()];
    write_layout(&dir.path().join("layout"), [&layers[0], &layers[1]]);
    let name = format!("{}/org/app:x", registry.host);
    let copied = Command::new("skopeo")
        .args(["copy", "--quiet", "--insecure-policy", "--preserve-digests", "--dest-tls-verify=false"])
        .arg(format!("oci:{}:x", dir.path().join("layout").display()))
        .arg(format!("docker://{name}"))
        .stdin(Stdio::null())
        .output();
    match copied {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return skip("skopeo").unwrap_or_default(),
        copied => {
            let copied = copied.unwrap();
            assert!(copied.status.success(), "{}", String::from_utf8_lossy(&copied.stderr));
        }
    }
    let client = client();
    let reference: Reference = name.parse().unwrap();
    let manifest = client.resolve(&reference).unwrap();
    assert_eq!(manifest.media_type, server::OCI.manifest);
    assert_eq!(client.head_manifest(&reference).unwrap().unwrap().digest, manifest.digest);
    assert_eq!(client.manifest_by_digest(&reference, manifest.digest).unwrap(), manifest);
    for layer in &layers {
        assert_eq!(&fetch(&client, &reference, layer).unwrap(), layer);
        let digest = server::sha256(layer).parse().unwrap();
        assert_eq!(client.blob_size(&reference, digest).unwrap(), Some(layer.len() as u64));
    }
    assert_eq!(client.tags(&reference).unwrap(), ["x"]);
    let error = client.resolve(&format!("{}/org/app:y", registry.host).parse().unwrap()).unwrap_err();
    assert!(matches!(&error, Error::NotFound { detail, .. } if detail.contains("MANIFEST_UNKNOWN")), "{error:?}");
    let other = server::sha256(b"nowhere").parse().unwrap();
    assert!(client.blob(&reference, other, 7).is_err_and(|error| matches!(error, Error::NotFound { .. })));
    // A reader that is dropped in the middle leaves the client usable.
    let mut reader = client.blob(&reference, server::sha256(&layers[0]).parse().unwrap(), 300_000).unwrap();
    reader.read_exact(&mut [0; 10]).unwrap();
    drop(reader);
    client.resolve(&reference).unwrap();
}
