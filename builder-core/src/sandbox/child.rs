//! Runs a [`Program`] between clone and exec.
//!
//! Nothing here allocates, locks, logs or panics: this process shares the memory of the build process, whose threads run on
//! (see [`crate::sys::clone`]). Every call is a system call with prepared arguments, and the first that fails is reported
//! by number. This process is pid 1 of the step: it stays as a reaper while its child becomes the command.

use std::ffi::CStr;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};

use rustix::fs::{AtFlags, CWD, FileType, FsWord, Gid, Mode, OFlags, PROC_SUPER_MAGIC, ResolveFlags, Uid};
use rustix::io::Errno;
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal, WaitOptions};

use super::program::{Handle, Links, Operation, Program, Slot, Target};
use super::report;
use crate::sys::clone;
use crate::sys::mount::{self, Attributes, Configuration, Reach};
use crate::sys::reaper::COMMAND;

/// Detached mount with files of our own: the root of `/dev`, contents of bound files, an empty directory.
pub(super) const PRIVATE: Handle = Handle::Prepared(0);
/// The overlay.
pub(super) const ROOT: Handle = Handle::Prepared(1);

/// What `ps` calls pid 1 of a step.
pub(super) const NAME: &CStr = c"builder-step";

const SYSFS_MAGIC: FsWord = 0x6265_6572;

/// Pid 1 of the step. Returns its exit code, which says nothing: results go through `report`.
pub(super) fn run(program: &Program, report: BorrowedFd<'_>) -> u8 {
    // Only a name: nothing is lost with it.
    rustix::thread::set_name(NAME).ok();
    let mut child = Child { program, made: [const { None }; Slot::COUNT] };
    if child.perform_all(&program.setup, 0, report).is_err() {
        return 1;
    }
    // Closed one by one, as what is open later is closed behind the backs of owners.
    child.made = [const { None }; Slot::COUNT];
    let command = clone::vfork(&|| {
        if child.perform_command_all(&program.command, program.setup.len(), report).is_ok() {
            execute(program, report);
        }
        127
    });
    match command {
        Ok(command) => {
            if let Some(reaper) = program.reaper.as_ref().filter(|_| command.as_raw_pid() == COMMAND) {
                // Where files in memory cannot be executed, the same is done here.
                let _refused = reaper.execute(report);
            }
            reap(command, report);
            0
        }
        Err(errno) => {
            report::send_failed(report, usize::MAX, errno);
            1
        }
    }
}

/// Waits for the command, ends all it has left behind, and only then tells how it ended.
fn reap(command: Pid, report: BorrowedFd<'_>) {
    close_all_but(report.as_raw_fd());
    let mut wait_status = None;
    // Ends with ECHILD: nobody is left. Orphans become children of pid 1, so none is missed; signals are blocked, so
    // there is no EINTR.
    while let Ok(ended) = rustix::process::wait(WaitOptions::empty()) {
        if let Some((pid, status)) = ended
            && pid == command
        {
            wait_status = Some(status.as_raw());
            clone::kill_all_others();
        }
    }
    if let Some(wait_status) = wait_status {
        report::send_exited(report, wait_status);
    }
}

/// Leaves pid 1 with one descriptor, so that it keeps no pipe, no mount and no file of the build process open.
fn close_all_but(descriptor: RawFd) {
    // Cannot fail: the ranges are valid, and descriptors that are not open are skipped.
    if descriptor > 0 {
        clone::close_range(0, descriptor - 1).ok();
    }
    clone::close_range(descriptor + 1, RawFd::MAX).ok();
}

/// Executes the first candidate that exists, or reports why none could be.
fn execute(program: &Program, report: BorrowedFd<'_>) {
    let mut decisive = (0, Errno::NOENT);
    for (index, path) in program.candidates.iter().enumerate() {
        let Err(errno) = clone::execute(path, &program.arguments, &program.environment);
        match errno {
            // Like a shell: a directory of PATH without it is passed over, but a file whose interpreter is missing
            // gives ENOENT as well, and that is the one the user means.
            Errno::NOENT | Errno::NOTDIR => {
                if exists(path) {
                    decisive = (index, errno);
                    break;
                }
            }
            Errno::ACCESS => decisive = (index, errno),
            _ => {
                decisive = (index, errno);
                break;
            }
        }
    }
    let (index, errno) = decisive;
    let mut head = [0_u8; report::HEAD];
    let length = program.candidates.get(index).map_or(0, |path| read_head(path, &mut head));
    report::send_exec_failed(report, index, errno, head.get(..length).unwrap_or_default());
}

