//! Layer bytes on their way out: tar → SHA-256 (diff ID) → codec → SHA-256 (digest) → blob.
//!
//! [`Pipeline`] is a [`Write`] that takes the tar. It cuts it into chunks of a fixed size, and whatever runs beside the
//! caller works on whole chunks: a thread hashes for the diff ID, `threads` workers compress. The caller's own thread
//! hashes and writes the compressed bytes. A layer that fits into one chunk starts no thread at all.
//!
//! Invariants: the output depends on the input, the codec and the level, never on `threads` or on how the input was
//! cut into writes; memory is [`CHUNK`] times a few for each thread.

mod decoder;
mod gzip;

#[cfg(test)]
pub(super) mod tests;

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::mpsc::{SyncSender, sync_channel};
use std::thread::JoinHandle;

use sha2::{Digest as _, Sha256};

pub(crate) use decoder::{Accepted, decode};

use crate::digest::{DiffId, Digest, HashingWriter};
use crate::request::{Compression, CompressionKind};

/// Bytes of tar per compression job. Part of the output's definition: another value gives other bytes.
pub(super) const CHUNK: usize = 1 << 20;
/// Measured on 500 MB of programs and documents: 1.6 % larger than level 6 at 1.6 times its speed, 4 % larger than
/// level 9 at four times its speed.
const GZIP_LEVEL: u8 = 4;
const ZSTD_LEVEL: u8 = 3;
/// Bytes of tar per job of libzstd's workers. Part of the output's definition, as is the overlap.
const ZSTD_JOB: u32 = 4 << 20;
/// History a job sees of the one before: 6 is an eighth of the window, libzstd's own choice for fast levels.
const ZSTD_OVERLAP: u32 = 6;

/// What a finished pipeline knows.
#[derive(Debug)]
pub(crate) struct Compressed<W> {
    /// The sink, holding all bytes.
    pub(crate) sink: W,
    /// SHA-256 of the tar.
    pub(crate) diff_id: DiffId,
    /// SHA-256 of what went into the sink.
    pub(crate) digest: Digest,
    /// Bytes that went into the sink.
    pub(crate) size: u64,
}

/// A writer of compressed, hashed bytes.
#[derive(Debug)]
pub(crate) struct Pipeline<W: Write> {
    chunk: Vec<u8>,
    codec: Codec<W>,
    hasher: DiffHasher,
    threads: usize,
}

/// Where whole chunks go.
enum Codec<W: Write> {
    Gzip(gzip::Encoder<HashingWriter<W>>),
    Zstd(zstd::stream::write::Encoder<'static, HashingWriter<W>>),
    Plain(W),
}

impl<W: Write> std::fmt::Debug for Codec<W> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Gzip(_) => "Gzip",
            Self::Zstd(_) => "Zstd",
            Self::Plain(_) => "Plain",
        })
    }
}

/// The level that a compression means: its own, or the codec's default here.
pub(crate) fn effective_level(compression: Compression) -> u8 {
    let default = match compression.kind {
        CompressionKind::Gzip => GZIP_LEVEL,
        CompressionKind::Zstd => ZSTD_LEVEL,
        CompressionKind::Uncompressed => 0,
    };
    compression.level.unwrap_or(default)
}

impl<W: Write> Pipeline<W> {
    /// Compresses into `sink`, with up to `threads` workers (0 counts as 1). A level that the codec does not have is an
    /// error.
    pub(crate) fn new(sink: W, compression: Compression, threads: usize) -> io::Result<Self> {
        let threads = threads.max(1);
        let codec = match compression.kind {
            CompressionKind::Gzip => {
                let level = level(compression, GZIP_LEVEL, 0..=9)?;
                Codec::Gzip(gzip::Encoder::new(HashingWriter::new(sink), level, threads)?)
            }
            CompressionKind::Zstd => {
                let level = level(compression, ZSTD_LEVEL, 1..=22)?;
                Codec::Zstd(zstd_encoder(HashingWriter::new(sink), level, threads)?)
            }
            CompressionKind::Uncompressed => Codec::Plain(sink),
        };
        Ok(Self { chunk: Vec::with_capacity(CHUNK), codec, hasher: DiffHasher::new(), threads })
    }

    /// Compresses what is left and returns the sink with both digests.
    pub(crate) fn finish(mut self) -> io::Result<Compressed<W>> {
        let last = Arc::new(std::mem::take(&mut self.chunk));
        self.hasher.update(&last);
        let sink = match self.codec {
            Codec::Gzip(encoder) => encoder.finish(last)?,
            Codec::Zstd(mut encoder) => {
                encoder.write_all(&last)?;
                encoder.finish()?
            }
            Codec::Plain(mut sink) => {
                sink.write_all(&last)?;
                let (diff_id, size) = self.hasher.finish()?;
                return Ok(Compressed { sink, diff_id, digest: diff_id.0, size });
            }
        };
        let (sink, digest, size) = sink.finish();
        let (diff_id, _) = self.hasher.finish()?;
        Ok(Compressed { sink, diff_id, digest, size })
    }

