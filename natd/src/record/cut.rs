//! How much of a packet is written.
//!
//! A recording is made to be shown to somebody else. What a VPN's data says is left out; what diagnosis reads is
//! kept. Passwords of PPP and what they can be guessed from are left out always, even where payload is wanted.
//!
//! | packet | kept |
//! |---|---|
//! | IKE; PPTP's and L2TP's control messages; handshakes of WireGuard; OpenVPN's first packets | all |
//! | L2TP's ICCN, which may carry a password that the other side was told | its message type, always |
//! | PPP's PAP and EAP, answers and verdicts of CHAP | their headers, always |
//! | other data in GRE and L2TP | 40 bytes, of PPP's negotiation 160 |
//! | TLS handshakes | 600 bytes: the server's name |
//! | ICMP errors | the quoted packet's headers and 8 bytes more |
//! | later fragments | their IP headers |
//! | others | 64 bytes behind the transport header |

use diagnosis::{Fragment, Packet};
use passthrough::openvpn::{self, Opcode};
use passthrough::sighting::{Sighting, recognise_payload};
use passthrough::wireguard::Message;

use super::choice::quote;

/// Behind the transport header of what is nothing special.
const DATA: usize = 64;
/// Of GRE and L2TP with data: header, PPP's protocol, and what begins there.
const TUNNEL: usize = 40;
/// Of LCP, CHAP, IPCP and the like.
const NEGOTIATION: usize = 160;
const TLS: usize = 600;
/// Of L2TPv3's data: session and six bytes, before which no secret is whatever cookie follows.
const PSEUDOWIRE: usize = 10;
const UDP: usize = 8;

/// How many bytes of a packet's payload are written.
pub(super) fn kept(packet: &Packet<'_>, whole: bool) -> usize {
    let all = packet.payload.len();
    if packet.fragment == Fragment::Later {
        return if whole { all } else { 0 };
    }
    if let Some(quote) = quote(packet) {
        // Always: a quoted packet may hold a password as well.
        let headers = all - quote.payload.len().min(all);
        return all.min(headers + 8);
    }
    let seen = recognise_payload(packet.protocol, packet.payload);
    let secret = secret(packet, seen.as_ref());
    let plain = if whole { all } else { enough(packet, seen.as_ref()) };
    all.min(secret).min(plain)
}

/// What diagnosis needs.
fn enough(packet: &Packet<'_>, seen: Option<&Sighting<'_>>) -> usize {
    const ALL: usize = usize::MAX;
    let header = match packet.protocol {
        6 => packet.payload.get(12).map_or(0, |offset| usize::from(offset >> 4) * 4),
        17 => UDP,
        _ => 0,
    };
    let data = match seen {
        Some(
            Sighting::Ike { .. }
            | Sighting::NatTKeepalive
            | Sighting::PptpControl
            | Sighting::L2tp { control: true, .. }
            | Sighting::L2tpIp { session: 0 }
            | Sighting::WireGuard(
                Message::Initiation { .. } | Message::Response { .. } | Message::CookieReply { .. },
            ),
        ) => ALL,
        Some(Sighting::OpenVpn(openvpn::Packet { opcode, .. })) => of_openvpn(*opcode),
        Some(Sighting::PptpGre { .. } | Sighting::Gre { .. } | Sighting::L2tp { .. }) => {
            if negotiates(frame(packet.payload, ppp(packet))) { NEGOTIATION } else { TUNNEL }
        }
        Some(Sighting::L2tpIp { .. }) => PSEUDOWIRE,
        Some(Sighting::NatTEsp(_) | Sighting::Esp(_) | Sighting::Ah(_) | Sighting::WireGuard(_)) => DATA,
        // Handshake or alert.
        None if packet.protocol == 6
            && matches!(packet.payload.get(header..), Some([0x15 | 0x16, 3, ..])) =>
        {
            TLS
        }
        None => DATA,
    };
    header.saturating_add(data)
}

fn of_openvpn(opcode: Opcode) -> usize {
    match opcode {
        Opcode::HardResetClientV1
        | Opcode::HardResetServerV1
        | Opcode::HardResetClientV2
        | Opcode::HardResetServerV2
        | Opcode::HardResetClientV3
        | Opcode::ControlWkc => usize::MAX,
        // Long enough for an alert behind every kind of header.
        Opcode::SoftReset | Opcode::Control | Opcode::Ack => 128,
        Opcode::DataV1 | Opcode::DataV2 => DATA,
    }
}

