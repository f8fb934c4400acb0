//! A TCP connection seen from the middle: state, windows, and which RST to believe.
//!
//! Each side's segments tell what the other side may send: the highest byte it acknowledged plus the window
//! it offered. A segment outside of that (van Rooij, "Real Stateful TCP Packet Filtering in IP Filter",
//! 2001) is forwarded, since the end system judges it anyway and answers as RFC 5961 has it, but it changes
//! nothing here: no state, no timer, no window.
//!
//! A RST is believed only if its sequence number is exactly the next one expected (RFC 5961 section 3.2,
//! RFC 7857 section 2.2): what the sender sent last, or what the receiver acknowledged last. One that is
//! merely inside the window is forwarded without effect; the end system challenges it. Even a believed RST
//! only shortens the session to four minutes, and data that still fits brings it back.
//!
//! A SYN on an open connection is forwarded without effect: if the receiver still knows the connection it
//! answers with an acknowledgement, and the sender resets. If it does not, it answers that very SYN, and the
//! connection begins anew (RFC 9293 section 3.5.1).
//!
//! A connection found in mid-stream (natd restarted) has no known window scale: nothing of it is checked,
//! ever, but RSTs need to match exactly all the same.

use crate::flow::Direction;
use crate::packet::TcpSegment;

/// What a segment does to the connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// It belongs: forward it, and it keeps the session alive.
    Progress,
    /// Forward it, but nothing changes.
    None(Ignored),
    /// A reset that nobody inside the window could have meant: drop it.
    BogusReset,
}

/// Why a segment is forwarded without effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ignored {
    /// Sequence or acknowledgement number outside what the other side allows.
    OutOfWindow,
    /// A reset inside the window that is not exact.
    InexactReset,
    /// A SYN, or its answer, that does not fit the connection as it stands.
    StraySyn,
}

/// How far a connection is; decides its idle time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// Not both SYNs are acknowledged.
    Opening,
    /// Open, or closed by one side only.
    Established,
    /// Both sides sent FIN.
    Closing,
    /// An exact RST was seen.
    Reset,
}

/// A SYN that did not fit: who sent it, and what acknowledges it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct StraySyn {
    sender: Direction,
    acknowledgement: u32,
}

/// One direction of a connection. Packed, since a session has to fit one cache line.
#[derive(Clone, Copy, Debug)]
#[repr(Rust, packed)]
struct Side {
    /// One behind the highest sequence number sent.
    end: u32,
    /// One behind the highest that the other side allows.
    allowed: u32,
    /// The last acknowledgement number sent.
    acked: u32,
    /// The largest window offered, to be scaled.
    window: u16,
    /// Of [`SEEN`] to [`FIN_SENT`]; above them the window scale, or [`NO_SCALE`].
    marks: u8,
}

/// The side has sent something.
const SEEN: u8 = 1;
/// `acked` holds something.
const ACKS: u8 = 1 << 1;
/// Its SYN is acknowledged.
const SYN_ACKED: u8 = 1 << 2;
/// It has sent its FIN.
const FIN_SENT: u8 = 1 << 3;

const SCALE_SHIFT: u32 = 4;
/// Its SYN had no window scale option; the largest scale is 14 (RFC 7323 section 2.3).
const NO_SCALE: u8 = 15;

impl Side {
    /// Nothing is known but `marks`.
    const fn marked(marks: u8) -> Self {
        Self { end: 0, allowed: 0, acked: 0, window: 0, marks: (NO_SCALE << SCALE_SHIFT) | marks }
    }

    #[inline]
    const fn has(&self, mark: u8) -> bool {
        self.marks & mark != 0
    }

    /// Sets `mark` if `yes`; leaves it as it is otherwise.
    #[inline]
    const fn mark(&mut self, mark: u8, yes: bool) {
        if yes {
            self.marks |= mark;
        }
    }

