//! A file by http or https, kept as a blob of the store.

use std::io::{self, Read, Write as _};

use reqwest::Url;
use sha2::{Digest as _, Sha256};

use super::{FetchError, Fetcher, lock};
use crate::digest::{ContentHash, DiffId, Digest};
use crate::registry::{Answer, Validators, shown};
use crate::solver::KeyParts;
use crate::store::{LayerDescriptor, RawBlobWriter, Record};
use crate::tree::Timestamp;

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;
/// Names of what the record says of the file.
const ETAG: &str = "etag";
const LAST_MODIFIED: &str = "last-modified";
const CONTENT: &str = "blake3";

/// A file that was downloaded, in the store as a blob.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Download {
    /// Digest of the file and of the blob.
    pub(crate) digest: Digest,
    /// Bytes.
    pub(crate) size: u64,
    /// Its content as trees know it.
    pub(crate) content: ContentHash,
    /// `Last-Modified`, where the server said so.
    pub(crate) modified: Option<Timestamp>,
}

impl Fetcher {
    /// Downloads `url`, unless the copy of an earlier build is still what the server has. With a checksum that this
    /// copy has, no server is asked.
    pub(crate) fn download(&self, url: &str, checksum: Option<&Digest>) -> Result<Download, FetchError> {
        let parsed = parse(url)?;
        let mut key = KeyParts::new("http/1");
        key.add("url", url);
        let _lock = self.lock(&key.key(), url)?;
        let done = lock(&self.downloads).get(&key.key()).cloned();
        let download = match done {
            Some(download) => download,
            None => {
                let download = self.revalidate(&parsed, &key, checksum)?;
                lock(&self.downloads).insert(key.key(), download.clone());
                download
            }
        };
        match checksum {
            Some(expected) if *expected != download.digest => {
                Err(FetchError::Checksum { url: shown(&parsed), expected: *expected, found: download.digest })
            }
            _ => Ok(download),
        }
    }

    /// Whether [`Fetcher::download`] would ask no server.
    pub(crate) fn is_here(&self, url: &str, checksum: Option<&Digest>) -> Result<bool, FetchError> {
        let mut key = KeyParts::new("http/1");
        key.add("url", url);
        let record = self.store.record(&key.key()).map_err(FetchError::store(url))?;
        let known = record.as_ref().and_then(read_record);
        Ok(checksum.is_some() && known.is_some_and(|(known, _)| checksum == Some(&known.digest)))
    }

    fn revalidate(&self, url: &Url, key: &KeyParts, checksum: Option<&Digest>) -> Result<Download, FetchError> {
        let subject = shown(url);
        let record = self.store.record(&key.key()).map_err(FetchError::store(&subject))?;
        let known = record.as_ref().and_then(read_record);
        if let Some((download, _)) = known.as_ref().filter(|(known, _)| checksum == Some(&known.digest)) {
            return Ok(download.clone());
        }
        let validators = known.as_ref().map(|(_, validators)| validators.clone()).unwrap_or_default();
        let mut receive = |body: &mut dyn Read| self.receive(&subject, body);
        let answer = self.downloader.get(&self.access.http(url)?, &validators, &mut receive);
        let answer = answer.map_err(|source| FetchError::download(&subject, source))??;
        let (received, validators) = match (answer, known) {
            (Answer::New(received, validators), _) => (received, validators),
            (Answer::Unchanged, Some((download, _))) => return Ok(download),
            (Answer::Unchanged, None) => return Err(FetchError::Url { url: subject, problem: "no answer".to_owned() }),
        };
        let Received { blob, digest, content } = received;
        if let Some(expected) = checksum.filter(|expected| **expected != digest) {
            return Err(FetchError::Checksum { url: subject, expected: *expected, found: digest });
        }
        let size = blob.commit_as(digest).map_err(FetchError::store(&subject))?;
        let download = Download { digest, size, content, modified: modified(&validators) };
        let record = write_record(&download, &validators, &subject);
        self.store.put_record(&key.key(), &record).map_err(FetchError::store(&subject))?;
        Ok(download)
    }

    fn receive(&self, subject: &str, body: &mut dyn Read) -> Result<Received, FetchError> {
        let mut blob = self.store.blob_writer_unhashed().map_err(FetchError::store(subject))?;
        let (mut sha, mut blake) = (Sha256::new(), blake3::Hasher::new());
        let mut buffer = vec![0; BUFFER];
        loop {
            self.check_cancelled()?;
            let part = match body.read(&mut buffer) {
                Ok(0) => break,
                Ok(n) => &buffer[..n],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(FetchError::io(format!("read {subject}"))(error)),
            };
            sha.update(part);
            blake.update(part);
            blob.write_all(part).map_err(FetchError::io(format!("write what comes from {subject}")))?;
        }
        let digest = Digest::from_bytes(sha.finalize().into());
        Ok(Received { blob, digest, content: ContentHash(*blake.finalize().as_bytes()) })
    }
}

/// A body that came to its end; not in the store yet.
struct Received {
    blob: RawBlobWriter,
    digest: Digest,
    content: ContentHash,
}

fn parse(url: &str) -> Result<Url, FetchError> {
    let wrong = |problem: String| FetchError::Url { url: url.to_owned(), problem };
    let parsed = Url::parse(url).map_err(|error| wrong(error.to_string()))?;
    match parsed.scheme() {
        "http" | "https" => Ok(parsed),
        scheme => Err(wrong(format!("{scheme} is neither http nor https"))),
    }
}

fn modified(validators: &Validators) -> Option<Timestamp> {
    let time = httpdate::parse_http_date(validators.last_modified.as_deref()?).ok()?;
    let secs = time.duration_since(std::time::UNIX_EPOCH).ok()?.as_secs();
    Some(Timestamp { secs: i64::try_from(secs).ok()?, nanos: 0 })
}

/// The blob stands in the record as a layer, so that the store keeps it as long as the record. Passwords and signatures
/// of the URL are in the key alone.
fn write_record(download: &Download, validators: &Validators, shown: &str) -> Record {
    let facts = [
        (ETAG, validators.etag.clone()),
        (LAST_MODIFIED, validators.last_modified.clone()),
        (CONTENT, Some(crate::digest::hex(&download.content.0))),
    ];
    Record {
        layers: vec![LayerDescriptor {
            digest: download.digest,
            size: download.size,
            diff_id: DiffId(download.digest),
            media_type: "application/octet-stream".to_owned(),
        }],
        parts: vec![("url".to_owned(), shown.to_owned())],
        facts: facts.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect(),
    }
}

fn read_record(record: &Record) -> Option<(Download, Validators)> {
    let file = record.layers.first()?;
    let fact = |name: &str| record.facts.get(name).cloned();
    let validators = Validators { etag: fact(ETAG), last_modified: fact(LAST_MODIFIED) };
    let content = blake3::Hash::from_hex(fact(CONTENT)?).ok()?;
    let modified = modified(&validators);
    let content = ContentHash(*content.as_bytes());
    Some((Download { digest: file.digest, size: file.size, content, modified }, validators))
}
