use alloc::vec::Vec;

use core::time::Duration;

use super::*;
use crate::l2tp::message::build::{avp, data, data_v3, hidden, v2, v3};
use crate::l2tp::servers::MAX_MEMORIES;
use crate::view::Phase;

const SERVER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const SCCRQ: u16 = 1;
const SCCRP: u16 = 2;
const SCCCN: u16 = 3;
const STOP: u16 = 4;
const HELLO: u16 = 6;
const CDN: u16 = 14;

#[test]
fn three_clients_with_one_tunnel_id_are_told_apart_on_port_1701() {
    let mut lab = Lab::new();
    for (n, external, outside) in [(1, 1701, 1), (2, 40_001, 0x8001), (3, 40_002, 0x8002)] {
        let sent = lab.sends(n, external, &request(1));
        assert_eq!((sent.source_port, lab.wan_id(&sent, 1)), (None, outside), "device {n}");
    }
    // The server answers every one of them to 1701.
    for (n, outside) in [(1, 1), (2, 0x8001), (3, 0x8002)] {
        let peer = 100 + u16::from(n);
        assert_eq!(
            lab.hears(1701, 1701, &reply(outside, peer)),
            if n == 1 { at_nat(&[]) } else { to(n, outside, 1, 4) }
        );
        lab.quietly(n, &v2(peer, SCCCN, &[]));
        assert_eq!(
            lab.hears(1701, 1701, &data(outside)),
            if n == 1 { at_nat(&[]) } else { to(n, outside, 1, 2) }
        );
    }
    let found: Vec<_> = lab.views().iter().map(|v| (v.inside, v.outside, v.peer, v.phase)).collect();
    let expected = [(1, 101), (0x8001, 102), (0x8002, 103)];
    assert_eq!(found, expected.map(|(outside, peer)| (Some(1), Some(outside), Some(peer), Phase::Data)));
}

#[test]
fn a_server_that_answers_to_the_port_it_saw_needs_the_nat_alone() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(2));
    assert_eq!(lab.hears(1701, 1701, &reply(1, 7)), at_nat(&[]));
    assert_eq!(lab.hears(1701, 40_001, &reply(2, 8)), at_nat(&[]));
    assert_eq!(lab.sends(3, 40_002, &request(3)).source_port, None, "nothing is wrong with other ports");
}

#[test]
fn a_retransmitted_request_is_changed_as_the_first_was() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let first = lab.sends(2, 40_001, &request(1));
    lab.wait(1);
    assert_eq!(lab.sends(2, 40_001, &request(1)), first);
    assert_eq!(first.edits, [edit(26, 0, 0x80)]);
    assert_eq!(lab.views().len(), 2);
}

#[test]
fn the_end_of_a_tunnel_names_it_as_the_wan_knows_it() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(1));
    let _ = lab.hears(1701, 40_001, &reply(0x8001, 8));
    let stop = v2(8, STOP, &[avp(1, &[0, 1]), avp(9, &[0, 1])]);
    assert_eq!(lab.sends(2, 40_001, &stop).edits, [edit(34, 0, 0x80)]);
    assert_eq!(lab.phase(2), Phase::Closed);
    assert_eq!(
        lab.hears(1701, 40_001, &v2(0x8001, 0, &[])),
        at_nat(&[edit(4, 0x80, 0)]),
        "its acknowledgement"
    );
    lab.wait(31);
    assert_eq!(lab.views().len(), 1, "the other device's call is still being made");
    assert_eq!(lab.sends(2, 40_001, &stop), Outbound::default(), "a repeated end opens nothing");
    assert_eq!(lab.views().len(), 1);
}

