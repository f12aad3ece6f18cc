//! Indexes of the store that are put together by hand: images of several platforms, built one by one, under one name.
//!
//! An index names what is in the store: manifests and configs of what is added are fetched first, layers are noted to be
//! where they are, and copied when the index is pushed. Its manifests stay as they are, byte for
//! byte. Two changes of one index at once follow each other; a change is done as a whole or not at all. Needs no build
//! process.
//!
//! Rules: image-spec `image-index.md`.

mod artifact;
mod entry;

use std::ops::ControlFlow;

use self::entry::{apply, insert, is_about, media_type};
use crate::copy::{describe, fetch};
use crate::digest::{CacheKey, Digest};
use crate::distribute::reference;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{CONFIG_LIMIT, Descriptor, ImageConfig, Index, MANIFEST_LIMIT, Manifest, Platform, is_index};
use crate::registry::Client;
use crate::request::{Added, EntryChange, IfIndexExists, ImagePlace, IndexChange};
use crate::store::{StepLock, Store};
use crate::worker::MirrorLayers;

fn store_error(error: &crate::store::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

fn request(text: impl Into<String>) -> Error {
    Error::new(ErrorKind::Request, text)
}

/// Makes an index under a name of the store. Returns its digest.
pub(crate) fn create(
    store: &Store,
    client: &Client,
    name: &str,
    exists: IfIndexExists,
    changes: &[IndexChange],
) -> Result<Digest> {
    let list = List { store, client, name: full_name(name)? };
    let _lock = list.lock()?;
    let there = store.resolve_image(&list.name).map_err(|e| store_error(&e))?;
    let index = match (there, exists) {
        (None, _) | (Some(_), IfIndexExists::Replace) => Index::default(),
        (Some(descriptor), IfIndexExists::Amend) => list.read(&descriptor)?,
        (Some(_), IfIndexExists::Refuse) => {
            let error = request(format!("there is an image {:?} in the store", list.name));
            return Err(error.hint("add to an index with --amend, make a new one with --replace"));
        }
    };
    list.change(index, changes)
}

/// Changes an index of the store. Returns its new digest.
pub(crate) fn change(store: &Store, client: &Client, name: &str, changes: &[IndexChange]) -> Result<Digest> {
    let list = List { store, client, name: full_name(name)? };
    let _lock = list.lock()?;
    let index = list.read(&list.descriptor()?)?;
    list.change(index, changes)
}

/// The bytes of an index of the store.
pub(crate) fn read(store: &Store, client: &Client, name: &str) -> Result<Vec<u8>> {
    let list = List { store, client, name: full_name(name)? };
    let descriptor = list.descriptor()?;
    list.read(&descriptor)?;
    store.read_blob(&descriptor.digest, MANIFEST_LIMIT).map_err(|e| store_error(&e))
}

fn full_name(name: &str) -> Result<String> {
    let parsed = reference(name)?;
    match parsed.digest() {
        Some(_) => Err(request(format!("{name:?} has a digest: an index is changed by its name"))),
        None => Ok(parsed.to_string()),
    }
}

/// An index by its name.
struct List<'a> {
    store: &'a Store,
    client: &'a Client,
    name: String,
}

