//! An IKE SA as its messages show it.

use core::time::Duration;

use nat_core::flow::Direction;
use passthrough::ike::{
    Exchange, IkeHeader, IkeSpi, IkeVersion, NatDetection, NatT, fragment, from_windows, nat_detections,
    nat_t, notifies, offers_fragmentation,
};
use passthrough::view::Vpn;

use super::note;
use crate::attempts::Attempts;
use crate::finding::Mark;
use crate::observation::{Fragment, Observation};

/// Steps that are remembered of an IKE SA.
const STEPS: usize = 16;
/// NAT detection hashes that are remembered of each direction: a host with several addresses sends several.
const HASHES: usize = 6;
/// Encrypted answers of IKE_AUTH below that many bytes cannot hold an identity, a proof and an SA: they refuse,
/// or are one round of EAP.
pub(super) const SHORT: u32 = 120;

/// Old keys are deleted within that time from the new ones.
const AT_ONCE: Duration = Duration::from_secs(2);
/// Old keys may be deleted later still, but hardly a session so soon.
const REPLACED: Duration = Duration::from_secs(5);
/// DPD is answered within that time.
const ANSWER: Duration = Duration::from_secs(10);
/// Who breaks off a login does so sooner.
const KEPT: Duration = Duration::from_secs(2);

/// Notify message types.
mod notify {
    /// In IKEv1 INVALID-COOKIE, which means the same.
    pub(super) const INVALID_IKE_SPI: u16 = 4;
    pub(super) const INVALID_MAJOR_VERSION: u16 = 5;
    pub(super) const NO_PROPOSAL_CHOSEN: u16 = 14;
    pub(super) const INVALID_KE: u16 = 17;
    /// IKEv1's (RFC 2408 section 3.14.1); in IKEv2 it is encrypted.
    pub(super) const AUTHENTICATION_FAILED: u16 = 24;
    /// IKEv1's: keys that do not match leave garbage behind.
    pub(super) const PAYLOAD_MALFORMED: u16 = 16;
    pub(super) const INVALID_ID: u16 = 18;
}

/// 0 for what the device sends, 1 for what it gets.
pub(super) const fn side(direction: Direction) -> usize {
    match direction {
        Direction::Outbound => 0,
        Direction::Inbound => 1,
    }
}

/// What NAT detection hashes are over, beside the address and port.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hash {
    pub(super) spis: (IkeSpi, IkeSpi),
    pub(super) source: bool,
    /// 16 bytes: MD5, 20: SHA-1; others are not kept.
    pub(super) hash: Vec<u8>,
}

/// New keys.
#[derive(Clone, Copy, Debug)]
pub(super) struct Renewal {
    pub(super) at: Mark,
    /// Did an informational message follow at once? It deletes the old ones (RFC 7296 section 2.8).
    pub(super) replaces: bool,
}

/// A message that wants an answer or is one, and its repetitions.
#[derive(Clone, Debug)]
pub(super) struct Step {
    pub(super) exchange: Exchange,
    id: u32,
    pub(super) outbound: bool,
    digest: u64,
    /// Did it go to port 4500, behind a marker?
    pub(super) marked: bool,
    /// Does its sender expect an answer?
    pub(super) asks: bool,
    pub(super) sends: Attempts,
    /// Bytes of the largest IP packet that carried it, all fragments together.
    pub(super) datagram: u32,
    /// Was it in IP fragments?
    pub(super) cut: bool,
    pub(super) answered: Option<Mark>,
    /// Bytes of IKE in the answer.
    pub(super) answer_len: u32,
}

