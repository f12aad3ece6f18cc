//! What a step adds to a file system, before any byte of it is written.
//!
//! A canvas lies over the tree of the step's parent: looking shows the parent with the changes, and only the changes
//! become entries of the layer. So the rules of `COPY`, of unpacking an archive and of `WORKDIR` are plain operations
//! on paths, tested without a disk. Paths are resolved inside the image alone: there is no way out of it.

use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;

use crate::tree::path::{ancestors, file_name, show, strip_dir};
use crate::tree::{Entry, FollowLast, Kind, MergedTree, Metadata, ResolveError, Standing, resolve_with};

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
    #[error("{:?} is a directory and cannot be replaced with a file", show(.0))]
    DirectoryInTheWay(Vec<u8>),
    /// Something else is in the way of a directory.
    #[error("{:?} is not a directory", show(.0))]
    NotADirectory(Vec<u8>),
    /// The destination leads nowhere.
    #[error(transparent)]
    Resolve(ResolveError),
    /// Two files for one name.
    #[error("several sources for the file {:?}: end the destination with / to make it a directory", show(.0))]
    SeveralSources(Vec<u8>),
    /// A name that layers use for whiteouts.
    #[error("{:?} cannot be stored in a layer: names that start with .wh. mean deletions there", show(.0))]
    WhiteoutName(Vec<u8>),
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
        let hidden =
            ancestors(path).any(|up| self.removed.contains(up) || self.is_other(up)) || self.removed.contains(path);
        if hidden {
            return None;
        }
        self.base.get(path).map(|node| (node.meta, node.kind))
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
        let standing = |path: &[u8]| {
            Ok::<_, Infallible>(match self.get(path).map(|(_, kind)| kind) {
                None => Standing::Missing,
                Some(Kind::Directory { .. }) => Standing::Directory,
                Some(Kind::Symlink { target }) => Standing::Symlink(target.clone()),
                Some(_) => Standing::Other,
            })
        };
        let Ok(resolved) = resolve_with(path, FollowLast::Yes, standing);
        resolved.map_err(CanvasError::Resolve)
    }

    /// Makes `path` and its parents directories where nothing is; `meta` is for each that is made.
    ///
    /// `path` must be resolved. Returns whether `path` itself was made.
    pub(crate) fn mkdir_all(&mut self, path: &[u8], meta: &Metadata) -> Result<bool, CanvasError> {
        let mut made = false;
        let mut dirs: Vec<&[u8]> = ancestors(path).collect();
        dirs.reverse();
        for dir in dirs.into_iter().chain([path]).filter(|dir| !dir.is_empty()) {
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
        if file_name(path).starts_with(b".wh.") {
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

    /// Whether a change put something at `path`.
    pub(crate) fn has_put(&self, path: &[u8]) -> bool {
        self.puts.contains_key(path)
    }

    /// Starts a group of hard links.
    pub(crate) fn new_group(&mut self) -> LinkGroup {
        self.groups += 1;
        LinkGroup(self.groups)
    }

    /// Returns what to put somewhere to make it a hard link of the file that was put at `path`, if one was.
    pub(crate) fn hard_link(&mut self, path: &[u8]) -> Option<Put> {
        let fresh = LinkGroup(self.groups + 1);
        let put = self.puts.get_mut(path).filter(|put| matches!(put.kind, Kind::File { .. }))?;
        let group = *put.group.get_or_insert(fresh);
        self.groups = self.groups.max(group.0);
        Some(put.clone())
    }

    /// Removes `path` and everything below it.
    pub(crate) fn remove(&mut self, path: &[u8]) {
        self.puts.retain(|at, _| at != path && strip_dir(at, path).is_none());
        if self.base.get(path).is_some() {
            self.removed.retain(|at| strip_dir(at, path).is_none());
            self.removed.insert(path.to_vec());
        }
    }

    /// Whether a directory of the base was removed at `path`, so that a new one there must hide what it held.
    fn hides_directory(&self, path: &[u8]) -> bool {
        let was_directory = self.base.get(path).is_some_and(|node| matches!(node.kind, Kind::Directory { .. }));
        was_directory && self.removed.contains(path)
    }

    /// Returns the entries of the layer, sorted by path bytes.
    pub(crate) fn finish(mut self) -> Vec<Planned> {
        let mut planned = self.whiteouts();
        planned.extend(self.missing_parents(&planned));
        let puts = std::mem::take(&mut self.puts);
        planned.reserve_exact(puts.len());
        // The first name of a group in path order is the file, the others link to it: a target stands before its links.
        let mut first_names: BTreeMap<LinkGroup, Vec<u8>> = BTreeMap::new();
        for (path, Put { meta, kind, origin, group }) in puts {
            let first = group.map(|group| &*first_names.entry(group).or_insert_with(|| path.clone()));
            let kind = match (kind, first) {
                (Kind::Directory { .. }, _) => Kind::Directory { opaque: self.hides_directory(&path) },
                (Kind::File { .. }, Some(first)) if *first != path => Kind::Hardlink { target: first.clone() },
                (kind, _) => kind,
            };
            let origin = origin.filter(|_| matches!(kind, Kind::File { .. }));
            planned.push(Planned { entry: Entry { path, meta, kind }, origin });
        }
        planned.sort_unstable_by(|a, b| a.entry.path.cmp(&b.entry.path));
        planned
    }

    /// Deletions of what nothing is put in the place of.
    fn whiteouts(&self) -> Vec<Planned> {
        let covered = |path: &[u8]| ancestors(path).any(|up| self.is_other(up) || self.removed.contains(up));
        let paths = self.removed.iter().filter(|path| !self.has_put(path) && !covered(path));
        let whiteout = |path: &Vec<u8>| Entry { path: path.clone(), meta: Metadata::default(), kind: Kind::Whiteout };
        paths.map(|path| Planned { entry: whiteout(path), origin: None }).collect()
    }

    /// Directories above an entry are entries too, with the metadata they have anyway: so a layer says all that is
    /// needed to apply it, and no reader has to guess the owner of a directory that it must make.
    fn missing_parents(&self, whiteouts: &[Planned]) -> Vec<Planned> {
        let removed = whiteouts.iter().map(|planned| &planned.entry.path);
        let mut missing = BTreeSet::new();
        for path in self.puts.keys().chain(removed) {
            for dir in ancestors(path).filter(|dir| !dir.is_empty()) {
                // What is above one that is there was looked at with it.
                if self.has_put(dir) || !missing.insert(dir) {
                    break;
                }
            }
        }
        let directory = |path: &[u8]| {
            let meta = self.get(path).map(|(meta, _)| meta.clone()).unwrap_or_default();
            Entry { path: path.to_vec(), meta, kind: Kind::Directory { opaque: false } }
        };
        missing.into_iter().map(|path| Planned { entry: directory(path), origin: None }).collect()
    }
}
