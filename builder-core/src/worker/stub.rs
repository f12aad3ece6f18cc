//! Mount points that an image does not have.
//!
//! `/proc`, `/sys` and `/dev` become directories of the image with its first command, empty and 0755, as with every
//! other builder: without them the image could not be run read-only. The files that are mounted in `/etc`, and whatever
//! else a mount needs, exist only while the command runs, in a layer of their own below it.

use std::collections::BTreeMap;

use crate::sandbox::STANDARD_TARGETS;
use crate::snapshot::{Attributes, MountPoint, Stubs};
use crate::tree::path::ancestors;
use crate::tree::{FollowLast, Kind, MergedTree, Metadata};

/// Directories that a command leaves behind where the image has none.
pub(crate) const KEPT: [&[u8]; 3] = [b"dev", b"proc", b"sys"];

/// A tree's metadata of a directory as the snapshot wants it.
pub(crate) fn attributes(meta: &Metadata) -> Attributes {
    Attributes {
        mode: meta.mode,
        uid: meta.uid,
        gid: meta.gid,
        mtime_secs: meta.mtime.secs,
        mtime_nanos: meta.mtime.nanos,
        xattrs: meta.xattrs.clone(),
    }
}

/// Finds what is missing for the standard mounts and for `more`.
pub(crate) fn stubs(tree: &MergedTree, more: &[(Vec<u8>, MountPoint)]) -> Stubs {
    let standard = STANDARD_TARGETS
        .iter()
        .map(|(path, is_dir)| (path.to_vec(), if *is_dir { MountPoint::Directory } else { MountPoint::File }));
    // `/dev` is a mount of its own: what is below it is made there by the sandbox.
    let more = more.iter().filter(|(path, _)| !path.starts_with(b"dev/")).cloned();
    missing(tree, standard.chain(more))
}

/// Finds which of `points` are missing.
pub(crate) fn missing(tree: &MergedTree, points: impl Iterator<Item = (Vec<u8>, MountPoint)>) -> Stubs {
    let mut missing = BTreeMap::new();
    for (path, kind) in points {
        // Where links lead nowhere, the sandbox says so better than we could here.
        let Ok(resolved) = tree.resolve(&path, FollowLast::Yes) else { continue };
        if tree.get(&resolved).is_none() {
            missing.insert(resolved, kind);
        }
    }
    let mut parents = BTreeMap::new();
    for path in missing.keys() {
        for dir in ancestors(path).filter(|dir| !dir.is_empty()) {
            if let Some(node) = tree.get(dir).filter(|node| matches!(node.kind, Kind::Directory { .. })) {
                parents.insert(dir.to_vec(), attributes(node.meta));
            }
        }
    }
    Stubs { missing, parents }
}
