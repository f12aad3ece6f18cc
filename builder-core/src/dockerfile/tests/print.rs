//! Arbitrary Dockerfiles, and a printer for them that lays them out in many ways.

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use proptest::sample::select;

use super::super::{
    ArgDeclaration, Command, CopySource, Dockerfile, Healthcheck, Heredoc, Instruction, InstructionKind, KeyValue,
    RunInstruction, TransferInstruction, Word,
};
use crate::diagnostic::Span;

/// How a Dockerfile is written.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// What stands between the parts of an instruction.
    pub(super) separator: Separator,
    /// Keywords in lower case.
    pub(super) lower_case: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum Separator {
    Blank,
    Continuation,
    ContinuationWithComment,
}

pub(super) fn layout() -> impl Strategy<Value = Layout> {
    let separators = [Separator::Blank, Separator::Continuation, Separator::ContinuationWithComment];
    (select(separators.to_vec()), any::<bool>()).prop_map(|(separator, lower_case)| Layout { separator, lower_case })
}

pub(super) fn print(dockerfile: &Dockerfile, layout: Layout) -> String {
    let mut printer = Printer { layout, escape: dockerfile.escape, out: String::new() };
    if dockerfile.escape != '\\' {
        printer.out.push_str(&format!("# escape={}\n", dockerfile.escape));
    }
    for (name, value) in [("syntax", &dockerfile.syntax), ("CHECK", &dockerfile.check)] {
        if let Some(value) = value {
            printer.out.push_str(&format!("#{name} = {}\n", value.text));
        }
    }
    printer.out.push('\n');
    for instruction in &dockerfile.instructions {
        printer.instruction(instruction);
    }
    printer.out
}

struct Printer {
    layout: Layout,
    escape: char,
    out: String,
}

impl Printer {
    fn instruction(&mut self, instruction: &Instruction) {
        for comment in &instruction.comments {
            self.out.push_str(&format!("# {comment}\n"));
        }
        let mut parts = vec![];
        let mut bodies = String::new();
        self.kind(&instruction.kind, &mut parts, &mut bodies);
        let separator = match self.layout.separator {
            Separator::Blank => " ".to_owned(),
            Separator::Continuation => format!("{} \t\n  ", self.escape),
            Separator::ContinuationWithComment => format!("\t{}\n   # remark {}\n", self.escape, self.escape),
        };
        self.out.push_str(&parts.join(&separator));
        self.out.push('\n');
        self.out.push_str(&bodies);
    }

    /// Collects the words of the instruction and the heredoc bodies below it.
    fn kind(&self, kind: &InstructionKind, parts: &mut Vec<String>, bodies: &mut String) {
        let name = keyword(kind);
        parts.push(if self.layout.lower_case { name.to_lowercase() } else { name.to_owned() });
        match kind {
            InstructionKind::From { image, platform, name } => {
                parts.extend(platform.iter().map(|word| flag("platform", word)));
                parts.push(image.text.clone());
                parts.extend(name.iter().flat_map(|name| ["As".to_owned(), name.text.to_uppercase()]));
            }
            InstructionKind::Run(run) => {
                parts.extend(run.mounts.iter().map(|word| flag("mount", word)));
                parts.extend(run.network.iter().map(|word| flag("network", word)));
                parts.extend(run.security.iter().map(|word| flag("security", word)));
                parts.extend(run.devices.iter().map(|word| flag("device", word)));
                parts.push(command(&run.command));
                run.heredocs.iter().for_each(|heredoc| body(heredoc, bodies));
            }
            InstructionKind::Copy(copied) | InstructionKind::Add(copied) => transfer(copied, parts, bodies),
            InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => parts.extend(pairs.iter().map(pair)),
            InstructionKind::Arg(declarations) => {
                parts.extend(declarations.iter().map(|arg| match &arg.default {
                    Some(default) => format!("{}={}", arg.name.text, default.text),
                    None => arg.name.text.clone(),
                }));
            }
            InstructionKind::Workdir(word)
            | InstructionKind::User(word)
            | InstructionKind::StopSignal(word)
            | InstructionKind::Maintainer(word) => parts.push(word.text.clone()),
            InstructionKind::Shell(words) => parts.push(json(words)),
            InstructionKind::Cmd(written) | InstructionKind::Entrypoint(written) => parts.push(command(written)),
            InstructionKind::Expose(words) => parts.extend(words.iter().map(|word| word.text.clone())),
            InstructionKind::Volume(words) => list(words, parts),
            InstructionKind::Healthcheck(check) => healthcheck(check, parts),
            InstructionKind::Onbuild { instruction, .. } => self.kind(&instruction.kind, parts, bodies),
        }
    }
}

