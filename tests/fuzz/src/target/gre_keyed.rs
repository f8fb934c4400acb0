//! The GRE reader, and the conversations of protocols that have a key.

use nat_core::flow::Direction;
use nat_core::time::Timestamp;
use passthrough::gre::GreHeader;
use passthrough::keyed::{Carrier, Keyed, Wire};

use super::script::{DEVICES, Script};

pub(crate) fn run(input: &[u8]) {
    header(input);
    let script = &mut Script(input);
    let mut keyed = Keyed::new();
    let mut now = Timestamp::from_secs(1);
    let mut events = 0_u32;
    while let Some(event) = script.event() {
        events += 1;
        match event % 8 {
            0 => {
                now = now + script.time();
                keyed.handle_timeout(now);
                assert!(keyed.poll_timeout().is_none_or(|due| due > now), "a timeout is overdue");
            }
            1 => {
                let server = (event & 8 != 0).then(|| script.device());
                keyed.set_server(if event & 16 == 0 { Carrier::Gre } else { Carrier::L2tpV3 }, server);
            }
            2 if event > 240 => keyed.clear(),
            2 => quote(&keyed, script),
            3 | 4 | 7 => {
                let (device, remote) = (script.device(), script.remote());
                let bytes = script.bytes();
                if let Some(wire) = wire(event, bytes) {
                    if let Ok(handle) = keyed.outbound(now, device, remote, wire) {
                        assert!(keyed.usage(handle).is_some(), "a conversation that is none");
                        keyed.account(now, handle, Direction::Outbound, 1, 100);
                    }
                }
            }
            _ => {
                let remote = script.remote();
                let bytes = script.bytes();
                if let Some(wire) = wire(event, bytes) {
                    if let Ok(arrival) = keyed.inbound(now, remote, wire) {
                        assert!(DEVICES.contains(&arrival.device), "to nobody: {arrival:?}");
                        if let Some(handle) = arrival.conversation {
                            assert!(keyed.usage(handle).is_some(), "a conversation that is none");
                        }
                    }
                }
            }
        }
        let views: Vec<_> = keyed.views(now).collect();
        assert!(views.len() <= 256 && views.len() <= events as usize, "{} conversations", views.len());
        assert!(
            views.iter().all(|view| view.inbound.len() <= 64 && view.outbound.len() <= 64),
            "too many keys"
        );
        for (at, view) in views.iter().enumerate() {
            for key in &view.inbound {
                let times = view.inbound.iter().filter(|other| *other == key).count();
                assert_eq!(times, 1, "a conversation has {key:?} more than once");
                let twice = views
                    .iter()
                    .skip(at + 1)
                    .any(|other| other.remote == view.remote && other.inbound.contains(key));
                assert!(!twice, "two conversations have {key:?}");
            }
        }
    }
    // Everything ends.
    for _ in 0..=events {
        let Some(due) = keyed.poll_timeout() else { break };
        keyed.handle_timeout(due);
    }
    assert_eq!(keyed.views(now).count(), 0, "a conversation without end");
}

fn header(packet: &[u8]) {
    if let Some(header) = GreHeader::parse(packet) {
        assert!(header.header_len <= packet.len() && header.version <= 1, "{header:?}");
        assert!(header.call_id.is_none() || header.key.is_none(), "{header:?}");
    }
}

fn wire(event: u8, bytes: &[u8]) -> Option<Wire<'_>> {
    if event & 0x40 == 0 {
        Some(Wire::Gre { header: GreHeader::parse(bytes)?, len: bytes.len() })
    } else {
        Some(Wire::L2tpV3(bytes))
    }
}

fn quote(keyed: &Keyed, script: &mut Script<'_>) {
    let (remote, kind) = (script.remote(), script.byte());
    let bytes = script.bytes();
    if let Some(wire) = wire(kind, bytes) {
        for device in [keyed.quoted(remote, wire), keyed.quoted_inbound(remote, wire)].into_iter().flatten() {
            assert!(DEVICES.contains(&device), "quoted to nobody: {device}");
        }
    }
}
