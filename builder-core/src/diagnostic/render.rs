//! The text form of a diagnostic: header, `-->` place, the source lines with underlines, then notes and hints.
//!
//! Underlines stand below their characters on a terminal: tabs are drawn as four spaces, other control characters as
//! `\u{fffd}`, and wide characters count two columns. Of a label over several lines only the first and the last line are shown.

use std::fmt::Write as _;

use unicode_width::UnicodeWidthChar as _;

use super::source::floor_char_boundary;
use super::{Diagnostic, Label, Severity, SourceFile, Span};

const TAB: &str = "    ";
/// Longer lines are shown in part, around the underline.
const MAX_COLUMNS: usize = 160;

pub(super) fn render(diagnostic: &Diagnostic, source: &SourceFile) -> String {
    let severity = match diagnostic.severity {
        Severity::Error => "error",
        Severity::Warning => "warning",
    };
    let mut out = format!("{severity}[{}]: {}\n", diagnostic.code, diagnostic.message);
    let marks = marks(diagnostic, source);
    let width = marks.iter().map(|mark| mark.line.to_string().len()).max().unwrap_or(1);
    if let Some(primary) = &diagnostic.primary {
        let place = source.location(primary.span.start);
        push(&mut out, format_args!("{:width$}--> {}:{}:{}\n", "", source.name(), place.line, place.column));
        excerpt(&mut out, &marks, source, width);
    }
    let url = diagnostic.url.iter().map(|url| ("see", url.as_ref()));
    let notes = diagnostic.notes.iter().map(|note| ("note", note.as_str()));
    let hints = diagnostic.hints.iter().map(|hint| ("hint", hint.as_str()));
    for (kind, text) in notes.chain(hints).chain(url) {
        // Further lines of a note stand below its first word.
        let indent = format!("\n{:width$}   {:kind$}  ", "", "", kind = kind.len());
        push(&mut out, format_args!("{:width$} = {kind}: {}\n", "", text.replace('\n', &indent)));
    }
    out
}

/// One underline below one line.
struct Mark<'a> {
    line: usize,
    span: Span,
    symbol: char,
    text: &'a str,
}

/// The underlines in order of lines, the primary one first within its line.
fn marks<'a>(diagnostic: &'a Diagnostic, source: &SourceFile) -> Vec<Mark<'a>> {
    let Some(primary) = &diagnostic.primary else { return vec![] };
    let mut marks = vec![];
    add_marks(&mut marks, primary, '^', source);
    for label in &diagnostic.secondary {
        add_marks(&mut marks, label, '-', source);
    }
    marks.sort_by_key(|mark| mark.line);
    marks
}

fn add_marks<'a>(marks: &mut Vec<Mark<'a>>, label: &'a Label, symbol: char, source: &SourceFile) {
    let start = floor_char_boundary(source.text(), label.span.start);
    let end = floor_char_boundary(source.text(), label.span.end).max(start);
    let first = source.location(start).line;
    // A span that ends right behind a line break ends in the line before.
    let last = source.location(if end > start { end - 1 } else { end }).line;
    let mut add = |line: usize, text: &'a str| {
        let Some((line_start, line_end)) = source.line_range(line) else { return };
        let indent = source.text()[line_start..line_end].len() - source.text()[line_start..line_end].trim_start().len();
        let from = if line == first { start } else { line_start + indent };
        let to = end.min(line_end).max(from);
        marks.push(Mark { line, span: Span::new(from.min(line_end), to.min(line_end)), symbol, text });
    };
    if first == last {
        add(first, &label.text);
    } else {
        add(first, "");
        add(last, &label.text);
    }
}

fn excerpt(out: &mut String, marks: &[Mark<'_>], source: &SourceFile, width: usize) {
    push(out, format_args!("{:width$} |\n", ""));
    let mut shown: Option<usize> = None;
    for mark in marks {
        let Some((line_start, line_end)) = source.line_range(mark.line) else { continue };
        let line = &source.text()[line_start..line_end];
        let (before, marked) = (mark.span.start - line_start, mark.span.end - line_start);
        let window = window(line, before, marked);
        if shown != Some(mark.line) {
            if shown.is_some_and(|last| last + 1 < mark.line) {
                push(out, format_args!("{:width$} ...\n", ""));
            }
            let text = format!("{:>width$} | {}", mark.line, drawn(line, &window));
            push(out, format_args!("{}\n", text.trim_end()));
            shown = Some(mark.line);
        }
        let indent = columns(&drawn_part(line, &window, window.start, before));
        let length = columns(&drawn_part(line, &window, before, marked)).max(1);
        let underline = mark.symbol.to_string().repeat(length);
        let text = format!("{:width$} | {:indent$}{underline} {}", "", "", mark.text);
        push(out, format_args!("{}\n", text.trim_end()));
    }
}

/// The part of a line that is shown.
struct Window {
    start: usize,
    end: usize,
}

/// Chooses the part of `line` around the bytes `from..to` that fits into [`MAX_COLUMNS`] characters.
fn window(line: &str, from: usize, to: usize) -> Window {
    if line.chars().count() <= MAX_COLUMNS {
        return Window { start: 0, end: line.len() };
    }
    let before = line[..from].chars().count();
    let marked = line[from..to].chars().count().min(MAX_COLUMNS / 2);
    let first = before.saturating_sub((MAX_COLUMNS - marked) / 2);
    let byte = |index: usize| line.char_indices().nth(index).map_or(line.len(), |(at, _)| at);
    Window { start: byte(first), end: byte(first + MAX_COLUMNS) }
}

/// The shown part of a line, with `…` where something is left out.
fn drawn(line: &str, window: &Window) -> String {
    let mut out = drawn_part(line, window, window.start, window.end);
    if window.end < line.len() {
        out.push('…');
    }
    out
}

/// The shown characters of `line[from..to]`; at the left end of a cut line it begins with the `…`.
fn drawn_part(line: &str, window: &Window, from: usize, to: usize) -> String {
    let mut out = String::new();
    if window.start > 0 && from == window.start {
        out.push('…');
    }
    for char in line[from.max(window.start)..to.min(window.end).max(from.max(window.start))].chars() {
        match char {
            '\t' => out.push_str(TAB),
            char if char.is_control() => out.push('\u{fffd}'),
            char => out.push(char),
        }
    }
    out
}

fn columns(text: &str) -> usize {
    text.chars().map(|char| char.width().unwrap_or(1)).sum()
}

fn push(out: &mut String, text: std::fmt::Arguments<'_>) {
    // Writing to a string cannot fail.
    out.write_fmt(text).unwrap_or_default();
}
