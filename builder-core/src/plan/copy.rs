//! `COPY` and `ADD`: sources, destination, flags. Nothing is looked up in any file system.

use super::graph::{Chmod, ContextName, CopyKind, CopyOp, CopySourceOp, FileInput, Op};
use super::lower::{Item, Planner};
use super::metadata::upper_keyword;
use super::remote::{self, GitHint, SourceKind};
use super::stages::FromName;
use super::state::StageState;
use super::{Error, Problem, chmod};
use crate::diagnostic::{Diagnostic, Span};
use crate::digest::Digest;
use crate::dockerfile::{CopySource, TransferInstruction, Word};

/// The paths and URLs of an instruction, expanded, with the words they come from.
type Expanded<'w> = Vec<(String, &'w Word)>;

impl Planner<'_> {
    /// `COPY`
    pub(super) fn copy_instruction(
        &mut self,
        state: &mut StageState,
        item: &Item<'_>,
        copy: &TransferInstruction,
    ) -> Result<(), Error> {
        let paths = self.paths(state, copy)?;
        for (path, word) in &paths {
            refuse_remote(path, word.span)?;
        }
        let source = item.source(state);
        let from = match self.copy_from(state, copy)? {
            Some((from, span)) => Some(self.files(&from, span, &source)?),
            None => None,
        };
        let mut sources = vec![];
        for (pattern, _) in &paths {
            let from = from.unwrap_or_else(|| FileInput::Context(self.context(ContextName::Main, &source)));
            sources.push(CopySourceOp::Path { from, pattern: pattern.clone() });
        }
        self.transfer(state, item, copy, Transfer { verb: "COPY", kind: CopyKind::Copy, paths, sources })
    }

    /// `ADD`
    pub(super) fn add_instruction(
        &mut self,
        state: &mut StageState,
        item: &Item<'_>,
        add: &TransferInstruction,
    ) -> Result<(), Error> {
        let paths = self.paths(state, add)?;
        let checksum = match &add.checksum {
            Some(word) => Some((self.expander.word(word, state.scope())?, word)).filter(|(text, _)| !text.is_empty()),
            None => None,
        };
        if let Some((_, word)) = &checksum
            && add.sources.len() != 1
        {
            let problem = Diagnostic::error("checksum-sources", "--checksum is for one source").at(word.span);
            return Err(Problem::new(problem.with_hint("write an ADD for each source")).into());
        }
        let mut has_git = false;
        let mut sources = vec![];
        for (path, word) in &paths {
            let source = self.add_source(state, item, add, (path, word), checksum.as_ref())?;
            has_git |= matches!(source, CopySourceOp::Git(_));
            sources.push(source);
        }
        if add.keep_git_dir.is_some() && !has_git {
            let warning =
                Diagnostic::warning("keep-git-dir-unused", "--keep-git-dir means nothing without a git source");
            self.expander.warnings.push(warning.at(flag_span(add, "keep-git-dir", item.instruction.span)));
        }
        let kind = CopyKind::Add { unpack: add.unpack };
        self.transfer(state, item, add, Transfer { verb: "ADD", kind, paths, sources })
    }

    fn add_source(
        &mut self,
        state: &StageState,
        item: &Item<'_>,
        add: &TransferInstruction,
        (source, word): (&str, &Word),
        checksum: Option<&(String, &Word)>,
    ) -> Result<CopySourceOp, Problem> {
        let hint = if add.keep_git_dir.is_some() { GitHint::Flag } else { GitHint::None };
        let kind = remote::classify(source, hint).map_err(|why| {
            Box::new(Diagnostic::error("git-url-invalid", format!("invalid git URL {source:?}: {why}")).at(word.span))
        })?;
        match kind {
            SourceKind::Path => {
                if let Some((_, flag)) = checksum {
                    let problem = Diagnostic::error("checksum-local", "--checksum is for URLs and git repositories");
                    return Err(Box::new(problem.at(flag.span).with_secondary(word.span, "this is a path")));
                }
                let context = self.context(ContextName::Main, &item.source(state));
                Ok(CopySourceOp::Path { from: FileInput::Context(context), pattern: source.to_owned() })
            }
            SourceKind::Http => {
                let checksum = checksum.map(|(text, flag)| http_checksum(text, flag.span)).transpose()?;
                Ok(CopySourceOp::Http { url: source.to_owned(), name: remote::file_name(source), checksum })
            }
            SourceKind::Git(url) => {
                let checksum = git_checksum(checksum, url.checksum.as_deref(), word.span)?;
                let keep = match (add.keep_git_dir, url.keep_git_dir) {
                    (Some(flag), Some(query)) if flag != query => {
                        let span = flag_span(add, "keep-git-dir", word.span);
                        let problem = Diagnostic::error("keep-git-dir-twice", "--keep-git-dir and the URL disagree");
                        return Err(Box::new(problem.at(span).with_secondary(word.span, "the query is here")));
                    }
                    (flag, query) => query.or(flag).unwrap_or(false),
                };
                Ok(CopySourceOp::Git(url.into_source(source, checksum, keep)))
            }
        }
    }

    /// Returns the earlier stage that a `COPY` takes from, if it takes from one.
    pub(super) fn copy_stage(
        &mut self,
        state: &StageState,
        copy: &TransferInstruction,
    ) -> Result<Option<usize>, Problem> {
        Ok(match self.copy_from(state, copy)? {
            Some((FromName::Stage(stage), _)) => Some(stage),
            _ => None,
        })
    }

    fn copy_from(
        &mut self,
        state: &StageState,
        copy: &TransferInstruction,
    ) -> Result<Option<(FromName, Span)>, Problem> {
        let Some(word) = &copy.from else { return Ok(None) };
        let name = self.expander.word(word, state.scope())?;
        if name.is_empty() {
            let problem = Diagnostic::error("from-empty", format!("the name {:?} is empty", word.text)).at(word.span);
            return Err(Box::new(problem.with_hint("leave --from out to copy from the build context")));
        }
        let from = self.stages.means(&name, word.span, state.stage)?;
        Ok(Some((from, word.span)))
    }

    fn paths<'w>(&mut self, state: &StageState, transfer: &'w TransferInstruction) -> Result<Expanded<'w>, Problem> {
        let mut paths = vec![];
        for source in &transfer.sources {
            if let CopySource::Path(word) = source {
                paths.push((self.expander.word(word, state.scope())?, word));
            }
        }
        Ok(paths)
    }

    fn transfer(
        &mut self,
        state: &mut StageState,
        item: &Item<'_>,
        instruction: &TransferInstruction,
        transfer: Transfer<'_>,
    ) -> Result<(), Error> {
        let dest = self.expander.word(&instruction.dest, state.scope())?;
        let chown = match &instruction.chown {
            Some(word) => Some(self.expander.word(word, state.scope())?).filter(|chown| !chown.is_empty()),
            None => None,
        };
        let chmod = match &instruction.chmod {
            Some(word) => self.chmod(state, word)?,
            None => None,
        };
        let mut sources = transfer.sources;
        let mut said: Vec<String> = transfer.paths.iter().map(|(path, _)| path.clone()).collect();
        // Inline files come last, wherever they stand.
        for source in &instruction.sources {
            if let CopySource::Heredoc(heredoc) = source {
                let content = self.expander.heredoc(heredoc, state.scope())?;
                sources.push(CopySourceOp::Inline { name: heredoc.name.clone(), content });
                said.push(format!("<<{}", heredoc.name));
            }
        }
        let parents = instruction.parents.unwrap_or(false);
        let mut created_by = transfer.verb.to_owned();
        if parents {
            created_by += " --parents";
        }
        if let Some(chown) = &chown {
            created_by += &format!(" --chown={chown}");
        }
        if let Some((said, _)) = &chmod {
            created_by += &format!(" --chmod={said}");
        }
        created_by += &format!(" {} {dest} # buildkit", said.join(" "));
        let op = CopyOp {
            parent: state.root,
            workdir: state.workdir(),
            dest,
            sources,
            chown,
            chmod: chmod.map(|(_, chmod)| chmod),
            link: instruction.link.unwrap_or(false),
            parents,
            excludes: instruction.excludes.iter().map(|word| word.text.clone()).collect(),
            kind: transfer.kind,
        };
        let shown = upper_keyword(&self.expander.for_show(&item.instruction.original, &state.env));
        let step = self.steps.add(Op::Copy(Box::new(op)), item.source(state), item.label(&shown));
        state.record_layer(created_by, step);
        Ok(())
    }

    fn chmod(&mut self, state: &StageState, word: &Word) -> Result<Option<(String, Chmod)>, Problem> {
        let text = self.expander.word(word, state.scope())?;
        if text.is_empty() {
            return Ok(None);
        }
        match chmod::parse(&text) {
            Some(chmod) => Ok(Some((text, chmod))),
            None => {
                let problem = Diagnostic::error("chmod-invalid", format!("{text:?} is not a file mode")).at(word.span);
                Err(Box::new(problem.with_hint("write an octal number up to 7777, or changes such as \"u=rwX,go=rX\"")))
            }
        }
    }
}

