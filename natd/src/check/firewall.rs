//! Reads other people's firewall rules: who else translates, offloads flows or binds conntrack helpers?
//!
//! nft's JSON and the text of `iptables-save` become the same small graph of chains and rules, of which only this
//! is kept: does a rule concern packets to the WAN, does it translate, and where does it lead. A condition that is
//! not understood counts as "some packets".

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use serde_json::Value;

use crate::rules::{GUARD_TABLE, InterfaceName, TABLE};

/// How many of the packets from LAN to WAN.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cover {
    /// Some, or it cannot be told.
    Some,
    /// Every one.
    All,
}

/// Somebody else's NAT rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ForeignNat {
    /// The rule's table and chain.
    pub place: String,
    /// How many packets it concerns.
    pub cover: Cover,
}

/// What is known of a firewall.
#[derive(Clone, Debug, Default)]
pub struct Firewall {
    chains: BTreeMap<String, Chain>,
    /// nft's objects "ct helper": table, name and type. nft lists them before the rules.
    helper_objects: Vec<(String, String, String)>,
    /// Where flows are offloaded.
    pub offload: Vec<String>,
    /// Where conntrack helpers are bound, and the helper's name as far as the rule tells it.
    pub helpers: Vec<(String, String)>,
}

#[derive(Clone, Debug, Default)]
struct Chain {
    /// A nat chain at postrouting.
    source_nat: bool,
    rules: Vec<Rule>,
}

#[derive(Clone, Debug, Default)]
struct Rule {
    conditions: Vec<Condition>,
    translates: bool,
    /// Keeps the packets that it matches from later rules without translating them.
    exempts: bool,
    /// Names of chains, each with the interface that leads there if the choice is by interface.
    leads_to: Vec<(Option<String>, String)>,
}

#[derive(Clone, Debug)]
enum Condition {
    To {
        interfaces: Vec<String>,
        negated: bool,
    },
    From {
        prefix: (Ipv4Addr, u8),
        negated: bool,
    },
    /// True for every IPv4 packet.
    Always,
    Unknown,
}

impl Firewall {
    /// Reads `nft -j list ruleset` and outputs of `iptables-save`: of the legacy one everything, of the one on
    /// nf_tables only what nft does not show.
    pub fn read(nft: Option<&str>, [legacy, on_nft]: [Option<&str>; 2]) -> Self {
        let mut firewall = Self::default();
        if let Some(listed) = nft.and_then(|text| serde_json::from_str::<Value>(text).ok()) {
            let objects = listed.get("nftables").and_then(Value::as_array);
            objects.into_iter().flatten().for_each(|object| firewall.read_nft(object));
        }
        if let Some(text) = legacy.filter(|text| !text.contains("(nf_tables)")) {
            firewall.read_saved(text);
        }
        for text in [legacy, on_nft].into_iter().flatten() {
            firewall.read_targets(text);
        }
        firewall
    }

    /// The rules that translate the source of packets from `lan` to `wan`.
    pub fn nat_towards(&self, wan: &InterfaceName, lan: &[(Ipv4Addr, u8)]) -> Vec<ForeignNat> {
        let mut found = Vec::new();
        for (name, chain) in self.chains.iter().filter(|(_, chain)| chain.source_nat) {
            self.walk(name, chain, Cover::All, (wan.as_str(), lan), &mut vec![name.as_str()], &mut found);
        }
        found
    }

