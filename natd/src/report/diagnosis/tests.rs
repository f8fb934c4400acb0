use std::net::Ipv4Addr;
use std::time::Duration;

use diagnosis::{Confidence, Settings};
use passthrough::view::{Phase, Vpn};

use super::*;

/// 2026-11-22 12:00:00 UTC.
const NOON: i64 = 1_795_348_800_000;

fn shown(report: &DiagnosisReport) -> String {
    let mut out = Vec::new();
    text(report, &|_| 3600, &mut out).unwrap();
    String::from_utf8(out).unwrap()
}

fn packet(seconds: i64, packet: u64) -> Option<PacketRow> {
    Some(PacketRow { time_ms: NOON + seconds * 1000, packet })
}

fn evidence(what: &str, count: u64, first: Option<PacketRow>, last: Option<PacketRow>) -> EvidenceRow {
    EvidenceRow { what: what.into(), count, first, last }
}

fn finding(code: &str, group: &str) -> FindingRow {
    FindingRow {
        code: code.into(),
        group: group.into(),
        confidence: "medium".into(),
        owner: vec!["line".into(), "server".into()],
        vpn: Some("IKE".into()),
        device: Some("192.168.1.11".into()),
        server: Some("198.51.100.10".into()),
        attempt: 1,
        since_ms: NOON,
        says: "The first messages of the VPN go out, but nothing comes back.".into(),
        fix:
            "Try it from another network, such as a phone's hotspot. If it works there, this line blocks it."
                .into(),
        ..FindingRow::default()
    }
}

fn session(device: &str, vpn: &str, attempt: u32, phase: &str) -> SessionRow {
    SessionRow {
        vpn: vpn.into(),
        device: device.into(),
        server: "198.51.100.10".into(),
        attempt,
        phase: phase.into(),
        duration_secs: 7440,
        packets_out: 20,
        packets_in: 1000,
        bytes_out: 4096,
        bytes_in: 1_300_000,
        ..SessionRow::default()
    }
}

