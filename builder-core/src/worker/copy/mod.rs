//! `COPY` and `ADD` as functions on trees: which entries the layer gets, and where the bytes of each file are.
//!
//! The rules are those of BuildKit's file operations: a directory gives its contents; a destination that ends in `/`
//! or is a directory takes sources by name; directories that are made on the way are 0755 and belong to `--chown` or
//! root; directories that exist keep their metadata at the top and take the source's below it; files and links are
//! replaced, directories never are.

mod archive;
mod canvas;
mod mode;
mod select;

#[cfg(test)]
mod tests;

use std::collections::HashMap;

pub(crate) use archive::ArchiveEntry;
pub(crate) use archive::apply as apply_archive;
pub(crate) use canvas::{Canvas, CanvasError, Origin, Planned, Put};
pub(crate) use select::{SelectError, Selected, select, select_with_parents};

use crate::plan::Chmod;
use crate::tree::path::{ancestors, join, parent, strip_dir};
use crate::tree::pattern::PatternSet;
use crate::tree::{Kind, MergedTree, Metadata, Timestamp};
use canvas::LinkGroup;

/// What an instruction says about all of its sources.
#[derive(Debug)]
pub(crate) struct Rules<'a> {
    /// Destination relative to the root, cleaned, symbolic links not followed.
    pub(crate) dest: Vec<u8>,
    /// The destination was written as a directory.
    pub(crate) dest_is_dir: bool,
    /// `--chown`
    pub(crate) owner: Option<(u32, u32)>,
    /// `--chmod`
    pub(crate) chmod: Option<&'a Chmod>,
    /// `--exclude`
    pub(crate) excludes: Option<&'a PatternSet>,
    /// Time of directories that are made on the way.
    pub(crate) now: Timestamp,
}

/// Whose the files of a source are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum SourceOwner {
    /// A context: everything is root's.
    Root,
    /// An image or stage: owners stay.
    Kept,
}

/// Where to copy from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct SourceTree<'a> {
    /// Number of the source within the step.
    pub(crate) number: usize,
    /// Its files.
    pub(crate) tree: &'a MergedTree,
    /// Whose they are.
    pub(crate) owner: SourceOwner,
}

impl Rules<'_> {
    fn owned(&self, mut meta: Metadata, owner: SourceOwner) -> Metadata {
        let (uid, gid) = match (self.owner, owner) {
            (Some(ids), _) => ids,
            (None, SourceOwner::Root) => (0, 0),
            (None, SourceOwner::Kept) => (meta.uid, meta.gid),
        };
        // The kernel drops file capabilities when the owner changes, and so does every other builder.
        if (uid, gid) != (meta.uid, meta.gid) && owner == SourceOwner::Kept {
            meta.xattrs.remove(b"security.capability".as_slice());
        }
        (meta.uid, meta.gid) = (uid, gid);
        meta
    }

    fn adapted(&self, meta: Metadata, kind: &Kind, owner: SourceOwner) -> Metadata {
        let mut meta = self.owned(meta, owner);
        if let Some(chmod) = self.chmod.filter(|_| !matches!(kind, Kind::Symlink { .. })) {
            meta.mode = mode::apply(chmod, meta.mode, matches!(kind, Kind::Directory { .. }));
        }
        meta
    }

    /// Metadata of directories that are made on the way.
    fn implied(&self) -> Metadata {
        let (uid, gid) = self.owner.unwrap_or((0, 0));
        let mode = match self.chmod {
            Some(Chmod::Octal(mode)) => *mode,
            _ => 0o755,
        };
        Metadata { mode, uid, gid, mtime: self.now, ..Metadata::default() }
    }
}

/// Finds the path that a source goes to, and makes the directories above it.
fn place(canvas: &mut Canvas<'_>, rules: &Rules<'_>, is_dir: bool, name: &[u8]) -> Result<Vec<u8>, CanvasError> {
    let dest = canvas.resolve(&rules.dest)?;
    if rules.dest_is_dir || is_dir {
        canvas.mkdir_all(&dest, &rules.implied())?;
    } else {
        canvas.mkdir_all(parent(&dest).unwrap_or_default(), &rules.implied())?;
    }
    if !is_dir && canvas.is_dir(&dest) {
        return Ok(join(&dest, name));
    }
    // BuildKit lets the last one win; the reference asks for a directory, and so do we.
    if !is_dir && canvas.has_put(&dest) {
        return Err(CanvasError::SeveralSources(dest));
    }
    Ok(dest)
}

