//! What a stack of layers comes to.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ops::Range;
use std::sync::Arc;

use super::layer_tree::implied_metadata;
use super::path::{ancestors, parent, strip_dir};
use super::{Entry, Kind, LayerTree, Metadata};

/// Longest chain of hard links to hard links that is followed; tar writers make chains of one.
const MAX_LINK_CHAIN: usize = 16;

/// What stands at a path of a stack of layers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Node {
    /// Mode, owner, times, attributes.
    pub(crate) meta: Metadata,
    /// What it is: never [`Kind::Whiteout`] or [`Kind::Hardlink`] (then the kind of the link's target), and a directory
    /// is never opaque.
    pub(crate) kind: Kind,
    /// Index of the layer that holds the bytes, as given to [`MergedTree::apply`].
    pub(crate) layer: usize,
    /// For a file with several names: the name under which layer `layer` holds the bytes. Nodes with equal `layer`
    /// and `link` are names of one file.
    pub(crate) link: Option<Arc<[u8]>>,
}

impl Node {
    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}

#[derive(Debug, Clone)]
struct Item {
    path: Box<[u8]>,
    node: Node,
}

/// A flattened stack of layers, sorted by path bytes. Every path has its parent, up to the root, which always exists
/// (`0755`, owned by root, until a layer says otherwise).
///
/// Nodes are shared between clones: the trees of the steps of a build cost a pointer a path each.
#[derive(Debug, Clone)]
pub(crate) struct MergedTree {
    items: Vec<Arc<Item>>,
}

impl Default for MergedTree {
    fn default() -> Self {
        Self::new()
    }
}

impl MergedTree {
    /// Returns the tree of no layers: the root alone.
    pub(crate) fn new() -> Self {
        Self { items: vec![implied_directory(b"", 0)] }
    }

    /// Puts `layer` on top. `index` is what its nodes will have as [`Node::layer`].
    ///
    /// A parent that the layer leaves out keeps its metadata when it is a directory below, else it becomes a directory
    /// `0755` of root. A hard link to nothing is left out.
    pub(crate) fn apply(&mut self, layer: &LayerTree, index: usize) {
        let overlay = Overlay::new(&self.items, layer, index);
        let Overlay { mut added, mut hidden, relinked, .. } = overlay.compute();
        for (at, link) in relinked {
            let item = Arc::make_mut(&mut self.items[at]);
            item.node.link = Some(link);
        }
        added.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        hidden.sort_unstable_by_key(|range| range.start);
        self.items = merge(std::mem::take(&mut self.items), added, &hidden);
    }

    /// Returns what stands at `path`, which is taken literally: no symlink is followed.
    pub(crate) fn get(&self, path: &[u8]) -> Option<&Node> {
        Some(&self.items[position(&self.items, path)?].node)
    }

    /// Returns the names in `dir`, sorted by bytes, with what stands there. Nothing if `dir` is no directory.
    pub(crate) fn children(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], &Node)> {
        let range = below(&self.items, dir);
        Children { items: &self.items[range], dir_len: if dir.is_empty() { 0 } else { dir.len() + 1 } }
    }

    /// Returns the full paths of everything below `dir`, without `dir`, sorted by path bytes.
    pub(crate) fn descendants(&self, dir: &[u8]) -> impl Iterator<Item = (&[u8], &Node)> {
        self.items[below(&self.items, dir)].iter().map(pair)
    }

    /// Returns all paths, the root first, sorted by path bytes.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&[u8], &Node)> {
        self.items.iter().map(pair)
    }
}

fn pair(item: &Arc<Item>) -> (&[u8], &Node) {
    (&item.path, &item.node)
}

fn implied_directory(path: &[u8], layer: usize) -> Arc<Item> {
    let node = Node { meta: implied_metadata(), kind: Kind::Directory { opaque: false }, layer, link: None };
    Arc::new(Item { path: path.into(), node })
}

fn position(items: &[Arc<Item>], path: &[u8]) -> Option<usize> {
    items.binary_search_by(|item| (*item.path).cmp(path)).ok()
}

/// Returns where everything below `dir` is. It is one run, which need not start right after `dir` itself.
fn below(items: &[Arc<Item>], dir: &[u8]) -> Range<usize> {
    if dir.is_empty() {
        return items.len().min(1)..items.len();
    }
    let start = items.partition_point(|item| cmp_with_suffix(&item.path, dir, b'/') == Ordering::Less);
    let end = start + items[start..].partition_point(|item| strip_dir(&item.path, dir).is_some());
    start..end
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
    items: &'t [Arc<Item>],
    dir_len: usize,
}

impl<'t> Iterator for Children<'t> {
    type Item = (&'t [u8], &'t Node);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let (first, rest) = self.items.split_first()?;
            let name = &first.path[self.dir_len..];
            let Some(slash) = name.iter().position(|b| *b == b'/') else {
                self.items = rest;
                return Some((name, &first.node));
            };
            // Below a child: jump over its whole run.
            let child = &first.path[..self.dir_len + slash];
            let run = self.items.partition_point(|item| strip_dir(&item.path, child).is_some());
            self.items = &self.items[run..];
        }
    }
}

/// Merges two sorted lists; `added` wins over an item of its path, items in `hidden` (sorted by start) go away.
fn merge(old: Vec<Arc<Item>>, added: Vec<Arc<Item>>, hidden: &[Range<usize>]) -> Vec<Arc<Item>> {
    let mut merged = Vec::with_capacity(old.len() + added.len());
    let mut added = added.into_iter().peekable();
    let mut hidden = hidden.iter().peekable();
    for (at, item) in old.into_iter().enumerate() {
        while let Some(new) = added.next_if(|new| new.path < item.path) {
            merged.push(new);
        }
        if let Some(new) = added.next_if(|new| new.path == item.path) {
            merged.push(new);
            continue;
        }
        while hidden.next_if(|range| range.end <= at).is_some() {}
        if !hidden.peek().is_some_and(|range| range.contains(&at)) {
            merged.push(item);
        }
    }
    merged.extend(added);
    merged.shrink_to_fit();
    merged
}

