//! The messages between the caller and its build process.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::Cancel;
use super::build::{self, Surroundings};
use super::forecast;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::registry::{Client, ClientConfig};
use crate::request::{BuildOutcome, BuildRequest, PullPolicy};
use crate::store::{PruneOptions, PruneScope, Store};
use crate::trace::BuildPlan;
use crate::worker::fetch_from_elsewhere;

/// What a build process is started for.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The state directory.
    pub(crate) state_dir: PathBuf,
    /// What to do with it.
    pub(crate) kind: TaskKind,
}

/// What to do.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum TaskKind {
    /// Build an image.
    Build(Box<BuildRequest>, HostFacts, Box<ClientConfig>),
    /// Tell what that would do.
    Plan(Box<BuildRequest>, HostFacts, Box<ClientConfig>),
    /// Free what is not needed; also cached steps, and cache mounts as well.
    Prune { steps: bool, mounts: bool },
    /// Measure what the state directory takes.
    DiskUsage,
}

/// Facts of this machine that the library does not look up itself, or looks up once.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct HostFacts {
    /// Seconds and nanoseconds since 1970.
    pub(crate) now: (i64, u32),
    /// The host's `/etc/resolv.conf`, for commands.
    pub(crate) resolv_conf: Vec<u8>,
    /// The caller's umask, for outputs.
    pub(crate) umask: u32,
}

/// What came of it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Answer {
    /// The image.
    Built(BuildOutcome),
    /// What the build would do.
    Planned(Box<BuildPlan>),
    /// Bytes on disk that are free now.
    Freed(u64),
    /// Bytes on disk by kind, and in all.
    Usage(BTreeMap<String, u64>, u64),
}

impl Task {
    /// Does it.
    pub(crate) fn run(
        self,
        cancel: &Cancel,
        no_exec: Option<Error>,
        connect: impl FnOnce(ClientConfig) -> Client,
        events: &(dyn Fn(Event) + Sync),
    ) -> Result<Answer, Error> {
        let store = Store::open(&self.state_dir).map_err(|e| store_error(&e))?;
        match self.kind {
            TaskKind::Build(request, facts, config) => {
                let registries = (*config).clone();
                let client = connect(*config);
                if request.pull != PullPolicy::Never {
                    fetch_from_elsewhere(&store, &client);
                }
                let around = Surroundings { store: &store, client: &client, registries, no_exec, cancel, events };
                build::run(around, &request, &facts).map(Answer::Built)
            }
            TaskKind::Plan(request, facts, config) => {
                let registries = (*config).clone();
                let client = connect(*config);
                let around = Surroundings { store: &store, client: &client, registries, no_exec, cancel, events };
                forecast::run(around, &request, &facts).map(|plan| Answer::Planned(Box::new(plan)))
            }
            TaskKind::Prune { steps, mounts } => {
                let scope = match (steps, mounts) {
                    (_, true) => PruneScope::All,
                    (true, false) => PruneScope::Cache,
                    (false, false) => PruneScope::Dangling,
                };
                let report = store.prune(PruneOptions { scope, keep_used_since: None });
                report.map(|report| Answer::Freed(report.freed_bytes)).map_err(|e| store_error(&e))
            }
            TaskKind::DiskUsage => {
                let usage = store.disk_usage().map_err(|e| store_error(&e))?;
                let categories = [
                    ("blobs", usage.blobs),
                    ("trees", usage.trees),
                    ("unpacked", usage.unpacked),
                    ("records", usage.records),
                    ("builds", usage.builds),
                    ("stat-cache", usage.stat_cache),
                    ("mounts", usage.mounts),
                    ("tmp", usage.tmp),
                    ("other", usage.other),
                ];
                let categories = categories.map(|(name, bytes)| (name.to_owned(), bytes)).into();
                Ok(Answer::Usage(categories, usage.total()))
            }
        }
    }
}

fn store_error(error: &crate::store::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}
