//! What the engine answers: values that the daemon carries out.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::flow::{Protocol, Tuple};
use crate::rewrite::{Layout, Rewrite, WordEdit, refresh_icmp_checksum};

/// What the kernel left open in a packet's transport checksum; [`crate::rewrite`] says what follows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumState {
    /// The checksum is complete: adjust it by the difference (RFC 1624).
    #[default]
    Complete,
    /// The sender left it to its hardware: compute it over the whole payload.
    Partial,
    /// The same, and the packet is a train of segments (GSO): write the un-complemented pseudo-header sum.
    PartialGso,
}

/// What to do with one packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Decision {
    /// Change it and let it go.
    Forward(Forward),
    /// Let it go untouched: it is the router's own, or none of ours.
    Pass,
    /// Keep it until [`Effect::Release`] names this number.
    Hold(HoldId),
    /// Drop it.
    Drop(DropReason),
}

/// The name of a held packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct HoldId(pub u64);

/// How a packet is to be changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forward {
    pub(crate) protocol: Protocol,
    pub(crate) layout: Layout,
    pub(crate) rewrite: Rewrite,
    pub(crate) edit: Option<WordEdit>,
    pub(crate) quote: Option<QuoteRewrite>,
    /// What conntrack must know before the packet is released.
    pub admission: Option<Admission>,
    /// Is this a hairpin's first pass, to be marked so that the second pass gets it?
    pub hairpin: bool,
    /// Send a copy as a packet of the daemon's own and drop this one, which conntrack would lose.
    pub resend: bool,
}

/// The change to the packet that an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct QuoteRewrite {
    /// Offset of the quoted packet from the start of the packet.
    pub(crate) offset: u16,
    pub(crate) protocol: Protocol,
    /// Offsets within the quoted packet.
    pub(crate) layout: Layout,
    pub(crate) rewrite: Rewrite,
}

impl Forward {
    /// Changes `packet`, the same bytes that were decided upon, whose transport checksum is in `state`.
    #[inline]
    pub fn carry_out(&self, packet: &mut [u8], state: ChecksumState) {
        if let Some(edit) = &self.edit {
            edit.apply(packet, self.layout, self.protocol, state);
        }
        let Some(quote) = &self.quote else {
            self.rewrite.apply(packet, self.layout, self.protocol, state);
            return;
        };
        self.rewrite.apply_addresses(packet);
        if let Some(quoted) = packet.get_mut(usize::from(quote.offset)..) {
            quote.rewrite.apply(quoted, quote.layout, quote.protocol, ChecksumState::Complete);
        }
        refresh_icmp_checksum(packet, self.layout);
    }
}

/// What the daemon has to do beside the packet at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this IPv4 packet, complete with checksums.
    Transmit(Vec<u8>),
    /// Let a held packet go, or drop it.
    Release {
        /// Which one.
        hold: HoldId,
        /// Let it go?
        pass: bool,
    },
}

macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($variant:ident => $text:literal, $explanation:literal;)* }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $name {
            $(#[doc = $explanation] $variant,)*
        }

        impl $name {
            /// Every one, in the order of [`Self::index`].
            pub const ALL: &'static [Self] = &[$(Self::$variant),*];

            /// A dense index.
            pub const fn index(self) -> usize {
                self as usize
            }

            /// A stable name for counters and scripts.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$variant => $text),* }
            }

            /// The same in a sentence.
            pub const fn explanation(self) -> &'static str {
                match self { $(Self::$variant => $explanation),* }
            }
        }
    };
}

