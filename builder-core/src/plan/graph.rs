//! What a build is made of: steps with their inputs, and the image that the target becomes.
//!
//! Everything here is a value: no file, no handle, no clock. Two steps that would do the same on the same inputs are
//! one step. Paths and values are after variable expansion; the steps stand in an order in which every input of a step
//! stands before it.

mod copy;
mod run;

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::digest::Digest;
use crate::event::{StepId, StepInfo};
use crate::image::{ImageConfig, Platform};

pub(crate) use copy::*;
pub(crate) use run::*;

/// The plan of one build: only what the target needs.
#[derive(Debug, Clone)]
pub(crate) struct BuildGraph {
    /// The steps; `steps[i].info.step` is `StepId(i)`, and inputs have smaller numbers than their users.
    pub(crate) steps: Vec<Step>,
    /// The image at the end; of several platforms that of the first.
    pub(crate) target: TargetImage,
    /// The images for the other platforms, in the order they were asked for.
    pub(crate) others: Vec<TargetImage>,
    /// What is odd but stops nothing, in the order of the Dockerfile.
    pub(crate) warnings: Vec<Diagnostic>,
    /// Stages that the target does not need, by name or number.
    pub(crate) unused_stages: Vec<String>,
}

impl BuildGraph {
    /// Returns the step `id`.
    pub(crate) fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }

    /// Returns the images at the end, one for each platform.
    pub(crate) fn targets(&self) -> impl Iterator<Item = &TargetImage> {
        std::iter::once(&self.target).chain(&self.others)
    }

    #[cfg(test)]
    /// Returns whether any step runs a command, so that something must be unpacked and isolated.
    pub(crate) fn runs_commands(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.op, Op::Run(_)))
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Its number and how it is shown.
    pub(crate) info: StepInfo,
    /// Its instruction in the Dockerfile; for the trigger of a base image the `FROM`. Contexts have none.
    pub(crate) span: Option<Span>,
    /// What to do.
    pub(crate) op: Op,
}

impl Step {
    /// Returns the step's number.
    pub(crate) fn id(&self) -> StepId {
        self.info.step
    }
}

/// What a step does. `Image`, `Run`, `Copy` and `Workdir` result in a root file system, `Context` in files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// Provides the layers of an image.
    Image(ImageSource),
    /// Provides the files of a local context.
    Context(ContextName),
    /// Runs a command.
    Run(Box<RunOp>),
    /// Copies files.
    Copy(Box<CopyOp>),
    /// Makes a directory where there is none.
    Workdir(WorkdirOp),
}

/// How a build names an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ImageName {
    /// By a reference, as the Dockerfile says it after expansion.
    Reference(String),
    /// By a named context that is an image, as the request names it.
    Context(String),
}

impl Op {
    /// Returns the file system that it builds on.
    pub(crate) fn parent(&self) -> RootInput {
        match self {
            Self::Image(_) | Self::Context(_) => RootInput::Scratch,
            Self::Run(op) => op.parent,
            Self::Copy(op) => op.parent,
            Self::Workdir(op) => op.parent,
        }
    }

    #[cfg(any(test, fuzzing))]
    /// Returns the steps whose results this one reads, each once, the parent first.
    pub(crate) fn inputs(&self) -> Vec<StepId> {
        let mut inputs: Vec<StepId> = vec![];
        let mut add = |step: Option<StepId>| {
            if let Some(step) = step.filter(|step| !inputs.contains(step)) {
                inputs.push(step);
            }
        };
        match self {
            Self::Image(_) | Self::Context(_) => {}
            Self::Workdir(op) => add(op.parent.step()),
            Self::Run(op) => {
                add(op.parent.step());
                op.mounts.iter().filter_map(MountOp::files).for_each(|from| add(from.step()));
            }
            Self::Copy(op) => {
                add(op.parent.step());
                op.sources.iter().filter_map(CopySourceOp::files).for_each(|from| add(from.step()));
            }
        }
        inputs
    }
}

/// An image, found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageSource {
    /// How it was asked for.
    pub(crate) name: ImageName,
    /// The platform it was asked for.
    pub(crate) platform: Platform,
    /// What the resolver found.
    pub(crate) image: Arc<ResolvedImage>,
}

/// What an [`ImageResolver`](super::ImageResolver) found under a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResolvedImage {
    /// Full name as shown, `docker.io/library/busybox:latest@sha256:…`.
    pub(crate) name: String,
    /// Digest of the manifest of the platform.
    pub(crate) digest: Digest,
    /// Its config.
    pub(crate) config: ImageConfig,
}

/// A local context.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ContextName {
    /// The main one.
    Main,
    /// One given by name, as the request names it.
    Named(String),
}

/// The file system that a step builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RootInput {
    /// Nothing.
    Scratch,
    /// The result of an `Image`, `Run`, `Copy` or `Workdir` step.
    Step(StepId),
}

impl RootInput {
    /// Returns the step, if it is one.
    pub(crate) fn step(self) -> Option<StepId> {
        match self {
            Self::Scratch => None,
            Self::Step(id) => Some(id),
        }
    }
}

/// Where files to copy or to mount come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FileInput {
    /// A `Context` step: its ignore rules hold, owners are 0:0.
    Context(StepId),
    /// A file system: owners are kept, nothing is ignored.
    Root(RootInput),
}

impl FileInput {
    /// Returns the step, if it is one.
    pub(crate) fn step(self) -> Option<StepId> {
        match self {
            Self::Context(id) => Some(id),
            Self::Root(root) => root.step(),
        }
    }
}

/// `WORKDIR`: makes the directory, 0755, and missing parents, all owned by `user`; what is there stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WorkdirOp {
    /// The file system it changes.
    pub(crate) parent: RootInput,
    /// Absolute, clean path, never `/`.
    pub(crate) path: String,
    /// `USER` as written; empty is root.
    pub(crate) user: String,
}

/// The image that the build makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TargetImage {
    /// Its file system. Its layers are those of `base` and, in order, of the steps from there to `root`.
    pub(crate) root: RootInput,
    /// The image it builds on, if any: its layers and history come first. Always an `Image` step.
    pub(crate) base: Option<StepId>,
    /// Its config; `rootfs`, `history` and `created` are for the exporter to fill.
    pub(crate) config: ImageConfig,
    /// History after that of `base`.
    pub(crate) history: Vec<PlannedHistory>,
    /// Seconds since 1970 from `SOURCE_DATE_EPOCH`, where a build arg or a global `ARG` set it.
    pub(crate) source_date_epoch: Option<i64>,
}

/// One entry of the history, without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedHistory {
    /// The instruction.
    pub(crate) created_by: String,
    /// What wrote the history.
    pub(crate) comment: &'static str,
    /// The step whose layer this is; an empty layer otherwise.
    pub(crate) layer: Option<StepId>,
}
