//! A build process in the caller's hands: start it, let it serve one request, cancel it.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::channel::Sender;
use super::diagnosis::Diagnosis;
use super::facts::HostFacts;
use super::handshake::{FromEngine, Namespaces, Purpose, ToChild, ToEngine};
use super::launch::{Launch, Ready, program_path};
use super::tree::ProcessTree;
use super::{EngineEnvironment, Error, Isolation, LaunchConfig, Rung};

/// A running build process that waits for its request. Dropped, it is killed, and the drop returns when every process
/// of it is gone.
#[derive(Debug)]
pub struct BuildProcess {
    launch: Launch,
    environment: EngineEnvironment,
}

impl BuildProcess {
    /// Starts a build process, from any thread, on the best rung that `config` allows and the host has.
    ///
    /// # Errors
    /// [`Error::HostUnsupported`] when namespaces were demanded and are not to be had; [`Error::InitNotCalled`],
    /// [`Error::RelativeProgram`], [`Error::NotABuildProcess`], [`Error::Start`] when the program is at fault.
    pub fn spawn(config: &LaunchConfig) -> Result<Self, Error> {
        let facts = HostFacts::gather(&program_path(&config.program)?, &config.helper_dirs);
        match config.isolation {
            Isolation::None => Self::spawn_plain(config, &facts, Diagnosis::not_asked(&facts)),
            Isolation::Userns => {
                Self::spawn_isolated(config, &facts)?.map_err(|diagnosis| Error::HostUnsupported(Box::new(diagnosis)))
            }
            Isolation::Auto => match Self::spawn_isolated(config, &facts)? {
                Ok(isolated) => Ok(isolated),
                Err(diagnosis) => Self::spawn_plain(config, &facts, diagnosis),
            },
        }
    }

    fn spawn_isolated(config: &LaunchConfig, facts: &HostFacts) -> Result<Result<Self, Diagnosis>, Error> {
        let ready = match Launch::make_ready(config, facts, Namespaces::Enter, Purpose::Engine)? {
            Ok(ready) => ready,
            Err(failure) => return Ok(Err(Diagnosis::find(facts, &failure))),
        };
        let environment = EngineEnvironment {
            rung: Rung::Userns,
            no_exec: None,
            proc: ready.proc,
            groups: ready.groups,
            uid_map: facts.planned_uid_map(),
            gid_map: facts.planned_gid_map(),
        };
        Self::begin(ready, environment).map(Ok)
    }

    fn spawn_plain(config: &LaunchConfig, facts: &HostFacts, why: Diagnosis) -> Result<Self, Error> {
        let ready = match Launch::make_ready(config, facts, Namespaces::Stay, Purpose::Engine)? {
            Ok(ready) => ready,
            Err(failure) => return Err(Error::HostUnsupported(Box::new(Diagnosis::find(facts, &failure)))),
        };
        let environment = EngineEnvironment {
            rung: Rung::None,
            no_exec: Some(why),
            proc: ready.proc,
            groups: ready.groups,
            uid_map: facts.uid_map.identity(),
            gid_map: facts.gid_map.identity(),
        };
        Self::begin(ready, environment)
    }

    fn begin(ready: Ready, environment: EngineEnvironment) -> Result<Self, Error> {
        let launch = ready.launch;
        launch.channel.send(&ToChild::Begin(Box::new(environment.clone())))?;
        Ok(Self { launch, environment })
    }

    /// Where the engine runs.
    pub fn environment(&self) -> &EngineEnvironment {
        &self.environment
    }

    /// For another thread, to end this process early.
    pub fn cancel_handle(&self) -> CancelHandle {
        CancelHandle { tree: Arc::clone(&self.launch.guard.tree), sender: self.launch.channel.sender() }
    }

    /// For answers to events.
    pub fn answer_handle(&self) -> AnswerHandle {
        AnswerHandle { sender: self.launch.channel.sender() }
    }

    /// Has the engine serve `request`: calls `on_event` with each of its events, on this thread, and returns its reply
    /// once every process is gone.
    ///
    /// # Errors
    /// [`Error::Died`] when it ended without a reply, [`Error::Cancelled`] when it did so because it was told to,
    /// [`Error::Channel`] when the messages are not of these types.
    pub fn run<Q, E, R>(mut self, request: &Q, mut on_event: impl FnMut(E)) -> Result<R, Error>
    where
        Q: Serialize,
        E: DeserializeOwned,
        R: DeserializeOwned,
    {
        if let Err(error) = self.launch.channel.send(&ToEngine::Request(request)) {
            return Err(self.explain(error));
        }
        loop {
            match self.launch.channel.recv::<FromEngine<E, R>>() {
                Ok(Some(FromEngine::Event(event))) => on_event(event),
                Ok(Some(FromEngine::Reply(reply))) => {
                    self.launch.guard.tree.wait();
                    return Ok(reply);
                }
                Ok(None) => return Err(self.launch.guard.tree.ended_without_answer()),
                Err(error) => return Err(self.explain(error)),
            }
        }
    }

    /// A connection that breaks usually breaks because the process died: then that is the news.
    fn explain(&self, error: super::ChannelError) -> Error {
        use super::ChannelError::{Broken, Receive, Send, Truncated};
        match error {
            Broken | Receive { .. } | Send { .. } | Truncated { .. } => self.launch.guard.tree.ended_without_answer(),
            source => Error::Channel { source },
        }
    }
}

/// Answers what an event asked for, from any thread.
#[derive(Debug, Clone)]
pub struct AnswerHandle {
    sender: Sender,
}

impl AnswerHandle {
    /// Sends an answer.
    ///
    /// # Errors
    /// [`ChannelError`](super::ChannelError); [`BuildProcess::run`] tells soon what became of the process.
    pub fn send(&self, answer: String) -> Result<(), super::ChannelError> {
        self.sender.send(&ToEngine::<()>::Answer(answer))
    }
}

/// Ends a build process early, from any thread. Harmless once it is over.
#[derive(Debug, Clone)]
pub struct CancelHandle {
    tree: Arc<ProcessTree>,
    sender: Sender,
}

impl CancelHandle {
    /// Asks the engine to stop, and kills it if it still runs after `grace`. Returns at once, usually.
    ///
    /// # Errors
    /// When the thread that waits for the grace to pass cannot be started; the process is killed at once then.
    pub fn cancel(&self, grace: Duration) -> io::Result<()> {
        self.tree.is_no_longer_wanted();
        let tree = Arc::clone(&self.tree);
        let wait_and_kill = move || {
            if !tree.wait_at_most(grace) {
                tree.kill();
            }
        };
        // Started before the message is sent: an engine that does not read would block this thread for good.
        let waiting = std::thread::Builder::new().name("build-cancel".to_owned()).spawn(wait_and_kill);
        if let Err(error) = waiting {
            self.kill();
            return Err(error);
        }
        match self.sender.send(&ToEngine::<()>::Cancel) {
            // Not sent means that the engine is gone or will be killed: either way there is nothing more to do.
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Kills the engine and every step, now.
    pub fn kill(&self) {
        self.tree.kill();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rootless::Program;

    #[test]
    fn a_program_that_would_not_become_a_build_process_is_not_started_again() {
        let config = LaunchConfig::new(Program::SelfExe);
        assert!(matches!(BuildProcess::spawn(&config), Err(Error::InitNotCalled)));
    }

    #[test]
    fn handles_go_to_other_threads() {
        fn is_send_and_sync<T: Send + Sync>() {}
        is_send_and_sync::<CancelHandle>();
        is_send_and_sync::<BuildProcess>();
    }
}
