//! Names of images: `[host[:port]/]path[:tag][@digest]`.
//!
//! Follows the grammar of distribution's `reference` package as Docker applies it: no host means `docker.io`, a path of one
//! component there means `library/…`, neither tag nor digest means `:latest`. What is beyond it: the host is folded to
//! lower case, because credentials and rules are found by it, and only SHA-256 digests are taken.
//!
//! Does not know `scratch`: the caller treats that word before it parses.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::digest::{Digest, ParseDigestError};

/// The registry that a name without a host means.
const DEFAULT_REGISTRY: &str = "docker.io";
/// Where that registry answers.
const DEFAULT_REGISTRY_API: &str = "registry-1.docker.io";
/// Longest repository path, as distribution has it.
const MAX_REPOSITORY: usize = 255;
/// Longest tag (distribution-spec, "Pulling manifests").
const MAX_TAG: usize = 128;

/// A text is not the name of an image.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ReferenceError {
    /// Nothing to name.
    #[error("the image name is empty")]
    Empty,
    /// The part before the first slash is no `host[:port]`.
    #[error("image name {name:?}: {host:?} is not a host name with an optional port")]
    Host {
        /// The whole text.
        name: String,
        /// The offending part.
        host: String,
    },
    /// The repository has upper-case letters.
    #[error("image name {name:?}: the repository {repository:?} must be lower case")]
    UpperCase {
        /// The whole text.
        name: String,
        /// The offending part.
        repository: String,
    },
    /// The repository is not components of `[a-z0-9]` with `.`, `_`, `__` or `-` between them.
    #[error(
        "image name {name:?}: {repository:?} is not a repository (lower-case letters, digits and single . _ - / between them)"
    )]
    Repository {
        /// The whole text.
        name: String,
        /// The offending part.
        repository: String,
    },
    /// The repository is longer than 255 bytes.
    #[error("image name {name:?}: the repository is longer than {MAX_REPOSITORY} bytes")]
    TooLong {
        /// The whole text.
        name: String,
    },
    /// 64 hexadecimal digits would be taken for an image ID.
    #[error("image name {name:?}: 64 hexadecimal digits are an image ID, not a repository")]
    LooksLikeId {
        /// The whole text.
        name: String,
    },
    /// The tag is not 1 to 128 of `[A-Za-z0-9_.-]`.
    #[error(
        "image name {name:?}: {tag:?} is not a tag (up to {MAX_TAG} letters, digits and _ . -, not starting with . or -)"
    )]
    Tag {
        /// The whole text.
        name: String,
        /// The offending part.
        tag: String,
    },
    /// What follows the `@` is not a SHA-256 digest.
    #[error("image name {name:?}")]
    Digest {
        /// The whole text.
        name: String,
        /// Why.
        source: ParseDigestError,
    },
}

/// The full name of an image. Has a tag or a digest or both; with both, the digest decides and the tag is a remark.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Reference {
    registry: String,
    repository: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl Reference {
    /// Returns `host[:port]`, lower case; `docker.io` for Docker Hub.
    pub(crate) fn registry(&self) -> &str {
        &self.registry
    }

    /// Returns the path below the registry: `library/busybox`.
    pub(crate) fn repository(&self) -> &str {
        &self.repository
    }

    /// Returns the tag, if there is one.
    pub(crate) fn tag(&self) -> Option<&str> {
        self.tag.as_deref()
    }

    /// Returns the digest, if there is one.
    pub(crate) fn digest(&self) -> Option<Digest> {
        self.digest
    }

    /// Returns `registry/repository`, as credentials and registry rules name it.
    pub(crate) fn name(&self) -> String {
        format!("{}/{}", self.registry, self.repository)
    }

    /// Returns the same repository with `digest` instead of tag and digest.
    #[must_use]
    pub(crate) fn with_digest(&self, digest: Digest) -> Self {
        Self { tag: None, digest: Some(digest), ..self.clone() }
    }

    /// Returns the same repository with `tag`, which must be one, instead of tag and digest.
    #[must_use]
    pub(crate) fn with_tag(&self, tag: impl Into<String>) -> Self {
        Self { tag: Some(tag.into()), digest: None, ..self.clone() }
    }

    /// Returns the shortest text that parses to the same value: `busybox:latest` for `docker.io/library/busybox:latest`.
    pub(crate) fn familiar(&self) -> String {
        let full = self.to_string();
        let Some(path) = full.strip_prefix(DEFAULT_REGISTRY).and_then(|rest| rest.strip_prefix('/')) else {
            return full;
        };
        let short = path.strip_prefix("library/").unwrap_or(path);
        [short, path].into_iter().find(|text| text.parse().as_ref() == Ok(self)).map_or(full.clone(), str::to_owned)
    }
}

