//! The inputs that fuzzing has left behind, through the same code as in `fuzz/`: what was once right stays right.

use mirror_tests::fuzz::{TARGETS, Target};
use std::panic::catch_unwind;
use std::path::{Path, PathBuf};

/// The kept inputs of a target: files in no directory below.
fn seeds(target: &Target) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target.name);
    let entries = directory
        .read_dir()
        .unwrap_or_else(|error| panic!("{} cannot be read: {error}", directory.display()));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    paths.sort();
    paths
}

#[test]
fn every_kept_input_of_every_fuzz_target_keeps_its_promises() {
    let mut broken = Vec::new();
    for target in TARGETS {
        let seeds = seeds(&target);
        assert!(seeds.len() >= 10, "{} has inputs", target.name);
        for path in seeds {
            let input = std::fs::read(&path).unwrap();
            if catch_unwind(|| (target.run)(&input)).is_err() {
                broken.push(path);
            }
        }
    }
    assert!(broken.is_empty(), "{broken:#?}");
}
