//! Exports, read back by our own reader and by other tools where they are installed.

use std::fs;
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Command, Output};
use std::thread;

use tempfile::TempDir;

use super::*;
use crate::image::tests::{put, put_sample, sample};
use crate::image::{ImageSource, MEDIA_TYPE_INDEX, validate};
use crate::request::Destination;

fn store() -> (TempDir, Store, Descriptor) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    let image = put_sample(&store, &sample(&store, "linux/amd64"));
    (dir, store, image)
}

fn to(path: &Path) -> Destination {
    Destination::File(path.to_owned())
}

fn names(names: &[&str]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

/// Name and tag annotations of each entry, in order.
fn entries(layout: &Path) -> Vec<(Option<String>, Option<String>, Digest)> {
    let index = Index::parse(&fs::read(layout.join("index.json")).unwrap()).unwrap();
    let annotation = |entry: &Descriptor, key: &str| entry.annotations.get(key).cloned();
    let entry = |entry: &Descriptor| {
        (annotation(entry, ANNOTATION_REF_NAME), annotation(entry, ANNOTATION_IMAGE_NAME), entry.digest)
    };
    index.manifests.iter().map(entry).collect()
}

/// Runs a tool of the system, or tells that the check is skipped because there is none.
fn tool(name: &str, args: &[&str]) -> Option<Output> {
    match Command::new(name).args(args).output() {
        Ok(output) => Some(output),
        Err(error) => {
            eprintln!("SKIP tools_of_the_system: {name} {}: {error}", args.join(" "));
            None
        }
    }
}

#[track_caller]
fn expect_tool(name: &str, args: &[&str], expected: &str) {
    let Some(output) = tool(name, args) else { return };
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains(expected), "{name} {args:?} said: {text}");
}

#[test]
fn tags_are_what_follows_the_last_colon_of_the_last_component() {
    for (name, tag) in [
        ("docker.io/library/app:1.2", "1.2"),
        ("localhost:5000/app", "latest"),
        ("localhost:5000/a/b:x", "x"),
        ("app", "latest"),
        ("app:1@sha256:00", "1"),
    ] {
        assert_eq!(tag_of(name), tag, "{name}");
    }
}

#[test]
fn a_layout_keeps_others_and_replaces_the_same_tag() {
    let (dir, store, one) = store();
    let two = put_sample(&store, &sample(&store, "linux/arm64"));
    let dest = dir.path().join("deep/out");
    let export = |image: &Descriptor, tags: &[&str]| {
        let names = names(tags);
        export_layout(&store, Image { descriptor: image, names: &names }, &dest).unwrap();
    };
    let named = |tag: &str, name: &str, image: &Descriptor| (Some(tag.to_owned()), Some(name.to_owned()), image.digest);
    export(&one, &["docker.io/library/app:1", "example.com/app:edge"]);
    export(&two, &["docker.io/library/other:2"]);
    export(&two, &["docker.io/library/app:1"]);
    let expected = [
        named("edge", "example.com/app:edge", &one),
        named("2", "docker.io/library/other:2", &two),
        named("1", "docker.io/library/app:1", &two),
    ];
    assert_eq!(entries(&dest), expected);
    export(&one, &[]);
    export(&one, &[]);
    assert_eq!(entries(&dest)[..3], expected);
    assert_eq!(entries(&dest)[3..], [(None, None, one.digest)], "unnamed entries do not pile up");

    let source = ImageSource::open_layout(&dest).unwrap();
    for tag in ["1", "2", "edge"] {
        validate(&source, &source.resolve(Some(tag)).unwrap()).unwrap();
    }
    let blobs: Vec<_> = fs::read_dir(dest.join("blobs/sha256")).unwrap().map(Result::unwrap).collect();
    assert_eq!(blobs.len(), 10, "no temporary file stays");
    for blob in blobs {
        let meta = blob.metadata().unwrap();
        assert_eq!((meta.nlink(), meta.mode() & 0o200), (1, 0o200), "copies belong to the user");
    }
}

