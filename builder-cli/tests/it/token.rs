//! Debian's docker-registry behind TLS of a private authority and a token server of these tests.

use std::fs::{self, File};
use std::io::Write as _;
use std::net::TcpListener;
use std::ops::RangeInclusive;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use crate::server::{Answer, Request, Server};
use crate::support::{Env, Random, have};
use crate::transport::{CERTS, forward};

/// The registry. The process ends with the test.
struct Distribution {
    child: Child,
    host: String,
    log: std::path::PathBuf,
}

impl Drop for Distribution {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

impl Distribution {
    fn start(dir: &Path, realm: &str) -> Self {
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let certs = fs::canonicalize(CERTS).unwrap();
        let (dir, certs) = (dir.display(), certs.display());
        let config = format!(
            "version: 0.1\nstorage: {{filesystem: {{rootdirectory: {dir}/storage}}}}\n\
             http: {{addr: '127.0.0.1:{port}', tls: {{certificate: {certs}/server.crt, key: {certs}/server.key}}}}\n\
             auth: {{token: {{realm: '{realm}', service: registry, issuer: tests, rootcertbundle: {dir}/token.crt}}}}\n"
        );
        fs::write(format!("{dir}/config.yml"), config).unwrap();
        let log = Path::new(&dir.to_string()).join("log");
        let append = || File::options().append(true).create(true).open(&log).unwrap();
        let (out, err) = (append(), append());
        let mut command = Command::new("docker-registry");
        command.args(["serve", &format!("{dir}/config.yml")]).env_clear().stdin(Stdio::null());
        let mut server =
            Self { child: command.stdout(out).stderr(err).spawn().unwrap(), host: format!("127.0.0.1:{port}"), log };
        while !server.log().contains("listening on") {
            assert!(server.child.try_wait().unwrap().is_none(), "docker-registry ended: {}", server.log());
            std::thread::yield_now();
        }
        server
    }

    fn log(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.log).unwrap()).into_owned()
    }

    /// Waits until so many requests that begin like that were answered with one of these: they are logged when the answer is out.
    #[track_caller]
    fn expect(&self, request: &str, statuses: &[u16], wanted: RangeInclusive<usize>) {
        let is_it = |line: &&str| {
            let ends = |status: &u16| line.contains(&format!(" HTTP/2.0\" {status} "));
            line.contains(&format!("\"{request}")) && statuses.iter().any(ends)
        };
        let patience = Instant::now() + Duration::from_secs(20);
        while !wanted.contains(&self.log().lines().filter(is_it).count()) {
            assert!(Instant::now() < patience, "want {wanted:?} of {request:?}:\n{}", self.log());
            std::thread::yield_now();
        }
    }
}

fn openssl(dir: &Path, args: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new("openssl");
    command.args(args).current_dir(dir).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    child.stdin.take().unwrap().write_all(input).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "openssl {args:?}");
    output.stdout
}

/// Gives `me` with the password `sesame` what they ask for (distribution, "Token Authentication Specification").
fn give_token(dir: &Path, request: &Request) -> Answer {
    if request.header("authorization") != Some(&format!("Basic {}", STANDARD.encode("me:sesame"))) {
        return Answer::status(401);
    }
    let query = request.path.split_once('?').map_or("", |(_, query)| query);
    let scopes = query.split('&').filter_map(|pair| pair.strip_prefix("scope="));
    let access: Vec<Value> = scopes
        .map(|scope| {
            let scope = scope.replace("%3A", ":").replace("%2C", ",").replace("%2F", "/");
            let parts: Vec<&str> = scope.split(':').collect();
            json!({"type": parts[0], "name": parts[1], "actions": parts[2].split(',').collect::<Vec<_>>()})
        })
        .collect();
    let now = std::time::UNIX_EPOCH.elapsed().unwrap().as_secs();
    let certificate = openssl(dir, &["x509", "-in", "token.crt", "-outform", "DER"], b"");
    let header = json!({"typ": "JWT", "alg": "RS256", "x5c": [STANDARD.encode(certificate)]});
    let claims = json!({"iss": "tests", "sub": "me", "aud": "registry", "jti": "1", "access": access,
        "iat": now, "nbf": now - 60, "exp": now + 600});
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&header), part(&claims));
    let signature = openssl(dir, &["dgst", "-sha256", "-sign", "token.key"], signed.as_bytes());
    Answer::ok(
        json!({"token": format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)), "expires_in": 600}).to_string(),
    )
}

