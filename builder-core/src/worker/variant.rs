//! The same layer under another compression. Steps are recorded without regard to compression; a layer that was
//! compressed differently is compressed again, once, instead of being made again.

use super::{BuildWorker, Purpose, key};
use crate::digest::CacheKey;
use crate::error::{Error, ErrorKind};
use crate::image::layer_compression;
use crate::layer::{self, LayerOptions};
use crate::request::{Compression, CompressionKind};
use crate::store::{LayerDescriptor, Record, Store};

fn codec(compression: Compression) -> (&'static str, u8) {
    let name = match compression.kind {
        CompressionKind::Gzip => "gzip",
        CompressionKind::Zstd => "zstd",
        CompressionKind::Uncompressed => "uncompressed",
    };
    (name, layer::effective_level(compression))
}

fn store_error(error: crate::store::Error) -> Error {
    Error::from_source(ErrorKind::Store, &error)
}

/// Notes under which blob the layer is found in this compression.
pub(crate) fn remember(store: &Store, layer: &LayerDescriptor, compression: Compression) -> Result<(), Error> {
    let (name, level) = codec(compression);
    let record = Record { layers: vec![layer.clone()], ..Record::default() };
    store.put_record(&key::variant(layer, name, level), &record).map_err(store_error)
}

/// The key under which a layer of this level is recorded; `None` for one that is not a layer.
pub(super) fn variant_of(layer: &LayerDescriptor, level: u8) -> Option<CacheKey> {
    let kind = layer_compression(&layer.media_type)?;
    let (name, level) = codec(Compression { kind, level: Some(level) });
    Some(key::variant(layer, name, level))
}

/// Notes under which level the layer is found, where that is known.
pub(super) fn remember_level(store: &Store, layer: &LayerDescriptor, level: Option<u8>) -> Result<(), Error> {
    match (layer_compression(&layer.media_type), level) {
        (Some(kind), Some(level)) => remember(store, layer, Compression { kind, level: Some(level) }),
        _ => Ok(()),
    }
}

/// Returns the layer in the compression that `options` ask for, made if need be.
pub(crate) fn ensure(store: &Store, found: &LayerDescriptor, options: LayerOptions) -> Result<LayerDescriptor, Error> {
    let (name, level) = codec(options.compression);
    let key = key::variant(found, name, level);
    // It is not here, and need not be.
    if store.promised_variant(&found.digest) == Some(key) {
        return Ok(found.clone());
    }
    if let Some(record) = store.record(&key).map_err(store_error)?
        && let [layer] = record.layers.as_slice()
    {
        return Ok(layer.clone());
    }
    if layer_compression(&found.media_type) == Some(CompressionKind::Uncompressed)
        && options.compression.kind == CompressionKind::Uncompressed
    {
        return Ok(found.clone());
    }
    let compression = options.compression;
    let layer = layer::recompress(store, found, options).map_err(|e| Error::from_source(ErrorKind::Store, &e))?;
    remember(store, &layer, compression)?;
    Ok(layer)
}

impl BuildWorker<'_> {
    pub(super) fn remember_variant(&self, layer: &LayerDescriptor) -> Result<(), Error> {
        remember(self.store, layer, self.options.compression)
    }

    pub(super) fn variant(&self, layer: &LayerDescriptor) -> Result<LayerDescriptor, Error> {
        if self.options.purpose == Purpose::Plan {
            return Ok(layer.clone());
        }
        ensure(self.store, layer, self.layer_options())
    }
}
