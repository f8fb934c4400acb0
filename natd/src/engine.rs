//! Where a packet was stopped decides which verb of the NAT it meets.

use nat_core::decision::{Decision, DropReason};
use nat_core::nat::{Nat, Origin};
use nat_core::packet::{PacketError, PacketView};
use nat_core::time::Timestamp;

/// The place in the kernel's path where a packet was queued, and what the rules found out about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// From the WAN, before routing.
    FromWan {
        /// A socket of the router, connected or bound to an address of its own, wants the packet as it is.
        local_socket: bool,
    },
    /// To the WAN, after routing.
    ToWan(Origin),
    /// From the LAN to the WAN address, before routing.
    HairpinIn,
    /// From one device to another, after routing.
    HairpinOut,
    /// TCP for the router itself that no socket wants.
    Unclaimed,
}

/// A packet as the kernel hands it over.
#[derive(Clone, Copy, Debug)]
pub struct Arrival<'a> {
    /// Where it was stopped.
    pub stage: Stage,
    /// The packet from its IPv4 header on.
    pub bytes: &'a [u8],
    /// The kernel could not hand over all of it.
    pub truncated: bool,
}

/// Decides what becomes of a packet at `now`.
pub fn decide(nat: &mut Nat, now: Timestamp, arrival: &Arrival<'_>) -> Decision {
    if arrival.truncated {
        return nat.refuse(DropReason::TooLarge);
    }
    let packet = match PacketView::parse(arrival.bytes) {
        Ok(packet) => packet,
        Err(PacketError::Checksum) => return nat.refuse(DropReason::BadChecksum),
        Err(PacketError::Header | PacketError::Truncated | PacketError::Transport) => {
            return nat.refuse(DropReason::Malformed);
        }
    };
    match arrival.stage {
        Stage::FromWan { local_socket } => nat.inbound(now, &packet, local_socket),
        Stage::ToWan(origin) => nat.outbound(now, &packet, origin),
        Stage::HairpinIn => nat.hairpin_in(now, &packet),
        Stage::HairpinOut => nat.hairpin_out(&packet),
        Stage::Unclaimed => nat.unclaimed(now, &packet),
    }
}
