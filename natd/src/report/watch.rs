//! The live view of `natd status --watch`: a screen made of one status and what came before it.
//!
//! From top to bottom: what the daemon does and on which WAN; how much passes now, with the last minute drawn;
//! how full the session table is; the devices, the busiest first; what is dropped and why; the queues. On a
//! small screen the devices and the drops share what is left, and what finds no place is counted.
//!
//! Pure: statuses, the time between them and the size of the screen go in, text comes out.

mod ink;

use std::collections::{BTreeMap, VecDeque};
use std::time::Duration;

use self::ink::{Ink, Line};
use super::units::{bit_rate, bytes, count, per_second, percent, rate, span};
use super::{Device, State, Status, reasons};
use crate::order;

/// Columns and rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Size {
    /// Characters in a line.
    pub columns: u16,
    /// Lines.
    pub rows: u16,
}

/// What the terminal can show.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Colours.
    pub colour: bool,
    /// Block elements; otherwise ASCII.
    pub blocks: bool,
}

/// How many samples of the rate are kept.
const HISTORY: usize = 60;

/// What the view remembers from one status to the next.
#[derive(Debug, Default)]
pub struct View {
    current: Status,
    before: Option<(Status, Duration)>,
    down: VecDeque<u64>,
    up: VecDeque<u64>,
    devices: BTreeMap<String, VecDeque<u64>>,
}

impl View {
    /// Takes in the status read `elapsed` after the one before. That of another process starts afresh.
    pub fn observe(&mut self, status: Status, elapsed: Duration) {
        let before = std::mem::replace(&mut self.current, status);
        let continues = before.pid == self.current.pid && before.uptime_secs <= self.current.uptime_secs;
        if !continues || elapsed.is_zero() {
            *self = Self { current: std::mem::take(&mut self.current), ..Self::default() };
            return;
        }
        remember(&mut self.down, per_second(before.bytes.inbound, self.current.bytes.inbound, elapsed));
        remember(&mut self.up, per_second(before.bytes.outbound, self.current.bytes.outbound, elapsed));
        let mut earlier = std::mem::take(&mut self.devices);
        for device in &self.current.devices {
            let mut history = earlier.remove(&device.address).unwrap_or_default();
            let rates = device_rates(device, Some(&before), elapsed);
            remember(&mut history, rates.down.saturating_add(rates.up));
            self.devices.insert(device.address.clone(), history);
        }
        self.before = Some((before, elapsed));
    }

    /// The screen, as lines that each end in a newline and are no wider than it.
    pub fn render(&self, size: Size, style: Style) -> String {
        let mut lines = self.header();
        lines.extend(self.throughput(size));
        lines.extend(self.table(size));
        let queues = self.queues();
        let rows = usize::from(size.rows);
        let room = rows.saturating_sub(lines.len() + 1 + queues.len());
        let drops = self.drops();
        let for_drops = drops.len().min((room / 3).max(room.saturating_sub(self.current.devices.len() + 2)));
        let devices = self.devices(size, room.saturating_sub(for_drops));
        lines.extend(devices);
        lines.extend(shortened(drops, for_drops));
        lines.extend(queues);
        finish(lines, size, style)
    }

    /// The screen while the daemon does not answer: what is known, in grey, under the reason.
    pub fn render_lost(&self, reason: &str, size: Size, style: Style) -> String {
        let mut lines = vec![
            Line::new().put(Ink::Bad, " ● no answer ").put(Ink::Dim, "  trying again every second; q quits"),
            Line::new().put(Ink::Plain, format!(" {reason}")),
        ];
        if self.current.pid != 0 {
            lines.push(Line::new());
            lines.push(Line::new().put(Ink::Dim, " last seen:"));
            let seen = self
                .render(Size { rows: size.rows.saturating_sub(4), ..size }, Style { colour: false, ..style });
            lines.extend(seen.lines().map(|line| Line::new().put(Ink::Dim, line)));
        }
        finish(lines, size, style)
    }

    fn header(&self) -> Vec<Line> {
        let now = &self.current;
        let ink = match now.state {
            State::Translating => Ink::Good,
            State::Starting | State::WaitingForAddress => Ink::Caution,
            State::Stopping => Ink::Bad,
        };
        let mut lines = vec![
            Line::new()
                .put(ink, format!(" ● {}", now.state))
                .put(Ink::Dim, format!("   natd {}  up {}   q quits", now.version, span(now.uptime_secs))),
        ];
        if let Some(reason) = &now.reason {
            lines.push(Line::new().put(Ink::Caution, format!("   {reason}")));
        }
        let address = now.wan.address.as_deref().unwrap_or("no address");
        let mut ends = Line::new()
            .put(Ink::Dim, " WAN ")
            .put(Ink::Plain, format!("{} ", now.wan.interface))
            .put(Ink::Bold, address)
            .put(Ink::Dim, format!(" MTU {}   LAN", now.wan.mtu));
        for lan in &now.lan {
            ends = ends
                .put(Ink::Plain, format!(" {}", lan.interface))
                .put(Ink::Dim, format!(" {}", lan.prefixes.join(" ")));
        }
        lines.push(ends);
        lines
    }

