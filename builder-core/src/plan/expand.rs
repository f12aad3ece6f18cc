//! Expansion of words with the variables of a place, and what is odd about it.

use super::Problem;
use super::scope::Env;
use crate::diagnostic::Diagnostic;
use crate::dockerfile::{Heredoc, Word, expand_heredoc, expand_word, expand_words};

/// No variable gets longer, in bytes: `ENV A=$A$A` in a few dozen lines, or in triggers of a base image, would take
/// all memory. The kernel passes no variable above 128 KiB anyway.
const MAX_EXPANDED: usize = 1 << 20;

/// The variables at one place.
#[derive(Debug, Clone, Copy)]
pub(super) struct Scope<'a> {
    /// Names with values.
    pub(super) env: &'a Env,
}

impl Scope<'_> {
    fn get(&self, name: &str) -> Option<String> {
        self.env.get(name).map(str::to_owned)
    }
}

/// Expands words and collects warnings.
#[derive(Debug)]
pub(super) struct Expander {
    escape: char,
    /// What was odd so far.
    pub(super) warnings: Vec<Diagnostic>,
}

impl Expander {
    /// Expands with the escape character `escape`.
    pub(super) fn new(escape: char) -> Self {
        Self { escape, warnings: vec![] }
    }

    /// Expands `word` to one text.
    pub(super) fn word(&mut self, word: &Word, scope: Scope<'_>) -> Result<String, Problem> {
        let expanded = expand_word(&word.text, self.escape, &|name| scope.get(name));
        let expanded = expanded.map_err(|err| Box::new(err.diagnostic(word)))?;
        if expanded.text.len() > MAX_EXPANDED {
            let problem = Diagnostic::error("expansion-too-long", "this expands to more than 1 MiB").at(word.span);
            return Err(Box::new(problem));
        }
        Ok(expanded.text)
    }

    /// Expands a word of `FROM`, which only sees `globals`.
    pub(super) fn base_word(&mut self, word: &Word, globals: &Env) -> Result<String, Problem> {
        let scope = Scope { env: globals };
        let expanded = expand_word(&word.text, self.escape, &|name| scope.get(name));
        let expanded = expanded.map_err(|err| Box::new(err.diagnostic(word)))?;
        Ok(expanded.text)
    }

    /// Expands `word` to any number of words.
    pub(super) fn words(&mut self, word: &Word, scope: Scope<'_>) -> Result<Vec<String>, Problem> {
        let words = expand_words(&word.text, self.escape, &|name| scope.get(name));
        words.map_err(|err| Box::new(err.diagnostic(word)))
    }

    /// Expands the body of `heredoc` if it wants that.
    pub(super) fn heredoc(&mut self, heredoc: &Heredoc, scope: Scope<'_>) -> Result<String, Problem> {
        if !heredoc.expand {
            return Ok(heredoc.content.clone());
        }
        let expanded = expand_heredoc(&heredoc.content, &|name| scope.get(name)).map_err(|err| {
            // Offsets in the body are none in the source: the error is told where the heredoc is named.
            let place = Word { text: String::new(), span: heredoc.span };
            Box::new(err.diagnostic(&place).with_note(format!("in the body of <<{}", heredoc.name)))
        })?;
        Ok(expanded.text)
    }

    /// Returns `text` expanded for show: unchanged if that fails, and nothing is odd about it.
    pub(super) fn for_show(&self, text: &str, env: &Env) -> String {
        let expanded = expand_word(text, self.escape, &|name| env.get(name).map(str::to_owned));
        expanded.map_or_else(|_| text.to_owned(), |expanded| expanded.text)
    }

    /// Returns `text` with the variables that `get` knows replaced, outside single quotes; all else stays as it is,
    /// since a shell will read it.
    pub(super) fn known_for_show(&self, text: &str, get: &dyn Fn(&str) -> Option<String>) -> String {
        let mut out = String::new();
        let mut rest = text;
        let mut quoted = false;
        while let Some(c) = rest.chars().next() {
            let after = &rest[c.len_utf8()..];
            if c == '$'
                && !quoted
                && let Some((value, remaining)) = known_variable(after, get)
            {
                out.push_str(&value);
                rest = remaining;
                continue;
            }
            quoted ^= c == '\'';
            out.push(c);
            rest = after;
            if c == self.escape
                && !quoted
                && let Some(escaped) = rest.chars().next()
            {
                out.push(escaped);
                rest = &rest[escaped.len_utf8()..];
            }
        }
        out
    }
}

/// Reads `NAME` or `{NAME}` and returns its value with the text behind it.
fn known_variable<'a>(text: &'a str, get: &dyn Fn(&str) -> Option<String>) -> Option<(String, &'a str)> {
    let braced = text.strip_prefix('{');
    let name_text = braced.unwrap_or(text);
    let end = name_text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_').unwrap_or(name_text.len());
    let (name, rest) = name_text.split_at(end);
    let rest = if braced.is_some() { rest.strip_prefix('}')? } else { rest };
    Some((get(name)?, rest))
}
