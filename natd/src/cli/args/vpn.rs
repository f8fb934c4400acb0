//! The subcommands that find out what is wrong with a VPN.

use std::net::IpAddr;
use std::path::PathBuf;

use super::{CONFIG, Flag, Given, HELP, Invocation, JSON, Operand, SOCKET, Subcommand, Times, WATCH, flag};
use crate::io::control;
use crate::io::probe::{IpVersion, ProbeOptions};

/// For `natd diagnose`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiagnoseOptions {
    /// The control socket.
    pub socket: PathBuf,
    /// The capture; `None` asks the running natd.
    pub file: Option<PathBuf>,
    /// Networks of the devices in the capture, as address and length of the prefix; empty: private addresses.
    pub lan: Vec<(IpAddr, u8)>,
    /// Only this device's VPNs.
    pub device: Option<IpAddr>,
    /// Only VPNs with this server: an address or a name.
    pub server: Option<String>,
    /// JSON instead of text.
    pub json: bool,
    /// Renew it every second.
    pub watch: bool,
}

/// For `natd capture`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaptureOptions {
    /// The configuration file, for the names of the interfaces.
    pub config: PathBuf,
    /// Where to write to.
    pub file: PathBuf,
    /// Only this device's packets.
    pub device: Option<IpAddr>,
    /// Only packets to and from this server.
    pub server: Option<IpAddr>,
    /// Ends after so many seconds.
    pub seconds: u64,
    /// Ends before the file has more bytes.
    pub bytes: u64,
    /// Leave payload uncut.
    pub whole: bool,
}

/// `natd capture` ends after so many seconds unless `--time` says otherwise.
const CAPTURE_SECONDS: u64 = 300;
/// The longest `--time`: a week.
const CAPTURE_SECONDS_MOST: u64 = 7 * 86_400;
/// `natd capture` writes at most so many bytes unless `--size` says otherwise.
const CAPTURE_BYTES: u64 = 50 << 20;

const DEVICE: Flag = flag("--device", Some("ADDR"), "only VPNs of this device on the LAN");
const SERVER: Flag = flag("--server", Some("SERVER"), "only VPNs to this server: an address or a name");
const SERVER_ADDR: Flag = flag("--server", Some("ADDR"), "only packets to and from this server");
const LAN: Flag = Flag {
    times: Times::Many,
    ..flag("--lan", Some("PREFIX"), "with FILE: a network of the devices [the private addresses]")
};
const V4: Flag = flag("-4", None, "over IPv4 only");
const V6: Flag = flag("-6", None, "over IPv6 only");
const WRITE: Flag = Flag { times: Times::Required, ..flag("-w", Some("FILE"), "the capture file to write") };
const TIME: Flag = flag("--time", Some("T"), "how long, such as 90s, 5m or 1h [5m]");
const SIZE: Flag = flag("--size", Some("N"), "how large at most, such as 500k or 50M [50M]");
const WHOLE: Flag = flag("--whole", None, "record payload too; what was not encrypted can then be read");

pub(super) const DIAGNOSE: Subcommand = Subcommand {
    name: "diagnose",
    summary: "why a VPN does not work: who is to blame, how sure, what to do",
    operand: Some(Operand {
        name: "FILE",
        help: "a capture (pcap or pcapng; - is standard input) instead of the running natd",
        required: false,
    }),
    options: &[DEVICE, SERVER, LAN, WATCH, JSON, SOCKET, HELP],
    details: "\
Says what natd saw of VPNs now and in the last minutes, or what a capture shows. What cannot be seen from
there is listed at the end and is not said to be well.

Exit codes: 0 the VPNs work, 1 a problem was found, 2 usage, 4 natd is not running, 5 no permission, 6 no VPN
was seen, or none that is far enough to say.

Examples:
  natd diagnose --device 192.168.1.10
  natd diagnose --server vpn.example.com --watch
  natd diagnose capture.pcap --lan 192.168.1.0/24
  natd diagnose --json | jq -r '.findings[] | [.code, .confidence, .owner[0]] | @tsv'
",
    build: diagnose,
};

pub(super) const PROBE: Subcommand = Subcommand {
    name: "probe",
    summary: "what gets through to a VPN server, without logging in",
    operand: Some(Operand { name: "SERVER", help: "name or address of the VPN server", required: true }),
    options: &[V4, V6, JSON, HELP],
    details: "\
Sends a few packets of each kind of VPN, to this server only: IPsec, PPTP, L2TP, OpenVPN, TLS. No login is
tried. Needs to be run as root, on the router or on a device behind it.

Exit codes: 0 a kind of VPN is answered and no problem was found, 1 a problem was found or the server has no
address, 2 usage, 5 no permission, 6 the server answers no kind of VPN, so nothing can be told.

Examples:
  natd probe vpn.example.com
  natd probe -4 198.51.100.10 --json
",
    build: |given| {
        let version = match (given.has(&V4), given.has(&V6)) {
            (true, true) => return Err("-4 and -6 exclude each other".into()),
            (true, false) => Some(IpVersion::V4),
            (false, true) => Some(IpVersion::V6),
            (false, false) => None,
        };
        let server = given.operand.as_deref().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Invocation::Probe(ProbeOptions { server: named(&server)?, version, json: given.has(&JSON) }))
    },
};

