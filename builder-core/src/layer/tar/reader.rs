//! Reads an archive block by block, from untrusted bytes.
//!
//! One entry at a time: [`Reader::next`], then its content piece by piece. Memory is one block, the extended headers of
//! one entry (at most [`MAX_METADATA`]) and one sparse map. Any disagreement of lengths is an error; nothing is
//! resynchronised.

mod body;

use std::io::{ErrorKind, Read};

use super::block::{self, BLOCK, Block};
use super::name::{NameError, normalise};
use super::pax::Records;
use super::{Error, MAX_METADATA};
use crate::tree::{Timestamp, Xattrs};
use body::Body;
pub(crate) use body::Piece;
use body::padding;

/// What an entry is; link targets as stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum RawKind {
    /// A directory.
    Directory,
    /// A regular file with content to read.
    File,
    /// Another name of an earlier entry.
    Hardlink { target: Vec<u8> },
    /// A symbolic link.
    Symlink { target: Vec<u8> },
    /// A character device.
    CharDevice { major: u32, minor: u32 },
    /// A block device.
    BlockDevice { major: u32, minor: u32 },
    /// A named pipe.
    Fifo,
}

/// One entry of an archive, its extended headers applied.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RawEntry {
    /// The name as stored.
    pub(crate) name: Vec<u8>,
    /// The path it means, or why it means none.
    pub(crate) path: Result<Vec<u8>, NameError>,
    /// What it is.
    pub(crate) kind: RawKind,
    /// Permission and special bits, `0o7777` at most.
    pub(crate) mode: u32,
    /// Owner.
    pub(crate) uid: u32,
    /// Group.
    pub(crate) gid: u32,
    /// Modification time.
    pub(crate) mtime: Timestamp,
    /// All extended attributes, also those that no layer should have.
    pub(crate) xattrs: Xattrs,
    /// Bytes of content, holes included; 0 for everything but files.
    pub(crate) size: u64,
}

/// A reader of tar entries.
#[derive(Debug)]
pub(crate) struct Reader<R> {
    inner: R,
    /// Bytes read.
    offset: u64,
    /// Where the current header is, for errors.
    entry_offset: u64,
    body: Body,
    global: Records,
    holes: u64,
    ended: bool,
}

/// Extension headers before an entry.
#[derive(Default)]
struct Extensions {
    records: Option<Records>,
    long_name: Option<Vec<u8>>,
    long_link: Option<Vec<u8>>,
    bytes: u64,
}

impl Extensions {
    fn is_empty(&self) -> bool {
        self.records.is_none() && self.long_name.is_none() && self.long_link.is_none()
    }
}

impl<R: Read> Reader<R> {
    /// Starts at the first header.
    pub(crate) fn new(inner: R) -> Self {
        Self {
            inner,
            offset: 0,
            entry_offset: 0,
            body: Body::default(),
            global: Records::default(),
            holes: 0,
            ended: false,
        }
    }

    /// Returns the next entry, after skipping what was not read of the one before, or `None` at the end mark.
    ///
    /// As in Go and GNU tar the end is two blocks of zeros, or the end of input where a header could start; what
    /// follows the end mark is not looked at.
    pub(crate) fn next(&mut self) -> Result<Option<RawEntry>, Error> {
        self.skip_content()?;
        let mut extensions = Extensions::default();
        while let Some(header) = self.next_header()? {
            if !self.take_extension(&header, &mut extensions)? {
                return self.entry(&header, extensions).map(Some);
            }
        }
        self.ended = true;
        // Only a global header may have no entry after it.
        if extensions.is_empty() { Ok(None) } else { Err(Error::Truncated { offset: self.entry_offset }) }
    }

    /// Reads a header block, or `None` at the end.
    fn next_header(&mut self) -> Result<Option<Block>, Error> {
        if self.ended {
            return Ok(None);
        }
        self.entry_offset = self.offset;
        let Some(header) = self.block()? else { return Ok(None) };
        if !header.is_zero() {
            header.verify_checksum(self.entry_offset)?;
            return Ok(Some(header));
        }
        match self.block()? {
            Some(second) if !second.is_zero() => Err(Error::LoneZeroBlock { offset: self.entry_offset }),
            _ => Ok(None),
        }
    }

    /// Reads one block, or `None` at the end of input.
    fn block(&mut self) -> Result<Option<Block>, Error> {
        let mut block = Block([0; BLOCK]);
        let mut filled = 0;
        while filled < BLOCK {
            match read_some(&mut self.inner, &mut block.0[filled..])? {
                0 if filled == 0 => return Ok(None),
                0 => return Err(Error::Truncated { offset: self.entry_offset }),
                n => filled += n,
            }
        }
        self.offset += BLOCK as u64;
        Ok(Some(block))
    }

    /// Handles a header that describes the entry after it; `false` if this is an entry itself.
    fn take_extension(&mut self, header: &Block, extensions: &mut Extensions) -> Result<bool, Error> {
        let offset = self.entry_offset;
        let kind = header.kind();
        if !matches!(kind, b'x' | b'g' | b'L' | b'K') {
            return Ok(false);
        }
        // Its own size field counts: a size record is about the entry, not about headers before it.
        let size = number(header, block::SIZE, "size", offset)?;
        extensions.bytes += size.saturating_add(BLOCK as u64);
        if extensions.bytes > MAX_METADATA {
            return Err(Error::TooMuchMetadata { offset });
        }
        let data = self.extension_data(size)?;
        // Of two headers of one kind readers take the first, the last or both.
        match kind {
            b'x' if extensions.records.is_none() => {
                let mut records = self.global.clone();
                records.extend(&data, offset)?;
                extensions.records = Some(records);
            }
            b'L' if extensions.long_name.is_none() => extensions.long_name = Some(c_string(&data, offset)?),
            b'K' if extensions.long_link.is_none() => extensions.long_link = Some(c_string(&data, offset)?),
            // Go ignores global records, GNU tar applies them: owners and times pass, what changes a listing does not.
            b'g' if extensions.records.is_none() => {
                self.global.extend(&data, offset)?;
                if self.global.names_one_entry() {
                    return Err(Error::Ambiguous { offset });
                }
            }
            _ => return Err(Error::Ambiguous { offset }),
        }
        Ok(true)
    }

