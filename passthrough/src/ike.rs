//! The clear parts of IKE: version 1 (RFC 2408, RFC 2409, RFC 3947), version 2 (RFC 7296, RFC 7383), and what
//! shares UDP 4500 with it (RFC 3948).
//!
//! Every message of an IKE SA carries the SPI that its initiator chose, on 500 as on 4500: it names a device
//! among several that talk to one server. Keys, identities and the SPIs of ESP are encrypted, but for the
//! errors that a host sends about an SA which it does not know.

use crate::bytes::{be16, be32, be64};
use crate::esp::EspHeader;

/// An IKE SPI, in version 1 called cookie. 0: none chosen yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IkeSpi(pub u64);

/// The major version of IKE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IkeVersion {
    /// IKEv1, whatever the minor version.
    V1,
    /// IKEv2, whatever the minor version.
    V2,
    /// Another one: the version byte, major version in the high nibble.
    Other(u8),
}

/// An exchange type (RFC 2408 section 3.1, RFC 2409 appendix A, RFC 7296 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Exchange {
    /// IKEv1 Identity Protection, which RFC 2409 calls Main Mode: 2.
    MainMode,
    /// IKEv1 Aggressive Mode: 4.
    Aggressive,
    /// IKEv1 Informational: 5.
    Informational1,
    /// IKEv1 Transaction, for XAUTH and Mode Config: 6.
    Transaction,
    /// IKEv1 Quick Mode: 32.
    QuickMode,
    /// IKEv1 New Group Mode: 33.
    NewGroup,
    /// IKE_SA_INIT: 34.
    SaInit,
    /// IKE_AUTH: 35.
    Auth,
    /// CREATE_CHILD_SA: 36.
    CreateChildSa,
    /// IKEv2 INFORMATIONAL: 37.
    Informational2,
    /// IKE_SESSION_RESUME (RFC 5723): 38.
    SessionResume,
    /// IKE_INTERMEDIATE (RFC 9242): 43.
    Intermediate,
    /// IKE_FOLLOWUP_KE (RFC 9370): 44.
    FollowupKe,
    /// Another one, or one that this version does not know.
    Other(u8),
}

/// The header of every IKE message (RFC 2408 section 3.1, RFC 7296 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct IkeHeader {
    /// The SPI of the IKE SA's initiator. 0 only in an Informational exchange that belongs to no IKE SA: an
    /// error that a host sends unasked (RFC 7296 section 1.5; IKEv1 does so too). It names no device.
    pub initiator: IkeSpi,
    /// The SPI of its responder: 0 until it has chosen one.
    pub responder: IkeSpi,
    /// Type of the first payload; 0: none.
    pub next_payload: u8,
    /// Version.
    pub version: IkeVersion,
    /// Exchange type.
    pub exchange: Exchange,
    /// Flags, whose meaning depends on the version.
    pub flags: u8,
    /// Message ID.
    pub message_id: u32,
    /// Length of the message in bytes, this header included, as the message says.
    pub length: u32,
}

/// Length of the IKE header in bytes.
const HEADER_LEN: usize = 28;
/// The type that Windows AuthIP, which calls itself IKE 1.0, gives its first exchange.
const AUTHIP_MAIN_MODE: u8 = 243;

const V1_ENCRYPTED: u8 = 0x01; // RFC 2408 section 3.1
const V2_INITIATOR: u8 = 0x08; // RFC 7296 section 3.1
const V2_RESPONSE: u8 = 0x20;

impl IkeHeader {
    /// Reads the header of an IKE message, which begins behind the non-ESP marker where there is one.
    ///
    /// The message may be cut off behind the header. An unknown major version is believed only of a message
    /// that is exactly as long as it says.
    pub fn parse(message: &[u8]) -> Option<Self> {
        let (header, _) = message.split_first_chunk::<HEADER_LEN>()?;
        let &[.., next_payload, version, exchange, flags, _, _, _, _, _, _, _, _] = header;
        let length = be32(header, 24)?;
        let version = match version >> 4 {
            1 => IkeVersion::V1,
            2 => IkeVersion::V2,
            3.. if usize::try_from(length) == Ok(message.len()) => IkeVersion::Other(version),
            _ => return None,
        };
        let header = Self {
            initiator: IkeSpi(be64(header, 0)?),
            responder: IkeSpi(be64(header, 8)?),
            next_payload,
            version,
            exchange: Exchange::new(version, exchange),
            flags,
            message_id: be32(header, 20)?,
            length,
        };
        let belongs_to_none = !header.is_encrypted()
            && matches!(header.exchange, Exchange::Informational1 | Exchange::Informational2);
        ((header.initiator != IkeSpi(0) || belongs_to_none) && length >= 28).then_some(header)
    }

    /// Does an IKEv2 message answer a request?
    pub fn is_response(&self) -> bool {
        self.version == IkeVersion::V2 && self.flags & V2_RESPONSE != 0
    }

    /// Was an IKEv2 message sent by the one who began the IKE SA? IKEv1 messages do not say.
    pub fn from_initiator(&self) -> bool {
        self.version == IkeVersion::V2 && self.flags & V2_INITIATOR != 0
    }

