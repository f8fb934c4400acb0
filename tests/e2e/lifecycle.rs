//! Stopping, crashing and starting again under load: no household address ever stands on the WAN, in a header
//! or in a quote, and connections go on.

use std::net::TcpStream;
use std::time::Duration;

use testkit::address::{D1, D2, D3, S1, S2, WAN, at};
use testkit::traffic::Ongoing;
use testkit::{Background, Forward, Lab, LabBuilder, Nat, clock, kernel, pause, socket, tcp, traffic};

/// How long the WAN is watched after natd has gone.
const AFTERWARDS: Duration = Duration::from_secs(10);

/// A household whose devices send all the time.
struct Load {
    talk: Ongoing,
    _ongoing: Vec<Ongoing>,
    _programs: Vec<Background>,
}

fn household() -> LabBuilder {
    Lab::household().forward(Forward::udp(5000, D2, 5001)).forward(Forward::udp(
        5002,
        testkit::address::SWITCHED_OFF,
        1,
    ))
}

impl Load {
    fn start(lab: &Lab) -> Self {
        let often = Duration::from_millis(2);
        let mut ongoing = vec![traffic::udp_echo(&lab.s1, at(S1, 7)), traffic::udp_echo(&lab.s2, at(S2, 7))];
        let talk = traffic::udp_talk(&lab.d1, at(D1, 6000), at(S1, 7), often);
        for (device, addr, server) in [(&lab.d2, D2, S1), (&lab.d3, D3, S2)] {
            ongoing.push(traffic::udp_talk(device, at(addr, 6000), at(server, 7), often));
        }
        // Unanswerable questions from outside: the devices and the router make ICMP errors of them.
        ongoing.push(traffic::udp_talk(&lab.s1, at(S1, 6100), at(WAN, 5000), often));
        ongoing.push(traffic::udp_talk(&lab.s2, at(S2, 6100), at(WAN, 5002), often));
        let up = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
        let down = tcp::pair(&lab.d2, at(D2, 40_001), &lab.s2, at(S2, 80));
        for (sender, receiver) in [(up.client, up.server), (down.server, down.client)] {
            let (sending, receiving) = traffic::tcp_flow(sender, receiver);
            ongoing.extend([sending, receiving]);
        }
        let programs = vec![
            lab.d3.spawn(&["ping", "-q", "-i", "0.01", "-s", "3000", &S1.to_string()]),
            lab.d1.spawn(&["sh", "-c", "while :; do traceroute -n -w 1 -q 1 -m 4 203.0.113.10; done"]),
        ];
        talk.wait_for_more("answers under load", 100);
        Self { talk, _ongoing: ongoing, _programs: programs }
    }
}

fn forget_masquerade(lab: &Lab) {
    lab.router.nft(kernel::FORGOTTEN_MASQUERADE);
}

#[test]
fn after_kill_9_under_load_nothing_leaks_for_ten_seconds() {
    let Some(mut lab) = household().beyond_kernel("there is nothing to kill").start() else { return };
    let load = Load::start(&lab);
    let leaks = lab.watch_for_leaks();
    lab.natd().kill();
    pause(AFTERWARDS);
    leaks.expect_no_leak();
    lab.natd().restart();
    load.talk.wait_for_more("answers after the restart", 20);
    leaks.expect_no_leak();
}

#[test]
fn after_kill_9_under_load_beside_a_masquerade_nothing_leaks_for_ten_seconds() {
    let Some(mut lab) = household().beyond_kernel("there is nothing to kill").start() else { return };
    forget_masquerade(&lab);
    let load = Load::start(&lab);
    let leaks = lab.watch_for_leaks();
    lab.natd().kill();
    pause(AFTERWARDS);
    leaks.expect_no_leak();
    lab.natd().restart();
    load.talk.wait_for_more("answers after the restart", 20);
    leaks.expect_no_leak();
}

#[test]
fn after_sigterm_under_load_the_guard_stays_and_nothing_leaks_for_ten_seconds() {
    let Some(mut lab) = household().beyond_kernel("there is nothing to stop").start() else { return };
    let load = Load::start(&lab);
    let leaks = lab.watch_for_leaks();
    assert!(lab.natd().stop().success(), "{}", lab.natd().log());
    let stopped = load.talk.count();
    pause(AFTERWARDS);
    leaks.expect_no_leak();
    assert!(load.talk.count() <= stopped + 5, "without a NAT nothing goes on");
    let rules = lab.router.sh("nft list ruleset; iptables-save");
    assert!(rules.contains("natd_guard"), "{rules}");
    assert!(!rules.contains("NFQUEUE") && !rules.contains("table ip natd {"), "{rules}");
    assert!(lab.natd().log().contains("guard"), "the log names the guard:\n{}", lab.natd().log());
    lab.natd().restart();
    load.talk.wait_for_more("answers after the restart", 20);
    leaks.expect_no_leak();
}

