//! What `RUN` does: the command and everything it sees.

use super::{FileInput, RootInput};
use crate::image::Platform;

/// How a command was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CommandForm {
    /// One string, given to the shell; `argv` has the shell in it.
    Shell,
    /// The arguments themselves; `argv[0]` is looked up in the `PATH` of the step.
    Exec,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunOp {
    /// The file system it changes.
    pub(crate) parent: RootInput,
    /// The command with its arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// How it was written.
    pub(crate) form: CommandForm,
    /// A file that must be there while the command runs, and is not part of the result.
    pub(crate) script: Option<Script>,
    /// Environment: ENV and declared ARG, each name once, in the order they got their values.
    pub(crate) env: Vec<(String, String)>,
    /// Proxy variables from the request's build args, in upper and lower case: given to the command after `env`, so
    /// that they win, and never in a cache key.
    pub(crate) proxy_env: Vec<(String, String)>,
    /// Working directory, absolute and clean.
    pub(crate) cwd: String,
    /// `USER` as written: `user[:group]`, names or numbers; empty is root.
    pub(crate) user: String,
    /// Host name inside.
    pub(crate) hostname: String,
    /// `--network`
    pub(crate) network: NetworkMode,
    /// `--security`
    pub(crate) security: SecurityMode,
    /// `--mount`, in order; a later one lies over an earlier one.
    pub(crate) mounts: Vec<MountOp>,
    /// `--device`, in order.
    pub(crate) devices: Vec<Device>,
    /// Platform of the file system, for emulation.
    pub(crate) platform: Platform,
}

/// A heredoc that starts with `#!`: a file, mode 0755, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Script {
    /// Absolute path, `/dev/pipes/NAME`.
    pub(crate) path: String,
    /// Its content.
    pub(crate) content: String,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum NetworkMode {
    /// The builder's network for steps.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// All privileges the builder has.
    Insecure,
}

/// `RUN --device`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    /// CDI name, class or `*` pattern.
    pub(crate) name: String,
    /// Whether the step fails without it.
    pub(crate) need: Need,
}

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// An error if absent.
    Required,
    /// Silently left out if absent.
    Optional,
}

/// Whether a mount may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Only read.
    ReadOnly,
    /// Also written; what is written to a bind mount is thrown away.
    ReadWrite,
}

/// `RUN --mount`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MountOp {
    /// Absolute, clean path inside, never `/`; a secret that is only a variable has none.
    pub(crate) target: Option<String>,
    /// What is mounted.
    pub(crate) kind: MountKind,
}

impl MountOp {
    #[cfg(any(test, fuzzing))]
    /// Returns where its files come from, if it shows files.
    pub(crate) fn files(&self) -> Option<FileInput> {
        match &self.kind {
            MountKind::Bind { from, .. } => Some(*from),
            MountKind::Cache(cache) => Some(cache.from),
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
        }
    }
}

/// What a `--mount` mounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MountKind {
    /// `type=bind`
    Bind {
        /// Where the files are.
        from: FileInput,
        /// Absolute, clean path in `from`.
        source: String,
        /// `rw` or `ro`.
        access: Access,
    },
    /// `type=cache`
    Cache(CacheMount),
    /// `type=tmpfs`
    Tmpfs {
        /// Most bytes, if limited.
        size_bytes: Option<u64>,
        /// `rw` or `ro`.
        access: Access,
    },
    /// `type=secret`
    Secret {
        /// Its id.
        id: String,
        /// Variable that gets the value, if any.
        env: Option<String>,
        /// `required`
        need: Need,
        /// Owner and mode of the file.
        owner: MountOwner,
    },
    /// `type=ssh`: an agent socket; the step's `env` has the first one's target as `SSH_AUTH_SOCK`.
    Ssh {
        /// Its id.
        id: String,
        /// `required`
        need: Need,
        /// Owner and mode of the socket.
        owner: MountOwner,
    },
}

/// `--mount=type=cache`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheMount {
    /// Its identity: `NAMESPACE/ID`.
    pub(crate) id: String,
    /// What a new cache starts with; `Root(Scratch)` is an empty directory.
    pub(crate) from: FileInput,
    /// Absolute, clean path in `from`.
    pub(crate) source: String,
    /// `sharing`
    pub(crate) sharing: Sharing,
    /// `ro` or `rw`.
    pub(crate) access: Access,
    /// Owner and mode of a new cache's directory, where any of the three was given.
    pub(crate) owner: Option<MountOwner>,
}

/// Owner and mode of what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MountOwner {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Permission bits, at most 0o7777.
    pub(crate) mode: u32,
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// One step at once; another one gets a fresh directory.
    Private,
    /// One step at once; another one waits.
    Locked,
}
