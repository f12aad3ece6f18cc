//! `builder manifest`, with the words of `podman manifest`.

use std::path::PathBuf;

use clap::{Parser, Subcommand};

use super::RegistryArgs;

#[derive(Debug, Subcommand)]
pub(crate) enum ManifestCommand {
    /// Make an index in the store, and print its digest
    Create(ManifestCreate),
    /// Let an index name more images
    Add(ManifestAdd),
    /// Say something else about an image of an index, or about the index
    Annotate(ManifestAnnotate),
    /// Show an index as JSON
    Inspect(ManifestInspect),
    /// Tell by the exit code whether there is such an index: 0 yes, 1 no
    Exists {
        /// The index
        #[arg(value_name = "INDEX")]
        name: String,
    },
    /// Push an index with all its images
    Push(ManifestPush),
    /// Let an index name an image no longer
    Remove {
        /// The index
        #[arg(value_name = "INDEX")]
        name: String,
        /// Digests of the images' manifests
        #[arg(value_name = "DIGEST", required = true)]
        digests: Vec<String>,
    },
    /// Remove indexes from the store; their images go with `prune`
    Rm {
        /// The indexes
        #[arg(value_name = "INDEX", required = true)]
        names: Vec<String>,
    },
}

#[derive(Debug, Parser)]
pub(crate) struct ManifestCreate {
    /// Name in the store, NAME[:TAG]
    #[arg(value_name = "INDEX")]
    pub(crate) name: String,
    /// Images to name: of the store, else of their registry; or docker://NAME, store:NAME, oci:DIR[:TAG],
    /// oci-archive:FILE[:TAG]
    #[arg(value_name = "IMAGE")]
    pub(crate) images: Vec<String>,
    /// Add to an index that is there
    #[arg(short, long, conflicts_with = "replace")]
    pub(crate) amend: bool,
    /// Take the place of an index that is there
    #[arg(long)]
    pub(crate) replace: bool,
    /// Annotation of the index
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
    /// Of an image with several platforms add all [default: the one for this machine]
    #[arg(long)]
    pub(crate) all: bool,
    /// Credentials for the registry of the images
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct ManifestAdd {
    /// The index
    #[arg(value_name = "INDEX")]
    pub(crate) name: String,
    /// Images to name, as for `create`; with --artifact, files
    #[arg(value_name = "IMAGE", required = true)]
    pub(crate) images: Vec<String>,
    /// Of an image with several platforms add all [default: the one that --os and --arch name, else this machine's]
    #[arg(long)]
    pub(crate) all: bool,
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
    #[command(flatten)]
    pub(crate) artifact: ArtifactArgs,
    /// Credentials for the registry of the images
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

/// Files that become an artifact.
#[derive(Debug, Parser)]
#[command(next_help_heading = "Artifacts")]
pub(crate) struct ArtifactArgs {
    /// Make one artifact of files and add that, instead of images
    #[arg(long, conflicts_with = "all")]
    pub(crate) artifact: bool,
    /// What kind of artifact it is, a media type [default: application/vnd.unknown.artifact.v1]
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    pub(crate) artifact_type: Option<String>,
    /// File that is its config [default: none]
    #[arg(long, value_name = "FILE", requires_all = ["artifact", "artifact_config_type"])]
    pub(crate) artifact_config: Option<PathBuf>,
    /// Media type of the config
    #[arg(long, value_name = "TYPE", requires_all = ["artifact", "artifact_config"])]
    pub(crate) artifact_config_type: Option<String>,
    /// Media type of the files [default: by extension, else application/octet-stream]
    #[arg(long, value_name = "TYPE", requires = "artifact")]
    pub(crate) artifact_layer_type: Option<String>,
    /// Do not note the names of the files (org.opencontainers.image.title)
    #[arg(long, requires = "artifact")]
    pub(crate) artifact_exclude_titles: bool,
    /// The image that it is about, as for `create`, or the digest of one that the index names
    #[arg(long, value_name = "IMAGE", requires = "artifact")]
    pub(crate) artifact_subject: Option<String>,
    /// Annotation of the artifact's own manifest; may be given several times
    #[arg(long = "artifact-annotation", value_name = "KEY=VALUE", requires = "artifact")]
    pub(crate) artifact_annotations: Vec<String>,
}

/// What an index says about an image.
#[derive(Debug, Parser)]
pub(crate) struct EntryArgs {
    /// Operating system
    #[arg(long, value_name = "OS")]
    pub(crate) os: Option<String>,
    /// Architecture
    #[arg(long, value_name = "ARCH")]
    pub(crate) arch: Option<String>,
    /// Variant of the architecture
    #[arg(long, value_name = "VARIANT")]
    pub(crate) variant: Option<String>,
    /// Version of the operating system
    #[arg(long, value_name = "VERSION")]
    pub(crate) os_version: Option<String>,
    /// Feature that the operating system must have; may be given several times
    #[arg(long = "os-features", value_name = "FEATURE", value_delimiter = ',')]
    pub(crate) os_features: Vec<String>,
    /// Feature that the processor must have; may be given several times
    #[arg(long = "features", value_name = "FEATURE", value_delimiter = ',')]
    pub(crate) features: Vec<String>,
    /// Annotation; may be given several times
    #[arg(long = "annotation", value_name = "KEY=VALUE")]
    pub(crate) annotations: Vec<String>,
}

#[derive(Debug, Parser)]
pub(crate) struct ManifestInspect {
    /// The index; docker://NAME for one of a registry
    #[arg(value_name = "INDEX")]
    pub(crate) name: String,
    /// The bytes as they are
    #[arg(long)]
    pub(crate) raw: bool,
    /// Credentials for the registry of the index
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct ManifestAnnotate {
    /// The index
    #[arg(value_name = "INDEX")]
    pub(crate) name: String,
    /// Digest of an image's manifest, or the name of an image of the store
    #[arg(value_name = "IMAGE", required_unless_present_any = ["index", "subject"])]
    pub(crate) image: Option<String>,
    /// Annotate the index itself
    #[arg(long, conflicts_with_all = ["image", "os", "arch", "variant", "os_version", "os_features", "features"])]
    pub(crate) index: bool,
    /// What the index itself is about: an image, as for `create`, or the digest of one that the index names
    #[arg(long, value_name = "IMAGE")]
    pub(crate) subject: Option<String>,
    #[command(flatten)]
    pub(crate) entry: EntryArgs,
    /// Credentials for the registry of the subject
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

#[derive(Debug, Parser)]
pub(crate) struct ManifestPush {
    /// The index
    #[arg(value_name = "INDEX")]
    pub(crate) name: String,
    /// Where to: HOST/REPOSITORY[:TAG], docker://NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG] [default: INDEX]
    #[arg(value_name = "DEST")]
    pub(crate) dest: Option<String>,
    /// With all its images, as always
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true",
          action = clap::ArgAction::Set, value_parser = only_true)]
    pub(crate) all: Option<bool>,
    /// Write the digest to this file, too
    #[arg(long, value_name = "FILE")]
    pub(crate) digestfile: Option<PathBuf>,
    /// Remove the index from the store afterwards
    #[arg(long)]
    pub(crate) rm: bool,
    /// Credentials for the registry that is pushed to
    #[arg(long, value_name = "[REGISTRY[/PATH]=]USER[:PASSWORD]")]
    pub(crate) creds: Vec<String>,
    #[command(flatten)]
    pub(crate) registry: RegistryArgs,
}

fn only_true(text: &str) -> Result<bool, String> {
    match text {
        "true" => Ok(true),
        _ => Err("an index without its images would be broken where it is pushed to".to_owned()),
    }
}
