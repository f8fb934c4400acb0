//! The L2TP reader, and tunnels over a course of datagrams.

use std::collections::BTreeSet;

use nat_core::flow::{Direction, Endpoint};
use nat_core::time::Timestamp;
use passthrough::l2tp::alg::Edit;
use passthrough::l2tp::message::{self, Assigned, Body};
use passthrough::l2tp::{Inbound, L2tp};

use super::script::{DEVICES, Script};

const PORT: u16 = 1701;

pub(crate) fn run(input: &[u8]) {
    read(input);
    let script = &mut Script(input);
    let mut l2tp = L2tp::new();
    let mut now = Timestamp::from_secs(1);
    let mut events = 0_u32;
    while let Some(event) = script.event() {
        events += 1;
        match event % 8 {
            0 => {
                now = now + script.time();
                l2tp.handle_timeout(now);
                assert!(l2tp.poll_timeout().is_none_or(|due| due > now), "a timeout is overdue");
            }
            1 if event > 240 => l2tp.clear(),
            1 => {
                let remote = Endpoint::new(script.remote(), PORT);
                if let Some(device) = l2tp.quoted(remote, script.bytes()) {
                    assert!(DEVICES.contains(&device.addr), "quoted to nobody: {device}");
                }
            }
            2..=4 => {
                let which = script.byte();
                let (device, remote) = (script.device(), script.remote());
                let device = Endpoint::new(device, if which & 1 == 0 { PORT } else { 40_000 });
                let remote = Endpoint::new(remote, if which & 6 == 6 { 40_001 } else { PORT });
                let external =
                    if which & 8 == 0 { 40_000 + u16::from(device.addr.octets()[3]) } else { PORT };
                let built;
                let bytes = if event & 0x10 == 0 {
                    script.bytes()
                } else {
                    built = build(script);
                    &built
                };
                let outbound = l2tp.outbound(now, device, remote, external, bytes);
                edits(&outbound.edits, bytes);
                if let Some(tunnel) = outbound.tunnel {
                    l2tp.account(now, tunnel, Direction::Outbound, 1, 100);
                }
            }
            _ => {
                let which = script.byte();
                let remote = Endpoint::new(script.remote(), if which & 6 == 6 { 40_001 } else { PORT });
                let external = [PORT, 40_010, 40_011, 40_012][usize::from(which >> 3) % 4];
                let built;
                let bytes = if event & 0x10 == 0 {
                    script.bytes()
                } else {
                    built = build(script);
                    &built
                };
                match l2tp.inbound(now, remote, external, bytes) {
                    Inbound::ToNat { edits: changes, .. } => edits(&changes, bytes),
                    Inbound::To { device, edits: changes, tunnel } => {
                        assert!(DEVICES.contains(&device.addr), "to nobody: {device}");
                        edits(&changes, bytes);
                        l2tp.delivered(now, tunnel, remote.id.0);
                        l2tp.account(now, tunnel, Direction::Inbound, 1, 100);
                    }
                    Inbound::Drop(_) => {}
                }
            }
        }
        assert!(l2tp.views(now).count() <= 256, "too many tunnels");
        assert_eq!(l2tp.is_empty(), l2tp.views(now).next().is_none());
    }
    for _ in 0..=events * 4 {
        let Some(due) = l2tp.poll_timeout() else { break };
        l2tp.handle_timeout(due);
    }
    assert!(l2tp.is_empty(), "a tunnel without end");
}

fn read(input: &[u8]) {
    for message in [message::parse(input), message::parse_ip(input)].into_iter().flatten() {
        assert!(message.to_at + 2 <= input.len(), "{message:?}");
        if let Body::Control(control) = message.body {
            if let Assigned::Clear { id, at } = control.assigned_tunnel {
                assert_eq!(input.get(at..at + 2), Some(&id.to_be_bytes()[..]), "{message:?}");
            }
        }
    }
}

fn edits(edits: &[Edit], payload: &[u8]) {
    for edit in edits {
        assert_eq!(payload.get(usize::from(edit.offset)), Some(&edit.old), "a change of what is not there");
    }
    let places: BTreeSet<_> = edits.iter().map(|edit| edit.offset).collect();
    assert_eq!(places.len(), edits.len(), "a byte is changed twice");
}

/// A control message with identifiers out of a few.
fn build(script: &mut Script<'_>) -> Vec<u8> {
    let kind = script.byte();
    let (to, own) = (u16::from(script.byte() % 8), u16::from(script.byte() % 8));
    let v3 = kind & 0x80 != 0;
    let mut avps: Vec<u8> = vec![0x80, 8, 0, 0, 0, 0, 0, kind % 17];
    if kind & 0x40 == 0 {
        avps.extend([0x80, 8, 0, 0, 0, 9]);
        avps.extend(own.to_be_bytes());
    }
    if v3 {
        for avp in [61, 63, 64] {
            avps.extend([0x80, 10, 0, 0, 0, avp, 0, 0]);
            avps.extend(own.to_be_bytes());
        }
    }
    avps.extend_from_slice(script.bytes());
    let length = u16::try_from(12 + avps.len()).unwrap_or(u16::MAX);
    let mut message = vec![0xc8, if v3 { 3 } else { 2 }];
    message.extend(length.to_be_bytes());
    message.extend(if v3 { [[0, 0], to.to_be_bytes()] } else { [to.to_be_bytes(), [0, 0]] }.concat());
    message.extend([0; 4]);
    message.extend(avps);
    message
}
