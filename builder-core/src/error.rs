//! The one public error: a kind that says who can act, a message with its causes, and what to do about it.
//!
//! Modules have error types of their own; they are turned into this one at the edge, with what only the edge knows:
//! the step, the line of the Dockerfile, the last lines of output. It travels between processes as a value.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::diagnostic::{Diagnostic, SourceFile};

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Who can act on an [`Error`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ErrorKind {
    /// The Dockerfile is wrong: its author.
    Dockerfile,
    /// Files of a context are missing or unreadable: whoever provides it.
    Context,
    /// A command in the image failed: the author of the step.
    StepFailed,
    /// What was asked for makes no sense: the caller.
    Request,
    /// This machine does not allow it: its administrator.
    HostUnsupported,
    /// A registry or the way to it failed.
    Registry,
    /// The state directory failed: disk, permissions, damage.
    Store,
    /// An output could not be written.
    Output,
    /// Somebody cancelled.
    Cancelled,
    /// A fault of this library.
    Internal,
}

/// Why something failed.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Error(Box<ErrorImpl>);

#[derive(Debug, Clone, Serialize, Deserialize)]
struct ErrorImpl {
    kind: ErrorKind,
    message: String,
    causes: Vec<String>,
    notes: Vec<String>,
    hints: Vec<String>,
    /// Diagnostics with their source excerpts; they replace the message when shown.
    diagnostics: Vec<String>,
    exit_status: Option<u8>,
}

impl Error {
    /// Starts an error; the message is a lower-case phrase without a full stop.
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Box::new(ErrorImpl {
            kind,
            message: message.into(),
            causes: Vec::new(),
            notes: Vec::new(),
            hints: Vec::new(),
            diagnostics: Vec::new(),
            exit_status: None,
        }))
    }

    /// Turns a module's error with all its sources into an error of `kind`.
    pub(crate) fn from_source(kind: ErrorKind, error: &dyn std::error::Error) -> Self {
        let mut this = Self::new(kind, error.to_string());
        let mut source = error.source();
        while let Some(cause) = source {
            this.0.causes.push(cause.to_string());
            source = cause.source();
        }
        this
    }

    /// An error of the Dockerfile `source`, with those of `diagnostics` that are errors; the first gives the message.
    pub(crate) fn of_dockerfile(diagnostics: &[Diagnostic], source: &SourceFile) -> Self {
        let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
        let first = errors.clone().next().map_or("the Dockerfile is wrong", |diagnostic| diagnostic.message.as_str());
        let error = Self::new(ErrorKind::Dockerfile, first);
        errors.fold(error, |error, diagnostic| error.diagnostic(diagnostic.render(source)))
    }

    /// Puts `message` in front: what was being done when this happened.
    #[must_use]
    pub(crate) fn context(mut self, message: impl Into<String>) -> Self {
        let inner = std::mem::replace(&mut self.0.message, message.into());
        self.0.causes.insert(0, inner);
        self
    }

    /// Adds a fact that helps to understand.
    #[must_use]
    pub(crate) fn note(mut self, note: impl Into<String>) -> Self {
        self.0.notes.push(note.into());
        self
    }

    /// Adds what to do.
    #[must_use]
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.0.hints.push(hint.into());
        self
    }

    /// Adds a rendered diagnostic.
    #[must_use]
    pub(crate) fn diagnostic(mut self, rendered: impl Into<String>) -> Self {
        self.0.diagnostics.push(rendered.into());
        self
    }

    /// Sets the exit status of the command that failed.
    #[must_use]
    pub(crate) fn with_exit_status(mut self, status: u8) -> Self {
        self.0.exit_status = Some(status);
        self
    }

    /// Returns who can act.
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Returns the messages of what caused this, nearest first.
    pub fn causes(&self) -> &[String] {
        &self.0.causes
    }

    /// Returns what to do about it.
    pub fn hints(&self) -> &[String] {
        &self.0.hints
    }

    /// Returns the diagnostics, rendered with the lines of the Dockerfile they point at.
    pub fn diagnostics(&self) -> &[String] {
        &self.0.diagnostics
    }

    /// Returns the exit status of the command of a failed step: its own, or 128 + N when signal N ended it.
    pub fn exit_status(&self) -> Option<u8> {
        self.0.exit_status
    }

    /// Returns everything there is to say, for a person: several lines, the last without a line feed.
    pub fn render(&self) -> String {
        let inner = &self.0;
        let mut text = match inner.diagnostics.is_empty() {
            false => inner.diagnostics.iter().map(|d| d.trim_end()).collect::<Vec<_>>().join("\n\n"),
            true => std::iter::once(&inner.message).chain(&inner.causes).cloned().collect::<Vec<_>>().join(": "),
        };
        for (label, lines) in [("note", &inner.notes), ("hint", &inner.hints)] {
            for line in lines {
                let folded = line.replace('\n', "\n          ");
                text.push_str(&format!("\n   = {label}: {folded}"));
            }
        }
        text
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.message)?;
        self.0.causes.iter().try_for_each(|cause| write!(f, ": {cause}"))
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("open {path:?}")]
    struct Outer {
        path: &'static str,
        source: std::io::Error,
    }

    #[test]
    fn causes_notes_and_hints_are_shown_once_and_in_order() {
        let outer = Outer { path: "x", source: std::io::Error::from_raw_os_error(libc::ENOENT) };
        let error = Error::from_source(ErrorKind::Store, &outer).context("read blob").note("n").hint("h\nh2");
        let text = "read blob: open \"x\": No such file or directory (os error 2)";
        assert_eq!(error.to_string(), text);
        assert_eq!(error.render(), format!("{text}\n   = note: n\n   = hint: h\n          h2"));
    }

    #[test]
    fn travels_as_a_value() {
        let error = Error::new(ErrorKind::StepFailed, "m").with_exit_status(7).diagnostic("error: d\n");
        let copy: Error = serde_json::from_str(&serde_json::to_string(&error).unwrap()).unwrap();
        assert_eq!((copy.kind(), copy.exit_status()), (ErrorKind::StepFailed, Some(7)));
        assert_eq!(copy.render(), "error: d");
    }
}
