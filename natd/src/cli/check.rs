//! `natd check`: the configuration, the kernel, the surroundings.

use std::io::Write;

use super::args::CheckOptions;
use super::{ExitCode, Failure};
use crate::check::{self, Expected, Finding, Level};
use crate::config::{Config, Kernel};
use crate::io::control::{self, Request};
use crate::io::netlink::{Interface, Links};
use crate::io::rules::survey::survey;
use crate::report::Status;
use crate::rules::{InterfaceName, Queues};
use crate::{daemon, io};

/// More lines about one file help nobody.
const MOST_PROBLEMS: usize = 100;

pub(super) fn check(options: &CheckOptions, out: &mut dyn Write) -> Result<ExitCode, Failure> {
    let findings = match read(options) {
        Ok((config, mut findings)) => {
            findings.extend(look_around(&config, options));
            findings
        }
        Err(findings) => findings,
    };
    if options.json {
        serde_json::to_writer(&mut *out, &findings).map_err(std::io::Error::from)?;
        writeln!(out)?;
    } else {
        for finding in &findings {
            writeln!(out, "{finding}")?;
        }
    }
    Ok(if check::worst(&findings) == Level::Problem { ExitCode::Problem } else { ExitCode::Fine })
}

/// The configuration and what is odd about it, or what is wrong with it.
fn read(options: &CheckOptions) -> Result<(Config, Vec<Finding>), Vec<Finding>> {
    let path = options.config.display();
    let text = io::files::read_config(&options.config)
        .map_err(|error| check::configuration(&[error.to_string()]))?;
    match Config::parse(&text) {
        Ok((config, remarks)) => {
            let mut findings = check::configuration(&[]);
            findings.extend(remarks.iter().map(|remark| check::remark(format!("{path}: {remark}"))));
            Ok((config, findings))
        }
        Err(problems) => {
            let lines: Vec<String> =
                problems.iter().take(MOST_PROBLEMS).map(|p| format!("{path}: {p}")).collect();
            Err(check::configuration(&lines))
        }
    }
}

fn look_around(config: &Config, options: &CheckOptions) -> Vec<Finding> {
    // The configuration has checked the names and numbers by the same rules.
    let name = |name: &String| name.parse::<InterfaceName>().ok();
    let Kernel { queue, queues, rules, .. } = config.kernel;
    let (Some(wan), lan, Some(queues)) = (
        name(&config.wan),
        config.lan.iter().filter_map(name).collect::<Vec<_>>(),
        Queues::new(queue, queues),
    ) else {
        return Vec::new();
    };
    let interfaces = Links::open().and_then(|mut links| links.snapshot()).unwrap_or_default();
    let addresses = |interface: Option<&Interface>| {
        interface.map(|i| i.addresses.iter().map(|a| a.address).collect::<Vec<_>>()).unwrap_or_default()
    };
    let lan_prefixes: Vec<_> = config
        .lan
        .iter()
        .flat_map(|lan| addresses(interfaces.named(lan)))
        .map(|address| (address.addr, address.prefix))
        .collect();
    let expected = Expected {
        wan: &wan,
        lan: &lan,
        lan_prefixes: &lan_prefixes,
        forwards: &config.policy.forwards,
        passthrough: &config.passthrough,
        queues,
    };
    let socket = options.socket.as_ref().unwrap_or(&config.socket);
    let running = control::request(socket, &Request::Status, control::PATIENCE)
        .and_then(|reply| reply.only_line())
        .and_then(|line| control::parse::<Status>(&line))
        .ok()
        .map(|status| status.pid);
    let seen = survey(&expected, daemon::want(rules), addresses(interfaces.named(&config.wan)), running);
    check::findings(&expected, &seen)
}
