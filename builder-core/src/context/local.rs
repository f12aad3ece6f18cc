//! A directory of this machine as a context.

use std::ffi::CString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use super::collect::Collector;
use super::{Snapshot, Stamp, StatCache};
use crate::digest::ContentHash;
use crate::sys::file::{self, FileStat, WalkError};
use crate::tree::path::{file_name, parent, show};
use crate::tree::pattern::{Decision, PatternError, PatternSet, Rule};
use crate::tree::{Entry, FollowLast, ResolveError, Standing, resolve_with};

/// Something of a context cannot be read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The directory itself cannot be opened.
    #[error("open build context {path:?}")]
    OpenRoot {
        /// The directory.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The ignore file is there and cannot be read.
    #[error("read {name}")]
    IgnoreFile {
        /// The file.
        name: String,
        /// Why.
        source: io::Error,
    },
    /// The ignore file has a malformed rule.
    #[error("read {name}")]
    IgnoreRules {
        /// The file.
        name: String,
        /// Which, and why.
        source: PatternError,
    },
    /// A directory cannot be listed.
    #[error("list the build context")]
    Walk(#[source] WalkError),
    /// A system call on a path of the context failed.
    #[error("{operation} {:?} of the build context", show(.path))]
    Access {
        /// What failed.
        operation: &'static str,
        /// The path.
        path: Vec<u8>,
        /// Why.
        source: io::Error,
    },
    /// A file is not as it was when it was listed.
    #[error("{:?} changed while the build was reading it", show(.path))]
    Changed {
        /// The file.
        path: Vec<u8>,
    },
    /// A source leads nowhere.
    #[error("resolve {:?} in the build context", show(.path))]
    Resolve {
        /// The source as given.
        path: Vec<u8>,
        /// Why.
        source: ResolveError,
    },
    /// A source has malformed wildcards.
    #[error("expand wildcards")]
    Pattern(#[source] PatternError),
}

impl From<WalkError> for Error {
    fn from(error: WalkError) -> Self {
        Self::Walk(error)
    }
}

/// A path of a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Listed {
    /// As on disk: owner and mode are the host's, the content hash of a file is zero. Of several names of one file,
    /// the first in byte order is the file, the others are hard links to it.
    pub(crate) entry: Entry,
    /// Identity of the content.
    pub(crate) stamp: Stamp,
}

/// Why a source is not there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Missing {
    /// Nothing has that name.
    Absent,
    /// An ignore rule leaves it out.
    Excluded(Rule),
}

/// A directory of this machine, read in place.
#[derive(Debug)]
pub(crate) struct LocalContext {
    root: OwnedFd,
    ignore: PatternSet,
    cache: Option<StatCache>,
}

impl LocalContext {
    /// Opens the context in `dir`. Nothing else is read yet.
    pub(crate) fn open(dir: &Path, ignore: Option<PatternSet>, cache: Option<StatCache>) -> Result<Self, Error> {
        let root = file::open_host_dir(dir).map_err(|source| Error::OpenRoot { path: dir.to_owned(), source })?;
        Ok(Self { root, ignore: ignore.unwrap_or_default(), cache })
    }

    /// Returns everything below the directory `under` that the ignore rules keep, with the directories that lead to
    /// it, sorted by path bytes. `under` has no symlinks (see [`Self::resolve`]). Sockets are left out.
    pub(crate) fn list(&self, under: &[u8]) -> Result<Vec<Listed>, Error> {
        let mut collector = Collector::new(self);
        collector.add_below(under)?;
        Ok(collector.finish())
    }

    /// Returns a tree of what `sources` need: of each, the symlinks and directories on the way, what it leads to and
    /// everything below that; for a source with wildcards (its last components may have them) everything that may
    /// match. Sources that do not exist add nothing. A source with `**` takes in everything below the directory before
    /// it. Ask the tree which paths a source selects: [`MergedTree::expand`](crate::tree::MergedTree::expand).
    pub(crate) fn snapshot<S: AsRef<[u8]>>(&self, sources: &[S]) -> Result<Snapshot, Error> {
        let mut collector = Collector::new(self);
        for source in sources {
            collector.add_source(source.as_ref())?;
        }
        Snapshot::new(collector.finish())
    }

    /// Returns `path` without symlinks, `.` and `..`, never leaving the context. Components that do not exist, or that
    /// the ignore rules leave out, stay as they are.
    pub(crate) fn resolve(&self, path: &[u8], last: FollowLast) -> Result<Vec<u8>, Error> {
        self.resolve_seeing(path, last, |path, stat| self.is_visible(path, stat))
    }

    /// As [`Self::resolve`], with nothing ignored.
    pub(crate) fn resolve_unseen(&self, path: &[u8], last: FollowLast) -> Result<Vec<u8>, Error> {
        self.resolve_seeing(path, last, |_, _| true)
    }

    /// Says why nothing is to be seen at `source`, which has no wildcards.
    pub(crate) fn why_missing(&self, source: &[u8]) -> Result<Missing, Error> {
        let everything = self.resolve_seeing(source, FollowLast::Yes, |_, _| true)?;
        let exists = self.stat(&everything)?.is_some();
        // A rule may hide the target, or already a symlink on the way to it.
        let visible_part = self.resolve(source, FollowLast::Yes)?;
        let deciding = [&visible_part, &everything].into_iter().filter_map(|path| self.ignore.deciding_rule(path));
        let hiding = deciding.into_iter().find(|rule| rule.decision == Decision::Exclude);
        Ok(match hiding {
            Some(rule) if exists => Missing::Excluded(rule.clone()),
            _ => Missing::Absent,
        })
    }

