//! End-to-end tests of the command: real namespaces, real layers, real readers of the result.
//!
//! The program under test is `$BUILDER_BIN`, else the one that cargo built beside these tests.

#![expect(clippy::unwrap_used, clippy::print_stderr, reason = "what fails here fails the test, and skips are told")]

mod advisories;
mod annotations;
mod applied;
mod artifacts;
mod base;
mod build;
mod cache;
mod check;
mod command_line;
mod concurrent;
mod context_ls;
mod copy;
mod crash;
mod creds;
mod determinism;
mod devices;
mod elsewhere;
mod engines;
mod examples;
mod fetch;
mod image;
mod incremental;
mod manifest;
mod memory;
mod mounts;
mod outputs;
mod peers;
mod plan;
mod platforms;
mod property;
mod push;
mod registries_conf;
mod registry;
mod remote;
mod server;
mod settings;
mod shared_cache;
mod squash;
mod ssh;
mod support;
mod token;
mod torture;
mod transport;

#[test]
fn no_forgotten_test_files() {
    let main = include_str!("main.rs");
    for entry in std::fs::read_dir("tests/it").into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().trim_end_matches(".rs").to_owned();
        assert!(name == "main" || main.contains(&format!("mod {name};")), "tests/it/{name}.rs is not in main.rs");
    }
}
