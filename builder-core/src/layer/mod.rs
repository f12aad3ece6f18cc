//! Layers: changes of a file system ↔ tar blobs in the store.
mod compress;
mod diff;
mod error;
mod tar;
mod write;

pub(crate) use diff::{Change, DiffError, diff};
pub(crate) use error::{Error, Result};
pub(crate) use write::{LayerOptions, LayerWriter, WrittenLayer};
