//! Tar entries → what a layer says.
//!
//! Any writer may have made the layer: entries in any order, parents left out, a path twice, a path below a symlink
//! that the layer made itself. [`Changeset`] applies them one after another to a model of the layer's own directory,
//! as Docker does to the real one, and tells after each what that means on disk. So the tree and an unpacked layer
//! cannot differ, and nothing on disk ever needs to be asked.
//!
//! Rules. Paths are resolved inside the layer: a symlink in the middle leads to a place in the layer, an absolute one
//! starts at its root, `..` stops there. Lower layers are not consulted, so a layer means the same on top of anything:
//! a parent that is left out is a directory, also where a lower layer has a symlink of that name. A whiteout hides
//! what lower layers have and nothing of its own layer (image-spec `layer.md`, "Whiteouts"); next to a directory of
//! its name it makes that one opaque. A hard link takes part in the metadata of its group, the last name wins.
//! Bounded: the number of entries, the bytes of their names and attributes, and the work of following symlinks.

mod contents;
mod marker;
mod resolve;

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

pub(super) use contents::{Contents, implied_parents};
use marker::Marker;
use resolve::Missing;

use super::tar::{RawEntry, RawKind, normalise};
use super::{Error, Result};
use crate::digest::ContentHash;
use crate::tree::path::{file_name, join, parent};
use crate::tree::xattr::{belongs_in_layer, portable_value};
use crate::tree::{Kind, Metadata};

/// Most entries of a layer.
const MAX_ENTRIES: u64 = 4 << 20;
/// Most bytes of paths, link targets and attributes of a layer.
const MAX_BYTES: u64 = 512 << 20;
/// What one tar entry means on disk, in this order: `removed`, `made`, `what`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Change {
    /// What is gone, what is below a directory before it.
    pub(super) removed: Vec<Gone>,
    /// Directories that are there because something is below them, from the root down.
    pub(super) made: Vec<Vec<u8>>,
    /// The entry itself.
    pub(super) what: What,
}

/// A path that is no more.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gone {
    pub(super) path: Vec<u8>,
    pub(super) was: Was,
}

/// What a path was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Was {
    Directory,
    Other,
}

/// The entry itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// Nothing on disk now: a whiteout, an opaque marker, or a directory that is there already.
    Nothing,
    /// A new object at a path where nothing is.
    New { path: Vec<u8>, inode: Inode },
    /// A new name of what is at `target`; if its metadata changes by that, it is for [`Changeset::node`] to say.
    Link { path: Vec<u8>, target: Vec<u8>, inode: Inode, metadata: Changed },
}

/// Whether something is other than before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Changed {
    /// It is.
    Yes,
    /// It is as before.
    No,
}

/// Number of a file system object of the layer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Inode(usize);

/// A file system object; hard links share it.
#[derive(Debug)]
pub(super) struct Node {
    /// Metadata, attributes that no layer has left out.
    pub(super) meta: Metadata,
    /// Never a hard link or a whiteout.
    pub(super) kind: Kind,
    /// A directory that no entry describes.
    implied: bool,
}

/// The model of one layer.
#[derive(Debug)]
pub(super) struct Changeset {
    /// Every path that exists; each one's parents exist and are directories.
    names: BTreeMap<Vec<u8>, Inode>,
    nodes: Vec<Node>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    entries: u64,
    bytes: u64,
    symlink_steps: u64,
}

impl Changeset {
    /// Starts with an empty root.
    pub(super) fn new() -> Self {
        Self {
            names: BTreeMap::from([(Vec::new(), Inode(0))]),
            nodes: vec![implied_directory()],
            whiteouts: BTreeSet::new(),
            opaque: BTreeSet::new(),
            entries: 0,
            bytes: 0,
            symlink_steps: 0,
        }
    }

    /// Applies the next entry of the archive.
    pub(super) fn apply(&mut self, entry: RawEntry) -> Result<Change> {
        let name = |entry: &RawEntry| entry.name.escape_ascii().to_string();
        let path = entry.path.clone().map_err(|reason| Error::Name { name: name(&entry), reason })?;
        self.charge(&entry)?;
        let mut change = Change { removed: Vec::new(), made: Vec::new(), what: What::Nothing };
        if path.is_empty() {
            if entry.kind != RawKind::Directory {
                return Err(Error::Root { name: name(&entry) });
            }
            self.set_directory(Inode(0), entry);
            return Ok(change);
        }
        match Marker::of(&path).ok_or_else(|| Error::Whiteout { name: name(&entry) })? {
            Marker::None => self.apply_object(&path, entry, &mut change)?,
            Marker::Ignored => {}
            Marker::Opaque => {
                let dir = self.directory(parent(&path).unwrap_or_default(), &path, &mut change.made)?;
                self.opaque.insert(dir);
            }
            Marker::Whiteout(hidden) => {
                let dir = self.directory(parent(&path).unwrap_or_default(), &path, &mut change.made)?;
                self.whiteouts.insert(join(&dir, hidden));
            }
        }
        Ok(change)
    }

    /// The object `inode`.
    pub(super) fn node(&self, inode: Inode) -> &Node {
        &self.nodes[inode.0]
    }

    /// Says what the bytes of a file were.
    pub(super) fn set_content(&mut self, inode: Inode, hash: ContentHash) {
        if let Kind::File { content, .. } = &mut self.nodes[inode.0].kind {
            *content = hash;
        }
    }

    fn is_directory(&self, inode: Inode) -> bool {
        matches!(self.nodes[inode.0].kind, Kind::Directory { .. })
    }

