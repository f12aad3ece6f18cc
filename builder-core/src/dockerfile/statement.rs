//! A logical line taken apart: keyword, flags, arguments in the form the keyword asks for.
//!
//! This is the level of BuildKit's parse tree: whether the flags exist or the arguments make sense is not known yet
//! (see `instructions`).

use std::ops::Range;

use crate::diagnostic::{Diagnostic, Span};

use super::flags::{self, Flag};
use super::json::{self, Json};
use super::lines::Joined;
use super::{ArgDeclaration, KeyValue, Word, words};

/// How many instructions may stand in one line; two make `ONBUILD RUN`, a third is always wrong.
const MAX_NESTING: usize = 3;

/// The instructions there are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keyword {
    Add,
    Arg,
    Cmd,
    Copy,
    Entrypoint,
    Env,
    Expose,
    From,
    Healthcheck,
    Label,
    Maintainer,
    Onbuild,
    Run,
    Shell,
    StopSignal,
    User,
    Volume,
    Workdir,
}

/// Every keyword as it is usually written.
pub(super) const KEYWORDS: &[(&str, Keyword)] = &[
    ("ADD", Keyword::Add),
    ("ARG", Keyword::Arg),
    ("CMD", Keyword::Cmd),
    ("COPY", Keyword::Copy),
    ("ENTRYPOINT", Keyword::Entrypoint),
    ("ENV", Keyword::Env),
    ("EXPOSE", Keyword::Expose),
    ("FROM", Keyword::From),
    ("HEALTHCHECK", Keyword::Healthcheck),
    ("LABEL", Keyword::Label),
    ("MAINTAINER", Keyword::Maintainer),
    ("ONBUILD", Keyword::Onbuild),
    ("RUN", Keyword::Run),
    ("SHELL", Keyword::Shell),
    ("STOPSIGNAL", Keyword::StopSignal),
    ("USER", Keyword::User),
    ("VOLUME", Keyword::Volume),
    ("WORKDIR", Keyword::Workdir),
];

impl Keyword {
    fn parse(text: &str) -> Option<Self> {
        KEYWORDS.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|&(_, keyword)| keyword)
    }
}

/// A line taken apart.
#[derive(Debug)]
pub(super) struct Statement {
    /// The first word, as written.
    pub(super) word: Word,
    /// What it means; `None` for a word that is no keyword.
    pub(super) keyword: Option<Keyword>,
    /// The whole line from the first word on, without white space at its end.
    pub(super) whole: Word,
    /// The same with it.
    pub(super) raw: String,
    /// The flags in order.
    pub(super) flags: Vec<Flag>,
    /// What follows them.
    pub(super) arguments: Arguments,
}

/// The arguments in the form that belongs to the keyword.
#[derive(Debug)]
pub(super) enum Arguments {
    /// There are none.
    None,
    /// One text: the shell form, or the only form of `USER` and others.
    Text(Word),
    /// Words.
    Words(Vec<Word>),
    /// JSON form.
    Json(Vec<Word>),
    /// `ENV` and `LABEL`.
    Pairs(Vec<KeyValue>),
    /// `ARG`
    Declarations(Vec<ArgDeclaration>),
    /// `HEALTHCHECK`: the first word, and what follows as [`Self::None`], [`Self::Text`] or [`Self::Json`].
    Typed(Word, Box<Self>),
    /// `ONBUILD`
    Statement(Box<Statement>),
    /// Those of a word that is no keyword.
    Unknown,
}

impl Statement {
    /// Takes the whole line apart.
    pub(super) fn parse(joined: &Joined, escape: char) -> Result<Self, Diagnostic> {
        Splitter { joined, escape }.statement(0..joined.text().len(), 1)
    }

    /// Whether heredocs may follow: in `ADD`, `COPY`, `RUN`, also as a trigger, unless in JSON form.
    pub(super) fn may_have_heredocs(&self) -> bool {
        match (&self.keyword, &self.arguments) {
            (Some(Keyword::Onbuild), Arguments::Statement(inner)) => inner.may_have_heredocs(),
            (Some(Keyword::Add | Keyword::Copy | Keyword::Run), arguments) => !matches!(arguments, Arguments::Json(_)),
            _ => false,
        }
    }

    /// The keyword in capitals, or the word as written.
    pub(super) fn name(&self) -> &str {
        let known = KEYWORDS.iter().find(|(_, keyword)| Some(*keyword) == self.keyword);
        known.map_or(self.word.text.as_str(), |(name, _)| name)
    }
}

struct Splitter<'a> {
    joined: &'a Joined,
    escape: char,
}

