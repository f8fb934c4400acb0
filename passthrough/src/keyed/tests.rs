use super::*;
use crate::l2tp::message::build::{avp, hidden, v2, v3};

const REMOTE: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
const OTHER: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 20);
const GRE_5: Key = Key::Gre { version: 0, key: Some(5) };

#[test]
fn gre_with_keys_is_told_apart_by_them() {
    let mut lab = Lab::new();
    let first = lab.sends(1, gre(Some(5))).unwrap();
    let second = lab.sends(2, gre(Some(6))).unwrap();
    let third = lab.sends(3, gre(None)).unwrap();
    for (key, n, conversation) in [(Some(5), 1, first), (Some(6), 2, second), (None, 3, third)] {
        assert_eq!(lab.hears(gre(key)), at(n, conversation));
    }
    assert_eq!(lab.hears(gre(Some(7))), Err(Refusal::Ambiguous), "never guessed");
    assert_eq!(lab.keyed.inbound(lab.now, OTHER, gre(Some(5))), Err(Refusal::Stranger));
    assert_eq!(lab.views().len(), 3);
}

#[test]
fn a_key_is_the_first_device_s_until_it_falls_silent() {
    for key in [Some(5), None] {
        let mut lab = Lab::new();
        let first = lab.sends(1, gre(key)).unwrap();
        let before = lab.views();
        let conflict = Refusal::Conflict(Key::Gre { version: 0, key });
        assert_eq!(lab.sends(2, gre(key)), Err(conflict));
        assert_eq!(lab.views(), before, "no state from what is refused");
        assert_eq!(lab.hears(gre(key)), at(1, first));
        assert!(lab.keyed.outbound(lab.now, device(2), OTHER, gre(key)).is_ok(), "another remote");
        lab.wait(299);
        assert_eq!(lab.hears(gre(key)), at(1, first), "the remote goes on sending");
        assert_eq!(lab.sends(2, gre(key)), Err(conflict));
        lab.wait(1);
        let second = lab.sends(2, gre(key)).unwrap();
        assert_eq!(lab.hears(gre(key)), at(2, second));
        assert_eq!(lab.sends(1, gre(key)), Err(conflict), "late is late");
    }
}

#[test]
fn a_key_each_way_works_for_a_device_alone() {
    let mut lab = Lab::new();
    let first = lab.sends(1, gre(Some(5))).unwrap();
    assert_eq!(lab.hears(gre(Some(50))), at(1, first));
    lab.sends(2, gre(Some(6))).unwrap();
    assert_eq!(lab.hears(gre(Some(50))), at(1, first), "learned while it was alone");
    assert_eq!(lab.sends(2, gre(Some(50))), Err(Refusal::Conflict(Key::Gre { version: 0, key: Some(50) })));
}

#[test]
fn a_stranger_who_invents_keys_claims_few() {
    let mut lab = Lab::new();
    let first = lab.sends(1, gre(Some(5))).unwrap();
    for key in 100..200 {
        assert_eq!(lab.hears(gre(Some(key))), at(1, first));
    }
    assert_eq!(lab.views()[0].inbound, [GRE_5, Key::Gre { version: 0, key: Some(100) }]);
}

#[test]
fn eoip_has_keys_of_its_own_and_pptp_is_not_touched() {
    let mut lab = Lab::new();
    let plain = lab.sends(1, gre(Some(5))).unwrap();
    let eoip = lab.sends(2, parsed(&[0x20, 1, 0x64, 0, 0, 60, 5, 0])).unwrap();
    assert_eq!(lab.hears(gre(Some(5))), at(1, plain));
    assert_eq!(lab.hears(parsed(&[0x20, 1, 0x64, 0, 0, 99, 5, 0])), at(2, eoip), "whatever its length");
    let pptp = parsed(&[0x20, 1, 0x88, 0x0b, 0, 0, 0, 5]);
    assert_eq!(lab.sends(3, pptp), Err(Refusal::Malformed));
    assert_eq!(lab.hears(pptp), Err(Refusal::Malformed));
    assert_eq!(lab.keyed.quoted(REMOTE, pptp), None);
}

