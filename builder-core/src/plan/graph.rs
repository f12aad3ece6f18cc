//! What a build is made of: steps with their inputs, and the image that the target becomes.
//!
//! Everything here is a value: no file, no handle, no clock. Two steps that would do the same on the same inputs are
//! one step. Paths and values are after variable expansion; the steps stand in an order in which every input of a step
//! stands before it.

use std::sync::Arc;

use crate::diagnostic::{Diagnostic, Span};
use crate::digest::Digest;
use crate::event::{StepId, StepInfo};
use crate::image::{ImageConfig, Platform};

/// The plan of one build: only what the target needs.
#[derive(Debug, Clone)]
pub(crate) struct BuildGraph {
    /// The steps; `steps[i].info.step` is `StepId(i)`, and inputs have smaller numbers than their users.
    pub(crate) steps: Vec<Step>,
    /// The image at the end.
    pub(crate) target: TargetImage,
    /// What is odd but stops nothing, in the order of the Dockerfile.
    pub(crate) warnings: Vec<Diagnostic>,
}

impl BuildGraph {
    /// Returns the step `id`.
    pub(crate) fn step(&self, id: StepId) -> &Step {
        &self.steps[id.0]
    }

    /// Returns whether any step runs a command, so that something must be unpacked and isolated.
    pub(crate) fn runs_commands(&self) -> bool {
        self.steps.iter().any(|step| matches!(step.op, Op::Run(_)))
    }
}

/// One thing to do.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Step {
    /// Its number and how it is shown.
    pub(crate) info: StepInfo,
    /// Its instruction in the Dockerfile; for the trigger of a base image the `FROM`. Contexts have none.
    pub(crate) span: Option<Span>,
    /// What to do.
    pub(crate) op: Op,
}

impl Step {
    /// Returns the step's number.
    pub(crate) fn id(&self) -> StepId {
        self.info.step
    }
}

/// What a step does. `Image`, `Run`, `Copy` and `Workdir` result in a root file system, `Context` in files.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Op {
    /// Provides the layers of an image.
    Image(ImageSource),
    /// Provides the files of a local context.
    Context(ContextName),
    /// Runs a command.
    Run(Box<RunOp>),
    /// Copies files.
    Copy(Box<CopyOp>),
    /// Makes a directory where there is none.
    Workdir(WorkdirOp),
}

/// How a build names an image.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum ImageName {
    /// By a reference, as the Dockerfile says it after expansion.
    Reference(String),
    /// By a named context that is an image, as the request names it.
    Context(String),
}

impl Op {
    /// Returns the steps whose results this one reads, each once, the parent first.
    pub(crate) fn inputs(&self) -> Vec<StepId> {
        let mut inputs: Vec<StepId> = vec![];
        let mut add = |step: Option<StepId>| {
            if let Some(step) = step.filter(|step| !inputs.contains(step)) {
                inputs.push(step);
            }
        };
        match self {
            Self::Image(_) | Self::Context(_) => {}
            Self::Workdir(op) => add(op.parent.step()),
            Self::Run(op) => {
                add(op.parent.step());
                op.mounts.iter().filter_map(MountOp::files).for_each(|from| add(from.step()));
            }
            Self::Copy(op) => {
                add(op.parent.step());
                op.sources.iter().filter_map(CopySourceOp::files).for_each(|from| add(from.step()));
            }
        }
        inputs
    }
}

/// An image, found.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ImageSource {
    /// How it was asked for.
    pub(crate) name: ImageName,
    /// The platform it was asked for.
    pub(crate) platform: Platform,
    /// What the resolver found.
    pub(crate) image: Arc<ResolvedImage>,
}

/// What an [`ImageResolver`](super::ImageResolver) found under a name.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct ResolvedImage {
    /// Full name as shown, `docker.io/library/busybox:latest@sha256:…`.
    pub(crate) name: String,
    /// Digest of the manifest of the platform.
    pub(crate) digest: Digest,
    /// Its config.
    pub(crate) config: ImageConfig,
}

/// A local context.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum ContextName {
    /// The main one.
    Main,
    /// One given by name, as the request names it.
    Named(String),
}