fn exists(path: &CStr) -> bool {
    rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()).is_ok()
}

fn read_head(path: &CStr, head: &mut [u8]) -> usize {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    rustix::fs::openat(CWD, path, flags, Mode::empty())
        .and_then(|file| rustix::io::read(&file, head))
        .unwrap_or_default()
}

fn reported(result: Result<(), Errno>, operation: usize, report: BorrowedFd<'_>) -> Result<(), ()> {
    result.map_err(|errno| report::send_failed(report, operation, errno))
}

struct Child<'a> {
    program: &'a Program,
    made: [Option<OwnedFd>; Slot::COUNT],
}

impl Child<'_> {
    fn perform_all(&mut self, operations: &[Operation], base: usize, report: BorrowedFd<'_>) -> Result<(), ()> {
        for (index, operation) in operations.iter().enumerate() {
            reported(self.perform(operation), base + index, report)?;
        }
        Ok(())
    }

    fn perform_command_all(&self, operations: &[Operation], base: usize, report: BorrowedFd<'_>) -> Result<(), ()> {
        for (index, operation) in operations.iter().enumerate() {
            reported(self.perform_command(operation), base + index, report)?;
        }
        Ok(())
    }

    fn perform(&mut self, operation: &Operation) -> Result<(), Errno> {
        match operation {
            Operation::TieToParent => tie_to_parent(),
            Operation::SetHostname(name) => rustix::system::sethostname(name.as_bytes()),
            Operation::LoopbackUp => clone::loopback_up(),
            Operation::StopPropagation => mount::stop_propagation(),
            Operation::AttachOutside { mount, path } => mount::attach_at_host_path(self.handle(*mount)?, path),
            Operation::Clone { dir, name, add, into } => {
                let clone = clone_with(self.handle(*dir)?, name, *add)?;
                self.keep(*into, clone)
            }
            Operation::MountFresh { filesystem, attributes, into } => {
                let mount = Configuration::open(filesystem)?.mount(*attributes)?;
                self.keep(*into, mount)
            }
            Operation::MountFreshOr { filesystem, attributes, into, dir, name } => {
                let mount = match Configuration::open(filesystem).and_then(|fresh| fresh.mount(*attributes)) {
                    Ok(mount) => mount,
                    Err(_) => clone_with(self.handle(*dir)?, name, *attributes)?,
                };
                self.keep(*into, mount)
            }
            Operation::EnsureDirectory { path } => ensure(self.handle(ROOT)?, path, FileType::Directory),
            Operation::EnsureFile { path } => ensure(self.handle(ROOT)?, path, FileType::RegularFile),
            Operation::Attach { mount, target } => self.attach(*mount, target),
            Operation::AttachIn { mount, dir, name } => mount::attach(self.handle(*mount)?, self.handle(*dir)?, name),
            Operation::Mask { dir, path, cover, with } => {
                let attributes = Attributes::MOUNT_ATTR_RDONLY;
                self.replace(*dir, path, || clone_with(self.handle(*cover)?, with, attributes))
            }
            Operation::MakeReadOnly { dir, path } => {
                self.replace(*dir, path, || clone_with(self.handle(*dir)?, path, Attributes::MOUNT_ATTR_RDONLY))
            }
            Operation::EnterRoot => enter_root(self.handle(ROOT)?),
            _ => Err(Errno::INVAL),
        }
    }

    fn perform_command(&self, operation: &Operation) -> Result<(), Errno> {
        match operation {
            Operation::NewSession => {
                clone::default_signals()?;
                rustix::process::umask(Mode::WGRP | Mode::WOTH);
                rustix::process::setsid().map(|_| ())
            }
            Operation::SetStdio { stdout, stderr, owner } => {
                set_stdio(self.handle(*stdout)?, self.handle(*stderr)?, *owner)
            }
            Operation::ChangeDirectory { path } => {
                let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
                let flags = OFlags::PATH | OFlags::DIRECTORY;
                let dir = match open_in_root(CWD, path, flags, Mode::empty(), resolve) {
                    Err(Errno::NOENT) => {
                        make_directories(path)?;
                        open_in_root(CWD, path, flags, Mode::empty(), resolve)
                    }
                    found => found,
                };
                rustix::process::fchdir(dir?)
            }
            Operation::SetLimit(resource, limit) => rustix::process::setrlimit(*resource, *limit),
            Operation::LeaveKeyring => clone::leave_keyring(),
            Operation::SetGroups(groups) => rustix::thread::set_thread_groups(groups),
            Operation::SetGroup(gid) => rustix::thread::set_thread_res_gid(*gid, *gid, *gid),
            Operation::LimitCapabilities(keep) => limit_capabilities(*keep),
            Operation::InstallFilter(filter) => filter.install(),
            Operation::SetCapabilities(sets) => {
                rustix::thread::clear_ambient_capability_set()?;
                rustix::thread::set_capabilities(None, *sets)
            }
            Operation::SetUser(uid) => rustix::thread::set_thread_res_uid(*uid, *uid, *uid),
            Operation::CloseOnExec => clone::close_on_exec_from(3),
            _ => Err(Errno::INVAL),
        }
    }

    fn handle(&self, handle: Handle) -> Result<BorrowedFd<'_>, Errno> {
        let found = match handle {
            Handle::Prepared(index) => self.program.handles.get(index),
            Handle::Made(slot) => self.made.get(slot as usize).and_then(Option::as_ref),
        };
        found.map(AsFd::as_fd).ok_or(Errno::BADF)
    }

    fn keep(&mut self, slot: Slot, descriptor: OwnedFd) -> Result<(), Errno> {
        *self.made.get_mut(slot as usize).ok_or(Errno::BADF)? = Some(descriptor);
        Ok(())
    }

    fn attach(&self, mount: Handle, target: &Target) -> Result<(), Errno> {
        let place = resolve(self.handle(ROOT)?, &target.path, target.links)?;
        if target.links == Links::Follow {
            // A mount over a file of these could hide from programs what the kernel really says or does.
            let filesystem = rustix::fs::fstatfs(&place)?.f_type;
            if filesystem == PROC_SUPER_MAGIC || filesystem == SYSFS_MAGIC {
                return Err(Errno::XDEV);
            }
        }
        mount::attach(self.handle(mount)?, place.as_fd(), c"")
    }

    /// Attaches what `make` makes at `path`, which is one of the kernel's own and need not exist.
    fn replace(&self, dir: Handle, path: &CStr, make: impl Fn() -> Result<OwnedFd, Errno>) -> Result<(), Errno> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.handle(dir)?, path, flags, Mode::empty()) {
            Ok(place) => mount::attach(make()?.as_fd(), place.as_fd(), c""),
            Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(errno),
        }
    }
}

