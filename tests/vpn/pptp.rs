//! PPTP: a TCP connection to port 1723, and GRE that only it explains.

use std::time::Duration;

use testkit::address::{D1, S1, at};
use testkit::vpn::pptp::{self, CallIds};
use testkit::vpn::{self, GRE, ppp};
use testkit::{Lab, LabBuilder, clock, tcp};

const NO_HELPER: &str = "without a helper it does not know GRE's Call IDs";
const ON: &str = "[passthrough]\npptp = true";

fn household() -> LabBuilder {
    Lab::household().needs(&pptp::PROGRAMS)
}

fn every_device_has_its_tunnel(lab: &Lab, ids: CallIds) {
    let wan = lab.capture_wan();
    let _server = pptp::server(lab, &lab.s1, S1);
    let mut clients = Vec::new();
    for (node, _) in lab.devices() {
        let client = pptp::client(lab, node, S1, ids);
        vpn::wait_for_tunnel(node, ppp::DEVICE, &client);
        vpn::ping(node, "once it is up");
        clients.push(client);
    }
    vpn::ping_from_all(lab, "with all up");
    // One at a time and little: these programs drop what overtakes another packet, and a slow machine reorders.
    for (port, (node, _)) in (7001..).zip(lab.devices()) {
        vpn::transfer(node, &lab.s1, port, 2);
    }
    vpn::expect_on_wan(lab, &wan, GRE);
}

#[test]
fn three_devices_have_tunnels() {
    let Some(lab) = household().natd_section(ON).beyond_kernel(NO_HELPER).start() else { return };
    every_device_has_its_tunnel(&lab, CallIds::Random);
}

#[test]
fn three_devices_with_one_call_id_have_tunnels() {
    let Some(lab) = household().natd_section(ON).beyond_kernel(NO_HELPER).start() else { return };
    every_device_has_its_tunnel(&lab, CallIds::Fixed(0x1234));
}

#[test]
fn three_devices_dial_all_at_once() {
    let Some(lab) = household().natd_section(ON).beyond_kernel(NO_HELPER).start() else { return };
    let _server = pptp::server(&lab, &lab.s1, S1);
    let ids = CallIds::Fixed(0);
    let clients: Vec<_> = lab.devices().iter().map(|(node, _)| pptp::client(&lab, node, S1, ids)).collect();
    for ((node, _), client) in lab.devices().into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, ppp::DEVICE, client);
    }
    vpn::ping_from_all(&lab, "with all up");
}

#[test]
fn a_device_that_lost_power_dials_again() {
    let Some(lab) = household().natd_section(ON).beyond_kernel(NO_HELPER).start() else { return };
    let _server = pptp::server(&lab, &lab.s1, S1);
    let ids = CallIds::Fixed(0x1234);
    let mut clients: Vec<_> =
        lab.devices().iter().map(|(node, _)| pptp::client(&lab, node, S1, ids)).collect();
    for ((node, _), client) in lab.devices().into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, ppp::DEVICE, client);
    }
    vpn::cut_power(&lab.d2);
    let again = pptp::client(&lab, &lab.d2, S1, ids);
    vpn::wait_for_tunnel(&lab.d2, ppp::DEVICE, &again);
    clients.push(again);
    vpn::ping_from_all(&lab, "after one dialled again");
}

#[test]
fn with_pptp_off_every_client_fails_at_once_and_natd_says_why() {
    // Off is the default.
    let Some(mut lab) = household().needs_nat().beyond_kernel("it has no such switch").start() else {
        return;
    };
    let wan = lab.capture_wan();
    let _server = pptp::server(&lab, &lab.s1, S1);
    for (node, addr) in lab.devices() {
        let start = clock::now();
        let refused = tcp::connect(node, at(addr, 0), at(S1, 1723), Duration::from_secs(5)).map(drop);
        let kind = refused.expect_err("it must be refused").kind();
        assert_eq!(kind, std::io::ErrorKind::ConnectionRefused, "{addr}");
        let mut client = pptp::client(&lab, node, S1, CallIds::Random);
        client.wait(Duration::from_secs(2));
        assert!(start.elapsed() < Duration::from_secs(2), "{addr} learned it after {:?}", start.elapsed());
        assert!(!vpn::has_tunnel(node, ppp::DEVICE), "{addr}");
    }
    let strays = vpn::from_household(&wan);
    assert!(strays.iter().all(|seen| seen.wire.dst_port != 1723), "{strays:?}");
    let natd = lab.natd();
    let said = natd.log();
    let line =
        said.lines().find(|line| line.to_lowercase().contains("pptp") && line.contains(&D1.to_string()));
    assert!(line.is_some(), "the log names neither PPTP nor the device:\n{said}");
    let status = natd.command(&["status"]).expect_success().to_lowercase();
    assert!(status.contains("pptp"), "{status}");
}
