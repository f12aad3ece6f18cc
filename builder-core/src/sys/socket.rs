//! Connected pairs of Unix stream sockets, and whole-buffer transfers over them.
//!
//! Every descriptor is close-on-exec from birth; a child gets one end as a standard stream, which needs no window in
//! which another thread's `fork` could inherit it. Writing never raises SIGPIPE.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};

/// Two ends of a new connection.
///
/// # Errors
/// When there are no descriptors left.
pub(crate) fn stream_pair() -> io::Result<(OwnedFd, OwnedFd)> {
    Ok(rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)?)
}

/// Whether a descriptor is a Unix stream socket.
pub(crate) fn is_unix_stream(fd: impl AsFd) -> bool {
    let fd = fd.as_fd();
    rustix::net::sockopt::socket_domain(fd) == Ok(AddressFamily::UNIX)
        && rustix::net::sockopt::socket_type(fd) == Ok(SocketType::STREAM)
}

/// Writes all of `bytes`.
///
/// # Errors
/// `EPIPE` when the other end is closed.
pub(crate) fn send_all(socket: impl AsFd, bytes: &[u8]) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let sent = rustix::io::retry_on_intr(|| rustix::net::send(&socket, rest, SendFlags::NOSIGNAL))?;
        rest = rest.get(sent..).unwrap_or_default();
    }
    Ok(())
}

/// Reads what is there into `buffer`, waiting for a first byte; 0 when the other end is closed, also when it was
/// closed with bytes of ours unread.
///
/// # Errors
/// Whatever `recv` gives but `ECONNRESET`.
pub(crate) fn receive(socket: impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    match rustix::io::retry_on_intr(|| rustix::net::recv(&socket, &mut *buffer, RecvFlags::empty())) {
        Ok((count, _)) => Ok(count),
        Err(Errno::CONNRESET) => Ok(0),
        Err(errno) => Err(errno.into()),
    }
}

/// Whether bytes, or the end of the connection, arrive within `seconds`.
///
/// # Errors
/// Whatever `poll` gives.
pub(crate) fn is_readable_within(socket: impl AsFd, seconds: u32) -> io::Result<bool> {
    let timeout = Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
    let mut fds = [PollFd::new(&socket, PollFlags::IN)];
    Ok(rustix::io::retry_on_intr(|| rustix::event::poll(&mut fds, Some(&timeout)))? > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pair_is_close_on_exec_and_told_from_other_files() {
        let (left, right) = stream_pair().expect("pair");
        for end in [&left, &right] {
            let flags = rustix::io::fcntl_getfd(end).expect("flags");
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC));
            assert!(is_unix_stream(end));
        }
        assert!(!is_unix_stream(std::fs::File::open("/dev/null").expect("open")));
    }

    #[test]
    fn the_closed_end_is_seen_by_reader_and_writer() {
        let (left, right) = stream_pair().expect("pair");
        assert!(!is_readable_within(&left, 0).expect("poll"), "nothing sent yet");
        drop(right);
        assert!(is_readable_within(&left, 0).expect("poll"), "the end is readable");
        assert_eq!(receive(&left, &mut [0; 8]).expect("end"), 0);
        assert_eq!(send_all(&left, b"x").expect_err("closed").raw_os_error(), Some(libc::EPIPE));
    }

    #[test]
    fn an_end_closed_with_unread_bytes_is_an_end_too() {
        let (left, right) = stream_pair().expect("pair");
        send_all(&left, b"never read").expect("send");
        drop(right);
        assert_eq!(receive(&left, &mut [0; 8]).expect("reset counts as the end"), 0);
    }
}
