//! PPP (RFC 1661) as it can be read inside PPTP and L2TP: in clear until encryption begins.

use core::time::Duration;

use nat_core::flow::Direction;

use crate::attempts::Attempts;
use crate::finding::Mark;
use crate::tally::{Both, again};

/// A link that ends so soon after a login ends because of it.
const SOON: Duration = Duration::from_secs(5);

/// What was read of one link.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Ppp {
    /// LCP Configure-Requests.
    pub(crate) requests: Both<Option<Attempts>>,
    /// LCP Terminate-Requests, the first; does it speak of encryption?
    pub(crate) terminate: Both<Option<(Mark, bool)>>,
    /// The device's last PAP request, CHAP or EAP response.
    pub(crate) login: Option<Mark>,
    /// The server's last no, with the error number that Microsoft's CHAP puts in.
    pub(crate) refused: Option<(Mark, Option<u32>)>,
    /// The server's last yes.
    pub(crate) accepted: Option<Mark>,
    /// Compression and encryption were rejected or given up, the first time.
    pub(crate) ccp_failed: Option<Mark>,
    /// A network protocol was agreed on, or carries packets.
    pub(crate) network: Option<Mark>,
    /// LCP Echo, the last.
    pub(crate) echo: Option<Mark>,
}

impl Ppp {
    /// Is it still being agreed on, and nobody let in yet?
    pub(crate) fn is_opening(&self) -> bool {
        let asked = self.requests.inbound.is_some() || self.requests.outbound.is_some();
        asked && self.accepted.is_none() && self.network.is_none()
    }

    /// Reads a frame. `true`: its sender shows that it heard the other side.
    pub(crate) fn read(&mut self, direction: Direction, mark: Mark, frame: &[u8]) -> bool {
        let frame = frame.strip_prefix(&[0xff, 3]).unwrap_or(frame);
        let (protocol, rest) = match frame {
            [low, rest @ ..] if low & 1 == 1 => (u16::from(*low), rest),
            [high, low, rest @ ..] => (u16::from_be_bytes([*high, *low]), rest),
            [] | [_] => return false,
        };
        let &[code, ..] = rest else { return false };
        let inbound = direction == Direction::Inbound;
        let data = rest.get(4..).unwrap_or_default();
        match (protocol, code) {
            (0xc021, 1) => {
                again(self.requests.of_mut(direction), mark);
                false
            }
            (0xc021, 5) => {
                let encryption = data.windows(4).take(64).any(|word| word == b"MPPE");
                self.terminate.of_mut(direction).get_or_insert((mark, encryption));
                false
            }
            (0xc021, 8) => {
                if data.starts_with(&[0x80, 0xfd]) {
                    self.ccp_failed.get_or_insert(mark);
                }
                true
            }
            (0xc021, 9) => {
                self.echo = Some(mark);
                false
            }
            (0xc021, 2..=4 | 6 | 10) => true,
            (0xc023, 1) | (0xc223 | 0xc227, 2) => {
                if !inbound {
                    self.login = Some(mark);
                }
                protocol != 0xc023
            }
            (0xc023, 2) | (0xc223 | 0xc227, 3) => {
                if inbound {
                    self.accepted = Some(mark);
                }
                true
            }
            (0xc023, 3) | (0xc223 | 0xc227, 4) => {
                if inbound {
                    self.refused = Some((mark, error_number(data)));
                }
                true
            }
            (0x80fd, 4 | 5) => {
                self.ccp_failed.get_or_insert(mark);
                code == 4
            }
            (0x8021 | 0x8057, 2) | (0x0021 | 0x0057 | 0x00fd, _) => {
                self.network = Some(mark);
                true
            }
            _ => false,
        }
    }

    /// The server's no, if it stands.
    pub(crate) fn refusal(&self) -> Option<(Mark, Option<u32>)> {
        let later = |mark: Mark| self.accepted.is_none_or(|accepted| accepted.at < mark.at);
        self.refused
            .filter(|&(mark, _)| later(mark) && self.network.is_none_or(|network| network.at < mark.at))
    }

    /// A login that was not answered but ended the link at `end` or by an LCP Terminate-Request of the server's.
    pub(crate) fn hung_up(&self, end: Option<Mark>) -> Option<(Mark, Mark)> {
        let login = self.login?;
        let end = self.terminate.inbound.map(|(mark, _)| mark).or(end)?;
        let silent = self.accepted.is_none() && self.refused.is_none() && self.network.is_none();
        (silent && end.at >= login.at && end.at.since(login.at) < SOON).then_some((login, end))
    }

    /// Encryption that could not be agreed on and ended the link, at the latest at `end`.
    pub(crate) fn unencrypted(&self, end: Option<Mark>) -> Option<(Mark, Mark, bool)> {
        let outbound = self.terminate.outbound;
        let terminate = self.terminate.inbound.or(outbound);
        let said =
            [self.terminate.inbound, outbound].into_iter().flatten().find(|&(_, encryption)| encryption);
        if let Some((mark, _)) = said {
            return Some((self.ccp_failed.unwrap_or(mark), mark, true));
        }
        let failed = self.ccp_failed?;
        let end = terminate.map(|(mark, _)| mark).or(end)?;
        let alone = self.refusal().is_none() && end.at.since(failed.at) < Duration::from_secs(10);
        (alone && self.network.is_none_or(|network| network.at > end.at)).then_some((failed, end, false))
    }
}

/// "E=691 R=1 …" (RFC 2759 section 6).
fn error_number(text: &[u8]) -> Option<u32> {
    let at = text.windows(2).take(64).position(|two| two == b"E=")?;
    let digits = text.get(at + 2..)?.iter().take(9).take_while(|byte| byte.is_ascii_digit());
    let number = digits.fold(0, |sum, digit| sum * 10 + u32::from(digit - b'0'));
    (number > 0).then_some(number)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::observation::at;

    #[test]
    fn a_refused_login_shows_its_error_number() {
        for head in [&[0xff, 3][..], &[]] {
            let mut ppp = Ppp::default();
            let mark = Mark { at: at(5), number: 5 };
            let failure = [head, &[0xc2, 0x23, 4, 1, 0, 16], b"E=691 R=1 C=00"].concat();
            assert!(ppp.read(Direction::Inbound, mark, &failure));
            assert_eq!(ppp.refusal(), Some((mark, Some(691))));
            for short in 0..failure.len() {
                ppp.read(Direction::Outbound, mark, &failure[..short]);
            }
        }
    }

    #[test]
    fn a_login_that_succeeds_at_the_second_try_is_not_refused() {
        let mut ppp = Ppp::default();
        let mark = |millis| Mark { at: at(millis), number: millis };
        ppp.read(Direction::Inbound, mark(1), &[0xc0, 0x23, 3, 1, 0, 4]);
        ppp.read(Direction::Inbound, mark(2), &[0xc0, 0x23, 2, 2, 0, 4]);
        assert_eq!(ppp.refusal(), None);
    }
}
