//! Credentials of a build.

use std::path::PathBuf;

use clap::Parser;

/// Credentials that win over all files and helpers.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Registries")]
pub(crate) struct BuildCredsArgs {
    /// Credentials for a registry, or a part of it; without REGISTRY for the one that is pushed to. May be given several
    /// times
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    /// The same for pulling alone
    #[arg(long, value_name = "REGISTRY[/PATH]=USER[:PASSWORD]")]
    pub(crate) pull_creds: Vec<String>,
    /// The same for pushing alone
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) push_creds: Vec<String>,
    /// File of credentials for pushing, besides those for everything
    #[arg(long, value_name = "FILE")]
    pub(crate) push_authfile: Option<PathBuf>,
}
