//! Mounts by file descriptor: filesystems are configured, mounted detached and cloned without ever naming a path of
//! the image. Sources: `fsopen(2)`, `fsmount(2)`, `open_tree(2)`, `mount_setattr(2)`, the kernel's `overlayfs.rst`.
//!
//! What takes `&CStr` and returns [`Errno`] neither allocates nor locks, so a child between clone and exec may call it.
//! `mount_setattr` is a raw call because rustix 1.1 has no wrapper for it.
#![allow(unsafe_code, reason = "mount_setattr(2) has no safe wrapper")]

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, open};
use rustix::io::Errno;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, OpenTreeFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_flag, fsconfig_set_string, fsmount, fsopen, move_mount, open_tree,
};

use super::raw;

pub(crate) use rustix::mount::MountAttrFlags as Attributes;

/// How far a clone or a change of attributes reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// One mount.
    Single,
    /// The mount and all mounts below it.
    Recursive,
}

/// A filesystem that is being configured; dropping it forgets it.
#[derive(Debug)]
pub(crate) struct Configuration(OwnedFd);

impl Configuration {
    /// Starts to configure a filesystem of type `name`, in the namespaces of the calling process.
    pub(crate) fn open(name: &CStr) -> Result<Self, Errno> {
        let configuration = fsopen(name, FsOpenFlags::FSOPEN_CLOEXEC).map(Self)?;
        // What stands first in /proc/mounts, by custom the type again.
        configuration.set(c"source", name)?;
        Ok(configuration)
    }

    /// Sets `key=value`. The kernel takes at most 255 bytes of `value` (`EINVAL` beyond).
    pub(crate) fn set(&self, key: &CStr, value: &CStr) -> Result<(), Errno> {
        fsconfig_set_string(self.0.as_fd(), key, value)
    }

    /// Sets the option `key`, which has no value.
    pub(crate) fn set_flag(&self, key: &CStr) -> Result<(), Errno> {
        fsconfig_set_flag(self.0.as_fd(), key)
    }

