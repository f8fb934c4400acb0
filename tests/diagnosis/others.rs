//! PPTP, L2TP, WireGuard, OpenVPN and what is no VPN, as their programs talk.

use crate::net::{Line, Message};

const SYN: u8 = 2;
const ACK: u8 = 16;

/// A TCP connection.
pub(crate) struct Tcp {
    ports: (u16, u16),
    /// Next sequence numbers, the device's and the server's.
    seq: [u32; 2],
}

impl Tcp {
    pub(crate) fn open(line: &mut Line, port: u16) -> Option<Self> {
        let ports = (u16::try_from(line.dice.between(32_768, 60_000)).unwrap(), port);
        let mut tcp = Self { ports, seq: [line.dice.id() / 2, line.dice.id() / 2] };
        let (syn, answer) = (tcp.segment(true, SYN, &[]), tcp.segment(false, SYN | ACK, &[]));
        if !line.ask(&syn, &answer, &[1_000, 2_000, 4_000, 8_000, 16_000]) {
            return None;
        }
        tcp.seq = tcp.seq.map(|seq| seq + 1);
        line.out(&tcp.segment(true, ACK, &[]));
        Some(tcp)
    }

    /// Nobody listens there.
    pub(crate) fn refused(line: &mut Line, port: u16) {
        let ports = (u16::try_from(line.dice.between(32_768, 60_000)).unwrap(), port);
        let mut tcp = Self { ports, seq: [line.dice.id() / 2, 0] };
        for _ in 0..3 {
            let syn = tcp.segment(true, SYN, &[]);
            line.out(&syn);
            line.travel();
            tcp.seq[0] += 1;
            let reset = tcp.segment(false, ACK | 4, &[]);
            line.back(&reset);
            tcp.seq[0] -= 1;
            line.wait(500);
        }
    }

    pub(crate) fn segment(&self, outbound: bool, flags: u8, body: &[u8]) -> Message {
        let [ours, theirs] = self.seq;
        let (seq, ack) = if outbound { (ours, theirs) } else { (theirs, ours) };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        Message {
            protocol: 6,
            device_port: self.ports.0,
            server_port: self.ports.1,
            tcp: Some((seq, ack, flags)),
            body: body.to_vec(),
        }
    }

    fn advance(&mut self, outbound: bool, len: usize) {
        self.seq[usize::from(!outbound)] += u32::try_from(len).unwrap();
    }

    /// The device says something and the server answers.
    pub(crate) fn ask(&mut self, line: &mut Line, request: &[u8], answer: &[u8]) -> bool {
        let request_segment = self.segment(true, ACK | 8, request);
        self.advance(true, request.len());
        let answer_segment = self.segment(false, ACK | 8, answer);
        let answered = line.ask(&request_segment, &answer_segment, &[400, 900, 2_000, 4_000, 8_000]);
        if answered {
            self.advance(false, answer.len());
            line.out(&self.segment(true, ACK, &[]));
        }
        answered
    }

    pub(crate) fn say(&mut self, line: &mut Line, outbound: bool, body: &[u8]) {
        let segment = self.segment(outbound, ACK | 8, body);
        if outbound {
            line.out(&segment)
        } else {
            line.back(&segment)
        };
        self.advance(outbound, body.len());
        let acknowledgement = self.segment(!outbound, ACK, &[]);
        line.now += 1_000;
        if outbound {
            line.back(&acknowledgement)
        } else {
            line.out(&acknowledgement)
        };
    }

    pub(crate) fn close(&mut self, line: &mut Line) {
        let fin = self.segment(true, ACK | 1, &[]);
        self.seq[0] += 1;
        let answer = self.segment(false, ACK | 1, &[]);
        line.ask(&fin, &answer, &[500, 1_000, 2_000]);
        self.seq[1] += 1;
        line.out(&self.segment(true, ACK, &[]));
    }
}

/// A call of PPTP.
pub(crate) struct Pptp {
    control: Tcp,
    /// Call IDs: the device's and the server's.
    calls: [u16; 2],
    sequence: [u32; 2],
}

