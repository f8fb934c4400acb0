//! Lines of coloured text, bars and small graphs, cut to the width of the screen.

use std::collections::VecDeque;

use super::Style;

/// What a piece of text means; the colour follows from it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ink {
    Plain,
    Dim,
    Bold,
    Heading,
    Good,
    Caution,
    Bad,
    Down,
    Up,
}

impl Ink {
    /// The parameters of Select Graphic Rendition (ECMA-48 section 8.3.117).
    const fn rendition(self) -> &'static str {
        match self {
            Self::Plain => "",
            Self::Dim => "2",
            Self::Bold => "1",
            Self::Heading => "1;4",
            Self::Good => "32",
            Self::Caution => "33",
            Self::Bad => "1;31",
            Self::Down => "36",
            Self::Up => "35",
        }
    }
}

/// A line under construction.
#[derive(Debug, Default)]
pub(super) struct Line {
    pieces: Vec<(Ink, String)>,
}

/// From empty to full.
const EIGHTHS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];

impl Line {
    pub(super) fn new() -> Self {
        Self::default()
    }

    pub(super) fn is_blank(&self) -> bool {
        self.pieces.is_empty()
    }

    /// Adds text.
    pub(super) fn put(mut self, ink: Ink, text: impl Into<String>) -> Self {
        self.pieces.push((ink, text.into()));
        self
    }

    /// Adds a bar of `width` characters, filled as `part` is to `whole`; something shows as soon as there is
    /// something.
    pub(super) fn gauge(self, ink: Ink, part: u64, whole: u64, width: usize) -> Self {
        let cells = u128::try_from(width).unwrap_or(0);
        let filled = (u128::from(part) * cells).div_ceil(u128::from(whole.max(1)));
        let filled = usize::try_from(filled).unwrap_or(width).min(width);
        self.put(ink, "█".repeat(filled)).put(Ink::Dim, "░".repeat(width - filled))
    }

    /// Adds the last `width` samples as columns, the largest of them a full one; the newest is at the right.
    pub(super) fn graph(self, ink: Ink, samples: &VecDeque<u64>, width: usize) -> Self {
        let shown = samples.iter().skip(samples.len().saturating_sub(width));
        let largest = shown.clone().copied().max().unwrap_or(0).max(1);
        let mut text = " ".repeat(width.saturating_sub(samples.len()));
        for sample in shown {
            let eighth = u128::from(*sample) * 7 / u128::from(largest);
            text.push(
                usize::try_from(eighth).ok().and_then(|eighth| EIGHTHS.get(eighth)).copied().unwrap_or(' '),
            );
        }
        self.put(ink, text)
    }

    /// Writes at most `width` characters and no blanks at the end; the last character of a line that was cut
    /// says so.
    pub(super) fn write(&self, width: usize, style: Style, out: &mut String) {
        let mut cells: Vec<(Ink, char)> =
            self.pieces.iter().flat_map(|(ink, text)| text.chars().map(|c| (*ink, c))).collect();
        while cells.last().is_some_and(|(_, c)| *c == ' ') {
            cells.pop();
        }
        if cells.len() > width {
            cells.truncate(width);
            if let Some((_, last)) = cells.last_mut() {
                *last = '…';
            }
        }
        for run in cells.chunk_by(|(one, _), (next, _)| one == next) {
            let rendition = run.first().map_or("", |(ink, _)| ink.rendition());
            let coloured = style.colour && !rendition.is_empty();
            if coloured {
                out.push_str("\x1b[");
                out.push_str(rendition);
                out.push('m');
            }
            out.extend(run.iter().map(|(_, c)| if style.blocks { printable(*c) } else { plain(*c) }));
            if coloured {
                out.push_str("\x1b[0m");
            }
        }
    }
}

/// What the daemon says must not steer the terminal.
fn printable(c: char) -> char {
    if c.is_control() { '?' } else { c }
}

/// The nearest ASCII character, for terminals that have no others.
fn plain(c: char) -> char {
    match c {
        '░' | '▁' => '.',
        '▂' | '▃' => '-',
        '▄' | '▅' => '+',
        '▆' | '▇' => '*',
        '█' => '#',
        '●' => '*',
        '↓' => 'v',
        '↑' => '^',
        '…' => '~',
        _ if c.is_ascii() => printable(c),
        _ => '?',
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: Style = Style { colour: false, blocks: true };
    const COLOUR: Style = Style { colour: true, blocks: true };

    fn written(line: &Line, width: usize, style: Style) -> String {
        let mut out = String::new();
        line.write(width, style, &mut out);
        out
    }

    #[test]
    fn lines_are_cut_by_characters_and_colours_closed() {
        let line = Line::new().put(Ink::Good, "● up").put(Ink::Plain, " and away  ");
        assert_eq!(written(&line, 80, PLAIN), "● up and away");
        assert_eq!(written(&line, 5, PLAIN), "● up…");
        assert_eq!(written(&line, 3, COLOUR), "\u{1b}[32m● …\u{1b}[0m");
        assert_eq!(written(&line, 0, COLOUR), "");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        assert_eq!(written(&Line::new().put(Ink::Plain, "a\u{1b}[2Jb\n"), 80, PLAIN), "a?[2Jb?");
    }

    #[test]
    fn a_gauge_shows_little_as_something_and_much_as_full() {
        let gauge = |part, whole| written(&Line::new().gauge(Ink::Plain, part, whole, 4), 80, PLAIN);
        let shown =
            [gauge(0, 100), gauge(1, 100), gauge(50, 100), gauge(100, 100), gauge(300, 100), gauge(1, 0)];
        assert_eq!(shown, ["░░░░", "█░░░", "██░░", "████", "████", "████"]);
    }

    #[test]
    fn a_graph_shows_the_newest_samples_at_the_right() {
        let samples: VecDeque<u64> = [900, 0, 50, 100].into();
        let graph = |width| written(&Line::new().graph(Ink::Plain, &samples, width), 80, PLAIN);
        assert_eq!([graph(3), graph(6), graph(0)], ["▁▄█", "  █▁▁▁", ""]);
    }

    #[test]
    fn a_terminal_without_blocks_gets_ascii() {
        let line = Line::new().put(Ink::Good, "● ↓ ↑ …").gauge(Ink::Plain, 1, 2, 4).put(Ink::Plain, "é");
        assert_eq!(written(&line, 80, Style { colour: false, blocks: false }), "* v ^ ~##..?");
    }
}
