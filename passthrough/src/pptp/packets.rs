//! PPTP in packets: segments of the control connection that the NAT has decided on, and enhanced GRE.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::{Decision, DropReason, Effect};
use nat_core::flow::{Direction, Endpoint, Protocol, Tuple};
use nat_core::nat::Nat;
use nat_core::packet::{Body, PacketView};
use nat_core::time::Timestamp;

use super::{
    CallId, Connection, GreVerdict, Pptp, Refusal, Segment, Stage, Traffic, Verdict, View, ViewPhase,
    with_remote,
};
use crate::bytes::be16;
use crate::carry::{self, Answer, Key};
use crate::gre::GreHeader;
use crate::view::{Ids, Phase, TunnelView, Vpn};

/// PPTP's port (RFC 2637 section 1.2).
pub(crate) const PORT: u16 = 1723;
/// Where the Call ID stands behind the IPv4 header.
pub(crate) const CALL_ID_AT: u16 = 6;
/// How often it is looked whether control connections still are sessions of the NAT.
const CHECK_EVERY: Duration = Duration::from_secs(5);

impl Pptp {
    /// A segment with port 1723 at one end, and what the NAT has `decided`.
    pub(crate) fn carry_control(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        direction: Direction,
        decided: Decision,
        on: bool,
        nat: &mut Nat,
    ) -> Decision {
        let (Decision::Forward(forward), Some(tuple)) = (&decided, packet.tuple()) else { return decided };
        let Body::Tcp(tcp) = packet.body else { return decided };
        let connection = match direction {
            Direction::Outbound => Connection { remote: tuple.dst, device: tuple.src },
            Direction::Inbound => Connection { remote: tuple.src, device: forward.endpoints().1 },
        };
        let opener = if connection.remote.id.0 == PORT {
            Direction::Outbound
        } else if serves(connection.device, nat) {
            Direction::Inbound
        } else {
            return decided; // a device's own port that happens to be 1723
        };
        if opener == Direction::Inbound && !on {
            return nat.refuse(DropReason::PptpOff);
        }
        // What the NAT does not believe may be a stranger's: it ends nothing, and none of it is read.
        let heeded = nat.was_heeded();
        let data = packet.data().map_or(&[][..], |(_, data)| data);
        let segment = Segment {
            sequence: tcp.seq,
            acknowledgement: tcp.flags.ack.then_some(tcp.ack),
            syn: tcp.flags.syn,
            fin: tcp.flags.fin && heeded,
            rst: tcp.flags.rst && heeded,
            payload: if heeded || direction == Direction::Outbound { data } else { &[] },
        };
        match (self.control(now, connection, direction, opener, &segment), decided) {
            (Verdict::Edit(edits), Decision::Forward(forward)) => {
                let edits = edits.into_iter().map(|edit| (edit.offset, edit.new));
                Decision::Forward(forward.with_edits(carry::byte_edits(packet, edits)))
            }
            (Verdict::Drop(refusal), decided) => {
                if let Decision::Forward(forward) = decided {
                    // The NAT takes conntrack to know the flow from now on.
                    forward
                        .admission
                        .into_iter()
                        .for_each(|admission| nat.push_effect(Effect::Admit(admission)));
                }
                nat.refuse(reason(refusal))
            }
            (Verdict::Pass | Verdict::Edit(_), decided) => decided,
        }
    }

