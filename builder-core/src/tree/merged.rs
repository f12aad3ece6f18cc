//! What a stack of layers comes to.

mod overlay;

use std::cmp::Ordering;
use std::ops::Range;
use std::sync::Arc;

use overlay::{Effect, Overlay};

use super::path::strip_dir;
use super::{Entry, Kind, LayerTree, Metadata};

/// What stands at a path of a stack of layers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Node<'t> {
    /// Mode, owner, times, attributes.
    pub(crate) meta: &'t Metadata,
    /// What it is: never [`Kind::Whiteout`] or [`Kind::Hardlink`] (then the kind of the link's target), and a directory
    /// is never opaque.
    pub(crate) kind: &'t Kind,
    /// Index of the layer that holds the bytes, as given to [`MergedTree::apply`].
    pub(crate) layer: usize,
    /// For a file with several names: the name under which layer `layer` holds the bytes. Nodes with equal `layer`
    /// and `link` are names of one file.
    pub(crate) link: Option<&'t [u8]>,
}

impl Node<'_> {
    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

/// What an opaque directory of a layer is in the stack.
static DIRECTORY: Kind = Kind::Directory { opaque: false };

/// An entry of one of the tables.
#[derive(Debug, Clone, Copy)]
struct Place {
    table: u32,
    entry: u32,
}

/// One path of the stack.
#[derive(Debug, Clone, Copy)]
struct Item {
    /// The entry that gives the path.
    path: Place,
    /// The entry that gives everything else: the same, or what a hard link leads to.
    node: Place,
    /// Whether the file has other names.
    linked: bool,
}

/// Entries that items point into, and the index of their layer.
#[derive(Debug, Clone)]
struct Table {
    tree: Arc<LayerTree>,
    layer: usize,
}

/// A flattened stack of layers, sorted by path bytes. Every path has its parent, up to the root, which always exists
/// (`0755`, owned by root, until a layer says otherwise).
///
/// It owns no entry: it is an index into the trees of its layers, 20 bytes a path, so that the trees of all steps of a
/// build share what they have in common.
#[derive(Debug, Clone)]
pub(crate) struct MergedTree {
    tables: Vec<Table>,
    items: Vec<Item>,
}

impl Default for MergedTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MergedTree {
    /// Returns the tree of no layers: the root alone.
    pub(crate) fn new() -> Self {
        let root = Table { tree: Arc::new(LayerTree::of_implied([b"".as_slice()])), layer: 0 };
        Self { tables: vec![root], items: vec![Item::of(0, 0)] }
    }

    /// Puts `layer` on top. `index` is what its nodes will have as [`Node::layer`].
    ///
    /// A parent that the layer leaves out keeps its metadata when it is a directory below, else it becomes a directory
    /// `0755` of root. A hard link to nothing is left out.
    pub(crate) fn apply(&mut self, layer: &Arc<LayerTree>, index: usize) {
        let Effect { mut added, mut hidden, relinked, implied } = Overlay::new(self, layer).compute();
        let table = self.next_table();
        self.tables.push(Table { tree: layer.clone(), layer: index });
        if !implied.entries().is_empty() {
            added.extend((0..count(implied.entries().len())).map(|entry| Item::of(table + 1, entry)));
            self.tables.push(Table { tree: Arc::new(implied), layer: index });
        }
        for at in relinked {
            self.items[at].linked = true;
        }
        added.sort_unstable_by(|a, b| self.path(a).cmp(self.path(b)));
        hidden.sort_unstable_by_key(|range| range.start);
        self.items = self.merge(&added, &hidden);
    }

