//! Devices with VPN sessions behind one engine, and servers that answer them.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::InterfaceAddress;
use nat_core::flow::Direction::{self, Inbound, Outbound};
use nat_core::time::Timestamp;
use natd::engine::Engine;
use passthrough::Passthrough;
use passthrough::settings::{Access, Settings};

use super::wire::{self, Port};
use crate::conversation::{WAN, Way, nat, translate};
use crate::packets::{ACK, SYN};

/// What a session is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// UDP that is nothing special, for comparison.
    Udp,
    /// A pair of ESP SPIs, agreed upon by IKEv2 on port 500.
    Esp,
    /// A PPTP call.
    Pptp,
    /// An L2TP tunnel over UDP.
    L2tp,
}

/// Whose server is whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Servers {
    /// One for all sessions.
    Shared,
    /// One for each.
    Own,
}

/// A session that is up.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Session {
    kind: Kind,
    device: Ipv4Addr,
    server: Ipv4Addr,
    /// What the device and the server call each other: ports, SPIs or Call IDs.
    device_id: u32,
    server_id: u32,
    /// What the device is called on the WAN.
    outside: u32,
    seq: u32,
}

/// Length of the packets that are decided upon.
pub(crate) const LEN: usize = 64;

impl Session {
    /// The next packet in `direction`, as the engine sees it arrive.
    pub(crate) fn next(&mut self, direction: Direction) -> Vec<u8> {
        self.seq += 1;
        let (src, dst, id) = match direction {
            Outbound => (self.device, self.server, self.server_id),
            Inbound => (self.server, WAN, self.outside),
        };
        match (self.kind, direction) {
            (Kind::Esp, _) => wire::esp(src, dst, id, self.seq, LEN),
            (Kind::Pptp, _) => wire::pptp_gre(src, dst, id as u16, self.seq, LEN),
            (Kind::Udp | Kind::L2tp, Outbound) => {
                wire::udp((src, self.device_id as u16), (dst, self.server_id as u16), &[0; LEN - 28])
            }
            (Kind::Udp | Kind::L2tp, Inbound) => {
                wire::udp((src, self.server_id as u16), (dst, self.outside as u16), &[0; LEN - 28])
            }
        }
    }

    /// The server's address.
    pub(crate) const fn server(&self) -> Ipv4Addr {
        self.server
    }

    /// Both sides use new SPIs, here with one number, from now on.
    pub(crate) fn renew(&mut self, spi: u32) {
        (self.device_id, self.server_id, self.outside, self.seq) = (spi, spi, spi, 0);
    }

    /// Is `packet` what one in `direction` must look like behind the engine?
    pub(crate) fn fits(&self, direction: Direction, packet: &[u8]) -> bool {
        let [src, dst] = wire::ends(packet);
        let ends = match direction {
            Outbound => (src.0, dst.0) == (WAN, self.server),
            Inbound => (src.0, dst.0) == (self.server, self.device),
        };
        let id = match (self.kind, direction) {
            (Kind::Pptp, Inbound) => u32::from(wire::word(packet, 26)) == self.device_id,
            (Kind::Udp, Inbound) => u32::from(dst.1) == self.device_id,
            _ => true,
        };
        ends && id && wire::is_intact(packet)
    }
}

/// An engine with sessions.
pub(crate) struct Household {
    pub(crate) engine: Engine,
    pub(crate) now: Timestamp,
    pub(crate) sessions: Vec<Session>,
    servers: Servers,
    /// PPTP: so many calls on each control connection, all with equal Call IDs where `equal_ids`.
    calls: u32,
    equal_ids: bool,
    control: Option<Control>,
}

/// A control connection of PPTP.
struct Control {
    device: Port,
    server: Port,
    external: Port,
    seq: [u32; 2],
    calls: u32,
}

