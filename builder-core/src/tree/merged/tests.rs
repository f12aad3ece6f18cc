use std::collections::BTreeMap;

use proptest::prelude::*;

use super::super::FollowLast;
use super::super::layer_tree::implied_metadata;
use super::super::path::{ancestors, join, parent};
use super::*;
use crate::digest::ContentHash;

fn entry(path: &str, kind: Kind) -> Entry {
    Entry { path: path.into(), meta: Metadata { mode: 0o700, ..Metadata::default() }, kind }
}

fn file(path: &str, text: &str) -> Entry {
    entry(path, Kind::File { size: text.len() as u64, content: ContentHash::of(text.as_bytes()) })
}

fn dir(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: false })
}

fn opaque(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: true })
}

fn whiteout(path: &str) -> Entry {
    Entry { path: path.into(), meta: Metadata::default(), kind: Kind::Whiteout }
}

fn hardlink(path: &str, target: &str) -> Entry {
    entry(path, Kind::Hardlink { target: target.into() })
}

fn stack(layers: &[Vec<Entry>]) -> MergedTree {
    let mut tree = MergedTree::new();
    for (index, entries) in layers.iter().enumerate() {
        tree.apply(&LayerTree::from_unsorted(entries.clone()), index);
    }
    tree
}

fn paths(tree: &MergedTree) -> Vec<String> {
    tree.iter().map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
}

#[test]
fn layers_hide_what_is_below() {
    let base = || vec![dir("a"), file("a/x", "1"), dir("a/d"), file("a/d/y", "2"), file("a-b", "3"), file("b", "4")];
    let cases: &[(&str, Vec<Entry>, &[&str])] = &[
        ("nothing", vec![], &["", "a", "a-b", "a/d", "a/d/y", "a/x", "b"]),
        ("whiteout of a file", vec![whiteout("a/x")], &["", "a", "a-b", "a/d", "a/d/y", "b"]),
        ("whiteout of a directory", vec![whiteout("a")], &["", "a-b", "b"]),
        ("whiteout of nothing", vec![whiteout("zz"), whiteout("a/x/y")], &["", "a", "a-b", "a/d", "a/d/y", "a/x", "b"]),
        ("opaque", vec![opaque("a"), file("a/n", "5")], &["", "a", "a-b", "a/n", "b"]),
        ("opaque with a kept name", vec![opaque("a"), dir("a/d")], &["", "a", "a-b", "a/d", "b"]),
        ("opaque without parents", vec![opaque("a"), file("a/d/n", "5")], &["", "a", "a-b", "a/d", "a/d/n", "b"]),
        ("file over directory", vec![file("a", "6")], &["", "a", "a-b", "b"]),
        ("directory over file", vec![dir("b"), file("b/n", "7")], &["", "a", "a-b", "a/d", "a/d/y", "a/x", "b", "b/n"]),
        ("nested", vec![whiteout("a/x"), opaque("a/d")], &["", "a", "a-b", "a/d", "b"]),
        ("all", vec![opaque("")], &[""]),
    ];
    for (name, layer, want) in cases {
        assert_eq!(paths(&stack(&[base(), layer.clone()])), *want, "{name}");
    }
}

#[test]
fn replaced_nodes_come_from_the_upper_layer() {
    let tree = stack(&[vec![dir("a"), file("a/x", "1")], vec![file("a/x", "22")]]);
    assert_eq!(tree.get(b"a").unwrap().layer, 0);
    let node = tree.get(b"a/x").unwrap();
    assert_eq!(node.layer, 1);
    assert_eq!(*node.kind, Kind::File { size: 2, content: ContentHash::of(b"22") });
    assert_eq!(tree.get(b"a/y"), None);
}

#[test]
fn missing_parents_are_directories_of_root() {
    let tree = stack(&[vec![dir("kept"), file("plain", "1")], vec![file("kept/x/y", "2"), file("plain/z", "3")]]);
    assert_eq!(paths(&tree), ["", "kept", "kept/x", "kept/x/y", "plain", "plain/z"]);
    assert_eq!(tree.get(b"kept").unwrap().meta.mode, 0o700, "metadata of a directory below stays");
    for implied in [&b"kept/x"[..], b"plain", b""] {
        let node = tree.get(implied).unwrap();
        assert!(node.is_dir() && *node.meta == implied_metadata());
    }
}

