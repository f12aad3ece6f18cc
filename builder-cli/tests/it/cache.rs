//! What is done again, and what is not.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use crate::support::Env;

const APP: &str =
    "FROM busybox\nWORKDIR /app\nCOPY list .\nRUN cp list lock\nCOPY src/ src/\nRUN cat src/* > all\nLABEL v=1\n";

fn app(env: &Env) {
    env.import_busybox();
    env.file("list", "a\n");
    env.file("src/one", "1\n");
    env.file("src/two", "2\n");
}

fn words(steps: &[String]) -> Vec<&str> {
    steps.iter().map(|s| s.split(' ').next().unwrap()).collect()
}

#[test]
fn nothing_changed_runs_nothing_and_gives_the_same_digest() {
    let env = Env::new();
    app(&env);
    let epoch = ["--build-arg", "SOURCE_DATE_EPOCH=1700000000"];
    let first = env.build(APP, &epoch);
    first.ok();
    assert_eq!(words(&first.steps()), ["RAN"; 5], "{:?}", first.steps());
    let before = files_of(&env.state());
    let second = env.build(APP, &epoch);
    second.ok();
    assert_eq!(words(&second.steps()), ["CACHED"; 5], "{:?}", second.steps());
    let after = files_of(&env.state());
    let changed: Vec<_> =
        after.iter().filter(|(path, stamp)| before.get(*path) != Some(stamp)).map(|(p, _)| p).collect();
    let expected = |path: &&&String| path.ends_with("index.json") || path.contains("/builds/");
    assert!(changed.iter().all(|path| expected(&path)), "a cached build wrote {changed:?}");
}

#[test]
fn an_image_from_the_cache_is_as_old_as_its_last_step() {
    let env = Env::new();
    app(&env);
    let created = || env.image(APP, &[]).config["created"].clone();
    let first = created();
    // Times have seconds.
    std::thread::sleep(std::time::Duration::from_millis(1100));
    assert_eq!(created(), first);
}

/// Content-bearing files of the state directory with inode and mtime; the mtime of a record only says when it was used.
fn files_of(dir: &Path) -> BTreeMap<String, (u64, i64, i64)> {
    let mut out = BTreeMap::new();
    let mut todo = vec![dir.to_owned()];
    while let Some(dir) = todo.pop() {
        for entry in fs::read_dir(&dir).into_iter().flatten().flatten() {
            let meta = entry.path().symlink_metadata().unwrap();
            if meta.is_dir() {
                if !["tmp", "locks"].contains(&entry.file_name().to_str().unwrap_or_default()) {
                    todo.push(entry.path());
                }
            } else if !entry.path().to_string_lossy().ends_with(".lock") {
                let is_record = dir.ends_with("records");
                let time = if is_record { (0, 0) } else { (meta.mtime(), meta.mtime_nsec()) };
                out.insert(entry.path().display().to_string(), (meta.ino(), time.0, time.1));
            }
        }
    }
    out
}

#[test]
fn an_edit_runs_exactly_the_steps_that_see_it() {
    let env = Env::new();
    app(&env);
    env.build(APP, &[]).ok();
    env.file("src/two", "changed\n");
    let run = env.build(APP, &[]);
    run.ok();
    assert_eq!(words(&run.steps()), ["CACHED", "CACHED", "CACHED", "RAN", "RAN"], "{:?}", run.steps());
    env.file("unused", "nobody copies this");
    let run = env.build(APP, &[]);
    assert_eq!(words(&run.steps()), ["CACHED"; 5], "{:?}", run.steps());
}

#[test]
fn times_and_owners_of_context_files_do_not_count_but_modes_do() {
    let env = Env::new();
    app(&env);
    env.build(APP, &[]).ok();
    env.file("src/one", "1\n");
    assert_eq!(words(&env.build(APP, &[]).steps()), ["CACHED"; 5]);
    env.mode("src/one", 0o755);
    assert_eq!(words(&env.build(APP, &[]).steps()), ["CACHED", "CACHED", "CACHED", "RAN", "RAN"]);
}

#[test]
fn metadata_breaks_no_command_and_env_does() {
    let env = Env::new();
    app(&env);
    env.build(APP, &[]).ok();
    let labelled = APP.replace("WORKDIR", "LABEL first=1\nWORKDIR");
    assert_eq!(words(&env.build(&labelled, &[]).steps()), ["CACHED"; 5]);
    let with_env = APP.replace("COPY src", "ENV X=1\nCOPY src");
    assert_eq!(words(&env.build(&with_env, &[]).steps()), ["CACHED", "CACHED", "CACHED", "CACHED", "RAN"]);
}

#[test]
fn no_cache_runs_all() {
    let env = Env::new();
    app(&env);
    env.build(APP, &[]).ok();
    assert_eq!(words(&env.build(APP, &["--no-cache"]).steps()), ["RAN"; 5]);
}

#[test]
fn a_stage_that_comes_out_the_same_does_not_rebuild_its_readers() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile = |noise: &str| {
        format!(
            "FROM busybox AS a\nRUN echo same > /x; echo {noise} > /noise\nFROM busybox\nCOPY --from=a /x /x\nRUN cat /x > /y\n"
        )
    };
    env.build(&dockerfile("1"), &[]).ok();
    let run = env.build(&dockerfile("2"), &[]);
    assert_eq!(words(&run.steps()), ["RAN", "CACHED", "CACHED"], "{:?}", run.steps());
}

#[test]
fn proxies_are_seen_by_commands_and_not_by_the_cache() {
    let env = Env::new();
    env.import_busybox();
    let dockerfile = "FROM busybox\nRUN test -n \"$HTTP_PROXY\" && echo ok > /x\n";
    env.build(dockerfile, &["--build-arg", "HTTP_PROXY=http://one.invalid"]).ok();
    let run = env.build(dockerfile, &["--build-arg", "HTTP_PROXY=http://two.invalid"]);
    assert_eq!(words(&run.steps()), ["CACHED"]);
    let image = env.image(dockerfile, &["--build-arg", "HTTP_PROXY=http://three.invalid"]);
    assert!(!format!("{:?}", image.config).contains("invalid"));
}
