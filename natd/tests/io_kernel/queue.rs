//! Packets through a queue of the kernel.

use std::net::UdpSocket;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nat_core::decision::ChecksumState;
use natd::io::nfqueue::{Hook, OpenError, Packet, Queue, QueueStats, Release, Trains};

use crate::lab::{LAN, Lab, Namespace, PATIENCE, SILENCE, WAN, possible, receive};

/// UDP payload behind the IPv4 and UDP headers.
const PAYLOAD: usize = 28;

#[test]
fn every_kind_of_verdict_is_carried_out_in_order() {
    if !possible() {
        return;
    }
    let mut bench = Bench::new("-p udp");
    bench.lab.router.nft(
        "table ip marks {
            chain late {
                type filter hook postrouting priority 300
                meta mark 0x07000000 drop
            }
        }",
    );
    for text in ["pass", "drop", "edit", "hold", "mark", "keep"] {
        bench.send(text.as_bytes());
    }
    let mut held = Vec::new();
    for _ in 0..6 {
        let mut packet = bench.packet();
        assert_eq!((packet.hook(), packet.truncated()), (Hook::Forward, false));
        assert!(packet.indev().is_some() && packet.outdev().is_some());
        match &packet.bytes()[PAYLOAD..] {
            b"drop" => bench.queue.refuse(packet),
            b"hold" | b"keep" => held.push(bench.queue.hold(packet)),
            b"mark" => bench.queue.accept(packet, Some(0x0700_0000)),
            b"edit" => {
                edit(&mut packet, b"EDIT");
                bench.queue.accept_modified(packet, None);
            }
            _ => bench.queue.accept(packet, None),
        }
    }
    assert_eq!(receive(&bench.server, SILENCE), None, "a batch waits until it is flushed");

    bench.queue.flush().unwrap();

    assert_eq!(bench.received(PATIENCE), "pass");
    assert_eq!(bench.received(PATIENCE), "EDIT");
    assert_eq!(receive(&bench.server, SILENCE), None);
    bench.queue.release(held[0], Release::Accept);
    bench.queue.flush().unwrap();
    assert_eq!(bench.received(PATIENCE), "hold");
    // From another thread and another descriptor, while the queue itself is busy elsewhere.
    let releaser = bench.queue.releaser().unwrap();
    std::thread::spawn(move || releaser.release(held[1], Release::Accept).unwrap()).join().unwrap();
    assert_eq!(bench.received(PATIENCE), "keep");
    assert_eq!(bench.stats().waiting, 0);
}

#[test]
fn a_second_release_does_no_harm() {
    if !possible() {
        return;
    }
    let mut bench = Bench::new("-p udp");
    bench.send(b"once");
    let packet = bench.packet();
    let ticket = bench.queue.hold(packet);
    for _ in 0..3 {
        bench.queue.release(ticket, Release::Refuse);
    }
    bench.queue.flush().unwrap();
    bench.send(b"next");
    let packet = bench.packet();
    assert_eq!(&packet.bytes()[PAYLOAD..], b"next");
    bench.queue.accept(packet, None);
    bench.queue.flush().unwrap();
    assert_eq!(bench.received(PATIENCE), "next");
    assert_eq!(bench.queue.errors().stale, 2);
}

#[test]
fn large_datagrams_arrive_whole_or_not_at_all() {
    if !possible() {
        return;
    }
    let mut bench = Bench::new("-p udp");
    // Fragments are put together because the firewall uses conntrack.
    let large: Vec<u8> = (0..40_000u32).map(|n| n.to_le_bytes()[0]).collect();
    bench.send(b"small");
    bench.send(&large);
    bench.send(&vec![1; 65_507]);
    for _ in 0..3 {
        let mut packet = bench.packet();
        assert_eq!(packet.truncated(), packet.bytes().len() > 50_000);
        if packet.checksum() == ChecksumState::Partial {
            edit(&mut packet, b"small");
        }
        bench.queue.accept_modified(packet, None);
    }
    bench.queue.flush().unwrap();
    assert_eq!(bench.received(PATIENCE), "small");
    assert!(receive(&bench.server, PATIENCE) == Some(large), "it has changed");
    assert_eq!(receive(&bench.server, SILENCE), None);
    assert_eq!(bench.queue.errors().truncated, 1);
}

