//! Text to [`Dockerfile`]: reads logical lines, takes them apart, types them, and goes on behind an error where the rest
//! still means something.

use crate::diagnostic::{Diagnostic, Span};

use super::directives::{self, Directives};
use super::heredoc::{self, Bodies};
use super::instructions::{self, Context};
use super::lines::{Joined, Lines, LogicalLine, next_logical};
use super::statement::Statement;
use super::{Dockerfile, Heredoc, Instruction, InstructionKind};

/// A Dockerfile and what is to be said about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parsed {
    /// The Dockerfile.
    pub dockerfile: Dockerfile,
    /// What works but is likely not meant, in order of the source.
    pub warnings: Vec<Diagnostic>,
}

/// A Dockerfile as far as it can be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recovered {
    /// The instructions that are well-formed. Without an error below it is the whole Dockerfile.
    pub dockerfile: Dockerfile,
    /// What is wrong, and what works but is likely not meant, in order of the source.
    pub diagnostics: Vec<Diagnostic>,
}

impl Dockerfile {
    /// Parses a Dockerfile, see [`Self::parse_with_warnings`].
    ///
    /// # Errors
    ///
    /// As there, without the warnings.
    pub fn parse(text: &str) -> Result<Self, Vec<Diagnostic>> {
        match Self::parse_with_warnings(text) {
            Ok(parsed) => Ok(parsed.dockerfile),
            Err(diagnostics) => Err(diagnostics.into_iter().filter(Diagnostic::is_error).collect()),
        }
    }

    /// Parses a Dockerfile. Nothing is expanded and no image is looked up.
    ///
    /// # Errors
    ///
    /// Everything that is wrong as far as it can be told, with the warnings, in order of the source.
    pub fn parse_with_warnings(text: &str) -> Result<Parsed, Vec<Diagnostic>> {
        let Recovered { dockerfile, diagnostics } = Self::recover(text);
        if diagnostics.iter().any(Diagnostic::is_error) {
            return Err(diagnostics);
        }
        Ok(Parsed { dockerfile, warnings: diagnostics })
    }

    /// Parses as much of a Dockerfile as can be read: behind an error, what follows is read as if it were not there.
    /// For those who want to say as much as possible about a file; a build needs [`Self::parse_with_warnings`].
    pub fn recover(text: &str) -> Recovered {
        let mut scanned = scan(text);
        let mut instructions = vec![];
        // Whether an instruction before is not known: it may have been the FROM that is missed.
        let mut after_error = false;
        let mut previous_unknown: Option<usize> = None;
        for item in std::mem::take(&mut scanned.items) {
            let unit = match item {
                Ok(unit) => unit,
                Err(error) => {
                    scanned.diagnostics.push(error);
                    after_error = true;
                    continue;
                }
            };
            let first_line = unit.lines.0;
            let last_line = unit.lines.1;
            let is_unknown = unit.statement.keyword.is_none();
            match unit.build(&mut scanned.diagnostics) {
                Ok(instruction) => {
                    scanned.diagnostics.extend(check_stage(&instructions, &instruction).filter(|_| !after_error));
                    instructions.push(instruction);
                }
                // The lines of a script without its heredoc are one mistake, not twenty.
                Err(_) if is_unknown && previous_unknown.is_some_and(|line| line + 1 == first_line) => {}
                Err(error) => {
                    after_error = true;
                    scanned.diagnostics.push(explain_unknown(error, is_unknown, &instructions, first_line));
                }
            }
            previous_unknown = is_unknown.then_some(last_line);
        }
        let Scanned { directives, mut diagnostics, .. } = scanned;
        diagnostics.extend(check_end(&instructions).filter(|_| !after_error));
        diagnostics.sort_by_key(|diagnostic| diagnostic.primary.as_ref().map(|label| label.span.start));
        let escape = directives.escape();
        let Directives { syntax, check, .. } = directives;
        Recovered { dockerfile: Self { escape, syntax, check, instructions }, diagnostics }
    }

    /// Parses a trigger from the config of a base image, as `ONBUILD` stores it: one instruction on one line, heredocs
    /// below it. Spans are those of `text`.
    ///
    /// # Errors
    ///
    /// The text is not exactly one instruction, or one that cannot be a trigger: `ONBUILD`, `FROM`, `MAINTAINER`.
    pub fn parse_trigger(text: &str, escape: char) -> Result<Instruction, Diagnostic> {
        let mut lines = Lines::new(text);
        let mut directives = Directives::for_trigger(escape);
        let logical = next_logical(&mut lines, &mut directives);
        let logical = logical.ok_or_else(|| Diagnostic::error("onbuild-trigger", "the trigger is empty"))?;
        let mut unit = Unit::parse(logical, &mut lines, escape)?;
        instructions::check_trigger(&unit.statement)?;
        if let Some(surplus) = next_logical(&mut lines, &mut directives) {
            let span = surplus.joined.span(0..surplus.joined.text().len());
            return Err(Diagnostic::error("onbuild-trigger", "the trigger is more than one instruction").at(span));
        }
        unit.comments.clear();
        unit.build(&mut vec![])
    }
}

