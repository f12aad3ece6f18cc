//! Whether an image is what it says: blobs match their digests, layers their diff IDs, history the layers.

use std::io::{self, Read};

use super::{
    CONFIG_LIMIT, Descriptor, ImageConfig, ImageSource, Index, MANIFEST_LIMIT, Manifest, is_index, layer_compression,
    media_type::is_config,
};
use crate::digest::{DiffId, Digest, HashingWriter, VerifyingReader};
use crate::request::CompressionKind;

/// Everything that is wrong with an image.
#[derive(Debug, thiserror::Error)]
#[error("image is not valid: {}", problems.join("; "))]
pub(crate) struct ValidateError {
    /// One line each.
    pub(crate) problems: Vec<String>,
}

/// Reads all of an image and compares. Blobs are read and layers decompressed once, with bounded memory.
pub(crate) fn validate(source: &ImageSource, image: &Descriptor) -> Result<(), ValidateError> {
    let mut check = Check { source, problems: Vec::new() };
    check.image(image, 0);
    if check.problems.is_empty() { Ok(()) } else { Err(ValidateError { problems: check.problems }) }
}

struct Check<'s> {
    source: &'s ImageSource,
    problems: Vec<String>,
}

impl Check<'_> {
    fn problem(&mut self, what: impl std::fmt::Display, problem: impl std::fmt::Display) {
        self.problems.push(format!("{what}: {problem}"));
    }

    /// Keeps the value, or notes why there is none with all causes.
    fn ok<T, E: std::error::Error>(&mut self, what: impl std::fmt::Display, result: Result<T, E>) -> Option<T> {
        match result {
            Ok(value) => Some(value),
            Err(error) => {
                let mut text = error.to_string();
                let mut cause = error.source();
                while let Some(error) = cause {
                    text = format!("{text}: {error}");
                    cause = error.source();
                }
                self.problem(what, text);
                None
            }
        }
    }

    fn image(&mut self, image: &Descriptor, depth: usize) {
        let what = format!("manifest {}", image.digest);
        let Some(bytes) = self.ok(&what, self.source.read(image, MANIFEST_LIMIT)) else { return };
        if is_index(&image.media_type) {
            let Some(index) = self.ok(&what, Index::parse(&bytes)) else { return };
            if depth > 4 {
                return self.problem(what, "nested too deep");
            }
            index.manifests.iter().for_each(|entry| self.image(entry, depth + 1));
        } else if let Some(manifest) = self.ok(&what, Manifest::parse(&bytes)) {
            let said = manifest.media_type.as_deref().unwrap_or(&image.media_type);
            if said != image.media_type {
                self.problem(what, format!("says {said}, its descriptor {}", image.media_type));
            }
            self.manifest(&manifest, image);
        }
    }

    fn manifest(&mut self, manifest: &Manifest, image: &Descriptor) {
        let what = format!("config {}", manifest.config.digest);
        let Some(bytes) = self.ok(&what, self.source.read(&manifest.config, CONFIG_LIMIT)) else { return };
        let found: Vec<_> = manifest.layers.iter().map(|layer| self.layer(layer)).collect();
        if !is_config(&manifest.config.media_type) {
            // An artifact: its config and layers mean something else.
            return;
        }
        let Some(config) = self.ok(&what, ImageConfig::parse(&bytes)) else { return };
        let diff_ids = &config.rootfs.diff_ids;
        if diff_ids.len() != found.len() {
            self.problem(&what, format!("{} diff IDs for {} layers", diff_ids.len(), found.len()));
        }
        for (number, (said, found)) in diff_ids.iter().zip(found).enumerate() {
            if let Some(found) = found.filter(|found| found != said) {
                self.problem(&what, format!("diff ID of layer {number} is {said}, the layer is {found}"));
            }
        }
        let told = config.history.iter().filter(|entry| !entry.empty_layer).count();
        if told != diff_ids.len() {
            self.problem(&what, format!("history tells of {told} layers, there are {}", diff_ids.len()));
        }
        if let Some(platform) = &image.platform
            && platform.normalized() != config.platform().normalized()
        {
            self.problem(what, format!("is for {}, its descriptor says {platform}", config.platform()));
        }
    }

    /// Checks the blob and returns its diff ID, where it is a layer.
    fn layer(&mut self, layer: &Descriptor) -> Option<DiffId> {
        let what = format!("layer {}", layer.digest);
        let (reader, size) = self.ok(&what, self.source.open_blob(&layer.digest))?;
        if size != layer.size {
            self.problem(&what, format!("has {size} bytes, its descriptor says {}", layer.size));
            return None;
        }
        let mut reader = VerifyingReader::new(reader, layer.digest, layer.size);
        let compression = layer_compression(&layer.media_type);
        let diff_id = hash_decompressed(&mut reader, compression.unwrap_or(CompressionKind::Uncompressed));
        // The rest that a decompressor does not need is part of the blob too, and the digest is compared at its end.
        let rest = io::copy(&mut reader, &mut io::sink());
        let diff_id = self.ok(&what, diff_id)?;
        self.ok(&what, rest)?;
        compression.map(|_| DiffId(diff_id))
    }
}

fn hash_decompressed(reader: &mut impl Read, compression: CompressionKind) -> io::Result<Digest> {
    let mut writer = HashingWriter::new(io::sink());
    match compression {
        CompressionKind::Uncompressed => io::copy(reader, &mut writer)?,
        CompressionKind::Gzip => io::copy(&mut flate2::read::MultiGzDecoder::new(reader), &mut writer)?,
        CompressionKind::Zstd => io::copy(&mut zstd::Decoder::new(reader)?, &mut writer)?,
    };
    Ok(writer.finish().1)
}

#[cfg(test)]
mod tests;
