//! Mapping and filtering behaviour (RFC 4787 sections 4 and 5), by exact packets and by coturn's test.

use std::time::Duration;

use testkit::address::{D1, D2, S1, S2, WAN, at};
use testkit::{Lab, capture::Keep, discovery, pause, socket};

/// Who gets through to a mapping that a device made towards S1:3478: the same address from another port, and
/// another address.
fn let_in(lab: &Lab) -> (bool, bool) {
    let server = lab.s1.udp(at(S1, 3478));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S1, 3478), &server, b"map me");
    let arrives = |sender: std::net::UdpSocket, payload: &[u8]| {
        sender.send_to(payload, wan).expect("it is sent");
        device.set_read_timeout(Some(socket::UDP_SILENCE)).expect("a timeout can be set");
        socket::receive(&device).is_ok_and(|(got, _)| got == payload)
    };
    (
        arrives(lab.s1.udp(at(S1, 3479)), b"another port"),
        arrives(lab.s2.udp(at(S2, 3478)), b"another address"),
    )
}

#[test]
fn endpoint_independent_filtering_lets_anyone_in() {
    let Some(lab) = Lab::household()
        .natd("filtering = \"endpoint-independent\"")
        .beyond_kernel("it filters by address and port")
        .start()
    else {
        return;
    };
    assert_eq!(let_in(&lab), (true, true));
}

#[test]
fn address_dependent_filtering_is_the_default_and_lets_another_port_in() {
    let Some(lab) = Lab::household().beyond_kernel("it filters by address and port").start() else { return };
    assert_eq!(let_in(&lab), (true, false));
}

#[test]
fn address_and_port_dependent_filtering_lets_only_the_endpoint_in() {
    let Some(lab) = Lab::household().natd("filtering = \"address-and-port-dependent\"").start() else {
        return;
    };
    assert_eq!(let_in(&lab), (false, false));
}

#[test]
fn a_reply_from_another_port_of_the_same_server_passes_the_firewall_both_ways() {
    let Some(lab) = Lab::household().beyond_kernel("it filters by address and port").start() else { return };
    // As TFTP does: the answer and all that follows has a port of its own.
    let (asked, answers) = (lab.s1.udp(at(S1, 69)), lab.s1.udp(at(S1, 50_069)));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S1, 69), &asked, b"read");
    for _ in 0..3 {
        assert_eq!(socket::deliver(&answers, wan, &device, b"a block"), at(S1, 50_069));
        assert_eq!(socket::deliver(&device, at(S1, 50_069), &answers, b"acknowledged"), wan);
    }
}

#[test]
fn one_device_port_has_one_external_port_towards_everyone_also_after_a_collision() {
    let Some(lab) = Lab::household().beyond_kernel("it chooses a port for each remote endpoint").start()
    else {
        return;
    };
    let (one, two) = (lab.s1.udp(at(S1, 3478)), lab.s2.udp(at(S2, 3478)));
    let other = lab.d2.udp(at(D2, 41_000));
    assert_eq!(socket::deliver(&other, at(S2, 3478), &two, b"first"), at(WAN, 41_000));
    let device = lab.d1.udp(at(D1, 41_000));
    let towards_one = socket::deliver(&device, at(S1, 3478), &one, b"second");
    let towards_two = socket::deliver(&device, at(S2, 3478), &two, b"second");
    assert_eq!(towards_one, towards_two, "endpoint-independent mapping (REQ-1)");
    assert_ne!(towards_one.port(), 41_000, "no overloading (REQ-3)");
    assert_eq!(towards_one.port() % 2, 0, "parity is preserved (REQ-4)");
    assert!(towards_one.port() >= 1024, "and so is the port's class (REQ-3a)");
}

