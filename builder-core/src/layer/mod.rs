//! Layers: changes of a file system ↔ tar blobs in the store.
//!
//! TODO docs
mod compress;
mod error;
mod tar;
mod write;

pub(crate) use error::{Error, Result};
pub(crate) use write::{LayerOptions, LayerWriter, WrittenLayer};
