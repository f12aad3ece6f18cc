//! Instructions that change the config.

use super::*;

#[test]
fn everything_of_the_base_is_kept() {
    assert_eq!(
        config(&planned("FROM full\n")),
        r#"someone {"User":"daemon","ExposedPorts":{"80/tcp":{}},"Env":["LANG=C"],"Entrypoint":["/entry"],"Cmd":["serve"],"WorkingDir":"/work","Labels":{"a":"base","b":"base"},"Healthcheck":{"Test":["CMD","x"],"Interval":5000000000},"Shell":["/bin/ash","-ec"]}"#
    );
}

#[test]
fn configs() {
    for (lines, want) in [
        ("LABEL a=1 $b=c\nLABEL a=2", r#""Labels":{"a":"2","c":"c"}"#),
        ("CMD echo $x", r#""Cmd":["/bin/sh","-c","echo $x"]"#),
        ("CMD [\"echo\", \"$x\"]", r#""Cmd":["echo","$x"]"#),
        ("CMD [\"a\"]\nCMD []", ""),
        ("SHELL [\"/bin/bash\", \"-c\"]\nCMD x", r#""Cmd":["/bin/bash","-c","x"],"Shell":["/bin/bash","-c"]"#),
        ("CMD x\nSHELL [\"/s\"]", r#""Cmd":["/bin/sh","-c","x"],"Shell":["/s"]"#),
        ("ENTRYPOINT [\"a\"]\nCMD [\"b\"]", r#""Entrypoint":["a"],"Cmd":["b"]"#),
        ("CMD [\"b\"]\nENTRYPOINT [\"a\"]", r#""Entrypoint":["a"],"Cmd":["b"]"#),
        ("EXPOSE 80 53/UDP 7-8", r#""ExposedPorts":{"53/udp":{},"7/tcp":{},"8/tcp":{},"80/tcp":{}}"#),
        ("VOLUME /a $b\nVOLUME [\"/d e\"]", r#""Volumes":{"/a":{},"/d e":{},"c":{}}"#),
        ("USER ${b}:g", r#""User":"c:g""#),
        ("STOPSIGNAL SIGRTMIN+3", r#""StopSignal":"SIGRTMIN+3""#),
        ("HEALTHCHECK NONE", r#""Healthcheck":{"Test":["NONE"]}"#),
        (
            "HEALTHCHECK --interval=1m30s --retries=3 CMD x | y",
            r#""Healthcheck":{"Test":["CMD-SHELL","x | y"],"Interval":90000000000,"Retries":3}"#,
        ),
        ("HEALTHCHECK CMD [\"x\"]", r#""Healthcheck":{"Test":["CMD","x"]}"#),
        ("ONBUILD RUN echo $b\nONBUILD CMD x", r#""OnBuild":["RUN echo $b","CMD x"]"#),
    ] {
        let graph = planned(&format!("FROM base\nARG b=c\n{lines}\n"));
        let want = if want.is_empty() { "{}".to_owned() } else { format!("{{{want}}}") };
        assert_eq!(config(&graph), want, "{lines}");
    }
}

#[test]
fn histories() {
    for (lines, want) in [
        ("MAINTAINER A B <a@b>", "MAINTAINER A B <a@b>"),
        ("ENV a=\"$b d\" e='$b'", "ENV a=c d e=$b"),
        ("ENV a  b  c", "ENV a=b  c"),
        ("LABEL a=\"x\\\"y\"", "LABEL a=x\"y"),
        ("CMD echo \"a\\tb\"", r#"CMD ["/bin/sh" "-c" "echo \"a\\tb\""]"#),
        ("ENTRYPOINT []", "ENTRYPOINT []"),
        ("SHELL [\"a\", \"-c\"]", "SHELL [a -c]"),
        ("EXPOSE 9000 80/udp 80/tcp 80", "EXPOSE [80/tcp 80/udp 9000/tcp]"),
        ("VOLUME /a /b", "VOLUME [/a /b]"),
        ("STOPSIGNAL 9", "STOPSIGNAL 9"),
        ("USER a", "USER a"),
        (
            "HEALTHCHECK --interval=1m30s --timeout=1500ms --retries=2 CMD [\"a\", \"b\"]",
            "HEALTHCHECK {Test:[CMD a b] Interval:1m30s Timeout:1.5s StartPeriod:0s StartInterval:0s Retries:2}",
        ),
    ] {
        let graph = planned(&format!("FROM base\nARG b=c\n{lines}\n"));
        assert_eq!(history(&graph), format!("-: ARG b=c\n-: {want}\n"), "{lines}");
        assert!(graph.target.history.iter().all(|entry| entry.comment == "buildkit.dockerfile.v0"));
    }
    assert_eq!(history(&planned("FROM base\nONBUILD RUN x\n")), "", "a trigger is not in the history");
}

#[test]
fn workdirs() {
    for (lines, kept, made) in [
        ("WORKDIR /a", "/a", "/a"),
        ("WORKDIR a", "/work/a", "/work/a"),
        ("WORKDIR ../x/./y/", "/x/y", "/x/y"),
        // As in BuildKit, an absolute path is kept as it is written.
        ("WORKDIR /a/../b/", "/a/../b/", "/b"),
        ("WORKDIR /a/../b/\nWORKDIR c", "/b/c", "/b/c"),
        ("WORKDIR $d", "/v", "/v"),
        ("WORKDIR $nothing", "/work", "/work"),
    ] {
        let graph = planned(&format!("FROM full\nENV d=/v\n{lines}\n"));
        assert_eq!(graph.target.config.config.working_dir, kept, "{lines}");
        let Op::Workdir(op) = &graph.steps.last().unwrap().op else { panic!("WORKDIR is a step") };
        assert_eq!((op.path.as_str(), op.user.as_str()), (made, "daemon"), "{lines}");
        assert!(history(&graph).ends_with(&format!(": WORKDIR {kept}\n")), "{lines}");
    }
    // The root is always there.
    let graph = planned("FROM scratch\nWORKDIR /\n");
    assert_eq!((steps(&graph), history(&graph)), (String::new(), "-: WORKDIR /\n".to_owned()));
}

#[test]
fn labels_of_the_request_win() {
    let graph = Asked { labels: &[("b", "mine"), ("c", "mine")], ..Asked::default() }.plan("FROM full\nLABEL b=file\n");
    let labels: Vec<_> =
        graph.target.config.config.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    assert_eq!(labels, ["a=base", "b=mine", "c=mine"]);
    assert_eq!(history(&graph), "-: LABEL b=file\n");
}
