//! Blobs of images on their way into the store: from a registry or a layout, each once even by builds side by side.

use std::io::{self, Read};
use std::ops::ControlFlow;
use std::sync::Arc;

use super::images::{ImageError, Images, Place};
use crate::digest::{CacheKey, Digest};
use crate::image::Descriptor;
use crate::registry::{self, BlobReader, Client, Reference};
use crate::request::PullPolicy;
use crate::store::{Cause, Elsewhere, StepLock, Store};

impl Images {
    /// Brings blobs into the store, several at once. `progress` is told the blob, its bytes so far and in all.
    pub(super) fn fetch_all(
        &self,
        name: &str,
        place: &Place,
        blobs: &[Descriptor],
        progress: &(dyn Fn(&Digest, u64, u64) + Sync),
    ) -> Result<(), ImageError> {
        registry::for_each(blobs, |blob| self.fetch_blob(name, place, blob, progress))
    }

    /// Reads a document from the store, where `fetch` puts it if it is not there.
    pub(super) fn document(
        &self,
        name: &str,
        digest: Digest,
        limit: u64,
        fetch: impl FnOnce() -> Result<Vec<u8>, registry::Error>,
    ) -> Result<Vec<u8>, ImageError> {
        let store = |source| ImageError::Store { name: name.to_owned(), source };
        // What is damaged is fetched again.
        let there = || self.store.read_blob(&digest, limit).ok().filter(|bytes| Digest::of(bytes) == digest);
        if let Some(bytes) = there() {
            return Ok(bytes);
        }
        let _lock = self.lock_blob(&digest).map_err(store)?;
        if let Some(bytes) = there() {
            return Ok(bytes);
        }
        let bytes = fetch().map_err(|source| ImageError::Registry { name: name.to_owned(), source })?;
        self.store.put_blob(&bytes).map_err(store)?;
        Ok(bytes)
    }

    /// Whoever else fetches the blob holds this lock; then it is there.
    fn lock_blob(&self, digest: &Digest) -> Result<Option<StepLock>, crate::store::Error> {
        self.store.lock_step(&CacheKey(*digest.as_bytes()), &mut || ControlFlow::Continue(()))
    }

    pub(super) fn fetch_blob(
        &self,
        name: &str,
        place: &Place,
        blob: &Descriptor,
        progress: &(dyn Fn(&Digest, u64, u64) + Sync),
    ) -> Result<(), ImageError> {
        let store = |source| ImageError::Store { name: name.to_owned(), source };
        let tell = |done| progress(&blob.digest, done, blob.size);
        match place {
            Place::Store => {
                if self.is_there(name, blob)? || self.store.bring_from_elsewhere(&blob.digest, &tell).map_err(store)? {
                    return Ok(());
                }
                let reason = format!("the store lacks its layer {}", blob.digest);
                Err(ImageError::Inconsistent { name: name.to_owned(), reason })
            }
            Place::Layout(source) => self.once(name, blob, || {
                let wrap = |source| ImageError::Source { name: name.to_owned(), source };
                source.copy_blob(&self.store, blob).map_err(wrap)
            }),
            Place::Registry(reference) => self.once(name, blob, || self.download(name, reference, blob, &tell)),
        }
    }

    fn is_there(&self, name: &str, blob: &Descriptor) -> Result<bool, ImageError> {
        let size = self.store.blob_size(&blob.digest);
        let size = size.map_err(|source| ImageError::Store { name: name.to_owned(), source })?;
        Ok(size == Some(blob.size))
    }

    /// Lets `get` bring the blob unless it is there, or comes by somebody else meanwhile.
    fn once(
        &self,
        name: &str,
        blob: &Descriptor,
        get: impl FnOnce() -> Result<(), ImageError>,
    ) -> Result<(), ImageError> {
        if self.is_there(name, blob)? {
            return Ok(());
        }
        // Whoever else fetches it holds this lock; then it is there.
        let lock = self.lock_blob(&blob.digest);
        let _lock = lock.map_err(|source| ImageError::Store { name: name.to_owned(), source })?;
        if self.is_there(name, blob)? { Ok(()) } else { get() }
    }

    fn download(
        &self,
        name: &str,
        reference: &Reference,
        blob: &Descriptor,
        tell: &dyn Fn(u64),
    ) -> Result<(), ImageError> {
        let store = |source| ImageError::Store { name: name.to_owned(), source };
        let registry = |source| ImageError::Registry { name: name.to_owned(), source };
        let mut reader = self.client.blob(reference, blob.digest, blob.size).map_err(registry)?;
        let mut writer = self.store.blob_writer_unhashed().map_err(store)?;
        copy(&mut reader, &mut writer, &mut |done| tell(done)).map_err(|error| match error {
            CopyError::Read(error) => registry(BlobReader::unwrap_error(error, &format!("layer {}", blob.digest))),
            CopyError::Write(source) => ImageError::Copy { name: name.to_owned(), source },
        })?;
        // The reader has verified digest and size when it came to its end.
        writer.commit_as(blob.digest).map(drop).map_err(store)
    }
}

/// Lets `store` fetch, by `client`, the layers that it has noted to be elsewhere.
pub(crate) fn fetch_from_elsewhere(store: &Store, client: &Client) {
    let client = client.clone();
    // It must not hold the store, which holds it.
    store.fetch_with(Arc::new(move |store, digest, noted, tell| {
        let images = Images::new(store.clone(), client.clone(), Vec::new(), PullPolicy::Never);
        let mut failure: Option<Cause> = None;
        for Elsewhere { repository, size } in noted {
            let blob = Descriptor::new("", *digest, *size);
            let fetched = repository.parse::<Reference>().map_err(Cause::from).and_then(|reference| {
                let place = Place::Registry(reference);
                images.fetch_blob(repository, &place, &blob, &|_, done, _| tell(done)).map_err(Cause::from)
            });
            match fetched {
                Ok(()) => return Ok(()),
                // The first has it most likely; what it says counts.
                Err(error) => drop(failure.get_or_insert(error)),
            }
        }
        Err(failure.unwrap_or_else(|| "no repository is known to have it".into()))
    }));
}

/// The repositories that are noted to have a blob.
pub(crate) fn noted_origins(store: &Store, digest: &Digest) -> Vec<Reference> {
    // A note that cannot be read costs a way that is shorter, nothing else.
    let noted = store.elsewhere(digest).unwrap_or_default();
    noted.iter().filter_map(|place| place.repository.parse().ok()).collect()
}

enum CopyError {
    Read(io::Error),
    Write(io::Error),
}

fn copy(reader: &mut impl Read, writer: &mut impl io::Write, tell: &mut dyn FnMut(u64)) -> Result<(), CopyError> {
    let mut buffer = vec![0; 256 << 10];
    let mut done = 0;
    let mut told = 0;
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(CopyError::Read(error)),
        };
        writer.write_all(&buffer[..n]).map_err(CopyError::Write)?;
        done += n as u64;
        if done - told >= 1 << 20 {
            told = done;
            tell(done);
        }
    }
}