    /// Creates the filesystem and mounts it, attached nowhere: it vanishes with the descriptor unless
    /// [`attach`]ed. The descriptor is a path handle to its root.
    pub(crate) fn mount(&self, attributes: Attributes) -> Result<OwnedFd, Errno> {
        fsconfig_create(self.0.as_fd())?;
        fsmount(self.0.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
    }

    /// What the kernel wrote about the configuration so far, one message a line; empty when it has nothing to say.
    pub(crate) fn messages(&self) -> String {
        let mut all = String::new();
        let mut message = [0_u8; 512];
        // Each read gives one message, `e text\n`; ENODATA ends them.
        while let Ok(length) = rustix::io::read(&self.0, &mut message) {
            let text = String::from_utf8_lossy(message.get(..length).unwrap_or_default());
            let text = text.trim_end();
            all.push_str(text.get(2..).unwrap_or(text));
            all.push('\n');
        }
        all.truncate(all.trim_end().len());
        all
    }
}

/// Clones the mount that holds `path` below `dir` (`dir` itself when empty), with `path` as its root, attached nowhere.
/// A symlink at the end of `path` is not followed.
pub(crate) fn clone_tree(dir: BorrowedFd<'_>, path: &CStr, reach: Reach) -> Result<OwnedFd, Errno> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE
        | OpenTreeFlags::OPEN_TREE_CLOEXEC
        | OpenTreeFlags::AT_EMPTY_PATH
        | OpenTreeFlags::AT_SYMLINK_NOFOLLOW;
    if reach == Reach::Recursive {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    open_tree(dir, path, flags)
}

/// Clones what stands at a path of this machine; symlinks on the way and at the end are followed.
pub(crate) fn clone_host_tree(path: &Path, reach: Reach) -> Result<OwnedFd, Errno> {
    let handle = open(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
    clone_tree(handle.as_fd(), c"", reach)
}

/// Attaches a detached mount at `name` below `dir` (at `dir` itself when empty). `name` must be a single component of a
/// directory the caller made: it is resolved by the kernel as it stands.
pub(crate) fn attach(mount: BorrowedFd<'_>, dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    move_mount(mount, c"", dir, name, flags)
}

/// Attaches a detached mount at a path of this machine that nobody else can change.
pub(crate) fn attach_at_host_path(mount: BorrowedFd<'_>, path: &CStr) -> Result<(), Errno> {
    move_mount(mount, c"", CWD, path, MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
}

/// Takes away what is mounted at a path of this machine; whoever still uses it keeps it.
pub(crate) fn detach(path: &Path) -> Result<(), Errno> {
    rustix::mount::unmount(path, UnmountFlags::DETACH)
}

/// Adds `set` to the attributes of a mount. Attributes are never taken away, which user namespaces would refuse.
pub(crate) fn restrict(mount: BorrowedFd<'_>, set: Attributes, reach: Reach) -> Result<(), Errno> {
    let attributes = libc::mount_attr { attr_set: u64::from(set.bits()), attr_clr: 0, propagation: 0, userns_fd: 0 };
    mount_setattr(mount, c"", reach, &attributes)
}

/// Stops mounts below the root directory from passing to and from other mount namespaces.
pub(crate) fn stop_propagation() -> Result<(), Errno> {
    let attributes = libc::mount_attr { attr_set: 0, attr_clr: 0, propagation: libc::MS_PRIVATE, userns_fd: 0 };
    mount_setattr(CWD, c"/", Reach::Recursive, &attributes)
}

fn mount_setattr(dir: BorrowedFd<'_>, path: &CStr, reach: Reach, attributes: &libc::mount_attr) -> Result<(), Errno> {
    let mut flags = libc::AT_EMPTY_PATH | libc::AT_SYMLINK_NOFOLLOW;
    if reach == Reach::Recursive {
        flags |= libc::AT_RECURSIVE;
    }
    let (place, length) = (raw::signed(dir.as_raw_fd()), size_of::<libc::mount_attr>());
    let arguments = [place, raw::address(path.as_ptr()), raw::signed(flags), raw::address(attributes), length, 0];
    // SAFETY: `path` is NUL-terminated and `attributes` is a `mount_attr` of the size passed; both outlive the call,
    // and the kernel only reads them.
    unsafe { raw::call(libc::SYS_mount_setattr, arguments) }.map(|_| ())
}

/// The directories of an overlay.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Overlay<'a> {
    /// Layers, top first; at least one.
    pub(crate) lowerdirs: &'a [PathBuf],
    /// Takes what changes.
    pub(crate) upperdir: &'a Path,
    /// An empty directory on the filesystem of `upperdir`.
    pub(crate) workdir: &'a Path,
}

/// Which system calls mount an overlay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OverlayApi {
    /// `fsopen(2)` with one `lowerdir+` a layer (Linux 6.8): up to 500 layers.
    Configuration,
    /// `mount(2)`: all options in one page, about 230 layers.
    Classic,
}

/// Why an overlay was not mounted.
#[derive(Debug, thiserror::Error)]
#[error("mount overlay: {call}{}{messages}", if messages.is_empty() { "" } else { ": " })]
pub(crate) struct OverlayError {
    /// The call that failed, with its option.
    pub(crate) call: String,
    /// The kernel's own words, often empty.
    pub(crate) messages: String,
    /// The error number.
    pub(crate) source: Errno,
}

/// Options of every overlay. `userxattr`: a user namespace may not write `trusted.*`. `volatile`: an fsync of each
/// copied file costs minutes on a journaled filesystem, and a crash discards the upperdir anyway. The others would
/// make the upperdir hold renames and metadata that are no layer (`redirect_dir=off` is refused next to `userxattr`).
const FLAGS: [&CStr; 2] = [c"userxattr", c"volatile"];
const OPTIONS: [(&CStr, &CStr); 3] = [(c"index", c"off"), (c"metacopy", c"off"), (c"redirect_dir", c"nofollow")];

impl Overlay<'_> {
    /// Mounts the overlay, attached nowhere, by the newest way this kernel knows.
    pub(crate) fn mount(&self) -> Result<OwnedFd, OverlayError> {
        match self.mount_with(OverlayApi::Configuration) {
            // A kernel without `lowerdir+` calls it an invalid option, one without the mount API an unknown call.
            Err(error) if matches!(error.source, Errno::INVAL | Errno::NOSYS) => {
                self.mount_with(OverlayApi::Classic).map_err(|_| error)
            }
            result => result,
        }
    }

    /// Mounts the overlay in the given way.
    pub(crate) fn mount_with(&self, api: OverlayApi) -> Result<OwnedFd, OverlayError> {
        match api {
            OverlayApi::Configuration => self.configure(),
            OverlayApi::Classic => self.mount_classic(),
        }
    }

    fn configure(&self) -> Result<OwnedFd, OverlayError> {
        let failed = |call: String, messages: String| move |source| OverlayError { call, messages, source };
        let overlay = Configuration::open(c"overlay").map_err(failed("fsopen".into(), String::new()))?;
        let set = |key: &CStr, value: &CStr| {
            overlay
                .set(key, value)
                .map_err(|source| failed(format!("{}={value:?}", key.to_string_lossy()), overlay.messages())(source))
        };
        // Handles keep the /proc/self/fd paths of long names alive until the kernel has resolved them.
        let mut handles = Vec::new();
        for lowerdir in self.lowerdirs {
            set(c"lowerdir+", &option_path(lowerdir, &mut handles)?)?;
        }
        set(c"upperdir", &option_path(self.upperdir, &mut handles)?)?;
        set(c"workdir", &option_path(self.workdir, &mut handles)?)?;
        for (key, value) in OPTIONS {
            set(key, value)?;
        }
        for flag in FLAGS {
            overlay
                .set_flag(flag)
                .map_err(|source| failed(flag.to_string_lossy().into_owned(), overlay.messages())(source))?;
        }
        overlay
            .mount(MountAttrFlags::empty())
            .map_err(|source| failed(format!("fsmount of {:?}", self.upperdir), overlay.messages())(source))
    }

    /// `mount(2)` attaches, so the overlay stands on its own workdir for a moment, until a detached clone is made.
    fn mount_classic(&self) -> Result<OwnedFd, OverlayError> {
        let failed = |call: &str| {
            let call = format!("{call} on {:?}", self.workdir);
            move |source| OverlayError { call, messages: String::new(), source }
        };
        let mut handles = Vec::new();
        let lowerdirs = self
            .lowerdirs
            .iter()
            .map(|lowerdir| descriptor_path(lowerdir, &mut handles))
            .collect::<Result<Vec<_>, _>>()?
            .join(":");
        let upperdir = descriptor_path(self.upperdir, &mut handles)?;
        let workdir = descriptor_path(self.workdir, &mut handles)?;
        let mut options = format!("lowerdir={lowerdirs},upperdir={upperdir},workdir={workdir}");
        for (key, value) in OPTIONS {
            options.push_str(&format!(",{}={}", key.to_string_lossy(), value.to_string_lossy()));
        }
        for flag in FLAGS {
            options.push_str(&format!(",{}", flag.to_string_lossy()));
        }
        let options = CString::new(options).map_err(|_| failed("mount")(Errno::INVAL))?;
        rustix::mount::mount(c"overlay", self.workdir, c"overlay", MountFlags::empty(), options.as_c_str())
            .map_err(failed("mount"))?;
        let clone = clone_host_tree(self.workdir, Reach::Single).map_err(failed("open_tree"));
        rustix::mount::unmount(self.workdir, UnmountFlags::DETACH).map_err(failed("umount2"))?;
        clone
    }
}

/// `path` as an option's value: itself, or through a descriptor when it is too long for `fsconfig(2)` or has a
/// character that overlayfs would unescape.
fn option_path(path: &Path, handles: &mut Vec<OwnedFd>) -> Result<CString, OverlayError> {
    let bytes = path.as_os_str().as_bytes();
    let plain = bytes.len() < 256 && path.is_absolute() && !bytes.iter().any(|byte| b"\\,:".contains(byte));
    let text = if plain { bytes.to_vec() } else { descriptor_path(path, handles)?.into_bytes() };
    CString::new(text).map_err(|_| OverlayError {
        call: format!("path {path:?}"),
        messages: String::new(),
        source: Errno::INVAL,
    })
}

fn descriptor_path(path: &Path, handles: &mut Vec<OwnedFd>) -> Result<String, OverlayError> {
    let handle = open(path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
        .map_err(|source| OverlayError { call: format!("open {path:?}"), messages: String::new(), source })?;
    let text = format!("/proc/self/fd/{}", handle.as_raw_fd());
    handles.push(handle);
    Ok(text)
}
