//! End-to-end tests of the command: real namespaces, real layers, real readers of the result.
//!
//! The program under test is `$BUILDER_BIN`, else the one that cargo built beside these tests.

mod build;
mod cache;
mod command_line;
mod determinism;
mod image;
mod outputs;
mod registry;
mod support;

#[test]
fn no_forgotten_test_files() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it")).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "main" || main.contains(&format!("mod {name};")), "tests/it/{name}.rs is not in main.rs");
    }
}
