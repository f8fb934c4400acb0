use super::*;

fn parsed(line: &str) -> Result<Invocation, String> {
    parse(line.split_whitespace().map(OsString::from))
}

fn socket() -> PathBuf {
    PathBuf::from("/run/natd/natd.sock")
}

#[test]
fn every_subcommand_has_its_defaults() {
    let config = PathBuf::from("/etc/natd/natd.toml");
    assert_eq!(parsed("run"), Ok(Invocation::Run(RunOptions { config: config.clone(), socket: None })));
    assert_eq!(parsed("check"), Ok(Invocation::Check(CheckOptions { config, socket: None, json: false })));
    assert_eq!(
        parsed("stop"),
        Ok(Invocation::Stop(StopOptions { socket: socket(), open: false, json: false }))
    );
    assert_eq!(
        parsed("status"),
        Ok(Invocation::Status(StatusOptions { socket: socket(), form: StatusForm::Text }))
    );
    let flows = FlowsOptions { socket: socket(), device: None, protocol: None, json: false };
    assert_eq!(parsed("flows"), Ok(Invocation::Flows(flows)));
    let sessions = SessionsOptions { socket: socket(), json: false };
    assert_eq!(parsed("sessions"), Ok(Invocation::Sessions(sessions)));
    assert_eq!(parsed("diagnose"), Ok(Invocation::Diagnose(diagnose())));
    let probe = ProbeOptions { server: "vpn.example".into(), version: None, json: false };
    assert_eq!(parsed("probe vpn.example"), Ok(Invocation::Probe(probe)));
    assert_eq!(parsed("capture -w a.pcapng"), Ok(Invocation::Capture(capture())));
}

fn diagnose() -> DiagnoseOptions {
    DiagnoseOptions {
        socket: socket(),
        file: None,
        lan: Vec::new(),
        device: None,
        server: None,
        json: false,
        watch: false,
    }
}

fn capture() -> CaptureOptions {
    CaptureOptions {
        config: "/etc/natd/natd.toml".into(),
        file: "a.pcapng".into(),
        device: None,
        server: None,
        seconds: 300,
        bytes: 50 * 1024 * 1024,
        whole: false,
    }
}

#[test]
fn diagnose_takes_a_file_and_prefixes_anywhere() {
    let expected = DiagnoseOptions {
        file: Some("vpn.pcap".into()),
        lan: vec![("192.168.1.0".parse().unwrap(), 24), ("2001:db8::".parse().unwrap(), 64)],
        device: Some("2001:db8::10".parse().unwrap()),
        server: Some("vpn.example".into()),
        json: true,
        ..diagnose()
    };
    let line = "diagnose --lan 192.168.1.0/24 --device=2001:db8::10 vpn.pcap --server vpn.example --json \
                --lan=2001:db8::/64";
    assert_eq!(parsed(line), Ok(Invocation::Diagnose(expected)));
    let stdin = DiagnoseOptions { file: Some("-".into()), ..diagnose() };
    assert_eq!(parsed("diagnose -"), Ok(Invocation::Diagnose(stdin)));
    let watch = DiagnoseOptions { watch: true, socket: "x".into(), ..diagnose() };
    assert_eq!(parsed("diagnose --watch --socket x"), Ok(Invocation::Diagnose(watch)));
}

#[test]
fn probe_and_capture_read_their_options() {
    let six = ProbeOptions { server: "2001:db8::9".into(), version: Some(IpVersion::V6), json: true };
    assert_eq!(parsed("probe 2001:db8::9 -6 --json"), Ok(Invocation::Probe(six)));
    let expected = CaptureOptions {
        config: "x.toml".into(),
        device: Some("192.168.1.10".parse().unwrap()),
        server: Some("198.51.100.9".parse().unwrap()),
        seconds: 7200,
        bytes: 2 << 20,
        whole: true,
        ..capture()
    };
    let line = "capture --device 192.168.1.10 --server 198.51.100.9 --time 2h --size=2M --whole \
                --config x.toml -w a.pcapng";
    assert_eq!(parsed(line), Ok(Invocation::Capture(expected)));
    for (text, seconds) in [("90", 90), ("90s", 90), ("5m", 300)] {
        let expected = CaptureOptions { seconds, ..capture() };
        let line = format!("capture -w a.pcapng --time {text}");
        assert_eq!(parsed(&line), Ok(Invocation::Capture(expected)));
    }
}

