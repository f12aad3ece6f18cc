//! Stages of a Dockerfile: where they start, how they are called, which one is asked for.

use super::Problem;
use crate::diagnostic::{Diagnostic, Span, nearest};
use crate::dockerfile::{ArgDeclaration, Dockerfile, Instruction, InstructionKind, Word};

/// One stage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Stage<'a> {
    /// Its number, from 0.
    pub(super) index: usize,
    /// Its `FROM`.
    pub(super) from: &'a Instruction,
    /// What it builds on.
    pub(super) image: &'a Word,
    /// `--platform`
    pub(super) platform: Option<&'a Word>,
    /// Its name.
    pub(super) name: Option<&'a Word>,
    /// What follows the `FROM`.
    pub(super) instructions: &'a [Instruction],
}

/// A Dockerfile, taken apart.
#[derive(Debug)]
pub(super) struct Stages<'a> {
    /// `ARG`s before the first `FROM`.
    pub(super) globals: Vec<&'a ArgDeclaration>,
    /// The stages; at least one.
    pub(super) all: Vec<Stage<'a>>,
}

/// What a `--from` means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum FromName {
    /// An earlier stage.
    Stage(usize),
    /// A context or an image.
    External(String),
}

impl<'a> Stages<'a> {
    /// Splits `dockerfile` at its `FROM`s.
    ///
    /// # Errors
    /// There is no `FROM`, or something that needs a stage stands before the first.
    pub(super) fn split(dockerfile: &'a Dockerfile) -> Result<Self, Problem> {
        let mut stages = Self { globals: vec![], all: vec![] };
        let instructions = &dockerfile.instructions;
        for (at, instruction) in instructions.iter().enumerate() {
            match &instruction.kind {
                InstructionKind::From { image, platform, name } => {
                    let after = &instructions[at + 1..];
                    let end = after.iter().position(|next| matches!(next.kind, InstructionKind::From { .. }));
                    stages.all.push(Stage {
                        index: stages.all.len(),
                        from: instruction,
                        image,
                        platform: platform.as_ref(),
                        name: name.as_ref(),
                        instructions: &after[..end.unwrap_or(after.len())],
                    });
                }
                InstructionKind::Arg(declarations) if stages.all.is_empty() => stages.globals.extend(declarations),
                _ if stages.all.is_empty() => {
                    let problem = Diagnostic::error("no-stage", "only ARG may stand before the first FROM");
                    return Err(Box::new(problem.at(instruction.keyword)));
                }
                _ => {}
            }
        }
        if stages.all.is_empty() {
            let problem = Diagnostic::error("no-stage", "the Dockerfile has no FROM, so there is nothing to build");
            return Err(Box::new(problem));
        }
        Ok(stages)
    }

    /// Returns the stage that `target` names, by name in any case or by number; the last one if there is none.
    ///
    /// # Errors
    /// There is no such stage.
    pub(super) fn target(&self, target: Option<&str>) -> Result<usize, Problem> {
        let last = self.all.len() - 1;
        let Some(target) = target.filter(|target| !target.is_empty()) else { return Ok(last) };
        if let Some(index) = self.named(target, self.all.len()) {
            return Ok(index);
        }
        if let Some(index) = number(target).filter(|index| *index <= last) {
            return Ok(index);
        }
        let near = nearest(target, self.names());
        let mut problem = Diagnostic::error("target-unknown", format!("there is no stage {target:?} to build"))
            .with_hint_if(near.map(|near| format!("did you mean {near:?}?")));
        let names: Vec<String> = self.names().map(|name| format!("{name:?}")).collect();
        problem = if names.is_empty() {
            problem.with_note(format!("no stage has a name; numbers go from 0 to {last}"))
        } else {
            problem.with_note(format!("stages are {}", names.join(", ")))
        };
        Err(Box::new(problem))
    }

    /// Returns the last stage before `before` with the name `name`, in any case.
    pub(super) fn named(&self, name: &str, before: usize) -> Option<usize> {
        self.all[..before].iter().rposition(|stage| stage.is_called(name))
    }

    /// Tells what `name`, the `--from` at `span` in stage `current`, means.
    ///
    /// # Errors
    /// It is the stage itself, a later one, or a number without a stage.
    pub(super) fn means(&self, name: &str, span: Span, current: usize) -> Result<FromName, Problem> {
        let found = match number(name) {
            Some(index) if index >= self.all.len() => {
                let last = self.all.len() - 1;
                let problem = Diagnostic::error("stage-unknown", format!("there is no stage {index}"))
                    .at(span)
                    .with_note(format!("stages are counted from 0, the last one is {last}"));
                return Err(Box::new(problem));
            }
            Some(index) => Some(index),
            None => self.named(name, current).or_else(|| self.named(name, self.all.len())),
        };
        let Some(index) = found else { return Ok(FromName::External(name.to_owned())) };
        if index < current {
            return Ok(FromName::Stage(index));
        }
        let stage = &self.all[index];
        let problem = if index == current {
            Diagnostic::error("stage-circular", format!("stage {name:?} takes files from itself")).at(span)
        } else {
            Diagnostic::error("stage-later", format!("stage {name:?} starts further down"))
                .at(span)
                .with_hint("move it before the stage that takes files from it")
        };
        Err(Box::new(problem.with_secondary(stage.from.keyword, "it starts here")))
    }

    /// Returns the names of stages.
    pub(super) fn names(&self) -> impl Iterator<Item = &'a str> {
        self.all.iter().filter_map(|stage| stage.name).map(|name| name.text.as_str())
    }

    /// Returns every name that an `ARG` in the file declares.
    pub(super) fn declared_args(&self) -> Vec<&'a str> {
        let in_stages = self.all.iter().flat_map(|stage| stage.instructions).flat_map(arguments);
        self.globals.iter().copied().chain(in_stages).map(|arg| arg.name.text.as_str()).collect()
    }
}

impl Stage<'_> {
    fn is_called(&self, name: &str) -> bool {
        self.name.is_some_and(|own| own.text.eq_ignore_ascii_case(name))
    }

    /// Returns its name or its number.
    pub(super) fn name_or_number(&self) -> String {
        self.name.map_or_else(|| self.index.to_string(), |name| name.text.clone())
    }

    /// Returns how it is shown: its name or `stage-N`.
    pub(super) fn shown(&self) -> String {
        self.name.map_or_else(|| format!("stage-{}", self.index), |name| name.text.clone())
    }
}

/// Returns what an `ARG`, or an `ONBUILD ARG`, declares.
pub(super) fn arguments(instruction: &Instruction) -> &[ArgDeclaration] {
    match &instruction.kind {
        InstructionKind::Arg(declarations) => declarations,
        InstructionKind::Onbuild { instruction, .. } => arguments(instruction),
        _ => &[],
    }
}

fn number(text: &str) -> Option<usize> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}
