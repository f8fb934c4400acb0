//! The NAT: packet in, decision out.
//!
//! The kernel stops a packet at one of five places, and there is one verb for each:
//!
//! | place | verb |
//! |---|---|
//! | from the WAN, before routing | [`Nat::inbound`] |
//! | to the WAN, after routing, from the LAN or from the router | [`Nat::outbound`] |
//! | from the LAN to the WAN address, before routing | [`Nat::hairpin_in`] |
//! | the same packet, after routing | [`Nat::hairpin_out`] |
//! | TCP for the router that no socket wants | [`Nat::unclaimed`] |
//!
//! A known flow is found by one hash look-up. Everything else is decided in [`open`](self), which is the only
//! place that creates state, and it does so last, when nothing can refuse the packet any more.

mod counters;
mod hairpin;
mod hold;
mod open;
mod quote;

use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::decision::{
    Admission, Decision, DropReason, Effect, Forward, HoldId, InterfaceAddress, Note, TcpProgress,
};
use crate::flow::{Direction, Endpoint, Protocol, Tuple};
use crate::notice::{self, TokenBucket};
use crate::packet::{Body, PacketView, TcpSegment};
use crate::policy::{MssClamp, Policy};
use crate::random::Secret;
use crate::rewrite::WordEdit;
use crate::session::{DeviceView, Kind, Session, SessionView};
use crate::slab::Index;
use crate::tables::Tables;
use crate::tcp::{self, Ignored, Phase};
use crate::time::{Tick, Timestamp};

pub use self::counters::{Counters, Traffic};
use self::hold::HeldSyn;
pub use self::open::{Handover, Listeners};

/// Who sent a packet that is on its way to the WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// A device on the LAN; the router forwards it.
    Lan,
    /// The router itself.
    Router,
}

/// Sizes of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Live sessions of TCP, UDP and ICMP.
    pub sessions: [u32; 3],
    /// The most sessions there have been.
    pub peak: u32,
    /// Live mappings.
    pub mappings: u32,
    /// Unsolicited SYNs held.
    pub held: u32,
}

/// The NAT's whole state.
#[derive(Debug)]
pub struct Nat {
    policy: Policy,
    wan: Option<Ipv4Addr>,
    lan: Vec<InterfaceAddress>,
    /// Largest MSS that both links carry, for `MssClamp::Auto`.
    link_mss: Option<u16>,
    /// An idle time after which conntrack may have forgotten a flow.
    patience: Duration,
    started: Timestamp,
    tables: Tables,
    held: BTreeMap<HoldId, HeldSyn>,
    next_hold: u64,
    /// Ports that sockets of the router listen on.
    listeners: Listeners,
    refusals: TokenBucket,
    next_forgetting: Timestamp,
    next_making_room: Timestamp,
    peak: u32,
    counters: Counters,
    effects: VecDeque<Effect>,
    /// Did the last packet of a known session fit its connection?
    heeded: bool,
}

/// Devices without sessions stay in the report this long.
const DEVICE_MEMORY: Duration = Duration::from_secs(3600);
/// Devices known at one time: bounds memory against forged source addresses.
const MAX_DEVICES: usize = 8192;
/// Effects waiting to be carried out; more are not made.
const MAX_EFFECTS: usize = 8192;
/// Longer than a packet waits in a queue.
const FIRST_BURST: Duration = Duration::from_millis(200);
/// A packet of our own is not fragmented on the way; RFC 791 has every link carry this much.
const FITS_ANY_LINK: u16 = 576;
/// RFC 6691: the MSS counts neither IPv4 nor TCP header.
const HEADERS: u16 = 40;

impl Nat {
    /// A NAT that knows nothing yet. `seed` is secret randomness, `now` the time of its start.
    pub fn new(policy: Policy, seed: [u8; 16], now: Timestamp) -> Self {
        Self {
            policy,
            wan: None,
            lan: Vec::new(),
            link_mss: None,
            patience: Duration::from_secs(20),
            started: now,
            tables: Tables::new(Secret::new(seed)),
            held: BTreeMap::new(),
            next_hold: 0,
            listeners: Listeners::default(),
            refusals: TokenBucket::new(20, Duration::from_millis(100)),
            next_forgetting: now + DEVICE_MEMORY,
            next_making_room: now,
            peak: 0,
            counters: Counters::default(),
            effects: VecDeque::new(),
            heeded: true,
        }
    }

