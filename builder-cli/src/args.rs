//! The command line. Names and meanings follow `docker build` wherever it has them.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "doc comments are help texts here, where brackets mean what may be left out or filled in"
)]

mod build;
mod check;
mod creds;
mod look;
mod manifest;

use std::path::PathBuf;

pub(crate) use look::{AnswerFormat, ContextArgs, ContextCommand, ContextLsArgs, ExplainArgs, PlanArgs, PlanFormat};

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use build::{Allowed, BuildArgs, CompressionName, NetworkName};
pub(crate) use check::{Call, CheckArgs, Method, ReportFormat};
pub(crate) use creds::BuildCredsArgs;
pub(crate) use manifest::{
    ArtifactArgs, EntryArgs, ManifestAdd, ManifestAnnotate, ManifestCommand, ManifestCreate, ManifestInspect,
    ManifestPush,
};

/// Build OCI images without a daemon and without root.
#[derive(Debug, Parser)]
#[command(name = "builder", version, max_term_width = 100, after_help = EXIT_CODES)]
pub(crate) struct Args {
    /// Directory of images, layers and cache [default: $XDG_DATA_HOME/builder, as root /var/lib/builder]
    #[arg(long, global = true, value_name = "DIR", env = "BUILDER_STATE_DIR")]
    pub(crate) state_dir: Option<PathBuf>,

    #[command(subcommand)]
    pub(crate) command: Command,
}

const EXIT_CODES: &str = "Exit codes: 0 done; 1 the Dockerfile or the context is at fault; 2 wrong usage; 69 this machine \
cannot do it; 70 a fault of builder itself; 73 an output could not be written; 74 the state directory failed; 75 a \
registry failed; 130 interrupted. A failed RUN passes its own exit status on (128 + N when signal N ended it).";

#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Build an image from a Dockerfile
    #[command(visible_alias = "b")]
    Build(Box<BuildArgs>),
    /// Show what a build would do: its steps, which of them are cached, and why the others are not
    Plan(Box<PlanArgs>),
    /// Show what a build did, and why each step that ran did
    Explain(ExplainArgs),
    /// Look at a build context
    Context(ContextArgs),
    /// Check a Dockerfile without building it
    Check(CheckArgs),
    /// List the images of the store
    Images(ImagesArgs),
    /// Show an image of the store as JSON
    Inspect(InspectArgs),
    /// Remove names from the store; the data goes with `prune`
    Rmi(RmiArgs),
    /// Push an image of the store to a registry
    Push(PushArgs),
    /// Fetch an image into the store
    Pull(PullArgs),
    /// Copy an image between registries, OCI layouts, archives and the store, byte for byte
    Copy(CopyArgs),
    /// Put images of several platforms under one index
    #[command(subcommand)]
    Manifest(Box<ManifestCommand>),
    /// Give an image of the store further names
    Tag(TagArgs),
    /// List the tags of a repository
    LsTags(LsTagsArgs),
    /// Store credentials for a registry, once it has taken them
    Login(LoginArgs),
    /// Forget credentials for a registry
    Logout(LogoutArgs),
    /// Make an image of a root filesystem tar
    Import(ImportArgs),
    /// Free what no image needs
    Prune(PruneArgs),
    /// Show what the state directory takes on disk
    Du(DuArgs),
    /// Show what this machine allows, and what would allow more
    Doctor(DoctorArgs),
}

/// How news of a build is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// tty on a terminal, plain elsewhere
    Auto,
    /// Lines grouped by step
    Plain,
    /// Live steps with elapsed time and the tail of their output
    Tty,
    /// One event a line
    Json,
}

/// How registries are reached.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Registries")]
pub(crate) struct RegistryArgs {
    /// File of credentials [default: DOCKER_AUTH_CONFIG, $REGISTRY_AUTH_FILE or auth.json of Podman and config.json of Docker]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,

    /// Whether certificates must hold; with false http will do, too [default: true, but for what registries.conf calls
    /// insecure]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set)]
    pub(crate) tls_verify: Option<bool>,

    /// How often to try again what fails for a passing reason [default: 4]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) retry: Option<u32>,

    /// Wait before the second try, doubled for each further one: 2s, 500ms
    #[arg(long, value_name = "TIME", value_parser = crate::registries::delay)]
    pub(crate) retry_delay: Option<std::time::Duration>,

