//! Manifests, blobs and tags, through every fault.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::server::{DOCKER, Fault, OCI, Registry, sha256};
use super::{at, client, config, fetch, noise};
use crate::registry::{
    Client, ClientConfig, Error, HostRule, Mirror, MirrorPull, Notice, PlainHttp, ProxyConfig, RegistryRule, Secret,
    Timeouts,
};

const LAYER: &[u8] = b"pretend that this is a layer";

#[test]
fn both_families_by_tag_and_digest_with_the_fewest_requests() {
    let registry = Registry::start();
    for (tag, family) in [("oci", &OCI), ("docker", &DOCKER)] {
        let digest = registry.add_image("org/app", tag, family, b"{}", &[LAYER]);
        let index = format!(r#"{{"schemaVersion":2,"mediaType":"{}","manifests":[]}}"#, family.index);
        registry.add_manifest("org/app", &format!("{tag}-index"), family.index, index.as_bytes());
        let (client, reference) = (client(), at(&registry, &format!("org/app:{tag}")));
        let manifest = client.resolve(&reference).unwrap();
        assert_eq!(manifest.digest.to_string(), digest);
        assert_eq!(manifest.media_type, family.manifest);
        assert_eq!(client.manifest_by_digest(&reference, manifest.digest).unwrap(), manifest);
        let index = client.resolve(&at(&registry, &format!("org/app:{tag}-index"))).unwrap();
        assert_eq!(index.media_type, family.index);
        let config_digest = sha256(b"{}").parse().unwrap();
        assert_eq!(client.blob_bytes(&reference, config_digest, 2, 100).unwrap(), b"{}");
        assert_eq!(fetch(&client, &reference, LAYER).unwrap(), LAYER);
        let expected = [
            "GET /v2/".to_owned(),
            format!("GET /v2/org/app/manifests/{tag}"),
            format!("GET /v2/org/app/manifests/{digest}"),
            format!("GET /v2/org/app/manifests/{tag}-index"),
            format!("GET /v2/org/app/blobs/{config_digest}"),
            format!("GET /v2/org/app/blobs/{}", sha256(LAYER)),
        ];
        let log = registry.take_log();
        assert_eq!(log.iter().map(|logged| logged.line.as_str()).collect::<Vec<_>>(), expected);
        assert!(log.iter().all(|logged| logged.connection == log[0].connection), "one connection serves all: {log:?}");
        assert!(log.iter().all(|logged| logged.authorization.is_none()), "nobody asked for it: {log:?}");
    }
}

#[test]
fn head_tells_what_a_tag_means_without_a_body() {
    let registry = Registry::start();
    let digest = registry.add_image("app", "x", &OCI, b"{}", &[]);
    let (client, reference) = (client(), at(&registry, "app:x"));
    let head = client.head_manifest(&reference).unwrap().unwrap();
    assert_eq!((head.digest.to_string(), head.media_type.as_deref()), (digest, Some(OCI.manifest)));
    assert_eq!(head.size, Some(client.resolve(&reference).unwrap().bytes.len() as u64));
    registry.plan("HEAD", 1, Fault::DigestHeader(None));
    assert_eq!(client.head_manifest(&reference).unwrap(), None);
    assert!(matches!(client.head_manifest(&at(&registry, "app:y")), Err(Error::NotFound { .. })));
}

#[test]
fn a_blob_goes_on_where_it_broke_off() {
    let registry = Registry::start();
    let blob = noise(300_000);
    registry.add_blob(&blob);
    let reference = at(&registry, "app");
    registry.plan("blobs", 1, Fault::Short(100_000));
    registry.plan("blobs", 1, Fault::Short(50_000));
    registry.plan("blobs", 1, Fault::Short(0));
    assert_eq!(fetch(&client(), &reference, &blob).unwrap(), blob);
    let ranges: Vec<_> = registry.take_log().into_iter().skip(1).map(|logged| logged.range).collect();
    let expected = [None, Some("bytes=100000-"), Some("bytes=150000-"), Some("bytes=150000-")];
    assert_eq!(ranges, expected.map(|range| range.map(str::to_owned)), "no byte is asked for twice");
}

#[test]
fn a_blob_survives_resets_silence_and_servers_without_ranges() {
    let registry = Registry::start();
    let blob = noise(300_000);
    registry.add_blob(&blob);
    let silence = Duration::from_millis(200);
    let client = Client::new(ClientConfig { timeouts: Timeouts { silence, ..config().timeouts }, ..config() });
    let faults: [&[Fault]; 7] = [
        &[Fault::Short(299_000), Fault::Drip],
        &[Fault::Reset(100_000)],
        &[Fault::Reset(0), Fault::Reset(1)],
        &[Fault::Silence(100_000)],
        &[Fault::Silence(0)],
        &[Fault::Short(100_000), Fault::NoRange],
        &[Fault::Short(200_000), Fault::Status(503, vec![], String::new())],
    ];
    for faults in faults {
        for fault in faults {
            registry.plan("blobs", 1, fault.clone());
        }
        let found = fetch(&client, &at(&registry, "app"), &blob);
        assert!(found.is_ok_and(|found| found == blob), "{faults:?}");
    }
}

#[test]
fn a_blob_that_never_comes_whole_is_an_error() {
    let registry = Registry::start();
    registry.add_blob(LAYER);
    registry.plan("blobs", 100, Fault::Short(0));
    let error = fetch(&client(), &at(&registry, "app"), LAYER).unwrap_err();
    assert!(matches!(error, Error::Network { .. } | Error::Truncated { .. }), "{error:?}");
    assert_eq!(registry.take_lines().len(), 1 + 4, "the probe, and as many tries as the policy allows");
}

#[test]
fn nothing_is_a_blob_but_the_bytes_of_its_digest() {
    let registry = Registry::start();
    registry.add_blob(LAYER);
    let (client, reference) = (client(), at(&registry, "app"));
    registry.plan("blobs", 1, Fault::OtherBytes);
    let error = fetch(&client, &reference, LAYER).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
    registry.plan("blobs", 1, Fault::Short(10));
    registry.plan("blobs", 1, Fault::OtherBytes);
    let error = fetch(&client, &reference, LAYER).unwrap_err();
    assert!(matches!(error, Error::DigestMismatch { .. }), "the second part counts as well: {error:?}");
    for length in [LAYER.len() - 1, LAYER.len() + 1, 0] {
        registry.plan("blobs", 1, Fault::Length(length));
        let error = fetch(&client, &reference, LAYER).unwrap_err();
        assert!(matches!(error, Error::SizeMismatch { .. }), "{length}: {error:?}");
    }
    // Without a length the bytes themselves show it.
    let digest = sha256(LAYER).parse().unwrap();
    for (size, name) in [(LAYER.len() - 1, "more"), (0, "more")] {
        registry.plan("blobs", 1, Fault::Unframed);
        let error = client.blob_bytes(&reference, digest, size as u64, 1000).unwrap_err();
        assert!(matches!(&error, Error::SizeMismatch { found, .. } if found == name), "{size}: {error:?}");
    }
    registry.plan("blobs", 100, Fault::Unframed);
    let error = client.blob_bytes(&reference, digest, LAYER.len() as u64 + 1, 1000).unwrap_err();
    assert!(matches!(error, Error::Truncated { .. }), "{error:?}");
    assert!(matches!(client.blob_bytes(&reference, digest, 1001, 1000), Err(Error::TooLarge { .. })));
}

#[test]
fn blob_size_asks_without_fetching() {
    let registry = Registry::start();
    registry.add_blob(LAYER);
    let (client, reference) = (client(), at(&registry, "app"));
    assert_eq!(client.blob_size(&reference, sha256(LAYER).parse().unwrap()).unwrap(), Some(LAYER.len() as u64));
    assert_eq!(client.blob_size(&reference, sha256(b"other").parse().unwrap()).unwrap(), None);
}

#[test]
fn passing_faults_are_retried_and_told() {
    let registry = Registry::start();
    let digest = registry.add_image("app", "x", &OCI, b"{}", &[]);
    let told = Arc::new(Mutex::new(Vec::new()));
    let client = client().with_observer({
        let told = Arc::clone(&told);
        move |notice| {
            let Notice::Retry { error, .. } = notice else { panic!("{notice:?}") };
            told.lock().unwrap().push(error.to_string());
        }
    });
    let status = |status, retry_after: &str| {
        Fault::Status(status, vec![("retry-after", retry_after.to_owned())], "busy".to_owned())
    };
    let table = [
        (status(503, "0"), 2),
        (status(429, "0"), 2),
        (status(500, "nonsense"), 3),
        (Fault::Reset(0), 1),
        (Fault::Short(20), 1),
    ];
    for (fault, times) in table {
        registry.plan("manifests", times, fault.clone());
        let found = client.resolve(&at(&registry, "app:x")).map(|manifest| manifest.digest.to_string());
        assert_eq!(found.ok(), Some(digest.clone()), "{fault:?}");
        assert_eq!(told.lock().unwrap().drain(..).count(), times, "{fault:?}");
    }
    registry.take_lines();
    registry.plan("manifests", 100, status(503, "0"));
    let error = client.resolve(&at(&registry, "app:x")).unwrap_err();
    assert!(matches!(&error, Error::Status { status: 503, detail, .. } if detail == "busy"), "{error:?}");
    assert_eq!(registry.take_lines().len(), 4);
}

#[test]
fn lasting_faults_fail_at_once_with_the_registrys_words() {
    let registry = Registry::start();
    let (client, reference) = (client(), at(&registry, "app:x"));
    let error = client.resolve(&reference).unwrap_err();
    let text = format!("manifest of {reference} does not exist: MANIFEST_UNKNOWN: manifest unknown");
    assert_eq!(error.to_string(), text);
    let body = r#"{"errors":[{"code":"DENIED","message":"quota"}]}"#;
    for (status, text) in [(403, "is denied: DENIED: quota"), (401, "not authorized"), (400, "400"), (301, "301")] {
        registry.take_lines();
        registry.plan("manifests", 1, Fault::Status(status, vec![], body.to_owned()));
        let error = client.resolve(&reference).unwrap_err();
        assert!(error.to_string().contains(text) && error.to_string().contains("quota"), "{status}: {error}");
        assert_eq!(registry.take_lines().len(), 1, "{status} is not retried");
    }
    let wait = vec![("retry-after", "3600".to_owned())];
    registry.plan("manifests", 1, Fault::Status(429, wait, body.to_owned()));
    let error = client.resolve(&reference).unwrap_err();
    let hour = Some(Duration::from_secs(3600));
    assert!(matches!(error, Error::RateLimited { retry_after, .. } if retry_after == hour), "{error:?}");
    assert_eq!(registry.take_lines().len(), 1, "an hour is too long to wait");
}

#[test]
fn a_manifest_is_what_its_name_says() {
    let registry = Registry::start();
    let digest = registry.add_image("app", "x", &OCI, b"{}", &[]);
    let (client, tag) = (client(), at(&registry, "app:x"));
    let pinned = tag.with_digest(digest.parse().unwrap());
    registry.plan("manifests", 1, Fault::DigestHeader(None));
    assert_eq!(client.resolve(&tag).unwrap().digest.to_string(), digest);
    registry.plan("manifests", 1, Fault::ContentType("application/json"));
    assert_eq!(client.resolve(&tag).unwrap().media_type, OCI.manifest);
    registry.plan("manifests", 1, Fault::DigestHeader(Some("sha512:abc".to_owned())));
    assert!(client.resolve(&tag).is_ok(), "another algorithm says nothing");
    for reference in [&tag, &pinned] {
        for lie in [sha256(b"lie"), "sha256:../../x".to_owned()] {
            registry.plan("manifests", 1, Fault::DigestHeader(Some(lie)));
            let error = client.resolve(reference).unwrap_err();
            assert!(matches!(error, Error::DigestMismatch { .. }), "{error:?}");
        }
    }
    registry.plan("manifests", 1, Fault::OtherBytes);
    assert!(matches!(client.resolve(&pinned), Err(Error::DigestMismatch { .. })));
    registry.plan("manifests", 1, Fault::ContentType(OCI.index));
    assert!(matches!(client.resolve(&tag), Err(Error::Protocol { .. })));
}

#[test]
fn a_huge_manifest_is_not_read() {
    let registry = Registry::start();
    registry.add_manifest("app", "x", OCI.manifest, &vec![b' '; (4 << 20) + 1]);
    let (client, reference) = (client(), at(&registry, "app:x"));
    registry.plan("manifests", 1, Fault::Length(1 << 30));
    assert!(matches!(client.resolve(&reference), Err(Error::TooLarge { .. })), "by its length");
    registry.plan("manifests", 1, Fault::Unframed);
    assert!(matches!(client.resolve(&reference), Err(Error::TooLarge { .. })), "by its bytes");
}

#[test]
fn redirects_are_followed_within_bounds() {
    let (registry, cdn) = (Registry::start(), Registry::start());
    let blob = noise(100_000);
    let digest = cdn.add_blob(&blob);
    registry.redirect("blobs", 2, format!("http://{}/{digest}?signature=s3cret", cdn.host()));
    cdn.plan("signature", 1, Fault::Short(40_000));
    assert_eq!(fetch(&client(), &at(&registry, "app"), &blob).unwrap(), blob);
    let log = cdn.take_log();
    assert_eq!(log[1].range.as_deref(), Some("bytes=40000-"), "the range goes along: {log:?}");
    assert_eq!(registry.take_lines().len(), 3, "a new signature for the rest");

    registry.redirect("blobs", 100, "/v2/app/blobs/round-and-round".to_owned());
    let error = fetch(&client(), &at(&registry, "app"), &blob).unwrap_err();
    assert!(matches!(error, Error::Redirect { .. }), "{error:?}");
    let registry = Registry::start();
    registry.redirect("blobs", 1, format!("http://{}/{digest}?signature=s3cret", cdn.host()));
    cdn.plan("signature", 1, Fault::Status(403, vec![], "expired".to_owned()));
    let error = fetch(&client(), &at(&registry, "app"), &blob).unwrap_err();
    assert!(error.to_string().contains("expired") && !format!("{error:?}").contains("s3cret"), "{error:?}");
    for bad in ["ftp://example.com/x", "file:///etc/passwd", "http://u:p@127.0.0.1/x"] {
        registry.redirect("blobs", 1, bad.to_owned());
        let error = fetch(&client(), &at(&registry, "app"), &blob).unwrap_err();
        assert!(matches!(error, Error::Redirect { .. }), "{bad}: {error:?}");
    }
}

#[test]
fn tags_come_page_by_page_from_the_registry_itself() {
    let registry = Registry::start();
    // The link after tag `b` names another host.
    let tags = ["1.0", "1.1", "b", "latest"];
    for tag in tags {
        registry.add_image("app", tag, &OCI, b"{}", &[]);
    }
    registry.set_page(1);
    assert_eq!(client().tags(&at(&registry, "app")).unwrap(), tags);
    let lines = registry.take_lines();
    assert_eq!(lines.len(), 5);
    assert_eq!(lines[1..3], ["GET /v2/app/tags/list?n=1000", "GET /v2/app/tags/list?last=1.0&n=1"]);
    registry.plan("tags", 1, Fault::Status(200, vec![], r#"{"name":"app","tags":null}"#.to_owned()));
    assert_eq!(client().tags(&at(&registry, "app")).unwrap(), Vec::<String>::new());
}

#[test]
fn mirrors_come_first_and_the_registry_last() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let digest = registry.add_image("org/app", "x", &OCI, b"{}", &[LAYER]);
    let unreachable = "127.0.0.1:1";
    let mirrors = [format!("{unreachable}/cache"), format!("{}/cache", mirror.host())];
    let rule = RegistryRule {
        prefix: registry.host(),
        location: None,
        mirrors: mirrors.map(|location| Mirror { location, pull: MirrorPull::All, insecure: false }).into(),
        blocked: false,
        insecure: false,
    };
    let failed = Arc::new(Mutex::new(Vec::new()));
    let client = Client::new(ClientConfig { registries: vec![rule], ..config() }).with_observer({
        let failed = Arc::clone(&failed);
        move |notice| {
            if let Notice::MirrorFailed { mirror, .. } = notice {
                failed.lock().unwrap().push((*mirror).to_owned());
            }
        }
    });
    let reference = at(&registry, "org/app:x");
    assert_eq!(client.resolve(&reference).unwrap().digest.to_string(), digest);
    assert_eq!(mirror.take_lines(), ["GET /v2/", "GET /v2/cache/org/app/manifests/x"]);
    assert_eq!(*failed.lock().unwrap(), [unreachable.to_owned(), mirror.host()]);
    registry.take_lines();
    mirror.add_blob(LAYER);
    assert_eq!(fetch(&client, &reference, LAYER).unwrap(), LAYER);
    assert!(registry.take_lines().is_empty(), "the mirror had it");
    mirror.plan("blobs", 1, Fault::Short(10));
    mirror.plan("blobs", 1, Fault::Status(404, vec![], String::new()));
    assert_eq!(fetch(&client, &reference, LAYER).unwrap(), LAYER);
    assert_eq!(registry.take_log().pop().unwrap().range.as_deref(), Some("bytes=10-"), "the rest from elsewhere");
    assert_eq!(failed.lock().unwrap().iter().filter(|mirror| *mirror == unreachable).count(), 1, "asked once");
}

#[test]
fn proxies_are_used_except_for_this_machine() {
    let (proxy, registry) = (Registry::start(), Registry::start());
    registry.add_image("app", "x", &OCI, b"{}", &[]);
    // An address that is this machine's but does not look it.
    let near = registry.host().replace("127.0.0.1", "0.0.0.0");
    let hosts =
        ["registry.invalid", &near].map(|host| HostRule { plain_http: PlainHttp::Always, ..HostRule::new(host) });
    let proxies = ProxyConfig {
        http_proxy: Some(Secret::new(format!("http://me:secret@{}", proxy.host()))),
        https_proxy: None,
        no_proxy: Some("example.com,0.0.0.0".to_owned()),
    };
    let client = Client::new(ClientConfig { hosts: hosts.into(), proxy: proxies, ..config() });
    client.resolve(&at(&registry, "app:x")).unwrap();
    client.resolve(&format!("{near}/app:x").parse().unwrap()).unwrap();
    assert!(proxy.take_log().is_empty());
    client.resolve(&"registry.invalid/app:x".parse().unwrap()).unwrap_err();
    assert_eq!(proxy.take_lines(), ["GET http://registry.invalid/v2/app/manifests/x"]);
    assert!(!format!("{client:?}").contains("secret@"));
}

#[test]
fn what_nobody_listens_to_is_a_network_error() {
    let error = client().resolve(&"127.0.0.1:1/app".parse().unwrap()).unwrap_err();
    assert!(matches!(&error, Error::Network { host, .. } if host == "http://127.0.0.1:1"), "{error:?}");
}
