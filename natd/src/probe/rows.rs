//! What the answers mean: a row for each kind.

use std::net::IpAddr;

use diagnosis::{Finding, Group};
use nat_core::time::Timestamp;

use super::ike::{Answer, nat_hash, notify_name};
use super::judge::Judge;
use super::ladder::{Lane, Reach};
use super::messages::{L2tpAnswer, Said};
use super::{Control, Ending, Failure, Kind, Probe, Slot, Target, Tls};
use crate::report::diagnosis::Verdict as Outcome;

/// What became of one kind of packet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The server answers.
    Answers,
    /// It comes through, as far as anything does.
    Reaches,
    /// It comes to this hop, the last before the server; what is behind shows nothing.
    ReachesHop(u8),
    /// The server says that it does not have it.
    NotOffered,
    /// Somebody on the way says no.
    Refused,
    /// It is lost at or just after this hop (0: this machine), or nobody knows where.
    Lost(Option<u8>),
    /// Nothing shows what became of it.
    CannotTell,
    /// It was not tried.
    NotTried,
}

impl Verdict {
    /// For programs.
    pub const fn key(self) -> &'static str {
        match self {
            Self::Answers => "answers",
            Self::Reaches => "reaches",
            Self::ReachesHop(_) => "reaches the last hop",
            Self::NotOffered => "not offered",
            Self::Refused => "refused on the way",
            Self::Lost(_) => "lost",
            Self::CannotTell => "cannot be told",
            Self::NotTried => "not tried",
        }
    }
}

/// A row of the table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What was sent.
    pub kind: Kind,
    /// How many packets, or connections.
    pub sent: u8,
    /// What became of them.
    pub verdict: Verdict,
    /// More about it.
    pub note: String,
}

/// What one address of a server told.
#[derive(Clone, Debug)]
pub struct ProbeReport {
    /// Who was asked from where.
    pub target: Target,
    /// When it began.
    pub start: Timestamp,
    /// When it ended.
    pub end: Timestamp,
    /// One for each kind.
    pub rows: Vec<Row>,
    /// The routers on the way that answered, by their hop from 1.
    pub hops: Vec<(u8, IpAddr)>,
    /// Something of the server's own came back.
    pub alive: bool,
    /// What follows.
    pub findings: Vec<Found>,
}

/// A finding, in words that claim no more than a probe can know.
#[derive(Clone, Debug)]
pub struct Found {
    /// What it is, and what shows it.
    pub finding: Finding,
    /// What is wrong, in one sentence.
    pub says: String,
    /// What to do about it.
    pub fix: String,
}

impl ProbeReport {
    /// All of it in a word. A server that answers no kind of VPN shows nothing of those it may have.
    pub fn outcome(&self) -> Outcome {
        let problem = |found: &Found| found.finding.code.group() != Group::Note;
        let answers = |row: &Row| row.verdict == Verdict::Answers && row.kind != Kind::Ping;
        if self.findings.iter().any(problem) {
            Outcome::Problem
        } else if self.rows.iter().any(answers) {
            Outcome::Healthy
        } else {
            Outcome::NothingSeen
        }
    }
}

impl Probe {
    /// What is known now.
    pub fn report(&self) -> ProbeReport {
        let judge = Judge::new(self);
        ProbeReport {
            target: self.target.clone(),
            start: self.start.unwrap_or_default(),
            end: self.end,
            rows: Kind::ALL.map(|kind| self.row(kind)).to_vec(),
            hops: self.ladder.routers().collect(),
            alive: judge.alive(),
            findings: judge.all(),
        }
    }

    /// What is known of one kind now.
    pub fn row(&self, kind: Kind) -> Row {
        let (verdict, note) = self.verdict(kind);
        let lane = if kind == Kind::Gre { Lane::Gre } else { Lane::Esp };
        let climbs = matches!(kind, Kind::Esp | Kind::Gre);
        let sent = if climbs { self.ladder.sent(lane) } else { self.of(kind).sent };
        Row { kind, sent, verdict, note }
    }