    fn extension_data(&mut self, size: u64) -> Result<Vec<u8>, Error> {
        let mut data = Vec::new();
        let got = (&mut self.inner).take(size).read_to_end(&mut data).map_err(|source| Error::Read { source })?;
        self.offset += got as u64;
        if got as u64 != size {
            return Err(Error::Truncated { offset: self.entry_offset });
        }
        self.skip(padding(size))?;
        Ok(data)
    }

    fn entry(&mut self, header: &Block, extensions: Extensions) -> Result<RawEntry, Error> {
        let offset = self.entry_offset;
        let mut records = extensions.records.unwrap_or_else(|| self.global.clone());
        let name = choose(extensions.long_name, records.path.take(), offset)?;
        let name = records.sparse.name.take().or(name).unwrap_or_else(|| header.name());
        let link_path = choose(extensions.long_link, records.link_path.take(), offset)?;
        let kind = kind(header, link_path, &name, offset)?;
        let stored = match records.size {
            Some(size) => size,
            None => number(header, block::SIZE, "size", offset)?,
        };
        let uid = id(header, records.uid, block::UID, "uid", offset)?;
        let gid = id(header, records.gid, block::GID, "gid", offset)?;
        let mode = header.number(block::MODE, "mode", offset)?;
        let mtime = match records.mtime {
            Some(time) => time,
            None => Timestamp { secs: header.number(block::MTIME, "mtime", offset)?, nanos: 0 },
        };
        self.start_body(header, &kind, stored, &records)?;
        Ok(RawEntry {
            path: normalise(&name),
            name,
            mode: u32::try_from(mode & 0o7777).unwrap_or_default(),
            kind,
            uid,
            gid,
            mtime,
            xattrs: records.xattrs,
            size: self.body.size,
        })
    }
}

fn kind(header: &Block, link_path: Option<Vec<u8>>, name: &[u8], offset: u64) -> Result<RawKind, Error> {
    let target = || link_path.unwrap_or_else(|| header.text(block::LINK_NAME).to_vec());
    let device = |field, name| {
        // Old tars have other things there.
        if header.dialect() == block::Dialect::V7 {
            return Ok(0);
        }
        let value = number(header, field, name, offset)?;
        u32::try_from(value).map_err(|_| Error::Number { field: name, offset })
    };
    let numbers =
        || Ok::<_, Error>((device(block::DEV_MAJOR, "major number")?, device(block::DEV_MINOR, "minor number")?));
    Ok(match header.kind() {
        // The first tars had no type for directories.
        0 if name.ends_with(b"/") => RawKind::Directory,
        // GNU tar makes a directory of it, Go a file.
        b'0' | b'7' | b'S' if name.ends_with(b"/") => return Err(Error::Ambiguous { offset }),
        0 | b'0' | b'7' | b'S' => RawKind::File,
        b'1' => RawKind::Hardlink { target: target() },
        b'2' => RawKind::Symlink { target: target() },
        b'3' => numbers().map(|(major, minor)| RawKind::CharDevice { major, minor })?,
        b'4' => numbers().map(|(major, minor)| RawKind::BlockDevice { major, minor })?,
        b'5' => RawKind::Directory,
        b'6' => RawKind::Fifo,
        kind => return Err(Error::Type { kind, offset }),
    })
}

/// The name of a GNU long-name header or of a record. Readers differ in which one wins, so both must agree.
fn choose(long: Option<Vec<u8>>, record: Option<Vec<u8>>, offset: u64) -> Result<Option<Vec<u8>>, Error> {
    match (long, record) {
        (Some(long), Some(record)) if long != record => Err(Error::Ambiguous { offset }),
        (long, record) => Ok(long.or(record)),
    }
}

fn number(header: &Block, field: std::ops::Range<usize>, name: &'static str, offset: u64) -> Result<u64, Error> {
    let value = header.number(field, name, offset)?;
    u64::try_from(value).map_err(|_| Error::Number { field: name, offset })
}

fn id(
    header: &Block,
    record: Option<u32>,
    field: std::ops::Range<usize>,
    name: &'static str,
    offset: u64,
) -> Result<u32, Error> {
    match record {
        Some(id) => Ok(id),
        None => super::id(number(header, field, name, offset)?).ok_or(Error::Number { field: name, offset }),
    }
}

/// The text of a long-name header: ends at a NUL with nothing but NULs behind it.
fn c_string(data: &[u8], offset: u64) -> Result<Vec<u8>, Error> {
    let len = data.iter().position(|byte| *byte == 0).unwrap_or(data.len());
    let (text, rest) = data.split_at(len);
    if text.is_empty() || rest.iter().any(|byte| *byte != 0) {
        return Err(Error::Ambiguous { offset });
    }
    Ok(text.to_vec())
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(|source| Error::Read { source }),
        }
    }
}
