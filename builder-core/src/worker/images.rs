//! Base images: found in the named contexts of the request, in the store, or in a registry, and brought into the store.
//!
//! A manifest and its config are fetched when the plan asks for them, layers when a step needs the image. Everything is
//! verified before it is visible in the store, and a blob is fetched once even by builds side by side.

mod error;
mod place;
mod promise;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

pub(crate) use error::ImageError;

use super::blobs::noted_origins;
use crate::digest::Digest;
use crate::image::{
    self, CONFIG_LIMIT, Descriptor, ImageConfig, ImageSource, Index, MANIFEST_LIMIT, Manifest, NoMatchingPlatform,
    Platform,
};
use crate::plan::{ImageName, ImageResolver, ResolveError, ResolvedImage};
use crate::registry::{self, Client, Reference, ResolvedManifest};
use crate::request::{ContextSource, PullPolicy};
use crate::store::{LayerDescriptor, Store};

/// Where the blobs of an image are, if not in the store.
#[derive(Debug, Clone)]
pub(super) enum Place {
    Store,
    Registry(Reference),
    Layout(Arc<ImageSource>),
}

#[derive(Debug, Clone)]
struct Found {
    /// Names the manifest.
    descriptor: Descriptor,
    manifest: Manifest,
    config: ImageConfig,
    place: Place,
    /// The name it was found by, of a registry that has it or may have it.
    origin: Option<Reference>,
}

/// Finds and fetches images for one build.
#[derive(Debug)]
pub(crate) struct Images {
    pub(super) store: Store,
    pub(super) client: Client,
    contexts: Vec<(String, ContextSource)>,
    policy: PullPolicy,
    /// The build context, where it is a directory.
    directory: Option<PathBuf>,
    found: Mutex<HashMap<Digest, Found>>,
    /// Those whose layers come when somebody reads them.
    promised: Mutex<Vec<Found>>,
    /// What registries said their names mean: asked once a name, so that all platforms come from the same index.
    answers: Mutex<HashMap<String, ResolvedManifest>>,
    /// Images that were named in the store, by name: one for each platform.
    named: Mutex<HashMap<String, Vec<Descriptor>>>,
}

impl Images {
    /// Makes a finder. Nothing is opened or looked up yet.
    pub(crate) fn new(
        store: Store,
        client: Client,
        contexts: Vec<(String, ContextSource)>,
        policy: PullPolicy,
    ) -> Self {
        let (found, promised, answers, named) = Default::default();
        Self { store, client, contexts, policy, directory: None, found, promised, answers, named }
    }

    /// Lets names say where in the build context an image is, if that is a directory.
    pub(crate) fn with_context(self, context: &ContextSource) -> Self {
        let ContextSource::Directory(path) = context else { return self };
        Self { directory: Some(path.clone()), ..self }
    }

    /// For each layer of the images that were found in registries, the repositories that said that they have it.
    pub(crate) fn promised_by(&self) -> HashMap<Digest, Vec<Reference>> {
        let mut repositories: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for found in self.found().values() {
            let Place::Registry(reference) = &found.place else { continue };
            for layer in &found.manifest.layers {
                repositories.entry(layer.digest).or_default().push(reference.clone());
            }
        }
        repositories
    }

    /// For each layer of the images that were resolved, the repositories that have it or may have it.
    pub(crate) fn origins(&self) -> HashMap<Digest, Vec<Reference>> {
        let mut origins: HashMap<Digest, Vec<Reference>> = HashMap::new();
        for found in self.found().values() {
            for layer in &found.manifest.layers {
                let noted = noted_origins(&self.store, &layer.digest).into_iter();
                origins.entry(layer.digest).or_default().extend(noted.chain(found.origin.clone()));
            }
        }
        origins
    }

    fn by_reference(&self, text: &str, platform: &Platform) -> Result<(String, Found), ImageError> {
        let reference: Reference = text.parse().map_err(|source| ImageError::Name { name: text.to_owned(), source })?;
        let name = reference.to_string();
        let in_store = match self.policy {
            PullPolicy::Always => None,
            _ => self.in_store(&reference, platform)?,
        };
        let found = match (self.policy, in_store) {
            (PullPolicy::Never, None) => return Err(ImageError::NotInStore { name }),
            (PullPolicy::Newer, Some(stored)) => self.newer(&reference, platform, stored)?,
            (_, Some(stored)) => stored,
            (_, None) => self.in_registry(&reference, platform)?,
        };
        Ok((name, found))
    }

