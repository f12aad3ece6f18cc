//! Paths inside images: bytes, relative, `/` between components, empty for the root.

use std::fmt::{self, Write as _};

/// Longest path in bytes that a tree holds. Deep directories go past `PATH_MAX`; 16 bits keep a hostile tree small.
pub(crate) const MAX_LEN: usize = u16::MAX as usize;

/// Whether `path` has the form that [`super::Entry::path`] asks for.
pub(crate) fn is_tree_path(path: &[u8]) -> bool {
    path.is_empty()
        || path.len() <= MAX_LEN
            && !path.contains(&0)
            && path.split(|b| *b == b'/').all(|part| !matches!(part, b"" | b"." | b".."))
}

/// Returns the directory that holds `path`, or `None` for the root.
pub(crate) fn parent(path: &[u8]) -> Option<&[u8]> {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => Some(&path[..slash]),
        None if path.is_empty() => None,
        None => Some(b""),
    }
}

/// Returns the last component; empty for the root.
pub(crate) fn file_name(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|b| *b == b'/') {
        Some(slash) => &path[slash + 1..],
        None => path,
    }
}

/// Returns every directory above `path`, nearest first, the root last; nothing for the root.
pub(crate) fn ancestors(path: &[u8]) -> impl Iterator<Item = &[u8]> {
    std::iter::successors(parent(path), |dir| parent(dir))
}

/// Returns `name`, which may have several components, inside `dir`; either may be the root.
pub(crate) fn join(dir: &[u8], name: &[u8]) -> Vec<u8> {
    if dir.is_empty() || name.is_empty() {
        return [dir, name].concat();
    }
    let mut path = Vec::with_capacity(dir.len() + 1 + name.len());
    path.extend_from_slice(dir);
    path.push(b'/');
    path.extend_from_slice(name);
    path
}

/// Returns what follows `dir` and its slash when `path` lies below `dir`.
pub(crate) fn strip_dir<'a>(path: &'a [u8], dir: &[u8]) -> Option<&'a [u8]> {
    if dir.is_empty() {
        return if path.is_empty() { None } else { Some(path) };
    }
    path.strip_prefix(dir)?.strip_prefix(b"/")
}

/// Returns `path` as Go's `filepath.Clean` does: no empty and `.` components, `..` resolved by text, `.` for nothing.
/// A leading `/` and leading `..` of a relative path stay.
pub(crate) fn clean(path: &[u8]) -> Vec<u8> {
    let rooted = path.first() == Some(&b'/');
    let mut parts: Vec<&[u8]> = Vec::new();
    for part in path.split(|b| *b == b'/') {
        match part {
            b"" | b"." => {}
            b".." if parts.last().is_some_and(|last| *last != b"..") => {
                parts.pop();
            }
            b".." if rooted => {}
            other => parts.push(other),
        }
    }
    let text = parts.join(&b'/');
    match (rooted, text.is_empty()) {
        (true, _) => [b"/".as_slice(), &text].concat(),
        (false, true) => b".".to_vec(),
        (false, false) => text,
    }
}

/// Shows a path in quotes, as text where it is UTF-8 and escaped where it is not; the root as `"/"`.
pub(crate) fn show(path: &[u8]) -> impl fmt::Debug {
    Shown(if path.is_empty() { b"/" } else { path })
}

struct Shown<'p>(&'p [u8]);

impl fmt::Debug for Shown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for chunk in self.0.utf8_chunks() {
            write!(f, "{}", chunk.valid().escape_debug())?;
            write!(f, "{}", chunk.invalid().escape_ascii())?;
        }
        f.write_char('"')
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tree_paths() {
        for good in [&b""[..], b"a", b"a/b", b"..a", b".wh.x", b"\xff\n", b"a..b/.c"] {
            assert!(is_tree_path(good), "{:?}", show(good));
        }
        for bad in [&b"/"[..], b"/a", b"a/", b"a//b", b".", b"a/./b", b"..", b"a/..", b"a\0b"] {
            assert!(!is_tree_path(bad), "{:?}", show(bad));
        }
        assert!(!is_tree_path(&vec![b'x'; MAX_LEN + 1]), "longer than any path");
    }

    #[test]
    fn parents_names_and_ancestors() {
        assert_eq!(parent(b""), None);
        assert_eq!(parent(b"a"), Some(&b""[..]));
        assert_eq!(parent(b"a/b/c"), Some(&b"a/b"[..]));
        assert_eq!(file_name(b"a/b"), b"b");
        assert_eq!(ancestors(b"a/b/c").collect::<Vec<_>>(), [&b"a/b"[..], b"a", b""]);
        assert_eq!(ancestors(b"").count(), 0);
        assert_eq!(strip_dir(b"a/b", b"a"), Some(&b"b"[..]));
        assert_eq!(strip_dir(b"ab", b"a"), None);
        assert_eq!(strip_dir(b"a", b"a"), None);
        assert_eq!(strip_dir(b"", b""), None);
    }

    #[test]
    fn cleans_as_go_does() {
        for (raw, want) in [
            ("", "."),
            ("abc", "abc"),
            ("abc/def", "abc/def"),
            (".", "."),
            ("..", ".."),
            ("../../abc", "../../abc"),
            ("/abc", "/abc"),
            ("/", "/"),
            ("abc/", "abc"),
            ("./abc", "abc"),
            ("abc//def//ghi", "abc/def/ghi"),
            ("//abc", "/abc"),
            ("abc/./def", "abc/def"),
            ("abc/def/ghi/../jkl", "abc/def/jkl"),
            ("abc/def/../..", "."),
            ("/abc/def/../..", "/"),
            ("abc/def/../../..", ".."),
            ("/../abc", "/abc"),
            ("abc/../../././../def", "../../def"),
        ] {
            assert_eq!(clean(raw.as_bytes()), want.as_bytes(), "clean({raw:?})");
        }
    }

    #[test]
    fn shows_any_bytes() {
        assert_eq!(format!("{:?}", show("é/\n".as_bytes())), r#""é/\n""#);
        assert_eq!(format!("{:?}", show(b"a\xff")), r#""a\xff""#);
        assert_eq!(format!("{:?}", show(b"")), r#""/""#);
    }
}
