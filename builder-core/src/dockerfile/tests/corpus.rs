//! A corpus of Dockerfiles and words with what BuildKit makes of them, read from `$BUILDER_CONFORMANCE_DIR/parser`.
//!
//! It is not part of this repository, so the tests are skipped where the variable is not set.

use std::path::PathBuf;

use serde_json::Value;

use super::super::expand::{ExpandErrorKind, expand_word, expand_words};
use super::super::parse::{Unit, scan};
use super::super::statement::{Arguments, Statement};
use super::super::{ArgDeclaration, Dockerfile, Heredoc, Word};
use crate::diagnostic::{Diagnostic, SourceFile};

fn read(test: &str, file: &str) -> Option<Vec<Value>> {
    let Some(folder) = std::env::var_os("BUILDER_CONFORMANCE_DIR") else {
        eprintln!("SKIP {test}: BUILDER_CONFORMANCE_DIR is not set");
        return None;
    };
    let path = PathBuf::from(folder).join("parser").join(file);
    let bytes = std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Some(serde_json::from_slice(&bytes).expect("the corpus is JSON"))
}

fn text<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    value.get(key).and_then(Value::as_str)
}

fn strings(value: &Value, key: &str) -> Vec<String> {
    let list = value.get(key).and_then(Value::as_array);
    list.into_iter().flatten().map(|item| item.as_str().expect("a string").to_owned()).collect()
}

fn report(test: &str, failures: &[String], count: usize) {
    eprintln!("{test}: {} of {count} agree", count - failures.len());
    assert!(failures.is_empty(), "{}", failures.join("\n"));
}

#[test]
fn parser_corpus() {
    let Some(cases) = read("parser_corpus", "dockerfiles.json") else { return };
    let failures: Vec<String> = cases
        .iter()
        .filter_map(|case| {
            let difference = compare(case).err()?;
            Some(format!("{}: {difference}\n{}", case["name"], text(case, "dockerfile")?))
        })
        .collect();
    report("parser_corpus", &failures, cases.len());
}

fn compare(case: &Value) -> Result<(), String> {
    let source = text(case, "dockerfile").ok_or("no dockerfile")?;
    let parsed = Dockerfile::parse_with_warnings(source);
    let diagnostics = match &parsed {
        Ok(parsed) => &parsed.warnings,
        Err(diagnostics) => diagnostics,
    };
    let errors: Vec<&Diagnostic> = diagnostics.iter().filter(|diagnostic| diagnostic.is_error()).collect();
    if let Some(message) = text(case, "error") {
        return expect(&errors, source, message);
    }
    compare_statements(case, source)?;
    let warned = diagnostics.iter().filter(|diagnostic| diagnostic.code == "no-empty-continuation").count();
    if warned != strings(case, "warnings").len() {
        return Err(format!("{warned} warnings"));
    }
    match text(case, "instruction_error") {
        Some(message) => expect(&errors, source, message),
        // Errors of our own: a frontend other than the built-in one, and a file of `ARG` alone, which elsewhere fails
        // only later.
        None => match errors.iter().find(|error| !["foreign-syntax", "no-build-stage"].contains(&&*error.code)) {
            Some(error) => Err(format!("unexpected {error:?}")),
            None => Ok(()),
        },
    }
}

/// What the corpus says and the code that stands for it here.
const CODES: &[(&str, &str)] = &[
    ("file with no instructions", "empty-dockerfile"),
    ("no build stage in current context", "no-build-stage"),
    ("unterminated heredoc", "unterminated-heredoc"),
    ("parser directive can be used", "duplicate-directive"),
    ("invalid escape token", "escape-directive"),
    ("arrays must be comprised of strings only", "json-not-strings"),
    ("must have two arguments", "missing-value"),
    ("can't find = in", "missing-equals"),
    ("names can not be blank", "blank-name"),
    ("unknown instruction", "unknown-instruction"),
    ("unknown flag", "unknown-flag"),
    ("missing a value on flag", "flag-without-value"),
    ("requires at least one argument", "missing-argument"),
    ("requires at least two arguments", "missing-destination"),
    ("FROM requires either one or three arguments", "from-arguments"),
    ("invalid name for build stage", "stage-name"),
    ("Chaining ONBUILD", "onbuild-trigger"),
    ("isn't allowed as an ONBUILD trigger", "onbuild-trigger"),
    ("requires the arguments to be in JSON form", "shell-not-json"),
    ("missing unit in duration", "flag-value"),
    ("invalid network mode", "flag-value"),
    ("HEALTHCHECK NONE takes no arguments", "healthcheck-none-arguments"),
    ("in HEALTHCHECK (try CMD)", "healthcheck-type"),
    ("doesn't support variable expansion", "mount-from-variable"),
];

fn expect(errors: &[&Diagnostic], source: &str, message: &str) -> Result<(), String> {
    let found = CODES.iter().find(|(part, _)| message.contains(part));
    let (_, code) = found.ok_or_else(|| format!("no code is known for {message:?}"))?;
    let line = message.split_once(" on line ").and_then(|(_, rest)| rest.split(':').next()?.parse::<usize>().ok());
    let suggested = message.split_once("(did you mean ").map(|(_, rest)| rest.trim_end_matches("?)").to_uppercase());
    let file = SourceFile::new("Dockerfile", source);
    let agrees = |error: &&&Diagnostic| {
        let start = error.primary.as_ref().map_or(0, |label| label.span.start);
        let says = |name: &String| error.hints.iter().any(|hint| hint.contains(name));
        error.code == *code
            && line.is_none_or(|line| file.location(start).line == line)
            && suggested.as_ref().is_none_or(|name| says(name) || source.contains('\u{a0}'))
    };
    match errors.iter().find(agrees) {
        Some(_) => Ok(()),
        None => Err(format!("expected {message:?}, got {errors:?}")),
    }
}

