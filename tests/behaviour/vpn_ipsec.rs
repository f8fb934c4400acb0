//! ESP through the whole engine: whose an inbound SPI is, and how that is learned.

use std::net::Ipv4Addr;
use std::time::Duration;

use nat_core::decision::{DropReason, KernelFlow, KernelTuple, Note};
use nat_core::flow::{Endpoint, Protocol};
use nat_core::policy::Policy;
use passthrough::settings::{Carrier, InsideServer, Settings};
use passthrough::view::{Learned, Phase, Vpn};

use crate::packets::{A, B, HOP, Packet, S, T, WAN, Wire, error, portless, too_big, udp};
use crate::vpn_ike::{
    AUTH, C, CREATE_CHILD, D, INFORMATIONAL, INITIATOR, QUICK, RESPONSE, SA_INIT, answers, begins, copies,
    encrypted, establish, fragment, from, marked, refusals, v2_encrypted,
};
use crate::world::{Out, World, forward, sent};

/// To the server and back.
const ROUND_TRIP: Duration = Duration::from_millis(50);

#[test]
fn a_server_that_speaks_first_is_heard_through_a_gate_and_without_one_by_nobody() {
    let mut w = World::new();
    let nobody = Out::Dropped(DropReason::EspNoGate);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), nobody);
    w.lan(&from(A, &begins(SA_INIT, 1, false))).sent();
    w.wan(&to_wan(&answers(SA_INIT, 1, 901, false))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), nobody, "nothing is agreed on yet");
    w.lan(&from(A, &v2_encrypted(1, 901, AUTH, INITIATOR, 1))).sent();
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 1)), nobody, "another server");
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    let original = w.admission.unwrap().original;
    assert_eq!((original.protocol, original.src.addr, original.dst.addr), (50, A, S));
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, A, 0x1000, 2)));
    assert_eq!(w.admission, None, "conntrack knows it");
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), nobody, "the gate is closed after its SPI");
    assert_eq!(
        (w.notes(Note::EspEvidence), w.notes(Note::EspGuess), w.drops(DropReason::EspNoGate)),
        (1, 0, 4)
    );
    w.advance(60);
    w.wan(&esp(S, WAN, 0x1000, 3)).sent();
    assert!(w.admission.is_some(), "conntrack may have forgotten it");
}

#[test]
fn no_first_packet_is_lost_and_what_leaves_early_leaves_as_a_copy() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    for (seq, resend) in [(1, false), (2, true), (3, true)] {
        assert_eq!(w.lan(&esp(A, S, 0x5000, seq)), sent(&esp(WAN, S, 0x5000, seq)));
        assert_eq!(w.resend, resend, "conntrack has not entered the first one yet");
    }
    w.advance(1);
    w.lan(&esp(A, S, 0x5000, 4)).sent();
    assert!(!w.resend);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    assert_eq!(w.effects(), vec![]);
}

#[test]
fn quick_mode_opens_a_gate_once_it_was_seen_both_ways() {
    for device_begins in [true, false] {
        let mut w = World::new();
        establish(&mut w, A, 1);
        let message = |id| encrypted(QUICK, 1, 901, id);
        let (mut lan, mut wan) = (from(A, &message(7)), to_wan(&message(7)));
        if device_begins {
            w.lan(&lan).sent();
            w.lan(&lan).sent(); // its repetition, or the next fragment
        } else {
            w.wan(&wan).sent();
            w.wan(&wan).sent();
        }
        // A different exchange does not complete this one.
        (lan, wan) = (from(A, &message(8)), to_wan(&message(8)));
        if device_begins { w.wan(&wan) } else { w.lan(&lan) }.sent();
        assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate));
        (lan, wan) = (from(A, &message(7)), to_wan(&message(7)));
        if device_begins { w.wan(&wan) } else { w.lan(&lan) }.sent();
        w.lan(&lan).sent(); // the third message, or a repetition: no second gate
        in_use(&mut w, A, 0x1000);
        assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), Out::Dropped(DropReason::EspNoGate));
    }
}

#[test]
fn create_child_sa_opens_a_gate_from_either_side() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    in_use(&mut w, A, 0x1000);
    w.lan(&from(A, &v2_encrypted(1, 901, CREATE_CHILD, INITIATOR, 2))).sent();
    in_use(&mut w, A, 0x1001); // begun by the device
    w.wan(&to_wan(&v2_encrypted(1, 901, CREATE_CHILD, 0, 2))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1002, 1)), Out::Dropped(DropReason::EspNoGate), "not answered yet");
    let answer = from(A, &v2_encrypted(1, 901, CREATE_CHILD, INITIATOR | RESPONSE, 2));
    w.lan(&answer).sent();
    w.lan(&answer).sent();
    in_use(&mut w, A, 0x1002); // begun by the server
    assert_eq!(w.wan(&esp(S, WAN, 0x1003, 1)), Out::Dropped(DropReason::EspNoGate), "one gate each");
    w.lan(&from(A, &v2_encrypted(1, 901, INFORMATIONAL, INITIATOR, 3))).sent();
    assert_eq!(
        w.wan(&esp(S, WAN, 0x1003, 1)),
        Out::Dropped(DropReason::EspNoGate),
        "other exchanges open none"
    );
}

