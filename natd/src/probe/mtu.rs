//! The largest packet that comes through whole: pings that must not be cut, their size halved in. Where pings are not
//! answered and IKE is, IKE messages that the server refuses.

use std::net::IpAddr;
use std::time::Duration;

use nat_core::time::Timestamp;

/// Sizes that links have; tried first.
const USUAL: [u16; 7] = [1500, 1492, 1480, 1460, 1454, 1420, 1400];
/// How long a ping is waited for.
const PATIENCE: Duration = Duration::from_secs(2);

/// A search, one packet after the other.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// The interface's.
    top: u16,
    /// Comes through.
    fits: u16,
    /// Does not come through.
    too_big: u16,
    /// Number, size and time of the ping that is on its way.
    open: Option<(u16, u16, Timestamp)>,
    number: u16,
    /// A small one is to be answered first.
    unproved: bool,
    /// The largest was tried.
    begun: bool,
    /// What is on its way is sent once more before it counts as lost: the first may be lost by chance.
    again: bool,
    /// What a router said is its next link's.
    named: Option<u16>,
    /// Who said that a packet was too big, and at which hop.
    pub(super) teller: Option<(IpAddr, Option<u8>)>,
}

impl Search {
    /// The most pings.
    pub(super) const LIMIT: u8 = 10;

    /// By pings, up to `top`, the interface's MTU.
    pub(super) fn new(top: u16, six: bool) -> Self {
        // Of IPv4 it is what was answered before.
        Self::above(84, top, six)
    }

    /// By IKE messages; up to what servers take.
    pub(super) fn by_ike(top: u16, six: bool) -> Self {
        // One that drops what it refuses would look like a path that carries nothing.
        Self { unproved: true, ..Self::above(576, top.min(9000), six) }
    }

    /// Not even a small one was answered.
    pub(super) const fn vain(&self) -> bool {
        self.unproved && self.number > 0 && self.open.is_none()
    }

    fn above(answered: u16, top: u16, six: bool) -> Self {
        // Every link of IPv6 carries as much (RFC 8200 section 5).
        let fits = if six { 1280 } else { answered };
        // A loopback's is more than a packet can have.
        let top = top.min(u16::MAX - 1);
        Self {
            top,
            fits: fits.min(top),
            too_big: top.saturating_add(1),
            open: None,
            number: 0,
            unproved: false,
            begun: false,
            again: true,
            named: None,
            teller: None,
        }
    }

    /// Gives a ping up that is not answered.
    pub(super) fn expire(&mut self, now: Timestamp) {
        let again = self.again;
        let late = |(_, _, sent): &mut (u16, u16, Timestamp)| !again && now.since(*sent) >= PATIENCE;
        if let Some((_, size, _)) = self.open.take_if(late) {
            if !self.unproved {
                self.too_big = self.too_big.min(size);
            }
        }
    }

    /// Is it over?
    pub(super) fn done(&self) -> bool {
        self.vain()
            || self.too_big <= self.fits.saturating_add(1)
            || (self.open.is_none() && self.number >= u16::from(Self::LIMIT))
    }

    /// Is there none on its way?
    pub(super) fn ready(&self, now: Timestamp) -> bool {
        !self.done() && self.open.is_none_or(|(_, _, sent)| now.since(sent) >= PATIENCE)
    }

    /// Number and size of the next ping.
    pub(super) fn next(&mut self, now: Timestamp) -> (u16, u16) {
        let size = match self.open.take() {
            Some((_, size, _)) => {
                self.again = false;
                size
            }
            None => self.choose(),
        };
        self.send(size, now)
    }

    fn send(&mut self, size: u16, now: Timestamp) -> (u16, u16) {
        self.number += 1;
        self.open = Some((self.number, size, now));
        (self.number, size)
    }

    fn choose(&mut self) -> u16 {
        let inside = |size: u16| size > self.fits && size < self.too_big;
        if self.unproved {
            return self.fits;
        }
        if !self.begun {
            self.begun = true;
            return self.top;
        }
        if let Some(named) = self.named.take().filter(|named| inside(*named)) {
            return named;
        }
        // What is just above a usual size that fits is most likely too big.
        if USUAL.contains(&self.fits) && inside(self.fits + 1) {
            return self.fits + 1;
        }
        let usual: Vec<u16> = USUAL.into_iter().filter(|size| inside(*size)).collect();
        let middle = u16::midpoint(self.fits.max(1200.min(self.too_big - 1)), self.too_big);
        usual
            .get(usual.len() / 2)
            .copied()
            .unwrap_or(middle.clamp(self.fits + 1, (self.too_big - 1).max(self.fits + 1)))
    }

