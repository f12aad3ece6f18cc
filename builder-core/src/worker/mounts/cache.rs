//! `--mount=type=cache`: directories of the store that outlive the step and the build.
//!
//! A cache is known by its id, the owner and mode it was made with, and the content it was made from: another seed is
//! another cache, as in BuildKit. The id is hashed, it never becomes a path. A new cache appears whole, seed and
//! metadata included, by one rename.
//!
//! Locks: steps first take all caches that they wait for (`locked`), in the order of their keys, then those that they
//! do not wait for (`private`): so no two steps wait for each other.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::super::BuildWorker;
use super::select::Selection;
use crate::digest::hex;
use crate::error::{Error, ErrorKind};
use crate::plan::{CacheMount, FileInput, MountKind, Op, RootInput, RunOp, Sharing};
use crate::solver::KeyHasher;
use crate::store::{CacheDir, FileLock, NewCacheDir};
use crate::sys::file;
use crate::tree::Entry;

/// Caches that a step holds for itself, by key.
#[derive(Debug, Default)]
pub(super) struct Held(BTreeMap<String, FileLock>);

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

/// The name of a cache in the store; `number` tells copies apart that exist because others were busy.
pub(super) fn name(cache: &CacheMount, seed: Option<&Selection>, number: u64) -> String {
    let mut hasher = KeyHasher::new("cache mount/1");
    hasher.field(cache.id.as_bytes());
    match cache.owner {
        None => hasher.field(b"usual owner"),
        Some(owner) => {
            hasher.field(b"owner");
            for id in [owner.uid, owner.gid, owner.mode] {
                hasher.number(id.into());
            }
        }
    }
    match seed {
        None => hasher.field(b"empty"),
        Some(seed) => {
            hasher.field(b"seed");
            hasher.field(&seed.content.0);
        }
    }
    hasher.number(number);
    hex(&hasher.finish().0)
}

/// Whether the cache starts as a copy of something.
pub(super) fn is_seeded(cache: &CacheMount) -> bool {
    cache.from != FileInput::Root(RootInput::Scratch)
}

