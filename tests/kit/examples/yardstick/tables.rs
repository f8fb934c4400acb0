//! What a NAT's own tables say.

use testkit::{Lab, Nat};

/// A TCP connection in them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Connection {
    /// The table's word for it.
    pub(crate) state: String,
    /// Seconds until it is forgotten.
    pub(crate) expires: u64,
}

/// The connection to TCP port `port`, if there is one: conntrack's of the kernel, natd's of natd.
pub(crate) fn connection(lab: &mut Lab, port: u16) -> Option<Connection> {
    if lab.nat() == Nat::Natd {
        let flows = lab.natd().command(&["flows", "--json"]).expect_success();
        let ends =
            |flow: &&str| text(flow, "remote").is_some_and(|remote| remote.ends_with(&format!(":{port}")));
        let flow = flows.split('}').filter(|flow| text(flow, "protocol") == Some("tcp")).find(ends)?;
        return Some(Connection {
            state: text(flow, "state")?.to_owned(),
            expires: number(flow, "expires_secs")?,
        });
    }
    let listed =
        lab.router.run(&["conntrack", "-L", "-p", "tcp", "--orig-port-dst", &port.to_string()]).stdout;
    let mut words = listed.split_whitespace().skip(2);
    let expires = words.next()?.parse().ok()?;
    Some(Connection { state: words.next()?.to_owned(), expires })
}

/// The text of a field in one flat JSON object.
pub(crate) fn text<'a>(object: &'a str, field: &str) -> Option<&'a str> {
    value(object, field)?.strip_prefix('"')?.split('"').next()
}

/// The number of a field in one flat JSON object.
pub(crate) fn number(object: &str, field: &str) -> Option<u64> {
    let value = value(object, field)?;
    value.split(|character: char| !character.is_ascii_digit()).next()?.parse().ok()
}

fn value<'a>(object: &'a str, field: &str) -> Option<&'a str> {
    let (_, rest) = object.split_once(&format!("\"{field}\":"))?;
    Some(rest.trim_start())
}

/// A counter of `conntrack -S`, summed over the processors.
pub(crate) fn conntrack_counter(lab: &Lab, name: &str) -> u64 {
    let listed = lab.router.run(&["conntrack", "-S"]).stdout;
    let start = format!("{name}=");
    listed.split_whitespace().filter_map(|word| word.strip_prefix(&start)?.parse::<u64>().ok()).sum()
}
