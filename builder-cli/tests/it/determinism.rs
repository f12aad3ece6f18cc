//! The same input gives the same bytes.

use std::fs;
use std::os::unix::process::CommandExt as _;

use crate::support::{Env, Run, is_root, skip};

const DOCKERFILE: &str = "FROM busybox\nWORKDIR /w\nCOPY --chown=1:2 . /w/\n\
    RUN umask > u; date > /dev/null; echo $TZ > tz; mkdir -p d/e && echo x > d/e/f && ln d/e/f d/g && chown -R 7:8 d\n\
    RUN rm -r d/e && mkfifo p && chmod 4711 u\n";

fn prepare(env: &Env) {
    env.import_busybox();
    env.file("a", "a");
    env.file("b/c", "c");
    env.mode("b/c", 0o750);
    env.file("Dockerfile", DOCKERFILE);
}

fn digest(env: &Env, jobs: &str, vars: &[(&str, &str)], umask: Option<u32>) -> String {
    let mut command = env.command(&["build", "-q", "--no-cache", "--jobs", jobs, "context"]);
    command.env("SOURCE_DATE_EPOCH", "1700000000").envs(vars.iter().copied());
    if let Some(mask) = umask {
        // SAFETY-free way to change the umask of a child: a shell does it.
        let program = command.get_program().to_owned();
        let args: Vec<_> = command.get_args().map(ToOwned::to_owned).collect();
        let envs: Vec<_> = command.get_envs().filter_map(|(k, v)| Some((k.to_owned(), v?.to_owned()))).collect();
        command = std::process::Command::new("sh");
        command.env_clear().envs(envs).current_dir(env.dir.path());
        command.arg("-c").arg(format!("umask {mask:o}; exec \"$0\" \"$@\"")).arg(program).args(args);
    }
    Run::of(&command.output().unwrap()).ok()
}

#[test]
fn place_threads_zone_locale_and_umask_do_not_matter() {
    let one = Env::new();
    prepare(&one);
    let first = digest(&one, "1", &[], None);
    assert_eq!(first, digest(&one, "8", &[("TZ", "Asia/Tokyo"), ("LC_ALL", "tr_TR.UTF-8")], None));
    assert_eq!(first, digest(&one, "2", &[], Some(0o077)), "umask");
    let two = Env::new();
    prepare(&two);
    assert_eq!(first, digest(&two, "8", &[], None), "another directory");
}

#[test]
fn root_and_user_make_the_same_image() {
    if !is_root() {
        return skip("root_and_user_make_the_same_image", "needs root to become another user");
    }
    let Some(user) = nix::unistd::User::from_name("builder-test").unwrap() else {
        return skip("root_and_user_make_the_same_image", "there is no user builder-test");
    };
    let env = Env::new();
    prepare(&env);
    let as_root = digest(&env, "2", &[], None);
    let other = Env::new();
    for dir in [other.dir.path(), env.dir.path()] {
        std::os::unix::fs::chown(dir, Some(user.uid.as_raw()), Some(user.gid.as_raw())).unwrap();
    }
    fs::rename(env.path("context"), other.path("context")).unwrap();
    let owner = format!("{}:{}", user.uid, user.gid);
    let chown = std::process::Command::new("chown").arg("-R").arg(owner).arg(other.path("context")).status();
    assert!(chown.unwrap().success());
    let rootfs = other.path("rootfs.tar");
    fs::write(&rootfs, crate::support::busybox_rootfs()).unwrap();
    let run = |args: &[&str]| {
        let mut command = other.command(args);
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw()).env("SOURCE_DATE_EPOCH", "1700000000");
        Run::of(&command.output().unwrap()).ok()
    };
    run(&["import", rootfs.to_str().unwrap(), "busybox"]);
    assert_eq!(run(&["build", "-q", "--jobs", "8", "context"]), as_root);
}

#[test]
fn files_newer_than_the_epoch_get_its_time_and_older_ones_keep_theirs() {
    let env = Env::new();
    env.import_busybox();
    env.file("old", "x");
    let old = fs::File::options().write(true).open(env.path("context/old")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_000_000)).unwrap();
    env.file("new", "y");
    let dockerfile = "FROM busybox\nCOPY old new /\nRUN touch /made\n";
    let image = env.image(dockerfile, &["--build-arg", "SOURCE_DATE_EPOCH=1500000000"]);
    let fs = image.flatten();
    assert_eq!((fs["old"].mtime, fs["new"].mtime, fs["made"].mtime), (1_000_000, 1_500_000_000, 1_500_000_000));
    assert_eq!(fs["bin/busybox"].mtime, 1_600_000_000, "the base is never rewritten");
    assert_eq!(image.config["created"], "2017-07-14T02:40:00Z");
}
