//! Go's `filepath.Match`.

use super::class::Class;
use super::{PatternError, first_char};
use crate::tree::path::clean;

/// A parsed pattern of `filepath.Match`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Glob {
    chunks: Vec<Chunk>,
    /// Components of the pattern.
    depth: usize,
}

/// An optional `*` and what follows it, up to the next one.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chunk {
    after_star: bool,
    ops: Vec<Op>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Op {
    Byte(u8),
    AnyButSlash,
    Class(Class),
}

/// Whether `text` holds a wildcard that is not quoted. A text without one is taken as it is, quotes included.
pub(crate) fn has_wildcard(text: &[u8]) -> bool {
    let mut bytes = text.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'\\' => drop(bytes.next()),
            b'*' | b'?' | b'[' => return true,
            _ => {}
        }
    }
    false
}

/// Returns the directory before the first component with a wildcard and the pattern from there, both cleaned and
/// relative to the root; the pattern is empty when there is no wildcard.
pub(crate) fn split_at_wildcard(source: &[u8]) -> (Vec<u8>, Vec<u8>) {
    // As an absolute path, so that `..` stops at the root.
    let cleaned = clean(&[b"/", source].concat());
    let parts: Vec<&[u8]> = cleaned.split(|b| *b == b'/').filter(|part| !part.is_empty()).collect();
    let first = parts.iter().position(|part| has_wildcard(part)).unwrap_or(parts.len());
    (parts[..first].join(&b'/'), parts[first..].join(&b'/'))
}

#[cfg(test)]
/// Whether `pattern` matches the whole of `path`, as Go's `filepath.Match`.
pub(crate) fn match_component_path(pattern: &[u8], path: &[u8]) -> Result<bool, PatternError> {
    Ok(Glob::parse(pattern)?.matches(path))
}

impl Glob {
    /// Parses a pattern.
    pub(crate) fn parse(pattern: &[u8]) -> Result<Self, PatternError> {
        let chunks = parse_chunks(pattern).map_err(|what| PatternError::Pattern { pattern: pattern.to_vec(), what })?;
        Ok(Self { chunks, depth: pattern.split(|b| *b == b'/').count() })
    }

    /// Whether the pattern matches the whole of `path`.
    ///
    /// Each chunk takes the first place where it fits and never a later one, as Go has it. That finds every match
    /// except where a class would have to match a `/`.
    pub(crate) fn matches(&self, path: &[u8]) -> bool {
        let mut path = path;
        for (index, chunk) in self.chunks.iter().enumerate() {
            let is_last = index + 1 == self.chunks.len();
            if chunk.after_star && chunk.ops.is_empty() {
                return !path.contains(&b'/');
            }
            match chunk.find(path, is_last) {
                Some(rest) => path = rest,
                None => return false,
            }
        }
        path.is_empty()
    }

    /// Whether the pattern may match something below directory `dir`. May say yes without need.
    pub(crate) fn may_match_below(&self, dir: &[u8]) -> bool {
        // A class that matches a `/` lets a pattern match deeper than it has components.
        let has_class = self.chunks.iter().flat_map(|chunk| &chunk.ops).any(|op| matches!(op, Op::Class(_)));
        has_class || dir.split(|b| *b == b'/').count() < self.depth
    }
}

impl Chunk {
    /// Returns what is left of `path` after the first place where the chunk fits; the last chunk must reach the end.
    fn find<'p>(&self, path: &'p [u8], is_last: bool) -> Option<&'p [u8]> {
        let reach = if self.after_star { path.iter().position(|b| *b == b'/').unwrap_or(path.len()) } else { 0 };
        let mut rests = (0..=reach).filter_map(|skip| self.match_start(&path[skip..]));
        rests.find(|rest| !is_last || rest.is_empty())
    }

    fn match_start<'p>(&self, mut path: &'p [u8]) -> Option<&'p [u8]> {
        for op in &self.ops {
            let next = *path.first()?;
            let taken = match op {
                Op::Byte(byte) => (next == *byte).then_some(1),
                Op::AnyButSlash => (next != b'/').then(|| first_char(path).1),
                Op::Class(class) => {
                    let (found, len) = first_char(path);
                    class.matches(found).then_some(len)
                }
            };
            path = &path[taken?..];
        }
        Some(path)
    }
}

