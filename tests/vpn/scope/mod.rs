//! `scope = "vpn"`: natd has the VPNs, the kernel's masquerade beside it the rest. Whose a packet is; `changes` has
//! what happens when natd comes and goes.
//!
//! `NATD_LAB_NAT=natd-vpn` runs all other scenarios of this folder in that way too.

mod changes;

use std::time::Duration;

use testkit::address::{D1, D2, D3, GATEWAY, ROUTER_LAN, S1, S2, S3, WAN, at};
use testkit::vpn::pptp::{self, CallIds};
use testkit::vpn::raw::{self, End};
use testkit::vpn::{self, AH, ESP, GRE, L2TPV3, l2tp, ppp, strongswan, vpnc};
use testkit::{Forward, Lab, LabBuilder, Masquerade, Nat, clock, packet, socket, tcp, traffic};

use crate::ike::Initiator;
use crate::switches;

const NO_NATD: &str = "it is the other half";
const PPTP_ON: &str = "[passthrough]\npptp = true";
/// Linux: message too long.
const EMSGSIZE: i32 = 90;

fn household(by: Masquerade) -> LabBuilder {
    Lab::household().nat(Nat::NatdBeside(by)).needs_nat().beyond_kernel(NO_NATD)
}

/// How many packets any rule has queued so far; the kernel numbers them.
fn queued(lab: &Lab) -> u64 {
    let queues = lab.router.sh("cat /proc/net/netfilter/nfnetlink_queue");
    let last_ids: Vec<u64> =
        queues.lines().filter_map(|line| line.split_whitespace().nth(7)?.parse().ok()).collect();
    assert!(!last_ids.is_empty(), "natd has no queue: {queues}");
    last_ids.iter().sum()
}

/// What natd counted, whatever became of it.
fn counted(lab: &mut Lab) -> u64 {
    let status = lab.natd().command(&["status", "--json"]).expect_success();
    let status: serde_json::Value = serde_json::from_str(&status).expect("it is JSON");
    let sum = |name: &str| {
        let counters = status.get(name).and_then(serde_json::Value::as_object).expect("there are counters");
        counters.values().filter_map(serde_json::Value::as_u64).sum::<u64>()
    };
    sum("packets") + sum("drops") + sum("notes")
}

/// The flows that the kernel translates and that are a VPN's.
fn kernels_vpns(lab: &Lab) -> Vec<String> {
    let entries = lab.router.sh("conntrack -L --src-nat 2>/dev/null");
    let ports = ["=500 ", "=4500 ", "=1701 ", "=1723 "];
    let is_vpn = |line: &&str| {
        let protocol = line.split_whitespace().nth(1);
        protocol.is_some_and(|number| ["47", "50", "51", "115"].contains(&number))
            || ports.iter().any(|port| line.contains(&format!("port{port}")))
    };
    entries.lines().filter(is_vpn).map(str::to_owned).collect()
}

