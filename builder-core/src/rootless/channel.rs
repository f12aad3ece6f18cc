//! Messages between the caller and its build process: JSON frames over a stream socket.
//!
//! ```text
//! frame = length (u32, little endian, bytes of the text) · JSON text
//! ```
//!
//! One socket, both directions, any number of senders, one receiver. A frame is written under a lock and read whole;
//! a connection that ends between two frames is the regular end, one that ends inside a frame is an error. Frames over
//! [`MAX_FRAME_BYTES`] are refused by both sides, before anything is written and before anything is allocated.
//!
//! Knows no message: what a frame means is [`super::handshake`]'s business and the caller's.

use std::io;
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex};

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::sys::socket;

/// The longest JSON text of one frame, in bytes.
pub const MAX_FRAME_BYTES: usize = 256 << 20;

const LENGTH_BYTES: usize = size_of::<u32>();

/// How much is allocated and read at once: a hostile length costs no more memory than the bytes that really come.
const READ_STEP_BYTES: usize = 1 << 20;

/// A message that could not be sent or received. After any of these the connection is of no use.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ChannelError {
    /// The value has no JSON form.
    #[error("encode a message")]
    Encode {
        /// Why.
        source: serde_json::Error,
    },
    /// The text is not the JSON of the expected type.
    #[error("decode a message of {size} bytes")]
    Decode {
        /// Bytes of the text.
        size: usize,
        /// Why.
        source: serde_json::Error,
    },
    /// A frame over [`MAX_FRAME_BYTES`].
    #[error("message of {size} bytes is over the limit of {MAX_FRAME_BYTES}")]
    TooLarge {
        /// Bytes of the text.
        size: usize,
    },
    /// The other process ended inside a frame.
    #[error("message ends after {received} of {size} bytes")]
    Truncated {
        /// Bytes announced.
        size: usize,
        /// Bytes that came.
        received: usize,
    },
    /// An earlier message was written in part, so nothing may follow it.
    #[error("an earlier message was not sent whole")]
    Broken,
    /// Writing to the socket.
    #[error("send a message of {size} bytes")]
    Send {
        /// Bytes of the text.
        size: usize,
        /// Why.
        source: io::Error,
    },
    /// Reading from the socket.
    #[error("receive a message")]
    Receive {
        /// Why.
        source: io::Error,
    },
}

/// One end of a connection, both directions.
#[derive(Debug)]
pub struct Channel {
    sender: Sender,
    receiver: Receiver,
}

impl Channel {
    /// Takes over a connected Unix stream socket.
    pub(crate) fn from_socket(socket: OwnedFd) -> Self {
        let socket = Arc::new(socket);
        Self {
            sender: Sender { socket: Arc::clone(&socket), state: Arc::default(), limit: MAX_FRAME_BYTES },
            receiver: Receiver { socket },
        }
    }

    /// Sends one message.
    ///
    /// # Errors
    /// [`ChannelError`]; a closed other end is `Send` with `BrokenPipe`.
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), ChannelError> {
        self.sender.send(message)
    }

    /// Waits for one message; `None` when the other end is closed.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ChannelError> {
        self.receiver.recv()
    }

    /// Whether a message, or the end, comes within `seconds`.
    ///
    /// # Errors
    /// [`ChannelError::Receive`].
    pub(crate) fn is_readable_within(&self, seconds: u32) -> Result<bool, ChannelError> {
        socket::is_readable_within(&self.receiver.socket, seconds).map_err(|source| ChannelError::Receive { source })
    }

    /// Another sender of this end.
    pub fn sender(&self) -> Sender {
        self.sender.clone()
    }

    /// The two directions, for different threads.
    pub fn split(self) -> (Sender, Receiver) {
        (self.sender, self.receiver)
    }
}

