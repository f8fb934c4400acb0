//! Tunnels of L2TP over UDP: which device's a datagram is, and which identifiers in it change.
//!
//! Nothing that comes from outside makes a tunnel here. A datagram that is not understood, or for which there is
//! no room, is the NAT's alone and goes unchanged.

use alloc::vec::Vec;
use core::mem::discriminant;
use core::net::Ipv4Addr;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;

use super::message::{self, Assigned, Body, Control, Id, Kind, Message, PORT, Version};
use super::servers::{Evidence, Servers};
use super::tunnel::{CLOSING, Tunnel, TunnelHandle, TunnelView};
use crate::sorted::{SortedMap, SortedSet};

/// One byte to change in a datagram. The caller adjusts the UDP checksum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edit {
    /// Offset from the start of the UDP payload.
    pub offset: u16,
    /// What stands there.
    pub old: u8,
    /// What shall stand there.
    pub new: u8,
}

/// What to do with a datagram from a device, besides what the NAT does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[must_use]
pub struct Outbound {
    /// Bytes to change.
    pub edits: Vec<Edit>,
    /// The external port to send from instead of the NAT's own: 1701, shared with another device.
    pub source_port: Option<u16>,
    /// Whose packet it is; `None`: no tunnel's.
    pub tunnel: Option<TunnelHandle>,
}

/// What to do with a datagram from the WAN.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub enum Inbound {
    /// The mapping of the port that it came to decides where it goes.
    ToNat {
        /// Bytes to change.
        edits: Vec<Edit>,
        /// Whose packet it is; `None`: no known tunnel's.
        tunnel: Option<TunnelHandle>,
    },
    /// It goes to `device`, whatever port it came to.
    To {
        /// The device's own endpoint.
        device: Endpoint,
        /// Bytes to change.
        edits: Vec<Edit>,
        /// Whose packet it is.
        tunnel: TunnelHandle,
    },
    /// It goes nowhere.
    Drop(DropReason),
}

impl Inbound {
    const UNCHANGED: Self = Self::ToNat { edits: Vec::new(), tunnel: None };
}

/// Why a datagram was dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DropReason {
    /// Several devices have that identifier towards that server, and the port is not one device's own.
    Ambiguous,
    /// Devices share port 1701 towards that server, and none has that identifier.
    UnknownTunnel,
}

impl DropReason {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Ambiguous => "l2tp-ambiguous",
            Self::UnknownTunnel => "l2tp-unknown-tunnel",
        }
    }
}

/// Unanswered SCCRQs after which a server is taken to answer to port 1701 alone.
const PATIENCE: u32 = 3;
const MAX_TUNNELS: usize = 1024;
const MAX_PER_DEVICE: usize = 128;
/// Also what the choice of a free Tunnel ID may cost.
const MAX_PER_REMOTE: usize = 256;
/// Identifiers of one tunnel: sessions of version 3, those learned of a tunnel older than natd.
const MAX_IDS: usize = 64;

/// The tunnels of all devices.
#[derive(Debug, Default)]
pub struct L2tp {
    tunnels: SortedMap<u32, Tunnel>,
    next: u32,
    /// Who is addressed by an identifier. In version 2 at most one.
    ids: SortedSet<(Ipv4Addr, Id, u32)>,
    parties: SortedSet<(Ipv4Addr, Endpoint, u32)>,
    servers: Servers,
    next_id: u16,
    /// No deadline is earlier.
    wake: Option<Timestamp>,
    untracked: u64,
}

impl L2tp {
    /// Nothing known yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Has any device a tunnel with `remote`? Then every UDP datagram to and from it must be shown to
    /// [`Self::outbound`] and [`Self::inbound`], since it may use ports other than 1701; else those with a port
    /// 1701 only.
    pub fn concerns(&self, remote: Ipv4Addr) -> bool {
        self.party(remote).next().is_some()
    }

    /// Has another device than `device` a tunnel with `remote`?
    pub fn taken_by_other(&self, device: Ipv4Addr, remote: Ipv4Addr) -> bool {
        self.party(remote).any(|(_, tunnel)| tunnel.device.addr != device && !tunnel.pulse.closed)
    }

