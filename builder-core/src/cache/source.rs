//! One place to look into: the manifests that were read of it so far, and its blobs.

use std::collections::HashSet;
use std::io::{self, Read, Write};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::Error;
use super::document::{self, Contents};
use crate::digest::{CacheKey, VerifyingReader};
use crate::image::{
    Descriptor, ImageConfig, ImageSource, Index, MANIFEST_LIMIT, Manifest, Platform, Section, SourceError, is_index,
};
use crate::registry::{self, BlobReader, Client, Reference};
use crate::request::CacheSource;
use crate::store::Tell;

/// Most bytes of a config that are read: a hundred thousand records.
const CONFIG_LIMIT: u64 = 16 << 20;

/// A cache.
#[derive(Debug)]
pub(super) struct Source {
    /// As the user named it.
    pub(super) name: String,
    place: Place,
    /// Nothing is asked of it any more.
    off: AtomicBool,
    /// Whether the manifest that it is named by was looked for; held while that is done.
    opened: Mutex<bool>,
    known: Mutex<Known>,
}

#[derive(Debug)]
enum Place {
    Registry(Client, Reference),
    Directory(PathBuf),
}

#[derive(Debug, Default)]
struct Known {
    contents: Vec<Arc<Contents>>,
    /// Keys that it does not have.
    missing: HashSet<CacheKey>,
}

/// Where a blob is. What lies in a directory is open, because the directory may be rewritten.
#[derive(Debug)]
pub(super) struct Blob {
    source: Arc<Source>,
    descriptor: Descriptor,
    file: Option<Mutex<Option<Section>>>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Source {
    pub(super) fn new(client: &Client, source: &CacheSource) -> Result<Self, Error> {
        let (name, place) = match source {
            CacheSource::Registry(name) => {
                let reference = name.parse::<Reference>();
                let reference = reference.map_err(|source| Error::Name { name: name.clone(), source })?;
                (name.clone(), Place::Registry(client.clone(), reference))
            }
            CacheSource::Directory(path) => (path.display().to_string(), Place::Directory(path.clone())),
        };
        Ok(Self { name, place, off: AtomicBool::new(false), opened: Mutex::default(), known: Mutex::default() })
    }

    /// The repository, for who may take blobs over from there.
    pub(super) fn repository(&self) -> Option<&Reference> {
        match &self.place {
            Place::Registry(_, reference) => Some(reference),
            Place::Directory(_) => None,
        }
    }

    pub(super) fn is_off(&self) -> bool {
        self.off.load(Ordering::Relaxed)
    }

    pub(super) fn switch_off(&self) {
        self.off.store(true, Ordering::Relaxed);
    }

    /// A place that cannot be read is not asked again; a document that is damaged is one of several.
    fn note<T>(&self, result: Result<T, Error>) -> Result<T, Error> {
        if result.as_ref().is_err_and(|error| !error.is_local()) {
            self.switch_off();
        }
        result
    }

    /// Looks for the manifest that the cache is named by, the first time.
    pub(super) fn open(&self) -> Result<(), Error> {
        let mut opened = lock(&self.opened);
        if *opened {
            return Ok(());
        }
        // A failure is told once.
        *opened = true;
        let contents = match &self.place {
            Place::Registry(client, reference) => self.read_registry(client, reference),
            Place::Directory(path) => self.read_directory(path),
        };
        lock(&self.known).contents.extend(self.note(contents)?.map(Arc::new));
        Ok(())
    }

    /// The manifest that has a result for `key`, read if need be; one that has its layers rather than one that has not,
    /// which with `whole` counts as none.
    pub(super) fn find(&self, key: &CacheKey, whole: bool) -> Result<Option<Arc<Contents>>, Error> {
        self.open()?;
        if self.is_off() {
            return Ok(None);
        }
        {
            let known = lock(&self.known);
            let has = |wants_layers: bool| {
                let fits = |result: &document::Result| !(wants_layers && result.is_hollow);
                known.contents.iter().find(|contents| contents.results.get(key).is_some_and(fits))
            };
            let found = has(true).or_else(|| if whole { None } else { has(false) });
            if found.is_some() || known.missing.contains(key) {
                return Ok(found.cloned());
            }
        }
        let Place::Registry(client, reference) = &self.place else { return Ok(None) };
        let tagged = self.note(self.read_registry(client, &reference.with_tag(key.to_string())));
        let mut known = lock(&self.known);
        match tagged {
            Ok(Some(contents)) if contents.results.contains_key(key) => {
                let contents = Arc::new(contents);
                known.contents.push(contents.clone());
                Ok(Some(contents))
            }
            other => {
                known.missing.insert(*key);
                match other? {
                    None => Ok(None),
                    Some(_) => {
                        let reason = format!("what is tagged {key} has no such record");
                        Err(Error::Damaged { name: self.name.clone(), reason })
                    }
                }
            }
        }
    }

    fn registry_error(&self, source: registry::Error) -> Error {
        Error::Registry { name: self.name.clone(), source }
    }

    fn layout_error(&self, source: SourceError) -> Error {
        Error::Layout { name: self.name.clone(), source }
    }

    fn document_error(&self, source: crate::image::ParseError) -> Error {
        Error::Document { name: self.name.clone(), source }
    }

    fn read_registry(&self, client: &Client, reference: &Reference) -> Result<Option<Contents>, Error> {
        let mut resolved = match client.resolve(reference) {
            Err(registry::Error::NotFound { .. }) => return Ok(None),
            resolved => resolved.map_err(|error| self.registry_error(error))?,
        };
        if is_index(&resolved.media_type) {
            let index = Index::parse(&resolved.bytes).map_err(|error| self.document_error(error))?;
            let chosen = index.choose(&Platform::host());
            let chosen = chosen.map_err(|source| Error::Platform { name: self.name.clone(), source })?.digest;
            resolved = client.manifest_by_digest(reference, chosen).map_err(|error| self.registry_error(error))?;
        }
        let manifest = Manifest::parse(&resolved.bytes).map_err(|error| self.document_error(error))?;
        let Descriptor { digest, size, .. } = manifest.config;
        let config = client.blob_bytes(reference, digest, size, CONFIG_LIMIT);
        let config = config.map_err(|error| self.registry_error(error))?;
        let config = ImageConfig::parse(&config).map_err(|error| self.document_error(error))?;
        document::read(&self.name, &manifest, &config)
    }

    /// A directory may be rewritten between its index and what that names: then it is read once more.
    fn read_directory(&self, path: &std::path::Path) -> Result<Option<Contents>, Error> {
        if !path.join("index.json").exists() {
            return Ok(None);
        }
        match self.try_directory(path) {
            Err(Error::Layout { source: SourceError::BlobMissing { .. }, .. }) => self.try_directory(path),
            read => read,
        }
    }

    fn try_directory(&self, path: &std::path::Path) -> Result<Option<Contents>, Error> {
        let layout = ImageSource::open_layout(path).map_err(|error| self.layout_error(error))?;
        let image = layout.resolve(None).map_err(|error| self.layout_error(error))?;
        let manifest = layout.read(&image, MANIFEST_LIMIT).map_err(|error| self.layout_error(error))?;
        let manifest = Manifest::parse(&manifest).map_err(|error| self.document_error(error))?;
        let config = layout.read(&manifest.config, CONFIG_LIMIT).map_err(|error| self.layout_error(error))?;
        let config = ImageConfig::parse(&config).map_err(|error| self.document_error(error))?;
        document::read(&self.name, &manifest, &config)
    }
}

impl Blob {
    /// Finds a blob of `source`; one of a directory must be there.
    pub(super) fn find(source: &Arc<Source>, descriptor: Descriptor) -> Result<Self, Error> {
        let file = match &source.place {
            Place::Registry(..) => None,
            Place::Directory(path) => {
                let layout = ImageSource::open_layout(path).map_err(|error| source.layout_error(error))?;
                let (section, _) = layout.open_blob(&descriptor.digest).map_err(|error| source.layout_error(error))?;
                Some(Mutex::new(Some(section)))
            }
        };
        Ok(Self { source: source.clone(), descriptor, file })
    }

