//! Export to a registry: blobs first, then manifests, then tags, so that a tag never names something broken.
//!
//! A blob is asked for before it is sent, taken over from another repository of the same registry where it is known to
//! be in one, and sent once however many names and repositories an image has.

use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::Error;
use super::referrer::Referrer;
use crate::digest::Digest;
use crate::image::{Descriptor, Index, MANIFEST_LIMIT, Manifest, is_index};
use crate::registry::{self, BlobReader, Client, Reference, Upload};
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
    /// Whether blobs that the store lacks go past it.
    through: bool,
}

impl<'a> Sender<'a> {
    /// Sends from `store`. `origins` are repositories that are known to have a blob.
    pub(crate) fn new(store: &'a Store, client: &'a Client, origins: Origins<'a>) -> Self {
        Self { store, client, origins, sent: Mutex::default(), stopped: Arc::default(), through: false }
    }

    /// Lets blobs that the store lacks go from a repository that has them to where they are sent, without staying here.
    pub(crate) fn through(self) -> Self {
        Self { through: true, ..self }
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
        let origins = (self.origins)(&digest);
        let streamed = AtomicBool::new(false);
        let open = |offset: u64| self.open(blob, offset, &origins, &streamed);
        let bring = || if self.through { Ok(()) } else { self.store.open_blob(&digest).map(drop) };
        let bring = || bring().map_err(io::Error::other);
        let elsewhere = |known: &&Reference| known.registry() == target.registry() && known.name() != target.name();
        let origin = done.iter().copied().chain(&origins).find(elsewhere);
        let upload = Upload { digest, size, bring: &bring, open: &open, mount_from: origin.map(Reference::repository) };
        self.client.push_blob(target, upload).map_err(|source| registry_error(target, source))?;
        *is_there = true;
        Ok(())
    }
}

impl Sender<'_> {
    /// The bytes of a blob from `offset` on: of the store, or for the first try straight from where it is. Who has to
    /// try again goes on from the middle, maybe many times: then it is brought here first.
    fn open(
        &self,
        blob: &Descriptor,
        offset: u64,
        origins: &[Reference],
        streamed: &AtomicBool,
    ) -> io::Result<Box<dyn Read + Send>> {
        let stopped = Arc::clone(&self.stopped);
        let is_first = !streamed.swap(true, Ordering::Relaxed);
        if self.through
            && is_first
            && offset == 0
            && !self.store.has_blob(&blob.digest).map_err(io::Error::other)?
            // Where it is no more, the store may know another place.
            && let Some(reader) = origins.iter().find_map(|from| self.client.blob(from, blob.digest, blob.size).ok())
        {
            return Ok(Box::new(Stoppable { reader: Verified { reader, left: blob.size }, stopped }));
        }
        let mut file = self.store.open_blob(&blob.digest).map_err(io::Error::other)?;
        file.seek(SeekFrom::Start(offset))?;
        Ok(Box::new(Stoppable { reader: file, stopped }))
    }
}

/// A blob of a registry whose last bytes come out only if all were right: who reads as many bytes as it has does not come
/// to see its end.
struct Verified {
    reader: BlobReader,
    left: u64,
}

impl Read for Verified {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.reader.read(buffer)?;
        self.left = self.left.saturating_sub(read as u64);
        if self.left == 0 && read > 0 {
            // Its end, or the reason why it is none.
            self.reader.read(&mut [0])?;
        }
        Ok(read)
    }
}

/// A blob that is read until somebody says stop.
struct Stoppable<R> {
    reader: R,
    stopped: Arc<AtomicBool>,
}

impl<R: Read> Read for Stoppable<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self.stopped.load(Ordering::Relaxed) {
            true => Err(io::Error::other("nobody needs it any more")),
            false => self.reader.read(buffer),
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
