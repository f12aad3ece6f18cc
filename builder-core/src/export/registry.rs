//! Export to a registry: blobs first, then manifests, then tags, so that a tag never names something broken.
//!
//! A blob is asked for before it is sent, taken over from another repository of the same registry where it is known to
//! be in one, and sent once however many names and repositories an image has.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::referrer::Referrer;
use crate::digest::Digest;
use crate::image::{Descriptor, Index, MANIFEST_LIMIT, Manifest, is_index};
use crate::registry::{self, Client, Reference, Upload};
use crate::store::Store;

/// Whether something is done; locked while it is being done.
type Slot = Arc<Mutex<bool>>;

/// Tells which repositories are known to have a blob.
pub(crate) type Origins<'a> = &'a (dyn Fn(&Digest) -> Vec<Reference> + Sync);

/// Blobs on their way to registries, each once a repository, however often it is asked for.
pub(crate) struct Sender<'a> {
    store: &'a Store,
    client: &'a Client,
    origins: Origins<'a>,
    /// Whether a blob is there, by repository. Locked while it is sent: images of several platforms have some in common.
    sent: Mutex<HashMap<(String, Digest), Slot>>,
    stopped: Arc<AtomicBool>,
}

impl<'a> Sender<'a> {
    /// Sends from `store`. `origins` are repositories that are known to have a blob.
    pub(crate) fn new(store: &'a Store, client: &'a Client, origins: Origins<'a>) -> Self {
        Self { store, client, origins, sent: Mutex::default(), stopped: Arc::default() }
    }

    /// Where blobs are known to be already.
    pub(crate) fn origins(&self) -> Origins<'a> {
        self.origins
    }

    /// Lets everything that is being sent fail.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Relaxed);
    }

    /// Makes sure that the repository of `target` has a blob. The repositories in `done` have it already.
    pub(crate) fn send(&self, blob: &Descriptor, target: &Reference, done: &[&Reference]) -> Result<(), Error> {
        let Descriptor { digest, size, .. } = *blob;
        let slot = {
            let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(sent.entry((target.name(), digest)).or_default())
        };
        let mut is_there = slot.lock().unwrap_or_else(PoisonError::into_inner);
        if *is_there {
            return Ok(());
        }
        let open = |offset: u64| -> io::Result<Box<dyn Read + Send>> {
            let mut file = self.store.open_blob(&digest).map_err(io::Error::other)?;
            file.seek(SeekFrom::Start(offset))?;
            Ok(Box::new(Stoppable { file, stopped: Arc::clone(&self.stopped) }))
        };
        let elsewhere = |known: &&Reference| known.registry() == target.registry() && known.name() != target.name();
        let origins = (self.origins)(&digest);
        let origin = done.iter().copied().chain(&origins).find(elsewhere);
        let upload = Upload { digest, size, open: &open, mount_from: origin.map(Reference::repository) };
        self.client.push_blob(target, upload).map_err(|source| registry_error(target, source))?;
        *is_there = true;
        Ok(())
    }
}

/// A blob that is read until somebody says stop.
struct Stoppable {
    file: File,
    stopped: Arc<AtomicBool>,
}

impl Read for Stoppable {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(io::Error::other("nobody needs it any more")),
            false => self.file.read(buffer),
        }
    }
}

/// A push.
#[derive(Clone, Copy)]
pub(crate) struct Push<'a> {
    /// Has the image, and knows the way.
    pub(crate) sender: &'a Sender<'a>,
    /// The manifest or index.
    pub(crate) image: &'a Descriptor,
}

/// A manifest or an index.
struct Document {
    descriptor: Descriptor,
    bytes: Vec<u8>,
    /// How it is listed for the manifest that it is about.
    referrer: Option<Referrer>,
}

/// The documents of an image, each after those that it names, and its blobs.
struct Parts {
    documents: Vec<Document>,
    blobs: Vec<Descriptor>,
}

impl Push<'_> {
    /// Brings the image to each of the `targets`: under its tag, or under the digest alone where a target has no tag.
    pub(crate) fn run(&self, targets: &[Reference]) -> Result<(), Error> {
        let parts = self.parts()?;
        let mut by_repository: BTreeMap<String, Vec<&Reference>> = BTreeMap::new();
        for target in targets {
            by_repository.entry(target.name()).or_default().push(target);
        }
        let mut done: Vec<&Reference> = Vec::new();
        for targets in by_repository.values() {
            let [first, ..] = targets[..] else { continue };
            self.push_blobs(&parts.blobs, first, &done)?;
            let (root, inner) = parts.documents.split_last().ok_or_else(|| self.missing(self.image))?;
            for document in inner {
                self.put(&first.with_digest(document.descriptor.digest), document)?;
            }
            for target in targets {
                self.put(target, root)?;
            }
            done.push(first);
        }
        Ok(())
    }

    fn put(&self, target: &Reference, document: &Document) -> Result<(), Error> {
        let client = self.sender.client;
        let failed = |source| registry_error(target, source);
        let put = client.push_manifest(target, &document.descriptor.media_type, &document.bytes).map_err(failed)?;
        match &document.referrer {
            Some(referrer) if put.listed_for != Some(referrer.subject) => referrer.list(client, target).map_err(failed),
            _ => Ok(()),
        }
    }

    fn missing(&self, descriptor: &Descriptor) -> Error {
        let digest = descriptor.digest;
        Error::Store { digest, source: crate::store::Error::BlobMissing { digest } }
    }

    fn parts(&self) -> Result<Parts, Error> {
        let mut parts = Parts { documents: Vec::new(), blobs: Vec::new() };
        self.collect(self.image, &mut parts)?;
        Ok(parts)
    }

    fn collect(&self, descriptor: &Descriptor, parts: &mut Parts) -> Result<(), Error> {
        let digest = descriptor.digest;
        if parts.documents.iter().any(|known| known.descriptor.digest == digest) {
            return Ok(());
        }
        let bytes =
            self.sender.store.read_blob(&digest, MANIFEST_LIMIT).map_err(|source| Error::Store { digest, source })?;
        let document_error = |source| Error::Document { what: format!("blob {digest}"), source };
        let referrer;
        if is_index(&descriptor.media_type) {
            let index = Index::parse(&bytes).map_err(document_error)?;
            referrer = Referrer::of_index(&index, descriptor);
            for entry in index.manifests {
                self.collect(&entry, parts)?;
            }
        } else {
            let manifest = Manifest::parse(&bytes).map_err(document_error)?;
            referrer = Referrer::of_manifest(&manifest, descriptor);
            for blob in manifest.layers.into_iter().chain([manifest.config]) {
                // A layer with URLs of its own is fetched from there by whoever pulls.
                let foreign = !blob.urls.is_empty() && !self.has(&blob)?;
                if !foreign && !parts.blobs.iter().any(|known| known.digest == blob.digest) {
                    parts.blobs.push(blob);
                }
            }
        }
        parts.documents.push(Document { descriptor: descriptor.clone(), bytes, referrer });
        Ok(())
    }

    fn has(&self, blob: &Descriptor) -> Result<bool, Error> {
        let digest = blob.digest;
        self.sender.store.has_blob(&digest).map_err(|source| Error::Store { digest, source })
    }

    fn push_blobs(&self, blobs: &[Descriptor], target: &Reference, done: &[&Reference]) -> Result<(), Error> {
        registry::for_each(blobs, |blob| self.sender.send(blob, target, done))
    }
}

fn registry_error(target: &Reference, source: registry::Error) -> Error {
    Error::Registry { name: target.to_string(), source: Box::new(source) }
}
