//! Temporary.
use std::fs::File;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use crate::digest::ContentHash;
use crate::tree::pattern::PatternSet;
use crate::tree::{Entry, Kind, LayerTree, MergedTree, Metadata, Timestamp};

#[derive(Debug)]
pub(crate) struct LocalContext {
    root: PathBuf,
    ignore: Option<(String, PatternSet)>,
}
pub(crate) struct HiddenBy {
    pub(crate) file: String,
    pub(crate) line: usize,
    pub(crate) text: String,
}
impl LocalContext {
    pub(crate) fn empty() -> io::Result<Self> {
        Err(io::Error::other("empty"))
    }
    pub(crate) fn open(
        root: &Path,
        rules: Option<&(String, String)>,
        _store: &crate::store::Store,
    ) -> io::Result<Self> {
        let own = std::fs::read_to_string(root.join(".dockerignore")).ok().map(|t| (".dockerignore".to_owned(), t));
        let rules = rules.cloned().or(own);
        let ignore = match rules {
            Some((f, t)) => Some((f, PatternSet::parse_ignore_file(t.as_bytes()).map_err(io::Error::other)?)),
            None => None,
        };
        Ok(Self { root: root.canonicalize()?, ignore })
    }
    pub(crate) fn select(&self, _pattern: &str) -> io::Result<MergedTree> {
        let mut entries = Vec::new();
        for e in walkdir::WalkDir::new(&self.root).min_depth(1) {
            let e = e.map_err(io::Error::other)?;
            let path = e.path().strip_prefix(&self.root).map_err(io::Error::other)?.as_os_str().as_bytes().to_vec();
            if self.ignore.as_ref().is_some_and(|(_, i)| i.excludes(&path)) {
                continue;
            }
            let m = e.metadata().map_err(io::Error::other)?;
            let ft = m.file_type();
            let kind = if ft.is_dir() {
                Kind::Directory { opaque: false }
            } else if ft.is_symlink() {
                Kind::Symlink { target: std::fs::read_link(e.path())?.as_os_str().as_bytes().to_vec() }
            } else if ft.is_file() {
                Kind::File { size: m.len(), content: ContentHash([0; 32]) }
            } else {
                Kind::Fifo
            };
            entries.push(Entry {
                path,
                meta: Metadata {
                    mode: m.mode() & 0o7777,
                    uid: 0,
                    gid: 0,
                    mtime: Timestamp { secs: m.mtime(), nanos: u32::try_from(m.mtime_nsec()).unwrap_or(0) },
                    ..Metadata::default()
                },
                kind,
            });
        }
        let mut t = MergedTree::new();
        t.apply(&LayerTree::from_unsorted(entries), 0);
        Ok(t)
    }
    pub(crate) fn hidden_by(&self, pattern: &str) -> Option<HiddenBy> {
        let (file, set) = self.ignore.as_ref()?;
        let path = crate::tree::path::clean(pattern.trim_start_matches('/').as_bytes());
        if !set.excludes(&path) {
            return None;
        }
        let rule = set.deciding_rule(&path)?;
        Some(HiddenBy { file: file.clone(), line: rule.line, text: String::from_utf8_lossy(&rule.text).into_owned() })
    }
    pub(crate) fn open_file(&self, path: &[u8]) -> PathBuf {
        self.root.join(std::ffi::OsStr::from_bytes(path))
    }
    pub(crate) fn open_at(&self, path: &[u8]) -> io::Result<File> {
        File::open(self.open_file(path))
    }
    pub(crate) fn hash(&self, paths: &[&[u8]], _threads: usize) -> io::Result<Vec<ContentHash>> {
        paths
            .iter()
            .map(|p| {
                let mut h = blake3::Hasher::new();
                io::copy(&mut self.open_at(p)?, &mut h)?;
                Ok(ContentHash(*h.finalize().as_bytes()))
            })
            .collect()
    }
}
