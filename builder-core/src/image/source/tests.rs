//! Layouts and archives as sources, sound and hostile.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use tempfile::TempDir;

use super::*;
use crate::image::MEDIA_TYPE_INDEX;
use crate::image::tests::{put, put_sample, sample};
use crate::image::{CONFIG_LIMIT, ImageConfig, Manifest};
use crate::store::Store;

fn store() -> (TempDir, Store) {
    let dir = TempDir::new().unwrap();
    let store = Store::open(&dir.path().join("state")).unwrap();
    (dir, store)
}

/// Packs a layout directory with a tar of the system's, as users do.
fn pack(layout: &Path, name: &str) -> PathBuf {
    let file = layout.parent().unwrap().join(name);
    let status = std::process::Command::new("tar").arg("-cf").arg(&file).arg("-C").arg(layout).arg(".").status();
    assert!(status.unwrap().success());
    file
}

#[test]
fn images_are_found_by_name_tag_and_digest() {
    let (_dir, store) = store();
    let one = put_sample(&store, &sample(&store, "linux/amd64"));
    store.tag_image("docker.io/library/app:1", &one).unwrap();
    let open = || ImageSource::open_layout(store.path()).unwrap();
    assert_eq!(open().resolve(None).unwrap().digest, one.digest, "the only image needs no name");
    store.tag_image("docker.io/library/app:2", &one).unwrap();
    assert_eq!(open().resolve(None).unwrap().digest, one.digest, "two names of one image are one image");
    let two = put_sample(&store, &sample(&store, "linux/arm64"));
    store.tag_image("docker.io/library/app:2", &two).unwrap();
    store.tag_image("docker.io/library/other:1", &two).unwrap();
    let source = open();
    for (reference, image) in [
        ("docker.io/library/app:1", &one),
        ("docker.io/library/app:2", &two),
        ("2", &two),
        (&one.digest.to_string(), &one),
    ] {
        assert_eq!(source.resolve(Some(reference)).unwrap().digest, image.digest, "{reference}");
    }
    let error = |reference| source.resolve(reference).unwrap_err().to_string();
    assert!(
        error(None).contains("holds several images, name one, there is docker.io/library/app:1, "),
        "{}",
        error(None)
    );
    assert!(error(Some("1")).contains("has several images \"1\""), "{}", error(Some("1")));
    assert!(error(Some("3")).contains("has no image \"3\""));
    assert!(error(Some(&Digest::of(b"").to_string())).contains("is not in"));
}

#[derive(Debug)]
struct CopiedImage {
    descriptor: Descriptor,
    manifest: Manifest,
    config: ImageConfig,
}

/// Copies an image as a build does: the manifest last.
fn copy_image(
    source: &ImageSource,
    to: &Store,
    reference: Option<&str>,
    platform: &Platform,
) -> Result<CopiedImage, SourceError> {
    let descriptor = source.select(source.resolve(reference)?, platform)?;
    let manifest = Manifest::parse(&source.read(&descriptor, MANIFEST_LIMIT)?).unwrap();
    let config = ImageConfig::parse(&source.read(&manifest.config, CONFIG_LIMIT)?).unwrap();
    for blob in manifest.layers.iter().chain([&manifest.config, &descriptor]) {
        source.copy_blob(to, blob)?;
    }
    Ok(CopiedImage { descriptor, manifest, config })
}

