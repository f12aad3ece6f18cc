//! Looking a key up, and promising what was found to the store.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::document::{Contents, Result as StepResult, TREE_LIMIT};
use super::source::{Blob, Source};
use crate::digest::{CacheKey, DiffId, Digest};
use crate::image::Descriptor;
use crate::layer;
use crate::registry::{Client, Reference};
use crate::request::CacheSource;
use crate::store::{Cause, LayerDescriptor, Store, Tell};
use crate::tree::LayerTree;

/// All caches of a build.
#[derive(Debug, Default)]
pub(crate) struct Shared {
    sources: Vec<Arc<Source>>,
    /// Results that were made before, in seconds since 1970, are too old.
    oldest: Option<i64>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    /// Why what was promised did not come.
    broken: Option<Broken>,
    /// Results whose layers nobody shares do not count.
    whole: bool,
    /// Layers of such results that are promised all the same.
    hollow: HashSet<Digest>,
    /// Repositories that have a promised layer.
    origins: HashMap<Digest, Vec<Reference>>,
}

/// Why what was promised did not come.
#[derive(Debug, Clone)]
pub(crate) struct Broken {
    /// For the user.
    pub(crate) reason: String,
    /// Nobody ever had it: only what it is was shared.
    pub(crate) is_hollow: bool,
}

/// A result, not yet used.
#[derive(Debug)]
pub(crate) struct Found {
    source: Arc<Source>,
    contents: Arc<Contents>,
    result: StepResult,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Shared {
    /// Asks nobody anything yet.
    pub(crate) fn new(client: &Client, from: &[CacheSource], oldest: Option<i64>) -> Result<Self, Error> {
        let sources = from.iter().map(|source| Source::new(client, source).map(Arc::new)).collect::<Result<_, _>>()?;
        Ok(Self { sources, oldest, state: Arc::default() })
    }

    /// Whether there is nowhere to look.
    pub(crate) fn is_empty(&self) -> bool {
        self.sources.iter().all(|source| source.is_off())
    }

    /// Whether a result of that time still counts.
    pub(crate) fn is_young(&self, made: Option<i64>) -> bool {
        self.oldest.is_none_or(|oldest| made.is_some_and(|made| made >= oldest))
    }

    /// Finds the result of a step. `complain` is told what failed and says whether that ends the search.
    pub(crate) fn find<E>(
        &self,
        key: &CacheKey,
        complain: &mut dyn FnMut(Error) -> Result<(), E>,
    ) -> Result<Option<Found>, E> {
        let whole = lock(&self.state).whole;
        for source in self.sources.iter().filter(|source| !source.is_off()) {
            let contents = match source.find(key, whole) {
                Ok(Some(contents)) => contents,
                Ok(None) => continue,
                Err(error) => {
                    complain(error)?;
                    continue;
                }
            };
            let result = contents.results.get(key).filter(|result| !(whole && result.is_hollow));
            let Some(result) = result.cloned() else { continue };
            if self.is_young(result.made.or(result.created)) {
                return Ok(Some(Found { source: source.clone(), contents, result }));
            }
        }
        Ok(None)
    }

    /// Reads the manifests that the caches are named by, while there is other work to do.
    pub(crate) fn prefetch<E>(&self, complain: &mut dyn FnMut(Error) -> Result<(), E>) -> Result<(), E> {
        for source in &self.sources {
            if let Err(error) = source.open() {
                complain(error)?;
            }
        }
        Ok(())
    }

    /// Promises the layers and trees of a result to the store. `variant` names the key of a layer's codec and level.
    pub(crate) fn promise(
        &self,
        store: &Store,
        found: &Found,
        variant: &dyn Fn(&LayerDescriptor, u8) -> Option<CacheKey>,
    ) -> Result<Vec<LayerDescriptor>, Error> {
        let store_error = |source| Error::Store { name: found.source.name.clone(), source };
        let mut layers = Vec::new();
        for (layer, level) in &found.result.layers {
            if let Some(repository) = found.source.repository().filter(|_| !found.result.is_hollow) {
                lock(&self.state).origins.entry(layer.digest).or_default().push(repository.clone());
            }
            let is_here = store.blob_size(&layer.digest).map_err(store_error)? == Some(layer.size);
            if !is_here && found.result.is_hollow {
                self.promise_hollow(store, found, layer);
            } else if !is_here {
                let blob = Descriptor::new(layer.media_type.clone(), layer.digest, layer.size);
                let blob = Blob::find(&found.source, blob)?;
                let known = level.and_then(|level| variant(layer, level));
                let (layer, state) = (layer.clone(), self.state.clone());
                let bring = move |store: &Store, tell: Tell<'_>| -> Result<(), Cause> {
                    bring(&blob, store, &layer, tell).map_err(|error| note(&state, error))
                };
                store.promise_blob(blob_digest(found, layers.len()), known, Box::new(bring));
            }
            self.promise_tree(store, found, layer.diff_id)?;
            layers.push(layer.clone());
        }
        Ok(layers)
    }

