//! What natd does to packets, held against what the RFCs and the requirements say: one test for each
//! requirement that needs no kernel, named after it, and all of them with a virtual clock.
#![cfg_attr(
    test,
    expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test that cannot go on may panic")
)]

mod admission;
mod change;
mod counters;
mod forwards;
mod hairpin;
mod hostile;
mod model;
mod mss;
mod packets;
mod rfc4787;
mod rfc5382;
mod rfc5508;
mod rfc7857;
mod sharing;
mod spoofing;
mod vpn_hostile;
mod vpn_ike;
mod vpn_ipsec;
mod vpn_keyed;
mod vpn_l2tp;
mod vpn_pptp;
mod world;
