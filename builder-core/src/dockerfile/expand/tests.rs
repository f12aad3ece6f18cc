use std::collections::BTreeSet;

use proptest::prelude::*;

use super::{ExpandErrorKind, expand_heredoc, expand_word, expand_words};
use crate::diagnostic::{SourceFile, Span};
use crate::dockerfile::Word;

fn env(name: &str) -> Option<String> {
    let value = match name {
        "A" => "a",
        "EMPTY" => "",
        "SPACES" => "  one two ",
        "FILE" => "/srv/app.tar.gz",
        "STARS" => "*a?b\\c",
        "LINES" => "one\ntwo",
        "WIDE" => "żółć日本",
        "日本" => "japan",
        _ => return None,
    };
    Some(value.to_owned())
}

fn expanded(word: &str) -> String {
    expand_word(word, '\\', &env).unwrap_or_else(|error| panic!("{error}")).text
}

#[test]
fn words_expand() {
    let cases = [
        // Names.
        ("$A", "a"),
        ("x$A.y", "xa.y"),
        ("$Ax", ""),
        ("${A}x", "ax"),
        ("$日本", "japan"),
        ("$", "$"),
        ("$.", "$."),
        ("a$ b", "a$ b"),
        ("$$A", "A"),
        ("$1$10$@$*$#$?$-$!$0x", "x"),
        // Quotes and escapes.
        ("'$A'\"$A\"", "$Aa"),
        ("\\$A", "$A"),
        ("\"\\$A \\\" \\\\ \\x '\"", "$A \" \\ \\x '"),
        ("'\\'", "\\"),
        ("a\\b", "ab"),
        ("a\\", "a"),
        ("<<EOF < x", "<<EOF < x"),
        // Unset and empty.
        ("${A:-x}${B:-x}${EMPTY:-x}", "axx"),
        ("${A-x}${B-x}${EMPTY-x}", "ax"),
        ("${A:+x}${B:+x}${EMPTY:+x}", "x"),
        ("${A+x}${B+x}${EMPTY+x}", "xx"),
        ("${A:?x}${EMPTY?x}", "a"),
        ("${B:-${C:-'$A'\"$A\"\\}}}", "$Aa}"),
        ("${B-}", ""),
        // Prefixes and suffixes.
        ("${FILE#/}", "srv/app.tar.gz"),
        ("${FILE#*/}", "srv/app.tar.gz"),
        ("${FILE##*/}", "app.tar.gz"),
        ("${FILE%.*}", "/srv/app.tar"),
        ("${FILE%%.*}", "/srv/app"),
        ("${FILE%%/*}", ""),
        ("${FILE#x}${FILE%x}", "/srv/app.tar.gz/srv/app.tar.gz"),
        ("${FILE%?gz}", "/srv/app.tar"),
        ("${FILE#$NONE}", "/srv/app.tar.gz"),
        ("${STARS#\\*a\\?}", "b\\c"),
        ("${STARS%\\\\c}", "*a?b"),
        ("${LINES#*o}", "ne\ntwo"),
        ("${LINES##*o}", "ne\ntwo"),
        ("${WIDE#??}${WIDE%?}", "łć日本żółć日"),
        ("${NONE#x}", ""),
        // Replacements.
        ("${FILE/a/A}", "/srv/App.tar.gz"),
        ("${FILE//a/A}", "/srv/App.tAr.gz"),
        ("${FILE//\\//_}", "_srv_app.tar.gz"),
        ("${FILE/app*/$A}", "/srv/a"),
        ("${FILE//./}", "/srv/apptargz"),
        ("${A//x/y}${NONE//x/y}", "a"),
        ("${A///x}", "xax"),
        ("${A//*/x}", "x"),
        ("${A/a/\\}}", "\\}"),
        ("${A//a/\\$1}", "\\$1"),
        // White space.
        ("$SPACES", "  one two "),
        ("a  b", "a  b"),
    ];
    for (word, expected) in cases {
        assert_eq!(expanded(word), expected, "{word}");
    }
}

#[test]
fn the_other_escape_character_escapes() {
    let cases =
        [("`$A", "$A"), ("C:\\$A", "C:\\a"), ("\"`\"`$\"", "\"$"), ("``", "`"), ("${FILE%`.gz}", "/srv/app.tar.gz")];
    for (word, expected) in cases {
        assert_eq!(expand_word(word, '`', &env).expect("expands").text, expected, "{word}");
    }
}

#[test]
fn words_split() {
    let cases: [(&str, &[&str]); 12] = [
        ("", &[]),
        ("  ", &[]),
        ("a b", &["a", "b"]),
        (" a\tb  c ", &["a", "b", "c"]),
        ("'a b' c\\ d \"e f\"g", &["a b", "c d", "e fg"]),
        ("x$SPACES", &["x", "one", "two"]),
        ("x\"$SPACES\"y z", &["x  one two y", "z"]),
        ("$EMPTY ''", &[]),
        ("$EMPTY x", &["x"]),
        ("pre${NONE:-a b}post", &["prea", "bpost"]),
        ("${NONE:-'a b'}", &["a", "b"]),
        ("80-90/tcp $A", &["80-90/tcp", "a"]),
    ];
    for (word, expected) in cases {
        assert_eq!(expand_words(word, '\\', &env).expect("expands"), expected, "{word}");
    }
}

#[test]
fn heredocs_keep_quotes() {
    let body = "'$A' \"${A}\" \\$A \\\\ \\x it's ${NONE:-'q'} $$\n\\\n";
    let expected = "'a' \"a\" $A \\ x it's 'q' \n\n";
    assert_eq!(expand_heredoc(body, &env).expect("expands").text, expected);
}

