//! Collects findings and leaves out those that nobody wants.

use super::options::{self, Options};
use super::{Finding, Rule};
use crate::diagnostic::{Diagnostic, SourceFile, Span};
use crate::dockerfile::Instruction;

/// Takes what rules report.
#[derive(Debug)]
pub(crate) struct Linter<'a> {
    /// What the file, or the request, wants.
    options: &'a Options,
    source: &'a SourceFile,
    findings: Vec<Finding>,
}

impl<'a> Linter<'a> {
    /// Starts without findings.
    pub(crate) fn new(options: &'a Options, source: &'a SourceFile) -> Self {
        Self { options, source, findings: vec![] }
    }

    /// Returns the source as written.
    pub(crate) fn text(&self, span: Span) -> &'a str {
        self.source.text().get(span.range()).unwrap_or_default()
    }

    /// Reports something about `instruction`, at `span` in it, unless the options or a comment above it say otherwise.
    pub(crate) fn report(&mut self, rule: &'static Rule, instruction: &Instruction, span: Span, message: String) {
        self.report_as(rule, instruction, Diagnostic::warning(rule.name, message).at(span));
    }

    /// The same with notes, hints and further places.
    pub(crate) fn report_as(&mut self, rule: &'static Rule, instruction: &Instruction, diagnostic: Diagnostic) {
        let own = options::of_comments(&instruction.comments);
        if !self.options.wants(rule, own.as_ref()) {
            return;
        }
        self.push(rule, diagnostic, instruction.lines);
    }

    /// Reports something that is about no instruction, or about one that is not known.
    pub(crate) fn report_at(&mut self, rule: &'static Rule, diagnostic: Diagnostic) {
        if !self.options.wants(rule, None) {
            return;
        }
        let line = |offset| self.source.location(offset).line;
        let span = diagnostic.primary.as_ref().map(|label| label.span).unwrap_or_default();
        let lines = (line(span.start), line(span.end.max(span.start + 1) - 1));
        self.push(rule, diagnostic, lines);
    }

    fn push(&mut self, rule: &'static Rule, mut diagnostic: Diagnostic, lines: (usize, usize)) {
        diagnostic.code = rule.name.into();
        if diagnostic.url.is_none() {
            diagnostic.url = rule.url.map(Into::into);
        }
        let finding = Finding { rule, diagnostic, lines };
        // A trigger is done once for every stage that builds on its image.
        if !self.findings.contains(&finding) {
            self.findings.push(finding);
        }
    }

    /// Returns how much was reported so far.
    pub(crate) fn count(&self) -> usize {
        self.findings.len()
    }

    /// Forgets what was reported since there were `count`, and returns it.
    pub(crate) fn split_off(&mut self, count: usize) -> Vec<Finding> {
        self.findings.split_off(count)
    }

    /// Returns everything in the order of the source.
    pub(crate) fn finish(mut self, further: Vec<Finding>) -> Vec<Finding> {
        for finding in further {
            if !self.findings.contains(&finding) {
                self.findings.push(finding);
            }
        }
        let start = |finding: &Finding| finding.diagnostic.primary.as_ref().map_or(0, |label| label.span.start);
        self.findings.sort_by_key(|finding| (finding.lines.0, start(finding)));
        self.findings
    }
}
