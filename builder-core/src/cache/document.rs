//! The field of the config that makes a manifest a cache, and what it says together with the manifest.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};

use super::Error;
use crate::digest::{CacheKey, DiffId};
use crate::image::{Descriptor, ImageConfig, Manifest, layer_compression};
use crate::store::LayerDescriptor;

/// Name of the field.
pub(crate) const CONFIG_FIELD: &str = "builder.cache";
/// Media type of a stored tree.
pub(super) const MEDIA_TYPE_TREE: &str = "application/vnd.builder.tree.v1";
/// Most bytes of a stored tree: about a million paths.
pub(super) const TREE_LIMIT: u64 = 64 << 20;
/// Version of the form. Another one counts as no cache.
const VERSION: u32 = 1;

/// The field.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Document {
    pub(super) version: u32,
    pub(super) records: Vec<RecordEntry>,
    /// By number of the layer.
    pub(super) levels: Vec<Option<u8>>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) trees: Vec<TreeEntry>,
    /// Layers whose bytes are not shared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) described: Vec<LayerDescriptor>,
}

/// Result of a step.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct RecordEntry {
    /// Hexadecimal.
    pub(super) key: String,
    /// Numbers of layers of the manifest.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) layers: Vec<usize>,
    /// In their place, numbers of layers that are only described.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) described: Vec<usize>,
    /// `created` of the step, in seconds since 1970.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) created: Option<i64>,
    /// When it was really done, where that may be told.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) made: Option<i64>,
}

/// A table of contents.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct TreeEntry {
    pub(super) diff_id: DiffId,
    /// Number of its blob among the layers of the manifest.
    pub(super) blob: usize,
}

impl Default for Document {
    fn default() -> Self {
        Self { version: VERSION, records: Vec::new(), levels: Vec::new(), trees: Vec::new(), described: Vec::new() }
    }
}

/// A layer with the level it was compressed with, as far as known.
pub(super) type LeveledLayer = (LayerDescriptor, Option<u8>);

/// What a cache knows of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Result {
    pub(super) layers: Vec<LeveledLayer>,
    /// Whether the bytes of its layers are not shared.
    pub(super) is_hollow: bool,
    pub(super) created: Option<i64>,
    pub(super) made: Option<i64>,
}

/// What one manifest says, checked as far as it can be without its blobs.
#[derive(Debug, Default)]
pub(super) struct Contents {
    pub(super) results: HashMap<CacheKey, Result>,
    pub(super) trees: HashMap<DiffId, Descriptor>,
}

/// Reads the field; `None` where there is none of this version.
pub(super) fn read(
    name: &str,
    manifest: &Manifest,
    config: &ImageConfig,
) -> std::result::Result<Option<Contents>, Error> {
    let damaged = |reason: String| Error::Damaged { name: name.to_owned(), reason };
    let Some(value) = config.extra.get(CONFIG_FIELD) else { return Ok(None) };
    if value.get("version").and_then(serde_json::Value::as_u64) != Some(VERSION.into()) {
        return Ok(None);
    }
    let document = Document::deserialize(value).map_err(|error| damaged(error.to_string()))?;
    let diff_ids = &config.rootfs.diff_ids;
    if diff_ids.len() > manifest.layers.len() {
        return Err(damaged(format!("{} diff IDs for {} layers", diff_ids.len(), manifest.layers.len())));
    }
    let layer = |number: &usize| -> std::result::Result<LeveledLayer, Error> {
        let (Some(blob), Some(diff_id)) = (manifest.layers.get(*number), diff_ids.get(*number)) else {
            return Err(damaged(format!("a record names layer {number} of {}", diff_ids.len())));
        };
        if layer_compression(&blob.media_type).is_none() || !blob.urls.is_empty() {
            return Err(damaged(format!("layer {number} is {:?}", blob.media_type)));
        }
        let level = document.levels.get(*number).copied().flatten();
        let media_type = blob.media_type.clone();
        Ok((LayerDescriptor { digest: blob.digest, size: blob.size, diff_id: *diff_id, media_type }, level))
    };
    let mut contents = Contents::default();
    for record in &document.records {
        let key = CacheKey::parse(&record.key).ok_or_else(|| damaged(format!("{:?} is no key", record.key)))?;
        let mut layers = record.layers.iter().map(layer).collect::<std::result::Result<Vec<_>, _>>()?;
        for number in &record.described {
            let layer = document.described.get(*number).filter(|layer| layer_compression(&layer.media_type).is_some());
            let layer = layer.ok_or_else(|| damaged(format!("described layer {number} is none")))?;
            layers.push((layer.clone(), None));
        }
        let is_hollow = !record.described.is_empty();
        contents.results.insert(key, Result { layers, is_hollow, created: record.created, made: record.made });
    }
    for tree in &document.trees {
        let blob = manifest.layers.get(tree.blob).filter(|blob| blob.media_type == MEDIA_TYPE_TREE);
        let blob = blob.ok_or_else(|| damaged(format!("blob {} is no table of contents", tree.blob)))?;
        contents.trees.insert(tree.diff_id, blob.clone());
    }
    Ok(Some(contents))
}
