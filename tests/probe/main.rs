//! `natd probe` against real VPN servers, over paths on which something is blocked.
//!
//! ```text
//!  d1 … ┬ router (hop 1) ── internet (hop 2) ── s3 (hop 3) ── s2, the server: strongSwan, pptpd, xl2tpd,
//!  d2 … ┘                                                     OpenVPN, openssl s_server
//! ```
//!
//! Nothing translates addresses. Every case has a device of its own and rules that concern that device alone, so all
//! cases run at once.

mod path;

use path::{CASES, Path};

#[test]
fn every_blocked_path_is_told() {
    let Some(path) = Path::start() else { return };
    // strongSwan asks all for cookies, and says nothing of NATs, when many ask at once: two alone first.
    let (first, rest) = CASES.split_at(2);
    let mut results = path.check_all(1, first);
    results.extend(path.check_all(3, rest));
    let wrong: Vec<&String> = results.iter().flat_map(|(_, wrong)| wrong).collect();
    for (text, _) in &results {
        println!("{text}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
