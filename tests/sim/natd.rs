//! natd's engine as a NAT under test.

use crate::nat::NatUnderTest;

/// natd; `None` where there is no adapter.
pub(crate) fn natd() -> Option<Box<dyn NatUnderTest>> {
    None
}
