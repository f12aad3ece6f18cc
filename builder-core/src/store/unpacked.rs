//! Unpacked layers and cache mounts: directories with a lock file beside them.
//!
//! `unpacked/<key>.lock` is held while a layer is being unpacked, so that it is done once at a time. Its modification
//! time is the last use (the directory's own belongs to the layer). Its text is the boot in which the directory was
//! put in place: the files are never flushed, so after another boot the layer is unpacked again. Keys start with the
//! 64 digits of the layer's diff ID; more may follow after a `-`, where one layer unpacks in several ways.

use std::fs::{self, DirBuilder};
use std::io::{Seek, SeekFrom, Write};
use std::ops::ControlFlow;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, RenameFlags};
use rustix::io::Errno;

use super::error::{Error, Result};
use super::lock::{self, After, FileLock};
use super::recover::boot_id;
use super::session::{Pin, Session};
use super::{Store, plain_key, remove_tree};

/// Answer to a wish for an unpacked layer.
#[derive(Debug)]
pub(crate) enum Unpacking {
    /// It is there.
    Ready(PathBuf),
    /// The caller has to unpack it, and nobody else does meanwhile.
    Mine(UnpackDir),
}

/// A layer being unpacked. Dropped without a commit it is gone, and the next who waits may try.
#[derive(Debug)]
pub(crate) struct UnpackDir {
    path: PathBuf,
    target: PathBuf,
    lock: FileLock,
    session: Arc<Session>,
}

impl UnpackDir {
    /// The directory to unpack into: empty, mode 0755.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the directory in place and returns where.
    pub(crate) fn commit(self) -> Result<PathBuf> {
        put_in_place(&self.path, &self.target, &self.lock)?;
        self.session.touch(self.lock.path());
        Ok(self.target.clone())
    }
}

impl Drop for UnpackDir {
    fn drop(&mut self) {
        // Nothing is there after a commit.
        remove_tree(&self.path);
    }
}

/// Answer to a wish for a cache mount.
#[derive(Debug)]
pub(crate) enum CacheDir {
    /// It is there.
    Ready(PathBuf),
    /// There is none yet.
    New(NewCacheDir),
}

/// A cache mount being made, seen by nobody else. Dropped without a commit it is gone.
#[derive(Debug)]
pub(crate) struct NewCacheDir {
    path: PathBuf,
    target: PathBuf,
}

impl NewCacheDir {
    /// The directory to fill: empty.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Puts the directory in place, unless someone else was faster: then that one counts. Returns where it is.
    pub(crate) fn commit(self) -> Result<PathBuf> {
        // A plain rename would replace an empty directory that a step may be using.
        match rustix::fs::renameat_with(CWD, &self.path, CWD, &self.target, RenameFlags::NOREPLACE) {
            Ok(()) | Err(Errno::EXIST) => Ok(self.target.clone()),
            Err(errno) => Err(Error::io("move cache mount into place", &self.target)(errno.into())),
        }
    }
}

impl Drop for NewCacheDir {
    fn drop(&mut self) {
        // Nothing is there after a commit.
        remove_tree(&self.path);
    }
}

impl Store {
    /// Where the layer is unpacked, if it is. From then on it stays as long as this store is open.
    pub(crate) fn unpacked(&self, key: &str) -> Result<Option<PathBuf>> {
        let path = self.unpacked_path(key)?;
        self.session().pin(Pin::Unpacked(key.to_owned()))?;
        if !path.is_dir() {
            return Ok(None);
        }
        self.session().touch(&lock_path(&path));
        Ok(Some(path))
    }

    /// Returns the unpacked layer, or the right to unpack it; waits while someone else does.
    pub(crate) fn begin_unpack(&self, key: &str) -> Result<Unpacking> {
        if let Some(path) = self.unpacked(key)? {
            return Ok(Unpacking::Ready(path));
        }
        let target = self.unpacked_path(key)?;
        let lock = FileLock::wait(&lock_path(&target), After::Keep)?;
        if target.is_dir() {
            self.session().touch(lock.path());
            return Ok(Unpacking::Ready(target));
        }
        let path = self.session().fresh_path("unpack");
        DirBuilder::new().mode(0o755).create(&path).map_err(Error::io("make directory", &path))?;
        Ok(Unpacking::Mine(UnpackDir { path, target, lock, session: self.session().clone() }))
    }

    /// Makes a finished upper directory the unpacked form of its layer, by renaming it. When the layer is there
    /// already, or being unpacked, `upper` stays where it is.
    pub(crate) fn adopt_unpacked(&self, key: &str, upper: &Path) -> Result<()> {
        let target = self.unpacked_path(key)?;
        self.session().pin(Pin::Unpacked(key.to_owned()))?;
        let Some(lock) = FileLock::try_take(&lock_path(&target), After::Keep)? else { return Ok(()) };
        if !target.is_dir() {
            put_in_place(upper, &target, &lock)?;
        }
        self.session().touch(lock.path());
        Ok(())
    }

    fn unpacked_path(&self, key: &str) -> Result<PathBuf> {
        Ok(self.path().join("unpacked").join(plain_key(key)?))
    }

    /// The directory of a cache mount, or one to fill first. It stays as long as this store is open.
    pub(crate) fn cache_mount(&self, key: &str) -> Result<CacheDir> {
        let path = self.mount_path(key)?;
        lock::open(&lock_path(&path))?;
        self.session().touch(&lock_path(&path));
        if path.is_dir() {
            return Ok(CacheDir::Ready(path));
        }
        let fresh = self.session().fresh_path("mount");
        DirBuilder::new().mode(0o755).create(&fresh).map_err(Error::io("make cache mount", &fresh))?;
        Ok(CacheDir::New(NewCacheDir { path: fresh, target: path }))
    }

    fn mount_path(&self, key: &str) -> Result<PathBuf> {
        let path = self.path().join("mounts").join(plain_key(key)?);
        self.session().pin(Pin::Mount(key.to_owned()))?;
        Ok(path)
    }

    /// Waits for a cache mount for oneself alone (`sharing=locked`); `busy` as in [`Store::lock_step`].
    pub(crate) fn lock_cache_mount(
        &self,
        key: &str,
        busy: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<FileLock>> {
        let path = self.mount_path(key)?;
        FileLock::wait_while(&lock_path(&path), After::Keep, busy)
    }
}

/// Path of the lock beside a directory.
pub(super) fn lock_path(dir: &Path) -> PathBuf {
    let mut path = dir.as_os_str().to_owned();
    path.push(".lock");
    path.into()
}

/// Notes the boot and renames. In this order: a directory whose lock says nothing is not trusted after a crash.
fn put_in_place(from: &Path, to: &Path, lock: &FileLock) -> Result<()> {
    let note = |mut file: &fs::File| {
        file.set_len(0)?;
        file.seek(SeekFrom::Start(0))?;
        file.write_all(boot_id().unwrap_or_default().as_bytes())
    };
    note(lock.file()).map_err(Error::io("write", lock.path()))?;
    fs::rename(from, to).map_err(Error::io("move unpacked layer into place", to))
}
