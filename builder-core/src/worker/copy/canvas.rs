//! What a step adds to a file system, before any byte of it is written.
//!
//! A canvas lies over the tree of the step's parent: looking shows the parent with the changes, and only the changes
//! become entries of the layer. So the rules of `COPY`, of unpacking an archive and of `WORKDIR` are plain operations
//! on paths, tested without a disk. Paths are resolved inside the image alone: there is no way out of it.

use std::collections::{BTreeMap, BTreeSet};

use crate::tree::{Entry, Kind, MergedTree, Metadata};

/// Where the bytes of a file come from.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Origin {
    /// Number of the source within the step.
    pub(crate) source: usize,
    /// Path inside the source.
    pub(crate) path: Vec<u8>,
}

/// An entry of the new layer with the place of its bytes, if it is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Planned {
    /// The entry; the content hash of a file is filled in later.
    pub(crate) entry: Entry,
    /// Where its bytes are.
    pub(crate) origin: Option<Origin>,
}

/// Why something cannot be put somewhere.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum CanvasError {
    /// A directory is in the way of a file.
    #[error("{} is a directory and cannot be replaced with a file", show(.0))]
    DirectoryInTheWay(Vec<u8>),
    /// Something else is in the way of a directory.
    #[error("{} is not a directory", show(.0))]
    NotADirectory(Vec<u8>),
    /// Symbolic links that lead nowhere.
    #[error("too many levels of symbolic links at {}", show(.0))]
    Loop(Vec<u8>),
    /// A name that layers use for whiteouts.
    #[error("{} cannot be stored in a layer: names that start with .wh. mean deletions there", show(.0))]
    WhiteoutName(Vec<u8>),
}

/// Shows a path inside an image.
pub(crate) fn show(path: &[u8]) -> String {
    format!("{:?}", format!("/{}", String::from_utf8_lossy(path)))
}

/// Files of one group are hard links of each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct LinkGroup(usize);

/// What is put at a path.
#[derive(Debug, Clone)]
pub(crate) struct Put {
    /// Mode, owner, times, attributes.
    pub(crate) meta: Metadata,
    /// What it is; hard links are files with a group.
    pub(crate) kind: Kind,
    /// Where the bytes of a file are.
    pub(crate) origin: Option<Origin>,
    /// The file's other names.
    pub(crate) group: Option<LinkGroup>,
}

impl Put {
    /// A directory that was not asked for but is needed.
    pub(crate) fn directory(meta: Metadata) -> Self {
        Self { meta, kind: Kind::Directory { opaque: false }, origin: None, group: None }
    }
}

/// The parent's tree with changes on top.
#[derive(Debug)]
pub(crate) struct Canvas<'a> {
    base: &'a MergedTree,
    puts: BTreeMap<Vec<u8>, Put>,
    /// Paths of the base that are hidden with everything below them.
    removed: BTreeSet<Vec<u8>>,
    groups: usize,
}

impl<'a> Canvas<'a> {
    /// Starts without changes.
    pub(crate) fn new(base: &'a MergedTree) -> Self {
        Self { base, puts: BTreeMap::new(), removed: BTreeSet::new(), groups: 0 }
    }

    /// Returns metadata and kind of `path`.
    pub(crate) fn get(&self, path: &[u8]) -> Option<(&Metadata, &Kind)> {
        if let Some(put) = self.puts.get(path) {
            return Some((&put.meta, &put.kind));
        }
        let hidden = ancestors(path).any(|up| self.removed.contains(up) || self.is_other(up))
            || self.removed.contains(path);
        if hidden {
            return None;
        }
        self.base.get(path).map(|node| (&node.meta, &node.kind))
    }

    /// Whether a change put something else than a directory at `path`.
    fn is_other(&self, path: &[u8]) -> bool {
        self.puts.get(path).is_some_and(|put| !matches!(put.kind, Kind::Directory { .. }))
    }

    /// Whether `path` is a directory; the root always is.
    pub(crate) fn is_dir(&self, path: &[u8]) -> bool {
        path.is_empty() || matches!(self.get(path), Some((_, Kind::Directory { .. })))
    }

    /// Follows symbolic links in `path`, the last one too, inside the image. What does not exist is kept as written.
    pub(crate) fn resolve(&self, path: &[u8]) -> Result<Vec<u8>, CanvasError> {
        let mut todo: Vec<Vec<u8>> = components(path).map(<[u8]>::to_vec).rev().collect();
        let mut at: Vec<u8> = Vec::new();
        let mut links = 0;
        while let Some(name) = todo.pop() {
            if name == b".." {
                at.truncate(at.iter().rposition(|b| *b == b'/').unwrap_or(0));
                continue;
            }
            let next = join(&at, &name);
            let target = match self.get(&next) {
                Some((_, Kind::Symlink { target })) => target.clone(),
                Some((_, Kind::Directory { .. })) | None => {
                    at = next;
                    continue;
                }
                Some(_) if todo.is_empty() => return Ok(next),
                Some(_) => return Err(CanvasError::NotADirectory(next)),
            };
            links += 1;
            // The kernel gives up after 40 links in one path (path_resolution(7)).
            if links > 40 {
                return Err(CanvasError::Loop(next));
            }
            if target.starts_with(b"/") {
                at.clear();
            }
            todo.extend(components(&target).map(<[u8]>::to_vec).rev());
        }
        Ok(at)
    }

