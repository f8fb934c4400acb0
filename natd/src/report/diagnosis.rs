//! What `natd diagnose` tells: which VPNs there are, what is wrong with them, what could not be seen.

mod text;

use std::net::IpAddr;

use diagnosis::words::{key, windows, words};
use diagnosis::{Code, Evidence, Finding, Group, Household, Mark, Session, Vantage};
use nat_core::time::Timestamp;
use passthrough::view::Phase;
use serde::{Deserialize, Serialize};

pub use text::text;

/// The answer to "why does my VPN not work?". Times are milliseconds since 1970, UTC.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct DiagnosisReport {
    /// The moment that it is about: now, or the end of the capture.
    pub time_ms: i64,
    /// All of it in a word.
    pub verdict: Verdict,
    /// Packets that were looked at.
    pub packets: u64,
    /// VPN sessions, those that failed or ended too.
    pub sessions: Vec<SessionRow>,
    /// What is wrong, was wrong or is worth knowing, the most important first.
    pub findings: Vec<FindingRow>,
    /// What cannot be found from here, though it may be the case.
    pub blind: Vec<Blind>,
    /// The only device that was asked about; known to who asks.
    #[serde(skip)]
    pub asked_of: Option<IpAddr>,
}

/// A diagnosis in a word.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// There are VPN sessions, and nothing is wrong with them.
    Healthy,
    /// Something is wrong.
    Problem,
    /// No VPN was seen, or none that is far enough to say.
    #[default]
    NothingSeen,
}

/// A VPN session, or an attempt at one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct SessionRow {
    /// What it is: a VPN's name such as `IKE`.
    pub vpn: String,
    /// The device.
    pub device: String,
    /// The server.
    pub server: String,
    /// Tells the attempts at one VPN apart; counts up. The same as in findings.
    pub attempt: u32,
    /// How far it is: `handshake`, `established`, `data`, `keepalive`, `idle`, `rekey` or `closed`.
    pub phase: String,
    /// Why it is over.
    pub reason: Option<String>,
    /// Its first packet.
    pub since_ms: i64,
    /// Whole seconds from its first packet to its last.
    pub duration_secs: u64,
    /// Whole seconds since its last packet.
    pub idle_secs: u64,
    /// Packets the device sent, as far as they were seen.
    pub packets_out: u64,
    /// Packets the device received.
    pub packets_in: u64,
    /// Bytes the device sent.
    pub bytes_out: u64,
    /// Bytes the device received.
    pub bytes_in: u64,
}

impl SessionRow {
    /// Did the two sides agree, and was each of them heard?
    fn came_about(&self) -> bool {
        self.phase != Phase::Handshake.name() && self.packets_out > 0 && self.packets_in > 0
    }
}

/// Something that was found.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct FindingRow {
    /// Its stable name.
    pub code: String,
    /// What kind of cause it is: `local`, `line`, `refusal`, `silence`, `dies`, `performance` or `note`; a
    /// `note` is no problem.
    pub group: String,
    /// How sure it is: `low`, `medium` or `high`.
    pub confidence: String,
    /// Who can be to blame, the likeliest first: `router`, `line`, `server`, `device` or `user`.
    pub owner: Vec<String>,
    /// The VPN it is about, if it is about one.
    pub vpn: Option<String>,
    /// Whose VPN; `None`: all devices.
    pub device: Option<String>,
    /// To where; `None`: all servers.
    pub server: Option<String>,
    /// Tells the attempts at one VPN apart; counts up.
    pub attempt: u32,
    /// When what it is about began.
    pub since_ms: i64,
    /// It is over: a later attempt worked.
    pub overcome: bool,
    /// What is wrong, in a sentence.
    pub says: String,
    /// What to do about it.
    pub fix: String,
    /// The configuration key of natd that mends it.
    pub key: Option<String>,
    /// The error numbers that Windows may show for it.
    pub windows: Vec<u16>,
    /// What shows it.
    pub evidence: Vec<EvidenceRow>,
}

impl FindingRow {
    /// Is it about looking a server's name up? Its server is then the one that was asked for the name.
    fn is_about_names(&self) -> bool {
        [Code::DnsFail, Code::DnsLies].iter().any(|code| code.name() == self.code)
    }

    /// Is something wrong now?
    pub fn is_problem(&self) -> bool {
        !self.overcome && self.group != group_name(Group::Note)
    }
}

/// Something that was seen and speaks for a finding.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct EvidenceRow {
    /// What was seen.
    pub what: String,
    /// How many packets; 0 where it is not about packets.
    pub count: u64,
    /// The first of them.
    pub first: Option<PacketRow>,
    /// The last of them.
    pub last: Option<PacketRow>,
}

/// A packet of the evidence.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PacketRow {
    /// When it was seen.
    pub time_ms: i64,
    /// Its number, from 1: in the capture, or since natd began to watch.
    pub packet: u64,
}

/// Codes that cannot be found from here for the same reason.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Blind {
    /// What it would take.
    pub wants: String,
    /// The codes.
    pub codes: Vec<String>,
}

