//! Which paths of a source an instruction means: wildcards as Go's `filepath.Match` knows them, symbolic links on the
//! way followed inside the source.

use super::canvas::{clean, join};
use crate::tree::pattern::{self, PatternError, PatternSet};
use crate::tree::{FollowLast, Kind, MergedTree, ResolveError};

/// One path to copy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Selected {
    /// Path in the source, all symbolic links followed.
    pub(crate) path: Vec<u8>,
    /// The name it gets in a destination directory: the last component as selected, before links were followed.
    pub(crate) name: Vec<u8>,
}

/// Paths to copy with the directories above them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct WithParents {
    /// The directory below which paths are kept: what stands before `/./`.
    pub(crate) root: Vec<u8>,
    /// Paths below it, sorted.
    pub(crate) paths: Vec<Vec<u8>>,
}

/// Why nothing can be selected.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SelectError {
    /// The path does not exist.
    #[error("{0:?} does not exist")]
    NotFound(String),
    /// The pattern is malformed.
    #[error("{pattern:?} is not a valid pattern")]
    Pattern { pattern: String, source: PatternError },
    /// Links lead nowhere, or something in the middle is not a directory.
    #[error("{pattern:?} leads nowhere")]
    Resolve { pattern: String, source: ResolveError },
}

/// Whether `pattern` has a wildcard, as BuildKit asks: `*`, `?`, `[`, or an escaped character.
pub(crate) fn has_wildcard(pattern: &[u8]) -> bool {
    pattern.iter().any(|b| matches!(b, b'*' | b'?' | b'[' | b'\\'))
}

/// Returns the directory part without wildcards that all matches are below of; the whole path when there are none.
pub(crate) fn literal_prefix(pattern: &[u8]) -> Vec<u8> {
    let cleaned = clean(pattern);
    let parts: Vec<&[u8]> = cleaned.split(|b| *b == b'/').take_while(|part| !has_wildcard(part)).collect();
    parts.join(&b'/')
}

/// Returns what `pattern` selects in `tree`, sorted. A literal path must exist; a wildcard may match nothing.
pub(crate) fn select(tree: &MergedTree, pattern: &str) -> Result<Vec<Selected>, SelectError> {
    let cleaned = clean(pattern.as_bytes());
    let prefix = literal_prefix(&cleaned);
    if prefix.len() == cleaned.len() {
        return Ok(vec![one(tree, pattern, &cleaned)?]);
    }
    let rest = &cleaned[if prefix.is_empty() { 0 } else { prefix.len() + 1 }..];
    // A malformed pattern is an error even where there is nothing to match.
    let bad = |source| SelectError::Pattern { pattern: pattern.to_owned(), source };
    pattern::match_component_path(rest, b"").map_err(bad)?;
    let root = resolve(tree, pattern, &prefix)?;
    let skip = if root.is_empty() { 0 } else { root.len() + 1 };
    let mut found: Vec<Vec<u8>> = Vec::new();
    for (path, _) in tree.descendants(&root) {
        if found.last().is_some_and(|up| path.starts_with(up) && path.get(up.len()) == Some(&b'/')) {
            continue; // A directory that matched takes everything below it along.
        }
        if pattern::match_component_path(rest, &path[skip..]).map_err(bad)? {
            found.push(path.to_vec());
        }
    }
    found.iter().map(|path| one(tree, pattern, path)).collect()
}

fn one(tree: &MergedTree, pattern: &str, path: &[u8]) -> Result<Selected, SelectError> {
    let resolved = resolve(tree, pattern, path)?;
    if tree.get(&resolved).is_none() {
        return Err(SelectError::NotFound(pattern.to_owned()));
    }
    let name = path.rsplit(|b| *b == b'/').next().unwrap_or_default().to_vec();
    Ok(Selected { path: resolved, name })
}

fn resolve(tree: &MergedTree, pattern: &str, path: &[u8]) -> Result<Vec<u8>, SelectError> {
    tree.resolve(path, FollowLast::Yes)
        .map_err(|source| SelectError::Resolve { pattern: pattern.to_owned(), source })
}

/// Returns what `pattern` selects for `--parents`: `**` crosses directories, `/./` says where kept paths begin.
pub(crate) fn select_with_parents(tree: &MergedTree, pattern: &str) -> Result<WithParents, SelectError> {
    let relative = pattern.trim_start_matches('/');
    let (pivot, rest) = relative.strip_prefix("./").unwrap_or(relative).split_once("/./").unwrap_or(("", relative));
    let root = resolve(tree, pattern, &clean(pivot.as_bytes()))?;
    let wanted = clean(rest.as_bytes());
    if !has_wildcard(&wanted) {
        let path = join(&root, &wanted);
        let node = tree.get(&path).ok_or_else(|| SelectError::NotFound(pattern.to_owned()))?;
        let mut paths = vec![wanted.clone()];
        if matches!(node.kind, Kind::Directory { .. }) {
            let skip = if root.is_empty() { 0 } else { root.len() + 1 };
            paths.extend(tree.descendants(&path).map(|(path, _)| path[skip..].to_vec()));
        }
        paths.retain(|path| !path.is_empty());
        return Ok(WithParents { root, paths });
    }
    let set = PatternSet::new([String::from_utf8_lossy(&wanted).into_owned()])
        .map_err(|source| SelectError::Pattern { pattern: pattern.to_owned(), source })?;
    let skip = if root.is_empty() { 0 } else { root.len() + 1 };
    let paths = tree.descendants(&root).map(|(path, _)| path[skip..].to_vec()).filter(|path| set.excludes(path));
    Ok(WithParents { paths: paths.collect(), root })
}
