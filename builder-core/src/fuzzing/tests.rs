//! All inputs that are kept, on every run of the tests.

use std::fs;
use std::path::{Path, PathBuf};

/// Runs `target` on the files of its folder, and on `more`.
fn run(name: &str, target: fn(&[u8]), more: &[PathBuf]) {
    let folder = Path::new("../testdata/fuzz").join(name);
    let entries = fs::read_dir(&folder).expect("every target has seeds");
    let paths = entries.map(|entry| entry.expect("readable folder").path());
    for path in paths.chain(more.iter().cloned()) {
        println!("{}", path.display());
        target(&fs::read(path).expect("readable"));
    }
}

fn dockerfiles() -> Vec<PathBuf> {
    let folders = ["../testdata/dockerfile", "../testdata/dockerfile-errors"];
    let cases = folders.iter().flat_map(|folder| fs::read_dir(folder).expect("the test data is there"));
    cases.map(|case| case.expect("readable folder").path().join("Dockerfile")).collect()
}

#[test]
fn what_fuzzers_found_stays_mended() {
    run("dockerfile", super::dockerfile, &dockerfiles());
    run("ignore", super::ignore, &[]);
    run("tar", super::tar, &[]);
    run("blob", super::blob, &[]);
    run("tree", super::tree, &[]);
    run("documents", super::documents, &[]);
    run("names", super::names, &[]);
    run("challenge", super::challenge, &[]);
}
