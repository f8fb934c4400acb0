//! Packets of IPsec, GRE and L2TPv3 made by hand, and what tells them apart on the wire. What they carry means
//! nothing: a NAT in the middle cannot read it either.

use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use etherparse::{IpNumber, Ipv4Header};

use super::{AH, ESP, GRE, L2TPV3};
use crate::capture::{Capture, Keep, Seen};
use crate::clock::holds_within;
use crate::node::Node;
use crate::socket::RawSocket;
use crate::sys;

/// An IPv4 packet of any protocol.
///
/// # Panics
/// When `body` is too long for one.
pub fn ipv4(from: Ipv4Addr, to: Ipv4Addr, protocol: u8, body: &[u8]) -> Vec<u8> {
    let len = u16::try_from(body.len()).expect("a body fits in a packet");
    let header = Ipv4Header::new(len, 64, IpNumber(protocol), from.octets(), to.octets());
    let mut header = header.expect("a body fits in a packet");
    header.header_checksum = header.calc_header_checksum();
    [&header.to_bytes()[..], body].concat()
}

/// ESP (RFC 4303 section 2): SPI, sequence number, then what looks encrypted.
pub fn esp(from: Ipv4Addr, to: Ipv4Addr, spi: u32, sequence: u32) -> Vec<u8> {
    let body = [&spi.to_be_bytes()[..], &sequence.to_be_bytes(), &[0xa5; 88]].concat();
    ipv4(from, to, ESP, &body)
}

/// AH (RFC 4302 section 2) over 8 bytes of UDP, with a check value of 96 bits.
pub fn ah(from: Ipv4Addr, to: Ipv4Addr, spi: u32, sequence: u32) -> Vec<u8> {
    let body =
        [&[17, 4, 0, 0][..], &spi.to_be_bytes(), &sequence.to_be_bytes(), &[0x5a; 12], &[0; 8]].concat();
    ipv4(from, to, AH, &body)
}

/// GRE version 0 with a key (RFC 2890 section 2) over what calls itself IPv4.
pub fn keyed_gre(from: Ipv4Addr, to: Ipv4Addr, key: u32, mark: u8) -> Vec<u8> {
    let body = [&[0x20, 0, 0x08, 0][..], &key.to_be_bytes(), &[mark; 32]].concat();
    ipv4(from, to, GRE, &body)
}

/// PPTP's GRE (RFC 2637 section 4.1): the Call ID that the receiver chose, a sequence number, then PPP.
pub fn pptp_gre(from: Ipv4Addr, to: Ipv4Addr, call_id: u16, sequence: u32) -> Vec<u8> {
    let head = [&[0x30, 0x01, 0x88, 0x0b, 0, 16][..], &call_id.to_be_bytes(), &sequence.to_be_bytes()];
    ipv4(from, to, GRE, &[&head.concat()[..], &[0xff, 0x03, 0, 0x21], &[0; 12]].concat())
}

/// L2TPv3 data over IP (RFC 3931 section 4.1.1.1): the session id that the receiver chose, then data.
pub fn l2tpv3(from: Ipv4Addr, to: Ipv4Addr, session: u32, mark: u8) -> Vec<u8> {
    let body = [&session.to_be_bytes()[..], &[mark; 32]].concat();
    ipv4(from, to, L2TPV3, &body)
}

/// The first 32 bits after the IP header: ESP's SPI, L2TPv3's session id.
pub fn first_word(seen: &Seen) -> Option<u32> {
    word(seen, 20)
}

/// The second 32 bits: keyed GRE's key, ESP's sequence number.
pub fn second_word(seen: &Seen) -> Option<u32> {
    word(seen, 24)
}

fn word(seen: &Seen, at: usize) -> Option<u32> {
    Some(u32::from_be_bytes(seen.bytes.get(at..at + 4)?.try_into().ok()?))
}

/// A machine that sends packets of one protocol made by hand, and what its link brings it of that protocol.
#[derive(Debug)]
pub struct End {
    /// Its own address.
    pub addr: Ipv4Addr,
    protocol: u8,
    socket: RawSocket,
    link: Capture,
    /// Its kernel would answer "protocol unreachable" (RFC 1122 section 3.2.2.1) where nobody listens.
    _listener: OwnedFd,
}

