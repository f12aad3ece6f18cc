//! One document of an image, byte for byte, or a list of its layers.

use serde_json::json;

use super::{find, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{self, CONFIG_LIMIT, Descriptor, ImageConfig, Index, MANIFEST_LIMIT, Manifest, Platform};
use crate::request::ImagePart;
use crate::store::Store;

/// Reads a part of an image of the store, found by name or digest. Of an index, a config and layers are those of
/// `platform`, else of this machine's.
pub(crate) fn document(store: &Store, name: &str, part: ImagePart, platform: Option<&str>) -> Result<Vec<u8>> {
    let platform = platform.map(str::parse::<Platform>).transpose();
    let platform = platform.map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
    let image = find(store, name)?.descriptor;
    let read =
        |document: &Descriptor| store.read_blob(&document.digest, MANIFEST_LIMIT).map_err(|error| store_error(&error));
    let bytes = read(&image)?;
    let bytes = match (part, platform) {
        (ImagePart::Raw, None) => return Ok(bytes),
        (_, platform) if image::is_index(&image.media_type) => {
            let index = Index::parse(&bytes).map_err(|error| store_error(&error))?;
            let wanted = platform.unwrap_or_else(Platform::host);
            let chosen = index.choose(&wanted).map_err(|error| Error::from_source(ErrorKind::Request, &error))?;
            read(chosen)?
        }
        _ => bytes,
    };
    if part == ImagePart::Raw {
        return Ok(bytes);
    }
    let manifest = Manifest::parse(&bytes).map_err(|error| store_error(&error))?;
    let config = store.read_blob(&manifest.config.digest, CONFIG_LIMIT).map_err(|error| store_error(&error))?;
    match part {
        ImagePart::Layers => layers(&manifest, &config),
        ImagePart::Raw | ImagePart::Config => Ok(config),
    }
}

/// A JSON array, lowest layer first.
fn layers(manifest: &Manifest, config: &[u8]) -> Result<Vec<u8>> {
    let config = ImageConfig::parse(config).map_err(|error| store_error(&error))?;
    let diff_ids = config.rootfs.diff_ids.iter().map(Some).chain(std::iter::repeat(None));
    let layers = manifest.layers.iter().zip(diff_ids).map(|(layer, diff_id)| {
        json!({"mediaType": layer.media_type, "digest": layer.digest, "size": layer.size, "diffID": diff_id})
    });
    Ok(format!("{:#}\n", layers.collect::<serde_json::Value>()).into_bytes())
}
