//! Export as a tar of an OCI layout, with or without the `manifest.json` that makes it an archive for `docker load`.
//!
//! ustar, entries sorted by name, owner 0:0, mode 0644 and 0755, time 0: the same image and names give the same file.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::fd::AsFd as _;
use std::os::unix::fs::FileTypeExt;

use super::layout::write_new;
use super::{Blob, Error, Image, blobs, index_of};
use crate::image::{Descriptor, MANIFEST_LIMIT, Manifest};
use crate::registry::Reference;
use crate::request::Destination;
use crate::store::{OCI_LAYOUT, Store};

const BLOCK: usize = 512;

/// Writes the OCI archive of an image.
pub(crate) fn export_archive(store: &Store, image: Image<'_>, dest: &Destination) -> Result<(), Error> {
    let contents = Contents::of(store, image)?;
    write_to(dest, |file| contents.write(file))
}

/// Writes the archive of an image with one platform as Docker reads and writes it: `manifest.json` names config, layers
/// and tags; the OCI layout beside it is for readers that look for that first.
pub(crate) fn export_docker_archive(store: &Store, image: Image<'_>, dest: &Destination) -> Result<(), Error> {
    #[derive(serde::Serialize)]
    #[serde(rename_all = "PascalCase")]
    struct Tagged {
        config: String,
        repo_tags: Vec<String>,
        layers: Vec<String>,
    }
    let digest = image.descriptor.digest;
    let bytes = store.read_blob(&digest, MANIFEST_LIMIT).map_err(|source| Error::Store { digest, source })?;
    let manifest = Manifest::parse(&bytes);
    let manifest = manifest.map_err(|source| Error::Document { what: format!("blob {digest}"), source })?;
    let path = |blob: &Descriptor| format!("blobs/sha256/{}", blob.digest.hex());
    let layers = manifest.layers.iter().map(path).collect();
    let familiar = |name: &String| name.parse().map_or_else(|_| name.clone(), |name: Reference| name.familiar());
    let repo_tags = image.names.iter().map(familiar).collect();
    let entry = Tagged { config: path(&manifest.config), repo_tags, layers };
    let mut contents = Contents::of(store, image)?;
    contents.documents.insert("manifest.json", serde_json::to_vec(&[entry]).unwrap_or_default());
    write_to(dest, |file| contents.write(file))
}

/// Writes a file that `dest` names, replacing one that is there.
///
/// A symbolic link is followed, a device or pipe (`/dev/stdout`) is written to.
pub(super) fn write_to(dest: &Destination, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), Error> {
    let dest = match dest {
        Destination::File(path) => path,
        Destination::Stdout => {
            let failed = Error::io("write", "standard output");
            let stdout = io::stdout().as_fd().try_clone_to_owned();
            return stdout.and_then(|stdout| write(&File::from(stdout))).map_err(failed);
        }
    };
    let there = match fs::metadata(dest) {
        Ok(meta) => Some(meta.file_type()),
        Err(e) if e.kind() == io::ErrorKind::NotFound => None,
        Err(e) => return Err(Error::io("stat", dest)(e)),
    };
    if there.is_some_and(|kind| kind.is_fifo() || kind.is_char_device() || kind.is_block_device() || kind.is_socket()) {
        let file = File::options().write(true).open(dest).map_err(Error::io("open", dest))?;
        return write(&file).map_err(Error::io("write", dest));
    }
    let dest = if there.is_some() { fs::canonicalize(dest).map_err(Error::io("find", dest))? } else { dest.to_owned() };
    write_new(&dest, |file| write(file))
}

struct Contents {
    blobs: Vec<Blob>,
    /// By name.
    documents: BTreeMap<&'static str, Vec<u8>>,
}

impl Contents {
    /// Opens everything first, so that nothing is written when something is missing.
    fn of(store: &Store, image: Image<'_>) -> Result<Self, Error> {
        let index = index_of(image.entries()).to_canonical_json();
        let documents = [("index.json", index), ("oci-layout", OCI_LAYOUT.as_bytes().to_vec())];
        Ok(Self { blobs: blobs(store, image.descriptor)?, documents: documents.into() })
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
        for (name, bytes) in &self.documents {
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