#[test]
fn platforms_are_followed_through_indexes_and_blobs_copied_verified() {
    let (dir, from) = store();
    let arm = put_sample(&from, &sample(&from, "linux/arm64"));
    let amd = put_sample(&from, &sample(&from, "linux/amd64"));
    let entry = |image: &Descriptor, text: &str| Descriptor { platform: Some(text.parse().unwrap()), ..image.clone() };
    let inner = Index { manifests: vec![entry(&arm, "linux/arm64"), entry(&amd, "linux/amd64")], ..Index::default() };
    let inner = put(&from, MEDIA_TYPE_INDEX, &inner.to_canonical_json());
    from.tag_image("multi:1", &inner).unwrap();
    let wanted = "linux/amd64".parse().unwrap();

    let archive = pack(from.path(), "layout.tar");
    for source in [ImageSource::open_layout(from.path()).unwrap(), ImageSource::open_archive(&archive).unwrap()] {
        for reference in [None, Some(inner.digest.to_string()), Some(amd.digest.to_string())] {
            let to = Store::open(&dir.path().join("to")).unwrap();
            let image = copy_image(&source, &to, reference.as_deref(), &wanted).unwrap();
            assert_eq!(image.descriptor.digest, amd.digest, "{reference:?}");
            assert_eq!(image.config.platform(), wanted);
            assert_eq!(image.manifest.layers.len(), 3);
            for layer in &image.manifest.layers {
                assert_eq!(to.read_blob(&layer.digest, 1 << 20).unwrap().len() as u64, layer.size);
            }
            drop(to);
            fs::remove_dir_all(dir.path().join("to")).unwrap();
        }
    }
    let error = ImageSource::open_layout(from.path()).unwrap();
    let error = error.select(inner, &"linux/s390x".parse().unwrap()).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "no image for linux/s390x, there is linux/arm64, linux/amd64");
}

#[test]
fn damaged_blobs_are_never_stored() {
    let (dir, from) = store();
    let (manifest, config) = sample(&from, "linux/amd64");
    let image = put_sample(&from, &(manifest.clone(), config));
    from.tag_image("a:1", &image).unwrap();
    let path = from.blob_path(&manifest.layers[1].digest);
    let good = fs::read(&path).unwrap();
    let mut flipped = good.clone();
    flipped[10] ^= 1;
    let longer = [&good[..], b"more"].concat();
    let platform = Platform::host();
    for (bytes, reason) in [(&flipped[..], "expected"), (&good[1..], "bytes"), (&longer, "bytes")] {
        fs::remove_file(&path).unwrap();
        fs::write(&path, bytes).unwrap();
        let source = ImageSource::open_layout(from.path()).unwrap();
        let to = Store::open(&dir.path().join("to")).unwrap();
        let error = copy_image(&source, &to, Some(&image.digest.to_string()), &platform).unwrap_err();
        assert!(error.source().unwrap().to_string().contains(reason), "{error:?}");
        assert!(!to.has_blob(&manifest.layers[1].digest).unwrap() && !to.has_blob(&image.digest).unwrap());
    }
}

