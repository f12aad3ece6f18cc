//! Extended header records: `LENGTH KEY=VALUE\n`, with LENGTH in decimal over the whole record.
//!
//! Values are bytes of any kind, line feeds included, so records are framed by their length alone; whatever does not
//! fit the frame is an error, never skipped (POSIX.1-2001 "pax Extended Header"; `SCHILY.xattr.` from star,
//! `LIBARCHIVE.xattr.` from bsdtar, `GNU.sparse.` from GNU tar).

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};

use super::Error;
use super::sparse::Segment;
use crate::tree::{Timestamp, Xattrs};

const XATTR: &[u8] = b"SCHILY.xattr.";
const LIBARCHIVE_XATTR: &[u8] = b"LIBARCHIVE.xattr.";
const SPARSE: &[u8] = b"GNU.sparse.";

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_encode_padding(false).with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// What extended headers say of one entry; `None` where they say nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Records {
    pub(super) path: Option<Vec<u8>>,
    pub(super) link_path: Option<Vec<u8>>,
    pub(super) size: Option<u64>,
    pub(super) uid: Option<u32>,
    pub(super) gid: Option<u32>,
    pub(super) mtime: Option<Timestamp>,
    pub(super) xattrs: Xattrs,
    pub(super) sparse: SparseRecords,
}

/// The `GNU.sparse.*` records.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SparseRecords {
    pub(super) major: Option<u64>,
    pub(super) minor: Option<u64>,
    pub(super) name: Option<Vec<u8>>,
    /// `GNU.sparse.size` (0.x) or `GNU.sparse.realsize` (1.0).
    pub(super) real_size: Option<u64>,
    pub(super) segment_count: Option<u64>,
    /// `GNU.sparse.offset`/`.numbytes` pairs of 0.0 or the list `GNU.sparse.map` of 0.1, as numbers in order.
    pub(super) map: Vec<u64>,
}

impl SparseRecords {
    /// The map of versions 0.0 and 0.1.
    pub(super) fn segments(&self) -> Option<Vec<Segment>> {
        let (pairs, rest) = self.map.as_chunks::<2>();
        let counted = self.segment_count.is_none_or(|count| usize::try_from(count) == Ok(pairs.len()));
        (rest.is_empty() && counted)
            .then(|| pairs.iter().map(|[offset, len]| Segment { offset: *offset, len: *len }).collect())
    }
}

impl Records {
    /// Adds the records of one extended header, later ones winning; an empty value takes a record back.
    pub(super) fn extend(&mut self, mut data: &[u8], offset: u64) -> Result<(), Error> {
        while !data.is_empty() {
            let (key, value, rest) = split_record(data).ok_or(Error::Pax { offset })?;
            self.set(key, value).ok_or_else(|| Error::PaxRecord { key: key.escape_ascii().to_string(), offset })?;
            data = rest;
        }
        Ok(())
    }

    /// Whether a record is present that can only be meant for one entry. What remains has a fixed size.
    pub(super) fn names_one_entry(&self) -> bool {
        let Self { path, link_path, size, xattrs, sparse, .. } = self;
        let named = path.is_some() || link_path.is_some() || size.is_some();
        named || !xattrs.is_empty() || *sparse != SparseRecords::default()
    }

    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"path" => self.path = text(value)?,
            b"linkpath" => self.link_path = text(value)?,
            b"size" => self.size = optional(value, number)?,
            b"uid" => self.uid = optional(value, id)?,
            b"gid" => self.gid = optional(value, id)?,
            b"mtime" => self.mtime = optional(value, parse_time)?,
            _ if key.starts_with(SPARSE) => self.sparse.set(&key[SPARSE.len()..], value)?,
            _ if key.starts_with(XATTR) => self.set_xattr(key[XATTR.len()..].to_vec(), value.to_vec())?,
            _ if key.starts_with(LIBARCHIVE_XATTR) => {
                let name = url_decode(&key[LIBARCHIVE_XATTR.len()..])?;
                // bsdtar writes both forms; the plain one needs no decoding and wins.
                if !self.xattrs.contains_key(&name) {
                    self.set_xattr(name, BASE64.decode(value).ok()?)?;
                }
            }
            // Times we do not keep, user and group names (ids count), comments, vendor records.
            _ => {}
        }
        Some(())
    }

    fn set_xattr(&mut self, name: Vec<u8>, value: Vec<u8>) -> Option<()> {
        if name.is_empty() || name.contains(&0) {
            return None;
        }
        self.xattrs.insert(name, value);
        Some(())
    }
}

