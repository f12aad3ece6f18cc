//! Many handles on one directory at once.

use std::ops::ControlFlow;
use std::sync::Barrier;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::{fs, thread};

use tempfile::TempDir;

use super::{cache_dir, key, names, new_store, other, put_image, put_layer};
use crate::store::{CacheDir, Store, Unpacking};

#[test]
fn many_may_open_a_new_directory_at_once() {
    for _ in 0..20 {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("state");
        let barrier = Barrier::new(8);
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    barrier.wait();
                    assert!(Store::open(&path).unwrap().images().unwrap().is_empty());
                });
            }
        });
        assert!(names(&path.join("tmp")).is_empty(), "every session removed its directory");
    }
}

#[test]
fn no_tag_is_lost_between_writers() {
    let (_dir, store) = new_store();
    thread::scope(|scope| {
        for writer in 0..8 {
            let store = other(&store);
            scope.spawn(move || {
                for n in 0..10 {
                    let layer = put_layer(&store, format!("{writer} {n}").as_bytes());
                    let image = put_image(&store, &[layer]);
                    store.tag_image(&format!("w{writer}:{n}"), &image).unwrap();
                    store.tag_image("shared:latest", &image).unwrap();
                    if n % 2 == 1 {
                        assert!(store.untag_image(&format!("w{writer}:{}", n - 1)).unwrap());
                    }
                }
            });
        }
    });
    let images = store.images().unwrap();
    assert_eq!(images.len(), 8 * 5 + 1);
    for image in images {
        assert!(store.has_blob(&image.descriptor.digest).unwrap());
    }
}

#[test]
fn a_step_is_worked_on_once_at_a_time() {
    let (_dir, store) = new_store();
    let first = store.try_lock_step(&key(1)).unwrap().expect("nobody has it");
    let second = other(&store);
    assert!(second.try_lock_step(&key(1)).unwrap().is_none());
    assert!(second.try_lock_step(&key(2)).unwrap().is_some(), "another step is free");
    let mut waits = 0;
    let gave_up = second.lock_step(&key(1), &mut || {
        waits += 1;
        if waits < 3 { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    });
    assert!(gave_up.unwrap().is_none());
    assert_eq!(waits, 3);
    let mut first = Some(first);
    let got = second.lock_step(&key(1), &mut || {
        first = None;
        ControlFlow::Continue(())
    });
    assert!(got.unwrap().is_some());
    assert_eq!(names(&store.path().join("locks")), ["boot", "gc", "index"], "step locks leave no file");
}

#[test]
fn a_lock_that_its_owner_unlinks_excludes_all_the_same() {
    let (_dir, store) = new_store();
    let (inside, rounds) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..8 {
            let store = other(&store);
            let (inside, rounds) = (&inside, &rounds);
            scope.spawn(move || {
                while rounds.load(Ordering::SeqCst) < 400 {
                    let Some(_lock) = store.try_lock_step(&key(1)).unwrap() else { continue };
                    assert_eq!(inside.fetch_add(1, Ordering::SeqCst), 0, "two held the lock");
                    thread::yield_now();
                    inside.fetch_sub(1, Ordering::SeqCst);
                    rounds.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
    });
}

#[test]
fn a_layer_is_unpacked_once() {
    let (_dir, store) = new_store();
    let key = "a".repeat(64);
    let unpacked = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..6 {
            let store = other(&store);
            let (key, unpacked) = (&key, &unpacked);
            scope.spawn(move || {
                let path = match store.begin_unpack(key).unwrap() {
                    Unpacking::Ready(path) => path,
                    Unpacking::Mine(dir) => {
                        unpacked.fetch_add(1, Ordering::SeqCst);
                        fs::write(dir.path().join("file"), "text").unwrap();
                        dir.commit().unwrap()
                    }
                };
                assert_eq!(fs::read_to_string(path.join("file")).unwrap(), "text");
            });
        }
    });
    assert_eq!(unpacked.load(Ordering::SeqCst), 1);
    assert!(store.unpacked(&key).unwrap().is_some());
}

#[test]
fn an_unpacking_that_fails_is_left_to_the_next() {
    let (_dir, store) = new_store();
    let Unpacking::Mine(dir) = store.begin_unpack("a").unwrap() else { panic!("nobody unpacked it") };
    fs::write(dir.path().join("half"), "").unwrap();
    let path = dir.path().to_owned();
    drop(dir);
    assert!(!path.exists());
    assert!(store.unpacked("a").unwrap().is_none());
    assert!(matches!(other(&store).begin_unpack("a").unwrap(), Unpacking::Mine(_)));
}

#[test]
fn an_upper_directory_is_adopted_unless_the_layer_is_there() {
    let (_dir, store) = new_store();
    let upper = |name: &str| {
        let work = store.work_dir().unwrap();
        let upper = work.path().join("upper");
        fs::create_dir(&upper).unwrap();
        fs::write(upper.join(name), "").unwrap();
        (work, upper)
    };
    let (first_work, first) = upper("first");
    store.adopt_unpacked("a", &first).unwrap();
    assert!(!first.exists());
    let (_second_work, second) = upper("second");
    store.adopt_unpacked("a", &second).unwrap();
    assert!(second.exists(), "the one that came later stays where it is");
    drop(first_work);
    assert_eq!(names(&store.unpacked("a").unwrap().unwrap()), ["first"]);
    assert!(matches!(store.begin_unpack("a").unwrap(), Unpacking::Ready(_)));
}

#[test]
fn a_cache_mount_is_whole_or_not_there() {
    let (_dir, store) = new_store();
    let new = |store: &Store| match store.cache_mount("m").unwrap() {
        CacheDir::New(new) => new,
        CacheDir::Ready(path) => panic!("{path:?} is there"),
    };
    let (first, second) = (new(&store), new(&store));
    fs::write(first.path().join("half"), "").unwrap();
    drop(first);
    assert!(names(&store.path().join("mounts")).iter().all(|name| name == "m.lock"), "nothing was committed");
    let third = new(&store);
    fs::write(second.path().join("seed"), "").unwrap();
    let path = second.commit().unwrap();
    assert_eq!(third.commit().unwrap(), path, "the first that is done counts");
    assert_eq!(names(&path), ["seed"]);
}

#[test]
fn cache_mounts_are_made_once_and_can_be_locked() {
    let (_dir, store) = new_store();
    let path = cache_dir(&store);
    fs::write(path.join("kept"), "").unwrap();
    assert_eq!(cache_dir(&other(&store)), path);
    let lock = store.lock_cache_mount("m", &mut || ControlFlow::Break(())).unwrap();
    assert!(lock.is_some());
    assert!(other(&store).lock_cache_mount("m", &mut || ControlFlow::Break(())).unwrap().is_none());
    drop(lock);
    assert!(other(&store).lock_cache_mount("m", &mut || ControlFlow::Break(())).unwrap().is_some());
    assert_eq!(names(&path), ["kept"]);
}
