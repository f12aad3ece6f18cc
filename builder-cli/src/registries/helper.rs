//! Credential helpers: programs `docker-credential-<name>` that are asked on standard input and answer on standard output.

use std::io::{Read as _, Write as _};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use builder_core::registries::{Credential, Secret};
use serde::Deserialize;

/// How long a helper may take. Some ask a person, some a cloud.
const LIMIT: Duration = Duration::from_secs(60);
/// How often it is looked whether a helper that has answered has ended.
const PAUSE: Duration = Duration::from_millis(2);
/// Longest answer that is read, in bytes.
const MAX_ANSWER: u64 = 1 << 20;
/// What helpers get of the environment, besides what begins with one of [`PREFIXES`]: nothing that is ours or the build's.
const VARIABLES: [&str; 18] = [
    "PATH",
    "HOME",
    "USER",
    "LOGNAME",
    "LANG",
    "DISPLAY",
    "WAYLAND_DISPLAY",
    "DBUS_SESSION_BUS_ADDRESS",
    "GNUPGHOME",
    "GPG_TTY",
    "PASSWORD_STORE_DIR",
    "SSL_CERT_FILE",
    "SSL_CERT_DIR",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "NO_PROXY",
    "https_proxy",
    "no_proxy",
];
const PREFIXES: [&str; 7] = ["XDG_", "LC_", "AWS_", "AZURE_", "GOOGLE_", "CLOUDSDK_", "ECR_"];

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    #[serde(default)]
    username: String,
    #[serde(default)]
    secret: String,
}

/// Asks the helper `name` for the credential of `server`.
pub(super) fn ask(name: &str, server: &str) -> Result<Option<Credential>, String> {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    if name.is_empty() || !name.chars().all(plain) {
        return Err(format!("{name:?} is no name of a credential helper"));
    }
    ask_program(LIMIT, &format!("docker-credential-{name}"), server)
}

fn ask_program(limit: Duration, program: &str, server: &str) -> Result<Option<Credential>, String> {
    let deadline = Instant::now() + limit;
    let kept = std::env::vars_os().filter(|(key, _)| {
        key.to_str()
            .is_some_and(|key| VARIABLES.contains(&key) || PREFIXES.iter().any(|prefix| key.starts_with(prefix)))
    });
    let mut command = Command::new(program);
    command.arg("get").env_clear().envs(kept);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().map_err(|error| format!("start {program}: {error}"))?;
    let (stdin, stdout) = (child.stdin.take(), child.stdout.take());
    let (sender, answer) = mpsc::channel();
    let server = server.to_owned();
    // A thread of its own: neither the question nor the answer can make this one wait.
    let talk = move || {
        if let Some(mut stdin) = stdin {
            // A helper that does not read its question says something else is wrong.
            stdin.write_all(server.as_bytes()).ok();
        }
        let mut text = Vec::new();
        let read = stdout.map(|stdout| stdout.take(MAX_ANSWER).read_to_end(&mut text));
        sender.send(read.transpose().map(|_| text)).ok();
    };
    std::thread::spawn(talk);
    let answer = answer.recv_timeout(limit);
    // One that has answered must still end, which says whether it is an answer.
    let ended = wait_until(&mut child, deadline).map_err(|error| format!("wait for {program}: {error}"))?;
    match (answer, ended) {
        (Ok(Ok(answer)), Some(status)) if status.success() => read(program, &answer),
        (Ok(Ok(answer)), Some(_)) => refused(program, &answer),
        _ => Err(format!("{program} gave no answer within {} seconds", limit.as_secs())),
    }
}

/// Waits for the end of a process, and brings it about at the deadline: then there is no status.
fn wait_until(child: &mut Child, deadline: Instant) -> std::io::Result<Option<ExitStatus>> {
    loop {
        match child.try_wait()? {
            Some(status) => return Ok(Some(status)),
            None if Instant::now() < deadline => std::thread::sleep(PAUSE),
            None => {
                child.kill()?;
                return child.wait().map(|_| None);
            }
        }
    }
}

fn read(program: &str, answer: &[u8]) -> Result<Option<Credential>, String> {
    // The text may hold a secret: it is not shown.
    let answer: Answer = serde_json::from_slice(answer).map_err(|_| format!("{program} answered something else"))?;
    let secret = Secret::new(answer.secret);
    Ok(match answer.username.as_str() {
        _ if secret.reveal().is_empty() => None,
        "<token>" => Some(Credential::IdentityToken(secret)),
        _ => Some(Credential::Basic { username: answer.username, password: secret }),
    })
}

/// That there is nothing is said in words, on standard output.
fn refused(program: &str, answer: &[u8]) -> Result<Option<Credential>, String> {
    let text = String::from_utf8_lossy(answer);
    if text.to_lowercase().contains("credentials not found") {
        return Ok(None);
    }
    let shown: String = text.chars().filter(|c| !c.is_control()).take(200).collect();
    Err(format!("{program} failed: {shown}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_helper_that_does_not_end_is_ended() {
        let dir = tempfile::tempdir().unwrap();
        // One that says nothing, one that answers and stays, one that closes its output and stays.
        let answer = "echo '{\"Username\":\"u\",\"Secret\":\"s\"}'";
        for (name, script) in [("mute", ""), ("stays", answer), ("closed", "exec >&-")] {
            let path = dir.path().join(name);
            let pid = dir.path().join(format!("{name}.pid"));
            std::fs::write(&path, format!("#!/bin/sh\necho $$ > {}\n{script}\nexec sleep 1000\n", pid.display()))
                .unwrap();
            std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
            let error = ask_program(Duration::from_secs(1), &path.display().to_string(), "h").unwrap_err();
            assert!(error.contains("no answer within 1 seconds"), "{name}: {error}");
            let pid = std::fs::read_to_string(pid).unwrap();
            assert!(!std::path::Path::new("/proc").join(pid.trim()).exists(), "{name} is still there");
        }
    }

    #[test]
    fn answers() {
        let token = read("p", br#"{"ServerURL":"x","Username":"<token>","Secret":"t"}"#).unwrap();
        assert_eq!(token, Some(Credential::IdentityToken(Secret::new("t"))));
        let basic = read("p", br#"{"Username":"u","Secret":"s"}"#).unwrap();
        assert_eq!(basic, Some(Credential::Basic { username: "u".into(), password: Secret::new("s") }));
        assert_eq!(read("p", br#"{"Username":"","Secret":""}"#).unwrap(), None);
        assert!(!read("p", b"hunter2").unwrap_err().contains("hunter2"));
        assert_eq!(refused("p", b"credentials not found in native keychain\n").unwrap(), None);
        assert!(refused("p", b"locked").unwrap_err().contains("locked"));
        assert!(ask("../x", "h").is_err() && ask("", "h").is_err());
    }
}
