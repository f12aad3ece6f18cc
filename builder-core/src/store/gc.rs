//! Taking away what nobody needs: by reachability, and least recently used first when there is a limit.
//!
//! Roots are the images of `index.json`, step records that stay, and the pins of live sessions. Choosing happens under
//! the exclusive gc lock and only renames into the trash of this session, which takes milliseconds; deleting comes
//! after. So gc may run at any time beside any number of builds (see [`super::session`] for why that is safe).
//!
//! Nothing here may call a function that pins: it would wait for the lock that gc itself holds.

mod survey;

use std::collections::HashSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use self::survey::{Item, References, Survey};
use super::error::Result;
use super::lock::{After, FileLock, StandingLock};
use super::unpacked::lock_path;
use super::usage::measure;
use super::{Removed, Store, remove_tree, session};

/// How far a prune goes. Images stay in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PruneScope {
    /// What neither an image nor a step record reaches.
    Dangling,
    /// Also the build cache: step records, unpacked layers, stat caches, what is remembered of builds.
    Cache,
    /// Also cache mounts.
    All,
}

/// What to prune.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PruneOptions {
    /// How far to go.
    pub(crate) scope: PruneScope,
    /// Cache entries that were used at this time or later stay.
    pub(crate) keep_used_since: Option<SystemTime>,
}

/// What a prune did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct PruneReport {
    /// Bytes that the file system got back.
    pub(crate) freed_bytes: u64,
    /// Blobs removed.
    pub(crate) blobs: usize,
    /// Trees removed.
    pub(crate) trees: usize,
    /// Unpacked layers removed.
    pub(crate) unpacked: usize,
    /// Step records removed.
    pub(crate) records: usize,
    /// Cache mounts removed.
    pub(crate) mounts: usize,
    /// Files that this process may not remove; a later run inside the user namespace does.
    pub(crate) left: u64,
}

/// Kinds of things that gc takes away.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Sort {
    Blob,
    Elsewhere,
    Tree,
    Unpacked,
    Record,
    Mount,
    StatCache,
    Build,
}

/// Something that was chosen.
#[derive(Debug)]
struct Victim {
    sort: Sort,
    path: PathBuf,
}

impl Store {
    /// Removes what `options` say and nobody uses. Safe beside running builds.
    pub(crate) fn prune(&self, options: PruneOptions) -> Result<PruneReport> {
        self.collect(|survey| choose(survey, options))
    }

    /// Brings the real size of the state directory below `max_bytes`, as far as removing cache can: first what nothing
    /// reaches, then unpacked layers, then records and cache mounts, each least recently used first. What this store
    /// itself used counts as in use; see [`Store::release`].
    pub(crate) fn enforce_limit(&self, max_bytes: u64) -> Result<PruneReport> {
        let mut sum = PruneReport::default();
        loop {
            let excess = self.disk_usage()?.total().saturating_sub(max_bytes);
            if excess == 0 {
                return Ok(sum);
            }
            let round = self.collect(|survey| choose_for(survey, excess))?;
            sum.add(round);
            // Nothing left to take, or nothing that may be deleted by this process.
            if round.freed_bytes == 0 {
                return Ok(sum);
            }
        }
    }

    fn collect(&self, choose: impl FnOnce(Survey) -> Vec<Victim>) -> Result<PruneReport> {
        let gc = StandingLock::exclusive(&session::gc_lock_path(self.path()))?;
        let dead = session::dead_sessions(self.path())?;
        let pins = session::live_pins(self.path())?;
        self.remove_stale_locks(&pins);
        let victims = choose(Survey::take(self.path(), self.read_index()?, pins)?);
        let mut report = PruneReport::default();
        let trash: Vec<_> = victims.into_iter().filter_map(|victim| self.condemn(&victim, &mut report)).collect();
        drop(gc);
        let removed = dead.into_iter().map(session::DeadSession::remove);
        let removed = removed.chain(trash.iter().map(|path| remove_tree(path))).fold(Removed::default(), Removed::and);
        report.freed_bytes += removed.bytes;
        report.left = removed.left;
        Ok(report)
    }

    /// Takes one thing out of place; `None` when someone just works on it or it may not be moved.
    fn condemn(&self, victim: &Victim, report: &mut PruneReport) -> Option<PathBuf> {
        let lock = match victim.sort {
            Sort::Unpacked | Sort::Mount => {
                Some(FileLock::try_take(&lock_path(&victim.path), After::Remove).ok().flatten()?)
            }
            _ => None,
        };
        let trash = self.temp_path();
        fs::rename(&victim.path, &trash).ok()?;
        if lock.is_some() {
            report.freed_bytes += measure(&lock_path(&victim.path));
        }
        *match victim.sort {
            Sort::Blob => &mut report.blobs,
            Sort::Tree => &mut report.trees,
            Sort::Unpacked => &mut report.unpacked,
            Sort::Record => &mut report.records,
            Sort::Mount => &mut report.mounts,
            Sort::Elsewhere | Sort::StatCache | Sort::Build => return Some(trash),
        } += 1;
        Some(trash)
    }

