//! The one kernel setting that natd changes.

use std::fs;
use std::io;

const CHECKSUM: &str = "/proc/sys/net/netfilter/nf_conntrack_checksum";

/// Conntrack's verification of transport checksums, switched off while this lives.
///
/// A train of segments (GSO) goes through the kernel with its checksum unfinished. When user space has changed
/// such a packet, the kernel cannot tell any more that this was by intent: conntrack computes, finds it wrong
/// and calls the packet invalid. The end systems verify every segment anyway; OpenWrt has this off by default.
#[derive(Debug)]
pub struct Verification {
    before: String,
}

impl Verification {
    /// Switches verification off.
    ///
    /// # Errors
    /// When the setting cannot be read or written, and it is not off already.
    pub fn switch_off() -> io::Result<Self> {
        let before = fs::read_to_string(CHECKSUM)?;
        if before.trim() != "0" {
            fs::write(CHECKSUM, "0")?;
        }
        Ok(Self { before })
    }
}

impl Drop for Verification {
    fn drop(&mut self) {
        if self.before.trim() != "0" {
            // It was writable a while ago; where it is not now, nothing breaks.
            let _ = fs::write(CHECKSUM, &self.before);
        }
    }
}