#[test]
fn l2tp_sessions_are_learned_from_control_messages() {
    let mut lab = Lab::new();
    let mut names = Vec::new();
    for n in [1, 2] {
        names.push(lab.sends(n, L2(&control(0, 1, &[avp(61, &id(n.into()))]))).unwrap());
    }
    for (n, name) in [1, 2].into_iter().zip(names.clone()) {
        assert_eq!(lab.hears(L2(&control(n.into(), 2, &[avp(61, &id(90))]))), at(n, name));
        let call = control(90, 10, &[avp(63, &id(u32::from(n) * 100)), avp(64, &id(0))]);
        assert_eq!(lab.sends(n, L2(&call)), Ok(name));
    }
    for (n, name) in [1, 2].into_iter().zip(names) {
        assert_eq!(lab.hears(L2(&data(u32::from(n) * 100))), at(n, name));
    }
    assert_eq!(lab.hears(L2(&data(300))), Err(Refusal::Ambiguous));
    let known: Vec<_> = lab.views().into_iter().map(|view| view.inbound).collect();
    let keys = |n| Vec::from([Key::Connection(n), Key::Session(n * 100)]);
    assert_eq!(known, [keys(1), keys(2)]);
}

#[test]
fn a_session_that_the_remote_repeats_is_learned_of_a_tunnel_older_than_natd() {
    let mut lab = Lab::new();
    let first = lab.sends(1, L2(&control(90, 6, &[]))).unwrap();
    assert_eq!(lab.hears(L2(&control(11, 12, &[avp(64, &id(100))]))), at(1, first));
    lab.sends(2, L2(&control(91, 6, &[]))).unwrap();
    assert_eq!(lab.hears(L2(&data(100))), at(1, first));
}

#[test]
fn the_first_unknown_session_is_the_only_newcomer_s() {
    let mut lab = Lab::new();
    let first = lab.sends(1, L2(&data(7))).unwrap();
    assert_eq!(lab.hears(L2(&data(100))), at(1, first));
    let second = lab.sends(2, L2(&data(8))).unwrap();
    assert_eq!(lab.hears(L2(&data(200))), at(2, second));
    assert_eq!(lab.hears(L2(&data(100))), at(1, first));
    assert_eq!(lab.hears(L2(&data(300))), Err(Refusal::Ambiguous), "both are known by something else");
    lab.sends(3, L2(&data(9))).unwrap();
    lab.sends(4, L2(&data(10))).unwrap();
    assert_eq!(lab.hears(L2(&data(300))), Err(Refusal::Ambiguous), "either newcomer's");
}

#[test]
fn l2tp_ids_that_another_device_has_are_refused() {
    let mut lab = Lab::new();
    let call = |session: u32| control(90, 10, &[avp(63, &id(session))]);
    let first = lab.sends(1, L2(&call(100))).unwrap();
    lab.sends(2, L2(&call(200))).unwrap();
    let before = lab.views();
    assert_eq!(lab.sends(2, L2(&call(100))), Err(Refusal::Conflict(Key::Session(100))));
    assert_eq!(lab.views(), before);
    assert_eq!(lab.hears(L2(&data(100))), at(1, first));
    // A remote that says so cannot hand it over either.
    let _ = lab.hears(L2(&control(0, 11, &[avp(64, &id(100))])));
    assert_eq!(lab.hears(L2(&data(100))), at(1, first));
}

#[test]
fn a_server_inside_gets_what_is_nobody_s() {
    for (carrier, theirs, unknown) in
        [(Carrier::Gre, gre(Some(5)), gre(Some(6))), (Carrier::L2tpV3, L2(&[0, 0, 0, 5]), L2(&[0, 0, 0, 6]))]
    {
        let mut lab = Lab::new();
        lab.keyed.set_server(carrier, Some(device(9)));
        assert_eq!(lab.hears(theirs), Ok(Arrival { device: device(9), conversation: None }));
        assert_eq!(lab.views(), [], "a stranger makes no state");
        let client = lab.sends(1, theirs).unwrap();
        assert_eq!(lab.hears(theirs), at(1, client), "the device's own conversation");
        assert_eq!(lab.hears(unknown), Ok(Arrival { device: device(9), conversation: None }));
        let served = lab.keyed.outbound(lab.now, device(9), OTHER, unknown).unwrap();
        let from_client = lab.keyed.inbound(lab.now, OTHER, unknown);
        assert_eq!(from_client, at(9, served));
        lab.keyed.set_server(carrier, None);
        assert_eq!(
            lab.keyed.inbound(lab.now, Ipv4Addr::new(203, 0, 113, 9), unknown),
            Err(Refusal::Stranger)
        );
    }
}

