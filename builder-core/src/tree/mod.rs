//! The tree of a layer: its table of contents, and what can be asked of a stack of them without unpacking anything.

mod entry;

pub(crate) use entry::{Entry, Kind, Metadata, Timestamp, Xattrs};
