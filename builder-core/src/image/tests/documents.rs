//! Reading and writing configs, manifests, indexes.

use proptest::prelude::*;

use super::super::*;
use crate::digest::Digest;

fn canonical(text: &str) -> String {
    String::from_utf8(ImageConfig::parse(text.as_bytes()).unwrap().to_canonical_json()).unwrap()
}

#[test]
fn canonical_config_golden() {
    let digest = Digest::of(b"layer");
    let input = format!(
        r#"{{
        "zz": {{"b": 1, "a": [null, 2.5]}}, "history": [{{"empty_layer": true, "created_by": "CMD <x> & y", "created": "2024-01-01T00:00:00Z"}}],
        "rootfs": {{"diff_ids": ["{digest}"], "type": "layers"}}, "os": "linux", "variant": "v8", "architecture": "arm64",
        "config": {{"Labels": {{"b": "2", "a": "1"}}, "Volumes": {{"/v": {{}}, "/a": {{}}}}, "ExposedPorts": {{"80/tcp": {{}}, "22/tcp": {{}}}},
          "Cmd": ["é", "\u0001"], "Env": ["PATH=/bin", "A=1"], "User": "app", "Entrypoint": ["/e"], "WorkingDir": "/w", "StopSignal": "SIGINT",
          "Healthcheck": {{"Test": ["CMD", "true"], "Retries": 3, "Interval": 5000000000}}, "OnBuild": ["RUN x"], "Shell": ["/bin/bash", "-c"],
          "StopTimeout": 0, "ArgsEscaped": true, "Tty": false, "Hostname": "" }},
        "author": "me", "created": "2024-01-01T00:00:00.5Z", "os.version": "1", "os.features": ["f"], "aa": 1
        }}"#
    );
    let golden = format!(
        concat!(
            r#"{{"created":"2024-01-01T00:00:00.5Z","author":"me","architecture":"arm64","os":"linux","os.version":"1","#,
            r#""os.features":["f"],"variant":"v8","config":{{"User":"app","ExposedPorts":{{"22/tcp":{{}},"80/tcp":{{}}}},"#,
            r#""Env":["PATH=/bin","A=1"],"Entrypoint":["/e"],"Cmd":["é","\u0001"],"Volumes":{{"/a":{{}},"/v":{{}}}},"#,
            r#""WorkingDir":"/w","Labels":{{"a":"1","b":"2"}},"StopSignal":"SIGINT","ArgsEscaped":true,"#,
            r#""Healthcheck":{{"Test":["CMD","true"],"Interval":5000000000,"Retries":3}},"OnBuild":["RUN x"],"#,
            r#""Shell":["/bin/bash","-c"],"StopTimeout":0,"Hostname":"","Tty":false}},"#,
            r#""rootfs":{{"type":"layers","diff_ids":["{}"]}},"#,
            r#""history":[{{"created":"2024-01-01T00:00:00Z","created_by":"CMD <x> & y","empty_layer":true}}],"#,
            r#""aa":1,"zz":{{"a":[null,2.5],"b":1}}}}"#
        ),
        digest
    );
    assert_eq!(canonical(&input), golden);
    assert_eq!(canonical(&golden), golden, "the canonical form is a fixed point");
}

#[test]
fn nulls_and_absence_read_as_empty() {
    let bare = r#"{"architecture":"","os":"","config":{},"rootfs":{"type":"layers","diff_ids":[]}}"#;
    for text in [
        "{}",
        r#"{"config":null,"rootfs":null,"history":null,"created":null,"author":"","os.features":null,"variant":""}"#,
        r#"{"rootfs":{"type":"layers","diff_ids":null}}"#,
        r#"{"config":{"Env":null,"Cmd":null,"Entrypoint":null,"Volumes":null,"ExposedPorts":null,"Labels":null,
            "OnBuild":null,"Shell":null,"Healthcheck":null,"StopTimeout":null,"User":null,"WorkingDir":null,
            "StopSignal":"","ArgsEscaped":null}}"#,
        r#"{"config":{"Env":[],"Cmd":[],"Entrypoint":[],"Volumes":{},"ExposedPorts":{},"Labels":{},"User":"",
            "ArgsEscaped":false}}"#,
    ] {
        assert_eq!(canonical(text), bare, "{text}");
    }
}

