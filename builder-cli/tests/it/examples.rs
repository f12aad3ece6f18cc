//! Examples stay short enough to be read, and those that need little are built and run; `scripts/examples` does all.

use std::fs;
use std::path::{Path, PathBuf};

use crate::peers::debian;
use crate::support::{Env, Run, have};

/// Those of `examples/images` that take seconds.
const QUICK: [&str; 4] = ["heredocs", "deb-package", "onbuild", "busybox-rootfs"];

#[test]
fn examples_are_short() {
    for file in ["self/Dockerfile", "debian-app/Dockerfile", "debian-app/greet.c", "embed/src/main.rs"] {
        is_short(&Path::new("../examples").join(file));
    }
    for dir in images() {
        is_short(&dir.join("Dockerfile"));
    }
}

fn is_short(file: &Path) {
    let text = fs::read_to_string(file).unwrap();
    assert!(text.lines().count() < 60, "{file:?} has {} lines", text.lines().count());
}

/// The folders with images.
fn images() -> Vec<PathBuf> {
    let entries = fs::read_dir("../examples/images").unwrap().map(|entry| entry.unwrap().path());
    entries.filter(|path| path.is_dir()).collect()
}

#[test]
fn the_list_of_images_says_what_each_prints() {
    let list = fs::read_to_string("../examples/images/README.md").unwrap();
    for dir in images() {
        let name = dir.file_name().unwrap().to_str().unwrap();
        assert!(list.contains(&format!("| [{name}]({name}/Dockerfile) |")), "{name} is not in the list");
        let printed = fs::read_to_string(dir.join("expected")).unwrap();
        let last = printed.lines().last().expect("it prints something");
        let row = list.lines().find(|line| line.starts_with(&format!("| [{name}]"))).unwrap();
        assert!(row.contains(&format!("`{last}`")), "{name} prints {last:?}, the list says {row}");
        let first = fs::read_to_string(dir.join("Dockerfile")).unwrap();
        assert!(first.starts_with("# "), "{name} does not say what it shows");
    }
}

#[test]
fn quick_examples_are_built_and_print_what_they_must() {
    let env = Env::new();
    if !have("quick_examples_are_built_and_print_what_they_must", &["umoci"])
        || !debian("quick_examples_are_built_and_print_what_they_must", &env)
    {
        return;
    }
    env.run(&["import", "debian.tar", "debian:bookworm"]).ok();
    for name in QUICK {
        let dir = fs::canonicalize(Path::new("../examples/images").join(name)).unwrap();
        let base = dir.join("Dockerfile.base");
        if base.exists() {
            let tag = format!("example/{name}-base");
            env.run(&["build", "-t", &tag, "-f", base.to_str().unwrap(), dir.to_str().unwrap()]).ok();
        }
        let dest = format!("type=oci,tar=false,dest={name}");
        env.run(&["build", "-t", "image:1", "--output", &dest, dir.to_str().unwrap()]).ok();
        assert_eq!(printed(&env, name), fs::read_to_string(dir.join("expected")).unwrap(), "{name}");
    }
}

/// Unpacks the layout `name` and runs what its config says, as root of the image.
fn printed(env: &Env, name: &str) -> String {
    let tool = |command: &mut std::process::Command| {
        let run = Run::of(&command.output().unwrap());
        run.ok();
        run.stdout
    };
    tool(env.as_image_root("umoci").args(["unpack", "--image", &format!("{name}:1"), "bundle"]));
    let runtime: serde_json::Value =
        serde_json::from_slice(&fs::read(env.path("bundle/config.json")).unwrap()).unwrap();
    let words = |value: &serde_json::Value| -> Vec<String> {
        value.as_array().unwrap().iter().map(|word| word.as_str().unwrap().to_owned()).collect()
    };
    let mut command = env.as_image_root("chroot");
    command.arg("bundle/rootfs").args(words(&runtime["process"]["args"])).env_clear();
    command.envs(words(&runtime["process"]["env"]).iter().filter_map(|pair| pair.split_once('=')));
    let text = tool(&mut command);
    tool(env.as_image_root("rm").args(["-rf", "bundle"]));
    text
}
