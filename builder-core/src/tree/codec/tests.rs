use proptest::prelude::*;

use super::*;

fn encoded(tree: &LayerTree) -> Vec<u8> {
    let mut bytes = Vec::new();
    tree.encode(&mut bytes).unwrap();
    bytes
}

/// Makes the checksum right again, as someone would who wants a malformed tree read.
fn sealed(mut body: Vec<u8>) -> Vec<u8> {
    let checksum = *blake3::hash(&body).as_bytes();
    body.extend(checksum);
    body
}

fn kind() -> impl Strategy<Value = Kind> {
    let target = || prop::collection::vec(any::<u8>(), 0..20);
    prop_oneof![
        any::<bool>().prop_map(|opaque| Kind::Directory { opaque }),
        (any::<u64>(), any::<[u8; 32]>()).prop_map(|(size, hash)| Kind::File { size, content: ContentHash(hash) }),
        target().prop_map(|target| Kind::Hardlink { target }),
        target().prop_map(|target| Kind::Symlink { target }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::CharDevice { major, minor }),
        any::<(u32, u32)>().prop_map(|(major, minor)| Kind::BlockDevice { major, minor }),
        Just(Kind::Fifo),
        Just(Kind::Whiteout),
    ]
}

fn metadata() -> impl Strategy<Value = Metadata> {
    let xattrs = prop::collection::btree_map(prop::collection::vec(any::<u8>(), 0..9), any::<Vec<u8>>(), 0..3);
    (0..0o10000u32, prop_oneof![Just(0), any::<u32>()], any::<u32>(), any::<i64>(), 0..1_000_000_000u32, xattrs)
        .prop_map(|(mode, uid, gid, secs, nanos, xattrs)| Metadata {
            mode,
            uid,
            gid,
            mtime: Timestamp { secs, nanos },
            xattrs,
        })
}

fn tree() -> impl Strategy<Value = std::sync::Arc<LayerTree>> {
    let entry = ("[a-c]{1,2}(/[a-c-]{1,2}){0,3}", metadata(), kind());
    prop::collection::vec(entry, 0..20).prop_map(|entries| {
        let entry = |(path, meta, kind): (String, _, _)| Entry { path: path.into(), meta, kind };
        LayerTree::from_unsorted(entries.into_iter().map(entry).collect())
    })
}

proptest! {
    #[test]
    fn round_trip(tree in tree()) {
        let bytes = encoded(&tree);
        prop_assert_eq!(LayerTree::decode(&bytes).unwrap(), (*tree).clone());
    }

    #[test]
    fn any_change_is_noticed(tree in tree(), at in any::<prop::sample::Index>(), bit in 0..8u8) {
        let mut bytes = encoded(&tree);
        let at = at.index(bytes.len());
        bytes[at] ^= 1u8 << bit;
        prop_assert!(LayerTree::decode(&bytes).is_err());
        prop_assert!(LayerTree::decode(&bytes[..at]).is_err(), "cut at {}", at);
    }

    /// With a checksum that fits, the bytes are an error or a tree that keeps the invariants.
    #[test]
    fn hostile_bytes(tree in tree(), at in any::<prop::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encoded(&tree);
        bytes.truncate(bytes.len() - CHECKSUM_LEN);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        if let Ok(decoded) = LayerTree::decode(&sealed(bytes)) {
            prop_assert!(LayerTree::from_sorted(decoded.entries().to_vec()).is_ok());
        }
    }

    #[test]
    fn zigzag_keeps_every_number(value in any::<i64>()) {
        prop_assert_eq!(unzigzag(zigzag(value)), value);
    }
}

#[test]
fn lengths_are_held_against_what_is_there() {
    let huge = |rest: &[u8]| LayerTree::decode(&sealed([MAGIC, rest].concat())).unwrap_err().to_string();
    let max = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    assert_eq!(huge(&max), "malformed tree: more entries than bytes at byte 18");
    assert_eq!(huge(&[1, 1, 0, 0, 0, 0, 0]), "malformed tree: shares more than there is at byte 11");
    let path_of_max = [&[1, 0][..], &max, &[0, 0, 0]].concat();
    assert_eq!(huge(&path_of_max), "malformed tree: cut short at byte 20");
    assert_eq!(huge(&[0xff; 11]), "malformed tree: number too large at byte 18");
    assert_eq!(huge(&[0, 0]), "malformed tree: bytes after the last entry at byte 9");
    assert_eq!(
        LayerTree::decode(b"bldtree\x02").unwrap_err().to_string(),
        "malformed tree: not a tree of this version at byte 0"
    );
    assert!(LayerTree::decode(MAGIC).is_err());
}

#[test]
fn shared_prefixes_do_not_explode() {
    // Each entry of five bytes would be a path of 60,000.
    let long = "a/".repeat(30_000);
    let mut body = MAGIC.to_vec();
    put(&mut body, 30_000);
    put(&mut body, 0);
    put_bytes(&mut body, &long.as_bytes()[..long.len() - 1]);
    body.extend([DIRECTORY | SAME_MODE | SAME_OWNER, 0]);
    for _ in 1..30_000 {
        put(&mut body, long.len() as u64 - 1);
        body.extend([1, b'0', DIRECTORY | SAME_MODE | SAME_OWNER, 0]);
    }
    let error = LayerTree::decode(&sealed(body)).unwrap_err();
    assert!(error.to_string().contains("path"), "{error}");
}

#[test]
fn stays_compact() {
    let file = |n: usize| Entry {
        path: format!("usr/lib/python3/dist-packages/package{}/module_{n:05}.py", n / 50).into_bytes(),
        meta: Metadata {
            mode: 0o644,
            mtime: Timestamp { secs: 1_700_000_000 + n as i64, nanos: 0 },
            ..Metadata::default()
        },
        kind: Kind::File { size: n as u64 * 37, content: ContentHash::of(&n.to_le_bytes()) },
    };
    let tree = LayerTree::from_unsorted((0..10_000).map(file).collect());
    let per_path = encoded(&tree).len() / 10_000;
    assert!(per_path < 70, "{per_path} bytes a path");
}
