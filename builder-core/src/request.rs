//! What a caller asks for, and what it gets. Plain values: they travel to the build process as one message.

mod annotation;
mod cache;
mod compression;
mod output;
mod place;
mod run;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use annotation::{Annotation, AnnotationPlace};
pub use cache::{CacheMode, CachePlace, CacheSource, CacheTarget};
pub use compression::{Compression, CompressionKind};
pub use output::{Destination, ImageForm, MediaTypes, Output, PlatformSplit};
pub use place::{
    Added, Artifact, ArtifactTitles, EntryChange, IfIndexExists, ImagePart, ImagePlace, IndexChange, PullPlatforms,
};
pub use run::{ExtraHost, LimitedResource, RunSettings, Ulimit};

use crate::Digest;
use crate::event::base64_bytes;

/// A Dockerfile's text with the name it is shown by.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DockerfileSource {
    /// As shown in diagnostics, usually the path the user gave.
    pub name: String,
    /// The text.
    pub text: String,
    /// Rules of `<Dockerfile>.dockerignore` when there is such a file; it replaces the context's own.
    #[serde(default)]
    pub ignore: Option<(String, String)>,
}

/// Where files of a context come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum ContextSource {
    /// No files.
    Empty,
    /// A directory on this machine, read in place.
    Directory(PathBuf),
    /// An image in an OCI layout directory: `oci-layout://DIR[:TAG|@DIGEST]`.
    OciLayout {
        /// The layout.
        path: PathBuf,
        /// Tag or digest; without one the layout must hold a single image.
        reference: Option<String>,
    },
    /// An image in a tar of an OCI layout: `oci-archive:FILE[:TAG]`.
    OciArchive {
        /// The file.
        path: PathBuf,
        /// Tag or digest.
        reference: Option<String>,
    },
    /// An image in an archive of `docker save`: `docker-archive:FILE[:NAME]`.
    DockerArchive {
        /// The file.
        path: PathBuf,
        /// Name of the image; without one the archive must hold a single image.
        name: Option<String>,
    },
    /// An image of the store or a registry: `docker-image://REF`.
    Image(String),
    /// A tar on this machine, compressed or not. It is read in place and never unpacked on the disk.
    Archive(PathBuf),
    /// `http://` or `https://`: a tar, or a file, which as the main context is the Dockerfile.
    Http(String),
    /// A git repository: `https://…`, `ssh://…`, `git://…` or `user@host:path`, with `#ref:dir` or a query as in `ADD`.
    Git(String),
}

/// Which file of a context is the Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum DockerfileInContext {
    /// `Dockerfile`, else `dockerfile`, else `Containerfile`; or the context itself where it is a single file.
    Default,
    /// The one at this path.
    Path(String),
}

/// When a base image is looked up in its registry although the store has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PullPolicy {
    /// Never: the store decides, the registry is asked for what it lacks.
    #[default]
    Missing,
    /// Always; an image that cannot be looked up is an error.
    Always,
    /// If the registry has another one and can be reached.
    Newer,
    /// Never, and what the store lacks is an error.
    Never,
}

/// The value of a secret: never shown, never stored, in no cache key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(#[serde(with = "base64_bytes")] Vec<u8>);

impl Secret {
    /// Takes the value.
    pub fn new(value: impl Into<Vec<u8>>) -> Self {
        Self(value.into())
    }

    /// The value.
    pub(crate) fn value(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Secret(****)")
    }
}

/// Where the Container Device Interface has its specs.
const CDI_SPEC_DIRS: [&str; 2] = ["/etc/cdi", "/var/run/cdi"];

/// What a Dockerfile may ask for only with the caller's consent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Entitlement {
    /// `network.host`: `RUN --network=host` although steps have no network by default.
    #[serde(rename = "network.host")]
    NetworkHost,
    /// `security.insecure`: `RUN --security=insecure`.
    #[serde(rename = "security.insecure")]
    SecurityInsecure,
    /// `device`: `RUN --device`.
    #[serde(rename = "device")]
    Device,
}

/// The network of a `RUN` that names none.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StepNetwork {
    /// That of this machine.
    #[default]
    Host,
    /// Loopback alone.
    None,
}

