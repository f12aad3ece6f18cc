//! Writes a layer: entries and file bytes in, blob and tree out, in one pass.

use std::io::{self, Read};
use std::sync::Arc;

use super::compress::{Compressed, Pipeline};
use super::tar::{self, WHITEOUT};
use super::{Error, Result};
use crate::digest::ContentHash;
use crate::request::{Compression, CompressionKind};
use crate::store::{LayerDescriptor, RawBlobWriter, Store};
use crate::tree::path::{ancestors, parent};
use crate::tree::{Entry, Kind, LayerTree, Metadata, Timestamp};

/// Bytes of file content moved at once.
const COPY_BUFFER: usize = 128 << 10;

/// How to write a layer.
#[derive(Debug, Clone)]
pub(crate) struct LayerOptions {
    /// Codec and level.
    pub(crate) compression: Compression,
    /// Most compression workers. Has no influence on the bytes.
    pub(crate) threads: usize,
    /// Times later than this, in seconds since 1970, become this.
    pub(crate) clamp_mtime: Option<i64>,
}

/// A layer that is in the store with its tree.
#[derive(Debug, Clone)]
pub(crate) struct WrittenLayer {
    /// The blob.
    pub(crate) layer: LayerDescriptor,
    /// Its table of contents.
    pub(crate) tree: Arc<LayerTree>,
}

/// A layer being written. Dropped before [`Self::finish`] nothing of it stays.
#[derive(Debug)]
pub(crate) struct LayerWriter<'s> {
    store: &'s Store,
    options: LayerOptions,
    tar: tar::Writer<Pipeline<RawBlobWriter>>,
    /// What was written, sorted by path.
    entries: Vec<Entry>,
    buffer: Vec<u8>,
}

impl<'s> LayerWriter<'s> {
    /// Starts a layer. A compression level that the codec does not have is an error.
    pub(crate) fn create(store: &'s Store, options: LayerOptions) -> Result<Self> {
        let blob = store.blob_writer_unhashed()?;
        let pipeline = Pipeline::new(blob, options.compression, options.threads);
        let tar = tar::Writer::new(pipeline.map_err(|source| Error::Write { source })?);
        Ok(Self { store, options, tar, entries: Vec::new(), buffer: vec![0; COPY_BUFFER] })
    }

    /// Writes one entry; `content` gives the bytes of a [`Kind::File`] and is not looked at for any other kind (without
    /// it a file is empty).
    ///
    /// Entries come in the order of their path bytes, and every directory above an entry, except the root, is an entry
    /// before it: so the layer says of itself what its directories are, and unpacks without those below. The content
    /// hash of the entry is ignored; the tree gets the hash of what was copied. A hard link gets the metadata of its
    /// target. A whiteout in an opaque directory says nothing more and is left out. An error leaves the writer
    /// unusable.
    pub(crate) fn append(&mut self, mut entry: Entry, content: Option<&mut dyn Read>) -> Result<()> {
        self.check_place(&entry)?;
        if entry.kind == Kind::Whiteout && self.is_hidden(&entry.path) {
            return Ok(());
        }
        match &entry.kind {
            Kind::Whiteout => entry.meta = Metadata::default(),
            Kind::Symlink { .. } => entry.meta.mode = 0o777,
            Kind::Hardlink { target } => {
                entry.meta = self.entry(target).map(|target| target.meta.clone()).unwrap_or_default();
            }
            _ => {}
        }
        if let Some(clamp) = self.options.clamp_mtime {
            entry.meta.mtime = entry.meta.mtime.min(Timestamp { secs: clamp, nanos: 0 });
        }
        self.tar.append(&entry)?;
        if let Kind::File { size, content: hash } = &mut entry.kind {
            *hash = copy(&mut self.tar, &mut self.buffer, &entry.path, *size, content.unwrap_or(&mut io::empty()))?;
        }
        self.entries.push(entry);
        Ok(())
    }

