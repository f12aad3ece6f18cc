use proptest::prelude::*;

use super::*;

fn ignore(text: &str) -> PatternSet {
    PatternSet::parse_ignore_file(text.as_bytes()).unwrap()
}

/// One pattern, what it excludes and what it does not.
const SINGLE: &[(&str, &[&str], &[&str])] = &[
    ("file", &["file", "file/below", "file/below/deep"], &["a/file", "files", "fil"]),
    ("dir/", &["dir", "dir/x"], &["x/dir"]),
    ("/dir", &["dir", "dir/x"], &["x/dir"]),
    ("./dir//x/../y", &["dir/y"], &["dir/x"]),
    ("*.md", &["a.md", ".md", "a.md/x"], &["d/a.md", "a.mdx"]),
    ("*", &["a", "a/b/c", ".hidden"], &[]),
    ("*/*", &["a/b", "a/b/c"], &["a", "b"]),
    ("a/*/c", &["a/b/c", "a/b/c/d"], &["a/c", "a/b/b/c"]),
    ("a?c", &["abc", "a☺c", "a\nc"], &["ac", "a/c", "abbc"]),
    // `**`
    ("**", &["a", "a/b", "dir/file/", ".x"], &[]),
    ("**/", &["a", "a/b"], &[]),
    ("**/**", &["a", "a/b"], &[]),
    ("***", &["a", "a/b"], &[]),
    ("**/file", &["file", "dir/file", "a/b/file", "a/file/x"], &["afile", "dir/afile", "file2"]),
    ("**file", &["file", "dir/file", "afile", "dir/afile"], &["filex"]),
    ("**.md", &["a.md", "x/a.md", ".md"], &["a.mdx"]),
    ("**file*", &["file", "a/file", "a/filex"], &["afile", "a/xfile"]),
    ("**/file*", &["file", "a/file.txt", "a/b/filex"], &["afile", "a/xfile"]),
    ("**/*.go", &["a.go", "x/a.go", "x/y/.go", "a.go/x"], &["a.got", "go"]),
    ("**/*.*", &["a.b", "x/a.b"], &["ab", "x/ab"]),
    ("**/x/**", &["x/a", "y/x/a"], &["x", "y/x", "yx/a"]),
    ("**/dir2/*", &["dir2/file", "dir/dir2/file", "dir/dir2/d/x"], &["dir2", "dir/dir2", "dir2x/f"]),
    ("dir/**", &["dir/file", "dir/d/e"], &["dir", "dirx/a", "x/dir/a"]),
    ("dir**", &["dir", "dirx/a", "dir/a"], &["di", "x/dir"]),
    ("dir/**/file", &["dir/file", "dir/a/file", "dir/a/b/file"], &["dirfile", "dir/afile", "file"]),
    ("dir**file", &["dirfile", "dir/file", "dirx/file", "dirx/y/file"], &["dirxfile", "dir/xfile"]),
    ("a**/*.txt", &["a.txt", "a/file.txt", "ab/c.txt", "a/b/c.txt"], &["b/a.txt"]),
    ("a/**/**", &["a/b", "a/b/c"], &["a", "ab"]),
    ("a/*/**", &["a/b/", "a/b/c", "a/b/c/d"], &["a", "a/b"]),
    ("**/**/*.txt", &["file.txt", "dir/file.txt"], &["file.tx"]),
    // A directory in the middle may be any number of them, names with line breaks included.
    ("a/**/z", &["a/x\ny/z"], &[]),
    // Classes
    ("[a-c]x", &["ax", "cx"], &["dx", "x"]),
    ("[^a]x", &["bx", "/x"], &["ax"]),
    ("[!a]x", &["!x", "ax"], &["bx"]),
    ("a[b-d]e/**", &["ace/f"], &["ace", "aae/f"]),
    ("[]x", &[], &[]),
    ("a]", &["a]"], &["a"]),
    ("x[*]", &["x*"], &["xy"]),
    ("[\\]]", &["]"], &["\\"]),
    // Quoting, and what is not special
    ("\\#x", &["#x"], &["\\#x"]),
    ("\\!x", &["!x"], &["x"]),
    ("a\\*b", &["a*b"], &["axb"]),
    ("\\d", &["d"], &["5"]),
    ("a.c", &["a.c"], &["abc"]),
    ("a+(b)|{c,d}$^", &["a+(b)|{c,d}$^"], &["a"]),
    ("^a*", &["^ab"], &["ab"]),
    (".*", &[".git", ".git/x"], &["a", "a/.git"]),
    // Nothing below the root can be these.
    (".", &[], &["a", ".a"]),
    ("/", &[], &["a"]),
    ("..", &[], &["a", "..a"]),
    ("../x", &[], &["x"]),
];

