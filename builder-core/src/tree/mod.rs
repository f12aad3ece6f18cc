//! The tree of a layer: its table of contents, and what can be asked of a stack of them without unpacking anything.

mod entry;
mod layer_tree;

pub(crate) use entry::{Entry, Kind, Metadata, Timestamp, Xattrs};
pub(crate) use layer_tree::LayerTree;
