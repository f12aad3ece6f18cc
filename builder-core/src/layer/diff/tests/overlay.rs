//! Random operations on a real overlay: the layers below with the diff on top must come to what the mount shows.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, OpenOptionsExt as _};
use std::path::PathBuf;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::*;

const ROUNDS: usize = 3;
const THIS_TEST: &str = "layer::diff::tests::overlay::diff_on_top_is_what_the_mount_shows";

#[derive(Debug, Clone)]
enum Op {
    Write(String, u8),
    Append(String),
    /// Opened for writing and closed: copied up, unchanged.
    Touchless(String),
    Mkdir(String),
    Remove(String),
    /// Removed and made again with one file, as it may have been before.
    Remake(String),
    Rename(String, String),
    Link(String, String),
    Symlink(String, String),
    Fifo(String),
    Chmod(String, u32),
    Chown(String, u32),
    SetXattr(String, u8),
    SetTime(String, i64),
}

fn name() -> impl Strategy<Value = String> {
    "[ab]-?(/[ab]){0,3}"
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (name(), 0..3u8).prop_map(|(path, text)| Op::Write(path, text)),
        1 => name().prop_map(Op::Append),
        2 => name().prop_map(Op::Touchless),
        5 => name().prop_map(Op::Mkdir),
        3 => name().prop_map(Op::Remove),
        3 => name().prop_map(Op::Remake),
        2 => (name(), name()).prop_map(|(from, to)| Op::Rename(from, to)),
        2 => (name(), name()).prop_map(|(from, to)| Op::Link(from, to)),
        1 => (name(), name()).prop_map(|(path, target)| Op::Symlink(path, target)),
        1 => name().prop_map(Op::Fifo),
        1 => (name(), 0..3u32).prop_map(|(path, mode)| Op::Chmod(path, 0o700 + mode)),
        1 => (name(), 0..2u32).prop_map(|(path, id)| Op::Chown(path, id)),
        1 => (name(), 0..2u8).prop_map(|(path, value)| Op::SetXattr(path, value)),
        1 => (name(), 0..2i64).prop_map(|(path, secs)| Op::SetTime(path, THEN + secs)),
    ]
}

/// Opening a pipe must not wait for a reader.
fn writer() -> fs::OpenOptions {
    let mut options = fs::OpenOptions::new();
    options.write(true).custom_flags(nix::libc::O_NONBLOCK);
    options
}

/// Does what can be done; the rest fails as it would for any program, and that is fine.
fn perform(root: &Path, op: &Op) -> std::io::Result<()> {
    let at = |path: &str| root.join(path);
    match op {
        Op::Write(path, text) => writer().create(true).truncate(true).open(at(path))?.write_all(&[*text])?,
        Op::Append(path) => writer().append(true).open(at(path))?.write_all(b"+")?,
        Op::Touchless(path) => drop(writer().open(at(path))?),
        Op::Mkdir(path) => fs::create_dir_all(at(path))?,
        Op::Remove(path) if fs::symlink_metadata(at(path))?.is_dir() => fs::remove_dir_all(at(path))?,
        Op::Remove(path) => fs::remove_file(at(path))?,
        Op::Remake(path) => {
            fs::remove_dir_all(at(path))?;
            fs::create_dir_all(at(path).join("a"))?;
            fs::write(at(path).join("a/b"), [0])?;
        }
        Op::Rename(from, to) => fs::rename(at(from), at(to))?,
        Op::Link(from, to) => fs::hard_link(at(from), at(to))?,
        Op::Symlink(path, target) => symlink(target, at(path))?,
        Op::Fifo(path) => {
            rustix::fs::mknodat(rustix::fs::CWD, at(path), FileType::Fifo, Mode::from_raw_mode(0o600), 0)?;
        }
        Op::Chmod(path, _) if fs::symlink_metadata(at(path))?.is_symlink() => {}
        Op::Chmod(path, mode) => fs::set_permissions(at(path), fs::Permissions::from_mode(*mode))?,
        Op::Chown(path, id) => std::os::unix::fs::lchown(at(path), Some(*id), None)?,
        Op::SetXattr(path, value) if fs::symlink_metadata(at(path))?.is_file() => {
            xattr::set(fs::File::open(at(path))?.as_fd(), c"user.test", &[*value])?;
        }
        Op::SetXattr(..) => {}
        Op::SetTime(path, secs) => {
            let then = Timespec { tv_sec: *secs, tv_nsec: 0 };
            let times = Timestamps { last_access: then, last_modification: then };
            rustix::fs::utimensat(rustix::fs::CWD, at(path), &times, AtFlags::SYMLINK_NOFOLLOW)?;
        }
    }
    Ok(())
}

