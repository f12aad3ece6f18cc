//! The state directory: blobs, trees, unpacked layers, step records and images, shared by any number of processes.
//!
//! ```text
//! oci-layout  index.json  blobs/sha256/<hex>   an OCI image layout: every image by its full name
//! elsewhere/<hex>                              where a blob is that an image names and nobody has read yet
//! trees/<hex of diff-id>                       table of contents of each known layer
//! unpacked/<key>/  unpacked/<key>.lock         a layer unpacked as overlay lowerdir; its lock, which also carries
//!                                              the time of last use and the boot in which it was unpacked
//! records/<cache key>                          result of a step, with the parts of its key
//! mounts/<key>/  mounts/<key>.lock             cache mounts
//! stat-cache/<key>                             digests of context files by what stat says about them
//! locks/  tmp/<session>/                       see `lock` and `session`
//! ```
//!
//! What it does: keeps things by name, atomically, and takes them away again when nobody needs them. What it does not:
//! know what a layer, a step or an image means beyond which blobs they reach.
//!
//! Invariants. A name in place is complete: everything is made in `tmp/` and renamed. What a build has used stays until
//! its store is closed (`session`). What can be made again (trees, records, unpacked layers) is never flushed to the
//! disk but recognised when it is not whole; blobs are flushed once at the end, or verified after a crash (`recover`).
//! Everything may be deleted by hand while no build runs. Other tools may read the layout at any time; what they write
//! into it is safe once `index.json` names it.
//!
//! Layout rules: image-spec `image-layout.md`.

mod blob;
mod builds;
mod elsewhere;
mod error;
mod gc;
mod images;
mod lock;
pub(crate) mod oci;
mod promise;
mod record;
mod recover;
mod remove;
mod session;
mod unpacked;
mod usage;

#[cfg(test)]
mod tests;

pub(crate) use blob::RawBlobWriter;
pub(crate) use elsewhere::Elsewhere;
pub(crate) use error::{Error, Result};
pub(crate) use gc::{PruneOptions, PruneScope};
pub(crate) use images::StoredImage;
pub(crate) use lock::FileLock;
pub(crate) use oci::{Descriptor, Index, LayerDescriptor};
pub(crate) use promise::{Cause, Tell};
pub(crate) use record::{Record, StepLock};
pub(crate) use remove::{Removed, remove_tree};
pub(crate) use unpacked::{CacheDir, NewCacheDir, UnpackDir, Unpacking};

use std::collections::HashMap;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, Weak};

use crate::digest::{DiffId, Digest};
use crate::tree::LayerTree;
use session::{Pin, Session};

/// Content of the file that makes a directory an OCI layout.
pub(crate) const OCI_LAYOUT: &str = r#"{"imageLayoutVersion":"1.0.0"}"#;
const DIRECTORIES: [&str; 11] = [
    "blobs",
    "blobs/sha256",
    "elsewhere",
    "trees",
    "unpacked",
    "records",
    "builds",
    "mounts",
    "stat-cache",
    "locks",
    "tmp",
];

/// An open state directory. Cheap to clone; the session ends with the last clone.
#[derive(Debug, Clone)]
pub(crate) struct Store(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    session: Arc<Session>,
    /// Blobs that this session must flush before it calls an image stored.
    unsynced: Mutex<Vec<Digest>>,
    /// Trees that someone holds anyway.
    trees: Mutex<HashMap<DiffId, Weak<LayerTree>>>,
    promises: promise::Promises,
    notes: elsewhere::Notes,
}

impl Store {
    /// Opens the state directory `dir`, made when missing, and removes what dead processes left in it.
    ///
    /// Fails when `dir` is neither empty nor an OCI layout of version 1.0.0.
    pub(crate) fn open(dir: &Path) -> Result<Self> {
        let builder = |path: &Path| DirBuilder::new().mode(0o700).recursive(true).create(path);
        builder(dir).map_err(Error::io("make state directory", dir))?;
        let dir = fs::canonicalize(dir).map_err(Error::io("find state directory", dir))?;
        ensure_layout_file(&dir)?;
        for name in DIRECTORIES {
            let path = dir.join(name);
            builder(&path).map_err(Error::io("make directory", path))?;
        }
        let session = Arc::new(Session::start(&dir)?);
        let store = Self(Arc::new(Inner {
            session,
            unsynced: Mutex::default(),
            trees: Mutex::default(),
            promises: promise::Promises::default(),
            notes: elsewhere::Notes::default(),
        }));
        store.ensure_index()?;
        store.recover()?;
        store.session().sweep()?;
        Ok(store)
    }

    /// The state directory, absolute.
    pub(crate) fn path(&self) -> &Path {
        self.session().root()
    }

    fn promises(&self) -> &promise::Promises {
        &self.0.promises
    }

    fn notes(&self) -> &elsewhere::Notes {
        &self.0.notes
    }

    fn session(&self) -> &Arc<Session> {
        &self.0.session
    }

    fn blobs_dir(&self) -> PathBuf {
        self.path().join("blobs/sha256")
    }

