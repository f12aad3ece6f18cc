use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use rustix::fs::{AtFlags, FileType, Mode, Timespec, Timestamps};
use tempfile::TempDir;

use super::*;
use crate::digest::ContentHash;
use crate::sys::xattr;
use crate::tree::{LayerTree, Metadata, Timestamp};

mod overlay;

/// A moment in the past, the same for everything that a test makes.
const THEN: i64 = 1_600_000_000;

/// An upper directory made by hand.
struct Upper(TempDir);

impl Upper {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).unwrap();
        Self(dir)
    }

    fn path(&self, path: &str) -> std::path::PathBuf {
        self.0.path().join(path)
    }

    fn dir(self, path: &str) -> Self {
        fs::create_dir(self.path(path)).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o755)).unwrap();
        self
    }

    fn file(self, path: &str, text: &str) -> Self {
        fs::write(self.path(path), text).unwrap();
        fs::set_permissions(self.path(path), fs::Permissions::from_mode(0o644)).unwrap();
        self
    }

    fn link(self, path: &str, target: &str) -> Self {
        fs::hard_link(self.path(target), self.path(path)).unwrap();
        self
    }

    fn node(self, path: &str, kind: FileType) -> Self {
        rustix::fs::mknodat(rustix::fs::CWD, self.path(path), kind, Mode::from_raw_mode(0o600), 0).unwrap();
        self
    }

    fn whiteout(self, path: &str) -> Self {
        self.node(path, FileType::CharacterDevice)
    }

    fn xattr(self, path: &str, name: &std::ffi::CStr, value: &[u8]) -> Self {
        let file = fs::File::open(self.path(path)).unwrap();
        xattr::set(file.as_fd(), name, value).unwrap();
        self
    }

    /// Sets all times and returns the changes.
    fn try_diff(&self, below: &MergedTree) -> Result<Vec<Change>, DiffError> {
        set_times(self.0.path());
        let dir = fs::File::open(self.0.path()).unwrap();
        diff(dir.as_fd(), below, None)
    }

    fn diff(&self, below: &MergedTree) -> Vec<String> {
        self.try_diff(below).unwrap().iter().map(|change| shape(&change.entry)).collect()
    }
}

