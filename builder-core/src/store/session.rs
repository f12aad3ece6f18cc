//! One open store: its work directory and its *pins*, the things that it has used and that gc must leave alone.
//!
//! ```text
//! locks/gc                 shared for the instant in which something is pinned, exclusive while gc chooses
//! tmp/<session>/session    flocked while the session lives; one pin a line
//! tmp/<session>/…          blobs being written, layers being unpacked, work directories of steps, trash
//! ```
//!
//! Why gc can run beside builds: a build pins a name *before* it looks whether the thing is there. Either gc chose
//! earlier, then the thing is gone and the build sees a miss; or gc chooses later, then it reads the pin. A pin ends
//! with its session: the lock dies with the process, and the next [`Session::start`] sweeps the directory. No clocks,
//! no process ids.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, DirBuilder, File, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_OMIT};

use super::error::{Error, Result};
use super::lock::{StandingLock, unlock};
use super::remove::{Removed, remove_tree};
use crate::digest::{CacheKey, DiffId, Digest};

/// Name of the file with lock and pins in a session's directory.
const SESSION_FILE: &str = "session";

/// Something that a session uses and gc must not take away.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Pin {
    /// One blob.
    Blob(Digest),
    /// A manifest or index with all that it reaches.
    Image(Digest),
    /// The tree of a layer.
    Tree(DiffId),
    /// An unpacked layer.
    Unpacked(String),
    /// A step record with the layers that it names.
    Record(CacheKey),
    /// A cache mount.
    Mount(String),
}

impl fmt::Display for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Blob(digest) => write!(f, "blob {}", digest.hex()),
            Self::Image(digest) => write!(f, "image {}", digest.hex()),
            Self::Tree(id) => write!(f, "tree {}", id.0.hex()),
            Self::Unpacked(key) => write!(f, "unpacked {key}"),
            Self::Record(key) => write!(f, "record {key}"),
            Self::Mount(key) => write!(f, "mount {key}"),
        }
    }
}

/// An open session.
#[derive(Debug)]
pub(super) struct Session {
    root: PathBuf,
    dir: PathBuf,
    /// Holds the lock.
    file: File,
    pins: Mutex<HashSet<Pin>>,
    serial: AtomicU64,
    started: Duration,
}

impl Session {
    /// Starts a session in the state directory `root`.
    pub(super) fn start(root: &Path) -> Result<Self> {
        let started = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let tmp = root.join("tmp");
        // Between mkdir and flock the directory looks dead; gc and sweeps choose under the exclusive lock only.
        let guard = shared_gc_lock(root)?;
        let mut attempt = 0_u32;
        let dir = loop {
            let dir = tmp.join(format!("{:x}-{:x}-{attempt:x}", started.as_nanos(), std::process::id()));
            match DirBuilder::new().mode(0o700).create(&dir) {
                Ok(()) => break dir,
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => attempt += 1,
                Err(e) => return Err(Error::io("make session directory", dir)(e)),
            }
        };
        let path = dir.join(SESSION_FILE);
        let file = File::options().append(true).create_new(true).open(&path).map_err(Error::io("create", &path))?;
        file.lock().map_err(Error::io("lock", &path))?;
        drop(guard);
        let pins = Mutex::default();
        Ok(Self { root: root.to_owned(), dir, file, pins, serial: AtomicU64::new(0), started })
    }

    /// The state directory.
    pub(super) fn root(&self) -> &Path {
        &self.root
    }

    /// A path for something new in the session's directory.
    pub(super) fn fresh_path(&self, prefix: &str) -> PathBuf {
        self.dir.join(format!("{prefix}-{}", self.serial.fetch_add(1, Ordering::Relaxed)))
    }

