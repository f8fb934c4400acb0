//! conf/natd.toml is what it says: every setting, with its default.

use natd::config::Config;
use natd::config::schema::{TABLES, Times};
use passthrough::settings::{Carrier, Scope, Settings};

const DEFAULTS: &str = include_str!("../conf/natd.toml");

#[test]
fn the_documented_defaults_are_the_defaults() {
    let (config, remarks) = Config::parse(DEFAULTS).unwrap();
    assert_eq!(config, Config::new(["br-lan"], "eth1"));
    assert_eq!(remarks, []);
}

/// All other lines can be removed without changing anything.
#[test]
fn no_line_but_lan_and_wan_matters() {
    for (number, line) in DEFAULTS.lines().enumerate().filter(|(_, line)| line.contains(" = ")) {
        if line.starts_with("lan") || line.starts_with("wan") {
            continue;
        }
        let without: Vec<&str> = DEFAULTS
            .lines()
            .enumerate()
            .filter(|(other, _)| *other != number)
            .map(|(_, line)| line)
            .collect();
        let parsed = Config::parse(&without.join("\n"));
        assert_eq!(parsed, Ok((Config::new(["br-lan"], "eth1"), Vec::new())), "without {line}");
    }
}

#[test]
fn every_setting_is_documented_in_its_table() {
    let mut documented: Vec<(String, String)> = Vec::new();
    let mut table = String::new();
    for line in DEFAULTS.lines().filter_map(setting) {
        match line.split_once(" = ") {
            Some((key, _)) => documented.push((table.clone(), key.to_owned())),
            None => table = line.to_owned(),
        }
    }
    for table in TABLES {
        let header = match table.times {
            Times::Once => format!("[{}]", table.name),
            Times::Many => format!("[[{}]]", table.name),
        };
        for key in table.keys {
            assert!(documented.contains(&(header.clone(), (*key).to_owned())), "{header} {key}");
        }
    }
}

#[test]
fn every_example_works_when_its_comment_signs_are_removed() {
    let blocks = examples();
    assert_eq!(blocks.len(), 4, "{blocks:?}");
    for block in &blocks {
        let text = uncommented(|line| block.contains(&line));
        let (config, remarks) = Config::parse(&text).unwrap_or_else(|problems| panic!("{problems:?}"));
        assert_ne!(config, Config::new(["br-lan"], "eth1"), "lines {block:?} say nothing new");
        assert_eq!(remarks, []);
    }
    let all = Config::parse(&uncommented(|_| true)).unwrap().0;
    assert_eq!(all.policy.forwards.len(), 2);
    assert_eq!(all.passthrough.servers.len(), 1);
}

/// The whole file but for its examples also serves beside the kernel's own NAT.
#[test]
fn the_file_works_in_scope_vpn() {
    let text = DEFAULTS.replace("\nscope = \"all\"", "\nscope = \"vpn\"");
    let (config, _) = Config::parse(&text).unwrap();
    let mut expected = Config::new(["br-lan"], "eth1");
    expected.passthrough.scope = Scope::Vpn;
    assert_eq!(config, expected);
}

