//! Plain GRE, alone and with a second device.

use nat_core::flow::Direction::{self, Inbound, Outbound};

use super::*;
use crate::observation::{IcmpKind, Peers, at};
use crate::router::Refusal;
use crate::tally::scene::Scene;

const PLAIN: [u8; 8] = [0, 0, 8, 0, 0x45, 0, 0, 20];
const KEYED: [u8; 12] = [0x20, 0, 8, 0, 0, 0, 0, 9, 0x45, 0, 0, 20];

fn tell(tracker: &mut Tracker, millis: u64, direction: Direction, bytes: &[u8]) {
    tracker.observe(&Peers::default().packet(millis, direction, 47, bytes));
}

fn unanswered(bytes: &[u8]) -> Tracker {
    let mut tracker = Tracker::default();
    for round in 0..5 {
        tell(&mut tracker, 1000 + round * 3000, Outbound, bytes);
    }
    tracker
}

fn alive(bytes: &[u8]) -> Tracker {
    let mut tracker = unanswered(bytes);
    for round in 0..5 {
        tell(&mut tracker, 1020 + round * 3000, Inbound, bytes);
    }
    tracker
}

fn codes(tracker: &Tracker, scene: &Scene, others: &[&Tracker]) -> Vec<Code> {
    let mut findings = Findings::default();
    tracker.judge(&scene.at(20_000), others, &mut findings);
    findings.list.iter().map(|finding| finding.code).collect()
}

#[test]
fn gre_without_answer_is_no_finding_by_itself() {
    assert_eq!(codes(&unanswered(&PLAIN), &Scene::default(), &[]), []);
    assert_eq!(codes(&alive(&PLAIN), &Scene::default(), &[]), []);
}

#[test]
fn gre_on_a_line_that_shares_its_address_cannot_pass() {
    let mut scene = Scene::default();
    scene.router.wan = vec![[192, 0, 0, 2].into()];
    assert_eq!(codes(&unanswered(&PLAIN), &scene, &[]), [Code::SharedIpv4Proto]);
    assert_eq!(codes(&alive(&PLAIN), &scene, &[]), [], "it does pass");
}

#[test]
fn a_second_device_without_a_key_of_its_own_goes_unheard() {
    let scene = Scene::default();
    for (mine, theirs, expected) in [
        (&PLAIN[..], &PLAIN[..], &[Code::GreV0Multi][..]),
        (&KEYED, &KEYED, &[Code::GreV0Multi]),
        (&PLAIN, &KEYED, &[]),
    ] {
        assert_eq!(codes(&unanswered(mine), &scene, &[&alive(theirs)]), expected);
        assert_eq!(codes(&alive(mine), &scene, &[&alive(theirs)]), []);
        assert_eq!(codes(&unanswered(mine), &scene, &[&unanswered(theirs)]), []);
    }
}

#[test]
fn natd_names_a_conflict_of_keys() {
    let mut scene = Scene::default();
    scene.router.refusals.push(Refusal {
        device: Some(scene.pair.device),
        server: Some(scene.pair.server),
        protocol: 47,
        port: 0,
        reason: "key-conflict",
        count: 3,
        first: at(1000),
        last: at(9000),
    });
    assert_eq!(codes(&unanswered(&KEYED), &scene, &[]), [Code::GreV0Multi]);
}

#[test]
fn an_icmp_error_names_who_does_not_want_it() {
    let server = Peers::default().server;
    for (from, code) in [(server, Code::ServerDown), ([203, 0, 113, 9].into(), Code::ServerPath)] {
        let mut tracker = unanswered(&PLAIN);
        tracker.error(&IcmpReport {
            mark: Mark { at: at(1030), number: 1030 },
            from,
            about_outbound: true,
            kind: IcmpKind::ProtocolUnreachable,
            protocol: 47,
            device_port: 0,
            server_port: 0,
            id: 0,
        });
        assert_eq!(codes(&tracker, &Scene::default(), &[]), [code]);
    }
}

#[test]
fn a_session_is_told_for_each_key() {
    let mut tracker = alive(&PLAIN);
    tell(&mut tracker, 14_000, Outbound, &KEYED);
    let mut sessions = Vec::new();
    tracker.sessions(at(20_000), &mut sessions);
    let told: Vec<_> =
        sessions.iter().map(|session| (session.attempt, session.phase, session.packets)).collect();
    assert_eq!(told, [(1, Phase::Data, [5, 5]), (2, Phase::Established, [1, 0])]);
    sessions.clear();
    tracker.sessions(at(900_000), &mut sessions);
    let ends: Vec<_> = sessions.iter().map(|session| session.reason).collect();
    assert_eq!(ends, ["silent", "no answer"]);
}
