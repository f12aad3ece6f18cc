//! Entries that are no layer, put on disk the same way: files that a command is shown.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use super::super::Result;
use super::disk::{Disk, Made, unpack_error};
use super::metadata::{Age, Setter};
use crate::tree::{Entry, Kind};

/// Makes `entries`, sorted by path and with their parents, in the empty directory `dir`; hard links lead to earlier ones. `open` gives the bytes of the
/// file that stands at that place of the list. What this host refuses (a device, an attribute, an owner) is replaced as
/// in an unpacked layer.
pub(crate) fn place<R: Read>(
    dir: &Path,
    entries: &[Entry],
    open: &mut dyn FnMut(usize) -> io::Result<R>,
) -> Result<()> {
    let mut disk = Disk::open(dir)?;
    let mut setter = Setter::new();
    for (at, entry) in entries.iter().enumerate() {
        let path = entry.path.as_slice();
        match &entry.kind {
            Kind::Directory { .. } if path.is_empty() => {}
            Kind::Directory { .. } => disk.create_dir(path)?,
            Kind::Hardlink { target } => disk.link(path, target)?,
            Kind::File { .. } => {
                let mut file = disk.create_file(path)?;
                let copied = open(at).and_then(|mut content| io::copy(&mut content, &mut file));
                copied.map_err(|source| unpack_error("copy", path, source))?;
                setter.set(file.as_fd(), path, &entry.meta, Age::New)?;
            }
            kind => match disk.create_node(path, kind)? {
                Made::Real => setter.set_at(disk.parent(path)?, path, kind, &entry.meta)?,
                Made::StandIn => setter.set(disk.open_existing(path)?.as_fd(), path, &entry.meta, Age::New)?,
            },
        }
    }
    // Files in a directory change its time, and its mode may forbid them: deepest last.
    for entry in entries.iter().rev().filter(|entry| matches!(entry.kind, Kind::Directory { .. })) {
        setter.set(disk.open_existing(&entry.path)?.as_fd(), &entry.path, &entry.meta, Age::New)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{MetadataExt, PermissionsExt};

    use super::*;
    use crate::digest::ContentHash;
    use crate::tree::{Metadata, Timestamp};

    fn entry(path: &str, mode: u32, kind: Kind) -> Entry {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        let mtime = Timestamp { secs: 1_000_000, nanos: 5 };
        Entry { path: path.into(), meta: Metadata { mode, uid, gid, mtime, ..Metadata::default() }, kind }
    }

    #[test]
    fn entries_come_out_as_they_are_described() {
        let dir = tempfile::tempdir().unwrap();
        let file = || Kind::File { size: 3, content: ContentHash([0; 32]) };
        let entries = [
            entry("", 0o711, Kind::Directory { opaque: false }),
            entry("closed", 0o500, Kind::Directory { opaque: false }),
            entry("closed/file", 0o4751, file()),
            entry("closed/link", 0o777, Kind::Symlink { target: b"/etc".to_vec() }),
            entry("closed/pipe", 0o600, Kind::Fifo),
        ];
        place(dir.path(), &entries, &mut |at| Ok(std::io::Cursor::new(format!("n {at}")))).unwrap();
        for entry in &entries {
            let path = dir.path().join(str::from_utf8(&entry.path).unwrap());
            let meta = path.symlink_metadata().unwrap();
            assert_eq!((meta.mtime(), meta.mtime_nsec()), (1_000_000, 5), "{path:?}");
            assert_eq!(meta.permissions().mode() & 0o7777, entry.meta.mode, "{path:?}");
        }
        assert_eq!(std::fs::read_to_string(dir.path().join("closed/file")).unwrap(), "n 2");
        assert_eq!(std::fs::read_link(dir.path().join("closed/link")).unwrap(), Path::new("/etc"));
    }

    #[test]
    fn bytes_that_cannot_be_read_are_an_error_with_the_path() {
        let dir = tempfile::tempdir().unwrap();
        let entries = [entry("gone", 0o600, Kind::File { size: 1, content: ContentHash([0; 32]) })];
        let error = place(dir.path(), &entries, &mut |_| Err::<&[u8], _>(io::ErrorKind::NotFound.into())).unwrap_err();
        assert!(error.to_string().contains("gone"), "{error}");
    }
}
