//! Protocols without ports that carry an identifier: GRE other than PPTP's, and L2TPv3 on IP protocol 115.
//!
//! # Theory of operation
//!
//! Nothing in these packets can be rewritten for a device's sake: no port, and identifiers that both ends have
//! configured, or that a digest covers. So a device is told from the others by remote address and identifier.
//!
//! *GRE* (RFC 2784, 2890; EoIP): both ends of a tunnel have the same key as a rule. The device that first sends
//! a key to a remote has it, and what comes from there with that key is its own. A second device with the same
//! key is refused until the first has been idle. A tunnel without a key counts as one more key. Where one device
//! alone talks to a remote and has not had an answer, another key from there is its own too: some tunnels have a
//! key each way.
//!
//! *L2TPv3* (RFC 3931 section 4.1.1): a packet begins with the session id that its *receiver* chose, or with 0
//! and then the control connection id. The sender's own identifiers are learned from control messages: AVP 61
//! and 63 of what the device sends, AVP 64 of what it receives. Tunnels that are configured by hand have no
//! control messages. Then an unknown id is the only device's that talks to that remote; or, of several, the only
//! one's that nothing has been learned of. Otherwise it is dropped: an id is never guessed to be one of several
//! devices'. Two devices that chose the same id towards one remote are a conflict, and the second is refused.
//!
//! ```text
//! .11 → 198.51.100.10 session 7      .12 → 198.51.100.10 session 8
//! .11 ← 198.51.100.10 session 100    .12 ← 198.51.100.10 session 200: the second is unknown, .11's is known
//! ```
//!
//! A device on the LAN that serves the protocol ([`Keyed::set_server`]) gets what is nobody's; what it answers is
//! then a conversation like any other. Packets from outside make no conversation, and PPTP is none of this
//! module's.

mod packets;

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use crate::bytes::be32;
use crate::gre::GreHeader;
use crate::l2tp::message::{self, Body, Kind};
use crate::sorted::{SortedMap, SortedSet};
use crate::usage::{Pulse, Usage};
use crate::view::Phase;

/// One packet, behind its IPv4 header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wire<'a> {
    /// IP protocol 47.
    Gre {
        /// Its header.
        header: GreHeader,
        /// Bytes behind the IPv4 header.
        len: usize,
    },
    /// IP protocol 115: everything behind the IPv4 header.
    L2tpV3(&'a [u8]),
}

/// The protocols that are told apart here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carrier {
    /// IP protocol 47.
    Gre,
    /// IP protocol 115.
    L2tpV3,
}

/// What a device is told apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Key {
    /// GRE.
    Gre {
        /// The version: EoIP's tunnel ids are no keys of version 0.
        version: u8,
        /// The key, if there is one.
        key: Option<u32>,
    },
    /// L2TPv3: a session.
    Session(u32),
    /// L2TPv3: a control connection.
    Connection(u32),
}

/// The name of a conversation for as long as it lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Handle(u32);

/// Whom a packet from outside is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrival {
    /// The device.
    pub device: Ipv4Addr,
    /// Its conversation; `None` for a server's first packet.
    pub conversation: Option<Handle>,
}

/// Why a packet goes nowhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// It is not what its protocol number says, or belongs to PPTP.
    Malformed,
    /// Another device has that key or identifier towards that remote.
    Conflict(Key),
    /// No device talks to that remote.
    Stranger,
    /// Several devices talk to that remote, and it cannot be told whose it is.
    Ambiguous,
    /// There are too many conversations.
    Full,
    /// The device has too many.
    DeviceQuota,
    /// There are too many with that remote.
    RemoteQuota,
}

impl Refusal {
    /// Its name in reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Conflict(_) => "key-conflict",
            Self::Stranger => "stranger",
            Self::Ambiguous => "key-ambiguous",
            Self::Full => "table-full",
            Self::DeviceQuota => "device-quota",
            Self::RemoteQuota => "remote-quota",
        }
    }
}

