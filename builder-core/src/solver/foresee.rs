//! What a build would do, with nothing done: the keys that can be known are looked up, one step after the other.

use super::Worker;
use super::schedule::SolveFailure;
use crate::event::StepId;

/// What a worker can tell of a step whose inputs are known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Glimpse<T> {
    /// It is never recorded, and this is its result.
    Provided(T),
    /// Its key can be worked out.
    Keyed,
    /// Only doing it, or what its key is made of, brings this, in words.
    NotFetched(String),
}

/// What would become of a step.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Outlook<T> {
    /// There is nothing to do, and never will be.
    Provided(T),
    /// An earlier result is there.
    Cached(T),
    /// It would be done.
    WouldRun,
    /// Nobody can tell before this step is done, which would be done or is not fetched.
    DependsOn(StepId),
    /// Nobody can tell before something is fetched.
    NotFetched(String),
}

impl<T> Outlook<T> {
    /// The result, if it is there.
    pub(crate) fn output(&self) -> Option<&T> {
        match self {
            Self::Provided(output) | Self::Cached(output) => Some(output),
            Self::WouldRun | Self::DependsOn(_) | Self::NotFetched(_) => None,
        }
    }
}

/// Tells for each step what would become of it. `inputs` are as for [`solve`](super::solve).
pub(crate) fn foresee<W: Worker>(
    inputs: &[Vec<StepId>],
    worker: &W,
) -> Result<Vec<Outlook<W::Output>>, SolveFailure<W::Error>> {
    let mut outlooks: Vec<Outlook<W::Output>> = Vec::with_capacity(inputs.len());
    for (number, needs) in inputs.iter().enumerate() {
        let step = StepId(number);
        let outlook = match needs.iter().find(|need| outlooks[need.0].output().is_none()) {
            Some(need) => match &outlooks[need.0] {
                Outlook::DependsOn(first) => Outlook::DependsOn(*first),
                _ => Outlook::DependsOn(*need),
            },
            None => {
                let known: Vec<W::Output> =
                    needs.iter().filter_map(|need| outlooks[need.0].output().cloned()).collect();
                look(worker, step, &known).map_err(|error| SolveFailure { step, error })?
            }
        };
        outlooks.push(outlook);
    }
    Ok(outlooks)
}

fn look<W: Worker>(worker: &W, step: StepId, inputs: &[W::Output]) -> Result<Outlook<W::Output>, W::Error> {
    match worker.glimpse(step, inputs)? {
        Glimpse::Provided(output) => return Ok(Outlook::Provided(output)),
        Glimpse::NotFetched(what) => return Ok(Outlook::NotFetched(what)),
        Glimpse::Keyed => {}
    }
    let Some(parts) = worker.key(step, inputs)? else { return Ok(Outlook::WouldRun) };
    match worker.lookup(step, inputs, &parts.key())? {
        Some(output) => Ok(Outlook::Cached(output)),
        None => {
            worker.reason(step, &parts);
            Ok(Outlook::WouldRun)
        }
    }
}
