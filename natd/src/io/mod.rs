//! The only place with system calls, clock and files.
#![allow(unsafe_code, reason = "system calls live here and nowhere else")]

pub mod clock;
pub mod conntrack;
pub mod control;
pub mod files;
#[cfg(feature = "pcap")]
pub(crate) mod live;
pub mod netlink;
pub mod nfqueue;
pub(crate) mod poll;
pub mod rules;
pub mod sandbox;
#[cfg(feature = "pcap")]
pub(crate) mod savefile;
pub mod signals;
pub mod sysctl;
pub mod tap;
pub mod terminal;
pub mod transmit;
