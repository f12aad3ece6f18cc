//! Tar entries → what a layer says.
//!
//! Any writer may have made the layer: entries in any order, parents left out, a path twice, a path below a symlink that
//! the layer made itself. [`Changeset`] applies them one after another to a model of the layer's own directory, as
//! Docker does to the real one, and tells after each what that means on disk. So the tree and an unpacked layer cannot
//! differ, and nothing on disk ever needs to be asked.
//!
//! Rules. Paths are resolved inside the layer: a symlink in the middle leads to a place in the layer, an absolute one
//! starts at its root, `..` stops there. Lower layers are not consulted, so a layer means the same on top of anything:
//! a parent that is left out is a directory, also where a lower layer has a symlink of that name. A whiteout hides
//! what lower layers have and nothing of its own layer (image-spec `layer.md`, "Whiteouts"); next to a directory of its
//! name it makes that one opaque. A hard link takes part in the metadata of its group, the last name wins. Bounded: the number
//! of entries, the bytes of their names and attributes, and the work of following symlinks.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;

use super::tar::{OPAQUE, RawEntry, RawKind, WHITEOUT, normalise};
use super::{Error, Result};
use crate::digest::ContentHash;
use crate::tree::path::{ancestors, file_name, join, parent};
use crate::tree::xattr::{belongs_in_layer, portable_value};
use crate::tree::{Entry, Kind, LayerTree, Metadata};

/// Most entries of a layer.
const MAX_ENTRIES: u64 = 4 << 20;
/// Most bytes of paths, link targets and attributes of a layer.
const MAX_BYTES: u64 = 512 << 20;
/// Most symlinks on the way of one path.
const MAX_SYMLINKS: usize = 255;
/// Most work in the whole layer that following symlinks may cost: bytes of targets and components behind them.
const MAX_SYMLINK_STEPS: u64 = 50_000_000;
/// How names start by which aufs keeps book.
const AUFS: &[u8] = b".wh..wh.";

/// Whether `.wh.` names mean deletions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum WhiteoutNames {
    /// They do: the archive is a layer.
    Apply,
    /// They are names like others: the archive is a user's.
    Plain,
}

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
    whiteout_names: WhiteoutNames,
    /// Every path that exists; each one's parents exist and are directories.
    names: BTreeMap<Vec<u8>, Inode>,
    nodes: Vec<Node>,
    whiteouts: BTreeSet<Vec<u8>>,
    opaque: BTreeSet<Vec<u8>>,
    entries: u64,
    bytes: u64,
    symlink_steps: u64,
}

/// The finished model.
#[derive(Debug)]
pub(super) struct Contents {
    /// What the layer says.
    pub(super) tree: LayerTree,
    /// Directories that are in the layer's way without an entry, sorted; the tree does not have them.
    pub(super) implied: Vec<Vec<u8>>,
}

impl Contents {
    /// Whether `path` is a directory without an entry.
    pub(super) fn is_implied(&self, path: &[u8]) -> bool {
        self.implied.binary_search_by(|implied| implied[..].cmp(path)).is_ok()
    }
}

