//! Work directories, what dead sessions leave, and removing the unremovable.

use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::CommandExt;

use super::{names, new_store, other};
use crate::store::{Store, remove_tree};

const NOBODY: u32 = 65_534;

#[test]
fn work_directories_go_when_dropped_and_outlive_their_store() {
    let (_dir, store) = new_store();
    let work = store.work_dir().unwrap();
    let tmp = store.path().join("tmp");
    fs::write(work.path().join("file"), "x").unwrap();
    drop(store);
    assert!(work.path().join("file").exists());
    let path = work.path().to_owned();
    drop(work);
    assert!(!path.exists());
    assert!(names(&tmp).is_empty(), "the session ends with what it lent out");
}

#[test]
fn trees_without_permissions_are_removed_and_links_not_followed() {
    let dir = tempfile::TempDir::new().unwrap();
    let canary = dir.path().join("canary");
    fs::create_dir(&canary).unwrap();
    fs::write(canary.join("file"), "").unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir_all(tree.join("closed/inner")).unwrap();
    fs::write(tree.join("closed/inner/file"), "").unwrap();
    fs::create_dir_all(tree.join("readable/inner")).unwrap();
    symlink(&canary, tree.join("link")).unwrap();
    symlink(&canary, tree.join("closed/inner/link")).unwrap();
    fs::hard_link(canary.join("file"), tree.join("hard")).unwrap();
    for (path, mode) in [("closed/inner", 0o000), ("closed", 0o000), ("readable", 0o444), ("", 0o500)] {
        fs::set_permissions(tree.join(path), Permissions::from_mode(mode)).unwrap();
    }
    let removed = remove_tree(&tree);
    assert_eq!(removed.left, 0);
    assert_eq!(names(dir.path()), ["canary"]);
    assert_eq!(names(&canary), ["file"]);
    assert_eq!(remove_tree(&tree), crate::store::Removed::default(), "nothing is nothing to do");
}

#[test]
fn very_deep_trees_are_removed_with_few_handles() {
    let dir = tempfile::TempDir::new().unwrap();
    let top = dir.path().join("top");
    fs::create_dir(&top).unwrap();
    let mut at = fs::File::open(&top).unwrap();
    for _ in 0..5000 {
        rustix::fs::mkdirat(&at, "d", rustix::fs::Mode::RWXU).unwrap();
        let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::CLOEXEC;
        at = rustix::fs::openat(&at, "d", flags, rustix::fs::Mode::empty()).unwrap().into();
    }
    drop(at);
    assert_eq!(remove_tree(&top).left, 0);
    assert!(names(dir.path()).is_empty());
}

#[test]
fn the_next_start_sweeps_dead_sessions_and_no_live_one() {
    let (_dir, store) = new_store();
    let live = store.work_dir().unwrap();
    let tmp = store.path().join("tmp");
    let dead = tmp.join("dead");
    fs::create_dir_all(dead.join("work-0/closed")).unwrap();
    fs::write(dead.join("session"), "blob 00\nhalf a li").unwrap();
    fs::write(dead.join("blob-1"), vec![0; 10_000]).unwrap();
    fs::set_permissions(dead.join("work-0/closed"), Permissions::from_mode(0o000)).unwrap();
    fs::create_dir(tmp.join("no-session-file")).unwrap();
    fs::write(tmp.join("stray"), "").unwrap();
    drop(other(&store));
    assert_eq!(names(&tmp).len(), 1, "{:?}", names(&tmp));
    assert!(live.path().exists());
}

const UNPRIVILEGED: &str = "BUILDER_STORE_TEST_UNPRIVILEGED";

/// Not a test by itself: what the test below runs as another user.
#[test]
fn child_without_privileges() {
    let Ok(state) = std::env::var(UNPRIVILEGED) else { return };
    let store = Store::open(state.as_ref()).unwrap();
    assert!(store.disk_usage().unwrap().unreadable > 0);
}

#[test]
fn files_of_foreign_owners_are_left_to_who_may_remove_them() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("SKIP files_of_foreign_owners_are_left_to_who_may_remove_them: needs root to make them");
        return;
    }
    let (dir, store) = new_store();
    let state = store.path().to_owned();
    drop(store);
    let dead = state.join("tmp/dead");
    fs::create_dir_all(dead.join("work-0/foreign")).unwrap();
    fs::write(dead.join("work-0/foreign/file"), "").unwrap();
    fs::write(dead.join("work-0/own"), "").unwrap();
    // Seen from outside a user namespace: the state directory is the caller's, what a step made is not.
    for entry in walkdir::WalkDir::new(dir.path()) {
        std::os::unix::fs::chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
    }
    std::os::unix::fs::chown(dead.join("work-0/foreign"), Some(0), Some(0)).unwrap();
    fs::set_permissions(dead.join("work-0/foreign"), Permissions::from_mode(0o700)).unwrap();
    let output = std::process::Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "store::tests::removal::child_without_privileges"])
        .env(UNPRIVILEGED, &state)
        .uid(NOBODY)
        .gid(NOBODY)
        .output();
    match output {
        Ok(output) => assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout)),
        Err(error) => {
            eprintln!("SKIP files_of_foreign_owners_are_left_to_who_may_remove_them: cannot run as nobody: {error}");
            return;
        }
    }
    assert_eq!(names(&dead.join("work-0")), ["foreign"], "as much as may be is removed");
    let store = Store::open(&state).unwrap();
    assert_eq!(names(&state.join("tmp")).len(), 1, "the one who may removes the rest");
    drop(store);
}

const MOUNTED: &str = "BUILDER_STORE_TEST_MOUNTED";

/// Not a test by itself: what the test below runs in a mount namespace of its own.
#[test]
fn child_with_a_mount() {
    let Ok(tree) = std::env::var(MOUNTED) else { return };
    assert!(remove_tree(tree.as_ref()).left > 0, "the mount point cannot go");
    assert_eq!(names(tree.as_ref()), ["mnt"]);
}

#[test]
fn a_bind_mount_is_not_crossed() {
    let dir = tempfile::TempDir::new().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    fs::create_dir_all(path("tree/mnt")).unwrap();
    fs::create_dir_all(path("tree/other")).unwrap();
    fs::create_dir_all(path("canary/inner")).unwrap();
    fs::write(path("canary/inner/thesis.tex"), "").unwrap();
    let script = "mount --bind \"$1\" \"$2\" || exit 77
        exec \"$0\" --exact store::tests::removal::child_with_a_mount --nocapture";
    let output = std::process::Command::new("unshare")
        .args(["--user", "--map-root-user", "--mount", "sh", "-c", script])
        .arg(std::env::current_exe().unwrap())
        .args([path("canary"), path("tree/mnt")])
        .env(MOUNTED, path("tree"))
        .output();
    match output {
        Ok(output) if output.status.success() => assert_eq!(names(path("canary/inner").as_ref()), ["thesis.tex"]),
        Ok(output) if output.status.code() == Some(101) => panic!("{}", String::from_utf8_lossy(&output.stdout)),
        other => eprintln!("SKIP a_bind_mount_is_not_crossed: no user or mount namespace here: {other:?}"),
    }
}
