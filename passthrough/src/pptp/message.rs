//! The control messages of RFC 2637 section 2: their types, lengths and Call IDs.

/// Length of the smallest message: the header alone.
pub(super) const MIN_LENGTH: u16 = 12;
/// Length of the largest one, Incoming-Call-Request.
pub(super) const MAX_LENGTH: u16 = 220;
/// Offset behind the first Call ID.
pub(super) const FIRST_ID_END: u16 = 14;
/// Offset behind the second one, the peer's in a reply.
pub(super) const SECOND_ID_END: u16 = 16;
/// The result "connected" of a call's reply, "successful" of Start-Control-Connection-Reply.
pub(super) const RESULT_OK: u8 = 1;

/// PPTP message type 1, control message, and the magic cookie (section 2): bytes 2 to 7.
pub(super) const MARK: [u8; 6] = [0, 1, 0x1a, 0x2b, 0x3c, 0x4d];

/// A control message of a known type and of the length that belongs to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Message {
    StartRequest,
    StartReply,
    StopRequest,
    StopReply,
    Echo,
    OutgoingCallRequest,
    OutgoingCallReply,
    IncomingCallRequest,
    IncomingCallReply,
    IncomingCallConnected,
    CallClearRequest,
    CallDisconnectNotify,
    WanErrorNotify,
    SetLinkInfo,
}

/// Why a message is left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Strange {
    /// No type of RFC 2637.
    Type,
    /// A length that its type does not have.
    Length,
}

impl Message {
    /// The message of control message type `number` that is `length` bytes long, header included.
    pub(super) const fn of(number: u16, length: u16) -> Result<Self, Strange> {
        let (message, expected) = match number {
            1 => (Self::StartRequest, 156),
            2 => (Self::StartReply, 156),
            3 => (Self::StopRequest, 16),
            4 => (Self::StopReply, 16),
            5 => (Self::Echo, 16),
            6 => (Self::Echo, 20),
            7 => (Self::OutgoingCallRequest, 168),
            8 => (Self::OutgoingCallReply, 32),
            9 => (Self::IncomingCallRequest, MAX_LENGTH),
            10 => (Self::IncomingCallReply, 24),
            11 => (Self::IncomingCallConnected, 28),
            12 => (Self::CallClearRequest, 16),
            13 => (Self::CallDisconnectNotify, 148),
            14 => (Self::WanErrorNotify, 40),
            15 => (Self::SetLinkInfo, 24),
            _ => return Err(Strange::Type),
        };
        if length == expected { Ok(message) } else { Err(Strange::Length) }
    }

    /// What its first Call ID, at offset 12, says.
    pub(super) const fn first_id(self) -> FirstId {
        match self {
            Self::StartRequest | Self::StartReply | Self::StopRequest | Self::StopReply | Self::Echo => {
                FirstId::Absent
            }
            Self::OutgoingCallRequest => FirstId::Asks(Asked::Outgoing),
            Self::IncomingCallRequest => FirstId::Asks(Asked::Incoming),
            Self::OutgoingCallReply => FirstId::Answers(Asked::Outgoing),
            Self::IncomingCallReply => FirstId::Answers(Asked::Incoming),
            Self::CallClearRequest | Self::CallDisconnectNotify => FirstId::Sender,
            Self::IncomingCallConnected | Self::WanErrorNotify | Self::SetLinkInfo => FirstId::Receiver,
        }
    }
}

/// Whose a message's first Call ID is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum FirstId {
    /// There is none.
    Absent,
    /// The sender's own, in a request.
    Asks(Asked),
    /// The sender's own, in a reply, which names the receiver's behind it.
    Answers(Asked),
    /// The sender's own by the RFC; the receiver's from some implementations.
    Sender,
    /// The receiver's by the RFC; the sender's from some implementations.
    Receiver,
}

/// Which of the two kinds of call a request opens; only a reply of that kind answers it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asked {
    Outgoing,
    Incoming,
}