#[test]
fn a_low_port_that_collides_stays_low_and_odd() {
    let Some(lab) = Lab::household().start() else { return };
    let server = lab.s1.udp(at(S1, 3478));
    let first = socket::deliver(&lab.d1.udp(at(D1, 501)), at(S1, 3478), &server, b"first");
    assert_eq!(first, at(WAN, 501));
    let second = socket::deliver(&lab.d2.udp(at(D2, 501)), at(S1, 3478), &server, b"second");
    assert!(second.port() < 1024 && second.port() != 501, "{second}");
    // The kernel keeps the class (1..511) but not the parity.
    assert!(second.port() % 2 == 1 || lab.nat() == testkit::Nat::KernelMasquerade, "{second}");
}

#[test]
fn coturn_finds_endpoint_independent_mapping_after_a_collision_and_the_filtering_of_the_configuration() {
    for (filtering, words) in [
        ("endpoint-independent", "Endpoint Independent Filtering"),
        ("address-dependent", "Address Dependent Filtering"),
        ("address-and-port-dependent", "Address and Port Dependent Filtering"),
    ] {
        let lab = Lab::household()
            .natd(&format!("filtering = \"{filtering}\""))
            .beyond_kernel("its mapping depends on the address once a port is taken");
        let Some(lab) = lab.start() else { return };
        let said = discovery::after_a_collision(&lab);
        assert!(said.contains("NAT with Endpoint Independent Mapping"), "{filtering}:\n{said}");
        assert!(said.contains(&format!("NAT with {words}")), "{filtering}:\n{said}");
    }
}

/// Lowers the kernel's conntrack timeouts to two seconds, so that idleness can be had in four.
fn make_conntrack_forgetful(lab: &Lab) {
    for name in ["udp_timeout", "udp_timeout_stream", "tcp_timeout_established", "icmp_timeout"] {
        lab.router.sysctl(&format!("netfilter/nf_conntrack_{name}"), "2");
    }
}

#[test]
fn an_inbound_datagram_passes_after_the_kernels_entry_is_gone() {
    let Some(lab) = Lab::household().beyond_kernel("its mapping is that entry").start() else { return };
    make_conntrack_forgetful(&lab);
    let inside = lab.d1.capture("eth0", Keep::All);
    let server = lab.s1.udp(at(S1, 3478));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S1, 3478), &server, b"map me");
    pause(Duration::from_secs(4));
    let entries = lab.router.run(&["conntrack", "-L", "-p", "udp", "--dport", "3478"]);
    assert!(!entries.stdout.contains("dport=3478"), "the kernel's entry is gone: {entries}");
    assert_eq!(socket::deliver(&server, wan, &device, b"still there?"), at(S1, 3478));
    assert_eq!(socket::deliver(&device, at(S1, 3478), &server, b"yes"), wan);
    assert_eq!(inside.find(|wire| wire.src == S1).len(), 1);
}

#[test]
fn inbound_tcp_data_passes_after_the_kernels_entry_is_gone() {
    let Some(lab) = Lab::household().beyond_kernel("its mapping is that entry").start() else { return };
    make_conntrack_forgetful(&lab);
    let mut connection = testkit::tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.expect_alive("at first");
    pause(Duration::from_secs(4));
    testkit::tcp::exchange(&mut connection.server, &mut connection.client, b"still there?")
        .expect("server first");
    connection.expect_alive("after idleness");
}

#[test]
#[ignore = "takes 200 s of real idleness; the test with lowered kernel timeouts shows the same in 4 s"]
fn an_inbound_datagram_passes_after_200_s_of_idleness() {
    let Some(lab) = Lab::household().beyond_kernel("its mapping lives 30 s, or 120 s").start() else {
        return;
    };
    let server = lab.s1.udp(at(S1, 3478));
    let device = lab.d1.udp(at(D1, 6000));
    let wan = socket::deliver(&device, at(S1, 3478), &server, b"map me");
    pause(Duration::from_secs(200));
    assert_eq!(socket::deliver(&server, wan, &device, b"still there?"), at(S1, 3478));
}
