//! After the machine went down: distrust what may not have reached the disk.
//!
//! A process that dies loses nothing, its writes are in the page cache. Only another boot may find files short or
//! empty. `locks/boot` holds the boot in which the directory was last opened; when it differs, blobs that are not
//! marked durable are hashed once more, and unpacked layers go. That costs nothing in every other case, where flushing
//! each file as it is written would cost every build.
//!
//! A directory restored from a backup or a CI cache takes the same way.

use std::collections::HashSet;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::error::{Error, Result};
use super::lock::{After, FileLock, StandingLock};
use super::unpacked::lock_path;
use super::{Store, blob, remove_tree, session};
use crate::digest::{Digest, HashingWriter};

/// The kernel's name for this boot, `None` where it has none (then every opening counts as a new boot).
pub(super) fn boot_id() -> Option<String> {
    let text = fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
    Some(text.trim().to_owned()).filter(|id| !id.is_empty())
}

impl Store {
    /// Makes sure that everything in place can be trusted. To be called when opened, before anything is used.
    pub(super) fn recover(&self) -> Result<()> {
        self.recover_as(boot_id().as_deref())
    }

    /// [`Store::recover`] in a boot of any name.
    pub(super) fn recover_as(&self, boot: Option<&str>) -> Result<()> {
        let path = self.path().join("locks/boot");
        let opened_before = || boot.is_some() && fs::read_to_string(&path).ok().as_deref() == boot;
        if opened_before() {
            return Ok(());
        }
        let _gc = StandingLock::exclusive(&session::gc_lock_path(self.path()))?;
        if opened_before() {
            return Ok(());
        }
        // What a live session uses belongs to this boot (or to another machine that shares the directory).
        let pins = session::live_pins(self.path())?;
        self.verify_blobs(&pins)?;
        self.drop_unpacked(boot, &pins)?;
        self.write_in_place(&path, boot.unwrap_or_default().as_bytes())
    }

    fn verify_blobs(&self, pins: &HashSet<String>) -> Result<()> {
        let dir = self.blobs_dir();
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
            let Ok(meta) = entry.metadata() else { continue };
            if blob::is_durable(meta.permissions().mode()) {
                continue;
            }
            let hex = entry.file_name().to_string_lossy().into_owned();
            if pins.contains(&format!("blob {hex}")) {
                continue;
            }
            let digest = format!("sha256:{hex}").parse::<Digest>().ok();
            match digest.filter(|digest| hash_file(&entry.path()).is_ok_and(|found| found == *digest)) {
                Some(digest) => self.make_durable(&digest)?,
                None => fs::remove_file(entry.path()).map_err(Error::io("remove damaged blob", entry.path()))?,
            }
        }
        Ok(())
    }

    fn drop_unpacked(&self, boot: Option<&str>, pins: &HashSet<String>) -> Result<()> {
        let dir = self.path().join("unpacked");
        for entry in fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            if name.ends_with(".lock") || pins.contains(&format!("unpacked {name}")) {
                continue;
            }
            let noted = fs::read_to_string(lock_path(&entry.path())).ok();
            if boot.is_some() && noted.as_deref() == boot {
                continue;
            }
            if let Some(_lock) = FileLock::try_take(&lock_path(&entry.path()), After::Remove)? {
                self.discard(&entry.path());
            }
        }
        Ok(())
    }

    /// Takes something out of place at once and removes it. What may not be renamed stays.
    fn discard(&self, path: &Path) {
        let trash = self.temp_path();
        if fs::rename(path, &trash).is_ok() {
            remove_tree(&trash);
        }
    }
}

fn hash_file(path: &Path) -> io::Result<Digest> {
    let mut writer = HashingWriter::new(io::sink());
    io::copy(&mut fs::File::open(path)?, &mut writer)?;
    Ok(writer.finish().1)
}
