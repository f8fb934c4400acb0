//! Many runs at one time.

use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use testkit::{natd, requirements, vpn};

use crate::case::Case;
use crate::net::Scope;
use crate::setup::Program;
use crate::table::{self, Done};
use crate::{fine, ipsec, plain, ppp};

/// What is run.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    runs: u64,
    first: u64,
    jobs: usize,
    scope: Option<Scope>,
    only: String,
    markdown: bool,
    keep: PathBuf,
    unasked: bool,
    /// A run that is not right is repeated once with another seed, and only that one counts: on a machine that does
    /// much else, a program of the lab's starts too late now and then. The campaign counts everything.
    again: bool,
}

impl Plan {
    /// Each case once. The runs mostly wait: many go at one time.
    pub(crate) fn short() -> Self {
        Self { runs: 1, first: 1, jobs: 16, again: true, ..Self::from_environment() }
    }

    /// As the environment says.
    ///
    /// # Panics
    /// When it says something else.
    pub(crate) fn from_environment() -> Self {
        let text = |name: &str| std::env::var(name).unwrap_or_default();
        let number = |name: &str, otherwise: u64| match text(name).as_str() {
            "" => otherwise,
            text => text.parse().unwrap_or_else(|_| panic!("{name}={text}: should be a number")),
        };
        let scope = match text("NATD_FAULTS_SCOPE").as_str() {
            "all" => Some(Scope::All),
            "vpn" => Some(Scope::Vpn),
            "" | "both" => None,
            other => panic!("NATD_FAULTS_SCOPE={other}: should be all, vpn or both"),
        };
        let keep = match text("NATD_FAULTS_KEEP") {
            none if none.is_empty() => PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("faults"),
            folder => PathBuf::from(folder),
        };
        Self {
            runs: number("NATD_FAULTS_RUNS", 10),
            first: number("NATD_FAULTS_FIRST", 1),
            jobs: usize::try_from(number("NATD_FAULTS_JOBS", 8)).unwrap_or(8).max(1),
            scope,
            only: text("NATD_FAULTS_ONLY"),
            markdown: !text("NATD_FAULTS_MARKDOWN").is_empty(),
            keep,
            unasked: !text("NATD_FAULTS_UNASKED").is_empty(),
            again: false,
        }
    }

    fn wants(&self, case: &Case) -> bool {
        self.only.is_empty()
            || self.only.split(',').any(|only| match only {
                "-" => case.codes.is_empty(),
                only => case.name.contains(only) || case.codes.contains(&only),
            })
    }

    /// The scope of a case's run `number`: both in turn, and not the same for all cases of one number.
    fn scope(&self, case: &Case, index: usize, number: u64) -> Option<Scope> {
        match (self.scope, case.scopes) {
            (Some(scope), scopes) => scopes.contains(&scope).then_some(scope),
            (None, [only]) => Some(*only),
            (None, _) if (index as u64 + number) % 2 == 0 => Some(Scope::All),
            (None, _) => Some(Scope::Vpn),
        }
    }
}

/// Runs it, prints the tables.
///
/// # Panics
/// When what was asked for is not reached.
pub(crate) fn run(plan: &Plan) {
    let all = [
        Program::Ike,
        Program::Vpnc,
        Program::Pptp,
        Program::L2tp,
        Program::OpenVpn,
        Program::WireGuard,
        Program::Tls,
        Program::None,
    ];
    let programs: Vec<_> = all.into_iter().flat_map(Program::programs).collect();
    if !requirements::met_with(&programs) {
        return;
    }
    // Built once, before many threads want it.
    let _ = (natd::binary(), vpn::ppp::program(), crate::pki::folder());
    let cases = [ipsec::cases(), ppp::cases(), plain::cases(), fine::cases()].concat();
    let mut work = Vec::new();
    for number in plan.first..plan.first + plan.runs {
        for (index, case) in cases.iter().enumerate().filter(|(_, case)| plan.wants(case)) {
            work.extend(plan.scope(case, index, number).map(|scope| (index, number, scope)));
        }
    }
    assert!(!work.is_empty(), "no case has {:?}", plan.only);
    let (next, done) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    std::thread::scope(|threads| {
        for _ in 0..plan.jobs.min(work.len()) {
            threads.spawn(|| {
                while let Some(&(index, number, scope)) = work.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let Some(case) = cases.get(index) else { continue };
                    let mut verdict = case.run(number, scope, &plan.keep);
                    if plan.again && !verdict.is_right() {
                        println!("{} was not right and is run again: {verdict:?}", case.name);
                        verdict = case.run(number + 100, scope, &plan.keep);
                    }
                    let mut done = done.lock().unwrap_or_else(PoisonError::into_inner);
                    done.push(Done { case: index, verdict });
                    tell(case, number, scope, done.last(), (done.len(), work.len()));
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(PoisonError::into_inner);
    let report = table::report(&cases, &done, plan.markdown);
    println!("\n{}", report.text);
    if plan.unasked {
        let failed = done.iter().filter(|done| done.verdict.trouble.is_some()).count();
        assert_eq!(failed, 0, "runs in which the lab failed");
        return;
    }
    assert!(report.good, "not what is asked for; captures and logs are in {}", plan.keep.display());
}

/// One line for a run.
fn tell(case: &Case, number: u64, scope: Scope, done: Option<&Done>, (count, all): (usize, usize)) {
    let Some(Done { verdict, .. }) = done else { return };
    let mark = match (&verdict.trouble, verdict.code_right, verdict.owner_right) {
        (Some(_), ..) => "LAB  ",
        (None, ..) if verdict.first == "?" => "     ",
        (None, true, true) => "ok   ",
        (None, true, false) => "OWNER",
        (None, false, _) => "WRONG",
    };
    let trouble = verdict.trouble.as_deref().unwrap_or("");
    let said: String =
        if trouble.is_empty() { verdict.said.chars().take(200).collect() } else { trouble.to_owned() };
    println!(
        "[{count}/{all}] {mark} {} (seed {number}, {}, {} s): {} | {}",
        case.name,
        scope.name(),
        verdict.seconds,
        verdict.first,
        said.trim().replace('\n', " ")
    );
}
