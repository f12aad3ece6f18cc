//! One run of git, with an environment made from nothing: no configuration of the user or the machine, no hooks, no
//! templates, no credentials, no questions, no transport but those that the source may use.

use std::ffi::OsString;
use std::io::{self, Read};
use std::os::unix::process::CommandExt as _;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process_group};

use super::super::FetchError;
use super::super::access::GitHeader;
use super::super::ssh::{PATH, SshClient};
use crate::sandbox::KillSwitch;

/// Without a word for so long, git is taken for dead; transfers report their progress every second.
const SILENCE: Duration = Duration::from_secs(300);
/// How often a running git is looked at.
const TICK: Duration = Duration::from_millis(10);
/// Most bytes of an answer: a list of references.
const ANSWER_LIMIT: u64 = 256 << 20;
/// Most bytes of git's last words.
const WORDS_LIMIT: usize = 2000;

/// What lines have that are no errors.
const PROGRESS: [&str; 7] = [
    "% (",
    "Cloning into",
    "Enumerating objects",
    "Total ",
    "registered for path",
    // What it guesses when ssh has said what was wrong.
    "Please make sure you have the correct access rights",
    "and the repository exists.",
];

/// Settings of every run. `core.hooksPath` is for hooks that a submodule or template could bring.
const SETTINGS: [(&str, &str); 12] = [
    ("core.hooksPath", "/dev/null"),
    ("core.fsmonitor", "false"),
    ("core.symlinks", "true"),
    ("core.protectHFS", "true"),
    ("core.protectNTFS", "true"),
    ("credential.helper", ""),
    ("safe.bareRepository", "explicit"),
    ("transfer.bundleURI", "false"),
    ("http.lowSpeedLimit", "1"),
    ("http.lowSpeedTime", "60"),
    ("gc.auto", "0"),
    ("advice.detachedHead", "false"),
];

/// Runs git for one source.
#[derive(Debug)]
pub(super) struct Git<'a> {
    /// An empty directory: home, templates, the start of the search for repositories.
    pub(super) home: &'a Path,
    /// Transports that may be used, as `GIT_ALLOW_PROTOCOL` wants them.
    pub(super) protocols: &'static str,
    /// How to reach servers: proxies, certificates.
    pub(super) network: &'a [(&'static str, OsString)],
    /// For a repository by http(s) whose server wants to know who asks.
    pub(super) header: Option<&'a GitHeader>,
    /// For a repository by ssh.
    pub(super) ssh: Option<&'a SshClient>,
    /// Ends git when thrown.
    pub(super) kill_switch: &'a KillSwitch,
}

