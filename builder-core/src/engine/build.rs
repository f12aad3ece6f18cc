//! One build, from the text of the Dockerfile to the outputs.

use std::sync::Arc;

use super::agents::Agents;
use super::deliver::{Delivery, SolvedBuild};
use super::findings::{self, Known};
use super::journal::Journal;
use super::output;
use super::platforms::Platforms;
use super::solving::{Solving, check_push};
use super::task::HostFacts;
use super::uploads::Uploading;
use super::{Cancel, annotate, cache, contexts};
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::digest::Digest;
use crate::dockerfile::{Dockerfile, Parsed, Recovered};
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::export::Sender;
use crate::fetch::{Access, DEFAULT_AGENT, FetchOptions, Fetcher};
use crate::plan::{self, BuildGraph, Inputs, PlanRequest};
use crate::registry::{Client, ClientConfig};
use crate::request::{BuildOutcome, BuildRequest, Compression, Output};
use crate::sandbox::KillSwitch;
use crate::store::Store;
use crate::tree::Timestamp;
use crate::worker::{self, BuildWorker, Contexts, Emulators, Grants, Images, Purpose, Refusal, WorkerOptions};

pub(super) type Events<'a> = &'a (dyn Fn(Event) + Sync);

/// What a build finds around it.
pub(super) struct Surroundings<'a> {
    pub(super) store: &'a Store,
    pub(super) client: &'a Client,
    /// For servers that are no registries: certificates, proxies, patience.
    pub(super) registries: ClientConfig,
    /// Why commands cannot run.
    pub(super) no_exec: Option<Error>,
    pub(super) cancel: &'a Cancel,
    pub(super) events: Events<'a>,
}

/// Builds.
pub(super) fn run(
    Surroundings { store, client, registries, no_exec, cancel, events }: Surroundings<'_>,
    request: &BuildRequest,
    facts: &HostFacts,
) -> Result<BuildOutcome, Error> {
    let names = output::full_names(&request.tags)?;
    let mut targets = output::check(request)?;
    let pushed = targets.clone();
    targets.extend(cache::must_take(request)?);
    let (shared, shared_mounts) = cache::open(request, client, facts.now.0)?;
    let platforms = Platforms::of(request)?;
    annotate::check(request, &platforms)?;
    let images = Images::new(store.clone(), client.clone(), request.build_contexts.clone(), request.pull)
        .with_context(&request.context);
    let kill_switch = KillSwitch::default();
    cancel.connect(kill_switch.clone());
    let threads = request.jobs.unwrap_or_else(usable_cpus);
    let agents = Agents::start(store, request)?;
    let access = Access::new(request, agents.socket(DEFAULT_AGENT));
    let now = request.source_date_epoch.unwrap_or(facts.now.0);
    let fetcher = Fetcher::new(store.clone(), registries, FetchOptions { access, now, kill_switch, threads });
    let main = contexts::main(request, &fetcher, store, events)?;
    let source = SourceFile::new(main.dockerfile.name.clone(), main.dockerfile.text.clone());
    let parsed = parse(request, &source, events)?;
    let inputs = Inputs::of(request).map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    let plan_request = inputs.request(&parsed.dockerfile);
    let graph = platforms
        .plan(|platform| plan(&PlanRequest { platform, ..plan_request }, &source, &images))
        .inspect_err(|_| findings::tell_text(request, &source, &parsed, events))?;
    let known = Known { request, main: &main, source: &source, parsed: &parsed, plan: &plan_request, graph: &graph };
    findings::tell(&known, events)?;
    let grants = Grants::new(request, agents.sockets());
    refuse(&grants, &graph, &source)?;
    let _emulators = refuse_foreign(&graph, store, no_exec.as_ref(), &source)?;
    events(Event::Plan { steps: graph.steps.iter().map(|step| step.info.clone()).collect() });

    let epoch = request.source_date_epoch.or(graph.target.source_date_epoch);
    let options = WorkerOptions {
        no_exec,
        shared: shared.clone(),
        shared_mounts,
        cache_strict: request.cache_strict,
        ..worker_options(request, facts, epoch, threads, grants)
    };
    let journal = Journal::start(store, request, &main.dockerfile.name, &graph, facts);
    let contexts = Contexts { by_name: contexts::used(request, main, &graph, store)?, fetcher: &fetcher };
    let worker =
        BuildWorker::new(&graph, store, &images, contexts, options.clone(), events).remembering(journal.past());
    let of_bases = images.origins();
    let origins = |digest: &Digest| shared.origins_of(digest, &of_bases);
    let sender = Sender::new(store, client, &origins);
    let uploading = Uploading::new(&worker, &graph, request, options.compression, &pushed);
    let hear = |event| {
        journal.hear(&event);
        events(event);
    };
    let solving = Solving { request, graph: &graph, source: &source, worker: &worker, cancel, events: &hear };
    let check = || check_push(client, &targets, cancel);
    let outputs = uploading.during(&sender, check, || solving.run(&uploading));
    let outputs = outputs.inspect_err(|_| journal.write(&worker, None, &[], events))?;

    worker.save_caches();
    let solved = SolvedBuild { graph: &graph, worker: &worker, outputs: &outputs, images: &images, epoch };
    let delivery =
        Delivery { store, client, request, facts, journal: &journal, platforms: &platforms, options: &options };
    delivery.run(&solved, names, &sender, events)
}

