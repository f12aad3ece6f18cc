//! The build process' side of a launch: from `main` of a re-exec to the engine.
//!
//! Everything here runs in processes with one thread; the engine may start threads. Order matters throughout, see
//! [`super`] for the processes and [`super::handshake`] for the messages.

use std::ffi::CStr;
use std::io;
use std::os::fd::OwnedFd;
use std::panic::AssertUnwindSafe;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::pipe::PipeFlags;
use rustix::process::Pid;

use super::channel::{Channel, ChannelError};
use super::diagnosis::{Failure, Feature};
use super::engine::Engine;
use super::handshake::{FromChild, Namespaces, PROCESS_NAME, Purpose, SOCKET_ARGUMENT, ToChild, VERSION};
use super::observe::observe;
use super::{ProcView, SupplementaryGroups};
use crate::sys::process::{self, Dumpable, Ended, Forked, QueuedSignal, SignalQueue};
use crate::sys::{memory, namespace, socket};

/// The engine: serves one request and returns the exit code, 0 when it sent its reply. Runs in the build process.
pub type EngineMain = fn(Engine) -> i32;

/// What `ps` calls the intermediate and the engine, and pid 1 between them.
const NAME: &CStr = c"builder";
const FIRST_NAME: &CStr = c"builder-init";

/// Largest exit code of the engine; those above stand for signals on the way to the caller.
const MAX_EXIT_CODE: i32 = 127;
/// Exit code after a panic, as Rust's own.
const PANICKED: i32 = 101;
/// Exit code when the caller is gone or cannot be talked to; nobody is left to see it.
const CALLER_GONE: i32 = 120;
/// Exit code when the caller was told why.
const FAILED: i32 = 121;

static INIT_CALLED: AtomicBool = AtomicBool::new(false);

/// Becomes the build process if this process was started as one, and never returns then; else returns at once.
///
/// Call it first in `main`, before any thread: the kernel gives no user namespace to a process with threads. A process
/// is recognised by the name it was started under and by its standard input being a Unix socket; no environment
/// variable and no argument of a regular start can bring that about.
pub fn init_if_build_process(run_engine: EngineMain) {
    INIT_CALLED.store(true, Ordering::Relaxed);
    if is_build_process() {
        let code = serve(run_engine).unwrap_or(CALLER_GONE);
        process::exit_now(code);
    }
}

/// Makes what comes from here on with the caller's umask, and nothing that others may write: for outputs, when all is done
/// that needs exact modes.
pub(crate) fn take_umask(mask: u32) {
    process::set_umask(mask);
}

/// Whether this program, started again, would become a build process.
pub(super) fn is_init_called() -> bool {
    INIT_CALLED.load(Ordering::Relaxed)
}

fn is_build_process() -> bool {
    std::env::args_os().eq([PROCESS_NAME, SOCKET_ARGUMENT]) && socket::is_unix_stream(std::io::stdin())
}

/// The whole life of the process that the caller started. An error means that the caller cannot be told.
fn serve(run_engine: EngineMain) -> Result<i32, ChannelError> {
    let mut channel = take_socket().map_err(|source| ChannelError::Receive { source })?;
    if let Err(failure) = prepare() {
        channel.send(&FromChild::Failed(failure))?;
        return Ok(FAILED);
    }
    channel.send(&FromChild::Hello { version: VERSION.to_owned() })?;
    // This answer also proves that the caller lived after `prepare` had set the death signal.
    let Some(ToChild::Start { namespaces, purpose }) = channel.recv()? else { return Ok(CALLER_GONE) };
    let inside = Inside { channel, namespaces, purpose, run_engine };
    match namespaces {
        Namespaces::Stay => inside.run(ProcView::Callers, SupplementaryGroups::Fixed),
        Namespaces::Enter => enter(inside),
    }
}

/// Moves the socket off standard input, where programs that the engine starts would get it, and closes the rest.
fn take_socket() -> io::Result<Channel> {
    let socket: OwnedFd = rustix::io::fcntl_dupfd_cloexec(std::io::stdin(), 3)?;
    let null = std::fs::File::open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    drop(null);
    process::close_other_fds(std::os::fd::AsFd::as_fd(&socket))?;
    Ok(Channel::from_socket(socket))
}

