//! Writing: blobs, manifests, and the question whether that is allowed.
//!
//! A blob that the repository has is not sent (HEAD), one that another repository of the registry has is mounted, and
//! only the rest is uploaded: small ones in one PUT, others by PATCH in as few pieces as the registry takes. A broken
//! upload goes on where the registry says it stands. Order is the caller's: blobs before the manifest that names them.
//!
//! Mirrors are never written to.

use std::fmt;
use std::io::{self, Read};
use std::time::Duration;

use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, CONTENT_TYPE, HeaderName, HeaderValue, LOCATION, RANGE};
use reqwest::{Method, StatusCode, Url};

use super::client::{Client, blob_subject, manifest_path};
use super::endpoint::Endpoint;
use super::error::{Error, printable};
use super::exchange::{Call, Session, Target};
use super::manifest::{MAX_MANIFEST, ResolvedManifest, accept, check, said_digest, said_subject};
use super::reference::Reference;
use super::transport::{Payload, read_body};
use crate::digest::Digest;

/// Blobs up to this size, in bytes, go out in one PUT: sending them again costs less than asking how far they came.
const SMALL: u64 = 1 << 20;
/// Size of a piece where not everything can go at once: more than the 5 MiB that S3 wants, less than what proxies refuse.
///
/// Pieces of this size are sent from memory. The HTTP library loses an answer that comes before a streamed body is sent,
/// a refusal that is, so that a stream that broke is followed by something whose answer is heard.
const PIECE: u64 = 8 << 20;
/// Bytes a second below which an upload is too slow to wait for.
const SLOWEST_LINE: u64 = 64 << 10;
/// Bytes a second that a registry puts together at least when an upload is closed.
const SLOWEST_REGISTRY: u64 = 4 << 20;
/// The least that a registry takes in a piece that is not the last (distribution-spec, "Pushing a blob in chunks").
const OCI_CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");

/// A blob that is to be at the registry.
#[derive(Clone, Copy)]
pub(crate) struct Upload<'a> {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its size in bytes.
    pub(crate) size: u64,
    /// Sees to it that the bytes are there when they are opened; called when the registry neither has them nor knows where
    /// they are, before a clock runs.
    pub(crate) bring: &'a (dyn Fn() -> io::Result<()> + Sync),
    /// Opens its bytes from an offset on; called again for each try.
    pub(crate) open: &'a (dyn Fn(u64) -> io::Result<Box<dyn Read + Send>> + Sync),
    /// A repository of the same registry that has it.
    pub(crate) mount_from: Option<&'a str>,
}

impl fmt::Debug for Upload<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("digest", &self.digest).field("size", &self.size).finish_non_exhaustive()
    }
}

/// A manifest that the registry has taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Put {
    /// Its digest.
    pub(crate) digest: Digest,
    /// The manifest for which the registry lists this one as a referrer. A registry that knows nothing of subjects says
    /// nothing, and leaves the list to the client (distribution-spec, "Pushing Manifests with Subject").
    pub(crate) listed_for: Option<Digest>,
}

/// How a blob came to be at the registry.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Uploaded {
    /// It was there.
    Existed,
    /// The registry took it from another repository.
    Mounted,
    /// Its bytes were sent.
    Sent,
}

impl Client {
    /// Makes sure that this client may write to the repository of `reference`, by starting an upload and giving it up.
    pub(crate) fn check_push(&self, reference: &Reference) -> Result<(), Error> {
        let subject = format!("uploads to {}", reference.name());
        let endpoint = self.session.home(reference)?;
        let call = Call::write(&endpoint, Method::POST, Target::Path("blobs/uploads/"), &subject);
        let response = self.session.retrying(|| self.session.send(&call))?;
        let url = place(&self.session, &call, &response)?;
        // An upload that is not given up ends by itself after a while.
        drop(self.session.send(&Call::write(&endpoint, Method::DELETE, Target::Url(&url), &subject)));
        Ok(())
    }

