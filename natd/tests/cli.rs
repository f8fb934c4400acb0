//! The natd command as a script sees it: output, exit codes, JSON; against a daemon that is made up.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeSet;
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use natd::io::control::{
    Answer, ClientError, Control, ControlError, Limits, Refusal, Request, Server, request,
};
use natd::report::diagnosis::{
    Blind, DiagnosisReport, EvidenceRow, FindingRow, PacketRow, SessionRow, Verdict,
};
use natd::report::{Device, FlowRow, Lan, Queue, State, Status, TunnelIds, TunnelRow};
use serde_json::Value;

#[test]
fn the_version_needs_neither_root_nor_configuration() {
    for option in ["--version", "-V"] {
        let output = natd(&[option]);
        assert_eq!(said(&output), (Some(0), format!("natd {}\n", env!("CARGO_PKG_VERSION")), String::new()));
    }
}

#[test]
fn help_goes_to_standard_output() {
    for args in [vec!["--help"], vec!["help", "status"], vec!["run", "--help"], vec!["flows", "-h"]] {
        let (code, out, err) = said(&natd(&args));
        assert_eq!((code, err.as_str()), (Some(0), ""), "{args:?}");
        assert!(out.contains("Usage: natd ") && out.contains("Exit codes:"), "{out}");
    }
}

#[test]
fn a_wrong_command_line_is_one_line_and_2() {
    for args in
        [vec![], vec!["stauts"], vec!["status", "--jsno"], vec!["flows", "--device"], vec!["run", "now"]]
    {
        let (code, out, err) = said(&natd(&args));
        assert_eq!((code, out.as_str(), err.lines().count()), (Some(2), "", 1), "{args:?}: {err}");
        assert!(err.starts_with("natd: "), "{err}");
    }
}

