//! What is not TOML: reported, taken out, so that the rest can be read.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::Problem;
use super::document::Lines;
use super::item::shown;
use super::schema::{TABLES, Times};

/// After so many statements that are not TOML the rest is left unread: it is probably no configuration.
const MAX_SYNTAX_ERRORS: usize = 32;

/// A document without syntax errors, and what had to be left out to get there.
pub(super) struct Readable {
    /// The text; unreadable statements are blanked out, so that every offset and line stays.
    pub(super) text: String,
    /// The statements that were blanked out.
    pub(super) lost: String,
}

/// Takes what is not TOML out of `text`, one problem for each statement.
///
/// What cannot be read is blanked out: a line, or a list or text that is not closed, up to the next line that
/// looks like a statement. With a table header the keys below it go as well, since they would seem to belong to
/// the table above.
pub(super) fn readable(text: &str, problems: &mut Vec<Problem>) -> Readable {
    let mut readable = Readable { text: text.to_owned(), lost: String::new() };
    for _ in 0..MAX_SYNTAX_ERRORS {
        let Some((problem, lost)) = first_error(&readable.text) else {
            return readable;
        };
        problems.push(problem);
        readable.lost.push_str(readable.text.get(lost.clone()).unwrap_or_default());
        readable.lost.push('\n');
        readable.text = blanked(&readable.text, &lost);
    }
    if first_error(&readable.text).is_some() {
        let all = 0..readable.text.len();
        readable.lost.push_str(&readable.text);
        readable.text = blanked(&readable.text, &all);
    }
    readable
}

/// The first thing that is not TOML, and the bytes of its statement.
fn first_error(text: &str) -> Option<(Problem, Range<usize>)> {
    let (root, errors) = DeTable::parse_recoverable(text);
    let at = |error: &toml::de::Error| error.span().map_or(0, |span| span.start).min(text.len());
    let error = errors.iter().min_by_key(|error| at(error))?;
    let offset = at(error);
    // A list or text that is not closed runs on over other statements; the mistake is where it begins.
    let start = value_around(root.get_ref(), offset)
        .filter(|value| text.get(value.clone()).is_some_and(|raw| raw.contains('\n')))
        .map(|value| value.start);
    let runs_on = start.is_some();
    let start = start.unwrap_or(offset);
    let (statement, range) = statement(text, start, runs_on);
    let (message, expected) = words(error.message(), statement, text, offset, start);
    let problem = Problem {
        line: Lines::new(text).line(start),
        column: Some(text.get(line_start(text, start)..start).unwrap_or_default().chars().count() + 1),
        key: String::new(),
        message,
        expected,
    };
    Some((problem, range))
}

/// The bytes of the list or text that ends at `offset` or holds it.
fn value_around(table: &DeTable<'_>, offset: usize) -> Option<Range<usize>> {
    table.values().find_map(|value| match value.get_ref() {
        DeValue::Table(table) => value_around(table, offset),
        DeValue::Array(items) => {
            let inner = items.iter().find_map(|item| value_around(item.get_ref().as_table()?, offset));
            inner.or_else(|| reaches(value, offset))
        }
        DeValue::String(_) => reaches(value, offset),
        DeValue::Integer(_) | DeValue::Float(_) | DeValue::Boolean(_) | DeValue::Datetime(_) => None,
    })
}

fn reaches(value: &Spanned<DeValue<'_>>, offset: usize) -> Option<Range<usize>> {
    let span = value.span();
    (span.start <= offset && offset <= span.end).then_some(span)
}

/// The line of the statement that `start` lies in, and the bytes that are lost with it.
fn statement(text: &str, start: usize, runs_on: bool) -> (&str, Range<usize>) {
    let first = line_start(text, start);
    let mut lines = text.get(first..).unwrap_or_default().split_inclusive('\n');
    let line = lines.next().unwrap_or_default();
    let header = line.trim_start().starts_with('[');
    let mut end = first + line.len();
    if header || runs_on {
        let lost = lines.take_while(|next| !is_header(next) && (header || !is_assignment(next)));
        end += lost.map(str::len).sum::<usize>();
    }
    (line.trim(), first..end)
}

/// Where the line begins that `offset` lies in.
fn line_start(text: &str, offset: usize) -> usize {
    text.get(..offset).and_then(|before| before.rfind('\n')).map_or(0, |newline| newline + 1)
}

