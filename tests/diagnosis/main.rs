//! The diagnosis against simulated households: VPNs that work have no findings at any moment, and a fault has the
//! same name from wherever it is seen.
//!
//! What is injected is what happens on the wire: packets of a kind are lost, refused or held back, and both sides do
//! what their programs do then. `NATD_SEEDS` says how many seeds each story is run with.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "what goes wrong here fails the test"
)]

mod faults;
mod ipsec;
mod net;
mod others;
mod size;
mod stories;
mod view;
