//! natd's engine as a NAT under test: the adapter between [`NatUnderTest`] and the engine belongs here.

use crate::nat::NatUnderTest;

/// natd; `None` where there is no adapter.
pub(crate) fn natd() -> Option<Box<dyn NatUnderTest>> {
    None
}
