//! Disk usage and garbage collection.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, SystemTime};

use super::{cache_dir, key, names, new_store, other, put_image, put_layer, record_of};
use crate::digest::Digest;
use crate::store::{PruneOptions, PruneScope, Store, Unpacking};

fn prune(store: &Store, scope: PruneScope) -> crate::store::gc::PruneReport {
    store.prune(PruneOptions { scope, keep_used_since: None }).unwrap()
}

/// Closes the store and opens it again, so that nothing is in use any more.
fn reopen(store: Store) -> Store {
    let path = store.path().to_owned();
    drop(store);
    Store::open(&path).unwrap()
}

fn unpack(store: &Store, key: &str, bytes: usize) {
    let Unpacking::Mine(dir) = store.begin_unpack(key).unwrap() else { panic!("{key} is there") };
    fs::create_dir(dir.path().join("dir")).unwrap();
    fs::write(dir.path().join("dir/file"), vec![1; bytes]).unwrap();
    fs::hard_link(dir.path().join("dir/file"), dir.path().join("same")).unwrap();
    dir.commit().unwrap();
}

fn du(store: &Store) -> u64 {
    let out = Command::new("du").args(["-s", "-B1"]).arg(store.path()).output().unwrap();
    String::from_utf8(out.stdout).unwrap().split_whitespace().next().unwrap().parse().unwrap()
}

#[test]
fn disk_usage_is_what_du_says() {
    let (_dir, store) = new_store();
    let layer = put_layer(&store, &vec![7; 100_000]);
    store.put_record(&key(1), &record_of(vec![layer.clone()])).unwrap();
    store.tag_image("a:1", &put_image(&store, &[layer])).unwrap();
    unpack(&store, "u", 50_000);
    let mount = cache_dir(&store);
    let sparse = fs::File::create(mount.join("sparse")).unwrap();
    sparse.write_all_at(b"end", 50 << 20).unwrap();
    fs::write(store.stat_cache_path("c").unwrap(), vec![0; 9000]).unwrap();
    let work = store.work_dir().unwrap();
    fs::write(work.path().join("file"), vec![0; 3000]).unwrap();

    // The file system may change its mind about blocks while it writes back: before or after must agree.
    let before = du(&store);
    let usage = store.disk_usage().unwrap();
    let after = du(&store);
    assert!(usage.total() == before || usage.total() == after, "{} is neither {before} nor {after}", usage.total());
    assert_eq!(usage.unreadable, 0);
    assert!(usage.blobs >= 100_000 && usage.unpacked >= 50_000 && usage.unpacked < 100_000, "{usage:?}");
    assert!(usage.mounts < 1 << 20 && usage.stat_cache >= 9000 && usage.tmp >= 3000, "{usage:?}");
}

#[test]
fn pruning_keeps_what_images_and_records_reach() {
    let (_dir, store) = new_store();
    let layers: Vec<_> = [&b"image"[..], b"record", b"nothing"].map(|bytes| put_layer(&store, bytes)).into();
    let image = put_image(&store, &layers[..1]);
    store.tag_image("a:1", &image).unwrap();
    store.put_record(&key(1), &record_of(vec![layers[1].clone()])).unwrap();
    for layer in &layers {
        unpack(&store, &layer.diff_id.0.hex(), 10);
        unpack(&store, &format!("{}-chain", layer.diff_id.0.hex()), 10);
    }
    let store = reopen(store);
    let before = store.disk_usage().unwrap().total();
    let report = prune(&store, PruneScope::Dangling);
    assert_eq!((report.blobs, report.trees, report.unpacked, report.records), (1, 1, 2, 0));
    assert_eq!(before - store.disk_usage().unwrap().total(), report.freed_bytes);
    assert!(!store.has_blob(&layers[2].digest).unwrap());
    assert!(store.tree(&layers[0].diff_id).unwrap().is_some());

    let store = reopen(store);
    let report = prune(&store, PruneScope::Cache);
    assert_eq!((report.blobs, report.trees, report.unpacked, report.records), (1, 1, 4, 1));
    assert!(names(&store.path().join("unpacked")).is_empty(), "lock files go with their layers");
    assert!(store.untag_image("a:1").unwrap());
    let report = prune(&store, PruneScope::Dangling);
    assert_eq!((report.blobs, report.trees), (3, 1), "manifest, config and layer");
    assert!(names(&store.path().join("blobs/sha256")).is_empty());
}