/// A control message of RFC 2637: type, whole length, and what stands at which place.
fn pptp(kind: u16, len: usize, fields: &[(usize, u16)]) -> Vec<u8> {
    let mut bytes = vec![0; len];
    let length = u16::try_from(len).unwrap();
    let fixed = [(0, length), (2, 1), (4, 0x1a2b), (6, 0x3c4d), (8, kind)];
    for &(at, value) in fixed.iter().chain(fields) {
        bytes[at..at + 2].copy_from_slice(&value.to_be_bytes());
    }
    bytes
}

impl Pptp {
    /// The control connection and the call.
    pub(crate) fn call(line: &mut Line) -> Option<Self> {
        let mut control = Tcp::open(line, 1723)?;
        let calls = [0, 1].map(|_| u16::try_from(line.dice.between(1, 0xffff)).unwrap());
        line.wait(3);
        let start = (pptp(1, 156, &[(12, 0x100)]), pptp(2, 156, &[(12, 0x100), (14, 0x100)]));
        if !control.ask(line, &start.0, &start.1) {
            return None;
        }
        line.wait(30);
        let reply = [(12, calls[1]), (14, calls[0]), (16, 0x100)];
        if !control.ask(line, &pptp(7, 168, &[(12, calls[0])]), &pptp(8, 32, &reply)) {
            return None;
        }
        control.say(
            line,
            true,
            &pptp(15, 24, &[(12, calls[1]), (16, 0xffff), (18, 0xffff), (20, 0xffff), (22, 0xffff)]),
        );
        Some(Self { control, calls, sequence: [0, 0] })
    }

    fn gre(&mut self, outbound: bool, ppp: &[u8]) -> Message {
        let call = self.calls[usize::from(outbound)];
        let side = usize::from(!outbound);
        let mut bytes = vec![0x30, 0x01, 0x88, 0x0b];
        bytes.extend(u16::try_from(ppp.len()).unwrap().to_be_bytes());
        bytes.extend(call.to_be_bytes());
        bytes.extend(self.sequence[side].to_be_bytes());
        bytes.extend(ppp);
        self.sequence[side] += 1;
        Message::other(47, bytes)
    }

    /// A packet of PPP's control protocols with code and identifier.
    fn ppp(protocol: u16, code: u8, id: u8, body: &[u8]) -> Vec<u8> {
        let length = u16::try_from(4 + body.len()).unwrap().to_be_bytes();
        [&[0xff, 3], &protocol.to_be_bytes()[..], &[code, id], &length, body].concat()
    }

    /// Both sides' Configure-Requests and Acks. Did they come through?
    fn negotiate(&mut self, line: &mut Line, protocol: u16, options: &[u8]) -> bool {
        for round in 0..10 {
            let sent = line.now;
            let request = self.gre(true, &Self::ppp(protocol, 1, round, options));
            if line.out(&request) {
                line.travel();
                let theirs = self.gre(false, &Self::ppp(protocol, 1, round, options));
                let ack = self.gre(false, &Self::ppp(protocol, 2, round, options));
                let heard = [line.back(&theirs), line.back(&ack)] == [true; 2];
                line.wait(2);
                let answer = self.gre(true, &Self::ppp(protocol, 2, round, options));
                if heard && line.out(&answer) {
                    return true;
                }
            }
            line.now = sent + 3_000_000;
        }
        false
    }

    /// LCP, MS-CHAP and what follows it.
    pub(crate) fn login(&mut self, line: &mut Line, right: bool) -> bool {
        const LCP: u16 = 0xc021;
        if !self.negotiate(line, LCP, &[1, 4, 5, 120, 3, 5, 0xc2, 0x23, 0x81, 5, 6, 1, 2, 3, 4]) {
            return false;
        }
        line.wait(20);
        let challenge = self.gre(false, &Self::ppp(0xc223, 1, 1, &[16; 22]));
        line.back(&challenge);
        line.wait(5);
        let (code, words): (u8, &[u8]) =
            if right { (3, b"S=00 M=ok") } else { (4, b"E=691 R=0 C=00 V=3 M=no") };
        let response = self.gre(true, &Self::ppp(0xc223, 2, 1, &[49; 54]));
        let verdict = self.gre(false, &Self::ppp(0xc223, code, 1, words));
        if !line.ask(&response, &verdict, &[3_000; 5]) {
            return false;
        }
        line.wait(10);
        if !right {
            let (ask, answer) = (Self::ppp(LCP, 5, 9, b"bye"), Self::ppp(LCP, 6, 9, &[]));
            let (ask, answer) = (self.gre(false, &ask), self.gre(true, &answer));
            line.asked(&ask, &answer, &[3_000; 2]);
            return true;
        }
        self.negotiate(line, 0x80fd, &[18, 6, 1, 0, 0, 0x40])
            && self.negotiate(line, 0x8021, &[3, 6, 10, 0, 0, 2])
    }

