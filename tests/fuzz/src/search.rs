//! The inputs known so far, and the search for more.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::path::Path;
use std::sync::Mutex;
use std::time::Duration;

use natd_fuzz::{Target, coverage};

use crate::clock;
use crate::mutate::{Dice, MAX_LEN, mutate};

/// Where the last panic was.
static PLACE: Mutex<String> = Mutex::new(String::new());

/// Mutations of one input in a row.
const BURST: usize = 200;
/// Bounds of a corpus that is written.
const FILES: usize = 90;
const BYTES: usize = 30_000;

pub(crate) struct Search {
    name: &'static str,
    target: Target,
    dice: Dice,
    inputs: Vec<Vec<u8>>,
    /// For each counter the orders of magnitude that it has had.
    seen: Vec<u8>,
    counters: Vec<u8>,
    executions: u64,
    /// Are operands of comparisons wanted?
    listening: bool,
    elapsed: Duration,
    slowest: (Duration, usize),
    /// How often each place panicked.
    panics: BTreeMap<String, u64>,
}

impl Search {
    pub(crate) fn new(name: &'static str, target: Target, seed: u64) -> Self {
        panic::set_hook(Box::new(|info| {
            if let Ok(mut place) = PLACE.lock() {
                *place = info.to_string();
            }
        }));
        let len = coverage::len();
        Self {
            name,
            target,
            dice: Dice::new(seed),
            inputs: Vec::new(),
            seen: vec![0; len],
            counters: vec![0; len],
            executions: 0,
            listening: false,
            elapsed: Duration::ZERO,
            slowest: (Duration::ZERO, 0),
            panics: BTreeMap::new(),
        }
    }

    /// Runs every file of the corpus; a directory that is not there is an empty one.
    pub(crate) fn load(&mut self, corpus: &Path) -> io::Result<()> {
        if corpus.exists() {
            let mut paths =
                fs::read_dir(corpus)?.map(|entry| Ok(entry?.path())).collect::<io::Result<Vec<_>>>()?;
            paths.sort();
            for path in paths {
                let mut input = fs::read(path)?;
                input.truncate(MAX_LEN);
                self.try_out(&input);
                self.inputs.push(input);
            }
        }
        self.try_out(&[]);
        let longer = [[0; 64], [0xff; 64], [0x45; 64]];
        for input in longer {
            self.try_out(&input);
            self.inputs.push(input.to_vec());
        }
        Ok(())
    }

    pub(crate) fn run(&mut self, time: Duration) {
        let begin = clock::now();
        let mut reported = Duration::ZERO;
        while self.elapsed < time {
            let base = self.pick();
            self.listening = true;
            self.try_out(&base);
            self.listening = false;
            let compared = coverage::comparisons();
            for _ in 0..BURST {
                let mut input = base.clone();
                let other = self.pick();
                mutate(&mut self.dice, &mut input, &other, &compared);
                let before = self.executions;
                if self.try_out(&input) {
                    self.inputs.push(input);
                }
                debug_assert!(self.executions > before);
            }
            self.elapsed = begin.elapsed();
            if self.elapsed.saturating_sub(reported) >= Duration::from_secs(60) {
                reported = self.elapsed;
                println!("{}", self.summary());
            }
        }
    }

    pub(crate) fn panics(&self) -> usize {
        self.panics.len()
    }

    pub(crate) fn summary(&self) -> String {
        let Self { name, executions, elapsed, inputs, slowest, .. } = self;
        let hit = self.seen.iter().filter(|&&orders| orders != 0).count();
        format!(
            "{name}: {executions} executions in {} s, {hit} of {} counters, {} inputs, slowest {} us ({} bytes), {} \
             places panic",
            elapsed.as_secs(),
            self.seen.len(),
            inputs.len(),
            slowest.0.as_micros(),
            slowest.1,
            self.panics.len()
        )
    }

    /// One of the inputs: the latest more often, and of two the shorter, which runs sooner.
    fn pick(&mut self) -> Vec<u8> {
        let count = self.inputs.len();
        let from = if self.dice.below(2) == 0 { count - count / 4 } else { 0 };
        let mut one = || {
            let index = from + self.dice.below(count - from);
            self.inputs.get(index).or(self.inputs.last()).map_or(&[][..], Vec::as_slice)
        };
        let (first, second) = (one(), one());
        if first.len() <= second.len() { first.to_vec() } else { second.to_vec() }
    }

