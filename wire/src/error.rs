//! Outcomes that travel, and errors of decoding.

use thiserror::Error;

/// The outcome of a request, as a reply's header carries it. The payload of a
/// reply other than `Ok` is a message in UTF-8 for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Error)]
#[repr(u16)]
pub enum Status {
    /// Done.
    #[error("ok")]
    Ok = 0,
    /// The request makes no sense here.
    #[error("bad request")]
    BadRequest = 1,
    /// No protocol version in common.
    #[error("no protocol version in common")]
    BadVersion = 2,
    /// The session does not exist (any more).
    #[error("no such session")]
    NoSession = 3,
    /// The server has no memory left to grant.
    #[error("the server is full")]
    Full = 4,
    /// The session does not own this slab.
    #[error("no such slab")]
    NoSuchSlab = 5,
    /// The run reaches beyond its slab.
    #[error("pages out of range")]
    OutOfRange = 6,
    /// The slab is shared with another session and cannot be written.
    #[error("the slab is shared")]
    Shared = 7,
    /// The request is larger than the protocol allows.
    #[error("too large")]
    TooLarge = 8,
    /// A limit on connections, sessions, children or attempts was reached.
    #[error("a limit of the server is reached")]
    Limit = 9,
    /// A secret is wanted, or the one given is wrong.
    #[error("not authorised")]
    Auth = 10,
    /// The server is ending.
    #[error("the server is shutting down")]
    ShuttingDown = 11,
    /// The server failed; its log says how.
    #[error("internal error of the server")]
    Internal = 12,
}

impl Status {
    /// Every status.
    pub const ALL: [Status; 13] = [
        Status::Ok,
        Status::BadRequest,
        Status::BadVersion,
        Status::NoSession,
        Status::Full,
        Status::NoSuchSlab,
        Status::OutOfRange,
        Status::Shared,
        Status::TooLarge,
        Status::Limit,
        Status::Auth,
        Status::ShuttingDown,
        Status::Internal,
    ];

    pub(crate) fn from_u16(v: u16) -> Option<Status> {
        Status::ALL.into_iter().find(|s| *s as u16 == v)
    }
}

/// Why bytes are not a message of this protocol.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum DecodeError {
    /// Unknown operation.
    #[error("unknown operation {0}")]
    UnknownOp(u8),
    /// Unknown flag bits.
    #[error("unknown flags {0:#x}")]
    UnknownFlags(u8),
    /// Unknown status.
    #[error("unknown status {0}")]
    UnknownStatus(u16),
    /// A request with the status of a reply.
    #[error("status {0} in a request")]
    RequestStatus(u16),
    /// A reserved field is not zero.
    #[error("a reserved field is not zero")]
    ReservedNotZero,
    /// A run of no pages, or of too many.
    #[error("a run of {0} pages")]
    RunLength(u32),
    /// A payload length that this operation cannot have.
    #[error("a payload of {0} bytes")]
    PayloadLength(u32),
    /// The payload of a HELLO does not begin with the magic bytes.
    #[error("not a tmem peer")]
    Magic,
    /// The payload ends too early or has bytes left over.
    #[error("a malformed payload")]
    Malformed,
}