/// A conversation as reports show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyedView {
    /// Its handle.
    pub conversation: Handle,
    /// The device.
    pub device: Ipv4Addr,
    /// The other side.
    pub remote: Ipv4Addr,
    /// The protocol.
    pub carrier: Carrier,
    /// By what its inbound packets are known, oldest first.
    pub inbound: Vec<Key>,
    /// L2TPv3: what the device sends to.
    pub outbound: Vec<Key>,
    /// How far it is.
    pub phase: Phase,
    /// What it carried.
    pub usage: Usage,
}

const IDLE: Duration = Duration::from_secs(300);
/// RFC 3931 section 4.2: a control message is sent again for a good minute.
const UNANSWERED: Duration = Duration::from_secs(120);
const CLOSING: Duration = Duration::from_secs(31);
const MAX_CONVERSATIONS: usize = 1024;
const MAX_PER_DEVICE: usize = 128;
const MAX_PER_REMOTE: usize = 128;
/// Identifiers of one L2TPv3 conversation each way: the oldest gives way.
const MAX_KEYS: usize = 64;
/// A GRE tunnel has one key each way.
const MAX_GRE_KEYS: usize = 2;

#[derive(Debug)]
struct Conversation {
    device: Ipv4Addr,
    remote: Ipv4Addr,
    carrier: Carrier,
    inbound: Vec<Key>,
    outbound: Vec<Key>,
    pulse: Pulse,
    /// The device's last packet.
    spoke: Timestamp,
    deadline: Timestamp,
    usage: Usage,
    /// The packet before the last one.
    before: Timestamp,
}

impl Conversation {
    fn spoke_or_heard(&mut self, now: Timestamp, direction: Direction) {
        match direction {
            Direction::Outbound => self.spoke = now,
            Direction::Inbound => self.pulse.answered = true,
        }
    }

    fn refresh(&mut self, now: Timestamp, idle: Duration) {
        let idle = match (self.pulse.closed, self.pulse.answered) {
            (true, _) => CLOSING,
            (false, false) => UNANSWERED,
            (false, true) => idle,
        };
        self.deadline = now + idle;
    }
}

/// What a packet says, read once.
#[derive(Clone, Copy)]
struct Glance {
    carrier: Carrier,
    /// The receiver's identifier; GRE: the tunnel's.
    to: Option<Key>,
    /// Identifiers that the sender chose for itself.
    own: [Option<Key>; 2],
    /// The receiver's, as AVP 64 names it.
    told: Option<Key>,
    nature: Nature,
    len: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Nature {
    Payload,
    Hello,
    Stop,
    /// Any other control message.
    Control,
    Ack,
}

/// The conversations of all devices.
#[derive(Debug)]
pub struct Keyed {
    conversations: SortedMap<u32, Conversation>,
    next: u32,
    /// Whose an inbound packet is.
    inbound: SortedMap<(Ipv4Addr, Key), u32>,
    /// Whose an outbound packet was, for L2TPv3: the other side chose each of them for one device.
    outbound: SortedMap<(Ipv4Addr, Key), u32>,
    parties: SortedSet<(Ipv4Addr, Carrier, Ipv4Addr, u32)>,
    gre_server: Option<Ipv4Addr>,
    l2tp_server: Option<Ipv4Addr>,
    /// How long a conversation is remembered that both sides are silent in.
    idle: Duration,
    /// No deadline is earlier.
    wake: Option<Timestamp>,
}

impl Default for Keyed {
    fn default() -> Self {
        Self::new()
    }
}

impl Keyed {
    /// Nothing known yet.
    pub const fn new() -> Self {
        Self {
            conversations: SortedMap::new(),
            next: 0,
            inbound: SortedMap::new(),
            outbound: SortedMap::new(),
            parties: SortedSet::new(),
            gre_server: None,
            l2tp_server: None,
            idle: IDLE,
            wake: None,
        }
    }

