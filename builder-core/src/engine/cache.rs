//! Caches that are shared with other machines: which are looked into, and what goes where at the end.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Instant;

use super::assemble::{Assembled, Inline, Solved};
use super::build::Events;
use crate::cache::{Bundle, Entry, Shared};
use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId, StepInfo};
use crate::export::Origins;
use crate::layer::{LayerOptions, effective_level};
use crate::plan::{BuildGraph, Op, Step, TargetImage};
use crate::registry::{Client, Reference};
use crate::request::{BuildRequest, CacheMode, CachePlace, CacheTarget, Compression, Output};
use crate::store::{LayerDescriptor, Store};
use crate::worker::{BuildWorker, StepOutput, base_entry, cache_error, compressed_as};

/// The caches to look into. Names that are none are refused before anything is done.
///
/// The second are those of cache mounts.
pub(super) fn open(request: &BuildRequest, client: &Client, clock: i64) -> Result<(Arc<Shared>, Arc<Shared>), Error> {
    targets(request)?;
    mount_targets(request)?;
    let oldest = request.cache_ttl.map(|ttl| clock.saturating_sub(i64::try_from(ttl).unwrap_or(i64::MAX)));
    let nowhere = request.no_cache || request.cache_ttl == Some(0);
    let from = if nowhere { &[] } else { request.cache_from.as_slice() };
    let shared = Shared::new(client, from, oldest).map_err(|error| cache_error(&error))?;
    let mounts = Shared::new(client, &request.cache_mount_from, None).map_err(|error| cache_error(&error))?;
    Ok((Arc::new(shared), Arc::new(mounts)))
}

/// Repositories that must take a cache, so that it is found out early if they do not.
pub(super) fn must_take(request: &BuildRequest) -> Result<Vec<Reference>, Error> {
    let targets = targets(request)?.into_iter();
    let must = targets.filter(|(target, _)| target.strict || request.cache_strict);
    Ok(must.filter_map(|(_, reference)| reference).collect())
}

fn targets(request: &BuildRequest) -> Result<Vec<(&CacheTarget, Option<Reference>)>, Error> {
    request.cache_to.iter().map(|target| Ok((target, repository(&target.place)?))).collect()
}

/// The same for cache mounts, which must not take the place of the steps' cache.
fn mount_targets(request: &BuildRequest) -> Result<Vec<(&CachePlace, Option<Reference>)>, Error> {
    for place in &request.cache_mount_to {
        let named = match place {
            CachePlace::Registry(name) => has_tag(name),
            CachePlace::Directory(_) | CachePlace::Inline => true,
        };
        let taken = named && request.cache_to.iter().any(|target| target.place == *place);
        if taken || *place == CachePlace::Inline {
            let error = Error::new(ErrorKind::Request, "cache mounts cannot go where the results of steps go");
            return Err(error.hint("give them a directory, or a tag, of their own"));
        }
    }
    request.cache_mount_to.iter().map(|place| Ok((place, repository(place)?))).collect()
}

fn repository(place: &CachePlace) -> Result<Option<Reference>, Error> {
    let CachePlace::Registry(name) = place else { return Ok(None) };
    let reference = name.parse::<Reference>();
    let reference = reference.map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    if reference.digest().is_some() {
        return Err(Error::new(ErrorKind::Request, format!("the cache {name:?} has a digest, and is to be written")));
    }
    Ok(Some(reference))
}

/// Whether somebody reads the layers of the image: an output that takes them from here, or a name in the store and no
/// registry. A registry may have them, and what it has the store need not.
pub(super) fn needs_layers(request: &BuildRequest) -> bool {
    let reads_none =
        |output: &Output| matches!(output, Output::Registry { .. } | Output::CacheOnly | Output::Store { .. });
    let is_pushed = request.outputs.iter().any(|output| matches!(output, Output::Registry { .. }));
    let is_kept = is_named(request) && !is_pushed;
    is_kept || request.outputs.is_empty() || !request.outputs.iter().all(reads_none)
}

