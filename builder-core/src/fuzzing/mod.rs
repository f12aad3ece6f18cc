//! What any bytes go through in a fuzzer: one function for each parser of foreign input, which panics where one of its laws
//! is broken. Only in tests and with `--cfg fuzzing`; `fuzz/` has the programs, `scripts/fuzz` runs them.
//!
//! Every file of `testdata/fuzz/TARGET/` is an input that once broke a law, or a seed; the tests below run all of them.

mod plan;
#[cfg(test)]
mod tests;

use std::io::Read as _;

use crate::diagnostic::{Diagnostic, SourceFile};
use crate::image::{ImageConfig, Index, Manifest, Platform};
use crate::layer::tar::{Piece, RawKind, Reader};
use crate::tree::path::ancestors;
use crate::tree::pattern::{Decision, Glob, PatternSet};
use crate::tree::{LayerTree, MergedTree};
use crate::{digest, layer, registry};

pub use plan::dockerfile;

/// Most bytes of holes that an archive of the fuzzer may have; the limit of the reader would cost a minute each.
const MAX_HOLE_BYTES: u64 = 1 << 20;

/// Looks at every place of `diagnostics`; slicing panics where a span is not one.
fn render(diagnostics: &[Diagnostic], source: &str) {
    let file = SourceFile::new("Dockerfile", source);
    for diagnostic in diagnostics {
        for label in diagnostic.primary.iter().chain(&diagnostic.secondary) {
            assert!(source.get(label.span.range()).is_some(), "{diagnostic:?}");
        }
        assert!(!diagnostic.render(&file).is_empty());
    }
}

/// An ignore file, a zero byte, paths.
///
/// Laws: what decides is the same found from the root down or in one go, and nothing is kept below a directory that is said
/// to have nothing to keep.
pub fn ignore(data: &[u8]) {
    let (rules, paths) = match data.iter().position(|byte| *byte == 0) {
        Some(at) => (&data[..at], &data[at + 1..]),
        None => (data, data),
    };
    let sets = [PatternSet::parse_ignore_file(rules), PatternSet::new(rules.split(|byte| *byte == b'\n'))];
    for set in sets.into_iter().flatten() {
        for path in paths.split(|byte| *byte == b'\n').filter_map(|path| layer::tar::normalise(path).ok()) {
            let decided = ancestors(&path).collect::<Vec<_>>().into_iter().rev().fold(None, |found, dir| {
                let decided = set.decide_below(dir, found);
                assert!(
                    set.may_include_below_decided(dir, decided) || set.matches(&path) == Some(Decision::Exclude),
                    "{path:?} is kept"
                );
                decided
            });
            assert_eq!(set.decide_below(&path, decided), set.decide(&path));
            if let Some(index) = set.decide(&path) {
                assert!(set.rule(index).line > 0);
            }
        }
    }
    if let Ok(glob) = Glob::parse(rules) {
        for path in paths.split(|byte| *byte == b'\n') {
            glob.matches(path);
            glob.may_match_below(path);
        }
    }
}

/// A tar, and what it means as a layer.
///
/// Laws: names that come out stay inside, the tree is one, it is the same after it was stored, and merging takes it.
pub fn tar(data: &[u8]) {
    if holes(data).is_none_or(|bytes| bytes > MAX_HOLE_BYTES) {
        return;
    }
    let Ok(tree) = layer::tree_of(data) else { return };
    stored(&tree);
    let tree = tree.into();
    let mut merged = MergedTree::new();
    merged.apply(&tree, 0);
    merged.apply(&tree, 1);
    for (path, _) in merged.iter() {
        assert!(path.split(|byte| *byte == b'/').all(|name| name != b".." && name != b"."), "{path:?}");
    }
    for pattern in [&b"*"[..], b"*/*", b"a*/../[b-z]?"] {
        let _paths = merged.expand(pattern);
    }
}

