//! How layers are compressed.

use serde::{Deserialize, Serialize};

/// How layer blobs are compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CompressionKind {
    /// gzip, read by everything.
    Gzip,
    /// zstd, smaller and faster; containerd 1.5, Docker 23, Podman 2 or later read it.
    Zstd,
    /// A plain tar.
    Uncompressed,
}

/// Codec and level of new layers. The bytes depend on these two and the content alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Compression {
    /// The codec.
    pub kind: CompressionKind,
    /// gzip 0–9, zstd 1–22; `None` is the codec's default here.
    pub level: Option<u8>,
}

impl Default for Compression {
    fn default() -> Self {
        Self { kind: CompressionKind::Gzip, level: None }
    }
}
