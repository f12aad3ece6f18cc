//! Layers: changes of a file system ↔ tar blobs in the store.
//!
//! ```text
//! entries, file bytes ─▶ LayerWriter: tar ─▶ compress ─▶ blob + tree                      (write)
//! blob ─▶ inflate, hash ─▶ tar ─▶ changeset ─┬▶ tree                                      (ensure_tree)
//!                                            ├▶ bytes of single files                     (extract_contents)
//!                                            └▶ directory in overlay form + tree          (unpack)
//! ```
//!
//! [`mod@tar`] knows archives and nothing of layers; [`compress`] knows bytes only; [`changeset`] knows what an archive
//! means as a layer, and is the one place that does: the tree of a layer and its unpacked form come from the same
//! model. Mounting, and what goes into a layer, are decided elsewhere.
//!
//! Invariants. A layer that is written here lists every directory above its entries. Bytes of a new layer depend on
//! entries, codec and level alone. Nothing of a blob is believed before its diff ID has proved right. Memory is
//! bounded by buffers and by the number of paths, never by the size of files.
//!
//! `diff` finds what a command changed in an upper directory; `convert` keeps a tar and changes its compression;
//! `squash` makes one layer of several.
//! Rules: image-spec `layer.md`.

mod changeset;
mod compress;
mod convert;
mod diff;
mod error;
mod read;
mod source;
mod squash;
pub(crate) mod tar;
mod unpack;
mod write;

pub(crate) use compress::{Accepted, decode, effective_level};
pub(crate) use convert::{import, is_archive, recompress};
pub(crate) use diff::{Change, diff};
pub(crate) use error::{Error, Result};
#[cfg(any(test, fuzzing))]
pub(crate) use read::tree_of;
pub(crate) use read::{ensure_tree, extract_contents};
pub(crate) use squash::squash;
pub(crate) use unpack::{describe_notes, place, unpack_all};
pub(crate) use write::{LayerOptions, LayerWriter};
