//! What one L2TP message says, as far as a NAT has to know.
//!
//! Every identifier in a header was chosen by the message's receiver, every one in an "assigned" or "local" AVP
//! by its sender.

/// The UDP port of L2TP (RFC 2661 section 8.1).
pub const PORT: u16 = 1701;

/// An identifier, with what it identifies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Id {
    /// Tunnel ID of version 2 (RFC 2661 section 3.1).
    Tunnel(u16),
    /// Control Connection ID of version 3 (RFC 3931 section 3.2.1).
    Connection(u32),
    /// Session ID of version 3 (RFC 3931 section 3.2.2).
    Session(u32),
}

impl Id {
    /// Its number.
    pub const fn number(self) -> u32 {
        match self {
            Self::Tunnel(id) => id as u32,
            Self::Connection(id) | Self::Session(id) => id,
        }
    }

    /// The version that has such identifiers.
    pub const fn version(self) -> Version {
        match self {
            Self::Tunnel(_) => Version::V2,
            Self::Connection(_) | Self::Session(_) => Version::V3,
        }
    }
}

/// The version of L2TP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// RFC 2661.
    V2,
    /// RFC 3931.
    V3,
}

/// One message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Message {
    /// Whom it is for, by the receiver's own identifier; number 0 before the sender knows it.
    pub to: Id,
    /// Where that identifier stands in the datagram.
    pub to_at: usize,
    /// What it carries.
    pub body: Body,
}

/// What a message carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Body {
    /// A packet of a session.
    Data,
    /// Nothing: it acknowledges (RFC 2661 section 5.8, "ZLB").
    Ack,
    /// A control message.
    Control(Control),
}

/// A control message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Control {
    /// Which one.
    pub kind: Kind,
    /// AVP 9, the sender's own Tunnel ID.
    pub assigned_tunnel: Assigned,
    /// AVP 61, the sender's own Control Connection ID.
    pub assigned_connection: Option<u32>,
    /// AVP 63, the sender's own Session ID.
    pub local_session: Option<u32>,
    /// AVP 64, the receiver's Session ID.
    pub remote_session: Option<u32>,
    /// AVP 59: a digest covers the whole message (RFC 3931 section 5.4.1), so that none of it may be changed.
    pub digest: bool,
}

/// The Assigned Tunnel ID AVP (RFC 2661 section 4.4.3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Assigned {
    /// The message has none.
    Absent,
    /// It is encrypted (RFC 2661 section 4.3): nobody between the ends can read or change it.
    Hidden,
    /// It can be read.
    Clear {
        /// The Tunnel ID; never 0.
        id: u16,
        /// Where it stands in the datagram.
        at: usize,
    },
}

/// The types of control messages (RFC 2661 section 3.2, RFC 3931 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Start-Control-Connection-Request, 1.
    StartRequest,
    /// Start-Control-Connection-Reply, 2.
    StartReply,
    /// Start-Control-Connection-Connected, 3.
    StartConnected,
    /// Stop-Control-Connection-Notification, 4.
    Stop,
    /// Hello, 6.
    Hello,
    /// Call-Disconnect-Notify, 14.
    Disconnect,
    /// Any other.
    Other(u16),
}

const CONTROL: u16 = 0x8000;
const LENGTH: u16 = 0x4000;
const SEQUENCE: u16 = 0x0800;
const OFFSET: u16 = 0x0200;
const CONTROL_HEADER: usize = 12;
const HIDDEN: u16 = 0x4000;
const AVP_LENGTH: u16 = 0x03ff;
const AVP_HEADER: usize = 6;

/// Reads a UDP datagram. `None` when it is not L2TP, or contradicts itself: then nothing is to be changed in it.
pub fn parse(datagram: &[u8]) -> Option<Message> {
    let flags = word(datagram, 0)?;
    match (flags & 0x000f, flags & CONTROL != 0) {
        (2 | 3, true) => control(datagram, 0),
        (2, false) => {
            let to_at = if flags & LENGTH == 0 { 2 } else { 4 };
            let end = if flags & LENGTH == 0 { datagram.len() } else { usize::from(word(datagram, 2)?) };
            word(datagram, to_at + 2)?; // Session ID
            (to_at + 4 <= end && end <= datagram.len()).then_some(Message {
                to: Id::Tunnel(word(datagram, to_at)?),
                to_at,
                body: Body::Data,
            })
        }
        (3, false) => Some(session(datagram, 4, Body::Data)?),
        _ => None,
    }
}