/// The file system that a step builds on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RootInput {
    /// Nothing.
    Scratch,
    /// The result of an `Image`, `Run`, `Copy` or `Workdir` step.
    Step(StepId),
}

impl RootInput {
    /// Returns the step, if it is one.
    pub(crate) fn step(self) -> Option<StepId> {
        match self {
            Self::Scratch => None,
            Self::Step(id) => Some(id),
        }
    }
}

/// Where files to copy or to mount come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum FileInput {
    /// A `Context` step: its ignore rules hold, owners are 0:0.
    Context(StepId),
    /// A file system: owners are kept, nothing is ignored.
    Root(RootInput),
}

impl FileInput {
    /// Returns the step, if it is one.
    pub(crate) fn step(self) -> Option<StepId> {
        match self {
            Self::Context(id) => Some(id),
            Self::Root(root) => root.step(),
        }
    }
}

/// How a command was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum CommandForm {
    /// One string, given to the shell; `argv` has the shell in it.
    Shell,
    /// The arguments themselves; `argv[0]` is looked up in the `PATH` of the step.
    Exec,
}

/// `RUN`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct RunOp {
    /// The file system it changes.
    pub(crate) parent: RootInput,
    /// The command with its arguments; never empty.
    pub(crate) argv: Vec<String>,
    /// How it was written.
    pub(crate) form: CommandForm,
    /// A file that must be there while the command runs, and is not part of the result.
    pub(crate) script: Option<Script>,
    /// Environment: ENV and declared ARG, each name once, in the order they got their values.
    pub(crate) env: Vec<(String, String)>,
    /// Proxy variables from the request's build args, in upper and lower case: given to the command after `env`, so
    /// that they win, and never in a cache key.
    pub(crate) proxy_env: Vec<(String, String)>,
    /// Working directory, absolute and clean.
    pub(crate) cwd: String,
    /// `USER` as written: `user[:group]`, names or numbers; empty is root.
    pub(crate) user: String,
    /// Host name inside.
    pub(crate) hostname: String,
    /// `--network`
    pub(crate) network: NetworkMode,
    /// `--security`
    pub(crate) security: SecurityMode,
    /// `--mount`, in order; a later one lies over an earlier one.
    pub(crate) mounts: Vec<MountOp>,
    /// `--device`, in order.
    pub(crate) devices: Vec<Device>,
    /// Platform of the file system, for emulation.
    pub(crate) platform: Platform,
}

/// A heredoc that starts with `#!`: a file, mode 0755, read-only.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Script {
    /// Absolute path, `/dev/pipes/NAME`.
    pub(crate) path: String,
    /// Its content.
    pub(crate) content: String,
}

/// `RUN --network`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum NetworkMode {
    /// The builder's network for steps.
    #[default]
    Default,
    /// Loopback only.
    None,
    /// The host's.
    Host,
}

/// `RUN --security`
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum SecurityMode {
    /// Confined.
    #[default]
    Sandbox,
    /// All privileges the builder has.
    Insecure,
}

/// `RUN --device`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Device {
    /// CDI name, class or `*` pattern.
    pub(crate) name: String,
    /// Whether the step fails without it.
    pub(crate) need: Need,
}

/// Whether something must be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Need {
    /// An error if absent.
    Required,
    /// Silently left out if absent.
    Optional,
}

/// Whether a mount may be written to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Access {
    /// Only read.
    ReadOnly,
    /// Also written; what is written to a bind mount is thrown away.
    ReadWrite,
}

/// `RUN --mount`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct MountOp {
    /// Absolute, clean path inside, never `/`; a secret that is only a variable has none.
    pub(crate) target: Option<String>,
    /// What is mounted.
    pub(crate) kind: MountKind,
}

impl MountOp {
    /// Returns where its files come from, if it shows files.
    pub(crate) fn files(&self) -> Option<FileInput> {
        match &self.kind {
            MountKind::Bind { from, .. } => Some(*from),
            MountKind::Cache(cache) => Some(cache.from),
            MountKind::Tmpfs { .. } | MountKind::Secret { .. } | MountKind::Ssh { .. } => None,
        }
    }
}

