//! What keeps a VPN from working, told from its packets.
//!
//! # Theory of operation
//!
//! ```text
//!  live: a filtered copy of the kernel's  ─┐                       ┌─ Session, SessionEvent   (log, `sessions`)
//!  offline: the packets of a capture      ─┼→ Packet → Household ──┤
//!                                          │     who is the device?└─ Finding                 (`diagnose`)
//!  what natd knows of itself: Router      ─┘     one Pair (device, server), a tracker for each VPN
//! ```
//!
//! A packet becomes an [`Observation`]: who is the device, who is the server, which way it goes, and what it is
//! ([`passthrough::sighting`]). Each pair of a device and a server has a tracker for each VPN protocol. A tracker
//! stores facts (what was sent, how often, when, what came back) and judges nothing while packets come in.
//! Findings are worked out from the facts when somebody asks, for the moment that he names: the same question
//! about the same packets has the same answer, live and in a capture, and a problem that solved itself is none.
//!
//! The same packet is often seen twice: on both sides of the router, or twice on a bridge. [`Household`] hands it
//! to the trackers once, and tells them beside that what became of it inside the router ([`Passage`]).
//!
//! Nothing here makes a system call, looks at a clock or knows a network interface.

#![forbid(unsafe_code)]

pub mod attempts;
pub mod code;
pub mod dns;
pub mod finding;
mod flow;
pub mod gre;
pub mod household;
pub mod ipsec;
pub mod l2tp;
pub mod line;
pub mod link;
pub mod observation;
pub mod openvpn;
pub mod packet;
pub mod pair;
mod ppp;
pub mod pptp;
pub mod router;
pub mod session;
mod tally;
pub mod tls;
pub mod wireguard;
pub mod words;

pub use code::{Code, Group, Party};
pub use finding::{Confidence, Evidence, Finding, Findings, Mark};
pub use household::{Context, Household, Settings};
pub use observation::{Fragment, IcmpReport, Observation, Passage, Point, TcpHead, Trace, Transport};
pub use packet::Packet;
pub use pair::Pair;
pub use router::{Router, Vantage};
pub use session::{Session, SessionEvent};