    /// Lets gc have whatever this store used so far. To be called between builds, or before [`Store::enforce_limit`]
    /// at the end of one, by a caller that needs nothing of it any more.
    pub(crate) fn release(&self) -> Result<()> {
        self.sync()?;
        self.session().unpin_all()
    }

    /// Makes a directory for work in progress. It goes when dropped, or with the next start after a crash.
    pub(crate) fn work_dir(&self) -> Result<WorkDir> {
        let path = self.session().fresh_path("work");
        DirBuilder::new().mode(0o700).create(&path).map_err(Error::io("make work directory", &path))?;
        Ok(WorkDir { path, _session: self.session().clone() })
    }

    /// The tree of a layer, if it is there and whole. From then on it stays as long as this store is open.
    pub(crate) fn tree(&self, id: &DiffId) -> Result<Option<Arc<LayerTree>>> {
        if let Some(tree) = self.trees().get(id).and_then(Weak::upgrade) {
            return Ok(Some(tree));
        }
        self.session().pin(Pin::Tree(*id))?;
        let path = self.tree_path(id);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read tree", path)(e)),
        };
        // A tree of another version, or half of one after a crash, is made again from the layer.
        let tree = LayerTree::decode(&bytes).ok().map(Arc::new);
        if let Some(tree) = &tree {
            self.trees().insert(*id, Arc::downgrade(tree));
        }
        Ok(tree)
    }

    /// Stores the tree of a layer, in place of one that is there.
    pub(crate) fn put_tree(&self, id: &DiffId, tree: &LayerTree) -> Result<()> {
        self.session().pin(Pin::Tree(*id))?;
        let mut bytes = Vec::new();
        let path = self.tree_path(id);
        tree.encode(&mut bytes).map_err(Error::io("encode tree", &path))?;
        self.write_in_place(&path, &bytes)
    }

    fn tree_path(&self, id: &DiffId) -> PathBuf {
        self.path().join("trees").join(id.0.hex())
    }

    fn trees(&self) -> std::sync::MutexGuard<'_, HashMap<DiffId, Weak<LayerTree>>> {
        self.0.trees.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Path of a stat cache. Its content, and replacing it by rename, are the caller's business; gc may remove it
    /// at any time.
    pub(crate) fn stat_cache_path(&self, key: &str) -> Result<PathBuf> {
        Ok(self.path().join("stat-cache").join(plain_key(key)?))
    }

    /// Path of a file for work in progress, not yet made, on the file system of the store.
    pub(crate) fn temp_path(&self) -> PathBuf {
        self.session().fresh_path("file")
    }

    /// Replaces `path` by a file with `bytes`; atomic for readers, not flushed.
    fn write_in_place(&self, path: &Path, bytes: &[u8]) -> Result<()> {
        let temp = self.temp_path();
        fs::write(&temp, bytes).map_err(Error::io("write", &temp))?;
        fs::rename(&temp, path).map_err(Error::io("move into place", path))
    }
}

/// A directory for work in progress, removed with all that is in it when dropped.
#[derive(Debug)]
pub(crate) struct WorkDir {
    path: PathBuf,
    /// Its lock is what tells other processes that the directory is in use.
    _session: Arc<Session>,
}

impl WorkDir {
    /// The directory; empty at first, mode 0700.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for WorkDir {
    fn drop(&mut self) {
        remove_tree(&self.path);
    }
}

/// Refuses a key that is not a plain file name: it may come from elsewhere, and paths are made from it.
fn plain_key(key: &str) -> Result<&str> {
    let plain = !key.is_empty() && key.len() <= 200 && key.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    if plain { Ok(key) } else { Err(Error::InvalidKey { key: key.to_owned() }) }
}

/// Checks or writes `oci-layout`. Writing is idempotent, so two processes may do it at once.
fn ensure_layout_file(dir: &Path) -> Result<()> {
    #[derive(serde::Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct LayoutFile {
        image_layout_version: String,
    }

    let path = dir.join("oci-layout");
    let text = match fs::read(&path) {
        Ok(text) => text,
        Err(e) if e.kind() == io::ErrorKind::NotFound => Vec::new(),
        Err(e) => return Err(Error::io("read", path)(e)),
    };
    if !text.is_empty() {
        let file: LayoutFile =
            serde_json::from_slice(&text).map_err(|source| Error::Json { path: path.clone(), source })?;
        return if file.image_layout_version == "1.0.0" {
            Ok(())
        } else {
            Err(Error::LayoutVersion { path, found: file.image_layout_version })
        };
    }
    let ours = |name: &std::ffi::OsStr| name == "oci-layout" || name == "index.json" || name == "lost+found";
    let mut entries = fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten();
    if entries.any(|entry| !ours(&entry.file_name()) && !DIRECTORIES.iter().any(|name| entry.file_name() == *name)) {
        return Err(Error::NotAStateDirectory { path: dir.to_owned() });
    }
    let file = fs::File::options().write(true).create(true).truncate(false).open(&path);
    file.and_then(|mut file| file.write_all(OCI_LAYOUT.as_bytes())).map_err(Error::io("write", path))
}
