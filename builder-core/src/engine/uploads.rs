//! Layers on their way to a registry while later steps still run.
//!
//! Sent is what will be in the image as it is now: the layers of its base and of its finished steps, if the push wants
//! them in the compression that the build makes. Nothing is named before the build is over, and an upload that fails is
//! tried again by the push, which then says why. What is sent in vain, because a later step fails, the registry forgets.

use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender as Queue, channel};
use std::sync::{Mutex, PoisonError};

use crate::digest::CacheKey;
use crate::error::Error;
use crate::event::StepId;
use crate::export::Sender;
use crate::image::Descriptor;
use crate::plan::BuildGraph;
use crate::registry::Reference;
use crate::request::{BuildRequest, Compression, Output};
use crate::solver::{Completed, Glimpse, KeyParts, Worker};
use crate::store::LayerDescriptor;
use crate::worker::{BuildWorker, StepOutput};

/// Layers that are sent at once. The other half of what a push sends at once is left to the base images that still come.
const AT_ONCE: usize = 2;

/// A worker that hands the layers of the image on as soon as they are there.
pub(super) struct Uploading<'a, 'w> {
    worker: &'a BuildWorker<'w>,
    /// Steps whose layers are in an image of the target.
    wanted: BTreeSet<StepId>,
    queue: Mutex<Option<Queue<LayerDescriptor>>>,
    layers: Mutex<Receiver<LayerDescriptor>>,
    /// One repository of each registry: from there the others take it.
    targets: Vec<Reference>,
}

impl<'a, 'w> Uploading<'a, 'w> {
    /// Sends to `targets`, the names that `request` pushes to, if the layers of this build are what it pushes.
    pub(super) fn new(
        worker: &'a BuildWorker<'w>,
        graph: &BuildGraph,
        request: &BuildRequest,
        made: Compression,
        targets: &[Reference],
    ) -> Self {
        let fits = |output: &Output| match output {
            Output::Registry { form, .. } => {
                !form.force_compression && form.compression.or(request.compression).unwrap_or_default() == made
            }
            _ => true,
        };
        let mut own: Vec<Reference> = Vec::new();
        // Squashed, none of them is in the image.
        if !request.squash && request.outputs.iter().all(fits) {
            for target in targets {
                if own.iter().all(|known| known.registry() != target.registry()) {
                    own.push(target.clone());
                }
            }
        }
        let layers = |target: &crate::plan::TargetImage| {
            let steps = target.history.iter().filter_map(|entry| entry.layer);
            steps.chain(target.base).collect::<Vec<_>>()
        };
        let (queue, receiver) = channel();
        Self {
            worker,
            wanted: graph.targets().flat_map(layers).collect(),
            queue: Mutex::new(Some(queue).filter(|_| !own.is_empty())),
            layers: Mutex::new(receiver),
            targets: own,
        }
    }

    /// Sends what comes while `solve` works, once `check` has found that it may. That it may not ends the build, whatever
    /// else then fails.
    pub(super) fn during<T>(
        &self,
        sender: &Sender<'_>,
        check: impl FnOnce() -> Result<(), Error> + Send,
        solve: impl FnOnce() -> Result<T, Error>,
    ) -> Result<T, Error> {
        std::thread::scope(|scope| {
            let sent = scope.spawn(|| check().map(|()| self.send(sender)));
            let solved = solve();
            if solved.is_err() {
                sender.stop();
            }
            self.close();
            sent.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            solved
        })
    }

    /// Sends what comes until [`close`](Self::close).
    fn send(&self, sender: &Sender<'_>) {
        let next = || self.layers.lock().unwrap_or_else(PoisonError::into_inner).recv().ok();
        let work = || {
            while let Some(layer) = next() {
                let blob = Descriptor::new(layer.media_type, layer.digest, layer.size);
                let sent = self.targets.iter().try_for_each(|target| sender.send(&blob, target, &[]));
                if sent.is_err() {
                    return;
                }
            }
        };
        std::thread::scope(|scope| {
            for _ in 1..AT_ONCE {
                scope.spawn(work);
            }
            work();
        });
    }

    /// Says that no more layers come. What is not being sent yet is left to the push.
    fn close(&self) {
        drop(self.queue.lock().unwrap_or_else(PoisonError::into_inner).take());
        // Whoever waits for a layer holds the lock; it is given up now that none can come.
        let layers = self.layers.lock().unwrap_or_else(PoisonError::into_inner);
        while layers.try_recv().is_ok() {}
    }

    fn ready(&self, step: StepId, output: &StepOutput) {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(queue), StepOutput::Root(root), true) = (&*queue, output, self.wanted.contains(&step)) else {
            return;
        };
        if let Some((_, added)) = root.parent() {
            // Nobody sends any more after a failure.
            added.iter().for_each(|layer| drop(queue.send(layer.clone())));
        }
    }
}

impl Worker for Uploading<'_, '_> {
    type Output = StepOutput;
    type Error = Error;
    type Lock = <BuildWorker<'static> as Worker>::Lock;

    fn key(&self, step: StepId, inputs: &[StepOutput]) -> Result<Option<KeyParts>, Error> {
        self.worker.key(step, inputs)
    }

    fn lookup(&self, step: StepId, inputs: &[StepOutput], key: &CacheKey) -> Result<Option<StepOutput>, Error> {
        let found = self.worker.lookup(step, inputs, key)?;
        found.iter().for_each(|output| self.ready(step, output));
        Ok(found)
    }

    fn glimpse(&self, step: StepId, inputs: &[StepOutput]) -> Result<Glimpse<StepOutput>, Error> {
        self.worker.glimpse(step, inputs)
    }

    fn reason(&self, step: StepId, key: &KeyParts) -> Option<String> {
        self.worker.reason(step, key)
    }

    fn lock(&self, key: &CacheKey) -> Result<Self::Lock, Error> {
        self.worker.lock(key)
    }

    fn execute(
        &self,
        step: StepId,
        inputs: &[StepOutput],
        key: Option<&KeyParts>,
    ) -> Result<Completed<StepOutput>, Error> {
        let done = self.worker.execute(step, inputs, key)?;
        self.ready(step, &done.output);
        Ok(done)
    }

    fn cancel(&self) {
        self.worker.cancel();
    }
}
