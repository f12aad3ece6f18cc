//! Content of an entry: data, holes and padding.

use std::io::{self, Read};

use super::{RawKind, Reader, number, read_some};
use crate::layer::tar::block::{self, BLOCK, Block};
use crate::layer::tar::pax::{Records, SparseRecords};
use crate::layer::tar::sparse::{self, LeadingMap, Segment};
use crate::layer::tar::{Error, MAX_HOLE_BYTES};

/// A part of a file's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Piece {
    /// That many bytes, now at the start of the buffer.
    Data(usize),
    /// That many zeros, which the archive does not store.
    Hole(u64),
}

/// What is left of the current entry.
#[derive(Debug, Default)]
pub(super) struct Body {
    /// Data not yet read, in file order.
    segments: std::vec::IntoIter<Segment>,
    current: Option<Segment>,
    /// Where in the file the next piece starts.
    position: u64,
    pub(super) size: u64,
    padding: u64,
}

impl<R: Read> Reader<R> {
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

    /// The current entry's content as a byte stream, holes as zeros. Errors come as [`io::Error`] with [`Error`]
    /// inside.
    pub(crate) fn content(&mut self) -> Content<'_, R> {
        Content { reader: self, hole: 0 }
    }

    pub(super) fn skip_content(&mut self) -> Result<(), Error> {
        let rest = self.body.segments.by_ref().chain(self.body.current.take()).map(|segment| segment.len).sum();
        self.skip(rest)?;
        self.skip_padding()
    }

    fn skip_padding(&mut self) -> Result<(), Error> {
        let padding = std::mem::take(&mut self.body.padding);
        self.skip(padding)
    }

    pub(super) fn skip(&mut self, len: u64) -> Result<(), Error> {
        let skipped = io::copy(&mut (&mut self.inner).take(len), &mut io::sink());
        let skipped = skipped.map_err(|source| Error::Read { source })?;
        self.offset += skipped;
        if skipped == len { Ok(()) } else { Err(Error::Truncated { offset: self.entry_offset }) }
    }

    /// Sets up the content of an entry with `stored` bytes behind its header.
    pub(super) fn start_body(
        &mut self,
        header: &Block,
        kind: &RawKind,
        stored: u64,
        records: &Records,
    ) -> Result<(), Error> {
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

/// Bytes from `size` to the next block.
pub(super) fn padding(size: u64) -> u64 {
    size.wrapping_neg() % BLOCK as u64
}
