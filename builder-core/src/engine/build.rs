//! One build, from the text of the Dockerfile to the outputs.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::agents::Agents;
use super::assemble::{Assembled, Product, Solved};
use super::findings::{self, Known};
use super::journal::Journal;
use super::output::{self, Outputs};
use super::platforms::Platforms;
use super::task::HostFacts;
use super::uploads::Uploading;
use super::{Cancel, cache, contexts};
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::digest::Digest;
use crate::dockerfile::{Dockerfile, Parsed, Recovered};
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::export::Sender;
use crate::fetch::{Access, DEFAULT_AGENT, FetchOptions, Fetcher};
use crate::image::rfc3339;
use crate::plan::{self, BuildGraph, Inputs, Op, PlanRequest, RootInput, TargetImage};
use crate::registry::{Client, ClientConfig, Reference};
use crate::request::{BuildOutcome, BuildRequest, Compression, MediaTypes, Output};
use crate::rootless;
use crate::sandbox::KillSwitch;
use crate::solver::{SolveFailure, SolveOptions, solve};
use crate::store::Store;
use crate::tree::Timestamp;
use crate::worker::{
    self, BuildWorker, Contexts, Grants, Images, Purpose, Refusal, Root, StepOutput, WorkerOptions, dependencies,
};

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
    let images = Images::new(store.clone(), client.clone(), request.build_contexts.clone(), request.pull);
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
    refuse_foreign(&graph, store, &source)?;
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
    let results =
        cache::Results { graph: &graph, worker: &worker, outputs: &outputs, compression: options.compression };
    let image = |target| {
        let done = target_done(target, &worker);
        let mut solved = solved(&graph, target, &outputs, &images, (epoch.or(done), facts.now.0));
        solved.inline = results.inline(request, target);
        cache::recompress(request, &mut solved, (store, &worker.layer_options()))?;
        Ok(solved)
    };
    let images = graph.targets().map(image).collect::<Result<_, Error>>()?;
    let product = Product { images, shape: platforms.shape };
    let assembled =
        product.assemble(store, MediaTypes::Oci).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let name_error = |error: &crate::store::Error| Error::from_source(ErrorKind::Store, error);
    for name in &names {
        store.tag_image(name, &assembled.descriptor).map_err(|e| name_error(&e))?;
        events(Event::Exported { output: name.clone(), digest: assembled.descriptor.digest });
    }
    journal.write(&worker, Some(assembled.descriptor.digest), &names, events);
    let outputs = Outputs {
        store,
        names: &names,
        product: &product,
        platforms: &platforms,
        main: &assembled,
        options: &options,
        compression: request.compression,
        sender: &sender,
        events,
    };
    rootless::take_umask(facts.umask);
    let written = outputs.write_all(&request.outputs)?;
    let image = written.first().unwrap_or(&assembled);
    if image.descriptor.digest != assembled.descriptor.digest {
        journal.write(&worker, Some(image.descriptor.digest), &names, events);
    }
    let writer = cache::Writer { store, client, origins: &origins, events };
    writer.finish(request, &results, image)?;
    store.sync().map_err(|e| name_error(&e))?;
    if let Some(max) = request.cache_max {
        store.release().and_then(|()| store.enforce_limit(max)).map_err(|e| name_error(&e))?;
    }
    // What went out is what the caller asks about.
    Ok(outcome(image, names))
}

fn outcome(image: &Assembled, names: Vec<String>) -> BuildOutcome {
    BuildOutcome {
        digest: image.descriptor.digest,
        config_digest: image.config_digest,
        media_type: image.descriptor.media_type.clone(),
        size: image.descriptor.size,
        names,
    }
}

/// What doing the steps needs.
struct Solving<'a> {
    request: &'a BuildRequest,
    graph: &'a BuildGraph,
    source: &'a SourceFile,
    worker: &'a BuildWorker<'a>,
    cancel: &'a Cancel,
    events: Events<'a>,
}

impl Solving<'_> {
    /// Does the steps, and has the layers of the images here if somebody reads them. What a shared cache promised and does
    /// not give is made here.
    fn run(&self, uploading: &Uploading<'_, '_>) -> Result<Vec<StepOutput>, Error> {
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
        purpose: Purpose::Build,
    }
}

/// Finds out whether the image may be pushed, while the build runs, and ends it if not.
fn check_push(client: &Client, targets: &[Reference], cancel: &Cancel) -> Result<(), Error> {
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

/// Whether this machine can run the commands of the Dockerfile. Another machine could: the Dockerfile is not at fault.
fn refuse_foreign(graph: &BuildGraph, store: &Store, source: &SourceFile) -> Result<(), Error> {
    let foreign = worker::foreign(graph, store)?;
    let foreign: Vec<Diagnostic> =
        foreign.into_iter().map(|refusal| diagnose("foreign-platform", graph, refusal)).collect();
    let Some(first) = foreign.first() else { return Ok(()) };
    let error = Error::new(ErrorKind::HostUnsupported, first.message.clone());
    Err(foreign.iter().fold(error, |error, diagnostic| error.diagnostic(diagnostic.render(source))))
}

/// The build's compression: what was asked for, else what all outputs want, so that no layer is compressed twice.
fn effective_compression(request: &BuildRequest) -> Compression {
    let of_output = |output: &Output| output.form().and_then(|form| form.compression);
    let asked = request.compression;
    asked.or_else(|| request.outputs.iter().find_map(of_output)).unwrap_or_default()
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

/// When the last step of an image was done.
fn target_done(target: &TargetImage, worker: &BuildWorker<'_>) -> Option<i64> {
    target.history.iter().filter_map(|entry| worker.created(entry.layer?)).max()
}

/// Puts together what the image is made of.
///
/// It is as old as `done`, its last step: built again from the cache it is the same image. One without steps of its own
/// is as old as its base, or as this build.
fn solved<'a>(
    graph: &BuildGraph,
    target: &'a TargetImage,
    outputs: &[StepOutput],
    images: &Images,
    (done, now): (Option<i64>, i64),
) -> Solved<'a> {
    let root_of = |input: RootInput| match input.step().map(|step| &outputs[step.0]) {
        Some(StepOutput::Root(root)) => root.clone(),
        _ => Root::scratch(),
    };
    let root = root_of(target.root);
    let base = target.base.map(|step| graph.step(step));
    let base_root = base.map(|step| root_of(RootInput::Step(step.id())));
    let base_config = base.and_then(|step| match &step.op {
        Op::Image(source) => images.documents(&source.image.digest).map(|(_, config)| config),
        _ => None,
    });
    let parent_depth = |step: StepId| root_of(graph.step(step).op.parent()).depth();
    let made_layer: BTreeSet<StepId> = target
        .history
        .iter()
        .filter_map(|entry| entry.layer)
        .filter(|step| root_of(RootInput::Step(*step)).depth() > parent_depth(*step))
        .collect();
    let of_base = base_config.as_ref().and_then(|config| config.created.clone());
    let created = match done {
        Some(secs) => rfc3339(secs),
        None => of_base.unwrap_or_else(|| rfc3339(now)),
    };
    Solved {
        target,
        base: base_config,
        layers: root.layers(),
        base_layers: base_root.map_or(0, |root| root.depth()),
        made_layer,
        created,
        inline: None,
    }
}