/// Reads the payload of IP protocol 115 (RFC 3931 section 4.1.1): version 3 without UDP.
pub fn parse_ip(packet: &[u8]) -> Option<Message> {
    match long(packet, 0)? {
        0 => {
            let message = control(packet, 4)?;
            (message.to.version() == Version::V3).then_some(message)
        }
        _ => session(packet, 0, Body::Data),
    }
}

/// The value of the first AVP of that type that is not hidden, of those that the IETF defined (RFC 2661 section
/// 4.1), in a control message that [`parse`] reads.
pub fn value(datagram: &[u8], attribute: u16) -> Option<&[u8]> {
    let message = datagram.get(..usize::from(word(datagram, 2)?))?;
    let mut at = CONTROL_HEADER;
    while let Some(flags) = word(message, at) {
        let length = usize::from(flags & AVP_LENGTH);
        if length < AVP_HEADER {
            return None;
        }
        if flags & HIDDEN == 0 && long(message, at + 2)? == u32::from(attribute) {
            return message.get(at + AVP_HEADER..at + length);
        }
        at += length;
    }
    None
}

fn session(packet: &[u8], to_at: usize, body: Body) -> Option<Message> {
    Some(Message { to: Id::Session(long(packet, to_at)?), to_at, body })
}

/// Both versions have a control header of twelve bytes, here at `start`.
fn control(packet: &[u8], start: usize) -> Option<Message> {
    let flags = word(packet, start)?;
    let length = usize::from(word(packet, start + 2)?);
    if flags & (LENGTH | SEQUENCE | OFFSET) != LENGTH | SEQUENCE || length < CONTROL_HEADER {
        return None;
    }
    let to_at = start + 4;
    let to = match flags & 0x000f {
        2 => Id::Tunnel(word(packet, to_at)?),
        3 => Id::Connection(long(packet, to_at)?),
        _ => return None,
    };
    let avps = packet.get(..start + length)?;
    let at = start + CONTROL_HEADER;
    let body = if at == avps.len() { Body::Ack } else { Body::Control(attributes(avps, at)?) };
    Some(Message { to, to_at, body })
}

/// Reads the AVPs from `at` to the end of the message (RFC 2661 section 4.1).
fn attributes(message: &[u8], mut at: usize) -> Option<Control> {
    let mut control = Control {
        kind: kind_of(message, at)?,
        assigned_tunnel: Assigned::Absent,
        assigned_connection: None,
        local_session: None,
        remote_session: None,
        digest: false,
    };
    while at < message.len() {
        let flags = word(message, at)?;
        let length = usize::from(flags & AVP_LENGTH);
        let avp = message.get(at..at + length)?;
        let value = avp.get(AVP_HEADER..)?;
        let hidden = flags & HIDDEN != 0;
        let id = || if hidden || value.len() != 4 { None } else { long(value, 0) };
        // Of two that say the same thing nobody knows which the receiver believes.
        match (word(avp, 2)?, word(avp, 4)?) {
            (0, 9) if control.assigned_tunnel != Assigned::Absent => return None,
            (0, 9) if hidden => control.assigned_tunnel = Assigned::Hidden,
            (0, 9) => {
                let id = word(value, 0).filter(|&id| id != 0 && value.len() == 2)?;
                control.assigned_tunnel = Assigned::Clear { id, at: at + AVP_HEADER };
            }
            (0, 59) => control.digest = true,
            (0, 61) => control.assigned_connection = id().filter(|&id| id != 0),
            (0, 63) => control.local_session = id().filter(|&id| id != 0),
            (0, 64) => control.remote_session = id().filter(|&id| id != 0),
            _ => {}
        }
        at += length;
    }
    Some(control)
}

/// The Message Type AVP, which comes first and is never hidden (RFC 2661 section 4.4.1).
fn kind_of(message: &[u8], at: usize) -> Option<Kind> {
    let flags = word(message, at)?;
    if flags & (HIDDEN | AVP_LENGTH) != 8 || long(message, at + 2)? != 0 {
        return None;
    }
    Some(match word(message, at + AVP_HEADER)? {
        1 => Kind::StartRequest,
        2 => Kind::StartReply,
        3 => Kind::StartConnected,
        4 => Kind::Stop,
        6 => Kind::Hello,
        14 => Kind::Disconnect,
        other => Kind::Other(other),
    })
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u16::from_be_bytes(bytes))
}

fn long(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|&bytes| u32::from_be_bytes(bytes))
}

/// Messages made by hand, for the tests of this crate.
#[cfg(test)]
pub(crate) mod build {
    use alloc::vec::Vec;

