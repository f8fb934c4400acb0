//! Status, flows and VPN sessions as aligned text for people.

use std::io::{self, Write};
use std::net::Ipv4Addr;

use super::table::{Edge, Table};
use super::units::{bytes, count, percent, span};
use super::{Device, FlowRow, Queue, Status, Traffic, TunnelIds, TunnelRow, reasons};

/// Writes what `natd status` shows.
///
/// # Errors
/// Those of `out`.
pub fn status(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let Status { version, pid, state, .. } = status;
    writeln!(out, "natd {version} is {state} (pid {pid}, up {})", span(status.uptime_secs))?;
    if let Some(reason) = &status.reason {
        writeln!(out, "  because    {reason}")?;
    }
    let address = status.wan.address.as_deref().unwrap_or("no address");
    writeln!(out, "  WAN        {}  {address}  MTU {}", status.wan.interface, status.wan.mtu)?;
    for lan in &status.lan {
        writeln!(out, "  LAN        {}  {}", lan.interface, lan.prefixes.join(" "))?;
    }
    writeln!(out, "  filtering  {}; queued by {}", status.filtering, status.backend)?;
    let sessions = &status.sessions;
    writeln!(
        out,
        "  sessions   {} of {} ({} %), peak {}: {} TCP, {} UDP, {} ICMP",
        count(sessions.current),
        count(sessions.limit),
        percent(sessions.current, sessions.limit),
        count(sessions.peak),
        count(sessions.by_protocol.tcp),
        count(sessions.by_protocol.udp),
        count(sessions.by_protocol.icmp),
    )?;
    writeln!(out, "  mappings   {}; SYNs held {}", count(status.mappings), count(status.held_syns))?;
    let kernel = &status.kernel;
    writeln!(
        out,
        "  conntrack  {} flows entered, {} not taken",
        count(kernel.admitted),
        count(kernel.admit_failed)
    )?;
    traffic(&status.packets, &status.bytes, out)?;
    devices(&status.devices, out)?;
    named("DROPPED", &status.drops, out)?;
    named("NOTED", &status.notes, out)?;
    queues(&status.queues, out)
}

fn traffic(packets: &Traffic, octets: &Traffic, out: &mut dyn Write) -> io::Result<()> {
    let mut table = Table::new(&[("TRAFFIC", Edge::Left), ("packets", Edge::Right), ("bytes", Edge::Right)]);
    let rows = [
        ("outbound", packets.outbound, octets.outbound),
        ("inbound", packets.inbound, octets.inbound),
        ("hairpin", packets.hairpin, octets.hairpin),
        ("local", packets.local, octets.local),
    ];
    for (way, packets, octets) in rows {
        table.row(0, &[way, &count(packets), &bytes(octets)]);
    }
    writeln!(out)?;
    table.print("", out)
}

fn devices(devices: &[Device], out: &mut dyn Write) -> io::Result<()> {
    if devices.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("DEVICE", Edge::Left),
        ("sessions", Edge::Right),
        ("mappings", Edge::Right),
        ("sent", Edge::Right),
        ("received", Edge::Right),
        ("refused", Edge::Right),
    ]);
    for device in devices {
        table.row(
            address_key(&device.address),
            &[
                &device.address,
                &count(device.sessions),
                &device.mappings.map_or_else(|| "-".into(), count),
                &bytes(device.bytes_out),
                &bytes(device.bytes_in),
                &count(device.refused),
            ],
        );
    }
    writeln!(out)?;
    table.print("", out)
}

fn named(
    heading: &'static str,
    counters: &std::collections::BTreeMap<String, u64>,
    out: &mut dyn Write,
) -> io::Result<()> {
    const DROPPED: &[super::table::Column] =
        &[("DROPPED", Edge::Left), ("packets", Edge::Right), ("", Edge::Left)];
    const NOTED: &[super::table::Column] = &[("NOTED", Edge::Left), ("times", Edge::Right), ("", Edge::Left)];
    let mut table = Table::new(if heading == "DROPPED" { DROPPED } else { NOTED });
    for (name, n) in counters.iter().filter(|(_, n)| **n > 0) {
        table.row(u64::MAX - n, &[name, &count(*n), reasons::explain(name).unwrap_or_default()]);
    }
    if table.len() == 0 {
        return Ok(());
    }
    writeln!(out)?;
    table.print("", out)
}

