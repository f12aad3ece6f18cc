//! Dockerfiles checked, outlined and listed without building anything: in the caller's own process, without namespaces
//! and without a registry.
//!
//! A check tells everything that a build would refuse before its first step, of all stages unless one is asked for, and
//! what rules find. Base images are known as far as the store has them; what depends on one that is not there is left
//! out, and said to be.

mod json;
mod offline;
mod sarif;
mod targets;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use crate::diagnostic::{Diagnostic, SourceFile};
use crate::dockerfile::{Dockerfile, Instruction, InstructionKind, Recovered};
use crate::error::{Error, ErrorKind, Result};
use crate::lint::{self, Finding, Linter, Options};
use crate::plan::{self, Extent, Inputs, Outline, PlanRequest, Problem, Subject, Survey, UnknownBase};
use crate::request::{BuildRequest, ContextSource};
use crate::tree::pattern::PatternSet;
use crate::worker::{self, Images};
use offline::Offline;
pub use targets::Target;

/// What a check of a Dockerfile came to.
#[derive(Debug, Clone)]
pub struct CheckReport {
    source: SourceFile,
    findings: Vec<Finding>,
    errors: Vec<Diagnostic>,
    unknown_bases: Vec<UnknownBase>,
}

impl CheckReport {
    /// The Dockerfile that spans point into.
    pub fn source(&self) -> &SourceFile {
        &self.source
    }

    /// What rules found, in the order of the source.
    pub fn findings(&self) -> &[Finding] {
        &self.findings
    }

    /// What a build would fail at before its first step.
    pub fn errors(&self) -> &[Diagnostic] {
        &self.errors
    }

    /// Base images that nobody has looked up, with the lines that name them: what depends on them was not checked.
    pub fn unknown_bases(&self) -> impl Iterator<Item = (&str, usize)> {
        self.unknown_bases.iter().map(|base| (base.name.as_str(), base.line))
    }

    /// Whether there is nothing to say.
    pub fn is_clean(&self) -> bool {
        self.findings.is_empty() && self.errors.is_empty()
    }

    /// For a person: every problem with the lines it is about, and a summary.
    pub fn to_text(&self) -> String {
        text::report(self)
    }

    /// In the form of BuildKit's lint results.
    pub fn to_json(&self) -> serde_json::Value {
        json::report(self)
    }

    /// As SARIF 2.1.0, for tools that show the results of analyses.
    pub fn to_sarif(&self) -> serde_json::Value {
        sarif::report(self)
    }
}

/// A build request taken apart for a look at its Dockerfile.
struct Asked<'a> {
    inputs: Inputs<'a>,
    source: SourceFile,
    ignore: Option<PatternSet>,
    /// Why there are no ignore rules although there is a file of them.
    ignore_error: Option<Diagnostic>,
    /// The main context, if it is of this machine.
    directory: Option<&'a Path>,
}

impl<'a> Asked<'a> {
    fn new(request: &'a BuildRequest) -> Result<Self> {
        if request.dockerfile_in_context.is_some() {
            let text = "only a Dockerfile of this machine can be looked at without a build";
            let error = Error::new(ErrorKind::Request, text);
            return Err(error.hint("give a directory as the context, or the Dockerfile with -f"));
        }
        let inputs = Inputs::of(request).map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
        let source = SourceFile::new(request.dockerfile.name.clone(), request.dockerfile.text.clone());
        let directory = match &request.context {
            ContextSource::Directory(dir) => Some(dir.as_path()),
            _ => None,
        };
        let rules = |dir| worker::ignore_rules(dir, request.dockerfile.ignore.as_ref());
        let (ignore, ignore_error) = match directory.map(rules).transpose() {
            Ok(ignore) => (ignore.flatten(), None),
            Err(error) => (None, Some(Diagnostic::error("ignore-file", error.to_string()))),
        };
        Ok(Self { inputs, source, ignore, ignore_error, directory })
    }

    /// Looks at the stages of the Dockerfile.
    fn survey<'b>(
        &'b self,
        plan: &'b PlanRequest<'b>,
        bases: &'b Offline<'_>,
        linter: Linter<'b>,
    ) -> std::result::Result<Survey<'b>, Problem> {
        let (ignore, directory, selects) = (self.ignore.as_ref(), self.directory, worker::selects);
        Survey::new(Subject { request: plan, ignore, directory, selects, bases }, linter)
    }

    /// Parses the Dockerfile, which must have no errors.
    fn dockerfile(&self) -> Result<Dockerfile> {
        Dockerfile::parse(self.source.text()).map_err(|errors| Error::of_dockerfile(&errors, &self.source))
    }
}

