//! The WAN address changes under a VPN.

use std::time::Duration;

use testkit::address::{D1, S1, WAN, WAN_AFTER, at};
use testkit::vpn::ESP;
use testkit::vpn::raw::{self, End};
use testkit::{Nat, clock, socket};

use super::ikev2::{Role, sa_init, sealed};
use super::{diagnose, household, problems};

const IKE_AUTH: u8 = 35;
const INFORMATIONAL: u8 = 37;
const SPI: u64 = 0x1111;

/// Half a minute a session may take to recover; then it is told.
#[test]
fn a_new_wan_address_is_named_as_what_ended_a_session() {
    let Some(mut lab) = household(Nat::Natd).start() else { return };
    let (device, server) = (lab.d1.udp(at(D1, 500)), lab.s1.udp(at(S1, 500)));
    let dialogue = [
        (sa_init(Role::Request, SPI), sa_init(Role::Response, SPI)),
        (sealed(IKE_AUTH, Role::Request, SPI, 1, 268), sealed(IKE_AUTH, Role::Response, SPI, 1, 220)),
    ];
    for (request, response) in dialogue {
        device.send_to(&request, at(S1, 500)).expect("it is sent");
        let (_, seen) = socket::receive(&server).expect("the server gets it");
        server.send_to(&response, seen).expect("it is sent");
        socket::receive(&device).expect("the device gets it");
    }
    let (tunnel, far) = (End::new(&lab.d1, D1, ESP), End::new(&lab.s1, S1, ESP));
    for sequence in 1..=3 {
        tunnel.send(&raw::esp(D1, S1, 0x2001, sequence));
        far.expect("ESP", WAN, (0x2001, sequence));
        far.send(&raw::esp(S1, WAN, 0x1001, sequence));
        tunnel.expect("its answer", S1, (0x1001, sequence));
    }
    assert_eq!(problems(&mut lab), []);

    lab.router.ip(&format!(
        "addr del {WAN}/24 dev wan0\naddr add {WAN_AFTER}/24 dev wan0\nroute add default via 198.51.100.254\n"
    ));
    let asks = sealed(INFORMATIONAL, Role::Request, SPI, 2, 48);
    let expected = [("WAN-ADDR-CHANGED".to_owned(), "line".to_owned())];
    let start = clock::now();
    let mut asked = 0;
    let told = clock::holds_within(Duration::from_secs(60), || {
        // Does the server still live? It has no route back to what it does not know.
        if asked < 6 {
            asked += 1;
            device.send_to(&asks, at(S1, 500)).expect("it is sent");
        }
        clock::pause(Duration::from_secs(2));
        problems(&mut lab) == expected
    });
    assert!(told, "{:#}", diagnose(&mut lab));
    assert!(start.elapsed() >= Duration::from_secs(25), "not before it had time to recover");
    let report = diagnose(&mut lab).to_string();
    assert!(report.contains(&format!("it was {WAN}")), "{report}");
}