    /// Is the message encrypted, from its first payload on?
    pub fn is_encrypted(&self) -> bool {
        match self.version {
            IkeVersion::V1 => self.flags & V1_ENCRYPTED != 0,
            IkeVersion::V2 => matches!(self.next_payload, kind::ENCRYPTED | kind::ENCRYPTED_FRAGMENT),
            IkeVersion::Other(_) => false,
        }
    }

    /// Is this a first message of a new IKE SA? So is its repetition, with a cookie or without.
    pub fn begins(&self) -> bool {
        self.is_opening() && self.responder == IkeSpi(0) && !self.is_response()
    }

    /// Is this of an exchange by which an IKE SA begins?
    pub fn is_opening(&self) -> bool {
        match self.exchange {
            Exchange::MainMode | Exchange::Aggressive | Exchange::SaInit | Exchange::SessionResume => true,
            Exchange::Other(exchange) => self.version == IkeVersion::V1 && exchange == AUTHIP_MAIN_MODE,
            Exchange::Informational1
            | Exchange::Transaction
            | Exchange::QuickMode
            | Exchange::NewGroup
            | Exchange::Auth
            | Exchange::CreateChildSa
            | Exchange::Informational2
            | Exchange::Intermediate
            | Exchange::FollowupKe => false,
        }
    }
}

impl Exchange {
    const fn new(version: IkeVersion, exchange: u8) -> Self {
        match (version, exchange) {
            (IkeVersion::V1, 2) => Self::MainMode,
            (IkeVersion::V1, 4) => Self::Aggressive,
            (IkeVersion::V1, 5) => Self::Informational1,
            (IkeVersion::V1, 6) => Self::Transaction,
            (IkeVersion::V1, 32) => Self::QuickMode,
            (IkeVersion::V1, 33) => Self::NewGroup,
            (IkeVersion::V2, 34) => Self::SaInit,
            (IkeVersion::V2, 35) => Self::Auth,
            (IkeVersion::V2, 36) => Self::CreateChildSa,
            (IkeVersion::V2, 37) => Self::Informational2,
            (IkeVersion::V2, 38) => Self::SessionResume,
            (IkeVersion::V2, 43) => Self::Intermediate,
            (IkeVersion::V2, 44) => Self::FollowupKe,
            _ => Self::Other(exchange),
        }
    }
}

/// Payload types (RFC 2408 section 3.1, RFC 3947, RFC 7296 section 3.2, RFC 7383).
mod kind {
    pub(super) const V1_SA: u8 = 1;
    pub(super) const V1_KEY_EXCHANGE: u8 = 4;
    pub(super) const V1_NOTIFY: u8 = 11;
    pub(super) const V1_VENDOR_ID: u8 = 13;
    pub(super) const V1_NAT_D: u8 = 20;
    /// NAT-D in the drafts before RFC 3947.
    pub(super) const V1_NAT_D_DRAFT: u8 = 130;
    /// Cisco's and Microsoft's own fragmentation.
    pub(super) const V1_FRAGMENT: u8 = 132;
    pub(super) const V2_NONCE: u8 = 40;
    pub(super) const V2_NOTIFY: u8 = 41;
    pub(super) const ENCRYPTED: u8 = 46;
    pub(super) const ENCRYPTED_FRAGMENT: u8 = 53;
}

/// A payload that is not encrypted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload<'a> {
    /// Payload type; the numbers of IKEv1 and IKEv2 do not overlap.
    pub kind: u8,
    /// What follows its generic header of four bytes.
    pub body: &'a [u8],
}

/// The clear payloads of a message, in order. See [`payloads`].
#[derive(Clone, Debug)]
pub struct Payloads<'a> {
    /// From the next payload's generic header to the end of the message.
    rest: &'a [u8],
    /// Type of the next payload; 0: the message says that there is none.
    next: u8,
    /// How many more are read.
    left: u8,
}

/// A real message has less than 20 or so.
const MAX_PAYLOADS: u8 = 64;

/// Walks a message's clear payloads (RFC 2408 section 3.2, RFC 7296 section 3.2).
///
/// Ends at an encrypted payload, at a length that is wrong or points behind the message, and after 64 payloads;
/// gives nothing if `message` is no IKE message or of an unknown version.
pub fn payloads(message: &[u8]) -> Payloads<'_> {
    IkeHeader::parse(message)
        .map_or(Payloads { rest: &[], next: 0, left: 0 }, |header| walk(&header, message))
}

fn walk<'a>(header: &IkeHeader, message: &'a [u8]) -> Payloads<'a> {
    let clear = match header.version {
        // The fragments of an encrypted message are clear and may carry its flag.
        IkeVersion::V1 => !header.is_encrypted() || header.next_payload == kind::V1_FRAGMENT,
        IkeVersion::V2 => true,
        IkeVersion::Other(_) => false,
    };
    let end = usize::try_from(header.length).map_or(message.len(), |length| length.min(message.len()));
    let rest = if clear { message.get(HEADER_LEN..end) } else { None };
    Payloads { rest: rest.unwrap_or_default(), next: header.next_payload, left: MAX_PAYLOADS }
}

impl<'a> Iterator for Payloads<'a> {
    type Item = Payload<'a>;

