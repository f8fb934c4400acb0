//! The other protocols' first messages, and what their answers say.

use std::net::IpAddr;

use super::bytes::{Reader, Writer};

/// PPTP's magic number (RFC 2637 section 2.1).
const MAGIC: [u8; 4] = [0x1a, 0x2b, 0x3c, 0x4d];

/// A PPTP control message: type and what comes after the first 12 bytes.
fn pptp(kind: u16, fill: impl FnOnce(&mut Writer)) -> Vec<u8> {
    let mut out = Writer::default();
    out.nest(&[], |out| {
        out.put16(1);
        out.put(&MAGIC);
        out.put16(kind);
        out.put16(0);
        fill(out);
    });
    out.0
}

/// PPTP's Start-Control-Connection-Request (RFC 2637 section 2.1).
pub(super) fn pptp_start() -> Vec<u8> {
    pptp(1, |out| {
        // Version 1.0, both kinds of framing and of bearer, no limit of channels.
        out.put(&[1, 0, 0, 0, 0, 0, 0, 3, 0, 0, 0, 3, 0, 0, 0, 0]);
        out.put(&[0; 128]);
    })
}

/// PPTP's Outgoing-Call-Request (RFC 2637 section 2.7) with our Call ID.
pub(super) fn pptp_call(call: u16) -> Vec<u8> {
    pptp(7, |out| {
        out.put16(call);
        out.put16(1);
        // From 300 to 100,000,000 bit/s, any bearer and framing, a window of 64 packets, no delay.
        out.put(&300u32.to_be_bytes());
        out.put(&100_000_000u32.to_be_bytes());
        out.put(&[0, 0, 0, 3, 0, 0, 0, 3, 0, 64, 0, 0, 0, 0, 0, 0]);
        out.put(&[0; 128]);
    })
}

/// PPTP's Call-Clear-Request (section 2.12) with our Call ID.
pub(super) fn pptp_clear(call: u16) -> Vec<u8> {
    pptp(12, |out| {
        out.put16(call);
        out.put16(0);
    })
}

/// PPTP's Stop-Control-Connection-Request (section 2.3), "general request".
pub(super) fn pptp_stop() -> Vec<u8> {
    pptp(3, |out| out.put(&[1, 0, 0, 0]))
}

/// A PPTP control message from the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum PptpAnswer {
    /// Start-Control-Connection-Reply with its result; 1 is good.
    Start(u8),
    /// Outgoing-Call-Reply with the server's Call ID and its result; 1 is good.
    Call { id: u16, result: u8 },
    /// Any other.
    Other,
}

/// Takes the first whole message out of `stream`; `Err` when it is not PPTP.
pub(super) fn pptp_answer(stream: &mut Vec<u8>) -> Result<Option<PptpAnswer>, ()> {
    let mut reader = Reader(stream);
    let Some(length) = reader.u16() else { return Ok(None) };
    let Some([_, _, magic @ ..]) = reader.array::<6>() else { return Ok(None) };
    let length = usize::from(length);
    if magic != MAGIC || !(16..=256).contains(&length) {
        return Err(());
    }
    if stream.len() < length {
        return Ok(None);
    }
    let message: Vec<u8> = stream.drain(..length).collect();
    let byte = |at: usize| message.get(at).copied().unwrap_or(0);
    Ok(Some(match (byte(8), byte(9)) {
        (0, 2) => PptpAnswer::Start(byte(14)),
        (0, 8) => PptpAnswer::Call { id: u16::from_be_bytes([byte(12), byte(13)]), result: byte(16) },
        _ => PptpAnswer::Other,
    }))
}

/// PPTP's GRE (RFC 2637 section 4.1) to `call` with an LCP Configure-Request (RFC 1661 section 5.1) that asks for
/// nothing but `filler` more bytes' worth of it, which tell packets apart.
pub(super) fn gre(call: u16, sequence: u32, filler: u8) -> Vec<u8> {
    // A magic number, and a vendor's option (RFC 2153) as the filler.
    let mut options = vec![5, 6, 0x6e, 0x61, 0x74, 0x64];
    if filler > 0 {
        options.extend([0, filler.saturating_add(6), 0, 0, 0, 0]);
        options.resize(options.len() + usize::from(filler), 0);
    }
    let mut lcp = Writer::default();
    lcp.put(&[0xff, 0x03, 0xc0, 0x21]);
    lcp.nest(&[1, 1], |lcp| lcp.put(&options));
    let mut out = Writer::default();
    out.put(&[0x30, 0x01, 0x88, 0x0b]);
    out.put16(u16::try_from(lcp.len()).unwrap_or(0));
    out.put16(call);
    out.put(&sequence.to_be_bytes());
    out.put(&lcp.0);
    out.0
}

