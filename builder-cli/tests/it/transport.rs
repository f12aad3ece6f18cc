//! How registries are reached: certificates, proxies, files of credentials; and what is never fetched twice.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto::ring};
use serde_json::json;

use crate::registry::server::{Auth, Registry, sha256};
use crate::registry::{add_base, add_layers, count};
use crate::support::{Env, Run, busybox_rootfs, busybox_rootfs_with};

/// Certificates of an authority of the tests.
pub(crate) const CERTS: &str = "../builder-core/tests/support/certs";

/// A registry with a certificate of a private authority that lets in who has one of the same authority.
fn closed_registry() -> Registry {
    let read = |name: &str| fs::read(Path::new(CERTS).join(name)).unwrap();
    let certificate = |name: &str| CertificateDer::from_pem_slice(&read(name)).unwrap();
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    roots.add(certificate("ca.crt")).unwrap();
    let clients = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone()).build().unwrap();
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let key = PrivateKeyDer::from_pem_slice(&read("server.key")).unwrap();
    let config = config.with_client_cert_verifier(clients).with_single_cert(vec![certificate("server.crt")], key);
    Registry::start_tls(Arc::new(config.unwrap()))
}

#[test]
fn certificates_are_found_where_other_tools_look_for_them() {
    let registry = closed_registry();
    add_base(&registry, "base", "1");
    let name = format!("{}/base:1", registry.host());
    for place in [".config/containers/certs.d", ".config/docker/certs.d"] {
        let env = Env::new();
        let pull = |variable: (&str, &Path)| {
            let mut command = env.command(&["pull", &name, "--retry", "0"]);
            Run::of(&command.env(variable.0, variable.1).output().unwrap())
        };
        let none = ("NONE", Path::new(""));
        assert!(pull(none).fails(75).contains("certificate"));
        let dir = env.path(place).join(registry.host());
        fs::create_dir_all(&dir).unwrap();
        for (from, to) in [("client.crt", "me.cert"), ("client.key", "me.key")] {
            fs::copy(Path::new(CERTS).join(from), dir.join(to)).unwrap();
        }
        assert!(pull(none).fails(75).contains("authority"), "the server is a stranger");
        let ca = fs::canonicalize(CERTS).unwrap().join("ca.crt");
        pull(("SSL_CERT_FILE", &ca)).ok();
        fs::copy(ca, dir.join("ca.crt")).unwrap();
        env.run(&["rmi", &name]).ok();
        pull(none).ok();
        fs::rename(&dir, dir.with_file_name("another.example:5000")).unwrap();
        pull(none).fails(75);
    }
}

#[test]
fn the_environment_names_proxies_and_hosts_that_need_none() {
    let env = Env::new();
    let proxy = Registry::start();
    let url = format!("http://me:secret@{}", proxy.host());
    let pull = |variables: &[(&str, &str)]| {
        // Given leave, it asks for http as well, which the proxy sees.
        let mut command = env.command(&["pull", "registry.invalid/app:1", "--tls-verify=false", "--retry", "0"]);
        let run = Run::of(&command.envs(variables.iter().copied()).output().unwrap());
        assert!(!run.fails(75).contains("secret"), "{}", run.stderr);
        let log = proxy.take_log();
        log.iter().filter(|logged| logged.line.starts_with("GET http://registry.invalid/v2/")).count()
    };
    for name in ["HTTP_PROXY", "http_proxy"] {
        assert!(pull(&[(name, &url)]) > 0, "{name}");
        assert_eq!(pull(&[(name, &url), ("NO_PROXY", "example.com,.invalid")]), 0, "{name}");
        assert_eq!(pull(&[(name, &url), ("no_proxy", "registry.invalid")]), 0, "{name}");
    }
    assert_eq!(pull(&[("HTTP_PROXY", &url), ("REQUEST_METHOD", "GET")]), 0, "it came from a client of a web server");
}

#[test]
fn files_of_credentials_have_an_order() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "team/app", "1");
    registry.set_auth(Auth::Basic("first", "word"));
    let host = registry.host();
    let places = ["run/containers/auth.json", ".config/containers/auth.json", ".docker/config.json"];
    let write = |place: &str, key: &str, user: &str| {
        fs::create_dir_all(env.path(place).parent().unwrap()).unwrap();
        let auth = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, format!("{user}:word"));
        fs::write(env.path(place), json!({"auths": {key: {"auth": auth}}}).to_string()).unwrap();
    };
    let list = || {
        let mut command = env.command(&["ls-tags", &format!("{host}/team/app")]);
        Run::of(&command.env("XDG_RUNTIME_DIR", env.path("run")).output().unwrap())
    };
    for (at, place) in places.iter().enumerate() {
        for other in &places[at + 1..] {
            write(other, &host, "second");
        }
        write(place, &host, "first");
        assert_eq!(list().ok(), "1", "{place}");
        fs::remove_file(env.path(place)).unwrap();
    }
    list().fails(75);
    // The longer key wins, wherever it stands; one that only begins alike is for others.
    write(places[0], &host, "second");
    for (key, is_let_in) in [("team", true), ("team/app", true), ("te", false), ("team/apple", false)] {
        write(places[2], &format!("{host}/{key}"), "first");
        assert_eq!(list().code == 0, is_let_in, "{key}");
    }
}

