//! Images by name: `index.json` of the layout. Written under a lock, flushed, then renamed, because unlike everything
//! else it cannot be made again.
//!
//! The full name (`docker.io/library/app:1`) is the annotation `org.opencontainers.image.ref.name`, so that
//! `skopeo inspect oci:STATE:NAME` finds it, and `io.containerd.image.name`. Entries that other tools wrote stay as
//! they are.

use std::fs::{self, File};
use std::io::Write;
use std::path::PathBuf;

use super::error::{Error, Result};
use super::lock::{After, FileLock};
use super::oci::{ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME};
use super::session::Pin;
use super::{Descriptor, Index, Store, blob};

/// An image with its name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredImage {
    /// As it was tagged, usually fully qualified.
    pub(crate) name: String,
    /// Its manifest or index, without the annotations that carry the name.
    pub(crate) descriptor: Descriptor,
}

impl Store {
    /// All named images in the order in which they were first tagged.
    pub(crate) fn images(&self) -> Result<Vec<StoredImage>> {
        let named = |mut descriptor: Descriptor| {
            let name = descriptor.annotations.remove(ANNOTATION_REF_NAME)?;
            descriptor.annotations.remove(ANNOTATION_IMAGE_NAME);
            Some(StoredImage { name, descriptor })
        };
        Ok(self.read_index()?.manifests.into_iter().filter_map(named).collect())
    }

    /// The image with exactly this name. From then on all of it stays as long as this store is open.
    pub(crate) fn resolve_image(&self, name: &str) -> Result<Option<Descriptor>> {
        loop {
            let Some(descriptor) = self.find_image(name)? else { return Ok(None) };
            let first = self.session().pin(Pin::Image(descriptor.digest))?;
            // Untagged and collected between the look and the pin? What stands there after the pin is safe.
            if !first || self.find_image(name)?.is_some_and(|now| now.digest == descriptor.digest) {
                return Ok(Some(descriptor));
            }
        }
    }

    fn find_image(&self, name: &str) -> Result<Option<Descriptor>> {
        Ok(self.images()?.into_iter().find(|image| image.name == name).map(|image| image.descriptor))
    }

    /// Gives `name` to a manifest or index whose blobs are all in the store or noted to be elsewhere, taking it from any other image. On
    /// return the image survives a crash of the machine.
    pub(crate) fn tag_image(&self, name: &str, descriptor: &Descriptor) -> Result<()> {
        if name.is_empty() || name.chars().any(char::is_control) {
            return Err(Error::InvalidName { name: name.to_owned() });
        }
        self.session().pin(Pin::Image(descriptor.digest))?;
        if !self.has_blob(&descriptor.digest)? {
            return Err(Error::BlobMissing { digest: descriptor.digest });
        }
        self.sync()?;
        let mut entry = descriptor.clone();
        entry.annotations.insert(ANNOTATION_REF_NAME.to_owned(), name.to_owned());
        entry.annotations.insert(ANNOTATION_IMAGE_NAME.to_owned(), name.to_owned());
        self.change_index(|index| {
            let mut same = index.manifests.iter().filter(|entry| is_named(entry, name));
            if same.next() == Some(&entry) && same.next().is_none() {
                return false;
            }
            let place = index.manifests.iter().position(|entry| is_named(entry, name));
            index.manifests.retain(|entry| !is_named(entry, name));
            let place = place.unwrap_or(index.manifests.len());
            index.manifests.insert(place, entry);
            true
        })?;
        Ok(())
    }

    /// Takes a name away; its blobs go with the next prune. Returns whether there was such a name.
    pub(crate) fn untag_image(&self, name: &str) -> Result<bool> {
        self.change_index(|index| {
            let before = index.manifests.len();
            index.manifests.retain(|entry| !is_named(entry, name));
            index.manifests.len() != before
        })
    }

    /// Reads `index.json` as it is now.
    pub(super) fn read_index(&self) -> Result<Index> {
        let path = self.index_path();
        let bytes = fs::read(&path).map_err(Error::io("read", &path))?;
        serde_json::from_slice(&bytes).map_err(|source| Error::Json { path, source })
    }

    /// Makes an empty `index.json` where there is none.
    pub(super) fn ensure_index(&self) -> Result<()> {
        if self.index_path().exists() {
            return Ok(());
        }
        let _lock = self.lock_index()?;
        if self.index_path().exists() { Ok(()) } else { self.write_index(&Index::default()) }
    }

    /// Reads, changes and writes `index.json` as one step. `change` says whether it changed anything.
    fn change_index(&self, change: impl FnOnce(&mut Index) -> bool) -> Result<bool> {
        let _lock = self.lock_index()?;
        let mut index = self.read_index()?;
        let changed = change(&mut index);
        if changed {
            self.write_index(&index)?;
        }
        Ok(changed)
    }

    fn lock_index(&self) -> Result<FileLock> {
        FileLock::wait(&self.path().join("locks/index"), After::Keep)
    }

    fn write_index(&self, index: &Index) -> Result<()> {
        let path = self.index_path();
        let bytes = serde_json::to_vec(index).map_err(|source| Error::Json { path: path.clone(), source })?;
        let temp = self.temp_path();
        let write = |mut file: File| file.write_all(&bytes).and_then(|()| file.sync_data());
        File::create_new(&temp).and_then(write).map_err(Error::io("write", &temp))?;
        fs::rename(&temp, &path).map_err(Error::io("move into place", &path))?;
        blob::sync_dir(self.path())
    }

    fn index_path(&self) -> PathBuf {
        self.path().join("index.json")
    }
}

fn is_named(entry: &Descriptor, name: &str) -> bool {
    entry.annotations.get(ANNOTATION_REF_NAME).is_some_and(|found| found == name)
}
