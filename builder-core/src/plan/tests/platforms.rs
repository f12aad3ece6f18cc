//! Plans for several platforms as one graph.

use super::*;

/// Plans for each of `platforms` and merges the plans.
fn merged(platforms: &[&str], dockerfile: &str) -> BuildGraph {
    let plan = |platform: &&str| {
        let asked = Asked { platform: Some(platform), ..Asked::default() };
        (platform.parse().unwrap(), asked.plan(dockerfile))
    };
    let graph = merge(platforms.iter().map(plan).collect()).unwrap();
    for (number, step) in graph.steps.iter().enumerate() {
        assert_eq!(step.id(), StepId(number), "steps are numbered in order");
        assert!(step.op.inputs().iter().all(|input| input.0 < number), "inputs of {number} stand before it");
    }
    graph
}

#[test]
fn what_does_not_depend_on_the_platform_is_one_step() {
    let dockerfile = "\
FROM --platform=$BUILDPLATFORM base AS build\nRUN prepare\nARG TARGETARCH\nRUN make\n\
FROM base\nCOPY --from=build /app /app\n";
    let graph = merged(&["linux/arm64", "linux/riscv64"], dockerfile);
    assert_eq!(
        steps(&graph),
        "\
0 [build 1/3] FROM base@sha256:…
1 [build 2/3] RUN prepare <- 0
2 [linux/arm64 build 3/3] RUN make <- 1
3 [linux/arm64 stage-1 1/2] FROM base@sha256:…
4 [linux/arm64 stage-1 2/2] COPY --from=build /app /app <- 3 2
5 [linux/riscv64 build 3/3] RUN make <- 1
6 [linux/riscv64 stage-1 1/2] FROM base@sha256:…
7 [linux/riscv64 stage-1 2/2] COPY --from=build /app /app <- 6 5
"
    );
    let roots: Vec<_> = graph.targets().map(|target| target.root).collect();
    assert_eq!(roots, [RootInput::Step(StepId(4)), RootInput::Step(StepId(7))]);
    let bases: Vec<_> = graph.targets().map(|target| target.base).collect();
    assert_eq!(bases, [Some(StepId(3)), Some(StepId(6))]);
    let layers = graph.targets().map(|target| target.history.iter().filter_map(|entry| entry.layer).collect());
    assert_eq!(layers.collect::<Vec<Vec<_>>>(), [vec![StepId(4)], vec![StepId(7)]]);
    let shown: Vec<_> = graph.targets().map(|target| target.config.platform().to_string()).collect();
    assert_eq!(shown, ["linux/arm64", "linux/riscv64"]);
}

#[test]
fn files_alone_are_the_same_for_everyone() {
    let graph = merged(&["linux/amd64", "linux/arm/v7"], "FROM scratch\nCOPY . /\n");
    assert_eq!(steps(&graph), "0 [internal] load build context\n1 [1/1] COPY . / <- 0\n");
    let roots: Vec<_> = graph.targets().map(|target| target.root).collect();
    assert_eq!(roots, [RootInput::Step(StepId(1)); 2], "one layer, two configs");
    let variants: Vec<_> = graph.targets().map(|target| target.config.variant.clone()).collect();
    assert_eq!(variants, [None, Some("v7".to_owned())]);
}

#[test]
fn a_warning_is_told_once() {
    let asked = |platform| Asked { platform: Some(platform), args: &[("NONE", "x")], ..Asked::default() };
    let plans = ["linux/amd64", "linux/arm64"].map(|platform| {
        let plan = asked(platform).plan("FROM scratch\nCOPY . /\n");
        assert_eq!(plan.warnings.len(), 1);
        (platform.parse().unwrap(), plan)
    });
    assert_eq!(merge(plans.into()).unwrap().warnings.len(), 1);
    assert!(merge(Vec::new()).is_none());
}

#[test]
fn one_platform_is_left_as_it_is() {
    let alone = Asked { platform: Some("linux/arm64"), ..Asked::default() }.plan("FROM base\nRUN x\n");
    let graph = merge(vec![("linux/arm64".parse().unwrap(), alone)]).unwrap();
    assert_eq!(steps(&graph), "0 [1/2] FROM base@sha256:…\n1 [2/2] RUN x <- 0\n");
}