    use super::HIDDEN;

    /// An AVP of vendor 0.
    pub(crate) fn avp(attribute: u16, value: &[u8]) -> Vec<u8> {
        let flags = 0x8000 | (6 + value.len() as u16);
        let head = [flags, 0, attribute].map(u16::to_be_bytes).concat();
        [&head[..], value].concat()
    }

    pub(crate) fn hidden(attribute: u16, value: &[u8]) -> Vec<u8> {
        let mut bytes = avp(attribute, value);
        bytes[0] |= (HIDDEN >> 8) as u8;
        bytes
    }

    /// A control message of version 2 to the receiver's `tunnel`; `kind` 0 is a ZLB.
    pub(crate) fn v2(tunnel: u16, kind: u16, avps: &[Vec<u8>]) -> Vec<u8> {
        control(0xc802, &[tunnel.to_be_bytes(), [0, 0]].concat(), kind, avps)
    }

    /// A control message of version 3 to the receiver's `connection`.
    pub(crate) fn v3(connection: u32, kind: u16, avps: &[Vec<u8>]) -> Vec<u8> {
        control(0xc803, &connection.to_be_bytes(), kind, avps)
    }

    fn control(flags: u16, to: &[u8], kind: u16, avps: &[Vec<u8>]) -> Vec<u8> {
        let kind = if kind == 0 { Vec::new() } else { avp(0, &kind.to_be_bytes()) };
        let body = [kind, avps.concat()].concat();
        let length = 12 + body.len() as u16;
        let head = [&flags.to_be_bytes()[..], &length.to_be_bytes(), to, &[0; 4]].concat();
        [head, body].concat()
    }

    /// A data message of version 2.
    pub(crate) fn data(tunnel: u16) -> Vec<u8> {
        [&[0, 2][..], &tunnel.to_be_bytes(), &[0, 1, 0xff, 3, 0, 0x21]].concat()
    }

    /// A data message of version 3 on UDP.
    pub(crate) fn data_v3(session: u32) -> Vec<u8> {
        [&[0, 3, 0, 0][..], &session.to_be_bytes(), &[0xff, 3]].concat()
    }
}

#[cfg(test)]
mod tests {
    use super::build::{avp, data, data_v3, hidden, v2, v3};
    use super::*;
    use alloc::vec::Vec;

    const BARE: Control = Control {
        kind: Kind::Hello,
        assigned_tunnel: Assigned::Absent,
        assigned_connection: None,
        local_session: None,
        remote_session: None,
        digest: false,
    };

    fn message(to: Id, body: Body) -> Option<Message> {
        Some(Message { to, to_at: 4, body })
    }

    #[test]
    fn control_messages_show_their_identifiers() {
        let clear = |id| Assigned::Clear { id, at: 26 };
        let control = Body::Control;
        for (name, bytes, expected) in [
            ("ack", v2(7, 0, &[]), message(Id::Tunnel(7), Body::Ack)),
            ("hello", v2(7, 6, &[]), message(Id::Tunnel(7), control(BARE))),
            (
                "request",
                v2(0, 1, &[avp(9, &[1, 2])]),
                message(
                    Id::Tunnel(0),
                    control(Control { kind: Kind::StartRequest, assigned_tunnel: clear(0x0102), ..BARE }),
                ),
            ),
            (
                "hidden",
                v2(0, 1, &[hidden(9, &[1, 2, 3, 4])]),
                message(
                    Id::Tunnel(0),
                    control(Control { kind: Kind::StartRequest, assigned_tunnel: Assigned::Hidden, ..BARE }),
                ),
            ),
            (
                "version 3 with a digest",
                v3(9, 10, &[avp(59, &[0; 17]), avp(63, &[0, 0, 0, 5]), avp(64, &[0, 0, 0, 6])]),
                message(
                    Id::Connection(9),
                    control(Control {
                        kind: Kind::Other(10),
                        local_session: Some(5),
                        remote_session: Some(6),
                        digest: true,
                        ..BARE
                    }),
                ),
            ),
            (
                "version 3 request",
                v3(0, 1, &[avp(61, &[0, 0, 1, 0])]),
                message(
                    Id::Connection(0),
                    control(Control { kind: Kind::StartRequest, assigned_connection: Some(256), ..BARE }),
                ),
            ),
            (
                "another vendor's attribute 9",
                v2(7, 6, &[[&[0x80, 8, 0, 9, 0, 9][..], &[1, 2]].concat()]),
                message(Id::Tunnel(7), control(BARE)),
            ),
        ] {
            assert_eq!(parse(&bytes), expected, "{name}");
            for short in 0..bytes.len() {
                assert_eq!(parse(&bytes[..short]), None, "{name} cut off at {short}");
            }
            let on_ip = [&[0; 4][..], &bytes].concat();
            let shifted = parse_ip(&on_ip).map(|m| (m.to, m.to_at, m.body));
            let v3 = |m: Message| (m.to.version() == Version::V3).then_some((m.to, 8, m.body));
            assert_eq!(shifted, expected.and_then(v3), "{name} on IP");
        }
    }

