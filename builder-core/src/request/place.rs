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
    /// Further annotations.
    pub annotations: Vec<(String, String)>,
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
