//! What a Dockerfile says, before any variable is expanded.

use crate::diagnostic::Span;

/// A parsed Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Dockerfile {
    /// The escape character, `\` unless a directive says `` ` ``.
    pub escape: char,
    /// Value of the `syntax` directive, a hint only.
    pub syntax: Option<Word>,
    /// Value of the `check` directive.
    pub check: Option<Word>,
    /// All instructions in order; `ARG` may stand before the first `FROM`, everything else behind one.
    pub instructions: Vec<Instruction>,
}

/// Text of the source before expansion: quotes, escapes and variables are still in it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// The text, continuation lines joined.
    pub text: String,
    /// Where it stands.
    pub span: Span,
}

/// One instruction.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Instruction {
    /// From the first letter of the keyword to the end of the last line or heredoc.
    pub span: Span,
    /// The keyword.
    pub keyword: Span,
    /// First and last line, counted from 1, heredocs included.
    pub lines: (usize, usize),
    /// The whole instruction on one line as BuildKit keeps it for the history: keyword as written, flags, the rest,
    /// continuations joined, heredoc bodies not included.
    pub original: String,
    /// The comment lines above, without `#`: all since the last instruction, or since the last empty comment, blank
    /// lines or not.
    pub comments: Vec<String>,
    /// What it says.
    pub kind: InstructionKind,
}

/// What an instruction says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum InstructionKind {
    /// `FROM [--platform=P] IMAGE [AS NAME]`
    From {
        /// The image, stage or context.
        image: Word,
        /// `--platform`.
        platform: Option<Word>,
        /// Name of the stage, lower-cased.
        name: Option<Word>,
    },
    /// `RUN`
    Run(RunInstruction),
    /// `COPY`
    Copy(TransferInstruction),
    /// `ADD`
    Add(TransferInstruction),
    /// `ENV K=V…` or `ENV K V`
    Env(Vec<KeyValue>),
    /// `LABEL K=V…` or `LABEL K V`
    Label(Vec<KeyValue>),
    /// `ARG K[=V]…`
    Arg(Vec<ArgDeclaration>),
    /// `WORKDIR`
    Workdir(Word),
    /// `USER`
    User(Word),
    /// `SHELL ["…"]`
    Shell(Vec<String>),
    /// `CMD`
    Cmd(Command),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `EXPOSE`
    Expose(Vec<Word>),
    /// `VOLUME`
    Volume(Vec<Word>),
    /// `STOPSIGNAL`
    StopSignal(Word),
    /// `HEALTHCHECK`
    Healthcheck(Healthcheck),
    /// `ONBUILD INSTRUCTION`
    Onbuild {
        /// The trigger as it is stored in the image's config, heredoc bodies included.
        trigger: String,
        /// The same, parsed.
        instruction: Box<Instruction>,
    },
    /// `MAINTAINER`
    Maintainer(Word),
}

/// Shell form or exec form.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// One string for the shell.
    Shell(String),
    /// JSON form: the arguments, no expansion.
    Exec(Vec<String>),
}

/// `RUN`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RunInstruction {
    /// The command. In shell form with heredocs: the line with its `<<NAME` markers still in it.
    pub command: Command,
    /// Heredocs in order.
    pub heredocs: Vec<Heredoc>,
    /// Values of `--mount`, in order.
    pub mounts: Vec<Word>,
    /// Value of `--network`.
    pub network: Option<Word>,
    /// Value of `--security`.
    pub security: Option<Word>,
    /// Values of `--device`, in order.
    pub devices: Vec<Word>,
}

impl RunInstruction {
    /// Returns the heredoc that is the whole command, `RUN <<EOF`: its body is the script, whatever the shell.
    pub fn script(&self) -> Option<&Heredoc> {
        let Command::Shell(line) = &self.command else { return None };
        self.heredocs.first().filter(|_| super::heredoc::marker(line).is_some())
    }

    /// Returns what the shell gets: the script, or the line, with the heredocs below it for the shell to read. `None`
    /// in exec form.
    pub fn shell_text(&self) -> Option<String> {
        let Command::Shell(line) = &self.command else { return None };
        if let Some(script) = self.script() {
            return Some(script.content.clone());
        }
        let mut text = line.clone();
        for heredoc in &self.heredocs {
            text.push('\n');
            text.push_str(&heredoc.raw);
            text.push_str(&heredoc.name);
        }
        Some(text)
    }
}

/// A heredoc.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Heredoc {
    /// The delimiter without quotes.
    pub name: String,
    /// File descriptor written before `<<`.
    pub fd: Option<u32>,
    /// Whether variables in the body are expanded (COPY and ADD): the delimiter was not quoted.
    pub expand: bool,
    /// `<<-`: leading tabs are removed (already done in `content`).
    pub chomp: bool,
    /// The body, each line with its line feed.
    pub content: String,
    /// The body as it is written: differs from `content` only where `chomp` removed tabs.
    pub raw: String,
    /// Where `<<NAME` stands.
    pub span: Span,
}

/// `COPY` or `ADD`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TransferInstruction {
    /// Sources in order; at least one.
    pub sources: Vec<CopySource>,
    /// Destination.
    pub dest: Word,
    /// `--from` (COPY).
    pub from: Option<Word>,
    /// `--chown`.
    pub chown: Option<Word>,
    /// `--chmod`.
    pub chmod: Option<Word>,
    /// `--link[=bool]`.
    pub link: Option<bool>,
    /// `--parents[=bool]` (COPY).
    pub parents: Option<bool>,
    /// `--exclude`, in order.
    pub excludes: Vec<Word>,
    /// `--checksum` (ADD).
    pub checksum: Option<Word>,
    /// `--keep-git-dir[=bool]` (ADD).
    pub keep_git_dir: Option<bool>,
    /// `--unpack[=bool]` (ADD).
    pub unpack: Option<bool>,
    /// Span of each flag by name, for diagnostics (`"chown"` → span of `--chown=…`).
    pub flag_spans: Vec<(String, Span)>,
}

/// A source of `COPY` or `ADD`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CopySource {
    /// A path, pattern or URL.
    Path(Word),
    /// An inline file.
    Heredoc(Heredoc),
}

/// `K=V`
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KeyValue {
    /// The key.
    pub key: Word,
    /// The value.
    pub value: Word,
    /// Written in the old form, `ENV K V`.
    pub legacy: bool,
}

/// One name of `ARG`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArgDeclaration {
    /// The name.
    pub name: Word,
    /// The default.
    pub default: Option<Word>,
}

/// `HEALTHCHECK`
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Healthcheck {
    /// `NONE`
    None,
    /// `[flags] CMD command`. Durations are nanoseconds; `None` where no flag was given.
    Cmd {
        /// The command.
        command: Command,
        /// `--interval`.
        interval: Option<u64>,
        /// `--timeout`.
        timeout: Option<u64>,
        /// `--start-period`.
        start_period: Option<u64>,
        /// `--start-interval`.
        start_interval: Option<u64>,
        /// `--retries`.
        retries: Option<u32>,
    },
}
