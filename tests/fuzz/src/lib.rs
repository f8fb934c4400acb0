//! Targets for arbitrary bytes: each is a pure function that panics when something does not hold. They are run over
//! their corpus by the ordinary tests, and over what the driver (`main.rs`) makes of it.
//!
//! | target | what it runs |
//! |---|---|
//! | `ike` | the IKE header, payloads, notifies and fragments, and what shares port 4500 |
//! | `pptp` | control connections and calls over a course of events |
//! | `l2tp` | the L2TP reader, and tunnels over a course of datagrams |
//! | `gre_keyed` | the GRE reader, and conversations of GRE and L2TPv3 over a course of packets |
//! | `sighting` | recognising a VPN in a packet |
//! | `packet` | the IPv4 reader, and changes carried out on what it read |
//! | `engine` | the whole engine over a course of packets, both ways, and time |
//! | `household` | the diagnosis of a course of packets on both sides of the router |
//! | `openvpn_wireguard` | the readers of both |
//! | `frame` | captured frames of every link type, and diagnosis over a course of them |

pub mod coverage;
mod target;

/// A pure function of any bytes.
pub type Target = fn(&[u8]);

/// Every target by its name.
pub const TARGETS: [(&str, Target); 10] = [
    ("ike", target::ike::run),
    ("pptp", target::pptp),
    ("l2tp", target::l2tp::run),
    ("gre_keyed", target::gre_keyed::run),
    ("sighting", target::sighting),
    ("packet", target::packet::run),
    ("engine", target::engine::run),
    ("household", target::household::run),
    ("openvpn_wireguard", target::openvpn_wireguard),
    ("frame", target::frame::run),
];
