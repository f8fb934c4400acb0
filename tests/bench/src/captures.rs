//! How fast a capture file is read into a household: libpcap, link layer, IP and diagnosis together.

use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use diagnosis::{Settings, Vantage};
use natd::capture_file::{self, Progress};

use crate::clock;
use crate::sample::{Samples, verdict};

/// Makes a capture of `packets` packets and reads it five times.
pub(crate) fn print(packets: u32) {
    let path = std::env::temp_dir().join(format!("natd-bench-{}.pcap", std::process::id()));
    let remove = Remove(path);
    write(&remove.0, packets).expect("there is room for the capture");
    let bytes = std::fs::metadata(&remove.0).expect("just written").len();
    let before = resident();
    let rates: Samples = (0..5).map(|_| read(&remove.0, packets)).collect();
    println!(
        "| {packets} packets, {} MB, Ethernet | packets/s, median (min..max) of 5 | target | kept |",
        bytes / 1_000_000
    );
    println!("|---|---|---|---|");
    let kept = verdict(rates.median() >= 1e6);
    println!("| 90 % TCP and UDP of 500 hosts, the rest VPNs | {rates} | ≥ 1000000 | {kept} |");
    println!("\nload average {}; {} kB more memory at the end", load(), resident().saturating_sub(before));
}

/// Packets a second.
fn read(path: &Path, packets: u32) -> f64 {
    let settings = Settings {
        events: false,
        lan: Vec::new(),
        pairs: 1024,
        memory: Duration::from_secs(3600),
        vantage: Vantage { lan: true, wan: false, router: false, dns: true },
        servers: Vec::new(),
    };
    let begin = clock::now();
    let mut bar = capture_file::Bar::default();
    let read = capture_file::read(path, settings, &mut |progress: Progress| bar.show(progress));
    let read = read.expect("the capture can be read");
    let took = begin.elapsed();
    assert_eq!((read.packets, read.ip_packets), (u64::from(packets), u64::from(packets)));
    assert_eq!(read.remark, None);
    f64::from(packets) / took.as_secs_f64()
}

fn write(path: &Path, packets: u32) -> std::io::Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    for word in [0xa1b2_c3d4_u32, 0x0004_0002, 0, 0, 65_535, 1] {
        file.write_all(&word.to_le_bytes())?;
    }
    let mut dice = Dice(1);
    for number in 0..packets {
        let frame = frame(&mut dice, number);
        let len = frame.len() as u32;
        for word in [1_700_000_000 + number / 20_000, number % 20_000 * 50, len, len] {
            file.write_all(&word.to_le_bytes())?;
        }
        file.write_all(&frame)?;
    }
    file.flush()
}

/// One of 20 devices with one of 500 hosts, or with one of four VPN servers.
fn frame(dice: &mut Dice, number: u32) -> Vec<u8> {
    let kind = dice.below(100);
    let device = [192, 168, 1, 10 + dice.below(20) as u8];
    let remote = match kind {
        0..90 => [203, 0, (dice.below(2)) as u8, dice.below(250) as u8],
        _ => [198, 51, 100, 1 + dice.below(4) as u8],
    };
    let device_port = 40_000 + u16::from(device[3]) * 8 + dice.below(8) as u16;
    let size = [0, 40, 300, 1300, 1300][dice.below(5) as usize];
    let (protocol, server_port) = match kind {
        0..60 => (6, 443),
        60..85 => (17, 443),
        85..90 => (17, 53),
        90..94 => (50, 0),
        94..97 => (17, 51_820),
        97..99 => (17, 4500),
        _ => (17, 500),
    };
    let inbound = dice.below(2) == 1;
    let (src, dst) = if inbound { (remote, device) } else { (device, remote) };
    let ports = if inbound { [server_port, device_port] } else { [device_port, server_port] };
    let mut body: Vec<u8> = Vec::new();
    match protocol {
        6 => {
            body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
            body.extend(number.to_be_bytes());
            body.extend([0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0]);
        }
        17 => {
            body.extend(ports.iter().flat_map(|port| port.to_be_bytes()));
            body.extend([0, 0, 0, 0]);
        }
        _ => body.extend([0xc0, 0, 0, device[3]]),
    }
    match server_port {
        0 => body.extend(number.to_be_bytes()),
        51_820 => body.extend([4, 0, 0, 0, 1, 2, 3, device[3], number as u8, 0, 0, 0, 0, 0, 0, 0]),
        4500 => body.extend([0xc0, 0, 1, device[3], 0, 0, 0, number as u8]),
        500 => {
            body.extend([1, 2, 3, 4, 5, 6, 7, device[3], 0, 0, 0, 0, 0, 0, 0, 0, 33, 0x20, 34, 8]);
            body.extend([0, 0, 0, 0, 0, 0, 0, 28]);
        }
        _ => {}
    }
    if server_port != 500 {
        // WireGuard's data is padded to 16 bytes.
        body.resize(body.len() + size / 16 * 16 + 16, 0x5a);
    }
    if protocol == 17 {
        let len = (body.len() as u16).to_be_bytes();
        body[4..6].copy_from_slice(&len);
    }
    let total = (body.len() as u16 + 20).to_be_bytes();
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0, 0x45, 0, total[0], total[1]];
    frame.extend((number as u16).to_be_bytes());
    frame.extend([0x40, 0, 64, protocol, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
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
