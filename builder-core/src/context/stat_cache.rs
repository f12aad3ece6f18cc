//! Content hashes of files by what `stat` says of them, so that a file that did not change is not read again.
//!
//! Programs cannot set `ctime`, so a file with the same device, inode, size, `mtime` and `ctime` is the same, with one
//! exception: clocks of file systems tick (every few milliseconds on Linux, every two seconds on FAT), and a file
//! changed twice within a tick looks the same after the first and after the second. So a hash is remembered only if
//! both times were more than two seconds in the past when the file was read ("racy" entries, as git calls them, are
//! not remembered at all: the file is read once more next time).
//!
//! ```text
//! magic "bldstat" · version 1 · records… · BLAKE3 of all before (32 bytes)
//! record: dev · ino · size (8 bytes each) · mtime · ctime (seconds 8, nanoseconds 4) · age (1) · hash (32)
//! ```
//!
//! Integers are little endian. A file that is not whole counts as empty: it is a cache. Builds that share it replace it
//! atomically; the last one wins.

use std::collections::HashMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, Write as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use crate::digest::ContentHash;
use crate::sys::file::FileStat;

const MAGIC: &[u8; 8] = b"bldstat\x01";
const CHECKSUM_LEN: usize = 32;
const RECORD_LEN: usize = 3 * 8 + 2 * 12 + 1 + 32;
/// Longest tick of a file system clock.
const TICK: Duration = Duration::from_secs(2);
/// A record goes after it was of no use for so many times that the cache was written.
const MAX_AGE: u8 = 20;

/// Identity of a file's content as far as `stat` knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Stamp {
    /// Device of the file system.
    pub(crate) dev: u64,
    /// Inode number.
    pub(crate) ino: u64,
    /// Size in bytes.
    pub(crate) size: u64,
    mtime: (i64, u32),
    ctime: (i64, u32),
}

impl Stamp {
    /// Returns the stamp of what `stat` describes.
    pub(crate) fn of(stat: &FileStat) -> Self {
        Self { dev: stat.dev, ino: stat.ino, size: stat.size, mtime: stat.mtime, ctime: stat.ctime }
    }

    /// Whether a change right after `moment` would be sure to show in the times.
    fn is_settled_at(&self, moment: SystemTime) -> bool {
        let Some(latest) =
            moment.checked_sub(TICK).and_then(|latest| latest.duration_since(SystemTime::UNIX_EPOCH).ok())
        else {
            return false;
        };
        let latest = (i64::try_from(latest.as_secs()).unwrap_or(i64::MAX), latest.subsec_nanos());
        self.mtime < latest && self.ctime < latest
    }
}

#[derive(Debug, Clone, Copy)]
struct Known {
    hash: ContentHash,
    age: u8,
    used: bool,
}

#[derive(Debug, Default)]
struct Table {
    known: HashMap<Stamp, Known>,
    changed: bool,
}

/// Content hashes that are kept between builds.
#[derive(Debug)]
pub(crate) struct StatCache {
    path: PathBuf,
    table: Mutex<Table>,
}

impl StatCache {
    /// Reads the cache at `path`, which need not exist.
    ///
    /// # Errors
    ///
    /// The file exists and cannot be read. One that is malformed counts as empty.
    pub(crate) fn load(path: &Path) -> io::Result<Self> {
        let known = match fs::read(path) {
            Ok(bytes) => decode(&bytes).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => HashMap::new(),
            Err(error) => return Err(error),
        };
        Ok(Self { path: path.to_owned(), table: Mutex::new(Table { known, changed: false }) })
    }

    /// Returns the hash of the content that goes with `stamp`.
    pub(crate) fn get(&self, stamp: &Stamp) -> Option<ContentHash> {
        let mut table = self.table();
        let known = table.known.get_mut(stamp)?;
        known.used = true;
        Some(known.hash)
    }

    /// Remembers the hash of the content that goes with `stamp`, if it is safe to: reading began at `hashed_at`.
    pub(crate) fn put(&self, stamp: Stamp, hash: ContentHash, hashed_at: SystemTime) {
        if stamp.is_settled_at(hashed_at) {
            let mut table = self.table();
            table.known.insert(stamp, Known { hash, age: 0, used: true });
            table.changed = true;
        }
    }

