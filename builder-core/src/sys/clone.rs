//! Making a process in new namespaces from a threaded one, and what that process may call before it executes.
//!
//! **Memory is shared.** The child of [`scoped`] runs on a stack of its own in the memory of this process, like a scoped
//! thread, but with descriptors, namespaces and credentials of its own. A copy (`fork`) would cost 10 ms for each 100 MiB
//! that the build process holds, twice a step, and each write of its threads a page fault afterwards. What this asks for:
//!
//! * Closures passed to [`scoped`] and [`vfork`] make system calls and touch their own stack and what is shared with
//!   them. They may not allocate, lock, log, panic or use anything thread-local: their thread-local variables are those of the
//!   thread that made them, which runs on. Functions here and in [`super::mount`] do not even touch `errno`.
//! * The process must not be dumpable, or whoever may trace the child may read and write the memory of the parent
//!   ([`hide_memory`]).
//!
//! Sources: `clone(2)`, `vfork(2)`, `ptrace(2)` (access mode checking).
//!
//! The calls are raw because libc's go through `errno`, and rustix has no wrappers for them.
#![allow(unsafe_code, reason = "clone, execve and signal resets have no safe wrappers")]

use std::convert::Infallible;
use std::ffi::{CStr, CString, c_char, c_int, c_void};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::sync::Arc;

use rustix::io::Errno;
use rustix::process::{DumpableBehavior, Pid, Signal, WaitId, WaitIdOptions};

use super::raw::{self, Arguments};

/// New mount, pid, ipc, uts and cgroup namespaces; no new user namespace.
pub(crate) const STEP_NAMESPACES: c_int =
    libc::CLONE_NEWNS | libc::CLONE_NEWPID | libc::CLONE_NEWIPC | libc::CLONE_NEWUTS | libc::CLONE_NEWCGROUP;
/// A new network namespace with nothing in it.
pub(crate) const NETWORK_NAMESPACE: c_int = libc::CLONE_NEWNET;

/// Stack of a scoped child. It holds that of a vforked grandchild as well.
const STACK: usize = 512 << 10;
/// Stack of a vforked child.
const SMALL_STACK: usize = 128 << 10;

/// What a child runs; its result is its exit code.
type Body<'a> = &'a (dyn Fn() -> u8 + Sync);

/// Runs `child` in a process of its own in new `namespaces` and meanwhile `parent` here, with the child's pidfd. All
/// signals are blocked in the child, as its handlers are those of this process; see [`default_signals`].
///
/// When `parent` returns or panics, the child is killed unless it has ended, and waited for: what it borrows outlives it.
pub(crate) fn scoped<R>(
    namespaces: c_int,
    child: Body<'_>,
    parent: impl FnOnce(&Arc<OwnedFd>) -> R,
) -> Result<R, Errno> {
    /// Ends and reaps the child before what it uses goes away.
    struct Ending(Arc<OwnedFd>);
    impl Drop for Ending {
        fn drop(&mut self) {
            // Fails only if it has ended already.
            rustix::process::pidfd_send_signal(&self.0, Signal::KILL).ok();
            // Ours alone to wait for, so nothing but EINTR can come before the end.
            let wait = || rustix::process::waitid(WaitId::PidFd(self.0.as_fd()), WaitIdOptions::EXITED);
            while matches!(wait(), Err(Errno::INTR)) {}
        }
    }
    let stack = Stack::new()?;
    let mask = set_signal_mask(u64::MAX)?;
    let mut pidfd: RawFd = -1;
    let flags = namespaces | libc::CLONE_VM | libc::CLONE_PIDFD | libc::SIGCHLD;
    // SAFETY: `stack` belongs to the child alone, and it and `child` live until `Ending` has seen the child's end, which is
    // dropped before them. `child` is Sync, so it may run beside this thread.
    let cloned = unsafe { clone_on(stack.top(), flags, &child, std::ptr::from_mut(&mut pidfd)) };
    // SAFETY: the kernel stored a new descriptor there (CLONE_PIDFD), which nobody else knows of.
    let ending = cloned.map(|_| Ending(Arc::new(unsafe { OwnedFd::from_raw_fd(pidfd) })));
    set_signal_mask(mask)?;
    let ending = ending?;
    let result = parent(&ending.0);
    drop(ending);
    drop(stack);
    Ok(result)
}

