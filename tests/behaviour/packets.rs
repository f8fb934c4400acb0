//! Packets by hand: a [`Packet`] is a value, its bytes have every length and checksum right.
//!
//! A test says what a translated packet must look like by changing the value (`packet.from(WAN, 40000)`) and
//! compares bytes: checksums, lengths and everything that must not change are compared with it. The
//! checksums come from etherparse and from the naive sums below, never from the code under test.

use std::fmt;
use std::net::Ipv4Addr;

use etherparse::{IpNumber, Ipv4Header, Ipv4Options, TcpHeader, UdpHeader};

/// The router's address on the WAN.
pub(crate) const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The address that it gets instead, in tests of a change.
pub(crate) const NEW_WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 77);
/// The router's address on the LAN.
pub(crate) const ROUTER: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 1);
/// A device.
pub(crate) const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
/// Another device.
pub(crate) const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);
/// A server.
pub(crate) const S: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);
/// Another server, or a stranger.
pub(crate) const T: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 20);
/// A router on the way, of which nothing is known.
pub(crate) const HOP: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 254);

/// An address and a port, or an ICMP query id.
pub(crate) type End = (Ipv4Addr, u16);

/// What a packet carries.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// TCP, without checksum.
    Tcp(Box<TcpHeader>),
    /// UDP; `false`: sent without checksum.
    Udp(bool),
    /// An ICMP query: type. The id is the source's port in a request, the destination's in a reply.
    Query(u8),
    /// Another ICMP message: type, code, second word. The payload is what it quotes.
    Error(u8, u8, u32),
    /// Another protocol.
    Other(u8),
}

/// A packet.
#[derive(Clone, Debug)]
pub(crate) struct Packet {
    /// Source.
    pub(crate) src: End,
    /// Destination.
    pub(crate) dst: End,
    /// Header behind the IPv4 header.
    pub(crate) kind: Kind,
    /// What follows it.
    pub(crate) payload: Vec<u8>,
    /// IPv4 options.
    pub(crate) options: Vec<u8>,
    /// IPv4 identification.
    pub(crate) id: u16,
}

fn packet(src: End, dst: End, kind: Kind) -> Packet {
    Packet { src, dst, kind, payload: Vec::new(), options: Vec::new(), id: 0x1234 }
}

/// A UDP datagram with four bytes of payload.
pub(crate) fn udp(src: End, dst: End) -> Packet {
    packet(src, dst, Kind::Udp(true)).payload(b"data")
}

/// A packet of a protocol without ports that carries `payload`.
pub(crate) fn portless(protocol: u8, src: Ipv4Addr, dst: Ipv4Addr, payload: &[u8]) -> Packet {
    packet((src, 0), (dst, 0), Kind::Other(protocol)).payload(payload)
}

/// A TCP segment without any flag; the methods below make something of it.
pub(crate) fn tcp(src: End, dst: End) -> Packet {
    packet(src, dst, Kind::Tcp(Box::new(TcpHeader::new(src.1, dst.1, 0, 60_000))))
}

