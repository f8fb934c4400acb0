//! The table, for a terminal or for a README.

use super::{Cell, Row};

/// How to print the table.
#[derive(Clone, Copy)]
pub(crate) enum Form {
    Text,
    Markdown,
}

/// One row and what came out.
pub(crate) struct Line<'a> {
    pub(crate) row: &'a Row,
    pub(crate) kernel: Cell,
    pub(crate) natd: Cell,
}

const HEADINGS: [&str; 5] = ["row", "case", "kernel masquerade", "natd", "right?"];
/// Characters in each column of the text form.
const WIDTHS: [usize; 5] = [5, 30, 48, 48, 6];

pub(crate) fn print(form: Form, lines: &[Line<'_>]) {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rows = lines.iter().map(|line| {
        [
            line.row.name.to_owned(),
            line.row.case.to_owned(),
            words(&line.kernel),
            words(&line.natd),
            mark(&line.natd).to_owned(),
        ]
    });
    println!();
    match form {
        Form::Text => {
            print_wrapped(&HEADINGS.map(str::to_owned));
            println!("{}", "-".repeat(WIDTHS.iter().sum::<usize>() + WIDTHS.len() - 1));
            rows.for_each(|row| print_wrapped(&row));
        }
        Form::Markdown => {
            println!("| {} |\n|---|---|---|---|---|", HEADINGS.join(" | "));
            rows.for_each(|row| println!("| {} |", row.map(|cell| cell.replace('|', "\\|")).join(" | ")));
        }
    }
    println!();
    for line in lines.iter().filter(|line| !is_right(&line.natd)) {
        println!("{}: natd must do this: {}.", line.row.name, line.row.target);
    }
    let natd = lines.iter().filter(|line| is_right(&line.natd)).count();
    let kernel: Vec<&str> =
        lines.iter().filter(|line| is_right(&line.kernel)).map(|line| line.row.name).collect();
    println!(
        "natd is right in {natd} of {} rows; Linux {} by the same measure in {}: {}.",
        lines.len(),
        release.trim(),
        kernel.len(),
        if kernel.is_empty() { "none".to_owned() } else { kernel.join(", ") }
    );
}

fn is_right(cell: &Cell) -> bool {
    cell.as_ref().is_ok_and(|finding| finding.right)
}

fn words(cell: &Cell) -> String {
    match cell {
        Ok(finding) => finding.words.clone(),
        Err(why) => format!("not measured: {why}"),
    }
}

fn mark(cell: &Cell) -> &'static str {
    match cell {
        Ok(finding) if finding.right => "✓",
        Ok(_) => "✗",
        Err(_) => "?",
    }
}

fn print_wrapped(cells: &[String; 5]) {
    let mut columns: Vec<_> =
        cells.iter().zip(WIDTHS).map(|(cell, width)| wrap(cell, width).into_iter()).collect();
    loop {
        let parts: Vec<Option<String>> = columns.iter_mut().map(Iterator::next).collect();
        if parts.iter().all(Option::is_none) {
            return;
        }
        let padded = parts
            .into_iter()
            .zip(WIDTHS)
            .map(|(part, width)| format!("{:<width$}", part.unwrap_or_default()));
        println!("{}", padded.collect::<Vec<_>>().join(" ").trim_end());
    }
}

fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let Some(line) = lines.last_mut() else { break };
        if !line.is_empty() && line.chars().count() + 1 + word.chars().count() > width {
            lines.push(word.to_owned());
        } else {
            if !line.is_empty() {
                line.push(' ');
            }
            line.push_str(word);
        }
    }
    lines
}
