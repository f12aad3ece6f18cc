//! Where `Authorization` goes, and where it does not.

use std::thread;

use super::server::{Auth, Fault, OCI, Registry, TokenFor, sha256};
use super::{at, client, config, fetch, noise};
use crate::registry::{Access, Client, ClientConfig, Credential, Credentials, Error, HostRule, PlainHttp, Secret};

const LAYER: &[u8] = b"pretend that this is a layer";

fn basic(name: &str, password: &str) -> Credential {
    Credential::Basic { username: name.to_owned(), password: Secret::new(password) }
}

fn client_with(entries: &[(&str, Credential)]) -> Client {
    let mut credentials = Credentials::default();
    for (key, credential) in entries {
        credentials.insert(key, None, credential.clone());
    }
    Client::new(ClientConfig { credentials, ..config() })
}

/// A registry with an image that wants tokens of its own.
fn token_registry(uses: usize) -> Registry {
    let registry = Registry::start();
    registry.add_image("app", "x", &OCI, b"{}", &[LAYER]);
    registry.set_auth(Auth::Bearer { realm: registry.realm(), uses });
    registry
}

#[test]
fn one_anonymous_token_serves_many_requests() {
    let registry = token_registry(100);
    let (client, reference) = (client(), at(&registry, "app:x"));
    client.resolve(&reference).unwrap();
    fetch(&client, &reference, LAYER).unwrap();
    let token = "GET /token?service=test&scope=repository%3Aapp%3Apull".to_owned();
    let blob = format!("GET /v2/app/blobs/{}", sha256(LAYER));
    let log = registry.take_log();
    let lines: Vec<_> = log.iter().map(|logged| logged.line.clone()).collect();
    assert_eq!(lines, ["GET /v2/".to_owned(), token.clone(), "GET /v2/app/manifests/x".to_owned(), blob]);
    let shown: Vec<_> = log.iter().map(|logged| logged.authorization.as_deref()).collect();
    assert_eq!(shown, [None, None, Some("Bearer tok-1"), Some("Bearer tok-1")]);
}

#[test]
fn parallel_requests_share_one_token_and_one_probe() {
    let registry = token_registry(100);
    let (client, reference) = (client(), at(&registry, "app:x"));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| fetch(&client, &reference, LAYER).unwrap());
        }
    });
    let lines = registry.take_lines();
    assert_eq!(lines.iter().filter(|line| line.contains("/token")).count(), 1, "{lines:?}");
    assert_eq!(lines.len(), 8 + 2, "{lines:?}");
}

#[test]
fn a_token_that_ends_midway_is_replaced() {
    let registry = token_registry(2);
    let blob = noise(100_000);
    registry.add_blob(&blob);
    let (client, reference) = (client(), at(&registry, "app:x"));
    for n in [10_000, 20_000, 30_000] {
        registry.plan("blobs", 1, Fault::Short(n));
    }
    client.resolve(&reference).unwrap();
    assert_eq!(fetch(&client, &reference, &blob).unwrap(), blob);
    let shown: Vec<_> = registry.take_log().into_iter().filter_map(|logged| logged.authorization).collect();
    let expected = [1, 1, 1, 2, 2, 2, 3].map(|n| format!("Bearer tok-{n}"));
    assert_eq!(shown, expected, "each token is used until it is refused");
}

#[test]
fn a_token_is_not_used_beyond_its_life() {
    let registry = token_registry(100);
    registry.set_token_for(TokenFor::Anyone, Some(0));
    let (client, reference) = (client(), at(&registry, "app:x"));
    client.resolve(&reference).unwrap();
    client.resolve(&reference).unwrap();
    let tokens = registry.take_lines().iter().filter(|line| line.contains("/token")).count();
    assert_eq!(tokens, 2, "no request is wasted on a token that is over");
}

