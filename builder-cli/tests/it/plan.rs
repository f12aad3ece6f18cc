//! What a build would do, what it did, and why.

use std::fs;

use serde_json::Value;

use crate::server::{Answer, Server};
use crate::support::{Env, Run, program};

const APP: &str = "FROM busybox AS base\nWORKDIR /app\n\
    FROM scratch AS unused\nCOPY list /\n\
    FROM base AS build\nARG VERSION=0\nCOPY list .\nRUN cp list lock\nCOPY src/ src/\nRUN cat src/* > all; echo $VERSION > v\n\
    FROM busybox\nCOPY --from=build /app/all /all\nLABEL v=1\n";

fn app() -> Env {
    let env = Env::new();
    env.import_busybox();
    env.file("list", "a\n");
    env.file("src/one", "1\n");
    env.file("src/two", "2\n");
    env.file("Dockerfile", APP);
    env
}

/// `STATE INSTRUCTION: REASON` of each step with a key.
fn steps(run: &Run) -> Vec<String> {
    let value: Value = serde_json::from_str(&run.ok()).unwrap();
    let step = |step: &Value| {
        let name = step["name"].as_str().unwrap();
        let words: Vec<&str> = name.split_once("] ").unwrap().1.split(' ').collect();
        let reason = step["reason"]["text"].as_str().map(|text| format!(": {text}")).unwrap_or_default();
        let what = words.iter().take(2).copied().collect::<Vec<_>>().join(" ");
        format!("{} {what}{reason}", step["state"].as_str().unwrap())
    };
    let steps = value["steps"].as_array().unwrap().iter();
    steps.filter(|step| step["state"] != "provided").map(step).collect()
}

fn plan(env: &Env, options: &[&str]) -> Vec<String> {
    let mut args = vec!["plan", "--format", "json", "context"];
    args.extend(options);
    steps(&env.run(&args))
}

fn explain(env: &Env, options: &[&str]) -> Vec<String> {
    let mut args = vec!["explain", "--format", "json"];
    args.extend(options);
    steps(&env.run(&args))
}

fn build(env: &Env, options: &[&str]) -> Run {
    let mut args = vec!["build", "--progress", "plain", "context"];
    args.extend(options);
    env.run(&args)
}

#[test]
fn a_plan_says_what_is_cached_and_a_build_then_does_just_that() {
    let env = app();
    let first = plan(&env, &[]);
    assert_eq!(first[0], "would-run WORKDIR /app: no earlier build of this step");
    assert!(first[1..].iter().all(|step| step.starts_with("unknown ") && step.ends_with("WORKDIR /app")), "{first:?}");
    assert!(!env.state().join("unpacked").read_dir().unwrap().any(|_| true), "a plan unpacks nothing");
    let records = || env.state().join("records").read_dir().unwrap().count();
    assert_eq!(records(), 0, "and makes nothing");

    build(&env, &[]).ok();
    assert!(plan(&env, &[]).iter().all(|step| step.starts_with("cached ")));
    let before = records();
    env.file("src/two", "changed\n");
    let planned = plan(&env, &[]);
    let expected = [
        "cached WORKDIR /app",
        "cached COPY list",
        "cached RUN cp",
        "would-run COPY src/: content of src/two changed",
        "unknown RUN cat: depends on [build 3/4] COPY src/ src/",
        "unknown COPY --from=build: depends on [build 3/4] COPY src/ src/",
    ];
    assert_eq!(planned, expected);
    assert_eq!(records(), before);
    let run = build(&env, &[]);
    run.ok();
    assert!(run.stderr.contains("not cached: content of src/two changed"), "{}", run.stderr);
    let expected = [
        "cached WORKDIR /app",
        "cached COPY list",
        "cached RUN cp",
        "ran COPY src/: content of src/two changed",
        "ran RUN cat: the result of [build 3/4] COPY src/ src/ changed",
        "ran COPY --from=build: content of /all changed",
    ];
    assert_eq!(explain(&env, &[]), expected);
}

