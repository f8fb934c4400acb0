//! What the engine answers: values that the daemon carries out.

use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use crate::flow::{Endpoint, Protocol, Tuple};
use crate::packet::{IcmpError, PacketView};
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forward {
    /// Whose identifiers and checksum are changed with the addresses; `None`: the addresses alone.
    pub(crate) transport: Option<Protocol>,
    pub(crate) layout: Layout,
    pub(crate) rewrite: Rewrite,
    pub(crate) edits: Vec<WordEdit>,
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
    pub(crate) transport: Option<Protocol>,
    /// A change behind the addresses that no checksum covers, with its offset within the quoted packet.
    pub(crate) edit: Option<WordEdit>,
    /// Offsets within the quoted packet.
    pub(crate) layout: Layout,
    pub(crate) rewrite: Rewrite,
}

impl Forward {
    /// The change from what `packet` shows, `from`, to `to`.
    #[inline]
    pub(crate) fn between(packet: &PacketView<'_>, from: &Tuple, to: &Tuple) -> Self {
        Self {
            transport: Some(from.protocol),
            layout: packet.layout,
            rewrite: Rewrite::between(from, to),
            edits: Vec::new(),
            quote: None,
            admission: None,
            hairpin: false,
            resend: false,
        }
    }

    /// New endpoints for the UDP or TCP `packet`; `None` when it is neither.
    pub fn to_endpoints(packet: &PacketView<'_>, src: Endpoint, dst: Endpoint) -> Option<Self> {
        let from = packet.tuple()?;
        Some(Self::between(packet, &from, &Tuple { protocol: from.protocol, src, dst }))
    }

    /// New addresses for `packet`, of a protocol whose checksum does not cover them.
    #[inline]
    pub fn to_addresses(packet: &PacketView<'_>, src: Ipv4Addr, dst: Ipv4Addr) -> Self {
        let from = addresses(packet.src, packet.dst);
        Self { transport: None, ..Self::between(packet, &from, &addresses(src, dst)) }
    }

    /// An ICMP error with new addresses `src` and `dst` that quotes a packet of a protocol without ports. The
    /// quoted addresses become `quoted_src` and `quoted_dst`, and `edit` changes one of its words, the offset
    /// counted from its own start.
    pub fn of_error(
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        (quoted_src, quoted_dst): (Ipv4Addr, Ipv4Addr),
        edit: Option<WordEdit>,
    ) -> Option<Self> {
        let quote = PacketView::parse_quote(error.quote).ok()?;
        let shown = addresses(quote.src, quote.dst);
        let quote = QuoteRewrite {
            offset: error.quote_offset,
            transport: None,
            edit,
            layout: quote.layout,
            rewrite: Rewrite::between(&shown, &addresses(quoted_src, quoted_dst)),
        };
        Some(Self { quote: Some(quote), ..Self::to_addresses(packet, src, dst) })
    }

    /// An ICMP error with new addresses `src` and `dst` that quotes a UDP datagram, whose tuple becomes `original`.
    pub fn of_udp_error(
        packet: &PacketView<'_>,
        error: &IcmpError<'_>,
        (src, dst): (Ipv4Addr, Ipv4Addr),
        shown: &Tuple,
        original: &Tuple,
    ) -> Option<Self> {
        let quote = PacketView::parse_quote(error.quote).ok()?;
        let quote = QuoteRewrite {
            offset: error.quote_offset,
            transport: Some(shown.protocol),
            edit: None,
            layout: quote.layout,
            rewrite: Rewrite::between(shown, original),
        };
        Some(Self { quote: Some(quote), ..Self::to_addresses(packet, src, dst) })
    }

    /// The same with further changes.
    pub fn with_edits(mut self, edits: impl IntoIterator<Item = WordEdit>) -> Self {
        self.edits.extend(edits);
        self
    }

    /// The packet's addresses and identifiers afterwards: source, destination.
    pub fn endpoints(&self) -> (Endpoint, Endpoint) {
        self.rewrite.endpoints()
    }

    /// Changes `packet`, the same bytes that were decided upon, whose transport checksum is in `state`.
    #[inline]
    pub fn carry_out(&self, packet: &mut [u8], state: ChecksumState) {
        for edit in &self.edits {
            edit.apply(packet, self.layout, self.transport, state);
        }
        let Some(quote) = &self.quote else {
            match self.transport {
                Some(protocol) => self.rewrite.apply(packet, self.layout, protocol, state),
                None => self.rewrite.apply_addresses(packet),
            }
            return;
        };
        self.rewrite.apply_addresses(packet);
        if let Some(quoted) = packet.get_mut(usize::from(quote.offset)..) {
            if let Some(edit) = &quote.edit {
                edit.apply(quoted, quote.layout, None, ChecksumState::Complete);
            }
            match quote.transport {
                Some(protocol) => {
                    quote.rewrite.apply(quoted, quote.layout, protocol, ChecksumState::Complete);
                }
                None => quote.rewrite.apply_addresses(quoted),
            }
        }
        refresh_icmp_checksum(packet, self.layout);
    }
}