#[test]
fn a_password_buys_a_token_and_stays_with_the_token_server() {
    let registry = token_registry(100);
    registry.set_token_for(TokenFor::User("me", "secret"), None);
    let (host, reference) = (registry.host(), at(&registry, "app:x"));
    client_with(&[(&host, basic("me", "secret"))]).resolve(&reference).unwrap();
    for logged in registry.take_log() {
        let is_basic = logged.authorization.is_some_and(|shown| shown.starts_with("Basic "));
        assert_eq!(is_basic, logged.line.contains("/token"), "{}", logged.line);
    }
    let error = client_with(&[(&host, basic("me", "wrong"))]).resolve(&reference).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    let used = format!("incorrect username or password; the credentials for {host} were used");
    assert!(text.ends_with(&used) && !text.contains("wrong"), "{text}");
    let error = client().resolve(&reference).unwrap_err().to_string();
    assert!(error.ends_with(&format!("no credentials for {host}/app are known")), "{error}");
}

#[test]
fn a_refresh_token_is_exchanged_by_post() {
    let registry = token_registry(100);
    registry.set_token_for(TokenFor::Refresh("r3fresh"), None);
    let host = registry.host();
    client_with(&[(&host, Credential::IdentityToken(Secret::new("r3fresh")))])
        .resolve(&at(&registry, "app:x"))
        .unwrap();
    let log = registry.take_log();
    let body =
        "grant_type=refresh_token&client_id=builder&refresh_token=r3fresh&service=test&scope=repository%3Aapp%3Apull";
    assert_eq!((log[1].line.as_str(), String::from_utf8_lossy(&log[1].body).as_ref()), ("POST /token", body));
    assert!(log.iter().all(|logged| !logged.line.contains("r3fresh")), "not in a URL: {log:?}");
}

#[test]
fn a_registry_token_is_shown_as_it_is() {
    let registry = token_registry(100);
    let token = Credential::RegistryToken(Secret::new("tok-given"));
    client_with(&[(&registry.host(), token)]).resolve(&at(&registry, "app:x")).unwrap();
    assert_eq!(registry.take_lines(), ["GET /v2/", "GET /v2/app/manifests/x"]);
}

#[test]
fn basic_goes_where_it_is_asked_for() {
    let registry = Registry::start();
    registry.add_image("app", "x", &OCI, b"{}", &[]);
    registry.set_auth(Auth::Basic("me", "secret"));
    let (host, reference) = (registry.host(), at(&registry, "app:x"));
    client_with(&[(&host, basic("me", "secret"))]).resolve(&reference).unwrap();
    let shown: Vec<_> = registry.take_log().iter().map(|logged| logged.authorization.is_some()).collect();
    assert_eq!(shown, [false, true], "only after it was asked for");
    let error = client_with(&[(&host, basic("me", "wrong"))]).resolve(&reference).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    assert_eq!(registry.take_lines().len(), 2, "the same password is not tried twice");
    let error = client().resolve(&reference).unwrap_err().to_string();
    assert!(error.contains("no credentials for"), "{error}");
}

#[test]
fn each_path_gets_its_own_credentials() {
    let registry = Registry::start();
    for repository in ["org-a/app", "org-ab/app", "other/app"] {
        registry.add_image(repository, "x", &OCI, b"{}", &[]);
    }
    registry.set_auth(Auth::Basic("a", "secret"));
    let (host, key) = (registry.host(), format!("{}/org-a", registry.host()));
    let client = client_with(&[(&key, basic("a", "secret"))]);
    client.resolve(&at(&registry, "org-a/app:x")).unwrap();
    for repository in ["org-ab/app:x", "other/app:x"] {
        assert!(client.resolve(&at(&registry, repository)).is_err());
    }
    for logged in registry.take_log() {
        assert_eq!(logged.authorization.is_some(), logged.line.contains("/org-a/"), "{host}: {}", logged.line);
    }
}

