//! One build, from the text of the Dockerfile to the outputs.

use std::collections::BTreeSet;

use super::assemble::{Product, Solved};
use super::output::{self, Outputs};
use super::platforms::Platforms;
use super::task::HostFacts;
use super::uploads::Uploading;
use super::{Cancel, contexts};
use crate::diagnostic::{Diagnostic, SourceFile};
use crate::dockerfile::Dockerfile;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::export::Sender;
use crate::fetch::Fetcher;
use crate::image::{Platform, rfc3339};
use crate::plan::{self, BuildGraph, NamedContext, Op, PlanRequest, RootInput, TargetImage};
use crate::registry::{Client, ClientConfig, Reference};
use crate::request::{BuildOutcome, BuildRequest, Compression, ContextSource, MediaTypes, Output};
use crate::sandbox::KillSwitch;
use crate::solver::{SolveFailure, SolveOptions, solve};
use crate::store::Store;
use crate::tree::Timestamp;
use crate::worker::{
    self, BuildWorker, Contexts, Grants, Images, Refusal, Root, StepOutput, WorkerOptions, dependencies,
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
    let targets = output::check(request)?;
    let platforms = Platforms::of(request)?;
    let images = Images::new(store.clone(), client.clone(), request.build_contexts.clone(), request.pull);
    let kill_switch = KillSwitch::default();
    cancel.connect(kill_switch.clone());
    let threads = request.jobs.unwrap_or_else(usable_cpus);
    let fetcher = Fetcher::new(store.clone(), registries, kill_switch, threads);
    let main = contexts::main(request, &fetcher, store, events)?;
    let source = SourceFile::new(main.dockerfile.name.clone(), main.dockerfile.text.clone());
    let dockerfile = parse(&source, events)?;
    let graph = platforms.plan(|platform| plan(request, platform, &dockerfile, &source, &images))?;
    for warning in &graph.warnings {
        warn(warning, &source, events);
    }
    let grants = Grants::new(request);
    refuse(&grants, &graph, store, &source)?;
    events(Event::Plan { steps: graph.steps.iter().map(|step| step.info.clone()).collect() });

    let epoch = request.source_date_epoch.or(graph.target.source_date_epoch);
    let options = WorkerOptions {
        compression: effective_compression(request),
        threads,
        clamp: epoch,
        now: epoch.map_or(Timestamp { secs: facts.now.0, nanos: facts.now.1 }, |secs| Timestamp { secs, nanos: 0 }),
        no_exec,
        resolv_conf: facts.resolv_conf.clone(),
        grants,
    };
    let contexts = Contexts { by_name: contexts::used(request, main, &graph, store)?, fetcher: &fetcher };
    let worker = BuildWorker::new(&graph, store, &images, contexts, options.clone(), events);
    let inputs: Vec<Vec<StepId>> = graph.steps.iter().map(dependencies).collect();
    // Steps wait for networks and for each other more than they compute.
    let jobs = request.jobs.unwrap_or_else(|| (2 * usable_cpus()).max(4));
    let origins = images.origins();
    let sender = Sender::new(store, client, &origins);
    let uploading = Uploading::new(&worker, &graph, request, options.compression, &targets);
    let solving = SolveOptions { jobs, no_cache: request.no_cache };
    let outputs = uploading.during(
        &sender,
        || check_push(client, &targets, cancel),
        || solve(&inputs, &uploading, solving, events).map_err(|failure| locate(failure, &graph, &source)),
    )?;

    worker.save_caches();
    let image = |target| {
        let done = target_done(target, &worker);
        solved(&graph, target, &outputs, &images, (epoch.or(done), facts.now.0))
    };
    let product = Product { images: graph.targets().map(image).collect(), shape: platforms.shape };
    let assembled =
        product.assemble(store, MediaTypes::Oci).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
    let name_error = |error: &crate::store::Error| Error::from_source(ErrorKind::Store, error);
    for name in &names {
        store.tag_image(name, &assembled.descriptor).map_err(|e| name_error(&e))?;
        events(Event::Exported { output: name.clone(), digest: assembled.descriptor.digest });
    }
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
    let written = outputs.write_all(&request.outputs)?;
    store.sync().map_err(|e| name_error(&e))?;
    if let Some(max) = request.cache_max {
        store.release().and_then(|()| store.enforce_limit(max)).map_err(|e| name_error(&e))?;
    }
    // What went out is what the caller asks about.
    let image = written.first().unwrap_or(&assembled);
    Ok(BuildOutcome {
        digest: image.descriptor.digest,
        config_digest: image.config_digest,
        media_type: image.descriptor.media_type.clone(),
        size: image.descriptor.size,
        names,
    })
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
fn usable_cpus() -> usize {
    std::thread::available_parallelism().map_or(1, std::num::NonZero::get)
}

fn warn(diagnostic: &Diagnostic, source: &SourceFile, events: Events<'_>) {
    let message = diagnostic.render(source);
    events(Event::Warning { code: diagnostic.code.to_string(), message });
}

fn dockerfile_error(diagnostics: &[Diagnostic], source: &SourceFile) -> Error {
    let errors = diagnostics.iter().filter(|diagnostic| diagnostic.is_error());
    let first = errors.clone().next().map_or("the Dockerfile is wrong", |diagnostic| diagnostic.message.as_str());
    let error = Error::new(ErrorKind::Dockerfile, first);
    errors.fold(error, |error, diagnostic| error.diagnostic(diagnostic.render(source)))
}

fn parse(source: &SourceFile, events: Events<'_>) -> Result<Dockerfile, Error> {
    let parsed = Dockerfile::parse_with_warnings(source.text());
    let parsed = parsed.map_err(|diagnostics| dockerfile_error(&diagnostics, source))?;
    for warning in &parsed.warnings {
        warn(warning, source, events);
    }
    Ok(parsed.dockerfile)
}

fn plan(
    request: &BuildRequest,
    platform: Option<&Platform>,
    dockerfile: &Dockerfile,
    source: &SourceFile,
    images: &Images,
) -> Result<BuildGraph, Error> {
    let kind = |context: &ContextSource| match context {
        ContextSource::Directory(_) | ContextSource::Archive(_) | ContextSource::Http(_) | ContextSource::Git(_) => {
            NamedContext::Directory
        }
        ContextSource::Empty => NamedContext::Scratch,
        ContextSource::Image(name) if name == "scratch" => NamedContext::Scratch,
        _ => NamedContext::Image,
    };
    let contexts: Vec<_> = request.build_contexts.iter().map(|(name, context)| (name.clone(), kind(context))).collect();
    let build_platform = Platform::host();
    let plan_request = PlanRequest {
        dockerfile,
        target: request.target.as_deref(),
        build_args: &request.build_args,
        labels: &request.labels,
        contexts: &contexts,
        platform,
        build_platform: &build_platform,
        source_date_epoch: request.source_date_epoch,
    };
    plan::plan(&plan_request, images).map_err(|error| match error {
        plan::Error::Dockerfile { diagnostics } => dockerfile_error(&diagnostics, source),
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
fn refuse(grants: &Grants, graph: &BuildGraph, store: &Store, source: &SourceFile) -> Result<(), Error> {
    let diagnose = |code, refusal: Refusal| {
        let diagnostic = Diagnostic::error(code, refusal.what);
        let diagnostic = match graph.step(refusal.step).span {
            Some(span) => diagnostic.at(span),
            None => diagnostic,
        };
        match refusal.hint {
            Some(hint) => diagnostic.with_hint(hint),
            None => diagnostic,
        }
    };
    let unsupported = worker::unsupported(graph).into_iter().map(|refusal| diagnose("unsupported", refusal));
    let denied = grants.refuse(graph).into_iter().map(|refusal| diagnose("not-allowed", refusal));
    let foreign = worker::foreign(graph, store)?.into_iter().map(|refusal| diagnose("foreign-platform", refusal));
    let diagnostics: Vec<Diagnostic> = unsupported.chain(denied).collect();
    if !diagnostics.is_empty() {
        return Err(dockerfile_error(&diagnostics, source));
    }
    // Another machine could do it: the Dockerfile is not at fault.
    let foreign: Vec<Diagnostic> = foreign.collect();
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
fn locate(failure: SolveFailure<Error>, graph: &BuildGraph, source: &SourceFile) -> Error {
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
    let parent_depth = |step: StepId| {
        let parent = match &graph.step(step).op {
            Op::Run(op) => op.parent,
            Op::Copy(op) => op.parent,
            Op::Workdir(op) => op.parent,
            Op::Image(_) | Op::Context(_) => RootInput::Scratch,
        };
        root_of(parent).depth()
    };
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
    }
}
