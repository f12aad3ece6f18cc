//! The directory a layer is unpacked into: every operation below a handle of it.
//!
//! Paths come from [`super::super::changeset`], which has resolved symlinks on its model; here they are opened one
//! component at a time from a directory handle, with `O_NOFOLLOW`, and a component is never `..`. So no name can lead
//! out, whatever the archive or a mistake in the model says; and no kernel without `openat2` needs another way.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, XattrFlags};
use rustix::io::Errno;

use super::super::changeset::Was;
use super::super::{Error, Result};
use super::{NODE_XATTR, OPAQUE_XATTR};
use crate::tree::Kind;
use crate::tree::path::{file_name, parent, strip_dir};

/// Most directories held open; deeper ones are opened again when needed. Far below the usual limit of 1024 files.
const MAX_OPEN: usize = 48;

/// A directory being filled. Nobody else writes in it.
#[derive(Debug)]
pub(super) struct Disk {
    root: OwnedFd,
    /// Directories on the way to the last path: each below the one before, with its path.
    open: Vec<(Vec<u8>, OwnedFd)>,
}

/// How a node came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Made {
    /// As it should be.
    Real,
    /// As an empty file with [`NODE_XATTR`].
    StandIn,
}

impl Disk {
    /// Works below `dir`.
    pub(super) fn open(dir: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, dir, flags, Mode::empty());
        let root = root.map_err(|errno| Error::OpenDirectory { path: dir.to_owned(), source: errno.into() })?;
        Ok(Self { root, open: Vec::new() })
    }

    /// Creates a regular file, open for writing, mode 0600.
    pub(super) fn create_file(&mut self, path: &[u8]) -> Result<File> {
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR);
        file.map(File::from).map_err(failed("create", path))
    }

    /// Creates a directory, mode 0700 until its metadata is set.
    pub(super) fn create_dir(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        rustix::fs::mkdirat(dir, name, Mode::RWXU).map_err(failed("make directory", path))
    }

    /// Creates what is neither a file nor a directory. A device that may not be created becomes a stand-in.
    pub(super) fn create_node(&mut self, path: &[u8], kind: &Kind) -> Result<Made> {
        let (dir, name) = self.parent(path)?;
        let mode = Mode::RUSR | Mode::WUSR;
        let result = match kind {
            Kind::Symlink { target } => rustix::fs::symlinkat(OsStr::from_bytes(target), dir, name),
            Kind::Fifo => rustix::fs::mknodat(dir, name, FileType::Fifo, mode, 0),
            // To overlayfs this one is a whiteout.
            Kind::CharDevice { major: 0, minor: 0 } => return self.create_stand_in(path, "c 0 0"),
            Kind::CharDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                match rustix::fs::mknodat(dir, name, FileType::CharacterDevice, mode, device) {
                    Err(Errno::PERM) => return self.create_stand_in(path, &format!("c {major} {minor}")),
                    result => result,
                }
            }
            Kind::BlockDevice { major, minor } => {
                let device = rustix::fs::makedev(*major, *minor);
                match rustix::fs::mknodat(dir, name, FileType::BlockDevice, mode, device) {
                    Err(Errno::PERM) => return self.create_stand_in(path, &format!("b {major} {minor}")),
                    result => result,
                }
            }
            Kind::Directory { .. } | Kind::File { .. } | Kind::Hardlink { .. } | Kind::Whiteout => Err(Errno::INVAL),
        };
        result.map(|()| Made::Real).map_err(failed("make node", path))
    }

    fn create_stand_in(&mut self, path: &[u8], node: &str) -> Result<Made> {
        let file = self.create_file(path)?;
        rustix::fs::fsetxattr(&file, NODE_XATTR, node.as_bytes(), XattrFlags::empty())
            .map_err(failed("record device number of", path))?;
        Ok(Made::StandIn)
    }

    /// Creates the mark of a deleted path.
    pub(super) fn create_whiteout(&mut self, path: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(path)?;
        // Device 0:0 is no device: no capability is needed, also in a user namespace (Linux 5.8).
        rustix::fs::mknodat(dir, name, FileType::CharacterDevice, Mode::empty(), 0)
            .map_err(failed("make whiteout", path))
    }

    /// Creates a further name of `target`, which may be a symlink and is not followed.
    pub(super) fn link(&mut self, path: &[u8], target: &[u8]) -> Result<()> {
        let (dir, name) = self.parent(target)?;
        // The other lookup moves the open directories.
        let target_dir =
            dir.try_clone_to_owned().map_err(|source| unpack_error("open directory of", target, source))?;
        let (dir, new_name) = self.parent(path)?;
        rustix::fs::linkat(target_dir, name, dir, new_name, AtFlags::empty()).map_err(failed("link", path))
    }

    /// Removes what is at `path`; a directory must be empty.
    pub(super) fn remove(&mut self, path: &[u8], was: Was) -> Result<()> {
        self.open.retain(|(open, _)| open != path);
        let (dir, name) = self.parent(path)?;
        let flags = if was == Was::Directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        rustix::fs::unlinkat(dir, name, flags).map_err(failed("remove", path))
    }

    /// Opens an existing file or directory, never through a symlink.
    pub(super) fn open_existing(&mut self, path: &[u8]) -> Result<OwnedFd> {
        if path.is_empty() {
            return self.root.try_clone().map_err(|source| unpack_error("open", path, source));
        }
        let (dir, name) = self.parent(path)?;
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
        rustix::fs::openat(dir, name, flags, Mode::empty()).map_err(failed("open", path))
    }

    /// Makes a directory hide what lower layers have in it.
    pub(super) fn set_opaque(directory: BorrowedFd<'_>, path: &[u8]) -> Result<()> {
        rustix::fs::fsetxattr(directory, OPAQUE_XATTR, b"y", XattrFlags::empty()).map_err(failed("make opaque", path))
    }

    /// The directory of `path`, open, and the last component.
    pub(super) fn parent<'p>(&mut self, path: &'p [u8]) -> Result<(BorrowedFd<'_>, &'p OsStr)> {
        let dir = self.directory(parent(path).unwrap_or_default())?;
        Ok((dir, OsStr::from_bytes(file_name(path))))
    }

    fn directory(&mut self, path: &[u8]) -> Result<BorrowedFd<'_>> {
        while let Some((open, _)) = self.open.last()
            && open != path
            && strip_dir(path, open).is_none()
        {
            self.open.pop();
        }
        let mut len = self.open.last().map_or(0, |(open, _)| open.len());
        while len < path.len() {
            let start = if len == 0 { 0 } else { len + 1 };
            len = path[start..].iter().position(|byte| *byte == b'/').map_or(path.len(), |at| start + at);
            let above = self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd());
            let flags = OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::PATH | OFlags::CLOEXEC;
            let opened = rustix::fs::openat(above, OsStr::from_bytes(&path[start..len]), flags, Mode::empty());
            let opened = opened.map_err(failed("open directory", &path[..len]))?;
            if self.open.len() == MAX_OPEN {
                self.open.pop();
            }
            self.open.push((path[..len].to_vec(), opened));
        }
        Ok(self.open.last().map_or(self.root.as_fd(), |(_, fd)| fd.as_fd()))
    }
}

/// Wraps the error of a system call.
pub(super) fn failed(operation: &'static str, path: &[u8]) -> impl FnOnce(Errno) -> Error {
    let path = path.to_vec();
    move |errno| unpack_error(operation, &path, errno.into())
}

/// Wraps the error of an operation.
pub(super) fn unpack_error(operation: &'static str, path: &[u8], source: io::Error) -> Error {
    Error::Unpack { operation, path: path.to_vec(), source }
}
