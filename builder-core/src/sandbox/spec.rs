//! What to run and where: plain data, nothing is opened or made.

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::sync::Arc;

use rustix::process::{Resource, Rlimit};

use crate::sys::mount::Attributes;

/// One process in new namespaces. Paths are image paths: relative to the root, without leading `/`.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// The root directory.
    pub(crate) rootfs: Rootfs,
    /// Mounts over the image in this order, later ones over earlier ones, after the standard ones.
    /// Targets must exist in the image or below an earlier mount's target; see [`super::STANDARD_TARGETS`].
    pub(crate) mounts: Vec<Mount>,
    /// Program and arguments. A program without `/` is looked for in the `PATH` of `env`.
    pub(crate) argv: Vec<Vec<u8>>,
    /// The whole environment, `(name, value)`, in this order.
    pub(crate) env: Vec<(Vec<u8>, Vec<u8>)>,
    /// Working directory, looked up after all mounts, made (0755, root's) when missing; magic links (`/proc/self/fd/3`)
    /// are refused.
    pub(crate) cwd: Vec<u8>,
    /// User id inside the user namespace.
    pub(crate) uid: u32,
    /// Group id inside the user namespace.
    pub(crate) gid: u32,
    /// Supplementary groups, exactly these.
    pub(crate) groups: Vec<u32>,
    /// Name of the machine.
    pub(crate) hostname: String,
    /// Which network it sees.
    pub(crate) network: Network,
    /// What it may do.
    pub(crate) security: Security,
    /// Content of `/etc/resolv.conf`: writable for the step, gone after it.
    pub(crate) resolv_conf: Vec<u8>,
    /// Content of `/etc/hosts`, likewise.
    pub(crate) hosts: Vec<u8>,
    /// Size of `/dev/shm` in bytes; Docker's 64 MiB without one.
    pub(crate) shm_bytes: Option<u64>,
    /// Limits that differ from those of this process.
    pub(crate) limits: Vec<(Resource, Rlimit)>,
}

/// Where the root directory comes from.
#[derive(Debug, Clone)]
pub(crate) enum Rootfs {
    /// A kernel overlay.
    Overlay {
        /// Layers, top first; at least one.
        lowerdirs: Vec<PathBuf>,
        /// Takes what the step changes. Never mounted twice: its workdir is marked `volatile`.
        upperdir: PathBuf,
        /// An empty directory on the filesystem of `upperdir`.
        workdir: PathBuf,
    },
}

/// A mount over the image.
#[derive(Debug, Clone)]
pub(crate) enum Mount {
    /// A file, directory or socket of this machine, without mounts below it.
    Bind {
        /// A path handle (`O_PATH`) opened in this process's mount namespace: no name that could be swapped underneath.
        source: Arc<OwnedFd>,
        /// Where; of the source's kind.
        target: Vec<u8>,
        /// What it must not be used for: writing, programs, devices.
        attributes: Attributes,
    },
    /// An empty filesystem in memory.
    Tmpfs {
        /// Where.
        target: Vec<u8>,
        /// Most bytes it takes; half of the memory by default.
        size: Option<u64>,
        /// Permissions of its root directory.
        mode: u32,
        /// Whether writing fails.
        read_only: bool,
    },
    /// A file in memory with given content, writable where its mode says so, gone after the step.
    File {
        /// Where; a file.
        target: Vec<u8>,
        /// What it holds.
        content: Content,
        /// Its permissions.
        mode: u32,
        /// Its owner.
        uid: u32,
        /// Its group.
        gid: u32,
    },
}

impl Mount {
    /// Where.
    pub(super) fn target(&self) -> &[u8] {
        match self {
            Self::Bind { target, .. } | Self::Tmpfs { target, .. } | Self::File { target, .. } => target,
        }
    }
}

/// Bytes that may be secret: shown by length only.
#[derive(Clone)]
pub(crate) struct Content(pub(crate) Vec<u8>);

impl fmt::Debug for Content {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Content({} bytes)", self.0.len())
    }
}

/// The network of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// That of the build process.
    Host,
    /// Its own, with loopback only.
    None,
}

/// The privileges of a step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Security {
    /// Docker's default capabilities, seccomp profile, masked and read-only paths.
    Sandbox,
    /// All that the build process has in its user namespace, but for tracing it: `CAP_SYS_PTRACE`.
    Insecure,
}