    /// Tells the router's own addresses on the LAN side.
    pub fn set_lan(&mut self, addresses: Vec<InterfaceAddress>) {
        self.lan = addresses;
    }

    /// Tells the smaller of the links' MTUs, in bytes; for `MssClamp::Auto`.
    pub fn set_mtu(&mut self, smallest: Option<u16>) {
        self.link_mss = smallest.map(|mtu| mtu.saturating_sub(HEADERS).max(536)); // RFC 9293: 536 is always allowed
    }

    /// Tells which ports the router's own sockets listen on.
    pub fn set_listeners(&mut self, listeners: Listeners) {
        self.listeners = listeners;
    }

    /// Tells after how long without a packet conntrack may have forgotten a flow.
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// The WAN address now.
    pub fn address(&self) -> Option<Ipv4Addr> {
        self.wan
    }

    /// The policy now.
    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// Takes over the WAN's address. When it differs from the last known one, everything that used the old
    /// address ends, and devices with a TCP connection are told by a reset. Losing the address only stops
    /// translation: the same address may come back.
    pub fn set_address(&mut self, address: Option<Ipv4Addr>) {
        if let (Some(new), Some(old)) = (address, self.last_address()) {
            if new != old {
                self.end_everything();
            }
        }
        if address.is_some() && address != self.wan {
            self.drop_held();
        }
        self.wan = address;
    }

    /// The address that the live mappings use.
    fn last_address(&self) -> Option<Ipv4Addr> {
        self.wan.or_else(|| self.tables.mappings.iter_from(0).next().map(|(_, m)| m.external.addr))
    }

    fn end_everything(&mut self) {
        for (_, session) in self.tables.sessions.iter_from(0) {
            if session.protocol() != Protocol::Tcp || session.tcp.phase() > Phase::Established {
                continue;
            }
            if session.is_routers() || self.effects.len() >= MAX_EFFECTS {
                continue;
            }
            for (seq, ack) in session.tcp.resets_for_device().into_iter().flatten() {
                self.counters.note(Note::ResetSent);
                self.effects.push_back(Effect::Transmit(notice::reset(
                    &session.outbound().reverse(),
                    seq,
                    ack,
                )));
            }
        }
        let all: Vec<Index> = self.tables.mappings.iter_from(0).map(|(index, _)| index).collect();
        for mapping in all {
            self.tables.end_mapping(mapping);
        }
    }

    /// Takes over a new policy. Mappings that it does not allow any more end.
    pub fn set_policy(&mut self, policy: Policy) {
        let ends = |m: &crate::session::Mapping| match m.kind {
            Kind::Forwarded => {
                policy.forwarded(m.protocol, m.external.id.0).is_none_or(|internal| internal != m.internal)
            }
            Kind::Dynamic => policy.forwarded(m.protocol, m.external.id.0).is_some_and(|internal| {
                internal != m.internal && policy.has_forward(m.protocol, m.external.id.0)
            }),
            Kind::Router => policy.has_forward(m.protocol, m.external.id.0),
        };
        let over: Vec<Index> =
            self.tables.mappings.iter_from(0).filter(|(_, m)| ends(m)).map(|(index, _)| index).collect();
        for index in over {
            self.tables.end_mapping(index);
        }
        self.policy = policy;
    }