/// The Call ID of PPTP's GRE and the length of its payload.
pub(super) fn gre_call(packet: &[u8]) -> Option<(u16, u16)> {
    let mut reader = Reader(packet);
    let [_, version, 0x88, 0x0b] = reader.array()? else { return None };
    let length = reader.u16()?;
    (version & 7 == 1).then_some((reader.u16()?, length))
}

/// Does PPTP's GRE show that the sender got ours? It acknowledges it (A), or answers LCP's Configure-Request.
pub(super) fn gre_answers(packet: &[u8]) -> bool {
    let acknowledges = packet.get(1).is_some_and(|flags| flags & 0x80 != 0);
    let sequenced = packet.first().is_some_and(|flags| flags & 0x10 != 0);
    let header = 8 + if sequenced { 4 } else { 0 } + if acknowledges { 4 } else { 0 };
    let number = packet.get(header - 4..).and_then(|rest| rest.first_chunk().copied());
    // Before anything came servers acknowledge 2^32 - 1.
    if acknowledges && number.is_some_and(|number| number != [0xff; 4]) {
        return true;
    }
    // Address and control may be left out (RFC 1661 section 6.6); Ack, Nak or Reject with our identifier.
    let frame = packet.get(header..).unwrap_or_default();
    let frame = frame.strip_prefix(&[0xff, 3]).unwrap_or(frame);
    matches!(frame, [0xc0, 0x21, 2..=4, 1, ..])
}

/// ESP (RFC 4303 section 2) as nobody can read it.
pub(super) fn esp(spi: u32, sequence: u32, random: &[u8]) -> Vec<u8> {
    let mut out = Writer::default();
    out.put(&spi.to_be_bytes());
    out.put(&sequence.to_be_bytes());
    out.put(random.get(..56).unwrap_or_default());
    out.0
}

/// L2TP's Start-Control-Connection-Request (RFC 2661 section 6.1) from tunnel `ours`.
pub(super) fn l2tp_start(ours: u16) -> Vec<u8> {
    l2tp(
        [0; 4],
        |out| {
            avp(out, 0, &[0, 1]);
            avp(out, 2, &[1, 0]);
            avp(out, 3, &[0, 0, 0, 3]);
            avp(out, 7, b"natd-probe");
            avp(out, 9, &ours.to_be_bytes());
        },
        0,
    )
}

/// L2TP's Stop-Control-Connection-Notification (section 6.4): tunnel `ours`, which the server calls `theirs`, ends.
pub(super) fn l2tp_stop(ours: u16, theirs: u16) -> Vec<u8> {
    let [high, low] = theirs.to_be_bytes();
    l2tp(
        [high, low, 0, 0],
        |out| {
            avp(out, 0, &[0, 4]);
            avp(out, 9, &ours.to_be_bytes());
            avp(out, 1, &[0, 1]);
        },
        1,
    )
}

/// A control message to tunnel and session `ids`, the sender's and the receiver's next being `count`.
fn l2tp(ids: [u8; 4], fill: impl FnOnce(&mut Writer), count: u16) -> Vec<u8> {
    let mut out = Writer::default();
    out.nest(&[0xc8, 0x02], |out| {
        out.put(&ids);
        out.put16(count);
        out.put16(count);
        fill(out);
    });
    out.0
}

fn avp(out: &mut Writer, kind: u16, value: &[u8]) {
    // Mandatory, and its length with the 6 bytes before the value.
    out.put16(0x8000 | u16::try_from(value.len() + 6).unwrap_or(6));
    out.put16(0);
    out.put16(kind);
    out.put(value);
}

