//! What the client is told: plain values, so that they can travel to the build process as one message.
//!
//! Nothing here is looked up. The caller reads the environment, `config.json`, `auth.json`, `registries.conf` and the
//! command line, and hands in the result; the only paths the client opens are those named in these values.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::credentials::Credentials;
use super::reference::image_host;

/// A text that is never shown.
#[derive(Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Secret(String);

impl Secret {
    /// Wraps `text`.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// Returns the text; to be handed on, never to be formatted into a message.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[secret]")
    }
}

/// Everything that is known about the way to registries.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct ClientConfig {
    /// Who may enter where.
    pub credentials: Credentials,
    /// For which hosts somebody else is asked first, see [`crate::Builder::credential_source`].
    pub helpers: HelperHosts,
    /// Exceptions by host. The first that names the host counts.
    pub hosts: Vec<HostRule>,
    /// Rewrites, mirrors and blocks by name. The longest prefix counts.
    pub registries: Vec<RegistryRule>,
    /// Certificates that may vouch for servers.
    pub roots: Roots,
    /// Directories in the form of Docker's and Podman's `certs.d`: `<dir>/<host[:port]>/{*.crt,*.cert,*.key}`. All are
    /// read; one that is not there says nothing.
    pub cert_dirs: Vec<PathBuf>,
    /// Proxies. Loopback is never reached through one.
    pub proxy: ProxyConfig,
    /// When to try again.
    pub retry: RetryPolicy,
    /// When to give up waiting.
    pub timeouts: Timeouts,
    /// `User-Agent`; `builder/<version>` when empty.
    pub user_agent: String,
}

/// The hosts whose credentials come from a credential source.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HelperHosts {
    /// All hosts.
    pub all: bool,
    /// These, `host[:port]` as in image names.
    pub hosts: Vec<String>,
}

impl HelperHosts {
    pub(super) fn contain(&self, host: &str) -> bool {
        self.all || self.hosts.iter().any(|name| image_host(name) == image_host(host))
    }
}

/// May a host be spoken to without TLS?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum PlainHttp {
    /// Never: https or an error.
    Never,
    /// Whatever the host speaks, https preferred; what it was is found out once.
    Allowed,
    /// Always http.
    Always,
}

/// Must a host's certificate hold?
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum VerifyTls {
    /// Yes.
    Yes,
    /// Any certificate will do (`--tls-verify=false`).
    No,
}

/// What is special about one host. Without a rule: https with a valid certificate, or, on loopback, whatever answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRule {
    /// `host[:port]` as in image names; `docker.io` for Docker Hub; `*.example.com` for all hosts below that domain, with
    /// any port, and `*` for every host, if no rule names the host itself.
    pub host: String,
    /// Whether http will do.
    pub plain_http: PlainHttp,
    /// Whether the certificate counts.
    pub verify: VerifyTls,
    /// More certificates that may vouch for this host, PEM.
    pub extra_roots: Vec<String>,
    /// What the client shows for itself.
    pub identity: Option<ClientIdentity>,
    /// Hosts (`host[:port]`) that may be sent this host's credentials in exchange for a token, besides those that the
    /// rule in `auth` lets pass.
    pub token_hosts: Vec<String>,
}

impl HostRule {
    /// The defaults for `host`, to be changed with struct update syntax.
    pub fn new(host: impl Into<String>) -> Self {
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
pub struct ClientIdentity {
    /// The certificate chain, leaf first, PEM.
    pub certificates: String,
    /// The private key, PEM.
    pub key: Secret,
}

/// Certificates that may vouch for any server.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Roots {
    /// PEM file instead of the system's bundle (`SSL_CERT_FILE`).
    pub file: Option<PathBuf>,
    /// Directories of PEM files instead of the system's bundle (`SSL_CERT_DIR`).
    pub dirs: Vec<PathBuf>,
    /// More certificates, PEM.
    pub extra: Vec<String>,
}

/// Proxies, in the syntax of the environment variables of the same names.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyConfig {
    /// For `http://` URLs. May hold a password.
    pub http_proxy: Option<Secret>,
    /// For `https://` URLs. May hold a password.
    pub https_proxy: Option<Secret>,
    /// Hosts, domains and networks that are reached directly, separated by commas.
    pub no_proxy: Option<String>,
}

/// What is special about the names below one prefix, as in `registries.conf` version 2.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RegistryRule {
    /// `host[:port][/path…]`, matched by whole components; `*.example.com[/path…]` is for all hosts below that domain. What
    /// is blocked without a port is blocked with any.
    pub prefix: String,
    /// What takes the place of the prefix when it is read from; the prefix itself when `None`.
    pub location: Option<String>,
    /// Places to ask before that, in order.
    pub mirrors: Vec<Mirror>,
    /// Names below the prefix are errors.
    pub blocked: bool,
    /// Names below the prefix are read and written without certificates that hold, or by http; other names of the same
    /// host are not.
    pub insecure: bool,
}

/// A place that may hold what a registry holds.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mirror {
    /// Takes the place of the rule's prefix: `host[:port][/path…]`.
    pub location: String,
    /// What it is asked for.
    pub pull: MirrorPull,
    /// As for a rule.
    pub insecure: bool,
}

/// What a mirror is asked for. A mirror that answers a tag is believed; one that answers a digest is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum MirrorPull {
    /// Tags and digests.
    All,
    /// Only what is named by digest.
    DigestOnly,
    /// Only what is named by tag.
    TagOnly,
}

/// When a request that failed for a passing reason is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Tries in all, at least one. For a blob: tries without progress.
    pub attempts: u32,
    /// Wait before the second try; doubles from one to the next. Half of it is random.
    pub first_delay: Duration,
    /// Longest wait of our own choice.
    pub max_delay: Duration,
    /// Longest wait at the server's wish (`Retry-After`); when it asks for more, the error is final.
    pub max_retry_after: Duration,
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
pub struct Timeouts {
    /// Until TCP and TLS are up.
    pub connect: Duration,
    /// Without a byte of the answer: until its header, and between two reads of its body.
    pub silence: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self { connect: Duration::from_secs(20), silence: Duration::from_secs(60) }
    }
}
