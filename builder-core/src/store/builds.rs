//! What is remembered of builds: one small file each, the newest of them kept.
//!
//! ```text
//! builds/NANOSECONDS-SUBJECT    20 digits since 1970, 16 of a hash
//! ```
//!
//! So names sort by time, and the builds of one subject, which are what a build compares itself with, are found without
//! opening any other. What is in a file is its writer's business. Files are written aside and renamed, and never change;
//! gc and younger builds may remove them at any time.

use std::fs;
use std::io;

use super::error::{Error, Result};
use super::{Store, plain_key};
use crate::digest::CacheKey;

/// More builds than these are forgotten, the oldest first.
const KEPT: usize = 64;
/// A file that is larger is not ours.
const LIMIT: u64 = 64 << 20;

impl Store {
    /// Names a build of `subject` that starts now.
    pub(crate) fn new_build(&self, subject: &CacheKey, now: (i64, u32)) -> String {
        let nanoseconds = i128::from(now.0) * 1_000_000_000 + i128::from(now.1);
        format!("{:020}-{}", nanoseconds.max(0), short(subject))
    }

    /// Remembers a build under a name that [`Store::new_build`] gave, and forgets the oldest if there are too many.
    pub(crate) fn put_build(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let dir = self.path().join("builds");
        self.write_in_place(&dir.join(plain_key(name)?), bytes)?;
        for name in self.builds()?.into_iter().skip(KEPT) {
            let path = dir.join(name);
            match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(Error::io("remove", path)(error)),
                _ => {}
            }
        }
        Ok(())
    }

    /// Names of the builds that are remembered, the newest first.
    pub(crate) fn builds(&self) -> Result<Vec<String>> {
        let dir = self.path().join("builds");
        let entries = fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten();
        let mut names: Vec<String> = entries
            .filter_map(|entry| entry.file_name().into_string().ok())
            .filter(|name| plain_key(name).is_ok())
            .collect();
        names.sort_unstable_by(|a, b| b.cmp(a));
        Ok(names)
    }

    /// Names of the builds of `subject`, the newest first.
    pub(crate) fn builds_of(&self, subject: &CacheKey) -> Result<Vec<String>> {
        let wanted = short(subject);
        let mut names = self.builds()?;
        names.retain(|name| name.split('-').nth(1) == Some(&wanted));
        Ok(names)
    }

    /// What was remembered under `name`, if it still is.
    pub(crate) fn build(&self, name: &str) -> Result<Option<Vec<u8>>> {
        let path = self.path().join("builds").join(plain_key(name)?);
        match fs::metadata(&path) {
            Ok(meta) if meta.len() > LIMIT => return Ok(None),
            _ => {}
        }
        match fs::read(&path) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io("read", path)(error)),
        }
    }
}

fn short(subject: &CacheKey) -> String {
    let mut text = subject.to_string();
    text.truncate(16);
    text
}
