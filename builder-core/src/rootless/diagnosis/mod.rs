//! Why commands cannot be isolated here, and the smallest change that helps.
//!
//! Pure: the facts and the failure go in, a diagnosis comes out. The kernel says little more than `EPERM`, so the cause
//! is inferred: the feature that was refused narrows it, the facts decide. Where they do not, the diagnosis says so instead
//! of guessing. One function per kind of feature picks the cause here; [`words`] gives each cause its text.

use std::fmt;
use std::io;

use serde::{Deserialize, Serialize};

use super::facts::{HelperPrivilege, HostFacts};

#[cfg(test)]
mod tests;
mod words;

/// Something that the host must allow, in the order in which a launch needs it; those from `MountTmpfs` on are needed
/// by steps, and only a probe tries them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Feature {
    /// Prepare the process: session, signals, limits.
    Prepare,
    /// Make a user namespace.
    UserNamespace,
    /// Write its map of users.
    UidMap,
    /// Write its map of groups.
    GidMap,
    /// Become root in it.
    BecomeRoot,
    /// Make a mount and a pid namespace.
    MountNamespace,
    /// Cut the mounts' ties with the host.
    PrivateMounts,
    /// Start the processes of the new pid namespace.
    PidNamespace,
    /// Mount a `/proc` of the pid namespace.
    MountProc,
    /// Mount a tmpfs.
    MountTmpfs,
    /// Mount an overlay whose upper directory is in the state directory.
    MountOverlay,
    /// Resolve paths below a directory in the kernel (`openat2`).
    Openat2,
    /// Mount by file descriptor (`open_tree`, `fsopen`, `fsmount`).
    MountByDescriptor,
}

impl Feature {
    /// What works once this works, for a table.
    pub(crate) fn unlocks(self) -> &'static str {
        match self {
            Self::Prepare => "everything",
            Self::UserNamespace
            | Self::BecomeRoot
            | Self::MountNamespace
            | Self::PrivateMounts
            | Self::PidNamespace => "RUN",
            Self::UidMap | Self::GidMap => "RUN with more than one user (apt, chown, su)",
            Self::MountProc => "a /proc for RUN that shows its own processes alone",
            Self::MountTmpfs => "RUN --mount=type=tmpfs, secrets in memory",
            Self::MountOverlay => "RUN whose cost is what it changes",
            Self::Openat2 => "safe path resolution in one system call",
            Self::MountByDescriptor => "mounts that no symlink can redirect",
        }
    }

    fn doing(self) -> &'static str {
        match self {
            Self::Prepare => "prepare the build process",
            Self::UserNamespace => "make a user namespace",
            Self::UidMap => "write the user namespace's map of users",
            Self::GidMap => "write the user namespace's map of groups",
            Self::BecomeRoot => "become root in the user namespace",
            Self::MountNamespace => "make a mount and a pid namespace",
            Self::PrivateMounts => "make the mounts private",
            Self::PidNamespace => "start the processes of the pid namespace",
            Self::MountProc => "mount /proc",
            Self::MountTmpfs => "mount a tmpfs",
            Self::MountOverlay => "mount an overlay",
            Self::Openat2 => "call openat2",
            Self::MountByDescriptor => "mount by file descriptor",
        }
    }
}

impl fmt::Display for Feature {
    /// The stable name, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// A feature that the host did not give.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Failure {
    /// Which.
    pub(crate) feature: Feature,
    /// The kernel's answer, where it came from the kernel.
    pub(crate) errno: Option<i32>,
    /// What a helper program said, or at which part it failed.
    pub(crate) detail: Option<String>,
}

impl Failure {
    /// A failed system call.
    pub(crate) fn of_call(feature: Feature, error: &io::Error) -> Self {
        match error.raw_os_error() {
            Some(errno) => Self { feature, errno: Some(errno), detail: None },
            None => Self { feature, errno: None, detail: Some(error.to_string()) },
        }
    }

    /// Something that was not even tried, because the facts say that it cannot work.
    pub(crate) fn foreseen(feature: Feature) -> Self {
        Self { feature, errno: None, detail: None }
    }

    fn is(&self, errnos: &[i32]) -> bool {
        self.errno.is_some_and(|errno| errnos.contains(&errno))
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.feature.doing())?;
        if let Some(errno) = self.errno {
            write!(f, ": {}", nix::errno::Errno::from_raw(errno))?;
        }
        self.detail.iter().try_for_each(|detail| write!(f, ": {detail}"))
    }
}

