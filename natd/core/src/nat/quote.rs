//! ICMP errors (RFC 5508 section 4): whose packet is quoted, and is the quote to be believed?
//!
//! An error may come from any router on the way, so its sender proves nothing (RFC 4787 REQ-12a); the quoted
//! packet does. It must be one that a live session sent, and a quoted TCP segment must still be in flight
//! (RFC 5927). An error never ends, shortens or refreshes anything here.

use core::net::Ipv4Addr;

use super::{
    Body, Decision, Direction, DropReason, Forward, Nat, Origin, PacketView, Timestamp, Tuple, admission_of,
};
use crate::flow::{Endpoint, Protocol};
use crate::packet::{FRAGMENTATION_NEEDED, IcmpError};
use crate::slab::Index;

/// RFC 1191 section 3 asks hosts for 68; every real link carries 576 (RFC 791), and less serves only attacks.
const SMALLEST_MTU: u16 = 576;
const SOURCE_QUENCH: u8 = 4;
const REDIRECT: u8 = 5;

/// A quoted packet that a session of ours sent.
pub(super) struct Quoted {
    pub(super) session: Index,
    /// What it shows in the quote.
    pub(super) shown: Tuple,
}

impl Nat {
    /// An ICMP error from the WAN to the WAN address. `local`: a socket of the router sent what it quotes.
    pub(super) fn inbound_error(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        local: bool,
    ) -> Decision {
        if error.kind == REDIRECT {
            return self.pass(packet); // about the router's own routes, and the kernel's to believe
        }
        let quoted = match self.quoted(error, Direction::Outbound) {
            Ok(quoted) => quoted,
            Err(Unquotable::Foreign) => return self.pass(packet),
            // Of connections to its own services there is no record here.
            Err(Unquotable::Refused(DropReason::UnknownQuote)) if local => return self.pass(packet),
            Err(Unquotable::Refused(reason)) => return self.refuse(reason),
        };
        let Some(session) = self.tables.sessions.at_mut(quoted.session) else {
            return self.refuse(DropReason::Internal);
        };
        let original = session.outbound();
        if original == quoted.shown {
            return self.pass(packet); // the router's own
        }
        // Conntrack must know the flow, or the firewall cannot see that the error is related to it.
        let stale = !session.is_kernel_known() || now.since(session.last_seen.into()) > self.patience;
        let admission = stale.then(|| admission_of(session, &self.policy, &packet.body));
        let outer = OuterAddresses { src: packet.src, dst: original.src.addr };
        self.counters.inbound.add(packet.total_len);
        rewrite_error(packet, error, outer, &quoted.shown, &original, admission)
    }

    /// An ICMP error on its way to the WAN, made by a device or by the router about a packet that came in.
    pub(super) fn outbound_error(
        &mut self,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        wan: Ipv4Addr,
        origin: Origin,
    ) -> Decision {
        if error.kind == REDIRECT {
            return self.refuse(DropReason::RefusedIcmp);
        }
        let quoted = match self.quoted(error, Direction::Inbound) {
            Ok(quoted) => quoted,
            Err(unquotable) => {
                // The router may complain of what was sent to itself, as long as no address of the LAN shows.
                let own = !self.in_lan(packet.src)
                    && PacketView::parse_quote(error.quote)
                        .is_ok_and(|q| !self.in_lan(q.dst) && !self.in_lan(q.src));
                return match unquotable {
                    _ if own && origin == Origin::Router => self.pass(packet),
                    Unquotable::Refused(reason) => self.refuse(reason),
                    Unquotable::Foreign => self.refuse(DropReason::UnsupportedProtocol),
                };
            }
        };
        let Some(session) = self.tables.sessions.at(quoted.session) else {
            return self.refuse(DropReason::Internal);
        };
        let original = session.inbound(self.tables.wan());
        let outer = OuterAddresses { src: wan, dst: packet.dst };
        self.counters.outbound.add(packet.total_len);
        rewrite_error(packet, error, outer, &quoted.shown, &original, None)
    }

    /// Which session sent the packet that `error` quotes? It was going in `direction` and is shown as it was
    /// on the side that the error comes from.
    fn quoted(&self, error: &IcmpError<'_>, direction: Direction) -> Result<Quoted, Unquotable> {
        let refused = |reason| Err(Unquotable::Refused(reason));
        if error.kind == SOURCE_QUENCH {
            return refused(DropReason::RefusedIcmp);
        }
        let Ok(quote) = PacketView::parse_quote(error.quote) else { return refused(DropReason::Malformed) };
        if matches!(quote.body, Body::Other(_)) {
            return Err(Unquotable::Foreign);
        }
        let Some(shown) = quote.tuple() else { return refused(DropReason::UnknownQuote) };
        // An answer to the quoted packet would show the reverse: that is the flow that we know it by.
        let Some((session, found)) = self.tables.flow(&shown.reverse()) else {
            return refused(DropReason::UnknownQuote);
        };
        if found != direction.reverse() {
            return refused(DropReason::UnknownQuote);
        }
        let Some(state) = self.tables.sessions.at(session) else { return refused(DropReason::Internal) };
        if let Body::Tcp(segment) = quote.body {
            if !state.tcp.has_in_flight(direction, segment.seq) {
                return refused(DropReason::StaleQuote);
            }
        }
        if let Some(reason) = self.judge_error(error) {
            return refused(reason);
        }
        Ok(Quoted { session, shown })
    }

