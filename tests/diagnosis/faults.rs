//! What goes wrong has the same name from wherever it is seen.

use diagnosis::Household;

use crate::ipsec::{Ike, Login};
use crate::net::{Fate, Fault, Line, Sight};
use crate::others::{L2tp, OpenVpn, Pptp, Tcp, WireGuard};
use crate::stories::{judge, seeds};
use crate::view::{View, watch};

/// What is injected, what the device does, and what is to be found at the end: where both sides are seen, and
/// elsewhere.
struct Case {
    name: &'static str,
    fault: Fault,
    story: fn(&mut Line),
    both: &'static [&'static str],
    one: &'static [&'static str],
}

const fn case(
    name: &'static str,
    fault: Fault,
    story: fn(&mut Line),
    codes: &'static [&'static str],
) -> Case {
    Case { name, fault, story, both: codes, one: codes }
}

fn lost(is: bool) -> Fate {
    if is { Fate::LostOnTheWay } else { Fate::Arrives }
}

fn swallowed(is: bool) -> Fate {
    if is { Fate::Swallowed } else { Fate::Arrives }
}

/// Tries, and tries again, as programs do.
fn dial(line: &mut Line, login: Login, nat_t: bool) {
    for _ in 0..2 {
        let mut ike = Ike::new(line, login, nat_t);
        if ike.connect(line) {
            line.wait(20);
            ike.data(line, 40, 4);
            return;
        }
        line.wait_about(8_000);
    }
}

fn any_v2(line: &mut Line) -> Login {
    if line.dice.one_in(2) { Login::V2Psk } else { Login::V2Eap }
}

fn any(line: &mut Line) -> Login {
    Login::ALL[usize::try_from(line.dice.between(0, 4)).unwrap()]
}

fn wait_after(line: &mut Line) {
    line.wait(1);
}

