//! `[sessions]`: what is written down of VPNs.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use serde_json::Value;
use testkit::address::{D1, S1, S2, at};
use testkit::{Lab, Nat, clock};

use super::ikev2::Tunnel;
use super::{WAIT, household, ike};

/// A folder of a test's own.
struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Self {
        let path = std::env::temp_dir().join(format!("natd-e2e-{name}-{}", std::process::id()));
        fs::create_dir_all(&path).expect("the folder for temporary files is writable");
        Self(path)
    }

    fn log(&self) -> PathBuf {
        self.0.join("sessions.log")
    }

    fn section(&self, more: &str) -> String {
        format!("[sessions]\nlog = \"{}\"\n{more}", self.log().display())
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// What the file has; empty while it is not there.
fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_default()
}

fn word<'a>(line: &'a Value, key: &str) -> &'a str {
    line.get(key).and_then(Value::as_str).unwrap_or_default()
}

/// Waits until the file tells of `what`.
fn wait_for(file: &Path, what: &str) {
    assert!(clock::holds_within(WAIT, || read(file).contains(what)), "no {what}: {:?}", read(file));
}

#[test]
fn a_session_begins_changes_and_ends_in_json() {
    let folder = Folder::new("json");
    let Some(mut lab) = household(Nat::Natd).natd_section(&folder.section("")).start() else { return };
    let tunnel = Tunnel::new(&lab);
    tunnel.begin();
    wait_for(&folder.log(), "\"event\":\"start\"");
    tunnel.authenticate();
    tunnel.data();
    wait_for(&folder.log(), "\"phase\":\"data\"");
    assert!(lab.natd().stop().success());

    let text = read(&folder.log());
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}")))
        .collect();
    for line in &lines {
        assert_eq!((word(line, "device"), word(line, "server")), ("192.168.1.11", "198.51.100.10"), "{line}");
        let time = word(line, "time");
        assert!(time.len() == 24 && time.starts_with("20") && time.ends_with('Z'), "{line}");
    }
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { panic!("no lines") };
    assert_eq!((word(first, "event"), word(first, "phase")), ("start", "handshake"), "{text}");
    assert_eq!((word(last, "event"), word(last, "phase")), ("end", "closed"), "{text}");
    assert_eq!((word(last, "before"), word(last, "reason")), ("data", "natd stops"), "{text}");
    let between = lines.get(1..lines.len() - 1).unwrap_or_default();
    assert!(!between.is_empty() && between.iter().all(|line| word(line, "event") == "change"), "{text}");
    let sent = last.get("packets_out").and_then(Value::as_u64);
    assert!(sent.is_some_and(|packets| packets >= 6), "{text}");
}

#[test]
fn a_session_begins_changes_and_ends_in_words() {
    let folder = Folder::new("words");
    let section = folder.section("format = \"text\"\n");
    let Some(mut lab) = household(Nat::Natd).natd_section(&section).start() else { return };
    let tunnel = Tunnel::new(&lab);
    tunnel.begin();
    wait_for(&folder.log(), " start ");
    tunnel.authenticate();
    tunnel.data();
    wait_for(&folder.log(), ", data, ");
    assert!(lab.natd().stop().success());

    let text = read(&folder.log());
    let lines: Vec<&str> = text.lines().collect();
    let (Some(first), Some(last)) = (lines.first(), lines.last()) else { panic!("no lines") };
    let ends = " 192.168.1.11 → 198.51.100.10, ";
    assert!(lines.iter().all(|line| line.contains(ends)), "{text}");
    assert!(first.contains("Z start ") && first.contains(&format!("{ends}handshake, ")), "{text}");
    assert!(lines.iter().any(|line| line.contains("Z change ") && line.contains(", data, ")), "{text}");
    assert!(last.contains("Z end ") && last.contains(&format!("{ends}closed, ")), "{text}");
    assert!(last.ends_with(" bytes in, natd stops"), "{text}");
}

#[test]
fn what_began_just_before_the_stop_is_written_too() {
    let folder = Folder::new("stop");
    let Some(mut lab) = household(Nat::Natd).natd_section(&folder.section("")).start() else { return };
    Tunnel::new(&lab).begin();
    assert!(lab.natd().stop().success());
    let text = read(&folder.log());
    let events: Vec<Value> = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let events: Vec<&str> = events.iter().map(|line| word(line, "event")).collect();
    assert_eq!(events, ["start", "end"], "{text}");
}