    /// What the registry has under the name, or `stored` when that is the same or the registry does not answer.
    fn newer(&self, reference: &Reference, platform: &Platform, stored: Found) -> Result<Found, ImageError> {
        match self.client.head_manifest(reference) {
            Ok(Some(head)) if self.is_tagged(reference, &head.digest)? => Ok(stored),
            Ok(_) => self.in_registry(reference, platform),
            // A registry that has an opinion is heard; one that cannot be reached is not.
            Err(error) if error.is_transient() => Ok(stored),
            Err(registry::Error::NotFound { .. } | registry::Error::NoSuchHost { .. }) => Ok(stored),
            Err(source) => Err(ImageError::Registry { name: reference.to_string(), source }),
        }
    }

    fn is_tagged(&self, reference: &Reference, digest: &Digest) -> Result<bool, ImageError> {
        let name = reference.to_string();
        match self.store.resolve_image(&name) {
            Ok(found) => Ok(found.is_some_and(|found| found.digest == *digest)),
            Err(source) => Err(ImageError::Store { name, source }),
        }
    }

    /// The image of that name in the store, if it is for `platform`.
    fn in_store(&self, reference: &Reference, platform: &Platform) -> Result<Option<Found>, ImageError> {
        let name = &reference.to_string();
        let store = |source| ImageError::Store { name: name.to_owned(), source };
        let Some(descriptor) = self.store.resolve_image(name).map_err(store)? else { return Ok(None) };
        match self.of_store(name, descriptor, platform)? {
            Ok(found) => Ok(found.map(|found| Found { origin: Some(reference.clone()), ..found })),
            Err(source) => self.unless_forbidden(name, source),
        }
    }

    /// What of an image or index of the store is for `platform`; `None` where that is not in the store.
    fn of_store(
        &self,
        name: &str,
        mut descriptor: Descriptor,
        platform: &Platform,
    ) -> Result<Result<Option<Found>, NoMatchingPlatform>, ImageError> {
        let store = |source| ImageError::Store { name: name.to_owned(), source };
        let document = |source| ImageError::Document { name: name.to_owned(), source };
        let mut bytes = self.store.read_blob(&descriptor.digest, MANIFEST_LIMIT).map_err(store)?;
        if image::is_index(&descriptor.media_type) {
            let index = Index::parse(&bytes).map_err(document)?;
            let chosen = match index.choose(platform) {
                Ok(chosen) => chosen,
                Err(none) => return Ok(Err(none)),
            };
            // Of an index that was fetched for some platforms, the others are where it came from.
            if !self.store.has_blob(&chosen.digest).map_err(store)? {
                return Ok(Ok(None));
            }
            descriptor = chosen.clone();
            bytes = self.store.read_blob(&descriptor.digest, MANIFEST_LIMIT).map_err(store)?;
        }
        let manifest = Manifest::parse(&bytes).map_err(document)?;
        let config = self.store.read_blob(&manifest.config.digest, CONFIG_LIMIT).map_err(store)?;
        let config = ImageConfig::parse(&config).map_err(document)?;
        let there = config.platform();
        if !config.architecture.is_empty() && platform.rank(&there).is_none() {
            return Ok(Err(NoMatchingPlatform { wanted: platform.to_string(), available: vec![there.to_string()] }));
        }
        Ok(Ok(Some(Found { descriptor, manifest, config, place: Place::Store, origin: None })))
    }

    /// What the store has is for other platforms: a registry may have more, if it may be asked.
    fn unless_forbidden(&self, name: &str, source: NoMatchingPlatform) -> Result<Option<Found>, ImageError> {
        match self.policy {
            PullPolicy::Never => Err(ImageError::Platform { name: name.to_owned(), source }),
            _ => Ok(None),
        }
    }

