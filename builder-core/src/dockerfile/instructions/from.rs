//! `FROM [--platform=P] IMAGE [AS NAME]`

use crate::diagnostic::Diagnostic;

use super::super::flags::{Kind, Known};
use super::super::statement::{Arguments, Statement};
use super::super::{InstructionKind, Word};
use super::check_flags;

const FLAGS: Known = &[("platform", Kind::One)];
/// Names that mean something else where a stage can be named.
const RESERVED: &[&str] = &["scratch", "context"];

pub(super) fn build(statement: &Statement, warnings: &mut Vec<Diagnostic>) -> Result<InstructionKind, Diagnostic> {
    let flags = check_flags(statement, FLAGS)?;
    let words = match &statement.arguments {
        Arguments::Words(words) => words.as_slice(),
        _ => &[],
    };
    let (image, name) = match words {
        [image] => (image.clone(), None),
        [image, keyword, name] if keyword.text.eq_ignore_ascii_case("as") => (image.clone(), Some(stage_name(name)?)),
        words => return Err(arity(statement, words)),
    };
    if let Some(name) = name.as_ref().filter(|name| RESERVED.contains(&name.text.as_str())) {
        let warning = Diagnostic::warning("reserved-stage-name", format!("the stage name {:?} is reserved", name.text))
            .at(name.span)
            .with_hint("choose another name")
            .with_url("https://docs.docker.com/go/dockerfile/rule/reserved-stage-name/");
        warnings.push(warning);
    }
    Ok(InstructionKind::From { image, platform: flags.one("platform"), name })
}

/// `[a-z][a-z0-9-_.]*` after lower-casing.
fn stage_name(word: &Word) -> Result<Word, Diagnostic> {
    let text = word.text.to_lowercase();
    let is_inner = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || matches!(char, '-' | '_' | '.');
    if text.starts_with(|char: char| char.is_ascii_lowercase()) && text.chars().all(is_inner) {
        return Ok(Word { text, span: word.span });
    }
    Err(Diagnostic::error("stage-name", format!("{:?} cannot name a stage", word.text))
        .at(word.span)
        .with_note("a stage name begins with a letter and goes on with letters, digits, \"-\", \"_\" and \".\""))
}

fn arity(statement: &Statement, words: &[Word]) -> Diagnostic {
    let error = Diagnostic::error("from-arguments", "FROM takes an image, or an image, AS and a name");
    match words {
        [] => error.at(statement.word.span).with_hint("write FROM image or FROM image AS name"),
        [image, keyword] if keyword.text.eq_ignore_ascii_case("as") => {
            error.labelled(keyword.span, "no name behind it").with_hint(format!("write FROM {} AS name", image.text))
        }
        [image, name] => error.at(name.span).with_hint(format!("write FROM {} AS {}", image.text, name.text)),
        [image, keyword, name, surplus, ..] if keyword.text.eq_ignore_ascii_case("as") => {
            error.labelled(surplus.span, "too much").with_hint(format!("write FROM {} AS {}", image.text, name.text))
        }
        [image, rest @ ..] => {
            let span = rest.iter().fold(rest[0].span, |span, word| span.to(word.span));
            error.at(span).with_hint(format!("write FROM {} AS name", image.text))
        }
    }
}