#[test]
fn the_first_part_of_the_key_that_differs_is_the_reason() {
    let env = app();
    build(&env, &[]).ok();
    let reason = |options: &[&str], step: usize| {
        let planned = plan(&env, options);
        build(&env, options).ok();
        let done = explain(&env, &[])[step].clone();
        assert!(planned.iter().any(|p| p.starts_with("would-run") && done.ends_with(p.split_once(": ").unwrap().1)));
        done
    };
    assert_eq!(reason(&["--build-arg", "VERSION=1"], 2), "ran RUN cp: build arg VERSION: 0 → 1");
    env.file("Dockerfile", APP.replace("cp list lock", "cp list  lock"));
    let text = reason(&[], 2);
    assert_eq!(text, "ran RUN cp: command: \"cp list lock\" → \"cp list  lock\"");
    env.file("Dockerfile", APP.replace("RUN cp list ", "ENV X=1\nRUN cp list  "));
    assert_eq!(reason(&[], 2), "ran RUN cp: variable X: not set → 1", "a step that moved down is still the same");
    env.file("Dockerfile", APP);
    env.file("list", "b\n");
    assert_eq!(reason(&[], 1), "ran COPY list: content of list changed");
    assert_eq!(
        explain(&env, &[])[4],
        "ran RUN cat: the result of [build 2/4] RUN cp list lock changed",
        "not of the COPY between them, which is as it was"
    );
    env.mode("src/one", 0o755);
    env.file("src/more", "");
    fs::remove_file(env.path("context/src/two")).unwrap();
    assert_eq!(reason(&[], 3), "ran COPY src/: src/more is new");
    let all: Value = serde_json::from_str(&env.run(&["explain", "--format", "json"]).ok()).unwrap();
    let step =
        all["steps"].as_array().unwrap().iter().find(|step| step["reason"]["text"] == "src/more is new").unwrap();
    let changes: Vec<&str> =
        step["reason"]["changes"].as_array().unwrap().iter().map(|change| change["text"].as_str().unwrap()).collect();
    assert_eq!(changes, ["src/more is new", "mode of src/one: 0644 → 0755", "/app/src/two is gone"]);
}

#[test]
fn a_new_step_has_no_earlier_build_and_a_pruned_one_had() {
    let env = app();
    build(&env, &[]).ok();
    env.file("Dockerfile", APP.replace("COPY src", "RUN echo new > new\nCOPY src"));
    build(&env, &[]).ok();
    let told = explain(&env, &[]);
    assert_eq!(told[3], "ran RUN echo: no earlier build of this step");
    assert_eq!(told[4], "cached COPY src/", "{told:?}");
    assert_eq!(told[5], "ran RUN cat: [build 3/5] RUN echo new > new is new");
    for record in fs::read_dir(env.state().join("records")).unwrap().flatten() {
        fs::remove_file(record.path()).unwrap();
    }
    assert_eq!(plan(&env, &[])[0], "would-run WORKDIR /app: its result was pruned");
    build(&env, &["--no-cache"]).ok();
    assert!(explain(&env, &[]).iter().all(|step| step.ends_with(": --no-cache")));
    assert!(plan(&env, &["--no-cache"]).iter().all(|step| step.starts_with("would-run ")));
    env.run(&["prune", "--all"]).ok();
    assert!(env.run(&["explain"]).fails(2).contains("no build is remembered"));
}

#[test]
fn a_moved_base_image_is_told() {
    let env = app();
    env.file("Dockerfile", "FROM busybox\nRUN echo x > /x\n");
    build(&env, &[]).ok();
    env.import(
        &crate::support::busybox_rootfs_with(|tar| {
            let mut header = tar::Header::new_ustar();
            header.set_size(0);
            header.set_mode(0o644);
            tar.append_data(&mut header, "more", &[][..]).unwrap();
        }),
        "busybox",
    );
    build(&env, &[]).ok();
    let told = explain(&env, &[]);
    let start = "ran RUN echo: the base image docker.io/library/busybox:latest changed: sha256:";
    assert!(told[0].starts_with(start) && told[0].contains(" → sha256:"), "{told:?}");
}

#[test]
fn of_what_a_command_is_shown_the_file_that_changed_is_named() {
    let env = app();
    env.file("Dockerfile", "FROM busybox\nRUN --mount=type=bind,source=src,target=/src cat /src/* > /all\n");
    build(&env, &[]).ok();
    env.file("src/two", "changed\n");
    env.file("src/new", "");
    let expected = ["would-run RUN --mount=type=bind,source=src,target=/src: mounted /src/new is new"];
    assert_eq!(plan(&env, &[]), expected);
    build(&env, &[]).ok();
    let json = env.run(&["explain", "--format", "json"]).ok();
    assert!(json.contains("mounted /src/two changed") && !json.contains("/src/one"), "{json}");
}

#[test]
fn a_build_that_failed_is_remembered_too() {
    let env = app();
    env.file("Dockerfile", "FROM busybox\nRUN echo x > /x\nRUN test -e /flag\nRUN true\n");
    build(&env, &[]).fails(1);
    let expected = [
        "ran RUN echo: no earlier build of this step",
        "failed RUN test: no earlier build of this step",
        "not-done RUN true",
    ];
    assert_eq!(explain(&env, &[]), expected);
    build(&env, &[]).fails(1);
    assert_eq!(explain(&env, &[])[1], "failed RUN test: it failed the last time");
}

