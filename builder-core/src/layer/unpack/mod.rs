//! Unpacks layers into the form overlayfs takes as lowerdirs.
//!
//! A layer becomes `unpacked/<diff ID>` in the store: its files with owners, modes, attributes and times; a whiteout as
//! character device 0:0, an opaque directory with the attribute `user.overlay.opaque` (for mounts with `userxattr`).
//! What the process may not do is recorded instead, and [`crate::tree`] stays the authority: a device node that the
//! kernel refuses is an empty file with [`NODE_XATTR`], an owner outside the id map stays root with [`OWNER_XATTR`].
//!
//! A layer that leaves out parent directories would cover those of lower layers with made-up metadata. It is unpacked a
//! second way, under a key that also names the metadata its parents have in this stack.
//!
//! Runs as (mapped) root; as another user ownership is recorded instead of set. Nothing is flushed: the store trusts an
//! unpacked layer only for as long as the machine runs. Invariant: whatever the archive says, nothing outside of the
//! directory that the store gave is touched ([`disk`]).

mod apply;
mod disk;
mod metadata;
mod place;
mod sparse_file;

#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use apply::{Written, unpack_blob};
pub(crate) use metadata::{Note, describe_notes};
pub(crate) use place::place;

use super::changeset::implied_parents;
use super::read::ensure_tree;
use super::{Error, Result};
use crate::digest::{DiffId, hex};
use crate::store::{LayerDescriptor, Store, UnpackDir, Unpacking};
use crate::tree::{Kind, LayerTree, MergedTree, Metadata};

/// Attribute of the empty file that stands for a device node: `c MAJOR MINOR` or `b MAJOR MINOR` in decimal.
const NODE_XATTR: &str = "user.builder.node";
/// Attribute of a file whose owner is not in the id map: `UID:GID` in decimal. The file itself is root's.
const OWNER_XATTR: &str = "user.builder.owner";
/// Marks a directory that hides what lower layers have in it.
const OPAQUE_XATTR: &str = "user.overlay.opaque";

/// A stack of layers on disk.
#[derive(Debug, Default)]
pub(crate) struct Lowerdirs {
    /// Unpacked layers, lowest first, without those that a layer with an opaque root hides altogether (overlayfs
    /// does not look at the root of a layer for that).
    pub(crate) paths: Vec<PathBuf>,
    /// What could not be done as the layers say; of layers that were unpacked by this call only.
    pub(crate) notes: Vec<Note>,
}

/// Directories that a layer needs and does not describe: with the metadata they have in the stack, or `None` for one
/// that only whiteouts are in and that does not exist.
type Implied = BTreeMap<Vec<u8>, Option<Metadata>>;

/// Makes sure that every layer of a stack, lowest first, is unpacked, and returns where.
///
/// Up to `threads` layers at once, each with a thread that inflates and one that writes. Layers that are unpacked
/// already cost a look. Several callers, also in other processes, do each layer once. Trees of layers unpacked on the
/// way are in the store afterwards.
pub(crate) fn unpack_all(store: &Store, layers: &[LayerDescriptor], threads: usize) -> Result<Lowerdirs> {
    let first = in_parallel(layers, threads, |layer| unpack_alone(store, layer))?;
    let mut stack = Lowerdirs::default();
    if first.iter().all(|outcome| matches!(outcome, Outcome::Done { .. })) {
        for (layer, outcome) in layers.iter().zip(first) {
            stack.push(store, layer, outcome)?;
        }
        return Ok(stack);
    }
    // Metadata of left-out parents comes from the layers below, so their trees must be known first.
    let trees = in_parallel(layers, threads, |layer| ensure_tree(store, layer))?;
    let mut merged = MergedTree::new();
    let mut todo = Vec::with_capacity(layers.len());
    for (at, ((layer, outcome), tree)) in layers.iter().zip(first).zip(&trees).enumerate() {
        merged.apply(tree, at);
        let implied = match outcome {
            Outcome::Done { .. } => Implied::new(),
            Outcome::ParentsMissing => implied_metadata(tree, &merged),
        };
        todo.push((layer, outcome, implied));
    }
    let done = in_parallel(&todo, threads, |(layer, outcome, implied)| match outcome {
        Outcome::ParentsMissing => unpack_with(store, layer, implied),
        done => Ok(done.clone()),
    })?;
    for (layer, outcome) in layers.iter().zip(done) {
        stack.push(store, layer, outcome)?;
    }
    Ok(stack)
}

/// How unpacking without knowledge of other layers ended.
#[derive(Debug, Clone)]
enum Outcome {
    Done { path: PathBuf, notes: Vec<Note> },
    ParentsMissing,
}

