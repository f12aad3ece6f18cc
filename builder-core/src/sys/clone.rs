//! Making a process in new namespaces from a threaded one, and what that process may call before it executes.
//!
//! **Contract of every function here and of every closure passed to [`fork`]**: a copy of one thread of a threaded process has
//! the locks of the other threads in whatever state they were. So the child may make system calls and touch its own stack and
//! what was prepared for it; it may not allocate, lock, log, panic or return through the caller.
//! Sources: `clone(2)`, `signal-safety(7)`.
//!
//! The calls are raw because libc's `fork` runs handlers and takes no namespaces, and rustix offers none of them.
#![allow(unsafe_code, reason = "clone, execve and signal resets have no safe wrappers")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_int, c_long};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;
use rustix::process::Pid;

/// New mount, pid, ipc, uts and cgroup namespaces; no new user namespace.
pub(crate) const STEP_NAMESPACES: c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
/// A new network namespace with nothing in it.
pub(crate) const NETWORK_NAMESPACE: c_int = libc::CLONE_NEWNET;

/// The result of a raw call: what it returned, or the error that the calling thread's `errno` names.
pub(super) fn check(result: c_long) -> Result<c_long, Errno> {
    if result < 0 { Err(last_error()) } else { Ok(result) }
}

fn last_error() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

/// A child process.
#[derive(Debug)]
pub(crate) struct Forked {
    /// Its number in the pid namespace of the caller.
    pub(crate) pid: Pid,
    /// A handle that stays its own after it has ended.
    pub(crate) pidfd: OwnedFd,
}

/// Runs `child` in a copy of this process in new `namespaces` (0 for none). All signals are blocked in the child, as its
/// handlers are still the parent's; see [`default_signals`]. The child ends with the byte that `child` returns.
pub(crate) fn fork(namespaces: c_int, child: &mut dyn FnMut() -> u8) -> Result<Forked, Errno> {
    let mask = set_signal_mask(u64::MAX)?;
    let result = clone_process(namespaces, child);
    set_signal_mask(mask)?;
    result
}

fn clone_process(namespaces: c_int, child: &mut dyn FnMut() -> u8) -> Result<Forked, Errno> {
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: without CLONE_VM and with a null stack this is fork: the child goes on with a copy of this stack.
    // `pidfd` is a live c_int for the kernel to write to; the remaining arguments belong to flags that are not set.
    let pid = unsafe {
        libc::syscall(libc::SYS_clone, c_long::from(flags), 0_usize, std::ptr::from_mut(&mut pidfd), 0_usize, 0_usize)
    };
    let pid = i32::try_from(check(pid)?).map_err(|_| Errno::OVERFLOW)?;
    let Some(pid) = Pid::from_raw(pid) else { run_child(child) };
    // SAFETY: the kernel stored a new descriptor there (CLONE_PIDFD), which nobody else knows of.
    Ok(Forked { pid, pidfd: unsafe { OwnedFd::from_raw_fd(pidfd) } })
}

fn run_child(child: &mut dyn FnMut() -> u8) -> ! {
    /// Ends the process if a panic, which the contract forbids, unwinds into this second copy of the parent's stack.
    struct EndOnUnwind;
    impl Drop for EndOnUnwind {
        fn drop(&mut self) {
            exit(u8::MAX);
        }
    }
    let _guard = EndOnUnwind;
    exit(child())
}

/// Ends the process without running exit handlers.
pub(crate) fn exit(code: u8) -> ! {
    // SAFETY: `_exit` has no preconditions and does not return.
    unsafe { libc::_exit(c_int::from(code)) }
}

fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut old = 0_u64;
    // SAFETY: both pointers are to live 8-byte masks, the size the kernel is told. The raw call is used because libc
    // keeps its own signals out of masks, and a child must not run even their handlers.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            std::ptr::from_ref(&mask),
            std::ptr::from_mut(&mut old),
            size_of::<u64>(),
        )
    };
    check(result).map(|_| old)
}

/// Gives every signal its default action, then unblocks all. `execve` would keep ignored ones ignored.
pub(crate) fn default_signals() -> Result<(), Errno> {
    // The kernel's `struct sigaction` is at most four words, and all zeroes mean SIG_DFL without flags. libc's own function
    // would not touch the two signals it uses itself, which a caller may have left ignored.
    let default_action = [0_u64; 4];
    for signal in (1..=SIGNALS).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        // SAFETY: the kernel reads the action, which is large enough, and writes no old one; a mask has 8 bytes.
        let result = unsafe {
            libc::syscall(libc::SYS_rt_sigaction, signal, default_action.as_ptr(), 0_usize, size_of::<u64>())
        };
        check(result)?;
    }
    set_signal_mask(0).map(|_| ())
}