    fn next(&mut self) -> Option<Payload<'a>> {
        let kind = self.next;
        if matches!(kind, 0 | kind::ENCRYPTED | kind::ENCRYPTED_FRAGMENT) {
            return None;
        }
        let length = usize::from(be16(self.rest, 2)?);
        let body = self.rest.get(4..length)?;
        let left = self.left.checked_sub(1)?;
        let (&next, rest) = (self.rest.first()?, self.rest.get(length..)?);
        *self = Self { rest, next, left };
        Some(Payload { kind, body })
    }
}

/// Does a message's sender know how to get through a NAT?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatT {
    /// It says so: a vendor ID or NAT-D payload (RFC 3947), or a NAT detection notify (RFC 7296 section 2.23).
    Offered,
    /// The message is one that would say so, and does not.
    Absent,
    /// The message is encrypted, cut off, or one that would not say so either way.
    Unknown,
}

/// Vendor IDs that offer NAT traversal in IKEv1: the MD5 of the RFC's or draft's name.
const NAT_T_VENDORS: [u128; 6] = [
    0x4a13_1c81_0703_5845_5c57_28f2_0e95_452f, // RFC 3947
    0x7d94_19a6_5310_ca6f_2c17_9d92_1552_9d56, // draft-ietf-ipsec-nat-t-ike-03
    0xcd60_4643_35df_21f8_7cfd_b2fc_68b6_a448, // -02
    0x90cb_8091_3ebb_696e_0863_81b5_ec42_7b1f, // -02 and a line feed
    0x4485_152d_18b6_bbcd_0be8_a846_9579_ddcc, // -00
    0x4df3_7928_e9fc_4fd1_b326_2170_d515_c662, // the draft before it had a number
];

/// What a message says about NAT traversal.
pub fn nat_t(message: &[u8]) -> NatT {
    let Some(header) = IkeHeader::parse(message) else { return NatT::Unknown };
    let mut chain = walk(&header, message);
    // An offer stands beside these; refusals and cookie requests have neither.
    let mut telling = false;
    for Payload { kind, body } in chain.by_ref() {
        let offered = match kind {
            kind::V1_NAT_D | kind::V1_NAT_D_DRAFT => true,
            kind::V1_VENDOR_ID => {
                <[u8; 16]>::try_from(body).is_ok_and(|id| NAT_T_VENDORS.contains(&u128::from_be_bytes(id)))
            }
            kind::V2_NOTIFY => Notify::parse(kind, body).is_some_and(|notify| {
                matches!(notify.kind, notify::NAT_DETECTION_SOURCE_IP | notify::NAT_DETECTION_DESTINATION_IP)
            }),
            _ => false,
        };
        if offered {
            return NatT::Offered;
        }
        telling |= matches!(kind, kind::V1_SA | kind::V1_KEY_EXCHANGE | kind::V2_NONCE);
    }
    if telling && chain.next == 0 { NatT::Absent } else { NatT::Unknown }
}

/// What a hash for NAT detection is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatDetection<'a> {
    /// An address and port that the sender may have: several where it does not know which.
    Source(&'a [u8]),
    /// The address and port that it sends to.
    Destination(&'a [u8]),
}

/// The NAT detection hashes of a message, over both SPIs, the address and the port: SHA-1 in IKEv2 (RFC 7296
/// section 2.23), the negotiated hash in IKEv1, where the first is the destination's (RFC 3947 section 3.2).
pub fn nat_detections(message: &[u8]) -> impl Iterator<Item = NatDetection<'_>> {
    let mut first = true;
    payloads(message).filter_map(move |Payload { kind, body }| match kind {
        kind::V1_NAT_D | kind::V1_NAT_D_DRAFT if core::mem::take(&mut first) => {
            Some(NatDetection::Destination(body))
        }
        kind::V1_NAT_D | kind::V1_NAT_D_DRAFT => Some(NatDetection::Source(body)),
        _ => match Notify::parse(kind, body)? {
            Notify { kind: notify::NAT_DETECTION_SOURCE_IP, data, .. } => Some(NatDetection::Source(data)),
            Notify { kind: notify::NAT_DETECTION_DESTINATION_IP, data, .. } => {
                Some(NatDetection::Destination(data))
            }
            Notify { .. } => None,
        },
    })
}

/// Does a message offer to send large messages in several datagrams: RFC 7383 section 2.3, or IKEv1's vendor ID?
pub fn offers_fragmentation(message: &[u8]) -> bool {
    const VENDOR: [u8; 16] = 0x4048_b7d5_6ebc_e885_25e7_de7f_00d6_c2d3_u128.to_be_bytes();
    payloads(message).any(|Payload { kind, body }| match kind {
        kind::V1_VENDOR_ID => body.starts_with(&VENDOR),
        _ => Notify::parse(kind, body).is_some_and(|notify| notify.kind == notify::FRAGMENTATION_SUPPORTED),
    })
}

/// Does the vendor ID of Windows (before its version, four bytes) stand in an IKEv1 message?
pub fn from_windows(message: &[u8]) -> bool {
    const VENDOR: [u8; 16] = 0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes();
    payloads(message).any(|payload| payload.kind == kind::V1_VENDOR_ID && payload.body.starts_with(&VENDOR))
}