/// Sending direction; clones send on the same connection, whole messages one after the other.
#[derive(Debug, Clone)]
pub struct Sender {
    socket: Arc<OwnedFd>,
    state: Arc<Mutex<SendState>>,
    /// [`MAX_FRAME_BYTES`], or less for a test that has no time for as much.
    limit: usize,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum SendState {
    #[default]
    BetweenFrames,
    /// A write failed or its thread panicked with a frame begun.
    InsideFrame,
}

impl Sender {
    /// Sends one message; waits while the other end does not read.
    ///
    /// # Errors
    /// [`ChannelError`]; a closed other end is `Send` with `BrokenPipe`.
    pub fn send<T: Serialize + ?Sized>(&self, message: &T) -> Result<(), ChannelError> {
        let frame = self.encode(message)?;
        let size = frame.len() - LENGTH_BYTES;
        // A poisoned lock means a panic inside the critical section, which the state records already.
        let mut state = self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if *state == SendState::InsideFrame {
            return Err(ChannelError::Broken);
        }
        *state = SendState::InsideFrame;
        socket::send_all(&*self.socket, &frame).map_err(|source| ChannelError::Send { size, source })?;
        *state = SendState::BetweenFrames;
        Ok(())
    }

    fn encode<T: Serialize + ?Sized>(&self, message: &T) -> Result<Vec<u8>, ChannelError> {
        let mut frame = FrameBuffer { bytes: vec![0; LENGTH_BYTES], limit: self.limit };
        let encoded = serde_json::to_writer(&mut frame, message);
        let mut bytes = frame.bytes;
        let size = bytes.len() - LENGTH_BYTES;
        if size > self.limit {
            return Err(ChannelError::TooLarge { size });
        }
        encoded.map_err(|source| ChannelError::Encode { source })?;
        let length = u32::try_from(size).map_err(|_| ChannelError::TooLarge { size })?;
        bytes[..LENGTH_BYTES].copy_from_slice(&length.to_le_bytes());
        Ok(bytes)
    }
}

/// Takes no more once it is over the limit, so that an endless value cannot take all memory before it is refused.
struct FrameBuffer {
    bytes: Vec<u8>,
    limit: usize,
}

impl io::Write for FrameBuffer {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        if self.bytes.len() - LENGTH_BYTES > self.limit {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Receiving direction.
#[derive(Debug)]
pub struct Receiver {
    socket: Arc<OwnedFd>,
}

impl Receiver {
    /// Waits for one message; `None` when the other end is closed.
    ///
    /// # Errors
    /// [`ChannelError`].
    pub fn recv<T: DeserializeOwned>(&mut self) -> Result<Option<T>, ChannelError> {
        let mut length = [0; LENGTH_BYTES];
        match self.fill(&mut length)? {
            0 => return Ok(None),
            LENGTH_BYTES => {}
            received => return Err(ChannelError::Truncated { size: LENGTH_BYTES, received }),
        }
        let announced = u32::from_le_bytes(length);
        let size = usize::try_from(announced).unwrap_or(usize::MAX);
        if size > MAX_FRAME_BYTES {
            return Err(ChannelError::TooLarge { size });
        }
        let text = self.read_text(size)?;
        serde_json::from_slice(&text).map(Some).map_err(|source| ChannelError::Decode { size, source })
    }

    fn read_text(&self, size: usize) -> Result<Vec<u8>, ChannelError> {
        let mut text = Vec::new();
        while text.len() < size {
            let begin = text.len();
            text.resize(size.min(begin + READ_STEP_BYTES), 0);
            let wanted = text.len() - begin;
            let received = self.fill(&mut text[begin..])?;
            if received < wanted {
                return Err(ChannelError::Truncated { size, received: begin + received });
            }
        }
        Ok(text)
    }

