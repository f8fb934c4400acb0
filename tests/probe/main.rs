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

mod cases;
mod path;

use cases::CASES;
use path::Path;
use testkit::address::S3;
use testkit::vpn::{pptp, strongswan};
use testkit::{Lab, Masquerade, Nat};

#[test]
fn every_blocked_path_is_told() {
    let Some(path) = Path::start() else { return };
    path.add_ipv6();
    let results = std::thread::scope(|scope| {
        let six = scope.spawn(|| path.check_ipv6());
        let named = scope.spawn(|| vec![(String::new(), path.check_name())]);
        let one = scope.spawn(|| vec![(String::new(), path.check_version_one())]);
        let mut results = path.check_all(1, &CASES);
        for more in [six, named, one] {
            results.extend(more.join().expect("it does not panic"));
        }
        results
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
fn natd_beside_masquerade_lets_it_pass_and_a_strict_firewall_is_not_put_down_to_the_line() {
    let needs = [&strongswan::PROGRAMS[..], &pptp::PROGRAMS[..]].concat();
    let beside = Nat::NatdBeside(Masquerade::Nft);
    let Some(lab) = Lab::household().nat(beside).needs(&needs).start() else { return };
    lab.s3.sysctl("ipv4/icmp_ratelimit", "0");
    let _servers = (strongswan::server(&lab, &lab.s3, S3), pptp::server(&lab, &lab.s3, S3));
    let probe = || {
        let (code, seconds, page) = path::run(&lab.router, S3.into());
        println!("== on the router, natd beside masquerade ({seconds} s)\n{}", path::table(&page));
        (code, page)
    };
    let result = |page: &serde_json::Value, probe: &str| {
        let rows = page["probes"].as_array().expect("a list");
        let row = rows.iter().find(|row| row["probe"] == probe).expect("a row for each");
        row["result"].as_str().unwrap_or("?").to_owned()
    };
    let (code, page) = probe();
    for kind in ["ping", "ike-500", "ike-4500", "ike-large", "ike-fragmented", "pptp", "pptp-gre"] {
        assert_eq!(result(&page, kind), "answers", "{page:#}");
    }
    assert_eq!((code, page["findings"].as_array().map(Vec::len)), (0, Some(0)), "{page:#}");
    lab.router.nft(
        "table inet strict {\n chain input {\n  type filter hook input priority 10; policy drop;\n  \
         ct state established,related accept\n  iif lo accept\n }\n}\n",
    );
    // Without its helper for PPTP the kernel does not know that GRE is an answer; the rest it does.
    let (code, page) = probe();
    for kind in ["ping", "ike-500", "ike-4500", "ike-large", "ike-fragmented", "pptp"] {
        assert_eq!(result(&page, kind), "answers", "{page:#}");
    }
    assert_eq!((code, &*result(&page, "pptp-gre")), (1, "lost"), "{page:#}");
    let finding = &page["findings"][0];
    assert_eq!(
        (finding["code"].as_str(), finding["confidence"].as_str(), finding["owner"][0].as_str()),
        (Some("PPTP-GRE-BLOCKED-OUT-OR-IN"), Some("low"), Some("router")),
        "{page:#}"
    );
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
