//! What a stack of layers comes to.

use std::cmp::Ordering;
use std::collections::{BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::path::{ancestors, parent, strip_dir};
use super::{Entry, Kind, LayerTree, Metadata};

/// Longest chain of hard links to hard links that is followed; tar writers make chains of one.
const MAX_LINK_CHAIN: usize = 16;

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

/// What one layer does to the items below it.
struct Effect {
    /// New items, in the order of the layer's entries.
    added: Vec<Item>,
    /// Runs of items that go away; they nest or are apart.
    hidden: Vec<Range<usize>>,
    /// Files that get a second name.
    relinked: Vec<usize>,
    /// Directories that nobody described.
    implied: LayerTree,
}

/// Works out the effect of one layer.
struct Overlay<'a> {
    base: &'a MergedTree,
    layer: &'a LayerTree,
    /// Number that the layer's table will have.
    table: u32,
    hidden: Vec<Range<usize>>,
    relinked: Vec<usize>,
    /// Where in `base` the last entry of the layer is or would be.
    cursor: usize,
}

impl<'a> Overlay<'a> {
    fn new(base: &'a MergedTree, layer: &'a LayerTree) -> Self {
        let table = base.next_table();
        Self { base, layer, table, hidden: Vec::new(), relinked: Vec::new(), cursor: 0 }
    }

    fn compute(mut self) -> Effect {
        let first_names = self.first_names();
        let mut added = Vec::with_capacity(self.layer.entries().len());
        for (at, entry) in self.layer.entries().iter().enumerate() {
            match &entry.kind {
                Kind::Whiteout => self.hide(&entry.path),
                Kind::Directory { opaque: false } => {}
                Kind::Directory { opaque: true } => self.hide_below(&entry.path),
                _ => self.replace(&entry.path),
            }
            let place = Place { table: self.table, entry: count(at) };
            if let Some(item) = self.item(entry, place, &first_names) {
                added.push(item);
            }
        }
        let implied = LayerTree::of_implied(self.missing_parents());
        Effect { added, hidden: self.hidden, relinked: self.relinked, implied }
    }

    fn hide(&mut self, path: &[u8]) {
        if let Some(at) = self.advance(path) {
            self.hidden.push(at..at + 1);
            self.hide_below(path);
        }
    }

    /// Returns where `path` is in `base`. Paths come in order, so most are near the last one.
    fn advance(&mut self, path: &[u8]) -> Option<usize> {
        let base = self.base;
        let rest = &base.items[self.cursor..];
        let mut reach = 1;
        while rest.get(reach).is_some_and(|item| base.path(item) < path) {
            reach *= 2;
        }
        let window = &rest[..rest.len().min(reach + 1)];
        self.cursor += window.partition_point(|item| base.path(item) < path);
        let found = base.items.get(self.cursor)?;
        (base.path(found) == path).then_some(self.cursor)
    }

    /// Makes room for something other than a directory, which needs more than its own place only over a directory.
    fn replace(&mut self, path: &[u8]) {
        if self.advance(path).is_some_and(|at| self.base.node(&self.base.items[at]).is_dir()) {
            self.hide_below(path);
        }
    }

    fn hide_below(&mut self, path: &[u8]) {
        let range = self.base.below(path);
        if !range.is_empty() {
            self.hidden.push(range);
        }
    }

    /// Returns the files of the layer that another entry of the layer links to.
    fn first_names(&self) -> HashSet<&'a [u8]> {
        let layer = self.layer;
        let links = layer.entries().iter().filter(|entry| matches!(entry.kind, Kind::Hardlink { .. }));
        let targets = links.filter_map(|entry| follow(layer, entry));
        targets.map(|at| layer.entries()[at].path.as_slice()).collect()
    }

    fn item(&mut self, entry: &Entry, path: Place, first_names: &HashSet<&[u8]>) -> Option<Item> {
        match &entry.kind {
            Kind::Whiteout => None,
            Kind::Hardlink { .. } => {
                let node = self.linked(entry)?;
                Some(Item { path, node, linked: true })
            }
            _ => Some(Item { path, node: path, linked: first_names.contains(entry.path.as_slice()) }),
        }
    }

    /// Returns the entry that a hard link is another name of.
    fn linked(&mut self, entry: &Entry) -> Option<Place> {
        if let Some(first) = follow(self.layer, entry) {
            return Some(Place { table: self.table, entry: count(first) });
        }
        let at = self.base.position(last_target(self.layer, entry)?)?;
        let target = &self.base.items[at];
        if self.base.node(target).is_dir() {
            return None;
        }
        self.relinked.push(at);
        Some(target.node)
    }

    /// Returns the parents that neither the layer nor what is below it has.
    fn missing_parents(&self) -> BTreeSet<&'a [u8]> {
        let mut missing: BTreeSet<&[u8]> = BTreeSet::new();
        let mut known: Option<&[u8]> = None;
        let layer = self.layer;
        for entry in layer.entries().iter().filter(|entry| entry.kind != Kind::Whiteout) {
            let dir = parent(&entry.path);
            if dir == known {
                continue;
            }
            known = dir;
            for dir in ancestors(&entry.path) {
                if layer.get(dir).is_some() || missing.contains(dir) || self.shows_directory(dir) {
                    break;
                }
                missing.insert(dir);
            }
        }
        missing
    }

    /// Whether `base` has a directory at `dir` that this layer, which has no entry there, does not hide.
    fn shows_directory(&self, dir: &[u8]) -> bool {
        let Some(node) = self.base.get(dir) else { return false };
        let hides = |above| matches!(self.layer.get(above), Some(Entry { kind: Kind::Directory { opaque: true }, .. }));
        node.is_dir() && !ancestors(dir).any(hides)
    }
}

/// Returns where the entry of the same layer is that a hard link comes down to, if it is there and can have several
/// names.
fn follow(layer: &LayerTree, link: &Entry) -> Option<usize> {
    let at = layer.position(last_target(layer, link)?)?;
    (!matches!(layer.entries()[at].kind, Kind::Directory { .. } | Kind::Whiteout)).then_some(at)
}

/// Returns the first path on the way of a hard link that is not itself a hard link of `layer`; `None` for a ring.
fn last_target<'l>(layer: &'l LayerTree, link: &'l Entry) -> Option<&'l [u8]> {
    let mut entry = link;
    for _ in 0..MAX_LINK_CHAIN {
        let Kind::Hardlink { target } = &entry.kind else { return None };
        match layer.get(target) {
            Some(next) if matches!(next.kind, Kind::Hardlink { .. }) => entry = next,
            _ => return Some(target),
        }
    }
    None
}

#[cfg(test)]
mod tests;
