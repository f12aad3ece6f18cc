//! Caches that machines share. A machine is a state directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};

use serde_json::{Value, json};

use crate::image::Image;
use crate::registry::server::{Fault, Logged, Registry, sha256};
use crate::registry::{Distribution, add_base};
use crate::support::{Env, Run, have};

/// A build with two stages, of which the image is one.
fn app(host: &str) -> String {
    format!(
        "FROM {host}/base:1 AS build\nWORKDIR /src\nCOPY src .\nRUN cat one two > all && echo made > /build-log\n\
         FROM {host}/base:1\nWORKDIR /app\nCOPY --from=build /src/all .\nRUN cp all copy\nLABEL v=1\n"
    )
}

/// A machine with the files that [`app`] wants.
fn machine() -> Env {
    let env = Env::new();
    env.file("src/one", "1\n");
    env.file("src/two", "2\n");
    env
}

/// Builds the context with JSON events.
fn build(env: &Env, dockerfile: &str, options: &[&str]) -> Run {
    fs::write(env.path("Dockerfile"), dockerfile).unwrap();
    let mut args = vec!["build", "--progress", "json", "-f", "Dockerfile"];
    args.extend(options);
    args.push("context");
    env.run(&args)
}

fn words(run: &Run) -> Vec<String> {
    run.steps().iter().map(|step| step.split(' ').next().unwrap().to_owned()).collect()
}

fn events(run: &Run, kind: &str) -> Vec<Value> {
    let events = run.stdout.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    events.filter(|event| event["event"] == kind).collect()
}

fn warnings(run: &Run) -> Vec<String> {
    events(run, "warning").iter().map(|event| format!("{}: {}", event["code"], event["message"])).collect()
}

/// Digests of blobs that were fetched.
fn fetched(log: &[Logged]) -> BTreeSet<String> {
    let digest = |logged: &Logged| logged.line.strip_prefix("GET /v2/")?.split_once("/blobs/").map(|(_, d)| d.to_owned());
    log.iter().filter_map(digest).collect()
}

/// The document that was last put under a tag.
fn put(log: &[Logged], tag: &str) -> Value {
    let found = log.iter().rfind(|logged| logged.line == format!("PUT /v2/{tag}"));
    serde_json::from_slice(&found.unwrap_or_else(|| panic!("nobody put {tag}")).body).unwrap()
}

fn layers(manifest: &Value) -> Vec<String> {
    let is_layer = |layer: &&Value| layer["mediaType"].as_str().unwrap().contains(".layer.v1.");
    let layers = manifest["layers"].as_array().unwrap();
    layers.iter().filter(is_layer).map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_second_machine_runs_nothing_and_fetches_no_layer_that_its_output_does_not_need() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = app(&host);
    let (to, from) =
        (format!("type=registry,ref={host}/cache,mode=max"), format!("type=registry,ref={host}/cache"));
    let output = |tag: &str| format!("type=registry,name={host}/app:{tag}");
    let first = machine();
    let run = build(&first, &dockerfile, &["--cache-to", &to, "--output", &output("1")]);
    run.ok();
    assert_eq!(words(&run), ["RAN"; 6], "{:?}", run.steps());
    let log = registry.take_log();
    let image = put(&log, "app/manifests/1");
    let keys = log.iter().filter(|logged| logged.line.starts_with("PUT /v2/cache/manifests/")).count();
    assert_eq!(keys, 7, "six steps and the base");

    // The image goes where its layers are: nobody reads one.
    let second = machine();
    let run = build(&second, &dockerfile, &["--cache-from", &from, "--output", &output("2")]);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 6], "{:?}", run.steps());
    assert_eq!(events(&run, "step_found").len(), 6);
    assert_eq!(events(&run, "step_found")[0]["from"], format!("{host}/cache"));
    let log = registry.take_log();
    assert_eq!(put(&log, "app/manifests/2"), image, "the same image");
    let got = fetched(&log);
    let of_image: BTreeSet<String> = layers(&image).into_iter().collect();
    assert!(got.is_disjoint(&of_image), "{got:#?}");
    let asked = log.iter().filter(|logged| logged.line.contains("/v2/cache/manifests/")).count();
    assert_eq!(asked, 2, "one request for what the cache is named by, one for the first key: {log:#?}");

    // The image goes to this machine: its layers come, those of the other stage do not.
    let third = machine();
    let run = build(&third, &dockerfile, &["--cache-from", &from, "--output", "type=oci,tar=false,dest=out"]);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 6]);
    let log = registry.take_log();
    let got = fetched(&log);
    assert!(got.is_superset(&of_image), "{got:#?}");
    let tars = |digest: &&String| get(&registry, &format!("cache/blobs/{digest}")).starts_with(&[0x1f, 0x8b]);
    assert_eq!(got.iter().filter(tars).count(), of_image.len(), "{got:#?}");
    assert_eq!(Image::open(&third.path("out"), None).manifest, image);
    // What came is remembered here.
    let run = build(&third, &dockerfile, &["--output", "type=cacheonly"]);
    run.ok();
    assert_eq!(words(&run), ["RAN", "RAN", "RAN", "CACHED", "CACHED", "CACHED"], "{:?}", run.steps());

    // What changed is run on layers that come when the command needs them.
    let fourth = machine();
    fourth.file("src/two", "other\n");
    let changed = build(&fourth, &dockerfile, &["--cache-from", &from, "--output", "type=oci,tar=false,dest=out"]);
    changed.ok();
    assert_eq!(words(&changed), ["CACHED", "RAN", "RAN", "CACHED", "RAN", "RAN"], "{:?}", changed.steps());
    let image = Image::open(&fourth.path("out"), None);
    assert_eq!(image.text("app/copy"), "1\nother\n");
}

/// What the registry answers to a GET.
fn get(registry: &Registry, path: &str) -> Vec<u8> {
    let mut stream = TcpStream::connect(registry.host()).unwrap();
    stream.write_all(format!("GET /v2/{path} HTTP/1.1\r\n\r\n").as_bytes()).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).unwrap();
    let at = answer.windows(4).position(|window| window == b"\r\n\r\n").unwrap();
    answer.split_off(at + 4)
}
