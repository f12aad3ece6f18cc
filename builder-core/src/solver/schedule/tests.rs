use std::collections::HashMap;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use super::*;
use crate::solver::{Glimpse, Outlook, foresee};

/// Steps are numbers; a step yields the sum of its inputs plus its own number.
#[derive(Default)]
struct Sums {
    records: Mutex<HashMap<CacheKey, usize>>,
    executed: Mutex<Vec<usize>>,
    fails: Option<usize>,
    elsewhere: Option<usize>,
    cancelled: AtomicBool,
    meet: Option<Barrier>,
    running: AtomicUsize,
    most_running: AtomicUsize,
}

impl Worker for Sums {
    type Output = usize;
    type Error = String;
    type Lock = ();

    fn key(&self, step: StepId, inputs: &[usize]) -> Result<Option<KeyParts>, String> {
        let mut parts = KeyParts::new("sum");
        parts.add("step", step.0.to_le_bytes());
        for input in inputs {
            parts.add("input", input.to_le_bytes());
        }
        Ok(Some(parts))
    }

    fn lookup(&self, _: StepId, _: &[usize], key: &CacheKey) -> Result<Option<usize>, String> {
        Ok(self.records.lock().unwrap().get(key).copied())
    }

    fn glimpse(&self, step: StepId, _: &[usize]) -> Result<Glimpse<usize>, String> {
        Ok(match self.elsewhere {
            Some(elsewhere) if elsewhere == step.0 => Glimpse::NotFetched("the moon".to_owned()),
            _ => Glimpse::Keyed,
        })
    }

    fn reason(&self, step: StepId, _: &KeyParts) -> Option<String> {
        Some(format!("reason {}", step.0))
    }

    fn lock(&self, _: &CacheKey) -> Result<(), String> {
        Ok(())
    }

    fn execute(&self, step: StepId, inputs: &[usize], key: Option<&KeyParts>) -> Result<Completed<usize>, String> {
        let running = self.running.fetch_add(1, Ordering::SeqCst) + 1;
        self.most_running.fetch_max(running, Ordering::SeqCst);
        if let Some(meet) = &self.meet {
            meet.wait();
        }
        self.executed.lock().unwrap().push(step.0);
        let result = match self.fails {
            Some(bad) if bad == step.0 => Err(format!("step {bad} is bad")),
            _ => Ok(inputs.iter().sum::<usize>() + step.0),
        };
        self.running.fetch_sub(1, Ordering::SeqCst);
        let output = result?;
        self.records.lock().unwrap().insert(key.unwrap().key(), output);
        Ok(Completed { output, cached: false })
    }

    fn cancel(&self) {
        self.cancelled.store(true, Ordering::SeqCst);
    }
}

/// Results by step, or the step that failed and why.
type Solved = Result<Vec<usize>, (usize, String)>;

fn run(graph: &[&[usize]], worker: &Sums, jobs: usize, no_cache: bool) -> (Solved, Vec<Event>) {
    let inputs: Vec<Vec<StepId>> = graph.iter().map(|needs| needs.iter().map(|n| StepId(*n)).collect()).collect();
    let events = Mutex::new(Vec::new());
    let sink = |event| events.lock().unwrap().push(event);
    let result = solve(&inputs, worker, SolveOptions { jobs, no_cache }, &sink);
    (result.map_err(|f| (f.step.0, f.error)), events.into_inner().unwrap())
}

const DIAMOND: &[&[usize]] = &[&[], &[0], &[0], &[1, 2]];

#[test]
fn a_diamond_runs_each_step_once_and_feeds_results_forward() {
    for jobs in [1, 2, 8] {
        let worker = Sums::default();
        assert_eq!(run(DIAMOND, &worker, jobs, false).0, Ok(vec![0, 1, 2, 6]));
        let mut executed = worker.executed.into_inner().unwrap();
        executed.sort_unstable();
        assert_eq!(executed, [0, 1, 2, 3], "with {jobs} jobs");
    }
}

#[test]
fn a_second_run_is_all_cached_and_no_cache_runs_all_again() {
    let worker = Sums::default();
    run(DIAMOND, &worker, 2, false).0.unwrap();
    let (result, events) = run(DIAMOND, &worker, 2, false);
    assert_eq!(result, Ok(vec![0, 1, 2, 6]));
    assert!(events.iter().all(|e| matches!(e, Event::StepCached { .. })), "{events:?}");
    assert_eq!(events.len(), 4);
    run(DIAMOND, &worker, 2, true).0.unwrap();
    assert_eq!(worker.executed.lock().unwrap().len(), 8, "no_cache must run every step");
}

#[test]
fn the_first_failure_cancels_and_nothing_behind_it_runs() {
    let worker = Sums { fails: Some(1), ..Sums::default() };
    let (result, events) = run(&[&[], &[0], &[1], &[2]], &worker, 4, false);
    assert_eq!(result, Err((1, "step 1 is bad".to_owned())));
    assert!(worker.cancelled.load(Ordering::SeqCst));
    assert_eq!(*worker.executed.lock().unwrap(), [0, 1]);
    assert!(events.contains(&Event::StepFailed { step: StepId(1), message: "step 1 is bad".to_owned() }));
}

#[test]
fn independent_steps_run_at_the_same_time() {
    // The barrier lets nobody go on before all four are inside: a serial scheduler would hang here.
    let worker = Sums { meet: Some(Barrier::new(4)), ..Sums::default() };
    assert_eq!(run(&[&[], &[], &[], &[]], &worker, 4, false).0, Ok(vec![0, 1, 2, 3]));
}

#[test]
fn never_more_steps_at_once_than_jobs() {
    let worker = Sums::default();
    let graph: Vec<&[usize]> = vec![&[]; 40];
    run(&graph, &worker, 3, false).0.unwrap();
    assert!(worker.most_running.load(Ordering::SeqCst) <= 3);
}

#[test]
fn an_empty_graph_is_done() {
    assert_eq!(run(&[], &Sums::default(), 2, false).0, Ok(vec![]));
}

#[test]
fn a_step_that_runs_says_why() {
    let (_, events) = run(&[&[]], &Sums::default(), 1, false);
    assert_eq!(events[0], Event::StepStarted { step: StepId(0), reason: Some("reason 0".to_owned()) });
}

fn outlooks(graph: &[&[usize]], worker: &Sums) -> Vec<Outlook<usize>> {
    let inputs: Vec<Vec<StepId>> = graph.iter().map(|needs| needs.iter().map(|n| StepId(*n)).collect()).collect();
    foresee(&inputs, worker).unwrap()
}

#[test]
fn what_a_build_would_do_is_told_and_not_done() {
    let worker = Sums::default();
    use Outlook::{Cached, DependsOn, NotFetched, WouldRun};
    assert_eq!(
        outlooks(DIAMOND, &worker),
        [WouldRun, DependsOn(StepId(0)), DependsOn(StepId(0)), DependsOn(StepId(0))],
        "the first step that would run is named, not the nearest"
    );
    assert!(worker.executed.lock().unwrap().is_empty() && worker.records.lock().unwrap().is_empty());
    run(DIAMOND, &worker, 1, false).0.unwrap();
    assert_eq!(outlooks(DIAMOND, &worker), [Cached(0), Cached(1), Cached(2), Cached(6)]);
    assert_eq!(outlooks(&[&[], &[0], &[1], &[]], &worker)[2..], [WouldRun, WouldRun], "what changed, and nothing else");
    let worker = Sums { elsewhere: Some(0), ..worker };
    assert_eq!(outlooks(&[&[], &[0]], &worker), [NotFetched("the moon".to_owned()), DependsOn(StepId(0))]);
}
