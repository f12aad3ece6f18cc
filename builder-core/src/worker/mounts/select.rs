//! Which files a mount shows: found in the source's tree, symbolic links followed inside the source, before anything
//! runs. What is selected is the mount's part of the cache key; the rest of the source plays no part.

use std::collections::hash_map::Entry::{Occupied, Vacant};
use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use super::super::copy::{Origin, Planned, SelectError, SourceOwner};
use super::super::files::{Bytes, hash_context_files};
use super::super::{BuildWorker, Inputs, key};
use crate::digest::CacheKey;
use crate::error::{Error, ErrorKind};
use crate::plan::FileInput;
use crate::tree::path::{join, strip_dir};
use crate::tree::{Entry, FollowLast, Kind, MergedTree};

/// A file or directory of a stage, an image or a context.
#[derive(Debug)]
pub(crate) struct Selection {
    pub(super) bytes: Bytes,
    pub(super) tree: Arc<MergedTree>,
    /// Where in the tree, symbolic links followed; it exists.
    pub(super) path: Vec<u8>,
    /// Hash of all that is selected: paths below it, kinds, modes, owners, attributes and content, no times.
    pub(crate) content: CacheKey,
    /// The same path by path, the start of each hash; none of very many.
    pub(crate) list: BTreeMap<String, String>,
}

/// Of more files no list is made.
const LISTED: usize = 2000;

impl Selection {
    pub(super) fn is_dir(&self) -> bool {
        self.tree.get(&self.path).is_some_and(|node| matches!(node.kind, Kind::Directory { .. }))
    }

    /// All that is selected: paths are relative to the selection, origins have the whole ones.
    pub(super) fn planned(&self) -> Vec<Planned> {
        let owner = match self.bytes {
            Bytes::Root(_) => SourceOwner::Kept,
            Bytes::Context { .. } | Bytes::Inline(_) | Bytes::Archive { .. } | Bytes::Blob { .. } => SourceOwner::Root,
        };
        planned(&self.tree, &self.path, owner)
    }
}

impl Selection {
    /// The same as entries that can be made: further names of a file are hard links to its first one here.
    pub(super) fn linked_entries(&self) -> Vec<Entry> {
        let mut first_names: HashMap<(usize, &[u8]), Vec<u8>> = HashMap::new();
        let mut entries: Vec<Entry> = self.planned().into_iter().map(|planned| planned.entry).collect();
        for entry in &mut entries {
            let full = join(&self.path, &entry.path);
            let Some((layer, link)) = self.tree.get(&full).and_then(|node| Some((node.layer, node.link?))) else {
                continue;
            };
            match first_names.entry((layer, link)) {
                Occupied(first) => entry.kind = Kind::Hardlink { target: first.get().clone() },
                Vacant(new) => drop(new.insert(entry.path.clone())),
            }
        }
        entries
    }
}

fn planned(tree: &MergedTree, path: &[u8], owner: SourceOwner) -> Vec<Planned> {
    let own = tree.get(path).map(|node| (b"".as_slice(), path, node));
    let below = tree.descendants(path).filter_map(|(full, node)| Some((strip_dir(full, path)?, full, node)));
    let plan = |(relative, full, node): (&[u8], &[u8], crate::tree::Node<'_>)| {
        let mut meta = node.meta.clone();
        if owner == SourceOwner::Root {
            (meta.uid, meta.gid) = (0, 0);
        }
        let kind = node.kind.clone();
        let is_file = matches!(kind, Kind::File { .. });
        let origin = is_file.then(|| Origin { source: 0, path: full.to_vec() });
        Planned { entry: Entry { path: relative.to_vec(), meta, kind }, origin }
    };
    own.into_iter().chain(below).map(plan).collect()
}

/// A path as a pattern that matches nothing else.
fn literal(path: &str) -> String {
    let mut pattern = String::with_capacity(path.len());
    for c in path.chars() {
        if matches!(c, '*' | '?' | '[' | '\\') {
            pattern.push('\\');
        }
        pattern.push(c);
    }
    pattern
}

impl BuildWorker<'_> {
    /// Finds `source`, an absolute path, in `from` and hashes what is there.
    pub(super) fn select_files(&self, from: FileInput, source: &str, inputs: &Inputs<'_>) -> Result<Selection, Error> {
        let (bytes, owner) = self.source(from, &literal(source), inputs)?;
        let tree = self.tree_of(&bytes)?;
        let path = tree.resolve(source.trim_start_matches('/').as_bytes(), FollowLast::Yes).map_err(|error| {
            Error::from_source(ErrorKind::Dockerfile, &error).context(format!("the mount's source {source:?}"))
        })?;
        if tree.get(&path).is_none() {
            return Err(self.missing_source(SelectError::NotFound(source.to_owned()), from, inputs));
        }
        let mut planned = planned(&tree, &path, owner);
        hash_context_files(&mut planned, std::slice::from_ref(&bytes), self.options.threads)?;
        let content = key::entries("mount/1", &planned, None).key();
        let listed = if planned.len() > LISTED { &[] } else { planned.as_slice() };
        let name = |planned: &Planned| String::from_utf8_lossy(&planned.entry.path).into_owned();
        let hash = |planned: &Planned| key::entry(planned).to_string()[..16].to_owned();
        let list = listed.iter().map(|planned| (name(planned), hash(planned))).collect();
        Ok(Selection { bytes, tree, path, content, list })
    }
}