fn transfer(transfer: &TransferInstruction, parts: &mut Vec<String>, bodies: &mut String) {
    let single = [
        ("from", &transfer.from),
        ("chown", &transfer.chown),
        ("chmod", &transfer.chmod),
        ("checksum", &transfer.checksum),
    ];
    parts.extend(single.iter().filter_map(|(name, word)| Some(flag(name, word.as_ref()?))));
    parts.extend(transfer.excludes.iter().map(|word| flag("exclude", word)));
    let switches = [
        ("link", transfer.link),
        ("parents", transfer.parents),
        ("keep-git-dir", transfer.keep_git_dir),
        ("unpack", transfer.unpack),
    ];
    parts.extend(switches.iter().filter_map(|(name, value)| match value {
        Some(true) => Some(format!("--{name}")),
        Some(false) => Some(format!("--{name}=False")),
        None => None,
    }));
    let mut words = vec![];
    for source in &transfer.sources {
        match source {
            CopySource::Path(word) => words.push(word.clone()),
            CopySource::Heredoc(heredoc) => {
                words.push(at_nowhere(&marker(heredoc)));
                body(heredoc, bodies);
            }
        }
    }
    words.push(transfer.dest.clone());
    list(&words, parts);
}

fn keyword(kind: &InstructionKind) -> &'static str {
    match kind {
        InstructionKind::From { .. } => "FROM",
        InstructionKind::Run(_) => "RUN",
        InstructionKind::Copy(_) => "COPY",
        InstructionKind::Add(_) => "ADD",
        InstructionKind::Env(_) => "ENV",
        InstructionKind::Label(_) => "LABEL",
        InstructionKind::Arg(_) => "ARG",
        InstructionKind::Workdir(_) => "WORKDIR",
        InstructionKind::User(_) => "USER",
        InstructionKind::Shell(_) => "SHELL",
        InstructionKind::Cmd(_) => "CMD",
        InstructionKind::Entrypoint(_) => "ENTRYPOINT",
        InstructionKind::Expose(_) => "EXPOSE",
        InstructionKind::Volume(_) => "VOLUME",
        InstructionKind::StopSignal(_) => "STOPSIGNAL",
        InstructionKind::Healthcheck(_) => "HEALTHCHECK",
        InstructionKind::Onbuild { .. } => "ONBUILD",
        InstructionKind::Maintainer(_) => "MAINTAINER",
    }
}

fn flag(name: &str, word: &Word) -> String {
    if word.text.contains([' ', '\'', '"', '\\']) {
        let escaped = word.text.replace('\\', "\\\\").replace('"', "\\\"");
        return format!("--{name}=\"{escaped}\"");
    }
    format!("--{name}={}", word.text)
}

fn command(command: &Command) -> String {
    match command {
        Command::Shell(text) => text.clone(),
        Command::Exec(words) => json(words),
    }
}

fn json(words: &[String]) -> String {
    serde_json::to_string(words).expect("strings serialise")
}

/// Words, in JSON form if one of them has a blank.
fn list(words: &[Word], parts: &mut Vec<String>) {
    let texts: Vec<String> = words.iter().map(|word| word.text.clone()).collect();
    if texts.iter().any(|text| text.contains(' ')) {
        parts.push(json(&texts));
    } else {
        parts.extend(texts);
    }
}

fn pair(pair: &KeyValue) -> String {
    let separator = if pair.legacy { " " } else { "=" };
    format!("{}{separator}{}", pair.key.text, pair.value.text)
}

