//! What can go wrong with a shared cache.

use crate::digest::DiffId;
use crate::image::{NoMatchingPlatform, ParseError, SourceError};
use crate::{export, layer, registry, store};

/// A shared cache cannot be read or written, or is not what it says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// Its name is no reference.
    #[error("{name:?} is not the name of a repository")]
    Name { name: String, source: registry::ReferenceError },
    /// The registry, or the way to it.
    #[error("the cache {name} cannot be read")]
    Registry { name: String, source: registry::Error },
    /// The directory.
    #[error("the cache {name} cannot be read")]
    Layout { name: String, source: SourceError },
    /// A document does not parse.
    #[error("the cache {name} is damaged")]
    Document { name: String, source: ParseError },
    /// An index without an image for this machine.
    #[error("the cache {name} is for other platforms")]
    Platform { name: String, source: NoMatchingPlatform },
    /// Its documents do not fit together.
    #[error("the cache {name} is damaged: {reason}")]
    Damaged { name: String, reason: String },
    /// A blob cannot be read to its end.
    #[error("a blob of the cache {name} cannot be read")]
    Read { name: String, source: std::io::Error },
    /// What came is not the layer that was promised.
    #[error("a layer of the cache {name} is not what the cache says")]
    Layer { name: String, source: layer::Error },
    /// Its table of contents is another layer's.
    #[error("the cache {name} has a wrong table of contents for the layer {diff_id}")]
    Tree { name: String, diff_id: DiffId },
    /// Only what the layer is was shared, and now somebody reads it.
    #[error("the cache {name} does not have the layer {diff_id}, which is not of the stage that was built")]
    Hollow { name: String, diff_id: DiffId },
    /// The store.
    #[error("the store cannot take a layer of the cache {name}")]
    Store { name: String, source: store::Error },
    /// What is to be shared cannot be read.
    #[error("what is to be shared cannot be had from the store")]
    Own { source: Box<dyn std::error::Error + Send + Sync> },
    /// It cannot be written.
    #[error("the cache {name} cannot be written")]
    Write { name: String, source: export::Error },
    /// A registry does not answer about what it has.
    #[error("the cache {name} cannot be written")]
    Ask { name: String, source: registry::Error },
}

impl Error {
    /// What to do about it.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Registry { source, .. } | Self::Ask { source, .. } => source.hint(),
            Self::Write { source: export::Error::Registry { source, .. }, .. } => source.hint(),
            _ => None,
        }
    }

    /// Whether it is about one document, so that the rest of the cache may still serve.
    pub(super) fn is_local(&self) -> bool {
        matches!(self, Self::Document { .. } | Self::Damaged { .. } | Self::Platform { .. })
    }
}
