//! What a build would do: the same way as a build up to its first step, then the solver looks instead of doing.

use super::agents::Agents;
use super::build::{self, Surroundings};
use super::contexts;
use super::journal::{Journal, report};
use super::platforms::Platforms;
use super::solving;
use super::task::HostFacts;
use crate::diagnostic::SourceFile;
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::fetch::{Access, DEFAULT_AGENT, FetchOptions, Fetcher};
use crate::plan::{BuildGraph, Inputs, Op, PlanRequest, Step};
use crate::request::BuildRequest;
use crate::sandbox::KillSwitch;
use crate::solver::{Outlook, foresee};
use crate::trace::{BuildPlan, Reason, ReasonCode, StepReport, StepState};
use crate::worker::{BuildWorker, Contexts, Grants, Images, Purpose, StepOutput, WorkerOptions, dependencies};

/// Plans.
pub(super) fn run(
    Surroundings { store, client, registries, no_exec: _, cancel, events }: Surroundings<'_>,
    request: &BuildRequest,
    facts: &HostFacts,
) -> Result<BuildPlan, Error> {
    let images = Images::new(store.clone(), client.clone(), request.build_contexts.clone(), request.pull);
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

    let epoch = request.source_date_epoch.or(graph.target.source_date_epoch);
    let options = build::worker_options(request, facts, epoch, threads, grants);
    let options = WorkerOptions { purpose: Purpose::Plan, ..options };
    let journal = Journal::start(store, request, &main.dockerfile.name, &graph, facts);
    let contexts = Contexts { by_name: contexts::used(request, main, &graph, store)?, fetcher: &fetcher };
    let worker = BuildWorker::new(&graph, store, &images, contexts, options, events).remembering(journal.past());
    let needs: Vec<Vec<StepId>> = graph.steps.iter().map(dependencies).collect();
    let outlooks = foresee(&needs, &worker).map_err(|failure| solving::locate(failure, &graph, &source))?;
    worker.save_caches();

    let told = graph.steps.iter().zip(outlooks);
    let steps = told.map(|(step, outlook)| tell(&graph, &worker, request, step, outlook)).collect::<Result<_, _>>()?;
    let unused_stages = graph.unused_stages.clone();
    Ok(BuildPlan { dockerfile: source.name().to_owned(), target: request.target.clone(), steps, unused_stages })
}

fn tell(
    graph: &BuildGraph,
    worker: &BuildWorker<'_>,
    request: &BuildRequest,
    step: &Step,
    outlook: Outlook<StepOutput>,
) -> Result<StepReport, Error> {
    let is_keyed = !matches!(step.op, Op::Image(_) | Op::Context(_));
    let mut missing_bytes = None;
    let (state, reason) = match outlook {
        // Whatever the key is, nobody looks for it.
        _ if is_keyed && request.no_cache => {
            (StepState::WouldRun, Some(Reason::new(ReasonCode::NoCache, "--no-cache")))
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
