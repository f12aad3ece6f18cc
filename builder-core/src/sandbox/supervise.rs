//! The parent's side of a running step: reads its output until its pid 1 has ended.

use std::os::fd::OwnedFd;

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::OFlags;
use rustix::io::Errno;
use rustix::pipe::{PipeFlags, pipe_with};

use super::error::Error;
use crate::event::OutputStream;

/// Largest piece of output passed on at once, in bytes.
const PIECE: usize = 64 << 10;
/// Most that is read after the step's end: what a pipe can hold. More can come only from a process outside of the step
/// that was handed its descriptor, and nobody waits for that.
const LEFTOVER: usize = 1 << 20;

/// The parent's ends of the pipes of a step.
#[derive(Debug)]
pub(super) struct Pipes {
    stdout: OwnedFd,
    stderr: OwnedFd,
    report: OwnedFd,
}

/// The child's ends.
#[derive(Debug)]
pub(super) struct ChildPipes {
    pub(super) stdout: OwnedFd,
    pub(super) stderr: OwnedFd,
    pub(super) report: OwnedFd,
}

impl Pipes {
    /// Makes all pipes, close-on-exec at both ends, non-blocking at the parent's.
    pub(super) fn create() -> Result<(Self, ChildPipes), Errno> {
        let pipe = || {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC)?;
            rustix::fs::fcntl_setfl(&read, OFlags::NONBLOCK)?;
            Ok::<_, Errno>((read, write))
        };
        let ((stdout, child_stdout), (stderr, child_stderr), (report, child_report)) = (pipe()?, pipe()?, pipe()?);
        let child = ChildPipes { stdout: child_stdout, stderr: child_stderr, report: child_report };
        Ok((Self { stdout, stderr, report }, child))
    }

    /// Passes on output until the process has ended; returns what it reported.
    pub(super) fn supervise(
        self,
        pidfd: &OwnedFd,
        output: &mut dyn FnMut(OutputStream, &[u8]),
    ) -> Result<Vec<u8>, Error> {
        let failed = |operation| move |source| Error::Supervise { operation, source };
        let mut piece = vec![0_u8; PIECE];
        let mut streams = [(OutputStream::Stdout, Some(self.stdout)), (OutputStream::Stderr, Some(self.stderr))];
        loop {
            let (ready, ended) = wait_ready(&streams, pidfd).map_err(failed("poll"))?;
            for ((stream, pipe), ready) in streams.iter_mut().zip(ready) {
                if let Some(open) = pipe.as_ref().filter(|_| ready)
                    && read_piece(open, &mut piece, |bytes| output(*stream, bytes)).map_err(failed("read"))? == Some(0)
                {
                    *pipe = None;
                }
            }
            if ended {
                break;
            }
        }
        for (stream, pipe) in &streams {
            if let Some(pipe) = pipe {
                drain(pipe, &mut piece, &mut |bytes| output(*stream, bytes)).map_err(failed("read"))?;
            }
        }
        let mut report = Vec::new();
        drain(&self.report, &mut piece, &mut |bytes| report.extend_from_slice(bytes)).map_err(failed("read"))?;
        Ok(report)
    }
}

/// Which streams can be read, and whether the process has ended.
fn wait_ready(streams: &[(OutputStream, Option<OwnedFd>); 2], pidfd: &OwnedFd) -> Result<([bool; 2], bool), Errno> {
    let mut entries = Vec::with_capacity(3);
    entries.push(PollFd::new(pidfd, PollFlags::IN));
    entries.extend(streams.iter().filter_map(|(_, pipe)| pipe.as_ref()).map(|pipe| PollFd::new(pipe, PollFlags::IN)));
    loop {
        match poll(&mut entries, None) {
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
            Ok(_) => break,
        }
    }
    let mut ready = entries.iter().map(|entry| !entry.revents().is_empty());
    let ended = ready.next().unwrap_or(false);
    let [stdout, stderr] = streams.each_ref().map(|(_, pipe)| pipe.is_some() && ready.next().unwrap_or(false));
    Ok(([stdout, stderr], ended))
}

/// Reads once; `Some(0)` at the end, `None` when there is nothing now.
fn read_piece(pipe: &OwnedFd, piece: &mut [u8], mut take: impl FnMut(&[u8])) -> Result<Option<usize>, Errno> {
    match rustix::io::read(pipe, &mut *piece) {
        Ok(length) => {
            if length > 0 {
                take(piece.get(..length).unwrap_or_default());
            }
            Ok(Some(length))
        }
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(errno) => Err(errno),
    }
}

fn drain(pipe: &OwnedFd, piece: &mut [u8], take: &mut dyn FnMut(&[u8])) -> Result<(), Errno> {
    let mut total = 0;
    while total < LEFTOVER {
        match read_piece(pipe, piece, &mut *take)? {
            None | Some(0) => break,
            Some(length) => total += length,
        }
    }
    Ok(())
}
