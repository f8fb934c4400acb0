//! What clients are told.

use std::collections::BTreeMap;
use std::io;
use std::net::{IpAddr, Ipv4Addr};

use nat_core::decision::DropReason;
use nat_core::flow::{Direction, Protocol};
use nat_core::nat::{Counters, Traffic};
use nat_core::policy::Filtering;
use nat_core::session::SessionView;
use nat_core::time::Timestamp;
use passthrough::view::{Ids, Learned, TunnelView};

use super::Shared;
use super::world::Side;
use crate::io::clock;
use crate::io::control::{Answer, ErrorLine, Refusal};
use crate::io::nfqueue::QueueStats;
use crate::io::rules::{Dropped, Kernel};
use crate::report::{self, FlowRow, State, Status, TunnelIds, TunnelRow};

/// Rows read at one time, so that packets do not wait for a whole table.
const ROWS: usize = 256;

/// The daemon's state now.
pub(super) fn status(shared: &Shared, kernel: &Kernel) -> Status {
    let now = clock::now();
    let world = shared.world().clone();
    let (counters, sizes, devices, policy) = {
        let engine = shared.engine();
        let nat = &engine.nat;
        (nat.counters().clone(), nat.sizes(), nat.devices().collect::<Vec<_>>(), nat.policy().clone())
    };
    let [tcp, udp, icmp] = sizes.sessions.map(u64::from);
    let translating = world.state == State::Translating;
    Status {
        version: env!("CARGO_PKG_VERSION").into(),
        pid: std::process::id(),
        uptime_secs: now.since(shared.started).as_secs(),
        state: world.state,
        reason: (!translating).then(|| world.waiting_reason()),
        wan: report::Wan {
            interface: world.wan.name.clone(),
            address: world.wan_address().map(|address| address.to_string()),
            mtu: world.wan.mtu,
        },
        lan: world.lan.iter().map(lan).collect(),
        filtering: filtering(policy.filtering).into(),
        backend: kernel.backend.to_string(),
        sessions: report::Sessions {
            current: tcp + udp + icmp,
            limit: u64::from(policy.limits.sessions),
            peak: u64::from(sizes.peak),
            by_protocol: report::ByProtocol { tcp, udp, icmp },
        },
        mappings: u64::from(sizes.mappings),
        held_syns: u64::from(sizes.held),
        devices: devices
            .iter()
            .map(|device| report::Device {
                address: device.addr.to_string(),
                sessions: u64::from(device.sessions),
                mappings: None,
                bytes_out: device.bytes[0],
                bytes_in: device.bytes[1],
                packets_out: device.packets[0],
                packets_in: device.packets[1],
                refused: device.refused,
            })
            .collect(),
        packets: traffic(&counters, |traffic| traffic.packets),
        bytes: traffic(&counters, |traffic| traffic.bytes),
        drops: drops(&counters, &kernel.dropped().unwrap_or_default()),
        notes: named(counters.notes().map(|(note, count)| (note.name(), count))),
        vpn_sessions: tunnels_by_protocol(shared),
        queues: queues(),
        kernel: report::Kernel {
            admitted: counters.notes().find(|(n, _)| n.name() == "admitted").map_or(0, |(_, count)| count),
            admit_failed: shared.carrier.admit_failed.value(),
        },
    }
}

/// Packets dropped by the engine and by rules of ours, by reason.
fn drops(counters: &Counters, by_rules: &Dropped) -> BTreeMap<String, u64> {
    let Dropped { no_wan_address, inbound_to_lan, lan_source, foreign_source, lan_quote, kernel_nat } =
        *by_rules;
    let by_rules = [
        (DropReason::NoAddress, no_wan_address),
        (DropReason::InboundToLan, inbound_to_lan),
        (DropReason::Guarded, lan_source + foreign_source + lan_quote + kernel_nat),
    ];
    let by_rules = |reason| by_rules.iter().find(|(rule, _)| *rule == reason).map_or(0, |(_, count)| *count);
    named(counters.drops().map(|(reason, count)| (reason.name(), count + by_rules(reason))))
}

