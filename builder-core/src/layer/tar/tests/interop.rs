//! Other programs read what the writer writes, and the reader reads what they write.

use std::collections::BTreeMap;
use std::fs;
use std::io::Write as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// Runs a program with `input` and returns its output, or `None` if the program is not installed.
fn run(program: &str, args: &[&str], dir: &Path, input: &[u8]) -> Option<Vec<u8>> {
    let mut command = Command::new(program);
    command.args(args).current_dir(dir).env("TZ", "UTC").env("LC_ALL", "C");
    let spawned = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let Ok(mut child) = spawned else {
        eprintln!("SKIP tar interoperability: no {program}");
        return None;
    };
    let mut stdin = child.stdin.take().unwrap();
    let output = std::thread::scope(|scope| {
        // A program may stop reading at the end mark.
        scope.spawn(move || stdin.write_all(input).ok());
        child.wait_with_output().unwrap()
    });
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(output.stdout)
}

fn python(script: &str, dir: &Path, input: &[u8]) -> Option<Vec<u8>> {
    run("python3", &["-c", script], dir, input)
}

/// One entry of every kind and every reason for an extended header.
fn sample() -> Vec<(Entry, &'static [u8])> {
    let entry = |path: &[u8], kind, change: &dyn Fn(&mut Metadata)| {
        let mut meta =
            Metadata { mode: 0o755, mtime: Timestamp { secs: 1_700_000_000, nanos: 0 }, ..Metadata::default() };
        change(&mut meta);
        Entry { path: path.to_vec(), meta, kind }
    };
    let data = |len: usize| Kind::File { size: len as u64, content: ContentHash([0; 32]) };
    let no = &|_: &mut Metadata| ();
    let long = [b'l'; 255];
    let deep = [&b"deep/".repeat(60)[..], b"end"].concat();
    vec![
        (entry(b"dir", Kind::Directory { opaque: false }, &|m| m.mode = 0o1777), b""),
        (entry(b"dir/file", data(5), &|m| m.mode = 0o4755), b"hello"),
        (entry(b"dir/link", Kind::Hardlink { target: b"dir/file".to_vec() }, &|m| m.mode = 0o4755), b""),
        (entry(b"dir/symlink", Kind::Symlink { target: b"../else where".to_vec() }, &|m| m.mode = 0o777), b""),
        (entry(b"dir/long-symlink", Kind::Symlink { target: [b't'; 200].to_vec() }, &|m| m.mode = 0o777), b""),
        (entry(b"dir/null", Kind::CharDevice { major: 1, minor: 3 }, no), b""),
        (entry(b"dir/disk", Kind::BlockDevice { major: 259, minor: 70_000 }, no), b""),
        (entry(b"dir/pipe", Kind::Fifo, no), b""),
        (entry(b"dir/owned", data(0), &|m| (m.uid, m.gid) = (4_000_000_000, 2_097_152)), b""),
        (entry(b"dir/fine", data(0), &|m| m.mtime.nanos = 123_456_789), b""),
        (entry(b"dir/old", data(0), &|m| m.mtime = Timestamp { secs: -2, nanos: 750_000_000 }), b""),
        (entry(b"dir/far", data(0), &|m| m.mtime.secs = 1 << 34), b""),
        (entry(&long, data(1), no), b"x"),
        (entry(&deep, data(2), no), b"xy"),
        (entry(b"byte \xff\xfe and\nline", data(0), no), b""),
        (entry("umlaut-ä".as_bytes(), data(0), no), b""),
        (
            entry(b"attributes", data(0), &|m| {
                m.xattrs.insert(b"user.plain".to_vec(), b"value".to_vec());
                m.xattrs.insert(b"user.bytes".to_vec(), b"x\n22 linkpath=/etc/evil\n\x00\xff".to_vec());
            }),
            b"",
        ),
    ]
}