/// Bytes of holes in an archive, `None` when it is malformed before its end.
fn holes(data: &[u8]) -> Option<u64> {
    let mut reader = Reader::new(data);
    let mut buffer = vec![0; 4096];
    let mut bytes = 0;
    while let Some(entry) = reader.next().ok()? {
        if !matches!(entry.kind, RawKind::File) {
            continue;
        }
        while let Some(piece) = reader.next_piece(&mut buffer).ok()? {
            if let Piece::Hole(len) = piece {
                bytes += len;
            }
        }
    }
    Some(bytes)
}

/// A layer's blob in whatever compression: decoding ends, with bytes or with an error.
pub fn blob(data: &[u8]) {
    let Ok(decoder) = layer::decode(data, layer::Accepted::Archive) else { return };
    // A few bytes can stand for many.
    let mut tar = Vec::new();
    if decoder.take(4 << 20).read_to_end(&mut tar).is_ok() {
        self::tar(&tar);
    }
}

/// The body of a stored tree; its checksum is made right. Laws: an error, or a tree that encodes to what decodes to it.
pub fn tree(data: &[u8]) {
    let checksum = *blake3::hash(data).as_bytes();
    if let Ok(tree) = LayerTree::decode(&[data, &checksum[..]].concat()) {
        stored(&tree);
    }
    assert!(LayerTree::decode(data).is_err(), "no checksum");
}

fn stored(tree: &LayerTree) {
    let mut bytes = Vec::new();
    tree.encode(&mut bytes).expect("memory takes all");
    assert_eq!(&LayerTree::decode(&bytes).expect("what was encoded decodes"), tree);
    assert!(LayerTree::from_sorted(tree.entries().to_vec()).is_ok(), "the invariants hold");
}

/// A manifest, an index, an image config. Law: what is written reads back as the same value, and as the same bytes.
pub fn documents(data: &[u8]) {
    if let Ok(manifest) = Manifest::parse(data) {
        let bytes = manifest.to_canonical_json();
        assert_eq!(Manifest::parse(&bytes).expect("canonical"), manifest);
        assert_eq!(manifest.descriptor().digest, digest::Digest::of(&bytes));
    }
    if let Ok(index) = Index::parse(data) {
        assert_eq!(Index::parse(&index.to_canonical_json()).expect("canonical"), index);
        for wanted in ["linux/amd64", "linux/arm/v7", "windows/amd64"] {
            let wanted: Platform = wanted.parse().expect("a platform");
            if let Ok(chosen) = index.choose(&wanted) {
                assert!(index.manifests.contains(chosen));
            }
        }
    }
    if let Ok(config) = ImageConfig::parse(data) {
        assert_eq!(ImageConfig::parse(&config.to_canonical_json()).expect("canonical"), config);
    }
}

/// Names of images, platforms, digests and places of sources. Law: what is shown parses to the same value.
pub fn names(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    if let Ok(reference) = text.parse::<registry::Reference>() {
        assert_eq!(reference.to_string().parse().as_ref(), Ok(&reference));
        assert_eq!(reference.familiar().parse().as_ref(), Ok(&reference));
    }
    if let Ok(platform) = text.parse::<Platform>() {
        let normal = platform.normalized();
        assert_eq!(normal.to_string().parse::<Platform>().expect("shown platforms parse").normalized(), normal);
    }
    if let Ok(digest) = text.parse::<digest::Digest>() {
        assert_eq!(digest.to_string(), text);
    }
    if let Some(name) = crate::plan::file_name(text) {
        assert!(!name.contains('/') && name != ".." && name != ".", "{name:?}");
    }
    // What git could take for an option is refused later, by `fetch`.
    if let Ok(source) = crate::plan::git_context(text, false) {
        assert!(text.starts_with(&source.remote), "{text:?}");
    }
}

/// Values of `WWW-Authenticate`, one a line.
pub fn challenge(data: &[u8]) {
    let mut headers = reqwest::header::HeaderMap::new();
    for line in data.split(|byte| *byte == b'\n') {
        if let Ok(value) = reqwest::header::HeaderValue::from_bytes(line) {
            headers.append(reqwest::header::WWW_AUTHENTICATE, value);
        }
    }
    registry::exercise_challenge(&headers);
}
