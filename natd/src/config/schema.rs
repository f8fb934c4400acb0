//! Which tables and keys there are, and what was probably meant by one that there is not.

use toml::de::DeValue;

use super::Problem;
use super::document::Document;
use super::item::shown;

/// A table of the configuration file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Table {
    /// Its name.
    pub name: &'static str,
    /// How often it may stand in the file.
    pub times: Times,
    /// The keys it may have.
    pub keys: &'static [&'static str],
}

/// How often a table may stand in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// `[name]`, at most once.
    Once,
    /// `[[name]]`, any number of times.
    Many,
}

/// Every table and key of the configuration file, in the order of conf/natd.toml.
pub const TABLES: &[Table] = &[
    Table {
        name: "nat",
        times: Times::Once,
        keys: &[
            "lan",
            "wan",
            "scope",
            "filtering",
            "ports",
            "hairpin",
            "inbound_refresh",
            "mss_clamp",
            "exposed_host",
            "max_sessions",
            "max_sessions_per_device",
            "max_held_syns",
        ],
    },
    Table {
        name: "forward",
        times: Times::Many,
        keys: &["protocol", "external", "host", "internal", "comment"],
    },
    Table { name: "passthrough", times: Times::Once, keys: &["ipsec", "pptp", "l2tp", "multi"] },
    Table { name: "ipsec", times: Times::Once, keys: &["devices", "servers", "fan_out", "hold"] },
    Table { name: "pptp", times: Times::Once, keys: &["devices", "servers"] },
    Table { name: "l2tp", times: Times::Once, keys: &["devices", "servers"] },
    Table {
        name: "timeout",
        times: Times::Once,
        keys: &[
            "tcp_established",
            "tcp_transitory",
            "tcp_reset",
            "udp",
            "icmp",
            "tcp_syn_hold",
            "esp",
            "gre",
        ],
    },
    Table { name: "kernel", times: Times::Once, keys: &["rules", "queue", "queues", "queue_length"] },
    Table { name: "control", times: Times::Once, keys: &["socket"] },
    Table { name: "log", times: Times::Once, keys: &["level"] },
    Table { name: "diagnosis", times: Times::Once, keys: &["observe"] },
    Table { name: "sessions", times: Times::Once, keys: &["log", "format", "max_size"] },
];

/// Is `key` in the table `name` of [`TABLES`]?
pub(super) fn knows(name: &str, key: &str) -> bool {
    TABLES.iter().any(|table| table.name == name && table.keys.contains(&key))
}

/// Finds tables and keys that are not in [`TABLES`], and tables with the wrong kind of brackets.
pub(super) fn check(document: &Document<'_>, problems: &mut Vec<Problem>) {
    for (name, line, value) in document.entries() {
        let Some(table) = TABLES.iter().find(|table| table.name == name) else {
            problems.push(unknown_table(name, line, value));
            continue;
        };
        let sections = match (table.times, value) {
            (Times::Once, DeValue::Table(_)) => vec![document.section(table.name)],
            (Times::Many, DeValue::Array(items)) if items.iter().all(|item| item.get_ref().is_table()) => {
                document.sections(table.name)
            }
            (Times::Once, _) => {
                problems.push(problem(
                    name,
                    line,
                    "is not a table",
                    format!("write [{name}] on a line of its own"),
                ));
                continue;
            }
            (Times::Many, _) => {
                let expected = format!("write [[{name}]], with two brackets, above each {name}");
                problems.push(problem(name, line, "is not a list of tables", expected));
                continue;
            }
        };
        for section in sections {
            let unknown = section.keys().filter(|(key, _)| !table.keys.contains(key));
            problems.extend(unknown.map(|(key, line)| unknown_key(table, key, line)));
        }
    }
}

/// The candidate that `word` is probably a misspelling of, or a longer or shorter form.
pub(super) fn nearest<'c>(word: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    if word.len() > 64 {
        return None;
    }
    let word = word.to_ascii_lowercase().replace('-', "_");
    let ranked = candidates.into_iter().filter_map(|candidate| {
        let same = candidate.replace('-', "_");
        let distance = distance(&word, &same);
        let extends = word.len().min(same.len()) >= 3 && (word.starts_with(&same) || same.starts_with(&word));
        (extends || distance <= 1 + candidate.len() / 5).then_some((
            !extends && distance > 1,
            distance,
            candidate,
        ))
    });
    ranked.min_by_key(|(far, distance, _)| (*far, *distance)).map(|(_, _, candidate)| candidate)
}

fn unknown_table(name: &str, line: usize, value: &DeValue<'_>) -> Problem {
    if !value.is_table() && !value.is_array() {
        let home = TABLES.iter().find(|table| table.keys.contains(&name));
        let expected = match home {
            Some(table) => format!("move it below {}", header(table)),
            None => format!("natd's tables are {}", listed(TABLES.iter().map(header))),
        };
        return problem(&shown(name), line, "stands outside of any table", expected);
    }
    let expected = match nearest(name, TABLES.iter().map(|table| table.name)) {
        Some(near) => {
            format!("did you mean {}?", TABLES.iter().find(|t| t.name == near).map_or(String::new(), header))
        }
        None => format!("natd's tables are {}", listed(TABLES.iter().map(header))),
    };
    problem(&shown(name), line, "is not a table of natd", expected)
}

fn unknown_key(table: &Table, key: &str, line: usize) -> Problem {
    let elsewhere = TABLES.iter().find(|other| other.keys.contains(&key));
    let expected = match (elsewhere, nearest(key, table.keys.iter().copied())) {
        (Some(other), _) => format!("move it below {}", header(other)),
        (None, Some(near)) => format!("did you mean {near}?"),
        (None, None) => {
            format!("{} has {}", header(table), listed(table.keys.iter().map(ToString::to_string)))
        }
    };
    problem(
        &format!("{}.{}", table.name, shown(key)),
        line,
        &format!("is not a key of {}", header(table)),
        expected,
    )
}

fn problem(key: &str, line: usize, message: &str, expected: String) -> Problem {
    Problem { line, column: None, key: key.to_owned(), message: message.to_owned(), expected }
}

fn header(table: &Table) -> String {
    match table.times {
        Times::Once => format!("[{}]", table.name),
        Times::Many => format!("[[{}]]", table.name),
    }
}

fn listed(words: impl Iterator<Item = String>) -> String {
    super::item::joined(&words.collect::<Vec<_>>(), "and")
}

/// How many letters must be added, removed, changed or swapped with their neighbour to make `a` into `b`.
pub(crate) fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<char>, Vec<char>) = (a.chars().collect(), b.chars().collect());
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let at = |row: &[usize], column: usize| row.get(column).copied().unwrap_or(usize::MAX / 2);
    for (i, letter) in a.iter().enumerate() {
        let mut row = vec![i + 1];
        for (j, other) in b.iter().enumerate() {
            let changed = at(&last, j) + usize::from(letter != other);
            let mut cost = changed.min(at(&last, j + 1) + 1).min(at(&row, j) + 1);
            let swapped = i > 0 && j > 0 && a.get(i - 1) == Some(other) && b.get(j - 1) == Some(letter);
            if swapped {
                cost = cost.min(at(&before, j - 1) + 1);
            }
            row.push(cost);
        }
        before = std::mem::replace(&mut last, row);
    }
    at(&last, b.len())
}
