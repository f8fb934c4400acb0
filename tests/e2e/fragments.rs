//! Datagrams larger than the links (RFC 4787 REQ-14).

use testkit::address::{D1, S1, WAN, at};
use testkit::{Lab, packet, socket};

#[test]
fn datagrams_of_4000_bytes_pass_both_ways() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    let big: Vec<u8> = (0..4000u16).map(|number| number.to_be_bytes()[1]).collect();
    let leaks = lab.watch_for_leaks();
    for _ in 0..20 {
        let wan = socket::deliver(&device, at(S1, 6000), &server, &big);
        assert_eq!(wan, at(WAN, 6000));
        assert_eq!(socket::deliver(&server, wan, &device, &big), at(S1, 6000));
    }
    leaks.expect_no_leak();
}

#[test]
fn outbound_fragments_sent_last_first_arrive() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let leaks = lab.watch_for_leaks();
    let raw = lab.d1.raw();
    for id in 1..=5u8 {
        let payload = vec![id; 4000];
        let whole = packet::udp(at(D1, 6000), at(S1, 6000), &payload);
        for fragment in packet::fragments(&whole, u16::from(id), 1500).iter().rev() {
            raw.send(fragment);
        }
        let (got, from) = socket::receive(&server).unwrap_or_else(|error| panic!("datagram {id}: {error}"));
        assert!(got == payload, "datagram {id}: other bytes");
        assert_eq!(from, at(WAN, 6000));
    }
    leaks.expect_no_leak();
}

#[test]
fn inbound_fragments_sent_last_first_arrive() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S1, 6000), &server, b"open");
    let raw = lab.s1.raw();
    for id in 1..=5u8 {
        let payload = vec![id; 4000];
        let whole = packet::udp(at(S1, 6000), wan, &payload);
        for fragment in packet::fragments(&whole, u16::from(id), 1500).iter().rev() {
            raw.send(fragment);
        }
        let (got, from) = socket::receive(&device).unwrap_or_else(|error| panic!("datagram {id}: {error}"));
        assert!(got == payload, "datagram {id}: other bytes");
        assert_eq!(from, at(S1, 6000));
    }
}

#[test]
fn fragments_of_two_devices_with_the_same_identification_are_not_mixed_up() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 6000));
    let (first, second) = (vec![1; 4000], vec![2; 4000]);
    let one = packet::fragments(&packet::udp(at(D1, 6001), at(S1, 6000), &first), 77, 1500);
    let two =
        packet::fragments(&packet::udp(at(testkit::address::D2, 6002), at(S1, 6000), &second), 77, 1500);
    let (raw_one, raw_two) = (lab.d1.raw(), lab.d2.raw());
    for (one, two) in one.iter().zip(&two) {
        raw_one.send(one);
        raw_two.send(two);
    }
    let mut got: Vec<(Vec<u8>, u16)> = (0..2)
        .map(|_| socket::receive(&server).expect("both arrive"))
        .map(|(payload, from)| (payload, from.port()))
        .collect();
    got.sort();
    assert!(
        got == [(first, 6001), (second, 6002)],
        "ports {:?}",
        got.iter().map(|(_, port)| port).collect::<Vec<_>>()
    );
}

#[test]
fn a_datagram_too_large_for_the_queue_is_dropped_and_never_cut() {
    let Some(mut lab) = Lab::household().beyond_kernel("the kernel has no queue, it passes").start() else {
        return;
    };
    let server = lab.s1.udp(at(S1, 6000));
    let device = lab.d1.udp(at(D1, 6000));
    // 65,531 bytes with its headers is the largest that the queue hands over whole (NFQUEUE copy range).
    socket::deliver(&device, at(S1, 6000), &server, &vec![3; 65_503]);
    device.send_to(&vec![4; 65_507], at(S1, 6000)).expect("the largest datagram is sent");
    socket::expect_silence(&server, "65,535 bytes exceed the queue");
    let status = lab.natd().command(&["status", "--json"]).expect_success();
    assert!(status.contains("\"too-large\":1"), "no drop reason for it in {status}");
    socket::deliver(&device, at(S1, 6000), &server, b"and on it goes");
}