#[test]
fn single_patterns() {
    for (pattern, yes, no) in SINGLE {
        let Ok(set) = PatternSet::parse_ignore_file(pattern.as_bytes()) else {
            assert!(yes.is_empty() && no.is_empty(), "{pattern:?} must parse");
            continue;
        };
        for path in *yes {
            assert!(set.excludes(path.as_bytes()), "{pattern:?} must exclude {path:?}");
        }
        for path in *no {
            assert!(!set.excludes(path.as_bytes()), "{pattern:?} must not exclude {path:?}");
        }
    }
}

#[test]
fn order_and_exceptions() {
    let cases: &[(&str, &[&str], &[&str])] = &[
        ("*\n!keep", &["a", "a/keep"], &["keep", "keep/x"]),
        ("docs\n!docs/README.md", &["docs", "docs/a"], &["docs/README.md"]),
        ("!docs/README.md\ndocs", &["docs/README.md"], &[]),
        ("docs/**\n!docs/README.md", &["docs/a"], &["docs", "docs/README.md"]),
        ("*\n!src\nsrc/gen", &["src/gen", "src/gen/x", "x"], &["src", "src/a"]),
        ("**\n!a/b/c", &["a", "a/b", "a/b/d"], &["a/b/c", "a/b/c/d"]),
        ("*.md\n!README*.md\nREADME-secret.md", &["a.md", "README-secret.md"], &["README.md"]),
        ("*\n!**/*.go", &["a", "d/a"], &["a.go", "d/e/a.go"]),
        // The last rule counts although an exception matches a directory above.
        ("*/y\n!x", &["z/y"], &["x/y", "x"]),
        ("!a\n", &[], &["a", "b"]),
    ];
    for (text, yes, no) in cases {
        let set = ignore(text);
        for path in *yes {
            assert!(set.excludes(path.as_bytes()), "{text:?} must exclude {path:?}");
        }
        for path in *no {
            assert!(!set.excludes(path.as_bytes()), "{text:?} must not exclude {path:?}");
        }
    }
    assert!(!ignore("**").excludes(b""), "the root itself is never left out");
}

#[test]
fn parses_lines() {
    let text = "\u{feff}# comment\n #no comment\r\n\n  a  \n! \u{a0}b/ \n\t/c\u{3000}\n#d\n!/e\n";
    let rules: Vec<_> = ignore(text)
        .rules
        .iter()
        .map(|rule| (rule.line, String::from_utf8(rule.text.clone()).unwrap(), rule.decision))
        .collect();
    let want = [
        (2, "#no comment", Decision::Exclude),
        (4, "a", Decision::Exclude),
        (5, "! \u{a0}b/", Decision::Include),
        (6, "/c", Decision::Exclude),
        (8, "!/e", Decision::Include),
    ];
    assert_eq!(rules, want.map(|(line, text, decision)| (line, text.to_owned(), decision)));
    let set = ignore(text);
    for path in ["#no comment", "a", "c"] {
        assert!(set.excludes(path.as_bytes()), "{path}");
    }
    assert_eq!(set.matches(b"b"), Some(Decision::Include));
    assert_eq!(set.matches(b"e"), Some(Decision::Include));
    assert_eq!(set.matches(b"z"), None);
    assert!(ignore("").is_empty() && ignore("#x\n\n  \n").is_empty());
    let bytes = PatternSet::parse_ignore_file(b" caf\xe9 \n").unwrap();
    assert!(bytes.excludes(b"caf\xe9") && !bytes.excludes("café".as_bytes()));
}

#[test]
fn bad_lines_are_told_by_number() {
    for (text, line, pattern) in [
        ("a\n!\n", 2, "!"),
        ("! \n", 1, "!"),
        ("a\n\n  [x\n", 3, "[x"),
        ("x[]", 1, "x[]"),
        ("a\\", 1, "a\\"),
        ("[b-a]", 1, "[b-a]"),
        ("[[:alpha:]]", 1, "[[:alpha:]]"),
        ("![", 1, "!["),
    ] {
        match PatternSet::parse_ignore_file(text.as_bytes()) {
            Err(PatternError::Line { line: found, pattern: shown, .. }) => {
                assert_eq!((found, shown.as_slice()), (line, pattern.as_bytes()), "{text:?}");
            }
            other => panic!("{text:?} gives {other:?}"),
        }
    }
    let error = PatternSet::new(["ok", "[x"]).unwrap_err();
    assert_eq!(error.to_string(), "line 2: bad pattern \"[x\": the class has no closing \"]\"");
}

#[test]
fn patterns_given_one_by_one_keep_a_leading_slash() {
    let set = PatternSet::new(["/a", "b/"]).unwrap();
    assert!(!set.excludes(b"a") && set.excludes(b"b"));
}

#[test]
fn names_the_deciding_rule() {
    let set = ignore("# all\n*\n!src\nsrc/*.o\n");
    let decides = |path: &str| set.deciding_rule(path.as_bytes()).map(|rule| rule.line);
    assert_eq!(decides("README"), Some(2));
    assert_eq!(decides("src/a.c"), Some(3));
    assert_eq!(decides("src/a.o"), Some(4));
    assert_eq!(decides("src/d/a.o"), Some(3));
    assert_eq!(ignore("a").deciding_rule(b"b"), None);
}

