//! The judge: what became of every ESP packet of the server, and how long each new pair of SAs took to work.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

/// One ESP packet from the server.
#[derive(Clone, Copy, Debug)]
struct Esp {
    client: u8,
    /// When it came to the NAT, if it did.
    reached: Option<Duration>,
    /// The client no longer had, or did not yet have, the SA.
    stale: bool,
    right: bool,
    wrong: bool,
}

/// One pair of child SAs, from the first message of the exchange that makes it.
#[derive(Clone, Debug)]
struct Attempt {
    client: u8,
    rekey: bool,
    round_trip: Duration,
    /// The first retransmission of the exchange's initiator.
    retransmission: Duration,
    /// The server's first packet on the new SA.
    first: Option<Duration>,
    /// When a NAT that always knows would have brought the client a packet on it.
    ideal: Option<Duration>,
    /// Arrivals at the NAT of packets that came before the client had the SA.
    arrivals: Vec<Duration>,
    installed: Option<Duration>,
    restored: Option<Duration>,
    by_server: bool,
    /// When the client gave the SA up.
    ended: Option<Duration>,
    ike_lost: bool,
    esp_lost: bool,
    reordered: bool,
    /// A machine was restarted before it worked.
    disturbed: bool,
}

/// What one side of an ESP or IKE packet's way was like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mishap {
    Lost,
    Reordered,
}

/// How rekeys went, by what the WAN did to their packets.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Rekeys {
    pub(crate) in_time: u64,
    pub(crate) late: u64,
    pub(crate) never: u64,
}

impl Rekeys {
    fn all(self) -> u64 {
        self.in_time + self.late + self.never
    }
}

/// Counts of one or many runs.
#[derive(Clone, Debug, Default)]
pub(crate) struct Totals {
    pub(crate) right: u64,
    pub(crate) right_and_others: u64,
    pub(crate) only_wrong: u64,
    pub(crate) nobody: u64,
    /// Left the NAT later than it came.
    pub(crate) held: u64,
    pub(crate) nobody_stale: u64,
    pub(crate) outbound: u64,
    pub(crate) outbound_kept: u64,
    pub(crate) ike_dropped: u64,
    pub(crate) malformed: u64,
    pub(crate) clean: Rekeys,
    pub(crate) reordered: Rekeys,
    pub(crate) lost: Rekeys,
    pub(crate) not_judged: u64,
    /// What the NAT added to the time that a NAT that always knows would have needed.
    pub(crate) added: Vec<Duration>,
    pub(crate) first_traffic: Vec<Duration>,
    pub(crate) never_traffic: u64,
    pub(crate) works_at_end: u64,
    pub(crate) clients: u64,
    pub(crate) dials: u64,
    pub(crate) dead_tunnels: u64,
    pub(crate) exhausted: u64,
    pub(crate) reboots: u64,
    pub(crate) server_restarts: u64,
    pub(crate) nat_restarts: u64,
    pub(crate) simultaneous: u64,
    pub(crate) attempts: u64,
    pub(crate) first_pairs: u64,
    /// Rekeys that the server began.
    pub(crate) by_server: u64,
    pub(crate) ike_renewals: u64,
    /// After a restart of the NAT, for clients that worked and are not idle.
    pub(crate) recovered: Vec<Duration>,
    pub(crate) not_recovered: u64,
    pub(crate) events: u64,
    pub(crate) shares: BTreeMap<&'static str, u64>,
    pub(crate) seeds_with_wrong: Vec<u64>,
}

/// Everything about one run.
#[derive(Default)]
pub(crate) struct Tally {
    esp: Vec<Esp>,
    attempts: Vec<Attempt>,
    pub(crate) totals: Totals,
}

impl Tally {
    /// Opens an attempt; its number is never 0.
    pub(crate) fn attempt(
        &mut self,
        client: u8,
        by_server: bool,
        rekey: bool,
        round_trip: Duration,
        retransmission: Duration,
    ) -> u32 {
        self.attempts.push(Attempt {
            client,
            rekey,
            round_trip,
            retransmission,
            first: None,
            ideal: None,
            arrivals: Vec::new(),
            installed: None,
            restored: None,
            by_server,
            ended: None,
            ike_lost: false,
            esp_lost: false,
            reordered: false,
            disturbed: false,
        });
        self.attempts.len() as u32
    }

