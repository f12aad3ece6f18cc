//! Statements to typed instructions: flags known, arguments counted, values checked as far as no variable is needed.

mod from;
mod healthcheck;
mod run;
mod transfer;

use crate::diagnostic::{Diagnostic, Span, nearest};

use super::flags::{Flags, Known};
use super::statement::{Arguments, KEYWORDS, Keyword, Statement};
use super::{ArgDeclaration, Command, Heredoc, Instruction, InstructionKind, KeyValue, Word, heredoc};

/// What the instructions of one logical line share.
pub(super) struct Context<'a> {
    /// First and last line, heredocs included.
    pub(super) lines: (usize, usize),
    /// Offset behind the last byte, heredocs included.
    pub(super) end: usize,
    /// Collects what is no error.
    pub(super) warnings: &'a mut Vec<Diagnostic>,
}

/// Makes an instruction of a statement, the heredocs below it and the comments above it.
pub(super) fn build(
    statement: &Statement,
    heredocs: Vec<Heredoc>,
    comments: Vec<String>,
    context: &mut Context<'_>,
) -> Result<Instruction, Diagnostic> {
    let Some(keyword) = statement.keyword else { return Err(unknown(statement)) };
    let kind = build_kind(keyword, statement, heredocs, context)?;
    Ok(Instruction {
        span: Span::new(statement.word.span.start, context.end),
        keyword: statement.word.span,
        lines: context.lines,
        original: statement.whole.text.clone(),
        comments,
        kind,
    })
}

fn build_kind(
    keyword: Keyword,
    statement: &Statement,
    heredocs: Vec<Heredoc>,
    context: &mut Context<'_>,
) -> Result<InstructionKind, Diagnostic> {
    let has_flags =
        matches!(keyword, Keyword::From | Keyword::Run | Keyword::Copy | Keyword::Add | Keyword::Healthcheck);
    if !has_flags {
        check_flags(statement, &[])?;
    }
    let warnings = &mut *context.warnings;
    Ok(match keyword {
        Keyword::Onbuild => onbuild(statement, heredocs, context)?,
        Keyword::From => from::build(statement, warnings)?,
        Keyword::Run => InstructionKind::Run(run::build(statement, heredocs, warnings)?),
        Keyword::Copy => InstructionKind::Copy(transfer::build(statement, heredocs, transfer::COPY, warnings)?),
        Keyword::Add => InstructionKind::Add(transfer::build(statement, heredocs, transfer::ADD, warnings)?),
        Keyword::Healthcheck => InstructionKind::Healthcheck(healthcheck::build(statement, warnings)?),
        Keyword::Env => InstructionKind::Env(pairs(statement)?),
        Keyword::Label => InstructionKind::Label(pairs(statement)?),
        Keyword::Arg => InstructionKind::Arg(declarations(statement)?),
        Keyword::Workdir => InstructionKind::Workdir(text(statement)?),
        Keyword::User => InstructionKind::User(text(statement)?),
        Keyword::StopSignal => InstructionKind::StopSignal(text(statement)?),
        Keyword::Maintainer => InstructionKind::Maintainer(text(statement)?),
        Keyword::Shell => InstructionKind::Shell(shell(statement)?),
        Keyword::Cmd => InstructionKind::Cmd(command(statement, &statement.arguments, warnings)),
        Keyword::Entrypoint => InstructionKind::Entrypoint(command(statement, &statement.arguments, warnings)),
        Keyword::Expose => InstructionKind::Expose(words(statement)?.to_vec()),
        Keyword::Volume => InstructionKind::Volume(volumes(statement, warnings)?),
    })
}

fn onbuild(
    statement: &Statement,
    heredocs: Vec<Heredoc>,
    context: &mut Context<'_>,
) -> Result<InstructionKind, Diagnostic> {
    let Arguments::Statement(inner) = &statement.arguments else { return Err(missing_argument(statement)) };
    check_trigger(inner)?;
    let mut trigger = inner.raw.clone();
    for heredoc in &heredocs {
        trigger.push('\n');
        trigger.push_str(&heredoc.raw);
        trigger.push_str(&heredoc.name);
    }
    let instruction = Box::new(build(inner, heredocs, vec![], context)?);
    Ok(InstructionKind::Onbuild { trigger, instruction })
}

