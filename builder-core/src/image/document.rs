//! Reading and writing documents: size limits first, then JSON; writing is canonical.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Descriptor, ImageConfig, Index, Manifest};
use crate::digest::Digest;

/// Most bytes of a manifest or index that are read: 4 MiB, as registries limit them.
pub const MANIFEST_LIMIT: u64 = 4 << 20;
/// Most bytes of an image config that are read: 32 MiB.
pub const CONFIG_LIMIT: u64 = 32 << 20;

/// A document cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ParseError {
    /// Larger than anything sensible.
    #[error("{what} has {size} bytes, at most {limit} are read")]
    TooLarge {
        /// Which document.
        what: &'static str,
        /// Its size in bytes.
        size: u64,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// Not JSON, or not of the form.
    #[error("cannot parse {what}")]
    Json {
        /// Which document.
        what: &'static str,
        /// Where and why.
        source: serde_json::Error,
    },
    /// A form that is no longer in use, such as Docker schema 1.
    #[error("{what} has schema version {version}, only 2 is supported")]
    SchemaVersion {
        /// Which document.
        what: &'static str,
        /// What it says.
        version: u32,
    },
}

fn parse<T: DeserializeOwned>(what: &'static str, bytes: &[u8], limit: u64) -> Result<T, ParseError> {
    let size = bytes.len() as u64;
    if size > limit {
        return Err(ParseError::TooLarge { what, size, limit });
    }
    serde_json::from_slice(bytes).map_err(|source| ParseError::Json { what, source })
}

fn check_version(what: &'static str, version: u32) -> Result<(), ParseError> {
    if version == 2 { Ok(()) } else { Err(ParseError::SchemaVersion { what, version }) }
}

fn to_json<T: Serialize>(value: &T) -> Vec<u8> {
    serde_json::to_vec(value).expect("keys are texts and values have no failing serializer")
}

impl Manifest {
    /// Whether this is an artifact, which has no image config (image-spec `manifest.md`, "Guidelines for Artifact Usage").
    pub fn is_artifact(&self) -> bool {
        self.artifact_type.is_some() && !super::is_config(&self.config.media_type)
    }

    /// Reads an image manifest of either family.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let manifest: Self = parse("image manifest", bytes, MANIFEST_LIMIT)?;
        check_version("image manifest", manifest.schema_version)?;
        Ok(manifest)
    }

    /// Writes the bytes that the manifest's digest is made of.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        to_json(self)
    }

    /// Names the manifest: media type, digest and size of its canonical form.
    pub fn descriptor(&self) -> Descriptor {
        let bytes = self.to_canonical_json();
        let media_type = self.media_type.clone().unwrap_or_else(|| super::MEDIA_TYPE_MANIFEST.to_owned());
        Descriptor::new(media_type, Digest::of(&bytes), bytes.len() as u64)
    }
}

impl Index {
    /// Reads an image index or manifest list.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        let index: Self = parse("image index", bytes, MANIFEST_LIMIT)?;
        check_version("image index", index.schema_version)?;
        Ok(index)
    }

    /// Writes the bytes that the index's digest is made of.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        to_json(self)
    }
}

impl ImageConfig {
    /// Reads an image config of either family.
    pub fn parse(bytes: &[u8]) -> Result<Self, ParseError> {
        parse("image config", bytes, CONFIG_LIMIT)
    }

    /// Writes the bytes that the image ID is made of.
    pub fn to_canonical_json(&self) -> Vec<u8> {
        to_json(self)
    }
}
