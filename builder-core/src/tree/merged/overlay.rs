//! What one layer does to a stack.

use std::collections::{BTreeSet, HashSet};
use std::ops::Range;

use super::super::path::{ancestors, parent};
use super::super::{Entry, Kind, LayerTree};
use super::{Item, MergedTree, Place, count};

/// Longest chain of hard links to hard links that is followed; tar writers make chains of one.
const MAX_LINK_CHAIN: usize = 16;

/// What one layer does to the items below it.
pub(super) struct Effect {
    /// New items, in the order of the layer's entries.
    pub(super) added: Vec<Item>,
    /// Runs of items that go away; they nest or are apart.
    pub(super) hidden: Vec<Range<usize>>,
    /// Files that get a second name.
    pub(super) relinked: Vec<usize>,
    /// Directories that nobody described.
    pub(super) implied: LayerTree,
}

/// Works out the effect of one layer.
pub(super) struct Overlay<'a> {
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
    pub(super) fn new(base: &'a MergedTree, layer: &'a LayerTree) -> Self {
        let table = base.next_table();
        Self { base, layer, table, hidden: Vec::new(), relinked: Vec::new(), cursor: 0 }
    }

    pub(super) fn compute(mut self) -> Effect {
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
