//! OpenVPN over UDP: ordinary datagrams.

use testkit::Lab;
use testkit::address::S1;
use testkit::vpn::openvpn::{self, Pki};
use testkit::vpn::{self};

#[test]
fn three_devices_have_tunnels() {
    let Some(lab) = Lab::household().needs(&openvpn::PROGRAMS).start() else { return };
    let wan = lab.capture_wan();
    let pki = Pki::make(&lab);
    let _server = openvpn::server(&lab.s1, &pki, S1);
    let clients: Vec<_> = lab.devices().iter().map(|(node, _)| openvpn::client(node, &pki, S1)).collect();
    for ((node, _), client) in lab.devices().into_iter().zip(&clients) {
        vpn::wait_for_tunnel(node, openvpn::DEVICE, client);
        client.wait_for_log("Initialization Sequence Completed", vpn::UP);
    }
    vpn::ping_from_all(&lab, "with all up");
    vpn::transfer_from_all(&lab, &lab.s1);
    vpn::expect_on_wan(&lab, &wan, 17);
}
