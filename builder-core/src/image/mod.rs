//! Images as values: config, history, manifest, index, platform, and what may be asked of a stored one.
//!
//! What it does: reads every document of the two media type families (OCI and Docker schema 2) without losing a key,
//! writes them canonically, chooses by platform, reads layouts and archives as sources, validates. What it does not:
//! talk to registries, look into layers.
//!
//! Invariant: `parse(to_canonical_json(x)) == x`, and equal values give equal bytes. Everything read from outside has a
//! size limit and typed digests before anything is done with it.
//!
//! Rules: image-spec `config.md`, `manifest.md`, `image-index.md`, `media-types.md`.

mod config;
mod document;
mod media_type;
mod platform;
mod source;
mod timestamp;
#[cfg(test)]
mod validate;

pub use crate::store::oci::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Extra, Index, MEDIA_TYPE_DOCKER_LIST,
    MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_EMPTY, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST, Manifest, Platform,
};
pub use config::{Config, Healthcheck, HistoryEntry, ImageConfig, RootFs};
pub use document::{CONFIG_LIMIT, MANIFEST_LIMIT, ParseError};
pub use media_type::{Family, MEDIA_TYPE_CONFIG, MEDIA_TYPE_DOCKER_CONFIG};
pub use platform::{NoMatchingPlatform, ParsePlatformError};

pub(crate) use media_type::{is_config, is_index, is_manifest, layer_compression, layer_media_type};
pub(crate) use source::{ImageSource, Section, SourceError, import_docker_archive};
pub(crate) use timestamp::rfc3339;
#[cfg(test)]
pub(crate) use validate::validate;

#[cfg(test)]
pub(crate) mod tests;
