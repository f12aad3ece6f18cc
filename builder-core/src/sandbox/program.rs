//! What the child does between clone and exec, as data. [`super::prepare`] writes it, [`super::child`] runs it, and
//! this module says in words what an operation was when it failed.

use std::ffi::{CStr, CString};
use std::os::fd::OwnedFd;

use rustix::io::Errno;
use rustix::process::{Gid, Resource, Rlimit, Uid};
use rustix::thread::CapabilitySets;

use crate::sys::clone::StringArray;
use crate::sys::mount::Attributes;
use crate::sys::reaper::Reaper;
use crate::sys::seccomp::Filter;

/// Everything the child needs. It only reads it.
#[derive(Debug)]
pub(super) struct Program {
    /// Detached mounts and other handles, named by index in [`Handle::Prepared`].
    pub(super) handles: Vec<OwnedFd>,
    /// Done by pid 1 of the step.
    pub(super) setup: Vec<Operation>,
    /// Done by the process that becomes the command.
    pub(super) command: Vec<Operation>,
    /// Paths to execute, first that exists wins.
    pub(super) candidates: Vec<CString>,
    /// Arguments, with `argv[0]`.
    pub(super) arguments: StringArray,
    /// Environment.
    pub(super) environment: StringArray,
    /// What pid 1 becomes when the command runs; where there is none, it stays what it is.
    pub(super) reaper: Option<Reaper>,
}

/// A descriptor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Handle {
    /// Opened by the parent.
    Prepared(usize),
    /// Opened by the child.
    Made(Slot),
}

/// Descriptors the child opens for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Slot {
    /// The mounted root directory of `/dev`.
    Dev,
    /// The mounted root directory of `/proc`.
    Proc,
    /// The mounted root directory of `/sys`.
    Sys,
    /// Whatever one operation makes for the next.
    Scratch,
}

impl Slot {
    /// How many there are.
    pub(super) const COUNT: usize = 4;
}

/// A place in the image, found by the kernel below the overlay's root and never outside of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Target {
    /// Relative to the root, `.` for the root itself.
    pub(super) path: CString,
    /// Whether symlinks are followed, as if the root directory were `/`.
    pub(super) links: Links,
}

/// What a symlink in a [`Target`] means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Links {
    /// An error: an image must not decide where the kernel's filesystems go.
    Refuse,
    /// Followed.
    Follow,
}