impl SparseRecords {
    fn set(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        match key {
            b"major" => self.major = Some(number(value)?),
            b"minor" => self.minor = Some(number(value)?),
            b"name" => self.name = text(value)?,
            b"size" | b"realsize" => self.real_size = Some(number(value)?),
            b"numblocks" => self.segment_count = Some(number(value)?),
            // 0.0 repeats the two keys in turn; out of turn the pairs would mean something else.
            b"offset" if self.map.len().is_multiple_of(2) => self.map.push(number(value)?),
            b"numbytes" if !self.map.len().is_multiple_of(2) => self.map.push(number(value)?),
            b"map" if self.map.is_empty() && value.is_empty() => {}
            b"map" if self.map.is_empty() => {
                self.map = value.split(|byte| *byte == b',').map(number).collect::<Option<_>>()?;
            }
            _ => return None,
        }
        Some(())
    }
}

/// Splits the first record off: key, value, what follows.
fn split_record(data: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let space = data.iter().take(20).position(|byte| *byte == b' ')?;
    let len = usize::try_from(number(&data[..space])?).ok()?;
    let record = data.get(space + 1..len)?.strip_suffix(b"\n")?;
    let equals = record.iter().position(|byte| *byte == b'=')?;
    let (key, value) = (&record[..equals], &record[equals + 1..]);
    (!key.is_empty() && !key.contains(&0)).then(|| (key, value, &data[len..]))
}

fn text(value: &[u8]) -> Option<Option<Vec<u8>>> {
    (!value.contains(&0)).then(|| (!value.is_empty()).then(|| value.to_vec()))
}

fn optional<T>(value: &[u8], parse: fn(&[u8]) -> Option<T>) -> Option<Option<T>> {
    if value.is_empty() { Some(None) } else { parse(value).map(Some) }
}

/// Parses decimal digits and nothing else, up to what a file offset can be.
pub(super) fn number(text: &[u8]) -> Option<u64> {
    let digits = !text.is_empty() && text.iter().all(u8::is_ascii_digit);
    let value = digits.then(|| std::str::from_utf8(text).ok()?.parse::<u64>().ok()).flatten()?;
    i64::try_from(value).is_ok().then_some(value)
}

fn id(text: &[u8]) -> Option<u32> {
    number(text).and_then(super::id)
}

/// Parses `[-]SECONDS[.FRACTION]`; digits beyond nanoseconds are dropped.
fn parse_time(text: &[u8]) -> Option<Timestamp> {
    let (negative, text) = text.strip_prefix(b"-").map_or((false, text), |rest| (true, rest));
    let mut parts = text.splitn(2, |byte| *byte == b'.');
    let secs = i64::try_from(number(parts.next()?)?).ok()?;
    let fraction = parts.next().unwrap_or_default();
    if !fraction.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let digits = fraction.iter().chain(std::iter::repeat(&b'0')).take(9);
    let nanos = digits.fold(0, |value: u32, digit| value * 10 + u32::from(digit - b'0'));
    Some(match (negative, nanos) {
        (false, nanos) => Timestamp { secs, nanos },
        (true, 0) => Timestamp { secs: -secs, nanos: 0 },
        // Nanoseconds count forward: -1.25 is 0.75 after -2.
        (true, nanos) => Timestamp { secs: -secs - 1, nanos: 1_000_000_000 - nanos },
    })
}

/// Writes a time as [`parse_time`] reads it, without trailing zeros.
pub(super) fn format_time(time: Timestamp) -> String {
    if time.nanos == 0 {
        return time.secs.to_string();
    }
    let (sign, secs, nanos) = if time.secs < 0 {
        ("-", (time.secs + 1).unsigned_abs(), 1_000_000_000 - time.nanos)
    } else {
        ("", time.secs.unsigned_abs(), time.nanos)
    };
    format!("{sign}{secs}.{nanos:09}").trim_end_matches('0').to_owned()
}