impl Changeset {
    /// Starts with an empty root.
    pub(super) fn new(whiteout_names: WhiteoutNames) -> Self {
        Self {
            whiteout_names,
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
        let path = entry.path.clone().map_err(|source| Error::Name { name: name(&entry), source })?;
        self.charge(&entry)?;
        let mut change = Change { removed: Vec::new(), made: Vec::new(), what: What::Nothing };
        if path.is_empty() {
            if entry.kind != RawKind::Directory {
                return Err(Error::Root { name: name(&entry) });
            }
            self.set_directory(Inode(0), entry);
            return Ok(change);
        }
        match self.marker(&path).ok_or_else(|| Error::Whiteout { name: name(&entry) })? {
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

    /// Returns what the layer says in all.
    pub(super) fn finish(mut self) -> Result<Contents> {
        let hidden = std::mem::take(&mut self.whiteouts);
        let (over_directories, whiteouts): (Vec<_>, Vec<_>) = hidden
            .into_iter()
            .filter(|path| self.is_directory_or_absent(path))
            .partition(|path| self.names.contains_key(path));
        self.opaque.extend(over_directories);
        let mut implied = Vec::new();
        let mut entries = BTreeMap::new();
        let mut first_names: Vec<Option<Vec<u8>>> = vec![None; self.nodes.len()];
        for (path, inode) in std::mem::take(&mut self.names) {
            let node = &self.nodes[inode.0];
            let opaque = self.opaque.contains(&path);
            let kind = match (&node.kind, &first_names[inode.0]) {
                (Kind::Directory { .. }, _) if node.implied && !opaque => {
                    if !path.is_empty() {
                        implied.push(path);
                    }
                    continue;
                }
                (Kind::Directory { .. }, _) => Kind::Directory { opaque },
                (_, Some(first)) => Kind::Hardlink { target: first.clone() },
                (kind, None) => {
                    first_names[inode.0] = Some(path.clone());
                    kind.clone()
                }
            };
            entries.insert(path.clone(), Entry { path, meta: node.meta.clone(), kind });
        }
        for path in whiteouts {
            // An opaque directory hides all; overlayfs lists a whiteout in one as a file that is not there.
            if !ancestors(&path).any(|dir| self.opaque.contains(dir)) {
                entries.insert(path.clone(), Entry { path, meta: Metadata::default(), kind: Kind::Whiteout });
            }
        }
        let tree = LayerTree::from_sorted(entries.into_values().collect()).map_err(|source| Error::Tree { source })?;
        Ok(Contents { tree, implied })
    }

    fn is_directory_or_absent(&self, path: &[u8]) -> bool {
        self.names.get(path).is_none_or(|inode| self.is_directory(*inode))
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

    /// What the name of an entry means; `None` for a `.wh.` name that means nothing.
    fn marker<'p>(&self, path: &'p [u8]) -> Option<Marker<'p>> {
        if self.whiteout_names == WhiteoutNames::Plain {
            return Some(Marker::None);
        }
        let name = file_name(path);
        let mut dirs = parent(path).unwrap_or_default().split(|byte| *byte == b'/');
        if dirs.clone().any(|dir| dir.starts_with(AUFS)) {
            return Some(Marker::Ignored);
        }
        if dirs.any(|dir| dir.starts_with(WHITEOUT)) {
            return None;
        }
        match name.strip_prefix(WHITEOUT) {
            None => Some(Marker::None),
            Some(_) if name == OPAQUE => Some(Marker::Opaque),
            Some(_) if name.starts_with(AUFS) => Some(Marker::Ignored),
            Some(b"" | b"." | b"..") => None,
            Some(hidden) => Some(Marker::Whiteout(hidden)),
        }
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

    /// The directory an entry at `dir` goes into, made where it is missing.
    fn directory(&mut self, dir: &[u8], entry: &[u8], made: &mut Vec<Vec<u8>>) -> Result<Vec<u8>> {
        let resolved = self.resolve(dir, entry, &mut Missing::Make(made))?;
        Ok(resolved.unwrap_or_default())
    }

    /// Follows symlinks inside the layer. `None` if something is missing and may not be made.
    fn resolve(&mut self, dir: &[u8], entry: &[u8], missing: &mut Missing<'_>) -> Result<Option<Vec<u8>>> {
        // Names in the map have no symlink above them.
        if self.names.get(dir).is_some_and(|inode| self.is_directory(*inode)) {
            return Ok(Some(dir.to_vec()));
        }
        let not_a_directory = || Error::NotADirectory { path: entry.to_vec() };
        let too_many = || Error::TooManySymlinks { path: entry.to_vec() };
        let mut todo: Vec<Vec<u8>> = components_reversed(dir).collect();
        let mut at: Vec<u8> = Vec::new();
        let mut symlinks = 0;
        while let Some(component) = todo.pop() {
            if symlinks > 0 {
                self.symlink_steps += 1;
                if self.symlink_steps > MAX_SYMLINK_STEPS {
                    return Err(too_many());
                }
            }
            match &component[..] {
                b"" | b"." => continue,
                b".." => {
                    at.truncate(parent(&at).map_or(0, <[u8]>::len));
                    continue;
                }
                _ => {}
            }
            let next = join(&at, &component);
            match self.names.get(&next).map(|inode| &self.nodes[inode.0].kind) {
                Some(Kind::Directory { .. }) => at = next,
                Some(Kind::Symlink { target }) => {
                    symlinks += 1;
                    self.symlink_steps += target.len() as u64;
                    if symlinks > MAX_SYMLINKS {
                        return Err(too_many());
                    }
                    if target.starts_with(b"/") {
                        at.clear();
                    }
                    todo.extend(components_reversed(target));
                }
                Some(_) => return Err(not_a_directory()),
                None => match missing {
                    Missing::Refuse => return Ok(None),
                    Missing::Make(made) => {
                        self.charge_bytes(next.len())?;
                        self.add(next.clone(), implied_directory());
                        made.push(next.clone());
                        at = next;
                    }
                },
            }
        }
        Ok(Some(at))
    }
}

/// What to do about a directory that is not there.
enum Missing<'a> {
    /// Make it and note it.
    Make(&'a mut Vec<Vec<u8>>),
    /// Give up.
    Refuse,
}

/// What a name means besides being one.
enum Marker<'p> {
    None,
    /// Bookkeeping of aufs.
    Ignored,
    Opaque,
    /// Hides this name.
    Whiteout(&'p [u8]),
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

fn components_reversed(path: &[u8]) -> impl Iterator<Item = Vec<u8>> {
    path.rsplit(|byte| *byte == b'/').map(<[u8]>::to_vec)
}

/// The keys that start with `dir/`: '0' is the byte after '/'.
fn range_below(dir: &[u8]) -> (Bound<Vec<u8>>, Bound<Vec<u8>>) {
    (Bound::Included([dir, b"/"].concat()), Bound::Excluded([dir, b"0"].concat()))
}

/// The directories above entries of `tree` that are not entries themselves, sorted, without the root.
pub(super) fn implied_parents(tree: &LayerTree) -> Vec<Vec<u8>> {
    let mut implied = BTreeSet::new();
    for entry in tree.entries() {
        for dir in ancestors(&entry.path) {
            // Whoever put it there saw to those above it.
            if dir.is_empty() || implied.contains(dir) || tree.get(dir).is_some() {
                break;
            }
            implied.insert(dir.to_vec());
        }
    }
    implied.into_iter().collect()
}

#[cfg(test)]
mod tests;
