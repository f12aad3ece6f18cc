//! Artifacts in indexes, and what is about something else: subjects, and the lists of referrers.

use std::process::Command;

use serde_json::{Value, json};

use crate::registry::{Distribution, count, server};
use crate::support::{Env, Run, have};
use server::{OCI, Registry, sha256};

fn parse(text: impl AsRef<[u8]>) -> Value {
    serde_json::from_slice(text.as_ref()).unwrap()
}

fn index(env: &Env, name: &str) -> Value {
    parse(env.run(&["manifest", "inspect", name]).ok())
}

/// Builds an image called `app`, and makes the index `all` of it. Returns the digest of the image.
fn index_of_one(env: &Env) -> String {
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\n");
    let digest = env.run(&["build", "-q", "-t", "app", "context"]).ok();
    env.run(&["manifest", "create", "all", "app"]).ok();
    digest
}

/// The manifest that is pushed last before the index.
fn pushed(registry: &Registry, repository: &str, entry: &Value) -> Value {
    parse(registry.manifest(repository, entry["digest"].as_str().unwrap()).unwrap())
}

#[test]
fn files_become_an_artifact_beside_the_images() {
    const TEST: &str = "files_become_an_artifact_beside_the_images";
    let env = Env::new();
    let image = index_of_one(&env);
    env.file("sbom.json", "{}\n");
    env.file("NOTICE", "words\n");
    let files = ["context/sbom.json", "context/NOTICE"];
    let kind = "application/vnd.example.sbom.v1";
    let about = ["--artifact-subject", &image, "--artifact-annotation", "a=b", "--annotation", "entry=yes"];
    let add = [&["manifest", "add", "--artifact", "--artifact-type", kind, "all"], &files[..], &about[..]].concat();
    env.run(&add).ok();
    let shown = index(&env, "all");
    let entry = shown["manifests"][1].clone();
    assert_eq!(shown["mediaType"], OCI.index);
    assert_eq!((&entry["artifactType"], &entry["annotations"]), (&json!(kind), &json!({"entry": "yes"})), "{entry:#}");
    assert_eq!(entry.get("platform"), None);

    let registry = Registry::start();
    let dest = format!("{}/app:1", registry.host());
    let digest = env.run(&["manifest", "push", "--digestfile", "digest", "all", &dest]).ok();
    assert_eq!(std::fs::read_to_string(env.path("digest")).unwrap(), digest);
    let title = |name: &str| json!({"org.opencontainers.image.title": name});
    let layer = |content: &str, kind: &str, name: &str| json!({"mediaType": kind, "digest": sha256(content.as_bytes()), "size": content.len(), "annotations": title(name)});
    let size = shown["manifests"][0]["size"].clone();
    let want = json!({"schemaVersion": 2, "mediaType": OCI.manifest, "artifactType": kind,
        "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": sha256(b"{}"), "size": 2, "data": "e30="},
        "layers": [layer("{}\n", "application/json", "sbom.json"), layer("words\n", "application/octet-stream", "NOTICE")],
        "subject": {"mediaType": OCI.manifest, "digest": image, "size": size},
        "annotations": {"a": "b"}});
    assert_eq!(pushed(&registry, "app", &entry), want);
    assert_eq!(registry.missing(), Vec::<String>::new());

    // An image is chosen by its platform as if there were no artifact; lists and copies take both.
    let remote = format!("docker://{dest}");
    let chosen = env.run(&["copy", &remote, "store:one", "--platform", std::env::consts::ARCH, "--state-dir", "other"]);
    assert_eq!(chosen.ok(), image);
    assert_eq!(env.run(&["copy", &remote, "oci:layout:x", "--state-dir", "other"]).ok(), digest);
    assert!(env.run(&["images"]).ok().contains("all:latest"));
    assert_eq!(env.run(&["copy", "oci:layout:x", "store:again", "--state-dir", "other"]).ok(), digest);
    assert_eq!(index(&env, "all"), parse(env.run(&["manifest", "inspect", "again", "--state-dir", "other"]).ok()));
    assert_eq!(index(&env, "all"), parse(env.run(&["manifest", "inspect", &remote, "--state-dir", "third"]).ok()));
    if have(TEST, &["skopeo"]) {
        let raw =
            Command::new("skopeo").args(["inspect", "--raw", "oci:layout:x"]).current_dir(env.dir.path()).output();
        assert_eq!(sha256(Run::of(&raw.unwrap()).stdout.as_bytes()), digest);
    }
    // The same once more is the same; nothing of it goes with a prune.
    env.run(&add).ok();
    env.run(&["prune"]).ok();
    assert_eq!(index(&env, "all"), shown);
    assert_eq!(env.run(&["manifest", "push", "all", "oci:pruned:1"]).ok(), digest);
}

