//! After another boot.

use std::fs;

use super::{names, new_store, other};
use crate::store::{Store, Unpacking};

#[test]
fn damaged_blobs_that_were_never_flushed_go_after_another_boot() {
    let (_dir, store) = new_store();
    let durable = store.put_blob(b"durable").unwrap();
    store.sync().unwrap();
    let (whole, empty, zeros) = (store.put_blob(b"whole"), store.put_blob(b"short"), store.put_blob(b"zeros"));
    let (whole, empty, zeros) = (whole.unwrap(), empty.unwrap(), zeros.unwrap());
    fs::write(store.blob_path(&empty), b"").unwrap();
    fs::write(store.blob_path(&zeros), b"\0\0\0\0\0").unwrap();
    fs::write(store.path().join("blobs/sha256/not-a-digest"), b"").unwrap();
    let in_use = store.path().to_owned();

    Store::open(&in_use).unwrap().recover_as(Some("next boot")).unwrap();
    assert!(store.blob_path(&empty).exists(), "what a live session uses is of this boot");
    drop(store);

    let store = Store::open(&in_use).unwrap();
    store.recover_as(Some("boot after")).unwrap();
    let mut left = [durable.hex(), whole.hex()];
    left.sort();
    assert_eq!(names(&store.path().join("blobs/sha256")), left);
    fs::write(store.path().join("locks/boot"), "boot after").unwrap();
    store.recover_as(Some("boot after")).unwrap();
}

#[test]
fn unpacked_layers_of_another_boot_go() {
    let (_dir, store) = new_store();
    for key in ["old", "used"] {
        let Unpacking::Mine(dir) = store.begin_unpack(key).unwrap() else { panic!("{key} is new") };
        dir.commit().unwrap();
    }
    let path = store.path().to_owned();
    drop(store);
    let user = Store::open(&path).unwrap();
    assert!(user.unpacked("used").unwrap().is_some());
    let store = other(&user);
    assert!(store.path().join("unpacked/old").exists(), "the same boot trusts it");
    store.recover_as(Some("next boot")).unwrap();
    assert_eq!(names(&store.path().join("unpacked")), ["used", "used.lock"]);
    store.recover_as(None).unwrap();
    assert!(store.path().join("unpacked/used").exists(), "without a boot id too, what is in use stays");
}