impl End {
    /// Makes `node` one.
    ///
    /// # Panics
    /// When it has no sockets for that.
    pub fn new(node: &Node, addr: Ipv4Addr, protocol: u8) -> Self {
        let listener = node.enter(|| sys::socket(libc::AF_INET, libc::SOCK_RAW, i32::from(protocol)));
        Self {
            addr,
            protocol,
            socket: node.raw(),
            link: node.capture("eth0", Keep::All),
            _listener: listener.expect("root may open raw sockets"),
        }
    }

    /// Sends a packet.
    pub fn send(&self, packet: &[u8]) {
        self.socket.send(packet);
    }

    /// The first two words after the IP header of each packet that came from `from`.
    pub fn got(&self, from: Ipv4Addr) -> Vec<(u32, u32)> {
        let ours =
            self.link.seen().into_iter().filter(|seen| {
                !seen.outgoing && seen.wire.protocol == self.protocol && seen.wire.src == from
            });
        ours.filter_map(|seen| Some((first_word(&seen)?, second_word(&seen)?))).collect()
    }

    /// A packet with these two words has come from `from`, or comes soon.
    ///
    /// # Panics
    /// When it does not; `what` names it.
    pub fn expect(&self, what: &str, from: Ipv4Addr, words: (u32, u32)) {
        let came = holds_within(Duration::from_secs(2), || self.got(from).contains(&words));
        assert!(
            came,
            "{} does not get {what} {words:08x?} from {from}, but {:08x?}",
            self.addr,
            self.got(from)
        );
    }
}

/// An IKEv1 message (RFC 2408 section 3.1, RFC 2409 section 5).
#[derive(Clone, Copy, Debug)]
pub struct Ike {
    /// Initiator's SPI (cookie).
    pub initiator: u64,
    /// Responder's SPI (cookie); 0 in the first message.
    pub responder: u64,
    /// What it is part of.
    pub stage: Stage,
}

/// Where in IKEv1 a message stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// Main mode, proposal or choice; no sign of NAT traversal.
    Proposal,
    /// Main mode, key exchange and nonce.
    KeyExchange,
    /// Main mode, identity; encrypted.
    Identity,
    /// Quick mode with this message id, which makes a pair of ESP associations; encrypted.
    Quick(u32),
}

/// A security association of one proposal: payload lengths 48, 36 and 28.
#[rustfmt::skip]
const PROPOSAL: [u8; 48] = [
    0, 0, 0, 48, 0, 0, 0, 1, 0, 0, 0, 1, // association, IPsec, identity only
    0, 0, 0, 36, 1, 1, 0, 1, // proposal 1, ISAKMP, no SPI, one transform
    0, 0, 0, 28, 1, 1, 0, 0, // transform 1, IKE
    0x80, 1, 0, 5, 0x80, 2, 0, 2, 0x80, 3, 0, 1, 0x80, 4, 0, 2, // 3DES, SHA1, pre-shared key, group 2
    0x80, 11, 0, 1, // lifetime in seconds
];

impl Ike {
    /// As it goes into a datagram.
    pub fn bytes(&self) -> Vec<u8> {
        let key_exchange = [&[10, 0, 0, 132][..], &[0x7b; 128], &[0, 0, 0, 20], &[0x6d; 16]].concat();
        // Exchange 2 is main mode, 32 quick mode; flag 1 is encryption.
        let (next, exchange, flags, message_id, body) = match self.stage {
            Stage::Proposal => (1, 2, 0, 0, &PROPOSAL[..]),
            Stage::KeyExchange => (4, 2, 0, 0, &key_exchange[..]),
            Stage::Identity => (5, 2, 1, 0, &[0xc3; 64][..]),
            Stage::Quick(id) => (8, 32, 1, id, &[0xc3; 128][..]),
        };
        let len = u32::try_from(28 + body.len()).expect("it is short");
        [
            &self.initiator.to_be_bytes()[..],
            &self.responder.to_be_bytes(),
            &[next, 0x10, exchange, flags],
            &message_id.to_be_bytes(),
            &len.to_be_bytes(),
            body,
        ]
        .concat()
    }
}
