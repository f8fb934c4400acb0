//! What IPsec shows of the NATs and the line.

use core::time::Duration;
use std::net::IpAddr;

use md5::Md5;
use passthrough::ike::{Exchange, IkeVersion};
use sha1::{Digest, Sha1};

use super::exchange::{Hash, Sa};
use super::{ESP, Flow, Scene, Tracker, find};
use crate::code::Code;
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::observation::Point;
use crate::tally::is_private;

/// A silence after which a mapping may be gone: NATs on the way keep UDP for 30 s and more.
pub(super) const PAUSE: Duration = Duration::from_secs(25);
/// From that long a silence on the device is to blame, which should send keepalives.
const NO_KEEPALIVE: Duration = Duration::from_secs(60);
/// Inbound packets in vain before a mapping is called gone.
const IN_VAIN: u64 = 3;

/// An address and port as NAT detection sees them.
type Seen = (IpAddr, u16);

impl Tracker {
    /// What is wrong with NATs, and what is worth knowing of them.
    pub(super) fn line_findings(&self, context: &Scene<'_>, findings: &mut Findings) {
        self.idle(context, findings);
        self.lulls(findings);
        for sa in &self.sas {
            self.nat_detection(sa, context, findings);
        }
        self.not_negotiated(findings);
    }

    /// The server sends, and the router has forgotten to whom.
    fn idle(&self, context: &Scene<'_>, findings: &mut Findings) {
        let Some(pair) = context.pair else { return };
        let Some(sa) = self.sas.iter().rev().find(|sa| sa.established.is_some()) else { return };
        if sa.deletion.is_some_and(|(_, mark)| sa.last.at.since(mark.at) < Duration::from_secs(1)) {
            return; // the rest of a session that was closed
        }
        for flow in &self.flows {
            let Some(sent) = flow.last_out else { continue };
            let timeouts = context.router.timeouts;
            let limit = match (timeouts, flow.protocol) {
                (Some(timeouts), 50) => Duration::from_secs(timeouts.esp),
                (Some(timeouts), _) => Duration::from_secs(timeouts.udp),
                (None, _) => NO_KEEPALIVE,
            };
            let stray = context.router.strays.iter().find(|stray| {
                let ours = match flow.protocol {
                    50 => self.known_inbound(stray.trace.id).is_some_and(|child| !child.in_udp),
                    _ => flow.wan.is_some_and(|(_, port)| port == stray.trace.device_port),
                };
                stray.server == pair.server
                    && (stray.trace.protocol, stray.trace.server_port) == (flow.protocol, flow.ports.1)
                    && stray.trace.mark > sent
                    && ours
            });
            let (count, first, last) = match (stray, flow.undelivered) {
                (Some(stray), _) => {
                    (stray.count, Mark { at: stray.first, number: stray.trace.mark.number }, stray.trace.mark)
                }
                (None, Some(lost)) => (lost.sends, lost.first, lost.last),
                (None, None) => continue,
            };
            let silent = last.at.since(sent.at);
            if count < IN_VAIN || silent < limit || limit.is_zero() {
                continue;
            }
            let evidence = vec![
                Evidence::packet("the last packet from the device", sent),
                Evidence::packets("came to the WAN after that and found no mapping", count, first, last),
            ];
            let confidence = if timeouts.is_some() { Confidence::High } else { Confidence::Medium };
            find(findings, Code::NatIdleTimeout, confidence, sa, evidence);
            return;
        }
    }

    /// Inbound packets that came to nobody during silences, and again after them.
    fn lulls(&self, findings: &mut Findings) {
        let lulls = &self.children.lulls;
        let ([first, .., last], Some(sa)) =
            (&lulls[..], self.sas.iter().rev().find(|sa| sa.established.is_some()))
        else {
            return;
        };
        let shortest = lulls.iter().map(|lull| lull.silent).min().unwrap_or_default();
        let lost = lulls.iter().map(|lull| u64::from(lull.lost)).sum();
        let what = format!("inbound packets missing after silences of {} s and more", shortest.as_secs());
        let mut evidence = vec![Evidence::packets(what, lost, first.again, last.again)];
        let moved =
            self.flows.iter().filter_map(|flow: &Flow| flow.moved).find(|moved| moved.pause.is_some());
        let code = if let Some(moved) = moved {
            evidence.push(Evidence::packet("left with another port of the WAN", moved.at));
            Code::NatIdleTimeout
        } else if sa.floated && sa.keepalive.is_none() && shortest >= NO_KEEPALIVE {
            Code::NatKeepaliveMissing
        } else {
            Code::NatUpstreamTimeout
        };
        let confidence = if lulls.len() > 2 { Confidence::High } else { Confidence::Medium };
        find(findings, code, confidence, sa, evidence);
    }

