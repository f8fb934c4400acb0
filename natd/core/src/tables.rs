//! The tables and their indices, kept in step with each other. Knows no policy.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;

use hashbrown::HashTable;

use crate::expiry::{Buckets, Second};
use crate::flow::{Direction, Endpoint, Protocol, Tuple};
use crate::index::HashIndex;
use crate::ports::Ports;
use crate::random::Secret;
use crate::session::{Device, DeviceNumber, Kind, Mapping, Session};
use crate::slab::{Index, NIL, Slab};
use crate::tally::Carry;
use crate::tcp::StraySyn;
use crate::time::{Tick, Timestamp};

/// A session and one of its directions in four bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct FlowRef(u32);

impl FlowRef {
    const fn new(session: Index, direction: Direction) -> Self {
        Self((session << 1) | matches!(direction, Direction::Inbound) as u32)
    }

    const fn session(self) -> Index {
        self.0 >> 1
    }

    const fn direction(self) -> Direction {
        if self.0 & 1 == 0 { Direction::Outbound } else { Direction::Inbound }
    }
}

/// How many spoken sessions of a mapping lead to one remote address (address-dependent filtering).
#[derive(Clone, Copy, Debug)]
struct Permit {
    mapping: Index,
    remote: Ipv4Addr,
    count: u32,
}

/// What is seldom asked about a session, and so kept apart from it: a packet of a known flow has no need of it.
#[derive(Debug)]
pub(crate) struct Margin {
    pub(crate) created: Timestamp,
    pub(crate) mapping: Index,
    /// The bucket that counts: never later than that of the session's deadline.
    bucket: Second,
    /// The last SYN that did not fit its connection.
    pub(crate) stray: Option<StraySyn>,
    /// Outbound, inbound: what the session's tallies do not have any more.
    pub(crate) packets: [u32; 2],
    pub(crate) bytes: [u64; 2],
    /// Neighbours in the list of its mapping.
    next: Index,
    previous: Index,
}

impl Margin {
    /// Takes over what a tally counted; `slot` is 0 for outbound and 1 for inbound.
    pub(crate) fn carry(&mut self, slot: usize, carry: Carry) {
        if let (Some(packets), Some(bytes)) = (self.packets.get_mut(slot), self.bytes.get_mut(slot)) {
            *packets = packets.saturating_add(carry.packets);
            *bytes += u64::from(carry.bytes);
        }
    }
}

/// A session about to be entered.
pub(crate) struct NewSession {
    pub(crate) outbound: Tuple,
    pub(crate) external: Endpoint,
    pub(crate) origin: Direction,
    pub(crate) mapping: Index,
    pub(crate) kernel_known: bool,
}

#[derive(Debug)]
pub(crate) struct Tables {
    pub(crate) secret: Secret,
    pub(crate) sessions: Slab<Session>,
    /// One for every place of `sessions`.
    margins: Vec<Margin>,
    /// The address of every mapping's external endpoint.
    wan: Ipv4Addr,
    pub(crate) mappings: Slab<Mapping>,
    pub(crate) devices: Slab<Device>,
    /// By the address as a number, which compares faster.
    device_index: BTreeMap<u32, Index>,
    flows: HashIndex,
    by_internal: HashTable<Index>,
    by_external: HashTable<Index>,
    permits: HashTable<Permit>,
    ports: [Ports; 3],
    buckets: Buckets,
    pub(crate) per_protocol: [u32; 3],
}

impl Tables {
    pub(crate) fn new(secret: Secret) -> Self {
        Self {
            secret,
            sessions: Slab::default(),
            margins: Vec::new(),
            wan: Ipv4Addr::UNSPECIFIED,
            mappings: Slab::default(),
            devices: Slab::default(),
            device_index: BTreeMap::new(),
            flows: HashIndex::default(),
            by_internal: HashTable::new(),
            by_external: HashTable::new(),
            permits: HashTable::new(),
            ports: Default::default(),
            buckets: Buckets::default(),
            per_protocol: [0; 3],
        }
    }

    /// The session that a packet showing `tuple` belongs to, and the packet's direction.
    #[inline]
    pub(crate) fn flow(&self, tuple: &Tuple) -> Option<(Index, Direction)> {
        let hash = self.secret.of_tuple(tuple);
        let found = self.flows.find(hash, |flow| {
            let flow = FlowRef(flow);
            self.sessions.at(flow.session()).is_some_and(|s| s.shown(flow.direction(), self.wan) == *tuple)
        })?;
        Some((FlowRef(found).session(), FlowRef(found).direction()))
    }