impl BuildWorker<'_> {
    /// How many steps before this one do the same to a cache.
    pub(in super::super) fn repetitions(&self, op: &RunOp) -> usize {
        if !op.mounts.iter().any(|mount| matches!(mount.kind, MountKind::Cache(_))) {
            return 0;
        }
        let same =
            |earlier: &RunOp| (&earlier.argv, &earlier.script, &earlier.mounts) == (&op.argv, &op.script, &op.mounts);
        let mut count = 0;
        let mut parent = op.parent;
        while let Some(step) = parent.step() {
            parent = match &self.graph.step(step).op {
                Op::Run(earlier) => {
                    count += usize::from(same(earlier));
                    earlier.parent
                }
                Op::Copy(earlier) => earlier.parent,
                Op::Workdir(earlier) => earlier.parent,
                Op::Image(_) | Op::Context(_) => break,
            };
        }
        count
    }

    /// Takes all caches of the step that must be waited for.
    pub(super) fn lock_caches(&self, op: &RunOp, selections: &[Option<Selection>]) -> Result<Held, Error> {
        let mut held = Held::default();
        let locked = op.mounts.iter().zip(selections).filter_map(|(mount, seed)| match &mount.kind {
            MountKind::Cache(cache) if cache.sharing == Sharing::Locked => Some(name(cache, seed.as_ref(), 0)),
            _ => None,
        });
        let names: std::collections::BTreeSet<String> = locked.collect();
        for name in names {
            let mut busy = || match self.kill_switch.is_thrown() {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            };
            let lock = self.store.lock_cache_mount(&name, &mut busy).map_err(|e| store_error(&e))?;
            let cancelled = || Error::new(ErrorKind::Cancelled, "the build was cancelled");
            held.0.insert(name, lock.ok_or_else(cancelled)?);
        }
        Ok(held)
    }

    /// A handle of the directory to mount.
    pub(super) fn cache(
        &self,
        cache: &CacheMount,
        seed: Option<&Selection>,
        held: &mut Held,
    ) -> Result<Arc<OwnedFd>, Error> {
        let name = match cache.sharing {
            Sharing::Shared | Sharing::Locked => name(cache, seed, 0),
            Sharing::Private => self.take_private(cache, seed, held)?,
        };
        let dir = match self.store.cache_mount(&name).map_err(|e| store_error(&e))? {
            CacheDir::Ready(path) => path,
            CacheDir::New(new) => self.make(&name, new, cache, seed)?,
        };
        // Without a seed, `source` is a part of the cache; commands made it, so it is looked up by the kernel.
        let part = if seed.is_none() { cache.source.trim_start_matches('/') } else { "" };
        open(&dir, part).map_err(|error| {
            let what = format!("{:?} of the cache {:?}", cache.source, cache.id.trim_start_matches('/'));
            Error::from_source(ErrorKind::StepFailed, &error).context(what)
        })
    }

    /// Makes a cache: of what other machines have in it, else of its seed.
    fn make(
        &self,
        name: &str,
        new: NewCacheDir,
        cache: &CacheMount,
        seed: Option<&Selection>,
    ) -> Result<PathBuf, Error> {
        let mut new = new;
        let mut made = false;
        if let Some(travelled) = self.travelled(name)? {
            match self.fill(new.path(), cache, Some(&travelled)) {
                Ok(()) => made = true,
                Err(error) => {
                    self.do_without_mount(&error)?;
                    drop(new);
                    new = match self.store.cache_mount(name).map_err(|e| store_error(&e))? {
                        CacheDir::Ready(path) => return Ok(path),
                        CacheDir::New(new) => new,
                    };
                }
            }
        }
        if !made {
            self.fill(new.path(), cache, seed)?;
        }
        new.commit().map_err(|e| store_error(&e))
    }

    /// Takes the first copy of the cache that nobody else has.
    fn take_private(&self, cache: &CacheMount, seed: Option<&Selection>, held: &mut Held) -> Result<String, Error> {
        for number in 0.. {
            let name = name(cache, seed, number);
            if held.0.contains_key(&name) {
                continue;
            }
            let lock = self.store.lock_cache_mount(&name, &mut || ControlFlow::Break(()));
            if let Some(lock) = lock.map_err(|e| store_error(&e))? {
                held.0.insert(name.clone(), lock);
                return Ok(name);
            }
        }
        Err(Error::new(ErrorKind::Internal, "all copies of a cache are busy"))
    }

    fn fill(&self, dir: &Path, cache: &CacheMount, seed: Option<&Selection>) -> Result<(), Error> {
        if let Some(seed) = seed {
            let not_a_dir = || Error::new(ErrorKind::Dockerfile, format!("{:?} is not a directory", cache.source));
            if !seed.is_dir() {
                return Err(not_a_dir().context("the seed of a cache"));
            }
            let entries = seed.linked_entries();
            let origin = |entry: &Entry| crate::tree::path::join(&seed.path, &entry.path);
            self.copy_files(dir, seed, &entries, origin)?;
        }
        let failed = |error: std::io::Error| store_error(&error).context("make a cache");
        if let Some(owner) = cache.owner {
            std::os::unix::fs::chown(dir, Some(owner.uid), Some(owner.gid)).map_err(failed)?;
        }
        // Set, not made so: the umask has no say in it.
        let mode = match (cache.owner, seed) {
            (Some(owner), _) => owner.mode,
            (None, None) => 0o755,
            (None, Some(_)) => return Ok(()),
        };
        std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).map_err(failed)
    }
}

fn open(dir: &Path, part: &str) -> std::io::Result<Arc<OwnedFd>> {
    let dir = file::open_host_dir(dir)?;
    file::open_handle_in_root(dir.as_fd(), part.as_bytes()).map(Arc::new)
}
