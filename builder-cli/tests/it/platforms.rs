//! Builds for several platforms: what is shared, what the index says, and that nothing foreign is run by accident.

use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::{Value, json};

use crate::registry::{add_layers, count, server};
use crate::support::{Env, Run, busybox_rootfs, have, program};
use server::{OCI, Registry, sha256};

const DOCKERFILE: &str = "\
FROM --platform=$BUILDPLATFORM scratch AS arch
ARG TARGETARCH
COPY <<TEXT /arch
$TARGETARCH
TEXT
FROM scratch
ARG TARGETPLATFORM
LABEL platform=$TARGETPLATFORM
COPY same /same
COPY --from=arch /arch /arch
";

const THREE: &str = "linux/amd64,linux/arm64,linux/arm/v7";

fn read(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

fn blob(layout: &Path, descriptor: &Value) -> Value {
    let digest = descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:");
    read(&layout.join("blobs/sha256").join(digest))
}

fn build(env: &Env, dockerfile: &str, options: &[&str]) -> Run {
    env.file("Dockerfile", dockerfile);
    let mut args = vec!["build", "--progress", "json"];
    args.extend(options);
    args.push("context");
    Run::of(&env.command(&args).env("SOURCE_DATE_EPOCH", "1700000000").output().unwrap())
}

#[test]
fn several_platforms_make_an_index() {
    let env = Env::new();
    env.file("same", "same\n");
    let options = ["--platform", THREE, "-t", "multi:1", "--output", "type=oci,tar=false,dest=out"];
    let files = ["--metadata-file", "meta.json", "--iidfile", "iid"];
    let run = build(&env, DOCKERFILE, &[&options[..], &files[..]].concat());
    run.ok();
    let names: Vec<_> = run.steps();
    let of = |part: &str| names.iter().filter(|name| name.contains(part)).count();
    assert_eq!((of("COPY same"), of("linux/arm64 arch 1/1"), names.len()), (1, 1, 7), "{names:#?}");
    let meta = read(&env.path("meta.json"));
    let digest = meta["containerimage.digest"].as_str().unwrap();
    assert_eq!(fs::read_to_string(env.path("iid")).unwrap(), digest);
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], OCI.index);
    assert_eq!(meta.get("containerimage.config.digest"), None, "an index has none");
    let layout = env.path("out");
    let entry = &read(&layout.join("index.json"))["manifests"][0];
    assert_eq!((entry["digest"].as_str(), &entry["mediaType"]), (Some(digest), &json!(OCI.index)));
    let index = blob(&layout, entry);
    let manifests = index["manifests"].as_array().unwrap();
    let platforms: Vec<&Value> = manifests.iter().map(|manifest| &manifest["platform"]).collect();
    let platform = |arch: &str| json!({"os": "linux", "architecture": arch});
    let v7 = json!({"os": "linux", "architecture": "arm", "variant": "v7"});
    assert_eq!(platforms, [&platform("amd64"), &platform("arm64"), &v7]);
    let mut first_layers = Vec::new();
    for (descriptor, name) in manifests.iter().zip(THREE.split(',')) {
        let manifest = blob(&layout, descriptor);
        let config = blob(&layout, &manifest["config"]);
        assert_eq!(config["config"]["Labels"]["platform"], name);
        assert_eq!(config["architecture"], descriptor["platform"]["architecture"]);
        first_layers.push(manifest["layers"][0]["digest"].clone());
    }
    assert!(first_layers.iter().all(|layer| *layer == first_layers[0]), "one layer for all: {first_layers:?}");
    let same = ["--platform", "linux/amd64", "--platform", "linux/arm64,linux/arm/v7,arm64", "--iidfile", "iid2"];
    let again = build(&env, DOCKERFILE, &same);
    again.ok();
    assert_eq!(fs::read_to_string(env.path("iid2")).unwrap(), digest, "the same platforms, the same index");
    assert!(again.steps().iter().all(|step| step.starts_with("CACHED")), "{:?}", again.steps());
    let listed = env.run(&["images", "--json"]).ok();
    assert!(listed.contains("\"platform\":\"linux/amd64,linux/arm64,linux/arm/v7\""), "{listed}");
    if have("several_platforms_make_an_index", &["skopeo"]) {
        let skopeo =
            |args: &[&str]| Run::of(&Command::new("skopeo").args(args).current_dir(env.dir.path()).output().unwrap());
        assert_eq!(sha256(skopeo(&["inspect", "--raw", "oci:out:1"]).stdout.as_bytes()), digest);
        skopeo(&["--insecure-policy", "copy", "--all", "oci:out:1", "oci:copied:1"]).ok();
        let copied =
            Command::new("diff").args(["-r", "out/blobs", "copied/blobs"]).current_dir(env.dir.path()).output();
        Run::of(&copied.unwrap()).ok();
    }
}