/// What stands in the way; the names are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum Cause {
    /// The kernel was built without user namespaces.
    KernelWithoutUserNamespaces,
    /// `user.max_user_namespaces` is 0.
    UserNamespacesForbidden,
    /// Too many namespaces of a kind, or too deep.
    NamespaceLimit,
    /// `kernel.unprivileged_userns_clone` is 0.
    UserNamespacesOnlyForRoot,
    /// `kernel.apparmor_restrict_unprivileged_userns` is 1.
    ApparmorRestriction,
    /// The process' AppArmor profile, usually a container's.
    ApparmorProfile,
    /// The process' seccomp filter, usually a container's or a service's.
    SeccompFilter,
    /// The process runs in a chroot.
    Chroot,
    /// The process' own user or group has no id in its namespace.
    OwnIdUnmapped,
    /// `init` was called with threads running.
    ThreadsBeforeInit,
    /// The user has no ranges in `/etc/subuid` or `/etc/subgid`.
    NoSubordinateIds,
    /// The user has ranges that this namespace has no ids for.
    SubordinateIdsUnmapped,
    /// The ranges are not in the files but in a directory service.
    SubordinateIdsElsewhere,
    /// Root has one id alone.
    SingleId,
    /// `newuidmap` or `newgidmap` is not there.
    IdMapHelperMissing,
    /// `newuidmap` or `newgidmap` has no rights of its own.
    IdMapHelperUnprivileged,
    /// `newuidmap` or `newgidmap` is on a file system mounted `nosuid`.
    IdMapHelperNosuid,
    /// Set-user-id programs do not work in this process.
    NoNewPrivileges,
    /// The helper refused the map.
    IdMapRefused,
    /// Root without `CAP_SETUID` and `CAP_SETGID`.
    SetuidMissing,
    /// Root without `CAP_SETFCAP`.
    SetfcapMissing,
    /// Parts of `/proc` are covered.
    ProcCovered,
    /// The kernel has no overlay file system, or may not load it.
    OverlayMissing,
    /// The state directory's file system cannot hold an upper directory.
    OverlayUnfitDirectory,
    /// The kernel is older than the call.
    KernelTooOld,
    /// The caller wanted no namespaces.
    NotAsked,
    /// None of the known causes.
    Unknown,
}

impl fmt::Display for Cause {
    /// The stable name, as in JSON.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// What is wrong and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Diagnosis {
    /// The cause, for machines.
    pub cause: Cause,
    /// One line: what could not be done and why.
    pub problem: String,
    /// Changes of which any one helps, the smallest first; commands can be pasted.
    pub remedies: Vec<String>,
}

impl fmt::Display for Diagnosis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.problem)
    }
}

impl Diagnosis {
    /// Nothing is wrong: the caller asked for a process that runs no commands.
    pub(crate) fn not_asked(facts: &HostFacts) -> Self {
        let cause = Cause::NotAsked;
        let problem = format!("cannot run commands: {}", words::because(cause, facts));
        Self { cause, problem, remedies: words::remedies(cause, facts) }
    }

    /// Finds the cause of `failure`.
    pub(crate) fn find(facts: &HostFacts, failure: &Failure) -> Self {
        let cause = cause(facts, failure);
        let problem = format!("cannot {failure}: {}", words::because(cause, facts));
        Self { cause, problem, remedies: words::remedies(cause, facts) }
    }
}

/// What `EPERM` may look like: LSMs like to answer `EACCES`, some seccomp profiles `ENOSYS`.
const REFUSALS: [i32; 3] = [libc::EPERM, libc::EACCES, libc::ENOSYS];
const LIMITS: [i32; 2] = [libc::ENOSPC, libc::EUSERS];

fn cause(facts: &HostFacts, failure: &Failure) -> Cause {
    match failure.feature {
        Feature::UserNamespace => user_namespace_cause(facts, failure),
        Feature::UidMap | Feature::GidMap => missing_for_id_map(facts).unwrap_or_else(|| id_map_cause(facts, failure)),
        Feature::MountProc if failure.is(&REFUSALS) && !facts.proc_overmounts.is_empty() => Cause::ProcCovered,
        Feature::MountOverlay => overlay_cause(facts, failure),
        Feature::Openat2 if !is_kernel_at_least(facts, 5, 6) => Cause::KernelTooOld,
        Feature::MountByDescriptor if !is_kernel_at_least(facts, 5, 2) => Cause::KernelTooOld,
        Feature::Prepare => Cause::Unknown,
        _ => confinement_cause(facts, failure),
    }
}