/// Number of the last signal.
const SIGNALS: c_int = 64;

/// Closes all descriptors from `first` to `last`.
pub(crate) fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    close_range_with(first, last, 0)
}

/// Marks all descriptors from `first` on to be closed by `execve`.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    close_range_with(first, RawFd::MAX, libc::CLOSE_RANGE_CLOEXEC)
}

fn close_range_with(first: RawFd, last: RawFd, flags: libc::c_uint) -> Result<(), Errno> {
    // SAFETY: takes three integers. Descriptors owned by values of the parent are closed in this process's own copy of
    // the table, and the child never drops those values: it ends in `_exit` or `execve`.
    check(unsafe { libc::syscall(libc::SYS_close_range, first, last, flags) }).map(|_| ())
}

/// Makes copies of three descriptors 0, 1 and 2. They must not be among these themselves, which holds for everything opened
/// by a Rust program: its runtime opens missing standard descriptors first.
pub(crate) fn set_stdio(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<(), Errno> {
    for (to, from) in [stdin, stdout, stderr].into_iter().enumerate() {
        let to = RawFd::try_from(to).map_err(|_| Errno::BADF)?;
        // SAFETY: takes two integers. No value owns descriptors 0 to 2 of this process.
        check(c_long::from(unsafe { libc::dup2(from.as_raw_fd(), to) }))?;
    }
    Ok(())
}

/// Sends SIGKILL to every process of the pid namespace except its pid 1, which must be the caller.
pub(crate) fn kill_all_others() {
    // SAFETY: takes two integers. ESRCH, nobody left, is the goal.
    unsafe { libc::kill(-1, libc::SIGKILL) };
}

/// Removes a capability from the bounding set; `EINVAL` when the kernel has no capability of that number.
pub(crate) fn drop_bounding_capability(capability: u32) -> Result<(), Errno> {
    // SAFETY: takes integers only.
    check(c_long::from(unsafe { libc::prctl(libc::PR_CAPBSET_DROP, capability, 0, 0, 0) })).map(|_| ())
}

/// Joins a new session keyring, so that keys of whoever started the build are out of reach. No keyrings is fine.
pub(crate) fn leave_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: c_long = 1;
    // SAFETY: a null name asks for an anonymous keyring; nothing is dereferenced.
    match check(unsafe { libc::syscall(libc::SYS_keyctl, JOIN_SESSION_KEYRING, 0_usize) }) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings the loopback interface of the network namespace up; the kernel then gives it 127.0.0.1 and ::1.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    let socket = rustix::net::socket_with(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        rustix::net::SocketFlags::CLOEXEC,
        None,
    )?;
    // SAFETY: `ifreq` is plain data for which zeroes are valid.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(c"lo".to_bytes()) {
        *to = c_char::from_ne_bytes([*from]);
    }
    request.ifr_ifru.ifru_flags = IFF_UP;
    // SAFETY: `request` is a live `ifreq` with a terminated name, which SIOCSIFFLAGS reads.
    let result = unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS, std::ptr::from_ref(&request)) };
    check(c_long::from(result)).map(|_| ())
}

const IFF_UP: i16 = 1;

/// Strings with the array of pointers that `execve` wants.
pub(crate) struct StringArray {
    pointers: Vec<*const c_char>,
    /// Owns what the pointers point to; never changed after construction.
    strings: Vec<CString>,
}

impl std::fmt::Debug for StringArray {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_list().entries(&self.strings).finish()
    }
}

impl From<Vec<CString>> for StringArray {
    fn from(strings: Vec<CString>) -> Self {
        // A CString keeps its bytes in a heap block of its own, so moving the Vec does not move them.
        let pointers = strings.iter().map(|string| string.as_ptr()).chain([std::ptr::null()]).collect();
        Self { pointers, strings }
    }
}

/// Replaces the process image. Returns only the reason why it could not.
pub(crate) fn execute(path: &CStr, arguments: &StringArray, environment: &StringArray) -> Result<Infallible, Errno> {
    // SAFETY: both arrays end in a null pointer and point to terminated strings they own.
    unsafe { libc::execve(path.as_ptr(), arguments.pointers.as_ptr(), environment.pointers.as_ptr()) };
    Err(last_error())
}