    /// What the daemon shall do next beside packets; call until `None`.
    pub fn poll_effect(&mut self) -> Option<Effect> {
        self.effects.pop_front()
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn poll_timeout(&self) -> Option<Timestamp> {
        let hold = self.held.values().map(|held| held.until).min();
        [self.tables.next_expiry(), hold].into_iter().flatten().min()
    }

    /// Ends what is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        while let Some(over) = self.tables.expired(now) {
            for index in over {
                self.tables.remove_session(index);
            }
        }
        self.release_held(now);
        if now >= self.next_forgetting {
            self.next_forgetting = now + DEVICE_MEMORY;
            let before = Timestamp::from_micros(
                now.as_micros().saturating_sub(u64::try_from(DEVICE_MEMORY.as_micros()).unwrap_or(0)),
            );
            self.tables.forget_devices(before);
        }
    }

    /// What has been counted.
    pub fn counters(&self) -> &Counters {
        &self.counters
    }

    /// Counts a drop that was decided outside, and answers it.
    pub fn refuse(&mut self, reason: DropReason) -> Decision {
        self.counters.drop(reason);
        Decision::Drop(reason)
    }

    /// Counts something that happened outside.
    pub fn note(&mut self, note: Note) {
        self.counters.note(note);
    }

    /// Counts a packet of a device's that was translated outside.
    pub fn carried(&mut self, now: Timestamp, direction: Direction, device: Ipv4Addr, len: u16) {
        match direction {
            Direction::Outbound => self.counters.outbound.add(len),
            Direction::Inbound => self.counters.inbound.add(len),
        }
        let index = match self.tables.device_at(device) {
            Some(index) => index,
            None if self.tables.devices.len() < MAX_DEVICES => self.tables.add_device(now, device, false),
            None => return,
        };
        self.tables.count_for_device(index, now, direction, len);
    }

    /// Has the daemon do something more; dropped when far too much waits already.
    pub fn push_effect(&mut self, effect: Effect) {
        if self.effects.len() < MAX_EFFECTS {
            self.effects.push_back(effect);
        }
    }

    /// A name for a packet that is held outside.
    pub fn new_hold(&mut self) -> HoldId {
        self.next_hold += 1;
        HoldId(self.next_hold - 1)
    }

    /// An idle time after which conntrack may have forgotten a flow.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// What the NAT knows of the flow that shows `tuple`: its direction, and the internal and external endpoint.
    pub fn flow(&self, tuple: &Tuple) -> Option<(Direction, Endpoint, Endpoint)> {
        let (index, direction) = self.tables.flow(tuple)?;
        let session = self.tables.sessions.at(index)?;
        Some((direction, session.internal(), session.external(self.tables.wan())))
    }

    /// Did the last packet that was translated have an effect on its session? A TCP segment outside the window, a
    /// reset that is not exact and a stray SYN are forwarded without one.
    pub fn was_heeded(&self) -> bool {
        self.heeded
    }

    /// Who has the external `port`, the internal endpoint behind it.
    pub fn holder(&self, protocol: Protocol, port: u16) -> Option<Endpoint> {
        let mapping = self.tables.mapping_of_external(protocol, Endpoint::new(self.wan?, port))?;
        self.tables.mappings.at(mapping).map(|mapping| mapping.internal)
    }

    /// Would `internal`, which has no mapping yet, keep its port outside?
    pub fn would_keep(&self, protocol: Protocol, internal: Endpoint) -> bool {
        let port = internal.id.0;
        self.tables.mapping_of_internal(protocol, internal).is_none()
            && !self.tables.is_taken(protocol, port)
            && !self.policy.has_forward(protocol, port)
            && !self.listeners.contain(protocol, port)
    }

    /// How full the tables are.
    pub fn sizes(&self) -> Sizes {
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Sizes {
            sessions: self.tables.per_protocol,
            peak: self.peak,
            mappings: count(self.tables.mappings.len()),
            held: count(self.held.len()),
        }
    }

    /// At most `limit` sessions from place `from` on, and the place to go on from; `None` at the end. Sessions
    /// that begin or end between two calls may or may not be among them.
    pub fn sessions(&self, from: u32, limit: usize) -> (Vec<SessionView>, Option<u32>) {
        let mut views = Vec::new();
        for (index, session) in self.tables.sessions.iter_from(from) {
            if views.len() == limit {
                return (views, Some(index));
            }
            views.push(self.view(index, session));
        }
        (views, None)
    }

    fn view(&self, index: Index, session: &Session) -> SessionView {
        let mut view = SessionView {
            protocol: session.protocol(),
            internal: session.internal(),
            external: session.external(self.tables.wan()),
            remote: session.remote(),
            origin: session.origin(),
            router: session.is_routers(),
            state: session.state(),
            created: session.last_seen.into(),
            last_seen: session.last_seen.into(),
            deadline: session.deadline.into(),
            packets: session.tallies.map(|tally| tally.counted().packets),
            bytes: session.tallies.map(|tally| tally.counted().bytes.into()),
        };
        if let Some(margin) = self.tables.margin(index) {
            view.created = margin.created;
            for (slot, carried) in view.packets.iter_mut().zip(margin.packets) {
                *slot = slot.saturating_add(carried);
            }
            for (slot, carried) in view.bytes.iter_mut().zip(margin.bytes) {
                *slot += carried;
            }
        }
        view
    }

    /// Every device heard of lately, by address.
    pub fn devices(&self) -> impl Iterator<Item = DeviceView> {
        self.tables.device_addresses().map(|d| DeviceView {
            addr: d.addr,
            router: d.router,
            sessions: d.sessions,
            refused: d.refused,
            packets: d.packets,
            bytes: d.bytes,
        })
    }

    /// A packet from the WAN. `local_socket`: a socket of the router, connected or bound to an address of its
    /// own, would take it as it is.
    pub fn inbound(&mut self, now: Timestamp, packet: &PacketView<'_>, local_socket: bool) -> Decision {
        if Some(packet.dst) != self.wan {
            // Broadcast, multicast and other addresses of the router are none of ours; those of the LAN are
            // for us alone to write.
            return if self.in_lan(packet.dst) {
                self.refuse(DropReason::InboundToLan)
            } else {
                self.pass(packet)
            };
        }
        if self.in_lan(packet.src) || packet.src == packet.dst {
            return self.refuse(DropReason::ForgedSource);
        }
        match packet.body {
            Body::IcmpError(ref error) => self.inbound_error(now, packet, error, local_socket),
            Body::Fragment => self.refuse(DropReason::Fragment),
            Body::Other(_) => self.pass(packet),
            Body::Tcp(_) | Body::Udp { .. } | Body::IcmpQuery { .. } => {
                let Some(tuple) = packet.tuple() else { return self.pass(packet) };
                self.inbound_flow(now, packet, &tuple, local_socket)
            }
        }
    }

    #[inline]
    fn inbound_flow(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        local: bool,
    ) -> Decision {
        match self.tables.flow(tuple) {
            Some((index, Direction::Inbound))
                if !local || self.is_routers(index) || self.router_sends_elsewhere(tuple) =>
            {
                self.known(now, index, Direction::Inbound, packet)
            }
            Some((_, Direction::Inbound | Direction::Outbound)) => self.pass(packet),
            None if local => self.pass(packet),
            None => self.open_inbound(now, packet, tuple),
        }
    }

    /// Does the router's own socket that fits an inbound `tuple` have its answers come to another port, since
    /// a device has this one?
    fn router_sends_elsewhere(&self, tuple: &Tuple) -> bool {
        let own = self.tables.flow(&tuple.reverse());
        own.is_some_and(|(index, direction)| direction == Direction::Outbound && self.is_routers(index))
    }

    fn is_routers(&self, session: Index) -> bool {
        self.tables.sessions.at(session).is_some_and(Session::is_routers)
    }

    /// A packet on its way to the WAN.
    pub fn outbound(&mut self, now: Timestamp, packet: &PacketView<'_>, origin: Origin) -> Decision {
        if self.in_lan(packet.dst) {
            // The LAN's own route is gone, and the default route leads here.
            return self.refuse(DropReason::Guarded);
        }
        // The router may well send from another of its addresses, even one of the LAN: that is translated.
        let own = origin == Origin::Router && !self.in_lan(packet.src);
        // An error may quote the LAN's view of a packet, whichever of its addresses the router sends it from.
        let error = matches!(packet.body, Body::IcmpError(_));
        let Some(wan) = self.wan else {
            return if own && !error { self.pass(packet) } else { self.refuse(DropReason::NoAddress) };
        };
        if own && !error && (packet.src != wan || packet.dst.is_multicast() || packet.dst.is_broadcast()) {
            return self.pass(packet);
        }
        match packet.body {
            Body::IcmpError(ref error) => self.outbound_error(packet, error, wan, origin),
            Body::Fragment => self.refuse(DropReason::Fragment),
            Body::Other(_) if own => self.pass(packet),
            Body::Other(_) => self.refuse(DropReason::UnsupportedProtocol),
            Body::Tcp(_) | Body::Udp { .. } | Body::IcmpQuery { .. } => {
                let Some(tuple) = packet.tuple() else { return self.pass(packet) };
                match self.tables.flow(&tuple) {
                    Some((index, Direction::Outbound)) => self.known(now, index, Direction::Outbound, packet),
                    Some((_, Direction::Inbound)) | None => self.open_outbound(now, packet, &tuple, wan, own),
                }
            }
        }
    }

    /// Is `addr` in one of the LAN's networks?
    pub fn in_lan(&self, addr: Ipv4Addr) -> bool {
        self.lan.iter().any(|lan| lan.contains(addr)) && Some(addr) != self.wan
    }

    fn pass(&mut self, packet: &PacketView<'_>) -> Decision {
        self.counters.passed.add(packet.total_len);
        Decision::Pass
    }

    /// A packet of a known flow.
    #[inline]
    fn known(
        &mut self,
        now: Timestamp,
        index: Index,
        direction: Direction,
        packet: &PacketView<'_>,
    ) -> Decision {
        let admission = match self.account(now, index, direction, packet) {
            Ok(admission) => admission,
            Err(reason) => return self.refuse(reason),
        };
        let Some(session) = self.tables.sessions.at(index) else { return self.refuse(DropReason::Internal) };
        let wan = self.tables.wan();
        let (from, to) = (session.shown(direction, wan), session.translated(direction, wan));
        let resend = direction == Direction::Outbound && self.is_in_first_burst(now, index, session, packet);
        let edit = self.clamp(packet);
        let traffic = match direction {
            Direction::Outbound => &mut self.counters.outbound,
            Direction::Inbound => &mut self.counters.inbound,
        };
        if from == to && edit.is_none() {
            return self.pass(packet); // the router's own, on its own port
        }
        traffic.add(packet.total_len);
        Decision::Forward(
            Forward { admission, resend, ..Forward::between(packet, &from, &to) }.with_edits(edit),
        )
    }

    /// Takes a packet into its session's state: connection, times, counts. Answers what conntrack must know.
    #[inline]
    fn account(
        &mut self,
        now: Timestamp,
        index: Index,
        direction: Direction,
        packet: &PacketView<'_>,
    ) -> Result<Option<Admission>, DropReason> {
        let Some((session, margin)) = self.tables.session_mut(index) else {
            return Err(DropReason::Internal);
        };
        let mut progress = true;
        // Conntrack forgets a connection soon after a RST; we do not (RFC 7857 section 2.2).
        let mut ends_entry = false;
        if let Body::Tcp(segment) = &packet.body {
            ends_entry = segment.flags.rst;
            let repeated = ends_entry && session.tcp.phase() == Phase::Reset;
            match session.tcp.observe(direction, segment, &mut margin.stray) {
                tcp::Effect::Progress => progress = !repeated, // RFC 7857 section 7: a RST refreshes nothing
                tcp::Effect::None(ignored) => {
                    progress = false;
                    self.counters.note(match ignored {
                        Ignored::OutOfWindow => Note::OutOfWindow,
                        Ignored::InexactReset => Note::InexactReset,
                        Ignored::StraySyn => Note::StraySyn,
                    });
                }
                tcp::Effect::BogusReset => return Err(DropReason::BogusReset),
            }
        }
        self.heeded = progress;
        let device = session.device.index();
        let idle = now.since(session.last_seen.into());
        let slot = usize::from(direction == Direction::Inbound);
        if let Some(carry) = session.tallies.get_mut(slot).and_then(|tally| tally.add(packet.total_len)) {
            margin.carry(slot, carry);
        }
        session.last_seen = Tick::before(now);
        let admission = match direction {
            Direction::Outbound => {
                session.set_kernel_known(!ends_entry); // the firewall lets the LAN out, and conntrack enters it
                None
            }
            Direction::Inbound => {
                session.set_answered(progress);
                let stale = !session.is_kernel_known() || idle > self.patience;
                session.set_kernel_known(!ends_entry);
                stale.then(|| admission_of(session, &self.policy, &packet.body))
            }
        };
        let first_word = direction == Direction::Outbound && progress && !session.is_spoken();
        let refreshes =
            direction == Direction::Outbound || (self.policy.inbound_refresh && session.is_spoken());
        if progress && refreshes {
            let deadline = Tick::after(now + idle_time(session, &self.policy));
            if session.deadline != deadline {
                self.tables.postpone(index, deadline);
            }
        }
        if first_word {
            self.tables.speak(index);
        }
        self.tables.count_for_device(device, now, direction, packet.total_len);
        if admission.is_some() {
            self.counters.note(Note::Admitted);
        }
        Ok(admission)
    }

    /// Does this ICMP query follow so close on its session's first that conntrack had not entered that one yet?
    ///
    /// Conntrack enters a flow when its first packet has left, and a queued packet leaves late. Those that arrive
    /// in between each get an entry of their own; when they leave, conntrack sees that theirs came second and drops
    /// them. It resolves this for UDP, and TCP waits for its SYN's answer, but a traceroute by ICMP sends a dozen
    /// queries at once.
    fn is_in_first_burst(
        &self,
        now: Timestamp,
        index: Index,
        session: &Session,
        packet: &PacketView<'_>,
    ) -> bool {
        let [sent, _] = session.tallies;
        session.protocol() == Protocol::Icmp
            && packet.total_len <= FITS_ANY_LINK
            && self.tables.margin(index).is_some_and(|margin| {
                let [carried, _] = margin.packets;
                carried + sent.counted().packets > 1 && now.since(margin.created) < FIRST_BURST
            })
    }

    /// RFC 6691: lowers the MSS option of a SYN to what the links carry.
    #[inline]
    fn clamp(&self, packet: &PacketView<'_>) -> Option<WordEdit> {
        let Body::Tcp(TcpSegment { mss: Some((old, offset)), .. }) = packet.body else { return None };
        let most = match self.policy.mss_clamp {
            MssClamp::Auto => self.link_mss?,
            MssClamp::To(most) => most,
            MssClamp::Off => return None,
        };
        (old > most).then_some(WordEdit { offset, old, new: most })
    }

    /// Drops a packet that would have begun a session, and tells its sender (RFC 5508 REQ-8).
    fn refuse_session(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) -> Decision {
        if let Some(device) = self.tables.device_at(packet.src).and_then(|d| self.tables.devices.at_mut(d)) {
            device.refused += 1;
        }
        self.turn_away(now, packet, reason)
    }

    /// Drops a packet and tells its sender: by a reset what would have opened a TCP connection, else by ICMP.
    pub fn turn_away(&mut self, now: Timestamp, packet: &PacketView<'_>, reason: DropReason) -> Decision {
        let router = self.lan.iter().find(|lan| lan.contains(packet.src)).map(|lan| lan.addr).or(self.wan);
        let answer = match (packet.body, packet.tuple(), router) {
            (Body::Tcp(segment), Some(tuple), _)
                if segment.flags.syn && reason_is_final(reason) && !segment.flags.ack =>
            {
                Some(notice::reset(&tuple.reverse(), 0, segment.seq.wrapping_add(1)))
            }
            (_, _, Some(router)) => Some(notice::prohibited(router, packet)),
            (_, _, None) => None,
        };
        if let Some(answer) = answer {
            if self.effects.len() < MAX_EFFECTS && self.refusals.take(now) {
                self.counters.note(Note::RefusalSent);
                self.effects.push_back(Effect::Transmit(answer));
            }
        }
        self.refuse(reason)
    }
}

