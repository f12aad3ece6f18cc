//! Images that a Dockerfile names by where they are, in the words of Buildah: `FROM oci-archive:base.tar`.
//!
//! A registry's image may be called so too. What is on this machine must lie in the build's own directory: a Dockerfile may
//! come from anybody, and what else is here is named by whoever builds (`--build-context`).

use std::io;
use std::path::{Path, PathBuf};

use super::ImageError;
use crate::request::ContextSource;

/// Other words for places of images, which have another meaning here or none.
const UNKNOWN: [&str; 5] = ["oci-layout:", "docker:", "docker-image:", "containers-storage:", "dir:"];

/// The image that `text` says the place of; `None` where it is a name. `directory` is the build context, if that is a
/// directory.
pub(super) fn place(text: &str, directory: Option<&Path>) -> Result<Option<ContextSource>, ImageError> {
    if let Some(name) = text.strip_prefix("docker://") {
        return Ok(Some(ContextSource::Image(name.to_owned())));
    }
    let Some((kind, rest)) = text.split_once(':') else { return Ok(None) };
    if !matches!(kind, "oci" | "oci-archive" | "docker-archive") {
        return Ok(None);
    }
    let (path, reference) = match rest.split_once(':') {
        Some((path, reference)) => (path, Some(reference.to_owned())),
        None => (rest, None),
    };
    // An image may be called `oci`, with a tag.
    if kind == "oci" && reference.is_none() && !path.contains('/') && !exists(directory, path) {
        return Ok(None);
    }
    let path = inside(text, directory, path)?;
    Ok(Some(match kind {
        "oci" => ContextSource::OciLayout { path, reference },
        "oci-archive" => ContextSource::OciArchive { path, reference },
        _ => ContextSource::DockerArchive { path, name: reference },
    }))
}

/// Whether `text` seems to say a place, and is no name that a registry could have.
pub(super) fn is_place(text: &str) -> bool {
    UNKNOWN.iter().chain(&["oci:", "oci-archive:", "docker-archive:"]).any(|place| text.starts_with(place))
}

fn exists(directory: Option<&Path>, path: &str) -> bool {
    directory.is_some_and(|directory| directory.join(path).exists())
}

/// The file or directory at `path` of the context, wherever links in the context lead, if that is in the context as well.
fn inside(text: &str, directory: Option<&Path>, path: &str) -> Result<PathBuf, ImageError> {
    let outside = |reason: &str| ImageError::Place { name: text.to_owned(), reason: reason.to_owned() };
    let directory = directory.ok_or_else(|| outside("the build context is no directory of this machine"))?;
    let found = |path: &Path| path.canonicalize();
    let root = found(directory).map_err(|source| ImageError::Copy { name: text.to_owned(), source })?;
    match found(&root.join(path.trim_start_matches('/'))) {
        Ok(found) if found.starts_with(&root) => Ok(found),
        Ok(_) => Err(outside("it leads out of the build context")),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(outside("the build context has no such file")),
        Err(error) => Err(outside(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_are_told_from_names() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().canonicalize().unwrap();
        std::fs::create_dir(root.join("layout")).unwrap();
        std::fs::write(root.join("a.tar"), "").unwrap();
        std::os::unix::fs::symlink("/etc/passwd", root.join("out")).unwrap();
        let place = |text: &str| place(text, Some(&root));
        for name in ["debian", "debian:12", "oci:1", "oci", "localhost:5000/a", "docker.io/library/oci:2"] {
            assert_eq!(place(name).unwrap(), None, "{name}");
        }
        assert_eq!(place("docker://a/b:1").unwrap(), Some(ContextSource::Image("a/b:1".to_owned())));
        let layout = |reference: Option<&str>| ContextSource::OciLayout {
            path: root.join("layout"),
            reference: reference.map(str::to_owned),
        };
        assert_eq!(place("oci:layout").unwrap(), Some(layout(None)));
        assert_eq!(place("oci:./layout:1").unwrap(), Some(layout(Some("1"))));
        let archive = ContextSource::OciArchive { path: root.join("a.tar"), reference: None };
        assert_eq!(place("oci-archive:a.tar").unwrap(), Some(archive));
        let archive = ContextSource::DockerArchive { path: root.join("a.tar"), name: Some("h:1/b:2".to_owned()) };
        assert_eq!(place("docker-archive:/a.tar:h:1/b:2").unwrap(), Some(archive));
        for text in ["oci-archive:../x", "oci-archive:out", "oci:../../etc", "oci-archive:none"] {
            assert!(matches!(place(text), Err(ImageError::Place { .. })), "{text}");
        }
        assert!(super::place("oci-archive:a.tar", None).is_err(), "a context that is elsewhere");
    }
}
