//! What can go wrong between the client and a registry, and what to do about it.
//!
//! Texts from a registry are shown, but bounded and without control characters; URLs are shown without their query,
//! which may be a signature.

use std::time::Duration;

use reqwest::StatusCode;
use serde::Deserialize;

use crate::digest::Digest;

/// Longest text of a registry that is passed on, in characters.
const MAX_DETAIL: usize = 400;

/// The cause of a failed transfer.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;

/// A registry could not be asked, or its answer cannot be used.
///
/// `subject` is always what was asked for: `manifest of docker.io/library/busybox:latest`.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The registry wants to know who asks, or does not like the answer (401).
    #[error("not authorized to access {subject}: {detail}")]
    Unauthorized {
        /// What was asked for.
        subject: String,
        /// The registry's words and which credentials were used.
        detail: String,
    },
    /// The registry knows who asks and refuses (403).
    #[error("access to {subject} is denied: {detail}")]
    Denied {
        /// What was asked for.
        subject: String,
        /// The registry's words.
        detail: String,
    },
    /// There is no such thing (404).
    #[error("{subject} does not exist: {detail}")]
    NotFound {
        /// What was asked for.
        subject: String,
        /// The registry's words.
        detail: String,
    },
    /// Asked too often (429).
    #[error("too many requests, asking for {subject}: {detail}")]
    RateLimited {
        /// What was asked for.
        subject: String,
        /// The registry's words.
        detail: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// Any other answer that is no success.
    #[error("unexpected answer {status}, asking for {subject}: {detail}")]
    Status {
        /// What was asked for.
        subject: String,
        /// The HTTP status.
        status: u16,
        /// The registry's words.
        detail: String,
        /// When to come back.
        retry_after: Option<Duration>,
    },
    /// The connection could not be made, broke or went silent.
    #[error("connection to {host}")]
    Network {
        /// What was asked for.
        subject: String,
        /// `scheme://host[:port]`.
        host: String,
        /// Why.
        source: Cause,
    },
    /// The resolver knows that there is no such name.
    #[error("there is no host {name:?}")]
    NoSuchHost {
        /// What was asked for.
        subject: String,
        /// The name.
        name: String,
    },
    /// The other side is not who it should be, or does not speak TLS.
    #[error("TLS with {host}")]
    Tls {
        /// What was asked for.
        subject: String,
        /// `scheme://host[:port]`.
        host: String,
        /// What would help.
        hint: Option<&'static str>,
        /// Why.
        source: Cause,
    },
    /// What is to be sent cannot be read here.
    #[error("read what is to be sent for {subject}")]
    Source {
        /// What was to be sent.
        subject: String,
        /// Why.
        source: std::io::Error,
    },
    /// The body ended early.
    #[error("{subject} ended after {received} of {size} bytes")]
    Truncated {
        /// What was asked for.
        subject: String,
        /// Bytes that came.
        received: u64,
        /// Bytes that should have come.
        size: u64,
    },
    /// The bytes are not what the name says.
    #[error("{subject} has digest {found}, expected {expected}")]
    DigestMismatch {
        /// What was asked for.
        subject: String,
        /// By its name.
        expected: Digest,
        /// By its bytes, or as the registry says.
        found: String,
    },
    /// The blob's size is not what its descriptor says.
    #[error("{subject} has {found} bytes, expected {expected}")]
    SizeMismatch {
        /// What was asked for.
        subject: String,
        /// By its descriptor.
        expected: u64,
        /// By the registry: a number, or "more".
        found: String,
    },
    /// More bytes than such a thing may have.
    #[error("{subject} is larger than {limit} bytes")]
    TooLarge {
        /// What was asked for.
        subject: String,
        /// The bound.
        limit: u64,
    },
    /// The answer breaks the protocol.
    #[error("{subject}: {problem}")]
    Protocol {
        /// What was asked for.
        subject: String,
        /// How.
        problem: String,
    },
    /// The registry names a token server that must not see what it would be sent.
    #[error("registry {host} asks to fetch a token from {realm:?}, refused: {problem}")]
    Realm {
        /// The registry.
        host: String,
        /// The URL as the registry wrote it, without its query.
        realm: String,
        /// Why.
        problem: &'static str,
    },
    /// A redirect leads where it must not.
    #[error("{subject} is redirected to {target}: {problem}")]
    Redirect {
        /// What was asked for.
        subject: String,
        /// `scheme://host[:port]`.
        target: String,
        /// Why.
        problem: &'static str,
    },
    /// A rule forbids the name.
    #[error("{name} is blocked by the rule for {prefix}")]
    Blocked {
        /// The image.
        name: String,
        /// The rule.
        prefix: String,
    },
    /// A value of the configuration cannot be used.
    #[error("{what}")]
    Config {
        /// Which.
        what: String,
        /// Why.
        source: Cause,
    },
}

impl Error {
    /// May the same request succeed a moment later?
    pub(crate) fn is_transient(&self) -> bool {
        match self {
            Self::Network { .. } | Self::Truncated { .. } | Self::RateLimited { .. } => true,
            Self::Status { status, .. } => matches!(status, 408 | 500 | 502..=504 | 520..=599),
            _ => false,
        }
    }

