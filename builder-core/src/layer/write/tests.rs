use tempfile::TempDir;

use super::*;
use crate::digest::Digest;
use crate::layer::ensure_tree;

pub(crate) fn options(kind: CompressionKind) -> LayerOptions {
    LayerOptions { compression: Compression { kind, level: None }, threads: 2, clamp_mtime: None }
}

fn entry(path: &str, kind: Kind) -> Entry {
    let meta = Metadata { mode: 0o755, mtime: Timestamp { secs: 1000, nanos: 7 }, ..Metadata::default() };
    Entry { path: path.as_bytes().to_vec(), meta, kind }
}

fn file(path: &str, size: usize) -> Entry {
    entry(path, Kind::File { size: size as u64, content: ContentHash([0; 32]) })
}

fn dir(path: &str) -> Entry {
    entry(path, Kind::Directory { opaque: false })
}

fn link(path: &str, target: &str) -> Entry {
    entry(path, Kind::Hardlink { target: target.as_bytes().to_vec() })
}

fn write(store: &Store, options: LayerOptions, entries: &[(Entry, &[u8])]) -> Result<WrittenLayer> {
    let mut writer = LayerWriter::create(store, options)?;
    for (entry, content) in entries {
        let mut content = *content;
        writer.append(entry.clone(), Some(&mut content))?;
    }
    writer.finish()
}

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

#[test]
fn a_written_layer_is_in_the_store_with_the_tree_that_its_blob_has() {
    let entries = [
        (dir(""), &b""[..]),
        (entry("d", Kind::Directory { opaque: true }), b""),
        (file("d/a", 5), b"hello"),
        (link("d/b", "d/a"), b""),
        (entry("d/hidden", Kind::Whiteout), b""),
        (entry("gone", Kind::Whiteout), b""),
        (entry("s", Kind::Symlink { target: b"d/a".to_vec() }), b""),
        (link("t", "s"), b""),
    ];
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd, CompressionKind::Uncompressed] {
        let (_dir, store_a) = store();
        let written = write(&store_a, options(kind), &entries).unwrap();
        let blob = store_a.read_blob(&written.layer.digest, 1 << 20).unwrap();
        assert_eq!(blob.len() as u64, written.layer.size);
        assert_eq!(store_a.tree(&written.layer.diff_id).unwrap().as_deref(), Some(&*written.tree));
        let Kind::File { content, .. } = written.tree.get(b"d/a").unwrap().kind else { panic!("no file") };
        assert_eq!(content, ContentHash::of(b"hello"), "the given hash is not believed");

        let (_dir, store_b) = store();
        store_b.put_blob(&blob).unwrap();
        assert_eq!(ensure_tree(&store_b, &written.layer).unwrap(), written.tree, "{kind:?}");
        assert_eq!(store_b.tree(&written.layer.diff_id).unwrap(), Some(written.tree), "kept for the next time");
    }
}

#[test]
fn the_bytes_do_not_depend_on_threads() {
    let content = crate::layer::compress::tests::sample(3 << 20);
    let (_dir, store) = store();
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd] {
        let digest = |threads| {
            let options = LayerOptions { threads, ..options(kind) };
            write(&store, options, &[(file("f", content.len()), &content)]).unwrap().layer.digest
        };
        let one = digest(1);
        assert!([2, 8].into_iter().all(|threads| digest(threads) == one), "{kind:?}");
    }
}

/// The digests of a small layer are the same in every version, on every machine.
#[test]
fn golden_digests_of_a_layer() {
    let (_dir, store) = store();
    for (kind, digest) in [
        (CompressionKind::Uncompressed, "649068d03b7648dce9b8963bf53a90870c62f08a5aaffd822428949295388060"),
        (CompressionKind::Gzip, "a42ec274fe642ee0551178bebb9d939aaa5072b79488407d3a1fea44c72bc542"),
        (CompressionKind::Zstd, "cb33c06fe9a6fab6ce82d82a967762544163a26b0890b274bc9508cd50aa9df5"),
    ] {
        let entries = [(dir("etc"), &b""[..]), (file("etc/motd", 6), b"hello\n"), (entry("tmp", Kind::Whiteout), b"")];
        let written = write(&store, options(kind), &entries).unwrap();
        assert_eq!(written.layer.digest.hex(), digest, "{kind:?}");
    }
}