/// Lets the command know the authority and the password for `host`.
fn introduce(env: &Env, hosts: &[&str]) {
    let mut auths = json!({});
    for host in hosts {
        let dir = env.path(".config/containers/certs.d").join(host);
        fs::create_dir_all(&dir).unwrap();
        fs::copy(Path::new(CERTS).join("ca.crt"), dir.join("ca.crt")).unwrap();
        auths[host] = json!({"auth": STANDARD.encode("me:sesame")});
    }
    fs::create_dir_all(env.path(".docker")).unwrap();
    fs::write(env.path(".docker/config.json"), json!({"auths": auths}).to_string()).unwrap();
}

#[test]
fn a_registry_with_tls_and_tokens_takes_and_gives_everything() {
    const TEST: &str = "a_registry_with_tls_and_tokens_takes_and_gives_everything";
    if !have(TEST, &["docker-registry", "openssl"]) {
        return;
    }
    let server = Env::new();
    let dir = server.dir.path().to_owned();
    let new = ["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "token.key", "-out", "token.crt"];
    openssl(&dir, &[&new[..], &["-subj", "/CN=tokens", "-days", "2"]].concat(), b"");
    let tokens = Server::new({
        let dir = dir.clone();
        move |request| give_token(&dir, request)
    });
    let registry = Distribution::start(&dir, &format!("{}/token", tokens.url));
    let host = registry.host.as_str();

    // An index is pushed, of which the file is large enough for an upload in pieces.
    let env = Env::new();
    let mut random = Random(3);
    env.file("large", (0..3_000_000).map(|_| random.below(256).to_le_bytes()[0]).collect::<Vec<u8>>());
    env.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY large /\n");
    let name = format!("{host}/team/app:1");
    let args = ["build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", &name, "--push", "context"];
    assert!(env.run(&[&args[..], &["--retry", "0"]].concat()).fails(75).contains("authority"));
    introduce(&env, &[host]);
    let digest = env.run(&args).ok();
    registry.expect("PUT /v2/team/app/manifests/", &[201], 3..=3);

    // Another repository takes blobs over: nothing is sent, and the token is for both.
    let copied = format!("docker://{host}/other/app:2");
    assert_eq!(env.run(&["copy", &format!("docker://{name}"), &copied]).ok(), digest);
    registry.expect("POST /v2/other/app/blobs/uploads/?mount=", &[201], 3..=3);
    registry.expect("PUT /v2/other/app/blobs/uploads/", &[201], 0..=0);
    let asked = tokens.requests();
    let is_for_both = |request: &Request| {
        let has = |scope: &str| request.path.split('&').any(|pair| pair == format!("scope=repository%3A{scope}"));
        has("team%2Fapp%3Apull") && has("other%2Fapp%3Apull%2Cpush")
    };
    assert!(asked.iter().any(is_for_both), "{:#?}", asked.iter().map(|request| &request.path).collect::<Vec<_>>());

    // Another machine builds on it.
    let other = Env::new();
    introduce(&other, &[host]);
    other.file("Dockerfile", format!("FROM {host}/other/app:2\nCOPY --from={name} /large /again\n"));
    other.run(&["build", "--platform", "linux/arm64", "--output", "type=local,dest=out", "context"]).ok();
    assert_eq!(fs::read(other.path("out/again")).unwrap(), fs::read(env.path("context/large")).unwrap());

    // A connection that breaks in the middle of an upload, and of a download: the rest goes over the next ones.
    let (up, down) = (Arc::new(AtomicUsize::new(1_500_000)), Arc::new(AtomicUsize::new(usize::MAX)));
    let proxy = forward(host, up.clone(), down.clone());
    introduce(&env, &[host, &proxy]);
    let third = Env::new();
    introduce(&third, &[&proxy]);
    assert_eq!(env.run(&["push", &name, &format!("{proxy}/cut/app:1"), "--retry-delay", "10ms"]).ok(), digest);
    assert_eq!(up.load(Ordering::SeqCst), usize::MAX, "it was cut");
    // Small blobs may have been on the same connection. This registry may have forgotten what broke; that starts anew.
    registry.expect("GET /v2/cut/app/blobs/uploads/", &[204, 404], 1..=9);
    down.store(1_500_000, Ordering::SeqCst);
    let layout = ["copy", &format!("docker://{proxy}/cut/app:1"), "oci:layout:x", "--retry-delay", "10ms"];
    assert_eq!(third.run(&layout).ok(), digest);
    assert_eq!(down.load(Ordering::SeqCst), usize::MAX, "it was cut");
    registry.expect("GET /v2/cut/app/blobs/", &[206], 1..=1);
}