    fn in_registry(&self, reference: &Reference, platform: &Platform) -> Result<Found, ImageError> {
        let name = reference.to_string();
        let registry = |source| ImageError::Registry { name: name.clone(), source };
        let document = |source| ImageError::Document { name: name.clone(), source };
        let mut resolved = self.answer(reference).map_err(registry)?;
        if image::is_index(&resolved.media_type) {
            let index = Index::parse(&resolved.bytes).map_err(document)?;
            let chosen =
                index.choose(platform).map_err(|source| ImageError::Platform { name: name.clone(), source })?;
            let digest = chosen.digest;
            let mut media_type = chosen.media_type.clone();
            let fetch = || {
                let found = self.client.manifest_by_digest(reference, digest)?;
                media_type = found.media_type;
                Ok(found.bytes)
            };
            let bytes = self.document(&name, digest, MANIFEST_LIMIT, fetch)?;
            resolved = ResolvedManifest { digest, media_type, bytes };
        }
        let manifest = Manifest::parse(&resolved.bytes).map_err(document)?;
        let size = resolved.bytes.len() as u64;
        let descriptor = Descriptor::new(resolved.media_type.clone(), resolved.digest, size);
        let wanted = &manifest.config;
        let fetch = || self.client.blob_bytes(reference, wanted.digest, wanted.size, CONFIG_LIMIT);
        let config = self.document(&name, wanted.digest, CONFIG_LIMIT, fetch)?;
        let store = |source| ImageError::Store { name: name.clone(), source };
        self.store.put_blob(&resolved.bytes).map_err(store)?;
        let config = ImageConfig::parse(&config).map_err(document)?;
        let (place, origin) = (Place::Registry(reference.clone()), Some(reference.clone()));
        Ok(Found { descriptor, manifest, config, place, origin })
    }

    /// What the registry has under the name, as it said when it was first asked.
    fn answer(&self, reference: &Reference) -> Result<ResolvedManifest, registry::Error> {
        let name = reference.to_string();
        let lock = || self.answers.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = lock().get(&name) {
            return Ok(known.clone());
        }
        let answer = self.client.resolve(reference)?;
        Ok(lock().entry(name).or_insert(answer).clone())
    }

    /// By a name, or by a place that a Dockerfile may name.
    fn by_text(&self, text: &str, platform: &Platform) -> Result<(String, Found), ImageError> {
        match place::place(text, self.directory.as_deref())? {
            Some(place) => self.by_source(text, Some(&place), platform),
            None => self.by_reference(text, platform),
        }
    }

    fn by_context(&self, context: &str, platform: &Platform) -> Result<(String, Found), ImageError> {
        let given = self.contexts.iter().rev().find(|(name, _)| name == context).map(|(_, source)| source);
        self.by_source(context, given, platform)
    }

    fn by_source(
        &self,
        context: &str,
        source: Option<&ContextSource>,
        platform: &Platform,
    ) -> Result<(String, Found), ImageError> {
        let wrap = |source| ImageError::Source { name: context.to_owned(), source };
        let (source, reference, shown) = match source {
            Some(ContextSource::Image(text)) => return self.by_reference(text, platform),
            Some(ContextSource::DockerArchive { path, name }) => {
                return self.by_docker_archive(context, path, name.as_deref(), platform);
            }
            Some(ContextSource::OciLayout { path, reference }) => {
                (ImageSource::open_layout(path).map_err(wrap)?, reference, path)
            }
            Some(ContextSource::OciArchive { path, reference }) => {
                (ImageSource::open_archive(path).map_err(wrap)?, reference, path)
            }
            _ => {
                let reason = "it is not an image".to_owned();
                return Err(ImageError::Inconsistent { name: context.to_owned(), reason });
            }
        };
        let image = source.resolve(reference.as_deref()).map_err(wrap)?;
        let descriptor = source.select(image, platform).map_err(wrap)?;
        let document = |source| ImageError::Document { name: context.to_owned(), source };
        let bytes = source.read(&descriptor, MANIFEST_LIMIT).map_err(wrap)?;
        let manifest = Manifest::parse(&bytes).map_err(document)?;
        let config = source.read(&manifest.config, CONFIG_LIMIT).map_err(wrap)?;
        let config = ImageConfig::parse(&config).map_err(document)?;
        let name = format!("{context} ({})", shown.display());
        let place = Place::Layout(Arc::new(source));
        Ok((name, Found { descriptor, manifest, config, place, origin: None }))
    }