    /// What else there is about the session at `index`.
    pub(crate) fn margin(&self, index: Index) -> Option<&Margin> {
        self.margins.get(index as usize)
    }

    /// The session at `index`, and what else there is about it.
    #[inline]
    pub(crate) fn session_mut(&mut self, index: Index) -> Option<(&mut Session, &mut Margin)> {
        Some((self.sessions.at_mut(index)?, self.margins.get_mut(index as usize)?))
    }

    /// The external address of all mappings; of no meaning when there are none.
    #[inline]
    pub(crate) fn wan(&self) -> Ipv4Addr {
        self.wan
    }

    pub(crate) fn mapping_of_internal(&self, protocol: Protocol, internal: Endpoint) -> Option<Index> {
        let hash = self.secret.of_endpoint(protocol.number(), internal);
        let same = |&index: &Index| {
            self.mappings.at(index).is_some_and(|m| m.protocol == protocol && m.internal == internal)
        };
        self.by_internal.find(hash, same).copied()
    }

    pub(crate) fn mapping_of_external(&self, protocol: Protocol, external: Endpoint) -> Option<Index> {
        let hash = self.secret.of_endpoint(protocol.number(), external);
        let same = |&index: &Index| {
            self.mappings.at(index).is_some_and(|m| m.protocol == protocol && m.external == external)
        };
        self.by_external.find(hash, same).copied()
    }

    /// Has the device behind `mapping` sent to `remote`, whatever the port, on a session that lives?
    pub(crate) fn has_sent_to(&self, mapping: Index, remote: Ipv4Addr) -> bool {
        let hash = self.secret.of_pair(mapping, remote.into());
        self.permits.find(hash, |p| p.mapping == mapping && p.remote == remote).is_some()
    }

