//! Did-you-mean for paths.

use crate::diagnostic::nearest;
use crate::error::Error;
use crate::tree::MergedTree;

/// Returns the names of what lies in a directory.
pub(super) fn names(tree: &MergedTree, dir: &str) -> Vec<String> {
    tree.children(dir.as_bytes()).filter_map(|(name, _)| String::from_utf8(name.to_vec()).ok()).collect()
}

/// Adds the path that was likely meant by `path`: the first part that is not there replaced by a name that is nearly the
/// same. `names` lists a directory.
pub(super) fn hint(error: Error, path: &str, names: impl Fn(&str) -> Option<Vec<String>>) -> Error {
    let mut found = String::new();
    let mut rest = path.split('/').filter(|part| !matches!(*part, "" | "."));
    while let Some(part) = rest.next() {
        let Some(there) = names(&found) else { return error };
        let is_there = there.iter().any(|name| name == part);
        let near = if is_there { Some(part) } else { nearest(part, there.iter().map(String::as_str)) };
        let Some(near) = near else { return error };
        found = if found.is_empty() { near.to_owned() } else { format!("{found}/{near}") };
        if !is_there {
            let meant = rest.fold(found, |path, part| format!("{path}/{part}"));
            return error.hint(format!("did you mean {meant:?}?"));
        }
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    #[test]
    fn the_first_part_that_is_not_there_is_corrected() {
        let names = |dir: &str| match dir {
            "" => Some(vec!["src".to_owned(), "README.md".to_owned()]),
            "src" => Some(vec!["main.rs".to_owned(), "lib.rs".to_owned()]),
            _ => None,
        };
        for (path, want) in [
            ("/src/mian.rs", Some("src/main.rs")),
            ("./scr/main.rs", Some("src/main.rs")),
            ("READEM.md", Some("README.md")),
            ("src/other.txt", None),
            ("target/x", None),
            ("src", None),
        ] {
            let error = hint(Error::new(ErrorKind::Context, "missing"), path, names);
            let want: Vec<String> = want.iter().map(|want| format!("did you mean {want:?}?")).collect();
            assert_eq!(error.hints(), want, "{path}");
        }
    }
}