#[test]
fn a_full_file_is_renamed_and_no_line_is_lost_or_cut() {
    let folder = Folder::new("rotation");
    let section = folder.section("max_size = \"6K\"\n");
    let Some(mut lab) = household(Nat::Natd).natd_section(&section).start() else { return };
    // Three devices with two servers, four tries each: some 24 sessions of 270 bytes, as many ends.
    let mut expected = Vec::new();
    for attempt in 0..4u64 {
        for ((node, device), own) in lab.devices().into_iter().zip(1u64..) {
            let socket = node.udp(at(device, 500));
            for (server, other) in [(S1, 1u64), (S2, 2)] {
                socket
                    .send_to(&ike(attempt << 16 | own << 8 | other, 0), at(server, 500))
                    .expect("it is sent");
                expected.push((device.to_string(), server.to_string(), attempt));
            }
        }
        // So that natd, which looks each second, sees every one of them begin.
        clock::pause(Duration::from_millis(1100));
    }
    assert!(lab.natd().stop().success());

    let (new, old) = (read(&folder.log()), read(&folder.0.join("sessions.log.1")));
    assert!(!old.is_empty() && old.len() <= 6 << 10, "{} bytes before", old.len());
    assert!(!new.is_empty() && new.len() <= 6 << 10, "{} bytes after", new.len());
    assert!(old.ends_with('\n') && new.ends_with('\n'));
    let lines: Vec<Value> = format!("{old}{new}")
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let mut begun: Vec<(&str, &str)> = Vec::new();
    for line in lines.iter().filter(|line| word(line, "event") == "start") {
        begun.push((word(line, "device"), word(line, "server")));
    }
    assert_eq!(begun.len(), expected.len(), "{old}----\n{new}");
    for (device, server, _) in &expected {
        let times = begun.iter().filter(|begun| **begun == (device.as_str(), server.as_str())).count();
        assert_eq!(times, 4, "{device} {server}\n{old}----\n{new}");
    }
}

#[test]
fn a_file_that_cannot_be_had_is_a_warning_and_natd_runs() {
    for (path, said) in [
        ("/nowhere/at/all/sessions.log", "/nowhere/at/all/sessions.log: No such file"),
        ("/dev/full", "/dev/full: is not a file"),
    ] {
        let section = format!("[sessions]\nlog = \"{path}\"\n");
        let Some(mut lab) = household(Nat::Natd).natd_section(&section).start() else { return };
        let log = lab.natd().log();
        assert!(log.contains(said) && log.contains("no sessions are written down"), "{log}");
        Tunnel::new(&lab).begin();
        assert!(lab.natd().command(&["status"]).success());
        assert!(lab.natd().stop().success());
    }
}

/// A file system of a few pages.
struct Small(Folder);

impl Small {
    fn new() -> Option<Self> {
        let folder = Folder::new("full");
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=16k", "tmpfs"]).arg(&folder.0);
        if !mount.status().is_ok_and(|status| status.success()) {
            eprintln!("skipped: no tmpfs can be mounted");
            return None;
        }
        Some(Self(folder))
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(&self.0.0).status();
    }
}

#[test]
fn a_full_disk_is_said_once_and_its_end_too() {
    let Some(small) = Small::new() else { return };
    let (filler, log) = (small.0.0.join("filler"), small.0.log());
    fs::write(&filler, vec![0; 64 << 10]).expect_err("that is more than there is room for");
    let Some(mut lab) = household(Nat::Natd).natd_section(&small.0.section("")).start() else { return };
    let ask = |initiator| {
        let device = lab.d1.udp(at(D1, 500));
        device.send_to(&ike(initiator, 0), at(S1, 500)).expect("it is sent");
    };
    ask(0x1111);
    let said = |lab: &mut Lab| lab.natd().log().matches("sessions are not written down").count();
    let failed = clock::holds_within(WAIT, || {
        clock::pause(Duration::from_millis(20));
        fs::read_to_string(&log).is_ok()
    });
    assert!(failed);
    clock::pause(Duration::from_millis(1500));
    ask(0x2222);
    clock::pause(Duration::from_millis(1500));
    assert_eq!((said(&mut lab), read(&log)), (1, String::new()), "{}", lab.natd().log());

    fs::remove_file(&filler).expect("it is there");
    let device = lab.d1.udp(at(D1, 500));
    device.send_to(&ike(0x3333, 0), at(S1, 500)).expect("it is sent");
    wait_for(&log, "\"event\":\"start\"");
    assert!(lab.natd().log().contains("sessions are written down again"), "{}", lab.natd().log());
    assert!(lab.natd().stop().success());
    for line in read(&log).lines() {
        let _: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
    }
    assert_eq!(said(&mut lab), 1);
}
