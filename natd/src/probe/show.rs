//! Reports as text and as JSON.

use std::io::{self, Write};

use diagnosis::Party;
use serde::Serialize;

use super::rows::{Found, ProbeReport, Row, Verdict};
use crate::report::diagnosis::Verdict as Outcome;
use crate::report::table::{Edge, Table};

/// What became of a kind of packet, for people.
pub fn result(verdict: Verdict) -> String {
    match verdict {
        Verdict::Lost(Some(0)) => "lost at or just after this machine".to_owned(),
        Verdict::Lost(Some(hop)) => format!("lost at or just after hop {hop}"),
        Verdict::Lost(None) => "lost, hop unknown".to_owned(),
        Verdict::ReachesHop(hop) => format!("reaches hop {hop}"),
        Verdict::Answers
        | Verdict::Reaches
        | Verdict::NotOffered
        | Verdict::Refused
        | Verdict::CannotTell
        | Verdict::NotTried => verdict.key().to_owned(),
    }
}

/// A kind that is settled, in a line.
pub fn line(row: &Row) -> String {
    let gap = if row.note.is_empty() { "" } else { "; " };
    format!("{}: {}{gap}{}", row.kind.name(), result(row.verdict), row.note)
}

fn owners(owner: &[Party]) -> Vec<&'static str> {
    owner.iter().map(|party| party.name()).collect()
}

/// Writes a report as text.
///
/// # Errors
/// As `out` says.
pub fn text(report: &ProbeReport, out: &mut dyn Write) -> io::Result<()> {
    let target = &report.target;
    let name = target.name.as_deref().map_or(String::new(), |name| format!("{name}, "));
    let seconds = report.end.since(report.start).as_secs();
    writeln!(out, "{name}{} from {}, in {seconds} s", target.server, target.local)?;
    if !report.hops.is_empty() {
        let hops: Vec<String> = report.hops.iter().map(|(hop, router)| format!("{hop} {router}")).collect();
        writeln!(out, "hops: {}", hops.join(", "))?;
    }
    writeln!(out)?;
    let columns =
        &[("PROBE", Edge::Left), ("SENT", Edge::Right), ("RESULT", Edge::Left), ("NOTE", Edge::Left)];
    let mut table = Table::new(columns);
    for row in &report.rows {
        table.row(0, &[row.kind.name(), &row.sent.to_string(), &result(row.verdict), &row.note]);
    }
    table.print("", out)?;
    writeln!(out)?;
    report.findings.iter().try_for_each(|found| text_finding(found, out))?;
    out.write_all(closing(report).as_bytes())
}

/// What there is to say where no problem was found.
fn closing(report: &ProbeReport) -> &'static str {
    match (report.outcome(), report.alive) {
        (Outcome::Problem, _) => "",
        (Outcome::Healthy, _) => "Nothing was found that keeps a VPN from working.\n",
        (Outcome::NothingSeen, true) => {
            "The server is there, and answers no kind of VPN that was tried. WireGuard and VPNs with a key of their \
             own for\nthe first packet answer nobody else: whether one of those works cannot be told.\n"
        }
        (Outcome::NothingSeen, false) => {
            "Nothing comes back from there, not even a refusal. The address may be wrong, the server off, the line \
             may drop\nit all, or the server answers only those whose key it knows: that cannot be told.\n"
        }
    }
}

fn text_finding(found: &Found, out: &mut dyn Write) -> io::Result<()> {
    let Found { finding, says, fix } = found;
    let owners = owners(finding.owner).join(" or ");
    let gap = if owners.is_empty() { "" } else { ", " };
    writeln!(
        out,
        "{says}\n  {} ({} confidence{gap}{owners})",
        finding.code.name(),
        finding.confidence.name()
    )?;
    for evidence in &finding.evidence {
        writeln!(out, "  - {}", evidence.what)?;
    }
    writeln!(out, "  To do: {fix}")
}

#[derive(Serialize)]
struct Page<'a> {
    name: Option<&'a str>,
    server: String,
    local: String,
    mtu: u16,
    seconds: u64,
    verdict: Outcome,
    hops: Vec<JsonHop>,
    probes: Vec<JsonRow<'a>>,
    findings: Vec<JsonFinding<'a>>,
}

#[derive(Serialize)]
struct JsonHop {
    hop: u8,
    router: String,
}

#[derive(Serialize)]
struct JsonRow<'a> {
    probe: &'static str,
    sent: u8,
    result: &'static str,
    after_hop: Option<u8>,
    note: &'a str,
}

#[derive(Serialize)]
struct JsonFinding<'a> {
    code: &'static str,
    confidence: &'static str,
    owner: Vec<&'static str>,
    vpn: Option<&'static str>,
    says: &'a str,
    fix: &'a str,
    evidence: Vec<&'a str>,
}

/// Writes reports as one JSON list.
///
/// # Errors
/// As `out` says.
pub fn json(reports: &[ProbeReport], out: &mut dyn Write) -> io::Result<()> {
    let pages: Vec<Page<'_>> = reports.iter().map(page).collect();
    serde_json::to_writer_pretty(&mut *out, &pages)?;
    writeln!(out)
}

fn page(report: &ProbeReport) -> Page<'_> {
    let hop = |(hop, router): &(u8, std::net::IpAddr)| JsonHop { hop: *hop, router: router.to_string() };
    let row = |row: &'_ Row| {
        let after_hop = match row.verdict {
            Verdict::Lost(hop) => hop,
            Verdict::ReachesHop(hop) => Some(hop),
            Verdict::Answers
            | Verdict::Reaches
            | Verdict::NotOffered
            | Verdict::Refused
            | Verdict::CannotTell
            | Verdict::NotTried => None,
        };
        (row.kind.key(), row.sent, row.verdict.key(), after_hop)
    };
    Page {
        name: report.target.name.as_deref(),
        server: report.target.server.to_string(),
        local: report.target.local.to_string(),
        mtu: report.target.mtu,
        seconds: report.end.since(report.start).as_secs(),
        verdict: report.outcome(),
        hops: report.hops.iter().map(hop).collect(),
        probes: report
            .rows
            .iter()
            .map(|each| {
                let (probe, sent, result, after_hop) = row(each);
                JsonRow { probe, sent, result, after_hop, note: &each.note }
            })
            .collect(),
        findings: report.findings.iter().map(finding).collect(),
    }
}

fn finding(found: &Found) -> JsonFinding<'_> {
    let Found { finding, says, fix } = found;
    JsonFinding {
        code: finding.code.name(),
        confidence: finding.confidence.name(),
        owner: owners(finding.owner),
        vpn: finding.vpn.map(|vpn| vpn.name()),
        says,
        fix,
        evidence: finding.evidence.iter().map(|evidence| evidence.what.as_str()).collect(),
    }
}
