//! The directories of a step's overlay: what it sees (`lowerdirs`), what it changes (`upperdir`) and what overlayfs needs
//! (`workdir`). Makes them, does not mount them (`sandbox` does) and does not read changes (`layer` does).
//!
//! A step needs mount points (`/proc`, `/etc/hosts`, targets of `RUN --mount`) that the image may not have. Made in the
//! upperdir, they would end in the layer and change the mtimes of their parents. So they stand in a **stub layer** of their own
//! on top of the image's:
//!
//! ```text
//! upper/    empty, its root with the metadata of the image's root      changes of the step
//! work/     empty
//! stub/     missing mount points, and their parents as the image has them
//! lowerdirs given                                                       layers of the image, read-only
//! ```
//!
//! overlayfs shows a merged directory with the metadata of its topmost layer (`overlayfs.rst`, "Directories"), hence the copies.
//! Invariant: the merged view differs from the image's by exactly the missing mount points and their missing parents.
//! Killed at any time, nothing but the work directory is left, which is swept as a whole.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{Gid, Mode, OFlags, Timespec, Timestamps, Uid, XattrFlags};
use rustix::io::Errno;

/// Metadata of a directory as the image has it. Ids are those inside the user namespace.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Attributes {
    /// Permission, setgid and sticky bits.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time, seconds since 1970.
    pub(crate) mtime_secs: i64,
    /// Nanoseconds on top of them.
    pub(crate) mtime_nanos: u32,
    /// Extended attributes by full name.
    pub(crate) xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// What to make for a missing mount point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MountPoint {
    /// A directory, 0755.
    Directory,
    /// An empty file, 0644.
    File,
}

/// What the stub layer holds. Paths are image paths, without symlinks on the way.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stubs {
    /// Mount points that the image does not have. Missing directories above them are made as well.
    pub(crate) missing: BTreeMap<Vec<u8>, MountPoint>,
    /// Directories of the image above any of them, without the root.
    pub(crate) parents: BTreeMap<Vec<u8>, Attributes>,
}

/// Why the directories could not be made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A call on a path of this machine failed.
    #[error("{call} {path:?}")]
    Host {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: PathBuf,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// A call on a path of the stub layer failed.
    #[error("{call} {path:?} in the layer of mount points")]
    Stub {
        /// What was tried.
        call: &'static str,
        /// On what.
        path: String,
        /// Why it failed.
        #[source]
        source: Errno,
    },
    /// A path that is no image path.
    #[error("{path:?} is not a path relative to the image's root")]
    Path {
        /// It.
        path: String,
    },
}

/// The directories of one overlay, in a work directory that their owner removes.
#[derive(Debug)]
pub(crate) struct Snapshot {
    lowerdirs: Vec<PathBuf>,
    upperdir: PathBuf,
    workdir: PathBuf,
}

impl Snapshot {
    /// Makes `upper`, `work` and, if need be, `stub` in `work_dir`, which has none of them yet. `lowerdirs` are the image's
    /// layers, top first, possibly none; `root` is the metadata of the image's root directory.
    pub(crate) fn create(
        work_dir: &Path,
        lowerdirs: Vec<PathBuf>,
        root: &Attributes,
        stubs: &Stubs,
    ) -> Result<Self, Error> {
        let upperdir = make(work_dir.join("upper"))?;
        let workdir = make(work_dir.join("work"))?;
        let mut snapshot = Self { lowerdirs, upperdir, workdir };
        // overlayfs wants at least one lowerdir.
        if !stubs.missing.is_empty() || snapshot.lowerdirs.is_empty() {
            let stub = make(work_dir.join("stub"))?;
            StubLayer { root: open_host(&stub)? }.fill(stubs)?;
            snapshot.lowerdirs.insert(0, stub);
        }
        let upper = open_host(&snapshot.upperdir)?;
        set_attributes(upper.as_fd(), root).map_err(|(call, source)| {
            let path = snapshot.upperdir.clone();
            Error::Host { call, path, source }
        })?;
        Ok(snapshot)
    }

    /// All lowerdirs of the overlay, top first, at least one.
    pub(crate) fn lowerdirs(&self) -> &[PathBuf] {
        &self.lowerdirs
    }

