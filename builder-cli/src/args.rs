//! The command line. Names and meanings follow `docker build` wherever it has them.
#![allow(
    rustdoc::broken_intra_doc_links,
    rustdoc::invalid_html_tags,
    reason = "doc comments are help texts here, where brackets mean what may be left out or filled in"
)]

mod check;
mod creds;
mod look;
mod manifest;

use std::path::PathBuf;

use builder_core::Entitlement;
pub(crate) use look::{AnswerFormat, ContextArgs, ContextCommand, ContextLsArgs, ExplainArgs, PlanArgs, PlanFormat};

use clap::{Parser, Subcommand, ValueEnum};

pub(crate) use check::{Call, CheckArgs, Method, ReportFormat};
pub(crate) use creds::BuildCredsArgs;
pub(crate) use manifest::{EntryArgs, ManifestAdd, ManifestAnnotate, ManifestCommand, ManifestCreate, ManifestPush};

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

#[derive(Debug, Parser)]
pub(crate) struct BuildArgs {
    /// Files that COPY and ADD may use: a directory, a tar archive, http(s)://…, a git URL (#REF:DIR), or `-` for a tar
    /// or a Dockerfile on standard input
    #[arg(value_name = "CONTEXT")]
    pub(crate) context: String,

    /// The Dockerfile; `-` is standard input. In a context that is not a directory, a path in it [default:
    /// CONTEXT/Dockerfile, then Containerfile]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) file: Option<PathBuf>,

    /// Name in the store, NAME[:TAG]
    #[arg(short, long = "tag", value_name = "NAME")]
    pub(crate) tags: Vec<String>,

    /// Stage to build, by name or number [default: the last]
    #[arg(long, value_name = "STAGE")]
    pub(crate) target: Option<String>,

    /// Value of an ARG; without =VALUE taken from the environment
    #[arg(long = "build-arg", value_name = "NAME[=VALUE]")]
    pub(crate) build_args: Vec<String>,

    /// Lines NAME[=VALUE] as build args; # begins a comment. --build-arg wins
    #[arg(long = "build-arg-file", value_name = "FILE")]
    pub(crate) build_arg_files: Vec<PathBuf>,

    /// Further context: a directory, a tar, http(s)://…, a git URL, oci-layout://DIR[:TAG|@DIGEST],
    /// oci-archive:FILE[:TAG] or docker-image://REF
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    pub(crate) build_contexts: Vec<String>,

    /// Label of the image; wins over the Dockerfile's
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,

    /// Output, any number: type=oci|docker|tar,dest=FILE (- is standard output), type=oci,tar=false,dest=DIR,
    /// type=local,dest=DIR, type=registry,name=NAME, type=image,name=NAME[,push=true], type=cacheonly; for images
    /// compression=KIND, compression-level=N, force-compression=true, oci-mediatypes=false, push-by-digest=true; for
    /// files platform-split=BOOL.
    /// DIR alone is type=local, - alone is type=tar on standard output
    #[arg(short, long = "output", value_name = "SPEC")]
    pub(crate) outputs: Vec<String>,

    /// Push the image under its names
    #[arg(long)]
    pub(crate) push: bool,

    /// When to look up base images that are in the store
    #[arg(long, value_enum, value_name = "WHEN", num_args = 0..=1, require_equals = true, default_missing_value = "always")]
    pub(crate) pull: Option<PullName>,

    /// Compression of new layers
    #[arg(long, value_enum, value_name = "KIND")]
    pub(crate) compression: Option<CompressionName>,

