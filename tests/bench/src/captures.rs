//! How fast a capture file is read into a household: libpcap, link layer, IP and diagnosis together.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use diagnosis::{Settings, Vantage};
use natd::capture_file::{self, Progress};

use crate::sample::{Samples, verdict};

/// What a capture is made of, and how fast it has to be read, in packets a second.
const MIXES: [(&str, f64, Mix); 8] = [
    ("90 % TCP and UDP of 500 hosts, the rest VPNs", 1e6, home),
    ("VPNs alone: ESP, WireGuard, IKE, OpenVPN, TLS", 1e6, vpns),
    ("IKE, each packet to another server", 2e5, pairs),
    ("SYN, each packet to another server", 2e5, syns),
    ("fragments, each of another datagram", 2e5, fragments),
    ("ESP in UDP, each packet from another port, inside and beyond the NAT", 2e5, crossings),
    ("questions for names of VPNs, each another", 2e5, names),
    ("ICMP errors about IKE", 2e5, errors),
];

type Mix = fn(&mut Dice, u32) -> Vec<u8>;

/// Makes captures of `packets` packets and reads each five times.
pub(crate) fn print(packets: u32) {
    let path = std::env::temp_dir().join(format!("natd-bench-{}.pcap", std::process::id()));
    let remove = Remove(path);
    println!(
        "| {packets} packets, Ethernet | MB | packets/s of CPU time, median (min..max) of 5 | target | kept |"
    );
    println!("|---|---|---|---|---|");
    let mut before = None;
    for (name, target, mix) in MIXES {
        write(&remove.0, packets, mix).expect("there is room for the capture");
        let megabytes = std::fs::metadata(&remove.0).expect("just written").len() / 1_000_000;
        before = before.or(Some(resident()));
        let rates: Samples = (0..5).map(|_| read(&remove.0, packets)).collect();
        let kept = verdict(rates.median() >= target);
        println!("| {name} | {megabytes} | {rates} | ≥ {target} | {kept} |");
    }
    let more = resident().saturating_sub(before.unwrap_or(0));
    println!("\nload average {}; {more} kB more memory at the end", load());
}

/// Packets a second of the processor's time, which what else runs does not change much.
fn read(path: &Path, packets: u32) -> f64 {
    let settings = Settings {
        events: false,
        lan: Vec::new(),
        pairs: 1024,
        memory: Duration::from_secs(3600),
        vantage: Vantage { lan: true, wan: false, router: false, dns: true },
        servers: Vec::new(),
    };
    let begin = busy();
    let mut bar = capture_file::Bar::default();
    let read = capture_file::read(path, settings, &mut |progress: Progress| bar.show(progress));
    let read = read.expect("the capture can be read");
    let took = busy() - begin;
    assert_eq!((read.packets, read.ip_packets), (u64::from(packets), u64::from(packets)));
    assert_eq!(read.remark, None);
    f64::from(packets) / took
}

fn write(path: &Path, packets: u32, mix: Mix) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    let mut dice = Dice(1);
    for number in 0..packets {
        let frame = mix(&mut dice, number);
        let len = frame.len() as u32;
        for word in [1_700_000_000 + number / 20_000, number % 20_000 * 50, len, len] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame)?;
    }
    file.flush()
}

/// One of 20 devices with one of 500 hosts, or with one of four VPN servers.
fn home(dice: &mut Dice, number: u32) -> Vec<u8> {
    let kind = dice.below(100);
    if kind >= 90 {
        return vpn(dice, number, [90..94, 94..97, 97..99, 99..100].map(|share| share.contains(&kind)));
    }
    let (device, remote) = (device(dice), [203, 0, dice.below(2) as u8, dice.below(250) as u8]);
    let port = 40_000 + u16::from(device[3]) * 8 + dice.below(8) as u16;
    let inbound = dice.below(2) == 1;
    match kind {
        0..60 => {
            between((device, port), (remote, 443), inbound, |ports| tcp(ports, number, 0x10, padding(dice)))
        }
        60..85 => between((device, port), (remote, 443), inbound, |ports| udp(ports, padding(dice))),
        _ => between((device, port), (remote, 53), inbound, |ports| udp(ports, padding(dice))),
    }
}

