//! What `COPY` and `ADD` do: sources, destination, owner and mode.

use super::{FileInput, RootInput};
use crate::digest::Digest;

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
    /// Whether its files have the time of the build that fetched them.
    pub(crate) fn has_time_of_checkout(&self) -> bool {
        matches!(self, Self::Git(GitSource { mtime: GitTime::Checkout, .. }))
    }

    #[cfg(any(test, fuzzing))]
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
    /// The time of its files.
    pub(crate) mtime: GitTime,
    /// What decides which commit it is.
    pub(crate) pin: GitPin,
}

impl GitSource {
    /// Whether it is reached by ssh: `ssh://…`, or `user@host:path`.
    pub(crate) fn is_by_ssh(&self) -> bool {
        self.remote.starts_with("ssh://") || !self.remote.contains("://")
    }
}

/// The time that the files of a repository get.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum GitTime {
    /// That of the commit: the same wherever and whenever it is fetched.
    #[default]
    Commit,
    /// That of the build which fetched it.
    Checkout,
}

/// What decides which commit a source is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum GitPin {
    /// The server says what the reference is, and a checksum must agree.
    #[default]
    Reference,
    /// The checksum; where the reference leads by now does not matter.
    Checksum,
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
