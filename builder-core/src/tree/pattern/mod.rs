//! Wildcards and ignore files, by the rules that Dockerfiles are written for.
//!
//! There are two languages. [`Glob`] is Go's `filepath.Match`, for the sources of `COPY`: `*` and `?` never match `/`,
//! `[a-z]` and `[^a-z]` are classes, `\` quotes. [`PatternSet`] is `.dockerignore`, `COPY --exclude` and what else goes
//! through moby's patternmatcher: the same with `**`, an order of rules of which the last one counts, `!`, and rules
//! that match a directory and so everything below it. Both work on bytes; where a rule speaks of a character, it is
//! one of UTF-8, or a single byte where the path is not UTF-8.
//!
//! Nothing is compiled to regular expressions, so what leaks from them into moby's language is missing on purpose:
//! `\d` is a `d`, `^` outside a class is a `^`, and `**` matches names with line breaks.

mod class;
mod glob;
mod rule;
mod set;

pub(crate) use glob::{Glob, has_wildcard, split_at_wildcard};
pub(crate) use set::{Decision, PatternSet, Rule, RuleIndex};

use super::path::show;

/// A pattern is malformed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PatternError {
    /// A wildcard pattern cannot be parsed.
    #[error("bad pattern {:?}: {what}", show(.pattern))]
    Pattern {
        /// The pattern.
        pattern: Vec<u8>,
        /// What is wrong.
        what: &'static str,
    },
    /// A line of an ignore file, or the pattern of that number, cannot be parsed.
    #[error("line {line}: bad pattern {:?}: {what}", show(.pattern))]
    Line {
        /// From 1.
        line: usize,
        /// The line without surrounding white space.
        pattern: Vec<u8>,
        /// What is wrong.
        what: &'static str,
    },
}

/// Decodes the first character: its code point and length in bytes. A byte that is not UTF-8 counts as U+FFFD.
/// `text` is not empty.
fn first_char(text: &[u8]) -> (char, usize) {
    let head = &text[..text.len().min(4)];
    let valid = head.utf8_chunks().next().map_or("", |chunk| chunk.valid());
    match valid.chars().next() {
        Some(first) => (first, first.len_utf8()),
        None => (char::REPLACEMENT_CHARACTER, 1),
    }
}