pub(super) const CAPTURE: Subcommand = Subcommand {
    name: "capture",
    summary: "record VPN packets on both sides of the router, fit to be shared",
    operand: None,
    options: &[WRITE, DEVICE, SERVER_ADDR, TIME, SIZE, WHOLE, CONFIG, HELP],
    details: "\
Each packet is recorded as it is on the LAN and as it is on the WAN, without its payload unless --whole is
given. Ends with --time, with --size or with control-C. `natd diagnose FILE` reads it.

Exit codes: 0 recorded, 1 it cannot be, 2 usage, 5 no permission, 6 no VPN packet was seen.

Example:
  natd capture -w vpn.pcapng --device 192.168.1.10 --time 2m
",
    build: |given| {
        let Some(file) = given.value(&WRITE) else {
            return Err("natd capture needs a file to write: -w FILE".into());
        };
        Ok(Invocation::Capture(CaptureOptions {
            config: given.config(),
            file: file.into(),
            device: given.text(&DEVICE, control::any_address)?,
            server: given.text(&SERVER_ADDR, control::any_address)?,
            seconds: given.text(&TIME, seconds)?.unwrap_or(CAPTURE_SECONDS),
            bytes: given.text(&SIZE, bytes)?.unwrap_or(CAPTURE_BYTES),
            whole: given.has(&WHOLE),
        }))
    },
};

fn diagnose(given: &Given) -> Result<Invocation, String> {
    let (watch, json) = (given.has(&WATCH), given.has(&JSON));
    let file = given.operand.as_ref().map(PathBuf::from);
    match &file {
        _ if watch && json => return Err("--watch and --json exclude each other".into()),
        Some(_) if watch => return Err("--watch is for the running natd, not for a FILE".into()),
        None if given.has(&LAN) => return Err("--lan is for a FILE; the running natd knows its LAN".into()),
        Some(_) | None => {}
    }
    Ok(Invocation::Diagnose(DiagnoseOptions {
        socket: given.socket(),
        file,
        lan: given.texts(&LAN, prefix)?,
        device: given.text(&DEVICE, control::any_address)?,
        server: given.text(&SERVER, named)?,
        json,
        watch,
    }))
}

/// Something that may be a host's name or address.
fn named(text: &str) -> Result<String, String> {
    // A name with other characters would be looked up in vain, after a long wait.
    let possible = |c: char| c.is_alphanumeric() || "-._:%".contains(c);
    if text.is_empty() || text.len() > 253 || !text.chars().all(possible) {
        return Err(format!("{text:?} is neither a name nor an address, such as vpn.example.com"));
    }
    Ok(text.to_owned())
}

fn prefix(text: &str) -> Result<(IpAddr, u8), String> {
    let parsed = text.split_once('/').and_then(|(address, length)| {
        let address: IpAddr = address.parse().ok()?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = length.parse().ok().filter(|length| *length <= most)?;
        Some((address, length))
    });
    parsed.ok_or_else(|| format!("{text:?} is not a prefix such as 192.168.1.0/24"))
}

fn seconds(text: &str) -> Result<u64, String> {
    let seconds = scaled(text, &[("s", 1), ("m", 60), ("h", 3600), ("", 1)]);
    seconds
        .filter(|seconds| (1..=CAPTURE_SECONDS_MOST).contains(seconds))
        .ok_or_else(|| format!("{text:?} is not a time such as 90s, 5m or 1h, at most 7 days"))
}

fn bytes(text: &str) -> Result<u64, String> {
    let bytes = scaled(text, &[("k", 1 << 10), ("M", 1 << 20), ("G", 1 << 30), ("", 1)]);
    bytes
        .filter(|bytes| *bytes >= 4096)
        .ok_or_else(|| format!("{text:?} is not a size such as 500k or 50M, at least 4k"))
}

/// A whole number with one of the units; the one without a name has to be the last.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let (number, scale) = units.iter().find_map(|(unit, scale)| Some((text.strip_suffix(unit)?, *scale)))?;
    // Digits only: a sign is no number here.
    let digits = number.bytes().all(|byte| byte.is_ascii_digit());
    number.parse::<u64>().ok().filter(|_| digits)?.checked_mul(scale)
}