const CASES: [Case; 24] = [
    case(
        "UDP 500 is dropped",
        |f| lost(f.is_udp(500) && f.outbound),
        |line| {
            let login = any(line);
            dial(line, login, true);
        },
        &["IKE-500-NO-REPLY"],
    ),
    case(
        "answers from UDP 500 are dropped",
        |f| lost(f.is_udp(500) && !f.outbound),
        |line| {
            let login = any(line);
            dial(line, login, true);
        },
        &["IKE-500-NO-REPLY"],
    ),
    case(
        "UDP 4500 is dropped",
        |f| lost(f.is_udp(4500) && f.outbound),
        |line| {
            let login = any_v2(line);
            dial(line, login, true);
        },
        &["IKE-4500-NO-REPLY"],
    ),
    case(
        "answers from UDP 4500 are dropped",
        |f| lost(f.is_udp(4500) && !f.outbound),
        |line| {
            let login = any_v2(line);
            dial(line, login, true);
        },
        &["IKE-4500-NO-REPLY"],
    ),
    case(
        "ESP out is dropped",
        |f| lost(f.is_esp() && f.outbound),
        |line| {
            let login = any(line);
            dial(line, login, false);
        },
        &["IPSEC-ESP-NO-RETURN"],
    ),
    case(
        "ESP in is dropped",
        |f| lost(f.is_esp() && !f.outbound),
        |line| {
            let login = any(line);
            dial(line, login, false);
        },
        &["IPSEC-ESP-NO-RETURN"],
    ),
    case(
        "ESP in UDP in is dropped",
        |f| lost(f.is_esp() && !f.outbound),
        |line| {
            let login = any(line);
            dial(line, login, true);
        },
        &["IPSEC-ESP-NO-RETURN"],
    ),
    case(
        "fragments out are dropped",
        |f| lost(f.fragment && f.outbound),
        |line| {
            for _ in 0..2 {
                let mut ike = Ike::new(line, Login::V2Psk, true);
                ike.connect_with(line, &[(1900, 1700)]);
                line.wait_about(8_000);
            }
        },
        &["IKE-AUTH-FRAG-LOST"],
    ),
    case(
        "wrong password, IKEv2",
        |_| Fate::Arrives,
        |line| {
            let login = any_v2(line);
            let mut ike = Ike::new(line, login, true);
            ike.wrong_password(line);
            wait_after(line);
        },
        &["IKE-AUTH-REJECTED"],
    ),
    case(
        "wrong password three times, IKEv2",
        |_| Fate::Arrives,
        |line| {
            let login = any_v2(line);
            for _ in 0..3 {
                let mut ike = Ike::new(line, login, true);
                ike.wrong_password(line);
                line.wait_about(10_000);
            }
        },
        &["IKE-AUTH-REJECTED"],
    ),
    case(
        "no proposal, IKEv2",
        |_| Fate::Arrives,
        |line| {
            for _ in 0..2 {
                Ike::new(line, Login::V2Psk, true).refused(line, 14);
                line.wait_about(10_000);
            }
        },
        &["IKE-NO-PROPOSAL"],
    ),
    case(
        "no proposal, IKEv1",
        |_| Fate::Arrives,
        |line| {
            for _ in 0..2 {
                Ike::new(line, Login::Main, true).refused(line, 14);
                line.wait_about(10_000);
            }
        },
        &["IKE-NO-PROPOSAL"],
    ),
    case(
        "nobody at UDP 500",
        |f| lost(f.outbound),
        |line| {
            let mut ike = Ike::new(line, Login::V2Psk, true);
            let request = ike.first(line);
            for pause in [2_000, 4_000, 7_000] {
                line.out(&request);
                line.travel();
                line.icmp(line.server, 3, 3, &request);
                line.wait(pause);
            }
        },
        &["IKE-500-ICMP-PORT"],
    ),
    case(
        "the server falls silent",
        |f| lost(f.at > 60_000_000),
        |line| {
            let login = any(line);
            let mut ike = Ike::new(line, login, true);
            assert!(ike.connect(line));
            ike.data(line, 90, 3);
            for _ in 0..2 {
                ike.dpd(line, true);
            }
            dial(line, login, true);
        },
        &["IKE-500-NO-REPLY", "IPSEC-DPD-DEAD"],
    ),
    case(
        "TCP 1723 is refused",
        |f| lost(f.outbound),
        |line| {
            for _ in 0..3 {
                Tcp::refused(line, 1723);
                line.wait_about(5_000);
            }
        },
        &["PPTP-1723-REFUSED"],
    ),
    case(
        "TCP 1723 is dropped",
        |f| lost(f.message.protocol == 6),
        |line| {
            assert!(Pptp::call(line).is_none());
        },
        &["PPTP-1723-NO-REPLY"],
    ),
    case(
        "GRE is dropped",
        |f| lost(f.message.protocol == 47),
        |line| {
            for _ in 0..2 {
                let mut call = Pptp::call(line).unwrap();
                call.login(line, true);
                call.hang_up(line);
                line.wait_about(8_000);
            }
        },
        &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    ),
    case(
        "GRE in is dropped",
        |f| lost(f.message.protocol == 47 && !f.outbound),
        |line| {
            let mut call = Pptp::call(line).unwrap();
            call.login(line, true);
            call.hang_up(line);
        },
        &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    ),
    case(
        "wrong password, PPTP",
        |_| Fate::Arrives,
        |line| {
            let mut call = Pptp::call(line).unwrap();
            call.login(line, false);
            call.hang_up(line);
        },
        &["PPTP-AUTH-FAIL"],
    ),
    case(
        "UDP 1701 is dropped",
        |f| lost(f.is_udp(1701)),
        |line| {
            assert!(!L2tp::new(line).connect(line));
        },
        &["L2TP-1701-NO-REPLY"],
    ),
    case(
        "WireGuard is dropped",
        |f| lost(f.outbound),
        |line| {
            assert!(!WireGuard::new(line).handshake(line, 8));
        },
        &["WG-HANDSHAKE-NO-REPLY"],
    ),
    case(
        "OpenVPN is dropped",
        |f| lost(f.outbound),
        |line| {
            assert!(!OpenVpn::new(line, false).unwrap().connect(line));
        },
        &["OVPN-RESET-NO-REPLY"],
    ),
    Case {
        name: "the router swallows UDP 500",
        fault: |f| swallowed(f.is_udp(500) && f.outbound),
        story: |line| {
            let login = any(line);
            dial(line, login, true);
        },
        both: &["LOCAL-FIREWALL"],
        one: &["IKE-500-NO-REPLY"],
    },
    Case {
        name: "the router swallows GRE",
        fault: |f| swallowed(f.message.protocol == 47 && f.outbound),
        story: |line| {
            let mut call = Pptp::call(line).unwrap();
            call.login(line, true);
            call.hang_up(line);
        },
        both: &["LOCAL-FIREWALL"],
        one: &["PPTP-GRE-BLOCKED-OUT-OR-IN"],
    },
];

