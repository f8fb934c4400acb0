//! Numbers of one kind from several repetitions.

use std::fmt;

/// What repeated measurement of one thing gave.
#[derive(Clone, Debug, Default)]
pub(crate) struct Samples(Vec<f64>);

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
        self.0.sort_by(f64::total_cmp);
    }

    /// The one in the middle; of an even number, the upper of the two. Not a number when there is none.
    pub(crate) fn median(&self) -> f64 {
        self.percentile(50)
    }

    /// The value that `percent` of 100 do not exceed. Not a number when there is none.
    pub(crate) fn percentile(&self, percent: usize) -> f64 {
        let at = (self.0.len() * percent / 100).min(self.0.len().saturating_sub(1));
        self.0.get(at).copied().unwrap_or(f64::NAN)
    }

    pub(crate) fn range(&self) -> (f64, f64) {
        let end = |value: Option<&f64>| value.copied().unwrap_or(f64::NAN);
        (end(self.0.first()), end(self.0.last()))
    }
}

/// Median, with the smallest and largest behind it.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let places = if self.median().abs() < 10.0 { 2 } else { 0 };
        let (least, most) = self.range();
        write!(f, "{:.places$} ({least:.places$}..{most:.places$})", self.median())
    }
}

/// "yes" or "no": does `value` keep to the target?
pub(crate) fn verdict(kept: bool) -> &'static str {
    if kept { "yes" } else { "**no**" }
}
