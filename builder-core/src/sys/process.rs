//! What a process can do to itself and to its children: fork, wait, exit, signals, limits, environment, open files.
//!
//! Nothing here knows why; `rootless` decides the order. Functions that change the whole process say so, and those
//! that are sound in a process with a single thread only check that or name the caller who upholds it.
//!
//! Not here, because `rustix` has them as safe functions that need no wrapper: `pidfd_open`, `pidfd_send_signal`,
//! `getpid`. Process creation with namespaces (`clone3`) belongs to whoever needs it: after `fork` in a process with
//! one thread any code may run, after `clone` in a process with several only what is async-signal-safe.
#![allow(unsafe_code, reason = "fork, _exit, clearenv and signal dispositions have no safe interface")]

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsRawFd as _, BorrowedFd, RawFd};

use nix::sys::signal::{SigSet, Signal};
use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Resource, Rlimit, WaitId, WaitIdOptions, WaitOptions, WaitStatus};

/// How a process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ended {
    /// It left with this exit code, 0–255.
    Exited(i32),
    /// A signal of this number killed it.
    Signaled(i32),
}

impl Ended {
    fn from_status(status: WaitStatus) -> Self {
        match status.terminating_signal() {
            Some(signal) => Self::Signaled(signal),
            None => Self::Exited(status.exit_status().unwrap_or_default()),
        }
    }
}

/// Which of the two processes a call of [`fork`] returned in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Forked {
    /// The caller, with the new process' id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// Copies this process, which must have one thread.
///
/// # Errors
/// `EINVAL` when there are several threads; whatever `fork` gives.
pub(crate) fn fork() -> io::Result<Forked> {
    if thread_count()? != 1 {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: the check above: no other thread exists that could hold a lock the child would wait for in vain, and
    // this thread, being here, holds none of the allocator's. So the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        child => Ok(Pid::from_raw(child).map_or(Forked::Child, Forked::Parent)),
    }
}

/// Number of threads of this process.
///
/// # Errors
/// When `/proc` cannot be read.
pub(crate) fn thread_count() -> io::Result<usize> {
    Ok(std::fs::read_dir("/proc/self/task")?.count())
}

/// Ends this process at once: no destructors, no `atexit`, no flushing, other threads where they stand. The one way
/// to end a process that is pid 1 of its namespace from any thread (signals it sends to itself are ignored).
pub(crate) fn exit_now(code: i32) -> ! {
    // SAFETY: `_exit` has no precondition and does not return.
    unsafe { libc::_exit(code) }
}

/// Ends this process by the signal that ended another one, so that its own parent sees the true cause. Ends with
/// 128 + the number where that cannot be: as pid 1, and for signals that do not kill.
pub(crate) fn exit_by_signal(number: i32) -> ! {
    let raised = Signal::try_from(number).and_then(|signal| {
        set_default_disposition(number);
        SigSet::empty().thread_set_mask()?;
        nix::sys::signal::raise(signal)
    });
    match raised {
        // A deadly signal does not let `raise` return, so both mean the same.
        Ok(()) | Err(_) => exit_now(128_i32.saturating_add(number)),
    }
}

/// Waits for child `pid` and reaps it.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn wait_for(pid: Pid) -> io::Result<Ended> {
    loop {
        if let Some((_, status)) =
            rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::empty()))?
        {
            return Ok(Ended::from_status(status));
        }
    }
}

/// Reaps child `pid` if it is over, without waiting.
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn try_wait_for(pid: Pid) -> io::Result<Option<Ended>> {
    let reaped = rustix::io::retry_on_intr(|| rustix::process::waitpid(Some(pid), WaitOptions::NOHANG))?;
    Ok(reaped.map(|(_, status)| Ended::from_status(status)))
}

/// Waits for any child and reaps it. Only for a process whose sole business is to reap: it takes every child's end,
/// also of those that other code waits for.
///
/// # Errors
/// `ECHILD` when there are no children.
pub(crate) fn wait_for_any() -> io::Result<(Pid, Ended)> {
    loop {
        if let Some((pid, status)) = rustix::io::retry_on_intr(|| rustix::process::wait(WaitOptions::empty()))? {
            return Ok((pid, Ended::from_status(status)));
        }
    }
}

