//! Real directories, made as root, as mapped root and as a plain user: what only root can do is checked when it is
//! there.

mod foreign;
mod hostile;
mod namespace;
mod umoci;

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::digest::{ContentHash, Digest};
use crate::layer::write::WrittenLayer;
use crate::layer::{LayerOptions, LayerWriter};
use crate::request::{Compression, CompressionKind};
use crate::tree::{Entry, Timestamp};

fn store() -> (TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn entry(path: &str, mode: u32, kind: Kind) -> Entry {
    let meta = Metadata { mode, mtime: Timestamp { secs: 1_000_000, nanos: 123 }, ..Metadata::default() };
    Entry { path: path.as_bytes().to_vec(), meta, kind }
}

fn dir(path: &str) -> Entry {
    entry(path, 0o755, Kind::Directory { opaque: false })
}

fn file(path: &str, size: usize) -> Entry {
    entry(path, 0o644, Kind::File { size: size as u64, content: ContentHash([0; 32]) })
}

fn write(store: &Store, entries: &[(Entry, &[u8])]) -> WrittenLayer {
    let compression = Compression { kind: CompressionKind::Gzip, level: Some(1) };
    let options = LayerOptions { compression, threads: 1, clamp_mtime: None };
    let mut writer = LayerWriter::create(store, options).unwrap();
    for (entry, content) in entries {
        let mut content = *content;
        writer.append(entry.clone(), Some(&mut content)).unwrap();
    }
    writer.finish().unwrap()
}

/// Stores a tar that others made as a layer.
fn foreign(store: &Store, tar: &[u8]) -> LayerDescriptor {
    let digest = store.put_blob(tar).unwrap();
    LayerDescriptor { digest, size: tar.len() as u64, diff_id: DiffId(digest), media_type: "tar".to_owned() }
}

fn unpack_one(store: &Store, layer: &LayerDescriptor) -> Result<(PathBuf, Vec<Note>)> {
    let Lowerdirs { mut paths, notes } = unpack_all(store, std::slice::from_ref(layer), 1)?;
    Ok((paths.remove(0), notes))
}

fn xattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 4096];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

