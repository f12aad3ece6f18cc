//! What the writer writes, the reader reads back.

use proptest::prelude::*;

use super::*;
use crate::digest::Digest;
use crate::tree::Xattrs;
use crate::tree::path::{file_name, join, parent};

/// The raw entries that reading `entry` back must give.
fn expected(entry: &Entry) -> Vec<RawEntry> {
    let plain = |path: Vec<u8>, name: Vec<u8>| RawEntry {
        name,
        path: Ok(path),
        kind: RawKind::File,
        mode: 0,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Xattrs::new(),
        size: 0,
    };
    let mut path = entry.path.clone();
    let mut name = path.clone();
    let mut size = 0;
    let kind = match &entry.kind {
        Kind::Whiteout => {
            path = join(parent(&path).unwrap_or_default(), &[WHITEOUT, file_name(&path)].concat());
            return vec![plain(path.clone(), path)];
        }
        Kind::Directory { .. } => {
            name = if path.is_empty() { b"./".to_vec() } else { [&path[..], b"/"].concat() };
            RawKind::Directory
        }
        Kind::File { size: len, .. } => {
            size = *len;
            RawKind::File
        }
        Kind::Hardlink { target } => RawKind::Hardlink { target: target.clone() },
        Kind::Symlink { target } => RawKind::Symlink { target: target.clone() },
        Kind::CharDevice { major, minor } => RawKind::CharDevice { major: *major, minor: *minor },
        Kind::BlockDevice { major, minor } => RawKind::BlockDevice { major: *major, minor: *minor },
        Kind::Fifo => RawKind::Fifo,
    };
    let Metadata { mode, uid, gid, mtime, xattrs } = entry.meta.clone();
    let mut all = vec![RawEntry { name, path: Ok(path.clone()), kind, mode, uid, gid, mtime, xattrs, size }];
    if let Kind::Directory { opaque: true } = entry.kind {
        let marker = join(&path, OPAQUE);
        all.push(plain(marker.clone(), marker));
    }
    all
}

fn check(entries: &[(Entry, Vec<u8>)]) {
    let borrowed: Vec<_> = entries.iter().map(|(entry, content)| (entry.clone(), &content[..])).collect();
    let archive = write_all(&borrowed);
    assert_eq!(archive.len() % 512, 0);
    let read = read_all(&archive).unwrap();
    let want: Vec<_> = entries
        .iter()
        .flat_map(|(entry, content)| {
            let mut all = expected(entry).into_iter();
            let first = all.next().map(|raw| (raw, content.clone()));
            first.into_iter().chain(all.map(|raw| (raw, Vec::new()))).collect::<Vec<_>>()
        })
        .collect();
    assert_eq!(read, want);
}

fn name() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 1..=255)
        .prop_map(|name| name.into_iter().map(|byte| if matches!(byte, 0 | b'/') { b'\n' } else { byte }).collect())
        .prop_filter("a name", |name: &Vec<u8>| name != b"." && name != b"..")
}

fn path() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(prop_oneof![3 => "[a-z]{1,12}".prop_map(String::into_bytes), 1 => name()], 1..12)
        .prop_map(|names| names.join(&b'/'))
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let id = prop_oneof![Just(0), Just(2_097_151), Just(2_097_152), 0..u32::MAX];
    let secs = prop_oneof![Just(0), Just(8_589_934_591), Just(8_589_934_592), -10_i64..10, -(1_i64 << 40)..1 << 40];
    let nanos = prop_oneof![Just(0_u32), Just(1), Just(999_999_999), Just(500_000_000)];
    let key = prop_oneof![Just(b"user.a=b".to_vec()), Just(b"security.capability".to_vec()), name()];
    let value = proptest::collection::vec(any::<u8>(), 0..200);
    let xattrs = proptest::collection::btree_map(key, value, 0..3);
    (0..=0o7777_u32, id.clone(), id, secs, nanos, xattrs).prop_map(|(mode, uid, gid, secs, nanos, xattrs)| Metadata {
        mode,
        uid,
        gid,
        mtime: Timestamp { secs, nanos },
        xattrs,
    })
}

fn entry() -> impl Strategy<Value = (Entry, Vec<u8>)> {
    let kind = prop_oneof![
        any::<bool>().prop_map(|opaque| (Kind::Directory { opaque }, Vec::new())),
        proptest::collection::vec(any::<u8>(), 0..2000)
            .prop_map(|data| (Kind::File { size: data.len() as u64, content: ContentHash([0; 32]) }, data)),
        path().prop_map(|target| (Kind::Hardlink { target }, Vec::new())),
        path().prop_map(|target| (Kind::Symlink { target: [b"/", &target[..]].concat() }, Vec::new())),
        (0..4096_u32, 0..(1_u32 << 20)).prop_map(|(major, minor)| (Kind::CharDevice { major, minor }, Vec::new())),
        (0..4096_u32, 0..(1_u32 << 20)).prop_map(|(major, minor)| (Kind::BlockDevice { major, minor }, Vec::new())),
        Just((Kind::Fifo, Vec::new())),
        Just((Kind::Whiteout, Vec::new())),
    ];
    (path(), metadata(), kind).prop_map(|(path, meta, (kind, content))| (Entry { path, meta, kind }, content))
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_entries_come_back_as_they_were(entries in proptest::collection::vec(entry(), 0..8)) {
        check(&entries);
    }
}

