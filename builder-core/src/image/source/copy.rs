//! From a layout or archive into the store.

use std::io::{self, Read};

use super::{ImageSource, MAX_DEPTH, SourceError};
use crate::image::{Descriptor, Index, MANIFEST_LIMIT, Manifest, is_index};
use crate::store::{self, Store};

impl ImageSource {
    /// Copies an image into the store: a manifest with its blobs, an index with all that it names. What a document names
    /// comes before it. Layers with addresses of their own may be missing.
    pub(crate) fn copy_all(&self, store: &Store, image: &Descriptor) -> Result<(), SourceError> {
        self.copy_below(store, image, MAX_DEPTH)
    }

    fn copy_below(&self, store: &Store, image: &Descriptor, depth: usize) -> Result<(), SourceError> {
        if depth == 0 {
            let reason = "indexes are nested too deep".to_owned();
            return Err(SourceError::NotALayout { path: self.path.clone(), reason });
        }
        let bytes = self.read(image, MANIFEST_LIMIT)?;
        if is_index(&image.media_type) {
            let index = Index::parse(&bytes).map_err(|source| self.document(image.digest, source))?;
            index.manifests.iter().try_for_each(|entry| self.copy_below(store, entry, depth - 1))?;
        } else {
            let manifest = Manifest::parse(&bytes).map_err(|source| self.document(image.digest, source))?;
            let has = |blob: &&Descriptor| blob.urls.is_empty() || self.open_blob(&blob.digest).is_ok();
            let blobs = manifest.layers.iter().chain([&manifest.config]).filter(has);
            blobs.into_iter().try_for_each(|blob| self.copy_blob(store, blob))?;
        }
        self.copy_blob(store, image)
    }

    /// Copies one blob into the store unless it is there, verifying digest and size.
    pub(crate) fn copy_blob(&self, store: &Store, blob: &Descriptor) -> Result<(), SourceError> {
        let store_error = |source: store::Error| SourceError::Store { path: self.path.clone(), source };
        if store.blob_size(&blob.digest).map_err(store_error)? == Some(blob.size) {
            return Ok(());
        }
        let (reader, _) = self.open_blob(&blob.digest)?;
        let mut writer = store.blob_writer().map_err(store_error)?;
        // One byte more than expected is enough to see that there are too many.
        let copied = copy(reader.take(blob.size.saturating_add(1)), &mut writer);
        copied.map_err(|source| SourceError::Io { operation: "copy a blob of", path: self.path.clone(), source })?;
        writer.commit_expected(blob.digest, blob.size).map_err(store_error)
    }
}

/// Copies in larger pieces than [`io::copy`] does between things that are not files.
pub(super) fn copy(mut reader: impl Read, writer: &mut impl io::Write) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    loop {
        match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => writer.write_all(&buffer[..n])?,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
}
