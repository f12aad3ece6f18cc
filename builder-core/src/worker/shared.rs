//! Caches of other machines: results that are found there, layers that are fetched when somebody reads them, and what
//! this build has to share.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::blobs::noted_origins;
use super::root::Root;
use super::variant::{remember_level, variant_of};
use super::{BuildWorker, CREATED, Inputs, MADE, StepOutput, dependencies, key};
use crate::cache::{self, Broken, Entry, Found};
use crate::digest::{CacheKey, DiffId, Digest};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::layer::effective_level;
use crate::plan::{Op, ResolvedImage, Step};
use crate::registry::Reference;
use crate::store::{LayerDescriptor, Record};

/// Layers fetched at once.
const PARALLEL_FETCHES: usize = 4;

/// The error of a cache, for the user.
pub(crate) fn cache_error(error: &cache::Error) -> Error {
    let kind = match error {
        cache::Error::Name { .. } => ErrorKind::Request,
        cache::Error::Own { .. } | cache::Error::Store { .. } => ErrorKind::Store,
        _ => ErrorKind::Registry,
    };
    error.hint().into_iter().fold(Error::from_source(kind, error), Error::hint)
}

impl BuildWorker<'_> {
    pub(super) fn done(&self) -> MutexGuard<'_, std::collections::BTreeMap<StepId, Entry>> {
        self.done.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says that a cache failed: the end of the build if the user wants it so, a warning otherwise.
    pub(super) fn complain(&self, error: &cache::Error) -> Result<(), Error> {
        let error = cache_error(error);
        if self.options.cache_strict {
            return Err(error);
        }
        let message = format!("{error}; what it has counts as missing");
        (self.events)(Event::Warning { code: "cache-source".to_owned(), message });
        Ok(())
    }

    /// Reads what the caches are named by, while the first steps work.
    pub(crate) fn prefetch_caches(&self) -> Result<(), Error> {
        self.options.shared.prefetch(&mut |error| self.complain(&error))
    }

    fn find_shared(&self, key: &CacheKey) -> Result<Option<Found>, Error> {
        if self.options.shared.is_empty() {
            return Ok(None);
        }
        self.options.shared.find(key, &mut |error| self.complain(&error))
    }

    /// Finds the result of a step in a shared cache. Nothing of it is fetched.
    pub(super) fn lookup_shared(&self, id: StepId, key: &CacheKey, parent: &Root) -> Result<Option<Root>, Error> {
        let Some(found) = self.find_shared(key)? else { return Ok(None) };
        let variant = |layer: &LayerDescriptor, level: u8| variant_of(layer, level);
        let layers = match self.options.shared.promise(self.store, &found, &variant) {
            Ok(layers) => layers,
            Err(error) => return self.complain(&error).map(|()| None),
        };
        if let Some(created) = found.created() {
            self.set_created(id, created);
        }
        let entry = Entry {
            key: *key,
            layers: layers.iter().map(|layer| (layer.clone(), found.level())).collect(),
            bases: Vec::new(),
            created: found.created(),
            made: found.made(),
            found_in: found.repository(),
            is_new: false,
            is_hollow: found.is_hollow(),
        };
        self.done().insert(id, entry);
        (self.events)(Event::StepFound { step: id, from: found.name().to_owned() });
        Ok(Some(parent.with(layers)))
    }

    /// The layers of a base image, not fetched, if a cache can tell what is in them.
    pub(super) fn shared_base(&self, image: &ResolvedImage) -> Result<Option<Vec<LayerDescriptor>>, Error> {
        if self.options.shared.is_empty() {
            return Ok(None);
        }
        let Some((_, config)) = self.images.documents(&image.digest) else { return Ok(None) };
        let ids = &config.rootfs.diff_ids;
        let Some(missing) = self.images.missing(image)? else { return Ok(None) };
        if missing == 0 {
            return Ok(None);
        }
        let Some(found) = self.find_shared(&key::base(ids))? else { return Ok(None) };
        match self.options.shared.promise_trees(self.store, &found, ids) {
            Ok(true) => Ok(Some(self.images.promise(image, self.options.shared.checker(&found))?)),
            Ok(false) => Ok(None),
            Err(error) => self.complain(&error).map(|()| None),
        }
    }

    /// Those of `layers` that are promised and not there.
    pub(crate) fn absent(&self, layers: &[LayerDescriptor]) -> Result<Vec<LayerDescriptor>, Error> {
        let mut absent = Vec::new();
        let is_absent = |digest: &Digest| Ok(!self.store.has_blob(digest)? && self.store.is_promised(digest)?);
        for layer in layers {
            if is_absent(&layer.digest)
                .map_err(|error: crate::store::Error| Error::from_source(ErrorKind::Store, &error))?
            {
                absent.push(layer.clone());
            }
        }
        Ok(absent)
    }

    /// Fetches those of `layers` that are promised and not there, several at once.
    pub(crate) fn bring(&self, id: StepId, layers: &[LayerDescriptor]) -> Result<(), Error> {
        let promised = self.absent(layers)?;
        let next = AtomicUsize::new(0);
        let failure = Mutex::new(None);
        let failed = || failure.lock().unwrap_or_else(PoisonError::into_inner);
        let work = || {
            while let Some(layer) = promised.get(next.fetch_add(1, Ordering::Relaxed)) {
                let label = layer.digest.hex()[..12].to_owned();
                let tell = |current| {
                    let (label, total) = (label.clone(), Some(layer.size));
                    (self.events)(Event::StepProgress { step: id, label, current, total });
                };
                if failed().is_some() {
                    return;
                }
                if let Err(error) = self.store.bring_blob(&layer.digest, &tell) {
                    failed().get_or_insert(error);
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..PARALLEL_FETCHES.min(promised.len()) {
                scope.spawn(work);
            }
            work();
        });
        let failure = failure.into_inner().unwrap_or_else(PoisonError::into_inner);
        failure.map_or(Ok(()), |error| Err(Error::from_source(ErrorKind::Registry, &error)))
    }

    /// Fetches layers that nobody knows the contents of and that the step must look into to be worked out.
    pub(super) fn bring_what_is_looked_at(&self, id: StepId, step: &Step, inputs: &Inputs<'_>) -> Result<(), Error> {
        let mut unknown = Vec::new();
        for needed in looked_at(step) {
            let StepOutput::Root(root) = inputs.get(needed)? else { continue };
            for layer in root.layers() {
                if self.is_unknown(&layer).map_err(|error| Error::from_source(ErrorKind::Store, &error))? {
                    unknown.push(layer);
                }
            }
        }
        self.bring(id, &unknown)
    }

    fn is_unknown(&self, layer: &LayerDescriptor) -> Result<bool, crate::store::Error> {
        Ok(!self.store.has_blob(&layer.digest)?
            && self.store.is_promised(&layer.digest)?
            && self.store.tree(&layer.diff_id)?.is_none()
            && self.store.promised_tree(&layer.diff_id, &layer.digest)?.is_none())
    }

    /// The same for those that are not unpacked.
    pub(super) fn bring_for_unpacking(&self, id: StepId, root: &Root) -> Result<(), Error> {
        let mut layers = root.layers();
        let mut failure = None;
        layers.retain(|layer| match self.store.unpacked(&layer.diff_id.0.hex()) {
            Ok(unpacked) => unpacked.is_none(),
            Err(error) => {
                failure.get_or_insert(error);
                false
            }
        });
        match failure {
            Some(error) => Err(Error::from_source(ErrorKind::Store, &error)),
            None => self.bring(id, &layers),
        }
    }

    /// After a failure: a cache that is to blame for it, without which the build may go on. Not when something else has
    /// ended it.
    pub(crate) fn blamed_cache(&self) -> Option<Broken> {
        let may_go_on = |broken: &Broken| broken.is_hollow || !self.options.cache_strict;
        self.options.shared.broken().filter(|broken| may_go_on(broken) && !self.kill_switch.is_thrown())
    }

    /// Starts over without what the blamed cache said: without results that lack their layers, or without all caches.
    pub(crate) fn do_without(&self, blamed: &Broken) {
        if blamed.is_hollow {
            return self.insist();
        }
        let message = format!("{}; building without shared caches", blamed.reason);
        (self.events)(Event::Warning { code: "cache-source".to_owned(), message });
        self.options.shared.give_up(self.store);
        self.done().clear();
    }

    /// Counts only results that have their layers from now on.
    pub(crate) fn insist(&self) {
        self.options.shared.insist(self.store);
        self.done().clear();
    }

    /// Repositories from which a later process can fetch a layer that is not here.
    pub(crate) fn repositories_of(&self, digest: &Digest) -> Vec<Reference> {
        let noted = noted_origins(self.store, digest);
        let promised = self.options.shared.origins_of(digest, &self.images.promised_by());
        noted.into_iter().chain(promised).collect()
    }

    /// Those of `layers` that nobody has.
    pub(crate) fn hollow(&self, layers: &[LayerDescriptor]) -> Result<Vec<LayerDescriptor>, Error> {
        let mut absent = self.absent(layers)?;
        absent.retain(|layer| self.options.shared.is_hollow(&layer.digest));
        Ok(absent)
    }

    /// Records what came from shared caches and is here now, so that the next build need not ask.
    pub(crate) fn keep_shared(&self) -> Result<(), Error> {
        let store_error = |error: crate::store::Error| Error::from_source(ErrorKind::Store, &error);
        let found: Vec<Entry> = self.done().values().filter(|entry| !entry.is_new).cloned().collect();
        for entry in found {
            if self.store.record(&entry.key).map_err(store_error)?.is_some() {
                continue;
            }
            let mut whole = true;
            for (layer, _) in &entry.layers {
                // A tree is kept of what was read and proved to be what its diff ID says.
                let proved = self.store.tree(&layer.diff_id).map_err(store_error)?.is_some();
                whole &= proved && self.store.blob_size(&layer.digest).map_err(store_error)? == Some(layer.size);
            }
            if !whole {
                continue;
            }
            for (layer, level) in &entry.layers {
                remember_level(self.store, layer, *level)?;
            }
            let text = |name: &str, value: Option<i64>| value.map(|secs| (name.to_owned(), secs.to_string()));
            let facts = text(CREATED, entry.created).into_iter().chain(text(MADE, entry.made)).collect();
            let layers = entry.layers.into_iter().map(|(layer, _)| layer).collect();
            let record = Record { layers, parts: Vec::new(), facts };
            self.store.put_record(&entry.key, &record).map_err(store_error)?;
        }
        self.images.keep_promised().map_err(Error::from)
    }

    /// Notes a result for those who share it. Its layers are compressed as this build's are.
    pub(super) fn note_done(
        &self,
        id: StepId,
        key: CacheKey,
        layers: &[LayerDescriptor],
        facts: &Record,
        is_new: bool,
    ) {
        let level = Some(effective_level(self.options.compression));
        let fact = |name: &str| facts.facts.get(name).and_then(|text| text.parse().ok());
        let entry = Entry {
            key,
            layers: layers.iter().map(|layer| (layer.clone(), level)).collect(),
            bases: Vec::new(),
            created: fact(CREATED),
            made: fact(MADE),
            found_in: None,
            is_new,
            is_hollow: false,
        };
        self.done().insert(id, entry);
    }

    /// The results of `steps`, or of all steps.
    pub(crate) fn results(&self, steps: Option<&BTreeSet<StepId>>) -> Vec<Entry> {
        let wanted = |id: &StepId| steps.is_none_or(|steps| steps.contains(id));
        self.done().iter().filter(|(id, _)| wanted(id)).map(|(_, entry)| entry.clone()).collect()
    }

    /// The results of all steps, of which those of `steps` have their layers, if they have them here.
    pub(crate) fn results_around(&self, steps: &BTreeSet<StepId>) -> Result<Vec<Entry>, Error> {
        let mut entries = Vec::new();
        for (id, mut entry) in self.done().clone() {
            let layers: Vec<_> = entry.layers.iter().map(|(layer, _)| layer.clone()).collect();
            let lacking = entry.is_hollow && !self.hollow(&layers)?.is_empty();
            entry.is_hollow = !entry.layers.is_empty() && (lacking || !steps.contains(&id));
            entries.push(entry);
        }
        Ok(entries)
    }
}

/// Steps whose files decide what `step` makes: not what `COPY --link` stands on, nor what a command runs over, which has
/// an identity of its own.
fn looked_at(step: &Step) -> Vec<StepId> {
    let below = match &step.op {
        Op::Copy(op) if op.link => None,
        Op::Run(_) => None,
        op => op.parent().step(),
    };
    let mut steps = dependencies(step);
    steps.retain(|id| Some(*id) == below || Some(*id) != step.op.parent().step());
    steps
}

/// The entry that says what is in the layers of a base image.
pub(crate) fn base_entry(root: &Root) -> Entry {
    let layers = root.layers();
    let ids: Vec<DiffId> = layers.iter().map(|layer| layer.diff_id).collect();
    Entry {
        key: key::base(&ids),
        layers: Vec::new(),
        bases: layers,
        created: None,
        made: None,
        found_in: None,
        is_new: false,
        is_hollow: false,
    }
}
