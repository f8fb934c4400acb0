//! L2TP over UDP in packets: what its tunnels change of what the NAT does.

use alloc::vec::Vec;

use nat_core::decision::{Decision, DropReason, Forward};
use nat_core::flow::{Direction, Endpoint, Tuple};
use nat_core::nat::Nat;
use nat_core::packet::PacketView;
use nat_core::time::Timestamp;

use super::alg::{Edit, Inbound, L2tp};
use crate::carry;
use crate::view::{Ids, TunnelView, Vpn};

impl L2tp {
    /// A datagram of a device, and what the NAT has `decided`. The NAT keeps a session and a port of the device's
    /// own even where port 1701 is shared on the wire: nothing else may use the one as long as the other lives.
    pub(crate) fn carry_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        decided: Decision,
    ) -> Decision {
        let (Decision::Forward(forward), Some((_, data))) = (&decided, packet.data()) else { return decided };
        let (external, _) = forward.endpoints();
        let sent = self.outbound(now, tuple.src, tuple.dst, external.id.0, data);
        let shared = sent
            .source_port
            .and_then(|port| Forward::to_endpoints(packet, Endpoint::new(external.addr, port), tuple.dst));
        let decided = shared.map_or(decided, Decision::Forward);
        edited(packet, decided, &sent.edits)
    }

    /// A datagram from the WAN. `own`: the router itself speaks L2TP with its sender; `by_nat`: what the NAT says.
    pub(crate) fn carry_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        own: bool,
        nat: &mut Nat,
        by_nat: impl FnOnce(&mut Nat) -> Decision,
    ) -> Decision {
        let Some((_, data)) = packet.data() else { return by_nat(nat) };
        match self.inbound(now, tuple.src, tuple.dst.id.0, data) {
            Inbound::ToNat { edits, .. } => edited(packet, by_nat(nat), &edits),
            Inbound::To { device, edits, tunnel } => {
                let Some(mut forward) = Forward::to_endpoints(packet, tuple.src, device) else {
                    return nat.refuse(DropReason::Internal);
                };
                nat.carried(now, Direction::Inbound, device.addr, packet.total_len);
                let last = self.delivered(now, tunnel, tuple.src.id.0);
                if last.is_none_or(|last| now.since(last) > nat.patience()) {
                    forward.admission = Some(carry::udp_admission(device, tuple.src));
                }
                edited(packet, Decision::Forward(forward), &edits)
            }
            Inbound::Drop(_) if own => by_nat(nat),
            Inbound::Drop(_) => nat.refuse(DropReason::L2tpRefused),
        }
    }

    /// Its tunnels as all VPNs' are reported.
    pub(crate) fn report(&self, now: Timestamp, views: &mut Vec<TunnelView>) {
        views.extend(self.views(now).map(|view| TunnelView {
            vpn: Vpn::L2tp,
            device: view.device.addr,
            server: view.remote.addr,
            phase: view.phase,
            reason: view.phase.reason(),
            created: view.usage.created,
            last_seen: view.usage.last_seen,
            packets: view.usage.packets,
            bytes: view.usage.bytes,
            ids: Vec::from([Ids {
                what: "tunnel",
                inside: view.inside.map(u64::from),
                outside: view.outside.map(u64::from),
                remote: view.peer.map(u64::from),
                learned: None,
            }]),
            remark: if view.shared { "shares port 1701" } else { "" },
        }));
    }
}

fn edited(packet: &PacketView<'_>, decided: Decision, edits: &[Edit]) -> Decision {
    match decided {
        Decision::Forward(forward) => {
            let edits = edits.iter().map(|edit| (usize::from(edit.offset), edit.new));
            Decision::Forward(forward.with_edits(carry::byte_edits(packet, edits)))
        }
        other @ (Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => other,
    }
}