/// What a `--mount` mounts.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum MountKind {
    /// `type=bind`
    Bind {
        /// Where the files are.
        from: FileInput,
        /// Absolute, clean path in `from`.
        source: String,
        /// `rw` or `ro`.
        access: Access,
    },
    /// `type=cache`
    Cache(CacheMount),
    /// `type=tmpfs`
    Tmpfs {
        /// Most bytes, if limited.
        size_bytes: Option<u64>,
        /// `rw` or `ro`.
        access: Access,
    },
    /// `type=secret`
    Secret {
        /// Its id.
        id: String,
        /// Variable that gets the value, if any.
        env: Option<String>,
        /// `required`
        need: Need,
        /// Owner and mode of the file.
        owner: MountOwner,
    },
    /// `type=ssh`: an agent socket; the step's `env` has the first one's target as `SSH_AUTH_SOCK`.
    Ssh {
        /// Its id.
        id: String,
        /// `required`
        need: Need,
        /// Owner and mode of the socket.
        owner: MountOwner,
    },
}

/// `--mount=type=cache`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct CacheMount {
    /// Its identity: `NAMESPACE/ID`.
    pub(crate) id: String,
    /// What a new cache starts with; `Root(Scratch)` is an empty directory.
    pub(crate) from: FileInput,
    /// Absolute, clean path in `from`.
    pub(crate) source: String,
    /// `sharing`
    pub(crate) sharing: Sharing,
    /// `ro` or `rw`.
    pub(crate) access: Access,
    /// Owner and mode of a new cache's directory, where any of the three was given.
    pub(crate) owner: Option<MountOwner>,
}

/// Owner and mode of what is mounted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct MountOwner {
    /// User id.
    pub(crate) uid: u32,
    /// Group id.
    pub(crate) gid: u32,
    /// Permission bits, at most 0o7777.
    pub(crate) mode: u32,
}

/// `sharing` of a cache mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Sharing {
    /// Any number of steps at once.
    #[default]
    Shared,
    /// One step at once; another one gets a fresh directory.
    Private,
    /// One step at once; another one waits.
    Locked,
}

/// `COPY` or `ADD`
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct CopyOp {
    /// The file system it changes.
    pub(crate) parent: RootInput,
    /// Where a relative destination starts, absolute and clean.
    pub(crate) workdir: String,
    /// The destination, expanded, otherwise as written. A trailing `/`, or a last component `.` or `..`, says that it
    /// is a directory: see [`CopyOp::dest_is_directory`].
    pub(crate) dest: String,
    /// The sources in order; at least one.
    pub(crate) sources: Vec<CopySourceOp>,
    /// `--chown=user[:group]`, expanded, names or numbers of the parent's file system.
    pub(crate) chown: Option<String>,
    /// `--chmod`
    pub(crate) chmod: Option<Chmod>,
    /// `--link`
    pub(crate) link: bool,
    /// `--parents`
    pub(crate) parents: bool,
    /// `--exclude`, patterns as in an ignore file, relative to each source.
    pub(crate) excludes: Vec<String>,
    /// What `ADD` does more.
    pub(crate) kind: CopyKind,
}

impl CopyOp {
    /// Returns whether the destination is a directory by the way it is written.
    pub(crate) fn dest_is_directory(&self) -> bool {
        matches!(self.dest.rsplit('/').next(), Some("" | "." | ".."))
    }
}

/// Which instruction a copy is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CopyKind {
    /// `COPY`
    Copy,
    /// `ADD`
    Add {
        /// `--unpack`: `None` unpacks local archives and leaves remote ones as they are.
        unpack: Option<bool>,
    },
}

