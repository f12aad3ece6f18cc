//! Stages: what is needed, in which order, under which names.

use super::*;

#[test]
fn a_plain_build() {
    let graph = planned(
        "FROM base AS build\nWORKDIR /src\nCOPY . .\nRUN make\n\
         FROM base\nCOPY --from=build /src/app /bin/\nCMD [\"app\"]\n",
    );
    assert_eq!(
        steps(&graph),
        "\
0 [build 1/4] FROM base@sha256:…
1 [build 2/4] WORKDIR /src <- 0
2 [internal] load build context
3 [build 3/4] COPY . . <- 1 2
4 [build 4/4] RUN make <- 3
5 [stage-1 1/1] COPY --from=build /src/app /bin/ <- 0 4
"
    );
    assert_eq!(history(&graph), "5: COPY /src/app /bin/ # buildkit\n-: CMD [\"app\"]\n");
    assert_eq!(graph.target.base, Some(StepId(0)));
    assert_eq!(graph.target.root, RootInput::Step(StepId(5)));
    let lines: Vec<_> = graph.steps.iter().map(|step| step.info.line).collect();
    assert_eq!(lines, [Some(1), Some(2), None, Some(3), Some(4), Some(6)]);
    let stages: Vec<_> = graph.steps.iter().map(|step| step.info.stage.as_deref().unwrap_or("-")).collect();
    assert_eq!(stages, ["build", "build", "-", "build", "build", "1"]);
    assert!(graph.runs_commands());
}

#[test]
fn a_lone_stage_is_not_named() {
    let graph = planned("FROM base\nRUN a\nRUN b\n");
    assert_eq!(steps(&graph), "0 [1/3] FROM base@sha256:…\n1 [2/3] RUN a <- 0\n2 [3/3] RUN b <- 1\n");
}

#[test]
fn numbers_of_steps_are_padded() {
    let graph = planned(&format!("FROM scratch\n{}", "WORKDIR /a\nWORKDIR /b\n".repeat(5)));
    assert!(steps(&graph).starts_with("0 [ 1/10] WORKDIR /a\n1 [ 2/10] WORKDIR /b <- 0\n"), "{}", steps(&graph));
}

#[test]
fn equal_work_is_one_step() {
    let graph = planned(
        "FROM base AS a\nRUN x\nRUN y\nFROM docker.io/library/base:latest AS b\nRUN x\nRUN z\n\
         FROM scratch\nCOPY --from=a / /a\nCOPY --from=b / /b\n",
    );
    assert_eq!(
        steps(&graph),
        "\
0 [a 1/3] FROM base@sha256:…
1 [a 2/3] RUN x <- 0
2 [a 3/3] RUN y <- 1
3 [b 1/1] RUN z <- 1
4 [stage-2 1/2] COPY --from=a / /a <- 2
5 [stage-2 2/2] COPY --from=b / /b <- 4 3
"
    );
}

#[test]
fn steps_come_in_the_order_of_the_file_whoever_asks_first() {
    // The last stage needs the context before it needs `late`, which needs it too.
    let graph = planned("FROM other AS late\nCOPY x .\nFROM base\nCOPY x .\nCOPY --from=late / .\n");
    assert_eq!(
        steps(&graph),
        "\
0 [late 1/2] FROM other@sha256:…
1 [internal] load build context
2 [late 2/2] COPY x . <- 0 1
3 [stage-1 1/3] FROM base@sha256:…
4 [stage-1 2/3] COPY x . <- 3 1
5 [stage-1 3/3] COPY --from=late / . <- 4 2
"
    );
}

#[test]
fn dead_stages_are_not_looked_at() {
    let images = Images::default();
    let dockerfile = "FROM nosuch AS dead\nRUN --mount=type=nosuch x\nFROM $NOTHING\nFROM base AS out\nFROM dead\n";
    let graph = Asked { target: Some("OUT"), ..Asked::default() }.plan_with(dockerfile, &images).unwrap();
    assert_eq!(steps(&graph), "0 [out 1/1] FROM base@sha256:…\n");
    assert_eq!(*images.asked.borrow(), ["base linux/amd64"]);
}