#[test]
fn cache_mounts_go_only_when_all_is_said() {
    let (_dir, store) = new_store();
    cache_dir(&store);
    fs::write(store.stat_cache_path("c").unwrap(), "").unwrap();
    let store = reopen(store);
    prune(&store, PruneScope::Cache);
    assert_eq!(names(&store.path().join("mounts")), ["m", "m.lock"]);
    assert!(names(&store.path().join("stat-cache")).is_empty());
    assert_eq!(prune(&store, PruneScope::All).mounts, 1);
    assert!(names(&store.path().join("mounts")).is_empty());
}

#[test]
fn what_another_session_uses_survives_everything() {
    let (_dir, store) = new_store();
    let image = put_image(&store, &[put_layer(&store, b"base")]);
    store.tag_image("base:1", &image).unwrap();
    store.put_record(&key(1), &record_of(vec![put_layer(&store, b"step")])).unwrap();
    unpack(&store, "u", 10);
    cache_dir(&store);
    let user = reopen(store);
    // The running build: resolved a base, had a cache hit, wrote a blob that nothing names yet.
    let base = user.resolve_image("base:1").unwrap().unwrap();
    let record = user.record(&key(1)).unwrap().unwrap();
    let fresh = user.put_blob(b"fresh").unwrap();
    user.unpacked("u").unwrap().unwrap();
    cache_dir(&user);

    let pruner = other(&user);
    pruner.untag_image("base:1").unwrap();
    prune(&pruner, PruneScope::All);
    pruner.enforce_limit(0).unwrap();
    let manifest = user.read_blob(&base.digest, 1 << 20).unwrap();
    let manifest: crate::store::oci::Manifest = serde_json::from_slice(&manifest).unwrap();
    for digest in [fresh, record.layers[0].digest, manifest.layers[0].digest, manifest.config.digest] {
        assert!(user.open_blob(&digest).is_ok(), "{digest}");
    }
    assert!(user.record(&key(1)).unwrap().is_some());
    assert!(user.tree(&record.layers[0].diff_id).unwrap().is_some());
    assert!(user.unpacked("u").unwrap().is_some());

    user.release().unwrap();
    prune(&pruner, PruneScope::All);
    assert!(names(&user.path().join("blobs/sha256")).is_empty());
    assert!(names(&user.path().join("mounts")).is_empty() && names(&user.path().join("records")).is_empty());
}

#[test]
fn recent_cache_can_be_kept() {
    let (_dir, store) = new_store();
    for n in [1, 2] {
        store.put_record(&key(n), &record_of(vec![put_layer(&store, &[n])])).unwrap();
    }
    let old = SystemTime::now() - Duration::from_secs(1_000_000);
    fs::File::options()
        .write(true)
        .open(store.path().join("records").join(key(1).to_string()))
        .and_then(|file| file.set_modified(old))
        .unwrap();
    let store = reopen(store);
    let since = Some(SystemTime::now() - Duration::from_secs(1000));
    let report = store.prune(PruneOptions { scope: PruneScope::Cache, keep_used_since: since }).unwrap();
    assert_eq!((report.records, report.blobs), (1, 1));
    assert!(store.record(&key(2)).unwrap().is_some());
}

