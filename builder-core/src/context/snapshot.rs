//! The part of a context that a step needs, as a tree.

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use super::local::{Error, Listed, LocalContext};
use super::stat_cache::Stamp;
use crate::digest::ContentHash;
use crate::tree::{self, Kind, LayerTree, MergedTree};

/// Part of a context as a tree of one layer, number 0. Content hashes are zero in the tree: [`Snapshot::hashes`] reads.
#[derive(Debug, Clone, Default)]
pub(crate) struct Snapshot {
    tree: MergedTree,
    /// Of the files, sorted by path.
    stamps: Vec<(Box<[u8]>, Stamp)>,
}

impl Snapshot {
    /// Takes what was listed, sorted by path bytes.
    pub(super) fn new(listed: Vec<Listed>) -> Result<Self, Error> {
        let mut stamps = Vec::new();
        let mut entries = Vec::with_capacity(listed.len());
        for Listed { entry, stamp } in listed {
            if matches!(entry.kind, Kind::File { .. } | Kind::Hardlink { .. }) {
                stamps.push((entry.path.as_slice().into(), stamp));
            }
            entries.push(entry);
        }
        let layer = LayerTree::from_sorted(entries).map_err(|error| match error {
            // Only a directory that became a file while it was listed can have anything below it.
            tree::Error::BelowNonDirectory { path } => Error::Changed { path },
            _ => Error::Changed { path: Vec::new() },
        })?;
        let mut tree = MergedTree::new();
        tree.apply(&layer, 0);
        Ok(Self { tree, stamps })
    }

    /// Returns the tree.
    pub(crate) fn tree(&self) -> &MergedTree {
        &self.tree
    }

    /// Returns the content hashes of `paths`, which are files of the tree, with up to `threads` threads. Files that the
    /// stat cache of `context` knows are not read.
    ///
    /// # Errors
    ///
    /// A path is not a listed file, or a file cannot be read or changed since it was listed; of several, the one first
    /// in `paths`.
    pub(crate) fn hashes<P: AsRef<[u8]>>(
        &self,
        context: &LocalContext,
        paths: &[P],
        threads: usize,
    ) -> Result<Vec<ContentHash>, Error> {
        let known = |path: &P| match self.stamps.binary_search_by(|(other, _)| (**other).cmp(path.as_ref())) {
            Ok(at) => Ok(&self.stamps[at]),
            Err(_) => Err(Error::Changed { path: path.as_ref().to_vec() }),
        };
        let files = paths.iter().map(known).collect::<Result<Vec<_>, _>>()?;
        hash_all(context, &files, threads)
    }
}

fn hash_all(context: &LocalContext, files: &[&(Box<[u8]>, Stamp)], threads: usize) -> Result<Vec<ContentHash>, Error> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<(usize, Result<ContentHash, Error>)>> = Mutex::new(Vec::with_capacity(files.len()));
    let work = || {
        let mut mine = Vec::new();
        loop {
            let index = next.fetch_add(1, Ordering::Relaxed);
            let Some((path, stamp)) = files.get(index) else { break };
            let result = context.content_hash(path, stamp);
            if result.is_err() {
                // Files before this one are already taken, so the first error in order is among the results.
                next.store(files.len(), Ordering::Relaxed);
            }
            mine.push((index, result));
        }
        results.lock().unwrap_or_else(std::sync::PoisonError::into_inner).append(&mut mine);
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(files.len()) {
            // Where no more threads may be made, the ones there are do the work.
            if std::thread::Builder::new().spawn_scoped(scope, work).is_err() {
                break;
            }
        }
        work();
    });
    let mut results = results.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
    results.sort_unstable_by_key(|(index, _)| *index);
    results.into_iter().map(|(_, result)| result).collect()
}
