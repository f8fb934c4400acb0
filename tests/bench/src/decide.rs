//! Decision and rewrite of known flows, without the kernel.
//!
//! Packets are written in batches as large as the daemon's; only their way through the NAT is timed, so that
//! every packet is in the cache, as after the kernel's copy, and its flow's state is not. Flows are visited
//! in an order drawn anew for each repetition. Every packet that comes out is checked, outside of the time.

use nat_core::flow::Direction;
use nat_core::time::Timestamp;

use crate::clock;
use crate::conversation::{Conversation, conversations, nat, open_all, translate};
use crate::packets::{Buffer, LEN};
use crate::sample::Samples;

const BATCH: usize = 32;
const REPETITIONS: usize = 9;
/// At least so many packets in each repetition.
const PACKETS: usize = 262_144;

/// Nanoseconds per packet with `flows` live sessions.
pub(crate) fn measure(protocol: u8, flows: u32) -> Samples {
    let mut nat = nat();
    let mut conversations = conversations(protocol, flows);
    let mut now = Timestamp::from_secs(1);
    open_all(&mut nat, now, &mut conversations);

    let mut order: Vec<u32> = (0..flows).collect();
    let mut random = Random(0x2545_f491_4f6c_dd1d);
    let mut samples = Samples::default();
    for repetition in 0..=REPETITIONS {
        let rounds = PACKETS / order.len();
        let mut nanos = 0;
        for _ in 0..rounds {
            random.shuffle(&mut order);
            for batch in order.chunks(BATCH) {
                now = now + std::time::Duration::from_micros(100);
                nanos += time(&mut nat, now, batch, &mut conversations, &mut random);
            }
        }
        if repetition > 0 {
            samples.add(nanos as f64 / (rounds * order.len()) as f64); // the first one warms up
        }
    }
    let noted: Vec<_> = nat.counters().notes().filter(|&(_, count)| count > 0).collect();
    assert!(noted.is_empty(), "packets without effect are not what is to be measured: {noted:?}");
    samples
}

/// Sends one packet of each conversation in `batch`, either way, and answers how long the NAT took for all.
fn time(
    nat: &mut nat_core::nat::Nat,
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
        translate(nat, now, *direction, packet);
    }
    let nanos = begin.elapsed().as_nanos();
    for (&n, (direction, packet)) in batch.iter().zip(&packets) {
        let conversation = &conversations[n as usize];
        assert!(conversation.fits(*direction, packet), "{direction:?} {conversation:?} became {packet:?}");
    }
    nanos
}

/// xorshift64*: quick, and the same in every run.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let value = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 32;
        ((u128::from(value) * bound as u128) >> 32) as usize
    }

    fn shuffle(&mut self, order: &mut [u32]) {
        for last in (1..order.len()).rev() {
            order.swap(last, self.below(last + 1));
        }
    }
}
