//! IKE and ESP as their programs talk.

use std::net::IpAddr;

use sha1::{Digest, Sha1};

use crate::net::{Line, Message};

/// When charon, Windows and others send a request again; the last is how long they wait in the end.
const AGAIN: [u64; 5] = [2_000, 4_000, 7_000, 13_000, 24_000];

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Login {
    Main,
    Aggressive,
    V2Psk,
    /// Certificate of the server, then rounds of EAP.
    V2Eap,
    /// The same, and the certificate does not fit into a packet.
    V2EapBig,
}

impl Login {
    pub(crate) const ALL: [Self; 5] =
        [Self::Main, Self::Aggressive, Self::V2Psk, Self::V2Eap, Self::V2EapBig];

    const fn version(self) -> u8 {
        match self {
            Self::Main | Self::Aggressive => 0x10,
            Self::V2Psk | Self::V2Eap | Self::V2EapBig => 0x20,
        }
    }
}

/// An IKE association and its latest pair of ESP's.
pub(crate) struct Ike {
    login: Login,
    nat_t: bool,
    spis: [[u8; 8]; 2],
    /// Message numbers of requests, ours and the server's.
    number: [u32; 2],
    /// SPIs of the packets outbound and inbound, and their sequence numbers.
    pub(crate) esp: [(u32, u32); 2],
}

fn payload(next: u8, body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(4 + body.len()).unwrap().to_be_bytes();
    [&[next, 0, length[0], length[1]], body].concat()
}

/// Payloads with their numbers, chained.
fn chain(payloads: &[(u8, Vec<u8>)]) -> (u8, Vec<u8>) {
    let mut bytes = Vec::new();
    for (nth, (_, body)) in payloads.iter().enumerate() {
        bytes.extend(payload(payloads.get(nth + 1).map_or(0, |(kind, _)| *kind), body));
    }
    (payloads.first().map_or(0, |(kind, _)| *kind), bytes)
}

impl Ike {
    pub(crate) fn new(line: &mut Line, login: Login, nat_t: bool) -> Self {
        let esp = [(line.dice.id(), 0), (line.dice.id(), 0)];
        Self { login, nat_t, spis: [line.dice.array(), [0; 8]], number: [0, 0], esp }
    }

    const fn port(&self) -> u16 {
        if self.nat_t { 4500 } else { 500 }
    }

    fn message(
        &self,
        port: u16,
        exchange: u8,
        flags: u8,
        number: u32,
        (next, body): (u8, Vec<u8>),
    ) -> Message {
        let mut bytes = if port == 4500 { vec![0; 4] } else { Vec::new() };
        bytes.extend(self.spis.concat());
        bytes.extend([next, self.login.version(), exchange, flags]);
        bytes.extend(number.to_be_bytes());
        bytes.extend(u32::try_from(28 + body.len()).unwrap().to_be_bytes());
        bytes.extend(body);
        Message::udp(port, port, bytes)
    }

    /// A message that nobody else can read, so many bytes of IKE long.
    fn secret(&self, line: &mut Line, exchange: u8, flags: u8, number: u32, len: usize) -> Message {
        let body = if self.login.version() == 0x20 {
            (46, payload(35, &line.dice.bytes(len - 32)))
        } else {
            (8, line.dice.bytes((len - 28) & !7))
        };
        self.message(self.port(), exchange, flags, number, body)
    }

    fn hash(&self, address: IpAddr, port: u16) -> Vec<u8> {
        let mut sha = Sha1::new();
        sha.update(self.spis.concat());
        match address {
            IpAddr::V4(address) => sha.update(address.octets()),
            IpAddr::V6(address) => sha.update(address.octets()),
        }
        sha.update(port.to_be_bytes());
        sha.finalize().to_vec()
    }

    fn notify(kind: u16, body: &[u8]) -> (u8, Vec<u8>) {
        (41, [&[0, 0], &kind.to_be_bytes()[..], body].concat())
    }

    fn security_association(&self) -> (u8, Vec<u8>) {
        if self.login.version() == 0x20 {
            let transforms = [(1, 12), (2, 5), (3, 12), (4, 14)];
            let mut proposal = vec![1, 1, 0, 4];
            for (nth, (kind, id)) in transforms.iter().enumerate() {
                proposal.extend([if nth == 3 { 0 } else { 3 }, 0, 0, 8, *kind, 0, 0, *id]);
            }
            (33, [&[0, 0, 0, 40], &proposal[..]].concat())
        } else {
            let attributes = [0x80, 1, 0, 7, 0x80, 2, 0, 2, 0x80, 3, 0, 1, 0x80, 4, 0, 14];
            let transform = [&[0, 0, 0, 24, 1, 1, 0, 0][..], &attributes].concat();
            (1, [&[0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 32, 1, 1, 0, 1][..], &transform].concat())
        }
    }

