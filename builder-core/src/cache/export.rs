//! Writing what a build shares: one manifest over all layers and trees, to where it shall be.

use std::collections::BTreeMap;
use std::path::Path;

use super::CONFIG_FIELD;
use super::Error;
use super::document::{Document, LeveledLayer, MEDIA_TYPE_TREE, RecordEntry, TREE_LIMIT, TreeEntry};
use crate::digest::{CacheKey, DiffId, Digest};
use crate::export::{self, Origins, Push, Sender};
use crate::image::{
    ANNOTATION_REF_NAME, Descriptor, ImageConfig, MANIFEST_LIMIT, MEDIA_TYPE_CONFIG, Manifest, Platform,
};
use crate::layer;
use crate::registry::{self, Client, Reference};
use crate::store::{LayerDescriptor, Store};

/// Content that stands for none, where a registry wants a layer (image-spec `manifest.md`, "Guidance for an Empty
/// Descriptor").
const EMPTY: &[u8] = b"{}";
/// Tags asked for or put at once.
const PARALLEL_REQUESTS: usize = 4;
const MEDIA_TYPE_EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The result of a step, to be shared.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Its key.
    pub(crate) key: CacheKey,
    /// Layers that it made, with their compression levels.
    pub(crate) layers: Vec<LeveledLayer>,
    /// Further layers whose trees are shared, but not their bytes.
    pub(crate) bases: Vec<LayerDescriptor>,
    /// `created` of the step, in seconds since 1970.
    pub(crate) created: Option<i64>,
    /// When it was really done.
    pub(crate) made: Option<i64>,
    /// Repository that has the result already.
    pub(crate) found_in: Option<String>,
    /// Done by this build, so that it counts whatever others have.
    pub(crate) is_new: bool,
    /// Its layers are only described.
    pub(crate) is_hollow: bool,
}

/// What a build shares, in the store.
#[derive(Debug)]
pub(crate) struct Bundle {
    /// Names the manifest.
    descriptor: Descriptor,
    entries: Vec<Entry>,
}

fn own(source: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Own { source: Box::new(source) }
}

impl Bundle {
    /// Puts manifest, config and trees of `entries` into the store.
    pub(crate) fn make(store: &Store, entries: Vec<Entry>) -> Result<Self, Error> {
        let layers = distinct(&entries);
        let mut document = Document { levels: layers.iter().map(|(_, level)| *level).collect(), ..Document::default() };
        document.described = described(&entries);
        document.records = records(&entries, (&layers, &document.described), true);
        let mut blobs: Vec<Descriptor> = layers.iter().map(|(layer, _)| describe(layer)).collect();
        let mut trees: BTreeMap<DiffId, &LayerDescriptor> = BTreeMap::new();
        for entry in &entries {
            let of_layers = entry.layers.iter().map(|(layer, _)| layer);
            trees.extend(of_layers.chain(&entry.bases).map(|layer| (layer.diff_id, layer)));
        }
        for (diff_id, layer) in trees {
            if let Some(tree) = tree(store, layer)? {
                document.trees.push(TreeEntry { diff_id, blob: blobs.len() });
                blobs.push(tree);
            }
        }
        if blobs.is_empty() {
            let digest = store.put_blob(EMPTY).map_err(own)?;
            blobs.push(Descriptor::new(MEDIA_TYPE_EMPTY, digest, EMPTY.len() as u64));
        }
        let mut config = ImageConfig::new(&Platform::host());
        config.rootfs.diff_ids = layers.iter().map(|(layer, _)| layer.diff_id).collect();
        config.extra.insert(CONFIG_FIELD.to_owned(), serde_json::to_value(&document).map_err(own)?);
        let config = config.to_canonical_json();
        let digest = store.put_blob(&config).map_err(own)?;
        let manifest = Manifest::new(Descriptor::new(MEDIA_TYPE_CONFIG, digest, config.len() as u64), blobs);
        store.put_blob(&manifest.to_canonical_json()).map_err(own)?;
        Ok(Self { descriptor: manifest.descriptor(), entries })
    }

    /// Digest of the manifest.
    pub(crate) fn digest(&self) -> Digest {
        self.descriptor.digest
    }

    /// Tags it in the repository of `target`: by the keys that others would not find there, and by `tag`
    /// if there is one.
    pub(crate) fn push(
        &self,
        store: &Store,
        client: &Client,
        (target, tag): (&Reference, Option<&str>),
        origins: Origins<'_>,
    ) -> Result<(), Error> {
        let mut targets: Vec<Reference> = Vec::new();
        let whole: Vec<&Entry> = self.entries.iter().filter(|entry| !entry.is_hollow).collect();
        let wanted = in_parallel(&whole, &|entry: &&Entry| {
            let tagged = target.with_tag(entry.key.to_string());
            let known = entry.found_in.as_ref() == Some(&target.name());
            let wanted = entry.is_new || !(known || is_there(client, &tagged)?);
            Ok(wanted.then_some(tagged))
        })?;
        targets.extend(wanted.into_iter().flatten());
        targets.extend(tag.map(|tag| target.with_tag(tag)));
        let name = target.name();
        let Some((first, rest)) = targets.split_first() else { return Ok(()) };
        let push = Push { sender: &Sender::new(store, client, origins), image: &self.descriptor };
        push.run(std::slice::from_ref(first)).map_err(|source| Error::Write { name: name.clone(), source })?;
        // All that the manifest names is there now.
        let manifest = store.read_blob(&self.descriptor.digest, MANIFEST_LIMIT).map_err(own)?;
        let tag = |tagged: &Reference| match client.push_manifest(tagged, &self.descriptor.media_type, &manifest) {
            Ok(_) => Ok(()),
            Err(source) => Err(Error::Ask { name: name.clone(), source }),
        };
        in_parallel(rest, &tag).map(drop)
    }