    const fn offers_scale(&self) -> bool {
        self.marks >> SCALE_SHIFT != NO_SCALE
    }

    /// How far the windows it sends are to be shifted.
    #[inline]
    const fn scale(&self) -> u8 {
        if self.offers_scale() { self.marks >> SCALE_SHIFT } else { 0 }
    }

    /// The largest window offered.
    #[inline]
    fn window(&self) -> u32 {
        u32::from(self.window) << self.scale()
    }

    /// Takes in its SYN's window, which is not scaled; the unit is that of those to come, so it may round up.
    fn offer(&mut self, window: u16, scale: Option<u8>) {
        let scale = scale.map_or(NO_SCALE, |scale| scale.min(NO_SCALE - 1));
        self.marks = (self.marks & !(NO_SCALE << SCALE_SHIFT)) | (scale << SCALE_SHIFT);
        self.window = window.div_ceil(1 << self.scale()).max(1);
    }

    fn forget_scale(&mut self) {
        self.window = u16::try_from(self.window()).unwrap_or(u16::MAX);
        self.marks |= NO_SCALE << SCALE_SHIFT;
    }

    /// Does `ack` acknowledge the SYN that this side sent, and nothing beyond what that carried?
    fn is_syn_acked_by(&self, ack: u32) -> bool {
        before_or_at(self.end, ack) && before_or_at(ack, self.allowed)
    }
}

/// A connection's state. The sides are those of the LAN device and of its peer.
#[derive(Clone, Copy, Debug)]
pub struct Connection {
    sides: [Side; 2],
    /// [`LOOSE`] and [`RESET`].
    marks: u8,
}

/// Found in mid-stream: window scale unknown.
const LOOSE: u8 = 1;
/// A reset was believed.
const RESET: u8 = 1 << 1;

impl Default for Connection {
    fn default() -> Self {
        Self { sides: [Side::marked(0); 2], marks: 0 }
    }
}

/// How far behind the highest byte an acknowledgement may lie: the largest window without scaling.
const ACK_SLACK: u32 = 66_000;

impl Connection {
    /// An open connection of which nothing else is known.
    pub fn adopted() -> Self {
        Self { sides: [Side::marked(SYN_ACKED); 2], marks: LOOSE }
    }

    #[inline]
    const fn is_loose(&self) -> bool {
        self.marks & LOOSE != 0
    }

    /// Where the connection stands.
    #[inline]
    pub fn phase(&self) -> Phase {
        let [device, peer] = &self.sides;
        if self.marks & RESET != 0 {
            Phase::Reset
        } else if device.has(FIN_SENT) && peer.has(FIN_SENT) {
            Phase::Closing
        } else if device.has(SYN_ACKED) && peer.has(SYN_ACKED) {
            Phase::Established
        } else {
            Phase::Opening
        }
    }

    /// Takes in a segment that crosses the NAT in `direction`. `stray` is the connection's too, but only SYNs
    /// look at it.
    #[inline]
    pub fn observe(
        &mut self,
        direction: Direction,
        segment: &TcpSegment,
        stray: &mut Option<StraySyn>,
    ) -> Effect {
        if segment.flags.rst {
            return self.observe_reset(direction, segment);
        }
        if segment.flags.syn {
            return self.observe_syn(direction, segment, stray);
        }
        self.observe_data(direction, segment)
    }

    fn sides_mut(&mut self, direction: Direction) -> (&mut Side, &mut Side) {
        let [device, peer] = &mut self.sides;
        match direction {
            Direction::Outbound => (device, peer),
            Direction::Inbound => (peer, device),
        }
    }

    fn sides(&self, direction: Direction) -> (&Side, &Side) {
        let [device, peer] = &self.sides;
        match direction {
            Direction::Outbound => (device, peer),
            Direction::Inbound => (peer, device),
        }
    }