#[test]
fn later_times_are_clamped_and_earlier_ones_stay() {
    let (_dir, store) = store();
    let at = |path: &str, secs, nanos| {
        let mut file = file(path, 0);
        file.meta.mtime = Timestamp { secs, nanos };
        (file, &b""[..])
    };
    let entries = [at("a", 99, 999_999_999), at("b", 100, 0), at("c", 100, 1), at("d", 5000, 3), at("e", -5, 3)];
    let options = LayerOptions { clamp_mtime: Some(100), ..options(CompressionKind::Gzip) };
    let written = write(&store, options, &entries).unwrap();
    let times: Vec<_> = written.tree.entries().iter().map(|e| (e.meta.mtime.secs, e.meta.mtime.nanos)).collect();
    assert_eq!(times, [(99, 999_999_999), (100, 0), (100, 0), (100, 0), (-5, 3)]);
}

#[test]
fn entries_that_make_no_sense_are_errors() {
    type Check = fn(&Error) -> bool;
    let (_dir, store) = store();
    let cases: Vec<(Vec<Entry>, Check)> = vec![
        (vec![dir("b"), dir("a")], |e| matches!(e, Error::Order { .. })),
        (vec![dir("a"), dir("a")], |e| matches!(e, Error::Order { .. })),
        (vec![file("a/b", 0)], |e| matches!(e, Error::ParentMissing { .. })),
        (vec![file("a", 0), file("a/b", 0)], |e| matches!(e, Error::ParentMissing { .. })),
        (vec![entry("a", Kind::Whiteout), file("a/b", 0)], |e| matches!(e, Error::ParentMissing { .. })),
        (vec![file(".wh.x", 0)], |e| matches!(e, Error::ReservedName { .. })),
        (vec![dir(".wh..wh..opq")], |e| matches!(e, Error::ReservedName { .. })),
        (vec![dir("a"), file("a/.wh.b", 0)], |e| matches!(e, Error::ReservedName { .. })),
        (vec![link("b", "a")], |e| matches!(e, Error::LinkTarget { .. })),
        (vec![dir("a"), link("b", "a")], |e| matches!(e, Error::LinkTarget { .. })),
        (vec![file("a", 0), link("b", "a"), link("c", "b")], |e| matches!(e, Error::LinkTarget { .. })),
        (vec![entry("a", Kind::Symlink { target: vec![] })], |e| matches!(e, Error::EmptySymlink { .. })),
        (vec![file("../a", 0)], |e| matches!(e, Error::ParentMissing { .. })),
    ];
    for (entries, check) in cases {
        let all: Vec<_> = entries.iter().map(|entry| (entry.clone(), &b""[..])).collect();
        match write(&store, options(CompressionKind::Uncompressed), &all) {
            Err(error) => assert!(check(&error), "{entries:?}: {error:?}"),
            Ok(_) => panic!("{entries:?} is accepted"),
        }
    }
}

#[test]
fn a_file_that_changes_while_it_is_read_is_an_error_that_names_it() {
    let (_dir, store) = store();
    for content in [&b"hell"[..], b"hello!", b""] {
        let result = write(&store, options(CompressionKind::Gzip), &[(file("some/file", 5), content)]);
        assert!(result.is_err());
        let result = write(&store, options(CompressionKind::Gzip), &[(file("file", 5), content)]);
        assert!(matches!(result, Err(Error::SizeChanged { path, size: 5 }) if path == b"file"));
    }
    let grown = write(&store, options(CompressionKind::Gzip), &[(file("file", 0), b"x")]);
    assert!(matches!(grown, Err(Error::SizeChanged { .. })));
}

#[test]
fn an_abandoned_layer_leaves_no_blob() {
    let (_dir, store) = store();
    let mut writer = LayerWriter::create(&store, options(CompressionKind::Gzip)).unwrap();
    let content = vec![7; 5 << 20];
    writer.append(file("f", content.len()), Some(&mut &content[..])).unwrap();
    drop(writer);
    assert_eq!(std::fs::read_dir(store.path().join("blobs/sha256")).unwrap().count(), 0);
}

#[test]
fn the_empty_layer_is_two_zero_blocks() {
    let (_dir, store) = store();
    let written = write(&store, options(CompressionKind::Uncompressed), &[]).unwrap();
    assert_eq!(written.layer.digest, Digest::of(&[0; 1024]));
    assert_eq!(written.layer.diff_id.0, written.layer.digest);
}
