//! Benchmarks of natd. `tests/bench.sh` builds and runs them; this program has six modes:
//!
//! * `decide`: nanoseconds per packet for decision and rewrite, and bytes of memory per flow;
//! * `vpn`: the same of VPN sessions, and how both grow with their number;
//! * `vpn-path`: ESP and GRE beside UDP on their way through natd, in network namespaces (root);
//! * `path`: the way through user space beside plain kernel masquerade, in network namespaces (root);
//! * `captures [PACKETS]`: how fast `natd diagnose FILE` reads;
//! * `memory`: for `decide`, which runs it as a process of its own.
//!
//! Results are Markdown tables on standard output; they have no threshold that makes them fail.
#![allow(
    clippy::cast_possible_truncation,
    clippy::indexing_slicing,
    reason = "the benchmark's own packets and numbers; wrong ones shall stop it"
)]

mod captures;
mod clock;
mod conversation;
mod decide;
mod memory;
mod packets;
mod path;
mod sample;
mod vpn;

use std::process::{Command, ExitCode};

use packets::{ICMP, TCP, UDP};
use sample::verdict;
use vpn::memory::Counting;

#[global_allocator]
static ALLOCATOR: Counting = Counting::new();

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.first().map(String::as_str) {
        Some("decide") => print_decide(),
        Some("memory") => memory::report(),
        Some("captures") => {
            let packets = arguments.get(1).map_or(Ok(2_000_000), |packets| packets.parse());
            let Ok(packets) = packets else { return usage() };
            captures::print(packets);
        }
        Some("vpn") => vpn::print(),
        Some("vpn-path") => return print_vpn_path(arguments.get(1..).unwrap_or_default()),
        Some("path") => return print_path(arguments.get(1..).unwrap_or_default()),
        _ => return usage(),
    }
    ExitCode::SUCCESS
}

fn usage() -> ExitCode {
    eprintln!(
        "usage: natd-bench decide | vpn | vpn-path NATD-BINARY [ROUNDS] | path (masquerade | NATD-BINARY) [ROUNDS] | captures [PACKETS]"
    );
    ExitCode::from(2)
}

fn print_vpn_path(arguments: &[String]) -> ExitCode {
    let (program, rounds) = match arguments {
        [program] => (program, Ok(9)),
        [program, rounds] => (program, rounds.parse()),
        _ => return usage(),
    };
    let Ok(rounds) = rounds else { return usage() };
    match path::vpn::compare(program.into(), rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("natd-bench vpn-path: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_path(arguments: &[String]) -> ExitCode {
    let (subject, rounds) = match arguments {
        [subject] => (subject, Ok(5)),
        [subject, rounds] => (subject, rounds.parse()),
        _ => return usage(),
    };
    let subject = match subject.as_str() {
        "masquerade" => path::Subject::Masquerade,
        program => path::Subject::Natd(program.into()),
    };
    let Ok(rounds) = rounds else { return usage() };
    match path::compare(subject, rounds) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("natd-bench path: {error}");
            ExitCode::FAILURE
        }
    }
}

fn print_decide() {
    println!(
        "| decision and rewrite of known flows in random order | ns/packet, median (min..max) of 9 | target | kept | NAT alone | difference |"
    );
    println!("|---|---|---|---|---|---|");
    for (protocol, flows) in
        [(TCP, 1024), (TCP, 65_536), (UDP, 1024), (UDP, 65_536), (ICMP, 1024), (ICMP, 32_768)]
    {
        let decide::Cost { daemon, nat, difference } = decide::measure(protocol, flows);
        let target = (protocol == TCP && flows == 65_536).then_some(250.0);
        let (limit, kept) = target.map_or((String::from("-"), "-"), |most: f64| {
            (format!("≤ {most}"), verdict(daemon.median() <= most))
        });
        println!(
            "| {}, {flows} flows | {daemon} | {limit} | {kept} | {nat} | {difference} |",
            conversation::name(protocol)
        );
    }
    print_memory();
}

fn print_memory() {
    let program = std::env::current_exe().expect("a running program has a path");
    let output = Command::new(program).arg("memory").output().expect("this program can be started again");
    assert!(output.status.success(), "memory: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let fields: Vec<&str> = text.split_whitespace().collect();
    let [full, expired, refilled, again, growth] = fields[..] else { panic!("memory said {text}") };
    let kept = verdict(full.parse::<f64>().is_ok_and(|bytes| bytes <= 400.0));
    println!();
    println!("| resident memory per TCP flow, 65,536 flows | bytes | target | kept |");
    println!("|---|---|---|---|");
    println!("| table full | {full} | ≤ 400 | {kept} |");
    println!("| while it fills (flows=bytes) | {} | - | - |", growth.replace(',', ", "));
    println!("| after all have expired | {expired} | - | - |");
    println!("| full again; full for the sixth time | {refilled}; {again} | - | - |");
}
