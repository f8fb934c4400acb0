//! Conversations, in whole and in pieces.
#![expect(clippy::cast_possible_truncation, reason = "test values are made by hand")]

mod stream;

use alloc::vec;
use alloc::vec::Vec;
use core::net::Ipv4Addr;
use core::time::Duration;

use nat_core::flow::Direction::{self, Inbound, Outbound};
use nat_core::flow::Endpoint;
use nat_core::time::Timestamp;

use super::exercise::{exercise, message};
use super::{
    CallId, Connection, Edit, GRACE, GreVerdict, Limits, Pptp, QUARANTINE, REQUEST_LIFETIME, Refusal,
    Segment, Verdict, ViewPhase,
};

const NOW: Timestamp = Timestamp::from_secs(100);
const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 7);

#[test]
fn two_and_three_clients_of_one_server_with_call_id_0() {
    let mut world = World::new();
    let clients = [world.client(10), world.client(11), world.client(12)];
    for (number, &client) in (0..).zip(&clients) {
        let [own, peer, name] = [0, 128 * number, number];
        assert_eq!(world.say(client, Outbound, &request(7, own)), request(7, name));
        assert_eq!(world.say(client, Inbound, &reply(8, peer, name, 1)), reply(8, peer, own, 1));
    }
    for (number, client) in (0..).zip(clients) {
        assert_eq!(world.inbound(number), Ok((client.device.addr, 0)));
        assert_eq!(world.outbound(client, 128 * number), Ok(128 * number));
    }
    assert_eq!(world.inbound(3), Err(Refusal::UnknownCall));
    assert_eq!(world.outbound(clients[0], 128), Err(Refusal::UnknownCall));
}

#[test]
fn the_kinds_of_call_whoever_asks_and_whoever_serves_in_any_segments() {
    let kinds = [
        (Outbound, 7, 8, Outbound),
        (Outbound, 9, 10, Inbound),
        (Inbound, 7, 8, Inbound),
        (Inbound, 9, 10, Outbound),
    ];
    let segments = [1, 2, 3, 7, 13, 15, 25, usize::MAX];
    for (segment, (opener, asks, answers, asker)) in
        segments.iter().flat_map(|&n| kinds.map(|kind| (n, kind)))
    {
        let mut world = World { segment, ..World::new() };
        world.occupy(5);
        let connection = world.established(20, opener);
        let (device, remote, name) = (5, 5, 6); // the remote's may be the same as the device's
        if asker == Outbound {
            assert_eq!(world.say(connection, Outbound, &request(asks, device)), request(asks, name));
            assert_eq!(
                world.say(connection, Inbound, &reply(answers, remote, name, 1)),
                reply(answers, remote, device, 1)
            );
        } else {
            assert_eq!(world.say(connection, Inbound, &request(asks, remote)), request(asks, remote));
            assert_eq!(
                world.say(connection, Outbound, &reply(answers, device, remote, 1)),
                reply(answers, name, remote, 1)
            );
        }
        assert_eq!(world.inbound(name), Ok((connection.device.addr, device)), "{opener:?} {asks}");
        assert_eq!(world.outbound(connection, remote), Ok(remote), "{opener:?} {asks}");
        assert_eq!(world.pptp.counters(), super::Counters::default());
    }
}

#[test]
fn every_other_message_in_both_directions() {
    // The device calls itself 5 and the remote knows it as 6; the remote calls itself 9.
    const KEPT: [(Direction, u16, u16); 10] = [
        (Outbound, 9, 9),
        (Inbound, 9, 9),
        (Outbound, 5, 6),
        (Inbound, 6, 5),
        (Outbound, 7, 7),
        (Inbound, 7, 7),
        (Outbound, 6, 6), // the name is no ID of the device's,
        (Inbound, 5, 5),  // and the ID is no name
        (Outbound, 0, 0),
        (Inbound, 0, 0),
    ];
    for opener in [Outbound, Inbound] {
        let mut world = World::new();
        let connection = world.call(opener, 5, 6, 9);
        for (direction, told, understood) in KEPT {
            for number in [11, 12, 14, 15] {
                let message = |id| request(number, id);
                let case = (opener, number, direction, told);
                assert_eq!(world.say(connection, direction, &message(told)), message(understood), "{case:?}");
            }
            for number in [5, 6] {
                let echo = request(number, told);
                assert_eq!(world.say(connection, direction, &echo), echo);
            }
        }
        assert_eq!(world.inbound(6), Ok((connection.device.addr, 5)));
        for number in [3, 4] {
            let mut world = World::new();
            let connection = world.call(opener, 5, 6, 9);
            assert_eq!(world.say(connection, Inbound, &request(number, 5)), request(number, 5));
            world.later(GRACE);
            assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
        }
    }
}

#[test]
fn call_disconnect_names_either_side_and_ends_the_call_after_a_grace() {
    for opener in [Outbound, Inbound] {
        for (direction, told, understood) in
            [(Inbound, 9, 9), (Inbound, 6, 5), (Outbound, 5, 6), (Outbound, 9, 9)]
        {
            let mut world = World::new();
            let connection = world.call(opener, 5, 6, 9);
            assert_eq!(world.say(connection, direction, &request(13, told)), request(13, understood));
            assert_eq!(world.inbound(6), Ok((connection.device.addr, 5)));
            assert_eq!(world.outbound(connection, 9), Ok(9));
            world.later(GRACE);
            assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
            assert_eq!(world.outbound(connection, 9), Err(Refusal::CallEnded));
            world.later(QUARANTINE);
            assert_eq!(world.inbound(6), Err(Refusal::UnknownCall));
            assert_eq!(world.outbound(connection, 9), Err(Refusal::UnknownCall));
        }
    }
}

