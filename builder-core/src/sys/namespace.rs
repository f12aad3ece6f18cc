//! Namespaces of this process: user, mount, pid, and what becoming root in a new user namespace takes.
//!
//! Mounts of a step, seccomp and capabilities are elsewhere; this is what the build process needs before it has an
//! engine. Rules from `user_namespaces(7)`, `mount_namespaces(7)` and `pid_namespaces(7)`.

use std::io;

use nix::sched::CloneFlags;
use nix::unistd::{Gid, Uid};
use rustix::mount::{MountFlags, MountPropagationFlags};

/// Moves this process into a new user namespace without id maps. The kernel refuses it with `EINVAL` when there are
/// several threads.
///
/// # Errors
/// `EPERM` by policy (sysctl, LSM, seccomp, chroot), `ENOSPC` past a limit, `EINVAL` with threads or without kernel
/// support.
pub(crate) fn unshare_user() -> io::Result<()> {
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWUSER)?)
}

/// Moves this process into a new mount namespace, and its next child into a new pid namespace as pid 1.
///
/// # Errors
/// `EPERM` without `CAP_SYS_ADMIN` in the user namespace, `ENOSPC` past a limit.
pub(crate) fn unshare_mount_and_pid() -> io::Result<()> {
    Ok(nix::sched::unshare(CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWPID)?)
}

/// Cuts the ties of every mount of this mount namespace with those of others.
///
/// # Errors
/// `EPERM` or `EACCES` when mounting is forbidden (LSM, seccomp).
pub(crate) fn make_mounts_private() -> io::Result<()> {
    Ok(rustix::mount::mount_change("/", MountPropagationFlags::PRIVATE | MountPropagationFlags::REC)?)
}

/// Mounts a `proc` that shows the pid namespace of this process over `/proc`.
///
/// # Errors
/// `EPERM` when the `/proc` of this namespace is partly covered, as in most containers: the kernel then gives no view
/// that would show more.
pub(crate) fn mount_proc() -> io::Result<()> {
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    Ok(rustix::mount::mount("proc", "/proc", "proc", flags, None)?)
}

/// Drops the supplementary groups.
///
/// # Errors
/// `EPERM` where the namespace says `setgroups` = `deny`.
pub(crate) fn drop_groups() -> io::Result<()> {
    Ok(nix::unistd::setgroups(&[])?)
}

/// Becomes user 0 and group 0 of the user namespace, in every sense (real, effective, saved).
///
/// # Errors
/// `EINVAL` when 0 is not mapped, `EPERM` when an LSM withholds the capabilities.
pub(crate) fn become_root() -> io::Result<()> {
    let (gid, uid) = (Gid::from_raw(0), Uid::from_raw(0));
    // The group first: after the user id changed, the right to change the group may be gone.
    nix::unistd::setresgid(gid, gid, gid)?;
    Ok(nix::unistd::setresuid(uid, uid, uid)?)
}
