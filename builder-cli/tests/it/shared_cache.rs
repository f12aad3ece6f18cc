//! Caches that machines share. A machine is a state directory.

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::path::Path;

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
pub(crate) fn fetched(log: &[Logged]) -> BTreeSet<String> {
    let digest =
        |logged: &Logged| logged.line.strip_prefix("GET /v2/")?.split_once("/blobs/").map(|(_, d)| d.to_owned());
    log.iter().filter_map(digest).collect()
}

/// The document that was last put under a tag.
pub(crate) fn put(log: &[Logged], tag: &str) -> Value {
    let found = log.iter().rfind(|logged| logged.line == format!("PUT /v2/{tag}"));
    serde_json::from_slice(&found.unwrap_or_else(|| panic!("nobody put {tag}")).body).unwrap()
}

pub(crate) fn layers(manifest: &Value) -> Vec<String> {
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
    let (to, from) = (format!("type=registry,ref={host}/cache,mode=max"), format!("type=registry,ref={host}/cache"));
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

#[test]
fn the_smallest_cache_has_the_stage_that_is_built_and_is_written_with_the_fewest_requests() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/cache:main");
    let first = machine();
    let options = ["--cache-to", &cache, "--cache-from", &cache, "--output", "type=cacheonly"];
    build(&first, &app(&host), &options).ok();
    let put_tags =
        |log: &[Logged]| log.iter().filter(|logged| logged.line.starts_with("PUT /v2/cache/manifests/")).count();
    let log = registry.take_log();
    assert_eq!(put_tags(&log), 5, "three steps, the base, and the name");
    // Nothing new: whoever looks finds it, so only the name is written.
    build(&first, &app(&host), &options).ok();
    let log = registry.take_log();
    assert_eq!(put_tags(&log), 1, "{log:#?}");
    assert!(!log.iter().any(|logged| logged.line.starts_with("PUT /v2/cache/blobs/")), "{log:#?}");
    // What was found in this very repository is not asked for again.
    build(&machine(), &app(&host), &options).ok();
    let log = registry.take_log();
    let asked = log.iter().filter(|logged| logged.line.starts_with("HEAD /v2/cache/manifests/")).count();
    assert_eq!((asked, put_tags(&log)), (1, 1), "the base has no step to be found by: {log:#?}");
    let other = machine();
    // The other stage is only described: that is enough to see that nothing changed, and no more.
    let image = ["--cache-from", &cache, "--cache-strict", "--output", "type=oci,tar=false,dest=out"];
    let run = build(&other, &app(&host), &image);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 6], "{:?}", run.steps());
    assert_eq!(Image::open(&other.path("out"), None).text("app/copy"), "1\n2\n");
    let changed = machine();
    changed.file("src/two", "other\n");
    let run = build(&changed, &app(&host), &image);
    run.ok();
    assert_eq!(warnings(&run), [""; 0]);
    assert!(events(&run, "step_failed").is_empty(), "{}", run.stdout);
    assert_eq!(Image::open(&changed.path("out"), None).text("app/copy"), "1\nother\n");
    let of_first = events(&run, "step_found").iter().filter(|event| event["step"] == 5).count();
    assert!(of_first >= 1, "what has its layers is still found: {}", run.stdout);
    // A stage that is only described is made when it is what is built.
    let run = build(&machine(), &app(&host), &[&["--target", "build"], &image[..]].concat());
    run.ok();
    assert_eq!(words(&run).iter().filter(|word| *word == "RAN").count(), 3, "{:?}", run.steps());
}

#[test]
fn a_cache_in_another_compression_gives_the_same_image() {
    let env = machine();
    let layout = ["--compression", "zstd", "--output", "type=oci,tar=false,dest=out"];
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    build(&env, FILES, &[&layout[..], &epoch[..]].concat()).ok();
    let expected = Image::open(&env.path("out"), None).manifest;
    let to = ["--cache-to", "type=local,dest=gzip,mode=max", "--output", "type=cacheonly"];
    build(&env, FILES, &[&to[..], &epoch[..]].concat()).ok();
    let other = machine();
    let from = format!("type=local,src={}", env.path("gzip").display());
    let run = build(&other, FILES, &[&["--cache-from", &from], &layout[..], &epoch[..]].concat());
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 4]);
    assert_eq!(Image::open(&other.path("out"), None).manifest, expected);
    let fetch = events(&run, "plan").iter().any(|plan| plan.to_string().contains("fetch 2 of the image's layers"));
    assert!(fetch, "{}", run.stdout);
}

