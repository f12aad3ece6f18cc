//! Reads layers without unpacking them: their tree, and the bytes of single files.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{Read, Seek, SeekFrom, Write};
use std::path::PathBuf;
use std::sync::Arc;

use super::changeset::{Change, Changeset, What};
use super::source::with_tar;
use super::tar::{Piece, RawEntry, RawKind, Reader};
use super::{Error, Result};
use crate::digest::ContentHash;
use crate::store::{LayerDescriptor, Store};
use crate::tree::{Kind, LayerTree};

/// Bytes of content in memory at once.
pub(super) const CONTENT_BUFFER: usize = 128 << 10;
const ZEROS: [u8; 4096] = [0; 4096];

/// Returns the tree of `layer`: from the store, as promised for a blob that is not there, or by reading the blob once,
/// which also verifies it and stores the tree.
pub(crate) fn ensure_tree(store: &Store, layer: &LayerDescriptor) -> Result<Arc<LayerTree>> {
    if let Some(tree) = store.tree(&layer.diff_id)? {
        return Ok(tree);
    }
    if let Some(tree) = store.promised_tree(&layer.diff_id, &layer.digest)? {
        return Ok(tree);
    }
    let tree = with_tar(store, layer, |tar| tree_of(tar))?;
    store.put_tree(&layer.diff_id, &tree)?;
    Ok(Arc::new(tree))
}

/// Reads a layer's tar to its end and returns what it says.
pub(crate) fn tree_of(tar: impl Read) -> Result<LayerTree> {
    let mut walk = Walk::new(tar);
    while let Some(step) = walk.next()? {
        if let Some(inode) = step.content {
            let hash = walk.content(&mut |_| Ok(()))?;
            walk.changeset.set_content(inode, hash);
        }
    }
    Ok(walk.changeset.finish()?.tree)
}

/// Writes the bytes of files of `layer` to host files, in one pass over the blob: `wanted` maps paths of the layer's
/// tree to files, which are created or overwritten. Bytes only; what they are is verified against the tree.
///
/// A path that is not a regular file of the layer (or a hard link to one) is an error. After an error the files hold
/// anything.
pub(crate) fn extract_contents(
    store: &Store,
    layer: &LayerDescriptor,
    wanted: &BTreeMap<Vec<u8>, PathBuf>,
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let tree = ensure_tree(store, layer)?;
    let mut groups = groups(&tree, wanted)?;
    with_tar(store, layer, |tar| {
        let mut walk = Walk::new(tar);
        while let Some(step) = walk.next()? {
            let What::New { path, .. } = &step.change.what else { continue };
            let first = first_name(&tree, path);
            if let (Some(group), Some(_)) = (groups.get_mut(first), step.content) {
                group.found = Some(extract(&mut walk, &group.files)?);
            }
        }
        // A name that was given twice can leave the bytes of the wrong one.
        match groups.iter().find(|(_, group)| group.found != Some(group.hash)) {
            Some((path, _)) => Err(Error::NotAFile { path: path.to_vec() }),
            None => Ok(()),
        }
    })
}

/// Files that all get the bytes of one object of the layer.
struct Group<'w> {
    files: Vec<&'w PathBuf>,
    hash: ContentHash,
    found: Option<ContentHash>,
}

/// Wanted files by the first name of what they want.
fn groups<'t, 'w>(
    tree: &'t LayerTree,
    wanted: &'w BTreeMap<Vec<u8>, PathBuf>,
) -> Result<BTreeMap<&'t [u8], Group<'w>>> {
    let mut groups = BTreeMap::new();
    for (path, file) in wanted {
        let entry = tree.get(path).and_then(|entry| match &entry.kind {
            Kind::Hardlink { target } => tree.get(target),
            _ => Some(entry),
        });
        let Some((first, Kind::File { content, .. })) = entry.map(|entry| (&entry.path[..], &entry.kind)) else {
            return Err(Error::NotAFile { path: path.clone() });
        };
        let new = || Group { files: Vec::new(), hash: *content, found: None };
        groups.entry(first).or_insert_with(new).files.push(file);
    }
    Ok(groups)
}

