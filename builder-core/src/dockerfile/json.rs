//! The JSON form of arguments: an array of strings.

use std::iter::Peekable;
use std::ops::Range;
use std::str::CharIndices;

use serde::de::IgnoredAny;

/// What an argument is as JSON.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Json {
    /// Not a JSON array, so it means what it says.
    Not,
    /// An array with something in it that is no string, here.
    NotStrings(Range<usize>),
    /// The strings, each with its place including its quotes.
    Strings(Vec<(String, Range<usize>)>),
}

/// Reads `text[range]`.
pub(super) fn parse(text: &str, range: Range<usize>) -> Json {
    let part = text[range.clone()].trim_start();
    // The library decides what is JSON (without building a value: strings may hold half of a surrogate pair, and
    // arrays may be as deep as they like), so that the reading below can trust its input.
    if !part.starts_with('[') || serde_json::from_str::<IgnoredAny>(part).is_err() {
        return Json::Not;
    }
    let offset = range.end - part.len();
    let mut chars = part.char_indices().peekable();
    let mut strings = vec![];
    chars.next();
    while let Some(&(start, char)) = chars.peek() {
        match char {
            '"' => {
                let value = string(&mut chars);
                let end = chars.peek().map_or(part.len(), |&(at, _)| at);
                strings.push((value, offset + start..offset + end));
            }
            ']' => break,
            ',' | ' ' | '\t' | '\r' | '\n' => {
                chars.next();
            }
            _ => {
                let length = part[start..].find([',', ']', ' ', '\t']).unwrap_or(1).max(1);
                return Json::NotStrings(offset + start..offset + start + length);
            }
        }
    }
    Json::Strings(strings)
}

/// Reads a string, its opening quote next.
fn string(chars: &mut Peekable<CharIndices<'_>>) -> String {
    let mut value = String::new();
    chars.next();
    while let Some((_, char)) = chars.next() {
        match char {
            '"' => break,
            '\\' => match chars.next().map(|(_, escaped)| escaped) {
                Some('b') => value.push('\x08'),
                Some('f') => value.push('\x0c'),
                Some('n') => value.push('\n'),
                Some('r') => value.push('\r'),
                Some('t') => value.push('\t'),
                Some('u') => value.push(code_point(chars)),
                Some(other) => value.push(other),
                None => break,
            },
            char => value.push(char),
        }
    }
    value
}

/// Reads `XXXX` or, as a surrogate pair, `XXXX\uXXXX`; half a pair becomes the replacement character.
fn code_point(chars: &mut Peekable<CharIndices<'_>>) -> char {
    let first = hex(chars);
    let mut ahead = chars.clone();
    let is_pair = (0xd800..0xdc00).contains(&first)
        && ahead.next().is_some_and(|(_, char)| char == '\\')
        && ahead.next().is_some_and(|(_, char)| char == 'u');
    if is_pair {
        let second = hex(&mut ahead);
        if (0xdc00..0xe000).contains(&second) {
            *chars = ahead;
            let code = 0x10000 + ((first - 0xd800) << 10) + (second - 0xdc00);
            return char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER);
        }
    }
    char::from_u32(first).unwrap_or(char::REPLACEMENT_CHARACTER)
}

fn hex(chars: &mut Peekable<CharIndices<'_>>) -> u32 {
    let digits = chars.by_ref().take(4).filter_map(|(_, char)| char.to_digit(16));
    digits.fold(0, |value, digit| value * 16 + digit)
}
