//! The client: one value, any number of threads.

use std::io::Read as _;
use std::sync::Arc;

use reqwest::Method;
use reqwest::header::{HeaderMap, LINK};
use serde::Deserialize;

use super::blob::BlobReader;
use super::config::ClientConfig;
use super::credentials::Credential;
use super::endpoint::AskedBy;
use super::error::Error;
use super::exchange::{Call, Session};
use super::manifest::{self, MAX_MANIFEST, ManifestHead, ResolvedManifest};
use super::notice::Notice;
use super::reference::Reference;
#[cfg(test)]
use super::transport::content_length;
use super::transport::read_body;
use crate::digest::Digest;

/// Largest page of tags, in bytes.
const MAX_TAG_PAGE: u64 = 16 << 20;
/// More pages than this are a registry that links in circles.
const MAX_TAG_PAGES: usize = 10_000;

/// Finds the credential for a `host[:port]`; `None` when there is none.
pub(crate) type CredentialSource = Arc<dyn Fn(&str) -> Option<Credential> + Send + Sync>;

/// A connection to any number of registries. Cheap to clone; clones share connections, tokens and what is known of hosts.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    pub(super) session: Session,
}

impl Client {
    /// Makes a client. Nothing is opened or looked up before the first request.
    #[cfg(test)]
    pub(crate) fn new(config: ClientConfig) -> Self {
        Self { session: Session::new(config, None) }
    }

    /// Makes a client that asks `source` for the credentials of the hosts that [`ClientConfig::helpers`] names, once a
    /// host and only when it wants some.
    pub(crate) fn with_credential_source(config: ClientConfig, source: CredentialSource) -> Self {
        Self { session: Session::new(config, Some(source)) }
    }

    /// Returns a clone that tells `observer` what goes wrong on the way. Called on the thread that makes the request.
    #[must_use]
    pub(crate) fn with_observer(&self, observer: impl Fn(&Notice<'_>) + Send + Sync + 'static) -> Self {
        Self { session: self.session.with_observer(observer) }
    }

    /// Makes sure that `registry` (`host[:port]`) lets this client in, with the credentials that it has.
    pub(crate) fn check_login(&self, registry: &str) -> Result<(), Error> {
        self.session.enter(registry, &format!("registry {registry}"))
    }

    /// Fetches the manifest or index that `reference` names, by its digest if it has one, by its tag otherwise.
    pub(crate) fn resolve(&self, reference: &Reference) -> Result<ResolvedManifest, Error> {
        let subject = format!("manifest of {reference}");
        let path = manifest_path(reference);
        self.session.ask(reference, asked_by(reference), &subject, |endpoint| {
            let mut call = Call::read(endpoint, Method::GET, &path, &subject);
            call.headers = manifest::accept();
            let response = self.session.send(&call)?;
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
        self.session.ask(reference, asked_by(reference), &subject, |endpoint| {
            let mut call = Call::read(endpoint, Method::HEAD, &path, &subject);
            call.headers = manifest::accept();
            Ok(manifest::head(self.session.send(&call)?.headers()))
        })
    }

    /// Starts to fetch a blob from the repository of `reference`.
    ///
    /// The reader survives broken connections, and fails at its end if the bytes are not those of `digest` and `size`.
    pub(crate) fn blob(&self, reference: &Reference, digest: Digest, size: u64) -> Result<BlobReader, Error> {
        BlobReader::open(self.session.clone(), reference, digest, size)
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

    #[cfg(test)]
    /// Asks whether the repository of `reference` has a blob; returns its size if so.
    pub(crate) fn blob_size(&self, reference: &Reference, digest: Digest) -> Result<Option<u64>, Error> {
        let subject = blob_subject(reference, digest);
        let path = format!("blobs/{digest}");
        let found = self.session.ask(reference, AskedBy::Digest, &subject, |endpoint| {
            self.session.send(&Call::read(endpoint, Method::HEAD, &path, &subject))
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
        self.session.ask(reference, AskedBy::Tag, &subject, |endpoint| {
            let mut tags = Vec::new();
            let mut path = "tags/list?n=1000".to_owned();
            for _ in 0..MAX_TAG_PAGES {
                let response = self.session.send(&Call::read(endpoint, Method::GET, &path, &subject))?;
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
}

fn asked_by(reference: &Reference) -> AskedBy {
    if reference.digest().is_some() { AskedBy::Digest } else { AskedBy::Tag }
}

/// Path of the manifest that `reference` names, by its digest if it has one.
pub(super) fn manifest_path(reference: &Reference) -> String {
    match (reference.digest(), reference.tag()) {
        (Some(digest), _) => format!("manifests/{digest}"),
        (None, tag) => format!("manifests/{}", tag.unwrap_or("latest")),
    }
}

/// Returns how errors name a blob.
pub(super) fn blob_subject(reference: &Reference, digest: Digest) -> String {
    format!("blob {digest} of {}", reference.name())
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