#[test]
fn values_stand_after_a_blank_or_an_equals_sign() {
    let expected = Invocation::Flows(FlowsOptions {
        socket: "a=b".into(),
        device: Some(Ipv4Addr::new(192, 168, 1, 10)),
        protocol: Some(Protocol::Icmp),
        json: true,
    });
    assert_eq!(parsed("flows --socket=a=b --device 192.168.1.10 --protocol=icmp --json"), Ok(expected));
    let run = RunOptions { config: "x.toml".into(), socket: Some("y.sock".into()) };
    assert_eq!(parsed("run --socket y.sock --config x.toml"), Ok(Invocation::Run(run)));
}

#[test]
fn status_has_four_forms_and_one_at_a_time() {
    let form = |form| Ok(Invocation::Status(StatusOptions { socket: socket(), form }));
    assert_eq!(parsed("status --json"), form(StatusForm::Json));
    assert_eq!(parsed("status --prometheus"), form(StatusForm::Prometheus));
    assert_eq!(parsed("status --watch"), Ok(Invocation::Watch { socket: socket() }));
    for line in ["status --watch --json", "status --json --prometheus", "status --prometheus --watch"] {
        assert_eq!(parsed(line), Err("--watch, --json and --prometheus exclude each other".into()));
    }
}

#[test]
fn sessions_has_three_forms_and_one_at_a_time() {
    let json = SessionsOptions { socket: socket(), json: true };
    assert_eq!(parsed("sessions --json"), Ok(Invocation::Sessions(json)));
    assert_eq!(parsed("sessions --watch"), Ok(Invocation::WatchSessions { socket: socket() }));
    let both = parsed("sessions --watch --json");
    assert_eq!(both, Err("--watch and --json exclude each other".into()));
}

#[test]
fn help_is_found_everywhere_and_wins() {
    assert_eq!(parsed("--help"), Ok(Invocation::Help(None)));
    assert_eq!(parsed("-h"), Ok(Invocation::Help(None)));
    assert_eq!(parsed("help"), Ok(Invocation::Help(None)));
    for line in ["help flows", "flows --help", "flows --json -h --nonsense"] {
        let Ok(Invocation::Help(Some(subcommand))) = parsed(line) else { panic!("{line}") };
        assert_eq!(subcommand.name, "flows");
    }
    assert_eq!(parsed("-V"), Ok(Invocation::Version));
    assert_eq!(parsed("--version"), Ok(Invocation::Version));
}

