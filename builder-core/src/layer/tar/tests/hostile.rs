//! Archives that no honest writer makes. Each must be an error, or read as GNU tar and Go read it.

use super::*;

#[test]
fn the_end_is_two_zero_blocks_or_the_end_of_input() {
    let one = member(b"a", b'0', b"x");
    for archive in [
        [one.clone(), end()].concat(),
        one.clone(),
        [one.clone(), vec![0; 512]].concat(),
        [one.clone(), end(), member(b"hidden", b'0', b"")].concat(),
        [one.clone(), end(), b"rubbish".to_vec()].concat(),
    ] {
        assert_eq!(names(&archive).unwrap(), ["a"]);
    }
    assert_eq!(names(b"").unwrap(), [""; 0]);
    let lone = [one.clone(), vec![0; 512], member(b"b", b'0', b""), end()].concat();
    assert!(matches!(names(&lone), Err(Error::LoneZeroBlock { offset: 1024 })));
}

#[test]
fn cut_archives_are_errors() {
    let archive = [pax(&[("path", "long")]), member(b"a", b'0', &[7; 1500]), end()].concat();
    let whole = archive.len() - 1024;
    for cut in [1, 511, 512, 513, 1024, 1100, 1536, 1537, 2048, 3000, whole - 1] {
        assert!(matches!(names(&archive[..cut]), Err(Error::Truncated { .. })), "cut at {cut}");
    }
    assert_eq!(names(&archive[..whole]).unwrap(), ["long"]);
}

#[test]
fn a_size_record_counts_and_not_the_header() {
    // CVE-2026-33055: a reader that believes the header sees the hidden member.
    let hidden = member(b"hidden", b'0', b"evil");
    for header_size in [0, 512, 5] {
        let carrier = with(header(b"carrier", b'0', 0), |h| assert!(h.set_octal(block::SIZE, header_size)));
        let archive = [pax(&[("size", "1024")]), carrier, hidden.clone(), end()].concat();
        let all = read_all(&archive).unwrap();
        assert_eq!(all.len(), 1, "size {header_size} in the header");
        assert_eq!((all[0].0.size, all[0].1.len()), (1024, 1024));
    }
}

#[test]
fn a_size_record_is_not_for_a_long_name_between() {
    // The long name has its own length; the record is for the member after it.
    let long = member(b"././@LongLink", b'L', b"the/real/name\0");
    let archive = [pax(&[("size", "3")]), long, with(header(b"x", b'0', 0), |_| ()), padded(b"abc"), end()].concat();
    let all = read_all(&archive).unwrap();
    assert_eq!((&all[0].0.name[..], &all[0].1[..]), (&b"the/real/name"[..], &b"abc"[..]));
}

#[test]
fn contradicting_extension_headers_are_refused() {
    let long = |name: &[u8]| member(b"././@LongLink", b'L', name);
    let link = |name: &[u8]| member(b"././@LongLink", b'K', name);
    let file = member(b"f", b'0', b"");
    for (what, archive) in [
        ("two long names", [long(b"a\0"), long(b"b\0"), file.clone()].concat()),
        ("two long links", [link(b"a\0"), link(b"b\0"), file.clone()].concat()),
        ("two extended headers", [pax(&[("path", "a")]), pax(&[("path", "b")]), file.clone()].concat()),
        ("two different names", [long(b"a\0"), pax(&[("path", "b")]), file.clone()].concat()),
        ("bytes after a long name", [long(b"a\0b\0"), file.clone()].concat()),
        ("an empty long name", [long(b"\0"), file.clone()].concat()),
        ("a global path", [with_kind(pax(&[("path", "a")]), b'g'), file.clone()].concat()),
        ("a global size", [with_kind(pax(&[("size", "1")]), b'g'), file.clone()].concat()),
        ("a global attribute", [with_kind(pax(&[("SCHILY.xattr.user.a", "1")]), b'g'), file.clone()].concat()),
        ("a file with a final slash", member(b"dir/", b'0', b"")),
        ("a sparse map in a link", [pax(&[("GNU.sparse.map", "0,1")]), member(b"l", b'2', b"")].concat()),
    ] {
        assert!(matches!(names(&[archive, end()].concat()), Err(Error::Ambiguous { .. })), "{what}");
    }
    let agreeing = [long(b"a\0"), pax(&[("path", "a")]), file, end()].concat();
    assert_eq!(names(&agreeing).unwrap(), ["a"]);
}

fn with_kind(mut archive: Vec<u8>, kind: u8) -> Vec<u8> {
    let mut header = Block(archive[..512].try_into().unwrap());
    header.0[156] = kind;
    header.seal();
    archive[..512].copy_from_slice(&header.0);
    archive
}