#[test]
fn a_disconnect_that_fits_two_calls_ends_neither() {
    let mut world = World::new();
    let client = world.client(10);
    world.dial(client, 3, 3, 4);
    world.dial(client, 4, 4, 3);
    assert_eq!(world.say(client, Inbound, &request(13, 3)), request(13, 3));
    world.later(GRACE);
    assert_eq!(world.inbound(3), Ok((client.device.addr, 3)));
    assert_eq!(world.inbound(4), Ok((client.device.addr, 4)));
}

#[test]
fn an_id_of_two_calls_is_the_one_that_the_rfc_means() {
    let mut world = World::new();
    world.occupy(5);
    let other = world.client(201);
    world.dial(other, 10, 10, 0xabcd);
    let client = world.client(10);
    world.dial(client, 5, 6, 10);
    world.dial(client, 10, 11, 6);
    for (number, direction, told, understood) in [
        (11, Outbound, 10, 10), // the receiver's: the first call's remote
        (14, Outbound, 10, 10),
        (15, Outbound, 10, 10),
        (12, Outbound, 10, 11), // the sender's: the second call's device
        (13, Outbound, 10, 11),
        (11, Inbound, 6, 5), // the receiver's: the first call's device
        (14, Inbound, 6, 5),
        (15, Inbound, 6, 5),
        (12, Inbound, 6, 6), // the sender's: the second call's remote
        (13, Inbound, 6, 6),
    ] {
        let got = world.say(client, direction, &request(number, told));
        assert_eq!(got, request(number, understood), "{number} {direction:?}");
    }
}

#[test]
fn a_connection_speaks_of_its_own_calls_only() {
    let mut world = World::new();
    let victim = world.call(Outbound, 5, 6, 9);
    let other = world.client(11);
    for number in [12, 13, 15] {
        for direction in [Inbound, Outbound] {
            for id in [5, 6, 9] {
                assert_eq!(world.say(other, direction, &request(number, id)), request(number, id));
            }
        }
    }
    // Nor is a reply on one an answer to a request on the other.
    world.say(victim, Outbound, &request(7, 20));
    assert_eq!(world.say(other, Inbound, &reply(8, 1, 20, 1)), reply(8, 1, 20, 1));
    assert!(matches!(world.pptp.gre_inbound(NOW, REMOTE, CallId(20)), GreVerdict::Hold { .. }));
    world.later(GRACE);
    assert_eq!(world.inbound(6), Ok((victim.device.addr, 5)));
}

#[test]
fn two_connections_of_one_device_have_calls_of_their_own() {
    let mut world = World::new();
    let one = world.client(10);
    let two = Connection { device: Endpoint::new(one.device.addr, 40_001), ..one };
    world.open(two, Outbound, 1);
    world.agree(two, Outbound);
    world.dial(one, 5, 5, 9);
    world.dial(two, 5, 6, 9);
    assert_eq!(world.say(two, Inbound, &request(13, 9)), request(13, 9));
    world.later(GRACE);
    assert_eq!(world.inbound(5), Ok((one.device.addr, 5)));
    assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
    assert_eq!(world.outbound(one, 9), Ok(9));
}

#[test]
fn a_fin_from_the_past_closes_nothing() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    let sequence = world.sequence(client, Inbound).wrapping_sub(10);
    let fin = Segment { sequence, fin: true, ..Segment::default() };
    assert_eq!(world.pptp.control(NOW, client, Inbound, Outbound, &fin), Verdict::Pass);
    world.later(GRACE);
    assert_eq!(world.inbound(6), Ok((client.device.addr, 5)));
}

#[test]
fn a_call_that_ends_before_its_reply_has_no_grace() {
    let mut world = World::new();
    let client = world.client(10);
    world.say(client, Outbound, &request(7, 5));
    world.flag(client, Inbound, Segment { fin: true, ..Segment::default() });
    assert_eq!(world.inbound(5), Err(Refusal::CallEnded));
}

#[test]
fn one_connection_older_than_natd_among_others_explains_unknown_gre() {
    let mut world = World::new();
    world.client(10);
    assert_eq!(world.inbound(5), Err(Refusal::UnknownCall));
    let older = connection(11, Outbound);
    world.line(older, Outbound);
    world.say(older, Outbound, &request(5, 0));
    assert_eq!(world.inbound(5), Err(Refusal::BeforeStart));
}

#[test]
fn two_calls_in_one_connection() {
    let mut world = World::new();
    world.occupy(0);
    let client = world.client(10);
    world.dial(client, 0, 1, 70);
    world.dial(client, 1, 2, 71);
    assert_eq!(world.inbound(1), Ok((client.device.addr, 0)));
    assert_eq!(world.inbound(2), Ok((client.device.addr, 1)));
    world.say(client, Inbound, &request(13, 70));
    world.later(GRACE);
    assert_eq!(world.inbound(1), Err(Refusal::CallEnded));
    assert_eq!(world.inbound(2), Ok((client.device.addr, 1)));
    assert_eq!(world.outbound(client, 71), Ok(71));
}

