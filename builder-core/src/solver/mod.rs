//! Runs a graph of steps: decides what is cached, what may run now, and what must wait.
//!
//! It knows neither Dockerfiles nor file systems: a [`Worker`] says what decides a step's result and does the work.
//! One coordinator state owns the progress of the build; no lock is held while a step works. A step starts as soon as
//! its inputs are there. The first failure cancels what still runs, and is the one that is reported.
//!
//! What a build would do is found out with the same keys and the same records ([`foresee()`]), so that the two never
//! disagree.

mod foresee;
mod key;
mod schedule;

pub(crate) use foresee::{Glimpse, Outlook, foresee};
pub(crate) use key::{KeyHasher, KeyParts};
pub(crate) use schedule::{Completed, SolveFailure, SolveOptions, Worker, solve};
