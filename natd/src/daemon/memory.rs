//! What natd writes down about IPsec, so that sessions go on after a restart: a text file beside the control socket,
//! on a file system that a reboot empties.
//!
//! One line a thing, numbers of the wire in hexadecimal, `-` for what is not known:
//!
//! ```text
//! wan 198.51.100.1
//! pair REMOTE DEVICE INBOUND-SPI OUTBOUND-SPI MICROSECONDS-SINCE-BOOT
//! may REMOTE SPI DEVICE [DEVICE ...]
//! ike REMOTE INITIATOR-SPI RESPONDER-SPI VERSION DEVICE PORT EXTERNAL-PORT SHARED FLOATED
//! ```
//!
//! A line that cannot be read is passed over: what it knew is learned again, later.

use std::fmt::Write;
use std::net::Ipv4Addr;
use std::str::{FromStr, SplitWhitespace};

use nat_core::flow::Endpoint;
use nat_core::time::Timestamp;
use passthrough::ike::IkeSpi;
use passthrough::{KnownIkeSa, KnownPair, Memory, Undecided};

/// The text of `memory`, made behind the address `wan`.
pub(super) fn render(wan: Ipv4Addr, memory: &Memory) -> String {
    let mut text = format!("wan {wan}\n");
    let spi = |spi: Option<u32>| spi.map_or_else(|| "-".to_owned(), |spi| format!("{spi:x}"));
    for pair in &memory.pairs {
        let KnownPair { remote, device, inbound, outbound, renewed } = pair;
        let (inbound, outbound, renewed) = (spi(*inbound), spi(*outbound), renewed.as_micros());
        // Writing to a string does not fail.
        let _ = writeln!(text, "pair {remote} {device} {inbound} {outbound} {renewed}");
    }
    for Undecided { remote, spi, devices } in &memory.undecided {
        let _ = write!(text, "may {remote} {spi:x}");
        for device in devices {
            let _ = write!(text, " {device}");
        }
        text.push('\n');
    }
    for sa in &memory.ike {
        let KnownIkeSa { remote, initiator, responder, version, device, external, shared, floated } = sa;
        let _ = writeln!(
            text,
            "ike {remote} {:x} {:x} {version} {} {} {external} {} {}",
            initiator.0,
            responder.0,
            device.addr,
            device.id,
            u8::from(*shared),
            u8::from(*floated)
        );
    }
    text
}

/// What `text` says, if it was written behind the address `wan`.
pub(super) fn parse(wan: Ipv4Addr, text: &str) -> Option<Memory> {
    let mut lines = text.lines();
    if lines.next()?.strip_prefix("wan ")?.parse() != Ok(wan) {
        return None;
    }
    let mut memory = Memory::default();
    for line in lines {
        let mut words = line.split_whitespace();
        match words.next() {
            Some("pair") => memory.pairs.extend(pair(&mut words)),
            Some("may") => memory.undecided.extend(undecided(&mut words)),
            Some("ike") => memory.ike.extend(ike(&mut words)),
            _ => {}
        }
    }
    Some(memory)
}

fn pair(words: &mut SplitWhitespace<'_>) -> Option<KnownPair> {
    let (remote, device) = (word(words)?, word(words)?);
    let mut spi = || match words.next()? {
        "-" => Some(None),
        spi => u32::from_str_radix(spi, 16).ok().map(Some),
    };
    let (inbound, outbound) = (spi()?, spi()?);
    let renewed = Timestamp::from_micros(word(words)?);
    Some(KnownPair { remote, device, inbound, outbound, renewed })
}

fn undecided(words: &mut SplitWhitespace<'_>) -> Option<Undecided> {
    let remote = word(words)?;
    let spi = u32::from_str_radix(words.next()?, 16).ok()?;
    Some(Undecided { remote, spi, devices: words.filter_map(|device| device.parse().ok()).collect() })
}

fn ike(words: &mut SplitWhitespace<'_>) -> Option<KnownIkeSa> {
    let remote = word(words)?;
    let mut spi = || u64::from_str_radix(words.next()?, 16).ok().map(IkeSpi);
    let (initiator, responder) = (spi()?, spi()?);
    let version = word(words)?;
    let device = Endpoint::new(word(words)?, word(words)?);
    let external = word(words)?;
    let mut flag = || Some(words.next()? == "1");
    Some(KnownIkeSa {
        remote,
        initiator,
        responder,
        version,
        device,
        external,
        shared: flag()?,
        floated: flag()?,
    })
}

fn word<T: FromStr>(words: &mut SplitWhitespace<'_>) -> Option<T> {
    words.next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WAN: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
    const S: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 10);
    const A: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 11);
    const B: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 12);

    fn memory() -> Memory {
        Memory {
            pairs: vec![
                KnownPair {
                    remote: S,
                    device: A,
                    inbound: Some(0xdead_beef),
                    outbound: Some(0x100),
                    renewed: Timestamp::from_micros(7),
                },
                KnownPair {
                    remote: S,
                    device: B,
                    inbound: None,
                    outbound: Some(0x101),
                    renewed: Timestamp::from_secs(9),
                },
            ],
            undecided: vec![Undecided { remote: S, spi: 0xfeed, devices: vec![A, B] }],
            ike: vec![KnownIkeSa {
                remote: S,
                initiator: IkeSpi(1),
                responder: IkeSpi(u64::MAX),
                version: 2,
                device: Endpoint::new(A, 500),
                external: 500,
                shared: true,
                floated: false,
            }],
        }
    }

    #[test]
    fn what_is_written_is_read() {
        assert_eq!(parse(WAN, &render(WAN, &memory())), Some(memory()));
    }

    #[test]
    fn another_address_makes_it_worthless() {
        assert_eq!(parse(S, &render(WAN, &memory())), None);
        assert_eq!(parse(WAN, ""), None);
    }

    #[test]
    fn spoilt_lines_are_passed_over() {
        let text = render(WAN, &memory());
        for cut in 0..text.len() {
            let read = parse(WAN, &text[..cut]).unwrap_or_default();
            assert!(read.pairs.len() <= 2 && read.ike.len() <= 1, "{cut}");
        }
        let text = "wan 198.51.100.1\npair x y\nike 1 2\nmay\nwhat\npair 198.51.100.10 192.168.1.11 zz -\n";
        assert_eq!(parse(WAN, text), Some(Memory::default()));
    }
}
