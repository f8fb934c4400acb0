//! New sessions: who may begin one, and on which mapping.

use alloc::collections::BTreeSet;
use core::net::Ipv4Addr;
use core::time::Duration;

use super::{
    Body, Decision, Direction, DropReason, MAX_DEVICES, Nat, Note, PacketView, TcpSegment, Timestamp, Tuple,
    idle_time,
};
use crate::decision::{KernelFlow, KernelTuple, TcpProgress};
use crate::flow::{Endpoint, Protocol};
use crate::packet::QueryRole;
use crate::policy::Filtering;
use crate::session::Kind;
use crate::slab::Index;
use crate::tables::NewSession;
use crate::tcp::Connection;
use crate::time::Tick;

/// Which part of a device's sessions may be ones that strangers began and it has not answered: one in four.
const STRANGERS_SHARE: u32 = 4;

/// Ports on which sockets of the router wait for anyone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listeners {
    /// TCP.
    pub tcp: BTreeSet<u16>,
    /// UDP.
    pub udp: BTreeSet<u16>,
}

impl Listeners {
    pub(super) fn contain(&self, protocol: Protocol, port: u16) -> bool {
        match protocol {
            Protocol::Tcp => self.tcp.contains(&port),
            Protocol::Udp => self.udp.contains(&port),
            Protocol::Icmp => false,
        }
    }
}

/// What becomes of a flow that the kernel translated or tracked before natd started.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Handover {
    /// It is ours now; conntrack's entry fits already.
    Adopted,
    /// It is ours now; conntrack's entry must go, since it still translates.
    AdoptedFromKernel,
    /// It cannot be kept, and its entry must go, or it would leak or bypass us.
    Ended,
    /// It is none of ours.
    Foreign,
}

/// Where an inbound packet for an external endpoint goes.
enum Claim {
    /// A device's mapping, in force already or to be made.
    Mapping(Index),
    New(Endpoint),
    /// The router keeps it.
    Router,
    /// Nobody may have it.
    Refused,
}

