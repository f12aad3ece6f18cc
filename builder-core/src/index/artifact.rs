//! Files as an artifact: an image manifest whose layers are the files as they are (image-spec `manifest.md`, "Guidelines
//! for Artifact Usage").

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use super::entry::{apply, insert};
use super::{List, request, store_error};
use crate::error::{Error, ErrorKind, Result};
use crate::image::{Descriptor, Index, MEDIA_TYPE_EMPTY, Manifest};
use crate::request::{Artifact, ArtifactTitles, EntryChange};

/// Annotation of a layer: the name of the file that it is.
const TITLE: &str = "org.opencontainers.image.title";
/// Kind of an artifact of which nobody says what it is. One without a config must have a kind.
const UNKNOWN_ARTIFACT: &str = "application/vnd.unknown.artifact.v1";
/// The config of an artifact that has none, and the same in base64.
const EMPTY: (&[u8], &str) = (b"{}", "e30=");

/// Media types by extension (IANA, and the image-spec's own for tars).
const BY_EXTENSION: [(&str, &str); 16] = [
    ("css", "text/css"),
    ("csv", "text/csv"),
    ("gz", "application/gzip"),
    ("html", "text/html"),
    ("jpg", "image/jpeg"),
    ("json", "application/json"),
    ("md", "text/markdown"),
    ("pdf", "application/pdf"),
    ("png", "image/png"),
    ("svg", "image/svg+xml"),
    ("txt", "text/plain"),
    ("wasm", "application/wasm"),
    ("xml", "application/xml"),
    ("yaml", "application/yaml"),
    ("yml", "application/yaml"),
    ("zip", "application/zip"),
];

impl List<'_> {
    /// Makes the artifact in the store and names it in the index.
    pub(super) fn add_artifact(&self, index: &mut Index, artifact: &Artifact, change: &EntryChange) -> Result<()> {
        if artifact.files.is_empty() {
            return Err(request("an artifact needs a file"));
        }
        for text in artifact.artifact_type.iter().chain(&artifact.layer_type) {
            check_media_type(text)?;
        }
        let mut layers = Vec::new();
        for path in &artifact.files {
            let media_type = artifact.layer_type.as_deref().unwrap_or_else(|| by_extension(path));
            let mut layer = self.put_file(path, media_type)?;
            if let (ArtifactTitles::FileNames, Some(name)) = (artifact.titles, path.file_name()) {
                layer.annotations.insert(TITLE.to_owned(), name.to_string_lossy().into_owned());
            }
            layers.push(layer);
        }
        let config = match &artifact.config {
            Some((path, media_type)) => {
                check_media_type(media_type)?;
                self.put_file(path, media_type)?
            }
            None => {
                let digest = self.store.put_blob(EMPTY.0).map_err(|e| store_error(&e))?;
                let data = Some(EMPTY.1.to_owned());
                Descriptor { data, ..Descriptor::new(MEDIA_TYPE_EMPTY, digest, EMPTY.0.len() as u64) }
            }
        };
        let artifact_type = artifact.artifact_type.as_deref().unwrap_or(UNKNOWN_ARTIFACT).to_owned();
        let mut manifest = Manifest::new(config, layers);
        manifest.artifact_type = Some(artifact_type.clone());
        manifest.subject = artifact.subject.as_ref().map(|place| self.subject(index, place)).transpose()?;
        manifest.annotations.extend(artifact.annotations.iter().cloned());
        self.store.put_blob(&manifest.to_canonical_json()).map_err(|e| store_error(&e))?;
        let mut entry = Descriptor { artifact_type: Some(artifact_type), ..manifest.descriptor() };
        apply(&mut entry, change)?;
        insert(index, entry);
        Ok(())
    }

    /// Takes a file into the store as it is.
    fn put_file(&self, path: &Path, media_type: &str) -> Result<Descriptor> {
        let unreadable = |error: io::Error| {
            Error::from_source(ErrorKind::Request, &error).context(format!("read {}", path.display()))
        };
        // A named pipe would be waited for when it is opened.
        if !path.metadata().map_err(unreadable)?.is_file() {
            return Err(request(format!("{} is not a file", path.display())));
        }
        let mut file = File::open(path).map_err(unreadable)?;
        let mut writer = self.store.blob_writer().map_err(|e| store_error(&e))?;
        let mut buffer = vec![0; 256 << 10];
        loop {
            let n = match io::Read::read(&mut file, &mut buffer) {
                Ok(0) => break,
                Ok(n) => n,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(unreadable(error)),
            };
            writer.write_all(&buffer[..n]).map_err(|error| Error::from_source(ErrorKind::Store, &error))?;
        }
        let (digest, size) = writer.commit().map_err(|e| store_error(&e))?;
        Ok(Descriptor::new(media_type, digest, size))
    }
}

/// Refuses what RFC 6838 (4.2) does not take for a media type, without parameters.
fn check_media_type(text: &str) -> Result<()> {
    let name = |part: &str| {
        let rest = part.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b));
        rest && part.len() <= 127 && part.starts_with(|first: char| first.is_ascii_alphanumeric())
    };
    match text.split_once('/') {
        Some((kind, subtype)) if name(kind) && name(subtype) => Ok(()),
        _ => Err(request(format!("{text:?} is no media type")).hint("write it as in application/vnd.example+json")),
    }
}

fn by_extension(path: &Path) -> &'static str {
    let extension = path.extension().and_then(|extension| extension.to_str()).unwrap_or_default().to_ascii_lowercase();
    let known = BY_EXTENSION.iter().find(|(known, _)| *known == extension);
    known.map_or("application/octet-stream", |(_, media_type)| media_type)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types() {
        for good in ["text/plain", "application/vnd.example.sbom.v1+json", "x/y"] {
            check_media_type(good).unwrap();
        }
        for bad in ["", "text", "text/", "/plain", "text/pl ain", "a/b/c", "text/plain; charset=utf-8"] {
            assert!(check_media_type(bad).is_err(), "{bad}");
        }
        for (path, want) in [
            ("a/b.JSON", "application/json"),
            ("x.tar.gz", "application/gzip"),
            ("LICENSE", "application/octet-stream"),
        ] {
            assert_eq!(by_extension(Path::new(path)), want);
        }
    }
}
