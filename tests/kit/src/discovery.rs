//! What coturn's RFC 5780 client finds out about a lab's NAT.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::address::{D2, GATEWAY, S1, at};
use crate::clock::wait_for;
use crate::{Lab, socket, traffic};

/// What coturn's RFC 5780 client says about the lab's NAT; another device has taken its port towards the
/// second address first, which a merely port-preserving NAT does not survive.
pub fn after_a_collision(lab: &Lab) -> String {
    // RFC 5780 needs a server with two addresses and two ports.
    lab.s1.ip("addr add 198.51.100.11/24 dev eth0\n");
    let turn = lab.s1.spawn(&[
        "turnserver",
        "-S",
        "-n",
        "-L",
        "198.51.100.10",
        "-L",
        "198.51.100.11",
        "--no-cli",
        "--no-tls",
        "--no-dtls",
        "-l",
        "stdout",
        "--simple-log",
        "--pidfile",
        &lab.dir().join("turn.pid").to_string_lossy(),
    ]);
    let ready = || {
        let socket = lab.internet.udp(at(GATEWAY, 0));
        socket.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout can be set");
        // A STUN binding request (RFC 5389 section 6) without attributes.
        let mut request = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        request.extend([7; 12]);
        socket.send_to(&request, at(S1, 3479)).is_ok() && socket::receive(&socket).is_ok()
    };
    wait_for(&format!("turnserver\n{}", turn.log()), Duration::from_secs(15), ready);
    let second = at(Ipv4Addr::new(198, 51, 100, 11), 3478);
    let _taken = traffic::udp_talk(&lab.d2, at(D2, 41_000), second, Duration::from_millis(100));
    let taken = lab.capture_wan();
    taken.wait_for("the other device's packet", Duration::from_secs(3), |wire| wire.to() == second);
    let said = lab.d1.run(&[
        "turnutils_natdiscovery",
        "-m",
        "-f",
        "-L",
        "192.168.1.11",
        "-l",
        "41000",
        "-p",
        "3478",
        "198.51.100.10",
    ]);
    format!("{}\n{}", said.stdout, said.stderr)
}
