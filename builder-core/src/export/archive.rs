//! Export as a tar of an OCI layout.
//!
//! ustar, entries sorted by name, owner 0:0, mode 0644 and 0755, time 0: the same image and names give the same file.

use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use super::layout::write_new;
use super::{Blob, Error, Image, blobs, index_of};
use crate::store::{OCI_LAYOUT, Store};

const BLOCK: usize = 512;

/// Writes the archive of an image to the file `dest`, replacing one that is there.
///
/// A symbolic link is followed, a device or pipe (`/dev/stdout`) is written to.
pub(crate) fn export_archive(store: &Store, image: Image<'_>, dest: &Path) -> Result<(), Error> {
    let there = match fs::metadata(dest) {
        Ok(meta) => Some(meta.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("stat", dest)(e)),
    };
    if there.is_some_and(|kind| kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()) {
        let file = File::options().write(true).open(dest).map_err(Error::io("open", dest))?;
        return write_archive(store, image, &file);
    }
    let dest = if there.is_some() { fs::canonicalize(dest).map_err(Error::io("find", dest))? } else { dest.to_owned() };
    let contents = Contents::of(store, image)?;
    write_new(&dest, |file| contents.write(file))
}

/// Writes the archive of an image to an open file, such as standard output.
pub(crate) fn write_archive(store: &Store, image: Image<'_>, file: &File) -> Result<(), Error> {
    Contents::of(store, image)?.write(file).map_err(Error::io("write", "archive"))
}

struct Contents {
    blobs: Vec<Blob>,
    index: Vec<u8>,
}

impl Contents {
    /// Opens everything first, so that nothing is written when something is missing.
    fn of(store: &Store, image: Image<'_>) -> Result<Self, Error> {
        Ok(Self { blobs: blobs(store, image.descriptor)?, index: index_of(image.entries()).to_canonical_json() })
    }

    /// Writes the archive. From file to file, because then `io::copy` stays in the kernel.
    fn write(self, mut out: &File) -> io::Result<()> {
        out.write_all(header("blobs/", Entry::Directory)?.as_bytes())?;
        out.write_all(header("blobs/sha256/", Entry::Directory)?.as_bytes())?;
        for mut blob in self.blobs {
            let name = format!("blobs/sha256/{}", blob.digest.hex());
            out.write_all(header(&name, Entry::File(blob.size))?.as_bytes())?;
            if io::copy(&mut blob.file, &mut out)? != blob.size {
                return Err(io::Error::other(format!("blob {} changed while it was copied", blob.digest)));
            }
            pad(out, blob.size)?;
        }
        for (name, bytes) in [("index.json", &self.index[..]), ("oci-layout", OCI_LAYOUT.as_bytes())] {
            let size = bytes.len() as u64;
            out.write_all(header(name, Entry::File(size))?.as_bytes())?;
            out.write_all(bytes)?;
            pad(out, size)?;
        }
        out.write_all(&[0; 2 * BLOCK])
    }
}

#[derive(Clone, Copy)]
enum Entry {
    Directory,
    /// A file of so many bytes.
    File(u64),
}

fn header(name: &str, entry: Entry) -> io::Result<tar::Header> {
    let mut header = tar::Header::new_ustar();
    header.set_path(name)?;
    let (kind, mode, size) = match entry {
        Entry::Directory => (tar::EntryType::Directory, 0o755, 0),
        Entry::File(size) => (tar::EntryType::Regular, 0o644, size),
    };
    header.set_entry_type(kind);
    header.set_mode(mode);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(size);
    header.set_device_major(0)?;
    header.set_device_minor(0)?;
    header.set_cksum();
    Ok(header)
}

/// Fills up the last block of an entry.
fn pad(mut out: &File, size: u64) -> io::Result<()> {
    let used = usize::try_from(size % BLOCK as u64).map_err(io::Error::other)?;
    out.write_all(&[0; BLOCK][..(BLOCK - used) % BLOCK])
}