/// Notify message types (RFC 2408 section 3.14.1, RFC 7296 section 3.10.1).
mod notify {
    pub(super) const INVALID_SPI: u16 = 11;
    pub(super) const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub(super) const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
    pub(super) const FRAGMENTATION_SUPPORTED: u16 = 16430; // RFC 7383 section 2.3
}

/// A notify payload (RFC 2408 section 3.14, RFC 7296 section 3.10).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Notify<'a> {
    /// Which protocol's SA it is about, as the field stands: 1 IKE, 2 AH, 3 ESP, 0 none.
    pub protocol: u8,
    /// Notify message type.
    pub kind: u16,
    /// The SPI of that SA; empty where none is given.
    pub spi: &'a [u8],
    /// Notification data.
    pub data: &'a [u8],
}

impl<'a> Notify<'a> {
    /// Reads the body of a payload; `None` unless it is a notify and complete.
    fn parse(payload: u8, body: &'a [u8]) -> Option<Self> {
        let body = match payload {
            kind::V1_NOTIFY => body.get(4..)?, // a domain of interpretation comes first
            kind::V2_NOTIFY => body,
            _ => return None,
        };
        let (&[protocol, spi_len, high, low], rest) = body.split_first_chunk()?;
        let (spi, data) = rest.split_at_checked(usize::from(spi_len))?;
        Some(Self { protocol, kind: u16::from_be_bytes([high, low]), spi, data })
    }
}

/// The clear notify payloads of a message, in order.
pub fn notifies(message: &[u8]) -> impl Iterator<Item = Notify<'_>> {
    payloads(message).filter_map(|payload| Notify::parse(payload.kind, payload.body))
}

/// The SPI that an unprotected INVALID_SPI complains about: its sender got ESP or AH that it has no SA for.
///
/// IKEv2 names it in the notification data (RFC 7296 section 3.10.1), IKEv1 in the SPI field or the data.
/// Anybody can send such a message, so it is a hint and no proof.
pub fn invalid_spi(message: &[u8]) -> Option<u32> {
    let header = IkeHeader::parse(message)?;
    if !matches!(header.exchange, Exchange::Informational1 | Exchange::Informational2) {
        return None;
    }
    let mut complaints = notifies(message).filter(|notify| notify.kind == notify::INVALID_SPI);
    complaints.find_map(|Notify { spi, data, .. }| {
        let fields = if header.version == IkeVersion::V1 { [spi, data] } else { [data, spi] };
        fields.into_iter().find_map(|field| <[u8; 4]>::try_from(field).ok()).map(u32::from_be_bytes)
    })
}

/// One of several UDP datagrams that carry one IKE message; no repetition of the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fragment {
    /// Counts from 1.
    pub number: u16,
    /// How many there are; 0: this one does not say, as all but the last of IKEv1.
    pub total: u16,
    /// Is it number 1?
    pub first: bool,
}

/// Reads the fragment payload of a message: RFC 7383 section 2.5, or the one of Cisco and Microsoft for IKEv1.
pub fn fragment(message: &[u8]) -> Option<Fragment> {
    let header = IkeHeader::parse(message)?;
    let mut chain = walk(&header, message);
    let (number, total) = match header.version {
        IkeVersion::V1 => {
            let payload = chain.find(|payload| payload.kind == kind::V1_FRAGMENT)?;
            let (&[_, _, number, last], _) = payload.body.split_first_chunk()?;
            let number = u16::from(number);
            (number, if last & 1 != 0 { number } else { 0 })
        }
        IkeVersion::V2 => {
            while chain.next().is_some() {}
            if chain.next != kind::ENCRYPTED_FRAGMENT {
                return None;
            }
            let (number, total) = (be16(chain.rest, 4)?, be16(chain.rest, 6)?);
            if number > total {
                return None;
            }
            (number, total)
        }
        IkeVersion::Other(_) => return None,
    };
    (number != 0).then_some(Fragment { number, total, first: number == 1 })
}

/// What a UDP datagram of port 4500 carries (RFC 3948 section 2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NatTPacket<'a> {
    /// A NAT keepalive: the one byte 0xff.
    Keepalive,
    /// What follows a non-ESP marker: an IKE header at least.
    Ike(&'a [u8]),
    /// ESP.
    Esp(EspHeader),
    /// None of these.
    Malformed,
}

/// Tells apart what shares port 4500: IKE comes behind four zero bytes, where ESP has its SPI.
pub fn nat_t_packet(udp_payload: &[u8]) -> NatTPacket<'_> {
    match udp_payload {
        [0xff] => NatTPacket::Keepalive,
        [0, 0, 0, 0, message @ ..] => {
            IkeHeader::parse(message).map_or(NatTPacket::Malformed, |_| NatTPacket::Ike(message))
        }
        esp => EspHeader::parse(esp).map_or(NatTPacket::Malformed, NatTPacket::Esp),
    }
}

#[cfg(test)]
mod tests {
    use alloc::vec;
    use alloc::vec::Vec;

    use super::*;
    use crate::bytes::noise::Noise;
    use crate::esp::Spi;

    const SPI_I: u64 = 0x0102_0304_0506_0708;
    const SPI_R: u64 = 0x1112_1314_1516_1718;
    const V1: u8 = 0x10;
    const V2: u8 = 0x20;

