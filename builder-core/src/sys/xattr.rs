//! Extended attributes of files below a directory handle.
//!
//! The `l` calls take a path and no handle, and the `f` calls want a file open for reading, which no symlink or device
//! can be. So the path leads through `/proc/self/fd/N/NAME`: the handle is what is used, only the last component is
//! looked up, and it is not followed. Most files have no attributes at all, and saying so is what costs time, so the
//! list comes from `listxattrat` (Linux 6.13), which needs no detour, where the kernel has it.

#![allow(unsafe_code, reason = "no crate wraps listxattrat yet")]

use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(test)]
use rustix::fs::XattrFlags;
use rustix::io::Errno;

/// Largest list of names and largest value that Linux has (`XATTR_LIST_MAX`, `XATTR_SIZE_MAX`).
const MAX_SIZE: usize = 64 * 1024;

/// Returns the attributes whose names `keep` wants of `name` inside `dir`, by name. Empty where the file system has no
/// attributes.
pub(crate) fn read_at(
    dir: BorrowedFd<'_>,
    name: &CStr,
    keep: impl Fn(&[u8]) -> bool,
) -> io::Result<BTreeMap<Vec<u8>, Vec<u8>>> {
    let names = list_at(dir, name)?;
    let mut found = BTreeMap::new();
    if names.is_empty() {
        return Ok(found);
    }
    let path = proc_path(dir, name)?;
    for attribute in names.split_inclusive(|b| *b == 0) {
        let Ok(attribute) = CStr::from_bytes_with_nul(attribute) else { continue };
        if keep(attribute.to_bytes())
            && let Some(value) = read_all(|buffer| rustix::fs::lgetxattr(&path, attribute, buffer))?
        {
            found.insert(attribute.to_bytes().to_vec(), value);
        }
    }
    Ok(found)
}

#[cfg(test)]
/// Returns one attribute of an open file or directory.
pub(crate) fn get(file: BorrowedFd<'_>, attribute: &CStr) -> io::Result<Option<Vec<u8>>> {
    read_all(|buffer| rustix::fs::fgetxattr(file, attribute, buffer))
}

#[cfg(test)]
/// Sets an attribute of `name` inside `dir`, new or not.
pub(crate) fn set_at(dir: BorrowedFd<'_>, name: &CStr, attribute: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::lsetxattr(proc_path(dir, name)?, attribute, value, XattrFlags::empty())?)
}

#[cfg(test)]
/// Sets an attribute of an open file or directory, new or not.
pub(crate) fn set(file: BorrowedFd<'_>, attribute: &CStr, value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::fsetxattr(file, attribute, value, XattrFlags::empty())?)
}

/// Returns the names of all attributes, each ended by a NUL.
fn list_at(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<Vec<u8>> {
    static IS_MISSING: AtomicBool = AtomicBool::new(false);
    if !IS_MISSING.load(Ordering::Relaxed) {
        match read_all(|buffer| listxattrat(dir, name, buffer)) {
            // Older kernels, and seccomp filters that do not know the call.
            Err(error) if is_unknown_call(&error) => IS_MISSING.store(true, Ordering::Relaxed),
            other => return Ok(other?.unwrap_or_default()),
        }
    }
    let path = proc_path(dir, name)?;
    Ok(read_all(|buffer| rustix::fs::llistxattr(&path, buffer))?.unwrap_or_default())
}

fn is_unknown_call(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::NOSYS | Errno::PERM))
}