#[test]
fn an_artifact_is_what_the_options_say() {
    let env = Env::new();
    index_of_one(&env);
    env.file("a.txt", "a");
    env.file("config", "config");
    let add =
        |options: &[&str]| env.run(&[&["manifest", "add", "all", "context/a.txt", "--artifact"], options].concat());
    add(&[
        "--artifact-config=context/config",
        "--artifact-config-type=text/x",
        "--artifact-layer-type=text/y",
        "--artifact-exclude-titles",
        "--os=linux",
        "--arch=amd64",
        "--features=sse4",
    ])
    .ok();
    let shown = index(&env, "all");
    assert_eq!(shown["manifests"].as_array().unwrap().len(), 2, "it takes no image's place: {shown:#}");
    let entry = &shown["manifests"][1];
    assert_eq!(entry["platform"], json!({"architecture": "amd64", "os": "linux", "features": ["sse4"]}));
    assert_eq!(entry["artifactType"], "application/vnd.unknown.artifact.v1");
    let registry = Registry::start();
    env.run(&["manifest", "push", "all", &format!("{}/app:1", registry.host())]).ok();
    let manifest = pushed(&registry, "app", entry);
    assert_eq!(manifest["config"], json!({"mediaType": "text/x", "digest": sha256(b"config"), "size": 6}));
    assert_eq!(manifest["layers"], json!([{"mediaType": "text/y", "digest": sha256(b"a"), "size": 1}]));
    assert!(env.run(&["inspect", "all"]).ok().contains("text/y"));
    for (options, part) in [
        (&["--artifact-type=nonsense"][..], "media type"),
        (&["--artifact-config=context/config"], "--artifact-config-type"),
        (&["--all"], "--all"),
        (&["context"], "is not a file"),
        (&["context/none"], "context/none"),
        (&["--artifact-subject=sha256:0000000000000000000000000000000000000000000000000000000000000000"], "no image"),
        (&["--artifact-annotation=x"], "--artifact-annotation"),
    ] {
        assert!(add(options).fails(2).contains(part), "{options:?}: {}", add(options).stderr);
    }
    assert!(env.run(&["manifest", "add", "all", "app", "--artifact-type=a/b"]).fails(2).contains("--artifact"));
    assert_eq!(index(&env, "all"), shown, "what fails changes nothing");
}

