//! `RUN --device`: devices that CDI specs describe.

use std::fs;

use crate::image::Image;
use crate::support::{Env, Run};

const SPEC: &str = r#"
cdiVersion: "0.7.0"
kind: example.com/answer
containerEdits:
  env: ["KIND=answers"]
devices:
- name: zeros
  containerEdits:
    env: ["MANY=yes", "PATH=/bin:/opt/tools"]
    deviceNodes:
    - {path: /dev/answers/zeros, hostPath: /dev/zero, type: c, permissions: rwm}
    - {path: /opt/null, hostPath: /dev/null}
    mounts:
    - {hostPath: HOST, containerPath: /opt/tools, options: [ro, nosuid, nodev, rbind, rprivate]}
    additionalGids: [44]
- name: hooked
  containerEdits: {hooks: [{hookName: createContainer, path: /bin/true}]}
- name: open
  annotations: {org.mobyproject.buildkit.device.autoallow: "true"}
  containerEdits: {env: ["OPEN=1"]}
- name: gone
  containerEdits: {deviceNodes: [{path: /dev/no-such-device}]}
"#;

/// A workplace with a base image and the devices.
fn place() -> Env {
    let env = Env::new();
    env.import_busybox();
    fs::create_dir_all(env.path("tools")).unwrap();
    fs::write(env.path("tools/tool"), "a tool\n").unwrap();
    fs::create_dir_all(env.path("cdi")).unwrap();
    let tools = env.path("tools").display().to_string();
    fs::write(env.path("cdi/answer.yaml"), SPEC.replace("HOST", &tools)).unwrap();
    env
}

fn build(env: &Env, run: &str, more: &[&str]) -> Run {
    env.build(&format!("FROM busybox\nUSER app\n{run}\nRUN true\n"), &[&["--cdi-spec-dir", "cdi"], more].concat())
}

#[test]
fn a_command_sees_the_device_and_its_layer_does_not() {
    let env = place();
    let checks = [
        "test -c /dev/answers/zeros",
        "test \"$(head -c 3 /dev/answers/zeros | tr '\\0' z)\" = zzz",
        "echo x > /opt/null",
        "test \"$KIND $MANY $PATH\" = 'answers yes /bin:/opt/tools'",
        "grep -q 'a tool' /opt/tools/tool",
        "grep ' /opt/tools ' /proc/mounts | grep -q 'ro,nosuid,nodev'",
        "id -G | grep -q -w 44",
        "echo done > /tmp/done",
    ];
    let run = format!("RUN --device=example.com/answer=zeros,required {}", checks.join(" && "));
    let first = build(&env, &run, &["--allow", "device"]);
    first.ok();
    let image = Image::open(&env.path("out"), None);
    let files = image.flatten();
    assert!(files.contains_key("tmp/done"), "{:?}", files.keys());
    let left: Vec<_> = files.keys().filter(|path| path.starts_with("opt") || path.starts_with("dev/")).collect();
    assert!(left.is_empty(), "the layer has {left:?}");
    assert!(!image.config["config"].to_string().contains("MANY"), "{}", image.config);
    let again = build(&env, &run, &["--allow", "device"]);
    assert!(again.steps().iter().all(|step| step.starts_with("CACHED")), "{:?}", again.steps());
    let without = build(&env, "RUN ! test -e /dev/answers && ! test -n \"$MANY\"", &[]);
    without.ok();
}

#[test]
fn who_may_use_a_device_is_said_by_the_caller_or_the_machine() {
    let env = place();
    let refused = build(&env, "RUN --device=example.com/answer=zeros true", &[]);
    let text = refused.fails(1);
    for part in ["RUN --device is not allowed", "Dockerfile:3", "build with --allow device"] {
        assert!(text.contains(part), "{text}");
    }
    assert!(build(&env, "RUN --device=answer true", &[]).fails(1).contains("the form vendor.com/class=device"));
    let zeros = "RUN --device=example.com/answer=zeros test \"$MANY\" = yes";
    build(&env, zeros, &["--allow", "device=example.com/answer=zeros"]).ok();
    build(&env, zeros, &["--allow", "device=example.com/answer=*"]).ok();
    for name in ["example.com/answer=open", "example.com/answer=zero"] {
        build(&env, zeros, &["--no-cache", "--allow", &format!("device={name}")]).fails(1);
    }
    build(&env, "RUN --device=example.com/answer=* true", &["--allow", "device=example.com/answer=zeros"]).fails(1);
    build(&env, "RUN --device=example.com/answer=nine true", &["--allow", "device=example.com/answer=nine"]).ok();
    build(&env, zeros, &["--allow", "device=zeros"]).fails(2);
    build(&env, "RUN --device=example.com/answer=open test \"$OPEN\" = 1", &[]).ok();
}

#[test]
fn a_device_that_is_not_there_is_missed_only_where_it_is_needed() {
    let env = place();
    let allow = ["--allow", "device"];
    let run = build(&env, "RUN --device=example.com/answer=nine ! test -n \"$KIND\"", &allow);
    run.ok();
    assert!(run.stdout.contains("runs without the device"), "{}", run.stdout);
    fs::write(env.path("cdi/broken.json"), "{").unwrap();
    for (name, why) in [
        ("example.com/answer=nine,required", "this machine has no device \"example.com/answer=nine\""),
        ("example.com/answer=nine,required", "broken.json"),
        ("example.com/answer=hooked", "the device wants hooks"),
        ("example.com/answer=gone", "/dev/no-such-device"),
    ] {
        let run = build(&env, &format!("RUN --device={name} true"), &allow);
        let text = run.fails(69);
        assert!(text.contains(why) && text.contains("Dockerfile:3"), "{name}: {text}");
    }
}
