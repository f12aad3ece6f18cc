//! Agreement with an independent parser, the crate `dockerfile-parser`, on what it knows: no heredocs, no `ONBUILD`, no
//! directives, one name an `ARG`.

use dockerfile_parser as other;
use proptest::prelude::*;

use super::super::{Command, CopySource, Dockerfile, InstructionKind, Word};
use super::print::{Layout, Separator, dockerfile, print};

/// One instruction as both see it: a keyword and its words.
type Flat = (&'static str, Vec<String>);

fn ours(kind: &InstructionKind) -> Option<Flat> {
    let texts = |words: Vec<&Word>| words.into_iter().map(|word| word.text.clone()).collect::<Vec<_>>();
    Some(match kind {
        InstructionKind::From { image, platform: None, name } => {
            ("FROM", texts([image].into_iter().chain(name).collect()))
        }
        InstructionKind::Run(run) if run.heredocs.is_empty() => ("RUN", flat_command(&run.command)),
        InstructionKind::Cmd(command) => ("CMD", flat_command(command)),
        InstructionKind::Entrypoint(command) => ("ENTRYPOINT", flat_command(command)),
        InstructionKind::Copy(copy) => {
            let sources = copy.sources.iter().map(|source| match source {
                CopySource::Path(word) => Some(word.text.clone()),
                CopySource::Heredoc(_) => None,
            });
            let mut words: Vec<String> = sources.collect::<Option<_>>()?;
            words.push(copy.dest.text.clone());
            ("COPY", words)
        }
        InstructionKind::Arg(arg) if arg.len() == 1 => {
            ("ARG", texts([&arg[0].name].into_iter().chain(&arg[0].default).collect()))
        }
        InstructionKind::Env(pairs) if pairs.iter().all(|pair| !pair.legacy) => {
            ("ENV", texts(pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()))
        }
        _ => return None,
    })
}

fn flat_command(command: &Command) -> Vec<String> {
    match command {
        Command::Shell(text) => vec![text.clone()],
        Command::Exec(words) => words.clone(),
    }
}

fn theirs(instruction: &other::Instruction) -> Option<Flat> {
    let text = |string: &other::SpannedString| string.content.clone();
    let words = |expression: &other::ShellOrExecExpr| match expression {
        other::ShellOrExecExpr::Shell(shell) => vec![shell.to_string()],
        other::ShellOrExecExpr::Exec(array) => array.elements.iter().map(text).collect(),
    };
    Some(match instruction {
        other::Instruction::From(from) => ("FROM", [&from.image].into_iter().chain(&from.alias).map(text).collect()),
        other::Instruction::Run(run) => ("RUN", words(&run.expr)),
        other::Instruction::Cmd(cmd) => ("CMD", words(&cmd.expr)),
        other::Instruction::Entrypoint(entrypoint) => ("ENTRYPOINT", words(&entrypoint.expr)),
        other::Instruction::Copy(copy) => ("COPY", copy.sources.iter().chain([&copy.destination]).map(text).collect()),
        other::Instruction::Arg(arg) => ("ARG", [&arg.name].into_iter().chain(&arg.value).map(text).collect()),
        other::Instruction::Env(env) => {
            ("ENV", env.vars.iter().flat_map(|var| [var.key.content.clone(), var.value.to_string()]).collect())
        }
        _ => return None,
    })
}

/// Whether the other parser is known to see it differently: it removes quotes and escapes, knows ASCII names, and takes
/// only some characters in names of images.
fn is_common((keyword, words): &Flat) -> bool {
    let plain = |word: &String| word.is_ascii() && !word.contains(['"', '\'', '\\', '#']);
    let named = |word: &String| word.chars().all(|char| char.is_ascii_alphanumeric() || char == '_');
    let begins = |word: &String| word.starts_with(|char: char| char.is_ascii_alphabetic());
    words.iter().all(|word| plain(word) && !word.is_empty())
        && match *keyword {
            "ENV" => words.iter().step_by(2).all(named),
            "ARG" => words.first().is_some_and(begins),
            "FROM" => words.iter().all(|word| !word.contains(['@', '.', '+'])),
            "COPY" => words.iter().all(|word| !word.contains(' ')),
            _ => true,
        }
}

proptest! {
    #[test]
    fn both_parsers_agree(mut dockerfile in dockerfile(), continued in any::<bool>()) {
        (dockerfile.escape, dockerfile.syntax, dockerfile.check) = ('\\', None, None);
        let common = |kind: &InstructionKind| ours(kind).is_some_and(|flat| is_common(&flat));
        dockerfile.instructions.retain(|instruction| common(&instruction.kind));
        for instruction in &mut dockerfile.instructions {
            if let InstructionKind::Copy(copy) = &mut instruction.kind {
                (copy.chown, copy.chmod, copy.excludes) = (None, None, vec![]);
                (copy.from, copy.link, copy.parents) = (None, None, None);
            }
            if let InstructionKind::Run(run) = &mut instruction.kind {
                (run.network, run.security) = (None, None);
                run.mounts.clear();
                run.devices.clear();
            }
        }
        let separator = if continued { Separator::Continuation } else { Separator::Blank };
        let text = format!("FROM base\n{}", print(&dockerfile, Layout { separator, lower_case: continued }));
        let mine = Dockerfile::parse(&text).expect("parses");
        let mine: Vec<Flat> = mine.instructions.iter().filter_map(|instruction| ours(&instruction.kind)).collect();
        let other = match other::Dockerfile::parse(&text) {
            Ok(other) => other,
            Err(error) => return Err(TestCaseError::fail(format!("{error}\n{text}"))),
        };
        let other: Vec<Flat> = other.instructions.iter().filter_map(theirs).collect();
        let folded = |flats: Vec<Flat>| -> Vec<Flat> {
            flats.into_iter().map(|(keyword, words)| match keyword {
                "FROM" => (keyword, words.iter().map(|word| word.to_lowercase()).collect()),
                _ => (keyword, words),
            }).collect()
        };
        prop_assert_eq!(folded(mine), folded(other), "{}", text);
    }
}
