//! ssh for git: which server is believed, and who signs.
//!
//! Nothing of the user's or the machine's client configuration counts, but the machine's list of known hosts. A server
//! whose key nobody vouches for is refused: trusting whoever answers first is no check. Keys are used through an agent
//! alone, so that no key is ever named to a program that talks to a network.
//!
//! Where the caller has key files rather than an agent, one is started: `ssh-agent` with a command, which here is `cat`
//! on a pipe. When this process is gone, however it ended, `cat` reads the end of the pipe and leaves, and the agent,
//! which watches its command, leaves too (`ssh-agent(1)`).

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};

use super::{Access, FetchError};
use crate::store::{Store, WorkDir};

/// Where programs are looked for.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
/// Longest path of a socket (`sockaddr_un` has 108 bytes with the one that ends it).
const SOCKET_PATH_MAX: usize = 107;

/// How git calls ssh.
#[derive(Debug)]
pub(super) struct SshClient {
    /// For `GIT_SSH_COMMAND`, which a shell reads.
    pub(super) command: String,
    /// For `SSH_AUTH_SOCK`.
    pub(super) agent: PathBuf,
}

impl SshClient {
    /// Writes the files that ssh reads into `home`.
    ///
    /// # Errors
    /// There is no agent for `url`.
    pub(super) fn prepare(home: &Path, access: &Access, url: &str) -> Result<Self, FetchError> {
        let agent = access.agent().ok_or_else(|| FetchError::SshAgent { url: url.to_owned() })?;
        let (known_hosts, config) = (home.join("known_hosts"), home.join("ssh_config"));
        fs::write(&known_hosts, access.known_hosts()).map_err(FetchError::io("write the known hosts for ssh"))?;
        fs::write(&config, client_config(&known_hosts)).map_err(FetchError::io("write the configuration of ssh"))?;
        Ok(Self { command: format!("ssh -F {}", quoted(&config)), agent: agent.to_owned() })
    }
}

fn client_config(known_hosts: &Path) -> String {
    let path = known_hosts.to_string_lossy().replace('%', "%%");
    format!(
        "Host *\n\
         BatchMode yes\n\
         StrictHostKeyChecking yes\n\
         UserKnownHostsFile \"{path}\"\n\
         UpdateHostKeys no\n\
         IdentityFile none\n\
         IdentityAgent SSH_AUTH_SOCK\n\
         PreferredAuthentications publickey\n\
         ForwardAgent no\n\
         ForwardX11 no\n\
         ClearAllForwardings yes\n\
         PermitLocalCommand no\n\
         ControlPath none\n\
         ConnectTimeout 30\n\
         ServerAliveInterval 30\n"
    )
}

/// One word for a shell.
fn quoted(path: &Path) -> String {
    format!("'{}'", path.to_string_lossy().replace('\'', "'\\''"))
}

/// An agent with keys of the caller's; gone with this value.
#[derive(Debug)]
pub(crate) struct KeyAgent {
    socket: PathBuf,
    /// Closing it ends the command, and with it the agent.
    pipe: Option<ChildStdin>,
    command: Child,
    _dir: WorkDir,
}

impl KeyAgent {
    /// Starts one and gives it `keys`.
    pub(crate) fn start(store: &Store, keys: &[PathBuf]) -> Result<Self, FetchError> {
        let dir = store.work_dir().map_err(FetchError::store("the socket of an ssh agent"))?;
        let socket = dir.path().join("agent");
        if socket.as_os_str().as_bytes().len() > SOCKET_PATH_MAX {
            return Err(FetchError::SocketPath { path: socket });
        }
        let mut command = program("ssh-agent");
        let mut command = command
            .arg("-a")
            .arg(&socket)
            .args(["--", "cat"])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .map_err(|source| FetchError::SshMissing { program: "ssh-agent", source })?;
        let (mut pipe, answer) = (command.stdin.take(), command.stdout.take());
        // The command is started when the agent listens.
        let mut line = [0];
        let heard = pipe
            .as_mut()
            .map(|pipe| pipe.write_all(b"."))
            .zip(answer)
            .map(|(written, mut answer)| written.and_then(|()| answer.read_exact(&mut line)));
        let this = Self { socket, pipe, command, _dir: dir };
        if !matches!(heard, Some(Ok(()))) {
            return Err(FetchError::SshKeys { said: "ssh-agent does not start".to_owned() });
        }
        keys.iter().try_for_each(|key| this.add(key))?;
        Ok(this)
    }

    /// Where it listens.
    pub(crate) fn socket(&self) -> &Path {
        &self.socket
    }

    fn add(&self, key: &Path) -> Result<(), FetchError> {
        let output = program("ssh-add")
            .env("SSH_AUTH_SOCK", &self.socket)
            .env("SSH_ASKPASS_REQUIRE", "never")
            .args(["-q", "--"])
            .arg(key)
            .stdin(Stdio::null())
            .output()
            .map_err(|source| FetchError::SshMissing { program: "ssh-add", source })?;
        if output.status.success() {
            return Ok(());
        }
        let said = String::from_utf8_lossy(&output.stderr);
        let lines = said.lines().map(|line| line.trim_matches(['@', ' ', '\r'])).filter(|line| !line.is_empty());
        let said = lines.collect::<Vec<_>>().join("; ");
        Err(FetchError::SshKeys { said: format!("{}: {said}", key.display()) })
    }
}

impl Drop for KeyAgent {
    fn drop(&mut self) {
        self.pipe = None;
        // Whatever becomes of it, nobody waits for it any more.
        self.command.wait().ok();
    }
}

/// A program with nothing of the environment.
fn program(name: &str) -> Command {
    let mut command = Command::new(name);
    command.env_clear().env("PATH", PATH).env("LC_ALL", "C");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_survive_the_shell_and_ssh() {
        assert_eq!(quoted(Path::new("/a b/it's")), "'/a b/it'\\''s'");
        assert!(client_config(Path::new("/a b/100%")).contains("UserKnownHostsFile \"/a b/100%%\"\n"));
    }
}
