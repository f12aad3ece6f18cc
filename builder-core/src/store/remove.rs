//! Removal of whole trees that steps left: directories without any permission, foreign owners, any depth.
//!
//! Works below directory handles, never follows a symbolic link and never crosses a mount: a bind mount that a killed
//! build left in a rootfs may lead to the user's own files. What cannot be removed (files of subordinate ids,
//! seen from outside the namespace that maps them) is left alone and told, not an error: the next run that may remove
//! it does.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::fs::{AtFlags, CWD, Dir, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;

/// Directory handles held at once; deeper directories are moved up first.
const MAX_DEPTH: usize = 64;

/// What a removal did.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Removed {
    /// Bytes that the file system got back (allocated blocks of inodes whose last name went).
    pub(crate) bytes: u64,
    /// Entries that are still there.
    pub(crate) left: u64,
}

/// Removes `path` and all below it. A missing path is nothing to do.
pub(crate) fn remove_tree(path: &Path) -> Removed {
    let mut job = Job::default();
    let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return job.done };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let name = std::ffi::CString::new(std::os::unix::ffi::OsStrExt::as_bytes(name));
    let (Ok(top), Ok(name)) = (rustix::fs::openat(CWD, parent, flags, Mode::empty()), name) else { return job.done };
    job.remove_entry(top.as_fd(), top.as_fd(), &name, 0);
    while let Some(name) = job.moved_up.pop() {
        job.remove_entry(top.as_fd(), top.as_fd(), &name, 0);
    }
    job.done
}

#[derive(Default)]
struct Job {
    done: Removed,
    /// Directories that were too deep, now beside the tree that is being removed.
    moved_up: Vec<std::ffi::CString>,
}

impl Job {
    fn remove_entry(&mut self, top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr, depth: usize) {
        let stat = match rustix::fs::statat(dir, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => stat,
            Err(Errno::NOENT) => return,
            Err(_) => return self.done.left += 1,
        };
        if FileType::from_raw_mode(stat.st_mode) != FileType::Directory {
            return self.unlink(dir, name, AtFlags::empty(), &stat);
        }
        if depth >= MAX_DEPTH && self.move_up(top, dir, name) {
            return;
        }
        if let Some(fd) = open_dir(dir, name) {
            self.empty(top, &fd, depth);
        }
        self.unlink(dir, name, AtFlags::REMOVEDIR, &stat);
    }

    fn unlink(&mut self, dir: BorrowedFd<'_>, name: &CStr, flags: AtFlags, stat: &Stat) {
        match rustix::fs::unlinkat(dir, name, flags) {
            Ok(()) if flags == AtFlags::REMOVEDIR || stat.st_nlink == 1 => self.done.bytes += allocated(stat),
            Ok(()) | Err(Errno::NOENT) => {}
            Err(_) => self.done.left += 1,
        }
    }

    /// Removes what is in a directory. Names are taken in rounds, because removing while reading may skip some.
    fn empty(&mut self, top: BorrowedFd<'_>, dir: &OwnedFd, depth: usize) {
        loop {
            let left = self.done.left;
            let Ok(entries) = Dir::read_from(dir) else { return };
            let mut found = false;
            for entry in entries.flatten() {
                let name = entry.file_name();
                if name != c"." && name != c".." {
                    found = true;
                    self.remove_entry(top, dir.as_fd(), name, depth + 1);
                }
            }
            if !found || self.done.left > left {
                return;
            }
        }
    }

    fn move_up(&mut self, top: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> bool {
        static SERIAL: AtomicU64 = AtomicU64::new(0);
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let Ok(new_name) = std::ffi::CString::new(format!("deep-{}-{serial}", std::process::id())) else {
            return false;
        };
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        let moved = rustix::fs::renameat_with(dir, name, top, &new_name, flags).is_ok();
        if moved {
            self.moved_up.push(new_name);
        }
        moved
    }
}

/// Opens a directory for reading and removing, after giving its owner all permissions when it has to.
fn open_dir(parent: BorrowedFd<'_>, name: &CStr) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = match open_same_mount(parent, name, flags) {
        Err(Errno::ACCESS) => {
            // fchmod refuses O_PATH handles and chmod by name follows links; the magic link names this very inode.
            let handle = open_same_mount(parent, name, flags | OFlags::PATH).ok()?;
            rustix::fs::chmod(format!("/proc/self/fd/{}", handle.as_raw_fd()), Mode::RWXU).ok()?;
            open_same_mount(parent, name, flags).ok()?
        }
        other => other.ok()?,
    };
    let mode = Mode::from_raw_mode(rustix::fs::fstat(&fd).ok()?.st_mode);
    if !mode.contains(Mode::RWXU) {
        // Refused for a directory of someone else: then removing below it fails and is counted there.
        rustix::fs::fchmod(&fd, Mode::RWXU).ok();
    }
    Some(fd)
}

/// Opens `name` unless something is mounted there.
fn open_same_mount(parent: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let resolve = ResolveFlags::NO_XDEV | ResolveFlags::NO_SYMLINKS;
    match rustix::fs::openat2(parent, name, flags, Mode::empty(), resolve) {
        // Before Linux 5.6, or refused by a seccomp filter that does not know it.
        Err(Errno::NOSYS | Errno::PERM) => {
            let fd = rustix::fs::openat(parent, name, flags, Mode::empty())?;
            let same = rustix::fs::fstat(&fd)?.st_dev == rustix::fs::fstat(parent)?.st_dev;
            if same { Ok(fd) } else { Err(Errno::XDEV) }
        }
        result => result,
    }
}

/// Bytes of the blocks that an inode occupies.
pub(super) fn allocated(stat: &Stat) -> u64 {
    u64::try_from(stat.st_blocks).unwrap_or(0) * 512
}
