//! Tokens and passwords: who gets to see what.
//!
//! The challenge of a host is remembered, so that only its first request goes out without `Authorization`. Tokens are
//! kept by host, repository and scope; of any number of threads that need the same one, one fetches it.
//!
//! A registry names its token server in the challenge (`realm`), which makes the realm hostile input. Rules:
//!
//! 1. The realm is https. Plain http only when it is the registry's own origin and that is spoken to by http, when both
//!    are on loopback, or when a rule of the configuration allows http for that host.
//! 2. A registry elsewhere cannot send us to loopback.
//! 3. Without credentials, any such realm may be asked.
//! 4. Credentials go to a realm on the registry's own host (any port, by https), or on a host that shares its parent
//!    domain (`registry-1.docker.io` → `auth.docker.io`, `registry.example.com` → `example.com`) unless that domain is
//!    one below which strangers get names, or on one of the rule's `token_hosts`; and from loopback to loopback. Anything
//!    else is an error that says so rather than an anonymous try.
//! 5. `Authorization` for the registry goes to the registry's origin alone; `transport` drops it on redirects, and a 401
//!    from the target of a redirect is never answered.

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use reqwest::header::{CONTENT_TYPE, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::challenge::Challenge;
use super::client::CredentialSource;
use super::config::{ClientConfig, PlainHttp};
use super::credentials::{Access, Credential};
use super::error::{self, Error};
use super::reference::image_host;
use super::transport::{Payload, Request, Transport, Trust, host_of, is_loopback, origin, read_body};

/// Largest answer of a token server, in bytes. Tokens are a few kilobytes.
const MAX_TOKEN_ANSWER: u64 = 1 << 20;
/// Life of a token that does not say (distribution, "Token Response Fields").
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
/// No token is believed to live longer.
const MAX_LIFE: Duration = Duration::from_secs(24 * 3600);
/// A token is replaced this long before it ends, or after three quarters of its life if that is later.
const LIFE_MARGIN: Duration = Duration::from_secs(10);
/// Domains below which anyone can get a name: a sibling there is a stranger.
const SHARED_DOMAINS: [&str; 20] = [
    "amazonaws.com",
    "appspot.com",
    "azurecr.io",
    "azurewebsites.net",
    "cloudapp.net",
    "cloudfront.net",
    "fly.dev",
    "github.io",
    "gitlab.io",
    "herokuapp.com",
    "jfrog.io",
    "netlify.app",
    "ngrok-free.app",
    "ngrok.io",
    "onrender.com",
    "pages.dev",
    "pkg.dev",
    "run.app",
    "vercel.app",
    "workers.dev",
];

/// What a request wants to get into.
#[derive(Debug, Clone, Copy)]
pub(super) struct Door<'a> {
    /// `host[:port]` of the registry.
    pub(super) host: &'a str,
    /// Whether it must prove what it is.
    pub(super) trust: Trust,
    /// Where it answers.
    pub(super) base: &'a Url,
    /// The repository, for the choice of credentials.
    pub(super) repository: &'a str,
    /// Likewise.
    pub(super) access: Access,
    /// What the token must be good for.
    pub(super) scope: &'a BTreeSet<String>,
    /// For errors: what is asked for.
    pub(super) subject: &'a str,
}

/// Answers challenges.
pub(super) struct Authorizer {
    config: Arc<ClientConfig>,
    source: Option<CredentialSource>,
    /// What the source said, by host. An entry is locked while the source is asked.
    said: Mutex<HashMap<String, Arc<OnceLock<Option<Credential>>>>>,
    transport: Arc<Transport>,
    /// By host. What one said that did not have to prove what it is holds for such requests alone, as do tokens.
    challenges: Mutex<HashMap<(String, Trust), Challenge>>,
    tokens: Mutex<HashMap<TokenKey, Arc<Mutex<Slot>>>>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct TokenKey {
    host: String,
    trust: Trust,
    repository: String,
    access: Access,
    scope: BTreeSet<String>,
}

/// Locked while its token is fetched, which is what makes the fetch happen once.
#[derive(Debug, Default)]
struct Slot {
    token: Option<Token>,
    /// Scopes that the registry asked for beyond our own.
    asked: BTreeSet<String>,
}

#[derive(Debug)]
struct Token {
    header: HeaderValue,
    expires: Instant,
}

impl fmt::Debug for Authorizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authorizer").field("config", &self.config).finish_non_exhaustive()
    }
}

