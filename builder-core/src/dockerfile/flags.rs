//! Flags of instructions: `--name`, `--name=value`, before the arguments.
//!
//! Two steps: [`take`] cuts the flags off a line, for any instruction; [`Flags::check`] holds them against what the
//! instruction knows.

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span, nearest};

use super::Word;
use super::lines::Joined;

/// A flag as it is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Flag {
    /// The whole flag without quotes and escapes: `--chown=a b`.
    pub(super) text: String,
    /// Its place, quotes included.
    pub(super) span: Span,
    /// The place of what stands behind `=`; empty if nothing does.
    value_span: Span,
}

impl Flag {
    fn name(&self) -> &str {
        let name = self.text.split('=').next().unwrap_or_default();
        name.strip_prefix("--").unwrap_or(name)
    }

    fn value(&self) -> Option<&str> {
        self.text.split_once('=').map(|(_, value)| value)
    }
}

/// Cuts the flags off the start of `range`: the words that begin with `--`, up to a lone `--`, which is dropped.
/// Quotes and backslashes, whatever the escape directive says, keep white space in a flag. Returns the flags and the
/// range of what follows.
pub(super) fn take(joined: &Joined, range: Range<usize>) -> (Vec<Flag>, Range<usize>) {
    let text = joined.text();
    let mut flags = vec![];
    let mut position = range.start;
    loop {
        let rest = &text[position..range.end];
        let start = position + (rest.len() - rest.trim_start().len());
        if !text[start..range.end].starts_with("--") {
            return (flags, start..range.end);
        }
        let (flag, end) = unquoted(text, start..range.end);
        if flag == "--" {
            return (flags, end..range.end);
        }
        let value = text[start..end].find('=').map_or(end, |at| start + at + 1);
        flags.push(Flag { text: flag, span: joined.span(start..end), value_span: joined.span(value..end) });
        position = end;
    }
}

/// Reads the word at the start of the range. Returns it without quotes and escapes, and the offset behind it.
fn unquoted(text: &str, range: Range<usize>) -> (String, usize) {
    let mut word = String::new();
    let mut quote: Option<char> = None;
    let mut chars = text[range.clone()].char_indices();
    while let Some((at, char)) = chars.next() {
        match (char, quote) {
            ('\\', _) => word.extend(chars.next().map(|(_, escaped)| escaped)),
            (char, Some(open)) if char == open => quote = None,
            ('\'' | '"', None) => quote = Some(char),
            (char, None) if char.is_whitespace() => return (word, range.start + at),
            (char, _) => word.push(char),
        }
    }
    (word, range.end)
}

/// How a flag may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// `--name` or `--name=true` or `--name=false`.
    Switch,
    /// `--name=value`, once.
    One,
    /// `--name=value`, any number of times.
    Many,
}

/// The flags that an instruction knows.
pub(super) type Known = &'static [(&'static str, Kind)];

/// Flags that are known and well-formed.
#[derive(Debug)]
pub(super) struct Flags<'a> {
    flags: &'a [Flag],
}

impl<'a> Flags<'a> {
    /// Checks the flags of the instruction called `keyword` against those it knows. `first_argument` is for the hint
    /// when a value stands behind a blank instead of an equals sign.
    pub(super) fn check(
        flags: &'a [Flag],
        known: Known,
        keyword: &str,
        first_argument: Option<&str>,
    ) -> Result<Self, Diagnostic> {
        for (at, flag) in flags.iter().enumerate() {
            let name = flag.name();
            let Some((_, kind)) = known.iter().find(|(known, _)| *known == name) else {
                return Err(unknown(flag, known, keyword));
            };
            let earlier = flags[..at].iter().find(|earlier| earlier.name() == name);
            if let Some(earlier) = earlier.filter(|_| *kind != Kind::Many) {
                return Err(Diagnostic::error("duplicate-flag", format!("the flag --{name} is given twice"))
                    .at(flag.span)
                    .with_secondary(earlier.span, "first here"));
            }
            match (kind, flag.value()) {
                (Kind::Switch, None) => {}
                (Kind::Switch, Some(value)) if switch(value).is_some() => {}
                (Kind::Switch, Some(value)) => return Err(not_boolean(flag, value)),
                (_, None) => return Err(without_value(flag, first_argument)),
                (_, Some(_)) => {}
            }
        }
        Ok(Self { flags })
    }

    fn find(&self, name: &str) -> Option<&'a Flag> {
        self.flags.iter().find(|flag| flag.name() == name)
    }

    /// The value of a flag of kind [`Kind::One`].
    pub(super) fn one(&self, name: &str) -> Option<Word> {
        self.find(name).and_then(word)
    }

    /// The values of a flag of kind [`Kind::Many`].
    pub(super) fn many(&self, name: &str) -> Vec<Word> {
        self.flags.iter().filter(|flag| flag.name() == name).filter_map(word).collect()
    }

    /// The value of a flag of kind [`Kind::Switch`].
    pub(super) fn switch(&self, name: &str) -> Option<bool> {
        self.find(name).map(|flag| flag.value().and_then(switch).unwrap_or(true))
    }

    /// The place of each flag by name.
    pub(super) fn spans(&self) -> Vec<(String, Span)> {
        self.flags.iter().map(|flag| (flag.name().to_owned(), flag.span)).collect()
    }
}

fn word(flag: &Flag) -> Option<Word> {
    Some(Word { text: flag.value()?.to_owned(), span: flag.value_span })
}

fn switch(value: &str) -> Option<bool> {
    match value {
        value if value.eq_ignore_ascii_case("true") => Some(true),
        value if value.eq_ignore_ascii_case("false") => Some(false),
        _ => None,
    }
}

fn unknown(flag: &Flag, known: Known, keyword: &str) -> Diagnostic {
    let name = flag.name();
    let error = Diagnostic::error("unknown-flag", format!("{keyword} has no flag --{name}")).at(flag.span);
    let error = match nearest(name, known.iter().map(|(known, _)| *known)) {
        Some(near) => error.with_hint(format!("did you mean --{near}?")),
        None => error,
    };
    let names: Vec<String> = known.iter().map(|(known, _)| format!("--{known}")).collect();
    let error = match names.as_slice() {
        [] => error.with_note(format!("{keyword} has no flags")),
        names => error.with_note(format!("{keyword} has {}", names.join(", "))),
    };
    match keyword {
        "RUN" | "CMD" | "ENTRYPOINT" => {
            error.with_hint(format!("if it belongs to the command, write \"--\" before it: {keyword} -- {}", flag.text))
        }
        _ => error,
    }
}

fn not_boolean(flag: &Flag, value: &str) -> Diagnostic {
    let name = flag.name();
    Diagnostic::error("flag-not-boolean", format!("the flag --{name} is true or false, not {value:?}"))
        .at(flag.span)
        .with_hint(format!("write --{name} or --{name}=false"))
}

fn without_value(flag: &Flag, first_argument: Option<&str>) -> Diagnostic {
    let name = flag.name();
    let value = first_argument.unwrap_or("VALUE");
    Diagnostic::error("flag-without-value", format!("the flag --{name} needs a value"))
        .at(flag.span)
        .with_hint(format!("write --{name}={value}"))
}
