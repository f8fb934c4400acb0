//! Public captures through recognition and through `natd diagnose`'s reader: never a panic, whatever they hold and
//! wherever they are cut off; and what is known to be in the well-known ones is seen there.
//!
//! NATD_CAPTURES names a folder of .pcap, .cap and .pcapng files. Without it this says so and tests nothing.
#![expect(clippy::unwrap_used, clippy::indexing_slicing, reason = "what goes wrong here fails the test")]

use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;
use std::{env, fs, io};

use diagnosis::{Settings, Vantage};
use nat_core::packet::PacketView;
use natd::capture_file::{self, CaptureError, Read};
use passthrough::sighting::{Sighting, recognise};
use passthrough::{esp, ike, openvpn, wireguard};

#[path = "captures/pcap.rs"]
mod pcap;

/// What a capture must show: how many packets of each name, as [`name`] gives it, and no others.
type Known = (&'static str, &'static [(&'static str, usize)]);

/// Captures from the-tcpdump-group/tcpdump (tests/, named tcpdump-*) and corelight's zeek-spicy-ipsec, -wireguard
/// and -openvpn (zeek-*). The numbers were compared with what tshark says of them.
const KNOWN: [Known; 14] = [
    ("tcpdump-02-sunrise-sunset-esp.pcap", &[("ESP", 8)]),
    ("tcpdump-isakmp-no-none-np.pcapng", &[("V1 Informational1 notify 5 5", 1)]),
    (
        "tcpdump-isakmp4500.pcap",
        &[
            ("ESP in UDP", 8),
            ("V1 Informational1 encrypted marked", 1),
            ("V1 MainMode NAT-T", 4),
            ("V1 MainMode encrypted marked", 2),
            ("V1 QuickMode encrypted marked", 8),
            ("keepalive", 4),
        ],
    ),
    ("tcpdump-ikev2pI2-segfault.pcapng", &[("V2 SaInit", 1)]),
    ("tcpdump-pptp.pcap", &[("PPTP", 7), ("PPTP GRE 0", 1)]),
    (
        "zeek-ikev1-certs.pcap",
        &[
            ("V1 MainMode NAT-T", 1),
            ("V1 MainMode no NAT-T", 3),
            ("V1 MainMode encrypted", 2),
            ("V1 QuickMode encrypted", 4),
        ],
    ),
    (
        "zeek-ipsec-ikev1-isakmp-aggressive-mode.pcap",
        &[("V1 Aggressive NAT-T", 2), ("V1 Aggressive encrypted", 1), ("V1 QuickMode encrypted", 3)],
    ),
    ("zeek-ipsec-ikev1-payload-bad-length.pcap", &[("V1 MainMode", 1)]),
    ("zeek-ipsec-ikev1-zero-length.pcap", &[]),
    (
        "zeek-ipsec.cap",
        &[
            ("ESP", 16),
            ("V1 Informational1 notify 14", 1),
            ("V1 MainMode NAT-T", 5),
            ("V1 MainMode encrypted", 2),
            ("V1 QuickMode encrypted", 3),
        ],
    ),
    (
        "zeek-ipsec_client.pcap",
        &[
            ("V2 Auth encrypted marked", 3),
            ("V2 SaInit NAT-T notify 16388 16389", 1),
            ("V2 SaInit NAT-T notify 16388 16389 16404", 1),
        ],
    ),
    (
        "zeek-openvpn_udp_tls-auth.pcap",
        &[
            ("OpenVPN Ack", 176),
            ("OpenVPN Control", 184),
            ("OpenVPN DataV1", 75),
            ("OpenVPN HardResetClientV2 proven", 2),
            ("OpenVPN HardResetServerV2 proven", 2),
        ],
    ),
    (
        "zeek-wireguard.pcap",
        &[("WireGuard data", 170), ("WireGuard initiation", 1), ("WireGuard response", 1)],
    ),
    ("tcpdump-esp_truncated.pcap", &[]),
];

#[test]
fn captures_show_what_they_hold() {
    let Some(captures) = captures() else { return };
    for (file, expected) in KNOWN {
        let path = captures.iter().find(|path| path.file_name().is_some_and(|name| name == file));
        let path = path.unwrap_or_else(|| panic!("{file} is not in NATD_CAPTURES"));
        let packets = pcap::packets(&fs::read(path).unwrap());
        let seen = sightings(&pcap::reassembled(&packets));
        let expected: BTreeMap<_, _> = expected.iter().map(|&(name, n)| (name.to_owned(), n)).collect();
        assert_eq!(seen, expected, "{file}");
    }
}

#[test]
fn no_capture_makes_recognition_panic_however_it_is_cut_off() {
    let Some(captures) = captures() else { return };
    let (mut packets, mut cuts) = (0, 0);
    for path in &captures {
        let all = pcap::packets(&fs::read(path).unwrap());
        for packet in &all {
            look(packet);
        }
        for packet in all.iter().take(200) {
            for len in 0..packet.len() {
                look(&packet[..len]);
                look(&agreeing(&packet[..len]));
            }
            cuts += packet.len();
        }
        packets += all.len();
    }
    say(&format!("{} files, {packets} packets, {cuts} cuts", captures.len()));
    assert!(packets > 0, "no packets in {captures:?}");
}

/// What the reader makes of a capture: frames, IP packets among them, whether it is read to its end, and the codes
/// of its findings, the most important first; `None`: not looked at.
type Diagnosed = (&'static str, u64, u64, bool, Option<&'static [&'static str]>);

/// Counts as capinfos and tshark have them.
const DIAGNOSED: [Diagnosed; 21] = [
    ("tcpdump-02-sunrise-sunset-esp.pcap", 8, 8, true, None),
    ("tcpdump-esp_truncated.pcap", 1, 1, true, None),
    ("tcpdump-gre-heapoverflow-2.pcap", 2, 1, true, None),
    ("tcpdump-ikev2-id-short.pcap", 1, 1, true, None),
    ("tcpdump-ikev2pI2-segfault.pcapng", 1, 1, true, None),
    ("tcpdump-isakmp-no-none-np.pcapng", 1, 1, true, None),
    ("tcpdump-isakmp-pointer-loop.pcap", 1, 1, true, None),
    ("tcpdump-isakmp-rfc3948-oobr.pcap", 23, 1, true, None),
    ("tcpdump-isakmp-various-oobr.pcap", 2, 2, true, None),
    ("tcpdump-isakmp4500.pcap", 35, 27, true, None),
    ("tcpdump-isakmpv1-attr-oobr.pcap", 1, 1, true, None),
    ("tcpdump-l2tp-avp-overflow.pcap", 20, 18, true, None),
    ("tcpdump-pptp.pcap", 23, 23, true, None),
    ("zeek-ikev1-certs.pcap", 10, 10, true, None),
    ("zeek-ipsec-ikev1-isakmp-aggressive-mode.pcap", 6, 6, true, None),
    ("zeek-ipsec-ikev1-payload-bad-length.pcap", 1, 1, true, None),
    ("zeek-ipsec-ikev1-zero-length.pcap", 1, 1, true, None),
    ("zeek-ipsec.cap", 27, 27, true, None),
    ("zeek-ipsec_client.pcap", 11, 11, true, None),
    ("zeek-openvpn_udp_tls-auth.pcap", 440, 440, true, None),
    ("zeek-wireguard.pcap", 180, 172, true, None),
];

#[test]
fn captures_are_diagnosed() {
    let Some(captures) = captures() else { return };
    for (file, packets, ip_packets, whole, codes) in DIAGNOSED {
        let path = captures.iter().find(|path| path.file_name().is_some_and(|name| name == file));
        let path = path.unwrap_or_else(|| panic!("{file} is not in NATD_CAPTURES"));
        let read = diagnose(path).unwrap();
        let seen = (read.packets, read.ip_packets, read.remark.is_none());
        assert_eq!(seen, (packets, ip_packets, whole), "{file}: {:?}", read.remark);
        let findings = read.household.findings(read.last, None, None);
        let found: Vec<_> = findings.iter().map(|finding| finding.code.name()).collect();
        if let Some(codes) = codes {
            assert_eq!(found, codes, "{file}");
        }
    }
}

#[test]
fn no_capture_makes_the_reader_panic_however_it_is_cut_off_or_changed() {
    let Some(captures) = captures() else { return };
    let scrap = env::temp_dir().join(format!("natd-captures-{}.pcap", std::process::id()));
    let (mut read, mut refused) = (0, 0);
    for path in &captures {
        let whole = fs::read(path).unwrap();
        for round in 0..60 {
            let mut bytes = whole.clone();
            let place = bytes.len() * round / 60;
            if round % 2 == 0 {
                bytes.truncate(place);
            } else {
                bytes[place] ^= 0xff;
            }
            fs::write(&scrap, bytes).unwrap();
            match diagnose(&scrap) {
                Ok(household) => {
                    let _ = household.household.findings(household.last, None, None);
                    read += 1;
                }
                Err(error) => {
                    assert_eq!(error.to_string().lines().count(), 1, "{error}");
                    refused += 1;
                }
            }
        }
    }
    fs::remove_file(&scrap).unwrap();
    say(&format!("{read} damaged captures read, {refused} refused"));
    assert!(read > 0 && refused > 0, "{read} read, {refused} refused");
}

/// Reads a capture as `natd diagnose` does.
fn diagnose(path: &Path) -> Result<Read, CaptureError> {
    let settings = Settings {
        lan: Vec::new(),
        pairs: 1024,
        memory: Duration::from_secs(86_400),
        vantage: Vantage { lan: true, wan: false, router: false, dns: true },
        servers: Vec::new(),
        events: false,
    };
    capture_file::read(path, settings, &mut |_| {})
}

/// The capture files of the folder, sorted; `None`, said aloud, without a folder.
fn captures() -> Option<Vec<PathBuf>> {
    let Some(folder) = env::var_os("NATD_CAPTURES") else {
        say("skipped, NATD_CAPTURES is not set");
        return None;
    };
    let entries = fs::read_dir(&folder).unwrap_or_else(|error| panic!("NATD_CAPTURES={folder:?}: {error}"));
    let mut paths: Vec<_> = entries.map(|entry| entry.unwrap().path()).collect();
    let kinds = ["pcap", "cap", "pcapng"];
    paths.retain(|path| path.extension().is_some_and(|kind| kinds.iter().any(|known| kind == *known)));
    paths.sort();
    assert!(!paths.is_empty(), "NATD_CAPTURES={folder:?} holds no captures");
    Some(paths)
}

/// Past the test harness, which keeps what passing tests print.
fn say(text: &str) {
    let _ = writeln!(io::stderr(), "captures: {text}");
}

/// How many packets of each name there are. Packets that are no VPN's do not count.
fn sightings(packets: &[Vec<u8>]) -> BTreeMap<String, usize> {
    let mut seen = BTreeMap::new();
    for view in packets.iter().filter_map(|packet| PacketView::parse(packet).ok()) {
        if let Some(sighting) = recognise(&view) {
            *seen.entry(name(&sighting, &view)).or_default() += 1;
        }
    }
    seen
}

fn name(sighting: &Sighting<'_>, packet: &PacketView<'_>) -> String {
    match sighting {
        Sighting::Ike { header, nat_t_port, message } => {
            let encrypted = if header.is_encrypted() { " encrypted" } else { "" };
            let port = if *nat_t_port { " marked" } else { "" };
            let offer = match ike::nat_t(message) {
                ike::NatT::Offered => " NAT-T",
                ike::NatT::Absent => " no NAT-T",
                ike::NatT::Unknown => "",
            };
            let mut name = format!("{:?} {:?}{encrypted}{port}{offer}", header.version, header.exchange);
            for (place, notify) in ike::notifies(message).enumerate() {
                name += if place == 0 { " notify" } else { "" };
                name += &format!(" {}", notify.kind);
            }
            name
        }
        Sighting::NatTKeepalive => "keepalive".into(),
        Sighting::NatTEsp(_) => "ESP in UDP".into(),
        Sighting::Esp(_) => "ESP".into(),
        Sighting::Ah(_) => "AH".into(),
        Sighting::PptpControl => "PPTP".into(),
        Sighting::PptpGre { call_id, .. } => format!("PPTP GRE {call_id}"),
        Sighting::Gre { .. } => "GRE".into(),
        Sighting::L2tp { version, control, .. } => format!("L2TPv{version} control={control}"),
        Sighting::L2tpIp { .. } => "L2TPv3".into(),
        Sighting::WireGuard(wireguard::Message::Initiation { .. }) => "WireGuard initiation".into(),
        Sighting::WireGuard(wireguard::Message::Response { .. }) => "WireGuard response".into(),
        Sighting::WireGuard(wireguard::Message::CookieReply { .. }) => "WireGuard cookie".into(),
        Sighting::WireGuard(wireguard::Message::Data { .. }) => "WireGuard data".into(),
        Sighting::OpenVpn(seen) => {
            let proven = openvpn::parse_udp(&packet.bytes[28..]) == Some(*seen);
            format!("OpenVPN {:?}{}", seen.opcode, if proven { " proven" } else { "" })
        }
    }
}

/// Every way a packet can come in, and all parsers on all that could be theirs.
fn look(packet: &[u8]) {
    for view in [PacketView::parse(packet), PacketView::parse_quote(packet)].into_iter().flatten() {
        let _ = recognise(&view);
    }
    for offset in [20, 28, 32] {
        let Some(payload) = packet.get(offset..) else { return };
        assert!(ike::payloads(payload).count() <= 64);
        let _ = ike::notifies(payload).count();
        let _ = (ike::nat_t(payload), ike::invalid_spi(payload), ike::fragment(payload));
        let _ = (ike::nat_t_packet(payload), wireguard::parse(payload));
        let _ = (esp::EspHeader::parse(payload), esp::AhHeader::parse(payload));
        let _ = (openvpn::parse_udp(payload), openvpn::read_tcp(payload), openvpn::parse_tcp(payload));
    }
}

/// The packet with the lengths of its IP and UDP headers changed to what is there, so that it is taken for whole.
fn agreeing(packet: &[u8]) -> Vec<u8> {
    let mut packet = packet.to_vec();
    let len = u16::try_from(packet.len()).unwrap();
    if let Some(total) = packet.get_mut(2..4) {
        total.copy_from_slice(&len.to_be_bytes());
    }
    if let (Some(&[0x45, ..]), Some(&17)) = (packet.first_chunk::<1>(), packet.get(9)) {
        if let Some(length) = packet.get_mut(24..26) {
            length.copy_from_slice(&len.saturating_sub(20).to_be_bytes());
        }
    }
    packet
}