#[test]
fn an_index_of_the_store_is_a_base_for_each_platform() {
    let env = Env::new();
    env.file("same", "same\n");
    build(&env, DOCKERFILE, &["--platform", THREE, "-t", "multi:1"]).ok();
    let dockerfile = "FROM multi:1\nCOPY same /more\n";
    let dest = ["--output", "type=local,dest=files"];
    build(&env, dockerfile, &[&["--platform", "linux/arm64,linux/arm/v7", "--pull=never"], &dest[..]].concat()).ok();
    assert_eq!(fs::read_to_string(env.path("files/linux_arm64/arch")).unwrap(), "arm64\n");
    assert_eq!(fs::read_to_string(env.path("files/linux_arm_v7/arch")).unwrap(), "arm\n");
    assert!(env.path("files/linux_arm_v7/more").exists() && !env.path("files/linux_amd64").exists());
    let run = build(&env, dockerfile, &["--platform", "linux/s390x", "--pull=never"]);
    let there = "no image for linux/s390x, there is linux/amd64, linux/arm64, linux/arm/v7";
    assert!(run.fails(75).contains(there), "{}", run.stderr);
    // An older processor of the same kind will do.
    build(&env, dockerfile, &["--platform", "linux/arm/v8", "--pull=never", "-o", "type=local,dest=older"]).ok();
    assert_eq!(fs::read_to_string(env.path("older/arch")).unwrap(), "arm\n");
}

#[test]
fn files_of_each_platform_get_a_directory_unless_they_must_not() {
    let env = Env::new();
    let named = "FROM scratch\nARG TARGETARCH\nCOPY Dockerfile /bin/app-$TARGETARCH\n";
    let outputs = |options: &[&str]| build(&env, named, options);
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let joined = "type=local,dest=joined,platform-split=false";
    outputs(&[&both[..], &["-o", joined, "-o", "type=tar,dest=joined.tar,platform-split=false"]].concat()).ok();
    for name in ["app-amd64", "app-arm64"] {
        assert!(env.path("joined/bin").join(name).exists(), "{name}");
    }
    let list = |file: &str| {
        let mut archive = tar::Archive::new(fs::File::open(env.path(file)).unwrap());
        let path = |entry: std::io::Result<tar::Entry<'_, _>>| entry.unwrap().path().unwrap().display().to_string();
        archive.entries().unwrap().map(path).collect::<Vec<_>>()
    };
    assert_eq!(list("joined.tar"), ["bin/", "bin/app-amd64", "bin/app-arm64"]);
    outputs(&[&both[..], &["-o", "type=tar,dest=split.tar"]].concat()).ok();
    let expected = ["linux_amd64/", "linux_amd64/bin/", "linux_amd64/bin/app-amd64"];
    assert_eq!(list("split.tar")[..3], expected);
    outputs(&["--platform", "linux/arm64", "-o", "type=local,dest=one,platform-split=true"]).ok();
    assert!(env.path("one/linux_arm64/bin/app-arm64").exists());
    let clash = build(&env, "FROM scratch\nCOPY Dockerfile /d\n", &[&both[..], &["-o", joined]].concat());
    assert!(clash.fails(73).contains("/d"), "{}", clash.stderr);
    let docker = build(&env, named, &[&both[..], &["-o", "type=docker,dest=x.tar"]].concat());
    assert!(docker.fails(2).contains("type=oci") && docker.steps().is_empty(), "{}", docker.stderr);
}

