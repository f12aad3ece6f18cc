//! Images in and out of registries: requests that are made, bytes that arrive, credentials that stay where they belong.

#[path = "../../../builder-core/tests/support/registry.rs"]
#[allow(dead_code, reason = "the tests of the library use the rest")]
mod server;

use std::fs;
use std::io::{BufRead as _, BufReader, Read as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use serde_json::{Value, json};
use server::{Logged, Registry, sha256};

use crate::support::{Env, Run, busybox_rootfs, have, skip};

/// A gzip layer of a tar.
fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::GzBuilder::new().write(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, tar).unwrap();
    encoder.finish().unwrap()
}

/// Puts an image of busybox into the registry.
fn add_base(registry: &Registry, repository: &str, tag: &str) {
    let tar = busybox_rootfs();
    let layer = gzip(&tar);
    let config = json!({
        "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }, "os": "linux",
        "config": {"Env": ["PATH=/bin"]},
        "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]},
        "history": [{"created_by": "base"}],
    });
    registry.add_image(repository, tag, &server::OCI, config.to_string().as_bytes(), &[&layer]);
}

/// The lines of the log with digests and numbers of uploads replaced, sorted.
fn lines(log: &[Logged]) -> Vec<String> {
    let mut lines: Vec<String> = log.iter().map(|logged| logged.line.clone()).collect();
    lines.sort();
    lines
}

fn count(lines: &[String], part: &str) -> usize {
    lines.iter().filter(|line| line.contains(part)).count()
}

/// Builds the context of `env`, whose Dockerfile is `dockerfile`.
fn build(env: &Env, dockerfile: &str, options: &[&str]) -> Run {
    env.file("Dockerfile", dockerfile);
    let mut args = vec!["build", "--progress", "plain"];
    args.extend(options);
    args.push("context");
    env.run(&args)
}

#[test]
fn a_build_pulls_its_base_and_pushes_the_result_with_the_fewest_requests() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    env.file("hello", "hello\n");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nCOPY hello /hello\n");
    let output = format!("type=registry,name={host}/app:x,compression=gzip");
    let digest = build(&env, &dockerfile, &["--output", &output]).ok();
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "GET /v2/base/manifests/"), 1, "{log:#?}");
    assert_eq!(count(&log, "GET /v2/base/blobs/"), 2, "config and layer, once: {log:#?}");
    // The permission is asked for once, the base's layer is taken over, config and new layer are sent.
    assert_eq!(count(&log, "DELETE /v2/app/blobs/uploads/"), 1, "{log:#?}");
    assert_eq!(count(&log, "mount="), 0, "the test registry has blobs of tests everywhere: {log:#?}");
    assert_eq!(count(&log, "HEAD /v2/app/blobs/"), 3, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/blobs/uploads/"), 2, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/manifests/x"), 1, "{log:#?}");
    assert_eq!(count(&log, "/manifests/"), 2, "{log:#?}");
    // Once more: nothing is sent but the tag.
    assert_eq!(build(&env, &dockerfile, &["--output", &output]).ok(), digest);
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "/v2/base/"), 0, "the base is in the store: {log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/blobs/"), 0, "{log:#?}");
    assert_eq!(count(&log, "PUT /v2/app/manifests/x"), 1, "{log:#?}");
    // Another repository of the registry: what the first has is taken over.
    build(&env, &dockerfile, &["-t", &format!("{host}/app:x"), "-t", &format!("{host}/other:y"), "--push"]).ok();
    let log = lines(&registry.take_log());
    assert_eq!(count(&log, "PUT /v2/other/blobs/"), 0, "{log:#?}");
    assert_eq!(count(&log, "POST /v2/other/blobs/uploads/?mount="), 2, "config and layer: {log:#?}");
    assert_eq!(count(&log, "PUT /v2/other/manifests/y"), 1, "{log:#?}");
}

#[test]
fn an_image_without_a_name_is_not_pushed() {
    let env = Env::new();
    let run = build(&env, "FROM scratch\nCOPY Dockerfile /\n", &["--push"]);
    assert!(run.fails(2).contains("-t NAME"), "{}", run.stderr);
}

#[test]
fn a_push_that_is_not_allowed_fails_before_the_build_is_over() {
    let env = Env::new();
    let registry = Registry::start();
    registry.plan("POST /v2/app/blobs/uploads/", 9, server::Fault::Status(403, vec![], "{}".to_owned()));
    let name = format!("{}/app:x", registry.host());
    let run = build(&env, "FROM scratch\nCOPY Dockerfile /\n", &["-t", &name, "--push"]);
    assert!(run.fails(75).contains("denied"), "{}", run.stderr);
    let log = lines(&registry.take_log());
    assert_eq!(log.len(), 1, "one request was enough: {log:#?}");
}

#[test]
fn media_types_and_compression_are_those_of_the_output() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nCOPY Dockerfile /\n");
    let name = |tag: &str, options: &str| format!("type=registry,name={host}/app:{tag}{options}");
    let options = [
        name("docker", ",oci-mediatypes=false"),
        name("zstd", ",compression=zstd"),
        name("all", ",compression=zstd,force-compression=true"),
    ];
    let outputs: Vec<&str> = options.iter().flat_map(|output| ["--output", output.as_str()]).collect();
    build(&env, &dockerfile, &outputs).ok();
    let layers = |tag: &str| {
        let log = registry.take_log();
        let put = log.iter().find(|logged| logged.line == format!("PUT /v2/app/manifests/{tag}")).unwrap();
        let manifest: Value = serde_json::from_slice(&put.body).unwrap();
        let types = manifest["layers"].as_array().unwrap().iter().map(|layer| layer["mediaType"].as_str().unwrap());
        let mut types: Vec<String> =
            types.map(|text| text.rsplit_once("layer").map_or(text, |(_, end)| end).to_owned()).collect();
        types.push(manifest["mediaType"].as_str().unwrap().to_owned());
        // The log is taken as a whole: what else is in it is needed again.
        (types, log)
    };
    let (types, log) = layers("docker");
    assert_eq!(types[2], "application/vnd.docker.distribution.manifest.v2+json");
    assert!(types[..2].iter().all(|text| text.contains("docker") && text.ends_with("gzip")), "{types:?}");
    let of = |tag: &str| -> Vec<String> {
        let put = log.iter().find(|logged| logged.line == format!("PUT /v2/app/manifests/{tag}")).unwrap();
        let manifest: Value = serde_json::from_slice(&put.body).unwrap();
        manifest["layers"]
            .as_array()
            .unwrap()
            .iter()
            .map(|layer| layer["mediaType"].as_str().unwrap().to_owned())
            .collect()
    };
    assert!(of("zstd")[0].ends_with("+gzip") && of("zstd")[1].ends_with("+zstd"), "{:?}", of("zstd"));
    assert!(of("all").iter().all(|text| text.ends_with("+zstd")), "{:?}", of("all"));
    let run = build(&env, &dockerfile, &["--output", &name("x", ",oci-mediatypes=false,compression=zstd")]);
    assert!(run.fails(2).contains("zstd"), "{}", run.stderr);
}
