//! IPsec, GRE and L2TPv3 packet by packet, with identifiers that the test chooses.

use std::time::Duration;

use testkit::address::{D1, D2, D3, S1, S2, WAN, at};
use testkit::capture::Keep;
use testkit::nat::Transport;
use testkit::vpn::raw::{self, End};
use testkit::vpn::{AH, ESP, GRE, L2TPV3};
use testkit::{Forward, Lab, LabBuilder, pause};

use crate::ike::Initiator;

const SERVER_FIRST: &str = "its firewall drops what no device asked for";
const NO_IDENTIFIER: &str = "it tells these packets apart by their two addresses only";
/// Longer than a packet of an unknown owner may be held.
const HELD: Duration = Duration::from_millis(2500);

fn household() -> LabBuilder {
    Lab::household().needs_nat()
}

fn ends(lab: &Lab, protocol: u8) -> [End; 3] {
    [(&lab.d1, D1), (&lab.d2, D2), (&lab.s1, S1)].map(|(node, addr)| End::new(node, addr, protocol))
}

#[test]
fn a_server_that_speaks_first_is_heard_through_a_gate() {
    let Some(lab) = household().beyond_kernel(SERVER_FIRST).start() else { return };
    let ike = lab.s1.udp(at(S1, 500));
    let [first, second, server] = ends(&lab, ESP);
    Initiator::start(&lab.d1, D1, &ike, 0x1111).quick_mode(&ike);
    server.send(&raw::esp(S1, WAN, 0x1001, 1));
    first.expect("the server's first word", S1, (0x1001, 1));
    first.send(&raw::esp(D1, S1, 0x2001, 1));
    server.expect("the answer", WAN, (0x2001, 1));
    server.send(&raw::esp(S1, WAN, 0x1001, 2));
    first.expect("more", S1, (0x1001, 2));
    assert_eq!(second.got(S1), []);
}

#[test]
fn without_a_gate_unknown_esp_reaches_nobody() {
    let Some(lab) = household().start() else { return };
    let other = lab.s2.udp(at(S2, 500));
    let inside = lab.router.capture("br-lan", Keep::All);
    let [first, _, server] = ends(&lab, ESP);
    // A gate for another server is none for this one.
    Initiator::start(&lab.d1, D1, &other, 0x1111).quick_mode(&other);
    for sequence in 1..=20 {
        server.send(&raw::esp(S1, WAN, 0x1001, sequence));
    }
    pause(HELD);
    let strays = inside.find(|wire| wire.src == S1);
    assert!(strays.is_empty(), "{strays:?}");
    assert_eq!(first.got(S1), []);
}

#[test]
fn two_devices_with_open_gates_both_hear_their_server() {
    let Some(lab) = household().beyond_kernel(SERVER_FIRST).start() else { return };
    let ike = lab.s1.udp(at(S1, 500));
    let [first, second, server] = ends(&lab, ESP);
    Initiator::start(&lab.d1, D1, &ike, 0x1111).quick_mode(&ike);
    Initiator::start(&lab.d2, D2, &ike, 0x2222).quick_mode(&ike);
    server.send(&raw::esp(S1, WAN, 0x1002, 1));
    second.expect("the server's first word", S1, (0x1002, 1));
    second.send(&raw::esp(D2, S1, 0x2002, 1));
    server.expect("the answer", WAN, (0x2002, 1));
    server.send(&raw::esp(S1, WAN, 0x1001, 1));
    first.expect("the server's first word", S1, (0x1001, 1));
    first.send(&raw::esp(D1, S1, 0x2001, 1));
    server.expect("the answer", WAN, (0x2001, 1));
    // Nothing tells which SPI is whose: both get both, until their conversations do.
    for (end, spi) in [(&first, 0x1001), (&second, 0x1002)] {
        server.send(&raw::esp(S1, WAN, spi, 2));
        end.expect("more", S1, (spi, 2));
    }
}