fn set_times(dir: &Path) {
    let then = Timespec { tv_sec: THEN, tv_nsec: 0 };
    let times = Timestamps { last_access: then, last_modification: then };
    for entry in fs::read_dir(dir).unwrap() {
        let entry = entry.unwrap();
        if entry.file_type().unwrap().is_dir() {
            set_times(&entry.path());
        }
        rustix::fs::utimensat(rustix::fs::CWD, entry.path(), &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
    }
}

fn shape(entry: &Entry) -> String {
    let path = String::from_utf8_lossy(&entry.path);
    match &entry.kind {
        Kind::Directory { opaque: false } => format!("dir {path}"),
        Kind::Directory { opaque: true } => format!("opaque {path}"),
        Kind::File { size, .. } => format!("file {path} {size}"),
        Kind::Hardlink { target } => format!("link {path} {}", String::from_utf8_lossy(target)),
        Kind::Symlink { target } => format!("symlink {path} {}", String::from_utf8_lossy(target)),
        Kind::CharDevice { major, minor } => format!("char {path} {major}:{minor}"),
        Kind::BlockDevice { major, minor } => format!("block {path} {major}:{minor}"),
        Kind::Fifo => format!("fifo {path}"),
        Kind::Whiteout => format!("whiteout {path}"),
    }
}

fn meta(mode: u32) -> Metadata {
    let (uid, gid) = (rustix::process::geteuid().as_raw(), rustix::process::getegid().as_raw());
    Metadata { mode, uid, gid, mtime: Timestamp { secs: THEN, nanos: 0 }, ..Metadata::default() }
}

fn dir(path: &str) -> Entry {
    Entry { path: path.into(), meta: meta(0o755), kind: Kind::Directory { opaque: false } }
}

fn file(path: &str, text: &str) -> Entry {
    let kind = Kind::File { size: text.len() as u64, content: ContentHash::of(text.as_bytes()) };
    Entry { path: path.into(), meta: meta(0o644), kind }
}

fn hardlink(path: &str, target: &str) -> Entry {
    Entry { path: path.into(), meta: meta(0o644), kind: Kind::Hardlink { target: target.into() } }
}

/// A tree of one layer whose root is as [`Upper::new`] makes it.
fn below(mut entries: Vec<Entry>) -> MergedTree {
    entries.push(dir(""));
    let mut tree = MergedTree::new();
    tree.apply(&LayerTree::from_unsorted(entries), 0);
    tree
}

fn base() -> MergedTree {
    below(vec![
        dir("etc"),
        file("etc/passwd", "root"),
        file("etc/group", "root"),
        dir("etc/empty"),
        dir("srv"),
        file("srv/x", "1"),
    ])
}

#[test]
fn nothing_is_no_change() {
    assert_eq!(Upper::new().diff(&base()), Vec::<String>::new());
}

#[test]
fn new_files_come_with_their_parents() {
    let upper = Upper::new().dir("etc").file("etc/new", "text").dir("opt").dir("opt/deep").file("opt/deep/x", "");
    assert_eq!(upper.diff(&base()), ["dir etc", "file etc/new 4", "dir opt", "dir opt/deep", "file opt/deep/x 0"]);
}

#[test]
fn an_unchanged_copy_is_no_change() {
    let upper = Upper::new().dir("etc").file("etc/passwd", "root").dir("srv");
    assert_eq!(upper.diff(&base()), Vec::<String>::new());
    let upper = upper.file("srv/x", "2");
    assert_eq!(upper.diff(&base()), ["dir srv", "file srv/x 1"], "same size and time, other content");
}

#[test]
fn metadata_alone_is_a_change() {
    let upper = Upper::new().dir("etc").file("etc/passwd", "root");
    fs::set_permissions(upper.path("etc/passwd"), fs::Permissions::from_mode(0o600)).unwrap();
    assert_eq!(upper.diff(&base()), ["dir etc", "file etc/passwd 4"]);
    let upper = Upper::new().dir("etc").file("etc/passwd", "root").xattr("etc/passwd", c"user.note", b"x");
    assert_eq!(upper.diff(&base()), ["dir etc", "file etc/passwd 4"]);
    let upper = Upper::new().dir("etc");
    fs::set_permissions(upper.path("etc"), fs::Permissions::from_mode(0o1777)).unwrap();
    assert_eq!(upper.diff(&base()), ["dir etc"]);
    let upper = Upper::new();
    fs::set_permissions(upper.0.path(), fs::Permissions::from_mode(0o700)).unwrap();
    assert_eq!(upper.diff(&base()), ["dir "], "the root itself");
}

#[test]
fn whiteouts_only_for_what_was_there() {
    let upper = Upper::new().whiteout("srv").whiteout("nothing").dir("etc").whiteout("etc/passwd").whiteout("etc/none");
    assert_eq!(upper.diff(&base()), ["dir etc", "whiteout etc/passwd", "whiteout srv"]);
    let upper = Upper::new().dir("etc").file("etc/group", "").xattr("etc/group", c"user.overlay.whiteout", b"");
    let upper = upper.xattr("etc", c"user.overlay.opaque", b"x");
    assert_eq!(upper.diff(&base()), ["dir etc", "whiteout etc/group"]);
}

#[test]
fn directories_made_again_are_opaque_if_they_hide_something() {
    let opaque = |path| Upper::new().dir(path).xattr(path, c"user.overlay.opaque", b"y");
    assert_eq!(opaque("srv").diff(&base()), ["opaque srv"]);
    assert_eq!(opaque("new").diff(&base()), ["dir new"]);
    assert_eq!(opaque("etc").dir("etc/d").diff(&base()), ["opaque etc", "dir etc/d"]);
    let upper = Upper::new().dir("etc").dir("etc/empty").xattr("etc/empty", c"user.overlay.opaque", b"y");
    assert_eq!(upper.diff(&base()), Vec::<String>::new(), "an empty directory made again is the same");
    let upper = opaque("srv").file("srv/x", "1").whiteout("srv/y").dir("srv/d").whiteout("srv/d/z");
    assert_eq!(upper.diff(&base()), ["opaque srv", "dir srv/d", "file srv/x 1"], "nothing below shows through");
}

#[test]
fn nothing_shows_through_at_any_depth_of_an_opaque_directory() {
    let base = below(vec![dir("a"), dir("a/d"), file("a/d/x", "1"), file("a/y", "1")]);
    let upper = Upper::new().dir("a").xattr("a", c"user.overlay.opaque", b"y").dir("a/d").file("a/d/x", "1");
    assert_eq!(upper.diff(&base), ["opaque a", "dir a/d", "file a/d/x 1"], "the same as before, but hidden");
}

#[test]
fn types_change_without_whiteouts() {
    let upper = Upper::new().file("srv", "was a directory").dir("etc").dir("etc/passwd").file("etc/passwd/x", "");
    symlink("passwd", upper.path("etc/group")).unwrap();
    let want = ["dir etc", "symlink etc/group passwd", "dir etc/passwd", "file etc/passwd/x 0", "file srv 15"];
    assert_eq!(upper.diff(&base()), want);
}

#[test]
fn hard_links_lead_to_the_first_name() {
    let upper = Upper::new().file("b", "1").link("a", "b").link("c", "b").file("d", "1");
    assert_eq!(upper.diff(&base()), ["file a 1", "link b a", "link c a", "file d 1"]);
    let upper = Upper::new().dir("etc").file("etc/passwd", "root").link("etc/copy", "etc/passwd");
    assert_eq!(upper.diff(&base()), ["dir etc", "file etc/copy 4", "link etc/passwd etc/copy"], "with the target");
}

#[test]
fn linked_files_are_one_file_or_a_change() {
    let apart = below(vec![file("a", "1"), file("b", "1")]);
    let upper = Upper::new().file("a", "1").link("b", "a");
    assert_eq!(upper.diff(&apart), ["file a 1", "link b a"], "ln -f of equal files");
    let linked = below(vec![file("a", "1"), hardlink("b", "a")]);
    assert_eq!(upper.diff(&linked), Vec::<String>::new());
    let upper = Upper::new().file("a", "2").link("b", "a");
    assert_eq!(upper.diff(&linked), ["file a 1", "link b a"], "changed and still one file");
}

#[test]
fn special_files() {
    let upper = Upper::new().node("pipe", FileType::Fifo).dir("srv");
    let listener = UnixListener::bind(upper.path("srv/x")).unwrap();
    let other = UnixListener::bind(upper.path("socket")).unwrap();
    assert_eq!(upper.diff(&base()), ["fifo pipe", "dir srv", "whiteout srv/x"], "a socket only hides");
    drop((listener, other));
}

#[test]
fn placeholders_stand_for_what_could_not_be_made() {
    let upper = Upper::new()
        .file("null", "")
        .xattr("null", c"user.builder.node", b"c 1 3")
        .file("sda", "")
        .xattr("sda", c"user.builder.node", b"b 8 0")
        .xattr("sda", c"user.builder.owner", b"0:6")
        .file("www", "x")
        .xattr("www", c"user.builder.owner", b"33:33")
        .xattr("www", c"user.kept", b"1");
    let changes = upper.try_diff(&base()).unwrap();
    let shapes: Vec<_> = changes.iter().map(|change| shape(&change.entry)).collect();
    assert_eq!(shapes, ["char null 1:3", "block sda 8:0", "file www 1"]);
    let owner = |index: usize| (changes[index].entry.meta.uid, changes[index].entry.meta.gid);
    assert_eq!((owner(1), owner(2)), ((0, 6), (33, 33)));
    assert!(changes[0].entry.meta.xattrs.is_empty(), "placeholders stay out of the layer");
    assert_eq!(changes[2].entry.meta.xattrs.keys().collect::<Vec<_>>(), [b"user.kept"]);
    let bad = Upper::new().file("x", "").xattr("x", c"user.builder.owner", b"root");
    assert!(matches!(bad.try_diff(&base()), Err(DiffError::BadPlaceholder { .. })));
}

#[test]
fn refuses_what_no_layer_can_say() {
    let upper = Upper::new().dir("etc").file("etc/.wh.x", "");
    assert!(matches!(upper.try_diff(&base()), Err(DiffError::ReservedName { path }) if path == b"etc/.wh.x"));
    for attribute in [c"user.overlay.redirect", c"user.overlay.metacopy"] {
        let upper = Upper::new().file("x", "").xattr("x", attribute, b"/y");
        assert!(matches!(upper.try_diff(&base()), Err(DiffError::NotSelfContained { .. })), "{attribute:?}");
    }
}

#[test]
fn times_are_clamped_and_clamped_copies_are_the_same() {
    let upper = Upper::new().file("x", "1").file("y", "1");
    set_times(upper.0.path());
    let dir = fs::File::open(upper.0.path()).unwrap();
    let mut old = file("x", "1");
    old.meta.mtime.secs = THEN - 100;
    let changes = diff(dir.as_fd(), &below(vec![old]), Some(THEN - 100)).unwrap();
    assert_eq!(changes.iter().map(|c| c.entry.meta.mtime.secs).collect::<Vec<_>>(), [THEN - 100]);
    assert_eq!(shape(&changes[0].entry), "file y 1", "x was clamped when its layer was written");
    let changes = diff(dir.as_fd(), &below(vec![file("x", "1"), file("y", "1")]), Some(0)).unwrap();
    assert_eq!(changes, [], "files of a base are not newer than they were");
}
