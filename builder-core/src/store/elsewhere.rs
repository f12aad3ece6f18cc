//! Blobs that images of the store name and that only registries have: layers that nobody has read yet.
//!
//! ```text
//! elsewhere/<hex>      [{"repository":"registry.example/team/app","size":N},…]
//! ```
//!
//! A note is written before the image gets its name, and flushed with the image's blobs, because nothing could make it
//! again; one that is there is replaced by a flushed one only, as other images may need it. It goes with the
//! last image that names the blob; the blob may have come meanwhile, and then the note still says where it can be mounted
//! from. Two writers at once: the last one counts, and what either says is true.
//!
//! Whoever opened the store says how a noted blob is fetched ([`Store::fetch_with`]); from then on it is brought like
//! anything promised. Without that, opening one is an error that names the repositories.

use std::collections::HashSet;
use std::fmt;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

use serde::{Deserialize, Serialize};

use super::Store;
use super::blob::sync_dir;
use super::error::{Error, Result};
use super::promise::{Cause, Tell};
use super::session::Pin;
use crate::digest::Digest;

/// A place that had a blob when this was noted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Elsewhere {
    /// The repository, `registry/path`.
    pub(crate) repository: String,
    /// The size of the blob in bytes, as a manifest there says; one that lies must not spoil what others say.
    pub(crate) size: u64,
}

/// Puts a blob that is noted to be in these places into the store.
pub(crate) type Fetch =
    Arc<dyn Fn(&Store, &Digest, &[Elsewhere], Tell<'_>) -> std::result::Result<(), Cause> + Send + Sync>;

/// What an open store knows about notes.
#[derive(Default)]
pub(super) struct Notes {
    /// How noted blobs are fetched, once somebody has said so.
    fetch: OnceLock<Fetch>,
    /// Notes that an image may need and that may not be on the disk yet.
    unsynced: Mutex<HashSet<Digest>>,
}

impl fmt::Debug for Notes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Notes").field("can_fetch", &self.fetch.get().is_some()).finish_non_exhaustive()
    }
}

impl Notes {
    fn unsynced(&self) -> MutexGuard<'_, HashSet<Digest>> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Store {
    /// Says how noted blobs are fetched. The first to say so counts.
    pub(crate) fn fetch_with(&self, fetch: Fetch) {
        self.notes().fetch.get_or_init(|| fetch);
    }

    /// Notes that `repositories` have a blob of `size` bytes, besides those that are noted already. The note survives a
    /// crash of the machine after the next [`Store::sync`].
    pub(crate) fn note_elsewhere(&self, digest: &Digest, size: u64, repositories: &[String]) -> Result<()> {
        self.session().pin(Pin::Blob(*digest))?;
        let known = self.elsewhere(digest)?;
        let mut noted = known.clone();
        for repository in repositories {
            let place = Elsewhere { repository: repository.clone(), size };
            if !noted.contains(&place) {
                noted.push(place);
            }
        }
        if noted.is_empty() {
            return Ok(());
        }
        // Also one that is there as it should be: whoever wrote it may not have flushed it yet.
        self.notes().unsynced().insert(*digest);
        if known == noted {
            return Ok(());
        }
        let path = self.elsewhere_path(digest);
        let bytes = serde_json::to_vec(&noted).map_err(|source| Error::Json { path: path.clone(), source })?;
        let temp = self.temp_path();
        let write = |mut file: File| {
            file.write_all(&bytes)?;
            if known.is_empty() { Ok(()) } else { file.sync_data() }
        };
        File::create_new(&temp).and_then(write).map_err(Error::io("write", &temp))?;
        fs::rename(&temp, &path).map_err(Error::io("move into place", &path))
    }

    /// Flushes the notes that this store has written or found.
    pub(super) fn sync_notes(&self) -> Result<()> {
        let mut unsynced = self.notes().unsynced();
        for digest in unsynced.iter() {
            let path = self.elsewhere_path(digest);
            match File::open(&path).and_then(|file| file.sync_data()) {
                Err(e) if e.kind() != io::ErrorKind::NotFound => return Err(Error::io("flush", path)(e)),
                _ => {}
            }
        }
        if !unsynced.is_empty() {
            sync_dir(&self.path().join("elsewhere"))?;
        }
        unsynced.clear();
        Ok(())
    }