/// Runs `child` while the caller stands still, until the child executes a program or ends. Returns its number in the
/// caller's pid namespace. Signals stay as they are.
pub(crate) fn vfork(child: Body<'_>) -> Result<Pid, Errno> {
    // On this stack, so that no memory needs to be found: the caller's frames do not move while it stands still.
    let mut stack = [const { MaybeUninit::<u8>::uninit() }; SMALL_STACK];
    let top = stack.as_mut_ptr_range().end.cast();
    let flags = libc::CLONE_VM | libc::CLONE_VFORK | libc::SIGCHLD;
    // SAFETY: the stack and `child` live until this call returns, and the kernel lets it return only when the child no
    // longer uses this memory (CLONE_VFORK).
    let pid = unsafe { clone_on(top, flags, &child, std::ptr::null_mut()) }?;
    Pid::from_raw(pid).ok_or(Errno::CHILD)
}

/// # Safety
///
/// The memory below `top` must be the child's alone for as long as it runs, and `child` must live as long.
unsafe fn clone_on(top: *mut c_void, flags: c_int, child: &Body<'_>, pidfd: *mut RawFd) -> Result<c_int, Errno> {
    extern "C" fn start(child: *mut c_void) -> c_int {
        /// Ends the process if a panic, which the contract forbids, gets here.
        struct EndOnUnwind;
        impl Drop for EndOnUnwind {
            fn drop(&mut self) {
                exit(u8::MAX);
            }
        }
        let _guard = EndOnUnwind;
        // SAFETY: `clone_on` passed the address of a `Body` that outlives this process.
        let child = unsafe { *child.cast::<Body<'_>>() };
        exit(child())
    }
    let argument = std::ptr::from_ref(child).cast_mut().cast();
    // SAFETY: the stack is writable and its end is aligned to 16; the child's lifetime is the caller's promise. libc's
    // wrapper is used because starting on another stack cannot be written in Rust.
    let pid = unsafe { libc::clone(start, top, flags, argument, pidfd) };
    if pid < 0 { Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)) } else { Ok(pid) }
}

/// Memory for a stack, with a page below it that may not be touched.
struct Stack {
    base: *mut c_void,
}

impl Stack {
    const GUARD: usize = 64 << 10;
    const LENGTH: usize = Self::GUARD + STACK;

    fn new() -> Result<Self, Errno> {
        let flags = libc::MAP_PRIVATE | libc::MAP_ANONYMOUS | libc::MAP_STACK | libc::MAP_NORESERVE;
        let (none, read_write) = (libc::PROT_NONE, libc::PROT_READ | libc::PROT_WRITE);
        // SAFETY: a new mapping at an address of the kernel's choice touches nothing that exists.
        let base = unsafe { libc::mmap(std::ptr::null_mut(), Self::LENGTH, none, flags, -1, 0) };
        if base == libc::MAP_FAILED {
            return Err(Errno::NOMEM);
        }
        let stack = Self { base };
        // SAFETY: the range lies in the new mapping, which is a multiple of any page size.
        let protected = unsafe { libc::mprotect(base.byte_add(Self::GUARD), STACK, read_write) };
        if protected == 0 { Ok(stack) } else { Err(Errno::NOMEM) }
    }

    fn top(&self) -> *mut c_void {
        // SAFETY: one past the end of the mapping.
        unsafe { self.base.byte_add(Self::LENGTH) }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own, and nobody runs on it any more. Failure would only leak it.
        unsafe { libc::munmap(self.base, Self::LENGTH) };
    }
}

