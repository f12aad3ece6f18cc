//! Entries that are no layer, put on disk the same way: files that a command is shown.

use std::io::{self, Read};
use std::os::fd::AsFd;
use std::path::Path;

use super::super::Result;
use super::disk::{Disk, Made, unpack_error};
use super::metadata::{Age, Setter};
use crate::tree::{Entry, Kind};

/// Makes `entries`, sorted by path and with their parents, in the empty directory `dir`. `open` gives the bytes of the
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
