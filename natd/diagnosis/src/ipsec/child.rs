//! SAs of ESP as their packets show them: each direction has an SPI of its own.

use core::time::Duration;

use nat_core::time::Timestamp;

use crate::finding::Mark;
use crate::observation::Observation;
use passthrough::esp::EspHeader;

/// SAs that are remembered between a device and a server: old and new ones of both directions.
const CHILDREN: usize = 24;
/// Large packets that are remembered of an SA.
const LARGE: usize = 6;
/// From that many bytes on an IP packet is large.
pub(super) const BIG: u32 = 1200;
/// Up to there every packet is seen, also live.
pub(super) const ALL_SEEN: u32 = 64;

/// An SA of ESP.
#[derive(Clone, Debug)]
pub(super) struct Child {
    pub(super) spi: u32,
    pub(super) outbound: bool,
    pub(super) in_udp: bool,
    pub(super) first: Mark,
    pub(super) last: Mark,
    pub(super) first_seq: u32,
    pub(super) last_seq: u32,
    /// Packets that were seen, with sequence numbers below [`ALL_SEEN`].
    pub(super) early: u32,
    /// Bytes of the longest IP packet.
    pub(super) longest: u32,
    /// The last large packets, and their bytes.
    pub(super) large: Vec<(Mark, u32)>,
}

impl Child {
    /// Packets that were sent as far as sequence numbers tell.
    pub(super) fn volume(&self) -> u64 {
        u64::from(self.last_seq.saturating_sub(self.first_seq)) + 1
    }

    /// Are only some of its next packets shown, where packets are shown live?
    pub(super) fn is_sampled(&self) -> bool {
        self.last_seq >= ALL_SEEN - 1
    }

    /// Among the first packets, those that are missing.
    pub(super) fn missing(&self) -> u32 {
        (self.last_seq.min(ALL_SEEN - 1) + 1).saturating_sub(self.first_seq).saturating_sub(self.early)
    }

    /// Large packets of one size that were sent again and again, each time after a longer pause: how many, the
    /// first and the last.
    pub(super) fn resent(&self) -> Option<(u64, Mark, Mark)> {
        let mut run: Vec<Mark> = Vec::new();
        let mut pause: Option<Duration> = None;
        let (_, size) = *self.large.last()?;
        for (mark, _) in self.large.iter().rev().take_while(|(_, len)| *len == size) {
            let Some(next) = run.last() else {
                run.push(*mark);
                continue;
            };
            let gap = next.at.since(mark.at);
            let longer = pause.is_none_or(|pause| pause >= gap.mul_f32(1.5) && pause <= gap.mul_f32(3.0));
            if !longer || gap < Duration::from_millis(150) {
                break;
            }
            pause = Some(gap);
            run.push(*mark);
        }
        let (first, last) = (run.last()?, run.first()?);
        let slow = last.at.since(first.at) >= Duration::from_secs(1);
        (run.len() >= 4 && slow).then_some((u64::try_from(run.len()).ok()?, *first, *last))
    }
}

/// Packets of one direction since the last one of the other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Alone {
    pub(super) first: Mark,
    pub(super) last: Mark,
    /// As far as sequence numbers tell.
    pub(super) packets: u64,
    /// The longest pause between two of them.
    pub(super) pause: Duration,
}

/// Inbound packets were lost while the device kept still, and came again when it sent something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Lull {
    pub(super) silent: Duration,
    pub(super) lost: u32,
    pub(super) again: Mark,
}

/// All SAs of ESP between a device and a server.
#[derive(Debug, Default)]
pub(super) struct Children {
    pub(super) list: Vec<Child>,
    /// Outbound and inbound packets since the last one of the other direction.
    pub(super) alone: [Option<Alone>; 2],
    /// First and last packet of both directions.
    pub(super) span: [Option<(Mark, Mark)>; 2],
    /// Bytes of the longest packets.
    pub(super) longest: [u32; 2],
    /// Lulls, the last ones.
    pub(super) lulls: Vec<Lull>,
}

/// The SA before a new one is used no longer than that.
const REPLACED: Duration = Duration::from_secs(2);
/// After that long a silence a mapping may be gone.
const LULL: Duration = Duration::from_secs(25);

