//! Where a packet was stopped decides which verb of the NAT it meets.

use std::net::Ipv4Addr;

use nat_core::decision::{Decision, DropReason, KernelFlow, KernelTuple};
use nat_core::nat::{Handover, Nat, Origin};
use nat_core::packet::{PacketError, PacketView};
use nat_core::time::Timestamp;
use passthrough::Passthrough;
use passthrough::view::TunnelView;

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

/// The NAT, and beside it what VPN protocols need that it does not know.
#[derive(Debug)]
pub struct Engine {
    /// Mappings and sessions of TCP, UDP and ICMP.
    pub nat: Nat,
    /// VPN passthrough.
    pub vpn: Passthrough,
    /// The last WAN address that there was.
    address: Option<Ipv4Addr>,
}

impl Engine {
    /// An engine of these two.
    pub fn new(nat: Nat, vpn: Passthrough) -> Self {
        let address = nat.address();
        Self { nat, vpn, address }
    }

    /// Takes over the WAN's address. Another one than the last ends what used that, even where there was none in
    /// between.
    pub fn set_address(&mut self, address: Option<Ipv4Addr>) {
        self.nat.set_address(address);
        let Some(new) = address else { return };
        if self.address.replace(new).is_some_and(|old| old != new) {
            self.vpn.address_changed(&mut self.nat);
        }
    }

    /// Decides what becomes of a packet at `now`.
    #[inline]
    pub fn decide(&mut self, now: Timestamp, arrival: &Arrival<'_>) -> Decision {
        let packet = match read(&mut self.nat, arrival) {
            Ok(packet) => packet,
            Err(decision) => return decision,
        };
        match arrival.stage {
            Stage::FromWan { local_socket: false } if self.vpn.concerns(&packet) => {
                self.vpn.inbound(now, &packet, &mut self.nat)
            }
            Stage::ToWan(origin) if self.vpn.concerns(&packet) => {
                self.vpn.outbound(now, &packet, origin, &mut self.nat)
            }
            Stage::FromWan { .. } | Stage::ToWan(_) if self.vpn.is_alone() => {
                // The kernel's NAT has everything else; what quotes its packets passes by here.
                Decision::Pass
            }
            stage @ (Stage::FromWan { .. }
            | Stage::ToWan(_)
            | Stage::HairpinIn
            | Stage::HairpinOut
            | Stage::Unclaimed) => by_stage(&mut self.nat, now, stage, &packet),
        }
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        [self.nat.poll_timeout(), self.vpn.poll_timeout()].into_iter().flatten().min()
    }

    /// Ends what is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        self.nat.handle_timeout(now);
        self.vpn.handle_timeout(now, &mut self.nat);
    }

    /// Takes over a flow that the kernel knows.
    pub fn adopt(&mut self, now: Timestamp, flow: &KernelFlow) -> Handover {
        if !self.owns(&flow.original) {
            return Handover::Foreign;
        }
        match self.nat.adopt(now, flow) {
            Handover::Ended | Handover::Foreign if flow.original.tuple().is_none() => {
                if self.nat.is_ours(flow) && self.nat.in_lan(flow.original.src.addr) {
                    self.vpn.adopt(now, &flow.original);
                }
                if flow.snat { Handover::Ended } else { Handover::Foreign }
            }
            handover @ (Handover::Adopted
            | Handover::AdoptedFromKernel
            | Handover::Ended
            | Handover::Foreign) => handover,
        }
    }

    /// Every VPN session.
    pub fn sessions(&self, now: Timestamp) -> Vec<TunnelView> {
        self.vpn.sessions(now, &self.nat)
    }

    /// Conntrack's entry for the flow that began as `original` is gone.
    pub fn kernel_forgot(&mut self, original: &KernelTuple) {
        self.nat.kernel_forgot(original);
    }

    /// Is this a flow between the LAN and the WAN that natd translates, or would, if the kernel did not?
    pub fn is_ours(&self, flow: &KernelFlow) -> bool {
        self.owns(&flow.original) && self.nat.is_ours(flow)
    }

    fn owns(&self, original: &KernelTuple) -> bool {
        !self.vpn.is_alone() || passthrough::is_vpn(original)
    }
}

/// Decides what becomes of a packet at `now`, VPN passthrough aside.
pub fn decide(nat: &mut Nat, now: Timestamp, arrival: &Arrival<'_>) -> Decision {
    match read(nat, arrival) {
        Ok(packet) => by_stage(nat, now, arrival.stage, &packet),
        Err(decision) => decision,
    }
}

#[inline]
fn read<'a>(nat: &mut Nat, arrival: &Arrival<'a>) -> Result<PacketView<'a>, Decision> {
    if arrival.truncated {
        return Err(nat.refuse(DropReason::TooLarge));
    }
    PacketView::parse(arrival.bytes).map_err(|error| {
        nat.refuse(match error {
            PacketError::Checksum => DropReason::BadChecksum,
            PacketError::Header | PacketError::Truncated | PacketError::Transport => DropReason::Malformed,
        })
    })
}

#[inline]
fn by_stage(nat: &mut Nat, now: Timestamp, stage: Stage, packet: &PacketView<'_>) -> Decision {
    match stage {
        Stage::FromWan { local_socket } => nat.inbound(now, packet, local_socket),
        Stage::ToWan(origin) => nat.outbound(now, packet, origin),
        Stage::HairpinIn => nat.hairpin_in(now, packet),
        Stage::HairpinOut => nat.hairpin_out(packet),
        Stage::Unclaimed => nat.unclaimed(now, packet),
    }
}