#[test]
fn a_limit_takes_the_least_recently_used_and_chains_from_their_end() {
    let (_dir, store) = new_store();
    let bytes = |n: u8| vec![n; 200_000];
    // An old build, then a newer one that uses the first step of the old one again.
    for n in [1, 2, 3] {
        store.put_record(&key(n), &record_of(vec![put_layer(&store, &bytes(n))])).unwrap();
    }
    let store = reopen(store);
    assert!(store.record(&key(1)).unwrap().is_some());
    let layer = put_layer(&store, &bytes(4));
    store.put_record(&key(4), &record_of(vec![layer.clone()])).unwrap();
    store.put_blob(&bytes(99)).unwrap();
    let layer = layer.diff_id.0.hex();
    unpack(&store, &layer, 200_000);
    let left = |store: &Store| -> BTreeSet<u8> {
        let stored = |n: &u8| store.path().join("records").join(key(*n).to_string()).exists();
        (1..=4).filter(stored).collect()
    };
    // Each round frees the next victim: dangling blob, unpacked layer, end of the old chain, and so on.
    let expected: [(&[u8], bool); 5] =
        [(&[1, 2, 3, 4], true), (&[1, 2, 3, 4], false), (&[1, 2, 4], false), (&[1, 4], false), (&[1], false)];
    let mut store = reopen(store);
    for (records, unpacked) in expected {
        let before = store.disk_usage().unwrap().total();
        let report = store.enforce_limit(before - 100_000).unwrap();
        assert!(report.freed_bytes >= 200_000, "{report:?}");
        assert_eq!(left(&store), records.iter().copied().collect());
        assert_eq!(store.path().join("unpacked").join(&layer).exists(), unpacked);
        assert_eq!(before - store.disk_usage().unwrap().total(), report.freed_bytes);
        store = reopen(store);
    }
    let total = store.disk_usage().unwrap().total();
    assert_eq!(store.enforce_limit(total).unwrap(), crate::store::gc::PruneReport::default());
}

#[test]
fn a_limit_never_takes_images() {
    let (_dir, store) = new_store();
    let layer = put_layer(&store, &vec![1; 100_000]);
    store.tag_image("a:1", &put_image(&store, std::slice::from_ref(&layer))).unwrap();
    store.put_record(&key(1), &record_of(vec![layer.clone()])).unwrap();
    let store = reopen(store);
    assert_eq!(store.enforce_limit(1).unwrap().records, 1);
    assert!(store.has_blob(&layer.digest).unwrap());
}

#[test]
fn gc_beside_builds_takes_nothing_from_under_them() {
    let (_dir, store) = new_store();
    let stop = AtomicBool::new(false);
    thread::scope(|scope| {
        let builders: Vec<_> = (0..3)
            .map(|_| {
                let path = store.path();
                scope.spawn(move || {
                    for round in 0..30_u8 {
                        // Every round is a build that finds or makes the same five steps.
                        let store = Store::open(path).unwrap();
                        for n in 0..5 {
                            let layer = match store.record(&key(n)).unwrap() {
                                Some(record) => record.layers[0].clone(),
                                None => {
                                    let layer = put_layer(&store, &vec![n; 5000]);
                                    store.put_record(&key(n), &record_of(vec![layer.clone()])).unwrap();
                                    layer
                                }
                            };
                            let blob = store.read_blob(&layer.digest, 1 << 20).unwrap();
                            assert_eq!(blob, vec![n; 5000], "round {round}");
                        }
                        let scratch = store.put_blob(b"scratch").unwrap();
                        assert!(store.read_blob(&scratch, 100).is_ok());
                    }
                })
            })
            .collect();
        scope.spawn(|| {
            let store = other(&store);
            while !stop.load(Ordering::SeqCst) {
                prune(&store, PruneScope::All);
            }
        });
        let results: Vec<_> = builders.into_iter().map(thread::ScopedJoinHandle::join).collect();
        stop.store(true, Ordering::SeqCst);
        assert!(results.iter().all(Result::is_ok), "a builder lost something");
    });
    prune(&store, PruneScope::All);
    assert!(names(&store.path().join("blobs/sha256")).is_empty());
    assert!(!store.has_blob(&Digest::of(b"scratch")).unwrap());
}

#[test]
fn hostile_documents_reach_nothing_and_break_nothing() {
    let (_dir, store) = new_store();
    let nested = "[".repeat(100_000);
    let documents = ["", "null", "[]", "{}", "{\"manifests\":null,\"layers\":null}", "{\"config\":7}", &nested];
    for (n, bytes) in documents.into_iter().enumerate() {
        let digest = store.put_blob(bytes.as_bytes()).unwrap();
        let descriptor = crate::store::Descriptor::new("application/json", digest, bytes.len() as u64);
        store.tag_image(&format!("bad:{n}"), &descriptor).unwrap();
    }
    let store = reopen(store);
    let report = prune(&store, PruneScope::All);
    assert_eq!(report.blobs, 0, "named blobs stay whatever they are");
}
