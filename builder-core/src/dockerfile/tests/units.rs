//! Tables for the small parts below the parser.

use super::super::csv;
use super::super::duration;
use super::super::json::{self, Json};
use super::super::words;
use super::super::{Command, Dockerfile, InstructionKind};
use crate::diagnostic::Diagnostic;

#[test]
fn json_arrays_of_strings_are_told_from_text() {
    let strings = |text: &str| match json::parse(text, 0..text.len()) {
        Json::Strings(strings) => strings.into_iter().map(|(string, _)| string).collect::<Vec<_>>(),
        other => panic!("{text}: {other:?}"),
    };
    assert_eq!(strings(" [ ]\t"), [""; 0]);
    assert_eq!(strings("[\"a\" , \"\\u0041\\n\\/\"]"), ["a", "A\n/"]);
    assert_eq!(
        strings("[\"\\ud83d\\ude00\", \"\\ud83d\", \"\\ude00x\", \"\\ud83d\\u0041\"]"),
        ["😀", "\u{fffd}", "\u{fffd}x", "\u{fffd}A"]
    );
    assert_eq!(strings("[\"é\\\\\"]"), ["é\\"]);
    for text in [
        "",
        "a",
        "{}",
        "\"a\"",
        "['a']",
        "[\"a\",]",
        "[\"a\"] x",
        "[\"a\" \"b\"]",
        "[\"\u{1}\"]",
        "[\"\\x\"]",
        "[",
        "[\"a\"",
        "[\"a]",
    ] {
        assert_eq!(json::parse(text, 0..text.len()), Json::Not, "{text}");
    }
    for (text, range) in
        [("[1]", 1..2), ("[\"a\", true ]", 6..10), ("[[]]", 1..2), ("[{\"a\":1}]", 1..8), ("[-1.5e3,\"a\"]", 1..7)]
    {
        assert_eq!(json::parse(text, 0..text.len()), Json::NotStrings(range), "{text}");
    }
    let deep = format!("{}{}", "[".repeat(100_000), "]".repeat(100_000));
    assert!(matches!(json::parse(&deep, 0..deep.len()), Json::NotStrings(_)));
}

#[test]
fn places_of_json_strings_include_their_quotes() {
    let text = "CMD  [\"é\" ,\"b\\\"c\"] ";
    let Json::Strings(strings) = json::parse(text, 4..text.len()) else { panic!("not strings") };
    let places: Vec<&str> = strings.into_iter().map(|(_, range)| &text[range]).collect();
    assert_eq!(places, ["\"é\"", "\"b\\\"c\""]);
}

#[test]
fn durations_are_those_of_go() {
    let cases = [
        ("0", 0),
        ("5s", 5_000_000_000),
        ("1h2m3s", 3_723_000_000_000),
        ("1.5s", 1_500_000_000),
        (".5s", 500_000_000),
        ("1.s", 1_000_000_000),
        ("100ms", 100_000_000),
        ("1us2µs3μs4ns", 6_004),
        ("-1m", -60_000_000_000),
        ("+1m", 60_000_000_000),
        ("0.0000000005s", 0),
        ("1.123456789123456789123456789s", 1_123_456_789),
        ("-0", 0),
    ];
    for (text, expected) in cases {
        assert_eq!(duration::parse(text), Ok(expected), "{text}");
    }
    for text in [
        "",
        "-",
        "s",
        "x",
        ".",
        ".s",
        "1",
        "5 s",
        "1s2",
        "1x",
        "1S",
        "99999999999h",
        "99999999999999999999999999999999999999999s",
    ] {
        assert!(duration::parse(text).is_err(), "{text}");
    }
}

#[test]
fn records_split_at_commas_outside_quotes() {
    let cases: [(&str, &[&str]); 6] = [
        ("a", &["a"]),
        ("type=bind,target=/x", &["type=bind", "target=/x"]),
        ("a,,b,", &["a", "", "b", ""]),
        ("\"target=/a,b\",c", &["target=/a,b", "c"]),
        ("\"a \"\"b\"\"\"", &["a \"b\""]),
        (" a, b", &[" a", " b"]),
    ];
    for (record, expected) in cases {
        assert_eq!(csv::fields(record).expect("splits"), expected, "{record}");
    }
    for record in ["", "a\"b", "\"a", "\"a\"b", "\"a\"\"", "a,\"b"] {
        assert!(csv::fields(record).is_err(), "{record}");
    }
}

