//! COPY and ADD.

use super::*;

#[test]
fn histories() {
    for (line, want) in [
        ("COPY a b", "COPY a b # buildkit"),
        ("COPY [\"a b\", \"c d\"]", "COPY a b c d # buildkit"),
        (
            "COPY --chown=$v --chmod=u=rwX --link --exclude=x a $v/",
            "COPY --chown=value --chmod=u=rwX a value/ # buildkit",
        ),
        ("COPY --parents a/./b* /d", "COPY --parents a/./b* /d # buildkit"),
        ("COPY <<EOF a <<\"B\" /d/\nx\nEOF\ny\nB", "COPY a <<EOF <<B /d/ # buildkit"),
        ("ADD https://x/y.tar /d", "ADD https://x/y.tar /d # buildkit"),
        ("COPY --chown=$n a b", "COPY a b # buildkit"),
    ] {
        let graph = planned(&format!("FROM scratch\nARG v=value n\n{line}\n"));
        assert!(history(&graph).ends_with(&format!(": {want}\n")), "{line}: {}", history(&graph));
    }
}

#[test]
fn everything_is_expanded_and_typed() {
    let graph = planned(
        "FROM full\nARG v=value\nCOPY --chown=$v:g --chmod=0$v$empty --link --parents --exclude=*.md --exclude=$v \
         $v/*.txt ./b c dest/$v/.\n"
            .replace("0$v$empty", "4750")
            .as_str(),
    );
    let op = last_copy(&graph);
    let from = FileInput::Context(StepId(1));
    let path = |pattern: &str| CopySourceOp::Path { from, pattern: pattern.to_owned() };
    assert_eq!(op.sources, [path("value/*.txt"), path("./b"), path("c")]);
    assert_eq!((op.dest.as_str(), op.workdir.as_str(), op.dest_is_directory()), ("dest/value/.", "/work", true));
    assert_eq!((op.chown.as_deref(), &op.chmod), (Some("value:g"), &Some(Chmod::Octal(0o4750))));
    assert!(op.link && op.parents);
    assert_eq!(op.excludes, ["*.md", "$v"]);
    assert_eq!(op.kind, CopyKind::Copy);
}

#[test]
fn destinations() {
    for (dest, is_directory) in [("a", false), ("a/", true), ("/", true), (".", true), ("a/..", true), ("a/...", false)]
    {
        let graph = planned(&format!("FROM scratch\nCOPY x {dest}\n"));
        assert_eq!(last_copy(&graph).dest_is_directory(), is_directory, "{dest}");
    }
}

#[test]
fn inline_files() {
    let graph = planned(
        "FROM scratch\nENV v=value\nCOPY <<plain <<'quoted' <<-tabs /d/\n$v \"q\" \\$v\nplain\n$v\nquoted\n\tt\n\ttabs\n",
    );
    let inline =
        |name: &str, content: &str| CopySourceOp::Inline { name: name.to_owned(), content: content.to_owned() };
    assert_eq!(
        last_copy(&graph).sources,
        [inline("plain", "value \"q\" $v\n"), inline("quoted", "$v\n"), inline("tabs", "t\n")]
    );
    assert_eq!(steps(&graph), "0 [1/1] COPY <<plain <<quoted <<-tabs /d/\n", "no context is needed");
}

#[test]
fn adds() {
    let graph = planned("FROM scratch\nADD a.tar https://x/a%20b?q https://x/y.git#v1:dir git@h:r /d/\n");
    let op = last_copy(&graph);
    assert_eq!(op.kind, CopyKind::Add { unpack: None });
    let git = |url: &str, remote: &str, reference: Option<&str>, subdir: Option<&str>| {
        CopySourceOp::Git(GitSource {
            url: url.to_owned(),
            remote: remote.to_owned(),
            reference: reference.map(str::to_owned),
            subdir: subdir.map(str::to_owned),
            checksum: None,
            keep_git_dir: false,
            submodules: true,
            mtime: GitTime::Commit,
            pin: GitPin::Reference,
        })
    };
    let http = CopySourceOp::Http { url: "https://x/a%20b?q".to_owned(), name: Some("a b".to_owned()), checksum: None };
    assert_eq!(
        op.sources,
        [
            CopySourceOp::Path { from: FileInput::Context(StepId(0)), pattern: "a.tar".to_owned() },
            http,
            git("https://x/y.git#v1:dir", "https://x/y.git", Some("v1"), Some("dir")),
            git("git@h:r", "git@h:r", None, None),
        ]
    );
}

#[test]
fn flags_of_add() {
    let digest = Digest::of(b"x");
    let graph = planned(&format!("FROM scratch\nARG d={digest}\nADD --checksum=$d --unpack=false https://x/y /d\n"));
    let op = last_copy(&graph);
    assert_eq!(op.kind, CopyKind::Add { unpack: Some(false) });
    assert!(matches!(&op.sources[0], CopySourceOp::Http { checksum: Some(found), .. } if *found == digest));
    let graph = planned("FROM scratch\nADD --keep-git-dir --checksum=abc123 https://x/y /d\n");
    let Some(CopySourceOp::Git(git)) = last_copy(&graph).sources.first() else { panic!("--keep-git-dir is for git") };
    assert_eq!((git.keep_git_dir, git.checksum.as_deref()), (true, Some("abc123")));
}
