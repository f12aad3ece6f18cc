//! Export of the root filesystem: what the layers of an image come to, as a tar or as files.
//!
//! Works on trees: nothing is unpacked but the bytes of the files that are in the result. The tar keeps owners, modes,
//! times and attributes. The files belong to whoever builds: modes without setuid and setgid, times, and no attributes.
//!
//! Invariant: everything below a destination directory is done through handles that follow no symlink, so that what an
//! earlier export left there leads nowhere.

use std::collections::{BTreeMap, HashMap};
use std::ffi::OsStr;
use std::fs::{self, File};
use std::io::{self, Read as _, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode};
use rustix::io::Errno;

use super::Error;
use super::archive::write_to;
use super::layout::make_dirs;
use crate::layer::{ensure_tree, extract_contents, tar};
use crate::request::Destination;
use crate::store::{LayerDescriptor, Store};
use crate::sys::file;
use crate::tree::path::{file_name, join, parent};
use crate::tree::{Entry, Kind, MergedTree, Metadata, Node};

/// Bytes moved at once.
const BUFFER: usize = 256 << 10;

/// The file system that `layers` come to.
#[derive(Debug)]
pub(crate) struct Rootfs<'a> {
    store: &'a Store,
    layers: Vec<LayerDescriptor>,
    tree: MergedTree,
}

/// Where the bytes of files are: a directory, and the name of each file there by layer and path in the layer.
struct Extracted {
    dir: PathBuf,
    names: HashMap<(usize, Vec<u8>), usize>,
}

impl Extracted {
    fn name(&self, path: &[u8], node: Node<'_>) -> Option<String> {
        self.names.get(&place(path, node)).map(usize::to_string)
    }
}

/// The layer that has the bytes of a file, and its path there.
fn place(path: &[u8], node: Node<'_>) -> (usize, Vec<u8>) {
    (node.layer, node.link.unwrap_or(path).to_vec())
}

impl<'a> Rootfs<'a> {
    /// Reads the trees of `layers`, lowest first.
    pub(crate) fn open(store: &'a Store, layers: Vec<LayerDescriptor>) -> Result<Self, Error> {
        let mut tree = MergedTree::new();
        for (index, layer) in layers.iter().enumerate() {
            let layer_tree =
                ensure_tree(store, layer).map_err(|source| Error::Layer { digest: layer.digest, source })?;
            tree.apply(&layer_tree, index);
        }
        Ok(Self { store, layers, tree })
    }

    /// Brings the bytes of all files into `dir`: one pass over each layer.
    fn extract(&self, dir: PathBuf) -> Result<Extracted, Error> {
        let mut names = HashMap::new();
        let mut wanted: BTreeMap<usize, BTreeMap<Vec<u8>, PathBuf>> = BTreeMap::new();
        for (path, node) in self.tree.iter() {
            let Kind::File { size, .. } = node.kind else { continue };
            let key = place(path, node);
            if *size > 0 && !names.contains_key(&key) {
                let number = names.len();
                wanted.entry(key.0).or_default().insert(key.1.clone(), dir.join(number.to_string()));
                names.insert(key, number);
            }
        }
        for (layer, wanted) in &wanted {
            let layer = &self.layers[*layer];
            let failed = |source| Error::Layer { digest: layer.digest, source };
            extract_contents(self.store, layer, wanted).map_err(failed)?;
        }
        Ok(Extracted { dir, names })
    }

    /// A path that both have, and not both as a directory.
    pub(crate) fn clash(&self, other: &Self) -> Option<Vec<u8>> {
        let clashes = |(path, node): &(&[u8], Node<'_>)| {
            other.tree.get(path).is_some_and(|there| !(node.is_dir() && there.is_dir()))
        };
        self.tree.iter().find(clashes).map(|(path, _)| path.to_vec())
    }

