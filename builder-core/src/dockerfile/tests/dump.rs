//! A readable form of a parsed Dockerfile for golden files: every word with the text at its span where that differs.

use std::fmt::Write as _;

use super::super::{
    Command, CopySource, Dockerfile, Healthcheck, Heredoc, Instruction, InstructionKind, RunInstruction,
    TransferInstruction, Word,
};
use crate::diagnostic::{SourceFile, Span};

pub(super) fn dump(dockerfile: &Dockerfile, source: &str) -> String {
    let mut dumper = Dumper { file: SourceFile::new("Dockerfile", source), out: String::new(), indent: 0 };
    dumper.line(format_args!("escape {:?}", dockerfile.escape));
    dumper.optional("syntax", dockerfile.syntax.as_ref());
    dumper.optional("check", dockerfile.check.as_ref());
    for instruction in &dockerfile.instructions {
        dumper.instruction(instruction);
    }
    dumper.out
}

struct Dumper {
    file: SourceFile,
    out: String,
    indent: usize,
}

impl Dumper {
    fn line(&mut self, text: std::fmt::Arguments<'_>) {
        writeln!(self.out, "{:indent$}{text}", "", indent = self.indent).expect("strings take everything");
    }

    fn place(&self, span: Span) -> String {
        let (start, end) = (self.file.location(span.start), self.file.location(span.end));
        format!("{}:{}-{}:{}", start.line, start.column, end.line, end.column)
    }

    fn word(&mut self, name: &str, word: &Word) {
        let written = &self.file.text()[word.span.range()];
        let written = if written == word.text { String::new() } else { format!(" from {written:?}") };
        let place = self.place(word.span);
        self.line(format_args!("{name} {:?} at {place}{written}", word.text));
    }

    fn optional(&mut self, name: &str, word: Option<&Word>) {
        if let Some(word) = word {
            self.word(name, word);
        }
    }

    fn words(&mut self, name: &str, words: &[Word]) {
        for word in words {
            self.word(name, word);
        }
    }

    fn instruction(&mut self, instruction: &Instruction) {
        let (first, last) = instruction.lines;
        let (keyword, whole) = (self.file.text()[instruction.keyword.range()].to_owned(), self.place(instruction.span));
        self.line(format_args!("{first}-{last} {keyword} at {whole}"));
        self.indent += 2;
        self.line(format_args!("original {:?}", instruction.original));
        for comment in &instruction.comments {
            self.line(format_args!("comment {comment:?}"));
        }
        self.kind(&instruction.kind);
        self.indent -= 2;
    }

    fn kind(&mut self, kind: &InstructionKind) {
        match kind {
            InstructionKind::From { image, platform, name } => {
                self.word("image", image);
                self.optional("platform", platform.as_ref());
                self.optional("name", name.as_ref());
            }
            InstructionKind::Run(run) => self.run(run),
            InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => self.transfer(transfer),
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
                for pair in pairs {
                    self.word(if pair.legacy { "legacy key" } else { "key" }, &pair.key);
                    self.word("value", &pair.value);
                }
            }
            InstructionKind::Arg(declarations) => {
                for declaration in declarations {
                    self.word("name", &declaration.name);
                    self.optional("default", declaration.default.as_ref());
                }
            }
            InstructionKind::Workdir(word)
            | InstructionKind::User(word)
            | InstructionKind::StopSignal(word)
            | InstructionKind::Maintainer(word) => self.word("text", word),
            InstructionKind::Shell(words) => self.line(format_args!("exec {words:?}")),
            InstructionKind::Cmd(command) | InstructionKind::Entrypoint(command) => self.command(command),
            InstructionKind::Expose(words) | InstructionKind::Volume(words) => self.words("word", words),
            InstructionKind::Healthcheck(Healthcheck::None) => self.line(format_args!("none")),
            InstructionKind::Healthcheck(check) => self.line(format_args!("{check:?}")),
            InstructionKind::Onbuild { trigger, instruction } => {
                self.line(format_args!("trigger {trigger:?}"));
                self.instruction(instruction);
            }
        }
    }

    fn command(&mut self, command: &Command) {
        match command {
            Command::Shell(text) => self.line(format_args!("shell {text:?}")),
            Command::Exec(words) => self.line(format_args!("exec {words:?}")),
        }
    }

    fn run(&mut self, run: &RunInstruction) {
        self.command(&run.command);
        self.words("mount", &run.mounts);
        self.optional("network", run.network.as_ref());
        self.optional("security", run.security.as_ref());
        self.words("device", &run.devices);
        for heredoc in &run.heredocs {
            self.heredoc(heredoc);
        }
        if !run.heredocs.is_empty() {
            self.line(format_args!("shell text {:?}", run.shell_text()));
        }
    }

    fn heredoc(&mut self, heredoc: &Heredoc) {
        let Heredoc { name, fd, expand, chomp, content, raw, span } = heredoc;
        let place = self.place(*span);
        self.line(format_args!("heredoc {name:?} at {place} fd {fd:?} expand {expand} chomp {chomp} {content:?}"));
        if raw != content {
            self.line(format_args!("  raw {raw:?}"));
        }
    }

    fn transfer(&mut self, transfer: &TransferInstruction) {
        for source in &transfer.sources {
            match source {
                CopySource::Path(word) => self.word("source", word),
                CopySource::Heredoc(heredoc) => self.heredoc(heredoc),
            }
        }
        self.word("dest", &transfer.dest);
        self.optional("from", transfer.from.as_ref());
        self.optional("chown", transfer.chown.as_ref());
        self.optional("chmod", transfer.chmod.as_ref());
        self.optional("checksum", transfer.checksum.as_ref());
        self.words("exclude", &transfer.excludes);
        let switches = [
            ("link", transfer.link),
            ("parents", transfer.parents),
            ("keep-git-dir", transfer.keep_git_dir),
            ("unpack", transfer.unpack),
        ];
        for (name, value) in switches.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            self.line(format_args!("{name} {value}"));
        }
        for (name, span) in &transfer.flag_spans {
            let place = self.place(*span);
            self.line(format_args!("flag {name} at {place}"));
        }
    }
}
