//! natd end to end: real programs and exact packets in network namespaces, behind a stateful firewall with
//! `policy drop`. The module documentation of `testkit` has the picture and the environment variables.

mod daemon;
mod filtering;
mod forwards;
mod fragments;
mod hairpin;
mod handshake;
mod icmp;
mod lifecycle;
mod limits;
mod mtu;
mod observation;
mod router;
mod spoof;
mod transfer;
mod wan;
