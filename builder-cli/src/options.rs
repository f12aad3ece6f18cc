//! Values of options with a grammar of their own.

mod run;

use std::path::{Path, PathBuf};

use builder_core::{Compression, CompressionKind, ContextSource, Entitlement, ImagePlace, StepNetwork};

use crate::args::{Allowed, CompressionName, NetworkName};
use crate::failure::Failure;
pub(crate) use run::{binary_size, extra_host, no_attestation, no_daemon, ulimit};

/// `NAME=VALUE`, or `NAME` whose value is looked up; a name that is not set anywhere is left out.
pub(crate) fn build_arg(text: &str) -> Result<Option<(String, String)>, Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("--build-arg {text:?} has no name"))),
        Some((name, value)) => Ok(Some((name.to_owned(), value.to_owned()))),
        None => Ok(std::env::var(text).ok().map(|value| (text.to_owned(), value))),
    }
}

/// The lines of a `--build-arg-file`, each as `--build-arg` takes it; empty lines and those that begin with `#` are
/// passed over. A value is taken as it stands, but for white space at the ends of the line.
pub(crate) fn build_arg_file(path: &Path) -> Result<Vec<(String, String)>, Failure> {
    let shown = path.display();
    let fail = |what: String| Failure::usage(format!("--build-arg-file {shown}{what}"));
    let text = std::fs::read_to_string(path).map_err(|source| fail(format!(": {source}")))?;
    let mut args = Vec::new();
    for (number, line) in text.lines().enumerate() {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let name = line.split('=').next().unwrap_or_default();
        if name.is_empty() || name.contains(char::is_whitespace) {
            return Err(fail(format!(":{}: want NAME=VALUE, found {line:?}", number + 1)));
        }
        args.extend(build_arg(line)?);
    }
    Ok(args)
}

/// `KEY=VALUE`; a missing value is empty.
pub(crate) fn label(text: &str) -> Result<(String, String), Failure> {
    let (key, value) = text.split_once('=').unwrap_or((text, ""));
    if key.is_empty() {
        return Err(Failure::usage(format!("--label {text:?} has no key")));
    }
    Ok((key.to_owned(), value.to_owned()))
}

/// `NAME=WHERE` of `--build-context`.
pub(crate) fn build_context(text: &str) -> Result<(String, ContextSource), Failure> {
    let (name, place) = text
        .split_once('=')
        .filter(|(name, place)| !name.is_empty() && !place.is_empty())
        .ok_or_else(|| Failure::usage(format!("--build-context {text:?}: want NAME=WHERE")))?;
    Ok((name.to_owned(), context_place(name, place)?))
}

/// Of an image in a registry or the store: BuildKit's way, and Buildah's.
const IMAGE_PREFIXES: [&str; 3] = ["docker-image://", "container-image://", "docker://"];

fn context_place(name: &str, place: &str) -> Result<ContextSource, Failure> {
    if let Some(reference) = IMAGE_PREFIXES.iter().find_map(|prefix| place.strip_prefix(prefix)) {
        return Ok(ContextSource::Image(reference.to_owned()));
    }
    if let Some(rest) = place.strip_prefix("docker-archive:") {
        let (path, name) = split_archive(rest);
        return Ok(ContextSource::DockerArchive { path, name });
    }
    if let Some(rest) = place.strip_prefix("oci-layout://").or_else(|| place.strip_prefix("oci:")) {
        let (path, reference) = split_reference(rest);
        return Ok(ContextSource::OciLayout { path, reference });
    }
    if let Some(rest) = place.strip_prefix("oci-archive:") {
        let (path, reference) = split_reference(rest.strip_prefix("//").unwrap_or(rest));
        return Ok(ContextSource::OciArchive { path, reference });
    }
    let path = PathBuf::from(place);
    if path.is_dir() {
        return Ok(ContextSource::Directory(path));
    }
    if let Some(source) = remote_context(place) {
        return Ok(source);
    }
    if place.contains("://") || place == "-" {
        let known = "a directory, a tar, http(s)://, git, oci-layout://DIR, oci-archive:FILE, docker-archive:FILE and docker-image://REF are";
        return Err(Failure::usage(format!("--build-context {name}={place}: this kind is not supported; {known}")));
    }
    Ok(if path.is_file() { ContextSource::Archive(absolute(path)?) } else { ContextSource::Directory(path) })
}

