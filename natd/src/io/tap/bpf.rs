//! An assembler for the kernel's classic packet filters (socket filters, `SO_ATTACH_FILTER`).
//!
//! A filter has an accumulator A, an index X and sixteen words of memory. It runs from its first instruction to a
//! return; jumps only lead forwards. A load from beyond the packet's end ends it with "drop". Numbers in the packet
//! are in network byte order; [`Ancillary`] facts are not in the packet and are in the host's.

/// `struct sock_filter`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub(super) struct Instruction {
    /// What to do.
    pub code: u16,
    /// How many instructions to skip if so.
    pub jt: u8,
    /// How many instructions to skip if not.
    pub jf: u8,
    /// Its operand.
    pub k: u32,
}

/// Opcodes, from linux/bpf_common.h.
pub(super) mod code {
    pub(in crate::io::tap) const LD_W_ABS: u16 = 0x20;
    pub(in crate::io::tap) const LD_H_ABS: u16 = 0x28;
    pub(in crate::io::tap) const LD_B_ABS: u16 = 0x30;
    pub(in crate::io::tap) const LD_W_IND: u16 = 0x40;
    pub(in crate::io::tap) const LD_H_IND: u16 = 0x48;
    pub(in crate::io::tap) const LD_B_IND: u16 = 0x50;
    pub(in crate::io::tap) const LDX_IMM: u16 = 0x01;
    pub(in crate::io::tap) const LDX_MEM: u16 = 0x61;
    pub(in crate::io::tap) const LDX_MSH: u16 = 0xb1;
    pub(in crate::io::tap) const ST: u16 = 0x02;
    pub(in crate::io::tap) const ADD_K: u16 = 0x04;
    pub(in crate::io::tap) const ADD_X: u16 = 0x0c;
    pub(in crate::io::tap) const AND_K: u16 = 0x54;
    pub(in crate::io::tap) const RSH_K: u16 = 0x74;
    pub(in crate::io::tap) const JA: u16 = 0x05;
    pub(in crate::io::tap) const JEQ: u16 = 0x15;
    pub(in crate::io::tap) const JGT: u16 = 0x25;
    pub(in crate::io::tap) const JGE: u16 = 0x35;
    pub(in crate::io::tap) const JSET: u16 = 0x45;
    pub(in crate::io::tap) const RET_K: u16 = 0x06;
    pub(in crate::io::tap) const RET_A: u16 = 0x16;
    pub(in crate::io::tap) const TAX: u16 = 0x07;
    pub(in crate::io::tap) const TXA: u16 = 0x87;
}

/// What the kernel knows of a packet beside its bytes (linux/filter.h, `SKF_AD_OFF` and on).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ancillary {
    /// The Ethertype.
    Protocol = 0,
    /// Where it goes: `PACKET_HOST`, `PACKET_OUTGOING` and so on.
    PacketType = 4,
    /// 1 if it has a VLAN tag.
    VlanTagPresent = 48,
    /// Another number each time.
    Random = 56,
}

/// `SKF_AD_OFF`, -0x1000.
pub(super) const ANCILLARY: u32 = 0xffff_f000;

/// A place in a program, to jump to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Label(usize);

/// When a branch is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum If {
    /// A is the number.
    Is(u32),
    /// A is not the number.
    Not(u32),
    /// A is more.
    Above(u32),
    /// A is the number or more.
    AtLeast(u32),
    /// A is less.
    Below(u32),
    /// A has one of these bits.
    Any(u32),
    /// A has none of these bits.
    None(u32),
}

#[derive(Clone, Copy, Debug)]
enum Line {
    Plain(Instruction),
    Branch { code: u16, k: u32, to: Label, taken: bool },
    Go(Label),
    Here(Label),
}

/// A program in the making.
#[derive(Debug, Default)]
pub(super) struct Program {
    lines: Vec<Line>,
    labels: usize,
}

impl Program {
    /// A place that is not yet known.
    pub(super) fn label(&mut self) -> Label {
        self.labels += 1;
        Label(self.labels - 1)
    }

    /// The next instruction's place is `label`.
    pub(super) fn here(&mut self, label: Label) {
        self.lines.push(Line::Here(label));
    }

    /// Any instruction but a jump.
    pub(super) fn op(&mut self, code: u16, k: u32) {
        self.lines.push(Line::Plain(Instruction { code, jt: 0, jf: 0, k }));
    }

    /// A is this fact.
    pub(super) fn load(&mut self, fact: Ancillary) {
        self.op(code::LD_W_ABS, ANCILLARY + fact as u32);
    }

