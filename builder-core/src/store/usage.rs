//! What the state directory occupies, as `du` counts: allocated blocks, hard-linked files once, one file system.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use super::Store;
use super::error::{Error, Result};

/// Allocated bytes of the state directory by what they are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, serde::Serialize)]
pub(crate) struct DiskUsage {
    /// Layers, configs, manifests.
    pub(crate) blobs: u64,
    /// Tables of contents of layers.
    pub(crate) trees: u64,
    /// Layers unpacked for `RUN`.
    pub(crate) unpacked: u64,
    /// Step records.
    pub(crate) records: u64,
    /// What is remembered of builds.
    pub(crate) builds: u64,
    /// Digests of context files.
    pub(crate) stat_cache: u64,
    /// Cache mounts.
    pub(crate) mounts: u64,
    /// Work in progress.
    pub(crate) tmp: u64,
    /// Locks, `index.json`, notes of what is elsewhere, and the directory itself.
    pub(crate) other: u64,
    /// Directories that could not be looked into, so that all this is a lower bound.
    pub(crate) unreadable: u64,
}

impl DiskUsage {
    /// The sum, which equals `du -s`.
    pub(crate) fn total(&self) -> u64 {
        let Self { blobs, trees, unpacked, records, builds, stat_cache, mounts, tmp, other, unreadable: _ } = self;
        blobs + trees + unpacked + records + builds + stat_cache + mounts + tmp + other
    }
}

impl Store {
    /// Measures the state directory. Things may come and go meanwhile.
    pub(crate) fn disk_usage(&self) -> Result<DiskUsage> {
        let root = self.path();
        let device = fs::symlink_metadata(root).map_err(Error::io("stat", root))?.dev();
        let mut meter = Meter { device, seen: HashSet::new(), unreadable: 0 };
        let mut usage = DiskUsage::default();
        usage.other += meter.entry_alone(root);
        for entry in fs::read_dir(root).map_err(Error::io("list", root))?.flatten() {
            let bytes = meter.measure(&entry.path());
            let category = match entry.file_name().as_encoded_bytes() {
                b"blobs" => &mut usage.blobs,
                b"trees" => &mut usage.trees,
                b"unpacked" => &mut usage.unpacked,
                b"records" => &mut usage.records,
                b"builds" => &mut usage.builds,
                b"stat-cache" => &mut usage.stat_cache,
                b"mounts" => &mut usage.mounts,
                b"tmp" => &mut usage.tmp,
                _ => &mut usage.other,
            };
            *category += bytes;
        }
        usage.unreadable = meter.unreadable;
        Ok(usage)
    }
}

/// Allocated bytes of `path` and all below it.
pub(super) fn measure(path: &Path) -> u64 {
    let Ok(meta) = fs::symlink_metadata(path) else { return 0 };
    Meter { device: meta.dev(), seen: HashSet::new(), unreadable: 0 }.measure(path)
}

struct Meter {
    /// Overlays that are mounted in a work directory are not ours to count.
    device: u64,
    /// Inodes with several names.
    seen: HashSet<u64>,
    unreadable: u64,
}

impl Meter {
    fn measure(&mut self, path: &Path) -> u64 {
        let mut bytes = 0;
        let mut walk = walkdir::WalkDir::new(path).follow_root_links(false).into_iter();
        while let Some(entry) = walk.next() {
            let Ok(entry) = entry else {
                self.unreadable += 1;
                continue;
            };
            let Ok(meta) = entry.metadata() else { continue };
            if meta.dev() != self.device {
                if meta.is_dir() {
                    walk.skip_current_dir();
                }
            } else if meta.is_dir() || meta.nlink() == 1 || self.seen.insert(meta.ino()) {
                bytes += meta.blocks() * 512;
            }
        }
        bytes
    }

    fn entry_alone(&mut self, path: &Path) -> u64 {
        fs::symlink_metadata(path).map_or(0, |meta| meta.blocks() * 512)
    }
}
