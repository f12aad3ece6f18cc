//! Does the steps: images come from stores and registries, copies are worked out on trees, commands run in the sandbox.
//! Implements [`solver::Worker`](crate::solver::Worker) for the build graph.
//!
//! Nothing is unpacked that no command needs: a file system is a chain of layers with their trees ([`root`]), and its
//! directories on disk are made when a `RUN` is about to start.

mod archive;
mod blobs;
mod context;
mod copy;
mod emulation;
mod emulators;
mod exec;
mod files;
mod images;
mod inputs;
mod key;
mod mirror;
mod mounts;
mod near;
mod outlook;
mod records;
mod remote;
mod root;
mod shared;
mod squash;
mod stub;
mod transfer;
mod users;
mod variant;
mod why;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

pub(crate) use blobs::{fetch_from_elsewhere, noted_origins};
pub(crate) use context::{Context, ignore_rules, selects};
pub(crate) use emulation::foreign;
pub(crate) use emulators::Emulators;
pub(crate) use images::{ImageError, Images};
pub(crate) use inputs::{Inputs, dependencies};
pub(crate) use mirror::MirrorLayers;
pub(crate) use mounts::{Grants, Refusal};
pub(crate) use remote::ContextFiles;
pub(crate) use root::Root;
pub(crate) use shared::{base_entry, cache_error};
pub(crate) use squash::squashed;
pub(crate) use variant::ensure as compressed_as;
pub(crate) use why::{Note, Past};

use crate::cache::{Entry, Shared};
use crate::digest::CacheKey;
use crate::error::{Error, ErrorKind};
use crate::event::{Event, StepId};
use crate::fetch::Fetcher;
use crate::layer::LayerOptions;
use crate::plan::{BuildGraph, ContextName, CopySourceOp, Op, Step};
use crate::request::{Compression, RunSettings};
use crate::sandbox::KillSwitch;
use crate::solver::{Completed, Glimpse, KeyParts, Worker};
use crate::store::{StepLock, Store};
use crate::tree::{MergedTree, Timestamp};
use mounts::{Selection, SharedCopy};
use transfer::Transfer;
use users::UserFiles;

/// Name of the fact of a record that says when the step was done, in seconds since 1970.
const CREATED: &str = "created";
/// The same by the clock, whatever the build says the time is.
const MADE: &str = "made";

/// What all steps of a build have in common.
#[derive(Debug, Clone)]
pub(crate) struct WorkerOptions {
    /// Codec and level of new layers.
    pub(crate) compression: Compression,
    /// Threads that compress, hash and unpack.
    pub(crate) threads: usize,
    /// `SOURCE_DATE_EPOCH`: no file of a new layer is younger.
    pub(crate) clamp: Option<i64>,
    /// Time of what a step makes by itself.
    pub(crate) now: Timestamp,
    /// Seconds since 1970 by the clock.
    pub(crate) clock: i64,
    /// Caches of other machines.
    pub(crate) shared: Arc<Shared>,
    /// Where cache mounts may come from.
    pub(crate) shared_mounts: Arc<Shared>,
    /// A shared cache that fails fails the build.
    pub(crate) cache_strict: bool,
    /// Why commands cannot run here, as an error for the user; `None` when they can.
    pub(crate) no_exec: Option<Error>,
    /// The host's `resolv.conf`.
    pub(crate) resolv_conf: Vec<u8>,
    /// Secrets, agents and entitlements.
    pub(crate) grants: Grants,
    /// What every command gets besides.
    pub(crate) run: RunSettings,
    /// What the worker is for.
    pub(crate) purpose: Purpose,
}

/// What a worker is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// To do the steps.
    Build,
    /// To look only: no layer is fetched, written or compressed.
    Plan,
}

/// The contexts of a build, and what gets those that are elsewhere.
#[derive(Debug)]
pub(crate) struct Contexts<'a> {
    /// Those that the plan uses.
    pub(crate) by_name: HashMap<ContextName, ContextFiles>,
    /// Also ends all commands when its kill switch is thrown.
    pub(crate) fetcher: &'a Fetcher,
}