#[test]
fn fragments_and_rounds_of_ike_auth_open_one_gate() {
    let mut w = World::new();
    w.lan(&from(A, &begins(SA_INIT, 1, false))).sent();
    w.wan(&to_wan(&answers(SA_INIT, 1, 901, false))).sent();
    for number in 1..=5 {
        w.lan(&from(A, &fragment(1, 901, number))).sent();
    }
    for id in 2..5 {
        w.wan(&to_wan(&v2_encrypted(1, 901, AUTH, RESPONSE, id - 1))).sent();
        w.lan(&from(A, &v2_encrypted(1, 901, AUTH, INITIATOR, id))).sent(); // EAP
    }
    in_use(&mut w, A, 0x1000);
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn an_ike_sa_that_floats_to_4500_opens_no_gate_and_closes_its_own() {
    let mut w = World::new();
    let port = w.lan(&from(A, &begins(SA_INIT, 1, true))).sent().src().1;
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 1, 901, true))).sent();
    let on_4500 = |message: &[u8]| udp((A, 4500), (S, 4500)).payload(&marked(message));
    w.lan(&on_4500(&v2_encrypted(1, 901, AUTH, INITIATOR, 1))).sent();
    w.lan(&on_4500(&v2_encrypted(1, 901, CREATE_CHILD, INITIATOR, 2))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate));
    // A gate that was open before it moved on.
    tunnel(&mut w, B, 2);
    w.lan(&udp((B, 4500), (S, 4500)).payload(&marked(&v2_encrypted(2, 902, INFORMATIONAL, INITIATOR, 2))))
        .sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn old_and_new_pair_live_side_by_side_through_rekeys_from_either_side() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
        w.wan(&esp(S, WAN, 0x1000 * n, 1)).sent();
        w.lan(&esp(device, S, 0x5000 + n, 1)).sent();
    }
    w.lan(&from(A, &v2_encrypted(1, 901, CREATE_CHILD, INITIATOR, 2))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), sent(&esp(S, A, 0x1001, 1)));
    w.wan(&to_wan(&v2_encrypted(2, 902, CREATE_CHILD, 0, 0))).sent();
    w.lan(&from(B, &v2_encrypted(2, 902, CREATE_CHILD, INITIATOR | RESPONSE, 0))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x2001, 1)), sent(&esp(S, B, 0x2001, 1)));
    for seq in 2..40 {
        w.advance(30);
        for (spi, device) in [(0x1000, A), (0x1001, A), (0x2000, B), (0x2001, B)] {
            assert_eq!(w.wan(&esp(S, WAN, spi, seq)), sent(&esp(S, device, spi, seq)));
        }
    }
    assert_eq!((w.effects(), w.notes(Note::EspFanOut), w.notes(Note::EspGuess)), (vec![], 0, 0));
}

#[test]
fn with_several_gates_open_each_of_their_devices_gets_a_copy() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2), (C, 3)] {
        tunnel(&mut w, device, n);
    }
    for spi in [0x1000, 0x2000] {
        for seq in 1..3 {
            assert_eq!(w.wan(&esp(S, WAN, spi, seq)), sent(&esp(S, C, spi, seq)));
            assert_eq!(w.admission.unwrap().original.src.addr, C);
            let expected = [A, B].map(|device| (device, Wire(esp(S, device, spi, seq).bytes())));
            assert_eq!(copies(&mut w), expected);
        }
    }
    assert_eq!((w.notes(Note::EspFanOut), w.notes(Note::EspEvidence)), (4, 0));
    let views = w.engine.sessions(w.now);
    assert!(views.iter().all(|view| view.ids.iter().any(|ids| ids.learned == Some(Learned::FanOut))));
    // Another server's ESP goes to none of them.
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 3)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn a_gate_that_opened_after_an_spi_was_seen_is_no_candidate_for_it() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    assert_eq!(copies(&mut w).len(), 1);
    tunnel(&mut w, C, 3);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, B, 0x1000, 2)));
    assert_eq!(copies(&mut w), [(A, Wire(esp(S, A, 0x1000, 2).bytes()))]);
}

#[test]
fn more_devices_than_fan_out_get_nothing_never_a_subset() {
    for (fan_out, devices) in [(2, &[A, B, C][..]), (1, &[A, B]), (0, &[A, B])] {
        let mut w = World::vpn(Settings { fan_out, ..Settings::default() });
        for (n, &device) in (1..).zip(devices) {
            tunnel(&mut w, device, n);
        }
        assert!(matches!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Held(_)), "fan_out {fan_out}");
        assert_eq!(w.effects(), vec![]);
        w.pass_time(Duration::from_millis(999));
        assert_eq!((w.holds(), w.drops(DropReason::EspAmbiguous)), (1, 0));
        w.pass_time(Duration::from_millis(2));
        assert_eq!(w.released(), [None]);
        assert_eq!((w.drops(DropReason::EspAmbiguous), w.notes(Note::VpnHeld)), (1, 1));
    }
}

#[test]
fn without_fan_out_a_single_gate_is_still_enough() {
    let mut w = World::vpn(Settings { fan_out: 0, ..Settings::default() });
    tunnel(&mut w, A, 1);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    tunnel(&mut w, B, 2);
    assert_eq!(w.wan(&esp(S, WAN, 0x2000, 1)), sent(&esp(S, B, 0x2000, 1)));
}