    /// Follows `chain`; answers whether it may keep packets from the rules after the jump to it.
    fn walk<'a>(
        &'a self,
        name: &'a str,
        chain: &'a Chain,
        mut cover: Cover,
        household: (&str, &[(Ipv4Addr, u8)]),
        path: &mut Vec<&'a str>,
        found: &mut Vec<ForeignNat>,
    ) -> bool {
        let mut exempted = false;
        for rule in &chain.rules {
            let Some(here) = rule.cover(household.0, household.1) else { continue };
            if rule.translates {
                found.push(ForeignNat { place: name.to_owned(), cover: cover.min(here) });
            }
            let mut exempts = rule.exempts;
            for (interface, target) in &rule.leads_to {
                let leads = interface.as_ref().is_none_or(|pattern| matches_name(pattern, household.0));
                // No ruleset goes deeper than a few jumps, and none leads back to itself.
                let open = !path.contains(&target.as_str()) && path.len() <= 16;
                let Some((target, next)) = self.chains.get_key_value(target).filter(|_| leads && open) else {
                    continue;
                };
                path.push(target);
                exempts |= self.walk(target, next, cover.min(here), household, path, found);
                path.pop();
            }
            if exempts {
                (cover, exempted) = (Cover::Some, true);
            }
        }
        exempted
    }

    fn read_nft(&mut self, object: &Value) {
        let text =
            |value: &Value, key: &str| value.get(key).and_then(Value::as_str).unwrap_or_default().to_owned();
        let place = |value: &Value, chain: &str| {
            format!("table {} {} chain {chain}", text(value, "family"), text(value, "table"))
        };
        let ours = |value: &Value| {
            text(value, "family") == "ip" && [TABLE, GUARD_TABLE].contains(&text(value, "table").as_str())
        };
        let ipv4 = |value: &Value| ["ip", "inet"].contains(&text(value, "family").as_str());
        if let Some(chain) = object.get("chain").filter(|chain| ipv4(chain) && !ours(chain)) {
            let entry = self.chains.entry(place(chain, &text(chain, "name"))).or_default();
            entry.source_nat = text(chain, "type") == "nat" && text(chain, "hook") == "postrouting";
        }
        if let Some(helper) = object.get("ct helper") {
            let [table, name, kind] = ["table", "name", "type"].map(|key| text(helper, key));
            self.helper_objects.push((table, name, kind));
        }
        let Some(rule) = object.get("rule").filter(|rule| !ours(rule)) else { return };
        let here = place(rule, &text(rule, "chain"));
        let statements = rule.get("expr").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let xt =
            |s: &Value, name: &str| s.get("xt").is_some_and(|xt| xt.get("name") == Some(&Value::from(name)));
        if statements.iter().any(|s| s.get("flow").is_some() || xt(s, "FLOWOFFLOAD")) {
            self.offload.push(here.clone());
        }
        if let Some(helper) = statements.iter().find_map(|s| s.get("ct helper")) {
            let object = helper.as_str().unwrap_or_default();
            let named =
                |(of, name, _): &&(String, String, String)| of == &text(rule, "table") && name == object;
            let kind = self.helper_objects.iter().find(named).map_or(object, |(.., kind)| kind);
            self.helpers.push((here.clone(), kind.to_owned()));
        }
        if !ipv4(rule) {
            return;
        }
        let mut read = Rule::default();
        for statement in statements {
            let Some((key, value)) = statement.as_object().and_then(|statement| statement.iter().next())
            else {
                continue;
            };
            match key.as_str() {
                "match" => read.conditions.push(condition(value)),
                "masquerade" | "snat" => read.translates = true,
                "xt" if ["MASQUERADE", "SNAT", "NETMAP"].iter().any(|name| xt(statement, name)) => {
                    read.translates = true;
                }
                "xt" | "limit" | "quota" => read.conditions.push(Condition::Unknown),
                "jump" | "goto" => read.leads_to.push((None, place(rule, &text(value, "target")))),
                "accept" | "return" | "drop" => read.exempts = true,
                "vmap" => {
                    let (by_interface, chains) = choices(value);
                    if !by_interface {
                        read.conditions.push(Condition::Unknown);
                    }
                    read.leads_to.extend(chains.into_iter().map(|(to, chain)| (to, place(rule, &chain))));
                }
                _ => {}
            }
        }
        self.chains.entry(here).or_default().rules.push(read);
    }

    fn read_saved(&mut self, saved: &str) {
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            }
            let Some(rule) = line.strip_prefix("-A ").filter(|_| table == "nat") else { continue };
            let mut words = rule.split_whitespace();
            let place = |chain: &str| format!("iptables table nat chain {chain}");
            let chain = words.next().unwrap_or_default();
            let entry = self.chains.entry(place(chain)).or_default();
            entry.source_nat = chain == "POSTROUTING";
            let mut read = Rule::default();
            let mut negated = false;
            while let Some(word) = words.next() {
                let unset = std::mem::replace(&mut negated, word == "!");
                match word {
                    "!" => {}
                    "-o" => {
                        let name = words.next().unwrap_or_default().replace('+', "*");
                        read.conditions.push(Condition::To { interfaces: vec![name], negated: unset });
                    }
                    "-s" => read.conditions.push(match words.next().and_then(prefix) {
                        Some(prefix) => Condition::From { prefix, negated: unset },
                        None => Condition::Unknown,
                    }),
                    "-j" | "-g" => match words.next().unwrap_or_default() {
                        "MASQUERADE" | "SNAT" | "NETMAP" => {
                            read.translates = true;
                            break;
                        }
                        "ACCEPT" | "RETURN" | "DROP" => {
                            read.exempts = true;
                            break;
                        }
                        target => {
                            read.leads_to.push((None, place(target)));
                            break;
                        }
                    },
                    "--comment" => {
                        skip_quoted(&mut words);
                    }
                    "-m" => {
                        if words.next() != Some("comment") {
                            read.conditions.push(Condition::Unknown);
                        }
                    }
                    _ => read.conditions.push(Condition::Unknown),
                }
            }
            entry.rules.push(read);
        }
    }

    /// What nft's JSON does not tell of an xtables target.
    fn read_targets(&mut self, saved: &str) {
        let mut table = "";
        for line in saved.lines() {
            if let Some(name) = line.strip_prefix('*') {
                table = name.trim();
            } else if let Some(rule) = line.strip_prefix("-A ") {
                let place =
                    || format!("iptables table {table} chain {}", rule.split(' ').next().unwrap_or_default());
                if let (true, Some((_, helper))) = (rule.contains(" -j CT "), rule.split_once(" --helper ")) {
                    let helper = helper.split(' ').next().unwrap_or_default();
                    self.helpers.push((place(), helper.to_owned()));
                }
                if rule.contains(" -j FLOWOFFLOAD") {
                    self.offload.push(place());
                }
            }
        }
    }
}

