//! A device and a server: one tracker for each VPN between them, and what they share.

use std::net::IpAddr;

use nat_core::time::Timestamp;
use passthrough::sighting::Sighting;
use passthrough::view::{Phase, Vpn};

use crate::finding::{Findings, Mark};
use crate::household::Context;
use crate::observation::{Fragment, IcmpReport, Observation, Passage, Trace, Transport};
use crate::session::Session;
use crate::{gre, ipsec, l2tp, openvpn, pptp, wireguard};

/// ICMP errors that are kept for a pair.
const ERRORS: usize = 16;
/// Protocols whose crossings are counted for a pair.
const CROSSINGS: usize = 8;

/// What passed between them beside the VPN's own packets: proof that the way or the server is alive.
#[derive(Clone, Copy, Debug, Default)]
pub struct Beside {
    /// Packets outbound and inbound.
    pub packets: [u64; 2],
    /// The last inbound one.
    pub heard: Option<Mark>,
}

/// What the router did with this pair's packets; counted only where both sides are watched.
#[derive(Clone, Copy, Debug, Default)]
pub struct Crossing {
    /// IP protocol number, and the server's port (0 where there are none).
    pub protocol: (u8, u16),
    /// Outbound packets that left.
    pub left: u64,
    /// Outbound packets that did not.
    pub swallowed: u64,
    /// The first and the last of those.
    pub swallowed_at: Option<(Mark, Mark)>,
    /// Did anything leave after the last one that did not?
    pub left_since: bool,
    /// Inbound packets that did not reach the LAN.
    pub undelivered: u64,
    /// The first and the last of those.
    pub undelivered_at: Option<(Mark, Mark)>,
    /// Inbound packets that did.
    pub delivered: u64,
    /// The source on the WAN that the last one left with.
    pub wan: Option<(IpAddr, u16)>,
}

/// Everything about a device and a server.
#[derive(Debug)]
pub struct Pair {
    /// The device.
    pub device: IpAddr,
    /// The server.
    pub server: IpAddr,
    /// Their first packet.
    pub since: Timestamp,
    /// Their last packet.
    pub last_seen: Timestamp,
    /// The last packet of a VPN's from the server.
    pub heard: Option<Mark>,
    /// Other traffic between them.
    pub beside: Beside,
    /// ICMP errors about their packets, the last ones.
    pub errors: Vec<IcmpReport>,
    /// What became of packets inside the router, a few protocols.
    pub crossings: Vec<Crossing>,
    /// IPsec.
    pub ipsec: Option<Box<ipsec::Tracker>>,
    /// PPTP.
    pub pptp: Option<Box<pptp::Tracker>>,
    /// L2TP.
    pub l2tp: Option<Box<l2tp::Tracker>>,
    /// GRE other than PPTP's.
    pub gre: Option<Box<gre::Tracker>>,
    /// WireGuard.
    pub wireguard: Option<Box<wireguard::Tracker>>,
    /// OpenVPN.
    pub openvpn: Option<Box<openvpn::Tracker>>,
    /// Phases that were told of, by protocol and attempt.
    pub(crate) told: Vec<(Vpn, u32, Phase)>,
}

/// Which tracker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Ipsec,
    Pptp,
    L2tp,
    Gre,
    WireGuard,
    OpenVpn,
}

impl Kind {
    fn of(seen: &Observation<'_>) -> Option<Self> {
        match seen.sighting {
            Some(
                Sighting::Ike { .. }
                | Sighting::NatTKeepalive
                | Sighting::NatTEsp(_)
                | Sighting::Esp(_)
                | Sighting::Ah(_),
            ) => Some(Self::Ipsec),
            Some(Sighting::PptpControl | Sighting::PptpGre { .. }) => Some(Self::Pptp),
            Some(Sighting::Gre { .. }) => Some(Self::Gre),
            Some(Sighting::L2tp { .. } | Sighting::L2tpIp { .. }) => Some(Self::L2tp),
            Some(Sighting::WireGuard(_)) => Some(Self::WireGuard),
            Some(Sighting::OpenVpn(_)) => Some(Self::OpenVpn),
            None => match seen.transport {
                Transport::Tcp(_) if seen.server_port == 1723 => Some(Self::Pptp),
                Transport::Udp if seen.fragment == Fragment::Later => Some(Self::Ipsec),
                Transport::Tcp(_) | Transport::Udp | Transport::Other(_) => None,
            },
        }
    }

    /// By the ports of a packet of which no more is known.
    const fn of_ports(protocol: u8, server_port: u16) -> Option<Self> {
        match (protocol, server_port) {
            (50 | 51, _) | (17, 500 | 4500) => Some(Self::Ipsec),
            (6, 1723) => Some(Self::Pptp),
            (17, 1701) | (115, _) => Some(Self::L2tp),
            _ => None,
        }
    }
}

/// Runs the same line for every tracker that there is.
macro_rules! each {
    ([$($pair:tt)+], $tracker:ident => $action:expr) => {
        if let Some($tracker) = $($pair)+.ipsec { $action }
        if let Some($tracker) = $($pair)+.pptp { $action }
        if let Some($tracker) = $($pair)+.l2tp { $action }
        if let Some($tracker) = $($pair)+.gre { $action }
        if let Some($tracker) = $($pair)+.wireguard { $action }
        if let Some($tracker) = $($pair)+.openvpn { $action }
    };
}

impl Pair {
    pub(crate) fn new(device: IpAddr, server: IpAddr, now: Timestamp) -> Self {
        Self {
            device,
            server,
            since: now,
            last_seen: now,
            heard: None,
            beside: Beside::default(),
            errors: Vec::new(),
            crossings: Vec::new(),
            ipsec: None,
            pptp: None,
            l2tp: None,
            gre: None,
            wireguard: None,
            openvpn: None,
            told: Vec::new(),
        }
    }

