//! The layers that a build adds as one, remembered like the same layer under another compression.

use super::{key, variant};
use crate::error::{Error, ErrorKind};
use crate::layer::{self, LayerOptions};
use crate::store::{LayerDescriptor, Record, Store};

/// Makes one layer of those of `layers` from the index `first` on, or finds it; none if nothing is left of them.
pub(crate) fn squashed(
    store: &Store,
    layers: &[LayerDescriptor],
    first: usize,
    options: LayerOptions,
) -> Result<Option<LayerDescriptor>, Error> {
    if layers.len() - first < 2 {
        return Ok(layers.get(first).cloned());
    }
    let failed = |error: &crate::store::Error| Error::from_source(ErrorKind::Store, error);
    let key = key::squash(layers, first, options.clamp_mtime);
    if let Some(record) = store.record(&key).map_err(|error| failed(&error))? {
        let found = record.layers.first();
        return found.map(|layer| variant::ensure(store, layer, options)).transpose();
    }
    let compression = options.compression;
    let made = layer::squash(store, layers, first, options);
    let made = made.map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let record = Record { layers: made.iter().cloned().collect(), ..Record::default() };
    store.put_record(&key, &record).map_err(|error| failed(&error))?;
    if let Some(layer) = &made {
        variant::remember(store, layer, compression)?;
    }
    Ok(made)
}