    /// Counts an entry against the limits.
    fn charge(&mut self, entry: &RawEntry) -> Result<()> {
        let target = match &entry.kind {
            RawKind::Symlink { target } | RawKind::Hardlink { target } => target.len(),
            _ => 0,
        };
        let xattrs: usize = entry.xattrs.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.charge_bytes(entry.name.len() + target + xattrs)
    }

    fn charge_bytes(&mut self, bytes: usize) -> Result<()> {
        self.entries += 1;
        self.bytes = self.bytes.saturating_add(bytes as u64);
        if self.entries > MAX_ENTRIES {
            return Err(Error::TooLarge { what: "entries", limit: MAX_ENTRIES });
        }
        if self.bytes > MAX_BYTES {
            return Err(Error::TooLarge { what: "bytes of names and attributes", limit: MAX_BYTES });
        }
        Ok(())
    }

    fn apply_object(&mut self, path: &[u8], entry: RawEntry, change: &mut Change) -> Result<()> {
        let dir = self.directory(parent(path).unwrap_or_default(), path, &mut change.made)?;
        let path = join(&dir, file_name(path));
        let existing = self.names.get(&path).copied();
        if let (Some(inode), RawKind::Directory) = (existing, &entry.kind)
            && self.is_directory(inode)
        {
            self.set_directory(inode, entry);
            return Ok(());
        }
        if existing.is_some() {
            self.remove(&path, &mut change.removed);
            if entry.kind == RawKind::Directory {
                // Whatever lower layers have there was replaced before, by what was no directory.
                self.opaque.insert(path.clone());
            }
        }
        if let RawKind::Hardlink { target } = &entry.kind {
            change.what = self.link(path, target.clone(), entry)?;
            return Ok(());
        }
        let kind = match entry.kind {
            RawKind::Directory | RawKind::Hardlink { .. } => Kind::Directory { opaque: false },
            RawKind::File => Kind::File { size: entry.size, content: ContentHash([0; 32]) },
            RawKind::Symlink { ref target } if target.is_empty() => return Err(Error::EmptySymlink { path }),
            RawKind::Symlink { ref target } => Kind::Symlink { target: target.clone() },
            RawKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            RawKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            RawKind::Fifo => Kind::Fifo,
        };
        let inode = self.add(path.clone(), Node { meta: metadata(entry), kind, implied: false });
        change.what = What::New { path, inode };
        Ok(())
    }

    fn set_directory(&mut self, inode: Inode, entry: RawEntry) {
        let node = &mut self.nodes[inode.0];
        node.meta = metadata(entry);
        node.implied = false;
    }

    fn add(&mut self, path: Vec<u8>, node: Node) -> Inode {
        let inode = Inode(self.nodes.len());
        self.nodes.push(node);
        self.names.insert(path, inode);
        inode
    }

    fn link(&mut self, path: Vec<u8>, stored: Vec<u8>, entry: RawEntry) -> Result<What> {
        let error = || Error::LinkTarget { path: path.clone(), target: stored.escape_ascii().to_string() };
        let target = normalise(&stored).map_err(|_| error())?;
        let dir = self.resolve(parent(&target).unwrap_or_default(), &path, &mut Missing::Refuse)?.ok_or_else(error)?;
        let target = join(&dir, file_name(&target));
        let inode = self.names.get(&target).copied().filter(|inode| !self.is_directory(*inode)).ok_or_else(error)?;
        self.names.insert(path.clone(), inode);
        let node = &mut self.nodes[inode.0];
        let mut meta = metadata(entry);
        let old = std::mem::take(&mut node.meta);
        for (name, value) in &old.xattrs {
            meta.xattrs.entry(name.clone()).or_insert_with(|| value.clone());
        }
        if let Kind::Symlink { .. } = node.kind {
            meta.mode = old.mode;
        }
        let metadata = if meta == old { Changed::No } else { Changed::Yes };
        node.meta = meta;
        Ok(What::Link { path, target, inode, metadata })
    }

    /// Forgets `path` and all below it.
    fn remove(&mut self, path: &[u8], removed: &mut Vec<Gone>) {
        let below: Vec<_> = self.names.range(range_below(path)).map(|(path, _)| path.clone()).collect();
        for path in below.into_iter().rev().chain([path.to_vec()]) {
            let directory = self.names.remove(&path).is_some_and(|inode| self.is_directory(inode));
            self.opaque.remove(&path);
            removed.push(Gone { path, was: if directory { Was::Directory } else { Was::Other } });
        }
        let hidden: Vec<_> = self.whiteouts.range(range_below(path)).cloned().collect();
        for path in hidden {
            self.whiteouts.remove(&path);
        }
    }
}

fn implied_directory() -> Node {
    let meta = Metadata { mode: 0o755, ..Metadata::default() };
    Node { meta, kind: Kind::Directory { opaque: false }, implied: true }
}

fn metadata(entry: RawEntry) -> Metadata {
    let mode = if let RawKind::Symlink { .. } = entry.kind { 0o777 } else { entry.mode };
    let xattrs = entry.xattrs.into_iter().filter(|(name, _)| belongs_in_layer(name));
    let xattrs = xattrs.map(|(name, value)| {
        let value = portable_value(&name, value);
        (name, value)
    });
    Metadata { mode, uid: entry.uid, gid: entry.gid, mtime: entry.mtime, xattrs: xattrs.collect() }
}

/// The keys that start with `dir/`: '0' is the byte after '/'.
fn range_below(dir: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (Bound::Included([dir, b"/"].concat()), Bound::Excluded([dir, b"0"].concat()))
}
