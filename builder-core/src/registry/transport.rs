//! One HTTP exchange: connections, redirects, time limits, and where `Authorization` may go.
//!
//! Redirects are followed here rather than by the HTTP library, because the rules are ours: `Authorization` never leaves
//! the origin it was made for, https never turns into http, and each hop uses the TLS settings of its own host.
//! Knows nothing of registries.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::IpAddr;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use reqwest::blocking::{Body, Client, Response};
use reqwest::header::{AUTHORIZATION, CONTENT_LENGTH, HeaderMap, HeaderValue, LOCATION};
use reqwest::{Method, NoProxy, Proxy, Url, redirect};

use super::config::{ClientConfig, HostRule, PlainHttp, ProxyConfig};
use super::error::{Cause, Error};
use super::reason::{self, Reason};
use super::reference::{api_host, canonical_registry};
use super::tls::{self, HostTls};

/// Registry, CDN and a second CDN are two; everything beyond this is a loop.
const MAX_REDIRECTS: usize = 5;
/// Bytes of one HTTP/2 stream that may wait unread: what a fast line needs at 50 ms.
const STREAM_WINDOW: u32 = 4 << 20;
/// Bytes of one HTTP/2 connection that may wait unread. Much more than one stream's: readers that stand still must not
/// stop the one that is being read.
const CONNECTION_WINDOW: u32 = 128 << 20;

/// Opens the bytes of a request's body, anew for each try.
pub(super) type Opener<'a> = &'a (dyn Fn() -> io::Result<Box<dyn Read + Send>> + Sync);

/// The body of a request.
#[derive(Clone, Copy)]
pub(super) enum Payload<'a> {
    /// No body.
    None,
    /// These bytes.
    Bytes(&'a [u8]),
    /// As many bytes as the number says, read as they are sent.
    Stream(Opener<'a>, u64),
}

/// Whether a host must prove what it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Trust {
    /// As the rule for the host says.
    Ruled,
    /// It need not: no certificate has to hold, and http will do.
    Blind,
}

impl Trust {
    /// What it comes to for `to` when it was said of `from`: it is for one host.
    pub(super) fn at(self, from: &Url, to: &Url) -> Self {
        if host_of(from) == host_of(to) { self } else { Self::Ruled }
    }
}

/// One request.
#[derive(Clone)]
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    /// Sent to the origin of `url` only.
    pub(super) authorization: Option<HeaderValue>,
    pub(super) payload: Payload<'a>,
    /// How much longer than the usual time of silence the answer may take; for small answers only.
    pub(super) patience: Duration,
    /// For the host of `url`, and no other that a redirect leads to.
    pub(super) trust: Trust,
}

impl<'a> Request<'a> {
    pub(super) fn new(method: Method, url: Url) -> Self {
        let (headers, payload, patience) = (HeaderMap::new(), Payload::None, Duration::ZERO);
        Self { method, url, headers, authorization: None, payload, patience, trust: Trust::Ruled }
    }
}

/// The connections. Hosts with nothing special about their TLS share one pool.
#[derive(Debug)]
pub(super) struct Transport {
    config: Arc<ClientConfig>,
    /// Made when first needed: reading the system's certificates takes milliseconds that a cached build does not have.
    common: OnceLock<Client>,
    by_host: Mutex<HashMap<(String, Trust), Client>>,
}

impl Transport {
    pub(super) fn new(config: Arc<ClientConfig>) -> Self {
        Self { config, common: OnceLock::new(), by_host: Mutex::default() }
    }

    /// Returns the rule for `host[:port]`.
    pub(super) fn rule(&self, host: &str) -> Option<&HostRule> {
        // URLs drop the default port, names keep it.
        let normal = |host: &str| {
            let host = canonical_registry(host);
            api_host(host.strip_suffix(":443").unwrap_or(&host)).to_owned()
        };
        let rules = &self.config.hosts;
        rules
            .iter()
            .find(|rule| normal(&rule.host) == normal(host))
            .or_else(|| rules.iter().find(|rule| is_subdomain(&rule.host, host)))
            .or_else(|| rules.iter().find(|rule| rule.host == "*"))
    }

    /// Returns whether `host[:port]` may be spoken to without TLS. Loopback may: nobody listens in between.
    pub(super) fn plain_http(&self, host: &str, trust: Trust) -> PlainHttp {
        match (self.rule(host).map(|rule| rule.plain_http), trust) {
            (Some(PlainHttp::Always), _) => PlainHttp::Always,
            (_, Trust::Blind) => PlainHttp::Allowed,
            (Some(ruled), Trust::Ruled) => ruled,
            (None, Trust::Ruled) if is_loopback(host) => PlainHttp::Allowed,
            (None, Trust::Ruled) => PlainHttp::Never,
        }
    }

