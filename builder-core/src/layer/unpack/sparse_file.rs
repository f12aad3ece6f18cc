//! Writes a file and leaves holes where it has long runs of zeros.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

const BLOCK: usize = 4096;
/// Shorter runs of zeros are written: a hole saves little then and costs an extent.
const MIN_HOLE: u64 = 64 << 10;
const ZEROS: [u8; BLOCK] = [0; BLOCK];

/// A file being written from its start.
#[derive(Debug)]
pub(super) struct SparseFile<'f> {
    file: &'f File,
    /// What was given so far, zeros included.
    position: u64,
    /// Zeros before `position` that are not written.
    zeros: u64,
    /// Whether the file can have a run of [`MIN_HOLE`] at all.
    looks_for_zeros: bool,
}

impl<'f> SparseFile<'f> {
    /// Writes to `file`, which is empty and will have `size` bytes.
    pub(super) fn new(file: &'f File, size: u64) -> Self {
        Self { file, position: 0, zeros: 0, looks_for_zeros: size >= MIN_HOLE }
    }

    /// Appends bytes.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        if !self.looks_for_zeros {
            return self.write_data(bytes);
        }
        let mut data = 0;
        let mut at = 0;
        while at < bytes.len() {
            let len = self.to_block_end(at - data).min(bytes.len() - at);
            // Also a part of a block: the other part may be in the bytes before or after these.
            if bytes[at..at + len] == ZEROS[..len] {
                self.write_data(&bytes[data..at])?;
                self.hole(len as u64);
                data = at + len;
            }
            at += len;
        }
        self.write_data(&bytes[data..])
    }

    /// Appends zeros.
    pub(super) fn hole(&mut self, len: u64) {
        self.position += len;
        self.zeros += len;
    }

    /// Gives the file its size.
    pub(super) fn finish(self) -> io::Result<()> {
        if self.zeros > 0 { self.file.set_len(self.position) } else { Ok(()) }
    }

    /// Bytes from `ahead` bytes after the position to the end of that block of the file.
    fn to_block_end(&self, ahead: usize) -> usize {
        let block = BLOCK as u64;
        let into = (self.position + ahead as u64) % block;
        usize::try_from(block - into).unwrap_or(BLOCK)
    }

    fn write_data(&mut self, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        if self.zeros < MIN_HOLE {
            self.write_zeros()?;
        }
        self.zeros = 0;
        self.file.write_all_at(bytes, self.position)?;
        self.position += bytes.len() as u64;
        Ok(())
    }

    fn write_zeros(&mut self) -> io::Result<()> {
        while self.zeros > 0 {
            let len = usize::try_from(self.zeros).unwrap_or(BLOCK).min(BLOCK);
            self.file.write_all_at(&ZEROS[..len], self.position - self.zeros)?;
            self.zeros -= len as u64;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn content_is_the_same_and_long_zeros_take_no_space() {
        let long = vec![0; 1 << 20];
        for (parts, sparse) in [
            (vec![b"x".to_vec(), long.clone(), b"y".to_vec()], true),
            (vec![long.clone()], true),
            (vec![vec![7; 100_000], long.clone(), vec![8; 5], vec![0; 5000], vec![9; 4096]], true),
            (vec![vec![0; 10]], false),
            (vec![vec![1; 70_000]], false),
            (vec![vec![1; 4096], vec![0; 8192], vec![1; 100_000], vec![0; 4095]], false),
            (vec![vec![]], false),
        ] {
            let data = parts.concat();
            for step in [1000, 4096, 65_536, 1 << 21] {
                let file = tempfile::NamedTempFile::new().unwrap();
                let mut writer = SparseFile::new(file.as_file(), data.len() as u64);
                for part in data.chunks(step) {
                    writer.write(part).unwrap();
                }
                writer.finish().unwrap();
                assert!(std::fs::read(file.path()).unwrap() == data, "{} by {step}", data.len());
                let allocated = file.as_file().metadata().unwrap().blocks() * 512;
                if sparse && step >= BLOCK {
                    assert!(allocated < data.len() as u64, "{allocated} bytes for {}", data.len());
                }
            }
        }
    }

    #[test]
    fn explicit_holes_count_also_at_the_end() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let mut writer = SparseFile::new(file.as_file(), 200_003);
        writer.hole(100_000);
        writer.write(b"abc").unwrap();
        writer.hole(100_000);
        writer.finish().unwrap();
        let expected = [&vec![0; 100_000][..], b"abc", &vec![0; 100_000]].concat();
        assert!(std::fs::read(file.path()).unwrap() == expected);
    }
}