/// What an L2TP server says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum L2tpAnswer {
    /// It opens a tunnel, which it calls this.
    Open { theirs: u16 },
    /// It refuses, with this result code (RFC 2661 section 4.4.2).
    Stop { result: u16 },
    /// It speaks L2TP.
    Other,
}

/// Reads an answer to [`l2tp_start`].
pub(super) fn l2tp_answer(payload: &[u8]) -> Option<L2tpAnswer> {
    let mut reader = Reader(payload);
    let [flags, version] = reader.array()?;
    if flags & 0xc8 != 0xc8 || version & 15 != 2 {
        return None;
    }
    reader.array::<10>()?;
    let (mut kind, mut theirs, mut result) = (None, 0, 0);
    for _ in 0..32 {
        let Some(head) = reader.u16() else { break };
        let Some(mut avp) = usize::from(head & 0x3ff).checked_sub(2).and_then(|n| reader.take(n)).map(Reader)
        else {
            break;
        };
        let (Some(0), Some(attribute), Some(value)) = (avp.u16(), avp.u16(), avp.u16()) else { continue };
        match attribute {
            0 => kind = Some(value),
            1 => result = value,
            9 => theirs = value,
            _ => {}
        }
    }
    Some(match kind {
        Some(2) => L2tpAnswer::Open { theirs },
        Some(4) => L2tpAnswer::Stop { result },
        _ => L2tpAnswer::Other,
    })
}

/// OpenVPN's P_CONTROL_HARD_RESET_CLIENT_V2 without acknowledgements.
pub(super) fn openvpn_reset(session: [u8; 8]) -> Vec<u8> {
    let mut out = vec![0x38];
    out.extend(session);
    out.extend([0; 5]);
    out
}

/// Is it the server's P_CONTROL_HARD_RESET_SERVER_V2?
pub(super) fn is_openvpn_answer(payload: &[u8]) -> bool {
    payload.len() >= 14 && payload.first().is_some_and(|first| first & 0xf8 == 0x40)
}

/// A TLS ClientHello (RFC 8446 section 4.1.2, RFC 5246) for TLS 1.3 and 1.2; `name` is where it is to (RFC 6066).
pub(super) fn client_hello(name: Option<&str>, random: &[u8]) -> Vec<u8> {
    let bytes = |from: usize| random.get(from..from + 32).unwrap_or_default();
    let mut out = Writer::default();
    out.put(&[22, 3, 1]);
    let record = out.len();
    out.put16(0);
    out.put(&[1, 0]);
    let body = out.len();
    out.put16(0);
    out.put(&[3, 3]);
    out.put(bytes(0));
    out.put(&[32]);
    out.put(bytes(32));
    let suites: [u16; 9] = [0x1301, 0x1303, 0x1302, 0xc02b, 0xc02f, 0xc030, 0xcca8, 0xc013, 0x002f];
    out.put16(18);
    suites.into_iter().for_each(|suite| out.put16(suite));
    out.put(&[1, 0]);
    list(&mut out, |all| {
        if let Some(name) = name {
            extension(all, 0, |out| {
                list(out, |out| {
                    out.put(&[0]);
                    list(out, |out| out.put(name.as_bytes()));
                });
            });
        }
        extension(all, 10, |out| list(out, |out| out.put(&[0, 29, 0, 23, 0, 24])));
        extension(all, 11, |out| out.put(&[1, 0]));
        extension(all, 13, |out| {
            list(out, |out| out.put(&[4, 3, 8, 4, 4, 1, 5, 3, 8, 5, 5, 1, 8, 6, 6, 1, 2, 1]));
        });
        extension(all, 43, |out| out.put(&[4, 3, 4, 3, 3]));
        extension(all, 51, |out| {
            list(out, |out| {
                out.put16(29);
                list(out, |out| out.put(bytes(64)));
            });
        });
    });
    for (at, from) in [(body, body + 2), (record, record + 2)] {
        let length = u16::try_from(out.len() - from).unwrap_or(0);
        out.patch(at, &length.to_be_bytes());
    }
    out.0
}

/// A length in 16 bits of what `fill` writes, and that.
fn list(out: &mut Writer, fill: impl FnOnce(&mut Writer)) {
    let mut inner = Writer::default();
    fill(&mut inner);
    out.put16(u16::try_from(inner.len()).unwrap_or(0));
    out.put(&inner.0);
}