fn compare_statements(case: &Value, source: &str) -> Result<(), String> {
    let scanned = scan(source);
    if text(case, "escape") != Some(scanned.directives.escape().to_string().as_str()) {
        return Err(format!("escape is {}", scanned.directives.escape()));
    }
    let expected = case["instructions"].as_array().ok_or("no instructions")?;
    if scanned.items.len() != expected.len() {
        return Err(format!("{} statements", scanned.items.len()));
    }
    for (item, expected) in scanned.items.iter().zip(expected) {
        let unit = item.as_ref().map_err(|error| format!("{error:?}"))?;
        let actual = node(unit);
        if actual != *expected {
            return Err(format!("expected {expected}\n     got {actual}"));
        }
    }
    Ok(())
}

fn node(unit: &Unit) -> Value {
    let mut node = statement(&unit.statement);
    node["lines"] = serde_json::json!([unit.lines.0, unit.lines.1]);
    if !unit.heredocs.is_empty() {
        node["heredocs"] = unit.heredocs.iter().map(heredoc).collect();
    }
    node
}

fn statement(statement: &Statement) -> Value {
    let mut node = serde_json::json!({ "instruction": statement.word.text, "args": [] });
    if !statement.flags.is_empty() {
        node["flags"] = statement.flags.iter().map(|flag| flag.text.as_str()).collect();
    }
    let mut arguments = vec![];
    let is_json = collect(&statement.arguments, &mut arguments);
    node["args"] = arguments.into();
    if is_json {
        node["json"] = true.into();
    }
    if let Arguments::Statement(inner) = &statement.arguments {
        node["children"] = serde_json::json!([self::statement(inner)]);
    }
    node
}

fn collect(arguments: &Arguments, into: &mut Vec<String>) -> bool {
    let mut add = |word: &Word| into.push(word.text.clone());
    match arguments {
        Arguments::None | Arguments::Statement(_) => {}
        Arguments::Unknown => into.push(String::new()),
        Arguments::Text(word) => add(word),
        Arguments::Words(words) => words.iter().for_each(add),
        Arguments::Json(words) => {
            words.iter().for_each(add);
            return true;
        }
        Arguments::Pairs(pairs) => {
            for pair in pairs {
                let separator = if pair.legacy { "" } else { "=" };
                into.extend([pair.key.text.clone(), pair.value.text.clone(), separator.to_owned()]);
            }
        }
        Arguments::Declarations(declarations) => {
            for ArgDeclaration { name, default } in declarations {
                let default = default.as_ref().map(|default| format!("={}", default.text));
                into.push(format!("{}{}", name.text, default.unwrap_or_default()));
            }
        }
        Arguments::Typed(kind, command) => {
            add(kind);
            return collect(command, into);
        }
    }
    false
}

fn heredoc(heredoc: &Heredoc) -> Value {
    serde_json::json!({
        "name": heredoc.name,
        "fd": heredoc.fd.unwrap_or(0),
        "expand": heredoc.expand,
        "chomp": heredoc.chomp,
        "content": heredoc.raw,
    })
}

#[test]
fn word_corpus() {
    let Some(cases) = read("word_corpus", "words.json") else { return };
    let failures: Vec<String> =
        cases.iter().filter_map(|case| Some(format!("{}: {}", case, compare_word(case).err()?))).collect();
    report("word_corpus", &failures, cases.len());
}

fn compare_word(case: &Value) -> Result<(), String> {
    let word = text(case, "word").ok_or("no word")?;
    let escape = text(case, "escape").and_then(|text| text.chars().next()).unwrap_or('\\');
    let pairs = strings(case, "env");
    let env = |name: &str| {
        let values = pairs.iter().rev().map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        values.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
    };
    let expanded = expand_word(word, escape, &env);
    let words = expand_words(word, escape, &env);
    if let Some(message) = text(case, "error") {
        let (Err(error), Err(_)) = (expanded, words) else { return Err("no error".to_owned()) };
        return if message_fits(&error.kind, message) { Ok(()) } else { Err(format!("{error:?}")) };
    }
    if let Some(expected) = text(case, "result") {
        let actual = expanded.map_err(|error| error.to_string())?.text;
        return if actual == expected { Ok(()) } else { Err(format!("got {actual:?}")) };
    }
    let actual = words.map_err(|error| error.to_string())?;
    if actual == strings(case, "results") { Ok(()) } else { Err(format!("got {actual:?}")) }
}

fn message_fits(kind: &ExpandErrorKind, message: &str) -> bool {
    let part = match kind {
        ExpandErrorKind::UnclosedQuote('\'') => "matching single-quote".to_owned(),
        ExpandErrorKind::UnclosedQuote(_) => "matching double-quote".to_owned(),
        // A missing brace right behind the name is an odd operator there.
        ExpandErrorKind::MissingBrace if message.contains("modifier (\u{fffd})") => return true,
        ExpandErrorKind::MissingBrace => "missing '}'".to_owned(),
        ExpandErrorKind::MissingSlash => "missing '/'".to_owned(),
        ExpandErrorKind::MissingName => "bad substitution".to_owned(),
        ExpandErrorKind::UnsupportedOperator(operator) => format!("unsupported modifier ({operator})"),
        ExpandErrorKind::Required { name, message } => {
            format!("{name}: {}", message.trim_start_matches("is required: "))
        }
        ExpandErrorKind::InvalidPattern { pattern } => format!("invalid pattern ({pattern})"),
        ExpandErrorKind::TooDeep => return false,
    };
    message.contains(&part)
}
