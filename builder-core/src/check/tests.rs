//! Dockerfiles and what is found in them, by rule and line; whole reports are in `testdata/check`.

mod golden;
mod outlines;
mod rules;

use super::*;
use crate::request::DockerfileSource;

/// A Dockerfile with everything at its default, and no files.
fn request(dockerfile: &str) -> BuildRequest {
    let source = DockerfileSource { name: "Dockerfile".to_owned(), text: dockerfile.to_owned(), ignore: None };
    BuildRequest::new(source, ContextSource::Empty)
}

fn checked(dockerfile: &str) -> CheckReport {
    check(&request(dockerfile), None).expect("the request makes sense")
}

/// Rule and line of everything that was found.
fn found(report: &CheckReport) -> Vec<(&'static str, usize)> {
    report.findings().iter().map(|finding| (finding.rule.name, finding.lines.0)).collect()
}