/// Copies one selected path of a source.
pub(crate) fn copy_path(
    canvas: &mut Canvas<'_>,
    rules: &Rules<'_>,
    source: SourceTree<'_>,
    selected: &select::Selected,
) -> Result<(), CanvasError> {
    let Some(node) = source.tree.get(&selected.path) else { return Ok(()) };
    let is_dir = matches!(node.kind, Kind::Directory { .. });
    let target = place(canvas, rules, is_dir, &selected.name)?;
    let mut groups = HashMap::new();
    if !is_dir {
        return put_node(canvas, rules, source, &selected.path, &target, &mut groups);
    }
    for (path, _) in source.tree.descendants(&selected.path) {
        let relative = strip_dir(path, &selected.path).unwrap_or_default();
        if rules.excludes.is_some_and(|excludes| excludes.excludes(relative)) {
            continue;
        }
        let target = join(&target, relative);
        // An excluded directory may hold files that an exception brings back.
        canvas.mkdir_all(parent(&target).unwrap_or_default(), &rules.implied())?;
        put_node(canvas, rules, source, path, &target, &mut groups)?;
    }
    Ok(())
}

/// Copies paths with the directories above them, `--parents`.
pub(crate) fn copy_with_parents(
    canvas: &mut Canvas<'_>,
    rules: &Rules<'_>,
    source: SourceTree<'_>,
    selected: &select::WithParents,
) -> Result<(), CanvasError> {
    let dest = canvas.resolve(&rules.dest)?;
    canvas.mkdir_all(&dest, &rules.implied())?;
    let mut groups = HashMap::new();
    for relative in &selected.paths {
        if rules.excludes.is_some_and(|excludes| excludes.excludes(relative)) {
            continue;
        }
        let mut ups: Vec<&[u8]> = ancestors(relative).filter(|up| !up.is_empty()).collect();
        ups.reverse();
        for up in ups.into_iter().chain([relative.as_slice()]) {
            let target = join(&dest, up);
            if up != relative.as_slice() && canvas.is_dir(&target) {
                continue;
            }
            put_node(canvas, rules, source, &join(&selected.root, up), &target, &mut groups)?;
        }
    }
    Ok(())
}

type Groups<'t> = HashMap<(usize, &'t [u8]), LinkGroup>;

fn put_node<'t>(
    canvas: &mut Canvas<'_>,
    rules: &Rules<'_>,
    source: SourceTree<'t>,
    path: &[u8],
    target: &[u8],
    groups: &mut Groups<'t>,
) -> Result<(), CanvasError> {
    let Some(node) = source.tree.get(path) else { return Ok(()) };
    let is_file = matches!(node.kind, Kind::File { .. });
    let group = node.link.filter(|_| is_file).map(|first| {
        let key = (node.layer, first);
        *groups.entry(key).or_insert_with(|| canvas.new_group())
    });
    let kind = node.kind.clone();
    let meta = rules.adapted(node.meta.clone(), &kind, source.owner);
    let origin = is_file.then(|| Origin { source: source.number, path: path.to_vec() });
    canvas.put(target, Put { meta, kind, origin, group })
}

/// Puts a file that is not part of any tree: a heredoc, a download.
pub(crate) fn copy_file(
    canvas: &mut Canvas<'_>,
    rules: &Rules<'_>,
    number: usize,
    name: &[u8],
    file: (Metadata, u64),
) -> Result<(), CanvasError> {
    let (meta, size) = file;
    let target = place(canvas, rules, false, name)?;
    let kind = Kind::File { size, content: crate::digest::ContentHash([0; 32]) };
    let meta = rules.adapted(meta, &kind, SourceOwner::Root);
    let origin = Some(Origin { source: number, path: name.to_vec() });
    canvas.put(&target, Put { meta, kind, origin, group: None })
}
