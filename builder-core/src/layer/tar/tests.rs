//! The reader against archives made by hand, and against what the writer makes.

mod hostile;
mod interop;
mod round_trip;

use std::io::Read;

use super::block::{self, Block};
use super::*;
use crate::digest::ContentHash;
use crate::tree::{Entry, Kind, Metadata, Timestamp};

/// A header of an archive made by hand.
fn header(name: &[u8], kind: u8, size: u64) -> Block {
    let mut header = Block::posix(kind);
    assert!(header.set_text(block::NAME, name));
    header.set_octal(block::MODE, 0o644);
    header.set_octal(block::SIZE, size.try_into().unwrap());
    header.seal();
    header
}

/// Content in whole blocks.
fn padded(data: &[u8]) -> Vec<u8> {
    let mut out = data.to_vec();
    out.resize(data.len().next_multiple_of(512), 0);
    out
}

/// A member: header and content.
fn member(name: &[u8], kind: u8, data: &[u8]) -> Vec<u8> {
    [&header(name, kind, data.len() as u64).0[..], &padded(data)].concat()
}

/// A header changed after the fact.
fn with(mut header: Block, change: impl FnOnce(&mut Block)) -> Vec<u8> {
    change(&mut header);
    header.seal();
    header.0.to_vec()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let record = |(key, value): &(&str, &str)| {
        let rest = key.len() + value.len() + 3;
        let len = (rest + 1..).find(|len| rest + len.to_string().len() == *len).unwrap();
        format!("{len} {key}={value}\n").into_bytes()
    };
    member(b"PaxHeaders.0/x", b'x', &records.iter().flat_map(record).collect::<Vec<_>>())
}

fn end() -> Vec<u8> {
    vec![0; 1024]
}

/// Every entry with its content.
fn read_all(archive: &[u8]) -> Result<Vec<(RawEntry, Vec<u8>)>, Error> {
    let mut reader = Reader::new(archive);
    let mut all = Vec::new();
    while let Some(entry) = reader.next()? {
        let mut content = Vec::new();
        if let Err(error) = reader.content().read_to_end(&mut content) {
            return Err(match error.downcast::<Error>() {
                Ok(error) => error,
                Err(source) => Error::Read { source },
            });
        }
        all.push((entry, content));
    }
    Ok(all)
}

fn names(archive: &[u8]) -> Result<Vec<String>, Error> {
    Ok(read_all(archive)?.into_iter().map(|(entry, _)| String::from_utf8_lossy(&entry.name).into_owned()).collect())
}

fn write_all(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry).unwrap();
        for part in content.chunks(1000) {
            writer.write_content(part).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn file(path: &[u8], size: usize) -> Entry {
    let meta = Metadata { mode: 0o644, ..Metadata::default() };
    Entry { path: path.to_vec(), meta, kind: Kind::File { size: size as u64, content: ContentHash([0; 32]) } }
}
