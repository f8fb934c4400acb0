//! The parsed text with its lines: tables and keys.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::item::Item;
use super::syntax::Readable;
use super::{Problem, schema};

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
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(text: &str) -> Self {
        Self(text.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1).collect())
    }

    /// The line, from 1, of a byte offset.
    pub(super) fn line(&self, offset: usize) -> usize {
        self.0.partition_point(|start| *start <= offset) + 1
    }
}
