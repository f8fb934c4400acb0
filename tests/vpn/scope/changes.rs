//! natd comes and goes beside the masquerade: the rest notices nothing, and no VPN is left between the two.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use testkit::address::{D1, D2, D3, S1, S2, S3, at};
use testkit::traffic::{self, Ongoing};
use testkit::vpn::{self, ESP, l2tp, ppp, strongswan, vpnc};
use testkit::{Background, Lab, Masquerade, Nat, clock, packet, pause, tcp};

use super::{esp_of_two_devices_works, household, kernels_vpns, vpns_on_the_wan};

/// Longer than any flow may stand still; a machine with other work to do halts one for a while.
const STALL: Duration = Duration::from_secs(1);

/// Bytes a second of each TCP flow.
pub(super) const PACE: i32 = 4_000_000;

/// Ordinary traffic all the time, which the masquerade translates.
struct Ordinary {
    counted: Vec<Ongoing>,
    _beside: Vec<Ongoing>,
}

impl Ordinary {
    fn start(lab: &Lab) -> Self {
        let echo = traffic::udp_echo(&lab.s2, at(S2, 7));
        let talk = traffic::udp_talk(&lab.d3, at(D3, 6000), at(S2, 7), Duration::from_millis(2));
        let up = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s2, at(S2, 80));
        let down = tcp::pair(&lab.d2, at(D2, 40_001), &lab.s2, at(S2, 81));
        // What flows faster costs the captures more than it shows.
        tcp::set_pace(&up.client, PACE);
        tcp::set_pace(&down.server, PACE);
        let (sending_up, up) = traffic::tcp_flow(up.client, up.server);
        let (sending_down, down) = traffic::tcp_flow(down.server, down.client);
        let ordinary = Self { counted: vec![talk, up, down], _beside: vec![echo, sending_up, sending_down] };
        ordinary.counted.iter().for_each(|flow| flow.wait_for_more("ordinary traffic", 20));
        ordinary
    }

    /// None of it stands still while `work` is done.
    fn never_stalls(&self, when: &str, work: impl FnOnce()) {
        struct Done<'a>(&'a AtomicBool);
        impl Drop for Done<'_> {
            fn drop(&mut self) {
                self.0.store(true, Ordering::Relaxed);
            }
        }
        let done = AtomicBool::new(false);
        let longest = std::thread::scope(|scope| {
            let watcher = scope.spawn(|| self.longest_stall(&done));
            let end = Done(&done);
            work();
            drop(end);
            watcher.join().expect("it does not panic")
        });
        println!("{when}: the longest stalls are {longest:?}");
        assert!(longest.iter().all(|stall| *stall < STALL), "{when}: {longest:?}");
        self.counted.iter().for_each(|flow| flow.wait_for_more("ordinary traffic", 20));
    }

    fn longest_stall(&self, done: &AtomicBool) -> Vec<Duration> {
        let start = clock::now();
        let mut last: Vec<_> =
            self.counted.iter().map(|flow| (flow.count(), start, Duration::ZERO)).collect();
        while !done.load(Ordering::Relaxed) {
            pause(Duration::from_millis(5));
            for (flow, (count, since, longest)) in self.counted.iter().zip(&mut last) {
                *longest = (*longest).max(since.elapsed());
                if flow.count() != *count {
                    (*count, *since) = (flow.count(), clock::now());
                }
            }
        }
        last.into_iter().map(|(_, _, longest)| longest).collect()
    }
}

/// UDP of two devices from port 4500 to one server's.
fn nat_traversal(lab: &Lab) -> ([Ongoing; 2], Ongoing) {
    let echo = traffic::udp_echo(&lab.s1, at(S1, 4500));
    let often = Duration::from_millis(5);
    let talks = [(&lab.d1, D1), (&lab.d2, D2)]
        .map(|(node, addr)| traffic::udp_talk(node, at(addr, 4500), at(S1, 4500), often));
    talks.iter().for_each(|talk| talk.wait_for_more("answers at first", 20));
    (talks, echo)
}

fn natds_rules(lab: &Lab) -> bool {
    let rules = lab.router.sh("nft list ruleset; iptables-save");
    rules.to_lowercase().contains("natd") || rules.contains("NFQUEUE")
}

#[test]
fn after_kill_9_the_rest_goes_on_and_no_vpn_leaves_until_natd_is_back() {
    let lab = household(Masquerade::Nft).needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS);
    let Some(mut lab) = lab.needs(&l2tp::PROGRAMS).start() else { return };
    let ordinary = Ordinary::start(&lab);
    let _servers = strongswan::vpnc_server(&lab, &lab.s1, S1, None);
    let _l2tp = l2tp::server(&lab, &lab.s3, S3);
    let mut programs: Vec<Background> =
        [&lab.d1, &lab.d2].iter().map(|node| vpnc::client(&lab, node, S1)).collect();
    programs.push(l2tp::client(&lab, &lab.d3, S3));
    for ((node, _), (device, program)) in
        lab.devices().into_iter().zip([vpnc::DEVICE, vpnc::DEVICE, ppp::DEVICE].into_iter().zip(&programs))
    {
        vpn::wait_for_tunnel(node, device, program);
    }
    vpn::ping_from_all(&lab, "at first");
    let inner = vpn::INNER.to_string();
    let _pings: Vec<_> =
        lab.devices().iter().map(|(node, _)| node.spawn(&["ping", "-q", "-i", "0.02", &inner])).collect();
    let leaks = lab.watch_for_leaks();
    let wan = lab.capture_wan();
    // Of the rules that queue, a firewall's restart may take the rest; the guard is a table of its own.
    let take_rules = "nft delete table ip natd; iptables -t raw -F; iptables -t mangle -F";
    for firewall_restart in ["true", take_rules] {
        ordinary.never_stalls("natd is killed", || {
            lab.natd().kill();
            lab.router.sh(firewall_restart);
            // What it had answered for is on its way.
            pause(Duration::from_millis(50));
            let killed = clock::now();
            // New ones too, of which conntrack knows nothing.
            lab.d3.raw().send(&vpn::raw::esp(D3, S2, 0x2003, 1));
            lab.d3.raw().send(&packet::udp(at(D3, 4500), at(S2, 4500), b"are you there?"));
            pause(Duration::from_secs(3));
            let left = vpns_on_the_wan(&wan, killed);
            assert!(left.is_empty(), "{} packets, the first: {:?}", left.len(), left.first());
        });
        assert_eq!(kernels_vpns(&lab), Vec::<String>::new());
        ordinary.never_stalls("natd is back", || lab.natd().restart());
        vpn::ping_from_all(&lab, "after the restart");
    }
    leaks.expect_no_leak();
}