    /// Sends `request` and follows redirects of GET and HEAD. Every status is a success here.
    pub(super) fn send(&self, request: Request<'_>, subject: &str) -> Result<Response, Error> {
        let mut request = request;
        for _ in 0..=MAX_REDIRECTS {
            let url = request.url.clone();
            let response = self.send_once(&request, subject)?;
            let followed = response.status().is_redirection() && [Method::GET, Method::HEAD].contains(&request.method);
            let Some(location) = response.headers().get(LOCATION).filter(|_| followed) else { return Ok(response) };
            let target = location.to_str().ok().and_then(|location| url.join(location).ok());
            let Some(target) = target else {
                return Err(Error::Protocol { subject: subject.to_owned(), problem: "redirect to no URL".to_owned() });
            };
            request.trust = request.trust.at(&url, &target);
            self.check_redirect(&url, &target, request.trust, subject)?;
            if target.origin() != url.origin() {
                request.authorization = None;
            }
            request.url = target;
        }
        Err(Error::Redirect {
            subject: subject.to_owned(),
            target: origin(&request.url),
            problem: "too many redirects",
        })
    }

    /// Makes sure that an exchange with `from` may go on at `to`, which is trusted so.
    pub(super) fn check_redirect(&self, from: &Url, to: &Url, trust: Trust, subject: &str) -> Result<(), Error> {
        let problem = match to.scheme() {
            "https" | "http" if !to.username().is_empty() || to.password().is_some() => "the URL holds a user name",
            "https" => return Ok(()),
            "http" if from.scheme() == "http" || self.plain_http(&host_of(to), trust) != PlainHttp::Never => {
                return Ok(());
            }
            "http" => "from https to plain http",
            _ => "neither http nor https",
        };
        Err(Error::Redirect { subject: subject.to_owned(), target: origin(to), problem })
    }

    fn send_once(&self, request: &Request<'_>, subject: &str) -> Result<Response, Error> {
        let client = self.client(&host_of(&request.url), request.trust)?;
        let mut builder = client.request(request.method.clone(), request.url.clone()).headers(request.headers.clone());
        if let Some(value) = &request.authorization {
            builder = builder.header(AUTHORIZATION, value.clone());
        }
        builder = match request.payload {
            Payload::None => builder,
            Payload::Bytes(bytes) => builder.body(bytes.to_vec()),
            Payload::Stream(open, size) => {
                let reader = open().map_err(|source| Error::Source { subject: subject.to_owned(), source })?;
                builder.body(Body::sized(reader, size))
            }
        };
        if !request.patience.is_zero() {
            // Here it bounds the whole exchange; a line that is dead is noticed by TCP before that.
            builder = builder.timeout(self.config.timeouts.silence + request.patience);
        }
        builder.send().map_err(|error| failure(subject, &request.url, error.without_url()))
    }

    fn client(&self, host: &str, trust: Trust) -> Result<Client, Error> {
        // Held while the client is made, so that each is made once.
        let mut by_host = self.by_host.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (host.to_owned(), trust);
        if let Some(client) = by_host.get(&key) {
            return Ok(client.clone());
        }
        let tls = HostTls::load(host, self.rule(host), &self.config.cert_dirs)?;
        let tls = if trust == Trust::Blind { tls.unverified() } else { tls };
        let client = if tls != HostTls::default() {
            self.build(tls)?
        } else if let Some(common) = self.common.get() {
            common.clone()
        } else {
            let built = self.build(tls)?;
            self.common.get_or_init(|| built).clone()
        };
        by_host.insert(key, client.clone());
        Ok(client)
    }

    fn build(&self, tls: HostTls) -> Result<Client, Error> {
        let config = &self.config;
        let agent = match config.user_agent.as_str() {
            "" => concat!("builder/", env!("CARGO_PKG_VERSION")),
            agent => agent,
        };
        let mut builder = Client::builder()
            .tls_backend_preconfigured(tls::client_config(&config.roots, tls)?)
            .redirect(redirect::Policy::none())
            .referer(false)
            .user_agent(agent)
            .connect_timeout(config.timeouts.connect)
            // In the blocking client this bounds the wait for the header and each read of the body, not the whole.
            .timeout(config.timeouts.silence)
            .tcp_user_timeout(config.timeouts.silence)
            .http2_initial_stream_window_size(STREAM_WINDOW)
            .http2_initial_connection_window_size(CONNECTION_WINDOW)
            // The environment is the caller's to read.
            .no_proxy();
        for proxy in proxies(&config.proxy)? {
            builder = builder.proxy(proxy);
        }
        builder
            .build()
            .map_err(|source| Error::Config { what: "set up the HTTP client".to_owned(), source: source.into() })
    }
}

