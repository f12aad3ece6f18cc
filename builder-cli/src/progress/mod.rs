//! Shows the events of a build: live on a terminal, as lines elsewhere, or as JSON.
//!
//! All of it goes to standard error, so that standard output carries results alone; JSON events go to standard
//! output, as they are the result asked for.

mod json;
mod plain;
mod tty;

use std::io::IsTerminal as _;

use builder_core::Event;

use crate::args::ProgressMode;

/// Shows events.
pub(crate) trait Progress {
    /// Shows one event.
    fn event(&mut self, event: Event);
    /// Shows what is held back and leaves the terminal in order. Called once, also after a failure.
    fn finish(&mut self);
}

/// Shows nothing.
struct Quiet;

impl Progress for Quiet {
    fn event(&mut self, _: Event) {}
    fn finish(&mut self) {}
}

/// Returns the renderer for `mode`.
pub(crate) fn new(mode: ProgressMode, quiet: bool) -> Box<dyn Progress> {
    match mode {
        ProgressMode::Json => Box::new(json::Json),
        _ if quiet => Box::new(Quiet),
        ProgressMode::Auto if std::io::stderr().is_terminal() => Box::new(tty::Tty::new()),
        ProgressMode::Tty => Box::new(tty::Tty::new()),
        ProgressMode::Auto | ProgressMode::Plain => Box::new(plain::Plain::new(std::io::stderr())),
    }
}

/// `12.3s`, or `345ms` below one second.
fn duration(millis: u64) -> String {
    if millis < 1000 { format!("{millis}ms") } else { format!("{}.{}s", millis / 1000, millis % 1000 / 100) }
}

/// Findings about the Dockerfile: shown when the build is over, so that nobody has to look for them above its output.
#[derive(Debug, Default)]
struct Findings(Vec<String>);

impl Findings {
    /// Keeps the text of one.
    fn push(&mut self, text: String) {
        self.0.push(text);
    }

    /// Returns the lines that show them all.
    fn take_lines(&mut self) -> Vec<String> {
        let texts = std::mem::take(&mut self.0);
        let heading = match texts.len() {
            0 => return Vec::new(),
            1 => "1 warning found:".to_owned(),
            count => format!("{count} warnings found:"),
        };
        let lines = texts.iter().flat_map(|text| std::iter::once("").chain(text.trim_end().lines()));
        std::iter::once(heading).chain(lines.map(str::to_owned)).chain([String::new()]).collect()
    }
}

/// Splits what a command writes into lines; the last one may stay open until more comes.
#[derive(Debug, Default)]
struct Lines {
    open: Vec<u8>,
}

impl Lines {
    /// Adds bytes and returns the lines they complete, made safe for a terminal.
    fn push(&mut self, bytes: &[u8]) -> Vec<String> {
        self.open.extend_from_slice(bytes);
        let Some(end) = self.open.iter().rposition(|b| *b == b'\n') else { return Vec::new() };
        let rest = self.open.split_off(end + 1);
        let done = std::mem::replace(&mut self.open, rest);
        done[..end].split(|b| *b == b'\n').map(printable).collect()
    }

    /// Returns the line that was left open, if any.
    fn take_open(&mut self) -> Option<String> {
        (!self.open.is_empty()).then(|| printable(&std::mem::take(&mut self.open)))
    }
}

/// The text of a line: what follows its last carriage return (progress bars overwrite themselves), without escape
/// sequences, so that no command can move the cursor or retitle the window.
fn printable(line: &[u8]) -> String {
    let line = line.strip_suffix(b"\r").unwrap_or(line);
    let shown = line.rsplit(|b| *b == b'\r').next().unwrap_or(line);
    let mut out = String::new();
    let mut chars = String::from_utf8_lossy(shown).into_owned().chars().collect::<Vec<_>>().into_iter().peekable();
    while let Some(c) = chars.next() {
        match c {
            '\x1b' => skip_escape(&mut chars),
            '\t' => out.push_str("        "),
            c if c.is_control() => {}
            c => out.push(c),
        }
    }
    out
}

/// Skips one escape sequence behind its ESC (ECMA-48: CSI, OSC, or two characters).
fn skip_escape(chars: &mut std::iter::Peekable<std::vec::IntoIter<char>>) {
    match chars.next() {
        Some('[') => while chars.next().is_some_and(|c| !('@'..='~').contains(&c)) {},
        Some(']') => {
            while let Some(c) = chars.next() {
                if c == '\x07' || (c == '\x1b' && chars.next_if_eq(&'\\').is_some()) {
                    break;
                }
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_completed_across_writes() {
        let mut lines = Lines::default();
        assert_eq!(lines.push(b"one\ntw"), ["one"]);
        assert_eq!(lines.push(b"o\n\nthree"), ["two", ""]);
        assert_eq!(lines.take_open(), Some("three".to_owned()));
        assert_eq!(lines.take_open(), None);
    }

    #[test]
    fn a_line_cannot_control_the_terminal() {
        assert_eq!(printable(b"\x1b[31mred\x1b[0m \x1b]0;title\x07ok\x1b[2J"), "red ok");
        assert_eq!(printable(b"10%\r50%\r100%\r"), "100%");
        assert_eq!(printable(b"a\xffb\x08"), "a\u{fffd}b");
    }

    #[test]
    fn durations() {
        assert_eq!(duration(7), "7ms");
        assert_eq!(duration(12_345), "12.3s");
    }
}
