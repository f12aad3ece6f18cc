//! What the caller gives for servers: values for `Authorization` by host, an ssh agent, keys of ssh servers.
//!
//! They come as secrets with names of their own, which BuildKit has fixed:
//!
//! | name | for | becomes |
//! |---|---|---|
//! | `HTTP_AUTH_TOKEN_<host>` | a file by http(s) | `Bearer <value>` |
//! | `HTTP_AUTH_HEADER_<host>` | the same | `<value>` |
//! | `GIT_AUTH_HEADER.<host>`, `GIT_AUTH_HEADER` | a repository by http(s) | `<value>` |
//! | `GIT_AUTH_TOKEN.<host>`, `GIT_AUTH_TOKEN` | the same | `basic`, with the user `x-access-token` |
//!
//! The host is with or without its port; `.` in the place of the last `_` of the first two means the same, as their
//! likeness to the others suggests. A value goes to the origin it was looked up for and nowhere else, redirects
//! or not; it stands on no command line, in no file, no record and no message.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::Url;
use reqwest::header::HeaderValue;

use super::FetchError;
use crate::plan::percent_decode;
use crate::registry::Wanted;
use crate::request::{BuildRequest, Secret};

/// Which agent opens git repositories.
pub(crate) const DEFAULT_AGENT: &str = "default";

/// Shorter values are not hidden in what a server says, in bytes.
const SHORTEST_HIDDEN: usize = 5;

/// What the caller gives for servers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Access {
    /// Those with one of the names above.
    secrets: HashMap<String, Secret>,
    agent: Option<PathBuf>,
    known_hosts: String,
}

/// What git is told of one repository by http: a setting that is never shown.
#[derive(Clone)]
pub(super) struct GitHeader {
    /// `scheme://host[:port]`, which alone gets it.
    pub(super) origin: String,
    /// A whole line.
    pub(super) line: String,
    /// What of it must not be shown either.
    secret: String,
}

impl std::fmt::Debug for GitHeader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("GitHeader").field("origin", &self.origin).finish_non_exhaustive()
    }
}

impl GitHeader {
    /// `text` without the value: a server may send back what it got.
    pub(super) fn redact(&self, text: &str) -> String {
        let value = self.line.rsplit(' ').next().unwrap_or_default();
        // Shorter ones turn up in harmless words.
        [self.secret.as_str(), value]
            .iter()
            .filter(|hidden| hidden.len() >= SHORTEST_HIDDEN)
            .fold(text.to_owned(), |text, hidden| text.replace(hidden, "****"))
    }
}

#[derive(Clone, Copy)]
enum Form {
    /// The value is the header.
    Header,
    /// The value is a token.
    Token,
}

impl Access {
    /// Takes what `request` gives; `agent` is the one of [`DEFAULT_AGENT`].
    pub(crate) fn new(request: &BuildRequest, agent: Option<PathBuf>) -> Self {
        let ours = |(id, _): &&(String, Secret)| id.starts_with("HTTP_AUTH_") || id.starts_with("GIT_AUTH_");
        let secrets = request.secrets.iter().filter(ours).cloned().collect();
        Self { secrets, agent, known_hosts: request.ssh_known_hosts.clone() }
    }

    /// The socket of the agent that opens git repositories.
    pub(super) fn agent(&self) -> Option<&Path> {
        self.agent.as_deref()
    }

    /// Lines of a `known_hosts` file.
    pub(super) fn known_hosts(&self) -> &str {
        &self.known_hosts
    }

    /// What to ask for a file: a user name and password in `url` win over secrets.
    pub(super) fn http(&self, url: &Url) -> Result<Wanted, FetchError> {
        let mut bare = url.clone();
        // Neither can fail for a URL that has a host, as http and https do.
        let cleared = bare.set_username("").and_then(|()| bare.set_password(None));
        let authorization = match from_url(url).filter(|_| cleared.is_ok()) {
            Some(basic) => Some(header("the URL", &basic)?),
            None => self.http_secret(url)?,
        };
        Ok(Wanted { url: bare, authorization })
    }