#[test]
fn without_a_hold_time_what_is_ambiguous_is_dropped_at_once() {
    let mut w = ambiguous(Settings { fan_out: 1, hold: Duration::ZERO, ..Settings::default() });
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspAmbiguous));
    assert_eq!(w.holds(), 0);
}

#[test]
fn a_held_packet_goes_to_its_device_as_soon_as_that_is_known() {
    let mut w = ambiguous(Settings { fan_out: 1, ..Settings::default() });
    for seq in 1..3 {
        assert!(matches!(w.wan(&esp(S, WAN, 0x1000, seq)), Out::Held(_)));
    }
    // B turns out to use NAT-T.
    w.lan(&udp((B, 4500), (S, 4500)).payload(&marked(&v2_encrypted(2, 902, INFORMATIONAL, INITIATOR, 2))))
        .sent();
    let expected = [1, 2].map(|seq| Some(Wire(esp(S, A, 0x1000, seq).bytes())));
    assert_eq!(w.released(), expected);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 3)), sent(&esp(S, A, 0x1000, 3)));
    w.advance(5);
    assert_eq!((w.holds(), w.drops(DropReason::EspAmbiguous)), (0, 0));
}

#[test]
fn few_packets_are_held_for_each_server_and_for_all() {
    let mut w = World::vpn(Settings { fan_out: 1, ..Settings::default() });
    let server = |n| Ipv4Addr::new(203, 0, 113, 40 + n);
    for n in 0..5u8 {
        for (device, spi) in [(A, 100), (B, 200)] {
            tunnel_with(&mut w, device, server(n), spi + u64::from(n));
        }
    }
    for n in 0..5 {
        for seq in 1..=20 {
            let held = matches!(w.wan(&esp(server(n), WAN, 0x1000, seq)), Out::Held(_));
            assert_eq!(held, seq <= 16 && n < 4);
        }
    }
    assert_eq!((w.holds(), w.drops(DropReason::VpnHoldFull)), (64, 36));
    w.advance(2);
    assert_eq!(w.released(), vec![None; 64]);
}

#[test]
fn three_devices_that_start_at_once_all_have_their_tunnels() {
    let mut w = World::new();
    let devices = [(A, 1), (B, 2), (C, 3)];
    for (device, n) in devices {
        w.lan(&from(device, &begins(SA_INIT, n, false))).sent();
    }
    w.pass_time(ROUND_TRIP);
    for (device, n) in devices {
        let answer = to_wan(&answers(SA_INIT, n, 900 + n, false));
        assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
        w.lan(&from(device, &v2_encrypted(n, 900 + n, AUTH, INITIATOR, 1))).sent();
    }
    w.pass_time(ROUND_TRIP);
    // Each says something of its own accord, and answers what it gets.
    for round in 1..=40 {
        for (device, n) in devices {
            w.lan(&esp(device, S, 0x5000 + n, round)).sent();
            w.pass_time(ROUND_TRIP);
            assert!(reached(&mut w, &esp(S, WAN, 0x1000 * n, round)).contains(&device));
            w.pass_time(Duration::from_millis(610));
        }
    }
    for (device, n) in devices {
        assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000 * n, 41)), [device], "decided by now");
    }
}

#[test]
fn a_conversation_tells_whose_an_spi_is_after_several_exchanges_and_not_before() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    let mut decided = None;
    for round in 1..=20 {
        w.lan(&esp(A, S, 0x5001, round)).sent();
        w.pass_time(ROUND_TRIP);
        let to = reached(&mut w, &esp(S, WAN, 0x1000, round));
        assert!(to.contains(&A), "never kept from the one whose it is");
        if to == [A] {
            decided.get_or_insert(round);
        }
        w.pass_time(Duration::from_millis(950));
        w.lan(&esp(B, S, 0x5002, round)).sent();
        w.pass_time(Duration::from_millis(1000));
    }
    let decided = decided.unwrap();
    assert!((5..=12).contains(&decided), "{decided}");
    assert_eq!((w.notes(Note::EspGuess), w.notes(Note::EspEvidence)), (1, 0), "it is a guess all the same");
    assert_eq!(w.wan(&esp(S, WAN, 0x2000, 1)), sent(&esp(S, B, 0x2000, 1)), "and the other gate is B's");
}

#[test]
fn a_device_that_answers_whatever_it_is_given_shows_that_it_is_meant() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    let mut decided = None;
    for round in 1..=20 {
        // The server speaks first, at odd times.
        let to = reached(&mut w, &esp(S, WAN, 0x1000, round));
        assert!(to.contains(&A));
        if to == [A] {
            decided.get_or_insert(round);
        }
        w.pass_time(Duration::from_millis(2));
        w.lan(&esp(A, S, 0x5001, round)).sent();
        w.pass_time(Duration::from_millis(2000 + 177 * u64::from(round % 5)));
    }
    let decided = decided.unwrap();
    assert!((5..=14).contains(&decided), "{decided}");
}

