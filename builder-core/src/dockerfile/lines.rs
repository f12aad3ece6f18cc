//! Physical lines to logical ones: continuations joined, comments dropped, every byte still traceable to its place.

use std::ops::Range;

use crate::diagnostic::Span;

use super::Word;
use super::directives::Directives;

const BYTE_ORDER_MARK: char = '\u{feff}';

/// A physical line.
#[derive(Debug, Clone, Copy)]
pub(super) struct Line<'a> {
    /// Offset of its first byte.
    pub(super) start: usize,
    /// The line with its line break.
    pub(super) raw: &'a str,
    /// Its number, from 1.
    pub(super) number: usize,
}

impl<'a> Line<'a> {
    /// The line without its line break.
    pub(super) fn content(&self) -> &'a str {
        self.raw.trim_end_matches(['\r', '\n'])
    }

    /// The place of the content.
    pub(super) fn span(&self) -> Span {
        Span::new(self.start, self.start + self.content().len())
    }
}

/// Reads physical lines; a byte order mark at the start of the text belongs to none.
#[derive(Debug)]
pub(super) struct Lines<'a> {
    text: &'a str,
    position: usize,
    number: usize,
}

impl<'a> Lines<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        let position = if text.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len_utf8() } else { 0 };
        Self { text, position, number: 0 }
    }

    /// The lines that are still to come, without reading them.
    pub(super) fn rest(&self) -> Self {
        Self { ..*self }
    }
}

impl<'a> Iterator for Lines<'a> {
    type Item = Line<'a>;

    fn next(&mut self) -> Option<Line<'a>> {
        let rest = &self.text[self.position..];
        if rest.is_empty() {
            return None;
        }
        let length = rest.find('\n').map_or(rest.len(), |at| at + 1);
        let line = Line { start: self.position, raw: &rest[..length], number: self.number + 1 };
        self.position += length;
        self.number += 1;
        Some(line)
    }
}

/// Text put together from pieces of the source.
#[derive(Debug, Default)]
pub(super) struct Joined {
    text: String,
    /// Offset in `text` and in the source of each piece, in order.
    pieces: Vec<(usize, usize)>,
}

impl Joined {
    fn push(&mut self, text: &str, source: usize) {
        // A piece without text still says where the text is, if it is the first.
        if !text.is_empty() || self.pieces.is_empty() {
            self.pieces.push((self.text.len(), source));
            self.text.push_str(text);
        }
    }

    /// The text.
    pub(super) fn text(&self) -> &str {
        &self.text
    }

    fn source_offset(&self, offset: usize) -> usize {
        let next = self.pieces.partition_point(|&(joined, _)| joined <= offset);
        match next.checked_sub(1).and_then(|at| self.pieces.get(at)) {
            Some((joined, source)) => source + (offset - joined),
            None => 0,
        }
    }

    /// The place in the source of a range of the text; what lies between two pieces belongs to it.
    pub(super) fn span(&self, range: Range<usize>) -> Span {
        let start = self.source_offset(range.start);
        if range.is_empty() {
            return Span::new(start, start);
        }
        // The end by its last byte: behind it may begin another piece, somewhere else.
        Span::new(start, self.source_offset(range.end - 1) + 1)
    }

    /// A range of the text as a word.
    pub(super) fn word(&self, range: Range<usize>) -> Word {
        Word { text: self.text[range.clone()].to_owned(), span: self.span(range) }
    }
}

/// An instruction on one line, without heredocs.
#[derive(Debug)]
pub(super) struct LogicalLine {
    /// The text, continuations joined.
    pub(super) joined: Joined,
    /// First and last line, from 1.
    pub(super) lines: (usize, usize),
    /// Offset behind the last byte of the last line, without its line break.
    pub(super) end: usize,
    /// The comments above it, since the last instruction or empty comment.
    pub(super) comments: Vec<String>,
    /// Empty lines that interrupt it.
    pub(super) empty_lines: Vec<Span>,
}

/// Reads the next instruction, telling `directives` about the lines it may be interested in; `None` at the end.
pub(super) fn next_logical(lines: &mut Lines<'_>, directives: &mut Directives) -> Option<LogicalLine> {
    let mut comments = vec![];
    loop {
        let line = lines.next()?;
        let content = line.content().trim_start();
        let start = line.start + (line.content().len() - content.len());
        let is_directive = directives.observe(content, start);
        if let Some(comment) = content.strip_prefix('#') {
            match comment.trim() {
                "" => comments.clear(),
                _ if is_directive => {}
                comment => comments.push(comment.to_owned()),
            }
            continue;
        }
        let (kept, continues) = split_continuation(content, directives.escape());
        if kept.is_empty() && !continues {
            continue;
        }
        let mut logical = LogicalLine {
            joined: Joined::default(),
            lines: (line.number, line.number),
            end: line.span().end,
            comments,
            empty_lines: vec![],
        };
        logical.joined.push(kept, start);
        if continues {
            read_continuation(&mut logical, lines, directives.escape());
        }
        return Some(logical);
    }
}

fn read_continuation(logical: &mut LogicalLine, lines: &mut Lines<'_>, escape: char) {
    for line in lines.by_ref() {
        let content = line.content();
        let trimmed = content.trim_start();
        logical.lines.1 = line.number;
        logical.end = line.span().end;
        if trimmed.starts_with('#') {
            continue;
        }
        if trimmed.is_empty() {
            logical.empty_lines.push(line.span());
            continue;
        }
        let (kept, continues) = split_continuation(content, escape);
        logical.joined.push(kept, line.start);
        if !continues {
            return;
        }
    }
}

/// Returns the line without the escape character at its end, and whether there was one: it counts if only blanks stand
/// behind it, and not if another one stands before it.
fn split_continuation(content: &str, escape: char) -> (&str, bool) {
    match content.trim_end_matches([' ', '\t']).strip_suffix(escape) {
        Some(kept) if !kept.ends_with(escape) => (kept, true),
        _ => (content, false),
    }
}
