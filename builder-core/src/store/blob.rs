//! Blobs: written to the session's directory while hashing, renamed into place under their digest.
//!
//! A blob is **durable** when its file is read-only. The bit is set after `fdatasync`; [`super::recover`] re-hashes
//! blobs without it after the machine went down. So writing costs no flush, and a blob that is there is trusted.

use std::fs::{self, File, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use sha2::{Digest as _, Sha256};

use super::Store;
use super::error::{Error, Result};
use super::session::{Pin, Session};
use crate::digest::Digest;

/// Permissions of a blob whose bytes are known to be on the disk.
const DURABLE: u32 = 0o444;

/// Whether a blob with this mode is known to be on the disk.
pub(super) fn is_durable(mode: u32) -> bool {
    mode & 0o222 == 0
}

impl Store {
    /// Path of the blob `digest`, whether it is there or not. Does not keep it from gc.
    pub(crate) fn blob_path(&self, digest: &Digest) -> PathBuf {
        self.blobs_dir().join(digest.hex())
    }

    /// Whether the blob is there. From then on it stays as long as this store is open.
    pub(crate) fn has_blob(&self, digest: &Digest) -> Result<bool> {
        Ok(self.blob_size(digest)?.is_some())
    }

    /// Size of the blob in bytes, `None` when it is not there. From then on it stays as long as this store is open.
    pub(crate) fn blob_size(&self, digest: &Digest) -> Result<Option<u64>> {
        let first = self.session().pin(Pin::Blob(*digest))?;
        let path = self.blob_path(digest);
        match fs::metadata(&path) {
            Ok(meta) => {
                if first && !is_durable(meta.permissions().mode()) {
                    self.unsynced().push(*digest);
                }
                Ok(Some(meta.len()))
            }
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io("stat blob", path)(e)),
        }
    }

    /// Opens the blob for reading. The bytes are as written; who needs more certainty hashes while reading.
    ///
    /// A blob that is not there but promised is got first.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<File> {
        self.session().pin(Pin::Blob(*digest))?;
        let path = self.blob_path(digest);
        let open = || File::open(&path);
        let opened = match open() {
            Err(e) if e.kind() == io::ErrorKind::NotFound && self.bring_blob(digest, &|_| ())? => open(),
            opened => opened,
        };
        match opened {
            Ok(file) => Ok(file),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Err(Error::BlobMissing { digest: *digest }),
            Err(e) => Err(Error::io("open blob", path)(e)),
        }
    }

    /// Reads a blob of at most `limit` bytes whole and verifies it.
    pub(crate) fn read_blob(&self, digest: &Digest, limit: u64) -> Result<Vec<u8>> {
        let file = self.open_blob(digest)?;
        let path = self.blob_path(digest);
        let size = file.metadata().map_err(Error::io("stat blob", &path))?.len();
        if size > limit {
            return Err(Error::BlobTooLarge { digest: *digest, size, limit });
        }
        let mut bytes = Vec::new();
        file.take(limit).read_to_end(&mut bytes).map_err(Error::io("read blob", &path))?;
        let found = Digest::of(&bytes);
        if found != *digest {
            return Err(Error::DigestMismatch { expected: *digest, found });
        }
        Ok(bytes)
    }

    /// Starts a new blob that hashes itself.
    pub(crate) fn blob_writer(&self) -> Result<BlobWriter> {
        Ok(BlobWriter { raw: self.blob_writer_unhashed()?, hasher: Sha256::new() })
    }

    /// Starts a new blob whose digest the caller computes anyway.
    pub(crate) fn blob_writer_unhashed(&self) -> Result<RawBlobWriter> {
        let path = self.session().fresh_path("blob");
        let file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o644)
            .open(&path)
            .map_err(Error::io("create blob", &path))?;
        let temp = TempFile { path, session: self.session().clone() };
        Ok(RawBlobWriter { file, temp, size: 0, store: self.clone() })
    }

    /// Stores `bytes` as a blob and returns their digest.
    pub(crate) fn put_blob(&self, bytes: &[u8]) -> Result<Digest> {
        let digest = Digest::of(bytes);
        if self.blob_size(&digest)? == Some(bytes.len() as u64) {
            return Ok(digest);
        }
        let mut writer = self.blob_writer_unhashed()?;
        writer.write_all(bytes).map_err(Error::io("write blob", &writer.temp.path))?;
        writer.commit_as(digest)?;
        Ok(digest)
    }

    /// Flushes every blob that this store has written or found not yet flushed to the disk, and notes of those elsewhere.
    ///
    /// Called once at the end of a build and by [`Store::tag_image`]. Nothing is lost without it when a process dies;
    /// it is for a machine that goes down.
    pub(crate) fn sync(&self) -> Result<()> {
        let pending = std::mem::take(&mut *self.unsynced());
        for (done, digest) in pending.iter().enumerate() {
            if let Err(error) = self.make_durable(digest) {
                self.unsynced().extend_from_slice(&pending[done..]);
                return Err(error);
            }
        }
        if !pending.is_empty() {
            sync_dir(&self.blobs_dir())?;
        }
        self.sync_notes()
    }

    /// Flushes one blob and marks it.
    pub(super) fn make_durable(&self, digest: &Digest) -> Result<()> {
        let path = self.blob_path(digest);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
            Err(e) => return Err(Error::io("open blob", path)(e)),
        };
        file.sync_data().map_err(Error::io("flush blob", &path))?;
        match file.set_permissions(Permissions::from_mode(DURABLE)) {
            // Someone else's file, in a state directory that several users share: it will be verified once more.
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
            result => result.map_err(Error::io("mark blob", &path)),
        }
    }

    fn unsynced(&self) -> std::sync::MutexGuard<'_, Vec<Digest>> {
        let unsynced: &Mutex<Vec<Digest>> = &self.0.unsynced;
        unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Flushes the names of a directory.