impl Git<'_> {
    /// Runs git in `dir` and returns what it writes; `what` says what is done, for errors.
    pub(super) fn run(&self, dir: &Path, what: &str, args: &[&str]) -> Result<Vec<u8>, FetchError> {
        let mut command = self.command(dir);
        let mut child = command.args(args).spawn().map_err(|source| FetchError::GitMissing { source })?;
        let heard = Mutex::new(Instant::now());
        let (out, err) = (child.stdout.take(), child.stderr.take());
        let (status, answer, words) = thread::scope(|scope| {
            let answer = scope.spawn(|| read_answer(out, &heard));
            let words = scope.spawn(|| read_words(err, &heard));
            let status = self.wait(&mut child, &heard);
            (status, answer.join(), words.join())
        });
        let failed = |said: String| {
            let said = self.header.map_or_else(|| said.clone(), |header| header.redact(&said));
            FetchError::Git { what: what.to_owned(), said }
        };
        let words = words.unwrap_or_default();
        match status? {
            status if status.success() => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(source)) => Err(FetchError::Io { what: format!("read what git says of {what}"), source }),
                Err(panic) => std::panic::resume_unwind(panic),
            },
            status => Err(failed(if words.is_empty() { status.to_string() } else { words })),
        }
    }

    fn command(&self, dir: &Path) -> Command {
        let mut command = Command::new("git");
        command.env_clear().env("PATH", PATH).env("HOME", self.home).env("XDG_CONFIG_HOME", self.home);
        command.env("LC_ALL", "C").env("TZ", "UTC");
        command.env("GIT_CONFIG_NOSYSTEM", "1").env("GIT_CONFIG_SYSTEM", "/dev/null");
        command.env("GIT_CONFIG_GLOBAL", "/dev/null").env("GIT_ATTR_NOSYSTEM", "1");
        command.env("GIT_TEMPLATE_DIR", self.home).env("GIT_CEILING_DIRECTORIES", dir.parent().unwrap_or(dir));
        command.env("GIT_TERMINAL_PROMPT", "0").env("GIT_ASKPASS", "").env("SSH_ASKPASS", "");
        command.env("GIT_ALLOW_PROTOCOL", self.protocols).env("GIT_PROTOCOL_FROM_USER", "0");
        command.env("GIT_SSH_COMMAND", self.ssh.map_or("false", |ssh| &ssh.command));
        command.envs(self.ssh.map(|ssh| ("SSH_AUTH_SOCK", &ssh.agent)));
        command.env("GIT_SSH_VARIANT", "ssh").env("GIT_LFS_SKIP_SMUDGE", "1");
        command.envs(self.network.iter().map(|(name, value)| (name, value)));
        // In the environment, for everybody can read command lines.
        let settings = self.settings();
        command.env("GIT_CONFIG_COUNT", settings.len().to_string());
        for (number, (name, value)) in settings.iter().enumerate() {
            command.env(format!("GIT_CONFIG_KEY_{number}"), name).env(format!("GIT_CONFIG_VALUE_{number}"), value);
        }
        // A group of its own: what git starts must end with it.
        command.current_dir(dir).process_group(0);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    fn settings(&self) -> Vec<(String, String)> {
        let mut settings: Vec<_> =
            SETTINGS.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        if let Some(GitHeader { origin, line, .. }) = self.header {
            settings.push((format!("http.{origin}/.extraHeader"), line.clone()));
            // git would take the header along to wherever the server says that the repository is.
            settings.push(("http.followRedirects".to_owned(), "false".to_owned()));
        }
        settings
    }

    fn wait(&self, child: &mut Child, heard: &Mutex<Instant>) -> Result<ExitStatus, FetchError> {
        let mut ending = None;
        loop {
            if let Some(status) = child.try_wait().map_err(FetchError::io("wait for git"))? {
                return ending.map_or(Ok(status), Err);
            }
            let silent = heard.lock().map_or(Duration::ZERO, |heard| heard.elapsed());
            if ending.is_none() && (self.kill_switch.is_thrown() || silent > SILENCE) {
                ending = Some(match self.kill_switch.is_thrown() {
                    true => FetchError::Cancelled,
                    false => FetchError::Git { what: "transfer".to_owned(), said: "nothing came any more".to_owned() },
                });
                end(child);
            }
            thread::sleep(TICK);
        }
    }
}

/// Kills git and what it started.
fn end(child: &mut Child) {
    let group = i32::try_from(child.id()).ok().and_then(Pid::from_raw);
    if group.is_none_or(|group| kill_process_group(group, Signal::KILL).is_err()) {
        // It may have ended by itself just now; then there is nothing to kill.
        child.kill().ok();
    }
}

fn touch(heard: &Mutex<Instant>) {
    if let Ok(mut heard) = heard.lock() {
        *heard = Instant::now();
    }
}

fn read_answer(pipe: Option<impl Read>, heard: &Mutex<Instant>) -> io::Result<Vec<u8>> {
    let mut answer = Vec::new();
    if let Some(pipe) = pipe {
        pipe.take(ANSWER_LIMIT).read_to_end(&mut answer)?;
        touch(heard);
    }
    Ok(answer)
}

/// Reads to the end and keeps the last lines, without progress reports.
fn read_words(pipe: Option<impl Read>, heard: &Mutex<Instant>) -> String {
    let Some(mut pipe) = pipe else { return String::new() };
    let mut kept: Vec<u8> = Vec::new();
    let mut buffer = [0; 4096];
    while let Ok(n @ 1..) = pipe.read(&mut buffer) {
        touch(heard);
        kept.extend_from_slice(&buffer[..n]);
        if kept.len() > 2 * WORDS_LIMIT {
            kept.drain(..kept.len() - WORDS_LIMIT);
        }
    }
    words(&kept)
}

/// What git said as one line, without its reports of progress.
fn words(bytes: &[u8]) -> String {
    let text = String::from_utf8_lossy(bytes);
    let lines: Vec<String> = text
        .split(['\n', '\r'])
        .map(|line| line.chars().map(|c| if c.is_control() { ' ' } else { c }).collect::<String>().trim().to_owned())
        .filter(|line| !line.is_empty() && !PROGRESS.iter().any(|word| line.contains(word)))
        .collect();
    super::without_credentials(&lines.join("; "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_errors_of_git_are_kept_without_passwords_and_progress() {
        let said = b"Cloning into 'x'...\nReceiving objects: 1% (1/9)\rReceiving objects: 100% (9/9)\nfatal: unable to access 'https://u:secret@h/x.git/': no\n";
        assert_eq!(words(said), "fatal: unable to access 'https://h/x.git/': no");
        assert_eq!(words(b"just words\n"), "just words");
    }
}
