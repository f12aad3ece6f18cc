//! ARG, ENV and who sees them.

use super::*;

/// Plans `FROM scratch` with `lines` and returns the value of the label `x`.
fn label(asked: &Asked<'_>, dockerfile: &str) -> String {
    asked.plan(dockerfile).target.config.config.labels["x"].clone()
}

#[test]
fn precedence() {
    let given: &[(&str, &str)] = &[("A", "given")];
    for (args, dockerfile, want) in [
        (&[][..], "FROM scratch\nLABEL x=$A", ""),
        (&[], "FROM scratch\nARG A\nLABEL x=$A", ""),
        (&[], "FROM scratch\nARG A=default\nLABEL x=$A", "default"),
        (given, "FROM scratch\nARG A=default\nLABEL x=$A", "given"),
        (given, "FROM scratch\nARG A\nLABEL x=$A", "given"),
        (given, "FROM scratch\nLABEL x=$A\nARG A", ""),
        (&[("A", "")], "FROM scratch\nARG A=default\nLABEL x=${A-unset}", ""),
        (&[("A", "1"), ("A", "2")], "FROM scratch\nARG A\nLABEL x=$A", "2"),
        // The global scope is seen by FROM and by a bare ARG.
        (&[], "ARG A=global\nFROM scratch\nLABEL x=$A", ""),
        (&[], "ARG A=global\nFROM scratch\nARG A\nLABEL x=$A", "global"),
        (&[], "ARG A=global\nFROM scratch\nARG A=stage\nLABEL x=$A", "stage"),
        (given, "ARG A=global\nFROM scratch\nARG A\nLABEL x=$A", "given"),
        (&[], "ARG A=1\nARG B=$A-2\nFROM scratch\nARG B\nLABEL x=$B", "1-2"),
        (given, "ARG A=1\nARG B=$A-2\nFROM scratch\nARG B\nLABEL x=$B", "given-2"),
        (given, "ARG B=$A-2\nFROM scratch\nARG B\nLABEL x=$B", "-2"),
        // The last of ARG and ENV wins.
        (&[], "FROM scratch\nENV A=env\nARG A=arg\nLABEL x=$A", "arg"),
        (&[], "FROM scratch\nARG A=arg\nENV A=env\nLABEL x=$A", "env"),
        (&[], "FROM scratch\nENV A=env\nARG A\nLABEL x=$A", "env"),
        (given, "FROM scratch\nENV A=env\nARG A\nLABEL x=$A", "given"),
        // A line sees what was there before it, but a default sees its line.
        (&[], "FROM scratch\nENV A=1\nENV A=2 B=$A\nLABEL x=$B", "1"),
        (&[], "FROM scratch\nARG A=1 B=$A-2\nLABEL x=$B", "1-2"),
        // Stages hand their ARGs down, siblings do not.
        (&[], "FROM scratch AS a\nARG A=1\nFROM a\nLABEL x=$A", "1"),
        (&[], "FROM scratch AS a\nARG A=1\nFROM scratch\nLABEL x=$A", ""),
        (&[], "FROM scratch AS a\nENV A=1\nARG A=2\nFROM a\nLABEL x=$A", "1"),
    ] {
        assert_eq!(label(&Asked { args, ..Asked::default() }, dockerfile), want, "{args:?} {dockerfile}");
    }
}

#[test]
fn env_of_the_config_keeps_its_order_and_knows_no_arg() {
    let graph = planned("FROM full\nENV LANG=D\nARG A=1\nENV B=2 C=$A\nARG B=3\nENV PATH=$PATH:/x\nRUN x\n");
    assert_eq!(graph.target.config.config.env, ["PATH=/opt:/bin:/x", "LANG=D", "B=2", "C=1"]);
    let env: Vec<_> = only_run(&graph).env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(env, ["LANG=D", "A=1", "C=1", "B=3", "PATH=/opt:/bin:/x"]);
    let last = graph.target.history.last().unwrap();
    assert_eq!(last.created_by, "RUN |2 A=1 B=3 /bin/ash -ec x # buildkit");
}

#[test]
fn predefined_args_of_platforms() {
    let dockerfile = "FROM --platform=linux/386 base\n\
        ARG TARGETPLATFORM TARGETOS TARGETARCH TARGETVARIANT TARGETSTAGE BUILDPLATFORM BUILDARCH BUILDVARIANT\n";
    let said = |asked: &Asked<'_>| history(&asked.plan(dockerfile));
    assert_eq!(
        said(&Asked { platform: Some("linux/arm/v6"), ..Asked::default() }),
        "-: ARG TARGETPLATFORM=linux/arm/v6 TARGETOS=linux TARGETARCH=arm TARGETVARIANT=v6 TARGETSTAGE=default \
         BUILDPLATFORM=linux/amd64 BUILDARCH=amd64 BUILDVARIANT=\n"
    );
    assert_eq!(
        said(&Asked { args: &[("TARGETARCH", "mine")], target: Some("0"), ..Asked::default() }),
        "-: ARG TARGETPLATFORM=linux/amd64 TARGETOS=linux TARGETARCH=mine TARGETVARIANT= TARGETSTAGE=0 \
         BUILDPLATFORM=linux/amd64 BUILDARCH=amd64 BUILDVARIANT=\n"
    );
    let named = planned("FROM scratch AS a\nFROM scratch AS last\nARG TARGETSTAGE\n");
    assert_eq!(history(&named), "-: ARG TARGETSTAGE=last\n");
}

