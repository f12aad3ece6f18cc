//! What the process that becomes the command does to itself, and what it executes.

use std::ffi::CString;

use rustix::fs::{Gid, Uid};
use rustix::thread::{CapabilitySet, CapabilitySets};

use super::super::error::Error;
use super::super::program::{Handle, Operation};
use super::super::seccomp;
use super::super::spec::{Security, Spec};
use super::{c_string, failed, image_path};

/// Docker's default capabilities.
const DEFAULT_CAPABILITIES: CapabilitySet = CapabilitySet::CHOWN
    .union(CapabilitySet::DAC_OVERRIDE)
    .union(CapabilitySet::FOWNER)
    .union(CapabilitySet::FSETID)
    .union(CapabilitySet::KILL)
    .union(CapabilitySet::SETGID)
    .union(CapabilitySet::SETUID)
    .union(CapabilitySet::SETPCAP)
    .union(CapabilitySet::NET_BIND_SERVICE)
    .union(CapabilitySet::NET_RAW)
    .union(CapabilitySet::SYS_CHROOT)
    .union(CapabilitySet::MKNOD)
    .union(CapabilitySet::AUDIT_WRITE)
    .union(CapabilitySet::SETFCAP);

/// The order matters: what needs a capability comes before it is given up, and the filter before the user changes, as
/// installing it needs `CAP_SYS_ADMIN`. The filter allows all that follows it.
pub(super) fn operations(spec: &Spec, stdout: Handle, stderr: Handle) -> Result<Vec<Operation>, Error> {
    let (uid, gid) = (Uid::from_raw(spec.uid), Gid::from_raw(spec.gid));
    let owner = ((spec.uid, spec.gid) != (0, 0)).then_some((uid, gid));
    let groups = spec.groups.iter().map(|group| Gid::from_raw(*group)).collect();
    let held = rustix::thread::capabilities(None).map_err(failed("read capabilities"))?.permitted;
    let kept = match spec.security {
        Security::Sandbox => held.intersection(DEFAULT_CAPABILITIES),
        Security::Insecure => held.difference(CapabilitySet::SYS_PTRACE),
    };
    let sets = CapabilitySets { effective: kept, permitted: kept, inheritable: CapabilitySet::empty() };
    let limits = spec.limits.iter().map(|(resource, limit)| Operation::SetLimit(*resource, *limit));
    let mut operations = vec![
        Operation::NewSession,
        Operation::SetStdio { stdout, stderr, owner },
        Operation::ChangeDirectory { path: image_path(&spec.cwd)? },
        Operation::CloseOnExec,
        Operation::SetGroups(groups),
        Operation::SetGroup(gid),
        Operation::LimitCapabilities(kept.bits()),
    ];
    operations.extend(limits);
    match spec.security {
        Security::Sandbox => {
            operations.push(Operation::InstallFilter(seccomp::default_filter().ok_or(Error::NoProfile)?));
        }
        // The filter forbids keyctl; without it, the caller's keys would be in reach.
        Security::Insecure => operations.push(Operation::LeaveKeyring),
    }
    operations.push(Operation::SetCapabilities(sets));
    operations.push(Operation::SetUser(uid));
    Ok(operations)
}

/// `NAME=value` of each variable.
pub(super) fn environment(spec: &Spec) -> Result<Vec<CString>, Error> {
    let joined = |(name, value): &(Vec<u8>, Vec<u8>)| {
        let mut variable = name.clone();
        variable.push(b'=');
        variable.extend_from_slice(value);
        c_string(&variable, "a variable of the environment")
    };
    spec.env.iter().map(joined).collect()
}

/// Where programs are looked for when the environment has no `PATH`.
const DEFAULT_PATH: &[u8] = b"/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// Paths to try for `argv[0]`, in order.
pub(super) fn candidates(spec: &Spec) -> Result<Vec<CString>, Error> {
    let program = spec.argv.first().filter(|program| !program.is_empty()).ok_or(Error::EmptyCommand)?;
    if program.contains(&b'/') {
        return Ok(vec![c_string(program, "the program's name")?]);
    }
    // The last of a name counts, as in the shell that would read it.
    let path = spec.env.iter().rev().find(|(name, _)| name == b"PATH").map_or(DEFAULT_PATH, |(_, value)| value);
    let candidate = |directory: &[u8]| {
        let mut candidate = if directory.is_empty() { b".".to_vec() } else { directory.to_vec() };
        candidate.push(b'/');
        candidate.extend_from_slice(program);
        c_string(&candidate, "the program's name")
    };
    path.split(|byte| *byte == b':').map(candidate).collect()
}
