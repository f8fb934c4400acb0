//! The WAN address changes under a VPN.

use std::time::Duration;

use testkit::address::{WAN, WAN_AFTER};
use testkit::{Nat, clock};

use super::ikev2::Tunnel;
use super::{diagnose, household, problems};

/// Half a minute a session may take to recover; then it is told.
#[test]
fn a_new_wan_address_is_named_as_what_ended_a_session() {
    let Some(mut lab) = household(Nat::Natd).start() else { return };
    let tunnel = Tunnel::new(&lab);
    tunnel.begin();
    tunnel.authenticate();
    tunnel.data();
    assert_eq!(problems(&mut lab), []);

    lab.router.ip(&format!(
        "addr del {WAN}/24 dev wan0\naddr add {WAN_AFTER}/24 dev wan0\nroute add default via 198.51.100.254\n"
    ));
    let expected = [("WAN-ADDR-CHANGED".to_owned(), "line".to_owned())];
    let start = clock::now();
    let mut asked = 0;
    let told = clock::holds_within(Duration::from_secs(60), || {
        // Does the server still live? It has no route back to what it does not know.
        if asked < 6 {
            asked += 1;
            tunnel.ask();
        }
        clock::pause(Duration::from_secs(2));
        problems(&mut lab) == expected
    });
    assert!(told, "{:#}", diagnose(&mut lab));
    assert!(start.elapsed() >= Duration::from_secs(25), "not before it had time to recover");
    let report = diagnose(&mut lab).to_string();
    assert!(report.contains(&format!("it was {WAN}")), "{report}");
}
