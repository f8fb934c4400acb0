//! Every input of the corpus, as ordinary tests: what a target asserts holds for all of them.

use std::fs;
use std::path::PathBuf;

use natd_fuzz::TARGETS;

#[test]
fn every_target_holds_over_its_corpus() {
    for (name, target) in TARGETS {
        let inputs = inputs(name);
        assert!(!inputs.is_empty(), "{name} has no corpus");
        for (file, input) in inputs {
            println!("{name}/{file}"); // what a failure belongs to
            target(&input);
        }
    }
}

#[test]
fn the_corpus_is_small() {
    for (name, _) in TARGETS {
        let inputs = inputs(name);
        assert!(inputs.len() < 100, "{name}: {} files", inputs.len());
        for (file, input) in &inputs {
            assert!(input.len() < 2048, "{name}/{file}: {} bytes", input.len());
        }
        let total: usize = inputs.iter().map(|(_, input)| input.len()).sum();
        assert!(total < 40_000, "{name}: {total} bytes");
    }
}

#[test]
fn a_directory_without_a_target_is_a_mistake() {
    for entry in fs::read_dir(corpus()).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(TARGETS.iter().any(|(known, _)| name == *known), "corpus/{}", name.to_string_lossy());
    }
}

fn corpus() -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "corpus"].iter().collect()
}

/// The files of a target's corpus, by name.
fn inputs(name: &str) -> Vec<(String, Vec<u8>)> {
    let directory = corpus().join(name);
    let Ok(entries) = fs::read_dir(&directory) else { panic!("no {}", directory.display()) };
    let mut inputs: Vec<_> = entries
        .map(|entry| {
            let entry = entry.expect("a directory can be read");
            let input = fs::read(entry.path()).expect("a file can be read");
            (entry.file_name().to_string_lossy().into_owned(), input)
        })
        .collect();
    inputs.sort();
    inputs
}
