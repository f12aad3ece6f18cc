//! What can go wrong with a layer.

use std::io;
use std::path::PathBuf;

use super::tar::{self, NameError};
use crate::digest::{DiffId, Digest};
use crate::store;
use crate::tree;
use crate::tree::path::show;

/// Result of this module.
pub(crate) type Result<T> = std::result::Result<T, Error>;

/// A layer cannot be written, read or unpacked. Paths are paths in the layer unless they are host paths.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The store failed.
    #[error("keep layer in the store")]
    Store { source: store::Error },
    /// The archive is malformed, or cannot be written.
    #[error("layer tar")]
    Tar { source: tar::Error },
    /// Something is wrong with this layer.
    #[error("layer {digest}")]
    Layer { digest: Digest, source: Box<Self> },
    /// The blob is damaged, or cannot be read.
    #[error("read layer blob")]
    Read { source: io::Error },
    /// A tar that is to become a layer cannot be read.
    #[error("read the tar")]
    Import { source: io::Error },
    /// Compression failed, or the blob cannot be written.
    #[error("write layer blob")]
    Write { source: io::Error },
    /// A thread cannot be started.
    #[error("start layer thread")]
    Thread { source: io::Error },
    /// The uncompressed bytes are not those that the image promises.
    #[error("layer unpacks to {found}, expected {expected}")]
    DiffIdMismatch { expected: DiffId, found: DiffId },
    /// Entries of a new layer come out of order.
    #[error("layer entry {:?} after {:?}, not in path order", show(path), show(after))]
    Order { path: Vec<u8>, after: Vec<u8> },
    /// An entry of a new layer whose directory is not listed before it.
    #[error("layer entry {:?} without its directory", show(path))]
    ParentMissing { path: Vec<u8> },
    /// A file whose name would mean a deletion to every reader of the layer.
    #[error("{:?} cannot be in a layer: names that start with \".wh.\" mark deleted files", show(path))]
    ReservedName { path: Vec<u8> },
    /// Source of a file gives fewer or more bytes than announced.
    #[error("file {:?} changed its size while it was read, from {size} bytes", show(path))]
    SizeChanged { path: Vec<u8>, size: u64 },
    /// Source of a file fails.
    #[error("read content of {:?}", show(path))]
    Content { path: Vec<u8>, source: io::Error },
    /// A tree that the layer does not describe.
    #[error("table of contents of the layer")]
    Tree { source: tree::Error },
    /// An entry name that is no path inside an image.
    #[error("entry {name:?} of the layer {reason}")]
    Name { name: String, reason: NameError },
    /// An entry for the root that is not a directory.
    #[error("entry {name:?} of the layer would replace the root directory")]
    Root { name: String },
    /// A `.wh.` name that says nothing, or one used as a directory.
    #[error("entry {name:?} of the layer is not a valid whiteout")]
    Whiteout { name: String },
    /// An entry below something that is not a directory.
    #[error("entry {:?} of the layer lies below a path that is not a directory", show(path))]
    NotADirectory { path: Vec<u8> },
    /// A chain of symlinks that does not end, or one that is only there to cost time.
    #[error("entry {:?} of the layer lies behind too many symbolic links", show(path))]
    TooManySymlinks { path: Vec<u8> },
    /// A hard link to nothing that comes before it in the layer, or to a directory.
    #[error("hard link {:?} to {target:?}, which is no file of the layer before it", show(path))]
    LinkTarget { path: Vec<u8>, target: String },
    /// A symlink without a target, which no file system has.
    #[error("symbolic link {:?} of the layer has an empty target", show(path))]
    EmptySymlink { path: Vec<u8> },
    /// More entries, or longer names and attributes, than memory is given for.
    #[error("layer has more than {limit} {what}")]
    TooLarge { what: &'static str, limit: u64 },
    /// A system call on the directory that a layer is unpacked to.
    #[error("{operation} {:?} of the unpacked layer", show(path))]
    Unpack { operation: &'static str, path: Vec<u8>, source: io::Error },
    /// The directory itself.
    #[error("open {path:?}")]
    OpenDirectory { path: PathBuf, source: io::Error },
    /// Parent directories that were described a moment ago are not any more: the stored tree is of another layer.
    #[error("parent directories of the layer are not known")]
    ParentsUnknown,
    /// A wanted path is not a regular file of the layer.
    #[error("{:?} is not a regular file of the layer", show(path))]
    NotAFile { path: Vec<u8> },
    /// The host file that takes a wanted file's bytes.
    #[error("write {path:?}")]
    WriteFile { path: PathBuf, source: io::Error },
}

impl From<tar::Error> for Error {
    fn from(source: tar::Error) -> Self {
        Self::Tar { source }
    }
}

impl From<store::Error> for Error {
    fn from(source: store::Error) -> Self {
        Self::Store { source }
    }
}
