//! Gathering paths of a local context, with the ignore rules applied.

use std::collections::HashMap;
use std::os::fd::AsFd;

use super::local::{Error, Listed, LocalContext, access};
use super::stat_cache::Stamp;
use crate::digest::ContentHash;
use crate::sys::file::{self, Descend, DeviceNumber, FileStat, FileType, Found};
use crate::sys::xattr;
use crate::tree::path::{ancestors, parent, strip_dir};
use crate::tree::pattern::{Decision, Glob, RuleIndex, split_at_wildcard};
use crate::tree::xattr::{belongs_in_layer, portable_value};
use crate::tree::{Entry, FollowLast, Kind, Metadata, Timestamp};

struct Collected {
    listed: Listed,
    has_more_names: bool,
    /// Not for its own sake: an ignored directory, kept only if something below it is.
    tentative: bool,
}

impl Collected {
    fn path(&self) -> &[u8] {
        &self.listed.entry.path
    }
}

/// Gathers paths of a context.
pub(super) struct Collector<'c> {
    context: &'c LocalContext,
    /// In the order found; what several sources need comes several times.
    found: Vec<Collected>,
}

impl<'c> Collector<'c> {
    pub(super) fn new(context: &'c LocalContext) -> Self {
        Self { context, found: Vec::new() }
    }

    /// Adds what a source of `COPY` needs; see [`LocalContext::snapshot`].
    pub(super) fn add_source(&mut self, source: &[u8]) -> Result<(), Error> {
        let (literal, pattern) = split_at_wildcard(source);
        self.add_one(b"")?;
        let base = self.add_way(&literal)?;
        if pattern.is_empty() || pattern.windows(2).any(|pair| pair == b"**") {
            return self.add_below(&base);
        }
        self.add_matching(&base, &Wildcards::parse(&pattern)?)
    }

    /// Adds everything on the way to `path`, what it leads to included, and returns where that is.
    fn add_way(&mut self, path: &[u8]) -> Result<Vec<u8>, Error> {
        let context = self.context;
        let mut way: Vec<Vec<u8>> = Vec::new();
        let resolved = context.resolve_seeing(path, FollowLast::Yes, |path, stat| {
            let visible = context.is_visible(path, stat);
            if visible {
                way.push(path.to_vec());
            }
            visible
        })?;
        for path in way {
            self.add_one(&path)?;
        }
        Ok(resolved)
    }

    /// Adds `path`, which is visible and has no symlinks above it.
    fn add_one(&mut self, path: &[u8]) -> Result<(), Error> {
        let error = |source| access("stat", path, source);
        let (dir, name) = self.context.open_parent(path).map_err(error)?;
        let stat = file::stat_at(dir.as_fd(), &name).map_err(error)?;
        let decided = self.context.ignore().decide(path);
        self.add(&Found { dir: dir.as_fd(), name: &name, path, stat: &stat }, decided)
    }

    /// Adds everything below the directory `under`; nothing when it is none.
    pub(super) fn add_below(&mut self, under: &[u8]) -> Result<(), Error> {
        self.walk(under, |_, _| Selected::WithAllBelow)
    }

    /// Adds what `wildcards` match below `base`, and the directories on the way.
    fn add_matching(&mut self, base: &[u8], wildcards: &Wildcards) -> Result<(), Error> {
        // Directories that match are walked whole, once the walk that finds them is done.
        let mut whole: Vec<Vec<u8>> = Vec::new();
        self.walk(base, |path, is_dir| {
            let below = strip_dir(path, base).unwrap_or(path);
            if wildcards.glob.matches(below) {
                if is_dir {
                    whole.push(path.to_vec());
                }
                Selected::Alone
            } else if is_dir && wildcards.may_match_below(below) {
                Selected::OnTheWay
            } else {
                Selected::No
            }
        })?;
        whole.iter().try_for_each(|dir| self.add_below(dir))
    }

    /// Walks what is visible below `under`, asking `select` about each path.
    fn walk(&mut self, under: &[u8], mut select: impl FnMut(&[u8], bool) -> Selected) -> Result<(), Error> {
        let context = self.context;
        let ignore = context.ignore();
        if context.stat(under)?.is_none_or(|stat| !stat.is_dir() || !context.is_visible(under, &stat)) {
            return Ok(());
        }
        let dir = file::open_dir_below(context.root().as_fd(), under);
        let dir = dir.map_err(|source| access("open directory", under, source))?;
        // The rule that decides about a directory decides about what is inside, unless a later one does.
        let mut deciding: HashMap<Vec<u8>, Option<RuleIndex>> = HashMap::new();
        deciding.insert(under.to_vec(), ignore.decide(under));
        file::walk(dir, under, |found| {
            let of_parent = parent(found.path).and_then(|dir| deciding.get(dir)).copied().flatten();
            let decided = ignore.decide_below(found.path, of_parent);
            let is_dir = found.stat.is_dir();
            let excluded = decided.is_some_and(|index| ignore.rule(index).decision == Decision::Exclude);
            if excluded && !(is_dir && ignore.may_include_below_decided(found.path, decided)) {
                return Ok(Descend::No);
            }
            let selected = select(found.path, is_dir);
            if selected == Selected::No {
                return Ok(Descend::No);
            }
            self.add(found, decided)?;
            if !is_dir || selected == Selected::Alone {
                return Ok(Descend::No);
            }
            deciding.insert(found.path.to_vec(), decided);
            Ok(Descend::Yes)
        })
    }