impl Authorizer {
    pub(super) fn new(config: Arc<ClientConfig>, transport: Arc<Transport>, source: Option<CredentialSource>) -> Self {
        let (said, challenges, tokens) = (Mutex::default(), Mutex::default(), Mutex::default());
        Self { config, source, said, transport, challenges, tokens }
    }

    /// The credential for a request with what it is known by: the table's if it comes before the source, else the source's
    /// where there is one for the host, else the table's.
    fn credential(&self, door: &Door<'_>) -> Option<(String, Credential)> {
        let ahead = self.config.credentials.is_ahead(door.host, door.repository, door.access);
        let source = self.source.as_ref().filter(|_| !ahead && self.config.helpers.contain(door.host));
        if let Some(source) = source {
            let host = image_host(door.host);
            let slot = {
                let mut said = self.said.lock().unwrap_or_else(PoisonError::into_inner);
                Arc::clone(said.entry(host.clone()).or_default())
            };
            if let Some(credential) = slot.get_or_init(|| source(&host)) {
                return Some((host, credential.clone()));
            }
        }
        let found = self.config.credentials.find(door.host, door.repository, door.access);
        found.map(|(key, credential)| (key.to_owned(), credential.clone()))
    }

    /// Remembers how `host` wants to be asked.
    pub(super) fn learn(&self, host: &str, trust: Trust, challenge: Challenge) {
        self.challenges.lock().unwrap_or_else(PoisonError::into_inner).insert((host.to_owned(), trust), challenge);
    }

    /// Returns what to send with the first try: nothing while the host has not asked for anything.
    pub(super) fn authorization(&self, door: &Door<'_>) -> Result<Option<HeaderValue>, Error> {
        let key = (door.host.to_owned(), door.trust);
        let known = self.challenges.lock().unwrap_or_else(PoisonError::into_inner).get(&key).cloned();
        match known {
            None => Ok(None),
            Some(challenge) => self.answer(door, &challenge, None),
        }
    }

    /// Returns what to send after `challenge` came for a request with `refused`; `None` when nothing better is known.
    pub(super) fn renew(
        &self,
        door: &Door<'_>,
        challenge: Challenge,
        refused: Option<&HeaderValue>,
    ) -> Result<Option<HeaderValue>, Error> {
        let answer = self.answer(door, &challenge, Some(refused))?;
        self.learn(door.host, door.trust, challenge);
        Ok(answer.filter(|answer| Some(answer) != refused))
    }

    /// Says which credentials stand behind a request, never their value.
    pub(super) fn describe(&self, door: &Door<'_>) -> String {
        match self.credential(door) {
            Some((key, _)) => format!("the credentials for {key} were used"),
            None => format!("no credentials for {}/{} are known", door.host, door.repository),
        }
    }

    /// `refused` is `Some` when the registry has just turned down a request: with that header, or without any.
    fn answer(
        &self,
        door: &Door<'_>,
        challenge: &Challenge,
        refused: Option<Option<&HeaderValue>>,
    ) -> Result<Option<HeaderValue>, Error> {
        let credential = self.credential(door).map(|(_, credential)| credential);
        match (challenge, &credential) {
            (_, Some(Credential::RegistryToken(token))) => secret_header(door, "Bearer", token.reveal()).map(Some),
            // Over TLS, or to a host that the configuration lets be spoken to without: `base` is one or the other.
            (Challenge::Basic, Some(Credential::Basic { username, password })) => {
                basic_header(door, username, password.reveal()).map(Some)
            }
            (Challenge::Basic, _) => Ok(None),
            (Challenge::Bearer { realm, service, scope }, _) => {
                let slot = self.slot(door);
                let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
                if refused.is_some() {
                    slot.asked.extend(scope.iter().flat_map(|scope| scope.split(' ')).map(str::to_owned));
                }
                if let Some(token) = &slot.token {
                    // Another thread may have replaced the refused one while this one waited for the lock.
                    let other = refused.is_none_or(|refused| refused != Some(&token.header));
                    if other && Instant::now() < token.expires {
                        return Ok(Some(token.header.clone()));
                    }
                }
                slot.token = None;
                let scope = door.scope.union(&slot.asked).cloned().collect();
                let token = self.fetch(door, realm, service.as_deref(), &scope)?;
                Ok(Some(slot.token.insert(token).header.clone()))
            }
        }
    }

