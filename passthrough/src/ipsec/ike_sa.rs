//! IKE SAs as they can be seen from the middle, and which port their device shows outside.
//!
//! The SPI that the initiator chose stands in clear in every message, on port 500 and on 4500. So several devices
//! can share the external port 500 with one server and still be told apart. That is for servers that know nothing
//! of NAT: where both sides know, an ordinary port is better, since servers that see a second client on 500 of one
//! address may take it for the first one come back.

use crate::sorted::SortedMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;

use super::Message;
use super::memory::KnownIkeSa;
use crate::ike::{Exchange, IkeHeader, IkeSpi, IkeVersion, NatT};

/// An IKE SA that nobody has answered is forgotten after this long.
const HALF_OPEN: Duration = Duration::from_secs(180);
/// IKE SAs of one device, and of all.
const MAX_PER_DEVICE: usize = 64;
const MAX: usize = 4096;
/// Quick Modes that are watched at one time.
const MAX_EXCHANGES: usize = 16;
/// How long it is remembered that a server wants port 500, and of how many pairs.
const NEED_MEMORY: Duration = Duration::from_secs(24 * 3600);
const MAX_NEEDS: usize = 256;
/// So many sends without an answer, and another port is tried.
const TRIES: u8 = 3;

/// One IKE SA.
#[derive(Clone, Debug)]
pub(super) struct IkeSa {
    pub(super) device: Endpoint,
    pub(super) responder: IkeSpi,
    version: IkeVersion,
    /// Its port on the WAN address.
    pub(super) external: u16,
    /// The external port 500 is another's too.
    pub(super) shared: bool,
    /// It went on to port 4500: ESP goes inside UDP (RFC 3947 section 4, RFC 7296 section 2.23).
    pub(super) floated: bool,
    offered: NatT,
    sends: u8,
    pub(super) answered: bool,
    pub(super) established: bool,
    pub(super) created: Timestamp,
    pub(super) last: Timestamp,
    /// Last payload inside UDP.
    pub(super) last_data: Option<Timestamp>,
    auth: Option<u32>,
    /// A request that waits for its response, until it is repeated.
    asked: Option<(Exchange, u32, Option<Timestamp>)>,
    /// To the remote host and back, the shortest seen.
    pub(super) round_trip: Option<Duration>,
    /// Quick Modes: message id, seen outbound, seen inbound.
    quick: Vec<(u32, bool, bool)>,
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
}

/// What a message says about pairs of ESP SPIs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Agreed {
    /// Nothing.
    Nothing,
    /// From now on a new pair may be in use; `anew`: and none before this message.
    Pair { exchange: u32, anew: bool },
}

/// Stands for the exchange that makes an IKE SA and its first pair, whatever its message id.
const AUTH: u32 = u32::MAX;
/// Set in the name of an exchange that the remote host began.
const REMOTE: u32 = 1 << 31;

/// All IKE SAs.
#[derive(Debug, Default)]
pub(super) struct IkeSas {
    sas: SortedMap<(Ipv4Addr, IkeSpi), IkeSa>,
    /// Servers that want port 500, of everyone or of one device.
    needs: SortedMap<(Ipv4Addr, Option<Ipv4Addr>), Timestamp>,
    /// Whose payload inside UDP belongs to which IKE SA.
    inside_udp: SortedMap<(Ipv4Addr, Endpoint), IkeSpi>,
    /// The list of IKE SAs, or what is lasting in them, has changed.
    pub(super) news: bool,
}