    /// How long a conversation is remembered that both sides are silent in; from its next packet on.
    pub const fn set_idle(&mut self, idle: Duration) {
        self.idle = idle;
    }

    /// Which device gets what is nobody's.
    pub fn set_server(&mut self, carrier: Carrier, server: Option<Ipv4Addr>) {
        *match carrier {
            Carrier::Gre => &mut self.gre_server,
            Carrier::L2tpV3 => &mut self.l2tp_server,
        } = server;
    }

    /// Does another device than `device` talk to `remote`?
    pub fn taken_by_other(&self, carrier: Carrier, device: Ipv4Addr, remote: Ipv4Addr) -> bool {
        self.party(remote, carrier).any(|(_, other)| other.device != device && !other.pulse.closed)
    }

    /// A packet of a device. It is refused where its answers could not be told from another device's.
    pub fn outbound(
        &mut self,
        now: Timestamp,
        device: Ipv4Addr,
        remote: Ipv4Addr,
        wire: Wire<'_>,
    ) -> Result<Handle, Refusal> {
        let glance = glance(wire).ok_or(Refusal::Malformed)?;
        let number = match (glance.carrier, glance.to) {
            (Carrier::Gre, Some(key)) => self.inbound.get(&(remote, key)).copied(),
            (Carrier::Gre | Carrier::L2tpV3, _) => {
                let first = (remote, glance.carrier, device, 0);
                let last = (remote, glance.carrier, device, u32::MAX);
                self.parties.range(first..=last).next().map(|(_, _, _, number)| *number)
            }
        };
        let chosen = || glance.own.into_iter().flatten();
        for key in chosen() {
            match self.other_owner(remote, key, device) {
                // What only the other side keeps up is not kept from the device that wants it now.
                Some((owner, other)) if now.since(other.spoke) >= self.idle => self.remove(owner),
                Some(_) => return Err(Refusal::Conflict(key)),
                None => {}
            }
        }
        let number = match number.filter(|number| self.conversations.contains_key(number)) {
            Some(number) => number,
            None => self.open(now, device, remote, glance.carrier)?,
        };
        for key in chosen() {
            self.learn(number, key);
        }
        if glance.carrier == Carrier::L2tpV3 {
            self.learn_outbound(number, glance.to);
        }
        self.count(now, number, Direction::Outbound, &glance);
        Ok(Handle(number))
    }

    /// A packet from `remote` to the WAN address.
    pub fn inbound(&mut self, now: Timestamp, remote: Ipv4Addr, wire: Wire<'_>) -> Result<Arrival, Refusal> {
        let glance = glance(wire).ok_or(Refusal::Malformed)?;
        let known = glance.to.and_then(|key| self.inbound.get(&(remote, key)).copied());
        let number = match known {
            Some(number) => number,
            None => match self.claimant(remote, &glance) {
                Ok(number) => {
                    if let Some(key) = glance.to {
                        self.learn(number, key);
                    }
                    number
                }
                Err(refusal) => {
                    let device = self.server(glance.carrier).ok_or(refusal)?;
                    let number = self.party(remote, glance.carrier).find(|(_, c)| c.device == device);
                    return Ok(Arrival { device, conversation: number.map(|(number, _)| Handle(number)) });
                }
            },
        };
        let device = self.conversations.get(&number).ok_or(Refusal::Stranger)?.device;
        if let Some(key) = glance.told {
            self.learn(number, key);
        }
        self.count(now, number, Direction::Inbound, &glance);
        Ok(Arrival { device, conversation: Some(Handle(number)) })
    }