#[test]
fn credentials_for_pushing_are_not_used_to_pull() {
    let registry = Registry::start();
    registry.add_image("app", "x", &OCI, b"{}", &[]);
    registry.set_auth(Auth::Basic("pusher", "secret"));
    let mut credentials = Credentials::default();
    credentials.insert(&registry.host(), Some(Access::Push), basic("pusher", "secret"));
    let client = Client::new(ClientConfig { credentials, ..config() });
    assert!(matches!(client.resolve(&at(&registry, "app:x")), Err(Error::Unauthorized { .. })));
    assert!(registry.take_log().iter().all(|logged| logged.authorization.is_none()));
}

#[test]
fn a_hostile_realm_gets_nothing() {
    let registry = token_registry(100);
    let client = client_with(&[(&registry.host(), basic("me", "secret"))]);
    let realms = [
        "https://evil.invalid/token",
        "http://evil.invalid/token",
        "https://u:p@127.0.0.1/token",
        "ftp://127.0.0.1/token",
        "https://127.0.0.1.evil.invalid/token",
    ];
    for realm in realms {
        registry.set_auth(Auth::Bearer { realm: realm.to_owned(), uses: 1 });
        let error = client.resolve(&at(&registry, "app:x")).unwrap_err();
        assert!(matches!(error, Error::Realm { .. }), "{realm}: {error:?}");
        assert!(error.hint().is_some() && !error.to_string().contains("u:p"), "{error}");
    }
    let shown = registry.take_log().into_iter().filter_map(|logged| logged.authorization).count();
    assert_eq!(shown, 0, "neither did the registry");
}

#[test]
fn a_registry_elsewhere_cannot_point_at_this_machine() {
    // A name that is not loopback by name, reached over plain http because a rule says so.
    let registry = token_registry(100);
    let port = registry.host().rsplit(':').next().unwrap().to_owned();
    let host = format!("0.0.0.0:{port}");
    let rule = HostRule { plain_http: PlainHttp::Always, ..HostRule::new(&host) };
    let client = Client::new(ClientConfig { hosts: vec![rule], ..config() });
    let error = client.resolve(&format!("{host}/app:x").parse().unwrap()).unwrap_err();
    assert!(matches!(error, Error::Realm { .. }), "{error:?}");
    assert_eq!(registry.take_lines(), ["GET /v2/app/manifests/x"], "no probe, no token");
}

#[test]
fn authorization_stays_behind_at_a_redirect() {
    let (registry, cdn) = (token_registry(100), Registry::start());
    let digest = cdn.add_blob(LAYER);
    let client = client_with(&[(&registry.host(), basic("me", "secret"))]);
    registry.redirect("blobs", 1, format!("http://{}/{digest}", cdn.host()));
    fetch(&client, &at(&registry, "app"), LAYER).unwrap();
    assert!(cdn.take_log().iter().all(|logged| logged.authorization.is_none()));

    // And the other host's question gets no answer.
    registry.redirect("blobs", 1, format!("http://{}/{digest}", cdn.host()));
    cdn.set_auth(Auth::Bearer { realm: cdn.realm(), uses: 100 });
    let error = fetch(&client, &at(&registry, "app"), LAYER).unwrap_err();
    assert!(matches!(error, Error::Unauthorized { .. }), "{error:?}");
    let log = cdn.take_log();
    assert!(log.len() == 1 && log[0].authorization.is_none(), "{log:?}");
}

#[test]
fn a_broken_token_server_is_an_error() {
    let registry = token_registry(100);
    for body in ["{}", "<html>", r#"{"token":"a\nb"}"#] {
        registry.plan("/token", 1, Fault::Status(200, vec![], body.to_owned()));
        let error = client().resolve(&at(&registry, "app:x")).unwrap_err();
        assert!(matches!(error, Error::Protocol { .. }), "{body}: {error:?}");
    }
    registry.plan("/token", 2, Fault::Status(503, vec![], String::new()));
    client().resolve(&at(&registry, "app:x")).expect("its passing faults are retried as well");
}