#[test]
fn a_registry_that_lists_no_referrers_gets_a_list() {
    let env = Env::new();
    let image = index_of_one(&env);
    env.file("a.txt", "a");
    let kind = "application/vnd.example.note";
    let add = ["manifest", "add", "--artifact", "--artifact-type", kind, "all", "context/a.txt"];
    env.run(&[&add[..], &["--artifact-subject", &image, "--artifact-annotation", "k=v"]].concat()).ok();
    let artifact = index(&env, "all")["manifests"][1].clone();
    let (old, new) = (Registry::start(), Registry::start());
    new.list_referrers();
    let tag = image.replace(':', "-");
    for registry in [&old, &new] {
        env.run(&["manifest", "push", "all", &format!("{}/app:1", registry.host())]).ok();
    }
    assert_eq!(new.manifest("app", &tag), None, "it lists them itself");
    assert_eq!(count(&new.take_lines(), &tag), 0, "nobody asks");
    let entry = json!({"mediaType": OCI.manifest, "digest": artifact["digest"], "size": artifact["size"],
        "annotations": {"k": "v"}, "artifactType": kind});
    let list = |entries: &[&Value]| json!({"schemaVersion": 2, "mediaType": OCI.index, "manifests": entries});
    assert_eq!(parse(old.manifest("app", &tag).unwrap()), list(&[&entry]));
    let lines = old.take_lines();
    assert_eq!(lines.last().unwrap(), "PUT /v2/app/manifests/1", "the tag comes last: {lines:#?}");
    // An index about an image of the registry; what others have listed stays, and nothing is listed twice.
    let subject = format!("docker://{}/app@{image}", old.host());
    env.run(&["manifest", "create", "notes"]).ok();
    env.run(&["manifest", "annotate", "notes", "--subject", &subject, "--annotation", "x=y"]).ok();
    assert_eq!(index(&env, "notes")["subject"]["digest"], image);
    for _ in 0..2 {
        env.run(&["manifest", "push", "notes", &format!("{}/app:notes", old.host())]).ok();
    }
    let raw = old.manifest("app", "notes").unwrap();
    let notes = json!({"mediaType": OCI.index, "digest": sha256(&raw), "size": raw.len(), "annotations": {"x": "y"}});
    assert_eq!(parse(old.manifest("app", &tag).unwrap()), list(&[&entry, &notes]));
    // A copy brings the same to where it goes.
    let elsewhere = Registry::start();
    let name = |registry: &Registry| format!("docker://{}/app:notes", registry.host());
    env.run(&["copy", &name(&old), &name(&elsewhere), "--state-dir", "other"]).ok();
    assert_eq!(parse(elsewhere.manifest("app", &tag).unwrap()), list(&[&notes]));
    // What stands under the tag is not touched if it is something else.
    let stray = r#"{"schemaVersion":2,"config":{},"layers":[]}"#;
    elsewhere.add_manifest("app", &tag, OCI.manifest, stray.as_bytes());
    env.run(&["manifest", "annotate", "notes", "--index", "--annotation", "new=1"]).ok();
    let run = env.run(&["manifest", "push", "notes", &format!("{}/app:notes", elsewhere.host())]);
    assert!(run.fails(75).contains("list of referrers"), "{}", run.stderr);
    assert_eq!(elsewhere.manifest("app", &tag).unwrap(), stray.as_bytes());
    assert!(env.run(&["manifest", "annotate", "notes", "--subject", "oci:none"]).fails(2).contains("none"));
    assert!(
        env.run(&["manifest", "annotate", "notes", "--subject", &subject, "--os=linux"]).fails(2).contains("platform")
    );
}

#[test]
fn a_real_registry_takes_artifacts_and_a_list_of_them() {
    const TEST: &str = "a_real_registry_takes_artifacts_and_a_list_of_them";
    if !have(TEST, &["docker-registry", "skopeo"]) {
        return;
    }
    let env = Env::new();
    let image = index_of_one(&env);
    env.file("a.txt", "a");
    env.run(&["manifest", "add", "--artifact", "--artifact-subject", &image, "all", "context/a.txt"]).ok();
    let artifact = index(&env, "all")["manifests"][1]["digest"].clone();
    let registry = Distribution::start(env.dir.path());
    env.run(&["login", &registry.host, "-u", "me", "-p", "sesame"]).ok();
    let repository = format!("{}/team/app", registry.host);
    let digest = env.run(&["manifest", "push", "all", &format!("{repository}:1")]).ok();
    let raw = |tag: &str| {
        let args = ["inspect", "--raw", "--creds", "me:sesame", "--tls-verify=false"];
        let name = format!("docker://{repository}:{tag}");
        Run::of(&Command::new("skopeo").args(args).arg(name).output().unwrap()).ok()
    };
    assert_eq!(sha256(raw("1").as_bytes()), digest);
    let list = parse(raw(&image.replace(':', "-")));
    assert_eq!(
        list["manifests"][0]["digest"], artifact,
        "it knows nothing of subjects, so it was given a list: {list:#}"
    );
    // Another machine's copy has the file.
    let copy = ["copy", &format!("docker://{repository}:1"), "oci:out:1", "--state-dir", "other"];
    let copied = env.command(&copy).output().unwrap();
    assert_eq!(Run::of(&copied).ok(), digest);
    assert!(env.path("out/blobs/sha256").join(&sha256(b"a")[7..]).is_file());
}