reasons! {
    /// Why a packet was dropped.
    DropReason {
        Malformed => "malformed", "its headers contradict each other";
        BadChecksum => "bad-checksum", "ICMP error with a wrong checksum";
        Fragment => "fragment", "a fragment that the kernel did not reassemble";
        TooLarge => "too-large", "a reassembled datagram larger than the kernel can hand over (65,531 bytes)";
        UnsupportedProtocol => "unsupported-protocol", "a protocol that cannot be translated";
        NoAddress => "no-address", "the WAN interface has no address";
        InboundToLan => "inbound-to-lan", "came from the WAN addressed to the LAN directly";
        ForgedSource => "forged-source", "came from the WAN with an address of the LAN, or with our own";
        Filtered => "filtered", "the device never sent anything to that sender";
        NoSession => "no-session", "a TCP reset or answer that belongs to no session";
        BogusReset => "bogus-reset", "a TCP reset outside the connection's window";
        UnknownQuote => "unknown-quote", "an ICMP error about a packet that was never sent";
        StaleQuote => "stale-quote", "an ICMP error about TCP data that is not in flight";
        MtuTooSmall => "mtu-too-small", "fragmentation needed with an MTU below 576";
        RefusedIcmp => "refused-icmp", "an ICMP message that must not cross a NAT";
        TableFull => "table-full", "the session table is full";
        DeviceQuota => "device-quota", "the device has used up its share of sessions";
        NoPort => "no-port", "no external port of the class is free";
        Conflict => "conflict", "another session shows the same endpoints";
        HoldFull => "hold-full", "too many unsolicited SYNs are held";
        HoldRepeated => "hold-repeated", "repeats an unsolicited SYN that is held";
        HoldAnswered => "hold-answered", "an unsolicited SYN that its counterpart overtook";
        AfterStart => "after-start", "TCP from before natd started, not yet heard of from the inside";
        HairpinRefused => "hairpin-refused", "between two devices through the WAN address, switched off or not accepted";
        Guarded => "guarded", "would have left with an address of the LAN";
        Internal => "internal", "the daemon could not carry out its decision";
    }
}

reasons! {
    /// Things worth counting about packets that are not dropped.
    Note {
        OutOfWindow => "out-of-window", "TCP segments outside the window, forwarded without effect";
        InexactReset => "inexact-reset", "TCP resets that were not exact, forwarded without effect";
        StraySyn => "stray-syn", "SYNs that did not fit their connection, forwarded without effect";
        SynHeld => "syn-held", "unsolicited SYNs held back";
        Admitted => "admitted", "conntrack entries created or refreshed for inbound packets";
        Adopted => "adopted", "flows taken over from the kernel at start";
        ResetSent => "reset-sent", "devices told by a reset that the WAN address changed";
        RefusalSent => "refusal-sent", "senders told by ICMP that a session was refused";
    }
}

/// How far a TCP connection is, as far as the kernel's conntrack needs to know.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TcpProgress {
    /// The packet about to be released is its SYN.
    Opening,
    /// It carries data.
    Established,
}

/// A conntrack entry, in the LAN's view, that must exist before a packet is released, so that a stateful
/// firewall takes the packet for part of an established flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The flow's original direction as conntrack sees it: internal and remote endpoints, never the WAN's.
    pub original: Tuple,
    /// For TCP: how far the connection is.
    pub tcp: Option<TcpProgress>,
    /// The entry's timeout if it is created.
    pub timeout: Duration,
}

/// A flow that the kernel's conntrack knows, read at start to take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// Original direction: as the first packet was before any kernel NAT.
    pub original: Tuple,
    /// What an answer looks like on the wire; differs from `original.reverse()` where the kernel translates.
    pub reply: Tuple,
    /// Source NAT by the kernel (`IPS_SRC_NAT`).
    pub snat: bool,
    /// Destination NAT by the kernel (`IPS_DST_NAT`).
    pub dnat: bool,
    /// Packets were seen both ways (`IPS_SEEN_REPLY`).
    pub replied: bool,
    /// For TCP: is it established?
    pub tcp: Option<TcpProgress>,
    /// Time left.
    pub timeout: Duration,
}

/// An address of the router itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InterfaceAddress {
    /// The address.
    pub addr: Ipv4Addr,
    /// Prefix length, 0 to 32.
    pub prefix: u8,
}

impl InterfaceAddress {
    /// Is `addr` in this address's network?
    pub fn contains(&self, addr: Ipv4Addr) -> bool {
        let mask = u32::MAX.checked_shl(32 - u32::from(self.prefix.min(32))).unwrap_or(0);
        (u32::from(self.addr) ^ u32::from(addr)) & mask == 0
    }
}