    /// Jumps if so, else goes on.
    pub(super) fn branch(&mut self, condition: If, to: Label) {
        let (code, k, taken) = match condition {
            If::Is(k) => (code::JEQ, k, true),
            If::Not(k) => (code::JEQ, k, false),
            If::Above(k) => (code::JGT, k, true),
            If::AtLeast(k) => (code::JGE, k, true),
            If::Below(k) => (code::JGE, k, false),
            If::Any(k) => (code::JSET, k, true),
            If::None(k) => (code::JSET, k, false),
        };
        self.lines.push(Line::Branch { code, k, to, taken });
    }

    /// Jumps.
    pub(super) fn go(&mut self, to: Label) {
        self.lines.push(Line::Go(to));
    }

    /// The finished program; `None` where a jump leads backwards or nowhere.
    ///
    /// A branch reaches 255 instructions far. One that has to go further becomes a branch around a jump, which
    /// moves what follows; so this is repeated until nothing changes.
    pub(super) fn assemble(&self) -> Option<Vec<Instruction>> {
        let mut far = vec![false; self.lines.len()];
        loop {
            let places = self.places(&far);
            let (program, too_far) = self.write(&places, &far)?;
            if too_far.is_empty() {
                return Some(program);
            }
            for (number, far) in far.iter_mut().enumerate() {
                *far |= too_far.contains(&number);
            }
        }
    }

    /// Where each label is.
    fn places(&self, far: &[bool]) -> Vec<Option<usize>> {
        let (mut places, mut at) = (vec![None; self.labels], 0);
        for (line, far) in self.lines.iter().zip(far) {
            match line {
                Line::Here(label) => {
                    if let Some(place) = places.get_mut(label.0) {
                        *place = Some(at);
                    }
                }
                Line::Branch { .. } => at += 1 + usize::from(*far),
                Line::Plain(_) | Line::Go(_) => at += 1,
            }
        }
        places
    }

    /// The instructions, and which lines are branches that do not reach.
    fn write(&self, places: &[Option<usize>], far: &[bool]) -> Option<(Vec<Instruction>, Vec<usize>)> {
        let (mut program, mut too_far) = (Vec::new(), Vec::new());
        for ((number, line), far) in self.lines.iter().enumerate().zip(far) {
            let at = program.len();
            let skip = |to: Label, from: usize| places.get(to.0).copied()??.checked_sub(from);
            let go = |k: usize| Some(Instruction { code: code::JA, jt: 0, jf: 0, k: u32::try_from(k).ok()? });
            match *line {
                Line::Here(_) => {}
                Line::Plain(instruction) => program.push(instruction),
                Line::Go(to) => program.push(go(skip(to, at + 1)?)?),
                Line::Branch { code, k, to, taken } if *far => {
                    let (jt, jf) = if taken { (0, 1) } else { (1, 0) };
                    program.push(Instruction { code, jt, jf, k });
                    program.push(go(skip(to, at + 2)?)?);
                }
                Line::Branch { code, k, to, taken } => {
                    let reach = u8::try_from(skip(to, at + 1)?).unwrap_or_else(|_| {
                        too_far.push(number);
                        0
                    });
                    let (jt, jf) = if taken { (reach, 0) } else { (0, reach) };
                    program.push(Instruction { code, jt, jf, k });
                }
            }
        }
        Some((program, too_far))
    }
}

/// Runs filters as the kernel would.
#[cfg(test)]
pub(super) mod machine {
    use super::*;

    /// A packet with what the kernel knows of it.
    #[derive(Clone, Debug)]
    pub(in crate::io::tap) struct Frame {
        pub(in crate::io::tap) bytes: Vec<u8>,
        pub(in crate::io::tap) ethertype: u16,
        pub(in crate::io::tap) packet_type: u32,
        pub(in crate::io::tap) vlan: bool,
        pub(in crate::io::tap) random: u32,
    }

