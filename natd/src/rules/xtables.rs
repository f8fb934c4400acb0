//! The iptables side of the rules: only the NFQUEUE target, in chains of our own.

use super::{INBOUND_VPN, KIND_MASK, Mark, Queues, Scope, Surroundings};
use crate::order;

/// One of our chains and where it hangs.
struct Chain {
    table: &'static str,
    hook: &'static str,
    name: &'static str,
}

const TABLES: [&str; 2] = ["raw", "mangle"];
const PRE: Chain = Chain { table: "raw", hook: "PREROUTING", name: "NATD-PRE" };
const IN: Chain = Chain { table: "mangle", hook: "INPUT", name: "NATD-IN" };
const POST: Chain = Chain { table: "mangle", hook: "POSTROUTING", name: "NATD-POST" };
const CHAINS: [Chain; 3] = [PRE, IN, POST];
const PROBE: &str = "NATD-PROBE";

/// What of ours `iptables-save` shows: the chains, and the rules that lead to them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Present {
    chains: Vec<&'static str>,
    /// Our chain, and the rule as it follows `-A`.
    jumps: Vec<(&'static str, String)>,
}

impl Present {
    /// Reads the output of `iptables-save`; what is not about our chains is passed over.
    pub fn parse(saved: &str) -> Self {
        let mut present = Self::default();
        let mut table = "";
        for line in saved.lines() {
            let ours =
                |name: &str| CHAINS.iter().find(|c| c.table == table && c.name == name).map(|c| c.name);
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim_end();
            } else if let Some(declared) = line.strip_prefix(':') {
                present.chains.extend(declared.split_whitespace().next().and_then(ours));
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let target = rule.split_whitespace().next_back().and_then(ours);
                present.jumps.extend(target.map(|name| (name, rule.to_owned())));
            }
        }
        present
    }

    /// Is nothing of ours there?
    pub fn is_empty(&self) -> bool {
        self.chains.is_empty() && self.jumps.is_empty()
    }

    /// Is every chain there, and does exactly one rule, ours, lead to each?
    pub fn is_complete(&self) -> bool {
        CHAINS.iter().all(|chain| {
            let mut jumps = self.jumps.iter().filter(|jump| jump.0 == chain.name);
            self.chains.contains(&chain.name)
                && jumps.next().is_some_and(|jump| jump.1 == format!("{} -j {}", chain.hook, chain.name))
                && jumps.next().is_none()
        })
    }
}

pub(super) fn install(s: &Surroundings, present: &Present) -> Vec<String> {
    TABLES
        .iter()
        .map(|table| {
            let ours = || CHAINS.iter().filter(|chain| chain.table == *table);
            let mut lines = vec![format!("*{table}")];
            // Declaring a chain makes it, or empties the one that is there.
            lines.extend(ours().map(|chain| format!(":{} - [0:0]", chain.name)));
            lines.extend(ours().flat_map(|chain| unhook(chain, present)));
            for chain in ours() {
                lines.extend(rules(chain, s).iter().map(|rule| format!("-A {} {rule}", chain.name)));
                lines.push(format!("-A {} -j {}", chain.hook, chain.name));
            }
            commit(lines)
        })
        .collect()
}

pub(super) fn removal(present: &Present) -> Vec<String> {
    TABLES
        .iter()
        .filter_map(|table| {
            let there = |c: &&Chain| c.table == *table && present.chains.contains(&c.name);
            let ours = || CHAINS.iter().filter(there);
            ours().next()?;
            let mut lines = vec![format!("*{table}")];
            lines.extend(ours().flat_map(|chain| unhook(chain, present)));
            lines.extend(
                ours().flat_map(|chain| [format!("-F {}", chain.name), format!("-X {}", chain.name)]),
            );
            Some(commit(lines))
        })
        .collect()
}

/// Text that the kernel refuses when it has no NFQUEUE target. The chain is not hooked anywhere.
pub fn probe_chain() -> String {
    commit(vec![
        "*raw".to_owned(),
        format!(":{PROBE} - [0:0]"),
        format!("-A {PROBE} -j NFQUEUE --queue-num 0"),
    ])
}

/// Text that takes the chain of [`probe_chain`] away.
pub fn probe_chain_removal() -> String {
    commit(vec!["*raw".to_owned(), format!("-F {PROBE}"), format!("-X {PROBE}")])
}

fn unhook(chain: &Chain, present: &Present) -> Vec<String> {
    let leads_here = present.jumps.iter().filter(|jump| jump.0 == chain.name);
    leads_here.map(|jump| format!("-D {}", jump.1)).collect()
}

fn rules(chain: &Chain, s: &Surroundings) -> Vec<String> {
    let queue = queue(s.queues);
    let bits = |bits: u32| format!("-m mark --mark {bits:#010x}/{KIND_MASK:#010x}");
    let marked = |mark: Mark| bits(mark.bits());
    let lan = order::distinct(&s.lan);
    if s.wan_addresses.is_empty() {
        Vec::new()
    } else if chain.name == PRE.name && s.scope == Scope::Vpn {
        vec![format!("{} {queue}", bits(INBOUND_VPN))]
    } else if chain.name == PRE.name {
        let from = std::iter::once(&s.wan).chain(lan);
        from.flat_map(|from| s.wan_addresses.iter().map(move |to| (from, to.addr)))
            .map(|(from, to)| format!("-i {from} -d {to} {queue}"))
            .collect()
    } else if chain.name == IN.name {
        match s.scope {
            Scope::All => vec![format!("{} {queue}", marked(Mark::Unwanted))],
            Scope::Vpn => Vec::new(),
        }
    } else {
        let to_wan =
            [Mark::Forwarded, Mark::Own].map(|mark| format!("-o {} {} {queue}", s.wan, marked(mark)));
        let to_lan = lan.into_iter().map(|lan| format!("-o {lan} {} {queue}", marked(Mark::Hairpin)));
        to_wan.into_iter().chain(to_lan).collect()
    }
}

fn queue(queues: Queues) -> String {
    let Queues { first, last } = queues;
    if first == last {
        format!("-j NFQUEUE --queue-num {first}")
    } else {
        format!("-j NFQUEUE --queue-balance {first}:{last}")
    }
}

fn commit(mut lines: Vec<String>) -> String {
    lines.push("COMMIT\n".to_owned());
    lines.join("\n")
}