/// Names of the blobs of a layout.
fn blobs(dir: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(dir.join("blobs/sha256")).unwrap().flatten();
    entries.map(|entry| entry.file_name().into_string().unwrap()).collect()
}

/// A build that needs no commands.
const FILES: &str =
    "FROM scratch AS a\nWORKDIR /made\nCOPY src/one /one\nFROM scratch\nCOPY --from=a / /a\nCOPY src /src\n";

#[test]
fn a_directory_holds_the_last_build_and_nothing_else() {
    let env = machine();
    let to = "type=local,dest=cache,mode=max";
    build(&env, FILES, &["--cache-to", to, "--output", "type=cacheonly"]).ok();
    let before = blobs(&env.path("cache"));
    assert_eq!(before.len(), 4 + 4 + 2, "layers, trees, config and manifest");

    let other = machine();
    let cache = format!("type=local,src={}", env.path("cache").display());
    let run = build(&other, FILES, &["--cache-from", &cache, "--output", "type=oci,tar=false,dest=out"]);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 4], "{:?}", run.steps());
    let image = Image::open(&other.path("out"), None);
    assert_eq!(image.text("a/one"), "1\n");

    // Read and written by one build: what is gone from the Dockerfile is gone from the directory.
    let third = machine();
    third.file("src/one", "changed\n");
    let to = format!("type=local,dest={},mode=max", env.path("cache").display());
    let args = ["--cache-from", &cache, "--cache-to", &to, "--output", "type=oci,tar=false,dest=out"];
    let run = build(&third, FILES, &args);
    run.ok();
    assert_eq!(words(&run), ["CACHED", "RAN", "RAN", "RAN"], "{:?}", run.steps());
    let after = blobs(&env.path("cache"));
    assert_eq!(after.len(), before.len(), "as much as before");
    assert_ne!(after, before);
    let run = build(&other, "FROM scratch\nCOPY src/one /one\n", &["--cache-to", &to, "--output", "type=cacheonly"]);
    run.ok();
    assert_eq!(blobs(&env.path("cache")).len(), 4, "a layer, its tree, config and manifest");
    // A directory of other things is not touched.
    let run = build(&other, FILES, &["--cache-to", "type=local,dest=context", "--output", "type=cacheonly"]);
    run.ok();
    assert!(warnings(&run)[0].contains("not an OCI image layout"), "{:?}", warnings(&run));
    // Nor one of images: least of all the state directory, be there images in it or not.
    for (dest, output) in [("out", "type=image,name=x"), ("state", "type=cacheonly"), ("state", "type=image,name=x")] {
        let before = blobs(&other.path(dest));
        let to = format!("type=local,dest={dest}");
        let run = build(&other, FILES, &["--cache-to", &to, "--output", output]);
        run.ok();
        assert!(warnings(&run)[0].contains("holds other images"), "{:?}", warnings(&run));
        assert!(blobs(&other.path(dest)).is_superset(&before), "{dest}");
    }
}

#[test]
fn an_image_carries_the_cache_of_its_own_stage() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nWORKDIR /app\nCOPY src .\nRUN cat one two > all\nCMD [\"x\"]\n");
    let output = format!("type=registry,name={host}/app:1");
    let zstd = format!("type=registry,name={host}/app:zstd,compression=zstd");
    build(&machine(), &dockerfile, &["--cache-to", "type=inline", "--output", &output, "--output", &zstd]).ok();
    let image = put(&registry.take_log(), "app/manifests/1");
    for tag in ["1", "zstd"] {
        let other = machine();
        let from = format!("{host}/app:{tag}");
        let layout = "type=oci,tar=false,dest=out";
        let options = ["--cache-from", &from, "--cache-to", "type=inline", "--output", layout];
        let run = build(&other, &dockerfile, &options);
        run.ok();
        assert_eq!(words(&run), ["CACHED"; 3], "{tag}: {:?} {:?}", run.steps(), warnings(&run));
        assert_eq!(Image::open(&other.path("out"), None).manifest, image, "{tag}");
    }
    // A base with a cache in it gives none of it to images on top.
    let on_top = machine();
    build(&on_top, &format!("FROM {host}/app:1\nLABEL a=b\n"), &["--output", "type=oci,tar=false,dest=out"]).ok();
    assert!(Image::open(&on_top.path("out"), None).config.get("builder.cache").is_none());
}

