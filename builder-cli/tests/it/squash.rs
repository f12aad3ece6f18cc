//! `--squash`: one layer that comes to the same as those of the steps.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::image::{Image, Node, sha256};
use crate::registry::server::Registry;
use crate::registry::{add_base, count};
use crate::support::Env;

/// Everything that a layer can say about those below it, and what later steps take back.
const DOCKERFILE: &str = "FROM base\n\
    COPY --chown=5:6 --chmod=4755 data /data/file\n\
    RUN rm /bin/yes && rm -r /old && mkdir /old && echo new > /old/new\n\
    RUN echo gone > /gone && mkdir -p /deep/er && echo x > /deep/er/x && rm -r /kept/sub\n\
    ENV A=b\n\
    RUN rm /gone && ln /data/file /data/name && ln -s file /data/link && mkfifo /data/fifo && rm -r /deep/er\n\
    RUN rm -r /turns && echo file > /turns && rm /turned && mkdir /turned && touch /turned/inside\n\
    RUN chmod 700 /kept && chown 7:8 /kept/file && rm /data/name && ln /data/file /data/other && : > /empty\n\
    WORKDIR /made\n";
const BASE: &str = "FROM busybox\n\
    RUN mkdir /old /kept /kept/sub /turns && echo old > /old/old && echo kept > /kept/file && touch /kept/sub/x /turns/x \
    && echo > /turned && ln /kept/file /kept/linked\n\
    RUN echo lower > /lower\n";

fn history(image: &Value) -> Vec<(String, bool)> {
    let entries = image["history"].as_array().unwrap();
    let is_empty = |entry: &Value| entry["empty_layer"] == true;
    entries.iter().map(|entry| (entry["created_by"].as_str().unwrap().to_owned(), is_empty(entry))).collect()
}

/// Asserts that two images come to the same files, with the same files under several names.
#[track_caller]
fn assert_same(left: &Image, right: &Image) {
    let shape = |image: &Image| {
        let mut first_names: BTreeMap<usize, String> = BTreeMap::new();
        let files = image.flatten().into_iter().map(|(path, node)| {
            let first = first_names.entry(node.inode).or_insert_with(|| path.clone()).clone();
            let content = sha256(&node.content);
            let node = Node { inode: 0, link_of: None, content: Vec::new(), ..node };
            format!("{path} is {first}: {node:?} {content}")
        });
        files.collect::<Vec<_>>()
    };
    assert_eq!(shape(left), shape(right));
}

#[test]
fn squashed_layers_come_to_the_same() {
    let env = Env::new();
    env.import_busybox();
    env.file("data", "data\n");
    let base = env.image(BASE, &["-t", "base"]);
    let plain = env.image(DOCKERFILE, &[]);
    assert!(plain.layers.len() > base.layers.len() + 5);
    let squashed = env.image(DOCKERFILE, &["--squash"]);
    assert_eq!(squashed.layers.len(), base.layers.len() + 1);
    assert_same(&squashed, &plain);
    assert_eq!(squashed.layers[..base.layers.len()], base.layers);
    let names: Vec<&str> = squashed.layers.last().unwrap().iter().map(|(name, _)| name.as_str()).collect();
    for name in ["gone", "deep/er", "deep/.wh.er", "lower", "data/name", "data/.wh.name", ".wh.gone"] {
        assert!(!names.contains(&name), "{name}: what was made and taken back leaves no trace: {names:?}");
    }
    for name in ["bin/.wh.yes", "old/.wh.old", "kept/.wh.sub", "kept/file"] {
        assert!(names.contains(&name), "{name}: {names:?}");
    }
    // As many entries as before; the last that had a layer has all.
    let (before, after) = (history(&plain.config), history(&squashed.config));
    assert_eq!(before.iter().map(|entry| &entry.0).collect::<Vec<_>>(), after.iter().map(|e| &e.0).collect::<Vec<_>>());
    let full: Vec<&str> = after.iter().filter(|entry| !entry.1).map(|entry| entry.0.as_str()).collect();
    assert_eq!(full.len(), base.layers.len() + 1);
    assert!(full.last().unwrap().contains("/made"), "{full:?}");
}

