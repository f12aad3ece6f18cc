//! One layer blob → one directory.

use std::collections::HashSet;
use std::os::fd::AsFd;
use std::path::Path;

use super::super::Result;
use super::super::changeset::{Change, Changed, Contents, Inode, Was, What};
use super::super::read::{ContentPart, Step, Walk};
use super::super::source::{Tar, with_tar};
use super::Implied;
use super::disk::{Disk, Made, unpack_error};
use super::metadata::{Age, Note, Setter};
use super::sparse_file::SparseFile;
use crate::digest::ContentHash;
use crate::store::{LayerDescriptor, Store};
use crate::tree::path::parent;
use crate::tree::{Kind, LayerTree, Metadata};

/// What became of the directory.
#[derive(Debug)]
pub(super) enum Written {
    /// It is the layer, with these exceptions.
    Whole(Vec<Note>),
    /// It is useless, because a parent directory came up whose metadata is not known.
    ParentsMissing,
}

/// Unpacks `layer` into the empty directory `dir` and returns its tree. Without knowledge of `implied` parents it
/// stops writing at the first one, but reads on for the tree.
pub(super) fn unpack_blob(
    store: &Store,
    layer: &LayerDescriptor,
    dir: &Path,
    implied: Option<&Implied>,
) -> Result<(LayerTree, Written)> {
    with_tar(store, layer, |tar| {
        let mut walk = Walk::new(tar);
        let mut target = Some(Target::new(dir)?);
        while let Some(step) = walk.next()? {
            if implied.is_none() && !step.change.made.is_empty() {
                target = None;
            }
            match (&mut target, step.content) {
                (Some(target), _) => target.apply(&mut walk, step)?,
                (None, Some(inode)) => {
                    let hash = walk.content(&mut |_| Ok(()))?;
                    walk.changeset.set_content(inode, hash);
                }
                (None, None) => {}
            }
        }
        let contents = walk.changeset.finish()?;
        let written = match target {
            None => Written::ParentsMissing,
            Some(target) => Written::Whole(target.finish(&contents, implied.unwrap_or(&Implied::new()))?),
        };
        Ok((contents.tree, written))
    })
}

/// The directory in work.
struct Target {
    disk: Disk,
    setter: Setter,
    /// Devices that are files here.
    stand_ins: HashSet<Inode>,
}

impl Target {
    fn new(dir: &Path) -> Result<Self> {
        Ok(Self { disk: Disk::open(dir)?, setter: Setter::new(), stand_ins: HashSet::new() })
    }

    fn apply(&mut self, walk: &mut Walk<&mut Tar>, step: Step) -> Result<()> {
        let Change { removed, made, what } = step.change;
        for gone in removed {
            self.disk.remove(&gone.path, gone.was)?;
        }
        for dir in made {
            self.disk.create_dir(&dir)?;
        }
        match what {
            What::Nothing => Ok(()),
            What::New { path, inode } => self.create(walk, &path, inode),
            What::Link { path, target, inode, metadata } => {
                self.disk.link(&path, &target)?;
                if metadata == Changed::Yes { self.set_again(walk, &path, inode) } else { Ok(()) }
            }
        }
    }

    fn create(&mut self, walk: &mut Walk<&mut Tar>, path: &[u8], inode: Inode) -> Result<()> {
        match walk.changeset.node(inode).kind {
            // Its metadata comes at the end: files in it change its time, and its mode may forbid them.
            Kind::Directory { .. } => self.disk.create_dir(path),
            Kind::File { size, .. } => {
                let hash = self.create_file(walk, path, inode, size)?;
                walk.changeset.set_content(inode, hash);
                Ok(())
            }
            _ => self.create_node(walk, path, inode),
        }
    }

    fn create_file(&mut self, walk: &mut Walk<&mut Tar>, path: &[u8], inode: Inode, size: u64) -> Result<ContentHash> {
        let file = self.disk.create_file(path)?;
        let mut writer = SparseFile::new(&file, size);
        let hash = walk.content(&mut |part| match part {
            ContentPart::Data(bytes) => writer.write(bytes).map_err(|source| unpack_error("write", path, source)),
            ContentPart::Hole(len) => {
                writer.hole(len);
                Ok(())
            }
        })?;
        writer.finish().map_err(|source| unpack_error("write", path, source))?;
        self.setter.set(file.as_fd(), path, &walk.changeset.node(inode).meta, Age::New)?;
        Ok(hash)
    }

    fn create_node(&mut self, walk: &Walk<&mut Tar>, path: &[u8], inode: Inode) -> Result<()> {
        if self.disk.create_node(path, &walk.changeset.node(inode).kind)? == Made::StandIn {
            self.stand_ins.insert(inode);
            self.setter.note(Note::Node { path: path.to_vec() });
        }
        self.set_again(walk, path, inode)
    }

    /// Sets the metadata of what is there and no directory.
    fn set_again(&mut self, walk: &Walk<&mut Tar>, path: &[u8], inode: Inode) -> Result<()> {
        let node = walk.changeset.node(inode);
        if matches!(node.kind, Kind::File { .. }) || self.stand_ins.contains(&inode) {
            let file = self.disk.open_existing(path)?;
            return self.setter.set(file.as_fd(), path, &node.meta, Age::Existing);
        }
        self.setter.set_at(self.disk.parent(path)?, path, &node.kind, &node.meta)
    }

    /// Makes whiteouts, then sets the metadata of directories, deepest first.
    fn finish(mut self, contents: &Contents, implied: &Implied) -> Result<Vec<Note>> {
        let known = |dir: &[u8]| implied.get(dir).and_then(Option::as_ref);
        let useless = |dir: &[u8]| known(dir).is_none() && contents.is_implied(dir);
        for entry in contents.tree.entries().iter().filter(|entry| entry.kind == Kind::Whiteout) {
            if !parent(&entry.path).is_some_and(useless) {
                self.disk.create_whiteout(&entry.path)?;
            }
        }
        let root = Metadata { mode: 0o755, ..Metadata::default() };
        let implied = contents.implied.iter().map(|path| (&path[..], known(path), false));
        let described = contents.tree.entries().iter().filter_map(|entry| match entry.kind {
            Kind::Directory { opaque } => Some((&entry.path[..], Some(&entry.meta), opaque)),
            _ => None,
        });
        let mut directories: Vec<_> = implied.chain(described).collect();
        if contents.tree.get(b"").is_none() {
            directories.push((b"", Some(&root), false));
        }
        directories.sort_unstable_by(|(a, ..), (b, ..)| b.cmp(a));
        for (path, meta, opaque) in directories {
            match meta {
                Some(meta) => self.finish_directory(path, meta, opaque)?,
                None => self.disk.remove(path, Was::Directory)?,
            }
        }
        Ok(self.setter.into_notes())
    }

    fn finish_directory(&mut self, path: &[u8], meta: &Metadata, opaque: bool) -> Result<()> {
        let directory = self.disk.open_existing(path)?;
        if opaque {
            Disk::set_opaque(directory.as_fd(), path)?;
        }
        self.setter.set(directory.as_fd(), path, meta, Age::New)
    }
}
