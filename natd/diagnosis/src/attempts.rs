//! Something that is sent again and again until it is answered.

use core::time::Duration;

use nat_core::time::Timestamp;

use crate::finding::{Confidence, Evidence, Mark};

/// The same packet sooner than that is a copy (a capture on a bridge has everything twice), not a repetition.
pub const COPY: Duration = Duration::from_millis(400);
/// Nobody is said not to answer before so many sends, or so long a time.
pub const SENDS: u64 = 3;
/// See [`SENDS`].
pub const PATIENCE: Duration = Duration::from_secs(5);
/// Before that, no answer is not certain.
pub const CERTAIN: Duration = Duration::from_secs(10);

/// A message and its repetitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attempts {
    /// How often it was sent, copies aside.
    pub sends: u64,
    /// The first one.
    pub first: Mark,
    /// The last one.
    pub last: Mark,
}

impl Attempts {
    /// It was sent once.
    pub const fn new(mark: Mark) -> Self {
        Self { sends: 1, first: mark, last: mark }
    }

    /// It was seen again.
    pub fn again(&mut self, mark: Mark) {
        if mark.at.since(self.last.at) >= COPY {
            self.sends += 1;
            self.last = mark;
        }
    }

    /// How sure it is at `now` that nobody answers; `None`: too early to say.
    pub fn unanswered(&self, now: Timestamp) -> Option<Confidence> {
        let waited = now.since(self.first.at);
        if waited >= CERTAIN && self.sends >= SENDS {
            Some(Confidence::High)
        } else if self.sends >= SENDS || waited >= PATIENCE && self.sends >= 2 {
            Some(Confidence::Medium)
        } else if waited >= CERTAIN {
            Some(Confidence::Low)
        } else {
            None
        }
    }

    /// This as evidence.
    pub fn evidence(&self, what: impl Into<String>) -> Evidence {
        Evidence::packets(what, self.sends, self.first, self.last)
    }
}
