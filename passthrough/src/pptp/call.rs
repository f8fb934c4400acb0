//! The calls, and the Call IDs that stand for them on the WAN.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::ops::RangeInclusive;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;

use super::message::Asked;
use super::{CallId, CallRef, Connection, GRACE, Limits, QUARANTINE, REQUEST_LIFETIME, Refusal, Traffic};
use crate::sorted::{SortedMap, SortedSet};

/// How far a call is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// The device asked for it; the answer is awaited.
    Asked(Asked),
    /// The device is just answering the remote's request.
    Answering,
    /// GRE flows.
    Up,
    /// Over since then; its last packets may still arrive.
    Ended(Timestamp),
}

/// One call of a device.
#[derive(Debug)]
pub(super) struct Call {
    pub(super) connection: Connection,
    pub(super) phase: Phase,
    /// The device's Call ID as the device knows it.
    pub(super) inside: CallId,
    /// The same as the remote knows it: no other call with that remote has it.
    pub(super) outside: CallId,
    /// The remote's Call ID, never changed; unknown until the remote has told it.
    pub(super) remote: Option<CallId>,
    pub(super) since: Timestamp,
    /// When it is to be looked at again.
    due: Option<Timestamp>,
    pub(super) outbound: Traffic,
    pub(super) inbound: Traffic,
}

/// All calls, and the ways to find one.
#[derive(Debug, Default)]
pub(super) struct Calls {
    calls: SortedMap<CallRef, Call>,
    by_inside: SortedMap<(Connection, CallId), CallRef>,
    by_outside: SortedMap<(Ipv4Addr, CallId), CallRef>,
    /// Remote address, its Call ID, device. A remote may use one Call ID on each of its connections.
    by_remote: SortedSet<(Ipv4Addr, CallId, Ipv4Addr, CallRef)>,
    due: SortedSet<(Timestamp, CallRef)>,
    next: u64,
    /// Rises with every call that comes up or is gone.
    pub(super) generation: u32,
}

