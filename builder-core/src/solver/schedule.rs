//! The scheduler: a ready queue over a directed acyclic graph.

use std::collections::BTreeSet;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{Glimpse, KeyParts};
use crate::digest::CacheKey;
use crate::event::{Event, StepId};

/// What a step yields.
#[derive(Debug, Clone)]
pub(crate) struct Completed<T> {
    /// The result.
    pub(crate) output: T,
    /// Whether it was there already, so that nothing was done.
    pub(crate) cached: bool,
}

/// Does the steps of a graph. Calls come from several threads at once, at most one per step.
pub(crate) trait Worker: Sync {
    /// Result of a step.
    type Output: Clone + Send;
    /// Why a step failed.
    type Error: Send + std::fmt::Display;
    /// Held while a keyed step is looked up and done, so that builds side by side do it once.
    type Lock;

    /// Returns everything that decides the step's result, or `None` for a step that is never recorded.
    fn key(&self, step: StepId, inputs: &[Self::Output]) -> Result<Option<KeyParts>, Self::Error>;
    /// Returns an earlier result.
    fn lookup(
        &self,
        step: StepId,
        inputs: &[Self::Output],
        key: &CacheKey,
    ) -> Result<Option<Self::Output>, Self::Error>;
    /// What can be told of a step without doing anything.
    fn glimpse(&self, step: StepId, inputs: &[Self::Output]) -> Result<Glimpse<Self::Output>, Self::Error>;
    /// Says why no earlier result is there, once that is sure; `None` when that goes without saying.
    fn reason(&self, step: StepId, key: &KeyParts) -> Option<String>;
    /// Waits until no other build works on `key`.
    fn lock(&self, key: &CacheKey) -> Result<Self::Lock, Self::Error>;
    /// Does the step, and records the result where it has a key.
    fn execute(
        &self,
        step: StepId,
        inputs: &[Self::Output],
        key: Option<&KeyParts>,
    ) -> Result<Completed<Self::Output>, Self::Error>;
    /// Ends what runs now as soon as it can; called once, after a failure.
    fn cancel(&self);
}

/// How to solve.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SolveOptions {
    /// Steps at once, at least 1.
    pub(crate) jobs: usize,
    /// Do every keyed step although a result may be there.
    pub(crate) no_cache: bool,
}

/// The step that failed first, and why.
#[derive(Debug)]
pub(crate) struct SolveFailure<E> {
    /// The step.
    pub(crate) step: StepId,
    /// Its error.
    pub(crate) error: E,
}

struct Progress<O, E> {
    ready: BTreeSet<usize>,
    waiting_for: Vec<usize>,
    outputs: Vec<Option<O>>,
    unfinished: usize,
    failure: Option<SolveFailure<E>>,
}

struct Solve<'a, W: Worker> {
    inputs: &'a [Vec<StepId>],
    readers: Vec<Vec<usize>>,
    worker: &'a W,
    options: SolveOptions,
    events: &'a (dyn Fn(Event) + Sync),
    progress: Mutex<Progress<W::Output, W::Error>>,
    changed: Condvar,
}

/// Does all steps and returns their results by number.
///
/// `inputs[n]` are the steps that step `n` needs, all with smaller numbers.
pub(crate) fn solve<W: Worker>(
    inputs: &[Vec<StepId>],
    worker: &W,
    options: SolveOptions,
    events: &(dyn Fn(Event) + Sync),
) -> Result<Vec<W::Output>, SolveFailure<W::Error>> {
    let mut readers = vec![Vec::new(); inputs.len()];
    for (step, needs) in inputs.iter().enumerate() {
        for need in needs {
            readers[need.0].push(step);
        }
    }
    let waiting_for: Vec<usize> = inputs.iter().map(Vec::len).collect();
    let ready = waiting_for.iter().enumerate().filter(|(_, n)| **n == 0).map(|(step, _)| step).collect();
    let progress = Progress {
        ready,
        waiting_for,
        outputs: inputs.iter().map(|_| None).collect(),
        unfinished: inputs.len(),
        failure: None,
    };
    let solve =
        Solve { inputs, readers, worker, options, events, progress: Mutex::new(progress), changed: Condvar::new() };
    let threads = options.jobs.clamp(1, inputs.len().max(1));
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| solve.work());
        }
    });
    let progress = solve.progress.into_inner().unwrap_or_else(PoisonError::into_inner);
    match progress.failure {
        Some(failure) => Err(failure),
        None => Ok(progress.outputs.into_iter().flatten().collect()),
    }
}

impl<W: Worker> Solve<'_, W> {
    fn lock(&self) -> MutexGuard<'_, Progress<W::Output, W::Error>> {
        // A panicking step poisons the lock; the scope passes its panic on, the others only need to get out.
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn work(&self) {
        while let Some((step, inputs)) = self.next() {
            let started = Instant::now();
            let result = self.step(StepId(step), &inputs);
            self.finish(step, result, started);
        }
    }

    /// Waits for a step that may run; `None` when the build is over.
    fn next(&self) -> Option<(usize, Vec<W::Output>)> {
        let mut progress = self.lock();
        loop {
            if progress.unfinished == 0 || progress.failure.is_some() {
                return None;
            }
            if let Some(step) = progress.ready.pop_first() {
                let inputs = self.inputs[step].iter().filter_map(|need| progress.outputs[need.0].clone()).collect();
                return Some((step, inputs));
            }
            progress = self.changed.wait(progress).unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn step(&self, step: StepId, inputs: &[W::Output]) -> Result<Completed<W::Output>, W::Error> {
        let Some(parts) = self.worker.key(step, inputs)? else {
            (self.events)(Event::StepStarted { step, reason: None });
            return self.worker.execute(step, inputs, None);
        };
        let key = parts.key();
        let lookup = || -> Result<_, W::Error> {
            let found = if self.options.no_cache { None } else { self.worker.lookup(step, inputs, &key)? };
            Ok(found.map(|output| Completed { output, cached: true }))
        };
        if let Some(found) = lookup()? {
            return Ok(found);
        }
        let _lock = self.worker.lock(&key)?;
        if let Some(found) = lookup()? {
            return Ok(found);
        }
        (self.events)(Event::StepStarted { step, reason: self.worker.reason(step, &parts) });
        self.worker.execute(step, inputs, Some(&parts))
    }

    fn finish(&self, step: usize, result: Result<Completed<W::Output>, W::Error>, started: Instant) {
        let id = StepId(step);
        let mut progress = self.lock();
        match result {
            Ok(done) => {
                progress.outputs[step] = Some(done.output);
                progress.unfinished -= 1;
                for reader in &self.readers[step] {
                    progress.waiting_for[*reader] -= 1;
                    if progress.waiting_for[*reader] == 0 {
                        progress.ready.insert(*reader);
                    }
                }
                drop(progress);
                let duration_ms = u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX);
                (self.events)(match done.cached {
                    true => Event::StepCached { step: id },
                    false => Event::StepFinished { step: id, duration_ms },
                });
            }
            Err(error) => {
                let message = error.to_string();
                let first = progress.failure.is_none();
                if first {
                    progress.failure = Some(SolveFailure { step: id, error });
                }
                drop(progress);
                if first {
                    (self.events)(Event::StepFailed { step: id, message });
                    self.worker.cancel();
                }
            }
        }
        self.changed.notify_all();
    }
}

#[cfg(test)]
mod tests;
