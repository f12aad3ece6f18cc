//! `builder check`, `build --check` and `build --call=…`; findings of a build.

use std::fs;
use std::io::Write as _;
use std::process::Stdio;

use serde_json::Value;

use crate::support::{Env, Run};

const DOCKERFILE: &str = "FROM nosuch.invalid/base AS Build\nARG A\nCMD a\nFROM scratch\nCOPY *.txt /\n";

fn json(run: &Run) -> Value {
    serde_json::from_str(&run.stdout).unwrap_or_else(|error| panic!("{error}: {}\n{}", run.stdout, run.stderr))
}

#[test]
fn a_check_needs_nothing_but_the_file() {
    let env = Env::new();
    env.file("Dockerfile", DOCKERFILE);
    let run = env.run(&["check", "context"]);
    assert_eq!(run.stderr, "", "the report is the result: on standard output");
    run.fails(1);
    for part in ["StageNameCasing", "context/Dockerfile:1:29", "^^^^^", "JSONArgsRecommended", "WildcardMatchesNothing"]
    {
        assert!(run.stdout.contains(part), "{part}: {}", run.stdout);
    }
    assert!(run.stdout.contains("the store has no nosuch.invalid/base"), "{}", run.stdout);
    assert!(run.stdout.ends_with("Check complete, 3 warnings have been found!\n"), "{}", run.stdout);
    assert!(!env.state().exists(), "no state directory was made");
    // The same in other words.
    for args in [
        &["build", "--check", "context"][..],
        &["build", "--call=check", "context"],
        &["build", "--call=lint", "context"],
    ] {
        let other = env.run(args);
        other.fails(1);
        assert_eq!(other.stdout, run.stdout, "{args:?}");
    }
    env.run(&["build", "--call", "check,ignorestatus=true", "context"]).ok();
    // Added to the command line of a build it is a check all the same, and says that it is no more.
    let usual = ["build", "-t", "h.invalid/x", "--push", "--iidfile", "iid", "--jobs", "2", "context"];
    for look in ["--check", "--call=outline"] {
        let run = env.run(&[&usual[..], &[look]].concat());
        assert!(run.stderr.contains("--push, --iidfile without effect"), "{look}: {}", run.stderr);
        assert_eq!(run.stdout == env.run(&["check", "context"]).stdout, look == "--check", "{}", run.stdout);
    }
    assert!(!env.path("iid").exists());
    assert!(!env.state().exists());
}

#[test]
fn exit_status_and_standard_input() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nLABEL a=b\n");
    assert_eq!(env.run(&["check", "context"]).ok(), "Check complete, no warnings found.");
    env.run(&["check", "context", "--build-arg", "BUILDKIT_DOCKERFILE_CHECK=nonsense"]).fails(2);
    env.run(&["check", "no/such/dir"]).fails(2);
    env.run(&["check", "context/Dockerfile"]).fails(2);
    env.run(&["build", "--call=nonsense", "context"]).fails(2);
    env.run(&["build", "--call=check,format=xml", "context"]).fails(2);
    env.run(&["build", "--check", "--call=outline", "context"]).fails(2);
    env.run(&["check", "--target", "nope", "context"]).fails(1);
    for args in [&["check", "-"][..], &["check", "-f", "-", "context"]] {
        let mut child = env.command(args).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        child.stdin.take().unwrap().write_all(b"FRM x\nfrom y\n").unwrap();
        let run = Run::of(&child.wait_with_output().unwrap());
        assert_eq!(run.code, 1);
        assert!(run.stdout.contains("did you mean FROM?"), "{}", run.stdout);
    }
}

#[test]
fn reports_as_json_and_sarif() {
    let env = Env::new();
    env.file("Dockerfile", DOCKERFILE);
    let report = json(&env.run(&["check", "--format", "json", "context"]));
    let rules: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|w| w["ruleName"].as_str().unwrap()).collect();
    assert_eq!(rules, ["StageNameCasing", "JSONArgsRecommended", "WildcardMatchesNothing"]);
    assert_eq!(report, json(&env.run(&["build", "--call=check,format=json", "context"])));
    let sarif = json(&env.run(&["check", "--format", "sarif", "context"]));
    let result = &sarif["runs"][0]["results"][0];
    assert_eq!(result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], "context/Dockerfile");
    let targets = json(&env.run(&["build", "--call=targets,format=json", "context"]));
    assert_eq!(targets["targets"][0]["name"], "build");
    let outline = json(&env.run(&["build", "--call=outline,format=json", "--target=build", "context"]));
    assert_eq!(outline["args"][0]["name"], "A");
    assert!(env.run(&["build", "--call=targets", "context"]).ok().contains("(default)"));
    let listed = json(&env.run(&["check", "--list-rules", "--format", "json"]));
    assert!(listed.as_array().unwrap().len() > 22);
}