#[test]
fn a_server_that_answers_to_1701_alone_gets_the_next_tunnel_from_there() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(2));
    assert_eq!(lab.hears(1701, 1701, &reply(2, 8)), to(2, 2, 2, 4));
    assert_eq!(
        lab.sends(2, 40_001, &v2(8, SCCCN, &[])).source_port,
        None,
        "a running tunnel stays where it is"
    );
    assert_eq!(lab.sends(2, 40_001, &request(2)).source_port, None, "a late copy of the request as well");

    let third = lab.sends(3, 40_002, &request(1));
    assert_eq!((third.source_port, lab.wan_id(&third, 1)), (Some(1701), 0x8001));
    assert_eq!(lab.hears(1701, 1701, &reply(0x8001, 9)), to(3, 0x8001, 1, 4));
    assert_eq!(lab.sends(3, 40_002, &data(9)).source_port, Some(1701));
    assert_eq!(lab.sends(2, 40_001, &request(5)).source_port, Some(1701), "its next tunnel");
    assert_eq!(lab.sends(2, 40_001, &data(8)).source_port, None, "while the first one runs on");
    assert_eq!(lab.hears(1701, 1701, &data(77)), Inbound::Drop(DropReason::UnknownTunnel));
    assert_eq!(lab.sends_to(OTHER, 3, 40_002, &request(1)).source_port, None, "another server");
    assert_eq!(lab.hears(1701, 1701, &request(77)), Inbound::UNCHANGED, "a call is nobody's tunnel");
    let shared: Vec<_> = lab.views().iter().map(|v| (v.external, v.shared)).collect();
    assert_eq!(shared, [(1701, false), (40_001, false), (1701, true), (1701, true), (40_002, false)]);
}

#[test]
fn a_server_that_is_silent_towards_another_port_is_tried_from_1701_in_turn() {
    let mut lab = Lab::new();
    let ports = (0..8).map(|_| {
        lab.wait(1);
        lab.sends(2, 40_001, &request(1)).source_port
    });
    let ports: Vec<_> = ports.collect();
    let shared = Some(1701);
    assert_eq!(ports, [None, None, None, shared, shared, shared, None, None]);
}

#[test]
fn a_call_that_timed_out_makes_the_next_one_share_1701() {
    let mut lab = Lab::new();
    for id in [7, 7, 7] {
        assert_eq!(lab.sends(2, 40_001, &request(id)).source_port, None);
    }
    lab.wait(61);
    assert_eq!(lab.views(), []);
    assert_eq!(lab.sends(2, 40_001, &request(8)).source_port, Some(1701));
    assert_eq!(lab.hears(1701, 1701, &reply(8, 5)), to(2, 8, 8, 4));
    assert_eq!(lab.sends(2, 40_001, &data(5)).source_port, Some(1701));
}

#[test]
fn a_device_that_is_started_anew_gets_a_port_anew() {
    let mut lab = Lab::new();
    let first = lab.sends(2, 40_001, &request(1));
    assert_eq!(lab.hears(1701, 1701, &reply(1, 5)), to(2, 1, 1, 4));
    lab.wait(31);
    let again = lab.sends(2, 40_001, &request(1));
    assert_eq!(again, Outbound { source_port: Some(1701), ..first });
    assert_eq!((lab.views().len(), lab.phase(2)), (1, Phase::Handshake));
}

#[test]
fn what_is_known_of_a_server_follows_what_it_does() {
    let mut lab = Lab::new();
    for _ in 0..4 {
        let _ = lab.sends(2, 40_001, &request(1));
    }
    assert_eq!(lab.alg.servers.evidence(SERVER), Some(Evidence::Silent));
    let _ = lab.sends_to(SERVER, 3, 40_002, &data(9));
    let _ = lab.hears(1701, 40_002, &data(3));
    assert_eq!(lab.alg.servers.evidence(SERVER), None, "it answers to another port");
    let _ = lab.hears(1701, 1701, &data(3));
    assert_eq!(lab.alg.servers.evidence(SERVER), Some(Evidence::Seen));
    lab.alg.remember(lab.now, SERVER, Evidence::Silent);
    let _ = lab.hears(1701, 40_002, &data(3));
    assert_eq!(lab.alg.servers.evidence(SERVER), Some(Evidence::Seen), "seen is seen");
    lab.wait(24 * 3600);
    assert_eq!((lab.alg.servers.evidence(SERVER), lab.alg.poll_timeout()), (None, None));
}

