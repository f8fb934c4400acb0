//! A device, a router and a server, and the packets between them as both sides of the router see them.
//!
//! A [`Line`] runs one device's story straight through: what it sends, what comes back, what gets lost and is sent
//! again. The stories of several devices are merged by time afterwards.

use std::net::IpAddr;

/// Small and the same everywhere (splitmix64).
#[derive(Clone, Debug)]
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn roll(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// From `low` to `high`, without `high`.
    pub(crate) fn between(&mut self, low: u64, high: u64) -> u64 {
        low + self.roll() % (high - low)
    }

    pub(crate) fn one_in(&mut self, n: u64) -> bool {
        self.roll() % n == 0
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.roll().to_le_bytes()[0]).collect()
    }

    pub(crate) fn array<const N: usize>(&mut self) -> [u8; N] {
        std::array::from_fn(|_| self.roll().to_le_bytes()[0])
    }

    /// Not 0.
    pub(crate) fn id(&mut self) -> u32 {
        u32::try_from(self.between(0x1000, 0xffff_0000)).unwrap()
    }
}

/// What is sent, without the addresses.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    pub(crate) protocol: u8,
    pub(crate) device_port: u16,
    pub(crate) server_port: u16,
    /// Sequence number, acknowledgement, flags.
    pub(crate) tcp: Option<(u32, u32, u8)>,
    pub(crate) body: Vec<u8>,
}

impl Message {
    pub(crate) fn udp(device_port: u16, server_port: u16, body: Vec<u8>) -> Self {
        Self { protocol: 17, device_port, server_port, tcp: None, body }
    }

    pub(crate) fn other(protocol: u8, body: Vec<u8>) -> Self {
        Self { protocol, device_port: 0, server_port: 0, tcp: None, body }
    }

    /// ESP in UDP rather than IKE behind its marker or a keepalive.
    fn is_esp_in_udp(&self) -> bool {
        self.server_port == 4500 && self.body.len() > 4 && self.body[..4] != [0; 4]
    }
}

/// A packet on its way, for a fault to judge.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Flight<'a> {
    /// Microseconds.
    pub(crate) at: u64,
    pub(crate) outbound: bool,
    pub(crate) message: &'a Message,
    /// One of several pieces.
    pub(crate) fragment: bool,
}

impl Flight<'_> {
    pub(crate) fn is_udp(&self, port: u16) -> bool {
        self.message.protocol == 17 && self.message.server_port == port
    }

    pub(crate) fn is_esp(&self) -> bool {
        self.message.protocol == 50 || self.message.is_esp_in_udp()
    }
}

/// What becomes of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    Arrives,
    /// Between the router and the server.
    LostOnTheWay,
    /// The router does not hand it on.
    Swallowed,
}