/// One of 20 devices with one of four VPN servers.
fn vpns(dice: &mut Dice, number: u32) -> Vec<u8> {
    let kind = dice.below(100);
    if kind < 70 {
        return vpn(dice, number, [0..30, 30..50, 50..65, 65..70].map(|share| share.contains(&kind)));
    }
    let (device, server) = (device(dice), server(dice));
    let inbound = dice.below(2) == 1;
    let port = 40_000 + u16::from(device[3]);
    if kind < 85 {
        let data = [vec![0x48, 0, 0, 1], number.to_be_bytes().to_vec(), padding(dice)].concat();
        return between((device, port), (server, 1194), inbound, |ports| udp(ports, data));
    }
    // A connection begins every now and then.
    match dice.below(50) {
        0 => between((device, port), (server, 443), false, |ports| tcp(ports, number, 2, Vec::new())),
        1 => between((device, port), (server, 443), false, |ports| tcp(ports, number, 0x18, hello())),
        _ => between((device, port), (server, 443), inbound, |ports| tcp(ports, number, 0x10, padding(dice))),
    }
}

/// ESP, WireGuard, ESP in UDP, or else IKE.
fn vpn(dice: &mut Dice, number: u32, [esp, wireguard, in_udp, _ike]: [bool; 4]) -> Vec<u8> {
    let (device, server) = (device(dice), server(dice));
    let inbound = dice.below(2) == 1;
    let spi = [0xc0, 0, u8::from(in_udp), device[3]];
    let data = [spi.to_vec(), number.to_be_bytes().to_vec(), padding(dice)].concat();
    let port = 40_000 + u16::from(device[3]);
    if esp {
        let (src, dst) = if inbound { (server, device) } else { (device, server) };
        ip(src, dst, [number as u16, 0x4000], &(50, data))
    } else if wireguard {
        let head = [4, 0, 0, 0, 1, 2, 3, device[3], number as u8, 0, 0, 0, 0, 0, 0, 0];
        let data = [head.to_vec(), padding(dice)].concat();
        between((device, port), (server, 51_820), inbound, |ports| udp(ports, data))
    } else if in_udp {
        between((device, port), (server, 4500), inbound, |ports| udp(ports, data))
    } else {
        between((device, port), (server, 500), inbound, |ports| udp(ports, ike(u32::from(device[3]))))
    }
}

fn pairs(dice: &mut Dice, number: u32) -> Vec<u8> {
    between((device(dice), 500), (other(number), 500), false, |ports| udp(ports, ike(number)))
}

fn syns(dice: &mut Dice, number: u32) -> Vec<u8> {
    let port = 1024 + (number % 60_000) as u16;
    between((device(dice), port), (other(number), 443), false, |ports| tcp(ports, number, 2, Vec::new()))
}

/// First and later fragments in turn, which do not belong together.
fn fragments(dice: &mut Dice, number: u32) -> Vec<u8> {
    let field = if number % 2 == 0 { 0x2000 } else { 100 };
    ip(device(dice), server(dice), [number as u16, field], &udp((500, 500), ike(number % 100)))
}

/// Each packet inside, then beyond.
fn crossings(_: &mut Dice, number: u32) -> Vec<u8> {
    let (inside, port) = (number % 2 == 0, (number / 2 % 60_000) as u16);
    let data = [vec![0xc0, 0, 1, 2], (number / 2).to_be_bytes().to_vec(), vec![0x5a; 40]].concat();
    let src = if inside { [192, 168, 1, 10] } else { [198, 51, 100, 200] };
    let ports = (if inside { 4500 } else { 1024 + port }, 4500);
    let mut frame = ip(src, [198, 51, 100, 1], [(number / 2) as u16, 0x4000], &udp(ports, data));
    frame[22] -= u8::from(!inside);
    frame
}

fn names(dice: &mut Dice, number: u32) -> Vec<u8> {
    let mut question = vec![0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, b'v', b'p', b'n', 10];
    question.extend(format!("{number:010}").bytes());
    question.extend([7, b'e', b'x', b'a', b'm', b'p', b'l', b'e', 0, 0, 1, 0, 1]);
    between((device(dice), 40_000), ([203, 0, 113, 53], 53), false, |ports| udp(ports, question))
}

