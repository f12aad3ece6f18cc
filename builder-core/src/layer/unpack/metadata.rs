//! Owner, mode, attributes and times, in this order: changing the owner clears setuid bits and capabilities, and
//! everything else changes times.

use std::ffi::OsStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;

use rustix::fs::{AtFlags, Gid, Mode, Timespec, Timestamps, UTIME_OMIT, Uid, XattrFlags};
use rustix::io::Errno;

use super::super::Result;
use super::OWNER_XATTR;
use super::disk::failed;
use crate::tree::path::show;
use crate::tree::{Kind, Metadata, Timestamp, Xattrs};

/// Notes kept of one layer; a layer for a host that lacks something has one for each of its files.
const MAX_NOTES: usize = 100;

/// Something of a layer that could not be done on this host. The layer's tree still says what it should be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub(crate) enum Note {
    /// An extended attribute that the file system or the kernel refuses.
    Xattr {
        /// Path in the layer.
        path: Vec<u8>,
        /// Name of the attribute.
        name: Vec<u8>,
        /// Why, as an error number.
        errno: i32,
    },
    /// An owner outside the id map.
    Owner {
        /// Path in the layer.
        path: Vec<u8>,
        /// User.
        uid: u32,
        /// Group.
        gid: u32,
    },
    /// A device node that is an empty file.
    Node {
        /// Path in the layer.
        path: Vec<u8>,
    },
}

/// Whether the object was made a moment ago by this process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Age {
    /// Its owner is the process.
    New,
    /// Its owner may be anyone.
    Existing,
}