fn healthcheck(check: &Healthcheck, parts: &mut Vec<String>) {
    let Healthcheck::Cmd { command: written, interval, timeout, start_period, start_interval, retries } = check else {
        parts.push("none".to_owned());
        return;
    };
    let durations = [
        ("interval", interval),
        ("timeout", timeout),
        ("start-period", start_period),
        ("start-interval", start_interval),
    ];
    parts.extend(durations.iter().filter_map(|(name, value)| Some(format!("--{name}={}ns", value.as_ref()?))));
    parts.extend(retries.iter().map(|retries| format!("--retries={retries}")));
    parts.extend(["cmd".to_owned(), command(written)]);
}

pub(super) fn marker(heredoc: &Heredoc) -> String {
    let fd = heredoc.fd.map(|fd| fd.to_string()).unwrap_or_default();
    let dash = if heredoc.chomp { "-" } else { "" };
    let quote = if heredoc.expand { "" } else { "'" };
    format!("{fd}<<{dash}{quote}{}{quote}", heredoc.name)
}

fn body(heredoc: &Heredoc, bodies: &mut String) {
    bodies.push_str(&heredoc.raw);
    bodies.push_str(&heredoc.name);
    bodies.push('\n');
}

/// The same without anything that says where or how it is written.
pub(super) fn without_places(mut dockerfile: Dockerfile) -> Dockerfile {
    dockerfile.syntax.iter_mut().chain(&mut dockerfile.check).for_each(forget);
    dockerfile.instructions.iter_mut().for_each(forget_places);
    dockerfile
}

fn forget(word: &mut Word) {
    word.span = Span::default();
}

fn forget_places(instruction: &mut Instruction) {
    (instruction.span, instruction.keyword, instruction.lines) = (Span::default(), Span::default(), (0, 0));
    instruction.original.clear();
    match &mut instruction.kind {
        InstructionKind::From { image, platform, name } => {
            forget(image);
            platform.iter_mut().chain(name).for_each(forget);
        }
        InstructionKind::Run(run) => {
            run.mounts.iter_mut().chain(&mut run.devices).for_each(forget);
            run.network.iter_mut().chain(&mut run.security).for_each(forget);
            run.heredocs.iter_mut().for_each(|heredoc| heredoc.span = Span::default());
        }
        InstructionKind::Copy(transfer) | InstructionKind::Add(transfer) => {
            for source in &mut transfer.sources {
                match source {
                    CopySource::Path(word) => forget(word),
                    CopySource::Heredoc(heredoc) => heredoc.span = Span::default(),
                }
            }
            let TransferInstruction { dest, from, chown, chmod, checksum, excludes, flag_spans, .. } = transfer;
            forget(dest);
            from.iter_mut().chain(chown).chain(chmod).chain(checksum).chain(excludes).for_each(forget);
            flag_spans.clear();
        }
        InstructionKind::Env(pairs) | InstructionKind::Label(pairs) => {
            for pair in pairs {
                forget(&mut pair.key);
                forget(&mut pair.value);
            }
        }
        InstructionKind::Arg(declarations) => {
            for declaration in declarations {
                forget(&mut declaration.name);
                declaration.default.iter_mut().for_each(forget);
            }
        }
        InstructionKind::Workdir(word)
        | InstructionKind::User(word)
        | InstructionKind::StopSignal(word)
        | InstructionKind::Maintainer(word) => forget(word),
        InstructionKind::Expose(words) | InstructionKind::Volume(words) => words.iter_mut().for_each(forget),
        InstructionKind::Onbuild { trigger, instruction } => {
            trigger.clear();
            forget_places(instruction);
        }
        InstructionKind::Shell(_)
        | InstructionKind::Cmd(_)
        | InstructionKind::Entrypoint(_)
        | InstructionKind::Healthcheck(_) => {}
    }
}

fn at_nowhere(text: &str) -> Word {
    Word { text: text.to_owned(), span: Span::default() }
}

/// A word that matches a pattern.
fn word(pattern: &'static str) -> impl Strategy<Value = Word> {
    pattern.prop_map(|text| at_nowhere(&text))
}

/// The value of a flag.
fn value() -> impl Strategy<Value = Word> {
    word("[a-z0-9:/$=é日 \"'\\\\]{0,8}[a-z0-9]")
}

const SHELL_TEXT: &str = "[a-z$(][a-z0-9 \t$&|;=./'\"é-]{0,20}[a-z0-9)]";

fn shell_or_exec() -> impl Strategy<Value = Command> {
    prop_oneof![SHELL_TEXT.prop_map(Command::Shell), vec("\\PC{0,6}", 1..4).prop_map(Command::Exec)]
}

