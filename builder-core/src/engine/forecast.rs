//! What a build would do: the same way as a build up to its first step, then the solver looks instead of doing. Into
//! shared caches, too: of them it reads what results there are and tables of contents, never a layer.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use super::agents::Agents;
use super::build::{self, Surroundings};
use super::journal::{Journal, report};
use super::platforms::Platforms;
use super::solving;
use super::task::HostFacts;
use super::{cache, contexts};
use crate::diagnostic::SourceFile;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::fetch::{Access, DEFAULT_AGENT, FetchOptions, Fetcher};
use crate::plan::{BuildGraph, Inputs, Op, PlanRequest, Step};
use crate::request::BuildRequest;
use crate::sandbox::KillSwitch;
use crate::solver::{Outlook, foresee};
use crate::trace::{BuildPlan, Reason, ReasonCode, StepReport, StepState};
use crate::worker::{BuildWorker, Contexts, Grants, Images, Purpose, StepOutput, WorkerOptions, dependencies};

/// Plans.
pub(super) fn run(
    Surroundings { store, client, registries, no_exec, cancel, events }: Surroundings<'_>,
    request: &BuildRequest,
    facts: &HostFacts,
) -> Result<BuildPlan, Error> {
    let (shared, _) = cache::open(request, client, facts.now.0)?;
    let images = Images::new(store.clone(), client.clone(), request.build_contexts.clone(), request.pull)
        .with_context(&request.context);
    let kill_switch = KillSwitch::default();
    cancel.connect(kill_switch.clone());
    let threads = request.jobs.unwrap_or_else(build::usable_cpus);
    let agents = Agents::start(store, request)?;
    let access = Access::new(request, agents.socket(DEFAULT_AGENT));
    let now = request.source_date_epoch.unwrap_or(facts.now.0);
    let fetcher = Fetcher::new(store.clone(), registries, FetchOptions { access, now, kill_switch, threads });
    let main = contexts::main(request, &fetcher, store, events)?;
    let source = SourceFile::new(main.dockerfile.name.clone(), main.dockerfile.text.clone());
    let parsed = build::parse(request, &source, events)?;
    let inputs = Inputs::of(request).map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    let plan_request = inputs.request(&parsed.dockerfile);
    let platforms = Platforms::of(request)?;
    let graph = platforms.plan(|platform| build::plan(&PlanRequest { platform, ..plan_request }, &source, &images))?;
    let grants = Grants::new(request, agents.sockets());
    build::refuse(&grants, &graph, &source)?;
    build::refuse_foreign(&graph, store, no_exec.as_ref(), &source)?;

    let epoch = request.source_date_epoch.or(graph.target.source_date_epoch);
    let options = build::worker_options(request, facts, epoch, threads, grants);
    let cache_strict = request.cache_strict;
    let options = WorkerOptions { purpose: Purpose::Plan, shared, cache_strict, no_exec, ..options };
    let journal = Journal::start(store, request, &main.dockerfile.name, &graph, facts);
    let contexts = Contexts { by_name: contexts::used(request, main, &graph, store)?, fetcher: &fetcher };
    let found = Mutex::new(BTreeMap::new());
    let hear = |event| match event {
        Event::StepFound { step, from } => {
            drop(found.lock().unwrap_or_else(PoisonError::into_inner).insert(step, from));
        }
        event => events(event),
    };
    let worker = BuildWorker::new(&graph, store, &images, contexts, options.clone(), &hear).remembering(journal.past());
    let outlooks = look(&graph, &worker, &source)?;
    worker.save_caches();

    let found = found.lock().unwrap_or_else(PoisonError::into_inner);
    let told = graph.steps.iter().zip(outlooks).map(|(step, outlook)| {
        let report = tell(&graph, &worker, request, (step, outlook))?;
        let found_in = found.get(&step.id()).filter(|_| report.state == StepState::Cached).cloned();
        Ok(StepReport { found_in, ..refused(step, report, options.no_exec.as_ref()) })
    });
    let steps = told.collect::<Result<Vec<_>, Error>>()?;
    let is_open = |(step, report): (&Step, &StepReport)| {
        matches!(step.op, Op::Run(_)) && !matches!(report.state, StepState::Cached)
    };
    if let Some(error) = options.no_exec.filter(|_| graph.steps.iter().zip(&steps).any(is_open)) {
        let message = format!("a build could not run its commands here: {error}");
        events(Event::Warning { code: "host-unsupported".to_owned(), message });
    }
    let unused_stages = graph.unused_stages.clone();
    Ok(BuildPlan { dockerfile: source.name().to_owned(), target: request.target.clone(), steps, unused_stages })
}