#[test]
fn a_silence_is_not_blamed_on_the_port_where_others_get_answers_there() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 40_000, &request(1));
    let _ = lab.hears(1701, 40_000, &reply(1, 5));
    for _ in 0..5 {
        assert_eq!(lab.sends(2, 40_001, &request(2)).source_port, None);
    }
}

#[test]
fn a_server_may_answer_from_another_port() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(1));
    for (n, external, outside) in [(1, 1701, 1), (2, 40_001, 0x8001)] {
        assert_eq!(lab.hears(5000, external, &reply(outside, 7)), to(n, outside, 1, 4), "device {n}");
    }
    // From then on the device uses that port too, and its mapping knows it.
    let moved = lab.alg.outbound(lab.now, device(2), Endpoint::new(SERVER, 5000), 40_001, &v2(7, SCCCN, &[]));
    assert!(moved.tunnel.is_some());
    assert_eq!(lab.hears(5000, 40_001, &data(0x8001)), at_nat(&[edit(2, 0x80, 0)]));
}

#[test]
fn nobody_but_the_tunnel_s_server_reaches_its_device() {
    let mut lab = Lab::new();
    let _ = lab.sends(2, 40_001, &request(2));
    let before = lab.views();
    let stranger = Endpoint::new(OTHER, 1701);
    for bytes in [reply(2, 9), data(2), v2(2, STOP, &[])] {
        assert_eq!(lab.alg.inbound(lab.now, stranger, 1701, &bytes), Inbound::UNCHANGED);
    }
    assert_eq!(lab.views(), before);
}

#[test]
fn other_services_of_a_server_are_not_mistaken_for_l2tp() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(1));
    let before = lab.views();
    assert_eq!(lab.hears(53, 50_000, &data(0x8001)), Inbound::UNCHANGED);
    let dns = Endpoint::new(SERVER, 53);
    assert_eq!(
        lab.alg.outbound(lab.now, Endpoint::new(device(2).addr, 5353), dns, 50_000, &data(3)),
        Outbound::default()
    );
    assert_eq!(lab.views(), before);
}

#[test]
fn a_hidden_tunnel_id_is_left_alone() {
    let mut lab = Lab::new();
    let secret = v2(0, SCCRQ, &[avp(36, &[1; 16]), hidden(9, &[9, 9, 9, 9])]);
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.hears(1701, 1701, &reply(1, 7));
    lab.alg.remember(lab.now, SERVER, Evidence::Seen);
    let sent = lab.sends(2, 40_001, &secret);
    assert_eq!((sent.edits, sent.source_port), (Vec::new(), None));
    // The hidden id is 1 too. What comes to its port is its own, to 1701 the first device's.
    assert_eq!(lab.hears(1701, 40_001, &v2(1, SCCRP, &[hidden(9, &[8; 4])])), at_nat(&[]));
    assert_eq!(lab.hears(1701, 40_001, &data(1)), at_nat(&[]));
    assert_eq!(lab.hears(1701, 1701, &data(1)), at_nat(&[]));
    let counted: Vec<_> = lab.views().iter().map(|v| (v.inside, v.usage.packets)).collect();
    assert_eq!(counted, [(Some(1), [1, 2]), (None, [1, 2])]);
}

#[test]
fn a_hidden_tunnel_id_is_learned_from_what_comes_to_its_port() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &v2(0, SCCRQ, &[hidden(9, &[9; 4])]));
    assert_eq!(lab.hears(1701, 1701, &v2(1, SCCRP, &[hidden(9, &[8; 4])])), at_nat(&[]));
    let second = lab.sends(2, 40_001, &request(1));
    assert_eq!(lab.wan_id(&second, 1), 0x8001, "1 is taken");
    assert_eq!(lab.hears(1701, 1701, &reply(0x8001, 7)), to(2, 0x8001, 1, 4));
    assert_eq!(lab.hears(1701, 1701, &data(1)), at_nat(&[]));
}

