//! What every `RUN` gets besides what the Dockerfile says.

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// Settings of all commands of a build.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunSettings {
    /// Names that `/etc/hosts` has besides. The names are in cache keys, the addresses are not.
    pub extra_hosts: Vec<ExtraHost>,
    /// Size of `/dev/shm` in bytes; 64 MiB without one.
    pub shm_bytes: Option<u64>,
    /// Limits that differ from those of the build process.
    pub ulimits: Vec<Ulimit>,
}

/// A host and its address.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExtraHost {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub address: IpAddr,
}

/// A limit of a resource (`getrlimit(2)`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ulimit {
    /// What is limited.
    pub resource: LimitedResource,
    /// The limit that counts; unlimited without one.
    pub soft: Option<u64>,
    /// What the command may raise it to; unlimited without one.
    pub hard: Option<u64>,
}

/// What can be limited, in the words of `docker run --ulimit`. Units are the kernel's: bytes, seconds, or a count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum LimitedResource {
    /// Bytes of a core file.
    Core,
    /// Seconds of CPU time.
    Cpu,
    /// Bytes of data and heap.
    Data,
    /// Bytes of a file.
    Fsize,
    /// Locks.
    Locks,
    /// Bytes that are kept in memory.
    Memlock,
    /// Bytes of message queues.
    Msgqueue,
    /// Priority, 20 minus the nice value.
    Nice,
    /// Open files.
    Nofile,
    /// Processes of the user.
    Nproc,
    /// Bytes of resident memory; without effect since Linux 2.4.30.
    Rss,
    /// Priority of real-time scheduling.
    Rtprio,
    /// Microseconds without a blocking call under real-time scheduling.
    Rttime,
    /// Signals that wait.
    Sigpending,
    /// Bytes of the stack.
    Stack,
}

impl LimitedResource {
    /// All, by name.
    pub const ALL: [(&'static str, Self); 15] = [
        ("core", Self::Core),
        ("cpu", Self::Cpu),
        ("data", Self::Data),
        ("fsize", Self::Fsize),
        ("locks", Self::Locks),
        ("memlock", Self::Memlock),
        ("msgqueue", Self::Msgqueue),
        ("nice", Self::Nice),
        ("nofile", Self::Nofile),
        ("nproc", Self::Nproc),
        ("rss", Self::Rss),
        ("rtprio", Self::Rtprio),
        ("rttime", Self::Rttime),
        ("sigpending", Self::Sigpending),
        ("stack", Self::Stack),
    ];
}
