//! The part of a context that a step needs, as a tree.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::local::{Error, Listed, LocalContext};
use super::stat_cache::Stamp;
use crate::digest::ContentHash;
use crate::tree::{self, Kind, LayerTree, MergedTree};

/// Part of a context as a tree of one layer, number 0. Content hashes are zero in the tree: [`Snapshot::hashes`] reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    layer: Arc<LayerTree>,
    tree: Arc<MergedTree>,
    /// By number of the entry in `layer`.
    stamps: Vec<Stamp>,
}

impl Snapshot {
    /// Takes what was listed, sorted by path bytes.
    pub(super) fn new(listed: Vec<Listed>) -> Result<Self, Error> {
        let (entries, stamps) = listed.into_iter().map(|Listed { entry, stamp }| (entry, stamp)).unzip();
        let layer = LayerTree::from_sorted(entries).map_err(|error| match error {
            // Only a directory that became a file while it was listed can have anything below it.
            tree::Error::BelowNonDirectory { path } => Error::Changed { path },
            _ => Error::Changed { path: Vec::new() },
        })?;
        let mut tree = MergedTree::new();
        let layer = Arc::new(layer);
        tree.apply(&layer, 0);
        Ok(Self { layer, tree: Arc::new(tree), stamps })
    }

    /// Returns the tree.
    pub(crate) fn tree(&self) -> Arc<MergedTree> {
        self.tree.clone()
    }

    /// Returns the content hashes of `paths`, which are files of the tree, with up to `threads` threads. Files that the
    /// stat cache of `context` knows are not read.
    ///
    /// # Errors
    ///
    /// A path is not a listed file, or a file cannot be read or changed since it was listed; of several, the one first
    /// in `paths`.
    pub(crate) fn hashes<P: AsRef<[u8]> + Sync>(
        &self,
        context: &LocalContext,
        paths: &[P],
        threads: usize,
    ) -> Result<Vec<ContentHash>, Error> {
        let hash = |path: &P| {
            let path = path.as_ref();
            let entry = self.layer.position(path).map(|at| (&self.layer.entries()[at].kind, &self.stamps[at]));
            match entry {
                Some((Kind::File { .. } | Kind::Hardlink { .. }, stamp)) => context.content_hash(path, stamp),
                _ => Err(Error::Changed { path: path.to_vec() }),
            }
        };
        hash_all(paths, hash, threads)
    }
}

/// Calls `hash` for each of `paths`; of several errors the one first in `paths` comes back.
fn hash_all<P: Sync>(
    paths: &[P],
    hash: impl Fn(&P) -> Result<ContentHash, Error> + Sync,
    threads: usize,
) -> Result<Vec<ContentHash>, Error> {
    let next = AtomicUsize::new(0);
    let hashes = Mutex::new(vec![ContentHash([0; 32]); paths.len()]);
    let failure: Mutex<Option<(usize, Error)>> = Mutex::new(None);
    let work = || {
        let mut mine = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some(path) = paths.get(index) else { break };
            match hash(path) {
                Ok(hash) => mine.push((index, hash)),
                Err(error) => {
                    // Files before this one are already taken, so the first error in order is among those.
                    next.store(paths.len(), Ordering::Relaxed);
                    let mut failure = failure.lock().unwrap_or_else(PoisonError::into_inner);
                    if failure.as_ref().is_none_or(|(first, _)| index < *first) {
                        *failure = Some((index, error));
                    }
                }
            }
        }
        let mut hashes = hashes.lock().unwrap_or_else(PoisonError::into_inner);
        for (index, hash) in mine {
            hashes[index] = hash;
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(paths.len()) {
            // Where no more threads may be made, the ones there are do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    match failure.into_inner().unwrap_or_else(PoisonError::into_inner) {
        Some((_, error)) => Err(error),
        None => Ok(hashes.into_inner().unwrap_or_else(PoisonError::into_inner)),
    }
}