#[test]
fn a_server_s_hidden_tunnel_id_is_learned_from_the_device_s_answer() {
    let mut lab = Lab::new();
    let first = lab.sends(2, 40_001, &request(1));
    assert_eq!(lab.hears(1701, 1701, &v2(1, SCCRP, &[hidden(9, &[8; 4])])), to(2, 1, 1, 4));
    assert_eq!(lab.sends(2, 40_001, &v2(5, SCCCN, &[])).tunnel, first.tunnel);
    let second = lab.sends(2, 40_001, &request(2));
    assert_eq!(second.source_port, Some(1701));
    let _ = lab.hears(1701, 1701, &v2(2, SCCRP, &[hidden(9, &[8; 4])]));
    assert_eq!(lab.sends(2, 40_001, &data(5)), Outbound { edits: Vec::new(), ..first });
    assert_eq!(lab.sends(2, 40_001, &data(6)), Outbound { edits: Vec::new(), ..second });
}

#[test]
fn a_tunnel_older_than_natd_is_known_by_its_port_and_keeps_its_id() {
    let mut lab = Lab::new();
    assert_eq!(lab.sends(1, 1701, &data(50)).edits, []);
    assert_eq!(lab.hears(1701, 1701, &data(1)), at_nat(&[]));
    let newcomer = lab.sends(2, 40_001, &request(1));
    assert_eq!(lab.wan_id(&newcomer, 1), 0x8001);
    let found: Vec<_> = lab.views().iter().map(|v| (v.inside, v.phase)).collect();
    assert_eq!(found, [(None, Phase::Data), (Some(1), Phase::Handshake)]);
}

#[test]
fn a_message_under_a_digest_is_never_changed() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    let signed = v2(0, SCCRQ, &[avp(59, &[0; 17]), avp(9, &[0, 1]), avp(61, &[0, 0, 0, 5])]);
    assert_eq!(lab.sends(2, 40_001, &signed).edits, []);
    assert_eq!(lab.hears(1701, 40_001, &v2(1, SCCRP, &[avp(9, &[0, 7])])), at_nat(&[]));
    // A server of version 3 answers in version 3.
    assert_eq!(lab.hears(1701, 1701, &v3(5, SCCRP, &[avp(61, &[0, 0, 0, 6])])), Lab::whole(2));
    let found = lab.views()[1];
    assert_eq!((found.version, found.inside, found.peer), (Version::V3, Some(5), Some(6)));
    assert_eq!(lab.sends(2, 40_001, &v3(6, SCCCN, &[])).tunnel, Some(found.tunnel));
    // Nor where an earlier message was changed.
    let _ = lab.sends(3, 40_002, &request(1));
    let _ = lab.hears(1701, 40_002, &reply(0x8001, 9));
    let stop = lab.sends(3, 40_002, &v2(9, STOP, &[avp(59, &[0; 17]), avp(9, &[0, 1])]));
    assert_eq!((stop.edits, lab.phase(3)), (Vec::new(), Phase::Closed));
}

#[test]
fn a_server_inside_keeps_its_clients() {
    let mut lab = Lab::new();
    let client = Endpoint::new(OTHER, 1701);
    assert_eq!(lab.alg.inbound(lab.now, client, 1701, &request(9)), Inbound::UNCHANGED, "the port forward's");
    assert_eq!(lab.views(), [], "a stranger's call makes no state");
    let answer = lab.sends_to(OTHER, 1, 1701, &reply(9, 5));
    assert_eq!((&answer.edits, answer.source_port), (&Vec::new(), None));
    assert_eq!(lab.alg.inbound(lab.now, client, 1701, &v2(5, SCCCN, &[])), at_nat_of(&answer));
    assert_eq!(lab.alg.inbound(lab.now, client, 1701, &data(5)), at_nat_of(&answer));
    assert_eq!(lab.sends_to(OTHER, 1, 1701, &data(9)).tunnel, answer.tunnel);
    // A device calls another server that answers to 1701, where the server inside listens.
    let _ = lab.sends(2, 40_001, &request(5));
    assert_eq!(lab.hears(1701, 1701, &reply(5, 3)), to(2, 5, 5, 4));
    assert_eq!(lab.alg.inbound(lab.now, client, 1701, &data(5)), at_nat_of(&answer));
}