#[test]
fn new_keys_and_old_ones_work_side_by_side() {
    let Some(lab) = household().beyond_kernel(SERVER_FIRST).start() else { return };
    let ike = lab.s1.udp(at(S1, 500));
    let [first, second, server] = ends(&lab, ESP);
    let mut initiators = Vec::new();
    for (end, node, spi) in [(&first, &lab.d1, 1), (&second, &lab.d2, 2)] {
        let mut initiator = Initiator::start(node, end.addr, &ike, 0x1110 + u64::from(spi));
        initiator.quick_mode(&ike);
        initiators.push(initiator);
        end.send(&raw::esp(end.addr, S1, 0x2000 + spi, 1));
        server.expect("the first packet", WAN, (0x2000 + spi, 1));
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, 1));
        end.expect("the answer", S1, (0x1000 + spi, 1));
    }
    for initiator in &mut initiators {
        initiator.quick_mode(&ike);
    }
    for (end, spi) in [(&first, 1), (&second, 2)] {
        // The old pair, with packets that were under way.
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, 2));
        end.expect("old keys", S1, (0x1000 + spi, 2));
        end.send(&raw::esp(end.addr, S1, 0x2100 + spi, 1));
        server.expect("new keys", WAN, (0x2100 + spi, 1));
        server.send(&raw::esp(S1, WAN, 0x1100 + spi, 1));
        end.expect("new keys", S1, (0x1100 + spi, 1));
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, 3));
        end.expect("old keys", S1, (0x1000 + spi, 3));
    }
    for (end, foreign) in [(&first, 2), (&second, 1)] {
        let got = end.got(S1);
        // Both rekeyed at once, so each got the other's new ones too; the old ones were known.
        assert!(!got.iter().any(|(spi, _)| *spi == 0x1000 + foreign), "{} got {got:08x?}", end.addr);
    }
}

#[test]
fn a_second_device_does_not_steal_an_spi_that_both_chose() {
    let Some(lab) = household().beyond_kernel(NO_IDENTIFIER).start() else { return };
    let ike = lab.s1.udp(at(S1, 500));
    let [first, second, server] = ends(&lab, ESP);
    Initiator::start(&lab.d1, D1, &ike, 0x1111).quick_mode(&ike);
    first.send(&raw::esp(D1, S1, 0x2001, 1));
    server.expect("the first packet", WAN, (0x2001, 1));
    server.send(&raw::esp(S1, WAN, 0x1234, 1));
    first.expect("the answer", S1, (0x1234, 1));
    Initiator::start(&lab.d2, D2, &ike, 0x2222).quick_mode(&ike);
    second.send(&raw::esp(D2, S1, 0x2002, 1));
    server.expect("the second device's packet", WAN, (0x2002, 1));
    for sequence in 2..=5 {
        server.send(&raw::esp(S1, WAN, 0x1234, sequence));
        first.expect("its own SPI", S1, (0x1234, sequence));
    }
    first.send(&raw::esp(D1, S1, 0x2001, 2));
    server.expect("more", WAN, (0x2001, 2));
    assert_eq!(second.got(S1), [], "the SPI belongs to another device");
}

#[test]
fn devices_with_manual_keys_get_their_answers_without_ike() {
    let Some(lab) = household().beyond_kernel(NO_IDENTIFIER).start() else { return };
    let [first, second, server] = ends(&lab, ESP);
    for (end, spi) in [(&first, 1), (&second, 2)] {
        end.send(&raw::esp(end.addr, S1, 0x2000 + spi, 1));
        server.expect("the first packet", WAN, (0x2000 + spi, 1));
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, 1));
        end.expect("the answer", S1, (0x1000 + spi, 1));
    }
    for (end, spi) in [(&first, 1), (&second, 2)] {
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, 2));
        end.expect("more", S1, (0x1000 + spi, 2));
    }
    assert_eq!((first.got(S1).len(), second.got(S1).len()), (2, 2));
}

/// The words of a [`raw::keyed_gre`] packet.
const fn gre(key: u32) -> (u32, u32) {
    (0x2000_0800, key)
}

#[test]
fn keyed_gre_of_two_devices_goes_by_its_key() {
    let Some(lab) = household().beyond_kernel(NO_IDENTIFIER).start() else { return };
    let [first, second, server] = ends(&lab, GRE);
    for (end, key) in [(&first, 1), (&second, 2)] {
        end.send(&raw::keyed_gre(end.addr, S1, key, 0));
        server.expect("the key", WAN, gre(key));
    }
    for (end, key) in [(&second, 2), (&first, 1)] {
        server.send(&raw::keyed_gre(S1, WAN, key, 0));
        end.expect("its key", S1, gre(key));
    }
    assert_eq!((first.got(S1), second.got(S1)), (vec![gre(1)], vec![gre(2)]));
}