/// Severs what a process inherits without wanting to.
fn prepare() -> Result<(), Failure> {
    let failed = |part: &str, error: &io::Error| Failure {
        detail: Some(part.to_owned()),
        ..Failure::of_call(Feature::Prepare, error)
    };
    process::die_with_parent().map_err(|error| failed("prctl PR_SET_PDEATHSIG", &error))?;
    memory::return_early();
    process::set_name(NAME).map_err(|error| failed("prctl PR_SET_NAME", &error))?;
    process::leave_session().map_err(|error| failed("setsid", &error))?;
    process::reset_signals().map_err(|error| failed("reset signals", &error))?;
    process::clear_environment().map_err(|error| failed("clear the environment", &error))?;
    process::clear_umask();
    process::raise_open_file_limit();
    Ok(())
}

/// Tries something, and names the feature if that fails.
fn at(feature: Feature, result: io::Result<()>) -> Result<(), Failure> {
    result.map_err(|error| Failure::of_call(feature, &error))
}

fn enter(mut inside: Inside) -> Result<i32, ChannelError> {
    if let Err(failure) = unshare_user() {
        return inside.fail(failure);
    }
    inside.channel.send(&FromChild::InUserNamespace)?;
    let Some(ToChild::Mapped) = inside.channel.recv()? else { return Ok(CALLER_GONE) };
    match become_root().and_then(|groups| unshare_mount_and_pid().map(|()| groups)) {
        Ok(groups) => supervise(inside, groups),
        Err(failure) => inside.fail(failure),
    }
}

fn unshare_user() -> Result<(), Failure> {
    at(Feature::UserNamespace, namespace::unshare_user())?;
    // The maps are written from outside, through files that belong to root unless this process is dumpable, which it
    // is not when its program cannot be read by the user.
    at(Feature::UserNamespace, process::set_dumpable(Dumpable::Yes))?;
    at(Feature::UserNamespace, process::die_with_parent())
}

fn become_root() -> Result<SupplementaryGroups, Failure> {
    let groups = match namespace::drop_groups() {
        Ok(()) => SupplementaryGroups::Settable,
        Err(error) if error.raw_os_error() == Some(libc::EPERM) => SupplementaryGroups::Fixed,
        Err(error) => return Err(Failure::of_call(Feature::BecomeRoot, &error)),
    };
    at(Feature::BecomeRoot, namespace::become_root())?;
    at(Feature::BecomeRoot, process::die_with_parent())?;
    // From here on for every process of the tree; forks inherit it.
    at(Feature::BecomeRoot, process::set_dumpable(Dumpable::No))?;
    Ok(groups)
}

fn unshare_mount_and_pid() -> Result<(), Failure> {
    at(Feature::MountNamespace, namespace::unshare_mount_and_pid())?;
    at(Feature::PrivateMounts, namespace::make_mounts_private())
}

/// The intermediate: starts pid 1, waits for it, and ends as it ended.
fn supervise(inside: Inside, groups: SupplementaryGroups) -> Result<i32, ChannelError> {
    let started = rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from).and_then(|pipe| {
        let signals = SignalQueue::of_children_and_termination()?;
        Ok((pipe, signals, process::fork()?))
    });
    match started {
        Err(error) => inside.fail(Failure::of_call(Feature::PidNamespace, &error)),
        Ok(((alive, parent_alive), _, Forked::Child)) => {
            drop(parent_alive);
            first_process(inside, groups, alive)
        }
        Ok((alive, signals, Forked::Parent(first))) => {
            // So that the caller sees the end of the connection when the engine is gone.
            drop(inside);
            memory::release();
            let ended = wait_or_kill(first, &signals);
            drop(alive);
            match ended {
                Ok(Ended::Exited(code)) if code <= MAX_EXIT_CODE => Ok(code),
                Ok(Ended::Exited(code)) => process::exit_by_signal(code - MAX_EXIT_CODE - 1),
                Ok(Ended::Signaled(signal)) => process::exit_by_signal(signal),
                Err(_) => Ok(FAILED),
            }
        }
    }
}

