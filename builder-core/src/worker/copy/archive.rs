//! `ADD` of an archive: its entries applied to the destination, as `tar -x` there would.
//!
//! Paths of entries are hostile: they are cleaned, and resolved inside the destination alone. A symbolic link of the
//! image or of the archive itself that would lead an entry out of the destination is an error.

use super::canvas::{Canvas, CanvasError, Origin, Put};
use super::{Rules, SourceOwner};
use std::convert::Infallible;

use crate::tree::path::{clean, file_name, join, parent, show};
use crate::tree::{FollowLast, Kind, Metadata, Standing, resolve_with};

/// An entry of an archive, in the order of the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ArchiveEntry {
    /// Name as stored.
    pub(crate) name: Vec<u8>,
    /// Mode, owner, times, attributes.
    pub(crate) meta: Metadata,
    /// What it is; the target of a hard link as stored.
    pub(crate) kind: Kind,
    /// Number of the entry, by which its bytes are found again.
    pub(crate) number: usize,
}

/// Why an archive cannot be applied.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub(crate) enum ArchiveError {
    /// An entry would land outside of the destination.
    #[error("archive entry {name:?} leads out of the destination {:?}", show(.dest))]
    Escapes { name: String, dest: Vec<u8> },
    /// A hard link to something that is not there.
    #[error("archive entry {name:?} links to {target:?}, which is not there")]
    LinkTarget { name: String, target: String },
    /// Something is in the way.
    #[error("archive entry {name:?}: {source}")]
    Canvas { name: String, source: CanvasError },
}

/// Applies the entries of an archive below the destination of `rules`.
pub(crate) fn apply(
    canvas: &mut Canvas<'_>,
    rules: &Rules<'_>,
    source: usize,
    entries: &[ArchiveEntry],
) -> Result<(), ArchiveError> {
    let wrap = |name: &[u8]| {
        let name = String::from_utf8_lossy(name).into_owned();
        move |source| ArchiveError::Canvas { name, source }
    };
    let dest = canvas.resolve(&rules.dest).map_err(wrap(b"."))?;
    canvas.mkdir_all(&dest, &rules.implied()).map_err(wrap(b"."))?;
    for entry in entries {
        let relative = relative(&entry.name).ok_or_else(|| escapes(&entry.name, &dest))?;
        if relative.is_empty() {
            continue; // The archive's own root says nothing about the destination.
        }
        let up = inside(canvas, &dest, parent(&relative).unwrap_or_default(), &entry.name)?;
        let path = join(&up, file_name(&relative));
        let implied = Metadata { mode: 0o755, mtime: rules.now, ..rules.implied() };
        canvas.mkdir_all(&up, &implied).map_err(wrap(&entry.name))?;
        if apply_whiteout(canvas, &up, &path) {
            continue;
        }
        let put = match &entry.kind {
            Kind::Hardlink { target } => link(canvas, &dest, entry, target)?,
            kind => {
                let is_file = matches!(kind, Kind::File { .. });
                let number = entry.number.to_string().into_bytes();
                let origin = is_file.then_some(Origin { source, path: number });
                let meta = rules.adapted(entry.meta.clone(), kind, SourceOwner::Kept);
                Put { meta, kind: kind.clone(), origin, group: None }
            }
        };
        let both_directories = matches!(put.kind, Kind::Directory { .. }) && canvas.is_dir(&path);
        if !both_directories && canvas.get(&path).is_some() {
            canvas.remove(&path);
        }
        canvas.put(&path, put).map_err(wrap(&entry.name))?;
    }
    Ok(())
}

/// A layer given as an archive deletes as a layer does (`.wh.NAME`), which is what BuildKit makes of it.
fn apply_whiteout(canvas: &mut Canvas<'_>, up: &[u8], path: &[u8]) -> bool {
    match file_name(path).strip_prefix(b".wh.") {
        Some(b".wh..opq") | None => false,
        Some(hidden) => {
            canvas.remove(&join(up, hidden));
            true
        }
    }
}

/// Follows links in `relative` with `dest` as the root, so that no link leads out of it; one that does not lead to a
/// directory is an error.
fn inside(canvas: &Canvas<'_>, dest: &[u8], relative: &[u8], name: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let mut at = Vec::new();
    for part in relative.split(|b| *b == b'/').filter(|part| !part.is_empty()) {
        let next = join(&at, part);
        at = match canvas.get(&join(dest, &next)) {
            Some((_, Kind::Symlink { .. })) => follow(canvas, dest, &next, name)?,
            _ => next,
        };
    }
    Ok(join(dest, &at))
}

/// Follows the link at `path` below `dest`.
fn follow(canvas: &Canvas<'_>, dest: &[u8], path: &[u8], name: &[u8]) -> Result<Vec<u8>, ArchiveError> {
    let standing = |path: &[u8]| {
        Ok::<_, Infallible>(match canvas.get(&join(dest, path)).map(|(_, kind)| kind) {
            None => Standing::Missing,
            Some(Kind::Directory { .. }) => Standing::Directory,
            Some(Kind::Symlink { target }) => Standing::Symlink(target.clone()),
            Some(_) => Standing::Other,
        })
    };
    let Ok(resolved) = resolve_with(path, FollowLast::Yes, standing);
    let resolved = resolved.map_err(|error| ArchiveError::Canvas {
        name: String::from_utf8_lossy(name).into_owned(),
        source: CanvasError::Resolve(error),
    })?;
    if canvas.is_dir(&join(dest, &resolved)) { Ok(resolved) } else { Err(escapes(name, dest)) }
}

fn link(canvas: &mut Canvas<'_>, dest: &[u8], entry: &ArchiveEntry, target: &[u8]) -> Result<Put, ArchiveError> {
    let relative = relative(target).ok_or_else(|| escapes(&entry.name, dest))?;
    let up = inside(canvas, dest, parent(&relative).unwrap_or_default(), &entry.name)?;
    let path = join(&up, file_name(&relative));
    canvas.hard_link(&path).ok_or_else(|| ArchiveError::LinkTarget {
        name: String::from_utf8_lossy(&entry.name).into_owned(),
        target: String::from_utf8_lossy(target).into_owned(),
    })
}

/// A stored name as a path below the destination; `None` when it has a `..`.
fn relative(name: &[u8]) -> Option<Vec<u8>> {
    let climbs = name.split(|b| *b == b'/').any(|part| part == b"..");
    (!climbs).then(|| clean(&[b"/", name].concat())[1..].to_vec())
}

fn escapes(name: &[u8], dest: &[u8]) -> ArchiveError {
    ArchiveError::Escapes { name: String::from_utf8_lossy(name).into_owned(), dest: dest.to_vec() }
}
