//! Why something could not be fetched, and who can act.

use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind};
use crate::registry;

/// A source could not be fetched, or is not what it should be. URLs stand here without user names and passwords.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FetchError {
    /// The text is no URL.
    #[error("{url:?} is not a URL: {problem}")]
    Url { url: String, problem: String },
    /// The server, or the way to it.
    #[error("{url} cannot be downloaded")]
    Download { url: String, source: registry::Error },
    /// The server that the URL names cannot be spoken to.
    #[error("{url} cannot be downloaded")]
    Unreachable { url: String, source: registry::Cause },
    /// The bytes are others than the Dockerfile says.
    #[error("{url} has the checksum {found}, expected {expected}")]
    Checksum { url: String, expected: Digest, found: Digest },
    /// Reading or writing here.
    #[error("{what}")]
    Io { what: String, source: io::Error },
    /// The state directory.
    #[error("the store cannot take {what}")]
    Store { what: String, source: crate::store::Error },
    /// A file that should be a tar.
    #[error("{path:?} is not a tar archive")]
    NotAnArchive { path: PathBuf },
    /// An archive that does not hold what it seems to.
    #[error("{what} cannot be unpacked")]
    Unpack { what: String, source: crate::layer::Error },
    /// A part of a git URL that git must not see.
    #[error("the git source {url:?} is refused: {problem}")]
    GitRefused { url: String, problem: String },
    /// A secret for a server that cannot be sent.
    #[error("the secret {id:?} cannot be sent to a server: {problem}")]
    BadSecret { id: String, problem: String },
    /// A secret for any host, and one that everybody in between could read.
    #[error("the secret {id:?} would go to {host} unencrypted")]
    UnencryptedSecret { id: String, host: String },
    /// A repository by ssh, and no agent.
    #[error("{url} is reached by ssh, and no ssh agent was given")]
    SshAgent { url: String },
    /// A socket cannot be made there.
    #[error("the path {path:?} is too long for the socket of an ssh agent")]
    SocketPath { path: PathBuf },
    /// OpenSSH is not there.
    #[error("{program} cannot be started")]
    SshMissing { program: &'static str, source: io::Error },
    /// A key that the agent does not take.
    #[error("an ssh key cannot be used: {said}")]
    SshKeys { said: String },
    /// There is no such program.
    #[error("git cannot be started")]
    GitMissing { source: io::Error },
    /// git said no.
    #[error("git {what} failed: {said}")]
    Git { what: String, said: String },
    /// There is no such branch, tag or commit.
    #[error("{url} has no branch, tag or commit {reference:?}")]
    GitReference { url: String, reference: String },
    /// The commit is another than the Dockerfile says.
    #[error("{url} is at commit {found}, expected {expected}")]
    GitChecksum { url: String, expected: String, found: String },
    /// The directory is not one of the repository.
    #[error("{subdir:?} is not a directory of {url}")]
    GitSubdir { url: String, subdir: String },
    /// Somebody cancelled.
    #[error("the build was cancelled")]
    Cancelled,
}

impl FetchError {
    fn kind(&self) -> ErrorKind {
        match self {
            Self::Store { .. } => ErrorKind::Store,
            Self::GitMissing { .. } | Self::SshMissing { .. } => ErrorKind::HostUnsupported,
            Self::BadSecret { .. } | Self::SshKeys { .. } | Self::SocketPath { .. } => ErrorKind::Request,
            Self::Cancelled => ErrorKind::Cancelled,
            _ => ErrorKind::Context,
        }
    }

    fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Download {
                source: registry::Error::Unauthorized { .. } | registry::Error::Denied { .. }, ..
            } => Some(
                "for a private file give --secret id=HTTP_AUTH_TOKEN_<host>; a redirect to another host is asked \
                     without it",
            ),
            Self::Download {
                source: source @ (registry::Error::Tls { .. } | registry::Error::NoSuchHost { .. }),
                ..
            } => source.hint(),
            Self::Checksum { .. } => Some("find out why it changed; if that is right, write the new checksum"),
            Self::GitMissing { .. } => Some("install git, or use a tar archive of the repository"),
            Self::UnencryptedSecret { .. } => Some("use https, or name the host: GIT_AUTH_TOKEN.<host>"),
            Self::SshAgent { .. } => Some("build with --ssh default, or --ssh default=KEYFILE"),
            Self::SocketPath { .. } => Some("use a state directory with a shorter path"),
            Self::SshMissing { .. } => Some("install the client of OpenSSH, or start an agent and name its socket"),
            Self::SshKeys { .. } => {
                Some("a key with a passphrase must be in an agent already; a key file must be closed to others")
            }
            Self::Git { said, .. } => git_hint(said),
            Self::GitReference { .. } => Some("a commit must be given by all of its digits"),
            _ => None,
        }
    }

    /// `url` cannot be downloaded. The address is said once, unless a redirect led to another.
    pub(super) fn download(url: &str, source: registry::Error) -> Self {
        let url = url.to_owned();
        match source {
            registry::Error::Network { host, source, .. } if url.starts_with(&host) => {
                Self::Unreachable { url, source }
            }
            source => Self::Download { url, source },
        }
    }

    /// For `map_err`: an operation of this machine that failed.
    pub(super) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// For `map_err`: an operation of the store that failed.
    pub(super) fn store(what: impl Into<String>) -> impl FnOnce(crate::store::Error) -> Self {
        let what = what.into();
        move |source| Self::Store { what, source }
    }
}

/// What to do about the last words of git.
fn git_hint(said: &str) -> Option<&'static str> {
    let table = [
        (
            "Host key verification failed",
            "compare the key of the server with what its owner says, then add it: ssh-keyscan HOST >> ~/.ssh/known_hosts",
        ),
        ("Permission denied (publickey", "the server takes none of the keys of the ssh agent: see ssh-add -l"),
        ("could not read Username", "for a private repository give --secret id=GIT_AUTH_TOKEN.<host>"),
        ("could not read Password", "for a private repository give --secret id=GIT_AUTH_TOKEN.<host>"),
        ("cannot run ssh", "install the client of OpenSSH"),
        ("error: 30", "secrets are not sent where a redirect leads: use the URL of the repository itself"),
        ("transport 'ext' not allowed", "submodules come by https, or as the repository itself; ?submodules=false"),
    ];
    table.iter().find(|(words, _)| said.contains(words)).map(|(_, hint)| *hint)
}

impl From<FetchError> for Error {
    fn from(error: FetchError) -> Self {
        let this = Self::from_source(error.kind(), &error);
        match error.hint() {
            Some(hint) => this.hint(hint),
            None => this,
        }
    }
}
