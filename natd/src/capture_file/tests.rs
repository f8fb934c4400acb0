use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use diagnosis::Vantage;

use super::*;

const LAN: [u8; 4] = [192, 168, 1, 11];
const WAN: [u8; 4] = [203, 0, 113, 1];
const SERVER: [u8; 4] = [198, 51, 100, 10];

#[test]
fn every_file_that_cannot_be_read_is_told_in_one_line() {
    let folder = Folder::new();
    let mut rows: Vec<(&str, Option<Vec<u8>>, &str)> = vec![
        ("absent.pcap", None, "no such file"),
        ("empty.pcap", Some(vec![]), "is empty: not even the head of a capture was written"),
        ("notes.txt", Some(b"my VPN does not work".to_vec()), "not a capture: neither pcap nor pcapng"),
        (
            "short.pcap",
            Some(classic(MICROS, 1, &[])[..20].to_vec()),
            "not a capture: neither pcap nor pcapng",
        ),
        ("one.pcap.gz", Some(vec![0x1f, 0x8b, 8, 0, 0, 0]), "is compressed; unpack it first, as with gunzip"),
        ("head.pcap", Some(classic(MICROS, 1, &[])), "a capture without packets"),
        (
            "wifi.pcap",
            Some(classic(MICROS, 127, &[(0, 0, 60, vec![0; 60])])),
            "link type IEEE802_11_RADIO cannot be read; capture on Ethernet, PPP or with tcpdump -i any",
        ),
    ];
    let mut mixed = section();
    mixed.extend(interface(1, 0, None));
    mixed.extend(interface(101, 0, None));
    mixed.extend(enhanced(0, 1_000_000, &ethernet(LAN, SERVER)));
    rows.push((
        "mixed.pcapng",
        Some(mixed),
        "holds several interfaces of different kinds, which libpcap cannot read; \
         save the packets of each interface on their own",
    ));
    for (name, bytes, expected) in rows {
        let path = folder.0.join(name);
        if let Some(bytes) = bytes {
            fs::write(&path, bytes).unwrap();
        }
        let error = read(&path, settings(), &mut |_| {}).unwrap_err().to_string();
        assert_eq!(error, format!("{}: {expected}", path.display()));
    }
    let error = read(&folder.0, settings(), &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, format!("{}: is a directory, not a capture", folder.0.display()));
    let error = read(Path::new("/dev/null"), settings(), &mut |_| {}).unwrap_err().to_string();
    assert_eq!(error, "/dev/null: is neither a file nor a pipe");
}

#[test]
fn times_are_microseconds_whatever_the_file_counts_in() {
    let folder = Folder::new();
    let frames = |fraction| [(1_700_000_000, fraction, 42, ethernet(LAN, SERVER))];
    let at = Timestamp::from_micros(1_700_000_000_123_456);
    let rows = [
        ("micros.pcap", classic(MICROS, 1, &frames(123_456))),
        ("nanos.pcap", classic(NANOS, 1, &frames(123_456_789))),
        ("big.pcap", big_endian(&frames(123_456))),
        ("default.pcapng", one_interface(None, 1_700_000_000_123_456)),
        ("nanos.pcapng", one_interface(Some(9), 1_700_000_000_123_456_789)),
    ];
    for (name, bytes) in rows {
        let path = folder.0.join(name);
        fs::write(&path, bytes).unwrap();
        let read = read(&path, settings(), &mut |_| {}).unwrap();
        assert_eq!((read.first, read.last, read.remark), (at, at, None), "{name}");
        assert_eq!((read.packets, read.ip_packets, read.link), (1, 1, LinkType(1)), "{name}");
    }
}

#[test]
fn times_after_2038_and_nonsense_are_taken() {
    let folder = Folder::new();
    let path = folder.0.join("late.pcap");
    let frames =
        [(4_000_000_000, 7, 42, ethernet(LAN, SERVER)), (4_000_000_000, u32::MAX, 42, ethernet(LAN, SERVER))];
    fs::write(&path, classic(MICROS, 1, &frames)).unwrap();
    let read = read(&path, settings(), &mut |_| {}).unwrap();
    assert_eq!(read.first, Timestamp::from_micros(4_000_000_000_000_007));
    assert!(read.last <= Timestamp::from_secs(4_000_000_001), "{:?}", read.last);
}