fn lan(side: &Side) -> report::Lan {
    let prefixes = side.prefixes().map(|(network, length)| format!("{network}/{length}")).collect();
    report::Lan { interface: side.name.clone(), prefixes }
}

fn filtering(filtering: Filtering) -> &'static str {
    match filtering {
        Filtering::EndpointIndependent => "endpoint-independent",
        Filtering::AddressDependent => "address-dependent",
        Filtering::AddressAndPortDependent => "address-and-port-dependent",
    }
}

fn traffic(counters: &Counters, of: impl Fn(Traffic) -> u64) -> report::Traffic {
    let Counters { outbound, inbound, hairpin, passed, .. } = counters;
    report::Traffic {
        outbound: of(*outbound),
        inbound: of(*inbound),
        hairpin: of(*hairpin),
        local: of(*passed),
    }
}

fn queues() -> Vec<report::Queue> {
    // Without /proc there is nothing to say about queues.
    let all = QueueStats::read_all().unwrap_or_default();
    all.into_iter()
        .map(|queue| report::Queue {
            number: queue.number,
            waiting: queue.waiting.into(),
            queue_dropped: queue.queue_dropped,
            user_dropped: queue.user_dropped,
        })
        .collect()
}

/// Every session of `device` and `protocol`, a line each.
pub(super) fn flows(
    shared: &Shared,
    device: Option<Ipv4Addr>,
    protocol: Option<Protocol>,
    answer: &mut Answer<'_>,
) -> io::Result<()> {
    let mut next = Some(0);
    while let Some(from) = next {
        let (sessions, after) = shared.engine().nat.sessions(from, ROWS);
        next = after;
        let now = clock::now();
        for session in sessions {
            let wanted = device.is_none_or(|device| device == session.internal.addr)
                && protocol.is_none_or(|protocol| protocol == session.protocol);
            if wanted {
                answer.line(&row(&session, now))?;
            }
        }
    }
    Ok(())
}

/// Every VPN session, a line each.
pub(super) fn sessions(shared: &Shared, answer: &mut Answer<'_>) -> io::Result<()> {
    let tunnels = shared.sessions();
    let now = clock::now();
    tunnels.iter().try_for_each(|tunnel| answer.line(&tunnel_row(tunnel, now)))
}

/// What keeps VPNs from working, one line.
pub(super) fn diagnosis(
    shared: &Shared,
    device: Option<IpAddr>,
    server: Option<IpAddr>,
    answer: &mut Answer<'_>,
) -> io::Result<()> {
    match &shared.observer {
        Some(observer) => answer.line(&observer.report(device, server)),
        None => answer.line(&ErrorLine {
            error: "natd does not watch VPNs: diagnosis.observe is false in its configuration".into(),
            code: Refusal::Failed,
        }),
    }
}

fn tunnels_by_protocol(shared: &Shared) -> BTreeMap<String, u64> {
    let tunnels = shared.sessions();
    named(tunnels.iter().map(|tunnel| (tunnel.vpn.name(), 1)))
}