/// What to build. Optional settings are public fields with defaults from [`BuildRequest::new`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildRequest {
    /// The Dockerfile.
    pub dockerfile: DockerfileSource,
    /// Takes the Dockerfile from the main context, in place of `dockerfile`. For contexts that the caller cannot read:
    /// [`ContextSource::Archive`], [`ContextSource::Http`] and [`ContextSource::Git`].
    pub dockerfile_in_context: Option<DockerfileInContext>,
    /// The main context.
    pub context: ContextSource,
    /// Named contexts, the last of a name counts.
    pub build_contexts: Vec<(String, ContextSource)>,
    /// Stage by name or number; the last one by default.
    pub target: Option<String>,
    /// Build args, the last of a name counts.
    pub build_args: Vec<(String, String)>,
    /// Labels that win over the Dockerfile's.
    pub labels: Vec<(String, String)>,
    /// Annotations of the image, in the store and in every output that is an image.
    pub annotations: Vec<Annotation>,
    /// Put the layers that this build adds to its base into one.
    pub squash: bool,
    /// Names for the store.
    pub tags: Vec<String>,
    /// Outputs besides the store.
    pub outputs: Vec<Output>,
    /// Platforms of the image, `os/arch[/variant]`; this machine's by default. Several make an index.
    pub platforms: Vec<String>,
    /// Compression of new layers; without it that of the first output that names one, else gzip.
    pub compression: Option<Compression>,
    /// Run every step although a result is there.
    pub no_cache: bool,
    /// When base images are looked up.
    pub pull: PullPolicy,
    /// Most bytes that the state directory may take on disk after the build; least recently used cache goes first, images
    /// stay.
    pub cache_max: Option<u64>,
    /// Caches of other machines to look into, the first that has a result counts.
    pub cache_from: Vec<CacheSource>,
    /// Where other machines shall find the results of this build.
    pub cache_to: Vec<CacheTarget>,
    /// Where cache mounts come from that are not here yet.
    pub cache_mount_from: Vec<CacheSource>,
    /// Where the cache mounts of this build's steps go; [`CachePlace::Inline`] is not possible.
    pub cache_mount_to: Vec<CachePlace>,
    /// Seconds after which a result is done anew; 0 is `no_cache`.
    pub cache_ttl: Option<u64>,
    /// Whether a shared cache that fails fails the build, instead of being left out with a warning.
    pub cache_strict: bool,
    /// Steps and worker threads at once; the number of usable CPUs by default.
    pub jobs: Option<usize>,
    /// Seconds since 1970: `created` of config and history, and the latest mtime of files in new layers.
    pub source_date_epoch: Option<i64>,
    /// Secrets for `RUN --mount=type=secret` by id, the last of an id counts. Those called `HTTP_AUTH_HEADER_<host>`,
    /// `HTTP_AUTH_TOKEN_<host>`, `GIT_AUTH_HEADER[.<host>]` and `GIT_AUTH_TOKEN[.<host>]` are for the servers of `ADD`
    /// and of contexts.
    pub secrets: Vec<(String, Secret)>,
    /// Sockets of ssh agents for `RUN --mount=type=ssh` by id, the last of an id counts. The one called `default` also
    /// opens git repositories.
    pub ssh_agents: Vec<(String, PathBuf)>,
    /// Files of private keys by id, for which an agent is started that ends with the build. They win over a socket of
    /// the same id.
    pub ssh_keys: Vec<(String, Vec<PathBuf>)>,
    /// Lines of a `known_hosts` file: the keys of ssh servers that are believed, besides those that this machine knows.
    pub ssh_known_hosts: String,
    /// What the Dockerfile may do beyond the usual.
    pub allow: Vec<Entitlement>,
    /// CDI names of devices that `RUN --device` may use without [`Entitlement::Device`], as it names them.
    pub allow_devices: Vec<String>,
    /// Directories with CDI specs, which describe the devices of `RUN --device`; a later one wins over an earlier one.
    pub cdi_spec_dirs: Vec<PathBuf>,
    /// The network of a `RUN` that names none.
    pub network: StepNetwork,
    /// What every `RUN` gets besides.
    pub run: RunSettings,
}

impl BuildRequest {
    /// Asks for the last stage of the Dockerfile that `context` holds, which is no directory of this machine.
    pub fn from_context(which: DockerfileInContext, context: ContextSource) -> Self {
        let dockerfile = DockerfileSource { name: "Dockerfile".to_owned(), text: String::new(), ignore: None };
        Self { dockerfile_in_context: Some(which), ..Self::new(dockerfile, context) }
    }

    /// Asks for the last stage of `dockerfile`, with files from `context`, into the store alone.
    pub fn new(dockerfile: DockerfileSource, context: ContextSource) -> Self {
        Self {
            dockerfile,
            dockerfile_in_context: None,
            context,
            build_contexts: Vec::new(),
            target: None,
            build_args: Vec::new(),
            labels: Vec::new(),
            annotations: Vec::new(),
            squash: false,
            tags: Vec::new(),
            outputs: Vec::new(),
            platforms: Vec::new(),
            compression: None,
            no_cache: false,
            pull: PullPolicy::Missing,
            cache_max: None,
            cache_from: Vec::new(),
            cache_to: Vec::new(),
            cache_mount_from: Vec::new(),
            cache_mount_to: Vec::new(),
            cache_ttl: None,
            cache_strict: false,
            jobs: None,
            source_date_epoch: None,
            secrets: Vec::new(),
            ssh_agents: Vec::new(),
            ssh_keys: Vec::new(),
            ssh_known_hosts: String::new(),
            allow: Vec::new(),
            allow_devices: Vec::new(),
            cdi_spec_dirs: CDI_SPEC_DIRS.map(PathBuf::from).into(),
            network: StepNetwork::default(),
            run: RunSettings::default(),
        }
    }
}

/// A finished build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct BuildOutcome {
    /// Digest of the manifest, or of the index.
    pub digest: Digest,
    /// Digest of the image config; an index has none.
    pub config_digest: Option<Digest>,
    /// Media type of the manifest or index.
    pub media_type: String,
    /// Size of the manifest or index in bytes.
    pub size: u64,
    /// Annotations of its descriptor.
    pub annotations: BTreeMap<String, String>,
    /// Names under which the store holds it, fully qualified.
    pub names: Vec<String>,
    /// Those, and the names that its outputs gave it at registries and in archives.
    pub image_names: Vec<String>,
}

impl BuildOutcome {
    /// The image ID: the digest of the config, of an index that of the index itself.
    pub fn image_id(&self) -> Digest {
        self.config_digest.unwrap_or(self.digest)
    }
}

/// An image of the store.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct ImageSummary {
    /// Full name with tag.
    pub name: String,
    /// Digest of its manifest or index.
    pub digest: Digest,
    /// `os/arch[/variant]`.
    pub platform: String,
    /// `created` of the config, RFC 3339, where it has one.
    pub created: Option<String>,
    /// Bytes of the blobs, as stored.
    pub size_bytes: u64,
    /// Labels of the config.
    pub labels: BTreeMap<String, String>,
}
