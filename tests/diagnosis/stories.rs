//! Conversations that work: nothing is found.

use std::env;

use diagnosis::Household;

use crate::ipsec::{Ike, Login};
use crate::net::{Dice, Line, Sight, healthy};
use crate::others::{L2tp, OpenVpn, Pptp, WireGuard, web};
use crate::view::{View, family, watch};

/// A story, and how many sessions each device has in it.
pub(crate) type Story = (&'static str, usize, fn(&mut Line));

fn ike(line: &mut Line, login: Login, nat_t: bool) -> Ike {
    let mut ike = Ike::new(line, login, nat_t);
    assert!(ike.connect(line), "nothing is lost so often");
    line.wait(20);
    ike
}

fn any_login(line: &mut Line) -> Login {
    Login::ALL[usize::try_from(line.dice.between(0, 5)).unwrap()]
}

const STORIES: [Story; 22] = [
    ("IPsec, used and closed", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        ike.data(line, 30, 8);
        ike.close(line);
    }),
    ("IPsec without NAT-T", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, false);
        ike.data(line, 40, 8);
        ike.close(line);
    }),
    ("IPsec with DPD from both sides", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        for round in 0..10 {
            ike.data(line, 2, 4);
            ike.keepalives(line, 1);
            ike.dpd(line, round % 2 == 0);
        }
        ike.close(line);
    }),
    ("IPsec with new keys", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        for round in 0..3 {
            ike.data(line, 8, 6);
            ike.keepalives(line, 45);
            ike.data(line, 2, 6);
            ike.rekey(line, round % 2 == 0);
        }
        ike.data(line, 10, 4);
    }),
    ("IPsec, keepalives only", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        ike.data(line, 2, 3);
        ike.keepalives(line, 40);
    }),
    ("IPsec on a phone that sleeps", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        for _ in 0..4 {
            ike.data(line, 5, 5);
            line.wait_about(240_000);
            ike.dpd(line, true);
        }
    }),
    ("IPsec, closed and opened again", 4, |line| {
        for _ in 0..4 {
            let login = any_login(line);
            let mut ike = ike(line, login, true);
            ike.data(line, 5, 5);
            ike.close(line);
            line.wait_about(8_000);
        }
    }),
    ("IKEv2 that roams", 1, |line| {
        let mut ike = ike(line, Login::V2Eap, true);
        ike.data(line, 10, 5);
        line.remapped = 1;
        ike.mobike(line);
        ike.data(line, 20, 5);
    }),
    ("IPsec with much traffic", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        ike.data(line, 12, 100);
        ike.keepalives(line, 3);
        ike.data(line, 3, 100);
        ike.close(line);
    }),
    ("IPsec and the web", 1, |line| {
        let mut ike = ike(line, Login::V2Psk, true);
        ike.data(line, 5, 5);
        web(line, 8);
        ike.data(line, 5, 5);
    }),
    ("IKEv2 with a new IKE SA", 1, |line| {
        let mut ike = ike(line, Login::V2Psk, true);
        ike.data(line, 5, 5);
        ike.keepalives(line, 90);
        ike.renew(line);
        ike.data(line, 20, 5);
        ike.keepalives(line, 10);
    }),
    ("IPsec over hours", 1, |line| {
        let login = any_login(line);
        let mut ike = ike(line, login, true);
        for hour in 0..3 {
            ike.data(line, 5, 3);
            for _ in 0..6 {
                ike.keepalives(line, 20);
                ike.dpd(line, true);
            }
            ike.rekey(line, hour == 1);
        }
    }),
    ("OpenVPN, pings only", 1, |line| {
        let mut vpn = OpenVpn::new(line, false).unwrap();
        assert!(vpn.connect(line));
        vpn.data(line, 2, 5);
        vpn.pings(line, 60);
    }),
    ("PPTP", 1, |line| {
        let mut call = Pptp::call(line).unwrap();
        assert!(call.login(line, true));
        call.data(line, 20, 10);
        call.quiet(line, 6);
        call.data(line, 5, 10);
        call.close(line);
    }),
    ("PPTP, called again", 3, |line| {
        for _ in 0..3 {
            let mut call = Pptp::call(line).unwrap();
            assert!(call.login(line, true));
            call.data(line, 10, 5);
            call.close(line);
            line.wait_about(20_000);
        }
    }),
    ("L2TP", 1, |line| {
        let mut tunnel = L2tp::new(line);
        assert!(tunnel.connect(line));
        tunnel.negotiate(line);
        tunnel.data(line, 20, 8);
        tunnel.quiet(line, 6);
        tunnel.data(line, 5, 8);
        tunnel.close(line);
    }),
    ("WireGuard", 1, |line| {
        let mut tunnel = WireGuard::new(line);
        assert!(tunnel.handshake(line, 5));
        tunnel.data(line, 290, 3);
    }),
    ("WireGuard, keepalives only", 1, |line| {
        let mut tunnel = WireGuard::new(line);
        assert!(tunnel.handshake(line, 5));
        tunnel.keepalives(line, 12);
    }),
    ("WireGuard on a phone that sleeps", 1, |line| {
        let mut tunnel = WireGuard::new(line);
        for _ in 0..4 {
            assert!(tunnel.handshake(line, 5));
            tunnel.data(line, 20, 5);
            line.wait_about(200_000);
        }
    }),
    ("OpenVPN", 1, |line| {
        let mut vpn = OpenVpn::new(line, false).unwrap();
        assert!(vpn.connect(line));
        vpn.data(line, 40, 5);
        vpn.renew(line);
        vpn.data(line, 20, 5);
    }),
    ("OpenVPN over TCP", 1, |line| {
        line.lossy = false;
        let mut vpn = OpenVpn::new(line, true).unwrap();
        assert!(vpn.connect(line));
        vpn.data(line, 40, 5);
        vpn.renew(line);
        vpn.data(line, 20, 5);
    }),
    ("the web", 0, |line| web(line, 25)),
];

