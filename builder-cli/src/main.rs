//! The `builder` command: everything that reads the environment, prints, or decides an exit code. The work is done by
//! `builder-core`.

mod annotation;
mod args;
mod command;
mod confidential;
mod failure;
mod options;
mod output;
mod progress;
mod registries;
mod shared_cache;
mod terminate;

use std::process::ExitCode;

fn main() -> ExitCode {
    // First of all: this process may be the build process, which must enter its namespaces with a single thread.
    builder_core::init();
    let args = args::Args::read();
    match command::run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => failure.report(),
    }
}