    #[test]
    fn the_result_of_a_message_is_read_where_it_stands() {
        let stop = v2(7, 4, &[avp(9, &[0, 5]), avp(1, &[0, 4, 0, 6])]);
        // The Result Code AVP (RFC 2661 section 4.4.2).
        let result = |datagram: &[u8]| word(value(datagram, 1)?, 0);
        assert_eq!(result(&stop), Some(4));
        assert_eq!(result(&v2(7, 4, &[avp(9, &[0, 5]), avp(1, &[])])), None);
        assert_eq!(result(&v2(7, 4, &[hidden(1, &[0, 4])])), None);
        assert_eq!(result(&v2(7, 0, &[])), None);
        assert_eq!(value(&v2(7, 4, &[avp(9, &[0, 5]), avp(11, &[1, 2, 3])]), 11), Some(&[1, 2, 3][..]));
        for short in 0..stop.len() {
            assert_eq!(result(&stop[..short]), None, "{short}");
        }
    }

    /// What xl2tpd sends; the host name is changed.
    #[test]
    fn a_real_request_shows_its_tunnel_id() {
        let hex = concat!(
            "c8020063000000000000000080080000000000018008000000020100800a0000000300000003800a",
            "00000004000000000008000000060690800800000007643100130000000878656c6572616e63652e",
            "636f6d8008000000090b8380080000000a0004",
        );
        let bytes: Vec<u8> =
            (0..hex.len()).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
        let assigned_tunnel = Assigned::Clear { id: 0x0b83, at: 89 };
        let control = Control { kind: Kind::StartRequest, assigned_tunnel, ..BARE };
        assert_eq!(parse(&bytes), message(Id::Tunnel(0), Body::Control(control)));
    }

    #[test]
    fn data_shows_the_receiver_s_identifier() {
        let with_length = [0x40, 2, 0, 10, 0, 9, 0, 1, 0, 0, 0xee];
        let tunnel = |id, to_at| Some(Message { to: Id::Tunnel(id), to_at, body: Body::Data });
        assert_eq!(parse(&data(9)), tunnel(9, 2));
        assert_eq!(parse(&with_length), tunnel(9, 4));
        assert_eq!(parse(&data_v3(77)), message(Id::Session(77), Body::Data));
        assert_eq!(parse_ip(&[0, 0, 0, 5]), Some(Message { to: Id::Session(5), to_at: 0, body: Body::Data }));
    }

    #[test]
    fn what_contradicts_itself_is_not_read() {
        let changed = |at: usize, value: u8| {
            let mut bytes = v2(0, 1, &[avp(9, &[0, 5])]);
            bytes[at] = value;
            bytes
        };
        for (name, bytes) in [
            ("no length", changed(0, 0x88)),
            ("no sequence", changed(0, 0xc0)),
            ("offset in a control message", changed(0, 0xca)),
            ("version 1", changed(1, 1)),
            ("length below the header", changed(3, 11)),
            ("length beyond the datagram", changed(3, 200)),
            ("hidden message type", changed(12, 0xc0)),
            ("message type of another vendor", changed(15, 9)),
            ("first attribute is no message type", changed(17, 1)),
            ("attribute of length 0", changed(21, 0)),
            ("attribute shorter than its header", changed(21, 5)),
            ("attribute longer than the message", changed(21, 9)),
            ("tunnel id 0", changed(27, 0)),
            ("two tunnel ids", v2(0, 1, &[avp(9, &[0, 5]), avp(9, &[0, 6])])),
            ("tunnel id of three bytes", v2(0, 1, &[avp(9, &[0, 5, 6])])),
            ("data with a length beyond the datagram", Vec::from([0x40, 2, 0, 99, 0, 9, 0, 1])),
            ("data with a length below the header", Vec::from([0x40, 2, 0, 7, 0, 9, 0, 1])),
            ("version 4", Vec::from([0, 4, 0, 0, 0, 0, 0, 1])),
        ] {
            assert_eq!(parse(&bytes), None, "{name}");
        }
    }
}
