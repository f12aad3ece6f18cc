//! The processes of a launch as the caller sees them: started, killed, waited for.
//!
//! A thread of its own starts the process and waits for it: the kernel kills the process when the *thread* that started
//! it ends, so it must not be one that the caller may end earlier. The id of the process stays taken until the thread
//! reaps it under the lock, so a kill under the same lock can never meet someone else's process.

use std::fmt;
use std::fs::File;
use std::io;
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::fs::FileExt as _;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::fs::{MemfdFlags, SealFlags};
use rustix::process::Pid;

use super::Stdout;
use super::handshake::{PROCESS_NAME, SOCKET_ARGUMENT};
use super::memory::oom_kills;
use crate::sys::process::{self, Ended};
use crate::sys::socket;

/// Bytes kept of what the build process wrote to standard error, from the start: a panic says the cause first.
const OUTPUT_BYTES: u64 = 64 << 10;

/// How a build process ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Ending {
    /// It left with this exit code.
    Exited(i32),
    /// A signal of this number killed it.
    Killed(i32),
    /// It ended, and other code of the caller took the status: by waiting for every child, or by ignoring SIGCHLD.
    Unknown,
}

/// What is known of a build process that ended without an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Death {
    /// How it ended.
    pub ending: Ending,
    /// Processes that the kernel killed in the same cgroup meanwhile for lack of memory, where it counts them.
    pub oom_kills: Option<u64>,
    /// What it wrote to standard error: a panic, the dynamic loader, an allocation that failed.
    pub output: String,
}

impl fmt::Display for Death {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ending {
            Ending::Unknown => f.write_str("the build process ended with no answer")?,
            Ending::Exited(code) => write!(f, "the build process left with code {code} and no answer")?,
            Ending::Killed(number) => match nix::sys::signal::Signal::try_from(number) {
                Ok(signal) => write!(f, "the build process was killed by {signal}")?,
                Err(_) => write!(f, "the build process was killed by signal {number}")?,
            },
        }
        match (self.ending, self.oom_kills) {
            (Ending::Killed(libc::SIGKILL), Some(1..)) => write!(f, ": memory ran out")?,
            (Ending::Killed(libc::SIGKILL), _) => write!(f, ", perhaps because memory ran out (dmesg tells)")?,
            _ => {}
        }
        match self.output.trim() {
            "" => Ok(()),
            output => write!(f, "; it said:\n{output}"),
        }
    }
}

/// The process that was started, and with it all it starts.
#[derive(Debug)]
pub(super) struct ProcessTree {
    pid: Pid,
    program: PathBuf,
    state: Mutex<State>,
    over: Condvar,
    output: Option<File>,
    oom_kills_before: Option<u64>,
}

#[derive(Debug)]
struct State {
    life: Life,
    /// The process has a pid namespace below it, and kills that when asked to terminate.
    has_namespace: bool,
    /// Someone asked for the end.
    is_unwanted: bool,
}

#[derive(Debug, Clone, Copy)]
enum Life {
    Running,
    Over(Ending),
}

impl ProcessTree {
    /// Starts `program` as a build process; gives the socket to talk with it and the thread that ends when it ends.
    pub(super) fn start(program: &Path, stdout: Stdout) -> io::Result<(Arc<Self>, OwnedFd, JoinHandle<()>)> {
        let (ours, theirs) = socket::stream_pair()?;
        let output = output_file().ok();
        let copy = sealed_copy(program).ok();
        let mut command = match &copy {
            Some(copy) => Command::new(format!("/proc/self/fd/{}", copy.as_raw_fd())),
            None => Command::new(program),
        };
        command
            .arg0(PROCESS_NAME)
            .arg(SOCKET_ARGUMENT)
            .env_clear()
            .stdin(Stdio::from(theirs))
            .stdout(match stdout {
                Stdout::Closed => Stdio::null(),
                Stdout::Inherited => Stdio::inherit(),
            })
            .stderr(output.as_ref().and_then(|file| file.try_clone().ok()).map_or_else(Stdio::null, Stdio::from));
        let program = program.to_owned();
        let oom_kills_before = oom_kills();
        let (started, start) = mpsc::sync_channel(1);
        let guard = move || {
            let spawned = command.spawn();
            drop(copy);
            // The command holds this process' copy of the other end, which would keep the connection from closing.
            drop(command);
            let tree = spawned.map(|child| {
                let state = State { life: Life::Running, has_namespace: false, is_unwanted: false };
                let (state, over) = (Mutex::new(state), Condvar::new());
                Arc::new(Self { pid: Pid::from_child(&child), program, state, over, output, oom_kills_before })
            });
            let running = tree.as_ref().ok().map(Arc::clone);
            if started.send(tree).is_ok() {
                running.iter().for_each(|tree| tree.reap());
            }
        };
        let thread = std::thread::Builder::new().name("build-process".to_owned()).spawn(guard)?;
        let tree = start.recv().map_err(|_| io::Error::other("the thread ended"))??;
        Ok((tree, ours, thread))
    }

    /// Its process id, valid while it is not waited for.
    pub(super) fn pid(&self) -> i32 {
        self.pid.as_raw_nonzero().get()
    }

    /// What was started.
    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// From now on killing means asking: see [`Self::kill`].
    pub(super) fn has_namespace(&self) {
        self.lock().has_namespace = true;
    }

    /// Remembers that the end is wanted.
    pub(super) fn is_no_longer_wanted(&self) {
        self.lock().is_unwanted = true;
    }