#[test]
fn devices_that_send_at_the_same_times_stay_undecided() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    for round in 1..=60 {
        for (device, n) in [(A, 1), (B, 2)] {
            w.lan(&esp(device, S, 0x5000 + n, round)).sent();
        }
        w.pass_time(ROUND_TRIP);
        for spi in [0x1000, 0x2000] {
            let mut to = reached(&mut w, &esp(S, WAN, spi, round));
            to.sort_unstable();
            assert_eq!(to, [A, B]);
        }
        w.pass_time(Duration::from_millis(1950));
    }
    assert_eq!(w.notes(Note::EspGuess), 0);
}

#[test]
fn a_device_that_sends_all_the_time_is_not_taken_for_one_that_is_answered() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    // B only listens; what it gets comes at any time.
    for round in 1..=400 {
        w.lan(&esp(A, S, 0x5001, round)).sent();
        w.pass_time(Duration::from_millis(30));
        if round % 20 == 0 {
            assert!(reached(&mut w, &esp(S, WAN, 0x2000, round / 20)).contains(&B));
        }
    }
}

#[test]
fn a_client_that_was_started_anew_gets_its_new_pair() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
        w.wan(&esp(S, WAN, 0x1000 * n, 1)).sent();
        w.lan(&esp(device, S, 0x5000 + n, 1)).sent();
    }
    tunnel(&mut w, A, 7);
    assert_eq!(w.wan(&esp(S, WAN, 0x7000, 1)), sent(&esp(S, A, 0x7000, 1)));
    assert_eq!(w.lan(&esp(A, S, 0x5007, 1)), sent(&esp(WAN, S, 0x5007, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 0x2000, 2)), sent(&esp(S, B, 0x2000, 2)));
    // Whose keys are those? Still A's, which throws them away.
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, A, 0x1000, 2)));
}

#[test]
fn an_ike_sa_that_the_server_begins_does_not_close_the_gate_of_another() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    let request = to_wan(&begins(SA_INIT, 77, false));
    assert_eq!(w.wan(&request), sent(&request.to(A, 500)));
    w.lan(&from(A, &answers(SA_INIT, 77, 78, false))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
}

#[test]
fn a_rekeyed_ike_sa_takes_back_the_gate_that_its_exchange_opened() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    in_use(&mut w, A, 0x1000);
    w.lan(&from(A, &v2_encrypted(1, 901, CREATE_CHILD, INITIATOR, 2))).sent();
    // New SPIs of IKE that nobody saw: the exchange made those.
    w.lan(&from(A, &v2_encrypted(0x11, 0x99, INFORMATIONAL, INITIATOR, 0))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), Out::Dropped(DropReason::EspNoGate));
    w.lan(&from(A, &v2_encrypted(0x11, 0x99, CREATE_CHILD, INITIATOR, 1))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), sent(&esp(S, A, 0x1001, 1)));
}

#[test]
fn mobike_takes_the_pairs_along_to_the_new_address_and_nobody_else_can() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    tunnel(&mut w, B, 2);
    // B's pair is known.
    w.lan(&udp((A, 4500), (S, 4500)).payload(&marked(&v2_encrypted(1, 901, INFORMATIONAL, INITIATOR, 2))))
        .sent();
    w.wan(&esp(S, WAN, 0x2000, 1)).sent();
    w.lan(&esp(B, S, 0x5002, 1)).sent();
    for _ in 0..3 {
        w.lan(&from(C, &v2_encrypted(2, 999, INFORMATIONAL, INITIATOR, 5)));
        w.effects();
        assert_eq!(w.wan(&esp(S, WAN, 0x2000, 2)), sent(&esp(S, B, 0x2000, 2)));
    }
    w.lan(&from(D, &v2_encrypted(2, 902, INFORMATIONAL, INITIATOR, 2))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x2000, 3)), sent(&esp(S, D, 0x2000, 3)));
    assert_eq!(w.lan(&esp(D, S, 0x5002, 2)), sent(&esp(WAN, S, 0x5002, 2)));
    let quote = esp(WAN, S, 0x5002, 2);
    assert_eq!(w.wan(&too_big(1400, HOP, WAN, &quote.head(8))).sent().dst().0, D);
    assert_eq!(w.wan(&esp(S, WAN, 0x2001, 1)), Out::Dropped(DropReason::EspNoGate), "no gate came of it");
}

#[test]
fn mobike_leaves_the_pairs_of_the_device_s_other_ike_sas() {
    let mut w = World::new();
    for n in [1, 3] {
        tunnel(&mut w, A, n);
        in_use(&mut w, A, 0x1000 * n);
    }
    w.lan(&from(D, &v2_encrypted(1, 901, INFORMATIONAL, INITIATOR, 2))).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 3)), sent(&esp(S, D, 0x1000, 3)));
    assert_eq!(w.wan(&esp(S, WAN, 0x3000, 3)), sent(&esp(S, A, 0x3000, 3)));
}

#[test]
fn a_device_with_another_s_initiator_spi_does_not_take_its_pairs() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    // By chance or on purpose; both ports are ordinary ones.
    let port = w.lan(&from(B, &begins(SA_INIT, 1, true))).sent().src().1;
    assert_ne!(port, 500);
    w.wan(&udp((S, 500), (WAN, port)).payload(&answers(SA_INIT, 1, 902, true))).sent();
    for id in 1..4 {
        w.lan(&from(B, &v2_encrypted(1, 902, AUTH, INITIATOR, id))).sent();
        assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1 + id)), sent(&esp(S, A, 0x1000, 1 + id)));
    }
    for id in 5..9 {
        w.lan(&from(C, &v2_encrypted(1, 0xdead, INFORMATIONAL, INITIATOR, id)));
        assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1 + id)), sent(&esp(S, A, 0x1000, 1 + id)));
    }
}

