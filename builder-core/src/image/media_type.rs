//! Media types of the two families, and the layer compression that they imply (image-spec `media-types.md`; Docker's
//! `manifest-v2-2`).

use super::{MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use crate::request::CompressionKind;

/// Media type of an OCI image config.
pub const MEDIA_TYPE_CONFIG: &str = "application/vnd.oci.image.config.v1+json";
/// Media type of a Docker image config.
pub const MEDIA_TYPE_DOCKER_CONFIG: &str = "application/vnd.docker.container.image.v1+json";

/// Who defined a media type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Family {
    /// The image-spec.
    Oci,
    /// Docker's schema 2.
    Docker,
}

use CompressionKind::{Gzip, Uncompressed, Zstd};

/// Every known layer type. The first of a family and compression is the one that is written.
const LAYERS: [(&str, Family, CompressionKind); 12] = [
    ("application/vnd.oci.image.layer.v1.tar", Family::Oci, Uncompressed),
    ("application/vnd.oci.image.layer.v1.tar+gzip", Family::Oci, Gzip),
    ("application/vnd.oci.image.layer.v1.tar+zstd", Family::Oci, Zstd),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar", Family::Oci, Uncompressed),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar+gzip", Family::Oci, Gzip),
    ("application/vnd.oci.image.layer.nondistributable.v1.tar+zstd", Family::Oci, Zstd),
    ("application/vnd.docker.image.rootfs.diff.tar", Family::Docker, Uncompressed),
    ("application/vnd.docker.image.rootfs.diff.tar.gzip", Family::Docker, Gzip),
    ("application/vnd.docker.image.rootfs.diff.tar.zstd", Family::Docker, Zstd),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar", Family::Docker, Uncompressed),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar.gzip", Family::Docker, Gzip),
    ("application/vnd.docker.image.rootfs.foreign.diff.tar.zstd", Family::Docker, Zstd),
];

/// Whether this is an index or manifest list.
pub(crate) fn is_index(media_type: &str) -> bool {
    matches!(media_type, MEDIA_TYPE_INDEX | MEDIA_TYPE_DOCKER_LIST)
}

/// Whether this is an image manifest.
pub(crate) fn is_manifest(media_type: &str) -> bool {
    matches!(media_type, MEDIA_TYPE_MANIFEST | MEDIA_TYPE_DOCKER_MANIFEST)
}

/// Whether this is an image config, as opposed to the config of an artifact.
pub(crate) fn is_config(media_type: &str) -> bool {
    matches!(media_type, MEDIA_TYPE_CONFIG | MEDIA_TYPE_DOCKER_CONFIG)
}

#[cfg(test)]
/// Whether this is a file system layer.
pub(crate) fn is_layer(media_type: &str) -> bool {
    layer_compression(media_type).is_some()
}

/// How a layer of this type is compressed; `None` for what is no file system layer, such as an attestation.
pub(crate) fn layer_compression(media_type: &str) -> Option<CompressionKind> {
    LAYERS.iter().find(|(known, ..)| *known == media_type).map(|(.., kind)| *kind)
}

/// The type of a new layer.
pub(crate) fn layer_media_type(family: Family, compression: CompressionKind) -> &'static str {
    let wanted = |&&(_, of, kind): &&(&str, Family, CompressionKind)| of == family && kind == compression;
    LAYERS.iter().find(wanted).map_or(LAYERS[0].0, |(media_type, ..)| *media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_layer_types_are_the_plain_ones_of_each_family() {
        let table = [
            (Family::Oci, Uncompressed, "application/vnd.oci.image.layer.v1.tar"),
            (Family::Oci, Gzip, "application/vnd.oci.image.layer.v1.tar+gzip"),
            (Family::Oci, Zstd, "application/vnd.oci.image.layer.v1.tar+zstd"),
            (Family::Docker, Uncompressed, "application/vnd.docker.image.rootfs.diff.tar"),
            (Family::Docker, Gzip, "application/vnd.docker.image.rootfs.diff.tar.gzip"),
            (Family::Docker, Zstd, "application/vnd.docker.image.rootfs.diff.tar.zstd"),
        ];
        for (family, kind, text) in table {
            assert_eq!(layer_media_type(family, kind), text);
            assert_eq!(layer_compression(text), Some(kind));
        }
        assert_eq!(layer_compression("application/vnd.in-toto+json"), None);
        assert!(!is_layer(MEDIA_TYPE_CONFIG) && is_config(MEDIA_TYPE_CONFIG) && is_index(MEDIA_TYPE_DOCKER_LIST));
    }
}
