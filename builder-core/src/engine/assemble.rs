//! The image itself: config with rootfs, history and times, the manifest over its layers, and the index over the images
//! of several platforms.

use std::collections::BTreeSet;

use super::annotate::{self, Annotations};
use crate::cache;
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::image::{
    self, Descriptor, Family, HistoryEntry, ImageConfig, Index, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG,
    MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Manifest, RootFs,
    layer_compression, layer_media_type,
};
use crate::layer::{LayerOptions, effective_level};
use crate::plan::{PlannedHistory, TargetImage};
use crate::request::{Annotation, AnnotationPlace, CompressionKind, ImageForm, MediaTypes};
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
    /// `created` of config and new history entries, RFC 3339.
    pub(super) created: String,
    /// Results of steps that its config shall name.
    pub(super) inline: Option<Inline>,
    /// What its manifest says of the base.
    pub(super) of_base: Annotations,
}

/// A cache inside the image.
#[derive(Debug, Clone)]
pub(super) struct Inline {
    /// Results of the steps that made its layers.
    pub(super) entries: Vec<cache::Entry>,
    /// Level that these layers are compressed with.
    pub(super) level: u8,
}

/// The image, in the store.
#[derive(Debug)]
pub(super) struct Assembled {
    /// Names the manifest or index.
    pub(super) descriptor: Descriptor,
    /// Digest of the config; an index has none.
    pub(super) config_digest: Option<Digest>,
}

/// How the images of a build are put under one digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shape {
    /// The only one stands for itself.
    Manifest,
    /// An index names them.
    Index,
}

/// What a build made, an image for each platform.
#[derive(Debug)]
pub(super) struct Product<'a> {
    /// The images, in the order their platforms were asked for; at least one.
    pub(super) images: Vec<Solved<'a>>,
    /// What is over them.
    pub(super) shape: Shape,
    /// What is to stand on them in every form.
    pub(super) annotations: &'a [Annotation],
}

/// What the documents of an image are like.
#[derive(Debug, Clone, Copy)]
struct Style<'a> {
    media_types: MediaTypes,
    annotations: &'a [Annotation],
}

impl Product<'_> {
    /// The product in the form that an output wants.
    pub(super) fn in_form(&self, store: &Store, form: &ImageForm, options: &LayerOptions) -> Result<Assembled, Error> {
        let annotations = [self.annotations, &form.annotations].concat();
        let style = Style { media_types: form.media_types, annotations: &annotations };
        let images = self.images.iter().map(|image| image.in_form(store, (form, style), options));
        let images = images.collect::<Result<Vec<_>, _>>()?;
        self.join(store, images, style).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    /// Writes configs, manifests and index.
    pub(super) fn assemble(&self, store: &Store, media_types: MediaTypes) -> Result<Assembled, store::Error> {
        let style = Style { media_types, annotations: self.annotations };
        let images = self.images.iter().map(|image| image.assemble(store, style));
        self.join(store, images.collect::<Result<Vec<_>, _>>()?, style)
    }

    /// Puts an index over the images where there is to be one.
    fn join(&self, store: &Store, images: Vec<Assembled>, style: Style<'_>) -> Result<Assembled, store::Error> {
        let index = |images: Vec<Assembled>| {
            let described = images.into_iter().zip(&self.images).map(|(assembled, image)| Descriptor {
                platform: Some(image.target.config.platform()),
                ..assembled.descriptor
            });
            let media_type = match style.media_types {
                MediaTypes::Oci => MEDIA_TYPE_INDEX,
                MediaTypes::Docker => MEDIA_TYPE_DOCKER_LIST,
            };
            let manifests = described.collect();
            let mut index = Index { media_type: Some(media_type.to_owned()), manifests, ..Index::default() };
            index.annotations = annotate::at(style.annotations, AnnotationPlace::Index, None);
            let bytes = index.to_canonical_json();
            let digest = store.put_blob(&bytes)?;
            let mut descriptor = Descriptor::new(media_type, digest, bytes.len() as u64);
            descriptor.annotations = annotate::at(style.annotations, AnnotationPlace::IndexDescriptor, None);
            Ok(Assembled { descriptor, config_digest: None })
        };
        match self.shape {
            Shape::Index => index(images),
            Shape::Manifest => match <[Assembled; 1]>::try_from(images) {
                Ok([image]) => Ok(image),
                Err(images) => index(images),
            },
        }
    }
}

