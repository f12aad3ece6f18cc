//! Parser directives: `# escape=`, `# syntax=`, `# check=` at the very top of the file.
//!
//! The window in which they count closes at the first line that is none, be it a comment, a blank line or an unknown
//! directive. `# syntax=` names a frontend image in other builders; here the language is built in, so the official
//! image is accepted without being pulled, and any other one is refused: it would parse a different language.

use crate::diagnostic::{Diagnostic, Span};

use super::Word;
use super::lines::Lines;

/// What the directives seen so far say.
#[derive(Debug)]
pub(super) struct Directives {
    escape: Option<(char, Span)>,
    /// `# syntax=`, the whole value.
    pub(super) syntax: Option<Word>,
    /// `# check=`.
    pub(super) check: Option<Word>,
    /// What is wrong with them.
    pub(super) errors: Vec<Diagnostic>,
    closed: bool,
}

impl Directives {
    /// Opens the window.
    pub(super) fn new() -> Self {
        Self { escape: None, syntax: None, check: None, errors: vec![], closed: false }
    }

    /// A window that is closed already, with the escape character of the file that a trigger comes from.
    pub(super) fn for_trigger(escape: char) -> Self {
        Self { escape: Some((escape, Span::default())), closed: true, ..Self::new() }
    }

    /// The escape character in force.
    pub(super) fn escape(&self) -> char {
        self.escape.map_or('\\', |(char, _)| char)
    }

    /// Takes note of a line, given without white space at its start, which is at `start` in the source. Returns
    /// whether it is a directive.
    pub(super) fn observe(&mut self, content: &str, start: usize) -> bool {
        if self.closed {
            return false;
        }
        let directive =
            split(content, start).filter(|(name, _)| ["escape", "syntax", "check"].contains(&name.as_str()));
        let Some((name, value)) = directive else {
            self.closed = true;
            return false;
        };
        let line = Span::new(start, start + content.len());
        let earlier = match name.as_str() {
            "escape" => self.escape.map(|(_, span)| span),
            "syntax" => self.syntax.as_ref().map(|word| word.span),
            _ => self.check.as_ref().map(|word| word.span),
        };
        if let Some(earlier) = earlier {
            let error = Diagnostic::error("duplicate-directive", format!("the {name} directive stands here twice"))
                .at(line)
                .with_secondary(earlier, "first here")
                .with_hint("remove one of the two");
            self.errors.push(error);
            return true;
        }
        match name.as_str() {
            "escape" => self.set_escape(&value),
            "syntax" => {
                self.errors.extend(check_syntax(&value));
                self.syntax = Some(value);
            }
            _ => self.check = Some(value),
        }
        true
    }

    fn set_escape(&mut self, value: &Word) {
        match value.text.as_str() {
            "\\" => self.escape = Some(('\\', value.span)),
            "`" => self.escape = Some(('`', value.span)),
            other => {
                let message = format!("{other:?} cannot be the escape character");
                let error = Diagnostic::error("escape-directive", message).at(value.span);
                self.errors.push(error.with_hint("write \"# escape=\\\" or \"# escape=`\""));
            }
        }
    }
}

/// Looks for a syntax directive behind a `#!` line, where no other directive counts.
pub(super) fn behind_shebang(text: &str) -> Option<Diagnostic> {
    let mut lines = Lines::new(text);
    if !lines.next()?.raw.starts_with("#!") {
        return None;
    }
    let mut directives = Directives::new();
    for line in lines {
        let content = line.content().trim_start();
        if !directives.observe(content, line.start + (line.content().len() - content.len())) {
            break;
        }
    }
    directives.syntax.as_ref().and_then(check_syntax)
}

/// Splits `# name = value`; the name comes back in lower case.
fn split(content: &str, start: usize) -> Option<(String, Word)> {
    let rest = content.strip_prefix('#')?.trim_start();
    let (name, value) = rest.split_once('=')?;
    let name = name.trim_end_matches(is_blank);
    let valid =
        name.starts_with(|char: char| char.is_ascii_alphabetic()) && name.chars().all(|c| c.is_ascii_alphanumeric());
    let from = value.trim_start_matches(is_blank);
    let text = from.trim_end_matches(is_blank);
    if !valid || text.is_empty() {
        return None;
    }
    let start = start + (content.len() - from.len());
    Some((name.to_ascii_lowercase(), Word { text: text.to_owned(), span: Span::new(start, start + text.len()) }))
}

fn is_blank(char: char) -> bool {
    matches!(char, ' ' | '\t' | '\r' | '\x0c')
}

fn check_syntax(value: &Word) -> Option<Diagnostic> {
    let image = value.text.split(' ').next().unwrap_or_default();
    let name = image.strip_prefix("docker.io/").or_else(|| image.strip_prefix("index.docker.io/")).unwrap_or(image);
    let version = name.strip_prefix("docker/dockerfile");
    let version = version.map(|version| version.strip_prefix("-upstream").unwrap_or(version));
    if version.is_some_and(|version| version.is_empty() || version.starts_with([':', '@'])) {
        return None;
    }
    let error = Diagnostic::error("foreign-syntax", format!("{image:?} is a frontend that this builder does not run"));
    let error = error.at(value.span);
    let error = error
        .with_note(
            "the Dockerfile language is built in; \"docker/dockerfile\" of any version is accepted and not pulled",
        )
        .with_hint("remove the line if the file is a plain Dockerfile");
    Some(error)
}