    /// A datagram of a device to `remote`. `external` is the port that the NAT gives the device's endpoint.
    /// `payload` is what follows the UDP header.
    pub fn outbound(
        &mut self,
        now: Timestamp,
        device: Endpoint,
        remote: Endpoint,
        external: u16,
        payload: &[u8],
    ) -> Outbound {
        let ports = device.id.0 == PORT || remote.id.0 == PORT;
        if !ports && self.between(device, remote.addr).next().is_none() {
            return Outbound::default();
        }
        let Some(message) = message::parse(payload) else { return Outbound::default() };
        let Some(number) = self.tunnel_outbound(now, device, remote, external, &message) else {
            return Outbound::default();
        };
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return Outbound::default() };
        (tunnel.external, tunnel.remote) = (external, remote);
        tunnel.usage.count(now, Direction::Outbound, payload.len());
        let mut edits = Vec::new();
        let mut own_ids = [None; 2];
        match message.body {
            // The device knows nothing of an end that only the other side spoke of.
            Body::Data => tunnel.pulse.closed = false,
            Body::Ack => {}
            Body::Control(control) => {
                tunnel.pulse.closed = false;
                if let (Assigned::Clear { id, at }, Some(own), Some(outside)) =
                    (control.assigned_tunnel, tunnel.own, tunnel.outside)
                {
                    if message.to.version() == Version::V2 && u32::from(id) == own && !control.digest {
                        edits = edits_between(at, id, outside);
                    }
                }
                own_ids =
                    [control.assigned_connection.map(Id::Connection), control.local_session.map(Id::Session)];
            }
        }
        tunnel.heard(now, &message);
        tunnel.refresh(now);
        let (shared, deadline) = (tunnel.shared, tunnel.deadline);
        self.wake_by(deadline);
        for id in own_ids.into_iter().flatten() {
            self.learn(number, id);
        }
        Outbound { edits, source_port: shared.then_some(PORT), tunnel: Some(TunnelHandle(number)) }
    }

    /// A datagram from `remote` to port `external` of the WAN address. `payload` is what follows the UDP header.
    pub fn inbound(&mut self, now: Timestamp, remote: Endpoint, external: u16, payload: &[u8]) -> Inbound {
        // Of a server's other traffic with other ports of ours nothing is to be mistaken for L2TP.
        let ports = remote.id.0 == PORT || external == PORT;
        if !ports && !self.party(remote.addr).any(|(_, tunnel)| tunnel.wan_port() == external) {
            return Inbound::UNCHANGED;
        }
        let Some(message) = message::parse(payload) else { return Inbound::UNCHANGED };
        if message.to.number() == 0 {
            return Inbound::UNCHANGED; // a call from outside: a server's on the LAN, if there is one
        }
        let number = match self.addressed(remote.addr, external, message.to) {
            Ok(Some(number)) => number,
            Ok(None) => return Inbound::UNCHANGED,
            Err(reason) => return Inbound::Drop(reason),
        };
        if self.holders(remote.addr, message.to).next().is_none() {
            self.learn(number, message.to);
        }
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return Inbound::UNCHANGED };
        tunnel.usage.count(now, Direction::Inbound, payload.len());
        tunnel.pulse.answered = true;
        tunnel.sends = 0;
        tunnel.heard(now, &message);
        tunnel.refresh(now);
        if let (Id::Connection(id), Version::V2) = (message.to, tunnel.version) {
            // RFC 3931 section 4.7.3: the request was one that both versions understand.
            (tunnel.version, tunnel.own, tunnel.outside) = (Version::V3, Some(id), Some(id));
        }
        let edits = match (message.to, tunnel.own, tunnel.outside) {
            (Id::Tunnel(id), Some(own), Some(outside)) if u32::from(id) == outside => {
                edits_between(message.to_at, id, own)
            }
            _ => Vec::new(),
        };
        let own_port = external == tunnel.external && !tunnel.shared;
        let astray = external == PORT && !own_port && !tunnel.shared;
        let ordinary = own_port && remote.id == tunnel.remote.id;
        let (device, deadline) = (tunnel.device, tunnel.deadline);
        if let Body::Control(control) = message.body {
            if let (Kind::StartReply, Some(peer)) = (control.kind, sender_of(message.to, &control)) {
                tunnel.peer = Some(peer);
            }
            if let Some(id) = control.remote_session {
                self.learn(number, Id::Session(id));
            }
        }
        self.wake_by(deadline);
        if astray {
            self.remember(now, remote.addr, Evidence::Seen);
        } else if own_port && external != PORT {
            self.servers.forget_silence(remote.addr);
        }
        let tunnel = TunnelHandle(number);
        if ordinary {
            Inbound::ToNat { edits, tunnel: Some(tunnel) }
        } else {
            Inbound::To { device, edits, tunnel }
        }
    }

    /// Whose datagram an ICMP error quotes that was sent from the shared port 1701 to `remote`; `payload` is what
    /// is left of it behind the UDP header. `None` where it cannot be told, and for a port that is not shared:
    /// that is the NAT's matter.
    pub fn quoted(&self, remote: Endpoint, payload: &[u8]) -> Option<Endpoint> {
        let mut sharing = self.party(remote.addr).filter(|(_, tunnel)| tunnel.shared);
        // The quote may end anywhere, so only the header is read, and not by its own lengths.
        let word = |at: usize| payload.get(at..)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes));
        let flags = word(0)?;
        let control = flags & 0x8000 != 0;
        let at = if flags & 0x4000 == 0 { 2 } else { 4 };
        let (version, peer) = match (flags & 0x000f, control) {
            (2, _) => (Version::V2, word(at).map(u32::from)?),
            (3, true) => (Version::V3, u32::from(word(4)?) << 16 | u32::from(word(6)?)),
            _ => return None,
        };
        let fits = |tunnel: &Tunnel| {
            tunnel.version == version
                && tunnel.peer.unwrap_or(0) == peer
                && (peer != 0 || !tunnel.pulse.answered)
        };
        let (_, found) = sharing.find(|(_, tunnel)| fits(tunnel))?;
        sharing.all(|(_, tunnel)| !fits(tunnel) || tunnel.device == found.device).then_some(found.device)
    }

    /// A datagram from port `from` of the server has gone to the tunnel's device beside the NAT; answers when one
    /// last did.
    pub fn delivered(&mut self, now: Timestamp, tunnel: TunnelHandle, from: u16) -> Option<Timestamp> {
        let before = self.tunnels.get_mut(&tunnel.0)?.delivered.replace((from, now));
        before.filter(|&(port, _)| port == from).map(|(_, last)| last)
    }

    /// Does `device` share port 1701 towards `remote`?
    pub fn shares(&self, device: Endpoint, remote: Ipv4Addr) -> bool {
        self.between(device, remote).any(|(_, tunnel)| tunnel.shared)
    }

    /// Has no device a tunnel?
    pub fn is_empty(&self) -> bool {
        self.tunnels.is_empty()
    }

    /// Counts packets of a tunnel that were carried without being shown here, and keeps it alive.
    pub fn account(
        &mut self,
        now: Timestamp,
        tunnel: TunnelHandle,
        direction: Direction,
        packets: u64,
        bytes: u64,
    ) {
        if let Some(tunnel) = self.tunnels.get_mut(&tunnel.0) {
            tunnel.usage.add(now, direction, packets, bytes);
            tunnel.pulse.payload = Some(now);
            tunnel.refresh(now);
        }
    }

    /// Every tunnel, in the order in which they were opened.
    pub fn views(&self, now: Timestamp) -> impl Iterator<Item = TunnelView> {
        self.tunnels.iter().map(move |(&number, tunnel)| tunnel.view(number, now))
    }

    /// Tunnels that could not be followed since there were too many; they had the NAT's ports and nothing else.
    pub const fn untracked(&self) -> u64 {
        self.untracked
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub const fn poll_timeout(&self) -> Option<Timestamp> {
        self.wake
    }

    /// Ends what is over at `now`.
    pub fn handle_timeout(&mut self, now: Timestamp) {
        if self.wake.is_none_or(|wake| wake > now) {
            return;
        }
        let over: Vec<u32> =
            self.tunnels.iter().filter(|(_, tunnel)| tunnel.deadline <= now).map(|(&n, _)| n).collect();
        for number in over {
            self.note_silence(now, number);
            self.remove(number);
        }
        let tunnels = self.tunnels.values().map(|tunnel| tunnel.deadline);
        self.wake = tunnels.chain(self.servers.expire(now)).min();
    }

    /// Forgets everything but what servers need: the WAN address has changed.
    pub fn clear(&mut self) {
        self.tunnels.clear();
        self.ids.clear();
        self.parties.clear();
    }

    /// The tunnel that a datagram of a device belongs to; opened if need be.
    fn tunnel_outbound(
        &mut self,
        now: Timestamp,
        device: Endpoint,
        remote: Endpoint,
        external: u16,
        message: &Message,
    ) -> Option<u32> {
        if let Body::Control(control) = &message.body {
            let own = own_of(message.to.version(), control);
            let known = own.and_then(|own| self.named(device, remote.addr, message.to.version(), own));
            match control.kind {
                Kind::StartRequest | Kind::StartReply => {
                    let call = Call { device, remote, external, to: message.to, own, control };
                    return self.call(now, known, &call);
                }
                Kind::Stop => return known.or_else(|| self.running(device, remote.addr, message.to)),
                Kind::StartConnected | Kind::Hello | Kind::Disconnect | Kind::Other(_) => {}
            }
        }
        let to = message.to;
        if to.number() == 0 {
            return None;
        }
        self.running(device, remote.addr, to)
            .or_else(|| self.open(now, device, remote, external, to.version()))
    }

    /// An SCCRQ or SCCRP of a device.
    fn call(&mut self, now: Timestamp, known: Option<u32>, call: &Call<'_>) -> Option<u32> {
        let version = call.to.version();
        let remote = call.remote.addr;
        let is_request = call.control.kind == Kind::StartRequest;
        let known = known.or_else(|| {
            let mut opaque = self.between(call.device, remote).filter(|(_, t)| t.is_opaque());
            call.own.is_none().then(|| opaque.find(|(_, t)| t.version == version).map(|(n, _)| n)).flatten()
        });
        if is_request && call.external != PORT && self.unanswered(call.device, remote) >= PATIENCE {
            self.suspect_silence(now, remote);
        }
        let shares = is_request && self.may_share(call);
        let number = match known {
            Some(number) => number,
            None => self.open(now, call.device, call.remote, call.external, version)?,
        };
        if known.is_none() {
            self.name(number, call);
        }
        let silent = self.servers.evidence(remote) == Some(Evidence::Silent);
        let tunnel = self.tunnels.get_mut(&number)?;
        if !is_request {
            tunnel.pulse.answered = true;
            tunnel.peer = Some(call.to.number()).filter(|&peer| peer != 0);
            return Some(number);
        }
        let again = now.since(tunnel.called) >= CLOSING;
        if known.is_none() || tunnel.pulse.closed || (again && tunnel.pulse.answered) {
            // A device that was started anew may call itself the same again.
            tunnel.called = now;
            (tunnel.pulse.answered, tunnel.peer, tunnel.sends) = (false, None, 0);
            tunnel.shared = shares;
        } else if !tunnel.pulse.answered && !tunnel.shared && shares {
            (tunnel.shared, tunnel.sends) = (true, 0);
        } else if !tunnel.pulse.answered && tunnel.shared && silent && tunnel.sends >= PATIENCE {
            // Port 1701 did not help either: the server was not there at all.
            (tunnel.shared, tunnel.sends) = (false, 0);
            self.servers.forget_silence(remote);
        }
        if !tunnel.pulse.answered {
            tunnel.sends = tunnel.sends.saturating_add(1);
        }
        Some(number)
    }

    /// A tunnel of which nothing but its ends is known.
    fn open(
        &mut self,
        now: Timestamp,
        device: Endpoint,
        remote: Endpoint,
        external: u16,
        version: Version,
    ) -> Option<u32> {
        let of_device = self.tunnels.values().filter(|tunnel| tunnel.device.addr == device.addr).count();
        if self.tunnels.len() >= MAX_TUNNELS
            || of_device >= MAX_PER_DEVICE
            || self.party(remote.addr).count() >= MAX_PER_REMOTE
        {
            self.untracked = self.untracked.saturating_add(1);
            return None;
        }
        while self.tunnels.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let tunnel = Tunnel::new(now, device, remote, external, version);
        self.tunnels.insert(number, tunnel);
        self.parties.insert((remote.addr, device, number));
        Some(number)
    }

    /// Gives a new tunnel the identifier by which the WAN knows it.
    fn name(&mut self, number: u32, call: &Call<'_>) {
        let Some(own) = call.own else { return };
        let id = match call.control.assigned_tunnel {
            Assigned::Clear { id, .. } if call.to.version() == Version::V2 => {
                Id::Tunnel(self.free_tunnel_id(call.remote.addr, id))
            }
            Assigned::Clear { .. } | Assigned::Hidden | Assigned::Absent => Id::Connection(own),
        };
        if let Some(tunnel) = self.tunnels.get_mut(&number) {
            (tunnel.own, tunnel.outside) = (Some(own), Some(id.number()));
        }
        self.learn(number, id);
    }

    /// `wanted` if no device has it towards `remote`, else another.
    fn free_tunnel_id(&mut self, remote: Ipv4Addr, wanted: u16) -> u16 {
        let mut id = wanted;
        while self.holders(remote, Id::Tunnel(id)).next().is_some() {
            self.next_id = self.next_id.wrapping_add(1);
            id = self.next_id | 0x8000; // away from devices that count from 1
        }
        id
    }

    /// Notes that `number` is addressed by `id`.
    fn learn(&mut self, number: u32, id: Id) {
        let Some(tunnel) = self.tunnels.get_mut(&number) else { return };
        if id.number() == 0 || tunnel.ids.len() >= MAX_IDS || tunnel.ids.contains(&id) {
            return;
        }
        tunnel.ids.push(id);
        self.ids.insert((tunnel.remote.addr, id, number));
    }

    fn remove(&mut self, number: u32) {
        let Some(tunnel) = self.tunnels.remove(&number) else { return };
        self.parties.remove(&(tunnel.remote.addr, tunnel.device, number));
        for id in tunnel.ids {
            self.ids.remove(&(tunnel.remote.addr, id, number));
        }
    }

    /// The tunnel of `device` that calls itself `own`.
    fn named(&self, device: Endpoint, remote: Ipv4Addr, version: Version, own: u32) -> Option<u32> {
        let mut tunnels = self.between(device, remote);
        tunnels.find(|(_, t)| t.version == version && t.own == Some(own)).map(|(number, _)| number)
    }

    /// The tunnel over which `device` addresses `to`, an identifier of the other side.
    fn running(&mut self, device: Endpoint, remote: Ipv4Addr, to: Id) -> Option<u32> {
        let peer = match to {
            Id::Tunnel(_) | Id::Connection(_) => Some(to.number()),
            Id::Session(_) => None, // not followed: one device seldom has two tunnels to one server
        };
        let tunnels = || self.between(device, remote).filter(|(_, t)| t.version == to.version());
        if let Some((number, _)) = tunnels().find(|(_, t)| peer.is_none() || t.peer == peer) {
            return Some(number);
        }
        // Its SCCRP did not say, or was not seen.
        let unnamed =
            tunnels().filter(|(_, t)| t.peer.is_none() && t.pulse.answered && !t.is_opaque()).last();
        if let Some((number, _)) = unnamed {
            if let Some(tunnel) = self.tunnels.get_mut(&number) {
                tunnel.peer = peer;
            }
            return Some(number);
        }
        tunnels().find(|(_, t)| t.is_opaque()).map(|(number, _)| number)
    }

    /// The tunnel that a datagram from outside is for; `None`: only the NAT can tell.
    fn addressed(&self, remote: Ipv4Addr, external: u16, id: Id) -> Result<Option<u32>, DropReason> {
        let mut here = self.holders(remote, id).filter(|(_, tunnel)| tunnel.wan_port() == external);
        match (here.next(), here.next()) {
            (Some((number, _)), None) => return Ok(Some(number)),
            (Some(_), Some(_)) => return Err(DropReason::Ambiguous),
            (None, _) => {}
        }
        let mut elsewhere = self.holders(remote, id);
        let (first, second) = (elsewhere.next(), elsewhere.next());
        let opaque = self.party(remote).find(|(_, t)| t.is_opaque() && t.external == external);
        if let Some((number, tunnel)) = opaque {
            // The port is that tunnel's, and while nothing is known of it but the port, so is what comes to it.
            if first.is_none() || !tunnel.ids.iter().any(|known| discriminant(known) == discriminant(&id)) {
                return Ok(Some(number));
            }
        }
        match (first, second) {
            (Some((number, _)), None) => Ok(Some(number)),
            (Some(_), Some(_)) => Err(DropReason::Ambiguous),
            (None, _) if external == PORT && self.party(remote).any(|(_, t)| t.shared) => {
                Err(DropReason::UnknownTunnel)
            }
            (None, _) => Ok(None),
        }
    }

    /// May a tunnel that is about to be opened use port 1701?
    fn may_share(&self, call: &Call<'_>) -> bool {
        let remote = call.remote.addr;
        if call.external == PORT || self.servers.evidence(remote).is_none() {
            return false;
        }
        match (call.to.version(), call.own) {
            (_, None) => false,
            (Version::V2, Some(_)) => true,
            // Nothing tells the sessions of two tunnels of one device apart on the way out.
            (Version::V3, Some(own)) => {
                self.holders(remote, Id::Connection(own)).all(|(_, tunnel)| tunnel.device == call.device)
                    && self.between(call.device, remote).all(|(_, t)| t.shared || t.own == Some(own))
            }
        }
    }

    /// How many SCCRQs from another port than 1701 the server has left unanswered.
    fn unanswered(&self, device: Endpoint, remote: Ipv4Addr) -> u32 {
        let silent = |t: &Tunnel| !t.pulse.answered && !t.pulse.closed && t.wan_port() != PORT;
        self.between(device, remote).filter(|(_, t)| silent(t)).map(|(_, t)| t.sends).sum()
    }

    /// Takes a server that does not answer to answer to port 1701 alone, unless it is known to do better.
    fn suspect_silence(&mut self, now: Timestamp, remote: Ipv4Addr) {
        if !self.party(remote).any(|(_, tunnel)| tunnel.pulse.answered && tunnel.wan_port() != PORT) {
            self.remember(now, remote, Evidence::Silent);
        }
    }

    /// A tunnel ends; was it never answered?
    fn note_silence(&mut self, now: Timestamp, number: u32) {
        if let Some(tunnel) = self.tunnels.get(&number) {
            let remote = tunnel.remote.addr;
            if !tunnel.pulse.answered && tunnel.sends >= PATIENCE {
                if tunnel.shared {
                    self.servers.forget_silence(remote);
                } else if tunnel.external != PORT {
                    self.suspect_silence(now, remote);
                }
            }
        }
    }

    fn remember(&mut self, now: Timestamp, remote: Ipv4Addr, evidence: Evidence) {
        let until = self.servers.remember(now, remote, evidence);
        self.wake_by(until);
    }

    fn wake_by(&mut self, deadline: Timestamp) {
        self.wake = Some(self.wake.map_or(deadline, |wake| wake.min(deadline)));
    }

    fn holders(&self, remote: Ipv4Addr, id: Id) -> impl Iterator<Item = (u32, &Tunnel)> {
        self.ids.range((remote, id, 0)..=(remote, id, u32::MAX)).filter_map(|(_, _, number)| self.at(*number))
    }

    fn party(&self, remote: Ipv4Addr) -> impl Iterator<Item = (u32, &Tunnel)> {
        let first = Endpoint::new(Ipv4Addr::UNSPECIFIED, 0);
        let last = Endpoint::new(Ipv4Addr::BROADCAST, u16::MAX);
        let range = (remote, first, 0)..=(remote, last, u32::MAX);
        self.parties.range(range).filter_map(|(_, _, number)| self.at(*number))
    }

    fn between(&self, device: Endpoint, remote: Ipv4Addr) -> impl Iterator<Item = (u32, &Tunnel)> {
        let range = (remote, device, 0)..=(remote, device, u32::MAX);
        self.parties.range(range).filter_map(|(_, _, number)| self.at(*number))
    }

    fn at(&self, number: u32) -> Option<(u32, &Tunnel)> {
        self.tunnels.get(&number).map(|tunnel| (number, tunnel))
    }
}