#[test]
fn hostile_layouts_are_refused_in_bounded_memory() {
    let dir = TempDir::new().unwrap();
    let open = || ImageSource::open_layout(dir.path()).unwrap_err().to_string();
    assert!(open().contains("no index.json"));
    let index = dir.path().join("index.json");
    rustix::fs::mknodat(rustix::fs::CWD, &index, rustix::fs::FileType::Fifo, rustix::fs::Mode::RWXU, 0).unwrap();
    assert!(open().contains("cannot open"), "a named pipe must not make it wait");
    fs::remove_file(&index).unwrap();
    // A gigabyte of nothing, which a reader without a limit would take into memory.
    fs::File::create(&index).and_then(|file| file.set_len(1 << 30)).unwrap();
    assert!(open().contains("index.json of"), "{}", open());
    fs::write(
        &index,
        r#"{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:../../etc/passwd","size":1}]}"#,
    )
    .unwrap();
    assert!(open().contains("is not usable"));

    let digest = Digest::of(b"big");
    let entry = format!(r#"{{"mediaType":"{MEDIA_TYPE_INDEX}","digest":"{digest}","size":{}}}"#, 1_u64 << 30);
    fs::write(&index, format!(r#"{{"schemaVersion":2,"manifests":[{entry}]}}"#)).unwrap();
    let source = ImageSource::open_layout(dir.path()).unwrap();
    let error = source.select(source.resolve(None).unwrap(), &Platform::host()).unwrap_err();
    assert!(matches!(error, SourceError::BlobTooLarge { .. }), "{error}");
}

/// A tar entry with any header type.
fn entry(kind: u8, name: &str, bytes: &[u8]) -> Vec<u8> {
    let mut header = tar::Header::new_ustar();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.set_entry_type(tar::EntryType::new(kind));
    header.set_size(bytes.len() as u64);
    header.set_cksum();
    let padding = vec![0; bytes.len().next_multiple_of(512) - bytes.len()];
    [header.as_bytes(), bytes, &padding].concat()
}

#[test]
fn archives_are_read_strictly() {
    let dir = TempDir::new().unwrap();
    let file = dir.path().join("a.tar");
    let index = |text: &str| entry(b'0', "index.json", text.as_bytes());
    let empty = r#"{"schemaVersion":2,"manifests":[]}"#;
    let digest = Digest::of(b"blob");
    let blob_name = format!("blobs/sha256/{}", digest.hex());
    let long = |size: u64| {
        let mut header = entry(b'0', "x", b"");
        let tar_header = tar::Header::from_byte_slice(&header);
        let mut tar_header = tar_header.clone();
        tar_header.set_size(size);
        tar_header.set_cksum();
        header[..512].copy_from_slice(tar_header.as_bytes());
        header
    };
    let ok = |parts: &[Vec<u8>]| {
        fs::write(&file, [parts.concat(), vec![0; 1024]].concat()).unwrap();
        ImageSource::open_archive(&file)
    };
    for (parts, reason) in [
        (vec![], "no index.json"),
        (vec![entry(b'0', "manifest.json", b"[]")], "docker archive"),
        (vec![index(empty), index(empty)], "twice"),
        (vec![vec![b'x'; 512]], "no tar header at offset 0"),
        (vec![[&[0x1f, 0x8b][..], &[0; 510]].concat()], "compressed"),
        (vec![long(1 << 40)], "ends within the entry"),
        (vec![long(u64::MAX)], "ends within the entry"),
        (vec![entry(b'x', "pax", &[b'9'; 2 << 20])], "extended header"),
        (vec![entry(b'L', "long", &[b'9'; 2 << 20])], "extended header"),
        (vec![entry(b'g', "global", b"12 size=100\n")], "global header"),
        (vec![entry(b'x', "pax", b"22 GNU.sparse.major=1\n")], "sparse"),
        (vec![entry(b'x', "pax", b"11 size=-1\n")], "bad size"),
    ] {
        let error = ok(&parts).unwrap_err();
        let SourceError::NotALayout { reason: found, .. } = &error else { panic!("{error:?}") };
        assert!(found.contains(reason), "{found} does not contain {reason:?}");
    }
    // Names and sizes of extended headers count, names that are no digests do not matter, links are not followed.
    let pax_name = format!("{} path=./{blob_name}\n", blob_name.len() + 11);
    let source = ok(&[
        entry(b'5', "blobs/", b""),
        entry(b'2', "index.json", b""),
        entry(b'0', "blobs/sha256/../../x", b"evil"),
        entry(b'x', "pax", pax_name.as_bytes()),
        entry(b'0', "short", b"blob"),
        index(empty),
    ])
    .unwrap();
    let descriptor = Descriptor::new("", digest, 4);
    assert_eq!(source.read(&descriptor, 10).unwrap(), b"blob");
    assert!(matches!(source.resolve(None), Err(SourceError::Reference { .. })));
}

proptest::proptest! {
    #[test]
    fn no_bytes_make_the_archive_reader_panic(bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..3000), at in 0_usize..1500) {
        let dir = TempDir::new().unwrap();
        let file = dir.path().join("a.tar");
        let mut tar = [entry(b'x', "pax", b"9 path=a\n"), entry(b'0', "index.json", b"{}")].concat();
        let end = (at + bytes.len()).min(tar.len());
        tar[at..end].copy_from_slice(&bytes[..end - at]);
        fs::write(&file, tar).unwrap();
        ImageSource::open_archive(&file).err();
    }
}