/// What one layer does to the items below it.
struct Overlay<'a> {
    base: &'a [Arc<Item>],
    layer: &'a LayerTree,
    index: usize,
    /// New items; those of the layer and implied directories.
    added: Vec<Arc<Item>>,
    /// Runs of `base` that go away; they nest or are apart.
    hidden: Vec<Range<usize>>,
    /// Files of `base` that get a second name.
    relinked: BTreeMap<usize, Arc<[u8]>>,
    /// Where in `base` the last entry of the layer is or would be.
    cursor: usize,
}

impl<'a> Overlay<'a> {
    fn new(base: &'a [Arc<Item>], layer: &'a LayerTree, index: usize) -> Self {
        let added = Vec::with_capacity(layer.entries().len());
        Self { base, layer, index, added, hidden: Vec::new(), relinked: BTreeMap::new(), cursor: 0 }
    }

    fn compute(mut self) -> Self {
        let first_names = self.first_names();
        for entry in self.layer.entries() {
            match &entry.kind {
                Kind::Whiteout => self.hide(&entry.path),
                Kind::Directory { opaque: false } => {}
                Kind::Directory { opaque: true } => self.hide_below(&entry.path),
                _ => self.replace(&entry.path),
            }
            if let Some(node) = self.node(entry, &first_names) {
                self.added.push(Arc::new(Item { path: entry.path.as_slice().into(), node }));
            }
        }
        self.add_implied();
        self
    }

    fn hide(&mut self, path: &[u8]) {
        if let Some(at) = self.advance(path) {
            self.hidden.push(at..at + 1);
            self.hide_below(path);
        }
    }

    /// Returns where `path` is in `base`. Paths come in order, so most are near the last one.
    fn advance(&mut self, path: &[u8]) -> Option<usize> {
        let rest = &self.base[self.cursor..];
        let mut reach = 1;
        while rest.get(reach).is_some_and(|item| *item.path < *path) {
            reach *= 2;
        }
        let window = &rest[..rest.len().min(reach + 1)];
        self.cursor += window.partition_point(|item| *item.path < *path);
        let found = self.base.get(self.cursor)?;
        (*found.path == *path).then_some(self.cursor)
    }

    /// Makes room for something other than a directory, which needs more than its own place only over a directory.
    fn replace(&mut self, path: &[u8]) {
        if self.advance(path).is_some_and(|at| self.base[at].node.is_dir()) {
            self.hide_below(path);
        }
    }

    fn hide_below(&mut self, path: &[u8]) {
        let range = below(self.base, path);
        if !range.is_empty() {
            self.hidden.push(range);
        }
    }

    /// Returns the files of the layer that another entry of the layer links to.
    fn first_names(&self) -> HashSet<&'a [u8]> {
        let layer = self.layer;
        let links = layer.entries().iter().filter(|entry| matches!(entry.kind, Kind::Hardlink { .. }));
        links.filter_map(|entry| follow(layer, entry)).map(|entry| entry.path.as_slice()).collect()
    }

    fn node(&mut self, entry: &Entry, first_names: &HashSet<&[u8]>) -> Option<Node> {
        let kind = match &entry.kind {
            Kind::Whiteout => return None,
            Kind::Hardlink { .. } => return self.linked_node(entry),
            Kind::Directory { .. } => Kind::Directory { opaque: false },
            other => other.clone(),
        };
        let link = first_names.contains(entry.path.as_slice()).then(|| entry.path.as_slice().into());
        Some(Node { meta: entry.meta.clone(), kind, layer: self.index, link })
    }

    fn linked_node(&mut self, entry: &Entry) -> Option<Node> {
        if let Some(first) = follow(self.layer, entry) {
            let link = Some(first.path.as_slice().into());
            return Some(Node { meta: first.meta.clone(), kind: first.kind.clone(), layer: self.index, link });
        }
        let at = position(self.base, last_target(self.layer, entry)?)?;
        let target = &self.base[at];
        if target.node.is_dir() {
            return None;
        }
        let link = target.node.link.clone().unwrap_or_else(|| (*target.path).into());
        self.relinked.insert(at, link.clone());
        Some(Node { link: Some(link), ..target.node.clone() })
    }

    /// Adds a directory for each missing parent.
    fn add_implied(&mut self) {
        let mut missing: BTreeSet<&'a [u8]> = BTreeSet::new();
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
        self.added.extend(missing.into_iter().map(|dir| implied_directory(dir, self.index)));
    }

    /// Whether `base` has a directory at `dir` that this layer, which has no entry there, does not hide.
    fn shows_directory(&self, dir: &[u8]) -> bool {
        let Some(at) = position(self.base, dir) else { return false };
        let hides = |above| matches!(self.layer.get(above), Some(Entry { kind: Kind::Directory { opaque: true }, .. }));
        self.base[at].node.is_dir() && !ancestors(dir).any(hides)
    }
}

/// Returns the entry of the same layer that a hard link comes down to, if it is there and can have several names.
fn follow<'l>(layer: &'l LayerTree, link: &Entry) -> Option<&'l Entry> {
    let entry = layer.get(last_target(layer, link)?)?;
    (!matches!(entry.kind, Kind::Directory { .. } | Kind::Whiteout)).then_some(entry)
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