    pub(super) fn verdict(&self, kind: Kind) -> (Verdict, String) {
        let asked = self.of(kind);
        match kind {
            Kind::Ike500 | Kind::Ike4500 if asked.answered => (Verdict::Answers, self.ike_note(kind)),
            Kind::L2tp if asked.answered => (
                Verdict::Answers,
                match self.l2tp {
                    Some(L2tpAnswer::Open { .. }) => "opens a tunnel without IPsec".into(),
                    Some(L2tpAnswer::Stop { result }) => format!("refuses a tunnel (StopCCN {result})"),
                    Some(L2tpAnswer::Other) | None => String::new(),
                },
            ),
            Kind::Ping | Kind::IkeLarge | Kind::IkeFragmented | Kind::OpenVpn if asked.answered => {
                (Verdict::Answers, String::new())
            }
            Kind::PptpGre if asked.answered => (Verdict::Answers, "both ways".into()),
            Kind::Esp | Kind::Gre => self.reach(kind),
            Kind::WireGuard => (Verdict::CannotTell, "it answers only those whose key it knows".into()),
            Kind::Pptp => self.pptp(),
            Kind::Tls => self.tls(),
            Kind::Mtu => self.mtu(),
            Kind::IkeLarge | Kind::IkeFragmented if asked.sent == 0 => {
                (Verdict::NotTried, "IKE is not answered".into())
            }
            Kind::PptpGre if asked.sent == 0 => (Verdict::NotTried, "it needs a PPTP call".into()),
            Kind::PptpGre if !asked.done => (Verdict::CannotTell, String::new()),
            Kind::PptpGre => {
                let way =
                    if self.gre_in { "the server's comes in, ours is not answered" } else { "none comes in" };
                match self.reach(Kind::Gre) {
                    (verdict @ (Verdict::Lost(_) | Verdict::Refused), note) => {
                        (verdict, format!("{way}; {note}"))
                    }
                    _ => (Verdict::Lost(None), way.to_owned()),
                }
            }
            Kind::Ping
            | Kind::Ike500
            | Kind::Ike4500
            | Kind::IkeLarge
            | Kind::IkeFragmented
            | Kind::L2tp
            | Kind::OpenVpn => self.silence(kind),
        }
    }

    /// No answer of the protocol's own came.
    fn silence(&self, kind: Kind) -> (Verdict, String) {
        let asked = self.of(kind);
        if let Some((by, said)) = asked.said {
            if asked.unsent {
                return (Verdict::NotTried, format!("this machine does not send it: {}", because(said)));
            }
            let own = by == self.target.server && matches!(said, Said::NoPort | Said::NoProtocol);
            let verdict = if own { Verdict::NotOffered } else { Verdict::Refused };
            return (verdict, format!("{by}: {}", because(said)));
        }
        if asked.sent == 0 {
            return (Verdict::NotTried, String::new());
        }
        let small = [Kind::Ike500, Kind::Ike4500].map(|kind| self.of(kind).answered);
        match (kind, small) {
            (Kind::Ike500, _) => match self.ladder.reach(Lane::Udp) {
                Reach::Lost { after } => {
                    (Verdict::Lost(Some(after)), "other packets come farther".to_owned())
                }
                Reach::Refused { by, said, .. } => (Verdict::Refused, format!("{by}: {}", because(said))),
                Reach::LastHop { hop } => (
                    Verdict::CannotTell,
                    format!("no answer; it comes to hop {hop}, the last before the server"),
                ),
                Reach::Unknown { after } if after > 0 => {
                    (Verdict::CannotTell, format!("no answer; behind hop {after} nothing answers"))
                }
                Reach::Unknown { .. } | Reach::Server | Reach::NotSent => {
                    (Verdict::CannotTell, "no answer".to_owned())
                }
            },
            (Kind::Ike4500, [true, _]) => {
                (Verdict::Lost(None), "no answer, though UDP 500 is answered".into())
            }
            (Kind::IkeLarge | Kind::IkeFragmented, _) => {
                (Verdict::Lost(None), "no answer, though small ones are answered".into())
            }
            (Kind::L2tp, _) => {
                (Verdict::CannotTell, "no answer; many servers answer only inside IPsec".into())
            }
            (Kind::OpenVpn, _) => {
                (Verdict::CannotTell, "no answer; with tls-auth or tls-crypt there is none".into())
            }
            (
                Kind::Ping
                | Kind::Ike4500
                | Kind::Esp
                | Kind::Gre
                | Kind::Pptp
                | Kind::PptpGre
                | Kind::WireGuard
                | Kind::Tls
                | Kind::Mtu,
                _,
            ) => (Verdict::CannotTell, "no answer".into()),
        }
    }