/// Everything below `dir`, relative.
fn listing(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> = walkdir::WalkDir::new(dir)
        .min_depth(1)
        .into_iter()
        .map(|entry| entry.unwrap().path().strip_prefix(dir).unwrap().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// Compares what is on disk with what the tree says.
fn check_tree(dir: &Path, tree: &LayerTree) {
    use std::os::unix::ffi::OsStrExt;
    for entry in tree.entries() {
        let path = dir.join(std::ffi::OsStr::from_bytes(&entry.path));
        if entry.kind == Kind::Whiteout && path.parent().is_some_and(|parent| !parent.exists()) {
            continue; // there is nothing to hide
        }
        let found = fs::symlink_metadata(&path).unwrap_or_else(|e| panic!("{path:?}: {e}"));
        let kind = found.file_type();
        match &entry.kind {
            Kind::Whiteout => {
                assert!(kind.is_char_device() && found.rdev() == 0, "{path:?}");
                continue;
            }
            Kind::Directory { opaque } => {
                assert!(kind.is_dir(), "{path:?}");
                assert_eq!(xattr(&path, OPAQUE_XATTR), opaque.then(|| b"y".to_vec()), "{path:?}");
            }
            Kind::File { size, content } => {
                let bytes = fs::read(&path).unwrap();
                assert_eq!((bytes.len() as u64, ContentHash::of(&bytes)), (*size, *content), "{path:?}");
            }
            Kind::Hardlink { target } => {
                let target = fs::symlink_metadata(dir.join(std::ffi::OsStr::from_bytes(target))).unwrap();
                assert_eq!(found.ino(), target.ino(), "{path:?}");
            }
            Kind::Symlink { target } => {
                assert_eq!(fs::read_link(&path).unwrap().as_os_str().as_bytes(), target, "{path:?}");
            }
            Kind::Fifo => assert!(kind.is_fifo(), "{path:?}"),
            Kind::CharDevice { major, minor } => {
                let stand_in = xattr(&path, NODE_XATTR) == Some(format!("c {major} {minor}").into_bytes());
                assert!(stand_in || kind.is_char_device() && found.rdev() == rustix::fs::makedev(*major, *minor));
            }
            Kind::BlockDevice { major, minor } => {
                let stand_in = xattr(&path, NODE_XATTR) == Some(format!("b {major} {minor}").into_bytes());
                assert!(stand_in || kind.is_block_device() && found.rdev() == rustix::fs::makedev(*major, *minor));
            }
        }
        let Metadata { mode, uid, gid, mtime, xattrs } = &entry.meta;
        assert_eq!(found.mode() & 0o7777, *mode, "mode of {path:?}");
        assert_eq!((found.mtime(), found.mtime_nsec()), (mtime.secs, i64::from(mtime.nanos)), "time of {path:?}");
        if xattr(&path, OWNER_XATTR) != Some(format!("{uid}:{gid}").into_bytes()) && is_root() {
            assert_eq!((found.uid(), found.gid()), (*uid, *gid), "owner of {path:?}");
        }
        for (name, value) in xattrs.iter().filter(|(name, _)| name.starts_with(b"user.") || is_root()) {
            assert_eq!(xattr(&path, std::str::from_utf8(name).unwrap()).as_ref(), Some(value), "{path:?}");
        }
    }
}

/// One of everything.
fn sample() -> Vec<(Entry, &'static [u8])> {
    let with = |mut entry: Entry, change: &dyn Fn(&mut Metadata)| {
        change(&mut entry.meta);
        entry
    };
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    vec![
        (entry("", 0o711, Kind::Directory { opaque: false }), b""),
        (with(dir("bin"), &|m| (m.uid, m.gid) = (12, 34)), b""),
        (
            with(file("bin/ping", 4), &|m| {
                m.uid = 1000;
                m.xattrs.insert(b"security.capability".to_vec(), capability.to_vec());
                m.xattrs.insert(b"user.note".to_vec(), b"\x00\n".to_vec());
            }),
            b"ping",
        ),
        (entry("bin/su", 0o4755, Kind::File { size: 2, content: ContentHash([0; 32]) }), b"su"),
        (entry("dev", 0o2775, Kind::Directory { opaque: true }), b""),
        (entry("dev/disk", 0o660, Kind::BlockDevice { major: 8, minor: 1 }), b""),
        (entry("dev/null", 0o666, Kind::CharDevice { major: 1, minor: 3 }), b""),
        (entry("dev/pipe", 0o600, Kind::Fifo), b""),
        (entry("dev/zero-zero", 0o600, Kind::CharDevice { major: 0, minor: 0 }), b""),
        (entry("gone", 0, Kind::Whiteout), b""),
        (entry("link", 0o777, Kind::Symlink { target: b"/etc/passwd".to_vec() }), b""),
        (entry("locked", 0o000, Kind::Directory { opaque: false }), b""),
        (entry("locked/inside", 0o000, Kind::File { size: 1, content: ContentHash([0; 32]) }), b"i"),
        (entry("tmp", 0o1777, Kind::Directory { opaque: false }), b""),
        (file("tmp/one", 3), b"one"),
        (entry("tmp/two", 0o644, Kind::Hardlink { target: b"tmp/one".to_vec() }), b""),
    ]
}

#[test]
fn a_layer_is_on_disk_what_its_tree_says() {
    let (_dir, store) = store();
    let locked = |(entry, _): &(Entry, &[u8])| entry.path.starts_with(b"locked");
    // A plain user cannot look into it again, nor remove it.
    let entries: Vec<_> = sample().into_iter().filter(|entry| is_root() || !locked(entry)).collect();
    let written = write(&store, &entries);
    let (path, _) = unpack_one(&store, &written.layer).unwrap();
    assert_eq!(path, store.path().join("unpacked").join(written.layer.diff_id.0.hex()));
    check_tree(&path, &written.tree);
    assert_eq!(unpack_one(&store, &written.layer).unwrap().0, path, "the second time it is there");
}

#[test]
fn unpacking_makes_the_tree() {
    let (_dir, store_a) = store();
    let written = write(&store_a, &[(dir("a"), b""), (file("a/b", 3), b"abc"), (entry("c", 0, Kind::Whiteout), b"")]);
    let (_dir, store_b) = store();
    store_b.put_blob(&store_a.read_blob(&written.layer.digest, 1 << 20).unwrap()).unwrap();
    unpack_one(&store_b, &written.layer).unwrap();
    assert_eq!(store_b.tree(&written.layer.diff_id).unwrap(), Some(written.tree));
}

#[test]
fn a_stack_is_unpacked_in_order_by_any_number_of_threads() {
    let (_dir, store) = store();
    let names: Vec<String> = (0..7).map(|n| format!("f{n}")).collect();
    let layers: Vec<_> = names.iter().map(|name| write(&store, &[(file(name, 2), b"xy")]).layer).collect();
    let stack = [&layers[..], &layers[..2]].concat();
    std::thread::scope(|scope| {
        let (store, stack) = (&store, &stack);
        let builds = [1, 4, 16].map(|threads| scope.spawn(move || unpack_all(store, stack, threads).unwrap()));
        for build in builds {
            let paths = build.join().unwrap().paths;
            assert_eq!(paths.len(), 9, "a layer may be in a stack twice");
            for (path, name) in paths.iter().zip(names.iter().chain(&names[..2])) {
                assert_eq!(listing(path), [name.as_str()]);
            }
        }
    });
    assert!(unpack_all(&store, &[], 4).unwrap().paths.is_empty());
}

#[test]
fn a_layer_of_other_bytes_than_promised_is_not_kept() {
    let (_dir, store) = store();
    let written = write(&store, &[(file("f", 1), b"x")]);
    let other = LayerDescriptor { diff_id: DiffId(Digest::of(b"other")), ..written.layer.clone() };
    let error = unpack_one(&store, &other).unwrap_err();
    let Error::Layer { digest, source } = error else { panic!("{error:?}") };
    assert_eq!(digest, other.digest);
    assert!(matches!(*source, Error::DiffIdMismatch { found, .. } if found == written.layer.diff_id));
    assert_eq!(store.unpacked(&other.diff_id.0.hex()).unwrap(), None);
    assert_eq!(store.tree(&other.diff_id).unwrap(), None);
    assert!(crate::layer::ensure_tree(&store, &other).is_err());
}

#[test]
fn a_damaged_blob_leaves_nothing() {
    let (_dir, store) = store();
    let content = crate::layer::compress::tests::sample(600_000);
    let written = write(&store, &[(file("f", content.len()), &content)]);
    let good = store.read_blob(&written.layer.digest, 1 << 20).unwrap();
    let mut flipped = good.clone();
    flipped[good.len() / 2] ^= 0x55;
    for bytes in [&good[..good.len() / 2], &good[..good.len() - 1], &flipped] {
        let layer = LayerDescriptor { digest: store.put_blob(bytes).unwrap(), ..written.layer.clone() };
        assert!(unpack_one(&store, &layer).is_err());
        assert_eq!(
            fs::read_dir(store.path().join("unpacked"))
                .unwrap()
                .filter(|e| e.as_ref().unwrap().path().is_dir())
                .count(),
            0
        );
    }
}

#[test]
fn long_runs_of_zeros_become_holes() {
    let (_dir, store) = store();
    let mut content = vec![0; 64 << 20];
    content[10 << 20] = 1;
    let written = write(&store, &[(file("big", content.len()), &content)]);
    assert!(written.layer.size < 1 << 20);
    let (path, _) = unpack_one(&store, &written.layer).unwrap();
    let found = fs::metadata(path.join("big")).unwrap();
    assert_eq!(found.len(), 64 << 20);
    assert!(found.blocks() * 512 < 1 << 20, "{} blocks", found.blocks());
    check_tree(&path, &written.tree);
}

#[test]
fn very_deep_directories_are_unpacked() {
    let (_dir, store) = store();
    let depth = 1500;
    let paths: Vec<String> = (1..=depth).map(|n| vec!["dd"; n].join("/")).collect();
    let mut entries: Vec<_> = paths.iter().map(|path| (dir(path), &b""[..])).collect();
    let deepest = format!("{}/f", paths.last().unwrap());
    entries.push((file(&deepest, 1), b"x"));
    let written = write(&store, &entries);
    let (path, _) = unpack_one(&store, &written.layer).unwrap();
    assert_eq!(
        fs::read(path.join(deepest)).unwrap_err().kind(),
        std::io::ErrorKind::InvalidFilename,
        "beyond PATH_MAX"
    );
    assert!(path.join(&paths[1000]).is_dir());
}
