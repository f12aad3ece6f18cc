//! Sound images pass, each kind of damage is told.

use tempfile::TempDir;

use super::*;
use crate::image::tests::{put, put_sample, sample};
use crate::image::{ImageSource, MEDIA_TYPE_DOCKER_MANIFEST, MEDIA_TYPE_INDEX, MEDIA_TYPE_MANIFEST};
use crate::store::Store;

fn check(store: &Store, image: &Descriptor) -> Vec<String> {
    let source = ImageSource::open_layout(store.path()).unwrap();
    validate(&source, image).map_or_else(|error| error.problems, |()| Vec::new())
}

#[test]
fn sound_images_pass() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let image = put_sample(&store, &sample(&store, "linux/arm64"));
    assert!(check(&store, &image).is_empty(), "{:?}", check(&store, &image));
    let entry = Descriptor { platform: Some("linux/arm64/v8".parse().unwrap()), ..image };
    let index =
        put(&store, MEDIA_TYPE_INDEX, &Index { manifests: vec![entry], ..Index::default() }.to_canonical_json());
    assert!(check(&store, &index).is_empty());
}

#[test]
fn each_damage_is_told() {
    let dir = TempDir::new().unwrap();
    let store = Store::open(dir.path()).unwrap();
    let good = sample(&store, "linux/amd64");
    let with = |change: &dyn Fn(&mut Manifest, &mut ImageConfig)| {
        let (mut manifest, mut config) = good.clone();
        change(&mut manifest, &mut config);
        put_sample(&store, &(manifest, config))
    };
    let other = DiffId(Digest::of(b"other"));
    let missing = Descriptor::new("x", Digest::of(b"missing"), 1);
    let not_gzip = put(&store, "application/vnd.oci.image.layer.v1.tar+gzip", b"plain text");
    for (image, problem) in [
        (with(&|_, config| config.rootfs.diff_ids[1] = other), "diff ID of layer 1 is"),
        (with(&|_, config| config.rootfs.diff_ids.truncate(2)), "2 diff IDs for 3 layers"),
        (with(&|_, config| drop(config.history.remove(0))), "history tells of 2 layers, there are 3"),
        (with(&|manifest, _| manifest.layers[0] = missing.clone()), "is not in"),
        (with(&|manifest, _| manifest.layers[0] = not_gzip.clone()), "gzip"),
        (with(&|manifest, _| manifest.layers[2].size += 1), "its descriptor says"),
        (with(&|manifest, _| manifest.layers.swap(0, 1)), "diff ID of layer 0 is"),
        (with(&|manifest, _| manifest.media_type = Some(MEDIA_TYPE_DOCKER_MANIFEST.to_owned())), "says application"),
        (missing.clone(), "is not in"),
    ] {
        let problems = check(&store, &image).join("\n");
        assert!(problems.contains(problem), "{problems:?} does not tell of {problem:?}");
    }
    let image = with(&|_, _| {});
    let entry = Descriptor { platform: Some("linux/arm64".parse().unwrap()), ..image.clone() };
    assert!(check(&store, &entry)[0].contains("is for linux/amd64, its descriptor says linux/arm64"));
    assert_eq!(image.media_type, MEDIA_TYPE_MANIFEST);

    let path = store.blob_path(&good.0.layers[2].digest);
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::remove_file(&path).unwrap();
    std::fs::write(&path, bytes).unwrap();
    assert!(check(&store, &image).iter().any(|problem| problem.contains("digest mismatch")));
}
