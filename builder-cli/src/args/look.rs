//! Commands that look and do nothing: `plan`, `explain`, `context`.

use std::path::PathBuf;

use clap::error::ErrorKind;
use clap::parser::ValueSource;
use clap::{ArgMatches, CommandFactory as _, FromArgMatches as _, Parser, Subcommand, ValueEnum};

use super::{Args, BuildArgs};

/// Options of `build` that decide which steps there are and what their keys are. The others say where the image goes,
/// which a plan makes none of: they are refused, so that nobody waits for what they ask for.
const OF_A_PLAN: [&str; 32] = [
    "context",
    "file",
    "target",
    "build_args",
    "build_arg_files",
    "build_contexts",
    "platforms",
    "pull",
    "secrets",
    "ssh",
    "allow",
    "cdi_spec_dirs",
    "network",
    "add_hosts",
    "shm_size",
    "ulimits",
    "no_cache",
    "cache_from",
    "cache_ttl",
    "cache_strict",
    "creds",
    "pull_creds",
    "jobs",
    "authfile",
    "tls_verify",
    "retry",
    "retry_delay",
    "registry_mirrors",
    "format",
    "state_dir",
    "help",
    "version",
];

impl Args {
    /// Reads the command line; ends the process where that is wrong, or asks for help.
    pub(crate) fn read() -> Self {
        let is_of_plan = |id: &str| OF_A_PLAN.contains(&id);
        let mut command = Self::command().mut_subcommand("plan", |plan| {
            plan.mut_args(|arg| if is_of_plan(arg.get_id().as_str()) { arg } else { arg.hide(true) })
        });
        let matches = command.get_matches_mut();
        if let Some(option) = matches.subcommand_matches("plan").and_then(foreign_option) {
            let text = format!("--{option} plays no part in a plan, which makes no image: leave it out");
            if let Some(plan) = command.find_subcommand_mut("plan") {
                plan.error(ErrorKind::ArgumentConflict, text).exit();
            }
        }
        Self::from_arg_matches(&matches).unwrap_or_else(|error| error.exit())
    }
}

/// An option of `build` that `plan` has no use for, if one was given.
fn foreign_option(plan: &ArgMatches) -> Option<String> {
    let given = |id: &&clap::Id| plan.value_source(id.as_str()) == Some(ValueSource::CommandLine);
    let foreign = plan.ids().filter(given).find(|id| !OF_A_PLAN.contains(&id.as_str()) && !is_group(id.as_str()))?;
    let build = Args::command();
    let long = build
        .find_subcommand("build")
        .and_then(|build| build.get_arguments().find(|arg| arg.get_id() == foreign))
        .and_then(clap::Arg::get_long);
    Some(long.unwrap_or(foreign.as_str()).to_owned())
}

/// Groups of options are named like the types that hold them.
fn is_group(id: &str) -> bool {
    id.starts_with(char::is_uppercase)
}

/// How an answer is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum AnswerFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
}

/// How a plan is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PlanFormat {
    /// For people
    Text,
    /// One JSON object
    Json,
    /// A graph for Graphviz
    Dot,
}

#[derive(Debug, Parser)]
pub(crate) struct PlanArgs {
    /// How to write the plan
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) format: PlanFormat,

    #[command(flatten)]
    pub(crate) build: BuildArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct ExplainArgs {
    /// Name or digest of an image that was built here [default: the last build]
    #[arg(value_name = "NAME")]
    pub(crate) name: Option<String>,

    /// How to write the explanation
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) format: AnswerFormat,
}

#[derive(Debug, Parser)]
pub(crate) struct ContextArgs {
    #[command(subcommand)]
    pub(crate) command: ContextCommand,
}

#[derive(Debug, Subcommand)]
pub(crate) enum ContextCommand {
    /// List what the ignore file of a context lets through
    Ls(ContextLsArgs),
}

#[derive(Debug, Parser)]
pub(crate) struct ContextLsArgs {
    /// A directory
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: PathBuf,

    /// The Dockerfile, whose own ignore file FILE.dockerignore comes first [default: CONTEXT/Dockerfile, then
    /// Containerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Say which rule hides this path or keeps it; relative to the context, need not exist
    #[arg(long, value_name = "PATH", conflicts_with_all = ["null", "total"])]
    pub(crate) why: Option<PathBuf>,

    /// End each path with a NUL byte instead of a line feed
    #[arg(short = '0', long, conflicts_with = "format")]
    pub(crate) null: bool,

    /// Tell how many files and bytes there are, on standard error [default: on a terminal]
    #[arg(long)]
    pub(crate) total: bool,

    /// How to write the list
    #[arg(long, value_enum, default_value = "text", value_name = "FORMAT")]
    pub(crate) format: AnswerFormat,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_option_of_a_plan_is_one_of_build() {
        let command = Args::command();
        let plan = command.find_subcommand("plan").unwrap();
        let known: Vec<&str> = plan.get_arguments().map(|arg| arg.get_id().as_str()).collect();
        for id in OF_A_PLAN.iter().filter(|id| !["help", "version", "state_dir"].contains(id)) {
            assert!(known.contains(id), "{id} is no option");
        }
    }

    #[test]
    fn options_that_make_an_image_are_foreign() {
        let foreign = |args: &[&str]| {
            let args = ["builder", "plan"].iter().chain(args).chain(&["."]);
            foreign_option(Args::command().get_matches_from(args).subcommand_matches("plan").unwrap())
        };
        assert_eq!(foreign(&["-f", "x", "--target", "y", "--no-cache", "--pull", "--jobs", "3"]), None);
        assert_eq!(foreign(&["-t", "x"]).as_deref(), Some("tag"));
        assert_eq!(foreign(&["--push"]).as_deref(), Some("push"));
        assert_eq!(foreign(&["--iidfile", "x"]).as_deref(), Some("iidfile"));
    }
}
