//! ESP and PPTP's GRE of known sessions beside UDP packets of the same size on the same way through natd.
//!
//! All three leave from raw sockets and arrive at a packet socket; rules at both ends then drop them, so that no
//! kernel answers "port unreachable". So what is around natd is the same for all, and the same in every round.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::time::Duration;

use super::lab::{Kind, Lab, SERVER};
use super::load::{Way, closed_loop};
use super::sys;
use crate::clock;
use crate::sample::{Samples, short, verdict};
use crate::vpn::wire;

const PACKETS: u64 = 30_000;
const WINDOW: u64 = 256;
const PATIENCE: Duration = Duration::from_millis(500);
const SIZES: [usize; 2] = [200, 1400];
const DEVICE: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
const WAN: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 2);
/// Ports, SPIs and Call IDs, by whom they name.
const UDP_PORT: u16 = 40_000;
const SERVER_PORT: u16 = 9010;
const DEVICE_SPI: u32 = 0x2000_0001;
const SERVER_SPI: u32 = 0x5000_0001;
const DEVICE_CALL: u16 = 7;
const SERVER_CALL: u16 = 1007;

/// What the endpoints' own kernels do not get to see.
const DEAF: &str = r#"
table ip deaf {
    chain prerouting {
        type filter hook prerouting priority raw; policy accept;
        ip protocol { udp, esp, gre } drop
    }
}
"#;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Udp,
    Esp,
    Gre,
}

const PROTOCOLS: [Protocol; 3] = [Protocol::Udp, Protocol::Esp, Protocol::Gre];

/// Nanoseconds per packet: the daemon's, and everyone's.
type Figures = [f64; 2];

/// Both ends, and what the NAT calls the device.
struct Ends<'a> {
    lab: &'a Lab,
    client: (OwnedFd, OwnedFd),
    server: (OwnedFd, OwnedFd),
    external_port: u16,
    call_name: u16,
    /// Keeps the call alive.
    _control: [TcpStream; 2],
}

/// Runs `rounds` rounds and prints the table.
///
/// # Errors
/// Says which step failed; everything that was set up is taken down all the same.
pub(crate) fn compare(program: PathBuf, rounds: u16) -> io::Result<()> {
    let lab = Lab::build("v", &Kind::NatdPptp(program))?;
    let mut ends = Ends::new(&lab)?;
    let cases: Vec<(usize, Way)> =
        SIZES.into_iter().flat_map(|size| [(size, Way::Up), (size, Way::Down)]).collect();
    let mut results: Vec<Vec<[Figures; 3]>> = cases.iter().map(|_| Vec::new()).collect();
    for round in 0..=rounds {
        for (&(size, way), results) in cases.iter().zip(&mut results) {
            let mut row = [[f64::NAN; 2]; 3];
            let mut order = [0, 1, 2];
            if round % 2 == 1 {
                order.reverse();
            }
            for at in order {
                row[at] = ends.measure(PROTOCOLS[at], way, size)?;
            }
            if round > 0 {
                results.push(row);
            }
        }
    }
    println!(
        "| known session through natd | CPU of | UDP, ns/packet | ESP | GRE | ESP × UDP (min..max) | GRE × UDP (min..max) | target | kept |"
    );
    println!("|---|---|---|---|---|---|---|---|---|");
    for (&(size, way), results) in cases.iter().zip(&results) {
        for (which, whose) in ["natd", "all"].into_iter().enumerate() {
            print(size, way, whose, results.iter().map(|row| row.map(|figures| figures[which])).collect());
        }
    }
    Ok(())
}

fn print(size: usize, way: Way, whose: &str, rows: Vec<[f64; 3]>) {
    let median = |at: usize| short(rows.iter().map(|row| row[at]).collect::<Samples>().median());
    let ratios = |at: usize| rows.iter().map(|row| row[at] / row[0]).collect::<Samples>();
    let (esp, gre) = (ratios(1), ratios(2));
    let kept = esp.median() <= 1.1 && gre.median() <= 1.1;
    println!(
        "| {size} bytes {} | {whose} | {} | {} | {} | {esp} | {gre} | ≤ 1.1 | {} |",
        if way == Way::Up { "up" } else { "down" },
        median(0),
        median(1),
        median(2),
        verdict(kept)
    );
}

impl<'a> Ends<'a> {
    /// Brings up one session of each kind.
    fn new(lab: &'a Lab) -> io::Result<Self> {
        lab.nft_in("client", DEAF)?;
        lab.nft_in("server", DEAF)?;
        let end = |role: &str, to: Ipv4Addr| {
            sys::within(&lab.name(role), || {
                let tap = sys::tap(PATIENCE)?;
                sys::set_receive_buffer(&tap, 16 << 20)?;
                Ok((sys::raw_sender(to)?, tap))
            })
        };
        let (client, server) = (end("client", SERVER.into())?, end("server", WAN)?);
        let (control, call_name) = dial(lab)?;
        let mut ends = Self { lab, client, server, external_port: 0, call_name, _control: control };
        // The device speaks first: that makes a mapping, and opens the gate for the server's SPI.
        for protocol in PROTOCOLS {
            let seen = ends.try_one(protocol, Way::Up)?;
            if protocol == Protocol::Udp {
                ends.external_port = wire::ends(&seen)[0].1;
            }
            ends.try_one(protocol, Way::Down)?;
        }
        // Until conntrack is sure to know every flow, packets go by copies.
        clock::pause(Duration::from_millis(500));
        Ok(ends)
    }