    /// Is this a packet that opens a pair? Others only count once there is one.
    pub(crate) fn begins(seen: &Observation<'_>) -> bool {
        Kind::of(seen).is_some() && (seen.fragment != Fragment::Later)
    }

    pub(crate) fn observe(&mut self, seen: &Observation<'_>) {
        self.last_seen = self.last_seen.max(seen.at());
        let known = || self.openvpn.as_ref().is_some_and(|openvpn| openvpn.owns(seen));
        let kind = Kind::of(seen).or_else(|| known().then_some(Kind::OpenVpn));
        let Some(kind) = kind else {
            let [outbound, inbound] = &mut self.beside.packets;
            if seen.is_outbound() {
                *outbound += 1;
            } else {
                *inbound += 1;
                self.beside.heard = Some(seen.mark);
            }
            return;
        };
        if !seen.is_outbound() {
            self.heard = Some(seen.mark);
        }
        match kind {
            Kind::Ipsec => self.ipsec.get_or_insert_default().observe(seen),
            Kind::Pptp => self.pptp.get_or_insert_default().observe(seen),
            Kind::L2tp => self.l2tp.get_or_insert_default().observe(seen),
            Kind::Gre => self.gre.get_or_insert_default().observe(seen),
            Kind::WireGuard => self.wireguard.get_or_insert_default().observe(seen),
            Kind::OpenVpn => self.openvpn.get_or_insert_default().observe(seen),
        }
    }

    pub(crate) fn error(&mut self, report: &IcmpReport) {
        if self.errors.len() >= ERRORS {
            self.errors.remove(0);
        }
        self.errors.push(*report);
        each!([&mut self], tracker => tracker.error(report));
    }

    pub(crate) fn passage(&mut self, trace: &Trace, passage: Passage) {
        self.cross(trace, passage);
        match Kind::of_ports(trace.protocol, trace.server_port) {
            Some(Kind::Ipsec) => {
                if let Some(tracker) = &mut self.ipsec {
                    tracker.passage(trace, passage);
                }
            }
            Some(Kind::Pptp) => {
                if let Some(tracker) = &mut self.pptp {
                    tracker.passage(trace, passage);
                }
            }
            Some(Kind::L2tp) => {
                if let Some(tracker) = &mut self.l2tp {
                    tracker.passage(trace, passage);
                }
            }
            Some(Kind::Gre | Kind::WireGuard | Kind::OpenVpn) | None => {
                each!([&mut self], tracker => tracker.passage(trace, passage));
            }
        }
    }

    /// An inbound fragment came to the WAN at `mark`, and the router could not put its datagram together.
    pub(crate) fn fragment_lost(&mut self, mark: Mark) {
        if let Some(tracker) = &mut self.ipsec {
            tracker.fragment_lost(mark);
        }
    }

    fn cross(&mut self, trace: &Trace, passage: Passage) {
        let protocol = (trace.protocol, trace.server_port);
        let known = self.crossings.iter().position(|crossing| crossing.protocol == protocol);
        let at = known.unwrap_or(self.crossings.len());
        if known.is_none() {
            if self.crossings.len() >= CROSSINGS {
                return;
            }
            self.crossings.push(Crossing { protocol, ..Crossing::default() });
        }
        let Some(crossing) = self.crossings.get_mut(at) else { return };
        // Of packets of one moment the later one may be told of first.
        let span = |known: Option<(Mark, Mark)>| {
            let (first, last) = known.unwrap_or((trace.mark, trace.mark));
            Some((first.min(trace.mark), last.max(trace.mark)))
        };
        match passage {
            Passage::Left { wan, port } => {
                crossing.left += 1;
                crossing.left_since = true;
                crossing.wan = Some((wan, port));
            }
            Passage::Swallowed => {
                crossing.swallowed += 1;
                crossing.left_since = false;
                crossing.swallowed_at = span(crossing.swallowed_at);
            }
            Passage::Delivered => crossing.delivered += 1,
            Passage::Undelivered => {
                crossing.undelivered += 1;
                crossing.undelivered_at = span(crossing.undelivered_at);
            }
        }
    }

    /// Findings of all trackers.
    pub(crate) fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        each!([&self], tracker => tracker.findings(context, findings));
    }

    /// Sessions of all trackers.
    pub fn sessions(&self, now: Timestamp) -> Vec<Session> {
        let mut sessions = Vec::new();
        each!([&self], tracker => tracker.sessions(now, &mut sessions));
        for session in &mut sessions {
            (session.device, session.server) = (self.device, self.server);
        }
        sessions
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use nat_core::flow::Direction;

    use super::*;

    #[test]
    fn what_was_swallowed_runs_from_the_earlier_to_the_later_packet_in_whatever_order_it_is_told() {
        let mut pair = Pair::new([192, 168, 1, 11].into(), [198, 51, 100, 10].into(), Timestamp::ZERO);
        // A message sent again within a moment takes the place of the first, and is told of before the 18th.
        for number in [33, 18] {
            let at = Timestamp::ZERO + Duration::from_millis(120);
            let trace = Trace {
                mark: Mark { at, number },
                direction: Direction::Outbound,
                device_port: 0,
                server_port: 0,
                protocol: 50,
                id: 7,
                payload_len: 40,
            };
            pair.passage(&trace, Passage::Swallowed);
        }
        let span = pair.crossings[0].swallowed_at.map(|(first, last)| (first.number, last.number));
        assert_eq!(span, Some((18, 33)));
    }
}