#[test]
fn python_reads_every_entry() {
    const LIST: &str = r#"
import sys, tarfile, io, os
tar = tarfile.open(fileobj=io.BytesIO(sys.stdin.buffer.read()), encoding="utf-8", errors="surrogateescape")
for m in tar:
    name = os.fsencode(m.name).hex()
    link = os.fsencode(m.linkname).hex()
    data = tar.extractfile(m).read().hex() if m.isreg() else ""
    xattrs = ",".join(sorted(k.split(".",2)[2]+"="+v.encode("utf-8","surrogateescape").hex()
        for k, v in m.pax_headers.items() if k.startswith("SCHILY.xattr.")))
    mtime = repr(float(m.mtime))
    print(name, m.type.decode(), oct(m.mode), m.uid, m.gid, mtime, link, m.devmajor, m.devminor, data, xattrs, repr(m.uname+m.gname), sep="|")
"#;
    let archive = write_all(&sample());
    let dir = tempfile::tempdir().unwrap();
    let Some(output) = python(LIST, dir.path(), &archive) else { return };
    let hex = |bytes: &[u8]| crate::digest::hex(bytes);
    for (line, (entry, content)) in String::from_utf8(output).unwrap().lines().zip(sample()) {
        let (kind, link, (major, minor)) = match &entry.kind {
            Kind::Directory { .. } => ("5", &b""[..], (0, 0)),
            Kind::Hardlink { target } => ("1", &target[..], (0, 0)),
            Kind::Symlink { target } => ("2", &target[..], (0, 0)),
            Kind::CharDevice { major, minor } => ("3", &b""[..], (*major, *minor)),
            Kind::BlockDevice { major, minor } => ("4", &b""[..], (*major, *minor)),
            Kind::Fifo => ("6", &b""[..], (0, 0)),
            _ => ("0", &b""[..], (0, 0)),
        };
        let Metadata { mode, uid, gid, mtime, xattrs } = &entry.meta;
        #[expect(clippy::cast_precision_loss, reason = "as Python has it")]
        let mtime = mtime.secs as f64 + f64::from(mtime.nanos) / 1e9;
        let xattrs = xattrs.iter().map(|(name, value)| format!("{}={}", String::from_utf8_lossy(name), hex(value)));
        let expected = format!(
            "{}|{kind}|0o{mode:o}|{uid}|{gid}|{mtime:?}|{}|{major}|{minor}|{}|{}|''",
            hex(&entry.path),
            hex(link),
            hex(content),
            xattrs.collect::<Vec<_>>().join(","),
        );
        assert_eq!(line, expected);
    }
}

#[test]
fn gnu_tar_lists_every_entry() {
    let archive = write_all(&sample());
    let dir = tempfile::tempdir().unwrap();
    let args = ["-t", "-v", "--numeric-owner", "--full-time", "--quoting-style=escape", "-f", "-"];
    let Some(output) = run("tar", &args, dir.path(), &archive) else { return };
    let output = String::from_utf8(output).unwrap();
    assert_eq!(output.lines().count(), sample().len(), "{output}");
    for expected in [
        "drwxrwxrwt 0/0               0 2023-11-14 22:13:20 dir/",
        "-rwsr-xr-x 0/0               5 2023-11-14 22:13:20 dir/file",
        "hrwsr-xr-x 0/0               0 2023-11-14 22:13:20 dir/link link to dir/file",
        "lrwxrwxrwx 0/0               0 2023-11-14 22:13:20 dir/symlink -> ../else where",
        "crwxr-xr-x 0/0             1,3 2023-11-14 22:13:20 dir/null",
        "brwxr-xr-x 0/0       259,70000 2023-11-14 22:13:20 dir/disk",
        "prwxr-xr-x 0/0               0 2023-11-14 22:13:20 dir/pipe",
        "-rwxr-xr-x 4000000000/2097152 0 2023-11-14 22:13:20 dir/owned",
        "2023-11-14 22:13:20.123456789 dir/fine",
        "2514-05-30 01:53:04 dir/far",
        "byte \\377\\376 and\\nline",
        &"l".repeat(255),
        &"deep/".repeat(60),
        &format!("dir/long-symlink -> {}", "t".repeat(200)),
    ] {
        let squeezed = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(squeezed(&output).contains(&squeezed(expected)), "{expected}\nin\n{output}");
    }
}

