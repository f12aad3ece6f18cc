use proptest::prelude::*;

use super::{Diagnostic, Location, Severity, SourceFile, Span, nearest};

fn file(text: &str) -> SourceFile {
    SourceFile::new("Dockerfile", text)
}

/// The span of the only occurrence of `part`.
fn span(text: &str, part: &str) -> Span {
    let start = text.find(part).expect("the part is there");
    Span::new(start, start + part.len())
}

#[test]
fn a_diagnostic_shows_its_line_with_notes_and_hints() {
    let mut text = "\n".repeat(11);
    text.push_str("COPY dist/app.js /srv/\n");
    let message = "COPY source \"dist/app.js\" is not in the build context";
    let diagnostic = Diagnostic::error("copy-source-missing", message)
        .at(span(&text, "dist/app.js"))
        .with_note("excluded by .dockerignore:3 (\"dist\")")
        .with_hint("add \"!dist/app.js\" after line 3");
    let expected = "\
error[copy-source-missing]: COPY source \"dist/app.js\" is not in the build context
  --> Dockerfile:12:6
   |
12 | COPY dist/app.js /srv/
   |      ^^^^^^^^^^^
   = note: excluded by .dockerignore:3 (\"dist\")
   = hint: add \"!dist/app.js\" after line 3
";
    assert_eq!(diagnostic.render(&file(&text)), expected);
}

#[test]
fn a_diagnostic_without_a_place_has_no_excerpt() {
    let diagnostic = Diagnostic::warning("w", "m").with_note("one\ntwo").with_url("https://x.example/");
    let expected = "warning[w]: m\n  = note: one\n          two\n  = see: https://x.example/\n";
    assert_eq!(diagnostic.render(&file("FROM a\n")), expected);
}

#[test]
fn underlines_stand_below_tabs_and_wide_characters() {
    let text = "\tENV\t日本=x\u{1}y\n";
    let diagnostic = Diagnostic::error("c", "m")
        .labelled(span(text, "=x"), "here")
        .with_secondary(span(text, "日本"), "name")
        .with_secondary(span(text, "y"), "");
    let expected = "\
error[c]: m
 --> Dockerfile:1:8
  |
1 |     ENV    日本=x\u{fffd}y
  |                ^^ here
  |            ---- name
  |                   -
";
    assert_eq!(diagnostic.render(&file(text)), expected);
}

#[test]
fn of_a_span_over_lines_the_first_and_the_last_are_shown() {
    let text = "FROM a\r\nRUN one \\\r\n  two \\\r\n  three\r\nFROM b\r\n";
    let start = text.find("one").expect("there");
    let end = text.find("\r\nFROM b").expect("there");
    let diagnostic = Diagnostic::error("c", "m")
        .labelled(Span::new(start, end), "all of this")
        .with_secondary(span(text, "b\r\n"), "to the end");
    let expected = "\
error[c]: m
 --> Dockerfile:2:5
  |
2 | RUN one \\
  |     ^^^^^
  ...
4 |   three
  |   ^^^^^ all of this
5 | FROM b
  |      - to the end
";
    assert_eq!(diagnostic.render(&file(text)), expected);
}

#[test]
fn empty_spans_and_the_end_of_the_text_have_one_caret() {
    let at_end = Diagnostic::error("c", "m").at(Span::new(7, 7)).render(&file("FROM a\n"));
    assert_eq!(at_end, "error[c]: m\n --> Dockerfile:2:1\n  |\n2 |\n  | ^\n");
    let behind = Diagnostic::error("c", "m").at(Span::new(90, 99)).render(&file("a"));
    assert_eq!(behind, "error[c]: m\n --> Dockerfile:1:2\n  |\n1 | a\n  |  ^\n");
}

#[test]
fn long_lines_are_shown_in_part() {
    let text = format!("RUN {} HERE {}\n", "x".repeat(1000), "y".repeat(1000));
    let rendered = Diagnostic::error("c", "m").at(span(&text, "HERE")).render(&file(&text));
    let lines: Vec<&str> = rendered.lines().collect();
    assert!(lines[3].starts_with("1 | …xxx") && lines[3].ends_with("yyy…"), "{rendered}");
    assert!(lines[3].chars().count() < 200, "{rendered}");
    let column = lines[3].chars().position(|char| char == 'H');
    assert_eq!(lines[4].chars().position(|char| char == '^'), column, "{rendered}");
}

#[test]
fn offsets_have_lines_and_columns() {
    let file = file("ab\r\nцd\n\nx");
    let cases = [(0, 1, 1), (2, 1, 3), (3, 1, 4), (4, 2, 1), (5, 2, 1), (6, 2, 2), (8, 3, 1), (9, 4, 1), (99, 4, 2)];
    for (offset, line, column) in cases {
        assert_eq!(file.location(offset), Location { line, column }, "offset {offset}");
    }
    let lines: Vec<Option<&str>> = (0..=5).map(|number| file.line(number)).collect();
    assert_eq!(lines, [None, Some("ab"), Some("цd"), Some(""), Some("x"), None]);
}

#[test]
fn slips_of_the_finger_find_their_word() {
    let words = ["ADD", "COPY", "ENTRYPOINT", "ENV", "FROM", "RUN"];
    let cases = [
        ("CPOY", Some("COPY")),
        ("copi", Some("COPY")),
        ("form", Some("FROM")),
        ("FNTRYPOINT", Some("ENTRYPOINT")),
        ("EN", Some("ENV")),
        ("FROM", Some("FROM")),
        ("one", None),
        ("X", None),
        ("", None),
        ("INSTALL", None),
    ];
    for (word, expected) in cases {
        assert_eq!(nearest(word, words), expected, "{word:?}");
    }
    assert_eq!(nearest("x", []), None);
}

#[test]
fn diagnostics_survive_json() {
    let full = Diagnostic::warning("c", "m")
        .labelled(Span::new(1, 2), "l")
        .with_secondary(Span::new(3, 4), "")
        .with_note("n")
        .with_hint("h")
        .with_url("u");
    for diagnostic in [full, Diagnostic::error("c", "m")] {
        let json = serde_json::to_string(&diagnostic).expect("serialises");
        assert_eq!(serde_json::from_str::<Diagnostic>(&json).expect("deserialises"), diagnostic, "{json}");
    }
    let json = serde_json::to_value(Diagnostic::error("c", "m")).expect("serialises");
    assert_eq!(json, serde_json::json!({ "code": "c", "severity": "error", "message": "m" }));
    assert!(Severity::Error < Severity::Warning, "errors sort first");
}

proptest! {
    #[test]
    fn any_span_of_any_text_can_be_rendered(text in "\\PC{0,40}[\\n\\r\\tа日]{0,9}\\PC{0,40}", start in 0_usize..120, length in 0_usize..120) {
        let primary = Span::new(start, start + length);
        let diagnostic = Diagnostic::error("c", "m").labelled(primary, "x").with_secondary(Span::new(length, start), "y");
        prop_assert!(diagnostic.render(&file(&text)).starts_with("error[c]: m\n"));
    }
}
