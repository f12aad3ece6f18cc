//! Tests of the store as a whole: several handles on one directory stand for several processes, because `flock` tells
//! open files apart, not processes.

mod blobs;
mod builds;
mod collect;
mod killed;
mod recovery;
mod removal;
mod sharing;

use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::oci::MEDIA_TYPE_MANIFEST;
use super::oci::Manifest;
use super::{CacheDir, Descriptor, LayerDescriptor, Record, Store};
use crate::digest::{CacheKey, DiffId, Digest};
use crate::tree::{Entry, Kind, LayerTree, Metadata};

/// A new state directory with an open store.
pub(super) fn new_store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

/// Another handle on the same directory.
pub(super) fn other(store: &Store) -> Store {
    Store::open(store.path()).unwrap()
}

pub(super) fn key(n: u8) -> CacheKey {
    CacheKey([n; 32])
}

/// Stores a layer of any bytes with its tree.
pub(super) fn put_layer(store: &Store, bytes: &[u8]) -> LayerDescriptor {
    let digest = store.put_blob(bytes).unwrap();
    let diff_id = DiffId(Digest::of(&[b"diff of ", bytes].concat()));
    store.put_tree(&diff_id, &some_tree()).unwrap();
    let media_type = "application/vnd.oci.image.layer.v1.tar".to_owned();
    LayerDescriptor { digest, size: bytes.len() as u64, diff_id, media_type }
}

pub(super) fn cache_dir(store: &Store) -> PathBuf {
    match store.cache_mount("m").unwrap() {
        CacheDir::Ready(path) => path,
        CacheDir::New(new) => new.commit().unwrap(),
    }
}

pub(super) fn some_tree() -> LayerTree {
    let entry =
        |path: &[u8]| Entry { path: path.to_vec(), meta: Metadata::default(), kind: Kind::Directory { opaque: false } };
    LayerTree::from_sorted(vec![entry(b"a"), entry(b"b")]).unwrap()
}

pub(super) fn record_of(layers: Vec<LayerDescriptor>) -> Record {
    Record { layers, parts: vec![("command".to_owned(), "make".to_owned())], ..Record::default() }
}

/// Stores an image of these layers and returns its descriptor, untagged.
pub(super) fn put_image(store: &Store, layers: &[LayerDescriptor]) -> Descriptor {
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id).collect();
    let config = serde_json::json!({
        "created": "2024-01-01T00:00:00Z", "architecture": "amd64", "os": "linux", "config": {},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": diff_ids.iter().map(|_| serde_json::json!({"created": "2024-01-01T00:00:00Z"})).collect::<Vec<_>>(),
    });
    let config = serde_json::to_vec(&config).unwrap();
    let config_type = "application/vnd.oci.image.config.v1+json";
    let manifest = Manifest {
        schema_version: 2,
        media_type: Some(MEDIA_TYPE_MANIFEST.to_owned()),
        artifact_type: None,
        config: Descriptor::new(config_type, store.put_blob(&config).unwrap(), config.len() as u64),
        layers: layers.iter().map(|layer| Descriptor::new(&layer.media_type, layer.digest, layer.size)).collect(),
        subject: None,
        annotations: std::collections::BTreeMap::new(),
        extra: super::oci::Extra::new(),
    };
    let bytes = serde_json::to_vec(&manifest).unwrap();
    Descriptor::new(MEDIA_TYPE_MANIFEST, store.put_blob(&bytes).unwrap(), bytes.len() as u64)
}

/// Names in a directory, sorted.
pub(super) fn names(dir: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn a_directory_with_other_things_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("thesis.tex"), "x").unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("is not empty and not an OCI layout"), "{error}");
    assert_eq!(names(dir.path()), ["thesis.tex"], "nothing may be made in it");
}

#[test]
fn a_layout_of_another_version_is_refused() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oci-layout"), r#"{"imageLayoutVersion":"2.0.0"}"#).unwrap();
    let error = Store::open(dir.path()).unwrap_err().to_string();
    assert!(error.contains("\"2.0.0\""), "{error}");
}

#[test]
fn opening_repairs_an_unfinished_start() {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("oci-layout"), "").unwrap();
    fs::create_dir(dir.path().join("lost+found")).unwrap();
    fs::create_dir(dir.path().join("blobs")).unwrap();
    Store::open(dir.path()).unwrap();
    assert_eq!(fs::read_to_string(dir.path().join("oci-layout")).unwrap(), super::OCI_LAYOUT);
    assert!(Store::open(dir.path()).unwrap().images().unwrap().is_empty());
}