    pub(crate) fn data(&mut self, line: &mut Line, seconds: u64, a_second: u64) {
        let end = line.now + seconds * 1_000_000;
        while line.now < end {
            let body = [&[0xff, 3, 0, 0xfd][..], &line.dice.bytes(100)].concat();
            let out = self.gre(true, &body);
            if line.out(&out) {
                line.travel();
                for _ in 0..line.dice.between(1, 3) {
                    let body = [&[0xff, 3, 0, 0xfd][..], &line.dice.bytes(600)].concat();
                    let back = self.gre(false, &body);
                    line.back(&back);
                    line.now += 500;
                }
            }
            line.wait_about(1_000 / a_second);
        }
    }

    /// Minutes of nothing but echoes on both layers.
    pub(crate) fn quiet(&mut self, line: &mut Line, minutes: u64) {
        for minute in 0..minutes {
            line.wait_about(30_000);
            let id = u8::try_from(minute).unwrap();
            let (ask, answer) = (Self::ppp(0xc021, 9, id, &[0; 4]), Self::ppp(0xc021, 10, id, &[0; 4]));
            let (ask, answer) = (self.gre(false, &ask), self.gre(true, &answer));
            line.asked(&ask, &answer, &[3_000; 3]);
            line.wait_about(30_000);
            self.control.ask(line, &pptp(5, 16, &[(14, 7)]), &pptp(6, 20, &[(14, 7), (16, 0x100)]));
        }
    }

    pub(crate) fn close(&mut self, line: &mut Line) {
        let (ask, answer) = (Self::ppp(0xc021, 5, 9, b"bye"), Self::ppp(0xc021, 6, 9, &[]));
        let (ask, answer) = (self.gre(true, &ask), self.gre(false, &answer));
        line.ask(&ask, &answer, &[3_000; 2]);
        self.hang_up(line);
    }

    pub(crate) fn hang_up(&mut self, line: &mut Line) {
        let calls = self.calls;
        self.control.ask(
            line,
            &pptp(12, 16, &[(12, calls[0])]),
            &pptp(13, 148, &[(12, calls[1]), (14, 0x100)]),
        );
        self.control.ask(line, &pptp(3, 16, &[(12, 0x100)]), &pptp(4, 16, &[(12, 0x100)]));
        self.control.close(line);
    }
}

/// A tunnel of L2TP without IPsec.
pub(crate) struct L2tp {
    tunnels: [u16; 2],
    sessions: [u16; 2],
    numbers: [u16; 2],
    port: u16,
}

const L2TP_AGAIN: [u64; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];

impl L2tp {
    pub(crate) fn new(line: &mut Line) -> Self {
        let mut ids = || [0, 1].map(|_| u16::try_from(line.dice.between(1, 0xffff)).unwrap());
        Self { tunnels: ids(), sessions: ids(), numbers: [0, 0], port: 1701 }
    }

    fn avp(kind: u16, value: &[u8]) -> Vec<u8> {
        let head = 0x8000 | u16::try_from(6 + value.len()).unwrap();
        [&head.to_be_bytes(), &[0, 0], &kind.to_be_bytes()[..], value].concat()
    }