    fn vendor() -> (u8, Vec<u8>) {
        const RFC_3947: [u8; 16] =
            [0x4a, 0x13, 0x1c, 0x81, 0x07, 0x03, 0x58, 0x45, 0x5c, 0x57, 0x28, 0xf2, 0x0e, 0x95, 0x45, 0x2f];
        (13, RFC_3947.to_vec())
    }

    /// NAT-D payloads: the other side first (RFC 3947 section 3.2).
    fn nat_d(&self, remote: (IpAddr, u16), local: (IpAddr, u16)) -> Vec<(u8, Vec<u8>)> {
        let (remote, local) = (self.hash(remote.0, remote.1), self.hash(local.0, local.1));
        match self.login.version() {
            _ if !self.nat_t => Vec::new(),
            0x20 => vec![Self::notify(16388, &local), Self::notify(16389, &remote)],
            _ => vec![(20, remote), (20, local)],
        }
    }

    /// The association and its first child. Did it come to an end?
    pub(crate) fn connect(&mut self, line: &mut Line) -> bool {
        match self.login {
            Login::Main => self.main(line),
            Login::Aggressive => self.aggressive(line),
            Login::V2Psk | Login::V2Eap | Login::V2EapBig => self.sa_init(line) && self.auth(line),
        }
    }

    fn main(&mut self, line: &mut Line) -> bool {
        let vendors = if self.nat_t { vec![Self::vendor()] } else { Vec::new() };
        let first = [&[self.security_association()], &vendors[..]].concat();
        let request = self.message(500, 2, 0, 0, chain(&first));
        let spi = line.dice.array();
        let mut with = Self { spis: [self.spis[0], spi], ..*self };
        let answer = with.message(500, 2, 0, 0, chain(&first));
        if !line.ask(&request, &answer, &AGAIN) {
            return false;
        }
        std::mem::swap(self, &mut with);
        let (near, far) = self.ends(line);
        let keys = |line: &mut Line, remote, local| {
            let exchange = [(4, line.dice.bytes(256)), (10, line.dice.bytes(32))];
            [&exchange[..], &self.nat_d(remote, local)].concat()
        };
        let ours = keys(line, far, (line.device, 500));
        let theirs = keys(line, near, far);
        let (request, answer) =
            (self.message(500, 2, 0, 0, chain(&ours)), self.message(500, 2, 0, 0, chain(&theirs)));
        if !line.ask(&request, &answer, &AGAIN) {
            return false;
        }
        let ours = self.secret(line, 2, 1, 0, 28 + 72);
        let theirs = self.secret(line, 2, 1, 0, 28 + 72);
        (line.ask(&Self::identity(ours), &Self::identity(theirs), &AGAIN)) && self.quick(line)
    }

    /// The encrypted messages of main mode begin with an identification payload.
    fn identity(mut message: Message) -> Message {
        let at = if message.server_port == 4500 { 20 } else { 16 };
        message.body[at] = 5;
        message
    }

    fn aggressive(&mut self, line: &mut Line) -> bool {
        let vendors = if self.nat_t { vec![Self::vendor()] } else { Vec::new() };
        let keys =
            [(4, line.dice.bytes(128)), (10, line.dice.bytes(20)), (5, b"\x0b\x11\x01\xf4group".to_vec())];
        let request = [&[self.security_association()], &keys[..], &vendors].concat();
        let request = self.message(500, 4, 0, 0, chain(&request));
        self.spis[1] = line.dice.array();
        let (near, far) = self.ends(line);
        let keys = [
            (4, line.dice.bytes(128)),
            (10, line.dice.bytes(20)),
            (5, vec![1, 17, 1, 244, 198, 51, 100, 10]),
        ];
        let hash = [(8, line.dice.bytes(20))];
        let answer =
            [&[self.security_association()], &keys[..], &hash, &vendors, &self.nat_d(near, far)].concat();
        let answer = self.message(500, 4, 0, 0, chain(&answer));
        if !line.ask(&request, &answer, &AGAIN) {
            return false;
        }
        let third = self.secret(line, 4, 1, 0, 28 + 72);
        line.out(&third);
        line.wait(2);
        self.quick(line)
    }

    /// How each side knows the device and the server.
    fn ends(&self, line: &Line) -> ((IpAddr, u16), (IpAddr, u16)) {
        ((line.wan, line.wan_port(500)), (line.server, 500))
    }

