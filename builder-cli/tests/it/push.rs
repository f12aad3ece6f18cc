//! Pushes that are cut off: what a registry then has, and what the next push makes of it.

use std::net::TcpListener;
use std::process::Stdio;
use std::time::{Duration, Instant};

use serde_json::json;

use crate::registry::{count, server};
use crate::support::{Env, Random, Run};
use server::{OCI, Registry, sha256};

/// Bytes that no compression makes small.
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut random = Random(seed);
    (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect()
}

#[test]
fn a_push_that_is_killed_at_any_moment_is_done_by_the_next() {
    let env = Env::new();
    // Small, and large enough for an upload in pieces.
    env.file("small", noise(1, 10_000));
    env.file("large", noise(2, 3_000_000));
    env.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL a=$TARGETARCH\nCOPY small /\nCOPY large /\n");
    let digest = env.run(&["build", "-q", "--platform", "linux/amd64,linux/arm64", "-t", "app", "context"]).ok();
    let registry = Registry::start();
    let push = |number: usize| {
        let dest = format!("{}/app{number}:tag", registry.host());
        env.command(&["push", "app", &dest])
    };
    let whole = Run::of(&push(0).output().unwrap()).ok();
    assert_eq!(whole, digest);
    let requests = registry.take_log().len();
    assert!(requests > 10, "{requests}");
    for number in 1..=requests {
        let mut child = push(number).stdout(Stdio::null()).stderr(Stdio::null()).spawn().unwrap();
        while registry.requests() < number && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(registry.missing(), Vec::<String>::new(), "killed after request {number}");
        assert_eq!(Run::of(&push(number).output().unwrap()).ok(), digest, "after a kill at {number}");
        assert_eq!(registry.missing(), Vec::<String>::new());
        let lines = registry.take_lines();
        let tagged = count(&lines, &format!("PUT /v2/app{number}/manifests/tag"));
        assert!((1..=2).contains(&tagged), "{number}: {lines:#?}");
    }
}

#[test]
fn a_layer_is_sent_while_the_next_is_made() {
    let env = Env::new();
    env.import_busybox();
    let registry = Registry::start();
    let gate = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = gate.local_addr().unwrap().port();
    env.file("first", "first\n");
    // The second step ends when somebody has taken its call.
    env.file(
        "Dockerfile",
        format!("FROM busybox\nCOPY first /\nRUN busybox nc 127.0.0.1 {port} </dev/null; echo > /second\n"),
    );
    let name = format!("{}/app:1", registry.host());
    let args = ["build", "-q", "-t", &name, "--push", "context"];
    let build = env.command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // Long after the step has called; a build that waits for it would wait forever.
    let patience = Instant::now() + Duration::from_secs(60);
    let call = gate.accept().unwrap();
    let mut log = Vec::new();
    let sent = |log: &[String]| count(log, "PUT /v2/app/blobs/uploads/");
    while sent(&log) < 2 && Instant::now() < patience {
        log.extend(registry.take_lines());
        std::thread::yield_now();
    }
    drop(call);
    let run = Run::of(&build.wait_with_output().unwrap());
    run.ok();
    assert_eq!(sent(&log), 2, "the base and the copy: {log:#?}\n{}", run.stderr);
    assert_eq!(count(&log, "manifests"), 0, "nothing has a name before the build is over: {log:#?}");
    log.extend(registry.take_lines());
    assert_eq!((sent(&log), count(&log, "HEAD /v2/app/blobs/")), (4, 4), "each is sent and asked for once: {log:#?}");
    assert_eq!(log.last().unwrap(), "PUT /v2/app/manifests/1");
    assert_eq!(registry.missing(), Vec::<String>::new());
}

#[test]
fn addresses_of_foreign_layers_are_never_followed() {
    let env = Env::new();
    let (registry, elsewhere) = (Registry::start(), Registry::start());
    let layer = b"nobody fetches this";
    elsewhere.add_blob(layer);
    let config = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(layer)]}})
    .to_string();
    let digest = registry.add_blob(config.as_bytes());
    let manifest = json!({"schemaVersion": 2, "mediaType": OCI.manifest,
        "config": {"mediaType": OCI.config, "digest": digest, "size": config.len()},
        "layers": [{"mediaType": "application/vnd.oci.image.layer.nondistributable.v1.tar",
            "digest": sha256(layer), "size": layer.len(),
            "urls": [format!("http://{}/{}", elsewhere.host(), sha256(layer))]}]})
    .to_string();
    registry.add_manifest("app", "1", OCI.manifest, manifest.as_bytes());
    let source = format!("docker://{}/app:1", registry.host());
    // A copy goes without it, as whoever uses it fetches it; a build needs it, and says so.
    env.run(&["copy", &source, "oci:out:1"]).ok();
    env.run(&["copy", &source, &format!("docker://{}/copy:1", registry.host())]).ok();
    env.file("Dockerfile", format!("FROM {}/app:1\nCOPY Dockerfile /\n", registry.host()));
    let run = env.run(&["build", "--platform", "linux/amd64", "--retry", "0", "context"]);
    assert!(run.fails(75).contains("does not exist"), "{}", run.stderr);
    assert!(elsewhere.take_log().is_empty());
}

#[test]
fn an_image_without_tags_is_found_by_its_digest() {
    let env = Env::new();
    let registry = Registry::start();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let output = format!("type=image,name={}/app,push=true,push-by-digest=true", registry.host());
    let build = |platform: &str| env.run(&["build", "-q", "--platform", platform, "--output", &output, "context"]).ok();
    let digests = ["linux/amd64", "linux/arm64"].map(build);
    assert_eq!(count(&registry.take_lines(), "/manifests/sha256"), 2);
    // Another machine puts them under one name.
    let name = |digest: &String| format!("docker://{}/app@{digest}", registry.host());
    let images = digests.each_ref().map(name);
    env.run(&["manifest", "create", "all", &images[0], &images[1], "--state-dir", "other"]).ok();
    let dest = format!("{}/app:1", registry.host());
    env.run(&["manifest", "push", "all", &dest, "--state-dir", "other"]).ok();
    let lines = registry.take_lines();
    assert_eq!(count(&lines, "PUT /v2/app/blobs/"), 0, "everything is there: {lines:#?}");
    assert_eq!(lines.last().unwrap(), "PUT /v2/app/manifests/1");
    assert_eq!(registry.missing(), Vec::<String>::new());
}
