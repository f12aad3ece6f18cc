//! One 512-byte header block: where its fields are and how numbers stand in them.
//!
//! Numbers are octal text or, with the top bit of the first byte set, big-endian two's complement ("base-256", GNU
//! tar). The codec of the `tar` crate is not used because it wraps negative times. Fields: POSIX.1-1988 (ustar) and
//! `tar.h` of GNU tar for the old sparse format.

use std::ops::Range;

use super::Error;

/// Bytes of a block; everything in a tar is a multiple of it.
pub(super) const BLOCK: usize = 512;

pub(super) const NAME: Range<usize> = 0..100;
pub(super) const MODE: Range<usize> = 100..108;
pub(super) const UID: Range<usize> = 108..116;
pub(super) const GID: Range<usize> = 116..124;
pub(super) const SIZE: Range<usize> = 124..136;
pub(super) const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const TYPE: usize = 156;
pub(super) const LINK_NAME: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
pub(super) const DEV_MAJOR: Range<usize> = 329..337;
pub(super) const DEV_MINOR: Range<usize> = 337..345;
pub(super) const PREFIX: Range<usize> = 345..500;
/// `star` ends the block so and has a shorter prefix, with times behind it.
const STAR_TRAILER: Range<usize> = 508..512;
const STAR_PREFIX: Range<usize> = 345..476;
/// Old GNU sparse: four pairs of offset and length, then "more blocks follow" and the real size.
pub(super) const GNU_SPARSE: Range<usize> = 386..482;
pub(super) const GNU_IS_EXTENDED: usize = 482;
pub(super) const GNU_REAL_SIZE: Range<usize> = 483..495;
/// A continuation block of the old GNU sparse map: 21 pairs, then "more blocks follow".
pub(super) const GNU_MORE_SPARSE: Range<usize> = 0..504;
pub(super) const GNU_MORE_IS_EXTENDED: usize = 504;

const POSIX_MAGIC: &[u8; 8] = b"ustar\x0000";
const GNU_MAGIC: &[u8; 8] = b"ustar  \0";

/// Which extensions of the first tar format the header has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// Name, mode, ids, size, time, type and link only.
    V7,
    /// POSIX ustar and pax.
    Posix,
    /// ustar with a shorter prefix.
    Star,
    /// GNU tar: no prefix, long names and sparse maps of its own.
    Gnu,
}

/// A header block.
#[derive(Clone)]
pub(super) struct Block(pub(super) [u8; BLOCK]);

impl Block {
    /// An empty POSIX header of the given type.
    pub(super) fn posix(kind: u8) -> Self {
        let mut block = Self([0; BLOCK]);
        block.0[TYPE] = kind;
        block.0[MAGIC].copy_from_slice(POSIX_MAGIC);
        block
    }

    /// Whether every byte is zero: half of the end mark.
    pub(super) fn is_zero(&self) -> bool {
        self.0.iter().all(|byte| *byte == 0)
    }

    /// The type flag.
    pub(super) fn kind(&self) -> u8 {
        self.0[TYPE]
    }

    /// The dialect, by magic.
    pub(super) fn dialect(&self) -> Dialect {
        let magic = &self.0[MAGIC];
        if magic == GNU_MAGIC {
            Dialect::Gnu
        } else if magic[..6] != POSIX_MAGIC[..6] {
            Dialect::V7
        } else if &self.0[STAR_TRAILER] == b"tar\0" {
            Dialect::Star
        } else {
            Dialect::Posix
        }
    }

    /// The name of header fields alone, with the prefix where the dialect has one.
    pub(super) fn name(&self) -> Vec<u8> {
        let prefix = match self.dialect() {
            Dialect::Posix => self.text(PREFIX),
            Dialect::Star => self.text(STAR_PREFIX),
            Dialect::V7 | Dialect::Gnu => &[],
        };
        let name = self.text(NAME);
        if prefix.is_empty() { name.to_vec() } else { [prefix, b"/", name].concat() }
    }

    /// A text field up to its first NUL.
    pub(super) fn text(&self, field: Range<usize>) -> &[u8] {
        let bytes = &self.0[field];
        bytes.split(|byte| *byte == 0).next().unwrap_or(bytes)
    }

    /// A numeric field; `name` and `offset` are for the error alone.
    pub(super) fn number(&self, field: Range<usize>, name: &'static str, offset: u64) -> Result<i64, Error> {
        parse_number(&self.0[field]).ok_or(Error::Number { field: name, offset })
    }

    /// Fails unless the checksum is that of the block, taken over unsigned or (old Sun tar) signed bytes.
    pub(super) fn verify_checksum(&self, offset: u64) -> Result<(), Error> {
        let stored = self.number(CHECKSUM, "checksum", offset)?;
        let (unsigned, signed) = self.checksums();
        if stored == unsigned || stored == signed { Ok(()) } else { Err(Error::Checksum { offset }) }
    }