fn queues(queues: &[Queue], out: &mut dyn Write) -> io::Result<()> {
    if queues.is_empty() {
        return Ok(());
    }
    let mut table = Table::new(&[
        ("QUEUE", Edge::Left),
        ("waiting", Edge::Right),
        ("lost, queue full", Edge::Right),
        ("lost, socket full", Edge::Right),
    ]);
    for queue in queues {
        table.row(
            u64::from(queue.number),
            &[
                &queue.number.to_string(),
                &count(queue.waiting),
                &count(queue.queue_dropped),
                &count(queue.user_dropped),
            ],
        );
    }
    writeln!(out)?;
    table.print("", out)
}

/// The table of `natd flows`: sorted by device, protocol and port, with a heading and a total line.
pub struct Flows {
    table: Table,
    bytes_out: u64,
    bytes_in: u64,
}

impl Default for Flows {
    fn default() -> Self {
        Self {
            table: Table::new(&[
                ("INTERNAL", Edge::Left),
                ("PROTO", Edge::Left),
                ("EXTERNAL", Edge::Left),
                ("REMOTE", Edge::Left),
                ("STATE", Edge::Left),
                ("AGE", Edge::Right),
                ("IDLE", Edge::Right),
                ("EXPIRES", Edge::Right),
                ("SENT", Edge::Right),
                ("RECEIVED", Edge::Right),
                ("FROM", Edge::Left),
                ("NAME", Edge::Left),
            ]),
            bytes_out: 0,
            bytes_in: 0,
        }
    }
}

impl Flows {
    /// Adds a row; the order does not matter.
    pub fn add(&mut self, flow: &FlowRow) {
        self.bytes_out = self.bytes_out.saturating_add(flow.bytes_out);
        self.bytes_in = self.bytes_in.saturating_add(flow.bytes_in);
        self.table.row(
            flow_key(flow),
            &[
                &flow.internal,
                &flow.protocol,
                &flow.external,
                &flow.remote,
                &flow.state,
                &span(flow.age_secs),
                &span(flow.idle_secs),
                &span(flow.expires_secs),
                &bytes(flow.bytes_out),
                &bytes(flow.bytes_in),
                &flow.origin,
                flow.name.as_deref().unwrap_or_default(),
            ],
        );
    }

    /// Writes the table and its total.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn print(self, out: &mut dyn Write) -> io::Result<()> {
        let rows = self.table.len();
        let (sent, received) = (bytes(self.bytes_out), bytes(self.bytes_in));
        if rows > 0 {
            self.table.print("", out)?;
        }
        let noun = if rows == 1 { "flow" } else { "flows" };
        writeln!(out, "{rows} {noun}, {sent} sent, {received} received")
    }
}

/// Writes what `natd sessions` shows: sorted by device, with a heading.
///
/// # Errors
/// Those of `out`.
pub fn sessions(tunnels: &[TunnelRow], out: &mut dyn Write) -> io::Result<()> {
    if tunnels.is_empty() {
        return writeln!(out, "no VPN sessions");
    }
    let mut table = Table::new(&[
        ("DEVICE", Edge::Left),
        ("SERVER", Edge::Left),
        ("PROTOCOL", Edge::Left),
        ("PHASE", Edge::Left),
        ("AGE", Edge::Right),
        ("SENT", Edge::Right),
        ("RECEIVED", Edge::Right),
        ("IDS", Edge::Left),
        ("REMARK", Edge::Left),
    ]);
    for tunnel in tunnels {
        let mut phase = tunnel.phase.clone();
        if let Some(reason) = &tunnel.reason {
            phase = phase + ": " + reason;
        }
        let ids: Vec<String> = tunnel.ids.iter().map(shown_ids).collect();
        table.row(
            address_key(&tunnel.device),
            &[
                &tunnel.device,
                &tunnel.server,
                &tunnel.protocol,
                &phase,
                &span(tunnel.age_secs),
                &bytes(tunnel.bytes_out),
                &bytes(tunnel.bytes_in),
                &ids.join(", "),
                tunnel.remark.as_deref().unwrap_or_default(),
            ],
        );
    }
    table.print("", out)
}