/// A tuple that stands for its addresses alone.
fn addresses(src: Ipv4Addr, dst: Ipv4Addr) -> Tuple {
    Tuple { protocol: Protocol::Icmp, src: Endpoint::new(src, 0), dst: Endpoint::new(dst, 0) }
}

/// What the daemon has to do beside the packet at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Send this IPv4 packet, complete with checksums.
    Transmit(Vec<u8>),
    /// Make this conntrack entry, which what is sent next needs.
    Admit(Admission),
    /// Decide on a held packet.
    Release {
        /// Which one.
        hold: HoldId,
        /// What becomes of it.
        outcome: Outcome,
    },
}

/// What becomes of a packet that was held.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// It goes untouched.
    Pass,
    /// It goes, changed.
    Forward(Forward),
    /// It is dropped.
    Drop,
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
        IpsecOff => "ipsec-off", "IPsec, which the configuration switches off";
        PptpOff => "pptp-off", "PPTP, which the configuration switches off";
        L2tpOff => "l2tp-off", "L2TP, which the configuration switches off";
        VpnNotAllowed => "vpn-not-allowed", "a device or a VPN server that the configuration does not list";
        VpnSecondDevice => "vpn-second-device", "a second device at one VPN server while multi is off";
        VpnLimit => "vpn-limit", "too many VPN sessions of one device or at one server";
        VpnHoldFull => "vpn-hold-full", "too many VPN packets wait for their owner to be known";
        AhUntranslatable => "ah", "AH signs the addresses, so no NAT can let it through";
        EspNoGate => "esp-no-gate", "ESP that no device has asked that server for";
        EspAmbiguous => "esp-ambiguous", "ESP that could be for more devices than fan_out allows";
        GreNoControl => "gre-no-control", "PPTP data without a control connection that announced it";
        GreAfterStart => "gre-after-start", "PPTP data of a call from before natd started: dial again";
        PptpGap => "pptp-gap", "a PPTP control segment behind a missing one; its sender repeats it";
        PptpLimit => "pptp-limit", "more PPTP calls or changes than one connection may have";
        KeyConflict => "key-conflict", "a GRE key or L2TPv3 session that another device uses at that server";
        KeyUnknown => "key-unknown", "a GRE key or L2TPv3 session that no device has";
        L2tpRefused => "l2tp-refused", "an L2TP packet for a tunnel that no device has";
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
        VpnHeld => "vpn-held", "VPN packets held until their owner was known";
        EspEvidence => "esp-evidence", "inbound SPIs learned by evidence";
        EspGuess => "esp-guess", "inbound SPIs given to the only device that could be meant, without having seen IKE";
        EspFanOut => "esp-fan-out", "ESP packets given to each of several devices that could be meant";
        EspConflict => "esp-conflict", "devices that picked an SPI that another one has at the same server";
        VpnRefused => "vpn-refused", "devices told that their VPN is switched off or not allowed";
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

/// What conntrack knows a flow's direction by. Unlike a [`Tuple`], it is of any protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelTuple {
    /// The protocol number of the IPv4 header.
    pub protocol: u8,
    /// Source; the identifier is a port, an ICMP query id or a GRE key, 0 where the protocol has none.
    pub src: Endpoint,
    /// Destination, likewise.
    pub dst: Endpoint,
}

impl KernelTuple {
    /// The tuple of an answer.
    pub const fn reverse(self) -> Self {
        Self { protocol: self.protocol, src: self.dst, dst: self.src }
    }

    /// The same as a [`Tuple`]; `None` for a protocol that the NAT does not translate by itself.
    pub fn tuple(self) -> Option<Tuple> {
        let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.number() == self.protocol)?;
        Some(Tuple { protocol, src: self.src, dst: self.dst })
    }
}

impl From<Tuple> for KernelTuple {
    fn from(tuple: Tuple) -> Self {
        Self { protocol: tuple.protocol.number(), src: tuple.src, dst: tuple.dst }
    }
}

impl PartialEq<Tuple> for KernelTuple {
    fn eq(&self, other: &Tuple) -> bool {
        *self == Self::from(*other)
    }
}

impl core::fmt::Display for KernelTuple {
    fn fmt(&self, f: &mut core::fmt::Formatter<'_>) -> core::fmt::Result {
        match self.tuple() {
            Some(tuple) => tuple.fmt(f),
            None => write!(f, "protocol {} {} → {}", self.protocol, self.src, self.dst),
        }
    }
}

/// A conntrack entry, in the LAN's view, that must exist before a packet is released, so that a stateful
/// firewall takes the packet for part of an established flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Admission {
    /// The flow's original direction as conntrack sees it: internal and remote endpoints, never the WAN's.
    pub original: KernelTuple,
    /// For TCP: how far the connection is.
    pub tcp: Option<TcpProgress>,
    /// The entry's timeout if it is created.
    pub timeout: Duration,
}

/// A flow that the kernel's conntrack knows, read at start to take it over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelFlow {
    /// Original direction: as the first packet was before any kernel NAT.
    pub original: KernelTuple,
    /// What an answer looks like on the wire; differs from `original.reverse()` where the kernel translates.
    pub reply: KernelTuple,
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