/// Keeps other processes of the same user, and those of a step, from tracing this process and reading its memory,
/// unless they have `CAP_SYS_PTRACE` in the user namespace in which it was executed.
pub(crate) fn hide_memory() -> Result<(), Errno> {
    rustix::process::set_dumpable_behavior(DumpableBehavior::NotDumpable)
}

/// Ends the process without running exit handlers.
pub(crate) fn exit(code: u8) -> ! {
    loop {
        // Does not return.
        call_with_numbers(libc::SYS_exit_group, [usize::from(code), 0, 0, 0, 0, 0]).ok();
    }
}

fn set_signal_mask(mask: u64) -> Result<u64, Errno> {
    let mut old = 0_u64;
    let (new, previous) = (std::ptr::from_ref(&mask), std::ptr::from_mut(&mut old));
    let how = raw::signed(libc::SIG_SETMASK);
    let arguments = [how, raw::address(new), raw::address(previous), size_of::<u64>(), 0, 0];
    // SAFETY: both pointers are to live 8-byte masks, the size the kernel is told. libc would keep its own signals out
    // of the mask, and a child must not run even their handlers.
    unsafe { raw::call(libc::SYS_rt_sigprocmask, arguments) }.map(|_| old)
}

/// Gives every signal its default action, then unblocks all. `execve` would keep ignored ones ignored.
pub(crate) fn default_signals() -> Result<(), Errno> {
    // The kernel's `struct sigaction` is at most four words, and all zeroes mean SIG_DFL without flags. libc's own function
    // would not touch the two signals it uses itself, which a caller may have left ignored.
    let default_action = [0_u64; 4];
    for signal in (1..=SIGNALS).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        let arguments = [raw::signed(signal), raw::address(&default_action), 0, size_of::<u64>(), 0, 0];
        // SAFETY: the kernel reads the action, which is large enough, and writes no old one; a mask has 8 bytes.
        unsafe { raw::call(libc::SYS_rt_sigaction, arguments) }?;
    }
    set_signal_mask(0).map(|_| ())
}

/// Number of the last signal.
const SIGNALS: c_int = 64;

/// A call whose arguments are plain numbers.
fn call_with_numbers(number: libc::c_long, arguments: Arguments) -> Result<usize, Errno> {
    // SAFETY: callers pass numbers only, none of which the kernel takes for an address.
    unsafe { raw::call(number, arguments) }
}

/// Closes all descriptors of this process from `first` to `last`. For children only, which never drop the owners of theirs:
/// they end in [`exit`] or [`execute`].
pub(crate) fn close_range(first: RawFd, last: RawFd) -> Result<(), Errno> {
    call_with_numbers(libc::SYS_close_range, [raw::signed(first), raw::signed(last), 0, 0, 0, 0]).map(|_| ())
}

/// Marks all descriptors from `first` on to be closed by `execve`.
pub(crate) fn close_on_exec_from(first: RawFd) -> Result<(), Errno> {
    const CLOSE_RANGE_CLOEXEC: usize = 4;
    let arguments = [raw::signed(first), raw::signed(RawFd::MAX), CLOSE_RANGE_CLOEXEC, 0, 0, 0];
    call_with_numbers(libc::SYS_close_range, arguments).map(|_| ())
}

/// Makes copies of three descriptors 0, 1 and 2. They must not be among these themselves, which holds for everything opened
/// by a Rust program: its runtime opens missing standard descriptors first.
pub(crate) fn set_stdio(stdin: BorrowedFd<'_>, stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>) -> Result<(), Errno> {
    for (to, from) in [stdin, stdout, stderr].into_iter().enumerate() {
        // No value owns descriptors 0 to 2 of a child.
        call_with_numbers(libc::SYS_dup3, [raw::signed(from.as_raw_fd()), to, 0, 0, 0, 0])?;
    }
    Ok(())
}