    /// What the filter returns, and after how many instructions.
    pub(in crate::io::tap) fn run(program: &[Instruction], frame: &Frame) -> (u32, usize) {
        let (mut a, mut x, mut memory, mut pc, mut steps) = (0u32, 0u32, [0u32; 16], 0usize, 0usize);
        let load = |at: u64, width: usize| -> Option<u32> {
            let at = usize::try_from(at).unwrap();
            let bytes = frame.bytes.get(at..at + width)?;
            Some(bytes.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
        };
        loop {
            let Instruction { code, jt, jf, k } = program[pc];
            pc += 1;
            steps += 1;
            let branch = |yes: bool| usize::from(if yes { jt } else { jf });
            let loaded = match code {
                code::LD_W_ABS if k >= ANCILLARY => Some(match k - ANCILLARY {
                    0 => u32::from(frame.ethertype),
                    4 => frame.packet_type,
                    48 => u32::from(frame.vlan),
                    56 => frame.random,
                    other => panic!("ancillary {other}"),
                }),
                code::LD_W_ABS => load(k.into(), 4),
                code::LD_H_ABS => load(k.into(), 2),
                code::LD_B_ABS => load(k.into(), 1),
                code::LD_W_IND => load(u64::from(x) + u64::from(k), 4),
                code::LD_H_IND => load(u64::from(x) + u64::from(k), 2),
                code::LD_B_IND => load(u64::from(x) + u64::from(k), 1),
                code::LDX_MSH => load(k.into(), 1),
                code::ADD_K => Some(a.wrapping_add(k)),
                code::ADD_X => Some(a.wrapping_add(x)),
                code::AND_K => Some(a & k),
                code::RSH_K => Some(a >> k),
                code::TXA => Some(x),
                _ => Some(a),
            };
            let Some(loaded) = loaded else { return (0, steps) };
            match code {
                code::LDX_MSH => x = (loaded & 0xf) * 4,
                code::LDX_IMM => x = k,
                code::LDX_MEM => x = memory[k as usize],
                code::ST => memory[k as usize] = a,
                code::TAX => x = a,
                code::JA => pc += k as usize,
                code::JEQ => pc += branch(a == k),
                code::JGT => pc += branch(a > k),
                code::JGE => pc += branch(a >= k),
                code::JSET => pc += branch(a & k != 0),
                code::RET_K => return (k, steps),
                code::RET_A => return (a, steps),
                _ => a = loaded,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::machine::{Frame, run};
    use super::*;

    fn frame(bytes: &[u8]) -> Frame {
        Frame { bytes: bytes.to_vec(), ethertype: 0x0800, packet_type: 0, vlan: false, random: 1 }
    }

    #[test]
    fn a_branch_goes_to_its_label_or_on() {
        for (condition, hits) in [
            (If::Is(5), [5].as_slice()),
            (If::Not(5), &[4, 6]),
            (If::Above(5), &[6]),
            (If::AtLeast(5), &[5, 6]),
            (If::Below(5), &[4]),
            (If::Any(2), &[6]),
            (If::None(2), &[4, 5]),
        ] {
            // Near, and too far for one instruction.
            for between in [0, 300] {
                let mut program = Program::default();
                let hit = program.label();
                program.op(code::LD_B_ABS, 0);
                program.branch(condition, hit);
                (0..between).for_each(|_| program.op(code::ADD_K, 9));
                program.op(code::RET_K, 1);
                program.here(hit);
                program.op(code::RET_K, 2);
                let program = program.assemble().unwrap();
                for value in [4, 5, 6] {
                    let expected = if hits.contains(&value) { 2 } else { 1 };
                    assert_eq!(
                        run(&program, &frame(&[value])).0,
                        expected,
                        "{condition:?} {value} {between}"
                    );
                }
            }
        }
    }

    #[test]
    fn what_a_far_branch_moves_is_still_reached() {
        let mut program = Program::default();
        let (middle, end) = (program.label(), program.label());
        program.op(code::LD_B_ABS, 0);
        program.branch(If::Is(1), middle);
        program.branch(If::Is(2), end);
        (0..253).for_each(|_| program.op(code::ADD_K, 9));
        program.op(code::RET_K, 10);
        // 255 behind the first branch, until the second one needs two instructions.
        program.here(middle);
        program.op(code::RET_K, 11);
        program.go(end);
        program.here(end);
        program.op(code::RET_K, 12);
        let program = program.assemble().unwrap();
        let answers = [0, 1, 2].map(|value| run(&program, &frame(&[value])).0);
        assert_eq!(answers, [10, 11, 12]);
    }

    #[test]
    fn a_jump_backwards_or_nowhere_is_no_program() {
        let mut backwards = Program::default();
        let start = backwards.label();
        backwards.here(start);
        backwards.op(code::ADD_K, 0);
        backwards.go(start);
        assert_eq!(backwards.assemble(), None);
        let mut nowhere = Program::default();
        let never = nowhere.label();
        nowhere.branch(If::Is(0), never);
        assert_eq!(nowhere.assemble(), None);
    }
}