    /// Reads until `buffer` is full or the connection ends; how many bytes came.
    fn fill(&self, buffer: &mut [u8]) -> Result<usize, ChannelError> {
        let mut filled = 0;
        while filled < buffer.len() {
            match socket::receive(&*self.socket, &mut buffer[filled..]) {
                Ok(0) => break,
                Ok(count) => filled += count,
                Err(source) => return Err(ChannelError::Receive { source }),
            }
        }
        Ok(filled)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;
    use serde::Deserialize;

    use super::*;

    fn pair() -> (Channel, Channel) {
        let (left, right) = socket::stream_pair().expect("socketpair");
        (Channel::from_socket(left), Channel::from_socket(right))
    }

    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    enum Message {
        Text(String),
        Table { rows: BTreeMap<String, Vec<u64>>, note: Option<String> },
    }

    proptest! {
        #[test]
        fn messages_come_back_as_they_were_and_in_order(
            texts in prop::collection::vec(".{0,200}", 0..8),
            rows in prop::collection::btree_map("[a-z]{1,6}", prop::collection::vec(any::<u64>(), 0..5), 0..5),
        ) {
            let (left, mut right) = pair();
            let mut sent: Vec<Message> = texts.into_iter().map(Message::Text).collect();
            sent.push(Message::Table { rows, note: None });
            for message in &sent {
                left.send(message).expect("send");
            }
            drop(left);
            let mut received = Vec::new();
            while let Some(message) = right.recv::<Message>().expect("receive") {
                received.push(message);
            }
            prop_assert_eq!(sent, received);
        }
    }

    #[test]
    fn senders_of_several_threads_do_not_mix_their_bytes() {
        let (left, mut right) = pair();
        std::thread::scope(|scope| {
            for thread in 0..4_u32 {
                let sender = left.sender();
                scope.spawn(move || {
                    for number in 0..50_u32 {
                        sender.send(&(thread, number, "x".repeat(20_000))).expect("send");
                    }
                });
            }
            let mut next = [0; 4];
            for _ in 0..200 {
                let (thread, number, text): (usize, u32, String) = right.recv().expect("receive").expect("message");
                assert_eq!(number, next[thread], "each thread's messages stay in order");
                assert_eq!(text.len(), 20_000);
                next[thread] += 1;
            }
        });
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_the_sender_and_the_channel_lives_on() {
        let (mut left, mut right) = pair();
        assert_eq!(left.sender.limit, MAX_FRAME_BYTES);
        left.sender.limit = 10;
        let error = left.send(&"x".repeat(9)).expect_err("with its quotes one too many");
        assert!(matches!(error, ChannelError::TooLarge { size: 11.. }), "{error}");
        left.send(&"x".repeat(8)).expect("send");
        assert_eq!(right.recv::<String>().expect("receive").as_deref(), Some("xxxxxxxx"));
    }

    #[test]
    fn a_value_without_end_is_refused_too() {
        let (left, _right) = pair();
        struct Endless;
        impl Serialize for Endless {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                use serde::ser::SerializeSeq as _;
                let mut sequence = serializer.serialize_seq(None)?;
                loop {
                    sequence.serialize_element("more")?;
                }
            }
        }
        let mut sender = left.sender();
        sender.limit = 1000;
        assert!(matches!(sender.send(&Endless), Err(ChannelError::TooLarge { size: 1001.. })));
    }

    #[test]
    fn a_frame_over_the_limit_is_refused_by_the_receiver_without_reading_it() {
        let (left, mut right) = pair();
        socket::send_all(&left.receiver.socket, &u32::MAX.to_le_bytes()).expect("send");
        let error = right.recv::<String>().expect_err("4 GiB announced");
        assert!(matches!(error, ChannelError::TooLarge { size } if size == u32::MAX as usize), "{error}");
    }

    #[test]
    fn an_end_inside_a_frame_is_an_error_and_says_where() {
        for (bytes, size, received) in [(&[5, 0][..], 4, 2), (&[5, 0, 0, 0, b'"', b'a'][..], 5, 2)] {
            let (left, mut right) = pair();
            socket::send_all(&left.receiver.socket, bytes).expect("send");
            drop(left);
            let error = right.recv::<String>().expect_err("cut");
            assert!(
                matches!(error, ChannelError::Truncated { size: s, received: r } if (s, r) == (size, received)),
                "{error}"
            );
        }
    }

    #[test]
    fn text_of_another_type_is_an_error() {
        let (left, mut right) = pair();
        left.send("text").expect("send");
        assert!(matches!(right.recv::<u32>(), Err(ChannelError::Decode { size: 6, .. })));
    }

    #[test]
    fn nothing_is_sent_after_a_message_was_cut() {
        let (left, right) = pair();
        drop(right);
        assert!(matches!(left.send("x"), Err(ChannelError::Send { .. })));
        assert!(matches!(left.send("x"), Err(ChannelError::Broken)));
    }
}
