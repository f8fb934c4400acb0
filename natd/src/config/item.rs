//! One key with its value: the typed readers.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use toml::Spanned;
use toml::de::DeValue;

use super::document::Section;
use super::{Problem, Remark, schema};

/// One key of the file, or one entry of its list.
#[derive(Clone, Copy)]
pub(super) struct Item<'d> {
    section: Section<'d>,
    key: &'static str,
    value: &'d DeValue<'d>,
    /// The value as the file writes it.
    raw: &'d str,
    /// The line where the value begins.
    pub(super) line: usize,
}

impl<'d> Item<'d> {
    pub(super) fn new(section: &Section<'d>, key: &'static str, value: &'d Spanned<DeValue<'d>>) -> Self {
        let document = section.document;
        let line = document.line(value.span().start);
        Self { section: *section, key, value: value.get_ref(), raw: document.raw(value), line }
    }

    /// `[nat] lan` as `nat.lan`.
    fn name(&self) -> String {
        format!("{}.{}", self.section.name, self.key)
    }

    /// The value as the file writes it, fit for one line.
    pub(super) fn shown(&self) -> String {
        shown(self.raw)
    }

    pub(super) fn problem(&self, message: impl Into<String>, expected: impl Into<String>) -> Problem {
        Problem {
            line: self.line,
            column: None,
            key: self.name(),
            message: message.into(),
            expected: expected.into(),
        }
    }

    pub(super) fn remark(&self, message: impl Into<String>) -> Remark {
        Remark { line: self.line, key: self.name(), message: message.into() }
    }

    /// The problem that this is a value of the wrong kind.
    pub(super) fn wrong_kind(&self, expected: impl Into<String>) -> Problem {
        let kind = match self.value {
            DeValue::String(_) => "is text",
            DeValue::Integer(_) => "is a number",
            DeValue::Float(_) => "is not a whole number",
            DeValue::Boolean(_) => "is not a value of this key",
            DeValue::Datetime(_) => "is a date",
            DeValue::Array(_) => "is a list",
            DeValue::Table(_) => "is a table",
        };
        self.refused(kind, expected)
    }

    /// The problem that this value cannot be; `why` goes on from the value.
    pub(super) fn refused(&self, why: &str, expected: impl Into<String>) -> Problem {
        self.problem(format!("{} {why}", self.shown()), expected)
    }

    pub(super) fn as_text(&self) -> Option<&'d str> {
        self.value.as_str()
    }

    pub(super) fn as_bool(&self) -> Option<bool> {
        self.value.as_bool()
    }

    /// A whole number, also one that is too large for its key; `None` for other kinds of value.
    pub(super) fn as_number(&self) -> Option<Option<u64>> {
        let number = self.value.as_integer()?;
        Some(u64::from_str_radix(number.as_str(), number.radix()).ok())
    }

    /// Text.
    pub(super) fn text(&self, expected: &str) -> Result<&'d str, Problem> {
        self.as_text().ok_or_else(|| self.wrong_kind(expected))
    }

    /// `true` or `false`.
    pub(super) fn boolean(&self) -> Result<bool, Problem> {
        self.as_bool().ok_or_else(|| self.wrong_kind("use true or false"))
    }

    /// A whole number in `range`.
    pub(super) fn number<T>(&self, range: RangeInclusive<T>) -> Result<T, Problem>
    where
        T: Copy + PartialOrd + Display + TryFrom<u64>,
    {
        let expected = format!("use a whole number from {} to {}", range.start(), range.end());
        let Some(number) = self.as_number() else {
            return Err(self.wrong_kind(expected));
        };
        let number = number.and_then(|number| T::try_from(number).ok());
        number
            .filter(|number| range.contains(number))
            .ok_or_else(|| self.refused("is out of range", expected))
    }

    /// The address of a device.
    pub(super) fn host(&self) -> Result<Ipv4Addr, Problem> {
        let expected = "use the device's IPv4 address, such as \"192.168.1.10\"";
        let addr: Ipv4Addr =
            self.text(expected)?.parse().map_err(|_| self.refused("is not an IPv4 address", expected))?;
        let [first, ..] = addr.octets();
        if first == 0 || first >= 224 || addr.is_loopback() {
            return Err(self.refused("is not an address that a device can have", expected));
        }
        Ok(addr)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, choices: &[(&'static str, T)]) -> Result<T, Problem> {
        let words: Vec<String> = choices.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        let expected = format!("use {}", joined(&words, "or"));
        let text = self.text(&expected)?;
        let found = choices.iter().find(|(word, _)| *word == text);
        found
            .map(|(_, value)| *value)
            .ok_or_else(|| self.unknown_word(choices.iter().map(|(word, _)| *word), expected))
    }

    /// The problem that a text is none of `words`.
    pub(super) fn unknown_word(
        &self,
        words: impl IntoIterator<Item = &'static str>,
        expected: impl Into<String>,
    ) -> Problem {
        let near = self.as_text().and_then(|text| schema::nearest(text, words));
        let hint = near.map_or(String::new(), |near| format!(" (did you mean \"{near}\"?)"));
        self.refused(&format!("is not known{hint}"), expected)
    }

    /// The entries of a list.
    pub(super) fn list(&self, expected: impl Into<String>) -> Result<Vec<Self>, Problem> {
        let entries = self.value.as_array().ok_or_else(|| self.wrong_kind(expected))?;
        Ok(entries.iter().map(|entry| Self::new(&self.section, self.key, entry)).collect())
    }
}

/// `"a"`, `"a" or "b"`, `"a", "b" or "c"`.
pub(super) fn joined(words: &[String], last: &str) -> String {
    match words.split_last() {
        Some((end, [])) => end.clone(),
        Some((end, rest)) => format!("{} {last} {end}", rest.join(", ")),
        None => String::new(),
    }
}

/// Source text fit for one line of a terminal: short, and without control characters.
pub(super) fn shown(raw: &str) -> String {
    const LONGEST: usize = 48;
    let line = raw.lines().next().unwrap_or_default();
    let mut shown: String = line
        .chars()
        .take(LONGEST)
        .map(|c| if c.is_control() { char::REPLACEMENT_CHARACTER } else { c })
        .collect();
    if shown.len() < raw.trim_end().len()
        && (line.chars().count() > LONGEST || line.len() < raw.trim_end().len())
    {
        shown.push('…');
    }
    shown
}
