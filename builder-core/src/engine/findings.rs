//! What rules say of the Dockerfile of a build: told before the first step, and the end of the build where it asks for
//! that.

use std::path::Path;

use super::build::Events;
use super::contexts::Main;
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::dockerfile::Parsed;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::image::{ImageConfig, Platform};
use crate::lint::{self, Finding, Linter, Options, Origin};
use crate::plan::{Bases, BuildGraph, Extent, ImageName, Op, PlanRequest, Subject, Survey};
use crate::registry::Reference;
use crate::request::{BuildRequest, ContextSource};
use crate::tree::pattern::PatternSet;
use crate::worker;

/// A Dockerfile with what is known of it.
pub(super) struct Known<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) main: &'a Main<'a>,
    pub(super) source: &'a SourceFile,
    pub(super) parsed: &'a Parsed,
    pub(super) plan: &'a PlanRequest<'a>,
    pub(super) graph: &'a BuildGraph,
}

/// The images of a plan.
struct Planned<'a>(&'a BuildGraph);

impl Bases for Planned<'_> {
    fn config(&self, name: &ImageName, platform: &Platform) -> Option<ImageConfig> {
        let images = self.0.steps.iter().filter_map(|step| match &step.op {
            Op::Image(source) => Some(source),
            _ => None,
        });
        let mut of_name = images.filter(|source| source.name == *name && source.platform == *platform);
        of_name.next().map(|source| source.image.config.clone())
    }

    fn is_name(&self, text: &str) -> bool {
        text.parse::<Reference>().is_ok()
    }
}

/// Tells what rules find, and what else is odd.
///
/// # Errors
/// The Dockerfile, or the build arg in place of its directive, says what cannot be understood, or wants no findings.
pub(super) fn tell(known: &Known<'_>, events: Events<'_>) -> Result<(), Error> {
    let given = lint::from_build_args(&known.request.build_args);
    let given = given.map_err(|why| Error::new(ErrorKind::Request, why))?;
    let options = Options::of(&known.parsed.dockerfile, given);
    let options = options.map_err(|error| Error::of_dockerfile(&[*error], known.source))?;
    // A file that cannot be read is an error where the context is used.
    let ignore = ignore_rules(known).ok().flatten();
    let mut linter = Linter::new(&options, known.source);
    let warnings = known.parsed.warnings.iter().chain(&known.graph.warnings).cloned().collect();
    for warning in lint::check_text(&known.parsed.dockerfile, warnings, &mut linter) {
        let message = warning.render(known.source);
        events(Event::Warning { code: warning.code.to_string(), message });
    }
    let bases = Planned(known.graph);
    let directory = directory(known.request);
    let selects = worker::selects;
    let subject = Subject { request: known.plan, ignore: ignore.as_ref(), directory, selects, bases: &bases };
    let survey = Survey::new(subject, linter);
    let survey = survey.map_err(|problem| Error::of_dockerfile(&[*problem], known.source))?;
    let findings = survey.findings(Extent::Target);
    for finding in &findings {
        events(event(finding, known.source));
    }
    match options.is_strict() {
        true => refuse(&findings, known.source),
        false => Ok(()),
    }
}

/// Tells what rules find in the text of a Dockerfile that cannot be built; what is wrong with it is told by others.
pub(super) fn tell_text(request: &BuildRequest, source: &SourceFile, parsed: &Parsed, events: Events<'_>) {
    let given = lint::from_build_args(&request.build_args).ok().flatten();
    let Ok(options) = Options::of(&parsed.dockerfile, given) else { return };
    let mut linter = Linter::new(&options, source);
    lint::check_text(&parsed.dockerfile, parsed.warnings.clone(), &mut linter);
    for finding in linter.finish(vec![]) {
        events(event(&finding, source));
    }
}

fn directory(request: &BuildRequest) -> Option<&Path> {
    match &request.context {
        ContextSource::Directory(dir) => Some(dir),
        _ => None,
    }
}

fn ignore_rules(known: &Known<'_>) -> Result<Option<PatternSet>, Error> {
    let Some(dir) = directory(known.request) else { return Ok(None) };
    worker::ignore_rules(dir, known.main.dockerfile.ignore.as_ref())
}

fn event(finding: &Finding, source: &SourceFile) -> Event {
    Event::Finding {
        rule: finding.rule.name.to_owned(),
        message: finding.diagnostic.message.clone(),
        line: finding.lines.0,
        text: finding.diagnostic.render(source),
    }
}

/// `error=true`: findings of BuildKit's rules end the build. Those of others do not, for what builds there builds here.
fn refuse(findings: &[Finding], source: &SourceFile) -> Result<(), Error> {
    let counting = || findings.iter().filter(|finding| finding.rule.origin == Origin::BuildKit);
    let mut names: Vec<&str> = counting().map(|finding| finding.rule.name).collect();
    names.sort_unstable();
    names.dedup();
    if names.is_empty() {
        return Ok(());
    }
    let message = format!("lint violation found for rules: {}", names.join(", "));
    let error = Error::new(ErrorKind::Dockerfile, message.clone());
    let note = Diagnostic::error("lint-violation", message)
        .with_note("error=true in a check directive makes findings end the build")
        .with_hint(format!("mend them, or leave rules out: # check=skip={}", names.join(",")));
    Err(error.diagnostic(note.render(source)))
}
