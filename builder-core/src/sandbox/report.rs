//! What a child tells its parent: one small message a pipe write, composed without allocation.
//!
//! ```text
//! message  ::= kind:u32 index:u32 value:i32 length:u32 bytes[length]       native byte order, at most 1040 bytes
//! ```
//! A write up to `PIPE_BUF` (4096) is atomic, so messages of two processes never mix.

use std::os::fd::BorrowedFd;

use rustix::io::Errno;

/// Most bytes of a file that an [`Message::ExecFailed`] carries.
pub(super) const HEAD: usize = 1024;
const HEADER: usize = 16;

/// A message as the parent reads it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Message {
    /// An operation of the program failed.
    Failed {
        /// Which, counted over setup and command operations.
        operation: usize,
        /// Why.
        errno: Errno,
    },
    /// No candidate could be executed.
    ExecFailed {
        /// Which candidate decided.
        candidate: usize,
        /// Why.
        errno: Errno,
        /// First bytes of that file, empty when it cannot be read.
        head: Vec<u8>,
    },
    /// The command ended.
    Exited {
        /// As `wait(2)` gives it.
        wait_status: i32,
    },
}

/// What stands before and after the status in [`Message::Exited`].
pub(super) fn around_status() -> ([u8; 8], [u8; 4]) {
    let mut before = [0; 8];
    let fields = EXITED.to_ne_bytes().into_iter().chain(0_u32.to_ne_bytes());
    before.iter_mut().zip(fields).for_each(|(to, from)| *to = from);
    (before, 0_u32.to_ne_bytes())
}

const FAILED: u32 = 1;
const EXEC_FAILED: u32 = 2;
const EXITED: u32 = 3;

/// Child: sends [`Message::Failed`].
pub(super) fn send_failed(pipe: BorrowedFd<'_>, operation: usize, errno: Errno) {
    send(pipe, FAILED, operation, errno.raw_os_error(), &[]);
}

/// Child: sends [`Message::ExecFailed`].
pub(super) fn send_exec_failed(pipe: BorrowedFd<'_>, candidate: usize, errno: Errno, head: &[u8]) {
    send(pipe, EXEC_FAILED, candidate, errno.raw_os_error(), head);
}

/// Child: sends [`Message::Exited`].
pub(super) fn send_exited(pipe: BorrowedFd<'_>, wait_status: i32) {
    send(pipe, EXITED, 0, wait_status, &[]);
}

fn send(pipe: BorrowedFd<'_>, kind: u32, index: usize, value: i32, bytes: &[u8]) {
    let mut message = [0_u8; HEADER + HEAD];
    let index = u32::try_from(index).unwrap_or(u32::MAX);
    let length = u32::try_from(bytes.len().min(HEAD)).unwrap_or(0);
    let fields = [kind.to_ne_bytes(), index.to_ne_bytes(), value.to_ne_bytes(), length.to_ne_bytes()];
    for (to, from) in message.iter_mut().zip(fields.iter().flatten().chain(bytes)) {
        *to = *from;
    }
    let end = HEADER + bytes.len().min(HEAD);
    // A parent that is gone has nobody to tell; this process is about to end either way.
    rustix::io::write(pipe, message.get(..end).unwrap_or_default()).ok();
}

/// Parent: parses all messages; a cut one ends the list.
pub(super) fn parse(mut bytes: &[u8]) -> Vec<Message> {
    let mut messages = Vec::new();
    while let Some((message, rest)) = parse_one(bytes) {
        messages.push(message);
        bytes = rest;
    }
    messages
}

fn parse_one(bytes: &[u8]) -> Option<(Message, &[u8])> {
    let (kind, bytes) = bytes.split_first_chunk::<4>()?;
    let (index, bytes) = bytes.split_first_chunk::<4>()?;
    let (value, bytes) = bytes.split_first_chunk::<4>()?;
    let (length, bytes) = bytes.split_first_chunk::<4>()?;
    let index = usize::try_from(u32::from_ne_bytes(*index)).ok()?;
    let value = i32::from_ne_bytes(*value);
    let (head, rest) = bytes.split_at_checked(usize::try_from(u32::from_ne_bytes(*length)).ok()?)?;
    let errno = || Errno::from_raw_os_error(value);
    let message = match u32::from_ne_bytes(*kind) {
        FAILED => Message::Failed { operation: index, errno: errno() },
        EXEC_FAILED => Message::ExecFailed { candidate: index, errno: errno(), head: head.to_vec() },
        EXITED => Message::Exited { wait_status: value },
        _ => return None,
    };
    Some((message, rest))
}
