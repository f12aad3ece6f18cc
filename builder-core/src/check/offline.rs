//! Base images without a registry: those of the store, and stand-ins for the rest.

use std::cell::Cell;

use crate::diagnostic::{Diagnostic, SourceFile};
use crate::digest::Digest;
use crate::image::{ImageConfig, Platform};
use crate::plan::{Bases, ImageName, ImageResolver, ResolveError, ResolvedImage};
use crate::registry::Reference;
use crate::worker::{ImageError, Images};

/// Knows the images of the store, if there is one. For a plan, an image that is not there is an empty one.
pub(super) struct Offline<'a> {
    images: Option<&'a Images>,
    /// Whether a plan got a stand-in.
    stood_in: Cell<bool>,
}

impl<'a> Offline<'a> {
    /// Looks into `images`, which must not ask registries.
    pub(super) fn new(images: Option<&'a Images>) -> Self {
        Self { images, stood_in: Cell::new(false) }
    }

    /// Whether an error of a plan holds whatever the stand-ins stand for: with their variables, a word that has some
    /// may mean something else.
    pub(super) fn is_certain(&self, error: &Diagnostic, source: &SourceFile) -> bool {
        let span = error.primary.as_ref().map(|label| label.span).unwrap_or_default();
        !self.stood_in.get() || !source.text().get(span.range()).is_some_and(|text| text.contains('$'))
    }
}

impl Bases for Offline<'_> {
    fn config(&self, name: &ImageName, platform: &Platform) -> Option<ImageConfig> {
        self.images?.resolve(name, platform).ok().map(|image| image.config)
    }

    fn is_name(&self, text: &str) -> bool {
        text.parse::<Reference>().is_ok()
    }
}

impl ImageResolver for Offline<'_> {
    fn resolve(&self, name: &ImageName, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        if let ImageName::Reference(text) = name {
            text.parse::<Reference>().map_err(|source| ImageError::Name { name: text.clone(), source })?;
        }
        if let Some(Ok(image)) = self.images.map(|images| images.resolve(name, platform)) {
            return Ok(image);
        }
        self.stood_in.set(true);
        let (ImageName::Reference(name) | ImageName::Context(name)) = name;
        let (digest, config) = (Digest::of(name.as_bytes()), ImageConfig::new(platform));
        Ok(ResolvedImage { name: name.clone(), digest, config })
    }
}