#[test]
fn a_second_device_does_not_steal_a_gre_key() {
    let Some(lab) = household().start() else { return };
    let [first, second, server] = ends(&lab, GRE);
    first.send(&raw::keyed_gre(D1, S1, 7, 0));
    server.expect("the key", WAN, gre(7));
    second.send(&raw::keyed_gre(D2, S1, 7, 1));
    for _ in 0..3 {
        server.send(&raw::keyed_gre(S1, WAN, 7, 0));
    }
    first.expect("its key", S1, gre(7));
    pause(Duration::from_millis(200));
    assert_eq!((first.got(S1), second.got(S1)), (vec![gre(7); 3], vec![]));
}

#[test]
fn l2tpv3_of_two_devices_goes_by_its_session_id() {
    let Some(lab) = household().beyond_kernel(NO_IDENTIFIER).start() else { return };
    let [first, second, server] = ends(&lab, L2TPV3);
    // Sessions set up by hand, with one number for both directions.
    let words = |session| (session, 0x7777_7777);
    for (end, session) in [(&first, 101), (&second, 102)] {
        end.send(&raw::l2tpv3(end.addr, S1, session, 0x77));
        server.expect("the session", WAN, words(session));
    }
    for (end, session) in [(&second, 102), (&first, 101)] {
        server.send(&raw::l2tpv3(S1, WAN, session, 0x77));
        end.expect("its session", S1, words(session));
    }
    assert_eq!((first.got(S1), second.got(S1)), (vec![words(101)], vec![words(102)]));
}

#[test]
fn a_forward_of_a_whole_protocol_reaches_its_device_unasked() {
    let lab = household()
        .natd_section("[passthrough]\npptp = true")
        .forward(Forward::whole(Transport::Esp, D1))
        .forward(Forward::whole(Transport::Gre, D2))
        .forward(Forward::whole(Transport::L2tpv3, D3));
    let Some(lab) = lab.start() else { return };
    let esp = [End::new(&lab.d1, D1, ESP), End::new(&lab.s1, S1, ESP)];
    let gre = [End::new(&lab.d2, D2, GRE), End::new(&lab.s1, S1, GRE)];
    let l2tp = [End::new(&lab.d3, D3, L2TPV3), End::new(&lab.s1, S1, L2TPV3)];
    let packets = [
        (&esp, raw::esp(S1, WAN, 0x1001, 1), raw::esp(D1, S1, 0x2001, 1), (0x1001, 1), (0x2001, 1)),
        (
            &gre,
            raw::keyed_gre(S1, WAN, 7, 0),
            raw::keyed_gre(D2, S1, 7, 0),
            (0x2000_0800, 7),
            (0x2000_0800, 7),
        ),
        (&l2tp, raw::l2tpv3(S1, WAN, 101, 0), raw::l2tpv3(D3, S1, 101, 0), (101, 0), (101, 0)),
    ];
    for ([inside, outside], question, answer, asked, answered) in packets {
        outside.send(&question);
        inside.expect("what is forwarded", S1, asked);
        inside.send(&answer);
        outside.expect("the answer", WAN, answered);
    }
}

#[test]
fn ah_is_refused_and_counted() {
    let Some(mut lab) = household().beyond_kernel("it rewrites what AH protects").start() else { return };
    let wan = lab.capture_wan();
    let [first, _, server] = ends(&lab, AH);
    let link = lab.d1.capture("eth0", Keep::All);
    first.send(&raw::ah(D1, S1, 0x2001, 1));
    // The network's administrator forbids it (RFC 1812 section 5.2.7.1).
    link.wait_for("refusal", Duration::from_secs(1), |wire| wire.is_icmp(3, 13));
    assert_eq!(server.got(WAN), []);
    assert!(wan.find(|wire| wire.protocol == AH).is_empty(), "AH left the household");
    let status = lab.natd().command(&["status"]).expect_success();
    assert!(status.contains("AH"), "{status}");
}
