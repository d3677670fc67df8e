//! Why a server cannot be used, in words for people.

use crate::sys::errno::Words;
use core::fmt;
use rustix::io::Errno;
use thiserror::Error;
use tmem_wire::{DecodeError, Status};

/// An error number of a connection, in words.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Code(pub Errno);

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Errno::FAULT => f.write_str("a page could not be read or written"),
            other => Words(other).fmt(f),
        }
    }
}

impl fmt::Debug for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a server was refused or lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum Reason {
    /// The server's name gave no address.
    #[error("its name has no address")]
    NoAddress,
    /// No connection could be made, or it broke.
    #[error("{0}")]
    Io(Code),
    /// The server closed the connection.
    #[error("it closed the connection")]
    Closed,
    /// No connection in time.
    #[error("no connection within {0} ms")]
    NoConnection(u64),
    /// No answer to the greeting in time.
    #[error("no answer within {0} ms")]
    NoAnswer(u64),
    /// Requests waited this many milliseconds without any answer.
    #[error("it answered nothing for {0} ms")]
    Stalled(u64),
    /// What it sent is no message of the protocol.
    #[error("it does not speak tmem's protocol ({0})")]
    Protocol(DecodeError),
    /// A message of the protocol that makes no sense where it came.
    #[error("it broke the protocol: {0}")]
    Unexpected(&'static str),
    /// It speaks another version of the protocol.
    #[error("it speaks version {0} of the protocol, this is version {ours}", ours = tmem_wire::VERSION)]
    Version(u16),
    /// It refused, or failed, with this status.
    #[error("{}", Told(*.0))]
    Status(Status),
    /// It has no place for one more connection or session: what limits them.
    #[error("it has {0}")]
    NoPlace(&'static str),
    /// It wants a secret and there is none.
    #[error("it wants a secret, and none is configured")]
    SecretWanted,
    /// The secret is not the one that it knows.
    #[error("it does not accept the secret")]
    SecretWrong,
    /// It does not know the secret that this side knows.
    #[error("it does not prove that it knows the secret")]
    NoProof,
    /// It was started anew, and what it held is gone.
    #[error("it was restarted, and what it held is gone")]
    Restarted,
    /// It ended the session, and what it held is gone.
    #[error("it ended the session, and what it held is gone")]
    SessionGone,
    /// No random numbers from the kernel.
    #[error("the kernel gives no random numbers")]
    NoRandom,
}

/// A status, where one is more to a connection than to a request.
struct Told(Status);

/// What a server has no place for, by the flag that it names.
const PLACES: [(&str, &str); 3] = [
    (
        "--max-per-client",
        "no more connections to give to this machine: --max-per-client",
    ),
    (
        "--client-sessions",
        "no more sessions to give to this machine: --client-sessions",
    ),
    ("--max-connections", MOST),
];

/// What limits the connections of a server that names no flag.
const MOST: &str = "no more connections to give: --max-connections";

impl fmt::Display for Told {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Status::Limit => write!(f, "it has {MOST}"),
            status => write!(f, "{status}"),
        }
    }
}

impl Reason {
    /// A refusal for a limit, in the server's words.
    pub(super) fn no_place(words: &str) -> Reason {
        let named = PLACES.iter().find(|(flag, _)| words.contains(flag));
        Reason::NoPlace(named.map_or(MOST, |(_, what)| what))
    }

    /// Whether it has no place for one more connection now.
    pub(super) fn is_limit(&self) -> bool {
        matches!(self, Reason::NoPlace(_) | Reason::Status(Status::Limit))
    }

    /// Whether the server says that there is no such session, or will be none.
    pub(super) fn ends_session(&self) -> bool {
        matches!(
            self,
            Reason::Restarted
                | Reason::SessionGone
                | Reason::Status(Status::NoSession | Status::ShuttingDown)
        )
    }

    /// Whether the server is there, and may let a client in a moment later.
    pub(super) fn is_busy(&self) -> bool {
        let passing = [Status::Full, Status::Internal];
        self.is_limit() || matches!(self, Reason::Status(status) if passing.contains(status))
    }

    /// Whether another attempt, at another address, may go better.
    pub(super) fn is_transient(&self) -> bool {
        matches!(
            self,
            Reason::Io(_) | Reason::Closed | Reason::NoConnection(_) | Reason::NoAnswer(_)
        ) || self.is_busy()
    }

    /// Whether a session, with all pages that it holds, ends with this. All else
    /// breaks a connection, which is made again: a few bits that were turned over
    /// on the way make bytes that are no protocol, and the next ones are right.
    pub(super) fn is_final(&self) -> bool {
        match self {
            Reason::Status(status) => matches!(
                status,
                Status::NoSession | Status::ShuttingDown | Status::BadVersion | Status::Auth
            ),
            Reason::Io(_)
            | Reason::Closed
            | Reason::NoConnection(_)
            | Reason::NoAnswer(_)
            | Reason::NoPlace(_)
            | Reason::Protocol(_)
            | Reason::Unexpected(_) => false,
            _ => true,
        }
    }
}

impl From<Errno> for Reason {
    fn from(e: Errno) -> Reason {
        Reason::Io(Code(e))
    }
}

impl From<DecodeError> for Reason {
    fn from(e: DecodeError) -> Reason {
        Reason::Protocol(e)
    }
}

/// Why pages could not be read or written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum RequestError {
    /// The server was lost, or was not up.
    #[error("the server is lost")]
    Lost,
    /// The server answered with an error.
    #[error("{0}")]
    Status(Status),
}

impl RequestError {
    /// Whether the same request may be granted a moment later. What is not so is
    /// refused whenever it is asked.
    pub fn is_transient(&self) -> bool {
        let passing = [Status::Internal, Status::Full, Status::Limit];
        matches!(self, RequestError::Status(status) if passing.contains(status))
    }
}
