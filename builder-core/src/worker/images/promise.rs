//! Base images whose layers are fetched when somebody reads them, which may be never: what only changes the config, what is linked
//! onto an image and what goes to a registry that has the base needs none of its files.

use std::sync::PoisonError;

use super::{Found, ImageError, Images};
use crate::image::Descriptor;
use crate::plan::ResolvedImage;
use crate::request::PullPolicy;
use crate::store::{Cause, LayerDescriptor, Store, Tell};

impl Images {
    /// How many layers of a resolved image the store lacks; `None` for an image that [`Images::fetch`] refuses.
    pub(crate) fn missing(&self, image: &ResolvedImage) -> Result<Option<usize>, ImageError> {
        let Some(found) = self.found().get(&image.digest).cloned() else { return Ok(None) };
        if found.config.rootfs.diff_ids.len() != found.manifest.layers.len() {
            return Ok(None);
        }
        let mut missing = 0;
        for layer in &found.manifest.layers {
            missing += usize::from(!self.has(&image.name, layer)?);
        }
        Ok(Some(missing))
    }

    /// Promises all layers of a resolved image to the store instead of fetching them, and returns them, lowest first.
    /// `check` is called for each that has come.
    pub(crate) fn promise(
        &self,
        image: &ResolvedImage,
        check: impl Fn(&Store, &LayerDescriptor) -> Result<(), Cause> + Clone + Send + Sync + 'static,
    ) -> Result<Vec<LayerDescriptor>, ImageError> {
        let name = image.name.clone();
        let (found, layers) = self.describe(image)?;
        for (blob, layer) in found.manifest.layers.iter().zip(&layers) {
            let (client, name, place) = (self.client.clone(), name.clone(), found.place.clone());
            let (blob, layer, check) = (blob.clone(), layer.clone(), check.clone());
            let digest = layer.digest;
            let bring = move |store: &Store, tell: Tell<'_>| -> Result<(), Cause> {
                // The promise must not hold the store, which holds it.
                let images = Self::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Never);
                images.fetch_blob(&name, &place, &blob, &|_, done, _| tell(done))?;
                check(store, &layer)
            };
            self.store.promise_blob(digest, None, Box::new(bring));
        }
        self.promised.lock().unwrap_or_else(PoisonError::into_inner).push(found);
        Ok(layers)
    }

    /// Names promised images whose layers have all come, as [`Images::fetch`] does.
    pub(crate) fn keep_promised(&self) -> Result<(), ImageError> {
        let promised = std::mem::take(&mut *self.promised.lock().unwrap_or_else(PoisonError::into_inner));
        for found in promised {
            let mut whole = true;
            for layer in &found.manifest.layers {
                whole &= self.has("a base image", layer)?;
            }
            if whole {
                self.remember(&found)?;
            }
        }
        Ok(())
    }

    fn has(&self, name: &str, layer: &Descriptor) -> Result<bool, ImageError> {
        let size = self.store.blob_size(&layer.digest);
        let size = size.map_err(|source| ImageError::Store { name: name.to_owned(), source })?;
        Ok(size == Some(layer.size))
    }
}

impl Found {
    /// Its layers, lowest first.
    pub(super) fn layers(&self) -> Vec<LayerDescriptor> {
        let describe = |(layer, diff_id): (&Descriptor, &_)| LayerDescriptor {
            digest: layer.digest,
            size: layer.size,
            diff_id: *diff_id,
            media_type: layer.media_type.clone(),
        };
        self.manifest.layers.iter().zip(&self.config.rootfs.diff_ids).map(describe).collect()
    }
}
