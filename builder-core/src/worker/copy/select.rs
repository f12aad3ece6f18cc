//! Which paths of a source an instruction means: wildcards as Go's `filepath.Match` knows them, symbolic links on the
//! way followed inside the source.

use crate::tree::path::{clean, file_name, join, strip_dir};
use crate::tree::pattern::{PatternError, PatternSet, has_wildcard};
use crate::tree::{ExpandError, FollowLast, MergedTree, ResolveError};

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

/// Returns what `pattern` selects in `tree`, sorted. A literal path must exist; a wildcard may match nothing.
pub(crate) fn select(tree: &MergedTree, pattern: &str) -> Result<Vec<Selected>, SelectError> {
    let paths = tree.expand(pattern.as_bytes()).map_err(|error| match error {
        ExpandError::Pattern(source) => SelectError::Pattern { pattern: pattern.to_owned(), source },
        ExpandError::Resolve(source) => SelectError::Resolve { pattern: pattern.to_owned(), source },
    })?;
    let one = |path: &Vec<u8>| {
        let resolved = resolve(tree, pattern, path)?;
        match tree.get(&resolved) {
            Some(_) => Ok(Selected { path: resolved, name: selected_name(pattern, path) }),
            None => Err(SelectError::NotFound(pattern.to_owned())),
        }
    };
    paths.iter().map(one).collect()
}

/// The name of a match is the matched path's, that of a literal source the one that was written.
fn selected_name(pattern: &str, path: &[u8]) -> Vec<u8> {
    if has_wildcard(pattern.as_bytes()) {
        return file_name(path).to_vec();
    }
    file_name(&absolute(pattern)).to_vec()
}

/// The pattern as a clean path from the root, without the leading slash.
fn absolute(pattern: &str) -> Vec<u8> {
    clean(&[b"/", pattern.as_bytes()].concat())[1..].to_vec()
}

fn resolve(tree: &MergedTree, pattern: &str, path: &[u8]) -> Result<Vec<u8>, SelectError> {
    tree.resolve(path, FollowLast::Yes).map_err(|source| SelectError::Resolve { pattern: pattern.to_owned(), source })
}

/// Returns what `pattern` selects for `--parents`: `**` crosses directories, `/./` says where kept paths begin.
pub(crate) fn select_with_parents(tree: &MergedTree, pattern: &str) -> Result<WithParents, SelectError> {
    let relative = pattern.trim_start_matches('/');
    let (pivot, rest) = relative.strip_prefix("./").unwrap_or(relative).split_once("/./").unwrap_or(("", relative));
    let root = resolve(tree, pattern, pivot.as_bytes())?;
    let wanted = absolute(rest);
    if !has_wildcard(&wanted) {
        let path = join(&root, &wanted);
        let node = tree.get(&path).ok_or_else(|| SelectError::NotFound(pattern.to_owned()))?;
        let mut paths = vec![wanted.clone()];
        if node.is_dir() {
            paths.extend(tree.descendants(&path).filter_map(|(path, _)| Some(strip_dir(path, &root)?.to_vec())));
        }
        paths.retain(|path| !path.is_empty());
        return Ok(WithParents { root, paths });
    }
    let set =
        PatternSet::new([&wanted]).map_err(|source| SelectError::Pattern { pattern: pattern.to_owned(), source })?;
    let below = tree.descendants(&root).filter_map(|(path, _)| strip_dir(path, &root));
    let paths = below.filter(|path| set.excludes(path)).map(<[u8]>::to_vec).collect();
    Ok(WithParents { paths, root })
}
