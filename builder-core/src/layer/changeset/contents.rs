//! The end of the model: everything in the form that a tree has.

use std::collections::{BTreeMap, BTreeSet};

use super::{Changeset, Error, Result};
use crate::tree::path::ancestors;
use crate::tree::{Entry, Kind, LayerTree, Metadata};

/// The finished model.
#[derive(Debug)]
pub(in crate::layer) struct Contents {
    /// What the layer says.
    pub(in crate::layer) tree: LayerTree,
    /// Directories that are in the layer's way without an entry, sorted; the tree does not have them.
    pub(in crate::layer) implied: Vec<Vec<u8>>,
}

impl Contents {
    /// Whether `path` is a directory without an entry.
    pub(in crate::layer) fn is_implied(&self, path: &[u8]) -> bool {
        self.implied.binary_search_by(|implied| implied[..].cmp(path)).is_ok()
    }
}

impl Changeset {
    /// Returns what the layer says in all.
    pub(in crate::layer) fn finish(mut self) -> Result<Contents> {
        let hidden = std::mem::take(&mut self.whiteouts);
        let (over_directories, whiteouts): (Vec<_>, Vec<_>) = hidden
            .into_iter()
            .filter(|path| self.is_directory_or_absent(path))
            .partition(|path| self.names.contains_key(path));
        self.opaque.extend(over_directories);
        let mut implied = Vec::new();
        let mut entries = BTreeMap::new();
        let mut first_names: Vec<Option<Vec<u8>>> = vec![None; self.nodes.len()];
        for (path, inode) in std::mem::take(&mut self.names) {
            let node = &self.nodes[inode.0];
            let opaque = self.opaque.contains(&path);
            let kind = match (&node.kind, &first_names[inode.0]) {
                (Kind::Directory { .. }, _) if node.implied && !opaque => {
                    if !path.is_empty() {
                        implied.push(path);
                    }
                    continue;
                }
                (Kind::Directory { .. }, _) => Kind::Directory { opaque },
                (_, Some(first)) => Kind::Hardlink { target: first.clone() },
                (kind, None) => {
                    first_names[inode.0] = Some(path.clone());
                    kind.clone()
                }
            };
            entries.insert(path.clone(), Entry { path, meta: node.meta.clone(), kind });
        }
        for path in whiteouts {
            // An opaque directory hides all; overlayfs lists a whiteout in one as a file that is not there.
            if !ancestors(&path).any(|dir| self.opaque.contains(dir)) {
                entries.insert(path.clone(), Entry { path, meta: Metadata::default(), kind: Kind::Whiteout });
            }
        }
        let tree = LayerTree::from_sorted(entries.into_values().collect()).map_err(|source| Error::Tree { source })?;
        Ok(Contents { tree, implied })
    }

    fn is_directory_or_absent(&self, path: &[u8]) -> bool {
        self.names.get(path).is_none_or(|inode| self.is_directory(*inode))
    }
}

/// The directories above entries of `tree` that are not entries themselves, sorted, without the root.
pub(in crate::layer) fn implied_parents(tree: &LayerTree) -> Vec<Vec<u8>> {
    let mut implied = BTreeSet::new();
    for entry in tree.entries() {
        for dir in ancestors(&entry.path) {
            // Whoever put it there saw to those above it.
            if dir.is_empty() || implied.contains(dir) || tree.get(dir).is_some() {
                break;
            }
            implied.insert(dir.to_vec());
        }
    }
    implied.into_iter().collect()
}
