//! Aligned columns.
//!
//! The widths are known only after the last row, and a flow table may have 65,536 rows on a machine with
//! little memory: the cells are kept in one text, about 110 bytes a row, and laid out while printing.

use std::fmt::Write as _;
use std::io;

use crate::order;

/// Which edge of its column a cell stands at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Edge {
    Left,
    Right,
}

/// Column heading and edge.
pub(crate) type Column = (&'static str, Edge);

/// A table under construction.
pub(crate) struct Table {
    columns: &'static [Column],
    widths: Vec<usize>,
    cells: String,
    rows: Vec<(u64, usize)>,
}

/// Ends a cell; control characters in cells are replaced, so none holds it.
const CELL_END: char = '\t';

impl Table {
    /// An empty table.
    pub(crate) fn new(columns: &'static [Column]) -> Self {
        let widths = columns.iter().map(|(heading, _)| heading.chars().count()).collect();
        Self { columns, widths, cells: String::new(), rows: Vec::new() }
    }

    /// Adds a row, which is sorted by `key` and, where keys are equal, by when it came.
    pub(crate) fn row(&mut self, key: u64, cells: &[&str]) {
        self.rows.push((key, self.cells.len()));
        for (cell, widest) in cells.iter().zip(&mut self.widths) {
            let start = self.cells.len();
            self.cells.extend(cell.chars().map(|c| if c.is_control() { '?' } else { c }));
            let width = self.cells.get(start..).map_or(0, |cell| cell.chars().count());
            *widest = width.max(*widest);
            self.cells.push(CELL_END);
        }
    }

    /// How many rows there are.
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// Writes heading and rows, each line after `indent`, without blanks at the end.
    pub(crate) fn print(mut self, indent: &str, out: &mut dyn io::Write) -> io::Result<()> {
        // A later row begins at a later place.
        order::pairs(&mut self.rows);
        let mut line = String::new();
        self.lay_out(indent, self.columns.iter().map(|(heading, _)| *heading), &mut line);
        writeln!(out, "{line}")?;
        for (_, start) in &self.rows {
            let cells = self.cells.get(*start..).unwrap_or_default().split(CELL_END);
            self.lay_out(indent, cells, &mut line);
            writeln!(out, "{line}")?;
        }
        Ok(())
    }

    fn lay_out<'a>(&self, indent: &str, cells: impl Iterator<Item = &'a str>, line: &mut String) {
        line.clear();
        line.push_str(indent);
        for (place, ((cell, (_, edge)), width)) in cells.zip(self.columns).zip(&self.widths).enumerate() {
            let gap = if place == 0 { "" } else { "  " };
            // Writing to a String does not fail.
            let _ = match edge {
                Edge::Left => write!(line, "{gap}{cell:<width$}"),
                Edge::Right => write!(line, "{gap}{cell:>width$}"),
            };
        }
        line.truncate(line.trim_end().len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell_and_rows_sorted() {
        let mut table = Table::new(&[("name", Edge::Left), ("n", Edge::Right), ("", Edge::Left)]);
        table.row(2, &["second", "7", ""]);
        table.row(1, &["a\u{1b}b", "1,234", "x"]);
        assert_eq!(table.len(), 2);
        let mut out = Vec::new();
        table.print("  ", &mut out).unwrap();
        let expected = "  name        n\n  a?b     1,234  x\n  second      7\n";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }
}
