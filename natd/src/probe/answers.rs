//! What comes back.

use std::net::IpAddr;

use nat_core::time::Timestamp;

use super::bytes::Reader;
use super::ike::{self, Version};
use super::ladder::{self, Lane};
use super::messages::{self, Icmp, L2tpAnswer, Quoted};
use super::{Action, Carrier, Control, Cutting, Kind, Nat, Outgoing, Probe, Said, Service, Slot};

impl Probe {
    /// The packet of the last action could not be sent from this machine: it is larger than the interface carries
    /// (`TooBig`), or not allowed (`Prohibited`), or there is no way (`Unreachable`).
    pub fn unsent(&mut self, now: Timestamp, carrier: Carrier, said: Said) {
        let kind = match carrier {
            Carrier::Udp(Slot::Mtu, _) => Some(Kind::Mtu),
            Carrier::Udp(slot, _) => Self::kind_of(slot),
            Carrier::Esp => Some(Kind::Esp),
            Carrier::Gre => (!self.stepping).then_some(Kind::PptpGre),
            Carrier::Icmp => Some(if self.of(Kind::Ping).done { Kind::Mtu } else { Kind::Ping }),
        };
        if let (Some(Kind::Mtu), Said::TooBig(_)) = (kind, said) {
            self.search.too_big(now, None);
            return;
        }
        let local = self.target.local;
        match kind {
            Some(Kind::Esp) => self.ladder.refused(Lane::Esp, 1, local, said),
            Some(kind) => {
                let asked = self.of_mut(kind);
                asked.unsent = true;
                asked.said = Some((local, said));
                asked.done = true;
            }
            None if carrier == Carrier::Gre => self.ladder.refused(Lane::Gre, 1, local, said),
            None => self.ladder.refused(Lane::Udp, 1, local, said),
        }
    }

    /// A packet came: who sent it, its IP protocol, and what follows the IP header.
    pub fn packet(&mut self, now: Timestamp, from: IpAddr, protocol: u8, bytes: &[u8]) {
        let ours = from == self.target.server;
        match protocol {
            17 if ours => self.udp(now, bytes),
            47 if ours => self.gre(now, bytes),
            1 | 58 => match messages::icmp(protocol == 58, bytes) {
                Some(Icmp::Echo { id, sequence }) if ours && id == self.seed.echo => {
                    if sequence == 0 {
                        self.answered(Kind::Ping);
                    } else {
                        self.search.answered(now, sequence);
                    }
                }
                Some(Icmp::Error { said, to, quoted }) if to == self.target.server => {
                    self.error(now, from, said, quoted);
                }
                Some(Icmp::Echo { .. } | Icmp::Error { .. }) | None => {}
            },
            _ => {}
        }
    }

    fn answered(&mut self, kind: Kind) {
        let asked = self.of_mut(kind);
        if asked.sent > 0 {
            asked.answered = true;
            asked.done = true;
        }
    }

    fn udp(&mut self, now: Timestamp, bytes: &[u8]) {
        let mut reader = Reader(bytes);
        let Some([from, to, _, _]) = reader.array::<8>().map(|header| {
            let [a, b, c, d, ..] = header;
            [u16::from_be_bytes([a, b]), u16::from_be_bytes([c, d]), 0, 0]
        }) else {
            return;
        };
        let payload = reader.0;
        let message = if from == 4500 { payload.strip_prefix(&[0; 4]).unwrap_or_default() } else { payload };
        if matches!(from, 500 | 4500) {
            let Some(answer) = ike::answer(message) else { return };
            if answer.invalid_spi == Some(self.seed.spi) {
                self.invalid_spi = true;
                for ttl in 1..=ladder::HOPS {
                    // Which of them it was cannot be told; the one that went farthest at most.
                    if self.ladder.heard() < ttl {
                        self.ladder.arrived(Lane::Esp, ttl);
                        break;
                    }
                }
                return;
            }
            self.ike(now, to, answer);
            return;
        }
        if from == 1701 && to == self.port(Slot::L2tp) {
            if let Some(answer) = messages::l2tp_answer(payload) {
                if let (L2tpAnswer::Open { theirs }, None) = (answer, self.l2tp) {
                    self.queue.push_back(Action::Send(Outgoing {
                        carrier: Carrier::Udp(Slot::L2tp, 1701),
                        hops: None,
                        cutting: Cutting::Allowed,
                        bytes: messages::l2tp_stop(self.seed.tunnel, theirs),
                    }));
                }
                self.l2tp.get_or_insert(answer);
                self.answered(Kind::L2tp);
            }
        } else if from == 1194 && to == self.port(Slot::OpenVpn) && messages::is_openvpn_answer(payload) {
            self.answered(Kind::OpenVpn);
        }
    }

