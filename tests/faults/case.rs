//! What a case is, and how one run of it goes.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

use diagnosis::{Code, Group};
use testkit::clock::{self, holds_within};
use testkit::{Background, Node, vpn};

use crate::internet::Internet;
use crate::net::{C1, Net, Scope, Upstream};
use crate::programs::{self, Running};
use crate::seed::Seed;
use crate::setup::{Program, Setup};

/// When the fault begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum When {
    /// Before anything is sent.
    Start,
    /// After the tunnel was up for a while.
    Up,
}

/// How a run shows that the lab did what the case says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Proof {
    /// The device reaches nothing through its VPN.
    Broken,
    /// It does, and so does the second device.
    Works,
    /// Small packets pass, large ones do not.
    OnlySmall,
    /// The server does not reach the device.
    NoPush,
    /// `openssl s_client` got no answer.
    NoTls,
    /// There is nothing that could work.
    None,
}

/// One fault, or one healthy scenario.
#[derive(Clone, Copy)]
pub(crate) struct Case {
    pub(crate) name: &'static str,
    /// The codes that are right as the first; none: any finding is wrong.
    pub(crate) codes: &'static [&'static str],
    /// Who is right as the first to blame.
    pub(crate) owners: &'static [&'static str],
    /// A code of group note that has to be there as well.
    pub(crate) note: Option<&'static str>,
    pub(crate) vpn: Program,
    pub(crate) scopes: &'static [Scope],
    pub(crate) upstream: Upstream,
    /// Lines of natd's section `[nat]`, and further sections.
    pub(crate) natd: (&'static str, &'static str),
    /// Does a second device use the same server, and does it dial first?
    pub(crate) second: Option<Order>,
    pub(crate) prepare: fn(&mut Setup, &mut Seed),
    pub(crate) when: When,
    pub(crate) inject: fn(&mut Run),
    /// Seconds from the fault, or the first dial, to the question.
    pub(crate) patience: (u64, u64),
    pub(crate) proof: Proof,
}

/// When the second device dials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Order {
    First,
    Any,
}

/// Both of natd's scopes.
pub(crate) const BOTH: &[Scope] = &[Scope::All, Scope::Vpn];

/// A fault whose code has the first of `codes` as its name.
pub(crate) const fn fault(
    name: &'static str,
    codes: &'static [&'static str],
    owners: &'static [&'static str],
    vpn: Program,
) -> Case {
    Case {
        name,
        codes,
        owners,
        note: None,
        vpn,
        scopes: BOTH,
        upstream: Upstream::No,
        natd: ("", ALL_ON),
        second: None,
        prepare: |_, _| {},
        when: When::Start,
        inject: |_| {},
        patience: (25, 40),
        proof: Proof::Broken,
    }
}

/// A healthy scenario.
pub(crate) const fn healthy(name: &'static str, vpn: Program) -> Case {
    Case { patience: (18, 30), proof: Proof::Works, ..fault(name, &[], &[], vpn) }
}

const ALL_ON: &str = "[passthrough]\npptp = true";

/// What came of a run.
#[derive(Clone, Debug, Default)]
pub(crate) struct Verdict {
    /// The first finding that counts, `-` for none, `?` when natd did not answer.
    pub(crate) first: String,
    pub(crate) code_right: bool,
    pub(crate) owner_right: bool,
    /// The lab itself failed: the fault did not show, or a program did not start.
    pub(crate) trouble: Option<String>,
    /// All that natd said.
    pub(crate) said: String,
    pub(crate) seconds: u64,
}

impl Verdict {
    /// Code and owner are right, and the lab worked.
    pub(crate) const fn is_right(&self) -> bool {
        self.trouble.is_none() && self.code_right && self.owner_right
    }
}

/// One run under way.
pub(crate) struct Run {
    pub(crate) net: Net,
    pub(crate) seed: Seed,
    pub(crate) setup: Setup,
    pub(crate) server: Running,
    pub(crate) client: Running,
    pub(crate) neighbour: Running,
    pub(crate) more: Vec<Background>,
    /// What a fault keeps until the run ends.
    pub(crate) kept: Vec<Box<dyn Send>>,
    pub(crate) vpn: Program,
}

