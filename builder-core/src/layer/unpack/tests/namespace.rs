//! As root of a user namespace with a single id: no other owner, no device; and overlays of what was unpacked there.
//!
//! A test process has threads and cannot enter a namespace, so a test runs itself again under `unshare`.

use std::process::Command;

use super::*;
use crate::layer::ensure_tree;

const INSIDE: &str = "BUILDER_TEST_INSIDE_NAMESPACE";

/// Whether this is the process inside. If not, runs the test `name` there, or skips it.
fn inside(name: &str) -> bool {
    if std::env::var_os(INSIDE).is_some() {
        return true;
    }
    let name = format!("layer::unpack::tests::namespace::{name}");
    let unshare = || {
        let mut command = Command::new("unshare");
        command.args(["--user", "--map-root-user", "--mount"]);
        command
    };
    if !unshare().arg("true").output().is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP {name}: unshare --user does not work here");
        return false;
    }
    let test = std::env::current_exe().unwrap();
    let args = ["--exact", &name, "--nocapture"];
    let output = unshare().arg("--").arg(test).args(args).env(INSIDE, "1").output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}\n{}", String::from_utf8_lossy(&output.stderr));
    assert!(text.contains("1 passed"), "no test is called {name}");
    eprint!("{}", String::from_utf8_lossy(&output.stderr));
    false
}

#[test]
fn what_mapped_root_may_not_do_is_recorded() {
    if !inside("what_mapped_root_may_not_do_is_recorded") {
        return;
    }
    let (_dir, store) = store();
    let written = write(&store, &sample());
    let (path, notes) = unpack_one(&store, &written.layer).unwrap();
    check_tree(&path, &written.tree);
    assert_eq!(xattr(&path.join("bin"), OWNER_XATTR).as_deref(), Some(&b"12:34"[..]));
    assert_eq!(xattr(&path.join("bin/ping"), OWNER_XATTR).as_deref(), Some(&b"1000:0"[..]));
    assert_eq!(xattr(&path.join("dev/null"), NODE_XATTR).as_deref(), Some(&b"c 1 3"[..]));
    assert_eq!(xattr(&path.join("dev/disk"), NODE_XATTR).as_deref(), Some(&b"b 8 1"[..]));
    assert!(notes.contains(&Note::Node { path: b"dev/null".to_vec() }), "{notes:?}");
    assert!(notes.contains(&Note::Owner { path: b"bin".to_vec(), uid: 12, gid: 34 }), "{notes:?}");
}

#[test]
fn an_overlay_of_unpacked_layers_is_the_merged_tree() {
    if !inside("an_overlay_of_unpacked_layers_is_the_merged_tree") {
        return;
    }
    let (temp, store) = store();
    let gone = |path| (entry(path, 0, Kind::Whiteout), &b""[..]);
    let opaque = |path| (entry(path, 0o750, Kind::Directory { opaque: true }), &b""[..]);
    let d = |path| (entry(path, 0o711, Kind::Directory { opaque: false }), &b""[..]);
    let f = |path| (file(path, 1), &b"x"[..]);
    let stack = [
        vec![d("a"), f("a/1"), f("a/2"), d("b"), f("b/1"), d("c"), d("c/d"), f("c/d/1"), f("e"), d("g"), f("g/1")],
        vec![
            d("a"),
            gone("a/1"),
            opaque("b"),
            f("b/2"),
            d("c"),
            opaque("c/d"),
            f("c/d/2"),
            d("e"),
            f("e/1"),
            gone("g"),
        ],
        // Parents left out; one of them only to delete something where nothing is.
        vec![f("a/3"), gone("a/2"), gone("never/here"), f("c/d/3"), f("new/1")],
    ];
    let last = super::foreign::tar(&stack[2]);
    let layers = [write(&store, &stack[0]).layer, write(&store, &stack[1]).layer, foreign(&store, &last)];
    let mut merged = MergedTree::new();
    for (at, layer) in layers.iter().enumerate() {
        merged.apply(&ensure_tree(&store, layer).unwrap(), at);
    }
    let lowerdirs = unpack_all(&store, &layers, 2).unwrap().paths;
    let lowerdirs: Vec<_> = lowerdirs.iter().rev().map(|path| path.to_str().unwrap()).collect();
    let target = temp.path().join("merged");
    fs::create_dir(&target).unwrap();
    let options = format!("userxattr,lowerdir={}", lowerdirs.join(":"));
    let mounted = Command::new("mount").args(["-t", "overlay", "overlay", "-o", &options]).arg(&target).output();
    if !mounted.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP an_overlay_of_unpacked_layers_is_the_merged_tree: no overlay in a user namespace");
        return;
    }
    let expected: Vec<_> = merged.iter().skip(1).map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    assert_eq!(listing(&target), expected);
    for (path, node) in merged.iter().skip(1) {
        let found = fs::symlink_metadata(target.join(String::from_utf8_lossy(path).into_owned())).unwrap();
        let path = String::from_utf8_lossy(path);
        assert_eq!(found.is_dir(), node.is_dir(), "{path}");
        assert_eq!(found.mode() & 0o7777, node.meta.mode, "mode of {path}");
        assert_eq!(found.mtime(), node.meta.mtime.secs, "time of {path}");
    }
    let unmounted = Command::new("umount").arg(&target).status().unwrap();
    assert!(unmounted.success());
}