    /// Whose packet to `remote` an ICMP error quotes; the quote may be cut off. `None`: an identifier that no
    /// device has sent.
    pub fn quoted(&self, remote: Ipv4Addr, wire: Wire<'_>) -> Option<Ipv4Addr> {
        let number = match wire {
            Wire::Gre { header, .. } => *self.inbound.get(&(remote, gre_key(&header)?))?,
            Wire::L2tpV3(packet) => *self.outbound.get(&(remote, session_key(packet)?))?,
        };
        self.conversations.get(&number).map(|conversation| conversation.device)
    }

    /// Whose packet from `remote` an ICMP error of a device quotes; the quote may be cut off.
    pub fn quoted_inbound(&self, remote: Ipv4Addr, wire: Wire<'_>) -> Option<Ipv4Addr> {
        let key = match wire {
            Wire::Gre { header, .. } => gre_key(&header)?,
            Wire::L2tpV3(packet) => session_key(packet)?,
        };
        let number = self.inbound.get(&(remote, key))?;
        self.conversations.get(number).map(|conversation| conversation.device)
    }

    /// Counts packets of a conversation that were carried without being shown here, and keeps it alive.
    pub fn account(
        &mut self,
        now: Timestamp,
        conversation: Handle,
        direction: Direction,
        packets: u64,
        bytes: u64,
    ) {
        if let Some(conversation) = self.conversations.get_mut(&conversation.0) {
            conversation.usage.add(now, direction, packets, bytes);
            conversation.pulse.payload = Some(now);
            conversation.spoke_or_heard(now, direction);
            conversation.refresh(now, self.idle);
        }
    }

    /// What a conversation carried.
    pub fn usage(&self, conversation: Handle) -> Option<Usage> {
        self.conversations.get(&conversation.0).map(|found| found.usage)
    }

    /// When the packet before a conversation's last one came, either way.
    pub fn silent_since(&self, conversation: Handle) -> Option<Timestamp> {
        self.conversations.get(&conversation.0).map(|found| found.before)
    }

    /// Every conversation, in the order in which they began.
    pub fn views(&self, now: Timestamp) -> impl Iterator<Item = KeyedView> {
        self.conversations.iter().map(move |(&number, conversation)| KeyedView {
            conversation: Handle(number),
            device: conversation.device,
            remote: conversation.remote,
            carrier: conversation.carrier,
            inbound: conversation.inbound.clone(),
            outbound: conversation.outbound.clone(),
            phase: conversation.pulse.phase(&conversation.usage, now),
            usage: conversation.usage,
        })
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
            self.conversations.iter().filter(|(_, c)| c.deadline <= now).map(|(&number, _)| number).collect();
        for number in over {
            self.remove(number);
        }
        self.wake = self.conversations.values().map(|c| c.deadline).min();
    }

    /// Forgets every conversation: the WAN address has changed.
    pub fn clear(&mut self) {
        self.conversations.clear();
        self.inbound.clear();
        self.outbound.clear();
        self.parties.clear();
    }

    const fn server(&self, carrier: Carrier) -> Option<Ipv4Addr> {
        match carrier {
            Carrier::Gre => self.gre_server,
            Carrier::L2tpV3 => self.l2tp_server,
        }
    }

    /// The conversation that an unknown identifier must be of.
    fn claimant(&self, remote: Ipv4Addr, glance: &Glance) -> Result<u32, Refusal> {
        let mut all = self.party(remote, glance.carrier);
        let Some((number, first)) = all.next() else { return Err(Refusal::Stranger) };
        // Once a device's own identifiers are known, one that is not among them may be the server's.
        let settled = |c: &Conversation| match c.carrier {
            Carrier::Gre => c.pulse.answered,
            Carrier::L2tpV3 => !c.inbound.is_empty(),
        };
        if all.all(|(_, other)| other.device == first.device) {
            // Of several tunnels of one device it does not matter which: the device is the same.
            let server = self.server(glance.carrier).filter(|&server| server != first.device);
            return if server.is_none() || !settled(first) { Ok(number) } else { Err(Refusal::Ambiguous) };
        }
        let mut open = self.party(remote, glance.carrier).filter(|(_, other)| !settled(other));
        match (glance.carrier, open.next(), open.next()) {
            (Carrier::L2tpV3, Some((number, _)), None) => Ok(number),
            // Sessions set up by hand mostly have one number for both directions.
            (Carrier::L2tpV3, Some(_), Some(_)) => {
                let same = |c: &Conversation| glance.to.is_some_and(|key| c.outbound.contains(&key));
                let mut alike = self.party(remote, glance.carrier).filter(|(_, c)| !settled(c) && same(c));
                match (alike.next(), alike.next()) {
                    (Some((number, _)), None) => Ok(number),
                    _ => Err(Refusal::Ambiguous),
                }
            }
            (Carrier::Gre | Carrier::L2tpV3, ..) => Err(Refusal::Ambiguous),
        }
    }