#[test]
fn a_docker_config_loses_nothing() {
    let text = r#"{"architecture":"amd64","os":"linux","config":{"Hostname":"c0ffee","Domainname":"d","User":"root",
        "AttachStdin":false,"AttachStdout":true,"AttachStderr":true,"ExposedPorts":{"80/tcp":{}},"Tty":true,
        "OpenStdin":false,"StdinOnce":false,"Env":["PATH=/bin"],"Cmd":["sh"],"Image":"sha256:abc",
        "Volumes":{"/data":{}},"WorkingDir":"/","Entrypoint":["/e"],"MacAddress":"02:42","NetworkDisabled":true,
        "OnBuild":["COPY . /src"],"Labels":{"a":"b"},"StopSignal":"SIGQUIT","StopTimeout":10,
        "Shell":["/bin/ash","-eo"],"Healthcheck":{"Test":["CMD-SHELL","true"],"Interval":1,"Timeout":2,
        "StartPeriod":3,"StartInterval":4,"Retries":5,"Later":6}},
        "container":"0123","container_config":{"Cmd":["/bin/sh","-c","nop CMD"]},"docker_version":"20.10",
        "id":"x","parent":"y","rootfs":{"type":"layers","diff_ids":[],"base_layer":"z"},
        "history":[{"created":"t","created_by":"c","author":"a","comment":"d","empty_layer":true,"new":{}}]}"#;
    let value: serde_json::Value = serde_json::from_str(text).unwrap();
    let written: serde_json::Value = serde_json::from_str(&canonical(text)).unwrap();
    assert_eq!(written, value);
}

#[test]
fn a_command_may_be_one_text() {
    let config = ImageConfig::parse(br#"{"config":{"Cmd":"sh","Entrypoint":"/e","Shell":"/bin/sh"}}"#).unwrap().config;
    assert_eq!((config.cmd, config.entrypoint), (vec!["sh".to_owned()], vec!["/e".to_owned()]));
    assert!(ImageConfig::parse(br#"{"config":{"Cmd":7}}"#).is_err());
}

#[test]
fn environment_is_looked_up_and_replaced_in_place() {
    let mut config = Config { env: vec!["A=1".into(), "PATH=/bin".into(), "AB=2".into()], ..Config::default() };
    config.set_env("PATH", "/usr/bin:/bin");
    config.set_env("NEW", "a=b");
    assert_eq!(config.env, ["A=1", "PATH=/usr/bin:/bin", "AB=2", "NEW=a=b"]);
    assert_eq!((config.env("NEW"), config.env("A"), config.env("B")), (Some("a=b"), Some("1"), None));
}

#[test]
fn history_is_made_to_tell_of_every_layer() {
    let config = |layers: u8, history: &[bool]| {
        let mut config = ImageConfig { created: Some("c".to_owned()), ..ImageConfig::default() };
        config.rootfs.diff_ids = (0..layers).map(|n| crate::DiffId(Digest::of(&[n]))).collect();
        let entry = |empty: &bool| HistoryEntry { empty_layer: *empty, ..HistoryEntry::default() };
        config.history = history.iter().map(entry).collect();
        config.repair_history();
        config.history.iter().map(|entry| entry.empty_layer).collect::<Vec<_>>()
    };
    for (layers, history, expected) in [
        (0, &[][..], &[][..]),
        (2, &[], &[false, false]),
        (1, &[false, true], &[false, true]),
        (2, &[false, true], &[false, true, false]),
        (1, &[false, true, false, false], &[false, true, true, true]),
        (0, &[false], &[true]),
    ] {
        assert_eq!(config(layers, history), expected, "{layers} layers, {history:?}");
    }
}

#[test]
fn manifests_keep_everything_and_their_bytes_are_pinned() {
    let digest = Digest::of(b"x");
    let text = format!(
        concat!(
            r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","artifactType":"t","#,
            r#""config":{{"mediaType":"c","digest":"{0}","size":1}},"#,
            r#""layers":[{{"mediaType":"l","digest":"{0}","size":2,"urls":["https://x"],"annotations":{{"a":"b"}},"#,
            r#""data":"eA==","platform":{{"architecture":"arm","os":"linux","os.version":"1","os.features":["f"],"#,
            r#""variant":"v7"}},"artifactType":"u","unknown":[1]}}],"#,
            r#""subject":{{"mediaType":"s","digest":"{0}","size":3}},"annotations":{{"k":"v"}},"later":true}}"#
        ),
        digest
    );
    let manifest = Manifest::parse(text.as_bytes()).unwrap();
    assert_eq!(String::from_utf8(manifest.to_canonical_json()).unwrap(), text);
    let descriptor = manifest.descriptor();
    assert_eq!((descriptor.digest, descriptor.size), (Digest::of(text.as_bytes()), text.len() as u64));
    let sparse = format!(
        r#"{{"schemaVersion":2,"mediaType":null,"config":{{"mediaType":null,"digest":"{digest}","size":1,
            "annotations":null,"urls":null,"platform":null}},"layers":null,"annotations":null}}"#
    );
    assert!(Manifest::parse(sparse.as_bytes()).unwrap().layers.is_empty());
}

