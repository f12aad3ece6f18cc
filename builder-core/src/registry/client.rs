//! The client: one value, any number of threads.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::fmt;
use std::io::Read as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, SystemTime};

use reqwest::blocking::Response;
use reqwest::header::{HeaderMap, LINK};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;

use super::auth::{Authorizer, Door};
use super::blob::BlobReader;
use super::challenge;
use super::config::{ClientConfig, PlainHttp, RetryPolicy};
use super::credentials::Access;
use super::endpoint::{AskedBy, Endpoint, endpoints};
use super::error::{self, Error};
use super::manifest::{self, MAX_MANIFEST, ManifestHead, ResolvedManifest};
use super::reference::Reference;
use super::retry;
use super::transport::{Request, Transport, content_length, read_body};
use crate::digest::Digest;

/// Of an error answer, this many bytes are read for its words.
const MAX_ERROR_BODY: u64 = 64 << 10;
/// Largest page of tags, in bytes.
const MAX_TAG_PAGE: u64 = 16 << 20;
/// More pages than this are a registry that links in circles.
const MAX_TAG_PAGES: usize = 10_000;
/// A mirror is given up sooner than the registry itself.
const MIRROR_ATTEMPTS: u32 = 2;

/// Something that went wrong and was got over.
#[derive(Debug)]
pub(crate) enum Notice<'a> {
    /// A request is about to be sent again.
    Retry {
        /// Why.
        error: &'a Error,
        /// How long the client waits first.
        wait: Duration,
    },
    /// A mirror was of no use; the next place is asked.
    MirrorFailed {
        /// Its `host[:port]`.
        mirror: &'a str,
        /// Why.
        error: &'a Error,
    },
}

type Observer = Arc<dyn Fn(&Notice<'_>) + Send + Sync>;

/// A connection to any number of registries. Cheap to clone; clones share connections, tokens and what is known of hosts.
#[derive(Clone)]
pub(crate) struct Client {
    inner: Arc<Inner>,
    observer: Option<Observer>,
}

struct Inner {
    config: Arc<ClientConfig>,
    transport: Arc<Transport>,
    auth: Authorizer,
    /// What each host that may speak http was found to speak; locked while that is found out.
    bases: Mutex<HashMap<String, Arc<Mutex<Option<Url>>>>>,
    /// Mirrors that could not be reached: not asked again.
    dead_mirrors: Mutex<HashSet<String>>,
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Client").field("config", &self.inner.config).finish_non_exhaustive()
    }
}

/// One request below `/v2/<repository>/`.
pub(super) struct Call<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) method: Method,
    /// Relative to the repository: `manifests/latest`.
    pub(super) path: &'a str,
    pub(super) headers: HeaderMap,
    pub(super) subject: &'a str,
}

impl<'a> Call<'a> {
    pub(super) fn new(endpoint: &'a Endpoint, method: Method, path: &'a str, subject: &'a str) -> Self {
        Self { endpoint, method, path, headers: HeaderMap::new(), subject }
    }
}

impl Client {
    /// Makes a client. Nothing is opened or looked up before the first request.
    pub(crate) fn new(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        let transport = Arc::new(Transport::new(Arc::clone(&config)));
        let auth = Authorizer::new(Arc::clone(&config), Arc::clone(&transport));
        let (bases, dead_mirrors) = (Mutex::default(), Mutex::default());
        Self { inner: Arc::new(Inner { config, transport, auth, bases, dead_mirrors }), observer: None }
    }

    /// Returns a clone that tells `observer` what goes wrong on the way. Called on the thread that makes the request.
    #[must_use]
    pub(crate) fn with_observer(&self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        Self { inner: Arc::clone(&self.inner), observer: Some(Arc::new(observer)) }
    }