#[test]
fn unset_names_are_told() {
    let expanded = expand_word("$A$B${C}${D:-$E}${F+x}\"$G\"'$H'$$", '\\', &env).expect("expands");
    let names: BTreeSet<String> = ["B", "C", "D", "E", "F", "G", "$"].map(str::to_owned).into();
    assert_eq!(expanded.unmatched, names);
}

#[test]
fn errors_say_what_and_where() {
    let required =
        |name: &str, message: &str| ExpandErrorKind::Required { name: name.to_owned(), message: message.to_owned() };
    let unsupported = |operator: &str| ExpandErrorKind::UnsupportedOperator(operator.to_owned());
    let cases = [
        ("a'b", ExpandErrorKind::UnclosedQuote('\''), 1..2),
        ("a\"b$A", ExpandErrorKind::UnclosedQuote('"'), 1..2),
        ("x${A", ExpandErrorKind::MissingBrace, 1..4),
        ("${", ExpandErrorKind::MissingBrace, 0..2),
        ("${A:", ExpandErrorKind::MissingBrace, 0..4),
        ("${A:-x", ExpandErrorKind::MissingBrace, 0..6),
        ("${A/x}", ExpandErrorKind::MissingSlash, 0..6),
        ("${A/x/y", ExpandErrorKind::MissingBrace, 0..7),
        ("${}", ExpandErrorKind::MissingName, 0..2),
        ("${{A}}", ExpandErrorKind::MissingName, 0..2),
        ("${:-x}", ExpandErrorKind::MissingName, 0..2),
        ("${A^^}", unsupported("^"), 3..4),
        ("${A:=x}", unsupported(":="), 3..5),
        ("${A:0:2}", unsupported(":0"), 3..5),
        ("${#A}", unsupported("A"), 3..4),
        ("${.}", unsupported("."), 2..3),
        ("x${B?}", required("B", "is not allowed to be unset"), 1..6),
        ("${EMPTY:?}", required("EMPTY", "is not allowed to be empty"), 0..10),
        ("${B:?set $A}", required("B", "is required: set a"), 0..12),
        ("${A#\\x}", ExpandErrorKind::InvalidPattern { pattern: "\\x".to_owned() }, 0..7),
    ];
    for (word, kind, at) in cases {
        let error = expand_word(word, '\\', &env).expect_err(word);
        assert_eq!((error.kind, error.at), (kind, at), "{word}");
    }
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| format!("{}{}", "${B:-".repeat(depth), "}".repeat(depth));
    assert_eq!(expanded(&nested(100)), "");
    let error = expand_word(&nested(100_000), '\\', &env).expect_err("too deep");
    assert_eq!(error.kind, ExpandErrorKind::TooDeep);
}

#[test]
fn errors_point_into_the_source() {
    let source = SourceFile::new("Dockerfile", "ENV x=a${A^^}b\n");
    let word = Word { text: "a${A^^}b".to_owned(), span: Span::new(6, 14) };
    let error = expand_word(&word.text, '\\', &env).expect_err("unsupported");
    assert_eq!(error.to_string(), "cannot expand \"a${A^^}b\": \"^\" is no operator that Dockerfiles have");
    let expected = "\
error[expansion]: \"^\" is no operator that Dockerfiles have
 --> Dockerfile:1:11
  |
1 | ENV x=a${A^^}b
  |           ^
  = note: operators are :- - :+ + :? ? # ## % %% / and //
  = hint: compute the value in a RUN step, where the shell has all of its operators
";
    assert_eq!(error.diagnostic(&word).render(&source), expected);
    // A word over two lines is pointed at as a whole.
    let joined = Word { span: Span::new(4, 14), ..word };
    assert_eq!(error.diagnostic(&joined).primary.expect("has a place").span, Span::new(4, 14));
}

proptest! {
    #[test]
    fn no_word_panics(word in "[$${}:?#%/'\"\\\\ A-C<*!\\-+=\u{e9}\u{65e5}]{0,30}|\\PC{0,30}", backtick in any::<bool>()) {
        let escape = if backtick { '`' } else { '\\' };
        for result in [expand_word(&word, escape, &env), expand_heredoc(&word, &env)] {
            if let Err(error) = result {
                prop_assert!(word.get(error.at.clone()).is_some(), "{error:?}");
            }
        }
        let word_result = expand_word(&word, escape, &env);
        prop_assert_eq!(expand_words(&word, escape, &env).is_ok(), word_result.is_ok());
    }

    #[test]
    fn quoted_text_comes_back(text in "[^']{0,30}") {
        prop_assert_eq!(expanded(&format!("'{text}'")), text);
    }

    #[test]
    fn escaped_text_comes_back(text in "\\PC{1,30}") {
        let escaped: String = text.chars().flat_map(|char| ['\\', char]).collect();
        prop_assert_eq!(expand_words(&escaped, '\\', &env).expect("expands"), [text]);
    }

    #[test]
    fn trimming_agrees_with_plain_prefixes(value in "[ab]{0,8}", literal in "[ab]{1,3}") {
        let env = |name: &str| (name == "V").then(|| value.clone());
        let trimmed = expand_word(&format!("${{V#{literal}}}|${{V%{literal}}}|${{V//{literal}/-}}"), '\\', &env);
        let expected = format!(
            "{}|{}|{}",
            value.strip_prefix(&literal).unwrap_or(&value),
            value.strip_suffix(&literal).unwrap_or(&value),
            value.replace(&literal, "-"),
        );
        prop_assert_eq!(trimmed.expect("expands").text, expected);
    }
}
