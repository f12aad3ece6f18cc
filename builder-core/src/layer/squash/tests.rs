use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::digest::ContentHash;
use crate::request::{Compression, CompressionKind};
use crate::tree::Timestamp;

/// What a made-up layer does at a path.
#[derive(Debug, Clone, Copy)]
enum Change {
    File(u8),
    /// A link to the file before it, if there is one.
    Link,
    Directory,
    Opaque,
    Symlink,
    Whiteout,
}

fn change() -> impl Strategy<Value = Change> {
    prop_oneof![
        3 => (0..4u8).prop_map(Change::File),
        1 => Just(Change::Link),
        2 => Just(Change::Directory),
        1 => Just(Change::Opaque),
        1 => Just(Change::Symlink),
        3 => Just(Change::Whiteout),
    ]
}

/// Few names, so that layers meet; some sort between a directory and what is in it.
fn path() -> impl Strategy<Value = String> {
    prop::collection::vec(prop_oneof![Just("a"), Just("b"), Just("a-")], 1..4).prop_map(|names| names.join("/"))
}

fn options() -> LayerOptions {
    let compression = Compression { kind: CompressionKind::Uncompressed, level: None };
    LayerOptions { compression, threads: 1, clamp_mtime: None }
}

/// The entries of a layer that has these changes, as a step would give them.
fn entries(number: usize, changes: &BTreeMap<String, Change>) -> Vec<(Entry, Vec<u8>)> {
    let mut all = changes.clone();
    for path in changes.keys() {
        for dir in ancestors(path.as_bytes()).filter(|dir| !dir.is_empty()) {
            let dir = String::from_utf8(dir.to_vec()).unwrap();
            let there = all.entry(dir).or_insert(Change::Directory);
            if !matches!(there, Change::Opaque) {
                *there = Change::Directory;
            }
        }
    }
    let mut last_file: Option<Vec<u8>> = None;
    let entry = |(path, change): (String, Change)| {
        let path = path.into_bytes();
        let secs = i64::try_from(number).unwrap();
        let meta = Metadata { mode: 0o640, mtime: Timestamp { secs, nanos: 0 }, ..Metadata::default() };
        let mut content = Vec::new();
        let kind = match (change, &last_file) {
            (Change::Link, Some(target)) => Kind::Hardlink { target: target.clone() },
            (Change::File(_) | Change::Link, _) => {
                let size = if let Change::File(size) = change { usize::from(size) } else { 1 };
                content = vec![b'0' + u8::try_from(number).unwrap(); size];
                last_file = Some(path.clone());
                Kind::File { size: size as u64, content: ContentHash::of(&content) }
            }
            (Change::Directory, _) => Kind::Directory { opaque: false },
            (Change::Opaque, _) => Kind::Directory { opaque: true },
            (Change::Symlink, _) => Kind::Symlink { target: path.clone() },
            (Change::Whiteout, _) => Kind::Whiteout,
        };
        (Entry { path, meta, kind }, content)
    };
    all.into_iter().map(entry).collect()
}

fn write(store: &Store, entries: Vec<(Entry, Vec<u8>)>) -> LayerDescriptor {
    let mut writer = LayerWriter::create(store, options()).unwrap();
    for (entry, content) in entries {
        writer.append(entry, Some(&mut content.as_slice())).unwrap();
    }
    writer.finish().unwrap().layer
}

/// What layers come to: each path with all it has, and the first name of its file.
fn shape(store: &Store, layers: &[LayerDescriptor]) -> Vec<String> {
    let mut tree = MergedTree::new();
    for (index, layer) in layers.iter().enumerate() {
        let layer: Arc<LayerTree> = ensure_tree(store, layer).unwrap();
        tree.apply(&layer, index);
    }
    let mut first_names: HashMap<Place, Vec<u8>> = HashMap::new();
    let show = |(path, node): (&[u8], Node<'_>)| {
        let place = (node.layer, node.link.unwrap_or(path).to_vec());
        let first = first_names.entry(place).or_insert_with(|| path.to_vec());
        let (path, first) = (String::from_utf8_lossy(path), String::from_utf8_lossy(first));
        format!("{path} is {first}: {:?} {:?}", node.meta, node.kind)
    };
    tree.iter().map(show).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn one_layer_comes_to_what_several_do(
        changes in prop::collection::vec(prop::collection::btree_map(path(), change(), 1..8), 1..6),
        first in 0..4usize,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        let layers: Vec<LayerDescriptor> =
            changes.iter().enumerate().map(|(number, changes)| write(&store, entries(number, changes))).collect();
        let first = first.min(layers.len());
        let one = squash(&store, &layers, first, options()).unwrap();
        let squashed: Vec<LayerDescriptor> = layers[..first].iter().cloned().chain(one.clone()).collect();
        prop_assert_eq!(shape(&store, &squashed), shape(&store, &layers));
        // What the layers below do not have need not be removed from them.
        let mut below = MergedTree::new();
        for (index, layer) in layers[..first].iter().enumerate() {
            below.apply(&ensure_tree(&store, layer).unwrap(), index);
        }
        for entry in one.iter().flat_map(|one| ensure_tree(&store, one).unwrap().entries().to_vec()) {
            prop_assert!(entry.kind != Kind::Whiteout || below.get(&entry.path).is_some(), "{:?}", entry);
        }
        // The same layers give the same bytes.
        prop_assert_eq!(squash(&store, &layers, first, options()).unwrap(), one);
    }
}