    /// Returns what stands at `path`, which is taken literally: no symlink is followed.
    pub(crate) fn get(&self, path: &[u8]) -> Option<Node<'_>> {
        Some(self.node(&self.items[self.position(path)?]))
    }

    /// Returns the names in `dir`, sorted by bytes, with what stands there. Nothing if `dir` is no directory.
    pub(crate) fn children(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], Node<'_>)> {
        let range = self.below(dir);
        Children { tree: self, range, dir_len: if dir.is_empty() { 0 } else { dir.len() + 1 } }
    }

    /// Returns the full paths of everything below `dir`, without `dir`, sorted by path bytes.
    pub(crate) fn descendants(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], Node<'_>)> {
        self.items[self.below(dir)].iter().map(|item| self.pair(item))
    }

    /// Returns all paths, the root first, sorted by path bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], Node<'_>)> {
        self.items.iter().map(|item| self.pair(item))
    }

    fn pair(&self, item: &Item) -> (&[u8], Node<'_>) {
        (self.path(item), self.node(item))
    }

    fn entry(&self, place: Place) -> &Entry {
        &self.tables[place.table as usize].tree.entries()[place.entry as usize]
    }

    fn path(&self, item: &Item) -> &[u8] {
        &self.entry(item.path).path
    }

    fn node(&self, item: &Item) -> Node<'_> {
        let Entry { path, meta, kind } = self.entry(item.node);
        let kind = if matches!(kind, Kind::Directory { .. }) { &DIRECTORY } else { kind };
        let layer = self.tables[item.node.table as usize].layer;
        Node { meta, kind, layer, link: item.linked.then_some(path) }
    }

    fn next_table(&self) -> u32 {
        count(self.tables.len())
    }

    fn position(&self, path: &[u8]) -> Option<usize> {
        self.items.binary_search_by(|item| self.path(item).cmp(path)).ok()
    }

    /// Returns where everything below `dir` is. It is one run, which need not start right after `dir` itself.
    fn below(&self, dir: &[u8]) -> Range<usize> {
        if dir.is_empty() {
            return self.items.len().min(1)..self.items.len();
        }
        let start = self.items.partition_point(|item| cmp_with_suffix(self.path(item), dir, b'/') == Ordering::Less);
        let end = start + self.items[start..].partition_point(|item| strip_dir(self.path(item), dir).is_some());
        start..end
    }

    /// Merges the items with others; `added`, sorted, wins over an item of its path, items in `hidden` (sorted by start)
    /// go away.
    fn merge(&self, added: &[Item], hidden: &[Range<usize>]) -> Vec<Item> {
        let mut merged = Vec::with_capacity(self.items.len() + added.len());
        let mut added = added.iter().copied().peekable();
        let mut hidden = hidden.iter().peekable();
        for (at, item) in self.items.iter().enumerate() {
            let path = self.path(item);
            while let Some(new) = added.next_if(|new| self.path(new) < path) {
                merged.push(new);
            }
            if let Some(new) = added.next_if(|new| self.path(new) == path) {
                merged.push(new);
                continue;
            }
            while hidden.next_if(|range| range.end <= at).is_some() {}
            if !hidden.peek().is_some_and(|range| range.contains(&at)) {
                merged.push(*item);
            }
        }
        merged.extend(added);
        merged.shrink_to_fit();
        merged
    }
}

impl Item {
    fn of(table: u32, entry: u32) -> Self {
        let place = Place { table, entry };
        Self { path: place, node: place, linked: false }
    }
}

/// Trees come from memory, where no table has 2³² entries of this size.
fn count(len: usize) -> u32 {
    u32::try_from(len).expect("a tree in memory has fewer than 2^32 entries")
}

/// Compares `path` with `dir` followed by `suffix`.
fn cmp_with_suffix(path: &[u8], dir: &[u8], suffix: u8) -> Ordering {
    let shared = path.len().min(dir.len());
    path[..shared].cmp(&dir[..shared]).then_with(|| match path.get(dir.len()) {
        None => Ordering::Less,
        Some(next) => next.cmp(&suffix).then(path.len().cmp(&(dir.len() + 1))),
    })
}

struct Children<'t> {
    tree: &'t MergedTree,
    range: Range<usize>,
    dir_len: usize,
}

impl<'t> Iterator for Children<'t> {
    type Item = (&'t [u8], Node<'t>);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let items = &self.tree.items[self.range.clone()];
            let (path, node) = self.tree.pair(items.first()?);
            let name = &path[self.dir_len..];
            let Some(slash) = name.iter().position(|b| *b == b'/') else {
                self.range.start += 1;
                return Some((name, node));
            };
            // Below a child: jump over its whole run.
            let child = &path[..self.dir_len + slash];
            self.range.start += items.partition_point(|item| strip_dir(self.tree.path(item), child).is_some());
        }
    }
}

#[cfg(test)]
mod tests;
