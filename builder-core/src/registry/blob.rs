//! A blob as a reader that survives broken connections.
//!
//! What was read stays read: a new connection asks for the rest (`Range`), and where the server sends everything again,
//! the part that is known is skipped. The hash goes on over all of it, so that the last byte comes out only of a blob
//! that is what its digest says. The blob is asked for at the registry again each time, because the place that a
//! redirect led to may be valid for minutes only.

use std::fmt;
use std::io::{self, Read, Write as _};

use reqwest::blocking::Response;
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, RANGE};
use reqwest::{Method, StatusCode};

use super::client::blob_subject;
use super::endpoint::{AskedBy, Endpoint};
use super::error::Error;
use super::exchange::{Call, Session};
use super::reference::Reference;
use super::transport::{content_length, failure};
use crate::digest::{Digest, HashingWriter};

/// Bytes that count as progress: after so many, the tries are counted anew.
const PROGRESS: u64 = 1 << 20;

/// The bytes of one blob. End of file means that all came and have the right digest; until then nothing read through it
/// may be trusted.
///
/// Failures are `io::Error`s that hold an [`Error`]; [`BlobReader::unwrap_error`] takes it out.
pub(crate) struct BlobReader {
    bytes: Resuming,
    /// `None` once the end was reached and checked.
    hash: Option<HashingWriter<io::Sink>>,
}

impl fmt::Debug for BlobReader {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BlobReader").field("subject", &self.bytes.blob.subject).finish_non_exhaustive()
    }
}

impl BlobReader {
    /// Asks for the blob, so that a blob that is not there fails here rather than at the first read.
    pub(super) fn open(session: Session, reference: &Reference, digest: Digest, size: u64) -> Result<Self, Error> {
        let subject = blob_subject(reference, digest);
        let blob = Blob { session, reference: reference.clone(), subject, digest, size };
        let response = Some(blob.request(0)?);
        let bytes = Resuming { blob, response, offset: 0, failed: 0, mark: 0 };
        Ok(Self { bytes, hash: Some(HashingWriter::new(io::sink())) })
    }

    /// Takes the error of this module out of one that reading gave; `subject` is for those that come from elsewhere.
    pub(crate) fn unwrap_error(error: io::Error, subject: &str) -> Error {
        match error.downcast::<Error>() {
            Ok(error) => error,
            Err(error) => Error::Protocol { subject: subject.to_owned(), problem: error.to_string() },
        }
    }

    fn check_end(&mut self) -> Result<(), Error> {
        let Some(hash) = self.hash.take() else { return Ok(()) };
        let (blob, (_, found, _)) = (&self.bytes.blob, hash.finish());
        if found == blob.digest {
            return Ok(());
        }
        Err(Error::DigestMismatch { subject: blob.subject.clone(), expected: blob.digest, found: found.to_string() })
    }
}

impl Read for BlobReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if buf.is_empty() {
            return Ok(0);
        }
        let n = self.bytes.read(buf)?;
        let blob = &self.bytes.blob;
        if n == 0 {
            self.check_end().map_err(io::Error::other)?;
        } else if self.bytes.offset > blob.size {
            let found = "more".to_owned();
            return Err(io::Error::other(Error::SizeMismatch {
                subject: blob.subject.clone(),
                expected: blob.size,
                found,
            }));
        } else if let Some(hash) = &mut self.hash {
            hash.write_all(&buf[..n])?;
        }
        Ok(n)
    }
}

struct Blob {
    session: Session,
    reference: Reference,
    subject: String,
    digest: Digest,
    size: u64,
}

impl Blob {
    /// Asks for all bytes from `offset` on; the answer starts there.
    fn request(&self, offset: u64) -> Result<Response, Error> {
        self.session.ask(&self.reference, AskedBy::Digest, &self.subject, |endpoint| self.request_at(endpoint, offset))
    }

    fn request_at(&self, endpoint: &Endpoint, offset: u64) -> Result<Response, Error> {
        let path = format!("blobs/{}", self.digest);
        let mut call = Call::read(endpoint, Method::GET, &path, &self.subject);
        if offset > 0 {
            let range = HeaderValue::from_str(&format!("bytes={offset}-"));
            call.headers.extend(range.ok().map(|range| (RANGE, range)));
        }
        let mut response = self.session.send(&call)?;
        let starts_at = match response.status() {
            StatusCode::PARTIAL_CONTENT => range_start(response.headers())
                .filter(|start| *start <= offset)
                .ok_or_else(|| self.problem("the registry sends another part than it was asked for"))?,
            _ => 0,
        };
        if let Some(length) = content_length(response.headers()).filter(|length| starts_at + length != self.size) {
            let found = (starts_at + length).to_string();
            return Err(Error::SizeMismatch { subject: self.subject.clone(), expected: self.size, found });
        }
        let known = offset - starts_at;
        let skipped = io::copy(&mut (&mut response).take(known), &mut io::sink())
            .map_err(|source| failure(&self.subject, response.url(), source))?;
        if skipped < known {
            return Err(self.truncated(starts_at + skipped));
        }
        Ok(response)
    }

    fn problem(&self, problem: &str) -> Error {
        Error::Protocol { subject: self.subject.clone(), problem: problem.to_owned() }
    }

    fn truncated(&self, received: u64) -> Error {
        Error::Truncated { subject: self.subject.clone(), received, size: self.size }
    }
}

/// Returns the first position of `Content-Range: bytes 5-9/10`.
fn range_start(headers: &HeaderMap) -> Option<u64> {
    let text = headers.get(CONTENT_RANGE)?.to_str().ok()?;
    text.strip_prefix("bytes ")?.split_once('-')?.0.parse().ok()
}

/// The bytes of a blob over as many connections as it takes.
struct Resuming {
    blob: Blob,
    /// `None` after a failure, until the next try.
    response: Option<Response>,
    /// Bytes handed out.
    offset: u64,
    /// Tries that failed since `mark`.
    failed: u32,
    /// Where the tries were last counted anew.
    mark: u64,
}

impl Resuming {
    /// Waits for the next try, or makes `error` final.
    fn fail(&mut self, error: Error) -> io::Result<()> {
        if self.offset - self.mark >= PROGRESS {
            self.failed = 0;
        }
        self.mark = self.offset;
        self.failed += 1;
        match self.blob.session.config().retry.wait(self.failed, &error) {
            Some(wait) => {
                self.blob.session.pause(&error, wait);
                Ok(())
            }
            None => Err(io::Error::other(error)),
        }
    }
}

impl Read for Resuming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let response = match &mut self.response {
                Some(response) => response,
                empty => empty.insert(self.blob.request(self.offset).map_err(io::Error::other)?),
            };
            let done = self.offset >= self.blob.size;
            let error = match response.read(buf) {
                Ok(0) if done => return Ok(0),
                // All bytes are there; how the connection ended no longer matters.
                Err(_) if done => return Ok(0),
                Ok(0) => self.blob.truncated(self.offset),
                Ok(n) => {
                    self.offset += n as u64;
                    return Ok(n);
                }
                Err(source) => failure(&self.blob.subject, response.url(), source),
            };
            self.response = None;
            self.fail(error)?;
        }
    }
}
