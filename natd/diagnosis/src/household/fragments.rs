//! Whose later fragments are: they have no ports, and only the first one says them.

use std::collections::VecDeque;
use std::net::IpAddr;

use crate::packet::{Fragment, Packet};

/// First fragments that are remembered; a datagram's fragments follow each other closely.
const REMEMBERED: usize = 64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Datagram {
    src: IpAddr,
    dst: IpAddr,
    ident: u32,
    protocol: u8,
}

/// The ports of datagrams that come in fragments.
#[derive(Debug, Default)]
pub(super) struct Fragments {
    recent: VecDeque<(Datagram, (u16, u16))>,
}

impl Fragments {
    /// The source and destination port of a UDP or TCP packet, 0 and 0 if they are not known.
    pub(super) fn ports(&mut self, packet: &Packet<'_>) -> (u16, u16) {
        if !matches!(packet.protocol, 6 | 17) {
            return (0, 0);
        }
        let datagram =
            Datagram { src: packet.src, dst: packet.dst, ident: packet.ident, protocol: packet.protocol };
        match packet.fragment {
            Fragment::Whole => ports(packet.payload),
            Fragment::First => {
                let ports = ports(packet.payload);
                if self.recent.len() >= REMEMBERED {
                    self.recent.pop_front();
                }
                self.recent.push_back((datagram, ports));
                ports
            }
            Fragment::Later => {
                let first = self.recent.iter().rev().find(|(known, _)| *known == datagram);
                first.map_or((0, 0), |&(_, ports)| ports)
            }
        }
    }
}

fn ports(payload: &[u8]) -> (u16, u16) {
    match payload {
        &[a, b, c, d, ..] => (u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d])),
        _ => (0, 0),
    }
}
