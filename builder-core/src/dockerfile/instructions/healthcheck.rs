//! `HEALTHCHECK NONE` and `HEALTHCHECK [flags] CMD command`

use crate::diagnostic::{Diagnostic, nearest};

use super::super::flags::{Flags, Kind, Known};
use super::super::statement::{Arguments, Statement};
use super::super::{Command, Healthcheck, Word, duration};
use super::{check_flags, command, missing_argument};

const FLAGS: Known = &[
    ("interval", Kind::One),
    ("timeout", Kind::One),
    ("start-period", Kind::One),
    ("start-interval", Kind::One),
    ("retries", Kind::One),
];
/// The least that the runtimes that read the image accept, in nanoseconds.
const MINIMUM: i64 = 1_000_000;

pub(super) fn build(statement: &Statement, warnings: &mut Vec<Diagnostic>) -> Result<Healthcheck, Diagnostic> {
    let Arguments::Typed(kind, arguments) = &statement.arguments else { return Err(missing_argument(statement)) };
    match kind.text.to_ascii_uppercase().as_str() {
        "NONE" => none(statement, kind, arguments),
        "CMD" => {
            let flags = check_flags(statement, FLAGS)?;
            let command = command(statement, arguments, warnings);
            if matches!(&command, Command::Exec(words) if words.is_empty()) || command == Command::Shell(String::new())
            {
                return Err(Diagnostic::error("missing-argument", "HEALTHCHECK CMD needs a command").at(kind.span));
            }
            Ok(Healthcheck::Cmd {
                command,
                interval: interval(&flags, "interval")?,
                timeout: interval(&flags, "timeout")?,
                start_period: interval(&flags, "start-period")?,
                start_interval: interval(&flags, "start-interval")?,
                retries: retries(&flags)?,
            })
        }
        _ => {
            // First, because a flag without its equals sign leaves its value here.
            check_flags(statement, FLAGS)?;
            let error = Diagnostic::error("healthcheck-type", format!("HEALTHCHECK has no form {:?}", kind.text));
            let near = nearest(&kind.text, ["CMD", "NONE"]);
            let hint = match near {
                Some(near) => format!("did you mean {near}?"),
                None => format!("write HEALTHCHECK CMD {} …", kind.text),
            };
            Err(error.at(kind.span).with_hint(hint))
        }
    }
}

fn none(statement: &Statement, kind: &Word, arguments: &Arguments) -> Result<Healthcheck, Diagnostic> {
    let surplus = match arguments {
        Arguments::None => statement.flags.first().map(|flag| flag.span),
        Arguments::Text(word) => Some(word.span),
        _ => Some(kind.span),
    };
    match surplus {
        None => Ok(Healthcheck::None),
        Some(span) => {
            let message = "HEALTHCHECK NONE takes neither arguments nor flags";
            Err(Diagnostic::error("healthcheck-none-arguments", message).at(span))
        }
    }
}

/// A duration of zero, which means the runtime's default, or of a millisecond and more.
fn interval(flags: &Flags<'_>, name: &str) -> Result<Option<u64>, Diagnostic> {
    let Some(word) = flags.one(name).filter(|word| !word.text.is_empty()) else { return Ok(None) };
    let error = |message: String| Diagnostic::error("flag-value", message).at(word.span);
    let nanoseconds = duration::parse(&word.text).map_err(|cause| {
        let error = error(format!("--{name}: {cause}"));
        match cause {
            duration::Error::MissingUnit(_) => error.with_hint(format!("write --{name}={}s for seconds", word.text)),
            _ => error.with_note("a duration is written like \"1h30m\", \"10s\" or \"500ms\""),
        }
    })?;
    if nanoseconds != 0 && nanoseconds < MINIMUM {
        return Err(error(format!("--{name} cannot be shorter than 1ms")));
    }
    Ok(u64::try_from(nanoseconds).ok())
}

fn retries(flags: &Flags<'_>) -> Result<Option<u32>, Diagnostic> {
    let Some(word) = flags.one("retries").filter(|word| !word.text.is_empty()) else { return Ok(None) };
    let number = word.text.parse::<i32>().ok().and_then(|number| u32::try_from(number).ok());
    match number {
        Some(number) => Ok(Some(number)),
        None => {
            let message = format!("--retries: {:?} is not a whole number from 0 on", word.text);
            Err(Diagnostic::error("flag-value", message).at(word.span))
        }
    }
}
