use std::io::Read;
use std::process::{Command, Stdio};

use super::*;

/// Text-like bytes that compress, the same everywhere.
pub(crate) fn sample(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut out = Vec::with_capacity(len + 64);
    while out.len() < len {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let word = (state >> 33) % 5000;
        out.extend_from_slice(format!("word{word} ").as_bytes());
    }
    out.truncate(len);
    out
}

/// Does not compress at all.
fn noise(len: usize) -> Vec<u8> {
    let mut out = vec![0; len];
    blake3::Hasher::new().update(b"noise").finalize_xof().fill(&mut out);
    out
}

fn compress(data: &[u8], kind: CompressionKind, level: Option<u8>, threads: usize) -> Compressed<Vec<u8>> {
    let mut pipeline = Pipeline::new(Vec::new(), Compression { kind, level }, threads).unwrap();
    pipeline.write_all(data).unwrap();
    pipeline.finish().unwrap()
}

fn decompress(data: &[u8], accepted: Accepted) -> io::Result<Vec<u8>> {
    let mut out = Vec::new();
    decode(data, accepted)?.read_to_end(&mut out).map(|_| out)
}

const KINDS: [CompressionKind; 3] = [CompressionKind::Gzip, CompressionKind::Zstd, CompressionKind::Uncompressed];

#[test]
fn bytes_do_not_depend_on_threads_or_on_the_size_of_writes() {
    let data = [sample(3 * CHUNK), noise(CHUNK + 7), vec![0; 2 * CHUNK], sample(5)].concat();
    for kind in KINDS {
        let one = compress(&data, kind, None, 1);
        assert_eq!(one.diff_id.0, Digest::of(&data));
        assert_eq!((one.digest, one.size), (Digest::of(&one.sink), one.sink.len() as u64));
        assert_eq!(decompress(&one.sink, Accepted::Layer).unwrap(), data, "{kind:?}");
        for threads in [0, 2, 3, 8, 16] {
            assert_eq!(compress(&data, kind, None, threads).digest, one.digest, "{kind:?} with {threads} threads");
        }
        let mut pipeline = Pipeline::new(Vec::new(), Compression { kind, level: None }, 2).unwrap();
        for part in data.chunks(100_003) {
            pipeline.write_all(part).unwrap();
            pipeline.flush().unwrap();
        }
        assert_eq!(pipeline.finish().unwrap().digest, one.digest, "{kind:?} in many writes");
    }
}

#[test]
fn lengths_around_a_chunk_round_trip() {
    for len in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK, 2 * CHUNK + 1] {
        for data in [sample(len), noise(len), vec![0; len]] {
            for kind in KINDS {
                let packed = compress(&data, kind, None, 2);
                assert!(decompress(&packed.sink, Accepted::Layer).unwrap() == data, "{kind:?} {len}");
                assert_eq!(packed.diff_id.0, Digest::of(&data), "{kind:?} {len}");
            }
        }
    }
}

#[test]
fn every_level_of_a_codec_works_and_no_other() {
    let data = sample(CHUNK + CHUNK / 2);
    for level in 0..=9 {
        let packed = compress(&data, CompressionKind::Gzip, Some(level), 2);
        assert_eq!(decompress(&packed.sink, Accepted::Layer).unwrap(), data, "gzip {level}");
    }
    let data = &data[..200_000];
    for level in [1, 3, 19] {
        let packed = compress(data, CompressionKind::Zstd, Some(level), 1);
        assert_eq!(packed.digest, compress(data, CompressionKind::Zstd, Some(level), 4).digest, "zstd {level}");
        assert_eq!(decompress(&packed.sink, Accepted::Layer).unwrap(), data, "zstd {level}");
    }
    for (kind, level) in [(CompressionKind::Gzip, 10), (CompressionKind::Zstd, 0), (CompressionKind::Zstd, 23)] {
        let error = Pipeline::new(Vec::new(), Compression { kind, level: Some(level) }, 1).unwrap_err();
        assert!(error.to_string().contains(&format!("level {level} is not one of")), "{error}");
    }
}

/// A new version of a codec that gives other bytes must be noticed: it changes the digests of unchanged images.
#[test]
fn golden_digests_of_compressed_bytes() {
    let data = [sample(CHUNK + 1000), noise(3000)].concat();
    for (kind, golden) in [
        (CompressionKind::Gzip, "d2bbcbe6032b763c16e1f4d755e2ca4a52647b9a049c707206be3f2c8ab98e96"),
        (CompressionKind::Zstd, "45b8677b127e343f6a6c3217f3e044ff79982d8def9bb8d3b857277676294086"),
        (CompressionKind::Uncompressed, "92beb1c7c88876fecba155d8b1dc5cf008bed5e2f176a7ef236ba8c944910162"),
    ] {
        assert_eq!(compress(&data, kind, None, 2).digest.hex(), golden, "{kind:?}");
    }
}