impl Solved<'_> {
    /// The config, with history entries that are as many as there are layers.
    fn config(&self) -> ImageConfig {
        let created = self.created.clone();
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
        // That of a base image speaks of other steps.
        config.extra.remove(cache::CONFIG_FIELD);
        if let Some(inline) = self.inline.as_ref().and_then(|inline| self.inline_field(inline)) {
            config.extra.insert(cache::CONFIG_FIELD.to_owned(), inline);
        }
        config.history = base.history.into_iter().chain(self.target.history.iter().map(entry)).collect();
        config
    }

    fn inline_field(&self, inline: &Inline) -> Option<serde_json::Value> {
        let level = |number: usize| (number >= self.base_layers).then_some(inline.level);
        let layers: Vec<_> = self.layers.iter().enumerate().map(|(number, l)| (l.clone(), level(number))).collect();
        cache::inline(&inline.entries, &layers)
    }

    /// Makes one layer of the image's own. In the history the last step that had one carries it.
    pub(super) fn squash(&mut self, store: &Store, options: &LayerOptions) -> Result<(), Error> {
        let one = worker::squashed(store, &self.layers, self.base_layers, options.clone())?;
        let mut steps = self.target.history.iter().filter_map(|entry| entry.layer);
        let last = steps.rfind(|step| self.made_layer.contains(step));
        self.made_layer = last.filter(|_| one.is_some()).into_iter().collect();
        self.layers.truncate(self.base_layers);
        self.layers.extend(one);
        Ok(())
    }

    /// The image in the form that an output wants: its own layers compressed as `options` say. Layers of the base stay
    /// as they are unless the form says otherwise.
    fn in_form(
        &self,
        store: &Store,
        (form, style): (&ImageForm, Style<'_>),
        options: &LayerOptions,
    ) -> Result<Assembled, Error> {
        let wanted = options.compression.kind;
        let mut copy = self.clone();
        if let Some(inline) = &mut copy.inline {
            inline.level = effective_level(options.compression);
        }
        for (number, layer) in copy.layers.iter_mut().enumerate() {
            let own = number >= self.base_layers;
            if own || (form.force_compression && layer_compression(&layer.media_type) != Some(wanted)) {
                *layer = worker::compressed_as(store, layer, options.clone())?;
            }
        }
        let is_zstd = |layer: &LayerDescriptor| layer_compression(&layer.media_type) == Some(CompressionKind::Zstd);
        if form.media_types == MediaTypes::Docker && copy.layers.iter().any(is_zstd) {
            let error = Error::new(ErrorKind::Request, "Docker's media types have none for zstd");
            return Err(error.hint("leave out oci-mediatypes=false, or say compression=gzip,force-compression=true"));
        }
        copy.assemble(store, style).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    /// Writes config and manifest.
    fn assemble(&self, store: &Store, style: Style<'_>) -> Result<Assembled, store::Error> {
        let (family, config_type, manifest_type) = match style.media_types {
            MediaTypes::Oci => (Family::Oci, MEDIA_TYPE_CONFIG, MEDIA_TYPE_MANIFEST),
            MediaTypes::Docker => (Family::Docker, MEDIA_TYPE_DOCKER_CONFIG, MEDIA_TYPE_DOCKER_MANIFEST),
        };
        let config = self.config().to_canonical_json();
        let config_digest = store.put_blob(&config)?;
        let layer = |layer: &LayerDescriptor| {
            // One family in one manifest: a base with the other's media types is described anew.
            let media_type = match layer_compression(&layer.media_type) {
                Some(kind) => layer_media_type(family, kind).to_owned(),
                None => layer.media_type.clone(),
            };
            Descriptor::new(media_type, layer.digest, layer.size)
        };
        let layers = self.layers.iter().map(layer).collect();
        let config = Descriptor::new(config_type, config_digest, config.len() as u64);
        let mut manifest = Manifest::new(config, layers);
        manifest.media_type = Some(manifest_type.to_owned());
        let platform = self.target.config.platform();
        let annotations = |place| annotate::at(style.annotations, place, Some(&platform));
        if style.media_types == MediaTypes::Oci {
            manifest.annotations = self.of_base.clone();
            manifest.annotations.extend(annotations(AnnotationPlace::Manifest));
        }
        store.put_blob(&manifest.to_canonical_json())?;
        let mut descriptor = manifest.descriptor();
        descriptor.annotations = annotations(AnnotationPlace::ManifestDescriptor);
        debug_assert!(image::is_manifest(&descriptor.media_type), "a manifest");
        Ok(Assembled { descriptor, config_digest: Some(config_digest) })
    }
}