    fn ike(&mut self, now: Timestamp, to: u16, answer: ike::Answer) {
        let Some(slot) = Slot::ALL.into_iter().find(|slot| self.port(*slot) == to) else { return };
        let [.., number] = answer.initiator;
        let Some(kind) = Self::kind_of(slot) else {
            if answer.initiator != self.seed.ike_spi(number) {
                return;
            }
            match (slot, number) {
                (Slot::Ladder, 0x80..) => self.ladder.arrived(Lane::Udp, number & 0x7f),
                (Slot::Mtu, 0x40..0x80) => self.search.answered(now, u16::from(number & 0x3f)),
                _ => {}
            }
            return;
        };
        if answer.initiator != self.seed.ike_spi(kind as u8) || self.of(kind).sent == 0 {
            return;
        }
        let version = if answer.major == 1 { Version::One } else { Version::Two };
        // A server that knows only version 1 may answer version 2 with a refusal: the same version then.
        self.version.get_or_insert(version);
        self.answered(kind);
        let [five, four] = &mut self.answers;
        let (place, cookie) = match (kind, &mut self.cookies) {
            (Kind::Ike500, [cookie, _]) => (five, cookie),
            (Kind::Ike4500, [_, cookie]) => (four, cookie),
            _ => return,
        };
        // The one that says from where it saw us come is the best, a second refusal no better than the first.
        let better = |before: ike::Answer| {
            before.destination_hash.is_none() && !(before.refuses() && answer.refuses())
        };
        let first_refusal = answer.refuses() && !place.is_some_and(|before| before.refuses());
        if place.is_none_or(better) {
            *place = Some(answer);
        }
        if answer.destination_hash.is_none() {
            // It does with another group, and with the cookie that it asks for.
            let group = answer.group.filter(|group| *group != self.group && ike::knows(*group));
            let news = answer.cookie.is_some() && answer.cookie != *cookie;
            *cookie = answer.cookie.or(*cookie);
            self.group = group.unwrap_or(self.group);
            let asked = self.of_mut(kind);
            if (news || group.is_some()) && asked.again < 2 {
                asked.again += 1;
                asked.sent += 1;
                let message = self.message(kind, now);
                self.queue.push_back(Action::Send(message));
            } else if first_refusal && version == Version::Two && asked.again < 2 {
                asked.again += 1;
                asked.sent += 1;
                // The other version once: servers that know only that one refuse this one. What else is asked of it
                // stays with the version that surely gets an answer.
                let known = self.version.replace(Version::One);
                let message = self.message(kind, now);
                self.version = known;
                self.queue.push_back(Action::Send(message));
            }
            return;
        }
        self.nats = [Kind::Ike500, Kind::Ike4500].map(|kind| match self.nat(kind) {
            Nat::Unknown => self.seen_as(kind),
            known @ (Nat::None | Nat::Port(_) | Nat::Address) => known,
        });
    }