/// Where a secret may begin; the length of the payload or more: nowhere.
fn secret(packet: &Packet<'_>, seen: Option<&Sighting<'_>>) -> usize {
    let none = usize::MAX;
    let payload = packet.payload;
    match seen {
        Some(Sighting::L2tp { control: true, .. }) => iccn(payload, UDP),
        Some(Sighting::L2tpIp { session: 0 }) => iccn(payload, 4),
        // A version of its own may begin PPP anywhere behind its cookie.
        Some(Sighting::L2tp { version: 3, .. }) => UDP + PSEUDOWIRE,
        Some(Sighting::L2tpIp { .. }) => PSEUDOWIRE,
        Some(Sighting::PptpGre { .. } | Sighting::Gre { .. } | Sighting::L2tp { .. }) => {
            login(payload, ppp(packet))
        }
        Some(
            Sighting::Ike { .. }
            | Sighting::NatTKeepalive
            | Sighting::NatTEsp(_)
            | Sighting::Esp(_)
            | Sighting::Ah(_)
            | Sighting::PptpControl
            | Sighting::WireGuard(_)
            | Sighting::OpenVpn(_),
        ) => none,
        // What could be theirs and cannot be read.
        None if matches!(packet.protocol, 47 | 115) => UDP,
        None if packet.protocol == 17 && matches!(payload, [0x06, 0xa5, ..] | [_, _, 0x06, 0xa5, ..]) => {
            UDP + 8
        }
        None => none,
    }
}

/// RFC 2661 section 6.8: "incoming call connected" may hold what the peer's peer logged in with. The message type
/// is the first AVP, behind a header of 12 bytes.
fn iccn(payload: &[u8], at: usize) -> usize {
    let end = at + 12 + 8;
    match payload.get(end - 2..end) {
        Some([0, 12]) => end,
        _ => usize::MAX,
    }
}

/// Where PPP begins in GRE or L2TP.
fn ppp(packet: &Packet<'_>) -> usize {
    match packet.protocol {
        17 => UDP + l2tp_header(packet.payload.get(UDP..).unwrap_or_default()),
        _ => gre_header(packet.payload),
    }
}

/// What of PPP begins with its protocol.
fn frame(payload: &[u8], at: usize) -> &[u8] {
    let frame = payload.get(at..).unwrap_or_default();
    frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame)
}

/// Protocols from 0x8000 on are no data (RFC 1661 section 2).
fn negotiates(frame: &[u8]) -> bool {
    frame.first().is_some_and(|high| *high >= 0x80)
}

/// RFC 2637 section 4.1 and RFC 2890.
fn gre_header(payload: &[u8]) -> usize {
    let Some(&[flags, version, ..]) = payload.first_chunk::<4>() else { return 4 };
    let optional = |bit: u8| if flags & bit != 0 { 4 } else { 0 };
    let acknowledged = if version & 0x87 == 0x81 { 4 } else { 0 };
    let checksum = if flags & 0xc0 != 0 { 4 } else { 0 };
    4 + checksum + optional(0x20) + optional(0x10) + acknowledged
}

/// RFC 2661 section 3.1.
fn l2tp_header(message: &[u8]) -> usize {
    let Some(&[flags, _]) = message.first_chunk() else { return 0 };
    let length = if flags & 0x40 != 0 { 2 } else { 0 };
    let sequence = if flags & 0x08 != 0 { 4 } else { 0 };
    let at = 2 + length + 4 + sequence;
    if flags & 0x02 == 0 {
        return at;
    }
    let padding = message.get(at..).and_then(|rest| rest.first_chunk());
    at + 2 + padding.map_or(0, |padding| usize::from(u16::from_be_bytes(*padding)))
}