#[test]
fn version_3_is_told_apart_by_ids_that_one_device_has() {
    let mut lab = Lab::new();
    let connection = |id: u8| avp(61, &[0, 0, 1, id]);
    for (n, external) in [(1, 1701), (2, 40_001)] {
        let sent = lab.sends(n, external, &v3(0, SCCRQ, &[connection(n)]));
        assert_eq!(sent.edits, []);
    }
    assert_eq!(lab.hears(1701, 1701, &v3(0x0102, SCCRP, &[connection(99)])), Lab::whole(2));
    let call = v3(0x0163, 10, &[avp(63, &[0, 0, 0, 77])]);
    assert_eq!(lab.sends(2, 40_001, &call).source_port, None);
    assert_eq!(lab.hears(1701, 1701, &data_v3(77)), Lab::whole(2));
    assert_eq!(lab.hears(1701, 1701, &data_v3(78)), Inbound::UNCHANGED, "nobody's session");
    assert_eq!(lab.hears(1701, 40_001, &data_v3(77)), at_nat(&[]));

    let third = lab.sends(3, 40_002, &v3(0, SCCRQ, &[connection(3)]));
    assert_eq!(third.source_port, Some(1701));
    assert_eq!(lab.hears(1701, 1701, &v3(0x0103, SCCRP, &[connection(98)])), Lab::whole(3));
    let clash = lab.sends(1, 1701, &v3(0, SCCRQ, &[connection(2)]));
    assert_eq!(clash.edits, []);
}

#[test]
fn version_3_shares_a_port_only_where_sessions_can_be_told_apart() {
    let mut lab = Lab::new();
    let request = |id: u8| v3(0, SCCRQ, &[avp(61, &[0, 0, 0, id])]);
    let _ = lab.sends(2, 40_001, &request(1));
    lab.alg.remember(lab.now, SERVER, Evidence::Seen);
    let beside = lab.sends(2, 40_001, &request(2));
    assert_eq!(beside.source_port, None, "its sessions would leave from either port");
    for (n, peer) in [(3, 13), (4, 14)] {
        assert_eq!(lab.sends(n, 40_000, &request(n)).source_port, Some(1701));
        let _ = lab.hears(1701, 1701, &v3(n.into(), SCCRP, &[avp(61, &[0, 0, 0, peer])]));
        let _ = lab.sends(n, 40_000, &v3(peer.into(), 10, &[avp(63, &[0, 0, 0, 7])]));
    }
    assert_eq!(lab.hears(1701, 1701, &data_v3(7)), Inbound::Drop(DropReason::Ambiguous));
}

#[test]
fn version_3_ids_that_two_devices_have_are_told_apart_by_port_alone() {
    let mut lab = Lab::new();
    for (n, external) in [(2, 40_001), (3, 40_002)] {
        assert_eq!(lab.sends(n, external, &data_v3(1)).edits, []);
        let _ = lab.sends(n, external, &v3(0, SCCRQ, &[avp(61, &[0, 0, 0, 1])]));
    }
    for external in [40_001, 40_002] {
        assert_eq!(lab.hears(1701, external, &v3(1, SCCRP, &[])), at_nat(&[]));
    }
    assert_eq!(lab.hears(1701, 1701, &v3(1, HELLO, &[])), Inbound::Drop(DropReason::Ambiguous));
    lab.alg.remember(lab.now, SERVER, Evidence::Seen);
    let fourth = lab.sends(4, 40_003, &v3(0, SCCRQ, &[avp(61, &[0, 0, 0, 1])]));
    assert_eq!(fourth.source_port, None, "on a shared port it could not be told from the others");
}

