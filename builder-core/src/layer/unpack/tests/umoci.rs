//! Another program unpacks what the writer writes, whiteouts and all.

use std::process::Command;

use serde_json::json;

use super::*;

/// Writes an image of `layers` with the tag `test` into the layout that the store is.
fn make_image(store: &Store, layers: &[LayerDescriptor]) {
    let put = |value: &serde_json::Value, media_type: &str| {
        let bytes = serde_json::to_vec(value).unwrap();
        let digest = store.put_blob(&bytes).unwrap();
        json!({ "mediaType": media_type, "digest": digest.to_string(), "size": bytes.len() })
    };
    let diff_ids: Vec<_> = layers.iter().map(|layer| layer.diff_id.to_string()).collect();
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": {}, "rootfs": { "type": "layers", "diff_ids": diff_ids },
    });
    let descriptors = layers
        .iter()
        .map(|layer| json!({ "mediaType": layer.media_type, "digest": layer.digest.to_string(), "size": layer.size }));
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(&config, "application/vnd.oci.image.config.v1+json"),
        "layers": descriptors.collect::<Vec<_>>(),
    });
    let mut descriptor = put(&manifest, "application/vnd.oci.image.manifest.v1+json");
    descriptor["annotations"] = json!({ "org.opencontainers.image.ref.name": "test" });
    let index = json!({ "schemaVersion": 2, "manifests": [descriptor] });
    fs::write(store.path().join("index.json"), serde_json::to_vec(&index).unwrap()).unwrap();
}

#[test]
fn umoci_unpacks_the_same() {
    let (temp, store) = store();
    // What needs root of the machine, or is a placeholder here, is left to the other tests.
    let plain = |(entry, _): &(Entry, &[u8])| {
        !matches!(entry.kind, Kind::CharDevice { .. } | Kind::BlockDevice { .. } | Kind::Whiteout)
            && !entry.path.starts_with(b"locked")
            && !entry.path.is_empty()
    };
    let first: Vec<_> = sample().into_iter().filter(plain).collect();
    let whiteout = |path| (entry(path, 0, Kind::Whiteout), &b""[..]);
    let second = [
        whiteout("bin"),
        (entry("dev", 0o755, Kind::Directory { opaque: true }), b""),
        (file("dev/new", 3), b"new"),
        whiteout("link"),
        (dir("tmp"), b""),
        (file("tmp/one", 5), b"other"),
    ];
    let long = [&b"deep/".repeat(40)[..], b"end"].concat();
    let mut deep: Vec<_> = (1..=40).map(|depth| (dir(&vec!["deep"; depth].join("/")), &b""[..])).collect();
    deep.push((file(std::str::from_utf8(&long).unwrap(), 2), b"ok"));
    let layers = [write(&store, &first).layer, write(&store, &second).layer, write(&store, &deep).layer];
    make_image(&store, &layers);

    let bundle = temp.path().join("bundle");
    let image = format!("{}:test", store.path().display());
    let mut umoci = Command::new("umoci");
    umoci.args(["unpack", "--keep-dirlinks"]).arg("--image").arg(image);
    if !is_root() {
        umoci.arg("--rootless");
    }
    let Ok(output) = umoci.arg(&bundle).env("HOME", temp.path()).output() else {
        eprintln!("SKIP umoci_unpacks_the_same: no umoci");
        return;
    };
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let root = bundle.join("rootfs");
    let mut merged = MergedTree::new();
    for (at, layer) in layers.iter().enumerate() {
        merged.apply(&store.tree(&layer.diff_id).unwrap().unwrap(), at);
    }
    let mut expected: Vec<_> =
        merged.iter().skip(1).map(|(path, _)| String::from_utf8_lossy(path).into_owned()).collect();
    expected.sort();
    assert_eq!(listing(&root), expected);
    for (path, node) in merged.iter().skip(1) {
        let path = root.join(String::from_utf8_lossy(path).into_owned());
        let found = fs::symlink_metadata(&path).unwrap();
        let special = matches!(node.kind, Kind::Fifo) && !is_root();
        assert!(special || found.mode() & 0o7777 == node.meta.mode, "mode of {path:?}");
        assert!(special || found.mtime() == node.meta.mtime.secs, "time of {path:?}");
        if let Kind::File { size, .. } = node.kind {
            assert_eq!(found.len(), *size, "{path:?}");
        }
    }
    assert_eq!(fs::read(root.join("tmp/one")).unwrap(), b"other");
    assert_eq!(fs::read(root.join("tmp/two")).unwrap(), b"one", "the other name keeps the old bytes");
}