#[test]
fn a_quote_finds_who_sent_what_it_quotes() {
    let mut lab = Lab::new();
    lab.sends(1, gre(Some(5))).unwrap();
    lab.sends(1, L2(&data(7))).unwrap();
    lab.sends(2, L2(&data(8))).unwrap();
    lab.sends(2, L2(&control(90, 6, &[]))).unwrap();
    for (name, wire, found) in [
        ("key", gre(Some(5)), Some(1)),
        ("another key", gre(Some(6)), None),
        ("no key", gre(None), None),
        ("session", L2(&data(8)[..8]), Some(2)),
        ("unknown session", L2(&data(9)), None),
        ("control", L2(&control(90, 6, &[])[..12]), Some(2)),
        ("cut off", L2(&control(90, 6, &[])[..8]), None),
        ("nothing", L2(&[]), None),
    ] {
        assert_eq!(lab.keyed.quoted(REMOTE, wire), found.map(device), "{name}");
        assert_eq!(lab.keyed.quoted(OTHER, wire), None, "{name} to another remote");
    }
}

#[test]
fn phases_follow_what_flows_and_silence_ends_it() {
    let mut lab = Lab::new();
    lab.sends(1, L2(&control(0, 1, &[avp(61, &id(5))]))).unwrap();
    assert_eq!(lab.views()[0].phase, Phase::Handshake);
    lab.hears(L2(&control(5, 2, &[avp(61, &id(90))]))).unwrap();
    assert_eq!(lab.views()[0].phase, Phase::Established);
    lab.sends(1, L2(&control(90, 6, &[]))).unwrap();
    assert_eq!(lab.views()[0].phase, Phase::Keepalive);
    lab.hears(L2(&data(77))).unwrap();
    assert_eq!(lab.views()[0].phase, Phase::Data);
    lab.wait(120);
    assert_eq!(lab.views()[0].phase, Phase::Idle);
    lab.hears(L2(&control(5, 4, &[]))).unwrap();
    assert_eq!(lab.views()[0].phase, Phase::Closed);
    assert_eq!(lab.views()[0].usage.packets, [2, 3]);
    lab.wait(31);
    assert_eq!((lab.views(), lab.keyed.poll_timeout()), (Vec::new(), None));

    let unanswered = lab.sends(1, gre(None)).unwrap();
    lab.wait(119);
    lab.keyed.account(lab.now, unanswered, Direction::Inbound, 2, 200);
    lab.wait(299);
    assert_eq!(lab.views()[0].usage.bytes, [40, 200]);
    lab.wait(1);
    assert_eq!(lab.views(), []);
}

#[test]
fn version_2_and_what_cannot_be_read_is_refused() {
    let mut lab = Lab::new();
    let old = [&[0; 4][..], &v2(1, 6, &[])].concat();
    let secret = control(0, 1, &[hidden(61, &id(5))]);
    for bytes in [&old[..], &[], &[0, 0, 0], &[0; 4], &[0; 16]] {
        assert_eq!(lab.sends(1, L2(bytes)), Err(Refusal::Malformed), "{bytes:02x?}");
        assert_eq!(lab.hears(L2(bytes)), Err(Refusal::Malformed), "{bytes:02x?}");
    }
    lab.sends(1, L2(&secret)).unwrap();
    assert_eq!(lab.views()[0].inbound, []);
}

#[test]
fn there_is_room_for_so_many() {
    let mut lab = Lab::new();
    let results: Vec<_> = (0..200).map(|key| lab.sends(1, gre(Some(key)))).collect();
    assert_eq!(results.iter().filter(|result| result.is_ok()).count(), MAX_PER_DEVICE);
    assert_eq!(results[199], Err(Refusal::DeviceQuota));
    assert_eq!(lab.sends(2, gre(Some(999))), Err(Refusal::RemoteQuota));
    for n in 2..=20 {
        for key in 0..100 {
            let _ = lab.keyed.outbound(
                lab.now,
                device(n),
                Ipv4Addr::from(0xcb00_7100 + key),
                gre(Some(n.into())),
            );
        }
    }
    assert_eq!(lab.views().len(), MAX_CONVERSATIONS);
    assert_eq!(lab.keyed.outbound(lab.now, device(30), OTHER, gre(None)), Err(Refusal::Full));
    lab.keyed.clear();
    lab.sends(1, L2(&data(1))).unwrap();
    for session in 1..500 {
        lab.sends(1, L2(&data(session))).unwrap();
        lab.hears(L2(&data(session))).unwrap();
    }
    assert_eq!((lab.keyed.inbound.len(), lab.keyed.outbound.len()), (MAX_KEYS, MAX_KEYS));
}

