//! `builder manifest`: indexes put together by hand.

use std::process::Command;

use serde_json::{Value, json};

use crate::registry::{add_layers, count, server};
use crate::support::{Env, Run, busybox_rootfs, have};
use server::{DOCKER, OCI, Registry, sha256};

const DOCKERFILE: &str = "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /\n";

/// Builds for `platforms` with more options.
fn build(env: &Env, platforms: &str, options: &[&str]) -> String {
    env.file("Dockerfile", DOCKERFILE);
    let args = [&["build", "--platform", platforms, "context"][..], options].concat();
    Run::of(&env.command(&args).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap()).ok()
}

fn index(env: &Env, name: &str) -> Value {
    serde_json::from_str(&env.run(&["manifest", "inspect", name]).ok()).unwrap()
}

/// Platforms and annotations of the entries, in order.
fn entries(env: &Env, name: &str) -> Vec<String> {
    let shown = |entry: &Value| {
        let platform = &entry["platform"];
        let part = |key: &str| platform[key].as_str().map(|text| format!("/{text}")).unwrap_or_default();
        let notes = entry.get("annotations").map(|notes| format!(" {notes}")).unwrap_or_default();
        format!("{}{}{}{notes}", platform["os"].as_str().unwrap_or("-"), part("architecture"), part("variant"))
    };
    index(env, name)["manifests"].as_array().unwrap().iter().map(shown).collect()
}

#[test]
fn images_of_separate_builds_become_the_index_of_one_build() {
    let env = Env::new();
    let whole = build(&env, "linux/amd64,linux/arm64", &["-t", "whole"]);
    // As on two machines: one layout each.
    build(&env, "linux/amd64", &["-t", "app:1", "--output", "type=oci,tar=false,dest=one"]);
    build(&env, "linux/arm64", &["-t", "app:1", "--output", "type=oci,dest=two.tar"]);
    let create = ["manifest", "create", "joined:1", "oci:one:1", "oci-archive:two.tar:1", "--state-dir", "other"];
    // An image of another platform than this machine's is added as it is where it is the only one.
    assert_eq!(env.run(&create).ok(), whole);
    let raw = env.run(&["manifest", "inspect", "--raw", "joined:1", "--state-dir", "other"]).stdout;
    assert_eq!(sha256(raw.as_bytes()), whole);
}

#[test]
fn an_index_is_made_changed_and_unmade() {
    let env = Env::new();
    for (platform, name) in [("linux/amd64", "a"), ("linux/arm64", "b"), ("linux/arm/v7", "c")] {
        build(&env, platform, &["-t", name]);
    }
    let run = |args: &[&str]| env.run(&[&["manifest"], args].concat());
    assert!(run(&["inspect", "all"]).fails(2).contains("manifest create"));
    assert_eq!(run(&["exists", "all"]).code, 1);
    run(&["create", "all", "a", "--annotation", "made=here"]).ok();
    run(&["exists", "all"]).ok();
    assert!(run(&["create", "all", "b"]).fails(2).contains("--amend"));
    run(&["add", "all", "b", "--annotation", "k=v", "--os-version", "1.2"]).ok();
    run(&["create", "--amend", "all", "c"]).ok();
    assert_eq!(entries(&env, "all"), ["linux/amd64", "linux/arm64 {\"k\":\"v\"}", "linux/arm/v7"]);
    assert_eq!(index(&env, "all")["annotations"], json!({"made": "here"}));
    assert_eq!(index(&env, "all")["manifests"][1]["platform"]["os.version"], "1.2");
    // By name, by digest; the whole.
    run(&["annotate", "all", "c", "--variant", "v6"]).ok();
    let arm64 = index(&env, "all")["manifests"][1]["digest"].as_str().unwrap().to_owned();
    run(&["annotate", "all", &arm64, "--arch", "riscv64"]).ok();
    run(&["annotate", "all", "--index", "--annotation", "made=there"]).ok();
    assert_eq!(entries(&env, "all"), ["linux/amd64", "linux/riscv64 {\"k\":\"v\"}", "linux/arm/v6"]);
    assert_eq!(index(&env, "all")["annotations"], json!({"made": "there"}));
    run(&["remove", "all", &arm64]).ok();
    assert_eq!(entries(&env, "all"), ["linux/amd64", "linux/arm/v6"]);
    // A newer image takes the place of the older one.
    let newer = env.run(&["build", "--platform", "linux/amd64", "--label", "new=1", "-t", "a", "context"]).ok();
    run(&["add", "all", "a"]).ok();
    assert_eq!((index(&env, "all")["manifests"][0]["digest"].as_str(), entries(&env, "all").len()), (Some(&*newer), 2));
    for (args, code, part) in [
        (vec!["remove", "all", arm64.as_str()], 2, "has no sha256:"),
        (vec!["annotate", "all", "a"], 2, "nothing to say"),
        (vec!["annotate", "all", arm64.as_str(), "--arch", "arm64"], 2, "has no sha256:"),
        (vec!["add", "all", "docker://"], 2, ""),
        (vec!["add", "a", "b"], 2, "not an index"),
        (vec!["create", "all@sha256:0000000000000000000000000000000000000000000000000000000000000000"], 2, "digest"),
        (vec!["rm", "a"], 2, "not an index"),
        (vec!["push", "--all=false", "all"], 2, "broken"),
    ] {
        assert!(run(&args).fails(code).contains(part), "{args:?}: {}", run(&args).stderr);
    }
    assert_eq!(run(&["rm", "all"]).ok(), "untagged docker.io/library/all:latest");
    assert_eq!(run(&["exists", "all"]).code, 1);
    env.run(&["inspect", "a"]).ok();
}

