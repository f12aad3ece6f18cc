//! Images in an OCI layout directory or a tar of one, read as the source of a base image or a context.
//!
//! Nothing is extracted. An archive is read once for the offsets of its blobs; the bytes then go straight into the
//! store, verified on the way. Whatever the source says is untrusted: names and digests are typed before use, JSON has
//! a size limit, and only regular files are read.

mod archive;
mod copy;
mod docker;

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

pub(crate) use docker::import_docker_archive;

use super::{
    ANNOTATION_IMAGE_NAME, ANNOTATION_REF_NAME, Descriptor, Index, MANIFEST_LIMIT, NoMatchingPlatform, ParseError,
    Platform, is_index, is_manifest,
};
use crate::digest::{Digest, VerifyingReader};
use crate::store;

/// Indexes within indexes that are followed.
const MAX_DEPTH: usize = 4;

/// A layout or archive cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SourceError {
    /// A system call failed.
    #[error("cannot {operation} {}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Neither a layout nor a tar of one.
    #[error("{} is not an OCI image layout: {reason}", path.display())]
    NotALayout {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// Not an archive as Docker writes it.
    #[error("{} is not an archive for Docker: {reason}", path.display())]
    NotForDocker {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The blob is not there.
    #[error("blob {digest} is not in {}", path.display())]
    BlobMissing {
        /// Its name.
        digest: Digest,
        /// The directory or file.
        path: PathBuf,
    },
    /// A document is larger than anything sensible.
    #[error("blob {digest} has {size} bytes, at most {limit} are read")]
    BlobTooLarge {
        /// Its name.
        digest: Digest,
        /// Its size in bytes.
        size: u64,
        /// The most that is accepted, in bytes.
        limit: u64,
    },
    /// A document does not parse.
    #[error("blob {digest} in {} is not usable", path.display())]
    Document {
        /// Its name.
        digest: Digest,
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: ParseError,
    },
    /// The table of the layout does not parse.
    #[error("index.json of {} is not usable", path.display())]
    Index {
        /// The directory or file.
        path: PathBuf,
        /// Why not.
        source: ParseError,
    },
    /// There is no image of that name, or none, or none in particular.
    #[error("{} {problem}, there is {}", path.display(), list(available))]
    Reference {
        /// The directory or file.
        path: PathBuf,
        /// What is wrong: `has no image "x"`, `holds several images`.
        problem: String,
        /// Names or digests that could be asked for.
        available: Vec<String>,
    },
    /// Not for this platform.
    #[error("wrong platform in {}", path.display())]
    Platform {
        /// The directory or file.
        path: PathBuf,
        /// What there is.
        source: NoMatchingPlatform,
    },
    /// The store refused.
    #[error("cannot store a blob of {}", path.display())]
    Store {
        /// The directory or file.
        path: PathBuf,
        /// Why.
        source: store::Error,
    },
}

fn list(names: &[String]) -> String {
    if names.is_empty() { "nothing".to_owned() } else { names.join(", ") }
}

/// An open layout or archive.
#[derive(Debug)]
pub(crate) struct ImageSource {
    path: PathBuf,
    medium: Medium,
    index: Index,
}

#[derive(Debug)]
enum Medium {
    Directory,
    Archive { file: File, blobs: archive::Offsets },
}

impl ImageSource {
    /// Opens an OCI layout directory.
    pub(crate) fn open_layout(dir: &Path) -> Result<Self, SourceError> {
        let path = dir.join("index.json");
        let not_a_layout = |reason: &str| SourceError::NotALayout { path: dir.to_owned(), reason: reason.to_owned() };
        let file = match open_regular(&path) {
            Ok(file) => file,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(not_a_layout("no index.json")),
            Err(source) => return Err(SourceError::Io { operation: "open", path, source }),
        };
        let mut bytes = Vec::new();
        let read = file.take(MANIFEST_LIMIT + 1).read_to_end(&mut bytes);
        read.map_err(|source| SourceError::Io { operation: "read", path, source })?;
        Self::new(dir, Medium::Directory, &bytes)
    }

    /// Opens a tar of an OCI layout and notes where its blobs are.
    pub(crate) fn open_archive(path: &Path) -> Result<Self, SourceError> {
        let io_error = |operation| move |source| SourceError::Io { operation, path: path.to_owned(), source };
        let file = open_regular(path).map_err(io_error("open"))?;
        let failed = |error| match error {
            archive::ScanError::Io(source) => io_error("read")(source),
            archive::ScanError::Form(reason) => SourceError::NotALayout { path: path.to_owned(), reason },
        };
        let mut contents = archive::scan(&file).map_err(failed)?;
        let index = archive::index(&mut contents).map_err(failed)?;
        Self::new(path, Medium::Archive { file, blobs: contents.blobs }, &index)
    }

    fn new(path: &Path, medium: Medium, index: &[u8]) -> Result<Self, SourceError> {
        let path = path.to_owned();
        let index = Index::parse(index).map_err(|source| SourceError::Index { path: path.clone(), source })?;
        Ok(Self { path, medium, index })
    }

    /// Finds an image: by digest, by tag or full name, or the only one there is.
    pub(crate) fn resolve(&self, reference: Option<&str>) -> Result<Descriptor, SourceError> {
        let images: Vec<_> = self.index.manifests.iter().filter(|entry| !entry.is_attestation()).collect();
        let Some(reference) = reference else {
            return self.only(&images, "holds several images, name one");
        };
        if let Ok(digest) = reference.parse::<Digest>() {
            return match images.iter().find(|entry| entry.digest == digest) {
                Some(entry) => Ok((*entry).clone()),
                None => self.describe(&digest),
            };
        }
        let annotation = |entry: &Descriptor, key: &str| entry.annotations.get(key).cloned().unwrap_or_default();
        let as_tag = format!(":{reference}");
        let ways: [&dyn Fn(&Descriptor) -> bool; 3] = [
            &|entry| annotation(entry, ANNOTATION_REF_NAME) == reference,
            &|entry| annotation(entry, ANNOTATION_IMAGE_NAME) == reference,
            &|entry| annotation(entry, ANNOTATION_REF_NAME).ends_with(&as_tag),
        ];
        for way in ways {
            let found: Vec<_> = images.iter().copied().filter(|entry| way(entry)).collect();
            if !found.is_empty() {
                return self.only(&found, &format!("has several images {reference:?}"));
            }
        }
        Err(self.no_reference(format!("has no image {reference:?}")))
    }

    /// The image that all these entries name.
    fn only(&self, entries: &[&Descriptor], several: &str) -> Result<Descriptor, SourceError> {
        match entries {
            [] => Err(self.no_reference("holds no image".to_owned())),
            [first, rest @ ..] if rest.iter().all(|entry| entry.digest == first.digest) => Ok((*first).clone()),
            _ => Err(self.no_reference(several.to_owned())),
        }
    }

    fn no_reference(&self, problem: String) -> SourceError {
        let name = |entry: &Descriptor| match entry.annotations.get(ANNOTATION_REF_NAME) {
            Some(name) => name.clone(),
            None => entry.digest.to_string(),
        };
        let available = self.index.manifests.iter().map(name).take(20).collect();
        SourceError::Reference { path: self.path.clone(), problem, available }
    }

    /// Makes a descriptor for a manifest that the index does not list itself.
    fn describe(&self, digest: &Digest) -> Result<Descriptor, SourceError> {
        let (_, size) = self.open_blob(digest)?;
        let mut descriptor = Descriptor::new("", *digest, size);
        let bytes = self.read(&descriptor, MANIFEST_LIMIT)?;
        descriptor.media_type = sniff(&bytes).to_owned();
        Ok(descriptor)
    }

    /// Follows indexes to the manifest that suits `platform` best.
    pub(crate) fn select(&self, image: Descriptor, platform: &Platform) -> Result<Descriptor, SourceError> {
        let mut image = image;
        for _ in 0..MAX_DEPTH {
            if is_manifest(&image.media_type) {
                return Ok(image);
            }
            let bytes = self.read(&image, MANIFEST_LIMIT)?;
            if !is_index(&image.media_type) && sniff(&bytes) != super::MEDIA_TYPE_INDEX {
                return Ok(image);
            }
            let index = Index::parse(&bytes).map_err(|source| self.document(image.digest, source))?;
            let chosen = index.choose(platform);
            image = chosen.map_err(|source| SourceError::Platform { path: self.path.clone(), source })?.clone();
        }
        Err(SourceError::NotALayout { path: self.path.clone(), reason: "indexes are nested too deep".to_owned() })
    }

    /// Reads a blob of at most `limit` bytes whole and verifies it.
    pub(crate) fn read(&self, blob: &Descriptor, limit: u64) -> Result<Vec<u8>, SourceError> {
        let Descriptor { digest, size, .. } = *blob;
        if size > limit {
            return Err(SourceError::BlobTooLarge { digest, size, limit });
        }
        let (reader, _) = self.open_blob(&digest)?;
        let mut bytes = Vec::new();
        let read = VerifyingReader::new(reader, digest, size).read_to_end(&mut bytes);
        read.map_err(|source| SourceError::Io { operation: "read image from", path: self.path.clone(), source })?;
        Ok(bytes)
    }

    /// Opens a blob for reading from its start, not verified. Returns its size in bytes as found.
    pub(crate) fn open_blob(&self, digest: &Digest) -> Result<(Section, u64), SourceError> {
        let missing = || SourceError::BlobMissing { digest: *digest, path: self.path.clone() };
        let io_error =
            |operation: &'static str, path: PathBuf| move |source| SourceError::Io { operation, path, source };
        match &self.medium {
            Medium::Directory => {
                let path = self.path.join("blobs/sha256").join(digest.hex());
                let file = match open_regular(&path) {
                    Err(e) if e.kind() == io::ErrorKind::NotFound => return Err(missing()),
                    other => other.map_err(io_error("open", path.clone()))?,
                };
                let size = file.metadata().map_err(io_error("stat", path))?.len();
                Ok((Section { file, at: 0, end: size }, size))
            }
            Medium::Archive { file, blobs } => {
                let (at, size) = *blobs.get(digest).ok_or_else(missing)?;
                let file = file.try_clone().map_err(io_error("open", self.path.clone()))?;
                Ok((Section { file, at, end: at + size }, size))
            }
        }
    }

    fn document(&self, digest: Digest, source: ParseError) -> SourceError {
        SourceError::Document { digest, path: self.path.clone(), source }
    }
}

/// A part of a file, read without moving the file's own position, so that many can be read at once.
#[derive(Debug)]
pub(crate) struct Section {
    file: File,
    at: u64,
    end: u64,
}

impl Read for Section {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let left = usize::try_from(self.end - self.at).unwrap_or(usize::MAX);
        let wanted = left.min(buf.len());
        let n = self.file.read_at(&mut buf[..wanted], self.at)?;
        self.at += n as u64;
        Ok(n)
    }
}

/// Opens a regular file; anything else is an error, and a named pipe does not make this wait.
fn open_regular(path: &Path) -> io::Result<File> {
    let flags = i32::try_from(rustix::fs::OFlags::NONBLOCK.bits()).map_err(io::Error::other)?;
    let file = File::options().read(true).custom_flags(flags).open(path)?;
    if file.metadata()?.is_file() {
        Ok(file)
    } else {
        Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"))
    }
}

/// Media type of a document that came without one: an index lists manifests, a manifest does not.
fn sniff(bytes: &[u8]) -> &'static str {
    #[derive(serde::Deserialize)]
    struct Shape {
        manifests: Option<serde::de::IgnoredAny>,
    }
    match serde_json::from_slice(bytes) {
        Ok(Shape { manifests: Some(_) }) => super::MEDIA_TYPE_INDEX,
        _ => super::MEDIA_TYPE_MANIFEST,
    }
}

#[cfg(test)]
mod tests;