/// One source of a copy.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum CopySourceOp {
    /// Files below an input.
    Path {
        /// The input.
        from: FileInput,
        /// Path or wildcard pattern relative to its root, expanded, otherwise as written.
        pattern: String,
    },
    /// A heredoc: a file, mode 0644, owner 0:0.
    Inline {
        /// File name.
        name: String,
        /// Content, expanded.
        content: String,
    },
    /// `ADD https://…`: a file, mode 0600, owner 0:0.
    Http {
        /// The URL.
        url: String,
        /// Name of the file in a destination that is a directory: the last part of the URL's path, if it has one.
        name: Option<String>,
        /// `--checksum`
        checksum: Option<Digest>,
    },
    /// `ADD` of a git repository.
    Git(GitSource),
}

impl CopySourceOp {
    /// Returns the input that it is part of, if it is.
    pub(crate) fn files(&self) -> Option<FileInput> {
        match self {
            Self::Path { from, .. } => Some(*from),
            Self::Inline { .. } | Self::Http { .. } | Self::Git(_) => None,
        }
    }
}

/// A git repository to add.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct GitSource {
    /// As written, expanded.
    pub(crate) url: String,
    /// What `git fetch` gets.
    pub(crate) remote: String,
    /// Branch, tag or commit; the remote's HEAD by default.
    pub(crate) reference: Option<String>,
    /// Directory inside; the whole tree by default.
    pub(crate) subdir: Option<String>,
    /// Commit that `reference` must be, perhaps shortened: hexadecimal.
    pub(crate) checksum: Option<String>,
    /// Whether `.git` stays.
    pub(crate) keep_git_dir: bool,
    /// Whether submodules are fetched.
    pub(crate) submodules: bool,
}

/// `--chmod`
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Chmod {
    /// The mode, at most 0o7777; also for directories that are made on the way.
    Octal(u32),
    /// Changes, applied in order with umask 0; symlinks and directories made on the way stay as they are.
    Symbolic(Vec<ModeChange>),
}

/// One operation of a symbolic mode, `go=rX`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct ModeChange {
    /// Whose bits: a mask of 0o700 for the user, 0o070 for the group, 0o007 for others; set-user-id belongs to the
    /// user, set-group-id to the group, the sticky bit to others.
    pub(crate) who: u32,
    /// Add, remove or set.
    pub(crate) action: ModeAction,
    /// Which bits.
    pub(crate) bits: ModeBits,
}

/// `+`, `-` or `=`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ModeAction {
    /// `+`
    Add,
    /// `-`
    Remove,
    /// `=`
    Set,
}

/// Right side of a [`ModeChange`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ModeBits {
    /// Letters.
    Letters {
        /// `r`, `w` and `x` as 4, 2 and 1.
        permissions: u32,
        /// `X`: `x` if it is a directory or somebody may execute it already.
        execute_if_any: bool,
        /// `s`
        set_id: bool,
        /// `t`
        sticky: bool,
    },
    /// `u`, `g` or `o`: the bits somebody has, as the mask 0o700, 0o070 or 0o007.
    CopyFrom(u32),
}

/// `WORKDIR`: makes the directory, 0755, and missing parents, all owned by `user`; what is there stays as it is.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct WorkdirOp {
    /// The file system it changes.
    pub(crate) parent: RootInput,
    /// Absolute, clean path, never `/`.
    pub(crate) path: String,
    /// `USER` as written; empty is root.
    pub(crate) user: String,
}

/// The image that the build makes.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TargetImage {
    /// Its file system. Its layers are those of `base` and, in order, of the steps from there to `root`.
    pub(crate) root: RootInput,
    /// The image it builds on, if any: its layers and history come first. Always an `Image` step.
    pub(crate) base: Option<StepId>,
    /// Its config; `rootfs`, `history` and `created` are for the exporter to fill.
    pub(crate) config: ImageConfig,
    /// History after that of `base`.
    pub(crate) history: Vec<PlannedHistory>,
    /// Seconds since 1970 from `SOURCE_DATE_EPOCH`, where a build arg or a global `ARG` set it.
    pub(crate) source_date_epoch: Option<i64>,
}

/// One entry of the history, without its time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct PlannedHistory {
    /// The instruction.
    pub(crate) created_by: String,
    /// What wrote the history.
    pub(crate) comment: &'static str,
    /// The step whose layer this is; an empty layer otherwise.
    pub(crate) layer: Option<StepId>,
}
