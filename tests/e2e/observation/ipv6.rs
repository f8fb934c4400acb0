//! natd translates no IPv6, but watches the VPNs that use it.

use std::net::{SocketAddrV6, UdpSocket};
use std::time::Duration;

use testkit::{Lab, Nat, Node, clock};

use super::ikev2::{Role, sa_init};
use super::{diagnose, household, problems};

const DEVICE: &str = "2001:db8:1::11";
const SERVER: &str = "2001:db8:2::10";

fn end(address: &str) -> SocketAddrV6 {
    SocketAddrV6::new(address.parse().expect("an address"), 500, 0, 0)
}

fn udp(node: &Node, address: &str) -> UdpSocket {
    let socket = node.enter(|| UdpSocket::bind(end(address))).expect("the port is free");
    socket.set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout can be set");
    socket
}

/// A household with IPv6 from its provider.
fn with_ipv6() -> Option<Lab> {
    let mut lab = household(Nat::None).start()?;
    lab.router.sysctl("ipv6/conf/all/forwarding", "1");
    lab.router.ip("addr add 2001:db8:1::1/64 dev br-lan nodad\naddr add 2001:db8:2::1/64 dev wan0 nodad\n");
    for (node, address, gateway) in [(&lab.d1, DEVICE, "2001:db8:1::1"), (&lab.s1, SERVER, "2001:db8:2::1")] {
        node.ip(&format!("addr add {address}/64 dev eth0 nodad\nroute add default via {gateway} dev eth0\n"));
    }
    lab.start_nat(Nat::Natd);
    Some(lab)
}

#[test]
fn ike_over_ipv6_is_listed_and_missed_answers_are_told() {
    let Some(mut lab) = with_ipv6() else { return };
    let (device, server) = (udp(&lab.d1, DEVICE), udp(&lab.s1, SERVER));
    let request = sa_init(Role::Request, end(DEVICE).into(), end(SERVER).into());
    let mut buffer = [0; 2048];
    let arrives = || {
        device.send_to(&request, end(SERVER)).expect("it is sent");
        server.recv_from(&mut buffer).is_ok()
    };
    assert!(clock::holds_within(Duration::from_secs(10), arrives), "IPv6 is not forwarded");
    let ours = |report: &serde_json::Value| {
        let sessions = report.get("sessions").and_then(serde_json::Value::as_array);
        sessions.is_some_and(|sessions| {
            let is = |session: &serde_json::Value, key: &str, address: &str| {
                session.get(key).and_then(serde_json::Value::as_str) == Some(address)
            };
            matches!(&sessions[..], [one] if is(one, "device", DEVICE) && is(one, "server", SERVER))
        })
    };
    let listed = clock::holds_within(Duration::from_secs(5), || ours(&diagnose(&mut lab)));
    assert!(listed, "{:#}", diagnose(&mut lab));

    let expected = [("IKE-500-NO-REPLY".to_owned(), "line".to_owned())];
    let told = clock::holds_within(Duration::from_secs(40), || {
        device.send_to(&request, end(SERVER)).expect("it is sent");
        clock::pause(Duration::from_secs(1));
        problems(&mut lab) == expected
    });
    assert!(told, "{:?}\n{:#}", problems(&mut lab), diagnose(&mut lab));
    assert!(ours(&diagnose(&mut lab)), "twice seen is not two sessions: {:#}", diagnose(&mut lab));
}