    fn add(&mut self, found: &Found<'_>, decided: Option<RuleIndex>) -> Result<(), Error> {
        let Some(kind) = kind(found)? else { return Ok(()) };
        let has_more_names = matches!(kind, Kind::File { .. }) && found.stat.nlink > 1;
        let excluded = decided.is_some_and(|index| self.context.ignore().rule(index).decision == Decision::Exclude);
        let entry = Entry { path: found.path.to_vec(), meta: metadata(found)?, kind };
        let listed = Listed { entry, stamp: Stamp::of(found.stat) };
        self.found.push(Collected { listed, has_more_names, tentative: excluded });
        Ok(())
    }

    /// Returns what was gathered, each path once, sorted by path bytes.
    pub(super) fn finish(mut self) -> Vec<Listed> {
        self.found.sort_unstable_by(|a, b| a.path().cmp(b.path()));
        self.found.dedup_by(|a, b| a.path() == b.path());
        self.keep_parents();
        let mut first_names: HashMap<(u64, u64), Vec<u8>> = HashMap::new();
        let kept = self.found.into_iter().filter(|collected| !collected.tentative);
        let finish = |Collected { mut listed, has_more_names, .. }| {
            if has_more_names {
                let path = &listed.entry.path;
                let first = first_names.entry((listed.stamp.dev, listed.stamp.ino)).or_insert_with(|| path.clone());
                if first != path {
                    listed.entry.kind = Kind::Hardlink { target: first.clone() };
                }
            }
            listed
        };
        kept.map(finish).collect()
    }

    /// Makes ignored directories stay that lead to something kept.
    fn keep_parents(&mut self) {
        for at in 0..self.found.len() {
            if self.found[at].tentative {
                continue;
            }
            let position = |dir: &[u8]| self.found.binary_search_by(|collected| collected.path().cmp(dir)).ok();
            let above: Vec<usize> = ancestors(self.found[at].path()).map_while(position).collect();
            for dir in above {
                self.found[dir].tentative = false;
            }
        }
    }
}

/// What a walk does with a path.
#[derive(PartialEq, Eq)]
enum Selected {
    /// Leave it out.
    No,
    /// Take it, and look inside without taking all of it.
    OnTheWay,
    /// Take it, do not look inside.
    Alone,
    /// Take it and look inside.
    WithAllBelow,
}

/// The part of a source from its first wildcard on.
struct Wildcards {
    glob: Glob,
    /// The components one by one; none when a class may match a `/`.
    components: Vec<Glob>,
}

impl Wildcards {
    fn parse(pattern: &[u8]) -> Result<Self, Error> {
        let glob = Glob::parse(pattern).map_err(Error::Pattern)?;
        let mut components = Vec::new();
        if !pattern.contains(&b'[') {
            for part in pattern.split(|b| *b == b'/') {
                components.push(Glob::parse(part).map_err(Error::Pattern)?);
            }
        }
        Ok(Self { glob, components })
    }

    /// Whether something below the directory `dir` may match.
    fn may_match_below(&self, dir: &[u8]) -> bool {
        if !self.glob.may_match_below(dir) {
            return false;
        }
        // The walk asked the same about every directory above, so only the last component is new.
        let depth = dir.split(|b| *b == b'/').count();
        let name = crate::tree::path::file_name(dir);
        self.components.get(depth - 1).is_none_or(|component| component.matches(name))
    }
}

fn kind(found: &Found<'_>) -> Result<Option<Kind>, Error> {
    let FileStat { size, rdev: DeviceNumber { major, minor }, .. } = *found.stat;
    Ok(Some(match found.stat.file_type {
        FileType::File => Kind::File { size, content: ContentHash([0; 32]) },
        FileType::Directory => Kind::Directory { opaque: false },
        FileType::Symlink => {
            let target = file::readlink_at(found.dir, found.name);
            Kind::Symlink { target: target.map_err(|source| access("read symbolic link", found.path, source))? }
        }
        FileType::CharDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Other => return Ok(None),
    }))
}

fn metadata(found: &Found<'_>) -> Result<Metadata, Error> {
    let stat = found.stat;
    let xattrs = xattr::read_at(found.dir, found.name, belongs_in_layer)
        .map_err(|source| access("read extended attributes of", found.path, source))?;
    Ok(Metadata {
        mode: stat.mode,
        uid: stat.uid,
        gid: stat.gid,
        mtime: Timestamp { secs: stat.mtime.0, nanos: stat.mtime.1 },
        xattrs: xattrs.into_iter().map(|(name, value)| (name.clone(), portable_value(&name, value))).collect(),
    })
}
