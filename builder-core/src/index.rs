//! Indexes of the store that are put together by hand: images of several platforms, built one by one, under one name.
//!
//! An index names what is in the store: whatever is added is fetched first. Its manifests stay as they are, byte for
//! byte. Two changes of one index at once follow each other; a change is done as a whole or not at all. Needs no build
//! process.
//!
//! Rules: image-spec `image-index.md`.

use std::ops::ControlFlow;

use crate::copy::fetch;
use crate::digest::{CacheKey, Digest};
use crate::distribute::reference;
use crate::error::{Error, ErrorKind, Result};
use crate::image::{
    CONFIG_LIMIT, Descriptor, ImageConfig, Index, MANIFEST_LIMIT, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST,
    MEDIA_TYPE_INDEX, Manifest, Platform, is_index,
};
use crate::registry::Client;
use crate::request::{Added, EntryChange, IfIndexExists, ImagePlace, IndexChange};
use crate::store::{StepLock, Store};
use crate::worker::MirrorLayers;

/// Annotation of an attestation: the manifest that it is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

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
        let fetched = fetch(self.store, self.client, image, wanted.as_ref(), MirrorLayers::Fetched)?;
        let new = match is_index(&fetched.media_type) {
            true => self.read(&fetched)?.manifests,
            // What was written about it where it came from does not come along.
            false => vec![Descriptor::new(fetched.media_type, fetched.digest, fetched.size)],
        };
        for mut entry in new {
            if entry.platform.is_none() && !is_index(&entry.media_type) {
                entry.platform = self.platform(&entry)?;
            }
            apply(&mut entry, change)?;
            insert(index, entry);
        }
        Ok(())
    }

    /// What the config says; artifacts have no platform.
    fn platform(&self, entry: &Descriptor) -> Result<Option<Platform>> {
        let damaged = |error: &dyn std::error::Error| Error::from_source(ErrorKind::Store, error);
        let bytes = self.store.read_blob(&entry.digest, MANIFEST_LIMIT).map_err(|e| store_error(&e))?;
        let manifest = Manifest::parse(&bytes).map_err(|error| damaged(&error))?;
        let config = self.store.read_blob(&manifest.config.digest, CONFIG_LIMIT).map_err(|e| store_error(&e))?;
        let Ok(config) = ImageConfig::parse(&config) else { return Ok(None) };
        Ok(Some(config.platform().normalized()).filter(|platform| !platform.os.is_empty()))
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

fn apply(entry: &mut Descriptor, change: &EntryChange) -> Result<()> {
    let EntryChange { os, architecture, variant, os_version, os_features, annotations } = change;
    let mut platform = entry.platform.clone().unwrap_or_default();
    if let Some(os) = os {
        platform.os.clone_from(os);
    }
    if let Some(architecture) = architecture {
        platform.architecture.clone_from(architecture);
    }
    // The variant of another processor says nothing about this one.
    let is_other = |old: &Platform| old.normalized().architecture != platform.normalized().architecture;
    if variant.is_some() || entry.platform.as_ref().is_some_and(is_other) {
        platform.variant.clone_from(variant);
    }
    if os_version.is_some() {
        platform.os_version.clone_from(os_version);
    }
    if !os_features.is_empty() {
        platform.os_features.clone_from(os_features);
    }
    if platform != entry.platform.clone().unwrap_or_default() {
        if platform.os.is_empty() || platform.architecture.is_empty() {
            return Err(request("a platform needs an operating system and an architecture").hint("say --os and --arch"));
        }
        entry.platform = Some(platform.normalized());
    }
    entry.annotations.extend(annotations.iter().cloned());
    Ok(())
}

/// Whether an entry is an attestation about the manifest `digest`.
fn is_about(entry: &Descriptor, digest: &Digest) -> bool {
    entry.annotations.get(ATTESTED).is_some_and(|about| *about == digest.to_string())
}

/// Puts `entry` in the place of the same manifest, or of one for the same platform that annotations do not tell apart;
/// what was attested about that one goes.
fn insert(index: &mut Index, entry: Descriptor) {
    let replaced = |known: &Descriptor| {
        known.digest == entry.digest
            || (known.platform.is_some()
                && known.platform == entry.platform
                && known.annotations == entry.annotations
                && !known.is_attestation())
    };
    let Some(place) = index.manifests.iter().position(replaced) else { return index.manifests.push(entry) };
    let old = std::mem::replace(&mut index.manifests[place], entry).digest;
    let now = index.manifests[place].digest;
    if old != now {
        index.manifests.retain(|known| !is_about(known, &old));
    }
}

/// Docker's own type where all are Docker's and nothing needs more.
fn media_type(index: &Index) -> &'static str {
    let docker = |entry: &Descriptor| entry.media_type == MEDIA_TYPE_DOCKER_MANIFEST && entry.annotations.is_empty();
    let all = !index.manifests.is_empty() && index.manifests.iter().all(docker) && index.annotations.is_empty();
    if all { MEDIA_TYPE_DOCKER_LIST } else { MEDIA_TYPE_INDEX }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: u8, platform: Option<&str>) -> Descriptor {
        let platform = platform.map(|text| text.parse().unwrap());
        Descriptor { platform, ..Descriptor::new(MEDIA_TYPE_DOCKER_MANIFEST, Digest::of(&[number]), 1) }
    }

    #[test]
    fn a_newer_image_takes_the_place_of_the_one_for_its_platform() {
        let mut index = Index::default();
        insert(&mut index, entry(1, Some("linux/amd64")));
        insert(&mut index, entry(2, Some("linux/arm64")));
        let attestation = |number: u8, about: u8| {
            let mut attestation = entry(number, Some("unknown/unknown"));
            attestation.annotations.insert(ATTESTED.to_owned(), Digest::of(&[about]).to_string());
            attestation
        };
        insert(&mut index, attestation(11, 1));
        insert(&mut index, attestation(12, 2));
        insert(&mut index, entry(3, Some("linux/amd64")));
        let digests: Vec<_> = index.manifests.iter().map(|entry| entry.digest).collect();
        assert_eq!(digests, [3, 2, 12].map(|number| Digest::of(&[number])));
        let mut told_apart = entry(4, Some("linux/amd64"));
        told_apart.annotations.insert("compression".to_owned(), "zstd".to_owned());
        insert(&mut index, told_apart);
        insert(&mut index, entry(5, None));
        insert(&mut index, entry(6, None));
        assert_eq!(index.manifests.len(), 6, "annotations, or no platform, tell images apart");
    }

    #[test]
    fn what_is_said_about_an_entry() {
        let mut changed = entry(1, Some("linux/arm/v7"));
        let change = EntryChange { architecture: Some("aarch64".to_owned()), ..EntryChange::default() };
        apply(&mut changed, &change).unwrap();
        assert_eq!(changed.platform.unwrap().to_string(), "linux/arm64", "the variant was that of arm");
        let mut same = entry(1, Some("linux/arm/v6"));
        apply(&mut same, &EntryChange { architecture: Some("arm".to_owned()), ..EntryChange::default() }).unwrap();
        assert_eq!(same.platform.unwrap().to_string(), "linux/arm/v6", "it was chosen by that");
        let mut artifact = entry(1, None);
        apply(&mut artifact, &EntryChange::default()).unwrap();
        assert_eq!(artifact.platform, None);
        assert!(apply(&mut artifact, &change).is_err(), "it needs an operating system, too");
        let os = EntryChange { os: Some("linux".to_owned()), ..change };
        apply(&mut artifact, &os).unwrap();
        assert_eq!(artifact.platform.unwrap().to_string(), "linux/arm64");
    }

    #[test]
    fn a_list_of_dockers_images_is_dockers() {
        let mut index = Index { manifests: vec![entry(1, None)], ..Index::default() };
        assert_eq!(media_type(&index), MEDIA_TYPE_DOCKER_LIST);
        index.annotations.insert("a".to_owned(), "b".to_owned());
        assert_eq!(media_type(&index), MEDIA_TYPE_INDEX);
        assert_eq!(media_type(&Index::default()), MEDIA_TYPE_INDEX);
    }
}
