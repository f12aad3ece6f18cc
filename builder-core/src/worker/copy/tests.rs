use super::archive::apply;
use super::*;
use crate::digest::ContentHash;
use crate::tree::{Entry, LayerTree};

fn entry(line: &str) -> Entry {
    // `path kind [mode uid:gid]`, a link as `path -> target`, a hard link as `path = target`.
    let words: Vec<&str> = line.split(' ').collect();
    let mut meta = Metadata { mode: 0o644, ..Metadata::default() };
    let kind = match words[1] {
        "dir" => Kind::Directory { opaque: false },
        "file" => Kind::File { size: 1, content: ContentHash::of(words[0].as_bytes()) },
        "->" => Kind::Symlink { target: words[2].into() },
        "=" => Kind::Hardlink { target: words[2].into() },
        "fifo" => Kind::Fifo,
        other => panic!("{other}"),
    };
    if matches!(kind, Kind::Directory { .. }) {
        meta.mode = 0o755;
    }
    if let ("dir" | "file", [mode, owner]) = (words[1], &words[2..]) {
        meta.mode = u32::from_str_radix(mode, 8).unwrap();
        let (uid, gid) = owner.split_once(':').unwrap();
        (meta.uid, meta.gid) = (uid.parse().unwrap(), gid.parse().unwrap());
    }
    Entry { path: words[0].trim_start_matches('/').into(), meta, kind }
}

fn tree(lines: &[&str]) -> MergedTree {
    let mut tree = MergedTree::new();
    tree.apply(&LayerTree::from_unsorted(lines.iter().map(|line| entry(line)).collect()), 0);
    tree
}

fn show_planned(planned: &Planned) -> String {
    let Entry { path, meta, kind } = &planned.entry;
    let path = String::from_utf8_lossy(path);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    match kind {
        Kind::Directory { opaque: false } => format!("{path}/ {:o} {}:{}", meta.mode, meta.uid, meta.gid),
        Kind::Directory { opaque: true } => format!("{path}/ opaque"),
        Kind::File { .. } => {
            let from = planned.origin.as_ref().map(|origin| text(&origin.path)).unwrap_or_default();
            format!("{path} {:o} {}:{} < {from}", meta.mode, meta.uid, meta.gid)
        }
        Kind::Hardlink { target } => format!("{path} = {}", text(target)),
        Kind::Symlink { target } => format!("{path} -> {}", text(target)),
        Kind::Whiteout => format!("{path} gone"),
        other => format!("{path} {other:?}"),
    }
}

struct Copy<'a> {
    rules: Rules<'a>,
    owner: SourceOwner,
}

impl Copy<'_> {
    fn to(dest: &str) -> Self {
        let rules = Rules {
            dest: dest.trim_matches('/').into(),
            dest_is_dir: dest.ends_with('/'),
            owner: None,
            chmod: None,
            excludes: None,
            now: Timestamp::default(),
        };
        Self { rules, owner: SourceOwner::Root }
    }

    fn run(&self, base: &MergedTree, source: &MergedTree, patterns: &[&str]) -> Result<Vec<String>, String> {
        let mut canvas = Canvas::new(base);
        for (number, pattern) in patterns.iter().enumerate() {
            let view = SourceTree { number, tree: source, owner: self.owner };
            for selected in select(source, pattern).map_err(|e| e.to_string())? {
                copy_path(&mut canvas, &self.rules, view, &selected).map_err(|e| e.to_string())?;
            }
        }
        Ok(canvas.finish().iter().map(show_planned).collect())
    }
}

fn source() -> MergedTree {
    tree(&[
        "a.txt file 600 7:8",
        "b.txt file",
        "dir dir 700 7:8",
        "dir/sub dir 711 7:8",
        "dir/sub/c file",
        "link -> dir",
    ])
}