/// Checks the Dockerfile of `request`; `images` are those of the store, if there is one.
pub(crate) fn check(request: &BuildRequest, images: Option<&Images>) -> Result<CheckReport> {
    let asked = Asked::new(request)?;
    let given = lint::from_build_args(&request.build_args).map_err(|why| Error::new(ErrorKind::Request, why))?;
    let Recovered { dockerfile, diagnostics } = Dockerfile::recover(asked.source.text());
    let (mut errors, mut warnings): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(Diagnostic::is_error);
    let is_readable = errors.is_empty();
    errors.extend(asked.ignore_error.clone());
    let options = Options::of(&dockerfile, given).unwrap_or_else(|error| {
        errors.push(*error);
        Options::default()
    });
    let plan_request = asked.inputs.request(&dockerfile);
    let offline = Offline::new(images);
    if is_readable {
        planned(&plan_request, &offline, &asked.source, &mut errors, &mut warnings);
    }
    let mut linter = Linter::new(&options, &asked.source);
    lint::check_text(&dockerfile, warnings, &mut linter);
    let extent = if request.target.is_some() { Extent::Target } else { Extent::AllStages };
    let (mut findings, mut unknown_bases) = (vec![], vec![]);
    if !is_readable {
        findings = linter.finish(vec![]);
    } else if let Ok(survey) = asked.survey(&plan_request, &offline, linter) {
        unknown_bases = survey.unknown_bases(extent);
        findings = survey.findings(extent);
    }
    errors.sort_by_key(|error| error.primary.as_ref().map(|label| label.span.start));
    Ok(CheckReport { source: asked.source, findings, errors, unknown_bases })
}

/// Plans every stage that counts, and collects what is wrong with them.
fn planned(
    request: &PlanRequest<'_>,
    offline: &Offline<'_>,
    source: &SourceFile,
    errors: &mut Vec<Diagnostic>,
    warnings: &mut Vec<Diagnostic>,
) {
    let is_from = |instruction: &&Instruction| matches!(instruction.kind, InstructionKind::From { .. });
    let stages = request.dockerfile.instructions.iter().filter(is_from).count();
    let numbers: Vec<String> = (0..stages.saturating_sub(1)).map(|number| number.to_string()).collect();
    let targets: Vec<Option<&str>> = match request.target {
        Some(target) => vec![Some(target)],
        // The last stage is asked for in the way that a build does.
        None => numbers.iter().map(|number| Some(number.as_str())).chain([None]).collect(),
    };
    for target in targets {
        let (found, odd) = match plan::plan(&PlanRequest { target, ..*request }, offline) {
            Ok(graph) => (vec![], graph.warnings),
            Err(plan::Error::Dockerfile { diagnostics }) => (diagnostics, vec![]),
            Err(plan::Error::Resolve { diagnostic, source }) => {
                (vec![diagnostic.with_note(source.to_string())], vec![])
            }
        };
        let found = found.into_iter().filter(|error| offline.is_certain(error, source));
        for error in found.filter(Diagnostic::is_error) {
            if !errors.contains(&error) {
                errors.push(error);
            }
        }
        for warning in odd {
            if !warnings.contains(&warning) {
                warnings.push(warning);
            }
        }
    }
}

/// Tells what a build of the target can be given.
pub(crate) fn outline(request: &BuildRequest, images: Option<&Images>) -> Result<(Outline, SourceFile)> {
    let asked = Asked::new(request)?;
    let dockerfile = asked.dockerfile()?;
    let plan_request = asked.inputs.request(&dockerfile);
    let offline = Offline::new(images);
    let options = Options::default();
    let linter = Linter::new(&options, &asked.source);
    let survey = asked.survey(&plan_request, &offline, linter);
    let outline = survey.map_err(|problem| Error::of_dockerfile(&[*problem], &asked.source))?.outline();
    Ok((outline, asked.source))
}

/// Lists the stages that can be built.
pub(crate) fn targets(request: &BuildRequest) -> Result<(Vec<Target>, SourceFile)> {
    let asked = Asked::new(request)?;
    let dockerfile = asked.dockerfile()?;
    Ok((Target::list(&dockerfile), asked.source))
}
