//! WireGuard: ordinary datagrams, every device on one port.

use testkit::Lab;
use testkit::address::S1;
use testkit::vpn::{self, wireguard};

#[test]
fn three_devices_on_port_51820_have_tunnels() {
    let Some(lab) = Lab::household().needs(&wireguard::PROGRAMS).start() else { return };
    let wan = lab.capture_wan();
    let _running = wireguard::network(&lab, &lab.s1, S1);
    for (node, _) in lab.devices() {
        vpn::ping(node, "once it is up");
    }
    vpn::ping_from_all(&lab, "with all up");
    vpn::transfer_from_all(&lab, &lab.s1);
    vpn::expect_on_wan(&lab, &wan, 17);
}
