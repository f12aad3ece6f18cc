//! How a [`LayerTree`] is stored: about 60 bytes a path, most of them content hashes.
//!
//! ```text
//! magic "bldtree" · version 1 · varint number of entries · entries… · BLAKE3 of all before (32 bytes)
//!
//! entry: varint bytes shared with the path before · varint length · rest of the path
//!        tag (kind in bits 0–3, flags above)
//!        [varint mode] [varint uid · varint gid]        unless the flag says "as the entry before"
//!        zigzag varint seconds since the entry before · [varint nanoseconds]
//!        [varint count · (varint length · name · varint length · value)…]
//!        by kind: file: varint size · hash (32); hard link, symlink: varint length · target; device: varint · varint
//! ```
//!
//! Integers are LEB128. A file of another version is an error; the store then reads the layer again. Decoding trusts
//! nothing: the checksum says that the bytes are whole, not that they are meant well, so lengths are held against the
//! bytes that are left and the sum of all paths (which prefix compression would let grow without end) has a limit.

use std::io::{self, Write};

use super::path::MAX_LEN;
use super::{Entry, Error, Kind, LayerTree, Metadata, Timestamp, Xattrs};
use crate::digest::ContentHash;

const MAGIC: &[u8; 8] = b"bldtree\x01";
const CHECKSUM_LEN: usize = 32;
/// Sum of the lengths of all paths of a tree: ten million deep paths fit, a bomb does not.
const MAX_PATHS_LEN: usize = 1 << 30;

const KIND_BITS: u8 = 0x0f;
const SAME_MODE: u8 = 0x10;
const SAME_OWNER: u8 = 0x20;
const HAS_NANOS: u8 = 0x40;
const HAS_XATTRS: u8 = 0x80;

const DIRECTORY: u8 = 0;
const OPAQUE_DIRECTORY: u8 = 1;
const FILE: u8 = 2;
const HARDLINK: u8 = 3;
const SYMLINK: u8 = 4;
const CHAR_DEVICE: u8 = 5;
const BLOCK_DEVICE: u8 = 6;
const FIFO: u8 = 7;
const WHITEOUT: u8 = 8;

impl LayerTree {
    /// Writes the tree in the stored form. Equal trees give equal bytes.
    pub(crate) fn encode(&self, w: &mut dyn Write) -> io::Result<()> {
        let mut out = MAGIC.to_vec();
        put(&mut out, self.entries().len() as u64);
        let mut before = (&[][..], &Metadata::default());
        for entry in self.entries() {
            put_entry(&mut out, entry, before.0, before.1);
            before = (&entry.path, &entry.meta);
        }
        let checksum = blake3::hash(&out);
        w.write_all(&out)?;
        w.write_all(checksum.as_bytes())
    }

    /// Reads a stored tree.
    ///
    /// # Errors
    ///
    /// The bytes are cut, changed, of another version, or no tree that keeps the invariants.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let error = |what, offset| Err(Error::Malformed { what, offset });
        if !bytes.starts_with(MAGIC) {
            return error("not a tree of this version", 0);
        }
        let end = bytes.len() - CHECKSUM_LEN.min(bytes.len());
        let (body, checksum) = bytes.split_at(end);
        if blake3::hash(body).as_bytes() != checksum {
            return error("wrong checksum", end);
        }
        let mut reader = Reader { bytes: body, at: MAGIC.len() };
        let entries = reader.entries()?;
        if reader.at != body.len() {
            return error("bytes after the last entry", reader.at);
        }
        Self::from_sorted(entries)
    }
}

fn put(out: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        out.push(value.to_le_bytes()[0] | 0x80);
        value >>= 7;
    }
    out.push(value.to_le_bytes()[0]);
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Maps small numbers of either sign to small numbers.
fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)).cast_unsigned()
}

fn unzigzag(value: u64) -> i64 {
    (value >> 1).cast_signed() ^ -(value & 1).cast_signed()
}

fn put_entry(out: &mut Vec<u8>, entry: &Entry, path_before: &[u8], before: &Metadata) {
    let shared = entry.path.iter().zip(path_before).take_while(|(a, b)| a == b).count();
    put(out, shared as u64);
    put_bytes(out, &entry.path[shared..]);

    let meta = &entry.meta;
    let same_mode = meta.mode == before.mode;
    let same_owner = (meta.uid, meta.gid) == (before.uid, before.gid);
    let flag = |set, bit| if set { bit } else { 0 };
    out.push(
        kind_number(&entry.kind)
            | flag(same_mode, SAME_MODE)
            | flag(same_owner, SAME_OWNER)
            | flag(meta.mtime.nanos != 0, HAS_NANOS)
            | flag(!meta.xattrs.is_empty(), HAS_XATTRS),
    );
    if !same_mode {
        put(out, meta.mode.into());
    }
    if !same_owner {
        put(out, meta.uid.into());
        put(out, meta.gid.into());
    }
    put(out, zigzag(meta.mtime.secs.wrapping_sub(before.mtime.secs)));
    if meta.mtime.nanos != 0 {
        put(out, meta.mtime.nanos.into());
    }
    if !meta.xattrs.is_empty() {
        put(out, meta.xattrs.len() as u64);
        for (name, value) in &meta.xattrs {
            put_bytes(out, name);
            put_bytes(out, value);
        }
    }
    put_kind(out, &entry.kind);
}

fn kind_number(kind: &Kind) -> u8 {
    match kind {
        Kind::Directory { opaque: false } => DIRECTORY,
        Kind::Directory { opaque: true } => OPAQUE_DIRECTORY,
        Kind::File { .. } => FILE,
        Kind::Hardlink { .. } => HARDLINK,
        Kind::Symlink { .. } => SYMLINK,
        Kind::CharDevice { .. } => CHAR_DEVICE,
        Kind::BlockDevice { .. } => BLOCK_DEVICE,
        Kind::Fifo => FIFO,
        Kind::Whiteout => WHITEOUT,
    }
}