    fn throughput(&self, size: Size) -> Vec<Line> {
        let now = &self.current;
        let row = |arrow: &str, ink: Ink, history: &VecDeque<u64>, packets: String, total: u64| {
            let rate = history.back().map_or_else(|| "…".into(), |rate| bit_rate(*rate));
            let tail = format!("  {packets:>9} packets {:>10}", bytes(total));
            let width = usize::from(size.columns).saturating_sub(24 + tail.len() + 1).min(HISTORY);
            Line::new()
                .put(ink, format!(" {arrow} {rate:>13}   "))
                .graph(ink, history, width)
                .put(Ink::Dim, tail)
        };
        let packets = |pick: fn(&Status) -> u64| {
            self.before
                .as_ref()
                .map_or_else(|| "…/s".into(), |(before, elapsed)| rate(pick(before), pick(now), *elapsed))
        };
        vec![
            Line::new(),
            row("↓ down", Ink::Down, &self.down, packets(|status| status.packets.inbound), now.bytes.inbound),
            row("↑ up  ", Ink::Up, &self.up, packets(|status| status.packets.outbound), now.bytes.outbound),
        ]
    }

    fn table(&self, size: Size) -> Vec<Line> {
        let sessions = &self.current.sessions;
        let used = percent(sessions.current, sessions.limit);
        let ink = match used {
            0..=69 => Ink::Good,
            70..=89 => Ink::Caution,
            _ => Ink::Bad,
        };
        let numbers =
            format!("  {} of {} sessions, {used} %", count(sessions.current), count(sessions.limit));
        let width = usize::from(size.columns).saturating_sub(numbers.len() + 2).min(50);
        let by_protocol = &sessions.by_protocol;
        let detail = format!(
            " {} TCP  {} UDP  {} ICMP   peak {}   {} mappings   {} SYNs held",
            count(by_protocol.tcp),
            count(by_protocol.udp),
            count(by_protocol.icmp),
            count(sessions.peak),
            count(self.current.mappings),
            count(self.current.held_syns),
        );
        vec![
            Line::new(),
            Line::new()
                .put(Ink::Plain, " ")
                .gauge(ink, sessions.current, sessions.limit, width)
                .put(Ink::Plain, numbers),
            Line::new().put(Ink::Dim, detail),
        ]
    }

    fn devices(&self, size: Size, room: usize) -> Vec<Line> {
        let before = self.before.as_ref();
        let elapsed = before.map_or(Duration::ZERO, |(_, elapsed)| *elapsed);
        let earlier = before.map(|(before, _)| before);
        let rows: Vec<(Rates, &Device)> = self
            .current
            .devices
            .iter()
            .map(|device| (device_rates(device, earlier, elapsed), device))
            .collect();
        let rows = order::by(rows, |(_, device)| !device.sessions);
        let rows = order::by(rows, |(rates, _)| !rates.down.saturating_add(rates.up));
        let top = rows.first().map_or(0, |(rates, _)| rates.down.saturating_add(rates.up));
        let heading = format!(" {:<15}  {:>8}  {:>13}  {:>13}", "DEVICE", "SESSIONS", "DOWN", "UP");
        let spare = usize::from(size.columns).saturating_sub(heading.len() + 3);
        let (bar, graph) = match spare {
            0..5 => (0, 0),
            5..34 => (spare, 0),
            34.. => (10, spare - 12),
        };
        let graph = graph.min(HISTORY);
        let mut lines = vec![Line::new(), Line::new().put(Ink::Heading, heading)];
        if rows.is_empty() {
            lines.push(Line::new().put(Ink::Dim, " no device has sent anything yet"));
        }
        let nothing = VecDeque::new();
        for (rates, device) in rows {
            let refused = if device.refused > 0 { Ink::Caution } else { Ink::Plain };
            let history = self.devices.get(&device.address).unwrap_or(&nothing);
            lines.push(
                Line::new()
                    .put(Ink::Bold, format!(" {:<15}", device.address))
                    .put(refused, format!("  {:>8}", count(device.sessions)))
                    .put(Ink::Down, format!("  {:>13}", bit_rate(rates.down)))
                    .put(Ink::Up, format!("  {:>13}  ", bit_rate(rates.up)))
                    .gauge(Ink::Down, rates.down.saturating_add(rates.up), top, bar)
                    .put(Ink::Plain, "  ")
                    .graph(Ink::Dim, history, graph),
            );
        }
        shortened(lines, room)
    }

