//! Plain downloads, such as `ADD https://…`: one URL, asked for again only when it changed.
//!
//! Connections, redirects, time limits and retries are those of the registry client. What becomes of the bytes is the
//! caller's business, as is remembering the [`Validators`].

use std::io::{self, Read};
use std::sync::Arc;
use std::thread;

use reqwest::blocking::Response;
use reqwest::header::{
    CONTENT_RANGE, ETAG, HeaderMap, HeaderName, HeaderValue, IF_MODIFIED_SINCE, IF_NONE_MATCH, IF_RANGE, LAST_MODIFIED,
    RANGE,
};
use reqwest::{Method, StatusCode, Url};

use super::config::ClientConfig;
use super::error::Error;
use super::exchange::refusal;
use super::transport::{Request, Transport, content_length, failure};

/// By what a server tells whether something changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Validators {
    /// `ETag`
    pub(crate) etag: Option<String>,
    /// `Last-Modified`
    pub(crate) last_modified: Option<String>,
}

/// What a server answered.
#[derive(Debug)]
pub(crate) enum Answer<T> {
    /// What the validators were for is still what it has.
    Unchanged,
    /// The bytes came, and this was made of them.
    New(T, Validators),
}

/// Shorter parts of an `Authorization` turn up in harmless words, in bytes.
const SHORTEST_HIDDEN: usize = 5;

/// What is asked for.
#[derive(Debug, Clone)]
pub(crate) struct Wanted {
    /// Without user name and password.
    pub(crate) url: Url,
    /// Sent to the origin of the URL alone, whereever redirects lead.
    pub(crate) authorization: Option<HeaderValue>,
}

impl Wanted {
    /// What must not be shown: the value as a whole, and what follows its scheme.
    fn hidden(&self) -> Vec<&str> {
        let value = self.authorization.as_ref().and_then(|value| value.to_str().ok()).unwrap_or_default();
        let parts = [value, value.split_once(' ').map_or("", |(_, rest)| rest)];
        parts.into_iter().filter(|part| part.len() >= SHORTEST_HIDDEN).collect()
    }

    fn request(&self) -> Request<'static> {
        Request { authorization: self.authorization.clone(), ..Request::new(Method::GET, self.url.clone()) }
    }
}

/// Gets URLs.
#[derive(Debug)]
pub(crate) struct Downloader {
    config: Arc<ClientConfig>,
    transport: Transport,
}

impl Downloader {
    /// Makes one that behaves towards hosts as `config` says. Nothing is opened yet.
    pub(crate) fn new(config: ClientConfig) -> Self {
        let config = Arc::new(config);
        Self { transport: Transport::new(config.clone()), config }
    }

    /// Gets what is wanted unless it is what `known` says, and hands its bytes to `receive`. When the connection breaks it goes on
    /// where it broke off if the server can say that the file is the same, else from the start, with `receive` called
    /// again. The inner error is that of `receive`, which ends it.
    ///
    /// # Errors
    /// Everything that is no success after the retries; a body that is shorter than announced among them.
    pub(crate) fn get<T, E>(
        &self,
        wanted: &Wanted,
        known: &Validators,
        receive: &mut dyn FnMut(&mut dyn Read) -> Result<T, E>,
    ) -> Result<Result<Answer<T>, E>, Error> {
        let mut failed = 0;
        loop {
            let error = match self.try_once(wanted, known, receive) {
                Ok(answer) => return Ok(answer),
                Err(error) => error,
            };
            failed += 1;
            match self.config.retry.wait(failed, &error) {
                Some(wait) => thread::sleep(wait),
                None => return Err(error),
            }
        }
    }

