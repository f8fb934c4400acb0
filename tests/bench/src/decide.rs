//! Decision and rewrite of known flows, without the kernel.
//!
//! Packets are written in batches as large as the daemon's; only their way through the NAT is timed, so that
//! every packet is in the cache, as after the kernel's copy, and its flow's state is not. Flows are visited
//! in an order drawn anew for each repetition. Every packet that comes out is checked, outside of the time.

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use natd::engine::Engine;

use crate::clock;
use crate::conversation::{Conversation, Way, conversations, engine, open_all, translate};
use crate::packets::{Buffer, LEN};
use crate::sample::Samples;

const BATCH: usize = 32;
const REPETITIONS: usize = 9;
/// At least so many packets in each repetition.
const PACKETS: usize = 262_144;

/// What the decision costs, in nanoseconds per packet.
pub(crate) struct Cost {
    /// As the daemon does it.
    pub(crate) daemon: Samples,
    /// By the NAT alone.
    pub(crate) nat: Samples,
    /// What the one takes longer than the other in the same repetition.
    pub(crate) difference: Samples,
}

/// With `flows` live sessions. The two ways alternate on one engine, so that both meet the same memory.
pub(crate) fn measure(protocol: u8, flows: u32) -> Cost {
    let mut world = World::new(protocol, flows);
    let mut cost =
        Cost { daemon: Samples::default(), nat: Samples::default(), difference: Samples::default() };
    for repetition in 0..=REPETITIONS {
        let mut order = [Way::Daemon, Way::NatAlone];
        if repetition % 2 == 1 {
            order.reverse();
        }
        let mut took = order.map(|way| world.run(way));
        if repetition % 2 == 1 {
            took.reverse();
        }
        let [daemon, nat] = took;
        if repetition > 0 {
            // the first one warms up
            cost.daemon.add(daemon);
            cost.nat.add(nat);
            cost.difference.add(daemon - nat);
        }
    }
    let noted: Vec<_> = world.engine.nat.counters().notes().filter(|&(_, count)| count > 0).collect();
    assert!(noted.is_empty(), "packets without effect are not what is to be measured: {noted:?}");
    cost
}

/// An engine and its conversations.
struct World {
    engine: Engine,
    conversations: Vec<Conversation>,
    order: Vec<u32>,
    now: Timestamp,
    random: Random,
}

impl World {
    fn new(protocol: u8, flows: u32) -> Self {
        let (mut engine, mut conversations) = (engine(), conversations(protocol, flows));
        let now = Timestamp::from_secs(1);
        open_all(&mut engine, now, &mut conversations);
        let random = Random::new();
        Self { engine, conversations, order: (0..flows).collect(), now, random }
    }

    /// One repetition; nanoseconds per packet.
    fn run(&mut self, way: Way) -> f64 {
        let Self { engine, conversations, order, now, random } = self;
        let rounds = PACKETS / order.len();
        let mut nanos = 0;
        for _ in 0..rounds {
            random.shuffle(order);
            for batch in order.chunks(BATCH) {
                *now = *now + std::time::Duration::from_micros(100);
                nanos += time(engine, way, *now, batch, conversations, random);
            }
        }
        nanos as f64 / (rounds * order.len()) as f64
    }
}

/// Sends one packet of each conversation in `batch`, either way, and answers how long the NAT took for all.
fn time(
    engine: &mut Engine,
    way: Way,
    now: Timestamp,
    batch: &[u32],
    conversations: &mut [Conversation],
    random: &mut Random,
) -> u128 {
    let mut packets: [(Direction, Buffer); BATCH] = [(Direction::Outbound, [0; LEN]); BATCH];
    for (&n, (direction, packet)) in batch.iter().zip(&mut packets) {
        *direction = if random.below(2) == 0 { Direction::Outbound } else { Direction::Inbound };
        conversations[n as usize].next(*direction, packet);
    }
    let begin = clock::now();
    for (direction, packet) in packets.iter_mut().take(batch.len()) {
        translate(engine, way, now, *direction, packet);
    }
    let nanos = begin.elapsed().as_nanos();
    for (&n, (direction, packet)) in batch.iter().zip(&packets) {
        let conversation = &conversations[n as usize];
        assert!(conversation.fits(*direction, packet), "{direction:?} {conversation:?} became {packet:?}");
    }
    nanos
}

/// xorshift64*: quick, and the same in every run.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) const fn new() -> Self {
        Self(0x2545_f491_4f6c_dd1d)
    }

    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((u128::from(value) * bound as u128) >> 32) as usize
    }

    pub(crate) fn shuffle(&mut self, order: &mut [u32]) {
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
    }
}