/// Looks at all steps. Where what would be done needs layers that nobody shares, a build starts over without results that
/// lack theirs, and so does this.
fn look(graph: &BuildGraph, worker: &BuildWorker<'_>, source: &SourceFile) -> Result<Vec<Outlook<StepOutput>>, Error> {
    let needs: Vec<Vec<StepId>> = graph.steps.iter().map(dependencies).collect();
    let outlooks = || foresee(&needs, worker).map_err(|failure| solving::locate(failure, graph, source));
    let first = outlooks()?;
    // What a step that is not done yet will stand on is what it is done over.
    let hollow = |id: StepId| -> Result<bool, Error> {
        let mut at = Some(id);
        while let Some(id) = at {
            if let Some(StepOutput::Root(root)) = first[id.0].output() {
                return Ok(!worker.hollow(&root.layers())?.is_empty());
            }
            at = graph.step(id).op.parent().step();
        }
        Ok(false)
    };
    let reads = |step: &Step| -> Vec<StepId> {
        let is_done = matches!(first[step.id().0], Outlook::WouldRun | Outlook::DependsOn(_));
        let parent = step.op.parent().step();
        let read = |id: &StepId| is_done && (matches!(step.op, Op::Run(_)) || Some(*id) != parent);
        dependencies(step).into_iter().filter(read).collect()
    };
    let of_targets = graph.targets().filter_map(|target| target.root.step());
    let mut wanted = graph.steps.iter().flat_map(reads).chain(of_targets);
    if wanted.try_fold(false, |any, id| hollow(id).map(|is_hollow| any || is_hollow))? {
        worker.insist();
        return outlooks();
    }
    Ok(first)
}

/// What becomes of a command that would run on a machine that cannot run any.
fn refused(step: &Step, report: StepReport, no_exec: Option<&Error>) -> StepReport {
    match no_exec {
        Some(error) if report.state == StepState::WouldRun && matches!(step.op, Op::Run(_)) => {
            let reason = Some(Reason::new(ReasonCode::HostUnsupported, error.to_string()));
            StepReport { state: StepState::Refused, reason, ..report }
        }
        _ => report,
    }
}

fn tell(
    graph: &BuildGraph,
    worker: &BuildWorker<'_>,
    request: &BuildRequest,
    (step, outlook): (&Step, Outlook<StepOutput>),
) -> Result<StepReport, Error> {
    let is_keyed = !matches!(step.op, Op::Image(_) | Op::Context(_));
    let mut missing_bytes = None;
    let (state, reason) = match outlook {
        // Whatever the key is, nobody looks for it.
        _ if is_keyed && (request.no_cache || request.cache_ttl == Some(0)) => {
            let option = if request.no_cache { "--no-cache" } else { "--cache-ttl=0" };
            (StepState::WouldRun, Some(Reason::new(ReasonCode::NoCache, option)))
        }
        Outlook::Provided(output) => {
            missing_bytes = matches!(step.op, Op::Image(_)).then(|| worker.missing_bytes(&output)).transpose()?;
            (StepState::Provided, None)
        }
        Outlook::Cached(_) => (StepState::Cached, None),
        Outlook::WouldRun => (StepState::WouldRun, None),
        Outlook::NotFetched(what) => (StepState::Unknown, Some(Reason::new(ReasonCode::NotFetched, what))),
        Outlook::DependsOn(first) => {
            let text = format!("depends on {}", graph.step(first).info.name);
            (StepState::Unknown, Some(Reason::new(ReasonCode::DependsOn, text).because_of(first)))
        }
    };
    let report = report(step, state, worker.note(step.id()));
    Ok(StepReport { reason: reason.or(report.reason), missing_bytes, ..report })
}