/// What so many devices do, all in one.
pub(crate) fn household(story: fn(&mut Line), devices: u8, v6: bool, seed: u64, lossy: bool) -> Vec<Sight> {
    let mut all = Vec::new();
    for number in 0..devices {
        let mut line = Line::new(number, v6, seed, healthy);
        line.lossy = lossy;
        line.now += u64::from(number) * line.dice.between(300_000, 9_000_000);
        story(&mut line);
        all.append(&mut line.sights);
    }
    all.sort_by_key(|sight| sight.at);
    all
}

pub(crate) fn seeds(usually: u64) -> u64 {
    env::var("NATD_SEEDS").ok().and_then(|text| text.parse().ok()).unwrap_or(usually)
}

/// Prints what is wrong once for each story and view, and fails if anything is.
pub(crate) fn judge(mut wrong: Vec<String>) {
    wrong.sort_unstable();
    let all = wrong.len();
    for line in wrong.iter().take(60) {
        eprintln!("{line}");
    }
    assert_eq!(all, 0, "see above");
}

fn healthy_in(devices: &[u8], v6: bool, lossy: bool, usually: u64) {
    let only = env::var("NATD_STORY").ok();
    let mut wrong = Vec::new();
    for (name, sessions, story) in STORIES {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) || v6 && name.contains("PPTP") {
            continue;
        }
        for seed in 0..seeds(usually) {
            for &devices in devices {
                let sights = household(story, devices, v6, seed, lossy);
                for view in View::ALL {
                    // Beyond the NAT several devices are one.
                    if view == View::CaptureWan && devices > 1 && !v6 {
                        continue;
                    }
                    let told = watch(view, &sights, 90, seed, &|_, _: &mut Household| {});
                    let place = format!("{name}, {view:?}, {devices} devices, v6 {v6}, seed {seed}");
                    for (code, (from, to, confidence)) in told.ever() {
                        wrong.push(format!("{place}: {code} {confidence:?} from {from} s to {to} s"));
                    }
                    wrong.extend(told.wrong.iter().map(|what| format!("{place}: {what}")));
                    for session in &told.sessions {
                        let ended = session.reason.starts_with("closed") || session.reason.is_empty();
                        if !ended && session.reason != "replaced by a new one" {
                            wrong.push(format!("{place}: {:?} over: {}", session.vpn, session.reason));
                        }
                    }
                    let mut each: Vec<_> = told
                        .sessions
                        .iter()
                        .map(|s| (s.device, s.server, family(s.vpn) as u8, s.attempt))
                        .collect();
                    each.sort_unstable();
                    each.dedup();
                    if each.len() != sessions * usize::from(devices) {
                        wrong.push(format!("{place}: {} sessions: {:#?}", each.len(), told.sessions));
                    }
                }
            }
        }
    }
    judge(wrong);
}