/// An IKE SA, or the attempt to make one.
#[derive(Clone, Debug)]
pub(super) struct Sa {
    pub(super) attempt: u32,
    pub(super) initiator: IkeSpi,
    pub(super) version: IkeVersion,
    /// Did the device begin it?
    pub(super) by_device: bool,
    /// Was its beginning not seen?
    pub(super) joined: bool,
    pub(super) first: Mark,
    pub(super) last: Mark,
    /// The last message from the server.
    pub(super) heard: Option<Mark>,
    /// The device's last message.
    pub(super) spoke: Option<Mark>,
    /// Did anything from the server come on 4500?
    pub(super) heard_4500: bool,
    /// Did the device send anything on 4500?
    pub(super) floated: bool,
    pub(super) device_port: u16,
    pub(super) steps: Vec<Step>,
    pub(super) hashes: [Vec<Hash>; 2],
    /// What each side said of NAT traversal; `None`: nothing yet.
    pub(super) nat_t: [Option<bool>; 2],
    pub(super) fragmentation: [bool; 2],
    pub(super) windows: bool,
    /// Refusals in the clear, and who sent them: 0 the device, 1 the server.
    pub(super) no_proposal: [Option<Attempts>; 2],
    pub(super) invalid_ke: Option<Attempts>,
    pub(super) version_refused: Option<Mark>,
    /// The server does not know the SPIs of this SA any more.
    pub(super) forgotten: Option<Mark>,
    /// The server answered in another version.
    pub(super) other_version: Option<Mark>,
    /// IKEv1: the server refused in the clear whom it cannot authenticate.
    pub(super) not_authentic: Option<Mark>,
    /// IKEv1: informational messages from the server before Quick Mode.
    pub(super) told_before: Option<Mark>,
    pub(super) transactions: bool,
    /// The last answer to the device's IKE_AUTH, and its bytes.
    pub(super) auth: Option<(Mark, u32)>,
    /// The device's IKE_AUTH requests.
    pub(super) rounds: u32,
    /// It works: ESP flowed, or keys of ESP were agreed on.
    pub(super) established: Option<Mark>,
    /// When new keys were agreed on, the last ones.
    pub(super) rekeys: Vec<Renewal>,
    /// Errors that hide in encryption, by their length: answers to requests for new keys.
    pub(super) rekey_refused: Option<Attempts>,
    /// Lengths of informational messages, the shortest: DPD has nothing to say.
    dpd_len: [u32; 2],
    /// The last informational message of each direction, and its bytes.
    informed: [Option<(Mark, u32)>; 2],
    /// The last informational exchange that was longer than DPD: likely a deletion.
    pub(super) deletion: Option<(usize, Mark)>,
    /// IKE, ESP and keepalives.
    pub(super) packets: [u64; 2],
    pub(super) bytes: [u64; 2],
    /// ESP only: first and last of each direction, and the longest.
    pub(super) esp: [Option<(Mark, Mark)>; 2],
    pub(super) esp_longest: u32,
    pub(super) keepalive: Option<Mark>,
}

impl Sa {
    pub(super) fn new(attempt: u32, header: &IkeHeader, seen: &Observation<'_>) -> Self {
        let begins = header.is_opening();
        Self {
            attempt,
            initiator: header.initiator,
            version: header.version,
            // A response that is the first to be seen answers the other side.
            by_device: seen.is_outbound() != (begins && (header.is_response() || header.responder.0 != 0)),
            joined: !begins,
            first: seen.mark,
            last: seen.mark,
            heard: None,
            spoke: None,
            heard_4500: false,
            floated: false,
            device_port: seen.device_port,
            steps: Vec::new(),
            hashes: [Vec::new(), Vec::new()],
            nat_t: [None; 2],
            fragmentation: [false; 2],
            windows: false,
            no_proposal: [None; 2],
            invalid_ke: None,
            version_refused: None,
            forgotten: None,
            other_version: None,
            not_authentic: None,
            told_before: None,
            transactions: false,
            auth: None,
            rounds: 0,
            established: (!begins).then_some(seen.mark),
            rekeys: Vec::new(),
            rekey_refused: None,
            dpd_len: [u32::MAX; 2],
            informed: [None; 2],
            deletion: None,
            packets: [0; 2],
            bytes: [0; 2],
            esp: [None; 2],
            esp_longest: 0,
            keepalive: None,
        }
    }

    /// A new try with the SPIs of one that was refused.
    pub(super) fn again(attempt: u32, before: &Self, header: &IkeHeader, seen: &Observation<'_>) -> Self {
        let (by_device, nat_t, windows) = (before.by_device, before.nat_t, before.windows);
        let fragmentation = before.fragmentation;
        Self { by_device, nat_t, windows, fragmentation, ..Self::new(attempt, header, seen) }
    }

    /// Did one of the two refuse what the other proposed, before anything was agreed on?
    pub(super) fn refused(&self) -> bool {
        self.established.is_none() && self.rounds == 0 && self.no_proposal.iter().any(Option::is_some)
    }

    /// What it is called in reports.
    pub(super) fn vpn(&self) -> Vpn {
        if self.floated { Vpn::NatTraversal } else { Vpn::Ike }
    }