/// Makes a copy of a descriptor descriptor 0, which `execve` keeps open.
pub(super) fn set_stdin(stdin: BorrowedFd<'_>) -> Result<(), Errno> {
    call_with_numbers(libc::SYS_dup3, [raw::signed(stdin.as_raw_fd()), 0, 0, 0, 0, 0]).map(|_| ())
}

/// Sends SIGKILL to every process of the pid namespace except its pid 1, which must be the caller.
pub(crate) fn kill_all_others() {
    // ESRCH, nobody left, is the goal.
    call_with_numbers(libc::SYS_kill, [raw::signed(-1), raw::signed(libc::SIGKILL), 0, 0, 0, 0]).ok();
}

/// Removes a capability from the bounding set; `EINVAL` when the kernel has no capability of that number.
pub(crate) fn drop_bounding_capability(capability: u32) -> Result<(), Errno> {
    let capability = usize::try_from(capability).map_err(|_| Errno::INVAL)?;
    let option = raw::signed(libc::PR_CAPBSET_DROP);
    call_with_numbers(libc::SYS_prctl, [option, capability, 0, 0, 0, 0]).map(|_| ())
}

/// Joins a new session keyring, so that keys of whoever started the build are out of reach. No keyrings is fine.
pub(crate) fn leave_keyring() -> Result<(), Errno> {
    const JOIN_SESSION_KEYRING: usize = 1;
    // A null name asks for an anonymous keyring.
    match call_with_numbers(libc::SYS_keyctl, [JOIN_SESSION_KEYRING, 0, 0, 0, 0, 0]) {
        Ok(_) | Err(Errno::NOSYS) => Ok(()),
        Err(error) => Err(error),
    }
}

/// Brings the loopback interface of the network namespace up; the kernel then gives it 127.0.0.1 and ::1.
pub(crate) fn loopback_up() -> Result<(), Errno> {
    const IFF_UP: i16 = 1;
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
    let number = usize::try_from(libc::SIOCSIFFLAGS).map_err(|_| Errno::INVAL)?;
    let arguments = [raw::signed(socket.as_raw_fd()), number, raw::address(&request), 0, 0, 0];
    // SAFETY: `request` is a live `ifreq` with a terminated name, which SIOCSIFFLAGS reads.
    unsafe { raw::call(libc::SYS_ioctl, arguments) }.map(|_| ())
}

/// Strings with the array of pointers that `execve` wants.
pub(crate) struct StringArray {
    pointers: Vec<*const c_char>,
    /// Owns what the pointers point to; never changed after construction.
    strings: Vec<CString>,
}

// SAFETY: nothing is changed after construction, so any number of threads may read it.
unsafe impl Sync for StringArray {}

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
    execute_at(libc::AT_FDCWD, path, arguments, environment, 0)
}

/// As [`execute`], but the program is an open file.
pub(super) fn execute_file(
    file: BorrowedFd<'_>,
    arguments: &StringArray,
    environment: &StringArray,
) -> Result<Infallible, Errno> {
    execute_at(file.as_raw_fd(), c"", arguments, environment, libc::AT_EMPTY_PATH)
}

fn execute_at(
    dir: RawFd,
    path: &CStr,
    arguments: &StringArray,
    environment: &StringArray,
    flags: c_int,
) -> Result<Infallible, Errno> {
    let path = raw::address(path.as_ptr());
    let (argv, envp) = (raw::address(arguments.pointers.as_ptr()), raw::address(environment.pointers.as_ptr()));
    let arguments = [raw::signed(dir), path, argv, envp, raw::signed(flags), 0];
    // SAFETY: both arrays end in a null pointer and point to terminated strings they own, and so does the path.
    match unsafe { raw::call(libc::SYS_execveat, arguments) } {
        Ok(_) => Err(Errno::IO),
        Err(errno) => Err(errno),
    }
}
