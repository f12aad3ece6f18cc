//! Triggers, from images and from stages.

use super::*;

#[test]
fn triggers_of_the_base_image_come_first_and_are_gone() {
    let dockerfile = "FROM base AS src\nRUN make\nFROM triggers\nRUN after\n";
    let graph = Asked { args: &[("WHO", "me")], ..Asked::default() }.plan(dockerfile);
    assert_eq!(
        steps(&graph),
        "\
0 [src 1/2] FROM base@sha256:…
1 [src 2/2] RUN make <- 0
2 [stage-1 1/5] FROM triggers@sha256:…
3 [stage-1 2/5] ONBUILD RUN echo me <- 2
4 [stage-1 3/5] ONBUILD COPY --from=src /a /b <- 3 1
5 [stage-1 4/5] ONBUILD WORKDIR /w <- 4
6 [stage-1 5/5] RUN after <- 5
"
    );
    assert_eq!(
        history(&graph),
        "\
-: ARG WHO=me
3: RUN |1 WHO=me /bin/sh -c echo $WHO # buildkit
4: COPY /a /b # buildkit
5: WORKDIR /w
6: RUN |1 WHO=me /bin/sh -c after # buildkit
"
    );
    assert!(graph.target.config.config.on_build.is_empty());
    assert!(graph.warnings.is_empty(), "a trigger declares the build arg");
    let lines: Vec<_> = graph.steps.iter().map(|step| step.info.line).collect();
    assert_eq!(lines, [Some(1), Some(2), Some(3), Some(3), Some(3), Some(3), Some(4)]);
    assert_eq!(graph.steps[3].span.map(|span| &dockerfile[span.range()]), Some("triggers"));
}

#[test]
fn triggers_of_a_stage_are_for_its_children_alone() {
    let dockerfile = "FROM base AS a\nONBUILD RUN trig\nONBUILD ENV X=1\nFROM a AS b\nLABEL x=$X\nFROM b\nRUN last\n";
    let graph = planned(dockerfile);
    assert_eq!(
        history(&graph),
        "\
1: RUN /bin/sh -c trig # buildkit
-: ENV X=1
-: LABEL x=1
2: RUN /bin/sh -c last # buildkit
"
    );
    let a = Asked { target: Some("a"), ..Asked::default() }.plan(dockerfile);
    assert_eq!(a.target.config.config.on_build, ["RUN trig", "ENV X=1"]);
    assert!(graph.target.config.config.on_build.is_empty());
}

#[test]
fn problems_of_a_trigger_are_told_at_the_from() {
    assert_eq!(
        Asked::default().error("FROM bad-trigger\n"),
        "\
error[expose-invalid]: invalid port \"http\": \"http\" is not a port or a range of ports
 --> Dockerfile:1:6
  |
1 | FROM bad-trigger
  |      ^^^^^^^^^^^
  = note: in the trigger \"EXPOSE http\" of this image
  = hint: write PORT[-PORT][/tcp|/udp|/sctp]
"
    );
    let error = Asked::default().error("FROM broken-trigger\n");
    assert!(error.contains("--> Dockerfile:1:6") && error.contains("in the trigger \"FROM x\""), "{error}");
    let error = Asked::default().error("FROM triggers\n");
    assert!(
        error.contains("the image \"src\"") && error.contains("in the trigger \"COPY --from=src /a /b\""),
        "{error}"
    );
}