    /// An archive of `docker save` is no layout: its image is brought into the store.
    fn by_docker_archive(
        &self,
        context: &str,
        path: &Path,
        name: Option<&str>,
        platform: &Platform,
    ) -> Result<(String, Found), ImageError> {
        let shown = format!("{context} ({})", path.display());
        let wrap = |source| ImageError::Source { name: context.to_owned(), source };
        let full = |text: &str| text.parse::<Reference>().map(|reference| reference.to_string());
        let wanted = name.map(full).transpose();
        let wanted = wanted.map_err(|source| ImageError::Name { name: name.unwrap_or_default().to_owned(), source })?;
        let is_wanted = |tag: &str| wanted.as_ref().is_none_or(|wanted| full(tag).is_ok_and(|tag| tag == *wanted));
        let image = image::import_docker_archive(&self.store, path, wanted.as_deref(), &is_wanted).map_err(wrap)?;
        match self.of_store(&shown, image, platform)? {
            Ok(Some(found)) => Ok((shown, found)),
            Ok(None) => {
                Err(ImageError::Inconsistent { name: shown, reason: "it lacks an image of its index".to_owned() })
            }
            Err(source) => Err(ImageError::Platform { name: shown, source }),
        }
    }

    fn found(&self) -> std::sync::MutexGuard<'_, HashMap<Digest, Found>> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the manifest and config of an image that was resolved before.
    pub(crate) fn documents(&self, digest: &Digest) -> Option<(Manifest, ImageConfig)> {
        self.found().get(digest).map(|found| (found.manifest.clone(), found.config.clone()))
    }

    /// Brings all layers of a resolved image into the store and returns them, lowest first. `progress` is told the
    /// layer, its bytes so far and in all. An image of a registry is then found in the store by its name.
    pub(crate) fn fetch(
        &self,
        image: &ResolvedImage,
        progress: &(dyn Fn(&Digest, u64, u64) + Sync),
    ) -> Result<Vec<LayerDescriptor>, ImageError> {
        let (found, layers) = self.describe(image)?;
        self.fetch_all(&image.name, &found.place, &found.manifest.layers, progress)?;
        self.remember(&found)?;
        Ok(layers)
    }

    /// The layers of a resolved image, lowest first, wherever they are.
    pub(crate) fn layers(&self, image: &ResolvedImage) -> Result<Vec<LayerDescriptor>, ImageError> {
        self.describe(image).map(|(_, layers)| layers)
    }

    fn describe(&self, image: &ResolvedImage) -> Result<(Found, Vec<LayerDescriptor>), ImageError> {
        let name = image.name.clone();
        let Some(found) = self.found().get(&image.digest).cloned() else {
            return Err(ImageError::Inconsistent { name, reason: "it was never resolved".to_owned() });
        };
        let diff_ids = &found.config.rootfs.diff_ids;
        let layers = &found.manifest.layers;
        if diff_ids.len() != layers.len() {
            let reason = format!("{} diff IDs for {} layers", diff_ids.len(), layers.len());
            return Err(ImageError::Inconsistent { name, reason });
        }
        let layers = found.layers();
        Ok((found, layers))
    }

    /// Names a fetched image in the store, so that the next build finds it there. Images of several platforms that came
    /// under one name are found under one index.
    fn remember(&self, found: &Found) -> Result<(), ImageError> {
        let Place::Registry(reference) = &found.place else { return Ok(()) };
        let name = reference.to_string();
        let store = |source| ImageError::Store { name: name.clone(), source };
        let mut named = self.named.lock().unwrap_or_else(PoisonError::into_inner);
        let images = named.entry(name.clone()).or_default();
        if !images.iter().any(|image| image.digest == found.descriptor.digest) {
            let platform = Some(found.config.platform());
            images.push(Descriptor { platform, ..found.descriptor.clone() });
        }
        let descriptor = match images.len() {
            0 | 1 => found.descriptor.clone(),
            _ => {
                images.sort_by_key(|image| image.digest);
                let index = Index { manifests: images.clone(), ..Index::default() }.to_canonical_json();
                let digest = self.store.put_blob(&index).map_err(store)?;
                Descriptor::new(image::MEDIA_TYPE_INDEX, digest, index.len() as u64)
            }
        };
        self.store.tag_image(&name, &descriptor).map_err(store)
    }
}

impl ImageResolver for Images {
    fn resolve(&self, name: &ImageName, platform: &Platform) -> Result<ResolvedImage, ResolveError> {
        let (shown, found) = match name {
            ImageName::Reference(text) => self.by_text(text, platform)?,
            ImageName::Context(context) => self.by_context(context, platform)?,
        };
        let digest = found.descriptor.digest;
        let name = if shown.contains('@') { shown } else { format!("{shown}@{digest}") };
        let config = found.config.clone();
        self.found().insert(digest, found);
        Ok(ResolvedImage { name, digest, config })
    }
}
