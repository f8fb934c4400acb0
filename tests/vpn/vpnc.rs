//! Bare ESP: vpnc clients without NAT traversal, a strongSwan server. Nothing but an SPI, which stands in no
//! packet that the router can read before, tells the devices' ESP apart.

use std::time::Duration;

use testkit::address::{S1, S2, WAN};
use testkit::capture::Keep;
use testkit::vpn::strongswan::{self, Charon, vpnc_server};
use testkit::vpn::{self, ESP, INNER, raw, vpnc};
use testkit::{Background, Capture, Lab, LabBuilder, Nat, Node, clock};

const ESP_HAS_NO_PORTS: &str = "it knows ESP by its two addresses only";

fn household() -> LabBuilder {
    Lab::household().needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS)
}

fn dial(lab: &Lab, node: &Node) -> Background {
    let client = vpnc::client(lab, node, S1);
    vpn::wait_for_tunnel(node, vpnc::DEVICE, &client);
    client
}

#[test]
fn one_device_has_its_tunnel() {
    let Some(lab) = household().start() else { return };
    let wan = lab.capture_wan();
    let _server = vpnc_server(&lab, &lab.s1, S1, None);
    let _client = dial(&lab, &lab.d1);
    vpn::ping(&lab.d1, "with one device");
    vpn::transfer(&lab.d1, &lab.s1, 7001, 16);
    vpn::expect_on_wan(&lab, &wan, ESP);
}

#[test]
fn three_devices_start_one_after_another() {
    let Some(lab) = household().beyond_kernel(ESP_HAS_NO_PORTS).start() else { return };
    let wan = lab.capture_wan();
    let _server = vpnc_server(&lab, &lab.s1, S1, None);
    let mut clients = Vec::new();
    for (number, (node, _)) in (1..).zip(lab.devices()) {
        clients.push(dial(&lab, node));
        vpn::ping(node, &format!("as number {number}"));
    }
    vpn::ping_from_all(&lab, "with all up");
    vpn::transfer_from_all(&lab, &lab.s1);
    vpn::expect_on_wan(&lab, &wan, ESP);
}

#[test]
fn tunnels_go_on_when_natd_is_killed_and_started_again() {
    let Some(mut lab) = household().beyond_kernel("there is nothing to kill").start() else { return };
    let _server = vpnc_server(&lab, &lab.s1, S1, None);
    let mut clients = Vec::new();
    for (node, _) in lab.devices() {
        clients.push(dial(&lab, node));
        vpn::ping(node, "before the next one dials");
    }
    lab.natd().kill();
    lab.natd().restart();
    vpn::ping_from_all(&lab, "after the restart");
    let said = lab.natd().log();
    assert!(said.contains("known from before the restart"), "{said}");
    let sessions = lab.natd().command(&["sessions"]).expect_success();
    assert!(!sessions.contains("fan-out"), "each SPI is known to be its device's:\n{sessions}");
}

fn all_start_at_once(lab: &Lab) {
    let wan = lab.capture_wan();
    let _server = vpnc_server(lab, &lab.s1, S1, None);
    let clients: Vec<_> = lab.devices().iter().map(|(node, _)| vpnc::client(lab, node, S1)).collect();
    for ((node, _), client) in lab.devices().into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, vpnc::DEVICE, client);
    }
    vpn::ping_from_all(lab, "with all up");
    vpn::expect_on_wan(lab, &wan, ESP);
}

#[test]
fn three_devices_start_all_at_once() {
    let Some(lab) = household().beyond_kernel(ESP_HAS_NO_PORTS).start() else { return };
    all_start_at_once(&lab);
}

#[test]
fn six_devices_start_all_at_once_where_six_may_be_asked() {
    let lab = household().devices(6).natd_section("[ipsec]\nfan_out = 6");
    let Some(lab) = lab.beyond_kernel(ESP_HAS_NO_PORTS).start() else { return };
    all_start_at_once(&lab);
}

/// The SPIs, to the server and from it, of a device's tunnel since the server first changed the keys.
fn new_spis(server: &Charon, node: &Node) -> (Vec<u32>, Vec<u32>) {
    let mut children = server.children();
    children.retain(|child| child.peer == node.namespace());
    children.sort_unstable_by_key(|child| child.number);
    children.iter().skip(1).map(|child| (child.incoming, child.outgoing)).unzip()
}

#[test]
fn the_server_changes_the_keys_of_every_device() {
    let Some(lab) = household().beyond_kernel(ESP_HAS_NO_PORTS).start() else { return };
    let server = vpnc_server(&lab, &lab.s1, S1, Some(Duration::from_secs(8)));
    let _clients: Vec<_> = lab.devices().iter().map(|(node, _)| dial(&lab, node)).collect();
    vpn::ping_from_all(&lab, "with the first keys");
    let at_server = lab.s1.capture("eth0", Keep::All);
    for (node, addr) in lab.devices() {
        let at_device = node.capture("eth0", Keep::All);
        // Old associations live on for a while beside the new ones.
        let changed = || !new_spis(&server, node).0.is_empty();
        assert!(clock::holds_within(Duration::from_secs(20), changed), "no new keys for {addr}");
        // This vpnc, which did not ask for new keys, computes others than the server; what a router sees is right:
        // both sides use their new SPIs, the server's never seen before, and the server is the first to speak.
        let child = server.children().into_iter().rfind(|child| child.peer == node.namespace());
        let inner = child.expect("it has a tunnel").address;
        let heard = |(capture, sender): (&Capture, _), wanted: &dyn Fn() -> Vec<u32>| {
            clock::holds_within(Duration::from_secs(3), || {
                let seen = capture.find(|wire| wire.protocol == ESP && wire.src == sender);
                let spis: Vec<_> =
                    seen.iter().filter(|seen| !seen.outgoing).filter_map(raw::first_word).collect();
                wanted().iter().any(|spi| spis.contains(spi))
            })
        };
        lab.s1.run(&["ping", "-n", "-c1", "-W1", "-I", &INNER.to_string(), &inner]);
        assert!(
            heard((&at_device, S1), &|| new_spis(&server, node).1),
            "the server's new SPI did not reach {addr}"
        );
        vpn::try_ping(node, INNER);
        let sender = if lab.nat() == Nat::Routed { addr } else { WAN };
        assert!(
            heard((&at_server, sender), &|| new_spis(&server, node).0),
            "{addr}'s new SPI did not reach the server"
        );
    }
}

#[test]
fn a_device_that_lost_power_dials_again() {
    let Some(lab) = household().beyond_kernel(ESP_HAS_NO_PORTS).start() else { return };
    let _server = vpnc_server(&lab, &lab.s1, S1, None);
    let mut clients: Vec<_> = lab.devices().iter().map(|(node, _)| dial(&lab, node)).collect();
    vpn::ping_from_all(&lab, "with all up");
    vpn::cut_power(&lab.d2);
    clients.push(dial(&lab, &lab.d2));
    vpn::ping(&lab.d2, "after it dialled again");
    vpn::ping_from_all(&lab, "after one dialled again");
}

#[test]
fn two_devices_have_tunnels_to_two_servers() {
    let Some(lab) = household().start() else { return };
    let _servers = [vpnc_server(&lab, &lab.s1, S1, None), vpnc_server(&lab, &lab.s2, S2, None)];
    let _first = dial(&lab, &lab.d1);
    let second = vpnc::client(&lab, &lab.d2, S2);
    vpn::wait_for_tunnel(&lab.d2, vpnc::DEVICE, &second);
    for node in [&lab.d1, &lab.d2] {
        vpn::ping(node, "each with its own server");
    }
}
