//! What the ignore rules of a context let through, and which rule decides about a path.
//!
//! Names and metadata are read, no file is opened. It needs neither a state directory nor a build process.

use std::path::Path;

use crate::context::{self, IgnoreFile, Listed, LocalContext};
use crate::error::{Error, ErrorKind, Result};
use crate::sys::file::FileType;
use crate::tree::path::{ancestors, clean};
use crate::tree::pattern::{Decision, Rule};
use crate::tree::{FollowLast, Kind};

/// What stands at a path of a context.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum ContextEntryKind {
    /// A directory.
    Directory,
    /// A file.
    File,
    /// A symbolic link.
    Symlink,
    /// A device, a pipe, or a socket, which no image can hold.
    Other,
}

/// A path that `COPY` can see.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct ContextEntry {
    /// Relative to the context; bytes, as file names are.
    pub path: Vec<u8>,
    /// What it is.
    pub kind: ContextEntryKind,
    /// Size of a file; a further name of the same file counts nothing.
    pub size_bytes: u64,
}

/// What a rule does to the paths that it matches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum IgnoreDecision {
    /// Leaves them out.
    Exclude,
    /// Keeps them although a rule before leaves them out (`!`).
    Include,
}

/// A rule of an ignore file.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct IgnoreRule {
    /// The file, as shown in messages.
    pub file: String,
    /// Line in it, from 1.
    pub line: usize,
    /// As written.
    pub text: String,
    /// What it does.
    pub decision: IgnoreDecision,
}

/// Whether a path can be seen, and which rule says so.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct PathVerdict {
    /// The path, cleaned, relative to the context; empty for the context itself.
    pub path: Vec<u8>,
    /// What stands there; `None` when nothing does.
    pub kind: Option<ContextEntryKind>,
    /// Whether the rules keep it.
    pub kept: bool,
    /// The rule that decides, if any matches.
    pub rule: Option<IgnoreRule>,
    /// The path that this rule matches: the path itself or a directory above it.
    pub matched: Option<Vec<u8>>,
    /// For a directory that is left out: the rule that may keep something below it all the same.
    pub may_keep_below: Option<IgnoreRule>,
    /// Where symbolic links lead, and what holds there; `COPY` follows those of its sources.
    pub leads_to: Option<Box<Self>>,
}

/// A directory as a context.
#[derive(Debug)]
pub struct ContextInventory {
    local: LocalContext,
    ignore_file: Option<String>,
}

fn failed(error: &context::Error) -> Error {
    Error::from_source(ErrorKind::Context, error)
}

impl ContextInventory {
    /// Opens the context in `dir`. `ignore` is name and text of an ignore file in place of the directory's own.
    ///
    /// # Errors
    /// [`ErrorKind::Context`] when the directory or its ignore file cannot be read.
    pub fn open(dir: &Path, ignore: Option<&(String, String)>) -> Result<Self> {
        let ignore = IgnoreFile::find(dir, ignore).map_err(|e| failed(&e))?;
        let (ignore_file, rules) = ignore.map(|file| (file.name, file.rules)).unzip();
        let local = LocalContext::open(dir, rules, None).map_err(|e| failed(&e))?;
        Ok(Self { local, ignore_file })
    }

    /// The ignore file, if there is one.
    pub fn ignore_file(&self) -> Option<&str> {
        self.ignore_file.as_deref()
    }

    /// Everything that the rules keep, with the directories that lead to it, sorted by path bytes.
    ///
    /// # Errors
    /// [`ErrorKind::Context`] when a directory cannot be read.
    pub fn list(&self) -> Result<Vec<ContextEntry>> {
        let listed = self.local.list(b"").map_err(|e| failed(&e))?;
        Ok(listed.into_iter().filter(|listed| !listed.entry.path.is_empty()).map(entry).collect())
    }

    /// Says which rule decides about `path`, which is relative to the context and need not exist.
    ///
    /// # Errors
    /// [`ErrorKind::Context`] when something on the way cannot be read.
    pub fn why(&self, path: &[u8]) -> Result<PathVerdict> {
        let path = clean(&[b"/", path].concat())[1..].to_vec();
        let verdict = self.verdict(path.clone())?;
        // A loop leads nowhere.
        let real = self.local.resolve_unseen(&path, FollowLast::Yes).unwrap_or_else(|_| path.clone());
        let leads_to = match real == path {
            true => None,
            false => Some(Box::new(self.verdict(real)?)),
        };
        Ok(PathVerdict { leads_to, ..verdict })
    }

    fn verdict(&self, path: Vec<u8>) -> Result<PathVerdict> {
        let stat = self.local.stat(&path).map_err(|e| failed(&e))?;
        let ignore = self.local.ignore();
        let decided = ignore.decide(&path);
        let rule = decided.map(|index| ignore.rule(index));
        let kept = rule.is_none_or(|rule| rule.decision == Decision::Include);
        let above = || ancestors(&path).chain([path.as_slice()]).filter(|at| ignore.decide(at) == decided);
        let matched = rule.and_then(|_| above().min_by_key(|at| at.len()));
        let is_dir = stat.as_ref().is_some_and(crate::sys::file::FileStat::is_dir);
        let below = decided.filter(|_| is_dir && !kept).and_then(|index| ignore.including_below(&path, index));
        Ok(PathVerdict {
            kind: stat.map(|stat| match stat.file_type {
                FileType::Directory => ContextEntryKind::Directory,
                FileType::File => ContextEntryKind::File,
                FileType::Symlink => ContextEntryKind::Symlink,
                _ => ContextEntryKind::Other,
            }),
            kept,
            rule: rule.map(|rule| self.told(rule)),
            matched: matched.map(<[u8]>::to_vec),
            may_keep_below: below.map(|rule| self.told(rule)),
            leads_to: None,
            path,
        })
    }