/// The build process is pid 1 of a namespace around this one, so its death kills the step in any case; the signal is
/// for build processes that are not.
fn tie_to_parent() -> Result<(), Errno> {
    rustix::process::set_parent_process_death_signal(Some(Signal::KILL))
}

fn clone_with(dir: BorrowedFd<'_>, path: &CStr, add: Attributes) -> Result<OwnedFd, Errno> {
    let clone = mount::clone_tree(dir, path, Reach::Single)?;
    if !add.is_empty() {
        mount::restrict(clone.as_fd(), add, Reach::Single)?;
    }
    Ok(clone)
}

/// Finds a place in the image. The kernel walks the path with the overlay's root as `/`, so that neither `..` nor a
/// symlink leads out, whatever another process does to the directories meanwhile.
fn resolve(root: BorrowedFd<'_>, path: &CStr, links: Links) -> Result<OwnedFd, Errno> {
    let mut resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
    if links == Links::Refuse {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    open_in_root(root, path, OFlags::PATH, Mode::empty(), resolve)
}

/// The kernel gives up with `EAGAIN` on a path with `..` when anything on the machine was renamed or mounted meanwhile, as it
/// then cannot rule out that the walk left the root (`openat2(2)`). Builds side by side do both all the time.
fn open_in_root(
    root: BorrowedFd<'_>,
    path: &CStr,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    for _ in 0..ATTEMPTS {
        match rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN) => rustix::thread::sched_yield(),
            result => return result,
        }
    }
    Err(Errno::AGAIN)
}