#[test]
fn phases_follow_what_flows() {
    let mut lab = Lab::new();
    let _ = lab.sends(1, 1701, &request(1));
    assert_eq!(lab.phase(1), Phase::Handshake);
    let _ = lab.hears(1701, 1701, &reply(1, 7));
    assert_eq!(lab.phase(1), Phase::Established);
    let _ = lab.sends(1, 1701, &data(7));
    assert_eq!(lab.phase(1), Phase::Data);
    let _ = lab.sends(1, 1701, &v2(7, CDN, &[]));
    assert_eq!(lab.phase(1), Phase::Established);
    let _ = lab.hears(1701, 1701, &v2(1, HELLO, &[]));
    assert_eq!(lab.phase(1), Phase::Keepalive);
    lab.wait(120);
    assert_eq!(lab.phase(1), Phase::Idle);
    let _ = lab.hears(1701, 1701, &v2(1, STOP, &[]));
    assert_eq!(lab.phase(1), Phase::Closed);
    let _ = lab.sends(1, 1701, &v2(7, 0, &[]));
    assert_eq!(lab.phase(1), Phase::Closed, "acknowledged");
    let _ = lab.sends(1, 1701, &data(7));
    assert_eq!(lab.phase(1), Phase::Data, "the device knows of no end");
    let tunnel = lab.views()[0].tunnel;
    lab.wait(299);
    lab.alg.account(lab.now, tunnel, Direction::Inbound, 3, 300);
    lab.wait(299);
    assert_eq!(lab.views()[0].usage.packets, [5, 6]);
    lab.wait(1);
    assert_eq!((lab.views(), lab.alg.poll_timeout()), (Vec::new(), None));
}

#[test]
fn a_quote_from_the_shared_port_finds_its_device() {
    let mut lab = Lab::new();
    lab.alg.remember(lab.now, SERVER, Evidence::Seen);
    let server = Endpoint::new(SERVER, 1701);
    let _ = lab.sends(1, 1701, &request(1));
    let _ = lab.sends(2, 40_001, &request(1));
    assert_eq!(lab.alg.quoted(server, &request(1)[..8]), Some(device(2)), "the only call from there");
    let _ = lab.hears(1701, 1701, &reply(0x8001, 7));
    let _ = lab.sends(3, 40_002, &request(1));
    let _ = lab.hears(1701, 1701, &reply(0x8002, 8));
    for (peer, found) in [(7, Some(device(2))), (8, Some(device(3))), (9, None), (0, None)] {
        assert_eq!(lab.alg.quoted(server, &data(peer)[..8]), found, "{peer}");
        assert_eq!(lab.alg.quoted(server, &v2(peer, HELLO, &[])[..8]), found, "{peer}");
    }
    for n in [4, 5] {
        let _ = lab.sends(n, 41_000, &request(1));
    }
    assert_eq!(lab.alg.quoted(server, &request(1)), None, "either's");
    assert_eq!(lab.alg.quoted(Endpoint::new(OTHER, 1701), &data(7)), None);
}

#[test]
fn there_is_room_for_so_many_and_the_rest_has_the_nat() {
    let mut lab = Lab::new();
    for id in 1..=300 {
        let _ = lab.sends(1, 1701, &request(id));
    }
    assert_eq!((lab.views().len(), lab.alg.untracked()), (MAX_PER_DEVICE, 172));
    assert_eq!(lab.sends(1, 1701, &request(300)), Outbound::default());
    for n in 2..=20 {
        for id in 1..=20 {
            let _ = lab.sends(n, 40_000 + u16::from(n), &request(id));
        }
    }
    assert_eq!(lab.views().len(), MAX_PER_REMOTE);
    let mut outside: Vec<_> = lab.views().iter().map(|v| v.outside).collect();
    outside.sort_unstable();
    outside.dedup();
    assert_eq!(outside.len(), MAX_PER_REMOTE, "each has an id of its own");
    for n in 0..2000 {
        lab.alg.remember(lab.now, Ipv4Addr::from(0xc633_6500 + n), Evidence::Silent);
    }
    assert_eq!(lab.alg.servers.len(), MAX_MEMORIES);
    for session in 1..200 {
        let _ = lab.sends_to(OTHER, 30, 42_000, &v3(9, 10, &[avp(63, &[0, 0, 0, session])]));
    }
    assert_eq!(lab.alg.ids.len(), MAX_PER_REMOTE + MAX_IDS);
    lab.alg.clear();
    assert_eq!((lab.alg.ids.len(), lab.alg.parties.len(), lab.views().len()), (0, 0, 0));
}