/// Any bytes from anyone at any time: no panic, nothing delivered to a device that did not send, the tables in
/// step, and a wake-up that lies ahead.
#[test]
fn random_traffic_keeps_the_tables_in_step() {
    for seed in 1..=20_u64 {
        let mut random = Random(seed);
        let mut lab = Lab::new();
        for step in 0..3000 {
            let bytes = random.packet();
            let header = GreHeader::parse(&bytes);
            let wire = match header.filter(|_| random.below(2) == 0) {
                Some(header) => Wire::Gre { header, len: bytes.len() },
                None => L2(&bytes),
            };
            let remote = if random.below(4) == 0 { OTHER } else { REMOTE };
            let sender = device(random.below(4) as u8);
            if random.below(2) == 0 {
                let _ = lab.keyed.outbound(lab.now, sender, remote, wire);
            } else if let Ok(arrival) = lab.keyed.inbound(lab.now, remote, wire) {
                let view =
                    lab.views().into_iter().find(|view| Some(view.conversation) == arrival.conversation);
                let view = view.unwrap();
                assert_eq!((view.device, view.remote), (arrival.device, remote), "seed {seed} step {step}");
            }
            let _ = lab.keyed.quoted(remote, wire);
            if random.below(20) == 0 {
                lab.wait(u64::from(random.below(100)));
                assert!(lab.keyed.poll_timeout().is_none_or(|at| at > lab.now), "seed {seed} step {step}");
            }
            let keyed = &lab.keyed;
            let all = keyed.conversations.values();
            let (known, sent) = all.fold((0, 0), |(a, b), c| (a + c.inbound.len(), b + c.outbound.len()));
            let tables = (keyed.inbound.len(), keyed.outbound.len(), keyed.parties.len());
            assert_eq!(tables, (known, sent, keyed.conversations.len()), "seed {seed} step {step}");
        }
        lab.wait(301);
        assert_eq!((lab.views(), lab.keyed.inbound.len()), (Vec::new(), 0), "seed {seed}");
    }
}

struct Lab {
    keyed: Keyed,
    now: Timestamp,
}

impl Lab {
    fn new() -> Self {
        Self { keyed: Keyed::new(), now: Timestamp::from_secs(1000) }
    }

    fn sends(&mut self, n: u8, wire: Wire<'_>) -> Result<Handle, Refusal> {
        self.keyed.outbound(self.now, device(n), REMOTE, wire)
    }

    fn hears(&mut self, wire: Wire<'_>) -> Result<Arrival, Refusal> {
        self.keyed.inbound(self.now, REMOTE, wire)
    }

    fn wait(&mut self, secs: u64) {
        self.now = self.now + Duration::from_secs(secs);
        self.keyed.handle_timeout(self.now);
    }

    fn views(&self) -> Vec<KeyedView> {
        self.keyed.views(self.now).collect()
    }
}

use Wire::L2tpV3 as L2;

fn device(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 168, 1, 10 + n)
}

fn at(n: u8, conversation: Handle) -> Result<Arrival, Refusal> {
    Ok(Arrival { device: device(n), conversation: Some(conversation) })
}

fn gre(key: Option<u32>) -> Wire<'static> {
    match key {
        None => parsed(&[0, 0, 8, 0]),
        Some(key) => parsed(&[&[0x20, 0, 8, 0][..], &key.to_be_bytes()].concat()),
    }
}

fn parsed(bytes: &[u8]) -> Wire<'static> {
    Wire::Gre { header: GreHeader::parse(bytes).unwrap(), len: 40 }
}

fn id(number: u32) -> [u8; 4] {
    number.to_be_bytes()
}

fn control(connection: u32, kind: u16, avps: &[Vec<u8>]) -> Vec<u8> {
    [&[0; 4][..], &v3(connection, kind, avps)].concat()
}

fn data(session: u32) -> Vec<u8> {
    [&session.to_be_bytes()[..], &[0xff; 8]].concat()
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: u32) -> u32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        ((self.0 >> 33) as u32) % bound
    }

    fn packet(&mut self) -> Vec<u8> {
        let (to, own) = (self.below(6), self.below(5) + 1);
        let kind = [1, 2, 3, 4, 6, 10, 11, 14][self.below(8) as usize];
        let mut bytes = match self.below(6) {
            0 => control(to, kind, &[avp(61, &id(own)), avp(63, &id(own))]),
            1 => control(to, kind, &[avp(63, &id(own)), avp(64, &id(to))]),
            2 => data(to),
            3 => Vec::from([0x20, 0, 8, 0, 0, 0, 0, to as u8]),
            4 => Vec::from([0x20, 1, 0x64, 0, 0, 0, to as u8, 0]),
            _ => Vec::from([0, 0, 8, 0, 1, 2, 3]),
        };
        if self.below(4) == 0 {
            let at = self.below(bytes.len() as u32) as usize;
            bytes[at] = self.below(256) as u8;
        }
        if self.below(10) == 0 {
            bytes.truncate(self.below(20) as usize);
        }
        bytes
    }
}