/// Whether the image gets a name in the store.
pub(super) fn is_named(request: &BuildRequest) -> bool {
    !request.tags.is_empty() || request.outputs.iter().any(|output| matches!(output, Output::Store { .. }))
}

/// Fetches the layers of the image that are still elsewhere, if somebody reads them. It is shown as a step of its own.
pub(super) fn bring(
    request: &BuildRequest,
    graph: &BuildGraph,
    worker: &BuildWorker<'_>,
    outputs: &[StepOutput],
    events: Events<'_>,
) -> Result<(), Error> {
    let mut absent: Vec<LayerDescriptor> = Vec::new();
    for target in graph.targets() {
        let Some(StepOutput::Root(root)) = target.root.step().map(|step| &outputs[step.0]) else { continue };
        absent.extend(match needs_layers(request) {
            true => worker.absent(&root.layers())?,
            // A registry may have the others.
            false => worker.hollow(&root.layers())?,
        });
        if is_named(request) {
            // The name must stand for an image that somebody can have all of.
            let unknown = |layer: &LayerDescriptor| worker.repositories_of(&layer.digest).is_empty();
            absent.extend(worker.absent(&root.layers())?.into_iter().filter(unknown));
        }
    }
    // Platforms may share some.
    absent.sort_unstable_by_key(|layer| layer.digest);
    absent.dedup_by_key(|layer| layer.digest);
    if absent.is_empty() {
        return Ok(());
    }
    let step = StepId(graph.steps.len());
    let name = format!("[internal] fetch {} of the image's layers", absent.len());
    events(Event::Plan { steps: vec![StepInfo { step, name, stage: None, line: None }] });
    events(Event::StepStarted { step, reason: None });
    let started = Instant::now();
    let brought = worker.bring(step, &absent);
    events(match &brought {
        Ok(()) => {
            let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
            Event::StepFinished { step, duration_ms }
        }
        Err(error) => Event::StepFailed { step, message: error.to_string() },
    });
    brought
}

/// Gives the image's own layers that came from a cache the compression of this build.
pub(super) fn recompress(
    request: &BuildRequest,
    solved: &mut Solved<'_>,
    around: (&Store, &LayerOptions),
) -> Result<(), Error> {
    if request.cache_from.is_empty() || !needs_layers(request) {
        return Ok(());
    }
    for layer in solved.layers.iter_mut().skip(solved.base_layers) {
        *layer = compressed_as(around.0, layer, around.1.clone())?;
    }
    Ok(())
}

/// Steps whose layers are the image's own, and the base of the image.
fn final_stage(graph: &BuildGraph, target: &TargetImage) -> BTreeSet<StepId> {
    let mut steps = BTreeSet::new();
    let mut at = target.root;
    while let Some(step) = at.step() {
        steps.insert(step);
        at = graph.step(step).op.parent();
    }
    steps
}

/// What a build has to share.
pub(super) struct Results<'a> {
    pub(super) graph: &'a BuildGraph,
    pub(super) worker: &'a BuildWorker<'a>,
    pub(super) outputs: &'a [StepOutput],
    /// That of the build's layers.
    pub(super) compression: Compression,
}

impl Results<'_> {
    fn entries(&self, mode: CacheMode) -> Result<Vec<Entry>, Error> {
        let with_layers = match mode {
            CacheMode::Min => self.graph.targets().flat_map(|target| final_stage(self.graph, target)).collect(),
            CacheMode::Max => self.graph.steps.iter().map(Step::id).collect(),
        };
        let mut entries = self.worker.results_around(&with_layers)?;
        for (step, output) in self.graph.steps.iter().zip(self.outputs) {
            if let (Op::Image(_), StepOutput::Root(root)) = (&step.op, output) {
                entries.push(base_entry(root));
            }
        }
        // Two steps may be the same.
        let distinct: BTreeMap<String, Entry> =
            entries.into_iter().rev().map(|entry| (entry.key.to_string(), entry)).collect();
        Ok(distinct.into_values().collect())
    }

    /// What the config of the image says, if that is asked for.
    pub(super) fn inline(&self, request: &BuildRequest, target: &TargetImage) -> Option<Inline> {
        let wanted = request.cache_to.iter().any(|target| target.place == CachePlace::Inline);
        let level = effective_level(self.compression);
        wanted.then(|| Inline { entries: self.worker.results(Some(&final_stage(self.graph, target))), level })
    }
}