/// Any bytes from anyone at any time: no panic, no two tunnels with one id in version 2, nothing left behind,
/// and a wake-up that lies ahead.
#[test]
fn random_traffic_keeps_the_tables_in_step() {
    for seed in 1..=20_u64 {
        let mut random = Random(seed);
        let mut lab = Lab::new();
        for step in 0..3000 {
            let bytes = random.message();
            let n = random.below(4) as u8 + 1;
            let external = if n == 1 { 1701 } else { 40_000 + u16::from(n) };
            let remote = if random.below(8) == 0 { OTHER } else { SERVER };
            if random.below(2) == 0 {
                let sent = lab.sends_to(remote, n, external, &bytes);
                check_edits(&sent.edits, &bytes);
            } else {
                let port = [1701, external, 40_002][random.below(3) as usize];
                let from = Endpoint::new(remote, [1701, 1701, 5000][random.below(3) as usize]);
                match lab.alg.inbound(lab.now, from, port, &bytes) {
                    Inbound::ToNat { edits, .. } | Inbound::To { edits, .. } => check_edits(&edits, &bytes),
                    Inbound::Drop(_) => {}
                }
                let _ = lab.alg.quoted(from, &bytes);
            }
            if random.below(20) == 0 {
                lab.wait(u64::from(random.below(40)));
                assert!(lab.alg.poll_timeout().is_none_or(|at| at > lab.now), "seed {seed} step {step}");
            }
            let alg = &lab.alg;
            let held: usize = alg.tunnels.values().map(|t| t.ids.len()).sum();
            assert_eq!(
                (alg.ids.len(), alg.parties.len()),
                (held, alg.tunnels.len()),
                "seed {seed} step {step}"
            );
            let tunnels = alg.ids.iter().filter(|(_, id, _)| matches!(id, Id::Tunnel(_)));
            let mut names: Vec<_> = tunnels.map(|&(remote, id, _)| (remote, id)).collect();
            let all = names.len();
            names.dedup();
            assert_eq!(names.len(), all, "seed {seed} step {step}: two devices with one tunnel id");
        }
        lab.wait(4000);
        assert_eq!(lab.views(), [], "seed {seed}");
    }
}

fn check_edits(edits: &[Edit], bytes: &[u8]) {
    for edit in edits {
        assert_eq!(bytes[usize::from(edit.offset)], edit.old);
    }
}

struct Lab {
    alg: L2tp,
    now: Timestamp,
}

impl Lab {
    fn new() -> Self {
        Self { alg: L2tp::new(), now: Timestamp::from_secs(1000) }
    }

    fn sends(&mut self, n: u8, external: u16, bytes: &[u8]) -> Outbound {
        self.sends_to(SERVER, n, external, bytes)
    }

    fn sends_to(&mut self, remote: Ipv4Addr, n: u8, external: u16, bytes: &[u8]) -> Outbound {
        self.alg.outbound(self.now, device(n), Endpoint::new(remote, 1701), external, bytes)
    }

    /// The same from the port that the device has already, and nothing in it is to change.
    fn quietly(&mut self, n: u8, bytes: &[u8]) {
        let view = *self.views().iter().find(|view| view.device == device(n)).unwrap();
        let sent = self.sends(n, view.external, bytes);
        assert_eq!(sent, Outbound { edits: Vec::new(), source_port: None, tunnel: Some(view.tunnel) });
    }