impl IkeSas {
    pub(super) fn get(&self, remote: Ipv4Addr, spi: IkeSpi) -> Option<&IkeSa> {
        self.sas.get(&(remote, spi))
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (Ipv4Addr, IkeSpi, &IkeSa)> {
        self.sas.iter().map(|(&(remote, spi), sa)| (remote, spi, sa))
    }

    /// IKE SAs with `remote`.
    pub(super) fn with(&self, remote: Ipv4Addr) -> impl Iterator<Item = (IkeSpi, &IkeSa)> {
        self.sas.range((remote, IkeSpi(0))..=(remote, IkeSpi(u64::MAX))).map(|(key, sa)| (key.1, sa))
    }

    /// Does `remote` want port 500 of `device`?
    pub(super) fn needs_500(&self, remote: Ipv4Addr, device: Ipv4Addr) -> bool {
        self.needs.contains_key(&(remote, None)) || self.needs.contains_key(&(remote, Some(device)))
    }

    fn need(&mut self, now: Timestamp, remote: Ipv4Addr, device: Option<Ipv4Addr>) {
        if self.needs.len() >= MAX_NEEDS && !self.needs.contains_key(&(remote, device)) {
            self.needs.pop_first();
        }
        self.needs.insert((remote, device), now);
    }

    /// Enters an IKE SA that `header` is a message of; `false` when the device has too many.
    pub(super) fn enter(
        &mut self,
        now: Timestamp,
        remote: Ipv4Addr,
        device: Endpoint,
        header: &IkeHeader,
        external: u16,
        shared: bool,
    ) -> bool {
        let of_device = self.sas.values().filter(|sa| sa.device.addr == device.addr).count();
        if of_device >= MAX_PER_DEVICE || self.sas.len() >= MAX {
            let oldest = self
                .sas
                .iter()
                .filter(|(_, sa)| sa.device.addr == device.addr && now.since(sa.last) > HALF_OPEN)
                .min_by_key(|(_, sa)| sa.last)
                .map(|(&key, _)| key);
            let Some(oldest) = oldest else { return false };
            self.sas.remove(&oldest);
        }
        let sa = IkeSa {
            device,
            responder: header.responder,
            version: header.version,
            external,
            shared,
            floated: false,
            offered: NatT::Unknown,
            sends: 0,
            answered: !header.begins(),
            established: false,
            created: now,
            last: now,
            last_data: None,
            auth: None,
            asked: None,
            round_trip: None,
            quick: Vec::new(),
            packets: [0; 2],
            bytes: [0; 2],
        };
        self.sas.insert((remote, header.initiator), sa);
        self.news = true;
        true
    }

    /// An IKE SA that was known before natd was restarted.
    pub(super) fn recall(&mut self, now: Timestamp, known: &KnownIkeSa) {
        let header = IkeHeader {
            initiator: known.initiator,
            responder: known.responder,
            next_payload: 0,
            version: if known.version == 1 { IkeVersion::V1 } else { IkeVersion::V2 },
            exchange: Exchange::Other(0),
            flags: 0,
            message_id: 0,
            length: 28,
        };
        if self.enter(now, known.remote, known.device, &header, known.external, known.shared) && known.floated
        {
            self.float(known.remote, known.initiator, known.device);
        }
        self.establish(known.remote, known.initiator);
    }

    /// The IKE SA of `device` that was last in use with `remote`, other than `except`.
    pub(super) fn latest(
        &self,
        remote: Ipv4Addr,
        device: Ipv4Addr,
        except: IkeSpi,
    ) -> Option<(IkeSpi, &IkeSa)> {
        self.with(remote)
            .filter(|(spi, sa)| sa.device.addr == device && *spi != except)
            .max_by_key(|(_, sa)| sa.last)
    }

    /// The IKE SA goes on from another endpoint of the LAN.
    pub(super) fn relocate(&mut self, remote: Ipv4Addr, spi: IkeSpi, to: Endpoint) {
        if let Some(sa) = self.sas.get_mut(&(remote, spi)) {
            sa.device = to;
            self.news = true;
        }
    }

    /// Takes a message of a known IKE SA into account, which `device` sent or gets. Where that is another one than
    /// the IKE SA's, which picked the same initiator SPI, it says nothing of this one.
    pub(super) fn observe(
        &mut self,
        now: Timestamp,
        remote: Ipv4Addr,
        device: Ipv4Addr,
        direction: Direction,
        message: &Message<'_>,
    ) -> Agreed {
        let Message { header, offer, len } = *message;
        let Some(sa) = self.sas.get_mut(&(remote, header.initiator)) else { return Agreed::Nothing };
        if sa.device.addr != device {
            return sa.agreed(direction, header);
        }
        sa.count(now, direction, len);
        sa.measure(now, direction, header);
        if header.responder != IkeSpi(0) && sa.responder != header.responder {
            sa.responder = header.responder;
            self.news = true;
        }
        let mut wants_500 = None;
        match direction {
            Direction::Outbound => {
                if header.begins() {
                    sa.sends = sa.sends.saturating_add(1);
                    sa.offered = offer;
                    if sa.sends == TRIES && !sa.answered && sa.external != 500 {
                        wants_500 = Some(Some(sa.device.addr));
                    }
                }
            }
            Direction::Inbound => {
                // The answer to an offer tells whether the server knows of NAT.
                if !sa.answered && sa.external != 500 && sa.offered == NatT::Offered && offer == NatT::Absent
                {
                    wants_500 = Some(None);
                }
                sa.answered = true;
            }
        }
        let agreed = sa.agreed(direction, header);
        if let Some(device) = wants_500 {
            self.need(now, remote, device);
        }
        agreed
    }

    /// The IKE SA has gone on to port 4500. Was that news?
    pub(super) fn float(&mut self, remote: Ipv4Addr, spi: IkeSpi, device: Endpoint) -> bool {
        let Some(sa) = self.sas.get_mut(&(remote, spi)) else { return false };
        let news = !sa.floated;
        sa.floated = true;
        sa.device = device;
        self.inside_udp.insert((remote, device), spi);
        self.news |= news;
        news
    }

    /// Payload, or a keepalive, inside UDP.
    pub(super) fn inside_udp(
        &mut self,
        now: Timestamp,
        remote: Ipv4Addr,
        device: Endpoint,
        direction: Direction,
        len: u16,
        payload: bool,
    ) {
        let Some(&spi) = self.inside_udp.get(&(remote, device)) else { return };
        let Some(sa) = self.sas.get_mut(&(remote, spi)) else { return };
        sa.count(now, direction, len);
        if payload {
            if sa.last_data.is_none() {
                log::info!("IPsec of {} with {remote}, inside UDP: data flows", sa.device.addr);
            }
            sa.last_data = Some(now);
        }
    }

    /// Names `sa` as one that made a pair. Was that news?
    pub(super) fn establish(&mut self, remote: Ipv4Addr, spi: IkeSpi) -> bool {
        let sa = self.sas.get_mut(&(remote, spi));
        sa.is_some_and(|sa| !core::mem::replace(&mut sa.established, true))
    }

    /// Forgets what has been silent for `idle`.
    pub(super) fn forget(&mut self, now: Timestamp, idle: Duration) {
        self.sas.retain(|(remote, _), sa| {
            let stays = now.since(sa.last) < if sa.answered { idle } else { HALF_OPEN };
            if !stays && sa.established {
                log::info!("IPsec of {} with {remote}: silent for long, forgotten", sa.device.addr);
            }
            stays
        });
        let Self { sas, inside_udp, needs, .. } = self;
        inside_udp.retain(|(remote, _), spi| sas.contains_key(&(*remote, *spi)));
        needs.retain(|_, since| now.since(*since) < NEED_MEMORY);
    }

    /// Forgets all but what servers need.
    pub(super) fn clear(&mut self) {
        self.sas.clear();
        self.inside_udp.clear();
    }
}

impl IkeSa {
    fn count(&mut self, now: Timestamp, direction: Direction, len: u16) {
        let slot = usize::from(direction == Direction::Inbound);
        if let (Some(packets), Some(bytes)) = (self.packets.get_mut(slot), self.bytes.get_mut(slot)) {
            *packets += 1;
            *bytes += u64::from(len);
        }
        self.last = now;
    }