#[test]
fn a_client_and_a_server_inside_at_once() {
    let mut world = World::new();
    let client = world.client(10);
    world.dial(client, 7, 7, 1);
    let server = world.established(20, Inbound);
    world.say(server, Inbound, &request(7, 1));
    assert_eq!(world.say(server, Outbound, &reply(8, 7, 1, 1)), reply(8, 8, 1, 1));
    assert_eq!(world.inbound(7), Ok((client.device.addr, 7)));
    assert_eq!(world.inbound(8), Ok((server.device.addr, 7)));
    assert_eq!((world.outbound(client, 1), world.outbound(server, 1)), (Ok(1), Ok(1)));
    assert_eq!(world.pptp.quoted_outbound(REMOTE, CallId(1)), None, "it could have been either");
}

#[test]
fn gre_is_for_that_remote_that_device_and_those_ids() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    let other = Ipv4Addr::new(198, 51, 100, 8);
    let no_connection = GreVerdict::Drop(Refusal::NoControlConnection);
    assert_eq!(world.pptp.gre_inbound(world.now, other, CallId(6)), no_connection);
    assert_eq!(world.pptp.gre_outbound(world.now, client.device.addr, other, CallId(9)), no_connection);
    let stranger = Ipv4Addr::new(192, 168, 1, 99);
    assert_eq!(world.pptp.gre_outbound(world.now, stranger, REMOTE, CallId(9)), no_connection);
    assert_eq!(world.inbound(9), Err(Refusal::UnknownCall));
    assert_eq!(world.outbound(client, 6), Err(Refusal::UnknownCall));
}

#[test]
fn quotes_of_gre_find_their_device_and_their_name() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    let device = client.device.addr;
    assert_eq!(world.pptp.quoted_outbound(REMOTE, CallId(9)), Some(device));
    assert_eq!(world.pptp.quoted_outbound(REMOTE, CallId(6)), None);
    assert_eq!(world.pptp.quoted_inbound(device, REMOTE, CallId(5)), Some(CallId(6)));
    assert_eq!(world.pptp.quoted_inbound(device, REMOTE, CallId(6)), None);
    assert_eq!(world.pptp.quoted_inbound(Ipv4Addr::new(192, 168, 1, 99), REMOTE, CallId(5)), None);
}

#[test]
fn a_reply_without_its_request_opens_nothing() {
    for (opener, asks, answers, sender) in [
        (Outbound, None, 8, Inbound),
        (Outbound, Some(9), 8, Inbound),
        (Inbound, None, 8, Outbound),
        (Inbound, Some(9), 8, Outbound),
    ] {
        let mut world = World::new();
        let connection = world.established(10, opener);
        if let Some(asks) = asks {
            world.say(connection, sender.reverse(), &request(asks, 5));
        }
        let forged = reply(answers, 9, 5, 1);
        world.say(connection, sender, &forged);
        let forwards = |verdict| matches!(verdict, GreVerdict::Forward { .. });
        for id in [CallId(5), CallId(9)] {
            assert!(!forwards(world.pptp.gre_inbound(NOW, REMOTE, id)));
            assert!(!forwards(world.pptp.gre_outbound(NOW, connection.device.addr, REMOTE, id)));
        }
        assert_eq!(world.pptp.counters().unasked, 1);
    }
}

#[test]
fn the_asker_cannot_answer_itself() {
    let mut world = World::new();
    let client = world.client(10);
    world.say(client, Outbound, &request(7, 5));
    world.say(client, Outbound, &reply(8, 9, 5, 1));
    assert!(world.outbound(client, 9).is_err());
    assert_eq!(
        world.pptp.gre_inbound(world.now, REMOTE, CallId(5)),
        GreVerdict::Hold { until: world.now + super::HOLD }
    );
}

#[test]
fn a_refused_call_opens_nothing() {
    for (opener, result) in [(Outbound, 0), (Outbound, 4), (Inbound, 7)] {
        let mut world = World::new();
        let connection = world.established(10, opener);
        world.say(connection, opener, &request(7, 5));
        world.say(connection, opener.reverse(), &reply(8, 9, 5, result));
        for id in [5, 9] {
            assert_eq!(world.inbound(id), Err(Refusal::UnknownCall));
            assert_eq!(world.outbound(connection, id), Err(Refusal::UnknownCall));
        }
    }
}

#[test]
fn nothing_is_opened_without_the_whole_handshake() {
    let start = || message(1, CallId(0), CallId(0), 0);
    let agree = |result| message(2, CallId(0), CallId(0), result);
    let courses: [Vec<(Direction, Vec<u8>)>; 7] = [
        vec![],
        vec![(Outbound, start())],
        vec![(Inbound, agree(1))],
        vec![(Outbound, start()), (Inbound, agree(2))],
        vec![(Inbound, start()), (Outbound, agree(1))], // from the wrong sides
        vec![(Outbound, start()), (Outbound, agree(1))],
        vec![(Inbound, start()), (Inbound, agree(1))],
    ];
    for course in courses {
        let mut world = World::new();
        world.occupy(5);
        let client = world.opened(10, Outbound);
        for (direction, message) in &course {
            world.say(client, *direction, message);
        }
        assert_eq!(world.say(client, Outbound, &request(7, 5)), request(7, 5), "{}", course.len());
        world.say(client, Inbound, &reply(8, 9, 5, 1));
        assert_eq!(world.outbound(client, 9), Err(Refusal::UnknownCall));
        assert_ne!(world.inbound(5), Ok((client.device.addr, 5)));
    }
}