fn first_name<'a>(tree: &'a LayerTree, path: &'a [u8]) -> &'a [u8] {
    match tree.get(path).map(|entry| &entry.kind) {
        Some(Kind::Hardlink { target }) => target,
        _ => path,
    }
}

fn extract<R: Read>(walk: &mut Walk<R>, paths: &[&PathBuf]) -> Result<ContentHash> {
    let failed = |path: &PathBuf| {
        let path = path.clone();
        move |source| Error::WriteFile { path, source }
    };
    let mut files = Vec::with_capacity(paths.len());
    for path in paths {
        files.push((File::create(path).map_err(failed(path))?, path));
    }
    let mut size = 0_u64;
    let hash = walk.content(&mut |part| {
        size += match part {
            ContentPart::Data(bytes) => bytes.len() as u64,
            ContentPart::Hole(len) => len,
        };
        for (file, path) in &mut files {
            match part {
                ContentPart::Data(bytes) => file.write_all(bytes).map_err(failed(path))?,
                ContentPart::Hole(_) => file.seek(SeekFrom::Start(size)).map(drop).map_err(failed(path))?,
            }
        }
        Ok(())
    })?;
    for (file, path) in files {
        // A hole at the end is not there yet.
        file.set_len(size).map_err(failed(path))?;
    }
    Ok(hash)
}

/// A part of a file's content.
#[derive(Debug, Clone, Copy)]
pub(super) enum ContentPart<'b> {
    /// Bytes.
    Data(&'b [u8]),
    /// So many zeros.
    Hole(u64),
}

/// Goes through a layer tar entry by entry and keeps the model of it.
#[derive(Debug)]
pub(super) struct Walk<R> {
    reader: Reader<R>,
    /// What the entries so far come to.
    pub(super) changeset: Changeset,
    buffer: Vec<u8>,
}

/// One entry, applied to the model.
#[derive(Debug)]
pub(super) struct Step {
    /// What it means on disk.
    pub(super) change: Change,
    /// The file whose bytes come next, and must be read before the next step.
    pub(super) content: Option<super::changeset::Inode>,
}

impl<R: Read> Walk<R> {
    /// Starts at the first entry of a layer.
    pub(super) fn new(tar: R) -> Self {
        let changeset = Changeset::new();
        Self { reader: Reader::new(tar), changeset, buffer: vec![0; CONTENT_BUFFER] }
    }

    /// Applies the next entry; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Step>> {
        let Some(entry) = self.reader.next()? else { return Ok(None) };
        let is_file = matches!(entry, RawEntry { kind: RawKind::File, .. });
        let change = self.changeset.apply(entry)?;
        let content = match change.what {
            What::New { inode, .. } if is_file => Some(inode),
            _ => None,
        };
        Ok(Some(Step { change, content }))
    }

    /// Reads the current file's content through `take` and returns its hash.
    pub(super) fn content(&mut self, take: &mut dyn FnMut(ContentPart<'_>) -> Result<()>) -> Result<ContentHash> {
        let mut hasher = blake3::Hasher::new();
        while let Some(piece) = self.reader.next_piece(&mut self.buffer)? {
            match piece {
                Piece::Data(len) => {
                    hasher.update(&self.buffer[..len]);
                    take(ContentPart::Data(&self.buffer[..len]))?;
                }
                Piece::Hole(len) => {
                    hash_zeros(&mut hasher, len);
                    take(ContentPart::Hole(len))?;
                }
            }
        }
        Ok(ContentHash(*hasher.finalize().as_bytes()))
    }
}

fn hash_zeros(hasher: &mut blake3::Hasher, len: u64) {
    let mut left = len;
    while left > 0 {
        let part = usize::try_from(left).unwrap_or(usize::MAX).min(ZEROS.len());
        hasher.update(&ZEROS[..part]);
        left -= part as u64;
    }
}