    /// Removes lock files of killed steps and of layers that never got unpacked.
    fn remove_stale_locks(&self, pins: &HashSet<String>) {
        let stale = |path: &Path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            match name.strip_suffix(".lock") {
                Some(key) => !path.with_extension("").exists() && !pins.contains(&format!("unpacked {key}")),
                None => name.starts_with("step-"),
            }
        };
        for dir in ["locks", "unpacked"] {
            let entries = fs::read_dir(self.path().join(dir)).into_iter().flatten().flatten();
            for path in entries.map(|entry| entry.path()).filter(|path| stale(path)) {
                // Taking the lock and letting it go removes the file; one that is in use is not ours to touch.
                drop(FileLock::try_take(&path, After::Remove));
            }
        }
    }
}

impl PruneReport {
    fn add(&mut self, other: Self) {
        let Self { freed_bytes, blobs, trees, unpacked, records, mounts, left } = other;
        self.freed_bytes += freed_bytes;
        self.blobs += blobs;
        self.trees += trees;
        self.unpacked += unpacked;
        self.records += records;
        self.mounts += mounts;
        self.left += left;
    }
}

/// Chooses for [`Store::prune`].
fn choose(mut survey: Survey, options: PruneOptions) -> Vec<Victim> {
    let cache = options.scope != PruneScope::Dangling;
    let old = |item: &Item| !item.pinned && options.keep_used_since.is_none_or(|since| item.used < since);
    let (gone, kept): (Vec<_>, Vec<_>) =
        std::mem::take(&mut survey.records).into_iter().partition(|item| cache && old(item));
    kept.iter().for_each(|record| survey.references.add_layers(&record.layers));
    let mut victims: Vec<_> = gone.into_iter().map(|item| item.condemned(Sort::Record)).collect();
    if cache {
        let unpacked = std::mem::take(&mut survey.unpacked).into_iter().filter(old);
        victims.extend(unpacked.map(|item| item.condemned(Sort::Unpacked)));
        let stat_caches = std::mem::take(&mut survey.stat_caches).into_iter().filter(old);
        victims.extend(stat_caches.map(|item| item.condemned(Sort::StatCache)));
        let builds = std::mem::take(&mut survey.builds).into_iter().filter(old);
        victims.extend(builds.map(|item| item.condemned(Sort::Build)));
    }
    if options.scope == PruneScope::All {
        let mounts = std::mem::take(&mut survey.mounts).into_iter().filter(old);
        victims.extend(mounts.map(|item| item.condemned(Sort::Mount)));
    }
    victims.extend(survey.take_dangling());
    victims
}

/// Chooses for [`Store::enforce_limit`]: enough to free `excess` bytes, if there is enough.
fn choose_for(mut survey: Survey, excess: u64) -> Vec<Victim> {
    survey.records.iter().for_each(|record| survey.references.add_layers(&record.layers));
    let mut freed = 0;
    let mut victims = Vec::new();
    let mut take = |victim: Victim| {
        freed += measure(&victim.path);
        victims.push(victim);
        freed >= excess
    };
    let mut enough = survey.take_dangling().into_iter().fold(false, |_, victim| take(victim));
    for item in survey::oldest_first(std::mem::take(&mut survey.unpacked)) {
        if enough {
            return victims;
        }
        enough = take(item.condemned(Sort::Unpacked));
    }
    let leaves = [
        (Sort::Record, survey.records),
        (Sort::Mount, survey.mounts),
        (Sort::StatCache, survey.stat_caches),
        (Sort::Build, survey.builds),
    ];
    let leaves = leaves.into_iter().flat_map(|(sort, items)| items.into_iter().map(move |item| (sort, item)));
    let mut leaves: Vec<_> = leaves.filter(|(_, item)| !item.pinned).collect();
    leaves.sort_by_key(|(_, item)| item.used);
    let root = survey.root;
    for (sort, mut item) in leaves {
        if enough {
            break;
        }
        let layers = std::mem::take(&mut item.layers);
        enough = take(item.condemned(sort));
        for victim in References::remove_layers(&mut survey.references, &root, &layers, &survey.pins) {
            enough = take(victim);
        }
    }
    victims
}
