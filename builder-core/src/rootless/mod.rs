//! The build process: the one process in which the engine lives, entered while it has a single thread.
//!
//! A caller, with any number of threads and no rights, starts its own program again ([`BuildProcess::spawn`]); the new
//! process finds out what it is first thing in `main` ([`init_if_build_process`]), enters namespaces, and runs the
//! engine in them. Both talk over one socket ([`channel`]).
//!
//! ```text
//! caller ── a thread per build process starts it and waits for it
//!   └ intermediate      made the user namespace; outside of the pid namespace, so that the caller can wait for it
//!       └ pid 1         reaps what nobody waits for; its end is the end of every process below
//!           └ engine    pid 2: any number of threads, and the steps' processes
//! ```
//!
//! * **Why pid 1 is not the engine.** Orphans go to pid 1, and whoever reaps them there with "wait for any child" takes
//!   the exit status away from engine threads that wait for a child of their own; telling the two apart is a race. So
//!   pid 1 has two children kinds only: the engine, and orphans. Besides, the kernel shields pid 1 from signals it sends
//!   itself, an abort would not be seen as one.
//! * **What kills what.** The death of the caller kills the intermediate (`PR_SET_PDEATHSIG`), which kills pid 1 the same
//!   way, and the kernel everything else in the pid namespace. The signal is set after the birth of each process, so
//!   each then checks that its parent still lives. The engine also leaves when the socket closes ([`Engine::serve`]).
//!   A caller that wants the tree gone asks the intermediate (SIGTERM), which kills pid 1 and waits until the kernel has
//!   emptied the namespace: when the intermediate is reaped, nothing is left.
//! * **What the process does not inherit**: environment, umask, controlling terminal, ignored signals, file descriptors.
//!   The working directory it does, so that relative paths mean the same on both sides.
//! * **Un-namespaced** (rung `none`) the same process runs the same engine with none of this, and is told why it cannot
//!   run commands. Helpers that it starts there (`git`) stay in its process group and should set a death signal of
//!   their own: no namespace takes them with it when the caller is killed.
//!
//! Messages are type parameters: this module knows neither requests nor events. See `user_namespaces(7)`,
//! `pid_namespaces(7)`, `prctl(2)`.

mod channel;
mod child;
mod diagnosis;
mod engine;
mod facts;
mod handshake;
mod id_map;
mod launch;
mod mapper;
mod memory;
mod observe;
mod probe;
mod process;
mod tree;

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

pub use channel::{Channel, ChannelError, MAX_FRAME_BYTES, Receiver, Sender};
pub(crate) use child::take_umask;
pub use child::{EngineMain, init_if_build_process};
pub use diagnosis::{Cause, Diagnosis, Feature};
pub use engine::{Engine, News};
pub use facts::{HelperPrivilege, HostFacts, IdMapHelper};
pub use id_map::{IdMap, IdRange, SubordinateRange};
pub use memory::Rest;
pub use probe::{Check, HostReport, Outcome, probe};
pub use process::{AnswerHandle, BuildProcess, CancelHandle};
pub use tree::{Death, Ending};

/// How to start build processes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct LaunchConfig {
    /// The program that becomes the build process.
    pub program: Program,
    /// What it shall be able to do.
    pub isolation: Isolation,
    /// Where `newuidmap` and `newgidmap` are looked for before the usual places.
    pub helper_dirs: Vec<PathBuf>,
    /// What it has as standard output.
    pub stdout: Stdout,
}

impl LaunchConfig {
    /// The best isolation that this host allows, and the usual places.
    pub fn new(program: Program) -> Self {
        Self { program, isolation: Isolation::Auto, helper_dirs: Vec::new(), stdout: Stdout::Closed }
    }
}

/// The program that becomes the build process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Program {
    /// This one, which must call `builder_core::init()` at the start of `main`.
    SelfExe,
    /// Another one that does, of the same version; an absolute path.
    Binary(PathBuf),
}

/// The standard output of a build process. Commands that it runs never have it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stdout {
    /// None.
    Closed,
    /// The caller's, for an engine that writes its result there.
    Inherited,
}

/// What a build process shall be able to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Run commands if the host allows it; without that, everything else.
    Auto,
    /// Run commands in user namespaces, or fail.
    Userns,
    /// Run no commands.
    None,
}

/// Rung of the isolation ladder that a build process stands on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Rung {
    /// No namespaces: no commands can be run.
    None,
    /// A user namespace with a range of ids, a mount and a pid namespace.
    Userns,
}

/// What the engine is told about the process it runs in.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct EngineEnvironment {
    /// Where it stands.
    pub rung: Rung,
    /// Why commands cannot be run; `None` when they can.
    pub no_exec: Option<Diagnosis>,
    /// Which `/proc` it sees.
    pub proc: ProcView,
    /// Whether supplementary groups can be set.
    pub groups: SupplementaryGroups,
    /// Users that exist here, and what they are for the caller.
    pub uid_map: IdMap,
    /// Groups that exist here, and what they are for the caller.
    pub gid_map: IdMap,
}

/// Which processes a `/proc` shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum ProcView {
    /// Those of the build process' own pid namespace.
    Own,
    /// The caller's, because nothing else was asked for.
    Callers,
    /// The caller's, because the kernel refused another with this errno: it will refuse one for a step too.
    Refused(i32),
}

/// Whether `setgroups` works in a user namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SupplementaryGroups {
    /// It does; the build process has none.
    Settable,
    /// It does not; the build process has the caller's.
    Fixed,
}

/// A build process that could not be started, or that did not end as it should.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// [`Program::SelfExe`] in a program that would not become a build process.
    #[error("this program does not call `builder_core::init()` at the start of `main`, and no other binary was named")]
    InitNotCalled,
    /// [`Program::Binary`] with a relative path.
    #[error("the build process binary {path:?} is not an absolute path")]
    RelativeProgram {
        /// The path.
        path: PathBuf,
    },
    /// No thread, socket or process could be had.
    #[error("start {program:?} as the build process")]
    Start {
        /// The program.
        program: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The program runs, or ran, but not as a build process.
    #[error("{program:?} does not act as a build process: {reason}")]
    NotABuildProcess {
        /// The program.
        program: PathBuf,
        /// What it did instead.
        reason: String,
    },
    /// This host does not allow what was asked for.
    #[error("{0}")]
    HostUnsupported(Box<Diagnosis>),
    /// A message could not be sent or received.
    #[error("talk to the build process")]
    Channel {
        /// Why.
        #[from]
        source: ChannelError,
    },
    /// It ended without an answer.
    #[error("{0}")]
    Died(Box<Death>),
    /// It was ended on request, without an answer.
    #[error("the build was cancelled")]
    Cancelled,
}
