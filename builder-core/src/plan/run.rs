//! `RUN`: command, environment, flags.

use super::graph::{CommandForm, Device, MountKind, Need, NetworkMode, Op, RunOp, Script, SecurityMode};
use super::lower::{Item, Planner};
use super::metadata::upper_keyword;
use super::state::StageState;
use super::{Error, Problem, config, remote};
use crate::cdi;
use crate::diagnostic::{Diagnostic, nearest};
use crate::dockerfile::{Command, RunInstruction, Word, csv};

/// Host name inside a step, as in BuildKit.
const HOSTNAME: &str = "buildkitsandbox";
/// Where scripts of heredocs lie while they run.
const SCRIPT_DIRECTORY: &str = "/dev/pipes";

fn network(word: Option<&Word>) -> Result<NetworkMode, Problem> {
    match word.map(|word| (word, word.text.as_str())) {
        None | Some((_, "default")) => Ok(NetworkMode::Default),
        Some((_, "none")) => Ok(NetworkMode::None),
        Some((_, "host")) => Ok(NetworkMode::Host),
        Some((word, _)) => Err(unknown_mode(word, "network-unknown", "network mode", &["default", "none", "host"])),
    }
}

fn security(word: Option<&Word>) -> Result<SecurityMode, Problem> {
    match word.map(|word| (word, word.text.as_str())) {
        None | Some((_, "sandbox")) => Ok(SecurityMode::Sandbox),
        Some((_, "insecure")) => Ok(SecurityMode::Insecure),
        Some((word, _)) => Err(unknown_mode(word, "security-unknown", "security mode", &["sandbox", "insecure"])),
    }
}

fn unknown_mode(word: &Word, code: &'static str, what: &str, modes: &[&'static str]) -> Problem {
    let problem = Diagnostic::error(code, format!("{:?} is not a {what}", word.text)).at(word.span);
    Box::new(match nearest(&word.text, modes.iter().copied()) {
        Some(near) => problem.with_hint(format!("did you mean {near:?}?")),
        None => problem.with_hint(format!("write one of {}", modes.join(", "))),
    })
}

/// Parses `--device`: `[name=]NAME[,required[=BOOL]]`.
fn device(word: &Word) -> Result<Device, Problem> {
    let failed = |why: String| {
        let problem = Diagnostic::error("device-invalid", format!("invalid device {:?}: {why}", word.text));
        Box::new(problem.at(word.span).with_hint("write NAME or name=NAME, and perhaps required"))
    };
    let (mut name, mut need) = (None, Need::Optional);
    for field in csv::fields(&word.text).map_err(|err| failed(err.to_string()))? {
        let (key, value) = field.split_once('=').map_or((field.as_str(), None), |(key, value)| (key, Some(value)));
        match (key.to_lowercase().as_str(), value) {
            ("required", None) => need = Need::Required,
            ("required", Some(value)) => {
                let required = remote::parse_bool(value).ok_or_else(|| failed(format!("{value:?} is not a bool")))?;
                need = if required { Need::Required } else { Need::Optional };
            }
            ("name", Some(value)) if name.is_none() => name = Some(value.to_owned()),
            ("name", Some(_)) => return Err(failed("two names".to_owned())),
            // A CDI name may itself hold `=`.
            _ if name.is_none() => name = Some(field),
            _ => return Err(failed(format!("unknown option {field:?}"))),
        }
    }
    match name.filter(|name| !name.is_empty()) {
        Some(name) if cdi::is_request(&name) => Ok(Device { name, need }),
        Some(name) => Err(failed(format!("{name:?} does not have the form vendor.com/class=device"))),
        None => Err(failed("it has no name".to_owned())),
    }
}

/// What a `RUN` runs.
struct Executed {
    argv: Vec<String>,
    script: Option<Script>,
    /// First line of a heredoc that is the whole command, to be shown.
    summary: Option<String>,
}