    fn control(
        &mut self,
        outbound: bool,
        (tunnel, session): (u16, u16),
        kind: u16,
        avps: &[Vec<u8>],
    ) -> Message {
        let side = usize::from(!outbound);
        let avps =
            if kind == 0 { Vec::new() } else { [Self::avp(0, &kind.to_be_bytes()), avps.concat()].concat() };
        let length = u16::try_from(12 + avps.len()).unwrap();
        let head = [0xc802, length, tunnel, session, self.numbers[side], self.numbers[1 - side]];
        if kind != 0 {
            self.numbers[side] += 1;
        }
        Message::udp(self.port, 1701, [head.map(u16::to_be_bytes).concat(), avps].concat())
    }

    pub(crate) fn connect(&mut self, line: &mut Line) -> bool {
        let ([near, far], [mine, its]) = (self.tunnels, self.sessions);
        let common = |id: u16| {
            vec![
                Self::avp(2, &[1, 0]),
                Self::avp(7, b"host"),
                Self::avp(3, &[0, 0, 0, 3]),
                Self::avp(9, &id.to_be_bytes()),
            ]
        };
        let request = self.control(true, (0, 0), 1, &common(near));
        let answer = self.control(false, (near, 0), 2, &common(far));
        if !line.ask(&request, &answer, &L2TP_AGAIN) {
            return false;
        }
        let connected = self.control(true, (far, 0), 3, &[]);
        line.out(&connected);
        line.wait(2);
        let call = self.control(
            true,
            (far, 0),
            10,
            &[Self::avp(14, &mine.to_be_bytes()), Self::avp(15, &[0, 0, 0, 1])],
        );
        let reply = self.control(false, (near, mine), 11, &[Self::avp(14, &its.to_be_bytes())]);
        if !line.ask(&call, &reply, &L2TP_AGAIN) {
            return false;
        }
        let connected =
            self.control(true, (far, its), 12, &[Self::avp(24, &[0, 1, 0, 0]), Self::avp(19, &[0, 0, 0, 1])]);
        line.out(&connected);
        line.travel();
        let zlb = self.control(false, (near, 0), 0, &[]);
        line.back(&zlb);
        true
    }

    fn packet(&self, outbound: bool, ppp: &[u8]) -> Message {
        let side = usize::from(outbound);
        let head = [0x0002, self.tunnels[side], self.sessions[side]].map(u16::to_be_bytes).concat();
        Message::udp(self.port, 1701, [&head, ppp].concat())
    }

    pub(crate) fn negotiate(&mut self, line: &mut Line) {
        for (protocol, options) in
            [(0xc021_u16, &[1, 4, 5, 120, 5, 6, 1, 2, 3, 4][..]), (0x8021, &[3, 6, 10, 0, 0, 2])]
        {
            let ask = Pptp::ppp(protocol, 1, 1, options);
            let ack = Pptp::ppp(protocol, 2, 1, options);
            let (ask_out, ack_back) = (self.packet(true, &ask), self.packet(false, &ack));
            line.ask(&ask_out, &ack_back, &[3_000; 5]);
            let (ask_back, ack_out) = (self.packet(false, &ask), self.packet(true, &ack));
            line.asked(&ask_back, &ack_out, &[3_000; 5]);
            if protocol == 0xc021 {
                let (challenge, response) =
                    (Pptp::ppp(0xc223, 1, 1, &[8; 22]), Pptp::ppp(0xc223, 2, 1, &[9; 54]));
                let (challenge, response) = (self.packet(false, &challenge), self.packet(true, &response));
                line.asked(&challenge, &response, &[3_000; 5]);
                let success = self.packet(false, &Pptp::ppp(0xc223, 3, 1, b"S=00 M=ok"));
                line.back(&success);
                line.wait(3);
            }
        }
    }

    pub(crate) fn data(&mut self, line: &mut Line, seconds: u64, a_second: u64) {
        let end = line.now + seconds * 1_000_000;
        while line.now < end {
            let body = [&[0, 0x21, 0x45][..], &line.dice.bytes(80)].concat();
            let (out, back) = (self.packet(true, &body), self.packet(false, &body));
            if line.out(&out) {
                line.travel();
                line.back(&back);
            }
            line.wait_about(1_000 / a_second);
        }
    }