    /// What to do with a datagram of the server, whose handle is left out.
    fn hears(&mut self, from: u16, external: u16, bytes: &[u8]) -> Inbound {
        let inbound = self.alg.inbound(self.now, Endpoint::new(SERVER, from), external, bytes);
        if let Inbound::To { device, tunnel, .. } = &inbound {
            let view = *self.views().iter().find(|view| view.tunnel == *tunnel).unwrap();
            assert_eq!(view.device, *device);
        }
        match inbound {
            Inbound::ToNat { edits, tunnel: Some(_) } => Inbound::ToNat { edits, tunnel: Some(ANY) },
            Inbound::To { device, edits, .. } => Inbound::To { device, edits, tunnel: ANY },
            Inbound::ToNat { tunnel: None, .. } | Inbound::Drop(_) => inbound,
        }
    }

    fn whole(n: u8) -> Inbound {
        Inbound::To { device: device(n), edits: Vec::new(), tunnel: ANY }
    }

    /// The tunnel id that leaves for `own` in the AVP at 26.
    fn wan_id(&self, sent: &Outbound, own: u16) -> u16 {
        let mut bytes = own.to_be_bytes();
        for edit in &sent.edits {
            bytes[usize::from(edit.offset - 26)] = edit.new;
        }
        u16::from_be_bytes(bytes)
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        self.alg.handle_timeout(self.now);
    }

    fn views(&self) -> Vec<TunnelView> {
        self.alg.views(self.now).collect()
    }

    fn phase(&self, n: u8) -> Phase {
        self.views().iter().find(|view| view.device == device(n)).unwrap().phase
    }
}

const ANY: TunnelHandle = TunnelHandle(u32::MAX);

fn device(n: u8) -> Endpoint {
    Endpoint::new(Ipv4Addr::new(192, 168, 1, 10 + n), 1701)
}

fn request(own: u16) -> Vec<u8> {
    v2(0, SCCRQ, &[avp(9, &own.to_be_bytes())])
}

fn reply(to: u16, own: u16) -> Vec<u8> {
    v2(to, SCCRP, &[avp(9, &own.to_be_bytes())])
}

fn edit(offset: u16, old: u8, new: u8) -> Edit {
    Edit { offset, old, new }
}

fn at_nat(edits: &[Edit]) -> Inbound {
    Inbound::ToNat { edits: edits.to_vec(), tunnel: Some(ANY) }
}

fn at_nat_of(sent: &Outbound) -> Inbound {
    Inbound::ToNat { edits: Vec::new(), tunnel: sent.tunnel }
}

/// To device `n`, whose id in the header at `offset` changes from `old` to `new`.
fn to(n: u8, old: u16, new: u16, offset: u16) -> Inbound {
    let pairs = old.to_be_bytes().into_iter().zip(new.to_be_bytes());
    let edits = (offset..).zip(pairs).filter(|(_, (old, new))| old != new);
    let edits = edits.map(|(at, (old, new))| edit(at, old, new)).collect();
    Inbound::To { device: device(n), edits, tunnel: ANY }
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % bound
    }

    fn message(&mut self) -> Vec<u8> {
        let (to, own) = (self.below(4) as u16, self.below(3) as u8 + 1);
        let to = if self.below(2) == 0 { to } else { 0x8000 + to };
        let kind = [1, 1, 2, 3, 4, 6, 10, 14][self.below(8) as usize];
        let mut bytes = match self.below(8) {
            0..3 => v2(to, kind, &[avp(9, &[0, own])]),
            3 => v2(to, kind, &[hidden(9, &[own; 4])]),
            4 => v3(to.into(), kind, &[avp(61, &[0, 0, 0, own]), avp(63, &[0, 0, 0, own])]),
            5 => data(to),
            6 => data_v3(to.into()),
            _ => v2(to, 0, &[]),
        };
        if self.below(4) == 0 {
            let at = self.below(bytes.len() as u32) as usize;
            bytes[at] = self.below(256) as u8;
        }
        if self.below(10) == 0 {
            bytes.truncate(self.below(40) as usize);
        }
        bytes
    }
}