#[test]
fn proxies_reach_commands_but_neither_history_nor_env() {
    let asked = Asked { args: &[("http_proxy", "h"), ("NO_PROXY", "n"), ("FTP_PROXY", "")], ..Asked::default() };
    let graph = asked.plan("FROM base\nRUN x\n");
    let run = only_run(&graph);
    let pairs: Vec<_> = run.proxy_env.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(pairs, ["HTTP_PROXY=h", "http_proxy=h", "NO_PROXY=n", "no_proxy=n"]);
    assert_eq!(run.env, [("PATH".to_owned(), "/bin".to_owned())]);
    assert_eq!(history(&graph), "1: RUN /bin/sh -c x # buildkit\n");
    let graph = asked.plan("FROM base\nARG http_proxy\nRUN x\n");
    assert_eq!(history(&graph), "-: ARG http_proxy=h\n1: RUN |1 http_proxy=h /bin/sh -c x # buildkit\n");
}

#[test]
fn args_without_a_value_are_in_the_history_alone() {
    let graph = planned("FROM base\nARG A B=\nRUN x\n");
    assert_eq!(history(&graph), "-: ARG A B=\n1: RUN |2 A= B= /bin/sh -c x # buildkit\n");
    let names: Vec<_> = only_run(&graph).env.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["PATH", "B"]);
}

#[test]
fn args_for_the_builder_stay_out_of_the_environment() {
    let asked = Asked {
        args: &[("BUILDKIT_SBOM_SCAN_STAGE", "true"), ("BUILDKIT_SANDBOX_HOSTNAME", "me")],
        ..Asked::default()
    };
    let graph = asked.plan("FROM base\nARG BUILDKIT_SBOM_SCAN_STAGE\nRUN x\n");
    let run = only_run(&graph);
    assert_eq!(run.env.len(), 1);
    assert_eq!(run.hostname, "me");
    assert!(graph.warnings.is_empty());
    assert_eq!(only_run(&planned("FROM base\nRUN x\n")).hostname, "buildkitsandbox");
}

#[test]
fn from_expands_global_args() {
    let graph = Asked { args: &[("NAME", "full")], ..Asked::default() }
        .plan("ARG NAME=base\nARG STAGE=s\nFROM ${NAME} AS s\nFROM $STAGE\n");
    assert_eq!(steps(&graph), "0 [s 1/1] FROM full@sha256:…\n");
}

#[test]
fn variables_name_stages_and_contexts() {
    let graph = Asked { args: &[("WHICH", "b")], ..Asked::default() }.plan(
        "FROM base AS a\nRUN a\nFROM base AS b\nRUN b\nFROM scratch\nARG WHICH=a\nCOPY --from=$WHICH / /\n\
         RUN --mount=from=base,target=/m --mount=type=cache,from=0,target=/c x\n",
    );
    assert_eq!(
        steps(&graph),
        "\
0 [a 1/2] FROM base@sha256:…
1 [a 2/2] RUN a <- 0
2 [b 1/1] RUN b <- 0
3 [stage-2 1/2] COPY --from=b / / <- 2
4 [stage-2 2/2] RUN --mount=from=base,target=/m --mount=type=cache,from=0,target=/c x <- 3 0 1
"
    );
}

#[test]
fn build_args_that_nobody_declares() {
    let args: &[(&str, &str)] =
        &[("VERSON", "1"), ("USED", "1"), ("HTTP_PROXY", "x"), ("TARGETARCH", "x"), ("TRIG", "1")];
    let dockerfile = "ARG VERSION\nFROM base AS dead\nARG USED\nFROM base\nONBUILD ARG TRIG\n";
    let graph = Asked { args, ..Asked::default() }.plan(dockerfile);
    assert_eq!(
        warnings(&graph, dockerfile),
        "\
warning[unused-build-arg]: no ARG declares the build arg \"VERSON\"
  = hint: did you mean \"VERSION\"?
"
    );
}

#[test]
fn source_date_epoch() {
    let dockerfile = "FROM base\nARG SOURCE_DATE_EPOCH\nRUN x\n";
    let shown = |asked: &Asked<'_>, dockerfile: &str| {
        let graph = asked.plan(dockerfile);
        (graph.target.source_date_epoch, graph.target.history[0].created_by.clone())
    };
    let given = Asked { args: &[("SOURCE_DATE_EPOCH", "7")], epoch: Some(9), ..Asked::default() };
    assert_eq!(shown(&given, dockerfile), (Some(7), "ARG SOURCE_DATE_EPOCH=7".to_owned()));
    let field = Asked { epoch: Some(9), ..Asked::default() };
    assert_eq!(shown(&field, dockerfile), (Some(9), "ARG SOURCE_DATE_EPOCH=9".to_owned()));
    assert_eq!(shown(&Asked::default(), dockerfile), (None, "ARG SOURCE_DATE_EPOCH".to_owned()));
    let global = format!("ARG SOURCE_DATE_EPOCH=5\n{dockerfile}");
    assert_eq!(shown(&Asked::default(), &global), (Some(5), "ARG SOURCE_DATE_EPOCH=5".to_owned()));
    // Empty takes it back, and a local context has no date.
    for value in ["", "context", "files"] {
        let contexts = [("files", NamedContext::Directory)];
        let args = [("SOURCE_DATE_EPOCH", value)];
        let asked = Asked { args: &args, contexts: &contexts, ..Asked::default() };
        assert_eq!(shown(&asked, &global), (None, "ARG SOURCE_DATE_EPOCH".to_owned()), "{value:?}");
    }
}
