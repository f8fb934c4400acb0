//! Network-namespace labs and packet builders for tests; knows bytes and programs, not natd's types.
//!
//! # Theory of operation
//!
//! A [`Lab`] is a household, its router and a small internet, each machine a network namespace:
//!
//! ```text
//!  d1 192.168.1.11 ┐                                         ┌ s1 198.51.100.10
//!  d2 192.168.1.12 ┼ br-lan 192.168.1.1 ─ router ─ wan0 ─ internet ┼ s2 198.51.100.20
//!  d3 192.168.1.13 ┘                  │      198.51.100.1  │ .254  └
//!  guest 192.168.2.21 ─ br-iot 192.168.2.1                 └ 203.0.113.1 ─ s3 203.0.113.10
//! ```
//!
//! `internet` bridges s1, s2 and the router's WAN link, and routes to s3, so a traceroute has a hop there.
//! The router always has a stateful firewall with `policy drop`. Which NAT it runs is a choice ([`Nat`]):
//! natd, or the kernel's masquerade, which shows that a scenario is sound. The environment variable
//! `NATD_LAB_NAT` makes that choice for a whole run:
//!
//! | value | meaning |
//! |---|---|
//! | unset, `natd` | the built natd (`NATD_BIN`, else the `natd` beside the test binary's directory) |
//! | `natd-vpn` | natd with `scope = "vpn"`, and the kernel's masquerade for the rest |
//! | `kernel` | masquerade; scenarios that it is known to fail are skipped, with the reason |
//! | `kernel-all` | masquerade, and those are run as well, to see that they fail |
//! | `routed` | no NAT, no firewall, a route to the household instead, to see that a scenario's programs work |
//!
//! `NATD_LAB_LOG` sets natd's log level (default `debug`); its log is shown when a test fails.
//!
//! Tests need root and a few programs. Where they are missing a test fails and says what to install, unless
//! `NATD_TESTS_NO_ROOT=1` says that skipping is meant.
//!
//! Everything a lab makes carries its prefix (`nlb<pid>x<n>-`, or `$NATD_LAB_PREFIX<n>-`) and goes when the
//! [`Lab`] is dropped, also in a panic. Sockets are opened inside a namespace by a thread of their own that
//! enters it ([`Node::enter`]); a socket stays in the namespace it was made in.

pub mod address;
pub mod capture;
pub mod clock;
pub mod discovery;
pub mod kernel;
pub mod lab;
pub mod nat;
pub mod natd;
pub mod node;
pub mod packet;
pub mod process;
pub mod requirements;
pub mod socket;
pub mod sys;
pub mod tcp;
pub mod traffic;
pub mod vpn;

pub use capture::Capture;
pub use clock::{pause, wait_for};
pub use lab::{Lab, LabBuilder};
pub use nat::{Forward, Masquerade, Nat};
pub use node::Node;
pub use packet::Wire;
pub use process::{Background, Outcome};