    /// Where a blob is, be it here as well or not, the first noted first. What does not parse is no note.
    pub(crate) fn elsewhere(&self, digest: &Digest) -> Result<Vec<Elsewhere>> {
        let path = self.elsewhere_path(digest);
        match fs::read(&path) {
            Ok(bytes) => Ok(serde_json::from_slice(&bytes).unwrap_or_default()),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
            Err(e) => Err(Error::io("read", path)(e)),
        }
    }

    /// Fetches a blob that is noted. Returns whether it is.
    pub(crate) fn bring_from_elsewhere(&self, digest: &Digest, tell: Tell<'_>) -> Result<bool> {
        self.session().pin(Pin::Blob(*digest))?;
        let noted = self.elsewhere(digest)?;
        if noted.is_empty() {
            return Ok(false);
        }
        match self.notes().fetch.get() {
            Some(fetch) => {
                fetch(self, digest, &noted, tell).map_err(|source| Error::Promise { digest: *digest, source })?;
                Ok(true)
            }
            None => {
                let repositories = noted.into_iter().map(|place| place.repository).collect();
                Err(Error::NotFetched { digest: *digest, repositories })
            }
        }
    }

    fn elsewhere_path(&self, digest: &Digest) -> PathBuf {
        self.path().join("elsewhere").join(digest.hex())
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{new_store, other};
    use super::super::{Descriptor, PruneOptions, PruneScope};
    use super::*;

    const DANGLING: PruneOptions = PruneOptions { scope: PruneScope::Dangling, keep_used_since: None };

    #[test]
    fn a_noted_blob_is_fetched_by_whoever_opens_it_in_any_process() {
        let (_dir, store) = new_store();
        let digest = Digest::of(b"x");
        store.note_elsewhere(&digest, 1, &["a/b".to_owned()]).unwrap();
        store.note_elsewhere(&digest, 1, &["c/d".to_owned(), "a/b".to_owned()]).unwrap();
        // Who lies about the size takes nothing away.
        store.note_elsewhere(&digest, 7, &["e/f".to_owned()]).unwrap();
        assert!(!store.has_blob(&digest).unwrap(), "noted is not there");
        let later = other(&store);
        let noted = [("a/b", 1), ("c/d", 1), ("e/f", 7)]
            .map(|(repository, size)| Elsewhere { repository: repository.to_owned(), size });
        assert_eq!(later.elsewhere(&digest).unwrap(), noted);
        let error = later.open_blob(&digest).unwrap_err().to_string();
        assert!(error.contains("a/b, c/d, e/f"), "{error}");
        later.fetch_with(Arc::new(move |store, _, found, _| {
            assert_eq!(found, noted);
            Ok(store.put_blob(b"x").map(drop)?)
        }));
        assert_eq!(later.read_blob(&digest, 9).unwrap(), b"x");
        assert!(store.has_blob(&digest).unwrap());
    }

    #[test]
    fn a_note_goes_with_the_last_image_that_names_the_blob() {
        let (_dir, store) = new_store();
        let blob = Digest::of(b"x");
        let config = store.put_blob(b"{}").unwrap();
        let manifest = format!(
            r#"{{"config":{{"mediaType":"c","digest":"{config}","size":2}},"layers":[{{"mediaType":"l","digest":"{blob}","size":1}}]}}"#
        );
        let digest = store.put_blob(manifest.as_bytes()).unwrap();
        store.note_elsewhere(&blob, 1, &["a/b".to_owned()]).unwrap();
        store.prune(DANGLING).unwrap();
        assert!(!store.elsewhere(&blob).unwrap().is_empty(), "a session has written it");
        store.tag_image("app", &Descriptor::new("m", digest, manifest.len() as u64)).unwrap();
        store.release().unwrap();
        store.prune(DANGLING).unwrap();
        assert!(!store.elsewhere(&blob).unwrap().is_empty(), "an image names the blob");
        store.untag_image("app").unwrap();
        store.release().unwrap();
        store.prune(DANGLING).unwrap();
        assert_eq!(store.elsewhere(&blob).unwrap(), []);
    }
}
