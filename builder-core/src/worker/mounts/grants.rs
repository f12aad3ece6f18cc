//! What the caller hands to commands, and what a Dockerfile may ask for only with the caller's consent.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use crate::cdi::Registry;
use crate::event::StepId;
use crate::fetch::DEFAULT_AGENT;
use crate::plan::{BuildGraph, CopySourceOp, Device, NetworkMode, Op, RunOp, SecurityMode, Step};
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
    /// Names of devices that the caller allows.
    allow_devices: Vec<String>,
    cdi_dirs: Vec<PathBuf>,
    /// The devices, once something asks for them.
    devices: Arc<OnceLock<Registry>>,
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
    /// Takes what `request` gives; `agents` are the sockets of ssh agents by id.
    pub(crate) fn new(request: &BuildRequest, agents: HashMap<String, PathBuf>) -> Self {
        Self {
            secrets: request.secrets.iter().cloned().collect(),
            agents,
            allow: request.allow.clone(),
            network: request.network,
            allow_devices: request.allow_devices.clone(),
            cdi_dirs: request.cdi_spec_dirs.clone(),
            devices: Arc::default(),
        }
    }

    /// The devices that this machine describes.
    pub(super) fn devices(&self) -> &Registry {
        self.devices.get_or_init(|| Registry::load(&self.cdi_dirs))
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
            let Op::Run(op) = &step.op else {
                refusals.extend(self.unreachable(step));
                continue;
            };
            refusals.extend(self.refusals(op).map(|(what, hint)| Refusal {
                step: step.id(),
                what: what.to_owned(),
                hint: Some(hint.into()),
            }));
        }
        refusals
    }

    /// A repository by ssh, which nobody opens without an agent.
    fn unreachable(&self, step: &Step) -> Option<Refusal> {
        let Op::Copy(op) = &step.op else { return None };
        let by_ssh = |source: &&CopySourceOp| matches!(source, CopySourceOp::Git(git) if git.is_by_ssh());
        let CopySourceOp::Git(git) = op.sources.iter().find(by_ssh)? else { return None };
        let what = format!("{} is reached by ssh, and no ssh agent was given", git.url);
        let hint = Some("build with --ssh default, or --ssh default=KEYFILE".into());
        (!self.agents.contains_key(DEFAULT_AGENT)).then_some(Refusal { step: step.id(), what, hint })
    }

    /// Whether every device that `device` stands for is allowed, by the caller or by the owner of the machine.
    fn allows(&self, device: &Device) -> bool {
        let registry = self.devices();
        let named = || self.allow_devices.iter().flat_map(|name| registry.find(name).unwrap_or_default());
        // One that is not here may be named as well.
        self.allow_devices.contains(&device.name)
            || registry.find(&device.name).is_ok_and(|found| {
                found.iter().all(|full| registry.is_auto_allowed(full) || named().any(|allowed| allowed == *full))
            })
    }

    fn refusals(&self, op: &RunOp) -> impl Iterator<Item = (&'static str, &'static str)> {
        let lacks = |entitlement| !self.allow.contains(&entitlement);
        let insecure = op.security == SecurityMode::Insecure && lacks(Entitlement::SecurityInsecure);
        let network =
            op.network == NetworkMode::Host && self.network == StepNetwork::None && lacks(Entitlement::NetworkHost);
        let insecure =
            insecure.then_some(("RUN --security=insecure is not allowed", "build with --allow security.insecure"));
        let network = network.then_some(("RUN --network=host is not allowed", "build with --allow network.host"));
        let device = lacks(Entitlement::Device) && !op.devices.iter().all(|device| self.allows(device));
        let hint = "build with --allow device, or --allow device=NAME";
        let device = device.then_some(("RUN --device is not allowed", hint));
        insecure.into_iter().chain(network).chain(device)
    }
}