    fn slot(&self, door: &Door<'_>) -> Arc<Mutex<Slot>> {
        let key = TokenKey {
            host: door.host.to_owned(),
            trust: door.trust,
            repository: door.repository.to_owned(),
            access: door.access,
            scope: door.scope.clone(),
        };
        Arc::clone(self.tokens.lock().unwrap_or_else(PoisonError::into_inner).entry(key).or_default())
    }

    fn fetch(
        &self,
        door: &Door<'_>,
        realm: &Url,
        service: Option<&str>,
        scope: &BTreeSet<String>,
    ) -> Result<Token, Error> {
        let credential = self.credential(door).map(|(_, credential)| credential);
        self.check_realm(door, realm, credential.is_some()).map_err(|problem| {
            let realm = format!("{}{}", origin(realm), realm.path());
            Error::Realm { host: door.host.to_owned(), realm, problem }
        })?;
        let form;
        let request = match &credential {
            Some(Credential::IdentityToken(token)) => {
                form = exchange_form(realm, service, scope, token.reveal());
                exchange_request(realm, form.as_bytes())
            }
            Some(Credential::Basic { username, password }) => {
                let header = basic_header(door, username, password.reveal())?;
                Request { authorization: Some(header), ..token_request(realm, service, scope) }
            }
            _ => token_request(realm, service, scope),
        };
        let asked_at = Instant::now();
        let request = Request { trust: door.trust.at(door.base, realm), ..request };
        let response = self.transport.send(request, door.subject)?;
        let status = response.status();
        let retry_after = super::retry::retry_after(response.headers(), std::time::SystemTime::now());
        let body = read_body(response, MAX_TOKEN_ANSWER, &format!("the token for {}", door.subject))?;
        if !status.is_success() {
            let words = error::detail(status, &body);
            let detail = format!("the token server {} says: {words}; {}", host_of(realm), self.describe(door));
            return Err(Error::from_status(door.subject, status, detail, retry_after));
        }
        parse_token(door, &body, asked_at)
    }

    fn check_realm(&self, door: &Door<'_>, realm: &Url, with_credentials: bool) -> Result<(), &'static str> {
        let realm_host = host_of(realm);
        if !realm.username().is_empty() || realm.password().is_some() {
            return Err("the URL holds a user name");
        }
        if is_loopback(&realm_host) && !is_loopback(door.host) {
            return Err("a registry elsewhere cannot name a token server on this machine");
        }
        let same_origin = realm.origin() == door.base.origin();
        match realm.scheme() {
            "https" => {}
            "http"
                if same_origin
                    || self.transport.plain_http(&realm_host, door.trust.at(door.base, realm)) != PlainHttp::Never => {}
            "http" => return Err("it is not https"),
            _ => return Err("it is neither https nor http"),
        }
        let named = |name: &String| name.eq_ignore_ascii_case(&realm_host);
        let trusted = same_origin
            || is_loopback(&realm_host)
            || (realm.scheme() == "https" && are_related(host_name(door.base), host_name(realm)))
            || self.transport.rule(door.host).is_some_and(|rule| rule.token_hosts.iter().any(named));
        if with_credentials && !trusted {
            return Err("it is on another host, which must not see this registry's credentials");
        }
        Ok(())
    }
}

fn host_name(url: &Url) -> &str {
    url.host_str().unwrap_or_default()
}

/// Do both names belong to one owner, as far as names can tell?
fn are_related(registry: &str, realm: &str) -> bool {
    if registry == realm {
        return true;
    }
    let is_address = |name: &str| name.starts_with('[') || name.parse::<std::net::Ipv4Addr>().is_ok();
    let Some((_, parent)) = registry.split_once('.').filter(|_| !is_address(registry)) else { return false };
    if is_public_suffix(parent) {
        return false;
    }
    realm == parent || realm.strip_suffix(parent).is_some_and(|rest| rest.ends_with('.'))
}

/// Errs towards yes: `co.uk`, `com.au` and every other short name below a country, and anything below a shared domain.
fn is_public_suffix(domain: &str) -> bool {
    let is_below =
        |shared: &str| domain == shared || domain.strip_suffix(shared).is_some_and(|rest| rest.ends_with('.'));
    let Some((second, top)) = domain.split_once('.') else { return true };
    (top.len() == 2 && second.len() <= 3) || SHARED_DOMAINS.into_iter().any(is_below)
}

fn token_request(realm: &Url, service: Option<&str>, scope: &BTreeSet<String>) -> Request<'static> {
    let mut url = realm.clone();
    url.query_pairs_mut()
        .extend_pairs(service.map(|service| ("service", service)))
        .extend_pairs(scope.iter().map(|scope| ("scope", scope)));
    Request::new(Method::GET, url)
}