#[test]
fn a_connection_older_than_natd_opens_nothing_and_says_so() {
    let mut world = World::new();
    let client = connection(10, Outbound);
    world.line(client, Outbound);
    assert_eq!(world.inbound(0), Err(Refusal::NoControlConnection));
    assert_eq!(world.outbound(client, 9), Err(Refusal::NoControlConnection));
    world.say(client, Inbound, &request(5, 0));
    assert_eq!(world.inbound(0), Err(Refusal::NoControlConnection), "a stranger makes no state");
    for bytes in [message(1, CallId(0), CallId(0), 0), request(7, 0)] {
        assert_eq!(world.say(client, Outbound, &bytes), bytes);
    }
    world.say(client, Inbound, &reply(8, 9, 0, 1));
    assert_eq!(world.inbound(0), Err(Refusal::BeforeStart));
    assert_eq!(world.outbound(client, 9), Err(Refusal::BeforeStart));
    assert_eq!(world.phases(), [ViewPhase::BeforeStart]);
    // It is dialled again, from the same port even.
    world.open(client, Outbound, 77);
    world.agree(client, Outbound);
    world.dial(client, 0, 0, 9);
    assert_eq!(world.inbound(0), Ok((client.device.addr, 0)));
}

#[test]
fn gre_ahead_of_its_reply_is_held_and_only_that() {
    let mut world = World::new();
    let client = world.client(10);
    let hold = GreVerdict::Hold { until: NOW + super::HOLD };
    world.say(client, Outbound, &request(7, 5));
    assert_eq!(world.pptp.gre_inbound(NOW, REMOTE, CallId(5)), hold);
    assert_eq!(world.inbound(6), Err(Refusal::UnknownCall));
    let before = world.pptp.generation();
    world.say(client, Inbound, &request(5, 0));
    assert_eq!(world.pptp.generation(), before);
    world.say(client, Inbound, &reply(8, 9, 5, 1));
    assert_ne!(world.pptp.generation(), before);
    assert_eq!(world.inbound(5), Ok((client.device.addr, 5)));

    let server = world.established(20, Inbound);
    world.say(server, Inbound, &request(7, 30));
    let device = server.device.addr;
    assert_eq!(world.pptp.gre_outbound(NOW, device, REMOTE, CallId(30)), hold);
    assert_eq!(world.outbound(server, 31), Err(Refusal::UnknownCall));
    assert_eq!(world.outbound(client, 30), Err(Refusal::UnknownCall));
    world.say(server, Outbound, &reply(8, 1, 30, 1));
    assert_eq!(world.outbound(server, 30), Ok(30));
}

#[test]
fn a_request_that_nobody_answers_in_time_is_forgotten() {
    let mut world = World::new();
    let client = world.client(10);
    world.say(client, Outbound, &request(7, 5));
    assert_eq!(world.pptp.poll_timeout(), Some(NOW + REQUEST_LIFETIME));
    world.later(REQUEST_LIFETIME);
    assert_eq!((world.pptp.poll_timeout(), world.pptp.counters().unanswered), (None, 1));
    world.say(client, Inbound, &reply(8, 9, 5, 1));
    assert_eq!(world.inbound(5), Err(Refusal::UnknownCall));

    let server = world.established(20, Inbound);
    world.say(server, Inbound, &request(7, 30));
    world.later(REQUEST_LIFETIME);
    assert_eq!(world.outbound(server, 30), Err(Refusal::UnknownCall));
    world.say(server, Outbound, &reply(8, 1, 30, 1));
    assert_eq!(world.outbound(server, 30), Err(Refusal::UnknownCall));
}

#[test]
fn a_call_lives_and_ends_with_its_connection() {
    let ends: [fn(&mut World, Connection); 4] = [
        |world, connection| world.flag(connection, Inbound, Segment { fin: true, ..Segment::default() }),
        |world, connection| world.flag(connection, Outbound, Segment { fin: true, ..Segment::default() }),
        |world, connection| world.flag(connection, Inbound, Segment { rst: true, ..Segment::default() }),
        |world, connection| world.pptp.end_connection(world.now, connection),
    ];
    for end in ends {
        let mut world = World::new();
        let client = world.call(Outbound, 5, 6, 9);
        let other = world.client(11);
        world.dial(other, 8, 8, 4);
        world.later(Duration::from_secs(86_400));
        assert_eq!(world.inbound(6), Ok((client.device.addr, 5)));
        end(&mut world, client);
        assert_eq!(world.inbound(6), Ok((client.device.addr, 5)));
        world.later(GRACE);
        assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
        assert!(world.outbound(client, 9).is_err());
        // Its name is nobody else's yet,
        world.dial(other, 6, 7, 11);
        world.later(QUARANTINE);
        // and now it can be.
        world.say(other, Outbound, &request(13, 6));
        world.later(QUARANTINE);
        world.dial(other, 6, 6, 12);
        assert_eq!(world.inbound(8), Ok((other.device.addr, 8)));
    }
}