    fn observe_syn(
        &mut self,
        direction: Direction,
        segment: &TcpSegment,
        stray: &mut Option<StraySyn>,
    ) -> Effect {
        let phase = self.phase();
        let over = phase >= Phase::Closing;
        let (sender, receiver) = self.sides(direction);
        let answers = segment.flags.ack;
        let answered = StraySyn { sender: direction.reverse(), acknowledgement: segment.ack };
        if answers && *stray == Some(answered) {
            // Both ends have forgotten the connection and open a new one. Of the SYN no more is known.
            *stray = None;
            *self = Self { marks: LOOSE, ..Self::default() };
            let (_, receiver) = self.sides_mut(direction);
            *receiver = Side { end: segment.ack, allowed: segment.ack, ..Side::marked(SEEN) };
        } else if answers {
            // RFC 9293 section 3.10.7.3: it must acknowledge the SYN and nothing else.
            let acknowledges = if sender.has(SEEN) {
                segment.ack == receiver.end
            } else {
                receiver.is_syn_acked_by(segment.ack)
            };
            if phase != Phase::Opening || (receiver.has(SEEN) && !acknowledges) {
                return Effect::None(Ignored::StraySyn);
            }
        } else if phase == Phase::Established {
            *stray = Some(StraySyn { sender: direction, acknowledgement: segment.seq.wrapping_add(1) });
            return Effect::None(Ignored::StraySyn);
        } else if over {
            *stray = None;
            *self = Self::default();
        } else if sender.has(SEEN)
            && segment.seq.wrapping_add(1) != sender.end
            && direction == Direction::Inbound
        {
            // Only the device may change its mind about a connection that is being opened.
            return Effect::None(Ignored::StraySyn);
        }
        let (sender, receiver) = self.sides_mut(direction);
        let acknowledged = receiver.has(ACKS) && receiver.acked == segment.seq.wrapping_add(1);
        let stays_acknowledged = sender.has(SYN_ACKED) && acknowledged;
        *sender = Side {
            end: segment.seq.wrapping_add(1),
            acked: if answers { segment.ack } else { 0 },
            ..Side::marked(SEEN)
        };
        sender.offer(segment.window, segment.window_scale);
        sender.mark(ACKS, answers);
        sender.mark(SYN_ACKED, stays_acknowledged);
        // What a SYN carries (RFC 7413) the receiver may take or leave.
        sender.allowed = sender.end.wrapping_add(segment.payload_len).wrapping_add(receiver.window());
        if receiver.has(SEEN) {
            if answers && before_or_at(receiver.end, segment.ack) {
                receiver.end = segment.ack;
            }
            if !(sender.offers_scale() && receiver.offers_scale()) {
                sender.forget_scale(); // RFC 7323 section 2.2: both or none
                receiver.forget_scale();
            }
            // A SYN's window is never scaled.
            receiver.allowed = receiver.end.wrapping_add(u32::from(segment.window).max(1));
            receiver.mark(SYN_ACKED, answers);
        }
        Effect::Progress
    }

