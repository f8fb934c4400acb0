//! What natd watches reaches `natd diagnose`, whichever traffic it translates.

mod ikev2;
mod ipv6;
mod session_log;
mod wan;

use std::time::Duration;

use testkit::address::{D1, S1, WAN, at};
use testkit::vpn::ESP;
use testkit::vpn::raw::{self, End};
use testkit::{Lab, LabBuilder, Masquerade, Nat, clock, socket};

const ABOUT_NATD: &str = "it is about what natd watches";
const WAIT: Duration = Duration::from_secs(5);

fn household(nat: Nat) -> LabBuilder {
    Lab::household().beyond_kernel(ABOUT_NATD).nat(nat)
}

/// The first message of main mode, or the answer to it.
fn ike(initiator: u64, responder: u64) -> Vec<u8> {
    raw::Ike { initiator, responder, stage: raw::Stage::Proposal }.bytes()
}

fn diagnose(lab: &mut Lab) -> serde_json::Value {
    let outcome = lab.natd().command(&["diagnose", "--json"]);
    serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"))
}

fn copies(lab: &mut Lab) -> u64 {
    diagnose(lab).get("packets").and_then(serde_json::Value::as_u64).expect("packets are counted")
}

/// So many copies in all, not more.
fn expect_copies(lab: &mut Lab, what: &str, count: u64) {
    let enough = clock::holds_within(WAIT, || copies(lab) >= count);
    assert!(enough, "{what}: {} of {count} copies", copies(lab));
    clock::pause(Duration::from_millis(100));
    assert_eq!(copies(lab), count, "{what}");
}

/// IKE and ESP of a device and the server's answers, each on the LAN and on the WAN.
fn is_seen_on_both_sides(nat: Nat) {
    let Some(mut lab) = household(nat).start() else { return };
    assert_eq!(copies(&mut lab), 0);
    let (device, server) = (lab.d1.udp(at(D1, 500)), lab.s1.udp(at(S1, 500)));
    device.send_to(&ike(0x1111, 0), at(S1, 500)).expect("it is sent");
    let (_, seen) = socket::receive(&server).expect("the server gets it");
    server.send_to(&ike(0x1111, 0x2222), seen).expect("it is sent");
    socket::receive(&device).expect("the device gets it");
    expect_copies(&mut lab, "IKE and its answer, twice each", 4);
    let (tunnel, far) = (End::new(&lab.d1, D1, ESP), End::new(&lab.s1, S1, ESP));
    tunnel.send(&raw::esp(D1, S1, 0x2001, 1));
    far.expect("ESP", WAN, (0x2001, 1));
    far.send(&raw::esp(S1, WAN, 0x1001, 1));
    tunnel.expect("its answer", S1, (0x1001, 1));
    expect_copies(&mut lab, "with ESP and its answer", 8);
    // Neither early nor a multiple of 64.
    tunnel.send(&raw::esp(D1, S1, 0x2001, 1001));
    far.expect("later ESP", WAN, (0x2001, 1001));
    expect_copies(&mut lab, "no more of them", 8);
    let report = diagnose(&mut lab);
    let sessions = report.get("sessions").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let ours = |session: &&serde_json::Value| {
        session.get("device").and_then(|text| text.as_str()) == Some("192.168.1.11")
            && session.get("server").and_then(|text| text.as_str()) == Some("198.51.100.10")
    };
    assert!(sessions.iter().any(|session| ours(&session)), "{report:#}");
}

#[test]
fn ike_and_esp_are_seen_on_both_sides_in_scope_all() {
    is_seen_on_both_sides(Nat::Natd);
}

#[test]
fn ike_and_esp_are_seen_on_both_sides_in_scope_vpn() {
    is_seen_on_both_sides(Nat::NatdBeside(Masquerade::Nft));
}

#[test]
fn wireguard_is_seen_though_the_kernel_translates_it() {
    let Some(mut lab) = household(Nat::NatdBeside(Masquerade::Nft)).start() else { return };
    let (device, server) = (lab.d1.udp(at(D1, 40_000)), lab.s1.udp(at(S1, 443)));
    let mut initiation = [0x5a; 148];
    initiation[..4].copy_from_slice(&[1, 0, 0, 0]);
    device.send_to(&initiation, at(S1, 443)).expect("it is sent");
    socket::receive(&server).expect("the server gets it");
    device.send_to(&[0x5a; 148], at(S1, 443)).expect("it is sent");
    socket::receive(&server).expect("the server gets it");
    expect_copies(&mut lab, "the initiation alone", 2);
}

#[test]
fn a_wan_that_is_made_anew_is_watched_again() {
    let Some(mut lab) = household(Nat::Natd).start() else { return };
    lab.router.ip("link set wan0 down\n");
    lab.router.ip("link set wan0 name wan9\n");
    clock::pause(Duration::from_millis(1500));
    lab.router.ip("link set wan9 name wan0\nlink set wan0 up\n");
    lab.router.sh("ip route replace default via 198.51.100.254 || true");
    let (device, server) = (lab.d1.udp(at(D1, 500)), lab.s1.udp(at(S1, 500)));
    let arrives = || {
        device.send_to(&ike(0x1111, 0), at(S1, 500)).expect("it is sent");
        socket::receive(&server).is_ok()
    };
    assert!(clock::holds_within(WAIT, arrives), "{}", lab.natd().log());
    let before = copies(&mut lab);
    let both = clock::holds_within(WAIT, || {
        let now = copies(&mut lab);
        device.send_to(&ike(0x1111, 0), at(S1, 500)).expect("it is sent");
        clock::pause(Duration::from_millis(100));
        copies(&mut lab) == now + 2
    });
    assert!(both, "{before} copies before");
}

#[test]
fn switched_off_it_says_so() {
    let Some(mut lab) = household(Nat::Natd).natd_section("[diagnosis]\nobserve = false\n").start() else {
        return;
    };
    let outcome = lab.natd().command(&["diagnose"]);
    assert!(!outcome.success() && outcome.stderr.contains("diagnosis.observe is false"), "{outcome}");
}

#[test]
fn a_device_without_a_vpn_is_named() {
    let Some(mut lab) = household(Nat::Natd).start() else { return };
    let outcome = lab.natd().command(&["diagnose", "--device", "192.168.1.50"]);
    let expected = "No VPN of 192.168.1.50 was seen in 0 packets. Let the device connect, and look again.\n";
    assert!(outcome.code.is_some_and(|code| code != 0), "{outcome}");
    assert!(outcome.stdout.starts_with(expected), "{outcome}");
}

/// Codes and first owners of what is wrong.
fn problems(lab: &mut Lab) -> Vec<(String, String)> {
    let report = diagnose(lab);
    let findings = report.get("findings").and_then(serde_json::Value::as_array).cloned().unwrap_or_default();
    let text =
        |value: Option<&serde_json::Value>| value.and_then(|v| v.as_str()).unwrap_or_default().to_owned();
    findings.iter().map(|f| (text(f.get("code")), text(f.pointer("/owner/0")))).collect()
}

#[test]
fn what_natd_refuses_is_told_as_the_routers_own() {
    let Some(mut lab) = household(Nat::Natd).start() else { return };
    lab.d1.run(&["socat", "-u", "OPEN:/dev/null", &format!("TCP:{S1}:1723,connect-timeout=2")]);
    let expected = [("PPTP-GRE-PASS-OFF".to_owned(), "router".to_owned())];
    let told = clock::holds_within(WAIT, || problems(&mut lab) == expected);
    assert!(told, "{:?}", problems(&mut lab));
}
