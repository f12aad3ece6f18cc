//! Heredocs: finding `<<NAME` in a line and reading the bodies below it.
//!
//! A marker must be a word of its own: `[digits]<<[-][blanks]NAME`. The name loses its quotes; if it had any, the body is
//! not expanded. The escape character is always the backslash here, whatever the escape directive says, for the
//! markers of `RUN` are the shell's own syntax.

use std::ops::Range;

use crate::diagnostic::Diagnostic;

use super::Heredoc;
use super::expand::{Lexer, Options};
use super::lines::{Joined, Lines};

/// `<<NAME` in a line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Marker {
    /// The name without quotes.
    pub(super) name: String,
    fd: Option<u32>,
    expand: bool,
    chomp: bool,
}

/// Returns the markers of a line with their places. A line that the lexer cannot read, say for a quote that does not
/// end, has none: it is the shell's to complain.
pub(super) fn markers(line: &str) -> Vec<(Marker, Range<usize>)> {
    if !line.contains("<<") {
        return vec![];
    }
    let options = Options { keep_quotes: true, keep_escapes: true, keep_unset: true, ..Options::default() };
    let Ok((_, words, _)) = Lexer::run(line, options, &|_| None) else { return vec![] };
    words.into_iter().filter_map(|word| Some((marker(&word.text)?, word.range))).collect()
}

/// Reads a word as a marker.
pub(super) fn marker(word: &str) -> Option<Marker> {
    let digits = word.len() - word.trim_start_matches(|char: char| char.is_ascii_digit()).len();
    let rest = word[digits..].strip_prefix("<<")?;
    let (rest, chomp) = match rest.strip_prefix('-') {
        Some(rest) => (rest, true),
        None => (rest, false),
    };
    let rest = rest.trim_start_matches([' ', '\t', '\x0c', '\r', '\n']);
    if rest.contains('<') {
        return None;
    }
    let name = only_word(rest, Options { keep_unset: true, ..Options::default() })?;
    let quoted = only_word(rest, Options { keep_unset: true, keep_quotes: true, ..Options::default() })?;
    Some(Marker { expand: quotes(&name) == quotes(&quoted), name, fd: word[..digits].parse().ok(), chomp })
}

fn only_word(text: &str, options: Options) -> Option<String> {
    let (_, mut words, _) = Lexer::run(text, options, &|_| None).ok()?;
    if words.len() == 1 { words.pop().map(|word| word.text) } else { None }
}

fn quotes(text: &str) -> usize {
    text.matches(['\'', '"']).count()
}

/// The heredocs of a line.
#[derive(Debug, Default)]
pub(super) struct Bodies {
    /// Them, in order.
    pub(super) heredocs: Vec<Heredoc>,
    /// Number of the line that ends the last one, and the offset behind it without its line break.
    pub(super) last: Option<(usize, usize)>,
}

/// Reads the bodies of all markers of `line` from the lines below it. It is an error if one does not end.
pub(super) fn read(line: &Joined, lines: &mut Lines<'_>) -> Result<Bodies, Diagnostic> {
    let mut bodies = Bodies::default();
    for (marker, range) in markers(line.text()) {
        let below = lines.rest();
        let mut raw = String::new();
        let end = lines.by_ref().find_map(|line| {
            let text = line.content();
            let text = if marker.chomp { text.trim_start_matches('\t') } else { text };
            if text == marker.name {
                return Some((line.number, line.span().end));
            }
            raw.push_str(line.raw);
            None
        });
        if end.is_none() {
            return Err(unterminated(line, &marker, range, below));
        }
        bodies.last = end;
        let content = if marker.chomp { chomped(&raw) } else { raw.clone() };
        let Marker { name, fd, expand, chomp } = marker;
        bodies.heredocs.push(Heredoc { name, fd, expand, chomp, content, raw, span: line.span(range) });
    }
    Ok(bodies)
}

fn chomped(raw: &str) -> String {
    raw.split_inclusive('\n').map(|line| line.trim_start_matches('\t')).collect()
}

fn unterminated(line: &Joined, marker: &Marker, range: Range<usize>, mut below: Lines<'_>) -> Diagnostic {
    let name = &marker.name;
    let error = Diagnostic::error("unterminated-heredoc", format!("the heredoc {name:?} does not end"));
    let error = error.labelled(line.span(range), "starts here");
    // The usual reason is white space around the name.
    match below.find(|line| line.content().trim() == name) {
        Some(near) if near.content().starts_with('\t') && near.content().trim_start_matches('\t') == name => error
            .with_secondary(near.span(), "does not end it: a tab stands before the name")
            .with_hint("remove the tab, or write \"<<-\" to have leading tabs removed"),
        Some(near) => error
            .with_secondary(near.span(), "does not end it: white space stands around the name")
            .with_hint("remove the white space"),
        None => error.with_hint(format!("add a line that says only \"{name}\"")),
    }
}
