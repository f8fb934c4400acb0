//! The same conversation, cut, merged, repeated and overlapping.

use super::*;

/// A dial with echoes around it whose request and reply both have an ID to change; `(direction, sent, got)`.
fn conversation() -> Vec<(Direction, Vec<u8>, Vec<u8>)> {
    let same = |direction, bytes: Vec<u8>| (direction, bytes.clone(), bytes);
    vec![
        same(Outbound, message(1, CallId(0), CallId(0), 0)),
        same(Inbound, message(2, CallId(0), CallId(0), 1)),
        same(Outbound, request(5, 5)),
        (Outbound, request(7, 0x1205), request(7, 0x1206)),
        (Outbound, request(7, 0x1206), request(7, 0x1207)),
        same(Inbound, request(6, 6)),
        (Inbound, reply(8, 9, 0x1206, 1), reply(8, 9, 0x1205, 1)),
        (Inbound, request(15, 0x1206), request(15, 0x1205)),
        (Inbound, reply(8, 10, 0x1207, 1), reply(8, 10, 0x1206, 1)),
        same(Outbound, request(15, 9)),
    ]
}

/// The whole of one direction's part in `conversation()[from..to]`, as sent and as got.
fn part(direction: Direction, from: usize, to: usize) -> (Vec<u8>, Vec<u8>) {
    let all = conversation();
    let part = || all[from..to].iter().filter(|(way, ..)| *way == direction);
    (
        part().flat_map(|(_, sent, _)| sent.clone()).collect(),
        part().flat_map(|(.., got)| got.clone()).collect(),
    )
}

/// Turns in which one side speaks at a time.
const TURNS: [(Direction, usize, usize); 5] =
    [(Outbound, 0, 1), (Inbound, 1, 2), (Outbound, 2, 5), (Inbound, 5, 9), (Outbound, 9, 10)];

fn world() -> (World, Connection) {
    let mut world = World::new();
    world.occupy(0x1205);
    let client = world.opened(10, Outbound);
    (world, client)
}

fn assert_up(world: &mut World, client: Connection) {
    assert_eq!(world.inbound(0x1206), Ok((client.device.addr, 0x1205)));
    assert_eq!(world.inbound(0x1207), Ok((client.device.addr, 0x1206)));
    assert_eq!((world.outbound(client, 9), world.outbound(client, 10)), (Ok(9), Ok(10)));
    assert_eq!(world.pptp.counters(), crate::pptp::Counters::default());
}

/// Sends all turns; `send` gets each with its sequence number and returns what arrived.
fn converse(mut send: impl FnMut(&mut World, Connection, Direction, u32, &[u8]) -> Vec<u8>) {
    let (mut world, client) = world();
    for (direction, from, to) in TURNS {
        let (sent, got) = part(direction, from, to);
        let sequence = *world.sequence(client, direction);
        let arrived = send(&mut world, client, direction, sequence, &sent);
        assert_eq!(arrived, got);
        *world.sequence(client, direction) = sequence.wrapping_add(sent.len() as u32);
    }
    assert_up(&mut world, client);
}

#[test]
fn merged_as_far_as_turns_allow() {
    converse(|world, client, direction, sequence, sent| {
        world.segment(client, direction, sequence, sent).unwrap()
    });
}

#[test]
fn merged_in_any_grouping() {
    let all = conversation();
    for grouping in 0..1_u32 << (all.len() - 1) {
        let (mut world, client) = world();
        let mut group: (Vec<u8>, Vec<u8>) = Default::default();
        for (place, (direction, sent, got)) in all.iter().enumerate() {
            group.0.extend(sent);
            group.1.extend(got);
            let goes_on = all.get(place + 1).is_some_and(|(next, ..)| next == direction);
            if !goes_on || grouping & 1 << place != 0 {
                let (sent, got) = core::mem::take(&mut group);
                assert_eq!(world.say(client, *direction, &sent), got);
            }
        }
        assert_up(&mut world, client);
    }
}