/// An echo request with query id `id`.
pub(crate) fn ping(src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> Packet {
    query(8, src, dst, id)
}

/// Its answer.
pub(crate) fn pong(src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> Packet {
    query(0, src, dst, id)
}

/// An ICMP query or answer of `kind` with query id `id`.
pub(crate) fn query(kind: u8, src: Ipv4Addr, dst: Ipv4Addr, id: u16) -> Packet {
    let request = matches!(kind, 8 | 13 | 15 | 17);
    let (src_id, dst_id) = if request { (id, 0) } else { (0, id) };
    packet((src, src_id), (dst, dst_id), Kind::Query(kind)).payload(&[0, 1, 7, 7, 7])
}

/// An ICMP error about a packet of which it quotes `quote`.
pub(crate) fn error(kind: u8, code: u8, src: Ipv4Addr, dst: Ipv4Addr, quote: &[u8]) -> Packet {
    packet((src, 0), (dst, 0), Kind::Error(kind, code, 0)).payload(quote)
}

/// "Fragmentation needed" with the next hop's MTU.
pub(crate) fn too_big(mtu: u16, src: Ipv4Addr, dst: Ipv4Addr, quote: &[u8]) -> Packet {
    packet((src, 0), (dst, 0), Kind::Error(3, 4, u32::from(mtu))).payload(quote)
}

impl Packet {
    /// The same from another source.
    pub(crate) fn from(&self, addr: Ipv4Addr, port: u16) -> Self {
        Self { src: (addr, port), ..self.clone() }
    }

    /// The same to another destination.
    pub(crate) fn to(&self, addr: Ipv4Addr, port: u16) -> Self {
        Self { dst: (addr, port), ..self.clone() }
    }

    /// The same with another payload.
    pub(crate) fn payload(mut self, payload: &[u8]) -> Self {
        self.payload = payload.to_vec();
        self
    }

    /// The same with IPv4 options, a multiple of four bytes.
    pub(crate) fn options(mut self, options: &[u8]) -> Self {
        self.options = options.to_vec();
        self
    }

    /// A UDP datagram sent without checksum.
    pub(crate) fn unchecked(mut self) -> Self {
        self.kind = Kind::Udp(false);
        self
    }

    fn tcp(mut self, change: impl FnOnce(&mut TcpHeader)) -> Self {
        match &mut self.kind {
            Kind::Tcp(header) => change(header),
            Kind::Udp(_) | Kind::Query(_) | Kind::Error(..) | Kind::Other(_) => panic!("not TCP"),
        }
        self
    }

    /// A SYN.
    pub(crate) fn syn(self, seq: u32) -> Self {
        self.tcp(|h| (h.syn, h.ack, h.sequence_number) = (true, false, seq))
    }

    /// A SYN's answer.
    pub(crate) fn syn_ack(self, seq: u32, ack: u32) -> Self {
        self.ack(seq, ack).tcp(|h| h.syn = true)
    }

    /// An acknowledgement.
    pub(crate) fn ack(self, seq: u32, ack: u32) -> Self {
        self.tcp(|h| (h.ack, h.sequence_number, h.acknowledgment_number) = (true, seq, ack))
    }

    /// Data of `len` bytes.
    pub(crate) fn data(self, seq: u32, ack: u32, len: usize) -> Self {
        self.ack(seq, ack).payload(&vec![0x5a; len])
    }

    /// A FIN.
    pub(crate) fn fin(self, seq: u32, ack: u32) -> Self {
        self.ack(seq, ack).tcp(|h| h.fin = true)
    }

    /// A RST without acknowledgement.
    pub(crate) fn rst(self, seq: u32) -> Self {
        self.tcp(|h| (h.rst, h.sequence_number) = (true, seq))
    }

    /// A RST with acknowledgement.
    pub(crate) fn rst_ack(self, seq: u32, ack: u32) -> Self {
        self.ack(seq, ack).tcp(|h| h.rst = true)
    }

    /// Another window.
    pub(crate) fn window(self, window: u16) -> Self {
        self.tcp(|h| h.window_size = window)
    }

    /// TCP options as they stand on the wire; padded with zeros to a multiple of four.
    pub(crate) fn tcp_options(self, options: &[u8]) -> Self {
        self.tcp(|h| h.set_options_raw(options).unwrap())
    }

    /// The MSS option.
    pub(crate) fn mss(self, mss: u16) -> Self {
        let [high, low] = mss.to_be_bytes();
        self.tcp_options(&[2, 4, high, low])
    }

    /// The window scale option.
    pub(crate) fn scale(self, shift: u8) -> Self {
        self.tcp_options(&[1, 3, 3, shift])
    }

    /// The packet on the wire.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let number = match self.kind {
            Kind::Tcp(_) => 6,
            Kind::Udp(_) => 17,
            Kind::Query(_) | Kind::Error(..) => 1,
            Kind::Other(number) => number,
        };
        let mut ip =
            Ipv4Header::new(0, 63, IpNumber(number), self.src.0.octets(), self.dst.0.octets()).unwrap();
        ip.identification = self.id;
        ip.options = Ipv4Options::try_from(self.options.as_slice()).unwrap();
        let mut body = match &self.kind {
            Kind::Tcp(header) => {
                let mut header = (**header).clone();
                (header.source_port, header.destination_port) = (self.src.1, self.dst.1);
                header.checksum = header.calc_checksum_ipv4(&ip, &self.payload).unwrap();
                header.to_bytes().to_vec()
            }
            Kind::Udp(checked) => {
                let mut header =
                    UdpHeader::with_ipv4_checksum(self.src.1, self.dst.1, &ip, &self.payload).unwrap();
                header.checksum = if *checked { header.checksum } else { 0 };
                header.to_bytes().to_vec()
            }
            Kind::Query(kind) => {
                let [high, low] = (self.src.1 | self.dst.1).to_be_bytes();
                vec![*kind, 0, 0, 0, high, low, 0, 1]
            }
            Kind::Error(kind, code, word) => {
                let mut header = vec![*kind, *code, 0, 0];
                header.extend_from_slice(&word.to_be_bytes());
                header
            }
            Kind::Other(_) => Vec::new(),
        };
        body.extend_from_slice(&self.payload);
        if number == 1 {
            let sum = !naive_sum(&body);
            body[2..4].copy_from_slice(&sum.to_be_bytes());
        }
        ip.total_len = u16::try_from(ip.header_len() + body.len()).unwrap();
        ip.header_checksum = ip.calc_header_checksum();
        let mut bytes = ip.to_bytes().to_vec();
        bytes.extend_from_slice(&body);
        bytes
    }

    /// What an ICMP error quotes of it: the IPv4 header and `len` bytes.
    pub(crate) fn head(&self, len: usize) -> Vec<u8> {
        let bytes = self.bytes();
        let end = 20 + self.options.len() + len;
        bytes[..end.min(bytes.len())].to_vec()
    }
}

/// A packet's bytes, shown as what they mean.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wire(pub(crate) Vec<u8>);

impl Wire {
    /// Source address and port, or ICMP query id.
    pub(crate) fn src(&self) -> End {
        ends(&self.0).0
    }

