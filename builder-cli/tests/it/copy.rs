//! `builder copy` from registry to registry: layers go through without staying, each at most once, and nothing wrong
//! arrives.

use std::fs;

use serde_json::{Value, json};

use crate::registry::server::{Fault, OCI, Registry, sha256};
use crate::registry::{count, gzip};
use crate::support::{Env, Random};

/// Large enough to be sent as a stream.
const LARGE: usize = 3 << 20;

/// Puts an image of a small and a large layer into the registry; returns the layers.
fn add_image(registry: &Registry) -> [Vec<u8>; 2] {
    let mut random = Random(7);
    let noise: Vec<u8> = (0..LARGE).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    // Their diff IDs are those of no tar: a copy does not look into layers.
    let layers = [gzip(b"small"), noise];
    let config: Value = json!({"architecture": "amd64", "os": "linux",
        "rootfs": {"type": "layers", "diff_ids": [sha256(b"small"), sha256(b"large")]}});
    registry.add_image("app", "1", &OCI, config.to_string().as_bytes(), &[&layers[0], &layers[1]]);
    registry.take_log();
    layers
}

fn places(from: &Registry, to: &Registry) -> [String; 2] {
    [format!("docker://{}/app:1", from.host()), format!("docker://{}/copy:2", to.host())]
}

/// Whether the store has a blob.
fn is_stored(env: &Env, bytes: &[u8]) -> bool {
    env.state().join("blobs/sha256").join(sha256(bytes).trim_start_matches("sha256:")).exists()
}

#[test]
fn layers_go_through_and_only_where_they_are_missing() {
    let env = Env::new();
    let (from, to) = (Registry::start(), Registry::start());
    let layers = add_image(&from);
    let [source, dest] = places(&from, &to);
    let digest = env.run(&["copy", &source, &dest]).ok();
    let log = from.take_lines();
    assert_eq!(count(&log, "GET /v2/app/blobs/"), 3, "two layers and the config, each once: {log:#?}");
    let log = to.take_log();
    for layer in &layers {
        assert!(log.iter().any(|request| request.body == *layer), "every byte arrives");
        assert!(!is_stored(&env, layer), "and none stays here");
    }
    assert_eq!(to.missing(), Vec::<String>::new());
    // Another machine finds that the other registry has all layers: it fetches none.
    let other = Env::new();
    assert_eq!(other.run(&["copy", &source, &dest]).ok(), digest);
    let log = from.take_lines();
    assert_eq!(count(&log, "GET /v2/app/blobs/"), 1, "the config: {log:#?}");
    assert_eq!(count(&to.take_lines(), "PUT /v2/copy/blobs/"), 0);
    // What is here is not fetched again.
    other.run(&["copy", &source, "oci:layout:1"]).ok();
    from.take_log();
    let third = Registry::start();
    let [_, dest] = places(&from, &third);
    assert_eq!(other.run(&["copy", &source, &dest]).ok(), digest);
    assert_eq!(count(&from.take_lines(), "GET /v2/app/blobs/"), 0);
}

#[test]
fn an_upload_that_breaks_is_finished_from_here() {
    let env = Env::new();
    let (from, to) = (Registry::start(), Registry::start());
    let layers = add_image(&from);
    to.plan("PATCH /v2/copy/", 2, Fault::ResetUpload(1_000_000));
    let [source, dest] = places(&from, &to);
    env.run(&["copy", &source, &dest, "--retry-delay", "0s"]).ok();
    assert_eq!(to.missing(), Vec::<String>::new());
    let log = from.take_lines();
    let gets = count(&log, &format!("GET /v2/app/blobs/{}", sha256(&layers[1])));
    assert_eq!(gets, 2, "once as a stream, once to keep it until it is sent: {log:#?}");
    assert!(is_stored(&env, &layers[1]) && !is_stored(&env, &layers[0]));
}

#[test]
fn a_source_that_breaks_is_asked_for_the_rest() {
    let env = Env::new();
    let (from, to) = (Registry::start(), Registry::start());
    let layers = add_image(&from);
    from.plan(&format!("GET /v2/app/blobs/{}", sha256(&layers[1])), 1, Fault::Reset(2_000_000));
    let [source, dest] = places(&from, &to);
    env.run(&["copy", &source, &dest, "--retry-delay", "0s"]).ok();
    assert_eq!(to.missing(), Vec::<String>::new());
    let log = from.take_log();
    assert!(log.iter().any(|request| request.range.is_some()), "goes on where it broke off");
    assert!(!is_stored(&env, &layers[1]));
}

#[test]
fn wrong_bytes_never_arrive() {
    for number in [0, 1] {
        let env = Env::new();
        let (from, to) = (Registry::start(), Registry::start());
        let layers = add_image(&from);
        let digest = sha256(&layers[number]);
        from.plan(&format!("GET /v2/app/blobs/{digest}"), 99, Fault::OtherBytes);
        let [source, dest] = places(&from, &to);
        let run = env.run(&["copy", &source, &dest, "--retry", "1", "--retry-delay", "0s"]);
        assert!(run.fails(75).contains(&digest), "{}", run.stderr);
        let log = to.take_lines();
        assert_eq!(count(&log, &format!("digest={}", digest.replace(':', "%3A"))), 0, "never closed: {log:#?}");
        assert_eq!(count(&log, "/manifests/"), 0, "{log:#?}");
        let blobs = fs::read_dir(env.state().join("blobs/sha256")).unwrap();
        assert!(blobs.flatten().all(|blob| blob.metadata().unwrap().len() < 100_000), "nothing wrong is kept");
    }
}
