//! What looks and does nothing: plans, and what is remembered of builds.

use super::{Builder, now, umask, unexpected};
use crate::engine::{self, Answer, HostFacts, TaskKind};
use crate::error::Result;
use crate::event::Event;
use crate::request::BuildRequest;
use crate::trace::{BuildPlan, BuildReport};

impl Builder {
    /// Tells what [`Builder::build`] would do: which steps have an earlier result, and why the others have none. Nothing is
    /// run, and no layer is fetched; manifests and configs of base images are, where a build would look them up.
    ///
    /// # Errors
    /// As of a build that ends before its first step, or while the files of a `COPY` are looked at.
    pub fn plan(&self, request: &BuildRequest, on_event: &mut dyn FnMut(Event)) -> Result<BuildPlan> {
        let facts = HostFacts { now: now(), resolv_conf: Vec::new(), umask: umask() };
        let task = TaskKind::Plan(Box::new(request.clone()), facts, Box::new(self.registries.clone()));
        match self.ask(task, on_event)? {
            Answer::Planned(plan) => Ok(*plan),
            other => Err(unexpected(&other)),
        }
    }

    /// Tells what a build did, and why each step that ran did: the last build, or the last one of an image, by name or
    /// digest.
    ///
    /// # Errors
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) when none is remembered, [`ErrorKind::Store`](crate::ErrorKind::Store) else.
    pub fn explain(&self, image: Option<&str>) -> Result<BuildReport> {
        engine::explain(&self.store()?, image)
    }
}
