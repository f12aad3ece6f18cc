//! Export into an OCI layout directory, beside what it already holds.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use super::{Blob, Error, Image, blobs};
use crate::image::{ANNOTATION_REF_NAME, Descriptor, Index, MANIFEST_LIMIT};
use crate::store::{OCI_LAYOUT, Store};

/// Copies an image into the layout `dest`, made when missing. Other images there stay; an entry of the same tag is
/// replaced, as is an unnamed one of the same image.
///
/// Several exports into one layout may run at once: `oci-layout` is locked while the index changes.
pub(crate) fn export_layout(store: &Store, image: Image<'_>, dest: &Path) -> Result<(), Error> {
    let blobs = blobs(store, image.descriptor)?;
    let path = dest.join("index.json");
    let _lock = copy_blobs(blobs, dest)?;
    let mut index = read_index(&path)?;
    add_entries(&mut index, image.entries());
    write_new(&path, |file| file.write_all(&index.to_canonical_json()))
}

/// Makes an image the whole content of the layout `dest`, made when missing: blobs that it does not reach are removed.
///
/// A layout with images of other names is not touched. Blobs that are there already stay as they are. Whoever reads the
/// layout meanwhile finds the image of before or this one, and may miss blobs of the former.
pub(crate) fn replace_layout(store: &Store, image: &Descriptor, dest: &Path) -> Result<(), Error> {
    let path = dest.join("index.json");
    let name = |entry: &Descriptor| entry.annotations.get(ANNOTATION_REF_NAME).cloned();
    let there = read_index(&path)?.manifests;
    // Blobs of an index that names nothing: a state directory without images. Without an index, a killed export's.
    let unnamed = there.is_empty() && path.exists() && has_entries(&dest.join("blobs/sha256"));
    if unnamed || there.iter().any(|entry| name(entry) != name(image)) {
        return Err(Error::OtherImages { path: dest.to_owned() });
    }
    let blobs = blobs(store, image)?;
    let kept: HashSet<String> = blobs.iter().map(|blob| blob.digest.hex()).collect();
    let _lock = copy_blobs(blobs, dest)?;
    let index = super::index_of(vec![image.clone()]);
    write_new(&path, |file| file.write_all(&index.to_canonical_json()))?;
    let blobs_dir = dest.join("blobs/sha256");
    for entry in fs::read_dir(&blobs_dir).map_err(Error::io("list", &blobs_dir))?.flatten() {
        if !entry.file_name().to_str().is_some_and(|name| kept.contains(name)) {
            fs::remove_file(entry.path()).map_err(Error::io("remove", entry.path()))?;
        }
    }
    Ok(())
}

fn has_entries(dir: &Path) -> bool {
    fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some())
}

/// Copies blobs into a layout, made when missing. Nobody else changes its index while the returned file is open.
fn copy_blobs(blobs: Vec<Blob>, dest: &Path) -> Result<File, Error> {
    let blobs_dir = dest.join("blobs/sha256");
    check_destination(dest)?;
    make_dirs(&blobs_dir).map_err(Error::io("make directory", &blobs_dir))?;
    let marker = dest.join("oci-layout");
    let lock = File::options().read(true).append(true).create(true).mode(0o644).open(&marker);
    let lock = lock.map_err(Error::io("open", &marker))?;
    lock.lock().map_err(Error::io("lock", &marker))?;
    if lock.metadata().map_err(Error::io("stat", &marker))?.len() == 0 {
        (&lock).write_all(OCI_LAYOUT.as_bytes()).map_err(Error::io("write", &marker))?;
    }
    for blob in blobs {
        copy_blob(blob, &blobs_dir)?;
    }
    Ok(lock)
}