impl Splitter<'_> {
    fn text(&self) -> &str {
        self.joined.text()
    }

    fn statement(&self, range: Range<usize>, nesting: usize) -> Result<Statement, Diagnostic> {
        let trimmed = words::trim(self.text(), range.clone());
        let (first, rest) = words::split_first(self.text(), trimmed.clone());
        let word = self.joined.word(first);
        let keyword = Keyword::parse(&word.text);
        let (flags, rest) = match rest {
            Some(rest) => flags::take(self.joined, rest),
            None => (vec![], trimmed.end..trimmed.end),
        };
        let rest = words::trim(self.text(), rest);
        let arguments = match keyword {
            None => Arguments::Unknown,
            Some(_) if rest.is_empty() => Arguments::None,
            Some(Keyword::Onbuild) if nesting == MAX_NESTING => {
                let error = Diagnostic::error("onbuild-trigger", "ONBUILD cannot be the trigger of ONBUILD");
                return Err(error.at(word.span));
            }
            Some(Keyword::Onbuild) => {
                // White space at the end belongs to the trigger as it is stored.
                Arguments::Statement(Box::new(self.statement(rest.start..range.end, nesting + 1)?))
            }
            Some(keyword) => self.arguments(keyword, &word, rest)?,
        };
        let raw = self.text()[trimmed.start..range.end].to_owned();
        Ok(Statement { word, keyword, whole: self.joined.word(trimmed), raw, flags, arguments })
    }

    /// Reads arguments that are not empty.
    fn arguments(&self, keyword: Keyword, word: &Word, rest: Range<usize>) -> Result<Arguments, Diagnostic> {
        match keyword {
            Keyword::Run | Keyword::Cmd | Keyword::Entrypoint | Keyword::Shell => {
                self.json_or(rest, |rest| Arguments::Text(self.joined.word(rest)))
            }
            Keyword::Add | Keyword::Copy | Keyword::Volume => self.json_or(rest, |rest| self.split(rest)),
            Keyword::From | Keyword::Expose => Ok(self.split(rest)),
            Keyword::User | Keyword::Workdir | Keyword::StopSignal | Keyword::Maintainer | Keyword::Onbuild => {
                Ok(Arguments::Text(self.joined.word(rest)))
            }
            Keyword::Arg => {
                let found = words::split_quoted(self.text(), rest, self.escape);
                Ok(Arguments::Declarations(found.into_iter().map(|word| self.declaration(word)).collect()))
            }
            Keyword::Env | Keyword::Label => self.pairs(word, rest),
            Keyword::Healthcheck => self.healthcheck(rest),
        }
    }

    fn words(&self, ranges: Vec<Range<usize>>) -> Arguments {
        Arguments::Words(ranges.into_iter().map(|range| self.joined.word(range)).collect())
    }

    fn split(&self, rest: Range<usize>) -> Arguments {
        self.words(words::split(self.text(), rest))
    }

    fn json_or(
        &self,
        rest: Range<usize>,
        otherwise: impl FnOnce(Range<usize>) -> Arguments,
    ) -> Result<Arguments, Diagnostic> {
        match json::parse(self.text(), rest.clone()) {
            Json::Not => Ok(otherwise(rest)),
            Json::Strings(strings) => {
                let word = |(text, range)| Word { text, span: self.joined.span(range) };
                Ok(Arguments::Json(strings.into_iter().map(word).collect()))
            }
            Json::NotStrings(range) => {
                let message = "the JSON form is a list of strings, and nothing else";
                let error = Diagnostic::error("json-not-strings", message).at(self.joined.span(range.clone()));
                let written = &self.text()[range];
                let is_plain = !written.starts_with(['[', '{']);
                Err(error.with_hint_if(is_plain.then(|| format!("write it as a string: \"{written}\""))))
            }
        }
    }

    fn healthcheck(&self, rest: Range<usize>) -> Result<Arguments, Diagnostic> {
        let text = &self.text()[rest.clone()];
        let length = text.find(char::is_whitespace).unwrap_or(text.len());
        let kind = self.joined.word(rest.start..rest.start + length);
        let command = words::trim(self.text(), rest.start + length..rest.end);
        let command = match command.is_empty() {
            true => Arguments::None,
            false => self.json_or(command, |rest| Arguments::Text(self.joined.word(rest)))?,
        };
        Ok(Arguments::Typed(kind, Box::new(command)))
    }

    /// `K=V…`, or in the old form `K V`, which is meant if the first word has no equals sign.
    fn pairs(&self, keyword: &Word, rest: Range<usize>) -> Result<Arguments, Diagnostic> {
        let found = words::split_quoted(self.text(), rest.clone(), self.escape);
        let Some(first) = found.first() else { return Ok(Arguments::None) };
        if !self.text()[first.clone()].contains('=') {
            let pair = self.legacy_pair(keyword, rest)?;
            return Ok(Arguments::Pairs(vec![pair]));
        }
        let pairs = found.into_iter().map(|word| self.pair(word, keyword.span));
        pairs.collect::<Result<_, _>>().map(Arguments::Pairs)
    }

    /// Splits `NAME=value` at the equals sign, if there is one.
    fn declaration(&self, word: Range<usize>) -> ArgDeclaration {
        match self.text()[word.clone()].find('=') {
            None => ArgDeclaration { name: self.joined.word(word), default: None },
            Some(length) => {
                let equals = word.start + length;
                let (name, default) = (self.joined.word(word.start..equals), self.joined.word(equals + 1..word.end));
                ArgDeclaration { name, default: Some(default) }
            }
        }
    }

    fn legacy_pair(&self, keyword: &Word, rest: Range<usize>) -> Result<KeyValue, Diagnostic> {
        let (key, value) = words::split_first(self.text(), rest);
        let key = self.joined.word(key);
        let Some(value) = value else {
            let keyword = keyword.text.to_ascii_uppercase();
            let message = format!("{keyword} needs a value for {:?}", key.text);
            let error = Diagnostic::error("missing-value", message).at(key.span);
            return Err(error.with_hint(format!("write {keyword} {}=value", key.text)));
        };
        Ok(KeyValue { key, value: self.joined.word(value), legacy: true })
    }

    fn pair(&self, word: Range<usize>, keyword: Span) -> Result<KeyValue, Diagnostic> {
        match self.declaration(word) {
            ArgDeclaration { name: key, default: Some(value) } => Ok(KeyValue { key, value, legacy: false }),
            ArgDeclaration { name: word, default: None } => {
                let message = format!("{:?} is not of the form name=value", word.text);
                let error = Diagnostic::error("missing-equals", message).at(word.span);
                let error = error.with_secondary(keyword, "takes name=value pairs");
                Err(error.with_hint("put a value with blanks in quotes: name=\"one two\""))
            }
        }
    }
}