#[test]
fn split_at_every_byte() {
    converse(|world, client, direction, sequence, sent| {
        let mut arrived = Vec::new();
        for (offset, byte) in (0..).zip(sent) {
            arrived
                .extend(world.segment(client, direction, sequence.wrapping_add(offset), &[*byte]).unwrap());
        }
        arrived
    });
}

#[test]
fn split_in_two_at_any_byte_and_repeated_with_any_other_cut() {
    for cut in 0..500 {
        converse(|world, client, direction, sequence, sent| {
            let (one, two) = sent.split_at(cut.min(sent.len()));
            let middle = sequence.wrapping_add(one.len() as u32);
            let mut arrived = world.segment(client, direction, sequence, one).unwrap();
            arrived.extend(world.segment(client, direction, middle, two).unwrap());
            let again = (cut * 7 + 13) % (sent.len() + 1);
            for start in [0, again] {
                let sequence = sequence.wrapping_add(start as u32);
                let repeated = world.segment(client, direction, sequence, &sent[start..]).unwrap();
                assert_eq!(repeated, arrived[start..]);
                let repeated =
                    world.segment(client, direction, sequence, &sent[start..][..1.min(sent.len() - start)]);
                assert_eq!(repeated.unwrap(), arrived[start..][..1.min(sent.len() - start)]);
            }
            arrived
        });
    }
}

#[test]
fn overlapping_segments_of_chance_with_losses() {
    let mut random = Random(0x5eed_0000_0003);
    for _ in 0..200 {
        converse(|world, client, direction, start, sent| {
            let mut arrived: Vec<Option<u8>> = vec![None; sent.len()];
            let mut parsed = 0;
            while arrived.iter().any(Option::is_none) {
                let from = random.next() as usize % (sent.len().min(parsed + 40));
                let to = (from + 1 + random.next() as usize % 200).min(sent.len());
                let sequence = start.wrapping_add(from as u32);
                let got = match world.segment(client, direction, sequence, &sent[from..to]) {
                    Err(Refusal::Gap) if from > parsed => continue,
                    got => got.unwrap(),
                };
                assert!(from <= parsed);
                parsed = parsed.max(to);
                if random.next() % 3 != 0 {
                    for (place, byte) in arrived[from..to].iter_mut().zip(got) {
                        assert!(place.is_none_or(|before| before == byte), "changed otherwise than before");
                        *place = Some(byte);
                    }
                }
            }
            arrived.into_iter().map(Option::unwrap).collect()
        });
    }
}

#[test]
fn a_retransmission_with_other_bytes_still_shows_the_name() {
    let (mut world, client) = world();
    world.agree(client, Outbound);
    let sequence = *world.sequence(client, Outbound);
    assert_eq!(world.say(client, Outbound, &request(7, 0x1205)), request(7, 0x1206));
    let repeated = world.segment(client, Outbound, sequence, &request(7, 0x1299));
    assert_eq!(repeated, Ok(request(7, 0x1206)));
}

#[test]
fn what_follows_a_gap_is_dropped_and_taken_when_it_comes_again() {
    let (mut world, client) = world();
    world.agree(client, Outbound);
    let start = *world.sequence(client, Outbound);
    let (one, two) = (request(5, 0), request(7, 0x1205));
    let second = start.wrapping_add(one.len() as u32);
    assert_eq!(world.segment(client, Outbound, second, &two), Err(Refusal::Gap));
    let fin = Segment { sequence: second, fin: true, ..Segment::default() };
    let verdict = world.pptp.control(NOW, client, Outbound, Outbound, &fin);
    assert_eq!(verdict, Verdict::Drop(Refusal::Gap), "nor does its FIN close anything");
    assert_eq!(world.segment(client, Outbound, start, &one), Ok(one));
    assert_eq!(world.segment(client, Outbound, second, &two), Ok(request(7, 0x1206)));
}

#[test]
fn data_in_a_syn_is_dropped() {
    let client = connection(10, Outbound);
    let bytes = message(1, CallId(0), CallId(0), 0);
    let segment = Segment { syn: true, payload: &bytes, ..Segment::default() };
    let mut pptp = Pptp::new(Limits::default());
    assert_eq!(pptp.control(NOW, client, Outbound, Outbound, &segment), Verdict::Drop(Refusal::SynData));
    assert!(pptp.views(NOW).is_empty());
}

