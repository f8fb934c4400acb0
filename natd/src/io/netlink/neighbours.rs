//! Devices that do not answer: packets for them wait in the kernel until it gives up.

use std::io;

use super::message::ne32;
use super::socket::{Socket, flags};

// linux/neighbour.h, linux/rtnetlink.h
const RTM_NEWNEIGH: u16 = 28;
const RTM_DELNEIGH: u16 = 29;
const RTM_GETNEIGH: u16 = 30;
const NDMSG: usize = 12;
const NDA_DST: u16 = 1;
const NUD_INCOMPLETE: u16 = 0x01;

/// Makes the kernel give up now on every address behind `interfaces` that it is still asking for, and say so
/// to the senders of what waits for them. Answers how many there were.
///
/// # Errors
/// What the kernel answers to the listing.
pub fn give_up_on_silent(interfaces: &[u32]) -> io::Result<usize> {
    let mut socket = Socket::open(libc::NETLINK_ROUTE, 0)?;
    let mut silent: Vec<([u8; NDMSG], Vec<u8>)> = Vec::new();
    let mut query = [0; NDMSG];
    query[0] = u8::try_from(libc::AF_INET).unwrap_or(2);
    socket.request(
        RTM_GETNEIGH,
        flags::DUMP,
        |message| message.fixed(&query),
        |message| {
            let Some(header) = message.body.first_chunk::<NDMSG>() else { return };
            // struct ndmsg: family, padding, index at 4, state at 8.
            let (index, state) =
                (header.get(4..).and_then(ne32), header.get(8..).and_then(super::message::ne16));
            let ours = index.is_some_and(|index| interfaces.contains(&index));
            if message.kind != RTM_NEWNEIGH || !ours || state.is_none_or(|s| s & NUD_INCOMPLETE == 0) {
                return;
            }
            if let Some((_, address)) = message.attributes(NDMSG).find(|(kind, _)| *kind == NDA_DST) {
                silent.push((*header, address.to_vec()));
            }
        },
    )?;
    for (header, address) in &silent {
        let delete = socket.request(
            RTM_DELNEIGH,
            0,
            |message| {
                message.fixed(header);
                message.attribute(NDA_DST, address);
            },
            |_| {},
        );
        if let Err(error) = delete {
            log::debug!("a neighbour was gone already: {error}");
        }
    }
    Ok(silent.len())
}
