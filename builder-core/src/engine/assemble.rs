//! The image itself: config with rootfs, history and times, and the manifest over its layers.

use std::collections::BTreeSet;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::image::{
    self, Descriptor, Family, HistoryEntry, ImageConfig, MEDIA_TYPE_CONFIG, Manifest, RootFs, layer_compression,
    layer_media_type, rfc3339,
};
use crate::layer::LayerOptions;
use crate::plan::{PlannedHistory, TargetImage};
use crate::store::{self, LayerDescriptor, Store};
use crate::worker;

/// What the solver made of the target.
#[derive(Debug, Clone)]
pub(super) struct Solved<'a> {
    /// What the plan says.
    pub(super) target: &'a TargetImage,
    /// The base image's config, if there is a base.
    pub(super) base: Option<ImageConfig>,
    /// Layers of the whole image, the base's first.
    pub(super) layers: Vec<LayerDescriptor>,
    /// How many of them are the base's.
    pub(super) base_layers: usize,
    /// Steps that made a layer; the others changed nothing.
    pub(super) made_layer: BTreeSet<StepId>,
    /// Seconds since 1970 for `created`.
    pub(super) created: i64,
}

/// The image, in the store.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Names the manifest.
    pub(super) descriptor: Descriptor,
    /// Digest of the config.
    pub(super) config_digest: Digest,
}

impl Solved<'_> {
    /// The config, with history entries that are as many as there are layers.
    fn config(&self) -> ImageConfig {
        let created = rfc3339(self.created);
        let mut config = self.target.config.clone();
        config.created = Some(created.clone());
        let mut base = self.base.clone().unwrap_or_default();
        base.repair_history();
        config.rootfs = RootFs { diff_ids: self.layers.iter().map(|layer| layer.diff_id).collect(), ..base.rootfs };
        let entry = |planned: &PlannedHistory| HistoryEntry {
            created: Some(created.clone()),
            created_by: Some(planned.created_by.clone()),
            comment: Some(planned.comment.to_owned()),
            empty_layer: !planned.layer.is_some_and(|step| self.made_layer.contains(&step)),
            ..HistoryEntry::default()
        };
        config.history = base.history.into_iter().chain(self.target.history.iter().map(entry)).collect();
        config
    }

    /// The image with its own layers compressed as `options` say; layers of the base stay as they are.
    pub(super) fn compressed(&self, store: &Store, options: &LayerOptions) -> Result<Assembled, Error> {
        let mut copy = self.clone();
        for layer in copy.layers.iter_mut().skip(self.base_layers) {
            *layer = worker::compressed_as(store, layer, options.clone())?;
        }
        copy.assemble(store).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    /// Writes config and manifest.
    pub(super) fn assemble(&self, store: &Store) -> Result<Assembled, store::Error> {
        let config = self.config().to_canonical_json();
        let config_digest = store.put_blob(&config)?;
        let layer = |layer: &LayerDescriptor| {
            // One family in one manifest: a base with Docker's media types is described in OCI's.
            let media_type = match layer_compression(&layer.media_type) {
                Some(kind) => layer_media_type(Family::Oci, kind).to_owned(),
                None => layer.media_type.clone(),
            };
            Descriptor::new(media_type, layer.digest, layer.size)
        };
        let layers = self.layers.iter().map(layer).collect();
        let config = Descriptor::new(MEDIA_TYPE_CONFIG, config_digest, config.len() as u64);
        let manifest = Manifest::new(config, layers);
        store.put_blob(&manifest.to_canonical_json())?;
        let descriptor = manifest.descriptor();
        debug_assert!(image::is_manifest(&descriptor.media_type), "an OCI manifest");
        Ok(Assembled { descriptor, config_digest })
    }
}
