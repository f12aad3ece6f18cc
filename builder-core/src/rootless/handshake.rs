//! What caller and build process say to each other until the engine runs, and how they wrap what is said then.
//!
//! ```text
//! build process                       caller
//!      Hello            ──────▶
//!                       ◀──────       Start
//!   unshare user
//!      InUserNamespace  ──────▶       write the maps          (only when namespaces are asked for)
//!                       ◀──────       Mapped
//!   root, unshare mount and pid, fork twice, mount /proc
//!      Ready            ──────▶
//!                       ◀──────       Begin                   a probe sends Probed instead and ends
//!                       ◀──────       Request, later Cancel
//!      News…, Reply     ──────▶
//! ```
//!
//! `Failed` may come instead of any message of the build process, and is its last.

use serde::{Deserialize, Serialize};

use super::diagnosis::Failure;
use super::observe::Observation;
use super::{EngineEnvironment, ProcView, SupplementaryGroups};

/// Name (`argv[0]`) under which a program is started to become a build process.
pub(super) const PROCESS_NAME: &str = "builder-build-process";

/// The only argument: where the socket is. Standard input, because that descriptor reaches exactly one child; any other
/// number would have to be inheritable for a moment in which another thread may start a process.
pub(super) const SOCKET_ARGUMENT: &str = "--socket=stdin";

/// Both sides must be of one version: requests and events have no compatibility promise between versions.
pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// From the build process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromChild {
    /// It is one, of this version.
    Hello { version: String },
    /// It is in a user namespace and waits for its maps.
    InUserNamespace,
    /// The engine's process is where it shall be.
    Ready { proc: ProcView, groups: SupplementaryGroups },
    /// What a probe found.
    Probed(Vec<Observation>),
    /// It could not go on.
    Failed(Failure),
}

/// To the build process.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToChild {
    /// What to become.
    Start { namespaces: Namespaces, purpose: Purpose },
    /// The maps are written.
    Mapped,
    /// Run the engine.
    Begin(Box<EngineEnvironment>),
}

/// Whether to enter namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Namespaces {
    Enter,
    Stay,
}

/// What to do once there.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Purpose {
    /// Run the engine.
    Engine,
    /// Try what an engine needs, with files below this directory, and leave.
    Probe { state_dir: std::path::PathBuf },
}

/// To the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum ToEngine<Q> {
    /// What to do; the first message.
    Request(Q),
    /// Stop doing it.
    Cancel,
    /// What an event asked for.
    Answer(String),
}

/// From the engine.
#[derive(Debug, Serialize, Deserialize)]
pub(super) enum FromEngine<E, R> {
    /// News.
    Event(E),
    /// The result; the last message.
    Reply(R),
}
