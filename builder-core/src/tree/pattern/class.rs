//! Character classes, `[a-z]` and `[^a-z]`.

use super::first_char;

/// A class; it matches one character, which may be `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Class {
    negated: bool,
    ranges: Vec<(char, char)>,
}

impl Class {
    /// Parses what follows a `[` and returns the rest after the closing `]`.
    pub(super) fn parse(text: &[u8]) -> Result<(Self, &[u8]), &'static str> {
        let (negated, mut text) = match text.strip_prefix(b"^") {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let mut ranges = Vec::new();
        loop {
            if let (Some(rest), false) = (text.strip_prefix(b"]"), ranges.is_empty()) {
                return Ok((Self { negated, ranges }, rest));
            }
            let (low, rest) = member(text)?;
            let (high, rest) = match rest.strip_prefix(b"-") {
                Some(rest) => member(rest)?,
                None => (low, rest),
            };
            ranges.push((low, high));
            text = rest;
        }
    }

    /// Whether `c` belongs to the class.
    pub(super) fn matches(&self, c: char) -> bool {
        self.ranges.iter().any(|(low, high)| (*low..=*high).contains(&c)) != self.negated
    }

    /// Whether some range ends before it starts. `filepath.Match` lets such a range match nothing.
    pub(super) fn has_reversed_range(&self) -> bool {
        self.ranges.iter().any(|(low, high)| low > high)
    }
}

/// Parses one, maybe quoted, character of a class that something must follow.
fn member(text: &[u8]) -> Result<(char, &[u8]), &'static str> {
    const UNCLOSED: &str = "the class has no closing \"]\"";
    let text = match text {
        [] => return Err(UNCLOSED),
        [b'-', ..] => return Err("\"-\" needs a character on both sides, or \"\\\" before it"),
        [b']', ..] => return Err("the class is empty, or a range has no end"),
        [b'\\', rest @ ..] => rest,
        _ => text,
    };
    if text.is_empty() {
        return Err(UNCLOSED);
    }
    let (found, len) = first_char(text);
    if found == char::REPLACEMENT_CHARACTER && len == 1 {
        return Err("the class is not UTF-8");
    }
    match &text[len..] {
        [] => Err(UNCLOSED),
        rest => Ok((found, rest)),
    }
}
