//! The WAN address: there late, or changing while traffic flows.

use std::io::{self, Read, Write};
use std::time::Duration;

use testkit::address::{D1, D2, S1, WAN, WAN_AFTER, at};
use testkit::{Forward, Lab, clock, socket, tcp, traffic};

/// As a DHCP client does it when the provider hands out another address.
fn change_address(lab: &Lab) {
    lab.router.ip(&format!(
        "addr del {WAN}/24 dev wan0\naddr add {WAN_AFTER}/24 dev wan0\nroute add default via 198.51.100.254\n"
    ));
}

const RECOVERY: Duration = Duration::from_secs(2);

#[test]
fn traffic_recovers_within_two_seconds_of_a_new_wan_address() {
    let Some(lab) = Lab::household().start() else { return };
    let _echo = traffic::udp_echo(&lab.s1, at(S1, 7));
    let _web = traffic::tcp_answer(&lab.s1, at(S1, 80), b"s1");
    let talk = traffic::udp_talk(&lab.d1, at(D1, 6000), at(S1, 7), Duration::from_millis(10));
    talk.wait_for_more("answers at first", 20);
    let leaks = lab.watch_for_leaks();
    change_address(&lab);
    let start = clock::now();
    talk.wait_for_more("answers at the new address", 20);
    assert!(start.elapsed() < RECOVERY, "UDP took {:?}", start.elapsed());
    assert_eq!(traffic::ask(&lab.d2, at(D2, 0), at(S1, 80)).unwrap(), b"s1");
    assert!(start.elapsed() < RECOVERY, "TCP took {:?}", start.elapsed());
    let capture = lab.capture_wan();
    talk.wait_for_more("more answers", 20);
    let old = capture.find(|wire| wire.src == WAN);
    assert!(old.is_empty(), "the old address is no longer used: {:?}", old.first());
    leaks.expect_no_leak();
}

#[test]
fn forwards_follow_the_wan_address() {
    let Some(lab) = Lab::household()
        .forward(Forward::udp(5000, D1, 5001))
        .beyond_kernel("the lab's rules for it name the address")
        .start()
    else {
        return;
    };
    let (host, client) = (lab.d1.udp(at(D1, 5001)), lab.s1.udp(at(S1, 6000)));
    socket::deliver(&client, at(WAN, 5000), &host, b"before");
    change_address(&lab);
    let reached = clock::holds_within(RECOVERY, || {
        client.send_to(b"after", at(WAN_AFTER, 5000)).expect("it is sent");
        host.set_read_timeout(Some(Duration::from_millis(50))).expect("a timeout can be set");
        socket::receive(&host).is_ok()
    });
    assert!(reached, "the forward works at the new address");
}

#[test]
fn a_connection_over_the_old_address_is_reset_rather_than_left_hanging() {
    let Some(lab) = Lab::household().start() else { return };
    let mut connection = tcp::pair(&lab.d1, at(D1, 40_000), &lab.s1, at(S1, 80));
    connection.expect_alive("at first");
    change_address(&lab);
    let start = clock::now();
    let ended = clock::holds_within(Duration::from_secs(5), || {
        // A write provokes the reset where it does not come by itself.
        let wrote = connection.client.write_all(b"still there?");
        connection.client.set_read_timeout(Some(Duration::from_millis(100))).expect("a timeout can be set");
        let read = socket::uninterrupted(|| connection.client.read(&mut [0; 16])).map(drop);
        [wrote, read].into_iter().any(|result| {
            result.is_err_and(|error| {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            })
        })
    });
    assert!(ended, "the device still believes in its connection {:?} after the change", start.elapsed());
}

#[test]
fn without_a_wan_address_nothing_is_forwarded_and_it_is_said() {
    let Some(mut lab) = Lab::household()
        .wan_address(None)
        .beyond_kernel("it forwards with whatever address it finds")
        .start()
    else {
        return;
    };
    lab.router.ip("route add default via 198.51.100.254 dev wan0 onlink\n");
    lab.natd().process().wait_for_log("address", Duration::from_secs(5));
    let status = lab.natd().command(&["status"]);
    assert!(!status.success(), "status says that it translates: {status}");
    let leaks = lab.watch_for_leaks();
    let _echo = traffic::udp_echo(&lab.s1, at(S1, 7));
    let talk = traffic::udp_talk(&lab.d1, at(D1, 6000), at(S1, 7), Duration::from_millis(10));
    testkit::pause(Duration::from_millis(500));
    assert_eq!(talk.count(), 0);

    lab.router.ip(&format!("addr add {WAN}/24 dev wan0\n"));
    let start = clock::now();
    lab.natd().wait_ready();
    talk.wait_for_more("answers", 5);
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
    leaks.expect_no_leak();
}

#[test]
fn an_address_that_comes_back_is_used_again() {
    let Some(lab) = Lab::household().start() else { return };
    let _echo = traffic::udp_echo(&lab.s1, at(S1, 7));
    let talk = traffic::udp_talk(&lab.d1, at(D1, 6000), at(S1, 7), Duration::from_millis(10));
    talk.wait_for_more("answers at first", 5);
    let leaks = lab.watch_for_leaks();
    lab.router.ip(&format!("addr del {WAN}/24 dev wan0\n"));
    testkit::pause(Duration::from_millis(300));
    lab.router.ip(&format!("addr add {WAN}/24 dev wan0\nroute add default via 198.51.100.254\n"));
    let start = clock::now();
    talk.wait_for_more("answers again", 20);
    assert!(start.elapsed() < RECOVERY, "{:?}", start.elapsed());
    leaks.expect_no_leak();
}
