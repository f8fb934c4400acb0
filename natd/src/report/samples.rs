//! A household at two moments, for the tests of the views.

use super::{
    ByProtocol, Device, FlowRow, Kernel, Lan, Queue, Sessions, State, Status, Traffic, TunnelIds, TunnelRow,
    Wan,
};

/// A router with three devices that has been up for two hours.
pub(crate) fn status() -> Status {
    Status {
        version: "0.1.0".into(),
        pid: 1234,
        uptime_secs: 7440,
        state: State::Translating,
        reason: None,
        wan: Wan { interface: "eth1".into(), address: Some("203.0.113.7".into()), mtu: 1500 },
        lan: vec![
            Lan { interface: "br-lan".into(), prefixes: vec!["192.168.1.0/24".into()] },
            Lan {
                interface: "br-guest".into(),
                prefixes: vec!["192.0.2.0/25".into(), "192.0.2.128/25".into()],
            },
        ],
        filtering: "address-dependent".into(),
        backend: "nft".into(),
        sessions: Sessions {
            current: 1234,
            limit: 65_536,
            peak: 2000,
            by_protocol: ByProtocol { tcp: 1000, udp: 200, icmp: 34 },
        },
        mappings: 900,
        held_syns: 3,
        devices: vec![
            device("192.168.1.9", 12, 1_000, 2_000),
            device("192.168.1.10", 1200, 5_000_000, 900_000_000),
            Device { refused: 4, mappings: None, ..device("192.168.1.200", 22, 300_000, 40_000) },
        ],
        packets: Traffic { outbound: 400_000, inbound: 800_000, hairpin: 12, local: 3456 },
        bytes: Traffic { outbound: 50_000_000, inbound: 1_100_000_000, hairpin: 9000, local: 400_000 },
        drops: [("filtered".into(), 1234), ("malformed".into(), 2), ("something-new".into(), 1)].into(),
        notes: [("inexact-reset".into(), 5)].into(),
        vpn_sessions: [("IKE".into(), 2), ("IPsec ESP".into(), 1)].into(),
        queues: vec![
            Queue { number: 0, waiting: 3, queue_dropped: 0, user_dropped: 0 },
            Queue { number: 1, waiting: 0, queue_dropped: 7, user_dropped: 2 },
        ],
        kernel: Kernel { admitted: 456, admit_failed: 1 },
    }
}

/// The same router one second later.
pub(crate) fn second_later() -> Status {
    let mut status = status();
    status.uptime_secs += 1;
    status.packets.inbound += 9_000;
    status.packets.outbound += 1_500;
    status.bytes.inbound += 11_787_500;
    status.bytes.outbound += 390_000;
    if let Some(device) = status.devices.get_mut(1) {
        device.bytes_in += 3_000_000;
        device.bytes_out += 90_000;
    }
    if let Some(device) = status.devices.get_mut(2) {
        device.bytes_in += 8_787_500;
        device.bytes_out += 300_000;
    }
    if let Some(filtered) = status.drops.get_mut("filtered") {
        *filtered += 3;
    }
    status
}

fn device(address: &str, sessions: u64, bytes_out: u64, bytes_in: u64) -> Device {
    Device {
        address: address.into(),
        sessions,
        mappings: Some(sessions / 2),
        bytes_out,
        bytes_in,
        packets_out: bytes_out / 100,
        packets_in: bytes_in / 1000,
        refused: 0,
    }
}

/// An ESP tunnel in the middle of a rekey.
pub(crate) fn tunnel() -> TunnelRow {
    let spi = |inside: Option<&str>, remote: &str, learned: Option<&str>| TunnelIds {
        kind: "spi".into(),
        inside: inside.map(Into::into),
        outside: inside.map(Into::into),
        remote: Some(remote.into()),
        learned: learned.map(Into::into),
    };
    TunnelRow {
        protocol: "IPsec ESP".into(),
        device: "192.168.1.10".into(),
        server: "198.51.100.9".into(),
        phase: "rekey".into(),
        reason: None,
        age_secs: 3900,
        idle_secs: 1,
        bytes_out: 4096,
        bytes_in: 1_300_000,
        packets_out: 60,
        packets_in: 900,
        ids: vec![spi(None, "0x00000002", None), spi(Some("0x1a2b3c4d"), "0x55667788", Some("evidence"))],
        remark: None,
    }
}

/// A TCP connection.
pub(crate) fn flow() -> FlowRow {
    FlowRow {
        protocol: "tcp".into(),
        internal: "192.168.1.10:50000".into(),
        external: "203.0.113.7:50000".into(),
        remote: "198.51.100.4:443".into(),
        state: "established".into(),
        age_secs: 302,
        idle_secs: 2,
        expires_secs: 7438,
        bytes_out: 4096,
        bytes_in: 1_300_000,
        packets_out: 60,
        packets_in: 900,
        origin: "outbound".into(),
        name: None,
    }
}
