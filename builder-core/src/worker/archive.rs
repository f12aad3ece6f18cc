//! Archives that `ADD` unpacks: told by their content, read in one pass, compressed or not.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::PathBuf;

use super::copy::ArchiveEntry;
use super::files::FileReader;
use crate::digest::ContentHash;
use crate::error::{Error, ErrorKind};
use crate::layer::tar::{RawKind, Reader};
use crate::layer::{Accepted, decode, is_archive};
use crate::tree::xattr::belongs_in_layer;
use crate::tree::{Kind, Metadata};

/// More entries than this are an attack or a mistake.
const MAX_ENTRIES: usize = 10_000_000;

/// What an archive holds.
#[derive(Debug, Clone)]
pub(crate) struct Archive {
    /// Its entries in order, content hashes filled in.
    pub(crate) entries: Vec<ArchiveEntry>,
}

fn damaged(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Context, error).context("the archive cannot be unpacked")
}

/// Reads an archive's table of contents; `None` when the file is not one. An archive is a tar whose first header is
/// valid, as it is or compressed with gzip, bzip2, xz or zstd; `again` opens the file once more after the look.
pub(crate) fn read(
    file: FileReader,
    again: impl FnOnce() -> Result<FileReader, Error>,
) -> Result<Option<Archive>, Error> {
    if !is_archive(file) {
        return Ok(None);
    }
    let stream = decode(again()?, Accepted::Archive).map_err(|error| damaged(&error))?;
    let mut tar = Reader::new(stream);
    let mut entries = Vec::new();
    while let Some(raw) = tar.next().map_err(|error| damaged(&error))? {
        if entries.len() == MAX_ENTRIES {
            return Err(Error::new(ErrorKind::Context, "the archive has too many entries"));
        }
        let kind = match raw.kind {
            RawKind::Directory => Kind::Directory { opaque: false },
            RawKind::File => {
                let content = hash(&mut tar.content()).map_err(|error| damaged(&error))?;
                Kind::File { size: raw.size, content }
            }
            RawKind::Hardlink { target } => Kind::Hardlink { target },
            RawKind::Symlink { target } => Kind::Symlink { target },
            RawKind::CharDevice { major, minor } => Kind::CharDevice { major, minor },
            RawKind::BlockDevice { major, minor } => Kind::BlockDevice { major, minor },
            RawKind::Fifo => Kind::Fifo,
        };
        let xattrs = raw.xattrs.into_iter().filter(|(name, _)| belongs_in_layer(name)).collect();
        let meta = Metadata { mode: raw.mode, uid: raw.uid, gid: raw.gid, mtime: raw.mtime, xattrs };
        entries.push(ArchiveEntry { name: raw.name, meta, kind, number: entries.len() });
    }
    Ok(Some(Archive { entries }))
}

fn hash(content: &mut impl Read) -> io::Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    io::copy(content, &mut hasher)?;
    Ok(ContentHash(*hasher.finalize().as_bytes()))
}

/// Writes the bytes of entries, by number, to files of this machine.
pub(crate) fn extract(file: FileReader, wanted: &BTreeMap<usize, PathBuf>) -> Result<(), Error> {
    let stream = decode(file, Accepted::Archive).map_err(|error| damaged(&error))?;
    let mut tar = Reader::new(stream);
    let mut number = 0;
    while tar.next().map_err(|error| damaged(&error))?.is_some() {
        if let Some(path) = wanted.get(&number) {
            let copied = File::create(path).and_then(|mut out| {
                io::copy(&mut tar.content(), &mut out)?;
                out.flush()
            });
            copied.map_err(|error| damaged(&error))?;
        }
        number += 1;
    }
    Ok(())
}
