//! The caller's side of a launch: from nothing to a process that is ready to run the engine, or the reason why not.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use super::channel::Channel;
use super::child::is_init_called;
use super::diagnosis::{Failure, Feature};
use super::facts::HostFacts;
use super::handshake::{FromChild, Namespaces, Purpose, ToChild, VERSION};
use super::mapper::write_maps;
use super::observe::Observation;
use super::tree::{Ending, ProcessTree};
use super::{Error, LaunchConfig, ProcView, Program, Stdout, SupplementaryGroups};

/// How long a program may take to say that it is a build process. One that is not may wait for input forever.
const HELLO_SECONDS: u32 = 30;

/// How long a process whose connection ended may take to end itself: killed earlier, it would not tell its own cause.
const LAST_BREATH: Duration = Duration::from_secs(10);

/// A started process; dropped, it is killed and waited for.
#[derive(Debug)]
pub(super) struct Launch {
    pub(super) channel: Channel,
    pub(super) guard: TreeGuard,
}

/// A launch that came as far as it should.
#[derive(Debug)]
pub(super) struct Ready {
    pub(super) launch: Launch,
    pub(super) proc: ProcView,
    pub(super) groups: SupplementaryGroups,
}

impl Launch {
    /// Starts the program and goes with it through all that comes before the engine.
    ///
    /// # Errors
    /// The outer error when the program is at fault or the process died; the inner one when the host refused.
    pub(super) fn make_ready(
        config: &LaunchConfig,
        facts: &HostFacts,
        namespaces: Namespaces,
        purpose: Purpose,
    ) -> Result<Result<Ready, Failure>, Error> {
        let mut launch = Self::start(&program_path(&config.program)?, config.stdout)?;
        launch.channel.send(&ToChild::Start { namespaces, purpose })?;
        if namespaces == Namespaces::Enter {
            match launch.receive_during(Feature::UserNamespace)? {
                Ok(FromChild::InUserNamespace) => {}
                Ok(FromChild::Failed(failure)) | Err(failure) => return Ok(Err(failure)),
                Ok(other) => return Err(launch.unexpected(&other)),
            }
            if let Err(failure) = write_maps(facts, launch.guard.tree.pid()) {
                return Ok(Err(failure));
            }
            launch.channel.send(&ToChild::Mapped)?;
        }
        match launch.receive_during(Feature::MountNamespace)? {
            Ok(FromChild::Ready { proc, groups }) => {
                if namespaces == Namespaces::Enter {
                    launch.guard.tree.has_namespace();
                }
                Ok(Ok(Ready { launch, proc, groups }))
            }
            Ok(FromChild::Failed(failure)) | Err(failure) => Ok(Err(failure)),
            Ok(other) => Err(launch.unexpected(&other)),
        }
    }

    /// Starts the program and hears that it is a build process of this version.
    fn start(program: &Path, stdout: Stdout) -> Result<Self, Error> {
        let started = ProcessTree::start(program, stdout);
        let (tree, socket, thread) = started.map_err(|source| Error::Start { program: program.to_owned(), source })?;
        let guard = TreeGuard { tree, thread: Some(thread) };
        let mut launch = Self { channel: Channel::from_socket(socket), guard };
        if !launch.channel.is_readable_within(HELLO_SECONDS)? {
            return Err(launch.not_a_build_process(format!("it said nothing for {HELLO_SECONDS} seconds")));
        }
        match launch.channel.recv() {
            Ok(Some(FromChild::Hello { version })) if version == VERSION => Ok(launch),
            Ok(Some(FromChild::Hello { version })) => {
                Err(launch.not_a_build_process(format!("it is of version {version}, this program of {VERSION}")))
            }
            Ok(Some(FromChild::Failed(failure))) => Err(launch.not_a_build_process(failure.to_string())),
            Ok(Some(other)) => Err(launch.unexpected(&other)),
            Ok(None) => {
                let error = launch.guard.tree.ended_without_answer();
                Err(launch.not_a_build_process(error.to_string()))
            }
            Err(error) => Err(launch.not_a_build_process(error.to_string())),
        }
    }

    /// What a probe found; the last message of the process.
    ///
    /// # Errors
    /// When it died instead.
    pub(super) fn receive_observations(&mut self) -> Result<Vec<Observation>, Error> {
        match self.channel.recv()? {
            Some(FromChild::Probed(observations)) => Ok(observations),
            Some(other) => Err(self.unexpected(&other)),
            None => Err(self.guard.tree.ended_without_answer()),
        }
    }

    /// The next message. A process that dies instead met a policy that kills: the inner error says at what.
    fn receive_during(&mut self, feature: Feature) -> Result<Result<FromChild, Failure>, Error> {
        match self.channel.recv()? {
            Some(message) => Ok(Ok(message)),
            None => match self.guard.tree.ended_without_answer() {
                Error::Died(death) => {
                    let errno = (death.ending == Ending::Killed(libc::SIGSYS)).then_some(libc::EPERM);
                    Ok(Err(Failure { feature, errno, detail: Some(death.to_string()) }))
                }
                error => Err(error),
            },
        }
    }

    fn unexpected(&self, message: &FromChild) -> Error {
        self.not_a_build_process(format!("it said {message:?} out of turn"))
    }

    fn not_a_build_process(&self, reason: String) -> Error {
        Error::NotABuildProcess { program: self.guard.tree.program().to_owned(), reason }
    }
}

impl ProcessTree {
    /// The error for a connection that ended early. Waits for the process' end, and brings it about when it does not
    /// come: without a connection the process is of no use.
    pub(super) fn ended_without_answer(&self) -> Error {
        if !self.wait_at_most(LAST_BREATH) {
            self.end();
        }
        let death = self.death();
        if self.is_unwanted() { Error::Cancelled } else { Error::Died(Box::new(death)) }
    }
}

/// Kills the tree when dropped, and returns when nothing of it is left.
#[derive(Debug)]
pub(super) struct TreeGuard {
    pub(super) tree: Arc<ProcessTree>,
    thread: Option<JoinHandle<()>>,
}

impl Drop for TreeGuard {
    fn drop(&mut self) {
        self.tree.kill();
        self.tree.wait();
        if let Some(Err(panic)) = self.thread.take().map(JoinHandle::join) {
            // The thread's code has no panic; if it had one, hiding it would hide a process that nobody reaps.
            std::panic::resume_unwind(panic);
        }
    }
}

/// What to execute.
pub(super) fn program_path(program: &Program) -> Result<PathBuf, Error> {
    match program {
        // The kernel's own link: right also when the file was replaced or removed since this process started.
        Program::SelfExe if is_init_called() => Ok(PathBuf::from("/proc/self/exe")),
        Program::SelfExe => Err(Error::InitNotCalled),
        Program::Binary(path) if path.is_absolute() => Ok(path.clone()),
        Program::Binary(path) => Err(Error::RelativeProgram { path: path.clone() }),
    }
}
