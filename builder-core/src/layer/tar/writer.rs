//! Writes entries so that equal entries give equal bytes.
//!
//! ustar fields where they can say it, else pax records in the layout of Go's `archive/tar`: an `x` header named
//! `DIR/PaxHeaders.0/BASE`, records sorted by key, the fields of the entry zero where a record replaces them. User and
//! group names are empty; only `0o7777` of the mode is written. Names are raw bytes in both forms.

use std::io::{self, Write};

use super::block::{self, BLOCK, Block};
use super::pax::{NewRecords, format_time};
use super::{Error, MAX_METADATA};
use crate::tree::path::{file_name, join, parent};
use crate::tree::{Entry, Kind, Metadata};

const ZEROS: [u8; BLOCK] = [0; BLOCK];
/// What marks a path as deleted, as the prefix of its name.
pub(crate) const WHITEOUT: &[u8] = b".wh.";
/// The name that hides what lower layers have in a directory.
pub(crate) const OPAQUE: &[u8] = b".wh..wh..opq";

/// A writer of tar entries. Order and sense of the entries are the caller's matter.
#[derive(Debug)]
pub(crate) struct Writer<W> {
    inner: W,
    /// Content the current entry still lacks.
    left: u64,
    padding: usize,
}

impl<W: Write> Writer<W> {
    /// Starts an archive.
    pub(crate) fn new(inner: W) -> Self {
        Self { inner, left: 0, padding: 0 }
    }

    /// Writes the header of `entry`; for a file its bytes must follow through [`Self::write_content`].
    ///
    /// A whiteout becomes its `.wh.` file, an opaque directory is followed by its marker, so that readers that
    /// delete as they go find the marker before the directory's content.
    pub(crate) fn append(&mut self, entry: &Entry) -> Result<(), Error> {
        self.check_complete()?;
        let plain = Metadata::default();
        let marker = |path| Header { kind: b'0', path, link: &[], device: (0, 0), size: 0, meta: &plain };
        if let Kind::Whiteout = entry.kind {
            let name = [WHITEOUT, file_name(&entry.path)].concat();
            return self.header(&marker(join(parent(&entry.path).unwrap_or_default(), &name)));
        }
        let header = Header::of(entry);
        self.header(&header)?;
        self.left = header.size;
        self.padding = usize::try_from(header.size.wrapping_neg() % BLOCK as u64).unwrap_or_default();
        if let Kind::Directory { opaque: true } = entry.kind {
            self.header(&marker(join(&entry.path, OPAQUE)))?;
        }
        Ok(())
    }

    /// Writes the next bytes of the current file, and the padding after the last one.
    pub(crate) fn write_content(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.left = self.left.checked_sub(bytes.len() as u64).ok_or(Error::ContentSize)?;
        self.write(bytes)?;
        if self.left == 0 {
            let padding = std::mem::take(&mut self.padding);
            self.write(&ZEROS[..padding])?;
        }
        Ok(())
    }

    /// Writes the end mark and returns the inner writer.
    pub(crate) fn finish(mut self) -> Result<W, Error> {
        self.check_complete()?;
        self.write(&ZEROS)?;
        self.write(&ZEROS)?;
        Ok(self.inner)
    }

    fn check_complete(&self) -> Result<(), Error> {
        if self.left == 0 { Ok(()) } else { Err(Error::ContentSize) }
    }

    fn header(&mut self, header: &Header<'_>) -> Result<(), Error> {
        let (block, records) = header.encode()?;
        if let Some(records) = records {
            if records.len() as u64 + BLOCK as u64 > MAX_METADATA {
                return Err(Error::Unwritable { path: header.path.clone() });
            }
            self.write(&header.pax_block(records.len()).0)?;
            self.write(&records)?;
            let padding = records.len().wrapping_neg() % BLOCK;
            self.write(&ZEROS[..padding])?;
        }
        self.write(&block.0)
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Error> {
        self.inner.write_all(bytes).map_err(|source: io::Error| Error::Write { source })
    }
}

/// A header in the terms of tar.
struct Header<'a> {
    kind: u8,
    path: Vec<u8>,
    link: &'a [u8],
    device: (u32, u32),
    size: u64,
    meta: &'a Metadata,
}

