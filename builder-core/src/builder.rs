//! The public face: a [`Builder`] is a state directory and a way to start build processes. No daemon, nothing open
//! between two calls.

mod distribution;
mod indexes;
mod look;
mod offline;

use std::collections::BTreeMap;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::engine::{self, Answer, Heard, HostFacts, News, Task, TaskKind};
use crate::error::{Error, ErrorKind, Result};
use crate::event::Event;
use crate::registry::{ClientConfig, Credential};
use crate::request::{BuildOutcome, BuildRequest, ImagePart, ImageSummary, Output};
use crate::rootless::{self, BuildProcess, CancelHandle, HostReport, LaunchConfig, Program, Stdout};
use crate::shelf;
use crate::store::{Store, WorkDir};

/// How long a cancelled build may clean up before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// Must be the first call of `main` in a program that builds: in the build process, which is the program started again,
/// it does not return. Everywhere else it returns at once and does nothing.
///
/// User namespaces can only be entered by a process with one thread, so no thread may exist yet.
pub fn init() {
    rootless::init_if_build_process(engine::main);
}

/// Builds images into one state directory. Any number of builders, also of different processes, may share one.
#[derive(Debug, Clone)]
pub struct Builder {
    state_dir: PathBuf,
    launch: LaunchConfig,
    registries: ClientConfig,
    credentials: Source,
    running: Arc<Mutex<Running>>,
}

/// Finds the credential for a `host[:port]`: what is found, or why nobody could look.
type FindCredential = dyn Fn(&str) -> std::result::Result<Option<Credential>, String> + Send + Sync;

#[derive(Clone, Default)]
struct Source(Option<Arc<FindCredential>>);

impl std::fmt::Debug for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Some(..)" } else { "None" })
    }
}

impl Source {
    fn find(&self, host: &str) -> std::result::Result<Option<Credential>, String> {
        self.0.as_ref().map_or(Ok(None), |find| find(host))
    }
}

#[derive(Debug, Default)]
struct Running {
    cancelled: bool,
    processes: Vec<CancelHandle>,
}

/// Ends the builds of a [`Builder`], from any thread.
#[derive(Debug, Clone)]
pub struct Canceller(Arc<Mutex<Running>>);

impl Canceller {
    /// Asks what runs to stop and clean up; what does not within a few seconds is killed. Later builds do not start.
    pub fn cancel(&self) {
        let mut running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.cancelled = true;
        for process in &running.processes {
            if process.cancel(GRACE).is_err() {
                process.kill();
            }
        }
    }

    /// Kills what runs, now.
    pub fn kill(&self) {
        let running = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        running.processes.iter().for_each(CancelHandle::kill);
    }
}

/// How much [`Builder::prune`] takes. Named images always stay.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum PruneExtent {
    /// What neither an image nor a cached step needs.
    Unreachable,
    /// Also cached steps and unpacked layers.
    Cache,
    /// Also the contents of cache mounts.
    CacheAndMounts,
}

/// What the state directory takes on disk, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct DiskUsage {
    /// By what it is for.
    pub categories: BTreeMap<String, u64>,
    /// In all, as `du -s` counts.
    pub total_bytes: u64,
}

/// What this machine allows, found out by trying.
#[derive(Debug, Clone)]
pub struct Report(HostReport);

impl Report {
    /// The findings, a line each, for a person.
    pub fn lines(&self) -> Vec<String> {
        self.0.summary_lines()
    }

    /// The findings as one JSON object.
    pub fn to_json(&self) -> String {
        serde_json::to_string(&self.0).unwrap_or_default()
    }
}

/// A context that came as a stream, in a file of the state directory that goes when this is dropped.
#[derive(Debug)]
pub struct SpooledContext {
    path: PathBuf,
    is_archive: bool,
    _dir: WorkDir,
}

impl SpooledContext {
    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Whether it is a tar, compressed or not. What is not is the text of a Dockerfile.
    pub fn is_archive(&self) -> bool {
        self.is_archive
    }
}

impl Builder {
    /// Names a state directory, which is made when first needed, and this program as the build process.
    ///
    /// # Errors
    /// When the path is empty.
    pub fn open(state_dir: impl Into<PathBuf>) -> Result<Self> {
        let state_dir = state_dir.into();
        if state_dir.as_os_str().is_empty() {
            return Err(Error::new(ErrorKind::Request, "the state directory has no name"));
        }
        let launch = LaunchConfig::new(Program::SelfExe);
        let (registries, credentials) = (ClientConfig::default(), Source::default());
        Ok(Self { state_dir, launch, registries, credentials, running: Arc::default() })
    }

