//! IKEv2 with NAT traversal: it needs no help and must not be disturbed.

use testkit::Lab;
use testkit::address::S1;
use testkit::vpn::{self, ESP, strongswan};

#[test]
fn three_devices_have_tunnels_over_udp_4500() {
    let Some(lab) = Lab::household().needs(&strongswan::PROGRAMS).start() else { return };
    let wan = lab.capture_wan();
    let server = strongswan::server(&lab, &lab.s1, S1);
    let mut clients = Vec::new();
    for (node, _) in lab.devices() {
        let client = strongswan::client(&lab, node, S1);
        client.initiate();
        vpn::ping(node, "once it is up");
        clients.push(client);
    }
    vpn::ping_from_all(&lab, "with all up");
    vpn::transfer_from_all(&lab, &lab.s1);
    let listed = server.associations();
    assert_eq!(listed.matches("ESP in UDP").count() + listed.matches("ESP:AES").count(), 3, "{listed}");
    let sent = vpn::from_household(&wan);
    assert!(sent.iter().any(|seen| seen.wire.dst_port == 4500), "nothing went to port 4500");
    assert!(sent.iter().all(|seen| seen.wire.protocol != ESP), "bare ESP left the household");
    vpn::expect_on_wan(&lab, &wan, 17);
}