pub(crate) type Fault = fn(&Flight<'_>) -> Fate;

pub(crate) fn healthy(_: &Flight<'_>) -> Fate {
    Fate::Arrives
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    Lan,
    Wan,
}

/// A packet that somebody who watches sees.
#[derive(Clone, Debug)]
pub(crate) struct Sight {
    /// Microseconds.
    pub(crate) at: u64,
    pub(crate) place: Place,
    pub(crate) outbound: bool,
    pub(crate) bytes: Vec<u8>,
}

/// A device's way to a server.
pub(crate) struct Line {
    /// Microseconds.
    pub(crate) now: u64,
    pub(crate) dice: Dice,
    pub(crate) number: u8,
    pub(crate) device: IpAddr,
    pub(crate) server: IpAddr,
    pub(crate) wan: IpAddr,
    pub(crate) sights: Vec<Sight>,
    pub(crate) fault: Fault,
    /// One packet is lost now and then.
    pub(crate) lossy: bool,
    last_loss: u64,
    /// Microseconds there and back.
    rtt: u64,
    /// Some systems write 0 into the identification of packets that must not be fragmented.
    counts_packets: bool,
    /// Time to live of what comes from the server; the same for all devices.
    hops: u8,
    idents: [u16; 2],
    /// The ports on the WAN are others from here on.
    pub(crate) remapped: u16,
}

/// From one side of the router to the other.
const INSIDE: u64 = 180;
const MTU: usize = 1500;

impl Line {
    pub(crate) fn new(number: u8, v6: bool, seed: u64, fault: Fault) -> Self {
        let mut dice = Dice(seed.wrapping_mul(0x5851_f42d_4c95_7f2d) ^ u64::from(number) << 56);
        let last = 11 + number;
        let (device, server, wan) = if v6 {
            let device: [u16; 8] = [0x2001, 0xdb8, 1, 0, 0, 0, 0, last.into()];
            (device.into(), [0x2001, 0xdb8, 0xff, 0, 0, 0, 0, 10].into(), device.into())
        } else {
            ([192, 168, 1, last].into(), [198, 51, 100, 10].into(), [203, 0, 113, 5].into())
        };
        Self {
            now: 1_000_000 + dice.between(0, 3_000_000),
            number,
            device,
            server,
            wan,
            sights: Vec::new(),
            fault,
            lossy: false,
            last_loss: 0,
            rtt: dice.between(2_000, 280_000),
            counts_packets: dice.one_in(2),
            hops: 40 + u8::try_from(seed % 80).unwrap(),
            idents: dice.array::<2>().map(u16::from),
            remapped: 0,
            dice,
        }
    }

    pub(crate) fn wait(&mut self, millis: u64) {
        self.now += millis * 1000;
    }

    pub(crate) fn wait_about(&mut self, millis: u64) {
        self.now += self.dice.between(millis * 800, millis * 1200 + 1);
    }

    /// The port that stands for the device's beyond the router: its own where nobody else has it.
    pub(crate) fn wan_port(&self, port: u16) -> u16 {
        if self.device == self.wan || port == 0 || self.number == 0 && self.remapped == 0 {
            return port;
        }
        20_000 + u16::from(self.number) * 500 + self.remapped * 50 + port % 47
    }

    /// The device sends. Did it arrive?
    pub(crate) fn out(&mut self, message: &Message) -> bool {
        self.carry(message, true)
    }

    /// Something of the server's arrives at the device now, if it does.
    pub(crate) fn back(&mut self, message: &Message) -> bool {
        self.carry(message, false)
    }

    fn carry(&mut self, message: &Message, outbound: bool) -> bool {
        let mut fate = Fate::Arrives;
        if self.lossy && self.now - self.last_loss > 25_000_000 && self.dice.one_in(40) {
            (self.last_loss, fate) = (self.now, Fate::LostOnTheWay);
        }
        let ident = &mut self.idents[usize::from(outbound)];
        *ident = ident.wrapping_add(1);
        let ident = if self.counts_packets { *ident } else { 0 };
        let (inner, outer) =
            (transport(message, outbound, message.device_port), self.wan_port(message.device_port));
        let outer = transport(message, outbound, outer);
        let v6 = self.device.is_ipv6();
        let fragment = inner.len() + if v6 { 40 } else { 20 } > MTU;
        let flight = Flight { at: self.now, outbound, message, fragment };
        if fate == Fate::Arrives {
            fate = (self.fault)(&flight);
        }
        // A fragment is lost as easily as a packet; the first one may still arrive.
        let pieces = |payload: &[u8], src, dst, ttl| ip(src, dst, message.protocol, ttl, ident, payload);
        let jitter = self.dice.between(0, 120);
        let (lan_at, wan_at) = if outbound {
            (self.now, self.now + INSIDE + jitter)
        } else {
            (self.now, self.now - INSIDE - jitter)
        };
        let (device, server, wan) = (self.device, self.server, self.wan);
        let hops = self.hops;
        let (lan, beyond) = if outbound {
            (pieces(&inner, device, server, 64), pieces(&outer, wan, server, 63))
        } else {
            (pieces(&inner, server, device, hops - 1), pieces(&outer, server, wan, hops))
        };
        let on_lan = outbound || fate == Fate::Arrives;
        let on_wan = if outbound { fate != Fate::Swallowed } else { fate != Fate::LostOnTheWay };
        for (shown, at, place, packets) in
            [(on_lan, lan_at, Place::Lan, lan), (on_wan, wan_at, Place::Wan, beyond)]
        {
            for (nth, bytes) in packets.into_iter().enumerate().filter(|_| shown) {
                let at = at + 12 * u64::try_from(nth).unwrap();
                self.sights.push(Sight { at, place, outbound, bytes });
            }
        }
        fate == Fate::Arrives
    }

    /// Sends until an answer comes, after these pauses in milliseconds; the last one is how long it waits in the end.
    pub(crate) fn ask(&mut self, request: &Message, answer: &Message, pauses: &[u64]) -> bool {
        for pause in pauses {
            let sent = self.now;
            if self.out(request) {
                self.travel();
                if self.back(answer) {
                    return true;
                }
            }
            self.now = sent + pause * 1000;
        }
        false
    }

    /// The server asks, the device answers.
    pub(crate) fn asked(&mut self, request: &Message, answer: &Message, pauses: &[u64]) -> bool {
        for pause in pauses {
            let sent = self.now;
            if self.back(request) {
                self.now += self.dice.between(300, 3000);
                if self.out(answer) {
                    self.travel();
                    return true;
                }
            }
            self.now = sent + pause * 1000;
        }
        false
    }

    /// There and back, and what the other side takes to think.
    pub(crate) fn travel(&mut self) {
        self.now += self.rtt + self.dice.between(300, 20_000);
    }

    /// An ICMP error (type and code of IPv4) about this packet of the device's.
    pub(crate) fn icmp(&mut self, from: IpAddr, kind: u8, code: u8, about: &Message) {
        let inner = transport(about, true, about.device_port);
        let outer = transport(about, true, self.wan_port(about.device_port));
        let quote = |payload: &[u8], src| {
            let mut quoted = ip(src, self.server, about.protocol, 50, 0, payload).remove(0);
            quoted.truncate(28);
            [&[kind, code, 0, 0, 0, 0, 0, 0][..], &quoted].concat()
        };
        let lan = ip(from, self.device, 1, 50, 7, &quote(&inner, self.device)).remove(0);
        let wan = ip(from, self.wan, 1, 51, 7, &quote(&outer, self.wan)).remove(0);
        let at = self.now;
        self.sights.push(Sight { at: at - INSIDE, place: Place::Wan, outbound: false, bytes: wan });
        self.sights.push(Sight { at, place: Place::Lan, outbound: false, bytes: lan });
    }
}

fn transport(message: &Message, outbound: bool, device_port: u16) -> Vec<u8> {
    let (src, dst) =
        if outbound { (device_port, message.server_port) } else { (message.server_port, device_port) };
    let ports = [src.to_be_bytes(), dst.to_be_bytes()].concat();
    match (message.protocol, message.tcp) {
        (6, Some((seq, ack, flags))) => {
            let numbers = [seq.to_be_bytes(), ack.to_be_bytes()].concat();
            [&ports[..], &numbers, &[0x50, flags, 0xfa, 0xf0, 0, 0, 0, 0], &message.body].concat()
        }
        (17, _) => {
            let length = u16::try_from(8 + message.body.len()).unwrap().to_be_bytes();
            [&ports[..], &length, &[0, 0], &message.body].concat()
        }
        _ => message.body.clone(),
    }
}

/// The packets of a payload, in as many pieces as it needs.
fn ip(src: IpAddr, dst: IpAddr, protocol: u8, ttl: u8, ident: u16, payload: &[u8]) -> Vec<Vec<u8>> {
    let room = if src.is_ipv6() { MTU - 48 } else { MTU - 20 } & !7;
    let whole = payload.len() + if src.is_ipv6() { 40 } else { 20 } <= MTU;
    let ident = if whole || ident != 0 { ident } else { 77 };
    let pieces: Vec<&[u8]> = if whole { vec![payload] } else { payload.chunks(room).collect() };
    let last = pieces.len() - 1;
    let packet = |(nth, piece): (usize, &&[u8])| {
        let offset = u16::try_from(nth * room / 8).unwrap();
        let more = nth != last;
        match (src, dst) {
            (IpAddr::V4(src), IpAddr::V4(dst)) => {
                let flags = if whole { 0x4000 } else { offset | if more { 0x2000 } else { 0 } };
                let length = u16::try_from(20 + piece.len()).unwrap();
                let mut bytes =
                    [[0x45, 0], length.to_be_bytes(), ident.to_be_bytes(), flags.to_be_bytes()].concat();
                bytes.extend([ttl, protocol, 0, 0]);
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
                bytes.extend(*piece);
                bytes
            }
            (IpAddr::V6(src), IpAddr::V6(dst)) => {
                let extension: Vec<u8> = if whole {
                    Vec::new()
                } else {
                    let at = (offset << 3) | u16::from(more);
                    [&[protocol, 0][..], &at.to_be_bytes(), &u32::from(ident).to_be_bytes()].concat()
                };
                let next = if whole { protocol } else { 44 };
                let length = u16::try_from(extension.len() + piece.len()).unwrap().to_be_bytes();
                let mut bytes = vec![0x60, 0, 0, 0, length[0], length[1], next, ttl];
                bytes.extend(src.octets());
                bytes.extend(dst.octets());
                bytes.extend(extension);
                bytes.extend(*piece);
                bytes
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("one version at a time")
            }
        }
    };
    pieces.iter().enumerate().map(packet).collect()
}