    /// Destination address and port, or ICMP query id.
    pub(crate) fn dst(&self) -> End {
        ends(&self.0).1
    }

    /// What a TCP segment or a UDP datagram carries, or what follows the IPv4 header of another protocol.
    pub(crate) fn carried(&self) -> &[u8] {
        let at = header_len(&self.0);
        let header = match self.0[9] {
            6 => usize::from(self.0[at + 12] >> 4) * 4,
            17 => 8,
            _ => 0,
        };
        &self.0[at + header..]
    }

    /// The packet that this ICMP error quotes.
    pub(crate) fn quote(&self) -> Option<Self> {
        let at = header_len(&self.0);
        let kind = *self.0.get(at)?;
        if word(&self.0, 6)? & 0x3fff != 0 {
            return None; // a fragment: the kernel never hands one over, and natd does not look into it
        }
        (self.0.get(9) == Some(&1) && matches!(kind, 3 | 4 | 5 | 11 | 12))
            .then(|| Self(self.0.get(at + 8..).unwrap_or_default().to_vec()))
    }

    /// Does any address in it, the quote's included, fulfil `test`?
    pub(crate) fn shows(&self, test: &impl Fn(Ipv4Addr) -> bool) -> bool {
        let own = [12, 16].iter().any(|&at| address(&self.0, at).is_some_and(test));
        own || self.quote().is_some_and(|quote| quote.shows(test))
    }
}

impl fmt::Debug for Wire {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ((src, src_port), (dst, dst_port)) = ends(&self.0);
        write!(f, "proto {:?} {src}:{src_port} > {dst}:{dst_port}", self.0.get(9))?;
        if let Some(quote) = self.quote() {
            write!(f, " quoting [{quote:?}]")?;
        }
        for byte in &self.0 {
            write!(f, " {byte:02x}")?;
        }
        Ok(())
    }
}

/// Header length in bytes.
pub(crate) fn header_len(bytes: &[u8]) -> usize {
    usize::from(bytes.first().copied().unwrap_or(0x45) & 15) * 4
}

fn address(bytes: &[u8], at: usize) -> Option<Ipv4Addr> {
    let octets: [u8; 4] = bytes.get(at..at + 4)?.try_into().ok()?;
    Some(octets.into())
}

fn word(bytes: &[u8], at: usize) -> Option<u16> {
    let word: [u8; 2] = bytes.get(at..at + 2)?.try_into().ok()?;
    Some(u16::from_be_bytes(word))
}

fn ends(bytes: &[u8]) -> (End, End) {
    let none = Ipv4Addr::UNSPECIFIED;
    let at = header_len(bytes);
    let (src, dst) = match bytes.get(9) {
        Some(6 | 17) => (word(bytes, at), word(bytes, at + 2)),
        Some(1) => match bytes.get(at) {
            Some(8 | 13 | 15 | 17) => (word(bytes, at + 4), None),
            Some(0 | 14 | 16 | 18) => (None, word(bytes, at + 4)),
            _ => (None, None),
        },
        _ => (None, None),
    };
    (
        (address(bytes, 12).unwrap_or(none), src.unwrap_or(0)),
        (address(bytes, 16).unwrap_or(none), dst.unwrap_or(0)),
    )
}

/// One's complement sum of the big-endian words, folded; the slow and obvious way.
pub(crate) fn naive_sum(bytes: &[u8]) -> u16 {
    let mut sum = 0u32;
    for pair in bytes.chunks(2) {
        let low = pair.get(1).copied().unwrap_or(0);
        sum += u32::from(u16::from_be_bytes([pair[0], low]));
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}

/// Are the checksums of a whole packet right: header, transport, and the header in a quote? UDP without
/// checksum counts as right, and so does whatever we know no checksum of. The quote's transport checksum
/// counts if `whole_quote` and the quote is complete.
pub(crate) fn checksums_hold(bytes: &[u8]) -> bool {
    let total = usize::from(word(bytes, 2).unwrap_or(0));
    let at = header_len(bytes);
    let (Some(header), Some(body)) = (bytes.get(..at), bytes.get(at..total)) else { return false };
    if naive_sum(header) != 0xffff {
        return false;
    }
    if word(bytes, 6).unwrap_or(0) & 0x3fff != 0 {
        return true; // a fragment
    }
    let mut pseudo = bytes[12..20].to_vec();
    pseudo.extend_from_slice(&[0, bytes[9]]);
    pseudo.extend_from_slice(&u16::try_from(body.len()).unwrap().to_be_bytes());
    match bytes[9] {
        1 => naive_sum(body) == 0xffff,
        17 if word(body, 6) == Some(0) => true,
        17 => {
            // The datagram may be shorter than the packet.
            let len = word(body, 4).unwrap_or(0);
            let Some(datagram) = body.get(..usize::from(len)) else { return false };
            pseudo.truncate(10);
            pseudo.extend_from_slice(&len.to_be_bytes());
            pseudo.extend_from_slice(datagram);
            naive_sum(&pseudo) == 0xffff
        }
        6 => {
            pseudo.extend_from_slice(body);
            naive_sum(&pseudo) == 0xffff
        }
        _ => true,
    }
}
