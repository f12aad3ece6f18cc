//! `COPY` and `ADD`

use crate::diagnostic::Diagnostic;

use super::super::flags::{Kind, Known};
use super::super::statement::{Arguments, Statement};
use super::super::{CopySource, Heredoc, TransferInstruction, Word};
use super::{check_flags, heredoc, warn_of_broken_json};

/// The flags of `COPY`.
pub(super) const COPY: Known = &[
    ("from", Kind::One),
    ("chown", Kind::One),
    ("chmod", Kind::One),
    ("link", Kind::Switch),
    ("parents", Kind::Switch),
    ("exclude", Kind::Many),
];
/// The flags of `ADD`.
pub(super) const ADD: Known = &[
    ("chown", Kind::One),
    ("chmod", Kind::One),
    ("link", Kind::Switch),
    ("exclude", Kind::Many),
    ("checksum", Kind::One),
    ("keep-git-dir", Kind::Switch),
    ("unpack", Kind::Switch),
];

pub(super) fn build(
    statement: &Statement,
    heredocs: Vec<Heredoc>,
    known: Known,
    warnings: &mut Vec<Diagnostic>,
) -> Result<TransferInstruction, Diagnostic> {
    let flags = check_flags(statement, known).map_err(|error| match error.code.as_ref() {
        "unknown-flag" if known == ADD && statement.flags.iter().any(|flag| flag.text.starts_with("--from=")) => {
            error.with_hint("write COPY instead of ADD: it has --from")
        }
        _ => error,
    })?;
    let (words, is_json) = match &statement.arguments {
        Arguments::Words(words) => (words.as_slice(), false),
        Arguments::Json(words) => (words.as_slice(), true),
        _ => (&[][..], false),
    };
    let Some((dest, sources)) = words.split_last().filter(|(_, sources)| !sources.is_empty()) else {
        return Err(too_few(statement, words));
    };
    let sources = match is_json {
        true => sources.iter().cloned().map(CopySource::Path).collect(),
        false => {
            warn_of_broken_json(statement, words.first(), warnings);
            with_heredocs(statement, sources, dest, heredocs)?
        }
    };
    Ok(TransferInstruction {
        sources,
        dest: dest.clone(),
        from: flags.one("from"),
        chown: flags.one("chown"),
        chmod: flags.one("chmod"),
        link: flags.switch("link"),
        parents: flags.switch("parents"),
        excludes: flags.many("exclude"),
        checksum: flags.one("checksum"),
        keep_git_dir: flags.switch("keep-git-dir"),
        unpack: flags.switch("unpack"),
        flag_spans: flags.spans(),
    })
}

fn too_few(statement: &Statement, words: &[Word]) -> Diagnostic {
    let name = statement.name();
    let error = Diagnostic::error("missing-destination", format!("{name} needs a source and a destination"));
    match words {
        [only] => {
            error.labelled(only.span, "the only argument").with_hint(format!("write {name} {} destination", only.text))
        }
        _ => error.at(statement.word.span).with_hint(format!("write {name} source destination")),
    }
}

/// Puts heredocs in the place of their markers. Words are split at blanks alone, markers as the shell does: where the
/// two disagree (`<<"a b"`, `<< EOF`), a heredoc would be read and then not be used.
fn with_heredocs(
    statement: &Statement,
    sources: &[Word],
    dest: &Word,
    heredocs: Vec<Heredoc>,
) -> Result<Vec<CopySource>, Diagnostic> {
    let name = statement.name();
    if heredoc::marker(&dest.text).is_some() {
        return Err(Diagnostic::error("heredoc-destination", format!("the destination of {name} cannot be a heredoc"))
            .at(dest.span)
            .with_hint(format!("add a path behind it: {name} {} /path", dest.text)));
    }
    let mut heredocs = heredocs.into_iter().peekable();
    let mut found = vec![];
    for source in sources {
        let marker = heredoc::marker(&source.text);
        found.push(match (marker, heredocs.peek()) {
            (None, _) => CopySource::Path(source.clone()),
            (Some(marker), Some(next)) if marker.name == next.name => match heredocs.next() {
                Some(heredoc) => CopySource::Heredoc(heredoc),
                None => CopySource::Path(source.clone()),
            },
            (Some(marker), _) => {
                let message = format!("the heredoc {:?} cannot be read", marker.name);
                let error = Diagnostic::error("heredoc-form", message).at(source.span);
                return Err(error.with_hint("close all quotes of the line"));
            }
        });
    }
    match heredocs.next() {
        None => Ok(found),
        Some(unused) => Err(Diagnostic::error("heredoc-form", format!("{name} cannot use this form of heredoc"))
            .at(unused.span)
            .with_hint("write the marker as one word without blanks: <<EOF or <<\"EOF\"")),
    }
}