    fn drops(&self) -> Vec<Line> {
        let before = self.before.as_ref();
        let rows: Vec<(u64, &str, u64)> = self
            .current
            .drops
            .iter()
            .filter(|(_, n)| **n > 0)
            .map(|(reason, n)| {
                let earlier = before.and_then(|(before, _)| before.drops.get(reason)).copied().unwrap_or(0);
                (n.saturating_sub(earlier), reason.as_str(), *n)
            })
            .collect();
        if rows.is_empty() {
            return vec![Line::new(), Line::new().put(Ink::Dim, " nothing dropped")];
        }
        let rows = order::by(order::by(rows, |(_, _, n)| !n), |(fresh, ..)| !fresh);
        let heading = format!(" {:<22}  {:>10}  {:>9}", "DROPPED", "PACKETS", "RATE");
        let mut lines = vec![Line::new(), Line::new().put(Ink::Heading, heading)];
        for (fresh, reason, n) in rows {
            let (ink, rate) = match before {
                Some((_, elapsed)) if fresh > 0 => (Ink::Caution, rate(0, fresh, *elapsed)),
                Some(_) | None => (Ink::Plain, "-".into()),
            };
            let words = reasons::explain(reason).unwrap_or_default();
            lines.push(
                Line::new()
                    .put(ink, format!(" {reason:<22}  {:>10}  {rate:>9}", count(n)))
                    .put(Ink::Dim, format!("  {words}")),
            );
        }
        lines
    }

    fn queues(&self) -> Vec<Line> {
        let mut lines = vec![Line::new()];
        for queue in &self.current.queues {
            let (number, waiting) = (queue.number, count(queue.waiting));
            let lost = queue.queue_dropped.saturating_add(queue.user_dropped);
            let before = self.before.as_ref().and_then(|(before, _)| {
                let same = before.queues.iter().find(|earlier| earlier.number == number)?;
                Some(same.queue_dropped.saturating_add(same.user_dropped))
            });
            let ink = match before {
                _ if lost == 0 => Ink::Good,
                Some(before) if lost > before => Ink::Bad,
                Some(_) | None => Ink::Caution,
            };
            let health = if lost == 0 { "none lost".into() } else { format!("{} lost", count(lost)) };
            lines.push(
                Line::new()
                    .put(Ink::Dim, format!(" queue {number}  "))
                    .put(Ink::Plain, format!("{waiting} waiting  "))
                    .put(ink, health),
            );
        }
        let kernel = &self.current.kernel;
        if kernel.admit_failed > 0 {
            let all = count(kernel.admitted.saturating_add(kernel.admit_failed));
            let text = format!(" conntrack did not take {} of {all} flows: ", count(kernel.admit_failed));
            lines
                .push(Line::new().put(Ink::Caution, text).put(Ink::Dim, "a firewall may drop their packets"));
        }
        lines
    }
}

/// A screen for a table of text that its reader knows otherwise: `heading`, then as many lines as fit. With
/// `trouble` the table is what was last seen.
pub fn table(heading: &str, text: &str, trouble: Option<&str>, size: Size, style: Style) -> String {
    let (ink, rows) = if trouble.is_some() { (Ink::Dim, Ink::Dim) } else { (Ink::Good, Ink::Plain) };
    let mut lines = vec![Line::new().put(ink, format!(" ● {heading}")).put(Ink::Dim, "   q quits")];
    lines.extend(trouble.map(|trouble| Line::new().put(Ink::Bad, format!(" {trouble}"))));
    let room = usize::from(size.rows).saturating_sub(lines.len());
    let mut table = vec![Line::new()];
    table.extend(text.lines().map(|line| Line::new().put(rows, format!(" {line}"))));
    lines.extend(shortened(table, room));
    finish(lines, size, style)
}

/// One screen without memory: the view after `before` and then, `elapsed` later, `current`.
pub fn render(
    before: Option<&Status>,
    current: &Status,
    elapsed: Duration,
    size: Size,
    style: Style,
) -> String {
    let mut view = View::default();
    if let Some(before) = before {
        view.observe(before.clone(), Duration::ZERO);
    }
    view.observe(current.clone(), elapsed);
    view.render(size, style)
}

/// Bytes a second.
struct Rates {
    down: u64,
    up: u64,
}

fn device_rates(device: &Device, before: Option<&Status>, elapsed: Duration) -> Rates {
    let earlier = before.and_then(|before| {
        let same = |earlier: &&Device| earlier.address == device.address;
        before.devices.iter().find(same)
    });
    // A device that is new since then began at nothing.
    let (bytes_in, bytes_out) = earlier.map_or((0, 0), |earlier| (earlier.bytes_in, earlier.bytes_out));
    Rates {
        down: per_second(bytes_in, device.bytes_in, elapsed),
        up: per_second(bytes_out, device.bytes_out, elapsed),
    }
}

fn remember(history: &mut VecDeque<u64>, sample: u64) {
    if history.len() == HISTORY {
        history.pop_front();
    }
    history.push_back(sample);
}

/// A section of a blank line, a heading and rows in at most `room` lines; the last then counts what is missing.
fn shortened(mut lines: Vec<Line>, room: usize) -> Vec<Line> {
    if lines.len() <= room {
        return lines;
    }
    if room < 3 {
        return Vec::new();
    }
    let missing = lines.len() - (room - 1);
    lines.truncate(room - 1);
    lines.push(Line::new().put(Ink::Dim, format!(" … and {missing} more")));
    lines
}

fn finish(mut lines: Vec<Line>, size: Size, style: Style) -> String {
    lines.truncate(usize::from(size.rows));
    while lines.last().is_some_and(Line::is_blank) {
        lines.pop();
    }
    let mut text = String::new();
    for line in &lines {
        line.write(usize::from(size.columns), style, &mut text);
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests;
