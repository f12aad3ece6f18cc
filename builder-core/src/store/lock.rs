//! Advisory locks on files: `flock`, so a lock dies with the last handle of its owner and never needs breaking.
//!
//! Invariant: who holds the lock of a path holds it on the inode that stands at the path *now*. A file may be
//! unlinked only by its lock's holder; whoever waited on the old inode notices and starts over with the new one.

use std::fs::{self, File, TryLockError};
use std::io;
use std::ops::ControlFlow;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::error::{Error, Result};

/// How often a busy lock is tried again while the caller may want to give up.
const RETRY: Duration = Duration::from_millis(20);

/// What becomes of the file when the lock is let go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum After {
    /// It stays: others depend on its content or time, or it is locked all the time.
    Keep,
    /// It is removed, so that locks leave nothing behind.
    Remove,
}

/// An exclusive lock on a file, held until dropped.
#[derive(Debug)]
pub(crate) struct FileLock {
    file: File,
    path: PathBuf,
    after: After,
}

impl FileLock {
    /// Waits for the lock of `path`, which is made when missing.
    pub(super) fn wait(path: &Path, after: After) -> Result<Self> {
        loop {
            let file = open(path)?;
            file.lock().map_err(Error::io("lock", path))?;
            if is_at(&file, path)? {
                return Ok(Self { file, path: path.to_owned(), after });
            }
        }
    }

    /// Takes the lock of `path`, or returns `None` when someone else holds it.
    pub(super) fn try_take(path: &Path, after: After) -> Result<Option<Self>> {
        loop {
            let file = open(path)?;
            match file.try_lock() {
                Ok(()) if is_at(&file, path)? => return Ok(Some(Self { file, path: path.to_owned(), after })),
                Ok(()) => {}
                Err(TryLockError::WouldBlock) => return Ok(None),
                Err(TryLockError::Error(source)) => return Err(Error::io("lock", path)(source)),
            }
        }
    }

    /// Waits for the lock and calls `busy` whenever it is not free; `None` as soon as that breaks.
    pub(super) fn wait_while(
        path: &Path,
        after: After,
        busy: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<Self>> {
        loop {
            if let Some(lock) = Self::try_take(path, after)? {
                return Ok(Some(lock));
            }
            if busy().is_break() {
                return Ok(None);
            }
            std::thread::sleep(RETRY);
        }
    }

    /// The locked file.
    pub(super) fn file(&self) -> &File {
        &self.file
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for FileLock {
    /// Removes the file first: whoever takes the lock afterwards must find it gone.
    fn drop(&mut self) {
        if self.after == After::Remove {
            // A file that cannot be removed is a leftover that the next sweep looks at, not a failure.
            fs::remove_file(&self.path).ok();
        }
        unlock(&self.file);
    }
}

/// A lock on a file that is never removed, shared or exclusive, held until dropped.
///
/// Each holder has an open file of its own: locks of one are not counted, the first thread to let go would do so for
/// all.
#[derive(Debug)]
pub(super) struct StandingLock(File);

impl StandingLock {
    /// Waits for an exclusive lock.
    pub(super) fn exclusive(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock().map_err(Error::io("lock", path))?;
        Ok(Self(file))
    }

    /// Takes an exclusive lock, or returns `None` when someone else holds any.
    pub(super) fn try_exclusive(path: &Path) -> Result<Option<Self>> {
        let file = open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(source)) => Err(Error::io("lock", path)(source)),
        }
    }

    /// Waits until nobody holds an exclusive lock.
    pub(super) fn shared(path: &Path) -> Result<Self> {
        let file = open(path)?;
        file.lock_shared().map_err(Error::io("lock", path))?;
        Ok(Self(file))
    }
}

impl Drop for StandingLock {
    fn drop(&mut self) {
        unlock(&self.0);
    }
}

/// Lets a lock go. Closing is not enough: a process cloned meanwhile holds the same open file until it executes.
pub(super) fn unlock(file: &File) {
    // It only fails for what is no open file.
    file.unlock().ok();
}

/// Opens a lock file for reading and writing, made when missing.
pub(super) fn open(path: &Path) -> Result<File> {
    File::options().read(true).write(true).create(true).truncate(false).open(path).map_err(Error::io("open lock", path))
}

/// Whether `path` still names the open file.
fn is_at(file: &File, path: &Path) -> Result<bool> {
    let ours = file.metadata().map_err(Error::io("stat", path))?;
    match fs::symlink_metadata(path) {
        Ok(there) => Ok((there.dev(), there.ino()) == (ours.dev(), ours.ino())),
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(e) => Err(Error::io("stat", path)(e)),
    }
}
