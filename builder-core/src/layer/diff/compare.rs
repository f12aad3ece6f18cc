//! Whether a path of an upper directory is what was there before.

use std::fs::File;
use std::os::fd::BorrowedFd;

use super::DiffError;
use super::scan::{Scanned, What};
use crate::digest::ContentHash;
use crate::sys::file;
use crate::tree::xattr::belongs_in_layer;
use crate::tree::{Kind, MergedTree, Node, Timestamp};

/// Compares an upper directory with what is below it.
pub(super) struct Comparer<'a> {
    pub(super) upper: BorrowedFd<'a>,
    pub(super) below: &'a MergedTree,
}

impl Comparer<'_> {
    /// Whether `item` is `before`, by kind, metadata and content. Reads a file only when everything else is the same.
    pub(super) fn is_same(&self, item: &Scanned, before: Node<'_>) -> Result<bool, DiffError> {
        let What::Entry(kind) = &item.what else { return Ok(false) };
        if !same_metadata(item, before) {
            return Ok(false);
        }
        match (kind, before.kind) {
            (Kind::File { size, .. }, Kind::File { size: size_before, content }) => {
                Ok(size == size_before && self.hash(&item.path)? == *content)
            }
            // An opaque directory hides something: an opaque one without anything to hide is not marked so any more.
            (Kind::Directory { opaque }, Kind::Directory { .. }) => Ok(!opaque),
            (kind, before) => Ok(kind == before),
        }
    }

    /// Whether `paths` were names of one file below.
    pub(super) fn were_one_file(&self, paths: &[&[u8]]) -> bool {
        let identity = |path: &[u8]| self.below.get(path).and_then(|node| Some((node.layer, node.link?)));
        let first = paths.first().and_then(|path| identity(path));
        first.is_some() && paths.iter().all(|path| identity(path) == first)
    }

    fn hash(&self, path: &[u8]) -> Result<ContentHash, DiffError> {
        let error = |source| DiffError::ReadFile { path: path.to_vec(), source };
        let mut hasher = blake3::Hasher::new();
        let mut file = File::from(file::open_file_below(self.upper, path).map_err(error)?);
        hasher.update_reader(&mut file).map_err(error)?;
        Ok(ContentHash(*hasher.finalize().as_bytes()))
    }
}

fn same_metadata(item: &Scanned, before: Node<'_>) -> bool {
    let (now, then) = (&item.meta, &before.meta);
    let kept_before = then.xattrs.iter().filter(|(name, _)| belongs_in_layer(name));
    let is_root = item.path.is_empty();
    (now.mode, now.uid, now.gid) == (then.mode, then.uid, then.gid)
        && (is_root || same_time(now.mtime, then.mtime) || same_time(item.mtime_on_disk, then.mtime))
        && now.xattrs.iter().eq(kept_before)
}

/// Whether a file with time `now` may be the one that a layer says was modified `then`. A layer may have dropped the
/// fraction of the second, or clamped the time, of a file whose unpacked copy still has it.
fn same_time(now: Timestamp, then: Timestamp) -> bool {
    now.secs == then.secs && (now.nanos == then.nanos || then.nanos == 0)
}