    fn packet(&self, protocol: Protocol, way: Way, seq: u32, size: usize) -> Vec<u8> {
        let server = Ipv4Addr::from(SERVER);
        match (protocol, way) {
            (Protocol::Udp, Way::Up) => {
                wire::udp((DEVICE, UDP_PORT), (server, SERVER_PORT), &vec![0; size - 28])
            }
            (Protocol::Udp, Way::Down) => {
                wire::udp((server, SERVER_PORT), (WAN, self.external_port), &vec![0; size - 28])
            }
            (Protocol::Esp, Way::Up) => wire::esp(DEVICE, server, SERVER_SPI, seq, size),
            (Protocol::Esp, Way::Down) => wire::esp(server, WAN, DEVICE_SPI, seq, size),
            (Protocol::Gre, Way::Up) => wire::pptp_gre(DEVICE, server, SERVER_CALL, seq, size),
            (Protocol::Gre, Way::Down) => wire::pptp_gre(server, WAN, self.call_name, seq, size),
        }
    }

    const fn sockets(&self, way: Way) -> (&OwnedFd, &OwnedFd) {
        match way {
            Way::Up => (&self.client.0, &self.server.1),
            Way::Down => (&self.server.0, &self.client.1),
        }
    }

    /// One packet, as it arrives.
    fn try_one(&self, protocol: Protocol, way: Way) -> io::Result<[u8; 64]> {
        let (sender, tap) = self.sockets(way);
        let number = match protocol {
            Protocol::Udp => wire::UDP,
            Protocol::Esp => wire::ESP,
            Protocol::Gre => wire::GRE,
        };
        sys::send_packets(sender, &mut [self.packet(protocol, way, 1, 200)])?;
        loop {
            let seen = sys::receive(tap).map_err(|error| {
                io::Error::other(format!("{protocol:?} {way:?} does not arrive: {error}"))
            })?;
            if seen[9] == number {
                return Ok(seen);
            }
        }
    }

    fn measure(&mut self, protocol: Protocol, way: Way, size: usize) -> io::Result<Figures> {
        let (sender, tap) = self.sockets(way);
        let mut packets: Vec<Vec<u8>> =
            (0..sys::BATCH as u32).map(|n| self.packet(protocol, way, 2 + n, size)).collect();
        let mut seq = 2 + sys::BATCH as u32;
        let cost = closed_loop(self.lab, tap, PACKETS, WINDOW, || {
            if protocol != Protocol::Udp {
                let at = if protocol == Protocol::Esp { 24 } else { 28 };
                for packet in &mut packets {
                    packet[at..at + 4].copy_from_slice(&seq.to_be_bytes());
                    seq += 1;
                }
            }
            sys::send_packets(sender, &mut packets)
        })?;
        if cost.arrived < PACKETS {
            return Err(io::Error::other(format!(
                "{protocol:?} {way:?}: {} of {PACKETS} arrive",
                cost.arrived
            )));
        }
        Ok([cost.daemon, cost.cpu].map(|time| time.as_nanos() as f64 / cost.arrived as f64))
    }
}

/// A call over a real control connection; the connection, and the Call ID by which the server knows the device.
fn dial(lab: &Lab) -> io::Result<([TcpStream; 2], u16)> {
    let address = SocketAddrV4::new(SERVER.into(), 1723);
    let listener = sys::within(&lab.name("server"), || TcpListener::bind(address))?;
    let mut device = sys::within(&lab.name("client"), || {
        TcpStream::connect_timeout(&address.into(), Duration::from_secs(3))
    })?;
    let mut server = listener.accept()?.0;
    for stream in [&device, &server] {
        stream.set_read_timeout(Some(Duration::from_secs(3)))?;
    }
    pass(&mut device, &mut server, &wire::pptp_message(1, 156, &[(12, 0x0100)]))?;
    pass(&mut server, &mut device, &wire::pptp_message(2, 156, &[(12, 0x0100), (14, 0x0100)]))?;
    let request = wire::pptp_message(7, 168, &[(12, DEVICE_CALL), (14, DEVICE_CALL)]);
    let name = wire::word(&pass(&mut device, &mut server, &request)?, 12);
    let reply = wire::pptp_message(8, 32, &[(12, SERVER_CALL), (14, name), (16, 0x0100)]);
    pass(&mut server, &mut device, &reply)?;
    Ok(([device, server], name))
}

fn pass(from: &mut TcpStream, to: &mut TcpStream, message: &[u8]) -> io::Result<Vec<u8>> {
    from.write_all(message)?;
    let mut came = vec![0; message.len()];
    to.read_exact(&mut came)?;
    Ok(came)
}
