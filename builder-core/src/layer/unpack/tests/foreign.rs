//! Layers as other tools write them.

use super::*;
use crate::layer::extract_contents;
use crate::layer::tar::Writer;
use std::collections::BTreeMap;

/// A tar with entries in any order and form.
pub(super) fn tar(entries: &[(Entry, &[u8])]) -> Vec<u8> {
    let mut writer = Writer::new(Vec::new());
    for (entry, content) in entries {
        writer.append(entry).unwrap();
        if !content.is_empty() {
            writer.write_content(content).unwrap();
        }
    }
    writer.finish().unwrap()
}

fn link(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (entry(path, 0o644, Kind::Hardlink { target: target.as_bytes().to_vec() }), b"")
}

fn symlink(path: &str, target: &str) -> (Entry, &'static [u8]) {
    (entry(path, 0o777, Kind::Symlink { target: target.as_bytes().to_vec() }), b"")
}

#[test]
fn what_replaces_what_is_the_same_on_disk_and_in_the_tree() {
    let (_dir, store) = store();
    let whiteout = |path| (entry(path, 0, Kind::Whiteout), &b""[..]);
    let opaque = |path| (entry(path, 0o755, Kind::Directory { opaque: true }), &b""[..]);
    let d = |path| (dir(path), &b""[..]);
    let f = |path| (file(path, 4), &b"data"[..]);
    let cases: Vec<Vec<(Entry, &[u8])>> = vec![
        vec![f("b"), d("a"), f("a/x")],
        vec![d("a"), d("a/b"), f("a/b/c"), f("a-b"), f("a")],
        vec![f("a"), d("a"), f("a/b")],
        vec![d("a"), f("a/b"), symlink("a", "c"), d("c")],
        vec![d("x"), symlink("d", "x"), f("d/y"), link("x/z", "d/y")],
        vec![f("z"), link("a", "z"), link("m", "a"), f("z")],
        vec![symlink("z", "nowhere"), link("a", "z")],
        vec![whiteout("a"), d("a"), f("a/b")],
        vec![f("a"), whiteout("a")],
        vec![opaque("a"), whiteout("a/b"), f("a/c")],
        vec![d("a"), whiteout("a/b"), f("a")],
        vec![(entry("p", 0o600, Kind::Fifo), b""), link("q", "p")],
    ];
    for entries in cases {
        let layer = foreign(&store, &tar(&entries));
        let (path, _) = unpack_one(&store, &layer).unwrap();
        let tree = store.tree(&layer.diff_id).unwrap().unwrap();
        check_tree(&path, &tree);
        let expected: Vec<_> = tree.entries().iter().map(|e| String::from_utf8_lossy(&e.path).into_owned()).collect();
        assert_eq!(listing(&path), expected);
    }
}

#[test]
fn the_last_name_of_a_group_has_the_metadata() {
    let (_dir, store) = store();
    let mut second = link("b", "a").0;
    second.meta.mode = 0o4711;
    second.meta.mtime.secs = 5;
    let layer = foreign(&store, &tar(&[(file("a", 1), b"x"), (second, b"")]));
    let (path, _) = unpack_one(&store, &layer).unwrap();
    let tree = store.tree(&layer.diff_id).unwrap().unwrap();
    check_tree(&path, &tree);
    assert_eq!(tree.get(b"a").unwrap().meta.mode, 0o4711);
}

#[test]
fn parents_that_are_left_out_look_as_in_the_layers_below() {
    let (_dir, store) = store();
    let base = |mode| write(&store, &[(entry("etc", mode, Kind::Directory { opaque: false }), b"")]).layer;
    let upper = foreign(&store, &tar(&[(file("etc/a", 1), b"x"), (file("new/b", 1), b"y")]));
    let mode = |path: &Path, name: &str| fs::metadata(path.join(name)).unwrap().mode() & 0o7777;
    let mut seen = Vec::new();
    for base_mode in [0o700, 0o750] {
        let stack = [base(base_mode), upper.clone()];
        let paths = unpack_all(&store, &stack, 2).unwrap().paths;
        assert_eq!(mode(&paths[1], "etc"), base_mode);
        assert_eq!(fs::metadata(paths[1].join("etc")).unwrap().mtime(), 1_000_000, "also its time");
        assert_eq!(mode(&paths[1], "new"), 0o755);
        assert_eq!(unpack_all(&store, &stack, 1).unwrap().paths, paths, "found again");
        seen.push(paths[1].clone());
    }
    assert_ne!(seen[0], seen[1], "each stack has its own");
    let alone = unpack_one(&store, &upper).unwrap().0;
    assert_eq!(mode(&alone, "etc"), 0o755);
    assert!(!store.tree(&upper.diff_id).unwrap().unwrap().entries().iter().any(Entry::is_dir), "the tree invents none");
}