#[test]
fn extension_headers_without_an_entry_are_errors() {
    for archive in [pax(&[("path", "a")]), member(b"", b'L', b"a\0"), member(b"", b'K', b"a\0")] {
        assert!(matches!(names(&[archive, end()].concat()), Err(Error::Truncated { .. })));
    }
    let comment = with_kind(pax(&[("comment", "0123456789abcdef")]), b'g');
    assert_eq!(names(&[comment, end()].concat()).unwrap(), [""; 0], "as `git archive` of nothing");
}

#[test]
fn global_owner_and_time_hold_until_said_otherwise() {
    let global = with_kind(pax(&[("uid", "7"), ("mtime", "12.5"), ("comment", "x")]), b'g');
    let own = pax(&[("uid", "8")]);
    let archive =
        [global, member(b"a", b'0', b""), own, member(b"b", b'0', b""), member(b"c", b'0', b""), end()].concat();
    let all = read_all(&archive).unwrap();
    assert_eq!(all.iter().map(|(entry, _)| entry.uid).collect::<Vec<_>>(), [7, 8, 7]);
    assert!(all.iter().all(|(entry, _)| entry.mtime == Timestamp { secs: 12, nanos: 500_000_000 }));
}

#[test]
fn types_without_data_may_have_none() {
    for kind in [b'2', b'3', b'4', b'5', b'6'] {
        let archive = [member(b"a", kind, b"data"), end()].concat();
        assert!(matches!(names(&archive), Err(Error::UnexpectedData { offset: 0 })), "type {}", char::from(kind));
        let archive = [pax(&[("size", "4")]), member(b"a", kind, b""), padded(b"data"), end()].concat();
        assert!(matches!(names(&archive), Err(Error::UnexpectedData { .. })), "type {}", char::from(kind));
    }
    // A hard link may repeat its target's size; no reader looks for data.
    let archive = [with(header(b"a", b'1', 4), |_| ()), member(b"b", b'0', b""), end()].concat();
    assert_eq!(names(&archive).unwrap(), ["a", "b"]);
}

#[test]
fn unknown_types_are_errors() {
    for kind in [b'8', b'A', b'D', b'M', b'N', b'V', b'Z', 0xff] {
        let archive = [member(b"a", kind, b""), end()].concat();
        assert!(matches!(names(&archive), Err(Error::Type { .. })), "type {kind}");
    }
    assert!(matches!(names(&member(b"a", b'S', b"")), Err(Error::Type { .. })), "sparse without GNU magic");
}

