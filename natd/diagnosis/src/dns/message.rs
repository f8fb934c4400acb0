//! As much of a DNS message as the watch needs (RFC 1035 section 4).

use std::net::IpAddr;

/// A: 1, AAAA: 28.
pub(super) const QUESTION_TYPES: [u16; 2] = [A, AAAA];
const A: u16 = 1;
const CNAME: u16 = 5;
const AAAA: u16 = 28;
/// The Internet's class.
const IN: u16 = 1;
/// Records that are read, of however many.
const RECORDS: usize = 16;
/// A name has no more bytes (section 2.3.4), and hence not more labels.
const NAME: usize = 255;
/// Pointers that are followed in one name.
const JUMPS: usize = 16;

/// A question about an address, or the answer to it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Message {
    pub(super) answer: bool,
    /// The response code.
    pub(super) code: u8,
    /// What is asked for, in small letters.
    pub(super) name: String,
    /// The kind of record that is asked for.
    pub(super) kind: u16,
    /// Other names of the same.
    aliases: Vec<String>,
    pub(super) addresses: Vec<IpAddr>,
}

impl Message {
    /// Reads a message, as far as it is there; only the question must be.
    pub(super) fn parse(bytes: &[u8]) -> Option<Self> {
        let &[_, _, high, low, 0, 1, answers_high, answers_low, ..] = bytes else { return None };
        // Standard queries, opcode 0.
        if high & 0x78 != 0 {
            return None;
        }
        let (name, at) = name(bytes, 12)?;
        let kind = be16(bytes, at)?;
        let answer = high & 0x80 != 0;
        let mut message =
            Self { answer, code: low & 0xf, name, kind, aliases: Vec::new(), addresses: Vec::new() };
        if answer {
            let count = usize::from(u16::from_be_bytes([answers_high, answers_low]));
            message.records(bytes, at + 4, count.min(RECORDS));
        }
        Some(message)
    }

    /// Every name of what is asked for.
    pub(super) fn names(&self) -> impl Iterator<Item = &str> {
        core::iter::once(&self.name).chain(&self.aliases).map(String::as_str)
    }

    /// Takes in records from `at` on, until one is not there.
    fn records(&mut self, bytes: &[u8], mut at: usize, count: usize) -> Option<()> {
        for _ in 0..count {
            let (_, head) = name(bytes, at)?;
            let (kind, class, length) = (be16(bytes, head)?, be16(bytes, head + 2)?, be16(bytes, head + 8)?);
            let start = head + 10;
            at = start + usize::from(length);
            let rest = bytes.get(start..)?;
            match (class, kind, length) {
                (IN, A, 4) => self.addresses.push((*rest.first_chunk::<4>()?).into()),
                (IN, AAAA, 16) => self.addresses.push((*rest.first_chunk::<16>()?).into()),
                (IN, CNAME, _) => self.aliases.push(name(bytes, start)?.0),
                _ => {}
            }
        }
        Some(())
    }
}

/// Reads the name at `at`; also says where what follows it begins.
fn name(bytes: &[u8], mut at: usize) -> Option<(String, usize)> {
    let (mut name, mut end, mut jumps) = (String::new(), None, 0);
    loop {
        let length = usize::from(*bytes.get(at)?);
        match length {
            0 => return Some((name, end.unwrap_or(at + 1))),
            1..=63 => {
                let label = bytes.get(at + 1..at + 1 + length)?;
                if name.len() + length >= NAME {
                    return None;
                }
                if !name.is_empty() {
                    name.push('.');
                }
                // Reports show it: nothing but what a host's name is made of.
                name.extend(label.iter().map(|&byte| match byte {
                    b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte),
                    b'A'..=b'Z' => char::from(byte.to_ascii_lowercase()),
                    _ => '?',
                }));
                at += 1 + length;
            }
            0xc0.. => {
                end.get_or_insert(at + 2);
                jumps += 1;
                if jumps > JUMPS {
                    return None;
                }
                at = usize::from(be16(bytes, at)? & 0x3fff);
            }
            _ => return None,
        }
    }
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..)?.first_chunk().map(|field| u16::from_be_bytes(*field))
}