#[test]
fn the_watch_view_refuses_to_be_a_file() {
    let (code, out, err) = said(&natd(&["status", "--watch"]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, "natd: status --watch needs a terminal; for programs there is status --json\n");
    let (code, out, err) = said(&natd(&["sessions", "--watch"]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, "natd: sessions --watch needs a terminal; for programs there is sessions --json\n");
    let (code, out, err) = said(&natd(&["diagnose", "--watch"]));
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert_eq!(err, "natd: diagnose --watch needs a terminal; for programs there is diagnose --json\n");
}

#[test]
fn status_is_0_only_when_translating() {
    for (state, expected) in
        [(State::Translating, 0), (State::WaitingForAddress, 3), (State::Starting, 1), (State::Stopping, 1)]
    {
        let folder = Folder::new();
        let _server = folder.serve(move |_, answer| answer.line(&Status { state, ..household() }));
        for form in [&[][..], &["--json"], &["--prometheus"]] {
            let output = folder.natd("status", form);
            assert_eq!(output.status.code(), Some(expected), "{state:?} {form:?}");
            assert!(!output.stdout.is_empty() && output.stderr.is_empty());
        }
    }
}

#[test]
fn no_daemon_is_4_for_everything_that_asks_one() {
    let folder = Folder::new();
    for subcommand in ["status", "flows", "sessions", "diagnose", "stop"] {
        let (code, out, err) = said(&folder.natd(subcommand, &[]));
        assert_eq!((code, out.as_str()), (Some(4), ""), "{subcommand}");
        assert!(err.starts_with("natd: natd is not running: nothing listens on "), "{err}");
        assert_eq!(err.lines().count(), 1);
    }
    // A socket that a crash left behind is no daemon either.
    drop(UnixListener::bind(folder.socket()).unwrap());
    assert_eq!(folder.natd("status", &[]).status.code(), Some(4));
}

#[test]
fn a_refusal_for_lack_of_permission_is_5() {
    let folder = Folder::new();
    let _answering = folder.answer_once(r#"{"error":"only root may do that","code":"permission"}"#);
    let expected = (Some(5), String::new(), "natd: natd refuses: only root may do that\n".to_owned());
    assert_eq!(said(&folder.natd("stop", &[])), expected);
}

#[test]
fn another_refusal_is_1() {
    let folder = Folder::new();
    let _answering = folder.answer_once(r#"{"error":"try again","code":"busy"}"#);
    let expected = (Some(1), String::new(), "natd: natd refuses: try again\n".to_owned());
    assert_eq!(said(&folder.natd("status", &[])), expected);
}

#[test]
fn status_json_is_what_the_daemon_said() {
    let folder = Folder::new();
    let _server = folder.serve(|_, answer| answer.line(&household()));
    let output = folder.natd("status", &["--json"]);
    assert_eq!(serde_json::from_slice::<Status>(&output.stdout).unwrap(), household());
}

#[test]
fn flows_asks_for_what_was_given_and_prints_a_list_or_a_table() {
    let folder = Folder::new();
    let (asked, requests) = mpsc::channel();
    let _server = folder.serve(move |request, answer| {
        asked.send(request.line()).unwrap();
        answer.line(&flow(443))?;
        answer.line(&flow(80))
    });
    let (code, table, _) = said(&folder.natd("flows", &["--device", "192.168.1.10", "--protocol", "tcp"]));
    assert_eq!(
        requests.recv().unwrap(),
        "{\"command\":\"flows\",\"device\":\"192.168.1.10\",\"protocol\":\"tcp\"}\n"
    );
    assert_eq!(code, Some(0));
    assert!(
        table.starts_with("INTERNAL ") && table.ends_with("\n2 flows, 0 B sent, 0 B received\n"),
        "{table}"
    );
    let json = folder.natd("flows", &["--json"]);
    assert_eq!(requests.recv().unwrap(), "{\"command\":\"flows\"}\n");
    assert_eq!(serde_json::from_slice::<Vec<FlowRow>>(&json.stdout).unwrap(), [flow(443), flow(80)]);
}

#[test]
fn diagnose_says_in_its_exit_code_how_it_stands() {
    for (verdict, expected) in [(Verdict::Healthy, 0), (Verdict::Problem, 1), (Verdict::NothingSeen, 6)] {
        let folder = Folder::new();
        let _server = folder.serve(move |_, answer| answer.line(&DiagnosisReport { verdict, ..diagnosis() }));
        let (code, text, err) = said(&folder.natd("diagnose", &[]));
        assert_eq!((code, err.as_str()), (Some(expected), ""), "{verdict:?}");
        assert!(
            text.starts_with("192.168.1.10 → 198.51.100.9 (IKE): Refused.\n  to blame    the VPN server;")
        );
        let output = folder.natd("diagnose", &["--json"]);
        assert_eq!(output.status.code(), Some(expected));
        let told = serde_json::from_slice::<DiagnosisReport>(&output.stdout).unwrap();
        assert_eq!(told, DiagnosisReport { verdict, ..diagnosis() });
    }
}

#[test]
fn diagnose_asks_for_what_was_given() {
    let folder = Folder::new();
    let (asked, requests) = mpsc::channel();
    let _server = folder.serve(move |request, answer| {
        asked.send(request.line()).unwrap();
        answer.line(&diagnosis())
    });
    let (code, out, _) =
        said(&folder.natd("diagnose", &["--device", "2001:db8::10", "--server", "198.51.100.9"]));
    let expected = "{\"command\":\"diagnose\",\"device\":\"2001:db8::10\",\"server\":\"198.51.100.9\"}\n";
    assert_eq!(requests.recv().unwrap(), expected);
    assert_eq!((code, out.contains("Refused.")), (Some(1), true));
    // What is about another server is not shown, even where the daemon tells it.
    let (code, out, _) = said(&folder.natd("diagnose", &["--server", "203.0.113.1"]));
    assert_eq!((code, out.contains("Refused.")), (Some(6), false));
}

#[test]
fn a_server_that_has_no_address_is_named() {
    let (code, out, err) = said(&natd(&["diagnose", "--server", "no-such-name.invalid"]));
    // What there is to say without the address comes all the same, but here no natd runs.
    assert_eq!((code, out.as_str()), (Some(4), ""));
    assert!(err.contains("cannot find the address of no-such-name.invalid: "), "{err}");
}

#[test]
fn what_is_no_capture_is_named_and_so_is_a_missing_configuration() {
    let folder = Folder::new();
    let file = folder.path.join("a.pcap");
    fs::write(&file, "no capture at all, but some text").unwrap();
    let (code, out, err) = said(&natd(&["diagnose", file.to_str().unwrap()]));
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
    assert!(err.contains("a.pcap: "), "{err}");
    let config = folder.path.join("none.toml");
    let (code, out, err) =
        said(&natd(&["capture", "-w", file.to_str().unwrap(), "--config", config.to_str().unwrap()]));
    assert_eq!((code, out.as_str(), err.lines().count()), (Some(1), "", 1), "{err}");
    assert!(err.contains("none.toml: "), "{err}");
    assert_eq!(fs::read_to_string(&file).unwrap(), "no capture at all, but some text", "left alone");
}

#[test]
fn sessions_are_a_list_or_a_table() {
    let folder = Folder::new();
    let _server = folder.serve(|request, answer| {
        assert_eq!(*request, Request::Sessions);
        answer.line(&tunnel("192.168.1.10"))?;
        answer.line(&tunnel("192.168.1.9"))
    });
    let (code, table, err) = said(&folder.natd("sessions", &[]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let devices: Vec<_> = table.lines().map(|line| line.split(' ').next().unwrap()).collect();
    assert_eq!(devices, ["DEVICE", "192.168.1.9", "192.168.1.10"]);
    let json = folder.natd("sessions", &["--json"]);
    assert_eq!(
        serde_json::from_slice::<Vec<TunnelRow>>(&json.stdout).unwrap(),
        ["192.168.1.10", "192.168.1.9"].map(tunnel)
    );
}

#[test]
fn no_flows_are_an_empty_list() {
    let folder = Folder::new();
    let _server = folder.serve(|_, _| Ok(()));
    assert_eq!(said(&folder.natd("flows", &["--json"])), (Some(0), "[]\n".into(), String::new()));
}

#[test]
fn a_full_table_of_flows_comes_through_whole() {
    let folder = Folder::new();
    let _server = folder.serve(|_, answer| (0..=u16::MAX).try_for_each(|port| answer.line(&flow(port))));
    let output = folder.natd("flows", &["--json"]);
    assert_eq!(serde_json::from_slice::<Vec<Value>>(&output.stdout).unwrap().len(), 65_536);
    let (_, table, _) = said(&folder.natd("flows", &[]));
    assert_eq!(table.lines().count(), 65_538);
}

#[test]
fn an_answer_that_breaks_off_is_1_and_no_valid_json() {
    let folder = Folder::new();
    let _server = folder.serve(|_, answer| {
        answer.line(&flow(1))?;
        Err(io::ErrorKind::Other.into())
    });
    for form in [&[][..], &["--json"]] {
        let (code, out, err) = said(&folder.natd("flows", form));
        assert_eq!(code, Some(1));
        assert_eq!(err, "natd: the answer broke off: natd ended or gave up on a slow reader\n");
        assert!(serde_json::from_str::<Value>(&out).is_err());
    }
}

#[test]
fn a_reader_that_has_had_enough_is_no_error() {
    let folder = Folder::new();
    let _server = folder.serve(|_, answer| (0..=u16::MAX).try_for_each(|port| answer.line(&flow(port))));
    let mut child =
        folder.command("flows", &["--json"]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn stop_comes_back_when_the_daemon_has_cleaned_up() {
    for (args, open, shown) in [
        (&["--open"][..], true, "natd has stopped; the guard stays\n"),
        (&["--json"][..], false, "{\"stopped\":true,\"message\":\"the guard stays\"}\n"),
    ] {
        let folder = Folder::new();
        let (asked, requests) = mpsc::channel();
        let server = folder.serve(move |request, _| {
            asked.send(request.clone()).unwrap();
            Ok(())
        });
        let mut child = folder.command("stop", args).stdout(Stdio::piped()).spawn().unwrap();
        assert_eq!(requests.recv().unwrap(), Request::Stop { open });
        assert!(child.try_wait().unwrap().is_none(), "it came back before the daemon was done");
        server.close("the guard stays");
        assert!(!folder.socket().exists());
        let output = child.wait_with_output().unwrap();
        assert_eq!(
            (output.status.code(), String::from_utf8(output.stdout).unwrap()),
            (Some(0), shown.into())
        );
    }
}

#[test]
fn a_daemon_that_dies_while_stopping_is_noticed() {
    let folder = Folder::new();
    let listener = UnixListener::bind(folder.socket()).unwrap();
    let child = folder.command("stop", &[]).stderr(Stdio::piped()).spawn().unwrap();
    let (mut stream, _) = listener.accept().unwrap();
    stream.read_exact(&mut [0; 10]).unwrap();
    drop((stream, listener));
    assert_eq!(child.wait_with_output().unwrap().status.code(), Some(1));
}

#[test]
fn a_second_daemon_is_refused_and_a_stale_socket_replaced() {
    let folder = Folder::new();
    drop(UnixListener::bind(folder.socket()).unwrap());
    let server = folder.serve(|_, answer| answer.line(&household()));
    let mode = fs::metadata(folder.socket()).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o660);
    let Err(ControlError::AlreadyRunning { pid, .. }) = Control::bind(&folder.socket()) else {
        panic!("two daemons on one socket");
    };
    assert_eq!(pid, std::process::id());
    assert_eq!(folder.natd("status", &[]).status.code(), Some(0), "the first one goes on");
    drop(server);
    assert!(!folder.socket().exists());
}

#[test]
fn a_file_in_the_socket_s_place_is_left_alone() {
    let folder = Folder::new();
    fs::write(folder.socket(), "precious").unwrap();
    let Err(ControlError::NotASocket(_)) = Control::bind(&folder.socket()) else { panic!() };
    assert_eq!(fs::read(folder.socket()).unwrap(), b"precious");
}

#[test]
fn the_folder_of_the_socket_is_made() {
    let folder = Folder::new();
    let path = folder.path.join("a/b/natd.sock");
    let control = Control::bind(&path).unwrap();
    assert_eq!(fs::metadata(path.parent().unwrap()).unwrap().permissions().mode() & 0o777, 0o755);
    drop(control);
    assert!(!path.exists());
}

#[test]
fn a_silent_client_and_a_long_request_keep_nobody_waiting() {
    let folder = Folder::new();
    let _server = folder.serve(|_, answer| answer.line(&household()));
    let mut silent = UnixStream::connect(folder.socket()).unwrap();
    assert_eq!(folder.natd("status", &[]).status.code(), Some(0));
    let mut rest = Vec::new();
    silent.read_to_end(&mut rest).unwrap();
    assert_eq!(rest, b"", "it is let go after the time for a request");

    let mut long = UnixStream::connect(folder.socket()).unwrap();
    long.write_all(&[b'x'; 4096]).unwrap();
    let mut refusal = String::new();
    long.read_to_string(&mut refusal).unwrap();
    assert_eq!(refusal, "{\"error\":\"a request has at most 4096 bytes\",\"code\":\"malformed\"}\n");
}

#[test]
fn one_client_too_many_is_told_so() {
    let folder = Folder::new();
    let (arrived, arrivals) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let released = std::sync::Mutex::new(released);
    let limits = Limits { clients: 1, ..quick() };
    let server = Control::bind(&folder.socket()).unwrap();
    let _server = server.serve(limits, move |_, answer| {
        arrived.send(()).unwrap();
        let _ = released.lock().unwrap().recv();
        answer.line(&household())
    });
    let first = folder.command("status", &[]).stdout(Stdio::null()).spawn().unwrap();
    arrivals.recv().unwrap();
    let refused = request(&folder.socket(), &Request::Status, Duration::from_secs(10)).unwrap().only_line();
    assert!(matches!(refused, Err(ClientError::Refused(_, Refusal::Busy))), "{refused:?}");
    release.send(()).unwrap();
    assert_eq!(first.wait_with_output().unwrap().status.code(), Some(0));
}

#[test]
fn only_root_and_the_daemon_s_user_may_stop_it() {
    // Needs a client of another user: only root can be one.
    let Some(other) = another_user(&["status", "stop"]) else { return };
    assert_eq!(other, [Some(0), Some(5)]);
}

#[test]
fn readme_lists_exactly_the_json_fields() {
    let mut emitted = BTreeSet::new();
    fields("natd status --json", "", &serde_json::to_value(household()).unwrap(), &mut emitted);
    fields("natd flows --json", "", &serde_json::to_value([flow(443)]).unwrap(), &mut emitted);
    let sessions = serde_json::to_value([tunnel("192.168.1.10")]).unwrap();
    fields("natd sessions --json", "", &sessions, &mut emitted);
    fields("natd diagnose --json", "", &serde_json::to_value(diagnosis()).unwrap(), &mut emitted);
    let stopped = natd::io::control::StopLine { stopped: true, message: String::new() };
    fields("natd stop --json", "", &serde_json::to_value(stopped).unwrap(), &mut emitted);

    let mut documented = BTreeSet::new();
    let mut command = String::new();
    for line in readme_section("json-fields").lines() {
        if let Some(heading) = line.strip_prefix("**`") {
            command = heading.split('`').next().unwrap().to_owned();
        } else if let Some(row) = line.strip_prefix("| `") {
            let field = row.split('`').next().unwrap();
            assert!(documented.insert(format!("{command}: {field}")), "{field} stands twice");
        }
    }
    // Further subcommands list their fields in the same section and compare them in their own tests.
    documented.retain(|field| {
        ["status", "flows", "sessions", "diagnose", "stop"].contains(&field.split(' ').nth(1).unwrap())
    });
    assert_eq!(documented, emitted);
}

#[test]
fn readme_lists_the_exit_codes() {
    use natd::cli::ExitCode;
    let all = [
        ExitCode::Fine,
        ExitCode::Problem,
        ExitCode::Usage,
        ExitCode::Waiting,
        ExitCode::NotRunning,
        ExitCode::NoPermission,
        ExitCode::NothingSeen,
    ];
    let section = readme_section("exit-codes");
    let listed: Vec<u8> =
        section.lines().filter_map(|line| line.strip_prefix("| ")?.split(' ').next()?.parse().ok()).collect();
    assert_eq!(listed, all.map(|code| code as u8));
}

#[test]
fn readme_lists_what_can_be_found() {
    use diagnosis::Code;
    use diagnosis::words::{windows, words};
    let mut table =
        String::from("\n| Code | What it says | Likely to blame | Windows shows |\n|---|---|---|---|\n");
    for code in Code::ALL {
        let blamed: Vec<&str> = code.owner().iter().map(|party| party.name()).collect();
        let numbers: Vec<String> = windows(*code).iter().map(u16::to_string).collect();
        let (says, blamed, numbers) = (words(*code).says, blamed.join(", "), numbers.join(", "));
        table += &format!("| `{}` | {says} | {blamed} | {numbers} |\n", code.name());
    }
    assert_eq!(readme_section("codes"), table, "README.md is to say:\n{table}");
}

/// The made-up daemon's status, with something in every list and map, so that every field is emitted.
fn household() -> Status {
    Status {
        state: State::Translating,
        lan: vec![Lan { interface: "br-lan".into(), prefixes: vec!["192.168.1.0/24".into()] }],
        devices: vec![Device { address: "192.168.1.10".into(), ..Device::default() }],
        drops: [("filtered".into(), 1)].into(),
        notes: [("rst-ignored".into(), 1)].into(),
        vpn_sessions: [("PPTP".into(), 1)].into(),
        queues: vec![Queue::default()],
        ..Status::default()
    }
}

fn flow(port: u16) -> FlowRow {
    FlowRow {
        protocol: "tcp".into(),
        internal: "192.168.1.10:50000".into(),
        remote: format!("198.51.100.4:{port}"),
        ..FlowRow::default()
    }
}

fn tunnel(device: &str) -> TunnelRow {
    TunnelRow { device: device.into(), ids: vec![TunnelIds::default()], ..TunnelRow::default() }
}

fn diagnosis() -> DiagnosisReport {
    let evidence = EvidenceRow {
        first: Some(PacketRow::default()),
        last: Some(PacketRow::default()),
        ..EvidenceRow::default()
    };
    let finding = FindingRow {
        code: "IKE-NO-PROPOSAL".into(),
        owner: vec!["server".into()],
        vpn: Some("IKE".into()),
        device: Some("192.168.1.10".into()),
        server: Some("198.51.100.9".into()),
        says: "Refused.".into(),
        windows: vec![789],
        evidence: vec![evidence],
        ..FindingRow::default()
    };
    DiagnosisReport {
        verdict: Verdict::Problem,
        sessions: vec![SessionRow {
            device: "192.168.1.10".into(),
            server: "198.51.100.9".into(),
            ..SessionRow::default()
        }],
        findings: vec![finding],
        blind: vec![Blind { codes: vec!["DNS-FAIL".into()], ..Blind::default() }],
        ..DiagnosisReport::default()
    }
}

/// Adds the path of every leaf of `value`; the keys of `drops`, `notes` and `vpn_sessions` are data.
fn fields(command: &str, path: &str, value: &Value, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) if ["drops", "notes", "vpn_sessions"].contains(&path) => {
            assert!(!members.is_empty());
            all.insert(format!("{command}: {path}.*"));
        }
        Value::Object(members) => {
            for (name, value) in members {
                let dot = if path.is_empty() { "" } else { "." };
                fields(command, &format!("{path}{dot}{name}"), value, all);
            }
        }
        Value::Array(items) => {
            assert!(!items.is_empty(), "{path} shows no fields");
            for item in items {
                fields(command, &format!("{path}[]"), item, all);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            all.insert(format!("{command}: {path}"));
        }
    }
}

fn readme_section(name: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../README.md");
    let readme = fs::read_to_string(path).unwrap();
    let after = readme.split_once(&format!("<!-- {name}:begin -->")).expect("README.md has the section").1;
    after.split_once(&format!("<!-- {name}:end -->")).expect("the section ends").0.to_owned()
}

fn natd(args: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_natd")).args(args).output().unwrap()
}

fn said(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

/// Patience for tests: what has to wait for it does not take long.
fn quick() -> Limits {
    Limits { request: Duration::from_millis(50), answer: Duration::from_secs(10), ..Limits::default() }
}

/// A folder of a test's own.
struct Folder {
    path: PathBuf,
}

impl Folder {
    fn new() -> Self {
        use std::sync::atomic::{AtomicU32, Ordering};
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("natd-cli-{}-{number}", std::process::id()));
        fs::create_dir(&path).unwrap();
        Self { path }
    }

    fn socket(&self) -> PathBuf {
        self.path.join("natd.sock")
    }

    fn serve<H>(&self, handler: H) -> Server
    where
        H: Fn(&Request, &mut Answer<'_>) -> io::Result<()> + Send + Sync + 'static,
    {
        Control::bind(&self.socket()).unwrap().serve(quick(), handler).unwrap()
    }

    /// Answers one client with a line that no handler of ours would write.
    fn answer_once(&self, line: &'static str) -> thread::JoinHandle<()> {
        let listener = UnixListener::bind(self.socket()).unwrap();
        thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.read(&mut [0; 4096]).unwrap();
            writeln!(stream, "{line}").unwrap();
        })
    }

    fn command(&self, subcommand: &str, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_natd"));
        command.arg(subcommand).args(args).arg("--socket").arg(self.socket());
        command
    }

    fn natd(&self, subcommand: &str, args: &[&str]) -> Output {
        self.command(subcommand, args).output().unwrap()
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.path);
    }
}

/// The exit codes of subcommands run by nobody, who may open the socket; `None` unless run by root.
fn another_user(subcommands: &[&str]) -> Option<Vec<Option<i32>>> {
    use std::os::unix::fs::MetadataExt;
    use std::os::unix::process::CommandExt;
    const NOBODY: u32 = 65_534;
    let folder = Folder::new();
    if fs::metadata(&folder.path).unwrap().uid() != 0 {
        return None;
    }
    let _server = folder.serve(|request, answer| {
        assert_eq!(*request, Request::Status);
        answer.line(&household())
    });
    fs::set_permissions(folder.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    // The build folder may be one that nobody else can look into.
    let binary = folder.path.join("natd");
    fs::copy(env!("CARGO_BIN_EXE_natd"), &binary).unwrap();
    let run = |subcommand: &&str| {
        let mut command = Command::new(&binary);
        command.arg(subcommand).arg("--socket").arg(folder.socket()).uid(NOBODY).gid(NOBODY);
        command.output().unwrap().status.code()
    };
    Some(subcommands.iter().map(run).collect())
}
