//! What an index says about each of its manifests, and which of them take the place of others. Pure.

use super::request;
use crate::digest::Digest;
use crate::error::Result;
use crate::image::{Descriptor, Index, MEDIA_TYPE_DOCKER_LIST, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX, Platform};
use crate::request::EntryChange;

/// Annotation of an attestation: the manifest that it is about.
const ATTESTED: &str = "vnd.docker.reference.digest";

/// Lets an entry say what `change` says.
pub(super) fn apply(entry: &mut Descriptor, change: &EntryChange) -> Result<()> {
    let EntryChange { os, architecture, variant, os_version, os_features, features, annotations } = change;
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
    if !features.is_empty() {
        platform.features.clone_from(features);
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
pub(super) fn is_about(entry: &Descriptor, digest: &Digest) -> bool {
    entry.annotations.get(ATTESTED).is_some_and(|about| *about == digest.to_string())
}

/// Puts `entry` in the place of the same manifest, or of an image for the same platform that annotations do not tell
/// apart; what was attested about that one goes. An artifact takes the place of the same artifact alone.
pub(super) fn insert(index: &mut Index, entry: Descriptor) {
    let replaced = |known: &Descriptor| {
        known.digest == entry.digest
            || (known.platform.is_some()
                && !entry.is_artifact()
                && !known.is_artifact()
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
pub(super) fn media_type(index: &Index) -> &'static str {
    let docker = |entry: &Descriptor| entry.media_type == MEDIA_TYPE_DOCKER_MANIFEST && entry.annotations.is_empty();
    let all = !index.manifests.is_empty() && index.manifests.iter().all(docker);
    let all = all && index.annotations.is_empty() && index.subject.is_none() && index.artifact_type.is_none();
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
        index.annotations.clear();
        index.subject = Some(entry(2, None));
        assert_eq!(media_type(&index), MEDIA_TYPE_INDEX, "Docker's have no subject");
        assert_eq!(media_type(&Index::default()), MEDIA_TYPE_INDEX);
    }
}