    /// Makes sure that the repository of `reference` has a blob.
    pub(crate) fn push_blob(&self, reference: &Reference, upload: Upload<'_>) -> Result<Uploaded, Error> {
        let subject = blob_subject(reference, upload.digest);
        let endpoint = self.session.home(reference)?;
        Push { session: &self.session, endpoint: &endpoint, subject: &subject, upload }.run()
    }

    /// Puts a manifest or an index under the tag of `reference`, or, without a tag, under its digest alone.
    pub(crate) fn push_manifest(&self, reference: &Reference, media_type: &str, bytes: &[u8]) -> Result<Put, Error> {
        let digest = Digest::of(bytes);
        let subject = format!("manifest of {reference}");
        if bytes.len() as u64 > MAX_MANIFEST {
            return Err(Error::TooLarge { subject, limit: MAX_MANIFEST });
        }
        if let Some(expected) = reference.digest().filter(|expected| *expected != digest) {
            return Err(Error::DigestMismatch { subject, expected, found: digest.to_string() });
        }
        let endpoint = self.session.home(reference)?;
        let path = reference.tag().map_or_else(|| format!("manifests/{digest}"), |tag| format!("manifests/{tag}"));
        let mut call = Call::write(&endpoint, Method::PUT, Target::Path(&path), &subject);
        let media_type = HeaderValue::from_str(media_type).map_err(|_| Error::Protocol {
            subject: subject.clone(),
            problem: format!("{media_type:?} is no media type"),
        })?;
        call.headers.insert(CONTENT_TYPE, media_type);
        call.payload = Payload::Bytes(bytes);
        let response = self.session.retrying(|| self.session.send(&call))?;
        match said_digest(response.headers()) {
            Some(said) if said != digest.to_string() => {
                Err(Error::DigestMismatch { subject, expected: digest, found: printable(said) })
            }
            _ => Ok(Put { digest, listed_for: said_subject(response.headers()) }),
        }
    }

    /// Fetches what the registry itself, not a mirror of it, has under the tag of `reference`, for who wants to change it.
    pub(crate) fn manifest_to_change(&self, reference: &Reference) -> Result<ResolvedManifest, Error> {
        let subject = format!("manifest of {reference}");
        let endpoint = self.session.home(reference)?;
        let path = manifest_path(reference);
        let mut call = Call::write(&endpoint, Method::GET, Target::Path(&path), &subject);
        call.headers = accept();
        self.session.retrying(|| {
            let response = self.session.send(&call)?;
            let headers = response.headers().clone();
            let bytes = read_body(response, MAX_MANIFEST, &subject)?;
            check(&subject, reference.digest(), &headers, bytes)
        })
    }
}

struct Push<'a> {
    session: &'a Session,
    endpoint: &'a Endpoint,
    subject: &'a str,
    upload: Upload<'a>,
}

/// An upload that the registry has begun.
struct Begun {
    /// Where it goes on; changes from answer to answer.
    url: Url,
    /// Bytes that the registry has.
    offset: u64,
    /// Most bytes to send at once.
    piece: u64,
    /// Fewest bytes that the registry takes at once.
    least: u64,
}

/// What starting an upload came to.
enum Start {
    Mounted,
    Begun(Begun),
}