#[test]
fn a_damaged_copy_is_replaced_and_other_directories_are_refused() {
    let (dir, store, image) = store();
    let export = |dest: &Path| export_layout(&store, Image { descriptor: &image, names: &[] }, dest);
    let dest = dir.path().join("out");
    export(&dest).unwrap();
    let blob = dest.join("blobs/sha256").join(image.digest.hex());
    fs::write(&blob, "").unwrap();
    export(&dest).unwrap();
    assert_eq!(Digest::of(&fs::read(&blob).unwrap()), image.digest);

    let home = dir.path().join("home");
    fs::create_dir(&home).unwrap();
    fs::write(home.join("thesis.tex"), "").unwrap();
    assert!(matches!(export(&home), Err(Error::NotALayout { .. })));
    assert_eq!(fs::read_dir(&home).unwrap().count(), 1);
}

#[test]
fn exports_into_one_layout_at_once_lose_nothing() {
    let (dir, store, image) = store();
    let dest = dir.path().join("out");
    thread::scope(|scope| {
        for n in 0..8 {
            let (store, image, dest) = (&store, &image, &dest);
            scope.spawn(move || {
                let names = [format!("app:{n}")];
                export_layout(store, Image { descriptor: image, names: &names }, dest).unwrap();
            });
        }
    });
    assert_eq!(entries(&dest).len(), 8);
}

#[test]
fn an_index_is_exported_with_all_its_images_and_missing_blobs_are_told() {
    let (dir, store, one) = store();
    let two = put_sample(&store, &sample(&store, "linux/arm64"));
    let index = Index { manifests: vec![one, two], ..Index::default() };
    let index = put(&store, MEDIA_TYPE_INDEX, &index.to_canonical_json());
    let dest = dir.path().join("out");
    export_layout(&store, Image { descriptor: &index, names: &[] }, &dest).unwrap();
    validate(&ImageSource::open_layout(&dest).unwrap(), &index).unwrap();

    let (mut manifest, config) = sample(&store, "linux/amd64");
    let mut gone = Descriptor::new("application/vnd.oci.image.layer.v1.tar", Digest::of(b"gone"), 4);
    manifest.layers.push(gone.clone());
    let image = put_sample(&store, &(manifest.clone(), config.clone()));
    let dest = dir.path().join("not");
    let error = export_layout(&store, Image { descriptor: &image, names: &[] }, &dest).unwrap_err();
    assert_eq!(error.to_string(), format!("cannot export {}", gone.digest));
    assert!(!dest.exists(), "nothing is written when something is missing");

    gone.urls = vec!["https://example.com/base".to_owned()];
    manifest.layers[3] = gone;
    let image = put_sample(&store, &(manifest, config));
    export_layout(&store, Image { descriptor: &image, names: &[] }, &dest).unwrap();
}

#[test]
fn archives_are_the_same_every_time() {
    let (dir, store, image) = store();
    let names = names(&["docker.io/library/app:1"]);
    let image = Image { descriptor: &image, names: &names };
    let (a, b) = (dir.path().join("a.tar"), dir.path().join("b.tar"));
    export_archive(&store, image, &to(&a)).unwrap();
    thread::sleep(std::time::Duration::from_millis(5));
    export_archive(&store, image, &to(&b)).unwrap();
    let bytes = fs::read(&a).unwrap();
    assert_eq!(bytes, fs::read(&b).unwrap());

    let mut archive = tar::Archive::new(&bytes[..]);
    let mut seen = Vec::new();
    for entry in archive.entries().unwrap() {
        let entry = entry.unwrap();
        let header = entry.header();
        assert_eq!((header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()), (0, 0, 0));
        seen.push(entry.path().unwrap().to_str().unwrap().to_owned());
    }
    assert!(seen.is_sorted() && seen.len() == 2 + 5 + 2, "{seen:?}");
    let source = ImageSource::open_archive(&a).unwrap();
    for name in ["1", "docker.io/library/app:1"] {
        validate(&source, &source.resolve(Some(name)).unwrap()).unwrap();
    }
}

