//! What the client is told: plain values, so that they can travel to the build process as one message.
//!
//! Nothing here is looked up. The caller reads the environment, `config.json`, `auth.json`, `registries.conf` and the
//! command line, and hands in the result; the only paths the client opens are those named in these values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::credentials::Credentials;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub(crate) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text; to be handed on, never to be formatted into a message.
    pub(crate) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Everything a [`Client`](super::Client) knows about its surroundings.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct ClientConfig {
    /// Who may enter where.
    pub(crate) credentials: Credentials,
    /// Exceptions by host. The first that names the host counts.
    pub(crate) hosts: Vec<HostRule>,
    /// Rewrites, mirrors and blocks by name. The longest prefix counts.
    pub(crate) registries: Vec<RegistryRule>,
    /// Certificates that may vouch for servers.
    pub(crate) roots: Roots,
    /// Directories in the form of Docker's and Podman's `certs.d`: `<dir>/<host[:port]>/{*.crt,*.cert,*.key}`. All are
    /// read; one that is not there says nothing.
    pub(crate) cert_dirs: Vec<PathBuf>,
    /// Proxies. Loopback is never reached through one.
    pub(crate) proxy: ProxyConfig,
    /// When to try again.
    pub(crate) retry: RetryPolicy,
    /// When to give up waiting.
    pub(crate) timeouts: Timeouts,
    /// `User-Agent`; `builder/<version>` when empty.
    pub(crate) user_agent: String,
}

/// May a host be spoken to without TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum PlainHttp {
    /// Never: https or an error.
    Never,
    /// Whatever the host speaks, https preferred; what it was is found out once.
    Allowed,
    /// Always http.
    Always,
}

/// Must a host's certificate hold?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum VerifyTls {
    /// Yes.
    Yes,
    /// Any certificate will do (`--tls-verify=false`).
    No,
}

/// What is special about one host. Without a rule: https with a valid certificate, or, on loopback, whatever answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HostRule {
    /// `host[:port]` as in image names; `docker.io` for Docker Hub.
    pub(crate) host: String,
    /// Whether http will do.
    pub(crate) plain_http: PlainHttp,
    /// Whether the certificate counts.
    pub(crate) verify: VerifyTls,
    /// More certificates that may vouch for this host, PEM.
    pub(crate) extra_roots: Vec<String>,
    /// What the client shows for itself.
    pub(crate) identity: Option<ClientIdentity>,
    /// Hosts (`host[:port]`) that may be sent this host's credentials in exchange for a token, besides those that the
    /// rule in `auth` lets pass.
    pub(crate) token_hosts: Vec<String>,
}

impl HostRule {
    /// The defaults for `host`, to be changed with struct update syntax.
    pub(crate) fn new(host: impl Into<String>) -> Self {
        Self {
            host: host.into(),
            plain_http: PlainHttp::Never,
            verify: VerifyTls::Yes,
            extra_roots: Vec::new(),
            identity: None,
            token_hosts: Vec::new(),
        }
    }
}

/// A client certificate with its key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct ClientIdentity {
    /// The certificate chain, leaf first, PEM.
    pub(crate) certificates: String,
    /// The private key, PEM.
    pub(crate) key: Secret,
}

/// Certificates that may vouch for any server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Roots {
    /// PEM file instead of the system's bundle (`SSL_CERT_FILE`).
    pub(crate) file: Option<PathBuf>,
    /// Directories of PEM files instead of the system's bundle (`SSL_CERT_DIR`).
    pub(crate) dirs: Vec<PathBuf>,
    /// More certificates, PEM.
    pub(crate) extra: Vec<String>,
}

/// Proxies, in the syntax of the environment variables of the same names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct ProxyConfig {
    /// For `http://` URLs. May hold a password.
    pub(crate) http_proxy: Option<Secret>,
    /// For `https://` URLs. May hold a password.
    pub(crate) https_proxy: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub(crate) no_proxy: Option<String>,
}

/// What is special about the names below one prefix, as in `registries.conf` version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RegistryRule {
    /// `host[:port][/path…]`, matched by whole components.
    pub(crate) prefix: String,
    /// What takes the place of the prefix in requests; the prefix itself when `None`.
    pub(crate) location: Option<String>,
    /// Places to ask before that, in order.
    pub(crate) mirrors: Vec<Mirror>,
    /// Names below the prefix are errors.
    pub(crate) blocked: bool,
}

/// A place that may hold what a registry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Mirror {
    /// Takes the place of the rule's prefix: `host[:port][/path…]`.
    pub(crate) location: String,
    /// What it is asked for.
    pub(crate) pull: MirrorPull,
}

/// What a mirror is asked for. A mirror that answers a tag is believed; one that answers a digest is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum MirrorPull {
    /// Tags and digests.
    All,
    /// Only what is named by digest.
    DigestOnly,
    /// Only what is named by tag.
    TagOnly,
}

/// When a request that failed for a passing reason is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct RetryPolicy {
    /// Tries in all, at least one. For a blob: tries without progress.
    pub(crate) attempts: u32,
    /// Wait before the second try; doubles from one to the next. Half of it is random.
    pub(crate) first_delay: Duration,
    /// Longest wait of our own choice.
    pub(crate) max_delay: Duration,
    /// Longest wait at the server's wish (`Retry-After`); when it asks for more, the error is final.
    pub(crate) max_retry_after: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self {
            attempts: 5,
            first_delay: Duration::from_millis(500),
            max_delay: Duration::from_secs(15),
            max_retry_after: Duration::from_secs(90),
        }
    }
}

/// How long the client waits before it calls a connection broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Timeouts {
    /// Until TCP and TLS are up.
    pub(crate) connect: Duration,
    /// Without a byte of the answer: until its header, and between two reads of its body.
    pub(crate) silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), silence: Duration::from_secs(60) }
    }
}
