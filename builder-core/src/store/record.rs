//! Step records: what a step made, under its cache key, with the parts of the key so that a miss can be explained.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use super::error::{Error, Result};
use super::lock::{After, FileLock};
use super::session::Pin;
use super::{LayerDescriptor, Store};
use crate::digest::CacheKey;

/// Version of the file's form. Records of another version count as absent.
const VERSION: u32 = 1;

/// The result of a step.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// The layers that the step adds: none or one, all of the base for a source.
    pub(crate) layers: Vec<LayerDescriptor>,
    /// What the key was made of, by name, in the order in which it was hashed; values or their digests.
    pub(crate) parts: Vec<(String, String)>,
    /// What else the step found out, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) facts: BTreeMap<String, String>,
}

#[derive(Serialize, Deserialize)]
struct RecordFile<R> {
    version: u32,
    record: R,
}

/// Reads a record file. What does not parse is no record: half of one after a crash, or another version.
pub(super) fn parse(bytes: &[u8]) -> Option<Record> {
    let file: RecordFile<Record> = serde_json::from_slice(bytes).ok()?;
    (file.version == VERSION).then_some(file.record)
}

/// The right to work on a step: nobody else on this state directory does while it is held.
#[derive(Debug)]
pub(crate) struct StepLock {
    _lock: FileLock,
}

impl Store {
    /// The result of a step, if it is there and all its layer blobs are. From then on they stay as long as this store
    /// is open.
    pub(crate) fn record(&self, key: &CacheKey) -> Result<Option<Record>> {
        self.session().pin(Pin::Record(*key))?;
        let path = self.record_path(key);
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(Error::io("read record", path)(e)),
        };
        let Some(record) = parse(&bytes) else { return Ok(None) };
        for layer in &record.layers {
            if self.blob_size(&layer.digest)? != Some(layer.size) {
                return Ok(None);
            }
        }
        self.session().touch(&path);
        Ok(Some(record))
    }

    /// Stores the result of a step, in place of one that is there.
    pub(crate) fn put_record(&self, key: &CacheKey, record: &Record) -> Result<()> {
        self.session().pin(Pin::Record(*key))?;
        let path = self.record_path(key);
        let file = RecordFile { version: VERSION, record };
        let bytes = serde_json::to_vec(&file).map_err(|source| Error::Json { path: path.clone(), source })?;
        self.write_in_place(&path, &bytes)?;
        self.session().touch(&path);
        Ok(())
    }

    #[cfg(test)]
    /// Every record that can be read, most recently used first: to find what a missed key is nearest to.
    pub(crate) fn records(&self) -> Result<Vec<(String, Record)>> {
        let dir = self.path().join("records");
        let entries = fs::read_dir(&dir).map_err(Error::io("list", &dir))?.flatten();
        let mut records: Vec<_> = entries
            .filter_map(|entry| {
                let used = entry.metadata().ok()?.modified().ok()?;
                let record = parse(&fs::read(entry.path()).ok()?)?;
                Some((used, entry.file_name().into_string().ok()?, record))
            })
            .collect();
        records.sort_by(|a, b| (b.0, &b.1).cmp(&(a.0, &a.1)));
        Ok(records.into_iter().map(|(_, key, record)| (key, record)).collect())
    }

    /// Waits for the right to work on a step. Whenever someone else has it, `busy` is called, about fifty times a
    /// second; `None` as soon as it breaks.
    pub(crate) fn lock_step(
        &self,
        key: &CacheKey,
        busy: &mut dyn FnMut() -> ControlFlow<()>,
    ) -> Result<Option<StepLock>> {
        let lock = FileLock::wait_while(&self.step_lock_path(key), After::Remove, busy)?;
        Ok(lock.map(|lock| StepLock { _lock: lock }))
    }

    #[cfg(test)]
    /// Takes the right to work on a step unless someone else has it.
    pub(crate) fn try_lock_step(&self, key: &CacheKey) -> Result<Option<StepLock>> {
        self.lock_step(key, &mut || ControlFlow::Break(()))
    }

    fn record_path(&self, key: &CacheKey) -> PathBuf {
        self.path().join("records").join(key.to_string())
    }

    fn step_lock_path(&self, key: &CacheKey) -> PathBuf {
        self.path().join("locks").join(format!("step-{key}"))
    }
}
