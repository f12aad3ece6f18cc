//! What can go wrong with the state directory.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;

/// A store operation failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call on a path of the state directory failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried, as a verb with its object: `write blob`.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// A directory holds something else, and nothing may be mixed into it.
    #[error("{} is not empty and not an OCI layout, so it cannot be a state directory", path.display())]
    NotAStateDirectory {
        /// The directory.
        path: PathBuf,
    },
    /// A layout of another version.
    #[error("{} says layout version {found:?}, only \"1.0.0\" is known", path.display())]
    LayoutVersion {
        /// Its `oci-layout` file.
        path: PathBuf,
        /// What the file says.
        found: String,
    },
    /// JSON that does not parse.
    #[error("cannot parse {}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A blob that is needed is not there.
    #[error("blob {digest} is not in the store")]
    BlobMissing {
        /// Its name.
        digest: Digest,
    },
    /// What the store should have got from elsewhere did not come.
    #[error("layer {digest} cannot be had")]
    Promise {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: super::Cause,
    },
    /// A blob that only registries have, and none may be asked.
    #[error("layer {digest} was not fetched yet from {}, and no registry may be asked", repositories.join(", "))]
    NotFetched {
        /// The blob.
        digest: Digest,
        /// Who has it.
        repositories: Vec<String>,
    },
    /// A blob whose bytes are not what its name says.
    #[error("blob is {found}, expected {expected}")]
    DigestMismatch {
        /// What it should be.
        expected: Digest,
        /// What it is.
        found: Digest,
    },
    /// A blob of another size than its descriptor says.
    #[error("blob {digest} has {found} bytes, expected {expected}")]
    SizeMismatch {
        /// Its name.
        digest: Digest,
        /// Bytes by the descriptor.
        expected: u64,
        /// Bytes that came.
        found: u64,
    },
    /// A blob that is read whole is larger than anything sensible.
    #[error("blob {digest} has {size} bytes, at most {limit} are read")]
    BlobTooLarge {
        /// Its name.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// A name that would not be a plain file name.
    #[error("{key:?} cannot name an entry of the store (letters, digits and '-' only)")]
    InvalidKey {
        /// The text.
        key: String,
    },
    /// An image name that is empty or has control characters.
    #[error("{name:?} cannot name an image")]
    InvalidName {
        /// The text.
        name: String,
    },
}

/// Result of a store operation.
pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    /// Returns the wrapper for an [`io::Error`] of `operation` on `path`.
    pub(super) fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}
