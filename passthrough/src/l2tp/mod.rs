//! L2TP over UDP: versions 2 (RFC 2661) and 3 (RFC 3931).
//!
//! # Theory of operation
//!
//! A LAC opens a tunnel from its UDP port, mostly 1701, to port 1701 of an LNS: SCCRQ, SCCRP, SCCCN. In the first
//! two each side names in AVP 9 the Tunnel ID by which it wants to be addressed; from then on the header of each
//! message has its *receiver's* ID. RFC 2661 section 8.1 lets the answering side use any port of its own, and
//! there are servers that send to port 1701 whatever port the request came from.
//!
//! A NAT gives the second device another external port than 1701. That is enough for a server that answers to the
//! port that it saw. It is not for one that answers to 1701: everything then goes to the first device. And ports
//! do not help where the Tunnel IDs are equal, which they often are: some LACs count from 1.
//!
//! What [`L2tp`] does beside the NAT's ports:
//!
//! * A device's Tunnel ID stays as it is where no other device has it towards that server. Else AVP 9 names
//!   another one on the WAN, and the header of what comes back gets the device's own. No length changes.
//! * What comes from the server to *any* external port of ours goes to the device whose tunnel the header names.
//! * A server that was seen to answer to 1701 alone, or that left three SCCRQs from another port unanswered, is
//!   remembered. The next tunnel to it shares port 1701 on the WAN. A tunnel that runs never changes its port.
//!
//! ```text
//! .11:1701 SCCRQ, AVP 9 = 1 → 203.0.113.1:1701  AVP 9 = 1      ⇒ 198.51.100.10:1701
//! .12:1701 SCCRQ, AVP 9 = 1 → 203.0.113.1:40001 AVP 9 = 0x8001 ⇒ 198.51.100.10:1701
//! .12:1701 tunnel 1         ← 203.0.113.1:1701  tunnel 0x8001  ⇐ 198.51.100.10:1701
//! ```
//!
//! What it leaves alone:
//!
//! * AVP 9 that is hidden, or in a message with a digest (AVP 59): the device has its port and nothing else.
//! * Session IDs of version 2: the tunnel tells them apart.
//! * All identifiers of version 3. They have 32 bits and are drawn at random, a digest mostly covers them, and data
//!   messages name only the session, so that rewriting would have to follow every call. They serve to tell devices
//!   apart while no two devices have the same one towards one server; where two have, the external port decides,
//!   and what comes to neither's port is dropped.
//! * A tunnel that was there before natd was started: it is known by its port, and its identifier is learned from
//!   what comes to that port.
//! * A server on the LAN, whose clients are outside: its SCCRP is treated as a client's SCCRQ is.

pub mod alg;
pub mod message;
mod packets;
mod servers;
mod tunnel;

pub use alg::{DropReason, Edit, Inbound, L2tp, Outbound};
pub use tunnel::{TunnelHandle, TunnelView};