impl DiagnosisReport {
    /// What there is to say of `household` at `now`, narrowed down to `device` and `server`. `unix` is what to
    /// add to a timestamp for microseconds since 1970.
    pub fn of(
        household: &Household,
        now: Timestamp,
        unix: i64,
        device: Option<IpAddr>,
        server: Option<IpAddr>,
    ) -> Self {
        let clock = Clock { now, unix };
        let wanted = |session: &Session| {
            device.is_none_or(|device| device == session.device)
                && server.is_none_or(|server| server == session.server)
        };
        let sessions = household.sessions(now);
        let mut report = Self {
            time_ms: clock.millis(now),
            verdict: Verdict::NothingSeen,
            packets: household.packets(),
            sessions: sessions.iter().filter(|session| wanted(session)).map(|s| clock.session(s)).collect(),
            findings: household.findings(now, device, server).iter().map(|f| clock.finding(f)).collect(),
            blind: blind(&household.settings().vantage),
            asked_of: device,
        };
        report.verdict = report.judge();
        report
    }

    /// Drops what is about other servers than these. What is about a name stays: no address may be known for it.
    pub fn narrow(&mut self, servers: &[IpAddr]) {
        let wanted = |server: &str| servers.iter().any(|wanted| wanted.to_string() == server);
        self.sessions.retain(|session| wanted(&session.server));
        self.findings
            .retain(|finding| finding.is_about_names() || finding.server.as_deref().is_none_or(wanted));
        self.verdict = self.judge();
    }

    fn judge(&self) -> Verdict {
        if self.findings.iter().any(FindingRow::is_problem) {
            Verdict::Problem
        } else if self.sessions.iter().any(SessionRow::came_about) {
            Verdict::Healthy
        } else {
            Verdict::NothingSeen
        }
    }
}

struct Clock {
    now: Timestamp,
    unix: i64,
}

impl Clock {
    fn millis(&self, at: Timestamp) -> i64 {
        i64::try_from(at.as_micros()).unwrap_or(i64::MAX).saturating_add(self.unix).div_euclid(1000)
    }

    fn session(&self, session: &Session) -> SessionRow {
        SessionRow {
            vpn: session.vpn.name().into(),
            device: session.device.to_string(),
            server: session.server.to_string(),
            attempt: session.attempt,
            phase: session.phase.name().into(),
            reason: (!session.reason.is_empty()).then(|| session.reason.to_owned()),
            since_ms: self.millis(session.since),
            duration_secs: session.last_seen.since(session.since).as_secs(),
            idle_secs: self.now.since(session.last_seen).as_secs(),
            packets_out: session.packets[0],
            packets_in: session.packets[1],
            bytes_out: session.bytes[0],
            bytes_in: session.bytes[1],
        }
    }

    fn finding(&self, finding: &Finding) -> FindingRow {
        let words = words(finding.code);
        FindingRow {
            code: finding.code.name().into(),
            group: group_name(finding.code.group()).into(),
            confidence: finding.confidence.name().into(),
            owner: finding.owner.iter().map(|party| party.name().into()).collect(),
            vpn: finding.vpn.map(|vpn| vpn.name().into()),
            device: finding.device.map(|device| device.to_string()),
            server: finding.server.map(|server| server.to_string()),
            attempt: finding.attempt,
            since_ms: self.millis(finding.since),
            overcome: finding.overcome,
            says: words.says.into(),
            fix: words.fix.into(),
            key: key(finding.code, finding.vpn).map(Into::into),
            windows: windows(finding.code).to_vec(),
            evidence: finding.evidence.iter().map(|evidence| self.evidence(evidence)).collect(),
        }
    }

    fn evidence(&self, evidence: &Evidence) -> EvidenceRow {
        let packet = |mark: Mark| PacketRow { time_ms: self.millis(mark.at), packet: mark.number };
        EvidenceRow {
            what: evidence.what.clone(),
            count: evidence.count,
            first: evidence.first.map(packet),
            last: evidence.last.map(packet),
        }
    }
}

/// What cannot be found from `vantage`, by what it would take.
fn blind(vantage: &Vantage) -> Vec<Blind> {
    let mut blind: Vec<Blind> = Vec::new();
    for code in Code::ALL.iter().filter(|code| !code.sight().within(vantage)) {
        let (wants, name) = (code.sight().wants(), code.name().to_owned());
        match blind.iter_mut().find(|group| group.wants == wants) {
            Some(group) => group.codes.push(name),
            None => blind.push(Blind { wants: wants.into(), codes: vec![name] }),
        }
    }
    blind
}

const fn group_name(group: Group) -> &'static str {
    match group {
        Group::Local => "local",
        Group::Line => "line",
        Group::Refusal => "refusal",
        Group::Silence => "silence",
        Group::Dies => "dies",
        Group::Performance => "performance",
        Group::Note => "note",
    }
}

#[cfg(test)]
mod tests;
