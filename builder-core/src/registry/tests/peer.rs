//! A registry that others wrote: Debian's `docker-registry`, filled by `skopeo`.

use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::{fs, io};

use super::{client, config, fetch, noise, server};
use crate::digest::Digest;
use crate::registry::{Client, ClientConfig, Error, Reference, Roots, Upload, Uploaded};

#[derive(Clone, Copy)]
enum Protocol {
    Http,
    /// And with it HTTP/2.
    Https,
}

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
    fn start(dir: &Path, protocol: Protocol) -> Option<Self> {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let certs = std::path::absolute("tests/support/certs").unwrap();
        let certs = certs.display();
        let tls = match protocol {
            Protocol::Http => String::new(),
            Protocol::Https => format!(", tls: {{certificate: {certs}/server.crt, key: {certs}/server.key}}"),
        };
        let config = format!(
            "version: 0.1\nlog: {{level: info, accesslog: {{disabled: true}}}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\nhttp: {{addr: '127.0.0.1:{port}'{tls}}}\n",
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
    writeln!(io::stderr(), "SKIP registry peers: {what} is not installed").unwrap();
    None
}

/// Runs `skopeo`; returns whether it is there.
fn skopeo(args: &[&str]) -> bool {
    let done = Command::new("skopeo").args(["--insecure-policy"]).args(args).stdin(Stdio::null()).output();
    match done {
        Err(error) if error.kind() == io::ErrorKind::NotFound => skip::<()>("skopeo").is_some(),
        done => {
            let done = done.unwrap();
            assert!(done.status.success(), "skopeo {args:?}: {}", String::from_utf8_lossy(&done.stderr));
            true
        }
    }
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
    let Some(registry) = Distribution::start(dir.path(), Protocol::Http) else { return };
    let layers = [noise(300_000), b"small".to_vec()];
    let layout = dir.path().join("layout");
    write_layout(&layout, [&layers[0], &layers[1]]);
    let name = format!("{}/org/app:x", registry.host);
    if !skopeo(&[
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        &format!("oci:{}:x", layout.display()),
        &format!("docker://{name}"),
    ]) {
        return;
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

#[test]
fn what_we_push_to_docker_registry_is_read_by_skopeo() {
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = Distribution::start(dir.path(), Protocol::Http) else { return };
    let client = client();
    let reference: Reference = format!("{}/org/app:x", registry.host).parse().unwrap();
    client.check_push(&reference).unwrap();
    let config = br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#.to_vec();
    let blobs = [config, noise(3_000_000), noise(10), Vec::new()];
    let push = |reference: &Reference, blob: &[u8], mount_from| {
        let owned = blob.to_vec();
        let open = |offset: u64| -> io::Result<Box<dyn io::Read + Send>> {
            Ok(Box::new(io::Cursor::new(owned[usize::try_from(offset).unwrap()..].to_vec())))
        };
        let upload =
            Upload { digest: Digest::of(blob), size: blob.len() as u64, bring: &|| Ok(()), open: &open, mount_from };
        client.push_blob(reference, upload).unwrap()
    };
    for blob in &blobs {
        assert_eq!(push(&reference, blob, None), Uploaded::Sent);
        assert_eq!(push(&reference, blob, None), Uploaded::Existed);
    }
    let second: Reference = format!("{}/second:y", registry.host).parse().unwrap();
    assert_eq!(push(&second, &blobs[1], Some("org/app")), Uploaded::Mounted);
    let descriptor = |media_type: &str, bytes: &[u8]| {
        format!(r#"{{"mediaType":"{media_type}","digest":"{}","size":{}}}"#, server::sha256(bytes), bytes.len())
    };
    let manifest = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{},{}]}}"#,
        server::OCI.manifest,
        descriptor(server::OCI.config, &blobs[0]),
        descriptor(server::OCI.layer, &blobs[1]),
        descriptor(server::OCI.layer, &blobs[2]),
    );
    let digest = client.push_manifest(&reference, server::OCI.manifest, manifest.as_bytes()).unwrap().digest;
    assert_eq!(client.resolve(&reference).unwrap().digest, digest);
    let layout = dir.path().join("copied");
    if skopeo(&[
        "copy",
        "--preserve-digests",
        "--src-tls-verify=false",
        &format!("docker://{reference}"),
        &format!("oci:{}:x", layout.display()),
    ]) {
        for blob in &blobs[..3] {
            assert_eq!(&fs::read(layout.join("blobs/sha256").join(Digest::of(blob).hex())).unwrap(), blob);
        }
    }
}

#[test]
fn many_blobs_share_one_connection_by_http2() {
    let dir = tempfile::tempdir().unwrap();
    let Some(registry) = Distribution::start(dir.path(), Protocol::Https) else { return };
    let roots =
        Roots { extra: vec![include_str!("../../../tests/support/certs/ca.crt").to_owned()], ..Roots::default() };
    let client = Client::new(ClientConfig { roots, ..config() });
    let reference: Reference = format!("{}/org/app:x", registry.host).parse().unwrap();
    let blob = noise(6_000_000);
    let owned = blob.clone();
    let open = |offset: u64| -> io::Result<Box<dyn io::Read + Send>> {
        Ok(Box::new(io::Cursor::new(owned[usize::try_from(offset).unwrap()..].to_vec())))
    };
    let upload =
        Upload { digest: Digest::of(&blob), size: blob.len() as u64, bring: &|| Ok(()), open: &open, mount_from: None };
    assert_eq!(client.push_blob(&reference, upload).unwrap(), Uploaded::Sent);
    // Readers that stand still, with more than a window of bytes each, must not stop the others.
    let mut waiting: Vec<_> =
        (0..8).map(|_| client.blob(&reference, Digest::of(&blob), blob.len() as u64).unwrap()).collect();
    assert_eq!(fetch(&client, &reference, &blob).unwrap(), blob);
    for reader in &mut waiting {
        assert_eq!(io::copy(reader, &mut io::sink()).unwrap(), blob.len() as u64);
    }
}
