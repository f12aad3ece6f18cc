//! Reads an archive block by block, from untrusted bytes.
//!
//! One entry at a time: [`Reader::next`], then its content piece by piece. Memory is one block, the extended headers of one entry
//! (at most [`MAX_METADATA`]) and one sparse map. Any disagreement of lengths is an error; nothing is resynchronised.

use std::io::{self, ErrorKind, Read};

use super::block::{self, BLOCK, Block};
use super::name::{NameError, normalise};
use super::pax::{Records, SparseRecords};
use super::sparse::{self, LeadingMap, Segment};
use super::{Error, MAX_HOLE_BYTES, MAX_METADATA};
use crate::tree::{Timestamp, Xattrs};

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

/// A part of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// That many bytes, now at the start of the buffer.
    Data(usize),
    /// That many zeros, which the archive does not store.
    Hole(u64),
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

/// What is left of the current entry.
#[derive(Debug, Default)]
struct Body {
    /// Data not yet read, in file order.
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    /// Where in the file the next piece starts.
    position: u64,
    size: u64,
    padding: u64,
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

    /// Reads the next part of the current entry's content; `None` at its end.
    pub(crate) fn next_piece(&mut self, buffer: &mut [u8]) -> Result<Option<Piece>, Error> {
        let segment = loop {
            let body = &mut self.body;
            if body.current.is_none_or(|segment| segment.len == 0) {
                body.current = body.segments.next();
            }
            let end_of_hole = body.current.map_or(body.size, |segment| segment.offset);
            if body.position < end_of_hole {
                let hole = end_of_hole - body.position;
                body.position = end_of_hole;
                return Ok(Some(Piece::Hole(hole)));
            }
            match &mut self.body.current {
                // Empty segments say nothing but the size, at the end of a map.
                Some(segment) if segment.len == 0 => {}
                Some(segment) => break segment,
                None => return self.skip_padding().map(|()| None),
            }
        };
        let want = usize::try_from(segment.len).unwrap_or(usize::MAX).min(buffer.len());
        let got = read_some(&mut self.inner, &mut buffer[..want])?;
        if got == 0 && want > 0 {
            return Err(Error::Truncated { offset: self.entry_offset });
        }
        segment.offset += got as u64;
        segment.len -= got as u64;
        self.body.position += got as u64;
        self.offset += got as u64;
        Ok(Some(Piece::Data(got)))
    }

