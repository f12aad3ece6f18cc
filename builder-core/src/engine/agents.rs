//! The ssh agents of a build: sockets that the caller names, and agents that are started for its key files.

use std::collections::HashMap;
use std::path::PathBuf;

use crate::error::Error;
use crate::fetch::KeyAgent;
use crate::request::BuildRequest;
use crate::store::Store;

/// By id. Those that were started end with this value.
#[derive(Debug)]
pub(super) struct Agents {
    sockets: HashMap<String, PathBuf>,
    _started: Vec<KeyAgent>,
}

impl Agents {
    /// Starts those that `request` needs.
    pub(super) fn start(store: &Store, request: &BuildRequest) -> Result<Self, Error> {
        let mut sockets: HashMap<String, PathBuf> = request.ssh_agents.iter().cloned().collect();
        let mut started = Vec::new();
        let keys: HashMap<&String, &Vec<PathBuf>> = request.ssh_keys.iter().map(|(id, keys)| (id, keys)).collect();
        for (id, keys) in keys {
            let agent = KeyAgent::start(store, keys)?;
            sockets.insert(id.clone(), agent.socket().to_owned());
            started.push(agent);
        }
        Ok(Self { sockets, _started: started })
    }

    /// Where the agent called `id` listens.
    pub(super) fn socket(&self, id: &str) -> Option<PathBuf> {
        self.sockets.get(id).cloned()
    }

    /// Where each listens.
    pub(super) fn sockets(&self) -> HashMap<String, PathBuf> {
        self.sockets.clone()
    }
}
