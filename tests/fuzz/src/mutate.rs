//! Changes to an input.

/// Longer inputs find nothing that shorter ones do not.
pub(crate) const MAX_LEN: usize = 1500;

/// xorshift64*: quick, and the same in every run.
pub(crate) struct Dice(u64);

impl Dice {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11
    }

    /// Less than `bound`, which is not 0.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        usize::try_from(self.roll() % (bound.max(1) as u64)).unwrap_or(0)
    }

    fn byte(&mut self) -> u8 {
        self.roll().to_le_bytes()[0]
    }
}

const INTERESTING: [u32; 20] =
    [0, 1, 2, 4, 8, 16, 28, 64, 127, 128, 255, 256, 500, 1024, 1701, 1723, 4500, 0x7fff, 0xffff, 0xffff_ffff];

/// Changes `input` once to five times. `other` is another input; `compared` are numbers that were not equal when
/// something like `input` ran.
pub(crate) fn mutate(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], compared: &[(u64, u64)]) {
    for _ in 0..=dice.below(5) {
        once(dice, input, other, compared);
    }
    input.truncate(MAX_LEN);
}

fn once(dice: &mut Dice, input: &mut Vec<u8>, other: &[u8], compared: &[(u64, u64)]) {
    let at = dice.below(input.len());
    match dice.below(12) {
        0 | 1 => {
            let bit = 1 << dice.below(8);
            change(input, at, |byte| byte ^ bit);
        }
        2 => {
            let new = dice.byte();
            change(input, at, |_| new);
        }
        3 => {
            let by = u8::try_from(dice.below(16)).unwrap_or(0);
            let up = dice.below(2) == 0;
            change(input, at, |byte| if up { byte.wrapping_add(by) } else { byte.wrapping_sub(by) });
        }
        4 => {
            let value = INTERESTING.get(dice.below(INTERESTING.len())).copied().unwrap_or(0).to_be_bytes();
            let width = 1 << dice.below(3);
            overwrite(input, at, value.get(4 - width..).unwrap_or_default());
        }
        5 => {
            let count = 1 + dice.below(8);
            let fill = if dice.below(2) == 0 { dice.byte() } else { 0 };
            let new: Vec<u8> = (0..count).map(|_| if fill == 0 { dice.byte() } else { fill }).collect();
            insert(input, at, &new);
        }
        6 => {
            let end = (at + 1 + dice.below(16)).min(input.len());
            input.drain(at.min(end)..end);
        }
        7 => {
            let block = block(dice, input).to_vec();
            insert(input, at, &block);
        }
        8 => {
            let block = block(dice, input).to_vec();
            overwrite(input, at, &block);
        }
        9 => insert(input, at, block(dice, other)),
        10 => {
            input.truncate(at);
            input.extend_from_slice(other.get(dice.below(other.len())..).unwrap_or_default());
        }
        _ => {
            if let Some(&pair) = compared.get(dice.below(compared.len())) {
                settle(dice, input, at, pair);
            }
        }
    }
}

/// Writes one number where the other one stands, or anywhere.
fn settle(dice: &mut Dice, input: &mut Vec<u8>, at: usize, (one, other): (u64, u64)) {
    let (old, new) = if dice.below(2) == 0 { (one, other) } else { (other, one) };
    let fits = |value: u64, bytes: u32| bytes == 8 || value >> (8 * bytes) == 0;
    let width = [1_u32, 2, 4, 8].into_iter().find(|&bytes| fits(old, bytes) && fits(new, bytes)).unwrap_or(8);
    let width = if width == 1 && dice.below(2) == 0 { 2 } else { width } as usize;
    let (old, new) = (old.to_be_bytes(), new.to_be_bytes());
    let (Some(old), Some(new)) = (old.get(8 - width..), new.get(8 - width..)) else { return };
    let places: Vec<usize> = input
        .windows(width)
        .enumerate()
        .filter(|(_, window)| *window == old)
        .map(|(place, _)| place)
        .collect();
    match places.get(dice.below(places.len())) {
        Some(&place) => overwrite(input, place, new),
        None if dice.below(2) == 0 => overwrite(input, at, new),
        None => insert(input, at, new),
    }
}

fn change(input: &mut [u8], at: usize, to: impl Fn(u8) -> u8) {
    if let Some(byte) = input.get_mut(at) {
        *byte = to(*byte);
    }
}

fn overwrite(input: &mut [u8], at: usize, new: &[u8]) {
    for (byte, &new) in input.iter_mut().skip(at).zip(new) {
        *byte = new;
    }
}

fn insert(input: &mut Vec<u8>, at: usize, new: &[u8]) {
    let at = at.min(input.len());
    input.splice(at..at, new.iter().copied());
}

fn block<'a>(dice: &mut Dice, bytes: &'a [u8]) -> &'a [u8] {
    let start = dice.below(bytes.len());
    let end = (start + 1 + dice.below(64)).min(bytes.len());
    bytes.get(start..end).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn course(seed: u64) -> Vec<Vec<u8>> {
        let dice = &mut Dice::new(seed);
        let mut input = vec![7; 100];
        let steps = (0..1000).map(|_| {
            mutate(dice, &mut input, &[9; 2000], &[(7, 0x0102_0304)]);
            input.clone()
        });
        steps.collect()
    }

    #[test]
    fn a_seed_makes_the_same_inputs_again() {
        assert_eq!(course(1), course(1));
        assert_ne!(course(1), course(2));
    }

    #[test]
    fn inputs_stay_short() {
        let longest = course(1).iter().map(Vec::len).max();
        assert!(longest > Some(1000) && longest <= Some(MAX_LEN), "{longest:?}");
    }

    #[test]
    fn one_number_of_a_comparison_takes_the_place_of_the_other() {
        let dice = &mut Dice::new(1);
        let written = (0..100).any(|_| {
            let mut input = vec![0, 0, 0x12, 0x34, 0];
            settle(dice, &mut input, 0, (0x1234, 0xabcd));
            input == [0, 0, 0xab, 0xcd, 0]
        });
        assert!(written);
    }
}