/// Refuses what cannot be a trigger.
pub(super) fn check_trigger(statement: &Statement) -> Result<(), Diagnostic> {
    if !matches!(statement.keyword, Some(Keyword::Onbuild | Keyword::From | Keyword::Maintainer)) {
        return Ok(());
    }
    let message = format!("{} cannot be the trigger of ONBUILD", statement.name());
    let error = Diagnostic::error("onbuild-trigger", message).at(statement.word.span);
    Err(match statement.keyword {
        Some(Keyword::Maintainer) => error.with_hint("write ONBUILD LABEL org.opencontainers.image.authors=\"…\""),
        _ => error,
    })
}

fn unknown(statement: &Statement) -> Diagnostic {
    let word = &statement.word;
    if word.text.is_empty() {
        let message = "a continuation line that no instruction begins";
        return Diagnostic::error("unknown-instruction", message)
            .at(word.span)
            .with_hint("remove the escape character");
    }
    let message = format!("{:?} is not an instruction", word.text);
    let error = Diagnostic::error("unknown-instruction", message).at(word.span);
    let blank = word.text.chars().find(|char| char.is_whitespace());
    if let Some(blank) = blank {
        // Invisible, and therefore worth more than a guess.
        let code = u32::from(blank);
        return error
            .with_note(format!("it holds the character U+{code:04X}, which looks like a blank but is none"))
            .with_hint("write a plain blank in its place");
    }
    let near = nearest(&word.text, KEYWORDS.iter().map(|(name, _)| *name));
    error.with_hint_if(near.map(|near| format!("did you mean {near}?")))
}

/// Checks flags, with the first argument at hand for the hint about a missing equals sign.
fn check_flags(statement: &Statement, known: Known) -> Result<Flags<'_>, Diagnostic> {
    let first = match &statement.arguments {
        Arguments::Words(words) | Arguments::Json(words) => words.first().map(|word| word.text.as_str()),
        Arguments::Text(text) => text.text.split_whitespace().next(),
        Arguments::Typed(kind, _) => Some(kind.text.as_str()),
        _ => None,
    };
    Flags::check(&statement.flags, known, statement.name(), first)
}

fn missing_argument(statement: &Statement) -> Diagnostic {
    let name = statement.name();
    let usage = match statement.keyword {
        Some(Keyword::Arg) => "NAME[=default]",
        Some(Keyword::Env | Keyword::Label) => "NAME=value",
        Some(Keyword::Expose) => "80/tcp",
        Some(Keyword::Healthcheck) => "CMD command",
        Some(Keyword::Onbuild) => "RUN command",
        Some(Keyword::Shell) => "[\"/bin/sh\", \"-c\"]",
        Some(Keyword::StopSignal) => "SIGTERM",
        Some(Keyword::User) => "name[:group]",
        Some(Keyword::Maintainer) => "name",
        _ => "/path",
    };
    Diagnostic::error("missing-argument", format!("{name} needs an argument"))
        .at(statement.word.span)
        .with_hint(format!("write {name} {usage}"))
}

fn text(statement: &Statement) -> Result<Word, Diagnostic> {
    match &statement.arguments {
        Arguments::Text(word) => Ok(word.clone()),
        _ => Err(missing_argument(statement)),
    }
}

fn words(statement: &Statement) -> Result<&[Word], Diagnostic> {
    match &statement.arguments {
        Arguments::Words(words) | Arguments::Json(words) if !words.is_empty() => Ok(words),
        _ => Err(missing_argument(statement)),
    }
}