#[test]
fn after_sigterm_under_load_beside_a_masquerade_the_kernel_takes_over_without_a_leak() {
    let Some(mut lab) = household().beyond_kernel("there is nothing to stop").start() else { return };
    forget_masquerade(&lab);
    let load = Load::start(&lab);
    let leaks = lab.watch_for_leaks();
    assert!(lab.natd().stop().success(), "{}", lab.natd().log());
    load.talk.wait_for_more("answers through the kernel's masquerade", 100);
    pause(AFTERWARDS);
    leaks.expect_no_leak();
    let rules = lab.router.sh("nft list ruleset; iptables-save");
    assert!(!rules.contains("natd"), "another NAT serves the interface, so all is gone: {rules}");
    assert!(!rules.contains("NFQUEUE"), "{rules}");
}

#[test]
fn stop_open_takes_the_guard_away_too() {
    let Some(mut lab) = Lab::household().beyond_kernel("there is nothing to stop").start() else { return };
    lab.natd().command(&["stop", "--open"]).expect_success();
    let status = lab.natd().process().wait(Duration::from_secs(10));
    assert!(status.success(), "{status:?}");
    let rules = lab.router.sh("nft list ruleset; iptables-save");
    assert!(!rules.contains("natd") && !rules.contains("NFQUEUE") && !rules.contains("NATD"), "{rules}");
}

/// natd is killed and started again while a stream flows from the first to the second end.
fn expect_stream_to_survive(mut lab: Lab, sender: TcpStream, receiver: TcpStream) {
    let (_sending, receiving) = traffic::tcp_flow(sender, receiver);
    receiving.wait_for_more("data at first", 50);
    lab.natd().kill();
    pause(Duration::from_millis(300));
    lab.natd().restart();
    receiving.wait_for_more("data after the restart", 50);
}

#[test]
fn a_download_goes_on_after_kill_9_and_restart() {
    let Some(lab) = Lab::household().beyond_kernel("there is nothing to kill").start() else { return };
    let connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    assert_eq!(connection.peer, at(WAN, 40_000), "a preserved port");
    expect_stream_to_survive(lab, connection.server, connection.client);
}

#[test]
fn an_upload_goes_on_after_kill_9_and_restart() {
    let Some(lab) = Lab::household().beyond_kernel("there is nothing to kill").start() else { return };
    let connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    assert_eq!(connection.peer, at(WAN, 40_000), "a preserved port");
    expect_stream_to_survive(lab, connection.client, connection.server);
}

#[test]
fn a_forwarded_connection_goes_on_after_kill_9_and_restart() {
    let Some(lab) = Lab::household()
        .forward(Forward::tcp(8080, D1, 80))
        .beyond_kernel("there is nothing to kill")
        .start()
    else {
        return;
    };
    let connection = tcp::pair_through(&lab.s1, at(S1, 0), at(WAN, 8080), &lab.d1, at(D1, 80));
    expect_stream_to_survive(lab, connection.client, connection.server);
}

#[test]
fn starting_beside_a_running_masquerade_takes_live_flows_over_without_a_leak() {
    let Some(mut lab) = Lab::household().nat(Nat::None).beyond_kernel("it is the one that runs").start()
    else {
        return;
    };
    forget_masquerade(&lab);
    let _echo = traffic::udp_echo(&lab.s1, at(S1, 7));
    let talk = traffic::udp_talk(&lab.d3, at(D3, 6000), at(S1, 7), Duration::from_millis(2));
    let up = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    let down = tcp::pair(&lab.d2, at(D2, 40_001), &lab.s2, at(S2, 80));
    let (_sending_up, up) = traffic::tcp_flow(up.client, up.server);
    let (_sending_down, down) = traffic::tcp_flow(down.server, down.client);
    up.wait_for_more("upload through the kernel", 50);
    down.wait_for_more("download through the kernel", 50);
    let leaks = lab.watch_for_leaks();
    lab.start_nat(Nat::Natd);
    up.wait_for_more("upload through natd", 50);
    down.wait_for_more("download through natd", 50);
    talk.wait_for_more("answers through natd", 50);
    let flows = lab.natd().command(&["flows"]).expect_success();
    for device in ["192.168.1.11:40000", "192.168.1.12:40001", "192.168.1.13:6000"] {
        assert!(flows.contains(device), "{device} is natd's now:\n{flows}");
    }
    lab.router.nft("delete table ip forgotten\n");
    up.wait_for_more("upload without the masquerade", 50);
    leaks.expect_no_leak();
}