    /// Appends what `skip` lets through, below the directory `dir` of the tar.
    fn append_all(
        &self,
        out: &mut tar::Writer<impl Write>,
        extracted: &Extracted,
        dir: &str,
        skip: impl Fn(&[u8]) -> bool,
    ) -> Result<(), tar::Error> {
        let below = |path: &[u8]| join(dir.as_bytes(), path);
        let mut first_names: HashMap<(usize, Vec<u8>), &[u8]> = HashMap::new();
        let mut buffer = vec![0; BUFFER];
        for (path, node) in self.tree.iter().filter(|(path, _)| !path.is_empty() && !skip(path)) {
            let mut entry = Entry { path: below(path), meta: node.meta.clone(), kind: node.kind.clone() };
            if let (Some(_), false) = (&node.link, node.is_dir()) {
                let first = *first_names.entry(place(path, node)).or_insert(path);
                if first != path {
                    entry.kind = Kind::Hardlink { target: below(first) };
                }
            }
            out.append(&entry)?;
            let (Kind::File { .. }, Some(name)) = (&entry.kind, extracted.name(path, node)) else { continue };
            let read = |source| tar::Error::Read { source };
            let mut file = File::open(extracted.dir.join(name)).map_err(read)?;
            loop {
                match file.read(&mut buffer).map_err(read)? {
                    0 => break,
                    n => out.write_content(&buffer[..n])?,
                }
            }
        }
        Ok(())
    }

    /// Writes the files below `dest`, made when missing. Returns the devices, which only root may make: they are left out.
    pub(crate) fn write_directory(&self, dest: &Path) -> Result<Vec<Vec<u8>>, Error> {
        make_dirs(dest).map_err(Error::io("make directory", dest))?;
        let root = file::open_host_dir(dest).map_err(Error::io("open", dest))?;
        // On the file system of the destination, so that files can be moved from it into place.
        let staging = dest.join(format!(".builder-{}", super::layout::unique()));
        fs::DirBuilder::new().mode(0o700).create(&staging).map_err(Error::io("make directory", &staging))?;
        let written = self.extract(staging.clone()).and_then(|extracted| self.place_all(&root, dest, &extracted));
        // Only plain files are in there. The error that is reported is the first one.
        let removed = fs::remove_dir_all(&staging).map_err(Error::io("remove", &staging));
        written.and_then(|left_out| removed.map(|()| left_out))
    }

    fn place_all(&self, root: &OwnedFd, dest: &Path, extracted: &Extracted) -> Result<Vec<Vec<u8>>, Error> {
        let staging = file::open_host_dir(&extracted.dir).map_err(Error::io("open", &extracted.dir))?;
        let mut first_names: HashMap<(usize, Vec<u8>), &[u8]> = HashMap::new();
        let mut left_out = Vec::new();
        for (path, node) in self.tree.iter().filter(|(path, _)| !path.is_empty()) {
            let failed = Error::io("write", dest.join(OsStr::from_bytes(path)));
            if matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
                left_out.push(path.to_vec());
                continue;
            }
            let first = match node.link {
                Some(_) if !node.is_dir() => *first_names.entry(place(path, node)).or_insert(path),
                _ => path,
            };
            let place = Place { root, path };
            let made = match node.kind {
                _ if first != path => place.link(first),
                Kind::Directory { .. } => place.directory(),
                Kind::File { .. } => place.file(&staging, extracted.name(path, node).as_deref(), node.meta.mode),
                Kind::Symlink { target } => {
                    place.node(|dir, name| rustix::fs::symlinkat(OsStr::from_bytes(target), dir, name))
                }
                _ => place
                    .node(|dir, name| rustix::fs::mknodat(dir, name, FileType::Fifo, permissions(node.meta.mode), 0)),
            };
            made.map_err(failed)?;
        }
        // Backwards: what is inside a directory changes its time, and its mode may forbid changes inside.
        let mut paths: Vec<_> = self.tree.iter().filter(|(path, _)| !path.is_empty()).collect();
        paths.reverse();
        for (path, node) in paths {
            if matches!(node.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. }) {
                continue;
            }
            let failed = Error::io("set time and mode of", dest.join(OsStr::from_bytes(path)));
            let mtime = node.meta.mtime;
            let timed = file::set_mtime_below(root.as_fd(), path, mtime.secs, mtime.nanos);
            timed
                .and_then(|()| if node.is_dir() { Place { root, path }.chmod(node.meta.mode) } else { Ok(()) })
                .map_err(failed)?;
        }
        Ok(left_out)
    }
}