/// Waits until child `pid` is over and leaves it unreaped, so that its id stays taken until [`wait_for`].
///
/// # Errors
/// `ECHILD` when there is no such child.
pub(crate) fn wait_without_reaping(pid: Pid) -> io::Result<()> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
    rustix::io::retry_on_intr(|| rustix::process::waitid(WaitId::Pid(pid), options))?;
    Ok(())
}

/// Sends SIGKILL. `pid` must be a child that is not reaped yet, or the id may be someone else's by now.
///
/// # Errors
/// `EPERM` when the child is of another user.
pub(crate) fn kill(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::KILL)?)
}

/// Sends SIGKILL to a process and, if it leads a group by now, to its whole group, under the condition of [`kill`].
///
/// # Errors
/// `EPERM` when the child is of another user.
pub(crate) fn kill_with_group(pid: Pid) -> io::Result<()> {
    match rustix::process::kill_process_group(pid, rustix::process::Signal::KILL) {
        Ok(()) => Ok(()),
        // There is no such group: the child has not made its own yet.
        Err(_) => kill(pid),
    }
}

/// Sends SIGTERM, under the condition of [`kill`].
///
/// # Errors
/// `EPERM` when the child is of another user.
pub(crate) fn terminate(pid: Pid) -> io::Result<()> {
    Ok(rustix::process::kill_process(pid, rustix::process::Signal::TERM)?)
}

/// Lets the kernel kill this process when the thread that forked it ends. The kernel forgets this at `fork` and at
/// every change of credentials (`prctl(2)`, PR_SET_PDEATHSIG): say it again after each.
///
/// # Errors
/// Never on a kernel that has `prctl`.
pub(crate) fn die_with_parent() -> io::Result<()> {
    Ok(rustix::process::set_parent_process_death_signal(Some(rustix::process::Signal::KILL))?)
}

/// Sets the name that `ps` shows of this thread, at most 15 bytes. Threads and forks take it over; `exec` sets it to the
/// name of the file, which for a program without one is the number of a descriptor.
///
/// # Errors
/// Never on a kernel that has `prctl`.
pub(crate) fn set_name(name: &CStr) -> io::Result<()> {
    Ok(rustix::thread::set_name(name)?)
}

/// Whether other processes of the same user may look into this one (ptrace, `/proc/PID/{mem,environ,fd,exe}`), and
/// whether it may leave a core file.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Dumpable {
    /// They may; also makes `/proc/PID/uid_map` belong to this process' user.
    Yes,
    /// They may not.
    No,
}

/// Sets whether this process is open to inspection. `fork` hands it on, `exec` sets it anew.
///
/// # Errors
/// Never on a kernel that has `prctl`.
pub(crate) fn set_dumpable(dumpable: Dumpable) -> io::Result<()> {
    let behaviour = match dumpable {
        Dumpable::Yes => DumpableBehavior::Dumpable,
        Dumpable::No => DumpableBehavior::NotDumpable,
    };
    Ok(rustix::process::set_dumpable_behavior(behaviour)?)
}

