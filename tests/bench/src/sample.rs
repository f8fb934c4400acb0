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

impl FromIterator<f64> for Samples {
    fn from_iter<I: IntoIterator<Item = f64>>(values: I) -> Self {
        let mut values: Vec<f64> = values.into_iter().collect();
        values.sort_by(f64::total_cmp);
        Self(values)
    }
}

/// `value` with as many places as are worth reading.
pub(crate) fn short(value: f64) -> String {
    let places = match value.abs() {
        ..10.0 => 2,
        10.0..100.0 => 1,
        _ => 0,
    };
    format!("{value:.places$}")
}

/// Median, with the smallest and largest behind it.
impl fmt::Display for Samples {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.range();
        write!(f, "{} ({}..{})", short(self.median()), short(least), short(most))
    }
}

/// "yes" or "no": does `value` keep to the target?
pub(crate) fn verdict(kept: bool) -> &'static str {
    if kept { "yes" } else { "**no**" }
}