#[test]
fn images_of_registries_are_added_and_the_index_is_pushed() {
    const TEST: &str = "images_of_registries_are_added_and_the_index_is_pushed";
    let env = Env::new();
    let (from, to) = (Registry::start(), Registry::start());
    let tar = busybox_rootfs();
    let image = |arch: &str| {
        let config = json!({"architecture": arch, "os": "linux",
            "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
        add_layers(&from, "app", arch, &config, &[&tar])
    };
    let entries: Vec<Value> = ["amd64", "arm64", "s390x"]
        .map(|arch| (arch, image(arch)))
        .into_iter()
        .map(|(arch, (digest, size))| {
            json!({"mediaType": OCI.manifest, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": arch}})
        })
        .collect();
    let text = json!({"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries}).to_string();
    from.add_manifest("app", "all", OCI.index, text.as_bytes());
    let all = format!("{}/app:all", from.host());
    // One of several, chosen by what is said about it; then the rest with the whole index.
    env.run(&["manifest", "create", "x"]).ok();
    env.run(&["manifest", "add", "x", &all, "--arch", "s390x"]).ok();
    assert_eq!(self::entries(&env, "x"), ["linux/s390x"]);
    let digest = env.run(&["manifest", "create", "--replace", "x", "--all", &all]).ok();
    assert_eq!(index(&env, "x")["manifests"], json!(entries), "as they were");
    let dest = format!("docker://{}/team/app:2", to.host());
    assert_eq!(env.run(&["manifest", "push", "--all", "x", &dest]).ok(), digest);
    let lines: Vec<String> = to.take_log().into_iter().map(|logged| logged.line).collect();
    assert_eq!(count(&lines, "PUT /v2/team/app/blobs/"), 4, "three configs, one layer: {lines:#?}");
    assert_eq!(lines.last().unwrap(), "PUT /v2/team/app/manifests/2", "{lines:#?}");
    assert_eq!(env.run(&["manifest", "push", "--rm", "x", "oci:layout:2"]).ok(), digest);
    assert_eq!(env.run(&["manifest", "exists", "x"]).code, 1);
    if have(TEST, &["skopeo"]) {
        let raw =
            Command::new("skopeo").args(["inspect", "--raw", "oci:layout:2"]).current_dir(env.dir.path()).output();
        assert_eq!(sha256(Run::of(&raw.unwrap()).stdout.as_bytes()), digest);
    }
    assert!(env.run(&["manifest", "create", "y", &format!("{}/none:1", from.host())]).code == 75);
    assert_eq!(env.run(&["manifest", "exists", "y"]).code, 1, "an index is made as a whole or not at all");
}

#[test]
fn a_list_of_dockers_images_is_dockers() {
    let env = Env::new();
    let registry = Registry::start();
    registry.add_image(
        "app",
        "1",
        &DOCKER,
        br#"{"architecture":"amd64","os":"linux","rootfs":{"type":"layers","diff_ids":[]}}"#,
        &[],
    );
    env.run(&["manifest", "create", "x", &format!("{}/app:1", registry.host())]).ok();
    assert_eq!(index(&env, "x")["mediaType"], DOCKER.index);
}

#[test]
fn changes_at_once_follow_each_other() {
    let env = Env::new();
    let names: Vec<String> = (0..6).map(|number| format!("image{number}")).collect();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for name in &names {
        env.run(&["build", "--label", &format!("name={name}"), "-t", name, "context"]).ok();
    }
    env.run(&["manifest", "create", "x"]).ok();
    let add =
        |name: &String| env.command(&["manifest", "add", "x", name, "--annotation", &format!("n={name}")]).spawn();
    let children: Vec<_> = names.iter().map(|name| add(name).unwrap()).collect();
    for mut child in children {
        assert!(child.wait().unwrap().success());
    }
    assert_eq!(entries(&env, "x").len(), names.len(), "none is lost");
}
