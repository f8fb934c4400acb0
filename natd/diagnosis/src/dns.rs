//! The names that devices ask for, as far as they look like a VPN's (RFC 1035).
//!
//! Of all questions only those about such names are remembered, and of their answers the addresses: what is sent
//! there is likely a VPN's, whatever it looks like. Which resolver was asked does not matter; a name that any of
//! them knows is known.

use core::time::Duration;
use std::collections::VecDeque;
use std::net::IpAddr;

use crate::attempts::Attempts;
use crate::code::Code;
use crate::finding::{Confidence, Evidence, Findings, Mark};
use crate::household::Context;
use crate::observation::{Observation, Transport};
use crate::pair::Pair;

mod message;

use message::{Message, QUESTION_TYPES};

/// Questions that are remembered.
const LOOKUPS: usize = 64;
/// Addresses that are remembered.
const ADDRESSES: usize = 256;
/// Names that one search list makes of another are asked for within that time.
const TOGETHER: Duration = Duration::from_secs(15);
/// A question that comes so much later is another one.
const AGAIN: Duration = Duration::from_secs(60);
/// Somebody who was told a bad address tries it that long before it counts as wrong.
const TRIAL: Duration = Duration::from_secs(5);

/// What was seen, of all devices.
#[derive(Debug, Default)]
pub struct Watch {
    lookups: VecDeque<Lookup>,
    addresses: VecDeque<IpAddr>,
    count: u32,
}

/// A device's question for a name, to whatever resolver and for either kind of address.
#[derive(Debug)]
struct Lookup {
    attempt: u32,
    device: IpAddr,
    resolver: IpAddr,
    name: String,
    asked: Option<Attempts>,
    last: Mark,
    /// Who said no, how (RFC 1035 section 4.1.1), and when.
    refused: Option<(u8, Mark)>,
    /// An answer without addresses: the name exists.
    exists: bool,
    resolved: Option<Mark>,
    /// Was any of its addresses one of the Internet's?
    public: bool,
    /// An address that is none: 0.0.0.0, loopback.
    void: Option<IpAddr>,
    private: Option<IpAddr>,
}

impl Watch {
    /// Takes note of a packet.
    pub fn observe(&mut self, seen: &Observation<'_>) {
        if seen.transport != Transport::Udp || seen.server_port != 53 {
            return;
        }
        let Some(message) = Message::parse(seen.payload) else { return };
        if message.answer == seen.is_outbound()
            || !QUESTION_TYPES.contains(&message.kind)
            || !message.names().any(looks_like_vpn)
        {
            return;
        }
        let known = self.lookups.iter().rposition(|lookup| {
            lookup.device == seen.device
                && lookup.name == message.name
                && seen.at().since(lookup.last.at) < AGAIN
        });
        let lookup = match known.and_then(|at| self.lookups.get_mut(at)) {
            Some(lookup) => lookup,
            None => {
                if self.lookups.len() >= LOOKUPS {
                    self.lookups.pop_front();
                }
                self.count = self.count.wrapping_add(1);
                self.lookups.push_back(Lookup::new(self.count, seen, message.name.clone()));
                self.lookups.back_mut().expect("just pushed")
            }
        };
        lookup.observe(seen, &message);
        for address in message.addresses {
            if !unusable(address) && !self.addresses.contains(&address) {
                if self.addresses.len() >= ADDRESSES {
                    self.addresses.pop_front();
                }
                self.addresses.push_back(address);
            }
        }
    }

    /// What is wrong; here device and server of a finding are to be filled in.
    pub fn findings(&self, context: &Context<'_>, findings: &mut Findings) {
        for lookup in &self.lookups {
            let used = context.household.pairs().any(|pair| {
                pair.device == lookup.device
                    && (pair.since >= lookup.last.at
                        || pair.heard.is_some_and(|heard| heard.at >= lookup.last.at))
            });
            let known = self.lookups.iter().any(|other| lookup.is_known_as(other));
            // A wrong address is used as well: what counts there is whether anything answers.
            let tried = lookup.void.or(lookup.private).and_then(|address| {
                let to = |pair: &&Pair| pair.device == lookup.device && pair.server == address;
                context.household.pairs().find(to).map(|pair| pair.heard.is_some())
            });
            if !known && (tried == Some(false) || tried.is_none() && !used) {
                lookup.findings(context, tried.is_some(), findings);
            }
        }
    }

    /// Is this address likely a VPN server's?
    pub fn names_vpn(&self, server: IpAddr) -> bool {
        self.addresses.contains(&server)
    }
}

impl Lookup {
    fn new(attempt: u32, seen: &Observation<'_>, name: String) -> Self {
        Self {
            attempt,
            device: seen.device,
            resolver: seen.server,
            name,
            asked: None,
            last: seen.mark,
            refused: None,
            exists: false,
            resolved: None,
            public: false,
            void: None,
            private: None,
        }
    }