    /// Uses another program as the build process: one that calls [`init`], such as the `builder` command of the same
    /// version. For programs that cannot call it first thing in `main`.
    #[must_use]
    pub fn build_process(mut self, program: impl Into<PathBuf>) -> Self {
        self.launch.program = Program::Binary(program.into());
        self
    }

    /// Sets how registries are reached.
    #[must_use]
    pub fn registries(mut self, config: ClientConfig) -> Self {
        self.registries = config;
        self
    }

    /// Sets who is asked for the credentials of the hosts that [`ClientConfig::helpers`] names: once a host, and only
    /// when it wants some. A failure is told as a warning, and the host is asked without credentials.
    ///
    /// Called on the thread that builds.
    #[must_use]
    pub fn credential_source(
        mut self,
        find: impl Fn(&str) -> std::result::Result<Option<Credential>, String> + Send + Sync + 'static,
    ) -> Self {
        self.credentials = Source(Some(Arc::new(find)));
        self
    }

    /// The state directory.
    pub fn state_dir(&self) -> &Path {
        &self.state_dir
    }

    /// Ends the builds of this builder and its clones, from any thread.
    pub fn canceller(&self) -> Canceller {
        Canceller(self.running.clone())
    }

    /// Builds an image. Events come on the calling thread, which waits until the build process and everything it
    /// started is gone.
    ///
    /// # Errors
    /// See [`ErrorKind`]; nothing is left behind but what may serve the next build.
    pub fn build(&self, request: &BuildRequest, on_event: &mut dyn FnMut(Event)) -> Result<BuildOutcome> {
        let facts = HostFacts { now: now(), resolv_conf: resolv_conf(), umask: umask() };
        let mut launch = self.launch.clone();
        if request.outputs.iter().any(Output::is_stdout) {
            launch.stdout = Stdout::Inherited;
        }
        let task = TaskKind::Build(Box::new(request.clone()), facts, Box::new(self.registries.clone()));
        match self.ask_of(&launch, task, on_event)? {
            Answer::Built(outcome) => Ok(outcome),
            other => Err(unexpected(&other)),
        }
    }

    /// Makes an image of a root filesystem tar, compressed or not, and names it in the store. `platform` is that of its
    /// programs, this machine's by default.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name or platform or something that is no tar, [`ErrorKind::Store`] else.
    pub fn import(&self, rootfs: &mut (dyn Read + Send), name: &str, platform: Option<&str>) -> Result<ImageSummary> {
        shelf::import(&self.store()?, rootfs, name, platform)
    }

    /// Writes a context that comes as a stream into the state directory, for [`ContextSource::Archive`]: the build
    /// process has no standard input.
    ///
    /// [`ContextSource::Archive`]: crate::ContextSource::Archive
    ///
    /// # Errors
    /// [`ErrorKind::Context`] when the stream cannot be read, [`ErrorKind::Store`] else.
    pub fn spool(&self, context: &mut dyn Read) -> Result<SpooledContext> {
        let dir = self.store()?.work_dir().map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
        let path = dir.path().join("context");
        let is_archive = shelf::spool(context, &path)?;
        Ok(SpooledContext { path, is_archive, _dir: dir })
    }

    /// The images of the store, sorted by name.
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn images(&self) -> Result<Vec<ImageSummary>> {
        shelf::images(&self.store()?)
    }

    /// Manifest and config of an image, by name or digest, as JSON; and by digest the repositories that have those of its
    /// layers which are not here, if there are any, as `elsewhere`.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when there is none, [`ErrorKind::Store`] else.
    pub fn inspect(&self, name: &str) -> Result<serde_json::Value> {
        shelf::inspect(&self.store()?, name)
    }

    /// One part of an image, by name or digest. Of an image of several platforms that of `platform`, else of this
    /// machine's; [`ImagePart::Raw`] is the index itself unless a platform is asked for.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when there is none, [`ErrorKind::Store`] else.
    pub fn inspect_part(&self, name: &str, part: ImagePart, platform: Option<&str>) -> Result<Vec<u8>> {
        shelf::document(&self.store()?, name, part, platform)
    }

    /// Gives an image of the store a further name, which is returned in full.
    ///
    /// # Errors
    /// [`ErrorKind::Request`] for a bad name or when there is no such image, [`ErrorKind::Store`] else.
    pub fn tag(&self, name: &str, new: &str) -> Result<String> {
        shelf::tag(&self.store()?, name, new)
    }

