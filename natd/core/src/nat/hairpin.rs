//! From one device to another through the WAN address (RFC 4787 REQ-9).
//!
//! The packet crosses the NAT twice on its way: outbound over the sender's session, inbound over the
//! receiver's. The kernel would take a packet from the LAN whose source is the WAN address for a forgery, so
//! the two halves are carried out at two places: the destination before routing, the source after it, where
//! the mark of the first half calls for the second. Between them, conntrack and the firewall see the two
//! devices as they are.
//!
//! Example: 192.168.1.11:4000 sends to 198.51.100.1:5000, the mapping of 192.168.1.12:5000. Before routing the
//! destination becomes 192.168.1.12:5000; afterwards the source becomes 198.51.100.1:4000.

use super::{
    Admission, Body, Decision, Direction, DropReason, Forward, Nat, PacketView, Timestamp, Tuple,
    admission_of,
};

impl Nat {
    /// A packet from the LAN to the WAN address, before routing.
    pub fn hairpin_in(&mut self, now: Timestamp, packet: &PacketView<'_>) -> Decision {
        let Some(wan) = self.wan.filter(|&wan| wan == packet.dst) else { return self.pass(packet) };
        let tuple = match packet.body {
            Body::Tcp(_) | Body::Udp { .. } => packet.tuple(),
            Body::IcmpError(ref error) => return self.hairpin_error_in(packet, error),
            Body::IcmpQuery { .. } | Body::Other(_) => None, // the router answers
            Body::Fragment => return self.refuse(DropReason::Fragment),
        };
        let Some(tuple) = tuple else { return self.pass(packet) };
        if !self.is_devices(&tuple) {
            return self.pass(packet);
        }
        if !self.policy.hairpin {
            return self.refuse(DropReason::HairpinRefused);
        }
        match self.hairpin(now, packet, &tuple, wan) {
            Ok(Some(decision)) => decision,
            Ok(None) => self.pass(packet),
            Err(DropReason::Filtered) => self.refuse(DropReason::HairpinRefused),
            Err(reason @ (DropReason::TableFull | DropReason::DeviceQuota | DropReason::NoPort)) => {
                self.refuse_session(now, packet, reason)
            }
            Err(reason) => self.refuse(reason),
        }
    }

    fn hairpin(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        wan: core::net::Ipv4Addr,
    ) -> Result<Option<Decision>, DropReason> {
        let sender = match self.tables.flow(tuple) {
            Some((index, Direction::Outbound)) => index,
            Some((_, Direction::Inbound)) | None => self.begin_outbound(now, packet, tuple, wan, false)?,
        };
        let seen_outside = self
            .tables
            .sessions
            .at(sender)
            .ok_or(DropReason::Internal)?
            .translated(Direction::Outbound, self.tables.wan());
        self.account(now, sender, Direction::Outbound, packet)?;
        let Some(receiver) = self.reach(now, packet, &seen_outside)? else { return Ok(None) };
        let stale = self.account(now, receiver, Direction::Inbound, packet)?;
        let session = self.tables.sessions.at(receiver).ok_or(DropReason::Internal)?;
        let between = Tuple { protocol: tuple.protocol, src: tuple.src, dst: session.internal() };
        // The receiver's session names its peer by the WAN address; conntrack knows both by their own.
        let admission = stale.map(|_| Admission {
            original: match session.origin() {
                Direction::Inbound => between.into(),
                Direction::Outbound => between.reverse().into(),
            },
            ..admission_of(session, &self.policy, &packet.body)
        });
        Ok(Some(Decision::Forward(Forward {
            admission,
            hairpin: true,
            ..Forward::between(packet, tuple, &between)
        })))
    }

    /// The same packet, after routing: its source becomes the sender's external endpoint.
    pub fn hairpin_out(&mut self, packet: &PacketView<'_>) -> Decision {
        if let Body::IcmpError(ref error) = packet.body {
            return self.hairpin_error_out(packet, error);
        }
        if let Body::IcmpQuery { .. } = packet.body {
            return self.pass(packet); // has had no first pass
        }
        let Some(tuple) = packet.tuple() else { return self.pass(packet) };
        // The receiver's external endpoint leads to the sender's session, and that to the very port that the
        // receiver used; a sender behind two forwards has two.
        let by_session = self.external_of(tuple.protocol, tuple.dst).and_then(|receiver| {
            let flow = Tuple { protocol: tuple.protocol, src: tuple.src, dst: receiver };
            let (index, _) = self.tables.flow(&flow)?;
            self.tables.sessions.at(index).map(|session| session.external(self.tables.wan()))
        });
        let Some(external) = by_session.or_else(|| self.external_of(tuple.protocol, tuple.src)) else {
            return self.refuse(DropReason::NoSession);
        };
        self.counters.hairpin.add(packet.total_len);
        let shown = Tuple { protocol: tuple.protocol, src: external, dst: tuple.dst };
        Decision::Forward(Forward::between(packet, &tuple, &shown))
    }
}
