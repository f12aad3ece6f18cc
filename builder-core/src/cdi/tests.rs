use std::fs;

use super::*;

const YAML: &str = "cdiVersion: \"0.6.0\"\nkind: vendor.com/gpu\nannotations: {a: b}\n\
    containerEdits: {env: [ALL=1]}\ndevices:\n\
    - name: \"1\"\n  containerEdits: {env: [ONE=1], deviceNodes: [{path: /dev/one, hostPath: /dev/zero, type: c}]}\n\
    - name: \"0\"\n  annotations: {org.mobyproject.buildkit.device.class: big, \
    org.mobyproject.buildkit.device.autoallow: \"true\"}\n  containerEdits: {additionalGids: [7]}\n";

fn registry(files: &[(&str, &str)]) -> (Registry, tempfile::TempDir) {
    let dir = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let dirs = ["a", "b", "missing"].map(|name| dir.path().join(name));
    (Registry::load(&dirs), dir)
}

#[test]
fn devices_are_found_by_name_class_kind_and_all_at_once() {
    let (registry, _dir) = registry(&[("a/gpu.yaml", YAML), ("a/README", "no spec")]);
    assert_eq!(registry.problems, Vec::<String>::new());
    let (zero, one) = ("vendor.com/gpu=0", "vendor.com/gpu=1");
    for (name, found) in [
        (one, vec![one]),
        ("vendor.com/gpu", vec![zero]),
        ("vendor.com/gpu=*", vec![zero, one]),
        ("vendor.com/gpu=big", vec![zero]),
    ] {
        assert_eq!(registry.find(name), Ok(found), "{name}");
    }
    for name in ["vendor.com/gpu=2", "vendor.com/gpus=0", "vendor.com/gp"] {
        assert_eq!(registry.find(name), Err(Error::Unknown { name: name.to_owned() }));
    }
    for name in ["gpu", "/gpu=0", "vendor.com/=0", "vendor.com/gpu=../0", "vendor.com/a/b=0", "=0"] {
        assert_eq!(registry.find(name), Err(Error::Name { name: name.to_owned() }));
    }
    assert!(registry.is_auto_allowed(zero) && !registry.is_auto_allowed(one));
    assert!(!registry.is_auto_allowed("vendor.com/gpu=*") && !registry.is_auto_allowed("vendor.com/gpu=2"));
}

#[test]
fn what_is_said_of_all_devices_is_done_once_and_first() {
    let (registry, _dir) = registry(&[("a/gpu.yaml", YAML)]);
    let names = registry.find("vendor.com/gpu=*").unwrap();
    let twice = [names.clone(), names].concat();
    let edits = registry.edits(&twice);
    let envs: Vec<_> = edits.iter().map(|(_, edits)| edits.env.join(" ")).collect();
    assert_eq!(envs, ["ALL=1", "", "ONE=1"]);
    assert_eq!(edits[1].1.additional_gids, [7]);
    let node = &edits[2].1.device_nodes[0];
    assert_eq!((node.path.as_str(), node.host_path.as_deref()), ("/dev/one", Some("/dev/zero")));
}

#[test]
fn later_directories_win_and_one_directory_must_agree() {
    let json = |value: &str| {
        format!(
            r#"{{"cdiVersion": "1.0.0", "kind": "v.com/c", "devices":
                [{{"name": "d", "containerEdits": {{"env": ["FROM={value}"]}}}}]}}"#
        )
    };
    let (first, second) = (json("a"), json("b"));
    let (registry_of_two, _dir) = registry(&[("a/x.json", &first), ("b/x.json", &second)]);
    let names = registry_of_two.find("v.com/c=d").unwrap();
    assert_eq!(registry_of_two.edits(&names)[1].1.env, ["FROM=b"]);
    let (registry, _dir) = registry(&[("a/x.json", &first), ("a/y.json", &second)]);
    assert!(matches!(registry.find("v.com/c=d"), Err(Error::Conflict { .. })));
}

#[test]
fn a_file_that_is_no_spec_says_why_and_spoils_no_other() {
    let with = |part: &str, instead: &str| YAML.replacen(part, instead, 1);
    let cases = [
        (with("0.6.0", "0.2.0"), "cdiVersion \"0.2.0\""),
        (with("0.6.0", "2.0.0"), "cdiVersion \"2.0.0\""),
        (with("vendor.com/gpu", "gpu"), "vendor.com/class"),
        (with("annotations:", "annotation:"), "unknown field `annotation`"),
        (with("name: \"1\"", "name: \"0\""), "twice"),
        (with("name: \"1\"", "name: \"*\""), "no name of a device"),
        (with("ONE=1", "ONE"), "no variable"),
        (with("/dev/one", "dev/one"), "not an absolute path"),
        (with("type: c", "type: x"), "no type"),
        (with("type: c", "permissions: rx"), "no permissions"),
        ("{".to_owned(), ""),
        (String::new(), "not one document"),
        ("text".to_owned(), "invalid type"),
        ("a: &a [*a]".to_owned(), ""),
    ];
    for (text, why) in cases {
        let other = YAML.replace("vendor.com", "other.com");
        let (registry, _dir) = registry(&[("a/bad.yaml", &text), ("a/good.yaml", &other)]);
        assert!(registry.problems.len() == 1 && registry.problems[0].contains(why), "{text}: {:?}", registry.problems);
        assert!(registry.find("other.com/gpu=1").is_ok() && registry.find("vendor.com/gpu=1").is_err(), "{text}");
    }
}