#[test]
fn root_takes_metadata() {
    let tree = stack(&[vec![dir("")], vec![file("a", "1")]]);
    assert_eq!(tree.get(b"").unwrap().meta.mode, 0o700);
}

#[test]
fn hard_links_inside_a_layer_form_groups() {
    let tree = stack(&[vec![file("b", "1"), hardlink("a", "b"), hardlink("c", "a"), file("d", "1")]]);
    for name in [&b"a"[..], b"b", b"c"] {
        let node = tree.get(name).unwrap();
        assert_eq!(node.link, Some(&b"b"[..]), "bytes are at b");
        assert!(matches!(node.kind, Kind::File { size: 1, .. }));
    }
    assert_eq!(tree.get(b"d").unwrap().link, None);
}

#[test]
fn hard_links_reach_lower_layers() {
    let tree = stack(&[vec![file("a", "1")], vec![hardlink("b", "a")], vec![hardlink("c", "b")]]);
    for name in [&b"a"[..], b"b", b"c"] {
        let node = tree.get(name).unwrap();
        assert_eq!((node.layer, node.link), (0, Some(&b"a"[..])));
    }
}

#[test]
fn hard_links_to_nothing_are_left_out() {
    let tree = stack(&[vec![
        hardlink("a", "missing"),
        hardlink("ring1", "ring2"),
        hardlink("ring2", "ring1"),
        dir("d"),
        hardlink("to-dir", "d"),
    ]]);
    assert_eq!(paths(&tree), ["", "d"]);
}

#[test]
fn clones_do_not_change_together() {
    let first = stack(&[vec![file("a", "1")]]);
    let mut second = first.clone();
    second.apply(&LayerTree::from_unsorted(vec![hardlink("b", "a"), file("c", "1")]), 1);
    assert_eq!(first.get(b"a").unwrap().link, None);
    assert_eq!(paths(&first), ["", "a"]);
}

#[test]
fn children_and_descendants() {
    let tree = stack(&[vec![
        dir("a"),
        file("a/x", "1"),
        file("a/d/y", "2"),
        file("a/d/z", "2"),
        file("a/d-e", "3"),
        file("a-b", "4"),
    ]]);
    let children = |dir: &str| -> Vec<_> {
        tree.children(dir.as_bytes()).map(|(name, _)| String::from_utf8_lossy(name).into_owned()).collect()
    };
    let below = |dir: &str| -> Vec<_> {
        tree.descendants(dir.as_bytes()).map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect()
    };
    assert_eq!(children(""), ["a", "a-b"]);
    assert_eq!(children("a"), ["d", "d-e", "x"]);
    assert_eq!(children("a/x"), Vec::<String>::new());
    assert_eq!(children("nothing"), Vec::<String>::new());
    assert_eq!(below("a"), ["a/d", "a/d-e", "a/d/y", "a/d/z", "a/x"]);
    assert_eq!(below("a/d"), ["a/d/y", "a/d/z"]);
    assert_eq!(below("").len(), 7);
}

#[test]
fn stays_compact() {
    // With the reference count, a pointer and a path of 40 bytes: some 220 bytes a path, shared between all clones.
    assert!(size_of::<Item>() <= 144, "{} bytes", size_of::<Item>());
}

#[test]
fn expands_wildcards() {
    let tree = stack(&[vec![
        file("src/a.c", "1"),
        file("src/b.c", "1"),
        file("src/sub/c.c", "1"),
        file("src/.hidden.c", "1"),
        file("src/sub.c/x.c", "1"),
        entry("link", Kind::Symlink { target: b"src".to_vec() }),
        file("x", "1"),
    ]]);
    let expand = |source: &str| -> Vec<String> {
        tree.expand(source.as_bytes()).unwrap().into_iter().map(|p| String::from_utf8(p).unwrap()).collect()
    };
    assert_eq!(expand("src/*.c"), ["src/.hidden.c", "src/a.c", "src/b.c", "src/sub.c"]);
    assert_eq!(expand("link/*.c"), ["src/.hidden.c", "src/a.c", "src/b.c", "src/sub.c"]);
    assert_eq!(expand("s*/[ab].c"), ["src/a.c", "src/b.c"]);
    assert_eq!(expand("l*/a.c"), Vec::<String>::new(), "symlinks under a wildcard are not followed");
    assert_eq!(expand("l*"), ["link"]);
    assert_eq!(expand("*/*/*"), ["src/sub.c/x.c", "src/sub/c.c"]);
    assert_eq!(expand("../?"), ["x"]);
    assert_eq!(expand("src/a.c"), ["src/a.c"]);
    assert_eq!(expand("nothing"), ["nothing"]);
    assert!(tree.expand(b"x/*").unwrap().is_empty());
    assert!(tree.expand(b"[").is_err());
}