    /// Have both sides agreed on keys for ESP, as far as it can be told?
    pub(super) fn agreed(&self) -> Option<Mark> {
        let answered = self.auth.filter(|(mark, len)| *len >= SHORT && !self.goes_on(*mark));
        let kept = answered.map(|(mark, _)| mark).filter(|mark| !self.broken_off(*mark));
        self.established.or(kept)
    }

    /// Did the device send another IKE_AUTH after that answer? Then it was one round of EAP, however long.
    fn goes_on(&self, answer: Mark) -> bool {
        self.steps
            .iter()
            .any(|step| step.exchange == Exchange::Auth && step.outbound && step.sends.first > answer)
    }

    /// Did the device send an informational message at once after that answer, and nothing else? So it tells why
    /// it does not like it.
    pub(super) fn broken_off(&self, answer: Mark) -> bool {
        let mut after = self.steps.iter().filter(|step| step.sends.first > answer);
        let (only, more) = (after.next(), after.next());
        let tells = |step: &Step| {
            step.outbound
                && step.exchange == Exchange::Informational2
                && step.sends.first.at.since(answer.at) < KEPT
        };
        only.is_some_and(tells) && more.is_none() && self.esp.iter().all(Option::is_none)
    }

    /// The device's last message that waits for an answer.
    pub(super) fn waiting(&self) -> Option<&Step> {
        let unanswered = |step: &&Step| {
            let counts = step.exchange != Exchange::Informational1; // most of IKEv1's want no answer
            counts && step.outbound && step.asks && step.answered.is_none()
        };
        self.steps.iter().rev().find(unanswered)
    }

    /// Takes a packet into account that belongs to it.
    pub(super) fn count(&mut self, seen: &Observation<'_>, packets: u64) {
        let side = side(seen.direction);
        if let (Some(sum), Some(bytes)) = (self.packets.get_mut(side), self.bytes.get_mut(side)) {
            *sum += packets;
            *bytes += u64::from(seen.ip_len);
        }
        self.last = seen.mark;
    }

    pub(super) fn observe(
        &mut self,
        header: &IkeHeader,
        message: &[u8],
        marked: bool,
        seen: &Observation<'_>,
    ) {
        self.count(seen, 1);
        if seen.is_outbound() {
            self.floated |= marked;
            self.spoke = Some(seen.mark);
            self.device_port = seen.device_port;
        } else {
            self.heard = Some(seen.mark);
            self.heard_4500 |= marked;
        }
        if header.version != self.version {
            if !seen.is_outbound() {
                self.other_version = Some(seen.mark);
            }
            return;
        }
        self.read(header, message, seen);
        match header.version {
            IkeVersion::V1 => self.version1(header, message, marked, seen),
            IkeVersion::V2 => self.version2(header, message, marked, seen),
            IkeVersion::Other(_) => {}
        }
    }

    /// What a message says in the clear.
    fn read(&mut self, header: &IkeHeader, message: &[u8], seen: &Observation<'_>) {
        if header.is_encrypted() {
            return;
        }
        let side = side(seen.direction);
        if let Some(known) = self.nat_t.get_mut(side) {
            match nat_t(message) {
                NatT::Offered => *known = Some(true),
                NatT::Absent => *known = known.or(Some(false)),
                NatT::Unknown => {}
            }
        }
        if let Some(known) = self.fragmentation.get_mut(side) {
            *known |= offers_fragmentation(message);
        }
        self.windows |= seen.is_outbound() && from_windows(message);
        if let Some(hashes) = self.hashes.get_mut(side) {
            let (mut fresh, spis) = (Vec::new(), (header.initiator, header.responder));
            for detection in nat_detections(message).take(HASHES) {
                let (source, hash) = match detection {
                    NatDetection::Source(hash) => (true, hash),
                    NatDetection::Destination(hash) => (false, hash),
                };
                if matches!(hash.len(), 16 | 20) {
                    fresh.push(Hash { spis, source, hash: hash.to_vec() });
                }
            }
            if !fresh.is_empty() {
                *hashes = fresh;
            }
        }
        for notify in notifies(message) {
            match notify.kind {
                notify::NO_PROPOSAL_CHOSEN => {
                    if let Some(known) = self.no_proposal.get_mut(side) {
                        note(known, seen.mark);
                    }
                }
                notify::INVALID_KE if header.version == IkeVersion::V2 => match &mut self.invalid_ke {
                    // Told of once each, however quickly one follows the other.
                    Some(known) => (known.sends, known.last) = (known.sends + 1, seen.mark),
                    none => *none = Some(Attempts::new(seen.mark)),
                },
                notify::INVALID_IKE_SPI if side == 1 => self.forgotten = Some(seen.mark),
                notify::INVALID_MAJOR_VERSION => self.version_refused = Some(seen.mark),
                notify::AUTHENTICATION_FAILED | notify::PAYLOAD_MALFORMED | notify::INVALID_ID
                    if header.version == IkeVersion::V1 && side == 1 =>
                {
                    self.not_authentic = Some(seen.mark);
                }
                _ => {}
            }
        }
    }

