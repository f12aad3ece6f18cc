//! All inputs that are kept, and some mutations of them, on every run of the tests.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

type Target = fn(&[u8]);

const TARGETS: [(&str, Target); 8] = [
    ("blob", super::blob),
    ("challenge", super::challenge),
    ("dockerfile", super::dockerfile),
    ("documents", super::documents),
    ("ignore", super::ignore),
    ("names", super::names),
    ("tar", super::tar),
    ("tree", super::tree),
];
/// Mutations of each input: what a fuzzer does in a millisecond, so that a law that is broken everywhere is seen here.
const MUTATIONS: u64 = 30;

fn files(folder: impl AsRef<Path>) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).expect("the folder is there");
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("readable folder").path()).collect();
    paths.sort();
    paths
}

fn inputs(name: &str) -> Vec<PathBuf> {
    let mut paths = files(Path::new("../testdata/fuzz").join(name));
    if name == "dockerfile" {
        let folders = ["../testdata/dockerfile", "../testdata/dockerfile-errors"];
        paths.extend(folders.iter().flat_map(files).map(|case| case.join("Dockerfile")));
    }
    paths
}

#[test]
fn every_law_holds_for_what_fuzzers_found_and_what_lies_near_it() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no seeds");
        for path in inputs {
            let input = fs::read(&path).expect("readable");
            // What breaks is the last one shown.
            println!("{}", path.display());
            target(&input);
            for seed in 0..MUTATIONS {
                println!("mutation {seed}");
                target(&mutated(&input, seed));
            }
        }
    }
}

/// Some bytes changed, taken out or doubled, the same for a seed.
fn mutated(input: &[u8], seed: u64) -> Vec<u8> {
    let mut bytes = input.to_vec();
    let mut state = blake3::Hasher::new().update(&seed.to_le_bytes()).finalize_xof();
    let mut number = |below: usize| {
        let mut four = [0; 4];
        state.fill(&mut four);
        usize::try_from(u32::from_le_bytes(four)).expect("four bytes fit") % below.max(1)
    };
    for _ in 0..=seed % 4 {
        let at = number(bytes.len());
        let end = (at + number(16)).min(bytes.len());
        match number(3) {
            0 => bytes.iter_mut().skip(at).take(1).for_each(|byte| *byte ^= 1 << (seed % 8)),
            1 => drop(bytes.drain(at..end)),
            _ => bytes.splice(at..at, bytes[at..end].to_vec()).for_each(drop),
        }
    }
    bytes
}

#[test]
fn every_target_has_a_program() {
    let programs: BTreeSet<String> =
        files("../fuzz/fuzz_targets").iter().filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
    assert_eq!(programs, TARGETS.iter().map(|(name, _)| (*name).to_owned()).collect());
    let manifest = fs::read_to_string("../fuzz/Cargo.toml").expect("it is there");
    for (name, _) in TARGETS {
        assert!(manifest.contains(&format!("name = \"{name}\"")), "{name}");
    }
}
