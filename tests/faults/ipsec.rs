//! Faults of IPsec.

use testkit::vpn::ESP;

use crate::case::{Case, Order, Proof, When, fault};
use crate::faults::{Hop, Way};
use crate::setup::{Login, Program};

/// The cases.
pub(crate) fn cases() -> Vec<Case> {
    [asking(), refusals(), data(), later()].concat()
}

fn asking() -> Vec<Case> {
    vec![
        Case {
            inject: |run| run.drop_port("udp", 500),
            ..fault("UDP 500 dropped", &["IKE-500-NO-REPLY"], &["line", "server"], Program::Ike)
        },
        Case {
            inject: |run| run.drop_port("udp", 500),
            ..fault("UDP 500 of IKEv1 dropped", &["IKE-500-NO-REPLY"], &["line", "server"], Program::Vpnc)
        },
        Case {
            prepare: |setup, _| setup.served = false,
            ..fault("no IKE at the server", &["IKE-500-ICMP-PORT"], &["server"], Program::Ike)
        },
        Case {
            inject: |run| run.prohibit("udp dport { 500, 4500 }"),
            ..fault("IKE prohibited by a hop", &["IKE-500-ADMIN"], &["line"], Program::Ike)
        },
        Case {
            inject: |run| run.drop_port("udp", 4500),
            ..fault("UDP 4500 dropped", &["IKE-4500-NO-REPLY"], &["line"], Program::Ike)
        },
        Case {
            prepare: |setup, _| {
                setup.login = Login::Certificate;
                setup.ike_fragments = false;
            },
            inject: |run| run.drop_fragments(Way::Out),
            ..fault("fragments out dropped", &["IKE-AUTH-FRAG-LOST"], &["line", "device"], Program::Ike)
        },
        Case {
            prepare: |setup, _| {
                setup.login = Login::Eap;
                setup.ike_fragments = false;
            },
            inject: |run| run.drop_fragments(Way::In),
            ..fault(
                "fragments in dropped",
                &["IKE-REPLY-FRAG-LOST", "IKE-AUTH-FRAG-LOST"],
                &["line", "router"],
                Program::Ike,
            )
        },
        Case {
            inject: |run| run.switch_server_off(),
            ..fault("IKE server switched off", &["SERVER-DOWN"], &["server"], Program::Ike)
        },
        Case {
            inject: |run| run.lose_route(),
            ..fault("no route to the IKE server", &["SERVER-PATH"], &["line"], Program::Ike)
        },
    ]
}

fn refusals() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, _| setup.proposal = "aes256-sha512-modp4096",
            ..fault("no common proposal", &["IKE-NO-PROPOSAL"], &["server", "device"], Program::Ike)
        },
        Case {
            prepare: |setup, _| setup.proposal = "aes256-sha512-modp4096",
            second: Some(Order::Any),
            ..fault(
                "no common proposal, neighbour fine",
                &["IKE-NO-PROPOSAL"],
                &["server", "device"],
                Program::Ike,
            )
        },
        Case {
            prepare: |setup, _| setup.secret = "wrong",
            ..fault("wrong pre-shared key", &["IKE-AUTH-REJECTED"], &["user", "server"], Program::Ike)
        },
        Case {
            prepare: |setup, _| setup.secret = "wrong",
            second: Some(Order::Any),
            ..fault("wrong key, neighbour fine", &["IKE-AUTH-REJECTED"], &["user", "server"], Program::Ike)
        },
        Case {
            prepare: |setup, _| {
                setup.login = Login::Eap;
                setup.secret = "wrong";
            },
            ..fault("wrong EAP password", &["IKE-AUTH-REJECTED"], &["user", "server"], Program::Ike)
        },
        Case {
            natd: ("", "[passthrough]\nipsec = false"),
            ..fault("IPsec off", &["IPSEC-ESP-PASS-OFF"], &["router"], Program::Vpnc)
        },
        Case {
            natd: ("", "[passthrough]\nipsec = false"),
            ..fault("IPsec off, IKEv2", &["IPSEC-ESP-PASS-OFF"], &["router"], Program::Ike)
        },
        Case {
            natd: ("", "[passthrough]\nmulti = false"),
            second: Some(Order::First),
            ..fault("one device per server only", &["IPSEC-MULTI-CLASH"], &["router"], Program::Vpnc)
        },
        Case {
            inject: |run| run.send_ah(),
            proof: Proof::None,
            ..fault("AH", &["IPSEC-AH"], &["device", "server"], Program::None)
        },
        Case {
            inject: |run| {
                let ports = run.seed.pick(&["udp dport 500", "udp dport { 500, 4500 }", "udp sport 500"]);
                run.router_drops(ports);
            },
            ..fault("the router's firewall drops IKE", &["LOCAL-FIREWALL"], &["router"], Program::Ike)
        },
        Case {
            inject: |run| run.router_drops("ip saddr 192.168.1.11 ip protocol esp"),
            second: Some(Order::Any),
            ..fault(
                "the router's firewall drops one device's ESP",
                &["LOCAL-FIREWALL"],
                &["router"],
                Program::Vpnc,
            )
        },
    ]
}

