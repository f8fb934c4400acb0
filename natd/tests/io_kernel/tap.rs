//! Taps in a real kernel: the filter is the one that natd uses.

use std::net::{IpAddr, Ipv4Addr, UdpSocket};
use std::os::fd::AsRawFd;
use std::time::Duration;

use diagnosis::Packet;
use nat_core::time::Timestamp;
use natd::io::clock;
use natd::io::tap::{Copied, Tap};

use super::lab::{LAN, Lab, Namespace, PATIENCE, SILENCE, WAN, possible};

fn open(namespace: &Namespace, name: &str) -> Tap {
    let line = namespace.run(&format!("ip -o link show {name}"));
    let index = line.split(':').next().unwrap().trim().parse().unwrap();
    namespace.enter(|| Tap::open(index)).unwrap()
}

/// What the tap gets within `limit`: until there is something, then all that is there.
fn copies(tap: &Tap, limit: Duration) -> Vec<(Copied, Vec<u8>)> {
    let (mut buffer, mut all) = ([0; 2048], Vec::new());
    wait(tap, limit);
    while let Some(copied) = tap.next(&mut buffer).unwrap() {
        all.push((copied, buffer[..copied.len].to_vec()));
    }
    all
}

/// Until there is something to read.
fn wait(tap: &Tap, limit: Duration) {
    let mut polled = libc::pollfd { fd: tap.fd().as_raw_fd(), events: libc::POLLIN, revents: 0 };
    // SAFETY: one element.
    unsafe { libc::poll(&raw mut polled, 1, i32::try_from(limit.as_millis()).unwrap()) };
}

fn since(start: Timestamp) -> Duration {
    clock::now().since(start)
}

/// ESP of this host to `to`: the kernel writes the IP header.
fn send_esp(raw: &UdpSocket, to: Ipv4Addr, sequence: u32) {
    let mut bytes = [0xc0, 0, 0, 1].to_vec();
    bytes.extend(sequence.to_be_bytes());
    bytes.extend([7; 1000]);
    raw.send_to(&bytes, (to, 0)).unwrap();
}

#[test]
fn both_sides_of_the_router_see_a_packet_and_which_way_it_goes() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let (lan, wan) = (open(&lab.router, "lan0"), open(&lab.router, "wan0"));
    // Somebody has to listen, or the server says that nobody does.
    let (esp, _server) = (lab.lan.raw(50), lab.wan.raw(50));
    send_esp(&esp, WAN, 1);
    for (tap, outgoing) in [(&lan, false), (&wan, true)] {
        let all = copies(tap, PATIENCE);
        let [(copied, bytes)] = all.as_slice() else { panic!("{all:?}") };
        assert_eq!((copied.outgoing, copied.len), (outgoing, 128));
        let packet = Packet::parse(bytes).unwrap();
        assert_eq!((packet.src, packet.dst), (IpAddr::V4(LAN), IpAddr::V4(WAN)));
        assert_eq!((packet.protocol, packet.ip_len), (50, 1028));
        let age = clock::now().since(copied.at);
        assert!(age < PATIENCE, "{age:?}");
    }
    // Too far on, and not a multiple of 64; then one that is.
    send_esp(&esp, WAN, 1001);
    send_esp(&esp, WAN, 1024);
    for tap in [&lan, &wan] {
        let all = copies(tap, PATIENCE);
        let sequences: Vec<&[u8]> = all.iter().map(|(_, bytes)| &bytes[24..28]).collect();
        assert_eq!(sequences, [1024_u32.to_be_bytes()]);
    }
}

#[test]
fn ordinary_traffic_is_not_copied() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let tap = open(&lab.router, "lan0");
    let socket = lab.lan.udp(LAN, 40_000);
    let _servers = [lab.wan.udp(WAN, 40_001), lab.wan.udp(WAN, 500)];
    socket.send_to(&[0x5a; 500], (WAN, 40_001)).unwrap();
    assert_eq!(copies(&tap, SILENCE), []);
    socket.send_to(&[0x5a; 500], (WAN, 500)).unwrap();
    let all = copies(&tap, PATIENCE);
    assert_eq!(all.first().map(|(copied, _)| copied.len), Some(528), "{all:?}");
}

#[test]
fn an_interface_that_goes_and_comes_back_down_and_up_is_still_watched() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let tap = open(&lab.router, "lan0");
    lab.router.ip("link set lan0 down");
    let error = tap.next(&mut [0; 64]).unwrap_err();
    assert_eq!(error.raw_os_error(), Some(libc::ENETDOWN));
    assert!(tap.is_bound());
    lab.router.ip("link set lan0 up");
    let socket = lab.lan.udp(LAN, 40_000);
    let start = clock::now();
    let mut buffer = [0; 64];
    while tap.next(&mut buffer).unwrap().is_none() {
        assert!(since(start) < PATIENCE);
        let _ = socket.send_to(&[0x5a; 40], (WAN, 500));
        wait(&tap, Duration::from_millis(5));
    }
}

#[test]
fn one_that_was_removed_is_known_to_be() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    lab.router.ip("link add gone0 type veth peer name gone1");
    lab.router.ip("link set gone0 up");
    let tap = open(&lab.router, "gone0");
    assert!(tap.is_bound());
    lab.router.ip("link del gone0");
    assert!(!tap.is_bound());
    assert!(lab.router.enter(|| Tap::open(9999)).is_err());
}

/// The kernel counts what it had no room for, once.
#[test]
fn what_there_was_no_room_for_is_counted() {
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let tap = open(&lab.router, "lan0");
    let socket = lab.lan.udp(LAN, 40_000);
    for _ in 0..3000 {
        socket.send_to(&[0x5a; 1000], (WAN, 500)).unwrap();
    }
    let start = clock::now();
    let mut dropped = 0;
    while dropped == 0 && since(start) < PATIENCE {
        dropped += tap.dropped();
    }
    let kept = copies(&tap, PATIENCE).len();
    dropped += tap.dropped();
    assert!(dropped > 1000 && kept > 100, "{kept} kept, {dropped} dropped");
    assert_eq!(tap.dropped(), 0);
}

/// Prints what a tap costs a packet that it does not want: the time that many taps add, by their number.
#[test]
#[ignore = "measures: run it alone, with --nocapture"]
fn the_cost_of_a_tap() {
    const TAPS: u32 = 40;
    const PACKETS: u32 = 100_000;
    if !possible() {
        return;
    }
    let lab = Lab::new();
    let socket = lab.lan.udp(LAN, 40_000);
    let _server = lab.wan.udp(WAN, 443);
    // Of the length that QUIC has, and with a first byte of its short header.
    let nanos = || {
        let start = clock::now();
        for _ in 0..PACKETS {
            let _ = socket.send_to(&[0x5b; 1200], (WAN, 443));
        }
        since(start).as_nanos() as f64 / f64::from(PACKETS)
    };
    nanos();
    for (name, interface) in [("comes in", "lan0"), ("goes out", "wan0")] {
        let mut costs: Vec<f64> = (0..7)
            .map(|_| {
                let without = nanos();
                let taps: Vec<Tap> = (0..TAPS).map(|_| open(&lab.router, interface)).collect();
                let with = nanos();
                drop(taps);
                (with - without) / f64::from(TAPS)
            })
            .collect();
        costs.sort_by(f64::total_cmp);
        println!("a packet that {name}: {:.0} ns a tap (from {:.0} to {:.0})", costs[3], costs[0], costs[6]);
    }
}
