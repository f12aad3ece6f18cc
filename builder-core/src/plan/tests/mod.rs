//! Whole plans as text, against a resolver that knows a handful of images.

mod args;
mod config;
mod copy;
mod errors;
mod onbuild;
mod platforms;
mod run;
mod stages;

use std::cell::RefCell;
use std::fmt::Write as _;

use super::*;
use crate::diagnostic::SourceFile;
use crate::digest::Digest;
use crate::event::StepId;

/// Knows a few images and notes which ones it is asked for.
#[derive(Debug, Default)]
struct Images {
    asked: RefCell<Vec<String>>,
    prefetched: RefCell<Vec<String>>,
}

/// Configs of the images there are, in JSON.
fn config_of(name: &str) -> Option<&'static str> {
    Some(match name {
        "base" | "docker.io/library/base:latest" | "other" | "ctx" => r#"{"config": {"Env": ["PATH=/bin"]}}"#,
        "full" => {
            r#"{"author": "someone", "created": "2020-01-01T00:00:00Z", "history": [{"created_by": "x"}], "config": {
                "Env": ["PATH=/opt:/bin", "LANG=C"], "Cmd": ["serve"], "Entrypoint": ["/entry"], "User": "daemon",
                "WorkingDir": "/work", "Labels": {"a": "base", "b": "base"}, "Shell": ["/bin/ash", "-ec"],
                "ExposedPorts": {"80/tcp": {}}, "Healthcheck": {"Test": ["CMD", "x"], "Interval": 5000000000}}}"#
        }
        "triggers" => {
            r#"{"config": {"OnBuild": ["ARG WHO=you", "RUN echo $WHO", "COPY --from=src /a /b", "WORKDIR /w"]}}"#
        }
        "bad-trigger" => r#"{"config": {"OnBuild": ["EXPOSE http"]}}"#,
        "broken-trigger" => r#"{"config": {"OnBuild": ["FROM x"]}}"#,
        "arm-only" => r#"{"architecture": "arm64", "os": "linux", "variant": "v8", "config": {}}"#,
        _ => return None,
    })
}

impl ImageResolver for Images {
    fn prefetch(&self, images: &[(ImageName, Platform)]) {
        let shown = images.iter().map(|(name, platform)| format!("{} {platform}", plain(name)));
        self.prefetched.borrow_mut().extend(shown);
    }

    fn resolve(&self, name: &ImageName, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let name = plain(name);
        self.asked.borrow_mut().push(format!("{name} {platform}"));
        let mut config: crate::image::ImageConfig = serde_json::from_str(config_of(name).ok_or("not found")?)?;
        if config.os.is_empty() {
            config.os.clone_from(&platform.os);
            config.architecture.clone_from(&platform.architecture);
            config.variant.clone_from(&platform.variant);
        }
        let known = name.strip_prefix("docker.io/library/").and_then(|name| name.strip_suffix(":latest"));
        let digest = Digest::of(format!("{} {platform}", known.unwrap_or(name)).as_bytes());
        Ok(ResolvedImage { name: format!("{name}@sha256:…"), digest, config })
    }
}

fn plain(name: &ImageName) -> &str {
    let (ImageName::Reference(name) | ImageName::Context(name)) = name;
    name
}

/// A request for a plan of one Dockerfile, with everything at its default.
#[derive(Debug, Default)]
struct Asked<'a> {
    target: Option<&'a str>,
    args: &'a [(&'a str, &'a str)],
    labels: &'a [(&'a str, &'a str)],
    contexts: &'a [(&'a str, NamedContext)],
    platform: Option<&'a str>,
    epoch: Option<i64>,
}

impl Asked<'_> {
    fn plan_with(&self, dockerfile: &str, images: &Images) -> Result<BuildGraph, Error> {
        let owned = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
        let (args, labels): (Vec<_>, Vec<_>) = (owned(self.args), owned(self.labels));
        let contexts: Vec<_> = self.contexts.iter().map(|(name, context)| ((*name).to_owned(), *context)).collect();
        let platform = self.platform.map(|platform| platform.parse().unwrap());
        let dockerfile = Dockerfile::parse(dockerfile).expect("the Dockerfile of a test is well-formed");
        let request = PlanRequest {
            dockerfile: &dockerfile,
            target: self.target,
            build_args: &args,
            labels: &labels,
            contexts: &contexts,
            platform: platform.as_ref(),
            build_platform: &"linux/amd64".parse().unwrap(),
            source_date_epoch: self.epoch,
        };
        plan(&request, images)
    }

    fn plan(&self, dockerfile: &str) -> BuildGraph {
        match self.plan_with(dockerfile, &Images::default()) {
            Ok(graph) => {
                check(&graph);
                graph
            }
            Err(error) => panic!("{}", report(&error, dockerfile)),
        }
    }

    /// Returns the error and what it points at.
    fn error(&self, dockerfile: &str) -> String {
        match self.plan_with(dockerfile, &Images::default()) {
            Ok(graph) => panic!("planned:\n{}", steps(&graph)),
            Err(error) => report(&error, dockerfile),
        }
    }
}

