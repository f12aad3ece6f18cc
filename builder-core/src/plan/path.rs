//! Paths inside images as text, cleaned without looking at any file: `.` and `..` are resolved by letters.

/// Returns `path` from `base`, absolute and clean: no `.`, no `..`, no doubled or trailing slash. A relative `path`
/// starts at `base`; `..` stops at the root.
pub(super) fn absolute(base: &str, path: &str) -> String {
    let start = if path.starts_with('/') { "" } else { base };
    let mut parts: Vec<&str> = vec![];
    for part in start.split('/').chain(path.split('/')) {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    format!("/{}", parts.join("/"))
}

/// Returns `path` clean, relative if it was: `a/../b/` is `b`, the empty path is `.`.
pub(super) fn clean(path: &str) -> String {
    if path.starts_with('/') {
        return absolute("/", path);
    }
    let mut parts: Vec<&str> = vec![];
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." if parts.last().is_some_and(|last| *last != "..") => drop(parts.pop()),
            name => parts.push(name),
        }
    }
    if parts.is_empty() { ".".to_owned() } else { parts.join("/") }
}

/// Returns what is behind the last slash of `path`, trailing slashes aside.
pub(super) fn base_name(path: &str) -> &str {
    path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn absolute_paths_are_clean_and_stay_below_the_root() {
        for (base, path, want) in [
            ("/", "a", "/a"),
            ("/a", "b", "/a/b"),
            ("/a", "/b/", "/b"),
            ("/a/b", "../c/./d", "/a/c/d"),
            ("/a", "../../..", "/"),
            ("/", "", "/"),
            ("/w", "", "/w"),
            ("rel", "x", "/rel/x"),
        ] {
            assert_eq!(absolute(base, path), want, "{base} + {path}");
        }
    }

    #[test]
    fn clean_keeps_relative_paths_relative() {
        for (path, want) in [("", "."), ("a/../b/", "b"), ("../a", "../a"), ("/a//b/", "/a/b"), ("a/../..", "..")] {
            assert_eq!(clean(path), want, "{path}");
        }
    }
}