fn parse_chunks(mut pattern: &[u8]) -> Result<Vec<Chunk>, &'static str> {
    let mut chunks = Vec::new();
    let mut chunk = Chunk { after_star: false, ops: Vec::new() };
    while let Some((first, rest)) = pattern.split_first() {
        pattern = rest;
        let op = match first {
            b'*' => {
                if !chunk.ops.is_empty() {
                    chunks.push(chunk);
                }
                chunk = Chunk { after_star: true, ops: Vec::new() };
                continue;
            }
            b'?' => Op::AnyButSlash,
            b'[' => {
                let (class, rest) = Class::parse(pattern)?;
                pattern = rest;
                Op::Class(class)
            }
            b'\\' => {
                let (quoted, rest) = pattern.split_first().ok_or("nothing follows the last \"\\\"")?;
                pattern = rest;
                Op::Byte(*quoted)
            }
            byte => Op::Byte(*byte),
        };
        chunk.ops.push(op);
    }
    if chunk.after_star || !chunk.ops.is_empty() {
        chunks.push(chunk);
    }
    Ok(chunks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_as_filepath_match() {
        let table: &[(&str, &[&str], &[&str])] = &[
            ("", &[""], &["a"]),
            ("abc", &["abc"], &["ab", "abcd", ""]),
            ("*", &["", "abc", ".hidden", "\n"], &["a/b", "/", "a/"]),
            ("***", &["", "abc"], &["a/b"]),
            ("*c", &["abc", "c", "cc"], &["ab/c", "cd"]),
            ("a*", &["a", "abc"], &["ab/c", "b"]),
            ("a*/b", &["abc/b", "a/b"], &["a/c/b", "a/bb"]),
            ("a*b*c*d*e*", &["axbxcxdxe", "axbxcxdxexxx"], &["axbxcxdxxx"]),
            ("a*b*c*d*e*/f", &["axbxcxdxe/f", "axbxcxdxexxx/f"], &["axbxcxdxe/xxx/f", "axbxcxdxexxx/fff"]),
            ("a*b?c*x", &["abxbbxdbxebxczzx"], &["abxbbxdbxebxczzy"]),
            ("*/*", &["a/b", "/", "a/"], &["a", "a/b/c"]),
            ("ab[c]", &["abc"], &["abd", "ab", "ab[c]"]),
            ("ab[b-d]", &["abc", "abb", "abd"], &["abe", "aba"]),
            ("ab[e-g]", &[], &["abc"]),
            ("ab[^c]", &["abd", "ab/"], &["abc", "ab"]),
            ("ab[^e-g]", &["abc"], &["abf"]),
            ("[!a]", &["!", "a"], &["b"]),
            ("[z-a]", &[], &["a", "m", "z"]),
            ("a\\*b", &["a*b"], &["ab", "axb"]),
            ("\\[x", &["[x"], &["x", "\\[x"]),
            ("\\a", &["a"], &["\\a"]),
            ("arr[[]0].txt", &["arr[0].txt"], &["arr0.txt"]),
            ("a?b", &["axb", "a☺b"], &["a/b", "ab", "axxb"]),
            ("a???b", &["axyzb"], &["a☺b"]),
            ("a[^a]b", &["a☺b"], &["aab"]),
            ("a[^a][^a][^a]b", &[], &["a☺b"]),
            ("[a-ζ]*", &["α", "abc"], &["A"]),
            ("*[a-ζ]", &["α"], &["A"]),
            ("[\\]a]", &["]", "a"], &["b"]),
            ("[\\-]", &["-"], &["x"]),
            ("[x\\-]", &["x", "-"], &["z"]),
            ("[\\-x]", &["x", "-"], &["a"]),
            ("[*?]x", &["*x", "?x"], &["ax"]),
            ("{a,b}", &["{a,b}"], &["a"]),
            ("**/x", &["a/x", "/x"], &["x", "a/b/x"]),
            ("a]", &["a]"], &["a"]),
        ];
        for (pattern, yes, no) in table {
            let glob = Glob::parse(pattern.as_bytes()).unwrap();
            for path in *yes {
                assert!(glob.matches(path.as_bytes()), "{pattern:?} must match {path:?}");
            }
            for path in *no {
                assert!(!glob.matches(path.as_bytes()), "{pattern:?} must not match {path:?}");
            }
        }
    }

    #[test]
    fn bytes_that_are_not_text_count_one_by_one() {
        let matches = |pattern: &[u8], path: &[u8]| match_component_path(pattern, path).unwrap();
        assert!(matches(b"a?b", b"a\xffb") && !matches(b"a?b", b"a\xff\xfeb"));
        assert!(matches(b"\xff*", b"\xffx") && matches(b"[^a]", b"\xff"));
        assert!(matches("[\u{fffd}]".as_bytes(), b"\xff"), "Go decodes such a byte to U+FFFD");
    }

    #[test]
    fn bad_patterns_are_errors_whatever_the_path() {
        for pattern in
            ["[]a]", "[", "[^", "[^bc", "a[", "a[]", "[-]", "[x-]", "[-x]", "[a-b-c]", "\\", "a\\", "[a\\", "*[a"]
        {
            for path in ["", "a", "zzz"] {
                assert!(match_component_path(pattern.as_bytes(), path.as_bytes()).is_err(), "{pattern:?} on {path:?}");
            }
        }
        assert!(match_component_path(b"[\xff]", b"a").is_err());
    }

    #[test]
    fn quoted_wildcards_are_none() {
        for (text, want) in
            [("a*", true), ("a?", true), ("[a", true), ("a\\*", false), ("a\\\\*", true), ("a]{}", false)]
        {
            assert_eq!(has_wildcard(text.as_bytes()), want, "{text}");
        }
    }
}