    #[test]
    fn the_header_of_an_sa_init_request() {
        let message = message(V2, 34, 0x08, 0, &[(33, &[0; 40]), (40, &[7; 32])]);
        let header = IkeHeader {
            initiator: IkeSpi(SPI_I),
            responder: IkeSpi(0),
            next_payload: 33,
            version: IkeVersion::V2,
            exchange: Exchange::SaInit,
            flags: 0x08,
            message_id: 9,
            length: 108,
        };
        assert_eq!(IkeHeader::parse(&message), Some(header));
        assert_eq!(IkeHeader::parse(&message[..28]), Some(header), "cut off behind the header");
        assert_eq!(IkeHeader::parse(&message[..27]), None);
    }

    #[test]
    fn what_a_header_must_not_be() {
        let good = message(V1, 2, 0, 0, &[(1, &[0; 8])]);
        let changes: [(&str, usize, &[u8], bool); 7] = [
            ("initiator 0", 0, &[0; 8], false),
            ("major version 0", 17, &[0x02], false),
            ("minor version 5", 17, &[0x15], true),
            ("major version 3, whole", 17, &[0x30], true),
            ("length 27", 24, &[0, 0, 0, 27], false),
            ("length 28", 24, &[0, 0, 0, 28], true),
            ("length beyond the end", 24, &[0, 1, 0, 0], true),
        ];
        for (name, at, field, taken) in changes {
            let mut message = good.clone();
            message[at..at + field.len()].copy_from_slice(field);
            assert_eq!(IkeHeader::parse(&message).is_some(), taken, "{name}");
        }
        for (version, exchange, flags, first, taken) in
            [(V1, 5, 0, 11, true), (V1, 5, 1, 8, false), (V2, 37, 0, 41, true), (V2, 37, 0, 46, false)]
        {
            let mut error = message(version, exchange, flags, 0, &[(first, &[0; 8])]);
            error[..8].fill(0);
            assert_eq!(IkeHeader::parse(&error).is_some(), taken, "initiator 0, {version:#x}, {first}");
        }
        let mut unknown = good.clone();
        unknown[17] = 0x30;
        assert_eq!(IkeHeader::parse(&unknown).unwrap().version, IkeVersion::Other(0x30));
        unknown.push(0);
        assert_eq!(IkeHeader::parse(&unknown), None, "an unknown version of another length");
    }

    #[test]
    fn exchanges_belong_to_their_version() {
        let rows = [
            (V1, 2, Exchange::MainMode),
            (V1, 4, Exchange::Aggressive),
            (V1, 5, Exchange::Informational1),
            (V1, 6, Exchange::Transaction),
            (V1, 32, Exchange::QuickMode),
            (V1, 33, Exchange::NewGroup),
            (V1, 34, Exchange::Other(34)),
            (V1, 243, Exchange::Other(243)),
            (V2, 34, Exchange::SaInit),
            (V2, 35, Exchange::Auth),
            (V2, 36, Exchange::CreateChildSa),
            (V2, 37, Exchange::Informational2),
            (V2, 38, Exchange::SessionResume),
            (V2, 43, Exchange::Intermediate),
            (V2, 44, Exchange::FollowupKe),
            (V2, 2, Exchange::Other(2)),
        ];
        for (version, exchange, expected) in rows {
            let message = message(version, exchange, 0, SPI_R, &[]);
            assert_eq!(IkeHeader::parse(&message).unwrap().exchange, expected, "{version:#x} {exchange}");
        }
    }

    #[test]
    fn flags_and_first_payload_say_who_speaks_and_whether_in_the_clear() {
        // version, exchange, flags, responder, first payload: response, initiator, encrypted, begins
        let rows = [
            (V2, 34, 0x08, 0, 33, [false, true, false, true]),
            (V2, 34, 0x20, SPI_R, 33, [true, false, false, false]),
            (V2, 34, 0x20, 0, 41, [true, false, false, false]), // a cookie request
            (V2, 35, 0x08, SPI_R, 46, [false, true, true, false]),
            (V2, 35, 0x28, SPI_R, 53, [true, true, true, false]),
            (V2, 37, 0x00, SPI_R, 41, [false, false, false, false]),
            (V2, 38, 0x08, 0, 40, [false, true, false, true]),
            (V1, 2, 0x00, 0, 1, [false, false, false, true]),
            (V1, 4, 0x00, 0, 1, [false, false, false, true]),
            (V1, 243, 0x00, 0, 1, [false, false, false, true]),
            (V1, 2, 0x00, SPI_R, 1, [false, false, false, false]),
            (V1, 2, 0x01, SPI_R, 5, [false, false, true, false]),
            (V1, 5, 0x28, 0, 11, [false, false, false, false]),
            (V1, 32, 0x01, SPI_R, 8, [false, false, true, false]),
        ];
        for (version, exchange, flags, responder, first, expected) in rows {
            let message = message(version, exchange, flags, responder, &[(first, &[0; 8])]);
            let header = IkeHeader::parse(&message).unwrap();
            let seen =
                [header.is_response(), header.from_initiator(), header.is_encrypted(), header.begins()];
            assert_eq!(seen, expected, "{header:?}");
        }
    }

