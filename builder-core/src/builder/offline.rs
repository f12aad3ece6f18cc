//! Looks at Dockerfiles without a build process.

use super::Builder;
use crate::check::{self, CheckReport, Target};
use crate::diagnostic::SourceFile;
use crate::error::Result;
use crate::plan::Outline;
use crate::request::{BuildRequest, PullPolicy};
use crate::store::Store;
use crate::worker::Images;

impl Builder {
    /// Checks the Dockerfile of `request` with all of its stages, or those that its target needs: what a build would
    /// refuse before its first step, and what rules find. Runs in this process, without namespaces and without asking
    /// any registry; base images are known if the store has them.
    ///
    /// # Errors
    /// [`ErrorKind::Request`](crate::ErrorKind::Request) when the Dockerfile is not of this machine, or the request makes
    /// no sense. Errors of the Dockerfile, and of the ignore file, are in the report.
    pub fn check(&self, request: &BuildRequest) -> Result<CheckReport> {
        check::check(request, self.local_images(request).as_ref())
    }

    /// Tells what a build of the request's target can be given: build args, secrets, agents, cache mounts; with the
    /// Dockerfile. Runs in this process, as [`check`](Self::check).
    ///
    /// # Errors
    /// As [`check`](Self::check), and [`ErrorKind::Dockerfile`](crate::ErrorKind::Dockerfile).
    pub fn outline(&self, request: &BuildRequest) -> Result<(Outline, SourceFile)> {
        check::outline(request, self.local_images(request).as_ref())
    }

    /// Lists the stages of the request's Dockerfile, with the Dockerfile. Runs in this process, as
    /// [`check`](Self::check).
    ///
    /// # Errors
    /// As [`outline`](Self::outline).
    pub fn targets(&self, request: &BuildRequest) -> Result<(Vec<Target>, SourceFile)> {
        check::targets(request)
    }

    /// The images of the store and of local layouts. A store that is not there, or cannot be opened by whoever asks,
    /// has none: a look at a Dockerfile must not fail for that, and makes no state directory.
    fn local_images(&self, request: &BuildRequest) -> Option<Images> {
        if !self.state_dir.join("index.json").exists() {
            return None;
        }
        let store = Store::open(&self.state_dir).ok()?;
        let (client, _) = self.client();
        let images = Images::new(store, client, request.build_contexts.clone(), PullPolicy::Never);
        Some(images.with_context(&request.context))
    }
}
