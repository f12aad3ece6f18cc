//! `SOURCE_DATE_EPOCH`: the one build arg that also dates the image.

use super::resolve::Contexts;
use super::scope::{BuildArgs, Env};
use super::stages::{Stage, Stages};
use super::{Error, Problem};
use crate::diagnostic::Diagnostic;
use crate::dockerfile::InstructionKind;

const NAME: &str = "SOURCE_DATE_EPOCH";

/// Returns the seconds since 1970 that the build arg or a global `ARG` says.
///
/// An empty value, `context` and the name of a context mean no date, since files of a local context have none; then the
/// variable is not set at all.
///
/// # Errors
/// The value is something else.
pub(super) fn resolve(
    args: &mut BuildArgs,
    globals: &mut Env,
    stages: &Stages<'_>,
    contexts: &Contexts,
) -> Result<Option<i64>, Error> {
    let from_global = || globals.get(NAME).filter(|value| !value.is_empty());
    let Some(value) = args.get(NAME).or_else(from_global) else { return Ok(None) };
    let seconds = match value.parse::<i64>() {
        Ok(seconds) => return Ok(Some(seconds)),
        Err(_) if value.is_empty() || value == "context" || contexts.is_known(value) => None,
        Err(_) => return Err(source_stage_problem(value, stages).into()),
    };
    args.remove(NAME);
    globals.remove(NAME);
    Ok(seconds)
}

/// Says why `value` cannot be a date: at best it names a stage that would have one if it were fetched.
fn source_stage_problem(value: &str, stages: &Stages<'_>) -> Problem {
    let declared = stages.globals.iter().find(|arg| arg.name.text == NAME);
    let place = |problem: Diagnostic| match declared {
        Some(arg) => problem.at(arg.default.as_ref().unwrap_or(&arg.name).span),
        None => problem,
    };
    let Some(index) = stages.named(value, stages.all.len()) else {
        let problem = Diagnostic::error("source-date-epoch-invalid", format!("{value:?} is no {NAME}"));
        return Box::new(place(problem).with_hint("give seconds since 1970-01-01 00:00 UTC"));
    };
    let stage = stages.all[index];
    let problem = match unfit(stage) {
        Some(why) => Diagnostic::error("source-date-epoch-stage", format!("stage {value:?} gives no date: {why}"))
            .at(stage.from.span)
            .with_note("such a stage is FROM scratch with one ADD of a URL or a git repository, and ARGs"),
        None => {
            let message = format!("the date of what stage {value:?} adds is not known before the build");
            place(Diagnostic::error("source-date-epoch-stage", message))
        }
    };
    Box::new(problem.with_hint(format!("give {NAME} in seconds")))
}

fn unfit(stage: Stage<'_>) -> Option<String> {
    if stage.image.text != "scratch" {
        return Some("it is not FROM scratch".to_owned());
    }
    let mut adds = 0;
    for instruction in stage.instructions {
        match &instruction.kind {
            InstructionKind::Arg(_) => {}
            InstructionKind::Add(_) => adds += 1,
            _ => {
                let keyword = instruction.original.split_whitespace().next().unwrap_or_default();
                return Some(format!("it has {}", keyword.to_uppercase()));
            }
        }
    }
    (adds != 1).then(|| format!("it has {adds} ADDs"))
}
