//! Doing the steps: once, or again with less of shared caches.

use super::Cancel;
use super::build::{Events, usable_cpus};
use super::cache;
use super::uploads::Uploading;
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::plan::BuildGraph;
use crate::registry::{Client, Reference};
use crate::request::BuildRequest;
use crate::solver::{SolveFailure, SolveOptions, solve};
use crate::worker::{BuildWorker, StepOutput, dependencies};

/// What doing the steps needs.
pub(super) struct Solving<'a> {
    pub(super) request: &'a BuildRequest,
    pub(super) graph: &'a BuildGraph,
    pub(super) source: &'a SourceFile,
    pub(super) worker: &'a BuildWorker<'a>,
    pub(super) cancel: &'a Cancel,
    pub(super) events: Events<'a>,
}

impl Solving<'_> {
    /// Does the steps, and has the layers of the images here if somebody reads them. What a shared cache promised and does
    /// not give is made here.
    pub(super) fn run(&self, uploading: &Uploading<'_, '_>) -> Result<Vec<StepOutput>, Error> {
        std::thread::scope(|scope| {
            let prefetch = scope.spawn(|| self.worker.prefetch_caches().inspect_err(|_| self.cancel.throw()));
            let outputs = loop {
                match (self.attempt(uploading), self.worker.blamed_cache()) {
                    // Each time there is less of caches.
                    (Err(_), Some(blamed)) => self.worker.do_without(&blamed),
                    (outputs, _) => break outputs,
                }
            };
            prefetch.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))?;
            outputs
        })
    }

    fn attempt(&self, uploading: &Uploading<'_, '_>) -> Result<Vec<StepOutput>, Error> {
        let Self { request, graph, worker, events, .. } = self;
        let inputs: Vec<Vec<StepId>> = graph.steps.iter().map(dependencies).collect();
        // Steps wait for networks and for each other more than they compute.
        let jobs = request.jobs.unwrap_or_else(|| (2 * usable_cpus()).max(4));
        let options = SolveOptions { jobs, no_cache: request.no_cache || request.cache_ttl == Some(0) };
        // It is not the step that failed.
        let told = |event: Event| match event {
            Event::StepFailed { .. } if worker.blamed_cache().is_some() => {}
            event => events(event),
        };
        let outputs =
            solve(&inputs, uploading, options, &told).map_err(|failure| locate(failure, graph, self.source))?;
        cache::bring(request, graph, worker, &outputs, events).map(|()| outputs)
    }
}

/// Finds out whether the image may be pushed, while the build runs, and ends it if not.
pub(super) fn check_push(client: &Client, targets: &[Reference], cancel: &Cancel) -> Result<(), Error> {
    let mut repositories: Vec<&Reference> = targets.iter().collect();
    repositories.sort_unstable_by_key(|target| target.name());
    repositories.dedup_by_key(|target| target.name());
    for target in repositories {
        client.check_push(target).map_err(|error| {
            cancel.throw();
            let this = Error::from_source(ErrorKind::Registry, &error).context(format!("{target} cannot be pushed"));
            error.hint().into_iter().fold(this, Error::hint)
        })?;
    }
    Ok(())
}

/// Completes the error of a step with the place in the Dockerfile.
pub(super) fn locate(failure: SolveFailure<Error>, graph: &BuildGraph, source: &SourceFile) -> Error {
    let SolveFailure { step, error } = failure;
    let step = graph.step(step);
    if error.kind() == ErrorKind::Cancelled {
        return error;
    }
    let Some(span) = step.span else {
        return error.context(step.info.name.clone());
    };
    let code = match error.kind() {
        ErrorKind::StepFailed => "step-failed",
        ErrorKind::Context => "context",
        ErrorKind::HostUnsupported => "host-unsupported",
        ErrorKind::Registry => "registry",
        ErrorKind::Store => "store",
        ErrorKind::Internal => "internal",
        _ => "step",
    };
    let diagnostic = Diagnostic::error(code, error.to_string()).at(span);
    let rendered = diagnostic.render(source);
    error.diagnostic(rendered)
}