    /// Fetches the manifest or index that `reference` names, by its digest if it has one, by its tag otherwise.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<ResolvedManifest, Error> {
        let subject = format!("manifest of {reference}");
        let path = manifest_path(reference);
        self.ask(reference, asked_by(reference), &subject, |endpoint| {
            let mut call = Call::new(endpoint, Method::GET, &path, &subject);
            call.headers = manifest::accept();
            let response = self.send(call)?;
            let headers = response.headers().clone();
            let bytes = read_body(response, MAX_MANIFEST, &subject)?;
            manifest::check(&subject, reference.digest(), &headers, bytes)
        })
    }

    /// Fetches the manifest with `digest` from the repository of `reference`.
    pub(crate) fn manifest_by_digest(&self, reference: &Reference, digest: Digest) -> Result<ResolvedManifest, Error> {
        self.resolve(&reference.with_digest(digest))
    }

    /// Asks what `reference` names at the moment, without fetching it; registries that count pulls do not count this.
    ///
    /// `Ok(None)` when the registry does not say the digest: [`Client::resolve`] finds it out.
    pub(crate) fn head_manifest(&self, reference: &Reference) -> Result<Option<ManifestHead>, Error> {
        let subject = format!("manifest of {reference}");
        let path = manifest_path(reference);
        self.ask(reference, asked_by(reference), &subject, |endpoint| {
            let mut call = Call::new(endpoint, Method::HEAD, &path, &subject);
            call.headers = manifest::accept();
            Ok(manifest::head(self.send(call)?.headers()))
        })
    }

    /// Starts to fetch a blob from the repository of `reference`.
    ///
    /// The reader survives broken connections, and fails at its end if the bytes are not those of `digest` and `size`.
    pub(crate) fn blob(&self, reference: &Reference, digest: Digest, size: u64) -> Result<BlobReader, Error> {
        BlobReader::open(self.clone(), reference, digest, size)
    }

    /// Fetches a small blob (a config) whole. `size` beyond `limit` bytes is an error before anything is asked for.
    pub(crate) fn blob_bytes(
        &self,
        reference: &Reference,
        digest: Digest,
        size: u64,
        limit: u64,
    ) -> Result<Vec<u8>, Error> {
        let subject = blob_subject(reference, digest);
        if size > limit {
            return Err(Error::TooLarge { subject, limit });
        }
        let mut bytes = Vec::new();
        match self.blob(reference, digest, size)?.read_to_end(&mut bytes) {
            Ok(_) => Ok(bytes),
            Err(error) => Err(BlobReader::unwrap_error(error, &subject)),
        }
    }

    /// Asks whether the repository of `reference` has a blob; returns its size if so.
    pub(crate) fn blob_size(&self, reference: &Reference, digest: Digest) -> Result<Option<u64>, Error> {
        let subject = blob_subject(reference, digest);
        let path = format!("blobs/{digest}");
        let found = self.ask(reference, AskedBy::Digest, &subject, |endpoint| {
            self.send(Call::new(endpoint, Method::HEAD, &path, &subject))
        });
        match found {
            Ok(response) => content_length(response.headers())
                .map(Some)
                .ok_or_else(|| Error::Protocol { subject, problem: "the registry does not say its size".to_owned() }),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Returns all tags of the repository of `reference`, in the registry's order.
    pub(crate) fn tags(&self, reference: &Reference) -> Result<Vec<String>, Error> {
        #[derive(Deserialize)]
        struct Page {
            tags: Option<Vec<String>>,
        }
        let subject = format!("tags of {}", reference.name());
        self.ask(reference, AskedBy::Tag, &subject, |endpoint| {
            let mut tags = Vec::new();
            let mut path = "tags/list?n=1000".to_owned();
            for _ in 0..MAX_TAG_PAGES {
                let response = self.send(Call::new(endpoint, Method::GET, &path, &subject))?;
                let next = next_page(response.headers());
                let body = read_body(response, MAX_TAG_PAGE, &subject)?;
                let page: Page = serde_json::from_slice(&body).map_err(|error| Error::Protocol {
                    subject: subject.clone(),
                    problem: format!("not a list of tags: {error}"),
                })?;
                tags.extend(page.tags.unwrap_or_default());
                match next {
                    None => return Ok(tags),
                    Some(query) => path = format!("tags/list?{query}"),
                }
            }
            Err(Error::Protocol { subject: subject.clone(), problem: "the list of tags has no end".to_owned() })
        })
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
                return self.retrying(own, || request(&endpoint));
            }
            if self.dead_mirrors().contains(&endpoint.host) {
                continue;
            }
            match self.retrying(hurried, || request(&endpoint)) {
                Ok(value) => return Ok(value),
                Err(error) => {
                    if matches!(error, Error::Network { .. } | Error::Tls { .. }) {
                        self.dead_mirrors().insert(endpoint.host.clone());
                    }
                    self.tell(&Notice::MirrorFailed { mirror: &endpoint.host, error: &error });
                }
            }
        }
        Err(Error::Protocol { subject: subject.to_owned(), problem: "no place to ask".to_owned() })
    }

    fn dead_mirrors(&self) -> std::sync::MutexGuard<'_, HashSet<String>> {
        self.inner.dead_mirrors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn retrying<T>(&self, policy: RetryPolicy, mut request: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
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

    /// Returns when to try again, if at all.
    pub(super) fn retry_policy(&self) -> RetryPolicy {
        self.inner.config.retry
    }

    /// One exchange: finds out how the host is spoken to, answers its challenge once, turns failures into errors.
    pub(super) fn send(&self, call: Call<'_>) -> Result<Response, Error> {
        let Call { endpoint, method, path, headers, subject } = call;
        let base = self.base(&endpoint.host, subject)?;
        let url = base.join(&format!("v2/{}/{path}", endpoint.repository)).map_err(|_| Error::Protocol {
            subject: subject.to_owned(),
            problem: format!("{} is not a host", endpoint.host),
        })?;
        let scope = BTreeSet::from([format!("repository:{}:pull", endpoint.repository)]);
        let (host, repository) = (endpoint.host.as_str(), endpoint.repository.as_str());
        let door = Door { host, base: &base, repository, access: Access::Pull, scope: &scope, subject };
        let mut request = Request { method, url, headers, authorization: None, body: None };
        request.authorization = self.inner.auth.authorization(&door)?;
        let response = self.inner.transport.send(request.clone(), subject)?;
        // A 401 from where a redirect led is not this registry's question, and gets no answer.
        if response.status() != StatusCode::UNAUTHORIZED || response.url().origin() != base.origin() {
            return checked(response, subject, "");
        }
        let Some(challenge) = challenge::parse(response.headers()) else { return checked(response, subject, "") };
        let refused = request.authorization.take();
        // Read to its end, the connection serves the next request.
        let first = refusal(response, subject);
        match self.inner.auth.renew(&door, challenge, refused.as_ref())? {
            None => Err(with_remark(first, &self.inner.auth.describe(&door))),
            Some(header) => {
                request.authorization = Some(header);
                let response = self.inner.transport.send(request, subject)?;
                checked(response, subject, &self.inner.auth.describe(&door))
            }
        }
    }

    /// Returns `scheme://host/`. For a host that may speak http, the first caller asks `/v2/` and all others wait.
    fn base(&self, host: &str, subject: &str) -> Result<Url, Error> {
        let url = |scheme: &str| {
            format!("{scheme}://{host}/")
                .parse::<Url>()
                .map_err(|_| Error::Protocol { subject: subject.to_owned(), problem: format!("{host} is not a host") })
        };
        let order = match self.inner.transport.plain_http(host) {
            PlainHttp::Never => return url("https"),
            PlainHttp::Always => return url("http"),
            // A test or side-car registry speaks http almost always; one elsewhere that may is still likely to have TLS.
            PlainHttp::Allowed if super::transport::is_loopback(host) => [url("http")?, url("https")?],
            PlainHttp::Allowed => [url("https")?, url("http")?],
        };
        let slot = Arc::clone(
            self.inner.bases.lock().unwrap_or_else(PoisonError::into_inner).entry(host.to_owned()).or_default(),
        );
        let mut slot = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(base) = &*slot {
            return Ok(base.clone());
        }
        let [first, second] = order;
        let base = match self.probe(&first, subject) {
            Ok(true) => first,
            Ok(false) => {
                self.probe(&second, subject)?;
                second
            }
            // The certificate is wrong: that is the answer, not a reason to do without.
            Err(error @ Error::Tls { .. }) if !speaks_http(&error) => return Err(error),
            Err(error) => match self.probe(&second, subject) {
                Ok(_) => second,
                Err(other @ Error::Tls { .. }) if !speaks_http(&other) => return Err(other),
                Err(_) => return Err(error),
            },
        };
        Ok(slot.insert(base).clone())
    }

    /// Asks whether a registry answers below `base`; keeps the challenge that comes with the answer.
    fn probe(&self, base: &Url, subject: &str) -> Result<bool, Error> {
        let url = base.join("v2/").unwrap_or_else(|_| base.clone());
        let response = self.inner.transport.send(Request::new(Method::GET, url), subject)?;
        if response.status() == StatusCode::UNAUTHORIZED
            && response.url().origin() == base.origin()
            && let Some(challenge) = challenge::parse(response.headers())
        {
            self.inner.auth.learn(&super::transport::host_of(base), challenge);
        }
        // What a TLS server says to plain http.
        let answered = response.status() != StatusCode::BAD_REQUEST;
        refusal(response, subject);
        Ok(answered)
    }
}