#[test]
fn a_closed_connection_opens_nothing_more() {
    let mut world = World::new();
    let client = world.client(10);
    world.flag(client, Inbound, Segment { fin: true, ..Segment::default() });
    world.say(client, Outbound, &request(7, 5));
    assert_eq!(world.inbound(5), Err(Refusal::UnknownCall));
}

#[test]
fn a_connection_that_is_opened_anew_begins_anew() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    // A SYN alone changes nothing; its answer does.
    let syn = Segment { sequence: 5_000_000, syn: true, ..Segment::default() };
    assert_eq!(world.pptp.control(world.now, client, Outbound, Outbound, &syn), Verdict::Pass);
    world.later(GRACE);
    assert_eq!(world.inbound(6), Ok((client.device.addr, 5)));
    world.open(client, Outbound, 5_000_000);
    world.later(GRACE);
    assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
    world.agree(client, Outbound);
    world.say(client, Outbound, &request(7, 1));
    world.say(client, Inbound, &reply(8, 2, 1, 1));
    assert_eq!(world.inbound(1), Ok((client.device.addr, 1)));
}

#[test]
fn an_answer_to_another_syn_opens_nothing() {
    let mut world = World::new();
    let client = connection(10, Outbound);
    world.line(client, Outbound);
    let syn = Segment { sequence: 10, syn: true, ..Segment::default() };
    let answers = [
        (Inbound, Segment { acknowledgement: Some(12), ..syn }),
        (Outbound, Segment { acknowledgement: Some(11), ..syn }),
        (Inbound, syn),
    ];
    assert_eq!(world.pptp.control(NOW, client, Outbound, Outbound, &syn), Verdict::Pass);
    for (direction, segment) in answers {
        assert_eq!(world.pptp.control(NOW, client, direction, Outbound, &segment), Verdict::Pass);
    }
    *world.sequence(client, Outbound) = 11;
    *world.sequence(client, Inbound) = 11;
    world.agree(client, Outbound);
    world.say(client, Outbound, &request(7, 5));
    world.say(client, Inbound, &reply(8, 9, 5, 1));
    assert!(world.inbound(5).is_err());
}

#[test]
fn strange_messages_pass_and_are_counted() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    let mut long = request(15, 6);
    long[1] += 4;
    long.extend([0; 4]);
    let mut unknown = request(15, 6);
    unknown[9] = 16;
    let mut short = request(15, 6);
    short.truncate(12);
    short[1] = 12;
    for bytes in [&long, &unknown, &short] {
        assert_eq!(&world.say(client, Inbound, bytes), bytes);
    }
    assert_eq!(world.say(client, Inbound, &request(15, 6)), request(15, 5), "still in step");
    let counters = world.pptp.counters();
    assert_eq!((counters.malformed, counters.unknown, counters.foreign), (2, 1, 0));
}

#[test]
fn a_stream_that_is_no_pptp_ends_its_calls_and_passes() {
    for (at, byte) in [(1, 11), (1, 221), (0, 1), (2, 1), (3, 2), (4, 0), (7, 0x4e)] {
        let mut world = World::new();
        let client = world.call(Outbound, 5, 6, 9);
        let mut bytes = request(15, 6);
        bytes[at] = byte;
        assert_eq!(world.say(client, Inbound, &bytes), bytes, "{at}");
        assert_eq!(world.pptp.counters().foreign, 1);
        assert_eq!(world.say(client, Inbound, &request(15, 6)), request(15, 6));
        assert_eq!(world.say(client, Outbound, &request(7, 1)), request(7, 1));
        world.later(GRACE);
        assert_eq!(world.inbound(6), Err(Refusal::CallEnded));
        assert_eq!(world.inbound(1), Err(Refusal::UnknownCall));
    }
}

#[test]
fn http_to_the_port_of_pptp_opens_nothing() {
    // A browser can be made to send a whole conversation in the body of a request.
    let mut world = World::new();
    let client = world.opened(10, Outbound);
    let mut bytes = b"POST / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec();
    bytes.extend(message(1, CallId(0), CallId(0), 0));
    bytes.extend(request(7, 5));
    world.say(client, Outbound, &bytes);
    world.say(client, Inbound, &message(2, CallId(0), CallId(0), 1));
    world.say(client, Inbound, &reply(8, 9, 5, 1));
    assert!(world.inbound(5).is_err() && world.outbound(client, 9).is_err());
}