    #[test]
    fn payloads_come_in_order_until_the_chain_ends_or_breaks() {
        let whole = message(V2, 34, 0x08, 0, &[(33, &[1; 4]), (34, &[]), (46, &[9; 16]), (40, &[2; 4])]);
        assert_eq!(kinds(&whole), [33, 34], "ends at the encrypted payload");
        let v1 = message(V1, 2, 0, 0, &[(1, &[1; 4]), (13, &[2; 8])]);
        assert_eq!(kinds(&v1), [1, 13]);
        assert_eq!(payloads(&v1).nth(1), Some(Payload { kind: 13, body: &[2; 8] }));
        assert_eq!(kinds(&v1[..47]), [1], "the second is cut off");
        let mut short = v1.clone();
        short[31] = 3;
        assert_eq!(kinds(&short), [], "length 3");
        let mut early = v1.clone();
        early[27] = 36;
        assert_eq!(kinds(&early), [1], "the message ends before the second payload");
        let encrypted = message(V1, 2, 1, SPI_R, &[(5, &[1; 4]), (8, &[2; 8])]);
        assert_eq!(kinds(&encrypted), []);
        let unknown = message(0x30, 34, 8, 0, &[(33, &[1; 4])]);
        assert_eq!(kinds(&unknown), []);
        let endless = message(V1, 2, 0, 0, &[(13, &[] as &[u8]); 300]);
        assert_eq!(kinds(&endless).len(), 64);
    }

    #[test]
    fn an_offer_of_nat_traversal_is_told_from_its_absence_and_from_silence() {
        let rfc3947 = NAT_T_VENDORS[0].to_be_bytes();
        let draft2 = NAT_T_VENDORS[3].to_be_bytes();
        let dpd = 0xafca_d713_68a1_f1c9_6b86_96fc_7757_0100_u128.to_be_bytes();
        let detection = notify2(16388, &[3; 20]);
        let destination = notify2(16389, &[3; 20]);
        let refusal = notify2(14, &[]);
        let sa: (u8, &[u8]) = (33, &[1; 40]);
        let nonce: (u8, &[u8]) = (40, &[1; 32]);
        let rows: [(&str, Vec<u8>, NatT); 17] = [
            ("v1 offer", message(V1, 2, 0, 0, &[(1, &[1; 48]), (13, &dpd), (13, &rfc3947)]), NatT::Offered),
            ("v1 draft", message(V1, 4, 0, 0, &[(1, &[1; 48]), (13, &draft2)]), NatT::Offered),
            ("v1 NAT-D", message(V1, 2, 0, SPI_R, &[(4, &[1; 128]), (20, &[1; 16])]), NatT::Offered),
            ("v1 draft NAT-D", message(V1, 2, 0, SPI_R, &[(4, &[1; 128]), (130, &[1; 16])]), NatT::Offered),
            ("v1 without", message(V1, 2, 0, 0, &[(1, &[1; 48]), (13, &dpd)]), NatT::Absent),
            ("v1 longer vendor ID", message(V1, 2, 0, 0, &[(1, &[1; 48]), (13, &[0x4a; 20])]), NatT::Absent),
            ("v1 keys, no NAT-D", message(V1, 2, 0, SPI_R, &[(4, &[1; 128]), (10, &[1; 16])]), NatT::Absent),
            ("v1 refusal", message(V1, 5, 0, SPI_R, &[(11, &[0, 0, 0, 1, 1, 0, 0, 14])]), NatT::Unknown),
            ("v1 encrypted", message(V1, 2, 1, SPI_R, &[(5, &[1; 48])]), NatT::Unknown),
            ("v2 source", message(V2, 34, 8, 0, &[sa, nonce, (41, &detection)]), NatT::Offered),
            ("v2 destination", message(V2, 34, 0x20, SPI_R, &[(41, &destination), nonce]), NatT::Offered),
            ("v2 without", message(V2, 34, 8, 0, &[sa, nonce]), NatT::Absent),
            ("v2 other notify", message(V2, 34, 8, 0, &[sa, nonce, (41, &refusal)]), NatT::Absent),
            ("v2 refusal", message(V2, 34, 0x20, 0, &[(41, &refusal)]), NatT::Unknown),
            ("v2 encrypted", message(V2, 35, 8, SPI_R, &[(46, &[1; 80])]), NatT::Unknown),
            ("unknown version", message(0x30, 34, 8, 0, &[sa, nonce, (41, &detection)]), NatT::Unknown),
            ("no IKE", vec![0xff; 10], NatT::Unknown),
        ];
        for (name, message, expected) in rows {
            assert_eq!(nat_t(&message), expected, "{name}");
        }
        let cut = message(V2, 34, 8, 0, &[sa, nonce, (41, &detection)]);
        assert_eq!(nat_t(&cut[..cut.len() - 1]), NatT::Unknown, "what is cut off may be the offer");
    }

    #[test]
    fn nat_detection_hashes_say_of_whom_they_are() {
        let v1 = message(V1, 2, 0, SPI_R, &[(4, &[1; 8]), (20, &[2; 16]), (20, &[3; 16]), (20, &[4; 16])]);
        let expected = [
            NatDetection::Destination(&[2; 16]),
            NatDetection::Source(&[3; 16]),
            NatDetection::Source(&[4; 16]),
        ];
        assert_eq!(nat_detections(&v1).collect::<Vec<_>>(), expected);
        let (destination, source) = (notify2(16389, &[5; 20]), notify2(16388, &[6; 20]));
        let v2 = message(V2, 34, 8, 0, &[(41, &destination), (40, &[1; 16]), (41, &source)]);
        let expected = [NatDetection::Destination(&[5; 20]), NatDetection::Source(&[6; 20])];
        assert_eq!(nat_detections(&v2).collect::<Vec<_>>(), expected);
        assert_eq!(nat_detections(&v2[..50]).count(), 0, "cut off");
    }

