//! Passthrough that is off: refused at once, so that a device's program need not wait, and never let through.

use std::net::Ipv4Addr;
use std::time::Duration;

use testkit::address::{D1, D2, S1, S2, at};
use testkit::capture::Keep;
use testkit::vpn::raw::{self, Ike, Stage};
use testkit::vpn::{self, AH, ESP, GRE, L2TPV3};
use testkit::{Lab, packet, socket};

use crate::ike::Initiator;

const NO_SWITCH: &str = "it has no such switch";

fn household(switches: &str) -> Option<Lab> {
    let lab = Lab::household().needs_nat().natd_section(&format!("[passthrough]\n{switches}"));
    lab.beyond_kernel(NO_SWITCH).start()
}

/// Each packet of d1 is answered by "administratively prohibited" (RFC 1812 section 5.2.7.1), and none leaves.
pub(crate) fn expect_refusal(lab: &Lab, packets: &[(u8, u16, Vec<u8>)]) {
    let wan = lab.capture_wan();
    let link = lab.d1.capture("eth0", Keep::All);
    let device = lab.d1.raw();
    for (protocol, port, packet) in packets {
        device.send(packet);
        let what = format!("refusal of protocol {protocol} port {port}");
        link.wait_for(&what, Duration::from_secs(1), |wire| {
            let quote = wire.quote.as_ref();
            wire.is_icmp(3, 13)
                && quote.is_some_and(|quote| (quote.protocol, quote.dst_port) == (*protocol, *port))
        });
    }
    let left = vpn::from_household(&wan);
    let left: Vec<_> = left.iter().filter(|seen| seen.wire.dst == S1).collect();
    assert!(left.is_empty(), "{left:?}");
}

fn ike() -> Vec<u8> {
    Ike { initiator: 0x1111, responder: 0, stage: Stage::Proposal }.bytes()
}

#[test]
fn with_ipsec_off_its_ports_and_protocols_are_refused() {
    let Some(lab) = household("ipsec = false") else { return };
    // Four zero bytes go before IKE on port 4500 (RFC 3948 section 2.2).
    let marked = [&[0; 4][..], &ike()].concat();
    let packets = [
        (17, 500, packet::udp(at(D1, 500), at(S1, 500), &ike())),
        (17, 4500, packet::udp(at(D1, 4500), at(S1, 4500), &marked)),
        (ESP, 0, raw::esp(D1, S1, 0x2001, 1)),
        (AH, 0, raw::ah(D1, S1, 0x2001, 1)),
    ];
    expect_refusal(&lab, &packets);
}

#[test]
fn with_pptp_off_its_gre_is_refused() {
    let Some(lab) = household("pptp = false") else { return };
    expect_refusal(&lab, &[(GRE, 0, raw::pptp_gre(D1, S1, 0, 1))]);
}

#[test]
fn with_l2tp_off_its_port_and_protocol_are_refused() {
    let Some(lab) = household("l2tp = false") else { return };
    // SCCRQ with nothing but its message type (RFC 2661 sections 3.1 and 4.4.1).
    let request = [0xc8, 2, 0, 20, 0, 0, 0, 0, 0, 0, 0, 0, 0x80, 8, 0, 0, 0, 0, 0, 1];
    let packets = [
        (17, 1701, packet::udp(at(D1, 1701), at(S1, 1701), &request)),
        (L2TPV3, 0, raw::l2tpv3(D1, S1, 101, 0)),
    ];
    expect_refusal(&lab, &packets);
}

#[test]
fn with_multi_off_the_second_device_to_one_server_is_refused() {
    let Some(lab) = household("multi = false") else { return };
    let [first, second] =
        [(&lab.s1, S1), (&lab.s2, S2)].map(|(node, addr): (_, Ipv4Addr)| node.udp(at(addr, 500)));
    Initiator::start(&lab.d1, D1, &first, 0x1111).quick_mode(&first);
    let link = lab.d2.capture("eth0", Keep::All);
    let device = lab.d2.udp(at(D2, 500));
    device.send_to(&ike(), at(S1, 500)).expect("it is sent");
    link.wait_for("refusal", Duration::from_secs(1), |wire| wire.is_icmp(3, 13));
    socket::expect_silence(&first, "the server hears nothing of it");
    // The refusal is an error that the socket still holds.
    drop(device);
    Initiator::start(&lab.d2, D2, &second, 0x2222).quick_mode(&second);
}
