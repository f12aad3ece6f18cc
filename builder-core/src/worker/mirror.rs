//! An image as its registry has it: the index with all that it names, or the manifest for one platform.

use super::images::{ImageError, Images, Place};
use crate::image::{self, Descriptor, Index, Manifest, Platform};
use crate::registry::{Reference, ResolvedManifest};
use crate::request::PullPolicy;
use crate::store::{Cause, Store, Tell};

/// What becomes of the layers of an image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum MirrorLayers {
    /// They are fetched.
    Fetched,
    /// They come when somebody reads them, as long as the store is open.
    Promised,
    /// The store notes where they are, so that they come also when it is opened again.
    Noted,
}

/// Indexes in indexes that are followed; real ones have none.
const MAX_DEPTH: usize = 8;

impl Images {
    /// Brings an image into the store without naming it there, with all platforms unless one is asked for.
    pub(crate) fn mirror(
        &self,
        reference: &Reference,
        platform: Option<&Platform>,
        layers: MirrorLayers,
    ) -> Result<Descriptor, ImageError> {
        let registry = |source| ImageError::Registry { name: reference.to_string(), source };
        let resolved = self.client.resolve(reference).map_err(registry)?;
        let Some(platform) = platform.filter(|_| image::is_index(&resolved.media_type)) else {
            return self.mirror_document(reference, resolved, layers, MAX_DEPTH);
        };
        let name = reference.to_string();
        let index = Index::parse(&resolved.bytes);
        let index = index.map_err(|source| ImageError::Document { name: name.clone(), source })?;
        let chosen = index.choose(platform).map_err(|source| ImageError::Platform { name, source })?;
        let manifest = self.client.manifest_by_digest(reference, chosen.digest).map_err(registry)?;
        self.mirror_document(reference, manifest, layers, MAX_DEPTH)
    }

    /// What a document names goes into the store before it does.
    fn mirror_document(
        &self,
        reference: &Reference,
        document: ResolvedManifest,
        layers: MirrorLayers,
        depth: usize,
    ) -> Result<Descriptor, ImageError> {
        let name = reference.to_string();
        if depth == 0 {
            return Err(ImageError::Inconsistent { name, reason: "indexes are nested too deep".to_owned() });
        }
        let parse_error = |source| ImageError::Document { name: name.clone(), source };
        if image::is_index(&document.media_type) {
            for entry in Index::parse(&document.bytes).map_err(parse_error)?.manifests {
                let inner = self.client.manifest_by_digest(reference, entry.digest);
                let inner = inner.map_err(|source| ImageError::Registry { name: name.clone(), source })?;
                self.mirror_document(reference, inner, layers, depth - 1)?;
            }
        } else {
            let manifest = Manifest::parse(&document.bytes).map_err(parse_error)?;
            // What has addresses of its own is fetched from there by whoever uses it.
            let mut blobs: Vec<Descriptor> =
                manifest.layers.into_iter().filter(|layer| layer.urls.is_empty()).collect();
            match layers {
                MirrorLayers::Fetched => {}
                MirrorLayers::Promised => {
                    std::mem::take(&mut blobs).into_iter().for_each(|layer| self.promise_layer(reference, layer));
                }
                MirrorLayers::Noted => {
                    for layer in std::mem::take(&mut blobs) {
                        let noted = self.store.note_elsewhere(&layer.digest, layer.size, &[reference.name()]);
                        noted.map_err(|source| ImageError::Store { name: name.clone(), source })?;
                    }
                }
            }
            blobs.push(manifest.config);
            self.fetch_all(&name, &Place::Registry(reference.clone()), &blobs, &|_, _, _| {})?;
        }
        let size = document.bytes.len() as u64;
        self.store.put_blob(&document.bytes).map_err(|source| ImageError::Store { name: name.clone(), source })?;
        Ok(Descriptor::new(document.media_type, document.digest, size))
    }

    /// Lets the store fetch a layer when somebody reads it.
    fn promise_layer(&self, reference: &Reference, layer: Descriptor) {
        let (client, reference) = (self.client.clone(), reference.clone());
        let digest = layer.digest;
        let bring = move |store: &Store, tell: Tell<'_>| -> Result<(), Cause> {
            // The promise must not hold the store, which holds it.
            let images = Self::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Never);
            let (name, place) = (reference.to_string(), Place::Registry(reference.clone()));
            Ok(images.fetch_blob(&name, &place, &layer, &|_, done, _| tell(done))?)
        };
        self.store.promise_blob(digest, None, Box::new(bring));
    }
}