#[test]
fn files_and_directories_go_where_the_reference_says() {
    let empty = MergedTree::new();
    let with_dir = tree(&["there dir 750 5:6"]);
    let cases: &[(&str, &MergedTree, &[&str], &[&str])] = &[
        ("x", &empty, &["a.txt"], &["x 600 0:0 < a.txt"]),
        ("x/", &empty, &["a.txt"], &["x/ 755 0:0", "x/a.txt 600 0:0 < a.txt"]),
        ("there", &with_dir, &["a.txt"], &["there/ 750 5:6", "there/a.txt 600 0:0 < a.txt"]),
        ("p/q", &empty, &["a.txt"], &["p/ 755 0:0", "p/q 600 0:0 < a.txt"]),
        // A directory gives its contents; the destination's own metadata is not the source's.
        ("x", &empty, &["dir"], &["x/ 755 0:0", "x/sub/ 711 0:0", "x/sub/c 644 0:0 < dir/sub/c"]),
        ("x/", &empty, &["?.txt"], &["x/ 755 0:0", "x/a.txt 600 0:0 < a.txt", "x/b.txt 644 0:0 < b.txt"]),
        // A link that is named is followed, its name stays.
        ("x/", &empty, &["link/sub/c"], &["x/ 755 0:0", "x/c 644 0:0 < dir/sub/c"]),
        ("x", &empty, &["nothing*"], &[]),
    ];
    for (dest, base, patterns, expected) in cases {
        let found = Copy::to(dest).run(base, &source(), patterns);
        assert_eq!(
            found.as_deref(),
            Ok(expected.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>().as_slice()),
            "{dest} {patterns:?}"
        );
    }
}

#[test]
fn what_cannot_be_copied_is_said() {
    let base = tree(&["d/f file", "file file", "ring -> ring"]);
    for (dest, patterns, part) in [
        ("x", &["missing"][..], "does not exist"),
        ("x", &["a.txt", "b.txt"], "end the destination with /"),
        ("file", &["dir"], "\"file\" is not a directory"),
        ("file/x", &["a.txt"], "not a directory"),
        ("ring/x", &["a.txt"], "symbolic links"),
        ("x", &["[a"], "not a valid pattern"),
    ] {
        let error = Copy::to(dest).run(&base, &source(), patterns).unwrap_err();
        assert!(error.contains(part), "{dest} {patterns:?}: {error}");
    }
    let over = tree(&["t dir", "t/d file"]);
    assert!(Copy::to("/").run(&base, &over, &["t"]).unwrap_err().contains("cannot be replaced with a file"));
    let reserved = tree(&["t dir", "t/.wh.x file"]);
    assert!(Copy::to("/").run(&base, &reserved, &["t"]).unwrap_err().contains(".wh."));
}

#[test]
fn links_in_the_destination_are_followed_inside_the_image() {
    let base =
        tree(&["real dir", "abs -> /real", "out -> ../../real", "dangling -> no/where", "real/f file", "fl -> real/f"]);
    let run = |dest: &str| Copy::to(dest).run(&base, &source(), &["a.txt"]).unwrap();
    assert_eq!(run("abs/"), ["real/ 755 0:0", "real/a.txt 600 0:0 < a.txt"]);
    assert_eq!(run("out/n"), ["real/ 755 0:0", "real/n 600 0:0 < a.txt"]);
    assert_eq!(run("dangling"), ["no/ 755 0:0", "no/where 600 0:0 < a.txt"]);
    assert_eq!(run("fl"), ["real/ 755 0:0", "real/f 600 0:0 < a.txt"]);
}

#[test]
fn owners_modes_links_and_exclusions() {
    let empty = MergedTree::new();
    let linked = tree(&["d dir", "d/1 file 640 7:8", "d/2 = d/1", "d/3/4 = d/1", "d/s -> 1"]);
    let mut copy = Copy { owner: SourceOwner::Kept, ..Copy::to("x") };
    let kept = copy.run(&empty, &linked, &["d"]).unwrap();
    assert_eq!(kept, ["x/ 755 0:0", "x/1 640 7:8 < d/1", "x/2 = x/1", "x/3/ 755 0:0", "x/3/4 = x/1", "x/s -> 1"]);
    copy.rules.owner = Some((1, 2));
    let mode = Chmod::Octal(0o700);
    copy.rules.chmod = Some(&mode);
    let excludes = PatternSet::new(["3", "s"]).unwrap();
    copy.rules.excludes = Some(&excludes);
    assert_eq!(copy.run(&empty, &linked, &["d"]).unwrap(), ["x/ 700 1:2", "x/1 700 1:2 < d/1", "x/2 = x/1"]);
}

