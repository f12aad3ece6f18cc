//! Filesystems of our own that a step gets: its `/dev`, small files with given content, scratch space. All are new, so names on
//! them are resolved as they stand.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::fs::{Gid, Mode, OFlags, Uid};
use rustix::io::Errno;

use super::super::error::Error;
use super::super::spec::{Mount, Spec};
use super::{NOSUID, failed};
use crate::sys::mount::{Attributes, Configuration};

/// Device nodes that programs take for granted. `tty` is missing where the build runs without one.
pub(super) const DEVICES: [&CStr; 6] = [c"null", c"zero", c"full", c"random", c"urandom", c"tty"];
/// Symbolic links of `/dev`, name and target.
const DEVICE_LINKS: [(&CStr, &CStr); 6] = [
    (c"fd", c"/proc/self/fd"),
    (c"stdin", c"/proc/self/fd/0"),
    (c"stdout", c"/proc/self/fd/1"),
    (c"stderr", c"/proc/self/fd/2"),
    (c"core", c"/proc/kcore"),
    (c"ptmx", c"pts/ptmx"),
];
/// Room on the private filesystem for `/dev` and what the step adds to its files.
const PRIVATE_SIZE: u64 = 64 << 20;

/// A filesystem in memory that only this step sees.
pub(super) struct Private {
    /// It, detached.
    pub(super) mount: OwnedFd,
}

impl Private {
    /// Makes it with all that `spec` needs on it: `dev` becomes `/dev`, `empty` covers directories, numbered files are bound over the image's.
    pub(super) fn create(spec: &Spec) -> Result<Self, Error> {
        let contents: u64 = spec
            .mounts
            .iter()
            .map(|mount| if let Mount::File { content, .. } = mount { content.0.len() as u64 } else { 0 })
            .sum();
        let mount = tmpfs(Some(PRIVATE_SIZE + contents), 0o755, NOSUID).map_err(failed("mount a private tmpfs"))?;
        let private = Self { mount };
        private.fill_dev().map_err(failed("make /dev"))?;
        private.write_file(0, &spec.resolv_conf, 0o644, 0, 0)?;
        private.write_file(1, &spec.hosts, 0o644, 0, 0)?;
        for (index, mount) in spec.mounts.iter().enumerate() {
            if let Mount::File { content, mode, uid, gid, .. } = mount {
                private.write_file(index + 2, &content.0, *mode, *uid, *gid)?;
            }
        }
        Ok(private)
    }

    fn fill_dev(&self) -> Result<(), Errno> {
        let root = self.mount.as_fd();
        make_directory(root, c"empty")?;
        make_directory(root, c"dev")?;
        let dev = rustix::fs::openat(root, c"dev", OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        for name in [c"pts", c"shm", c"mqueue"] {
            rustix::fs::mkdirat(&dev, name, Mode::RWXU)?;
        }
        for name in DEVICES {
            make_file(dev.as_fd(), name)?;
        }
        for (name, target) in DEVICE_LINKS {
            rustix::fs::symlinkat(target, &dev, name)?;
        }
        Ok(())
    }

    fn write_file(&self, number: usize, content: &[u8], mode: u32, uid: u32, gid: u32) -> Result<(), Error> {
        let write = || {
            let file = make_file(self.mount.as_fd(), &CString::new(number.to_string()).map_err(|_| Errno::INVAL)?)?;
            let mut rest = content;
            while !rest.is_empty() {
                rest = rest.get(rustix::io::write(&file, rest)?..).unwrap_or_default();
            }
            // The process's umask has nothing to say here, and chown clears setuid bits: owner first, then mode.
            if (uid, gid) != (0, 0) {
                rustix::fs::fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?;
            }
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode))
        };
        write().map_err(failed("write a file of the sandbox"))
    }
}

fn make_directory(dir: BorrowedFd<'_>, name: &CStr) -> Result<(), Errno> {
    rustix::fs::mkdirat(dir, name, Mode::RWXU)?;
    rustix::fs::chmodat(dir, name, Mode::from_raw_mode(0o755), rustix::fs::AtFlags::empty())
}

fn make_file(dir: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Errno> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::RUSR | Mode::WUSR)
}

/// A new filesystem in memory, of at most `size` bytes, whose root directory has the permissions `mode`.
pub(super) fn tmpfs(size: Option<u64>, mode: u32, attributes: Attributes) -> Result<OwnedFd, Errno> {
    let tmpfs = Configuration::open(c"tmpfs")?;
    let text = |value: String| CString::new(value).map_err(|_| Errno::INVAL);
    tmpfs.set(c"mode", &text(format!("{mode:o}"))?)?;
    if let Some(size) = size {
        tmpfs.set(c"size", &text(size.to_string())?)?;
    }
    tmpfs.mount(attributes)
}

/// New pseudo terminals. Group 5 is `tty` everywhere; a user namespace with a single id has no such group.
pub(super) fn devpts() -> Result<OwnedFd, Errno> {
    let mount = |group: &[(&CStr, &CStr)]| {
        let devpts = Configuration::open(c"devpts")?;
        devpts.set_flag(c"newinstance")?;
        for (key, value) in [(c"ptmxmode", c"0666"), (c"mode", c"0620")].iter().chain(group) {
            devpts.set(key, value)?;
        }
        devpts.mount(NOSUID.union(Attributes::MOUNT_ATTR_NOEXEC))
    };
    match mount(&[(c"gid", c"5")]) {
        Err(Errno::INVAL) => mount(&[]),
        result => result,
    }
}
