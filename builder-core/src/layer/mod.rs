//! Layers: changes of a file system ↔ tar blobs in the store.
//!
//! TODO docs
mod changeset;
mod compress;
mod error;
mod read;
mod source;
mod tar;
mod unpack;
mod write;

pub(crate) use error::{Error, Result};
pub(crate) use read::{ensure_tree, extract_contents};
pub(crate) use unpack::{Lowerdirs, NODE_XATTR, Note, OWNER_XATTR, unpack, unpack_all};
pub(crate) use write::{LayerOptions, LayerWriter, WrittenLayer};
