//! A tar that exists already becomes a layer blob: the same bytes under another compression, or a root filesystem that
//! a user brings.

use std::io::{self, Read};

use super::compress::{Accepted, Compressed, Pipeline, decode};
use super::tar::Reader;
use super::write::media_type;
use super::{Error, LayerOptions, Result, ensure_tree};
use crate::store::{LayerDescriptor, Store};

/// Compresses the tar of `layer` as `options` say. The diff ID stays.
pub(crate) fn recompress(store: &Store, layer: &LayerDescriptor, options: LayerOptions) -> Result<LayerDescriptor> {
    let read = |source| Error::Read { source };
    let tar = decode(store.open_blob(&layer.digest)?, Accepted::Layer).map_err(read)?;
    let found = copy(store, tar, &options)?;
    if found.diff_id != layer.diff_id {
        return Err(Error::DiffIdMismatch { expected: layer.diff_id, found: found.diff_id });
    }
    Ok(found)
}

/// Makes a layer of a root filesystem tar, plain or compressed by any codec that `ADD` knows. The tar stays byte for
/// byte, and must be one that reads as a layer.
pub(crate) fn import(store: &Store, tar: impl Read + Send, options: LayerOptions) -> Result<LayerDescriptor> {
    let tar = decode(tar, Accepted::Archive).map_err(|source| Error::Import { source })?;
    let layer = copy(store, tar, &options)?;
    ensure_tree(store, &layer)?;
    Ok(layer)
}

fn copy(store: &Store, mut tar: impl Read, options: &LayerOptions) -> Result<LayerDescriptor> {
    let write = |source| Error::Write { source };
    let blob = store.blob_writer_unhashed()?;
    let mut pipeline = Pipeline::new(blob, options.compression, options.threads).map_err(write)?;
    io::copy(&mut tar, &mut pipeline).map_err(|source| Error::Import { source })?;
    let Compressed { sink, diff_id, digest, size } = pipeline.finish().map_err(write)?;
    sink.commit_as(digest)?;
    let media_type = media_type(options.compression.kind).to_owned();
    Ok(LayerDescriptor { digest, size, diff_id, media_type })
}

/// Returns whether `file` is what [`import`] takes: a tar whose first header is valid, whatever follows, plain or compressed.
pub(crate) fn is_archive(file: impl Read + Send) -> bool {
    decode(file, Accepted::Archive).is_ok_and(|stream| matches!(Reader::new(stream).next(), Ok(Some(_))))
}