    /// Promises what nobody has: to be found out only by who wants to read it.
    fn promise_hollow(&self, store: &Store, found: &Found, layer: &LayerDescriptor) {
        lock(&self.state).hollow.insert(layer.digest);
        let (state, name, diff_id) = (self.state.clone(), found.name().to_owned(), layer.diff_id);
        let bring = move |_: &Store, _: Tell<'_>| -> Result<(), Cause> {
            Err(note(&state, Error::Hollow { name: name.clone(), diff_id }))
        };
        store.promise_blob(layer.digest, None, Box::new(bring));
    }

    /// Whether a layer is promised that nobody has.
    pub(crate) fn is_hollow(&self, digest: &Digest) -> bool {
        lock(&self.state).hollow.contains(digest)
    }

    /// Promises the trees of layers that are elsewhere, if this result knows them all. Returns whether it does.
    pub(crate) fn promise_trees(&self, store: &Store, found: &Found, ids: &[DiffId]) -> Result<bool, Error> {
        if !ids.iter().all(|id| found.contents.trees.contains_key(id)) {
            return Ok(false);
        }
        ids.iter().try_for_each(|id| self.promise_tree(store, found, *id)).map(|()| true)
    }

    fn promise_tree(&self, store: &Store, found: &Found, id: DiffId) -> Result<(), Error> {
        let Some(tree) = found.contents.trees.get(&id) else { return Ok(()) };
        let blob = Blob::find(&found.source, tree.clone())?;
        let state = self.state.clone();
        let read = move || -> Result<LayerTree, Cause> {
            let read = || {
                let bytes = blob.read(TREE_LIMIT)?;
                let damaged = |error: crate::tree::Error| Error::Damaged {
                    name: blob.name().to_owned(),
                    reason: error.to_string(),
                };
                LayerTree::decode(&bytes).map_err(damaged)
            };
            read().map_err(|error| note(&state, error))
        };
        store.promise_tree(id, Box::new(read));
        Ok(())
    }

    /// Holds a layer that came against the tree that `found` promised for it. For layers that others bring.
    pub(crate) fn checker(
        &self,
        found: &Found,
    ) -> impl Fn(&Store, &LayerDescriptor) -> Result<(), Cause> + Clone + Send + Sync + use<> {
        let (state, name) = (self.state.clone(), found.name().to_owned());
        move |store, layer| check_tree(&name, store, layer).map_err(|error| note(&state, error))
    }

    /// Why something that a cache promised did not come, if that happened.
    pub(crate) fn broken(&self) -> Option<Broken> {
        lock(&self.state).broken.clone()
    }

    /// Looks nowhere any more, and takes back what was promised.
    pub(crate) fn give_up(&self, store: &Store) {
        self.sources.iter().for_each(|source| source.switch_off());
        self.start_over(store, false);
    }

    /// Counts only results that have their layers from now on, and takes back what was promised.
    pub(crate) fn insist(&self, store: &Store) {
        self.start_over(store, true);
    }

    fn start_over(&self, store: &Store, whole: bool) {
        store.forget_promises();
        *lock(&self.state) = State { whole, ..State::default() };
    }

    /// The repositories that have a promised layer, and those of `known`.
    pub(crate) fn origins_of(&self, digest: &Digest, known: &HashMap<Digest, Vec<Reference>>) -> Vec<Reference> {
        let state = lock(&self.state);
        let promised = state.origins.get(digest);
        known.get(digest).into_iter().chain(promised).flatten().cloned().collect()
    }
}

fn blob_digest(found: &Found, number: usize) -> Digest {
    found.result.layers[number].0.digest
}

/// Notes a broken promise, and makes a cause of it.
fn note(state: &Mutex<State>, error: Error) -> Cause {
    let mut text = error.to_string();
    let mut source = std::error::Error::source(&error);
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    let is_hollow = matches!(error, Error::Hollow { .. });
    let broken = Broken { reason: text, is_hollow };
    let mut state = lock(state);
    // A cache that is wrong outweighs one that has less than hoped for.
    if state.broken.as_ref().is_none_or(|known| known.is_hollow) {
        state.broken = Some(broken);
    }
    Box::new(error)
}

/// Puts a layer into the store, and checks whether it is what the cache says.
fn bring(blob: &Blob, store: &Store, layer: &LayerDescriptor, tell: Tell<'_>) -> Result<(), Error> {
    let store_error = |source| Error::Store { name: blob.name().to_owned(), source };
    let mut writer = store.blob_writer_unhashed().map_err(store_error)?;
    blob.copy_to(&mut writer, tell)?;
    writer.commit_as(layer.digest).map_err(store_error)?;
    check_tree(blob.name(), store, layer)
}

/// Reads a layer that has come, which proves its diff ID, and compares its tree with the promised one.
fn check_tree(name: &str, store: &Store, layer: &LayerDescriptor) -> Result<(), Error> {
    let promised = store.end_promised_tree(&layer.diff_id);
    let found = layer::ensure_tree(store, layer);
    let found = found.map_err(|source| Error::Layer { name: name.to_owned(), source })?;
    match promised {
        Some(promised) if promised != found => Err(Error::Tree { name: name.to_owned(), diff_id: layer.diff_id }),
        _ => Ok(()),
    }
}

impl Found {
    /// The cache that has it.
    pub(crate) fn name(&self) -> &str {
        &self.source.name
    }

    /// The repository that has it.
    pub(crate) fn repository(&self) -> Option<String> {
        self.source.repository().map(Reference::name)
    }

    /// `created` of the step, in seconds since 1970.
    pub(crate) fn created(&self) -> Option<i64> {
        self.result.created
    }

    /// When it was made, in seconds since 1970.
    pub(crate) fn made(&self) -> Option<i64> {
        self.result.made
    }

    /// Whether the bytes of its layers are not shared.
    pub(crate) fn is_hollow(&self) -> bool {
        self.result.is_hollow
    }

    /// The level that its layers are compressed with.
    pub(crate) fn level(&self) -> Option<u8> {
        self.result.layers.first().and_then(|(_, level)| *level)
    }
}
