//! Options, files and messages of the command.

use std::fs;

use serde_json::Value;

use crate::image::sha256;
use crate::support::Env;

#[test]
fn quiet_prints_the_digest_alone_and_the_files_have_the_rest() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nLABEL a=b\n");
    let run = env.run(&["build", "-q", "-t", "app:1", "--iidfile", "id", "--metadata-file", "meta", "context"]);
    let digest = run.ok();
    assert!(digest.starts_with("sha256:") && digest.len() == 71, "{digest:?}");
    assert_eq!(run.stderr, "");
    let meta: Value = serde_json::from_str(&fs::read_to_string(env.path("meta")).unwrap()).unwrap();
    assert_eq!(meta["containerimage.digest"], digest.as_str());
    assert_eq!(meta["containerimage.descriptor"]["digest"], digest.as_str());
    assert_eq!(meta["containerimage.config.digest"], fs::read_to_string(env.path("id")).unwrap().as_str());
    assert_eq!(meta["image.name"], "docker.io/library/app:1");
}

#[test]
fn the_store_lists_shows_and_forgets_images() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nCOPY Dockerfile /\nLABEL a=b\n");
    let digest = env.run(&["build", "-q", "-t", "app", "-t", "other/app:2", "context"]).ok();
    let images = env.run(&["images", "--json"]).ok();
    let names: Vec<String> = images
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .map(|image| format!("{} {}", image["name"].as_str().unwrap(), image["digest"] == digest.as_str()))
        .collect();
    assert_eq!(names, ["docker.io/library/app:latest true", "docker.io/other/app:2 true"]);
    let shown: Value = serde_json::from_str(&env.run(&["inspect", "app"]).ok()).unwrap();
    assert!(shown.to_string().contains("\"a\":\"b\""), "{shown:#}");
    env.run(&["rmi", "app"]).ok();
    assert_eq!(env.run(&["images", "-q"]).ok().lines().count(), 1);
    assert!(env.run(&["rmi", "app"]).stderr.contains("app"));
    env.run(&["rmi", "other/app:2"]).ok();
    env.run(&["prune", "--all"]).ok();
    let blobs = fs::read_dir(env.state().join("blobs/sha256")).unwrap().count();
    assert_eq!(blobs, 0, "nothing is left when nothing is named");
}

