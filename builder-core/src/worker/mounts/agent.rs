//! `--mount=type=ssh`: a socket that passes requests on to the caller's ssh agent.
//!
//! Not the agent's own socket: an agent answers only its own user, and a command may run as another. And not every
//! request: a command may list keys and have something signed, it may not add, remove or lock keys
//! (`draft-ietf-sshm-ssh-agent`: each message is a 32-bit length, a type and its contents; requests are answered in order).

use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::io::Errno;

use crate::plan::MountOwner;
use crate::sys::file;

/// Largest message, as in OpenSSH.
const MAX_MESSAGE: u32 = 256 << 10;
/// Connections at once; more are closed.
const MAX_CONNECTIONS: usize = 64;
/// `SSH_AGENTC_REQUEST_IDENTITIES`, `SSH_AGENTC_SIGN_REQUEST`, `SSH_AGENTC_EXTENSION`.
const ALLOWED: [u8; 3] = [11, 13, 27];
/// `SSH_AGENT_FAILURE` as a whole message.
const FAILURE: [u8; 5] = [0, 0, 0, 1, 5];

/// A listening socket. Dropped, it listens no more.
#[derive(Debug)]
pub(super) struct Agent {
    socket: PathBuf,
    /// Closing it ends the thread.
    stop: Option<OwnedFd>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Agent {
    /// Listens at `name` in `dir` for connections to the agent at `agent`.
    pub(super) fn start(dir: &Path, name: &str, owner: MountOwner, agent: &Path) -> io::Result<Self> {
        // Fails now rather than in the command when nobody is there.
        drop(UnixStream::connect(agent)?);
        let handle = file::open_host_dir(dir)?;
        // Names of sockets are short (`sockaddr_un`), those of directories are not.
        let listener = UnixListener::bind(format!("/proc/self/fd/{}/{name}", handle.as_raw_fd()))?;
        listener.set_nonblocking(true)?;
        let socket = dir.join(name);
        std::os::unix::fs::chown(&socket, Some(owner.uid), Some(owner.gid))?;
        std::fs::set_permissions(&socket, std::fs::Permissions::from_mode(owner.mode))?;
        let (stopped, stop) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC)?;
        let agent = agent.to_owned();
        let listen = move || listen(&listener, &stopped, &agent);
        let thread = std::thread::Builder::new().name("ssh agent".to_owned()).spawn(listen)?;
        Ok(Self { socket, stop: Some(stop), thread: Some(thread) })
    }

    /// The socket.
    pub(super) fn socket(&self) -> &Path {
        &self.socket
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.stop = None;
        if let Some(thread) = self.thread.take() {
            // It does not panic; and if it did, nobody waits for its answers any more.
            thread.join().ok();
        }
    }
}

fn listen(listener: &UnixListener, stopped: &OwnedFd, agent: &Path) {
    let open = Arc::new(AtomicUsize::new(0));
    loop {
        let mut ready = [PollFd::new(listener, PollFlags::IN), PollFd::new(stopped, PollFlags::IN)];
        match poll(&mut ready, None) {
            Err(Errno::INTR) => continue,
            Ok(_) if ready[1].revents().is_empty() => {}
            _ => return,
        }
        let Ok((client, _)) = listener.accept() else { continue };
        if open.fetch_add(1, Ordering::Relaxed) >= MAX_CONNECTIONS {
            open.fetch_sub(1, Ordering::Relaxed);
            continue;
        }
        let (open, agent) = (open.clone(), agent.to_owned());
        // A connection ends with the command that made it; its thread is not waited for, the agent may be asking its user.
        std::thread::spawn(move || {
            // Whatever fails, the client sees a closed connection, as with any agent.
            serve(client, &agent).ok();
            open.fetch_sub(1, Ordering::Relaxed);
        });
    }
}

fn serve(mut client: UnixStream, agent: &Path) -> io::Result<()> {
    client.set_nonblocking(false)?;
    let mut agent = UnixStream::connect(agent)?;
    loop {
        let request = read_message(&mut client)?;
        // The type is the first byte after the length.
        if request.get(4).is_some_and(|kind| ALLOWED.contains(kind)) {
            agent.write_all(&request)?;
            client.write_all(&read_message(&mut agent)?)?;
        } else {
            client.write_all(&FAILURE)?;
        }
    }
}

fn read_message(stream: &mut UnixStream) -> io::Result<Vec<u8>> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let size = u32::from_be_bytes(length);
    if size == 0 || size > MAX_MESSAGE {
        return Err(io::Error::other("no message of an ssh agent"));
    }
    let mut message = length.to_vec();
    stream.take(size.into()).read_to_end(&mut message)?;
    let whole = usize::try_from(size).is_ok_and(|size| message.len() == size + 4);
    if whole { Ok(message) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OWNER: MountOwner = MountOwner { uid: 0, gid: 0, mode: 0o600 };

    /// An agent that answers every request with its own bytes.
    fn echo(path: &Path) {
        let listener = UnixListener::bind(path).unwrap();
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let mut client = client.unwrap();
                std::thread::spawn(move || {
                    while let Ok(message) = read_message(&mut client) {
                        client.write_all(&message).unwrap();
                    }
                });
            }
        });
    }

    fn owner() -> MountOwner {
        let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
        MountOwner { uid, gid, ..OWNER }
    }

    #[test]
    fn listing_and_signing_pass_and_changing_keys_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        echo(&real);
        let agent = Agent::start(dir.path(), "proxy", owner(), &real).unwrap();
        let mut client = UnixStream::connect(agent.socket()).unwrap();
        for kind in 0..=255_u8 {
            let request = [0, 0, 0, 3, kind, 1, 2];
            client.write_all(&request).unwrap();
            let answer = read_message(&mut client).unwrap();
            let expected = if ALLOWED.contains(&kind) { request.to_vec() } else { FAILURE.to_vec() };
            assert_eq!(answer, expected, "type {kind}");
        }
        drop(agent);
        assert!(UnixStream::connect(dir.path().join("proxy")).is_err(), "nobody listens any more");
    }

    #[test]
    fn messages_that_are_too_long_end_the_connection() {
        let dir = tempfile::tempdir().unwrap();
        let real = dir.path().join("real");
        echo(&real);
        let agent = Agent::start(dir.path(), "proxy", owner(), &real).unwrap();
        let mut client = UnixStream::connect(agent.socket()).unwrap();
        client.write_all(&[0xff; 4]).unwrap();
        assert_eq!(client.read(&mut [0; 1]).unwrap(), 0);
    }

    #[test]
    fn an_agent_that_is_not_there_is_noticed_at_once() {
        let dir = tempfile::tempdir().unwrap();
        assert!(Agent::start(dir.path(), "proxy", owner(), &dir.path().join("none")).is_err());
    }
}
