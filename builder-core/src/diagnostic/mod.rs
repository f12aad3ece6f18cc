//! Problems in a Dockerfile: a stable code, a place, notes and a hint; rendered late, by whoever talks to the user.
//!
//! Nothing here prints or knows what a Dockerfile is. A [`Diagnostic`] is a value: it names byte ranges of a source
//! ([`Span`]), and only [`Diagnostic::render`] needs the text they belong to. Texts are lower-case phrases without a
//! full stop, with the user's words in double quotes.

mod nearest;
mod render;
mod source;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

use serde::{Deserialize, Serialize};

pub use nearest::nearest;
pub use source::{Location, SourceFile};

/// A range of bytes of one source file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Serialize, Deserialize)]
pub struct Span {
    /// Offset of the first byte.
    pub start: usize,
    /// Offset behind the last byte.
    pub end: usize,
}

impl Span {
    /// Returns the span from `start` to `end`, both byte offsets.
    pub fn new(start: usize, end: usize) -> Self {
        Self { start, end }
    }

    /// Returns the span as a range.
    pub fn range(self) -> Range<usize> {
        self.start..self.end
    }

    /// Returns the smallest span that covers both.
    pub fn to(self, other: Self) -> Self {
        Self { start: self.start.min(other.start), end: self.end.max(other.end) }
    }
}

/// How bad a [`Diagnostic`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Nothing can be built from this.
    Error,
    /// It works, but is likely not what is meant.
    Warning,
}

/// A place in the source with a remark.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// The remark, shown behind the underline; may be empty.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub text: String,
}

/// One problem: what, where, why, and what to write instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Diagnostic {
    /// Stable kebab-case name of the problem, the same in every release.
    pub code: Cow<'static, str>,
    /// How bad it is.
    pub severity: Severity,
    /// One line.
    pub message: String,
    /// The place the problem is about, if it has one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub primary: Option<Label>,
    /// Further places that explain the first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub secondary: Vec<Label>,
    /// Facts the reader may lack.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<String>,
    /// What to write or do instead.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hints: Vec<String>,
    /// Where more is written about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<Cow<'static, str>>,
}

impl Diagnostic {
    /// Returns an error without a place.
    pub fn error(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(code.into(), Severity::Error, message.into())
    }

    /// Returns a warning without a place.
    pub fn warning(code: impl Into<Cow<'static, str>>, message: impl Into<String>) -> Self {
        Self::new(code.into(), Severity::Warning, message.into())
    }

    fn new(code: Cow<'static, str>, severity: Severity, message: String) -> Self {
        Self { code, severity, message, primary: None, secondary: vec![], notes: vec![], hints: vec![], url: None }
    }

    /// Sets the place, underlined with `^`.
    #[must_use]
    pub fn at(self, span: Span) -> Self {
        self.labelled(span, "")
    }

    /// Sets the place with a remark behind its underline.
    #[must_use]
    pub fn labelled(mut self, span: Span, text: impl Into<String>) -> Self {
        self.primary = Some(Label { span, text: text.into() });
        self
    }

    /// Adds a further place, underlined with `-`.
    #[must_use]
    pub fn with_secondary(mut self, span: Span, text: impl Into<String>) -> Self {
        self.secondary.push(Label { span, text: text.into() });
        self
    }

    /// Adds a note.
    #[must_use]
    pub fn with_note(mut self, note: impl Into<String>) -> Self {
        self.notes.push(note.into());
        self
    }

    /// Adds a hint.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// Adds a hint if there is one.
    #[must_use]
    pub fn with_hint_if(self, hint: Option<String>) -> Self {
        match hint {
            Some(hint) => self.with_hint(hint),
            None => self,
        }
    }

    /// Sets the address of a page about the problem.
    #[must_use]
    pub fn with_url(mut self, url: impl Into<Cow<'static, str>>) -> Self {
        self.url = Some(url.into());
        self
    }

    /// Returns whether this is an error.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }

    /// Returns the problem as text of several lines, with the lines of `source` it is about, without colour and with
    /// a line feed at the end.
    pub fn render(&self, source: &SourceFile) -> String {
        render::render(self, source)
    }
}
