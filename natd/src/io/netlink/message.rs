//! The bytes of a netlink message: header, fixed part, attributes; written and read.
//!
//! Everything is padded to four bytes; header and attribute lengths are in the machine's byte order and leave
//! the padding out. Reading stops at the first length that makes no sense and never panics.

/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct nlattr`.
const ATTRIBUTE_HEADER: usize = 4;
/// `NLA_TYPE_MASK`: the two bits above it say "nested" and "network byte order".
const TYPE_MASK: u16 = 0x3fff;
/// `NLA_F_NESTED`.
const NESTED: u16 = 0x8000;

/// `NLM_F_REQUEST`.
pub(crate) const REQUEST: u16 = 0x1;

/// One message that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Message<'a> {
    /// `nlmsg_type`.
    pub(crate) kind: u16,
    /// `nlmsg_flags`.
    pub(crate) flags: u16,
    /// `nlmsg_seq`: that of the request it answers, 0 for an event.
    pub(crate) seq: u32,
    /// What follows the header.
    pub(crate) body: &'a [u8],
}

impl<'a> Message<'a> {
    /// The attributes behind a fixed part of `fixed` bytes.
    pub(crate) fn attributes(&self, fixed: usize) -> Attributes<'a> {
        attributes(self.body.get(align(fixed)..).unwrap_or_default())
    }
}

/// Appends one message to `buf`: its header, then whatever `fill` puts into it.
pub(crate) fn write(buf: &mut Vec<u8>, kind: u16, flags: u16, seq: u32, fill: impl FnOnce(&mut Writer<'_>)) {
    let start = buf.len();
    buf.extend_from_slice(&[0; 4]);
    buf.extend_from_slice(&kind.to_ne_bytes());
    buf.extend_from_slice(&flags.to_ne_bytes());
    buf.extend_from_slice(&seq.to_ne_bytes());
    buf.extend_from_slice(&[0; 4]); // port id: the kernel knows the sender
    fill(&mut Writer { buf });
    let len = u32::try_from(buf.len() - start).unwrap_or(u32::MAX);
    patch(buf, start, &len.to_ne_bytes());
}

/// Fills the message that [`write`] has begun.
pub(crate) struct Writer<'a> {
    buf: &'a mut Vec<u8>,
}

impl Writer<'_> {
    /// The fixed part that comes before the attributes.
    pub(crate) fn fixed(&mut self, bytes: &[u8]) {
        self.buf.extend_from_slice(bytes);
        self.pad();
    }

    /// An attribute; `payload` of up to 65,531 bytes.
    pub(crate) fn attribute(&mut self, kind: u16, payload: &[u8]) {
        self.buf.extend_from_slice(&attribute_header(kind, payload.len()));
        self.buf.extend_from_slice(payload);
        self.pad();
    }

    /// An attribute that holds attributes.
    pub(crate) fn nested(&mut self, kind: u16, fill: impl FnOnce(&mut Writer<'_>)) {
        let start = self.buf.len();
        self.buf.extend_from_slice(&attribute_header(kind | NESTED, 0));
        fill(&mut Writer { buf: self.buf });
        let len = u16::try_from(self.buf.len() - start).unwrap_or(u16::MAX);
        patch(self.buf, start, &len.to_ne_bytes());
    }

    fn pad(&mut self) {
        self.buf.resize(align(self.buf.len()), 0);
    }
}

/// `struct nlattr` in front of `len` bytes.
pub(crate) fn attribute_header(kind: u16, len: usize) -> [u8; ATTRIBUTE_HEADER] {
    let len = u16::try_from(len + ATTRIBUTE_HEADER).unwrap_or(u16::MAX).to_ne_bytes();
    let kind = kind.to_ne_bytes();
    let [l0, l1] = len;
    let [k0, k1] = kind;
    [l0, l1, k0, k1]
}

/// Adds `more` bytes, that are sent from elsewhere, to the length of the message that starts at `start`.
pub(crate) fn lengthen(buf: &mut [u8], start: usize, more: usize) {
    let len = u32::try_from(buf.len() - start + more).unwrap_or(u32::MAX);
    patch(buf, start, &len.to_ne_bytes());
}

/// The messages of one datagram from the kernel.
pub(crate) fn messages(bytes: &[u8]) -> Messages<'_> {
    Messages { rest: bytes }
}

/// See [`messages`].
#[derive(Clone, Debug)]
pub(crate) struct Messages<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Messages<'a> {
    type Item = Message<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::try_from(ne32(self.rest)?).ok()?;
        let whole = self.rest.get(..len)?;
        let message = Message {
            kind: ne16(whole.get(4..)?)?,
            flags: ne16(whole.get(6..)?)?,
            seq: ne32(whole.get(8..)?)?,
            body: whole.get(HEADER..)?,
        };
        self.rest = self.rest.get(align(len)..).unwrap_or_default();
        Some(message)
    }
}

/// The attributes in `bytes`: type without its flag bits, and payload.
pub(crate) fn attributes(bytes: &[u8]) -> Attributes<'_> {
    Attributes { rest: bytes }
}

/// See [`attributes`].
#[derive(Clone, Debug)]
pub(crate) struct Attributes<'a> {
    rest: &'a [u8],
}

impl<'a> Iterator for Attributes<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let len = usize::from(ne16(self.rest)?);
        let kind = ne16(self.rest.get(2..)?)? & TYPE_MASK;
        let payload = self.rest.get(ATTRIBUTE_HEADER..len)?;
        self.rest = self.rest.get(align(len)..).unwrap_or_default();
        Some((kind, payload))
    }
}

/// The first two bytes, in the machine's byte order.
pub(crate) fn ne16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(*bytes.first_chunk()?))
}

/// The first four bytes, in the machine's byte order.
pub(crate) fn ne32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_ne_bytes(*bytes.first_chunk()?))
}

/// The first two bytes, in network byte order.
pub(crate) fn be16(bytes: &[u8]) -> Option<u16> {
    Some(u16::from_be_bytes(*bytes.first_chunk()?))
}

/// The first four bytes, in network byte order.
pub(crate) fn be32(bytes: &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(*bytes.first_chunk()?))
}

const fn align(len: usize) -> usize {
    (len + 3) & !3
}

fn patch(buf: &mut [u8], at: usize, bytes: &[u8]) {
    if let Some(place) = buf.get_mut(at..at + bytes.len()) {
        place.copy_from_slice(bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        let mut buf = Vec::new();
        write(&mut buf, 7, 5, 42, |message| {
            message.fixed(&[2, 0, 0, 0]);
            message.attribute(1, b"abcde");
            message.nested(2, |inner| inner.attribute(3, &9u32.to_be_bytes()));
        });
        write(&mut buf, 8, 0, 43, |_| {});

        let read: Vec<_> = messages(&buf).collect();

        assert_eq!(read.len(), 2);
        assert_eq!((read[0].kind, read[0].flags, read[0].seq), (7, 5, 42));
        let outer: Vec<_> = read[0].attributes(4).collect();
        assert_eq!(outer[0], (1, &b"abcde"[..]));
        assert_eq!(outer[1].0, 2);
        assert_eq!(attributes(outer[1].1).collect::<Vec<_>>(), [(3, &[0, 0, 0, 9][..])]);
        assert_eq!(outer.len(), 2);
        assert_eq!(read[1], Message { kind: 8, flags: 0, seq: 43, body: &[] });
    }

    #[test]
    fn nonsensical_lengths_end_the_reading() {
        let mut buf = Vec::new();
        write(&mut buf, 7, 5, 42, |message| message.attribute(1, b"abcd"));
        for len in [0u32, 1, 15, 4096] {
            patch(&mut buf, 0, &len.to_ne_bytes());
            assert_eq!(messages(&buf).count(), 0, "message length {len}");
        }
        for len in [0u16, 3, 9] {
            let bytes = [len.to_ne_bytes()[0], len.to_ne_bytes()[1], 1, 0, 1, 2, 3, 4];
            assert_eq!(attributes(&bytes).count(), 0, "attribute length {len}");
        }
        assert_eq!(messages(&[1, 2, 3]).count(), 0);
    }

    #[test]
    fn every_cut_of_a_message_is_survived() {
        let mut buf = Vec::new();
        write(&mut buf, 7, 5, 42, |message| message.nested(1, |inner| inner.attribute(2, b"abcdefg")));
        for cut in 0..buf.len() {
            assert_eq!(messages(&buf[..cut]).count(), 0, "cut at {cut}");
        }
    }
}