#[test]
fn targets() {
    let dockerfile = "FROM base AS one\nLABEL is=one\nFROM base AS two\nLABEL is=two\nFROM base\nLABEL is=three\n";
    for (target, want) in
        [(None, "three"), (Some("one"), "one"), (Some("Two"), "two"), (Some("1"), "two"), (Some("2"), "three")]
    {
        let graph = Asked { target, ..Asked::default() }.plan(dockerfile);
        assert_eq!(graph.target.config.config.labels["is"], want, "{target:?}");
    }
}

#[test]
fn stages_build_on_stages() {
    let graph = planned(
        "FROM full AS a\nENV X=1\nARG Y=2\nCMD [\"a\"]\nWORKDIR sub\nFROM a AS b\nUSER u\nENTRYPOINT [\"e\"]\nFROM B\nRUN x\n",
    );
    let run = only_run(&graph);
    assert_eq!(run.argv, ["/bin/ash", "-ec", "x"]);
    assert_eq!((run.cwd.as_str(), run.user.as_str()), ("/work/sub", "u"));
    // The ARG is still there for the command, but not in the config.
    let names: Vec<_> = run.env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(names, ["Y=2", "PATH=/opt:/bin", "LANG=C", "X=1"]);
    assert_eq!(graph.target.config.config.env, ["PATH=/opt:/bin", "LANG=C", "X=1"]);
    // CMD of the stage below is for the ENTRYPOINT of the stage below.
    assert!(graph.target.config.config.cmd.is_empty());
    assert_eq!(
        history(&graph),
        "\
-: ENV X=1
-: ARG Y=2
-: CMD [\"a\"]
1: WORKDIR /work/sub
-: USER u
-: ENTRYPOINT [\"e\"]
2: RUN |1 Y=2 /bin/ash -ec x # buildkit
"
    );
    assert_eq!(graph.target.config.author.as_deref(), Some("someone"));
    assert_eq!(graph.target.config.created, None, "the date of the base is not that of the image");
    assert!(graph.target.config.history.is_empty(), "the history of the base comes from the base");
}

#[test]
fn nothing_at_all() {
    let graph = planned("FROM scratch\n");
    assert!(graph.steps.is_empty());
    assert_eq!((graph.target.root, graph.target.base), (RootInput::Scratch, None));
    assert_eq!(graph.target.config.config.env, ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]);
}

#[test]
fn files_come_from_stages_by_name_or_number_contexts_and_images() {
    let asked = Asked {
        contexts: &[("Dir", NamedContext::Directory), ("img", NamedContext::Image), ("nil", NamedContext::Scratch)],
        ..Asked::default()
    };
    // A named context goes before a stage, and that before an image.
    let graph = asked.plan(
        "FROM base AS other\nFROM other AS base\nRUN x\nFROM scratch\nCOPY --from=0 a /\nCOPY --from=OTHER b /\n\
         COPY --from=Dir c /\nCOPY --from=arm-only d /\nCOPY --from=nil e /\nCOPY --from=base f /\n",
    );
    assert_eq!(
        steps(&graph),
        "\
0 [other 1/1] FROM base@sha256:…
1 [base 1/1] RUN x <- 0
2 [stage-2 1/6] COPY --from=0 a / <- 0
3 [stage-2 2/6] COPY --from=OTHER b / <- 2 0
4 [context Dir] load from client
5 [stage-2 3/6] COPY --from=Dir c / <- 3 4
6 FROM arm-only@sha256:…
7 [stage-2 4/6] COPY --from=arm-only d / <- 5 6
8 [stage-2 5/6] COPY --from=nil e / <- 7
9 [stage-2 6/6] COPY --from=base f / <- 8 1
"
    );
    let Op::Copy(op) = &graph.steps[5].op else { panic!("COPY --from=Dir is a copy") };
    let from_context = CopySourceOp::Path { from: FileInput::Context(StepId(4)), pattern: "c".to_owned() };
    assert_eq!(op.sources, [from_context]);
}

#[test]
fn named_contexts_replace_images_and_whole_stages() {
    let images = Images::default();
    let asked = Asked {
        contexts: &[
            ("docker.io/library/alpine:latest", NamedContext::Image),
            ("alpine::linux/arm64", NamedContext::Directory),
            ("build", NamedContext::Directory),
        ],
        ..Asked::default()
    };
    let dockerfile = "FROM nosuch AS build\nRUN --mount=nosuch x\nONBUILD RUN y\nFROM build AS more\nRUN z\n\
                      FROM scratch\nCOPY --from=build / /a\nCOPY --from=more / /b\n";
    let graph = asked.plan_with(dockerfile, &images).unwrap();
    check(&graph);
    assert_eq!(
        steps(&graph),
        "\
0 [context build] load from client
1 [context build] load from client <- 0
2 [more 1/1] RUN z <- 1
3 [stage-2 1/2] COPY --from=build / /a <- 0
4 [stage-2 2/2] COPY --from=more / /b <- 3 2
"
    );
    assert!(images.asked.borrow().is_empty());
    // As the base of an image, a directory is one layer.
    let graph = Asked { target: Some("more"), ..asked }.plan(dockerfile);
    assert_eq!(history(&graph), "1: [context build] load from client\n2: RUN /bin/sh -c z # buildkit\n");
    assert_eq!(graph.target.base, None);
}

#[test]
fn the_context_of_the_right_platform_is_taken() {
    let contexts = [("base", NamedContext::Scratch), ("base::linux/arm64", NamedContext::Directory)];
    let asked = Asked { contexts: &contexts, ..Asked::default() };
    assert_eq!(steps(&asked.plan("FROM base:latest\n")), "");
    let graph = asked.plan("FROM --platform=linux/arm64/v8 base:latest\n");
    assert_eq!(
        steps(&graph),
        "0 [context base::linux/arm64] load from client\n1 [context base::linux/arm64] load from client <- 0\n"
    );
}

#[test]
fn images_that_are_needed_for_certain_are_asked_for_at_once() {
    let images = Images::default();
    let dockerfile = "ARG B=base\nFROM nosuch AS dead\nFROM other AS tools\nFROM $B AS build\n\
                      RUN --mount=from=tools,target=/t --mount=from=full,target=/f x\n\
                      FROM --platform=linux/arm64 base\nCOPY --from=build / /\nCOPY --from=ctx / /\nCOPY --from=ctx / /\n";
    Asked::default().plan_with(dockerfile, &images).unwrap();
    let mut prefetched = images.prefetched.borrow().clone();
    let mut asked = images.asked.borrow().clone();
    prefetched.sort();
    asked.sort();
    let want = ["base linux/amd64", "base linux/arm64", "ctx linux/amd64", "full linux/amd64", "other linux/amd64"];
    assert_eq!(prefetched, want);
    assert_eq!(asked, want, "each is asked for once");
}

#[test]
fn platforms() {
    let graph = Asked { platform: Some("linux/arm64"), ..Asked::default() }
        .plan("FROM --platform=$BUILDPLATFORM base AS build\nRUN x\nFROM base\nCOPY --from=build / /\n");
    assert_eq!(only_run(&graph).platform.to_string(), "linux/amd64");
    assert_eq!(graph.target.config.platform().to_string(), "linux/arm64");
    // Nobody asked for a platform: the image is what its base is.
    let graph = planned("FROM --platform=linux/arm/v7 base\nRUN x\n");
    assert_eq!(only_run(&graph).platform.to_string(), "linux/arm/v7");
    assert_eq!(graph.target.config.platform().to_string(), "linux/arm/v7");
    // Somebody asked for another one than the base has.
    let graph = Asked { platform: Some("linux/amd64"), ..Asked::default() }.plan("FROM arm-only\n");
    assert_eq!(graph.target.config.platform().to_string(), "linux/amd64");
    assert_eq!(planned("FROM arm-only\n").target.config.platform().to_string(), "linux/arm64");
}