/// A stack applied path by path to a map, as an unpacker would do it on disk.
fn model(layers: &[Arc<LayerTree>]) -> BTreeMap<Vec<u8>, (Kind, usize)> {
    let mut map = BTreeMap::from([(Vec::new(), (Kind::Directory { opaque: false }, 0))]);
    let remove = |map: &mut BTreeMap<Vec<u8>, (Kind, usize)>, path: &[u8], itself: bool| {
        map.retain(|other, (_, _)| !(strip_dir(other, path).is_some() || itself && other == path));
    };
    for (index, layer) in layers.iter().enumerate() {
        for entry in layer.entries() {
            match &entry.kind {
                Kind::Whiteout => remove(&mut map, &entry.path, true),
                Kind::Directory { opaque: true } => remove(&mut map, &entry.path, false),
                _ => {}
            }
        }
        for entry in layer.entries().iter().filter(|entry| entry.kind != Kind::Whiteout) {
            for dir in ancestors(&entry.path) {
                let found = map.get(dir).map(|(kind, _)| matches!(kind, Kind::Directory { .. }));
                if found != Some(true) {
                    map.insert(dir.to_vec(), (Kind::Directory { opaque: false }, index));
                }
            }
            let kind = match &entry.kind {
                Kind::Directory { .. } => Kind::Directory { opaque: false },
                other => {
                    remove(&mut map, &entry.path, true);
                    other.clone()
                }
            };
            map.insert(entry.path.clone(), (kind, index));
        }
    }
    map
}

fn layer() -> impl Strategy<Value = Arc<LayerTree>> {
    let kind = prop_oneof![
        3 => Just(Kind::Fifo),
        2 => any::<bool>().prop_map(|opaque| Kind::Directory { opaque }),
        2 => Just(Kind::Whiteout),
    ];
    prop::collection::vec(("[ab]{1,2}(/[ab-]{1,2}){0,3}", kind), 0..12).prop_map(|entries| {
        let entry = |(path, kind): (String, _)| Entry { path: path.into(), meta: Metadata::default(), kind };
        LayerTree::from_unsorted(entries.into_iter().map(entry).collect())
    })
}

proptest! {
    #[test]
    fn agrees_with_the_model(layers in prop::collection::vec(layer(), 1..5)) {
        let mut tree = MergedTree::new();
        for (index, layer) in layers.iter().enumerate() {
            tree.apply(layer, index);
        }
        let found: BTreeMap<_, _> = tree.iter().map(|(p, n)| (p.to_vec(), (n.kind.clone(), n.layer))).collect();
        prop_assert_eq!(&found, &model(&layers));

        for (path, node) in tree.iter() {
            prop_assert!(tree.get(path) == Some(node));
            prop_assert_eq!(tree.resolve(path, FollowLast::No), Ok(path.to_vec()));
            if let Some(dir) = parent(path) {
                prop_assert!(tree.get(dir).is_some_and(|node| node.is_dir()), "parent of {:?}", path);
            }
            let below: Vec<&[u8]> = tree.descendants(path).map(|(path, _)| path).collect();
            let want: Vec<&[u8]> = found.keys().map(Vec::as_slice).filter(|p| strip_dir(p, path).is_some()).collect();
            prop_assert_eq!(&below, &want);
            let children: Vec<Vec<u8>> = tree.children(path).map(|(name, _)| join(path, name)).collect();
            let want: Vec<&[u8]> = below.into_iter().filter(|p| parent(p) == Some(path)).collect();
            prop_assert_eq!(children, want);
        }
    }
}