fn ordinary_traffic_passes_by_the_masquerade(by: Masquerade) {
    let lab =
        household(by).far_mtu(1400).forward(Forward::tcp(8080, D1, 80)).forward(Forward::udp(5000, D2, 5001));
    let Some(mut lab) = lab.start() else { return };
    let leaks = lab.watch_for_leaks();
    let (server, device) = (lab.s1.udp(at(S1, 53)), lab.d1.udp(at(D1, 6000)));
    let wan = socket::deliver(&device, at(S1, 53), &server, b"question");
    socket::deliver(&server, wan, &device, b"answer");
    tcp::pair(&lab.d1, at(D1, 0), &lab.s1, at(S1, 80)).expect_alive("from a device");
    for (node, to) in [(&lab.d1, S1), (&lab.router, S1), (&lab.s1, WAN)] {
        let said = node.run(&["ping", "-c5", "-i0.05", "-W2", "-s", "3000", &to.to_string()]);
        assert!(said.stdout.contains(" 0% packet loss"), "{said}");
    }
    // ICMP errors, from a server, from routers and from a device.
    let closed = lab.d2.udp(at(D2, 6001));
    closed.connect(at(S2, 7)).expect("a UDP socket can be connected");
    closed.send(b"anyone?").expect("it is sent");
    assert_eq!(socket::receive(&closed).map_err(|e| e.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    let said = lab.d1.run(&["traceroute", "-n", "-w2", "-q1", &S3.to_string()]).stdout;
    let hops: Vec<_> = said.lines().skip(1).filter_map(|line| line.split_whitespace().nth(1)).collect();
    assert_eq!(hops, [ROUTER_LAN, GATEWAY, S3].map(|hop| hop.to_string()), "{said}");
    let far = lab.d3.udp(at(D3, 6002));
    socket::set_dont_fragment(&far);
    let mut refusal = None;
    clock::wait_for("the path MTU to be learned", Duration::from_secs(3), || {
        refusal = far.send_to(&[1; 1472], at(S3, 6002)).err();
        refusal.is_some()
    });
    assert_eq!(refusal.and_then(|error| error.raw_os_error()), Some(EMSGSIZE));
    let outside = lab.s1.udp(at(S1, 6003));
    outside.connect(at(WAN, 5000)).expect("a UDP socket can be connected");
    outside.send(b"anyone?").expect("it is sent");
    assert_eq!(socket::receive(&outside).map_err(|e| e.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    drop(outside);
    // The kernel's port forwards.
    let (host, client) = (lab.d2.udp(at(D2, 5001)), lab.s1.udp(at(S1, 6003)));
    assert_eq!(socket::deliver(&client, at(WAN, 5000), &host, b"hello"), at(S1, 6003));
    assert_eq!(socket::deliver(&host, at(S1, 6003), &client, b"answer"), at(WAN, 5000));
    tcp::pair_through(&lab.s1, at(S1, 0), at(WAN, 8080), &lab.d1, at(D1, 80)).expect_alive("forwarded");
    if by == Masquerade::Nft {
        tcp::pair_through(&lab.d2, at(D2, 0), at(WAN, 8080), &lab.d1, at(D1, 80)).expect_alive("hairpinned");
    }
    // The router's own, and a port that nobody has.
    tcp::pair(&lab.router, at(WAN, 0), &lab.s1, at(S1, 81)).expect_alive("from the router");
    let refused = tcp::connect(&lab.s1, at(S1, 0), at(WAN, 9), Duration::from_secs(2)).map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionRefused));

    assert_eq!((queued(&lab), counted(&mut lab)), (0, 0), "natd saw none of it");
    leaks.expect_no_leak();
    // And these counters can count.
    device.send_to(b"are you there?", at(S1, 4500)).expect("it is sent");
    clock::wait_for("natd to see a VPN", Duration::from_secs(2), || queued(&lab) > 0);
    assert_ne!(counted(&mut lab), 0);
}

#[test]
fn ordinary_traffic_passes_by_nft_masquerade_and_natd_sees_none_of_it() {
    ordinary_traffic_passes_by_the_masquerade(Masquerade::Nft);
}

#[test]
fn ordinary_traffic_passes_by_iptables_masquerade_and_natd_sees_none_of_it() {
    ordinary_traffic_passes_by_the_masquerade(Masquerade::Iptables);
}

fn vpns_of_every_kind_work_at_one_time(by: Masquerade) {
    let lab = household(by).devices(8).natd_section(PPTP_ON);
    let lab = lab.needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS).needs(&pptp::PROGRAMS);
    let Some(mut lab) = lab.needs(&l2tp::PROGRAMS).start() else { return };
    let wan = lab.capture_wan();
    let devices = lab.devices();
    let [d1, d2, d3, d4, d5, d6, d7, d8] = *devices else { panic!("eight devices") };
    let bulk = tcp::pair(d1.0, at(D1, 40_000), &lab.s2, at(S2, 80));
    tcp::set_pace(&bulk.client, changes::PACE);
    let (_sending, bulk) = traffic::tcp_flow(bulk.client, bulk.server);
    let _raw_esp = strongswan::vpnc_server(&lab, &lab.s1, S1, None);
    let _pptp = pptp::server(&lab, &lab.s2, S2);
    let _l2tp = l2tp::server(&lab, &lab.s3, S3);
    let _nat_t = strongswan::server(&lab, &lab.s2, S2);
    let mut programs = Vec::new();
    for (node, _) in [d1, d2] {
        programs.push((node, vpnc::DEVICE, vpnc::client(&lab, node, S1)));
    }
    for (node, _) in [d3, d4] {
        programs.push((node, ppp::DEVICE, pptp::client(&lab, node, S2, CallIds::Fixed(0x1234))));
    }
    for (node, _) in [d5, d6] {
        programs.push((node, ppp::DEVICE, l2tp::client(&lab, node, S3)));
    }
    let clients: Vec<_> = [d7, d8].iter().map(|(node, _)| strongswan::client(&lab, node, S2)).collect();
    clients.iter().for_each(strongswan::Charon::initiate);
    for (node, device, program) in &programs {
        vpn::wait_for_tunnel(node, device, program);
    }
    vpn::ping_from_all(&lab, "with all up");
    bulk.wait_for_more("bulk data by the masquerade", 20);
    assert_eq!(kernels_vpns(&lab), Vec::<String>::new(), "the kernel translates none of them");
    let sessions = lab.natd().command(&["sessions"]).expect_success();
    for (name, at_least) in [("esp", 2), ("pptp", 2), ("l2tp", 2)] {
        assert!(sessions.to_lowercase().matches(name).count() >= at_least, "{name}:\n{sessions}");
    }
    for protocol in [ESP, GRE] {
        vpn::expect_on_wan(&lab, &wan, protocol);
    }
}

#[test]
fn vpns_of_every_kind_work_at_one_time_beside_nft_masquerade() {
    vpns_of_every_kind_work_at_one_time(Masquerade::Nft);
}

#[test]
fn vpns_of_every_kind_work_at_one_time_beside_iptables_masquerade() {
    vpns_of_every_kind_work_at_one_time(Masquerade::Iptables);
}

#[test]
fn vpns_that_are_off_are_refused_and_the_masquerade_does_not_get_them() {
    let lab = household(Masquerade::Nft).natd_section("[passthrough]\nipsec = false\nl2tp = false");
    let Some(lab) = lab.start() else { return };
    let wan = lab.capture_wan();
    let anything = [0; 32];
    let udp = |port| (17, port, packet::udp(at(D1, port), at(S1, port), &anything));
    let packets = [
        udp(500),
        udp(4500),
        udp(1701),
        (ESP, 0, raw::esp(D1, S1, 0x2001, 1)),
        (AH, 0, raw::ah(D1, S1, 0x2001, 1)),
        (GRE, 0, raw::pptp_gre(D1, S1, 0, 1)),
        (L2TPV3, 0, raw::l2tpv3(D1, S1, 101, 0)),
    ];
    switches::expect_refusal(&lab, &packets);
    let _server = lab.s1.listen(at(S1, 1723));
    let start = clock::now();
    let refused = tcp::connect(&lab.d1, at(D1, 0), at(S1, 1723), Duration::from_secs(3)).map(drop);
    assert_eq!(refused.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionRefused));
    assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    let left = vpn::from_household(&wan);
    let left: Vec<_> = left.iter().map(|seen| &seen.wire).filter(|wire| wire.dst == S1).collect();
    assert!(left.is_empty(), "{left:?}");
    // The rest goes on.
    tcp::pair(&lab.d1, at(D1, 0), &lab.s1, at(S1, 80)).expect_alive("by the masquerade");
}

