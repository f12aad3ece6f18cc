//! One path of a layer.

use crate::digest::ContentHash;

/// A moment with nanoseconds; `secs` may be negative, `nanos` counts forward from it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub(crate) struct Timestamp {
    /// Seconds since 1970-01-01T00:00:00Z.
    pub(crate) secs: i64,
    /// Nanoseconds, 0 to 999,999,999.
    pub(crate) nanos: u32,
}

/// Extended attributes by full name, sorted by name.
pub(crate) type Xattrs = std::collections::BTreeMap<Vec<u8>, Vec<u8>>;

/// What every kind of entry has.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Metadata {
    /// Permission, setuid, setgid and sticky bits: `0o7777` at most. `0o777` for symlinks.
    pub(crate) mode: u32,
    /// Owner as the image says it (an id inside the user namespace).
    pub(crate) uid: u32,
    /// Group as the image says it.
    pub(crate) gid: u32,
    /// Modification time.
    pub(crate) mtime: Timestamp,
    /// Extended attributes that belong into a layer (see `layer` for which do).
    pub(crate) xattrs: Xattrs,
}

/// What stands at a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A directory; `opaque` hides everything that lower layers have below it (`.wh..wh..opq`).
    Directory { opaque: bool },
    /// A regular file, or the first path in byte order of a group of hard links.
    File { size: u64, content: ContentHash },
    /// Another name of `target`, a path of the same form as [`Entry::path`]. Metadata repeats the target's.
    Hardlink { target: Vec<u8> },
    /// A symbolic link; `target` is as stored, never resolved.
    Symlink { target: Vec<u8> },
    /// A character device.
    CharDevice { major: u32, minor: u32 },
    /// A block device.
    BlockDevice { major: u32, minor: u32 },
    /// A named pipe.
    Fifo,
    /// Removes the path of lower layers (`.wh.NAME`). Metadata is the default.
    Whiteout,
}

/// One path of a layer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    /// Relative to the root, components joined by `/`, no leading or trailing `/`, no `.` or `..`; empty for the root.
    pub(crate) path: Vec<u8>,
    /// Mode, owner, times, attributes.
    pub(crate) meta: Metadata,
    /// What it is.
    pub(crate) kind: Kind,
}

impl Entry {
    /// Whether this is a directory.
    pub(crate) fn is_dir(&self) -> bool {
        matches!(self.kind, Kind::Directory { .. })
    }
}