#[test]
fn with_manual_keys_the_only_device_that_sends_esp_is_a_guess() {
    let mut w = World::new();
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate), "with that server only");
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    assert_eq!((w.notes(Note::EspGuess), w.notes(Note::EspEvidence)), (1, 0));
    let view = w.engine.sessions(w.now).remove(0);
    assert_eq!((view.vpn, view.phase), (Vpn::Esp, Phase::Data));
    let ids = view.ids[0];
    assert_eq!(
        (ids.inside, ids.outside, ids.remote, ids.learned),
        (Some(0x1000), Some(0x1000), Some(0x5001), Some(Learned::Guess))
    );
    assert_eq!((view.packets, view.bytes), ([1, 1], [44, 44]));
    // Two of them: each gets a copy.
    for (device, spi) in [(B, 0x5002), (C, 0x5003)] {
        w.lan(&esp(device, S, spi, 1)).sent();
    }
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x2000, 1)), [B, C]);
}

#[test]
fn after_a_restart_what_was_written_down_goes_on() {
    let mut before = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut before, device, n);
        before.wan(&esp(S, WAN, 0x1000 * n, 1)).sent();
        before.lan(&esp(device, S, 0x5000 + n, 1)).sent();
    }
    for (device, n) in [(C, 3), (D, 4)] {
        tunnel(&mut before, device, n);
    }
    before.wan(&esp(S, WAN, 0x3000, 1)).sent();
    let memory = before.engine.vpn.memory();
    assert!(before.engine.vpn.take_news(), "there is something to write down");
    before.wan(&esp(S, WAN, 0x1000, 2)).sent();
    assert!(!before.engine.vpn.take_news(), "known packets change nothing");

    let mut w = World::new();
    w.engine.vpn.recall(w.now, &memory);
    let again = w.engine.vpn.memory();
    assert_eq!((&again.pairs, &again.undecided, &again.ike), (&memory.pairs, &memory.undecided, &memory.ike));
    for (device, n) in [(A, 1), (B, 2)] {
        assert_eq!(w.wan(&esp(S, WAN, 0x1000 * n, 3)), sent(&esp(S, device, 0x1000 * n, 3)));
        assert_eq!(w.lan(&esp(device, S, 0x5000 + n, 3)), sent(&esp(WAN, S, 0x5000 + n, 3)));
    }
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x3000, 2)), [C, D], "as undecided as before");
    // IKE stays on the shared port.
    let rekey = from(B, &v2_encrypted(2, 902, CREATE_CHILD, INITIATOR, 2));
    assert_eq!(w.lan(&rekey), sent(&rekey.from(WAN, 500)));
    let answer = to_wan(&v2_encrypted(2, 902, CREATE_CHILD, RESPONSE, 2));
    assert_eq!(w.wan(&answer), sent(&answer.to(B, 500)));
}

#[test]
fn after_a_restart_without_memory_conntrack_says_who_had_a_tunnel() {
    let known = |device| {
        let original = KernelTuple { protocol: 50, src: Endpoint::new(device, 0), dst: Endpoint::new(S, 0) };
        let timeout = Duration::from_secs(600);
        let reply = original.reverse();
        KernelFlow { original, reply, snat: false, dnat: false, replied: true, tcp: None, timeout }
    };
    let mut w = World::new();
    w.engine.adopt(w.now, &known(A));
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 90)), Out::Dropped(DropReason::EspNoGate));
    for (spi, seq) in [(0x1000, 90), (0x1001, 91)] {
        assert_eq!(w.wan(&esp(S, WAN, spi, seq)), sent(&esp(S, A, spi, seq)), "any number of SPIs");
    }
    let view = w.engine.sessions(w.now).remove(0);
    assert!(view.ids.iter().all(|ids| ids.learned == Some(Learned::Restart)), "{view:?}");
    let mut w = World::new();
    for device in [A, B] {
        w.engine.adopt(w.now, &known(device));
        w.engine.adopt(w.now, &known(device));
    }
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 90)), [A, B]);
}

#[test]
fn two_devices_with_one_spi_both_get_its_packets_and_it_is_said_once() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    for seq in 1..=10 {
        w.wan(&esp(S, WAN, 0x1000, seq)).sent();
    }
    tunnel(&mut w, B, 2);
    for seq in 1..=5 {
        assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, seq)), [A, B], "B's tunnel begins with 1");
        assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 10 + seq)), [A, B], "A's is never stolen");
    }
    assert_eq!(w.notes(Note::EspConflict), 1);
    let views = w.engine.sessions(w.now);
    assert!(views.iter().all(|view| view.remark.contains("another device uses the same SPI")), "{views:?}");
}

#[test]
fn a_packet_that_arrives_twice_costs_nobody_its_tunnel() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    w.wan(&esp(S, WAN, 0x1000, 2)).sent();
    tunnel(&mut w, B, 2);
    // Repeated by the network, or by somebody who recorded it.
    assert!(reached(&mut w, &esp(S, WAN, 0x1000, 2)).contains(&A));
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x2000, 1)), [B]);
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x2000, 2)), [B]);
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 3)), [A], "it was no conflict");
}