#[test]
fn a_masquerade_that_picks_ports_of_vpns_for_other_flows_does_not_clash() {
    let Some(mut lab) = household(Masquerade::Nft).nat(Nat::None).start() else { return };
    lab.router.nft(
        "table ip picky {\n chain postrouting {\n  type nat hook postrouting priority 99;\n  \
         oifname \"wan0\" udp dport 9500 masquerade to :500\n  \
         oifname \"wan0\" udp dport 9501 masquerade to :4500\n }\n}\n",
    );
    lab.start_nat(Nat::NatdBeside(Masquerade::Nft));
    let servers = [9500, 9501].map(|port| lab.s1.udp(at(S1, port)));
    let devices = [(&lab.d3, D3, 500), (&lab.d2, D2, 4500)];
    let other = lab.s1.udp(at(S1, 500));
    let talk = |when: &str| {
        for ((server, asked), (node, addr, shown)) in servers.iter().zip([9500, 9501]).zip(devices) {
            let device = node.udp(at(addr, 7000));
            let seen = socket::deliver(&device, at(S1, asked), server, when.as_bytes());
            assert_eq!(seen, at(WAN, shown), "{when}");
            assert_eq!(socket::deliver(server, seen, &device, when.as_bytes()), at(S1, asked));
        }
    };
    talk("before any VPN");
    let mut first = Initiator::start(&lab.d1, D1, &other, 0x1111);
    let mut second = Initiator::start(&lab.d2, D2, &other, 0x2222);
    talk("beside IKE");
    first.quick_mode(&other);
    second.quick_mode(&other);
    // A flow of natd's on 4500 as well.
    let nat_t = lab.s1.udp(at(S1, 4500));
    let device = lab.d1.udp(at(D1, 4500));
    for when in ["one", "two"] {
        let seen = socket::deliver(&device, at(S1, 4500), &nat_t, when.as_bytes());
        assert_eq!(seen, at(WAN, 4500));
        socket::deliver(&nat_t, seen, &device, when.as_bytes());
        talk(when);
    }
}