    fn open(
        &mut self,
        now: Timestamp,
        device: Ipv4Addr,
        remote: Ipv4Addr,
        carrier: Carrier,
    ) -> Result<u32, Refusal> {
        if self.conversations.len() >= MAX_CONVERSATIONS {
            return Err(Refusal::Full);
        }
        if self.conversations.values().filter(|other| other.device == device).count() >= MAX_PER_DEVICE {
            return Err(Refusal::DeviceQuota);
        }
        if self.party(remote, carrier).count() >= MAX_PER_REMOTE {
            return Err(Refusal::RemoteQuota);
        }
        while self.conversations.contains_key(&self.next) {
            self.next = self.next.wrapping_add(1);
        }
        let number = self.next;
        self.next = self.next.wrapping_add(1);
        let conversation = Conversation {
            device,
            remote,
            carrier,
            inbound: Vec::new(),
            outbound: Vec::new(),
            pulse: Pulse::default(),
            spoke: now,
            deadline: now,
            usage: Usage::new(now),
            before: now,
        };
        self.conversations.insert(number, conversation);
        self.parties.insert((remote, carrier, device, number));
        Ok(number)
    }

    fn remove(&mut self, number: u32) {
        let Some(old) = self.conversations.remove(&number) else { return };
        self.parties.remove(&(old.remote, old.carrier, old.device, number));
        for key in old.inbound {
            self.inbound.remove(&(old.remote, key));
        }
        for key in old.outbound {
            self.outbound.remove(&(old.remote, key));
        }
    }

    /// Notes that inbound packets with `key` are of `number`, unless they are another's already.
    fn learn(&mut self, number: u32, key: Key) {
        let Some(conversation) = self.conversations.get_mut(&number) else { return };
        let entry = (conversation.remote, key);
        if self.inbound.contains_key(&entry) {
            return;
        }
        match conversation.carrier {
            // The first is what the device sends; a stranger who invents more gets nowhere.
            Carrier::Gre if conversation.inbound.len() >= MAX_GRE_KEYS => return,
            Carrier::L2tpV3 if conversation.inbound.len() >= MAX_KEYS => {
                self.inbound.remove(&(conversation.remote, conversation.inbound.remove(0)));
            }
            Carrier::Gre | Carrier::L2tpV3 => {}
        }
        conversation.inbound.push(key);
        self.inbound.insert(entry, number);
    }

    fn learn_outbound(&mut self, number: u32, key: Option<Key>) {
        let (Some(key), Some(conversation)) = (key, self.conversations.get_mut(&number)) else { return };
        let entry = (conversation.remote, key);
        if conversation.outbound.last() == Some(&key) || self.outbound.contains_key(&entry) {
            return;
        }
        if conversation.outbound.len() >= MAX_KEYS {
            self.outbound.remove(&(conversation.remote, conversation.outbound.remove(0)));
        }
        conversation.outbound.push(key);
        self.outbound.insert(entry, number);
    }

