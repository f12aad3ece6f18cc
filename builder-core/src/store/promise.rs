//! What the store lacks but knows how to get: blobs and trees of layers that another place has.
//!
//! A promise lives as long as the open store and is never written down; what is to be kept in later processes is noted
//! as well ([`super::elsewhere`]). [`Store::open_blob`] keeps it when somebody wants
//! the bytes, so whoever reads a layer need not know whether it is there; [`Store::blob_size`] and [`Store::record`] speak
//! of what is there alone. A promised tree stands in for the one that reading the layer gives until the blob comes; then
//! whoever brings it holds the two against each other.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Store;
use super::error::{Error, Result};
use crate::digest::{CacheKey, DiffId, Digest};
use crate::tree::LayerTree;

/// Why a promise was not kept.
pub(crate) type Cause = Box<dyn std::error::Error + Send + Sync>;
/// Is told how many bytes have come.
pub(crate) type Tell<'a> = &'a (dyn Fn(u64) + Sync);
/// Puts the promised blob into the store.
pub(crate) type Bring = Box<dyn Fn(&Store, Tell<'_>) -> std::result::Result<(), Cause> + Send + Sync>;
/// Gets the promised tree.
pub(crate) type ReadTree = Box<dyn Fn() -> std::result::Result<LayerTree, Cause> + Send + Sync>;

/// All promises of an open store.
#[derive(Default)]
pub(super) struct Promises {
    blobs: Mutex<HashMap<Digest, Arc<PromisedBlob>>>,
    trees: Mutex<HashMap<DiffId, Arc<PromisedTree>>>,
}

struct PromisedBlob {
    /// The variant of its layer that it is known to be.
    variant: Option<CacheKey>,
    bring: Bring,
    /// Held while it is on its way.
    busy: Mutex<()>,
}

struct PromisedTree {
    read: ReadTree,
    state: Mutex<TreeState>,
}

enum TreeState {
    Unread,
    Read(Arc<LayerTree>),
    /// The layer itself is there.
    Over,
}

impl fmt::Debug for Promises {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Promises").field("blobs", &lock(&self.blobs).len()).finish_non_exhaustive()
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Store {
    /// Promises a blob. `variant` is the key under which the codec and level of such a layer are recorded. The first
    /// promise of a blob counts.
    pub(crate) fn promise_blob(&self, digest: Digest, variant: Option<CacheKey>, bring: Bring) {
        let promise = || Arc::new(PromisedBlob { variant, bring, busy: Mutex::default() });
        lock(&self.promises().blobs).entry(digest).or_insert_with(promise);
    }

    /// Promises the tree of a layer. The first promise of a tree counts.
    pub(crate) fn promise_tree(&self, id: DiffId, read: ReadTree) {
        let promise = || Arc::new(PromisedTree { read, state: Mutex::new(TreeState::Unread) });
        lock(&self.promises().trees).entry(id).or_insert_with(promise);
    }

    /// Whether the blob is promised or noted to be elsewhere, be it there or not.
    pub(crate) fn is_promised(&self, digest: &Digest) -> Result<bool> {
        let is_promised = lock(&self.promises().blobs).contains_key(digest);
        Ok(is_promised || !self.elsewhere(digest)?.is_empty())
    }

    /// Which variant of its layer a promised blob is.
    pub(crate) fn promised_variant(&self, digest: &Digest) -> Option<CacheKey> {
        lock(&self.promises().blobs).get(digest)?.variant
    }

    /// Makes sure that a blob is there that is promised or noted to be elsewhere. Returns whether it is.
    pub(crate) fn bring_blob(&self, digest: &Digest, tell: Tell<'_>) -> Result<bool> {
        let promise = lock(&self.promises().blobs).get(digest).cloned();
        let Some(promise) = promise else {
            return Ok(self.has_blob(digest)? || (self.bring_from_elsewhere(digest, tell)? && self.has_blob(digest)?));
        };
        let _busy = lock(&promise.busy);
        if self.has_blob(digest)? {
            return Ok(true);
        }
        (promise.bring)(self, tell).map_err(|source| Error::Promise { digest: *digest, source })?;
        self.has_blob(digest)
    }

    /// The promised tree of a layer whose blob `digest` is not there.
    pub(crate) fn promised_tree(&self, id: &DiffId, digest: &Digest) -> Result<Option<Arc<LayerTree>>> {
        let promise = lock(&self.promises().trees).get(id).cloned();
        let Some(promise) = promise else { return Ok(None) };
        if self.has_blob(digest)? {
            return Ok(None);
        }
        let mut state = lock(&promise.state);
        match &*state {
            TreeState::Over => Ok(None),
            TreeState::Read(tree) => Ok(Some(tree.clone())),
            TreeState::Unread => {
                let read = (promise.read)().map_err(|source| Error::Promise { digest: *digest, source })?;
                let tree = Arc::new(read);
                *state = TreeState::Read(tree.clone());
                Ok(Some(tree))
            }
        }
    }

    /// Ends the promise of a tree, because the layer has come. Returns the tree that somebody may have used.
    pub(crate) fn end_promised_tree(&self, id: &DiffId) -> Option<Arc<LayerTree>> {
        let promise = lock(&self.promises().trees).remove(id)?;
        match std::mem::replace(&mut *lock(&promise.state), TreeState::Over) {
            TreeState::Read(tree) => Some(tree),
            TreeState::Unread | TreeState::Over => None,
        }
    }

    /// Forgets every promise: what was not brought is not there.
    pub(crate) fn forget_promises(&self) {
        lock(&self.promises().blobs).clear();
        lock(&self.promises().trees).clear();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn store() -> (tempfile::TempDir, Store) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(dir.path()).unwrap();
        (dir, store)
    }

    #[test]
    fn a_promised_blob_is_brought_once_by_whoever_opens_it() {
        static BROUGHT: AtomicUsize = AtomicUsize::new(0);
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        store.promise_blob(
            digest,
            None,
            Box::new(|store, _| {
                BROUGHT.fetch_add(1, Ordering::SeqCst);
                Ok(store.put_blob(b"x").map(drop)?)
            }),
        );
        assert!(!store.has_blob(&digest).unwrap(), "promised is not there");
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| assert_eq!(store.read_blob(&digest, 9).unwrap(), b"x"));
            }
        });
        assert_eq!(BROUGHT.load(Ordering::SeqCst), 1);
    }

    #[test]
    fn a_promise_that_is_not_kept_is_an_error_with_its_cause() {
        let (_dir, store) = store();
        let digest = Digest::of(b"x");
        store.promise_blob(digest, None, Box::new(|_, _| Err("the dog ate it".into())));
        let error = store.open_blob(&digest).unwrap_err();
        assert_eq!(std::error::Error::source(&error).unwrap().to_string(), "the dog ate it");
        store.forget_promises();
        assert!(matches!(store.open_blob(&digest), Err(Error::BlobMissing { .. })));
    }

    #[test]
    fn a_promised_tree_is_over_when_the_layer_is_there() {
        let (_dir, store) = store();
        let id = DiffId(Digest::of(b"tar"));
        let blob = Digest::of(b"x");
        store.promise_tree(id, Box::new(|| Ok(LayerTree::default())));
        let tree = store.promised_tree(&id, &blob).unwrap().unwrap();
        assert!(store.tree(&id).unwrap().is_none(), "what is only promised is not kept");
        store.put_blob(b"x").unwrap();
        assert!(store.promised_tree(&id, &blob).unwrap().is_none());
        assert!(Arc::ptr_eq(&store.end_promised_tree(&id).unwrap(), &tree), "it can still be compared");
    }
}
