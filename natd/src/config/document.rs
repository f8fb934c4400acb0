//! The parsed text with its lines: syntax errors out, tables and keys in.

use std::ops::Range;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::{Item, shown};
use super::{Problem, schema};

/// After so many statements that are not TOML the rest is left unread: it is probably no configuration.
const MAX_SYNTAX_ERRORS: usize = 32;

/// A document without syntax errors, and what had to be left out to get there.
pub(super) struct Readable {
    /// The text; unreadable statements are blanked out, so that every offset and line stays.
    text: String,
    /// The statements that were blanked out.
    lost: String,
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

/// The document, to be asked for tables.
pub(super) struct Document<'d> {
    readable: &'d Readable,
    lines: Lines,
    root: DeTable<'d>,
}

impl<'d> Document<'d> {
    pub(super) fn new(readable: &'d Readable) -> Self {
        let (root, _) = DeTable::parse_recoverable(&readable.text);
        Self { readable, lines: Lines::new(&readable.text), root: root.into_inner() }
    }

    /// The table `name`; one without entries when the file does not have it.
    pub(super) fn section(&self, name: &'static str) -> Section<'_> {
        let table = self.root.get(name);
        Section {
            document: self,
            name,
            line: table.map_or(1, |table| self.line(table.span().start)),
            entries: table.and_then(|table| table.get_ref().as_table()),
        }
    }

    /// The tables `[[name]]`, in the order of the file.
    pub(super) fn sections(&self, name: &'static str) -> Vec<Section<'_>> {
        let tables = self.root.get(name).and_then(|tables| tables.get_ref().as_array());
        tables
            .into_iter()
            .flat_map(|tables| tables.iter())
            .filter_map(|table| {
                let entries = Some(table.get_ref().as_table()?);
                Some(Section { document: self, name, line: self.line(table.span().start), entries })
            })
            .collect()
    }

    /// What stands at the top level: name, line and value.
    pub(super) fn entries(&self) -> impl Iterator<Item = (&str, usize, &DeValue<'d>)> {
        self.root.iter().map(|(key, value)| (&**key.get_ref(), self.line(key.span().start), value.get_ref()))
    }

    /// May `key` be among the statements that could not be read? Then it cannot be called missing.
    pub(super) fn may_have_lost(&self, key: &str) -> bool {
        self.readable.lost.contains(key)
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.lines.line(offset)
    }

    /// The source text of a value.
    pub(super) fn raw(&self, value: &Spanned<DeValue<'_>>) -> &str {
        self.readable.text.get(value.span()).unwrap_or_default()
    }
}

/// One table of the document.
#[derive(Clone, Copy)]
pub(super) struct Section<'d> {
    /// The document it is from.
    pub(super) document: &'d Document<'d>,
    /// The name in its header.
    pub(super) name: &'static str,
    /// The line of its header.
    pub(super) line: usize,
    /// `None` when the file does not have it.
    entries: Option<&'d DeTable<'d>>,
}

impl<'d> Section<'d> {
    /// The entry `key`, if the file has it.
    pub(super) fn item(&self, key: &'static str) -> Option<Item<'d>> {
        debug_assert!(schema::knows(self.name, key), "{}.{key} is not in the schema", self.name);
        Some(Item::new(self, key, self.entries?.get(key)?))
    }

    /// Every key and its line.
    pub(super) fn keys(&self) -> impl Iterator<Item = (&'d str, usize)> {
        let document = self.document;
        self.entries
            .into_iter()
            .flat_map(|entries| entries.keys())
            .map(move |key| (&**key.get_ref(), document.line(key.span().start)))
    }

    /// The problem that the table lacks `key`; `None` when the key may stand in what could not be read.
    pub(super) fn missing(&self, key: &'static str, expected: &str) -> Option<Problem> {
        (!self.document.may_have_lost(key)).then(|| Problem {
            line: self.line,
            column: None,
            key: format!("{}.{key}", self.name),
            message: "is missing".to_owned(),
            expected: expected.to_owned(),
        })
    }
}

/// Where the lines of a text begin.
struct Lines(Vec<usize>);

impl Lines {
    fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect())
    }

    fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
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
    let value =
        statement.split_once('=').map(|(_, value)| value.split('#').next().unwrap_or_default().trim());
    match value {
        Some("") => ("no value stands after =".to_owned(), "write one, or remove the line".to_owned()),
        Some(value) if value.eq_ignore_ascii_case("true") || value.eq_ignore_ascii_case("false") => {
            (format!("{value} is not in small letters"), format!("write {}", value.to_ascii_lowercase()))
        }
        Some(value) if !value.starts_with(['"', '\'', '[', '{']) && !value.contains(['"', '\'']) => {
            let value = shown(value);
            (format!("{value} is neither a number nor in quotes"), format!("write \"{value}\""))
        }
        Some(_) | None => match error.split_once(", expected ") {
            Some((message, expected)) => (message.to_owned(), format!("expected {expected}")),
            None => (error.to_owned(), "see conf/natd.toml for an example".to_owned()),
        },
    }
}

/// The words for a key or table that the file has already.
fn twice(statement: &str, text: &str, offset: usize) -> (String, String) {
    let name = |line: &str| match is_header(line) {
        true => line.split('#').next().unwrap_or_default().trim().to_owned(),
        false => line.split('=').next().unwrap_or_default().trim().to_owned(),
    };
    let wanted = name(statement);
    let before = text.get(..offset).unwrap_or_default();
    // A key can only be doubled within its table.
    let table =
        if is_header(statement) { 0 } else { before.lines().rev().take_while(|l| !is_header(l)).count() };
    let from = if is_header(statement) { 0 } else { before.lines().count().saturating_sub(table) };
    let earlier = before.lines().enumerate().skip(from).find(|(_, line)| name(line) == wanted);
    let place = earlier.map_or(String::new(), |(line, _)| format!(", first on line {}", line + 1));
    (format!("{} is there twice{place}", shown(&wanted)), "keep one of them".to_owned())
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
