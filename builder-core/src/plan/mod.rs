//! A Dockerfile and a request become a graph of steps.
//!
//! Pure: what is not in the text or the request comes from an [`ImageResolver`], and only for what the target needs; a
//! stage that nothing reaches is never looked at. Meaning follows BuildKit's Dockerfile frontend, down to the strings
//! of the history. Where it goes further: `--from` of `COPY` and of `RUN --mount` are expanded and may be the number of
//! a stage, names of stages are found in any case, and `--target` may be a number.
//!
//! Invariants: inputs of a step stand before it; equal work on equal inputs is one step; every value is expanded and
//! checked here, so that nothing behind this module reads Dockerfile syntax.
//!
//! `stages` splits the file, `lower` walks the stages that are needed, `metadata`, `run`, `copy` and `mounts` lower
//! their instructions, `resolve` finds what a name stands for, `scope` holds variables, `steps` the growing graph,
//! `platforms` makes one graph of the plans for several platforms. `survey` looks at a Dockerfile without planning it.

mod chmod;
mod config;
mod copy;
mod epoch;
mod expand;
mod expose;
mod gofmt;
mod graph;
mod inputs;
mod lower;
mod metadata;
mod mount_options;
mod mounts;
mod path;
mod platforms;
mod remote;
mod resolve;
mod run;
mod scope;
mod signal;
mod size;
mod stages;
mod state;
mod steps;
mod survey;
#[cfg(test)]
mod tests;

use crate::diagnostic::Diagnostic;
use crate::dockerfile::Dockerfile;
use crate::image::Platform;

pub(crate) use graph::*;
pub(crate) use inputs::Inputs;
pub(crate) use platforms::merge;
pub(crate) use remote::{file_name, git_context, parse_bool, percent_decode};
pub(crate) use survey::{Bases, Extent, Subject, Survey, UnknownBase, comment_about};
pub use survey::{Outline, OutlineArg, OutlineCache, OutlineMount};

/// What a plan is made from, besides images.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlanRequest<'a> {
    /// The Dockerfile.
    pub(crate) dockerfile: &'a Dockerfile,
    /// Stage by name or number; the last one by default.
    pub(crate) target: Option<&'a str>,
    /// Build args; the last of a name counts.
    pub(crate) build_args: &'a [(String, String)],
    /// Labels that win over the Dockerfile's.
    pub(crate) labels: &'a [(String, String)],
    /// Named contexts, as the user names them, perhaps `NAME::PLATFORM`; the last of a name counts.
    pub(crate) contexts: &'a [(String, NamedContext)],
    /// Platform of the image, if the user asked for one.
    pub(crate) platform: Option<&'a Platform>,
    /// This machine's platform, and that of the image if the user asked for none.
    pub(crate) build_platform: &'a Platform,
    /// Seconds since 1970: stands for the build arg `SOURCE_DATE_EPOCH` where that is not given.
    pub(crate) source_date_epoch: Option<i64>,
}

/// What a named context is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NamedContext {
    /// Files: a `Context` step reads them.
    Directory,
    /// An image, which the resolver finds as [`ImageName::Context`] under the name the user gave.
    Image,
    /// `docker-image://scratch`
    Scratch,
}

/// Finds images. Called on the planning thread; may use the network.
pub(crate) trait ImageResolver {
    /// Says which images [`resolve`](Self::resolve) will be asked for, so that they can be looked up at once. Every
    /// one of them is needed; others may be asked for too.
    fn prefetch(&self, _images: &[(ImageName, Platform)]) {}

    /// Finds the image `name` for `platform`, or the nearest its index has. Asked once for each pair.
    ///
    /// # Errors
    /// Whatever keeps it from being found, without naming the place in the Dockerfile.
    fn resolve(&self, name: &ImageName, platform: &Platform) -> Result<ResolvedImage, ResolveError>;
}

/// Why an image was not found.
pub(crate) type ResolveError = Box<dyn std::error::Error + Send + Sync>;

/// Why there is no plan.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The Dockerfile, or the request about it, says something that cannot be done.
    #[error("the Dockerfile cannot be planned")]
    Dockerfile {
        /// At least one error.
        diagnostics: Vec<Diagnostic>,
    },
    /// An image was not found.
    #[error("{}", diagnostic.message)]
    Resolve {
        /// Which image, and where it is named.
        diagnostic: Problem,
        /// Why.
        source: ResolveError,
    },
}

/// One error on its way out; boxed, as it is large and rare.
pub(crate) type Problem = Box<Diagnostic>;

impl From<Problem> for Error {
    fn from(problem: Problem) -> Self {
        Self::Dockerfile { diagnostics: vec![*problem] }
    }
}

/// Plans the build of `request`.
///
/// # Errors
/// [`Error`]: everything about the Dockerfile has a place in it.
pub(crate) fn plan(request: &PlanRequest<'_>, resolver: &dyn ImageResolver) -> Result<BuildGraph, Error> {
    lower::Planner::new(request, resolver)?.run()
}
