//! Rules for Dockerfiles: what works, but is likely not meant.
//!
//! [`RULES`] is the table of all of them, under BuildKit's names and with its messages where BuildKit has the rule.
//! Which of them count is said by `Options`: `# check=` at the top of the file, the build arg
//! `BUILDKIT_DOCKERFILE_CHECK` in its place, and a `# check=` comment above an instruction in addition.
//!
//! Here are the rules that need the text alone (`text`). Those that need variables and stages stand where these are
//! known, in `plan::survey`. Both report to a `Linter`, which leaves out what the options do not want.

mod linter;
mod options;
mod rules;
mod text;

use serde::Serialize;

pub(crate) use linter::Linter;
pub(crate) use options::{Options, from_build_args};
pub use rules::{RULES, Rule};
pub(crate) use rules::{by_code, *};
pub(crate) use text::check_text;

use crate::diagnostic::Diagnostic;

/// What a rule found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// The rule.
    pub rule: &'static Rule,
    /// What it says; the code is the rule's name.
    pub diagnostic: Diagnostic,
    /// First and last line of what it is about, from 1: the instruction.
    pub lines: (usize, usize),
}

/// Who had the rule first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Origin {
    /// BuildKit has it, too.
    BuildKit,
    /// It is this builder's own.
    Builder,
}
