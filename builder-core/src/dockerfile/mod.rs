//! The Dockerfile language: text to typed instructions with spans. Pure: no file, no environment, no network.
//!
//! ```text
//! text ─lines▶ logical lines ─statement▶ keyword, flags, arguments ─instructions▶ typed instructions
//!        │ directives               │ words, json, flags, heredoc
//! ```
//!
//! The language is BuildKit's, quirks included, with these exceptions where that parser accepts something and then
//! ignores it: flags of instructions that have none, a heredoc of `COPY` that is no word of its own, an invalid
//! `ONBUILD` trigger are errors; flags are read as characters, not bytes. Lines may be of any length.
//!
//! Nothing is expanded here: words keep their quotes, escapes and variables for [`expand_word`] and its siblings, which
//! the planner calls with the variables in force. Source: the Dockerfile reference,
//! <https://docs.docker.com/reference/dockerfile/>.

mod ast;
pub(crate) mod csv;
mod directives;
mod duration;
pub(crate) mod expand;
mod flags;
mod heredoc;
mod instructions;
mod json;
mod lines;
mod parse;
mod statement;
#[cfg(test)]
mod tests;
mod words;

pub use ast::{
    ArgDeclaration, Command, CopySource, Dockerfile, Healthcheck, Heredoc, Instruction, InstructionKind, KeyValue,
    RunInstruction, TransferInstruction, Word,
};
pub use expand::{Env, ExpandError, ExpandErrorKind, Expanded, expand_heredoc, expand_word, expand_words};
pub use parse::{Parsed, Recovered};