    /// Takes a name out of the store and returns it in full. The data stays until [`Builder::prune`].
    ///
    /// # Errors
    /// [`ErrorKind::Request`] when there is no such name, [`ErrorKind::Store`] else.
    pub fn remove(&self, name: &str) -> Result<String> {
        shelf::remove(&self.store()?, name)
    }

    /// Frees what neither an image nor a cached step needs. Returns the bytes that are free now. Safe beside running
    /// builds.
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn prune(&self, extent: PruneExtent) -> Result<u64> {
        let (steps, mounts) = match extent {
            PruneExtent::Unreachable => (false, false),
            PruneExtent::Cache => (true, false),
            PruneExtent::CacheAndMounts => (true, true),
        };
        match self.ask(TaskKind::Prune { steps, mounts }, &mut |_| {})? {
            Answer::Freed(bytes) => Ok(bytes),
            other => Err(unexpected(&other)),
        }
    }

    /// Measures the state directory.
    ///
    /// # Errors
    /// [`ErrorKind::Store`].
    pub fn disk_usage(&self) -> Result<DiskUsage> {
        match self.ask(TaskKind::DiskUsage, &mut |_| {})? {
            Answer::Usage(categories, total_bytes) => Ok(DiskUsage { categories, total_bytes }),
            other => Err(unexpected(&other)),
        }
    }

    /// Tries out what this machine allows, in the state directory, which is made when missing.
    ///
    /// # Errors
    /// When the build process cannot be started at all, [`ErrorKind::Store`] when there can be no state directory.
    pub fn doctor(&self) -> Result<Report> {
        std::fs::create_dir_all(&self.state_dir).map_err(|source| {
            Error::from_source(ErrorKind::Store, &source).context(format!("make {}", self.state_dir.display()))
        })?;
        let report = rootless::probe(&self.launch, &self.state_dir);
        report.map(Report).map_err(|error| launch_error(&error))
    }

    fn store(&self) -> Result<Store> {
        Store::open(&self.state_dir).map_err(|error| Error::from_source(ErrorKind::Store, &error))
    }

    fn ask(&self, kind: TaskKind, on_event: &mut dyn FnMut(Event)) -> Result<Answer> {
        self.ask_of(&self.launch, kind, on_event)
    }

    fn ask_of(&self, launch: &LaunchConfig, kind: TaskKind, on_event: &mut dyn FnMut(Event)) -> Result<Answer> {
        let process = BuildProcess::spawn(launch).map_err(|error| launch_error(&error))?;
        let handle = process.cancel_handle();
        {
            let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
            if running.cancelled {
                return Err(Error::new(ErrorKind::Cancelled, "the build was cancelled"));
            }
            running.processes.push(handle);
        }
        let task = Task { state_dir: self.state_dir.clone(), kind };
        let answers = process.answer_handle();
        let on_news = |news: News| match news {
            News::Event(event) => on_event(event),
            News::CredentialWanted(host) => {
                let heard = serde_json::to_string(&Heard(self.credentials.find(&host)));
                // An answer that cannot be sent means that nobody waits for it any more.
                heard.map(|heard| answers.send(heard).ok()).ok();
            }
        };
        let result = process.run::<Task, News, std::result::Result<Answer, Error>>(&task, on_news);
        self.running.lock().unwrap_or_else(PoisonError::into_inner).processes.clear();
        result.map_err(|error| launch_error(&error))?
    }
}

fn launch_error(error: &rootless::Error) -> Error {
    let kind = match error {
        rootless::Error::HostUnsupported(_) => ErrorKind::HostUnsupported,
        rootless::Error::Cancelled => ErrorKind::Cancelled,
        rootless::Error::InitNotCalled | rootless::Error::RelativeProgram { .. } => ErrorKind::Request,
        _ => ErrorKind::Internal,
    };
    let this = Error::from_source(kind, error);
    match error {
        rootless::Error::HostUnsupported(diagnosis) => {
            diagnosis.remedies.iter().fold(this, |this, remedy| this.hint(remedy.clone()))
        }
        _ => this,
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::new(ErrorKind::Internal, format!("the build process answered something else: {answer:?}"))
}

fn now() -> (i64, u32) {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    (i64::try_from(since.as_secs()).unwrap_or(i64::MAX), since.subsec_nanos())
}

/// The umask of this process, which can be set but not asked for in any other way.
fn umask() -> u32 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let value = status.lines().find_map(|line| line.strip_prefix("Umask:"));
    value.and_then(|value| u32::from_str_radix(value.trim(), 8).ok()).unwrap_or(0o022)
}

/// The name servers that this machine uses, for commands.
fn resolv_conf() -> Vec<u8> {
    std::fs::read("/etc/resolv.conf").unwrap_or_default()
}
