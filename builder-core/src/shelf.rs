//! The images of the store as a user sees them: listed, shown, imported, forgotten. Needs no build process: only files
//! that belong to the caller are touched.

mod document;

use std::fs::File;
use std::io::{self, Read, Write as _};
use std::path::Path;

use serde_json::{Value, json};

pub(crate) use document::document;

use crate::digest::Digest;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    self, CONFIG_LIMIT, Descriptor, HistoryEntry, ImageConfig, Index, MANIFEST_LIMIT, MEDIA_TYPE_CONFIG, Manifest,
    Platform, rfc3339,
};
use crate::layer::{self, LayerOptions};
use crate::registry::Reference;
use crate::request::{Compression, ImageSummary};
use crate::store::{Store, StoredImage};

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

fn full_name(name: &str) -> Result<String> {
    let reference: Reference = name
        .parse()
        .map_err(|error: crate::registry::ReferenceError| Error::from_source(ErrorKind::Request, &error))?;
    Ok(reference.to_string())
}

/// Writes a stream to `path`, which is in the state directory, and tells whether it is a tar.
pub(crate) fn spool(stream: &mut dyn Read, path: &Path) -> Result<bool> {
    let mut file = File::create_new(path).map_err(|error| store_error(&error))?;
    let mut buffer = vec![0; 256 << 10];
    loop {
        let part = match stream.read(&mut buffer) {
            Ok(0) => break,
            Ok(n) => &buffer[..n],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(Error::from_source(ErrorKind::Context, &error).context("read the context")),
        };
        file.write_all(part).map_err(|error| store_error(&error).context("write the context"))?;
    }
    File::open(path).map(layer::is_archive).map_err(|error| store_error(&error))
}

/// Makes an image of one layer. It is as old as the youngest file in it: the same root filesystem gives the same digest.
pub(crate) fn import(
    store: &Store,
    rootfs: &mut (dyn Read + Send),
    name: &str,
    platform: Option<&str>,
) -> Result<ImageSummary> {
    let name = full_name(name)?;
    let platform = match platform {
        Some(text) => text.parse::<Platform>().map_err(|error| Error::from_source(ErrorKind::Request, &error))?,
        None => Platform::host(),
    };
    let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let options = LayerOptions { compression: Compression::default(), threads, clamp_mtime: None };
    let layer = layer::import(store, rootfs, options).map_err(|error| {
        let kind = match &error {
            layer::Error::Store { .. } | layer::Error::Write { .. } => ErrorKind::Store,
            _ => ErrorKind::Request,
        };
        Error::from_source(kind, &error).context("the root filesystem cannot be imported")
    })?;
    let mut config = ImageConfig::new(&platform);
    let tree = layer::ensure_tree(store, &layer).map_err(|e| store_error(&e))?;
    let created = rfc3339(tree.entries().iter().map(|entry| entry.meta.mtime.secs).max().unwrap_or(0));
    config.created = Some(created.clone());
    config.rootfs.diff_ids = vec![layer.diff_id];
    let created_by = Some("builder import".to_owned());
    config.history = vec![HistoryEntry { created: Some(created), created_by, ..HistoryEntry::default() }];
    let config = config.to_canonical_json();
    let digest = store.put_blob(&config).map_err(|e| store_error(&e))?;
    let config = Descriptor::new(MEDIA_TYPE_CONFIG, digest, config.len() as u64);
    let manifest = Manifest::new(config, vec![Descriptor::new(layer.media_type, layer.digest, layer.size)]);
    store.put_blob(&manifest.to_canonical_json()).map_err(|e| store_error(&e))?;
    let descriptor = manifest.descriptor();
    store.tag_image(&name, &descriptor).map_err(|e| store_error(&e))?;
    summary(store, &StoredImage { name, descriptor })
}

/// Lists the images by name.
pub(crate) fn images(store: &Store) -> Result<Vec<ImageSummary>> {
    let stored = store.images().map_err(|e| store_error(&e))?;
    let mut images = stored.iter().map(|image| summary(store, image)).collect::<Result<Vec<_>>>()?;
    images.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(images)
}

fn summary(store: &Store, image: &StoredImage) -> Result<ImageSummary> {
    let manifests = manifests(store, &image.descriptor)?;
    let mut size_bytes = image.descriptor.size;
    let mut platforms = Vec::new();
    let mut summary = ImageSummary {
        name: image.name.clone(),
        digest: image.descriptor.digest,
        platform: String::new(),
        created: None,
        size_bytes: 0,
        labels: std::collections::BTreeMap::new(),
    };
    for manifest in &manifests {
        if let Some(config) = config(store, manifest)? {
            platforms.push(config.platform().to_string());
            summary.labels.extend(config.config.labels);
            summary.created = summary.created.max(config.created);
        }
        size_bytes += manifest.config.size + manifest.layers.iter().map(|layer| layer.size).sum::<u64>();
    }
    summary.platform = platforms.join(",");
    summary.size_bytes = size_bytes;
    Ok(summary)
}

