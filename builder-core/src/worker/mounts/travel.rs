//! Cache mounts that come from another machine, and go to the next one.
//!
//! A mount travels as layers: one with its directories and all that has no bytes, and the files in parts by a hash of
//! their paths. A part that did not change is the same blob as the last time and is not sent again; one file that
//! changed costs its part. What comes is placed as the seed of a new cache is; a cache that is here is left alone.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Read;
use std::ops::ControlFlow;
use std::os::fd::AsFd;
use std::path::Path;
use std::sync::PoisonError;

use super::super::files::Bytes;
use super::super::root::Root;
use super::super::{BuildWorker, cache_error};
use super::Selection;
use super::cache::name;
use crate::cache::Entry as Shareable;
use crate::digest::CacheKey;
use crate::error::{Error, ErrorKind};
use crate::event::Event;
use crate::layer::{self, LayerOptions, LayerWriter};
use crate::plan::{MountKind, RunOp};
use crate::request::{Compression, CompressionKind};
use crate::store::{CacheDir, LayerDescriptor};
use crate::sys::file;
use crate::tree::path::ancestors;
use crate::tree::{Entry, Kind, MergedTree, Metadata};

/// About how many bytes of files a part has, and how many parts there are at most.
const PART: u64 = 16 << 20;
const MOST_PARTS: u64 = 256;
/// What a file of a cache is worth: it is sent more often than read.
const COMPRESSION: Compression = Compression { kind: CompressionKind::Zstd, level: Some(1) };

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

impl BuildWorker<'_> {
    /// Notes the caches of a step, be it done or not.
    pub(super) fn note_caches(&self, op: &RunOp, seeds: &[Option<Selection>]) {
        let names = op.mounts.iter().zip(seeds).filter_map(|(mount, seed)| match &mount.kind {
            MountKind::Cache(cache) => Some(name(cache, seed.as_ref(), 0)),
            _ => None,
        });
        self.caches.lock().unwrap_or_else(PoisonError::into_inner).extend(names);
    }

    /// What other machines have in the cache of this name. Nothing is fetched but what tells which files there are.
    pub(super) fn travelled(&self, name: &str) -> Result<Option<Selection>, Error> {
        let shared = &self.options.shared_mounts;
        let Some(key) = CacheKey::parse(name).filter(|_| !shared.is_empty()) else { return Ok(None) };
        let Some(found) = shared.find(&key, &mut |error| self.complain(&error))? else { return Ok(None) };
        let selected = shared.promise(self.store, &found, &|_, _| None).map_err(|error| cache_error(&error));
        let selected = selected.and_then(|layers| {
            let root = Root::scratch().with(layers);
            let tree = self.tree(&root)?;
            Ok(Selection { bytes: Bytes::Root(root), tree, path: Vec::new(), content: key, list: BTreeMap::new() })
        });
        match selected {
            Ok(selection) if selection.is_dir() => Ok(Some(selection)),
            Ok(_) => self.do_without_mount(&Error::new(ErrorKind::Registry, "it is no directory")).map(|()| None),
            Err(error) => self.do_without_mount(&error).map(|()| None),
        }
    }

    /// Says that a cache mount starts empty although another machine has it.
    pub(super) fn do_without_mount(&self, error: &Error) -> Result<(), Error> {
        if self.options.cache_strict {
            return Err(error.clone());
        }
        let message = format!("a cache mount of another machine cannot be had, and starts anew: {error}");
        (self.events)(Event::Warning { code: "cache-source".to_owned(), message });
        Ok(())
    }

    /// The cache mounts of all steps, as layers. One that is not here is what others have of it.
    pub(crate) fn share_mounts(&self) -> Result<Vec<Shareable>, Error> {
        let names: BTreeSet<String> = self.caches.lock().unwrap_or_else(PoisonError::into_inner).clone();
        let mut entries = Vec::new();
        for name in names {
            let Some(key) = CacheKey::parse(&name) else { continue };
            let here = match self.store.cache_mount(&name).map_err(|e| store_error(&e))? {
                CacheDir::Ready(dir) => Some(dir),
                CacheDir::New(_) => None,
            };
            let layers = match &here {
                Some(dir) => Some(self.pack(&name, dir)?),
                None => self.travelled(&name)?.and_then(|selection| match selection.bytes {
                    Bytes::Root(root) => Some(root.layers()),
                    _ => None,
                }),
            };
            let Some(layers) = layers else { continue };
            entries.push(Shareable {
                key,
                layers: layers.into_iter().map(|layer| (layer, COMPRESSION.level)).collect(),
                bases: Vec::new(),
                created: None,
                made: None,
                found_in: None,
                is_new: here.is_some(),
                is_hollow: false,
            });
        }
        Ok(entries)
    }

    /// Writes the layers of a cache mount, while no step has it for itself.
    fn pack(&self, name: &str, dir: &Path) -> Result<Vec<LayerDescriptor>, Error> {
        let mut busy = || match self.kill_switch.is_thrown() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        let _lock = self.store.lock_cache_mount(name, &mut busy).map_err(|e| store_error(&e))?;
        let upper = file::open_host_dir(dir).map_err(|e| store_error(&e).context("open a cache mount"))?;
        let found = layer::diff(upper.as_fd(), &MergedTree::new(), None).map_err(|e| store_error(&e))?;
        let entries: Vec<Entry> = found.into_iter().map(|change| change.entry).collect();
        let mut layers = Vec::new();
        let options = LayerOptions { compression: COMPRESSION, ..self.layer_options() };
        for part in parts(&entries) {
            let mut writer = LayerWriter::create(self.store, options.clone()).map_err(|e| store_error(&e))?;
            for entry in part {
                let mut content = match &entry.kind {
                    Kind::File { .. } => {
                        let opened = file::open_file_below(upper.as_fd(), &entry.path);
                        Some(File::from(opened.map_err(|e| store_error(&e).context("read a cache mount"))?))
                    }
                    _ => None,
                };
                let content = content.as_mut().map(|file| file as &mut dyn Read);
                writer.append(entry, content).map_err(|e| store_error(&e))?;
            }
            layers.push(writer.finish().map_err(|e| store_error(&e))?.layer);
        }
        Ok(layers)
    }
}