    fn http_secret(&self, url: &Url) -> Result<Option<HeaderValue>, FetchError> {
        for host in hosts(url) {
            let names = [
                ("HTTP_AUTH_TOKEN_", Form::Token),
                ("HTTP_AUTH_TOKEN.", Form::Token),
                ("HTTP_AUTH_HEADER_", Form::Header),
                ("HTTP_AUTH_HEADER.", Form::Header),
            ];
            for (name, form) in names {
                let id = format!("{name}{host}");
                let Some(value) = self.value(&id)? else { continue };
                let value = match form {
                    Form::Header => value,
                    Form::Token => format!("Bearer {value}"),
                };
                return header(&id, &value).map(Some);
            }
        }
        Ok(None)
    }

    /// The header for the repository `remote`; none where it is not by http(s) or holds a password itself.
    pub(super) fn git(&self, remote: &str) -> Result<Option<GitHeader>, FetchError> {
        let Some(url) = Url::parse(remote).ok().filter(|url| matches!(url.scheme(), "http" | "https")) else {
            return Ok(None);
        };
        if url.password().is_some() {
            return Ok(None);
        }
        let hosts = hosts(&url).into_iter().map(|host| format!(".{host}")).chain([String::new()]);
        for host in hosts {
            for (name, form) in [("GIT_AUTH_HEADER", Form::Header), ("GIT_AUTH_TOKEN", Form::Token)] {
                let id = format!("{name}{host}");
                let Some(secret) = self.value(&id)? else { continue };
                if host.is_empty() && url.scheme() == "http" && !is_loopback(&url) {
                    return Err(FetchError::UnencryptedSecret {
                        id,
                        host: url.host_str().unwrap_or_default().to_owned(),
                    });
                }
                let value = match form {
                    Form::Header => secret.clone(),
                    Form::Token => format!("basic {}", STANDARD.encode(format!("x-access-token:{secret}"))),
                };
                let origin = url.origin().ascii_serialization();
                return Ok(Some(GitHeader { origin, line: format!("Authorization: {value}"), secret }));
            }
        }
        Ok(None)
    }

    /// The value of a secret without the line end that files have.
    fn value(&self, id: &str) -> Result<Option<String>, FetchError> {
        let Some(secret) = self.secrets.get(id) else { return Ok(None) };
        let bad = |problem: &str| FetchError::BadSecret { id: id.to_owned(), problem: problem.to_owned() };
        let text = std::str::from_utf8(secret.value()).map_err(|_| bad("it is not text"))?;
        let text = text.strip_suffix('\n').unwrap_or(text);
        let text = text.strip_suffix('\r').unwrap_or(text);
        match text {
            "" => Err(bad("it is empty")),
            text if text.chars().any(char::is_control) => Err(bad("it has several lines or control characters")),
            text => Ok(Some(text.to_owned())),
        }
    }
}

/// `host:port` and `host`, as secrets name them.
fn hosts(url: &Url) -> Vec<String> {
    let Some(host) = url.host_str() else { return Vec::new() };
    let with_port = url.port().map(|port| format!("{host}:{port}"));
    with_port.into_iter().chain([host.to_owned()]).collect()
}

fn is_loopback(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default().trim_matches(['[', ']']);
    host == "localhost" || host.parse::<std::net::IpAddr>().is_ok_and(|address| address.is_loopback())
}

fn from_url(url: &Url) -> Option<String> {
    if url.username().is_empty() && url.password().is_none() {
        return None;
    }
    let decoded = |text: &str| percent_decode(text).unwrap_or_else(|| text.to_owned());
    let both = format!("{}:{}", decoded(url.username()), decoded(url.password().unwrap_or_default()));
    Some(format!("Basic {}", STANDARD.encode(both)))
}