    /// A ping was answered.
    pub(super) fn answered(&mut self, _now: Timestamp, number: u16) {
        if let Some((_, size, _)) = self.open.take_if(|(open, ..)| *open == number) {
            self.fits = self.fits.max(size);
            self.again = std::mem::take(&mut self.unproved);
        }
    }

    /// Who says so.
    pub(super) fn told(&mut self, by: IpAddr, hop: Option<u8>) {
        self.teller = Some((by, hop));
    }

    /// The ping on its way was too big, for a link of `mtu` bytes.
    pub(super) fn too_big(&mut self, _now: Timestamp, mtu: Option<u16>) {
        if let Some((_, size, _)) = self.open.take() {
            self.too_big = self.too_big.min(size);
            self.named = mtu;
            self.again = false;
        }
    }

    /// The largest size that came through, and the smallest that did not; the latter is not known where it is
    /// more than the interface takes.
    pub(super) fn found(&self) -> (u16, Option<u16>) {
        let open = self.open.map_or(self.too_big, |(_, size, _)| self.too_big.min(size));
        (self.fits, (open <= self.top).then_some(open))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Searches a path of `real` bytes whose routers tell or not; answers pings and what was found.
    fn search(top: u16, real: u16, tells: bool) -> (u16, (u16, Option<u16>)) {
        let (mut search, mut now) = (Search::new(top, false), Timestamp::from_secs(5));
        while !search.done() {
            now = now + Duration::from_secs(1);
            search.expire(now);
            if !search.ready(now) {
                continue;
            }
            let (number, size) = search.next(now);
            if size <= real {
                search.answered(now, number);
            } else if tells {
                search.too_big(now, Some(real));
            }
        }
        (search.number, search.found())
    }

    #[test]
    fn an_ordinary_line_takes_one_ping() {
        assert_eq!(search(1500, 1500, true), (1, (1500, None)));
        assert_eq!(search(1492, 1500, false), (1, (1492, None)));
        assert_eq!(search(u16::MAX, u16::MAX, false), (1, (65_534, None)));
    }

    #[test]
    fn a_server_that_drops_what_it_refuses_shows_nothing_of_the_path() {
        let (mut search, mut now) = (Search::by_ike(1500, false), Timestamp::from_secs(5));
        let mut sizes = Vec::new();
        while !search.done() {
            now = now + Duration::from_millis(500);
            search.expire(now);
            if search.ready(now) {
                sizes.push(search.next(now).1);
            }
        }
        assert_eq!((sizes, search.vain()), (vec![576, 576], true));
        // One that answers is asked as with pings.
        let mut search = Search::by_ike(1500, false);
        assert_eq!(search.next(now), (1, 576));
        search.answered(now, 1);
        assert_eq!(search.next(now), (2, 1500));
        search.answered(now, 2);
        assert!(search.done() && !search.vain());
        assert_eq!(search.found(), (1500, None));
    }

    #[test]
    fn odd_interfaces_do_no_harm() {
        for top in [0, 1, 68, 84, 85, 576, 1280, 9000, 65_534, u16::MAX] {
            for real in [84, 600, 1400, 8999] {
                for tells in [true, false] {
                    let (pings, (fits, too_big)) = search(top, real, tells);
                    assert!(pings <= 10 && fits <= top && too_big.is_none_or(|size| size > fits));
                }
            }
        }
    }

    #[test]
    fn a_router_that_tells_saves_pings() {
        assert_eq!(search(1500, 1454, true), (3, (1454, Some(1455))));
    }

    #[test]
    fn a_black_hole_is_measured_within_ten_pings() {
        for real in [1492, 1480, 1460, 1454, 1420, 1400] {
            let (pings, found) = search(1500, real, false);
            assert!(pings <= 10);
            assert_eq!(found, (real, Some(real + 1)));
        }
        for real in (600..1500).step_by(7) {
            let (pings, (fits, too_big)) = search(1500, real, false);
            assert!(pings <= 10 && fits <= real && too_big.unwrap() > real, "{real}");
            assert!(real < 1300 || too_big.unwrap() - fits <= 20, "{real}: {fits} {too_big:?}");
        }
    }
}