fn planned(dockerfile: &str) -> BuildGraph {
    Asked::default().plan(dockerfile)
}

/// What holds for every plan.
fn check(graph: &BuildGraph) {
    for (number, step) in graph.steps.iter().enumerate() {
        assert_eq!(step.id(), StepId(number), "steps are numbered in order");
        assert!(step.op.inputs().iter().all(|input| input.0 < number), "inputs of {number} stand before it");
    }
    let mut needed: Vec<StepId> = graph.target.root.step().into_iter().collect();
    let mut next = 0;
    while let Some(&step) = needed.get(next) {
        needed.extend(
            graph.step(step).op.inputs().into_iter().filter(|input| !needed.contains(input)).collect::<Vec<_>>(),
        );
        next += 1;
    }
    assert_eq!(needed.len(), graph.steps.len(), "nothing is planned that the target does not need");
    for entry in graph.target.history.iter().filter_map(|entry| entry.layer) {
        assert!(needed.contains(&entry), "every layer of the history is a step");
    }
}

/// Renders what an error says, one diagnostic after another.
fn report(error: &Error, dockerfile: &str) -> String {
    let source = SourceFile::new("Dockerfile", dockerfile);
    match error {
        Error::Dockerfile { diagnostics } => diagnostics.iter().map(|diagnostic| diagnostic.render(&source)).collect(),
        Error::Resolve { diagnostic, source: cause } => format!("{}cause: {cause}\n", diagnostic.render(&source)),
    }
}

fn warnings(graph: &BuildGraph, dockerfile: &str) -> String {
    let source = SourceFile::new("Dockerfile", dockerfile);
    graph.warnings.iter().map(|warning| warning.render(&source)).collect()
}

/// Shows every step: name, inputs, and what is not at its default.
fn steps(graph: &BuildGraph) -> String {
    let mut out = String::new();
    for step in &graph.steps {
        let inputs: Vec<String> = step.op.inputs().iter().map(|input| input.0.to_string()).collect();
        let inputs = if inputs.is_empty() { String::new() } else { format!(" <- {}", inputs.join(" ")) };
        writeln!(out, "{} {}{inputs}", step.info.step.0, step.info.name).unwrap();
    }
    out
}

/// Shows the history, each layer with its step.
fn history(graph: &BuildGraph) -> String {
    let mut out = String::new();
    for entry in &graph.target.history {
        match entry.layer {
            Some(step) => writeln!(out, "{}: {}", step.0, entry.created_by).unwrap(),
            None => writeln!(out, "-: {}", entry.created_by).unwrap(),
        }
    }
    out
}

/// Returns the config as JSON without `PATH`, `ArgsEscaped` and the platform.
fn config(graph: &BuildGraph) -> String {
    let mut config = graph.target.config.clone();
    config.config.env.retain(|pair| !pair.starts_with("PATH="));
    config.config.args_escaped = false;
    let mut text = serde_json::to_string(&config.config).unwrap();
    if let Some(author) = config.author {
        text = format!("{author} {text}");
    }
    text
}

/// Returns the only `RUN`.
fn only_run(graph: &BuildGraph) -> &RunOp {
    let mut runs = graph.steps.iter().filter_map(|step| match &step.op {
        Op::Run(op) => Some(&**op),
        _ => None,
    });
    let run = runs.next().expect("there is a RUN");
    assert!(runs.next().is_none(), "there is one RUN");
    run
}

/// Returns the last `COPY` or `ADD`.
fn last_copy(graph: &BuildGraph) -> &CopyOp {
    let mut copies = graph.steps.iter().rev().filter_map(|step| match &step.op {
        Op::Copy(op) => Some(&**op),
        _ => None,
    });
    copies.next().expect("there is a COPY")
}
