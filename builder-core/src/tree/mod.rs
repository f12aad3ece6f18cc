//! The tree of a layer: its table of contents, and what can be asked of a stack of them without unpacking anything.
//!
//! [`LayerTree`] is what one layer says (whiteouts, opaque directories, hard links by target), [`MergedTree`] is what
//! a stack of layers comes to. Both keep paths as bytes in the form that [`Entry::path`] describes, sorted by those
//! bytes, so that everything below a directory is one run of `DIR/…`. [`pattern`] matches such paths against
//! wildcards and ignore files.
//!
//! Pure: nothing here touches a file system. Input is hostile: a tree that decodes keeps its invariants, whoever
//! wrote the bytes.

mod codec;
mod entry;
mod glob;
mod layer_tree;
mod merged;
pub(crate) mod path;
pub(crate) mod pattern;
mod resolve;
pub(crate) mod xattr;

pub(crate) use entry::{Entry, Kind, Metadata, Timestamp, Xattrs};
pub(crate) use glob::ExpandError;
pub(crate) use layer_tree::{Error, LayerTree};
pub(crate) use merged::{MergedTree, Node};
pub(crate) use resolve::{FollowLast, ResolveError, Standing, resolve_with};
