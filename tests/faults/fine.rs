//! Scenarios in which nothing is wrong.

use crate::case::{Case, Order, When, healthy};
use crate::faults::Way;
use crate::net::Upstream;
use crate::setup::{Login, Program};

/// The cases.
pub(crate) fn cases() -> Vec<Case> {
    let plain = [
        healthy("IKEv2 works", Program::Ike),
        healthy("bare ESP works", Program::Vpnc),
        healthy("PPTP works", Program::Pptp),
        healthy("L2TP works", Program::L2tp),
        healthy("OpenVPN works", Program::OpenVpn),
        healthy("WireGuard works", Program::WireGuard),
    ];
    [&plain[..], &unusual(), &several()].concat()
}

fn unusual() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, seed| setup.late = seed.between(6, 8),
            inject: |run| run.boot_server_late(),
            patience: (30, 40),
            ..healthy("IKEv2 server starts late", Program::Ike)
        },
        Case {
            prepare: |setup, seed| setup.late = seed.between(6, 8),
            inject: |run| run.boot_server_late(),
            patience: (30, 40),
            ..healthy("OpenVPN server starts late", Program::OpenVpn)
        },
        Case {
            inject: |run| run.drop_first(Way::Out, "udp dport { 500, 4500 }"),
            ..healthy("IKEv2's first packet is lost", Program::Ike)
        },
        Case {
            inject: |run| run.drop_first(Way::In, "tcp sport 1723"),
            ..healthy("PPTP's first answer is lost", Program::Pptp)
        },
        Case {
            inject: |run| run.change_keys(),
            when: When::Up,
            ..healthy("IKEv2 changes its keys", Program::Ike)
        },
        Case {
            inject: |run| {
                let seconds = run.seed.between(15, 25);
                run.sleep_and_wake(seconds);
            },
            when: When::Up,
            patience: (20, 35),
            ..healthy("a phone with IKEv2 sleeps", Program::Ike)
        },
        Case {
            inject: |run| {
                let seconds = run.seed.between(15, 25);
                run.sleep_and_wake(seconds);
            },
            when: When::Up,
            patience: (20, 35),
            ..healthy("a phone with WireGuard sleeps", Program::WireGuard)
        },
        Case {
            inject: |run| run.hang_up_and_dial(),
            when: When::Up,
            ..healthy("IKEv2 ends and dials again", Program::Ike)
        },
        Case {
            prepare: |setup, _| {
                setup.login = Login::Certificate;
                setup.ike_fragments = false;
            },
            ..healthy("IKEv2 in IP fragments", Program::Ike)
        },
        Case {
            prepare: |setup, _| setup.login = Login::Eap,
            ..healthy("IKEv2 with a password", Program::Ike)
        },
        Case {
            upstream: Upstream::SecondNat,
            note: Some("DOUBLE-NAT"),
            ..healthy("WireGuard behind a second NAT", Program::WireGuard)
        },
        Case {
            upstream: Upstream::Carrier,
            note: Some("CGNAT"),
            ..healthy("IKEv2 behind the provider's NAT", Program::Ike)
        },
    ]
}

fn several() -> Vec<Case> {
    vec![
        Case { second: Some(Order::Any), ..healthy("two devices with bare ESP", Program::Vpnc) },
        Case { second: Some(Order::Any), ..healthy("two devices with PPTP", Program::Pptp) },
        Case { second: Some(Order::Any), ..healthy("two devices with IKEv2", Program::Ike) },
    ]
}
