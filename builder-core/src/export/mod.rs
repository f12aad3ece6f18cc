//! Sinks for an image that is in the store: an OCI layout directory, a tar of one, an archive for Docker, a registry, and
//! its root filesystem as a tar or as files.
//!
//! What it does: copies blobs and names them. What it does not: change the image; compress again.
//!
//! Invariants. A destination is complete or untouched: everything is written beside it and renamed. The bytes of an
//! archive depend on the image and its names alone. Blobs are copied, never hard-linked, because the user may do to
//! the copy what they like (the kernel shares the blocks where the file system can).
//!
//! Rules: image-spec `image-layout.md`, `annotations.md`.

mod archive;
mod layout;
mod referrer;
mod registry;
mod rootfs;

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::path::PathBuf;

use crate::digest::Digest;
use crate::image::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, MANIFEST_LIMIT, Manifest, ParseError, is_index,
};
use crate::layer;
use crate::store::{self, Store};

pub(crate) use archive::{export_archive, export_docker_archive};
pub(crate) use layout::{export_layout, replace_layout};
pub(crate) use registry::{Origins, Push, Sender};
pub(crate) use rootfs::{Rootfs, write_tar};

/// An export failed. The destination is as it was.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The destination holds something else.
    #[error("{} is not empty and not an OCI image layout", path.display())]
    NotALayout {
        /// The directory.
        path: PathBuf,
    },
    /// What would be lost is not ours.
    #[error("{} holds other images, and would hold nothing but this", path.display())]
    OtherImages {
        /// The directory.
        path: PathBuf,
    },
    /// A document does not parse.
    #[error("{what} is not usable")]
    Document {
        /// Which.
        what: String,
        /// Why not.
        source: ParseError,
    },
    /// A blob could not be had from the store.
    #[error("cannot export {digest}")]
    Store {
        /// The blob.
        digest: Digest,
        /// Why not.
        source: store::Error,
    },
    /// A layer cannot be read.
    #[error("cannot read layer {digest}")]
    Layer {
        /// Its blob.
        digest: Digest,
        /// Why not.
        source: layer::Error,
    },
    /// The store has no room for work in progress.
    #[error("cannot work in the store")]
    WorkDir {
        /// Why not.
        source: store::Error,
    },
    /// A registry does not take it.
    #[error("{name} cannot be pushed")]
    Registry {
        /// Where it was to go.
        name: String,
        /// Why not.
        source: Box<crate::registry::Error>,
    },
    /// A blob of the store has another size than its descriptor says.
    #[error("blob {digest} has {found} bytes in the store, its descriptor says {expected}")]
    Size {
        /// The blob.
        digest: Digest,
        /// Bytes by the descriptor.
        expected: u64,
        /// Bytes in the store.
        found: u64,
    },
}

impl Error {
    fn io(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { operation, path, source }
    }
}

/// What to export.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Image<'a> {
    /// Its manifest or index, in the store with all that it reaches.
    pub(crate) descriptor: &'a Descriptor,
    /// Full names with tag, such as `docker.io/library/app:1.2`. Without any, the image has no name there either.
    pub(crate) names: &'a [String],
}

impl Image<'_> {
    /// Its entries for an `index.json`, one for each name.
    fn entries(&self) -> Vec<Descriptor> {
        if self.names.is_empty() {
            return vec![self.descriptor.clone()];
        }
        let named = |name: &String| {
            let mut entry = self.descriptor.clone();
            entry.annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), name.clone());
            entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), tag_of(name).to_owned());
            entry
        };
        self.names.iter().map(named).collect()
    }
}

/// The tag of a full name: what stands after the last `:` of its last component, `latest` where nothing does.
fn tag_of(name: &str) -> &str {
    let name = name.split_once('@').map_or(name, |(name, _)| name);
    let last = name.rsplit_once('/').map_or(name, |(_, last)| last);
    last.rsplit_once(':').map_or("latest", |(_, tag)| tag)
}

/// A blob to copy.
#[derive(Debug)]
struct Blob {
    digest: Digest,
    size: u64,
    /// In the store, at its start.
    file: File,
}

/// Opens everything that an image reaches, sorted by digest, each blob once.
///
/// Layers that may not be distributed and were never fetched stay out, as the image-spec allows.
fn blobs(store: &Store, image: &Descriptor) -> Result<Vec<Blob>, Error> {
    let mut found = Vec::new();
    let mut seen = HashSet::new();
    let mut waiting = vec![(image.clone(), true)];
    while let Some((descriptor, is_document)) = waiting.pop() {
        let digest = descriptor.digest;
        if !seen.insert(digest) {
            continue;
        }
        let error = |source| Error::Store { digest, source };
        if !descriptor.urls.is_empty() && !store.has_blob(&digest).map_err(error)? {
            continue;
        }
        let file = store.open_blob(&digest).map_err(error)?;
        let size = file.metadata().map_err(Error::io("stat", store.blob_path(&digest)))?.len();
        if size != descriptor.size {
            return Err(Error::Size { digest, expected: descriptor.size, found: size });
        }
        found.push(Blob { digest, size, file });
        if !is_document {
            continue;
        }
        let bytes = store.read_blob(&digest, MANIFEST_LIMIT).map_err(error)?;
        let document_error = |source| Error::Document { what: format!("blob {digest}"), source };
        if is_index(&descriptor.media_type) {
            let index = Index::parse(&bytes).map_err(document_error)?;
            waiting.extend(index.manifests.into_iter().map(|entry| (entry, true)));
        } else {
            let manifest = Manifest::parse(&bytes).map_err(document_error)?;
            waiting.extend(manifest.layers.into_iter().chain([manifest.config]).map(|blob| (blob, false)));
        }
    }
    found.sort_by_key(|blob| blob.digest);
    Ok(found)
}

/// An index of these entries.
fn index_of(entries: Vec<Descriptor>) -> Index {
    Index { manifests: entries, ..Index::default() }
}

#[cfg(test)]
mod tests;