fn is_header(line: &str) -> bool {
    let inner = line.trim_start().trim_start_matches('[');
    line.trim_start().starts_with('[') && inner.starts_with(|c: char| c.is_ascii_alphabetic())
}

fn is_assignment(line: &str) -> bool {
    let is_bare = |key: &str| {
        !key.is_empty() && key.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.'))
    };
    line.split_once('=').is_some_and(|(key, _)| is_bare(key.trim()))
}

/// What is wrong and what would be right, in words for someone who does not know TOML.
fn words(error: &str, statement: &str, text: &str, offset: usize, start: usize) -> (String, String) {
    if error == "duplicate key" {
        return twice(statement, text, offset);
    }
    if start < offset && text.get(start..offset).is_some_and(|between| between.contains('\n')) {
        return match text.as_bytes().get(start) {
            Some(b'[') => (
                "the list is not closed or lacks a comma".to_owned(),
                "write it as [\"a\", \"b\"]".to_owned(),
            ),
            Some(_) | None => {
                ("the text is not closed".to_owned(), "end it with the quotes it began with".to_owned())
            }
        };
    }
    // Only what stands after the equals sign can be a value without its quotes.
    let is_value = text.get(line_start(text, start)..offset).is_some_and(|before| before.contains('='));
    let value = statement.split_once('=').filter(|_| is_value);
    let value = value.map(|(_, value)| value.split('#').next().unwrap_or_default().trim());
    match value {
        Some("") => ("no value stands after =".to_owned(), "write one, or remove the line".to_owned()),
        Some(value) if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => {
            (format!("{value} is not in small letters"), format!("write {}", value.to_ascii_lowercase()))
        }
        Some(value) if is_unquoted_text(value) => {
            let value = shown(value);
            (format!("{value} is neither a number nor in quotes"), format!("write \"{value}\""))
        }
        Some(_) | None => match error.split_once(", expected ") {
            Some((message, "nothing")) => (message.to_owned(), "remove it".to_owned()),
            Some((message, expected)) => (message.to_owned(), format!("expected {expected}")),
            None => (error.to_owned(), "see conf/natd.toml for an example".to_owned()),
        },
    }
}

/// Does a value look like a text without its quotes? A number with a mistake in it does not.
fn is_unquoted_text(value: &str) -> bool {
    value.contains(|c: char| !c.is_ascii_digit() && c != '_')
        && !value.starts_with(['[', '{'])
        && !value.contains(['"', '\''])
}

/// The words for a key or table that the file has already.
fn twice(statement: &str, text: &str, offset: usize) -> (String, String) {
    let name = |line: &str| {
        let end = if is_header(line) { '#' } else { '=' };
        line.split(end).next().unwrap_or_default().trim().to_owned()
    };
    let wanted = name(statement);
    let before = text.get(..offset).unwrap_or_default();
    // A key can only be doubled within its table, a table anywhere.
    let from = if is_header(statement) {
        0
    } else {
        let in_table = before.lines().rev().take_while(|line| !is_header(line)).count();
        before.lines().count() - in_table
    };
    let earlier = before.lines().enumerate().skip(from).find(|(_, line)| name(line) == wanted);
    let place = earlier.map_or(String::new(), |(line, _)| format!(", first on line {}", line + 1));
    let table = wanted.trim_matches(['[', ']']).trim();
    let many =
        TABLES.iter().any(|known| known.times == Times::Many && known.name == table && is_header(&wanted));
    let expected = match many {
        true => format!("write [[{table}]], with two brackets, above each {table}"),
        false => "keep one of them".to_owned(),
    };
    (format!("{} is there twice{place}", shown(&wanted)), expected)
}

/// `text` with everything but line ends in `range` made spaces.
fn blanked(text: &str, range: &Range<usize>) -> String {
    let mut blanked = String::with_capacity(text.len());
    blanked.push_str(text.get(..range.start).unwrap_or_default());
    let lost = text.get(range.clone()).unwrap_or_default();
    blanked.extend(lost.bytes().map(|byte| if byte == b'\n' { '\n' } else { ' ' }));
    blanked.push_str(text.get(range.end..).unwrap_or_default());
    blanked
}
