//! The bytes behind planned entries: from a context in place, from unpacked layers where there are any, from layer blobs
//! and archives in one pass where there are none.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, Cursor, Read};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::Arc;

use super::copy::{Origin, Planned};
use super::root::Root;
use super::{BuildWorker, Context};
use crate::context::Snapshot;
use crate::digest::{ContentHash, Digest};
use crate::error::{Error, ErrorKind};
use crate::store::WorkDir;
use crate::sys::file;
use crate::tree::{FollowLast, Kind, MergedTree};

/// Where the bytes of one source are.
#[derive(Debug, Clone)]
pub(crate) enum Bytes {
    /// A directory of this machine.
    Context {
        /// The directory.
        context: Arc<Context>,
        /// What was listed of it, until its files are hashed.
        listing: Option<Arc<Snapshot>>,
    },
    /// Layers.
    Root(Root),
    /// The text of a heredoc.
    Inline(Vec<u8>),
    /// One file that is a blob of the store, whatever its path.
    Blob {
        /// The blob.
        digest: Digest,
        /// Its content as trees know it.
        content: ContentHash,
    },
    /// Entries of an archive by number.
    Archive {
        /// The source that has the archive.
        origin: Box<Self>,
        /// Where in it.
        path: Vec<u8>,
    },
}

impl Bytes {
    /// Lets go of the list of a context's files, which reading one of them does not need.
    pub(crate) fn forget_listing(&mut self) {
        match self {
            Self::Context { listing, .. } => *listing = None,
            Self::Archive { origin, .. } => origin.forget_listing(),
            Self::Root(_) | Self::Inline(_) | Self::Blob { .. } => {}
        }
    }
}

/// Reads one file.
pub(crate) enum FileReader {
    /// Of this machine.
    Host(File),
    /// Held in memory.
    Memory(Cursor<Vec<u8>>),
}

impl Read for FileReader {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Host(file) => file.read(buf),
            Self::Memory(bytes) => bytes.read(buf),
        }
    }
}

/// Opens the files of a step's sources. Files that lie in compressed blobs are extracted by [`Files::prepare`].
pub(crate) struct Files<'w> {
    worker: &'w BuildWorker<'w>,
    sources: &'w [Bytes],
    extracted: HashMap<(usize, Vec<u8>), PathBuf>,
    work_dir: Option<WorkDir>,
}

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

impl<'w> Files<'w> {
    /// Opens nothing yet.
    pub(crate) fn new(worker: &'w BuildWorker<'_>, sources: &'w [Bytes]) -> Self {
        Self { worker, sources, extracted: HashMap::new(), work_dir: None }
    }