#[test]
fn sixteen_machines_share_one_repository_at_once() {
    const TEST: &str = "sixteen_machines_share_one_repository_at_once";
    if !have(TEST, &["docker-registry"]) {
        return;
    }
    let server = Env::new();
    let registry = Distribution::start(server.dir.path());
    server.run(&["login", &registry.host, "-u", "me", "-p", "sesame"]).ok();
    let repository = format!("{}/team/cache", registry.host);
    let options = ["--cache-to", &repository, "--cache-from", &repository, "--output", "type=cacheonly"];
    let log_in = |env: &Env| {
        fs::create_dir(env.path(".docker")).unwrap();
        fs::copy(server.path(".docker/config.json"), env.path(".docker/config.json")).unwrap();
    };
    let machines: Vec<Env> = (0..16).map(|_| machine()).collect();
    std::thread::scope(|scope| {
        let start = |env| {
            scope.spawn(move || {
                log_in(env);
                let run = build(env, FILES, &[&options[..], &["--cache-strict"]].concat());
                run.ok();
                assert_eq!(warnings(&run), [""; 0]);
            })
        };
        let builds: Vec<_> = machines.iter().map(start).collect();
        builds.into_iter().for_each(|build| build.join().unwrap());
    });
    let late = machine();
    log_in(&late);
    let run = build(&late, FILES, &["--cache-from", &repository, "--output", "type=local,dest=out"]);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 4], "{:?}", run.steps());
    assert_eq!(fs::read_to_string(late.path("out/a/one")).unwrap(), "1\n");
    let tags = late.run(&["ls-tags", &repository]).ok();
    assert_eq!(tags.lines().count(), 4, "a tag for each step, none for `latest`: {tags}");
}

#[test]
fn a_cache_that_fails_is_a_warning_and_an_error_only_on_demand() {
    for fault in [Fault::Status(403, vec![], "{}".to_owned()), Fault::Status(500, vec![], "{}".to_owned())] {
        let registry = Registry::start();
        let cache = format!("type=registry,ref={}/cache:c", registry.host());
        let both = ["--cache-from", &cache, "--cache-to", &cache, "--output", "type=cacheonly", "--retry", "0"];
        registry.plan("/v2/cache/", 1000, fault);
        let env = machine();
        let run = build(&env, FILES, &both);
        run.ok();
        assert_eq!(words(&run), ["RAN"; 4]);
        let told = warnings(&run);
        assert_eq!(told.len(), 2, "once for reading, once for writing: {told:#?}");
        assert!(told[0].contains("cache-source") && told[1].contains("cache-target"), "{told:#?}");
        let failed = build(&env, FILES, &[&both[..], &["--cache-strict"]].concat());
        assert!(failed.fails(75).contains("cache"), "{}", failed.stderr);
        let strict = format!("{cache},ignore-error=false");
        build(&env, FILES, &["--cache-to", &strict, "--output", "type=cacheonly", "--retry", "0"]).fails(75);
    }
    let registry = Registry::start();
    let host = registry.host();
    let cache = format!("type=registry,ref={host}/cache:c");
    // An empty repository and a missing directory are caches that nobody has written yet.
    let none = ["--cache-from", &cache, "--cache-from", "type=local,src=none", "--cache-strict"];
    let run = build(&machine(), FILES, &[&none[..], &["--output", "type=cacheonly"]].concat());
    run.ok();
    assert_eq!(warnings(&run), [""; 0]);
    let env = machine();
    build(&env, FILES, &["--cache-from", "type=registry,ref=UPPER/case"]).fails(2);
    build(&env, FILES, &["--cache-to", &format!("{host}/cache@sha256:{}", "0".repeat(64))]).fails(2);
}