    fn observe_data(&mut self, direction: Direction, segment: &TcpSegment) -> Effect {
        let (seq, fin) = (segment.seq, segment.flags.fin);
        let end = seq.wrapping_add(segment.payload_len).wrapping_add(u32::from(fin));
        let loose = self.is_loose();
        let (sender, receiver) = self.sides_mut(direction);
        let mut found_in_midstream = false;
        if !sender.has(SEEN) {
            if receiver.has(SEEN) && !loose {
                // An answer to a SYN is a SYN; anything else in its place is not part of this connection.
                return Effect::None(Ignored::OutOfWindow);
            }
            found_in_midstream = true;
            *sender = Side { end, allowed: end, window: 0xffff, ..Side::marked(SEEN | SYN_ACKED) };
        } else if receiver.has(SEEN) && !loose {
            let fits = before_or_at(seq, sender.allowed)
                && before_or_at(sender.end.wrapping_sub(receiver.window().max(1)), end)
                && (!segment.flags.ack
                    || (before_or_at(segment.ack, receiver.end)
                        && before_or_at(
                            receiver.end,
                            segment.ack.wrapping_add(sender.window().max(ACK_SLACK)),
                        )));
            if !fits {
                return Effect::None(Ignored::OutOfWindow);
            }
        }
        if before_or_at(sender.end, end) {
            sender.end = end;
        }
        sender.mark(FIN_SENT, fin);
        if segment.flags.ack {
            if !sender.has(ACKS) || before_or_at(sender.acked, segment.ack) {
                sender.acked = segment.ack;
                sender.mark(ACKS, true);
            }
            let window = u32::from(segment.window) << sender.scale();
            sender.window = sender.window.max(segment.window);
            let allowed = segment.ack.wrapping_add(window.max(1));
            if before_or_at(receiver.allowed, allowed) {
                receiver.allowed = allowed;
            }
            receiver.mark(SYN_ACKED, receiver.has(SEEN));
        }
        if found_in_midstream {
            self.marks |= LOOSE;
        }
        self.marks &= !RESET;
        Effect::Progress
    }

    fn observe_reset(&mut self, direction: Direction, segment: &TcpSegment) -> Effect {
        let (sender, receiver) = self.sides(direction);
        let (exact, inside) = if sender.has(SEEN) {
            let oldest = if receiver.has(ACKS) { receiver.acked } else { sender.end };
            (
                segment.seq == sender.end || (receiver.has(ACKS) && segment.seq == receiver.acked),
                before_or_at(oldest, segment.seq) && before_or_at(segment.seq, sender.allowed),
            )
        } else {
            // RFC 9293 section 3.10.7.3: a refused SYN is recognised by what the RST acknowledges.
            (receiver.has(SEEN) && segment.flags.ack && receiver.is_syn_acked_by(segment.ack), false)
        };
        if exact {
            self.marks |= RESET;
            return Effect::Progress;
        }
        match direction {
            // Its own device may say what it likes; RFC 7857: it does not refresh.
            Direction::Outbound => Effect::None(Ignored::InexactReset),
            Direction::Inbound if inside || self.is_loose() => Effect::None(Ignored::InexactReset),
            Direction::Inbound => Effect::BogusReset,
        }
    }

    /// Could the segment with sequence number `seq`, quoted in an ICMP error, be one that was sent in
    /// `direction` and is still unacknowledged (RFC 5927 section 4.1)? Yes, if the connection is not known.
    pub fn has_in_flight(&self, direction: Direction, seq: u32) -> bool {
        let (sender, receiver) = self.sides(direction);
        if !sender.has(SEEN) {
            return self.is_loose(); // where its beginning is known, it has sent nothing yet
        }
        if self.is_loose() && !receiver.has(ACKS) {
            return true;
        }
        let oldest = if receiver.has(ACKS) { receiver.acked } else { sender.end };
        // A keepalive repeats the last byte acknowledged (RFC 9293 section 3.8.4).
        before_or_at(oldest.wrapping_sub(1), seq) && before_or_at(seq, sender.end)
    }

    /// Sequence and acknowledgement numbers of RSTs of which the device will believe one to come from its peer:
    /// what it acknowledged last, and what its peer sent last, in case the acknowledgement is on its way.
    pub fn resets_for_device(&self) -> [Option<(u32, u32)>; 2] {
        let [device, peer] = &self.sides;
        let acknowledged = device.has(ACKS).then_some((device.acked, device.end));
        let sent = (peer.has(SEEN) && !(device.has(ACKS) && device.acked == peer.end))
            .then_some((peer.end, device.end));
        [acknowledged, sent]
    }
}