/// Formats one record.
fn format_record(key: &[u8], value: &[u8]) -> Vec<u8> {
    // The length counts its own digits, which may add one.
    let rest = key.len() + value.len() + 3;
    let guess = rest + rest.to_string().len();
    let len = rest + guess.to_string().len();
    [len.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// Records to write, sorted by key as Go's `archive/tar` sorts them.
#[derive(Debug, Default)]
pub(super) struct NewRecords(BTreeMap<Vec<u8>, Vec<u8>>);

impl NewRecords {
    /// Sets a record.
    pub(super) fn set(&mut self, key: &[u8], value: impl Into<Vec<u8>>) {
        self.0.insert(key.to_vec(), value.into());
    }

    /// Sets an extended attribute. A name with `=` cannot stand in a key and takes the form bsdtar has for it.
    pub(super) fn set_xattr(&mut self, name: &[u8], value: &[u8]) {
        if name.contains(&b'=') {
            self.set(&[LIBARCHIVE_XATTR, &url_encode(name)].concat(), BASE64.encode(value));
        } else {
            self.set(&[XATTR, name].concat(), value);
        }
    }

    /// Returns the bytes of all records, or `None` when there are none.
    pub(super) fn encode(&self) -> Option<Vec<u8>> {
        (!self.0.is_empty()).then(|| self.0.iter().flat_map(|(key, value)| format_record(key, value)).collect())
    }
}

fn url_encode(name: &[u8]) -> Vec<u8> {
    let plain = |byte: &u8| byte.is_ascii_graphic() && !matches!(byte, b'%' | b'=');
    name.iter().flat_map(|byte| if plain(byte) { vec![*byte] } else { format!("%{byte:02X}").into_bytes() }).collect()
}

fn url_decode(text: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((byte, after)) = rest.split_first() {
        if *byte == b'%' {
            let digits = std::str::from_utf8(after.get(..2)?).ok()?;
            out.push(u8::from_str_radix(digits, 16).ok()?);
            rest = &after[2..];
        } else {
            out.push(*byte);
            rest = after;
        }
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(data: &[u8]) -> Result<Records, Error> {
        let mut records = Records::default();
        records.extend(data, 0).map(|()| records)
    }

    #[test]
    fn records_are_framed_by_length_and_never_by_line_feeds() {
        // The value of the attribute looks like a record; a reader that splits at line feeds takes the bait.
        let value = b"x\n22 linkpath=/etc/evil\n\x00\xff";
        let records = parse(&format_record(b"SCHILY.xattr.user.a", value)).unwrap();
        assert_eq!(records.link_path, None);
        assert_eq!(records.xattrs.get(&b"user.a"[..]).unwrap(), value);
    }

    #[test]
    fn broken_records_are_errors() {
        for bad in [
            &b"4 a=\n"[..],
            b"6 a=b",
            b"7 a=b\n",
            b"x a=b\n",
            b" a=b\n",
            b"-6 a=b\n",
            b"06a=b\n",
            b"0 a=b\n",
            b"1 a=b\n",
            b"6 a=b\n\0",
            b"6 =ab\n",
            b"6 abc\n",
            b"99999999999999999999999 a=b\n",
            b"9 size=-\n",
            b"11 size=-1\n",
            b"11 size=+1\n",
            b"14 path=a\x00b/c\n",
            b"18 uid=4294967295\n",
            b"16 mtime=1.2.3\n",
            b"11 mtime=\x00\n",
            b"16 SCHILY.xattr.=\n",
        ] {
            assert!(parse(bad).is_err(), "{:?}", bad.escape_ascii().to_string());
        }
        assert!(parse(b"6 a=b\n").is_ok(), "unknown keys are not ours to judge");
    }

    #[test]
    fn an_empty_value_takes_a_record_back() {
        let data = [format_record(b"path", b"a"), format_record(b"path", b"")].concat();
        assert_eq!(parse(&data).unwrap().path, None);
    }

    #[test]
    fn times_have_nanoseconds_and_signs() {
        for (text, secs, nanos) in [
            ("0", 0, 0),
            ("1700000000", 1_700_000_000, 0),
            ("1.5", 1, 500_000_000),
            ("1.000000001", 1, 1),
            ("-1", -1, 0),
            ("-1.25", -2, 750_000_000),
            ("-0.000000001", -1, 999_999_999),
        ] {
            let time = Timestamp { secs, nanos };
            assert_eq!(parse_time(text.as_bytes()), Some(time), "{text}");
            assert_eq!(format_time(time), text);
        }
        assert_eq!(parse_time(b"1.0000000019"), Some(Timestamp { secs: 1, nanos: 1 }));
        assert_eq!(parse_time(b"1."), Some(Timestamp { secs: 1, nanos: 0 }));
        for bad in ["", ".5", "1.x", "--1", "1e3", "9223372036854775808"] {
            assert_eq!(parse_time(bad.as_bytes()), None, "{bad}");
        }
    }

    #[test]
    fn lengths_count_their_own_digits() {
        for len in [1, 4, 5, 6, 90, 91, 92, 93, 94, 95, 990, 991, 992, 993, 9990, 70_000] {
            let value = vec![b'v'; len];
            let record = format_record(b"k", &value);
            assert_eq!(split_record(&record), Some((&b"k"[..], &value[..], &b""[..])), "{len}");
        }
    }

    #[test]
    fn attribute_names_with_an_equals_sign_survive() {
        let mut new = NewRecords::default();
        new.set_xattr(b"user.a=b%", b"\x00\xfe");
        let records = parse(&new.encode().unwrap()).unwrap();
        assert_eq!(records.xattrs.get(&b"user.a=b%"[..]).unwrap(), b"\x00\xfe");
    }
}
