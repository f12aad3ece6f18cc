//! A context as steps use it: a local directory with its ignore file, or nothing at all.

use std::fs::File;
use std::io;
use std::path::Path;

use crate::context::{IgnoreFile, LocalContext, Missing, Snapshot, StatCache};
use crate::error::{Error, ErrorKind};
use crate::store::Store;
use crate::tree::Kind;
use crate::tree::pattern::{PatternSet, has_wildcard};

/// Files of this machine, or none.
#[derive(Debug)]
pub(crate) struct Context {
    local: Option<LocalContext>,
    /// As shown in messages.
    ignore_file: String,
}

/// The rule that hides a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct HiddenBy {
    /// The ignore file.
    pub(crate) file: String,
    /// Line in it, from 1.
    pub(crate) line: usize,
    /// The rule as written.
    pub(crate) text: String,
}

fn failed(error: &dyn std::error::Error) -> Error {
    Error::from_source(ErrorKind::Context, error)
}

impl Context {
    /// Opens a directory. `rules` are name and text of an ignore file that replaces the directory's own.
    pub(crate) fn open(dir: &Path, rules: Option<&(String, String)>, store: &Store) -> Result<Self, Error> {
        let ignore = IgnoreFile::find(dir, rules).map_err(|e| failed(&e))?;
        let (ignore_file, patterns) = ignore.map(|ignore| (ignore.name, ignore.rules)).unzip();
        let key =
            blake3::hash(std::fs::canonicalize(dir).unwrap_or_else(|_| dir.to_owned()).as_os_str().as_encoded_bytes());
        let path = store
            .stat_cache_path(&crate::digest::hex(key.as_bytes()))
            .map_err(|e| Error::from_source(ErrorKind::Store, &e))?;
        // A cache that cannot be read costs time, not the build.
        let cache = StatCache::load(&path).ok();
        let local = LocalContext::open(dir, patterns, cache).map_err(|e| failed(&e))?;
        Ok(Self { local: Some(local), ignore_file: ignore_file.unwrap_or_default() })
    }

    /// Lists what `pattern` may mean, and what links that it selects lead to: names and metadata, no content.
    pub(crate) fn select(&self, pattern: &str) -> Result<Snapshot, Error> {
        let Some(local) = &self.local else { return Ok(Snapshot::default()) };
        let listing = local.snapshot(&[pattern]).map_err(|e| failed(&e))?;
        if !has_wildcard(pattern.as_bytes()) {
            return Ok(listing);
        }
        // What is wrong with the pattern is said where it is expanded for good.
        let matches = listing.tree().expand(pattern.as_bytes()).unwrap_or_default();
        let is_link =
            |path: &Vec<u8>| listing.tree().get(path).is_some_and(|node| matches!(node.kind, Kind::Symlink { .. }));
        let links = matches.iter().filter(|path| is_link(path)).map(|path| escape(path));
        let sources: Vec<Vec<u8>> = std::iter::once(pattern.as_bytes().to_vec()).chain(links).collect();
        if sources.len() == 1 {
            return Ok(listing);
        }
        local.snapshot(&sources).map_err(|e| failed(&e))
    }

    /// Lists what lies in the directory `dir`, and more.
    pub(super) fn list(&self, dir: &str) -> Result<Snapshot, Error> {
        let mut pattern = escape(dir.as_bytes());
        pattern.extend(b"/*");
        match &self.local {
            Some(local) => local.snapshot(&[pattern]).map_err(|e| failed(&e)),
            None => Ok(Snapshot::default()),
        }
    }

    /// The directory behind it, if there is one.
    pub(crate) fn local(&self) -> Option<&LocalContext> {
        self.local.as_ref()
    }

    /// Opens a listed file.
    pub(crate) fn open_file(&self, path: &[u8]) -> Result<File, Error> {
        let empty = || Error::new(ErrorKind::Context, "there is no build context");
        self.local.as_ref().ok_or_else(empty)?.open_file(path).map_err(|e| failed(&e))
    }

    /// The ignore rule that keeps `source` from being there, if one does.
    pub(crate) fn hidden_by(&self, source: &str) -> Option<HiddenBy> {
        match self.local.as_ref()?.why_missing(source.as_bytes()).ok()? {
            Missing::Absent => None,
            Missing::Excluded(rule) => Some(HiddenBy {
                file: self.ignore_file.clone(),
                line: rule.line,
                text: String::from_utf8_lossy(&rule.text).into_owned(),
            }),
        }
    }

    /// Keeps what was hashed for the next build.
    pub(crate) fn save_cache(&self) -> io::Result<()> {
        self.local.as_ref().map_or(Ok(()), LocalContext::save_cache)
    }
}

/// A pattern that means exactly `path`.
fn escape(path: &[u8]) -> Vec<u8> {
    let mut pattern = Vec::with_capacity(path.len());
    for byte in path {
        if matches!(byte, b'*' | b'?' | b'[' | b'\\') {
            pattern.push(b'\\');
        }
        pattern.push(*byte);
    }
    pattern
}

/// Returns the ignore rules of a directory. `given` is name and text of an ignore file that replaces the directory's own.
pub(crate) fn ignore_rules(dir: &Path, given: Option<&(String, String)>) -> Result<Option<PatternSet>, Error> {
    let found = IgnoreFile::find(dir, given).map_err(|error| failed(&error))?;
    Ok(found.map(|file| file.rules))
}

/// Whether `pattern` means any file below the directory `dir` that the rules `ignore` keep. `None` if that cannot be
/// found out.
pub(crate) fn selects(dir: &Path, ignore: Option<&PatternSet>, pattern: &str) -> Option<bool> {
    let local = LocalContext::open(dir, ignore.cloned(), None).ok()?;
    let listing = local.snapshot(&[pattern]).ok()?;
    listing.tree().expand(pattern.as_bytes()).ok().map(|found| !found.is_empty())
}