    /// Replaces the file if there is something new to remember. Does nothing while another build is at it.
    pub(crate) fn save(&self) -> io::Result<()> {
        let mut table = self.table();
        if !table.changed {
            return Ok(());
        }
        table.known.retain(|_, known| {
            known.age = if known.used { 0 } else { known.age.saturating_add(1) };
            known.age <= MAX_AGE
        });
        replace(&self.path, &encode(&table.known))?;
        table.changed = false;
        Ok(())
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        // Every change leaves the table whole, so one that a panic interrupted is still good.
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Replaces the file at `path`, unless someone else is about to.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    if let Some(dir) = path.parent() {
        fs::create_dir_all(dir)?;
    }
    // One name for all, so that nothing piles up when builds are killed; the lock says whose turn it is.
    let mut new_path = path.as_os_str().to_owned();
    new_path.push(".new");
    let new_path = PathBuf::from(new_path);
    let mut file = File::options().write(true).create(true).truncate(false).open(&new_path)?;
    match file.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => return Ok(()),
        Err(TryLockError::Error(error)) => return Err(error),
    }
    // Between opening and locking, another build may have put this very file in place.
    if fs::metadata(&new_path).is_ok_and(|found| Some(found.ino()) == file.metadata().ok().map(|own| own.ino())) {
        file.set_len(0)?;
        file.write_all(bytes)?;
        fs::rename(&new_path, path)?;
    }
    Ok(())
}

