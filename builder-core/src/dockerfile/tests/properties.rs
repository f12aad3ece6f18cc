//! What holds for every input: nothing panics, every span lies in the source, and what is printed parses back.

use proptest::prelude::*;
use proptest::sample::{Index, select};

use super::super::{CopySource, Dockerfile, InstructionKind, Word};
use super::dump::dump;
use super::print::{dockerfile, layout, marker, print, without_places};
use crate::diagnostic::{Diagnostic, SourceFile, Span};

/// Parses, and looks at every place that comes out; slicing panics where a span is not one.
fn exercise(source: &str) {
    let file = SourceFile::new("Dockerfile", source);
    let diagnostics = match Dockerfile::parse_with_warnings(source) {
        Ok(parsed) => {
            assert!(dump(&parsed.dockerfile, source).starts_with("escape"));
            for instruction in &parsed.dockerfile.instructions {
                let text = &source[instruction.span.range()];
                assert!(text.starts_with(&source[instruction.keyword.range()]), "{text:?}");
            }
            parsed.warnings
        }
        Err(diagnostics) => {
            assert!(diagnostics.iter().any(Diagnostic::is_error), "an error without an error");
            diagnostics
        }
    };
    for diagnostic in diagnostics {
        for label in diagnostic.primary.iter().chain(&diagnostic.secondary) {
            assert!(source.get(label.span.range()).is_some(), "{diagnostic:?}");
        }
        assert!(!diagnostic.render(&file).is_empty());
    }
}

/// Words of a printed Dockerfile that stand in it as they are, with their places.
fn verbatim(kind: &InstructionKind) -> Vec<(String, Span)> {
    let words: Vec<&Word> = match kind {
        InstructionKind::From { image, .. } => vec![image],
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            pairs.iter().flat_map(|pair| [&pair.key, &pair.value]).collect()
        }
        InstructionKind::Arg(args) => args.iter().flat_map(|arg| [&arg.name].into_iter().chain(&arg.default)).collect(),
        InstructionKind::Workdir(word)
        | InstructionKind::User(word)
        | InstructionKind::StopSignal(word)
        | InstructionKind::Maintainer(word) => vec![word],
        InstructionKind::Expose(words) => words.iter().collect(),
        InstructionKind::Run(run) => return run.heredocs.iter().map(|doc| (marker(doc), doc.span)).collect(),
        InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => {
            let sources = transfer.sources.iter().map(|source| match source {
                CopySource::Path(word) => (word.text.clone(), word.span),
                CopySource::Heredoc(doc) => (marker(doc), doc.span),
            });
            // A blank means JSON form, where quotes belong to the place.
            return sources.filter(|(text, span)| !text.contains(' ') && text.len() == span.end - span.start).collect();
        }
        InstructionKind::Onbuild { instruction, .. } => return verbatim(&instruction.kind),
        _ => vec![],
    };
    words.into_iter().map(|word| (word.text.clone(), word.span)).collect()
}

/// Text that is often nearly a Dockerfile.
fn nearly() -> impl Strategy<Value = String> {
    let part = prop_oneof![
        4 => select(vec![
            "FROM", "RUN", "COPY", "ADD", "ENV", "LABEL", "ARG", "ONBUILD", "HEALTHCHECK", "CMD", "SHELL", "VOLUME",
            "EXPOSE", "NONE", "AS", "--from=", "--link", "--", "--mount=type=", "<<EOF", "<<-", "EOF", "# escape=`",
            "# syntax=", "[\"", "\"]", "\",\"", "\\", "`", "\\\n", "\n", "\r\n", "\t", " ", "=", "'", "\"", "$", "${",
            "}", "#", "\u{feff}", "\u{a0}", "é", "日本", "a", "b", "1s",
        ]).prop_map(str::to_owned),
        1 => "\\PC{0,4}",
    ];
    proptest::collection::vec(part, 0..40).prop_map(|parts| parts.concat())
}

/// The golden files, as a start for mutations.
fn seeds() -> Vec<String> {
    let root = std::path::Path::new("../testdata");
    let folders = ["dockerfile", "dockerfile-errors"].map(|folder| root.join(folder));
    let cases = folders.iter().flat_map(|folder| std::fs::read_dir(folder).expect("the test data is there"));
    let mut paths: Vec<_> = cases.map(|case| case.expect("readable folder").path().join("Dockerfile")).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read_to_string(path).expect("readable")).collect()
}

#[derive(Debug, Clone)]
enum Mutation {
    Remove(Index, usize),
    Insert(Index, String),
    Repeat(Index, usize),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    prop_oneof![
        (any::<Index>(), 1_usize..5).prop_map(|(at, length)| Mutation::Remove(at, length)),
        (any::<Index>(), nearly()).prop_map(|(at, text)| Mutation::Insert(at, text)),
        (any::<Index>(), 1_usize..20).prop_map(|(at, length)| Mutation::Repeat(at, length)),
    ]
}

fn mutated(source: &str, mutations: &[Mutation]) -> String {
    let mut chars: Vec<char> = source.chars().collect();
    for mutation in mutations {
        let place = |at: &Index| at.index(chars.len() + 1);
        match mutation {
            Mutation::Remove(at, length) => {
                let start = place(at);
                let end = (start + length).min(chars.len());
                chars.drain(start..end);
            }
            Mutation::Insert(at, text) => {
                let start = place(at);
                chars.splice(start..start, text.chars());
            }
            Mutation::Repeat(at, length) => {
                let start = place(at);
                let part = chars[start..(start + length).min(chars.len())].to_vec();
                chars.splice(start..start, part);
            }
        }
    }
    chars.into_iter().collect()
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(source in "(\\PC|[\\n\\r\\t]){0,80}") {
        exercise(&source);
    }

    #[test]
    fn nearly_a_dockerfile_parses_or_is_refused(source in nearly()) {
        exercise(&source);
        exercise(&format!("FROM a\n{source}"));
    }

    #[test]
    fn a_mutated_dockerfile_parses_or_is_refused(
        source in select(seeds()),
        mutations in proptest::collection::vec(mutation(), 1..5),
    ) {
        exercise(&mutated(&source, &mutations));
    }

    #[test]
    fn any_text_is_a_trigger_or_is_refused(text in nearly()) {
        if let Err(error) = Dockerfile::parse_trigger(&text, '\\') {
            for label in error.primary.iter().chain(&error.secondary) {
                prop_assert!(text.get(label.span.range()).is_some(), "{error:?}");
            }
        }
    }

    #[test]
    fn what_is_printed_parses_back(dockerfile in dockerfile(), layout in layout()) {
        let text = print(&dockerfile, layout);
        exercise(&text);
        let parsed = Dockerfile::parse(&text).map_err(|errors| TestCaseError::fail(format!("{errors:#?}\n{text}")))?;
        for (written, span) in parsed.instructions.iter().flat_map(|instruction| verbatim(&instruction.kind)) {
            prop_assert_eq!(&text[span.range()], written, "{}", text);
        }
        prop_assert_eq!(without_places(parsed), dockerfile, "{}", text);
    }
}
