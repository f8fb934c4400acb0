//! Big-endian fields, written and read.

/// Bytes under construction.
#[derive(Debug, Default)]
pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    pub(super) fn put(&mut self, bytes: &[u8]) {
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn put16(&mut self, value: u16) {
        self.put(&value.to_be_bytes());
    }

    /// `head`, a length in 16 bits of everything from there on, and what `fill` writes.
    pub(super) fn nest(&mut self, head: &[u8], fill: impl FnOnce(&mut Self)) {
        let start = self.len();
        self.put(head);
        let at = self.len();
        self.put16(0);
        fill(self);
        let length = u16::try_from(self.len() - start).unwrap_or(u16::MAX);
        self.patch(at, &length.to_be_bytes());
    }

    pub(super) fn patch32(&mut self, at: usize, value: usize) {
        self.patch(at, &u32::try_from(value).unwrap_or(u32::MAX).to_be_bytes());
    }

    pub(super) fn patch(&mut self, at: usize, bytes: &[u8]) {
        if let Some(place) = self.0.get_mut(at..at + bytes.len()) {
            place.copy_from_slice(bytes);
        }
    }
}

/// What is still to be read.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(*head)
    }

    pub(super) fn take(&mut self, length: usize) -> Option<&'a [u8]> {
        let (head, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(head)
    }

    pub(super) fn u16(&mut self) -> Option<u16> {
        self.array().map(u16::from_be_bytes)
    }

    /// A length in 16 bits that counts `before` bytes up to and with itself, and what it counts beyond them.
    pub(super) fn take16(&mut self, before: usize) -> Option<&'a [u8]> {
        let length = usize::from(self.u16()?).checked_sub(before)?;
        self.take(length)
    }
}
