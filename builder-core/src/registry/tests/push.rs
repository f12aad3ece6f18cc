//! Uploads, whole and in pieces, through every fault.

use std::io::{self, Cursor, Read};

use super::server::{Auth, Fault, OCI, Registry, TokenFor, sha256};
use super::{at, client, config, fetch, noise};
use crate::digest::Digest;
use crate::registry::{
    Access, Client, ClientConfig, Credential, Credentials, Error, Mirror, MirrorPull, Reference, RegistryRule, Secret,
    Upload, Uploaded,
};

fn push(client: &Client, reference: &Reference, bytes: &[u8], mount_from: Option<&str>) -> Result<Uploaded, Error> {
    let owned = bytes.to_vec();
    let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
        Ok(Box::new(Cursor::new(owned[usize::try_from(offset).unwrap()..].to_vec())))
    };
    let upload =
        Upload { digest: Digest::of(bytes), size: bytes.len() as u64, bring: &|| Ok(()), open: &open, mount_from };
    client.push_blob(reference, upload)
}

/// The requests without the digests and the probe.
fn short_lines(registry: &Registry) -> Vec<String> {
    let lines = registry.take_lines().into_iter().filter(|line| line != "GET /v2/");
    lines.map(|line| line.split("sha256").next().unwrap().replace("state=a%2Fb", "s")).collect()
}

#[test]
fn blobs_and_manifests_arrive_with_the_fewest_requests() {
    let registry = Registry::start();
    let (client, reference) = (client(), at(&registry, "app:x"));
    let (small, large) = (noise(1000), noise(3_000_000));
    assert_eq!(push(&client, &reference, &small, None).unwrap(), Uploaded::Sent);
    let head = "HEAD /v2/app/blobs/";
    let begin = "POST /v2/app/blobs/uploads/";
    assert_eq!(short_lines(&registry), [head, begin, "PUT /v2/app/blobs/uploads/1?s&digest="]);
    assert_eq!(push(&client, &reference, &large, None).unwrap(), Uploaded::Sent);
    let patch = "PATCH /v2/app/blobs/uploads/2?s";
    assert_eq!(short_lines(&registry), [head, begin, patch, "PUT /v2/app/blobs/uploads/2?s&digest="]);
    assert_eq!(push(&client, &reference, &large, None).unwrap(), Uploaded::Existed);
    assert_eq!(push(&client, &reference, b"", None).unwrap(), Uploaded::Sent);
    for blob in [&small, &large] {
        assert!(fetch(&client, &reference, blob).is_ok_and(|found| found == *blob));
    }
    let manifest = br#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    let digest = client.push_manifest(&reference, OCI.manifest, manifest).unwrap().digest;
    let found = client.resolve(&reference).unwrap();
    assert_eq!((found.digest, found.media_type.as_str(), &found.bytes[..]), (digest, OCI.manifest, &manifest[..]));
    assert_eq!(client.push_manifest(&reference.with_digest(digest), OCI.manifest, manifest).unwrap().digest, digest);
    let other = reference.with_digest(Digest::of(b"other"));
    assert!(matches!(client.push_manifest(&other, OCI.manifest, manifest), Err(Error::DigestMismatch { .. })));
}

#[test]
fn a_blob_of_another_repository_is_mounted() {
    let registry = Registry::start();
    let (client, blob) = (client(), noise(2_000_000));
    push(&client, &at(&registry, "base"), &blob, None).unwrap();
    registry.take_lines();
    assert_eq!(push(&client, &at(&registry, "app"), &blob, Some("base")).unwrap(), Uploaded::Mounted);
    assert_eq!(registry.take_lines().len(), 2, "HEAD and POST");
    assert_eq!(push(&client, &at(&registry, "third"), &blob, Some("elsewhere")).unwrap(), Uploaded::Sent);
    let begun = registry.take_lines().iter().filter(|line| line.starts_with("POST")).count();
    assert_eq!(begun, 1, "an upload that was begun instead of a mount is used");
    registry.plan("mount=", 1, Fault::Status(403, vec![], "not yours".to_owned()));
    assert_eq!(push(&client, &at(&registry, "fourth"), &blob, Some("base")).unwrap(), Uploaded::Sent);
}

#[test]
fn a_mount_needs_a_token_for_both_repositories() {
    let registry = Registry::start();
    registry.set_auth(Auth::Bearer { realm: registry.realm(), uses: 100 });
    push(&client(), &at(&registry, "app"), b"blob", Some("base")).unwrap();
    let tokens: Vec<_> = registry.take_lines().into_iter().filter(|line| line.contains("/token")).collect();
    let both = "scope=repository%3Aapp%3Apull%2Cpush&scope=repository%3Abase%3Apull";
    assert!(tokens.iter().any(|line| line.ends_with(both)), "{tokens:?}");
}