#[test]
fn keys_that_are_no_file_names_are_refused() {
    let (_dir, store) = new_store();
    for key in ["", ".", "..", "a/b", "../x", "a\0", "key.lock", &"x".repeat(201)] {
        assert!(store.unpacked(key).is_err(), "{key:?}");
        assert!(store.cache_mount(key).is_err(), "{key:?}");
        assert!(store.stat_cache_path(key).is_err(), "{key:?}");
    }
    assert!(store.unpacked(&format!("{}-{}", "a".repeat(64), "b".repeat(64))).unwrap().is_none());
}

#[test]
fn trees_come_back_and_damaged_ones_count_as_absent() {
    let (_dir, store) = new_store();
    let id = DiffId(Digest::of(b"layer"));
    assert!(store.tree(&id).unwrap().is_none());
    store.put_tree(&id, &some_tree()).unwrap();
    assert_eq!(*store.tree(&id).unwrap().unwrap(), some_tree());
    let path = store.path().join("trees").join(id.0.hex());
    for damaged in [&b""[..], b"\0\0\0\0\0\0", b"stand"] {
        fs::write(&path, damaged).unwrap();
        assert!(store.tree(&id).unwrap().is_none(), "{damaged:?}");
    }
    store.put_tree(&id, &some_tree()).unwrap();
    assert!(store.tree(&id).unwrap().is_some());
}

#[test]
fn records_come_back_unless_damaged_or_without_their_blobs() {
    let (_dir, store) = new_store();
    assert_eq!(store.record(&key(1)).unwrap(), None);
    let layer = put_layer(&store, b"layer");
    let record = record_of(vec![layer.clone()]);
    store.put_record(&key(1), &record).unwrap();
    assert_eq!(store.record(&key(1)).unwrap(), Some(record.clone()));
    assert_eq!(store.records().unwrap(), [(key(1).to_string(), record)]);

    let path = store.path().join("records").join(key(1).to_string());
    let bytes = fs::read(&path).unwrap();
    let other_version = String::from_utf8(bytes.clone()).unwrap().replace("\"version\":1", "\"version\":9");
    for damaged in [&b""[..], &bytes[..bytes.len() / 2], &vec![0; bytes.len()], other_version.as_bytes()] {
        fs::write(&path, damaged).unwrap();
        assert_eq!(store.record(&key(1)).unwrap(), None);
    }
    fs::write(&path, bytes).unwrap();
    assert!(store.record(&key(1)).unwrap().is_some());
    fs::remove_file(store.blob_path(&layer.digest)).unwrap();
    assert_eq!(store.record(&key(1)).unwrap(), None, "a record without its blob is of no use");
}

#[test]
fn images_are_tagged_moved_and_untagged() {
    let (_dir, store) = new_store();
    let one = put_image(&store, &[put_layer(&store, b"one")]);
    let two = put_image(&store, &[put_layer(&store, b"two")]);
    store.tag_image("docker.io/library/app:1", &one).unwrap();
    store.tag_image("docker.io/library/app:2", &one).unwrap();
    store.tag_image("docker.io/library/app:1", &two).unwrap();
    let images = store.images().unwrap();
    let seen: Vec<_> = images.iter().map(|image| (image.name.as_str(), image.descriptor.digest)).collect();
    assert_eq!(seen, [("docker.io/library/app:1", two.digest), ("docker.io/library/app:2", one.digest)]);
    assert_eq!(store.resolve_image("docker.io/library/app:1").unwrap(), Some(two.clone()));
    assert_eq!(store.resolve_image("app:1").unwrap(), None);
    assert!(store.untag_image("docker.io/library/app:1").unwrap());
    assert!(!store.untag_image("docker.io/library/app:1").unwrap());
    assert_eq!(store.images().unwrap().len(), 1);

    let missing = Descriptor::new(MEDIA_TYPE_MANIFEST, Digest::of(b"nothing"), 7);
    assert!(store.tag_image("x:1", &missing).unwrap_err().to_string().contains("is not in the store"));
    assert!(store.tag_image("", &two).is_err() && store.tag_image("a\nb", &two).is_err());
}

#[test]
fn entries_of_other_tools_stay_in_the_index() {
    let (_dir, store) = new_store();
    let image = put_image(&store, &[]);
    let mut index = store.read_index().unwrap();
    let mut foreign = image.clone();
    foreign.annotations.insert("com.example.note".to_owned(), "mine".to_owned());
    index.manifests.push(foreign.clone());
    index.annotations.insert("com.example.index".to_owned(), "kept".to_owned());
    fs::write(store.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
    store.tag_image("a:1", &image).unwrap();
    store.untag_image("a:1").unwrap();
    assert_eq!(store.read_index().unwrap(), index);
}