#[test]
fn each_part_of_an_image_is_shown_as_it_is() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\nARG TARGETARCH\nLABEL arch=$TARGETARCH\nCOPY Dockerfile /\n");
    let platforms = ["--platform", "linux/amd64,linux/arm64"];
    let digest = env.run(&[&["build", "-q", "-t", "app"], &platforms[..], &["context"]].concat()).ok();
    // Without the line feed that other commands end with.
    let show = |args: &[&str]| {
        let run = env.run(&[&["inspect", "app"], args].concat());
        run.ok();
        (sha256(run.stdout.as_bytes()), serde_json::from_str::<Value>(&run.stdout).unwrap())
    };
    let (found, index) = show(&["--raw"]);
    assert_eq!(found, digest);
    for (number, arch) in ["amd64", "arm64"].into_iter().enumerate() {
        let platform = format!("linux/{arch}");
        let (found, manifest) = show(&["--raw", "--platform", &platform]);
        assert_eq!(found, index["manifests"][number]["digest"]);
        let (found, config) = show(&["--config", "--platform", &platform]);
        assert_eq!(found, manifest["config"]["digest"]);
        assert_eq!(config["config"]["Labels"]["arch"], arch);
        let (_, layers) = show(&["--layers", "--platform", &platform]);
        assert_eq!(layers.as_array().unwrap().len(), 1);
        for key in ["mediaType", "digest", "size"] {
            assert_eq!(layers[0][key], manifest["layers"][0][key]);
        }
        assert_eq!(layers[0]["diffID"], config["rootfs"]["diff_ids"][0]);
    }
    let here = env.run(&["inspect", "app", "--config"]).ok();
    assert!(here.contains(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" }), "{here}");
    env.run(&["inspect", "app", "--config", "--platform", "linux/s390x"]).fails(2);
    env.run(&["inspect", "app", "--config", "--raw"]).fails(2);
    env.run(&["inspect", "app", "--platform", "linux/amd64"]).fails(2);
}

#[test]
fn the_state_directory_may_be_named_before_and_after_the_subcommand() {
    let env = Env::new();
    for args in [["--state-dir", "s1", "images"], ["images", "--state-dir", "s2"]] {
        env.run(&args).ok();
    }
    assert!(env.path("s1/oci-layout").exists() && env.path("s2/oci-layout").exists());
}

#[test]
fn du_agrees_with_du() {
    let env = Env::new();
    env.import_busybox();
    env.build("FROM busybox\nRUN mkdir -m 700 /d && echo x > /d/x && chown -R 5:5 /d\n", &[]).ok();
    env.assert_du();
}

#[test]
fn mistakes_in_a_dockerfile_are_shown_where_they_are() {
    let env = Env::new();
    env.import_busybox();
    for (dockerfile, code, parts) in [
        ("FROM busybox\nRNU true\n", 1, vec!["Dockerfile:2:1", "RNU", "RUN", "^^^"]),
        ("FROM busybox\nCOPY --form=x a b\n", 1, vec!["Dockerfile:2:6", "--form", "--from"]),
        ("FROM busybox\nCOPY missing /x\n", 1, vec!["Dockerfile:2", "missing"]),
        ("FROM busybox\nCOPY Dokcerfile /x\n", 1, vec!["Dockerfile:2", "did you mean \"Dockerfile\"?"]),
        ("FROM busybox AS b\nFROM busybox\nCOPY --from=b /bni/sh /x\n", 1, vec!["did you mean \"bin/sh\"?"]),
        (
            "FROM busybox AS build\nFROM scratch\nCOPY --from=localhost:1/biuld /x /x\n",
            75,
            vec!["Dockerfile:3", "biuld"],
        ),
        ("FROM busybox\nCOPY --chown=nosuch Dockerfile /x\n", 1, vec!["Dockerfile:2", "nosuch"]),
        ("FROM busybox\nRUN --mount=type=ssh,required true\n", 2, vec!["Dockerfile:2", "--ssh"]),
        ("FROM busybox\nADD https://example.invalid/x /x\n", 1, vec!["Dockerfile:2"]),
        ("", 1, vec!["Dockerfile"]),
    ] {
        let run = env.build(dockerfile, &[]);
        let text = run.fails(code);
        for part in parts {
            assert!(text.contains(part), "{dockerfile:?}: want {part:?} in\n{text}");
        }
    }
}

#[test]
fn an_ignored_source_names_the_rule_that_hid_it() {
    let env = Env::new();
    env.file("dist/app.js", "x");
    env.file(".dockerignore", "# built files\ndist\n");
    let text = env.build("FROM scratch\nCOPY dist/app.js /srv/\n", &[]).stderr;
    assert!(text.contains(".dockerignore:2") && text.contains("dist"), "{text}");
}

#[test]
fn wrong_usage_is_exit_code_2() {
    let env = Env::new();
    env.file("Dockerfile", "FROM scratch\n");
    env.run(&["build"]).fails(2);
    env.run(&["build", "no/such/dir"]).fails(2);
    env.run(&["build", "--output", "type=oci", "context"]).fails(2);
    env.run(&["build", "-t", "UPPER", "context"]).fails(2);
    env.run(&["build", "--target", "nope", "context"]).fails(1);
}

#[test]
fn doctor_says_what_this_machine_allows() {
    let env = Env::new();
    let text = env.run(&["doctor"]).ok();
    // On a first call there is no state directory yet.
    assert!(text.contains("RUN works") || text.contains("rung: none"), "{text}");
}