#[test]
fn a_layer_that_a_cache_promised_and_lacks_is_made_here() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = app(&host);
    let cache = format!("type=registry,ref={host}/cache");
    build(&machine(), &dockerfile, &["--cache-to", &format!("{cache},mode=max"), "--output", "type=cacheonly"]).ok();
    let log = registry.take_log();
    let tagged = log.iter().find(|logged| logged.line.starts_with("PUT /v2/cache/manifests/")).unwrap();
    for layer in layers(&serde_json::from_slice(&tagged.body).unwrap()) {
        registry.plan(&format!("GET /v2/cache/blobs/{layer}"), 9, Fault::Status(404, vec![], "{}".to_owned()));
    }
    let env = machine();
    let options = ["--cache-from", &cache, "--output", "type=local,dest=out"];
    build(&env, &dockerfile, &[&options[..], &["--cache-strict"]].concat()).fails(75);
    let run = build(&env, &dockerfile, &options);
    run.ok();
    assert!(warnings(&run)[0].contains("building without shared caches"), "{:?}", warnings(&run));
    assert_eq!(fs::read_to_string(env.path("out/app/copy")).unwrap(), "1\n2\n");
    let run = build(&machine(), &dockerfile, &["--cache-from", &cache, "--output", "type=cacheonly"]);
    run.ok();
    assert_eq!(words(&run), ["CACHED"; 6], "nobody wants the layers");
}

#[test]
fn neither_secrets_nor_arguments_travel() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = format!(
        "FROM {host}/base:1\nARG WHO\nRUN --mount=type=secret,id=token test \"$(cat /run/secrets/token)\" = hunter2 && \
         test \"$WHO\" = somebody && echo ok > /ok\n"
    );
    let env = machine();
    fs::write(env.path("token"), "hunter2").unwrap();
    let cache = format!("type=registry,ref={host}/cache:x,mode=max");
    let secret = ["--secret", "id=token,src=token", "--build-arg", "WHO=somebody", "--output", "type=cacheonly"];
    build(&env, &dockerfile, &[&["--cache-to", &cache], &secret[..]].concat()).ok();
    let log = registry.take_log();
    assert!(log.iter().any(|logged| logged.line == "PUT /v2/cache/manifests/x"));
    for logged in &log {
        let text = String::from_utf8_lossy(&logged.body);
        for word in ["hunter2", "somebody", "/run/secrets"] {
            assert!(!text.contains(word), "{word} in {}", logged.line);
        }
    }
    // Who has another argument finds nothing; who has no secret finds the result, as in one's own cache.
    let other = machine();
    let from = format!("type=registry,ref={host}/cache");
    let find = ["--cache-from", &from, "--output", "type=cacheonly"];
    let run = build(&other, &dockerfile, &[&["--build-arg", "WHO=somebody"], &find[..]].concat());
    run.ok();
    assert_eq!(words(&run), ["CACHED"]);
    build(&other, &dockerfile, &[&["--build-arg", "WHO=else"], &find[..]].concat()).fails(1);
}

