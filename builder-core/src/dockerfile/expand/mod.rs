//! Variable expansion of words: `$name`, `${name}` and its operators, quotes, escapes, splitting into words.
//!
//! The rules are those of BuildKit's shell lexer, which is close to a POSIX shell but not one: no command or arithmetic
//! substitution, no brackets in patterns, no wildcard in an expanded pattern that matches a line feed. Which
//! instruction is expanded how, and with which variables, is for the caller to know: nothing here looks at a stage.
//!
//! | form | value |
//! |---|---|
//! | `${v:-w}` `${v-w}` | `w` if `v` is unset (with `:` also if empty) |
//! | `${v:+w}` `${v+w}` | `w` unless `v` is unset (or empty) |
//! | `${v:?w}` `${v?w}` | an error that says `w` if `v` is unset (or empty) |
//! | `${v#p}` `${v##p}` | without the shortest (longest) prefix that matches the pattern `p` |
//! | `${v%p}` `${v%%p}` | without the shortest (longest) such suffix |
//! | `${v/p/r}` `${v//p/r}` | the first (every) match of `p` replaced by `r` |

mod lexer;
mod pattern;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};

use super::Word;

pub(super) use lexer::{Lexer, Options};

/// The variables in force: a name to its value, `None` if it is unset.
pub type Env<'a> = dyn Fn(&str) -> Option<String> + 'a;

/// An expanded word.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Expanded {
    /// The text.
    pub text: String,
    /// Names that were asked for and are unset.
    pub unmatched: BTreeSet<String>,
}

/// Why a word could not be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("cannot expand {word:?}: {kind}")]
pub struct ExpandError {
    /// What is wrong.
    pub kind: ExpandErrorKind,
    /// The word.
    pub word: String,
    /// Where in the word, in bytes.
    pub at: Range<usize>,
}

/// What is wrong with a word.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum ExpandErrorKind {
    /// A quote that is never closed.
    #[error("the quote {0} is not closed")]
    UnclosedQuote(char),
    /// `${name` without its end.
    #[error("\"}}\" is missing behind \"${{\"")]
    MissingBrace,
    /// `${name/pattern` without the second slash.
    #[error("the second \"/\" is missing, as in \"${{name/pattern/replacement}}\"")]
    MissingSlash,
    /// `${}`, `${{`, `${:`.
    #[error("\"${{\" is not followed by a name")]
    MissingName,
    /// An operator that Dockerfiles do not have.
    #[error("\"{0}\" is no operator that Dockerfiles have")]
    UnsupportedOperator(String),
    /// `${name:?message}` where the name is unset or empty.
    #[error("\"{name}\" {message}")]
    Required {
        /// The name.
        name: String,
        /// What the word says, or that it is unset or empty.
        message: String,
    },
    /// A backslash in a pattern before anything but `*`, `?`, `\`, `/` or `}`.
    #[error("the pattern {pattern:?} has a backslash that escapes nothing")]
    InvalidPattern {
        /// The pattern.
        pattern: String,
    },
    /// `${a:-${b:-…}}` deeper than anyone writes.
    #[error("more than {} substitutions inside each other", lexer::MAX_DEPTH)]
    TooDeep,
}

impl ExpandError {
    /// Returns the error as a diagnostic about `word`, which must be the word that was expanded.
    pub fn diagnostic(&self, word: &Word) -> Diagnostic {
        // Offsets in the word are offsets in the source only if no continuation line or escape was taken out of it.
        let exact = word.span.end - word.span.start == word.text.len() && self.at.end <= word.text.len();
        let span =
            if exact { Span::new(word.span.start + self.at.start, word.span.start + self.at.end) } else { word.span };
        let diagnostic = Diagnostic::error("expansion", self.kind.to_string()).at(span);
        match &self.kind {
            ExpandErrorKind::UnclosedQuote(_) => {
                diagnostic.with_hint("close it, or put the escape character before it if it is meant as it stands")
            }
            ExpandErrorKind::UnsupportedOperator(_) => diagnostic
                .with_note("operators are :- - :+ + :? ? # ## % %% / and //")
                .with_hint("compute the value in a RUN step, where the shell has all of its operators"),
            ExpandErrorKind::MissingName => {
                diagnostic.with_hint("put the escape character before a dollar sign that is meant as it stands")
            }
            ExpandErrorKind::Required { name, .. } => {
                diagnostic.with_hint(format!("set it: --build-arg {name}=…, or ARG {name}=… or ENV {name}=… above"))
            }
            ExpandErrorKind::InvalidPattern { .. } => diagnostic.with_hint("write \"\\\\\" for a plain backslash"),
            ExpandErrorKind::MissingBrace | ExpandErrorKind::MissingSlash | ExpandErrorKind::TooDeep => diagnostic,
        }
    }
}

/// Returns `word` with variables replaced and quotes and escapes removed, as one text: for `ADD`, `ARG`, `COPY`, `ENV`,
/// `FROM`, `LABEL`, `STOPSIGNAL`, `USER`, `VOLUME`, `WORKDIR` and the values of flags.
///
/// # Errors
///
/// The word has a quote or a `${` that does not end, an unknown operator, or a `${name:?}` whose name is unset.
pub fn expand_word(word: &str, escape: char, env: &Env<'_>) -> Result<Expanded, ExpandError> {
    let options = Options { escape, ..Options::default() };
    let (text, _, unmatched) = Lexer::run(word, options, env)?;
    Ok(Expanded { text, unmatched })
}

/// As [`expand_word`], but split at white space that is neither quoted nor escaped; white space of values splits too:
/// for `EXPOSE`. An empty word is no word.
///
/// # Errors
///
/// As [`expand_word`].
pub fn expand_words(word: &str, escape: char, env: &Env<'_>) -> Result<Vec<String>, ExpandError> {
    let options = Options { escape, ..Options::default() };
    let (_, words, _) = Lexer::run(word, options, env)?;
    Ok(words.into_iter().map(|word| word.text).collect())
}

/// Expands the body of a heredoc of `COPY` or `ADD`: quotes are plain characters, and a backslash, whatever the escape
/// directive says, takes the meaning of the character behind it and disappears.
///
/// # Errors
///
/// As [`expand_word`], but for quotes.
pub fn expand_heredoc(body: &str, env: &Env<'_>) -> Result<Expanded, ExpandError> {
    let options = Options { plain_quotes: true, ..Options::default() };
    let (text, _, unmatched) = Lexer::run(body, options, env)?;
    Ok(Expanded { text, unmatched })
}
