//! Credentials on the command line: each registry sees its own, and nobody else's.

use std::fs;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;

use crate::registry::{add_base, server};
use crate::support::{Env, Run};
use server::{Auth, Registry};

/// A registry that lets `user` in with the password `word`.
fn registry(user: &'static str) -> Registry {
    let registry = Registry::start();
    registry.set_auth(Auth::Basic(user, "word"));
    registry
}

/// Asserts that nobody but `user` knocked, and that somebody did.
#[track_caller]
fn seen(registry: &Registry, user: &str) {
    let own = format!("Basic {}", STANDARD.encode(format!("{user}:word")));
    let log = registry.take_log();
    let shown: Vec<_> = log.iter().filter_map(|logged| logged.authorization.clone()).collect();
    assert!(!shown.is_empty() && shown.iter().all(|text| *text == own), "{user}: {log:#?}");
}

fn build(env: &Env, from: &str, options: &[&str]) -> Run {
    env.file("Dockerfile", format!("FROM {from}\nCOPY Dockerfile /\n"));
    env.run(&[&["build", "--no-cache", "--pull=always", "--retry", "0", "context"][..], options].concat())
}

#[test]
fn pulling_and_pushing_have_credentials_of_their_own() {
    let env = Env::new();
    let (from, to) = (registry("reader"), registry("writer"));
    add_base(&from, "base", "1");
    let (base, name) = (format!("{}/base:1", from.host()), format!("{}/app:1", to.host()));
    let pull = format!("{}=reader:word", from.host());
    let pushed = ["-t", name.as_str(), "--push"];
    let run = |creds: &[&str]| build(&env, &base, &[&pushed[..], creds].concat());
    run(&["--pull-creds", &pull]).fails(75);
    to.take_log();
    from.take_log();
    // Without a registry they are for the one that is pushed to.
    for creds in [["--pull-creds", &pull, "--push-creds", "writer:word"], ["--creds", &pull, "--creds", "writer:word"]]
    {
        run(&creds).ok();
        seen(&from, "reader");
        seen(&to, "writer");
    }
    let file = |name: &str, host: &str, user: &str| {
        let auth = STANDARD.encode(format!("{user}:word"));
        let text = json!({"auths": {host: {"auth": auth}}}).to_string();
        fs::write(env.path(name), text).unwrap();
    };
    file("pull.json", &from.host(), "reader");
    file("push.json", &to.host(), "writer");
    run(&["--authfile", "pull.json", "--push-authfile", "push.json"]).ok();
    seen(&from, "reader");
    seen(&to, "writer");
    // What was just said wins over a file, also over a longer key of it.
    file("wrong.json", &format!("{}/base", from.host()), "nobody");
    run(&["--authfile", "wrong.json", "--creds", &pull, "--push-creds", "writer:word"]).ok();
    seen(&from, "reader");
}

#[test]
fn a_password_that_could_be_for_anyone_is_for_no_one() {
    let env = Env::new();
    let (one, two) = (registry("me"), registry("me"));
    let names = [format!("{}/a", one.host()), format!("{}/b", two.host())];
    let run = build(&env, "scratch", &["-t", &names[0], "-t", &names[1], "--push", "--creds", "me:word"]);
    assert!(run.fails(2).contains("--creds REGISTRY=USER:PASSWORD"), "{}", run.stderr);
    let run = build(&env, &names[0], &["--pull-creds", "me:word"]);
    assert!(run.fails(2).contains("--pull-creds REGISTRY=") && !run.stderr.contains("word;"), "{}", run.stderr);
    assert!(one.take_log().is_empty() && two.take_log().is_empty());
    build(&env, "scratch", &["--push-authfile", "missing.json"]).fails(2);
    fs::write(env.path("helper.json"), r#"{"credHelpers":{"h":"x"}}"#).unwrap();
    assert!(build(&env, "scratch", &["--push-authfile", "helper.json"]).fails(2).contains("helper"));
}

#[test]
fn copies_and_indexes_have_credentials_for_both_ends() {
    let env = Env::new();
    let (from, to) = (registry("reader"), registry("writer"));
    add_base(&from, "base", "1");
    let places = [format!("docker://{}/base:1", from.host()), format!("docker://{}/copy:1", to.host())];
    let copy = ["copy", places[0].as_str(), &places[1]];
    env.run(&[&copy[..], &["--src-creds", "reader:word", "--dest-creds", "writer:word"]].concat()).ok();
    seen(&from, "reader");
    seen(&to, "writer");
    env.run(&["copy", &places[0], "oci:out:1", "--dest-creds", "writer:word"]).fails(2);
    env.run(&["manifest", "create", "x", &places[0], "--creds", "reader:word"]).ok();
    env.run(&["manifest", "push", "x", &places[1], "--creds", "writer:word"]).ok();
    seen(&from, "reader");
    seen(&to, "writer");
}