    fn open(&mut self, attempt: u32) -> Option<&mut Attempt> {
        let attempt = self.attempts.get_mut(attempt.checked_sub(1)? as usize)?;
        attempt.restored.is_none().then_some(attempt)
    }

    /// Only what happens until a round trip after it could have worked counts: later packets of an SA that
    /// never works do not make that a victim of the WAN.
    pub(crate) fn mishap(&mut self, now: Duration, attempt: u32, is_esp: bool, mishap: Mishap) {
        let Some(attempt) = self.open(attempt) else { return };
        if attempt.ideal.is_some_and(|ideal| now > ideal + attempt.round_trip) {
            return;
        }
        match mishap {
            Mishap::Lost if is_esp => attempt.esp_lost = true,
            Mishap::Lost => attempt.ike_lost = true,
            Mishap::Reordered => attempt.reordered = true,
        }
    }

    /// The server sends ESP that comes to the NAT at `arrival`, if it does; returns its number.
    pub(crate) fn server_sends(&mut self, now: Duration, client: u8, attempt: u32) -> u64 {
        if let Some(attempt) = self.open(attempt) {
            attempt.first.get_or_insert(now);
        }
        self.esp.push(Esp { client, reached: None, stale: false, right: false, wrong: false });
        self.esp.len() as u64 - 1
    }

    pub(crate) fn reaches_nat(&mut self, now: Duration, serial: u64, attempt: u32, client_has_it: bool) {
        let esp = &mut self.esp[serial as usize];
        (esp.reached, esp.stale) = (Some(now), !client_has_it);
        let Some(attempt) = self.open(attempt) else { return };
        match attempt.installed {
            Some(_) => _ = attempt.ideal.get_or_insert(now + crate::net::LAN_DELAY),
            None => attempt.arrivals.push(now + crate::net::LAN_DELAY),
        }
    }

    pub(crate) fn leaves_nat(&mut self, now: Duration, serial: u64, device: Option<u8>) {
        let esp = &mut self.esp[serial as usize];
        if esp.reached.is_some_and(|at| at < now) && !esp.right && !esp.wrong {
            self.totals.held += 1;
        }
        if device == Some(esp.client) {
            esp.right = true;
        } else {
            esp.wrong = true;
        }
    }

    /// The client can receive on the SA.
    pub(crate) fn client_installs(&mut self, now: Duration, attempt: u32) {
        let Some(attempt) = self.open(attempt) else { return };
        attempt.installed = Some(now);
        attempt.ideal = attempt.arrivals.iter().copied().find(|&arrival| arrival >= now);
    }

    pub(crate) fn client_receives(&mut self, now: Duration, attempt: u32) {
        if let Some(attempt) = self.open(attempt) {
            attempt.restored = Some(now);
        }
    }

    pub(crate) fn client_ends(&mut self, now: Duration, attempt: u32) {
        if let Some(attempt) = self.open(attempt) {
            attempt.ended.get_or_insert(now);
        }
    }

    /// A machine restarts: what does not work yet is not judged. `client` is `None` for all.
    pub(crate) fn disturb(&mut self, client: Option<u8>) {
        for attempt in &mut self.attempts {
            if attempt.restored.is_none() && client.is_none_or(|client| client == attempt.client) {
                attempt.disturbed = true;
            }
        }
    }