    fn try_once<T, E>(
        &self,
        wanted: &Wanted,
        known: &Validators,
        receive: &mut dyn FnMut(&mut dyn Read) -> Result<T, E>,
    ) -> Result<Result<Answer<T>, E>, Error> {
        let subject = shown(&wanted.url);
        let mut request = wanted.request();
        add(&mut request.headers, IF_NONE_MATCH, known.etag.as_deref());
        // A server that has both may believe the weaker one.
        let modified = known.last_modified.as_deref().filter(|_| known.etag.is_none());
        add(&mut request.headers, IF_MODIFIED_SINCE, modified);
        let response = self.transport.send(request, &subject)?;
        let asked = known.etag.is_some() || known.last_modified.is_some();
        if response.status() == StatusCode::NOT_MODIFIED && asked {
            return Ok(Ok(Answer::Unchanged));
        }
        if response.status() != StatusCode::OK {
            return Err(refusal(response, &subject).hiding(&wanted.hidden()));
        }
        let text = |name| response.headers().get(name).and_then(|value: &HeaderValue| value.to_str().ok());
        let validators =
            Validators { etag: text(ETAG).map(str::to_owned), last_modified: text(LAST_MODIFIED).map(str::to_owned) };
        let size = content_length(response.headers());
        let same = validators.etag.clone().filter(|etag| !etag.starts_with("W/"));
        let mut body =
            Body { from: self, wanted, subject, size, same, inner: response, received: 0, failed: 0, broken: None };
        let result = receive(&mut body);
        match body.broken {
            Some(error) => Err(error),
            None => Ok(result.map(|value| Answer::New(value, validators))),
        }
    }
}

/// `url` without what may be secret: user name, password, query.
pub(crate) fn shown(url: &Url) -> String {
    let mut end = url.clone();
    end.set_query(None);
    end.set_fragment(None);
    // Neither can fail for a URL that has a host.
    if end.set_username("").and_then(|()| end.set_password(None)).is_err() {
        return url.scheme().to_owned();
    }
    end.to_string()
}

fn add(headers: &mut HeaderMap, name: HeaderName, value: Option<&str>) {
    if let Some(value) = value.and_then(|value| HeaderValue::from_str(value).ok()) {
        headers.insert(name, value);
    }
}

/// The bytes of a file, over as many connections as it takes. Tells a broken connection from a failure of the reader.
struct Body<'d> {
    from: &'d Downloader,
    wanted: &'d Wanted,
    subject: String,
    size: Option<u64>,
    /// By what the server knows that a later request means the same bytes: a strong `ETag`.
    same: Option<String>,
    inner: Response,
    received: u64,
    /// Tries since the last byte.
    failed: u32,
    broken: Option<Error>,
}

impl Body<'_> {
    fn read_once(&mut self, buf: &mut [u8]) -> Result<io::Result<usize>, Error> {
        match self.inner.read(buf) {
            Ok(0) if !buf.is_empty() => match self.size.filter(|size| self.received < *size) {
                Some(size) => Err(Error::Truncated { subject: self.subject.clone(), received: self.received, size }),
                None => Ok(Ok(0)),
            },
            Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                Err(failure(&self.subject, self.inner.url(), error))
            }
            result => Ok(result),
        }
    }

    /// Asks for what is missing; `None` when that cannot be had.
    fn resume(&mut self, error: &Error) -> Option<Response> {
        let same = self.same.as_deref()?;
        self.failed += 1;
        thread::sleep(self.from.config.retry.wait(self.failed, error)?);
        let mut request = self.wanted.request();
        add(&mut request.headers, RANGE, Some(&format!("bytes={}-", self.received)));
        add(&mut request.headers, IF_RANGE, Some(same));
        match self.from.transport.send(request, &self.subject) {
            Ok(response) => continues(&response, self.received).then_some(response),
            Err(error) => self.resume(&error),
        }
    }
}

impl Read for Body<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let error = match self.read_once(buf) {
                Ok(result) => {
                    let n = result?;
                    self.received += n as u64;
                    self.failed = 0;
                    return Ok(n);
                }
                Err(error) => error,
            };
            match self.resume(&error) {
                Some(response) => self.inner = response,
                None => {
                    self.broken = Some(error);
                    return Err(io::Error::other("the connection broke"));
                }
            }
        }
    }
}

/// Whether `response` is the part of the file that begins at byte `start`.
fn continues(response: &Response, start: u64) -> bool {
    let range = response.headers().get(CONTENT_RANGE).and_then(|range| range.to_str().ok());
    let first = range.and_then(|range| range.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok());
    response.status() == StatusCode::PARTIAL_CONTENT && first == Some(start)
}
