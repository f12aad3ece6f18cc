//! Layers: changes of a file system ↔ tar blobs in the store.
//!
//! `write` makes a blob and its tree from entries, `diff` finds the entries that a command changed, `read` and `unpack`
//! go the other way, `convert` keeps the tar and changes the compression. `tar` and `compress` are the codecs.

mod changeset;
mod compress;
mod convert;
mod diff;
mod error;
mod read;
mod source;
pub(crate) mod tar;
mod unpack;
mod write;

pub(crate) use compress::{Accepted, decode, effective_level};
pub(crate) use convert::{import, is_archive, recompress};
pub(crate) use diff::{Change, DiffError, diff};
pub(crate) use error::{Error, Result};
pub(crate) use read::{ensure_tree, extract_contents};
pub(crate) use unpack::{Lowerdirs, NODE_XATTR, Note, OWNER_XATTR, unpack, unpack_all};
pub(crate) use write::{LayerOptions, LayerWriter, WrittenLayer};
