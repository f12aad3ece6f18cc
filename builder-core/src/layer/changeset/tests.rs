use super::resolve::MAX_SYMLINK_STEPS;
use super::*;
use crate::layer::tar::NameError;
use crate::tree::{Entry, Timestamp, Xattrs};

fn raw(name: &str, kind: RawKind) -> RawEntry {
    RawEntry {
        name: name.as_bytes().to_vec(),
        path: normalise(name.as_bytes()),
        kind,
        mode: 0o644,
        uid: 0,
        gid: 0,
        mtime: Timestamp::default(),
        xattrs: Xattrs::new(),
        size: 0,
    }
}

/// `d NAME`, `f NAME`, `s NAME TARGET`, `h NAME TARGET`.
fn parse(line: &str) -> RawEntry {
    let mut words = line.split(' ');
    let (kind, name) = (words.next().unwrap(), words.next().unwrap());
    let mut target = || words.next().unwrap_or_default().as_bytes().to_vec();
    let kind = match kind {
        "d" => RawKind::Directory,
        "f" => RawKind::File,
        "s" => RawKind::Symlink { target: target() },
        "h" => RawKind::Hardlink { target: target() },
        _ => panic!("{line}"),
    };
    raw(name, kind)
}

fn apply_all(lines: &[&str]) -> Result<Contents> {
    let mut changeset = Changeset::new();
    for line in lines {
        changeset.apply(parse(line))?;
    }
    changeset.finish()
}

fn show(contents: &Contents) -> Vec<String> {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    let entry = |entry: &Entry| {
        let path = text(&entry.path);
        match &entry.kind {
            Kind::Directory { opaque: false } => format!("d {path}"),
            Kind::Directory { opaque: true } => format!("o {path}"),
            Kind::File { .. } => format!("f {path}"),
            Kind::Symlink { target } => format!("s {path} {}", text(target)),
            Kind::Hardlink { target } => format!("h {path} {}", text(target)),
            Kind::Whiteout => format!("w {path}"),
            other => panic!("{other:?}"),
        }
    };
    let implied = contents.implied.iter().map(|path| format!("i {}", text(path)));
    contents.tree.entries().iter().map(entry).chain(implied).collect()
}