#[test]
fn parents_are_kept_on_request() {
    let empty = MergedTree::new();
    let source = source();
    let view = SourceTree { number: 0, tree: &source, owner: SourceOwner::Root };
    let run = |pattern: &str| {
        let mut canvas = Canvas::new(&empty);
        let selected = select_with_parents(&source, pattern).unwrap();
        copy_with_parents(&mut canvas, &Copy::to("x/").rules, view, &selected).unwrap();
        canvas.finish().iter().map(show_planned).collect::<Vec<_>>()
    };
    let whole = ["x/ 755 0:0", "x/dir/ 700 0:0", "x/dir/sub/ 711 0:0", "x/dir/sub/c 644 0:0 < dir/sub/c"];
    assert_eq!(run("dir/sub/c"), whole);
    assert_eq!(run("**/c"), whole);
    assert_eq!(run("dir/./sub/c"), ["x/ 755 0:0", "x/sub/ 711 0:0", "x/sub/c 644 0:0 < dir/sub/c"]);
    assert!(select_with_parents(&source, "nope").is_err());
    assert!(select_with_parents(&source, "nope*").unwrap().paths.is_empty());
}

fn unpack(base: &MergedTree, dest: &str, lines: &[&str]) -> Result<Vec<String>, String> {
    let entries: Vec<ArchiveEntry> = lines
        .iter()
        .enumerate()
        .map(|(number, line)| {
            let Entry { meta, kind, .. } = entry(line);
            ArchiveEntry { name: line.split(' ').next().unwrap().into(), meta, kind, number }
        })
        .collect();
    let mut canvas = Canvas::new(base);
    apply(&mut canvas, &Copy::to(dest).rules, 0, &entries).map_err(|e| e.to_string())?;
    Ok(canvas.finish().iter().map(show_planned).collect())
}

#[test]
fn archives_are_applied_below_the_destination() {
    let base = tree(&["etc/passwd file", "old -> /etc"]);
    let plain = unpack(&base, "out", &["./ dir 700 9:9", "d/f file 4755 1:2", "/abs/g file", "d/h = d/f"]).unwrap();
    let expected = [
        "out/ 755 0:0",
        "out/abs/ 755 0:0",
        "out/abs/g 644 0:0 < 2",
        "out/d/ 755 0:0",
        "out/d/f 4755 1:2 < 1",
        "out/d/h = out/d/f",
    ];
    assert_eq!(plain, expected);
    assert_eq!(unpack(&base, "/", &["old dir", "old/f file"]).unwrap(), ["old/ 755 0:0", "old/f 644 0:0 < 1"]);
    assert_eq!(unpack(&base, "/", &["etc/.wh.passwd file"]).unwrap(), ["etc/ 755 0:0", "etc/passwd gone"]);
}

#[test]
fn nothing_in_an_archive_leads_out_of_the_destination() {
    let base = tree(&["etc/passwd file"]);
    for lines in [
        &["../x file"][..],
        &["a/../../x file"],
        &["l -> /etc", "l/planted file"],
        &["l -> ../etc", "l/planted file"],
        &["h = ../etc/passwd"],
        &["h = etc/passwd"],
    ] {
        assert!(unpack(&base, "out", lines).is_err(), "{lines:?}");
    }
    // A link that stays inside is followed.
    let inside = unpack(&base, "out", &["d dir", "l -> /d", "l/f file"]).unwrap();
    assert!(inside.contains(&"out/d/f 644 0:0 < 2".to_owned()), "{inside:?}");
}

#[test]
fn removing_and_making_again_hides_what_was_there() {
    let base = tree(&["d/x file", "keep file"]);
    let mut canvas = Canvas::new(&base);
    canvas.remove(b"d");
    assert!(canvas.get(b"d/x").is_none());
    canvas.mkdir_all(b"d/new", &Metadata { mode: 0o755, ..Metadata::default() }).unwrap();
    let planned: Vec<_> = canvas.finish().iter().map(show_planned).collect();
    assert_eq!(planned, ["d/ opaque", "d/new/ 755 0:0"]);
    let mut canvas = Canvas::new(&base);
    canvas.remove(b"d");
    assert_eq!(canvas.finish().iter().map(show_planned).collect::<Vec<_>>(), ["d gone"]);
}
