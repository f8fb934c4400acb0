//! `probe SERVER [--json]`: what `natd probe` does, until the command line has it.

use std::process::ExitCode;

use natd::io::probe::{ProbeOptions, run};

fn main() -> ExitCode {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let json = words.iter().any(|word| word == "--json");
    let server = words.into_iter().find(|word| !word.starts_with("--")).unwrap_or_default();
    let options = ProbeOptions { server, version: None, json };
    match run(&options, &mut std::io::stdout(), &mut |line| eprintln!("{line}")) {
        Ok(found) => ExitCode::from(u8::from(found)),
        Err(error) => {
            eprintln!("natd: {error}");
            ExitCode::from(2)
        }
    }
}
