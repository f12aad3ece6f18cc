//! Manifests and indexes as bytes: what they are, and that they are what was asked for.

use reqwest::header::{ACCEPT, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::Error;
use super::transport::content_length;
use crate::digest::Digest;

/// Largest manifest or index that is read, in bytes (distribution-spec, "Pushing Manifests": registries take at least 4 MiB).
pub(super) const MAX_MANIFEST: u64 = 4 << 20;

const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const DOCKER_INDEX: &str = "application/vnd.docker.distribution.manifest.list.v2+json";
const DOCKER_MANIFEST: &str = "application/vnd.docker.distribution.manifest.v2+json";

const DOCKER_CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");

/// A manifest or an index, checked against the digest it was asked by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ResolvedManifest {
    /// SHA-256 of `bytes`.
    pub(crate) digest: Digest,
    /// One of the four media types of manifests and indexes, OCI's and Docker's.
    pub(crate) media_type: String,
    /// As the registry stores them.
    pub(crate) bytes: Vec<u8>,
}

/// What a registry says about a manifest without sending it. Nothing here is checked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ManifestHead {
    /// Its digest.
    pub(crate) digest: Digest,
    /// Its media type, as far as the registry says.
    pub(crate) media_type: Option<String>,
    /// Its size in bytes, as far as the registry says.
    pub(crate) size: Option<u64>,
}

/// Returns the headers that ask for both families.
pub(super) fn accept() -> HeaderMap {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST]
        .map(|kind| (ACCEPT, HeaderValue::from_static(kind)))
        .into_iter()
        .collect()
}

/// Reads the headers of an answer to HEAD; `None` when the registry does not tell the digest.
pub(super) fn head(headers: &HeaderMap) -> Option<ManifestHead> {
    let digest = headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok()?.parse().ok()?;
    Some(ManifestHead { digest, media_type: content_type(headers).map(str::to_owned), size: content_length(headers) })
}

/// Makes sure that `bytes` are what was asked for and what `headers` say.
pub(super) fn check(
    subject: &str,
    expected: Option<Digest>,
    headers: &HeaderMap,
    bytes: Vec<u8>,
) -> Result<ResolvedManifest, Error> {
    let digest = Digest::of(&bytes);
    let differs = |expected, found: String| Error::DigestMismatch { subject: subject.to_owned(), expected, found };
    if let Some(expected) = expected.filter(|expected| *expected != digest) {
        return Err(differs(expected, digest.to_string()));
    }
    if let Some(said) = said_digest(headers).filter(|said| *said != digest.to_string()) {
        return Err(differs(digest, super::error::printable(said)));
    }
    let media_type = media_type(headers, &bytes)
        .map_err(|problem| Error::Protocol { subject: subject.to_owned(), problem })?
        .to_owned();
    Ok(ResolvedManifest { digest, media_type, bytes })
}

/// Returns the SHA-256 digest that the registry names, not checked for its form. It may name another algorithm, which says
/// nothing here.
pub(super) fn said_digest(headers: &HeaderMap) -> Option<&str> {
    headers.get(DOCKER_CONTENT_DIGEST)?.to_str().ok().filter(|said| said.starts_with("sha256:"))
}

/// Returns the subject for which the registry says that it lists the manifest it was given.
pub(super) fn said_subject(headers: &HeaderMap) -> Option<Digest> {
    headers.get(OCI_SUBJECT)?.to_str().ok()?.parse().ok()
}

/// Decides what the bytes are. Header and body must agree, and a body that could be read as both an index and a manifest
/// is refused: one reader would take it for this and the next for that (CVE-2021-41190).
fn media_type(headers: &HeaderMap, bytes: &[u8]) -> Result<&'static str, String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Shape {
        schema_version: Option<u32>,
        media_type: Option<String>,
        manifests: Option<IgnoredAny>,
        config: Option<IgnoredAny>,
        layers: Option<IgnoredAny>,
        fs_layers: Option<IgnoredAny>,
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| format!("not the JSON of a manifest: {error}"))?;
    if shape.schema_version == Some(1) || shape.fs_layers.is_some() {
        return Err("a manifest of schema 1, which is not supported; push the image again with a newer tool".to_owned());
    }
    let is_index = match (shape.manifests.is_some(), shape.config.is_some() || shape.layers.is_some()) {
        (true, true) => return Err("both an index and a manifest".to_owned()),
        (false, false) => return Err("neither an index nor a manifest".to_owned()),
        (is_index, _) => is_index,
    };
    let said = [content_type(headers).and_then(known), shape.media_type.as_deref()];
    let said = match said {
        [Some(header), Some(body)] if header != body => {
            return Err(format!("sent as {header}, but says it is {}", super::error::printable(body)));
        }
        [header, body] => body.or(header),
    };
    let found = match said {
        Some(text) => known(text).ok_or_else(|| format!("not an image: {}", super::error::printable(text)))?,
        None if is_index => OCI_INDEX,
        None => OCI_MANIFEST,
    };
    if is_index == [OCI_INDEX, DOCKER_INDEX].contains(&found) {
        Ok(found)
    } else {
        Err(format!("its content is not that of {found}"))
    }
}

fn known(media_type: &str) -> Option<&'static str> {
    [OCI_INDEX, OCI_MANIFEST, DOCKER_INDEX, DOCKER_MANIFEST].into_iter().find(|known| *known == media_type)
}

/// Returns `Content-Type` without its parameters.
fn content_type(headers: &HeaderMap) -> Option<&str> {
    headers.get(CONTENT_TYPE)?.to_str().ok()?.split(';').next().map(str::trim)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_and_body_must_agree() {
        let read = |content_type: &str, body: &str| {
            let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_str(content_type).unwrap())]);
            check("it", None, &headers, body.as_bytes().to_vec()).map(|m| m.media_type).map_err(|e| e.to_string())
        };
        let typed =
            |media_type: &str, rest: &str| format!(r#"{{"schemaVersion":2,"mediaType":"{media_type}",{rest}}}"#);
        let (index, image) = (r#""manifests":[]"#, r#""config":{},"layers":[]"#);
        for (media_type, rest) in
            [(OCI_INDEX, index), (DOCKER_INDEX, index), (OCI_MANIFEST, image), (DOCKER_MANIFEST, image)]
        {
            for header in [media_type, &format!("{media_type}; charset=utf-8"), "application/json", "text/plain"] {
                assert_eq!(read(header, &typed(media_type, rest)), Ok(media_type.to_owned()));
            }
            assert_eq!(read(media_type, &format!(r#"{{"schemaVersion":2,{rest}}}"#)), Ok(media_type.to_owned()));
        }
        assert_eq!(read("application/json", &format!("{{{index}}}")), Ok(OCI_INDEX.to_owned()));
        let refused = [
            (OCI_INDEX, typed(OCI_MANIFEST, image), "says it is"),
            (OCI_INDEX, format!("{{{image}}}"), "not that of"),
            (OCI_MANIFEST, format!("{{{image},{index}}}"), "both"),
            (OCI_MANIFEST, "{}".to_owned(), "neither"),
            (OCI_MANIFEST, "<html>".to_owned(), "not the JSON"),
            ("application/json", typed("application/vnd.evil", image), "not an image"),
            ("application/json", r#"{"schemaVersion":1,"fsLayers":[]}"#.to_owned(), "schema 1"),
        ];
        for (header, body, part) in refused {
            let error = read(header, &body).unwrap_err();
            assert!(error.contains(part), "{body}: {error}");
        }
    }
}
