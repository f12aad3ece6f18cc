//! What is remembered of builds.

use super::{key, new_store};
use crate::store::{PruneOptions, PruneScope, Store};

#[test]
fn builds_are_found_by_subject_the_newest_first() {
    let (_dir, store) = new_store();
    for (subject, secs) in [(1, 10), (2, 20), (1, 30), (1, 5)] {
        let name = store.new_build(&key(subject), (secs, 0));
        store.put_build(&name, secs.to_string().as_bytes()).unwrap();
    }
    let times = |names: Vec<String>| -> Vec<String> {
        let text = |name: &String| String::from_utf8(store.build(name).unwrap().unwrap()).unwrap();
        names.iter().map(text).collect()
    };
    assert_eq!(times(store.builds().unwrap()), ["30", "20", "10", "5"]);
    assert_eq!(times(store.builds_of(&key(1)).unwrap()), ["30", "10", "5"]);
    assert!(store.builds_of(&key(3)).unwrap().is_empty());
    assert_eq!(store.build("0-0").unwrap(), None);
    assert!(store.build("../index.json").is_err(), "no path");
}

#[test]
fn the_oldest_builds_are_forgotten() {
    let (_dir, store) = new_store();
    for secs in 0..70 {
        store.put_build(&store.new_build(&key(1), (secs, 0)), b"x").unwrap();
    }
    let names = store.builds().unwrap();
    assert_eq!(names.len(), 64);
    assert!(names.contains(&store.new_build(&key(1), (69, 0))) && !names.contains(&store.new_build(&key(1), (5, 0))));
}

#[test]
fn builds_are_cache() {
    let (_dir, store) = new_store();
    store.put_build(&store.new_build(&key(1), (1, 0)), &[0; 10_000]).unwrap();
    assert!(store.disk_usage().unwrap().builds >= 10_000);
    let prune = |store: &Store, scope| store.prune(PruneOptions { scope, keep_used_since: None }).unwrap();
    prune(&store, PruneScope::Dangling);
    assert_eq!(store.builds().unwrap().len(), 1);
    assert!(prune(&store, PruneScope::Cache).freed_bytes >= 10_000);
    assert!(store.builds().unwrap().is_empty());
    store.put_build(&store.new_build(&key(1), (1, 0)), &[0; 100_000]).unwrap();
    store.enforce_limit(1).unwrap();
    assert!(store.builds().unwrap().is_empty(), "the oldest cache goes, this too");
}