#[test]
fn gnu_tar_extracts_contents_links_and_attributes() {
    let wanted = ["dir", "dir/file", "dir/link", "dir/symlink", "dir/fine", "dir/old", "attributes"];
    let entries: Vec<_> = sample().into_iter().filter(|(e, _)| wanted.iter().any(|w| w.as_bytes() == e.path)).collect();
    let archive = write_all(&entries);
    let dir = tempfile::tempdir().unwrap();
    let args = ["-x", "-p", "--xattrs", "--xattrs-include=user.*", "--no-same-owner", "-f", "-"];
    let Some(_) = run("tar", &args, dir.path(), &archive) else { return };
    assert_eq!(fs::read(dir.path().join("dir/link")).unwrap(), b"hello");
    assert_eq!(fs::read_link(dir.path().join("dir/symlink")).unwrap(), Path::new("../else where"));
    let mut value = [0; 100];
    let len = rustix::fs::getxattr(dir.path().join("attributes"), "user.bytes", &mut value[..]).unwrap();
    assert_eq!(&value[..len], b"x\n22 linkpath=/etc/evil\n\x00\xff");
    let time = |name| {
        let meta = fs::metadata(dir.path().join(name)).unwrap();
        (meta.mtime(), meta.mtime_nsec())
    };
    assert_eq!(time("dir/fine"), (1_700_000_000, 123_456_789));
    assert_eq!(time("dir/old"), (-2, 750_000_000));
}

/// Contents by path, and the entries.
fn read_by_path(archive: &[u8]) -> BTreeMap<Vec<u8>, (RawEntry, Vec<u8>)> {
    let all = read_all(archive).unwrap();
    all.into_iter().map(|(entry, content)| (entry.path.clone().unwrap(), (entry, content))).collect()
}

#[test]
fn every_format_of_gnu_tar_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(250);
    let nested = format!("a/{}/{}", "b".repeat(120), "c".repeat(120));
    fs::create_dir_all(dir.path().join("src").join(&nested)).unwrap();
    fs::write(dir.path().join("src/a/plain"), "plain\n").unwrap();
    fs::hard_link(dir.path().join("src/a/plain"), dir.path().join("src/a/second")).unwrap();
    fs::write(dir.path().join("src").join(&nested).join(&long), vec![5; 3000]).unwrap();
    std::os::unix::fs::symlink("t".repeat(180), dir.path().join("src/a/link")).unwrap();
    for (format, complete) in [("gnu", true), ("pax", true), ("oldgnu", true), ("ustar", false), ("v7", false)] {
        let mut args = vec!["-c", "-C", "src", "--sort=name", "--owner=u:1234", "--group=g:5678", "--format", format];
        if !complete {
            // What the old formats cannot say.
            args.extend(["--exclude", "b*", "--exclude", "link"]);
        }
        args.extend(["-f", "-", "a"]);
        let Some(archive) = run("tar", &args, dir.path(), b"") else { return };
        let all = read_by_path(&archive);
        assert_eq!(all[&b"a/plain"[..]].1, b"plain\n", "{format}");
        assert!(all.values().all(|(entry, _)| (entry.uid, entry.gid) == (1234, 5678)), "{format}");
        let second = RawKind::Hardlink { target: b"a/plain".to_vec() };
        assert_eq!(all[&b"a/second"[..]].0.kind, second, "{format}");
        if complete {
            let path = format!("{nested}/{long}").into_bytes();
            assert_eq!(all[&path].1, vec![5; 3000], "{format}");
            let target = "t".repeat(180).into_bytes();
            assert_eq!(all[&b"a/link"[..]].0.kind, RawKind::Symlink { target }, "{format}");
        }
    }
}

