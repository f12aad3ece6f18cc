//! What is written is read; what does not fit together is refused before anything is done with it.

use serde_json::{Value, json};

use super::document::{self, Contents};
use super::*;
use crate::digest::{CacheKey, DiffId, Digest};
use crate::image::{ImageConfig, MANIFEST_LIMIT, Manifest};
use crate::layer::{LayerOptions, LayerWriter};
use crate::request::{CacheSource, Compression};
use crate::store::{LayerDescriptor, Store};
use crate::tree::{Entry as TreeEntry, Kind, Metadata};

struct Fixture {
    _dir: tempfile::TempDir,
    store: Store,
}

impl Fixture {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let store = Store::open(&dir.path().join("state")).unwrap();
        Self { _dir: dir, store }
    }

    fn path(&self) -> std::path::PathBuf {
        self._dir.path().join("cache")
    }

    /// A layer with one directory.
    fn layer(&self, name: &str) -> LayerDescriptor {
        let options = LayerOptions { compression: Compression::default(), threads: 1, clamp_mtime: None };
        let mut writer = LayerWriter::create(&self.store, options).unwrap();
        let kind = Kind::Directory { opaque: false };
        let meta = Metadata { mode: 0o755, ..Metadata::default() };
        writer.append(TreeEntry { path: name.into(), meta, kind }, None).unwrap();
        writer.finish().unwrap().layer
    }

    fn entry(&self, key: u8, layers: &[LayerDescriptor]) -> Entry {
        Entry {
            key: CacheKey([key; 32]),
            layers: layers.iter().map(|layer| (layer.clone(), Some(6))).collect(),
            bases: Vec::new(),
            created: Some(100),
            made: Some(200),
            found_in: None,
            is_new: true,
            is_hollow: false,
        }
    }

    /// Manifest and config of what these entries are shared as.
    fn documents(&self, entries: Vec<Entry>) -> (Manifest, ImageConfig) {
        let bundle = Bundle::make(&self.store, entries).unwrap();
        let manifest = Manifest::parse(&self.store.read_blob(&bundle.digest(), MANIFEST_LIMIT).unwrap()).unwrap();
        let config = self.store.read_blob(&manifest.config.digest, MANIFEST_LIMIT).unwrap();
        (manifest, ImageConfig::parse(&config).unwrap())
    }
}

fn read(manifest: &Manifest, config: &ImageConfig) -> Result<Option<Contents>, Error> {
    document::read("x", manifest, config)
}

#[test]
fn what_is_written_is_read() {
    let fixture = Fixture::new();
    let (a, b) = (fixture.layer("a"), fixture.layer("b"));
    let base = Entry { bases: vec![b.clone()], layers: Vec::new(), ..fixture.entry(3, &[]) };
    let entries = vec![fixture.entry(1, std::slice::from_ref(&a)), fixture.entry(2, &[]), base];
    let (manifest, config) = fixture.documents(entries.clone());
    let contents = read(&manifest, &config).unwrap().unwrap();
    let result = &contents.results[&CacheKey([1; 32])];
    assert_eq!((&result.layers, result.created, result.made), (&vec![(a.clone(), Some(6))], Some(100), Some(200)));
    assert!(contents.results[&CacheKey([2; 32])].layers.is_empty());
    assert_eq!(contents.trees.keys().copied().collect::<std::collections::BTreeSet<DiffId>>().len(), 2);
    assert_eq!(manifest.layers.len(), 3, "the base's bytes stay where they are: one layer, two trees");
    assert_eq!(fixture.documents(entries).0, manifest, "the same results are the same bytes");
}

#[test]
fn a_cache_without_layers_is_a_manifest_with_one() {
    let fixture = Fixture::new();
    let (manifest, config) = fixture.documents(vec![fixture.entry(1, &[])]);
    assert_eq!((manifest.layers.len(), config.rootfs.diff_ids.len()), (1, 0), "registries want a layer");
    assert!(read(&manifest, &config).unwrap().unwrap().results.contains_key(&CacheKey([1; 32])));
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let fixture = Fixture::new();
    let layer = fixture.layer("a");
    let (manifest, config) = fixture.documents(vec![fixture.entry(1, &[layer])]);
    let changed = |change: &dyn Fn(&mut Value)| {
        let mut config = config.clone();
        change(config.extra.get_mut(CONFIG_FIELD).unwrap());
        read(&manifest, &config).unwrap_err().to_string()
    };
    for (change, part) in [
        (&(|v: &mut Value| v["records"][0]["layers"] = json!([1])) as &dyn Fn(&mut Value), "names layer 1 of 1"),
        (&|v| v["records"][0]["layers"] = json!([-1]), "invalid value"),
        (&|v| v["records"][0]["key"] = json!("../x"), "is no key"),
        (&|v| v["trees"][0]["blob"] = json!(0), "no table of contents"),
        (&|v| v["trees"][0]["blob"] = json!(7), "no table of contents"),
        (&|v| v["trees"][0]["diff_id"] = json!("md5:1"), "not a digest"),
        (&|v| v["levels"] = json!([700]), "invalid value"),
    ] {
        let text = changed(change);
        assert!(text.contains(part), "{text}");
    }
    let mut more = config.clone();
    more.rootfs.diff_ids = vec![DiffId(Digest::of(b"x")); 3];
    assert!(read(&manifest, &more).unwrap_err().to_string().contains("3 diff IDs for 2 layers"));
    let mut foreign = manifest.clone();
    foreign.layers[0].urls = vec!["http://169.254.169.254/".to_owned()];
    assert!(read(&foreign, &config).is_err(), "a layer that is fetched from somewhere else");
    let mut typed = manifest.clone();
    typed.layers[0].media_type = "text/html".to_owned();
    assert!(read(&typed, &config).is_err());
    let mut other = config.clone();
    other.extra.insert(CONFIG_FIELD.to_owned(), json!({"version": 2, "records": "?"}));
    assert!(read(&manifest, &other).unwrap().is_none(), "another version is no cache");
}