#[test]
fn a_broken_upload_goes_on_where_the_registry_stands() {
    let registry = Registry::start();
    let (client, reference) = (client(), at(&registry, "app"));
    let blob = noise(3_000_000);
    registry.plan("PATCH", 1, Fault::ResetUpload(1_500_000));
    assert_eq!(push(&client, &reference, &blob, None).unwrap(), Uploaded::Sent);
    let log = registry.take_log();
    let ranges: Vec<_> = log.iter().filter_map(|logged| logged.range.as_deref()).collect();
    assert_eq!(ranges, ["0-2999999", "1500000-2999999"], "no byte is sent twice");
    assert!(fetch(&client, &reference, &blob).is_ok_and(|found| found == blob));
}

#[test]
fn uploads_survive_passing_faults() {
    let status = |status| Fault::Status(status, vec![("retry-after", "0".to_owned())], "busy".to_owned());
    let table: [(usize, &str, Fault); 12] = [
        (1, "HEAD", status(503)),
        (2, "POST", status(429)),
        (2, "PATCH", status(503)),
        (1, "PATCH", Fault::LostAnswer),
        (1, "PATCH", Fault::ResetUpload(0)),
        (1, "PATCH", Fault::ResetUpload(1)),
        (1, "PATCH", status(416)),
        (1, "PATCH", status(404)),
        (1, "PATCH", Fault::Without("range")),
        (1, "PATCH", Fault::Without("location")),
        (2, "PUT", status(500)),
        (1, "PUT", Fault::LostAnswer),
    ];
    for (n, (times, part, fault)) in table.into_iter().enumerate() {
        for size in [10_000, 2_000_000 + n] {
            let mut blob = noise(size);
            blob[..8].copy_from_slice(&(n as u64).to_le_bytes());
            let registry = Registry::start();
            registry.plan(part, times, fault.clone());
            let (client, reference) = (client(), at(&registry, "app"));
            let pushed = push(&client, &reference, &blob, None);
            assert!(matches!(pushed, Ok(Uploaded::Sent)), "{part} {fault:?}: {pushed:?}");
            assert!(fetch(&client, &reference, &blob).is_ok_and(|found| found == blob), "{part} {fault:?}");
        }
    }
}

#[test]
fn a_lost_answer_does_not_send_the_blob_again() {
    let registry = Registry::start();
    let blob = noise(2_000_000);
    registry.plan("PUT", 1, Fault::LostAnswer);
    push(&client(), &at(&registry, "app"), &blob, None).unwrap();
    let patches = registry.take_lines().iter().filter(|line| line.starts_with("PATCH")).count();
    assert_eq!(patches, 1);
}

#[test]
fn a_proxy_that_takes_no_large_bodies_gets_pieces() {
    let registry = Registry::start();
    let blob = noise(20 << 20);
    registry.plan("PATCH", 1, Fault::Early(413));
    assert_eq!(push(&client(), &at(&registry, "app"), &blob, None).unwrap(), Uploaded::Sent);
    let patches = registry.take_log().into_iter().filter(|logged| logged.line.starts_with("PATCH"));
    let sizes: Vec<_> = patches.map(|patch| patch.body.len()).collect();
    assert_eq!(sizes, [0, 8 << 20, 8 << 20, 4 << 20]);
    for status in [413, 403] {
        registry.plan("PATCH", 2, Fault::Early(status));
        let error = push(&client(), &at(&registry, "app"), &noise((20 << 20) + 1), None).unwrap_err();
        assert!(error.to_string().contains("too large"), "the refusal is heard: {error:?}");
    }
}

#[test]
fn lasting_faults_end_an_upload() {
    let registry = Registry::start();
    let (client, reference) = (client(), at(&registry, "app"));
    let body = r#"{"errors":[{"code":"DENIED","message":"read only"}]}"#;
    for part in ["HEAD", "POST", "PATCH", "PUT"] {
        registry.plan(part, 1, Fault::Status(403, vec![], body.to_owned()));
        let error = push(&client, &reference, &noise(2_000_000), None).unwrap_err();
        assert!(matches!(&error, Error::Denied { .. }), "{part}: {error:?}");
    }
    registry.plan("POST", 1, Fault::Without("location"));
    let error = push(&client, &reference, b"x", None).unwrap_err();
    assert!(matches!(&error, Error::Protocol { problem, .. } if problem.contains("Location")), "{error:?}");
    // Bytes that are not those of the digest.
    let open = |_| -> io::Result<Box<dyn Read + Send>> { Ok(Box::new(Cursor::new(b"wrong".to_vec()))) };
    let upload = Upload { digest: Digest::of(b"right"), size: 5, bring: &|| Ok(()), open: &open, mount_from: None };
    let error = client.push_blob(&reference, upload).unwrap_err();
    assert!(error.to_string().contains("DIGEST_INVALID"), "{error:?}");
    let open = |_| -> io::Result<Box<dyn Read + Send>> { Err(io::Error::from(io::ErrorKind::NotFound)) };
    let upload = Upload { digest: Digest::of(b"right"), size: 5, bring: &|| Ok(()), open: &open, mount_from: None };
    assert!(matches!(client.push_blob(&reference, upload), Err(Error::Source { .. })));
}