#[test]
fn every_sparse_format_of_gnu_tar_is_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("sparse");
    let file = fs::File::create(&path).unwrap();
    // More pieces than fit into one block of any map.
    for at in (0..60).map(|n| n * 100_000) {
        std::os::unix::fs::FileExt::write_all_at(&file, &[b'x'; 700], at).unwrap();
    }
    file.set_len(7_000_000).unwrap();
    fs::File::create(dir.path().join("empty")).unwrap().set_len(1 << 20).unwrap();
    let expected = fs::read(&path).unwrap();
    let versions: [&[&str]; 5] = [
        &["--format=gnu"],
        &["--format=oldgnu"],
        &["--format=pax", "--sparse-version=0.0"],
        &["--format=pax", "--sparse-version=0.1"],
        &["--format=pax", "--sparse-version=1.0"],
    ];
    for version in versions {
        let args = [&["-c", "-S"], version, &["-f", "-", "sparse", "empty"]].concat();
        let Some(archive) = run("tar", &args, dir.path(), b"") else { return };
        assert!(archive.len() < 1_000_000, "{version:?} made no holes");
        let all = read_by_path(&archive);
        assert!(all[&b"sparse"[..]].1 == expected, "{version:?}");
        assert!(all[&b"empty"[..]].1 == vec![0; 1 << 20], "{version:?}");
        let mut reader = Reader::new(&archive[..]);
        reader.next().unwrap();
        assert_eq!(reader.next().unwrap().unwrap().path.as_deref(), Ok(&b"empty"[..]), "{version:?} skipped unread");
    }
}

#[test]
fn attributes_written_by_gnu_tar_are_read() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("f");
    fs::write(&path, "").unwrap();
    let value = b"line\nfeed \x00 and = signs";
    if rustix::fs::setxattr(&path, "user.test", value, rustix::fs::XattrFlags::empty()).is_err() {
        eprintln!("SKIP attributes_written_by_gnu_tar_are_read: no user attributes in the temporary directory");
        return;
    }
    let args = ["-c", "--xattrs", "--format=pax", "-f", "-", "f"];
    let Some(archive) = run("tar", &args, dir.path(), b"") else { return };
    assert_eq!(read_by_path(&archive)[&b"f"[..]].0.xattrs[&b"user.test"[..]], value);
}

#[test]
fn every_format_of_python_is_read() {
    const MAKE: &str = r#"
import sys, tarfile, io
out = io.BytesIO()
fmt = {"gnu": tarfile.GNU_FORMAT, "pax": tarfile.PAX_FORMAT}[FORMAT]
tar = tarfile.open(fileobj=out, mode="w", format=fmt, encoding="utf-8", errors="surrogateescape")
def add(name, data=b"", **kw):
    m = tarfile.TarInfo(name)
    m.size = len(data)
    for k, v in kw.items(): setattr(m, k, v)
    tar.addfile(m, io.BytesIO(data))
add("before-1970", mtime=-100)
add("big-owner", uid=3_000_000_000, gid=2_097_153)
add("far", mtime=2**35)
add("n"*300, b"data")
add("bytes-\udcff")
add("link", type=tarfile.SYMTYPE, linkname="t"*300)
if FORMAT == "pax": add("fraction", mtime=-1.25)
tar.close()
sys.stdout.buffer.write(out.getvalue())
"#;
    let dir = tempfile::tempdir().unwrap();
    for format in ["gnu", "pax"] {
        let script = format!("FORMAT = {format:?}\n{MAKE}");
        let Some(archive) = python(&script, dir.path(), b"") else { return };
        let mut all: BTreeMap<_, _> =
            read_all(&archive).unwrap().into_iter().map(|(e, c)| (e.name.clone(), (e, c))).collect();
        assert_eq!(all[&b"before-1970"[..]].0.mtime, Timestamp { secs: -100, nanos: 0 }, "{format}");
        let owned = &all[&b"big-owner"[..]].0;
        assert_eq!((owned.uid, owned.gid), (3_000_000_000, 2_097_153), "{format}");
        assert_eq!(all[&b"far"[..]].0.mtime.secs, 1 << 35, "{format}");
        assert_eq!(all[&b"n".repeat(300)].1, b"data", "{format}");
        assert!(all.contains_key(&b"bytes-\xff"[..]), "{format}");
        assert_eq!(all[&b"link"[..]].0.kind, RawKind::Symlink { target: vec![b't'; 300] }, "{format}");
        if let Some((entry, _)) = all.remove(&b"fraction"[..]) {
            assert_eq!(entry.mtime, Timestamp { secs: -2, nanos: 750_000_000 });
        }
    }
}
