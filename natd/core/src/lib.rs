//! NAT44 decisions as pure values.
//!
//! # Theory of operation
//!
//! The caller hands in one packet at a time, with the time and the place where the kernel stopped it; a
//! [`decision::Decision`] comes back. Nothing here reads a clock, draws randomness or touches the system:
//! [`nat::Nat`] takes a seed when it is made and a [`time::Timestamp`] with every call.
//!
//! Words (RFC 2663, RFC 4787): *internal* is a LAN device's endpoint, *external* the endpoint on the WAN
//! address that stands for it, *remote* the peer's. A **mapping** ties one internal to one external endpoint,
//! whatever the remote (endpoint-independent mapping). A **session** is a conversation with one remote over a
//! mapping; it is two **flows**, one a direction, each found by the tuple that its packets show. A mapping
//! lives as long as a session on which its device has spoken.
#![no_std]
#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::cast_possible_truncation, reason = "test values are made by hand"))]

extern crate alloc;

pub mod decision;
mod expiry;
pub mod flow;
mod index;
pub mod nat;
mod notice;
pub mod packet;
pub mod policy;
mod ports;
mod random;
pub mod rewrite;
pub mod session;
mod slab;
mod tables;
mod tally;
pub mod tcp;
pub mod time;