/// Distribution's "OAuth2 Token Authentication": a refresh token is only taken by POST.
fn exchange_request<'a>(realm: &Url, form: &'a [u8]) -> Request<'a> {
    let mut request = Request::new(Method::POST, realm.clone());
    request.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    request.payload = Payload::Bytes(form);
    request
}

fn exchange_form(realm: &Url, service: Option<&str>, scope: &BTreeSet<String>, refresh_token: &str) -> String {
    // The query of a URL has the encoding of a form.
    let mut form = realm.clone();
    form.set_query(None);
    form.query_pairs_mut()
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", "builder")
        .append_pair("refresh_token", refresh_token)
        .extend_pairs(service.map(|service| ("service", service)))
        .append_pair("scope", &scope.iter().map(String::as_str).collect::<Vec<_>>().join(" "));
    form.query().unwrap_or_default().to_owned()
}

fn parse_token(door: &Door<'_>, body: &[u8], asked_at: Instant) -> Result<Token, Error> {
    #[derive(Deserialize)]
    struct Answer {
        #[serde(default)]
        token: String,
        #[serde(default)]
        access_token: String,
        expires_in: Option<u64>,
    }
    let problem = |problem: &str| Error::Protocol {
        subject: door.subject.to_owned(),
        problem: format!("the token server's answer {problem}"),
    };
    let answer: Answer = serde_json::from_slice(body).map_err(|_| problem("is not the JSON of a token"))?;
    let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
    if token.is_empty() {
        return Err(problem("holds no token"));
    }
    let life = answer.expires_in.map_or(DEFAULT_LIFE, Duration::from_secs).min(MAX_LIFE);
    let expires = asked_at + life.saturating_sub(LIFE_MARGIN).max(life * 3 / 4);
    Ok(Token { header: secret_header(door, "Bearer", &token)?, expires })
}

fn basic_header(door: &Door<'_>, username: &str, password: &str) -> Result<HeaderValue, Error> {
    secret_header(door, "Basic", &STANDARD.encode(format!("{username}:{password}")))
}

fn secret_header(door: &Door<'_>, scheme: &str, value: &str) -> Result<HeaderValue, Error> {
    let mut header = HeaderValue::from_str(&format!("{scheme} {value}")).map_err(|_| Error::Protocol {
        subject: door.subject.to_owned(),
        problem: "the token holds characters that no header can".to_owned(),
    })?;
    header.set_sensitive(true);
    Ok(header)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_stay_with_their_owner() {
        let related = [
            ("registry-1.docker.io", "auth.docker.io"),
            ("registry.gitlab.com", "gitlab.com"),
            ("quay.io", "quay.io"),
            ("r.corp.example.com", "sso.corp.example.com"),
            ("r.example.co.uk", "auth.example.co.uk"),
        ];
        for (registry, realm) in related {
            assert!(are_related(registry, realm), "{registry} may use {realm}");
        }
        let strangers = [
            ("registry-1.docker.io", "auth.docker.io.evil.tld"),
            ("registry-1.docker.io", "evildocker.io"),
            ("quay.io", "evil.io"),
            ("quay.io", "auth.quay.io.evil"),
            ("shop.co.uk", "evil.co.uk"),
            ("mine.azurecr.io", "evil.azurecr.io"),
            ("1.dkr.ecr.eu.amazonaws.com", "x.ecr.eu.amazonaws.com"),
            ("localhost", "example.com"),
            ("10.0.0.1", "9.0.0.1"),
            ("[2001:db8::1.2.3.4]", "2.3.4]"),
        ];
        for (registry, realm) in strangers {
            assert!(!are_related(registry, realm), "{registry} must not use {realm}");
        }
    }
}
