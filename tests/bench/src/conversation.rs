//! Many conversations at once through one NAT: both ends of each, as far as a middlebox can tell.

use std::net::Ipv4Addr;

use nat_core::decision::{ChecksumState, Decision};
use nat_core::flow::Direction;
use nat_core::nat::{Nat, Origin};
use nat_core::policy::{Limits, Policy};
use nat_core::time::Timestamp;
use natd::engine::{Arrival, Engine, Stage, decide};
use passthrough::Passthrough;
use passthrough::settings::Settings;

use crate::packets::{
    self, ACK, Buffer, ECHO_REPLY, ECHO_REQUEST, ICMP, LEN, SYN, TCP, TCP_PAYLOAD, UDP, Words,
};

/// The WAN address.
pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);

/// External endpoints are never shared and a protocol has 64,512 of them above the well-known ones, so the
/// last conversations of a full table are second ones of an internal endpoint.
const INTERNAL_ENDPOINTS: u32 = 61_440;
const DEVICES: u32 = 64;

/// One conversation and how far it has come.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Conversation {
    protocol: u8,
    internal: (Ipv4Addr, u16),
    remote: (Ipv4Addr, u16),
    /// The external port, once known.
    external: u16,
    device_seq: u32,
    remote_seq: u32,
}

impl Conversation {
    /// The `n`th of many, all different.
    pub(crate) fn nth(protocol: u8, n: u32) -> Self {
        let endpoint = n % INTERNAL_ENDPOINTS;
        let (device, k) = (endpoint % DEVICES, endpoint / DEVICES);
        // Devices use the same range, as their systems do, so that many ports are not preserved.
        let port = 32_768 + (device * 317 + k * 29) % 28_232;
        let remote = (n * 7 + n / INTERNAL_ENDPOINTS) % 4093;
        Self {
            protocol,
            internal: (Ipv4Addr::new(192, 168, 1, 10 + device as u8), port as u16),
            remote: (Ipv4Addr::from(0xc612_0000 + remote), if protocol == ICMP { 0 } else { 443 }), // RFC 2544
            external: 0,
            device_seq: n.wrapping_mul(0x9e37_79b9),
            remote_seq: n.wrapping_mul(0x85eb_ca6b),
        }
    }

    /// Writes the next packet in `direction`, as the NAT sees it arrive, and moves the conversation on.
    pub(crate) fn next(&mut self, direction: Direction, buffer: &mut Buffer) {
        packets::write(buffer, &self.words(direction, ACK));
        match direction {
            Direction::Outbound => self.device_seq = self.device_seq.wrapping_add(TCP_PAYLOAD),
            Direction::Inbound => self.remote_seq = self.remote_seq.wrapping_add(TCP_PAYLOAD),
        }
    }

    fn words(&self, direction: Direction, flags: u8) -> Words {
        let icmp = self.protocol == ICMP;
        let (protocol, remote, wan) = (self.protocol, self.remote, (WAN, self.external));
        match direction {
            Direction::Outbound => Words {
                protocol,
                src: self.internal,
                dst: remote,
                seq: self.device_seq,
                ack: self.remote_seq,
                kind: if icmp { ECHO_REQUEST } else { flags },
            },
            Direction::Inbound => Words {
                protocol,
                src: remote,
                dst: wan,
                seq: self.remote_seq,
                ack: self.device_seq,
                kind: if icmp { ECHO_REPLY } else { flags },
            },
        }
    }

    /// Is `packet` what a packet in `direction` must look like behind the NAT?
    pub(crate) fn fits(&self, direction: Direction, packet: &Buffer) -> bool {
        let [src, dst] = packets::endpoints(packet);
        let same = |shown: (Ipv4Addr, u16), meant: (Ipv4Addr, u16)| {
            shown.0 == meant.0 && (shown.1 == meant.1 || self.protocol == ICMP && meant.1 == 0)
        };
        let (from, to) = match direction {
            Direction::Outbound => ((WAN, self.external), self.remote),
            Direction::Inbound => (self.remote, self.internal),
        };
        same(src, from) && same(dst, to) && packets::is_intact(packet)
    }

    /// Opens it: the first packet each way, and for TCP the third of the handshake.
    fn open(&mut self, engine: &mut Engine, now: Timestamp) {
        let buffer = &mut [0; LEN];
        packets::write(buffer, &self.words(Direction::Outbound, SYN));
        translate(engine, Way::Daemon, now, Direction::Outbound, buffer);
        self.external = packets::endpoints(buffer)[0].1;
        self.device_seq = self.device_seq.wrapping_add(1);
        packets::write(buffer, &self.words(Direction::Inbound, SYN | ACK));
        translate(engine, Way::Daemon, now, Direction::Inbound, buffer);
        self.remote_seq = self.remote_seq.wrapping_add(1);
        if self.protocol == TCP {
            packets::write(buffer, &self.words(Direction::Outbound, ACK));
            self.device_seq = self.device_seq.wrapping_add(TCP_PAYLOAD);
            translate(engine, Way::Daemon, now, Direction::Outbound, buffer);
        }
    }
}

/// Which of the ways to a decision a packet takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    /// The daemon's: VPN passthrough first looks whether the packet concerns it.
    Daemon,
    /// The NAT alone.
    NatAlone,
}

/// An engine without limits that a benchmark would meet, VPN passthrough as the owner gets it.
pub(crate) fn engine() -> Engine {
    Engine::new(nat(), Passthrough::new(Settings::default()))
}

/// A NAT without limits that a benchmark would meet.
pub(crate) fn nat() -> Nat {
    let limits = Limits { sessions: 1 << 20, sessions_per_device: 1 << 20, ..Limits::default() };
    let mut nat = Nat::new(Policy { limits, ..Policy::default() }, [7; 16], Timestamp::ZERO);
    nat.set_address(Some(WAN));
    nat
}

/// The first `count` conversations, unopened. All of their memory is in use afterwards.
pub(crate) fn conversations(protocol: u8, count: u32) -> Vec<Conversation> {
    (0..count).map(|n| Conversation::nth(protocol, n)).collect()
}

/// Opens them all.
pub(crate) fn open_all(engine: &mut Engine, now: Timestamp, conversations: &mut [Conversation]) {
    for conversation in conversations {
        conversation.open(engine, now);
    }
}

/// Parse, decide, carry out: what the daemon does with a packet between the two system calls.
///
/// # Panics
/// When the packet is not forwarded: a benchmark of refusals would be meaningless.
#[inline]
pub(crate) fn translate(
    engine: &mut Engine,
    way: Way,
    now: Timestamp,
    direction: Direction,
    packet: &mut [u8],
) {
    let stage = match direction {
        Direction::Outbound => Stage::ToWan(Origin::Lan),
        Direction::Inbound => Stage::FromWan { local_socket: false },
    };
    let arrival = Arrival { stage, bytes: packet, truncated: false };
    let decision = match way {
        Way::Daemon => engine.decide(now, &arrival),
        Way::NatAlone => decide(&mut engine.nat, now, &arrival),
    };
    match decision {
        Decision::Forward(forward) => forward.carry_out(packet, ChecksumState::Complete),
        other @ (Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => {
            panic!("a packet of a known flow was not forwarded: {other:?}, {packet:?}")
        }
    }
}

/// The protocol's name in a table.
pub(crate) const fn name(protocol: u8) -> &'static str {
    match protocol {
        TCP => "TCP",
        UDP => "UDP",
        _ => "ICMP",
    }
}
