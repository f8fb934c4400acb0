//! Faults of WireGuard, OpenVPN, TLS VPNs, DNS and lines.

use crate::case::{Case, Order, Proof, When, fault};
use crate::faults::Way;
use crate::net::{Scope, Upstream};
use crate::setup::{Dns, Program};

/// The cases.
pub(crate) fn cases() -> Vec<Case> {
    [wireguard(), openvpn(), tls(), around()].concat()
}

fn wireguard() -> Vec<Case> {
    let no_reply: &[&str] = &["WG-HANDSHAKE-NO-REPLY"];
    let owners: &[&str] = &["server", "line", "user"];
    vec![
        Case {
            inject: |run| run.drop_port("udp", 51_820),
            ..fault("WireGuard dropped", no_reply, owners, Program::WireGuard)
        },
        Case {
            prepare: |setup, _| setup.wg_known = false,
            ..fault("WireGuard server does not know the key", no_reply, owners, Program::WireGuard)
        },
        Case {
            prepare: |setup, _| setup.wg_known = false,
            second: Some(Order::Any),
            ..fault("WireGuard key unknown, neighbour fine", no_reply, owners, Program::WireGuard)
        },
        Case {
            inject: |run| run.swallow_server(),
            when: When::Up,
            patience: (40, 55),
            ..fault("WireGuard goes silent", &["WG-STALE"], &["line"], Program::WireGuard)
        },
    ]
}

fn openvpn() -> Vec<Case> {
    vec![
        Case {
            inject: |run| run.drop_port("udp", 1194),
            ..fault("OpenVPN dropped", &["OVPN-RESET-NO-REPLY"], &["server", "line"], Program::OpenVpn)
        },
        Case {
            inject: |run| {
                let hop = run.some_hop();
                let way = run.seed.pick(&[Way::Out, Way::In, Way::Either]);
                let limit = run.seed.pick(&["500", "800", "1000"]);
                run.rule(hop, way, &format!("meta l4proto udp meta length > {limit}"), "drop");
            },
            ..fault("OpenVPN's long packets vanish", &["OVPN-TLS-STALL"], &["line", "user"], Program::OpenVpn)
        },
        Case {
            prepare: |setup, seed| {
                setup.ovpn_tcp = true;
                setup.ovpn_port = seed.pick(&[1194, 443]);
            },
            inject: |run| {
                let port = run.setup.ovpn_port;
                run.drop_port("udp", port);
            },
            patience: (30, 40),
            proof: Proof::Works,
            ..fault(
                "OpenVPN: UDP dropped, TCP works",
                &["OVPN-UDP-BLOCKED-TCP-OK"],
                &["line"],
                Program::OpenVpn,
            )
        },
        Case {
            inject: |run| run.switch_server_off(),
            ..fault("OpenVPN server switched off", &["SERVER-DOWN"], &["server"], Program::OpenVpn)
        },
    ]
}

fn tls() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, _| setup.by_name = true,
            inject: |run| run.reset_by_hop(443),
            proof: Proof::NoTls,
            // It is a reset after TLS has begun, and one that did not come from the server.
            ..fault("TLS reset on the way", &["TLSVPN-RST", "DPI-RST"], &["line"], Program::Tls)
        },
        Case {
            prepare: |setup, _| setup.by_name = true,
            inject: |run| {
                run.resets_come_from_afar();
                run.reset_by_hop(443);
            },
            proof: Proof::NoTls,
            ..fault("TLS reset in the server's name", &["TLSVPN-RST"], &["line"], Program::Tls)
        },
        Case {
            prepare: |setup, _| setup.by_name = true,
            inject: |run| {
                let hop = run.some_hop();
                run.rule(hop, Way::Out, "ip daddr 192.0.2.10 tcp dport 443 meta length > 150", "drop");
            },
            proof: Proof::NoTls,
            ..fault("TLS hello swallowed", &["TLSVPN-SILENT"], &["line"], Program::Tls)
        },
    ]
}

fn around() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, seed| {
                setup.by_name = true;
                setup.dns = seed.pick(&[Dns::Silent, Dns::ServFail, Dns::NoSuchName]);
            },
            ..fault("DNS does not know the server", &["DNS-FAIL"], &["line", "user"], Program::OpenVpn)
        },
        Case {
            prepare: |setup, seed| {
                setup.by_name = true;
                setup.dns = seed.pick(&[
                    Dns::Lies([0, 0, 0, 0]),
                    Dns::Lies([127, 0, 0, 1]),
                    Dns::Lies([10, 10, 34, 36]),
                ]);
            },
            ..fault("DNS lies about the server", &["DNS-LIES"], &["line"], Program::OpenVpn)
        },
        Case {
            upstream: Upstream::SecondNat,
            inject: |run| run.drop_port("udp", 4500),
            note: Some("DOUBLE-NAT"),
            ..fault("UDP 4500 dropped behind a second NAT", &["IKE-4500-NO-REPLY"], &["line"], Program::Ike)
        },
        Case {
            natd: ("max_sessions_per_device = 64", "[passthrough]\npptp = true"),
            scopes: &[Scope::All],
            inject: |run| run.open_many(200),
            ..fault(
                "the device has used up its connections",
                &["NAT-TABLE-FULL"],
                &["router", "line"],
                Program::OpenVpn,
            )
        },
        Case {
            inject: |run| run.cut_line(),
            when: When::Up,
            ..fault("the line is cut under OpenVPN", &["WAN-DOWN"], &["line"], Program::OpenVpn)
        },
    ]
}
