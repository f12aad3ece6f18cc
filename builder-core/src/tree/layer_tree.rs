//! Stand-in with the contract's names: remembers paths alone, as directories. Replaced when the branches meet.

use std::io::{self, Write};

use super::{Entry, Kind, Metadata};

/// Sorted entries of one layer.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LayerTree {
    entries: Vec<Entry>,
}

/// The bytes are no tree.
#[derive(Debug, thiserror::Error)]
#[error("not a tree")]
pub(crate) struct Error;

impl LayerTree {
    /// Checks order.
    pub(crate) fn from_sorted(entries: Vec<Entry>) -> Result<Self, Error> {
        if entries.is_sorted_by(|a, b| a.path < b.path) { Ok(Self { entries }) } else { Err(Error) }
    }

    /// The entries.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Writes all.
    pub(crate) fn encode(&self, w: &mut dyn Write) -> io::Result<()> {
        w.write_all(b"stand-in\n")?;
        self.entries.iter().try_for_each(|entry| {
            w.write_all(&entry.path)?;
            w.write_all(b"\n")
        })
    }

    /// Reads what [`Self::encode`] wrote.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, Error> {
        let text = bytes.strip_prefix(b"stand-in\n").ok_or(Error)?;
        let entry = |path: &[u8]| Entry {
            path: path.to_vec(),
            meta: Metadata::default(),
            kind: Kind::Directory { opaque: false },
        };
        Self::from_sorted(text.split_inclusive(|b| *b == b'\n').map(|line| entry(&line[..line.len() - 1])).collect())
    }
}