#[test]
fn entries_come_to_what_docker_would_have_on_disk() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("any order", &["f b", "d a", "f a/x"], &["d a", "f a/x", "f b"]),
        ("parents left out", &["f a/b/c"], &["f a/b/c", "i a", "i a/b"]),
        ("parents described later", &["f a/b", "d a"], &["d a", "f a/b"]),
        ("leading and doubled slashes", &["d /a/", "f ./a//b"], &["d a", "f a/b"]),
        ("a path twice", &["f a", "s a x"], &["s a x"]),
        ("file over directory", &["d a", "d a/b", "f a/b/c", "f a-b", "f a"], &["f a", "f a-b"]),
        ("directory over file is new", &["f a", "d a", "f a/b"], &["o a", "f a/b"]),
        ("directory over directory keeps", &["d a", "f a/b", "d a"], &["d a", "f a/b"]),
        ("symlink over directory", &["d a", "f a/b", "s a c"], &["s a c"]),
        ("through a symlink", &["d x", "s d x", "f d/y"], &["s d x", "d x", "f x/y"]),
        ("through an absolute symlink", &["s d /x", "f d/y"], &["s d /x", "f x/y", "i x"]),
        ("through a symlink to the root", &["s d /", "f d/etc/x"], &["s d /", "f etc/x", "i etc"]),
        ("through a symlink that would leave", &["s d ../../..", "f d/etc/x"], &["s d ../../..", "f etc/x", "i etc"]),
        ("through two symlinks", &["s a b/c", "s b d", "f a/x"], &["s a b/c", "s b d", "f d/c/x", "i d", "i d/c"]),
        ("symlink is replaced, not followed", &["s a b", "f a"], &["f a"]),
        ("hard links", &["f a", "h b a", "h c b"], &["f a", "h b a", "h c a"]),
        ("the first name in order has the bytes", &["f z", "h a z"], &["f a", "h z a"]),
        ("hard link to a symlink", &["s z x", "h a z"], &["s a x", "h z a"]),
        ("link survives its target", &["f a", "h b a", "s a x"], &["s a x", "f b"]),
        ("link through a symlink", &["d x", "f x/f", "s d x", "h l d/f"], &["s d x", "f l", "d x", "h x/f l"]),
        ("root", &["d ./", "f a"], &["d ", "f a"]),
        ("whiteout", &["f .wh.a", "f d/.wh.b"], &["w a", "w d/b", "i d"]),
        ("whiteout of any type", &["h .wh.a .wh..wh.aufs", "d .wh.b"], &["w a", "w b"]),
        ("whiteout and file", &["f .wh.a", "f a"], &["f a"]),
        ("file and whiteout", &["f a", "f .wh.a"], &["f a"]),
        ("whiteout and directory", &["f .wh.a", "d a", "f a/b"], &["o a", "f a/b"]),
        ("directory and whiteout", &["d a", "f a/b", "f .wh.a"], &["o a", "f a/b"]),
        ("whiteout and something below", &["f .wh.a", "f a/b"], &["o a", "f a/b"]),
        ("opaque", &["d a", "f a/.wh..wh..opq", "f a/b"], &["o a", "f a/b"]),
        ("opaque at the end", &["d a", "f a/b", "f a/.wh..wh..opq"], &["o a", "f a/b"]),
        ("opaque without its directory", &["f a/.wh..wh..opq"], &["o a"]),
        ("opaque root", &["f .wh..wh..opq", "f a"], &["o ", "f a"]),
        ("whiteout in opaque", &["d a", "f a/.wh.x", "f a/b/.wh.y", "f a/.wh..wh..opq"], &["o a", "i a/b"]),
        ("whiteout in what is replaced", &["d a", "f a/.wh.x", "f a"], &["f a"]),
        ("opaque in what is replaced", &["d a", "f a/.wh..wh..opq", "f a"], &["f a"]),
        ("aufs", &["d .wh..wh.plnk", "f .wh..wh.plnk/1.2", "f .wh..wh.aufs", "f a/.wh..wh.orph/x"], &[]),
        ("names with a similar start", &["f .whx", "f .wh"], &["f .wh", "f .whx"]),
    ];
    for (name, lines, expected) in cases {
        let contents = apply_all(lines).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(show(&contents), *expected, "{name}");
        let needed = implied_parents(&contents.tree);
        assert!(needed.iter().all(|path| contents.is_implied(path)), "{name}");
    }
}