fn a_pptp_helper_is_named(bind: &str) {
    let lab = household(Masquerade::Nft).natd_section(PPTP_ON).needs(&pptp::PROGRAMS);
    let Some(mut lab) = lab.start() else { return };
    let check = lab.natd().check(None);
    assert!(!check.stdout.contains("binds the kernel's PPTP helper"), "{check}");
    lab.router.sh(bind);
    let check = lab.natd().check(None);
    let said = format!("{}{}", check.stdout, check.stderr);
    assert!(said.contains("pptp-helper") && said.contains("binds the kernel's PPTP helper"), "{said}");
    // It would act on what the kernel translates, and natd keeps that off.
    let _server = pptp::server(&lab, &lab.s1, S1);
    let clients = [&lab.d1, &lab.d2].map(|node| pptp::client(&lab, node, S1, CallIds::Fixed(0x1234)));
    for (node, client) in [&lab.d1, &lab.d2].into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, ppp::DEVICE, client);
    }
    for node in [&lab.d1, &lab.d2] {
        vpn::ping(node, "with the kernel's helper");
    }
}

#[test]
fn a_pptp_helper_bound_by_nft_is_named_and_two_devices_have_tunnels_all_the_same() {
    a_pptp_helper_is_named(
        "nft 'table ip helpers { ct helper vpn { type \"pptp\" protocol tcp; }; \
         chain pre { type filter hook prerouting priority -150; tcp dport 1723 ct helper set \"vpn\"; }; }'",
    );
}

#[test]
fn a_pptp_helper_bound_by_iptables_is_named_and_two_devices_have_tunnels_all_the_same() {
    a_pptp_helper_is_named("iptables -t raw -A PREROUTING -p tcp --dport 1723 -j CT --helper pptp");
}

/// Wants raw ESP of two devices to one server, both ways.
fn esp_of_two_devices_works(lab: &Lab, sequence: u32) {
    let [first, second, server] =
        [(&lab.d1, D1), (&lab.d2, D2), (&lab.s1, S1)].map(|(node, addr)| End::new(node, addr, ESP));
    for (end, spi) in [(&first, 1), (&second, 2)] {
        end.send(&raw::esp(end.addr, S1, 0x2000 + spi, sequence));
        server.expect("a device's packet", WAN, (0x2000 + spi, sequence));
        server.send(&raw::esp(S1, WAN, 0x1000 + spi, sequence));
        end.expect("the answer", S1, (0x1000 + spi, sequence));
    }
    // Of the first one natd knows only that it was there: an SPI that nobody has claimed may be its own as well.
    assert_eq!(second.got(S1), [(0x1002, sequence)]);
}

/// Everything on the WAN that a device sent as a VPN since `since`.
fn vpns_on_the_wan(wan: &testkit::Capture, since: std::time::Instant) -> Vec<testkit::Wire> {
    let ports = [500, 4500, 1701, 1723];
    let sent = vpn::from_household(wan).into_iter().filter(|seen| seen.at > since).map(|seen| seen.wire);
    sent.filter(|wire| {
        [GRE, ESP, AH, L2TPV3].contains(&wire.protocol)
            || ports.contains(&wire.src_port)
            || ports.contains(&wire.dst_port)
    })
    .collect()
}