#[test]
fn commands_that_nothing_here_can_run_are_refused_with_their_line() {
    const TEST: &str = "commands_that_nothing_here_can_run_are_refused_with_their_line";
    if Path::new("/proc/sys/fs/binfmt_misc/qemu-s390x").exists() {
        return crate::support::skip(TEST, "this machine runs programs for s390x");
    }
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN true\n");
    // Where there is an emulator, it is hidden.
    let hide =
        "emulator=/usr/bin/qemu-s390x-static; ! test -e $emulator || mount --bind /dev/null $emulator; exec \"$@\"";
    let mut command = env.as_image_root("unshare");
    command.args(["--mount", "sh", "-c", hide, "sh"]).arg(program()).env("BUILDER_STATE_DIR", env.path("hidden"));
    command.args(["build", "--progress", "json", "--platform", "linux/s390x,local", "context"]);
    let run = Run::of(&command.output().unwrap());
    let stderr = run.fails(69);
    assert!(stderr.contains("Dockerfile:3:1") && stderr.contains("linux/s390x"), "{stderr}");
    assert!(stderr.contains("qemu-user-static") && stderr.contains("$BUILDPLATFORM"), "{stderr}");
    assert!(run.steps().is_empty(), "nothing was done: {:?}", run.steps());
    // What is not run needs nobody to run it.
    build(&env, "FROM scratch\nCOPY Dockerfile /\nENTRYPOINT [\"x\"]\n", &["--platform", "linux/s390x"]).ok();
}

/// A program for arm64 that writes the name of its machine to `/made`.
fn program_for_arm64() -> Vec<u8> {
    const CODE: [u32; 17] = [
        0xd108_03ff, // sub sp, sp, 512
        0x9100_03e0, // mov x0, sp
        0xd280_1408, // mov x8, 160
        0xd400_0001, // svc 0: uname(sp)
        0x9280_0c60, // mov x0, AT_FDCWD
        0x1000_0181, // adr x1, path
        0xd280_0822, // mov x2, O_WRONLY | O_CREAT
        0xd280_3483, // mov x3, 0644
        0xd280_0708, // mov x8, 56
        0xd400_0001, // svc 0: openat
        0x9104_13e1, // add x1, sp, 260: the field of the machine
        0xd280_00e2, // mov x2, 7
        0xd280_0808, // mov x8, 64
        0xd400_0001, // svc 0: write
        0xd280_0000, // mov x0, 0
        0xd280_0ba8, // mov x8, 93
        0xd400_0001, // svc 0: exit
    ];
    const BASE: u64 = 0x1_0000;
    let mut code: Vec<u8> = CODE.iter().flat_map(|word| word.to_le_bytes()).collect();
    code.extend(b"/made\0");
    let size = 64 + 56 + code.len() as u64;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0\x02\0\xb7\0\x01\0\0\0".to_vec();
    file.extend([BASE + 64 + 56, 64, 0].iter().flat_map(|word| word.to_le_bytes()));
    file.extend(b"\0\0\0\0\x40\0\x38\0\x01\0\0\0\0\0\0\0");
    file.extend(b"\x01\0\0\0\x05\0\0\0");
    file.extend([0, BASE, BASE, size, size, BASE].iter().flat_map(|word: &u64| word.to_le_bytes()));
    file.extend(code);
    file
}

#[test]
fn a_command_for_another_processor_runs_by_an_emulator_that_nobody_registered() {
    const TEST: &str = "a_command_for_another_processor_runs_by_an_emulator_that_nobody_registered";
    if cfg!(not(target_arch = "aarch64")) && !have(TEST, &["qemu-aarch64-static"]) {
        return;
    }
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(|text| text.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(7)) {
        return crate::support::skip(TEST, "user namespaces have a binfmt_misc of their own since Linux 6.7");
    }
    let registered = || fs::read_dir("/proc/sys/fs/binfmt_misc").map_or(0, |entries| entries.count());
    let before = registered();
    let env = Env::new();
    env.file("prog", program_for_arm64());
    env.mode("prog", 0o755);
    let dockerfile = "FROM scratch\nCOPY prog /\nRUN [\"/prog\"]\n";
    let dest = ["--platform", "linux/arm64", "-o", "type=local,dest=files"];
    env.file("Dockerfile", dockerfile);
    assert!(env.run(&["plan", "--platform", "linux/arm64", "context"]).ok().contains("would run"));
    let run = build(&env, dockerfile, &dest);
    run.ok();
    assert_eq!(fs::read_to_string(env.path("files/made")).unwrap(), "aarch64");
    assert_eq!(registered(), before, "the machine has no part in it");
    // The result is there for every machine with this store, and no other processor's.
    assert!(build(&env, dockerfile, &dest).steps().iter().all(|step| step.starts_with("CACHED")));
}

