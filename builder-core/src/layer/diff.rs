//! What a step changed, read from the upper directory of its overlay.
//!
//! Takes work in proportion to the upper directory, whatever the size of the image: what was there before is known from
//! the tree of the layers below. The overlay must have been mounted without `redirect_dir` and `metacopy` (`userxattr`
//! turns both off), so that the upper directory says everything by itself; one that does not is an error.
//!
//! What comes out obeys the rules for layers (image-spec `layer.md`): sorted by path bytes, the parents of everything
//! listed are listed too, deletions are whiteouts of the topmost path that is gone, a directory that was removed and
//! made again is opaque. The overlay copies a file up whenever it is opened for writing, or its owner or mode is set;
//! a copy that is the same as before is not a change. `ctime` and inode numbers are not compared with anything: the
//! content is.

mod compare;
mod scan;

use std::collections::{HashMap, HashSet};
use std::io;
use std::os::fd::BorrowedFd;

use crate::sys::file::WalkError;
use crate::tree::path::{ancestors, file_name, show};
use crate::tree::{Entry, Kind, MergedTree};

use compare::Comparer;
use scan::{Scanned, What};

/// Start of names by which layers tell deletions. No file of an image can have such a name.
const WHITEOUT_PREFIX: &[u8] = b".wh.";

/// The upper directory cannot be turned into a layer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum DiffError {
    /// A directory cannot be listed.
    #[error("walk the changes of the step")]
    Walk(#[source] WalkError),
    /// Attributes cannot be read.
    #[error("read extended attributes of {:?}", show(.path))]
    ReadAttributes {
        /// Whose.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A symlink's target cannot be read.
    #[error("read symbolic link {:?}", show(.path))]
    ReadLink {
        /// The link.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A file's content cannot be read.
    #[error("read {:?}", show(.path))]
    ReadFile {
        /// The file.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A name that means a deletion inside layers.
    #[error("{:?} cannot be stored in an image: names that start with \".wh.\" mean deletions there", show(.path))]
    ReservedName {
        /// The path.
        path: Vec<u8>,
    },
    /// The upper directory refers to layers below it.
    #[error("{:?} has the overlay attribute {:?}, so the changes are not complete", show(.path), show(.attribute))]
    NotSelfContained {
        /// The path.
        path: Vec<u8>,
        /// The attribute.
        attribute: Vec<u8>,
    },
    /// An attribute of ours that we did not write.
    #[error("{:?} has a malformed attribute {attribute}", show(.path))]
    BadPlaceholder {
        /// The path.
        path: Vec<u8>,
        /// The attribute.
        attribute: &'static str,
    },
}

impl From<WalkError> for DiffError {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

/// One entry of the layer to be written. The content hash of a file is zero; its bytes are in the upper directory at
/// the path of the entry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Change {
    /// The entry.
    pub(crate) entry: Entry,
}

/// Returns what the overlay with upper directory `upper` changes in `below`, sorted by path bytes.
///
/// Times later than `clamp_mtime`, in seconds since 1970, become that time. The root is listed when its mode, owner or
/// attributes changed; its time says nothing, as the overlay's root is always new.
pub(crate) fn diff(
    upper: BorrowedFd<'_>,
    below: &MergedTree,
    clamp_mtime: Option<i64>,
) -> Result<Vec<Change>, DiffError> {
    let mut scanned = scan::scan(upper, clamp_mtime)?;
    let comparer = Comparer { upper, below };
    let mut changed = mark_changed(&mut scanned, &comparer)?;
    link_groups(&mut scanned, &mut changed, &comparer);
    mark_parents(&scanned, &mut changed);
    let listed = scanned.into_iter().zip(changed).filter_map(|(item, changed)| changed.then_some(item));
    listed.map(into_change).collect()
}

/// Says of each path whether it is a change by itself, and brings whiteouts and opaque directories into the form that
/// they have in the layer.
fn mark_changed(scanned: &mut [Scanned], comparer: &Comparer<'_>) -> Result<Vec<bool>, DiffError> {
    // Directories of the upper directory under which nothing of the layers below shows.
    let mut covered: HashSet<Vec<u8>> = HashSet::new();
    let mut changed = Vec::with_capacity(scanned.len());
    for item in scanned {
        let hidden = ancestors(&item.path).next().is_some_and(|dir| covered.contains(dir));
        let before = if hidden { None } else { comparer.below.get(&item.path) };
        if hidden || matches!(item.what, What::Entry(Kind::Directory { opaque: true })) {
            covered.insert(item.path.clone());
        }
        if let What::Entry(Kind::Directory { opaque }) = &mut item.what {
            *opaque &= before.is_some() && comparer.below.children(&item.path).next().is_some();
        }
        changed.push(match &item.what {
            What::Gone | What::Unsupported => before.is_some(),
            What::Entry(_) => match before {
                Some(before) => !comparer.is_same(item, before)?,
                None => true,
            },
        });
    }
    Ok(changed)
}

/// Makes all but the first name of a file hard links. A group is listed whole or not at all: a link needs its target in
/// the same layer.
fn link_groups(scanned: &mut [Scanned], changed: &mut [bool], comparer: &Comparer<'_>) {
    let mut groups: HashMap<(u64, u64), Vec<usize>> = HashMap::new();
    for (index, item) in scanned.iter().enumerate() {
        if let Some(inode) = item.shared_inode {
            groups.entry(inode).or_default().push(index);
        }
    }
    for names in groups.into_values().filter(|names| names.len() > 1) {
        let paths: Vec<&[u8]> = names.iter().map(|index| scanned[*index].path.as_slice()).collect();
        if names.iter().any(|index| changed[*index]) || !comparer.were_one_file(&paths) {
            let target = scanned[names[0]].path.clone();
            for index in &names {
                changed[*index] = true;
            }
            for index in &names[1..] {
                scanned[*index].what = What::Entry(Kind::Hardlink { target: target.clone() });
            }
        }
    }
}

/// Lists the directories above every change, except the root.
fn mark_parents(scanned: &[Scanned], changed: &mut [bool]) {
    for index in 0..scanned.len() {
        if !changed[index] {
            continue;
        }
        for dir in ancestors(&scanned[index].path).filter(|dir| !dir.is_empty()) {
            match scanned.binary_search_by(|item| item.path.as_slice().cmp(dir)) {
                Ok(parent) if !changed[parent] => changed[parent] = true,
                _ => break,
            }
        }
    }
}

fn into_change(item: Scanned) -> Result<Change, DiffError> {
    if file_name(&item.path).starts_with(WHITEOUT_PREFIX) {
        return Err(DiffError::ReservedName { path: item.path });
    }
    Ok(Change {
        entry: match item.what {
            What::Entry(kind) => Entry { path: item.path, meta: item.meta, kind },
            What::Gone | What::Unsupported => {
                Entry { path: item.path, meta: crate::tree::Metadata::default(), kind: Kind::Whiteout }
            }
        },
    })
}

#[cfg(test)]
mod tests;
