//! IPsec: IKE, ESP and what they need of each other.
//!
//! | packet | what happens |
//! |---|---|
//! | IKE on UDP 500 | the port rule ([`ike_sa`]); exchanges open gates for ESP |
//! | UDP 4500 | the NAT's; closes the gates of its IKE SA, since ESP goes inside |
//! | ESP | by SPI, learned by evidence ([`learner`]) |
//! | AH | refused: it signs the addresses (RFC 3715 section 2.1) |

mod evidence;
mod ike_sa;
mod learner;
mod memory;

use crate::sorted::SortedMap;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::decision::{Decision, DropReason, Forward, Note};
use nat_core::flow::{Direction, Endpoint, Protocol, Tuple};
use nat_core::nat::Nat;
use nat_core::packet::{IcmpError, PacketView};
use nat_core::time::Timestamp;

use self::ike_sa::{Agreed, IkeSas};
use self::learner::{Origin, Remote, Sent, Verdict};
pub use self::memory::{KnownIkeSa, KnownPair, Memory, Undecided};
use crate::bytes::be64;
use crate::carry::{self, Key};
use crate::esp::EspHeader;
use crate::ike::{IkeHeader, IkeSpi, NatT, NatTPacket, nat_t, nat_t_packet};
use crate::settings::{Carrier, Settings};
use crate::view::{Ids, Learned, Phase, TunnelView, Vpn};

/// IKE's port (RFC 7296 section 2).
pub(crate) const IKE: u16 = 500;
/// IKE's and ESP's port behind a NAT (RFC 3948).
pub(crate) const NAT_T: u16 = 4500;
/// Remote hosts that are remembered.
const MAX_REMOTES: usize = 1024;
/// And of those, how many one device may have.
const MAX_REMOTES_PER_DEVICE: usize = 64;
/// Pairs of SPIs in all: whoever forges source addresses on the LAN must not use up the router's memory.
const MAX_PAIRS: usize = 8192;
/// Payload this long ago still counts as "data flows".
const RECENT: Duration = Duration::from_secs(30);
/// And anything at all as "it lives".
const ALIVE: Duration = Duration::from_secs(120);
const FORGET_EVERY: Duration = Duration::from_secs(5);

/// Everything about IPsec.
#[derive(Debug, Default)]
pub(crate) struct Ipsec {
    ike: IkeSas,
    remotes: SortedMap<Ipv4Addr, Remote>,
    /// Pairs of SPIs with all of them.
    pairs: usize,
    /// Remote hosts to which the router itself speaks IPsec.
    router: SortedMap<Ipv4Addr, Timestamp>,
    /// Who last sent ESP with a reserved SPI to a remote host (RFC 4303 section 2.1).
    reserved: SortedMap<Ipv4Addr, (Ipv4Addr, Timestamp)>,
    next_forgetting: Timestamp,
    /// What must outlive natd has changed; and somebody was told.
    news: bool,
    told: bool,
}

/// A message of IKE.
struct Message<'a> {
    header: &'a IkeHeader,
    /// What it says of NAT traversal.
    offer: NatT,
    /// Length of its packet in bytes.
    len: u16,
}

impl<'a> Message<'a> {
    fn new(header: &'a IkeHeader, data: &[u8], packet: &PacketView<'_>) -> Self {
        Self { header, offer: nat_t(data), len: packet.total_len }
    }
}

/// What is to be done with ESP from the WAN.
pub(crate) enum Inbound {
    /// This.
    Decided(Decision),
    /// Keep it for a while: its owner may show.
    Wait(DropReason),
}

/// What is known of `addr`, from now on at the latest; `None`: there are too many.
fn known(remotes: &mut SortedMap<Ipv4Addr, Remote>, addr: Ipv4Addr) -> Option<&mut Remote> {
    if remotes.len() >= MAX_REMOTES && !remotes.contains_key(&addr) {
        return None;
    }
    Some(remotes.or_default(addr))
}

impl Ipsec {
    /// The router itself sent IKE or ESP to `remote`.
    pub(crate) fn router_speaks(&mut self, now: Timestamp, remote: Ipv4Addr) {
        if self.router.len() < MAX_REMOTES || self.router.contains_key(&remote) {
            self.router.insert(remote, now);
        }
    }

    /// Did it lately?
    pub(crate) fn router_spoke(&self, remote: Ipv4Addr) -> bool {
        self.router.contains_key(&remote)
    }

