//! `natd capture` on a router between its devices and the internet: what gets into the file, from both sides, and
//! what a full disk or a missing interface says. Needs root; see `testkit`.
#![expect(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::fs;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError, mpsc};
use std::time::Duration;

use diagnosis::{Settings, Vantage};
use natd::capture_file;
use natd::record::{End, RecordError, Recorded, Recording, record};
use testkit::address::{D1, D2, S1, S2, WAN, at};
use testkit::lab::Lab;
use testkit::{packet, socket, wait_for};

/// A signal is for the whole process: recordings of several tests must not run at once.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
const SIGINT: i32 = 2;

/// The size of a file of eight packets: heads of file and record, Linux cooked, IP, UDP, and 64 bytes of data.
const EIGHT: u64 = 24 + 8 * (16 + 20 + 20 + 8 + 64);

#[test]
fn a_recording_has_a_device_s_vpn_before_and_after_translation() {
    let Some(lab) = Lab::household().start() else { return };
    let recording = recording(&lab, EIGHT);
    let (recorded, ()) = recording_while(&lab, &recording, || talk(&lab));

    // Two messages from d1 and two answers, on both sides.
    let read = read(&recording);
    assert_eq!((recorded.lan, recorded.wan, recorded.lost), (4, 4, 0), "{recorded:?}");
    assert_eq!(recorded.end, End::Size, "the last packet fills the file");
    assert_eq!(recorded.bytes, fs::metadata(&recording.file).unwrap().len());
    assert_eq!((read.packets, read.ip_packets, read.remark), (8, 8, None));
    let vantage = Vantage { lan: true, wan: true, router: false, dns: false };
    assert_eq!(read.household.settings().vantage, vantage);

    let shown = lab.router.run(&["tcpdump", "-n", "-t", "-r", recording.file.to_str().unwrap()]).stdout;
    let lines: Vec<_> = shown.lines().collect();
    assert_eq!(lines.len(), 8, "{shown}");
    // Each packet leaves behind where it came in; which port the NAT chooses is its own affair.
    for (line, (from, to)) in lines.iter().zip([
        (format!("IP {D1}.500 > "), format!("> {S1}.500: ")),
        (format!("IP {WAN}."), format!("> {S1}.500: ")),
        (format!("IP {S1}.500 > "), format!("> {WAN}.")),
        (format!("IP {S1}.500 > "), format!("> {D1}.500: ")),
    ]) {
        assert!(line.contains(&from) && line.contains(&to), "{line} instead of {from}…{to}:\n{shown}");
    }
    assert!(!shown.contains(&S2.to_string()) && !shown.contains(&D2.to_string()), "{shown}");
}

#[test]
fn payload_is_not_recorded() {
    let Some(lab) = Lab::household().start() else { return };
    let recording = recording(&lab, EIGHT);
    recording_while(&lab, &recording, || talk(&lab));
    let bytes = fs::read(&recording.file).unwrap();
    assert!(bytes.windows(6).any(|bytes| bytes == b"begins"));
    assert!(!bytes.windows(6).any(|bytes| bytes == b"secret"));
}

#[test]
fn ctrl_c_ends_a_recording_cleanly() {
    let Some(lab) = Lab::household().start() else { return };
    let recording = recording(&lab, 1 << 20);
    let (recorded, ()) = recording_while(&lab, &recording, || {
        talk(&lab);
        let this = i32::try_from(std::process::id()).unwrap();
        testkit::sys::kill(this, SIGINT).unwrap();
    });
    assert_eq!((recorded.packets, recorded.end), (8, End::Stopped));
    assert_eq!(read(&recording).packets, 8);
}

