//! A VPN server inside the house, its client outside.

use std::time::Duration;

use testkit::address::{D1, S2, WAN};
use testkit::nat::Transport;
use testkit::vpn::pptp::{self, CallIds};
use testkit::vpn::{self, ESP, GRE, ppp, strongswan, vpnc};
use testkit::{Forward, Lab, clock};

const NO_ESP: &str = "its forward of a port brings no ESP";
const NO_GRE: &str = "its forward of a port brings no GRE";
const PPTP_ON: &str = "[passthrough]\npptp = true";

fn vpnc_reaches_a_server_inside(lab: &Lab) {
    let wan = lab.capture_wan();
    let _server = strongswan::vpnc_server(lab, &lab.d1, D1, None);
    let client = vpnc::client(lab, &lab.s1, WAN);
    vpn::wait_for_tunnel(&lab.s1, vpnc::DEVICE, &client);
    vpn::ping(&lab.s1, "to a server inside");
    vpn::expect_on_wan(lab, &wan, ESP);
}

#[test]
fn a_forward_of_udp_500_brings_the_servers_esp_along() {
    let lab = Lab::household().needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS);
    let lab = lab.forward(Forward::udp(500, D1, 500)).beyond_kernel(NO_ESP);
    let Some(lab) = lab.start() else { return };
    vpnc_reaches_a_server_inside(&lab);
}

#[test]
fn forwards_of_udp_500_and_esp_reach_a_server() {
    let lab = Lab::household().needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS);
    let lab = lab.forward(Forward::udp(500, D1, 500)).forward(Forward::whole(Transport::Esp, D1));
    let Some(lab) = lab.start() else { return };
    vpnc_reaches_a_server_inside(&lab);
}

fn pptp_reaches_a_server_inside(lab: &Lab) {
    let wan = lab.capture_wan();
    let _server = pptp::server(lab, &lab.d1, D1);
    let mut clients = Vec::new();
    for node in [&lab.s1, &lab.s2] {
        let client = pptp::client(lab, node, WAN, CallIds::Fixed(0x1234));
        vpn::wait_for_tunnel(node, ppp::DEVICE, &client);
        vpn::ping(node, "to a server inside");
        clients.push(client);
    }
    vpn::ping(&lab.s1, "with both up");
    vpn::expect_on_wan(lab, &wan, GRE);
}

#[test]
fn a_forward_of_tcp_1723_brings_the_servers_gre_along() {
    let lab = Lab::household().needs(&pptp::PROGRAMS).natd_section(PPTP_ON);
    let lab = lab.forward(Forward::tcp(1723, D1, 1723)).beyond_kernel(NO_GRE);
    let Some(lab) = lab.start() else { return };
    pptp_reaches_a_server_inside(&lab);
}

#[test]
fn forwards_of_tcp_1723_and_gre_reach_a_server() {
    let lab = Lab::household().needs(&pptp::PROGRAMS).natd_section(PPTP_ON);
    let lab = lab.forward(Forward::tcp(1723, D1, 1723)).forward(Forward::whole(Transport::Gre, D1));
    let Some(lab) = lab.start() else { return };
    pptp_reaches_a_server_inside(&lab);
}

#[test]
fn a_device_is_a_client_outside_while_another_is_a_server() {
    let lab = Lab::household().needs(&strongswan::PROGRAMS).needs(&vpnc::PROGRAMS);
    let lab = lab.forward(Forward::udp(500, D1, 500)).beyond_kernel(NO_ESP);
    let Some(lab) = lab.start() else { return };
    let _inside = strongswan::vpnc_server(&lab, &lab.d1, D1, None);
    let _outside = strongswan::vpnc_server(&lab, &lab.s2, S2, None);
    let mut clients = Vec::new();
    for (node, server) in [(&lab.s1, WAN), (&lab.d2, S2)] {
        let client = vpnc::client(&lab, node, server);
        vpn::wait_for_tunnel(node, vpnc::DEVICE, &client);
        vpn::ping(node, "once it is up");
        clients.push(client);
    }
    // Both are alive together, also after a moment of silence.
    clock::pause(Duration::from_millis(500));
    for node in [&lab.s1, &lab.d2] {
        vpn::ping(node, "with both up");
    }
}
