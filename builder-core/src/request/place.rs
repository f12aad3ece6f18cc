//! Where images are, and what indexes of several are made of.

use std::path::PathBuf;

use crate::Digest;

/// Where an image is, or shall be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum ImagePlace {
    /// A registry: `[HOST/]REPOSITORY[:TAG][@DIGEST]`.
    Registry(String),
    /// The store, by this name.
    Store(String),
    /// An OCI layout.
    OciLayout {
        /// The directory; made when missing.
        path: PathBuf,
        /// Tag, or digest of what is copied from there.
        reference: Option<String>,
    },
    /// A tar of an OCI layout.
    OciArchive {
        /// The file; replaced as a whole.
        path: PathBuf,
        /// Tag, or digest of what is copied from there.
        reference: Option<String>,
    },
    /// A tar for `docker load`, for one platform.
    DockerArchive {
        /// The file; replaced as a whole.
        path: PathBuf,
        /// Name of the image; without one the only image is copied from there.
        name: Option<String>,
    },
}

/// For which platforms an image is fetched.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum PullPlatforms {
    /// For this machine's.
    #[default]
    Host,
    /// For these, `os/arch[/variant]`.
    These(Vec<String>),
    /// For all that there are, with what is attested about them.
    All,
}

/// What to do with an index whose name is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum IfIndexExists {
    /// Nothing; it is an error.
    #[default]
    Refuse,
    /// Add to it.
    Amend,
    /// Make a new one in its place.
    Replace,
}

/// How much of an image with several platforms is added to an index.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Added {
    /// The image for one platform: what the [`EntryChange`] says of it, else this machine's.
    #[default]
    One,
    /// All.
    All,
}

/// What an index says about one of its images. What is left out stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EntryChange {
    /// Operating system.
    pub os: Option<String>,
    /// Architecture.
    pub architecture: Option<String>,
    /// Variant of the architecture.
    pub variant: Option<String>,
    /// Version of the operating system.
    pub os_version: Option<String>,
    /// Features that the operating system must have.
    pub os_features: Vec<String>,
    /// Features that the CPU must have.
    pub features: Vec<String>,
    /// Further annotations.
    pub annotations: Vec<(String, String)>,
}

/// Files that become an artifact: a manifest with a layer for each of them (image-spec `manifest.md`, "Guidelines for
/// Artifact Usage").
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Artifact {
    /// The files, in their order.
    pub files: Vec<PathBuf>,
    /// What kind of artifact it is; `application/vnd.unknown.artifact.v1` by default.
    pub artifact_type: Option<String>,
    /// File and media type of its config; it has none by default.
    pub config: Option<(PathBuf, String)>,
    /// Media type of the files; by the extension of each by default.
    pub layer_type: Option<String>,
    /// What names the files in the manifest.
    pub titles: ArtifactTitles,
    /// What the artifact is about: an image of the store, of a layout or of a registry, or by its digest a manifest that
    /// the index names.
    pub subject: Option<ImagePlace>,
    /// Annotations of its manifest.
    pub annotations: Vec<(String, String)>,
}

/// Whether the files of an artifact have titles.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ArtifactTitles {
    /// The name of the file, without its directories, as annotation `org.opencontainers.image.title`.
    #[default]
    FileNames,
    /// None.
    None,
}

/// One change of an index in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum IndexChange {
    /// Names one more image, in place of the one for the same platform that annotations do not tell apart.
    Add {
        /// Where the image is.
        image: ImagePlace,
        /// How much of it.
        what: Added,
        /// What is said about it, besides what its config says.
        entry: EntryChange,
    },
    /// Makes an artifact of files and names it.
    AddArtifact {
        /// The files, and what the artifact says about itself.
        artifact: Artifact,
        /// What the index says about it. It has no platform by itself.
        entry: EntryChange,
    },
    /// Says what the index is about: an image of the store, of a layout or of a registry, or by its digest a manifest
    /// that the index names.
    SetSubject {
        /// Where that is; nothing of it is fetched.
        subject: ImagePlace,
    },
    /// Says something else about an image that the index names.
    Annotate {
        /// Digest of its manifest.
        digest: Digest,
        /// What is said.
        entry: EntryChange,
    },
    /// Annotates the index itself.
    AnnotateIndex {
        /// The annotations.
        annotations: Vec<(String, String)>,
    },
    /// Names an image no longer, and what is attested about it neither.
    Remove {
        /// Digest of its manifest.
        digest: Digest,
    },
}

/// A part of an image that can be looked at by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImagePart {
    /// The manifest or index, byte for byte.
    Raw,
    /// The config, byte for byte.
    Config,
    /// The layers, lowest first: a JSON array with `mediaType`, `digest`, `size` and `diffID` of each.
    Layers,
}
