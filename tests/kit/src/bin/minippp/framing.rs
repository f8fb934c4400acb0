//! Async HDLC framing (RFC 1662).

const FLAG: u8 = 0x7e;
const ESCAPE: u8 = 0x7d;

/// Protocol and information field of a frame; address, control and the protocol's first byte may be left out
/// (RFC 1661 sections 6.5 and 6.6).
pub(crate) fn protocol_of(frame: &[u8]) -> Option<(u16, &[u8])> {
    let frame = frame.strip_prefix(&[0xff, 0x03]).unwrap_or(frame);
    match frame {
        [short, rest @ ..] if short & 1 == 1 => Some((u16::from(*short), rest)),
        [high, low, rest @ ..] => Some((u16::from_be_bytes([*high, *low]), rest)),
        _ => None,
    }
}

/// The frame check sequence before its final complement (RFC 1662 appendix C.2).
fn check_sequence(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0xffff, |fcs, byte| {
        (0..8)
            .fold(fcs ^ u16::from(*byte), |fcs, _| if fcs & 1 == 1 { (fcs >> 1) ^ 0x8408 } else { fcs >> 1 })
    })
}

/// What [`check_sequence`] makes of a whole good frame.
const GOOD_FRAME: u16 = 0xf0b8;

/// A frame as it goes over the line.
pub(crate) fn frame(protocol: u16, body: &[u8]) -> Vec<u8> {
    let mut bytes = [&[0xff, 0x03], &protocol.to_be_bytes()[..], body].concat();
    let check = !check_sequence(&bytes);
    bytes.extend(check.to_le_bytes());
    let mut line = vec![FLAG];
    for byte in bytes {
        match byte {
            0..0x20 | ESCAPE | FLAG => line.extend([ESCAPE, byte ^ 0x20]),
            _ => line.push(byte),
        }
    }
    line.push(FLAG);
    line
}

/// Finds the frames in what comes over the line.
#[derive(Debug, Default)]
pub(crate) struct Deframer {
    bytes: Vec<u8>,
    escaped: bool,
}

impl Deframer {
    /// The good frames that end in `line`, without flags and check sequence.
    pub(crate) fn feed(&mut self, line: &[u8]) -> Vec<Vec<u8>> {
        let mut frames = Vec::new();
        for byte in line {
            match *byte {
                FLAG => {
                    let mut frame = std::mem::take(&mut self.bytes);
                    self.escaped = false;
                    if frame.len() >= 4 && check_sequence(&frame) == GOOD_FRAME {
                        frame.truncate(frame.len() - 2);
                        frames.push(frame);
                    }
                }
                ESCAPE => self.escaped = true,
                byte => {
                    self.bytes.push(if self.escaped { byte ^ 0x20 } else { byte });
                    self.escaped = false;
                }
            }
        }
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{IPV4, LCP};

    #[test]
    fn a_frame_comes_back_from_any_pieces() {
        let body: Vec<u8> = (0..=255).collect();
        let line = frame(IPV4, &body);
        assert!(line.iter().skip(1).take(line.len() - 2).all(|byte| *byte != FLAG));
        for size in 1..line.len() {
            let mut deframer = Deframer::default();
            let frames: Vec<_> = line.chunks(size).flat_map(|piece| deframer.feed(piece)).collect();
            assert_eq!(frames.len(), 1, "in pieces of {size}");
            assert_eq!(protocol_of(&frames[0]), Some((IPV4, &body[..])));
        }
    }

    #[test]
    fn the_check_sequence_is_that_of_x25() {
        // The check value of CRC-16/X-25.
        assert_eq!(!check_sequence(b"123456789"), 0x906e);
    }

    #[test]
    fn a_damaged_frame_is_dropped() {
        let mut line = frame(LCP, b"whatever");
        line[8] ^= 1;
        assert_eq!(Deframer::default().feed(&line), Vec::<Vec<u8>>::new());
    }

    #[test]
    fn compressed_headers_are_understood() {
        assert_eq!(protocol_of(&[0xff, 0x03, 0x21, 9]), Some((IPV4, &[9][..])));
        assert_eq!(protocol_of(&[0xc0, 0x21, 9]), Some((LCP, &[9][..])));
    }
}
