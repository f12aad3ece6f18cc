//! Files of a stage, an image or a context as a directory that may be written to and loses all of it: an overlay of its
//! own over unpacked layers, or over a copy of what a context gives.
//!
//! A context is copied, not shown in place: the command sees only what the ignore rules keep, as root's, with nothing
//! of this machine on it and none of its changes; and it is copied once for all steps of a build that mount the same.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use super::super::files::{Bytes, Files};
use super::super::{BuildWorker, key, stub};
use super::select::Selection;
use crate::error::{Error, ErrorKind};
use crate::layer;
use crate::snapshot::{MountPoint, Snapshot};
use crate::store::WorkDir;
use crate::sys::file;
use crate::sys::mount::{self, Overlay};
use crate::tree::path::{ancestors, join};
use crate::tree::{Entry, Kind, Metadata};

/// A mounted view. Gone from this process's mounts when dropped; a step that is being started may keep it a little longer.
#[derive(Debug)]
pub(super) struct View {
    root: OwnedFd,
    merged: PathBuf,
}

impl Drop for View {
    fn drop(&mut self) {
        // It only fails for what is not mounted.
        mount::detach(&self.merged).ok();
    }
}

impl View {
    /// A handle of `path`, which has no symbolic links.
    pub(super) fn handle(&self, path: &[u8]) -> Result<Arc<OwnedFd>, Error> {
        let handle = file::open_handle_in_root(self.root.as_fd(), path);
        handle.map(Arc::new).map_err(|error| io_error(&error, "open the files to mount"))
    }
}

/// A copy in the making or made.
pub(in super::super) type SharedCopy = Arc<Mutex<Option<Arc<WorkDir>>>>;

fn io_error(error: &io::Error, doing: &str) -> Error {
    Error::from_source(ErrorKind::Store, error).context(doing)
}

fn store_error(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Store, error)
}

impl BuildWorker<'_> {
    /// Mounts what `selection` is in; `nested` are mount points that must be there, by their path in the selection's tree.
    /// `dir`, which is made, takes what is written.
    pub(super) fn view(
        &self,
        dir: &Path,
        selection: &Selection,
        nested: &[(Vec<u8>, MountPoint)],
    ) -> Result<View, Error> {
        let lowerdirs = match &selection.bytes {
            Bytes::Root(root) => {
                let mut lowerdirs = self.unpack(root)?;
                lowerdirs.reverse();
                lowerdirs
            }
            Bytes::Context { .. } | Bytes::Inline(_) | Bytes::Archive { .. } | Bytes::Blob { .. } => {
                vec![self.shared_copy(selection)?]
            }
        };
        let merged = dir.join("merged");
        std::fs::create_dir_all(&merged).map_err(|e| io_error(&e, "make a mount point"))?;
        let root = selection.tree.get(b"").map(|node| node.meta.clone()).unwrap_or_default();
        let stubs = stub::missing(&selection.tree, nested.iter().cloned());
        let snapshot =
            Snapshot::create(dir, lowerdirs, &stub::attributes(&root), &stubs).map_err(|e| store_error(&e))?;
        let overlay =
            Overlay { lowerdirs: snapshot.lowerdirs(), upperdir: snapshot.upperdir(), workdir: snapshot.workdir() };
        let host_error = |error: &dyn std::error::Error| Error::from_source(ErrorKind::HostUnsupported, error);
        let overlay = overlay.mount().map_err(|e| host_error(&e))?;
        let path = CString::new(merged.as_os_str().as_bytes()).map_err(|e| store_error(&e))?;
        mount::attach_at_host_path(overlay.as_fd(), &path).map_err(|e| host_error(&e))?;
        let root = file::open_host_dir(&merged).inspect_err(|_| mount::detach(&merged).unwrap_or_default());
        Ok(View { root: root.map_err(|e| io_error(&e, "open the files to mount"))?, merged })
    }

    /// The directory that has a copy of the selection, at the path it has in its source.
    fn shared_copy(&self, selection: &Selection) -> Result<PathBuf, Error> {
        let planned = selection.planned();
        // With times: a step may look at them.
        let name = (selection.path.clone(), key::entries("mount copy/1", &planned, Some(i64::MAX)).key());
        let shared = {
            let mut copies = self.copies.lock().unwrap_or_else(PoisonError::into_inner);
            copies.entry(name).or_default().clone()
        };
        let mut copy = shared.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(made) = &*copy {
            return Ok(made.path().join("files"));
        }
        let work_dir = self.store.work_dir().map_err(|e| store_error(&e))?;
        let dir = work_dir.path().join("files");
        std::fs::create_dir(&dir).map_err(|e| io_error(&e, "make a directory to copy to"))?;
        let mut above: Vec<&[u8]> = ancestors(&selection.path).collect();
        above.reverse();
        let made = Metadata { mode: 0o755, ..Metadata::default() };
        let mut entries: Vec<Entry> = above
            .into_iter()
            .map(|path| Entry { path: path.to_vec(), meta: made.clone(), kind: Kind::Directory { opaque: false } })
            .collect();
        entries.extend(planned.into_iter().map(|planned| {
            let path = if planned.entry.path.is_empty() {
                selection.path.clone()
            } else {
                join(&selection.path, &planned.entry.path)
            };
            Entry { path, ..planned.entry }
        }));
        self.copy_files(&dir, selection, &entries, |entry| entry.path.clone())?;
        *copy = Some(Arc::new(work_dir));
        Ok(dir)
    }

    /// Makes `entries` in the empty directory `dir`; `origin` tells where in the selection's source the bytes of a file are.
    pub(super) fn copy_files(
        &self,
        dir: &Path,
        selection: &Selection,
        entries: &[Entry],
        origin: impl Fn(&Entry) -> Vec<u8>,
    ) -> Result<(), Error> {
        let sources = std::slice::from_ref(&selection.bytes);
        let mut files = Files::new(self, sources);
        let is_file = |entry: &&Entry| matches!(entry.kind, Kind::File { .. });
        let wanted: Vec<Vec<u8>> = entries.iter().filter(is_file).map(&origin).collect();
        files.prepare(wanted.iter().map(|path| (0, path.as_slice())))?;
        let mut open = |at: usize| {
            let path = entries.get(at).map(&origin).unwrap_or_default();
            files.open(0, &path).map_err(|error| io::Error::other(error.render()))
        };
        layer::place(dir, entries, &mut open).map_err(|e| store_error(&e))
    }
}
