//! Packets with every length and checksum right, and sums that are added up without any trick.

use std::net::Ipv4Addr;

/// A packet of `protocol`. For TCP and UDP `ports` and a checksum go before `payload`; for TCP the payload's first
/// bytes are the rest of the header. For ICMP the payload is the message, whose checksum is written.
pub(super) fn packet(
    protocol: u8,
    src: Ipv4Addr,
    dst: Ipv4Addr,
    ports: (u16, u16),
    payload: &[u8],
) -> Vec<u8> {
    let mut body = Vec::new();
    match protocol {
        6 => {
            body.extend(ports.0.to_be_bytes());
            body.extend(ports.1.to_be_bytes());
            let mut rest = payload.to_vec();
            rest.resize(rest.len().max(16), 0);
            body.extend(rest);
            // A header of five words, or with options as far as there is payload for them.
            let words = (body[12] >> 4).clamp(5, u8::try_from((body.len() / 4).min(15)).unwrap_or(15));
            body[12] = words << 4;
        }
        17 => {
            body.extend(ports.0.to_be_bytes());
            body.extend(ports.1.to_be_bytes());
            body.extend(u16::try_from(payload.len() + 8).unwrap_or(u16::MAX).to_be_bytes());
            body.extend([0, 0]);
            body.extend(payload);
        }
        _ => body.extend(payload),
    }
    let mut bytes = vec![0x45, 0];
    bytes.extend(u16::try_from(body.len() + 20).unwrap_or(u16::MAX).to_be_bytes());
    bytes.extend([0x12, 0x34, 0x40, 0, 64, protocol, 0, 0]);
    bytes.extend(src.octets());
    bytes.extend(dst.octets());
    bytes.extend(body);
    fix(&mut bytes);
    bytes
}

/// Writes the checksums of a packet without IPv4 options anew.
pub(super) fn fix(bytes: &mut [u8]) {
    let at = match bytes.get(9) {
        Some(6) => 36,
        Some(17) => 26,
        Some(1) => 22,
        _ => 0,
    };
    put(bytes, 10, 0);
    let header = !sum(bytes.get(..20).unwrap_or_default());
    put(bytes, 10, header);
    if at != 0 {
        put(bytes, at, 0);
        let covered = covered(bytes, 20, bytes.len());
        let checksum = !sum(&covered);
        put(bytes, at, if checksum == 0 && at == 26 { 0xffff } else { checksum });
    }
}

/// Is every checksum right that a packet has? `false` where that cannot be said.
pub(super) fn checksums_hold(bytes: &[u8]) -> bool {
    let start = usize::from(bytes.first().map_or(0, |first| first & 15)) * 4;
    let total = usize::from(word(bytes, 2));
    let (Some(header), Some(body)) = (bytes.get(..start), bytes.get(start..total)) else { return false };
    if start < 20 || sum(header) != 0xffff {
        return false;
    }
    if word(bytes, 6) & 0x3fff != 0 {
        return true;
    }
    match bytes[9] {
        17 if body.len() < 8 => false,
        17 if word(body, 6) == 0 => true,
        17 => {
            let end = start + usize::from(word(body, 4));
            end <= total && sum(&covered(bytes, start, end)) == 0xffff
        }
        1 | 6 => sum(&covered(bytes, start, total)) == 0xffff,
        _ => true,
    }
}

/// What a transport checksum covers.
fn covered(bytes: &[u8], start: usize, end: usize) -> Vec<u8> {
    let mut covered = Vec::new();
    if bytes[9] != 1 {
        covered.extend_from_slice(&bytes[12..20]);
        covered.extend([0, bytes[9]]);
        covered.extend(u16::try_from(end - start).unwrap_or(0).to_be_bytes());
    }
    covered.extend_from_slice(&bytes[start..end]);
    covered
}

fn sum(bytes: &[u8]) -> u16 {
    let words =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |&low| u32::from(low)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap_or(0)
}

pub(super) fn word(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |pair| u16::from_be_bytes([pair[0], pair[1]]))
}

fn put(bytes: &mut [u8], at: usize, value: u16) {
    if let Some(place) = bytes.get_mut(at..at + 2) {
        place.copy_from_slice(&value.to_be_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SRC: Ipv4Addr = Ipv4Addr::new(192, 168, 1, 10);
    const DST: Ipv4Addr = Ipv4Addr::new(203, 0, 113, 10);

    #[test]
    fn any_bit_that_changes_shows_in_the_checksums() {
        for protocol in [1, 6, 17] {
            let right = packet(protocol, SRC, DST, (40_000, 80), &[8, 0, 0, 0, 1, 2, 3, 4, 5]);
            assert!(checksums_hold(&right), "{right:02x?}");
            // Not the protocol: others have no checksum that is known here.
            for bit in (0..right.len() * 8).filter(|bit| bit / 8 != 9) {
                let mut wrong = right.clone();
                wrong[bit / 8] ^= 1 << (bit % 8);
                assert!(!checksums_hold(&wrong), "bit {bit} of {right:02x?}");
            }
        }
    }

    #[test]
    fn a_datagram_without_a_checksum_is_right() {
        let mut packet = packet(17, SRC, DST, (40_000, 80), b"data");
        put(&mut packet, 26, 0);
        assert!(checksums_hold(&packet));
    }
}
