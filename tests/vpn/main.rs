//! VPN passthrough end to end: real VPN programs of several devices behind one router, to one server. The module
//! documentation of `testkit::vpn` says how they run, that of `testkit` has the picture and the environment variables.
//!
//! Every scenario is written for natd; what the kernel's masquerade does with it stands in its `beyond_kernel`, and
//! `NATD_LAB_NAT=kernel-all` shows it.

mod ike;
mod inside;
mod l2tp;
mod openvpn;
mod pptp;
mod raw;
mod scope;
mod strongswan;
mod switches;
mod vpnc;
mod wireguard;