    /// Closes the books at the end of the run.
    pub(crate) fn finish(mut self, end: Duration) -> Totals {
        let totals = &mut self.totals;
        for esp in self.esp.iter().filter(|esp| esp.reached.is_some()) {
            *match (esp.right, esp.wrong) {
                (true, false) => &mut totals.right,
                (true, true) => &mut totals.right_and_others,
                (false, true) => &mut totals.only_wrong,
                (false, false) if esp.stale => &mut totals.nobody_stale,
                (false, false) => &mut totals.nobody,
            } += 1;
        }
        totals.attempts = self.attempts.len() as u64;
        totals.first_pairs = self.attempts.iter().filter(|attempt| !attempt.rekey).count() as u64;
        totals.by_server =
            self.attempts.iter().filter(|attempt| attempt.rekey && attempt.by_server).count() as u64;
        for attempt in self.attempts.iter().filter(|attempt| attempt.rekey) {
            let Some(first) = attempt.first else { continue };
            let (Some(ideal), false) = (attempt.ideal, attempt.disturbed) else {
                // No packet on it came through the WAN while the client had the SA, or a machine restarted.
                totals.not_judged += 1;
                continue;
            };
            let class = if attempt.ike_lost || attempt.esp_lost {
                &mut totals.lost
            } else if attempt.reordered {
                &mut totals.reordered
            } else {
                &mut totals.clean
            };
            let deadline = if attempt.ike_lost {
                ideal + attempt.round_trip.max(attempt.retransmission)
            } else if attempt.esp_lost || attempt.reordered {
                ideal + attempt.round_trip
            } else {
                // An eager server may speak before the client has the SA; then its next packet counts.
                ideal.max(first + attempt.round_trip)
            };
            match attempt.restored {
                Some(restored) => {
                    totals.added.push(restored.saturating_sub(ideal));
                    *if restored <= deadline { &mut class.in_time } else { &mut class.late } += 1;
                }
                None if deadline > attempt.ended.unwrap_or(end).min(end) => totals.not_judged += 1,
                None => class.never += 1,
            }
        }
        self.totals
    }
}

impl Totals {
    pub(crate) fn add(&mut self, seed: u64, other: Self) {
        if other.only_wrong > 0 {
            self.seeds_with_wrong.push(seed);
        }
        self.right += other.right;
        self.right_and_others += other.right_and_others;
        self.only_wrong += other.only_wrong;
        self.nobody += other.nobody;
        self.held += other.held;
        self.by_server += other.by_server;
        self.ike_renewals += other.ike_renewals;
        self.first_pairs += other.first_pairs;
        self.recovered.extend(other.recovered);
        self.not_recovered += other.not_recovered;
        self.nobody_stale += other.nobody_stale;
        self.outbound += other.outbound;
        self.outbound_kept += other.outbound_kept;
        self.ike_dropped += other.ike_dropped;
        self.malformed += other.malformed;
        for (sum, part) in [
            (&mut self.clean, other.clean),
            (&mut self.reordered, other.reordered),
            (&mut self.lost, other.lost),
        ] {
            sum.in_time += part.in_time;
            sum.late += part.late;
            sum.never += part.never;
        }
        self.not_judged += other.not_judged;
        self.added.extend(other.added);
        self.first_traffic.extend(other.first_traffic);
        self.never_traffic += other.never_traffic;
        self.works_at_end += other.works_at_end;
        self.clients += other.clients;
        self.dials += other.dials;
        self.dead_tunnels += other.dead_tunnels;
        self.exhausted += other.exhausted;
        self.reboots += other.reboots;
        self.server_restarts += other.server_restarts;
        self.nat_restarts += other.nat_restarts;
        self.simultaneous += other.simultaneous;
        self.attempts += other.attempts;
        self.events += other.events;
        for (name, count) in other.shares {
            *self.shares.entry(name).or_default() += count;
        }
    }

    pub(crate) fn inbound(&self) -> u64 {
        self.right + self.right_and_others + self.only_wrong + self.nobody + self.nobody_stale
    }

    pub(crate) fn rekeys_judged(&self) -> u64 {
        self.clean.all() + self.reordered.all() + self.lost.all()
    }

    /// The share of judged rekeys after which traffic came back in time.
    pub(crate) fn rekeys_in_time(&self) -> f64 {
        share(self.clean.in_time + self.reordered.in_time + self.lost.in_time, self.rekeys_judged())
    }
}

pub(crate) fn share(part: u64, all: u64) -> f64 {
    if all == 0 { 1.0 } else { part as f64 / all as f64 }
}