/// Writes a tar of file systems, each below its directory or, where that has no name, at the top. The entries of each are
/// sorted by path, without one for the root itself.
pub(crate) fn write_tar(store: &Store, parts: &[(String, Rootfs<'_>)], dest: &Destination) -> Result<(), Error> {
    let mut extracted = Vec::new();
    let mut dirs = Vec::new();
    for (_, rootfs) in parts {
        let work = store.work_dir().map_err(|source| Error::WorkDir { source })?;
        extracted.push(rootfs.extract(work.path().to_owned())?);
        dirs.push(work);
    }
    write_to(dest, |file| {
        let mut out = tar::Writer::new(io::BufWriter::with_capacity(BUFFER, file));
        for (number, ((dir, rootfs), extracted)) in parts.iter().zip(&extracted).enumerate() {
            if !dir.is_empty() {
                out.append(&directory(dir)).map_err(io::Error::other)?;
            }
            // Side by side they may have directories in common.
            let written =
                |path: &[u8]| dir.is_empty() && parts[..number].iter().any(|(_, it)| it.tree.get(path).is_some());
            rootfs.append_all(&mut out, extracted, dir, written).map_err(io::Error::other)?;
        }
        out.finish().map_err(io::Error::other)?.flush()
    })
}

/// A directory of root's, as old as time.
fn directory(path: &str) -> Entry {
    let meta = Metadata { mode: 0o755, ..Metadata::default() };
    Entry { path: path.as_bytes().to_vec(), meta, kind: Kind::Directory { opaque: false } }
}

/// Mode bits that mean the same for another owner.
fn permissions(mode: u32) -> Mode {
    Mode::from_raw_mode(mode & 0o1777)
}

/// A path below the destination.
struct Place<'p> {
    root: &'p OwnedFd,
    path: &'p [u8],
}

impl Place<'_> {
    fn open_parent(&self, path: &[u8]) -> io::Result<OwnedFd> {
        file::open_dir_below(self.root.as_fd(), parent(path).unwrap_or_default())
    }

    /// Makes something that is not a directory, in the place of what is there.
    fn node(&self, make: impl Fn(&OwnedFd, &OsStr) -> rustix::io::Result<()>) -> io::Result<()> {
        let dir = self.open_parent(self.path)?;
        let name = OsStr::from_bytes(file_name(self.path));
        match make(&dir, name) {
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                Ok(make(&dir, name)?)
            }
            other => Ok(other?),
        }
    }

    fn link(&self, target: &[u8]) -> io::Result<()> {
        let target_dir = self.open_parent(target)?;
        let target = OsStr::from_bytes(file_name(target));
        self.node(|dir, name| rustix::fs::linkat(&target_dir, target, dir, name, AtFlags::empty()))
    }

    fn directory(&self) -> io::Result<()> {
        let dir = self.open_parent(self.path)?;
        let name = OsStr::from_bytes(file_name(self.path));
        let mode = Mode::RWXU | Mode::RGRP | Mode::XGRP | Mode::ROTH | Mode::XOTH;
        match rustix::fs::mkdirat(&dir, name, mode) {
            Err(Errno::EXIST) if file::open_dir_below(self.root.as_fd(), self.path).is_ok() => self.chmod(0o755),
            Err(Errno::EXIST) => {
                rustix::fs::unlinkat(&dir, name, AtFlags::empty())?;
                Ok(rustix::fs::mkdirat(&dir, name, mode)?)
            }
            other => Ok(other?),
        }
    }

    /// Moves a file from the staging directory here; without a name there it is empty.
    fn file(&self, staging: &OwnedFd, staged: Option<&str>, mode: u32) -> io::Result<()> {
        const EMPTY: &str = "empty";
        let staged = staged.unwrap_or(EMPTY);
        if staged == EMPTY {
            let flags = rustix::fs::OFlags::WRONLY | rustix::fs::OFlags::CREATE | rustix::fs::OFlags::CLOEXEC;
            rustix::fs::openat(staging, EMPTY, flags, Mode::RUSR | Mode::WUSR)?;
        }
        rustix::fs::chmodat(staging, staged, permissions(mode), AtFlags::empty())?;
        let dir = self.open_parent(self.path)?;
        Ok(rustix::fs::renameat(staging, staged, &dir, OsStr::from_bytes(file_name(self.path)))?)
    }

    fn chmod(&self, mode: u32) -> io::Result<()> {
        let dir = file::open_dir_below(self.root.as_fd(), self.path)?;
        Ok(rustix::fs::fchmod(&dir, permissions(mode))?)
    }
}