fn header(id: &str, value: &str) -> Result<HeaderValue, FetchError> {
    let bad = |_| FetchError::BadSecret { id: id.to_owned(), problem: "it is no value of a header".to_owned() };
    let mut value = HeaderValue::from_str(value).map_err(bad)?;
    // Keeps it out of what is printed for debugging.
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn access(secrets: &[(&str, &str)]) -> Access {
        let secrets = secrets.iter().map(|(id, value)| ((*id).to_owned(), Secret::new(*value))).collect();
        Access { secrets, ..Access::default() }
    }

    fn http(secrets: &[(&str, &str)], url: &str) -> Option<String> {
        let wanted = access(secrets).http(&url.parse().unwrap()).unwrap();
        assert!(!format!("{wanted:?}").contains("t0ken"), "{wanted:?}");
        wanted.authorization.map(|value| value.to_str().unwrap().to_owned())
    }

    fn git(secrets: &[(&str, &str)], remote: &str) -> Option<String> {
        access(secrets).git(remote).unwrap().map(|header| format!("{} {}", header.origin, header.line))
    }

    #[test]
    fn secrets_are_found_by_the_host_of_a_url_and_by_no_other() {
        let token = [("HTTP_AUTH_TOKEN_h.x", "t0ken\n")];
        assert_eq!(http(&token, "https://h.x/f").as_deref(), Some("Bearer t0ken"));
        assert_eq!(http(&token, "https://h.x:8443/f").as_deref(), Some("Bearer t0ken"));
        for other in ["https://x/f", "https://h.x.evil/f", "https://a.h.x/f", "https://evil/h.x", "https://evil/?h.x"] {
            assert_eq!(http(&token, other), None, "{other}");
        }
        assert_eq!(http(&[("HTTP_AUTH_TOKEN.h.x", "t0ken")], "https://h.x/f").as_deref(), Some("Bearer t0ken"));
        let both = [("HTTP_AUTH_TOKEN_h:1", "t0ken"), ("HTTP_AUTH_HEADER_h", "Basic b")];
        assert_eq!(http(&both, "http://h:1/f").as_deref(), Some("Bearer t0ken"));
        assert_eq!(http(&both, "http://h/f").as_deref(), Some("Basic b"));
        assert_eq!(http(&both, "http://u:p%20q@h/f").as_deref(), Some("Basic dTpwIHE="), "the URL's own win");
        assert_eq!(access(&[]).http(&"http://u:p@h/f".parse().unwrap()).unwrap().url.as_str(), "http://h/f");
    }

    #[test]
    fn repositories_take_the_nearest_secret() {
        let all = [("GIT_AUTH_TOKEN", "any"), ("GIT_AUTH_TOKEN.h", "own"), ("GIT_AUTH_HEADER.g", "bearer x")];
        let basic =
            |token: &str| format!("Authorization: basic {}", STANDARD.encode(format!("x-access-token:{token}")));
        assert_eq!(git(&all, "https://h/x.git"), Some(format!("https://h {}", basic("own"))));
        assert_eq!(git(&all, "https://h:1/x.git"), Some(format!("https://h:1 {}", basic("own"))));
        assert_eq!(git(&all, "https://k/x.git"), Some(format!("https://k {}", basic("any"))));
        assert_eq!(git(&all, "https://u@k/x.git"), Some(format!("https://k {}", basic("any"))));
        assert_eq!(git(&all, "https://g/x.git").as_deref(), Some("https://g Authorization: bearer x"));
        for without in ["ssh://h/x", "git@h:x", "git://h/x", "https://u:p@h/x.git"] {
            assert_eq!(git(&all, without), None, "{without}");
        }
    }

    #[test]
    fn what_would_be_sent_in_the_clear_to_anybody_is_refused() {
        let any = access(&[("GIT_AUTH_TOKEN", "t")]);
        assert!(matches!(any.git("http://h/x.git"), Err(FetchError::UnencryptedSecret { .. })));
        assert!(any.git("http://127.0.0.1:1/x.git").unwrap().is_some(), "nobody listens in between");
        assert!(access(&[("GIT_AUTH_TOKEN.h", "t")]).git("http://h/x.git").unwrap().is_some(), "the host is named");
    }

    #[test]
    fn values_that_are_more_than_a_header_are_refused() {
        for value in ["", "\n", "a\r\nHost: evil", "a\0b", "a\nb\n"] {
            let access = access(&[("HTTP_AUTH_HEADER_h", value), ("GIT_AUTH_HEADER", value)]);
            assert!(
                matches!(access.http(&"https://h/".parse().unwrap()), Err(FetchError::BadSecret { .. })),
                "{value:?}"
            );
            assert!(matches!(access.git("https://h/x.git"), Err(FetchError::BadSecret { .. })), "{value:?}");
        }
    }

    #[test]
    fn what_a_server_sends_back_is_not_shown() {
        let header = access(&[("GIT_AUTH_TOKEN", "t0ken")]).git("https://h/x.git").unwrap().unwrap();
        let basic = STANDARD.encode("x-access-token:t0ken");
        assert_eq!(header.redact(&format!("remote: bad token t0ken, {basic}")), "remote: bad token ****, ****");
        assert!(!format!("{header:?}").contains("t0ken"));
    }
}