impl Lowerdirs {
    fn push(&mut self, store: &Store, layer: &LayerDescriptor, outcome: Outcome) -> Result<()> {
        let Outcome::Done { path, notes } = outcome else { return Err(Error::ParentsUnknown) };
        let tree = ensure_tree(store, layer)?;
        let root = tree.get(b"").map(|entry| &entry.kind);
        if let Some(Kind::Directory { opaque: true }) = root {
            self.paths.clear();
        }
        self.paths.push(path);
        self.notes.extend(notes);
        Ok(())
    }
}

fn unpack_alone(store: &Store, layer: &LayerDescriptor) -> Result<Outcome> {
    let key = layer.diff_id.0.hex();
    if let Some(path) = store.unpacked(&key)? {
        return Ok(Outcome::Done { path, notes: Vec::new() });
    }
    if let Some(tree) = store.tree(&layer.diff_id)?
        && !implied_parents(&tree).is_empty()
    {
        return Ok(Outcome::ParentsMissing);
    }
    match store.begin_unpack(&key)? {
        Unpacking::Ready(path) => Ok(Outcome::Done { path, notes: Vec::new() }),
        Unpacking::Mine(dir) => unpack_into(store, layer, dir, None),
    }
}

fn unpack_with(store: &Store, layer: &LayerDescriptor, implied: &Implied) -> Result<Outcome> {
    match store.begin_unpack(&key(layer.diff_id, implied))? {
        Unpacking::Ready(path) => Ok(Outcome::Done { path, notes: Vec::new() }),
        Unpacking::Mine(dir) => unpack_into(store, layer, dir, Some(implied)),
    }
}

fn unpack_into(store: &Store, layer: &LayerDescriptor, dir: UnpackDir, implied: Option<&Implied>) -> Result<Outcome> {
    let (tree, written) = unpack_blob(store, layer, dir.path(), implied)?;
    store.put_tree(&layer.diff_id, &tree)?;
    match written {
        Written::Whole(notes) => Ok(Outcome::Done { path: dir.commit()?, notes }),
        Written::ParentsMissing => Ok(Outcome::ParentsMissing),
    }
}

/// The metadata of the directories that the layer with `tree` leaves out, in the stack that it is the top of.
fn implied_metadata(tree: &LayerTree, merged: &MergedTree) -> Implied {
    let implied = implied_parents(tree).into_iter();
    let described = |path: Vec<u8>| {
        let meta = merged.get(&path).map(|node| node.meta.clone());
        (path, meta)
    };
    implied.map(described).collect()
}

/// Names this layer with these parents. Starts with the diff ID, as the store wants it.
fn key(diff_id: DiffId, implied: &Implied) -> String {
    let diff_id = diff_id.0.hex();
    if implied.is_empty() {
        return diff_id;
    }
    let mut hasher = blake3::Hasher::new_derive_key("builder unpacked layer parents v1");
    let mut field = |bytes: &[u8]| {
        hasher.update(&(bytes.len() as u64).to_le_bytes());
        hasher.update(bytes);
    };
    for (path, meta) in implied {
        field(path);
        let Some(Metadata { mode, uid, gid, mtime, xattrs }) = meta else {
            field(b"absent");
            continue;
        };
        field(format!("{mode} {uid} {gid} {} {} {}", mtime.secs, mtime.nanos, xattrs.len()).as_bytes());
        for (name, value) in xattrs {
            field(name);
            field(value);
        }
    }
    format!("{diff_id}-{}", hex(&hasher.finalize().as_bytes()[..16]))
}

/// Maps `items` with up to `threads` threads, in order. After an error no further item is begun; the first one counts.
fn in_parallel<T: Sync, U: Send>(items: &[T], threads: usize, work: impl Fn(&T) -> Result<U> + Sync) -> Result<Vec<U>> {
    let next = AtomicUsize::new(0);
    let results: Mutex<Vec<Option<Result<U>>>> = Mutex::new(items.iter().map(|_| None).collect());
    let run = || {
        while let Some((at, item)) = claim(&next, items) {
            let result = work(item);
            if result.is_err() {
                next.store(items.len(), Ordering::Relaxed);
            }
            results.lock().unwrap_or_else(PoisonError::into_inner)[at] = Some(result);
        }
    };
    std::thread::scope(|scope| {
        for _ in 1..threads.min(items.len()) {
            // Without a further thread the others do its share.
            std::thread::Builder::new().name("layer-unpack".to_owned()).spawn_scoped(scope, run).ok();
        }
        run();
    });
    let results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.into_iter().flatten().collect()
}

/// Takes the next item that nobody has taken.
fn claim<'i, T>(next: &AtomicUsize, items: &'i [T]) -> Option<(usize, &'i T)> {
    let at = next.fetch_add(1, Ordering::Relaxed);
    Some((at, items.get(at)?))
}