/// Where a login of PPP goes on behind its header, in what begins at `at`.
///
/// Headers may be longer than they look and PPP may be in PPP, so a login is looked for everywhere near the
/// beginning; what looks like one by chance is cut as well. Only in LCP, which names these protocols when it
/// agrees on one, it is not.
fn login(payload: &[u8], at: usize) -> usize {
    const LCP: [u8; 2] = [0xc0, 0x21];
    const NEAR: usize = 96;
    if frame(payload, at).starts_with(&LCP) {
        return usize::MAX;
    }
    let near = payload.windows(3).take(NEAR.max(at + NEAR)).enumerate();
    let mut ends = near.filter_map(|(place, bytes)| match *bytes {
        // Code, identifier, length.
        [0xc0, 0x23, _] => Some(place + 2 + 4),
        // The response goes on with its length, the success with a proof that depends on the password.
        [0xc2, 0x23, 2 | 3] => Some(place + 2 + 4),
        // And the type.
        [0xc2, 0x27, _] => Some(place + 2 + 5),
        _ => None,
    });
    ends.next().unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: [u8; 4] = [192, 168, 1, 11];
    const DST: [u8; 4] = [198, 51, 100, 10];

    fn packet(protocol: u8, payload: &[u8]) -> Packet<'_> {
        let len = u32::try_from(payload.len()).unwrap();
        Packet {
            src: SRC.into(),
            dst: DST.into(),
            ttl: 64,
            protocol,
            ident: 7,
            dont_fragment: false,
            fragment: Fragment::Whole,
            ip_len: 20 + len,
            payload_len: len,
            payload,
        }
    }

    fn udp(port: u16, data: &[u8]) -> Vec<u8> {
        let len = u16::try_from(data.len() + 8).unwrap().to_be_bytes();
        [&40_000_u16.to_be_bytes()[..], &port.to_be_bytes(), &len, &[0, 0], data].concat()
    }

    fn tcp(port: u16, data: &[u8]) -> Vec<u8> {
        let head = [0, 0, 0, 1, 0, 0, 0, 1, 0x60, 0x18, 1, 0, 0, 0, 0, 0, 1, 1, 1, 0];
        [&40_000_u16.to_be_bytes()[..], &port.to_be_bytes(), &head, data].concat()
    }

    fn ike() -> Vec<u8> {
        let mut message = vec![7; 16];
        message.extend([33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 1, 0x2c]);
        message.resize(300, 9);
        message
    }

    fn pptp_gre(ppp: &[u8]) -> Vec<u8> {
        let len = u16::try_from(ppp.len()).unwrap().to_be_bytes();
        [&[0x30, 0x81, 0x88, 0x0b][..], &len, &[0, 7, 0, 0, 0, 1, 0, 0, 0, 1], ppp].concat()
    }

    #[test]
    fn data_is_cut_and_what_diagnosis_reads_is_not() {
        let marked = [&[0; 4], &ike()[..]].concat();
        let initiation = [&[1, 0, 0, 0][..], &[5; 144]].concat();
        let wireguard = [&[4, 0, 0, 0, 1, 2, 3, 4, 9, 0, 0, 0, 0, 0, 0, 0][..], &[5; 500]].concat();
        let reset = [&[0x38, 1, 2, 3, 4, 5, 6, 7, 8][..], &[0; 5], &[0; 300]].concat();
        let mut sccrq = vec![0xc8, 2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 8, 0, 0, 0, 0, 0, 1];
        sccrq.resize(256, 9);
        let lcp = [&[0xff, 3, 0xc0, 0x21, 1, 1, 0, 24][..], &[3, 4, 0xc0, 0x23], &[9; 16]].concat();
        let hello = [&[0x16, 3, 1, 2, 0][..], &[9; 900]].concat();
        let rows: [(&str, u8, Vec<u8>, usize); 19] = [
            ("IKE", 17, udp(500, &ike()), 308),
            ("IKE on 4500", 17, udp(4500, &marked), 312),
            ("keepalive", 17, udp(4500, &[0xff]), 9),
            ("ESP in UDP", 17, udp(4500, &[7; 400]), 8 + 64),
            ("ESP", 50, vec![7; 400], 64),
            ("short ESP", 50, vec![7; 40], 40),
            ("AH", 51, [&[50, 4, 0, 0][..], &[7; 400]].concat(), 64),
            ("WireGuard's initiation", 17, udp(51_820, &initiation), 156),
            ("WireGuard's data", 17, udp(51_820, &wireguard), 72),
            ("OpenVPN's reset", 17, udp(1194, &reset), 322),
            ("OpenVPN's control", 17, udp(1194, &[&[0x20][..], &[7; 400]].concat()), 136),
            ("OpenVPN's data", 17, udp(1194, &[0x48; 400]), 72),
            ("L2TP's control", 17, udp(1701, &sccrq), 264),
            (
                "L2TP's data",
                17,
                udp(1701, &[&[0, 2, 0, 7, 0, 9, 0xff, 3, 0, 0x21][..], &[7; 400]].concat()),
                48,
            ),
            ("PPTP", 6, tcp(1723, &[7; 156]), 180),
            ("TLS", 6, tcp(443, &hello), 624),
            ("TLS, data", 6, tcp(443, &[&[0x17, 3, 3, 2, 0][..], &[9; 900]].concat()), 88),
            ("LCP that asks for PAP", 47, pptp_gre(&lcp), 16 + 28),
            ("PPP's data", 47, pptp_gre(&[&[0xff, 3, 0, 0xfd][..], &[7; 400]].concat()), 40),
        ];
        for (name, protocol, payload, expected) in rows {
            assert_eq!(kept(&packet(protocol, &payload), false), expected, "{name}");
            assert_eq!(kept(&packet(protocol, &payload), true), payload.len(), "{name}, whole");
        }
    }

    /// A password never gets into the file, whichever way PPP travels and whether or not payload is wanted.
    #[test]
    fn secrets_of_ppp_are_always_cut() {
        let secret = b"hunter2-and-more";
        let with = |head: &[u8]| [head, secret].concat();
        let pap = with(&[0xff, 3, 0xc0, 0x23, 1, 1, 0, 30]);
        let bare_pap = with(&[0xc0, 0x23, 1, 1, 0, 30]);
        let response = with(&[0xff, 3, 0xc2, 0x23, 2, 1, 0, 54]);
        let success = with(&[0xff, 3, 0xc2, 0x23, 3, 1, 0, 54]);
        let identity = with(&[0xff, 3, 0xc2, 0x27, 2, 1, 0, 30, 1]);
        let multilink = with(&[0xff, 3, 0, 0x3d, 0xc0, 0, 0, 0, 0xc0, 0x23, 1, 1, 0, 30]);
        for ppp in [&pap, &bare_pap, &response, &success, &identity, &multilink] {
            let len = u16::try_from(ppp.len() + 8).unwrap().to_be_bytes();
            let mut iccn = vec![0xc8, 2, 0, 0, 0, 7, 0, 9, 0, 1, 0, 1, 0x80, 8, 0, 0, 0, 0, 0, 12];
            iccn.extend(ppp);
            let total = u16::try_from(iccn.len()).unwrap().to_be_bytes();
            iccn[2..4].copy_from_slice(&total);
            let mut rows = vec![
                (47, pptp_gre(ppp)),
                (47, [&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 7][..], ppp].concat()),
                (47, [&[0x20, 0, 0x88, 0x0b, 0, 0, 0, 7][..], ppp].concat()),
                (47, [&[0xb0, 0, 0x88, 0x0b, 1, 2, 0, 0, 0, 0, 0, 7, 0, 0, 0, 1][..], ppp].concat()),
                (47, [&[0x10, 1, 0x88, 0x0b, 0, 0, 0, 7][..], ppp].concat()),
                (17, udp(1701, &[&[0, 2, 0, 7, 0, 9][..], ppp].concat())),
                (17, udp(1701, &[&[0x40, 2, len[0], len[1], 0, 7, 0, 9][..], ppp].concat())),
                (17, udp(1701, &[&[0x0a, 2, 0, 7, 0, 9, 0, 1, 0, 1, 0, 3, 9, 9, 9][..], ppp].concat())),
                (17, udp(1701, &[&[0, 3, 0, 0, 0, 0, 0, 9][..], ppp].concat())),
                (17, udp(1701, &iccn)),
                (115, [&[0, 0, 0, 9][..], ppp].concat()),
                (115, [&[0, 0, 0, 0][..], &iccn].concat()),
            ];
            let mut quoted = vec![3, 3, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 99, 0, 1, 0, 0, 63, 47, 0, 0];
            quoted.extend(SRC.iter().chain(&DST));
            quoted.extend(pptp_gre(ppp));
            rows.push((1, quoted));
            for (protocol, payload) in rows {
                let at = payload.windows(secret.len()).position(|bytes| bytes == secret).unwrap();
                for whole in [false, true] {
                    let kept = kept(&packet(protocol, &payload), whole);
                    assert!(kept <= at, "{kept} of {protocol} {payload:02x?}");
                }
            }
        }
    }

    #[test]
    fn errors_keep_what_they_are_about() {
        let mut error = vec![3, 3, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 99, 0, 1, 0, 0, 63, 17, 0, 0];
        error.extend(SRC.iter().chain(&DST));
        error.extend(udp(500, &ike()).iter().take(71));
        assert_eq!(kept(&packet(1, &error), false), 8 + 20 + 8);
        assert_eq!(kept(&packet(1, &error[..30]), false), 30);
    }

    #[test]
    fn later_fragments_keep_their_headers_alone() {
        let payload = [7; 100];
        let later = Packet { fragment: Fragment::Later, ..packet(17, &payload) };
        assert_eq!((kept(&later, false), kept(&later, true)), (0, 100));
    }

    #[test]
    fn no_packet_is_too_short() {
        for protocol in [1, 6, 17, 47, 50, 51, 58, 115] {
            let lengths = 0..40;
            for (len, byte) in lengths.flat_map(|len| [0, 3, 0x30, 0xc0, 0xff].map(|byte| (len, byte))) {
                assert!(kept(&packet(protocol, &vec![byte; len]), false) <= len);
            }
        }
    }
}