fn user_namespace_cause(facts: &HostFacts, failure: &Failure) -> Cause {
    let has_own_ids = facts.uid_map.outside_of(facts.uid).is_some() && facts.gid_map.outside_of(facts.gid).is_some();
    if !facts.has_user_namespaces {
        Cause::KernelWithoutUserNamespaces
    } else if failure.is(&[libc::EINVAL]) {
        Cause::ThreadsBeforeInit
    } else if facts.max_user_namespaces == Some(0) {
        Cause::UserNamespacesForbidden
    } else if failure.is(&LIMITS) {
        Cause::NamespaceLimit
    } else if !failure.is(&REFUSALS) {
        Cause::Unknown
    } else if facts.unprivileged_userns_clone == Some(0) && facts.uid != 0 {
        Cause::UserNamespacesOnlyForRoot
    } else if facts.chrooted {
        Cause::Chroot
    } else if !has_own_ids {
        Cause::OwnIdUnmapped
    } else if facts.seccomp_filter {
        // Ubuntu's AppArmor lets unshare pass and withholds what comes after, so a filter is the likelier cause here.
        Cause::SeccompFilter
    } else {
        confinement_cause(facts, failure)
    }
}

/// What an id map cannot be written without, whatever the kernel says; `None` when all of it is there.
pub(crate) fn missing_for_id_map(facts: &HostFacts) -> Option<Cause> {
    let has_range = facts.planned_uid_map().id_count() > 1 && facts.planned_gid_map().id_count() > 1;
    if facts.can_map_ids_alone() {
        return (!has_range).then_some(Cause::SingleId);
    }
    let helpers = [&facts.newuidmap, &facts.newgidmap];
    let any_has = |privilege| helpers.iter().any(|helper| helper.privilege == privilege);
    if facts.subuids.is_empty() || facts.subgids.is_empty() {
        if facts.uid == 0 {
            return Some(Cause::SetuidMissing);
        }
        Some(if facts.subid_source.is_some() { Cause::SubordinateIdsElsewhere } else { Cause::NoSubordinateIds })
    } else if !has_range {
        Some(Cause::SubordinateIdsUnmapped)
    } else if helpers.iter().any(|helper| helper.path.is_none()) {
        Some(Cause::IdMapHelperMissing)
    } else if facts.no_new_privileges {
        Some(Cause::NoNewPrivileges)
    } else if any_has(HelperPrivilege::None) {
        Some(Cause::IdMapHelperUnprivileged)
    } else if any_has(HelperPrivilege::IgnoredByNosuid) {
        Some(Cause::IdMapHelperNosuid)
    } else {
        None
    }
}

fn id_map_cause(facts: &HostFacts, failure: &Failure) -> Cause {
    if !facts.can_map_ids_alone() {
        Cause::IdMapRefused
    } else if failure.is(&[libc::EPERM]) && !facts.has_setfcap() {
        Cause::SetfcapMissing
    } else {
        confinement_cause(facts, failure)
    }
}

fn overlay_cause(facts: &HostFacts, failure: &Failure) -> Cause {
    if failure.is(&[libc::ENODEV]) {
        Cause::OverlayMissing
    } else if !is_kernel_at_least(facts, 5, 11) {
        Cause::KernelTooOld
    } else if failure.is(&[libc::EINVAL, libc::EOPNOTSUPP]) {
        Cause::OverlayUnfitDirectory
    } else {
        confinement_cause(facts, failure)
    }
}

/// A right that the namespace's root has by the kernel's own rules was refused: someone confines this process.
fn confinement_cause(facts: &HostFacts, failure: &Failure) -> Cause {
    let is_confined = facts.apparmor_profile.as_deref().is_some_and(|profile| !profile.starts_with("unconfined"));
    if failure.is(&LIMITS) {
        Cause::NamespaceLimit
    } else if !failure.is(&REFUSALS) {
        Cause::Unknown
    } else if is_confined {
        Cause::ApparmorProfile
    } else if facts.apparmor_restricts_userns == Some(1) && facts.uid != 0 {
        Cause::ApparmorRestriction
    } else if facts.seccomp_filter {
        Cause::SeccompFilter
    } else {
        Cause::Unknown
    }
}

fn is_kernel_at_least(facts: &HostFacts, major: u32, minor: u32) -> bool {
    let mut numbers = facts.kernel.split(|c: char| !c.is_ascii_digit()).map(|digits| digits.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0)) >= (major, minor)
}