#[test]
fn trains_of_segments_come_unsplit_with_open_checksums() {
    if !possible() {
        return;
    }
    let mut bench = Bench::new("-p udp");
    // linux/udp.h: UDP_SEGMENT.
    let segment: libc::c_int = 1000;
    // SAFETY: pointer and length describe `segment`.
    let set = unsafe {
        libc::setsockopt(bench.device.as_raw_fd(), libc::IPPROTO_UDP, 103, (&raw const segment).cast(), 4)
    };
    assert_eq!(set, 0);
    bench.send(&[5; 10_000]);
    bench.send(b"one segment");

    let packet = bench.packet();
    assert_eq!((packet.bytes().len(), packet.checksum()), (10_028, ChecksumState::PartialGso));
    bench.queue.accept(packet, None);
    let packet = bench.packet();
    assert_eq!(packet.checksum(), ChecksumState::Partial);
    bench.queue.accept(packet, None);
    bench.queue.flush().unwrap();

    for _ in 0..10 {
        assert!(receive(&bench.server, PATIENCE) == Some(vec![5; 1000]));
    }
    assert_eq!(bench.received(PATIENCE), "one segment");
}

#[test]
fn a_flood_is_counted_and_the_queue_goes_on() {
    if !possible() {
        return;
    }
    let mut bench = Bench::new("-p udp");
    for _ in 0..1000 {
        bench.send(b"flood");
    }
    let stats = bench.stats();
    assert_eq!((stats.number, stats.waiting, stats.queue_dropped), (Bench::NUMBER, 256, 744));
    let mut passed = 0;
    while let Some(packet) = bench.queue.next().unwrap() {
        bench.queue.accept(packet, None);
        passed += 1;
    }
    bench.queue.flush().unwrap();
    assert_eq!(passed, 256);
    assert_eq!(bench.stats().waiting, 0);
}

#[test]
fn a_taken_queue_says_who_has_it() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("taken");
    let (first, second) = namespace.enter(|| {
        let _first = Queue::open(9, 64, Trains::Whole).unwrap();
        let owner = QueueStats::read(9).unwrap().unwrap().owner;
        (owner, Queue::open(9, 64, Trains::Whole).err().unwrap())
    });
    assert!(
        matches!(second, OpenError::Taken { number: 9, owner: Some(owner) } if owner == first),
        "{second:?}"
    );
    assert!(second.to_string().starts_with("queue 9 is taken by another program"));
    namespace.enter(|| assert!(Queue::open(9, 64, Trains::Whole).is_ok(), "it is free again"));
}

#[test]
fn without_permission_the_error_says_so() {
    if !possible() {
        return;
    }
    let namespace = Namespace::new("bare");
    let error = namespace.enter(|| {
        crate::sandbox::give_up_everything();
        Queue::open(9, 64, Trains::Whole).err().unwrap()
    });
    assert!(matches!(error, OpenError::NoPermission), "{error:?}");
}

/// The lab with a queue in the router's forward chain.
struct Bench {
    queue: Queue,
    device: UdpSocket,
    server: UdpSocket,
    lab: Lab,
}

impl Bench {
    const NUMBER: u16 = 7;

    fn new(matching: &str) -> Self {
        let lab = Lab::new();
        let queue = lab.router.enter(|| Queue::open(Self::NUMBER, 256, Trains::Whole).unwrap());
        lab.router.run(&format!("iptables -A FORWARD {matching} -j NFQUEUE --queue-num {}", Self::NUMBER));
        let device = lab.lan.udp(LAN, 5000);
        let server = lab.wan.udp(WAN, 53);
        Self { queue, device, server, lab }
    }

    fn send(&self, payload: &[u8]) {
        self.device.send_to(payload, (WAN, 53)).unwrap();
    }

    /// The next packet; waits for it.
    fn packet(&mut self) -> Packet {
        loop {
            if let Some(packet) = self.queue.next().unwrap() {
                return packet;
            }
            assert!(readable(self.queue.fd().as_raw_fd(), PATIENCE), "no packet in the queue");
        }
    }

    fn received(&self, patience: Duration) -> String {
        String::from_utf8_lossy(&receive(&self.server, patience).expect("nothing arrives")).into_owned()
    }

    fn stats(&self) -> QueueStats {
        self.lab.router.enter(|| QueueStats::read(Self::NUMBER).unwrap().unwrap())
    }
}

/// Replaces the UDP payload; a checksum of 0 stands for none (RFC 768).
fn edit(packet: &mut Packet, payload: &[u8]) {
    let bytes = packet.bytes_mut();
    bytes[26..28].fill(0);
    bytes[PAYLOAD..].copy_from_slice(payload);
}

pub(crate) fn readable(fd: i32, patience: Duration) -> bool {
    let mut poll = libc::pollfd { fd, events: libc::POLLIN, revents: 0 };
    // SAFETY: one valid pollfd.
    unsafe { libc::poll(&mut poll, 1, i32::try_from(patience.as_millis()).unwrap()) == 1 }
}