#[test]
fn the_token_is_replaced_in_the_middle_of_an_upload() {
    let registry = Registry::start();
    registry.set_auth(Auth::Bearer { realm: registry.realm(), uses: 1 });
    let (client, reference, blob) = (client(), at(&registry, "app"), noise(2_000_000));
    assert_eq!(push(&client, &reference, &blob, None).unwrap(), Uploaded::Sent);
    assert!(fetch(&client, &reference, &blob).is_ok_and(|found| found == blob));
}

#[test]
fn whether_pushing_is_allowed_is_known_before() {
    let registry = Registry::start();
    registry.set_auth(Auth::Bearer { realm: registry.realm(), uses: 100 });
    registry.set_token_for(TokenFor::User("pusher", "secret"), None);
    let reference = at(&registry, "app:x");
    assert!(matches!(client().check_push(&reference), Err(Error::Unauthorized { .. })));
    let mut credentials = Credentials::default();
    let credential = Credential::Basic { username: "pusher".to_owned(), password: Secret::new("secret") };
    credentials.insert(&registry.host(), Some(Access::Push), credential);
    let client = Client::new(ClientConfig { credentials, ..config() });
    registry.take_lines();
    client.check_push(&reference).unwrap();
    let lines = short_lines(&registry);
    assert_eq!(lines[lines.len() - 2..], ["POST /v2/app/blobs/uploads/", "DELETE /v2/app/blobs/uploads/1?s"]);
    registry.plan("POST", 1, Fault::Status(403, vec![], "read only".to_owned()));
    assert!(matches!(client.check_push(&reference), Err(Error::Denied { .. })));
}

#[test]
fn the_right_to_delete_is_not_asked_for_with_everything_else() {
    let registry = Registry::start();
    registry.set_auth(Auth::Bearer { realm: registry.realm(), uses: 3 });
    let (client, reference) = (client(), at(&registry, "app:x"));
    let question = format!("Bearer realm=\"{}\",service=\"test\",scope=\"repository:app:delete\"", registry.realm());
    registry.plan("DELETE", 1, Fault::Status(401, vec![("www-authenticate", question)], String::new()));
    client.check_push(&reference).unwrap();
    let blobs: Vec<Vec<u8>> = (0..4).map(|n| vec![n; 100]).collect();
    for blob in &blobs {
        push(&client, &reference, blob, None).unwrap();
    }
    let lines = registry.take_lines();
    let asked: Vec<&String> = lines.iter().filter(|line| line.contains("/token?")).collect();
    let for_deletion = asked.iter().filter(|line| line.contains("delete")).count();
    assert!(for_deletion == 1 && asked.len() > 3, "{asked:#?}");
    assert_eq!(lines.iter().filter(|line| line.starts_with("DELETE")).count(), 2, "{lines:#?}");
}

#[test]
fn an_upload_elsewhere_gets_no_authorization() {
    let (registry, other) = (Registry::start(), Registry::start());
    registry.set_auth(Auth::Basic("me", "secret"));
    let mut credentials = Credentials::default();
    let credential = Credential::Basic { username: "me".to_owned(), password: Secret::new("secret") };
    credentials.insert(&registry.host(), None, credential);
    let client = Client::new(ClientConfig { credentials, ..config() });
    let location = format!("http://{}/v2/app/blobs/uploads/1", other.host());
    let elsewhere = Fault::Status(202, vec![("location", location)], String::new());
    registry.plan("POST", 1, elsewhere);
    let error = push(&client, &at(&registry, "app"), b"blob", None);
    assert!(matches!(error, Ok(Uploaded::Sent) | Err(_)));
    let log = other.take_log();
    assert!(!log.is_empty() && log.iter().all(|logged| logged.authorization.is_none()), "{log:?}");
}

#[test]
fn mirrors_are_not_written_to() {
    let (mirror, registry) = (Registry::start(), Registry::start());
    let mirrors = vec![Mirror { location: mirror.host(), pull: MirrorPull::All, insecure: false }];
    let rule = RegistryRule { prefix: registry.host(), location: None, mirrors, blocked: false, insecure: false };
    let client = Client::new(ClientConfig { registries: vec![rule], ..config() });
    push(&client, &at(&registry, "app"), b"blob", None).unwrap();
    assert!(mirror.take_log().is_empty());
    assert_eq!(registry.take_lines().last().map(|line| line.contains(&sha256(b"blob")[7..])), Some(true));
}
