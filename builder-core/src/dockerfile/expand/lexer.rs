//! The lexer behind word expansion and behind finding heredocs in a line.

use std::collections::BTreeSet;
use std::ops::Range;

use super::pattern::{self, Trim};
use super::{Env, ExpandError, ExpandErrorKind};

/// How many `${…}` may stand inside each other. Each costs stack, and the text may come from anyone.
pub(super) const MAX_DEPTH: usize = 100;

/// What a [`Lexer`] keeps.
#[derive(Debug, Clone, Copy)]
pub(in crate::dockerfile) struct Options {
    /// The escape character.
    pub(in crate::dockerfile) escape: char,
    /// Quotes quote, and stay in the result.
    pub(in crate::dockerfile) keep_quotes: bool,
    /// Escapes escape, and stay in the result.
    pub(in crate::dockerfile) keep_escapes: bool,
    /// Unset variables stay in the result as they are written.
    pub(in crate::dockerfile) keep_unset: bool,
    /// Quotes are characters like any other.
    pub(in crate::dockerfile) plain_quotes: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self { escape: '\\', keep_quotes: false, keep_escapes: false, keep_unset: false, plain_quotes: false }
    }
}

/// A word of the result.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::dockerfile) struct LexedWord {
    /// Its text.
    pub(in crate::dockerfile) text: String,
    /// The bytes of the input it comes from.
    pub(in crate::dockerfile) range: Range<usize>,
}

type Failure = (ExpandErrorKind, Range<usize>);

/// One pass over one text.
pub(in crate::dockerfile) struct Lexer<'a> {
    input: &'a str,
    position: usize,
    options: Options,
    env: &'a Env<'a>,
    unmatched: BTreeSet<String>,
    depth: usize,
}

impl<'a> Lexer<'a> {
    /// Returns the result as one text and as words, and the unset names.
    pub(in crate::dockerfile) fn run(
        input: &'a str,
        options: Options,
        env: &'a Env<'a>,
    ) -> Result<(String, Vec<LexedWord>, BTreeSet<String>), ExpandError> {
        let mut lexer = Self { input, position: 0, options, env, unmatched: BTreeSet::new(), depth: 0 };
        match lexer.until(None) {
            Ok((text, words)) => Ok((text, words, lexer.unmatched)),
            Err((kind, at)) => Err(ExpandError { kind, word: input.to_owned(), at }),
        }
    }

    fn peek(&self) -> Option<char> {
        self.input[self.position..].chars().next()
    }

    fn next(&mut self) -> Option<char> {
        let char = self.peek()?;
        self.position += char.len_utf8();
        Some(char)
    }

    fn eat(&mut self, char: char) -> bool {
        let found = self.peek() == Some(char);
        if found {
            self.position += char.len_utf8();
        }
        found
    }

    /// Reads up to `stop`, which is consumed, or to the end.
    fn until(&mut self, stop: Option<char>) -> Result<(String, Vec<LexedWord>), Failure> {
        let mut result = String::new();
        let mut words = Words::default();
        while let Some(char) = self.peek() {
            let start = self.position;
            if stop == Some(char) {
                self.next();
                return Ok((result, words.finish()));
            }
            match char {
                '$' => {
                    let value = self.dollar()?;
                    result.push_str(&value);
                    words.split(&value, start..self.position);
                }
                '\'' | '"' if !self.options.plain_quotes => {
                    let text = if char == '"' { self.double_quoted()? } else { self.single_quoted()? };
                    result.push_str(&text);
                    words.join(&text, start..self.position);
                }
                '<' if !self.options.plain_quotes => {
                    let text = self.less_than();
                    result.push_str(text);
                    words.join(text, start..self.position);
                }
                _ => {
                    self.next();
                    if char != self.options.escape {
                        result.push(char);
                        words.split(char.encode_utf8(&mut [0; 4]), start..self.position);
                        continue;
                    }
                    if self.options.keep_escapes {
                        result.push(char);
                        words.join(char.encode_utf8(&mut [0; 4]), start..self.position);
                    }
                    // An escape character at the end escapes nothing and disappears.
                    let Some(escaped) = self.next() else { break };
                    result.push(escaped);
                    words.join(escaped.encode_utf8(&mut [0; 4]), start..self.position);
                }
            }
        }
        match stop {
            // Which delimiter is missing is known by the caller.
            Some(_) => Err((ExpandErrorKind::MissingBrace, self.position..self.position)),
            None => Ok((result, words.finish())),
        }
    }