/// Is `a` before `b` or equal, in sequence number arithmetic (RFC 9293 section 3.4)?
#[inline]
const fn before_or_at(a: u32, b: u32) -> bool {
    b.wrapping_sub(a) < 1 << 31
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::TcpFlags;
    use Direction::{Inbound, Outbound};

    const SYN: TcpFlags = TcpFlags { syn: true, ack: false, fin: false, rst: false };
    const SYN_ACK: TcpFlags = TcpFlags { syn: true, ack: true, fin: false, rst: false };
    const ACK: TcpFlags = TcpFlags { syn: false, ack: true, fin: false, rst: false };
    const FIN: TcpFlags = TcpFlags { syn: false, ack: true, fin: true, rst: false };
    const RST: TcpFlags = TcpFlags { syn: false, ack: false, fin: false, rst: true };
    const RST_ACK: TcpFlags = TcpFlags { syn: false, ack: true, fin: false, rst: true };

    impl Connection {
        fn see(&mut self, direction: Direction, segment: &TcpSegment) -> Effect {
            self.observe(direction, segment, &mut None)
        }
    }

    fn segment(flags: TcpFlags, seq: u32, ack: u32, payload_len: u32) -> TcpSegment {
        TcpSegment {
            src_port: 1,
            dst_port: 2,
            seq,
            ack,
            flags,
            window: 1000,
            payload_len,
            window_scale: if flags.syn { Some(0) } else { None },
            mss: None,
        }
    }

    /// Device at 101, peer at 501, nothing in flight.
    fn established() -> Connection {
        let mut tcp = Connection::default();
        assert_eq!(tcp.see(Outbound, &segment(SYN, 100, 0, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Opening);
        assert_eq!(tcp.see(Inbound, &segment(SYN_ACK, 500, 101, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Opening);
        assert_eq!(tcp.see(Outbound, &segment(ACK, 101, 501, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
        tcp
    }

    #[test]
    fn both_fins_close_and_one_does_not() {
        let mut tcp = established();
        assert_eq!(tcp.see(Outbound, &segment(FIN, 101, 501, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
        assert_eq!(tcp.see(Inbound, &segment(ACK, 501, 102, 300)), Effect::Progress);
        assert_eq!(tcp.see(Inbound, &segment(FIN, 801, 102, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Closing);
        assert_eq!(tcp.see(Outbound, &segment(SYN, 9000, 0, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Opening);
    }

    #[test]
    fn simultaneous_open_establishes() {
        let mut tcp = Connection::default();
        tcp.see(Outbound, &segment(SYN, 100, 0, 0));
        assert_eq!(tcp.see(Inbound, &segment(SYN, 500, 0, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Opening);
        assert_eq!(tcp.see(Outbound, &segment(SYN_ACK, 100, 501, 0)), Effect::Progress);
        assert_eq!(tcp.see(Inbound, &segment(SYN_ACK, 500, 101, 0)), Effect::Progress);
        assert_eq!(tcp.see(Outbound, &segment(ACK, 101, 501, 10)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
    }

    #[test]
    fn a_reset_counts_only_when_exact() {
        for (seq, expected, phase) in [
            (501, Effect::Progress, Phase::Reset),
            (502, Effect::None(Ignored::InexactReset), Phase::Established),
            (1500, Effect::None(Ignored::InexactReset), Phase::Established),
            (1502, Effect::BogusReset, Phase::Established),
            (500, Effect::BogusReset, Phase::Established),
            (0x8000_0000, Effect::BogusReset, Phase::Established),
        ] {
            let mut tcp = established();
            assert_eq!(tcp.see(Inbound, &segment(RST, seq, 0, 0)), expected, "{seq}");
            assert_eq!(tcp.phase(), phase, "{seq}");
        }
    }

    #[test]
    fn data_after_an_exact_reset_restores_the_connection() {
        let mut tcp = established();
        tcp.see(Inbound, &segment(RST, 501, 0, 0));
        assert_eq!(tcp.see(Inbound, &segment(ACK, 9999, 101, 5)), Effect::None(Ignored::OutOfWindow));
        assert_eq!(tcp.phase(), Phase::Reset);
        assert_eq!(tcp.see(Inbound, &segment(ACK, 501, 101, 5)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
    }

    #[test]
    fn a_refused_syn_is_recognised_by_its_acknowledgement() {
        let mut tcp = Connection::default();
        tcp.see(Outbound, &segment(SYN, 100, 0, 0));
        assert_eq!(tcp.see(Inbound, &segment(RST_ACK, 0, 100, 0)), Effect::BogusReset);
        assert_eq!(tcp.see(Inbound, &segment(RST_ACK, 0, 101, 0)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Reset);
    }

    #[test]
    fn segments_outside_the_window_change_nothing() {
        let mut tcp = established();
        assert_eq!(tcp.see(Inbound, &segment(ACK, 5000, 101, 1)), Effect::None(Ignored::OutOfWindow));
        assert_eq!(tcp.see(Inbound, &segment(FIN, 501, 40_000, 0)), Effect::None(Ignored::OutOfWindow));
        assert_eq!(tcp.see(Inbound, &segment(SYN, 7, 0, 0)), Effect::None(Ignored::StraySyn));
        assert_eq!(tcp.see(Inbound, &segment(SYN_ACK, 7, 101, 0)), Effect::None(Ignored::StraySyn));
        assert_eq!(tcp.see(Inbound, &segment(ACK, 501, 101, 10)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
    }

    #[test]
    fn keepalives_and_window_probes_belong() {
        let mut tcp = established();
        assert_eq!(tcp.see(Outbound, &segment(ACK, 100, 501, 0)), Effect::Progress);
        assert_eq!(tcp.see(Inbound, &segment(ACK, 500, 101, 1)), Effect::Progress);
        let closed = TcpSegment { window: 0, ..segment(ACK, 101, 501, 0) };
        assert_eq!(tcp.see(Outbound, &closed), Effect::Progress);
        assert_eq!(tcp.see(Inbound, &segment(ACK, 501, 101, 1)), Effect::Progress);
    }

    #[test]
    fn window_scale_counts_only_when_both_offer_it() {
        for (peer_scale, fits) in [(Some(7), true), (None, false)] {
            let mut tcp = Connection::default();
            tcp.see(Outbound, &TcpSegment { window_scale: Some(7), ..segment(SYN, 100, 0, 0) });
            tcp.see(Inbound, &TcpSegment { window_scale: peer_scale, ..segment(SYN_ACK, 500, 101, 0) });
            tcp.see(Outbound, &segment(ACK, 101, 501, 0));
            let far = segment(ACK, 501 + 50_000, 101, 100);
            assert_eq!(tcp.see(Inbound, &far) == Effect::Progress, fits, "{peer_scale:?}");
        }
    }

    #[test]
    fn a_quoted_segment_must_be_in_flight() {
        let mut tcp = established();
        tcp.see(Outbound, &segment(ACK, 101, 501, 200));
        for (seq, expected) in [(99, false), (100, true), (301, true), (302, false), (0xdead_beef, false)] {
            assert_eq!(tcp.has_in_flight(Outbound, seq), expected, "{seq}");
        }
        let mut opening = Connection::default();
        opening.see(Outbound, &segment(SYN, 100, 0, 0));
        assert!(opening.has_in_flight(Outbound, 100) && !opening.has_in_flight(Outbound, 99));
    }

    #[test]
    fn a_connection_found_in_midstream_checks_no_window_but_still_wants_exact_resets() {
        let mut tcp = Connection::default();
        assert_eq!(tcp.see(Outbound, &segment(ACK, 7000, 9000, 10)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Opening);
        assert_eq!(tcp.see(Inbound, &segment(ACK, 9000, 7010, 1_000_000)), Effect::Progress);
        assert_eq!(tcp.phase(), Phase::Established);
        assert_eq!(tcp.see(Inbound, &segment(RST, 42, 0, 0)), Effect::None(Ignored::InexactReset));
        assert_eq!(tcp.phase(), Phase::Established);
    }
}