    /// Must this error not pass, whatever it quotes?
    pub fn judge_error(&self, error: &IcmpError<'_>) -> Option<DropReason> {
        match (error.kind, error.code) {
            (SOURCE_QUENCH | REDIRECT, _) => Some(DropReason::RefusedIcmp), // RFC 6633
            FRAGMENTATION_NEEDED if error.mtu < SMALLEST_MTU => Some(DropReason::MtuTooSmall),
            _ => None,
        }
    }

    /// A device complains of a hairpinned packet: its error goes to the WAN address, where the peer seems to
    /// be. First pass; afterwards the error shows both devices as they are.
    pub(super) fn hairpin_error_in(&mut self, packet: &PacketView<'_>, error: &IcmpError<'_>) -> Decision {
        let Ok(quoted) = self.quoted(error, Direction::Inbound) else {
            // It may be about a packet of the router itself, such as an answer of one of its services.
            return self.pass(packet);
        };
        let Some(session) = self.tables.sessions.at(quoted.session) else {
            return self.refuse(DropReason::Internal);
        };
        let peer = self.tables.mapping_of_external(session.protocol(), session.remote());
        let Some(peer) = peer.and_then(|peer| self.tables.mappings.at(peer)) else {
            return self.refuse(DropReason::UnknownQuote);
        };
        let real = Tuple { protocol: quoted.shown.protocol, src: peer.internal, dst: quoted.shown.dst };
        let outer = OuterAddresses { src: packet.src, dst: peer.internal.addr };
        self.counters.inbound.add(packet.total_len);
        match rewrite_error(packet, error, outer, &quoted.shown, &real, None) {
            Decision::Forward(forward) => Decision::Forward(Forward { hairpin: true, ..forward }),
            other @ (Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => other,
        }
    }

    /// The second pass of such an error, or one that the router makes about a hairpinned packet: its receiver
    /// knows the other device only by its external endpoint.
    pub(super) fn hairpin_error_out(&mut self, packet: &PacketView<'_>, error: &IcmpError<'_>) -> Decision {
        let Some(wan) = self.wan else { return self.pass(packet) };
        // What cannot be read is not about a hairpinned packet, and stays on the LAN anyway.
        let Ok(quote) = PacketView::parse_quote(error.quote) else { return self.pass(packet) };
        let Some(shown) = quote.tuple() else { return self.pass(packet) };
        let Some(external) = self.external_of(shown.protocol, shown.dst) else { return self.pass(packet) };
        let known = Tuple { protocol: shown.protocol, src: shown.src, dst: external };
        if self.tables.flow(&known).is_none() {
            return self.pass(packet); // two devices that talk directly
        }
        let outer = OuterAddresses { src: wan, dst: packet.dst };
        self.counters.hairpin.add(packet.total_len);
        rewrite_error(packet, error, outer, &shown, &known, None)
    }

    /// The external endpoint that stands for `internal`.
    pub(super) fn external_of(&self, protocol: Protocol, internal: Endpoint) -> Option<Endpoint> {
        let mapping = self.tables.mapping_of_internal(protocol, internal)?;
        self.tables.mappings.at(mapping).map(|m| m.external)
    }
}

/// Why a quote leads to no session.
enum Unquotable {
    /// It is of a protocol that the NAT does not track.
    Foreign,
    /// It must not pass.
    Refused(DropReason),
}

/// The addresses that the error itself shall have.
struct OuterAddresses {
    src: Ipv4Addr,
    dst: Ipv4Addr,
}

/// The decision to forward `error` with new outer addresses and the quote changed from `shown` to `original`.
fn rewrite_error(
    packet: &PacketView<'_>,
    error: &IcmpError<'_>,
    outer: OuterAddresses,
    shown: &Tuple,
    original: &Tuple,
    admission: Option<crate::decision::Admission>,
) -> Decision {
    match Forward::of_udp_error(packet, error, (outer.src, outer.dst), shown, original) {
        Some(forward) => Decision::Forward(Forward { admission, ..forward }),
        None => Decision::Drop(DropReason::Malformed),
    }
}