fn encode(known: &HashMap<Stamp, Known>) -> Vec<u8> {
    let mut sorted: Vec<_> = known.iter().collect();
    sorted.sort_unstable_by_key(|(stamp, _)| **stamp);
    let mut bytes = Vec::with_capacity(MAGIC.len() + sorted.len() * RECORD_LEN + CHECKSUM_LEN);
    bytes.extend_from_slice(MAGIC);
    for (stamp, known) in sorted {
        for number in [stamp.dev, stamp.ino, stamp.size] {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        for (secs, nanos) in [stamp.mtime, stamp.ctime] {
            bytes.extend_from_slice(&secs.to_le_bytes());
            bytes.extend_from_slice(&nanos.to_le_bytes());
        }
        bytes.push(known.age);
        bytes.extend_from_slice(&known.hash.0);
    }
    let checksum = blake3::hash(&bytes);
    bytes.extend_from_slice(checksum.as_bytes());
    bytes
}

fn decode(bytes: &[u8]) -> Option<HashMap<Stamp, Known>> {
    let (body, checksum) = bytes.split_last_chunk::<CHECKSUM_LEN>()?;
    let records = body.strip_prefix(MAGIC)?;
    if blake3::hash(body).as_bytes() != checksum || records.len() % RECORD_LEN != 0 {
        return None;
    }
    records.chunks_exact(RECORD_LEN).map(decode_record).collect()
}

fn decode_record(record: &[u8]) -> Option<(Stamp, Known)> {
    let mut at = record;
    let dev = u64::from_le_bytes(take(&mut at)?);
    let ino = u64::from_le_bytes(take(&mut at)?);
    let size = u64::from_le_bytes(take(&mut at)?);
    let mtime = (i64::from_le_bytes(take(&mut at)?), u32::from_le_bytes(take(&mut at)?));
    let ctime = (i64::from_le_bytes(take(&mut at)?), u32::from_le_bytes(take(&mut at)?));
    let [age] = take(&mut at)?;
    let hash = ContentHash(take(&mut at)?);
    Some((Stamp { dev, ino, size, mtime, ctime }, Known { hash, age, used: false }))
}

fn take<const N: usize>(bytes: &mut &[u8]) -> Option<[u8; N]> {
    let (taken, rest) = bytes.split_first_chunk()?;
    *bytes = rest;
    Some(*taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp(ino: u64, secs: i64) -> Stamp {
        Stamp { dev: 1, ino, size: 10, mtime: (secs, 5), ctime: (secs, 7) }
    }

    fn at(secs: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(secs)
    }

    #[test]
    fn remembers_across_builds() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("made/cache");
        let cache = StatCache::load(&path).unwrap();
        assert_eq!(cache.get(&stamp(1, 100)), None);
        cache.save().unwrap();
        assert!(!path.exists(), "nothing to remember, nothing written");
        for ino in 0..100 {
            cache.put(stamp(ino, 100), ContentHash([7; 32]), at(1000));
        }
        cache.save().unwrap();
        let cache = StatCache::load(&path).unwrap();
        assert_eq!(cache.get(&stamp(42, 100)), Some(ContentHash([7; 32])));
        for other in
            [Stamp { dev: 2, ..stamp(1, 100) }, stamp(100, 100), Stamp { size: 9, ..stamp(1, 100) }, stamp(1, 101)]
        {
            assert_eq!(cache.get(&other), None);
        }
        let before = fs::metadata(&path).unwrap().ino();
        cache.save().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().ino(), before, "unchanged, not written");
        assert_eq!(fs::read_dir(dir.path().join("made")).unwrap().count(), 1, "nothing is left behind");
    }

    #[test]
    fn fresh_files_are_not_remembered() {
        let dir = tempfile::tempdir().unwrap();
        let cache = StatCache::load(&dir.path().join("cache")).unwrap();
        for (secs, hashed_at, remembered) in
            [(100, 100, false), (100, 101, false), (100, 102, false), (100, 103, true), (200, 100, false)]
        {
            let stamp = stamp(hashed_at, secs);
            cache.put(stamp, ContentHash([1; 32]), at(hashed_at));
            assert_eq!(cache.get(&stamp).is_some(), remembered, "changed at {secs}, hashed at {hashed_at}");
        }
        let set_back = Stamp { mtime: (5, 0), ..stamp(1, 100) };
        cache.put(set_back, ContentHash([1; 32]), at(100));
        assert_eq!(cache.get(&set_back), None, "mtime can be set, ctime cannot");
    }

    #[test]
    fn records_of_no_use_go_in_time() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let cache = StatCache::load(&path).unwrap();
        cache.put(stamp(1, 1), ContentHash([1; 32]), at(100));
        cache.put(stamp(2, 1), ContentHash([2; 32]), at(100));
        cache.save().unwrap();
        for round in 0..=u64::from(MAX_AGE) {
            let cache = StatCache::load(&path).unwrap();
            assert!(cache.get(&stamp(1, 1)).is_some(), "in use");
            cache.put(stamp(100 + round, 1), ContentHash([3; 32]), at(100));
            cache.save().unwrap();
        }
        let cache = StatCache::load(&path).unwrap();
        assert!(cache.get(&stamp(1, 1)).is_some() && cache.get(&stamp(2, 1)).is_none());
    }

    #[test]
    fn damage_counts_as_empty() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let cache = StatCache::load(&path).unwrap();
        cache.put(stamp(1, 1), ContentHash([1; 32]), at(100));
        cache.save().unwrap();
        let good = fs::read(&path).unwrap();
        let mut flipped = good.clone();
        flipped[20] ^= 1;
        for bytes in [&good[..good.len() - 1], &flipped, b"", b"bldstat\x01"] {
            fs::write(&path, bytes).unwrap();
            assert_eq!(StatCache::load(&path).unwrap().get(&stamp(1, 1)), None);
        }
        fs::write(&path, &good).unwrap();
        assert!(StatCache::load(&path).unwrap().get(&stamp(1, 1)).is_some());
    }

    #[test]
    fn a_build_that_is_writing_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache");
        let other = File::create(dir.path().join("cache.new")).unwrap();
        other.lock().unwrap();
        let cache = StatCache::load(&path).unwrap();
        cache.put(stamp(1, 1), ContentHash([1; 32]), at(100));
        cache.save().unwrap();
        assert!(!path.exists());
        drop(other);
        cache.put(stamp(1, 1), ContentHash([1; 32]), at(100));
        cache.save().unwrap();
        assert!(path.exists());
    }
}
