//! What stands beside an image: annotations in all their places, names, and what `--metadata-file` says of them.

use std::fs;

use serde_json::{Value, json};

use crate::support::Env;

const TWO: [&str; 2] = ["--platform", "linux/amd64,linux/arm64"];

fn json_of(env: &Env, path: &str) -> Value {
    serde_json::from_slice(&fs::read(env.path(path)).unwrap()).unwrap()
}

fn blob(env: &Env, layout: &str, descriptor: &Value) -> Value {
    json_of(
        env,
        &format!("{layout}/blobs/sha256/{}", descriptor["digest"].as_str().unwrap().trim_start_matches("sha256:")),
    )
}

/// Builds into the layout `dest`; returns the entry of its table and what that names.
#[track_caller]
fn build(env: &Env, dest: &str, fields: &str, options: &[&str]) -> (Value, Value) {
    let output = format!("type=oci,tar=false,dest={dest}{fields}");
    env.run(&[&["build", "-q", "--output", &output, "--metadata-file", "meta"], options, &["context"]].concat()).ok();
    let entry = json_of(env, &format!("{dest}/index.json"))["manifests"][0].clone();
    let document = blob(env, dest, &entry);
    (entry, document)
}

#[test]
fn annotations_stand_where_they_belong() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let (entry, manifest) = build(
        &env,
        "one",
        ",annotation.own=1,annotation.both=output,annotation-manifest-descriptor.d=2",
        &["--annotation", "all=3", "--annotation", "both=request", "--annotation", "manifest:q=a,b=c"],
    );
    assert_eq!(manifest["annotations"], json!({"all": "3", "both": "output", "own": "1", "q": "a,b=c"}));
    assert_eq!(entry["annotations"], json!({"d": "2"}));
    let meta = json_of(&env, "meta");
    assert_eq!(meta["containerimage.descriptor"]["annotations"], json!({"d": "2"}));
    assert_eq!(meta["containerimage.digest"], entry["digest"]);
    // Without them it is another image, without any it has no such key.
    let (_, plain) = build(&env, "plain", "", &[]);
    assert!(plain.get("annotations").is_none(), "{plain}");
    assert_eq!(plain["config"], manifest["config"]);
}

#[test]
fn an_index_has_annotations_of_its_own() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let fields = ",annotation-index.i=1,annotation-index-descriptor.id=2,annotation-manifest[linux/arm64].arm=3,\
        annotation[linux/amd64].amd=4,annotation-manifest-descriptor[linux/arm64].ad=5";
    let options = [&TWO[..], &["--annotation", "index,manifest:both=6"]].concat();
    let (entry, index) = build(&env, "two", fields, &options);
    assert_eq!(index["annotations"], json!({"i": "1", "both": "6"}));
    assert_eq!(entry["annotations"], json!({"id": "2"}));
    let [amd, arm] = [0, 1].map(|number| &index["manifests"][number]);
    assert_eq!((&amd["platform"]["architecture"], amd.get("annotations")), (&json!("amd64"), None));
    assert_eq!(arm["annotations"], json!({"ad": "5"}));
    assert_eq!(blob(&env, "two", amd)["annotations"], json!({"amd": "4", "both": "6"}));
    assert_eq!(blob(&env, "two", arm)["annotations"], json!({"arm": "3", "both": "6"}));
}

#[test]
fn annotations_that_nothing_can_have_are_errors() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    for (options, part) in [
        (vec!["--annotation", "index:k=v"], "an image of one platform has none"),
        (vec!["--annotation", "config:k=v"], "no place"),
        (vec!["--annotation", "manifest[linux/s390x]:k=v"], "which is not built"),
        (vec!["--annotation", "manifest[x]:k=v"], "platform"),
        (
            vec!["--annotation", "index[linux/amd64]:k=v", "--platform", "linux/amd64,linux/arm64"],
            "all of its platforms",
        ),
        (vec!["--annotation", "k=v", "--output", "type=oci,dest=x,oci-mediatypes=false"], "Docker's media types"),
        (vec!["--output", "type=oci,dest=x,annotation.k=v,oci-mediatypes=false"], "Docker's media types"),
        (vec!["--output", "type=oci,dest=x,rewrite-timestamp=true"], "SOURCE_DATE_EPOCH"),
        (
            vec!["--output", "type=oci,dest=x,rewrite-timestamp=false", "--build-arg", "SOURCE_DATE_EPOCH=1"],
            "SOURCE_DATE_EPOCH",
        ),
    ] {
        let run = env.run(&[&["build"], &options[..], &["context"]].concat());
        assert!(run.fails(2).contains(part), "{options:?}: {}", run.stderr);
    }
    assert!(!env.path("x").exists());
    let rewritten = ["--output", "type=oci,dest=x,rewrite-timestamp=true", "--build-arg", "SOURCE_DATE_EPOCH=1"];
    env.run(&[&["build"], &rewritten[..], &["context"]].concat()).ok();
}

#[test]
fn the_base_stands_in_the_manifest() {
    let env = Env::new();
    env.import_busybox();
    let images = env.run(&["images", "--json"]).ok();
    let base: Value = serde_json::from_str(&images).unwrap();
    env.file("Dockerfile", "FROM busybox AS one\nFROM one\nCOPY Dockerfile /\n");
    let (_, manifest) = build(&env, "out", "", &[]);
    let (name, digest) = ("org.opencontainers.image.base.name", "org.opencontainers.image.base.digest");
    assert_eq!(manifest["annotations"], json!({name: "docker.io/library/busybox:latest", digest: base["digest"]}));
    // The caller knows better; Docker's manifest has no place for it.
    let (_, mine) = build(&env, "mine", "", &["--annotation", &format!("{name}=mine")]);
    assert_eq!(mine["annotations"][name], "mine");
    let (_, docker) = build(&env, "docker", ",oci-mediatypes=false", &[]);
    assert!(docker.get("annotations").is_none(), "{docker}");
    // A layout has no name that means anything elsewhere.
    env.run(&["copy", "store:busybox", "oci:layout:1"]).ok();
    let context = ["--build-context", "busybox=oci-layout://layout:1"];
    let (_, from_layout) = build(&env, "from-layout", "", &context);
    assert_eq!(from_layout["annotations"], json!({digest: base["digest"]}));
}

#[test]
fn the_metadata_file_has_the_names_of_all_outputs() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let (entry, _) =
        build(&env, "out", ",name=mine:2", &["-t", "app", "--output", "type=docker,dest=d.tar,name=other"]);
    assert_eq!(entry["annotations"]["io.containerd.image.name"], "docker.io/library/mine:2");
    assert_eq!(entry["annotations"]["org.opencontainers.image.ref.name"], "2");
    let names = "docker.io/library/app:latest,docker.io/library/mine:2,docker.io/library/other:latest";
    let meta = json_of(&env, "meta");
    assert_eq!(meta["image.name"], names);
    assert_eq!(meta["containerimage.config.digest"], blob(&env, "out", &entry)["config"]["digest"]);
    assert_eq!(meta["containerimage.descriptor"]["size"], entry["size"]);
    assert_eq!(meta["containerimage.descriptor"]["mediaType"], entry["mediaType"]);
    // Names of an archive are not names in the store.
    assert_eq!(env.run(&["images", "-q"]).ok().lines().count(), 1);
    let (index, _) = build(&env, "two", "", &TWO);
    let meta = json_of(&env, "meta");
    assert!(meta.get("containerimage.config.digest").is_none() && meta["containerimage.digest"] == index["digest"]);
}
