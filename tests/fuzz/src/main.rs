//! Mutates inputs of one target; where the build counts edges, an input that reaches new ones is kept.

mod clock;
mod mutate;
mod search;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use natd_fuzz::{TARGETS, Target};

use self::search::Search;

const USAGE: &str = "natd-fuzz TARGET [--time SECS] [--seed N] [--corpus DIR] [--write]
natd-fuzz TARGET --once FILE
  --write  replace the corpus by few inputs that reach what was reached";

fn main() -> ExitCode {
    match run(std::env::args().skip(1)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(problem) => {
            let targets: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
            eprintln!("{problem}\n{USAGE}\ntargets: {}", targets.join(" "));
            ExitCode::from(2)
        }
    }
}

fn once(target: Target, file: &str) -> Result<bool, String> {
    target(&std::fs::read(file).map_err(|error| format!("{file}: {error}"))?);
    Ok(true)
}

/// Answers whether nothing panicked.
fn run(mut args: impl Iterator<Item = String>) -> Result<bool, String> {
    let name = args.next().ok_or("which target?")?;
    let found = TARGETS.iter().find(|(known, _)| *known == name);
    let &(name, target) = found.ok_or_else(|| format!("no target {name}"))?;
    let mut corpus = PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/corpus")).join(name);
    let (mut time, mut seed, mut write) = (Duration::from_secs(60), clock::seed(), false);
    while let Some(option) = args.next() {
        let mut number = || args.next().and_then(|value| value.parse().ok()).ok_or("not a number");
        match option.as_str() {
            "--time" => time = Duration::from_secs(number()?),
            "--seed" => seed = number()?,
            "--corpus" => corpus = args.next().ok_or("which directory?")?.into(),
            "--write" => write = true,
            "--once" => return once(target, &args.next().ok_or("which file?")?),
            _ => return Err(format!("{option}?")),
        }
    }
    if write && natd_fuzz::coverage::len() == 0 {
        return Err("a build without counters cannot say which inputs a corpus needs: see run.sh".into());
    }
    println!("{name}: seed {seed}, {} counters", natd_fuzz::coverage::len());
    let mut search = Search::new(name, target, seed);
    search.load(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    search.run(time);
    println!("{}", search.summary());
    if write {
        search.write(&corpus).map_err(|error| format!("{}: {error}", corpus.display()))?;
    }
    Ok(search.panics() == 0)
}