/// Whatever a slip of the hand makes of the file, natd answers; and every problem names a line of the file, and comes once.
#[test]
fn no_mutation_of_the_file_makes_the_parser_panic() {
    let seed = std::env::var("NATD_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok())
        .filter(|seed| *seed != 0)
        .unwrap_or(0x6e61_7464);
    println!("NATD_SEED={seed}");
    let mut random = Random(seed);
    let text = uncommented(|_| true);
    let (mut good, mut bad) = (0, 0);
    for round in 0..4000 {
        let mutant = random.mutant(&text);
        let outcome = std::panic::catch_unwind(|| Config::parse(&mutant));
        let Ok(parsed) = outcome else {
            panic!("NATD_SEED={seed}, round {round}: parse panics on\n{mutant}");
        };
        match parsed {
            Ok((config, _)) => {
                good += 1;
                assert!(is_sound(&config), "NATD_SEED={seed}, round {round}: {config:?}");
            }
            Err(problems) => {
                bad += 1;
                assert!(!problems.is_empty(), "NATD_SEED={seed}, round {round}: refused without a reason");
                let lines = mutant.matches('\n').count() + 1;
                let mut told = std::collections::BTreeSet::new();
                for problem in problems {
                    let shown = problem.to_string();
                    assert!(
                        (1..=lines).contains(&problem.line)
                            && !shown.contains('\n')
                            && told.insert(shown.clone()),
                        "NATD_SEED={seed}, round {round}: {shown:?}"
                    );
                }
            }
        }
    }
    // Both must happen often, or the mutations test nothing.
    assert!(good > 100 && bad > 1000, "NATD_SEED={seed}: {good} good, {bad} bad");
}

/// What holds of every `Config` that `parse` gives out.
fn is_sound(config: &Config) -> bool {
    let policy = &config.policy;
    let forwards = &policy.forwards;
    let mut pairs =
        forwards.iter().enumerate().flat_map(|(i, a)| forwards.iter().skip(i + 1).map(move |b| (a, b)));
    (1..=16).contains(&config.lan.len())
        && !config.lan.contains(&config.wan)
        && policy.ports.first() >= 1024
        && policy.ports.count() >= 1024
        && policy.limits.sessions_per_device <= policy.limits.sessions
        && u32::from(config.kernel.queue) + u32::from(config.kernel.queues) <= 65_536
        && is_sound_for_vpns(&config.passthrough)
        && (config.passthrough.scope == Scope::All || policy.exposed_host.is_none())
        && forwards.iter().all(|a| u32::from(a.internal_first) + a.external.count() <= 65_536)
        && pairs.all(|(a, b)| {
            a.protocol != b.protocol
                || a.external.last() < b.external.first()
                || b.external.last() < a.external.first()
        })
}

fn is_sound_for_vpns(settings: &Settings) -> bool {
    let networks = [&settings.ipsec, &settings.pptp, &settings.l2tp]
        .into_iter()
        .flat_map(|access| access.devices.iter().chain(&access.servers));
    let servers = |carrier| settings.servers.iter().filter(|server| server.carrier == carrier).count();
    settings.fan_out <= 8
        && settings.hold.as_secs() <= 5
        && [Carrier::Esp, Carrier::Gre, Carrier::L2tpIp].into_iter().all(|carrier| servers(carrier) <= 1)
        && networks.into_iter().all(|network| network.len <= 32 && network.contains(network.addr))
}

/// A setting or header, commented out or not; `None` for prose and empty lines.
fn setting(line: &str) -> Option<&str> {
    let bare = line.strip_prefix('#').unwrap_or(line);
    bare.starts_with(|first: char| first.is_ascii_lowercase() || first == '[').then_some(bare)
}

/// Line numbers, from 0, of the examples that are commented out, one list for each block.
fn examples() -> Vec<Vec<usize>> {
    let mut blocks: Vec<Vec<usize>> = Vec::new();
    for (number, line) in DEFAULTS.lines().enumerate() {
        if !line.starts_with('#') || setting(line).is_none() {
            continue;
        }
        match blocks.last_mut().filter(|block| block.last() == number.checked_sub(1).as_ref()) {
            Some(block) => block.push(number),
            None => blocks.push(vec![number]),
        }
    }
    blocks
}

/// The file with the comment signs before the wanted example lines removed.
fn uncommented(wanted: impl Fn(usize) -> bool) -> String {
    let lines = DEFAULTS.lines().enumerate().map(|(number, line)| match setting(line) {
        Some(bare) if wanted(number) => bare,
        Some(_) | None => line,
    });
    lines.collect::<Vec<_>>().join("\n")
}

/// A generator of mutations: xorshift64*.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % bound
    }

    fn word(&mut self) -> &'static str {
        const WORDS: [&str; 24] = [
            "\"",
            "'",
            "[",
            "]",
            "[[",
            "{",
            "}",
            "=",
            ",",
            "#",
            ".",
            "\n",
            "\r",
            "\"\"\"",
            "\\u0000",
            "-",
            "0",
            "99999999999999999999",
            "1e9",
            "true",
            "ü",
            "\u{1b}",
            "[nat]",
            "wan = ",
        ];
        WORDS.get(self.below(WORDS.len())).expect("below its length")
    }

    /// `text` with one to six changes.
    fn mutant(&mut self, text: &str) -> String {
        let mut chars: Vec<char> = text.chars().collect();
        for _ in 0..=self.below(6) {
            let at = self.below(chars.len());
            let end = (at + 1 + self.below(40)).min(chars.len());
            match self.below(6) {
                0 => drop(chars.remove(at)),
                1 => drop(chars.drain(at..end)),
                2 => drop(chars.splice(at..at, self.word().chars())),
                3 => {
                    let copy: Vec<char> = chars.iter().take(end).skip(at).copied().collect();
                    let to = self.below(chars.len());
                    chars.splice(to..to, copy);
                }
                4 => {
                    let other = self.below(chars.len());
                    chars.swap(at, other);
                }
                _ => chars.truncate(at.max(chars.len() / 2)),
            }
        }
        chars.into_iter().collect()
    }
}