#[test]
fn what_docker_refuses_is_refused() {
    type Check = fn(&Error) -> bool;
    let cases: &[(&[&str], Check)] = &[
        (&["f ../a"], |e| matches!(e, Error::Name { reason: NameError::Escapes, .. })),
        (&["f a/../../b"], |e| matches!(e, Error::Name { reason: NameError::Escapes, .. })),
        (&["f "], |e| matches!(e, Error::Name { reason: NameError::Empty, .. })),
        (&["s . x"], |e| matches!(e, Error::Root { .. })),
        (&["s ./ /"], |e| matches!(e, Error::Root { .. })),
        (&["f /"], |e| matches!(e, Error::Root { .. })),
        (&["h a/.. b"], |e| matches!(e, Error::Root { .. })),
        (&["f a", "f a/b"], |e| matches!(e, Error::NotADirectory { .. })),
        (&["f a", "s d a", "f d/b"], |e| matches!(e, Error::NotADirectory { .. })),
        (&["s a b", "s b a", "f a/x"], |e| matches!(e, Error::TooManySymlinks { .. })),
        (&["s a a/a", "f a/x"], |e| matches!(e, Error::TooManySymlinks { .. })),
        (&["s a "], |e| matches!(e, Error::EmptySymlink { .. })),
        (&["f .wh."], |e| matches!(e, Error::Whiteout { .. })),
        (&["f .wh.."], |e| matches!(e, Error::Whiteout { .. })),
        (&["f .wh..."], |e| matches!(e, Error::Whiteout { .. })),
        (&["f .wh.a/b"], |e| matches!(e, Error::Whiteout { .. })),
        (&["h a b"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["h a a"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["f a", "h a a"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["d a", "h b a"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["h b ."], |e| matches!(e, Error::LinkTarget { .. })),
        (&["h b ../../etc/passwd"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["h b /etc/passwd"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["s d /etc", "h b d/passwd"], |e| matches!(e, Error::LinkTarget { .. })),
        (&["d a", "f a/b", "h a a/b"], |e| matches!(e, Error::LinkTarget { .. })),
    ];
    for (lines, check) in cases {
        match apply_all(lines) {
            Err(error) => assert!(check(&error), "{lines:?}: {error:?}"),
            Ok(contents) => panic!("{lines:?} is accepted: {:?}", show(&contents)),
        }
    }
}

#[test]
fn changes_say_what_to_do_on_disk() {
    let mut changeset = Changeset::new();
    let mut apply = |line| changeset.apply(parse(line)).unwrap();
    let path = |text: &str| text.as_bytes().to_vec();
    assert_eq!(apply("f a/b/c").made, [path("a"), path("a/b")]);
    assert_eq!(apply("d a/b").what, What::Nothing);
    let change = apply("f a");
    let gone = |text, was| Gone { path: path(text), was };
    let expected = [gone("a/b/c", Was::Other), gone("a/b", Was::Directory), gone("a", Was::Directory)];
    assert_eq!(change.removed, expected);
    assert!(matches!(&change.what, What::New { path, .. } if path == b"a"));
    let What::Link { target, metadata, .. } = apply("h l a").what else { panic!("no link") };
    assert_eq!((&target[..], metadata), (&b"a"[..], Changed::No));
    let mut other = parse("h m a");
    other.mode = 0o600;
    let What::Link { metadata, inode, .. } = changeset.apply(other).unwrap().what else { panic!("no link") };
    assert_eq!(metadata, Changed::Yes);
    assert_eq!(changeset.node(inode).meta.mode, 0o600, "the last name of a group wins");
}

#[test]
fn attributes_of_the_machine_and_of_overlays_are_left_out() {
    let mut entry = raw("a", RawKind::File);
    let v3 = [&[1, 0, 0, 3][..], &[7; 16], &[9; 4]].concat();
    for (name, value) in [
        (&b"user.keep"[..], b"1".to_vec()),
        (b"security.capability", v3),
        (b"security.selinux", b"label".to_vec()),
        (b"trusted.overlay.opaque", b"y".to_vec()),
        (b"user.overlay.redirect", b"/etc".to_vec()),
        (b"user.builder.owner", b"0:0".to_vec()),
    ] {
        entry.xattrs.insert(name.to_vec(), value);
    }
    let mut changeset = Changeset::new();
    changeset.apply(entry).unwrap();
    let contents = changeset.finish().unwrap();
    let xattrs = &contents.tree.entries()[0].meta.xattrs;
    assert_eq!(xattrs.keys().collect::<Vec<_>>(), [&b"security.capability"[..], b"user.keep"]);
    assert_eq!(xattrs[&b"security.capability"[..]].len(), 20, "as version 2, without a host id");
}

#[test]
fn limits_hold() {
    let full = |change: fn(&mut Changeset)| {
        let mut changeset = Changeset::new();
        change(&mut changeset);
        changeset.apply(parse("f a/b"))
    };
    assert!(matches!(full(|c| c.entries = MAX_ENTRIES), Err(Error::TooLarge { what: "entries", .. })));
    assert!(matches!(full(|c| c.entries = MAX_ENTRIES - 1), Err(Error::TooLarge { .. })), "implied ones count");
    assert!(matches!(full(|c| c.bytes = MAX_BYTES - 2), Err(Error::TooLarge { .. })));
    // Each path costs the following of 200 symlinks with long targets.
    let mut changeset = Changeset::new();
    changeset.symlink_steps = MAX_SYMLINK_STEPS - 3_000_000;
    let detour = "x/../".repeat(800);
    changeset.apply(parse("d x")).unwrap();
    for at in 0..200 {
        changeset.apply(parse(&format!("s l{at} {detour}l{}", at + 1))).unwrap();
    }
    changeset.apply(parse("d l200")).unwrap();
    let error = (0..1000).find_map(|at| changeset.apply(parse(&format!("f l0/f{at}"))).err());
    assert!(matches!(error, Some(Error::TooManySymlinks { .. })), "the work is bounded for the whole layer");
}
