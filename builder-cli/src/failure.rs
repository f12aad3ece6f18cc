//! How a failure is shown, and which exit code it gives: the one place that decides both.

use std::io::Write as _;
use std::process::ExitCode;

use builder_core::{Error, ErrorKind};

/// What ends the command.
#[derive(Debug)]
pub(crate) struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// Wrong usage: exit code 2.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self { code: 2, text: format!("error: {}", text.into()) }
    }

    /// What was asked for was done, and found something: exit code 1, with nothing more to say.
    pub(crate) fn found() -> Self {
        Self::absent(String::new())
    }

    /// What was asked about is not there: exit code 1.
    pub(crate) fn absent(text: impl Into<String>) -> Self {
        Self { code: 1, text: text.into() }
    }

    /// A file that this command writes could not be written: exit code 73.
    pub(crate) fn output(text: impl Into<String>) -> Self {
        Self { code: 73, text: format!("error: {}", text.into()) }
    }

    /// Shows the failure on standard error and returns its exit code.
    pub(crate) fn report(self) -> ExitCode {
        if self.text.is_empty() {
            return ExitCode::from(self.code);
        }
        // Standard error may be closed; there is nobody left to tell.
        drop(writeln!(std::io::stderr().lock(), "{}", self.text.trim_end()));
        ExitCode::from(self.code)
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        let code = match error.kind() {
            ErrorKind::StepFailed => error.exit_status().unwrap_or(1),
            ErrorKind::Dockerfile | ErrorKind::Context => 1,
            ErrorKind::Request => 2,
            ErrorKind::HostUnsupported => 69,
            ErrorKind::Output => 73,
            ErrorKind::Store => 74,
            ErrorKind::Registry => 75,
            ErrorKind::Cancelled => 130,
            _ => 70,
        };
        let heading = if code == 70 { "internal error: " } else { "error: " };
        let rendered = error.render();
        let text = if rendered.starts_with("error") { rendered } else { format!("{heading}{rendered}") };
        Self { code, text }
    }
}