#[test]
fn descends_only_where_an_exception_can_be() {
    for (text, yes, no) in [
        ("*\n!src/main", &["src"][..], &["lib", "srcs", "src/other"][..]),
        ("*\n!src/*/x", &["src", "src/a"], &["src/a/b", "lib"]),
        ("*\n!**/x", &["src", "src/a/b"], &[]),
        ("*\n!src/**", &["src", "src/a"], &["lib"]),
        ("*\n!a*/b", &["a", "abc"], &["b", "a/c/c"]),
        ("node_modules\n!keep", &[], &["node_modules", "node_modules/a"]),
        ("!a/b\na", &[], &["a"]),
        ("a\n!a/b", &["a", "other"], &["a/c"]),
        ("a\n!a/[bc]d", &["a"], &["a/x"]),
    ] {
        let set = ignore(text);
        for dir in yes {
            assert!(set.may_include_below(dir.as_bytes()), "{text:?} below {dir:?}");
        }
        for dir in no {
            assert!(!set.may_include_below(dir.as_bytes()), "{text:?} not below {dir:?}");
        }
    }
}

#[test]
fn many_stars_take_no_time() {
    let pattern = "**/a*".repeat(40) + "b";
    let path = "a/".repeat(500) + &"a".repeat(500);
    assert!(!ignore(&pattern).excludes(path.as_bytes()));
}

/// The rules of moby's patternmatcher read off its documentation: forward over all rules, each tried on the path and
/// on every directory above; one pattern by trying every way.
mod model {
    pub(super) fn excluded(rules: &[&str], path: &str) -> bool {
        let mut excluded = false;
        for rule in rules {
            let (negated, pattern) = match rule.strip_prefix('!') {
                Some(rest) => (true, rest),
                None => (false, *rule),
            };
            let ends = path.match_indices('/').map(|(at, _)| at).chain([path.len()]);
            if ends.into_iter().any(|end| matches(pattern, &path[..end])) {
                excluded = !negated;
            }
        }
        excluded
    }

    fn matches(pattern: &str, path: &str) -> bool {
        if let Some(suffix) = pattern.strip_prefix("**").filter(|rest| !rest.contains(['*', '?'])) {
            return path.ends_with(suffix) || suffix.strip_prefix('/') == Some(path);
        }
        tries(pattern, path)
    }

    fn tries(pattern: &str, path: &str) -> bool {
        if let Some(rest) = pattern.strip_prefix("**") {
            let rest = rest.strip_prefix('/').unwrap_or(rest);
            return rest.is_empty()
                || tries(rest, path)
                || path.match_indices('/').any(|(at, _)| tries(rest, &path[at + 1..]));
        }
        let mut chars = path.chars();
        match pattern.chars().next() {
            None => path.is_empty(),
            Some('*') => {
                let reach = path.find('/').unwrap_or(path.len());
                (0..=reach).any(|skip| tries(&pattern[1..], &path[skip..]))
            }
            Some('?') => chars.next().is_some_and(|c| c != '/') && tries(&pattern[1..], chars.as_str()),
            Some(c) => chars.next() == Some(c) && tries(&pattern[1..], chars.as_str()),
        }
    }
}

fn pattern() -> impl Strategy<Value = String> {
    let part = prop_oneof!["[ab]{1,2}", Just("*".to_owned()), Just("**".to_owned()), "[ab*?]{1,4}"];
    (any::<bool>(), prop::collection::vec(part, 1..4))
        .prop_map(|(negated, parts)| format!("{}{}", if negated { "!" } else { "" }, parts.join("/")))
}

fn some_path() -> impl Strategy<Value = String> {
    prop::collection::vec("[ab]{1,3}", 1..5).prop_map(|parts| parts.join("/"))
}

proptest! {
    #[test]
    fn agrees_with_the_model(rules in prop::collection::vec(pattern(), 1..5), path in some_path()) {
        let set = PatternSet::new(&rules).unwrap();
        let rules: Vec<&str> = rules.iter().map(String::as_str).collect();
        prop_assert_eq!(set.excludes(path.as_bytes()), model::excluded(&rules, &path), "{:?} on {}", rules, path);
    }

    /// Whatever is kept below a directory that is left out is found by descending where the set says so.
    #[test]
    fn never_skips_what_is_kept(rules in prop::collection::vec(pattern(), 1..5), path in some_path()) {
        let set = PatternSet::new(&rules).unwrap();
        if !set.excludes(path.as_bytes()) {
            for dir in ancestors(path.as_bytes()) {
                prop_assert!(set.may_include_below(dir), "{:?}: {} below {:?}", rules, path, dir);
            }
        }
    }

    #[test]
    fn never_panics(text in any::<Vec<u8>>(), path in "[^\0]{0,20}") {
        if let Ok(set) = PatternSet::parse_ignore_file(&text) {
            set.matches(path.as_bytes());
            set.may_include_below(path.as_bytes());
        }
    }
}
