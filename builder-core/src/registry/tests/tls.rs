//! Certificates that hold, certificates that do not, and what is said about them.

use std::fs;
use std::sync::Arc;

use rustls::server::{ServerConfig, WebPkiClientVerifier};
use rustls::{RootCertStore, crypto::ring};
use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};

use super::server::{OCI, Registry};
use super::{at, config, fetch};
use crate::registry::{
    Client, ClientConfig, ClientIdentity, Credential, Credentials, Error, HostRule, PlainHttp, Roots, Secret, VerifyTls,
};

const CA: &str = include_str!("../../../tests/support/certs/ca.crt");
const SERVER: (&str, &str) =
    (include_str!("../../../tests/support/certs/server.crt"), include_str!("../../../tests/support/certs/server.key"));
const SELF_SIGNED: (&str, &str) = (
    include_str!("../../../tests/support/certs/self-signed.crt"),
    include_str!("../../../tests/support/certs/self-signed.key"),
);
const CLIENT: (&str, &str) =
    (include_str!("../../../tests/support/certs/client.crt"), include_str!("../../../tests/support/certs/client.key"));

#[derive(PartialEq)]
enum ClientCertificate {
    Ignored,
    Required,
}

fn registry((certificate, key): (&str, &str), client: ClientCertificate) -> Registry {
    let provider = Arc::new(ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions().unwrap();
    let builder = if client == ClientCertificate::Required {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(CA.as_bytes()).unwrap()).unwrap();
        let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build().unwrap();
        builder.with_client_cert_verifier(verifier)
    } else {
        builder.with_no_client_auth()
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let registry = Registry::start_tls(Arc::new(builder.with_single_cert(chain, key).unwrap()));
    registry.add_image("app", "x", &OCI, b"{}", &[b"layer"]);
    registry
}

/// A client with a rule for `registry`, and no other trust than the rule gives.
fn client(registry: &Registry, rule: HostRule) -> Client {
    let unrelated = "tests/support/certs/client.crt";
    let none = Roots { file: Some(unrelated.into()), ..Roots::default() };
    Client::new(ClientConfig { roots: none, hosts: vec![HostRule { host: registry.host(), ..rule }], ..config() })
}

fn rule() -> HostRule {
    HostRule::new("set by client()")
}

#[test]
fn an_authority_of_ones_own_is_enough() {
    let registry = registry(SERVER, ClientCertificate::Ignored);
    let reference = at(&registry, "app:x");
    let by_host = client(&registry, HostRule { extra_roots: vec![CA.to_owned()], ..rule() });
    let for_all = Roots { extra: vec![CA.to_owned()], ..Roots::default() };
    let for_all = Client::new(ClientConfig { roots: for_all, ..config() });
    let unverified = client(&registry, HostRule { verify: VerifyTls::No, ..rule() });
    for client in [&by_host, &for_all, &unverified] {
        client.resolve(&reference).unwrap();
        assert_eq!(fetch(client, &reference, b"layer").unwrap(), b"layer");
    }
}

#[test]
fn certificates_are_found_in_directories() {
    let registry = registry(SERVER, ClientCertificate::Required);
    let dir = tempfile::tempdir().unwrap();
    let host_dir = dir.path().join(registry.host());
    fs::create_dir(&host_dir).unwrap();
    for (name, content) in
        [("ca.crt", CA), ("me.cert", CLIENT.0), ("me.key", CLIENT.1), ("notes.txt", "no certificate")]
    {
        fs::write(host_dir.join(name), content).unwrap();
    }
    let cert_dirs = vec![dir.path().join("missing"), dir.path().to_owned()];
    let client = Client::new(ClientConfig { cert_dirs, ..config() });
    client.resolve(&at(&registry, "app:x")).unwrap();

    fs::remove_file(host_dir.join("me.key")).unwrap();
    let client = Client::new(ClientConfig { cert_dirs: vec![dir.path().to_owned()], ..config() });
    let error = client.resolve(&at(&registry, "app:x")).unwrap_err();
    assert!(matches!(&error, Error::Config { what, .. } if what.contains("me.key")), "{error:?}");
}

#[test]
fn a_client_certificate_is_shown_where_a_rule_says_so() {
    let registry = registry(SERVER, ClientCertificate::Required);
    let trusting = HostRule { extra_roots: vec![CA.to_owned()], ..rule() };
    let identity = ClientIdentity { certificates: CLIENT.0.to_owned(), key: Secret::new(CLIENT.1) };
    let known = client(&registry, HostRule { identity: Some(identity), ..trusting.clone() });
    known.resolve(&at(&registry, "app:x")).unwrap();
    assert!(client(&registry, trusting).resolve(&at(&registry, "app:x")).is_err());
}

#[test]
fn each_failure_says_what_would_help() {
    let good = registry(SERVER, ClientCertificate::Ignored);
    let own = registry(SELF_SIGNED, ClientCertificate::Ignored);
    let plain = Registry::start();
    let trusting = |pem: &str| HostRule { extra_roots: vec![pem.to_owned()], ..rule() };
    // With `Allowed` the client meets both protocols, and reports the one that matters.
    for plain_http in [PlainHttp::Never, PlainHttp::Allowed] {
        let table = [(&good, rule(), "authority that is not known here"), (&own, trusting(SELF_SIGNED.0), "CA:TRUE")];
        for (registry, rule, text) in table {
            let error = client(registry, HostRule { plain_http, ..rule }).resolve(&at(registry, "app:x")).unwrap_err();
            assert!(matches!(error, Error::Tls { .. }), "{error:?}");
            assert!(error.hint().is_some_and(|hint| hint.contains(text)), "{text}: {error:?}");
        }
    }
    let error = client(&plain, trusting(CA)).resolve(&at(&plain, "app:x")).unwrap_err();
    assert!(error.hint().is_some_and(|hint| hint.contains("plain http")), "{error:?}");
    let error = client(&good, trusting("no PEM")).resolve(&at(&good, "app:x")).unwrap_err();
    assert!(matches!(error, Error::Config { .. }), "{error:?}");
}

#[test]
fn nothing_is_sent_to_a_server_that_does_not_prove_itself() {
    let registry = registry(SERVER, ClientCertificate::Ignored);
    let mut credentials = Credentials::default();
    credentials.insert(
        &registry.host(),
        None,
        Credential::Basic { username: "me".to_owned(), password: Secret::new("secret") },
    );
    let client = Client::new(ClientConfig { credentials, ..config() });
    client.resolve(&at(&registry, "app:x")).unwrap_err();
    assert!(registry.take_log().is_empty());
}

#[test]
fn https_does_not_turn_into_http() {
    let (secure, plain) = (registry(SERVER, ClientCertificate::Ignored), Registry::start());
    let digest = plain.add_blob(b"layer");
    let target = format!("http://{}/{digest}", plain.host());
    secure.redirect("blobs", 2, target);
    let never = HostRule { host: plain.host(), ..rule() };
    let trusting = HostRule { host: secure.host(), extra_roots: vec![CA.to_owned()], ..rule() };
    let client = Client::new(ClientConfig { hosts: vec![never, trusting.clone()], ..config() });
    let error = fetch(&client, &at(&secure, "app"), b"layer").unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
    assert!(plain.take_log().is_empty());
    // Unless the other host may speak http by a rule of its own, or because it is this machine.
    let client = Client::new(ClientConfig { hosts: vec![trusting], ..config() });
    assert_eq!(fetch(&client, &at(&secure, "app"), b"layer").unwrap(), b"layer");
}

#[test]
fn what_a_host_speaks_is_found_out_once() {
    let secure = registry(SERVER, ClientCertificate::Ignored);
    let for_all = Roots { extra: vec![CA.to_owned()], ..Roots::default() };
    let client = Client::new(ClientConfig { roots: for_all, ..config() });
    for _ in 0..2 {
        client.resolve(&at(&secure, "app:x")).unwrap();
    }
    assert_eq!(secure.take_lines(), ["GET /v2/", "GET /v2/app/manifests/x", "GET /v2/app/manifests/x"]);
}

#[test]
fn roots_that_cannot_be_read_are_an_error() {
    let registry = registry(SERVER, ClientCertificate::Ignored);
    for path in ["/nonexistent", "/dev/null"] {
        let roots = Roots { file: Some(path.into()), ..Roots::default() };
        let error = Client::new(ClientConfig { roots, ..config() }).resolve(&at(&registry, "app:x")).unwrap_err();
        assert!(matches!(&error, Error::Config { what, .. } if what.contains(path)), "{error:?}");
    }
}

#[test]
fn a_rule_decides_without_a_probe() {
    let registry = Registry::start();
    registry.add_image("app", "x", &OCI, b"{}", &[]);
    client(&registry, HostRule { plain_http: PlainHttp::Always, ..rule() }).resolve(&at(&registry, "app:x")).unwrap();
    assert_eq!(registry.take_lines(), ["GET /v2/app/manifests/x"], "no probe where a rule decides");
}