fn heredoc(fd: impl Strategy<Value = Option<u32>>) -> impl Strategy<Value = Heredoc> {
    let lines = vec("\t{0,2}[a-z $'\"<#\\\\]{0,8}", 0..4);
    ("[A-Z]{1,4}[0-9.-]{0,2}", fd, any::<bool>(), any::<bool>(), lines).prop_map(|(name, fd, expand, chomp, lines)| {
        let raw: String = lines.iter().map(|line| format!("{line}\n")).collect();
        let chomped: String = lines.iter().map(|line| format!("{}\n", line.trim_start_matches('\t'))).collect();
        Heredoc {
            name,
            fd,
            expand,
            chomp,
            content: if chomp { chomped } else { raw.clone() },
            raw,
            span: Span::default(),
        }
    })
}

fn run() -> impl Strategy<Value = InstructionKind> {
    let with_heredocs =
        ("(cat )?", vec(heredoc(option::of(3_u32..9)), 1..3), "( > /x)?").prop_map(|(before, docs, after)| {
            let markers: Vec<String> = docs.iter().map(marker).collect();
            (Command::Shell(format!("{before}{}{after}", markers.join(" ").trim())), docs)
        });
    let without = shell_or_exec().prop_map(|command| (command, vec![]));
    let mounts = vec(word("type=(bind|cache),target=/[a-z]{1,3}( [a-z])?(,from=[a-z]{1,3})?"), 0..3);
    let network = option::of(select(vec!["none", "host", "default"]));
    let security = option::of(select(vec!["insecure", "sandbox"]));
    (prop_oneof![with_heredocs, without], mounts, network, security, vec(word("[a-z]/[a-z]=[0-9]"), 0..2)).prop_map(
        |((command, heredocs), mounts, network, security, devices)| {
            let (network, security) = (network.map(at_nowhere), security.map(at_nowhere));
            InstructionKind::Run(RunInstruction { command, heredocs, mounts, network, security, devices })
        },
    )
}

fn copied() -> impl Strategy<Value = InstructionKind> {
    let path = "[a-z./*$é][a-z./*$é-]{0,5}";
    let sources = prop_oneof![
        vec(
            prop_oneof![word(path).prop_map(CopySource::Path), heredoc(Just(None)).prop_map(CopySource::Heredoc)],
            1..4
        ),
        vec(word("[a-z]{1,3} [a-z\"\\\\]{1,3}").prop_map(CopySource::Path), 1..3),
    ];
    let switch = || option::of(any::<bool>());
    let common = (sources, word(path), option::of(value()), option::of(value()), switch(), vec(value(), 0..3));
    let special = (any::<bool>(), option::of(value()), switch(), switch());
    (common, special).prop_map(|(common, (is_copy, special, first, second))| {
        let (sources, dest, chown, chmod, link, excludes) = common;
        let transfer = TransferInstruction {
            sources,
            dest,
            from: special.clone().filter(|_| is_copy),
            chown,
            chmod,
            link,
            parents: first.filter(|_| is_copy),
            excludes,
            checksum: special.filter(|_| !is_copy),
            keep_git_dir: first.filter(|_| !is_copy),
            unpack: second.filter(|_| !is_copy),
            flag_spans: vec![],
        };
        if is_copy { InstructionKind::Copy(transfer) } else { InstructionKind::Add(transfer) }
    })
}

fn pairs() -> impl Strategy<Value = Vec<KeyValue>> {
    let raw = "([a-z0-9$./:{}#=-]{0,6}|\"[a-z $']{0,6}\"|'[a-z \"]{0,6}')";
    let new = (word("[A-Za-z_.é][A-Za-z0-9_.-]{0,5}"), word(raw));
    let new = vec(new.prop_map(|(key, value)| KeyValue { key, value, legacy: false }), 1..4);
    let old = (word("[A-Za-z_]{1,5}"), word("[a-z\"][a-z0-9 =$#]{0,8}[a-z\"]"));
    prop_oneof![new, old.prop_map(|(key, value)| vec![KeyValue { key, value, legacy: true }])]
}

