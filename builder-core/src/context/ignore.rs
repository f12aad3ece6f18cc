//! Which ignore rules a directory has.

use std::io;
use std::path::Path;

use super::local::Error;
use crate::tree::pattern::PatternSet;

/// Names of the ignore file, the first that is there counts.
const NAMES: [&str; 2] = [".dockerignore", ".containerignore"];
/// A larger ignore file is a mistake.
const LIMIT: u64 = 16 << 20;

/// An ignore file, parsed.
#[derive(Debug)]
pub(crate) struct IgnoreFile {
    /// As shown in messages.
    pub(crate) name: String,
    /// Its rules.
    pub(crate) rules: PatternSet,
}

impl IgnoreFile {
    /// Finds the ignore file of the directory `dir`; `given` is name and text of one that replaces it.
    pub(crate) fn find(dir: &Path, given: Option<&(String, String)>) -> Result<Option<Self>, Error> {
        let found = match given {
            Some((name, text)) => Some((name.clone(), text.clone().into_bytes())),
            None => own(dir)?,
        };
        let parse = |(name, text): (String, Vec<u8>)| match PatternSet::parse_ignore_file(&text) {
            Ok(rules) => Ok(Self { name, rules }),
            Err(source) => Err(Error::IgnoreRules { name, source }),
        };
        found.map(parse).transpose()
    }
}

fn own(dir: &Path) -> Result<Option<(String, Vec<u8>)>, Error> {
    for name in NAMES {
        let path = dir.join(name);
        let unreadable = |source| Error::IgnoreFile { name: name.to_owned(), source };
        match std::fs::metadata(&path) {
            Ok(meta) if meta.is_file() && meta.len() <= LIMIT => {
                return Ok(Some((name.to_owned(), std::fs::read(&path).map_err(unreadable)?)));
            }
            Ok(_) => return Err(unreadable(io::Error::other("not a file, or too large for one"))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(error)),
        }
    }
    Ok(None)
}