    /// Enhanced GRE of a device.
    pub(crate) fn carry_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        nat: &mut Nat,
    ) -> Answer {
        let Some(id) = call_id(packet) else { return Answer::Decided(nat.refuse(DropReason::Malformed)) };
        Answer::Decided(match self.gre_outbound(now, packet.src, packet.dst, id) {
            GreVerdict::Forward { call, .. } => {
                let before = self.account(now, call, Direction::Outbound, packet.total_len);
                let resend = before.first.is_some_and(|first| now.since(first) < carry::FIRST_BURST);
                carry::outbound(now, packet, resend, nat)
            }
            GreVerdict::Hold { until } => return Answer::Wait { reason: DropReason::GreNoControl, until },
            GreVerdict::Drop(refusal) => nat.turn_away(now, packet, reason(refusal)),
        })
    }

    /// Enhanced GRE to the WAN address. `own`: the router itself speaks PPTP with its sender.
    pub(crate) fn carry_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        own: bool,
        on: bool,
        nat: &mut Nat,
    ) -> Answer {
        let Some(id) = call_id(packet) else { return Answer::Decided(nat.refuse(DropReason::Malformed)) };
        Answer::Decided(match self.gre_inbound(now, packet.src, id) {
            GreVerdict::Forward { .. } if !on => nat.refuse(DropReason::PptpOff),
            GreVerdict::Forward { call, device, call_id } => {
                let before = self.account(now, call, Direction::Inbound, packet.total_len);
                let stale = before.last.is_none_or(|last| now.since(last) > nat.patience());
                let admission = stale.then(|| carry::admission(packet, device, Key::Call(call_id.0)));
                let edit = carry::word(packet, CALL_ID_AT, id.0, call_id.0);
                match carry::inbound(now, packet, device, admission, nat) {
                    Decision::Forward(forward) => Decision::Forward(forward.with_edits(edit)),
                    other @ (Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => other,
                }
            }
            GreVerdict::Hold { until } => return Answer::Wait { reason: DropReason::GreNoControl, until },
            GreVerdict::Drop(refusal) if own || refusal == Refusal::NoControlConnection => {
                nat.inbound(now, packet, false) // the router's own, or nobody's: the kernel knows
            }
            GreVerdict::Drop(refusal) => nat.refuse(reason(refusal)),
        })
    }

    /// Has another device than `device` a control connection with `remote`?
    pub(crate) fn taken_by_other(&self, device: Ipv4Addr, remote: Ipv4Addr) -> bool {
        self.connections.range(with_remote(remote)).any(|(connection, control)| {
            connection.device.addr != device && !matches!(control.stage, Stage::Closed | Stage::Foreign)
        })
    }

    /// Forgets everything: the WAN address has changed.
    pub(crate) fn clear(&mut self) {
        *self = Self::new(self.limits);
    }

    /// When [`Self::tick`] is to be called next.
    pub(crate) fn next_tick(&self) -> Option<Timestamp> {
        let check = (!self.connections.is_empty()).then_some(self.next_check);
        [check, self.poll_timeout()].into_iter().flatten().min()
    }

    /// Does what is due, and ends connections that the NAT has no session of any more.
    pub(crate) fn tick(&mut self, now: Timestamp, nat: &Nat) {
        self.handle_timeout(now);
        if now < self.next_check {
            return;
        }
        self.next_check = now + CHECK_EVERY;
        let tuple = |c: &Connection| Tuple { protocol: Protocol::Tcp, src: c.device, dst: c.remote };
        let gone = self.connections.keys().filter(|connection| nat.flow(&tuple(connection)).is_none());
        let gone: Vec<Connection> = gone.copied().collect();
        for connection in gone {
            self.end_connection(now, connection);
        }
    }

    /// Its sessions as all VPNs' are reported.
    pub(crate) fn report(&self, now: Timestamp, views: &mut Vec<TunnelView>) {
        views.extend(self.views(now).iter().map(tunnel));
    }
}

/// The Call ID in a packet of enhanced GRE, which a quote may have cut off behind its eighth byte.
pub(crate) fn call_id(packet: &PacketView<'_>) -> Option<CallId> {
    let payload = packet.payload();
    let mut head = [0; 16];
    *head.first_chunk_mut()? = *payload.first_chunk::<8>()?;
    let head = GreHeader::parse(&head)?;
    head.is_pptp().then_some(CallId(be16(payload, GreHeader::CALL_ID_AT)?))
}

/// Is `device` the server that inbound PPTP connections go to?
fn serves(device: Endpoint, nat: &Nat) -> bool {
    device.id.0 == PORT && nat.policy().forwarded(Protocol::Tcp, PORT) == Some(device)
}

const fn reason(refusal: Refusal) -> DropReason {
    match refusal {
        Refusal::Gap | Refusal::SynData => DropReason::PptpGap,
        Refusal::Unacknowledged | Refusal::Stale | Refusal::ConnectionLimit | Refusal::CallLimit => {
            DropReason::PptpLimit
        }
        Refusal::NoControlConnection | Refusal::UnknownCall | Refusal::CallEnded => DropReason::GreNoControl,
        Refusal::BeforeStart => DropReason::GreAfterStart,
    }
}

fn tunnel(view: &View) -> TunnelView {
    let (phase, reason) = match view.phase {
        ViewPhase::Handshake => (Phase::Handshake, ""),
        ViewPhase::Established => (Phase::Established, ""),
        ViewPhase::Data => (Phase::Data, ""),
        ViewPhase::Keepalive => (Phase::Keepalive, ""),
        ViewPhase::Idle => (Phase::Idle, ""),
        ViewPhase::Closed => (Phase::Closed, "ended"),
        ViewPhase::BeforeStart => (Phase::Closed, "older than natd: dial again"),
        ViewPhase::Foreign => (Phase::Closed, "not PPTP"),
    };
    let traffic = view.call.map_or([Traffic::default(); 2], |call| [call.outbound, call.inbound]);
    let ids = view.call.map(|call| Ids {
        what: "call",
        inside: Some(call.inside.0.into()),
        outside: Some(call.outside.0.into()),
        remote: call.remote.map(|id| id.0.into()),
        learned: None,
    });
    TunnelView {
        vpn: Vpn::Pptp,
        device: view.connection.device.addr,
        server: view.connection.remote.addr,
        phase,
        reason,
        created: view.created,
        last_seen: view.last,
        packets: traffic.map(|way| way.packets),
        bytes: traffic.map(|way| way.bytes),
        ids: ids.into_iter().collect(),
        remark: "",
    }
}