    fn gre(&mut self, _now: Timestamp, bytes: &[u8]) {
        let ours = messages::gre_call(bytes).is_some_and(|(call, _)| call == self.seed.call);
        if !ours || !matches!(self.control, Control::Calling | Control::Call(_)) {
            return;
        }
        // Servers send LCP of their own accord: it shows the way in, not the way out.
        self.gre_in = true;
        if messages::gre_answers(bytes) {
            self.answered(Kind::PptpGre);
            if self.stepping {
                self.ladder.arrived(Lane::Gre, self.ladder.heard() + 1);
            }
        }
    }

    fn error(&mut self, now: Timestamp, from: IpAddr, said: Said, quoted: Quoted) {
        let server = from == self.target.server;
        let (lane, ttl) = match quoted {
            Quoted::Udp { from: port, length } if port == self.port(Slot::Ladder) => {
                let lengths =
                    (1..=ladder::HOPS).find(|ttl| self.ladder_init(*ttl).len() + 8 == usize::from(length));
                (Lane::Udp, lengths)
            }
            Quoted::Esp { spi, sequence } if spi == self.seed.spi => (Lane::Esp, u8::try_from(sequence).ok()),
            Quoted::Gre { call, length } if call == self.ladder_call() && self.stepping => {
                let plain = messages::gre(call, 0, 0).len() - 12;
                let filler = usize::from(length).checked_sub(plain + 6);
                (Lane::Gre, filler.and_then(|filler| u8::try_from(filler).ok()))
            }
            Quoted::Gre { .. } => return self.refused(Kind::PptpGre, from, said),
            Quoted::Tcp { to } if to == Service::Pptp.port() => {
                return self.of_mut(Kind::Pptp).said = Some((from, said));
            }
            Quoted::Tcp { to } if to == Service::Tls.port() => {
                return self.of_mut(Kind::Tls).said = Some((from, said));
            }
            Quoted::Echo { id, sequence } if id == self.seed.echo => {
                return match said {
                    Said::TooBig(mtu) if sequence > 0 => self.too_big(now, from, mtu),
                    Said::TimeExceeded
                    | Said::NoPort
                    | Said::NoProtocol
                    | Said::Prohibited
                    | Said::Unreachable
                    | Said::TooBig(_) => self.refused(Kind::Ping, from, said),
                };
            }
            Quoted::Udp { from: port, .. } if port == self.port(Slot::Mtu) => {
                if let Said::TooBig(mtu) = said {
                    self.too_big(now, from, mtu);
                }
                return;
            }
            Quoted::Udp { from: port, .. } => {
                let slot = Slot::ALL.into_iter().find(|slot| self.port(*slot) == port);
                if let Some(kind) = slot.and_then(Self::kind_of) {
                    self.refused(kind, from, said);
                }
                return;
            }
            Quoted::Esp { .. } | Quoted::Tcp { .. } | Quoted::Echo { .. } => return,
        };
        let Some(ttl) = ttl else { return };
        match said {
            Said::TimeExceeded => self.ladder.passed(lane, ttl, from),
            Said::NoPort | Said::NoProtocol | Said::Prohibited | Said::Unreachable if server => {
                self.ladder.arrived(lane, ttl);
            }
            Said::NoPort | Said::NoProtocol | Said::Prohibited | Said::Unreachable => {
                self.ladder.refused(lane, ttl, from, said);
            }
            Said::TooBig(_) => {}
        }
    }

    fn too_big(&mut self, now: Timestamp, from: IpAddr, mtu: Option<u16>) {
        let hop = self.ladder.routers().find(|(_, router)| *router == from).map(|(hop, _)| hop);
        self.search.told(from, hop);
        self.search.too_big(now, mtu);
    }

    fn refused(&mut self, kind: Kind, from: IpAddr, said: Said) {
        let asked = self.of_mut(kind);
        if asked.sent > 0 && !asked.answered {
            asked.said = Some((from, said));
            // A server may answer a call before it listens for its GRE.
            asked.done = kind != Kind::PptpGre;
        }
    }
}