#[test]
fn builds_side_by_side_fetch_each_blob_once() {
    let env = Env::new();
    let registry = Registry::start();
    let tar = busybox_rootfs();
    let noise: Vec<u8> = (0..2_000_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_le_bytes()[3]).collect();
    let more = {
        let mut tar = tar::Builder::new(Vec::new());
        let mut header = tar::Header::new_ustar();
        header.set_size(noise.len() as u64);
        header.set_mode(0o644);
        tar.append_data(&mut header, "noise", noise.as_slice()).unwrap();
        tar.into_inner().unwrap()
    };
    let config = json!({"architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&tar), sha256(&more)]}});
    add_layers(&registry, "base", "1", &config, &[&tar, &more]);
    registry.take_log();
    let host = registry.host();
    let children: Vec<_> = (0..6)
        .map(|number| {
            // Two stages and a copy name the image, and no two builds do the same.
            let text = format!(
                "FROM {host}/base:1 AS one\nRUN echo {number} > /x\nFROM {host}/base:1\nCOPY --from=one /x /y\n\
                 COPY --from={host}/base:1 /noise /{number}\n"
            );
            let name = format!("Dockerfile.{number}");
            env.file(&name, text);
            let file = format!("context/{name}");
            let mut command = env.command(&["build", "-f", &file, "--output", "type=cacheonly", "context"]);
            (number, command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap())
        })
        .collect();
    for (number, child) in children {
        let run = Run::of(&child.wait_with_output().unwrap());
        assert_eq!(run.code, 0, "{number}: {}", run.stderr);
    }
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "GET /v2/base/blobs/"), 3, "a config and two layers: {lines:#?}");
    assert!(count(&lines, "/manifests/1") <= 6, "a name is looked up once in a build: {lines:#?}");
}

#[test]
fn owners_that_do_not_exist_here_stay_what_they_are() {
    let env = Env::new();
    let registry = Registry::start();
    const FAR: u64 = 2_147_483_646;
    let tar = busybox_rootfs_with(|tar| {
        for (name, uid, gid) in [("far", FAR, 7), ("group", 5, FAR)] {
            let mut header = tar::Header::new_gnu();
            header.set_size(2);
            header.set_mode(0o640);
            header.set_uid(uid);
            header.set_gid(gid);
            tar.append_data(&mut header, name, &b"x\n"[..]).unwrap();
        }
    });
    let config = json!({"architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"]}, "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
    add_layers(&registry, "base", "1", &config, &[&tar]);
    env.file(
        "Dockerfile",
        format!(
            "FROM {0}/base:1 AS b\nFROM {0}/base:1\nRUN cat /far && chmod 600 /far\nCOPY --from=b /group /copy\n",
            registry.host()
        ),
    );
    env.run(&["build", "--output", "type=oci,tar=false,dest=out", "context"]).ok();
    let image = crate::image::Image::open(&env.path("out"), None);
    let files = image.flatten();
    let owner = |path: &str| files.get(path).map(|file| (file.uid, file.gid, file.mode & 0o777));
    assert_eq!(owner("far"), Some((FAR, 7, 0o600)), "changed by a command, and still its owner's");
    assert_eq!(owner("group"), Some((5, FAR, 0o640)));
    assert_eq!(owner("copy"), Some((5, FAR, 0o640)), "a copy from a stage keeps owners");
}

/// Passes connections on to `target`; returns where. The first to bring as many bytes as `up` or `down` say is cut there,
/// and the number then says so.
pub(crate) fn forward(target: &str, up: Arc<AtomicUsize>, down: Arc<AtomicUsize>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap().to_string();
    serve(listener, target.to_owned(), up, down);
    address
}

fn serve(listener: TcpListener, target: String, up: Arc<AtomicUsize>, down: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        for near in listener.incoming().flatten() {
            let far = TcpStream::connect(&target).unwrap();
            pipe(near.try_clone().unwrap(), far.try_clone().unwrap(), up.clone());
            pipe(far, near, down.clone());
        }
    });
}

fn pipe(mut from: TcpStream, mut to: TcpStream, limit: Arc<AtomicUsize>) {
    std::thread::spawn(move || {
        let (mut buffer, mut passed) = ([0; 1 << 14], 0);
        while let Ok(n @ 1..) = from.read(&mut buffer) {
            passed += n;
            if passed > limit.load(Ordering::SeqCst) {
                limit.store(usize::MAX, Ordering::SeqCst);
                for end in [&from, &to] {
                    end.shutdown(Shutdown::Both).ok();
                }
                return;
            }
            if to.write_all(&buffer[..n]).is_err() {
                return;
            }
        }
        to.shutdown(Shutdown::Write).ok();
    });
}

#[test]
fn a_registry_has_an_address_of_any_kind() {
    let Ok(listener) = TcpListener::bind("[::1]:0") else {
        return crate::support::skip("a_registry_has_an_address_of_any_kind", "this machine has no IPv6");
    };
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let port = listener.local_addr().unwrap().port();
    let uncut = || Arc::new(AtomicUsize::new(usize::MAX));
    serve(listener, registry.host(), uncut(), uncut());
    let digest = env.run(&["pull", &format!("[::1]:{port}/base:1")]).ok();
    let port_of_v4 = registry.host().rsplit(':').next().unwrap().to_owned();
    for name in [format!("localhost:{port_of_v4}/base:1"), format!("{}/base@{digest}", registry.host())] {
        assert_eq!(env.run(&["pull", &name]).ok(), digest, "{name}");
    }
    env.file("Dockerfile", format!("FROM [::1]:{port}/base:1\nCOPY Dockerfile /\n"));
    env.run(&["build", "--pull=never", "-t", &format!("[::1]:{port}/made:1"), "--push", "context"]).ok();
    assert_eq!(count(&registry.take_lines(), "PUT /v2/made/manifests/1"), 1);
}
