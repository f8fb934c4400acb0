//! The status in the Prometheus text exposition format, version 0.0.4.
//!
//! Counters end in `_total`; each metric has one HELP and one TYPE line, followed by all its samples. Label
//! values are escaped; an unknown value has no sample.

use std::fmt::Write as _;
use std::io::{self, Write};

use super::{Device, State, Status, Traffic};

/// Writes the exposition.
///
/// # Errors
/// Those of `out`.
pub fn exposition(status: &Status, out: &mut dyn Write) -> io::Result<()> {
    let mut page = Page { text: String::new() };
    daemon(status, &mut page);
    traffic(status, &mut page);
    devices(&status.devices, &mut page);
    out.write_all(page.text.as_bytes())
}

fn daemon(status: &Status, page: &mut Page) {
    page.metric("natd_info", Kind::Gauge, "What runs here; the value is always 1");
    let address = status.wan.address.as_deref().unwrap_or_default();
    page.sample(
        "natd_info",
        &[
            ("version", &status.version),
            ("backend", &status.backend),
            ("filtering", &status.filtering),
            ("wan_interface", &status.wan.interface),
            ("wan_address", address),
        ],
        1,
    );
    page.metric("natd_state", Kind::Gauge, "1 for the state the daemon is in, 0 for the others");
    for state in State::ALL {
        page.sample("natd_state", &[("state", state.name())], u64::from(state == status.state));
    }
    page.single("natd_uptime_seconds", Kind::Gauge, "Time since the daemon started", status.uptime_secs);
    page.metric("natd_sessions", Kind::Gauge, "Sessions now");
    let by_protocol = &status.sessions.by_protocol;
    for (protocol, n) in [("tcp", by_protocol.tcp), ("udp", by_protocol.udp), ("icmp", by_protocol.icmp)] {
        page.sample("natd_sessions", &[("protocol", protocol)], n);
    }
    page.metric("natd_vpn_sessions", Kind::Gauge, "VPN sessions now");
    for (protocol, n) in &status.vpn_sessions {
        page.sample("natd_vpn_sessions", &[("protocol", protocol)], *n);
    }
    page.single("natd_sessions_limit", Kind::Gauge, "Sessions there may be", status.sessions.limit);
    page.single("natd_sessions_peak", Kind::Gauge, "Most sessions at one time", status.sessions.peak);
    page.single("natd_mappings", Kind::Gauge, "Mappings in use", status.mappings);
    page.single("natd_held_syns", Kind::Gauge, "Unsolicited SYNs that are held", status.held_syns);
    let kernel = &status.kernel;
    let help = "Flows entered into the kernel's connection tracking";
    page.single("natd_conntrack_admitted_total", Kind::Counter, help, kernel.admitted);
    let help = "Flows the kernel's connection tracking did not take";
    page.single("natd_conntrack_admit_failed_total", Kind::Counter, help, kernel.admit_failed);
}

fn traffic(status: &Status, page: &mut Page) {
    for (name, help, traffic) in [
        ("natd_packets_total", "Packets by the way they went", &status.packets),
        ("natd_bytes_total", "Bytes by the way they went", &status.bytes),
    ] {
        page.metric(name, Kind::Counter, help);
        let Traffic { outbound, inbound, hairpin, local } = traffic;
        for (way, n) in [("outbound", outbound), ("inbound", inbound), ("hairpin", hairpin), ("local", local)]
        {
            page.sample(name, &[("way", way)], *n);
        }
    }
    page.metric("natd_dropped_packets_total", Kind::Counter, "Packets dropped, by reason");
    for (reason, n) in &status.drops {
        page.sample("natd_dropped_packets_total", &[("reason", reason)], *n);
    }
    page.metric("natd_notes_total", Kind::Counter, "What was seen and not dropped for it");
    for (name, n) in &status.notes {
        page.sample("natd_notes_total", &[("name", name)], *n);
    }
    page.metric("natd_queue_waiting", Kind::Gauge, "Packets that wait in a queue");
    for queue in &status.queues {
        page.sample("natd_queue_waiting", &[("queue", &queue.number.to_string())], queue.waiting);
    }
    page.metric(
        "natd_queue_lost_packets_total",
        Kind::Counter,
        "Packets the kernel lost before natd saw them",
    );
    for queue in &status.queues {
        let number = queue.number.to_string();
        for (full, n) in [("queue", queue.queue_dropped), ("socket", queue.user_dropped)] {
            page.sample("natd_queue_lost_packets_total", &[("queue", &number), ("full", full)], n);
        }
    }
}

