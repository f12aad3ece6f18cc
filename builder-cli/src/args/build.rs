//! Options of `builder build`.

use std::path::PathBuf;

use builder_core::{Entitlement, ExtraHost, Ulimit};
use clap::{Parser, ValueEnum};

use super::{BuildCredsArgs, Call, ProgressMode, PullName, RegistryArgs};

/// What command lines for other builders say and this one has not.
#[derive(Debug, clap::Args)]
pub(crate) struct ElsewhereArgs {
    /// Provenance attestations, of which none are made: `false`
    #[arg(long, hide = true, value_name = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = crate::options::no_attestation)]
    provenance: Vec<()>,

    /// Bills of materials, of which none are made: `false`
    #[arg(long, hide = true, value_name = "false", num_args = 0..=1, require_equals = true, default_missing_value = "true",
        value_parser = crate::options::no_attestation)]
    sbom: Vec<()>,

    /// Loading into a daemon, of which there is none: an error that says what to do instead
    #[arg(long, hide = true, num_args = 0, default_missing_value = "true", value_parser = crate::options::no_daemon)]
    load: Vec<()>,
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
    /// oci-archive:FILE[:TAG], docker-archive:FILE[:NAME] or docker-image://REF
    #[arg(long = "build-context", value_name = "NAME=WHERE")]
    pub(crate) build_contexts: Vec<String>,

    /// Label of the image; wins over the Dockerfile's
    #[arg(long = "label", value_name = "KEY=VALUE")]
    pub(crate) labels: Vec<String>,

    /// Annotation of the image: PLACE is manifest, manifest-descriptor, index or index-descriptor, the first two also for
    /// one platform, manifest[linux/arm64]; several with commas [default: manifest]
    #[arg(long = "annotation", value_name = "[PLACE:]KEY=VALUE")]
    pub(crate) annotations: Vec<String>,

    /// Put the layers that this build adds to its base into one
    #[arg(long)]
    pub(crate) squash: bool,

    /// Output, any number: type=oci|docker|tar,dest=FILE (- is standard output), type=oci,tar=false,dest=DIR,
    /// type=local,dest=DIR, type=registry,name=NAME, type=image,name=NAME[,push=true[,store=false]], type=cacheonly; for
    /// images name=NAME, compression=KIND, compression-level=N, force-compression=true, oci-mediatypes=false,
    /// push-by-digest=true, rewrite-timestamp=true, annotation[-PLACE][[PLATFORM]].KEY=VALUE; for files
    /// platform-split=BOOL. DIR alone is type=local, - alone is type=tar on standard output
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

    /// Name in /etc/hosts of RUN instructions: NAME:ADDRESS, NAME=ADDRESS; `host-gateway` is this machine
    #[arg(long = "add-host", value_name = "NAME:ADDRESS", value_parser = crate::options::extra_host)]
    pub(crate) add_hosts: Vec<ExtraHost>,

    /// Size of /dev/shm in RUN instructions [default: 64m]
    #[arg(long, value_name = "SIZE", value_parser = crate::options::binary_size)]
    pub(crate) shm_size: Option<u64>,

    /// Limit of RUN instructions: nofile=SOFT[:HARD] and the other names of docker run; -1 is none
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = crate::options::ulimit)]
    pub(crate) ulimits: Vec<Ulimit>,

    #[command(flatten)]
    pub(crate) elsewhere: ElsewhereArgs,

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
          value_parser = super::check::call)]
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