/// An SCCRQ or SCCRP of a device.
struct Call<'a> {
    device: Endpoint,
    remote: Endpoint,
    external: u16,
    to: Id,
    /// The identifier that it names, if that can be used.
    own: Option<u32>,
    control: &'a Control,
}

/// The sender's own identifier, where the NAT could change it or has no need to.
fn own_of(version: Version, control: &Control) -> Option<u32> {
    match (version, control.assigned_tunnel) {
        (Version::V2, Assigned::Clear { id, .. }) if !control.digest => Some(id.into()),
        (Version::V2, _) => None,
        (Version::V3, _) => control.assigned_connection,
    }
}

/// The identifier by which the sender of a control message wants to be addressed.
fn sender_of(to: Id, control: &Control) -> Option<u32> {
    match (to.version(), control.assigned_tunnel) {
        (Version::V2, Assigned::Clear { id, .. }) => Some(id.into()),
        (Version::V2, Assigned::Absent | Assigned::Hidden) => None,
        (Version::V3, _) => control.assigned_connection,
    }
}

/// The bytes at `at` that differ between two Tunnel IDs.
fn edits_between(at: usize, old: u16, new: u32) -> Vec<Edit> {
    let Ok(new) = u16::try_from(new) else { return Vec::new() };
    let bytes = old.to_be_bytes().into_iter().zip(new.to_be_bytes());
    (at..)
        .zip(bytes)
        .filter(|(_, (old, new))| old != new)
        .filter_map(|(at, (old, new))| Some(Edit { offset: u16::try_from(at).ok()?, old, new }))
        .collect()
}

#[cfg(test)]
mod tests;