    pub(crate) fn ports(&mut self, protocol: Protocol) -> (&Ports, &mut Secret) {
        let [tcp, udp, icmp] = &self.ports;
        let ports = match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Icmp => icmp,
        };
        (ports, &mut self.secret)
    }

    /// Is the external `port` in use?
    pub(crate) fn is_taken(&self, protocol: Protocol, port: u16) -> bool {
        self.ports.get(protocol.index()).is_none_or(|ports| ports.is_taken(port))
    }

    fn ports_mut(&mut self, protocol: Protocol) -> &mut Ports {
        let [tcp, udp, icmp] = &mut self.ports;
        match protocol {
            Protocol::Tcp => tcp,
            Protocol::Udp => udp,
            Protocol::Icmp => icmp,
        }
    }

    pub(crate) fn device_at(&self, addr: Ipv4Addr) -> Option<Index> {
        self.device_index.get(&addr.to_bits()).copied()
    }

    pub(crate) fn add_device(&mut self, now: Timestamp, addr: Ipv4Addr, router: bool) -> Index {
        let device = Device {
            addr,
            router,
            sessions: 0,
            unanswered: 0,
            refused: 0,
            last_seen: now,
            packets: [0; 2],
            bytes: [0; 2],
        };
        let index = self.devices.insert(device);
        self.device_index.insert(addr.to_bits(), index);
        index
    }

    #[inline]
    pub(crate) fn count_for_device(&mut self, index: Index, now: Timestamp, direction: Direction, len: u16) {
        let slot = usize::from(direction == Direction::Inbound);
        if let Some(device) = self.devices.at_mut(index) {
            device.last_seen = now;
            if let (Some(packets), Some(bytes)) = (device.packets.get_mut(slot), device.bytes.get_mut(slot)) {
                *packets += 1;
                *bytes += u64::from(len);
            }
        }
    }

    /// Forgets devices without sessions that were last seen before `before`.
    pub(crate) fn forget_devices(&mut self, before: Timestamp) {
        let devices = &mut self.devices;
        self.device_index.retain(|_, &mut index| {
            let stays = devices.at(index).is_some_and(|d| d.sessions > 0 || d.last_seen >= before);
            if !stays {
                devices.remove(index);
            }
            stays
        });
    }

    pub(crate) fn device_addresses(&self) -> impl Iterator<Item = &Device> {
        self.device_index.values().filter_map(|&index| self.devices.at(index))
    }

    pub(crate) fn add_mapping(
        &mut self,
        protocol: Protocol,
        kind: Kind,
        internal: Endpoint,
        external: Endpoint,
        device: Index,
    ) -> Index {
        let mapping =
            Mapping { protocol, kind, internal, external, device, sessions: NIL, count: 0, spoken: 0 };
        debug_assert!(self.mappings.len() == 0 || self.wan == external.addr, "all mappings have one address");
        self.wan = external.addr;
        let index = self.mappings.insert(mapping);
        // Two forwards may lead to one internal endpoint; the first of them answers for it.
        if self.mapping_of_internal(protocol, internal).is_none() {
            let hash = self.secret.of_endpoint(protocol.number(), internal);
            let Self { by_internal, mappings, secret, .. } = self;
            by_internal.insert_unique(hash, index, |&other| {
                mappings.at(other).map_or(0, |m| secret.of_endpoint(m.protocol.number(), m.internal))
            });
        }
        let hash = self.secret.of_endpoint(protocol.number(), external);
        let Self { by_external, mappings, secret, .. } = self;
        by_external.insert_unique(hash, index, |&other| {
            mappings.at(other).map_or(0, |m| secret.of_endpoint(m.protocol.number(), m.external))
        });
        self.ports_mut(protocol).take(external.id.0);
        index
    }

    /// Ends a mapping that has no sessions left.
    pub(crate) fn remove_mapping(&mut self, index: Index) {
        let Some(mapping) = self.mappings.remove(index) else { return };
        let protocol = mapping.protocol.number();
        let hash = self.secret.of_endpoint(protocol, mapping.internal);
        if let Ok(entry) = self.by_internal.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        let hash = self.secret.of_endpoint(protocol, mapping.external);
        if let Ok(entry) = self.by_external.find_entry(hash, |&other| other == index) {
            entry.remove();
        }
        self.ports_mut(mapping.protocol).give_back(mapping.external.id.0);
    }

    /// Enters a session that ends at `deadline`. Neither of its tuples may be in use.
    pub(crate) fn add_session(&mut self, now: Timestamp, deadline: Tick, new: &NewSession) -> Option<Index> {
        let mapping = self.mappings.at_mut(new.mapping)?;
        let (device, next) = (mapping.device, mapping.sessions);
        let number = DeviceNumber::new(device)?;
        let external = new.external.id;
        let mut session = Session::new(now, &new.outbound, external, new.origin, number, mapping.kind);
        session.deadline = deadline;
        session.set_kernel_known(new.kernel_known);
        let index = self.sessions.insert(session);
        mapping.sessions = index;
        mapping.count += 1;
        let margin = Margin {
            created: now,
            mapping: new.mapping,
            bucket: self.buckets.enter(index, deadline),
            stray: None,
            packets: [0; 2],
            bytes: [0; 2],
            next,
            previous: NIL,
        };
        match self.margins.get_mut(index as usize) {
            Some(place) => *place = margin,
            None => self.margins.push(margin), // new places are given out in order
        }
        if let Some(neighbour) = self.margins.get_mut(next as usize) {
            neighbour.previous = index;
        }
        if let Some(device) = self.devices.at_mut(device) {
            device.sessions += 1;
            device.unanswered += u32::from(new.origin == Direction::Inbound);
        }
        self.count(new.outbound.protocol, 1);
        for direction in [Direction::Outbound, Direction::Inbound] {
            let flow = FlowRef::new(index, direction).0;
            let Self { flows, sessions, secret, wan, .. } = self;
            let hash_of = |flow| hash_of(sessions, secret, *wan, flow);
            flows.insert(hash_of(flow), flow, hash_of);
        }
        Some(index)
    }

    /// The device has spoken on this session for the first time.
    pub(crate) fn speak(&mut self, index: Index) {
        let Some((session, margin)) = self.session_mut(index) else { return };
        session.set_spoken();
        let (mapping, remote) = (margin.mapping, session.remote().addr);
        let (answers, device) = (session.origin() == Direction::Inbound, session.device.index());
        if let Some(device) = self.devices.at_mut(device) {
            device.unanswered -= u32::from(answers);
        }
        if let Some(mapping) = self.mappings.at_mut(mapping) {
            mapping.spoken += 1;
        }
        let hash = self.secret.of_pair(mapping, remote.into());
        let Self { permits, secret, .. } = self;
        let entry = permits.entry(
            hash,
            |p| p.mapping == mapping && p.remote == remote,
            |p| secret.of_pair(p.mapping, p.remote.into()),
        );
        entry.or_insert(Permit { mapping, remote, count: 0 }).get_mut().count += 1;
    }

    /// Ends a session; if its mapping's device has nothing left that it spoke on, the mapping with all its
    /// sessions too.
    pub(crate) fn remove_session(&mut self, index: Index) {
        let Some(mapping) = self.unlink(index) else { return };
        let Some(state) = self.mappings.at(mapping) else { return };
        if state.spoken > 0 || (state.kind == Kind::Forwarded && state.count > 0) {
            return;
        }
        self.end_mapping(mapping);
    }

    /// Ends a mapping and all its sessions.
    pub(crate) fn end_mapping(&mut self, mapping: Index) {
        while let Some(head) = self.mappings.at(mapping).map(|m| m.sessions) {
            if self.unlink(head).is_none() {
                break;
            }
        }
        self.remove_mapping(mapping);
    }

    /// Takes a session out of every index; answers its mapping.
    fn unlink(&mut self, index: Index) -> Option<Index> {
        self.sessions.at(index)?;
        for direction in [Direction::Outbound, Direction::Inbound] {
            let flow = FlowRef::new(index, direction).0;
            let Self { flows, sessions, secret, wan, .. } = &mut *self;
            let hash_of = |flow| hash_of(sessions, secret, *wan, flow);
            flows.remove(hash_of(flow), flow, hash_of);
        }
        let session = self.sessions.remove(index)?;
        let Margin { mapping, next, previous, .. } = *self.margins.get(index as usize)?;
        if let Some(neighbour) = self.margins.get_mut(next as usize) {
            neighbour.previous = previous;
        }
        if let Some(neighbour) = self.margins.get_mut(previous as usize) {
            neighbour.next = next;
        }
        if let Some(mapping) = self.mappings.at_mut(mapping) {
            if mapping.sessions == index {
                mapping.sessions = next;
            }
            mapping.count -= 1;
            mapping.spoken -= u32::from(session.is_spoken());
        }
        if session.is_spoken() {
            let remote = session.remote().addr;
            let hash = self.secret.of_pair(mapping, remote.into());
            if let Ok(mut permit) =
                self.permits.find_entry(hash, |p| p.mapping == mapping && p.remote == remote)
            {
                permit.get_mut().count -= 1;
                if permit.get().count == 0 {
                    permit.remove();
                }
            }
        }
        if let Some(device) = self.devices.at_mut(session.device.index()) {
            device.sessions -= 1;
            device.unanswered -= u32::from(session.origin() == Direction::Inbound && !session.is_spoken());
        }
        self.count(session.protocol(), -1);
        log::debug!(
            "session ends: {} {} → {} ⇒ {}, {}",
            session.protocol(),
            session.internal(),
            session.external(self.wan),
            session.remote(),
            session.state().name()
        );
        Some(mapping)
    }

    fn count(&mut self, protocol: Protocol, change: i32) {
        if let Some(count) = self.per_protocol.get_mut(protocol.index()) {
            *count = count.saturating_add_signed(change);
        }
    }

    /// Moves a session's end.
    #[inline]
    pub(crate) fn postpone(&mut self, index: Index, deadline: Tick) {
        let Self { sessions, margins, buckets, .. } = self;
        let Some(session) = sessions.at_mut(index) else { return };
        let before = core::mem::replace(&mut session.deadline, deadline);
        if deadline >= before {
            return;
        }
        if let Some(margin) = margins.get_mut(index as usize) {
            if deadline.as_secs_rounded_up() < margin.bucket {
                margin.bucket = buckets.enter(index, deadline);
            }
        }
    }

    /// When to call [`Self::expired`] next.
    pub(crate) fn next_expiry(&self) -> Option<Timestamp> {
        self.buckets.next()
    }

    /// Sessions whose time is up at `now`, one second's worth; `None` when nothing is due.
    pub(crate) fn expired(&mut self, now: Timestamp) -> Option<Vec<Index>> {
        let (second, due) = self.buckets.due(now)?;
        Some(due.into_iter().filter(|&index| self.is_over(index, second, now)).collect())
    }

    fn is_over(&mut self, index: Index, second: Second, now: Timestamp) -> bool {
        let Self { sessions, margins, buckets, .. } = self;
        let (Some(session), Some(margin)) = (sessions.at(index), margins.get_mut(index as usize)) else {
            return false;
        };
        if margin.bucket != second {
            return false;
        }
        let over = Timestamp::from(session.deadline) <= now;
        if !over {
            margin.bucket = buckets.enter(index, session.deadline);
        }
        over
    }
}

fn hash_of(sessions: &Slab<Session>, secret: &Secret, wan: Ipv4Addr, flow: u32) -> u64 {
    let flow = FlowRef(flow);
    let session = sessions.at(flow.session());
    session.map_or(0, |session| secret.of_tuple(&session.shown(flow.direction(), wan)))
}