#[test]
fn a_repetition_while_the_device_itself_is_owed_an_spi_is_no_conflict() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    in_use(&mut w, A, 0x1000);
    w.lan(&from(A, &v2_encrypted(1, 901, CREATE_CHILD, INITIATOR, 2))).sent();
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 2)), [A]);
    assert_eq!(w.notes(Note::EspConflict), 0);
}

#[test]
fn a_gate_that_one_forged_packet_used_up_is_doubted() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x6666, 1)).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, A, 0x1000, 2)));
    // An SPI that is in use is not doubted any more, nor is one after a while.
    w.wan(&esp(S, WAN, 0x6666, 2)).sent();
    assert_eq!(w.wan(&esp(S, WAN, 0x6667, 1)), Out::Dropped(DropReason::EspNoGate));
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x6666, 1)).sent();
    w.advance(61);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn reserved_spis_pass_to_whoever_asked_and_are_never_learned() {
    let mut w = World::new();
    assert_eq!(w.wan(&esp(S, WAN, 8, 1)), Out::Dropped(DropReason::EspNoGate));
    let ping = esp(A, S, 7, 1);
    assert_eq!(w.lan(&ping), sent(&esp(WAN, S, 7, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 8, 1)), sent(&esp(S, A, 8, 1)));
    assert_eq!(w.wan(&esp(T, WAN, 8, 1)), Out::Dropped(DropReason::EspNoGate));
    assert_eq!(w.engine.sessions(w.now), vec![]);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate), "no gate came of it");
    // 255 is the last one.
    tunnel(&mut w, B, 2);
    assert_eq!(w.wan(&esp(S, WAN, 255, 1)), sent(&esp(S, A, 255, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 256, 1)), sent(&esp(S, B, 256, 1)));
}

#[test]
fn the_router_s_own_esp_passes_both_ways() {
    let mut w = World::new();
    for (out, back) in [(0x5000, 0x1000), (7, 8)] {
        let server = if out == 7 { T } else { S };
        assert_eq!(w.router(&esp(WAN, server, out, 1)), Out::Passed);
        assert_eq!(w.wan(&esp(server, WAN, back, 1)), Out::Passed);
    }
    // Its IKE alone is enough.
    let other = Ipv4Addr::new(203, 0, 113, 30);
    w.router(&udp((WAN, 4500), (other, 4500)).payload(&[0xff]));
    assert_eq!(w.wan(&esp(other, WAN, 0x1000, 1)), Out::Passed);
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &esp(WAN, S, 0x5000, 1).head(8))), Out::Passed);
    assert_eq!(w.wan(&error(3, 3, HOP, WAN, &esp(WAN, T, 0x5000, 1).head(8))), Out::Passed);
    // Of one server, a device gets what it is owed.
    tunnel(&mut w, A, 1);
    in_use(&mut w, A, 0x1001);
    assert_eq!(w.wan(&esp(S, WAN, 0x1002, 1)), Out::Passed);
}

#[test]
fn an_error_about_esp_reaches_the_device_that_sent_it() {
    let mut w = World::new();
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
        w.wan(&esp(S, WAN, 0x1000 * n, 1)).sent();
        w.lan(&esp(device, S, 0x5000 + n, 1)).sent();
    }
    copies(&mut w);
    for (device, n) in [(A, 1), (B, 2)] {
        let (quote, inner) = (esp(WAN, S, 0x5000 + n, 1), esp(device, S, 0x5000 + n, 1));
        for len in [8, 12, 60] {
            let (got, expected) =
                (too_big(1400, HOP, WAN, &quote.head(len)), too_big(1400, HOP, device, &inner.head(len)));
            assert_eq!(w.wan(&got), sent(&expected));
            assert_eq!(w.admission.unwrap().original.src.addr, device);
        }
    }
    let quote = |src, dst, spi: u64| esp(src, dst, spi, 1).head(8);
    let rows = [
        (too_big(1400, HOP, WAN, &quote(WAN, S, 0x5009)), DropReason::UnknownQuote),
        (too_big(1400, HOP, WAN, &quote(WAN, S, 0x1000)), DropReason::UnknownQuote),
        (too_big(1400, HOP, WAN, &quote(WAN, T, 0x5001)), DropReason::UnknownQuote),
        (too_big(1400, HOP, WAN, &quote(T, S, 0x5001)), DropReason::UnknownQuote),
        (too_big(1400, HOP, WAN, &quote(A, S, 0x5001)), DropReason::UnknownQuote),
        (too_big(575, HOP, WAN, &quote(WAN, S, 0x5001)), DropReason::MtuTooSmall),
        (error(5, 1, HOP, WAN, &quote(WAN, S, 0x5001)), DropReason::RefusedIcmp),
    ];
    for (packet, reason) in rows {
        assert_eq!(w.wan(&packet), Out::Dropped(reason), "{packet:?}");
    }
}

