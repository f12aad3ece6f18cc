//! Platforms as tables.

use super::super::*;
use crate::digest::Digest;

#[test]
fn names_are_normalised() {
    for (text, normal) in [
        ("linux/amd64", "linux/amd64"),
        ("Linux/x86_64", "linux/amd64"),
        ("linux/amd64/v1", "linux/amd64"),
        ("linux/amd64/v2", "linux/amd64/v2"),
        ("linux/aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64"),
        ("linux/arm64/8", "linux/arm64"),
        ("linux/arm64/v9", "linux/arm64/v9"),
        ("linux/arm", "linux/arm/v7"),
        ("linux/arm/7", "linux/arm/v7"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("linux/armhf", "linux/arm/v7"),
        ("linux/armel", "linux/arm/v6"),
        ("linux/i386", "linux/386"),
        ("linux/i686", "linux/386"),
        ("linux/riscv64", "linux/riscv64"),
        ("linux/future9", "linux/future9"),
        ("windows/amd64", "windows/amd64"),
        ("macos/arm64", "darwin/arm64"),
        ("arm64", "linux/arm64"),
        ("x86-64", "linux/amd64"),
    ] {
        assert_eq!(text.parse::<Platform>().unwrap().to_string(), normal, "{text}");
    }
    let host = Platform::host();
    assert_eq!("linux".parse::<Platform>().unwrap(), Platform::new("linux", &host.architecture, None));
    assert_eq!(host.to_string().parse::<Platform>().unwrap(), host);
}

#[test]
fn other_texts_are_refused() {
    for text in [
        "",
        "/",
        "linux/",
        "/amd64",
        "linux/amd64/v1/x",
        "foo",
        "linux/am d64",
        "linux/amd64\n",
        "é/amd64",
        "$BUILDPLATFORM",
    ] {
        let error = text.parse::<Platform>().unwrap_err().to_string();
        assert!(error.contains("is not a platform"), "{text}");
    }
}

#[test]
fn newer_cpus_run_older_variants_and_nothing_else() {
    for (wanted, image, rank) in [
        ("linux/amd64", "linux/amd64", Some(0)),
        ("linux/amd64", "linux/amd64/v2", None),
        ("linux/amd64/v3", "linux/amd64/v3", Some(0)),
        ("linux/amd64/v3", "linux/amd64/v2", Some(1)),
        ("linux/amd64/v3", "linux/amd64", Some(2)),
        ("linux/arm/v7", "linux/arm/v7", Some(0)),
        ("linux/arm/v7", "linux/arm/v6", Some(1)),
        ("linux/arm/v7", "linux/arm/v5", Some(2)),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/arm64", "linux/arm64/v8", Some(0)),
        ("linux/arm64", "linux/arm/v7", None),
        ("linux/arm64/v9", "linux/arm64", Some(1)),
        ("linux/amd64", "windows/amd64", None),
        ("linux/386", "linux/amd64", None),
        ("linux/s390x", "linux/s390x", Some(0)),
    ] {
        let (wanted, image): (Platform, Platform) = (wanted.parse().unwrap(), image.parse().unwrap());
        assert_eq!(wanted.rank(&image), rank, "{wanted} runs {image}");
    }
}

fn entry(n: u8, platform: Option<&str>) -> Descriptor {
    let platform = platform.map(|text| match text.split('/').collect::<Vec<_>>()[..] {
        [os, architecture] => Platform { os: os.into(), architecture: architecture.into(), ..Platform::default() },
        _ => text.parse().unwrap(),
    });
    Descriptor { platform, ..Descriptor::new(MEDIA_TYPE_MANIFEST, Digest::of(&[n]), 1) }
}

#[test]
fn an_index_gives_the_best_match() {
    let index = Index {
        manifests: vec![
            entry(0, Some("unknown/unknown")),
            entry(1, Some("linux/arm/v5")),
            entry(2, Some("linux/arm/v6")),
            entry(3, Some("linux/amd64")),
            entry(4, Some("linux/amd64")),
            entry(5, None),
        ],
        ..Index::default()
    };
    let choose = |text: &str| index.choose(&text.parse().unwrap()).map(|entry| entry.digest);
    assert_eq!(choose("linux/amd64"), Ok(Digest::of(&[3])));
    assert_eq!(choose("linux/amd64/v4"), Ok(Digest::of(&[3])));
    assert_eq!(choose("linux/arm/v7"), Ok(Digest::of(&[2])));
    assert_eq!(choose("linux/arm/v5"), Ok(Digest::of(&[1])));
    assert_eq!(
        choose("linux/riscv64").unwrap_err().to_string(),
        "no image for linux/riscv64, there is linux/arm/v5, linux/arm/v6, linux/amd64, linux/amd64, one without platform"
    );
}

#[test]
fn a_single_image_without_platform_is_taken() {
    let amd64 = "linux/amd64".parse().unwrap();
    let mut attestation = entry(1, None);
    attestation.annotations.insert("vnd.docker.reference.type".to_owned(), "attestation-manifest".to_owned());
    let index = Index { manifests: vec![attestation.clone(), entry(2, None)], ..Index::default() };
    assert_eq!(index.choose(&amd64).unwrap().digest, Digest::of(&[2]));
    let index = Index { manifests: vec![attestation], ..Index::default() };
    assert_eq!(index.choose(&amd64).unwrap_err().to_string(), "no image for linux/amd64, there is none at all");
}
