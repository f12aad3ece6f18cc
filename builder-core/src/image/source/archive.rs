//! Where the blobs of a tar are. Headers are read, contents are not, names become digests or are ignored.
//!
//! A strict reader: what two tar readers could understand in two ways (a size in a global header, sparse maps, two
//! tables of contents) is refused, not guessed.

use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use crate::digest::Digest;
use crate::image::MANIFEST_LIMIT;

/// Offset and size in bytes of each blob.
pub(super) type Offsets = HashMap<Digest, (u64, u64)>;

const BLOCK: usize = 512;
/// Most bytes of an extended header or long name.
const EXTENDED_LIMIT: u64 = 1 << 20;

/// What an archive holds.
pub(super) struct Contents {
    /// Its blobs.
    pub(super) blobs: Offsets,
    /// Its `index.json`, at most one byte more than the limit.
    pub(super) index: Option<Vec<u8>>,
    /// Its `manifest.json`, likewise: it is an archive for Docker.
    pub(super) docker: Option<Vec<u8>>,
    /// Offset and size in bytes of every file, by path.
    pub(super) files: HashMap<Vec<u8>, (u64, u64)>,
    /// Targets of symbolic links, by path.
    pub(super) links: HashMap<Vec<u8>, Vec<u8>>,
}

/// Why an archive cannot be read.
pub(super) enum ScanError {
    /// A system call failed.
    Io(io::Error),
    /// It is not what it should be.
    Form(String),
}

impl From<io::Error> for ScanError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

fn form<T>(text: impl Into<String>) -> Result<T, ScanError> {
    Err(ScanError::Form(text.into()))
}

/// Reads all headers of `file`.
pub(super) fn scan(file: &File) -> Result<Contents, ScanError> {
    let length = file.metadata()?.len();
    let contents =
        Contents { blobs: Offsets::new(), index: None, docker: None, files: HashMap::new(), links: HashMap::new() };
    let mut scan = Scan { file, length, contents };
    let mut at = 0;
    let mut next = Overrides::default();
    let mut block = [0; BLOCK];
    while at + BLOCK as u64 <= length {
        file.read_exact_at(&mut block, at)?;
        if block.iter().all(|byte| *byte == 0) {
            break;
        }
        at = scan.entry(&block, at, &mut next)?;
    }
    Ok(scan.contents)
}

/// The text of `index.json`.
pub(super) fn index(contents: &mut Contents) -> Result<Vec<u8>, ScanError> {
    match (contents.index.take(), &contents.docker) {
        (Some(index), _) => Ok(index),
        (None, Some(_)) => form("it is a docker archive (manifest.json without index.json)"),
        (None, None) => form("no index.json"),
    }
}

/// What an extended header says about the entry that follows.
#[derive(Default)]
struct Overrides {
    path: Option<Vec<u8>>,
    size: Option<u64>,
}

struct Scan<'f> {
    file: &'f File,
    length: u64,
    contents: Contents,
}