    fn send_chunk(&mut self) -> io::Result<()> {
        let chunk = Arc::new(std::mem::replace(&mut self.chunk, Vec::with_capacity(CHUNK)));
        self.hasher.send(&chunk, self.threads)?;
        match &mut self.codec {
            Codec::Gzip(encoder) => encoder.push(chunk),
            Codec::Zstd(encoder) => encoder.write_all(&chunk),
            Codec::Plain(sink) => sink.write_all(&chunk),
        }
    }
}

impl<W: Write> Write for Pipeline<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        // A full chunk goes on only when more follows, so that the last one is always there for `finish`.
        if self.chunk.len() == CHUNK && !bytes.is_empty() {
            self.send_chunk()?;
        }
        let len = bytes.len().min(CHUNK - self.chunk.len());
        self.chunk.extend_from_slice(&bytes[..len]);
        Ok(len)
    }

    /// Does nothing: flushed bytes would depend on when it was called.
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

fn level(compression: Compression, default: u8, range: std::ops::RangeInclusive<u8>) -> io::Result<u8> {
    let level = compression.level.unwrap_or(default);
    if range.contains(&level) {
        return Ok(level);
    }
    let (low, high) = range.into_inner();
    let text = format!("compression level {level} is not one of {low} to {high}");
    Err(io::Error::new(io::ErrorKind::InvalidInput, text))
}

/// The same parameters for any number of workers; but never none, which is another algorithm with other bytes.
fn zstd_encoder<W: Write>(sink: W, level: u8, threads: usize) -> io::Result<zstd::stream::write::Encoder<'static, W>> {
    use zstd::stream::raw::CParameter;
    let mut encoder = zstd::stream::write::Encoder::new(sink, i32::from(level))?;
    encoder.set_parameter(CParameter::NbWorkers(u32::try_from(threads).unwrap_or(u32::MAX).min(64)))?;
    encoder.set_parameter(CParameter::JobSize(ZSTD_JOB))?;
    encoder.set_parameter(CParameter::OverlapSizeLog(ZSTD_OVERLAP))?;
    // The digest of the blob is checked by every reader, a second checksum would cost 4 bytes and time.
    encoder.include_checksum(false)?;
    // The size is not known when the header is written, except for an empty stream.
    encoder.include_contentsize(false)?;
    Ok(encoder)
}

/// The diff ID and the number of bytes, computed beside the caller once there is more than one chunk.
#[derive(Debug)]
struct DiffHasher {
    hasher: Sha256,
    size: u64,
    thread: Option<HashThread>,
}

/// Takes chunks until the sender is dropped, then ends with the state of the hash.
type HashThread = (SyncSender<Arc<Vec<u8>>>, JoinHandle<Sha256>);

impl DiffHasher {
    fn new() -> Self {
        Self { hasher: Sha256::new(), size: 0, thread: None }
    }

    /// Hashes on the thread, started by the first call.
    fn send(&mut self, chunk: &Arc<Vec<u8>>, queue: usize) -> io::Result<()> {
        self.size += chunk.len() as u64;
        if self.thread.is_none() {
            let mut hasher = std::mem::take(&mut self.hasher);
            let (sender, receiver) = sync_channel::<Arc<Vec<u8>>>(queue);
            let thread = std::thread::Builder::new().name("layer-hash".to_owned()).spawn(move || {
                receiver.iter().for_each(|chunk| hasher.update(&chunk[..]));
                hasher
            })?;
            self.thread = Some((sender, thread));
        }
        match &self.thread {
            Some((sender, _)) if sender.send(chunk.clone()).is_ok() => Ok(()),
            _ => Err(worker_died()),
        }
    }

    /// Hashes the last chunk: on the thread if there is one, else here.
    fn update(&mut self, last: &Arc<Vec<u8>>) {
        self.size += last.len() as u64;
        // A dead thread shows in `finish`.
        let sent = self.thread.as_ref().is_some_and(|(sender, _)| sender.send(last.clone()).is_ok());
        if !sent {
            self.hasher.update(&last[..]);
        }
    }

    fn finish(self) -> io::Result<(DiffId, u64)> {
        let hasher = match self.thread {
            None => self.hasher,
            Some((sender, thread)) => {
                drop(sender);
                thread.join().map_err(|_| worker_died())?
            }
        };
        Ok((DiffId(Digest::from_bytes(hasher.finalize().into())), self.size))
    }
}

fn worker_died() -> io::Error {
    io::Error::other("a worker thread of the layer writer panicked")
}