fn put_kind(out: &mut Vec<u8>, kind: &Kind) {
    match kind {
        Kind::File { size, content } => {
            put(out, *size);
            out.extend_from_slice(&content.0);
        }
        Kind::Hardlink { target } | Kind::Symlink { target } => put_bytes(out, target),
        Kind::CharDevice { major, minor } | Kind::BlockDevice { major, minor } => {
            put(out, (*major).into());
            put(out, (*minor).into());
        }
        Kind::Directory { .. } | Kind::Fifo | Kind::Whiteout => {}
    }
}

struct Reader<'b> {
    bytes: &'b [u8],
    at: usize,
}

impl<'b> Reader<'b> {
    fn error<T>(&self, what: &'static str) -> Result<T, Error> {
        Err(Error::Malformed { what, offset: self.at })
    }

    fn take(&mut self, len: usize) -> Result<&'b [u8], Error> {
        match self.bytes[self.at..].get(..len) {
            Some(taken) => {
                self.at += len;
                Ok(taken)
            }
            None => self.error("cut short"),
        }
    }

    fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    fn varint(&mut self) -> Result<u64, Error> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let byte = self.byte()?;
            let bits = u64::from(byte & 0x7f);
            if bits << shift >> shift != bits {
                return self.error("number too large");
            }
            value |= bits << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        self.error("number too long")
    }

    fn number<T: TryFrom<u64>>(&mut self) -> Result<T, Error> {
        match T::try_from(self.varint()?) {
            Ok(number) => Ok(number),
            Err(_) => self.error("number out of range"),
        }
    }

    fn len_and_bytes(&mut self) -> Result<&'b [u8], Error> {
        let len = self.number()?;
        self.take(len)
    }

    fn entries(&mut self) -> Result<Vec<Entry>, Error> {
        const SMALLEST_ENTRY: usize = 4;
        let count: usize = self.number()?;
        if count > (self.bytes.len() - self.at) / SMALLEST_ENTRY {
            return self.error("more entries than bytes");
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut paths_len = 0;
        let first = Entry { path: Vec::new(), meta: Metadata::default(), kind: Kind::Whiteout };
        for _ in 0..count {
            let entry = self.entry(entries.last().unwrap_or(&first))?;
            paths_len += entry.path.len();
            if paths_len > MAX_PATHS_LEN {
                return self.error("paths too long");
            }
            entries.push(entry);
        }
        Ok(entries)
    }

    fn entry(&mut self, before: &Entry) -> Result<Entry, Error> {
        let shared: usize = self.number()?;
        let rest = self.len_and_bytes()?;
        let Some(prefix) = before.path.get(..shared) else { return self.error("shares more than there is") };
        if prefix.len() + rest.len() > MAX_LEN {
            return self.error("path too long");
        }
        let path = [prefix, rest].concat();
        let tag = self.byte()?;
        let meta = self.metadata(tag, &before.meta)?;
        let kind = self.kind(tag & KIND_BITS)?;
        Ok(Entry { path, meta, kind })
    }

    fn metadata(&mut self, tag: u8, before: &Metadata) -> Result<Metadata, Error> {
        let mode = if tag & SAME_MODE == 0 { self.number()? } else { before.mode };
        if mode > 0o7777 {
            return self.error("mode out of range");
        }
        let (uid, gid) =
            if tag & SAME_OWNER == 0 { (self.number()?, self.number()?) } else { (before.uid, before.gid) };
        let secs = before.mtime.secs.wrapping_add(unzigzag(self.varint()?));
        let nanos = if tag & HAS_NANOS == 0 { 0 } else { self.number()? };
        if nanos >= 1_000_000_000 {
            return self.error("nanoseconds out of range");
        }
        let xattrs = if tag & HAS_XATTRS == 0 { Xattrs::new() } else { self.xattrs()? };
        Ok(Metadata { mode, uid, gid, mtime: Timestamp { secs, nanos }, xattrs })
    }

    fn xattrs(&mut self) -> Result<Xattrs, Error> {
        let mut xattrs = Xattrs::new();
        for _ in 0..self.varint()? {
            let name = self.len_and_bytes()?.to_vec();
            let value = self.len_and_bytes()?.to_vec();
            xattrs.insert(name, value);
        }
        Ok(xattrs)
    }

    fn kind(&mut self, number: u8) -> Result<Kind, Error> {
        Ok(match number {
            DIRECTORY => Kind::Directory { opaque: false },
            OPAQUE_DIRECTORY => Kind::Directory { opaque: true },
            FILE => Kind::File { size: self.number()?, content: self.hash()? },
            HARDLINK => Kind::Hardlink { target: self.len_and_bytes()?.to_vec() },
            SYMLINK => Kind::Symlink { target: self.len_and_bytes()?.to_vec() },
            CHAR_DEVICE => Kind::CharDevice { major: self.number()?, minor: self.number()? },
            BLOCK_DEVICE => Kind::BlockDevice { major: self.number()?, minor: self.number()? },
            FIFO => Kind::Fifo,
            WHITEOUT => Kind::Whiteout,
            _ => return self.error("unknown kind"),
        })
    }

    fn hash(&mut self) -> Result<ContentHash, Error> {
        let mut hash = [0; 32];
        hash.copy_from_slice(self.take(32)?);
        Ok(ContentHash(hash))
    }
}

#[cfg(test)]
mod tests;