    /// Minutes of HELLO.
    pub(crate) fn quiet(&mut self, line: &mut Line, minutes: u64) {
        for minute in 0..minutes {
            line.wait_about(60_000);
            let (near, far) = (self.tunnels[0], self.tunnels[1]);
            if minute % 2 == 0 {
                let hello = self.control(true, (far, 0), 6, &[]);
                let zlb = self.control(false, (near, 0), 0, &[]);
                line.ask(&hello, &zlb, &L2TP_AGAIN);
            } else {
                let hello = self.control(false, (near, 0), 6, &[]);
                let zlb = self.control(true, (far, 0), 0, &[]);
                line.asked(&hello, &zlb, &L2TP_AGAIN);
            }
        }
    }

    pub(crate) fn close(&mut self, line: &mut Line) {
        let stop = self.control(
            true,
            (self.tunnels[1], 0),
            4,
            &[Self::avp(9, &self.tunnels[0].to_be_bytes()), Self::avp(1, &[0, 1])],
        );
        let zlb = self.control(false, (self.tunnels[0], 0), 0, &[]);
        line.ask(&stop, &zlb, &L2TP_AGAIN);
    }
}

/// A WireGuard tunnel.
pub(crate) struct WireGuard {
    ports: (u16, u16),
    indices: [u32; 2],
    counters: [u64; 2],
}

impl WireGuard {
    pub(crate) fn new(line: &mut Line) -> Self {
        let port = u16::try_from(line.dice.between(20_000, 60_000)).unwrap();
        Self { ports: (port, 51_820), indices: [0, 0], counters: [0, 0] }
    }

    fn message(&self, body: Vec<u8>) -> Message {
        Message::udp(self.ports.0, self.ports.1, body)
    }

    /// A handshake, again every five seconds and a little, each time a new one.
    pub(crate) fn handshake(&mut self, line: &mut Line, tries: u64) -> bool {
        for _ in 0..tries {
            let sent = line.now;
            self.indices = [line.dice.id(), line.dice.id()];
            let [mine, its] = self.indices.map(u32::to_le_bytes);
            let initiation = [&[1, 0, 0, 0], &mine[..], &line.dice.bytes(124), &[0; 16]].concat();
            let response = [&[2, 0, 0, 0], &its[..], &mine, &line.dice.bytes(64), &[0; 16]].concat();
            if line.out(&self.message(initiation)) {
                line.travel();
                if line.back(&self.message(response)) {
                    self.counters = [0, 0];
                    let keepalive = self.packet(line, true, 0);
                    line.out(&keepalive);
                    return true;
                }
            }
            line.now = sent + 5_000_000 + line.dice.between(0, 333_000);
        }
        false
    }

    pub(crate) fn packet(&mut self, line: &mut Line, outbound: bool, len: usize) -> Message {
        let index = self.indices[usize::from(outbound)].to_le_bytes();
        let counter = &mut self.counters[usize::from(!outbound)];
        let head = [&[4, 0, 0, 0], &index[..], &counter.to_le_bytes()].concat();
        *counter += 1;
        self.message([head, line.dice.bytes(len + 16)].concat())
    }

    /// Use, with new keys every two minutes.
    pub(crate) fn data(&mut self, line: &mut Line, seconds: u64, a_second: u64) {
        let end = line.now + seconds * 1_000_000;
        let mut keys = line.now;
        while line.now < end {
            if line.now - keys > 120_000_000 {
                keys = line.now;
                self.handshake(line, 18);
            }
            let out = self.packet(line, true, 96);
            if line.out(&out) {
                line.travel();
                let len = usize::try_from(line.dice.between(2, 90)).unwrap() * 16;
                let back = self.packet(line, false, len);
                line.back(&back);
            }
            line.wait_about(1_000 / a_second);
        }
    }

    /// PersistentKeepalive every 25 seconds: data counts as sent, so new keys come every two minutes.
    pub(crate) fn keepalives(&mut self, line: &mut Line, minutes: u64) {
        let mut keys = line.now;
        for _ in 0..minutes * 60 / 25 {
            line.wait(25_000);
            if line.now - keys > 120_000_000 {
                keys = line.now;
                self.handshake(line, 18);
            } else {
                let keepalive = self.packet(line, true, 0);
                line.out(&keepalive);
            }
        }
    }
}