    /// Takes the time between a request and its response. In IKEv1 nothing tells what answers what, but for the very
    /// first message.
    fn measure(&mut self, now: Timestamp, direction: Direction, header: &IkeHeader) {
        let (exchange, id) = (header.exchange, header.message_id);
        let asked = self.asked.filter(|asked| (asked.0, asked.1) == (exchange, id));
        match direction {
            _ if self.version != IkeVersion::V2 && self.answered => {}
            Direction::Outbound if header.is_response() => {}
            Direction::Outbound => {
                let first = asked.is_none().then_some(now);
                self.asked = Some((exchange, id, first));
            }
            Direction::Inbound if self.version == IkeVersion::V2 && !header.is_response() => {}
            Direction::Inbound => {
                if let Some((_, _, Some(at))) = asked {
                    let took = now.since(at);
                    self.round_trip = Some(self.round_trip.map_or(took, |shortest| shortest.min(took)));
                }
                if asked.is_some() {
                    self.asked = None;
                }
            }
        }
    }

    /// When may a new pair be in use, at the earliest?
    ///
    /// * IKEv1 Quick Mode (RFC 2409 section 5.5): both sides have the keys once each has sent a message.
    /// * IKEv2 (RFC 7296 sections 1.2, 1.3): the responder has them when it has the request, the initiator when it
    ///   has the response. The remote host uses them after the device's message, whichever that is.
    fn agreed(&mut self, direction: Direction, header: &IkeHeader) -> Agreed {
        let id = header.message_id;
        match (header.exchange, direction) {
            (Exchange::QuickMode, _) => {
                if !self.quick.iter().any(|quick| quick.0 == id) {
                    if self.quick.len() >= MAX_EXCHANGES {
                        self.quick.remove(0);
                    }
                    self.quick.push((id, false, false));
                }
                let Some(quick) = self.quick.iter_mut().find(|quick| quick.0 == id) else {
                    return Agreed::Nothing;
                };
                quick.1 |= direction == Direction::Outbound;
                quick.2 |= direction == Direction::Inbound;
                match *quick {
                    (_, true, true) => Agreed::Pair { exchange: id, anew: false },
                    _ => Agreed::Nothing,
                }
            }
            (Exchange::Auth, Direction::Outbound) => {
                let anew = self.auth != Some(id);
                self.auth = Some(id);
                Agreed::Pair { exchange: AUTH, anew }
            }
            (Exchange::CreateChildSa, Direction::Outbound) => {
                let by_remote = if header.is_response() { REMOTE } else { 0 };
                Agreed::Pair { exchange: (id & !REMOTE) | by_remote, anew: false }
            }
            _ => Agreed::Nothing,
        }
    }

    pub(super) fn known(&self, remote: Ipv4Addr, initiator: IkeSpi) -> KnownIkeSa {
        KnownIkeSa {
            remote,
            initiator,
            responder: self.responder,
            version: if self.version == IkeVersion::V1 { 1 } else { 2 },
            device: self.device,
            external: self.external,
            shared: self.shared,
            floated: self.floated,
        }
    }

    /// Is it of IKEv2, whose rekeying makes new IKE SPIs out of sight?
    pub(super) fn rekeys_unseen(&self) -> bool {
        self.version == IkeVersion::V2
    }
}
