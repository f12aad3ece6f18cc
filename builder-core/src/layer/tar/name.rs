//! Names as stored in a tar → paths of an image.
//!
//! The result is what [`crate::tree::Entry::path`] wants: relative, no `.`, no `..`, no doubled or trailing `/`. A
//! leading `/` is dropped, as Docker does; `a/../b` is `b`, by text alone; what would leave the root is refused, also
//! where a leading `/` would have clamped it, because no honest writer makes such a name.

use super::WHITEOUT;
use crate::tree::path;

/// The longest name of a directory entry on the file systems a layer is unpacked to.
const MAX_COMPONENT: usize = 255;

/// Why a stored name cannot be a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NameError {
    /// No bytes.
    #[error("is empty")]
    Empty,
    /// A NUL byte, which no file name has.
    #[error("has a NUL byte")]
    Nul,
    /// `..` beyond the root.
    #[error("leaves the root")]
    Escapes,
    /// A component or a whole that no file system or tree takes.
    #[error("is longer than a path may be")]
    TooLong,
}

/// Returns the path `stored` means, empty for the root itself.
pub(crate) fn normalise(stored: &[u8]) -> Result<Vec<u8>, NameError> {
    if stored.is_empty() {
        return Err(NameError::Empty);
    }
    if stored.contains(&0) {
        return Err(NameError::Nul);
    }
    let mut path: Vec<u8> = Vec::with_capacity(stored.len());
    for component in stored.split(|byte| *byte == b'/') {
        match component {
            b"" | b"." => {}
            b".." if path.is_empty() => return Err(NameError::Escapes),
            b".." => path.truncate(path::parent(&path).map_or(0, <[u8]>::len)),
            // A deleted file's name may be as long as any; the prefix comes on top.
            name if name.strip_prefix(WHITEOUT).unwrap_or(name).len() > MAX_COMPONENT => {
                return Err(NameError::TooLong);
            }
            name => {
                if !path.is_empty() {
                    path.push(b'/');
                }
                path.extend_from_slice(name);
            }
        }
    }
    if path.len() > path::MAX_LEN { Err(NameError::TooLong) } else { Ok(path) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_relative_paths_or_are_refused() {
        let long = [b'a'; 256];
        let whiteout = [&b".wh."[..], &[b'a'; 255]].concat();
        let deep = b"a/".repeat(40_000);
        for (stored, expected) in [
            (&b"a/b"[..], Ok(&b"a/b"[..])),
            (b"./a//b/./", Ok(b"a/b")),
            (b"/etc/passwd", Ok(b"etc/passwd")),
            (b"a/../b", Ok(b"b")),
            (b"a/b/../../c", Ok(b"c")),
            (b".", Ok(b"")),
            (b"./", Ok(b"")),
            (b"/", Ok(b"")),
            (b"a/..", Ok(b"")),
            (b"\xff\n", Ok(b"\xff\n")),
            (b"...", Ok(b"...")),
            (b"", Err(NameError::Empty)),
            (b"..", Err(NameError::Escapes)),
            (b"../outside", Err(NameError::Escapes)),
            (b"a/../../b", Err(NameError::Escapes)),
            (b"/../x", Err(NameError::Escapes)),
            (b"a\0b", Err(NameError::Nul)),
            (&long, Err(NameError::TooLong)),
            (&whiteout, Ok(&whiteout)),
            (&deep, Err(NameError::TooLong)),
        ] {
            assert_eq!(
                normalise(stored).as_deref().map_err(|e| *e),
                expected,
                "{:?}",
                stored.escape_ascii().to_string()
            );
        }
    }
}
