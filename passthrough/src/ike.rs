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
    /// The SPI of the IKE SA's initiator: never 0.
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
        (header.initiator != IkeSpi(0) && length >= 28).then_some(header)
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
        let begins = match self.exchange {
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
        };
        begins && self.responder == IkeSpi(0) && !self.is_response()
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

/// Notify message types (RFC 2408 section 3.14.1, RFC 7296 section 3.10.1).
mod notify {
    pub(super) const INVALID_SPI: u16 = 11;
    pub(super) const NAT_DETECTION_SOURCE_IP: u16 = 16388;
    pub(super) const NAT_DETECTION_DESTINATION_IP: u16 = 16389;
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