impl Push<'_> {
    fn run(&self) -> Result<Uploaded, Error> {
        if self.exists()? {
            return Ok(Uploaded::Existed);
        }
        // What is still elsewhere comes before the clock of an upload runs, or that of a request.
        let come = || (self.upload.bring)().map_err(|source| self.unreadable(source));
        if self.upload.mount_from.is_none() {
            come()?;
        }
        match self.start(self.upload.mount_from, u64::MAX)? {
            Start::Mounted => Ok(Uploaded::Mounted),
            Start::Begun(begun) => {
                come()?;
                self.send_all(begun).map(|()| Uploaded::Sent)
            }
        }
    }

    fn exists(&self) -> Result<bool, Error> {
        let path = format!("blobs/{}", self.upload.digest);
        let call = self.call(Method::HEAD, Target::Path(&path));
        match self.session.retrying(|| self.session.send(&call)) {
            Ok(_) => Ok(true),
            Err(Error::NotFound { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn start(&self, mount_from: Option<&str>, piece: u64) -> Result<Start, Error> {
        let path = match mount_from {
            Some(from) => format!("blobs/uploads/?mount={}&from={from}", self.upload.digest),
            None => "blobs/uploads/".to_owned(),
        };
        let call = Call { also_from: mount_from, ..self.call(Method::POST, Target::Path(&path)) };
        let response = match self.session.retrying(|| self.session.send(&call)) {
            // Who may not read there can still upload.
            Err(Error::Unauthorized { .. } | Error::Denied { .. } | Error::NotFound { .. }) if mount_from.is_some() => {
                return self.start(None, piece);
            }
            answer => answer?,
        };
        if response.status() == StatusCode::CREATED && mount_from.is_some() {
            return Ok(Start::Mounted);
        }
        let least = response.headers().get(OCI_CHUNK_MIN_LENGTH).and_then(|least| least.to_str().ok()?.parse().ok());
        let url = place(self.session, &call, &response)?;
        Ok(Start::Begun(Begun { url, offset: 0, piece, least: least.unwrap_or(0) }))
    }

    fn restart(&self, piece: u64) -> Result<Begun, Error> {
        match self.start(None, piece)? {
            Start::Begun(begun) => Ok(begun),
            Start::Mounted => Err(self.problem("the registry claims a mount that nobody asked for")),
        }
    }

    /// Goes on until the blob is complete, or nothing helps.
    fn send_all(&self, mut begun: Begun) -> Result<(), Error> {
        let mut failed = 0;
        let mut furthest = 0;
        loop {
            let error = match self.step(&mut begun) {
                Ok(Step::Done) => return Ok(()),
                Ok(Step::More) => continue,
                Err(error) => error,
            };
            let status = if let Error::Status { status, .. } = &error { *status } else { 0 };
            let in_pieces = begun.piece <= PIECE;
            if status == 413 || matches!(error, Error::Network { .. }) {
                begun.piece = PIECE;
            }
            if begun.offset > furthest {
                (failed, furthest) = (0, begun.offset);
            }
            failed += 1;
            // The registry's count differs from ours, or it has forgotten the upload, or smaller pieces may do: all are
            // got over by asking where it stands.
            let mended = matches!(error, Error::NotFound { .. }) || status == 416 || (status == 413 && !in_pieces);
            let policy = self.session.config().retry;
            let wait = match policy.wait(failed, &error) {
                None if mended && failed < policy.attempts => policy.own_wait(failed),
                None => return Err(error),
                Some(wait) => wait,
            };
            self.session.pause(&error, wait);
            // Not even its beginning fits: it cannot tell one byte from none.
            if status == 416 && begun.offset == 0 {
                begun = self.restart(begun.piece)?;
                continue;
            }
            match self.recover(begun)? {
                Some(found) => begun = found,
                None => return Ok(()),
            }
        }
    }

    fn step(&self, begun: &mut Begun) -> Result<Step, Error> {
        let (size, offset) = (self.upload.size, begun.offset);
        if offset >= size || (offset == 0 && size <= SMALL) {
            return self.put(begun).map(|()| Step::Done);
        }
        let length = begun.piece.max(begun.least).min(size - offset);
        let open = || (self.upload.open)(offset);
        let bytes;
        let mut call = self.call(Method::PATCH, Target::Url(&begun.url));
        call.payload = if length <= PIECE {
            bytes = self.read(offset, length)?;
            Payload::Bytes(&bytes)
        } else {
            Payload::Stream(&open, length)
        };
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.patience = Duration::from_secs(1 + length / SLOWEST_LINE);
        call.headers.extend(header(CONTENT_RANGE, format!("{offset}-{}", offset + length - 1)));
        let response = self.session.send(&call)?;
        // Not every registry says how far it is; one that does is believed, within what was sent.
        let said = received(&response).filter(|said| (offset..=offset + length).contains(said));
        let next = place_or(self.session, &call, &response)?;
        begun.offset = said.unwrap_or(offset + length);
        if let Some(url) = next {
            begun.url = url;
        }
        // A piece that was not taken whole is not progress that could be repeated for ever.
        if begun.offset == offset { Err(self.problem("the registry takes no bytes")) } else { Ok(Step::More) }
    }

    /// Sends what is left, which is everything or nothing, and closes the upload.
    fn put(&self, begun: &Begun) -> Result<(), Error> {
        let mut url = begun.url.clone();
        url.query_pairs_mut().append_pair("digest", &self.upload.digest.to_string());
        let bytes = self.read(begun.offset, self.upload.size - begun.offset)?;
        let mut call = self.call(Method::PUT, Target::Url(&url));
        call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/octet-stream"));
        call.payload = Payload::Bytes(&bytes);
        call.patience =
            Duration::from_secs(1 + bytes.len() as u64 / SLOWEST_LINE + self.upload.size / SLOWEST_REGISTRY);
        self.session.send(&call).map(drop)
    }

    /// Reads `length` bytes from `offset` on: never more than a piece.
    fn read(&self, offset: u64, length: u64) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        if length == 0 {
            return Ok(bytes);
        }
        let read = (self.upload.open)(offset).and_then(|reader| reader.take(length).read_to_end(&mut bytes));
        match read {
            Ok(_) if bytes.len() as u64 == length => Ok(bytes),
            Ok(_) => Err(self.unreadable(io::ErrorKind::UnexpectedEof.into())),
            Err(source) => Err(self.unreadable(source)),
        }
    }

    fn unreadable(&self, source: io::Error) -> Error {
        Error::Source { subject: self.subject.to_owned(), source }
    }

    /// Asks how far the upload came; begins another one when it is gone, and returns `None` when it turns out to be done.
    fn recover(&self, begun: Begun) -> Result<Option<Begun>, Error> {
        let Begun { url, piece, least, .. } = begun;
        let call = self.call(Method::GET, Target::Url(&url));
        match self.session.retrying(|| self.session.send(&call)) {
            Ok(response) if response.status() == StatusCode::NO_CONTENT => {
                let offset = received(&response).filter(|offset| *offset <= self.upload.size);
                if let Some(offset) = offset {
                    let next = place_or(self.session, &call, &response)?;
                    return Ok(Some(Begun { url: next.unwrap_or(url), offset, piece, least }));
                }
            }
            Ok(_) | Err(Error::NotFound { .. } | Error::Status { status: 400..500, .. }) => {}
            Err(error) => return Err(error),
        }
        // The answer to the last request may have been lost, not the request.
        if self.exists()? { Ok(None) } else { self.restart(piece).map(Some) }
    }

    fn call<'c>(&'c self, method: Method, target: Target<'c>) -> Call<'c> {
        Call::write(self.endpoint, method, target, self.subject)
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Protocol { subject: self.subject.to_owned(), problem: problem.to_owned() }
    }
}

enum Step {
    Done,
    More,
}

fn header(name: HeaderName, value: String) -> Option<(HeaderName, HeaderValue)> {
    Some((name, HeaderValue::from_str(&value).ok()?))
}

/// Reads `Range: 0-<last byte>`. `0-0` is what registries say of an upload without a byte, and of one with one byte;
/// it is taken for none.
fn received(response: &Response) -> Option<u64> {
    let text = response.headers().get(RANGE)?.to_str().ok()?;
    let (first, last) = text.strip_prefix("bytes=").unwrap_or(text).split_once('-')?;
    match (first, last.parse::<u64>().ok()?) {
        ("0", 0) => Some(0),
        ("0", last) => last.checked_add(1),
        _ => None,
    }
}

fn place(session: &Session, call: &Call<'_>, response: &Response) -> Result<Url, Error> {
    place_or(session, call, response)?.ok_or_else(|| Error::Protocol {
        subject: call.subject.to_owned(),
        problem: "the registry does not say where to upload to (no Location)".to_owned(),
    })
}

fn place_or(session: &Session, call: &Call<'_>, response: &Response) -> Result<Option<Url>, Error> {
    let Some(location) = response.headers().get(LOCATION) else { return Ok(None) };
    let location = location.to_str().map_err(|_| Error::Protocol {
        subject: call.subject.to_owned(),
        problem: "the registry's Location is no URL".to_owned(),
    })?;
    session.location(call, location).map(Some)
}
