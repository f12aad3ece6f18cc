//! Manifests that are about another one, at registries that do not list them by themselves.
//!
//! Such a registry has a tag named by the digest of the subject, an index that every client adds its own to
//! (distribution-spec, "Referrers Tag Schema"). Two clients that do so at once may lose one of the two; the spec has no way
//! around that.

use crate::digest::Digest;
use crate::image::{Descriptor, Index, MANIFEST_LIMIT, MEDIA_TYPE_INDEX, Manifest, is_index};
use crate::registry::{self, Client, Reference};

/// A manifest or an index as it is listed for its subject.
pub(super) struct Referrer {
    /// What it is about.
    pub(super) subject: Digest,
    entry: Descriptor,
}

impl Referrer {
    /// A manifest that says what it is about.
    pub(super) fn of_manifest(manifest: &Manifest, descriptor: &Descriptor) -> Option<Self> {
        // "set to the value of the artifactType, else to the config's media type" (the same, "Listing Referrers").
        let kind = manifest.artifact_type.as_ref().unwrap_or(&manifest.config.media_type);
        let subject = manifest.subject.as_ref()?.digest;
        Some(Self::new(subject, descriptor, Some(kind.clone()), &manifest.annotations))
    }

    /// An index that says what it is about.
    pub(super) fn of_index(index: &Index, descriptor: &Descriptor) -> Option<Self> {
        let subject = index.subject.as_ref()?.digest;
        Some(Self::new(subject, descriptor, index.artifact_type.clone(), &index.annotations))
    }

    fn new(
        subject: Digest,
        descriptor: &Descriptor,
        artifact_type: Option<String>,
        annotations: &std::collections::BTreeMap<String, String>,
    ) -> Self {
        let entry = Descriptor::new(descriptor.media_type.clone(), descriptor.digest, descriptor.size);
        Self { subject, entry: Descriptor { artifact_type, annotations: annotations.clone(), ..entry } }
    }

    /// Lists it in the repository of `target`. What is listed already stays.
    pub(super) fn list(&self, client: &Client, target: &Reference) -> Result<(), registry::Error> {
        let tag = target.with_tag(format!("sha256-{}", self.subject.hex()));
        let problem =
            |problem: String| registry::Error::Protocol { subject: format!("list of referrers {tag}"), problem };
        let mut index = match client.manifest_to_change(&tag) {
            Ok(found) if is_index(&found.media_type) => {
                Index::parse(&found.bytes).map_err(|error| problem(error.to_string()))?
            }
            Ok(found) => return Err(problem(format!("it is no index but {}", found.media_type))),
            Err(registry::Error::NotFound { .. }) => Index::default(),
            Err(error) => return Err(error),
        };
        if index.manifests.iter().any(|known| known.digest == self.entry.digest) {
            return Ok(());
        }
        index.manifests.push(self.entry.clone());
        index.media_type = Some(MEDIA_TYPE_INDEX.to_owned());
        let bytes = index.to_canonical_json();
        if bytes.len() as u64 > MANIFEST_LIMIT {
            return Err(problem("it is full".to_owned()));
        }
        client.push_manifest(&tag, MEDIA_TYPE_INDEX, &bytes).map(drop)
    }
}
