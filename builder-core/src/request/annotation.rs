//! Notes on an image that are no part of its config.

use serde::{Deserialize, Serialize};

/// Where an annotation stands (image-spec `annotations.md`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum AnnotationPlace {
    /// In the manifest.
    Manifest,
    /// Where an index, or the table of a layout, names the manifest.
    ManifestDescriptor,
    /// In the index.
    Index,
    /// Where the table of a layout names the index.
    IndexDescriptor,
}

impl AnnotationPlace {
    /// Whether it is about the index, and so not about an image of one platform.
    pub fn is_index(self) -> bool {
        matches!(self, Self::Index | Self::IndexDescriptor)
    }
}

/// An annotation that the image gets.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotation {
    /// Where.
    pub place: AnnotationPlace,
    /// Of the image of this platform alone, `os/arch[/variant]`; of all where `None`.
    pub platform: Option<String>,
    /// The key.
    pub key: String,
    /// The value.
    pub value: String,
}