    fn quick(&mut self, line: &mut Line) -> bool {
        let number = line.dice.id();
        let (ours, theirs) =
            (self.secret(line, 32, 1, number, 28 + 168), self.secret(line, 32, 1, number, 28 + 168));
        if !line.ask(&ours, &theirs, &AGAIN) {
            return false;
        }
        line.wait(1);
        let third = self.secret(line, 32, 1, number, 28 + 32);
        line.out(&third);
        true
    }

    fn sa_init(&mut self, line: &mut Line) -> bool {
        let keys = [(34, [&[0, 14, 0, 0][..], &line.dice.bytes(256)].concat()), (40, line.dice.bytes(32))];
        let ours =
            [&[self.security_association()], &keys[..], &self.nat_d((line.server, 500), (line.device, 500))];
        let request = self.message(500, 34, 8, 0, chain(&ours.concat()));
        if line.dice.one_in(4) {
            // A server under load wants a cookie first (RFC 7296 section 2.6).
            let cookie = self.message(500, 34, 0x20, 0, chain(&[Self::notify(16390, &[7; 20])]));
            if !line.ask(&request, &cookie, &AGAIN) {
                return false;
            }
        }
        let request = self.message(500, 34, 8, 0, chain(&ours.concat()));
        self.spis[1] = line.dice.array();
        let (near, far) = self.ends(line);
        let keys = [(34, [&[0, 14, 0, 0][..], &line.dice.bytes(256)].concat()), (40, line.dice.bytes(32))];
        let theirs = [&[self.security_association()], &keys[..], &self.nat_d(near, far)];
        let answer = self.message(500, 34, 0x20, 0, chain(&theirs.concat()));
        line.ask(&request, &answer, &AGAIN)
    }

    /// IKE_AUTH with its rounds.
    fn auth(&mut self, line: &mut Line) -> bool {
        let rounds: &[(usize, usize)] = match self.login {
            Login::V2Psk => &[(304, 240)],
            Login::V2Eap => &[(420, 1220), (92, 124), (148, 140), (84, 84), (108, 232)],
            Login::V2EapBig => &[(420, 1900), (92, 124), (148, 140), (84, 84), (108, 232)],
            Login::Main | Login::Aggressive => &[],
        };
        rounds.iter().all(|&(ours, theirs)| self.request(line, 35, ours, theirs))
    }

    /// An exchange that the device begins.
    pub(crate) fn request(&mut self, line: &mut Line, exchange: u8, ours: usize, theirs: usize) -> bool {
        self.number[0] += 1;
        let (request, answer) = (
            self.secret(line, exchange, 0x08, self.number[0], ours),
            self.secret(line, exchange, 0x20, self.number[0], theirs),
        );
        line.ask(&request, &answer, &AGAIN)
    }

    /// An exchange that the server begins.
    pub(crate) fn served(&mut self, line: &mut Line, exchange: u8, theirs: usize, ours: usize) -> bool {
        let request = self.secret(line, exchange, 0, self.number[1], theirs);
        let answer = self.secret(line, exchange, 0x28, self.number[1], ours);
        self.number[1] += 1;
        line.asked(&request, &answer, &AGAIN)
    }

    /// Is the other side there?
    pub(crate) fn dpd(&mut self, line: &mut Line, by_device: bool) {
        if self.login.version() == 0x10 {
            let (a, b) = (line.dice.id(), line.dice.id());
            let (ask, answer) = (self.secret(line, 5, 1, a, 92), self.secret(line, 5, 1, b, 92));
            let pauses = [5_000, 5_000, 5_000];
            if by_device {
                line.ask(&ask, &answer, &pauses)
            } else {
                line.asked(&ask, &answer, &pauses)
            };
        } else if by_device {
            self.request(line, 37, 76, 76);
        } else {
            self.served(line, 37, 76, 76);
        }
    }

    /// New keys for ESP; the old ones are deleted.
    pub(crate) fn rekey(&mut self, line: &mut Line, by_device: bool) {
        if self.login.version() == 0x10 {
            if by_device {
                self.quick(line);
            } else {
                let number = line.dice.id();
                let [a, b, c] = [196, 196, 60].map(|len| self.secret(line, 32, 1, number, len));
                if line.asked(&a, &b, &AGAIN) {
                    line.back(&c);
                }
            }
        } else if by_device {
            self.request(line, 36, 284, 212);
        } else {
            self.served(line, 36, 284, 212);
        }
        self.esp = [(line.dice.id(), 0), (line.dice.id(), 0)];
        self.data(line, 1, 20);
        if self.login.version() == 0x10 {
            let number = line.dice.id();
            let delete = self.secret(line, 5, 1, number, 76);
            line.out(&delete);
        } else {
            self.request(line, 37, 76, 76);
        }
    }

