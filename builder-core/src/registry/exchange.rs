//! One exchange with a registry, and as many as it takes: where to ask, how the host is spoken to, as whom, and when again.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use reqwest::blocking::Response;
use reqwest::header::HeaderMap;
use reqwest::{Method, StatusCode, Url};

use super::auth::{Authorizer, Door};
use super::challenge;
use super::client::CredentialSource;
use super::config::{ClientConfig, PlainHttp, RetryPolicy};
use super::credentials::Access;
use super::endpoint::{AskedBy, Endpoint, door, endpoints, home};
use super::error::{self, Error};
use super::notice::Notice;
use super::reference::Reference;
use super::retry::retry_after;
use super::transport::{Payload, Request, Transport, Trust, host_of, is_loopback};

/// Of an error answer, this many bytes are read for its words.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// A mirror is given up sooner than the registry itself.
const MIRROR_ATTEMPTS: u32 = 2;

/// Where a host answers, once that is known.
type Base = Arc<Mutex<Option<Url>>>;
type Observer = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// What all requests of a client share. Clones share everything but the observer.
#[derive(Clone)]
pub(super) struct Session {
    inner: Arc<Inner>,
    observer: Option<Observer>,
}

struct Inner {
    config: Arc<ClientConfig>,
    transport: Arc<Transport>,
    auth: Authorizer,
    /// What each host that may speak http was found to speak; locked while that is found out.
    bases: Mutex<HashMap<(String, Trust), Base>>,
    /// Mirrors that could not be reached: not asked again.
    dead_mirrors: Mutex<HashSet<String>>,
}

impl fmt::Debug for Session {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Session").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// What a request is sent to.
#[derive(Debug, Clone, Copy)]
pub(super) enum Target<'a> {
    /// Below `/v2/<repository>/`: `manifests/latest`.
    Path(&'a str),
    /// Where the registry said, for uploads. Gets `Authorization` only at the registry's own origin.
    Url(&'a Url),
}

/// One request.
#[derive(Clone)]
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) method: Method,
    pub(super) target: Target<'a>,
    pub(super) access: Access,
    /// Another repository of the registry that the token must open for reading.
    pub(super) also_from: Option<&'a str>,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload<'a>,
    /// How much longer than usual the answer may take.
    pub(super) patience: Duration,
    /// For errors: what is asked for.
    pub(super) subject: &'a str,
}

impl<'a> Call<'a> {
    /// Reads `path`.
    pub(super) fn read(endpoint: &'a Endpoint, method: Method, path: &'a str, subject: &'a str) -> Self {
        Self {
            endpoint,
            method,
            target: Target::Path(path),
            access: Access::Pull,
            also_from: None,
            headers: HeaderMap::new(),
            payload: Payload::None,
            patience: Duration::ZERO,
            subject,
        }
    }

    /// Changes something at `target`.
    pub(super) fn write(endpoint: &'a Endpoint, method: Method, target: Target<'a>, subject: &'a str) -> Self {
        Self { target, access: Access::Push, ..Self::read(endpoint, method, "", subject) }
    }

    fn scope(&self) -> BTreeSet<String> {
        if self.endpoint.repository.is_empty() {
            return BTreeSet::new();
        }
        let actions = match self.access {
            Access::Pull => "pull",
            Access::Push => "pull,push",
        };
        let own = format!("repository:{}:{actions}", self.endpoint.repository);
        self.also_from.map(|from| format!("repository:{from}:pull")).into_iter().chain([own]).collect()
    }
}