pub(super) fn sync_dir(path: &std::path::Path) -> Result<()> {
    File::open(path).and_then(|dir| dir.sync_all()).map_err(Error::io("flush directory", path))
}

/// A file of the session's directory, removed when dropped unless it was renamed away.
#[derive(Debug)]
struct TempFile {
    path: PathBuf,
    /// Keeps the directory, and with it the file, alive.
    session: Arc<Session>,
}

impl Drop for TempFile {
    fn drop(&mut self) {
        // After a rename there is nothing to remove; a leftover goes with the session.
        fs::remove_file(&self.path).ok();
    }
}

/// A blob being written by someone who hashes it. Dropped without a commit it is gone.
#[derive(Debug)]
pub(crate) struct RawBlobWriter {
    file: File,
    temp: TempFile,
    size: u64,
    store: Store,
}

impl RawBlobWriter {
    /// Puts the blob into the store under `digest`, which must be that of the written bytes. Returns its size.
    ///
    /// Idempotent: when the blob is there already, that one stays.
    pub(crate) fn commit_as(self, digest: Digest) -> Result<u64> {
        if self.store.blob_size(&digest)? == Some(self.size) {
            return Ok(self.size);
        }
        let target = self.store.blob_path(&digest);
        self.temp.session.pin(Pin::Blob(digest))?;
        fs::rename(&self.temp.path, &target).map_err(Error::io("move blob into place", &target))?;
        self.store.unsynced().push(digest);
        Ok(self.size)
    }
}

impl Write for RawBlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.file.write(buf)?;
        self.size += n as u64;
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.flush()
    }
}

/// A blob being written that hashes itself. Dropped without a commit it is gone.
#[derive(Debug)]
pub(crate) struct BlobWriter {
    raw: RawBlobWriter,
    hasher: Sha256,
}

impl BlobWriter {
    /// Puts the blob into the store and returns its digest and size in bytes.
    pub(crate) fn commit(self) -> Result<(Digest, u64)> {
        let digest = Digest::from_bytes(self.hasher.finalize().into());
        let size = self.raw.commit_as(digest)?;
        Ok((digest, size))
    }

    /// Puts the blob into the store if it is what it should be, and drops it otherwise.
    pub(crate) fn commit_expected(self, expected: Digest, size: u64) -> Result<()> {
        if self.raw.size != size {
            return Err(Error::SizeMismatch { digest: expected, expected: size, found: self.raw.size });
        }
        let found = Digest::from_bytes(self.hasher.finalize().into());
        if found != expected {
            return Err(Error::DigestMismatch { expected, found });
        }
        self.raw.commit_as(expected)?;
        Ok(())
    }
}

impl Write for BlobWriter {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        let n = self.raw.write(buf)?;
        self.hasher.update(&buf[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.raw.flush()
    }
}