impl Rule {
    /// How many of the packets from `lan` to `wan` meet the conditions; `None` when none does.
    fn cover(&self, wan: &str, lan: &[(Ipv4Addr, u8)]) -> Option<Cover> {
        let mut cover = Cover::All;
        for condition in &self.conditions {
            match condition {
                Condition::Always => {}
                Condition::Unknown => cover = Cover::Some,
                Condition::To { interfaces, negated } => {
                    if interfaces.iter().any(|pattern| pattern.starts_with('@')) {
                        cover = Cover::Some;
                    } else if interfaces.iter().any(|pattern| matches_name(pattern, wan)) == *negated {
                        return None;
                    }
                }
                Condition::From { prefix, negated } => {
                    let holds =
                        |&(addr, length): &(Ipv4Addr, u8)| length >= prefix.1 && contains(*prefix, addr);
                    let apart = |&(addr, length): &(Ipv4Addr, u8)| {
                        !contains(*prefix, addr) && !contains((addr, length), prefix.0)
                    };
                    let whole = if *negated { lan.iter().all(apart) } else { lan.iter().all(holds) };
                    if lan.is_empty() || !whole {
                        cover = Cover::Some;
                    }
                }
            }
        }
        Some(cover)
    }
}

fn condition(value: &Value) -> Condition {
    let left = |path: [&str; 2]| value.get("left").and_then(|left| left.get(path[0])?.get(path[1])?.as_str());
    let negated = match value.get("op").and_then(Value::as_str) {
        Some("==" | "in") => false,
        Some("!=") => true,
        Some(_) | None => return Condition::Unknown,
    };
    let right = value.get("right").unwrap_or(&Value::Null);
    match (left(["meta", "key"]), left(["payload", "field"])) {
        (Some("oifname" | "oif"), _) => Condition::To { interfaces: strings(right), negated },
        (Some("nfproto"), _) if right == "ipv4" && !negated => Condition::Always,
        (_, Some("saddr")) => match right.get("prefix").and_then(|p| Some((p.get("addr")?, p.get("len")?))) {
            Some((addr, len)) => match (addr.as_str().map(str::parse), len.as_u64().map(u8::try_from)) {
                (Some(Ok(addr)), Some(Ok(length))) => Condition::From { prefix: (addr, length), negated },
                _ => Condition::Unknown,
            },
            None => match right.as_str().and_then(prefix) {
                Some(prefix) => Condition::From { prefix, negated },
                None => Condition::Unknown,
            },
        },
        _ => Condition::Unknown,
    }
}

/// Does a verdict map choose by outgoing interface, and which chains does it lead to, each for which interface?
fn choices(vmap: &Value) -> (bool, Vec<(Option<String>, String)>) {
    let by_interface = vmap.pointer("/key/meta/key").is_some_and(|key| key == "oifname" || key == "oif");
    let pairs = vmap.pointer("/data/set").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let chain = |pair: &Value| {
        let verdict = pair.get(1)?;
        let target = verdict.get("jump").or_else(|| verdict.get("goto"))?.get("target")?.as_str()?;
        let interface = pair.get(0)?.as_str().filter(|_| by_interface);
        Some((interface.map(str::to_owned), target.to_owned()))
    };
    (by_interface, pairs.iter().filter_map(chain).collect())
}

fn strings(value: &Value) -> Vec<String> {
    let list = value.get("set").and_then(Value::as_array).map(Vec::as_slice);
    list.unwrap_or(std::slice::from_ref(value)).iter().filter_map(Value::as_str).map(str::to_owned).collect()
}

fn matches_name(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn prefix(text: &str) -> Option<(Ipv4Addr, u8)> {
    let (addr, length) = text.split_once('/').unwrap_or((text, "32"));
    Some((addr.parse().ok()?, length.parse().ok().filter(|length| *length <= 32)?))
}

fn contains((network, length): (Ipv4Addr, u8), addr: Ipv4Addr) -> bool {
    let mask = u32::MAX.checked_shl(32_u32.saturating_sub(u32::from(length))).unwrap_or(0);
    (network.to_bits() ^ addr.to_bits()) & mask == 0
}

/// Skips one argument that may be quoted and hold spaces.
fn skip_quoted<'a>(words: &mut impl Iterator<Item = &'a str>) {
    let Some(first) = words.next() else { return };
    if first.starts_with('"') && !(first.len() > 1 && first.ends_with('"')) {
        words.find(|word| word.ends_with('"'));
    }
}
