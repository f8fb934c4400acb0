//! Many IPsec clients of one server behind one NAT, simulated with virtual time from seeds.
//!
//! # Theory of operation
//!
//! ```text
//!  32 clients ─ LAN 0.3 ms ─ NAT under test ─ WAN: loss, delay, reordering ─ server
//!  192.168.1.11…             198.51.100.1                                  198.51.100.10
//! ```
//!
//! Hosts ([`peer`], [`host`], [`server`]) speak IKEv1 or IKEv2 and bare ESP as the RFCs and real programs do;
//! packets have real headers, and in place of ciphertext a note ([`wire`]) that only hosts and the judge
//! ([`tally`]) read. The NAT ([`nat::NatUnderTest`]) is natd, one of two references ([`reference`]), or the
//! oracle, which reads the notes too and shows that the hosts are sound.
//!
//! | variable | meaning |
//! |---|---|
//! | `NATD_SIM_SEEDS` | how many seeds, from 1 (default 25) |
//! | `NATD_SIM_SEED` | this seed alone |
//! | `NATD_SIM_NATS` | which NATs, for instance `natd,oldest` (default: all) |
//!
//! The whole: `NATD_SIM_SEEDS=1000 cargo test --release --test sim simulation -- --nocapture`
#![cfg_attr(
    test,
    expect(
        clippy::indexing_slicing,
        clippy::unwrap_used,
        clippy::cast_possible_truncation,
        clippy::wildcard_enum_match_arm,
        reason = "a test that cannot go on may panic"
    )
)]

mod clock;
mod host;
mod nat;
mod natd;
mod net;
mod oracle;
mod peer;
mod reference;
mod server;
mod tally;
mod traffic;
mod wire;
mod world;

use std::env;

use nat::NatUnderTest;
use oracle::Oracle;
use reference::{OldestWaiting, OnePhase2};
use tally::Totals;
use world::Parameters;

type Build = fn() -> Option<Box<dyn NatUnderTest>>;

const NATS: [(&str, Build); 4] = [
    ("natd", natd::natd),
    ("oldest", || Some(Box::<OldestWaiting>::default())),
    ("one-phase-2", || Some(Box::<OnePhase2>::default())),
    ("oracle", || Some(Box::<Oracle>::default())),
];

fn number(variable: &str) -> Option<u64> {
    let text = env::var(variable).ok()?;
    Some(text.parse().unwrap_or_else(|_| panic!("{variable} is a number, not {text:?}")))
}

fn seeds() -> Vec<u64> {
    match number("NATD_SIM_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("NATD_SIM_SEEDS").unwrap_or(25)).collect(),
    }
}

fn run_all(seeds: &[u64], parameters: &Parameters, build: Build) -> Option<Totals> {
    let mut sum = Totals::default();
    for &seed in seeds {
        let mut nat = build()?;
        sum.add(seed, world::run(seed, parameters, nat.as_mut()));
    }
    Some(sum)
}

#[test]
fn simulation() {
    let seeds = seeds();
    let parameters = Parameters::default();
    let wanted = env::var("NATD_SIM_NATS").ok();
    let is_wanted = |name: &str| wanted.as_ref().is_none_or(|wanted| wanted.split(',').any(|n| n == name));
    let mut columns: Vec<(&str, Totals)> = std::thread::scope(|scope| {
        let (seeds, parameters) = (&seeds, &parameters);
        let runs: Vec<_> = NATS
            .iter()
            .filter(|(name, _)| is_wanted(name))
            .map(|&(name, build)| (name, scope.spawn(move || run_all(seeds, parameters, build))))
            .collect();
        runs.into_iter().filter_map(|(name, run)| Some((name, run.join().unwrap()?))).collect()
    });
    println!("{} seeds of: {parameters}\n{}", seeds.len(), tally::table(&mut columns));
    for (name, totals) in &columns {
        match *name {
            "natd" => judge_natd(totals),
            "oracle" => assert_eq!(totals.right, totals.inbound(), "the oracle knows"),
            // Else the judge does not see what it is there to see.
            "oldest" if seeds.len() > 1 => assert!(totals.only_wrong > 0, "a guess is sometimes wrong"),
            _ => {}
        }
        assert_eq!(totals.malformed, 0, "{name}");
    }
}

fn judge_natd(totals: &Totals) {
    let seeds = &totals.seeds_with_wrong;
    assert!(
        seeds.is_empty(),
        "{} packets came only to wrong devices, in {} seeds, among them {:?}; one alone: NATD_SIM_SEED={} \
         NATD_SIM_NATS=natd cargo test --test sim simulation -- --nocapture",
        totals.only_wrong,
        seeds.len(),
        &seeds[..seeds.len().min(20)],
        seeds[0]
    );
    // A NAT that delivers nothing is never wrong either.
    assert!(totals.rekeys_judged() > 0 && totals.right > 0, "nothing was judged");
    assert!(totals.rekeys_in_time() >= 0.99, "{:.3} of rekeys in time", totals.rekeys_in_time());
}

#[test]
fn hosts_behind_a_nat_that_knows_always_work() {
    let build: Build = || Some(Box::new(Oracle { translates_ports: true, ..Oracle::default() }));
    let totals = run_all(&[1, 2, 3, 4, 5], &Parameters::default(), build).unwrap();
    assert_eq!(totals.right, totals.inbound());
    assert_eq!(totals.works_at_end, totals.clients);
    assert_eq!((totals.never_traffic, totals.malformed), (0, 0));
    assert!(totals.rekeys_in_time() > 0.999, "{}", totals.rekeys_in_time());
    assert!(totals.simultaneous > 0 && totals.attempts > 1000);
}

#[test]
fn without_loss_and_restarts_no_tunnel_dies() {
    let parameters = Parameters { calm: true, restarts: false, ..Parameters::default() };
    let totals = run_all(&[1, 2, 3], &parameters, NATS[3].1).unwrap();
    assert_eq!(totals.dials, totals.clients, "nobody dials twice");
    assert_eq!((totals.dead_tunnels, totals.exhausted, totals.nobody), (0, 0, 0));
    assert_eq!(totals.works_at_end, totals.clients);
    assert_eq!((totals.rekeys_in_time(), totals.clean.never), (1.0, 0));
}

#[test]
fn loss_alone_kills_no_tunnel() {
    let parameters = Parameters { restarts: false, ..Parameters::default() };
    let totals = run_all(&[1, 2, 3, 4, 5], &parameters, NATS[3].1).unwrap();
    assert_eq!((totals.dials, totals.dead_tunnels, totals.exhausted), (totals.clients, 0, 0));
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let short = Parameters { duration: std::time::Duration::from_secs(300), ..Parameters::default() };
    let run = || format!("{:?}", run_all(&[7], &short, NATS[1].1));
    assert_eq!(run(), run());
}