fn devices(devices: &[Device], page: &mut Page) {
    page.metric("natd_device_sessions", Kind::Gauge, "Sessions of a device");
    for device in devices {
        page.sample("natd_device_sessions", &[("device", &device.address)], device.sessions);
    }
    page.metric("natd_device_mappings", Kind::Gauge, "Mappings of a device");
    for (device, mappings) in devices.iter().filter_map(|device| Some((device, device.mappings?))) {
        page.sample("natd_device_mappings", &[("device", &device.address)], mappings);
    }
    page.metric("natd_device_bytes_total", Kind::Counter, "Bytes of a device");
    for device in devices {
        page.both_ways("natd_device_bytes_total", device, device.bytes_out, device.bytes_in);
    }
    page.metric("natd_device_packets_total", Kind::Counter, "Packets of a device");
    for device in devices {
        page.both_ways("natd_device_packets_total", device, device.packets_out, device.packets_in);
    }
    page.metric("natd_device_refused_sessions_total", Kind::Counter, "Sessions refused because of a limit");
    for device in devices {
        page.sample("natd_device_refused_sessions_total", &[("device", &device.address)], device.refused);
    }
}

#[derive(Clone, Copy)]
enum Kind {
    Gauge,
    Counter,
}

struct Page {
    text: String,
}

impl Page {
    fn metric(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Gauge => "gauge",
            Kind::Counter => "counter",
        };
        // Writing to a String does not fail, here and below.
        let _ = writeln!(self.text, "# HELP {name} {help}.\n# TYPE {name} {kind}");
    }

    fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: u64) {
        self.text.push_str(name);
        for (place, (label, text)) in labels.iter().enumerate() {
            self.text.push_str(if place == 0 { "{" } else { "," });
            self.text.push_str(label);
            self.text.push_str("=\"");
            self.escaped(text);
            self.text.push('"');
        }
        let close = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.text, "{close} {value}");
    }

    fn single(&mut self, name: &str, kind: Kind, help: &str, value: u64) {
        self.metric(name, kind, help);
        self.sample(name, &[], value);
    }

    fn both_ways(&mut self, name: &str, device: &Device, sent: u64, received: u64) {
        for (direction, n) in [("outbound", sent), ("inbound", received)] {
            self.sample(name, &[("device", &device.address), ("direction", direction)], n);
        }
    }

    fn escaped(&mut self, text: &str) {
        for c in text.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '"' => self.text.push_str("\\\""),
                '\n' => self.text.push_str("\\n"),
                other => self.text.push(other),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{BTreeMap, BTreeSet};

    use super::super::samples;
    use super::*;

    fn shown(status: &Status) -> String {
        let mut out = Vec::new();
        exposition(status, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn every_sample_follows_its_own_help_and_type_and_none_stands_twice() {
        let page = shown(&samples::status());
        let mut types = BTreeMap::new();
        let mut samples = BTreeSet::new();
        let mut current = "";
        for line in page.lines() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                current = help.split(' ').next().unwrap();
                assert!(help.len() > current.len() + 3, "{line}");
                continue;
            }
            if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').unwrap();
                assert_eq!(name, current);
                assert!(types.insert(name, kind).is_none(), "{name} stands twice");
                assert_eq!(name.ends_with("_total"), kind == "counter", "{line}");
                continue;
            }
            let (sample, value) = line.rsplit_once(' ').unwrap();
            assert_eq!(sample.split('{').next(), Some(current), "{line}");
            value.parse::<u64>().unwrap();
            assert!(samples.insert(sample), "{sample} stands twice");
        }
        assert_eq!(types.len(), 22);
        assert_eq!(samples.len(), 55);
    }

    #[test]
    fn samples_carry_the_status() {
        let page = shown(&samples::status());
        for line in [
            "natd_info{version=\"0.1.0\",backend=\"nft\",filtering=\"address-dependent\",wan_interface=\"eth1\",\
             wan_address=\"203.0.113.7\"} 1",
            "natd_state{state=\"translating\"} 1",
            "natd_state{state=\"waiting-for-address\"} 0",
            "natd_uptime_seconds 7440",
            "natd_sessions{protocol=\"udp\"} 200",
            "natd_vpn_sessions{protocol=\"IPsec ESP\"} 1",
            "natd_packets_total{way=\"inbound\"} 800000",
            "natd_bytes_total{way=\"hairpin\"} 9000",
            "natd_dropped_packets_total{reason=\"filtered\"} 1234",
            "natd_notes_total{name=\"inexact-reset\"} 5",
            "natd_queue_lost_packets_total{queue=\"1\",full=\"socket\"} 2",
            "natd_conntrack_admit_failed_total 1",
            "natd_device_mappings{device=\"192.168.1.10\"} 600",
            "natd_device_bytes_total{device=\"192.168.1.10\",direction=\"inbound\"} 900000000",
            "natd_device_refused_sessions_total{device=\"192.168.1.200\"} 4",
        ] {
            assert!(page.lines().any(|shown| shown == line), "{line} is not in\n{page}");
        }
        assert!(!page.contains("natd_device_mappings{device=\"192.168.1.200\"}"), "unknown is not a number");
    }

    #[test]
    fn label_values_are_escaped() {
        let mut status = samples::status();
        status.wan.interface = "a\"b\\c\nd".into();
        assert!(shown(&status).contains("wan_interface=\"a\\\"b\\\\c\\nd\",wan_address"));
    }
}
