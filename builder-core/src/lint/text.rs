//! Rules that need the text alone. They hold for the whole file, whatever is built of it, and also where other parts
//! of the file cannot be read.

use std::collections::BTreeMap;

use super::options::check_directives;
use super::{
    CONSISTENT_INSTRUCTION_CASING, DUPLICATE_STAGE_NAME, FROM_AS_CASING, INVALID_DEFINITION_DESCRIPTION, Linter,
    MAINTAINER_DEPRECATED, NO_EMPTY_CONTINUATION, RESERVED_STAGE_NAME, STAGE_NAME_CASING, by_code,
};
use crate::diagnostic::{Diagnostic, Span};
use crate::dockerfile::{Dockerfile, Instruction, InstructionKind, Word};

/// Reports what the text shows, and what the parser warned of. Returns the warnings that belong to no rule.
pub(crate) fn check_text(
    dockerfile: &Dockerfile,
    warnings: Vec<Diagnostic>,
    linter: &mut Linter<'_>,
) -> Vec<Diagnostic> {
    let rest = of_parser(dockerfile, warnings, linter);
    check_directives(dockerfile, linter);
    casing(dockerfile, linter);
    let mut names: BTreeMap<&str, Span> = BTreeMap::new();
    for instruction in &dockerfile.instructions {
        match &instruction.kind {
            InstructionKind::From { image, name: Some(name), .. } => {
                stage_name(instruction, image, name, linter);
                if let Some(first) = names.get(name.text.as_str()) {
                    let message = format!("Duplicate stage name {:?}, stage names should be unique", name.text);
                    let warning = Diagnostic::warning("", message).at(name.span);
                    let warning = warning.with_secondary(*first, "first here");
                    linter.report_as(&DUPLICATE_STAGE_NAME, instruction, warning);
                }
                names.entry(&name.text).or_insert(name.span);
                definition("FROM", instruction, &[name], linter);
            }
            InstructionKind::Arg(declarations) => {
                let names: Vec<&Word> = declarations.iter().map(|declaration| &declaration.name).collect();
                definition("ARG", instruction, &names, linter);
            }
            InstructionKind::Maintainer(author) => {
                let message = "Maintainer instruction is deprecated in favor of using label";
                let label = format!("write LABEL org.opencontainers.image.authors={:?}", author.text);
                let warning = Diagnostic::warning("", message).at(instruction.keyword).with_hint(label);
                linter.report_as(&MAINTAINER_DEPRECATED, instruction, warning);
            }
            _ => {}
        }
    }
    rest
}

/// Makes findings of those warnings of the parser that belong to a rule.
fn of_parser(dockerfile: &Dockerfile, warnings: Vec<Diagnostic>, linter: &mut Linter<'_>) -> Vec<Diagnostic> {
    let mut rest = vec![];
    for mut warning in warnings {
        let Some(rule) = by_code(&warning.code) else {
            rest.push(warning);
            continue;
        };
        if rule.name == NO_EMPTY_CONTINUATION.name {
            "Empty continuation line".clone_into(&mut warning.message);
        } else if rule.name == RESERVED_STAGE_NAME.name {
            let name = warning.primary.as_ref().map(|label| linter.text(label.span).to_lowercase());
            let name = name.unwrap_or_default();
            warning.message = format!("Stage name should not use the same name as reserved stage {name:?}");
        }
        let place = warning.primary.as_ref().map(|label| label.span.start);
        let around = |instruction: &&Instruction| {
            place.is_some_and(|place| (instruction.span.start..=instruction.span.end).contains(&place))
        };
        match dockerfile.instructions.iter().find(around) {
            // An empty line is the finding, not the instruction around it.
            Some(_) if rule.name == NO_EMPTY_CONTINUATION.name => linter.report_at(rule, warning),
            Some(instruction) => linter.report_as(rule, instruction, warning),
            None => linter.report_at(rule, warning),
        }
    }
    rest
}

fn stage_name(instruction: &Instruction, image: &Word, name: &Word, linter: &mut Linter<'_>) {
    let written = linter.text(name.span);
    if written != written.to_lowercase() {
        let message = format!("Stage name '{written}' should be lowercase");
        let warning = Diagnostic::warning("", message).at(name.span);
        let warning = warning.with_hint(format!("write {}", name.text));
        linter.report_as(&STAGE_NAME_CASING, instruction, warning);
    }
    let from = linter.text(instruction.keyword);
    let words: Vec<&str> = instruction.original.split_whitespace().collect();
    let [.., keyword, _] = words.as_slice() else { return };
    // Neither upper nor lower case is another rule's finding.
    let matches = match Case::of(from) {
        Case::Lower => *keyword == keyword.to_lowercase(),
        Case::Upper => *keyword == keyword.to_uppercase(),
        Case::Mixed => true,
    };
    if !matches {
        let message = format!("'{keyword}' and '{from}' keywords' casing do not match");
        // Between the image and the name; comments may stand there, too.
        let between = Span::new(image.span.end, name.span.start);
        let at = linter.text(between).rfind(keyword).map(|at| between.start + at);
        let span = at.map_or(instruction.keyword, |at| Span::new(at, at + keyword.len()));
        linter.report(&FROM_AS_CASING, instruction, span, message);
    }
}

/// How a keyword is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Case {
    Lower,
    Upper,
    Mixed,
}

impl Case {
    fn of(keyword: &str) -> Self {
        if keyword == keyword.to_lowercase() {
            Self::Lower
        } else if keyword == keyword.to_uppercase() {
            Self::Upper
        } else {
            Self::Mixed
        }
    }
}

/// The case of most instructions is that of all; what stands before the first stage has no say, and is let alone.
fn casing(dockerfile: &Dockerfile, linter: &mut Linter<'_>) {
    let is_from = |instruction: &Instruction| matches!(instruction.kind, InstructionKind::From { .. });
    let in_stages: Vec<&Instruction> = dockerfile.instructions.iter().skip_while(|one| !is_from(one)).collect();
    let count = |case| in_stages.iter().filter(|one| Case::of(linter.text(one.keyword)) == case).count();
    let (wanted, name) = match count(Case::Lower) > count(Case::Upper) {
        true => (Case::Lower, "lowercase"),
        false => (Case::Upper, "uppercase"),
    };
    for instruction in in_stages {
        let written = linter.text(instruction.keyword);
        if Case::of(written) != wanted {
            let message = format!("Command '{written}' should match the case of the command majority ({name})");
            linter.report(&CONSISTENT_INSTRUCTION_CASING, instruction, instruction.keyword, message);
        }
    }
}

/// The last comment above a definition should begin with a name that it defines.
fn definition(keyword: &str, instruction: &Instruction, names: &[&Word], linter: &mut Linter<'_>) {
    let Some(comment) = instruction.comments.last() else { return };
    let first = comment.split(' ').next().unwrap_or_default();
    if names.iter().any(|name| name.text == first) {
        return;
    }
    let example = match names {
        [only] => only.text.as_str(),
        _ => "<arg_key>",
    };
    let message = format!("Comment for {keyword} should follow the format: `# {example} <description>`");
    linter.report(&INVALID_DEFINITION_DESCRIPTION, instruction, instruction.keyword, message);
}