    fn observe(&mut self, seen: &Observation<'_>, message: &Message) {
        self.last = seen.mark;
        if !message.answer {
            match &mut self.asked {
                Some(asked) => asked.again(seen.mark),
                None => self.asked = Some(Attempts::new(seen.mark)),
            }
            return;
        }
        self.resolver = seen.server;
        match message.code {
            0 if message.addresses.is_empty() => self.exists = true,
            0 => {
                self.resolved = Some(seen.mark);
                for &address in &message.addresses {
                    if void(address) {
                        self.void = Some(address);
                    } else if private(address) {
                        self.private = Some(address);
                    } else {
                        self.public = true;
                    }
                }
            }
            code => self.refused = Some((code, seen.mark)),
        }
    }

    /// Did the device find `other` out, which is the same name, or one that it tries with this one? "vpn.example"
    /// is first asked for as "vpn.example.home" where a search list says so.
    fn is_known_as(&self, other: &Self) -> bool {
        let apart = self.last.at.since(other.last.at).max(other.last.at.since(self.last.at));
        let stem = |long: &str, short: &str| {
            long.strip_prefix(short).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        other.attempt != self.attempt
            && other.device == self.device
            && other.resolved.is_some_and(|mark| mark.at >= self.last.at || apart <= TOGETHER)
            && (stem(&self.name, &other.name) || stem(&other.name, &self.name))
    }

    /// `tried`: the device has tried the address that it was told, and nothing answers there.
    fn findings(&self, context: &Context<'_>, tried: bool, findings: &mut Findings) {
        let waited = context.now.since(self.last.at);
        let (code, sure, evidence) = if let Some(resolved) = self.resolved {
            let (address, sure) = match (self.void, self.private) {
                _ if self.public || !is_public(&self.name) || waited < TRIAL => return,
                (Some(address), _) => (address, Confidence::Medium),
                (None, Some(address)) if tried => (address, Confidence::Medium),
                // Companies answer their own people so.
                (None, Some(address)) => (address, Confidence::Low),
                (None, None) => return,
            };
            let what = format!("{} is said to be {address}", self.name);
            (Code::DnsLies, sure, Evidence::packet(what, resolved))
        } else if let Some((code, mark)) = self.refused {
            // Who asks again soon is told the same again.
            let asked = self.asked.map_or(waited, |asked| context.now.since(asked.first.at));
            let what = match code {
                _ if self.exists || asked < TRIAL => return,
                2 => "could not be looked up (SERVFAIL)",
                3 => "does not exist (NXDOMAIN)",
                _ => "is refused by the resolver",
            };
            (Code::DnsFail, Confidence::Medium, Evidence::packet(format!("{} {what}", self.name), mark))
        } else {
            let asked = self.asked.filter(|asked| asked.sends >= 2 && !self.exists);
            let Some((asked, sure)) = asked.and_then(|asked| Some((asked, asked.unanswered(context.now)?)))
            else {
                return;
            };
            (Code::DnsFail, sure, asked.evidence(format!("asked for {}, no answer", self.name)))
        };
        let since = self.asked.map_or(self.last.at, |asked| asked.first.at);
        let finding = findings.add(code, sure, None, self.attempt, since, vec![evidence]);
        (finding.device, finding.server) = (Some(self.device), Some(self.resolver));
    }
}

/// Does a name look like a VPN server's?
pub(crate) fn looks_like_vpn(name: &str) -> bool {
    const LABELS: [&str; 13] = [
        "vpn",
        "wg",
        "wireguard",
        "ovpn",
        "openvpn",
        "ipsec",
        "ike",
        "ikev2",
        "sstp",
        "l2tp",
        "pptp",
        "sslvpn",
        "remote",
    ];
    name.split('.').any(|label| {
        let stem = label.trim_end_matches(|c: char| c.is_ascii_digit());
        LABELS.contains(&label)
            || LABELS.contains(&stem) && stem != "remote"
            || label.starts_with("vpn-")
            || stem.ends_with("-vpn")
            || label.split('-').any(|word| word == "vpn")
    })
}

/// Is it a name of the Internet's, not one that only the network at home or at work knows (RFC 6762, RFC 8375,
/// RFC 9476)?
fn is_public(name: &str) -> bool {
    const OWN: [&str; 9] =
        ["lan", "local", "home", "internal", "intranet", "corp", "localdomain", "arpa", "test"];
    name.rsplit_once('.').is_some_and(|(_, top)| !OWN.contains(&top))
}

fn void(address: IpAddr) -> bool {
    address.is_unspecified() || address.is_loopback()
}

fn private(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(address) => address.is_private() || address.is_link_local(),
        // Unique local addresses (RFC 4193) and link-local ones.
        IpAddr::V6(address) => matches!(address.octets(), [0xfc | 0xfd, ..] | [0xfe, 0x80..=0xbf, ..]),
    }
}

/// Nothing that is sent there is known to be a VPN's.
fn unusable(address: IpAddr) -> bool {
    void(address) || address.is_multicast()
}

#[cfg(test)]
mod tests;