/// Returns the host that answers for `registry`: Docker Hub's API has another name than its images.
pub(super) fn api_host(registry: &str) -> &str {
    if registry == DEFAULT_REGISTRY { DEFAULT_REGISTRY_API } else { registry }
}

/// Returns the registry whose API `host` serves: the reverse of [`api_host`].
pub(super) fn image_host(host: &str) -> String {
    if host == DEFAULT_REGISTRY_API { DEFAULT_REGISTRY.to_owned() } else { canonical_registry(host) }
}

/// Folds the names of Docker Hub into one, and the case of host names.
pub(super) fn canonical_registry(host: &str) -> String {
    let host = host.to_ascii_lowercase();
    if host == "index.docker.io" { DEFAULT_REGISTRY.to_owned() } else { host }
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.registry, self.repository)?;
        if let Some(tag) = &self.tag {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

impl FromStr for Reference {
    type Err = ReferenceError;

    fn from_str(name: &str) -> Result<Self, Self::Err> {
        if name.is_empty() {
            return Err(ReferenceError::Empty);
        }
        let (rest, digest) = match name.split_once('@') {
            None => (name, None),
            Some((rest, digest)) => {
                let parsed =
                    digest.parse().map_err(|source| ReferenceError::Digest { name: name.to_owned(), source })?;
                (rest, Some(parsed))
            }
        };
        let (host, rest) = split_host(rest);
        // A colon after the last slash starts the tag; one before it belongs to the port, which is gone by now.
        let (path, tag) = match rest.rsplit_once(':') {
            Some((path, tag)) if !tag.contains('/') => (path, Some(tag)),
            _ => (rest, None),
        };
        if let Some(tag) = tag.filter(|tag| !is_tag(tag)) {
            return Err(ReferenceError::Tag { name: name.to_owned(), tag: tag.to_owned() });
        }
        if let Some(host) = host.filter(|host| !is_host(host)) {
            return Err(ReferenceError::Host { name: name.to_owned(), host: host.to_owned() });
        }
        check_repository(name, path)?;
        let registry = canonical_registry(host.unwrap_or(DEFAULT_REGISTRY));
        let repository = if registry == DEFAULT_REGISTRY && !path.contains('/') {
            if host.is_none() && path.len() == 64 && path.bytes().all(|b| b.is_ascii_hexdigit()) {
                return Err(ReferenceError::LooksLikeId { name: name.to_owned() });
            }
            format!("library/{path}")
        } else {
            path.to_owned()
        };
        // Of the whole of it, or the full name would not parse back.
        if repository.len() > MAX_REPOSITORY {
            return Err(ReferenceError::TooLong { name: name.to_owned() });
        }
        let latest = (tag.is_none() && digest.is_none()).then_some("latest");
        Ok(Self { registry, repository, tag: tag.or(latest).map(str::to_owned), digest })
    }
}

impl Serialize for Reference {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Reference {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The first component is a host when it has a dot or a colon, or is `localhost`. Docker also takes one with an
/// upper-case letter for a host; here that is an error, because it is a repository in the wrong case far more often.
fn split_host(text: &str) -> (Option<&str>, &str) {
    match text.split_once('/') {
        Some((first, rest)) if first.eq_ignore_ascii_case("localhost") || first.contains(['.', ':']) => {
            (Some(first), rest)
        }
        _ => (None, text),
    }
}

fn is_host(text: &str) -> bool {
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((address, after)) => {
            if address.parse::<std::net::Ipv6Addr>().is_err() {
                return false;
            }
            match after.strip_prefix(':') {
                Some(port) => (None, Some(port)),
                None if after.is_empty() => (None, None),
                None => return false,
            }
        }
        None => match text.split_once(':') {
            Some((host, port)) => (Some(host), Some(port)),
            None => (Some(text), None),
        },
    };
    let label = |label: &str| {
        let bytes = label.as_bytes();
        bytes.iter().all(|b| b.is_ascii_alphanumeric() || *b == b'-')
            && bytes.first().is_some_and(u8::is_ascii_alphanumeric)
            && bytes.last().is_some_and(u8::is_ascii_alphanumeric)
    };
    host.is_none_or(|host| host.len() <= 253 && host.split('.').all(label))
        && port.is_none_or(|port| {
            port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0)
        })
}

fn is_tag(text: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    let bytes = text.as_bytes();
    bytes.len() <= MAX_TAG
        && bytes.first().is_some_and(|b| word(*b))
        && bytes.iter().all(|b| word(*b) || matches!(b, b'.' | b'-'))
}

fn check_repository(name: &str, path: &str) -> Result<(), ReferenceError> {
    if path.bytes().any(|b| b.is_ascii_uppercase()) {
        return Err(ReferenceError::UpperCase { name: name.to_owned(), repository: path.to_owned() });
    }
    if !path.split('/').all(is_path_component) {
        return Err(ReferenceError::Repository { name: name.to_owned(), repository: path.to_owned() });
    }
    Ok(())
}

/// `[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*`
fn is_path_component(text: &str) -> bool {
    let alphanumeric = |b: &u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = text.as_bytes();
    bytes.first().is_some_and(alphanumeric)
        && bytes.last().is_some_and(alphanumeric)
        && bytes
            .split(alphanumeric)
            .all(|separator| matches!(separator, b"" | b"." | b"_" | b"__") || separator.iter().all(|b| *b == b'-'))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEX: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    #[test]
    fn names_mean_what_docker_takes_them_for() {
        let digest = format!("@sha256:{HEX}");
        let table = [
            ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
            ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("index.docker.io/me/app:x", "docker.io/me/app:x", "me/app:x"),
            ("library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
            ("me/app", "docker.io/me/app:latest", "me/app:latest"),
            ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
            ("localhost:5000/app", "localhost:5000/app:latest", "localhost:5000/app:latest"),
            ("127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c", "127.0.0.1:5000/a/b:c"),
            ("[::1]:5000/x", "[::1]:5000/x:latest", "[::1]:5000/x:latest"),
            ("[2001:db8::1]/x:y", "[2001:db8::1]/x:y", "[2001:db8::1]/x:y"),
            ("Quay.IO/org/x", "quay.io/org/x:latest", "quay.io/org/x:latest"),
            ("LocalHost/x", "localhost/x:latest", "localhost/x:latest"),
            ("a.b/c_d/e__f/g--h.i:J.K-L_", "a.b/c_d/e__f/g--h.i:J.K-L_", "a.b/c_d/e__f/g--h.i:J.K-L_"),
            ("docker.io/a.b/c", "docker.io/a.b/c:latest", "docker.io/a.b/c:latest"),
            ("docker.io/library/localhost/x", "docker.io/library/localhost/x:latest", "library/localhost/x:latest"),
            (&format!("busybox{digest}"), &format!("docker.io/library/busybox{digest}"), &format!("busybox{digest}")),
            (&format!("q.io/x:t{digest}"), &format!("q.io/x:t{digest}"), &format!("q.io/x:t{digest}")),
            (&format!("localhost/{HEX}"), &format!("localhost/{HEX}:latest"), &format!("localhost/{HEX}:latest")),
        ];
        for (text, full, familiar) in table {
            let reference: Reference = text.parse().unwrap_or_else(|e| panic!("{text:?}: {e}"));
            assert_eq!(reference.to_string(), full, "full name of {text:?}");
            assert_eq!(reference.familiar(), familiar, "familiar name of {text:?}");
            assert_eq!(familiar.parse(), Ok(reference), "{familiar:?} means the same as {text:?}");
        }
    }

    #[test]
    fn what_is_no_name_is_an_error() {
        let long = "a".repeat(256);
        let table = [
            "",
            " busybox",
            "busybox ",
            "Busybox",
            "Me/app",
            "library/Busybox",
            "quay.io/Org/x",
            "/x",
            "x/",
            "a//b",
            "a/../b",
            "-a",
            "a-",
            "a..b",
            "a___b",
            "a._b",
            "x:",
            "x:.tag",
            "x:-tag",
            "x:a/b",
            "x:ta g",
            "x@",
            "x@sha256:../../etc/passwd",
            "x@sha256:00",
            &format!("x@sha512:{HEX}"),
            &format!("x@sha256:{}", HEX.to_uppercase()),
            &format!("x@sha256:{HEX}@sha256:{HEX}"),
            "host:port/x",
            "host:0/x",
            "host:65536/x",
            "host:+80/x",
            "ho_st.a/x",
            "-host.a/x",
            "a..b/x/y.",
            "[::1:5000/x",
            "[::g]:5000/x",
            "[::1]5000/x",
            "user@host/x",
            "user:secret@host.a/x",
            "http://host.a/x",
            "x\n",
            "é/x",
            &format!("x:{}", "t".repeat(129)),
            &format!("q.io/{long}"),
            HEX,
        ];
        for text in table {
            assert!(text.parse::<Reference>().is_err(), "{text:?} must not parse: {:?}", text.parse::<Reference>());
        }
        assert!(matches!("Busybox".parse::<Reference>(), Err(ReferenceError::UpperCase { .. })));
        assert!(matches!(HEX.parse::<Reference>(), Err(ReferenceError::LooksLikeId { .. })));
    }

    #[test]
    fn docker_hub_answers_under_another_name() {
        assert_eq!(api_host("docker.io"), "registry-1.docker.io");
        assert_eq!(api_host("quay.io:443"), "quay.io:443");
    }

    proptest! {
        #[test]
        fn any_text_parses_or_fails_and_what_parses_is_stable(text in "\\PC{0,40}|[a-zA-Z0-9.:/@_\\[\\]-]{0,40}") {
            if let Ok(reference) = text.parse::<Reference>() {
                prop_assert_eq!(reference.to_string().parse(), Ok(reference.clone()));
                prop_assert_eq!(reference.familiar().parse(), Ok(reference.clone()));
                prop_assert!(reference.tag().is_some() || reference.digest().is_some());
            }
        }

        #[test]
        fn well_formed_names_keep_their_parts(
            host in "[a-z][a-z0-9]{0,8}\\.[a-z]{2,3}(:[1-9][0-9]{0,3})?",
            path in "[a-z0-9]{1,5}((\\.|_|__|-{1,3})[a-z0-9]{1,5}){0,2}(/[a-z0-9]{1,5}){0,3}",
            tag in "[A-Za-z0-9_][A-Za-z0-9_.-]{0,20}",
        ) {
            let reference: Reference = format!("{host}/{path}:{tag}").parse().unwrap();
            prop_assert_eq!(reference.registry(), host);
            prop_assert_eq!(reference.repository(), path);
            prop_assert_eq!(reference.tag(), Some(tag.as_str()));
        }
    }
}
