//! Layers that the store only knows to be in a registry: what is not fetched, and that whoever needs it gets it later.

use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::registry::{Distribution, add_base, add_layers, count, server};
use crate::support::{Env, Run, have};
use server::{OCI, Registry, sha256};

const PLATFORMS: [&str; 2] = ["amd64", "arm64"];

/// A registry whose repository `app` alone has an image for two platforms, tagged `all`, and what it means.
fn two_platforms() -> (Registry, String) {
    let (from, registry) = (Registry::start(), Registry::start());
    let entry = |arch: &str| {
        let tar = format!("{arch}{}", " ".repeat(20_000)).into_bytes();
        let config =
            json!({"architecture": arch, "os": "linux", "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
        let (digest, size) = add_layers(&from, "app", arch, &config, &[&tar]);
        json!({"mediaType": OCI.manifest, "digest": digest, "size": size,
            "platform": {"os": "linux", "architecture": arch}})
    };
    let index = json!({"schemaVersion": 2, "mediaType": OCI.index, "manifests": PLATFORMS.map(entry)}).to_string();
    let digest = from.add_manifest("app", "all", OCI.index, index.as_bytes());
    publish(&from, "app:all", &registry);
    (registry, digest)
}

/// Copies an image as another machine would, so that its blobs are in that repository alone.
fn publish(from: &Registry, name: &str, to: &Registry) {
    let place = |registry: &Registry| format!("docker://{}/{name}", registry.host());
    Env::new().run(&["copy", &place(from), &place(to)]).ok();
    to.take_log();
}

/// Digests of the layers of an image of the store.
fn layers(env: &Env, name: &str) -> Vec<String> {
    let shown: Value = serde_json::from_str(&env.run(&["inspect", name]).ok()).unwrap();
    let images = shown["images"].as_array().unwrap().iter();
    let layers = images.flat_map(|image| image["manifest"]["layers"].as_array().unwrap().clone());
    layers.map(|layer| layer["digest"].as_str().unwrap().to_owned()).collect()
}

/// How many of these layers were fetched from a registry.
fn fetched(lines: &[String], layers: &[String]) -> usize {
    lines.iter().filter(|line| line.starts_with("GET ") && layers.iter().any(|layer| line.ends_with(layer))).count()
}

fn blobs(env: &Env) -> Vec<String> {
    let entries = std::fs::read_dir(env.state().join("blobs/sha256")).unwrap().flatten();
    entries.map(|entry| format!("sha256:{}", entry.file_name().to_str().unwrap())).collect()
}

#[test]
fn an_index_of_a_registrys_images_is_pushed_without_fetching_what_the_target_can_take_over() {
    let env = Env::new();
    let (registry, all) = two_platforms();
    let source = format!("docker://{}/app:all", registry.host());
    let digest = env.run(&["manifest", "create", "x", "--all", &source]).ok();
    let layers = layers(&env, "x");
    assert_eq!(layers.len(), 2);
    let lines = registry.take_lines();
    assert_eq!((count(&lines, "GET /v2/app/blobs/"), fetched(&lines, &layers)), (2, 0), "configs alone: {lines:#?}");
    assert_ne!(digest, all, "an index of its own");
    env.run(&["prune", "--all"]).ok();
    env.assert_du();
    // Another repository of the same registry.
    env.run(&["manifest", "push", "x", &format!("{}/taken:1", registry.host())]).ok();
    let lines = registry.take_lines();
    assert_eq!((fetched(&lines, &layers), count(&lines, "mount=")), (0, 2), "{lines:#?}");
    assert_eq!(registry.missing(), Vec::<String>::new());
    assert!(!blobs(&env).iter().any(|blob| layers.contains(blob)), "nothing came");
    // Another registry: what it has is not fetched, the rest once.
    let other = Registry::start();
    for times in [1, 0] {
        env.run(&["manifest", "push", "x", &format!("{}/team/app:1", other.host())]).ok();
        let lines = registry.take_lines();
        assert_eq!(fetched(&lines, &layers), 2 * times, "{lines:#?}");
        assert_eq!(other.missing(), Vec::<String>::new());
    }
    // A copy from registry to registry goes the same way.
    let copied = format!("docker://{}/more:1", other.host());
    env.run(&["copy", &format!("docker://{}/team/app:1", other.host()), &copied, "--state-dir", "second"]).ok();
    assert_eq!(fetched(&other.take_lines(), &layers), 0);
    // A layout has it all.
    let copied = env.run(&["copy", &copied, "oci:layout:1", "--state-dir", "third"]).ok();
    assert_eq!(copied, digest);
    if have("an_index_of_a_registrys_images", &["skopeo"]) {
        let copy = ["copy", "--all", "oci:layout:1", "oci:again:1"];
        Run::of(&Command::new("skopeo").args(copy).current_dir(env.dir.path()).output().unwrap()).ok();
    }
}

#[test]
fn what_cannot_be_fetched_any_more_is_said_with_its_place() {
    let env = Env::new();
    let (registry, _) = two_platforms();
    let host = registry.host();
    env.run(&["manifest", "create", "x", "--all", &format!("docker://{host}/app:all")]).ok();
    drop(registry);
    let other = Registry::start();
    let run = env.run(&["manifest", "push", "--retry=0", "x", &format!("{}/app:1", other.host())]);
    assert!(run.fails(75).contains(&format!("{host}/app")), "{}", run.stderr);
    let run = env.run(&["copy", "--retry=0", "store:x", "oci:out:1"]);
    assert!(run.fails(75).contains(&format!("{host}/app")), "{}", run.stderr);
    assert_eq!(count(&other.take_lines(), "PUT /v2/app/manifests"), 0);
}

#[test]
fn a_build_that_pushes_fetches_no_layer_that_the_target_can_take_over() {
    let env = Env::new();
    let (from, registry) = (Registry::start(), Registry::start());
    add_base(&from, "base", "1");
    publish(&from, "base:1", &registry);
    let host = registry.host();
    let name = format!("{host}/app:1");
    env.file("f", "f\n");
    let build = |dockerfile: &str, options: &[&str]| {
        env.file("Dockerfile", dockerfile);
        env.run(&[&["build", "context"], options].concat())
    };
    let linked = format!("FROM {host}/base:1\nLABEL a=b\nCOPY --link f /f\n");
    let digest = build(&linked, &["-t", &name, "--push"]).ok();
    let layers = layers(&env, &name);
    let lines = registry.take_lines();
    assert_eq!(fetched(&lines, &layers), 0, "{lines:#?}");
    assert!(!blobs(&env).contains(&layers[0]));
    let shown: Value = serde_json::from_str(&env.run(&["inspect", &name]).ok()).unwrap();
    let places = [format!("{host}/base"), format!("{host}/app")];
    assert_eq!(shown["elsewhere"], json!({layers[0].as_str(): places}), "the source, and where it was pushed to");
    assert_eq!(registry.missing(), Vec::<String>::new());
    // Everything that only looks works on.
    assert!(env.run(&["images"]).ok().contains(&name));
    env.run(&["prune", "--all"]).ok();
    env.assert_du();
    env.run(&["tag", &name, "short"]).ok();
    assert_eq!(fetched(&registry.take_lines(), &layers), 0);
    // Whoever reads it has to be allowed to fetch it.
    let read = format!("FROM {name}\nCOPY f /g\n");
    let run = build(&read, &["--pull=never"]);
    assert!(run.code != 0 && run.stderr.contains(&format!("{host}/base")), "{}", run.stderr);
    // Pushed again, elsewhere in the registry, by a later process.
    env.run(&["push", "short", &format!("{host}/second:1")]).ok();
    let lines = registry.take_lines();
    assert_eq!((fetched(&lines, &layers), count(&lines, "mount=")), (0, 1), "{lines:#?}");
    assert_eq!(count(&lines, "PUT /v2/second/blobs/"), 2, "the layer and the config that are here: {lines:#?}");
    // An output that has the layers; then all is here.
    assert_eq!(env.run(&["copy", &format!("store:{name}"), "oci:out:1"]).ok(), digest);
    assert_eq!(fetched(&registry.take_lines(), &layers), 1);
    let shown: Value = serde_json::from_str(&env.run(&["inspect", &name]).ok()).unwrap();
    assert_eq!(shown.get("elsewhere"), None, "all is here");
    build(&read, &["--pull=never"]).ok();
    assert_eq!(fetched(&registry.take_lines(), &layers), 0);
    // Another registry gets the layers once, from whatever machine.
    let other = Registry::start();
    let name = format!("{}/app:1", other.host());
    let image = format!("type=image,push=true,name={name}");
    for (state, options, times) in [("first", ["-t", &name, "--push"], 1), ("second", ["-q", "--output", &image], 0)] {
        build(&linked, &[&options[..], &["--state-dir", state]].concat()).ok();
        assert_eq!(fetched(&registry.take_lines(), &layers), times, "{state}");
        assert_eq!(other.missing(), Vec::<String>::new());
    }
    // The same from the base that a layout has: no registry is known to have that one.
    let registry = Registry::start();
    let pushed = format!("{}/app:1", registry.host());
    let other = env.path("other").to_str().unwrap().to_owned();
    let context = format!("base=oci-layout://{}:1", env.path("out").display());
    let options = ["--build-context", &context, "-t", &pushed, "--push", "--state-dir", &other];
    build("FROM base\nLABEL c=d\n", &options).ok();
    let stored = std::fs::read_dir(env.path("other/elsewhere")).unwrap().count();
    assert_eq!(stored, 0, "all of a named image is here or known to be somewhere");
    assert_eq!(registry.missing(), Vec::<String>::new());
}

#[test]
fn a_step_of_a_later_build_gets_the_layers_of_an_image_that_was_only_pushed() {
    let env = Env::new();
    let (from, registry) = (Registry::start(), Registry::start());
    add_base(&from, "base", "1");
    publish(&from, "base:1", &registry);
    let (host, name) = (registry.host(), format!("{}/app:1", registry.host()));
    env.file("Dockerfile", format!("FROM {host}/base:1\nLABEL a=b\n"));
    env.run(&["build", "-q", "-t", &name, "--push", "context"]).ok();
    let layers = layers(&env, &name);
    assert_eq!(fetched(&registry.take_lines(), &layers), 0);
    env.file("Dockerfile", format!("FROM {name}\nRUN busybox echo ran > /ran\n"));
    env.run(&["build", "-q", "-t", "ran", "context"]).ok();
    let lines = registry.take_lines();
    assert_eq!((fetched(&lines, &layers), count(&lines, "/manifests/")), (1, 0), "{lines:#?}");
    assert!(blobs(&env).contains(&layers[0]));
}

#[test]
fn a_build_that_is_killed_leaves_no_name_without_its_layers() {
    let env = Env::new();
    let (from, registry) = (Registry::start(), Registry::start());
    add_base(&from, "base", "1");
    publish(&from, "base:1", &registry);
    env.file("f", "f\n");
    env.file("Dockerfile", format!("FROM {}/base:1\nCOPY --link f /f\n", registry.host()));
    let build = |number: usize| {
        let (state, name) = (format!("state{number}"), format!("{}/app{number}:1", registry.host()));
        let mut command = env.command(&["build", "-q", "-t", &name, "--push", "--state-dir", &state, "context"]);
        command.stdout(Stdio::null()).stderr(Stdio::null());
        (command, state, name)
    };
    let (mut command, ..) = build(0);
    assert!(command.status().unwrap().success());
    let requests = registry.take_log().len();
    for number in 1..=requests {
        let (mut command, state, name) = build(number);
        let mut child = command.spawn().unwrap();
        while registry.requests() < number && child.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
        let run = env.run(&["copy", &format!("store:{name}"), &format!("oci:out{number}:1"), "--state-dir", &state]);
        assert!(run.code == 0 || run.stderr.contains("no image"), "after request {number}: {}", run.stderr);
        registry.take_log();
    }
}

#[test]
fn an_image_is_pulled_for_several_platforms_or_for_all() {
    let env = Env::new();
    let (registry, all) = two_platforms();
    let name = format!("{}/app:all", registry.host());
    let platforms = || {
        let shown: Value = serde_json::from_str(&env.run(&["inspect", &name]).ok()).unwrap();
        let platform = |image: &Value| image["config"]["architecture"].as_str().unwrap().to_owned();
        let mut platforms: Vec<String> = shown["images"].as_array().unwrap().iter().map(platform).collect();
        platforms.sort();
        (platforms, shown["digest"].as_str().unwrap().to_owned())
    };
    let one = env.run(&["pull", "--platform", "linux/arm64", &name]).ok();
    assert_eq!(platforms(), (vec!["arm64".to_owned()], one.clone()));
    let both = env.run(&["pull", "--platform", "linux/arm64", "--platform", "linux/amd64", &name]).ok();
    assert_eq!(platforms(), (PLATFORMS.map(str::to_owned).to_vec(), both));
    assert!(layers(&env, &name).iter().all(|layer| blobs(&env).contains(layer)));
    registry.take_log();
    let run = env.run(&["pull", "--platform", "linux/arm64,linux/s390x", &name, "--state-dir", "other"]);
    assert!(run.fails(75).contains("linux/amd64"), "{}", run.stderr);
    assert_eq!(count(&registry.take_lines(), "/blobs/"), 1, "a config alone: it is known before anything is fetched");
    assert_eq!(env.run(&["pull", "--all-platforms", &name]).ok(), all);
    assert_eq!(platforms(), (PLATFORMS.map(str::to_owned).to_vec(), all.clone()));
    assert_eq!(env.run(&["pull", "--all-platforms", &name, "--state-dir", "third"]).ok(), all);
    drop(registry);
    assert_eq!(env.run(&["copy", &format!("store:{name}"), "oci:out:1", "--state-dir", "third"]).ok(), all);
    env.run(&["pull", "--all-platforms", "--platform", "linux/arm64", &name]).fails(2);
    env.run(&["pull", "--platform", "nonsense/", &name]).fails(2);
}

#[test]
fn a_real_registry_takes_the_base_over() {
    const TEST: &str = "a_real_registry_takes_the_base_over";
    if !have(TEST, &["docker-registry", "skopeo"]) {
        return;
    }
    let env = Env::new();
    let registry = Distribution::start(env.dir.path());
    let repository = format!("{}/team", registry.host);
    env.run(&["login", &registry.host, "-u", "me", "-p", "sesame"]).ok();
    env.import_busybox();
    env.run(&["push", "busybox", &format!("{repository}/base:1")]).ok();
    // Another machine.
    env.file("Dockerfile", format!("FROM {repository}/base:1\nLABEL a=b\n"));
    let (name, state) = (format!("{repository}/app:1"), env.path("other"));
    let run = |args: &[&str]| env.run(&[args, &["--state-dir", state.to_str().unwrap()]].concat()).ok();
    let digest = run(&["build", "-q", "-t", &name, "--push", "context"]);
    let count = || std::fs::read_dir(state.join("blobs/sha256")).unwrap().count();
    assert_eq!(count(), 4, "manifest and config of the base, and of the image");
    let args =
        ["copy", "--src-creds", "me:sesame", "--src-tls-verify=false", &format!("docker://{name}"), "oci:theirs:1"];
    Run::of(&Command::new("skopeo").args(args).current_dir(env.dir.path()).output().unwrap()).ok();
    assert_eq!(run(&["copy", &format!("store:{name}"), "oci:ours:1"]), digest);
    assert_eq!(count(), 5, "the layer has come");
    let blobs = |dir: &str| {
        let entries = std::fs::read_dir(env.path(dir).join("blobs/sha256")).unwrap().flatten();
        let mut names: Vec<_> = entries.map(|entry| entry.file_name()).collect();
        names.sort();
        names
    };
    assert_eq!(blobs("theirs"), blobs("ours"));
}
