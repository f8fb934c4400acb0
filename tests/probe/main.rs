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
    let results: Vec<(String, Vec<String>)> = std::thread::scope(|scope| {
        let running: Vec<_> = (1..)
            .zip(CASES)
            .map(|(number, case)| {
                let path = &path;
                scope.spawn(move || path.check(number, case))
            })
            .collect();
        running.into_iter().map(|case| case.join().expect("a case does not panic")).collect()
    });
    let wrong: Vec<&String> = results.iter().flat_map(|(_, wrong)| wrong).collect();
    for (text, _) in &results {
        println!("{text}");
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}