    /// Makes `path` and its parents directories where nothing is; `meta` is for each that is made.
    ///
    /// `path` must be resolved. Returns whether `path` itself was made.
    pub(crate) fn mkdir_all(&mut self, path: &[u8], meta: &Metadata) -> Result<bool, CanvasError> {
        let mut made = false;
        for dir in ancestors(path).skip(1).chain([path]).filter(|dir| !dir.is_empty()) {
            made = match self.get(dir) {
                Some((_, Kind::Directory { .. })) => false,
                Some(_) => return Err(CanvasError::NotADirectory(dir.to_vec())),
                None => {
                    self.put(dir, Put::directory(meta.clone()))?;
                    true
                }
            };
        }
        Ok(made)
    }

    /// Puts something at `path`, whose parents are there. A directory keeps what it has below; over anything else, and
    /// over other kinds, it replaces.
    pub(crate) fn put(&mut self, path: &[u8], put: Put) -> Result<(), CanvasError> {
        let name = path.rsplit(|b| *b == b'/').next().unwrap_or(path);
        if name.starts_with(b".wh.") {
            return Err(CanvasError::WhiteoutName(path.to_vec()));
        }
        let is_dir = matches!(put.kind, Kind::Directory { .. });
        match self.get(path) {
            Some((_, Kind::Directory { .. })) if is_dir => {}
            Some((_, Kind::Directory { .. })) => return Err(CanvasError::DirectoryInTheWay(path.to_vec())),
            _ => {}
        }
        self.puts.insert(path.to_vec(), put);
        Ok(())
    }

    /// Starts a group of hard links.
    pub(crate) fn new_group(&mut self) -> LinkGroup {
        self.groups += 1;
        LinkGroup(self.groups)
    }

    /// Makes the change at `path`, a file, part of a group and returns it; `None` when nothing was put there.
    pub(crate) fn group_of(&mut self, path: &[u8]) -> Option<(LinkGroup, Put)> {
        let fresh = LinkGroup(self.groups + 1);
        let put = self.puts.get_mut(path).filter(|put| matches!(put.kind, Kind::File { .. }))?;
        let group = *put.group.get_or_insert(fresh);
        let put = put.clone();
        self.groups = self.groups.max(group.0);
        Some((group, put))
    }

    /// Removes `path` and everything below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        let below = [path, b"/"].concat();
        self.puts.retain(|at, _| at != path && !at.starts_with(&below));
        if self.base.get(path).is_some() {
            self.removed.retain(|at| !at.starts_with(&below));
            self.removed.insert(path.to_vec());
        }
    }

    /// Whether a directory of the base was removed at `path`, so that a new one there must hide what it held.
    fn hides_directory(&self, path: &[u8]) -> bool {
        let was_directory = self.base.get(path).is_some_and(|node| matches!(node.kind, Kind::Directory { .. }));
        was_directory && self.removed.contains(path)
    }

    /// Returns the entries of the layer, sorted by path bytes.
    pub(crate) fn finish(self) -> Vec<Planned> {
        let hidden_by_other = |path: &[u8]| ancestors(path).any(|up| self.is_other(up));
        let mut all = BTreeMap::new();
        for path in &self.removed {
            if !hidden_by_other(path) && !ancestors(path).any(|up| self.removed.contains(up)) {
                let entry = Entry { path: path.clone(), meta: Metadata::default(), kind: Kind::Whiteout };
                all.insert(path.clone(), Planned { entry, origin: None });
            }
        }
        // The first name of a group in path order is the file, the others link to it: a target stands before its links.
        let mut first_names: BTreeMap<LinkGroup, &[u8]> = BTreeMap::new();
        for (path, put) in &self.puts {
            let first = put.group.map_or(path.as_slice(), |group| *first_names.entry(group).or_insert(path));
            let kind = match &put.kind {
                Kind::Directory { .. } => Kind::Directory { opaque: self.hides_directory(path) },
                Kind::File { .. } if first != path => Kind::Hardlink { target: first.to_vec() },
                other => other.clone(),
            };
            let origin = put.origin.clone().filter(|_| matches!(kind, Kind::File { .. }));
            let entry = Entry { path: path.clone(), meta: put.meta.clone(), kind };
            all.insert(path.clone(), Planned { entry, origin });
        }
        all.into_values().collect()
    }
}

/// The directories above `path`, outermost first, beginning with the root.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    let root: Option<&[u8]> = (!path.is_empty()).then_some(&[]);
    root.into_iter().chain(path.iter().enumerate().filter(|(_, b)| **b == b'/').map(|(at, _)| &path[..at]))
}

/// The directory above `path`; the root is above itself.
pub(crate) fn parent(path: &[u8]) -> &[u8] {
    &path[..path.iter().rposition(|b| *b == b'/').unwrap_or(0)]
}

/// The components of a path as written: empty ones and `.` left out, `..` kept.
pub(crate) fn components(path: &[u8]) -> impl DoubleEndedIterator<Item = &[u8]> {
    path.split(|b| *b == b'/').filter(|name| !name.is_empty() && *name != b".")
}

/// `dir/name`; the root has no name.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    match (dir.is_empty(), name.is_empty()) {
        (true, _) => name.to_vec(),
        (_, true) => dir.to_vec(),
        _ => [dir, b"/", name].concat(),
    }
}

/// Path with `.`, `..` and empty components taken out lexically, clamped at the root (Go's `path.Clean`).
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let mut out: Vec<&[u8]> = Vec::new();
    for name in components(path) {
        if name == b".." {
            out.pop();
        } else {
            out.push(name);
        }
    }
    out.join(&b'/')
}