/// `listxattrat(2)` without following `name`.
fn listxattrat(dir: BorrowedFd<'_>, name: &CStr, buffer: &mut [u8]) -> rustix::io::Result<usize> {
    /// The same on every architecture that was born after 2019 or joined the common table then; others say `ENOSYS`.
    const SYS_LISTXATTRAT: libc::c_long =
        if cfg!(any(target_arch = "x86_64", target_arch = "aarch64")) { 465 } else { -1 };
    // SAFETY: `name` ends with a NUL and `buffer` is writable for its whole length; both outlive the call, which
    // keeps neither, and the kernel writes no more than the length it is given.
    let result = unsafe {
        libc::syscall(
            SYS_LISTXATTRAT,
            dir.as_raw_fd(),
            name.as_ptr(),
            libc::AT_SYMLINK_NOFOLLOW,
            buffer.as_mut_ptr(),
            buffer.len(),
        )
    };
    usize::try_from(result).map_err(|_| {
        let error = io::Error::last_os_error();
        Errno::from_io_error(&error).unwrap_or(Errno::NOSYS)
    })
}

fn proc_path(dir: BorrowedFd<'_>, name: &CStr) -> io::Result<CString> {
    let mut path = format!("/proc/self/fd/{}/", dir.as_raw_fd()).into_bytes();
    path.extend_from_slice(name.to_bytes());
    Ok(CString::new(path)?)
}

/// Reads a list or a value, whatever its size: most are small, so a small buffer goes first. `None` when there is no
/// such attribute or no attributes at all.
fn read_all(read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>) -> io::Result<Option<Vec<u8>>> {
    let mut small = [0; 256];
    match read(&mut small) {
        Ok(len) => return Ok(Some(small[..len].to_vec())),
        Err(Errno::NODATA | Errno::NOTSUP) => return Ok(None),
        Err(Errno::RANGE) => {}
        Err(error) => return Err(error.into()),
    }
    let mut large = vec![0; MAX_SIZE];
    match read(&mut large) {
        Ok(len) => {
            large.truncate(len);
            Ok(Some(large))
        }
        Err(Errno::NODATA | Errno::NOTSUP) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::fd::AsFd;
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn reads_what_was_set_without_following() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("file"), "").unwrap();
        symlink("file", dir.path().join("link")).unwrap();
        let root = fs::File::open(dir.path()).unwrap();
        let large = vec![7; 1000];
        if let Err(error) = set_at(root.as_fd(), c"file", c"user.large", &large) {
            eprintln!("SKIP reads_what_was_set_without_following: no user attributes here: {error}");
            return;
        }
        set_at(root.as_fd(), c"file", c"user.small", b"1").unwrap();
        set_at(root.as_fd(), c"file", c"user.empty", b"").unwrap();
        let read = |name| read_at(root.as_fd(), name, |attribute| attribute.starts_with(b"user.")).unwrap();
        let want = [("user.empty", vec![]), ("user.large", large), ("user.small", b"1".to_vec())];
        assert_eq!(read(c"file"), want.map(|(name, value)| (name.as_bytes().to_vec(), value)).into());
        assert!(read(c"link").is_empty(), "a symlink has none of its target's");
        assert_eq!(read_at(root.as_fd(), c"file", |name| name == b"user.small").unwrap().len(), 1);
        let file = fs::File::open(dir.path().join("file")).unwrap();
        assert_eq!(get(file.as_fd(), c"user.small").unwrap(), Some(b"1".to_vec()));
        assert_eq!(get(file.as_fd(), c"user.none").unwrap(), None);
        set(root.as_fd(), c"user.dir", b"x").unwrap();
        assert_eq!(get(root.as_fd(), c"user.dir").unwrap(), Some(b"x".to_vec()));
        assert!(read_at(root.as_fd(), c"missing", |_| true).is_err());

        // Both ways of listing say the same.
        let path = proc_path(root.as_fd(), c"file").unwrap();
        let detour = read_all(|buffer| rustix::fs::llistxattr(&path, buffer)).unwrap().unwrap();
        let sorted = |names: Vec<u8>| {
            let mut names: Vec<Vec<u8>> = names.split(|b| *b == 0).map(<[u8]>::to_vec).collect();
            names.sort();
            names
        };
        assert_eq!(sorted(list_at(root.as_fd(), c"file").unwrap()), sorted(detour));
    }
}