#[test]
fn a_base_image_of_the_store_is_known() {
    let env = Env::new();
    env.import_busybox();
    env.build("FROM busybox\nENV KNOWN=1\n", &["-t", "mine"]).ok();
    env.file("Dockerfile", "FROM mine\nLABEL a=$KNOWN b=$UNKNOWN\n");
    let report = json(&env.run(&["check", "--format", "json", "context"]));
    let details: Vec<&str> =
        report["warnings"].as_array().unwrap().iter().map(|w| w["detail"].as_str().unwrap()).collect();
    assert_eq!(details, ["Usage of undefined variable '$UNKNOWN' (did you mean $KNOWN?)"]);
    assert_eq!(report.get("unknownBases"), None);
}

#[test]
fn a_build_tells_findings_at_its_end() {
    let env = Env::new();
    let dockerfile = "FROM scratch AS Other\nENV a b\nFROM scratch\nMAINTAINER x\nLABEL a=$nobody\n";
    env.file("Dockerfile", dockerfile);
    let run = env.run(&["build", "--progress", "plain", "context"]);
    run.ok();
    let (_, end) = run.stderr.split_once("3 warnings found:\n").unwrap_or_else(|| panic!("{}", run.stderr));
    for rule in ["StageNameCasing", "MaintainerDeprecated", "UndefinedVar"] {
        assert!(end.contains(&format!("warning[{rule}]")), "{end}");
    }
    assert!(!end.contains("LegacyKeyValueFormat"), "a stage that the target does not need: {end}");
    let run = env.build(dockerfile, &[]);
    let events: Vec<Value> = run.stdout.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let finding = events.iter().find(|event| event["rule"] == "UndefinedVar").unwrap();
    assert_eq!((&finding["event"], &finding["line"]), (&"finding".into(), &5.into()));
    assert_eq!(env.run(&["build", "-q", "context"]).stderr, "");
}

#[test]
fn warnings_are_told_before_an_error() {
    let env = Env::new();
    for (dockerfile, error) in [
        ("FROM scratch AS BadStageName\nBADCMD\n", "\"BADCMD\" is not an instruction"),
        ("FROM scratch AS BadStageName\nSTOPSIGNAL SIGTREM\n", "\"SIGTREM\" is not a signal"),
    ] {
        env.file("Dockerfile", dockerfile);
        let run = env.run(&["build", "--progress", "plain", "context"]);
        let (before, after) = run.fails(1).split_once("error[").unwrap();
        assert!(before.contains("1 warning found:") && before.contains("warning[StageNameCasing]"), "{}", run.stderr);
        assert!(after.contains(error), "{}", run.stderr);
    }
}

#[test]
fn rules_ask_nothing_of_a_context_that_is_not_used() {
    let env = Env::new();
    env.file(".dockerignore", "[\n");
    env.build("FROM scratch\nENV a b\n", &[]).ok();
    assert!(env.build("FROM scratch\nCOPY Dockerfile /\n", &[]).fails(1).contains("bad pattern"));
    assert!(env.run(&["check", "context"]).stdout.contains("error[ignore-file]"));
}

#[test]
fn error_true_ends_a_build_before_its_first_step() {
    let env = Env::new();
    let dockerfile = "FROM scratch\nCOPY missing /\nCMD x\n";
    let error = env.build(&format!("# check=error=true\n{dockerfile}"), &[]);
    let text = error.fails(1);
    assert!(text.contains("lint violation found for rules: JSONArgsRecommended"), "{text}");
    assert!(!error.stdout.contains("step_started"), "{}", error.stdout);
    let skipped = env.build(
        &format!("# check=error=true\n{dockerfile}"),
        &["--build-arg", "BUILDKIT_DOCKERFILE_CHECK=skip=JSONArgsRecommended;error=true"],
    );
    assert!(skipped.fails(1).contains("\"missing\" is not in the build context"), "{}", skipped.stderr);
    // Rules that BuildKit does not have are told, and stop nothing.
    let own = env.build("# check=error=true;skip=NoSuchRule\nFROM scratch\nCOPY *.nothing /\n", &[]);
    own.ok();
    assert!(own.stdout.contains("UnknownCheckOption") && own.stdout.contains("WildcardMatchesNothing"));
    fs::write(env.path("context/Dockerfile"), "# check=eror=true\nFROM scratch\n").unwrap();
    let run = env.run(&["build", "context"]);
    assert!(run.fails(1).contains("did you mean \"error\"?"), "{}", run.stderr);
}