/// Everything that `shared` finds must go well.
fn find(shared: &Shared, key: u8) -> Option<Found> {
    shared.find(&CacheKey([key; 32]), &mut Err::<(), _>).unwrap()
}

fn directory(fixture: &Fixture, oldest: Option<i64>) -> Shared {
    let client = crate::registry::Client::new(crate::registry::ClientConfig::default());
    Shared::new(&client, &[CacheSource::Directory(fixture.path())], oldest).unwrap()
}

#[test]
fn a_found_layer_comes_when_it_is_read_although_the_directory_was_rewritten() {
    let first = Fixture::new();
    let layer = first.layer("a");
    let bundle = Bundle::make(&first.store, vec![first.entry(1, std::slice::from_ref(&layer))]).unwrap();
    bundle.write(&first.store, &first.path()).unwrap();
    let second = Fixture::new();
    let shared = directory(&first, None);
    assert!(find(&shared, 2).is_none());
    let found = find(&shared, 1).unwrap();
    let layers = shared.promise(&second.store, &found, &|_, _| None).unwrap();
    assert_eq!(layers, std::slice::from_ref(&layer));
    Bundle::make(&first.store, vec![first.entry(2, &[])]).unwrap().write(&first.store, &first.path()).unwrap();
    let tree = crate::layer::ensure_tree(&second.store, &layer).unwrap();
    assert_eq!(tree.entries().last().unwrap().path, b"a");
    assert!(!second.store.has_blob(&layer.digest).unwrap(), "the tree was enough");
    second.store.open_blob(&layer.digest).unwrap();
    assert!(second.store.tree(&layer.diff_id).unwrap().is_some(), "it was read and proved right");
    assert!(shared.broken().is_none());
}

#[test]
fn results_that_are_too_old_are_not_found() {
    let fixture = Fixture::new();
    Bundle::make(&fixture.store, vec![fixture.entry(1, &[])]).unwrap().write(&fixture.store, &fixture.path()).unwrap();
    assert!(find(&directory(&fixture, Some(200)), 1).is_some());
    assert!(find(&directory(&fixture, Some(201)), 1).is_none());
}

#[test]
fn a_tree_of_another_layer_breaks_the_cache_when_the_layer_comes() {
    let first = Fixture::new();
    let (a, b) = (first.layer("a"), first.layer("b"));
    let (mut manifest, mut config) = first.documents(vec![first.entry(1, &[a.clone(), b])]);
    let trees = config.extra.get_mut(CONFIG_FIELD).unwrap()["trees"].as_array_mut().unwrap();
    let (x, y) = (trees[0]["blob"].clone(), trees[1]["blob"].clone());
    (trees[0]["blob"], trees[1]["blob"]) = (y, x);
    let config = config.to_canonical_json();
    let digest = first.store.put_blob(&config).unwrap();
    (manifest.config.digest, manifest.config.size) = (digest, config.len() as u64);
    first.store.put_blob(&manifest.to_canonical_json()).unwrap();
    crate::export::replace_layout(&first.store, &manifest.descriptor(), &first.path()).unwrap();

    let second = Fixture::new();
    let shared = directory(&first, None);
    shared.promise(&second.store, &find(&shared, 1).unwrap(), &|_, _| None).unwrap();
    let believed = crate::layer::ensure_tree(&second.store, &a).unwrap();
    assert_eq!(believed.entries().last().unwrap().path, b"b");
    assert!(second.store.open_blob(&a.digest).is_err());
    assert!(shared.broken().unwrap().reason.contains("wrong table of contents"), "{:?}", shared.broken());
    shared.give_up(&second.store);
    assert!(shared.is_empty() && shared.broken().is_none());
    let read = crate::layer::ensure_tree(&second.store, &a).unwrap();
    assert_eq!(read.entries().last().unwrap().path, b"a", "the layer itself tells");
}

#[test]
fn a_layer_that_is_only_described_is_enough_until_somebody_reads_it() {
    let first = Fixture::new();
    let (kept, described) = (first.layer("a"), first.layer("b"));
    let hollow = Entry { is_hollow: true, ..first.entry(2, std::slice::from_ref(&described)) };
    let entries = vec![first.entry(1, &[kept]), hollow];
    let (manifest, _) = first.documents(entries.clone());
    assert!(!manifest.layers.iter().any(|blob| blob.digest == described.digest));
    Bundle::make(&first.store, entries).unwrap().write(&first.store, &first.path()).unwrap();

    let second = Fixture::new();
    let shared = directory(&first, None);
    let found = find(&shared, 2).unwrap();
    assert!(found.is_hollow());
    shared.promise(&second.store, &found, &|_, _| None).unwrap();
    let tree = crate::layer::ensure_tree(&second.store, &described).unwrap();
    assert_eq!(tree.entries().last().unwrap().path, b"b");
    assert!(shared.is_hollow(&described.digest) && shared.broken().is_none());
    assert!(second.store.open_blob(&described.digest).is_err());
    assert!(shared.broken().unwrap().is_hollow);
    shared.insist(&second.store);
    assert!(find(&shared, 2).is_none() && find(&shared, 1).is_some() && !shared.is_empty());
}
