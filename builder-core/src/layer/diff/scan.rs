//! Reading an upper directory: what overlayfs and this builder keep in attributes and device nodes becomes entries.
//!
//! | on disk | means |
//! |---|---|
//! | character device 0:0 | the path is gone |
//! | empty file with `overlay.whiteout` | the same |
//! | directory with `overlay.opaque` = `y` | nothing of the layers below shows in it (`x` is not that: it says that there are whiteouts of the second form) |
//! | `overlay.redirect`, `overlay.metacopy` | part of it is in a layer below: refused |
//! | `user.builder.node` = `c 1 3` or `b 8 0` on an empty file | a device node that the host would not let us make |
//! | `user.builder.owner` = `UID:GID` | the owner, where the host would not let us set it |
//! | socket | nothing: no tar can hold it |
//!
//! Overlay attributes are `user.overlay.…` with the mount option `userxattr`, else `trusted.overlay.…`.

use std::os::fd::{AsFd, BorrowedFd};

use super::DiffError;
use crate::digest::ContentHash;
use crate::sys::file::{self, Descend, DeviceNumber, FileStat, FileType, Found, WalkError};
use crate::sys::xattr;
use crate::tree::xattr::{belongs_in_layer, portable_value};
use crate::tree::{Kind, Metadata, Timestamp, Xattrs};

const OWNER: &str = "user.builder.owner";
const NODE: &str = "user.builder.node";
const OVERLAY_PREFIXES: [&[u8]; 2] = [b"user.overlay.", b"trusted.overlay."];

/// One path of an upper directory.
#[derive(Debug)]
pub(super) struct Scanned {
    /// Below the root.
    pub(super) path: Vec<u8>,
    /// As the layer will have it, times clamped.
    pub(super) meta: Metadata,
    /// Modification time as it is on disk.
    pub(super) mtime_on_disk: Timestamp,
    /// What is there.
    pub(super) what: What,
    /// Device and inode of a regular file with several names.
    pub(super) shared_inode: Option<(u64, u64)>,
}

/// What stands at a path of an upper directory.
#[derive(Debug)]
pub(super) enum What {
    /// The path of the layers below is deleted.
    Gone,
    /// Something that a layer cannot hold, which hides the path of the layers below all the same.
    Unsupported,
    /// Something; a directory is opaque when the overlay says so.
    Entry(Kind),
}

/// Returns every path of `upper`, the root included, sorted by bytes.
pub(super) fn scan(upper: BorrowedFd<'_>, clamp_mtime: Option<i64>) -> Result<Vec<Scanned>, DiffError> {
    let root_error = |source| WalkError { operation: "open directory", path: Vec::new(), source };
    let root = file::open_dir_below(upper, b"").map_err(root_error)?;
    let stat = file::stat(root.as_fd()).map_err(root_error)?;
    let itself = Found { dir: root.as_fd(), name: c".", path: b"", stat: &stat };
    let mut scanned = vec![scan_one(&itself, clamp_mtime)?];
    let dir = file::open_dir_below(upper, b"").map_err(root_error)?;
    file::walk(dir, b"", |found| {
        scanned.push(scan_one(found, clamp_mtime)?);
        Ok::<_, DiffError>(Descend::Yes)
    })?;
    scanned.sort_unstable_by(|a, b| a.path.cmp(&b.path));
    Ok(scanned)
}

fn scan_one(found: &Found<'_>, clamp_mtime: Option<i64>) -> Result<Scanned, DiffError> {
    let stat = found.stat;
    let mtime_on_disk = Timestamp { secs: stat.mtime.0, nanos: stat.mtime.1 };
    let mut item = Scanned {
        path: found.path.to_vec(),
        meta: Metadata {
            mode: stat.mode,
            uid: stat.uid,
            gid: stat.gid,
            mtime: clamp(mtime_on_disk, clamp_mtime),
            xattrs: Xattrs::new(),
        },
        mtime_on_disk,
        what: What::Gone,
        shared_inode: None,
    };
    if stat.file_type == FileType::CharDevice && stat.rdev == (DeviceNumber { major: 0, minor: 0 }) {
        return Ok(item);
    }
    let attributes = Attributes::read(found)?;
    if attributes.whiteout && stat.file_type == FileType::File && stat.size == 0 {
        return Ok(item);
    }
    if let Some((uid, gid)) = attributes.owner {
        (item.meta.uid, item.meta.gid) = (uid, gid);
    }
    item.what = match attributes.node {
        Some(node) if stat.file_type == FileType::File && stat.size == 0 => What::Entry(node),
        _ => plain(found, attributes.opaque)?,
    };
    if matches!(item.what, What::Entry(Kind::File { .. })) && stat.nlink > 1 {
        item.shared_inode = Some((stat.dev, stat.ino));
    }
    item.meta.xattrs = attributes.kept;
    Ok(item)
}