    /// The conversation of another device that has `key`.
    fn other_owner(&self, remote: Ipv4Addr, key: Key, device: Ipv4Addr) -> Option<(u32, &Conversation)> {
        let number = *self.inbound.get(&(remote, key))?;
        let owner = self.conversations.get(&number)?;
        (owner.device != device).then_some((number, owner))
    }

    fn count(&mut self, now: Timestamp, number: u32, direction: Direction, glance: &Glance) {
        let Some(conversation) = self.conversations.get_mut(&number) else { return };
        conversation.before = conversation.usage.last_seen;
        conversation.usage.count(now, direction, glance.len);
        conversation.spoke_or_heard(now, direction);
        match glance.nature {
            Nature::Payload => {
                conversation.pulse.payload = Some(now);
                // The device knows nothing of an end that only the other side spoke of.
                conversation.pulse.closed &= direction == Direction::Inbound;
            }
            Nature::Hello => conversation.pulse.keepalive = Some(now),
            Nature::Stop => conversation.pulse.closed = true,
            Nature::Control => conversation.pulse.closed &= direction == Direction::Inbound,
            Nature::Ack => {}
        }
        conversation.refresh(now, self.idle);
        let deadline = conversation.deadline;
        self.wake = Some(self.wake.map_or(deadline, |wake| wake.min(deadline)));
    }

    fn party(&self, remote: Ipv4Addr, carrier: Carrier) -> impl Iterator<Item = (u32, &Conversation)> {
        let first = (remote, carrier, Ipv4Addr::UNSPECIFIED, 0);
        let last = (remote, carrier, Ipv4Addr::BROADCAST, u32::MAX);
        let numbers = self.parties.range(first..=last).map(|(_, _, _, number)| *number);
        numbers.filter_map(|number| self.conversations.get(&number).map(|found| (number, found)))
    }
}

fn gre_key(header: &GreHeader) -> Option<Key> {
    (!header.is_pptp()).then_some(Key::Gre { version: header.version, key: header.key })
}

/// By what the receiver of a packet, perhaps cut off, knows it (RFC 3931 sections 4.1.1.1 and 4.1.1.2).
fn session_key(packet: &[u8]) -> Option<Key> {
    Some(match be32(packet, 0)? {
        0 => Key::Connection(be32(packet, 8)?),
        session => Key::Session(session),
    })
}

fn glance(wire: Wire<'_>) -> Option<Glance> {
    match wire {
        Wire::Gre { header, len } => {
            let key = gre_key(&header)?;
            Some(Glance {
                carrier: Carrier::Gre,
                to: Some(key),
                own: [Some(key), None],
                told: None,
                nature: Nature::Payload,
                len,
            })
        }
        Wire::L2tpV3(packet) => {
            let message = message::parse_ip(packet)?;
            let to = match message.to {
                message::Id::Session(id) => Key::Session(id),
                message::Id::Connection(id) => Key::Connection(id),
                message::Id::Tunnel(_) => return None, // version 2 is not carried by protocol 115
            };
            let mut glance = Glance {
                carrier: Carrier::L2tpV3,
                to: Some(to).filter(|&to| to != Key::Connection(0)),
                own: [None; 2],
                told: None,
                nature: Nature::Payload,
                len: packet.len(),
            };
            match message.body {
                Body::Data => {}
                Body::Ack => glance.nature = Nature::Ack,
                Body::Control(control) => {
                    glance.own = [
                        control.assigned_connection.map(Key::Connection),
                        control.local_session.map(Key::Session),
                    ];
                    glance.told = control.remote_session.map(Key::Session);
                    glance.nature = match control.kind {
                        Kind::Hello => Nature::Hello,
                        Kind::Stop => Nature::Stop,
                        Kind::StartRequest
                        | Kind::StartReply
                        | Kind::StartConnected
                        | Kind::Disconnect
                        | Kind::Other(_) => Nature::Control,
                    };
                }
            }
            Some(glance)
        }
    }
}

#[cfg(test)]
mod tests;