fn wait_or_kill(first: Pid, signals: &SignalQueue) -> io::Result<Ended> {
    loop {
        match signals.next()? {
            QueuedSignal::Terminate => process::kill(first)?,
            QueuedSignal::ChildEnded => {
                if let Some(ended) = process::try_wait_for(first)? {
                    return Ok(ended);
                }
            }
        }
    }
}

/// Pid 1: starts the engine's process and reaps everything until that ends.
fn first_process(inside: Inside, groups: SupplementaryGroups, parent_alive: OwnedFd) -> Result<i32, ChannelError> {
    let started = process::die_with_parent().and_then(|()| {
        // Asking for the parent's pid tells nothing in a new pid namespace: it is 0 either way.
        let is_parent_gone = socket::is_readable_within(&parent_alive, 0)?;
        drop(parent_alive);
        process::reset_signals()?;
        if is_parent_gone { Ok(None) } else { process::fork().map(Some) }
    });
    match started {
        Err(error) => inside.fail(Failure::of_call(Feature::PidNamespace, &error)),
        Ok(None) => Ok(CALLER_GONE),
        Ok(Some(Forked::Child)) => engine_process(inside, groups),
        Ok(Some(Forked::Parent(engine))) => {
            drop(inside);
            // Only a name: nothing is lost with it.
            process::set_name(FIRST_NAME).ok();
            memory::release();
            Ok(match reap_until(engine) {
                Ok(Ended::Exited(code)) => code.min(MAX_EXIT_CODE),
                Ok(Ended::Signaled(signal)) => MAX_EXIT_CODE + 1 + signal,
                Err(_) => FAILED,
            })
        }
    }
}

fn reap_until(engine: Pid) -> io::Result<Ended> {
    loop {
        match process::wait_for_any()? {
            (pid, ended) if pid == engine => return Ok(ended),
            _orphan => {}
        }
    }
}

fn engine_process(inside: Inside, groups: SupplementaryGroups) -> Result<i32, ChannelError> {
    let proc = match namespace::mount_proc() {
        Ok(()) => ProcView::Own,
        Err(error) => ProcView::Refused(error.raw_os_error().unwrap_or(libc::EIO)),
    };
    inside.run(proc, groups)
}

/// What every process on the way to the engine carries.
struct Inside {
    channel: Channel,
    namespaces: Namespaces,
    purpose: Purpose,
    run_engine: EngineMain,
}

impl Inside {
    fn fail(self, failure: Failure) -> Result<i32, ChannelError> {
        self.channel.send(&FromChild::Failed(failure))?;
        Ok(FAILED)
    }

    fn run(mut self, proc: ProcView, groups: SupplementaryGroups) -> Result<i32, ChannelError> {
        // Steps and the user's other programs shall see neither the memory, with credentials in it, nor the program
        // file, which they could otherwise overwrite through /proc. Forked steps keep this until they exec.
        if let Err(error) = process::set_dumpable(Dumpable::No) {
            return self.fail(Failure::of_call(Feature::Prepare, &error));
        }
        self.channel.send(&FromChild::Ready { proc, groups })?;
        match self.purpose {
            Purpose::Probe { state_dir } => {
                self.channel.send(&FromChild::Probed(observe(&state_dir, self.namespaces)))?;
                Ok(0)
            }
            Purpose::Engine => {
                let Some(ToChild::Begin(environment)) = self.channel.recv()? else { return Ok(CALLER_GONE) };
                let engine = Engine::new(self.channel, *environment);
                // Unwinding further would run the caller's `main` in this process. The message is on standard error.
                let ended = std::panic::catch_unwind(AssertUnwindSafe(|| (self.run_engine)(engine)));
                Ok(ended.map_or(PANICKED, |code| code.clamp(0, MAX_EXIT_CODE)))
            }
        }
    }
}
