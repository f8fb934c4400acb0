//! What authentication is asked for, given and due.

use super::AUTHENTICATION;

/// How a peer shows who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Method {
    Chap,
    Pap,
}

impl Method {
    /// As LCP asks for it.
    pub(crate) fn option(self) -> &'static [u8] {
        match self {
            // MS-CHAP-V2 is algorithm 0x81.
            Self::Chap => &[AUTHENTICATION, 5, 0xc2, 0x23, 0x81],
            Self::Pap => &[AUTHENTICATION, 4, 0xc0, 0x23],
        }
    }
}

/// What is next between LCP and IPCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    Challenge,
    Login,
    /// The peer is to speak.
    Nothing,
}

#[derive(Debug)]
pub(crate) struct Auth {
    pub(crate) require: Option<Method>,
    pub(crate) password: String,
    pub(crate) passive: bool,
    /// Has the peer shown who it is?
    pub(crate) done: bool,
    /// How the peer wants to know who this is.
    pub(crate) login: Option<Method>,
}

impl Auth {
    pub(crate) fn from_environment() -> Self {
        let text = |name| std::env::var(name).unwrap_or_default();
        let require = match text("MINIPPP_REQUIRE").as_str() {
            "chap" => Some(Method::Chap),
            "pap" => Some(Method::Pap),
            _ => None,
        };
        let passive = !text("MINIPPP_PASSIVE").is_empty();
        Self { require, password: text("MINIPPP_PASSWORD"), passive, done: false, login: None }
    }

    pub(crate) fn due(&self) -> Option<Due> {
        match self.require {
            _ if self.login == Some(Method::Pap) => Some(Due::Login),
            _ if self.login.is_some() => Some(Due::Nothing),
            Some(Method::Chap) if !self.done => Some(Due::Challenge),
            Some(Method::Pap) if !self.done => Some(Due::Nothing),
            _ => None,
        }
    }

    /// In the place of a hash of the password.
    pub(crate) fn proof(&self) -> [u8; 16] {
        let mut proof = [0x3a; 16];
        for (byte, letter) in proof.iter_mut().zip(self.password.bytes()) {
            *byte ^= letter;
        }
        proof
    }
}
