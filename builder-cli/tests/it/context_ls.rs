//! What a context lets through.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use serde_json::Value;

use crate::support::Env;

fn env() -> Env {
    let env = Env::new();
    env.file("a.txt", "12345");
    env.file("src/x.o", "o");
    env.file("src/x.c", "c");
    env.file(".dockerignore", "# objects\n**/*.o\n.dockerignore\n");
    env
}

#[test]
fn what_is_kept_is_listed() {
    let env = env();
    // Root reads everything, others may not: no content is asked for.
    env.mode("a.txt", 0);
    let run = env.run(&["context", "ls", "--total", "context"]);
    assert_eq!(run.ok(), "a.txt\nsrc/\nsrc/x.c");
    assert_eq!(run.stderr, "2 files, 6 B\n");
    assert_eq!(env.run(&["context", "ls", "-0", "context"]).ok(), "a.txt\0src/\0src/x.c\0");
    let json: Value = serde_json::from_str(&env.run(&["context", "ls", "--format", "json", "context"]).ok()).unwrap();
    assert_eq!((&json["files"], &json["bytes"], &json["ignore_file"]), (&2.into(), &6.into(), &".dockerignore".into()));
    assert_eq!(json["entries"][1]["path"], "src");
    assert_eq!(json["entries"][1]["kind"], "directory");
    assert!(!env.state().exists(), "no state directory is made");
}

#[test]
fn the_ignore_file_of_the_dockerfile_comes_first() {
    let env = env();
    fs::write(env.path("My.dockerfile"), "FROM scratch\n").unwrap();
    fs::write(env.path("My.dockerfile.dockerignore"), "src\n").unwrap();
    let run = env.run(&["context", "ls", "-f", "My.dockerfile", "context"]);
    assert_eq!(run.ok(), ".dockerignore\na.txt");
    let why = env.run(&["context", "ls", "-f", "My.dockerfile", "--why", "src/x.c", "context"]).ok();
    assert_eq!(why, "src/x.c is excluded by My.dockerfile.dockerignore:1 (\"src\"), which matches src");
    env.file("Dockerfile", "FROM scratch\n");
    env.file("Dockerfile.dockerignore", "*\n!a.txt\n");
    assert_eq!(env.run(&["context", "ls", "context"]).ok(), "a.txt", "as a build takes it");
}

#[test]
fn why_names_the_rule_or_says_that_there_is_none() {
    let env = env();
    let why = |path: &str| env.run(&["context", "ls", "--why", path, "context"]).ok();
    assert_eq!(why("src/x.o"), "src/x.o is excluded by .dockerignore:2 (\"**/*.o\")");
    assert_eq!(why("./src//x.c"), "src/x.c is kept: no rule of .dockerignore matches it");
    let absolute = env.path("context/src/x.o").canonicalize().unwrap();
    assert_eq!(why(absolute.to_str().unwrap()), why("src/x.o"));
    assert_eq!(why("no.o"), "no.o is excluded by .dockerignore:2 (\"**/*.o\")\nnothing has this name");
    env.file(".dockerignore", "src\n!src/x.c\n");
    assert_eq!(
        why("src"),
        "src is excluded by .dockerignore:1 (\"src\")\nsomething below it may be kept by .dockerignore:2 (\"!src/x.c\")"
    );
    assert_eq!(why("src/x.c"), "src/x.c is kept by .dockerignore:2 (\"!src/x.c\")");
    std::os::unix::fs::symlink("src", env.path("context/link")).unwrap();
    let text = why("link/x.o");
    assert!(text.ends_with("by links: src/x.o is excluded by .dockerignore:1 (\"src\"), which matches src"), "{text}");
    fs::remove_file(env.path("context/.dockerignore")).unwrap();
    assert_eq!(why("a.txt"), "a.txt is kept: there is no ignore file");
}

#[test]
fn mistakes_are_told() {
    let env = env();
    assert!(env.run(&["context", "ls", "context/a.txt"]).fails(2).contains("is no directory"));
    assert!(env.run(&["context", "ls", "nowhere"]).fails(2).contains("nowhere"));
    env.file(".dockerignore", "[a-\n");
    let run = env.run(&["context", "ls", "context"]);
    assert!(run.fails(1).contains(".dockerignore") && run.stderr.contains("[a-"), "{}", run.stderr);
    fs::remove_file(env.path("context/.dockerignore")).unwrap();
    fs::set_permissions(env.path("context/src"), fs::Permissions::from_mode(0o0)).unwrap();
    if !crate::support::is_root() {
        assert!(env.run(&["context", "ls", "context"]).fails(1).contains("src"));
    }
    fs::set_permissions(env.path("context/src"), fs::Permissions::from_mode(0o755)).unwrap();
}
