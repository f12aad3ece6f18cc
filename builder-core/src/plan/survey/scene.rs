//! A stage while it is surveyed.

use super::outline::{Definitions, Mounts};
use super::{Place, UnknownBase};
use crate::image::Platform;
use crate::lint::Finding;
use crate::plan::scope::{DeclaredArg, Env};

/// How much is known of the variables of a stage.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Knowledge {
    /// All: what is not here is not defined.
    #[default]
    Complete,
    /// The base image may define others.
    Partial,
}

/// Whether a shell was named for the shell form.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Shell {
    #[default]
    Default,
    Named,
}

/// Whether there was a `WORKDIR` in this file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Workdir {
    #[default]
    Inherited,
    Set,
}

/// The last instruction of each kind of which only the last counts.
#[derive(Debug, Clone, Default)]
pub(super) struct Last<'a> {
    pub(super) cmd: Option<Place<'a>>,
    pub(super) entrypoint: Option<Place<'a>>,
    pub(super) healthcheck: Option<Place<'a>>,
}

/// What the instructions so far have made of a stage.
#[derive(Debug, Clone)]
pub(super) struct Scene<'a> {
    /// Variables with values.
    pub(super) env: Env,
    /// Names that `ARG` declared, here and in the stages below.
    pub(super) declared: Vec<DeclaredArg>,
    pub(super) knowledge: Knowledge,
    pub(super) shell: Shell,
    pub(super) workdir: Workdir,
    pub(super) last: Last<'a>,
    /// Platform of its file system.
    pub(super) platform: Platform,
    /// Stages that it builds on or takes from, in order.
    pub(super) needs: Vec<usize>,
    /// Its own base image, if that is not known.
    pub(super) unknown_base: Option<UnknownBase>,
    /// What rules say of it.
    pub(super) findings: Vec<Finding>,
    /// `ARG`s that are in force.
    pub(super) definitions: Definitions,
    /// Secrets, agents and caches.
    pub(super) mounts: Mounts,
}

impl<'a> Scene<'a> {
    /// Starts with nothing.
    pub(super) fn new(platform: Platform) -> Self {
        Self {
            env: Env::default(),
            declared: vec![],
            knowledge: Knowledge::default(),
            shell: Shell::default(),
            workdir: Workdir::default(),
            last: Last::default(),
            platform,
            needs: vec![],
            unknown_base: None,
            findings: vec![],
            definitions: Definitions::default(),
            mounts: Mounts::default(),
        }
    }

    /// Starts a stage on this one, which is stage `number`.
    pub(super) fn child(&self, number: usize) -> Self {
        Self {
            last: Last::default(),
            needs: vec![number],
            unknown_base: None,
            findings: vec![],
            mounts: Mounts::default(),
            ..self.clone()
        }
    }
}
