//! Runs one command in new mount, pid, ipc, uts, cgroup and (on request) network namespaces over an overlay of image layers.
//!
//! What is to run comes as data, a [`Spec`]; what it writes goes to a callback; when [`run`] returns, no process of the
//! step is left, so the upperdir lies still. Its overlay is unmounted, or will be as soon as steps that are being started have
//! closed their copies of our descriptors. The module knows no Dockerfile, no layer and no
//! cache, and it changes nothing but the upperdir.
//!
//! ```text
//! build process (threads)                   pid 1 of the step                        pid 2
//!   prepare: detached mounts, pipes
//!   clone ────────────────────────────────▶ attach mounts, pivot_root
//!   read output, poll pidfd                 clone ─────────────────────────────────▶ ids, seccomp, exec
//!                                           exec a program that reaps (`sys::reaper`);
//!                                           when pid 2 ends: kill the rest,
//!   wait, parse report ◀── report pipe ──── wait until nobody is left, report, end
//! ```
//!
//! Invariants: between clone and exec nothing allocates (`child`, which shares the build process's memory); no path of the image is resolved other than by the
//! kernel below the overlay's root; the command starts with descriptors 0 to 2, default signals, umask 022, an exact
//! environment and exact groups.
//!
//! Every mount is private to the step. `/proc` is fresh; `/sys` is the host's, read-only, or fresh where the network is; `/dev`
//! holds the usual nodes. Capabilities, seccomp profile, masked and read-only paths are Docker's defaults.
//! The sandbox needs Linux 5.12 (`mount_setattr`); see `sys::mount` for the overlay.

mod child;
mod error;
mod exec_failure;
mod kill;
mod prepare;
mod program;
mod report;
mod seccomp;
mod spec;
mod supervise;
#[cfg(test)]
mod tests;

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

pub(crate) use error::Error;
pub(crate) use exec_failure::{ExecFailure, is_static_elf};
pub(crate) use kill::KillSwitch;
pub(crate) use spec::{Content, Mount, Network, Rootfs, Security, Spec};

use crate::event::OutputStream;
use crate::sys::clone;
use program::Program;
use report::Message;
use supervise::Pipes;

/// Paths that every step mounts on, and whether each is a directory. They must exist in the overlay; where the image has
/// none, a lowerdir of their own supplies them (`snapshot`). Files may be reached by symlinks.
pub(crate) const STANDARD_TARGETS: [(&[u8], bool); 5] =
    [(b"dev", true), (b"proc", true), (b"sys", true), (b"etc/hosts", false), (b"etc/resolv.conf", false)];

/// How a command ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Exit {
    /// By itself, with this code.
    Code(i32),
    /// By this signal.
    Signal(i32),
}

/// Runs a command to its end and passes on what it writes, in pieces as they come. Blocks the calling thread, which may
/// be any thread of a process that has `CAP_SYS_ADMIN` in its user and mount namespace.
pub(crate) fn run(
    spec: &Spec,
    kill_switch: &KillSwitch,
    output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<Exit, Error> {
    let supervise_failed = |operation| move |source| Error::Supervise { operation, source };
    let (pipes, child_pipes) = Pipes::create().map_err(supervise_failed("make the pipes"))?;
    let program = prepare::prepare(spec, child_pipes.stdout, child_pipes.stderr)?;
    run_program(spec, &program, (pipes, &child_pipes.report), kill_switch, output)
}

fn run_program(
    spec: &Spec,
    program: &Program,
    (pipes, report): (Pipes, &OwnedFd),
    kill_switch: &KillSwitch,
    output: &mut dyn FnMut(OutputStream, &[u8]),
) -> Result<Exit, Error> {
    let supervise_failed = |operation| move |source| Error::Supervise { operation, source };
    let mut namespaces = clone::STEP_NAMESPACES;
    if spec.network == Network::None {
        namespaces |= clone::NETWORK_NAMESPACE;
    }
    if kill_switch.is_thrown() {
        return Err(Error::Cancelled);
    }
    // The child shares this memory, so whoever could trace it could read the build's secrets.
    clone::hide_memory().map_err(supervise_failed("hide the memory"))?;
    let child = || child::run(program, report.as_fd());
    let messages = clone::scoped(namespaces, &child, |pidfd| {
        let _armed = kill_switch.arm(Arc::clone(pidfd));
        pipes.supervise(pidfd, output)
    });
    let messages = messages.map_err(|source| Error::Clone { source })??;
    outcome(spec, program, kill_switch, &report::parse(&messages))
}

fn outcome(spec: &Spec, program: &Program, kill_switch: &KillSwitch, messages: &[Message]) -> Result<Exit, Error> {
    match messages.first() {
        Some(Message::Failed { operation, errno }) => Err(Error::Setup {
            operation: program.describe(*operation),
            hint: program.hint(*operation, *errno),
            source: *errno,
        }),
        Some(Message::ExecFailed { candidate: _, errno, head }) => {
            let name = spec.argv.first().map(Vec::as_slice).unwrap_or_default();
            let failure = ExecFailure::new(*errno, name, head);
            Err(Error::Execute { program: String::from_utf8_lossy(name).into_owned(), failure, source: *errno })
        }
        Some(Message::Exited { wait_status }) => Ok(exit(*wait_status)),
        None if kill_switch.is_thrown() => Err(Error::Cancelled),
        None => Err(Error::Lost),
    }
}

/// `WIFEXITED` and its kin, as `wait(2)` describes: the low seven bits are the signal, the next byte the code.
fn exit(wait_status: i32) -> Exit {
    match wait_status & 0x7f {
        0 => Exit::Code((wait_status >> 8) & 0xff),
        signal => Exit::Signal(signal),
    }
}