/// One table with a column for each NAT.
pub(crate) fn table(columns: &mut [(&str, Totals)]) -> String {
    let mut text = String::new();
    for (_, totals) in columns.iter_mut() {
        totals.added.sort_unstable();
        totals.first_traffic.sort_unstable();
        totals.recovered.sort_unstable();
    }
    let mut row = |name: &str, cell: &dyn Fn(&Totals) -> String| {
        _ = write!(text, "{name:<52}");
        for (_, totals) in columns.iter() {
            _ = write!(text, "{:>25}", cell(totals));
        }
        text.push('\n');
    };
    let percent = |part, all| format!("{part} {:7.3}%", 100.0 * share(part, all));
    row("ESP from the server that came to the NAT", &|t| t.inbound().to_string());
    row("  to the right device only", &|t| percent(t.right, t.inbound()));
    row("  to the right one and others (fan-out)", &|t| percent(t.right_and_others, t.inbound()));
    row("  ONLY TO WRONG DEVICES", &|t| percent(t.only_wrong, t.inbound()));
    row("  to nobody", &|t| percent(t.nobody, t.inbound()));
    row("  to nobody, and the client had no such SA", &|t| percent(t.nobody_stale, t.inbound()));
    row("  held for a time, of all these", &|t| percent(t.held, t.inbound()));
    row("seeds with a packet only to wrong devices", &|t| t.seeds_with_wrong.len().to_string());
    row("ESP from clients that the NAT did not pass at once", &|t| percent(t.outbound_kept, t.outbound));
    row("IKE messages that the NAT did not pass at once", &|t| t.ike_dropped.to_string());
    row("rekeys, nothing lost: back within a round trip", &|t| percent(t.clean.in_time, t.clean.all()));
    row("  later / never", &|t| format!("{} / {}", t.clean.late, t.clean.never));
    row("rekeys, reordered: within a round trip of ideal", &|t| {
        percent(t.reordered.in_time, t.reordered.all())
    });
    row("  later / never", &|t| format!("{} / {}", t.reordered.late, t.reordered.never));
    row("rekeys, something lost: within a retransmission", &|t| percent(t.lost.in_time, t.lost.all()));
    row("  later / never", &|t| format!("{} / {}", t.lost.late, t.lost.never));
    row("all judged rekeys in time", &|t| format!("{:.3}%", 100.0 * t.rekeys_in_time()));
    row("rekeys not judged (restart, too short, none arrived)", &|t| t.not_judged.to_string());
    row("added after a rekey: median / 99 % / 99.9 % (ms)", &|t| {
        let at = |per_mille| rank(&t.added, per_mille).as_millis();
        format!("{} / {} / {}", at(500), at(990), at(999))
    });
    row("first traffic: median / 90 % / 99 % (s)", &|t| {
        let at = |per_mille| rank(&t.first_traffic, per_mille).as_secs_f64();
        format!("{:.1} / {:.1} / {:.1}", at(500), at(900), at(990))
    });
    row("clients that never had traffic", &|t| percent(t.never_traffic, t.clients));
    row("clients that work at the end", &|t| percent(t.works_at_end, t.clients));
    row("dials / dead tunnels / retransmissions exhausted", &|t| {
        format!("{}/{}/{}", t.dials, t.dead_tunnels, t.exhausted)
    });
    row("restarts of clients / servers / NATs", &|t| {
        format!("{}/{}/{}", t.reboots, t.server_restarts, t.nat_restarts)
    });
    row("after a NAT's restart: median / 90 % (s), never", &|t| {
        let at = |per_mille| rank(&t.recovered, per_mille).as_secs_f64();
        format!("{:.1} / {:.1}, {}", at(500), at(900), t.not_recovered)
    });
    row("first pairs of SAs / rekeys by client / by server", &|t| {
        format!("{}/{}/{}", t.first_pairs, t.attempts - t.first_pairs - t.by_server, t.by_server)
    });
    row("simultaneous rekeys / IKE SAs renewed", &|t| format!("{}/{}", t.simultaneous, t.ike_renewals));
    row("packets that hosts could not read", &|t| t.malformed.to_string());
    let mut head = format!("{:<52}", "");
    for (name, _) in columns.iter() {
        _ = write!(head, "{name:>25}");
    }
    for (name, totals) in columns.iter() {
        let shares: Vec<String> = totals.shares.iter().map(|(what, n)| format!("{what} {n}")).collect();
        _ = writeln!(text, "{name}: {}", shares.join(", "));
    }
    format!("{head}\n{text}")
}

fn rank(sorted: &[Duration], per_mille: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get(last * per_mille / 1000).copied().unwrap_or_default()
}
