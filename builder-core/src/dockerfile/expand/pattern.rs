//! Patterns of `${v#p}`, `${v%p}` and `${v/p/r}`: `*` is any text, `?` any character, neither across a line feed.

/// A part of a pattern.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Token {
    /// This character.
    Literal(char),
    /// `?`
    One,
    /// `*`
    Any,
}

/// Which end of a value is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trim {
    /// `#`
    Prefix,
    /// `%`
    Suffix,
}

/// Returns the tokens; `None` if a backslash escapes something that needs no escape.
///
/// The escape character of a pattern is the backslash, whatever the escape directive says. `\/` and `\}` lose it
/// because only the braces around the pattern need it.
pub(super) fn parse(pattern: &str) -> Option<Vec<Token>> {
    let mut tokens = vec![];
    let mut chars = pattern.chars();
    while let Some(char) = chars.next() {
        tokens.push(match char {
            '*' => Token::Any,
            '?' => Token::One,
            '\\' => match chars.next() {
                Some(escaped @ ('*' | '?' | '\\' | '/' | '}')) => Token::Literal(escaped),
                _ => return None,
            },
            char => Token::Literal(char),
        });
    }
    Some(tokens)
}

/// Returns `value` without the shortest or longest prefix or suffix that matches.
pub(super) fn trim<'v>(value: &'v str, pattern: &[Token], side: Trim, longest: bool) -> &'v str {
    match side {
        Trim::Prefix => {
            let length = match_length(value.chars(), pattern.iter().copied(), longest);
            &value[length.unwrap_or(0)..]
        }
        Trim::Suffix => {
            let length = match_length(value.chars().rev(), pattern.iter().rev().copied(), longest);
            &value[..value.len() - length.unwrap_or(0)]
        }
    }
}

/// Returns `value` with the first or every longest match replaced. An empty match right behind a match is none.
pub(super) fn replace(value: &str, pattern: &[Token], replacement: &str, all: bool) -> String {
    let mut out = String::new();
    let mut position = 0;
    let mut behind_match = false;
    loop {
        let rest = &value[position..];
        let length = match_length(rest.chars(), pattern.iter().copied(), true);
        if let Some(length) = length.filter(|&length| length > 0 || !behind_match) {
            out.push_str(replacement);
            position += length;
            if !all {
                break;
            }
            behind_match = length > 0;
            if behind_match {
                continue;
            }
        }
        let Some(char) = rest.chars().next() else { break };
        out.push(char);
        position += char.len_utf8();
        behind_match = false;
    }
    out.push_str(&value[position..]);
    out
}

/// Returns how many bytes the shortest or longest match at the start of `value` has.
///
/// Walks the value once with the set of pattern positions reached so far, so that no pattern is slow.
fn match_length(
    value: impl Iterator<Item = char>,
    pattern: impl Iterator<Item = Token>,
    longest: bool,
) -> Option<usize> {
    let pattern: Vec<Token> = pattern.collect();
    let mut states = vec![false; pattern.len() + 1];
    states[0] = true;
    skip_stars(&pattern, &mut states);
    let mut found = states[pattern.len()].then_some(0);
    let mut length = 0;
    for char in value {
        if found.is_some() && !longest {
            break;
        }
        let mut next = vec![false; states.len()];
        for (at, token) in pattern.iter().enumerate().filter(|&(at, _)| states[at]) {
            match token {
                Token::Literal(literal) => next[at + 1] |= *literal == char,
                Token::One => next[at + 1] |= char != '\n',
                Token::Any => next[at] |= char != '\n',
            }
        }
        skip_stars(&pattern, &mut next);
        if !next.contains(&true) {
            break;
        }
        length += char.len_utf8();
        if next[pattern.len()] {
            found = Some(length);
        }
        states = next;
    }
    found
}

/// A star may match nothing.
fn skip_stars(pattern: &[Token], states: &mut [bool]) {
    for (at, token) in pattern.iter().enumerate() {
        if states[at] && *token == Token::Any {
            states[at + 1] = true;
        }
    }
}
