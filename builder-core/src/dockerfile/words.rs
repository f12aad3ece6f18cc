//! Splitting of arguments into words, as ranges of the text they stand in.

use std::ops::Range;

/// The white space that separates arguments: less than Unicode has, and without the line feed.
pub(super) fn is_separator(char: char) -> bool {
    matches!(char, '\t' | '\x0b' | '\x0c' | '\r' | ' ')
}

/// Narrows a range to the text without white space around it.
pub(super) fn trim(text: &str, range: Range<usize>) -> Range<usize> {
    let part = &text[range.clone()];
    let start = range.start + (part.len() - part.trim_start().len());
    start..start + part.trim().len()
}

/// Splits at separators; quotes mean nothing.
pub(super) fn split(text: &str, range: Range<usize>) -> Vec<Range<usize>> {
    let mut words = vec![];
    let mut start = range.start;
    let ends = text[range.clone()].match_indices(is_separator).map(|(at, found)| (range.start + at, found.len()));
    for (at, length) in ends.chain([(range.end, 0)]) {
        if at > start {
            words.push(start..at);
        }
        start = at + length;
    }
    words
}

/// Splits the first word off: its range, and that of what follows the separators behind it, if there are any.
pub(super) fn split_first(text: &str, range: Range<usize>) -> (Range<usize>, Option<Range<usize>>) {
    let part = &text[range.clone()];
    let Some(length) = part.find(is_separator) else { return (range, None) };
    let rest = part[length..].trim_start_matches(is_separator);
    (range.start..range.start + length, Some(range.end - rest.len()..range.end))
}

/// Splits at white space that is neither quoted nor escaped. Quotes and escapes stay in the words; only an escape
/// character at the very end, which escapes nothing, belongs to none.
pub(super) fn split_quoted(text: &str, range: Range<usize>, escape: char) -> Vec<Range<usize>> {
    let mut words = vec![];
    let mut start: Option<usize> = None;
    let mut quote: Option<char> = None;
    let mut end = range.end;
    let mut chars = text[range.clone()].char_indices().map(|(at, char)| (range.start + at, char));
    while let Some((at, char)) = chars.next() {
        if start.is_none() && char.is_whitespace() {
            continue;
        }
        if quote.is_none() && char.is_whitespace() {
            words.extend(start.take().map(|start| start..at));
            continue;
        }
        start.get_or_insert(at);
        if char == escape && quote != Some('\'') {
            if chars.next().is_none() {
                end = at;
            }
        } else if quote == Some(char) {
            quote = None;
        } else if quote.is_none() && matches!(char, '\'' | '"') {
            quote = Some(char);
        }
    }
    words.extend(start.map(|start| start..end).filter(|word| !word.is_empty()));
    words
}