impl Household {
    /// Nobody there yet. `calls`: of PPTP on each control connection.
    pub(crate) fn new(servers: Servers, calls: u32, equal_ids: bool) -> Self {
        let settings = Settings {
            pptp: Access { on: true, devices: Vec::new(), servers: Vec::new() },
            ..Settings::default()
        };
        let mut engine = Engine::new(nat(), Passthrough::new(settings));
        engine.nat.set_lan(vec![InterfaceAddress { addr: Ipv4Addr::new(192, 168, 0, 1), prefix: 16 }]);
        let now = Timestamp::from_secs(1000);
        Self { engine, now, sessions: Vec::new(), servers, calls, equal_ids, control: None }
    }

    /// As many sessions of `kind`, all up and at rest for a while.
    pub(crate) fn with(kind: Kind, count: u32, servers: Servers, calls: u32, equal_ids: bool) -> Self {
        let mut this = Self::new(servers, calls, equal_ids);
        for _ in 0..count {
            this.open(kind);
        }
        this.rest();
        this
    }

    /// Long enough for conntrack to know every flow, not for anything to end.
    pub(crate) fn rest(&mut self) {
        self.now = self.now + Duration::from_secs(10);
    }

    fn server(&self, n: u32) -> Ipv4Addr {
        let at = if self.servers == Servers::Shared { 1 } else { n + 1 };
        Ipv4Addr::from(0xc612_0000 + at) // RFC 2544
    }

    /// Opens one more session, by all the packets that this takes.
    pub(crate) fn open(&mut self, kind: Kind) {
        let n = self.sessions.len() as u32;
        let (device, server) = (device(n), self.server(n));
        self.now = self.now + Duration::from_millis(50);
        let session = Session { kind, device, server, device_id: 0, server_id: 0, outside: 0, seq: 0 };
        let session = match kind {
            Kind::Udp => self.open_udp(Session { device_id: 40_000, server_id: 443, ..session }),
            Kind::Esp => self.open_esp(n, session),
            Kind::Pptp => self.open_call(n, session),
            Kind::L2tp => self.open_tunnel(n, session),
        };
        self.sessions.push(session);
        for direction in [Outbound, Inbound, Outbound, Inbound] {
            if kind != Kind::L2tp {
                let mut packet = self.sessions[n as usize].next(direction);
                self.pass(direction, &mut packet);
                assert!(self.sessions[n as usize].fits(direction, &packet), "{kind:?} {n}: {packet:?}");
            }
        }
    }

    /// A packet through the engine.
    fn pass(&mut self, direction: Direction, packet: &mut [u8]) {
        translate(&mut self.engine, Way::Daemon, self.now, direction, packet);
        while self.engine.nat.poll_effect().is_some() {}
    }

    /// A datagram from the device, and the port that it leaves by.
    fn send(&mut self, session: &Session, port: Port, data: &[u8]) -> u16 {
        let mut packet = wire::udp((session.device, port.1), (session.server, port.1), data);
        self.pass(Outbound, &mut packet);
        wire::ends(&packet)[0].1
    }

    fn receive(&mut self, session: &Session, port: u16, external: u16, data: &[u8]) {
        let mut packet = wire::udp((session.server, port), (WAN, external), data);
        self.pass(Inbound, &mut packet);
        assert_eq!(wire::ends(&packet)[1].0, session.device, "an answer reaches another device");
    }

    fn open_udp(&mut self, session: Session) -> Session {
        let mut packet = { session }.next(Outbound);
        self.pass(Outbound, &mut packet);
        Session { outside: wire::ends(&packet)[0].1.into(), ..session }
    }

    /// IKE_SA_INIT and IKE_AUTH (RFC 7296 section 1.2) with a server that knows nothing of NAT.
    fn open_esp(&mut self, n: u32, session: Session) -> Session {
        const PORT: u16 = 500;
        let spi = 0x1000_0000_0000_0001 + u64::from(n);
        let responder = spi | 1 << 63;
        for (exchange, id, known) in [(34, 0, 0), (35, 1, responder)] {
            let external =
                self.send(&session, (session.device, PORT), &wire::ike(spi, known, exchange, 0x08, id));
            assert_eq!(external, PORT, "port 500 is shared");
            self.now = self.now + Duration::from_millis(20);
            self.receive(&session, PORT, external, &wire::ike(spi, responder, exchange, 0x20, id));
        }
        let inbound = 0x2000_0000 + n.wrapping_mul(0x9e37) % 0x1000_0000;
        Session { device_id: inbound, outside: inbound, server_id: 0x5000_0000 + n, ..session }
    }