/// Leaves the session of the caller: no controlling terminal, and signals for the terminal's foreground processes
/// (Ctrl-C, hang-up) do not come here. A process that leads its group already is left as it is.
///
/// # Errors
/// Anything but `EPERM`, which says that this process leads a group.
pub(crate) fn leave_session() -> io::Result<()> {
    match rustix::process::setsid() {
        Ok(_) | Err(Errno::PERM) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

/// Unblocks every signal and gives ignored ones their default effect, except SIGPIPE, which stays or becomes
/// ignored. Ignored and blocked signals survive `exec`: without this a build would behave differently under `nohup`,
/// and a caller that ignores SIGCHLD would take every exit status away.
///
/// # Errors
/// When the kernel refuses the signal mask.
pub(crate) fn reset_signals() -> io::Result<()> {
    for number in 1..=libc::SIGRTMAX() {
        match disposition(number) {
            Some(libc::SIG_IGN) => set_default_disposition(number),
            Some(_) => {}
            None => set_default_disposition_unseen(number),
        }
    }
    // SAFETY: SIG_IGN is no function, so nothing runs in signal context.
    unsafe { libc::signal(libc::SIGPIPE, libc::SIG_IGN) };
    Ok(SigSet::empty().thread_set_mask()?)
}

/// What a signal does now; `None` for the numbers that the C library keeps to itself.
fn disposition(number: i32) -> Option<libc::sighandler_t> {
    // SAFETY: a null action only asks; `current` is a plain C struct for which all-zero bytes are a valid value.
    unsafe {
        let mut current: libc::sigaction = std::mem::zeroed();
        (libc::sigaction(number, std::ptr::null(), &raw mut current) == 0).then_some(current.sa_sigaction)
    }
}

/// Gives a signal that the C library keeps to itself its default effect. Callers have one thread, and the library puts
/// its own handler there when it needs it: with the second thread, or the first cancellation.
fn set_default_disposition_unseen(number: i32) {
    // The kernel's struct differs from the library's and between machines; all of it zero is SIG_DFL on each, and none
    // is longer than this. The last argument is the size of the kernel's signal set.
    let action = [0_u64; 8];
    // SAFETY: the kernel reads a struct within `action` and writes nothing.
    unsafe { libc::syscall(libc::SYS_rt_sigaction, number, action.as_ptr(), 0, 8) };
}

fn set_default_disposition(number: i32) {
    // SAFETY: SIG_DFL is no function, so nothing runs in signal context; a refused number changes nothing.
    unsafe { libc::signal(number, libc::SIG_DFL) };
}

/// Removes every environment variable. The process must have one thread.
///
/// # Errors
/// `EINVAL` when there are several threads.
pub(crate) fn clear_environment() -> io::Result<()> {
    if thread_count()? != 1 {
        return Err(Errno::INVAL.into());
    }
    // SAFETY: `clearenv` races with readers of the environment in other threads; by the check above there are none.
    match unsafe { libc::clearenv() } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

/// Closes every file descriptor from 3 on but `keep`. Descriptors that Rust values own must not be in use any more.
///
/// # Errors
/// When neither `close_range` nor `/proc/self/fd` is there.
pub(crate) fn close_other_fds(keep: BorrowedFd<'_>) -> io::Result<()> {
    let kept = keep.as_raw_fd();
    if kept > 3 {
        close_range(3, kept - 1)?;
    }
    close_range(kept.max(2) + 1, RawFd::MAX)
}

fn close_range(first: RawFd, last: RawFd) -> io::Result<()> {
    // SAFETY: no memory is passed. Callers are processes at a point where nothing they still use is in the range.
    // Through `syscall` because the C library may be older than the kernel.
    match unsafe { libc::syscall(libc::SYS_close_range, first, last, 0) } {
        0 => Ok(()),
        // Linux before 5.9, or a seccomp profile older than the call.
        _ => close_listed(first, last),
    }
}

fn close_listed(first: RawFd, last: RawFd) -> io::Result<()> {
    // Collected first: the listing has a descriptor of its own, which is in the list and closed by then.
    let numbers: Vec<RawFd> = std::fs::read_dir("/proc/self/fd")?
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter(|number| (first..=last).contains(number))
        .collect();
    for number in numbers {
        // SAFETY: as in `close_range`; a number that is closed already only gives EBADF.
        unsafe { libc::close(number) };
    }
    Ok(())
}

/// Lifts the soft limit of open files to the hard one, if the kernel lets it (it does not where the hard limit is over
/// `fs.nr_open`). Programs that the process starts inherit it; those that close every possible descriptor one by one
/// need a lower one again.
pub(crate) fn raise_open_file_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    match rustix::process::setrlimit(Resource::Nofile, raised) {
        // The limit as it was serves too, for fewer files at once.
        Ok(()) | Err(_) => {}
    }
}

/// Makes the modes given to `open`, `mkdir` and `mknod` count as they are, for the whole process.
pub(crate) fn clear_umask() {
    rustix::process::umask(rustix::fs::Mode::empty());
}

/// Makes files with no more than `mask` allows, nor writable by others, for the whole process.
pub(crate) fn set_umask(mask: u32) {
    rustix::process::umask(rustix::fs::Mode::from_raw_mode(mask & 0o777 | 0o022));
}

/// Signals that a process takes one by one instead of being interrupted by them.
#[derive(Debug)]
pub(crate) struct SignalQueue(SigSet);

/// A signal of a [`SignalQueue`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum QueuedSignal {
    /// SIGCHLD: a child ended.
    ChildEnded,
    /// SIGTERM.
    Terminate,
}

impl SignalQueue {
    /// Blocks SIGCHLD and SIGTERM in this thread. Children inherit that: [`reset_signals`] there.
    ///
    /// # Errors
    /// When the kernel refuses the mask.
    pub(crate) fn of_children_and_termination() -> io::Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGCHLD);
        set.add(Signal::SIGTERM);
        set.thread_block()?;
        Ok(Self(set))
    }

    /// Waits for the next of them.
    ///
    /// # Errors
    /// Never with valid sets.
    pub(crate) fn next(&self) -> io::Result<QueuedSignal> {
        loop {
            match self.0.wait() {
                Ok(Signal::SIGTERM) => return Ok(QueuedSignal::Terminate),
                Ok(_) => return Ok(QueuedSignal::ChildEnded),
                Err(nix::errno::Errno::EINTR) => {}
                Err(errno) => return Err(errno.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::FromRawFd as _;

    use super::*;

    #[test]
    fn test_processes_have_several_threads_so_fork_and_clearenv_refuse() {
        std::thread::scope(|scope| {
            let (stop, stopped) = std::sync::mpsc::channel::<()>();
            scope.spawn(move || stopped.recv());
            assert_eq!(fork().expect_err("two threads").raw_os_error(), Some(libc::EINVAL));
            assert_eq!(clear_environment().expect_err("two threads").raw_os_error(), Some(libc::EINVAL));
            drop(stop);
        });
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "reaped by what is tested")]
    fn a_child_keeps_its_id_until_it_is_reaped() {
        let child = std::process::Command::new("/bin/sh").args(["-c", "exit 7"]).spawn().expect("sh");
        let pid = Pid::from_child(&child);
        wait_without_reaping(pid).expect("wait");
        kill(pid).expect("a zombie takes signals, so the id is still the child's");
        assert_eq!(wait_for(pid).expect("reap"), Ended::Exited(7));
        assert_eq!(wait_for(pid).expect_err("reaped").raw_os_error(), Some(libc::ECHILD));
    }

    #[test]
    #[expect(clippy::zombie_processes, reason = "reaped by what is tested")]
    fn a_deadly_signal_is_told_from_an_exit_code() {
        let child = std::process::Command::new("/bin/sh").args(["-c", "kill -9 $$"]).spawn().expect("sh");
        assert_eq!(wait_for(Pid::from_child(&child)).expect("reap"), Ended::Signaled(9));
    }

    #[test]
    fn listed_descriptors_are_closed_in_the_range_alone() {
        // High numbers, so that no descriptor of a test in another thread is in the range.
        let file = std::fs::File::open("/dev/null").expect("open");
        let (low, high) = (7001, 7002);
        for number in [low, high] {
            // SAFETY: dup2 onto a number that nothing uses.
            assert_eq!(unsafe { libc::dup2(file.as_raw_fd(), number) }, number);
        }
        close_listed(high, high).expect("close");
        // SAFETY: `low` is open, owned by no other value, and closed by this File's drop.
        drop(unsafe { std::fs::File::from_raw_fd(low) });
        // SAFETY: fcntl with F_GETFD only asks.
        assert_eq!(unsafe { libc::fcntl(high, libc::F_GETFD) }, -1, "closed");
    }
}