impl List<'_> {
    /// Makes changes of this name follow each other.
    fn lock(&self) -> Result<StepLock> {
        let key = Digest::of(format!("index {}", self.name).as_bytes());
        let lock = self.store.lock_step(&CacheKey(*key.as_bytes()), &mut || ControlFlow::Continue(()));
        lock.map_err(|e| store_error(&e))?.ok_or_else(|| Error::new(ErrorKind::Internal, "a lock was given up"))
    }

    fn descriptor(&self) -> Result<Descriptor> {
        let found = self.store.resolve_image(&self.name).map_err(|e| store_error(&e))?;
        found.ok_or_else(|| {
            let error = request(format!("there is no index {:?} in the store", self.name));
            error.hint("make one with `builder manifest create`")
        })
    }

    fn read(&self, descriptor: &Descriptor) -> Result<Index> {
        if !is_index(&descriptor.media_type) {
            return Err(request(format!("{:?} is an image, not an index", self.name)));
        }
        let bytes = self.store.read_blob(&descriptor.digest, MANIFEST_LIMIT).map_err(|e| store_error(&e))?;
        Index::parse(&bytes).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    /// Does the changes, and gives the result the name.
    fn change(&self, mut index: Index, changes: &[IndexChange]) -> Result<Digest> {
        for change in changes {
            match change {
                IndexChange::Add { image, what, entry } => self.add(&mut index, image, *what, entry)?,
                IndexChange::AddArtifact { artifact, entry } => self.add_artifact(&mut index, artifact, entry)?,
                IndexChange::SetSubject { subject } => index.subject = Some(self.subject(&index, subject)?),
                IndexChange::Annotate { digest, entry } => {
                    let found = index.manifests.iter_mut().find(|known| known.digest == *digest);
                    apply(found.ok_or_else(|| self.lacks(digest))?, entry)?;
                }
                IndexChange::AnnotateIndex { annotations } => index.annotations.extend(annotations.iter().cloned()),
                IndexChange::Remove { digest } => {
                    let before = index.manifests.len();
                    index.manifests.retain(|known| known.digest != *digest && !is_about(known, digest));
                    if index.manifests.len() == before {
                        return Err(self.lacks(digest));
                    }
                }
            }
        }
        index.media_type = Some(media_type(&index).to_owned());
        let bytes = index.to_canonical_json();
        let digest = self.store.put_blob(&bytes).map_err(|e| store_error(&e))?;
        let descriptor = Descriptor::new(media_type(&index), digest, bytes.len() as u64);
        self.store.tag_image(&self.name, &descriptor).map_err(|e| store_error(&e))?;
        Ok(digest)
    }

    fn lacks(&self, digest: &Digest) -> Error {
        request(format!("the index {:?} has no {digest}", self.name))
    }

    fn add(&self, index: &mut Index, image: &ImagePlace, what: Added, change: &EntryChange) -> Result<()> {
        let wanted = match what {
            Added::All => None,
            Added::One => Some(change.wanted()),
        };
        let fetched = fetch(self.store, self.client, image, wanted.as_ref(), MirrorLayers::Noted)?;
        let new = match is_index(&fetched.media_type) {
            true => self.read(&fetched)?.manifests,
            // What was written about it where it came from does not come along.
            false => vec![Descriptor::new(fetched.media_type, fetched.digest, fetched.size)],
        };
        for mut entry in new {
            if !is_index(&entry.media_type) {
                self.complete(&mut entry)?;
            }
            apply(&mut entry, change)?;
            insert(index, entry);
        }
        Ok(())
    }

    /// Says of an entry what its manifest and config say: the platform of an image, the kind of an artifact.
    fn complete(&self, entry: &mut Descriptor) -> Result<()> {
        let damaged = |error: &dyn std::error::Error| Error::from_source(ErrorKind::Store, error);
        let bytes = self.store.read_blob(&entry.digest, MANIFEST_LIMIT).map_err(|e| store_error(&e))?;
        let manifest = Manifest::parse(&bytes).map_err(|error| damaged(&error))?;
        if manifest.is_artifact() && entry.artifact_type.is_none() {
            entry.artifact_type = manifest.artifact_type;
        }
        if entry.platform.is_some() || entry.is_artifact() {
            return Ok(());
        }
        let config = self.store.read_blob(&manifest.config.digest, CONFIG_LIMIT).map_err(|e| store_error(&e))?;
        if let Ok(config) = ImageConfig::parse(&config) {
            entry.platform = Some(config.platform().normalized()).filter(|platform| !platform.os.is_empty());
        }
        Ok(())
    }

    /// What a document is about: a manifest that the index names, else an image elsewhere.
    fn subject(&self, index: &Index, place: &ImagePlace) -> Result<Descriptor> {
        let wanted = match place {
            ImagePlace::Store(name) => name.parse::<Digest>().ok(),
            _ => None,
        };
        let entry = wanted.and_then(|digest| index.manifests.iter().find(|entry| entry.digest == digest));
        let found = match entry {
            Some(entry) => entry.clone(),
            None => describe(self.store, self.client, place)?,
        };
        Ok(Descriptor::new(found.media_type, found.digest, found.size))
    }
}

impl EntryChange {
    /// The platform of the image to add: what is said of it, else this machine's.
    fn wanted(&self) -> Platform {
        let host = Platform::host();
        let os = self.os.as_deref().unwrap_or(&host.os);
        Platform::new(os, self.architecture.as_deref().unwrap_or(&host.architecture), self.variant.as_deref())
    }
}
