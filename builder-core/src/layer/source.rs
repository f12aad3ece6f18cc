//! The uncompressed bytes of a layer blob, made and hashed beside the reader.

use std::fs::File;
use std::io::{self, Read};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::thread;

use sha2::{Digest as _, Sha256};

use super::compress::{Accepted, decode};
use super::{Error, Result};
use crate::digest::{DiffId, Digest};
use crate::store::{LayerDescriptor, Store};

/// Bytes handed over at once, and how many such parts may wait: memory of one layer being read.
const PART: usize = 256 << 10;
const PARTS: usize = 8;

/// Runs `read` on the tar of `layer` and returns its result once the whole stream has proved to have the right diff ID.
///
/// Until then nothing that `read` made of the bytes may be used; after an error it must be thrown away. What `read`
/// leaves unread is read and hashed. Errors name the layer.
pub(super) fn with_tar<T>(
    store: &Store,
    layer: &LayerDescriptor,
    read: impl FnOnce(&mut Tar) -> Result<T>,
) -> Result<T> {
    let result = store.open_blob(&layer.digest).map_err(Error::from).and_then(|blob| with_blob(blob, layer, read));
    result.map_err(|source| Error::Layer { digest: layer.digest, source: Box::new(source) })
}

fn with_blob<T>(blob: File, layer: &LayerDescriptor, read: impl FnOnce(&mut Tar) -> Result<T>) -> Result<T> {
    thread::scope(|scope| {
        let (full, parts) = sync_channel(PARTS);
        let (recycle, empty) = channel();
        let inflate = move || inflate(blob, &full, &empty);
        let thread = thread::Builder::new().name("layer-inflate".to_owned()).spawn_scoped(scope, inflate);
        let thread = thread.map_err(|source| Error::Thread { source })?;
        let mut tar = Tar { parts, recycle, part: Vec::new(), at: 0, len: 0 };
        let value = read(&mut tar)?;
        io::copy(&mut tar, &mut io::sink()).map_err(|source| Error::Read { source })?;
        drop(tar);
        let found = thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        match found {
            Some(found) if found == layer.diff_id => Ok(value),
            Some(found) => Err(Error::DiffIdMismatch { expected: layer.diff_id, found }),
            None => Err(Error::Read { source: io::ErrorKind::UnexpectedEof.into() }),
        }
    })
}

/// A part of the stream and how much of the buffer it is.
type Part = io::Result<(Vec<u8>, usize)>;

/// Decompresses into parts; returns the hash of all if the end was reached and the reader still wanted it.
fn inflate(blob: File, full: &SyncSender<Part>, empty: &Receiver<Vec<u8>>) -> Option<DiffId> {
    let mut hasher = Sha256::new();
    let mut stream = match decode(blob, Accepted::Layer) {
        Ok(stream) => stream,
        Err(error) => return full.send(Err(error)).err().and(None),
    };
    loop {
        let mut part = empty.try_recv().unwrap_or_else(|_| vec![0; PART]);
        let len = match fill(&mut *stream, &mut part) {
            Ok(0) => return Some(DiffId(Digest::from_bytes(hasher.finalize().into()))),
            Ok(len) => len,
            Err(error) => return full.send(Err(error)).err().and(None),
        };
        hasher.update(&part[..len]);
        full.send(Ok((part, len))).ok()?;
    }
}

fn fill(stream: &mut dyn Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match stream.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(len) => filled += len,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}

/// The tar as a stream.
#[derive(Debug)]
pub(super) struct Tar {
    parts: Receiver<Part>,
    recycle: Sender<Vec<u8>>,
    part: Vec<u8>,
    at: usize,
    len: usize,
}

impl Read for Tar {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.at == self.len {
            // The sender is gone when all is sent.
            let Ok(part) = self.parts.recv() else { return Ok(0) };
            let (part, len) = part?;
            let old = std::mem::replace(&mut self.part, part);
            (self.at, self.len) = (0, len);
            if !old.is_empty() {
                // A sender that has reached the end needs no more buffers.
                self.recycle.send(old).ok();
            }
        }
        let len = buffer.len().min(self.len - self.at);
        buffer[..len].copy_from_slice(&self.part[self.at..self.at + len]);
        self.at += len;
        Ok(len)
    }
}