#[test]
fn archives_replace_files_follow_links_and_write_to_pipes() {
    let (dir, store, image) = store();
    let image = Image { descriptor: &image, names: &[] };
    let real = dir.path().join("real.tar");
    fs::write(&real, "old").unwrap();
    let link = dir.path().join("link.tar");
    symlink(&real, &link).unwrap();
    export_archive(&store, image, &to(&link)).unwrap();
    assert!(link.is_symlink());
    let bytes = fs::read(&real).unwrap();
    ImageSource::open_archive(&real).unwrap();

    let fifo = dir.path().join("fifo");
    rustix::fs::mknodat(rustix::fs::CWD, &fifo, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    for dest in [fifo.clone(), Path::new("/dev/null").to_owned()] {
        thread::scope(|scope| {
            let reader = scope.spawn(|| if dest == fifo { fs::read(&fifo).unwrap() } else { bytes.clone() });
            export_archive(&store, image, &to(&dest)).unwrap();
            assert!(reader.join().unwrap() == bytes);
        });
    }
    assert!(!fs::metadata("/dev/null").unwrap().is_file());
    let left: Vec<_> = fs::read_dir(dir.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(left.len(), 4, "{left:?}");
    assert!(matches!(export_archive(&store, image, &to(&dir.path().join("no/a.tar"))), Err(Error::Io { .. })));
}

#[test]
fn other_tools_read_what_is_written() {
    let (dir, store, image) = store();
    let full = "docker.io/library/app:1.2";
    let names = names(&[full]);
    store.tag_image(full, &image).unwrap();
    let image = Image { descriptor: &image, names: &names };
    let (layout, archive) = (dir.path().join("layout"), dir.path().join("a.tar"));
    export_layout(&store, image, &layout).unwrap();
    export_archive(&store, image, &to(&archive)).unwrap();
    let (layout, archive) = (layout.to_str().unwrap(), archive.to_str().unwrap());
    let state = store.path().to_str().unwrap();
    let digest = image.descriptor.digest.to_string();

    expect_tool("skopeo", &["inspect", &format!("oci:{layout}:1.2")], &digest);
    expect_tool("skopeo", &["inspect", &format!("oci-archive:{archive}")], &digest);
    expect_tool("skopeo", &["inspect", &format!("oci-archive:{archive}:1.2")], &digest);
    expect_tool("skopeo", &["inspect", &format!("oci:{state}:{full}")], &digest);
    expect_tool("umoci", &["ls", "--layout", layout], "1.2");
    expect_tool("umoci", &["stat", "--image", &format!("{layout}:1.2")], "LAYER");
    expect_tool("umoci", &["ls", "--layout", state], full);
    if !rustix::process::geteuid().is_root() {
        // Without root it starts a process that stays.
        eprintln!("SKIP podman_load: needs root, else it starts a process that stays");
        return;
    }
    let path = |name: &str| dir.path().join("podman").join(name).to_str().unwrap().to_owned();
    let (root, run, tmp) = (path("root"), path("run"), path("tmp"));
    let podman = ["--root", &root, "--runroot", &run, "--tmpdir", &tmp, "--storage-driver", "vfs"];
    expect_tool("podman", &[&podman[..], &["load", "-q", "-i", archive]].concat(), full);
    crate::store::remove_tree(&dir.path().join("podman"));
}

#[test]
fn what_a_killed_export_left_goes_with_the_next() {
    let (dir, store, image) = store();
    let left = dir.path().join(".a.tar.1-2-3.tmp");
    let other = dir.path().join(".b.tar.1-2-3.tmp");
    let busy = dir.path().join(".a.tar.4-5-6.tmp");
    for file in [&left, &other, &busy] {
        fs::write(file, "half").unwrap();
    }
    let held = File::open(&busy).unwrap();
    held.lock().unwrap();
    export_archive(&store, Image { descriptor: &image, names: &[] }, &to(&dir.path().join("a.tar"))).unwrap();
    assert!(!left.exists() && other.exists() && busy.exists());
}