    /// Ends the layer and puts blob and tree into the store. A layer of no entries is valid but of little use.
    pub(crate) fn finish(mut self) -> Result<WrittenLayer> {
        self.entries.shrink_to_fit();
        let pipeline = self.tar.finish()?;
        let Compressed { sink, diff_id, digest, size } = pipeline.finish().map_err(|source| Error::Write { source })?;
        let tree = LayerTree::from_sorted(self.entries).map_err(|source| Error::Tree { source })?;
        sink.commit_as(digest)?;
        self.store.put_tree(&diff_id, &tree)?;
        let media_type = media_type(self.options.compression.kind).to_owned();
        Ok(WrittenLayer { layer: LayerDescriptor { digest, size, diff_id, media_type }, tree: Arc::new(tree) })
    }

    fn check_place(&self, entry: &Entry) -> Result<()> {
        let path = &entry.path;
        if let Some(last) = self.entries.last()
            && last.path >= *path
        {
            return Err(Error::Order { path: path.clone(), after: last.path.clone() });
        }
        if path.split(|byte| *byte == b'/').any(|name| name.starts_with(WHITEOUT)) {
            return Err(Error::ReservedName { path: path.clone() });
        }
        let listed = |dir: &[u8]| dir.is_empty() || self.entry(dir).is_some_and(Entry::is_dir);
        if !parent(path).is_none_or(listed) {
            return Err(Error::ParentMissing { path: path.clone() });
        }
        match &entry.kind {
            Kind::Hardlink { target } if !self.entry(target).is_some_and(can_have_names) => {
                Err(Error::LinkTarget { path: path.clone(), target: target.escape_ascii().to_string() })
            }
            Kind::Symlink { target } if target.is_empty() => Err(Error::EmptySymlink { path: path.clone() }),
            _ => Ok(()),
        }
    }

    /// Whether a directory above `path` hides all that lower layers have in it.
    fn is_hidden(&self, path: &[u8]) -> bool {
        let opaque = Kind::Directory { opaque: true };
        ancestors(path).any(|dir| self.entry(dir).is_some_and(|entry| entry.kind == opaque))
    }

    fn entry(&self, path: &[u8]) -> Option<&Entry> {
        // The last one is the most likely: parent of the next, first name of its links.
        let last = self.entries.last().filter(|entry| entry.path == path);
        last.or_else(|| {
            self.entries.binary_search_by(|entry| entry.path[..].cmp(path)).ok().map(|at| &self.entries[at])
        })
    }
}

/// Whether a hard link may lead there: the first name of something that is not a directory.
fn can_have_names(entry: &Entry) -> bool {
    !matches!(entry.kind, Kind::Directory { .. } | Kind::Whiteout | Kind::Hardlink { .. })
}

/// Copies exactly `size` bytes into the archive and returns their hash.
fn copy(
    tar: &mut tar::Writer<Pipeline<RawBlobWriter>>,
    buffer: &mut [u8],
    path: &[u8],
    size: u64,
    content: &mut dyn Read,
) -> Result<ContentHash> {
    let mut hasher = blake3::Hasher::new();
    let mut left = size;
    loop {
        // At the end one byte more is asked for, to see that there is none.
        let want = usize::try_from(left.max(1)).unwrap_or(usize::MAX).min(buffer.len());
        let got = match content.read(&mut buffer[..want]) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            result => result.map_err(|source| Error::Content { path: path.to_vec(), source })?,
        };
        match (got, left) {
            (0, 0) => return Ok(ContentHash(*hasher.finalize().as_bytes())),
            (0, _) | (_, 0) => return Err(Error::SizeChanged { path: path.to_vec(), size }),
            _ => {}
        }
        hasher.update(&buffer[..got]);
        tar.write_content(&buffer[..got])?;
        left -= got as u64;
    }
}

/// OCI media type of a layer with this codec.
pub(super) fn media_type(kind: CompressionKind) -> &'static str {
    match kind {
        CompressionKind::Gzip => "application/vnd.oci.image.layer.v1.tar+gzip",
        CompressionKind::Zstd => "application/vnd.oci.image.layer.v1.tar+zstd",
        CompressionKind::Uncompressed => "application/vnd.oci.image.layer.v1.tar",
    }
}

#[cfg(test)]
mod tests;