#[test]
fn damaged_headers_are_errors() {
    let mut damaged = member(b"a", b'0', b"");
    damaged[0] ^= 1;
    assert!(matches!(names(&damaged), Err(Error::Checksum { offset: 0 })));
    for (what, field, text) in [
        ("size", block::SIZE, &b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff"[..]),
        ("size", block::SIZE, b"9"),
        ("uid", block::UID, b"\xff\xff\xff\xff\xff\xff\xff\xff"),
        ("uid", block::UID, b"\x80\0\0\0\xff\xff\xff\xff"),
        ("gid", block::GID, b"\x80\0\0\x01\0\0\0\0"),
        ("mtime", block::MTIME, b"x"),
    ] {
        let bytes = with(header(b"a", b'0', 0), |h| h.0[field.start..field.start + text.len()].copy_from_slice(text));
        assert!(matches!(names(&bytes), Err(Error::Number { field, .. }) if field == what), "{what} {text:?}");
    }
    let data = [0x5a; 4096];
    assert!(names(&data).is_err(), "not a tar at all");
}

#[test]
fn metadata_is_bounded_before_it_is_read() {
    for kind in [b'x', b'g', b'L', b'K'] {
        // Says 8 GiB - 1; there is nothing behind it.
        let bytes = header(b"a", kind, (8 << 30) - 1).0;
        assert!(matches!(names(&bytes), Err(Error::TooMuchMetadata { offset: 0 })), "type {}", char::from(kind));
    }
    let global = with_kind(pax(&[("comment", "x")]), b'g').repeat(2000);
    assert!(matches!(names(&global), Err(Error::TooMuchMetadata { .. })), "many small ones before one entry");
}

#[test]
fn sparse_maps_are_checked() {
    let sparse = |records: &[(&str, &str)], data: &[u8]| {
        let archive = [pax(records), member(b"f", b'0', data), end()].concat();
        read_all(&archive).map(|all| all[0].1.clone())
    };
    let map = |map| [("GNU.sparse.size", "10"), ("GNU.sparse.numblocks", "2"), ("GNU.sparse.map", map)];
    assert_eq!(sparse(&map("1,2,5,2"), b"abcd").unwrap(), b"\0ab\0\0cd\0\0\0");
    for (bad, data) in [("1,2,5,3", &b"abcd"[..]), ("1,2,2,2", b"abcd"), ("1,2,9,2", b"abcd"), ("5,2,1,2", b"abcd")] {
        assert!(matches!(sparse(&map(bad), data), Err(Error::SparseMap { .. })), "{bad}");
    }
    for bad in ["1,2,5", "1,2", "", "1,2,,2", "1,2,5,x"] {
        assert!(sparse(&map(bad), b"abcd").is_err(), "{bad}");
    }
    assert!(sparse(&[("GNU.sparse.map", "0,4")], b"abcd").is_err(), "no size");
    let version = [("GNU.sparse.major", "2"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "4")];
    assert!(sparse(&version, b"abcd").is_err(), "unknown version");
    let version = [("GNU.sparse.major", "1"), ("GNU.sparse.minor", "0"), ("GNU.sparse.realsize", "4")];
    assert!(sparse(&version, b"1\n0\n").is_err(), "map without its end");
    assert!(
        matches!(sparse(&version, &padded(b"99999999\n")), Err(Error::TooMuchMetadata { .. })),
        "count beyond all measure"
    );
    let bomb = [("GNU.sparse.size", "9000000000000000000"), ("GNU.sparse.map", "0,4")];
    assert!(matches!(sparse(&bomb, b"abcd"), Err(Error::TooManyHoles)));
}

#[test]
fn old_gnu_maps_continue_in_further_blocks_and_end_once() {
    let sparse_header = |extended: u8, size: i64| {
        with(header(b"f", b'S', 0), |h| {
            h.0[257..265].copy_from_slice(b"ustar  \0");
            h.0[block::PREFIX].fill(0);
            assert!(h.set_octal(block::SIZE, size));
            for slot in 0..4 {
                let at = block::GNU_SPARSE.start + slot * 24;
                let pair = format!("{:011o}\0{:011o}\0", slot * 1024, 1);
                h.0[at..at + 24].copy_from_slice(pair.as_bytes());
            }
            h.0[block::GNU_IS_EXTENDED] = extended;
            h.set_octal(block::GNU_REAL_SIZE, 8192);
        })
    };
    let mut more = vec![0; 512];
    more[..24].copy_from_slice(format!("{:011o}\0{:011o}\0", 8191, 1).as_bytes());
    let good = [sparse_header(1, 5), more.clone(), padded(b"abcde"), end()].concat();
    let (entry, content) = &read_all(&good).unwrap()[0];
    assert_eq!((entry.size, content.len()), (8192, 8192));
    assert_eq!((content[0], content[1024], content[3072], content[8191]), (b'a', b'b', b'd', b'e'));
    more[504] = 1;
    let endless = [sparse_header(1, 5), more.repeat(3), end()].concat();
    assert!(read_all(&endless).is_err(), "blocks after the end of the map");
    assert!(read_all(&[sparse_header(1, 5)].concat()).is_err(), "missing continuation");
}

#[test]
fn names_say_why_they_are_no_paths() {
    for (name, expected) in [
        (&b"../outside.txt"[..], Err(NameError::Escapes)),
        (b"a/../../b", Err(NameError::Escapes)),
        (b"/etc/passwd", Ok(&b"etc/passwd"[..])),
        (b"", Err(NameError::Empty)),
        (b"./", Ok(b"")),
    ] {
        let all = read_all(&[member(name, b'5', b""), end()].concat()).unwrap();
        assert_eq!(all[0].0.path.as_deref().map_err(|e| *e), expected, "{name:?}");
        assert_eq!(all[0].0.name, name);
    }
}

#[test]
fn no_input_panics() {
    let archive = [
        pax(&[("path", "p"), ("GNU.sparse.size", "10"), ("GNU.sparse.map", "1,2,5,2")]),
        member(b"f", b'0', b"abcd"),
        member(b"././@LongLink", b'L', &[b'n'; 300]),
        member(b"g", b'0', &[1; 700]),
        end(),
    ]
    .concat();
    // Every byte of the headers changed, also with the checksum made right again.
    for at in 0..archive.len() {
        for value in [0, b'9', 0xff] {
            let mut bytes = archive.clone();
            bytes[at] = value;
            read_all(&bytes).ok();
            let block = at / 512 * 512;
            let mut header = Block(bytes[block..block + 512].try_into().unwrap());
            header.seal();
            bytes[block..block + 512].copy_from_slice(&header.0);
            read_all(&bytes).ok();
        }
    }
}