    /// SCCRQ, SCCRP and SCCCN (RFC 2661 section 5.1).
    fn open_tunnel(&mut self, n: u32, session: Session) -> Session {
        const PORT: u16 = 1701;
        let (own, peer) = (1 + n as u16, 0x4000 + n as u16);
        let at = (session.device, PORT);
        let external = self.send(&session, at, &wire::l2tp_message(0, (0, 0), 1, Some(own)));
        self.receive(&session, PORT, external, &wire::l2tp_message(own, (0, 1), 2, Some(peer)));
        self.send(&session, at, &wire::l2tp_message(peer, (1, 1), 3, None));
        self.receive(&session, PORT, external, &wire::l2tp_message(own, (1, 2), 6, None));
        Session { device_id: PORT.into(), server_id: PORT.into(), outside: external.into(), ..session }
    }

    /// A call (RFC 2637 section 3), on a control connection that is opened for it where the last one is full.
    fn open_call(&mut self, n: u32, session: Session) -> Session {
        let full = self.control.as_ref().is_none_or(|control| control.calls >= self.calls);
        if full {
            self.dial(device(n / self.calls), session.server);
        }
        let Some(mut control) = self.control.take() else { return session };
        let id = if self.equal_ids { (control.calls as u16) << 8 } else { n as u16 };
        let theirs = 0x8000 + n as u16;
        let request = wire::pptp_message(7, 168, &[(12, id), (14, id)]);
        let request = self.say(&mut control, Outbound, ACK, &request);
        let name = wire::word(&request, 40 + 12);
        let reply = wire::pptp_message(8, 32, &[(12, theirs), (14, name), (16, 0x0100)]);
        let reply = self.say(&mut control, Inbound, ACK, &reply);
        assert_eq!(wire::word(&reply, 40 + 14), id, "the reply names another call");
        self.say(&mut control, Outbound, ACK, &[]);
        control.calls += 1;
        let (device, server) = (control.device.0, control.server.0);
        self.control = Some(control);
        let (device_id, server_id, outside) = (id.into(), theirs.into(), name.into());
        Session { device, server, device_id, server_id, outside, ..session }
    }

    fn dial(&mut self, device: Ipv4Addr, server: Ipv4Addr) {
        let (device, server) = ((device, 40_000), (server, 1723));
        let mut control = Control { device, server, external: (WAN, 0), seq: [1000, 2000], calls: 0 };
        self.say(&mut control, Outbound, SYN, &[]);
        self.say(&mut control, Inbound, SYN | ACK, &[]);
        self.say(&mut control, Outbound, ACK, &[]);
        self.say(&mut control, Outbound, ACK, &wire::pptp_message(1, 156, &[(12, 0x0100)]));
        self.say(&mut control, Inbound, ACK, &wire::pptp_message(2, 156, &[(12, 0x0100), (14, 0x0100)]));
        self.say(&mut control, Outbound, ACK, &[]);
        self.control = Some(control);
    }

    /// A segment of a control connection; answers how it left the engine.
    fn say(&mut self, control: &mut Control, direction: Direction, flags: u8, data: &[u8]) -> Vec<u8> {
        let [ours, theirs] = control.seq;
        let (src, dst, seq, ack) = match direction {
            Outbound => (control.device, control.server, ours, theirs),
            Inbound => (control.server, control.external, theirs, ours),
        };
        let ack = if flags & ACK == 0 { 0 } else { ack };
        let mut packet = wire::tcp(src, dst, flags, seq, ack, data);
        self.pass(direction, &mut packet);
        let own = &mut control.seq[usize::from(direction == Inbound)];
        *own += data.len() as u32 + u32::from(flags & SYN != 0);
        if direction == Outbound {
            control.external = wire::ends(&packet)[0];
        }
        packet
    }
}

/// The `n`th device.
fn device(n: u32) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1 + (n / 200) as u8, 10 + (n % 200) as u8)
}