/// About what every eighth packet sends.
fn errors(dice: &mut Dice, number: u32) -> Vec<u8> {
    let about =
        between((device(dice), 500), (server(dice), 500), false, |ports| udp(ports, ike(number % 100)));
    if number % 8 == 0 {
        return about;
    }
    let mut error = vec![3, 1, 0, 0, 0, 0, 0, 0];
    error.extend(about.get(14..).unwrap_or_default());
    ip([203, 0, 113, 1], [192, 168, 1, 10], [number as u16, 0], &(1, error))
}

fn device(dice: &mut Dice) -> [u8; 4] {
    [192, 168, 1, 10 + dice.below(20) as u8]
}

fn server(dice: &mut Dice) -> [u8; 4] {
    [198, 51, 100, 1 + dice.below(4) as u8]
}

/// Another one for each number.
fn other(number: u32) -> [u8; 4] {
    let [_, a, b, c] = number.to_be_bytes();
    [80 + (number >> 24) as u8, a, b, c]
}

/// An IKE_SA_INIT request without payloads.
fn ike(spi: u32) -> Vec<u8> {
    let mut message = vec![1, 2, 3, 4];
    message.extend(spi.to_be_bytes());
    message.extend([0, 0, 0, 0, 0, 0, 0, 0, 33, 0x20, 34, 8, 0, 0, 0, 0, 0, 0, 0, 28]);
    message
}

/// A ClientHello for "vpn.example".
fn hello() -> Vec<u8> {
    let name = b"vpn.example";
    let mut hello = vec![0x16, 3, 1, 0, 70, 1, 0, 0, 66, 3, 3];
    hello.extend([7; 32]);
    hello.extend([0, 0, 2, 0x13, 1, 1, 0, 0, name.len() as u8 + 9, 0, 0, 0, name.len() as u8 + 5]);
    hello.extend([0, name.len() as u8 + 3, 0, 0, name.len() as u8]);
    hello.extend(name);
    hello
}

/// WireGuard's data is padded to 16 bytes.
fn padding(dice: &mut Dice) -> Vec<u8> {
    let size = [0, 40, 300, 1300, 1300][dice.below(5) as usize];
    vec![0x5a; size / 16 * 16 + 16]
}

type End = ([u8; 4], u16);

/// A protocol and what is behind the IP header.
type Body = (u8, Vec<u8>);

fn between(device: End, server: End, inbound: bool, body: impl FnOnce((u16, u16)) -> Body) -> Vec<u8> {
    let (from, to) = if inbound { (server, device) } else { (device, server) };
    ip(from.0, to.0, [0, 0x4000], &body((from.1, to.1)))
}

fn tcp((from, to): (u16, u16), sequence: u32, flags: u8, payload: Vec<u8>) -> Body {
    let mut body = [from.to_be_bytes(), to.to_be_bytes()].concat();
    body.extend(sequence.to_be_bytes());
    body.extend([0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    (6, [body, payload].concat())
}

fn udp((from, to): (u16, u16), payload: Vec<u8>) -> Body {
    let length = payload.len() as u16 + 8;
    let head = [from, to, length, 0].map(u16::to_be_bytes).concat();
    (17, [head, payload].concat())
}

/// In an Ethernet frame. `words` are the identification and the fragment field.
fn ip(src: [u8; 4], dst: [u8; 4], words: [u16; 2], (protocol, body): &Body) -> Vec<u8> {
    let total = (body.len() as u16 + 20).to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1]];
    frame.extend(words.map(u16::to_be_bytes).concat());
    frame.extend([64, *protocol, 0, 0]);
    frame.extend(src.into_iter().chain(dst));
    frame.extend(body);
    frame
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// Seconds that this thread has run.
fn busy() -> f64 {
    let text = std::fs::read_to_string("/proc/thread-self/schedstat").expect("Linux counts them");
    let nanos: f64 = text.split(' ').next().and_then(|word| word.parse().ok()).expect("the first number");
    nanos / 1e9
}

fn load() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').next().unwrap_or_default().to_owned()
}

/// Resident memory in kB.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.and_then(|line| line.split_whitespace().next()?.parse().ok()).unwrap_or(0)
}

/// Deletes its file at the end.
struct Remove(PathBuf);

impl Drop for Remove {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}