#[test]
fn a_person_reads_the_sentence_first_then_whom_to_ask_then_what_shows_it() {
    let silent = FindingRow {
        key: Some("passthrough.ipsec".into()),
        windows: vec![809],
        evidence: vec![
            evidence("sent to UDP 500, no answer", 4, packet(-9, 17), packet(-1, 31)),
            evidence("the answer of a stranger\u{1b}[2J", 1, packet(-86_400, 3), packet(-86_400, 3)),
            evidence("the WAN is up", 0, None, None),
        ],
        ..finding("IKE-500-NO-REPLY", "silence")
    };
    let report = DiagnosisReport {
        time_ms: NOON,
        asked_of: None,
        verdict: Verdict::Problem,
        packets: 1234,
        sessions: vec![
            session("192.168.1.11", "IKE", 1, "handshake"),
            session("192.168.1.12", "IPsec NAT-T", 1, "data"),
            SessionRow {
                reason: Some("closed by the device".into()),
                ..session("192.168.1.12", "PPTP", 1, "closed")
            },
        ],
        findings: vec![
            silent.clone(),
            FindingRow { attempt: 2, ..silent },
            FindingRow {
                overcome: true,
                device: Some("192.168.1.12".into()),
                ..finding("IKE-4500-NO-REPLY", "silence")
            },
            FindingRow { device: None, server: None, vpn: None, ..finding("DOUBLE-NAT", "note") },
        ],
        blind: vec![
            Blind { wants: "natd running on the router".into(), codes: vec!["WAN-DOWN".into(); 12] },
            Blind { wants: "the devices' DNS answers".into(), codes: vec!["DNS-FAIL".into()] },
        ],
    };
    let expected = "\
192.168.1.11 → 198.51.100.10 (IKE): The first messages of the VPN go out, but nothing
  comes back.
  to blame    the line or its provider, or the VPN server; likely (IKE-500-NO-REPLY)
  what to do  Try it from another network, such as a phone's hotspot. If it works there,
              this line blocks it.
  setting     passthrough.ipsec in natd's configuration
  Windows     may show error 809
  how often   2 attempts
  seen        12:59:51 to 12:59:59  sent to UDP 500, no answer  [4 packets, 17 to 31]
              2026-11-21 13:00:00   the answer of a stranger?[2J  [packet 3]
                                    the WAN is up

192.168.1.12 → 198.51.100.10 (IPsec NAT-T): works (data) for 2h04m, 4.0 KiB sent, 1.2 MiB received
192.168.1.12 → 198.51.100.10 (PPTP): over (closed by the device) after 2h04m, 4.0 KiB sent, 1.2 MiB received

Earlier, and over by now:
  192.168.1.12 → 198.51.100.10 (IKE): The first messages of the VPN go out, but nothing
    comes back. (IKE-4500-NO-REPLY)

Worth knowing, no problem by itself:
  All devices: The first messages of the VPN go out, but nothing comes back.
    (DOUBLE-NAT)

Not visible from here, and so not ruled out: causes that need natd running on the router
  (12); the devices' DNS answers (1). `--json` names them.
";
    assert_eq!(shown(&report), expected);
}

#[test]
fn a_later_attempt_that_works_is_shown_to_work() {
    let report = DiagnosisReport {
        time_ms: NOON,
        sessions: vec![
            session("192.168.1.11", "IKE", 1, "closed"),
            session("192.168.1.11", "IPsec NAT-T", 2, "data"),
        ],
        findings: vec![FindingRow { overcome: true, ..finding("IKE-500-NO-REPLY", "silence") }],
        ..DiagnosisReport::default()
    };
    let text = shown(&report);
    let works =
        "192.168.1.11 → 198.51.100.10 (IPsec NAT-T): works (data) for 2h04m, 4.0 KiB sent, 1.2 MiB received";
    assert_eq!(text.lines().next(), Some(works));
    assert!(!text.contains("over after") && !text.contains("to blame"), "{text}");
    assert_eq!(report.judge(), Verdict::Healthy);
}

#[test]
fn nothing_seen_is_said_so() {
    let report = DiagnosisReport { packets: 5, ..DiagnosisReport::default() };
    let expected = "No VPN was seen in 5 packets. Let the device connect, and look again.\n";
    assert_eq!(shown(&report), expected);
    assert_eq!(report.judge(), Verdict::NothingSeen);
    let report = DiagnosisReport { asked_of: Some([192, 168, 1, 50].into()), packets: 1, ..report };
    let expected = "No VPN of 192.168.1.50 was seen in 1 packet. Let the device connect, and look again.\n";
    assert_eq!(shown(&report), expected);
}

#[test]
fn a_session_that_is_being_set_up_is_not_called_healthy_yet() {
    let mut report = DiagnosisReport {
        sessions: vec![session("192.168.1.11", "IKE", 1, "handshake")],
        ..DiagnosisReport::default()
    };
    assert_eq!(report.judge(), Verdict::NothingSeen);
    let text = shown(&report);
    assert!(text.starts_with("192.168.1.11 → 198.51.100.10 (IKE): is being set up, 2h04m,"), "{text}");
    // Nor is one of which only one side was heard.
    report.sessions = vec![SessionRow { packets_in: 0, ..session("192.168.1.12", "IKE", 1, "data") }];
    assert_eq!(report.judge(), Verdict::NothingSeen);
    assert!(shown(&report).contains(" (IKE): seen one way only, 2h04m,"));
    report.sessions.push(session("192.168.1.12", "IKE", 1, "established"));
    assert_eq!(report.judge(), Verdict::Healthy);
}

#[test]
fn dates_are_those_of_the_calendar() {
    for (days, expected) in
        [(0, (1970, 1, 1)), (59, (1970, 3, 1)), (11_016, (2000, 2, 29)), (20_779, (2026, 11, 22))]
    {
        let report = DiagnosisReport {
            findings: vec![FindingRow {
                evidence: vec![evidence("x", 1, Some(day(days)), Some(day(days)))],
                ..finding("WAN-DOWN", "line")
            }],
            time_ms: i64::MAX / 1000,
            ..DiagnosisReport::default()
        };
        let (year, month, date) = expected;
        assert!(shown(&report).contains(&format!(" {year}-{month:02}-{date:02} 01:00:00  x")), "{days}");
    }
    fn day(days: i64) -> PacketRow {
        PacketRow { time_ms: days * 86_400_000, packet: 1 }
    }
}

#[test]
fn narrowing_down_to_servers_keeps_what_is_about_all() {
    let other = FindingRow { server: Some("203.0.113.9".into()), ..finding("SERVER-DOWN", "refusal") };
    let everywhere = FindingRow { server: None, ..finding("DOUBLE-NAT", "note") };
    let mut report = DiagnosisReport {
        sessions: vec![session("192.168.1.11", "IKE", 1, "data")],
        findings: vec![other, everywhere.clone()],
        verdict: Verdict::Problem,
        ..DiagnosisReport::default()
    };
    report.narrow(&["198.51.100.10".parse().unwrap(), "2001:db8::9".parse().unwrap()]);
    assert_eq!((report.findings.as_slice(), report.verdict), (&[everywhere][..], Verdict::Healthy));
    report.narrow(&[Ipv4Addr::LOCALHOST.into()]);
    assert_eq!((report.sessions.len(), report.verdict), (0, Verdict::NothingSeen));
}

#[test]
fn a_name_that_was_not_found_is_told_whichever_server_is_meant() {
    let unknown = FindingRow {
        server: Some("192.168.1.1".into()),
        vpn: None,
        evidence: vec![
            evidence("vpn.example.com does not exist (NXDOMAIN)", 1, packet(0, 4), packet(0, 4)),
            evidence("natd refused it: pptp-off", 3, packet(0, 0), packet(1, 0)),
        ],
        ..finding("DNS-FAIL", "line")
    };
    let mut report = DiagnosisReport { time_ms: NOON, findings: vec![unknown], ..DiagnosisReport::default() };
    report.narrow(&[]);
    assert_eq!((report.findings.len(), report.verdict), (1, Verdict::Problem));
    let shown = shown(&report);
    assert!(shown.starts_with("192.168.1.11, asking 192.168.1.1: "), "{shown}");
    assert!(shown.contains("13:00:00 to 13:00:01  natd refused it: pptp-off  [3 packets]\n"), "{shown}");
}

#[test]
fn rows_tell_the_vocabulary_in_its_names_and_in_unix_time() {
    let clock = Clock { now: Timestamp::from_secs(30), unix: NOON * 1000 };
    let mark = |secs, number| Mark { at: Timestamp::from_secs(secs), number };
    let finding = Finding {
        code: Code::Ike500NoReply,
        confidence: Confidence::High,
        owner: &[diagnosis::Party::Line],
        vpn: Some(Vpn::Ike),
        device: Some(Ipv4Addr::new(192, 168, 1, 11).into()),
        server: None,
        attempt: 3,
        since: Timestamp::from_secs(10),
        overcome: false,
        evidence: vec![Evidence::packets("sent to UDP 500", 4, mark(10, 1), mark(20, 9))],
    };
    let row = clock.finding(&finding);
    let first = PacketRow { time_ms: NOON + 10_000, packet: 1 };
    let last = PacketRow { time_ms: NOON + 20_000, packet: 9 };
    let expected = FindingRow {
        code: "IKE-500-NO-REPLY".into(),
        group: "silence".into(),
        confidence: "high".into(),
        owner: vec!["line".into()],
        vpn: Some("IKE".into()),
        device: Some("192.168.1.11".into()),
        server: None,
        attempt: 3,
        since_ms: NOON + 10_000,
        overcome: false,
        says: words(Code::Ike500NoReply).says.into(),
        fix: words(Code::Ike500NoReply).fix.into(),
        key: None,
        windows: windows(Code::Ike500NoReply).to_vec(),
        evidence: vec![evidence("sent to UDP 500", 4, Some(first), Some(last))],
    };
    assert_eq!(row, expected);
    let json = serde_json::to_string(&row).unwrap();
    assert_eq!(serde_json::from_str::<FindingRow>(&json).unwrap(), row);

    let session = Session {
        vpn: Vpn::NatTraversal,
        device: Ipv4Addr::new(192, 168, 1, 11).into(),
        server: "2001:db8::9".parse().unwrap(),
        attempt: 2,
        phase: Phase::Closed,
        reason: "no answer",
        since: Timestamp::from_secs(5),
        last_seen: Timestamp::from_secs(21),
        packets: [1, 2],
        bytes: [3, 4],
    };
    let row = clock.session(&session);
    assert_eq!(
        (row.vpn.as_str(), row.server.as_str(), row.phase.as_str()),
        ("IPsec NAT-T", "2001:db8::9", "closed")
    );
    assert_eq!((row.reason.as_deref(), row.since_ms), (Some("no answer"), NOON + 5000));
    assert_eq!((row.duration_secs, row.idle_secs), (16, 9));
    assert_eq!((row.packets_out, row.packets_in, row.bytes_out, row.bytes_in), (1, 2, 3, 4));
}

#[test]
fn every_setting_that_is_named_exists() {
    let known: Vec<String> = crate::config::schema::TABLES
        .iter()
        .flat_map(|table| table.keys.iter().map(move |key| format!("{}.{key}", table.name)))
        .collect();
    let vpns = [Vpn::Esp, Vpn::Gre, Vpn::L2tpV3, Vpn::Pptp, Vpn::Ike];
    let mut named = 0;
    for key in Code::ALL.iter().flat_map(|code| vpns.map(|vpn| key(*code, Some(vpn)))).flatten() {
        assert!(known.iter().any(|known| known == key), "{key}");
        named += 1;
    }
    assert!(named > 20);
}

#[test]
fn an_empty_household_has_seen_nothing_and_says_what_it_is_blind_to() {
    let vantage = Vantage { lan: true, wan: true, router: false, dns: true };
    let settings = Settings {
        lan: Vec::new(),
        pairs: 16,
        memory: Duration::from_secs(600),
        vantage,
        servers: Vec::new(),
        events: false,
    };
    let report =
        DiagnosisReport::of(&Household::new(settings), Timestamp::from_secs(7), 1_000_000, None, None);
    assert_eq!((report.time_ms, report.verdict, report.packets), (8000, Verdict::NothingSeen, 0));
    let wants: Vec<&str> = report.blind.iter().map(|group| group.wants.as_str()).collect();
    let sights =
        [diagnosis::code::Sight::Router, diagnosis::code::Sight::Nowhere, diagnosis::code::Sight::Asking];
    assert_eq!(wants, sights.map(diagnosis::code::Sight::wants));
    let named: usize = report.blind.iter().map(|group| group.codes.len()).sum();
    assert_eq!(named, Code::ALL.iter().filter(|code| sights.contains(&code.sight())).count());
}