    /// `<<` and the blanks behind it belong to the word that follows: `<< EOF` is a heredoc.
    fn less_than(&mut self) -> &'a str {
        let start = self.position;
        self.next();
        if self.eat('<') {
            while self.peek().is_some_and(char::is_whitespace) {
                self.next();
            }
        }
        let input = self.input;
        &input[start..self.position]
    }

    fn single_quoted(&mut self) -> Result<String, Failure> {
        let start = self.position;
        let inner = start + 1;
        let Some(length) = self.input[inner..].find('\'') else {
            return Err((ExpandErrorKind::UnclosedQuote('\''), start..inner));
        };
        self.position = inner + length + 1;
        let kept = if self.options.keep_quotes { start..self.position } else { inner..inner + length };
        Ok(self.input[kept].to_owned())
    }

    fn double_quoted(&mut self) -> Result<String, Failure> {
        let start = self.position;
        let mut result = String::new();
        self.next();
        if self.options.keep_quotes {
            result.push('"');
        }
        loop {
            match self.peek() {
                None => return Err((ExpandErrorKind::UnclosedQuote('"'), start..start + 1)),
                Some('"') => {
                    self.next();
                    if self.options.keep_quotes {
                        result.push('"');
                    }
                    return Ok(result);
                }
                Some('$') => result.push_str(&self.dollar()?),
                Some(char) if char == self.options.escape => {
                    self.next();
                    if self.options.keep_escapes {
                        result.push(char);
                    }
                    match self.peek() {
                        None => {}
                        Some(escaped) if escaped == '"' || escaped == '$' || escaped == self.options.escape => {
                            self.next();
                            result.push(escaped);
                        }
                        // Within double quotes any other character keeps its escape character.
                        Some(_) => result.push(char),
                    }
                }
                Some(char) => {
                    self.next();
                    result.push(char);
                }
            }
        }
    }

    fn dollar(&mut self) -> Result<String, Failure> {
        let start = self.position;
        self.next();
        if self.peek() != Some('{') {
            let name = self.name();
            return Ok(match (name, self.value(name)) {
                ("", _) => "$".to_owned(),
                (_, Some(value)) => value,
                (name, None) if self.options.keep_unset => format!("${name}"),
                (_, None) => String::new(),
            });
        }
        if self.depth == MAX_DEPTH {
            return Err((ExpandErrorKind::TooDeep, start..self.position));
        }
        self.depth += 1;
        let value = self.braced(start);
        self.depth -= 1;
        value
    }

    /// `${…}`; `start` is the place of the dollar sign, the brace is next.
    fn braced(&mut self, start: usize) -> Result<String, Failure> {
        self.next();
        match self.peek() {
            None => return Err((ExpandErrorKind::MissingBrace, start..self.position)),
            Some('{' | '}' | ':') => return Err((ExpandErrorKind::MissingName, start..self.position)),
            Some(_) => {}
        }
        let name = self.name();
        let operator = self.position;
        match self.next() {
            None => Err((ExpandErrorKind::MissingBrace, start..self.position)),
            Some('}') => Ok(match self.value(name) {
                Some(value) => value,
                None if self.options.keep_unset => format!("${{{name}}}"),
                None => String::new(),
            }),
            Some(':') => {
                let char = self.next();
                match char {
                    Some(char @ ('-' | '+' | '?')) => self.conditional(name, char, true, start),
                    None => Err((ExpandErrorKind::MissingBrace, start..self.position)),
                    Some(_) => Err(self.unsupported(operator)),
                }
            }
            Some(char @ ('-' | '+' | '?')) => self.conditional(name, char, false, start),
            Some(char @ ('#' | '%')) => self.trimmed(name, char, start),
            Some('/') => self.replaced(name, start),
            Some(_) => Err(self.unsupported(operator)),
        }
    }

    fn unsupported(&self, operator: usize) -> Failure {
        let range = operator..self.position;
        (ExpandErrorKind::UnsupportedOperator(self.input[range.clone()].to_owned()), range)
    }

    /// `-`, `+`, `?`, with `empty_is_unset` when a colon stands before.
    fn conditional(
        &mut self,
        name: &str,
        operator: char,
        empty_is_unset: bool,
        start: usize,
    ) -> Result<String, Failure> {
        let word = self.operand('}', false, start)?;
        let value = self.value(name);
        if value.is_none() && self.options.keep_unset {
            let colon = if empty_is_unset { ":" } else { "" };
            return Ok(format!("${{{name}{colon}{operator}{word}}}"));
        }
        let unset = value.is_none();
        let value = value.filter(|value| !(empty_is_unset && value.is_empty()));
        match (operator, value) {
            ('-', None) | ('+', Some(_)) => Ok(word),
            ('?', None) => {
                let default = if unset { "is not allowed to be unset" } else { "is not allowed to be empty" };
                let message = if word.is_empty() { default.to_owned() } else { format!("is required: {word}") };
                Err((ExpandErrorKind::Required { name: name.to_owned(), message }, start..self.position))
            }
            (_, value) => Ok(value.unwrap_or_default()),
        }
    }

    /// `#`, `##`, `%`, `%%`
    fn trimmed(&mut self, name: &str, operator: char, start: usize) -> Result<String, Failure> {
        let word = self.operand('}', true, start)?;
        let Some(value) = self.value(name) else {
            return Ok(if self.options.keep_unset { format!("${{{name}{operator}{word}}}") } else { String::new() });
        };
        let (word, longest) = match word.strip_prefix(operator) {
            Some(rest) => (rest, true),
            None => (word.as_str(), false),
        };
        let side = if operator == '#' { Trim::Prefix } else { Trim::Suffix };
        let pattern = self.pattern(word, start)?;
        Ok(pattern::trim(&value, &pattern, side, longest).to_owned())
    }

    /// `/` and `//`
    fn replaced(&mut self, name: &str, start: usize) -> Result<String, Failure> {
        let all = self.eat('/');
        let word = match self.operand('/', true, start) {
            Err((ExpandErrorKind::MissingBrace, range)) => return Err((ExpandErrorKind::MissingSlash, range)),
            other => other?,
        };
        let replacement = self.operand('}', true, start)?;
        let value = self.value(name);
        if value.is_none() && self.options.keep_unset {
            return Ok(format!("${{{name}/{word}/{replacement}}}"));
        }
        let pattern = self.pattern(&word, start)?;
        Ok(pattern::replace(&value.unwrap_or_default(), &pattern, &replacement, all))
    }

    fn pattern(&self, word: &str, start: usize) -> Result<Vec<pattern::Token>, Failure> {
        pattern::parse(word)
            .ok_or_else(|| (ExpandErrorKind::InvalidPattern { pattern: word.to_owned() }, start..self.position))
    }

    /// Reads an operand up to `stop`. Patterns and replacements keep escapes, for they have their own.
    fn operand(&mut self, stop: char, keep_escapes: bool, start: usize) -> Result<String, Failure> {
        let outer = std::mem::replace(&mut self.options.keep_escapes, keep_escapes);
        let result = self.until(Some(stop));
        self.options.keep_escapes = outer;
        match result {
            Ok((text, _)) => Ok(text),
            Err((ExpandErrorKind::MissingBrace, _)) => Err((ExpandErrorKind::MissingBrace, start..self.position)),
            Err(other) => Err(other),
        }
    }

    /// Reads a name: digits, or one special character, or letters, digits and underscores.
    fn name(&mut self) -> &'a str {
        let input = self.input;
        let rest = &input[self.position..];
        let length = match rest.chars().next() {
            Some(char) if char.is_ascii_digit() => rest.find(|char: char| !char.is_ascii_digit()),
            Some('@' | '*' | '#' | '?' | '-' | '$' | '!') => Some(1),
            _ => rest.find(|char: char| !char.is_alphanumeric() && char != '_'),
        };
        let name = &rest[..length.unwrap_or(rest.len())];
        self.position += name.len();
        name
    }

    fn value(&mut self, name: &str) -> Option<String> {
        if name.is_empty() {
            return None;
        }
        let value = (self.env)(name);
        if value.is_none() {
            self.unmatched.insert(name.to_owned());
        }
        value
    }
}

/// The words found so far and the one in the making.
#[derive(Default)]
struct Words {
    done: Vec<LexedWord>,
    text: String,
    /// Whether a word has begun; an empty quoted text begins one that only counts if something follows.
    range: Option<Range<usize>>,
}

impl Words {
    /// Adds text whose white space separates words.
    fn split(&mut self, text: &str, range: Range<usize>) {
        for char in text.chars() {
            if !char.is_whitespace() {
                self.join(char.encode_utf8(&mut [0; 4]), range.clone());
            } else if !self.text.is_empty() {
                self.end();
            }
        }
    }

    /// Adds text that belongs together.
    fn join(&mut self, text: &str, range: Range<usize>) {
        self.text.push_str(text);
        let start = self.range.as_ref().map_or(range.start, |old| old.start);
        self.range = Some(start..range.end);
    }

    fn end(&mut self) {
        let text = std::mem::take(&mut self.text);
        if let Some(range) = self.range.take().filter(|_| !text.is_empty()) {
            self.done.push(LexedWord { text, range });
        }
    }

    fn finish(mut self) -> Vec<LexedWord> {
        self.end();
        self.done
    }
}