impl Children {
    /// Takes note of a packet; says how many were sent since the one before it.
    pub(super) fn observe(&mut self, header: EspHeader, in_udp: bool, seen: &Observation<'_>) -> u64 {
        let outbound = seen.is_outbound();
        let mark = seen.mark;
        let other = if outbound { self.span[1] } else { self.span[0] };
        let known =
            self.list.iter().position(|child| (child.spi, child.outbound) == (header.spi.0, outbound));
        let fresh = known.is_none();
        let at = known.unwrap_or_else(|| {
            if self.list.len() >= CHILDREN {
                let oldest = (0..self.list.len()).min_by_key(|at| self.list.get(*at).map(|child| child.last));
                self.list.remove(oldest.unwrap_or(0));
            }
            self.list.push(Child {
                spi: header.spi.0,
                outbound,
                in_udp,
                first: mark,
                last: mark,
                first_seq: header.seq,
                last_seq: header.seq,
                early: 0,
                longest: 0,
                large: Vec::new(),
            });
            self.list.len() - 1
        });
        let Some(child) = self.list.get_mut(at) else { return 1 };
        let step = header.seq.saturating_sub(child.last_seq);
        let silent = mark.at.since(child.last.at);
        if !outbound && !fresh && silent >= LULL {
            // Behind the first packets only every 64th may have been shown.
            let tolerated = if header.seq < ALL_SEEN { 3 } else { 2 * ALL_SEEN };
            let woken =
                other.is_some_and(|(_, sent)| sent >= child.last && mark.at.since(sent.at).as_secs() < 2);
            if step > tolerated && woken {
                if self.lulls.len() >= LARGE {
                    self.lulls.remove(0);
                }
                self.lulls.push(Lull { silent, lost: step, again: mark });
            }
        }
        child.first_seq = child.first_seq.min(header.seq);
        child.last_seq = child.last_seq.max(header.seq);
        child.last = mark;
        child.longest = child.longest.max(seen.ip_len);
        child.early += u32::from(header.seq < ALL_SEEN);
        if seen.ip_len >= BIG {
            if child.large.len() >= LARGE {
                child.large.remove(0);
            }
            child.large.push((mark, seen.ip_len));
        }
        let packets = if fresh { 1 } else { u64::from(step.clamp(1, 1 << 16)) };
        let [out, inn] = &mut self.alone;
        let (mine, theirs) = if outbound { (out, inn) } else { (inn, out) };
        *theirs = None;
        match mine {
            Some(alone) => {
                alone.pause = alone.pause.max(mark.at.since(alone.last.at));
                (alone.packets, alone.last) = (alone.packets + packets, mark);
            }
            // Those before it that were not shown may have been answered.
            None => *mine = Some(Alone { first: mark, last: mark, packets: 1, pause: Duration::ZERO }),
        }
        let [out, inn] = &mut self.span;
        let span = if outbound { out } else { inn };
        *span = Some((span.map_or(mark, |(first, _)| first), mark));
        let [out, inn] = &mut self.longest;
        let longest = if outbound { out } else { inn };
        *longest = seen.ip_len.max(*longest);
        packets
    }

    /// Are inbound packets as frequent as before, when each was answered with another, and none any more?
    /// What is only sent again for want of an answer is no such thing, its pauses double.
    pub(super) fn rhythm(&self, alone: Alone) -> bool {
        let sum = |outbound| self.of(outbound).map(Child::volume).sum::<u64>();
        let before = sum(false).saturating_sub(alone.packets);
        let begin = self.span[1].map_or(alone.first, |(first, _)| first);
        let (earlier, lasted) = (alone.first.at.since(begin.at), alone.last.at.since(alone.first.at));
        before >= 3
            && sum(true) * 2 >= before
            && alone.pause * 4 <= lasted
            && u128::from(alone.packets) * earlier.as_millis() <= 2 * u128::from(before) * lasted.as_millis()
    }

    /// Packets of one direction while the other was silent. Live, behind the first packets of an SA, only every
    /// 64th is shown: then the silence counts only where several of those were to be expected.
    pub(super) fn silence(&self, of: usize, live: bool) -> Option<Alone> {
        let alone = (*self.alone.get(of)?)?;
        let volume = |outbound| self.of(outbound).map(Child::volume).sum::<u64>();
        let (mine, theirs) =
            if of == 0 { (volume(true), volume(false)) } else { (volume(false), volume(true)) };
        let newest = |outbound| self.of(outbound).max_by_key(|child| child.last);
        // Of a pair of SAs whose first packets were not seen, the silent one may well be in use.
        let sampled = match newest(of != 0) {
            Some(theirs) => theirs.is_sampled(),
            None => newest(of == 0).is_some_and(|mine| mine.first_seq > 4),
        };
        let expected = alone.packets.saturating_mul(theirs) / mine.saturating_sub(alone.packets).max(1);
        (!live || !sampled || expected >= 4 * u64::from(ALL_SEEN)).then_some(alone)
    }

    /// What was sent since `changed` (or since the first packet in vain after it) while nothing came, though enough
    /// was to be expected, and until `changed` it came; and since when.
    pub(super) fn unanswered_since(&self, changed: Timestamp, live: bool) -> Option<(Alone, Timestamp)> {
        let alone = self.alone[0]?;
        let volume = |outbound| self.of(outbound).map(Child::volume).sum::<u64>();
        let (sent, came) = (volume(true).saturating_sub(alone.packets).max(1), volume(false));
        let newest = |outbound| self.of(outbound).max_by_key(|child| child.last);
        let (mine, theirs) = (newest(true)?, newest(false)?);
        // Of new keys all first packets are shown.
        let sampled = live && theirs.is_sampled() && (mine.first <= theirs.last || mine.first_seq > 4);
        let enough = if sampled { 2 * u64::from(ALL_SEEN) } else { 5 };
        let expected = |packets: u64| packets.saturating_mul(came) / sent;
        let (begin, lasted) = (alone.first.at.max(changed), alone.last.at.since(alone.first.at));
        let share = |packets: u64, time: Duration| {
            let of = u128::from(packets) * time.as_millis() / lasted.as_millis().max(1);
            u64::try_from(of).unwrap_or(u64::MAX)
        };
        let before = share(alone.packets, begin.since(alone.first.at));
        let packets = alone.packets.saturating_sub(before);
        let first = if before > 0 { Mark { at: begin, ..alone.first } } else { alone.first };
        (expected(before) < enough && expected(packets) >= enough)
            .then_some((Alone { first, packets, ..alone }, begin))
    }

    /// How many outbound SAs were in use side by side; at least 1.
    pub(super) fn parallel(&self) -> u64 {
        let beside = |child: &Child| {
            let goes_on = |other: &&Child| {
                other.spi != child.spi
                    && other.first <= child.first
                    && other.last.at.since(child.first.at) >= REPLACED
            };
            self.of(true).filter(goes_on).fold(1, |count, _| count + 1)
        };
        self.of(true).map(beside).max().unwrap_or(1)
    }

    /// SAs of one direction.
    pub(super) fn of(&self, outbound: bool) -> impl Iterator<Item = &Child> {
        self.list.iter().filter(move |child| child.outbound == outbound)
    }
}