#[test]
fn time_goes_on_where_the_clock_was_set_back() {
    let folder = Folder::new();
    let path = folder.0.join("back.pcap");
    let frames = [9000, 9001, 8999, 1000, 1030, 1027].map(|at| (at, 0, 42, ethernet(LAN, SERVER)));
    fs::write(&path, classic(MICROS, 1, &frames)).unwrap();
    let read = read(&path, settings(), &mut |_| {}).unwrap();
    // What is a little late counts for no jump.
    assert_eq!((read.first, read.last), (Timestamp::from_secs(9000), Timestamp::from_secs(9031)));
    assert_eq!(read.household.now(), read.last);
}

#[test]
fn a_file_cut_off_in_the_middle_is_read_up_to_there() {
    let folder = Folder::new();
    let frame = (1, 0, 42, ethernet(LAN, SERVER));
    let whole = classic(MICROS, 1, &[frame.clone(), frame]);
    for cut in [1, 30, 43, 50] {
        let path = folder.0.join("cut.pcap");
        fs::write(&path, &whole[..whole.len() - cut]).unwrap();
        let read = read(&path, settings(), &mut |_| {}).unwrap();
        assert_eq!((read.packets, read.household.now()), (1, Timestamp::from_secs(1)), "{cut}");
        assert_eq!(read.remark.as_deref(), Some("the file is cut off after packet 1"), "{cut}");
    }
}

#[test]
fn an_interface_of_another_kind_ends_the_reading() {
    let folder = Folder::new();
    let path = folder.0.join("later.pcapng");
    let mut bytes = one_interface(None, 5_000_000);
    bytes.extend(interface(101, 0, None));
    bytes.extend(enhanced(1, 6_000_000, &ethernet(LAN, SERVER)[14..]));
    fs::write(&path, bytes).unwrap();
    let read = read(&path, settings(), &mut |_| {}).unwrap();
    assert_eq!(read.packets, 1);
    assert!(read.remark.unwrap().ends_with("1 packets before that were read"));
}

#[test]
fn several_interfaces_of_one_kind_are_read_each_in_its_own_time() {
    let folder = Folder::new();
    let path = folder.0.join("two.pcapng");
    let mut bytes = one_interface(None, 5_000_000);
    bytes.extend(interface(1, 0, Some(9)));
    bytes.extend(enhanced(1, 6_000_000_000, &ethernet(LAN, SERVER)));
    fs::write(&path, bytes).unwrap();
    let read = read(&path, settings(), &mut |_| {}).unwrap();
    assert_eq!((read.packets, read.remark), (2, None));
    assert_eq!((read.first, read.last), (Timestamp::from_secs(5), Timestamp::from_secs(6)));
}

#[test]
fn the_vantage_is_told_from_addresses() {
    let vantage = |lan, wan| Vantage { lan, wan, router: false, dns: false };
    type Ends = ([u8; 4], [u8; 4]);
    let rows: [(&str, Vec<Ends>, Vantage); 5] = [
        ("LAN", vec![(LAN, SERVER), (SERVER, LAN)], vantage(true, false)),
        ("WAN", vec![(WAN, SERVER)], vantage(false, true)),
        ("both", vec![(LAN, SERVER), (WAN, SERVER)], vantage(true, true)),
        ("a multicast beside", vec![(LAN, SERVER), (WAN, [224, 0, 0, 1])], vantage(true, false)),
        ("in the middle", vec![(LAN, [10, 0, 0, 1])], vantage(true, false)),
    ];
    let folder = Folder::new();
    let path = folder.0.join("some.pcap");
    for (name, pairs, expected) in rows {
        let frames: Vec<_> = pairs.iter().map(|&(src, dst)| (1, 0, 42, ethernet(src, dst))).collect();
        fs::write(&path, classic(MICROS, 1, &frames)).unwrap();
        let read = read(&path, settings(), &mut |_| {}).unwrap();
        assert_eq!(read.household.settings().vantage, expected, "{name}");
    }
    // A LAN of other addresses: the same packets, seen from there.
    let frames = [(1, 0, 42, ethernet(WAN, SERVER))];
    fs::write(&path, classic(MICROS, 1, &frames)).unwrap();
    let lan = Settings { lan: vec![(IpAddr::from([203, 0, 113, 0]), 24)], ..settings() };
    let read = read(&path, lan, &mut |_| {}).unwrap();
    assert_eq!(read.household.settings().vantage, vantage(true, false));
}

