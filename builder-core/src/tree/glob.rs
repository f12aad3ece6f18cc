//! Wildcards of `COPY` sources, expanded in a tree.
//!
//! As BuildKit does: what stands before the first component with a wildcard is resolved, symlinks included; the rest is
//! matched with [`Glob`] against what lies below, where no
//! symlink is followed and nothing is looked for below a match.

use super::path::join;
use super::pattern::{Glob, PatternError, split_at_wildcard};
use super::{FollowLast, MergedTree, ResolveError};

/// A source with wildcards cannot be expanded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ExpandError {
    /// The pattern is malformed.
    #[error("expand wildcards")]
    Pattern(#[source] PatternError),
    /// The directory before the first wildcard cannot be resolved.
    #[error("resolve the directory before the wildcard")]
    Resolve(#[source] ResolveError),
}

impl MergedTree {
    /// Returns the paths that `source` selects, sorted by path bytes, without symlinks except maybe the last component.
    /// A source without wildcards selects itself, whether it exists or not.
    pub(crate) fn expand(&self, source: &[u8]) -> Result<Vec<Vec<u8>>, ExpandError> {
        let (dir, pattern) = split_at_wildcard(source);
        if pattern.is_empty() {
            return Ok(vec![self.resolve(&dir, FollowLast::No).map_err(ExpandError::Resolve)?]);
        }
        let glob = Glob::parse(&pattern).map_err(ExpandError::Pattern)?;
        let dir = self.resolve(&dir, FollowLast::Yes).map_err(ExpandError::Resolve)?;
        let mut found: Vec<Vec<u8>> = Vec::new();
        let mut pending = vec![Vec::new()];
        while let Some(below) = pending.pop() {
            for (name, node) in self.children(&join(&dir, &below)) {
                let below = join(&below, name);
                if glob.matches(&below) {
                    found.push(join(&dir, &below));
                } else if node.is_dir() && glob.may_match_below(&below) {
                    pending.push(below);
                }
            }
        }
        found.sort_unstable();
        Ok(found)
    }
}