/// Where a cache is written from.
pub(super) struct Writer<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    pub(super) origins: Origins<'a>,
    pub(super) events: Events<'a>,
}

impl Writer<'_> {
    /// Writes all that the request asks for, and keeps what came from others. What fails to be written is a warning
    /// unless it was to be strict.
    pub(super) fn finish(&self, request: &BuildRequest, results: &Results<'_>, image: &Assembled) -> Result<(), Error> {
        for (target, reference) in targets(request)? {
            let strict = target.strict || request.cache_strict;
            let written = match target.place {
                CachePlace::Inline => Ok(image.descriptor.digest),
                _ => results.entries(target.mode).and_then(|all| self.write(all, &target.place, reference.as_ref())),
            };
            self.tell(format!("cache {}", shown(&target.place)), written, strict)?;
        }
        let mounts = mount_targets(request)?;
        if !mounts.is_empty() {
            self.share_mounts(request, results, &mounts)?;
        }
        results.worker.keep_shared()
    }

    fn share_mounts(
        &self,
        request: &BuildRequest,
        results: &Results<'_>,
        targets: &[(&CachePlace, Option<Reference>)],
    ) -> Result<(), Error> {
        let entries = results.worker.share_mounts();
        for (place, reference) in targets {
            let written = match &entries {
                Ok(entries) if entries.is_empty() => {
                    Err(Error::new(ErrorKind::Request, "no step of this build has a cache mount"))
                }
                Ok(entries) => self.write(entries.clone(), place, reference.as_ref()),
                Err(error) => Err(error.clone()),
            };
            self.tell(format!("cache mounts {}", shown(place)), written, request.cache_strict)?;
        }
        Ok(())
    }

    /// Says what was written, or that it was not.
    fn tell(&self, output: String, written: Result<Digest, Error>, strict: bool) -> Result<(), Error> {
        match written {
            Ok(digest) => (self.events)(Event::Exported { output, digest }),
            Err(error) if strict => return Err(error),
            Err(error) => {
                let message = format!("{error}; others will not find this build's results there");
                (self.events)(Event::Warning { code: "cache-target".to_owned(), message });
            }
        }
        Ok(())
    }

    fn write(&self, entries: Vec<Entry>, place: &CachePlace, reference: Option<&Reference>) -> Result<Digest, Error> {
        let written = Bundle::make(self.store, entries).and_then(|bundle| {
            match (place, reference) {
                (CachePlace::Registry(name), Some(reference)) => {
                    let tag = reference.tag().filter(|_| has_tag(name));
                    bundle.push(self.store, self.client, (reference, tag), self.origins)?;
                }
                (CachePlace::Directory(dir), _) => bundle.write(self.store, dir)?,
                _ => {}
            }
            Ok(bundle.digest())
        });
        written.map_err(|error| cache_error(&error))
    }
}

/// Whether a name says its tag: what has none means a repository, and not its `latest`.
fn has_tag(name: &str) -> bool {
    name.rsplit('/').next().is_some_and(|last| last.contains(':'))
}

/// A place as the user names it.
fn shown(place: &CachePlace) -> String {
    match place {
        CachePlace::Registry(name) => format!("type=registry,ref={name}"),
        CachePlace::Directory(dir) => format!("type=local,dest={}", dir.display()),
        CachePlace::Inline => "type=inline".to_owned(),
    }
}