#[test]
fn quoted_words_keep_their_quotes() {
    let cases: [(&str, &[&str]); 10] = [
        ("", &[]),
        ("  a  b ", &["a", "b"]),
        ("a='b c' d", &["a='b c'", "d"]),
        ("a=\"b \\\" c\" d", &["a=\"b \\\" c\"", "d"]),
        ("'a\\' b", &["'a\\'", "b"]),
        ("a\\ b c", &["a\\ b", "c"]),
        ("a\\", &["a"]),
        ("\\", &[]),
        ("\"a b", &["\"a b"]),
        ("'' \"\"x", &["''", "\"\"x"]),
    ];
    for (text, expected) in cases {
        let found = words::split_quoted(text, 0..text.len(), '\\');
        assert_eq!(found.into_iter().map(|word| &text[word]).collect::<Vec<_>>(), expected, "{text}");
    }
}

#[test]
fn triggers_parse_as_they_are_stored() {
    let instruction = Dockerfile::parse_trigger("RUN <<A cat\nx\nA", '\\').expect("parses");
    let InstructionKind::Run(run) = &instruction.kind else { panic!("not RUN") };
    assert_eq!((run.command.clone(), run.heredocs[0].content.as_str()), (Command::Shell("<<A cat".to_owned()), "x\n"));
    assert_eq!((instruction.lines, instruction.span.range()), ((1, 3), 0..15));
    // The escape character is that of the file the trigger comes from; nothing is a directive.
    let instruction = Dockerfile::parse_trigger("ENV a=b` c", '`').expect("parses");
    assert_eq!(instruction.original, "ENV a=b` c");
    let cases = [
        ("", "onbuild-trigger"),
        ("# RUN x", "onbuild-trigger"),
        ("FROM a", "onbuild-trigger"),
        ("onbuild RUN a", "onbuild-trigger"),
        ("MAINTAINER a", "onbuild-trigger"),
        ("RUN a\nRUN b", "onbuild-trigger"),
        ("NUR a", "unknown-instruction"),
        ("RUN <<A\nx", "unterminated-heredoc"),
        ("COPY --form=a b c", "unknown-flag"),
    ];
    for (text, code) in cases {
        assert_eq!(Dockerfile::parse_trigger(text, '\\').expect_err(text).code, code, "{text}");
    }
}

#[test]
fn every_stored_trigger_parses_again() {
    let source = "FROM a\nONBUILD RUN <<-A cat <<'B'\n\ta\n\tA\nb\nB\nONBUILD COPY --from=x [\"a\", \"b\"]\nONBUILD ENV a=b \\\n  c=d\n";
    for instruction in Dockerfile::parse(source).expect("parses").instructions {
        let InstructionKind::Onbuild { trigger, instruction } = instruction.kind else { continue };
        let again = Dockerfile::parse_trigger(&trigger, '\\').expect("parses");
        assert_eq!(again.original, instruction.original);
    }
}

#[test]
fn parse_gives_errors_without_warnings() {
    let source = "FROM a\nRUN x \\\n\n y\nFOO\n";
    let errors = Dockerfile::parse(source).expect_err("has an error");
    assert_eq!(errors.iter().map(|error| error.code.as_ref()).collect::<Vec<_>>(), ["unknown-instruction"]);
    let all = Dockerfile::parse_with_warnings(source).expect_err("has an error");
    assert_eq!(all.iter().filter(|diagnostic| !Diagnostic::is_error(diagnostic)).count(), 1);
}

#[test]
fn lines_have_no_length_limit() {
    let long = "x".repeat(1 << 20);
    let dockerfile = Dockerfile::parse(&format!("FROM a\nRUN {long}\n")).expect("parses");
    assert_eq!(dockerfile.instructions[1].original.len(), long.len() + 4);
}
