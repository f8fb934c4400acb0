//! What came of a campaign: which code was found first for which fault.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::case::{Case, Verdict};

/// One run's place and result.
#[derive(Clone, Debug)]
pub(crate) struct Done {
    pub(crate) case: usize,
    pub(crate) verdict: Verdict,
}

/// Runs counted.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Count {
    runs: u32,
    code: u32,
    both: u32,
    trouble: u32,
}

impl Count {
    fn add(&mut self, verdict: &Verdict) {
        if verdict.trouble.is_some() {
            self.trouble += 1;
            return;
        }
        self.runs += 1;
        self.code += u32::from(verdict.code_right);
        self.both += u32::from(verdict.code_right && verdict.owner_right);
    }

    fn percent(self) -> f64 {
        if self.runs == 0 { 0.0 } else { f64::from(self.both) * 100.0 / f64::from(self.runs) }
    }
}

/// The whole campaign.
#[derive(Debug, Default)]
pub(crate) struct Report {
    pub(crate) text: String,
    /// Is every bound kept?
    pub(crate) good: bool,
}

/// The name of what a case expects.
fn expected(case: &Case) -> &'static str {
    case.codes.first().copied().unwrap_or("-")
}

/// Writes the tables: of cases, of codes, and of what was found for what.
pub(crate) fn report(cases: &[Case], all: &[Done], markdown: bool) -> Report {
    let mut report = Report { text: String::new(), good: true };
    let (mut faults, mut healthy) = (Count::default(), Count::default());
    let mut by_case = vec![Count::default(); cases.len()];
    let mut by_code: BTreeMap<&str, Count> = BTreeMap::new();
    let mut found: BTreeMap<&str, BTreeMap<&str, u32>> = BTreeMap::new();
    for done in all {
        let (Some(case), Some(count)) = (cases.get(done.case), by_case.get_mut(done.case)) else { continue };
        count.add(&done.verdict);
        let total = if case.codes.is_empty() { &mut healthy } else { &mut faults };
        total.add(&done.verdict);
        by_code.entry(expected(case)).or_default().add(&done.verdict);
        if done.verdict.trouble.is_none() {
            *found.entry(expected(case)).or_default().entry(&done.verdict.first).or_default() += 1;
        }
    }
    let rows = cases.iter().zip(&by_case).filter(|(_, count)| count.runs + count.trouble > 0);
    let rows: Vec<[String; 5]> = rows
        .map(|(case, count)| {
            let trouble = if count.trouble > 0 { count.trouble.to_string() } else { String::new() };
            let score = |right: u32| format!("{right}/{}", count.runs);
            [expected(case).to_owned(), case.name.to_owned(), score(count.code), score(count.both), trouble]
        })
        .collect();
    table(&mut report.text, ["expected", "scenario", "code", "and owner", "lab failed"], &rows, markdown);
    let found = confusion(&found, &by_code);
    table(&mut report.text, ["expected", "code and owner", "found first (times)", "", ""], &found, markdown);
    // Of few runs a share says little.
    let many = by_code.values().filter(|count| count.runs >= 5);
    report.good &= many.into_iter().all(|count| count.both * 10 >= count.runs * 8);
    report.good &= faults.runs == 0 || faults.percent() >= 95.0;
    report.good &= healthy.both == healthy.runs && faults.trouble + healthy.trouble == 0;
    let codes = by_code.keys().filter(|code| **code != "-").count();
    // Writing into a string does not fail.
    let _ = writeln!(
        report.text,
        "{codes} codes: {} of {} runs have the right code and owner first ({:.1} %), {} the right code.\n\
         Healthy: {} of {} runs without a finding. The lab failed in {} runs.",
        faults.both,
        faults.runs,
        faults.percent(),
        faults.code,
        healthy.both,
        healthy.runs,
        faults.trouble + healthy.trouble,
    );
    report
}

fn confusion(
    found: &BTreeMap<&str, BTreeMap<&str, u32>>,
    by_code: &BTreeMap<&str, Count>,
) -> Vec<[String; 5]> {
    found
        .iter()
        .map(|(expected, firsts)| {
            let runs: u32 = firsts.values().sum();
            let right = by_code.get(expected).map_or(0, |count| count.both);
            let mut order: Vec<_> = firsts.iter().collect();
            order.sort_by_key(|(_, times)| std::cmp::Reverse(**times));
            let listed: Vec<String> = order.iter().map(|(code, times)| format!("{code} ({times})")).collect();
            [
                (*expected).to_owned(),
                format!("{right}/{runs}"),
                listed.join(", "),
                String::new(),
                String::new(),
            ]
        })
        .collect()
}

fn table(text: &mut String, head: [&str; 5], rows: &[[String; 5]], markdown: bool) {
    let columns = head.iter().take_while(|title| !title.is_empty()).count();
    let head = head.map(str::to_owned);
    let all: BTreeSet<usize> = (0..columns).collect();
    let width = |column: usize| {
        let cells = rows.iter().chain([&head]).filter_map(|row| row.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let line = |row: &[String; 5]| {
        let cells: Vec<String> = all
            .iter()
            .filter_map(|column| {
                row.get(*column).map(|cell| format!("{cell:width$}", width = width(*column)))
            })
            .collect();
        if markdown {
            format!("| {} |\n", cells.join(" | "))
        } else {
            format!("{}\n", cells.join("  ").trim_end())
        }
    };
    text.push_str(&line(&head));
    if markdown {
        text.push_str(&format!("|{}\n", "---|".repeat(columns)));
    }
    for row in rows {
        text.push_str(&line(row));
    }
    text.push('\n');
}
