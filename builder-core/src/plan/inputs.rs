//! What of a build request a plan is made from, owned.

use super::{NamedContext, PlanRequest};
use crate::dockerfile::Dockerfile;
use crate::image::{ParsePlatformError, Platform};
use crate::request::{BuildRequest, ContextSource};

/// The parts of a build request that a plan borrows.
#[derive(Debug)]
pub(crate) struct Inputs<'a> {
    request: &'a BuildRequest,
    contexts: Vec<(String, NamedContext)>,
    /// The first, if there is any.
    platform: Option<Platform>,
    build_platform: Platform,
}

impl<'a> Inputs<'a> {
    /// Takes them from `request`.
    ///
    /// # Errors
    /// The platform is none.
    pub(crate) fn of(request: &'a BuildRequest) -> Result<Self, ParsePlatformError> {
        let kind = |context: &ContextSource| match context {
            ContextSource::Directory(_)
            | ContextSource::Archive(_)
            | ContextSource::Http(_)
            | ContextSource::Git(_) => NamedContext::Directory,
            ContextSource::Empty => NamedContext::Scratch,
            ContextSource::Image(name) if name == "scratch" => NamedContext::Scratch,
            _ => NamedContext::Image,
        };
        let contexts = request.build_contexts.iter().map(|(name, context)| (name.clone(), kind(context))).collect();
        let platform = match request.platforms.first().map(String::as_str) {
            Some("local") => Some(Platform::host()),
            first => first.map(str::parse).transpose()?,
        };
        Ok(Self { request, contexts, platform, build_platform: Platform::host() })
    }

    /// Asks for a plan of `dockerfile`.
    pub(crate) fn request<'b>(&'b self, dockerfile: &'b Dockerfile) -> PlanRequest<'b> {
        PlanRequest {
            dockerfile,
            target: self.request.target.as_deref(),
            build_args: &self.request.build_args,
            labels: &self.request.labels,
            contexts: &self.contexts,
            platform: self.platform.as_ref(),
            build_platform: &self.build_platform,
            source_date_epoch: self.request.source_date_epoch,
        }
    }
}
