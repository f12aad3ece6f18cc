//! Caches that are shared with other machines. Values.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// Where results of steps may come from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CacheSource {
    /// A repository of a registry, `[HOST/]REPOSITORY[:TAG]`; or an image whose cache is inline.
    Registry(String),
    /// A directory that a build wrote its cache to.
    Directory(PathBuf),
}

/// Which results are shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CacheMode {
    /// Those of the stage that is built: their layers are the image's own.
    #[default]
    Min,
    /// Those of all steps.
    Max,
}

/// Where results of steps go.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum CachePlace {
    /// A repository of a registry, `[HOST/]REPOSITORY[:TAG]`.
    Registry(String),
    /// A directory, of which this build's cache becomes the whole content.
    Directory(PathBuf),
    /// Into the config of the image.
    Inline,
}

/// One `--cache-to`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CacheTarget {
    /// Where to.
    pub place: CachePlace,
    /// What; an inline cache is always [`CacheMode::Min`].
    pub mode: CacheMode,
    /// Whether a failure to write it fails the build, whatever [`BuildRequest::cache_strict`](super::BuildRequest) says.
    pub strict: bool,
}
