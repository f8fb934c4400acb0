//! L2TP in clear: every device on port 1701, and xl2tpd's tunnel ids.

use testkit::Lab;
use testkit::address::S1;
use testkit::vpn::{self, l2tp, ppp};

#[test]
fn three_devices_on_port_1701_have_tunnels() {
    let Some(lab) = Lab::household().needs(&l2tp::PROGRAMS).start() else { return };
    let wan = lab.capture_wan();
    let _server = l2tp::server(&lab, &lab.s1, S1);
    let mut clients = Vec::new();
    for (node, _) in lab.devices() {
        let client = l2tp::client(&lab, node, S1);
        vpn::wait_for_tunnel(node, ppp::DEVICE, &client);
        vpn::ping(node, "once it is up");
        clients.push(client);
    }
    vpn::ping_from_all(&lab, "with all up");
    vpn::transfer_from_all(&lab, &lab.s1);
    vpn::expect_on_wan(&lab, &wan, 17);
}

#[test]
fn three_devices_on_port_1701_dial_all_at_once() {
    let Some(lab) = Lab::household().needs(&l2tp::PROGRAMS).start() else { return };
    let _server = l2tp::server(&lab, &lab.s1, S1);
    let clients: Vec<_> = lab.devices().iter().map(|(node, _)| l2tp::client(&lab, node, S1)).collect();
    for ((node, _), client) in lab.devices().into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, ppp::DEVICE, client);
    }
    vpn::ping_from_all(&lab, "with all up");
}