/// `call 100=50514/7`: inside, what stands for it outside if that differs, and the server's.
fn shown_ids(ids: &TunnelIds) -> String {
    let known = |id: &Option<String>| id.clone().unwrap_or_else(|| "?".to_owned());
    let mut text = ids.kind.clone() + " " + &known(&ids.inside);
    if ids.outside.is_some() && ids.outside != ids.inside {
        text = text + "=" + &known(&ids.outside);
    }
    text = text + "/" + &known(&ids.remote);
    match &ids.learned {
        Some(learned) => text + " (" + learned + ")",
        None => text,
    }
}

/// Sorts by device, then protocol, then port.
fn flow_key(flow: &FlowRow) -> u64 {
    let (address, port) = flow.internal.rsplit_once(':').unwrap_or((&flow.internal, ""));
    let protocol = match flow.protocol.as_str() {
        "tcp" => 0,
        "udp" => 1,
        "icmp" => 2,
        _ => 3,
    };
    address_key(address) << 24 | protocol << 16 | u64::from(port.parse::<u16>().unwrap_or_default())
}

/// Sorts as addresses, not as text; what is no address comes last.
fn address_key(address: &str) -> u64 {
    address.parse::<Ipv4Addr>().map_or(u64::from(u32::MAX) + 1, |address| u64::from(address.to_bits()))
}

#[cfg(test)]
mod tests {
    use super::super::{State, samples};
    use super::*;

