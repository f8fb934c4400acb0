//! What a finding means, for the person at home.

use crate::code::Code;

/// A code in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Words {
    /// What is wrong, in one sentence.
    pub says: &'static str,
    /// What to do about it.
    pub fix: &'static str,
    /// The configuration key of natd that mends it.
    pub key: Option<&'static str>,
}

/// The words for `code`.
pub const fn words(code: Code) -> Words {
    let _ = code;
    Words { says: "", fix: "", key: None }
}

/// The error numbers that Windows may show for `code`.
pub const fn windows(code: Code) -> &'static [u16] {
    let _ = code;
    &[]
}