/// How often a path is tried: a bound, in case somebody renames in order to keep us busy.
const ATTEMPTS: usize = 10_000;

/// Makes `path`, whose parent directory exists, unless something is there.
fn ensure(root: BorrowedFd<'_>, path: &CStr, kind: FileType) -> Result<(), Errno> {
    match resolve(root, path, Links::Refuse) {
        Err(Errno::NOENT) => {}
        found => return found.map(|_| ()),
    }
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY;
    let no_links = ResolveFlags::IN_ROOT | ResolveFlags::NO_SYMLINKS;
    if kind == FileType::RegularFile {
        return open_in_root(root, path, flags, Mode::from_raw_mode(0o644), no_links).map(|_| ());
    }
    // mkdir knows no RESOLVE flags: the name must be the last component below a parent resolved like the rest.
    let bytes = path.to_bytes_with_nul();
    match bytes.iter().rposition(|byte| *byte == b'/') {
        None => rustix::fs::mkdirat(root, path, Mode::from_raw_mode(0o755)),
        Some(slash) => {
            let mut parent = [0_u8; 4096];
            for (to, from) in parent.iter_mut().zip(bytes.get(..slash).unwrap_or_default()) {
                *to = *from;
            }
            let parent = CStr::from_bytes_until_nul(&parent).map_err(|_| Errno::NAMETOOLONG)?;
            let name = CStr::from_bytes_with_nul(bytes.get(slash + 1..).unwrap_or_default());
            let parent = resolve(root, parent, Links::Refuse)?;
            rustix::fs::mkdirat(&parent, name.map_err(|_| Errno::INVAL)?, Mode::from_raw_mode(0o755))
        }
    }
}

/// Makes a directory and those above it, 0755, where they are missing: a working directory that a base image names and
/// does not have. The image is the root by now, so links on the way lead nowhere else.
fn make_directories(path: &CStr) -> Result<(), Errno> {
    let mut prefix = [0_u8; 4096];
    let bytes = path.to_bytes();
    if bytes.len() >= prefix.len() {
        return Err(Errno::NAMETOOLONG);
    }
    for (at, byte) in bytes.iter().chain([&b'/']).enumerate() {
        if *byte == b'/' && at > 0 {
            let made = CStr::from_bytes_until_nul(&prefix).map_err(|_| Errno::INVAL)?;
            match rustix::fs::mkdirat(CWD, made, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
        if let Some(slot) = prefix.get_mut(at) {
            *slot = *byte;
        }
    }
    Ok(())
}

/// `pivot_root(".", ".")` stacks the old root on the new one, where it is let go of: no directory for it is needed in
/// the image (`pivot_root(2)`, NOTES).
fn enter_root(root: BorrowedFd<'_>) -> Result<(), Errno> {
    rustix::process::fchdir(root)?;
    rustix::process::pivot_root(c".", c".")?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)?;
    rustix::process::chdir(c"/")?;
    // Had anything been left on top of the new root, `..` would lead into it: the whole sandbox hangs on this.
    let (above, image) = (rustix::fs::stat(c"/..")?, rustix::fs::fstat(root)?);
    if (above.st_dev, above.st_ino) == (image.st_dev, image.st_ino) { Ok(()) } else { Err(Errno::XDEV) }
}

fn set_stdio(stdout: BorrowedFd<'_>, stderr: BorrowedFd<'_>, owner: Option<(Uid, Gid)>) -> Result<(), Errno> {
    let null = rustix::fs::openat(CWD, c"/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())?;
    for pipe in [stdout, stderr] {
        // A program that opens /dev/stdout anew needs the permissions of the pipe's own inode.
        if let Some((uid, gid)) = owner {
            rustix::fs::chownat(pipe, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?;
        }
    }
    clone::set_stdio(null.as_fd(), stdout, stderr)
}

fn limit_capabilities(keep: u64) -> Result<(), Errno> {
    for capability in 0..u64::BITS {
        if keep & (1 << capability) == 0 {
            match clone::drop_bounding_capability(capability) {
                // The kernel has no more than those before.
                Err(Errno::INVAL) => return Ok(()),
                result => result?,
            }
        }
    }
    Ok(())
}
