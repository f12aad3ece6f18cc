//! The same layer under another compression. Steps are recorded without regard to compression; a layer that was
//! compressed differently is compressed again, once, instead of being made again.

use super::{BuildWorker, Purpose, key};
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

/// Returns the layer in the compression that `options` ask for, made if need be.
pub(crate) fn ensure(store: &Store, found: &LayerDescriptor, options: LayerOptions) -> Result<LayerDescriptor, Error> {
    let (name, level) = codec(options.compression);
    let key = key::variant(found, name, level);
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