    /// Ask here before Docker Hub; may be given several times
    #[arg(long = "registry-mirror", value_name = "HOST[/PATH]")]
    pub(crate) registry_mirrors: Vec<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct PushArgs {
    /// Name or digest of an image of the store
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Where to push it, HOST/REPOSITORY[:TAG] [default: NAME]
    #[arg(value_name = "DEST")]
    pub(crate) dest: Option<String>,
    /// Credentials for this registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct PullArgs {
    /// The image, [HOST/]REPOSITORY[:TAG][@DIGEST]
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Platform of the image, os/arch[/variant]; may be given several times [default: this machine's]
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,
    /// All platforms that there are, with the index as it is
    #[arg(long, conflicts_with = "platforms")]
    pub(crate) all_platforms: bool,
    /// Credentials for this registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct CopyArgs {
    /// docker://NAME, store:NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG] or docker-archive:FILE[:NAME]
    #[arg(value_name = "FROM")]
    pub(crate) from: String,
    /// The same
    #[arg(value_name = "TO")]
    pub(crate) to: String,
    /// Only this platform, os/arch[/variant] [default: all that there are]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
    /// Credentials for the registry that is copied from
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) src_creds: Option<String>,
    /// Credentials for the registry that is copied to
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) dest_creds: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct TagArgs {
    /// Name or digest of an image of the store
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Further names, NAME[:TAG]
    #[arg(value_name = "NEW", required = true)]
    pub(crate) new: Vec<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct LsTagsArgs {
    /// The repository, [HOST/]REPOSITORY
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Credentials for this registry
    #[arg(long, value_name = "USER[:PASSWORD]")]
    pub(crate) creds: Option<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct LoginArgs {
    /// The registry, HOST[:PORT] [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) name: Option<String>,
    /// User name
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Password; everyone on this machine can see it in the list of processes
    #[arg(short, long, value_name = "TEXT", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    pub(crate) password_stdin: bool,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct LogoutArgs {
    /// The registry, HOST[:PORT] [default: docker.io]
    #[arg(value_name = "REGISTRY")]
    pub(crate) name: Option<String>,
    /// File of credentials [default: $REGISTRY_AUTH_FILE or config.json of Docker]
    #[arg(long, value_name = "FILE")]
    pub(crate) authfile: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum PullName {
    /// Every time
    #[value(alias = "true")]
    Always,
    /// Not at all: what the store has is taken
    #[value(alias = "false")]
    Missing,
    /// If the registry answers and has another one
    #[value(alias = "ifnewer")]
    Newer,
    /// Not at all, and what the store lacks is an error
    Never,
}

impl From<PullName> for builder_core::PullPolicy {
    fn from(name: PullName) -> Self {
        match name {
            PullName::Always => Self::Always,
            PullName::Missing => Self::Missing,
            PullName::Newer => Self::Newer,
            PullName::Never => Self::Never,
        }
    }
}

#[derive(Debug, Parser)]
pub(crate) struct ImagesArgs {
    /// One JSON object a line
    #[arg(long)]
    pub(crate) json: bool,
    /// Print digests alone
    #[arg(short, long)]
    pub(crate) quiet: bool,
}

#[derive(Debug, Parser)]
pub(crate) struct InspectArgs {
    /// Name or digest of an image
    #[arg(value_name = "NAME")]
    pub(crate) name: String,

    /// The manifest or index alone, byte for byte
    #[arg(long, group = "part")]
    pub(crate) raw: bool,

    /// The config alone, byte for byte
    #[arg(long, group = "part")]
    pub(crate) config: bool,

    /// The layers alone, lowest first
    #[arg(long, group = "part")]
    pub(crate) layers: bool,

    /// Of an image of several platforms, which [default: this machine's; --raw shows the index]
    #[arg(long, value_name = "PLATFORM", requires = "part")]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct RmiArgs {
    /// Names of images
    #[arg(value_name = "NAME", required = true)]
    pub(crate) names: Vec<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct ImportArgs {
    /// Tar of a root filesystem, plain or compressed with gzip, bzip2, xz or zstd; `-` is standard input
    #[arg(value_name = "ROOTFS.tar")]
    pub(crate) file: PathBuf,
    /// Name in the store, NAME[:TAG]
    #[arg(value_name = "NAME")]
    pub(crate) name: String,
    /// Platform of the image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct PruneArgs {
    /// Forget cached steps too; only named images stay
    #[arg(short, long)]
    pub(crate) all: bool,
    /// Empty cache mounts as well
    #[arg(long)]
    pub(crate) mounts: bool,
}

#[derive(Debug, Parser)]
pub(crate) struct DuArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}

#[derive(Debug, Parser)]
pub(crate) struct DoctorArgs {
    /// One JSON object
    #[arg(long)]
    pub(crate) json: bool,
}