    /// Runs `input` and answers whether it reached something new.
    fn try_out(&mut self, input: &[u8]) -> bool {
        let target = self.target;
        let begin = clock::now();
        coverage::reset(self.listening);
        let result = panic::catch_unwind(AssertUnwindSafe(|| target(input)));
        coverage::read(&mut self.counters);
        let took = begin.elapsed();
        self.executions += 1;
        if took > self.slowest.0 {
            self.slowest = (took, input.len());
        }
        if result.is_err() {
            self.note_panic(input);
            return false;
        }
        let mut new = false;
        for (counters, seen) in self.counters.chunks(16).zip(self.seen.chunks_mut(16)) {
            if counters.first_chunk().is_some_and(|&bytes| u128::from_ne_bytes(bytes) == 0) {
                continue;
            }
            for (&count, seen) in counters.iter().zip(seen) {
                let order = order(count);
                new |= *seen & order != order;
                *seen |= order;
            }
        }
        new
    }

    fn note_panic(&mut self, input: &[u8]) {
        let place = PLACE.lock().map(|place| place.clone()).unwrap_or_default();
        // A message may hold values; its place tells one from another.
        let key = place.lines().next().unwrap_or_default().to_owned();
        let count = self.panics.entry(key).or_insert(0);
        *count += 1;
        if *count == 1 {
            let number = self.panics.len();
            let path = format!("crash-{}-{number}", self.name);
            println!("{}: {place}\n{}: {} bytes to {path}", self.name, self.name, input.len());
            if let Err(error) = fs::write(&path, input) {
                println!("{path}: {error}");
            }
        }
    }

    /// Replaces the corpus by few inputs that together reach every counter, or as many as fit. Files with a name of
    /// somebody's choice stay.
    pub(crate) fn write(&mut self, corpus: &Path) -> io::Result<()> {
        fs::create_dir_all(corpus)?;
        for entry in fs::read_dir(corpus)? {
            let entry = entry?;
            if entry.file_name().to_string_lossy().parse::<u32>().is_ok() {
                fs::remove_file(entry.path())?;
            }
        }
        self.inputs.sort_by_key(|input| (input.len(), input.clone()));
        self.inputs.dedup();
        let inputs = std::mem::take(&mut self.inputs);
        let reached: Vec<Vec<u32>> = inputs.iter().map(|input| self.reached(input)).collect();
        let mut missing = vec![true; self.counters.len()];
        let (mut bytes, mut number) = (0, 0);
        let mut left: Vec<usize> = (0..inputs.len()).collect();
        while number < FILES {
            let gain = |&index: &usize| {
                let news = |list: &Vec<u32>| {
                    list.iter().filter(|&&at| missing.get(at as usize).is_some_and(|&open| open)).count()
                };
                reached.get(index).map_or(0, news)
            };
            // Per byte, so that a long input does not win by a little.
            let size = |index: usize| inputs.get(index).map_or(0, Vec::len) + 32;
            left.retain(|index| gain(index) > 0 && bytes + size(*index) - 32 <= BYTES);
            let best = left.iter().copied().max_by_key(|index| gain(index) * 1000 / size(*index));
            let Some(best) = best else { break };
            let Some(input) = inputs.get(best) else { break };
            for &at in reached.get(best).into_iter().flatten() {
                if let Some(open) = missing.get_mut(at as usize) {
                    *open = false;
                }
            }
            fs::write(corpus.join(format!("{number:03}")), input)?;
            (bytes, number) = (bytes + input.len(), number + 1);
        }
        println!("{}: {number} files, {bytes} bytes in {}", self.name, corpus.display());
        self.inputs = inputs;
        Ok(())
    }

    fn reached(&mut self, input: &[u8]) -> Vec<u32> {
        self.try_out(input);
        let hit = self.counters.iter().zip(0..).filter(|&(&count, _)| count != 0);
        hit.map(|(_, at)| at).collect()
    }
}

/// One bit for the order of magnitude of a count.
fn order(count: u8) -> u8 {
    match count {
        0 => 0,
        1 => 1,
        2 => 2,
        3 => 4,
        4..=7 => 8,
        8..=15 => 16,
        16..=31 => 32,
        32..=127 => 64,
        128..=255 => 128,
    }
}