/// What a directory shows, read with nothing of the code under test.
#[derive(Debug, Default)]
struct Shown {
    nodes: BTreeMap<Vec<u8>, (Metadata, Kind)>,
    inodes: BTreeMap<(u64, u64), BTreeSet<Vec<u8>>>,
}

fn show_dir(root: &Path) -> Shown {
    let mut shown = Shown::default();
    let mut pending = vec![PathBuf::new()];
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(root.join(&dir)).unwrap() {
            let path = dir.join(entry.unwrap().file_name());
            let found = fs::symlink_metadata(root.join(&path)).unwrap();
            let bytes = path.as_os_str().as_bytes().to_vec();
            if found.is_file() {
                shown.inodes.entry((found.dev(), found.ino())).or_default().insert(bytes.clone());
            }
            shown.nodes.insert(bytes, show_one(&root.join(&path), &found));
            if found.is_dir() {
                pending.push(path);
            }
        }
    }
    shown
}

fn show_one(path: &Path, found: &fs::Metadata) -> (Metadata, Kind) {
    let mut meta = Metadata {
        mode: found.mode() & 0o7777,
        uid: found.uid(),
        gid: found.gid(),
        mtime: Timestamp { secs: found.mtime(), nanos: u32::try_from(found.mtime_nsec()).unwrap() },
        ..Metadata::default()
    };
    let kind = if found.is_dir() {
        Kind::Directory { opaque: false }
    } else if found.is_symlink() {
        Kind::Symlink { target: fs::read_link(path).unwrap().as_os_str().as_bytes().to_vec() }
    } else if found.is_file() {
        let file = fs::File::open(path).unwrap();
        if let Some(value) = xattr::get(file.as_fd(), c"user.test").unwrap() {
            meta.xattrs.insert(b"user.test".to_vec(), value);
        }
        Kind::File { size: found.len(), content: ContentHash::of(&fs::read(path).unwrap()) }
    } else {
        Kind::Fifo
    };
    (meta, kind)
}

/// Turns changes into a layer, with the content that the writer of layers would find.
fn layer(upper: &Path, changes: Vec<Change>) -> LayerTree {
    let filled = changes.into_iter().map(|Change { mut entry }| {
        if let Kind::File { content, .. } = &mut entry.kind {
            let path = upper.join(std::ffi::OsStr::from_bytes(&entry.path));
            *content = ContentHash::of(&fs::read(path).unwrap());
        }
        entry
    });
    LayerTree::from_sorted(filled.collect()).expect("changes are a valid layer")
}

fn check_rules(layer: &LayerTree, below: &MergedTree) -> Result<(), TestCaseError> {
    for entry in layer.entries() {
        let listed = ancestors(&entry.path).all(|dir| dir.is_empty() || layer.get(dir).is_some_and(Entry::is_dir));
        prop_assert!(listed, "parents of {} are listed", shape(entry));
        match &entry.kind {
            Kind::Whiteout => prop_assert!(below.get(&entry.path).is_some(), "{} deletes something", shape(entry)),
            Kind::Directory { opaque: true } => {
                prop_assert!(below.children(&entry.path).next().is_some(), "{} hides something", shape(entry));
            }
            Kind::Hardlink { target } => {
                let is_file = matches!(layer.get(target).unwrap().kind, Kind::File { .. });
                prop_assert!(is_file && target < &entry.path, "{} leads back to a file", shape(entry));
            }
            _ => {}
        }
    }
    Ok(())
}

