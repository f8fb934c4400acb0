//! The fault lab: what goes wrong on lines, at servers and on devices, with real VPN programs behind natd, and whether
//! `natd diagnose` names it. The faults are what happens out there; they know nothing of how natd finds them.
//!
//! `cargo test` runs each case once; tests/faults.sh runs the whole campaign and prints its tables. Environment:
//!
//! | variable | meaning |
//! |---|---|
//! | `NATD_FAULTS_RUNS` | runs of each case in a campaign, each with its number as its seed (10) |
//! | `NATD_FAULTS_FIRST` | the first seed (1) |
//! | `NATD_FAULTS_JOBS` | runs at one time (8) |
//! | `NATD_FAULTS_SCOPE` | `all`, `vpn`, or `both` in turn |
//! | `NATD_FAULTS_ONLY` | only cases that expect this code or have this in their name; several with commas; `-`: healthy ones |
//! | `NATD_FAULTS_MARKDOWN` | the tables in Markdown |
//! | `NATD_FAULTS_KEEP` | a folder for captures and logs of wrong answers |
//! | `NATD_FAULTS_UNASKED` | natd need not answer: only what the faults do to the VPNs is tested |

mod campaign;
mod case;
mod faults;
mod fine;
mod internet;
mod ipsec;
mod net;
mod pki;
mod plain;
mod ppp;
mod programs;
mod seed;
mod setup;
mod table;

#[test]
fn each_fault_is_named_and_nothing_else() {
    campaign::run(&campaign::Plan::short());
}

#[test]
#[ignore = "takes an hour: tests/faults.sh runs it"]
fn a_campaign() {
    campaign::run(&campaign::Plan::from_environment());
}
