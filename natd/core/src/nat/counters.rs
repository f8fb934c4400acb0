//! What is counted.

use crate::decision::{DropReason, Note};

/// Packets of one kind: how many, and their bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Packets; a train of segments counts once.
    pub packets: u64,
    /// Bytes, IPv4 headers included.
    pub bytes: u64,
}

impl Traffic {
    pub(super) fn add(&mut self, len: u16) {
        self.packets += 1;
        self.bytes += u64::from(len);
    }
}

/// What has been counted since start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Counters {
    /// Translated, LAN to WAN.
    pub outbound: Traffic,
    /// Translated, WAN to LAN.
    pub inbound: Traffic,
    /// From one device to another through the WAN address; the second pass counts.
    pub hairpin: Traffic,
    /// Left untouched.
    pub passed: Traffic,
    drops: [u64; DropReason::ALL.len()],
    notes: [u64; Note::ALL.len()],
}

impl Default for Counters {
    fn default() -> Self {
        let none = Traffic::default();
        Self {
            outbound: none,
            inbound: none,
            hairpin: none,
            passed: none,
            drops: [0; DropReason::ALL.len()],
            notes: [0; Note::ALL.len()],
        }
    }
}

impl Counters {
    /// Every reason for dropping and how often it was one.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> {
        DropReason::ALL.iter().copied().zip(self.drops)
    }

    /// Every other thing counted.
    pub fn notes(&self) -> impl Iterator<Item = (Note, u64)> {
        Note::ALL.iter().copied().zip(self.notes)
    }

    pub(super) fn drop(&mut self, reason: DropReason) {
        if let Some(count) = self.drops.get_mut(reason.index()) {
            *count += 1;
        }
    }

    pub(super) fn note(&mut self, note: Note) {
        if let Some(count) = self.notes.get_mut(note.index()) {
            *count += 1;
        }
    }
}
