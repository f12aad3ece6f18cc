//! Compressed bytes on their way in.
//!
//! The codec is told by the first bytes, not by a media type or a file name: both lie, and a wrong guess cannot pass
//! the digest check that follows. All decoders run in this process (never a program found in `PATH`) and have a fixed
//! limit of memory, whatever the stream claims to need.

use std::io::{self, BufReader, Read};

use bzip2::bufread::MultiBzDecoder;
use flate2::bufread::MultiGzDecoder;
use lzma_rust2::XzReader;
use zstd::stream::read::Decoder as ZstdDecoder;

const INPUT_BUFFER: usize = 128 << 10;
/// Largest zstd window, as a power of two: 128 MiB, what `zstd -d` accepts without being asked for more.
const ZSTD_WINDOW_LOG: u32 = 27;
/// Memory for an xz dictionary, in KiB: `xz -9` needs 65 MiB.
const XZ_MEMORY_KIB: u32 = 128 << 10;

/// Which codecs are acceptable. A plain stream always is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Accepted {
    /// What image layers may have: gzip and zstd.
    Layer,
    /// Also bzip2 and xz: what `ADD` unpacks.
    Archive,
}

/// Returns the decompressed stream of `reader`, or the stream itself if it is not compressed.
///
/// gzip and bzip2 may have several members, zstd several frames and skippable ones between them. Bytes after the last
/// one that start no other are an error.
pub(crate) fn decode<'a>(reader: impl Read + Send + 'a, accepted: Accepted) -> io::Result<Box<dyn Read + Send + 'a>> {
    let mut head = [0; 6];
    let mut reader = reader;
    let len = read_full(&mut reader, &mut head)?;
    let input = BufReader::with_capacity(INPUT_BUFFER, io::Cursor::new(head).take(len as u64).chain(reader));
    Ok(match (&head[..len], accepted) {
        ([0x1f, 0x8b, ..], _) => Box::new(MultiGzDecoder::new(input)),
        ([0x28, 0xb5, 0x2f, 0xfd, ..] | [0x50..=0x5f, 0x2a, 0x4d, 0x18, ..], _) => {
            let mut decoder = ZstdDecoder::with_buffer(input)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG)?;
            Box::new(decoder)
        }
        ([b'B', b'Z', b'h', ..], Accepted::Archive) => Box::new(MultiBzDecoder::new(input)),
        ([0xfd, b'7', b'z', b'X', b'Z', 0], Accepted::Archive) => {
            Box::new(XzReader::new_mem_limit(input, true, XZ_MEMORY_KIB))
        }
        _ => Box::new(input),
    })
}

fn read_full(reader: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut filled = 0;
    while filled < buffer.len() {
        match reader.read(&mut buffer[filled..]) {
            Ok(0) => break,
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(filled)
}
