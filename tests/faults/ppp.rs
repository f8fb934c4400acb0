//! Faults of PPTP and L2TP.

use testkit::vpn::GRE;

use crate::case::{Case, Order, When, fault};
use crate::faults::{Way, started};
use crate::setup::{L2tpRefusal, PppLogin, Program};

/// The cases.
pub(crate) fn cases() -> Vec<Case> {
    [pptp_control(), pptp_data(), l2tp()].concat()
}

fn pptp_control() -> Vec<Case> {
    vec![
        Case {
            prepare: |setup, _| setup.served = false,
            ..fault("no PPTP at the server", &["PPTP-1723-REFUSED"], &["server"], Program::Pptp)
        },
        Case {
            inject: |run| run.drop_port("tcp", 1723),
            ..fault("TCP 1723 dropped", &["PPTP-1723-NO-REPLY"], &["line", "server"], Program::Pptp)
        },
        Case {
            inject: |run| run.reset_by_hop(1723),
            ..fault("TCP 1723 reset on the way", &["DPI-RST"], &["line"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| setup.served = false,
            inject: |run| {
                let answer = b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n";
                run.serve_something_else(1723, answer.to_vec());
            },
            ..fault("a web server on port 1723", &["PPTP-CONTROL-NO-SCCRP"], &["server"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| setup.served = false,
            inject: |run| run.accept_and_say_nothing(1723),
            ..fault("port 1723 says nothing", &["PPTP-CONTROL-NO-SCCRP"], &["server"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| setup.served = false,
            inject: |run| run.serve_something_else(1723, started(4)),
            ..fault("PPTP server refuses the client", &["PPTP-CONTROL-REFUSED"], &["server"], Program::Pptp)
        },
        Case {
            natd: ("", "[passthrough]\npptp = false"),
            ..fault("PPTP off", &["PPTP-GRE-PASS-OFF"], &["router"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| setup.served = false,
            inject: |run| run.serve_busy_pptp(),
            ..fault("PPTP server has no line free", &["PPTP-CALL-REFUSED"], &["server"], Program::Pptp)
        },
        Case {
            inject: |run| run.switch_server_off(),
            ..fault("PPTP server switched off", &["SERVER-DOWN"], &["server"], Program::Pptp)
        },
    ]
}

fn pptp_data() -> Vec<Case> {
    let blocked: &[&str] = &["PPTP-GRE-BLOCKED-OUT-OR-IN"];
    // The server's comes in, and none goes out: both names say so.
    let in_only: &[&str] = &["PPTP-GRE-IN-ONLY", "PPTP-GRE-NO-OUT"];
    vec![
        Case {
            inject: |run| run.drop_protocol(Way::Out, GRE),
            ..fault("GRE out dropped", blocked, &["line", "server"], Program::Pptp)
        },
        Case {
            inject: |run| run.drop_protocol(Way::In, GRE),
            ..fault("GRE in dropped", blocked, &["line", "server"], Program::Pptp)
        },
        Case {
            inject: |run| run.drop_protocol(Way::Either, GRE),
            ..fault("GRE dropped both ways", blocked, &["line", "server"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| {
                setup.ppp_works = false;
                setup.ppp_passive = true;
            },
            ..fault("the client sends no GRE", &["PPTP-GRE-NO-OUT"], &["device"], Program::Pptp)
        },
        Case {
            inject: |run| run.device_drops_sent("ip protocol gre"),
            ..fault("the device's firewall drops its GRE", in_only, &["device"], Program::Pptp)
        },
        Case {
            inject: |run| run.device_drops_received("ip protocol gre"),
            ..fault(
                "the device's firewall drops the server's GRE",
                &["PPTP-GRE-IN-ONLY"],
                &["device"],
                Program::Pptp,
            )
        },
        Case {
            inject: |run| run.device_drops_sent("ip protocol gre"),
            second: Some(Order::Any),
            ..fault(
                "the device's firewall drops its GRE, neighbour fine",
                in_only,
                &["device"],
                Program::Pptp,
            )
        },
        Case {
            prepare: |setup, _| {
                setup.ppp_login = PppLogin::Chap;
                setup.secret = "wrong";
            },
            ..fault("wrong PPTP password", &["PPTP-AUTH-FAIL"], &["user"], Program::Pptp)
        },
        Case {
            prepare: |setup, _| {
                setup.ppp_login = PppLogin::Pap;
                setup.secret = "wrong";
            },
            second: Some(Order::Any),
            ..fault(
                "wrong PPTP password (PAP), neighbour fine",
                &["PPTP-AUTH-FAIL"],
                &["user"],
                Program::Pptp,
            )
        },
        Case {
            inject: |run| run.router_drops("ip protocol gre"),
            ..fault("the router's firewall drops GRE", &["LOCAL-FIREWALL"], &["router"], Program::Pptp)
        },
    ]
}

fn l2tp() -> Vec<Case> {
    vec![
        Case {
            inject: |run| run.drop_port("udp", 1701),
            ..fault("UDP 1701 dropped", &["L2TP-1701-NO-REPLY"], &["line", "server"], Program::L2tp)
        },
        Case {
            prepare: |setup, _| setup.l2tp_refusal = L2tpRefusal::Challenge,
            // Which side has the wrong one, no packet shows.
            ..fault(
                "L2TP server knows another secret",
                &["L2TP-PLAIN-REFUSED"],
                &["user", "server"],
                Program::L2tp,
            )
        },
        Case {
            prepare: |setup, _| setup.l2tp_refusal = L2tpRefusal::Peer,
            ..fault("L2TP server refuses the tunnel", &["L2TP-PLAIN-REFUSED"], &["server"], Program::L2tp)
        },
        Case {
            natd: ("", "[passthrough]\nl2tp = false"),
            ..fault("L2TP off", &["L2TP-PASS-OFF"], &["router"], Program::L2tp)
        },
        Case {
            natd: ("", "[passthrough]\nmulti = false"),
            second: Some(Order::First),
            ..fault("one L2TP device per server only", &["L2TP-TUNNEL-CLASH"], &["router"], Program::L2tp)
        },
        Case {
            inject: |run| run.swallow_server(),
            when: When::Up,
            // xl2tpd says hello once a minute.
            patience: (95, 105),
            ..fault("L2TP hellos lost", &["L2TP-HELLO-LOST"], &["line"], Program::L2tp)
        },
    ]
}
