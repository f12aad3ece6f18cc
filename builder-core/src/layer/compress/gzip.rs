//! gzip in parallel, as one member.
//!
//! Each chunk is deflated on its own with the last 32 KiB of the chunk before as dictionary, and ends with a sync
//! flush, so that the results simply follow one another in one deflate stream, as pigz does. A member per chunk would
//! be simpler, but readers exist that stop after the first. Format: RFC 1951, RFC 1952.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, Sender, SyncSender, channel, sync_channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use flate2::{Compress, Compression, Crc, FlushCompress, Status};

use super::{CHUNK, worker_died};

/// Nothing optional, no time, no name, operating system "unknown".
const HEADER: [u8; 10] = [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
/// How far back deflate can refer.
const WINDOW: usize = 32 << 10;
/// Jobs in flight per worker: one in work, one waiting, so that none starves while the caller writes.
const JOBS_PER_WORKER: usize = 2;

/// Compresses chunks, in order, into a sink.
#[derive(Debug)]
pub(super) struct Encoder<W: Write> {
    sink: W,
    level: u8,
    threads: usize,
    pool: Option<Pool>,
    /// Results not yet written, oldest first.
    pending: VecDeque<Receiver<io::Result<Deflated>>>,
    previous: Option<Arc<Vec<u8>>>,
    crc: Crc,
}

/// One chunk to compress.
struct Job {
    chunk: Arc<Vec<u8>>,
    previous: Option<Arc<Vec<u8>>>,
    position: Position,
    result: SyncSender<io::Result<Deflated>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Position {
    /// More follows: end on a byte boundary.
    Inner,
    /// End the stream.
    Last,
}

/// One compressed chunk and the checksum of what it was.
struct Deflated {
    bytes: Vec<u8>,
    crc: Crc,
}

/// Worker threads; they end when it is dropped.
#[derive(Debug)]
struct Pool {
    jobs: Option<Sender<Job>>,
    threads: Vec<JoinHandle<()>>,
}

impl<W: Write> Encoder<W> {
    /// Writes the header. Threads start with the first [`Self::push`].
    pub(super) fn new(mut sink: W, level: u8, threads: usize) -> io::Result<Self> {
        sink.write_all(&HEADER)?;
        Ok(Self { sink, level, threads, pool: None, pending: VecDeque::new(), previous: None, crc: Crc::new() })
    }

    /// Takes a chunk that is not the last.
    pub(super) fn push(&mut self, chunk: Arc<Vec<u8>>) -> io::Result<()> {
        self.submit(chunk, Position::Inner)?;
        while self.pending.len() >= self.threads * JOBS_PER_WORKER {
            self.write_oldest()?;
        }
        Ok(())
    }

    /// Takes the last chunk, writes the rest and returns the sink.
    pub(super) fn finish(mut self, last: Arc<Vec<u8>>) -> io::Result<W> {
        if self.previous.is_none() {
            let deflated = deflate(&mut compressor(self.level), &last, &[], Position::Last)?;
            self.write(&deflated)?;
        } else {
            self.submit(last, Position::Last)?;
        }
        while !self.pending.is_empty() {
            self.write_oldest()?;
        }
        self.sink.write_all(&self.crc.sum().to_le_bytes())?;
        self.sink.write_all(&self.crc.amount().to_le_bytes())?;
        Ok(self.sink)
    }

    fn submit(&mut self, chunk: Arc<Vec<u8>>, position: Position) -> io::Result<()> {
        let pool = match &mut self.pool {
            Some(pool) => pool,
            none => none.insert(Pool::start(self.threads, self.level)?),
        };
        let (result, pending) = sync_channel(1);
        let previous = self.previous.replace(chunk.clone());
        pool.submit(Job { chunk, previous, position, result })?;
        self.pending.push_back(pending);
        Ok(())
    }

    fn write_oldest(&mut self) -> io::Result<()> {
        let Some(oldest) = self.pending.pop_front() else { return Ok(()) };
        let deflated = oldest.recv().map_err(|_| worker_died())??;
        self.write(&deflated)
    }

    fn write(&mut self, deflated: &Deflated) -> io::Result<()> {
        self.crc.combine(&deflated.crc);
        self.sink.write_all(&deflated.bytes)
    }
}

impl Pool {
    fn start(threads: usize, level: u8) -> io::Result<Self> {
        let (jobs, queue) = channel::<Job>();
        let queue = Arc::new(Mutex::new(queue));
        let mut pool = Self { jobs: Some(jobs), threads: Vec::with_capacity(threads) };
        for _ in 0..threads {
            let queue = queue.clone();
            let thread = std::thread::Builder::new().name("layer-gzip".to_owned());
            pool.threads.push(thread.spawn(move || work(&queue, level))?);
        }
        Ok(pool)
    }

    fn submit(&self, job: Job) -> io::Result<()> {
        let sent = self.jobs.as_ref().map(|jobs| jobs.send(job));
        sent.is_some_and(|sent| sent.is_ok()).then_some(()).ok_or_else(worker_died)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.jobs = None;
        for thread in self.threads.drain(..) {
            // A panic was reported where its result was missed.
            thread.join().ok();
        }
    }
}

fn work(queue: &Mutex<Receiver<Job>>, level: u8) {
    let mut compressor = compressor(level);
    loop {
        let job = queue.lock().unwrap_or_else(PoisonError::into_inner).recv();
        let Ok(Job { chunk, previous, position, result }) = job else { return };
        let dictionary =
            previous.as_deref().map_or(&[][..], |previous| &previous[previous.len().saturating_sub(WINDOW)..]);
        // Nobody waits for it when the writer gave up.
        result.send(deflate(&mut compressor, &chunk, dictionary, position)).ok();
    }
}

fn compressor(level: u8) -> Compress {
    Compress::new(Compression::new(u32::from(level)), false)
}

/// Deflates one chunk; the compressor is as new before and after.
fn deflate(compressor: &mut Compress, chunk: &[u8], dictionary: &[u8], position: Position) -> io::Result<Deflated> {
    compressor.reset();
    if !dictionary.is_empty() {
        compressor.set_dictionary(dictionary).map_err(io::Error::other)?;
    }
    let flush = match position {
        Position::Inner => FlushCompress::Sync,
        Position::Last => FlushCompress::Finish,
    };
    // Enough for what does not compress, so that one call does: a flush that runs out of room may repeat its marker.
    let mut bytes = Vec::with_capacity(chunk.len() + chunk.len() / 256 + 1024);
    loop {
        let taken = usize::try_from(compressor.total_in()).map_err(io::Error::other)?;
        let status = compressor.compress_vec(&chunk[taken..], &mut bytes, flush).map_err(io::Error::other)?;
        let done = match position {
            // Room left over means that the flush is complete (zlib.h, "deflate").
            Position::Inner => compressor.total_in() == chunk.len() as u64 && bytes.len() < bytes.capacity(),
            Position::Last => status == Status::StreamEnd,
        };
        if done {
            break;
        }
        bytes.reserve(CHUNK / 4);
    }
    let mut crc = Crc::new();
    crc.update(chunk);
    Ok(Deflated { bytes, crc })
}