#[test]
fn after_an_orderly_stop_the_masquerade_has_it_all_and_gives_it_back() {
    let Some(mut lab) = household(Masquerade::Nft).start() else { return };
    let ordinary = Ordinary::start(&lab);
    let (talks, _echo) = nat_traversal(&lab);
    assert_eq!(kernels_vpns(&lab), Vec::<String>::new());
    let leaks = lab.watch_for_leaks();
    for _ in 0..2 {
        ordinary.never_stalls("natd stops", || assert!(lab.natd().stop().success(), "an orderly end"));
        assert!(!natds_rules(&lab), "rules of natd stay");
        talks.iter().for_each(|talk| talk.wait_for_more("answers through the masquerade", 20));
        assert_eq!(kernels_vpns(&lab).len(), 2, "{:?}", kernels_vpns(&lab));
        ordinary.never_stalls("natd starts", || lab.natd().restart());
        talks.iter().for_each(|talk| talk.wait_for_more("answers through natd", 20));
        let gone = clock::holds_within(Duration::from_secs(5), || kernels_vpns(&lab).is_empty());
        assert!(gone, "{:?}", kernels_vpns(&lab));
    }
    leaks.expect_no_leak();
}

#[test]
fn natd_takes_over_what_the_masquerade_had() {
    let lab = household(Masquerade::Nft)
        .nat(Nat::KernelMasquerade)
        .needs(&strongswan::PROGRAMS)
        .needs(&vpnc::PROGRAMS);
    let Some(mut lab) = lab.natd_section(super::PPTP_ON).start() else { return };
    let ordinary = Ordinary::start(&lab);
    let _server = strongswan::vpnc_server(&lab, &lab.s1, S1, None);
    let first = vpnc::client(&lab, &lab.d1, S1);
    vpn::wait_for_tunnel(&lab.d1, vpnc::DEVICE, &first);
    vpn::ping(&lab.d1, "through the masquerade");
    let mut control = tcp::pair(&lab.d2, at(D2, 0), &lab.s3, at(S3, 1723));
    control.expect_alive("through the masquerade");
    assert!(!kernels_vpns(&lab).is_empty(), "the masquerade has them");
    let leaks = lab.watch_for_leaks();
    ordinary.never_stalls("natd starts", || lab.start_nat(Nat::NatdBeside(Masquerade::Nft)));
    vpn::ping(&lab.d1, "through natd");
    assert_eq!(kernels_vpns(&lab), Vec::<String>::new());
    control.expect_alive("through natd");
    let second = vpnc::client(&lab, &lab.d2, S1);
    vpn::wait_for_tunnel(&lab.d2, vpnc::DEVICE, &second);
    for node in [&lab.d1, &lab.d2] {
        vpn::ping(node, "with both up");
    }
    leaks.expect_no_leak();
}

#[test]
fn esp_that_the_masquerade_had_is_not_stuck() {
    let Some(mut lab) = household(Masquerade::Nft).nat(Nat::KernelMasquerade).start() else { return };
    let first = vpn::raw::End::new(&lab.d1, D1, ESP);
    first.send(&vpn::raw::esp(D1, S1, 0x2001, 1));
    assert_eq!(kernels_vpns(&lab).len(), 1, "{:?}", kernels_vpns(&lab));
    drop(first);
    lab.start_nat(Nat::NatdBeside(Masquerade::Nft));
    esp_of_two_devices_works(&lab, 2);
    assert_eq!(kernels_vpns(&lab), Vec::<String>::new());
    // Natd's own flows end with it, and only the first device's begins anew.
    assert!(lab.natd().stop().success());
    let left = lab.router.sh("conntrack -L 2>/dev/null");
    assert!(!left.lines().any(|line| line.split_whitespace().nth(1) == Some("50")), "{left}");
}

#[test]
fn bare_esp_goes_on_by_the_masquerade_after_an_orderly_stop() {
    let lab = household(Masquerade::Nft).needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS);
    let Some(mut lab) = lab.start() else { return };
    let _server = strongswan::vpnc_server(&lab, &lab.s1, S1, None);
    let clients = [&lab.d1, &lab.d2].map(|node| vpnc::client(&lab, node, S1));
    for (node, client) in [&lab.d1, &lab.d2].into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, vpnc::DEVICE, client);
    }
    for node in [&lab.d1, &lab.d2] {
        vpn::ping(node, "through natd");
    }
    assert!(lab.natd().stop().success());
    // The masquerade can do one.
    vpn::cut_power(&lab.d2);
    vpn::ping(&lab.d1, "through the masquerade");
    lab.natd().restart();
    vpn::ping(&lab.d1, "through natd again");
    assert_eq!(kernels_vpns(&lab), Vec::<String>::new());
}