    /// Does another device than `device` use the server `remote`?
    pub(crate) fn has_other(&self, remote: Ipv4Addr, device: Ipv4Addr) -> bool {
        self.ike.with(remote).any(|(_, sa)| sa.device.addr != device)
            || self.remotes.get(&remote).is_some_and(|r| r.users().any(|user| user != device))
    }

    /// IKE or payload inside UDP, from a device.
    pub(crate) fn udp_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        nat: &mut Nat,
        own: impl FnOnce(&mut Nat) -> Decision,
    ) -> Decision {
        let data = packet.data().map_or(&[][..], |(_, data)| data);
        let (device, remote) = (tuple.src, tuple.dst);
        if remote.id.0 == NAT_T || device.id.0 == NAT_T {
            match nat_t_packet(data) {
                NatTPacket::Ike(message) => {
                    if let Some(header) = IkeHeader::parse(message) {
                        self.inside_4500(
                            now,
                            Direction::Outbound,
                            device,
                            remote.addr,
                            &header,
                            packet.total_len,
                        );
                    }
                }
                NatTPacket::Esp(_) => {
                    self.ike.inside_udp(now, remote.addr, device, Direction::Outbound, packet.total_len, true)
                }
                NatTPacket::Keepalive => self.ike.inside_udp(
                    now,
                    remote.addr,
                    device,
                    Direction::Outbound,
                    packet.total_len,
                    false,
                ),
                NatTPacket::Malformed => {}
            }
            return own(nat);
        }
        let Some(header) = IkeHeader::parse(data) else { return own(nat) };
        let shares = self.shares_500(remote, device, &header, data, nat);
        let known = self.ike.get(remote.addr, header.initiator).map(|sa| sa.device.addr);
        let decision = if shares {
            if known.is_some_and(|owner| owner != device.addr) {
                // Two devices with one SPI on one port cannot be told apart.
                return nat.turn_away(now, packet, DropReason::Conflict);
            }
            let Some(wan) = nat.address() else { return nat.refuse(DropReason::NoAddress) };
            match Forward::to_endpoints(packet, Endpoint::new(wan, IKE), remote) {
                Some(forward) => {
                    nat.carried(now, Direction::Outbound, device.addr, packet.total_len);
                    Decision::Forward(forward)
                }
                None => return nat.refuse(DropReason::Internal),
            }
        } else {
            own(nat)
        };
        let external = match &decision {
            Decision::Forward(forward) => forward.endpoints().0.id.0,
            Decision::Pass => device.id.0,
            Decision::Hold(_) | Decision::Drop(_) => return decision,
        };
        if known.is_none() {
            self.first_of_ike_sa(now, device, remote.addr, &header, external, shares);
        }
        self.observe(now, Direction::Outbound, device, remote.addr, &Message::new(&header, data, packet));
        decision
    }

    /// Does this message leave by a port 500 that is another's too?
    fn shares_500(
        &mut self,
        remote: Endpoint,
        device: Endpoint,
        header: &IkeHeader,
        message: &[u8],
        nat: &Nat,
    ) -> bool {
        if let Some(sa) = self.ike.get(remote.addr, header.initiator) {
            let (shared, owner, responder) = (sa.shared, sa.device, sa.responder);
            let same = responder == header.responder && responder != IkeSpi(0);
            if owner.addr != device.addr && same {
                // RFC 4555: the device has another address on the LAN now.
                self.ike.relocate(remote.addr, header.initiator, device);
                if let Some(esp) = self.remotes.get_mut(&remote.addr) {
                    esp.relocate(owner.addr, device.addr, header.initiator);
                }
                log::info!("IPsec of {} with {} goes on from {}", owner.addr, remote.addr, device.addr);
            }
            return shared;
        }
        if remote.id.0 != IKE {
            return false; // a server on the LAN that answers
        }
        if !header.begins() {
            // In the middle of something: an IKE SA that was rekeyed out of sight stays where it was. Where natd was
            // started anew, whoever has not gone on to 4500 needs 500.
            return match self.ike.latest(remote.addr, device.addr, header.initiator) {
                Some((_, sa)) => sa.shared,
                None => device.id.0 == IKE && !keeps_500(nat, device),
            };
        }
        if device.id.0 == IKE && keeps_500(nat, device) {
            return false;
        }
        let offers = nat_t(message) == NatT::Offered;
        let needs = self.ike.needs_500(remote.addr, device.addr);
        needs || (device.id.0 == IKE && !offers)
    }

    fn first_of_ike_sa(
        &mut self,
        now: Timestamp,
        device: Endpoint,
        remote: Ipv4Addr,
        header: &IkeHeader,
        external: u16,
        shared: bool,
    ) {
        let before = match self.ike.latest(remote, device.addr, header.initiator) {
            Some((spi, sa)) if !header.is_opening() && sa.rekeys_unseen() => Some(spi),
            _ => None,
        };
        if let (Some(before), Some(esp)) = (before, self.remotes.get_mut(&remote)) {
            esp.close_gate(device.addr, before);
        }
        if !self.ike.enter(now, remote, device, header, external, shared) {
            log::debug!("{} has too many IKE SAs; a further one is not followed", device.addr);
        } else if header.begins() {
            log::info!(
                "IPsec of {} with {remote}: handshake{}",
                device.addr,
                if shared { ", sharing port 500" } else { "" }
            );
        }
    }

    fn observe(
        &mut self,
        now: Timestamp,
        direction: Direction,
        device: Endpoint,
        remote: Ipv4Addr,
        message: &Message<'_>,
    ) {
        let Message { header, .. } = message;
        let agreed = self.ike.observe(now, remote, device.addr, direction, message);
        let trip = self.ike.get(remote, header.initiator).and_then(|sa| sa.round_trip);
        if let (Some(trip), Some(esp)) = (trip, self.remotes.get_mut(&remote)) {
            esp.set_round_trip(device.addr, trip);
        }
        let Agreed::Pair { exchange, anew } = agreed else { return };
        if self.ike.establish(remote, header.initiator) {
            log::info!("IPsec of {} with {remote}: established", device.addr);
        }
        if self.ike.get(remote, header.initiator).is_some_and(|sa| sa.floated) {
            return;
        }
        self.with(remote, device.addr, |esp| {
            esp.open_gate(now, device.addr, Origin::Exchange(header.initiator, exchange), anew);
        });
    }

    fn inside_4500(
        &mut self,
        now: Timestamp,
        direction: Direction,
        device: Endpoint,
        remote: Ipv4Addr,
        header: &IkeHeader,
        len: u16,
    ) {
        if self.ike.get(remote, header.initiator).is_none() {
            if direction == Direction::Inbound {
                return; // what nobody here has answered is nothing yet
            }
            self.first_of_ike_sa(now, device, remote, header, NAT_T, false);
        }
        if self.ike.float(remote, header.initiator, device) {
            if let Some(esp) = self.remotes.get_mut(&remote) {
                esp.close_gates(device.addr, header.initiator);
            }
        }
        self.observe(now, direction, device, remote, &Message { header, offer: NatT::Unknown, len });
    }

    /// Does something with what is known of `addr`, unless `device` has too many remote hosts already, and takes note
    /// if that has changed it.
    fn with<T>(&mut self, addr: Ipv4Addr, device: Ipv4Addr, act: impl FnOnce(&mut Remote) -> T) -> Option<T> {
        let esp = match self.remotes.get_mut(&addr) {
            Some(esp) => esp,
            None => {
                let has = |esp: &&Remote| esp.users().any(|user| user == device);
                if self.remotes.values().filter(has).count() >= MAX_REMOTES_PER_DEVICE {
                    return None;
                }
                known(&mut self.remotes, addr)?
            }
        };
        let (changes, pairs) = (esp.changes(), esp.pairs());
        esp.is_full = self.pairs >= MAX_PAIRS;
        let result = act(esp);
        self.news |= esp.changes() != changes;
        self.pairs = (self.pairs + esp.pairs()).saturating_sub(pairs);
        Some(result)
    }

    /// IKE or payload inside UDP, from the WAN; `None`: the NAT decides, and tells [`Self::udp_delivered`].
    pub(crate) fn udp_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        nat: &mut Nat,
        settings: &Settings,
    ) -> Option<Decision> {
        if tuple.dst.id.0 == NAT_T || tuple.src.id.0 == NAT_T {
            return None;
        }
        let (_, data) = packet.data()?;
        let header = IkeHeader::parse(data)?;
        let remote = tuple.src.addr;
        if let Some(sa) = self.ike.get(remote, header.initiator) {
            // Conntrack knows the remote port to which the device sends, not another one that answers.
            let elsewhere = tuple.src.id.0 != IKE;
            let (device, silent) = (sa.device, if elsewhere { Duration::MAX } else { now.since(sa.last) });
            if tuple.dst.id.0 != sa.external || (!sa.shared && nat.flow(tuple).is_some()) {
                return None;
            }
            self.observe(now, Direction::Inbound, device, remote, &Message::new(&header, data, packet));
            return Some(deliver_udp(now, packet, tuple, device, silent, nat));
        }
        // The server begins. Where the port has one device, the NAT knows it.
        if tuple.dst.id.0 != IKE {
            return None;
        }
        let routers = nat.flow(tuple).is_some_and(|(_, internal, _)| internal.addr == tuple.dst.addr);
        if routers && !header.begins() {
            return None;
        }
        let mut devices: Vec<Endpoint> = self
            .ike
            .with(remote)
            .filter(|(_, sa)| sa.external == IKE && !sa.floated && sa.answered)
            .map(|(_, sa)| sa.device)
            .collect();
        devices.sort_unstable();
        devices.dedup();
        if !self.ike.with(remote).any(|(_, sa)| sa.shared) {
            return None;
        }
        match devices.split_last() {
            // The holder of the port has not been heard of by this server either.
            None if nat.holder(Protocol::Udp, IKE).is_some()
                && !nat.policy().has_forward(Protocol::Udp, IKE) =>
            {
                Some(nat.refuse(DropReason::Filtered))
            }
            None => None,
            Some((&only, [])) => Some(deliver_udp(now, packet, tuple, only, Duration::MAX, nat)),
            Some((&last, rest)) if devices.len() <= usize::from(settings.fan_out) => {
                for &device in rest {
                    if let Decision::Forward(forward) =
                        deliver_udp(now, packet, tuple, device, Duration::MAX, nat)
                    {
                        carry::copy(nat, packet, forward);
                    }
                }
                Some(deliver_udp(now, packet, tuple, last, Duration::MAX, nat))
            }
            Some(_) => Some(nat.refuse(DropReason::EspAmbiguous)),
        }
    }

    /// The NAT has decided that this packet goes to `device`.
    pub(crate) fn udp_delivered(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        tuple: &Tuple,
        device: Endpoint,
    ) {
        let data = packet.data().map_or(&[][..], |(_, data)| data);
        let (remote, len) = (tuple.src.addr, packet.total_len);
        if tuple.src.id.0 == NAT_T || device.id.0 == NAT_T {
            match nat_t_packet(data) {
                NatTPacket::Ike(message) => {
                    if let Some(header) = IkeHeader::parse(message) {
                        self.inside_4500(now, Direction::Inbound, device, remote, &header, len);
                    }
                }
                NatTPacket::Esp(_) => {
                    self.ike.inside_udp(now, remote, device, Direction::Inbound, len, true);
                }
                NatTPacket::Keepalive => {
                    self.ike.inside_udp(now, remote, device, Direction::Inbound, len, false);
                }
                NatTPacket::Malformed => {}
            }
        } else if let Some(header) = IkeHeader::parse(data) {
            self.observe(now, Direction::Inbound, device, remote, &Message::new(&header, data, packet));
        }
    }

    /// ESP from a device.
    pub(crate) fn esp_outbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        nat: &mut Nat,
    ) -> Decision {
        let Some(header) = EspHeader::parse(packet.payload()) else {
            return nat.refuse(DropReason::Malformed);
        };
        let (device, remote, len) = (packet.src, packet.dst, packet.total_len);
        if header.spi.is_reserved() {
            if self.reserved.len() < MAX_REMOTES || self.reserved.contains_key(&remote) {
                self.reserved.insert(remote, (device, now));
            }
            return carry::outbound(now, packet, false, nat);
        }
        let sent = self
            .with(remote, device, |esp| esp.outbound(now, device, header.spi.0, len))
            .unwrap_or(Sent::Full);
        match sent {
            Sent::Counted { nth, created } => {
                carry::outbound(now, packet, nth > 1 && now.since(created) < carry::FIRST_BURST, nat)
            }
            Sent::Full => nat.turn_away(now, packet, DropReason::VpnLimit),
        }
    }

    /// ESP from the WAN.
    pub(crate) fn esp_inbound(
        &mut self,
        now: Timestamp,
        packet: &PacketView<'_>,
        nat: &mut Nat,
        settings: &Settings,
    ) -> Inbound {
        let Some(header) = EspHeader::parse(packet.payload()) else {
            return Inbound::Decided(nat.refuse(DropReason::Malformed));
        };
        let remote = packet.src;
        let admission = |device| carry::admission(packet, device, Key::None);
        if header.spi.is_reserved() {
            return Inbound::Decided(match self.reserved.get(&remote) {
                Some(&(device, _)) => carry::inbound(now, packet, device, Some(admission(device)), nat),
                None if self.router.contains_key(&remote) => Decision::Pass,
                None => nat.refuse(DropReason::EspNoGate),
            });
        }
        let verdict = match self.remotes.get_mut(&remote) {
            Some(esp) => {
                let before = esp.changes();
                let verdict = esp.inbound(now, header.spi.0, header.seq, packet.total_len, settings.fan_out);
                self.news |= esp.changes() != before;
                verdict
            }
            None => Verdict::Nobody,
        };
        Inbound::Decided(match verdict {
            Verdict::Device { device, silent_since, new } => {
                if let Some(learned) = new {
                    let guess = learned == Learned::Guess;
                    nat.note(if guess { Note::EspGuess } else { Note::EspEvidence });
                    log::debug!("ESP {:#010x} from {remote} is {device}'s: {}", header.spi.0, learned.name());
                }
                let stale = now.since(silent_since) > nat.patience();
                carry::inbound(now, packet, device, stale.then(|| admission(device)), nat)
            }
            Verdict::Rivals { devices: [first, second], new } => {
                if new {
                    nat.note(Note::EspConflict);
                    log::warn!(
                        "{first} and {second} use the same SPI {:#010x} with {remote}; both get its packets. If \
                         one of the tunnels is slow, connect it again",
                        header.spi.0
                    );
                }
                several(now, packet, &[first, second], nat)
            }
            Verdict::Several(devices) => several(now, packet, &devices, nat),
            Verdict::TooMany => return Inbound::Wait(DropReason::EspAmbiguous),
            Verdict::Nobody => match server(settings) {
                _ if self.router.contains_key(&remote) => Decision::Pass,
                Some(host) => {
                    let taken = known(&mut self.remotes, remote)
                        .is_some_and(|esp| esp.give_to_server(now, header.spi.0, host));
                    if taken {
                        carry::inbound(now, packet, host, Some(admission(host)), nat)
                    } else {
                        nat.refuse(DropReason::VpnLimit)
                    }
                }
                None => nat.refuse(DropReason::EspNoGate),
            },
        })
    }

    /// How often something changed that whose ESP from `remote` is depends on.
    pub(crate) fn changes(&self, remote: Ipv4Addr) -> u32 {
        self.remotes.get(&remote).map_or(0, Remote::changes)
    }

    /// Conntrack knew ESP between the two when natd started.
    pub(crate) fn adopt(&mut self, now: Timestamp, device: Ipv4Addr, remote: Ipv4Addr) {
        if let Some(esp) = known(&mut self.remotes, remote) {
            if !esp.users().any(|user| user == device) {
                esp.adopt(now, device);
            }
        }
    }

    /// The same, once for each time.
    pub(crate) fn tells_news(&mut self) -> bool {
        let tells = !self.told && (self.news || self.ike.news);
        self.told |= tells;
        tells
    }

    /// Has what must outlive natd changed since this was asked?
    pub(crate) fn take_news(&mut self) -> bool {
        self.told = false;
        let ike = core::mem::take(&mut self.ike.news);
        core::mem::take(&mut self.news) || ike
    }

    /// Everything that must outlive natd.
    pub(crate) fn memory(&self) -> Memory {
        let mut memory = Memory::default();
        for (&remote, esp) in self.remotes.iter() {
            memory.pairs.extend(esp.children().map(|child| KnownPair {
                remote,
                device: child.device,
                inbound: child.inbound,
                outbound: child.outbound,
                renewed: child.renewed,
            }));
            memory.undecided.extend(esp.unknown().iter().map(|unknown| Undecided {
                remote,
                spi: unknown.spi,
                devices: esp.may_be(unknown),
            }));
        }
        memory.ike.extend(self.ike.iter().map(|(remote, spi, sa)| sa.known(remote, spi)));
        memory
    }

    /// Takes up what was known before natd was restarted.
    pub(crate) fn recall(&mut self, now: Timestamp, memory: &Memory) {
        for known in &memory.ike {
            self.ike.recall(now, known);
        }
        for pair in &memory.pairs {
            if let Some(esp) = known(&mut self.remotes, pair.remote) {
                esp.recall(now, pair);
            }
        }
        for undecided in &memory.undecided {
            if let Some(esp) = self.remotes.get_mut(&undecided.remote) {
                esp.recall_undecided(now, undecided.spi, &undecided.devices);
            }
        }
    }

    /// An ICMP error from the WAN about ESP with `spi` to `remote`: which device sent that?
    pub(crate) fn esp_sender(&self, remote: Ipv4Addr, spi: u32) -> Option<Ipv4Addr> {
        self.remotes.get(&remote)?.sender(spi)
    }

    /// An ICMP error of `device` about ESP with `spi` from `remote`: did it get that?
    pub(crate) fn esp_received(&self, device: Ipv4Addr, remote: Ipv4Addr, spi: u32) -> bool {
        self.remotes.get(&remote).is_some_and(|esp| esp.received(device, spi))
    }

    /// An ICMP error from the WAN about IKE that left by port 500: `None` when the NAT can tell whose that was.
    pub(crate) fn ike_error(&self, error: &IcmpError<'_>) -> Option<Result<Endpoint, DropReason>> {
        let quote = PacketView::parse_quote(error.quote).ok()?;
        let tuple = quote.tuple()?;
        let sharing = |sa: &ike_sa::IkeSa| sa.shared;
        if tuple.protocol != Protocol::Udp
            || tuple.src.id.0 != IKE
            || !self.ike.with(tuple.dst.addr).any(|(_, sa)| sharing(sa))
        {
            return None;
        }
        // Whoever quotes more than the ports tells whose it was.
        let spi = quote.payload().get(8..).and_then(|message| be64(message, 0));
        match spi.and_then(|spi| self.ike.get(tuple.dst.addr, IkeSpi(spi))) {
            Some(sa) if sa.shared => Some(Ok(sa.device)),
            Some(_) => None,
            None => Some(Err(DropReason::UnknownQuote)),
        }
    }

    /// Forgets everything that the old WAN address had.
    pub(crate) fn clear(&mut self) {
        self.ike.clear();
        self.remotes.clear();
        self.reserved.clear();
    }

    /// Forgets what is over at `now`.
    pub(crate) fn handle_timeout(&mut self, now: Timestamp, settings: &Settings) {
        if now < self.next_forgetting {
            return;
        }
        self.next_forgetting = now + FORGET_EVERY;
        self.ike.forget(now, settings.esp_idle);
        let news = &mut self.news;
        self.remotes.retain(|_, esp| {
            let before = esp.changes();
            esp.forget(now, settings.esp_idle);
            *news |= esp.changes() != before;
            !esp.is_empty()
        });
        self.pairs = self.remotes.values().map(Remote::pairs).sum();
        self.router.retain(|_, last| now.since(*last) < settings.esp_idle);
        self.reserved.retain(|_, (_, last)| now.since(*last) < ALIVE);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub(crate) fn poll_timeout(&self) -> Option<Timestamp> {
        let quiet = self.ike.iter().next().is_none()
            && self.remotes.is_empty()
            && self.router.is_empty()
            && self.reserved.is_empty();
        (!quiet).then_some(self.next_forgetting)
    }

    /// One session for each pair of device and remote host.
    pub(crate) fn views(&self, now: Timestamp, views: &mut Vec<TunnelView>) {
        let mut pairs: Vec<(Ipv4Addr, Ipv4Addr)> =
            self.ike.iter().map(|(remote, _, sa)| (sa.device.addr, remote)).collect();
        for (&remote, esp) in self.remotes.iter() {
            pairs.extend(esp.users().map(|user| (user, remote)));
        }
        pairs.sort_unstable();
        pairs.dedup();
        views.extend(pairs.into_iter().map(|(device, remote)| self.view(now, device, remote)));
    }

    fn view(&self, now: Timestamp, device: Ipv4Addr, remote: Ipv4Addr) -> TunnelView {
        let mut view = TunnelView {
            vpn: Vpn::Ike,
            device,
            server: remote,
            phase: Phase::Handshake,
            reason: "",
            created: now,
            last_seen: Timestamp::ZERO,
            packets: [0; 2],
            bytes: [0; 2],
            ids: Vec::new(),
            remark: "",
        };
        let mut data = None;
        let mut established = false;
        for (spi, sa) in self.ike.with(remote).filter(|(_, sa)| sa.device.addr == device) {
            view.add(sa.created, sa.last, sa.packets, sa.bytes);
            established |= sa.established;
            data = data.max(sa.last_data);
            if sa.floated {
                view.vpn = Vpn::NatTraversal;
            } else if sa.shared {
                view.remark = "shares port 500";
            }
            view.ids.push(Ids {
                what: "ike",
                inside: Some(spi.0),
                outside: Some(u64::from(sa.external)),
                remote: Some(sa.responder.0),
                learned: None,
            });
        }
        let mut rekey = false;
        if let Some(esp) = self.remotes.get(&remote) {
            let mut paired = false;
            for child in esp.children().filter(|child| child.device == device || child.rival == Some(device))
            {
                view.add(child.created, child.last, child.packets, child.bytes);
                rekey = paired && child.is_open() && now.since(child.created) < RECENT;
                paired |= !child.is_open();
                established = true;
                view.vpn = Vpn::Esp;
                if child.packets != [0; 2] {
                    data = data.max(Some(child.last));
                }
                if child.rival.is_some() {
                    view.remark = "another device uses the same SPI: connect one of them again";
                }
                if child.inbound.is_some() || child.outbound.is_some() {
                    view.ids.push(Ids {
                        what: "spi",
                        inside: child.inbound.map(u64::from),
                        outside: child.inbound.map(u64::from),
                        remote: child.outbound.map(u64::from),
                        learned: child.inbound.map(|_| child.learned),
                    });
                }
            }
            if esp.children().any(|child| child.device == device && child.is_open()) {
                view.ids.extend(esp.unknown().iter().map(|unknown| Ids {
                    what: "spi",
                    inside: Some(u64::from(unknown.spi)),
                    outside: Some(u64::from(unknown.spi)),
                    remote: None,
                    learned: Some(Learned::FanOut),
                }));
            }
        }
        let ago = |at: Timestamp| now.since(at);
        view.phase = match data {
            _ if rekey => Phase::Rekey,
            Some(last) if ago(last) < RECENT => Phase::Data,
            _ if !established => Phase::Handshake,
            None if ago(view.last_seen) < ALIVE => Phase::Established,
            Some(_) if ago(view.last_seen) < ALIVE => Phase::Keepalive,
            _ => Phase::Idle,
        };
        view
    }
}