/// As PPP does when it connects again.
#[test]
fn an_interface_that_comes_back_with_another_number_is_recorded_again() {
    let Some(lab) = Lab::household().start() else { return };
    let up = "link add dial type veth peer name far\nlink set dial up\nlink set far up\n\
              route replace 203.0.113.99 dev dial\n\
              neigh replace 203.0.113.99 lladdr 02:00:00:00:00:09 dev dial\n";
    lab.router.ip(up);
    let message = packet::udp(at(WAN, 500), at([203, 0, 113, 99].into(), 500), b"begins");
    let recording = Recording { wan: "dial".into(), device: None, ..recording(&lab, 24 + 2 * 70) };
    let (recorded, ()) = recording_while(&lab, &recording, || {
        let send = || lab.router.raw().send(&message);
        send();
        // The new one shall not get the old one's number.
        lab.router.ip(&format!("link del dial\nlink add other type bridge\n{up}"));
        // Until the recording has noticed, which it does within a second, nothing of it is recorded.
        wait_for("the file is full", Duration::from_secs(10), || {
            send();
            fs::metadata(&recording.file).is_ok_and(|file| file.len() >= 24 + 2 * 70)
        });
    });
    assert_eq!((recorded.packets, recorded.wan, recorded.end), (2, 2, End::Size));
}

#[test]
fn what_keeps_from_recording_is_said() {
    let Some(lab) = Lab::household().start() else { return };
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let in_router = |recording: &Recording| lab.router.enter(|| record(recording, &mut |_| {}));
    let good = recording(&lab, 1 << 20);

    let missing = Recording { wan: "ppp0".into(), ..good.clone() };
    assert!(matches!(in_router(&missing), Err(RecordError::Interface(name)) if name == "ppp0"));
    assert!(!good.file.exists(), "nothing is made in vain");

    let nowhere = Recording { file: lab.dir().join("no/such/folder.pcap"), ..good.clone() };
    let error = in_router(&nowhere).unwrap_err().to_string();
    assert!(
        error.ends_with("folder.pcap: cannot be written: No such file or directory (os error 2)"),
        "{error}"
    );

    let full = Recording { file: "/dev/full".into(), ..good.clone() };
    let error = in_router(&full).unwrap_err().to_string();
    assert!(error.starts_with("/dev/full: No space left on device"), "{error}");

    let short = Recording { time: Duration::from_millis(300), ..good.clone() };
    let recorded = in_router(&short).unwrap();
    assert_eq!(recorded, Recorded { bytes: 24, end: End::Time, ..Recorded::default() });
    let error = capture_file::read(&good.file, settings(), &mut |_| {}).unwrap_err().to_string();
    assert!(error.ends_with("a capture without packets"), "{error}");
}

/// d1 and d2 send twice to port 500 of a server each and are answered; all data begins the same.
fn talk(lab: &Lab) {
    let data = [&b"begins"[..], &[7; 100], b"secret"].concat();
    for (device, addr, server, to) in [(&lab.d2, D2, &lab.s2, S2), (&lab.d1, D1, &lab.s1, S1)] {
        let (device, server) = (device.udp(at(addr, 500)), server.udp(at(to, 500)));
        for _ in 0..2 {
            let seen = socket::deliver(&device, at(to, 500), &server, &data);
            socket::deliver(&server, seen, &device, &data);
        }
    }
}

/// Records in the router, and has `work` done as soon as the recording runs.
fn recording_while<T: Send>(
    lab: &Lab,
    recording: &Recording,
    work: impl FnOnce() -> T + Send,
) -> (Recorded, T) {
    let _alone = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let (running, runs) = mpsc::channel();
    std::thread::scope(|scope| {
        let recorder = scope.spawn(move || {
            lab.router.enter(|| {
                record(recording, &mut |_| {
                    let _ = running.send(());
                })
            })
        });
        runs.recv_timeout(Duration::from_secs(10)).expect("the recording begins");
        let done = work();
        (recorder.join().unwrap().unwrap(), done)
    })
}

/// Of d1, until the file has `bytes`.
fn recording(lab: &Lab, bytes: u64) -> Recording {
    Recording {
        lan: vec!["br-lan".into()],
        wan: "wan0".into(),
        file: lab.dir().join("vpn.pcap"),
        device: Some(IpAddr::V4(D1)),
        server: None,
        time: Duration::from_secs(20),
        bytes,
        whole: false,
    }
}

fn read(recording: &Recording) -> capture_file::Read {
    capture_file::read(&PathBuf::from(&recording.file), settings(), &mut |_| {}).unwrap()
}

fn settings() -> Settings {
    Settings {
        events: false,
        lan: Vec::new(),
        pairs: 16,
        memory: Duration::from_secs(600),
        vantage: Vantage { lan: false, wan: false, router: false, dns: false },
        servers: Vec::new(),
    }
}
