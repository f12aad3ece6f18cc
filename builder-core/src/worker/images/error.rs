//! Why an image cannot be had, and what to do about it.

use std::io;

use super::place::is_place;
use crate::error::{Error, ErrorKind};
use crate::image::{self, SourceError};
use crate::registry;

/// Why an image cannot be had.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ImageError {
    /// The name is not one.
    #[error("{name:?} is not an image name")]
    Name { name: String, source: registry::ReferenceError },
    /// The store lacks it, and no registry may be asked.
    #[error("{name} is not in the store, and --pull=never forbids to fetch it")]
    NotInStore { name: String },
    /// The registry, or the way to it.
    #[error("{name} cannot be fetched")]
    Registry { name: String, source: registry::Error },
    /// The layout or archive.
    #[error("the context {name:?} cannot be used as an image")]
    Source { name: String, source: SourceError },
    /// A place that a Dockerfile may not name.
    #[error("{name:?} is not an image: {reason}")]
    Place { name: String, reason: String },
    /// The store.
    #[error("the store cannot give or take {name}")]
    Store { name: String, source: crate::store::Error },
    /// What it holds is damaged.
    #[error("{name} is damaged")]
    Document { name: String, source: image::ParseError },
    /// No image for this platform.
    #[error("{name} has no image for the platform")]
    Platform { name: String, source: image::NoMatchingPlatform },
    /// Its own documents do not fit together.
    #[error("{name} is damaged: {reason}")]
    Inconsistent { name: String, reason: String },
    /// Reading or writing.
    #[error("{name} cannot be copied")]
    Copy { name: String, source: io::Error },
}

impl ImageError {
    /// Who can act.
    pub(crate) fn kind(&self) -> ErrorKind {
        match self {
            Self::Name { .. } | Self::Place { .. } => ErrorKind::Dockerfile,
            Self::Registry { .. } | Self::Platform { .. } | Self::NotInStore { .. } => ErrorKind::Registry,
            Self::Source { .. } => ErrorKind::Context,
            Self::Store { .. } | Self::Document { .. } | Self::Inconsistent { .. } | Self::Copy { .. } => {
                ErrorKind::Store
            }
        }
    }

    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        const ELSEWHERE: &str = "a Dockerfile names images of registries, of the store, and by oci:, oci-archive: and \
             docker-archive: those in its build context; give one that is elsewhere a name with \
             --build-context NAME=oci:DIR, oci-archive:FILE, docker-archive:FILE or docker://REF";
        match self {
            Self::Place { .. } => Some(ELSEWHERE),
            Self::Name { name, .. } if is_place(name) => Some(ELSEWHERE),
            Self::Registry { name, .. } if name.strip_prefix("docker.io/library/").is_some_and(is_place) => {
                Some(ELSEWHERE)
            }
            Self::Registry { source, .. } => source.hint(),
            _ => None,
        }
    }
}

impl From<ImageError> for Error {
    fn from(error: ImageError) -> Self {
        let this = Self::from_source(error.kind(), &error);
        match error.hint() {
            Some(hint) => this.hint(hint),
            None => this,
        }
    }
}
