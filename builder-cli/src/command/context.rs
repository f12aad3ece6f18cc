//! `builder context ls`

use std::io::{IsTerminal as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use builder_core::{ContextEntry, ContextEntryKind, ContextInventory, IgnoreDecision, IgnoreRule, PathVerdict};
use serde_json::{Value, json};

use super::{build, bytes, print};
use crate::args::{AnswerFormat, ContextArgs, ContextCommand, ContextLsArgs};
use crate::failure::Failure;

/// Does what the subcommand says.
pub(crate) fn run(args: &ContextArgs) -> Result<(), Failure> {
    match &args.command {
        ContextCommand::Ls(args) => ls(args),
    }
}

fn ls(args: &ContextLsArgs) -> Result<(), Failure> {
    let context = &args.context;
    if !context.is_dir() {
        let text = format!("{} is no directory; ignore rules are for contexts that are", context.display());
        return Err(Failure::usage(text));
    }
    let ignore = match args.file.clone().or_else(|| build::default_dockerfile(context)) {
        Some(dockerfile) => build::ignore_file_of(&dockerfile)?,
        None => None,
    };
    let inventory = ContextInventory::open(context, ignore.as_ref())?;
    if let Some(path) = &args.why {
        let verdict = inventory.why(below(context, path).as_os_str().as_bytes())?;
        return match args.format {
            AnswerFormat::Json => print(&format!("{:#}", verdict_json(&verdict))),
            AnswerFormat::Text => verdict_text(&verdict, inventory.ignore_file()).iter().try_for_each(|l| print(l)),
        };
    }
    let entries = inventory.list()?;
    match args.format {
        AnswerFormat::Json => print(&format!("{:#}", list_json(&inventory, &entries))),
        AnswerFormat::Text => list(args, &entries),
    }
}

/// A path inside the context as the rules see it: an absolute one may be given as this machine has it.
fn below(context: &Path, path: &Path) -> std::path::PathBuf {
    let real = std::fs::canonicalize(context).unwrap_or_else(|_| context.to_owned());
    let inside = [real.as_path(), context].into_iter().find_map(|dir| path.strip_prefix(dir).ok());
    match path.is_absolute() {
        true => inside.unwrap_or(path).to_owned(),
        false => path.to_owned(),
    }
}

fn list(args: &ContextLsArgs, entries: &[ContextEntry]) -> Result<(), Failure> {
    let end = if args.null { b'\0' } else { b'\n' };
    let is_terminal = std::io::stdout().is_terminal();
    let mut out = Vec::new();
    for entry in entries {
        match is_terminal && !args.null {
            true => out.extend_from_slice(shown(&entry.path).as_bytes()),
            false => out.extend_from_slice(&entry.path),
        }
        if entry.kind == ContextEntryKind::Directory {
            out.push(b'/');
        }
        out.push(end);
    }
    match std::io::stdout().lock().write_all(&out) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => return Ok(()),
        other => other.map_err(|source| Failure::output(format!("write to standard output: {source}")))?,
    }
    if args.total || is_terminal {
        let (files, size) = totals(entries);
        // Standard error may be closed; there is nobody left to tell.
        drop(writeln!(std::io::stderr().lock(), "{files} files, {}", bytes(size)));
    }
    Ok(())
}

fn totals(entries: &[ContextEntry]) -> (usize, u64) {
    let files = entries.iter().filter(|entry| entry.kind != ContextEntryKind::Directory).count();
    (files, entries.iter().map(|entry| entry.size_bytes).sum())
}

/// A path for people: no name can move the cursor of a terminal.
fn shown(path: &[u8]) -> String {
    let escape = |c: char| if c.is_control() { c.escape_default().to_string() } else { c.to_string() };
    String::from_utf8_lossy(path).chars().map(escape).collect()
}

fn kind_name(kind: ContextEntryKind) -> &'static str {
    match kind {
        ContextEntryKind::Directory => "directory",
        ContextEntryKind::File => "file",
        ContextEntryKind::Symlink => "symlink",
        _ => "other",
    }
}

/// A path in JSON, which has escapes of its own.
fn lossy(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn list_json(inventory: &ContextInventory, entries: &[ContextEntry]) -> Value {
    let (files, size) = totals(entries);
    let entry = |entry: &ContextEntry| json!({"path": lossy(&entry.path), "kind": kind_name(entry.kind), "size_bytes": entry.size_bytes});
    let entries: Vec<Value> = entries.iter().map(entry).collect();
    json!({"ignore_file": inventory.ignore_file(), "entries": entries, "files": files, "bytes": size})
}

fn rule_json(rule: &IgnoreRule) -> Value {
    let decision = match rule.decision {
        IgnoreDecision::Exclude => "exclude",
        IgnoreDecision::Include => "include",
    };
    json!({"file": rule.file, "line": rule.line, "text": rule.text, "decision": decision})
}

fn verdict_json(verdict: &PathVerdict) -> Value {
    json!({
        "path": lossy(&verdict.path),
        "kind": verdict.kind.map(kind_name),
        "kept": verdict.kept,
        "rule": verdict.rule.as_ref().map(rule_json),
        "matched": verdict.matched.as_deref().map(lossy),
        "may_keep_below": verdict.may_keep_below.as_ref().map(rule_json),
        "leads_to": verdict.leads_to.as_deref().map(verdict_json),
    })
}

/// The verdict in sentences, a line each.
fn verdict_text(verdict: &PathVerdict, ignore_file: Option<&str>) -> Vec<String> {
    let name = if verdict.path.is_empty() { "the context".to_owned() } else { shown(&verdict.path) };
    let place = |rule: &IgnoreRule| format!("{}:{} ({:?})", rule.file, rule.line, rule.text);
    let above = match &verdict.matched {
        Some(matched) if *matched != verdict.path => format!(", which matches {}", shown(matched)),
        _ => String::new(),
    };
    let mut lines = vec![match &verdict.rule {
        Some(rule) if verdict.kept => format!("{name} is kept by {}{above}", place(rule)),
        Some(rule) => format!("{name} is excluded by {}{above}", place(rule)),
        None => match ignore_file {
            Some(file) => format!("{name} is kept: no rule of {file} matches it"),
            None => format!("{name} is kept: there is no ignore file"),
        },
    }];
    if let Some(rule) = &verdict.may_keep_below {
        lines.push(format!("something below it may be kept by {}", place(rule)));
    }
    match &verdict.leads_to {
        Some(real) => lines.extend(verdict_text(real, ignore_file).into_iter().map(|line| format!("by links: {line}"))),
        None if verdict.kind.is_none() => lines.push("nothing has this name".to_owned()),
        None => {}
    }
    lines
}
