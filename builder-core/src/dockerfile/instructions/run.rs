//! `RUN`

use crate::diagnostic::{Diagnostic, nearest};

use super::super::flags::{Flags, Kind, Known};
use super::super::statement::Statement;
use super::super::{Command, Heredoc, RunInstruction, Word, csv};
use super::{check_flags, command};

const FLAGS: Known = &[("mount", Kind::Many), ("network", Kind::One), ("security", Kind::One), ("device", Kind::Many)];

pub(super) fn build(
    statement: &Statement,
    heredocs: Vec<Heredoc>,
    warnings: &mut Vec<Diagnostic>,
) -> Result<RunInstruction, Diagnostic> {
    let flags = check_flags(statement, FLAGS)?;
    let mounts = flags.many("mount");
    mounts.iter().try_for_each(check_mount)?;
    let command = command(statement, &statement.arguments, warnings);
    if matches!(&command, Command::Exec(words) if words.is_empty()) {
        return Err(Diagnostic::error("missing-argument", "RUN in JSON form needs a command").at(statement.whole.span));
    }
    Ok(RunInstruction {
        command,
        heredocs,
        mounts,
        network: one_of(&flags, "network", &["default", "none", "host"])?,
        security: one_of(&flags, "security", &["sandbox", "insecure"])?,
        devices: flags.many("device"),
    })
}

fn one_of(flags: &Flags<'_>, name: &str, values: &[&'static str]) -> Result<Option<Word>, Diagnostic> {
    let Some(word) = flags.one(name) else { return Ok(None) };
    if values.contains(&word.text.as_str()) {
        return Ok(Some(word));
    }
    let error = Diagnostic::error("flag-value", format!("--{name} cannot be {:?}", word.text)).at(word.span);
    let error = error.with_note(format!("it is one of {}", values.join(", ")));
    let near = nearest(&word.text, values.iter().copied());
    Err(error.with_hint_if(near.map(|near| format!("did you mean {near}?"))))
}

/// Checks what holds before variables are expanded: the shape of the list, and that `from` names its source outright,
/// because stages are put in order before any variable of this stage has a value.
fn check_mount(mount: &Word) -> Result<(), Diagnostic> {
    let fields = csv::fields(&mount.text).map_err(|cause| {
        let error = Diagnostic::error("flag-value", format!("--mount: {cause}")).at(mount.span);
        error.with_hint("write --mount=type=bind,source=a,target=/b, fields with a comma in double quotes")
    })?;
    for (key, value) in fields.iter().filter_map(|field| field.split_once('=')) {
        let has_variable = value.split_once('$').is_some_and(|(_, name)| !name.is_empty());
        if key.eq_ignore_ascii_case("from") && has_variable {
            return Err(Diagnostic::error("mount-from-variable", "--mount: from cannot hold a variable")
                .at(mount.span)
                .with_hint(format!("name a stage for it, \"FROM {value} AS name\", and write from=name")));
        }
    }
    Ok(())
}