    /// Makes ready what cannot be opened in place: one pass over each blob or archive for all that is wanted of it.
    pub(crate) fn prepare<'p>(&mut self, wanted: impl IntoIterator<Item = (usize, &'p [u8])>) -> Result<(), Error> {
        let mut of_layers: BTreeMap<(usize, usize), BTreeMap<Vec<u8>, PathBuf>> = BTreeMap::new();
        let mut of_archives: BTreeMap<usize, BTreeMap<usize, PathBuf>> = BTreeMap::new();
        for (source, path) in wanted {
            match &self.sources[source] {
                Bytes::Context { .. } | Bytes::Inline(_) | Bytes::Blob { .. } => {}
                Bytes::Root(root) => {
                    let tree = self.worker.tree(root)?;
                    let Some((layer, inner)) = place(&tree, path) else { continue };
                    let diff_id = root.layers()[layer].diff_id.0.hex();
                    if self.worker.store.unpacked(&diff_id).map_err(|e| store_error(&e))?.is_none() {
                        let wanted = of_layers.entry((source, layer)).or_default();
                        // Another name of the same file.
                        if let Some(file) = wanted.get(&inner) {
                            self.extracted.insert((source, path.to_vec()), file.clone());
                            continue;
                        }
                        let file = self.extracted_file(source, path)?;
                        of_layers.entry((source, layer)).or_default().insert(inner, file);
                    }
                }
                Bytes::Archive { .. } => {
                    let number = std::str::from_utf8(path).ok().and_then(|text| text.parse().ok());
                    let number =
                        number.ok_or_else(|| Error::new(ErrorKind::Internal, "an archive entry has no number"))?;
                    let file = self.extracted_file(source, path)?;
                    of_archives.entry(source).or_default().insert(number, file);
                }
            }
        }
        for ((source, layer), wanted) in of_layers {
            let Bytes::Root(root) = &self.sources[source] else { continue };
            let layer = &root.layers()[layer];
            crate::layer::extract_contents(self.worker.store, layer, &wanted).map_err(|e| store_error(&e))?;
        }
        for (source, wanted) in of_archives {
            let Bytes::Archive { origin, path, .. } = &self.sources[source] else { continue };
            let origin = std::slice::from_ref(&**origin);
            let mut files = Files::new(self.worker, origin);
            files.prepare([(0, path.as_slice())])?;
            super::archive::extract(files.open(0, path)?, &wanted)?;
        }
        Ok(())
    }

    fn extracted_file(&mut self, source: usize, path: &[u8]) -> Result<PathBuf, Error> {
        if self.work_dir.is_none() {
            self.work_dir = Some(self.worker.store.work_dir().map_err(|e| store_error(&e))?);
        }
        let dir = self.work_dir.as_ref().map(WorkDir::path).unwrap_or_else(|| std::path::Path::new(""));
        let file = dir.join(self.extracted.len().to_string());
        self.extracted.insert((source, path.to_vec()), file.clone());
        Ok(file)
    }

    /// Opens a prepared file.
    pub(crate) fn open(&self, source: usize, path: &[u8]) -> Result<FileReader, Error> {
        let opened = |what: &str, result: io::Result<File>| {
            let shown = String::from_utf8_lossy(path).into_owned();
            result.map(FileReader::Host).map_err(|error| {
                Error::from_source(ErrorKind::Store, &error).context(format!("open {shown:?} of {what}"))
            })
        };
        if let Some(file) = self.extracted.get(&(source, path.to_vec())) {
            return opened("an extracted layer", File::open(file));
        }
        match &self.sources[source] {
            Bytes::Context { context, .. } => context.open_file(path).map(FileReader::Host),
            Bytes::Blob { digest, .. } => {
                self.worker.store.open_blob(digest).map(FileReader::Host).map_err(|error| store_error(&error))
            }
            Bytes::Inline(bytes) => Ok(FileReader::Memory(Cursor::new(bytes.clone()))),
            Bytes::Root(root) => {
                let tree = self.worker.tree(root)?;
                let lost = || Error::new(ErrorKind::Internal, "a file to copy is in no layer");
                let (layer, inner) = place(&tree, path).ok_or_else(lost)?;
                let diff_id = root.layers()[layer].diff_id.0.hex();
                let dir = self.worker.store.unpacked(&diff_id).map_err(|e| store_error(&e))?.ok_or_else(lost)?;
                let open = || {
                    let dir = file::open_host_dir(&dir)?;
                    file::open_file_below(dir.as_fd(), &inner).map(File::from)
                };
                opened("an unpacked layer", open())
            }
            Bytes::Archive { .. } => Err(Error::new(ErrorKind::Internal, "an archive entry was not extracted")),
        }
    }

    /// Reads a prepared file whole.
    pub(crate) fn read_all(&mut self, source: usize, path: &[u8]) -> Result<Vec<u8>, Error> {
        let mut bytes = Vec::new();
        let read = self.open(source, path)?.read_to_end(&mut bytes);
        read.map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
        Ok(bytes)
    }
}

/// The layer that holds the bytes of the file at `path`, and the path there.
fn place(tree: &MergedTree, path: &[u8]) -> Option<(usize, Vec<u8>)> {
    let node = tree.get(path)?;
    Some((node.layer, node.link.unwrap_or(path).to_vec()))
}

/// The path that `path` leads to, if that is a file of at most `limit` bytes.
pub(crate) fn readable(tree: &MergedTree, path: &[u8], limit: u64) -> Option<Vec<u8>> {
    let resolved = tree.resolve(path, FollowLast::Yes).ok()?;
    match tree.get(&resolved)?.kind {
        Kind::File { size, .. } if *size <= limit => Some(resolved),
        _ => None,
    }
}

/// Fills in the content hashes of files of contexts.
pub(crate) fn hash_context_files(planned: &mut [Planned], sources: &[Bytes], threads: usize) -> Result<(), Error> {
    for (number, source) in sources.iter().enumerate() {
        let Bytes::Context { context, listing: Some(listing) } = source else { continue };
        let Some(local) = context.local() else { continue };
        let is_wanted = |origin: &Origin| origin.source == number;
        let wanted = planned.iter().filter_map(|planned| planned.origin.as_ref().filter(|origin| is_wanted(origin)));
        let paths: Vec<&[u8]> = wanted.map(|origin| origin.path.as_slice()).collect();
        let hashes = listing.hashes(local, &paths, threads).map_err(|e| Error::from_source(ErrorKind::Context, &e))?;
        let wanted = planned.iter_mut().filter(|planned| planned.origin.as_ref().is_some_and(is_wanted));
        for (planned, hash) in wanted.zip(hashes) {
            if let Kind::File { content, .. } = &mut planned.entry.kind {
                *content = hash;
            }
        }
    }
    Ok(())
}
