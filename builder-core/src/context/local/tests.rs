use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::os::unix::net::UnixListener;
use std::time::Duration;

use proptest::prelude::*;
use tempfile::TempDir;

use super::*;
use crate::tree::Kind;

struct Dir(TempDir);

impl Dir {
    /// Makes files with their own path as content; `DIR/` is an empty directory, `A -> B` a symlink.
    fn new<S: AsRef<str>>(items: &[S]) -> Self {
        let dir = Self(tempfile::tempdir().unwrap());
        for item in items.iter().map(AsRef::as_ref) {
            let (name, target) = item.split_once(" -> ").map_or((item, None), |(name, target)| (name, Some(target)));
            let path = dir.path(name);
            fs::create_dir_all(if name.ends_with('/') { &path } else { path.parent().unwrap() }).unwrap();
            match target {
                Some(target) => symlink(target, path).unwrap(),
                None if name.ends_with('/') => {}
                None => fs::write(path, name).unwrap(),
            }
        }
        dir
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.path().join(path)
    }

    fn context(&self, ignore: &str) -> LocalContext {
        let rules = PatternSet::parse_ignore_file(ignore.as_bytes()).unwrap();
        LocalContext::open(self.0.path(), Some(rules), None).unwrap()
    }
}

fn text(path: &[u8]) -> String {
    String::from_utf8_lossy(path).into_owned()
}

fn listed(context: &LocalContext, under: &str) -> Vec<String> {
    context.list(under.as_bytes()).unwrap().iter().map(|listed| text(&listed.entry.path)).collect()
}

fn paths(snapshot: &Snapshot) -> Vec<String> {
    snapshot.tree().iter().skip(1).map(|(path, _)| text(path)).collect()
}

#[test]
fn lists_everything_below_a_directory() {
    let dir = Dir::new(&["a/x", "a/d/y", "a/empty/", "a-b", "a/link -> ../a-b"]);
    let context = dir.context("");
    assert_eq!(listed(&context, ""), ["a", "a-b", "a/d", "a/d/y", "a/empty", "a/link", "a/x"]);
    assert_eq!(listed(&context, "a/d"), ["a/d/y"]);
    assert_eq!(listed(&context, "a/x"), Vec::<String>::new());
    assert_eq!(listed(&context, "a/link"), Vec::<String>::new());
    assert_eq!(listed(&context, "missing/deep"), Vec::<String>::new());
}