#[test]
fn mistakes_are_named_with_what_was_probably_meant() {
    for (line, problem) in [
        ("", "no subcommand; `natd --help` lists them"),
        ("stauts", "unknown subcommand \"stauts\", did you mean status?; `natd --help` lists them"),
        ("florws", "unknown subcommand \"florws\", did you mean flows?; `natd --help` lists them"),
        ("dance", "unknown subcommand \"dance\"; `natd --help` lists them"),
        ("--versoin", "unknown option \"--versoin\", did you mean --version?; `natd --help` lists them"),
        ("status --jsn", "unknown option \"--jsn\", did you mean --json?; `natd status --help` lists them"),
        ("status --config x", "unknown option \"--config\"; `natd status --help` lists them"),
        ("status now", "natd status does not take \"now\"; `natd status --help` says what it takes"),
        ("run --config", "--config needs a value: --config FILE"),
        ("stop --open=yes", "--open takes no value"),
        ("stop --open --open", "--open is given twice"),
        ("flows --device tv", "--device: \"tv\" is not an IPv4 address such as 192.168.1.10"),
        ("status -", "natd status does not take \"-\"; `natd status --help` says what it takes"),
        ("probe", "natd probe needs a SERVER; `natd probe --help` tells more"),
        ("probe a b", "natd probe does not take \"b\"; `natd probe --help` says what it takes"),
        ("probe a/b", "\"a/b\" is neither a name nor an address, such as vpn.example.com"),
        ("probe a -4 -6", "-4 and -6 exclude each other"),
        ("capture", "natd capture needs a file to write: -w FILE"),
        ("capture -w", "-w needs a value: -w FILE"),
        ("capture -w a --time +5", "--time: \"+5\" is not a time such as 90s, 5m or 1h, at most 7 days"),
        ("capture -w a --size 1k", "--size: \"1k\" is not a size such as 500k or 50M, at least 4k"),
        (
            "capture -w a --size 99999999999G",
            "--size: \"99999999999G\" is not a size such as 500k or 50M, at least 4k",
        ),
        ("diagnos", "unknown subcommand \"diagnos\", did you mean diagnose?; `natd --help` lists them"),
        ("diagnose --lan 192.168.1.0/24", "--lan is for a FILE; the running natd knows its LAN"),
        (
            "diagnose a --lan 192.168.1.0/33",
            "--lan: \"192.168.1.0/33\" is not a prefix such as 192.168.1.0/24",
        ),
        ("diagnose a --watch", "--watch is for the running natd, not for a FILE"),
        ("diagnose --watch --json", "--watch and --json exclude each other"),
        ("diagnose --device tv", "--device: \"tv\" is not an address such as 192.168.1.10 or 2001:db8::10"),
        ("flows --protocol gre", "--protocol: \"gre\" is not a protocol; there are tcp, udp and icmp"),
    ] {
        assert_eq!(parsed(line), Err(problem.into()), "natd {line}");
    }
}

#[test]
fn a_path_need_not_be_text() {
    use std::os::unix::ffi::OsStringExt;
    let odd = OsString::from_vec(b"--socket=/tmp/\xff".to_vec());
    let Ok(Invocation::Status(options)) = parse([OsString::from("status"), odd]) else { panic!() };
    assert_eq!(options.socket, PathBuf::from(OsString::from_vec(b"/tmp/\xff".to_vec())));
}

#[test]
fn every_help_names_its_options_exit_codes_and_an_example() {
    let overview = help(None);
    for subcommand in &SUBCOMMANDS {
        assert!(overview.contains(subcommand.summary), "{}", subcommand.name);
        let text = help(Some(subcommand));
        for flag in subcommand.options {
            assert!(text.contains(&format!("  {}", flag.name)) && text.contains(flag.help), "{text}");
        }
        assert!(text.contains("Exit codes: 0 ") && text.contains("Example"), "{text}");
        assert!(text.contains(&format!("\n  natd {}", subcommand.name)), "{text}");
        assert!(text.lines().all(|line| line.chars().count() <= 110), "{text}");
        assert!(subcommand.options.contains(&HELP), "{} has no help", subcommand.name);
        // These two do not talk to a daemon.
        let alone = ["probe", "capture"].contains(&subcommand.name);
        assert!(alone || subcommand.options.contains(&SOCKET), "{} has no socket", subcommand.name);
    }
}

#[test]
fn the_help_shows_the_defaults() {
    assert!(CONFIG.help.contains(DEFAULT_CONFIG) && SOCKET.help.contains(control::DEFAULT_PATH));
}

#[test]
fn a_swapped_pair_is_one_mistake() {
    let distances = [("flows", "flows"), ("folws", "flows"), ("", "run"), ("stop", "status"), ("ab", "ba")];
    assert_eq!(distances.map(|(a, b)| distance(a, b)), [0, 1, 3, 4, 1]);
}