#[test]
fn a_whiteout_makes_no_directory_that_was_not_there() {
    let (_dir, store) = store();
    let gone = |path| (entry(path, 0, Kind::Whiteout), &b""[..]);
    let upper = foreign(&store, &tar(&[gone("etc/a"), gone("never/was/b")]));
    let base = write(&store, &[(dir("etc"), b""), (file("etc/a", 1), b"x")]).layer;
    let paths = unpack_all(&store, &[base, upper], 1).unwrap().paths;
    assert_eq!(listing(&paths[1]), ["etc", "etc/a"]);
    assert!(fs::symlink_metadata(paths[1].join("etc/a")).unwrap().file_type().is_char_device());
}

#[test]
fn an_opaque_root_hides_the_layers_below_it() {
    let (_dir, store) = store();
    let base = write(&store, &[(file("a", 1), b"x")]).layer;
    let opaque =
        write(&store, &[(entry("", 0o755, Kind::Directory { opaque: true }), b""), (file("b", 1), b"y")]).layer;
    let top = write(&store, &[(file("c", 1), b"z")]).layer;
    let paths = unpack_all(&store, &[base, opaque, top], 2).unwrap().paths;
    assert_eq!(paths.iter().map(|path| listing(path)).collect::<Vec<_>>(), [["b"], ["c"]]);
}

#[test]
fn files_are_extracted_by_any_of_their_names() {
    let (dir, store) = store();
    let hole = [&vec![0; 200_000][..], b"end"].concat();
    let layer = foreign(
        &store,
        &tar(&[
            (file("z", 3), b"one"),
            link("a", "z"),
            symlink("s", "z"),
            (file("twice", 3), b"old"),
            (file("hole", hole.len()), &hole),
            (file("twice", 4), b"last"),
            (file("empty", 0), b""),
        ]),
    );
    let out = |name: &str| dir.path().join(name);
    let wanted = |names: &[&str]| -> BTreeMap<_, _> { names.iter().map(|n| (n.as_bytes().to_vec(), out(n))).collect() };
    fs::write(out("twice"), "something longer that was there").unwrap();
    extract_contents(&store, &layer, &wanted(&["a", "z", "twice", "hole", "empty"])).unwrap();
    for (name, content) in [("a", &b"one"[..]), ("z", b"one"), ("twice", b"last"), ("hole", &hole), ("empty", b"")] {
        assert!(fs::read(out(name)).unwrap() == content, "{name}");
    }
    for bad in ["s", "missing", ""] {
        assert!(matches!(extract_contents(&store, &layer, &wanted(&[bad])), Err(Error::NotAFile { .. })), "{bad:?}");
    }
    extract_contents(&store, &layer, &BTreeMap::new()).unwrap();
}

#[test]
fn layers_made_by_gnu_tar_are_unpacked() {
    let (dir, store) = store();
    let source = dir.path().join("src/usr/share");
    fs::create_dir_all(&source).unwrap();
    fs::write(source.join("data"), vec![3; 100_000]).unwrap();
    fs::hard_link(source.join("data"), source.join("again")).unwrap();
    std::os::unix::fs::symlink("data", source.join("alias")).unwrap();
    for compression in ["--gzip", "--zstd", "--no-auto-compress"] {
        let output = std::process::Command::new("tar")
            .args(["-c", compression, "--format=pax", "-f", "-", "-C"])
            .arg(dir.path().join("src"))
            .arg(".")
            .output();
        let Ok(output) = output else {
            eprintln!("SKIP layers_made_by_gnu_tar_are_unpacked: no tar");
            return;
        };
        assert!(output.status.success(), "{output:?}");
        let mut tar = Vec::new();
        let accepted = crate::layer::compress::Accepted::Layer;
        let mut stream = crate::layer::compress::decode(&output.stdout[..], accepted).unwrap();
        std::io::Read::read_to_end(&mut stream, &mut tar).unwrap();
        let diff_id = DiffId(Digest::of(&tar));
        let layer = LayerDescriptor { diff_id, ..foreign(&store, &output.stdout) };
        let (path, _) = unpack_one(&store, &layer).unwrap();
        let tree = store.tree(&diff_id).unwrap().unwrap();
        check_tree(&path, &tree);
        assert_eq!(fs::read(path.join("usr/share/again")).unwrap(), vec![3; 100_000]);
    }
}
