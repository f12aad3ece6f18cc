//! Documents and platforms as tables; samples for the tests of others.

mod documents;
mod platforms;

use std::io::Write;

use super::*;
use crate::digest::{DiffId, Digest};
use crate::request::CompressionKind;
use crate::store::Store;

/// A tar with one file of these bytes.
pub(crate) fn tar_of(name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.set_size(bytes.len() as u64);
    header.set_mode(0o644);
    let mut builder = tar::Builder::new(Vec::new());
    builder.append_data(&mut header, name, bytes).unwrap();
    builder.into_inner().unwrap()
}

pub(crate) fn compress(bytes: &[u8], kind: CompressionKind) -> Vec<u8> {
    match kind {
        CompressionKind::Uncompressed => bytes.to_vec(),
        CompressionKind::Zstd => zstd::encode_all(bytes, 1).unwrap(),
        CompressionKind::Gzip => {
            let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
            encoder.write_all(bytes).unwrap();
            encoder.finish().unwrap()
        }
    }
}

/// Stores bytes and names them.
pub(crate) fn put(store: &Store, media_type: &str, bytes: &[u8]) -> Descriptor {
    Descriptor::new(media_type, store.put_blob(bytes).unwrap(), bytes.len() as u64)
}

/// A valid image for `platform` with one layer of each compression, before it is stored.
pub(crate) fn sample(store: &Store, platform: &str) -> (Manifest, ImageConfig) {
    let mut config = ImageConfig::new(&platform.parse().unwrap());
    config.created = Some("2024-05-06T07:08:09Z".to_owned());
    config.config.cmd = vec!["/bin/app".to_owned()];
    let mut layers = Vec::new();
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd, CompressionKind::Uncompressed] {
        let tar = tar_of(&format!("{kind:?} {platform}"), &vec![b'x'; 50_000]);
        config.rootfs.diff_ids.push(DiffId(Digest::of(&tar)));
        config.history.push(HistoryEntry { created: config.created.clone(), ..HistoryEntry::default() });
        layers.push(put(store, layer_media_type(Family::Oci, kind), &compress(&tar, kind)));
    }
    let empty = HistoryEntry { created: config.created.clone(), empty_layer: true, ..HistoryEntry::default() };
    config.history.push(empty);
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MEDIA_TYPE_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(MEDIA_TYPE_CONFIG, Digest::of(b""), 0),
        layers,
        subject: None,
        annotations: std::collections::BTreeMap::new(),
        extra: Extra::new(),
    };
    (manifest, config)
}

/// Stores config and manifest.
pub(crate) fn put_sample(store: &Store, sample: &(Manifest, ImageConfig)) -> Descriptor {
    let (mut manifest, config) = sample.clone();
    manifest.config = put(store, MEDIA_TYPE_CONFIG, &config.to_canonical_json());
    put(store, MEDIA_TYPE_MANIFEST, &manifest.to_canonical_json())
}
