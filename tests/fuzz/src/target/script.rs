//! An input as a course of events: numbers and bytes in order, zeros behind its end.

use std::net::Ipv4Addr;
use std::time::Duration;

pub(super) struct Script<'a>(pub(super) &'a [u8]);

impl<'a> Script<'a> {
    /// What the next event is; `None` at the end.
    pub(super) fn event(&mut self) -> Option<u8> {
        let (&byte, rest) = self.0.split_first()?;
        self.0 = rest;
        Some(byte)
    }

    pub(super) fn byte(&mut self) -> u8 {
        self.event().unwrap_or(0)
    }

    pub(super) fn word(&mut self) -> u16 {
        u16::from_be_bytes([self.byte(), self.byte()])
    }

    /// A length and as many bytes.
    pub(super) fn bytes(&mut self) -> &'a [u8] {
        let length = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(length);
        self.0 = rest;
        bytes
    }

    pub(super) fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[usize::from(self.byte()) % from.len()]
    }

    /// One of three devices.
    pub(super) fn device(&mut self) -> Ipv4Addr {
        self.pick(&DEVICES)
    }

    /// One of two remote hosts.
    pub(super) fn remote(&mut self) -> Ipv4Addr {
        self.pick(&REMOTES)
    }

    /// From a millisecond to most of a day.
    pub(super) fn time(&mut self) -> Duration {
        let byte = self.byte();
        Duration::from_millis(u64::from(byte & 0x0f) << ((byte >> 4) + byte % 7))
    }
}

pub(super) const DEVICES: [Ipv4Addr; 3] =
    [Ipv4Addr::new(192, 168, 1, 10), Ipv4Addr::new(192, 168, 1, 11), Ipv4Addr::new(192, 168, 1, 12)];
pub(super) const REMOTES: [Ipv4Addr; 2] = [Ipv4Addr::new(203, 0, 113, 10), Ipv4Addr::new(203, 0, 113, 20)];