#[test]
fn cache_mounts_travel_and_only_what_changed_is_sent() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = |command: &str| {
        format!("FROM {host}/base:1\nRUN --mount=type=cache,target=/c,uid=3,gid=4,mode=0750 {command}\n")
    };
    let to = format!("type=registry,ref={host}/mounts:main");
    let share = ["--cache-mount-to", &to, "--output", "type=cacheonly"];
    let use_it = ["--cache-mount-from", &to, "--cache-strict", "--output", "type=cacheonly"];
    let first = machine();
    // Random, so that it has a size; in several parts.
    let fill = "mkdir -p /c/d/e && for n in 1 2 3 4 5 6 7 8; do dd if=/dev/urandom of=/c/d/$n bs=1M count=5; done && \
                ln /c/d/1 /c/d/e/one && ln -s ../1 /c/d/e/link && chown 7:8 /c/d/e && chmod 4711 /c/d/2 && \
                touch -t 200001010000 /c/d/3";
    build(&first, &dockerfile(fill), &share).ok();
    let sent = |log: &[Logged]| -> usize {
        log.iter().filter(|logged| logged.line.contains("/v2/mounts/blobs/uploads/")).map(|l| l.body.len()).sum()
    };
    let all = sent(&registry.take_log());
    assert!(all > 38 << 20, "{all}");
    build(&first, &dockerfile("echo new > /c/new && echo two"), &share).ok();
    let log = registry.take_log();
    assert!(sent(&log) > 0 && sent(&log) < all * 3 / 4, "{} of {all}", sent(&log));

    let second = machine();
    let check = "test $(stat -c %u:%g:%a /c) = 3:4:750 && test $(stat -c %u:%g:%a /c/d/e) = 7:8:755 && \
                 test $(stat -c %a /c/d/2) = 4711 && test /c/d/1 -ef /c/d/e/one && test $(readlink /c/d/e/link) = ../1 && \
                 test $(stat -c %Y /c/d/3) = 946684800 && test $(cat /c/new) = new && \
                 test $(stat -c %s /c/d/8) = 5242880 && echo more > /c/more";
    let run = build(&second, &dockerfile(check), &use_it);
    run.ok();
    registry.take_log();
    // What is here is not replaced.
    build(&second, &dockerfile("test -e /c/more"), &use_it).ok();
    assert!(!registry.take_log().iter().any(|logged| logged.line.contains("/blobs/")));

    // A directory, with a mount that this build did not use: it goes on.
    let third = machine();
    let cached = ["--cache-mount-from", &to, "--cache-mount-to", "type=local,dest=m", "--output", "type=cacheonly"];
    build(&third, &dockerfile("test -e /c/new && touch /c/third"), &cached).ok();
    let fourth = machine();
    let from = format!("type=local,src={}", third.path("m").display());
    let passed_on = ["--cache-mount-from", &from, "--cache-strict", "--output", "type=cacheonly"];
    build(&fourth, &dockerfile("test -e /c/third && test -e /c/d/e/one"), &passed_on).ok();

    // One that breaks starts anew, with a warning.
    registry.plan("GET /v2/mounts/blobs/", 99, Fault::Status(404, vec![], "{}".to_owned()));
    let fifth = machine();
    let retry = ["--cache-mount-from", &to, "--output", "type=cacheonly"];
    let run = build(&fifth, &dockerfile("test ! -e /c/new"), &retry);
    run.ok();
    assert!(!warnings(&run).is_empty());
    build(&fifth, "FROM scratch\nCOPY src /\n", &[&share[..], &["--cache-strict"]].concat()).fails(2);
    build(&fifth, FILES, &["--cache-to", &to, "--cache-mount-to", &to[..]]).fails(2);
}

#[test]
fn old_results_are_made_anew() {
    let env = machine();
    let to = ["--cache-to", "type=local,dest=cache,mode=max", "--output", "type=cacheonly"];
    build(&env, FILES, &to).ok();
    let again = |ttl: &[&str]| words(&build(&env, FILES, &[ttl, &["--output", "type=cacheonly"]].concat()));
    assert_eq!(again(&["--cache-ttl", "1h"]), ["CACHED"; 4]);
    assert_eq!(again(&["--cache-ttl", "0"]), ["RAN"; 4]);
    // Two hours ago, here and in the directory.
    let shift = |path: &Path| {
        let text = fs::read_to_string(path).unwrap();
        let old = (std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 7200).to_string();
        let digits = old.len();
        let mut out = String::new();
        let mut rest = text.as_str();
        while let Some(at) = rest.find("\"made\":") {
            let number = at + 7 + usize::from(rest[at + 7..].starts_with('"'));
            out.push_str(&rest[..number]);
            out.push_str(&old);
            rest = &rest[number + digits..];
        }
        out.push_str(rest);
        fs::write(path, out).unwrap();
    };
    for record in fs::read_dir(env.path("state/records")).unwrap().flatten() {
        shift(&record.path());
    }
    assert_eq!(again(&["--cache-ttl", "3h"]), ["CACHED"; 4]);
    assert_eq!(again(&["--cache-ttl", "1h"]), ["RAN"; 4]);
    assert_eq!(again(&["--cache-ttl", "1h"]), ["CACHED"; 4], "they are new now");
    for (ttl, word) in [("1h", "RAN"), ("3h", "CACHED")] {
        forge(&env.path("cache"), |config| {
            for record in config["builder.cache"]["records"].as_array_mut().unwrap() {
                record["made"] = json!(std::time::UNIX_EPOCH.elapsed().unwrap().as_secs() - 7200);
            }
        });
        let options = ["--cache-from", "type=local,src=cache", "--cache-ttl", ttl, "--output", "type=cacheonly"];
        let other = machine();
        fs::rename(env.path("cache"), other.path("cache")).unwrap();
        assert_eq!(words(&build(&other, FILES, &options)), [word; 4], "{ttl}");
        fs::rename(other.path("cache"), env.path("cache")).unwrap();
    }
}