/// Splits the entries of a cache: files by a hash of their path, or of what they are a further name of, and above them
/// everything else. Directories stand in each part with nothing said of them; the last part says what they are.
fn parts(entries: &[Entry]) -> Vec<Vec<Entry>> {
    let size = |entry: &Entry| if let Kind::File { size, .. } = entry.kind { size } else { 0 };
    let total: u64 = entries.iter().map(size).sum();
    let count = (total / PART).next_power_of_two().min(MOST_PARTS);
    let mut files: BTreeMap<u64, BTreeMap<Vec<u8>, Entry>> = BTreeMap::new();
    let mut rest = Vec::new();
    for entry in entries {
        let first_name = match &entry.kind {
            Kind::File { .. } => &entry.path,
            Kind::Hardlink { target } => target,
            _ => {
                rest.push(entry.clone());
                continue;
            }
        };
        let hash = *blake3::hash(first_name).as_bytes().first_chunk::<8>().unwrap_or(&[0; 8]);
        let part = files.entry(u64::from_le_bytes(hash) % count).or_default();
        for dir in ancestors(&entry.path).filter(|dir| !dir.is_empty()) {
            let blank = || Entry {
                path: dir.to_vec(),
                meta: Metadata { mode: 0o755, ..Metadata::default() },
                kind: Kind::Directory { opaque: false },
            };
            part.entry(dir.to_vec()).or_insert_with(blank);
        }
        part.insert(entry.path.clone(), entry.clone());
    }
    files.into_values().map(|part| part.into_values().collect()).chain([rest]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::digest::ContentHash;

    fn file(path: &str, size: u64) -> Entry {
        let kind = Kind::File { size, content: ContentHash::of(b"") };
        Entry { path: path.into(), meta: Metadata::default(), kind }
    }

    fn dir(path: &str) -> Entry {
        let meta = Metadata { mode: 0o700, uid: 7, ..Metadata::default() };
        Entry { path: path.into(), meta, kind: Kind::Directory { opaque: false } }
    }

    #[test]
    fn a_file_that_changed_changes_its_part_and_the_directories() {
        let mut entries: Vec<Entry> = (0..100).map(|n| file(&format!("d/{n:03}"), 2 << 20)).collect();
        entries.insert(0, dir("d"));
        let before = parts(&entries);
        assert!(before.len() > 4, "{}", before.len());
        assert_eq!(before.iter().flatten().filter(|entry| !entry.is_dir()).count(), 100);
        entries[50] = file("d/049", 3 << 20);
        entries[0].meta.mtime.secs = 5;
        let changed = parts(&entries).iter().zip(&before).filter(|(a, b)| a != b).count();
        assert_eq!(changed, 2);
    }

    #[test]
    fn further_names_stand_with_the_first_and_directories_as_they_are_above() {
        let link = Entry { kind: Kind::Hardlink { target: b"a/x".to_vec() }, ..file("z/y", 0) };
        let parts = parts(&[dir("a"), file("a/x", 100 << 20), file("b", 100 << 20), dir("z"), link]);
        let with = |path: &[u8]| parts.iter().position(|part| part.iter().any(|e| e.path == path)).unwrap();
        assert_eq!(with(b"a/x"), with(b"z/y"));
        let last = parts.last().unwrap();
        assert!(last.iter().all(|entry| entry.meta.uid == 7) && last.len() == 2);
        let mut tree = MergedTree::new();
        for (at, part) in parts.iter().enumerate() {
            tree.apply(&crate::tree::LayerTree::from_sorted(part.clone()).unwrap().into(), at);
        }
        assert_eq!(tree.get(b"z").unwrap().meta.uid, 7);
        assert!(tree.get(b"z/y").is_some());
    }
}