    /// What the hashes for NAT detection tell.
    fn nat_detection(&self, sa: &Sa, context: &Scene<'_>, findings: &mut Findings) {
        let (Some(pair), Some((point, device))) = (context.pair, self.seen_at) else { return };
        let [ours, theirs] = &sa.hashes;
        let own = (device, sa.device_port);
        let at_home = match point {
            Point::Lan => true,
            Point::Wan => false,
            Point::Unknown => context.vantage.lan && !context.vantage.wan && is_private(device),
        };
        let ports = [sa.device_port, 500, 4500];
        let sources = |hashes: &[Hash]| hashes.iter().filter(|hash| hash.source).cloned().collect::<Vec<_>>();
        if at_home && sa.by_device {
            let own: Vec<Seen> = ports.iter().map(|port| (device, *port)).collect();
            if mismatch(&sources(ours), &own) == Some(true) {
                let evidence =
                    vec![Evidence::packet("the device says that it has another address", sa.first)];
                let confidence = if point == Point::Lan { Confidence::High } else { Confidence::Medium };
                find(findings, Code::ClientFakesNat, confidence, sa, evidence);
            }
        }
        let server: Vec<Seen> = [500, 4500].iter().map(|port| (pair.server, *port)).collect();
        let behind_nat = mismatch(&sources(theirs), &server) == Some(true);
        let main = sa.steps.iter().any(|step| step.exchange == Exchange::MainMode);
        let over = self.sas.last().is_some_and(|last| last.attempt != sa.attempt)
            || context.now.since(sa.last.at) >= crate::attempts::PATIENCE;
        if behind_nat
            && sa.windows
            && sa.version == IkeVersion::V1
            && main
            && sa.established.is_none()
            && over
        {
            let evidence = vec![
                Evidence::packet("a device with Windows, and a server that is behind a NAT", sa.first),
                Evidence::packet("the last packet", sa.last),
            ];
            find(findings, Code::L2tpServerBehindNat, Confidence::Medium, sa, evidence);
        }
        // Where the packets were taken, or natd itself, tells what the server should have seen.
        let flow = self.flows.iter().find(|flow| flow.protocol == 17 && flow.ports.0 == sa.device_port);
        let mapped = self.flows.iter().filter(|flow| flow.protocol == 17).filter_map(|flow| flow.wan);
        let seen: Vec<Seen> = match (flow.and_then(|flow| flow.wan), point) {
            (Some(_), _) => mapped.collect(),
            (None, Point::Wan) => ports.iter().map(|port| (own.0, *port)).collect(),
            (None, Point::Unknown) if context.vantage.wan && !context.vantage.lan => {
                ports.iter().map(|port| (own.0, *port)).collect()
            }
            (None, Point::Lan | Point::Unknown) => return,
        };
        let destinations: Vec<Hash> = theirs.iter().filter(|hash| !hash.source).cloned().collect();
        if let (Some(true), Some((wan, _))) = (mismatch(&destinations, &seen), seen.first()) {
            let code = if is_private(*wan) { Code::DoubleNat } else { Code::Cgnat };
            let what = format!("the server says that it did not see {wan}");
            let evidence = vec![Evidence::packet(what, sa.heard.unwrap_or(sa.first))];
            find(findings, code, Confidence::High, sa, evidence);
        }
    }

    /// ESP as it is, because one of the two did not offer UDP for it.
    fn not_negotiated(&self, findings: &mut Findings) {
        let Some(sa) = self.sas.iter().rev().find(|sa| sa.established.is_some()) else { return };
        let raw = self.children.of(true).find(|child| !child.in_udp && child.first > sa.first);
        if let (Some(raw), true) = (raw, sa.nat_t.contains(&Some(false))) {
            let evidence = vec![
                Evidence::packet("device and server did not agree on NAT traversal", sa.first),
                Evidence::packet("sent with ESP as it is", raw.first),
            ];
            find(findings, Code::NattNotNegotiated, Confidence::Medium, sa, evidence).vpn = ESP;
        }
    }
}

/// Does none of these hashes match any of the addresses and ports? `None`: there is none to compare.
fn mismatch(hashes: &[Hash], seen: &[Seen]) -> Option<bool> {
    let matches = |hash: &Hash| seen.iter().any(|seen| digest(hash, *seen) == hash.hash);
    (!hashes.is_empty() && !seen.is_empty()).then(|| !hashes.iter().any(matches))
}

/// RFC 7296 section 2.23, RFC 3947 section 3.2: both SPIs, the address, the port.
fn digest(hash: &Hash, (addr, port): Seen) -> Vec<u8> {
    let (initiator, responder) = hash.spis;
    let mut over = [initiator.0.to_be_bytes(), responder.0.to_be_bytes()].concat();
    match addr {
        IpAddr::V4(addr) => over.extend(addr.octets()),
        IpAddr::V6(addr) => over.extend(addr.octets()),
    }
    over.extend(port.to_be_bytes());
    if hash.hash.len() == 16 { Md5::digest(&over).to_vec() } else { Sha1::digest(&over).to_vec() }
}