/// Does the steps of one build.
pub(crate) struct BuildWorker<'a> {
    graph: &'a BuildGraph,
    store: &'a Store,
    images: &'a Images,
    contexts: HashMap<ContextName, ContextFiles>,
    fetcher: &'a Fetcher,
    options: WorkerOptions,
    kill_switch: KillSwitch,
    events: &'a (dyn Fn(Event) + Sync),
    /// Worked out for the key, used when the step must be done.
    transfers: Mutex<HashMap<StepId, Transfer>>,
    /// Files that mounts show, likewise.
    selections: Mutex<HashMap<StepId, Arc<Vec<Option<Selection>>>>>,
    /// Copies of context files for mounts, by path and content.
    copies: Mutex<HashMap<(Vec<u8>, CacheKey), SharedCopy>>,
    users: Mutex<HashMap<Option<crate::ChainId>, Arc<UserFiles>>>,
    /// When each step was done, in this build or an earlier one.
    created: Mutex<HashMap<StepId, i64>>,
    /// Results that can be shared.
    done: Mutex<BTreeMap<StepId, Entry>>,
    past: Past,
    notes: Mutex<HashMap<StepId, Note>>,
    /// Names of the cache mounts of all steps.
    caches: Mutex<BTreeSet<String>>,
}

/// What a step yields.
#[derive(Debug, Clone)]
pub(crate) enum StepOutput {
    /// A file system.
    Root(Root),
    /// Files of this machine.
    Context(Arc<Context>),
}

impl<'a> BuildWorker<'a> {
    /// Makes the worker of one build.
    pub(crate) fn new(
        graph: &'a BuildGraph,
        store: &'a Store,
        images: &'a Images,
        Contexts { by_name, fetcher }: Contexts<'a>,
        options: WorkerOptions,
        events: &'a (dyn Fn(Event) + Sync),
    ) -> Self {
        Self {
            graph,
            store,
            images,
            contexts: by_name,
            fetcher,
            options,
            kill_switch: fetcher.kill_switch(),
            events,
            transfers: Mutex::default(),
            selections: Mutex::default(),
            copies: Mutex::default(),
            users: Mutex::default(),
            created: Mutex::default(),
            done: Mutex::default(),
            past: Past::default(),
            notes: Mutex::default(),
            caches: Mutex::default(),
        }
    }

    /// Keeps what was learned of the contexts' files for the next build.
    pub(crate) fn save_caches(&self) {
        for context in self.contexts.values() {
            let ContextFiles::Local(context) = context else { continue };
            if let Err(error) = context.save_cache() {
                let message = format!("the digests of context files cannot be kept: {error}");
                (self.events)(Event::Warning { code: "stat-cache".to_owned(), message });
            }
        }
    }

    /// How this build's layers are written.
    pub(crate) fn layer_options(&self) -> LayerOptions {
        LayerOptions {
            compression: self.options.compression,
            threads: self.options.threads,
            clamp_mtime: self.options.clamp,
        }
    }

    /// The flattened tree of `root`.
    pub(crate) fn tree(&self, root: &Root) -> Result<Arc<MergedTree>, Error> {
        root.tree(|| {
            let Some((parent, added)) = root.parent() else { return Ok(MergedTree::new()) };
            let mut tree = (*self.tree(parent)?).clone();
            for (index, layer) in added.iter().enumerate() {
                let layer_tree = crate::layer::ensure_tree(self.store, layer)
                    .map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
                tree.apply(&layer_tree, parent.depth() + index);
            }
            Ok(tree)
        })
    }

    fn transfers(&self) -> MutexGuard<'_, HashMap<StepId, Transfer>> {
        self.transfers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn selections(&self) -> MutexGuard<'_, HashMap<StepId, Arc<Vec<Option<Selection>>>>> {
        self.selections.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn step(&self, id: StepId) -> (&Step, Vec<StepId>) {
        let step = self.graph.step(id);
        (step, dependencies(step))
    }

    /// `/etc/passwd` and `/etc/group` of `root`, symbolic links inside followed.
    fn user_files(&self, root: &Root) -> Result<Arc<UserFiles>, Error> {
        let chain = root.chain_id();
        let lock = || self.users.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(files) = lock().get(&chain) {
            return Ok(files.clone());
        }
        let tree = self.tree(root)?;
        let sources = [files::Bytes::Root(root.clone())];
        let mut opened = files::Files::new(self, &sources);
        let paths =
            [b"etc/passwd".as_slice(), b"etc/group"].map(|path| files::readable(&tree, path, users::FILE_LIMIT));
        opened.prepare(paths.iter().flatten().map(|path| (0, path.as_slice())))?;
        let mut read = |path: &Option<Vec<u8>>| match path {
            Some(path) => opened.read_all(0, path),
            None => Ok(Vec::new()),
        };
        let files = Arc::new(UserFiles { passwd: read(&paths[0])?, group: read(&paths[1])? });
        lock().insert(chain, files.clone());
        Ok(files)
    }
}