    /// Makes it the whole content of the directory `dir`.
    pub(crate) fn write(&self, store: &Store, dir: &Path) -> Result<(), Error> {
        let mut descriptor = self.descriptor.clone();
        descriptor.annotations.insert(ANNOTATION_REF_NAME.to_owned(), CONFIG_FIELD.to_owned());
        let written = export::replace_layout(store, &descriptor, dir);
        written.map_err(|source| Error::Write { name: dir.display().to_string(), source })
    }
}

/// The field for the config of an image made of `layers`, whose levels are those given: the results whose layers are all
/// there. `None` when there are none.
pub(crate) fn inline(entries: &[Entry], layers: &[LeveledLayer]) -> Option<serde_json::Value> {
    let levels = layers.iter().map(|(_, level)| *level).collect();
    let document = Document { records: records(entries, (layers, &[]), false), levels, ..Document::default() };
    if document.records.is_empty() { None } else { serde_json::to_value(document).ok() }
}

/// All layers of entries with layers, each once.
fn distinct(entries: &[Entry]) -> Vec<LeveledLayer> {
    let mut layers: Vec<LeveledLayer> = Vec::new();
    for found in entries.iter().filter(|entry| !entry.is_hollow).flat_map(|entry| &entry.layers) {
        if !layers.iter().any(|(layer, _)| layer.digest == found.0.digest) {
            layers.push(found.clone());
        }
    }
    layers
}

/// All layers of the other entries, each once.
fn described(entries: &[Entry]) -> Vec<LayerDescriptor> {
    let mut layers: Vec<LayerDescriptor> = Vec::new();
    for (found, _) in entries.iter().filter(|entry| entry.is_hollow).flat_map(|entry| &entry.layers) {
        if !layers.contains(found) {
            layers.push(found.clone());
        }
    }
    layers
}

/// The entries in terms of `layers`, which are found by what they unpack to, and of those that are only described.
/// `with_clock` tells when they were made.
fn records(
    entries: &[Entry],
    (layers, described): (&[LeveledLayer], &[LayerDescriptor]),
    with_clock: bool,
) -> Vec<RecordEntry> {
    let number = |wanted: &LeveledLayer| layers.iter().position(|(layer, _)| layer.diff_id == wanted.0.diff_id);
    let described = |wanted: &LeveledLayer| described.iter().position(|layer| *layer == wanted.0);
    let record = |entry: &Entry| {
        let numbers: Vec<usize> = match entry.is_hollow {
            false => entry.layers.iter().map(number).collect::<Option<_>>()?,
            true => entry.layers.iter().map(described).collect::<Option<_>>()?,
        };
        let made = entry.made.filter(|_| with_clock);
        let (layers, described) = if entry.is_hollow { (Vec::new(), numbers) } else { (numbers, Vec::new()) };
        Some(RecordEntry { key: entry.key.to_string(), layers, described, created: entry.created, made })
    };
    entries.iter().filter_map(record).collect()
}

fn describe(layer: &LayerDescriptor) -> Descriptor {
    Descriptor::new(layer.media_type.clone(), layer.digest, layer.size)
}

/// The stored tree of a layer as a blob; `None` where only fetching the layer would tell it, and for one so large that
/// nobody would read it.
fn tree(store: &Store, layer: &LayerDescriptor) -> Result<Option<Descriptor>, Error> {
    let known = match store.tree(&layer.diff_id).map_err(own)? {
        Some(tree) => Some(tree),
        None if store.has_blob(&layer.digest).map_err(own)? => Some(layer::ensure_tree(store, layer).map_err(own)?),
        None => store.promised_tree(&layer.diff_id, &layer.digest).map_err(own)?,
    };
    let Some(tree) = known else { return Ok(None) };
    let mut bytes = Vec::new();
    tree.encode(&mut bytes).map_err(own)?;
    if bytes.len() as u64 > TREE_LIMIT {
        return Ok(None);
    }
    let digest = store.put_blob(&bytes).map_err(own)?;
    Ok(Some(Descriptor::new(MEDIA_TYPE_TREE, digest, bytes.len() as u64)))
}

/// Does something for each, several at once; the first error ends it.
fn in_parallel<T: Sync, R: Send>(items: &[T], work: &(dyn Fn(&T) -> Result<R, Error> + Sync)) -> Result<Vec<R>, Error> {
    let size = items.len().div_ceil(PARALLEL_REQUESTS).max(1);
    let part = |part: &[T]| part.iter().map(work).collect::<Result<Vec<R>, Error>>();
    let done = std::thread::scope(|scope| {
        let threads: Vec<_> = items.chunks(size).map(|chunk| scope.spawn(move || part(chunk))).collect();
        let join = |thread: std::thread::ScopedJoinHandle<'_, _>| {
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        };
        threads.into_iter().map(join).collect::<Result<Vec<Vec<R>>, Error>>()
    })?;
    Ok(done.into_iter().flatten().collect())
}

/// Whether something has this tag.
fn is_there(client: &Client, tagged: &Reference) -> Result<bool, Error> {
    match client.head_manifest(tagged) {
        Ok(_) => Ok(true),
        Err(registry::Error::NotFound { .. }) => Ok(false),
        Err(source) => Err(Error::Ask { name: tagged.name(), source }),
    }
}
