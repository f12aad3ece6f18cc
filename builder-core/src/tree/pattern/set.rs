//! Ordered rules: `.dockerignore` and everything else that goes through moby's patternmatcher.

use super::PatternError;
use super::rule::Matcher;
use crate::tree::path::{ancestors, clean};

/// What the deciding rule of a path says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Decision {
    /// The path is left out.
    Exclude,
    /// The path is kept although a rule before leaves it out (`!`).
    Include,
}

/// One rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Rule {
    /// Line of the ignore file, or number of the pattern, from 1.
    pub(crate) line: usize,
    /// As written, without surrounding white space.
    pub(crate) text: Vec<u8>,
    /// What it does to paths that match.
    pub(crate) decision: Decision,
    matcher: Matcher,
}

/// Ordered rules, the last one that matches a path or a directory above it decides.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct PatternSet {
    rules: Vec<Rule>,
}

/// Place of a rule in its set; the deciding rule of a directory is handed down to what lies below.
pub(crate) type RuleIndex = usize;

impl PatternSet {
    /// Parses an ignore file: a byte order mark goes, lines that start with `#` are comments (only there, before white
    /// space is trimmed), a leading `/` means nothing, `!` may be followed by white space.
    pub(crate) fn parse_ignore_file(text: &[u8]) -> Result<Self, PatternError> {
        let text = text.strip_prefix("\u{feff}".as_bytes()).unwrap_or(text);
        let mut set = Self::default();
        for (index, line) in text.split(|b| *b == b'\n').enumerate() {
            if line.starts_with(b"#") {
                continue;
            }
            let trimmed = trim(line);
            let (negated, pattern) = match trimmed.strip_prefix(b"!") {
                Some(rest) => (true, trim(rest)),
                None => (false, trimmed),
            };
            let cleaned = if pattern.is_empty() { Vec::new() } else { clean(pattern) };
            let relative = match cleaned.strip_prefix(b"/") {
                Some(rest) if !rest.is_empty() => rest,
                _ => &cleaned,
            };
            let pattern = if negated { [b"!", relative].concat() } else { relative.to_vec() };
            set.push(index + 1, trimmed, &pattern)?;
        }
        Ok(set)
    }

    /// Takes patterns one by one, as `COPY --exclude` has them. A leading `/` is kept, and matches nothing.
    pub(crate) fn new<P: AsRef<[u8]>>(patterns: impl IntoIterator<Item = P>) -> Result<Self, PatternError> {
        let mut set = Self::default();
        for (index, pattern) in patterns.into_iter().enumerate() {
            set.push(index + 1, trim(pattern.as_ref()), pattern.as_ref())?;
        }
        Ok(set)
    }

    fn push(&mut self, line: usize, text: &[u8], pattern: &[u8]) -> Result<(), PatternError> {
        let pattern = trim(pattern);
        if pattern.is_empty() {
            return Ok(());
        }
        let cleaned = clean(pattern);
        let (decision, cleaned) = match cleaned.strip_prefix(b"!") {
            Some(rest) => (Decision::Include, rest),
            None => (Decision::Exclude, cleaned.as_slice()),
        };
        let parsed = if cleaned.is_empty() { Err("nothing follows \"!\"") } else { Matcher::parse(cleaned) };
        let matcher = parsed.map_err(|what| PatternError::Line { line, pattern: text.to_vec(), what })?;
        self.rules.push(Rule { line, text: text.to_vec(), decision, matcher });
        Ok(())
    }

    #[cfg(test)]
    /// Whether there is no rule.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// Whether some rule keeps what another leaves out.
    pub(crate) fn has_exceptions(&self) -> bool {
        self.rules.iter().any(|rule| rule.decision == Decision::Include)
    }

    /// Returns what the rules say of `path`, or `None` when none matches. The root is never matched.
    pub(crate) fn matches(&self, path: &[u8]) -> Option<Decision> {
        self.deciding_rule(path).map(|rule| rule.decision)
    }

    /// Whether `path` is left out.
    pub(crate) fn excludes(&self, path: &[u8]) -> bool {
        self.matches(path) == Some(Decision::Exclude)
    }

    /// Returns the rule that decides about `path`.
    pub(crate) fn deciding_rule(&self, path: &[u8]) -> Option<&Rule> {
        self.decide(path).map(|index| &self.rules[index])
    }

    /// Whether something below the directory `dir` may be kept. Only then need a directory that is left out be read.
    pub(crate) fn may_include_below(&self, dir: &[u8]) -> bool {
        self.may_include_below_decided(dir, self.decide(dir))
    }

    /// Returns the deciding rule of `path`, found without help.
    pub(crate) fn decide(&self, path: &[u8]) -> Option<RuleIndex> {
        let above: Vec<&[u8]> = ancestors(path).collect();
        let of_parent = above.iter().rev().fold(None, |found, dir| self.decide_below(dir, found));
        self.decide_below(path, of_parent)
    }

    /// Returns the deciding rule of `path` when `of_parent` decides about the directory that holds it: the last rule
    /// that matches the path itself or any directory above it.
    pub(crate) fn decide_below(&self, path: &[u8], of_parent: Option<RuleIndex>) -> Option<RuleIndex> {
        if path.is_empty() {
            return None;
        }
        let first = of_parent.map_or(0, |index| index + 1);
        let own = self.rules[first..].iter().rposition(|rule| rule.matcher.matches(path));
        own.map(|offset| first + offset).or(of_parent)
    }

    /// As [`Self::may_include_below`], when the rule that decides about `dir` is known.
    pub(crate) fn may_include_below_decided(&self, dir: &[u8], decided: Option<RuleIndex>) -> bool {
        let Some(decided) = decided else { return true };
        if self.rules[decided].decision == Decision::Include || dir.is_empty() {
            return true;
        }
        self.including_below(dir, decided).is_some()
    }

    /// Returns the rule that may keep something below the directory `dir`, which the rule at `decided` leaves out.
    pub(crate) fn including_below(&self, dir: &[u8], decided: RuleIndex) -> Option<&Rule> {
        // Rules before the deciding one cannot win below it either.
        let mut later = self.rules[decided + 1..].iter().filter(|rule| rule.decision == Decision::Include);
        later.find(|rule| rule.matcher.may_match_below(dir))
    }

    /// Returns the rule at `index`.
    pub(crate) fn rule(&self, index: RuleIndex) -> &Rule {
        &self.rules[index]
    }
}

/// Removes white space, as Unicode has it, from both ends.
fn trim(text: &[u8]) -> &[u8] {
    let mut text = text;
    while let Some(space) = edge_space(text, Edge::Start) {
        text = &text[space..];
    }
    while let Some(space) = edge_space(text, Edge::End) {
        text = &text[..text.len() - space];
    }
    text
}

#[derive(Clone, Copy)]
enum Edge {
    Start,
    End,
}

/// Returns the length of a white space character at an end of `text`; no such character is longer than three bytes.
fn edge_space(text: &[u8], edge: Edge) -> Option<usize> {
    (1..=text.len().min(3)).find(|len| {
        let piece = match edge {
            Edge::Start => &text[..*len],
            Edge::End => &text[text.len() - len..],
        };
        let mut chars = std::str::from_utf8(piece).unwrap_or("").chars();
        matches!((chars.next(), chars.next()), (Some(c), None) if c.is_whitespace())
    })
}

#[cfg(test)]
mod tests;