#[test]
fn connections_are_bounded_and_idle_ones_make_way() {
    let limits =
        Limits { connections: 5, connections_per_device: 3, connections_per_remote: 4, ..Limits::default() };
    let mut world = World { pptp: Pptp::new(limits), ..World::new() };
    let port = |port| Connection {
        device: Endpoint::new(Ipv4Addr::new(192, 168, 1, 10), port),
        ..connection(10, Outbound)
    };
    let syn = Segment { syn: true, ..Segment::default() };
    let ask = |world: &mut World, connection| world.pptp.control(NOW, connection, Outbound, Outbound, &syn);
    let kept = [port(1), port(2), port(3)];
    for connection in kept {
        world.line(connection, Outbound);
        world.open(connection, Outbound, 1);
        world.agree(connection, Outbound);
    }
    let refused = Verdict::Drop(Refusal::ConnectionLimit);
    assert_eq!(ask(&mut world, port(4)), refused, "the device's share");
    let other = connection(11, Outbound);
    assert_eq!(ask(&mut world, other), Verdict::Pass);
    let another = connection(12, Outbound);
    assert_eq!(ask(&mut world, another), Verdict::Pass, "the remote's share, but one was idle");
    assert_eq!(world.pptp.connections.len(), 4);
    assert!(world.pptp.connections.contains_key(&another) && !world.pptp.connections.contains_key(&other));
    assert!(kept.iter().all(|connection| world.pptp.connections.contains_key(connection)));
}

#[test]
fn calls_are_bounded() {
    for limits in [
        Limits { calls: 3, ..Limits::default() },
        Limits { calls_per_device: 3, ..Limits::default() },
        Limits { calls_per_connection: 3, ..Limits::default() },
    ] {
        let mut world = World { pptp: Pptp::new(limits), ..World::new() };
        let client = world.client(10);
        for id in 0..3 {
            world.say(client, Outbound, &request(7, id));
        }
        let sequence = *world.sequence(client, Outbound);
        let bytes = request(7, 3);
        let segment = Segment { sequence, payload: &bytes, ..Segment::default() };
        let refused = world.pptp.control(world.now, client, Outbound, Outbound, &segment);
        assert_eq!(refused, Verdict::Drop(Refusal::CallLimit));
        assert_eq!(world.pptp.views(world.now).len(), 3);
        // TCP sends it again, and by then there may be room.
        world.later(REQUEST_LIFETIME);
        assert_eq!(world.say(client, Outbound, &bytes), bytes);
        assert!(matches!(world.pptp.gre_inbound(world.now, REMOTE, CallId(3)), GreVerdict::Hold { .. }));
    }
}

#[test]
fn requests_of_the_remote_are_bounded() {
    let mut world = World::new();
    let server = world.established(20, Inbound);
    for id in 0..16 {
        world.say(server, Inbound, &request(7, id));
        world.say(server, Inbound, &request(7, id)); // the same one takes no more room
    }
    let sequence = *world.sequence(server, Inbound);
    let bytes = request(7, 16);
    let segment = Segment { sequence, payload: &bytes, ..Segment::default() };
    assert_eq!(
        world.pptp.control(NOW, server, Inbound, Inbound, &segment),
        Verdict::Drop(Refusal::CallLimit)
    );
    world.later(REQUEST_LIFETIME);
    world.say(server, Inbound, &bytes);
    world.say(server, Outbound, &reply(8, 1, 16, 1));
    assert_eq!(world.outbound(server, 16), Ok(16));
}

#[test]
fn names_share_the_high_byte_and_run_out_at_256() {
    let mut world =
        World { pptp: Pptp::new(Limits { calls_per_connection: 300, ..Limits::default() }), ..World::new() };
    let client = world.client(10);
    for id in 0..256 {
        world.dial(client, 0x1200 | id, 0x1200 | id, id);
    }
    let other = world.client(11);
    let sequence = *world.sequence(other, Outbound);
    let bytes = request(7, 0x1210);
    let segment = Segment { sequence, payload: &bytes, ..Segment::default() };
    assert_eq!(
        world.pptp.control(NOW, other, Outbound, Outbound, &segment),
        Verdict::Drop(Refusal::CallLimit)
    );
    world.say(client, Outbound, &request(13, 0x1205));
    world.later(QUARANTINE);
    assert_eq!(world.say(other, Outbound, &bytes), request(7, 0x1205));
}

#[test]
fn a_device_that_asks_twice_with_one_id_gets_one_call() {
    let mut world = World::new();
    let client = world.call(Outbound, 5, 6, 9);
    assert_eq!(world.say(client, Outbound, &request(7, 5)), request(7, 6));
    assert_eq!(world.outbound(client, 9), Err(Refusal::UnknownCall));
    world.say(client, Inbound, &reply(8, 10, 6, 1));
    assert_eq!(world.outbound(client, 10), Ok(10));
    assert_eq!(world.inbound(6), Ok((client.device.addr, 5)));
    assert_eq!(world.phases().len(), 2, "and the one that occupies 5");
}