impl Session {
    pub(super) fn new(config: ClientConfig, source: Option<CredentialSource>) -> Self {
        let config = Arc::new(config);
        let transport = Arc::new(Transport::new(Arc::clone(&config)));
        let auth = Authorizer::new(Arc::clone(&config), Arc::clone(&transport), source);
        let (bases, dead_mirrors) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { config, transport, auth, bases, dead_mirrors }), observer: None }
    }

    pub(super) fn with_observer(&self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        Self { inner: Arc::clone(&self.inner), observer: Some(Arc::new(observer)) }
    }

    pub(super) fn config(&self) -> &ClientConfig {
        &self.inner.config
    }

    /// Asks one place after the other, each as often as the retry policy wants; the registry's own error counts.
    pub(super) fn ask<T>(
        &self,
        reference: &Reference,
        by: AskedBy,
        subject: &str,
        mut request: impl FnMut(&Endpoint) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let own = self.inner.config.retry;
        let hurried = RetryPolicy { attempts: own.attempts.min(MIRROR_ATTEMPTS), ..own };
        for endpoint in endpoints(&self.inner.config, reference, by)? {
            if !endpoint.is_mirror {
                return self.retrying_with(own, || request(&endpoint));
            }
            if self.dead_mirrors().contains(&endpoint.host) {
                continue;
            }
            match self.retrying_with(hurried, || request(&endpoint)) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if matches!(error, Error::Network { .. } | Error::NoSuchHost { .. } | Error::Tls { .. }) {
                        self.dead_mirrors().insert(endpoint.host.clone());
                    }
                    self.tell(&Notice::MirrorFailed { mirror: &endpoint.host, error: &error });
                }
            }
        }
        Err(no_place(subject))
    }

    fn dead_mirrors(&self) -> MutexGuard<'_, HashSet<String>> {
        self.inner.dead_mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sends a request as often as the retry policy wants.
    pub(super) fn retrying<T>(&self, request: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        self.retrying_with(self.inner.config.retry, request)
    }

    fn retrying_with<T>(&self, policy: RetryPolicy, mut request: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
        let mut failed = 0;
        loop {
            let error = match request() {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            failed += 1;
            match policy.wait(failed, &error) {
                Some(wait) => self.pause(&error, wait),
                None => return Err(error),
            }
        }
    }

    /// Waits before a try that follows `error`.
    pub(super) fn pause(&self, error: &Error, wait: Duration) {
        self.tell(&Notice::Retry { error, wait });
        thread::sleep(wait);
    }

    fn tell(&self, notice: &Notice<'_>) {
        if let Some(observer) = &self.observer {
            observer(notice);
        }
    }

    /// Asks whether `registry` lets this client in at all.
    pub(super) fn enter(&self, registry: &str, subject: &str) -> Result<(), Error> {
        let endpoint = door(&self.inner.config, registry);
        let url = join(&self.base(&endpoint, subject)?, "v2/", subject)?;
        let call = Call { target: Target::Url(&url), ..Call::read(&endpoint, Method::GET, "", subject) };
        self.retrying(|| self.send(&call)).map(drop)
    }

    /// Returns the registry that the name says: the place to write to.
    pub(super) fn home(&self, reference: &Reference) -> Result<Endpoint, Error> {
        home(&self.inner.config, reference)
    }

    /// One exchange: finds out how the host is spoken to, answers its challenge once, turns failures into errors.
    pub(super) fn send(&self, call: &Call<'_>) -> Result<Response, Error> {
        let subject = call.subject;
        let base = self.base(call.endpoint, subject)?;
        let url = match call.target {
            Target::Url(url) => url.clone(),
            Target::Path(path) => join(&base, &format!("v2/{}/{path}", call.endpoint.repository), subject)?,
        };
        let at_home = url.origin() == base.origin();
        let scope = call.scope();
        let door = Door {
            host: &call.endpoint.host,
            trust: call.endpoint.trust,
            base: &base,
            repository: &call.endpoint.repository,
            access: call.access,
            scope: &scope,
            subject,
        };
        let authorization = if at_home { self.inner.auth.authorization(&door)? } else { None };
        let request = Request {
            method: call.method.clone(),
            trust: call.endpoint.trust.at(&base, &url),
            url,
            headers: call.headers.clone(),
            authorization,
            payload: call.payload,
            patience: call.patience,
        };
        let response = self.inner.transport.send(request.clone(), subject)?;
        // A 401 from where a redirect led is not this registry's question, and gets no answer.
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != base.origin() {
            return checked(response, subject, "");
        }
        let Some(challenge) = challenge::parse(response.headers()) else { return checked(response, subject, "") };
        // The right to give an upload up is asked for by itself: in the token of everything else it could be what a
        // token server refuses.
        let wider = challenge.asking(&scope);
        let door = if call.method == Method::DELETE { Door { scope: &wider, ..door } } else { door };
        // Read to its end, the connection serves the next request.
        let first = refusal(response, subject);
        match self.inner.auth.renew(&door, challenge, request.authorization.as_ref())? {
            None => Err(with_remark(first, &self.inner.auth.describe(&door))),
            authorization => {
                let response = self.inner.transport.send(Request { authorization, ..request }, subject)?;
                checked(response, subject, &self.inner.auth.describe(&door))
            }
        }
    }

    /// Resolves the `Location` that an answer for an upload names: a place that may be asked next.
    pub(super) fn location(&self, call: &Call<'_>, location: &str) -> Result<Url, Error> {
        let base = self.base(call.endpoint, call.subject)?;
        let mut url = join(&base, location, call.subject)?;
        // A registry behind a proxy that ends TLS may not know that it is spoken to by https.
        if base.scheme() == "https" && url.scheme() == "http" && host_of(&url) == host_of(&base) {
            // Refused only for schemes that have no such thing.
            url.set_scheme("https").unwrap_or_default();
        }
        self.inner.transport.check_redirect(&base, &url, call.endpoint.trust.at(&base, &url), call.subject)?;
        Ok(url)
    }

    /// Returns `scheme://host/`. For a host that may speak http, the first caller asks `/v2/` and all others wait.
    fn base(&self, endpoint: &Endpoint, subject: &str) -> Result<Url, Error> {
        let host = endpoint.host.as_str();
        let url = |scheme: &str| {
            format!("{scheme}://{host}/")
                .parse::<Url>()
                .map_err(|_| Error::Protocol { subject: subject.to_owned(), problem: format!("{host} is not a host") })
        };
        let order = match self.inner.transport.plain_http(host, endpoint.trust) {
            PlainHttp::Never => return url("https"),
            PlainHttp::Always => return url("http"),
            // A test or side-car registry speaks http almost always; one elsewhere that may is still likely to have TLS.
            PlainHttp::Allowed if is_loopback(host) => [url("http")?, url("https")?],
            PlainHttp::Allowed => [url("https")?, url("http")?],
        };
        let slot = Arc::clone(
            self.inner
                .bases
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .entry((host.to_owned(), endpoint.trust))
                .or_default(),
        );
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = &*slot {
            return Ok(base.clone());
        }
        let [first, second] = order;
        let base = match self.probe(endpoint, &first, subject) {
            Ok(true) => first,
            Err(error) if is_wrong_certificate(&error) => return Err(error),
            unclear => match (self.probe(endpoint, &second, subject), unclear) {
                (Ok(_), _) => second,
                (Err(error), _) if is_wrong_certificate(&error) => return Err(error),
                (Err(_), Ok(_)) => first,
                (Err(_), Err(error)) => return Err(error),
            },
        };
        Ok(slot.insert(base).clone())
    }

    /// Asks whether a registry answers below `base`; keeps the challenge that comes with the answer.
    fn probe(&self, endpoint: &Endpoint, base: &Url, subject: &str) -> Result<bool, Error> {
        let url = base.join("v2/").unwrap_or_else(|_| base.clone());
        let response =
            self.inner.transport.send(Request { trust: endpoint.trust, ..Request::new(Method::GET, url) }, subject)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && response.url().origin() == base.origin()
            && let Some(challenge) = challenge::parse(response.headers())
        {
            self.inner.auth.learn(&endpoint.host, endpoint.trust, challenge);
        }
        // What a TLS server says to plain http.
        let answered = response.status() != StatusCode::BAD_REQUEST;
        refusal(response, subject);
        Ok(answered)
    }
}