/// A statement with all that stands around it.
#[derive(Debug)]
pub(super) struct Unit {
    /// The statement.
    pub(super) statement: Statement,
    /// The heredocs below it.
    pub(super) heredocs: Vec<Heredoc>,
    /// First and last line, heredocs included.
    pub(super) lines: (usize, usize),
    end: usize,
    comments: Vec<String>,
}

impl Unit {
    fn parse(logical: LogicalLine, lines: &mut Lines<'_>, escape: char) -> Result<Self, Diagnostic> {
        let statement = Statement::parse(&logical.joined, escape)?;
        let Bodies { heredocs, last } = match statement.may_have_heredocs() {
            true => heredoc::read(&logical.joined, lines)?,
            false => Bodies::default(),
        };
        let (last_line, end) = last.unwrap_or((logical.lines.1, logical.end));
        let lines = (logical.lines.0, last_line);
        Ok(Self { statement, heredocs, lines, end, comments: logical.comments })
    }

    fn build(self, warnings: &mut Vec<Diagnostic>) -> Result<Instruction, Diagnostic> {
        let mut context = Context { lines: self.lines, end: self.end, warnings };
        instructions::build(&self.statement, self.heredocs, self.comments, &mut context)
    }
}

/// A Dockerfile taken apart, before its instructions are typed.
#[derive(Debug)]
pub(super) struct Scanned {
    /// The statements in order, or why a line is none.
    pub(super) items: Vec<Result<Unit, Diagnostic>>,
    /// The parser directives.
    pub(super) directives: Directives,
    /// What is wrong outside of statements, and warnings.
    pub(super) diagnostics: Vec<Diagnostic>,
}

/// Takes a Dockerfile apart.
pub(super) fn scan(text: &str) -> Scanned {
    let mut lines = Lines::new(text);
    let mut directives = Directives::new();
    let mut items = vec![];
    let mut diagnostics: Vec<Diagnostic> = directives::behind_shebang(text).into_iter().collect();
    while let Some(logical) = next_logical(&mut lines, &mut directives) {
        diagnostics.extend(empty_continuation(&logical.joined, &logical.empty_lines));
        items.push(Unit::parse(logical, &mut lines, directives.escape()));
    }
    diagnostics.append(&mut directives.errors);
    Scanned { items, directives, diagnostics }
}

fn empty_continuation(joined: &Joined, empty_lines: &[Span]) -> Option<Diagnostic> {
    let first = empty_lines.first()?;
    let mut warning = Diagnostic::warning("no-empty-continuation", "an empty line inside an instruction")
        .labelled(*first, "the instruction goes on below")
        .with_hint("remove the empty line, or make it a comment: \"#\"")
        .with_url("https://docs.docker.com/go/dockerfile/rule/no-empty-continuation/");
    let keyword = joined.text().split_whitespace().next().unwrap_or_default();
    if let Some(start) = joined.text().find(keyword).filter(|_| !keyword.is_empty()) {
        warning = warning.with_secondary(joined.span(start..start + keyword.len()), "this instruction");
    }
    Some(warning)
}

/// Only `ARG` may stand before the first `FROM`; told once.
fn check_stage(before: &[Instruction], instruction: &Instruction) -> Option<Diagnostic> {
    let opens = |kind: &InstructionKind| !matches!(kind, InstructionKind::Arg(_));
    if before.iter().any(|instruction| opens(&instruction.kind)) || !opens(&instruction.kind) {
        return None;
    }
    match instruction.kind {
        InstructionKind::From { .. } => None,
        _ => Some(
            Diagnostic::error("no-build-stage", "this stands before the first FROM, where only ARG may stand")
                .at(instruction.keyword)
                .with_hint("begin the stage with FROM, or with FROM scratch for an empty image"),
        ),
    }
}

fn check_end(instructions: &[Instruction]) -> Option<Diagnostic> {
    let is_arg = |instruction: &Instruction| matches!(instruction.kind, InstructionKind::Arg(_));
    if instructions.is_empty() {
        let error = Diagnostic::error("empty-dockerfile", "the Dockerfile has no instructions");
        return Some(error.at(Span::default()).with_hint("begin with FROM image"));
    }
    let last = instructions.last().filter(|_| instructions.iter().all(is_arg))?;
    Some(
        Diagnostic::error("no-build-stage", "the Dockerfile has no FROM")
            .at(last.keyword)
            .with_hint("begin a stage with FROM, or with FROM scratch for an empty image"),
    )
}

/// A line that is no instruction is often meant to belong to the one above it.
fn explain_unknown(error: Diagnostic, is_unknown: bool, before: &[Instruction], line: usize) -> Diagnostic {
    let Some(above) = before.last().filter(|above| is_unknown && error.hints.is_empty() && above.lines.1 + 1 == line)
    else {
        return error;
    };
    let is_command = matches!(
        above.kind,
        InstructionKind::Run(_)
            | InstructionKind::Cmd(_)
            | InstructionKind::Entrypoint(_)
            | InstructionKind::Onbuild { .. }
    );
    if above.original.contains("<<") && is_command {
        return error
            .with_secondary(above.keyword, "no heredoc was found in this instruction")
            .with_hint("a heredoc marker stands alone, in RUN, COPY or ADD: RUN command <<EOF");
    }
    error
        .with_secondary(above.keyword, "this instruction ends in the line above")
        .with_hint("if the line belongs to it, put the escape character at the end of the line above")
}