/// What all steps have in common, on a machine that can do them all.
pub(super) fn worker_options(
    request: &BuildRequest,
    facts: &HostFacts,
    epoch: Option<i64>,
    threads: usize,
    grants: Grants,
) -> WorkerOptions {
    WorkerOptions {
        compression: effective_compression(request),
        threads,
        clamp: epoch,
        now: epoch.map_or(Timestamp { secs: facts.now.0, nanos: facts.now.1 }, |secs| Timestamp { secs, nanos: 0 }),
        clock: facts.now.0,
        shared: Arc::default(),
        shared_mounts: Arc::default(),
        cache_strict: false,
        no_exec: None,
        resolv_conf: facts.resolv_conf.clone(),
        grants,
        run: request.run.clone(),
        purpose: Purpose::Build,
    }
}

/// CPUs that this process may use.
pub(super) fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

/// Parses the Dockerfile. What rules find in the text of one that has errors is told before them.
pub(super) fn parse(request: &BuildRequest, source: &SourceFile, events: Events<'_>) -> Result<Parsed, Error> {
    let Recovered { dockerfile, diagnostics } = Dockerfile::recover(source.text());
    let (errors, warnings): (Vec<_>, Vec<_>) = diagnostics.into_iter().partition(Diagnostic::is_error);
    let parsed = Parsed { dockerfile, warnings };
    if errors.is_empty() {
        return Ok(parsed);
    }
    findings::tell_text(request, source, &parsed, events);
    Err(Error::of_dockerfile(&errors, source))
}

pub(super) fn plan(request: &PlanRequest<'_>, source: &SourceFile, images: &Images) -> Result<BuildGraph, Error> {
    plan::plan(request, images).map_err(|error| match error {
        plan::Error::Dockerfile { diagnostics } => Error::of_dockerfile(&diagnostics, source),
        plan::Error::Resolve { diagnostic, source: cause } => resolve_error(*diagnostic, &*cause, source),
    })
}

fn resolve_error(
    diagnostic: Diagnostic,
    cause: &(dyn std::error::Error + Send + Sync + 'static),
    source: &SourceFile,
) -> Error {
    let kind = cause.downcast_ref::<worker::ImageError>().map_or(ErrorKind::Registry, worker::ImageError::kind);
    let hint = cause.downcast_ref::<worker::ImageError>().and_then(worker::ImageError::hint);
    let mut causes = vec![cause.to_string()];
    let mut next = cause.source();
    while let Some(error) = next {
        causes.push(error.to_string());
        next = error.source();
    }
    let diagnostic = diagnostic.with_note(causes.join(": "));
    let error = Error::new(kind, diagnostic.message.clone());
    let error = error.diagnostic(diagnostic.render(source));
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Whatever of the Dockerfile cannot be done is said before anything is done.
pub(super) fn refuse(grants: &Grants, graph: &BuildGraph, source: &SourceFile) -> Result<(), Error> {
    let denied = grants.refuse(graph).into_iter().map(|refusal| diagnose("not-allowed", graph, refusal));
    let diagnostics: Vec<Diagnostic> = denied.collect();
    if diagnostics.is_empty() { Ok(()) } else { Err(Error::of_dockerfile(&diagnostics, source)) }
}

fn diagnose(code: &'static str, graph: &BuildGraph, refusal: Refusal) -> Diagnostic {
    let diagnostic = Diagnostic::error(code, refusal.what);
    let diagnostic = match graph.step(refusal.step).span {
        Some(span) => diagnostic.at(span),
        None => diagnostic,
    };
    match refusal.hint {
        Some(hint) => diagnostic.with_hint(hint),
        None => diagnostic,
    }
}

/// Whether this machine can run the commands of the Dockerfile. Another machine could: the Dockerfile is not at fault. The
/// emulators must be kept as long as commands run.
pub(super) fn refuse_foreign(
    graph: &BuildGraph,
    store: &Store,
    no_exec: Option<&Error>,
    source: &SourceFile,
) -> Result<Option<Emulators>, Error> {
    let (foreign, emulators) = worker::foreign(graph, store, no_exec)?;
    let foreign: Vec<Diagnostic> =
        foreign.into_iter().map(|refusal| diagnose("foreign-platform", graph, refusal)).collect();
    let Some(first) = foreign.first() else { return Ok(emulators) };
    let error = Error::new(ErrorKind::HostUnsupported, first.message.clone());
    Err(foreign.iter().fold(error, |error, diagnostic| error.diagnostic(diagnostic.render(source))))
}

/// The build's compression: what was asked for, else what all outputs want, so that no layer is compressed twice.
fn effective_compression(request: &BuildRequest) -> Compression {
    let of_output = |output: &Output| output.form().and_then(|form| form.compression);
    let asked = request.compression;
    asked.or_else(|| request.outputs.iter().find_map(of_output)).unwrap_or_default()
}