#[test]
fn entries_say_what_is_on_disk() {
    let dir = Dir::new(&["file", "tool", "link -> /etc/passwd"]);
    fs::set_permissions(dir.path("tool"), fs::Permissions::from_mode(0o4751)).unwrap();
    rustix::fs::mknodat(
        rustix::fs::CWD,
        dir.path("pipe"),
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    let socket = UnixListener::bind(dir.path("socket")).unwrap();
    fs::write(dir.path("").join(OsStr::from_bytes(b"caf\xe9\n")), "").unwrap();
    let file = fs::File::open(dir.path("file")).unwrap();
    crate::sys::xattr::set(file.as_fd(), c"user.kept", b"1").unwrap();
    crate::sys::xattr::set(file.as_fd(), c"user.overlay.opaque", b"y").unwrap();

    let entries: Vec<Entry> = dir.context("").list(b"").unwrap().into_iter().map(|listed| listed.entry).collect();
    drop(socket);
    let names: Vec<&[u8]> = entries.iter().map(|entry| entry.path.as_slice()).collect();
    assert_eq!(names, [&b"caf\xe9\n"[..], b"file", b"link", b"pipe", b"tool"], "no socket");
    assert_eq!(entries[1].meta.xattrs.keys().collect::<Vec<_>>(), [b"user.kept"]);
    assert_eq!(entries[1].kind, Kind::File { size: 4, content: ContentHash([0; 32]) });
    assert_eq!(entries[2].kind, Kind::Symlink { target: b"/etc/passwd".to_vec() });
    assert_eq!(entries[3].kind, Kind::Fifo);
    assert_eq!(entries[4].meta.mode, 0o4751);
}

#[test]
fn names_of_one_file_are_hard_links() {
    let dir = Dir::new(&["b", "other"]);
    fs::create_dir(dir.path("d")).unwrap();
    fs::hard_link(dir.path("b"), dir.path("a")).unwrap();
    fs::hard_link(dir.path("b"), dir.path("d/c")).unwrap();
    let kinds = |ignore: &str| -> Vec<(String, Option<String>)> {
        let entries = dir.context(ignore).list(b"").unwrap().into_iter().map(|listed| listed.entry);
        let link = |kind| if let Kind::Hardlink { target } = kind { Some(text(&target)) } else { None };
        entries.filter(|entry| !entry.is_dir()).map(|entry| (text(&entry.path), link(entry.kind))).collect()
    };
    let link = |name: &str, target: Option<&str>| (name.to_owned(), target.map(str::to_owned));
    assert_eq!(kinds(""), [link("a", None), link("b", Some("a")), link("d/c", Some("a")), link("other", None)]);
    assert_eq!(kinds("a"), [link("b", None), link("d/c", Some("b")), link("other", None)], "among what is listed");
}

#[test]
fn ignored_paths_are_not_there() {
    let items =
        ["a.md", "README.md", "src/main.rs", "src/gen/x", "src/gen/keep/y", "node_modules/m/index.js", "docs/z"];
    let dir = Dir::new(&items);
    for (ignore, want) in [
        ("*.md\n!README.md\nsrc/gen\nnode_modules\ndocs/*", &["README.md", "docs", "src", "src/main.rs"][..]),
        ("*\n!src/gen/keep", &["src", "src/gen", "src/gen/keep", "src/gen/keep/y"]),
        ("*\n!src/nothing\n!docs/none", &[]),
        ("**\n!**/*.js", &["node_modules", "node_modules/m", "node_modules/m/index.js"]),
    ] {
        assert_eq!(listed(&dir.context(ignore), ""), want, "{ignore:?}");
    }
    assert_eq!(listed(&dir.context("src/gen\n!src/gen/keep"), "src/gen"), ["src/gen/keep", "src/gen/keep/y"]);
    assert_eq!(listed(&dir.context("src"), "src"), Vec::<String>::new(), "a directory that is left out");
}

#[test]
fn sources_are_resolved_inside_the_context() {
    let dir = Dir::new(&[
        "a/file",
        "abs -> /a",
        "up -> ../../../../a",
        "a/back -> ../b",
        "b/",
        "out -> /etc",
        "loop -> loop",
    ]);
    let context = dir.context("b\n");
    let resolve = |path: &str| context.resolve(path.as_bytes(), FollowLast::Yes).map(|path| text(&path));
    for (path, want) in [
        ("abs/file", "a/file"),
        ("up/file", "a/file"),
        ("../../a/./file", "a/file"),
        ("out/passwd", "etc/passwd"),
        ("a/back/x", "b/x"),
        ("", ""),
    ] {
        assert_eq!(resolve(path).unwrap(), want, "{path}");
    }
    assert!(matches!(resolve("loop"), Err(Error::Resolve { source: ResolveError::Loop { .. }, .. })));
    assert!(matches!(resolve("a/file/x"), Err(Error::Resolve { source: ResolveError::NotADirectory { .. }, .. })));
}

#[test]
fn snapshots_hold_what_sources_need_and_no_more() {
    let dir =
        Dir::new(&["src/a.c", "src/b.h", "src/sub/c.c", "lib/x", "l -> src", "deep/l -> ../l", "top", "sub/a.c/in"]);
    let context = dir.context("src/b.h");
    for (sources, want) in [
        (&["top"][..], &["top"][..]),
        (&["src/a.c", "lib/"], &["lib", "lib/x", "src", "src/a.c"]),
        (&["deep/l/a.c"], &["deep", "deep/l", "l", "src", "src/a.c"]),
        (&["l"], &["l", "src", "src/a.c", "src/sub", "src/sub/c.c"]),
        (&["*.c"], &[]),
        (&["t*", "missing", "missing/x"], &["top"]),
        (&["l/*.[ch]"], &["l", "src", "src/a.c", "src/sub"]),
        (&["s*/*.c"], &["src", "src/a.c", "sub", "sub/a.c", "sub/a.c/in"]),
        (&["src/**/c.c"], &["src", "src/a.c", "src/sub", "src/sub/c.c"]),
        (&["src/b.h"], &["src"]),
    ] {
        assert_eq!(paths(&context.snapshot(sources).unwrap()), want, "{sources:?}");
    }
    let all = context.snapshot(&["."]).unwrap();
    assert_eq!(paths(&all), listed(&context, ""));
    let mode = fs::metadata(dir.path("")).unwrap().permissions().mode() & 0o7777;
    assert_eq!(all.tree().get(b"").unwrap().meta.mode, mode, "the root is as on disk");
}

#[test]
fn tells_why_a_source_is_missing() {
    let dir = Dir::new(&["dist/app.js", "src/x", "to-dist -> dist", "hidden -> src"]);
    let context = dir.context("# built\ndist\nhidden\n");
    let line = |source: &str| match context.why_missing(source.as_bytes()).unwrap() {
        Missing::Excluded(rule) => Some(rule.line),
        Missing::Absent => None,
    };
    assert_eq!(line("dist/app.js"), Some(2));
    assert_eq!(line("dist/none.js"), None, "missing either way");
    assert_eq!(line("to-dist/app.js"), Some(2));
    assert_eq!(line("hidden/x"), Some(3), "the link is left out, not what it leads to");
    assert_eq!(line("nothing"), None);
}

#[test]
fn hashes_content_with_any_number_of_threads() {
    let names: Vec<String> = (0..50).map(|n| format!("dir/file{n}")).collect();
    let dir = Dir::new(&names);
    let context = dir.context("");
    for threads in [0, 1, 4] {
        let snapshot = context.snapshot(&["dir"]).unwrap();
        let hashes = snapshot.hashes(&context, &names, threads).unwrap();
        let expected: Vec<_> = names.iter().map(|name| ContentHash::of(name.as_bytes())).collect();
        assert_eq!(hashes, expected, "with {threads} threads");
        let missing = snapshot.hashes(&context, &["missing"], threads);
        assert!(matches!(missing, Err(Error::Changed { path }) if path == b"missing"));
    }
}

#[test]
fn notices_files_that_change_meanwhile() {
    let dir = Dir::new(&["a", "b", "c", "d"]);
    let context = dir.context("");
    let hash = |snapshot: &Snapshot, path: &str| snapshot.hashes(&context, &[path], 1).map(drop);
    let snapshot = context.snapshot(&["."]).unwrap();
    fs::write(dir.path("a"), "longer").unwrap();
    fs::remove_file(dir.path("b")).unwrap();
    symlink("/etc/passwd", dir.path("b")).unwrap();
    fs::remove_file(dir.path("c")).unwrap();
    assert!(matches!(hash(&snapshot, "a"), Err(Error::Changed { path }) if path == b"a"));
    assert!(matches!(hash(&snapshot, "b"), Err(Error::Access { operation: "open", .. })), "never what a link leads to");
    assert!(matches!(hash(&snapshot, "c"), Err(Error::Access { operation: "open", .. })));
    hash(&snapshot, "d").unwrap();
    let error = snapshot.hashes(&context, &["d", "c", "a", "b"], 3).unwrap_err();
    assert_eq!(error.to_string(), "open \"c\" of the build context", "the first of several");
}

#[test]
fn known_files_are_not_read() {
    let dir = Dir::new(&["file", "other"]);
    let cache = StatCache::load(&dir.path("cache")).unwrap();
    let stat = file::stat(fs::File::open(dir.path("file")).unwrap().as_fd()).unwrap();
    let invented = ContentHash([9; 32]);
    cache.put(Stamp::of(&stat), invented, SystemTime::now() + Duration::from_secs(60));
    let context = LocalContext::open(dir.0.path(), None, Some(cache)).unwrap();
    let hash = || {
        let snapshot = context.snapshot(&["."]).unwrap();
        let hashes = snapshot.hashes(&context, &["file", "other"], 1).unwrap();
        (hashes[0], hashes[1])
    };
    assert_eq!(hash(), (invented, ContentHash::of(b"other")));
    // Same size, time set back: ctime tells.
    let time = fs::metadata(dir.path("file")).unwrap().modified().unwrap();
    fs::write(dir.path("file"), "FILE").unwrap();
    fs::File::options().write(true).open(dir.path("file")).unwrap().set_modified(time).unwrap();
    assert_eq!(hash(), (ContentHash::of(b"FILE"), ContentHash::of(b"other")));
    context.save_cache().unwrap();
}

#[test]
fn unreadable_files_matter_only_when_needed() {
    if rustix::process::geteuid().is_root() {
        eprintln!("SKIP unreadable_files_matter_only_when_needed: needs an unprivileged user");
        return;
    }
    let dir = Dir::new(&["open/x", "closed/x", "secret", "ignored/x"]);
    for path in ["closed", "secret", "ignored"] {
        fs::set_permissions(dir.path(path), fs::Permissions::from_mode(0o000)).unwrap();
    }
    let context = dir.context("ignored");
    let snapshot = context.snapshot(&["open", "secret"]).unwrap();
    assert_eq!(
        snapshot.hashes(&context, &["secret"], 1).unwrap_err().to_string(),
        "open \"secret\" of the build context"
    );
    assert!(context.snapshot(&["closed"]).is_err());
    for path in ["closed", "ignored"] {
        fs::set_permissions(dir.path(path), fs::Permissions::from_mode(0o700)).unwrap();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// A snapshot for some sources shows the same of them as one of everything.
    #[test]
    fn snapshots_agree_with_the_whole(
        files in prop::collection::btree_set("[ab]{1,2}(/[ab]{1,2}){0,3}", 1..12),
        link in prop::option::of("c -> ([ab]|[ab]/[ab]|\\.)"),
        sources in prop::collection::vec("([abc*?]{1,2}|\\[ab\\]|\\[\\^a\\]b)(/[abc*?]{1,2}|/\\.\\.){0,3}", 1..3),
        ignore in prop::collection::vec("!?[ab*]{1,2}(/[ab*]{1,2}){0,2}", 0..3),
    ) {
        // A name cannot be both a file and a directory.
        let is_dir = |name: &str| files.iter().any(|other| other.starts_with(&format!("{name}/")));
        let mut items: Vec<String> = files.iter().filter(|name| !is_dir(name)).cloned().collect();
        items.extend(link);
        let dir = Dir::new(&items);
        let context = dir.context(&ignore.join("\n"));
        let whole = context.snapshot(&["."]).unwrap();
        let Ok(part) = context.snapshot(&sources) else { return Ok(()) };
        let (whole, part) = (whole.tree(), part.tree());
        for source in &sources {
            let expanded = whole.expand(source.as_bytes());
            prop_assert_eq!(&part.expand(source.as_bytes()), &expanded, "{}", source);
            for path in expanded.into_iter().flatten() {
                let follow = |tree: &crate::tree::MergedTree| tree.resolve(&path, FollowLast::Yes);
                if !crate::tree::pattern::has_wildcard(source.as_bytes()) {
                    prop_assert_eq!(follow(&part), follow(&whole));
                }
                prop_assert_eq!(part.get(&path), whole.get(&path));
                prop_assert!(part.descendants(&path).eq(whole.descendants(&path)), "{:?}", text(&path));
            }
        }
    }
}