    /// Whether the end was wanted.
    pub(super) fn is_unwanted(&self) -> bool {
        self.lock().is_unwanted
    }

    /// Kills every process of the tree, because nobody wants it any more. Returns before they are gone; [`Self::wait`]
    /// returns after that.
    pub(super) fn kill(&self) {
        self.is_no_longer_wanted();
        self.end();
    }

    /// Kills every process of the tree.
    pub(super) fn end(&self) {
        let state = self.lock();
        if let Life::Running = state.life {
            let killed = match state.has_namespace {
                true => process::terminate(self.pid),
                false => process::kill_with_group(self.pid),
            };
            match killed {
                // The process is ours and unreaped, so there is nothing that could refuse but a kernel policy, and
                // then there is nothing else to try.
                Ok(()) | Err(_) => {}
            }
        }
    }

    /// Waits for the end.
    pub(super) fn wait(&self) -> Ending {
        let mut state = self.lock();
        loop {
            match state.life {
                Life::Over(ending) => return ending,
                Life::Running => state = self.over.wait(state).unwrap_or_else(PoisonError::into_inner),
            }
        }
    }

    /// Waits for the end at most this long; whether it came.
    pub(super) fn wait_at_most(&self, limit: Duration) -> bool {
        let is_running = |state: &mut State| matches!(state.life, Life::Running);
        let waited = self.over.wait_timeout_while(self.lock(), limit, is_running);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    /// Waits for the end and tells what is known of it.
    pub(super) fn death(&self) -> Death {
        let ending = self.wait();
        let before = self.oom_kills_before;
        let oom_kills = before.zip(oom_kills()).map(|(before, now)| now.saturating_sub(before));
        Death { ending, oom_kills, output: self.output() }
    }

    fn output(&self) -> String {
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        while let Some(Ok(count @ 1..)) = self.output.as_ref().map(|file| file.read_at(&mut chunk, bytes.len() as u64))
        {
            bytes.extend_from_slice(&chunk[..count]);
        }
        // The file has its full size from the start.
        let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
        String::from_utf8_lossy(&bytes[..end]).into_owned()
    }

    fn reap(&self) {
        let waited = process::wait_without_reaping(self.pid);
        let mut state = self.lock();
        let ending = match waited.and_then(|()| process::wait_for(self.pid)) {
            Ok(Ended::Exited(code)) => Ending::Exited(code),
            Ok(Ended::Signaled(signal)) => Ending::Killed(signal),
            Err(_) => Ending::Unknown,
        };
        state.life = Life::Over(ending);
        self.over.notify_all();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A copy of the program in memory that nobody can write to. A command in a step may reach the file that the build
/// process runs from (`#!/proc/self/exe`), and inside the user namespace that file's owner is root (CVE-2019-5736).
/// Where the kernel refuses to execute such a copy (`vm.memfd_noexec`), the program itself is started.
fn sealed_copy(program: &Path) -> io::Result<OwnedFd> {
    let mut file = File::open(program)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let fd = rustix::fs::memfd_create("build-process", flags | MemfdFlags::EXEC)
        .or_else(|_| rustix::fs::memfd_create("build-process", flags))?;
    let mut copy = File::from(fd);
    io::copy(&mut file, &mut copy)?;
    rustix::fs::fcntl_add_seals(&copy, SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL)?;
    // Only a file that nobody has open for writing can be executed.
    File::open(format!("/proc/self/fd/{}", copy.as_raw_fd())).map(OwnedFd::from)
}

/// A file in memory, of fixed size, so that a process that never stops complaining cannot fill the memory.
fn output_file() -> io::Result<File> {
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // The newer flag keeps kernels since 6.3 from noting its absence in their log.
    let fd = rustix::fs::memfd_create("build-process-output", flags | MemfdFlags::NOEXEC_SEAL)
        .or_else(|_| rustix::fs::memfd_create("build-process-output", flags))?;
    rustix::fs::ftruncate(&fd, OUTPUT_BYTES)?;
    rustix::fs::fcntl_add_seals(&fd, SealFlags::GROW | SealFlags::SHRINK)?;
    Ok(File::from(fd))
}

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use super::*;

    #[test]
    fn the_output_file_has_an_end() {
        let mut file = output_file().expect("memfd");
        let mut written = 0;
        let line = [b'x'; 1000];
        while let Ok(count @ 1..) = file.write(&line) {
            written += count;
            assert!(written <= 1 << 20, "bounded");
        }
        assert_eq!(written as u64, OUTPUT_BYTES);
    }

    #[test]
    fn deaths_are_told_apart() {
        let death =
            |ending, oom_kills, output: &str| Death { ending, oom_kills, output: output.to_owned() }.to_string();
        assert_eq!(death(Ending::Exited(101), None, ""), "the build process left with code 101 and no answer");
        assert_eq!(death(Ending::Killed(11), Some(0), ""), "the build process was killed by SIGSEGV");
        assert_eq!(
            death(Ending::Killed(9), None, ""),
            "the build process was killed by SIGKILL, perhaps because memory ran out (dmesg tells)"
        );
        assert_eq!(death(Ending::Killed(9), Some(1), ""), "the build process was killed by SIGKILL: memory ran out");
        assert_eq!(
            death(Ending::Exited(127), None, "cannot open libfoo.so\n"),
            "the build process left with code 127 and no answer; it said:\ncannot open libfoo.so"
        );
    }
}
