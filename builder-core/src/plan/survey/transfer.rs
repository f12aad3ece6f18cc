//! `COPY` and `ADD`.

use super::scene::Scene;
use super::{Place, Surveyor};
use crate::diagnostic::{Diagnostic, Span};
use crate::dockerfile::{CopySource, TransferInstruction, Word, expand_heredoc};
use crate::lint::{ADD_WITHOUT_CHECKSUM, COPY_IGNORED_FILE, SEVERAL_SOURCES_WITHOUT_SLASH, WILDCARD_MATCHES_NOTHING};
use crate::plan::remote::{self, GitHint, SourceKind};
use crate::tree::path::clean;
use crate::tree::pattern::has_wildcard;

/// Which of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verb {
    Copy,
    Add,
}

impl<'a> Surveyor<'a> {
    /// Looks at a `COPY` or `ADD`.
    pub(super) fn transfer(
        &mut self,
        scene: &mut Scene<'a>,
        place: Place<'a>,
        verb: Verb,
        transfer: &TransferInstruction,
    ) {
        if let Some(word) = &transfer.from
            && let Some(name) = self.word(scene, place, word)
        {
            self.needs(scene, place, &name, word.span);
        }
        for word in [&transfer.chown, &transfer.chmod, &transfer.checksum].into_iter().flatten() {
            drop(self.word(scene, place, word));
        }
        for source in &transfer.sources {
            match source {
                CopySource::Path(word) => {
                    if let Some(path) = self.word(scene, place, word) {
                        self.source(place, verb, transfer, word, &path);
                    }
                }
                CopySource::Heredoc(heredoc) if heredoc.expand => {
                    let get = |name: &str| scene.env.get(name).map(str::to_owned);
                    if let Ok(expanded) = expand_heredoc(&heredoc.content, &get) {
                        self.undefined(scene, place, heredoc.span, expanded.unmatched);
                    }
                }
                CopySource::Heredoc(_) => {}
            }
        }
        if let Some(dest) = self.word(scene, place, &transfer.dest) {
            self.destination(place, transfer, &dest);
        }
    }

    fn source(&mut self, place: Place<'a>, verb: Verb, transfer: &TransferInstruction, word: &Word, path: &str) {
        let git = if transfer.keep_git_dir.is_some() { GitHint::Flag } else { GitHint::None };
        let kind = if verb == Verb::Add { remote::classify(path, git) } else { Ok(SourceKind::Path) };
        match kind {
            Ok(SourceKind::Path) if transfer.from.is_none() => self.file(place, verb, transfer, word.span, path),
            Ok(SourceKind::Http) if transfer.checksum.is_none() => {
                let message = "what this URL answers is not checked".to_owned();
                let warning = Diagnostic::warning("", message).at(place.at(word.span));
                let warning = warning.with_hint("add --checksum=sha256:…");
                self.linter.report_as(&ADD_WITHOUT_CHECKSUM, place.instruction, warning);
            }
            _ => {}
        }
    }

    fn file(&mut self, place: Place<'a>, verb: Verb, transfer: &TransferInstruction, span: Span, path: &str) {
        // With --parents a pattern means something else.
        if !self.ignored(place, verb, span, path) && transfer.parents != Some(true) {
            self.wildcard(place, span, path);
        }
    }

    /// Returns whether an ignore rule leaves the source out. Rules with exceptions are not held against sources: a
    /// directory that is left out may hold what is not.
    fn ignored(&mut self, place: Place<'a>, verb: Verb, span: Span, path: &str) -> bool {
        let Some(rules) = self.subject.ignore.filter(|rules| !rules.has_exceptions()) else { return false };
        let cleaned = clean(path.as_bytes());
        let relative = cleaned.strip_prefix(b"/").unwrap_or(&cleaned);
        let Some(rule) = rules.deciding_rule(relative) else { return false };
        let verb = if verb == Verb::Add { "Add" } else { "Copy" };
        let shown = String::from_utf8_lossy(&cleaned);
        let message = format!("Attempting to {verb} file {shown:?} that is excluded by .dockerignore");
        let warning = Diagnostic::warning("", message).at(place.at(span));
        let rule = format!("its line {} says {:?}", rule.line, String::from_utf8_lossy(&rule.text));
        self.linter.report_as(&COPY_IGNORED_FILE, place.instruction, warning.with_note(rule));
        true
    }

    fn wildcard(&mut self, place: Place<'a>, span: Span, pattern: &str) {
        let Some(directory) = self.subject.directory.filter(|_| has_wildcard(pattern.as_bytes())) else { return };
        if (self.subject.selects)(directory, self.subject.ignore, pattern) == Some(false) {
            let message = format!("no file of the build context matches {pattern:?}: nothing is copied");
            self.linter.report(&WILDCARD_MATCHES_NOTHING, place.instruction, place.at(span), message);
        }
    }

    fn destination(&mut self, place: Place<'a>, transfer: &TransferInstruction, dest: &str) {
        let is_directory = dest.ends_with('/') || matches!(dest.rsplit('/').next(), Some("." | ".."));
        if transfer.sources.len() < 2 || is_directory || transfer.parents == Some(true) {
            return;
        }
        let message = format!("several sources for {dest:?}, which does not end with a slash");
        let warning = Diagnostic::warning("", message).at(place.at(transfer.dest.span));
        let warning = warning
            .with_note("unless it is a directory already, this builder fails and others keep only the last source")
            .with_hint(format!("write {dest}/"));
        self.linter.report_as(&SEVERAL_SOURCES_WITHOUT_SLASH, place.instruction, warning);
    }
}