impl Planner<'_> {
    /// `RUN`
    pub(super) fn run_instruction(
        &mut self,
        state: &mut StageState,
        item: &Item<'_>,
        run: &RunInstruction,
    ) -> Result<(), Error> {
        let executed = executed(state, item, run)?;
        let source = item.source(state);
        let mounts = self.mounts(state, &run.mounts, &source)?;
        let mut env = state.env.to_pairs();
        let socket = mounts.iter().find(|mount| matches!(mount.kind, MountKind::Ssh { .. }));
        if let Some(target) = socket.and_then(|mount| mount.target.clone())
            && state.env.get("SSH_AUTH_SOCK").is_none()
        {
            env.push(("SSH_AUTH_SOCK".to_owned(), target));
        }
        let mut shown = item.instruction.original.clone();
        if let Some(summary) = &executed.summary {
            shown += &format!(" ({summary})");
        }
        let secrets: Vec<&str> = mounts.iter().filter_map(|mount| secret_variable(&mount.kind)).collect();
        let shown = self.expander.known_for_show(&shown, &|name| {
            if secrets.contains(&name) { Some("****".to_owned()) } else { state.env.get(name).map(str::to_owned) }
        });
        let created_by = format!("RUN {}{} # buildkit", declared_args(state), executed.argv.join(" "));
        let op = RunOp {
            parent: state.root,
            argv: executed.argv,
            form: if matches!(run.command, Command::Shell(_)) { CommandForm::Shell } else { CommandForm::Exec },
            script: executed.script,
            env,
            proxy_env: self.args.proxies(),
            cwd: state.workdir(),
            user: config::user(&state.config).to_owned(),
            hostname: self.args.get("BUILDKIT_SANDBOX_HOSTNAME").unwrap_or(HOSTNAME).to_owned(),
            network: network(run.network.as_ref())?,
            security: security(run.security.as_ref())?,
            mounts,
            devices: run.devices.iter().map(device).collect::<Result<_, _>>()?,
            platform: state.platform.clone(),
        };
        let step = self.steps.add(Op::Run(Box::new(op)), source, item.label(&upper_keyword(&shown)));
        state.record_layer(created_by, step);
        Ok(())
    }
}

fn secret_variable(kind: &MountKind) -> Option<&str> {
    match kind {
        MountKind::Secret { env, .. } => env.as_deref(),
        _ => None,
    }
}

fn executed(state: &StageState, item: &Item<'_>, run: &RunInstruction) -> Result<Executed, Problem> {
    let Some(text) = run.shell_text() else {
        let argv = config::argv(&state.config, &run.command);
        if argv.is_empty() {
            let problem = Diagnostic::error("run-empty", "RUN has no command").at(item.instruction.span);
            return Err(Box::new(problem));
        }
        return Ok(Executed { argv, script: None, summary: None });
    };
    let shell = |text: String| config::argv(&state.config, &Command::Shell(text));
    let Some(heredoc) = run.script() else { return Ok(Executed { argv: shell(text), script: None, summary: None }) };
    let trimmed = text.trim();
    let mut summary = trimmed.lines().next().unwrap_or_default().to_owned();
    if trimmed.contains('\n') {
        summary.push_str("...");
    }
    if !text.starts_with("#!") {
        return Ok(Executed { argv: shell(text), script: None, summary: Some(summary) });
    }
    let path = format!("{SCRIPT_DIRECTORY}/{}", heredoc.name);
    let script = Script { path: path.clone(), content: text };
    Ok(Executed { argv: shell(path), script: Some(script), summary: Some(summary) })
}

/// Returns the declared ARGs as they stand before the command in the history: `|2 a=1 b=2 `.
fn declared_args(state: &StageState) -> String {
    let mut names: Vec<&str> = vec![];
    for arg in &state.declared {
        if !names.contains(&arg.name.as_str()) {
            names.push(&arg.name);
        }
    }
    if names.is_empty() {
        return String::new();
    }
    let mut text = format!("|{} ", names.len());
    for name in names {
        let declared = || state.declared.iter().rfind(|arg| arg.name == name).and_then(|arg| arg.value.as_deref());
        let value = state.env.get(name).or_else(declared).unwrap_or_default();
        text += &format!("{name}={value} ");
    }
    text
}