/// An OpenVPN session, without tls-auth.
pub(crate) struct OpenVpn {
    sessions: [[u8; 8]; 2],
    numbers: [u32; 2],
    sequence: [u32; 2],
    port: u16,
    tcp: Option<Tcp>,
}

impl OpenVpn {
    pub(crate) fn new(line: &mut Line, tcp: bool) -> Option<Self> {
        let tcp = if tcp { Some(Tcp::open(line, 1194)?) } else { None };
        let port = u16::try_from(line.dice.between(30_000, 60_000)).unwrap();
        Some(Self {
            sessions: [line.dice.array(), line.dice.array()],
            numbers: [0, 0],
            sequence: [0, 0],
            port,
            tcp,
        })
    }

    /// Opcode, key, what it acknowledges, TLS.
    fn control(&mut self, outbound: bool, opcode: u8, key: u8, acks: &[u32], len: Option<usize>) -> Vec<u8> {
        let side = usize::from(!outbound);
        let mut bytes = vec![opcode << 3 | key];
        bytes.extend(self.sessions[side]);
        bytes.push(u8::try_from(acks.len()).unwrap());
        bytes.extend(acks.iter().flat_map(|ack| ack.to_be_bytes()));
        if !acks.is_empty() {
            bytes.extend(self.sessions[1 - side]);
        }
        if let Some(len) = len {
            bytes.extend(self.numbers[side].to_be_bytes());
            self.numbers[side] += 1;
            bytes.extend(std::iter::repeat_n([22, 3, 1, 0], len / 4).flatten());
        }
        bytes
    }

