//! A tar that stands for a directory: it becomes a layer of the store, and is never unpacked on the disk.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::{Download, FetchError, Fetcher, lock};
use crate::digest::Digest;
use crate::layer::{LayerWriter, import, is_archive};
use crate::plan::file_name;
use crate::solver::KeyParts;
use crate::store::{LayerDescriptor, Record};
use crate::tree::{Entry, Kind, Metadata};

/// What a URL that stands for a directory has.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// A tar: its files.
    Tree(LayerDescriptor),
    /// Something else: one file.
    File(Download),
}

impl Fetcher {
    /// The files of the tar at `path`, compressed or not.
    pub(crate) fn archive(&self, path: &Path) -> Result<LayerDescriptor, FetchError> {
        let open = || File::open(path).map_err(FetchError::io(format!("open {}", path.display())));
        if !is_archive(open()?) {
            return Err(FetchError::NotAnArchive { path: path.to_owned() });
        }
        let digest = digest(&mut open()?).map_err(FetchError::io(format!("read {}", path.display())))?;
        self.tree(&digest, &path.display().to_string(), open)
    }

    /// What `url` has: the files of a tar, or one file.
    pub(crate) fn remote(&self, url: &str) -> Result<Remote, FetchError> {
        let download = self.download(url, None)?;
        let open = || self.store.open_blob(&download.digest).map_err(FetchError::store(url));
        if !is_archive(open()?) {
            return Ok(Remote::File(download));
        }
        self.tree(&download.digest, url, open).map(Remote::Tree)
    }

    /// A tree of one file, `file` as `ADD` would copy it into the root.
    pub(crate) fn as_tree(&self, url: &str, file: &Download) -> Result<LayerDescriptor, FetchError> {
        let name = file_name(url)
            .ok_or_else(|| FetchError::Url { url: url.to_owned(), problem: "it has no file name".to_owned() })?;
        let unpack = |source| FetchError::Unpack { what: url.to_owned(), source };
        let mut blob = self.store.open_blob(&file.digest).map_err(FetchError::store(url))?;
        let mut writer = LayerWriter::create(&self.store, self.layer_options()).map_err(unpack)?;
        let meta = Metadata { mode: 0o600, mtime: file.modified.unwrap_or_default(), ..Metadata::default() };
        let kind = Kind::File { size: file.size, content: file.content };
        writer.append(Entry { path: name.into_bytes(), meta, kind }, Some(&mut blob)).map_err(unpack)?;
        Ok(writer.finish().map_err(unpack)?.layer)
    }

    fn tree(
        &self,
        digest: &Digest,
        what: &str,
        open: impl FnOnce() -> Result<File, FetchError>,
    ) -> Result<LayerDescriptor, FetchError> {
        let mut key = KeyParts::new("archive/1");
        key.add("archive", digest.to_string());
        let _lock = self.lock(&key.key(), what)?;
        if let Some(layer) = lock(&self.trees).get(&key.key()) {
            return Ok(layer.clone());
        }
        let record = self.store.record(&key.key()).map_err(FetchError::store(what))?;
        let known = record.and_then(|record| record.layers.first().cloned());
        let layer = match known {
            Some(layer) => layer,
            None => {
                let made = import(&self.store, open()?, self.layer_options());
                let layer = made.map_err(|source| FetchError::Unpack { what: what.to_owned(), source })?;
                let record = Record { layers: vec![layer.clone()], parts: key.readable(), ..Record::default() };
                self.store.put_record(&key.key(), &record).map_err(FetchError::store(what))?;
                layer
            }
        };
        lock(&self.trees).insert(key.key(), layer.clone());
        Ok(layer)
    }
}

fn digest(file: &mut impl Read) -> io::Result<Digest> {
    let mut hashing = crate::digest::HashingWriter::new(io::sink());
    io::copy(file, &mut hashing)?;
    Ok(hashing.finish().1)
}
