//! What one layer says.

#[cfg(test)]
use std::collections::BTreeMap;
#[cfg(test)]
use std::ops::Bound;

#[cfg(test)]
use super::path::ancestors;
use super::path::{is_tree_path, show};
use super::{Entry, Kind, Metadata};

/// A tree cannot be what its source says.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// A path is absolute, holds `.`, `..`, an empty component or a NUL, or is too long.
    #[error("{:?} is not a path inside an image", show(.path))]
    BadPath {
        /// The path.
        path: Vec<u8>,
    },
    /// Entries are not sorted by path bytes, or a path comes twice.
    #[error("entry {:?} does not sort after the one before it", show(.path))]
    Order {
        /// The later of the two.
        path: Vec<u8>,
    },
    /// An entry lies below something that can hold nothing.
    #[error("entry {:?} lies below a path that is not a directory", show(.path))]
    BelowNonDirectory {
        /// The lower entry.
        path: Vec<u8>,
    },
    /// The root is not a directory.
    #[error("the root of the layer is not a directory")]
    Root,
    /// The bytes are not an encoded tree.
    #[error("malformed tree: {what} at byte {offset}")]
    Malformed {
        /// What is wrong.
        what: &'static str,
        /// Where, from the start of the encoding.
        offset: usize,
    },
}

/// The entries of one layer: sorted by path bytes, no path twice, nothing below an entry that is not a directory.
/// Parents may be missing (other tools leave them out) and hard links may lead to lower layers.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct LayerTree {
    entries: Vec<Entry>,
}

impl LayerTree {
    /// Takes entries that are sorted already, and checks that they keep the invariants.
    pub(crate) fn from_sorted(entries: Vec<Entry>) -> Result<Self, Error> {
        // Open directories above the current entry are not enough here: `a-b` sorts between `a` and `a/b`. So the
        // blocking paths are kept until an entry shows that nothing below them can follow.
        let mut blocking: Vec<&[u8]> = Vec::new();
        let mut before: Option<&[u8]> = None;
        for entry in &entries {
            let path = entry.path.as_slice();
            if !is_tree_path(path) {
                return Err(Error::BadPath { path: path.to_vec() });
            }
            if before.is_some_and(|before| before >= path) {
                return Err(Error::Order { path: path.to_vec() });
            }
            if path.is_empty() && !entry.is_dir() {
                return Err(Error::Root);
            }
            while blocking.last().is_some_and(|top| !path.starts_with(top)) {
                blocking.pop();
            }
            // What is left are prefixes of this path, each of the next.
            if blocking.iter().any(|top| path.get(top.len()) == Some(&b'/')) {
                return Err(Error::BelowNonDirectory { path: path.to_vec() });
            }
            if !entry.is_dir() {
                blocking.push(path);
            }
            before = Some(path);
        }
        Ok(Self { entries })
    }

    #[cfg(test)]
    /// Takes the entries of a layer in the order of its tar, as other tools write them.
    ///
    /// A later entry of a path wins. A whiteout acts on lower layers only (image-spec `layer.md`, "Whiteouts"), so
    /// next to an entry of its own name it makes a directory opaque and is dropped otherwise. What was there below a
    /// path that becomes something other than a directory is gone; a path that gets something below it is a directory.
    /// Every path must have the form of [`Entry::path`]: the reader rejects others.
    pub(crate) fn from_unsorted(entries: Vec<Entry>) -> std::sync::Arc<Self> {
        let mut map: BTreeMap<Vec<u8>, Entry> = BTreeMap::new();
        for entry in entries {
            debug_assert!(is_tree_path(&entry.path), "{:?}", show(&entry.path));
            open_ancestors(&mut map, &entry.path);
            insert(&mut map, entry);
        }
        std::sync::Arc::new(Self { entries: map.into_values().collect() })
    }

    /// Returns the entries, sorted by path bytes.
    pub(crate) fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the entry of exactly this path.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Entry> {
        Some(&self.entries[self.position(path)?])
    }

    /// Returns where in [`Self::entries`] the entry of exactly this path is.
    pub(crate) fn position(&self, path: &[u8]) -> Option<usize> {
        self.entries.binary_search_by(|entry| entry.path.as_slice().cmp(path)).ok()
    }

    /// Returns directories that nobody described; `paths` are sorted and distinct.
    pub(super) fn of_implied<'p>(paths: impl IntoIterator<Item = &'p [u8]>) -> Self {
        let directory = |path: &[u8]| Entry {
            path: path.to_vec(),
            meta: implied_metadata(),
            kind: Kind::Directory { opaque: false },
        };
        Self { entries: paths.into_iter().map(directory).collect() }
    }
}

/// A directory nobody described: `0755`, owned by root.
pub(super) fn implied_metadata() -> Metadata {
    Metadata { mode: 0o755, ..Metadata::default() }
}

#[cfg(test)]
fn open_ancestors(map: &mut BTreeMap<Vec<u8>, Entry>, path: &[u8]) {
    for dir in ancestors(path) {
        let Some(entry) = map.get_mut(dir) else { continue };
        if entry.is_dir() {
            return; // its own ancestors were opened when it came
        }
        let opaque = entry.kind == Kind::Whiteout;
        entry.kind = Kind::Directory { opaque };
        entry.meta = implied_metadata();
    }
}