fn data() -> Vec<Case> {
    vec![
        Case {
            inject: |run| run.drop_protocol(Way::Out, ESP),
            ..fault("ESP out dropped", &["IPSEC-ESP-NO-RETURN"], &["line", "server"], Program::Vpnc)
        },
        Case {
            inject: |run| run.drop_protocol(Way::In, ESP),
            ..fault("ESP in dropped", &["IPSEC-ESP-NO-RETURN"], &["line", "server"], Program::Vpnc)
        },
        Case {
            inject: |run| run.rule(Hop::Two, Way::Either, "ip protocol 50", "drop"),
            ..fault("ESP dropped at hop 2 of 3", &["IPSEC-ESP-NO-RETURN"], &["line", "server"], Program::Vpnc)
        },
        Case {
            prepare: |setup, seed| setup.pings = seed.between(300, 900),
            inject: |run| {
                run.server_speaks_first();
                run.device_drops_sent("ip protocol esp");
            },
            ..fault(
                "the device's firewall drops its ESP",
                &["IPSEC-ESP-ONEWAY-IN"],
                &["device"],
                Program::Vpnc,
            )
        },
        Case {
            inject: |run| {
                run.server_pushes(1);
                run.device_drops_sent("ip protocol esp");
            },
            when: When::Up,
            second: Some(Order::Any),
            ..fault(
                "the device's firewall drops its ESP at once, neighbour fine",
                &["IPSEC-ESP-ONEWAY-IN"],
                &["device"],
                Program::Vpnc,
            )
        },
        Case {
            inject: |run| {
                let hop = run.some_hop();
                let limit = run.seed.pick(&["1000", "1100", "1200"]);
                run.rule(
                    hop,
                    Way::Either,
                    &format!("meta l4proto {{ udp, esp }} meta length > {limit}"),
                    "drop",
                );
                run.move_data();
            },
            when: When::Up,
            proof: Proof::OnlySmall,
            ..fault("large packets vanish", &["IPSEC-PMTU-BLACKHOLE"], &["line"], Program::Ike)
        },
        Case {
            inject: |run| {
                let hop = run.some_hop();
                run.rule(hop, Way::Either, "ip protocol esp meta length > 1100", "drop");
                run.move_data();
            },
            when: When::Up,
            proof: Proof::OnlySmall,
            ..fault("large ESP vanishes", &["IPSEC-PMTU-BLACKHOLE"], &["line"], Program::Vpnc)
        },
    ]
}

fn later() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, seed| setup.dpd = seed.between(4, 10),
            inject: |run| run.swallow_server(),
            when: When::Up,
            patience: (35, 50),
            ..fault("the server falls silent", &["IPSEC-DPD-DEAD"], &["line", "server"], Program::Ike)
        },
        Case {
            prepare: |setup, seed| setup.dpd = seed.between(4, 8),
            inject: |run| run.reboot_server(),
            when: When::Up,
            patience: (35, 50),
            // strongSwan says nothing to whom it does not know; to a server that does, the second name belongs.
            ..fault(
                "the server forgets everybody",
                &["IPSEC-DPD-DEAD", "IPSEC-PEER-REBOOT"],
                &["line", "server"],
                Program::Ike,
            )
        },
        Case {
            inject: |run| run.shake_line(),
            when: When::Up,
            patience: (20, 30),
            proof: Proof::Works,
            ..fault("the line comes and goes", &["WAN-LINK-FLAP"], &["line"], Program::Ike)
        },
        Case {
            inject: |run| run.change_wan_address(),
            when: When::Up,
            ..fault("another WAN address", &["WAN-ADDR-CHANGED"], &["line"], Program::Vpnc)
        },
        Case {
            inject: |run| run.cut_line(),
            when: When::Up,
            ..fault("the line is cut", &["WAN-DOWN"], &["line"], Program::Ike)
        },
        Case {
            natd: ("", "[passthrough]\npptp = true\n[timeout]\nudp = \"8s\""),
            prepare: |setup, _| {
                setup.pings = 0;
                setup.keep_alive = 0;
                setup.dpd = 0;
            },
            inject: |run| {
                run.seed.wait(12_000, 15_000);
                run.server_pushes(2);
            },
            when: When::Up,
            patience: (15, 25),
            proof: Proof::NoPush,
            ..fault("natd forgets a silent mapping", &["NAT-IDLE-TIMEOUT"], &["router"], Program::Ike)
        },
        Case {
            prepare: |setup, seed| setup.rekey = Some(seed.between(5, 9)),
            patience: (45, 55),
            proof: Proof::Works,
            ..fault("keys last for seconds only", &["IPSEC-REKEY-SHORT"], &["server", "device"], Program::Ike)
        },
    ]
}