#[test]
fn kernel_redirects_forwards_and_containers_go_on_working_beside_natd() {
    let Some(lab) = Lab::household().foreign_lan().start() else { return };
    lab.router.nft(
        r#"table ip others {
 chain prerouting {
  type nat hook prerouting priority -100;
  iifname "br-lan" udp dport 53 redirect to :5353
  iifname "br-lan" ip daddr != 192.168.0.0/16 tcp dport 3128 redirect to :3128
  iifname "wan0" tcp dport 9090 dnat to 192.168.1.12:90
  iifname "wan0" udp dport 9091 dnat to 192.168.2.21:91
 }
 chain postrouting {
  type nat hook postrouting priority 100;
  ip saddr 192.168.2.0/24 oifname "wan0" masquerade
 }
 chain accept_forwards {
  type filter hook forward priority -1;
 }
}
add rule ip lab_firewall forward ct status dnat accept
"#,
    );
    let leaks = lab.watch_for_leaks();
    // A DNS redirect to the router.
    let resolver = lab.router.udp(at(testkit::address::ROUTER_LAN, 5353));
    let device = lab.d1.udp(at(D1, 6000));
    let asker = socket::deliver(&device, at(S1, 53), &resolver, b"question");
    assert_eq!(asker, at(D1, 6000));
    assert_eq!(socket::deliver(&resolver, asker, &device, b"answer"), at(S1, 53));
    // A transparent proxy on the router.
    let _proxy = traffic::tcp_answer(&lab.router, at(std::net::Ipv4Addr::UNSPECIFIED, 3128), b"proxy");
    assert_eq!(traffic::ask(&lab.d1, at(D1, 0), at(S2, 3128)).unwrap(), b"proxy");
    // Port forwards as miniupnpd makes them, one to a device and one to a container.
    let mut forwarded = tcp::pair_through(&lab.s1, at(S1, 0), at(WAN, 9090), &lab.d2, at(D2, 90));
    forwarded.expect_alive("forwarded by the kernel");
    let (container, client) = (lab.guest().udp(at(testkit::address::GUEST, 91)), lab.s1.udp(at(S1, 6001)));
    assert_eq!(socket::deliver(&client, at(WAN, 9091), &container, b"hello"), at(S1, 6001));
    assert_eq!(socket::deliver(&container, at(S1, 6001), &client, b"answer"), at(WAN, 9091));
    // A container that the kernel translates.
    let mut outbound = tcp::pair(lab.guest(), at(testkit::address::GUEST, 0), &lab.s2, at(S2, 80));
    assert_eq!(*outbound.peer.ip(), WAN);
    outbound.expect_alive("translated by the kernel");
    // And natd's own work goes on beside all that.
    let mut own = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    own.expect_alive("translated by natd");
    leaks.expect_no_leak();
}

#[test]
fn a_forgotten_masquerade_does_not_touch_natds_packets_and_check_names_it() {
    let Some(mut lab) = Lab::household()
        .forward(Forward::udp(5000, D1, 5001))
        .beyond_kernel("one port towards everyone after a collision")
        .start()
    else {
        return;
    };
    forget_masquerade(&lab);
    let leaks = lab.watch_for_leaks();
    let (one, two) = (lab.s1.udp(at(S1, 3478)), lab.s2.udp(at(S2, 3478)));
    socket::deliver(&lab.d2.udp(at(D2, 41_000)), at(S2, 3478), &two, b"first");
    let device = lab.d1.udp(at(D1, 41_000));
    let towards_one = socket::deliver(&device, at(S1, 3478), &one, b"second");
    assert_eq!(
        towards_one,
        socket::deliver(&device, at(S2, 3478), &two, b"second"),
        "natd's mapping, not the kernel's"
    );
    assert_eq!(socket::deliver(&one, towards_one, &device, b"answer"), at(S1, 3478));
    let host = lab.d1.udp(at(D1, 5001));
    assert_eq!(socket::deliver(&one, at(WAN, 5000), &host, b"forwarded"), at(S1, 3478));
    assert_eq!(socket::deliver(&host, at(S1, 3478), &one, b"answer"), at(WAN, 5000));
    let entries = lab.router.sh("conntrack -L --src-nat 2>/dev/null");
    assert!(!entries.contains("dport=3478"), "the kernel translates none of it: {entries}");
    let check = lab.natd().check(None);
    let said = format!("{}{}", check.stdout, check.stderr);
    assert!(said.contains("masquerade"), "check names it: {said}");
    leaks.expect_no_leak();
}

#[test]
fn flows_in_the_kernels_nat_do_not_leak_when_natd_starts_and_stops_again_and_again() {
    let Some(mut lab) = Lab::household().nat(Nat::None).beyond_kernel("it is the one that runs").start()
    else {
        return;
    };
    forget_masquerade(&lab);
    let _echo = traffic::udp_echo(&lab.s1, at(S1, 7));
    let talk = traffic::udp_talk(&lab.d1, at(D1, 6000), at(S1, 7), Duration::from_millis(2));
    let leaks = lab.watch_for_leaks();
    for _ in 0..3 {
        talk.wait_for_more("answers through the kernel", 20);
        lab.start_nat(Nat::Natd);
        talk.wait_for_more("answers through natd", 20);
        assert!(lab.natd().stop().success());
    }
    let start = clock::now();
    talk.wait_for_more("answers through the kernel again", 20);
    assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
    leaks.expect_no_leak();
}
