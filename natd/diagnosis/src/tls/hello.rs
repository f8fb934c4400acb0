//! The name in a ClientHello (RFC 8446 section 4.1.2, RFC 6066 section 3).

/// Extension "server_name", and its entry "host_name".
const SERVER_NAME: u16 = 0;
const HOST_NAME: u8 = 0;
/// Extensions that are read.
const EXTENSIONS: usize = 64;
/// A name has no more bytes.
const NAME: usize = 253;

/// The server's name in a TCP payload that begins with a ClientHello, in small letters, if it got that far.
pub(super) fn server_name(payload: &[u8]) -> Option<String> {
    let &[0x16, 3, _, _, _, 1, _, _, _, 3, _, ..] = payload else { return None };
    // Record header, message header, version, random.
    let rest = behind(payload.get(43..)?, 1)?; // session ID
    let rest = behind(rest, 2)?; // cipher suites
    let rest = behind(rest, 1)?; // compression methods
    let mut extensions = rest.get(2..)?;
    for _ in 0..EXTENSIONS {
        let kind = be16(extensions)?;
        let body = extensions.get(2..)?;
        if kind == SERVER_NAME {
            // Length of the extension, length of the list, kind and length of its first entry.
            let &[_, _, _, _, HOST_NAME, high, low, ..] = body else { return None };
            let length = usize::from(u16::from_be_bytes([high, low]));
            let name = body.get(7..7 + length).filter(|_| length <= NAME)?;
            return Some(core::str::from_utf8(name).ok()?.to_ascii_lowercase());
        }
        extensions = behind(body, 2)?;
    }
    None
}

/// What is behind a vector whose length is in the first `width` bytes.
fn behind(bytes: &[u8], width: usize) -> Option<&[u8]> {
    let length = if width == 1 { usize::from(*bytes.first()?) } else { usize::from(be16(bytes)?) };
    bytes.get(width + length..)
}

fn be16(bytes: &[u8]) -> Option<u16> {
    bytes.first_chunk().map(|field| u16::from_be_bytes(*field))
}