    /// Level of the compression: gzip 0 to 9, zstd 1 to 22
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u8).range(0..=22))]
    pub(crate) compression_level: Option<u8>,

    /// Platform of the image, os/arch[/variant]; several, separated by commas, make an index [default: this machine's]
    #[arg(long = "platform", value_name = "PLATFORM", env = "DOCKER_DEFAULT_PLATFORM", value_delimiter = ',')]
    pub(crate) platforms: Vec<String>,

    /// Secret for RUN --mount=type=secret: id=ID[,src=FILE|,env=VARIABLE] [default: the variable ID, else the file ID].
    /// HTTP_AUTH_TOKEN_<host>, HTTP_AUTH_HEADER_<host>, GIT_AUTH_TOKEN[.<host>] and GIT_AUTH_HEADER[.<host>] are for
    /// the servers of ADD and of contexts
    #[arg(long = "secret", value_name = "SPEC")]
    pub(crate) secrets: Vec<String>,

    /// ssh agent for RUN --mount=type=ssh, and the one called default for git by ssh: ID[=SOCKET|KEYFILE,…]
    /// [default: the socket in $SSH_AUTH_SOCK]. Servers must stand in ~/.ssh/known_hosts
    #[arg(long = "ssh", value_name = "ID[=SOCKET]")]
    pub(crate) ssh: Vec<String>,

    /// What the Dockerfile may do beyond the usual: network.host (RUN --network=host although --network is none),
    /// security.insecure (RUN --security=insecure), device[=NAME] (RUN --device, of one CDI device or of all)
    #[arg(long = "allow", value_name = "ENTITLEMENT", value_parser = crate::options::entitlement)]
    pub(crate) allow: Vec<Allowed>,

    /// Directory with CDI specs, which describe devices for RUN --device [default: /etc/cdi, /var/run/cdi]
    #[arg(long = "cdi-spec-dir", value_name = "DIR")]
    pub(crate) cdi_spec_dirs: Vec<PathBuf>,

    /// Network of RUN instructions that name none
    #[arg(long, value_enum, default_value = "default", value_name = "MODE")]
    pub(crate) network: NetworkName,

    /// Run every step although its result is there
    #[arg(long)]
    pub(crate) no_cache: bool,

    /// Look for results of steps that other machines have shared: type=registry,ref=NAME, type=local,src=DIR, or a
    /// repository. Also finds what is inline in an image
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_from: Vec<String>,

    /// Share the results of this build: type=registry,ref=NAME[,mode=max], type=local,dest=DIR[,mode=max], type=inline,
    /// or a repository, which gets all steps; mode=min is the stage that is built. ignore-error=false lets the build
    /// fail with it
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_to: Vec<String>,

    /// Fill cache mounts that are not here yet with what another machine has shared: as --cache-from
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_mount_from: Vec<String>,

    /// Share the cache mounts of this build: type=registry,ref=NAME, type=local,dest=DIR, or a repository
    #[arg(long, value_name = "SPEC")]
    pub(crate) cache_mount_to: Vec<String>,

    /// Do steps again whose results are older: 12h, 7d; 0 is --no-cache
    #[arg(long, value_name = "TIME", value_parser = crate::shared_cache::ttl)]
    pub(crate) cache_ttl: Option<u64>,

    /// Fail when a shared cache does, instead of warning and going on without
    #[arg(long)]
    pub(crate) cache_strict: bool,
    /// Check the Dockerfile without building it, as `builder check` does: --call=check
    #[arg(long)]
    pub(crate) check: bool,

    /// What to do with the Dockerfile: build, check, outline (what a build can be given) or targets (the stages); with
    /// ,format=json for BuildKit's JSON and ,ignorestatus=true to end with 0 whatever a check found
    #[arg(long, value_name = "METHOD[,format=FORM]", default_value = "build", conflicts_with = "check",
          value_parser = check::call)]
    pub(crate) call: Call,

    /// How to show what happens
    #[arg(long, value_enum, default_value = "auto", value_name = "MODE")]
    pub(crate) progress: ProgressMode,

    /// Write the image ID (digest of the config, or of the index) to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) iidfile: Option<PathBuf>,

    /// Write digests, descriptor and names as JSON to this file
    #[arg(long, value_name = "FILE")]
    pub(crate) metadata_file: Option<PathBuf>,

    /// Let the state directory take no more than this on disk after the build (10GB, 500M)
    #[arg(long, value_name = "SIZE", value_parser = crate::options::size)]
    pub(crate) cache_max: Option<u64>,

    /// Steps and threads at once [default: by the number of CPUs]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1024))]
    pub(crate) jobs: Option<u16>,

    /// Print nothing but the digest of the image
    #[arg(short, long)]
    pub(crate) quiet: bool,

    #[command(flatten)]
    pub(crate) creds: BuildCredsArgs,

    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
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
    /// Platform of the image, os/arch[/variant] [default: this machine's]
    #[arg(long, value_name = "PLATFORM")]
    pub(crate) platform: Option<String>,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum CompressionName {
    /// Read by everything
    Gzip,
    /// Smaller and faster
    Zstd,
    /// A plain tar
    #[value(alias = "none")]
    Uncompressed,
}

/// A value of `--allow`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Allowed {
    Entitlement(Entitlement),
    Device(String),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum NetworkName {
    /// The same as host
    Default,
    /// That of this machine
    Host,
    /// Loopback alone
    None,
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