#[test]
fn the_bar_is_full_at_the_end() {
    let progress = Progress { bytes: 50, total: Some(200), packets: 7 };
    assert_eq!(line(progress), format!("reading [{}{}]  25 %  7 packets", "#".repeat(7), " ".repeat(23)));
    let end = Progress { bytes: 300, ..progress };
    assert_eq!(line(end), format!("reading [{}] 100 %  7 packets", "#".repeat(30)));
    assert_eq!(line(Progress { total: None, ..progress }), "reading  7 packets");
}

fn settings() -> Settings {
    Settings {
        lan: Vec::new(),
        pairs: 16,
        memory: Duration::from_secs(600),
        vantage: Vantage { lan: false, wan: false, router: true, dns: true },
        servers: Vec::new(),
        events: false,
    }
}

/// ESP in IPv4 in Ethernet: 42 bytes.
fn ethernet(src: [u8; 4], dst: [u8; 4]) -> Vec<u8> {
    let mut frame = vec![2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 8, 0];
    frame.extend([0x45, 0, 0, 28, 0, 1, 0, 0, 64, 50, 0, 0]);
    frame.extend(src);
    frame.extend(dst);
    frame.extend([0, 0, 0, 1, 0, 0, 0, 1]);
    frame
}

const MICROS: u32 = 0xa1b2_c3d4;
const NANOS: u32 = 0xa1b2_3c4d;

/// Seconds, fraction, length on the wire, bytes.
type Record = (u32, u32, u32, Vec<u8>);

fn classic(magic: u32, link: u32, records: &[Record]) -> Vec<u8> {
    encode(magic, link, records, u32::to_le_bytes)
}

fn big_endian(records: &[Record]) -> Vec<u8> {
    encode(MICROS, 1, records, u32::to_be_bytes)
}

fn encode(magic: u32, link: u32, records: &[Record], word: fn(u32) -> [u8; 4]) -> Vec<u8> {
    let version = if word(1)[0] == 1 { 0x0004_0002 } else { 0x0002_0004 };
    let mut bytes: Vec<u8> = [magic, version, 0, 0, 65_535, link].into_iter().flat_map(word).collect();
    for (seconds, fraction, on_wire, frame) in records {
        let len = u32::try_from(frame.len()).unwrap();
        bytes.extend([*seconds, *fraction, len, *on_wire].into_iter().flat_map(word));
        bytes.extend(frame);
    }
    bytes
}

fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let len = u32::try_from(body.len() + 12).unwrap().to_le_bytes();
    [&kind.to_le_bytes()[..], &len, &body, &len].concat()
}

fn section() -> Vec<u8> {
    let magic = 0x1a2b_3c4d_u32.to_le_bytes();
    block(0x0a0d_0d0a, &[&magic[..], &[1, 0, 0, 0], &[0xff; 8]].concat())
}

/// An interface whose times count in 10^-`resolution` seconds.
fn interface(link: u16, snaplen: u32, resolution: Option<u8>) -> Vec<u8> {
    let mut body = [&link.to_le_bytes()[..], &[0, 0], &snaplen.to_le_bytes()].concat();
    if let Some(resolution) = resolution {
        body.extend([9, 0, 1, 0, resolution, 0, 0, 0, 0, 0, 0, 0]);
    }
    block(1, &body)
}

fn enhanced(interface: u32, at: u64, frame: &[u8]) -> Vec<u8> {
    let high = u32::try_from(at >> 32).unwrap();
    let low = u32::try_from(at & 0xffff_ffff).unwrap();
    let len = u32::try_from(frame.len()).unwrap();
    let words = [interface, high, low, len, len].into_iter().flat_map(u32::to_le_bytes);
    block(6, &words.chain(frame.iter().copied()).collect::<Vec<_>>())
}

fn one_interface(resolution: Option<u8>, at: u64) -> Vec<u8> {
    [section(), interface(1, 0, resolution), enhanced(0, at, &ethernet(LAN, SERVER))].concat()
}

/// A folder of one test alone, removed with its files at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Self {
        let unique = format!("natd-captures-{}-{:?}", std::process::id(), std::thread::current().id());
        let path = std::env::temp_dir().join(unique);
        fs::create_dir(&path).unwrap();
        Self(path)
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.0).unwrap();
    }
}