impl Calls {
    pub(super) fn find(&self, call: CallRef) -> Option<&Call> {
        self.calls.get(&call)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (CallRef, &Call)> {
        self.calls.iter().map(|(&call, found)| (call, found))
    }

    /// The calls of one control connection.
    pub(super) fn of(&self, connection: Connection) -> impl Iterator<Item = CallRef> {
        let all = (connection, CallId(0))..=(connection, CallId(u16::MAX));
        self.by_inside.range(all).map(|(_, &call)| call)
    }

    /// The call of `connection` that its device knows as `inside`.
    pub(super) fn by_inside(&self, connection: Connection, inside: CallId) -> Option<CallRef> {
        self.by_inside.get(&(connection, inside)).copied()
    }

    /// The call that the remote host knows the device's side of as `outside`.
    pub(super) fn by_outside(&self, remote: Ipv4Addr, outside: CallId) -> Option<CallRef> {
        self.by_outside.get(&(remote, outside)).copied()
    }

    /// The calls of one device with `remote` whose other side is known as `id`.
    pub(super) fn by_remote(
        &self,
        remote: Ipv4Addr,
        id: CallId,
        device: Ipv4Addr,
    ) -> impl Iterator<Item = CallRef> {
        let all = (remote, id, device, CallRef::FIRST)..=(remote, id, device, CallRef::LAST);
        self.by_remote.range(all).map(|&(.., call)| call)
    }

    /// The devices that have calls with `remote` whose other side is known as `id`, in order.
    pub(super) fn devices_by_remote(&self, remote: Ipv4Addr, id: CallId) -> impl Iterator<Item = Ipv4Addr> {
        const NONE: Ipv4Addr = Ipv4Addr::UNSPECIFIED;
        let all = (remote, id, NONE, CallRef::FIRST)..=(remote, id, Ipv4Addr::BROADCAST, CallRef::LAST);
        self.by_remote.range(all).map(|&(_, _, device, _)| device)
    }

    /// A new call whose device calls itself `inside`; an older one of that connection and name gives way.
    pub(super) fn open(
        &mut self,
        now: Timestamp,
        connection: Connection,
        inside: CallId,
        phase: Phase,
        limits: &Limits,
    ) -> Result<CallId, Refusal> {
        if let Some(older) = self.by_inside(connection, inside) {
            self.remove(older);
        }
        let device = connection.device.addr;
        let full = self.of(connection).count() >= limits.calls_per_connection
            || self.calls.len() >= limits.calls
            || self.calls.values().filter(|call| call.connection.device.addr == device).count()
                >= limits.calls_per_device;
        if full {
            return Err(Refusal::CallLimit);
        }
        let outside = self.free(connection.remote.addr, inside).ok_or(Refusal::CallLimit)?;
        let reference = CallRef(self.next);
        self.next += 1;
        self.by_inside.insert((connection, inside), reference);
        self.by_outside.insert((connection.remote.addr, outside), reference);
        let call = Call {
            connection,
            phase,
            inside,
            outside,
            remote: None,
            since: now,
            due: None,
            outbound: Traffic::default(),
            inbound: Traffic::default(),
        };
        self.calls.insert(reference, call);
        self.schedule(reference, Some(now + REQUEST_LIFETIME));
        Ok(outside)
    }

    /// `inside` itself, or the next free name that differs in its low byte only: the high byte may have been
    /// let through before the low one is known.
    fn free(&self, remote: Ipv4Addr, inside: CallId) -> Option<CallId> {
        let [high, low] = inside.0.to_be_bytes();
        (0..=u8::MAX)
            .map(|step| CallId(u16::from_be_bytes([high, low.wrapping_add(step)])))
            .find(|&id| self.by_outside(remote, id).is_none())
    }

    /// The remote calls itself `id`, and the call is up.
    pub(super) fn connect(&mut self, reference: CallRef, id: CallId) {
        let Some(call) = self.calls.get_mut(&reference) else { return };
        let Connection { remote, device } = call.connection;
        call.phase = Phase::Up;
        if let Some(older) = call.remote.replace(id) {
            self.by_remote.remove(&(remote.addr, older, device.addr, reference));
        }
        self.by_remote.insert((remote.addr, id, device.addr, reference));
        self.generation = self.generation.wrapping_add(1);
        self.schedule(reference, None);
    }

    /// The call is over. Its name stays taken for a while, so that late packets reach nobody else.
    pub(super) fn end(&mut self, now: Timestamp, reference: CallRef) {
        let Some(call) = self.calls.get_mut(&reference) else { return };
        match call.phase {
            Phase::Ended(_) => {}
            Phase::Asked(_) | Phase::Answering | Phase::Up => {
                call.phase = Phase::Ended(now);
                self.generation = self.generation.wrapping_add(1);
                self.schedule(reference, Some(now + QUARANTINE));
            }
        }
    }

    /// Ends every call of a control connection.
    pub(super) fn end_all(&mut self, now: Timestamp, connection: Connection) {
        let calls: Vec<CallRef> = self.of(connection).collect();
        for call in calls {
            self.end(now, call);
        }
    }

    /// Forgets a call.
    pub(super) fn remove(&mut self, reference: CallRef) {
        self.schedule(reference, None);
        let Some(call) = self.calls.remove(&reference) else { return };
        let Connection { remote, device } = call.connection;
        self.by_inside.remove(&(call.connection, call.inside));
        self.by_outside.remove(&(remote.addr, call.outside));
        if let Some(id) = call.remote {
            self.by_remote.remove(&(remote.addr, id, device.addr, reference));
        }
        self.generation = self.generation.wrapping_add(1);
    }

    /// Forgets the calls whose time is over; how many of them had never been answered.
    pub(super) fn expire(&mut self, now: Timestamp) -> u32 {
        let mut unanswered = 0;
        while let Some(&(_, reference)) = self.due.first().filter(|(due, _)| *due <= now) {
            let ended = self.calls.get(&reference).is_some_and(|call| matches!(call.phase, Phase::Ended(_)));
            unanswered += u32::from(!ended);
            self.remove(reference);
        }
        unanswered
    }

    /// When [`Self::expire`] next has something to do.
    pub(super) fn next_due(&self) -> Option<Timestamp> {
        self.due.first().map(|&(due, _)| due)
    }

    /// Counts one packet of GRE, and answers what was counted before.
    pub(super) fn account(
        &mut self,
        now: Timestamp,
        call: CallRef,
        direction: Direction,
        bytes: u16,
    ) -> Traffic {
        let Some(call) = self.calls.get_mut(&call) else { return Traffic::default() };
        let traffic = match direction {
            Direction::Outbound => &mut call.outbound,
            Direction::Inbound => &mut call.inbound,
        };
        let before = *traffic;
        traffic.packets += 1;
        traffic.bytes += u64::from(bytes);
        traffic.first = before.first.or(Some(now));
        traffic.last = Some(now);
        before
    }

    fn schedule(&mut self, reference: CallRef, due: Option<Timestamp>) {
        let Some(call) = self.calls.get_mut(&reference) else { return };
        if let Some(before) = core::mem::replace(&mut call.due, due) {
            self.due.remove(&(before, reference));
        }
        if let Some(due) = due {
            self.due.insert((due, reference));
        }
    }

    /// Do the ways to find a call agree with the calls?
    pub(super) fn is_consistent(&self) -> bool {
        let found = |(&reference, call): (&CallRef, &Call)| {
            let Connection { remote, device } = call.connection;
            let scheduled = call.due.is_some_and(|due| self.due.contains(&(due, reference)));
            let named = match call.remote {
                Some(id) => self.by_remote.contains(&(remote.addr, id, device.addr, reference)),
                None => call.phase != Phase::Up,
            };
            self.by_inside(call.connection, call.inside) == Some(reference)
                && self.by_outside(remote.addr, call.outside) == Some(reference)
                && named
                && scheduled == (call.phase != Phase::Up)
        };
        let count = self.calls.len();
        let due = self.calls.values().filter(|call| call.due.is_some()).count();
        let named = self.calls.values().filter(|call| call.remote.is_some()).count();
        self.calls.iter().all(found)
            && self.by_inside.len() == count
            && self.by_outside.len() == count
            && self.by_remote.len() == named
            && self.due.len() == due
    }
}

impl Call {
    /// Does GRE of this call still flow?
    pub(super) fn flows(&self, now: Timestamp) -> bool {
        match self.phase {
            Phase::Up => true,
            // One that ended before it was up never has anything to say.
            Phase::Ended(at) => self.remote.is_some() && now.since(at) < GRACE,
            Phase::Asked(_) | Phase::Answering => false,
        }
    }
}

/// The connections with one remote address.
pub(super) const fn with_remote(remote: Ipv4Addr) -> RangeInclusive<Connection> {
    let first =
        Connection { remote: Endpoint::new(remote, 0), device: Endpoint::new(Ipv4Addr::UNSPECIFIED, 0) };
    let last = Connection {
        remote: Endpoint::new(remote, u16::MAX),
        device: Endpoint::new(Ipv4Addr::BROADCAST, u16::MAX),
    };
    first..=last
}