fn told(story: fn(&mut Line), fault: Fault, number: u8, v6: bool, seed: u64) -> Vec<Sight> {
    let mut line = Line::new(number, v6, seed, fault);
    story(&mut line);
    line.sights
}

#[test]
fn a_fault_has_the_same_name_from_everywhere() {
    let only = std::env::var("NATD_STORY").ok();
    let mut wrong = Vec::new();
    for case in &CASES {
        if only.as_ref().is_some_and(|only| !case.name.contains(only.as_str())) {
            continue;
        }
        for seed in 0..seeds(3) {
            for v6 in [false, true] {
                if v6
                    && (case.name.contains("PPTP")
                        || case.name.contains("GRE")
                        || case.name.contains("nobody"))
                {
                    continue;
                }
                let sights = told(case.story, case.fault, 0, v6, seed);
                for view in View::ALL {
                    let swallowed = case.both != case.one;
                    if view == View::CaptureWan && swallowed {
                        continue;
                    }
                    // A capture of both sides that shows no packet on both does not know which is which.
                    let both =
                        view == View::Live || view == View::CaptureBoth && !case.name.ends_with("UDP 500");
                    let told = watch(view, &sights, 20, seed, &|_, _: &mut Household| {});
                    let place = format!("{}, {view:?}, v6 {v6}, seed {seed}", case.name);
                    let expected = if both { case.both } else { case.one };
                    // Its handshake is known by its length, which is not all there.
                    let expected = if view == View::CaptureCut && case.name.contains("WireGuard") {
                        &[]
                    } else {
                        expected
                    };
                    let last = told.last();
                    if last != expected {
                        wrong.push(format!("{place}: {last:?}, not {expected:?}; ever {:?}", told.ever()));
                    }
                    wrong.extend(told.wrong.iter().map(|what| format!("{place}: {what}")));
                }
            }
        }
    }
    judge(wrong);
}

/// The WAN gets another address, and ESP without NAT-T goes on to the old one.
#[test]
fn another_wan_address_under_esp() {
    const AT: u64 = 30;
    let new = [203, 0, 113, 77].into();
    let mut wrong = Vec::new();
    for seed in 0..seeds(3) {
        let mut line =
            Line::new(0, false, seed, |f| lost(f.is_esp() && !f.outbound && f.at > AT * 1_000_000));
        let mut ike = Ike::new(&mut line, Login::Main, false);
        assert!(ike.connect(&mut line));
        let before = AT.saturating_sub(line.now / 1_000_000);
        ike.data(&mut line, before, 4);
        line.wan = new;
        for _ in 0..2 {
            ike.data(&mut line, 60, 8);
            ike.dpd(&mut line, true);
        }
        let changed = |second: u64, household: &mut Household| {
            if second == AT {
                let at = nat_core::time::Timestamp::from_micros(AT * 1_000_000);
                household.router.wan_changed = Some((at, [203, 0, 113, 5].into()));
                household.router.wan = vec![new];
            }
        };
        for view in [View::Live, View::LiveLan] {
            let told = watch(view, &line.sights, 5, seed, &changed);
            if told.last() != ["WAN-ADDR-CHANGED"] || told.ever().len() != 1 {
                wrong.push(format!("{view:?}, seed {seed}: {:?}", told.ever()));
            }
        }
    }
    judge(wrong);
}

/// Of several devices one has a fault, and it is found with that one only.
#[test]
fn one_device_of_several() {
    let mut wrong = Vec::new();
    for seed in 0..seeds(2) {
        let mut sights = Vec::new();
        for number in 0..4 {
            let fault: Fault = if number == 2 { |f| lost(f.is_udp(4500)) } else { |_| Fate::Arrives };
            sights.append(&mut told(|line| dial(line, Login::V2Psk, true), fault, number, false, seed));
        }
        sights.sort_by_key(|sight| sight.at);
        for view in View::ALL.into_iter().filter(|view| *view != View::CaptureWan) {
            let told = watch(view, &sights, 20, seed, &|_, _: &mut Household| {});
            let faulty = std::net::IpAddr::from([192, 168, 1, 13]);
            let others =
                |list: &[diagnosis::Finding]| list.iter().any(|finding| finding.device != Some(faulty));
            if told.last() != ["IKE-4500-NO-REPLY"] || told.findings.iter().any(|(_, list)| others(list)) {
                wrong.push(format!("{view:?}, seed {seed}: {:?}", told.ever()));
            }
        }
    }
    judge(wrong);
}