    /// Where changes go. Also a lowerdir for later steps, once this one has ended.
    pub(crate) fn upperdir(&self) -> &Path {
        &self.upperdir
    }

    /// The overlay's own directory. A second mount with it needs a fresh one, since overlays are mounted `volatile`.
    pub(crate) fn workdir(&self) -> &Path {
        &self.workdir
    }
}

fn make(path: PathBuf) -> Result<PathBuf, Error> {
    match rustix::fs::mkdir(&path, Mode::from_raw_mode(0o700)) {
        Ok(()) => Ok(path),
        Err(source) => Err(Error::Host { call: "mkdir", path, source }),
    }
}

fn open_host(path: &Path) -> Result<OwnedFd, Error> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::open(path, flags, Mode::empty()).map_err(|source| Error::Host {
        call: "open",
        path: path.to_owned(),
        source,
    })
}

struct StubLayer {
    root: OwnedFd,
}

impl StubLayer {
    /// Makes everything first and sets metadata afterwards, since a new entry changes its parent's mtime.
    fn fill(&self, stubs: &Stubs) -> Result<(), Error> {
        let mut directories = BTreeSet::new();
        for (path, kind) in &stubs.missing {
            check(path)?;
            let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(index, _)| index);
            directories.extend(ends.filter_map(|end| path.get(..end)));
            if *kind == MountPoint::Directory {
                directories.insert(path);
            }
        }
        // In byte order a directory comes before what is in it.
        for path in &directories {
            rustix::fs::mkdirat(&self.root, *path, Mode::RWXU).map_err(failed("mkdir", path))?;
        }
        for (path, _) in stubs.missing.iter().filter(|(_, kind)| **kind == MountPoint::File) {
            let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
            let file = rustix::fs::openat(&self.root, path.as_slice(), flags, Mode::RUSR | Mode::WUSR)
                .map_err(failed("create", path))?;
            apply(&file, &made(0o644), path)?;
        }
        for path in directories {
            let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            let directory = rustix::fs::openat(&self.root, path, flags, Mode::empty()).map_err(failed("open", path))?;
            apply(&directory, stubs.parents.get(path).unwrap_or(&made(0o755)), path)?;
        }
        Ok(())
    }
}

/// What is made for a step has the metadata of a layer made at no time in particular: the same on every run.
fn made(mode: u32) -> Attributes {
    Attributes { mode, uid: 0, gid: 0, mtime_secs: 0, mtime_nanos: 0, xattrs: BTreeMap::new() }
}

fn check(path: &[u8]) -> Result<(), Error> {
    let valid = path.split(|byte| *byte == b'/').all(|name| !name.is_empty() && name != b"." && name != b"..");
    if valid { Ok(()) } else { Err(Error::Path { path: text(path) }) }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn failed(call: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
    let path = text(path);
    move |source| Error::Stub { call, path, source }
}

fn apply(file: &OwnedFd, attributes: &Attributes, path: &[u8]) -> Result<(), Error> {
    set_attributes(file.as_fd(), attributes).map_err(|(call, source)| failed(call, path)(source))
}

/// Sets all metadata. Owner before mode, which chown may change; times last.
fn set_attributes(file: BorrowedFd<'_>, attributes: &Attributes) -> Result<(), (&'static str, Errno)> {
    let (uid, gid) = (Uid::from_raw(attributes.uid), Gid::from_raw(attributes.gid));
    rustix::fs::fchown(file, Some(uid), Some(gid)).map_err(|errno| ("chown", errno))?;
    rustix::fs::fchmod(file, Mode::from_raw_mode(attributes.mode)).map_err(|errno| ("chmod", errno))?;
    for (name, value) in &attributes.xattrs {
        rustix::fs::fsetxattr(file, name.as_slice(), value, XattrFlags::empty())
            .map_err(|errno| ("setxattr", errno))?;
    }
    let mtime = Timespec { tv_sec: attributes.mtime_secs, tv_nsec: attributes.mtime_nanos.into() };
    rustix::fs::futimens(file, &Timestamps { last_access: mtime, last_modification: mtime })
        .map_err(|errno| ("utimensat", errno))
}
