//! The names that devices ask for.

use std::net::IpAddr;

use crate::finding::Findings;
use crate::household::Context;
use crate::observation::Observation;

/// What was seen, of all devices.
#[derive(Debug, Default)]
pub struct Watch {}

impl Watch {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        let _ = seen;
    }

    /// What is wrong; here device and server of a finding are to be filled in.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        let _ = (context, findings);
    }

    /// Is this address likely a VPN server's?
    pub fn names_vpn(&self, server: IpAddr) -> bool {
        let _ = server;
        false
    }
}