    /// The current entry's content as a byte stream, holes as zeros. Errors come as [`io::Error`] with [`Error`] inside.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content { reader: self, hole: 0 }
    }

    fn skip_content(&mut self) -> Result<(), Error> {
        let rest = self.body.segments.by_ref().chain(self.body.current.take()).map(|segment| segment.len).sum();
        self.skip(rest)?;
        self.skip_padding()
    }

    fn skip_padding(&mut self) -> Result<(), Error> {
        let padding = std::mem::take(&mut self.body.padding);
        self.skip(padding)
    }

    fn skip(&mut self, len: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut (&mut self.inner).take(len), &mut io::sink());
        let skipped = skipped.map_err(|source| Error::Read { source })?;
        self.offset += skipped;
        if skipped == len { Ok(()) } else { Err(Error::Truncated { offset: self.entry_offset }) }
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

    /// Sets up the content of an entry with `stored` bytes behind its header.
    fn start_body(&mut self, header: &Block, kind: &RawKind, stored: u64, records: &Records) -> Result<(), Error> {
        let offset = self.entry_offset;
        self.body = Body::default();
        let old_gnu = header.kind() == b'S';
        let pax_sparse = records.sparse != SparseRecords::default();
        match kind {
            RawKind::File => {}
            _ if pax_sparse => return Err(Error::Ambiguous { offset }),
            // A link repeats the size of its target, no data; all readers know.
            RawKind::Hardlink { .. } => return Ok(()),
            _ if stored > 0 => return Err(Error::UnexpectedData { offset }),
            _ => return Ok(()),
        }
        let padding = padding(stored);
        let (segments, size, left) = match (old_gnu, pax_sparse) {
            (true, true) => return Err(Error::Ambiguous { offset }),
            (true, false) => self.old_gnu_map(header, stored)?,
            (false, true) => self.pax_map(records, stored)?,
            (false, false) => (vec![Segment { offset: 0, len: stored }], stored, stored),
        };
        sparse::check(&segments, size, left, offset)?;
        self.holes = self.holes.saturating_add(size - left);
        if self.holes > MAX_HOLE_BYTES {
            return Err(Error::TooManyHoles);
        }
        self.body = Body { segments: segments.into_iter(), current: None, position: 0, size, padding };
        Ok(())
    }

    fn old_gnu_map(&mut self, header: &Block, stored: u64) -> Result<(Vec<Segment>, u64, u64), Error> {
        let offset = self.entry_offset;
        if header.dialect() != block::Dialect::Gnu {
            return Err(Error::Type { kind: header.kind(), offset });
        }
        let size = number(header, block::GNU_REAL_SIZE, "real size", offset)?;
        let mut segments = Vec::new();
        let mut ended = sparse::push_old_gnu(&header.0[block::GNU_SPARSE], &mut segments, offset)?;
        let mut more = header.0[block::GNU_IS_EXTENDED] != 0;
        while more {
            let block = self.block()?.ok_or(Error::Truncated { offset })?;
            if ended {
                return Err(Error::SparseMap { offset });
            }
            ended = sparse::push_old_gnu(&block.0[block::GNU_MORE_SPARSE], &mut segments, offset)?;
            more = block.0[block::GNU_MORE_IS_EXTENDED] != 0;
        }
        Ok((segments, size, stored))
    }

    fn pax_map(&mut self, records: &Records, stored: u64) -> Result<(Vec<Segment>, u64, u64), Error> {
        let offset = self.entry_offset;
        let sparse = &records.sparse;
        let size = sparse.real_size.ok_or(Error::SparseMap { offset })?;
        match (sparse.major, sparse.minor) {
            (None | Some(0), None | Some(0 | 1)) => {
                let segments = sparse.segments().ok_or(Error::SparseMap { offset })?;
                Ok((segments, size, stored))
            }
            (Some(1), Some(0)) if sparse.map.is_empty() => {
                let mut map = LeadingMap::default();
                let mut left = stored;
                loop {
                    left = left.checked_sub(BLOCK as u64).ok_or(Error::SparseMap { offset })?;
                    let block = self.block()?.ok_or(Error::Truncated { offset })?;
                    if let Some(segments) = map.push(&block.0, offset)? {
                        return Ok((segments, size, left));
                    }
                }
            }
            _ => Err(Error::SparseMap { offset }),
        }
    }
}

/// Content of one entry as a stream.
#[derive(Debug)]
pub(crate) struct Content<'a, R> {
    reader: &'a mut Reader<R>,
    hole: u64,
}

impl<R: Read> Read for Content<'_, R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if buffer.is_empty() {
            return Ok(0);
        }
        if self.hole == 0 {
            match self.reader.next_piece(buffer).map_err(io::Error::other)? {
                None => return Ok(0),
                Some(Piece::Data(len)) => return Ok(len),
                Some(Piece::Hole(len)) => self.hole = len,
            }
        }
        let len = usize::try_from(self.hole).unwrap_or(usize::MAX).min(buffer.len());
        buffer[..len].fill(0);
        self.hole -= len as u64;
        Ok(len)
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

/// Bytes from `size` to the next block.
fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}

fn read_some(reader: &mut impl Read, buffer: &mut [u8]) -> Result<usize, Error> {
    loop {
        match reader.read(buffer) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            result => return result.map_err(|source| Error::Read { source }),
        }
    }
}