    /// Keeps `pin` from gc until the session ends. Idempotent and cheap after the first time. Returns whether this was
    /// the first time.
    pub(super) fn pin(&self, pin: Pin) -> Result<bool> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if pins.contains(&pin) {
            return Ok(false);
        }
        let guard = shared_gc_lock(&self.root)?;
        (&self.file).write_all(format!("{pin}\n").as_bytes()).map_err(Error::io("write pins", &self.dir))?;
        pins.insert(pin);
        drop(guard);
        Ok(true)
    }

    /// Lets go of every pin: what was used may be removed again.
    pub(super) fn unpin_all(&self) -> Result<()> {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        self.file.set_len(0).map_err(Error::io("clear pins", &self.dir))?;
        pins.clear();
        Ok(())
    }

    /// Notes on `path` that it was used, for gc to take the least recently used first.
    ///
    /// The modification time becomes the start of the session less one nanosecond for each use: of two things used in
    /// one session the later used is the older. Steps are used in order, so a chain of them is taken from its end,
    /// and never loses its beginning while its end stays and can no longer be reached.
    pub(super) fn touch(&self, path: &Path) {
        let order = Duration::from_nanos(self.serial.fetch_add(1, Ordering::Relaxed));
        let stamp = self.started.saturating_sub(order);
        let times = Timestamps {
            last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
            last_modification: Timespec {
                tv_sec: i64::try_from(stamp.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: stamp.subsec_nanos().into(),
            },
        };
        // A stamp that cannot be written costs a worse choice in gc, nothing else.
        rustix::fs::utimensat(CWD, path, &times, AtFlags::empty()).ok();
    }

    /// Removes what dead sessions left, if nobody else is choosing right now.
    pub(super) fn sweep(&self) -> Result<Removed> {
        let Some(gc) = StandingLock::try_exclusive(&gc_lock_path(&self.root))? else {
            return Ok(Removed::default());
        };
        let dead = dead_sessions(&self.root)?;
        drop(gc);
        Ok(dead.into_iter().map(DeadSession::remove).fold(Removed::default(), Removed::and))
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        remove_tree(&self.dir);
        unlock(&self.file);
    }
}

impl Removed {
    /// Adds up two removals.
    pub(super) fn and(self, other: Self) -> Self {
        Self { bytes: self.bytes + other.bytes, left: self.left + other.left }
    }
}

/// A directory of a session that no longer lives, locked so that only one process removes it.
#[derive(Debug)]
pub(super) struct DeadSession {
    path: PathBuf,
    _lock: Option<File>,
}

impl DeadSession {
    /// Removes it as far as this process may.
    pub(super) fn remove(self) -> Removed {
        remove_tree(&self.path)
    }
}

/// Path of the lock that orders pinning and gc.
pub(super) fn gc_lock_path(root: &Path) -> PathBuf {
    root.join("locks/gc")
}

/// Waits until no gc is choosing, and keeps the next one waiting while the handle lives.
fn shared_gc_lock(root: &Path) -> Result<StandingLock> {
    StandingLock::shared(&gc_lock_path(root))
}

/// The sessions in `tmp/`. To be called under the exclusive gc lock.
fn sessions(root: &Path) -> Result<Vec<PathBuf>> {
    let tmp = root.join("tmp");
    let entries = fs::read_dir(&tmp).map_err(Error::io("list", &tmp))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

/// Finds sessions whose owner is gone. To be called under the exclusive gc lock.
pub(super) fn dead_sessions(root: &Path) -> Result<Vec<DeadSession>> {
    let dead = |path: PathBuf| match File::options().append(true).open(path.join(SESSION_FILE)) {
        Ok(file) => file.try_lock().is_ok().then_some(DeadSession { path, _lock: Some(file) }),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            Some(DeadSession { path, _lock: None })
        }
        Err(_) => None,
    };
    Ok(sessions(root)?.into_iter().filter_map(dead).collect())
}

/// Collects the pins of all live sessions, this one included. To be called under the exclusive gc lock.
pub(super) fn live_pins(root: &Path) -> Result<HashSet<String>> {
    let mut pins = HashSet::new();
    for path in sessions(root)? {
        let path = path.join(SESSION_FILE);
        let Ok(file) = File::options().read(true).append(true).open(&path) else { continue };
        if matches!(file.try_lock(), Err(TryLockError::WouldBlock)) {
            // From the open file: its session may end, and remove it, in this very moment.
            let text = io::read_to_string(&file).map_err(Error::io("read pins", &path))?;
            pins.extend(text.lines().map(str::to_owned));
        }
    }
    Ok(pins)
}