/// A context that is not on this machine, as `docker build` tells it: `git@…`, `git://…`, `ssh://…`, `github.com/…` and
/// http(s) with a path that ends in `.git` are repositories.
pub(crate) fn remote_context(text: &str) -> Option<ContextSource> {
    if text.starts_with("github.com/") {
        return Some(ContextSource::Git(format!("https://{text}")));
    }
    let scp = text.split_once('@').is_some_and(|(user, rest)| {
        !user.is_empty() && !user.contains(['/', ':']) && rest.split('/').next().is_some_and(|host| host.contains(':'))
    });
    if text.starts_with("git://") || text.starts_with("ssh://") || (scp && !text.contains("://")) {
        return Some(ContextSource::Git(text.to_owned()));
    }
    if !text.starts_with("http://") && !text.starts_with("https://") {
        return None;
    }
    let path = text.split(['#', '?']).next().unwrap_or_default();
    Some(match path.ends_with(".git") {
        true => ContextSource::Git(text.to_owned()),
        false => ContextSource::Http(text.to_owned()),
    })
}

/// The build process reads it, and need not be where this one is.
pub(crate) fn absolute(path: PathBuf) -> Result<PathBuf, Failure> {
    std::path::absolute(&path).map_err(|source| Failure::usage(format!("{}: {source}", path.display())))
}

/// A place of `builder copy`.
pub(crate) fn image_place(text: &str) -> Result<ImagePlace, Failure> {
    let known = "docker://NAME, store:NAME, oci:DIR[:TAG], oci-archive:FILE[:TAG], docker-archive:FILE[:NAME]";
    let bad = || Failure::usage(format!("{text:?} is not a place of an image (known: {known})"));
    let (kind, rest) = text.split_once(':').filter(|(_, rest)| !rest.is_empty()).ok_or_else(bad)?;
    match kind {
        "docker" => rest.strip_prefix("//").map(|name| ImagePlace::Registry(name.to_owned())).ok_or_else(bad),
        "store" => Ok(ImagePlace::Store(rest.to_owned())),
        "oci" | "oci-archive" => {
            let (path, reference) = split_reference(rest);
            Ok(match kind {
                "oci" => ImagePlace::OciLayout { path, reference },
                _ => ImagePlace::OciArchive { path, reference },
            })
        }
        "docker-archive" => {
            let (path, name) = split_archive(rest);
            Ok(ImagePlace::DockerArchive { path, name })
        }
        _ => Err(bad()),
    }
}

/// `PATH[:NAME]`. A name may have slashes and a tag: the first colon ends the path.
fn split_archive(text: &str) -> (PathBuf, Option<String>) {
    let (path, name) = text.split_once(':').map_or((text, None), |(path, name)| (path, Some(name.to_owned())));
    (path.into(), name)
}

/// `PATH[:TAG][@DIGEST]`; a path that exists as written is never split.
fn split_reference(text: &str) -> (PathBuf, Option<String>) {
    let whole = PathBuf::from(text);
    if whole.exists() {
        return (whole, None);
    }
    if let Some((path, digest)) = text.rsplit_once('@') {
        let path = path.rsplit_once(':').map_or(path, |(path, _)| path);
        return (PathBuf::from(path), Some(digest.to_owned()));
    }
    match text.rsplit_once(':') {
        Some((path, tag)) if !tag.contains('/') => (PathBuf::from(path), Some(tag.to_owned())),
        _ => (whole, None),
    }
}

/// A number of bytes with a decimal unit: `500M`, `10GB`; plain bytes without one.
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let factor: u64 = match text[digits.len()..].to_ascii_lowercase().trim_end_matches('b') {
        "" => 1,
        "k" => 1_000,
        "m" => 1_000_000,
        "g" => 1_000_000_000,
        "t" => 1_000_000_000_000,
        unit => return Err(format!("unknown unit {unit:?}")),
    };
    let number: u64 = digits.parse().map_err(|_| format!("{text:?} is not a size"))?;
    number.checked_mul(factor).ok_or_else(|| format!("{text:?} is too large"))
}

/// Codec and level, checked against each other.
pub(crate) fn compression(kind: CompressionKind, level: Option<u8>) -> Result<Compression, String> {
    let range = match kind {
        CompressionKind::Gzip => 0..=9,
        CompressionKind::Zstd => 1..=22,
        CompressionKind::Uncompressed => 0..=0,
    };
    match level {
        Some(level) if !range.contains(&level) => {
            let text = match kind {
                CompressionKind::Uncompressed => "an uncompressed layer has no compression level".to_owned(),
                _ => format!("compression level {level} is out of range {} to {}", range.start(), range.end()),
            };
            Err(text)
        }
        _ => Ok(Compression { kind, level }),
    }
}

impl From<CompressionName> for CompressionKind {
    fn from(name: CompressionName) -> Self {
        match name {
            CompressionName::Gzip => Self::Gzip,
            CompressionName::Zstd => Self::Zstd,
            CompressionName::Uncompressed => Self::Uncompressed,
        }
    }
}