#[test]
fn a_stage_for_this_machine_works_for_all_platforms() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile = "\
FROM --platform=$BUILDPLATFORM busybox AS build
RUN echo once >> /shared && echo $BUILDPLATFORM > /host
ARG TARGETARCH
RUN echo for $TARGETARCH > /made
FROM scratch
COPY --from=build /made /host /shared /
";
    let run = build(&env, dockerfile, &["--platform", "linux/arm64,linux/riscv64", "-o", "type=local,dest=files"]);
    run.ok();
    for arch in ["arm64", "riscv64"] {
        let dir = env.path("files").join(format!("linux_{arch}"));
        assert_eq!(fs::read_to_string(dir.join("made")).unwrap(), format!("for {arch}\n"));
        assert_eq!(fs::read_to_string(dir.join("shared")).unwrap(), "once\n");
    }
    let steps = run.steps();
    assert_eq!(steps.iter().filter(|step| step.contains("RUN echo once")).count(), 1, "{steps:#?}");
    assert_eq!(steps.iter().filter(|step| step.contains("RUN echo for")).count(), 2, "{steps:#?}");
}

/// Puts an index with an image for each of two platforms into the registry; returns its digest.
fn add_index(registry: &Registry) -> String {
    let tar = busybox_rootfs();
    let entries: Vec<Value> = ["amd64", "arm64"]
        .iter()
        .map(|arch| {
            let config = json!({"architecture": arch, "os": "linux", "config": {"Env": [format!("ARCH={arch}")]},
                "rootfs": {"type": "layers", "diff_ids": [sha256(&tar)]}});
            let (digest, size) = add_layers(registry, "base", arch, &config, &[&tar]);
            json!({"mediaType": OCI.manifest, "digest": digest, "size": size,
                "platform": {"os": "linux", "architecture": arch}})
        })
        .collect();
    let index = json!({"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries}).to_string();
    registry.add_manifest("base", "1", OCI.index, index.as_bytes())
}

#[test]
fn bases_and_results_travel_with_the_fewest_requests() {
    let env = Env::new();
    let registry = Registry::start();
    add_index(&registry);
    registry.take_log();
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nCOPY Dockerfile /\n");
    let both = ["--platform", "linux/amd64,linux/arm64"];
    let output = format!("type=registry,name={host}/app:x");
    build(&env, &dockerfile, &[&both[..], &["--output", &output]].concat()).ok();
    let log = registry.take_log();
    let lines: Vec<String> = log.iter().map(|logged| logged.line.clone()).collect();
    assert_eq!(count(&lines, "GET /v2/base/manifests/1"), 1, "one index for all platforms: {lines:#?}");
    assert_eq!(count(&lines, "GET /v2/base/manifests/"), 3, "{lines:#?}");
    assert_eq!(count(&lines, "GET /v2/base/blobs/"), 3, "two configs, and the layer that both have: {lines:#?}");
    assert_eq!(count(&lines, "PUT /v2/app/blobs/"), 3, "two configs, and the layer that both have: {lines:#?}");
    assert_eq!(count(&lines, "PUT /v2/app/manifests/sha256"), 2, "{lines:#?}");
    assert_eq!(lines.last().unwrap(), "PUT /v2/app/manifests/x", "the tag comes last");
    // Both images of the base are there, without asking anybody.
    build(&env, &dockerfile, &[&both[..], &["--pull=never"]].concat()).ok();
    for one in ["linux/amd64", "linux/arm64"] {
        build(&env, &dockerfile, &["--platform", one, "--pull=never"]).ok();
    }
    assert_eq!(registry.take_log().len(), 0);
}
