//! Where an image goes, and in which form.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::{Annotation, Compression};

/// Who defined the media types of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum MediaTypes {
    /// The image-spec.
    #[default]
    Oci,
    /// Docker's schema 2, for registries and tools that know nothing else.
    Docker,
}

/// The form of an image in one output.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ImageForm {
    /// Compression of this build's layers; that of the request when `None`.
    pub compression: Option<Compression>,
    /// The base's layers are compressed in this way too, instead of staying as they are.
    pub force_compression: bool,
    /// Media types of manifest, config and layers.
    pub media_types: MediaTypes,
    /// Annotations besides those of the request; they win. Docker's media types have none.
    pub annotations: Vec<Annotation>,
    /// Whether times of files are bounded by `SOURCE_DATE_EPOCH`, as they are if there is one: the other is an error.
    pub rewrite_timestamp: Option<bool>,
}

/// Where a stream of bytes goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Destination {
    /// This file, replaced atomically; a pipe or device is written to.
    File(PathBuf),
    /// Standard output of this process.
    Stdout,
}

impl std::fmt::Display for Destination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path) => path.display().fmt(f),
            Self::Stdout => f.write_str("-"),
        }
    }
}

/// Whether the files of each platform are in a directory of their own, `linux_amd64`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum PlatformSplit {
    /// If there are several.
    #[default]
    Auto,
    /// Also where there is one.
    Always,
    /// Never; a file that two platforms have is an error.
    Never,
}

/// Where the image goes besides the store. Names are those of the request where an output has none of its own.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Output {
    /// `type=oci`: a tar of an OCI layout.
    OciArchive {
        /// Where to.
        dest: Destination,
        /// Names of the image in it.
        names: Vec<String>,
        /// In which form.
        form: ImageForm,
    },
    /// `type=oci,tar=false`: an OCI layout; what it already holds stays.
    OciLayout {
        /// The directory; made when missing.
        dest: PathBuf,
        /// Names of the image in it.
        names: Vec<String>,
        /// In which form.
        form: ImageForm,
    },
    /// `type=docker`: a tar that `docker load` and `podman load` read.
    DockerArchive {
        /// Where to.
        dest: Destination,
        /// Names of the image in it.
        names: Vec<String>,
        /// In which form.
        form: ImageForm,
    },
    /// `type=image`: further names in the store.
    Store {
        /// The names.
        names: Vec<String>,
        /// In which form.
        form: ImageForm,
    },
    /// `type=registry`, or `type=image,push=true`.
    Registry {
        /// The names to push under.
        names: Vec<String>,
        /// In which form.
        form: ImageForm,
        /// Without tags: the image is found by its digest alone.
        by_digest: bool,
    },
    /// `type=tar`: the root filesystem as a tar, with numeric owners.
    RootfsTar {
        /// Where to.
        dest: Destination,
        /// A directory for each platform.
        split: PlatformSplit,
    },
    /// `type=local`: the files of the root filesystem, owned by whoever builds. What the directory already holds stays
    /// unless a file of the image has its name.
    RootfsDirectory {
        /// The directory; made when missing.
        dest: PathBuf,
        /// A directory for each platform.
        split: PlatformSplit,
    },
    /// `type=cacheonly`: nowhere; the steps are done and remembered.
    CacheOnly,
}

impl Output {
    /// The form of the image, for the outputs that have one.
    pub fn form(&self) -> Option<&ImageForm> {
        match self {
            Self::OciArchive { form, .. }
            | Self::OciLayout { form, .. }
            | Self::DockerArchive { form, .. }
            | Self::Store { form, .. }
            | Self::Registry { form, .. } => Some(form),
            Self::RootfsTar { .. } | Self::RootfsDirectory { .. } | Self::CacheOnly => None,
        }
    }

    /// Names of its own, for the outputs that name the image.
    pub fn names(&self) -> Option<&[String]> {
        match self {
            Self::OciArchive { names, .. }
            | Self::OciLayout { names, .. }
            | Self::DockerArchive { names, .. }
            | Self::Store { names, .. }
            | Self::Registry { names, .. } => Some(names),
            Self::RootfsTar { .. } | Self::RootfsDirectory { .. } | Self::CacheOnly => None,
        }
    }

    /// Whether it is written to standard output.
    pub fn is_stdout(&self) -> bool {
        matches!(
            self,
            Self::OciArchive { dest: Destination::Stdout, .. }
                | Self::DockerArchive { dest: Destination::Stdout, .. }
                | Self::RootfsTar { dest: Destination::Stdout, .. }
        )
    }
}
