//! What a name means besides being one (image-spec `layer.md`, "Whiteouts").

use crate::layer::tar::{OPAQUE, WHITEOUT};
use crate::tree::path::{file_name, parent};

/// How names start by which aufs keeps book.
const AUFS: &[u8] = b".wh..wh.";

/// What a name means besides being one.
pub(super) enum Marker<'p> {
    None,
    /// Bookkeeping of aufs.
    Ignored,
    Opaque,
    /// Hides this name.
    Whiteout(&'p [u8]),
}

impl<'p> Marker<'p> {
    /// What the name of an entry means; `None` for a `.wh.` name that means nothing.
    pub(super) fn of(path: &'p [u8]) -> Option<Self> {
        let name = file_name(path);
        let mut dirs = parent(path).unwrap_or_default().split(|byte| *byte == b'/');
        if dirs.clone().any(|dir| dir.starts_with(AUFS)) {
            return Some(Self::Ignored);
        }
        if dirs.any(|dir| dir.starts_with(WHITEOUT)) {
            return None;
        }
        match name.strip_prefix(WHITEOUT) {
            None => Some(Self::None),
            Some(_) if name == OPAQUE => Some(Self::Opaque),
            Some(_) if name.starts_with(AUFS) => Some(Self::Ignored),
            Some(b"" | b"." | b"..") => None,
            Some(hidden) => Some(Self::Whiteout(hidden)),
        }
    }
}
