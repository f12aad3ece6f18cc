//! Sparse maps: where in a file the stored bytes go.
//!
//! Four encodings: old GNU (in the header and blocks after it), and pax 0.0, 0.1 (in records) and 1.0 (before the
//! data). All end up as one checked list of [`Segment`]s, so that no arithmetic later can overflow and no map can
//! claim bytes that are not there.

use super::Error;
use super::block::parse_number;

/// Most segments a map may have: what stands in memory for it is bounded.
pub(super) const MAX_SEGMENTS: usize = 100_000;

/// A run of stored bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Segment {
    /// Where in the file it goes.
    pub(super) offset: u64,
    /// Its bytes.
    pub(super) len: u64,
}

/// Checks a map: in order, without overlap, within `size`, and exactly `stored` bytes in sum.
pub(super) fn check(segments: &[Segment], size: u64, stored: u64, offset: u64) -> Result<(), Error> {
    let bad = Error::SparseMap { offset };
    if segments.len() > MAX_SEGMENTS {
        return Err(Error::TooMuchMetadata { offset });
    }
    let mut end = 0;
    let mut sum = 0_u64;
    for segment in segments {
        let next = segment.offset.checked_add(segment.len);
        match next {
            Some(next) if segment.offset >= end && next <= size => end = next,
            _ => return Err(bad),
        }
        // No overflow: disjoint parts of `size`.
        sum += segment.len;
    }
    if sum == stored { Ok(()) } else { Err(bad) }
}

/// Adds the pairs of an old GNU map; a pair that starts with NUL ends it. Returns whether it ended.
pub(super) fn push_old_gnu(pairs: &[u8], segments: &mut Vec<Segment>, offset: u64) -> Result<bool, Error> {
    for pair in pairs.chunks_exact(24) {
        if pair[0] == 0 {
            return Ok(true);
        }
        let field = |bytes| parse_number(bytes).and_then(|n| u64::try_from(n).ok());
        match (field(&pair[..12]), field(&pair[12..])) {
            (Some(offset), Some(len)) => segments.push(Segment { offset, len }),
            _ => return Err(Error::SparseMap { offset }),
        }
    }
    if segments.len() > MAX_SEGMENTS { Err(Error::TooMuchMetadata { offset }) } else { Ok(false) }
}

/// The map of pax 1.0, read as it comes: decimal numbers that each end with a line feed, the first one the count.
#[derive(Debug, Default)]
pub(super) struct LeadingMap {
    expected: Option<usize>,
    numbers: Vec<u64>,
    digits: Vec<u8>,
}

impl LeadingMap {
    /// Takes one block; returns the segments when it was the last one of the map.
    pub(super) fn push(&mut self, block: &[u8], offset: u64) -> Result<Option<Vec<Segment>>, Error> {
        for byte in block {
            if *byte != b'\n' {
                self.digits.push(*byte);
                if self.digits.len() > 20 {
                    return Err(Error::SparseMap { offset });
                }
                continue;
            }
            let value = super::pax::number(&self.digits).ok_or(Error::SparseMap { offset })?;
            self.digits.clear();
            match self.expected {
                None => {
                    let count = usize::try_from(value).ok().filter(|count| *count <= MAX_SEGMENTS);
                    self.expected = Some(count.ok_or(Error::TooMuchMetadata { offset })?);
                }
                Some(_) => self.numbers.push(value),
            }
            if self.expected.is_some_and(|count| self.numbers.len() == 2 * count) {
                let (pairs, _) = self.numbers.as_chunks::<2>();
                return Ok(Some(pairs.iter().map(|[offset, len]| Segment { offset: *offset, len: *len }).collect()));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn segments(pairs: &[(u64, u64)]) -> Vec<Segment> {
        pairs.iter().map(|(offset, len)| Segment { offset: *offset, len: *len }).collect()
    }

    #[test]
    fn maps_must_be_ordered_within_the_size_and_account_for_all_bytes() {
        for (pairs, size, stored, good) in [
            (&[(0, 5), (10, 5)][..], 20, 10, true),
            (&[(20, 0)], 20, 0, true),
            (&[], 7, 0, true),
            (&[(0, 5), (4, 5)], 20, 10, false),
            (&[(10, 5), (0, 5)], 20, 10, false),
            (&[(16, 5)], 20, 5, false),
            (&[(u64::MAX, 2)], 20, 2, false),
            (&[(0, 5)], 20, 6, false),
            (&[(0, 5)], 20, 4, false),
        ] {
            assert_eq!(check(&segments(pairs), size, stored, 0).is_ok(), good, "{pairs:?}");
        }
    }

    #[test]
    fn a_leading_map_may_span_blocks_and_is_bounded() {
        let mut map = LeadingMap::default();
        assert_eq!(map.push(b"2\n0\n5", 0).unwrap(), None);
        assert_eq!(map.push(b"12\n10", 0).unwrap(), None);
        assert_eq!(map.push(b"24\n3\nxxx", 0).unwrap(), Some(segments(&[(0, 512), (1024, 3)])));
        assert!(LeadingMap::default().push(b"1000000\n", 0).is_err(), "count is checked before memory is taken");
        assert!(LeadingMap::default().push(&[b'1'; 40], 0).is_err());
        assert!(LeadingMap::default().push(b"-1\n", 0).is_err());
        assert_eq!(LeadingMap::default().push(b"0\n", 0).unwrap(), Some(vec![]));
    }
}