impl Worker for BuildWorker<'_> {
    type Output = StepOutput;
    type Error = Error;
    type Lock = Option<StepLock>;

    fn key(&self, id: StepId, outputs: &[StepOutput]) -> Result<Option<KeyParts>, Error> {
        let (step, ids) = self.step(id);
        let inputs = Inputs { ids, outputs };
        self.bring_what_is_looked_at(id, step, &inputs)?;
        let (domain, transfer) = match &step.op {
            Op::Image(_) | Op::Context(_) => return Ok(None),
            Op::Run(op) => {
                let parent = inputs.root(op.parent)?;
                let selections = self.select_mounts(op, &inputs)?;
                let network = self.options.grants.network(op.network);
                let mut key = key::run(op, &parent, &selections, network, &self.options);
                // The first may change nothing but the cache, then the second starts from the same file system.
                if let count @ 1.. = self.repetitions(op) {
                    key.add("done before", count.to_string());
                }
                self.note_key(id, &key);
                self.note_mounts(id, op, &selections);
                self.selections().insert(id, Arc::new(selections));
                return Ok(Some(key));
            }
            Op::Copy(op) => ("copy/1", self.plan_copy(op, &inputs)?),
            Op::Workdir(op) => ("workdir/1", self.plan_workdir(op, &inputs)?),
        };
        let mut key = key::entries(domain, &transfer.planned, self.options.clamp);
        // Times are in no key, but who wants others than the next build would have must not share its layer.
        if matches!(&step.op, Op::Copy(op) if op.sources.iter().any(CopySourceOp::has_time_of_checkout)) {
            key.add("git time", "checkout");
        }
        self.transfers().insert(id, transfer);
        self.note_key(id, &key);
        Ok(Some(key))
    }

    fn lookup(&self, id: StepId, outputs: &[StepOutput], key: &CacheKey) -> Result<Option<StepOutput>, Error> {
        let (step, ids) = self.step(id);
        let parent = Inputs { ids, outputs }.root(step.op.parent())?;
        self.lookup_record(id, key, &parent)
    }

    fn glimpse(&self, id: StepId, outputs: &[StepOutput]) -> Result<Glimpse<StepOutput>, Error> {
        let (step, ids) = self.step(id);
        self.look(step, &Inputs { ids, outputs })
    }

    fn reason(&self, id: StepId, key: &KeyParts) -> Option<String> {
        self.note_reason(id, key)
    }

    fn lock(&self, key: &CacheKey) -> Result<Self::Lock, Error> {
        let mut busy = || match self.kill_switch.is_thrown() {
            true => ControlFlow::Break(()),
            false => ControlFlow::Continue(()),
        };
        self.store.lock_step(key, &mut busy).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    fn execute(
        &self,
        id: StepId,
        outputs: &[StepOutput],
        key: Option<&KeyParts>,
    ) -> Result<Completed<StepOutput>, Error> {
        if self.kill_switch.is_thrown() {
            return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled"));
        }
        let (step, ids) = self.step(id);
        let inputs = Inputs { ids, outputs };
        let parent = inputs.root(step.op.parent())?;
        let output = match &step.op {
            Op::Image(source) => {
                let layers = match self.shared_base(&source.image)? {
                    Some(layers) => layers,
                    None => self.images.promise(&source.image, |_, _| Ok(()))?,
                };
                StepOutput::Root(Root::scratch().with(layers))
            }
            Op::Context(name) => {
                let missing = || Error::new(ErrorKind::Context, format!("there is no context {name:?}"));
                self.contexts.get(name).ok_or_else(missing)?.provide(self.fetcher)?
            }
            Op::Run(op) => {
                let selections = self.selections().remove(&id);
                let lost = || Error::new(ErrorKind::Internal, "a command was not worked out");
                self.run(step, op, &parent, &selections.ok_or_else(lost)?)?
            }
            Op::Copy(_) | Op::Workdir(_) => {
                let transfer = self.transfers().remove(&id);
                let lost = || Error::new(ErrorKind::Internal, "a copy was not worked out");
                self.write_transfer(transfer.ok_or_else(lost)?, &parent)?
            }
        };
        if let Some(key) = key {
            self.record(id, key, &parent, &output)?;
            self.set_created(id, self.options.now.secs);
        }
        Ok(Completed { output, cached: false })
    }

    fn cancel(&self) {
        // Then the build goes on without it, and what is done meanwhile is not lost.
        if self.blamed_cache().is_none() {
            self.kill_switch.throw();
        }
    }
}