impl Nat {
    /// The first packet of a session, from the inside. `own`: by the router itself.
    pub(super) fn open_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        wan: Ipv4Addr,
        own: bool,
    ) -> Decision {
        if own && self.is_answer_of_router(packet, tuple) {
            return self.pass(packet);
        }
        match self.begin_outbound(now, packet, tuple, wan, own) {
            Ok(session) => self.known(now, session, Direction::Outbound, packet),
            // The router may go on without a record as long as nobody else has its port.
            Err(_) if own && self.tables.mapping_of_external(tuple.protocol, tuple.src).is_none() => {
                self.pass(packet)
            }
            Err(reason @ (DropReason::TableFull | DropReason::DeviceQuota | DropReason::NoPort)) => {
                self.refuse_session(now, packet, reason)
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// Does the router answer a stranger here? Its services need no translation, and their strangers must not
    /// fill the table.
    fn is_answer_of_router(&self, packet: &PacketView<'_>, tuple: &Tuple) -> bool {
        match packet.body {
            Body::Tcp(TcpSegment { flags, .. }) => !flags.syn || flags.ack,
            Body::IcmpQuery { role, .. } => role == QueryRole::Reply,
            Body::Udp { .. } => {
                self.listeners.contain(Protocol::Udp, tuple.src.id.0)
                    && self.tables.mapping_of_external(Protocol::Udp, tuple.src).is_none()
            }
            Body::IcmpError(_) | Body::Fragment | Body::Other(_) => true,
        }
    }

    /// Enters a session that `packet` begins from the inside.
    pub(super) fn begin_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        wan: Ipv4Addr,
        own: bool,
    ) -> Result<Index, DropReason> {
        match packet.body {
            // RFC 7857 section 2: no state from a RST; a SYN's answer without its SYN is nobody's.
            Body::Tcp(TcpSegment { flags, .. }) if flags.rst || (flags.syn && flags.ack) => {
                return Err(DropReason::NoSession);
            }
            Body::IcmpQuery { role: QueryRole::Reply, .. } => return Err(DropReason::NoSession),
            Body::Tcp(_) | Body::Udp { .. } | Body::IcmpQuery { .. } => {}
            Body::IcmpError(_) | Body::Fragment | Body::Other(_) => {
                return Err(DropReason::UnsupportedProtocol);
            }
        }
        let device = self.room_for(now, tuple.src.addr, own)?;
        let mapping = match self.tables.mapping_of_internal(tuple.protocol, tuple.src) {
            Some(mapping) => mapping,
            None => self.map(tuple.protocol, tuple.src, wan, device, own)?,
        };
        let external = self.tables.mappings.at(mapping).ok_or(DropReason::Internal)?.external;
        let inbound = Tuple { protocol: tuple.protocol, src: tuple.dst, dst: external };
        if self.tables.flow(&inbound).is_some() {
            if self.tables.mappings.at(mapping).is_some_and(|m| m.count == 0) {
                self.tables.remove_mapping(mapping);
            }
            return Err(DropReason::Conflict);
        }
        if let Body::Tcp(TcpSegment { flags, .. }) = packet.body {
            if flags.syn {
                self.meet_held(&inbound);
            }
        }
        let new = NewSession {
            outbound: *tuple,
            external,
            origin: Direction::Outbound,
            mapping,
            kernel_known: true,
        };
        self.enter(now, &new)
    }

    /// The external endpoint for a new internal one: the forward's that leads to it, else the same port, else
    /// another.
    fn map(
        &mut self,
        protocol: Protocol,
        internal: Endpoint,
        wan: Ipv4Addr,
        device: Index,
        own: bool,
    ) -> Result<Index, DropReason> {
        let forward = self.policy.forward_of(protocol, internal).filter(|_| !own);
        if let Some(port) = forward {
            let external = Endpoint::new(wan, port);
            if self.tables.mapping_of_external(protocol, external).is_none() {
                return Ok(self.tables.add_mapping(protocol, Kind::Forwarded, internal, external, device));
            }
        }
        let Self { tables, policy, listeners, .. } = self;
        let (ports, secret) = tables.ports(protocol);
        let usable =
            |port| !policy.has_forward(protocol, port) && (own || !listeners.contain(protocol, port));
        // A query id has neither class nor parity.
        let is_port = protocol != Protocol::Icmp;
        let wanted = internal.id.0;
        let port = if own && !ports.is_taken(wanted) && usable(wanted) {
            Some(wanted) // the router keeps its port even outside the range for devices
        } else if is_port {
            ports.choose(wanted, policy.ports, true, secret, usable)
        } else {
            ports.choose_any(wanted, secret)
        };
        let external = Endpoint::new(wan, port.ok_or(DropReason::NoPort)?);
        let kind = if own { Kind::Router } else { Kind::Dynamic };
        log::debug!("mapping begins: {protocol} {internal} → {external}");
        Ok(self.tables.add_mapping(protocol, kind, internal, external, device))
    }

    /// Is there room for one more session of the device at `addr`? Answers the device.
    fn room_for(&mut self, now: Timestamp, addr: Ipv4Addr, router: bool) -> Result<Index, DropReason> {
        let limits = self.policy.limits;
        if self.tables.sessions.len() >= limits.sessions as usize {
            return Err(DropReason::TableFull);
        }
        if let Some(index) = self.tables.device_at(addr) {
            let used = self.tables.devices.at(index).map_or(0, |device| device.sessions);
            return if used >= limits.sessions_per_device { Err(DropReason::DeviceQuota) } else { Ok(index) };
        }
        if self.tables.devices.len() >= MAX_DEVICES {
            // Once a second: a flood of forged addresses must not cost a walk over all devices each.
            if now >= self.next_making_room {
                self.next_making_room = now + Duration::from_secs(1);
                self.tables.forget_devices(now);
            }
            if self.tables.devices.len() >= MAX_DEVICES {
                return Err(DropReason::DeviceQuota);
            }
        }
        Ok(self.tables.add_device(now, addr, router))
    }

    fn enter(&mut self, now: Timestamp, new: &NewSession) -> Result<Index, DropReason> {
        let index = self.tables.add_session(now, Tick::after(now), new).ok_or(DropReason::Internal)?;
        if let Some(session) = self.tables.sessions.at(index) {
            let deadline = Tick::after(now + idle_time(session, &self.policy));
            self.tables.postpone(index, deadline);
        }
        self.peak = self.peak.max(self.tables.per_protocol.iter().sum());
        log::debug!(
            "session begins: {} {} → {} ⇒ {}",
            new.outbound.protocol,
            new.outbound.src,
            new.external,
            new.outbound.dst
        );
        Ok(index)
    }

    /// A packet from the WAN that belongs to no session.
    pub(super) fn open_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
    ) -> Decision {
        let claim = self.claim(tuple);
        if matches!(claim, Claim::Router) {
            return self.pass(packet);
        }
        match self.begin_inbound(now, packet, tuple, &claim) {
            Ok(session) => self.known(now, session, Direction::Inbound, packet),
            Err(reason @ (DropReason::TableFull | DropReason::DeviceQuota)) => {
                self.refuse_session(now, packet, reason)
            }
            Err(reason) => self.refuse(reason),
        }
    }

    /// Who gets a packet for `tuple.dst` from `tuple.src`?
    fn claim(&self, tuple: &Tuple) -> Claim {
        let (protocol, port) = (tuple.protocol, tuple.dst.id.0);
        if let Some(index) = self.tables.mapping_of_external(protocol, tuple.dst) {
            let Some(mapping) = self.tables.mappings.at(index) else { return Claim::Refused };
            let accepted = match mapping.kind {
                Kind::Router => return Claim::Router,
                Kind::Forwarded => true,
                Kind::Dynamic if self.is_open_to_all(protocol, mapping.external, mapping.internal) => true,
                Kind::Dynamic if protocol == Protocol::Icmp => false,
                Kind::Dynamic => match self.policy.filtering {
                    Filtering::EndpointIndependent => true,
                    Filtering::AddressDependent => self.tables.has_sent_to(index, tuple.src.addr),
                    Filtering::AddressAndPortDependent => false,
                },
            };
            return match accepted {
                true => Claim::Mapping(index),
                // A stranger who does not mean the device may mean a service of the router.
                false if self.listeners.contain(protocol, port) => Claim::Router,
                false => Claim::Refused,
            };
        }
        let explicit = self.policy.has_forward(protocol, port);
        match self.policy.forwarded(protocol, port) {
            Some(internal) if explicit || !self.listeners.contain(protocol, port) => Claim::New(internal),
            Some(_) | None => Claim::Router,
        }
    }

    /// Does the owner want packets for `external` to reach `internal`, by a forward or as the exposed host? A
    /// mapping may be older than that wish, or be made by the exposed host itself.
    fn is_open_to_all(&self, protocol: Protocol, external: Endpoint, internal: Endpoint) -> bool {
        let port = external.id.0;
        self.policy.forwarded(protocol, port) == Some(internal)
            && (self.policy.has_forward(protocol, port) || !self.listeners.contain(protocol, port))
    }

    fn begin_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        claim: &Claim,
    ) -> Result<Index, DropReason> {
        if let Body::Tcp(TcpSegment { flags, .. }) = packet.body {
            if flags.rst || (flags.syn && flags.ack) {
                return Err(DropReason::NoSession);
            }
        }
        let internal = match *claim {
            Claim::Mapping(index) => self.tables.mappings.at(index).ok_or(DropReason::Internal)?.internal,
            Claim::New(internal) => internal,
            Claim::Router | Claim::Refused => return Err(DropReason::Filtered),
        };
        let outbound = Tuple { protocol: tuple.protocol, src: internal, dst: tuple.src };
        if self.tables.flow(&outbound).is_some() {
            return Err(DropReason::Conflict);
        }
        let device = self.room_for(now, internal.addr, false)?;
        // Strangers must not use up what the device needs for itself.
        let most = self.policy.limits.sessions_per_device / STRANGERS_SHARE;
        if self.tables.devices.at(device).is_some_and(|device| device.unanswered >= most) {
            return Err(DropReason::DeviceQuota);
        }
        let mapping = match *claim {
            Claim::Mapping(index) => index,
            Claim::New(_) | Claim::Router | Claim::Refused => {
                self.tables.add_mapping(tuple.protocol, Kind::Forwarded, internal, tuple.dst, device)
            }
        };
        let new = NewSession {
            outbound,
            external: tuple.dst,
            origin: Direction::Inbound,
            mapping,
            kernel_known: false,
        };
        self.enter(now, &new)
    }

    /// The session over which `tuple`, as it would come from the WAN, reaches a device, begun now if need be;
    /// `Ok(None)` when the router keeps the packet.
    pub(super) fn reach(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
    ) -> Result<Option<Index>, DropReason> {
        if let Some((index, Direction::Inbound)) = self.tables.flow(tuple) {
            return Ok(Some(index));
        }
        let claim = self.claim(tuple);
        if matches!(claim, Claim::Router) {
            return Ok(None);
        }
        self.begin_inbound(now, packet, tuple, &claim).map(Some)
    }

    /// Is a packet from the LAN that shows `tuple` for a device, rather than for a service of the router?
    pub(super) fn is_devices(&self, tuple: &Tuple) -> bool {
        let known = match self.tables.flow(tuple) {
            Some((index, Direction::Outbound)) => self.tables.sessions.at(index),
            Some((_, Direction::Inbound)) | None => None,
        };
        // The device will see the WAN address; whoever may begin a session there is told by that alone.
        let seen = match known {
            Some(session) => session.translated(Direction::Outbound, self.tables.wan()),
            None => Tuple { src: Endpoint::new(tuple.dst.addr, 0), ..*tuple },
        };
        let goes_on = matches!(self.tables.flow(&seen), Some((_, Direction::Inbound)));
        goes_on || !matches!(self.claim(&seen), Claim::Router)
    }

    /// Takes over a flow that the kernel knows: after a crash of natd (conntrack has the LAN's view, and the
    /// port was preserved, or the connection is lost) or from a kernel NAT that served before.
    pub fn adopt(&mut self, now: Timestamp, flow: &KernelFlow) -> Handover {
        let Some(wan) = self.wan else { return Handover::Foreign };
        if !self.is_ours(flow) {
            return Handover::Foreign;
        }
        let lost = if flow.snat { Handover::Ended } else { Handover::Foreign };
        let Some(original) = flow.original.tuple() else { return lost };
        let Tuple { protocol, src: internal, dst: remote } = original;
        if !self.in_lan(internal.addr) {
            return lost;
        }
        let known = match protocol {
            Protocol::Tcp => flow.tcp == Some(TcpProgress::Established),
            Protocol::Udp => true,
            Protocol::Icmp => false,
        };
        let external = if flow.snat { flow.reply.dst } else { Endpoint::new(wan, internal.id.0) };
        let inbound = Tuple { protocol, src: remote, dst: external };
        let free = self.tables.flow(&original).is_none() && self.tables.flow(&inbound).is_none();
        if !known || !free || self.policy.has_forward(protocol, external.id.0) {
            return lost;
        }
        let Ok(device) = self.room_for(now, internal.addr, false) else { return lost };
        let by_internal = self.tables.mapping_of_internal(protocol, internal);
        let mapping = match (by_internal, self.tables.mapping_of_external(protocol, external)) {
            (Some(internal), Some(external)) if internal == external => internal,
            (None, None) => self.tables.add_mapping(protocol, Kind::Dynamic, internal, external, device),
            (Some(_), _) | (_, Some(_)) => return lost,
        };
        let kernel_known = !flow.snat;
        let new =
            NewSession { outbound: original, external, origin: Direction::Outbound, mapping, kernel_known };
        let Ok(index) = self.enter(now, &new) else { return lost };
        self.tables.speak(index);
        if let Some(session) = self.tables.sessions.at_mut(index) {
            session.set_answered(flow.replied);
            session.tcp = Connection::adopted();
            let deadline = Tick::after(now + idle_time(session, &self.policy));
            self.tables.postpone(index, deadline);
        }
        self.counters.note(Note::Adopted);
        if flow.snat { Handover::AdoptedFromKernel } else { Handover::Adopted }
    }

    /// Conntrack's entry for the flow that began as `original` is gone: the next inbound packet wants another.
    pub fn kernel_forgot(&mut self, original: &KernelTuple) {
        let Some(original) = &original.tuple() else { return };
        let found = self.tables.flow(original).or_else(|| self.tables.flow(&original.reverse()));
        if let Some(session) = found.and_then(|(index, _)| self.tables.sessions.at_mut(index)) {
            session.set_kernel_known(false);
        }
    }

    /// Is this a flow between the LAN and the WAN that natd translates, or would, if the kernel did not?
    pub fn is_ours(&self, flow: &KernelFlow) -> bool {
        let (src, dst) = (flow.original.src.addr, flow.original.dst.addr);
        let crosses = self.in_lan(src) != self.in_lan(dst) && Some(src) != self.wan && Some(dst) != self.wan;
        let to_router = self.lan.iter().any(|lan| lan.addr == src || lan.addr == dst);
        crosses && !to_router && !flow.dnat && (!flow.snat || Some(flow.reply.dst.addr) == self.wan)
    }
}
