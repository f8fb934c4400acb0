//! The only place with system calls, clock and files.
#![allow(unsafe_code, reason = "system calls live here and nowhere else")]

pub mod clock;
pub mod conntrack;
pub mod control;
pub mod files;
pub mod netlink;
pub mod nfqueue;
pub(crate) mod poll;
pub mod probe;
pub mod rules;
pub mod sandbox;
pub mod signals;
pub mod sysctl;
pub mod terminal;
pub mod transmit;