impl Case {
    /// Runs it once. What `keep` names gets the captures and logs of a wrong answer.
    pub(crate) fn run(&self, number: u64, scope: Scope, keep: &Path) -> Verdict {
        let start = clock::now();
        let done = catch_unwind(AssertUnwindSafe(|| self.attempt(number, scope, keep)));
        let mut verdict = done.unwrap_or_else(|panic| {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned()));
            Verdict {
                first: "?".to_owned(),
                trouble: text.or(Some("panic".to_owned())),
                ..Verdict::default()
            }
        });
        verdict.seconds = start.elapsed().as_secs();
        verdict
    }

    fn attempt(&self, number: u64, scope: Scope, keep: &Path) -> Verdict {
        let mut seed = Seed::new(number, self.name);
        let mut setup = Setup::healthy(&mut seed);
        (self.prepare)(&mut setup, &mut seed);
        let mut net = Net::build(self.upstream, &mut seed);
        net.start_natd(scope, self.natd.0, self.natd.1);
        net.record();
        programs::wireguard_keys(&net);
        let mut run = Run {
            net,
            seed,
            setup,
            server: Running::default(),
            client: Running::default(),
            neighbour: Running::default(),
            more: Vec::new(),
            kept: Vec::new(),
            vpn: self.vpn,
        };
        let internet = Internet::start(&run.net, run.setup.dns, &mut run.seed);
        run.seed.wait(200, 2500);
        let shown = catch_unwind(AssertUnwindSafe(|| run.play(self)));
        let trouble = match shown {
            Ok(shown) => shown.err(),
            Err(panic) => Some(
                panic
                    .downcast_ref::<String>()
                    .cloned()
                    .unwrap_or_else(|| "a program did not start".to_owned()),
            ),
        };
        let mut verdict = self.ask(&run);
        verdict.trouble = trouble;
        if !verdict.is_right() {
            let folder = keep.join(format!(
                "{}-{}-{number}",
                self.name.replace(|letter: char| !letter.is_alphanumeric(), "-"),
                scope.name()
            ));
            run.net.keep(&folder);
            let text = format!("{verdict:#?}\n{:#?}\n", run.setup);
            // Without it there are still the captures.
            let _ = std::fs::write(folder.join("verdict.txt"), text);
        }
        drop(internet);
        verdict
    }

    /// Asks natd, as someone would whose VPN does not work.
    fn ask(&self, run: &Run) -> Verdict {
        let device = C1.to_string();
        let mut words = vec!["diagnose", "--json"];
        if !self.codes.is_empty() {
            words.extend(["--device", &device]);
        }
        let outcome = run.net.natd().command(&words);
        let Ok(value) = serde_json::from_str::<serde_json::Value>(&outcome.stdout) else {
            let said = format!("{} {}", outcome.stdout, outcome.stderr);
            return Verdict { first: "?".to_owned(), said, ..Verdict::default() };
        };
        self.judge(&value)
    }

    fn judge(&self, value: &serde_json::Value) -> Verdict {
        let mut said = String::new();
        let mut first: Option<(String, String)> = None;
        let mut noted = self.note.is_none();
        for finding in value.get("findings").and_then(|all| all.as_array()).into_iter().flatten() {
            let text = |key: &str| finding.get(key).and_then(|text| text.as_str()).unwrap_or("").to_owned();
            let code = text("code");
            let owner = finding.get("owner").and_then(|all| all.get(0)).and_then(|one| one.as_str());
            let owner = owner.unwrap_or("").to_owned();
            let overcome = finding.get("overcome").and_then(serde_json::Value::as_bool).unwrap_or(false);
            let note = Code::ALL
                .iter()
                .find(|known| known.name() == code)
                .is_some_and(|known| known.group() == Group::Note);
            // Writing into a string does not fail.
            let _ = write!(said, "{code}({owner}{}) ", if overcome { ", overcome" } else { "" });
            noted |= self.note == Some(code.as_str());
            if first.is_none() && !overcome && !note {
                first = Some((code, owner));
            }
        }
        let (first, owner) = first.unwrap_or_else(|| ("-".to_owned(), String::new()));
        let code_right = match self.codes {
            [] => first == "-",
            codes => codes.contains(&first.as_str()),
        };
        let owner_right = self.owners.is_empty() || self.owners.contains(&owner.as_str());
        Verdict { first, code_right: code_right && noted, owner_right, said, ..Verdict::default() }
    }
}