    fn ike_note(&self, kind: Kind) -> String {
        let [first, second] = &self.answers;
        let Some(answer) = (if kind == Kind::Ike500 { first } else { second }) else { return String::new() };
        let mut note = format!("IKEv{}", answer.major);
        if let Some(kind) = answer.notify {
            note.push_str(&format!(", {}", notify_name(kind)));
        }
        match self.nat(kind) {
            Nat::None => note.push_str(", no NAT on the way"),
            Nat::Port(port) => {
                note.push_str(&format!(", sees our address, and port {port} for {}", self.port(slot(kind))));
            }
            Nat::Address => note.push_str(", a NAT on the way"),
            Nat::Unknown => {}
        }
        if self.server_behind_nat(kind) {
            note.push_str(", the server says that it is behind a NAT itself");
        }
        note
    }

    fn answer(&self, kind: Kind) -> Option<&Answer> {
        let [first, second] = &self.answers;
        (if kind == Kind::Ike500 { first } else { second }).as_ref()
    }

    /// What the server's hash said of NATs on the way.
    pub(super) fn nat(&self, kind: Kind) -> Nat {
        let [first, second] = self.nats;
        match kind {
            Kind::Ike500 => first,
            Kind::Ike4500 => second,
            Kind::Ping
            | Kind::IkeLarge
            | Kind::IkeFragmented
            | Kind::Esp
            | Kind::Gre
            | Kind::Pptp
            | Kind::PptpGre
            | Kind::L2tp
            | Kind::OpenVpn
            | Kind::WireGuard
            | Kind::Tls
            | Kind::Mtu => Nat::Unknown,
        }
    }

    /// What the server's hash says of NATs on the way. It takes a small router a while.
    pub(super) fn seen_as(&self, kind: Kind) -> Nat {
        let Some((answer, hash)) = self.answer(kind).and_then(|a| Some((a, a.destination_hash?))) else {
            return Nat::Unknown;
        };
        let of = |port| nat_hash(answer.initiator, answer.responder, self.target.local, port);
        let own = self.port(slot(kind));
        if of(own) == hash {
            return Nat::None;
        }
        (1..=u16::MAX).find(|port| of(*port) == hash).map_or(Nat::Address, Nat::Port)
    }

    fn server_behind_nat(&self, kind: Kind) -> bool {
        let port = if kind == Kind::Ike500 { 500 } else { 4500 };
        self.answer(kind).is_some_and(|answer| {
            let expected = nat_hash(answer.initiator, answer.responder, self.target.server, port);
            answer.source_hash.is_some_and(|hash| hash != expected)
        })
    }

    fn reach(&self, kind: Kind) -> (Verdict, String) {
        let lane = if kind == Kind::Esp { Lane::Esp } else { Lane::Gre };
        if kind == Kind::Gre && self.of(Kind::PptpGre).answered {
            return (Verdict::Reaches, "PPTP's GRE goes both ways".into());
        }
        match self.ladder.reach(lane) {
            Reach::Server if self.invalid_spi && kind == Kind::Esp => {
                (Verdict::Reaches, "the server: it does not know our SPI".into())
            }
            Reach::Server => (Verdict::Reaches, "the server itself answers".into()),
            Reach::Refused { by, said, .. } if by == self.target.local => {
                (Verdict::NotTried, format!("this machine does not send it: {}", because(said)))
            }
            Reach::Refused { by, said, .. } => (Verdict::Refused, format!("{by}: {}", because(said))),
            Reach::Lost { after } => (Verdict::Lost(Some(after)), self.farther(lane, after)),
            Reach::LastHop { hop: 0 } => (
                Verdict::CannotTell,
                "there is no router on the way: lost before the server, or the server is silent".into(),
            ),
            Reach::LastHop { hop } => (
                Verdict::ReachesHop(hop),
                "the last before the server: lost just behind it, or the server is silent".into(),
            ),
            Reach::Unknown { after: 0 } => (Verdict::CannotTell, "no hop answers for any packet".into()),
            Reach::Unknown { after } => {
                (Verdict::CannotTell, format!("behind hop {after} no hop answers for any packet"))
            }
            Reach::NotSent => (Verdict::NotTried, String::new()),
        }
    }

    /// Who came farther than `after`.
    fn farther(&self, lane: Lane, after: u8) -> String {
        let others = [(Lane::Udp, "UDP 500"), (Lane::Esp, "ESP"), (Lane::Gre, "GRE")];
        let farther = others.into_iter().find(|(other, _)| {
            *other != lane
                && !matches!(self.ladder.reach(*other), Reach::Lost { after: other } if other <= after)
                && self.ladder.reach(*other) != Reach::NotSent
        });
        let (heard, name) = (self.ladder.heard(), farther.map_or("another packet", |(_, name)| name));
        match self.ladder.server() {
            Some(server) => format!("{name} comes to hop {heard}, and the server is at hop {server}"),
            None => format!("{name} comes to hop {heard}"),
        }
    }