    fn send(&mut self, line: &mut Line, outbound: bool, bytes: &[u8]) -> bool {
        if let Some(tcp) = &mut self.tcp {
            let framed = [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat();
            tcp.say(line, outbound, &framed);
            return true;
        }
        let message = Message::udp(self.port, 1194, bytes.to_vec());
        if outbound { line.out(&message) } else { line.back(&message) }
    }

    /// The device says something until it is answered.
    fn ask(&mut self, line: &mut Line, request: &[u8], answer: &[u8], pauses: &[u64]) -> bool {
        for pause in pauses {
            let sent = line.now;
            if self.send(line, true, request) {
                line.travel();
                if self.send(line, false, answer) {
                    return true;
                }
            }
            line.now = sent + pause * 1000;
        }
        false
    }

    pub(crate) fn connect(&mut self, line: &mut Line) -> bool {
        const RESETS: [u64; 5] = [2_000, 4_000, 8_000, 16_000, 32_000];
        self.numbers = [0, 0];
        let (reset, answer) =
            (self.control(true, 7, 0, &[], Some(0)), self.control(false, 8, 0, &[0], Some(0)));
        self.ask(line, &reset, &answer, &RESETS) && self.keys(line, 0)
    }

    /// TLS, a few messages each way.
    fn keys(&mut self, line: &mut Line, key: u8) -> bool {
        const AGAIN: [u64; 5] = [1_000, 2_000, 4_000, 8_000, 16_000];
        let ack = self.control(true, 5, key, &[0], None);
        self.send(line, true, &ack);
        for (ours, theirs) in [(280, 1100), (1000, 200), (400, 300)] {
            let (mine, its) = (self.numbers[0], self.numbers[1]);
            let request = self.control(true, 4, key, &[], Some(ours));
            let answer = self.control(false, 4, key, &[mine], Some(theirs));
            if !self.ask(line, &request, &answer, &AGAIN) {
                return false;
            }
            let ack = self.control(true, 5, key, &[its], None);
            self.send(line, true, &ack);
        }
        true
    }

    /// `--keepalive 10 60`, both ways.
    pub(crate) fn pings(&mut self, line: &mut Line, count: u64) {
        for _ in 0..count {
            line.wait_about(10_000);
            for outbound in [true, false] {
                self.sequence[usize::from(outbound)] += 1;
                let number = self.sequence[usize::from(outbound)].to_be_bytes();
                let bytes = [&[9 << 3, 0, 0, 1], &number[..], &line.dice.bytes(32)].concat();
                self.send(line, outbound, &bytes);
            }
        }
    }

    pub(crate) fn renew(&mut self, line: &mut Line) {
        self.numbers = [0, 0];
        let (reset, answer) =
            (self.control(true, 3, 1, &[], Some(0)), self.control(false, 3, 1, &[0], Some(0)));
        self.ask(line, &reset, &answer, &[2_000, 4_000, 8_000]);
        self.keys(line, 1);
    }

    pub(crate) fn data(&mut self, line: &mut Line, seconds: u64, a_second: u64) {
        let end = line.now + seconds * 1_000_000;
        while line.now < end {
            for (outbound, len) in [(true, 100), (false, 700)] {
                self.sequence[usize::from(outbound)] += 1;
                let number = self.sequence[usize::from(outbound)].to_be_bytes();
                let bytes = [&[9 << 3, 0, 0, 1], &number[..], &line.dice.bytes(len)].concat();
                if !self.send(line, outbound, &bytes) {
                    break;
                }
                line.travel();
            }
            line.wait_about(1_000 / a_second);
        }
    }
}

/// What else happens at home: websites that work, reset and hang, names that do not exist.
pub(crate) fn web(line: &mut Line, visits: u64) {
    let servers: [[u8; 4]; 3] = [[192, 0, 2, 80], [192, 0, 2, 81], [198, 51, 100, 80]];
    let home = line.server;
    for visit in 0..visits {
        line.wait_about(7_000);
        if line.device.is_ipv4() {
            line.server = [9, 9, 9, 9].into();
            let name: &[u8] = if visit % 3 == 0 {
                b"\x05nonex\x07example\x03org\0"
            } else {
                b"\x03www\x07example\x03org\0"
            };
            let id = line.dice.id().to_be_bytes();
            let question = [&id[..2], &[1, 0, 0, 1, 0, 0, 0, 0, 0, 0], name, &[0, 1, 0, 1]].concat();
            let code = if visit % 3 == 0 { 0x83 } else { 0x80 };
            let mut answer =
                [&id[..2], &[0x81, code, 0, 1, 0, u8::from(code == 0x80), 0, 0, 0, 0], name, &[0, 1, 0, 1]]
                    .concat();
            if code == 0x80 {
                answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 192, 0, 2, 80]);
            }
            let port = u16::try_from(line.dice.between(30_000, 60_000)).unwrap();
            line.ask(&Message::udp(port, 53, question), &Message::udp(port, 53, answer), &[2_000; 3]);
            line.server = servers[usize::try_from(visit % 3).unwrap()].into();
        } else {
            let last = 0x80 + u16::try_from(visit % 3).unwrap();
            line.server = std::net::Ipv6Addr::new(0x2001, 0xdb8, 0xfe, 0, 0, 0, 0, last).into();
        }
        let Some(mut tcp) = Tcp::open(line, 443) else { continue };
        let hello = hello(line);
        match visit % 4 {
            0 | 1 => {
                tcp.ask(line, &hello, &[&[22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3][..], &[5; 74]].concat());
                tcp.say(line, true, &[23; 120]);
                tcp.say(line, false, &[23; 900]);
                tcp.close(line);
            }
            2 => {
                tcp.ask(line, &hello, &[&[22, 3, 3, 0, 80, 2, 0, 0, 76, 3, 3][..], &[5; 74]].concat());
                line.wait(100);
                line.back(&tcp.segment(false, ACK | 4, &[]));
            }
            _ => {
                for pause in [300, 600, 1200] {
                    line.out(&tcp.segment(true, ACK | 8, &hello));
                    line.wait(pause);
                }
                line.out(&tcp.segment(true, 4, &[]));
            }
        }
    }
    line.server = home;
}

/// A ClientHello without a name.
fn hello(line: &mut Line) -> Vec<u8> {
    let body = [&[3, 3][..], &line.dice.bytes(32), &[0, 0, 2, 0x13, 1, 1, 0]].concat();
    let length = u8::try_from(body.len()).unwrap();
    [&[22, 3, 1, 0, length + 4, 1, 0, 0, length], &body[..]].concat()
}