#[test]
fn a_device_s_error_about_esp_it_got_leaves_without_its_address() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    let complains = error(3, 2, A, S, &esp(S, A, 0x1000, 1).head(8));
    assert_eq!(w.lan(&complains), sent(&error(3, 2, WAN, S, &esp(S, WAN, 0x1000, 1).head(8))));
    for quote in [esp(S, A, 0x1001, 1), esp(T, A, 0x1000, 1), esp(S, B, 0x1000, 1), esp(S, A, 0x5001, 1)] {
        assert_eq!(w.lan(&error(3, 2, A, S, &quote.head(8))), Out::Dropped(DropReason::UnknownQuote));
    }
}

#[test]
fn a_server_inside_has_its_esp_beside_another_device_s_tunnel() {
    let forwards = vec![forward(Protocol::Udp, 500, 500, D, 500)];
    let mut w = World::both(Policy { forwards, ..Policy::default() }, Settings::default(), [7; 16]);
    tunnel(&mut w, A, 1);
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    // T is a client of the server inside.
    let begin = udp((T, 500), (WAN, 500)).payload(&begins(SA_INIT, 50, false));
    assert_eq!(w.wan(&begin), sent(&begin.to(D, 500)));
    let answer = udp((D, 500), (T, 500)).payload(&answers(SA_INIT, 50, 60, false));
    assert_eq!(w.lan(&answer), sent(&answer.from(WAN, 500)));
    let auth = udp((T, 500), (WAN, 500)).payload(&v2_encrypted(50, 60, AUTH, INITIATOR, 1));
    assert_eq!(w.wan(&auth), sent(&auth.to(D, 500)));
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 1)), Out::Dropped(DropReason::EspNoGate), "not answered yet");
    w.lan(&udp((D, 500), (T, 500)).payload(&v2_encrypted(50, 60, AUTH, RESPONSE, 1))).sent();
    assert_eq!(w.wan(&esp(T, WAN, 0x1000, 1)), sent(&esp(T, D, 0x1000, 1)));
    assert_eq!(w.lan(&esp(D, T, 0x5000, 1)), sent(&esp(WAN, T, 0x5000, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, A, 0x1000, 2)));
    assert_eq!(w.wan(&esp(S, WAN, 0x1001, 1)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn a_forward_of_esp_gets_what_nobody_else_is_owed() {
    let servers = vec![InsideServer { carrier: Carrier::Esp, host: D }];
    let mut w = World::vpn(Settings { servers, ..Settings::default() });
    tunnel(&mut w, A, 1);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 1)), sent(&esp(S, A, 0x1000, 1)));
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 2)), sent(&esp(S, A, 0x1000, 2)));
    for (remote, spi) in [(S, 0x4000), (T, 0x4000), (T, 0x4001)] {
        assert_eq!(w.wan(&esp(remote, WAN, spi, 1)), sent(&esp(remote, D, spi, 1)));
    }
    assert_eq!(w.lan(&esp(D, T, 0x5000, 1)), sent(&esp(WAN, T, 0x5000, 1)));
    assert_eq!(w.wan(&esp(T, WAN, 0x4001, 2)), sent(&esp(T, D, 0x4001, 2)));
    let learned: Vec<_> =
        w.engine.sessions(w.now).iter().filter(|v| v.device == D).flat_map(|v| v.ids.clone()).collect();
    assert!(learned.iter().any(|ids| ids.learned == Some(Learned::Forward)), "{learned:?}");
}

#[test]
fn floods_from_outside_make_nothing() {
    let mut w = World::new();
    for n in 0..2000u32 {
        let stranger = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + n);
        assert_eq!(w.wan(&esp(stranger, WAN, 0x1000 + u64::from(n), 1)), Out::Dropped(DropReason::EspNoGate));
    }
    assert_eq!(w.engine.vpn.memory(), passthrough::Memory::default());
    // With the server's address, while two devices are owed an SPI.
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    for n in 0..2000 {
        w.wan(&esp(S, WAN, 0x1000 + n, 1));
        w.effects();
    }
    let memory = w.engine.vpn.memory();
    assert!(memory.undecided.len() <= 128 && memory.pairs.len() == 2, "{}", memory.undecided.len());
    // Both still get theirs.
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x9999, 1)), [A, B]);
    w.advance(1900);
    assert_eq!(w.engine.vpn.memory().undecided, vec![]);
}

#[test]
fn a_device_has_a_limited_number_of_pairs_and_servers_and_takes_none_from_others() {
    let mut w = World::new();
    for spi in 0..200 {
        let out = w.lan(&esp(A, S, 0x5000 + spi, 1));
        assert_eq!(out == Out::Dropped(DropReason::VpnLimit), spi >= 64);
    }
    assert!(!refusals(&mut w).is_empty(), "it is told");
    assert_eq!(w.engine.vpn.memory().pairs.len(), 64);
    w.lan(&esp(B, S, 0x9000, 1)).sent();
    for n in 0..3000u32 {
        let server = Ipv4Addr::from(u32::from(Ipv4Addr::new(198, 18, 0, 0)) + n);
        w.lan(&esp(A, server, 0x5000, 1));
    }
    w.effects();
    w.lan(&esp(B, T, 0x9001, 1)).sent();
    tunnel_with(&mut w, C, Ipv4Addr::new(203, 0, 113, 99), 3);
    let pairs = w.engine.vpn.memory().pairs.len();
    assert!(pairs < 500, "{pairs}");
}