impl<'a> Header<'a> {
    fn of(entry: &'a Entry) -> Self {
        let (kind, link, device, size) = match &entry.kind {
            Kind::Directory { .. } => (b'5', &[][..], (0, 0), 0),
            Kind::File { size, .. } => (b'0', &[][..], (0, 0), *size),
            Kind::Hardlink { target } => (b'1', &target[..], (0, 0), 0),
            Kind::Symlink { target } => (b'2', &target[..], (0, 0), 0),
            Kind::CharDevice { major, minor } => (b'3', &[][..], (*major, *minor), 0),
            Kind::BlockDevice { major, minor } => (b'4', &[][..], (*major, *minor), 0),
            Kind::Fifo => (b'6', &[][..], (0, 0), 0),
            Kind::Whiteout => (b'0', &[][..], (0, 0), 0),
        };
        let path = match (&entry.path[..], kind) {
            (b"", _) => b"./".to_vec(),
            (path, b'5') => [path, b"/"].concat(),
            (path, _) => path.to_vec(),
        };
        Self { kind, path, link, device, size, meta: &entry.meta }
    }

    /// Returns the header block and the records for what it cannot say.
    fn encode(&self) -> Result<(Block, Option<Vec<u8>>), Error> {
        let mut records = NewRecords::default();
        for (name, value) in &self.meta.xattrs {
            records.set_xattr(name, value);
        }
        let mut block = Block::posix(self.kind);
        let meta = self.meta;
        let fits = block.set_octal(block::MODE, i64::from(meta.mode & 0o7777))
            & block.set_octal(block::DEV_MAJOR, i64::from(self.device.0))
            & block.set_octal(block::DEV_MINOR, i64::from(self.device.1));
        // Device numbers are 12 and 20 bits to Linux; there is no record for more.
        let size = i64::try_from(self.size).ok().filter(|_| fits);
        let size = size.ok_or_else(|| Error::Unwritable { path: self.path.clone() })?;
        if !block.set_octal(block::SIZE, size) {
            records.set(b"size", size.to_string());
        }
        if !block.set_octal(block::UID, i64::from(meta.uid)) {
            records.set(b"uid", meta.uid.to_string());
        }
        if !block.set_octal(block::GID, i64::from(meta.gid)) {
            records.set(b"gid", meta.gid.to_string());
        }
        if !block.set_octal(block::MTIME, meta.mtime.secs) || meta.mtime.nanos != 0 {
            records.set(b"mtime", format_time(meta.mtime));
        }
        if !block.set_text(block::LINK_NAME, self.link) {
            records.set(b"linkpath", self.link);
        }
        if !set_name(&mut block, &self.path) {
            records.set(b"path", &self.path[..]);
        }
        block.seal();
        Ok((block, records.encode()))
    }

    fn pax_block(&self, len: usize) -> Block {
        let path = self.path.strip_suffix(b"/").unwrap_or(&self.path);
        let name = join(&join(parent(path).unwrap_or_default(), b"PaxHeaders.0"), file_name(path));
        let name = &name[..name.len().min(block::NAME.len())];
        let mut block = Block::posix(b'x');
        block.set_text(block::NAME, trim_slashes(name));
        // Bounded by MAX_METADATA, so it fits.
        block.set_octal(block::SIZE, i64::try_from(len).unwrap_or_default());
        for field in [block::MODE, block::UID, block::GID, block::MTIME, block::DEV_MAJOR, block::DEV_MINOR] {
            block.set_octal(field, 0);
        }
        block.seal();
        block
    }
}

/// Sets name and prefix, and reports whether they hold the whole path.
fn set_name(block: &mut Block, path: &[u8]) -> bool {
    if path.len() <= block::NAME.len() {
        return block.set_text(block::NAME, path);
    }
    // The longest prefix that fits; the name must not be empty, so a final '/' does not split.
    let limit = path.len().saturating_sub(1).min(block::PREFIX.len() + 1);
    let split = path[..limit].iter().rposition(|byte| *byte == b'/').filter(|at| *at > 0);
    if let Some(at) = split
        && path.len() - at - 1 <= block::NAME.len()
    {
        block.set_text(block::PREFIX, &path[..at]);
        return block.set_text(block::NAME, &path[at + 1..]);
    }
    // A file whose cut name ends in '/' would be a directory to readers that do not know pax.
    let cut = &path[..block::NAME.len()];
    block.set_text(block::NAME, trim_slashes(cut));
    false
}

fn trim_slashes(name: &[u8]) -> &[u8] {
    let len = name.iter().rposition(|byte| *byte != b'/').map_or(0, |at| at + 1);
    &name[..len]
}
