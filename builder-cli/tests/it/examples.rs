//! The examples do what the README says of them.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::support::{Env, Run, have};

fn example(name: &str) -> String {
    std::path::absolute(Path::new("../examples").join(name)).unwrap().display().to_string()
}

/// A Debian root filesystem: `$BUILDER_DEBIAN_TAR`, else made now.
fn debian(env: &Env) -> PathBuf {
    if let Some(path) = std::env::var_os("BUILDER_DEBIAN_TAR") {
        return path.into();
    }
    let tar = env.path("debian.tar");
    let made = Command::new("mmdebstrap").args(["--variant=minbase", "bookworm"]).arg(&tar).output().unwrap();
    Run::of(&made).ok();
    tar
}

#[test]
fn an_application_is_compiled_on_debian_and_runs_elsewhere() {
    let test = "an_application_is_compiled_on_debian_and_runs_elsewhere";
    if !have(test, &["mmdebstrap", "skopeo", "umoci"]) {
        return;
    }
    let env = Env::new();
    env.run(&["import", debian(&env).to_str().unwrap(), "debian:bookworm"]).ok();
    let example = example("debian-app");
    let args = ["build", "-t", "greet:1", "--progress", "json", "--output", "type=oci,tar=false,dest=greet", &example];
    let first = env.run(&args);
    first.ok();
    assert!(
        first.steps().iter().any(|step| step.starts_with("RAN") && step.contains("apt-get")),
        "{:?}",
        first.steps()
    );

    let tool = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).current_dir(env.dir.path()).env("HOME", env.dir.path()).env_remove("XDG_RUNTIME_DIR");
        Run::of(&command.output().unwrap()).ok()
    };
    assert!(tool("skopeo", &["inspect", "--config", "oci:greet:1"]).contains("/bin/greet"));
    tool("skopeo", &["copy", "--insecure-policy", "oci:greet:1", "docker-archive:docker.tar:greet:1"]);
    tool("umoci", &["unpack", "--rootless", "--image", "greet:1", "bundle"]);
    // Nothing but itself is needed to run it.
    let greeting = tool(env.path("bundle/rootfs/bin/greet").to_str().unwrap(), &["world"]);
    assert!(greeting.starts_with("Hello, world! I run as "), "{greeting}");

    let second = env.run(&args);
    second.ok();
    assert!(second.steps().iter().all(|step| step.starts_with("CACHED")), "{:?}", second.steps());
    let other = env.run(&[&args[..], &["--build-arg", "GREETING=Moin"]].concat());
    let cached = |step: &&String| step.starts_with("CACHED") && step.contains("apt-get");
    assert_eq!(
        other.steps().iter().filter(cached).count(),
        1,
        "a build arg concerns what sees it: {:?}",
        other.steps()
    );
}

#[test]
fn examples_are_short() {
    for file in ["self/Dockerfile", "debian-app/Dockerfile", "debian-app/greet.c", "embed/src/main.rs"] {
        let lines = std::fs::read_to_string(example(file)).unwrap().lines().count();
        assert!(lines < 60, "{file} has {lines} lines");
    }
}