/// Counts by name; those of the same name are added up.
fn named(counts: impl Iterator<Item = (&'static str, u64)>) -> BTreeMap<String, u64> {
    let mut sums = BTreeMap::new();
    // Not collect, which brings a sort with it.
    counts.for_each(|(name, count)| *sums.entry(name.to_owned()).or_default() += count);
    sums
}

impl Shared {
    /// The VPN sessions now.
    fn sessions(&self) -> Vec<TunnelView> {
        let now = clock::now();
        self.engine().sessions(now)
    }
}

fn tunnel_row(tunnel: &TunnelView, now: Timestamp) -> TunnelRow {
    let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    TunnelRow {
        protocol: tunnel.vpn.name().into(),
        device: tunnel.device.to_string(),
        server: tunnel.server.to_string(),
        phase: tunnel.phase.name().into(),
        reason: some(tunnel.reason),
        age_secs: now.since(tunnel.created).as_secs(),
        idle_secs: now.since(tunnel.last_seen).as_secs(),
        bytes_out: tunnel.bytes[0],
        bytes_in: tunnel.bytes[1],
        packets_out: tunnel.packets[0],
        packets_in: tunnel.packets[1],
        ids: tunnel.ids.iter().map(tunnel_ids).collect(),
        remark: some(tunnel.remark),
    }
}

fn tunnel_ids(ids: &Ids) -> TunnelIds {
    let shown = |id: Option<u64>| {
        id.map(|id| match ids.what {
            "spi" => format!("{id:#010x}"),
            "ike" => format!("{id:016x}"),
            _ => id.to_string(),
        })
    };
    // What stands for an IKE SA on the WAN is the port that its device's messages show.
    let outside =
        if ids.what == "ike" { ids.outside.map(|port| port.to_string()) } else { shown(ids.outside) };
    TunnelIds {
        kind: ids.what.into(),
        inside: shown(ids.inside),
        outside,
        remote: shown(ids.remote),
        learned: ids.learned.map(Learned::name).map(Into::into),
    }
}

fn row(session: &SessionView, now: Timestamp) -> FlowRow {
    let origin = match session.origin {
        _ if session.router => "router",
        _ if session.remote.addr == session.external.addr => "hairpin",
        Direction::Outbound => "outbound",
        Direction::Inbound => "inbound",
    };
    FlowRow {
        protocol: session.protocol.to_string(),
        internal: session.internal.to_string(),
        external: session.external.to_string(),
        remote: session.remote.to_string(),
        state: session.state.name().into(),
        age_secs: now.since(session.created).as_secs(),
        idle_secs: now.since(session.last_seen).as_secs(),
        expires_secs: session.deadline.since(now).as_secs(),
        bytes_out: session.bytes[0],
        bytes_in: session.bytes[1],
        packets_out: session.packets[0].into(),
        packets_in: session.packets[1].into(),
        origin: origin.into(),
        name: passthrough::by_port(session.protocol, session.internal.id.0, session.remote.id.0)
            .map(|vpn| vpn.name().into()),
    }
}

#[cfg(test)]
mod tests {
    use passthrough::Vpn;
    use passthrough::view::Phase;

    use super::*;

    #[test]
    fn a_vpn_session_is_reported_with_its_ids_as_packet_dumps_spell_them() {
        let ids = |what, inside, outside, remote, learned| Ids { what, inside, outside, remote, learned };
        let tunnel = TunnelView {
            vpn: Vpn::Esp,
            device: Ipv4Addr::new(192, 168, 1, 10),
            server: Ipv4Addr::new(198, 51, 100, 9),
            phase: Phase::Closed,
            reason: "idle",
            created: Timestamp::from_micros(1_000_000),
            last_seen: Timestamp::from_micros(9_000_000),
            packets: [1, 2],
            bytes: [3, 4],
            ids: vec![
                ids("spi", Some(0x1a2b), Some(0x1a2b), None, Some(Learned::FanOut)),
                ids("ike", Some(0xa1b2), Some(500), Some(u64::MAX), None),
                ids("call", Some(0), Some(50514), Some(7), None),
            ],
            remark: "",
        };
        let row = tunnel_row(&tunnel, Timestamp::from_micros(12_500_000));
        let text = |id: &str| Some(id.to_owned());
        let told = |kind: &str, inside, outside, remote, learned| TunnelIds {
            kind: kind.into(),
            inside,
            outside,
            remote,
            learned,
        };
        let expected = TunnelRow {
            protocol: "IPsec ESP".into(),
            device: "192.168.1.10".into(),
            server: "198.51.100.9".into(),
            phase: "closed".into(),
            reason: text("idle"),
            age_secs: 11,
            idle_secs: 3,
            bytes_out: 3,
            bytes_in: 4,
            packets_out: 1,
            packets_in: 2,
            ids: vec![
                told("spi", text("0x00001a2b"), text("0x00001a2b"), None, text("fan-out")),
                told("ike", text("000000000000a1b2"), text("500"), text("ffffffffffffffff"), None),
                told("call", text("0"), text("50514"), text("7"), None),
            ],
            remark: None,
        };
        assert_eq!(row, expected);
    }
}