    fn version2(&mut self, header: &IkeHeader, message: &[u8], marked: bool, seen: &Observation<'_>) {
        let part = fragment(message);
        let later = part.is_some_and(|part| !part.first);
        if !header.is_response() {
            if header.exchange == Exchange::Auth && seen.is_outbound() {
                self.rounds = self.rounds.max(header.message_id);
            }
            if header.exchange == Exchange::Informational2 && !seen.is_outbound() && self.auth.is_some() {
                self.works(seen.mark); // only who knows the keys of an IKE SA that stands asks
            }
            let kept = self.auth.filter(|&(answer, len)| {
                let informs = header.exchange == Exchange::Informational2;
                informs && len >= SHORT && seen.at().since(answer.at) >= KEPT
            });
            if let Some((answer, _)) = kept {
                self.works(answer); // the device did not break off
            }
            self.sent(header, 0, message, marked, true, later, seen);
            return;
        }
        let asked = !seen.is_outbound();
        let same = |step: &&mut Step| {
            (step.exchange, step.id, step.outbound) == (header.exchange, header.message_id, asked)
        };
        let Some(step) = self.steps.iter_mut().rev().find(same) else { return };
        let before = step.answered.is_some();
        step.answered.get_or_insert(seen.mark);
        step.answer_len =
            if later { step.answer_len + header.length } else { step.answer_len.max(header.length) };
        let (len, both) = (step.answer_len, part.is_some());
        if header.exchange == Exchange::Auth {
            if asked {
                self.auth = Some((seen.mark, if both { len.max(SHORT) } else { len }));
            } else {
                self.works(seen.mark);
            }
        } else if header.exchange == Exchange::CreateChildSa && !before {
            if len >= SHORT {
                self.rekeyed(seen.mark);
            } else if asked {
                note(&mut self.rekey_refused, seen.mark);
            }
        }
    }

    fn version1(&mut self, header: &IkeHeader, message: &[u8], marked: bool, seen: &Observation<'_>) {
        let outbound = seen.is_outbound();
        let later = fragment(message).is_some_and(|part| !part.first);
        let digest = digest(message);
        let known = self.steps.iter().any(|step| {
            (step.exchange, step.id, step.outbound, step.digest)
                == (header.exchange, header.message_id, outbound, digest)
        });
        let mut opens = true;
        if !known && !later {
            let mut answers = false;
            for step in &mut self.steps {
                let same = (step.exchange, step.id) == (header.exchange, header.message_id);
                // DPD's answer has a message ID of its own.
                let dpd = header.exchange == Exchange::Informational1 && step.exchange == header.exchange;
                opens &= !same;
                if (same || dpd) && step.outbound != outbound && step.answered.is_none() {
                    step.answered = Some(seen.mark);
                    step.answer_len = header.length;
                    answers |= step.asks;
                }
            }
            if header.exchange == Exchange::QuickMode && answers {
                if self.established.is_some() && opens_second(self, header) {
                    self.rekeyed(seen.mark);
                }
                self.works(seen.mark);
            }
            self.transactions |= header.exchange == Exchange::Transaction;
            let early = self.established.is_none() && !outbound;
            if header.exchange == Exchange::Informational1 && early {
                self.told_before = Some(seen.mark);
            }
        }
        let alternates = matches!(header.exchange, Exchange::MainMode | Exchange::Other(_));
        let asks = if alternates { outbound == self.by_device } else { opens };
        self.sent(header, digest, message, marked, asks, later, seen);
    }

