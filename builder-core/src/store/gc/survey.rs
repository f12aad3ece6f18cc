//! What there is and what reaches it, read once under the exclusive gc lock.

use std::collections::{HashMap, HashSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use serde::Deserialize;

use super::{Sort, Victim};
use crate::digest::{DiffId, Digest};
use crate::store::error::{Error, Result};
use crate::store::oci::{Descriptor, Index, LayerDescriptor, or_default};
use crate::store::record;
use crate::store::unpacked::lock_path;

/// Documents larger than this name no blobs: neither manifests nor configs come near.
const LIMIT: u64 = 32 << 20;
/// Indexes within indexes; deeper ones name nothing.
const MAX_DEPTH: usize = 8;

/// Something of the cache.
#[derive(Debug)]
pub(super) struct Item {
    path: PathBuf,
    /// When it was last used.
    pub(super) used: SystemTime,
    /// Whether a live session uses it.
    pub(super) pinned: bool,
    /// The layers that it reaches, for a record.
    pub(super) layers: Vec<LayerDescriptor>,
}

impl Item {
    /// Makes it a victim.
    pub(super) fn condemned(self, sort: Sort) -> Victim {
        Victim { sort, path: self.path }
    }
}

/// Orders what nobody uses by last use.
pub(super) fn oldest_first(mut items: Vec<Item>) -> Vec<Item> {
    items.retain(|item| !item.pinned);
    items.sort_by_key(|item| item.used);
    items
}

/// The state directory as gc sees it.
#[derive(Debug)]
pub(super) struct Survey {
    pub(super) root: PathBuf,
    /// Pins of live sessions, one line each.
    pub(super) pins: HashSet<String>,
    /// What images reach; records are added by whoever decides which stay.
    pub(super) references: References,
    pub(super) records: Vec<Item>,
    pub(super) unpacked: Vec<Item>,
    pub(super) mounts: Vec<Item>,
    pub(super) stat_caches: Vec<Item>,
    pub(super) builds: Vec<Item>,
}

impl Survey {
    /// Reads the state directory.
    pub(super) fn take(root: &Path, index: Index, pins: HashSet<String>) -> Result<Self> {
        let mut references = References::default();
        for entry in &index.manifests {
            references.add_image(root, entry.digest, 0);
        }
        for digest in pins.iter().filter_map(|pin| pin.strip_prefix("image ")) {
            if let Ok(digest) = format!("sha256:{digest}").parse() {
                references.add_image(root, digest, 0);
            }
        }
        let list = |name: &str, pin: &str, stamp: fn(&Path) -> PathBuf| -> Result<Vec<Item>> {
            let entries = entries(&root.join(name))?.into_iter().filter(|(name, _)| !name.ends_with(".lock"));
            let item = |(name, path): (String, PathBuf)| Item {
                used: modified(&stamp(&path)),
                pinned: pins.contains(&format!("{pin} {name}")),
                path,
                layers: Vec::new(),
            };
            Ok(entries.map(item).collect())
        };
        let mut records = list("records", "record", Path::to_owned)?;
        for item in &mut records {
            // A record that cannot be read reaches nothing.
            item.layers =
                read(&item.path).and_then(|bytes| record::parse(&bytes)).map_or_else(Vec::new, |record| record.layers);
        }
        let unpacked = list("unpacked", "unpacked", lock_path)?;
        let mounts = list("mounts", "mount", lock_path)?;
        let stat_caches = list("stat-cache", "stat-cache", Path::to_owned)?;
        let builds = list("builds", "build", Path::to_owned)?;
        Ok(Self { root: root.to_owned(), references, records, unpacked, mounts, stat_caches, builds, pins })
    }

    /// Takes out blobs, trees and unpacked layers that nothing reaches.
    pub(super) fn take_dangling(&mut self) -> Vec<Victim> {
        let mut victims = Vec::new();
        for (name, path) in entries(&self.root.join("blobs/sha256")).unwrap_or_default() {
            let Some(digest) = parse_hex(&name) else { continue };
            if !self.references.blobs.contains_key(&digest) && !self.pins.contains(&format!("blob {name}")) {
                victims.push(Victim { sort: Sort::Blob, path });
            }
        }
        for (name, path) in entries(&self.root.join("elsewhere")).unwrap_or_default() {
            let reached = parse_hex(&name).is_some_and(|digest| self.references.blobs.contains_key(&digest));
            if !reached && !self.pins.contains(&format!("blob {name}")) {
                victims.push(Victim { sort: Sort::Elsewhere, path });
            }
        }
        for (name, path) in entries(&self.root.join("trees")).unwrap_or_default() {
            let reached = parse_hex(&name).is_some_and(|digest| self.references.trees.contains_key(&DiffId(digest)));
            if !reached && !self.pins.contains(&format!("tree {name}")) {
                victims.push(Victim { sort: Sort::Tree, path });
            }
        }
        let (kept, dangling) = std::mem::take(&mut self.unpacked).into_iter().partition(|item| {
            let name = item.path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            let id = name.get(..64).and_then(parse_hex).map(DiffId);
            item.pinned || id.is_some_and(|id| self.references.trees.contains_key(&id))
        });
        self.unpacked = kept;
        victims.extend(dangling.into_iter().map(|item: Item| item.condemned(Sort::Unpacked)));
        victims
    }
}

/// How often each blob and each layer is reached.
#[derive(Debug, Default)]
pub(super) struct References {
    blobs: HashMap<Digest, usize>,
    trees: HashMap<DiffId, usize>,
}

/// The parts of a manifest, an index or a config that name other things.
#[derive(Deserialize, Default)]
struct Links {
    #[serde(default)]
    config: serde_json::Value,
    #[serde(default, deserialize_with = "or_default")]
    layers: Vec<Descriptor>,
    #[serde(default, deserialize_with = "or_default")]
    manifests: Vec<Descriptor>,
}

#[derive(Deserialize, Default)]
struct ConfigLinks {
    #[serde(default)]
    rootfs: RootFsLinks,
}

#[derive(Deserialize, Default)]
struct RootFsLinks {
    #[serde(default, deserialize_with = "or_default")]
    diff_ids: Vec<DiffId>,
}

impl References {
    /// Adds a manifest or index and all that it reaches. What is not there or does not parse reaches nothing.
    fn add_image(&mut self, root: &Path, digest: Digest, depth: usize) {
        let known = self.blobs.contains_key(&digest);
        *self.blobs.entry(digest).or_default() += 1;
        if known || depth > MAX_DEPTH {
            return;
        }
        let Some(links) = read_json::<Links>(root, &digest) else { return };
        links.manifests.iter().for_each(|entry| self.add_image(root, entry.digest, depth + 1));
        links.layers.iter().for_each(|layer| *self.blobs.entry(layer.digest).or_default() += 1);
        let Ok(config) = serde_json::from_value::<Descriptor>(links.config) else { return };
        *self.blobs.entry(config.digest).or_default() += 1;
        for id in read_json::<ConfigLinks>(root, &config.digest).unwrap_or_default().rootfs.diff_ids {
            *self.trees.entry(id).or_default() += 1;
        }
    }

    /// Adds the layers of a record that stays.
    pub(super) fn add_layers(&mut self, layers: &[LayerDescriptor]) {
        for layer in layers {
            *self.blobs.entry(layer.digest).or_default() += 1;
            *self.trees.entry(layer.diff_id).or_default() += 1;
        }
    }

    /// Takes the layers of a record back, and returns what nothing reaches any more.
    pub(super) fn remove_layers(
        &mut self,
        root: &Path,
        layers: &[LayerDescriptor],
        pins: &HashSet<String>,
    ) -> Vec<Victim> {
        let mut victims = Vec::new();
        for layer in layers {
            let (blob, tree) = (layer.digest.hex(), layer.diff_id.0.hex());
            if release(&mut self.blobs, &layer.digest) && !pins.contains(&format!("blob {blob}")) {
                victims.push(Victim { sort: Sort::Blob, path: root.join("blobs/sha256").join(blob) });
            }
            if release(&mut self.trees, &layer.diff_id) && !pins.contains(&format!("tree {tree}")) {
                victims.push(Victim { sort: Sort::Tree, path: root.join("trees").join(tree) });
            }
        }
        victims
    }
}

/// Counts one down and tells whether that was the last.
fn release<K: std::hash::Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) -> bool {
    match counts.get_mut(key) {
        Some(count) if *count > 1 => {
            *count -= 1;
            false
        }
        _ => counts.remove(key).is_some(),
    }
}

fn parse_hex(name: &str) -> Option<Digest> {
    format!("sha256:{name}").parse().ok()
}

fn entries(dir: &Path) -> Result<Vec<(String, PathBuf)>> {
    let entries = fs::read_dir(dir).map_err(Error::io("list", dir))?.flatten();
    Ok(entries.filter_map(|entry| Some((entry.file_name().into_string().ok()?, entry.path()))).collect())
}

/// Time of last use; a thing without a stamp counts as never used.
fn modified(path: &Path) -> SystemTime {
    fs::symlink_metadata(path).and_then(|meta| meta.modified()).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn read(path: &Path) -> Option<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path).ok()?.take(LIMIT).read_to_end(&mut bytes).ok()?;
    Some(bytes)
}

fn read_json<T: serde::de::DeserializeOwned>(root: &Path, digest: &Digest) -> Option<T> {
    serde_json::from_slice(&read(&root.join("blobs/sha256").join(digest.hex()))?).ok()
}
