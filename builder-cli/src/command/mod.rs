//! One file a subcommand.

mod build;
mod check;
mod context;
mod doctor;
mod import;
mod manifest;
mod plan;
mod registry;
mod store;

use std::io::Write as _;
use std::path::PathBuf;

use builder_core::Builder;

use crate::args::{Args, Command};
use crate::failure::Failure;
use crate::registries;

/// Does what the command line says.
pub(crate) fn run(args: Args) -> Result<(), Failure> {
    if let Command::Context(args) = &args.command {
        return context::run(args);
    }
    let builder = Builder::open(state_dir(args.state_dir)?)?;
    match args.command {
        Command::Build(args) => {
            let pushed = build::pushed_names(&args)?;
            build::run(&registries::configure_build(builder, &args.registry, &args.creds, &pushed)?, &args)
        }
        Command::Plan(args) => {
            plan::run(&registries::configure_build(builder, &args.build.registry, &args.build.creds, &[])?, &args)
        }
        Command::Explain(args) => plan::explain(&builder, &args),
        Command::Check(args) => check::run(&builder, &args),
        Command::Push(args) => registry::push(builder, &args),
        Command::Pull(args) => registry::pull(builder, &args),
        Command::Copy(args) => registry::copy(builder, &args),
        Command::Manifest(command) => manifest::run(builder, &command),
        Command::Tag(args) => registry::tag(&builder, &args),
        Command::LsTags(args) => registry::ls_tags(builder, &args),
        Command::Login(args) => registry::login(builder, &args),
        Command::Logout(args) => registry::logout(&args),
        Command::Images(args) => store::images(&builder, &args),
        Command::Inspect(args) => store::inspect(&builder, &args),
        Command::Rmi(args) => store::rmi(&builder, &args),
        Command::Import(args) => import::run(&builder, &args),
        Command::Prune(args) => store::prune(&builder, &args),
        Command::Du(args) => store::du(&builder, &args),
        Command::Doctor(args) => doctor::run(&builder, &args),
        Command::Context(args) => context::run(&args),
    }
}

/// The option, else `$XDG_DATA_HOME/builder`, `~/.local/share/builder`, and `/var/lib/builder` for root.
fn state_dir(option: Option<PathBuf>) -> Result<PathBuf, Failure> {
    if let Some(dir) = option {
        return Ok(dir);
    }
    if nix::unistd::geteuid().is_root() {
        return Ok(PathBuf::from("/var/lib/builder"));
    }
    let absolute = |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
    absolute("XDG_DATA_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".local/share")))
        .map(|data| data.join("builder"))
        .ok_or_else(|| Failure::usage("no place for the state directory: set HOME, or name it with --state-dir"))
}

/// Writes one line of result to standard output.
fn print(line: &str) -> Result<(), Failure> {
    match writeln!(std::io::stdout().lock(), "{line}") {
        // Whoever reads has seen enough.
        Err(error) if error.kind() == std::io::ErrorKind::BrokenPipe => Ok(()),
        other => other.map_err(|source| Failure::output(format!("write to standard output: {source}"))),
    }
}

/// Bytes as a person reads them: `1.2 GB`.
#[expect(clippy::cast_precision_loss, reason = "shown with one decimal")]
fn bytes(count: u64) -> String {
    match count {
        0..1_000 => format!("{count} B"),
        1_000..1_000_000 => format!("{:.1} kB", count as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", count as f64 / 1e6),
        _ => format!("{:.1} GB", count as f64 / 1e9),
    }
}