#[test]
fn names_around_every_limit_come_back() {
    let deep = |len: usize| {
        let mut path = b"d/".repeat(len / 2);
        path.resize(len, b'f');
        path[len - 1] = b'f';
        path
    };
    for len in [1, 99, 100, 101, 154, 155, 156, 255, 256, 257, 300, 1000, 4000, 60_000] {
        let path = deep(len);
        check(&[
            (file(&path, 3), b"abc".to_vec()),
            (Entry { kind: Kind::Directory { opaque: true }, ..file(&path, 0) }, Vec::new()),
            (Entry { kind: Kind::Symlink { target: path.clone() }, ..file(b"l", 0) }, Vec::new()),
            (Entry { kind: Kind::Hardlink { target: path.clone() }, ..file(b"l", 0) }, Vec::new()),
        ]);
    }
    let long_name = [b'n'; 255];
    check(&[(file(&long_name, 0), Vec::new()), (file(&join(&long_name, &long_name), 0), Vec::new())]);
    check(&[(Entry { kind: Kind::Directory { opaque: true }, ..file(b"", 0) }, Vec::new())]);
}

#[test]
fn a_file_of_more_than_8_gib_has_a_size_record() {
    let size = (8 << 30) + 5;
    let mut writer = Writer::new(Vec::new());
    let big = Entry { kind: Kind::File { size, content: ContentHash([0; 32]) }, ..file(b"big", 0) };
    writer.append(&big).unwrap();
    writer.write_content(b"start").unwrap();
    let Err(Error::ContentSize) = writer.finish() else { panic!("the rest is missing") };

    let mut reader = Reader::new(BigFile::new(&big).take(size + 4096));
    assert_eq!(reader.next().unwrap().unwrap().size, size);
}

/// The header of a file, then zeros.
struct BigFile(Vec<u8>, usize);

impl BigFile {
    fn new(entry: &Entry) -> Self {
        let mut bytes = Vec::new();
        Writer::new(&mut bytes).append(entry).unwrap();
        Self(bytes, 0)
    }
}

impl Read for BigFile {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let header = &self.0[self.1..];
        if header.is_empty() {
            buffer.fill(0);
            return Ok(buffer.len());
        }
        let len = header.len().min(buffer.len());
        buffer[..len].copy_from_slice(&header[..len]);
        self.1 += len;
        Ok(len)
    }
}

#[test]
fn content_must_have_the_announced_size() {
    let mut writer = Writer::new(Vec::new());
    writer.append(&file(b"a", 3)).unwrap();
    assert!(matches!(writer.write_content(b"abcd"), Err(Error::ContentSize)));
    let mut writer = Writer::new(Vec::new());
    writer.append(&file(b"a", 3)).unwrap();
    assert!(matches!(writer.append(&file(b"b", 0)), Err(Error::ContentSize)));
}

#[test]
fn what_no_tar_can_say_is_an_error() {
    let mut writer = Writer::new(Vec::new());
    let device = Entry { kind: Kind::CharDevice { major: 1 << 21, minor: 0 }, ..file(b"dev", 0) };
    assert!(matches!(writer.append(&device), Err(Error::Unwritable { .. })));
    let mut heavy = file(b"heavy", 0);
    heavy.meta.xattrs.insert(b"user.big".to_vec(), vec![0; 1 << 20]);
    assert!(matches!(writer.append(&heavy), Err(Error::Unwritable { .. })), "the reader would refuse it");
}

/// The form of the headers is a promise: the same entries must give the same layer with every version.
#[test]
fn golden_digest_of_an_archive() {
    let with = |entry: Entry, change: fn(&mut Entry)| {
        let mut entry = entry;
        change(&mut entry);
        entry
    };
    let entries = [
        (Entry { kind: Kind::Directory { opaque: false }, ..file(b"", 0) }, &b""[..]),
        (Entry { kind: Kind::Directory { opaque: true }, ..file(b"d", 0) }, b""),
        (
            with(file(b"d/caps", 1), |e| drop(e.meta.xattrs.insert(b"security.capability".to_vec(), vec![1, 0, 10]))),
            b"x",
        ),
        (with(file(b"d/old", 0), |e| e.meta.mtime = Timestamp { secs: -2, nanos: 5 }), b""),
        (with(file(b"d/owned", 3), |e| (e.meta.uid, e.meta.gid) = (3_000_000, 1000)), b"abc"),
        (Entry { kind: Kind::Whiteout, ..file(b"d/gone", 0) }, b""),
        (Entry { kind: Kind::CharDevice { major: 1, minor: 3 }, ..file(b"d/null", 0) }, b""),
        (file(&[b'n'; 255], 0), b""),
        (file(b"\xff\n", 0), b""),
    ];
    assert_eq!(
        Digest::of(&write_all(&entries)).hex(),
        "5e05aba5b2127cae644c0f309436621244b3751a6a6bd8ddcac74ec97de18309"
    );
}