fn speaks_http(error: &Error) -> bool {
    let Error::Tls { source, .. } = error else { return false };
    matches!(super::tls::find_failure(source.as_ref()), Some(rustls::Error::InvalidMessage(_)))
}

fn asked_by(reference: &Reference) -> AskedBy {
    if reference.digest().is_some() { AskedBy::Digest } else { AskedBy::Tag }
}

fn manifest_path(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("manifests/{digest}"),
        (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
    }
}

/// Returns how errors name a blob.
pub(super) fn blob_subject(reference: &Reference, digest: Digest) -> String {
    format!("blob {digest} of {}", reference.name())
}

fn checked(response: Response, subject: &str, remark: &str) -> Result<Response, Error> {
    if response.status().is_success() { Ok(response) } else { Err(with_remark(refusal(response, subject), remark)) }
}

/// Reads an error answer.
fn refusal(response: Response, subject: &str) -> Error {
    let status = response.status();
    let retry_after = retry::retry_after(response.headers(), SystemTime::now());
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

/// Returns the query of the link to the next page. Path and host of the link are the request's own anyway; taking them
/// from the registry would let it send the token elsewhere.
fn next_page(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).into_iter().filter_map(|link| link.to_str().ok());
    links.flat_map(|links| links.split(',')).find_map(|link| {
        let (target, params) = link.trim().strip_prefix('<')?.split_once('>')?;
        let is_next = params.split(';').any(|param| param.trim().replace('"', "").eq_ignore_ascii_case("rel=next"));
        let (_, query) = target.split_once('?').filter(|_| is_next)?;
        Some(query.split('#').next().unwrap_or_default().to_owned())
    })
}