fn arg() -> impl Strategy<Value = InstructionKind> {
    let default = option::of(word("([a-z0-9$./:{}-]{0,6}|\"[a-z $]{0,6}\")"));
    let declaration = (word("[A-Z_][A-Z0-9_]{0,5}"), default);
    let declarations = vec(declaration.prop_map(|(name, default)| ArgDeclaration { name, default }), 1..4);
    declarations.prop_map(InstructionKind::Arg)
}

fn from() -> impl Strategy<Value = InstructionKind> {
    let name = option::of(word("[a-z][a-z0-9_.-]{0,5}x"));
    (word("[a-z$][a-z0-9./:@$-]{0,8}"), option::of(word("\\$?[a-z]{1,5}/[a-z0-9]{1,4}")), name)
        .prop_map(|(image, platform, name)| InstructionKind::From { image, platform, name })
}

fn check() -> impl Strategy<Value = Healthcheck> {
    let duration = || option::of(prop_oneof![Just(0_u64), 1_000_000_u64..10_u64.pow(15)]);
    let durations = (duration(), duration(), duration(), duration());
    let some = (shell_or_exec(), durations, option::of(0_u32..100)).prop_map(|(command, durations, retries)| {
        let (interval, timeout, start_period, start_interval) = durations;
        Healthcheck::Cmd { command, interval, timeout, start_period, start_interval, retries }
    });
    prop_oneof![Just(Healthcheck::None), some]
}

/// Everything that may stand in a stage but `ONBUILD` and `MAINTAINER`.
fn simple() -> impl Strategy<Value = InstructionKind> {
    let text = || word("[a-z/$:'\"][a-z0-9 /$:'\"]{0,8}[a-z0-9]");
    prop_oneof![
        3 => run(),
        3 => copied(),
        1 => pairs().prop_map(InstructionKind::Env),
        1 => pairs().prop_map(InstructionKind::Label),
        1 => arg(),
        1 => text().prop_map(InstructionKind::Workdir),
        1 => text().prop_map(InstructionKind::User),
        1 => text().prop_map(InstructionKind::StopSignal),
        1 => vec("\\PC{0,6}", 1..3).prop_map(InstructionKind::Shell),
        1 => shell_or_exec().prop_map(InstructionKind::Cmd),
        1 => shell_or_exec().prop_map(InstructionKind::Entrypoint),
        1 => vec(word("[0-9$]{2,4}(/tcp)?"), 1..4).prop_map(InstructionKind::Expose),
        1 => vec(word("/[a-z]{1,4}( [a-z]{1,3})?"), 1..4).prop_map(InstructionKind::Volume),
        1 => check().prop_map(InstructionKind::Healthcheck),
    ]
}

fn instruction(kind: impl Strategy<Value = InstructionKind>) -> impl Strategy<Value = Instruction> {
    (vec("[a-z]{1,4} [a-z#=]{1,5}", 0..3), kind).prop_map(|(comments, kind)| Instruction {
        span: Span::default(),
        keyword: Span::default(),
        lines: (0, 0),
        original: String::new(),
        comments,
        kind,
    })
}

pub(super) fn dockerfile() -> impl Strategy<Value = Dockerfile> {
    let trigger = simple().prop_map(|kind| Instruction {
        span: Span::default(),
        keyword: Span::default(),
        lines: (0, 0),
        original: String::new(),
        comments: vec![],
        kind,
    });
    let onbuild = trigger.prop_map(|instruction| InstructionKind::Onbuild {
        trigger: String::new(),
        instruction: Box::new(instruction),
    });
    let maintainer = word("[a-z][a-z <@]{0,8}[a-z>]").prop_map(InstructionKind::Maintainer);
    let in_stage = prop_oneof![10 => simple(), 2 => onbuild, 1 => maintainer, 2 => from()];
    let directives = (
        select(vec!['\\', '`']),
        option::of(word("docker/dockerfile(:[a-z0-9]{1,3})?")),
        option::of(word("skip=[A-Z]{1,3}")),
    );
    let instructions = (vec(instruction(arg()), 0..3), instruction(from()), vec(instruction(in_stage), 0..6));
    (directives, instructions).prop_map(|((escape, syntax, check), (mut instructions, from, rest))| {
        instructions.push(from);
        instructions.extend(rest);
        Dockerfile { escape, syntax, check, instructions }
    })
}