fn extension(out: &mut Writer, kind: u16, fill: impl FnOnce(&mut Writer)) {
    out.put16(kind);
    list(out, fill);
}

/// What a router or the server says of a packet of ours (RFC 792, RFC 4443).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Said {
    /// Its time to live was over there.
    TimeExceeded,
    /// Nobody is at that port.
    NoPort,
    /// That protocol is not spoken there.
    NoProtocol,
    /// It is not allowed.
    Prohibited,
    /// There is no way to the host.
    Unreachable,
    /// It is larger than the next link carries: so many bytes, or unknown.
    TooBig(Option<u16>),
}

/// Which packet of ours an ICMP error quotes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Quoted {
    /// UDP from this port, so long with its header.
    Udp { from: u16, length: u16 },
    /// ESP.
    Esp { spi: u32, sequence: u32 },
    /// PPTP's GRE.
    Gre { call: u16, length: u16 },
    /// An echo request.
    Echo { id: u16, sequence: u16 },
    /// TCP from and to these ports.
    Tcp { to: u16 },
}

/// An ICMP message about us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Icmp {
    /// An echo reply.
    Echo { id: u16, sequence: u16 },
    /// An error about a packet to `to`.
    Error { said: Said, to: IpAddr, quoted: Quoted },
}

/// Reads an ICMP message.
pub(super) fn icmp(version_six: bool, message: &[u8]) -> Option<Icmp> {
    let mut reader = Reader(message);
    let [kind, code, _, _] = reader.array()?;
    let [a, b, c, d] = reader.array()?;
    let low = u16::from_be_bytes([c, d]);
    let echo = Icmp::Echo { id: u16::from_be_bytes([a, b]), sequence: low };
    let said = match (version_six, kind, code) {
        (false, 0, _) | (true, 129, _) => return Some(echo),
        (false, 11, 0) | (true, 3, 0) => Said::TimeExceeded,
        (false, 3, 3) | (true, 1, 4) => Said::NoPort,
        (false, 3, 2) | (true, 4, 1) => Said::NoProtocol,
        (false, 3, 9 | 10 | 13) | (true, 1, 1 | 5 | 6) => Said::Prohibited,
        (false, 3, 4) => Said::TooBig((low > 0).then_some(low)),
        (true, 2, _) => Said::TooBig(Some(low)),
        (false, 3, _) | (true, 1, _) => Said::Unreachable,
        _ => return None,
    };
    let (protocol, to) = if version_six { header_six(&mut reader)? } else { header_four(&mut reader)? };
    let quoted = match protocol {
        17 => {
            let from = reader.u16()?;
            reader.u16()?;
            Quoted::Udp { from, length: reader.u16()? }
        }
        50 => Quoted::Esp {
            spi: u32::from_be_bytes(reader.array()?),
            sequence: u32::from_be_bytes(reader.array()?),
        },
        47 => gre_call(reader.0).map(|(call, length)| Quoted::Gre { call, length })?,
        6 => {
            reader.u16()?;
            Quoted::Tcp { to: reader.u16()? }
        }
        1 | 58 => {
            reader.array::<4>()?;
            Quoted::Echo { id: reader.u16()?, sequence: reader.u16()? }
        }
        _ => return None,
    };
    Some(Icmp::Error { said, to, quoted })
}

/// Protocol and destination of a quoted IPv4 header.
fn header_four(reader: &mut Reader<'_>) -> Option<(u8, IpAddr)> {
    let [first, rest @ ..] = reader.array::<20>()?;
    reader.take(usize::from(first & 15).checked_sub(5)? * 4)?;
    let [_, _, _, _, _, _, _, _, protocol, _, _, _, _, _, _, to @ ..] = rest;
    Some((protocol, IpAddr::from(to)))
}