    fn checksums(&self) -> (i64, i64) {
        self.0.iter().enumerate().fold((0, 0), |(unsigned, signed), (at, byte)| {
            let byte = if CHECKSUM.contains(&at) { b' ' } else { *byte };
            (unsigned + i64::from(byte), signed + i64::from(byte.cast_signed()))
        })
    }

    /// Writes the checksum; the last thing done to a header.
    pub(super) fn seal(&mut self) {
        let (sum, _) = self.checksums();
        let text = format!("{sum:06o}\0 ");
        self.0[CHECKSUM].copy_from_slice(text.as_bytes());
    }

    /// Writes `text` and reports whether it fitted; a part of it is written when it did not.
    pub(super) fn set_text(&mut self, field: Range<usize>, text: &[u8]) -> bool {
        let room = field.len();
        let kept = &text[..text.len().min(room)];
        self.0[field.start..field.start + kept.len()].copy_from_slice(kept);
        text.len() <= room
    }

    /// Writes octal digits with a final NUL and reports whether the value fitted; zero is written when it did not.
    pub(super) fn set_octal(&mut self, field: Range<usize>, value: i64) -> bool {
        let digits = field.len() - 1;
        let fits = value >= 0 && (digits >= 21 || value >> (3 * digits) == 0);
        let text = format!("{:0digits$o}\0", if fits { value } else { 0 });
        self.0[field].copy_from_slice(text.as_bytes());
        fits
    }
}

/// Parses octal text or base-256; `None` for anything else, or what no `i64` holds.
pub(super) fn parse_number(field: &[u8]) -> Option<i64> {
    if field.first().is_some_and(|byte| byte & 0x80 != 0) { parse_binary(field) } else { parse_octal(field) }
}

fn parse_binary(field: &[u8]) -> Option<i64> {
    let flip = if field[0] & 0x40 != 0 { 0xff } else { 0 };
    let mut value: u64 = 0;
    for (at, byte) in field.iter().enumerate() {
        // The top bit only marks the form.
        let byte = if at == 0 { (byte ^ flip) & 0x7f } else { byte ^ flip };
        if value >> 56 != 0 {
            return None;
        }
        value = value << 8 | u64::from(byte);
    }
    let value = i64::try_from(value).ok()?;
    Some(if flip == 0 { value } else { !value })
}

fn parse_octal(field: &[u8]) -> Option<i64> {
    let start = field.iter().position(|byte| !matches!(byte, b' ' | 0)).unwrap_or(field.len());
    let text = field[start..].split(|byte| *byte == 0).next().unwrap_or_default();
    let text = text.trim_ascii_end();
    text.iter().try_fold(0_i64, |value, byte| match byte {
        b'0'..=b'7' => value.checked_mul(8)?.checked_add(i64::from(byte - b'0')),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_read_as_gnu_tar_and_go_read_them() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"644     ", Some(0o644)),
            (b"\0\0\0\0\0\0\0\0", Some(0)),
            (b"        ", Some(0)),
            (b"77777777", Some(0o77_777_777)),
            (b"12\x003\0\0\0\0", Some(0o12)),
            (b"12 3\0\0\0\0", None),
            (b"0000648\0", None),
            (b"-000001\0", None),
            (b"0x1\0\0\0\0\0", None),
            (b"\x80\0\0\0\0\0\0\x01", Some(1)),
            (b"\x80\0\0\0\x80\0\0\0", Some(0x8000_0000)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff", Some(-1)),
            (b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x9c", Some(-100)),
            (b"\x80\0\0\0\x7f\xff\xff\xff\xff\xff\xff\xff", Some(i64::MAX)),
            (b"\x80\0\0\0\x80\0\0\0\0\0\0\0", None),
            (b"\x80\x01\0\0\0\0\0\0\0\0\0\0", None),
            (b"777777777777777777777777", None),
        ] {
            assert_eq!(parse_number(field), expected, "{field:?}");
        }
    }

    #[test]
    fn written_numbers_read_back_or_say_that_they_do_not_fit() {
        let mut block = Block::posix(b'0');
        assert!(block.set_octal(UID, 0o7_777_777));
        assert_eq!(block.number(UID, "uid", 0).unwrap(), 0o7_777_777);
        assert!(!block.set_octal(UID, 0o10_000_000));
        assert!(!block.set_octal(MTIME, -1));
        assert_eq!(block.number(MTIME, "mtime", 0).unwrap(), 0);
        block.seal();
        block.verify_checksum(0).unwrap();
        block.0[0] = 1;
        assert!(matches!(block.verify_checksum(7), Err(Error::Checksum { offset: 7 })));
    }
}
