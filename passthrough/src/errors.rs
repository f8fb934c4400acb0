//! ICMP errors about VPN packets: who sent the packet that they quote, and what they may say of the NAT.

use nat_core::decision::{Decision, DropReason, Forward};
use nat_core::flow::{Direction, Endpoint, Tuple};
use nat_core::nat::{Nat, Origin};
use nat_core::packet::{Body, IcmpError, PacketView};
use nat_core::time::Timestamp;

use crate::carry::Key;
use crate::esp::EspHeader;
use crate::l2tp::message::PORT as L2TP;
use crate::{AH, ESP, GRE, L2TP_IP, Passthrough, carry, is_pptp_gre, pptp};

impl Passthrough {
    /// An ICMP error from the WAN that quotes a packet of a VPN.
    pub(super) fn error_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let owner = match quote.body {
            Body::Other(ESP) => {
                let sender = EspHeader::parse(quote.payload())
                    .and_then(|header| self.ipsec.esp_sender(quote.dst, header.spi.0));
                sender.map(|device| (device, 0))
            }
            Body::Other(GRE) if is_pptp_gre(quote.payload()) => {
                let id = pptp::packets::call_id(&quote);
                id.and_then(|id| {
                    let device = self.pptp.quoted_outbound(quote.dst, id)?;
                    Some((device, id.0))
                })
            }
            Body::Other(GRE | L2TP_IP) => self.keyed.sender_of(&quote).map(|device| (device, 0)),
            Body::Udp { .. } => {
                let shared = self.ipsec.ike_error(error).or_else(|| self.l2tp_error(&quote).map(Ok));
                return match shared {
                    None => self.error_by_nat(now, packet, nat),
                    Some(Err(reason)) => nat.refuse(reason),
                    Some(Ok(device)) => match nat.judge_error(error) {
                        Some(reason) => nat.refuse(reason),
                        None => self.error_about_shared(now, packet, error, device, nat),
                    },
                };
            }
            Body::Tcp(_) => return self.error_by_nat(now, packet, nat),
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => None,
        };
        let sent_by_us = quote.src == packet.dst;
        let Some((device, key)) = owner.filter(|_| sent_by_us) else {
            // The router's own, or nobody's: the kernel knows.
            return if sent_by_us && self.is_routers(now, &quote) {
                Decision::Pass
            } else {
                nat.refuse(DropReason::UnknownQuote)
            };
        };
        if let Some(reason) = nat.judge_error(error) {
            return nat.refuse(reason);
        }
        let outer = (packet.src, device);
        match Forward::of_error(packet, error, outer, (device, quote.dst), None) {
            Some(mut forward) => {
                nat.carried(now, Direction::Inbound, device, packet.total_len);
                // The firewall must see that the error is related to something.
                let about = PacketView { src: quote.dst, ..quote };
                let mut admission = carry::admission(&about, device, Key::None);
                admission.original.dst.id.0 = key; // GRE version 1: the Call ID in packets from the device
                forward.admission = Some(admission);
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    pub(super) fn error_about_shared(
        &self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        device: Endpoint,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let Some(shown) = quote.tuple() else { return nat.refuse(DropReason::Malformed) };
        let original = Tuple { src: device, ..shown };
        match Forward::of_udp_error(packet, error, (packet.src, device.addr), &shown, &original) {
            Some(mut forward) => {
                nat.carried(now, Direction::Inbound, device.addr, packet.total_len);
                forward.admission = Some(carry::udp_admission(device, shown.dst));
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    pub(super) fn error_by_nat(&self, now: Timestamp, packet: &PacketView<'_>, nat: &mut Nat) -> Decision {
        match nat.inbound(now, packet, false) {
            Decision::Drop(DropReason::UnknownQuote) if self.is_alone() => Decision::Pass,
            decision @ (Decision::Forward(_) | Decision::Pass | Decision::Hold(_) | Decision::Drop(_)) => {
                decision
            }
        }
    }

    /// Which device sent the datagram from the shared port 1701 that an ICMP error from the WAN quotes?
    pub(super) fn l2tp_error(&self, quote: &PacketView<'_>) -> Option<Endpoint> {
        let tuple = quote.tuple().filter(|tuple| tuple.src.id.0 == L2TP)?;
        self.l2tp.quoted(tuple.dst, quote.payload().get(8..)?)
    }

    pub(super) fn is_routers(&self, now: Timestamp, quote: &PacketView<'_>) -> bool {
        match quote.body {
            Body::Other(ESP | AH) => self.ipsec.router_spoke(quote.dst),
            Body::Other(protocol @ (GRE | L2TP_IP)) => self.router_spoke(now, quote.dst, protocol),
            Body::Other(_) => true,
            Body::Tcp(_)
            | Body::Udp { .. }
            | Body::IcmpQuery { .. }
            | Body::IcmpError(_)
            | Body::Fragment => false,
        }
    }

    /// An ICMP error on its way to the WAN that quotes a packet of a VPN.
    pub(super) fn error_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        origin: Origin,
        nat: &mut Nat,
    ) -> Decision {
        let Ok(quote) = PacketView::parse_quote(error.quote) else {
            return nat.refuse(DropReason::Malformed);
        };
        let edit = match quote.body {
            Body::Other(ESP) => {
                let got = EspHeader::parse(quote.payload())
                    .is_some_and(|header| self.ipsec.esp_received(quote.dst, quote.src, header.spi.0));
                got.then_some(None)
            }
            Body::Other(GRE) if is_pptp_gre(quote.payload()) => {
                let id = pptp::packets::call_id(&quote);
                id.and_then(|id| {
                    let outside = self.pptp.quoted_inbound(quote.dst, quote.src, id)?;
                    Some(carry::word(&quote, pptp::packets::CALL_ID_AT, id.0, outside.0))
                })
            }
            Body::Other(GRE | L2TP_IP) => self.keyed.has_received(&quote).then_some(None),
            Body::Udp { .. } if self.came_to_shared(&quote) => {
                return self.error_of_shared(now, packet, error, &quote, nat);
            }
            Body::Tcp(_) | Body::Udp { .. } => return nat.outbound(now, packet, origin),
            Body::IcmpQuery { .. } | Body::IcmpError(_) | Body::Fragment | Body::Other(_) => None,
        };
        let Some(edit) = edit else {
            return if origin == Origin::Router {
                nat.outbound(now, packet, origin)
            } else {
                nat.refuse(DropReason::UnknownQuote)
            };
        };
        if let Some(reason) = nat.judge_error(error) {
            return nat.refuse(reason);
        }
        let Some(wan) = nat.address() else { return nat.refuse(DropReason::NoAddress) };
        match Forward::of_error(packet, error, (wan, packet.dst), (quote.src, wan), edit) {
            Some(forward) => {
                nat.carried(now, Direction::Outbound, quote.dst, packet.total_len);
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }

    /// Did the datagram come to the shared port 1701?
    pub(super) fn came_to_shared(&self, quote: &PacketView<'_>) -> bool {
        quote.tuple().is_some_and(|tuple| self.l2tp.shares(tuple.dst, tuple.src.addr))
    }

    /// A device complains of a datagram that came to the shared port 1701.
    pub(super) fn error_of_shared(
        &self,
        now: Timestamp,
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        quote: &PacketView<'_>,
        nat: &mut Nat,
    ) -> Decision {
        if let Some(reason) = nat.judge_error(error) {
            return nat.refuse(reason);
        }
        let Some(wan) = nat.address() else { return nat.refuse(DropReason::NoAddress) };
        let Some(shown) = quote.tuple() else { return nat.refuse(DropReason::Malformed) };
        let original = Tuple { dst: Endpoint::new(wan, L2TP), ..shown };
        match Forward::of_udp_error(packet, error, (wan, packet.dst), &shown, &original) {
            Some(forward) => {
                nat.carried(now, Direction::Outbound, shown.dst.addr, packet.total_len);
                Decision::Forward(forward)
            }
            None => nat.refuse(DropReason::Malformed),
        }
    }
}