#[test]
fn squashing_again_gives_the_same_bytes_from_the_cache() {
    let env = Env::new();
    env.file("a", "a");
    let dockerfile = "FROM scratch\nCOPY a /a\nCOPY a /b\nCOPY Dockerfile /a\n";
    let digest = |options: &[&str]| {
        env.build(dockerfile, options).ok();
        std::fs::read_to_string(env.path("out/index.json")).unwrap()
    };
    let first = digest(&["--squash", "--build-arg", "SOURCE_DATE_EPOCH=1"]);
    assert_eq!(digest(&["--squash", "--build-arg", "SOURCE_DATE_EPOCH=1"]), first);
    let other = Env::new();
    other.file("a", "a");
    other.build(dockerfile, &["--squash", "--build-arg", "SOURCE_DATE_EPOCH=1", "--jobs", "1"]).ok();
    assert_eq!(std::fs::read_to_string(other.path("out/index.json")).unwrap(), first);
    assert_ne!(digest(&["--build-arg", "SOURCE_DATE_EPOCH=1"]), first);
    // Every form of it, and of all platforms.
    let zstd = env.image(dockerfile, &["--squash", "--compression", "zstd"]);
    assert_eq!(zstd.layers.len(), 1);
    env.run(&["build", "-q", "-t", "all", "--squash", "--platform", "linux/amd64,linux/arm64", "context"]).ok();
}

#[test]
fn what_has_nothing_to_squash_stays_as_it_is() {
    let env = Env::new();
    env.import_busybox();
    let plain = env.image("FROM busybox\nLABEL a=b\n", &[]);
    assert_eq!(env.image("FROM busybox\nLABEL a=b\n", &["--squash"]).layers, plain.layers);
    // All of it is taken back: no layer is left.
    let nothing = "FROM busybox\nWORKDIR /\nRUN echo > /x\nRUN rm /x\n";
    let squashed = env.image(nothing, &["--squash"]);
    assert_same(&squashed, &env.image(nothing, &[]));
    let run = env.build("FROM busybox\nRUN :\n", &["--squash", "--cache-to", "type=inline"]);
    assert!(run.fails(2).contains("--squash"), "{}", run.stderr);
}

#[test]
fn of_a_squashed_image_nothing_but_its_layers_is_pushed() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    registry.take_log();
    let host = registry.host();
    env.file("Dockerfile", format!("FROM {host}/base:1\nRUN echo a > /a\nRUN echo b > /b\nRUN rm /a\n"));
    let output = format!("type=registry,name={host}/app:1,annotation.k=v");
    let digest = env.run(&["build", "-q", "--squash", "--output", &output, "context"]).ok();
    let log = registry.take_lines();
    assert_eq!(count(&log, "PUT /v2/app/blobs/uploads/"), 2, "one layer and the config: {log:#?}");
    assert_eq!(registry.missing(), Vec::<String>::new());
    // From the cache it is the same image, and nothing is sent.
    assert_eq!(env.run(&["build", "-q", "--squash", "--output", &output, "context"]).ok(), digest);
    assert_eq!(count(&registry.take_lines(), "PUT /v2/app/blobs/uploads/"), 0);
    env.run(&["copy", &format!("docker://{host}/app:1"), "oci:out:1"]).ok();
    let image = Image::open(&env.path("out"), None);
    assert_eq!(image.layers.len(), 2);
    assert_eq!(image.manifest["annotations"]["k"], "v");
    assert_eq!(image.manifest["annotations"]["org.opencontainers.image.base.name"], format!("{host}/base:1"));
    assert_eq!(image.text("b"), "b\n");
}

#[test]
fn steps_of_a_squashed_image_come_from_a_shared_cache() {
    let env = Env::new();
    let registry = Registry::start();
    add_base(&registry, "base", "1");
    let host = registry.host();
    let dockerfile = format!("FROM {host}/base:1\nRUN echo a > /a\nRUN echo b > /b && rm /bin/yes\n");
    let cache = format!("type=registry,ref={host}/cache");
    let digest = |env: &Env, options: &[&str]| {
        let run = env.build(&dockerfile, &[&["--squash", "--build-arg", "SOURCE_DATE_EPOCH=5"], options].concat());
        run.ok();
        (run.steps(), std::fs::read_to_string(env.path("out/index.json")).unwrap())
    };
    let (_, first) = digest(&env, &["--cache-to", &cache]);
    let other = Env::new();
    let (steps, second) = digest(&other, &["--cache-from", &cache]);
    assert!(steps.len() == 2 && steps.iter().all(|step| step.starts_with("CACHED")), "{steps:?}");
    assert_eq!(second, first);
}