/// The manifests behind a descriptor that are in the store.
pub(crate) fn manifests(store: &Store, descriptor: &Descriptor) -> Result<Vec<Manifest>> {
    let read = |digest: &Digest| store.read_blob(digest, MANIFEST_LIMIT).map_err(|e| store_error(&e));
    let parse = |bytes: &[u8]| Manifest::parse(bytes).map_err(|e| store_error(&e));
    let bytes = read(&descriptor.digest)?;
    if !image::is_index(&descriptor.media_type) {
        return Ok(vec![parse(&bytes)?]);
    }
    let index = Index::parse(&bytes).map_err(|e| store_error(&e))?;
    let images = index.manifests.iter().filter(|entry| !entry.is_attestation());
    images.map(|entry| parse(&read(&entry.digest)?)).collect()
}

/// The config of an image; artifacts have none, or one of their own kind.
fn config(store: &Store, manifest: &Manifest) -> Result<Option<ImageConfig>> {
    if manifest.is_artifact() {
        return Ok(None);
    }
    let bytes = store.read_blob(&manifest.config.digest, CONFIG_LIMIT).map_err(|e| store_error(&e))?;
    ImageConfig::parse(&bytes).map(Some).map_err(|e| store_error(&e))
}

/// Whether there is an image of that name or digest.
pub(crate) fn has(store: &Store, name: &str) -> Result<bool> {
    let full = name.parse::<Digest>().map(|digest| digest.to_string()).or_else(|_| full_name(name))?;
    let images = store.images().map_err(|e| store_error(&e))?;
    Ok(images.iter().any(|image| image.name == full || image.descriptor.digest.to_string() == full))
}

/// The image of that name or digest.
pub(crate) fn find(store: &Store, name: &str) -> Result<StoredImage> {
    let images = store.images().map_err(|e| store_error(&e))?;
    let full = name.parse::<Digest>().map(|digest| digest.to_string()).or_else(|_| full_name(name))?;
    let found = images.iter().find(|image| image.name == full || image.descriptor.digest.to_string() == full);
    found.cloned().ok_or_else(|| {
        let known: Vec<&str> = images.iter().map(|image| image.name.as_str()).collect();
        let error = Error::new(ErrorKind::Request, format!("there is no image {full:?} in the store"));
        match crate::diagnostic::nearest(&full, known) {
            Some(nearest) => error.hint(format!("did you mean {nearest:?}?")),
            None => error,
        }
    })
}

/// Gives an image a further name, which is returned in full.
pub(crate) fn tag(store: &Store, name: &str, new: &str) -> Result<String> {
    let image = find(store, name)?;
    let reference: Reference =
        new.parse().map_err(|error: crate::registry::ReferenceError| Error::from_source(ErrorKind::Request, &error))?;
    if reference.digest().is_some() {
        return Err(Error::new(ErrorKind::Request, format!("the name {new:?} has a digest")));
    }
    store.tag_image(&reference.to_string(), &image.descriptor).map_err(|e| store_error(&e))?;
    Ok(reference.to_string())
}

/// Manifest and config of an image, and the repositories that have the layers which are not here.
pub(crate) fn inspect(store: &Store, name: &str) -> Result<Value> {
    let image = find(store, name)?;
    let mut shown = Vec::new();
    let mut elsewhere = serde_json::Map::new();
    for manifest in manifests(store, &image.descriptor)? {
        for Descriptor { digest, .. } in &manifest.layers {
            let is_here = store.has_blob(digest).map_err(|e| store_error(&e))?;
            let noted = store.elsewhere(digest).map_err(|e| store_error(&e))?;
            if !is_here && !noted.is_empty() {
                let repositories: Vec<String> = noted.into_iter().map(|place| place.repository).collect();
                elsewhere.insert(digest.to_string(), json!(repositories));
            }
        }
        shown.push(json!({"manifest": manifest, "config": config(store, &manifest)?}));
    }
    let mut image = json!({"name": image.name, "digest": image.descriptor.digest, "images": shown});
    if !elsewhere.is_empty() {
        image["elsewhere"] = Value::Object(elsewhere);
    }
    Ok(image)
}

/// Takes a name away; the full name is returned.
pub(crate) fn remove(store: &Store, name: &str) -> Result<String> {
    let image = find(store, name)?;
    store.untag_image(&image.name).map_err(|e| store_error(&e))?;
    Ok(image.name)
}