/// Protocol and destination of a quoted IPv6 header.
fn header_six(reader: &mut Reader<'_>) -> Option<(u8, IpAddr)> {
    let [_, _, _, _, _, _, mut next, _] = reader.array::<8>()?;
    reader.array::<16>()?;
    let to: [u8; 16] = reader.array()?;
    if next == 44 {
        // Of a fragment.
        [next, ..] = reader.array::<8>()?;
    }
    Some((next, IpAddr::from(to)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pptp_messages_have_the_lengths_of_the_rfc() {
        let lengths = [pptp_start(), pptp_call(7), pptp_clear(7), pptp_stop()].map(|message| message.len());
        assert_eq!(lengths, [156, 168, 16, 16]);
    }

    #[test]
    fn a_pptp_answer_is_read_from_pieces() {
        let reply = pptp(8, |out| out.put(&[0, 5, 0, 7, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]));
        assert_eq!(reply.len(), 32);
        let mut stream = reply[..20].to_vec();
        assert_eq!(pptp_answer(&mut stream), Ok(None));
        stream.extend(&reply[20..]);
        stream.extend(pptp_stop());
        assert_eq!(pptp_answer(&mut stream), Ok(Some(PptpAnswer::Call { id: 5, result: 1 })));
        assert_eq!(pptp_answer(&mut stream), Ok(Some(PptpAnswer::Other)));
        assert_eq!(pptp_answer(&mut stream), Ok(None));
        assert_eq!(pptp_answer(&mut b"HTTP/1.1 400 Bad Request".to_vec()), Err(()));
    }

    #[test]
    fn an_l2tp_answer_is_read() {
        let mut reply = l2tp_start(77);
        reply[19] = 2;
        assert_eq!(l2tp_answer(&reply), Some(L2tpAnswer::Open { theirs: 77 }));
        assert_eq!(l2tp_answer(&l2tp_stop(1, 2)), Some(L2tpAnswer::Stop { result: 1 }));
        assert_eq!(l2tp_answer(b"\x40\0\0\0\0\0\0\0\0\0\0\0\0\0"), None);
        for length in 0..reply.len() {
            l2tp_answer(&reply[..length]);
        }
    }

    #[test]
    fn gre_packets_of_a_ladder_differ_in_their_first_eight_bytes() {
        for ttl in 0..=16 {
            let packet = gre(9, 0, ttl);
            let (call, length) = gre_call(&packet[..8]).unwrap();
            assert_eq!((call, usize::from(length)), (9, packet.len() - 12));
        }
        assert_ne!(gre(9, 0, 1)[..8], gre(9, 0, 2)[..8]);
    }

    #[test]
    fn a_server_that_speaks_first_has_not_heard_us() {
        let own = gre(9, 0, 0);
        assert!(!gre_answers(&own));
        let mut reject = own.clone();
        reject[16] = 4;
        assert!(gre_answers(&reject));
        assert!(gre_answers(&[0x20, 0x81, 0x88, 0x0b, 0, 0, 0, 9, 0, 0, 0, 0]));
        assert!(!gre_answers(&[0x30, 0x81, 0x88, 0x0b, 0, 0, 0, 9, 0, 0, 0, 0, 0xff, 0xff, 0xff, 0xff]));
        for length in 0..own.len() {
            assert!(!gre_answers(&own[..length]));
        }
    }

    #[test]
    fn an_icmp_error_names_the_packet_it_is_about() {
        let mut error = vec![11, 0, 0, 0, 0, 0, 0, 0, 0x45, 0, 0, 84, 0, 0, 0, 0, 1, 50, 0, 0];
        error.extend([192, 0, 2, 1, 198, 51, 100, 10]);
        error.extend([0, 0, 0xca, 0xfe, 0, 0, 0, 3]);
        let to = IpAddr::from([198, 51, 100, 10]);
        let quoted = Quoted::Esp { spi: 0xcafe, sequence: 3 };
        assert_eq!(icmp(false, &error), Some(Icmp::Error { said: Said::TimeExceeded, to, quoted }));
        for length in 0..error.len() {
            assert_eq!(icmp(false, &error[..length]), None);
        }
    }

    #[test]
    fn a_client_hello_is_as_long_as_it_says() {
        let hello = client_hello(Some("vpn.example"), &[3; 96]);
        assert_eq!(hello.len(), usize::from(u16::from_be_bytes([hello[3], hello[4]])) + 5);
        assert_eq!(hello.len(), usize::from(u16::from_be_bytes([hello[7], hello[8]])) + 9);
        assert!(hello.windows(11).any(|bytes| bytes == b"vpn.example"));
    }
}