/// What `COPY` and `ADD` do not share, done.
struct Transfer<'w> {
    verb: &'static str,
    kind: CopyKind,
    paths: Expanded<'w>,
    sources: Vec<CopySourceOp>,
}

fn refuse_remote(source: &str, span: Span) -> Result<(), Problem> {
    let what = match remote::classify(source, GitHint::None) {
        Ok(SourceKind::Path) => return Ok(()),
        Ok(SourceKind::Http) => "a URL",
        Ok(SourceKind::Git(_)) | Err(_) => "a git repository",
    };
    let problem = Diagnostic::error("copy-remote", format!("COPY cannot take {source:?}, which is {what}"));
    Err(Box::new(problem.at(span).with_hint("use ADD")))
}

fn http_checksum(text: &str, span: Span) -> Result<Digest, Problem> {
    text.parse().map_err(|_| {
        let problem = Diagnostic::error("checksum-invalid", format!("{text:?} is not a SHA-256 digest")).at(span);
        Box::new(problem.with_hint("write sha256: and 64 lower-case hexadecimal digits"))
    })
}

/// Returns the commit from the flag or the query of the URL.
fn git_checksum(flag: Option<&(String, &Word)>, query: Option<&str>, url: Span) -> Result<Option<String>, Problem> {
    let (text, span) = match (flag, query) {
        (None, None) => return Ok(None),
        (Some((flag, word)), Some(query)) if flag != query => {
            let problem = Diagnostic::error("checksum-twice", "--checksum and the URL disagree");
            return Err(Box::new(problem.at(word.span).with_secondary(url, "the query is here")));
        }
        (Some((flag, word)), _) => (flag.as_str(), word.span),
        (None, Some(query)) => (query, url),
    };
    let is_hash = (1..=64).contains(&text.len()) && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    if !is_hash {
        let problem = Diagnostic::error("checksum-invalid", format!("{text:?} is not a commit")).at(span);
        return Err(Box::new(problem.with_hint("write the commit's hash in lower-case hexadecimal digits")));
    }
    Ok(Some(text.to_owned()))
}

fn flag_span(transfer: &TransferInstruction, flag: &str, otherwise: Span) -> Span {
    transfer.flag_spans.iter().find(|(name, _)| name == flag).map_or(otherwise, |(_, span)| *span)
}
