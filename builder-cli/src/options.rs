//! Values of options with a grammar of their own.

use std::path::PathBuf;

use builder_core::{Compression, CompressionKind, ContextSource, Output};

use crate::args::CompressionName;
use crate::failure::Failure;

/// `NAME=VALUE`, or `NAME` whose value is looked up; a name that is not set anywhere is left out.
pub(crate) fn build_arg(text: &str) -> Result<Option<(String, String)>, Failure> {
    match text.split_once('=') {
        Some(("", _)) => Err(Failure::usage(format!("--build-arg {text:?} has no name"))),
        Some((name, value)) => Ok(Some((name.to_owned(), value.to_owned()))),
        None => Ok(std::env::var(text).ok().map(|value| (text.to_owned(), value))),
    }
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

fn context_place(name: &str, place: &str) -> Result<ContextSource, Failure> {
    if let Some(reference) = place.strip_prefix("docker-image://") {
        return Ok(ContextSource::Image(reference.to_owned()));
    }
    if let Some(rest) = place.strip_prefix("oci-layout://") {
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
        let known = "a directory, a tar, http(s)://, git, oci-layout://DIR, oci-archive:FILE and docker-image://REF are";
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

/// Codec and level, checked against each other.
pub(crate) fn compression(kind: CompressionKind, level: Option<u8>) -> Result<Compression, Failure> {
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
            Err(Failure::usage(text))
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

/// `type=oci,dest=…` and its options: one CSV record, as in `docker build --output`.
pub(crate) fn output(text: &str) -> Result<Output, Failure> {
    let fail = |what: String| Failure::usage(format!("--output {text:?}: {what}"));
    let mut kind = None;
    let mut dest = None;
    let mut tar = true;
    let mut codec = None;
    let mut level = None;
    for field in csv_fields(text).map_err(&fail)? {
        let Some((key, value)) = field.split_once('=') else {
            return Err(fail(format!("{field:?} is not key=value; for an OCI archive write type=oci,dest={field}")));
        };
        match key {
            "type" => kind = Some(value.to_owned()),
            "dest" => dest = Some(PathBuf::from(value)),
            "tar" => tar = value.parse().map_err(|_| fail(format!("tar={value:?} is neither true nor false")))?,
            "compression" => codec = Some(codec_name(value).ok_or_else(|| fail(format!("no codec {value:?}")))?),
            "compression-level" => {
                level = Some(value.parse::<u8>().map_err(|_| fail(format!("{value:?} is no level")))?);
            }
            _ => return Err(fail(format!("unknown key {key:?} (known: type, dest, tar, compression, compression-level)"))),
        }
    }
    match kind.as_deref() {
        Some("oci") => {}
        Some(other) => return Err(fail(format!("type {other:?} is not supported; oci is"))),
        None => return Err(fail("type is missing".to_owned())),
    }
    let dest = dest.filter(|dest| !dest.as_os_str().is_empty()).ok_or_else(|| fail("dest is missing".to_owned()))?;
    if dest.as_os_str() == "-" {
        return Err(fail("writing to standard output is not supported; name a file".to_owned()));
    }
    let compression = match (codec, level) {
        (None, None) => None,
        (codec, level) => Some(compression(codec.unwrap_or(CompressionKind::Gzip), level)?),
    };
    Ok(match tar {
        true => Output::OciArchive { dest, compression },
        false => Output::OciLayout { dest, compression },
    })
}

fn codec_name(text: &str) -> Option<CompressionKind> {
    match text {
        "gzip" => Some(CompressionKind::Gzip),
        "zstd" => Some(CompressionKind::Zstd),
        "uncompressed" => Some(CompressionKind::Uncompressed),
        _ => None,
    }
}

/// Fields of one CSV record (RFC 4180): a field may be quoted, a quote inside is doubled.
fn csv_fields(text: &str) -> Result<Vec<String>, String> {
    let mut fields = vec![String::new()];
    let mut chars = text.chars().peekable();
    let mut quoted = false;
    while let Some(c) = chars.next() {
        let field = fields.last_mut().ok_or("no field")?;
        match c {
            '"' if quoted && chars.peek() == Some(&'"') => {
                chars.next();
                field.push('"');
            }
            '"' if quoted => quoted = false,
            '"' if field.is_empty() => quoted = true,
            ',' if !quoted => fields.push(String::new()),
            c => field.push(c),
        }
    }
    if quoted { Err("a quote is not closed".to_owned()) } else { Ok(fields) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(failure: Failure) -> String {
        format!("{failure:?}")
    }

    #[test]
    fn outputs() {
        assert_eq!(
            output("type=oci,dest=a.tar").unwrap(),
            Output::OciArchive { dest: "a.tar".into(), compression: None }
        );
        let zstd = Compression { kind: CompressionKind::Zstd, level: Some(9) };
        assert_eq!(
            output("type=oci,tar=false,\"dest=a,b\",compression=zstd,compression-level=9").unwrap(),
            Output::OciLayout { dest: "a,b".into(), compression: Some(zstd) }
        );
        for (bad, part) in [
            ("out", "type=oci,dest=out"),
            ("type=tarball,dest=x", "tarball"),
            ("type=oci", "dest is missing"),
            ("dest=x", "type is missing"),
            ("type=oci,dest=x,compression=lzma", "lzma"),
            ("type=oci,dest=x,compression-level=10", "out of range 0 to 9"),
            ("type=oci,dest=x,colour=red", "colour"),
            ("type=oci,\"dest=x", "not closed"),
        ] {
            let text = message(output(bad).unwrap_err());
            assert!(text.contains(part), "{bad}: {text}");
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
        assert_eq!(place("a=../b=c"), ContextSource::Directory("../b=c".into()));
        for bad in ["a", "=x", "a=", "a=https://example.org/x.git", "a=-"] {
            assert!(build_context(bad).is_err(), "{bad}");
        }
    }
}