#[test]
fn forged_devices_cannot_use_up_memory_and_tunnels_go_on() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    in_use(&mut w, A, 0x1000);
    let mut sent = 0_u32;
    for device in 20..=250 {
        for spi in 0..64 {
            let from = Ipv4Addr::new(192, 168, 1, device);
            sent += u32::from(matches!(w.lan(&esp(from, T, 0x9000 + spi, 1)), Out::Sent(_)));
        }
    }
    assert!((8000..=8192).contains(&sent), "{sent} pairs were made");
    w.effects();
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 9)), [A]);
}

#[test]
fn a_device_cannot_take_another_s_spi_by_sending_esp() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    w.wan(&esp(S, WAN, 0x1000, 2)).sent();
    // With the SPI that A sends with, and with others.
    for (spi, seq) in [(0x5001, 3), (0x1000, 4)] {
        w.lan(&esp(B, S, spi, 9)).sent();
        assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, seq)), [A]);
        w.advance(1);
    }
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    w.lan(&esp(B, S, 0x5001, 1)).sent();
    assert_eq!(reached(&mut w, &esp(S, WAN, 0x1000, 1)), [A], "the server chose 0x5001 for A");
    // An invented one makes B a candidate beside A, whose packets are never kept from it.
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    w.lan(&esp(B, S, 0x5002, 1)).sent();
    assert!(reached(&mut w, &esp(S, WAN, 0x1000, 1)).contains(&A));
}

#[test]
fn what_has_been_silent_for_long_is_forgotten() {
    let mut w = World::vpn(Settings { esp_idle: Duration::from_secs(600), ..Settings::default() });
    tunnel(&mut w, A, 1);
    w.lan(&esp(A, S, 0x5001, 1)).sent();
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
    w.advance(590);
    w.wan(&esp(S, WAN, 0x1000, 2)).sent();
    w.advance(590);
    w.wan(&esp(S, WAN, 0x1000, 3)).sent();
    w.advance(610);
    assert_eq!(w.engine.sessions(w.now), vec![]);
    assert_eq!(w.wan(&esp(S, WAN, 0x1000, 4)), Out::Dropped(DropReason::EspNoGate));
}

#[test]
fn esp_too_short_for_its_header_is_nobody_s() {
    let mut w = World::new();
    tunnel(&mut w, A, 1);
    let short = portless(50, S, WAN, &[0, 0, 0x10, 0, 0, 0, 0]);
    assert_eq!(w.wan(&short), Out::Dropped(DropReason::Malformed));
    assert_eq!(w.lan(&portless(50, A, S, &[0; 7])), Out::Dropped(DropReason::Malformed));
    w.wan(&esp(S, WAN, 0x1000, 1)).sent();
}

/// Two devices, A and B, whose gates are open.
fn ambiguous(settings: Settings) -> World {
    let mut w = World::vpn(settings);
    for (device, n) in [(A, 1), (B, 2)] {
        tunnel(&mut w, device, n);
    }
    w
}

/// `device` agrees on a tunnel with S by IKEv2 without NAT-T.
fn tunnel(w: &mut World, device: Ipv4Addr, spi: u64) {
    tunnel_with(w, device, S, spi);
}

fn tunnel_with(w: &mut World, device: Ipv4Addr, server: Ipv4Addr, spi: u64) {
    let (lan, wan) = (udp((device, 500), (server, 500)), udp((server, 500), (WAN, 500)));
    let begin = lan.clone().payload(&begins(SA_INIT, spi, false));
    assert_eq!(w.lan(&begin), sent(&begin.from(WAN, 500)));
    w.pass_time(ROUND_TRIP);
    let answer = wan.clone().payload(&answers(SA_INIT, spi, 900 + spi, false));
    assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
    w.lan(&lan.payload(&v2_encrypted(spi, 900 + spi, AUTH, INITIATOR, 1))).sent();
    w.pass_time(ROUND_TRIP);
    let answer = wan.payload(&v2_encrypted(spi, 900 + spi, AUTH, RESPONSE, 1));
    assert_eq!(w.wan(&answer), sent(&answer.to(device, 500)));
}

/// Two packets with `spi` reach `device` alone, so that nobody doubts whose it is.
fn in_use(w: &mut World, device: Ipv4Addr, spi: u64) {
    for seq in 1..3 {
        assert_eq!(w.wan(&esp(S, WAN, spi, seq)), sent(&esp(S, device, spi, seq)));
    }
}

/// The devices that get a packet from the WAN, whose bytes and checksums are right.
fn reached(w: &mut World, packet: &Packet) -> Vec<Ipv4Addr> {
    let out = w.wan(packet).sent();
    let all: Vec<(Ipv4Addr, Wire)> = copies(w).into_iter().chain([(out.dst().0, out)]).collect();
    for (device, wire) in &all {
        assert_eq!(*wire, Wire(packet.to(*device, 0).bytes()));
    }
    all.into_iter().map(|(device, _)| device).collect()
}

fn to_wan(message: &[u8]) -> Packet {
    udp((S, 500), (WAN, 500)).payload(message)
}

/// ESP with 16 bytes behind its header.
fn esp(src: Ipv4Addr, dst: Ipv4Addr, spi: u64, seq: u32) -> Packet {
    let spi = u32::try_from(spi).unwrap();
    portless(50, src, dst, &[&spi.to_be_bytes()[..], &seq.to_be_bytes(), &[0x5a; 16]].concat())
}
