//! `natd probe` against real VPN servers, over paths on which something is blocked.
//!
//! ```text
//!  d1 … ┬ router (hop 1) ── internet (hop 2) ── s3 (hop 3) ── s2, the server: strongSwan, pptpd, xl2tpd,
//!  d2 … ┘                                                     OpenVPN, openssl s_server
//! ```
//!
//! Nothing translates addresses. Every case has a device of its own and rules that concern that device alone, so all
//! cases run at once.

#![expect(clippy::indexing_slicing, reason = "what goes wrong here fails the test")]

mod path;

use path::{CASES, Path};
use testkit::address::S3;
use testkit::vpn::strongswan;
use testkit::{Lab, Nat};

#[test]
fn every_blocked_path_is_told() {
    let Some(path) = Path::start() else { return };
    // strongSwan asks all for cookies, and says nothing of NATs, when many ask at once: two alone first.
    let (first, rest) = CASES.split_at(2);
    let mut results = path.check_all(1, first);
    path.add_ipv6();
    std::thread::scope(|scope| {
        let six = scope.spawn(|| path.check_ipv6());
        results.extend(path.check_all(3, rest));
        results.extend(six.join().expect("it does not panic"));
    });
    let wrong: Vec<&String> = results.iter().flat_map(|(_, wrong)| wrong).collect();
    for (text, _) in &results {
        println!("{text}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn natd_on_the_same_machine_lets_it_pass() {
    let Some(lab) = Lab::household().nat(Nat::Natd).needs(&strongswan::PROGRAMS).start() else { return };
    lab.s3.sysctl("ipv4/icmp_ratelimit", "0");
    let _server = strongswan::server(&lab, &lab.s3, S3);
    let (_, seconds, page) = path::run(&lab.router, S3.into());
    println!("== on the router, natd running ({seconds} s)\n{}", path::table(&page));
    for (probe, result) in [
        ("ping", "answers"),
        ("ike-500", "answers"),
        ("ike-4500", "answers"),
        ("ike-large", "answers"),
        ("ike-fragmented", "answers"),
        ("esp", "reaches"),
        ("gre", "reaches"),
        ("pptp", "not offered"),
        ("l2tp", "not offered"),
        ("openvpn", "not offered"),
        ("tls", "not offered"),
        ("mtu", "reaches"),
    ] {
        let rows = page["probes"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["probe"] == probe).expect("a row for each");
        assert_eq!(row["result"], result, "{row}");
    }
    assert_eq!(page["findings"].as_array().map(Vec::len), Some(0), "{page:#}");
}

#[test]
fn what_cannot_be_probed_is_said_in_a_line() {
    let Some(lab) = Lab::household().nat(Nat::None).start() else { return };
    let said = |words: &[&str]| {
        let outcome = path::natd_probe(&lab.s1, words);
        assert_eq!((outcome.code, &*outcome.stdout), (Some(1), ""), "{outcome}");
        outcome.stderr
    };
    assert_eq!(said(&["2001:db8::9"]), "natd: there is no route to 2001:db8::9\n");
    assert_eq!(said(&["192.0.2.1", "-6"]), "natd: 192.0.2.1 has no IPv6 address\n");
    let name = said(&["vpn.example.invalid"]);
    assert!(name.starts_with("natd: vpn.example.invalid ") && name.lines().count() == 1, "{name}");
}