#[test]
fn a_step_is_compared_with_the_last_build_that_came_to_it() {
    let env = app();
    for (dockerfile, code) in [
        ("FROM busybox\nRUN true\nRUN echo a > /x\n", 0),
        ("FROM busybox\nRUN false\nRUN echo b > /x\n", 1),
        ("FROM busybox\nRUN true\nRUN echo b > /x\n", 0),
    ] {
        env.file("Dockerfile", dockerfile);
        assert_eq!(build(&env, &[]).code, code);
    }
    let expected = ["cached RUN true", "ran RUN echo: command: \"echo a > /x\" → \"echo b > /x\""];
    assert_eq!(explain(&env, &[]), expected);
}

#[test]
fn it_does_not_matter_where_a_build_is_started() {
    let env = app();
    build(&env, &[]).ok();
    env.file("list", "b\n");
    let inside = env.command(&["plan", "--format", "json", "."]).current_dir(env.path("context")).output().unwrap();
    assert_eq!(steps(&Run::of(&inside))[1], "would-run COPY list: content of list changed");
    let named = plan(&env, &["-f", env.path("context/Dockerfile").to_str().unwrap()]);
    assert_eq!(named[1], "would-run COPY list: content of list changed");
    fs::copy(env.path("context/Dockerfile"), env.path("Other")).unwrap();
    assert_eq!(plan(&env, &["-f", "Other"])[1], "would-run COPY list: no earlier build of this step");
}

#[test]
fn builds_are_found_by_name_and_digest_and_do_not_mix() {
    let env = app();
    let digest = env.run(&["build", "-q", "-t", "app:1", "context"]).ok();
    fs::create_dir(env.path("other")).unwrap();
    fs::write(env.path("other/Dockerfile"), "FROM busybox\nWORKDIR /app\nRUN echo other > /x\n").unwrap();
    env.run(&["build", "-q", "-t", "other", "other"]).ok();
    assert_eq!(explain(&env, &[]).len(), 2);
    assert_eq!(explain(&env, &["app:1"]).len(), 6);
    assert_eq!(explain(&env, &[&digest]).len(), 6);
    assert_eq!(explain(&env, &[&digest["sha256:".len()..][..12]]).len(), 6);
    assert!(env.run(&["explain", "app:2"]).fails(2).contains("no build of \"app:2\" is remembered"));
    let zstd = ["build", "-q", "-o", "type=oci,dest=x.tar,compression=zstd", "-o", "type=cacheonly", "context"];
    let again = env.run(&zstd).ok();
    assert!(again != digest && explain(&env, &[&again]).iter().all(|step| step.starts_with("cached ")));
    env.run(&["build", "-o", "type=oci,dest=no/such/dir/x.tar", "--no-cache", "context"]).fails(73);
    assert!(explain(&env, &[]).iter().all(|step| step.starts_with("ran ")), "the image was made");
    let other = explain(&env, &["other"]);
    assert_eq!(other[1], "ran RUN echo: no earlier build of this step", "{other:?}");
}

#[test]
fn secrets_are_not_remembered() {
    let env = app();
    env.file("Dockerfile", "FROM busybox\nRUN --mount=type=secret,id=key grep hush /run/secrets/key > /dev/null\n");
    fs::write(env.path("key"), "hush-hush").unwrap();
    build(&env, &["--secret", "id=key,src=key"]).ok();
    for trace in fs::read_dir(env.state().join("builds")).unwrap().flatten() {
        let text = fs::read_to_string(trace.path()).unwrap();
        assert!(!text.contains("hush-hush") && text.contains("/run/secrets/key"), "{text}");
    }
}

#[test]
fn plans_for_people_and_for_graphviz() {
    let env = app();
    build(&env, &[]).ok();
    env.file("list", "b\n");
    let text = env.run(&["plan", "context"]).ok();
    let line =
        |part: &str| text.lines().position(|line| line.contains(part)).unwrap_or_else(|| panic!("{part}:\n{text}"));
    assert!(
        text.lines().nth(line("COPY list")).unwrap().starts_with("#4 :7   would run [build 1/4] COPY list .  ← #2 #3")
    );
    assert_eq!(line("content of list changed"), line("COPY list") + 1);
    assert!(text.contains("depends on #4") && text.contains("not needed: unused"), "{text}");
    assert!(text.ends_with("1 cached, 1 would run, 4 unknown"), "{text}");
    let dot = env.run(&["plan", "--format", "dot", "context"]).ok();
    assert!(dot.starts_with("digraph build {") && dot.ends_with('}'), "{dot}");
    assert!(dot.contains("s3 -> s4;") && dot.contains("content of list changed"), "{dot}");
    assert!(!dot.contains("unused"));
    let target = env.run(&["plan", "--target", "unused", "context"]).ok();
    assert!(target.contains("COPY list /") && !target.contains("RUN"), "{target}");
}