fn check_shown(tree: &MergedTree, shown: &Shown) -> Result<(), TestCaseError> {
    let found: BTreeMap<_, _> = tree
        .iter()
        .filter(|(path, _)| !path.is_empty())
        .map(|(path, node)| (path.to_vec(), (node.meta.clone(), node.kind.clone())))
        .collect();
    prop_assert_eq!(&found, &shown.nodes);
    for names in shown.inodes.values().filter(|names| names.len() > 1) {
        let groups: BTreeSet<_> = names.iter().map(|name| tree.get(name).map(|n| (n.layer, n.link))).collect();
        prop_assert!(groups.len() == 1 && groups.iter().flatten().all(|(_, link)| link.is_some()), "{:?}", names);
    }
    Ok(())
}

fn run_rounds(rounds: &[Vec<Op>]) -> Result<(), TestCaseError> {
    let dir = tempfile::tempdir().unwrap();
    let mut tree = MergedTree::new();
    let mut lower = vec![dir.path().join("empty")];
    fs::create_dir(&lower[0]).unwrap();
    for (round, ops) in rounds.iter().enumerate() {
        let [upper, work, merged] = ["upper", "work", "merged"].map(|name| dir.path().join(format!("{name}{round}")));
        for path in [&upper, &work, &merged] {
            fs::create_dir(path).unwrap();
            fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
        }
        let lowers: Vec<_> = lower.iter().rev().map(|path| path.to_str().unwrap()).collect();
        let options = format!(
            "lowerdir={},upperdir={},workdir={},userxattr,index=off",
            lowers.join(":"),
            upper.display(),
            work.display()
        );
        mount(Some("overlay"), &merged, Some("overlay"), MsFlags::empty(), Some(options.as_str())).unwrap();
        for op in ops {
            // Not every operation can succeed; what matters is where the directory ends up.
            drop(perform(&merged, op));
        }
        let shown = show_dir(&merged);
        // Detached: a program that another test starts may hold a copy of a descriptor for a moment.
        nix::mount::umount2(&merged, nix::mount::MntFlags::MNT_DETACH).unwrap();
        let changes = diff(fs::File::open(&upper).unwrap().as_fd(), &tree, None).unwrap();
        let layer = layer(&upper, changes);
        check_rules(&layer, &tree)?;
        tree.apply(&std::sync::Arc::new(layer), round);
        check_shown(&tree, &shown)?;
        lower.push(upper);
    }
    Ok(())
}

/// Whether overlays can be mounted here.
fn enter_mount_namespace() -> Result<(), String> {
    unshare(CloneFlags::CLONE_NEWNS).map_err(|error| format!("unshare: {error}"))?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).map_err(|error| format!("make / private: {error}"))
}

fn run_all() {
    // Namespaces belong to threads, so nothing outlives this one.
    let body = || {
        if let Err(reason) = enter_mount_namespace() {
            eprintln!("SKIP diff_on_top_is_what_the_mount_shows: no overlay here: {reason}");
            return;
        }
        let config = Config { cases: 60, failure_persistence: None, ..Config::default() };
        let rounds = prop::collection::vec(prop::collection::vec(op(), 0..14), ROUNDS);
        TestRunner::new(config).run(&rounds, |rounds| run_rounds(&rounds)).unwrap();
    };
    std::thread::scope(|scope| scope.spawn(body).join().unwrap());
}

#[test]
fn diff_on_top_is_what_the_mount_shows() {
    if rustix::process::geteuid().is_root() {
        run_all();
        return;
    }
    let this = std::env::current_exe().unwrap();
    let arguments = ["--user", "--map-root-user", "--mount"];
    let child = std::process::Command::new("unshare").args(arguments).arg(this).args(["--exact", THIS_TEST]).status();
    match child {
        Ok(status) if status.code() == Some(0) => {}
        Ok(status) if status.code() == Some(1) => {
            eprintln!("SKIP diff_on_top_is_what_the_mount_shows: no user namespace here");
        }
        other => panic!("{other:?}"),
    }
}
