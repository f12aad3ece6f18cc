//! What can go wrong around a command, as opposed to what the command itself reports by its exit status.

use rustix::io::Errno;

use super::exec_failure::ExecFailure;
use crate::sys::mount::OverlayError;

/// Why a command could not be run, or its result not be learned.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The image's layers could not be put together.
    #[error("put the image's layers together")]
    Overlay {
        /// What the kernel said.
        #[source]
        source: OverlayError,
    },
    /// Something could not be prepared before the sandbox was made.
    #[error("prepare the sandbox: {operation}")]
    Prepare {
        /// What.
        operation: String,
        /// Why.
        #[source]
        source: Errno,
    },
    /// Namespaces could not be made.
    #[error("make new namespaces for the command")]
    Clone {
        /// Why.
        #[source]
        source: Errno,
    },
    /// Something failed inside of the new namespaces.
    #[error("set up the sandbox: {operation}")]
    Setup {
        /// What.
        operation: String,
        /// What to do about it.
        hint: Option<&'static str>,
        /// Why.
        #[source]
        source: Errno,
    },
    /// The command could not be executed.
    #[error("execute {program:?}: {failure}")]
    Execute {
        /// `argv[0]`.
        program: String,
        /// What is wrong with it.
        failure: ExecFailure,
        /// The error of `execve(2)`.
        #[source]
        source: Errno,
    },
    /// The command is empty.
    #[error("the command is empty")]
    EmptyCommand,
    /// A byte that the kernel takes for the end of a string.
    #[error("{what} contains a NUL byte")]
    NulByte {
        /// Where.
        what: &'static str,
    },
    /// No table of system calls for this processor.
    #[error("no seccomp profile for this architecture")]
    NoProfile,
    /// The kill switch was thrown.
    #[error("the command was cancelled")]
    Cancelled,
    /// The sandbox's first process was killed from outside.
    #[error("the sandbox was killed from outside, as the kernel does when memory runs out")]
    Lost,
    /// Waiting for the sandbox failed.
    #[error("{operation} of the sandbox")]
    Supervise {
        /// What.
        operation: &'static str,
        /// Why.
        #[source]
        source: Errno,
    },
}

impl Error {
    /// What to do about it, where that is known.
    pub(crate) fn hint(&self) -> Option<String> {
        match self {
            Self::Setup { hint, .. } => hint.map(str::to_owned),
            Self::Execute { failure, .. } => failure.hint(),
            Self::Clone { source: Errno::PERM } => {
                Some("the build process lacks CAP_SYS_ADMIN in its user namespace, or an outer seccomp profile forbids namespaces".into())
            }
            Self::Clone { source: Errno::NOSPC } => {
                Some("too many namespaces: raise the limits in /proc/sys/user/max_*_namespaces".into())
            }
            _ => None,
        }
    }
}