    #[test]
    fn what_peers_say_of_themselves_is_read() {
        let fragmentation =
            [&0x4048_b7d5_6ebc_e885_25e7_de7f_00d6_c2d3_u128.to_be_bytes()[..], &[8; 4]].concat();
        let windows = [&0x1e2b_5169_0599_1c7d_7c96_fcbf_b587_e461_u128.to_be_bytes()[..], &[9; 4]].concat();
        let rows = [
            (message(V1, 2, 0, 0, &[(1, &[1; 8]), (13, &fragmentation)]), [true, false]),
            (message(V1, 2, 0, 0, &[(1, &[1; 8]), (13, &windows)]), [false, true]),
            (message(V2, 34, 8, 0, &[(40, &[1; 16]), (41, &notify2(16430, &[]))]), [true, false]),
            (message(V2, 34, 8, 0, &[(40, &[1; 16]), (41, &notify2(16388, &[1; 20]))]), [false, false]),
            (message(V2, 35, 8, SPI_R, &[(46, &[1; 16])]), [false, false]),
        ];
        for (message, expected) in rows {
            assert_eq!([offers_fragmentation(&message), from_windows(&message)], expected);
        }
    }

    #[test]
    fn notifies_of_both_versions_are_read() {
        let v2 = message(V2, 34, 0x20, 0, &[(41, &notify2(17, &[0, 14])), (41, &[1, 9, 0, 5])]);
        let expected = Notify { protocol: 0, kind: 17, spi: &[], data: &[0, 14] };
        assert_eq!(notifies(&v2).collect::<Vec<_>>(), [expected], "the SPI of the second is not there");
        let v1 = message(V1, 5, 0, SPI_R, &[(11, &[0, 0, 0, 1, 3, 4, 0, 14, 1, 2, 3, 4, 5])]);
        let expected = Notify { protocol: 3, kind: 14, spi: &[1, 2, 3, 4], data: &[5] };
        assert_eq!(notifies(&v1).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn an_unprotected_invalid_spi_names_the_spi() {
        let with_spi: &[u8] = &[0, 0, 0, 1, 3, 4, 0, 11, 0xc0, 0, 0, 1];
        let with_data: &[u8] = &[0, 0, 0, 1, 3, 0, 0, 11, 0xc0, 0, 0, 2];
        let both1: &[u8] = &[0, 0, 0, 1, 3, 4, 0, 11, 0xc0, 0, 0, 1, 0xc0, 0, 0, 2];
        let both2: &[u8] = &[3, 4, 0, 11, 0xc0, 0, 0, 1, 0xc0, 0, 0, 2];
        let unnamed: &[u8] = &[0, 0, 0, 1, 3, 0, 0, 11];
        let rows = [
            ("v2", message(V2, 37, 0, 0, &[(41, &notify2(11, &[0xc0, 0, 0, 3]))]), Some(0xc000_0003)),
            ("v1, SPI", message(V1, 5, 0, 0, &[(11, with_spi)]), Some(0xc000_0001)),
            ("v1, data", message(V1, 5, 0, 0, &[(11, with_data)]), Some(0xc000_0002)),
            ("v1, both", message(V1, 5, 0, 0, &[(11, both1)]), Some(0xc000_0001)),
            ("v2, both", message(V2, 37, 0, 0, &[(41, both2)]), Some(0xc000_0002)),
            ("v1, the second", message(V1, 5, 0, 0, &[(11, unnamed), (11, with_data)]), Some(0xc000_0002)),
            ("v1, none", message(V1, 5, 0, 0, &[(11, unnamed)]), None),
            ("v1, encrypted", message(V1, 5, 1, SPI_R, &[(11, with_spi)]), None),
            ("another exchange", message(V2, 34, 0, 0, &[(41, &notify2(11, &[0xc0, 0, 0, 3]))]), None),
            ("another notify", message(V2, 37, 0, 0, &[(41, &notify2(4, &[0xc0, 0, 0, 3]))]), None),
        ];
        for (name, message, expected) in rows {
            assert_eq!(invalid_spi(&message), expected, "{name}");
        }
    }

    #[test]
    fn fragments_say_their_number() {
        let skf = |first: u8, body: &[u8]| {
            let mut message = message(V2, 35, 8, SPI_R, &[(53, body)]);
            message[28] = first; // type of the first payload inside
            message
        };
        let v1 = |flags, body: &[u8]| message(V1, 2, flags, SPI_R, &[(132, body)]);
        let of = |number, total| Some(Fragment { number, total, first: number == 1 });
        let rows = [
            ("first of three", skf(35, &[0, 1, 0, 3, 9, 9]), of(1, 3)),
            ("second of three", skf(0, &[0, 2, 0, 3, 9, 9]), of(2, 3)),
            ("last of three", skf(0, &[0, 3, 0, 3, 9, 9]), of(3, 3)),
            ("number 0", skf(0, &[0, 0, 0, 3, 9, 9]), None),
            ("fourth of three", skf(0, &[0, 4, 0, 3, 9, 9]), None),
            ("cut off", skf(0, &[0, 4, 0]), None),
            ("v1 first", v1(0, &[0, 1, 1, 0, 9]), of(1, 0)),
            ("v1 last", v1(0, &[0, 1, 4, 1, 9]), of(4, 4)),
            ("v1 with the flag of what it is part of", v1(1, &[0, 1, 2, 0, 9]), of(2, 0)),
            ("v1 number 0", v1(0, &[0, 1, 0, 0, 9]), None),
            ("whole", message(V2, 35, 8, SPI_R, &[(46, &[9; 40])]), None),
            ("v1 whole", message(V1, 2, 0, SPI_R, &[(1, &[9; 40])]), None),
        ];
        for (name, message, expected) in rows {
            assert_eq!(fragment(&message), expected, "{name}");
        }
        let cut = skf(0, &[0, 2, 0, 3, 9, 9]);
        assert_eq!(fragment(&cut[..36]), of(2, 3), "the number is there, the rest cut off");
    }

    #[test]
    fn port_4500_carries_keepalives_ike_and_esp() {
        let ike = message(V2, 35, 8, SPI_R, &[(46, &[9; 40])]);
        let marked = [&[0; 4], &ike[..]].concat();
        let esp = [0xc0, 0, 0, 1, 0, 0, 0, 5, 1, 2, 3];
        let header = EspHeader { spi: Spi(0xc000_0001), seq: 5 };
        let rows: [(&str, &[u8], NatTPacket<'_>); 7] = [
            ("keepalive", &[0xff], NatTPacket::Keepalive),
            ("IKE", &marked, NatTPacket::Ike(&ike)),
            ("ESP", &esp, NatTPacket::Esp(header)),
            ("marker alone", &[0; 4], NatTPacket::Malformed),
            ("IKE, header cut off", &marked[..31], NatTPacket::Malformed),
            ("ESP, header cut off", &esp[..7], NatTPacket::Malformed),
            ("empty", &[], NatTPacket::Malformed),
        ];
        for (name, payload, expected) in rows {
            assert_eq!(nat_t_packet(payload), expected, "{name}");
        }
    }

    #[test]
    fn no_bytes_make_the_parsers_panic() {
        let bases = [
            message(V2, 34, 8, 0, &[(33, &[1; 40]), (41, &notify2(16388, &[3; 20])), (40, &[1; 16])]),
            message(V2, 35, 8, SPI_R, &[(53, &[0, 1, 0, 3, 9, 9])]),
            message(V1, 5, 0, SPI_R, &[(11, &[0, 0, 0, 1, 3, 4, 0, 11, 1, 2, 3, 4])]),
            message(V1, 2, 0, 0, &[(132, &[0, 1, 1, 0, 9]), (13, &NAT_T_VENDORS[0].to_be_bytes())]),
        ];
        let mut noise = Noise(7296);
        for round in 0..100_000 {
            let bytes = match bases.get(round % (bases.len() + 1)) {
                Some(base) => noise.mutant(base),
                None => noise.bytes(120),
            };
            assert!(payloads(&bytes).count() <= 64);
            assert!(notifies(&bytes).count() <= 64);
            let fragment = fragment(&bytes);
            assert!(fragment.is_none_or(|fragment| fragment.number > 0), "round {round}");
            if IkeHeader::parse(&bytes).is_none() {
                assert_eq!((nat_t(&bytes), invalid_spi(&bytes)), (NatT::Unknown, None), "round {round}");
            }
            let _ = (nat_t(&bytes), invalid_spi(&bytes), nat_t_packet(&bytes));
            assert!(nat_detections(&bytes).count() <= 64);
            let _ = (offers_fragmentation(&bytes), from_windows(&bytes));
        }
    }

    fn kinds(message: &[u8]) -> Vec<u8> {
        payloads(message).map(|payload| payload.kind).collect()
    }

    /// An IKEv2 notify about no SA in particular.
    fn notify2(kind: u16, data: &[u8]) -> Vec<u8> {
        let [high, low] = kind.to_be_bytes();
        [&[0, 0, high, low], data].concat()
    }

    fn message(version: u8, exchange: u8, flags: u8, responder: u64, chain: &[(u8, &[u8])]) -> Vec<u8> {
        let first = chain.first().map_or(0, |(kind, _)| *kind);
        let mut bytes = [SPI_I.to_be_bytes(), responder.to_be_bytes()].concat();
        bytes.extend([first, version, exchange, flags, 0, 0, 0, 9, 0, 0, 0, 0]);
        for (place, (_, body)) in chain.iter().enumerate() {
            let next = chain.get(place + 1).map_or(0, |(kind, _)| *kind);
            let [high, low] = u16::try_from(body.len() + 4).unwrap().to_be_bytes();
            bytes.extend([next, 0, high, low]);
            bytes.extend(*body);
        }
        let length = u32::try_from(bytes.len()).unwrap();
        bytes[24..28].copy_from_slice(&length.to_be_bytes());
        bytes
    }
}