/// Has `device`, which sends from 500, that port outside too, or would it get it?
fn keeps_500(nat: &Nat, device: Endpoint) -> bool {
    match nat.holder(Protocol::Udp, IKE) {
        Some(holder) => holder == device,
        None => nat.would_keep(Protocol::Udp, device),
    }
}

/// The device that the owner wants inbound ESP to go to.
fn server(settings: &Settings) -> Option<Ipv4Addr> {
    settings.servers.iter().find(|server| server.carrier == Carrier::Esp).map(|server| server.host)
}

/// IKE that did not come by a mapping of the NAT's.
fn deliver_udp(
    now: Timestamp,
    packet: &PacketView<'_>,
    tuple: &Tuple,
    device: Endpoint,
    silent: Duration,
    nat: &mut Nat,
) -> Decision {
    let Some(mut forward) = Forward::to_endpoints(packet, tuple.src, device) else {
        return nat.refuse(DropReason::Internal);
    };
    nat.carried(now, Direction::Inbound, device.addr, packet.total_len);
    if silent > nat.patience() {
        forward.admission = Some(carry::udp_admission(device, tuple.src));
    }
    Decision::Forward(forward)
}

/// The packet goes to each of `devices`: to the last itself, to the others a copy.
fn several(now: Timestamp, packet: &PacketView<'_>, devices: &[Ipv4Addr], nat: &mut Nat) -> Decision {
    let Some((&last, rest)) = devices.split_last() else { return nat.refuse(DropReason::Internal) };
    nat.note(Note::EspFanOut);
    for &device in rest {
        let admission = carry::admission(packet, device, Key::None);
        if let Decision::Forward(forward) = carry::inbound(now, packet, device, Some(admission), nat) {
            carry::copy(nat, packet, forward);
        }
    }
    carry::inbound(now, packet, last, Some(carry::admission(packet, last, Key::None)), nat)
}