/// What could not be done as the layers say, a line for each kind with its first case: the layers themselves stay as
/// they are, only commands see something else.
pub(crate) fn describe_notes(notes: &[Note]) -> Vec<String> {
    let shown = |path: &Vec<u8>| format!("{:?}", show(path));
    let mut owners = Vec::new();
    let mut nodes = Vec::new();
    let mut attributes = Vec::new();
    for note in notes {
        match note {
            Note::Owner { path, uid, gid } => owners.push(format!("{} of {uid}:{gid}", shown(path))),
            // What is in `/dev` is hidden by the command's own `/dev` anyway.
            Note::Node { path } if path.starts_with(b"dev/") => {}
            Note::Node { path } => nodes.push(shown(path)),
            Note::Xattr { path, name, errno } => {
                let error = std::io::Error::from_raw_os_error(*errno);
                attributes.push(format!("{} of {} ({error})", name.escape_ascii(), shown(path)));
            }
        }
    }
    let line = |what: &str, cases: &[String]| match cases {
        [] => None,
        [one] => Some(format!("{what}: {one}")),
        [first, rest @ ..] => Some(format!("{what}: {first} and {} more", rest.len())),
    };
    [
        line("owners outside the id map, commands see root as their owner", &owners),
        line("device nodes that cannot be made here, commands see empty files", &nodes),
        line("extended attributes that cannot be set here", &attributes),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// Sets metadata and notes what cannot be set.
#[derive(Debug)]
pub(super) struct Setter {
    own: (u32, u32),
    notes: Vec<Note>,
}

impl Setter {
    /// Starts without notes.
    pub(super) fn new() -> Self {
        let own = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        Self { own, notes: Vec::new() }
    }

    /// Returns the notes.
    pub(super) fn into_notes(self) -> Vec<Note> {
        self.notes
    }

    /// Adds a note, unless there are many already.
    pub(super) fn note(&mut self, note: Note) {
        if self.notes.len() < MAX_NOTES {
            self.notes.push(note);
        }
    }

    /// Sets everything of an open file or directory.
    pub(super) fn set(&mut self, file: BorrowedFd<'_>, path: &[u8], meta: &Metadata, age: Age) -> Result<()> {
        if age == Age::Existing || (meta.uid, meta.gid) != self.own {
            let changed = rustix::fs::fchown(file, Some(uid(meta)), Some(gid(meta)));
            if self.is_unmapped(changed, path, meta)? {
                let owner = format!("{}:{}", meta.uid, meta.gid);
                let recorded = rustix::fs::fsetxattr(file, OWNER_XATTR, owner.as_bytes(), XattrFlags::empty());
                self.check_xattr(recorded, path, OWNER_XATTR.as_bytes())?;
            }
        }
        rustix::fs::fchmod(file, Mode::from_raw_mode(meta.mode)).map_err(failed("change mode of", path))?;
        for (name, value) in &meta.xattrs {
            let set = rustix::fs::fsetxattr(file, OsStr::from_bytes(name), value, XattrFlags::empty());
            self.check_xattr(set, path, name)?;
        }
        rustix::fs::futimens(file, &times(meta.mtime)).map_err(failed("set times of", path))
    }

    /// Sets everything of what cannot be opened without a side effect: a symlink, a device or a pipe.
    pub(super) fn set_at(
        &mut self,
        (dir, name): (BorrowedFd<'_>, &OsStr),
        path: &[u8],
        kind: &Kind,
        meta: &Metadata,
    ) -> Result<()> {
        let changed = rustix::fs::chownat(dir, name, Some(uid(meta)), Some(gid(meta)), AtFlags::SYMLINK_NOFOLLOW);
        // A user attribute to record the owner in can be on files and directories only.
        self.is_unmapped(changed, path, meta)?;
        if !matches!(kind, Kind::Symlink { .. }) {
            // Follows symlinks, but this is none and nobody else is here.
            let mode = Mode::from_raw_mode(meta.mode);
            rustix::fs::chmodat(dir, name, mode, AtFlags::empty()).map_err(failed("change mode of", path))?;
        }
        self.set_xattrs_at(dir, name, path, &meta.xattrs)?;
        rustix::fs::utimensat(dir, name, &times(meta.mtime), AtFlags::SYMLINK_NOFOLLOW)
            .map_err(failed("set times of", path))
    }

    fn set_xattrs_at(&mut self, dir: BorrowedFd<'_>, name: &OsStr, path: &[u8], xattrs: &Xattrs) -> Result<()> {
        if xattrs.is_empty() {
            return Ok(());
        }
        // There is no call with a directory handle before Linux 6.13; the handle's own name leads there as well.
        let mut link = format!("/proc/self/fd/{}/", dir.as_fd().as_raw_fd()).into_bytes();
        link.extend_from_slice(name.as_bytes());
        for (name, value) in xattrs {
            let set = rustix::fs::lsetxattr(&link[..], OsStr::from_bytes(name), value, XattrFlags::empty());
            self.check_xattr(set, path, name)?;
        }
        Ok(())
    }

    /// Whether the owner is one that this process cannot give: outside the id map, or without privilege.
    fn is_unmapped(&mut self, changed: rustix::io::Result<()>, path: &[u8], meta: &Metadata) -> Result<bool> {
        match changed {
            Ok(()) => Ok(false),
            Err(Errno::INVAL | Errno::PERM) => {
                self.note(Note::Owner { path: path.to_vec(), uid: meta.uid, gid: meta.gid });
                Ok(true)
            }
            Err(errno) => Err(failed("change owner of", path)(errno)),
        }
    }

    fn check_xattr(&mut self, set: rustix::io::Result<()>, path: &[u8], name: &[u8]) -> Result<()> {
        match set {
            Err(errno @ (Errno::PERM | Errno::OPNOTSUPP | Errno::INVAL)) => {
                self.note(Note::Xattr { path: path.to_vec(), name: name.to_vec(), errno: errno.raw_os_error() });
                Ok(())
            }
            result => result.map_err(failed("set extended attribute of", path)),
        }
    }
}

fn uid(meta: &Metadata) -> Uid {
    // Not u32::MAX, which would mean "leave": no tree entry has that (`tar` refuses it).
    Uid::from_raw_unchecked(meta.uid)
}

fn gid(meta: &Metadata) -> Gid {
    Gid::from_raw_unchecked(meta.gid)
}

/// The modification time; the access time stays, for nobody looks at it and an older one would be written again.
fn times(mtime: Timestamp) -> Timestamps {
    Timestamps {
        last_access: Timespec { tv_sec: 0, tv_nsec: UTIME_OMIT },
        last_modification: Timespec { tv_sec: mtime.secs, tv_nsec: mtime.nanos.into() },
    }
}