/// Returns what `found` is when no attribute says otherwise.
fn plain(found: &Found<'_>, opaque: bool) -> Result<What, DiffError> {
    let FileStat { size, rdev: DeviceNumber { major, minor }, .. } = *found.stat;
    Ok(What::Entry(match found.stat.file_type {
        FileType::File => Kind::File { size, content: ContentHash([0; 32]) },
        FileType::Directory => Kind::Directory { opaque },
        FileType::Symlink => {
            let error = |source| DiffError::ReadLink { path: found.path.to_vec(), source };
            Kind::Symlink { target: file::readlink_at(found.dir, found.name).map_err(error)? }
        }
        FileType::CharDevice => Kind::CharDevice { major, minor },
        FileType::BlockDevice => Kind::BlockDevice { major, minor },
        FileType::Fifo => Kind::Fifo,
        FileType::Other => return Ok(What::Unsupported),
    }))
}

fn clamp(mtime: Timestamp, latest: Option<i64>) -> Timestamp {
    match latest {
        Some(secs) => mtime.min(Timestamp { secs, nanos: 0 }),
        None => mtime,
    }
}

/// The attributes of one path, sorted by what they are for.
#[derive(Default)]
struct Attributes {
    opaque: bool,
    whiteout: bool,
    owner: Option<(u32, u32)>,
    node: Option<Kind>,
    kept: Xattrs,
}

impl Attributes {
    fn read(found: &Found<'_>) -> Result<Self, DiffError> {
        let wanted = |name: &[u8]| {
            belongs_in_layer(name) || name == OWNER.as_bytes() || name == NODE.as_bytes() || overlay(name).is_some()
        };
        let all = xattr::read_at(found.dir, found.name, wanted)
            .map_err(|source| DiffError::ReadAttributes { path: found.path.to_vec(), source })?;
        let mut attributes = Self::default();
        for (name, value) in all {
            attributes.add(found.path, name, value)?;
        }
        Ok(attributes)
    }

    fn add(&mut self, path: &[u8], name: Vec<u8>, value: Vec<u8>) -> Result<(), DiffError> {
        let malformed = |attribute| DiffError::BadPlaceholder { path: path.to_vec(), attribute };
        if let Some(overlay) = overlay(&name) {
            match overlay {
                b"opaque" => self.opaque = value == b"y",
                b"whiteout" => self.whiteout = true,
                b"redirect" | b"metacopy" => {
                    return Err(DiffError::NotSelfContained { path: path.to_vec(), attribute: name });
                }
                _ => {}
            }
        } else if name == OWNER.as_bytes() {
            self.owner = Some(parse_owner(&value).ok_or_else(|| malformed(OWNER))?);
        } else if name == NODE.as_bytes() {
            self.node = Some(parse_node(&value).ok_or_else(|| malformed(NODE))?);
        } else {
            let value = portable_value(&name, value);
            self.kept.insert(name, value);
        }
        Ok(())
    }
}

/// Returns what follows the prefix of an attribute of overlayfs.
fn overlay(name: &[u8]) -> Option<&[u8]> {
    OVERLAY_PREFIXES.iter().find_map(|prefix| name.strip_prefix(*prefix))
}

fn parse_owner(value: &[u8]) -> Option<(u32, u32)> {
    let (uid, gid) = std::str::from_utf8(value).ok()?.split_once(':')?;
    Some((uid.parse().ok()?, gid.parse().ok()?))
}

fn parse_node(value: &[u8]) -> Option<Kind> {
    let mut words = std::str::from_utf8(value).ok()?.split(' ');
    let (kind, major, minor) = (words.next()?, words.next()?.parse().ok()?, words.next()?.parse().ok()?);
    match (kind, words.next()) {
        ("c", None) => Some(Kind::CharDevice { major, minor }),
        ("b", None) => Some(Kind::BlockDevice { major, minor }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn placeholders_parse_strictly() {
        assert_eq!(parse_owner(b"1000:65534"), Some((1000, 65534)));
        for bad in ["", "1", "1:", ":1", "1:2:3", "-1:0", "4294967296:0", "a:b", "1 :2"] {
            assert_eq!(parse_owner(bad.as_bytes()), None, "{bad:?}");
        }
        assert_eq!(parse_node(b"c 1 3"), Some(Kind::CharDevice { major: 1, minor: 3 }));
        assert_eq!(parse_node(b"b 8 0"), Some(Kind::BlockDevice { major: 8, minor: 0 }));
        for bad in ["", "c", "c 1", "c 1 3 4", "p 1 3", "c  1 3", "c x 3", "c 1 3 "] {
            assert_eq!(parse_node(bad.as_bytes()), None, "{bad:?}");
        }
    }

    #[test]
    fn only_later_times_are_clamped() {
        let at = |secs, nanos| Timestamp { secs, nanos };
        assert_eq!(clamp(at(5, 1), None), at(5, 1));
        assert_eq!(clamp(at(5, 1), Some(5)), at(5, 0));
        assert_eq!(clamp(at(4, 9), Some(5)), at(4, 9));
        assert_eq!(clamp(at(-4, 9), Some(0)), at(-4, 9));
    }
}