#[test]
fn command_line_tools_accept_the_output() {
    let data = sample(2 * CHUNK + 99);
    for (kind, tool) in [(CompressionKind::Gzip, "gzip"), (CompressionKind::Zstd, "zstd")] {
        let packed = compress(&data, kind, None, 2);
        let child = Command::new(tool).arg("-t").stdin(Stdio::piped()).stderr(Stdio::null()).spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIP command_line_tools_accept_the_output: no {tool}");
            continue;
        };
        child.stdin.take().unwrap().write_all(&packed.sink).unwrap();
        assert!(child.wait().unwrap().success(), "{tool} -t");
    }
}

#[test]
fn gzip_is_a_single_member_without_time_or_name() {
    let data = sample(2 * CHUNK);
    let packed = compress(&data, CompressionKind::Gzip, None, 2);
    assert_eq!(packed.sink[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255]);
    let mut out = Vec::new();
    flate2::bufread::GzDecoder::new(&packed.sink[..]).read_to_end(&mut out).unwrap();
    assert!(out == data, "a reader of one member sees all");
}

#[test]
fn several_members_frames_and_skippable_frames_are_read() {
    let gzip = |data: &[u8]| compress(data, CompressionKind::Gzip, None, 1).sink;
    let zstd = |data: &[u8]| compress(data, CompressionKind::Zstd, None, 1).sink;
    let skippable = b"\x5a\x2a\x4d\x18\x04\0\0\0abcd".to_vec();
    for packed in [
        [gzip(b"one "), gzip(b"two")].concat(),
        [zstd(b"one "), zstd(b"two")].concat(),
        [skippable.clone(), zstd(b"one "), skippable.clone(), zstd(b"two"), skippable.clone()].concat(),
    ] {
        assert_eq!(decompress(&packed, Accepted::Layer).unwrap(), b"one two");
    }
}

#[test]
fn damaged_and_cut_streams_are_errors() {
    let data = sample(CHUNK + 10);
    for kind in [CompressionKind::Gzip, CompressionKind::Zstd] {
        let packed = compress(&data, kind, None, 1).sink;
        for cut in [7, packed.len() / 2, packed.len() - 1] {
            assert!(decompress(&packed[..cut], Accepted::Layer).is_err(), "{kind:?} cut at {cut}");
        }
        assert!(decompress(&[&packed[..], b"garbage"].concat(), Accepted::Layer).is_err(), "{kind:?} and garbage");
    }
}

#[test]
fn archives_may_also_be_bzip2_and_xz() {
    let data = sample(100_000);
    for tool in ["bzip2", "xz"] {
        let child = Command::new(tool).arg("-c").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let Ok(mut child) = child else {
            eprintln!("SKIP archives_may_also_be_bzip2_and_xz: no {tool}");
            continue;
        };
        let mut stdin = child.stdin.take().unwrap();
        std::thread::scope(|scope| {
            let writer = scope.spawn(|| stdin.write_all(&data).map(|()| drop(stdin)));
            let packed = child.wait_with_output().unwrap().stdout;
            writer.join().unwrap().unwrap();
            assert!(decompress(&packed, Accepted::Archive).unwrap() == data, "{tool}");
            assert!(decompress(&packed, Accepted::Layer).unwrap() == packed, "{tool} is no layer codec");
        });
    }
}

#[test]
fn a_stream_that_claims_a_huge_window_is_refused() {
    // zstd: a frame header with a window of 2 GiB; xz: filter properties with a dictionary of 4 GiB - 1.
    let zstd = b"\x28\xb5\x2f\xfd\x00\xa8\x01\x00\x00";
    assert!(decompress(zstd, Accepted::Layer).is_err());
    let mut header = vec![0x02, 0x00, 0x21, 0x01, 40, 0, 0, 0];
    let mut crc = flate2::Crc::new();
    crc.update(&header);
    header.extend_from_slice(&crc.sum().to_le_bytes());
    let stream = [b"\xfd7zXZ\0\x00\x01\x69\x22\xde\x36", &header[..], &[0; 64]].concat();
    let error = decompress(&stream, Accepted::Archive).unwrap_err();
    assert!(error.to_string().contains("mem"), "{error}");
}