#[cfg(test)]
fn insert(map: &mut BTreeMap<Vec<u8>, Entry>, mut entry: Entry) {
    match (&mut entry.kind, map.get_mut(&entry.path).map(|old| &mut old.kind)) {
        (Kind::Whiteout, Some(Kind::Directory { opaque })) => {
            *opaque = true;
            return;
        }
        (Kind::Whiteout, Some(_)) => return,
        (Kind::Whiteout, None) => {
            if below(map, &entry.path).next().is_some() {
                entry.kind = Kind::Directory { opaque: true };
                entry.meta = implied_metadata();
            }
        }
        (Kind::Directory { opaque }, Some(Kind::Whiteout | Kind::Directory { opaque: true })) => *opaque = true,
        (Kind::Directory { .. }, _) => {}
        _ => remove_below(map, &entry.path),
    }
    map.insert(entry.path.clone(), entry);
}

#[cfg(test)]
fn below<'m>(map: &'m BTreeMap<Vec<u8>, Entry>, dir: &[u8]) -> impl Iterator<Item = &'m [u8]> {
    let mut start = dir.to_vec();
    start.push(b'/');
    let prefix = start.clone();
    map.range((Bound::Included(start), Bound::Unbounded))
        .map(|(path, _)| path.as_slice())
        .take_while(move |path| path.starts_with(&prefix))
}

#[cfg(test)]
fn remove_below(map: &mut BTreeMap<Vec<u8>, Entry>, dir: &[u8]) {
    let gone: Vec<Vec<u8>> = below(map, dir).map(<[u8]>::to_vec).collect();
    for path in gone {
        map.remove(&path);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;

    fn entry(path: &str, kind: Kind) -> Entry {
        Entry { path: path.into(), meta: Metadata::default(), kind }
    }

    fn file(path: &str) -> Entry {
        entry(path, Kind::File { size: 1, content: ContentHash::of(path.as_bytes()) })
    }

    fn dir(path: &str) -> Entry {
        entry(path, Kind::Directory { opaque: false })
    }

    fn opaque(path: &str) -> Entry {
        entry(path, Kind::Directory { opaque: true })
    }

    fn whiteout(path: &str) -> Entry {
        entry(path, Kind::Whiteout)
    }

    fn shape(tree: &LayerTree) -> Vec<String> {
        let letter = |kind: &Kind| match kind {
            Kind::Directory { opaque: true } => "o",
            Kind::Directory { opaque: false } => "d",
            Kind::Whiteout => "w",
            _ => "f",
        };
        tree.entries().iter().map(|e| format!("{} {}", letter(&e.kind), String::from_utf8_lossy(&e.path))).collect()
    }

    #[test]
    fn sorted_entries_are_checked() {
        assert!(LayerTree::from_sorted(vec![dir(""), dir("a"), file("a-b"), file("a/b"), file("a0")]).is_ok());
        let bad = |entries| LayerTree::from_sorted(entries).unwrap_err();
        assert!(matches!(bad(vec![dir("b"), dir("a")]), Error::Order { .. }));
        assert!(matches!(bad(vec![dir("a"), dir("a")]), Error::Order { .. }));
        assert!(matches!(bad(vec![dir("/a")]), Error::BadPath { .. }));
        assert!(matches!(bad(vec![dir("../a")]), Error::BadPath { .. }));
        assert!(matches!(bad(vec![file("")]), Error::Root));
        assert!(matches!(bad(vec![file("a"), file("a/b")]), Error::BelowNonDirectory { .. }));
        // Between a path and what lies below it, other names sort.
        assert!(matches!(bad(vec![file("a"), file("a-b"), file("a-c"), file("a/b")]), Error::BelowNonDirectory { .. }));
        assert!(matches!(bad(vec![whiteout("a"), file("a/b/c")]), Error::BelowNonDirectory { .. }));
        assert!(LayerTree::from_sorted(vec![file("a"), file("a-b"), dir("a0"), file("a0/a")]).is_ok());
    }

    #[test]
    fn foreign_order_is_brought_into_form() {
        let cases: [(&str, Vec<Entry>, &[&str]); 11] = [
            ("order", vec![file("b"), dir("a"), file("a/x")], &["d a", "f a/x", "f b"]),
            ("whiteout before entry", vec![whiteout("a"), file("a")], &["f a"]),
            ("whiteout after entry", vec![file("a"), whiteout("a")], &["f a"]),
            ("whiteout before directory", vec![whiteout("a"), dir("a")], &["o a"]),
            ("whiteout after directory", vec![dir("a"), whiteout("a")], &["o a"]),
            ("opaque stays", vec![opaque("a"), dir("a")], &["o a"]),
            ("whiteout after child", vec![file("a/b"), whiteout("a")], &["o a", "f a/b"]),
            ("child after whiteout", vec![whiteout("a"), file("a/b")], &["o a", "f a/b"]),
            ("file over directory", vec![dir("a"), file("a/b"), file("a-c"), file("a")], &["f a", "f a-c"]),
            ("child below file", vec![file("a"), file("a/b/c")], &["d a", "f a/b/c"]),
            ("twice", vec![file("a"), dir("a"), file("a/b")], &["d a", "f a/b"]),
        ];
        for (name, entries, want) in cases {
            let tree = LayerTree::from_unsorted(entries);
            assert_eq!(shape(&tree), want, "{name}");
            assert!(LayerTree::from_sorted(tree.entries().to_vec()).is_ok(), "{name} keeps the invariants");
        }
    }

    #[test]
    fn later_entries_win() {
        let mut second = file("a");
        second.meta.mode = 0o600;
        let tree = LayerTree::from_unsorted(vec![file("a"), second.clone()]);
        assert_eq!(tree.entries(), [second]);
        assert!(tree.get(b"a").is_some() && tree.get(b"b").is_none());
    }
}
