//! `[kernel]`, `[control]`, `[log]`: how the daemon itself works.

use std::path::PathBuf;

use log::LevelFilter;

use super::document::Document;
use super::item::Item;
use super::{Config, Findings, Kernel, Problem, Rules};

const RULES: [(&str, Rules); 3] = [("auto", Rules::Auto), ("nft", Rules::Nft), ("iptables", Rules::Iptables)];
const LEVELS: [(&str, LevelFilter); 5] = [
    ("error", LevelFilter::Error),
    ("warn", LevelFilter::Warn),
    ("info", LevelFilter::Info),
    ("debug", LevelFilter::Debug),
    ("trace", LevelFilter::Trace),
];
const MOST_QUEUES: u16 = 16;
const QUEUE_LENGTH: std::ops::RangeInclusive<u32> = 256..=65_535;
/// What fits `sockaddr_un` with its final zero byte.
const LONGEST_SOCKET: usize = 107;

/// `[kernel]`.
pub(super) fn kernel(document: &Document<'_>, findings: &mut Findings) -> Kernel {
    let section = document.section("kernel");
    let mut kernel = Kernel::default();
    findings.set(&mut kernel.rules, section.item("rules"), |item| item.choice(&RULES));
    findings.set(&mut kernel.queue, section.item("queue"), |item| item.number(0..=u16::MAX));
    findings.set(&mut kernel.queues, section.item("queues"), |item| item.number(1..=MOST_QUEUES));
    findings.set(&mut kernel.queue_length, section.item("queue_length"), |item| item.number(QUEUE_LENGTH));
    let highest = u16::MAX - (kernel.queues - 1);
    if let (true, Some(item)) = (kernel.queue > highest, section.item("queue")) {
        findings.problems.push(item.refused(
            &format!("leaves no room for {} queues below 65536", kernel.queues),
            format!("use a whole number from 0 to {highest}"),
        ));
    }
    kernel
}

/// `[control] socket`.
pub(super) fn socket(document: &Document<'_>, findings: &mut Findings) -> PathBuf {
    let item = document.section("control").item("socket");
    findings.take(item, socket_path).unwrap_or_else(|| PathBuf::from(Config::DEFAULT_SOCKET))
}

/// `[log] level`.
pub(super) fn log(document: &Document<'_>, findings: &mut Findings) -> LevelFilter {
    findings
        .take(document.section("log").item("level"), |item| item.choice(&LEVELS))
        .unwrap_or(LevelFilter::Info)
}

fn socket_path(item: &Item<'_>) -> Result<PathBuf, Problem> {
    let expected = format!(
        "use an absolute path of at most {LONGEST_SOCKET} bytes, such as \"{}\"",
        Config::DEFAULT_SOCKET
    );
    let path = item.text(&expected)?;
    if !path.starts_with('/') || path.ends_with('/') {
        return Err(item.refused("is not the absolute path of a file", expected));
    }
    if path.contains('\0') {
        return Err(item.refused("has a zero byte", expected));
    }
    if path.len() > LONGEST_SOCKET {
        return Err(item.problem(format!("the path has {} bytes", path.len()), expected));
    }
    Ok(PathBuf::from(path))
}