    /// The same with `****` for each of `hidden` in the server's words: it may send back what it got.
    pub(super) fn hiding(mut self, hidden: &[&str]) -> Self {
        if let Self::Unauthorized { detail, .. }
        | Self::Denied { detail, .. }
        | Self::NotFound { detail, .. }
        | Self::RateLimited { detail, .. }
        | Self::Status { detail, .. } = &mut self
        {
            *detail = hidden.iter().fold(std::mem::take(detail), |text, hidden| text.replace(hidden, "****"));
        }
        self
    }

    /// What was asked for, where the text of the error does not say it.
    pub(super) fn unsaid_subject(&self) -> Option<&str> {
        match self {
            Self::Network { subject, .. } | Self::NoSuchHost { subject, .. } | Self::Tls { subject, .. } => {
                Some(subject)
            }
            _ => None,
        }
    }

    /// How long the server asks to wait.
    pub(super) fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::RateLimited { retry_after, .. } | Self::Status { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// What the user can do, where that is known.
    pub(crate) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Tls { hint, .. } => *hint,
            Self::NoSuchHost { .. } => Some("check the spelling of the host, and the DNS server of this machine"),
            Self::Realm { .. } => Some("if that server is yours, name it in the host's rule as a token host"),
            Self::Unauthorized { .. } => {
                Some("check the name: registries say this of what does not exist as well; if it is private, log in")
            }
            Self::RateLimited { .. } => {
                Some("log in, or use a mirror: many registries count anonymous requests by address")
            }
            _ => None,
        }
    }

    /// Turns an answer that is no success into an error with the registry's own words.
    pub(super) fn from_status(
        subject: &str,
        status: StatusCode,
        detail: String,
        retry_after: Option<Duration>,
    ) -> Self {
        let subject = subject.to_owned();
        match status {
            StatusCode::UNAUTHORIZED => Self::Unauthorized { subject, detail },
            StatusCode::FORBIDDEN => Self::Denied { subject, detail },
            StatusCode::NOT_FOUND => Self::NotFound { subject, detail },
            StatusCode::TOO_MANY_REQUESTS => Self::RateLimited { subject, detail, retry_after },
            status => Self::Status { subject, status: status.as_u16(), detail, retry_after },
        }
    }
}

/// Renders the body of an error answer: `CODE: message` of each error (distribution-spec, "Error Codes"), `error_description`
/// of a token server, or the text itself; the reason phrase when there is none.
pub(super) fn detail(status: StatusCode, body: &[u8]) -> String {
    #[derive(Deserialize)]
    struct Envelope {
        errors: Vec<Item>,
    }
    #[derive(Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        detail: serde_json::Value,
    }
    #[derive(Deserialize)]
    struct Token {
        #[serde(alias = "error_description", alias = "message")]
        details: String,
    }
    let text = if let Ok(envelope) = serde_json::from_slice::<Envelope>(body) {
        let render = |item: &Item| {
            let mut text = item.code.clone();
            // Harbor, ECR and others put the reason into `detail` and repeat the code as the message.
            for part in [item.message.as_str(), item.detail.as_str().unwrap_or_default()] {
                if !part.is_empty() {
                    text.push_str(if text.is_empty() { "" } else { ": " });
                    text.push_str(part);
                }
            }
            text
        };
        envelope.errors.iter().take(5).map(render).collect::<Vec<_>>().join("; ")
    } else if let Ok(token) = serde_json::from_slice::<Token>(body) {
        token.details
    } else {
        let text = String::from_utf8_lossy(body);
        let text = text.trim();
        // A page of a proxy says less than its status.
        if text.starts_with('<') { String::new() } else { text.to_owned() }
    };
    let text = printable(&text);
    if text.is_empty() { status.to_string() } else { text }
}

/// Returns at most [`MAX_DETAIL`] characters of `text`, control characters and line ends as spaces.
pub(super) fn printable(text: &str) -> String {
    let mut out: String = text
        .chars()
        .take(MAX_DETAIL)
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect::<String>()
        .trim()
        .to_owned();
    if text.chars().nth(MAX_DETAIL).is_some() {
        out.push('…');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_registrys_own_words_are_passed_on_bounded() {
        let status = StatusCode::NOT_FOUND;
        let table: [(&[u8], &str); 7] = [
            (
                br#"{"errors":[{"code":"MANIFEST_UNKNOWN","message":"manifest unknown","detail":{"Tag":"x"}}]}"#,
                "MANIFEST_UNKNOWN: manifest unknown",
            ),
            (br#"{"errors":[{"code":"A"},{"message":"b","detail":"c"}]}"#, "A; b: c"),
            (br#"{"details":"incorrect username or password"}"#, "incorrect username or password"),
            (b"no such\x1b[31m\nthing", "no such [31m thing"),
            (b"<html>big page</html>", "404 Not Found"),
            (b"", "404 Not Found"),
            (br#"{"errors":[]}"#, "404 Not Found"),
        ];
        for (body, text) in table {
            assert_eq!(detail(status, body), text);
        }
        assert_eq!(detail(status, "ä".repeat(5000).as_bytes()).chars().count(), MAX_DETAIL + 1);
    }
}
