//! As root of a user namespace with a single id: no other owner, no device.
//!
//! A test process has threads and cannot enter a namespace, so this one runs itself again under `unshare`.

use std::process::Command;

use super::*;

const INSIDE: &str = "BUILDER_TEST_INSIDE_NAMESPACE";
const NAME: &str = "layer::unpack::tests::namespace::what_mapped_root_may_not_do_is_recorded";

#[test]
fn what_mapped_root_may_not_do_is_recorded() {
    if std::env::var_os(INSIDE).is_some() {
        return inside();
    }
    let works = Command::new("unshare").args(["--user", "--map-root-user", "true"]).output();
    if !works.is_ok_and(|output| output.status.success()) {
        eprintln!("SKIP {NAME}: unshare --user does not work here");
        return;
    }
    let test = std::env::current_exe().unwrap();
    let output = Command::new("unshare")
        .args(["--user", "--map-root-user", "--"])
        .arg(test)
        .args(["--exact", NAME, "--nocapture"])
        .env(INSIDE, "1")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "the test is not called {NAME}");
}

fn inside() {
    let (_dir, store) = store();
    let entries = sample();
    let written = write(&store, &entries);
    let (path, notes) = unpack_one(&store, &written.layer).unwrap();
    check_tree(&path, &written.tree);
    assert_eq!(xattr(&path.join("bin"), OWNER_XATTR).as_deref(), Some(&b"12:34"[..]));
    assert_eq!(xattr(&path.join("bin/ping"), OWNER_XATTR).as_deref(), Some(&b"1000:0"[..]));
    assert_eq!(xattr(&path.join("dev/null"), NODE_XATTR).as_deref(), Some(&b"c 1 3"[..]));
    assert_eq!(xattr(&path.join("dev/disk"), NODE_XATTR).as_deref(), Some(&b"b 8 1"[..]));
    assert!(notes.contains(&Note::Node { path: b"dev/null".to_vec() }), "{notes:?}");
    assert!(notes.contains(&Note::Owner { path: b"bin".to_vec(), uid: 12, gid: 34 }), "{notes:?}");
}