#[test]
fn a_plan_refuses_what_only_a_build_can_use_and_finds_what_is_wrong() {
    let env = app();
    for option in [["-t", "x"], ["--iidfile", "x"], ["-o", "x"], ["--cache-max", "1"]] {
        let run = env.run(&["plan", option[0], option[1], "context"]);
        assert!(run.fails(2).contains("plays no part in a plan"), "{}", run.stderr);
    }
    env.file("Dockerfile", "FROM busybox\nCOPY missing /\n");
    env.file(".dockerignore", "# nothing\nmis*\n");
    env.file("missing", "");
    let run = env.run(&["plan", "context"]);
    let text = run.fails(1);
    assert!(text.contains("Dockerfile:2") && text.contains(".dockerignore:2 (\"mis*\")"), "{text}");
}

#[test]
fn a_plan_asks_no_server_what_only_a_build_fetches() {
    let env = app();
    let server = Server::new(|_| Answer::ok("hello"));
    env.file("Dockerfile", format!("FROM busybox\nADD {}/x /x\nRUN cat /x\n", server.url));
    build(&env, &[]).ok();
    let before = server.requests().len();
    let told = plan(&env, &[]);
    assert!(told[0].starts_with("unknown ADD ") && told[0].ends_with("only a build asks whether its source changed"));
    assert!(told[1].starts_with("unknown RUN cat: depends on "), "{told:?}");
    assert_eq!(server.requests().len(), before);

    let digest = crate::image::sha256(b"hello");
    env.file("Dockerfile", format!("FROM busybox\nADD --checksum={digest} {}/x /x\nRUN cat /x\n", server.url));
    assert!(plan(&env, &[]).iter().all(|step| step.starts_with("cached ")), "a checksum says what it is");
    assert_eq!(server.requests().len(), before);
}

#[test]
fn a_plan_of_an_archive_on_standard_input_is_compared_with_its_last_build() {
    let env = app();
    let tar = |list: &str| {
        let mut tar = tar::Builder::new(Vec::new());
        for (name, text) in [("Dockerfile", "FROM busybox\nCOPY list /\nRUN cat /list\n"), ("list", list)] {
            let mut header = tar::Header::new_ustar();
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            tar.append_data(&mut header, name, text.as_bytes()).unwrap();
        }
        fs::write(env.path("stdin"), tar.into_inner().unwrap()).unwrap();
        fs::File::open(env.path("stdin")).unwrap()
    };
    let run = |args: &[&str], list: &str| Run::of(&env.command(args).stdin(tar(list)).output().unwrap());
    run(&["build", "-"], "a").ok();
    assert_eq!(steps(&run(&["plan", "--format", "json", "-"], "a")), ["cached COPY list", "cached RUN cat"]);
    let told = steps(&run(&["plan", "--format", "json", "-"], "b"));
    assert_eq!(told[0], "would-run COPY list: content of /list changed");
}

#[test]
fn a_plan_says_which_commands_this_machine_cannot_run() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nRUN [\"/x\"]\nRUN [\"/y\"]\n");
    // A root with a single id, and of nothing but its own files.
    let mut command = std::process::Command::new("unshare");
    command.args(["--user", "--map-root-user"]).arg(program()).args(["plan", "--format", "json", "context"]);
    command.env("BUILDER_STATE_DIR", env.state()).env("HOME", env.dir.path()).current_dir(env.dir.path());
    let run = Run::of(&command.output().unwrap());
    let told = steps(&run);
    assert!(told[0].starts_with("would-run COPY"), "{told:?}");
    assert!(told[1].starts_with("unknown RUN"), "{told:?}");
    assert!(run.stderr.contains("a build could not run its commands here: "), "{}", run.stderr);
    env.file("Dockerfile", "FROM scratch\nRUN [\"/x\"]\n");
    let told = steps(&Run::of(&command.output().unwrap()));
    assert!(told[0].starts_with("refused RUN [\"/x\"]: ") && told[0].len() > 30, "{told:?}");
}