    fn pptp(&self) -> (Verdict, String) {
        let Control::Failed(failure) = self.control else {
            return match self.control {
                Control::Call(_) => (Verdict::Answers, "a call is set up".into()),
                Control::Waiting | Control::Starting | Control::Calling | Control::Failed(_) => {
                    (Verdict::CannotTell, String::new())
                }
            };
        };
        match failure {
            Failure::Start(result) => (Verdict::Answers, format!("refuses us (SCCRP {result})")),
            Failure::Call(result) => (Verdict::Answers, format!("refuses a call (OCRP {result})")),
            Failure::NoCall => (Verdict::Answers, "no answer to a call".into()),
            Failure::NoAnswer | Failure::Ended(_) | Failure::Broken(_) | Failure::Mute | Failure::Foreign => {
                self.connection(Kind::Pptp, failure)
            }
        }
    }

    fn tls(&self) -> (Verdict, String) {
        match self.tls {
            Tls::Answered { alert: false } => (Verdict::Answers, String::new()),
            Tls::Answered { alert: true } => (Verdict::Answers, "with an alert".into()),
            Tls::Failed(failure) => self.connection(Kind::Tls, failure),
            Tls::Waiting | Tls::Greeted => (Verdict::CannotTell, String::new()),
        }
    }

    fn connection(&self, kind: Kind, failure: Failure) -> (Verdict, String) {
        let by_other = self.of(kind).said.filter(|(by, _)| *by != self.target.server);
        match failure {
            Failure::Ended(Ending::Forbidden) => (Verdict::NotTried, "this machine does not allow it".into()),
            Failure::Ended(_) if by_other.is_some() => {
                let note = by_other.map(|(by, said)| format!("{by}: {}", because(said)));
                (Verdict::Refused, note.unwrap_or_default())
            }
            Failure::Ended(Ending::Reset | Ending::Closed) => {
                (Verdict::NotOffered, "the connection is refused".into())
            }
            Failure::Ended(Ending::Unreachable) => (Verdict::CannotTell, "there is no way there".into()),
            Failure::Broken(Ending::Reset) => {
                (Verdict::CannotTell, "it connects, and is reset after our first message".into())
            }
            Failure::Broken(_) => {
                (Verdict::CannotTell, "it connects, and is closed after our first message".into())
            }
            Failure::Mute => (Verdict::CannotTell, "it connects, and says nothing".into()),
            Failure::Foreign => (Verdict::CannotTell, "something else runs there".into()),
            Failure::NoAnswer | Failure::Start(_) | Failure::Call(_) | Failure::NoCall => {
                (Verdict::CannotTell, "no answer; a firewall there or on the way".into())
            }
        }
    }

    fn mtu(&self) -> (Verdict, String) {
        if !self.measures() {
            return (Verdict::CannotTell, "neither ping nor IKE is answered".into());
        }
        let (fits, too_big) = self.search.found();
        let note = match too_big {
            None => format!("{fits} bytes, as much as the interface takes"),
            Some(more) if more == fits + 1 => {
                format!("{fits} bytes; the interface takes {}", self.target.mtu)
            }
            Some(more) => {
                format!("between {fits} and {} bytes; the interface takes {}", more - 1, self.target.mtu)
            }
        };
        (Verdict::Reaches, note)
    }
}

/// What a server's NAT detection hash says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Nat {
    /// Our address and our port.
    None,
    /// Our address, and this port.
    Port(u16),
    /// Another address.
    Address,
    /// There was no hash.
    #[default]
    Unknown,
}

const fn slot(kind: Kind) -> Slot {
    if matches!(kind, Kind::Ike4500) { Slot::Ike4500 } else { Slot::Ike500 }
}

pub(super) const fn because(said: Said) -> &'static str {
    match said {
        Said::TimeExceeded => "too many hops",
        Said::NoPort => "port unreachable",
        Said::NoProtocol => "protocol unreachable",
        Said::Prohibited => "administratively prohibited",
        Said::Unreachable => "host or network unreachable",
        Said::TooBig(_) => "too big",
    }
}