#[test]
fn bad_documents_are_refused() {
    let digest = Digest::of(b"x");
    let manifest = |config: &str| format!(r#"{{"schemaVersion":2,"config":{{"mediaType":"c",{config}}},"layers":[]}}"#);
    for (text, reason) in [
        (String::new(), "EOF"),
        (format!("{{\"x\":{}", "[".repeat(200_000)), "recursion limit"),
        (r#"{"schemaVersion":1,"name":"x","fsLayers":[]}"#.to_owned(), "config"),
        (manifest(r#""digest":"sha256:../../x","size":1"#), "is not a digest"),
        (manifest(r#""digest":"sha512:00","size":1"#), "is not a digest"),
        (manifest(&format!(r#""digest":"{digest}","size":-1"#)), "invalid value"),
        (manifest(&format!(r#""digest":"{digest}","size":1.5"#)), "invalid type"),
        (manifest(&format!(r#""digest":"{digest}","digest":"{digest}","size":1"#)), "duplicate field"),
    ] {
        let error = Manifest::parse(text.as_bytes()).unwrap_err();
        let cause = std::error::Error::source(&error).unwrap().to_string();
        assert!(cause.contains(reason), "{cause} does not contain {reason:?}");
    }
    assert!(matches!(
        Index::parse(br#"{"schemaVersion":1,"manifests":[]}"#),
        Err(ParseError::SchemaVersion { version: 1, .. })
    ));
    let large = vec![b' '; usize::try_from(MANIFEST_LIMIT).unwrap() + 1];
    assert!(matches!(Manifest::parse(&large), Err(ParseError::TooLarge { .. })));
    assert!(matches!(Index::parse(&large), Err(ParseError::TooLarge { .. })));
    assert!(matches!(ImageConfig::parse(&large), Err(ParseError::Json { .. })), "configs may be larger");
}

fn texts() -> impl Strategy<Value = Vec<String>> {
    prop::collection::vec(".{0,8}", 0..4)
}

prop_compose! {
    fn configs()(
        env in texts(), cmd in texts(), shell in texts(), user in ".{0,8}", escaped: bool,
        volumes in prop::collection::btree_set(".{0,8}", 0..4),
        labels in prop::collection::btree_map(".{0,8}", ".{0,8}", 0..4),
        extra in prop::collection::btree_map("[a-z]{1,8}", any::<i64>().prop_map(serde_json::Value::from), 0..4),
        interval: i64, timeout in prop::option::of(any::<i64>()),
    ) -> ImageConfig {
        let healthcheck = Some(Healthcheck { interval, ..Healthcheck::default() });
        let config = Config {
            env, cmd, shell, user, args_escaped: escaped, volumes, labels, healthcheck, extra,
            stop_timeout: timeout, ..Config::default()
        };
        ImageConfig { config, ..ImageConfig::default() }
    }
}

proptest! {
    #[test]
    fn what_is_written_reads_the_same(config in configs()) {
        let bytes = config.to_canonical_json();
        let read = ImageConfig::parse(&bytes).unwrap();
        prop_assert_eq!(&read, &config);
        prop_assert_eq!(read.to_canonical_json(), bytes);
    }
}
