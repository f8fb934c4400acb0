//! What is wrong, how sure that is, and what shows it.

use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::view::Vpn;

use crate::code::{Code, Party};

/// Which packet, and when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mark {
    /// When it was seen.
    pub at: Timestamp,
    /// Its number, from 1: in the capture, or since natd began to watch.
    pub number: u64,
}

/// How sure a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Confidence {
    /// Something else explains it nearly as well.
    Low,
    /// The likeliest by far.
    Medium,
    /// Nothing else known explains what was seen.
    High,
}

impl Confidence {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Low => "low",
            Self::Medium => "medium",
            Self::High => "high",
        }
    }
}

/// Something that was seen and speaks for a finding, worded to follow a time: "sent to UDP 500, no answer".
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// What was seen, in few words.
    pub what: String,
    /// How many packets; 0 where it is not about packets.
    pub count: u64,
    /// The first of them.
    pub first: Option<Mark>,
    /// The last of them.
    pub last: Option<Mark>,
}

impl Evidence {
    /// `count` packets from `first` to `last`.
    pub fn packets(what: impl Into<String>, count: u64, first: Mark, last: Mark) -> Self {
        Self { what: what.into(), count, first: Some(first), last: Some(last) }
    }

    /// One packet.
    pub fn packet(what: impl Into<String>, mark: Mark) -> Self {
        Self::packets(what, 1, mark, mark)
    }

    /// Something that no packet shows.
    pub fn fact(what: impl Into<String>) -> Self {
        Self { what: what.into(), count: 0, first: None, last: None }
    }
}

/// A diagnosis.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is.
    pub code: Code,
    /// How sure that is.
    pub confidence: Confidence,
    /// Who can be to blame, the likeliest first.
    pub owner: &'static [Party],
    /// Which kind of VPN it is about, where it is about one.
    pub vpn: Option<Vpn>,
    /// Whose VPN.
    pub device: Option<IpAddr>,
    /// To where.
    pub server: Option<IpAddr>,
    /// Tells the attempts and sessions of one tracker apart; counts up.
    pub attempt: u32,
    /// When what it is about began.
    pub since: Timestamp,
    /// A later attempt of the same device with the same server and VPN worked.
    pub overcome: bool,
    /// What shows it.
    pub evidence: Vec<Evidence>,
}

/// Where trackers put what they find.
#[derive(Debug, Default)]
pub struct Findings {
    /// What was found so far.
    pub list: Vec<Finding>,
}

impl Findings {
    /// Adds a finding about `vpn`, blaming whom the code blames; device and server are filled in later.
    /// Answers with the finding, for what is not as usual.
    pub fn add(
        &mut self,
        code: Code,
        confidence: Confidence,
        vpn: Option<Vpn>,
        attempt: u32,
        since: Timestamp,
        evidence: Vec<Evidence>,
    ) -> &mut Finding {
        let finding = Finding {
            code,
            confidence,
            owner: code.owner(),
            vpn,
            device: None,
            server: None,
            attempt,
            since,
            overcome: false,
            evidence,
        };
        self.list.push(finding);
        let last = self.list.len() - 1;
        self.list.get_mut(last).expect("just pushed")
    }
}