impl Run {
    fn play(&mut self, case: &Case) -> Result<(), String> {
        if self.setup.served && self.setup.late == 0 {
            self.server = programs::server(self.vpn, &self.net, &self.setup);
        }
        if case.when == When::Start {
            (case.inject)(self);
        }
        let neighbour_first = match case.second {
            Some(Order::First) => true,
            Some(Order::Any) => self.seed.coin(),
            None => false,
        };
        if neighbour_first {
            self.start_neighbour();
        }
        self.dial();
        self.use_tunnel(self.net.c1.clone());
        let start = clock::now();
        if self.setup.late > 0 {
            clock::pause(Duration::from_secs(self.setup.late));
            self.net.server.run(&["nft", "flush", "ruleset"]);
            self.server = programs::server(self.vpn, &self.net, &self.setup);
        }
        if case.second.is_some() && !neighbour_first {
            self.seed.wait(500, 3000);
            self.start_neighbour();
        }
        let mut patience = Duration::from_secs(self.seed.between(case.patience.0, case.patience.1));
        if case.when == When::Up {
            if !holds_within(Duration::from_secs(25), || passes(&self.net.c1)) {
                return Err("the tunnel did not come up before the fault".to_owned());
            }
            self.seed.wait(2000, 6000);
            (case.inject)(self);
            patience += start.elapsed();
        }
        clock::pause(patience.saturating_sub(start.elapsed()));
        self.prove(case)
    }

    /// c1's client dials.
    pub(crate) fn dial(&mut self) {
        self.client = programs::client(self.vpn, &self.net, &self.net.c1, &self.setup);
    }

    fn start_neighbour(&mut self) {
        let setup = self.setup.of_neighbour();
        let node = self.net.c3.clone();
        self.neighbour = programs::client(self.vpn, &self.net, &node, &setup);
        self.use_tunnel(node.clone());
        let up = holds_within(Duration::from_secs(25), || passes(&node));
        assert!(up, "the second device's VPN does not come up");
    }

    /// A program that uses the tunnel.
    fn use_tunnel(&mut self, node: Node) {
        if self.setup.pings == 0 {
            return;
        }
        let pause = self.setup.pings;
        let line = format!(
            "while :; do ping -n -c1 -W1 {} >/dev/null 2>&1; sleep {}.{:03}; done",
            vpn::INNER,
            pause / 1000,
            pause % 1000
        );
        self.more.push(node.spawn(&["sh", "-c", &line]));
    }

    fn prove(&self, case: &Case) -> Result<(), String> {
        let works = || holds_within(Duration::from_secs(3), || passes(&self.net.c1));
        let shown = match case.proof {
            Proof::Broken => !passes(&self.net.c1),
            Proof::Works => works(),
            Proof::OnlySmall => works() && !passes_large(&self.net.c1),
            Proof::NoPush => !self.server_reaches_device(),
            Proof::NoTls => {
                let log: String = self.client.programs.iter().map(Background::log).collect();
                !log.contains("HTTP/1.0 200")
            }
            Proof::None => true,
        };
        if !shown {
            return Err(format!("the VPN does not show what was to be shown: {:?}", case.proof));
        }
        if case.second.is_some() && !holds_within(Duration::from_secs(3), || passes(&self.net.c3)) {
            return Err("the second device's VPN does not work".to_owned());
        }
        Ok(())
    }

    /// The inner address of c1, from its server's view.
    pub(crate) fn inner_address(&self) -> Option<Ipv4Addr> {
        let listed = self.net.c1.run(&["ip", "-4", "-o", "addr"]).stdout;
        listed
            .split_whitespace()
            .filter_map(|word| word.split('/').next()?.parse::<Ipv4Addr>().ok())
            .find(|address| address.octets().starts_with(&[10, 9]) || address.octets().starts_with(&[10, 8]))
    }

    fn server_reaches_device(&self) -> bool {
        let Some(inner) = self.inner_address() else { return false };
        let (from, to) = (vpn::INNER.to_string(), inner.to_string());
        self.net.server.run(&["ping", "-n", "-c1", "-W2", "-I", &from, &to]).success()
    }

    /// The server sends something into the tunnel by itself now and then.
    pub(crate) fn server_pushes(&mut self, pause: u64) {
        let Some(inner) = self.inner_address() else { return };
        let line = format!(
            "while :; do ping -n -c1 -W1 -I {} {inner}; sleep {pause}; done >/dev/null 2>&1",
            vpn::INNER
        );
        self.more.push(self.net.server.spawn(&["sh", "-c", &line]));
    }
}

/// Does a ping pass through the tunnel of `node`?
pub(crate) fn passes(node: &Node) -> bool {
    node.run(&["ping", "-n", "-c1", "-W1", &vpn::INNER.to_string()]).success()
}

fn passes_large(node: &Node) -> bool {
    node.run(&["ping", "-n", "-c2", "-W1", "-s", "1200", &vpn::INNER.to_string()]).success()
}