    /// A message that may want an answer was sent, or sent again.
    #[expect(clippy::too_many_arguments, reason = "all of them are of the one message")]
    fn sent(
        &mut self,
        header: &IkeHeader,
        digest: u64,
        message: &[u8],
        marked: bool,
        asks: bool,
        later: bool,
        seen: &Observation<'_>,
    ) {
        let outbound = seen.is_outbound();
        let digest = if header.is_opening() && digest == 0 { self::digest(message) } else { digest };
        let retry = header.is_opening() && header.version == IkeVersion::V2;
        let same = |step: &&mut Step| {
            (step.exchange, step.id, step.outbound) == (header.exchange, header.message_id, outbound)
                && (step.digest == digest || later || retry && step.answered.is_none())
        };
        let cut = seen.fragment == Fragment::First;
        let datagram = if cut { seen.payload_len + 28 } else { seen.ip_len };
        if let Some(step) = self.steps.iter_mut().rev().find(same) {
            step.cut |= cut;
            step.datagram = step.datagram.max(datagram);
            step.marked |= marked;
            if !later {
                step.sends.again(seen.mark);
            }
            return;
        }
        if matches!(header.exchange, Exchange::Informational1 | Exchange::Informational2) {
            self.informed(header, seen);
        }
        if self.steps.len() >= STEPS {
            self.steps.remove(0);
        }
        self.steps.push(Step {
            exchange: header.exchange,
            id: header.message_id,
            outbound,
            digest,
            marked,
            asks,
            sends: Attempts::new(seen.mark),
            datagram,
            cut,
            answered: None,
            answer_len: 0,
        });
    }

    /// An informational message: DPD, or with more in it a deletion.
    fn informed(&mut self, header: &IkeHeader, seen: &Observation<'_>) {
        let side = side(seen.direction);
        if let Some(last) = self.rekeys.last_mut() {
            last.replaces |= seen.at().since(last.at.at) < AT_ONCE;
        }
        // Behind new keys the old ones are deleted, and not the session.
        let renewed = self.rekeys.last().is_some_and(|last| seen.at().since(last.at.at) < REPLACED);
        let within =
            |told: Option<(Mark, u32)>, time| told.filter(|(mark, _)| seen.at().since(mark.at) < time);
        let before = self.informed.get(side).and_then(|told| within(*told, AT_ONCE));
        let theirs = self.informed.get(1 - side).and_then(|told| within(*told, ANSWER));
        if let Some(told) = self.informed.get_mut(side) {
            *told = Some((seen.mark, header.length));
        }
        let Some(shortest) = self.dpd_len.get_mut(side) else { return };
        let longer = *shortest != u32::MAX && header.length > *shortest && header.length < *shortest + 64;
        *shortest = header.length.min(*shortest);
        if header.version == IkeVersion::V1 {
            // Here a deletion of ESP's keys is shorter than DPD, which is as long as one of the IKE SA, and has an
            // answer of its length. The end deletes ESP's keys, and the IKE SA at once after them.
            if before.is_none_or(|(_, length)| length >= header.length) {
                if theirs.is_some_and(|(_, length)| length == header.length) {
                    self.deletion = None;
                }
                return;
            }
        }
        if longer && !renewed {
            // The other side may say the same.
            let known = self.deletion.filter(|(_, mark)| seen.at().since(mark.at) < AT_ONCE);
            self.deletion = Some((known.map_or(side, |(first, _)| first), seen.mark));
        }
    }

    /// It works.
    pub(super) fn works(&mut self, mark: Mark) {
        self.established.get_or_insert(mark);
    }

    fn rekeyed(&mut self, mark: Mark) {
        self.works(mark);
        if self.rekeys.len() >= STEPS {
            self.rekeys.remove(0);
        }
        self.rekeys.push(Renewal { at: mark, replaces: false });
        self.rekey_refused = None;
    }

    /// Its keys were replaced, and its messages have another SPI from now on.
    pub(super) fn renamed(&mut self, initiator: IkeSpi) {
        self.initiator = initiator;
        self.steps.clear();
        self.dpd_len = [u32::MAX; 2];
    }
}

/// Is this message of another Quick Mode than the first?
fn opens_second(sa: &Sa, header: &IkeHeader) -> bool {
    let other = |step: &Step| step.exchange == Exchange::QuickMode && step.id != header.message_id;
    sa.steps.iter().any(other)
}

/// FNV-1a: tells a repetition from another message; nobody gains by a collision.
fn digest(message: &[u8]) -> u64 {
    let mix = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
    message.iter().fold(0xcbf2_9ce4_8422_2325, mix)
}
