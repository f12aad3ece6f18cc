//! What the caller hands to commands, and what a Dockerfile may ask for only with the caller's consent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;

use crate::event::StepId;
use crate::plan::{BuildGraph, NetworkMode, Op, RunOp, SecurityMode};
use crate::request::{BuildRequest, Entitlement, Secret, StepNetwork};
use crate::sandbox::Network;

/// Secrets, agents and entitlements of a build.
#[derive(Debug, Clone, Default)]
pub(crate) struct Grants {
    /// By id.
    pub(super) secrets: HashMap<String, Secret>,
    /// Sockets by id.
    pub(super) agents: HashMap<String, PathBuf>,
    allow: Vec<Entitlement>,
    network: StepNetwork,
}

/// Something that is not done, with the step that asks for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Refusal {
    /// The step.
    pub(crate) step: StepId,
    /// What it asks for.
    pub(crate) what: String,
    /// What would allow it.
    pub(crate) hint: Option<Cow<'static, str>>,
}

impl Grants {
    /// Takes what `request` gives.
    pub(crate) fn new(request: &BuildRequest) -> Self {
        Self {
            secrets: request.secrets.iter().cloned().collect(),
            agents: request.ssh_agents.iter().cloned().collect(),
            allow: request.allow.clone(),
            network: request.network,
        }
    }

    /// The network that a command gets.
    pub(crate) fn network(&self, mode: NetworkMode) -> Network {
        match (mode, self.network) {
            (NetworkMode::None, _) | (NetworkMode::Default, StepNetwork::None) => Network::None,
            (NetworkMode::Host, _) | (NetworkMode::Default, StepNetwork::Host) => Network::Host,
        }
    }

    /// What of the graph the caller did not consent to. The host's network is everyone's unless the caller said `none`.
    pub(crate) fn refuse(&self, graph: &BuildGraph) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        for step in &graph.steps {
            let Op::Run(op) = &step.op else { continue };
            refusals.extend(self.refusals(op).map(|(what, hint)| Refusal {
                step: step.id(),
                what: what.to_owned(),
                hint: Some(hint.into()),
            }));
        }
        refusals
    }

    fn refusals(&self, op: &RunOp) -> impl Iterator<Item = (&'static str, &'static str)> {
        let lacks = |entitlement| !self.allow.contains(&entitlement);
        let insecure = op.security == SecurityMode::Insecure && lacks(Entitlement::SecurityInsecure);
        let network =
            op.network == NetworkMode::Host && self.network == StepNetwork::None && lacks(Entitlement::NetworkHost);
        let insecure =
            insecure.then_some(("RUN --security=insecure is not allowed", "build with --allow security.insecure"));
        let network = network.then_some(("RUN --network=host is not allowed", "build with --allow network.host"));
        insecure.into_iter().chain(network)
    }
}