#[test]
fn views_show_phase_ids_and_traffic() {
    let mut world = World::new();
    let client = world.opened(10, Outbound);
    assert_eq!(world.phases(), [ViewPhase::Handshake]);
    world.agree(client, Outbound);
    assert_eq!(world.phases(), [ViewPhase::Established]);
    world.say(client, Outbound, &request(7, 5));
    assert_eq!(world.phases(), [ViewPhase::Handshake]);
    world.say(client, Inbound, &reply(8, 9, 5, 1));
    assert_eq!(world.phases(), [ViewPhase::Established]);
    let GreVerdict::Forward { call, .. } = world.pptp.gre_inbound(world.now, REMOTE, CallId(5)) else {
        panic!("it is up")
    };
    world.pptp.account(world.now, call, Inbound, 1000);
    world.pptp.account(world.now, call, Inbound, 100);
    world.pptp.account(world.now, call, Outbound, 40);
    let views = world.pptp.views(world.now);
    let found = views[0].call.unwrap();
    assert_eq!((views[0].connection, views[0].phase, views[0].created), (client, ViewPhase::Data, NOW));
    assert_eq!((found.inside, found.outside, found.remote), (CallId(5), CallId(5), Some(CallId(9))));
    assert_eq!((found.inbound.packets, found.inbound.bytes), (2, 1100));
    assert_eq!((found.outbound.packets, found.outbound.bytes, found.outbound.last), (1, 40, Some(NOW)));
    world.later(Duration::from_secs(61));
    assert_eq!(world.phases(), [ViewPhase::Keepalive]);
    world.later(Duration::from_secs(60));
    assert_eq!(world.phases(), [ViewPhase::Idle]);
    world.say(client, Outbound, &request(5, 0));
    assert_eq!(world.phases(), [ViewPhase::Keepalive]);
    world.say(client, Inbound, &request(13, 9));
    assert_eq!(world.phases(), [ViewPhase::Closed]);
}

#[test]
fn garbage_opens_nothing() {
    let mut random = Random(0x5eed_0000_0001);
    for round in 0..1_000 {
        let mut world = World::new();
        let client = world.opened(10, if round % 2 == 0 { Outbound } else { Inbound });
        for _ in 0..20 {
            let direction = if random.next() % 2 == 0 { Outbound } else { Inbound };
            let mut bytes: Vec<u8> = (0..random.next() % 300).map(|_| random.byte()).collect();
            if random.next() % 2 == 0 {
                // Well begun: header and type stand, the rest is chance; the handshake never comes.
                let head = request(3 + random.byte() as u16 % 13, 0);
                bytes = head
                    .iter()
                    .map(|&byte| if random.next() % 8 == 0 { random.byte() } else { byte })
                    .collect();
            }
            world.say(client, direction, &bytes);
        }
        for id in [0, 5, 0xeeee, 0x100] {
            assert!(world.inbound(id).is_err() && world.outbound(client, id).is_err(), "round {round}");
        }
    }
}

#[test]
fn courses_of_chance_hold_what_must_hold() {
    let mut random = Random(0x5eed_0000_0002);
    let (mut forwarded, mut changed) = (0, 0);
    for _ in 0..800 {
        let input: Vec<u8> = (0..600).map(|_| random.byte()).collect();
        let outcome = exercise(&input);
        forwarded += outcome.forwarded;
        changed += outcome.changed;
    }
    assert!(forwarded > 300 && changed > 300, "the courses lead nowhere: {forwarded} {changed}");
}

fn request(number: u16, id: u16) -> Vec<u8> {
    message(number, CallId(id), CallId(0), 0)
}

fn reply(number: u16, sender: u16, receiver: u16, result: u8) -> Vec<u8> {
    message(number, CallId(sender), CallId(receiver), result)
}

/// The connection of the device 192.168.1.`host`.
fn connection(host: u8, opener: Direction) -> Connection {
    let (device, remote) = if opener == Outbound { (40_000, 1723) } else { (1723, 40_000) };
    Connection {
        remote: Endpoint::new(REMOTE, remote),
        device: Endpoint::new(Ipv4Addr::new(192, 168, 1, host), device),
    }
}

/// The ALG and the streams that run through it.
struct World {
    pptp: Pptp,
    now: Timestamp,
    lines: Vec<Line>,
    /// Length of the segments in bytes.
    segment: usize,
}

struct Line {
    connection: Connection,
    opener: Direction,
    outbound: u32,
    inbound: u32,
}

impl World {
    fn new() -> Self {
        Self { pptp: Pptp::new(Limits::default()), now: NOW, lines: Vec::new(), segment: usize::MAX }
    }

    fn line(&mut self, connection: Connection, opener: Direction) -> &mut Line {
        if let Some(place) = self.lines.iter().position(|line| line.connection == connection) {
            return &mut self.lines[place];
        }
        self.lines.push(Line { connection, opener, outbound: 1, inbound: 1 });
        self.lines.last_mut().unwrap()
    }

    fn sequence(&mut self, connection: Connection, direction: Direction) -> &mut u32 {
        let line = self.line(connection, Outbound);
        match direction {
            Outbound => &mut line.outbound,
            Inbound => &mut line.inbound,
        }
    }

    /// Both SYNs, the opener's with the sequence number `start`.
    fn open(&mut self, connection: Connection, opener: Direction, start: u32) {
        let syn = Segment { sequence: start, syn: true, ..Segment::default() };
        let answer = Segment { sequence: !start, acknowledgement: Some(start.wrapping_add(1)), ..syn };
        assert_eq!(self.pptp.control(self.now, connection, opener, opener, &syn), Verdict::Pass);
        assert_eq!(self.pptp.control(self.now, connection, opener.reverse(), opener, &answer), Verdict::Pass);
        self.line(connection, opener);
        *self.sequence(connection, opener) = start.wrapping_add(1);
        *self.sequence(connection, opener.reverse()) = (!start).wrapping_add(1);
    }

