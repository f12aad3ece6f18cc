//! `builder check`, and `builder build --call=…`: looks at a Dockerfile without building it.

use std::io::Write as _;

use builder_core::lint::{Origin, RULES};
use builder_core::{BuildRequest, Builder, CheckReport, ContextSource, Target};
use serde_json::Value;

use super::build;
use crate::args::{Call, CheckArgs, Method, ReportFormat};
use crate::failure::Failure;
use crate::options;

/// Checks.
pub(crate) fn run(builder: &Builder, args: &CheckArgs) -> Result<(), Failure> {
    if args.list_rules {
        return list_rules(args.format);
    }
    let request = request(args)?;
    let report = builder.check(&request)?;
    show(&report, args.format)?;
    if report.is_clean() { Ok(()) } else { Err(Failure::found()) }
}

/// Does what `--call` says.
pub(super) fn call(builder: &Builder, request: &BuildRequest, call: Call) -> Result<(), Failure> {
    let is_json = call.format == ReportFormat::Json;
    match call.method {
        Method::Outline => {
            let (outline, source) = builder.outline(request)?;
            write(&if is_json { pretty(&outline.to_json(&source)) } else { outline.to_text() })
        }
        Method::Targets => {
            let (targets, source) = builder.targets(request)?;
            write(&if is_json { pretty(&Target::to_json(&targets, &source)) } else { Target::to_text(&targets) })
        }
        Method::Build | Method::Check => {
            let report = builder.check(request)?;
            show(&report, call.format)?;
            if report.is_clean() || call.ignores_status { Ok(()) } else { Err(Failure::found()) }
        }
    }
}

fn request(args: &CheckArgs) -> Result<BuildRequest, Failure> {
    let is_stdin = args.context == "-";
    let context = if is_stdin { ContextSource::Empty } else { directory(&args.context)? };
    let stdin = "-".into();
    let file = if is_stdin { Some(&stdin) } else { args.file.as_ref() };
    if is_stdin && args.file.as_ref().is_some_and(|file| *file != stdin) {
        let text = "a context on standard input cannot be looked into: name its Dockerfile alone, or `-` alone";
        return Err(Failure::usage(text));
    }
    let mut request = BuildRequest::new(build::dockerfile(&args.context, file)?, context);
    for text in &args.build_args {
        request.build_args.extend(options::build_arg(text)?);
    }
    build::source_date_epoch(&mut request)?;
    for text in &args.build_contexts {
        request.build_contexts.push(options::build_context(text)?);
    }
    request.target.clone_from(&args.target);
    request.platforms.extend(args.platform.clone());
    Ok(request)
}

fn directory(text: &str) -> Result<ContextSource, Failure> {
    match std::fs::metadata(text) {
        Ok(meta) if meta.is_dir() => Ok(ContextSource::Directory(text.into())),
        Ok(_) => Err(Failure::usage(format!("the context {text:?} is no directory; name a Dockerfile with -f FILE"))),
        Err(source) => Err(Failure::usage(format!("the context {text:?} cannot be read: {source}"))),
    }
}

fn show(report: &CheckReport, format: ReportFormat) -> Result<(), Failure> {
    write(&match format {
        ReportFormat::Human => report.to_text(),
        ReportFormat::Json => pretty(&report.to_json()),
        ReportFormat::Sarif => pretty(&report.to_sarif()),
    })
}

/// The table of rules: a line each, or JSON.
fn list_rules(format: ReportFormat) -> Result<(), Failure> {
    let origin = |origin| if origin == Origin::BuildKit { "buildkit" } else { "builder" };
    match format {
        ReportFormat::Human => {
            let width = RULES.iter().map(|rule| rule.name.len()).max().unwrap_or_default();
            let line = |rule: &&builder_core::lint::Rule| {
                let kind = if rule.experimental { " (experimental)" } else { "" };
                format!("{:width$}  {}{kind}\n", rule.name, rule.description)
            };
            write(&RULES.iter().map(line).collect::<String>())
        }
        ReportFormat::Json => {
            let value = |rule: &&builder_core::lint::Rule| {
                serde_json::json!({
                    "name": rule.name,
                    "description": rule.description,
                    "url": rule.url,
                    "origin": origin(rule.origin),
                    "experimental": rule.experimental,
                })
            };
            write(&pretty(&RULES.iter().map(value).collect()))
        }
        ReportFormat::Sarif => Err(Failure::usage("--list-rules has the formats human and json")),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}\n")
}

fn write(text: &str) -> Result<(), Failure> {
    match std::io::stdout().lock().write_all(text.as_bytes()) {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::output(format!("write to standard output: {source}"))),
    }
}