#[test]
fn what_works_has_no_finding() {
    healthy_in(&[1], false, false, 2);
}

#[test]
fn what_works_over_ipv6_has_no_finding() {
    healthy_in(&[1], true, false, 1);
}

#[test]
fn what_works_with_a_packet_lost_now_and_then_has_no_finding() {
    healthy_in(&[1], false, true, 2);
}

#[test]
fn what_works_for_several_devices_has_no_finding() {
    let thorough = env::var("NATD_SEEDS").is_ok();
    healthy_in(if thorough { &[2, 8] } else { &[3] }, false, false, 1);
}

/// Whoever begins to watch while it runs sees a part.
#[test]
fn what_works_has_no_finding_when_its_beginning_was_not_seen() {
    let mut wrong = Vec::new();
    for (name, _, story) in STORIES {
        for seed in 0..seeds(1) {
            let mut sights = household(story, 1, false, seed, false);
            let last = sights.last().map_or(0, |sight| sight.at);
            let begin = Dice(seed).between(1_000_000, last.max(1_000_001));
            sights.retain(|sight| sight.at >= begin);
            for view in View::ALL {
                let told = watch(view, &sights, 90, seed, &|_, _: &mut Household| {});
                let place = format!("{name}, {view:?}, seed {seed}, from {} ms", begin / 1000);
                for (code, (from, to, confidence)) in told.ever() {
                    wrong.push(format!("{place}: {code} {confidence:?} from {from} s to {to} s"));
                }
                wrong.extend(told.wrong.iter().map(|what| format!("{place}: {what}")));
            }
        }
    }
    judge(wrong);
}

#[test]
#[ignore = "prints the session events of NATD_STORY with NATD_SEED"]
fn show_events() {
    let wanted = env::var("NATD_STORY").unwrap();
    let seed = env::var("NATD_SEED").unwrap().parse().unwrap();
    let (_, _, story) = STORIES.iter().find(|(name, ..)| name.contains(&wanted)).unwrap();
    let devices = env::var("NATD_DEVICES").map_or(1, |text| text.parse().unwrap());
    let sights =
        household(*story, devices, env::var("NATD_V6").is_ok(), seed, env::var("NATD_LOSSY").is_ok());
    let view = env::var("NATD_VIEW").map_or(View::CaptureLan, |name| {
        View::ALL.into_iter().find(|view| format!("{view:?}") == name).unwrap()
    });
    for sight in sights.iter().filter(|sight| view.sees(sight.place)) {
        let head = sight.bytes.iter().skip(if sight.bytes[0] >> 4 == 4 { 20 } else { 40 }).take(40);
        let head: String = head.map(|byte| format!("{byte:02x}")).collect();
        let (at, len) = (sight.at / 1000, sight.bytes.len());
        println!(
            "{at:>8} {:?} {} {len:>5} {:3} {head}",
            sight.place,
            if sight.outbound { ">" } else { "<" },
            sight.bytes[9]
        );
    }
    let told = watch(view, &sights, 90, seed, &|_, _: &mut Household| {});
    for event in &told.events {
        let session = &event.session;
        println!(
            "{:?} {:?} {} {:?} -> {:?} {}",
            event.at, session.vpn, session.attempt, event.before, session.phase, session.reason
        );
    }
    println!("{:#?}\n{:#?}", told.sessions, told.ever());
}
