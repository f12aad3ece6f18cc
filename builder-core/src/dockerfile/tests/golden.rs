//! Golden files: `testdata/dockerfile/CASE/{Dockerfile,ast.txt}` and `testdata/dockerfile-errors/CASE/{Dockerfile,stderr.txt}`.
//!
//! `UPDATE=1` rewrites the expected side.

use std::path::{Path, PathBuf};

use super::super::Dockerfile;
use super::dump::dump;
use crate::diagnostic::{Diagnostic, SourceFile};

fn each_case(folder: &str, expected_name: &str, actual: impl Fn(&str) -> String) {
    // Tests run in the folder of their crate, wherever that lies when they run.
    let folder = Path::new("../testdata").join(folder);
    let entries = std::fs::read_dir(&folder).expect("the test data is there");
    let mut cases: Vec<PathBuf> = entries.map(|entry| entry.expect("readable folder").path()).collect();
    cases.sort();
    assert!(!cases.is_empty(), "no cases in {}", folder.display());
    let mut failures = vec![];
    for case in cases {
        let source = std::fs::read_to_string(case.join("Dockerfile")).expect("each case has a Dockerfile");
        let actual = actual(&source);
        let path = case.join(expected_name);
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, &actual).expect("the test data is writable");
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if actual != expected {
            failures.push(format!("{}\n--- expected\n{expected}\n--- actual\n{actual}", path.display()));
        }
    }
    assert!(failures.is_empty(), "UPDATE=1 rewrites these, if they are right:\n{}", failures.join("\n"));
}

fn rendered(diagnostics: &[Diagnostic], source: &str) -> String {
    let file = SourceFile::new("Dockerfile", source);
    diagnostics.iter().map(|diagnostic| diagnostic.render(&file)).collect::<Vec<_>>().join("\n")
}

#[test]
fn valid_files_give_the_expected_instructions() {
    each_case("dockerfile", "ast.txt", |source| match Dockerfile::parse_with_warnings(source) {
        Ok(parsed) => {
            let warnings = rendered(&parsed.warnings, source);
            let separator = if warnings.is_empty() { "" } else { "\n" };
            format!("{}{separator}{warnings}", dump(&parsed.dockerfile, source))
        }
        Err(diagnostics) => format!("does not parse\n{}", rendered(&diagnostics, source)),
    });
}

#[test]
fn invalid_files_give_the_expected_diagnostics() {
    each_case("dockerfile-errors", "stderr.txt", |source| match Dockerfile::parse_with_warnings(source) {
        Ok(_) => "parses\n".to_owned(),
        Err(diagnostics) => rendered(&diagnostics, source),
    });
}