fn join(base: &Url, path: &str, subject: &str) -> Result<Url, Error> {
    base.join(path).map_err(|_| Error::Protocol { subject: subject.to_owned(), problem: format!("{path:?} is no URL") })
}

fn no_place(subject: &str) -> Error {
    Error::Protocol { subject: subject.to_owned(), problem: "no place to ask".to_owned() }
}

/// A wrong certificate is the answer, not a reason to do without.
fn is_wrong_certificate(error: &Error) -> bool {
    let Error::Tls { source, .. } = error else { return false };
    !matches!(source.downcast_ref(), Some(rustls::Error::InvalidMessage(_)))
}

fn checked(response: Response, subject: &str, remark: &str) -> Result<Response, Error> {
    if response.status().is_success() { Ok(response) } else { Err(with_remark(refusal(response, subject), remark)) }
}

/// Reads an error answer.
pub(super) fn refusal(response: Response, subject: &str) -> Error {
    let status = response.status();
    let retry_after = retry_after(response.headers(), SystemTime::now());
    let mut body = Vec::new();
    // The words are a courtesy: without them the status must do.
    if response.take(MAX_ERROR_BODY).read_to_end(&mut body).is_err() {
        body.clear();
    }
    Error::from_status(subject, status, error::detail(status, &body), retry_after)
}

fn with_remark(error: Error, remark: &str) -> Error {
    match error {
        Error::Unauthorized { subject, detail } if !remark.is_empty() => {
            Error::Unauthorized { subject, detail: format!("{detail}; {remark}") }
        }
        Error::Denied { subject, detail } if !remark.is_empty() => {
            Error::Denied { subject, detail: format!("{detail}; {remark}") }
        }
        error => error,
    }
}
