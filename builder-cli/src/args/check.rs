//! Options of looks at a Dockerfile: `builder check` and `builder build --call`.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

/// `--call`
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) method: Method,
    pub(crate) format: ReportFormat,
    /// Whether a check that found something ends with 0.
    pub(crate) ignores_status: bool,
}

/// What to do with a Dockerfile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Method {
    Build,
    Check,
    Outline,
    Targets,
}

/// Form of a report.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ReportFormat {
    /// For a person
    Human,
    /// As BuildKit's
    Json,
    /// SARIF 2.1.0, for tools that show the results of analyses
    Sarif,
}

const CHECK_HELP: &str = "Told are errors that a build would end with before its first step, and what rules find. Rules \
have BuildKit's names where BuildKit has them; `# check=skip=RULE,RULE` at the top of the file, or above an instruction, \
leaves some out, `# check=experimental=RULE` asks for more, and the build arg BUILDKIT_DOCKERFILE_CHECK replaces what the \
top of the file says. No namespaces, no registry and no state directory are needed; rules that depend on a base image \
count if the store has it.

Exit codes: 0 nothing found; 1 errors or warnings; 2 wrong usage.";

#[derive(Debug, Parser)]
#[command(after_help = CHECK_HELP)]
pub(crate) struct CheckArgs {
    /// The directory whose files COPY and ADD would use, or `-` for a Dockerfile on standard input
    #[arg(value_name = "CONTEXT", default_value = ".")]
    pub(crate) context: String,

    /// The Dockerfile; `-` is standard input [default: CONTEXT/Dockerfile, then Containerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Stage to check with all that it needs, by name or number [default: all of them]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Value of an ARG; without =VALUE taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,

    /// Further context, as for `builder build`
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    pub(crate) build_contexts: Vec<String>,

    /// Platform of the image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM", env = "DOCKER_DEFAULT_PLATFORM")]
    pub(crate) platform: Option<String>,

    /// Form of the report
    #[arg(long, value_enum, default_value = "human", value_name = "FORM")]
    pub(crate) format: ReportFormat,

    /// List all rules and check nothing
    #[arg(long)]
    pub(crate) list_rules: bool,
}

/// `METHOD[,format=FORM][,ignorestatus=BOOL]` of `--call`.
pub(super) fn call(text: &str) -> Result<Call, String> {
    let mut fields = text.split(',');
    let method = match fields.next().unwrap_or_default() {
        "build" => Method::Build,
        // The name of the same thing in the protocol of BuildKit.
        "check" | "lint" => Method::Check,
        "outline" => Method::Outline,
        "targets" => Method::Targets,
        other => return Err(format!("{other:?} is none of build, check, outline and targets")),
    };
    let mut call = Call { method, format: ReportFormat::Human, ignores_status: false };
    for field in fields {
        match field.split_once('=').unwrap_or((field, "true")) {
            ("format", "text" | "human") => call.format = ReportFormat::Human,
            ("format", "json") => call.format = ReportFormat::Json,
            ("format", "sarif") if method == Method::Check => call.format = ReportFormat::Sarif,
            ("format", other) => return Err(format!("{other:?} is no format of it: text and json are")),
            ("ignorestatus", "true" | "1") => call.ignores_status = true,
            ("ignorestatus", "false" | "0") => call.ignores_status = false,
            _ => return Err(format!("{field:?} is neither format=text|json nor ignorestatus=true")),
        }
    }
    if method == Method::Build && text.contains(',') {
        return Err("a build has no further options here".to_owned());
    }
    Ok(call)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls() {
        let call_of = |method, format, ignores_status| Ok(Call { method, format, ignores_status });
        for (text, want) in [
            ("build", call_of(Method::Build, ReportFormat::Human, false)),
            ("check", call_of(Method::Check, ReportFormat::Human, false)),
            ("lint,format=json", call_of(Method::Check, ReportFormat::Json, false)),
            ("check,format=sarif,ignorestatus", call_of(Method::Check, ReportFormat::Sarif, true)),
            ("outline,format=text", call_of(Method::Outline, ReportFormat::Human, false)),
            ("targets,format=json,ignorestatus=false", call_of(Method::Targets, ReportFormat::Json, false)),
        ] {
            assert_eq!(call(text), want, "{text}");
        }
        for text in
            ["", "subrequests.describe", "check,format=xml", "outline,format=sarif", "build,format=json", "check,x=y"]
        {
            assert!(call(text).is_err(), "{text}");
        }
    }
}