    fn shown(status: &Status) -> String {
        let mut out = Vec::new();
        super::status(status, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn a_household_fits_on_one_screen() {
        let expected = "\
natd 0.1.0 is translating (pid 1234, up 2h04m)
  WAN        eth1  203.0.113.7  MTU 1500
  LAN        br-lan  192.168.1.0/24
  LAN        br-guest  192.0.2.0/25 192.0.2.128/25
  filtering  address-dependent; queued by nft
  sessions   1,234 of 65,536 (1 %), peak 2,000: 1,000 TCP, 200 UDP, 34 ICMP
  mappings   900; SYNs held 3
  conntrack  456 flows entered, 1 not taken

TRAFFIC   packets      bytes
outbound  400,000   47.6 MiB
inbound   800,000    1.0 GiB
hairpin        12    8.7 KiB
local       3,456  390.6 KiB

DEVICE         sessions  mappings       sent   received  refused
192.168.1.9          12         6     1000 B    1.9 KiB        0
192.168.1.10      1,200       600    4.7 MiB  858.3 MiB        0
192.168.1.200        22         -  292.9 KiB   39.0 KiB        4

DROPPED        packets
filtered         1,234  the device never sent anything to that sender
malformed            2  its headers contradict each other
something-new        1

NOTED          times
inexact-reset      5  TCP resets that were not exact, forwarded without effect

QUEUE  waiting  lost, queue full  lost, socket full
0            3                 0                  0
1            0                 7                  2
";
        assert_eq!(shown(&samples::status()), expected);
    }

    #[test]
    fn a_daemon_without_an_address_says_what_it_waits_for() {
        let status = Status {
            version: "0.1.0".into(),
            pid: 7,
            uptime_secs: 5,
            state: State::WaitingForAddress,
            reason: Some("eth1 has no IPv4 address".into()),
            ..Status::default()
        };
        let text = shown(&status);
        let mut lines = text.lines();
        assert_eq!(lines.next(), Some("natd 0.1.0 is waiting for an address (pid 7, up 5s)"));
        assert_eq!(lines.next(), Some("  because    eth1 has no IPv4 address"));
        assert!(!text.contains("DROPPED") && !text.contains("DEVICE") && !text.contains("QUEUE"));
    }

    #[test]
    fn flows_are_sorted_by_device_then_protocol_then_port() {
        let tcp = samples::flow();
        let udp = FlowRow {
            protocol: "udp".into(),
            internal: "192.168.1.10:500".into(),
            external: "203.0.113.7:500".into(),
            remote: "198.51.100.9:500".into(),
            state: "replied".into(),
            bytes_in: 100,
            name: Some("IKE".into()),
            ..tcp.clone()
        };
        let other = FlowRow { internal: "192.168.1.9:60000".into(), ..udp.clone() };
        let late = FlowRow { internal: "192.168.1.10:50001".into(), ..tcp.clone() };
        let mut flows = Flows::default();
        for flow in [&udp, &late, &tcp, &other] {
            flows.add(flow);
        }
        let mut out = Vec::new();
        flows.print(&mut out).unwrap();
        let expected = "\
INTERNAL            PROTO  EXTERNAL           REMOTE            STATE          AGE  IDLE  EXPIRES     SENT  RECEIVED  FROM      NAME
192.168.1.9:60000   udp    203.0.113.7:500    198.51.100.9:500  replied      5m02s    2s    2h03m  4.0 KiB     100 B  outbound  IKE
192.168.1.10:50000  tcp    203.0.113.7:50000  198.51.100.4:443  established  5m02s    2s    2h03m  4.0 KiB   1.2 MiB  outbound
192.168.1.10:50001  tcp    203.0.113.7:50000  198.51.100.4:443  established  5m02s    2s    2h03m  4.0 KiB   1.2 MiB  outbound
192.168.1.10:500    udp    203.0.113.7:500    198.51.100.9:500  replied      5m02s    2s    2h03m  4.0 KiB     100 B  outbound  IKE
4 flows, 16.0 KiB sent, 2.4 MiB received
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
    }

    #[test]
    fn sessions_are_sorted_by_device_and_show_their_ids() {
        let id = |text: &str| Some(text.to_owned());
        let call = TunnelIds {
            kind: "call".into(),
            inside: id("100"),
            outside: id("50514"),
            remote: id("7"),
            learned: None,
        };
        let pptp = TunnelRow {
            protocol: "PPTP".into(),
            device: "192.168.1.9".into(),
            phase: "closed".into(),
            reason: id("stop request"),
            ids: vec![call],
            remark: id("no encryption to rely on"),
            ..samples::tunnel()
        };
        let bare = TunnelRow { ids: vec![], phase: "data".into(), ..samples::tunnel() };
        let mut out = Vec::new();
        sessions(&[samples::tunnel(), pptp, bare], &mut out).unwrap();
        let expected = "\
DEVICE        SERVER        PROTOCOL   PHASE                   AGE     SENT  RECEIVED  IDS                                                     REMARK
192.168.1.9   198.51.100.9  PPTP       closed: stop request  1h05m  4.0 KiB   1.2 MiB  call 100=50514/7                                        no encryption to rely on
192.168.1.10  198.51.100.9  IPsec ESP  rekey                 1h05m  4.0 KiB   1.2 MiB  spi ?/0x00000002, spi 0x1a2b3c4d/0x55667788 (evidence)
192.168.1.10  198.51.100.9  IPsec ESP  data                  1h05m  4.0 KiB   1.2 MiB
";
        assert_eq!(String::from_utf8(out).unwrap(), expected);
        let mut out = Vec::new();
        sessions(&[], &mut out).unwrap();
        assert_eq!(out, b"no VPN sessions\n");
    }

    #[test]
    fn no_flows_is_one_line() {
        let mut out = Vec::new();
        Flows::default().print(&mut out).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "0 flows, 0 B sent, 0 B received\n");
    }
}