#[test]
fn the_late_copy_of_the_first_syn_starts_nothing_anew() {
    let (mut world, client) = world();
    world.agree(client, Outbound);
    let syn = Segment { sequence: 0xffff_ff80, syn: true, ..Segment::default() };
    let answer = Segment { sequence: !syn.sequence, acknowledgement: Some(0xffff_ff81), ..syn };
    assert_eq!(world.pptp.control(NOW, client, Outbound, Outbound, &syn), Verdict::Pass);
    assert_eq!(world.pptp.control(NOW, client, Inbound, Outbound, &answer), Verdict::Pass);
    assert_eq!(world.say(client, Outbound, &request(7, 0x1205)), request(7, 0x1206));
}

#[test]
fn a_keep_alive_with_a_byte_of_nothing_passes() {
    let (mut world, client) = world();
    let sequence = world.sequence(client, Outbound).wrapping_sub(1);
    assert_eq!(world.segment(client, Outbound, sequence, &[0]), Ok(vec![0]));
    world.agree(client, Outbound);
    let sequence = world.sequence(client, Outbound).wrapping_sub(1);
    assert_eq!(world.segment(client, Outbound, sequence, &[0]), Ok(vec![0]));
}

#[test]
fn changes_in_flight_are_bounded_and_old_ones_stay_until_room_is_needed() {
    let mut world = World::new();
    let client = world.call(Outbound, 0x1205, 0x1206, 9);
    let start = *world.sequence(client, Inbound);
    let (sent, got) = (request(15, 0x1206), request(15, 0x1205));
    let length = sent.len() as u32;
    let at = |number: u32| start.wrapping_add(number * length);
    // The reply had one change, which is acknowledged.
    for number in 0..64 {
        assert_eq!(world.segment(client, Inbound, at(number), &sent).as_ref(), Ok(&got));
    }
    assert_eq!(world.segment(client, Inbound, at(64), &sent), Err(Refusal::Unacknowledged));
    for number in 0..64 {
        assert_eq!(world.segment(client, Inbound, at(number), &sent).as_ref(), Ok(&got));
    }
    let reply = start.wrapping_sub(32);
    assert_eq!(
        world.segment(client, Inbound, reply, &[0; 32]),
        Err(Refusal::Stale),
        "its change is forgotten"
    );
    assert_eq!(world.segment(client, Inbound, at(64), &sent), Err(Refusal::Unacknowledged), "again");
    // One acknowledged makes room for one.
    let bare = Segment { acknowledgement: Some(at(1)), ..Segment::default() };
    world.flag(client, Outbound, bare);
    assert_eq!(world.segment(client, Inbound, at(64), &sent).as_ref(), Ok(&got));
    assert_eq!(world.segment(client, Inbound, at(65), &sent), Err(Refusal::Unacknowledged));
    assert_eq!(world.segment(client, Inbound, at(1), &sent).as_ref(), Ok(&got));
    assert_eq!(world.segment(client, Inbound, at(0), &sent), Err(Refusal::Stale));
    // An acknowledgement of what was never sent makes none.
    world.flag(client, Outbound, Segment { acknowledgement: Some(at(90)), ..Segment::default() });
    assert_eq!(world.segment(client, Inbound, at(65), &sent), Err(Refusal::Unacknowledged));
    assert_eq!(world.inbound(0x1206), Ok((client.device.addr, 0x1205)));
}

#[test]
fn a_train_of_64_kib_is_read_to_its_end() {
    let (mut world, client) = world();
    world.agree(client, Outbound);
    let mut sent: Vec<u8> = core::iter::repeat_n(request(5, 0x1205), 4_000).flatten().collect();
    let mut got = sent.clone();
    sent.extend(request(7, 0x1205));
    got.extend(request(7, 0x1206));
    assert_eq!(world.say(client, Outbound, &sent), got);
}