    /// Opens a file for reading. `path` has no symlinks.
    pub(crate) fn open_file(&self, path: &[u8]) -> Result<File, Error> {
        match file::open_file_below(self.root.as_fd(), path) {
            Ok(opened) => Ok(File::from(opened)),
            Err(source) => Err(access("open", path, source)),
        }
    }

    /// Returns the hash of the content of the file at `path`, which was listed with `stamp`. Reads the file only when
    /// the stat cache does not know it.
    ///
    /// # Errors
    ///
    /// The file cannot be read, or is not the one that was listed.
    pub(crate) fn content_hash(&self, path: &[u8], stamp: &Stamp) -> Result<ContentHash, Error> {
        if let Some(known) = self.cache.as_ref().and_then(|cache| cache.get(stamp)) {
            return Ok(known);
        }
        let changed = || Error::Changed { path: path.to_vec() };
        let hashed_at = SystemTime::now();
        let mut file = self.open_file(path)?;
        let stamp_now = |file: &File| {
            let stat = file::stat(file.as_fd()).map_err(|source| access("stat", path, source))?;
            Ok::<_, Error>(Stamp::of(&stat))
        };
        if stamp_now(&file)? != *stamp {
            return Err(changed());
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update_reader(&mut file).map_err(|source| access("read", path, source))?;
        if stamp_now(&file)? != *stamp || hasher.count() != stamp.size {
            return Err(changed());
        }
        let hash = ContentHash(*hasher.finalize().as_bytes());
        if let Some(cache) = &self.cache {
            cache.put(*stamp, hash, hashed_at);
        }
        Ok(hash)
    }

    /// Writes the stat cache if anything in it changed. Failing to is no reason to fail a build.
    pub(crate) fn save_cache(&self) -> io::Result<()> {
        self.cache.as_ref().map_or(Ok(()), StatCache::save)
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.root
    }

    /// The ignore rules.
    pub(crate) fn ignore(&self) -> &PatternSet {
        &self.ignore
    }

    /// Resolves `path` over what `visible` lets through.
    pub(super) fn resolve_seeing(
        &self,
        path: &[u8],
        last: FollowLast,
        mut visible: impl FnMut(&[u8], &FileStat) -> bool,
    ) -> Result<Vec<u8>, Error> {
        let standing = |path: &[u8]| match self.stat(path)? {
            Some(stat) if visible(path, &stat) => self.standing(path, &stat),
            _ => Ok(Standing::Missing),
        };
        resolve_with(path, last, standing)?.map_err(|source| Error::Resolve { path: path.to_vec(), source })
    }

    fn standing(&self, path: &[u8], stat: &FileStat) -> Result<Standing, Error> {
        Ok(match stat.file_type {
            file::FileType::Directory => Standing::Directory,
            file::FileType::Symlink => {
                let (dir, name) = self.open_parent(path).map_err(|source| access("open", path, source))?;
                let target = file::readlink_at(dir.as_fd(), &name);
                Standing::Symlink(target.map_err(|source| access("read symbolic link", path, source))?)
            }
            _ => Standing::Other,
        })
    }

    /// Whether the ignore rules let a path be seen, a directory also when only something below it may be kept.
    pub(super) fn is_visible(&self, path: &[u8], stat: &FileStat) -> bool {
        !self.ignore.excludes(path) || stat.is_dir() && self.ignore.may_include_below(path)
    }

    /// Returns what is at `path`, whatever the ignore rules say; `None` too when a symlink is on the way.
    pub(crate) fn stat(&self, path: &[u8]) -> Result<Option<FileStat>, Error> {
        let found = self.open_parent(path).and_then(|(dir, name)| file::stat_at(dir.as_fd(), &name));
        match found {
            Ok(stat) => Ok(Some(stat)),
            Err(error) if is_absence(&error) => Ok(None),
            Err(source) => Err(access("stat", path, source)),
        }
    }

    /// Opens the directory that holds `path` and returns the name there; `.` for the root.
    pub(super) fn open_parent(&self, path: &[u8]) -> io::Result<(OwnedFd, CString)> {
        let dir = file::open_dir_below(self.root.as_fd(), parent(path).unwrap_or_default())?;
        let name = if path.is_empty() { b"." } else { file_name(path) };
        Ok((dir, CString::new(name)?))
    }
}

pub(super) fn access(operation: &'static str, path: &[u8], source: io::Error) -> Error {
    Error::Access { operation, path: path.to_vec(), source }
}

/// Whether an error says that there is no such path, one through a symlink or a file included.
fn is_absence(error: &io::Error) -> bool {
    use io::ErrorKind;
    let is_loop = rustix::io::Errno::from_io_error(error) == Some(rustix::io::Errno::LOOP);
    is_loop || matches!(error.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory | ErrorKind::InvalidFilename)
}

#[cfg(test)]
mod tests;