    /// Copies it to `out`, verified when this returns.
    pub(super) fn copy_to(&self, out: &mut dyn Write, tell: Tell<'_>) -> Result<(), Error> {
        let name = || self.source.name.clone();
        let Descriptor { digest, size, .. } = self.descriptor;
        match (&self.source.place, &self.file) {
            (Place::Registry(client, reference), _) => {
                let mut reader =
                    client.blob(reference, digest, size).map_err(|error| self.source.registry_error(error))?;
                let subject = format!("blob {digest}");
                let read = copy(&mut reader, out, tell);
                read.map_err(|error| self.source.registry_error(BlobReader::unwrap_error(error, &subject)))
            }
            (Place::Directory(_), file) => {
                let section = file.as_ref().and_then(|file| lock(file).take());
                let missing = || Error::Read { name: name(), source: io::ErrorKind::NotFound.into() };
                let mut reader = VerifyingReader::new(section.ok_or_else(missing)?, digest, size);
                copy(&mut reader, out, tell).map_err(|source| Error::Read { name: name(), source })
            }
        }
    }

    /// Reads it whole.
    pub(super) fn read(&self, limit: u64) -> Result<Vec<u8>, Error> {
        if self.descriptor.size > limit {
            let reason = format!("a table of contents has {} bytes", self.descriptor.size);
            return Err(Error::Damaged { name: self.source.name.clone(), reason });
        }
        let mut bytes = Vec::new();
        self.copy_to(&mut bytes, &|_| ())?;
        Ok(bytes)
    }

    pub(super) fn name(&self) -> &str {
        &self.source.name
    }
}

fn copy(reader: &mut dyn Read, out: &mut dyn Write, tell: Tell<'_>) -> io::Result<()> {
    let mut buffer = vec![0; 256 << 10];
    let (mut done, mut told) = (0_u64, 0_u64);
    loop {
        let n = match reader.read(&mut buffer) {
            Ok(0) => return Ok(()),
            Ok(n) => n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        out.write_all(&buffer[..n])?;
        done += n as u64;
        if done - told >= 1 << 20 {
            told = done;
            tell(done);
        }
    }
}