    fn agree(&mut self, connection: Connection, opener: Direction) {
        self.say(connection, opener, &message(1, CallId(0), CallId(0), 0));
        self.say(connection, opener.reverse(), &message(2, CallId(0), CallId(0), 1));
    }

    fn opened(&mut self, host: u8, opener: Direction) -> Connection {
        let connection = connection(host, opener);
        self.open(connection, opener, 0xffff_ff80); // sequence numbers come round within the handshake
        connection
    }

    fn established(&mut self, host: u8, opener: Direction) -> Connection {
        let connection = self.opened(host, opener);
        self.agree(connection, opener);
        connection
    }

    fn client(&mut self, host: u8) -> Connection {
        self.established(host, Outbound)
    }

    /// The device calls itself `inside`, is to be known as `outside`, and the remote calls itself `remote`.
    fn dial(&mut self, connection: Connection, inside: u16, outside: u16, remote: u16) {
        assert_eq!(self.say(connection, Outbound, &request(7, inside)), request(7, outside));
        let told = self.say(connection, Inbound, &reply(8, remote, outside, 1));
        assert_eq!(told, reply(8, remote, inside, 1));
    }

    /// Another device has this name.
    fn occupy(&mut self, id: u16) {
        let other = self.client(200);
        self.dial(other, id, id, 0xabcd);
    }

    /// A connection with one call, whose name is not its ID.
    fn call(&mut self, opener: Direction, inside: u16, outside: u16, remote: u16) -> Connection {
        self.occupy(inside);
        let connection = self.established(10, opener);
        self.dial(connection, inside, outside, remote);
        connection
    }

    /// The next bytes of a stream, in segments as long as this world's are, and acknowledged; what the other
    /// side gets.
    fn say(&mut self, connection: Connection, direction: Direction, bytes: &[u8]) -> Vec<u8> {
        let start = *self.sequence(connection, direction);
        let mut got = Vec::new();
        for segment in bytes.chunks(self.segment) {
            let sequence = start.wrapping_add(got.len() as u32);
            got.extend(self.segment(connection, direction, sequence, segment).expect("it passes"));
        }
        let end = start.wrapping_add(bytes.len() as u32);
        *self.sequence(connection, direction) = end;
        let sequence = *self.sequence(connection, direction.reverse());
        let bare = Segment { sequence, acknowledgement: Some(end), ..Segment::default() };
        self.flag(connection, direction.reverse(), bare);
        got
    }

    /// A segment; what the other side gets.
    fn segment(
        &mut self,
        connection: Connection,
        direction: Direction,
        sequence: u32,
        payload: &[u8],
    ) -> Result<Vec<u8>, Refusal> {
        let opener = self.line(connection, Outbound).opener;
        let segment = Segment { sequence, payload, ..Segment::default() };
        let verdict = self.pptp.control(self.now, connection, direction, opener, &segment);
        assert!(self.pptp.is_consistent());
        changed(payload, verdict)
    }

    /// A segment without data at the end of the stream.
    fn flag(&mut self, connection: Connection, direction: Direction, segment: Segment<'_>) {
        let opener = self.line(connection, Outbound).opener;
        let sequence = *self.sequence(connection, direction);
        let segment = Segment { sequence, ..segment };
        assert_eq!(self.pptp.control(self.now, connection, direction, opener, &segment), Verdict::Pass);
        assert!(self.pptp.is_consistent());
    }

    fn later(&mut self, duration: Duration) {
        self.now = self.now + duration;
        self.pptp.handle_timeout(self.now);
        assert!(self.pptp.is_consistent());
    }

    fn inbound(&mut self, id: u16) -> Result<(Ipv4Addr, u16), Refusal> {
        match self.pptp.gre_inbound(self.now, REMOTE, CallId(id)) {
            GreVerdict::Forward { device, call_id, .. } => Ok((device, call_id.0)),
            GreVerdict::Drop(reason) => Err(reason),
            GreVerdict::Hold { .. } => panic!("held"),
        }
    }

    fn outbound(&mut self, connection: Connection, id: u16) -> Result<u16, Refusal> {
        let device = connection.device.addr;
        match self.pptp.gre_outbound(self.now, device, REMOTE, CallId(id)) {
            GreVerdict::Forward { device: found, call_id, .. } if found == device => Ok(call_id.0),
            GreVerdict::Forward { .. } => panic!("another device"),
            GreVerdict::Drop(reason) => Err(reason),
            GreVerdict::Hold { .. } => panic!("held"),
        }
    }

    fn phases(&self) -> Vec<ViewPhase> {
        self.pptp.views(self.now).iter().map(|view| view.phase).collect()
    }
}

fn changed(payload: &[u8], verdict: Verdict) -> Result<Vec<u8>, Refusal> {
    let edits = match verdict {
        Verdict::Pass => Vec::new(),
        Verdict::Edit(edits) => edits,
        Verdict::Drop(reason) => return Err(reason),
    };
    let mut bytes = payload.to_vec();
    for Edit { offset, old, new } in edits {
        assert_eq!(bytes[offset], old);
        bytes[offset] = new;
    }
    Ok(bytes)
}

/// Xorshift; the seed stands where it is made.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn byte(&mut self) -> u8 {
        self.next().to_le_bytes()[0]
    }
}