fn pairs(statement: &Statement) -> Result<Vec<KeyValue>, Diagnostic> {
    let Arguments::Pairs(pairs) = &statement.arguments else { return Err(missing_argument(statement)) };
    match pairs.iter().find(|pair| pair.key.text.is_empty()) {
        Some(pair) => Err(blank_name(statement, &pair.key)),
        None => Ok(pairs.clone()),
    }
}

fn blank_name(statement: &Statement, key: &Word) -> Diagnostic {
    // Nothing stands there to be underlined but the equals sign.
    let span = Span::new(key.span.start, key.span.start + 1);
    Diagnostic::error("blank-name", format!("{} needs a name before \"=\"", statement.name()))
        .at(span)
        .with_hint("no blanks may stand around \"=\"")
}

fn declarations(statement: &Statement) -> Result<Vec<ArgDeclaration>, Diagnostic> {
    match &statement.arguments {
        Arguments::Declarations(found) if !found.is_empty() => {
            match found.iter().find(|arg| arg.name.text.is_empty()) {
                Some(arg) => Err(blank_name(statement, &arg.name)),
                None => Ok(found.clone()),
            }
        }
        _ => Err(missing_argument(statement)),
    }
}

fn shell(statement: &Statement) -> Result<Vec<String>, Diagnostic> {
    match &statement.arguments {
        Arguments::Json(words) if !words.is_empty() => Ok(texts(words)),
        Arguments::Text(word) => {
            let list: Vec<String> = word.text.split_whitespace().map(|part| format!("{part:?}")).collect();
            let is_list = word.text.starts_with('[');
            let error =
                Diagnostic::error("shell-not-json", "SHELL takes its arguments in JSON form only").at(word.span);
            Err(match is_list {
                true => error.with_hint("write a list of strings in double quotes: SHELL [\"/bin/sh\", \"-c\"]"),
                false => error.with_hint(format!("write SHELL [{}]", list.join(", "))),
            })
        }
        _ => Err(missing_argument(statement)),
    }
}

fn volumes(statement: &Statement, warnings: &mut Vec<Diagnostic>) -> Result<Vec<Word>, Diagnostic> {
    let words = words(statement)?;
    warn_of_broken_json(statement, words.first(), warnings);
    if let Some(word) = words.iter().find(|word| word.text.trim().is_empty()) {
        return Err(Diagnostic::error("empty-volume", "a volume cannot be empty").at(word.span));
    }
    Ok(words.iter().map(|word| Word { text: word.text.trim().to_owned(), span: word.span }).collect())
}

/// The command of `CMD`, `ENTRYPOINT`, `RUN` or `HEALTHCHECK CMD`; none at all is an empty shell command.
fn command(statement: &Statement, arguments: &Arguments, warnings: &mut Vec<Diagnostic>) -> Command {
    match arguments {
        Arguments::Json(words) => Command::Exec(texts(words)),
        Arguments::Text(word) => {
            warn_of_broken_json(statement, Some(word), warnings);
            Command::Shell(word.text.clone())
        }
        _ => Command::Shell(String::new()),
    }
}

fn texts(words: &[Word]) -> Vec<String> {
    words.iter().map(|word| word.text.clone()).collect()
}

/// What looks like JSON and is none is taken as it stands, brackets and quotes included: rarely what was meant.
/// `[ -f x ]` is a command, so only a quote right behind the bracket counts.
fn warn_of_broken_json(statement: &Statement, word: Option<&Word>, warnings: &mut Vec<Diagnostic>) {
    let is_json = matches!(statement.arguments, Arguments::Json(_));
    let Some(word) = word.filter(|word| !is_json && (word.text.starts_with("[\"") || word.text.starts_with("['")))
    else {
        return;
    };
    let warning =
        Diagnostic::warning("broken-json-form", format!("the arguments of {} are not valid JSON", statement.name()))
            .at(word.span)
            .with_note("they are taken as plain text, brackets and quotes included")
            .with_hint(
                "use double quotes, commas between the strings, none behind the last, and \"\\\\\" for a backslash",
            );
    warnings.push(warning);
}
