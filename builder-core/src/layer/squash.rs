//! Several layers as one: what they come to on top of the layers below them.
//!
//! Worked out on trees. The bytes of the files that are left are taken from the layers in one pass over each; nothing
//! of the layers below is read but their trees.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use super::{Error, LayerOptions, LayerWriter, Result, ensure_tree, extract_contents};
use crate::store::{LayerDescriptor, Store};
use crate::tree::path::{ancestors, parent};
use crate::tree::{Entry, Kind, LayerTree, MergedTree, Metadata, Node};

/// Layer and name there under which the bytes of a file are found; names of one file have the same.
type Place = (usize, Vec<u8>);

/// Makes one layer of those of `layers` (lowest first) from the index `first` on. `None` if nothing is left of them.
///
/// Files that are removed again are not in it; what is removed of the layers below is a whiteout of its own.
pub(crate) fn squash(
    store: &Store,
    layers: &[LayerDescriptor],
    first: usize,
    options: LayerOptions,
) -> Result<Option<LayerDescriptor>> {
    let mut below = MergedTree::new();
    let mut all = MergedTree::new();
    let mut describes_root = false;
    for (index, layer) in layers.iter().enumerate() {
        let tree = ensure_tree(store, layer)?;
        if index < first {
            below.apply(&tree, index);
        } else {
            describes_root |= LayerTree::get(&tree, b"").is_some();
        }
        all.apply(&tree, index);
    }
    let squash = Squash { below, all, first };
    let entries = squash.entries(describes_root);
    if entries.is_empty() {
        return Ok(None);
    }
    let work = store.work_dir()?;
    let files = squash.extract(store, layers, &entries, work.path())?;
    let mut writer = LayerWriter::create(store, options)?;
    for (entry, place) in entries {
        let file = place.and_then(|place| files.get(&place));
        let mut file = file.map(|path| open(path, &entry.path)).transpose()?;
        writer.append(entry, file.as_mut().map(|file| file as &mut dyn Read))?;
    }
    writer.finish().map(|written| Some(written.layer))
}

fn open(file: &Path, path: &[u8]) -> Result<File> {
    File::open(file).map_err(|source| Error::Content { path: path.to_vec(), source })
}

struct Squash {
    below: MergedTree,
    all: MergedTree,
    first: usize,
}

impl Squash {
    /// The entries of the new layer, sorted by path; with a file, where its bytes are.
    fn entries(&self, with_root: bool) -> Vec<(Entry, Option<Place>)> {
        let mut wanted: BTreeSet<&[u8]> = BTreeSet::new();
        let changed = self.all.iter().filter(|(path, node)| self.is_new(path, *node));
        let gone: Vec<&[u8]> = self.below.iter().map(|(path, _)| path).filter(|path| self.is_gone(path)).collect();
        // The directories above an entry are entries, too.
        for path in changed.map(|(path, _)| path).chain(gone.iter().copied()) {
            wanted.extend(ancestors(path).filter(|dir| !dir.is_empty()).chain([path]));
        }
        if !with_root {
            wanted.remove(b"".as_slice());
        }
        let mut first_names: HashMap<Place, Vec<u8>> = HashMap::new();
        let entry = |path: &[u8]| match self.all.get(path) {
            None => (Entry { path: path.to_vec(), meta: Metadata::default(), kind: Kind::Whiteout }, None),
            Some(node) => entry_of(path, node, &mut first_names),
        };
        wanted.into_iter().map(entry).collect()
    }

    /// Whether the layers below do not have exactly this.
    fn is_new(&self, path: &[u8], node: Node<'_>) -> bool {
        node.layer >= self.first
            || self.below.get(path).is_none_or(|old| old.layer != node.layer || old.link != node.link)
    }

    /// Whether this path of the layers below needs a whiteout: it is gone, and the directory that had it is not.
    fn is_gone(&self, path: &[u8]) -> bool {
        let there = |path: &[u8]| self.all.get(path);
        there(path).is_none() && parent(path).is_none_or(|dir| there(dir).is_some_and(|node| node.is_dir()))
    }

    /// Brings the bytes of all files of `entries` into `dir`. Returns which file there has those of which place.
    fn extract(
        &self,
        store: &Store,
        layers: &[LayerDescriptor],
        entries: &[(Entry, Option<Place>)],
        dir: &Path,
    ) -> Result<HashMap<Place, PathBuf>> {
        let mut files = HashMap::new();
        let mut wanted: BTreeMap<usize, BTreeMap<Vec<u8>, PathBuf>> = BTreeMap::new();
        for (number, (_, place)) in entries.iter().enumerate() {
            let Some(place) = place else { continue };
            let file = dir.join(number.to_string());
            wanted.entry(place.0).or_default().insert(place.1.clone(), file.clone());
            files.insert(place.clone(), file);
        }
        for (layer, wanted) in &wanted {
            extract_contents(store, &layers[*layer], wanted)?;
        }
        Ok(files)
    }
}

/// The entry of a node; of a file with several names all but the first are hard links.
fn entry_of(path: &[u8], node: Node<'_>, first_names: &mut HashMap<Place, Vec<u8>>) -> (Entry, Option<Place>) {
    let mut entry = Entry { path: path.to_vec(), meta: node.meta.clone(), kind: node.kind.clone() };
    if node.is_dir() {
        return (entry, None);
    }
    let place = (node.layer, node.link.unwrap_or(path).to_vec());
    let first = first_names.entry(place.clone()).or_insert_with(|| path.to_vec());
    if node.link.is_some() && *first != path {
        entry.kind = Kind::Hardlink { target: first.clone() };
    }
    let has_bytes = matches!(entry.kind, Kind::File { size: 1.., .. });
    (entry, has_bytes.then_some(place))
}

#[cfg(test)]
mod tests;