/// Changes the config of the cache in a directory, and all digests that follow from it.
fn forge(layout: &Path, change: impl FnOnce(&mut Value)) {
    let read = |digest: &str| -> Value {
        let name = digest.trim_start_matches("sha256:");
        serde_json::from_slice(&fs::read(layout.join("blobs/sha256").join(name)).unwrap()).unwrap()
    };
    let write = |value: &Value| -> (String, usize) {
        let bytes = value.to_string().into_bytes();
        let digest = sha256(&bytes);
        fs::write(layout.join("blobs/sha256").join(digest.trim_start_matches("sha256:")), &bytes).unwrap();
        (digest, bytes.len())
    };
    let path = layout.join("index.json");
    let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
    let mut manifest = read(index["manifests"][0]["digest"].as_str().unwrap());
    let mut config = read(manifest["config"]["digest"].as_str().unwrap());
    change(&mut config);
    let (digest, size) = write(&config);
    (manifest["config"]["digest"], manifest["config"]["size"]) = (json!(digest), json!(size));
    let (digest, size) = write(&manifest);
    (index["manifests"][0]["digest"], index["manifests"][0]["size"]) = (json!(digest), json!(size));
    fs::write(path, index.to_string()).unwrap();
}

#[test]
fn what_a_hostile_cache_says_is_never_seen() {
    let first = machine();
    build(&first, FILES, &["--cache-to", "type=local,dest=cache,mode=max", "--output", "type=cacheonly"]).ok();
    let honest = build(&first, FILES, &["--output", "type=oci,tar=false,dest=out"]);
    honest.ok();
    let image = Image::open(&first.path("out"), None);
    let swapped = |config: &mut Value| config["rootfs"]["diff_ids"].as_array_mut().unwrap().reverse();
    let wrong_tree = |config: &mut Value| {
        let trees = config["builder.cache"]["trees"].as_array_mut().unwrap();
        let blobs: Vec<Value> = trees.iter().map(|tree| tree["blob"].clone()).collect();
        // All of them, because one that nobody reads is not found out.
        for (tree, other) in trees.iter_mut().zip(blobs.iter().cycle().skip(1)) {
            tree["blob"] = other.clone();
        }
    };
    let tree_for_a_layer = |config: &mut Value| config["builder.cache"]["records"][0]["layers"] = json!([99]);
    let layer_for_a_tree = |config: &mut Value| config["builder.cache"]["trees"][0]["blob"] = json!(0);
    let no_records = |config: &mut Value| config["builder.cache"]["records"] = json!("none");
    let bad_key = |config: &mut Value| config["builder.cache"]["records"][0]["key"] = json!("../../x");
    let version = |config: &mut Value| config["builder.cache"]["version"] = json!(2);
    type Change<'a> = &'a dyn Fn(&mut Value);
    let cases: [(&str, Change<'_>); 7] = [
        ("diff IDs of other layers", &swapped),
        ("trees of other layers", &wrong_tree),
        ("a number beyond the layers", &tree_for_a_layer),
        ("a layer for a tree", &layer_for_a_tree),
        ("another form", &no_records),
        ("a key that is none", &bad_key),
        ("another version", &version),
    ];
    for (name, change) in cases {
        let other = machine();
        copy_dir(&first.path("cache"), &other.path("cache"));
        forge(&other.path("cache"), change);
        let options = ["--cache-from", "type=local,src=cache", "--output", "type=oci,tar=false,dest=out"];
        let run = build(&other, FILES, &options);
        run.ok();
        assert_eq!(warnings(&run).is_empty(), name == "another version", "{name}: {:?}", warnings(&run));
        let found = Image::open(&other.path("out"), None);
        assert_eq!(found.flatten().keys().collect::<Vec<_>>(), image.flatten().keys().collect::<Vec<_>>(), "{name}");
        assert_eq!(found.text("src/two"), "2\n", "{name}");
        // Nothing of it stays: built again without the cache it is all there, and right.
        let again = build(&other, FILES, &["--output", "type=oci,tar=false,dest=again"]);
        again.ok();
        assert_eq!(Image::open(&other.path("again"), None).text("a/one"), "1\n", "{name}");
    }
}

fn copy_dir(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap().flatten() {
        let target = to.join(entry.file_name());
        match entry.file_type().unwrap().is_dir() {
            true => copy_dir(&entry.path(), &target),
            false => drop(fs::copy(entry.path(), target).unwrap()),
        }
    }
}

#[test]
fn a_plan_says_what_a_shared_cache_has_and_fetches_no_layer() {
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = app(&host);
    for (mode, again) in [("max", "cached"), ("min", "would-run")] {
        let from = ["--cache-from", &format!("{host}/{mode}:main")];
        let to = format!("type=registry,ref={host}/{mode}:main,mode={mode}");
        build(&machine(), &dockerfile, &["--cache-to", &to, "--output", "type=cacheonly"]).ok();
        let other = machine();
        let plan = |file: &str, options: &[&str]| -> Vec<Value> {
            other.file(file, &dockerfile);
            let run = other.run(&[&["plan", "--format", "json", "context"][..], options].concat());
            let plan: Value = serde_json::from_str(&run.ok()).unwrap();
            plan["steps"].as_array().unwrap().iter().filter(|step| step.get("key").is_some()).cloned().collect()
        };
        let states = |steps: &[Value]| -> Vec<String> {
            steps.iter().map(|step| step["state"].as_str().unwrap().to_owned()).collect()
        };
        registry.take_log();
        let steps = plan("Dockerfile", &from);
        assert_eq!(states(&steps), ["cached"; 6], "{mode}: {steps:#?}");
        assert!(steps.iter().all(|step| step["found_in"] == from[1]), "{steps:#?}");
        // Tables of contents may come, layers must not: the store has none afterwards.
        let layers = fetched(&registry.take_log());
        let is_layer = |digest: &&String| get(&registry, &format!("{mode}/blobs/{digest}")).starts_with(&[0x1f, 0x8b]);
        assert!(!layers.iter().any(|digest| is_layer(&digest)), "{mode}: {layers:#?}");
        // A build does what was planned.
        let run = build(&other, &dockerfile, &[&from[..], &["--output", "type=cacheonly"]].concat());
        assert_eq!(words(&run), ["CACHED"; 6], "{:?}", run.steps());
        // After a change: a cache that lacks the layers of the first stage is of no use for what reads them.
        other.file("src/two", "other\n");
        let steps = plan("Dockerfile", &from);
        assert_eq!(steps[0]["state"], again, "{mode}: {steps:#?}");
        assert_eq!(states(&steps[steps.len() - 1..]), ["cached"], "that of the other stage: {steps:#?}");
        assert_eq!(states(&steps).iter().filter(|state| *state == "cached").count(), if mode == "max" { 2 } else { 1 });
        registry.plan(&format!("/v2/{mode}/"), 1000, Fault::Status(403, vec![], "{}".to_owned()));
        let run = other.run(&["plan", "--cache-strict", from[0], from[1], "context"]);
        assert!(run.fails(75).contains("cache"), "{}", run.stderr);
        let run = other.run(&["plan", from[0], from[1], "context"]);
        run.ok();
        assert!(run.stderr.contains("counts as missing"), "{}", run.stderr);
        registry.forget_plans();
    }
}