/// Would the same packet be refused again? A full table may have room soon, and a reset ends a client's tries.
fn reason_is_final(reason: DropReason) -> bool {
    matches!(
        reason,
        DropReason::IpsecOff
            | DropReason::PptpOff
            | DropReason::L2tpOff
            | DropReason::VpnNotAllowed
            | DropReason::VpnSecondDevice
    )
}

/// How long `session` lives from its last packet on.
#[inline]
fn idle_time(session: &Session, policy: &Policy) -> Duration {
    let timeouts = &policy.timeouts;
    match session.protocol() {
        Protocol::Tcp => match session.tcp.phase() {
            Phase::Opening | Phase::Closing => timeouts.tcp_transitory,
            Phase::Established => timeouts.tcp_established,
            Phase::Reset => timeouts.tcp_reset,
        },
        Protocol::Udp => timeouts.udp,
        Protocol::Icmp => timeouts.icmp,
    }
}

/// The conntrack entry that lets an inbound packet of `session` through a stateful firewall.
fn admission_of(session: &Session, policy: &Policy, body: &Body<'_>) -> Admission {
    let original = match session.origin() {
        Direction::Outbound => session.outbound(),
        Direction::Inbound => session.outbound().reverse(),
    };
    let tcp = match body {
        Body::Tcp(segment) if segment.flags.syn && !segment.flags.ack => Some(TcpProgress::Opening),
        Body::Tcp(_) => Some(TcpProgress::Established),
        Body::IcmpError(_) if original.protocol == Protocol::Tcp => Some(TcpProgress::Established),
        Body::Udp { .. } | Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => {
            None
        }
    };
    Admission { original: original.into(), tcp, timeout: idle_time(session, policy) }
}
