//! Resolving paths inside a tree as the kernel does below a root: symlinks are followed, absolute targets start at the
//! root of the tree and `..` stops there.

use std::convert::Infallible;

use super::path::{join, show};
use super::{Kind, MergedTree};

/// Symlinks followed on one path before it counts as a loop; the kernel allows 40, image builders 255.
const MAX_LINKS: usize = 255;

/// Whether the last component is followed when it is a symlink.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum FollowLast {
    /// As `stat`.
    Yes,
    /// As `lstat`.
    No,
}

/// A path leads nowhere.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ResolveError {
    /// Something on the way is neither a directory nor a symlink.
    #[error("{:?} is not a directory", show(.path))]
    NotADirectory {
        /// What is not a directory, without symlinks.
        path: Vec<u8>,
    },
    /// Too many symlinks, as in a loop.
    #[error("too many symbolic links at {:?}", show(.path))]
    Loop {
        /// The link that was one too many.
        path: Vec<u8>,
    },
}

/// What a resolver learns of a path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Standing {
    /// Nothing is there.
    Missing,
    /// A directory.
    Directory,
    /// A symlink with its target.
    Symlink(Vec<u8>),
    /// Anything else.
    Other,
}

impl MergedTree {
    /// Returns `path` without symlinks, `.` and `..`. Components that do not exist stay as they are, so that the
    /// result need not exist.
    pub(crate) fn resolve(&self, path: &[u8], last: FollowLast) -> Result<Vec<u8>, ResolveError> {
        let standing = |path: &[u8]| {
            Ok::<_, Infallible>(match self.get(path).map(|node| node.kind) {
                None => Standing::Missing,
                Some(Kind::Directory { .. }) => Standing::Directory,
                Some(Kind::Symlink { target }) => Standing::Symlink(target.clone()),
                Some(_) => Standing::Other,
            })
        };
        match resolve_with(path, last, standing) {
            Ok(resolved) => resolved,
        }
    }
}

/// Resolves `path` with the help of `standing`, which is asked about each path on the way once, parents first, and
/// never about one that still has a symlink above it. The outer error is `standing`'s own.
pub(crate) fn resolve_with<E>(
    path: &[u8],
    last: FollowLast,
    mut standing: impl FnMut(&[u8]) -> Result<Standing, E>,
) -> Result<Result<Vec<u8>, ResolveError>, E> {
    let mut done: Vec<u8> = Vec::new();
    let mut rest: Vec<Vec<u8>> = Vec::new();
    push_components(&mut rest, path);
    let mut links = 0;
    while let Some(part) = rest.pop() {
        if part == b".." {
            done.truncate(done.iter().rposition(|b| *b == b'/').unwrap_or(0));
            continue;
        }
        let here = join(&done, &part);
        let is_last = rest.is_empty();
        match standing(&here)? {
            Standing::Symlink(target) if !is_last || last == FollowLast::Yes => {
                links += 1;
                if links > MAX_LINKS {
                    return Ok(Err(ResolveError::Loop { path: here }));
                }
                if target.starts_with(b"/") {
                    done.clear();
                }
                push_components(&mut rest, &target);
            }
            Standing::Other if !is_last => return Ok(Err(ResolveError::NotADirectory { path: here })),
            _ => done = here,
        }
    }
    Ok(Ok(done))
}

fn push_components(stack: &mut Vec<Vec<u8>>, path: &[u8]) {
    let parts = path.split(|b| *b == b'/').filter(|part| !matches!(*part, b"" | b"."));
    let start = stack.len();
    stack.extend(parts.map(<[u8]>::to_vec));
    stack[start..].reverse();
}

#[cfg(test)]
mod tests {
    use super::super::{Entry, LayerTree, Metadata};
    use super::*;

    fn tree() -> MergedTree {
        let entry = |path: &str, kind| Entry { path: path.into(), meta: Metadata::default(), kind };
        let dir = |path| entry(path, Kind::Directory { opaque: false });
        let link = |path, target: &str| entry(path, Kind::Symlink { target: target.into() });
        let layer = LayerTree::from_unsorted(vec![
            dir("usr/lib"),
            dir("usr/bin"),
            entry("usr/bin/sh", Kind::Fifo),
            link("lib", "usr/lib"),
            link("bin", "/usr/bin"),
            link("usr/up", "../../../etc"),
            link("loop", "loop2"),
            link("loop2", "./loop"),
            link("dangling", "no/where"),
            link("self", "."),
            link("root", "/"),
            link("shell", "bin/sh"),
            link("empty", ""),
        ]);
        let mut tree = MergedTree::new();
        tree.apply(&layer, 0);
        tree
    }

    #[test]
    fn resolves_inside_the_root() {
        let tree = tree();
        for (path, yes, no) in [
            ("", "", ""),
            ("/", "", ""),
            ("lib", "usr/lib", "lib"),
            ("lib/", "usr/lib", "lib"),
            ("lib/x/y", "usr/lib/x/y", "usr/lib/x/y"),
            ("bin/sh", "usr/bin/sh", "usr/bin/sh"),
            ("shell", "usr/bin/sh", "shell"),
            ("../../lib/../..", "", ""),
            ("usr/up/passwd", "etc/passwd", "etc/passwd"),
            ("lib/../bin", "usr/bin", "usr/bin"),
            ("dangling", "no/where", "dangling"),
            ("dangling/x", "no/where/x", "no/where/x"),
            ("missing/../lib/x", "usr/lib/x", "usr/lib/x"),
            ("self/self/self/lib", "usr/lib", "lib"),
            ("root/root/usr", "usr", "usr"),
            ("./a//b/.", "a/b", "a/b"),
            ("empty/usr", "usr", "usr"),
        ] {
            let resolve = |last| tree.resolve(path.as_bytes(), last).map(|p| String::from_utf8(p).unwrap());
            assert_eq!(resolve(FollowLast::Yes).as_deref(), Ok(yes), "{path} followed");
            assert_eq!(resolve(FollowLast::No).as_deref(), Ok(no), "{path} not followed");
        }
    }

    #[test]
    fn tells_what_stops_it() {
        let tree = tree();
        assert!(matches!(tree.resolve(b"loop", FollowLast::Yes), Err(ResolveError::Loop { .. })));
        assert_eq!(tree.resolve(b"loop", FollowLast::No), Ok(b"loop".to_vec()));
        assert!(matches!(tree.resolve(b"loop/x", FollowLast::No), Err(ResolveError::Loop { .. })));
        let not_a_directory = ResolveError::NotADirectory { path: b"usr/bin/sh".to_vec() };
        for path in ["shell/x", "bin/sh/..", "bin/sh/x/y"] {
            assert_eq!(tree.resolve(path.as_bytes(), FollowLast::Yes), Err(not_a_directory.clone()), "{path}");
        }
    }
}