/// One step of the child: a system call with prepared arguments, or two where one may be refused.
#[derive(Debug)]
pub(super) enum Operation {
    /// Die when the build process dies.
    TieToParent,
    /// Set the host name.
    SetHostname(String),
    /// Bring up loopback.
    LoopbackUp,
    /// Keep mounts from passing to and from the build process.
    StopPropagation,
    /// Attach a detached mount in the old root, which goes away as a whole.
    AttachOutside { mount: Handle, path: CString },
    /// Clone part of a mount.
    Clone { dir: Handle, name: CString, add: Attributes, into: Slot },
    /// Mount a filesystem that belongs to the new namespaces, attached nowhere.
    MountFresh { filesystem: &'static CStr, attributes: Attributes, into: Slot },
    /// Like `MountFresh`, but take a clone of `name` in `dir` where the kernel refuses.
    MountFreshOr { filesystem: &'static CStr, attributes: Attributes, into: Slot, dir: Handle, name: &'static CStr },
    /// Make a directory below an earlier mount unless something is there.
    EnsureDirectory { path: CString },
    /// Make an empty file below an earlier mount unless something is there.
    EnsureFile { path: CString },
    /// Attach a detached mount to a place in the image.
    Attach { mount: Handle, target: Target },
    /// Attach a detached mount to a place in a mount of our own.
    AttachIn { mount: Handle, dir: Handle, name: &'static CStr },
    /// Cover with another directory or file of our own, if it exists.
    Mask { dir: Handle, path: &'static CStr, cover: Handle, with: &'static CStr },
    /// Make read-only, if it exists.
    MakeReadOnly { dir: Handle, path: &'static CStr },
    /// Make the overlay the root directory and let go of the old one.
    EnterRoot,
    /// Leave the session, set the umask to 022.
    NewSession,
    /// `/dev/null` and two pipes become descriptors 0 to 2, the pipes owned by the user.
    SetStdio { stdout: Handle, stderr: Handle, owner: Option<(Uid, Gid)> },
    /// Limit a resource.
    SetLimit(Resource, Rlimit),
    /// Change the working directory.
    ChangeDirectory { path: CString },
    /// Leave the caller's session keyring.
    LeaveKeyring,
    /// Set the supplementary groups.
    SetGroups(Vec<Gid>),
    /// Set real, effective and saved group.
    SetGroup(Gid),
    /// Drop every capability that is not in this set from the bounding set.
    LimitCapabilities(u64),
    /// Install the seccomp filter. Needs a capability that the next operation gives up.
    InstallFilter(&'static Filter),
    /// Set effective, permitted and inheritable capabilities, empty the ambient ones.
    SetCapabilities(CapabilitySets),
    /// Set real, effective and saved user. Leaving 0 clears the capabilities.
    SetUser(Uid),
    /// Let `execve` close all descriptors but the first three.
    CloseOnExec,
}

/// Why an operation may have failed and what to do about it.
pub(super) type Hint = Option<&'static str>;

impl Program {
    /// The operation of that number, in words.
    pub(super) fn describe(&self, operation: usize) -> String {
        self.operation(operation).map_or_else(|| "start the command's process".into(), Operation::describe)
    }

    /// What to do when that operation failed with `errno`.
    pub(super) fn hint(&self, operation: usize, errno: Errno) -> Hint {
        self.operation(operation)?.hint(errno)
    }

    fn operation(&self, operation: usize) -> Option<&Operation> {
        self.setup.iter().chain(&self.command).nth(operation)
    }
}

impl Operation {
    fn describe(&self) -> String {
        let text = |string: &CStr| string.to_string_lossy().into_owned();
        match self {
            Self::TieToParent => "set the parent death signal".into(),
            Self::SetHostname(name) => format!("set hostname {name:?}"),
            Self::LoopbackUp => "bring up loopback".into(),
            Self::StopPropagation => "make mounts private".into(),
            Self::AttachOutside { path, .. } => format!("attach a mount at {:?}", text(path)),
            Self::Clone { name, .. } => format!("open_tree {:?}", text(name)),
            Self::MountFresh { filesystem, .. } | Self::MountFreshOr { filesystem, .. } => {
                format!("mount {}", text(filesystem))
            }
            Self::EnsureDirectory { path } => format!("make mount point \"/{}\"", text(path)),
            Self::EnsureFile { path } => format!("make mount point \"/{}\"", text(path)),
            Self::Attach { target, .. } => format!("mount at \"/{}\"", text(&target.path)),
            Self::AttachIn { name, .. } => format!("mount at {:?}", text(name)),
            Self::Mask { path, .. } => format!("mask {:?}", text(path)),
            Self::MakeReadOnly { path, .. } => format!("make {:?} read-only", text(path)),
            Self::EnterRoot => "pivot_root into the image".into(),
            Self::NewSession => "setsid".into(),
            Self::SetStdio { .. } => "set up standard input and output".into(),
            Self::ChangeDirectory { path } => format!("change to working directory \"/{}\"", text(path)),
            Self::SetLimit(resource, _) => format!("limit {}", format!("{resource:?}").to_lowercase()),
            Self::LeaveKeyring => "join a new session keyring".into(),
            Self::SetGroups(groups) => {
                format!("set supplementary groups {:?}", groups.iter().map(|gid| gid.as_raw()).collect::<Vec<_>>())
            }
            Self::SetGroup(gid) => format!("set group {}", gid.as_raw()),
            Self::LimitCapabilities(_) => "limit the capability bounding set".into(),
            Self::InstallFilter(_) => "install the seccomp filter".into(),
            Self::SetCapabilities(_) => "set capabilities".into(),
            Self::SetUser(uid) => format!("set user {}", uid.as_raw()),
            Self::CloseOnExec => "mark descriptors close-on-exec".into(),
        }
    }

    fn hint(&self, errno: Errno) -> Hint {
        match self {
            Self::MountFresh { filesystem, .. } if *filesystem == c"proc" && errno == Errno::PERM => Some(
                "the kernel lets a sandbox mount /proc only where all of the outer /proc is visible: \
                 run the outer container with an unmasked /proc (Docker: --security-opt systempaths=unconfined, \
                 Kubernetes: procMount: Unmasked)",
            ),
            Self::Attach { target, .. } if errno == Errno::LOOP && target.links == Links::Refuse => {
                Some("the image has a symlink here, which could lead the mount astray; make it a directory")
            }
            Self::Attach { .. } if errno == Errno::LOOP => Some("the path runs through too many symlinks"),
            Self::Attach { .. } if errno == Errno::NOENT => Some("the mount point does not exist in the image"),
            Self::Attach { .. } if errno == Errno::NOTDIR => {
                Some("a directory is mounted on directories only, a file on files only")
            }
            Self::Attach { .. } if errno == Errno::XDEV => {
                Some("nothing can be mounted below /proc and /sys; the image may have a symlink that leads there")
            }
            Self::ChangeDirectory { .. } => match errno {
                Errno::NOENT => Some("no such directory in the image; WORKDIR makes it"),
                Errno::NOTDIR => Some("it is not a directory in the image"),
                Errno::LOOP => Some("links of /proc (such as /proc/self/fd) cannot be a working directory"),
                _ => None,
            },
            Self::SetLimit(..) if errno == Errno::PERM => {
                Some("no limit can be raised above the hard limit of whoever starts the build (`ulimit -H`)")
            }
            Self::SetGroups(_) if errno == Errno::PERM => Some(
                "this user namespace may not change groups; give the user subordinate ids in /etc/subuid and \
                 /etc/subgid and install newuidmap and newgidmap",
            ),
            Self::SetGroups(_) | Self::SetGroup(_) | Self::SetUser(_) if errno == Errno::INVAL => Some(
                "the id has no place in the user namespace; give the user a larger range in /etc/subuid, /etc/subgid",
            ),
            Self::EnterRoot if errno == Errno::XDEV => {
                Some("something is mounted over the root directory of this machine; the old root could not be detached")
            }
            Self::EnterRoot if errno == Errno::INVAL => {
                Some("the root of this machine is an initramfs, which pivot_root cannot leave")
            }
            _ => None,
        }
    }
}