    /// New keys for IKE itself (RFC 7296 section 1.3.2); the old SA is deleted, ESP goes on.
    pub(crate) fn renew(&mut self, line: &mut Line) {
        self.request(line, 36, 500, 420);
        let spis = [line.dice.array(), line.dice.array()];
        self.request(line, 37, 76, 76);
        (self.spis, self.number) = (spis, [u32::MAX, 0]);
        line.wait(500);
        self.number[0] = 0;
        let (ask, answer) = (self.secret(line, 37, 8, 0, 76), self.secret(line, 37, 0x20, 0, 76));
        line.wait(8_000);
        line.ask(&ask, &answer, &AGAIN);
    }

    /// The device's address changed: RFC 4555.
    pub(crate) fn mobike(&mut self, line: &mut Line) -> bool {
        self.request(line, 37, 140, 140)
    }

    /// The device says goodbye.
    pub(crate) fn close(&mut self, line: &mut Line) {
        if self.login.version() == 0x10 {
            for len in [76, 92] {
                let number = line.dice.id();
                let delete = self.secret(line, 5, 1, number, len);
                line.out(&delete);
                line.wait(3);
            }
        } else {
            self.request(line, 37, 76, 76);
        }
    }

    /// A packet of ESP with so many bytes behind its two numbers.
    pub(crate) fn esp_packet(&mut self, line: &mut Line, outbound: bool, len: usize) -> Message {
        let (spi, sequence) = &mut self.esp[usize::from(!outbound)];
        *sequence += 1;
        let mut body = [spi.to_be_bytes(), sequence.to_be_bytes()].concat();
        body.extend(line.dice.bytes(len));
        if self.nat_t { Message::udp(4500, 4500, body) } else { Message::other(50, body) }
    }

    /// Somebody uses it: requests and their answers, so many a second.
    pub(crate) fn data(&mut self, line: &mut Line, seconds: u64, a_second: u64) {
        let end = line.now + seconds * 1_000_000;
        while line.now < end {
            let small = usize::try_from(line.dice.between(4, 20)).unwrap() * 8;
            let out = self.esp_packet(line, true, small);
            if line.out(&out) {
                line.travel();
                for _ in 0..line.dice.between(1, 4) {
                    let large = usize::try_from(line.dice.between(4, 170)).unwrap() * 8;
                    let back = self.esp_packet(line, false, large);
                    line.back(&back);
                    line.now += 400;
                }
            }
            line.wait_about(1_000 / a_second);
        }
    }

    pub(crate) fn keepalives(&mut self, line: &mut Line, count: u64) {
        for _ in 0..count {
            line.wait_about(20_000);
            if self.nat_t {
                line.out(&Message::udp(4500, 4500, vec![0xff]));
            }
        }
    }

    /// A refusal in the place of the last answer of the login: short, and the device gives up.
    pub(crate) fn wrong_password(&mut self, line: &mut Line) -> bool {
        if !self.sa_init(line) {
            return false;
        }
        let rounds: &[(usize, usize)] = if self.login == Login::V2Psk {
            &[(304, 76)]
        } else {
            &[(420, 1220), (92, 124), (148, 140), (84, 76)]
        };
        rounds.iter().all(|&(ours, theirs)| self.request(line, 35, ours, theirs))
    }

    /// As [`Self::connect`] in version 2, with rounds of these lengths.
    pub(crate) fn connect_with(&mut self, line: &mut Line, rounds: &[(usize, usize)]) -> bool {
        self.sa_init(line) && rounds.iter().all(|&(ours, theirs)| self.request(line, 35, ours, theirs))
    }

    /// A first message that nobody reads.
    pub(crate) fn first(&mut self, line: &mut Line) -> Message {
        let keys = [(34, [&[0, 14, 0, 0][..], &line.dice.bytes(256)].concat()), (40, line.dice.bytes(32))];
        self.message(500, 34, 8, 0, chain(&[&[self.security_association()], &keys[..]].concat()))
    }

    /// The server answers the first message with a notification.
    pub(crate) fn refused(&mut self, line: &mut Line, notify: u16) {
        if self.login.version() == 0x20 {
            let request = self.first(line);
            let answer = self.message(500, 34, 0x20, 0, chain(&[Self::notify(notify, &[])]));
            line.ask(&request, &answer, &AGAIN);
        } else {
            let request = self.message(500, 2, 0, 0, chain(&[self.security_association(), Self::vendor()]));
            let body = [&[0, 0, 0, 1, 1, 0][..], &notify.to_be_bytes()].concat();
            let number = line.dice.id();
            let answer = self.message(500, 5, 0, number, chain(&[(11, body)]));
            line.ask(&request, &answer, &AGAIN);
        }
    }
}