/// Refuses a directory with other things in it, so that a slip in `dest=` scatters nothing.
fn check_destination(dest: &Path) -> Result<(), Error> {
    let layout = ["oci-layout", "index.json", "blobs"];
    let entries = match fs::read_dir(dest) {
        Ok(entries) => entries,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(e) => return Err(Error::io("list", dest)(e)),
    };
    let foreign = |entry: fs::DirEntry| !layout.iter().any(|name| entry.file_name() == *name);
    if !dest.join("oci-layout").exists() && entries.flatten().any(foreign) {
        return Err(Error::NotALayout { path: dest.to_owned() });
    }
    Ok(())
}

fn read_index(path: &Path) -> Result<Index, Error> {
    match fs::metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Index::default()),
        Err(e) => return Err(Error::io("stat", path)(e)),
        Ok(meta) if meta.len() > MANIFEST_LIMIT => {
            let source = crate::image::ParseError::TooLarge { what: "index", size: meta.len(), limit: MANIFEST_LIMIT };
            return Err(Error::Document { what: path.display().to_string(), source });
        }
        Ok(_) => {}
    }
    let bytes = fs::read(path).map_err(Error::io("read", path))?;
    Index::parse(&bytes).map_err(|source| Error::Document { what: path.display().to_string(), source })
}

fn add_entries(index: &mut Index, entries: Vec<Descriptor>) {
    let name = |entry: &Descriptor| entry.annotations.get(ANNOTATION_REF_NAME).cloned();
    let replaced = |old: &Descriptor| {
        let same = |new: &Descriptor| match (name(old), name(new)) {
            (None, None) => old.digest == new.digest,
            (old, new) => old == new,
        };
        entries.iter().any(same)
    };
    index.manifests.retain(|old| !replaced(old));
    index.manifests.extend(entries);
}

fn copy_blob(mut blob: Blob, dir: &Path) -> Result<(), Error> {
    let path = dir.join(blob.digest.hex());
    if fs::metadata(&path).is_ok_and(|meta| meta.is_file() && meta.len() == blob.size) {
        return Ok(());
    }
    // Between two files this is copy_file_range: in the kernel, and without copying where blocks can be shared.
    write_new(&path, |file| io::copy(&mut blob.file, file).map(|_| ()))
}

/// Writes a file beside `path` and renames it there. What a killed export of the same file left there goes first.
pub(super) fn write_new(path: &Path, write: impl FnOnce(&mut File) -> io::Result<()>) -> Result<(), Error> {
    let prefix = format!(".{}.", path.file_name().unwrap_or_default().to_string_lossy());
    remove_leftovers(path, &prefix);
    let temp = path.with_file_name(format!("{prefix}{}{SUFFIX}", unique()));
    let written = File::options().write(true).create_new(true).mode(0o644).open(&temp).and_then(|mut file| {
        // Held until the file has its name: an export that finds it locked knows that it is being written.
        file.lock()?;
        write(&mut file)?;
        fs::rename(&temp, path)
    });
    // The error that is reported is the first one.
    written.map_err(Error::io("write", path)).inspect_err(|_| drop(fs::remove_file(&temp)))
}

/// Makes a directory with those above it. The mode is said, because the build process has no umask.
pub(super) fn make_dirs(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o755).create(path)
}

/// End of the names of temporary files.
const SUFFIX: &str = ".tmp";

/// Removes temporary files for `path` that nobody holds any more. Failing to is no reason not to export.
fn remove_leftovers(path: &Path, prefix: &str) {
    let dir = path.parent().filter(|dir| !dir.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let ours = name.to_str().is_some_and(|name| name.starts_with(prefix) && name.ends_with(SUFFIX));
        if ours && File::open(entry.path()).is_ok_and(|file| file.try_lock().is_ok()) {
            fs::remove_file(entry.path()).ok();
        }
    }
}

/// A part of a file name that no other process uses.
pub(super) fn unique() -> String {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
    // In a process namespace of its own every build is process 1; the clock tells them apart.
    let now = std::time::UNIX_EPOCH.elapsed().unwrap_or_default().as_nanos();
    format!("{:x}-{now:x}-{serial:x}", std::process::id())
}
