//! A real program on a real distribution, from the example to the tools of others.

use std::fs;
use std::process::Command;

use crate::support::{Env, Run, have, is_root, skip};

const DOCKERFILE: &str = include_str!("../../../examples/debian-app/Dockerfile");
const GREET: &str = include_str!("../../../examples/debian-app/greet.c");
const GREETING: &str = "Hello, world! I run as 1000:1000.";
/// What apt says when there is no network.
const NO_NETWORK: [&str; 4] =
    ["Temporary failure resolving", "Could not connect", "Could not resolve", "Network is unreachable"];

/// Makes a Debian root filesystem `debian.tar`, or says why that is not possible; takes `$BUILDER_DEBIAN_TAR` if there is one.
pub(crate) fn debian(test: &str, env: &Env) -> bool {
    if let Some(tar) = std::env::var_os("BUILDER_DEBIAN_TAR") {
        std::os::unix::fs::symlink(tar, env.path("debian.tar")).unwrap();
        return true;
    }
    if !have(test, &["mmdebstrap"]) {
        return false;
    }
    let mut command = Command::new("mmdebstrap");
    command.args(["--variant=minbase", "--quiet", "bookworm", "debian.tar"]).current_dir(env.dir.path());
    // It unpacks there what it packs again, and /tmp may be memory.
    let output = Run::of(&command.env("TMPDIR", "/var/tmp").output().unwrap());
    if output.code != 0 && NO_NETWORK.iter().any(|text| output.stderr.contains(text)) {
        skip(test, "no Debian mirror can be reached");
        return false;
    }
    output.ok();
    true
}

#[test]
fn the_debian_example_is_taken_by_other_tools() {
    let test = "the_debian_example_is_taken_by_other_tools";
    let env = Env::new();
    if !have(test, &["skopeo", "umoci"]) || !debian(test, &env) {
        return;
    }
    env.run(&["import", "debian.tar", "debian:bookworm"]).ok();
    env.file("greet.c", GREET);
    let image = env.image(DOCKERFILE, &["-t", "greet:v1", "--output", "type=oci,dest=image.tar"]);
    assert_eq!(image.layers.len(), 1);
    assert_eq!(image.config["config"]["Entrypoint"], serde_json::json!(["/bin/greet"]));

    let tool = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(env.dir.path()).env("HOME", env.dir.path()).env_remove("XDG_RUNTIME_DIR");
        Run::of(&command.output().unwrap()).ok()
    };
    assert!(tool("skopeo", &["inspect", "oci:out:v1"]).contains("\"Layers\""));
    tool("skopeo", &["copy", "--insecure-policy", "oci:out:v1", "docker-archive:docker.tar:greet:v1"]);
    assert!(tool("skopeo", &["inspect", "docker-archive:docker.tar"]).contains("\"Layers\""));
    let rootless: &[&str] = if is_root() { &[] } else { &["--rootless"] };
    tool("umoci", &[&["unpack"], rootless, &["--image", "out:v1", "bundle"]].concat());
    let greeting = tool("bundle/rootfs/bin/greet", &["you"]);
    assert!(greeting.starts_with("Hello, you! I run as "), "{greeting}");
    podman(&env);
}

/// Runs the image. crun needs a cgroup that a test may not have; runc does not.
fn podman(env: &Env) {
    let test = "the_debian_example_is_run_by_podman";
    if !is_root() {
        return skip(test, "needs root for runc without a session");
    }
    if !have(test, &["podman", "runc"]) {
        return;
    }
    let conf = "[containers]\ndefault_ulimits=[\"nofile=1024:1024\",\"nproc=1024:1024\"]\nnetns=\"host\"\n\
        [engine]\nruntime=\"runc\"\ncgroup_manager=\"cgroupfs\"\n";
    fs::write(env.path("containers.conf"), conf).unwrap();
    let podman = |args: &[&str]| {
        let mut command = Command::new("podman");
        command.args(["--root", "p", "--runroot", "r", "--storage-driver", "vfs"]).args(args);
        command.current_dir(env.dir.path()).env("CONTAINERS_CONF", env.path("containers.conf"));
        Run::of(&command.output().unwrap()).ok()
    };
    podman(&["pull", "-q", "oci-archive:image.tar"]);
    let id = podman(&["images", "-q"]);
    assert_eq!(podman(&["run", "--rm", id.lines().next().unwrap()]), GREETING);
}
