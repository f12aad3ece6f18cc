//! What a step builds on.

use std::sync::Arc;

use super::context::Context;
use super::{Root, StepOutput};
use crate::error::{Error, ErrorKind};
use crate::event::StepId;
use crate::plan::{CopySourceOp, MountKind, Op, RootInput, Step};

/// The results that a step builds on.
pub(crate) struct Inputs<'a> {
    pub(super) ids: Vec<StepId>,
    pub(super) outputs: &'a [StepOutput],
}

impl Inputs<'_> {
    pub(super) fn get(&self, step: StepId) -> Result<&StepOutput, Error> {
        let at = self.ids.iter().position(|id| *id == step);
        at.and_then(|at| self.outputs.get(at)).ok_or_else(|| Error::new(ErrorKind::Internal, "a step lacks its input"))
    }

    pub(super) fn root(&self, input: RootInput) -> Result<Root, Error> {
        let Some(step) = input.step() else { return Ok(Root::scratch()) };
        match self.get(step)? {
            StepOutput::Root(root) => Ok(root.clone()),
            StepOutput::Context(_) => Err(Error::new(ErrorKind::Internal, "a context is not a file system")),
        }
    }

    pub(super) fn context(&self, step: StepId) -> Result<Arc<Context>, Error> {
        match self.get(step)? {
            StepOutput::Context(context) => Ok(context.clone()),
            StepOutput::Root(_) => Err(Error::new(ErrorKind::Internal, "a file system is not a context")),
        }
    }
}

/// The steps that `step` needs, each once.
pub(crate) fn dependencies(step: &Step) -> Vec<StepId> {
    let mut needs: Vec<StepId> = Vec::new();
    let mut need = |id: Option<StepId>| needs.extend(id.filter(|id| !needs.contains(id)));
    match &step.op {
        Op::Image(_) | Op::Context(_) => {}
        Op::Workdir(op) => need(op.parent.step()),
        Op::Copy(op) => {
            need(op.parent.step());
            for source in &op.sources {
                if let CopySourceOp::Path { from, .. } = source {
                    need(from.step());
                }
            }
        }
        Op::Run(op) => {
            need(op.parent.step());
            for mount in &op.mounts {
                match &mount.kind {
                    MountKind::Bind { from, .. } => need(from.step()),
                    MountKind::Cache(cache) => need(cache.from.step()),
                    MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => {}
                }
            }
        }
    }
    needs
}