fn proxies(config: &ProxyConfig) -> Result<Vec<Proxy>, Error> {
    let direct = format!("localhost,127.0.0.0/8,::1,{}", config.no_proxy.as_deref().unwrap_or_default());
    let make = |url: Option<&str>, make: fn(&str) -> reqwest::Result<Proxy>| {
        let Some(url) = url.filter(|url| !url.is_empty()) else { return Ok(None) };
        make(url)
            .map(|proxy| Some(proxy.no_proxy(NoProxy::from_string(&direct))))
            .map_err(|source| Error::Config { what: "use the proxy".to_owned(), source: source.without_url().into() })
    };
    let http = make(config.http_proxy.as_ref().map(|url| url.reveal()), |url| Proxy::http(url))?;
    let https = make(config.https_proxy.as_ref().map(|url| url.reveal()), |url| Proxy::https(url))?;
    Ok(http.into_iter().chain(https).collect())
}

/// Reads the rest of `response`, at most `limit` bytes.
pub(super) fn read_body(mut response: Response, limit: u64, subject: &str) -> Result<Vec<u8>, Error> {
    let too_large = || Error::TooLarge { subject: subject.to_owned(), limit };
    if content_length(response.headers()).is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = Vec::new();
    match (&mut response).take(limit + 1).read_to_end(&mut body) {
        Ok(_) if body.len() as u64 > limit => Err(too_large()),
        Ok(_) => Ok(body),
        Err(source) => Err(failure(subject, response.url(), source)),
    }
}

/// Returns what `Content-Length` says, which for HEAD is the size of what GET would send.
pub(super) fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Says why an exchange with the host of `url` failed: TLS and names that do not exist fail again, the rest may pass.
pub(super) fn failure(subject: &str, url: &Url, source: impl Into<Cause>) -> Error {
    let (subject, host, source) = (subject.to_owned(), origin(url), source.into());
    match reason::find(source.as_ref()) {
        Reason::NoSuchName => Error::NoSuchHost { subject, name: url.host_str().unwrap_or_default().to_owned() },
        Reason::Tls(found) => Error::Tls { subject, host, hint: tls::hint(&found), source: found.into() },
        Reason::Words(words) => Error::Network { subject, host, source: words.into() },
    }
}

/// Returns `scheme://host[:port]`: what may be shown of a URL whose query can be a signature.
pub(super) fn origin(url: &Url) -> String {
    format!("{}://{}", url.scheme(), host_of(url))
}

/// Returns `host[:port]` as image names write it.
pub(super) fn host_of(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    url.port().map_or_else(|| host.to_owned(), |port| format!("{host}:{port}"))
}

/// Is `host[:port]` this very machine, by address or as `localhost`?
pub(super) fn is_loopback(host: &str) -> bool {
    let name = match host.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, _)) => address,
        None => host.split(':').next().unwrap_or_default(),
    };
    name == "localhost" || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// Whether `host`, with any port, is below the domain of a rule `*.DOMAIN`.
fn is_subdomain(rule: &str, host: &str) -> bool {
    let host = canonical_registry(host);
    let host = host.split_once(':').map_or(host.as_str(), |(host, _)| host);
    let domain = rule.strip_prefix('*').filter(|domain| domain.len() > 1);
    domain.is_some_and(|domain| host.strip_suffix(domain).is_some_and(|sub| !sub.is_empty()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rules_are_found_by_any_spelling_of_their_host() {
        let hosts = ["docker.io", "Quay.IO:443", "h:5000"].map(HostRule::new).into();
        let transport = Transport::new(Arc::new(ClientConfig { hosts, ..ClientConfig::default() }));
        for host in
            ["docker.io", "registry-1.docker.io", "registry-1.docker.io:443", "quay.io", "quay.io:443", "h:5000"]
        {
            assert!(transport.rule(host).is_some(), "{host}");
        }
        let hosts = vec![HostRule::new("*.example.com")];
        let wild = Transport::new(Arc::new(ClientConfig { hosts, ..ClientConfig::default() }));
        assert!(wild.rule("a.b.Example.com:5000").is_some() && wild.rule("example.com").is_none());
        assert!(wild.rule("xexample.com").is_none() && wild.rule("a.example.com.evil.io").is_none());
        for host in ["auth.docker.io", "quay.io:444", "h", "h:443", "h:50000", "xquay.io"] {
            assert!(transport.rule(host).is_none(), "{host}");
        }
    }

    #[test]
    fn only_this_machine_is_loopback() {
        for host in ["localhost", "localhost:5000", "127.0.0.1", "127.1.2.3:80", "[::1]", "[::1]:5000"] {
            assert!(is_loopback(host), "{host}");
        }
        for host in ["localhost.evil.tld", "127.0.0.1.evil.tld", "10.0.0.1", "[::2]:1", "0.0.0.0", "evil:127.0.0.1", ""]
        {
            assert!(!is_loopback(host), "{host}");
        }
    }
}