    fn told(&self, rule: &Rule) -> IgnoreRule {
        IgnoreRule {
            file: self.ignore_file.clone().unwrap_or_default(),
            line: rule.line,
            text: String::from_utf8_lossy(&rule.text).into_owned(),
            decision: match rule.decision {
                Decision::Exclude => IgnoreDecision::Exclude,
                Decision::Include => IgnoreDecision::Include,
            },
        }
    }
}

fn entry(Listed { entry, .. }: Listed) -> ContextEntry {
    let (kind, size_bytes) = match entry.kind {
        Kind::Directory { .. } => (ContextEntryKind::Directory, 0),
        Kind::File { size, .. } => (ContextEntryKind::File, size),
        Kind::Hardlink { .. } => (ContextEntryKind::File, 0),
        Kind::Symlink { .. } => (ContextEntryKind::Symlink, 0),
        Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Fifo | Kind::Whiteout => {
            (ContextEntryKind::Other, 0)
        }
    };
    ContextEntry { path: entry.path, kind, size_bytes }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    fn context(rules: &str) -> (tempfile::TempDir, ContextInventory) {
        let dir = tempfile::tempdir().unwrap();
        fs::create_dir_all(dir.path().join("src/deep")).unwrap();
        fs::create_dir(dir.path().join("empty")).unwrap();
        for (name, content) in [("a.txt", "12345"), ("src/x.o", "o"), ("src/x.c", "c"), ("src/deep/keep.o", "k")] {
            fs::write(dir.path().join(name), content).unwrap();
        }
        std::os::unix::fs::symlink("src", dir.path().join("link")).unwrap();
        let rules = ("rules".to_owned(), rules.to_owned());
        let inventory = ContextInventory::open(dir.path(), Some(&rules)).unwrap();
        (dir, inventory)
    }

    fn paths(inventory: &ContextInventory) -> Vec<String> {
        let listed = inventory.list().unwrap();
        listed.into_iter().map(|entry| String::from_utf8(entry.path).unwrap()).collect()
    }

    #[test]
    fn what_is_kept_is_listed_with_the_directories_that_lead_to_it() {
        let (_dir, inventory) = context("src\n!src/deep/keep.o\n");
        assert_eq!(paths(&inventory), ["a.txt", "empty", "link", "src", "src/deep", "src/deep/keep.o"]);
        let sizes: u64 = inventory.list().unwrap().iter().map(|entry| entry.size_bytes).sum();
        assert_eq!(sizes, 6);
        let (_dir, inventory) = context("*");
        assert!(paths(&inventory).is_empty());
    }

    #[test]
    fn no_file_is_opened() {
        let (dir, inventory) = context("");
        fs::set_permissions(dir.path().join("a.txt"), fs::Permissions::from_mode(0o0)).unwrap();
        assert!(paths(&inventory).contains(&"a.txt".to_owned()));
    }

    #[test]
    fn the_rule_that_decides_is_named_with_what_it_matches() {
        let (_dir, inventory) = context("# objects\n*.o\n**/*.o\n!src/deep/keep.o\nempty\n");
        let verdict = inventory.why(b"src/x.o").unwrap();
        let rule = verdict.rule.unwrap();
        assert!(!verdict.kept);
        assert_eq!((rule.line, rule.text.as_str(), rule.file.as_str()), (3, "**/*.o", "rules"));
        assert_eq!(verdict.matched.as_deref(), Some(b"src/x.o".as_slice()));
        let verdict = inventory.why(b"/src/./deep/keep.o").unwrap();
        assert!(verdict.kept && verdict.rule.unwrap().decision == IgnoreDecision::Include);
        let verdict = inventory.why(b"src/x.c").unwrap();
        assert!(verdict.kept && verdict.rule.is_none() && verdict.kind == Some(ContextEntryKind::File));
        let verdict = inventory.why(b"empty/not/there").unwrap();
        assert!(!verdict.kept && verdict.kind.is_none());
        assert_eq!(verdict.matched.as_deref(), Some(b"empty".as_slice()), "the directory above");
    }

    #[test]
    fn directories_that_are_left_out_may_have_something_kept_below() {
        let (_dir, inventory) = context("src\n!src/deep/keep.o\n");
        let verdict = inventory.why(b"src").unwrap();
        assert!(!verdict.kept);
        assert_eq!(verdict.may_keep_below.unwrap().line, 2);
        assert!(inventory.why(b"src/x.c").unwrap().may_keep_below.is_none());
    }

    #[test]
    fn links_are_followed_to_what_they_mean() {
        let (_dir, inventory) = context("src/x.o\n");
        let verdict = inventory.why(b"link/x.o").unwrap();
        assert!(verdict.kept && verdict.kind.is_none(), "no rule is about the path as written");
        let real = verdict.leads_to.unwrap();
        assert!(!real.kept && real.path == b"src/x.o");
        assert!(inventory.why(b"").unwrap().leads_to.is_none());
    }
}