/// Parses `--allow`.
pub(crate) fn entitlement(text: &str) -> Result<Allowed, String> {
    Ok(Allowed::Entitlement(match text {
        "network.host" => Entitlement::NetworkHost,
        "security.insecure" => Entitlement::SecurityInsecure,
        "device" => Entitlement::Device,
        _ => match text.strip_prefix("device=") {
            Some(name) if name.contains('/') => return Ok(Allowed::Device(name.to_owned())),
            Some(_) => return Err("a device has a name of the form vendor.com/class=device".to_owned()),
            None => return Err("want network.host, security.insecure, device or device=NAME".to_owned()),
        },
    }))
}

impl From<NetworkName> for StepNetwork {
    fn from(name: NetworkName) -> Self {
        match name {
            NetworkName::Default | NetworkName::Host => Self::Host,
            NetworkName::None => Self::None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in
            [("0", 0), ("512", 512), ("3k", 3_000), ("10GB", 10_000_000_000), ("2T", 2_000_000_000_000)]
        {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for bad in ["", "GB", "1x", "-1", "99999999999T"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn files_of_build_args() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let parse = |text: &str| {
            std::fs::write(file.path(), text).unwrap();
            build_arg_file(file.path()).map_err(|error| format!("{error:?}"))
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(
            parse("# a comment\n\n A=1 \r\nB=x = \"y\" # z\nC=\nBUILDER_NOT_SET_ANYWHERE\n"),
            Ok(vec![pair("A", "1"), pair("B", "x = \"y\" # z"), pair("C", "")])
        );
        for (bad, part) in [("A=1\n=2", ":2: want"), ("export A=1", ":1: want"), ("a b", ":1: want")] {
            let text = parse(bad).unwrap_err();
            assert!(text.contains(part), "{bad:?}: {text}");
        }
        build_arg_file(Path::new("/no/such/file")).unwrap_err();
    }

    #[test]
    fn image_places() {
        let reference = |text: &str| Some(text.to_owned());
        for (text, place) in [
            ("docker://h:5/a:b", ImagePlace::Registry("h:5/a:b".into())),
            ("store:a:1", ImagePlace::Store("a:1".into())),
            ("oci:none/dir:v1", ImagePlace::OciLayout { path: "none/dir".into(), reference: reference("v1") }),
            ("oci:none/dir", ImagePlace::OciLayout { path: "none/dir".into(), reference: None }),
            ("oci-archive:a.tar:x", ImagePlace::OciArchive { path: "a.tar".into(), reference: reference("x") }),
            (
                "docker-archive:a.tar:q.io/x:1",
                ImagePlace::DockerArchive { path: "a.tar".into(), name: reference("q.io/x:1") },
            ),
        ] {
            assert_eq!(image_place(text).unwrap(), place, "{text}");
        }
        for bad in ["a", "oci:", "docker:a", "dir:x", ""] {
            assert!(image_place(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn build_contexts() {
        let place = |text: &str| build_context(text).unwrap().1;
        assert_eq!(place("a=docker-image://x:1"), ContextSource::Image("x:1".into()));
        assert_eq!(
            place("a=oci-layout:///none/l:v1"),
            ContextSource::OciLayout { path: "/none/l".into(), reference: Some("v1".into()) }
        );
        assert_eq!(
            place("a=oci-layout:///none/l@sha256:00"),
            ContextSource::OciLayout { path: "/none/l".into(), reference: Some("sha256:00".into()) }
        );
        assert_eq!(
            place("a=oci-archive:none.tar"),
            ContextSource::OciArchive { path: "none.tar".into(), reference: None }
        );
        for image in ["docker://h/x:1", "container-image://h/x:1"] {
            assert_eq!(place(&format!("a={image}")), ContextSource::Image("h/x:1".into()));
        }
        assert_eq!(
            place("a=oci:/none/l:v1"),
            ContextSource::OciLayout { path: "/none/l".into(), reference: Some("v1".into()) }
        );
        assert_eq!(
            place("a=docker-archive:none.tar:h:5/x:1"),
            ContextSource::DockerArchive { path: "none.tar".into(), name: Some("h:5/x:1".into()) }
        );
        assert_eq!(place("a=../b=c"), ContextSource::Directory("../b=c".into()));
        assert_eq!(place("a=https://example.org/x.git#v1"), ContextSource::Git("https://example.org/x.git#v1".into()));
        assert_eq!(place("a=https://example.org/x.tar"), ContextSource::Http("https://example.org/x.tar".into()));
        for bad in ["a", "=x", "a=", "a=ftp://example.org/x.tar", "a=-"] {
            assert!(build_context(bad).is_err(), "{bad}");
        }
    }
}
