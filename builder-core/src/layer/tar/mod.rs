//! Tar archives: an exact reader for hostile input and a deterministic writer.
//!
//! The reader follows what GNU tar and Go's `archive/tar` agree on; where the two would list different members the
//! archive is refused, because a difference between readers is how files are smuggled past a scanner. Names come
//! out both as stored and as a checked path; what a `.wh.` name means is not known here (see [`super::changeset`]).
//!
//! The writer emits ustar where ustar can say it and pax records, in the layout of Go's `archive/tar`, where it
//! cannot. Its bytes depend on the entries alone.

mod block;
mod name;
mod pax;
mod reader;
mod sparse;
mod writer;

#[cfg(test)]
mod tests;

use std::io;

use crate::tree::path::show;

pub(crate) use name::{NameError, normalise};
pub(crate) use reader::{Piece, RawEntry, RawKind, Reader};
pub(crate) use writer::{OPAQUE, WHITEOUT, Writer};

/// Most bytes of extended headers and long names one entry may have; real ones have a few hundred.
pub(super) const MAX_METADATA: u64 = 1 << 20;
/// Most bytes of holes one archive may describe: they cost time to hash though no bytes to store.
pub(super) const MAX_HOLE_BYTES: u64 = 64 << 30;

/// Why a tar cannot be read or written. Offsets count uncompressed bytes to the header block of the entry.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The bytes do not come.
    #[error("read archive")]
    Read { source: io::Error },
    /// The bytes cannot be put where they belong.
    #[error("write archive")]
    Write { source: io::Error },
    /// End of input inside an entry.
    #[error("archive ends inside the entry at byte {offset}")]
    Truncated { offset: u64 },
    /// Not a header where one must stand.
    #[error("header at byte {offset} has a wrong checksum")]
    Checksum { offset: u64 },
    /// A header after a single block of zeros.
    #[error("data after a lone block of zeros at byte {offset}")]
    LoneZeroBlock { offset: u64 },
    /// A field that is not a number, or one out of the range of its meaning.
    #[error("header at byte {offset} has an invalid {field}")]
    Number { field: &'static str, offset: u64 },
    /// Extended header that cannot be split into records.
    #[error("extended header at byte {offset} is malformed")]
    Pax { offset: u64 },
    /// A record whose value does not fit its key.
    #[error("extended header at byte {offset} has an invalid record {key:?}")]
    PaxRecord { key: String, offset: u64 },
    /// Extension headers that readers would combine in different ways.
    #[error("extension headers before byte {offset} contradict each other")]
    Ambiguous { offset: u64 },
    /// More metadata than [`MAX_METADATA`] or a larger sparse map than is read.
    #[error("entry at byte {offset} has too much metadata")]
    TooMuchMetadata { offset: u64 },
    /// A sparse map that does not fit the data.
    #[error("entry at byte {offset} has an invalid sparse map")]
    SparseMap { offset: u64 },
    /// More holes than [`MAX_HOLE_BYTES`].
    #[error("archive describes more than {} GiB of holes", MAX_HOLE_BYTES >> 30)]
    TooManyHoles,
    /// A type that is no file system object.
    #[error("entry at byte {offset} has the unknown type {:?}", char::from(*kind))]
    Type { kind: u8, offset: u64 },
    /// Bytes behind an entry that has none, which readers skip or not.
    #[error("entry at byte {offset} has data although its type has none")]
    UnexpectedData { offset: u64 },
    /// An entry that cannot be written.
    #[error("entry {:?} does not fit into a tar", show(path))]
    Unwritable { path: Vec<u8> },
    /// Content shorter or longer than announced.
    #[error("content has not the size that its header says")]
    ContentSize,
}

/// A user or group id; `u32::MAX` is none, it means "leave as it is" to the kernel.
fn id(value: u64) -> Option<u32> {
    u32::try_from(value).ok().filter(|id| *id != u32::MAX)
}
