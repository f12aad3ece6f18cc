//! A process that is killed at any instant leaves nothing that hurts.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::Duration;
use std::{env, fs};

use super::{key, names, new_store, put_image, put_layer, record_of};
use crate::digest::Digest;
use crate::store::{Store, Unpacking};

const CHILD: &str = "BUILDER_STORE_TEST_CHILD";

/// Not a test by itself: what the test below runs in a process of its own, until it is killed.
#[test]
fn child_that_is_killed() {
    let Ok(dir) = env::var(CHILD) else { return };
    let store = Store::open(dir.as_ref()).unwrap();
    let work = store.work_dir().unwrap();
    println!("ready");
    for n in 0_u32.. {
        let layer = put_layer(&store, &n.to_le_bytes().repeat(20_000));
        let _step = store.lock_step(&key(n.to_le_bytes()[0]), &mut || panic!("nobody else")).unwrap();
        store.put_record(&key(n.to_le_bytes()[0]), &record_of(vec![layer.clone()])).unwrap();
        let image = put_image(&store, &[layer]);
        store.tag_image(&format!("image:{}", n % 7), &image).unwrap();
        fs::create_dir_all(work.path().join(format!("{n}/a/b"))).unwrap();
        if let Unpacking::Mine(dir) = store.begin_unpack(&format!("k{}", n % 50)).unwrap() {
            fs::write(dir.path().join("one"), "1").unwrap();
            fs::write(dir.path().join("two"), "2").unwrap();
            dir.commit().unwrap();
        }
    }
}

#[test]
fn killing_a_writer_leaves_a_sound_directory() {
    let (_dir, store) = new_store();
    let path = store.path().to_owned();
    drop(store);
    for round in 0..8_u64 {
        let mut child = Command::new(env::current_exe().unwrap())
            .args(["--exact", "store::tests::killed::child_that_is_killed", "--nocapture"])
            .env(CHILD, &path)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut seen = Vec::new();
        let mut out = child.stdout.take().unwrap();
        while !seen.ends_with(b"ready\n") {
            let mut byte = [0];
            assert_eq!(out.read(&mut byte).unwrap(), 1, "child died: {}", String::from_utf8_lossy(&seen));
            seen.push(byte[0]);
        }
        std::thread::sleep(Duration::from_millis(7 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        check(&path);
    }
}

fn check(path: &std::path::Path) {
    let store = Store::open(path).unwrap();
    assert_eq!(names(&path.join("tmp")).len(), 1, "only the session of this test is left");
    for name in names(&path.join("blobs/sha256")) {
        let bytes = fs::read(path.join("blobs/sha256").join(&name)).unwrap();
        assert_eq!(Digest::of(&bytes).hex(), name);
    }
    for image in store.images().unwrap() {
        let manifest = store.read_blob(&image.descriptor.digest, 1 << 20).unwrap();
        let manifest: crate::store::oci::Manifest = serde_json::from_slice(&manifest).unwrap();
        assert!(
            store.has_blob(&manifest.layers[0].digest).unwrap() && store.has_blob(&manifest.config.digest).unwrap()
        );
    }
    for name in names(&path.join("unpacked")).iter().filter(|name| !name.ends_with(".lock")) {
        assert_eq!(names(&path.join("unpacked").join(name)), ["one", "two"], "half a layer in {name}");
    }
    for n in 0..=255 {
        store.record(&key(n)).unwrap();
        assert!(store.try_lock_step(&key(n)).unwrap().is_some(), "a dead process holds no lock");
    }
}