impl Scan<'_> {
    /// Reads the entry whose header is at `at` and returns where the next header is.
    fn entry(&mut self, block: &[u8; BLOCK], at: u64, next: &mut Overrides) -> Result<u64, ScanError> {
        if block.starts_with(&[0x1f, 0x8b]) || block.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
            return form("it is compressed; decompress it first");
        }
        let header = tar::Header::from_byte_slice(block);
        if header.cksum().ok() != Some(checksum(block)) {
            return form(format!("no tar header at offset {at}"));
        }
        let kind = header.entry_type();
        let special = kind.is_pax_local_extensions() || kind.is_pax_global_extensions() || kind.is_gnu_longname();
        let size = match next.size {
            Some(size) if !special => size,
            _ => header.entry_size().or_else(|_| form(format!("the entry at offset {at} has a bad size")))?,
        };
        let data = at + BLOCK as u64;
        let end = data.checked_add(size).filter(|end| *end <= self.length);
        let Some(end) = end else { return form(format!("it ends within the entry at offset {at}")) };
        if special || kind.is_gnu_longlink() {
            self.extended(kind, data, size, next)?;
        } else {
            let entry = std::mem::take(next);
            let path = entry.path.unwrap_or_else(|| header.path_bytes().into_owned());
            if let (true, Some(target)) = (kind.is_symlink(), header.link_name_bytes()) {
                self.contents.links.insert(plain(&path).to_vec(), target.into_owned());
            }
            self.file_entry(kind, &path, data, size)?;
        }
        Ok(end.next_multiple_of(BLOCK as u64))
    }

    fn extended(&self, kind: tar::EntryType, at: u64, size: u64, next: &mut Overrides) -> Result<(), ScanError> {
        if size > EXTENDED_LIMIT {
            return form(format!("the extended header at offset {at} has {size} bytes"));
        }
        let bytes = self.read(at, size)?;
        if kind.is_gnu_longname() {
            next.path = Some(bytes.split(|byte| *byte == 0).next().unwrap_or_default().to_vec());
        }
        if !kind.is_pax_local_extensions() && !kind.is_pax_global_extensions() {
            return Ok(());
        }
        for record in tar::PaxExtensions::new(&bytes) {
            let record = record.or_else(|_| form(format!("the extended header at offset {at} is damaged")))?;
            let (key, value) = (record.key_bytes(), record.value_bytes());
            match key {
                b"path" | b"size" if kind.is_pax_global_extensions() => {
                    return form("a global header changes names or sizes");
                }
                b"path" => next.path = Some(value.to_vec()),
                b"size" => {
                    let size = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok());
                    next.size = Some(size.map_or_else(|| form("an extended header has a bad size"), Ok)?);
                }
                _ if key.starts_with(b"GNU.sparse.") => return form("it has sparse entries"),
                _ => {}
            }
        }
        Ok(())
    }

    fn file_entry(&mut self, kind: tar::EntryType, path: &[u8], at: u64, size: u64) -> Result<(), ScanError> {
        let path = plain(path);
        if kind.is_gnu_sparse() {
            return form("it has sparse entries");
        }
        if !kind.is_file() {
            return Ok(());
        }
        if path == b"index.json" {
            if self.contents.index.is_some() {
                return form("it has index.json twice");
            }
            self.contents.index = Some(self.read(at, size.min(MANIFEST_LIMIT + 1))?);
        } else if path == b"manifest.json" {
            if self.contents.docker.is_some() {
                return form("it has manifest.json twice");
            }
            self.contents.docker = Some(self.read(at, size.min(MANIFEST_LIMIT + 1))?);
        } else if let Some(hex) = path.strip_prefix(b"blobs/sha256/") {
            let digest = std::str::from_utf8(hex).ok().and_then(|hex| format!("sha256:{hex}").parse().ok());
            if let Some(digest) = digest {
                self.contents.blobs.insert(digest, (at, size));
            }
        }
        self.contents.files.insert(path.to_vec(), (at, size));
        Ok(())
    }

    /// Reads bytes that are known to be within the file, at most a few MiB.
    fn read(&self, at: u64, size: u64) -> Result<Vec<u8>, ScanError> {
        let mut bytes = vec![0; usize::try_from(size).map_err(io::Error::other)?];
        self.file.read_exact_at(&mut bytes, at)?;
        Ok(bytes)
    }
}

fn plain(path: &[u8]) -> &[u8] {
    path.strip_prefix(b"./").unwrap_or(path)
}

/// Sum of the header's bytes with the checksum field taken as blanks.
fn checksum(block: &[u8; BLOCK]) -> u32 {
    let byte = |(at, byte): (usize, &u8)| if (148..156).contains(&at) { u32::from(b' ') } else { u32::from(*byte) };
    block.iter().enumerate().map(byte).sum()
}
